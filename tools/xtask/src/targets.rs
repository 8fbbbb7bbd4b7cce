//! Assigns each test file to one suite, and runs the files of a suite.
//!
//! Cargo lists all test files. The suite `unit` runs those that no other suite names. So each file
//! runs exactly once, and a new one need not be named.
//!
//! Files are selected by name in a whole workspace (`--workspace --test NAME`), not by package. So
//! all suites share one build, with the same features of every dependency. A file that needs
//! features of its package (`required-features` in `Cargo.toml`) has a build of its own.

use core::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

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
    Ok(text(&metadata()?, "target_directory")?.into())
}

/// Returns the folder of programs that are built with [`PROFILE`].
pub(crate) fn profile_folder() -> Result<PathBuf> {
    Ok(target_folder()?.join(PROFILE[1]))
}

/// The folder of programs that are built with [`PROFILE`].
pub(crate) const PROFILE_FOLDER: &str = "target/tests";

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

    /// Returns whether some file could belong to both.
    #[cfg(test)]
    pub(crate) fn overlap(&self, other: &Self) -> bool {
        self.package == other.package
            && (self.name == other.name || self.name.is_none() || other.name.is_none())
    }
}

impl fmt::Display for TestFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "the test file tests/{name}.rs of {}", self.package),
            None => write!(f, "the test files of {}", self.package),
        }
    }
}

/// Runs the test files that a suite names.
pub(crate) fn run_files(files: &[TestFiles], found: &[Found]) -> Result<String> {
    let targets = Targets::read()?;
    run(&[], &targets.named(files)?, found)
}

/// Runs the unit tests of libraries and programs, and the test files that no suite names.
pub(crate) fn run_others(found: &[Found]) -> Result<String> {
    let targets = Targets::read()?;
    run(&["--lib", "--bins"], &targets.unnamed(&named_files())?, found)
}

/// Runs test files and, by the options `kinds` of cargo, unit tests. Returns the number of tests.
fn run(kinds: &[&str], files: &[&File], found: &[Found]) -> Result<String> {
    let mut output = String::new();
    for build in builds(files) {
        let names = names(files.iter().filter(|file| file.build() == build));
        // Unit tests need no features.
        let kinds = if build.features.is_none() { kinds } else { &[] };
        if names.is_empty() && kinds.is_empty() {
            continue;
        }
        let mut test: Command = cargo();
        test.arg("test").args(PROFILE).arg("--no-fail-fast").args(arguments(build)).args(kinds);
        for name in names {
            test.args(["--test", name]);
        }
        for (variable, path) in found {
            test.env(variable, path);
        }
        output += &command::run(test)?;
    }
    count_tests(&output)
}

/// A build: of a whole workspace with default features, or of one package with additional features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Build<'a> {
    manifest: &'static str,
    /// The package and its features, if it is the build of a package.
    features: Option<(&'a str, &'a [String])>,
}

/// Returns the builds of the workspaces, and the other builds that the files need.
fn builds<'a>(files: &[&'a File]) -> Vec<Build<'a>> {
    let mut builds = WORKSPACES.map(|manifest| Build { manifest, features: None }).to_vec();
    for file in files {
        if !builds.contains(&file.build()) {
            builds.push(file.build());
        }
    }
    builds
}

/// Returns the arguments of cargo that select a build.
fn arguments(build: Build<'_>) -> Vec<String> {
    let mut arguments = vec!["--manifest-path".to_owned(), build.manifest.to_owned()];
    arguments.extend(match build.features {
        None => vec!["--workspace".to_owned()],
        Some((package, features)) => {
            vec![
                "--package".to_owned(),
                package.to_owned(),
                "--features".to_owned(),
                features.join(","),
            ]
        }
    });
    arguments
}

/// Returns the arguments of cargo for each build that some test file needs.
pub(crate) fn every_build() -> Result<Vec<Vec<String>>> {
    let targets = Targets::read()?;
    Ok(builds(&targets.0.iter().collect::<Vec<_>>()).into_iter().map(arguments).collect())
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

/// A test file that cargo lists.
#[derive(Debug)]
struct File {
    /// The manifest of its workspace.
    manifest: &'static str,
    package: String,
    name: String,
    /// The features of its package that it needs.
    features: Vec<String>,
}

impl File {
    fn build(&self) -> Build<'_> {
        let features = (!self.features.is_empty())
            .then_some((self.package.as_str(), self.features.as_slice()));
        Build { manifest: self.manifest, features }
    }
}

/// The test files of the workspaces.
#[derive(Debug)]
struct Targets(Vec<File>);

impl Targets {
    /// Reads them from cargo.
    fn read() -> Result<Self> {
        let each =
            WORKSPACES.map(|manifest| Self::from_metadata(manifest, &metadata_of(manifest)?));
        let files =
            each.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flat_map(|targets| targets.0);
        Ok(Self(files.collect()))
    }

    fn from_metadata(manifest: &'static str, metadata: &Value) -> Result<Self> {
        let mut files = Vec::new();
        for package in list(metadata, "packages")? {
            for target in list(package, "targets")?.iter().filter(|target| target["test"] == true) {
                let (package, name) = (text(package, "name")?, text(target, "name")?);
                let kind = list(target, "kind")?[0].as_str().unwrap_or_default();
                match kind {
                    "test" => files.push(File {
                        manifest,
                        package: package.to_owned(),
                        name: name.to_owned(),
                        features: strings(&target["required-features"]),
                    }),
                    // `--lib --bins` runs these.
                    "lib" | "rlib" | "cdylib" | "staticlib" | "proc-macro" | "bin" => {}
                    _ => bail!(
                        "{name} of {package} has tests of the kind {kind:?}, which no suite runs"
                    ),
                }
            }
        }
        Ok(Self(files))
    }

