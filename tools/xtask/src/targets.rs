//! Runs the test files of a suite. The suite `unit` runs those that no other suite names, so a new
//! file need not be named.
//!
//! Files are selected by name in a whole workspace (`--workspace --test NAME`), not by package. So
//! all suites share one build, with the same features of every dependency. A file that needs
//! features of its package (`required-features` in `Cargo.toml`) has a build of its own.

use alloc::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::{Metadata, MetadataCommand};

use crate::command::{self, cargo};
use crate::suites::named_files;
use crate::tools::Found;

/// The options of cargo with which tests, and the programs that they start, are built.
pub(crate) const PROFILE: [&str; 2] = ["--profile", "tests"];

/// The manifests of the workspaces with test suites: the main one and that of the services.
pub(crate) const WORKSPACES: [&str; 2] = ["Cargo.toml", SERVICES];

/// The manifest of the services' workspace.
pub(crate) const SERVICES: &str = "services/Cargo.toml";

/// Returns cargo's folder of built files: `target`, or `CARGO_TARGET_DIR`.
pub(crate) fn target_folder() -> Result<PathBuf> {
    Ok(metadata(WORKSPACES[0])?.target_directory.into())
}

/// Returns the folder of programs that are built with [`PROFILE`].
pub(crate) fn profile_folder() -> Result<PathBuf> {
    Ok(target_folder()?.join(PROFILE[1]))
}

/// Returns cargo's metadata of the packages in a workspace.
pub(crate) fn metadata(manifest: &str) -> Result<Metadata> {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut command = MetadataCommand::new();
    command.current_dir(workspace).manifest_path(manifest).no_deps();
    command.exec().context("cargo metadata failed")
}

/// One test file of a package, or all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TestFiles {
    package: &'static str,
    /// `None` for all.
    name: Option<&'static str>,
}

impl TestFiles {
    /// Returns the file `tests/NAME.rs` of a package.
    pub(crate) const fn one(package: &'static str, name: &'static str) -> Self {
        Self { package, name: Some(name) }
    }

    /// Returns all test files of a package.
    pub(crate) const fn all_of(package: &'static str) -> Self {
        Self { package, name: None }
    }

    fn contains(&self, file: &File) -> bool {
        self.package == file.package && self.name.is_none_or(|name| name == file.name)
    }
}

/// Runs the test files that a suite names.
pub(crate) fn run_files(named: &[TestFiles], found: &[Found]) -> Result<String> {
    let mut files = files()?;
    files.retain(|file| named.iter().any(|named| named.contains(file)));
    ensure!(!files.is_empty(), "cargo lists no file of {named:?}");
    run(&[], &files, found)
}

/// Runs the unit tests of libraries and programs, and the test files that no suite names.
pub(crate) fn run_others(found: &[Found]) -> Result<String> {
    let mut files = files()?;
    files.retain(|file| !named_files().iter().any(|named| named.contains(file)));
    run(&["--lib", "--bins"], &files, found)
}

/// Runs test files and, by the options `kinds` of cargo, the unit tests of the workspaces. Returns
/// the number of tests.
fn run(kinds: &[&str], files: &[File], found: &[Found]) -> Result<String> {
    let mut output = String::new();
    for (build, names) in builds(files) {
        let is_workspace = build.contains(&"--workspace".to_owned());
        if names.is_empty() && kinds.is_empty() {
            continue;
        }
        let mut test = cargo();
        test.arg("test").args(PROFILE).arg("--no-fail-fast").args(build);
        if is_workspace {
            test.args(kinds);
        }
        for name in names {
            test.args(["--test", name]);
        }
        test.envs(found.iter().map(|(variable, path)| (variable, path)));
        output += &command::run(test)?;
    }
    count_tests(&output)
}

/// Returns the arguments of cargo for each build that some test file needs.
pub(crate) fn every_build() -> Result<Vec<Vec<String>>> {
    Ok(builds(&files()?).into_keys().collect())
}

