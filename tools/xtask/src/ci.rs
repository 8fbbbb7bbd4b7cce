//! The table of the checks that CI runs before the test suites.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::step::{Step, Work};
use crate::targets::{WORKSPACES, every_build};
use crate::tools::{self, Found};

/// The checks, in the order in which they run: the quickest first.
pub(crate) const CHECKS: &[Step] = &[
    Step {
        name: "format",
        about: "every file of every workspace is formatted by rustfmt",
        needs: &[&tools::RUSTFMT],
        full_when_named: false,
        work: Work::Call(format),
    },
    Step {
        name: "lints",
        about: "clippy and the compiler report no warning",
        needs: &[&tools::CLIPPY],
        full_when_named: false,
        work: Work::Call(lints),
    },
    Step {
        name: "docs",
        about: "the documentation builds without a warning, for users and for the project itself",
        needs: &[],
        full_when_named: false,
        work: Work::Call(docs),
    },
];

fn format(_: &[Found]) -> Result<String> {
    let workspaces = workspaces(Path::new("."))?;
    ensure!(workspaces.len() > 1, "the firmware's workspace was not found");
    for manifest in &workspaces {
        let mut fmt = cargo();
        fmt.arg("fmt").arg("--manifest-path").arg(manifest).args([
            "--all",
            "--check",
            "--",
            "--color=never",
        ]);
        command::run(fmt)?;
    }
    Ok(format!("{} workspaces are formatted", workspaces.len()))
}

/// Returns the manifests of all workspaces in a folder. `cargo fmt --all` formats only one.
fn workspaces(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let manifest = folder.join("Cargo.toml");
    if fs::read_to_string(&manifest)
        .is_ok_and(|manifest| manifest.lines().any(|line| line == "[workspace]"))
    {
        found.push(manifest);
    }
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry?;
        let name = entry.file_name();
        let is_skipped = name == "target" || name.as_encoded_bytes().starts_with(b".");
        if entry.file_type()?.is_dir() && !is_skipped {
            found.append(&mut workspaces(&entry.path())?);
        }
    }
    Ok(found)
}

fn lints(_: &[Found]) -> Result<String> {
    for build in every_build()? {
        let mut clippy = cargo();
        clippy.arg("clippy").args(build).args(["--all-targets", "--", "-D", "warnings"]);
        command::run(clippy)?;
    }
    Ok("no warning".to_owned())
}

/// Builds the documentation in three runs: of programs, of libraries with private items, and of
/// libraries without them.
///
/// The second run checks the links in private items, and the third finds links to private items.
/// Programs have a run of their own, since `keytally` is the name of a program and of a library.
fn docs(_: &[Found]) -> Result<String> {
    for manifest in WORKSPACES {
        for items in [&["--bins"][..], &["--lib", "--document-private-items"], &["--lib"]] {
            let mut doc = cargo();
            doc.args(["doc", "--workspace", "--no-deps", "--manifest-path", manifest]).args(items);
            doc.env("RUSTDOCFLAGS", "-D warnings");
            command::run(doc)?;
        }
    }
    Ok("no warning".to_owned())
}
