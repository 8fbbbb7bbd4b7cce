//! The group `build`: the time of a clean build of each artifact, and the number of packages that
//! it consists of.

use std::collections::HashSet;
use std::process::{Command, Output};

use serde_json::json;

use crate::measure::{Bench, Kind, now};

/// The artifacts, and the packages that cargo builds for them.
const ARTIFACTS: &[(&str, &str)] = &[
    ("keytally-core, for Rust without std", "keytally-core"),
    ("keytally, for servers in Rust", "keytally"),
    ("libkeytally, shared and static", "keytally-ffi"),
    ("the program keytally", "keytally-cli"),
    ("the Python module", "keytally-python"),
];

/// Measures the group.
pub(crate) fn measure(bench: &mut Bench) {
    let title = "Building an artifact";
    let about = "Packages: all that are compiled into it or for its build, besides its own. Seconds: a clean release build on all cores, with the sources of the packages downloaded before. The wheel consists of the Python module and files in Python.";
    let mut table = bench.table("build/artifacts", "each", title, about);
    for (artifact, package) in ARTIFACTS {
        let kind = Kind { work: package, ..Kind::TIME_GIVEN };
        let packages = json!(packages(package));
        table.figures("packages", artifact, kind, vec![packages]);
        table.figures("seconds", artifact, kind, vec![json!(clean_build_s(package))]);
    }
}

/// Returns the number of packages, besides the given one, that are compiled for it.
fn packages(package: &str) -> usize {
    let edges = ["tree", "--package", package, "--edges", "normal,build", "--prefix", "none"];
    let output = cargo(&[&edges[..], &["--format", "{p}"]].concat());
    let text = String::from_utf8(output.stdout).expect("cargo prints text");
    // A package that occurs again is marked by `(*)`.
    let name_and_version = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    text.lines().map(name_and_version).collect::<HashSet<_>>().len() - 1
}

/// Returns the seconds of a build in an empty folder.
fn clean_build_s(package: &str) -> f64 {
    let folder = std::env::temp_dir().join(format!("keytally-build-{}", std::process::id()));
    let target = folder.to_str().expect("a path in Unicode");
    let started = now();
    cargo(&["build", "--release", "--package", package, "--target-dir", target]);
    let took = started.elapsed();
    std::fs::remove_dir_all(&folder).expect("the build's folder can be removed");
    took.as_secs_f64()
}

/// Runs cargo, which must succeed.
fn cargo(arguments: &[&str]) -> Output {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).output().expect("cargo can be started");
    assert!(output.status.success(), "cargo {arguments:?}: {output:?}");
    output
}
