//! The steps of `cargo xtask test --fast`: a part of the suites, in a development build.
//!
//! All steps name the same packages and build the tests of `against_core`, so that they share one
//! build: cargo builds a dependency again if other packages select other features of it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::command::{cargo, run};
use crate::native;
use crate::python::SMOKE;
use crate::step::Step;
use crate::targets::{count_tests, target_folder};
use crate::tools;

/// The steps, in the order in which they run.
pub(crate) const STEPS: &[Step] = &[
    Step::call("unit", || test(&["--lib"]))
        .about("the unit tests of the core, of the library and of the program pass"),
    Step::call("vectors", || test(&["--test", "against_core"]))
        .about("the core agrees with the vector files"),
    Step::call("doc", || test(&["--doc"]))
        .about("the examples in the documentation and on the pages of the book run"),
    Step::call("c", c)
        .needs(&[tools::CC])
        .about("examples/gate.c compiles, and is denied after its limit"),
    Step::call("python", python)
        .needs(&[tools::PYTHON_ALONE])
        .about("the examples in the docstrings run"),
];

/// Returns a command of cargo on the packages.
fn packages(command: &str) -> Command {
    let mut cargo = cargo();
    let names = ["core", "cli", "ffi", "python", "vectors"].map(|name| format!("keytally-{name}"));
    cargo.args([command, "--package", "keytally"]);
    cargo.args(names.iter().flat_map(|name| ["--package", name]));
    cargo
}

fn test(kinds: &[&str]) -> Result<String> {
    count_tests(&run(packages("test").arg("--no-fail-fast").args(kinds))?)
}

/// Builds the libraries and programs. Returns their folder.
fn build() -> Result<PathBuf> {
    run(packages("build").args(["--lib", "--bin", "keytally", "--test", "against_core"]))?;
    Ok(target_folder()?.join("debug"))
}

fn c() -> Result<String> {
    let built = build()?;
    let folder = tempfile::tempdir()?;
    let gate = folder.path().join("gate");
    let library = built.join("libkeytally_ffi.a");
    let libraries = [library.as_os_str(), "-pthread".as_ref(), "-ldl".as_ref(), "-lm".as_ref()];
    native::compile_example("cc", &libraries, &gate)?;
    native::run_example(folder.path(), Command::new(built.join("keytally")), Command::new(gate))?;
    Ok("1 program".to_owned())
}

/// Copies the Python files and the library to a package in a folder.
const PACKAGE: &str = r#"mkdir "$0/keytally"; cp py/python/keytally/*.py* "$0/keytally"
cp "$1" "$0/keytally/_native.abi3.so""#;

fn python() -> Result<String> {
    let library = build()?.join("lib_native.so");
    let folder = tempfile::tempdir()?;
    run(Command::new("sh").args(["-ec", PACKAGE]).arg(folder.path()).arg(library))?;
    run(Command::new("python3").args(SMOKE).env("PYTHONPATH", folder.path()))?;
    Ok("1 module".to_owned())
}
