//! Runs the test files of a suite. The suite `unit` runs those that no other suite names, so a new
//! file need not be named.
//!
//! Files are selected by name in a whole workspace (`--workspace --test NAME`), not by package. So
//! all suites share one build, with the same features of every dependency. A file that needs
//! features of its package (`required-features` in `Cargo.toml`) has a build of its own.

use alloc::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::command::{cargo, run};

/// The options of cargo with which tests, and the programs that they start, are built.
pub(crate) const PROFILE: [&str; 2] = ["--profile", "tests"];

/// The manifests of the workspaces with test suites: the main one and that of the services.
pub(crate) const WORKSPACES: [&str; 2] = ["Cargo.toml", SERVICES];

/// The manifest of the services' workspace.
pub(crate) const SERVICES: &str = "services/Cargo.toml";

/// The environment variables in which tests find the tools that they need.
pub(crate) type Variables = Vec<(&'static str, PathBuf)>;

/// Returns cargo's folder of built files: `target`, or `CARGO_TARGET_DIR`.
pub(crate) fn target_folder() -> Result<PathBuf> {
    Ok(metadata(WORKSPACES[0])?.target_directory)
}

/// Builds programs of a workspace that the arguments of cargo name. Returns the folder of programs.
///
/// As the suites build them, with the features of all packages and of their tests: otherwise, cargo
/// would build dependencies again. A test file among the targets has this effect.
pub(crate) fn build_programs(manifest: &str, names: &[&str]) -> Result<PathBuf> {
    let (files, workspace) = (files()?, build(manifest, "", ""));
    let file = files.iter().find(|file| file.build == workspace).context("there is no test")?;
    let mut build = cargo();
    build.arg("build").args(PROFILE).args(workspace.split(' ')).args(names);
    run(build.args(["--quiet", "--test", &file.name]))?;
    Ok(std::path::absolute(target_folder()?.join(PROFILE[1]))?)
}

/// What `cargo metadata` prints on a workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    target_directory: PathBuf,
}

/// A package of a workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The registries to which it may be published, or `None` for all.
    pub(crate) publish: Option<Vec<String>>,
    pub(crate) dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

/// A direct dependency of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) req: String,
    /// Its folder, if it is a package of this project.
    pub(crate) path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
    #[serde(default, rename = "required-features")]
    required_features: Vec<String>,
}

/// Returns cargo's metadata of the packages in a workspace.
pub(crate) fn metadata(manifest: &str) -> Result<Metadata> {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut metadata = cargo();
    metadata.args(["metadata", "--no-deps", "--format-version=1", "--manifest-path", manifest]);
    let output = metadata.current_dir(workspace).output()?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Test files of a package: their names without `tests/` and `.rs`, or `*` for all.
pub(crate) type TestFiles = (&'static str, &'static str);

/// Returns whether a suite that names `named` runs a file.
pub(crate) fn contains(named: &[TestFiles], file: &File) -> bool {
    let is_named = |names: &str| names == "*" || names.split(' ').any(|name| name == file.name);
    named.iter().any(|&(package, names)| package == file.package && is_named(names))
}

/// Runs the test files that a suite names.
pub(crate) fn run_files(named: &[TestFiles], variables: Variables, full: bool) -> Result<String> {
    let mut files = files()?;
    files.retain(|file| contains(named, file));
    ensure!(!files.is_empty(), "cargo lists no file of {named:?}");
    run_tests(&[], &files, variables, full)
}

/// Runs the unit tests of libraries and programs, and the test files that no suite names.
pub(crate) fn run_others(named: &[TestFiles], full: bool) -> Result<String> {
    let mut files = files()?;
    files.retain(|file| !contains(named, file));
    run_tests(&["--lib", "--bins"], &files, Vec::new(), full)
}

/// Runs test files and, by the options `kinds` of cargo, the unit tests of the workspaces. Returns
/// the number of tests. The environment variable selects the long form of tests.
fn run_tests(
    kinds: &[&str],
    files: &[File],
    mut variables: Variables,
    full: bool,
) -> Result<String> {
    variables.extend(full.then(|| ("KEYTALLY_FULL", "1".into())));
    let mut output = String::new();
    for (build, names) in builds(files) {
        let kinds = if build.contains("--workspace") { kinds } else { &[] };
        if names.is_empty() && kinds.is_empty() {
            continue;
        }
        let mut test = cargo();
        test.arg("test").args(PROFILE).arg("--no-fail-fast").args(build.split(' ')).args(kinds);
        test.args(names.iter().flat_map(|name| ["--test", name]));
        output += &run(test.envs(variables.iter().cloned()))?;
    }
    count_tests(&output)
}

/// Returns the arguments of cargo, separated by blanks, for each build that some test file needs,
/// and the options of cargo that name its test files.
pub(crate) fn every_build() -> Result<BTreeMap<String, Vec<String>>> {
    let mut every = BTreeMap::new();
    for File { build, name, .. } in files()? {
        every.entry(build).or_insert_with(Vec::new).extend(["--test".to_owned(), name]);
    }
    Ok(every)
}

/// Returns the names of the files in each build: those of the workspaces, and the others that files
/// need. The keys are arguments of cargo.
fn builds(files: &[File]) -> BTreeMap<String, BTreeSet<&str>> {
    let workspaces = WORKSPACES.map(|manifest| (build(manifest, "", ""), BTreeSet::new()));
    let mut builds = BTreeMap::from(workspaces);
    for file in files {
        builds.entry(file.build.clone()).or_default().insert(&*file.name);
    }
    builds
}

/// Returns the arguments of cargo for the build of a workspace or, if there are features, of a
/// package with them.
fn build(manifest: &str, package: &str, features: &str) -> String {
    let workspace = format!("--manifest-path {manifest} --workspace");
    let part = format!("--manifest-path {manifest} --package {package} --features {features}");
    if features.is_empty() { workspace } else { part }
}

/// A test file.
#[derive(Debug)]
pub(crate) struct File {
    package: String,
    pub(crate) name: String,
    /// The arguments of cargo for the build with the features of its package that it needs.
    pub(crate) build: String,
}

/// Returns the test files of the workspaces.
pub(crate) fn files() -> Result<Vec<File>> {
    let mut files = Vec::new();
    for manifest in WORKSPACES {
        for package in metadata(manifest)?.packages {
            for target in package.targets.into_iter().filter(|target| target.kind == ["test"]) {
                let build = build(manifest, &package.name, &target.required_features.join(","));
                files.push(File { package: package.name.clone(), name: target.name, build });
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

    #[test]
    fn file_with_required_features_has_its_own_build() {
        let own = ["__stop-points", "testing"].map(|feature| {
            format!("--manifest-path Cargo.toml --package keytally --features {feature}")
        });
        let of_keys =
            format!("--manifest-path {SERVICES} --package keytally-keys --features __stop-points");
        let [product, services] =
            WORKSPACES.map(|path| format!("--manifest-path {path} --workspace"));
        let builds: Vec<_> = every_build().unwrap().into_keys().collect();
        assert_eq!(builds, [&own[..], &[product, of_keys, services]].concat());
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
