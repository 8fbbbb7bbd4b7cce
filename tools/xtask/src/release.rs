//! `cargo xtask release --dry-run`: checks and builds everything that a release publishes, and
//! publishes nothing. RELEASING.md has the steps that follow.

use core::ops::Range;
use std::env::consts::ARCH;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::install::{self, Sources};
use crate::targets::{SERVICES, WORKSPACES, count_tests, metadata, target_folder};
use crate::{tools, wheel};

/// The packages of crates.io, in the order in which they are published, with their folders.
const CRATES: [(&str, &str); 9] = [
    ("keytally-core", "core"),
    ("keytally-fleet-plan", "services/fleet/plan"),
    ("keytally", "host"),
    ("keytally-cli", "cli"),
    ("keytally-ffi", "ffi-c"),
    ("keytally-tower", "adapters/tower"),
    ("keytally-fleet", "services/fleet"),
    ("keytally-keys", "services/keys"),
    ("keytally-server", "services/server"),
];

/// The packages of [`CRATES`] that one command packages, by the manifest of their workspace. Each
/// depends on those before it.
const GROUPS: [(&str, Range<usize>); 4] =
    [("Cargo.toml", 0..1), (SERVICES, 1..2), ("Cargo.toml", 2..5), (SERVICES, 5..8)];

/// The packages of which the release contains a list of components, in the first workspace.
const WITH_COMPONENTS: [(&str, &str); 3] =
    [("keytally-cli", "cli"), ("keytally-ffi", "ffi-c"), ("keytally-python", "py")];

/// Checks the release, builds its files in `dist` of cargo's folder, and prints their paths.
///
/// Compares the version with `tag`, such as `v0.1.0`. Without a tag, the changelog may still be
/// that of the next version. `quick` leaves out the tests of the packages.
pub(crate) fn run(tag: Option<&str>, quick: bool) -> Result<()> {
    let version = versions()?;
    check_changelog(&fs::read_to_string("CHANGELOG.md")?, &version, tag)?;
    println!("version {version}: stated alike by both workspaces, the header and the changelog");

    let target = std::path::absolute(target_folder()?)?;
    let dist = target.join("dist");
    tools::remove_folder(&dist)?;
    // Neither the packages nor the builds may find the files of this workspace.
    let folder = tempfile::tempdir()?;
    let unpacked = folder.path().join("packages");
    println!("packages: {}", packages(&version, &unpacked, &target.join("publish"), quick)?);

    // The branch may move during the builds.
    let commit = git(&["rev-parse", "HEAD"])?;
    let [first, second] = ["one", "an other/folder"].map(|name| folder.path().join(name));
    let (first, second) = (artifacts(&first, &commit)?, artifacts(&second, &commit)?);
    let sums = move_if_identical(&first, &second, &dist)?;
    fs::write(dist.join(format!("SHA256SUMS-{ARCH}")), &sums)?;
    wheel::check_all(&dist)?;
    print!("{}, identical from two folders:\n{sums}", dist.display());
    Ok(())
}

/// Compares two folders, and moves the first one to `dist`. Returns the hashes of the files.
///
/// # Errors
/// If the folders differ. The error lists the files that do.
fn move_if_identical(first: &Path, second: &Path, dist: &Path) -> Result<String> {
    let script =
        r#"diff --recursive --brief "$1" "$2" && mv "$1" "$3" && cd "$3" && sha256sum -- *"#;
    let mut sh = Command::new("sh");
    sh.args(["-euc", script, "sh"]).args([first, second, dist]);
    command::run(sh).context("two builds differ")
}

/// Returns the version of all packages, of their dependencies on each other, and of the header.
fn versions() -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let header = fs::read_to_string("include/keytally.h")?;
    let parts = ["MAJOR", "MINOR", "PATCH"].into_iter().zip(version.split('.'));
    let parts = parts.map(|(part, number)| format!("#define KT_VERSION_{part} {number}"));
    for line in parts.chain([format!("#define KT_VERSION_STRING \"{version}\"")]) {
        ensure!(header.lines().any(|l| l == line), "include/keytally.h has no line `{line}`");
    }
    let python = fs::read_to_string("py/pyproject.toml")?;
    ensure!(
        python.lines().any(|line| line == r#"dynamic = ["version"]"#),
        "py/pyproject.toml must take its version from py/Cargo.toml: `dynamic = [\"version\"]`"
    );
    for manifest in WORKSPACES {
        for package in metadata(manifest)?.packages {
            let (name, own) = (package.name.to_string(), package.version.to_string());
            let is_released = name == "keytally-python" || package.publish.is_none();
            ensure!(!is_released || own == version, "{name} has version {own}, not {version}");
            for dependency in package.dependencies {
                let (on, required) = (&dependency.name, dependency.req.to_string());
                let is_exact = required.strip_prefix('^') == Some(version);
                let is_own = is_released && dependency.path.is_some();
                ensure!(!is_own || is_exact, "{name} requires {on} {required}, not {version}");
            }
        }
    }
    Ok(version.to_owned())
}