    /// Returns the files of a list, each entry of which must name at least one.
    fn named(&self, files: &[TestFiles]) -> Result<Vec<&File>> {
        for file in files {
            ensure!(
                self.0.iter().any(|target| file.contains(target)),
                "a suite names {file}, but cargo lists none"
            );
        }
        self.split(files).map(|(named, _)| named)
    }

    /// Returns the files that are not in the list.
    fn unnamed(&self, files: &[TestFiles]) -> Result<Vec<&File>> {
        self.split(files).map(|(_, unnamed)| unnamed)
    }

    /// Returns the files in the list, and the others. A name must not be in both, since cargo
    /// selects by name.
    fn split(&self, files: &[TestFiles]) -> Result<(Vec<&File>, Vec<&File>)> {
        let (named, unnamed): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|target| files.iter().any(|file| file.contains(target)));
        let others = names(&unnamed);
        if let Some(name) = names(&named).iter().find(|name| others.contains(name)) {
            bail!("two packages have a test file {name}.rs, and suites select by name: rename one");
        }
        Ok((named, unnamed))
    }
}

/// Returns the names of files, sorted and distinct.
fn names<'a>(files: impl IntoIterator<Item = &'a &'a File>) -> Vec<&'a str> {
    let mut names: Vec<&str> = files.into_iter().map(|file| file.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns cargo's metadata of the packages in the main workspace.
pub(crate) fn metadata() -> Result<Value> {
    metadata_of(WORKSPACES[0])
}

/// Returns cargo's metadata of the packages in a workspace.
pub(crate) fn metadata_of(manifest: &str) -> Result<Value> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest]);
    let output = metadata.output().context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}

/// Returns the field `name` of cargo's metadata, a list.
pub(crate) fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    value[name].as_array().with_context(|| format!("cargo metadata has no list {name}"))
}

/// Returns the strings of a list in cargo's metadata. A missing list is empty.
fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Returns the field `name` of cargo's metadata, a string.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("cargo metadata has no string {name}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns a target in cargo's metadata.
    fn target(kind: &str, name: &str, test: bool) -> Value {
        json!({ "kind": [kind], "name": name, "test": test })
    }

    /// Returns the test files of a workspace with three packages.
    fn workspace() -> Targets {
        let metadata = json!({ "packages": [
            { "name": "core", "targets": [target("lib", "core", true), target("test", "sizes", true)] },
            { "name": "host", "targets": [
                target("lib", "host", true),
                target("test", "processes", true),
                target("test", "sizes", true),
                target("bench", "speed", false),
            ] },
            { "name": "vectors", "targets": [target("test", "fresh", true), target("test", "model", true)] },
        ] });
        Targets::from_metadata("Cargo.toml", &metadata).unwrap()
    }

    const PROCESSES: TestFiles = TestFiles::one("host", "processes");
    const VECTORS: TestFiles = TestFiles::all_of("vectors");

    #[test]
    fn every_file_is_in_exactly_one_suite() {
        let targets = workspace();
        assert_eq!(names(&targets.named(&[PROCESSES]).unwrap()), ["processes"]);
        assert_eq!(names(&targets.named(&[VECTORS]).unwrap()), ["fresh", "model"]);
        assert_eq!(names(&targets.unnamed(&[PROCESSES, VECTORS]).unwrap()), ["sizes"]);
    }

    #[test]
    fn file_with_required_features_has_its_own_build() {
        let mut stops = target("test", "stops", true);
        stops["required-features"] = json!(["__stop-points"]);
        let metadata = json!({ "packages": [{ "name": "host", "targets": [stops, target("test", "sizes", true)] }] });
        let targets = Targets::from_metadata("Cargo.toml", &metadata).unwrap();
        let files = targets.unnamed(&[]).unwrap();
        let arguments: Vec<_> = builds(&files).into_iter().map(arguments).collect();
        assert_eq!(
            arguments,
            [
                vec!["--manifest-path", "Cargo.toml", "--workspace"],
                vec!["--manifest-path", "services/Cargo.toml", "--workspace"],
                vec![
                    "--manifest-path",
                    "Cargo.toml",
                    "--package",
                    "host",
                    "--features",
                    "__stop-points"
                ],
            ]
        );
        assert_eq!(
            files.iter().map(|file| file.build().features.is_some()).collect::<Vec<_>>(),
            [true, false]
        );
    }

    #[test]
    fn named_file_that_does_not_exist_is_an_error() {
        let missing = TestFiles::one("core", "processes");
        let error = workspace().named(&[PROCESSES, missing]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a suite names the test file tests/processes.rs of core, but cargo lists none"
        );
    }

    #[test]
    fn file_name_inside_and_outside_a_suite_is_an_error() {
        let error = workspace().unnamed(&[TestFiles::one("core", "sizes")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "two packages have a test file sizes.rs, and suites select by name: rename one"
        );
    }

    #[test]
    fn unknown_kind_of_test_is_an_error() {
        let metadata = json!({ "packages": [{ "name": "core", "targets": [target("bench", "speed", true)] }] });
        let error = Targets::from_metadata("Cargo.toml", &metadata).unwrap_err().to_string();
        assert_eq!(error, "speed of core has tests of the kind \"bench\", which no suite runs");
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
