//! The steps of `cargo xtask test --fast`: a part of the suites, in a development build.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::python::SMOKE;
use crate::step::{Step, Work};
use crate::targets::{count_tests, target_folder};
use crate::tools::{self, Found};

/// The steps, in the order in which they run.
pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "unit",
        about: "the unit tests of the core, of the library and of the program pass",
        needs: &[],
        full_when_named: false,
        work: Work::Call(|_| {
            test(&["-p", "keytally-core", "-p", "keytally", "-p", "keytally-cli", "--lib"])
        }),
    },
    Step {
        name: "vectors",
        about: "the core agrees with the vector files",
        needs: &[],
        full_when_named: false,
        work: Work::Call(|_| test(&["-p", "keytally-vectors", "--test", "against_core"])),
    },
    Step {
        name: "doc",
        about: "the examples in the documentation of the core and of the library run",
        needs: &[],
        full_when_named: false,
        work: Work::Call(|_| test(&["-p", "keytally-core", "-p", "keytally", "--doc"])),
    },
    Step {
        name: "c",
        about: "examples/gate.c compiles, and is denied after its limit",
        needs: &[&tools::CC],
        full_when_named: false,
        work: Work::Call(c),
    },
    Step {
        name: "python",
        about: "the examples in the docstrings run",
        needs: &[&tools::PYTHON_ALONE],
        full_when_named: false,
        work: Work::Call(python),
    },
];

fn test(arguments: &[&str]) -> Result<String> {
    let mut test = cargo();
    test.args(["test", "--no-fail-fast"]).args(arguments);
    count_tests(&command::run(test)?)
}

/// Builds these packages.
fn build(packages: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.arg("build").args(packages.iter().flat_map(|package| ["--package", package]));
    command::run(build).map(drop)
}

fn c(found: &[Found]) -> Result<String> {
    build(&["keytally-ffi", "keytally-cli"])?;
    let built = target_folder()?.join("debug");
    let folder = tempfile::tempdir()?;
    let mut compile = Command::new(tools::CC.among(found)?);
    compile.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-Iinclude", "examples/gate.c"]);
    compile.arg(built.join("libkeytally_ffi.a")).args(["-pthread", "-ldl", "-lm", "-o"]);
    compile.arg(folder.path().join("gate"));
    command::run(compile)?;
    let run = |program: &Path, arguments: &[&str]| {
        let mut run = Command::new(program);
        run.args(arguments).current_dir(&folder).env("KEYTALLY_PEPPER", "5a".repeat(32));
        command::run(run)
    };
    run(&built.join("keytally"), &["create", "api.gate", "--plan", "default=3/minute, 100/hour"])?;
    let output = run(&folder.path().join("gate"), &[])?;
    ensure!(output.contains("429"), "no request of examples/gate.c was denied:\n{output}");
    Ok("1 program".to_owned())
}

fn python(found: &[Found]) -> Result<String> {
    build(&["keytally-python"])?;
    let folder = tempfile::tempdir()?;
    let package = folder.path().join("keytally");
    fs::create_dir(&package)?;
    for entry in fs::read_dir("py/python/keytally")? {
        let path = entry?.path();
        if path.is_file() {
            fs::copy(&path, package.join(path.file_name().context("a file without a name")?))?;
        }
    }
    fs::copy(target_folder()?.join("debug/lib_native.so"), package.join("_native.abi3.so"))?;
    let mut smoke = Command::new(tools::PYTHON_ALONE.among(found)?);
    smoke.args(SMOKE);
    smoke.env("PYTHONPATH", folder.path());
    command::run(smoke)?;
    Ok("1 module".to_owned())
}
