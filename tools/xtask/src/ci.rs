//! The table of the checks that CI runs before the test suites.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::command::{cargo, run};
use crate::step::Step;
use crate::targets::{WORKSPACES, every_build};
use crate::tools;

/// The checks, in the order in which they run: the quickest first.
pub(crate) const CHECKS: &[Step] = &[
    Step::call("format", format)
        .needs(&[tools::RUSTFMT])
        .about("every file of every workspace is formatted by rustfmt"),
    Step::call("lints", lints)
        .needs(&[tools::CLIPPY])
        .about("clippy and the compiler report no warning"),
    Step::call("docs", docs)
        .about("the documentation builds without a warning, for users and for the project"),
];

fn format() -> Result<String> {
    let workspaces = workspaces(Path::new("."))?;
    ensure!(workspaces.len() > 1, "the firmware's workspace was not found");
    for manifest in &workspaces {
        let mut fmt = cargo();
        fmt.args(["fmt", "--all", "--check", "--manifest-path"]).arg(manifest);
        run(fmt.args(["--", "--color=never"]))?;
    }
    Ok(format!("{} workspaces are formatted", workspaces.len()))
}

/// Returns the manifests of all workspaces in a folder. `cargo fmt --all` formats only one.
fn workspaces(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let manifest = folder.join("Cargo.toml");
    let is_root = |text: String| text.lines().any(|line| line == "[workspace]");
    if fs::read_to_string(&manifest).is_ok_and(is_root) {
        found.push(manifest);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_skipped = name == "target" || name.as_encoded_bytes().starts_with(b".");
        if entry.file_type()?.is_dir() && !is_skipped {
            found.append(&mut workspaces(&entry.path())?);
        }
    }
    Ok(found)
}

fn lints() -> Result<String> {
    for (build, test_files) in every_build()? {
        // All targets are not the test files that a plain `cargo test` leaves out.
        for targets in [&["--all-targets".to_owned()], &test_files[..]] {
            let mut clippy = cargo();
            clippy.arg("clippy").args(build.split(' ')).args(targets);
            run(clippy.args(["--", "-D", "warnings"]))?;
        }
    }
    Ok("no warning".to_owned())
}

/// Builds the documentation in three runs: of programs, of libraries with private items, and of
/// libraries without them.
///
/// The second run checks the links in private items, and the third finds links to private items.
/// Programs have a run of their own, since `keytally` is the name of a program and of a library.
fn docs() -> Result<String> {
    for manifest in WORKSPACES {
        for items in [&["--bins"][..], &["--lib", "--document-private-items"], &["--lib"]] {
            let mut doc = cargo();
            doc.args(["doc", "--workspace", "--no-deps", "--manifest-path", manifest]).args(items);
            run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
        }
    }
    Ok("no warning".to_owned())
}