/// Checks that the first heading of the changelog is that of this version, and that the tag is.
fn check_changelog(changelog: &str, version: &str, tag: Option<&str>) -> Result<()> {
    let mut lines = changelog.lines().skip_while(|line| !line.starts_with("## "));
    let heading = lines.next().unwrap_or_default();
    let is_dated = heading.starts_with(&format!("## {version} - "));
    let next = format!("To be {version},");
    let is_next = heading == "## Unreleased" && lines.any(|line| line.starts_with(&next));
    if let Some(tag) = tag {
        ensure!(tag.strip_prefix('v') == Some(version), "the tag is {tag} instead of v{version}");
    }
    ensure!(
        is_dated || is_next && tag.is_none(),
        "CHANGELOG.md must begin with `## {version} - DATE`, or before the tag with \
         `## Unreleased` and `{next} …`, but begins with `{heading}`"
    );
    Ok(())
}

/// Packages every crate and builds each from its package. Makes `folder` a workspace of all
/// packages, and runs their tests there, unless `quick`.
fn packages(version: &str, folder: &Path, target: &Path, quick: bool) -> Result<String> {
    fs::create_dir(folder)?;
    let root = std::env::current_dir()?;
    // Cargo keeps the sources of packages that it has verified, by the path of their folder and
    // their version. In a folder of an earlier run, it would build the sources of that run.
    let built = folder.with_extension("target");
    for (manifest, group) in GROUPS {
        let mut package = cargo();
        package.args(["package", "--quiet", "--manifest-path", manifest, "--target-dir"]);
        package.arg(&built);
        // They use the published packages of the groups before, which do not exist yet. No package
        // depends on that for C.
        for (name, path) in &CRATES[..group.start.min(4)] {
            let path = root.join(path);
            package.arg("--config").arg(format!("patch.crates-io.{name}.path={path:?}"));
        }
        package.args(CRATES[group].iter().flat_map(|(name, _)| ["--package", name]));
        command::run(package)?;
    }

    // Without optimization, the tests that damage files take more than ten minutes.
    let mut workspace = "workspace.resolver = \"3\"\nworkspace.members = [\"*\"]\n\
        profile.dev.opt-level = 1\n"
        .to_owned();
    for (name, _) in CRATES {
        let mut tar = Command::new("tar");
        // Packages have fixed times. By them, cargo would keep what an earlier run built of other
        // sources, since the paths within the workspace are the same.
        tar.arg("--directory").arg(folder).args(["--extract", "--touch", "--file"]);
        tar.arg(built.join(format!("package/{name}-{version}.crate")));
        command::run(tar)?;
        let headers = ["include/keytally.h", "include/keytally.hpp"];
        let headers = headers.iter().filter(|_| name == "keytally-ffi");
        for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"].iter().chain(headers) {
            let path = folder.join(format!("{name}-{version}")).join(file);
            let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
            ensure!(is_file, "the package {name} does not contain {file}");
        }
        workspace += &format!("patch.crates-io.{name}.path = \"{name}-{version}\"\n");
    }
    if quick {
        return Ok("all can be built; their tests were left out".to_owned());
    }
    fs::write(folder.join("Cargo.toml"), workspace)?;
    // Two packages have a program `keytally`, and cargo puts both at the same path.
    let mut tests = Vec::new();
    for selection in [["--exclude", "keytally-server"], ["--package", "keytally-server"]] {
        let mut test = cargo();
        test.args(["test", "--no-fail-fast"]);
        test.args((selection[0] == "--exclude").then_some("--workspace")).args(selection);
        test.current_dir(folder).env("CARGO_TARGET_DIR", target);
        tests.push(count_tests(&command::run(test)?)?);
    }
    Ok(format!("all can be built, and pass {}", tests.join(", and ")))
}

/// Runs git, and returns its output without the end of the line.
fn git(arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.args(arguments);
    Ok(command::run(git)?.trim().to_owned())
}