/// Returns the names of the files in each build: those of the workspaces, and the others that files
/// need. The keys are arguments of cargo.
fn builds(files: &[File]) -> BTreeMap<Vec<String>, BTreeSet<&str>> {
    let mut builds = BTreeMap::<_, BTreeSet<&str>>::new();
    for manifest in WORKSPACES {
        builds.entry(build(manifest, "", &[])).or_default();
    }
    for file in files {
        let build = build(file.manifest, &file.package, &file.features);
        builds.entry(build).or_default().insert(&file.name);
    }
    builds
}

/// Returns the arguments of cargo for the build of a workspace or, if there are features, of a
/// package with them.
fn build(manifest: &str, package: &str, features: &[String]) -> Vec<String> {
    let features = features.join(",");
    let arguments = match features.as_str() {
        "" => vec!["--manifest-path", manifest, "--workspace"],
        _ => vec!["--manifest-path", manifest, "--package", package, "--features", &features],
    };
    arguments.into_iter().map(str::to_owned).collect()
}

/// A test file.
#[derive(Debug)]
struct File {
    /// The manifest of its workspace.
    manifest: &'static str,
    package: String,
    name: String,
    /// The features of its package that it needs.
    features: Vec<String>,
}

/// Returns the test files of the workspaces.
fn files() -> Result<Vec<File>> {
    let mut files = Vec::new();
    for manifest in WORKSPACES {
        for package in metadata(manifest)?.packages {
            for target in package.targets.into_iter().filter(|target| target.is_test()) {
                files.push(File {
                    manifest,
                    package: package.name.to_string(),
                    name: target.name,
                    features: target.required_features,
                });
            }
        }
    }
    Ok(files)
}

/// Returns the number of tests in the output of test programs, as text.
///
/// # Errors
/// If no test ran. Otherwise a suite without tests would pass.
pub(crate) fn count_tests(output: &str) -> Result<String> {
    let (mut passed, mut ignored) = (0, 0);
    for line in output.lines().filter_map(|line| line.trim().strip_prefix("test result: ok. ")) {
        for part in line.split("; ") {
            match part.split_once(' ') {
                Some((count, "passed")) => passed += count.parse::<u32>()?,
                Some((count, "ignored")) => ignored += count.parse::<u32>()?,
                _ => {}
            }
        }
    }
    ensure!(passed > 0, "no test ran:\n{output}");
    let tests = if passed == 1 { "1 test".to_owned() } else { format!("{passed} tests") };
    Ok(if ignored == 0 { tests } else { format!("{tests}, {ignored} ignored") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo selects files of a workspace by name, so files of one name must be in one suite.
    #[test]
    fn each_test_file_is_in_exactly_one_suite() {
        let (files, suites) = (files().unwrap(), named_files());
        let mut suite_of = BTreeMap::new();
        for file in &files {
            let naming: Vec<_> =
                (0..suites.len()).filter(|&suite| suites[suite].contains(file)).collect();
            assert!(naming.len() <= 1, "more than one suite names {file:?}");
            let other = suite_of.insert((file.manifest, &file.name), naming.clone());
            assert!(
                other.is_none_or(|other| other == naming),
                "another suite has a {}.rs",
                file.name
            );
        }
        for suite in suites {
            assert!(files.iter().any(|file| suite.contains(file)), "cargo lists no {suite:?}");
        }
    }

    #[test]
    fn file_with_required_features_has_its_own_build() {
        let file = |features| File {
            manifest: "Cargo.toml",
            package: "keytally".to_owned(),
            name: "stops".to_owned(),
            features,
        };
        let files = [file(vec!["__stop-points".to_owned()]), file(vec![])];
        let builds = builds(&files);
        let arguments: Vec<_> = builds.keys().map(|build| build[2..].join(" ")).collect();
        assert_eq!(
            arguments,
            ["--package keytally --features __stop-points", "--workspace", "--workspace"]
        );
        assert_eq!(builds.values().map(BTreeSet::len).collect::<Vec<_>>(), [1, 1, 0]);
    }

    #[test]
    fn test_counts_of_all_programs_are_added() {
        let output = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
                      noise\n\
                      test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s\n";
        assert_eq!(count_tests(output).unwrap(), "7 tests, 1 ignored");
    }

    #[test]
    fn output_without_tests_is_an_error() {
        assert!(count_tests("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured").is_err());
        assert!(count_tests("").is_err());
    }
}