/// Returns the variables with which cargo's output does not depend on the path of the sources.
fn independent_of(folder: &Path) -> Result<[(&'static str, OsString); 3]> {
    // cargo uses the path of its working directory, in which links are resolved.
    let folder = fs::canonicalize(folder)?;
    Ok([
        ("CARGO_ENCODED_RUSTFLAGS", install::without_paths(&folder)?.join("\x1f").into()),
        ("RUSTC_WRAPPER", concat!(env!("CARGO_MANIFEST_DIR"), "/rustc.sh").into()),
        ("KEYTALLY_SOURCES", folder.into()),
    ])
}

/// Builds the files of the release from a copy of `commit` in `folder`. Returns the folder of the
/// files.
fn artifacts(folder: &Path, commit: &str) -> Result<PathBuf> {
    let path = folder.to_str().context("the path of the temporary folder is not UTF-8")?;
    git(&["clone", "--quiet", "--shared", "--no-checkout", ".", path])?;
    git(&["-C", path, "checkout", "--quiet", "--detach", commit])?;
    let time = git(&["log", "-1", "--format=%ct", commit])?;
    let variables = independent_of(folder)?;
    let built = folder.join("target");
    let within = |mut command: Command| {
        command.current_dir(folder).env("CARGO_TARGET_DIR", &built);
        command.envs(variables.clone()).env("SOURCE_DATE_EPOCH", &time);
        command::run(command)
    };

    let files = built.join("files");
    fs::create_dir_all(&files)?;
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "keytally-cli"]);
    within(build)?;
    fs::copy(built.join("release/keytally"), files.join(format!("keytally-{ARCH}-linux")))?;
    // The target folder is that of the program, so cargo builds most dependencies once.
    install::pack(&Sources { folder, target: &built, run: &within }, &files)?;
    wheel::build(&files, false, &within)?;
    let mut components = Command::new(tools::cargo_cyclonedx()?);
    components.args(["cyclonedx", "--format", "json", "--spec-version", "1.5", "--all-features"]);
    within(components)?;
    for (name, path) in WITH_COMPONENTS {
        let list = fs::read_to_string(folder.join(path).join(format!("{name}.cdx.json")))?;
        // The list names local packages by URLs, in which a blank is encoded.
        let url = folder.display().to_string().replace(' ', "%20");
        let list = list.replace(&url, "/keytally");
        fs::write(files.join(format!("{name}.cdx.json")), list)?;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::CommandLine;

    /// Returns the arguments of each `cargo xtask` in a text, up to the end of the code.
    fn xtask_commands(text: &str) -> Vec<Vec<&str>> {
        let commands = text.split("cargo xtask ").skip(1);
        let lines = commands.map(|command| command.split(['\n', '`', '#', ';']).next().unwrap());
        lines.map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn xtask_commands_of_workflows_and_releasing_parse() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (file, at_least) in [
            (".github/workflows/ci.yml", 2),
            (".github/workflows/release.yml", 2),
            ("RELEASING.md", 4),
        ] {
            let text = fs::read_to_string(root.join(file)).unwrap();
            let commands = xtask_commands(&text);
            assert!(commands.len() >= at_least, "{file}: {commands:?}");
            for command in commands {
                let words = ["xtask"].iter().chain(&command);
                let parsed = CommandLine::try_parse_from(words);
                assert!(parsed.is_ok(), "{file}: cargo xtask {command:?}: {parsed:?}");
            }
        }
    }

    #[test]
    fn program_with_a_package_outside_its_workspace_is_reproducible() {
        let temporary = tempfile::tempdir().unwrap();
        let programs = ["one", "an other/folder"].map(|name| {
            let folder = temporary.path().join(name);
            for (path, text) in [
                ("core/Cargo.toml", "package = { name = \"core-of-it\", edition = \"2024\" }"),
                ("core/src/lib.rs", "pub fn one() -> usize { std::env::args().len() }"),
                (
                    "services/Cargo.toml",
                    "package = { name = \"server\", edition = \"2024\" }\n\
                     dependencies.core-of-it.path = \"../core\"\nworkspace = {}",
                ),
                ("services/src/main.rs", "fn main() { println!(\"{}\", core_of_it::one()) }"),
            ] {
                let path = folder.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let mut build = cargo();
            build.args(["build", "--release", "--offline"]).envs(independent_of(&folder).unwrap());
            build
                .current_dir(folder.join("services"))
                .env("CARGO_TARGET_DIR", folder.join("built"));
            command::run(build).unwrap();
            fs::read(folder.join("built/release/server")).unwrap()
        });
        assert!(programs[0] == programs[1]);
    }

    #[test]
    fn builds_that_differ_are_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, dist] =
            ["one", "an other", "dist"].map(|name| folder.path().join(name));
        for built in [&first, &second] {
            fs::create_dir(built).unwrap();
            fs::write(built.join("libkeytally.a"), "the same").unwrap();
            fs::write(built.join("keytally.whl"), built.as_os_str().as_encoded_bytes()).unwrap();
        }
        let error = format!("{:#}", move_if_identical(&first, &second, &dist).unwrap_err());
        assert!(
            error.starts_with("two builds differ: ") && error.contains("/keytally.whl"),
            "{error}"
        );
        assert!(!error.contains("libkeytally.a") && !dist.exists(), "{error}");

        fs::copy(first.join("keytally.whl"), second.join("keytally.whl")).unwrap();
        let sums = move_if_identical(&first, &second, &dist).unwrap();
        assert_eq!(sums.lines().count(), 2);
        assert!(dist.join("libkeytally.a").exists() && !first.exists());
    }

    #[test]
    fn changelog_must_begin_with_the_version() {
        let dated = "# Changelog\n\n## 0.2.0 - 2027-01-02\n\n## 0.1.0 - 2026-12-01\n";
        let next = "# Changelog\n\n## Unreleased\n\nTo be 0.2.0, the first version.\n";
        for (changelog, version, tag, passes) in [
            (dated, "0.2.0", None, true),
            (dated, "0.2.0", Some("v0.2.0"), true),
            (dated, "0.2.0", Some("v0.2.1"), false),
            (dated, "0.1.0", None, false),
            (next, "0.2.0", None, true),
            (next, "0.2.0", Some("v0.2.0"), false),
            (next, "0.2", None, false),
        ] {
            let result = check_changelog(changelog, version, tag);
            assert_eq!(result.is_ok(), passes, "{version} {tag:?}");
        }
    }
}
