//! The tests and the measurements of the nginx module. `adapters/nginx/tests/build.py` builds the
//! module with the installed library.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::run;
use crate::install;
use crate::targets::{SERVICES, WORKSPACES, build_programs, target_folder};
use crate::tools::{self, Tool};

/// The tools for both. Only the tests need valgrind and Redis.
pub(crate) const NEEDS: &[&[Tool]] = &[
    tools::C_TOOLCHAIN,
    tools::CURL,
    tools::PYTHON_ALONE,
    tools::VALGRIND,
    tools::NGINX,
    tools::REDIS,
];

/// Runs the tests, which are in Python.
pub(crate) fn test() -> Result<String> {
    // Both packages build a program of this name.
    let agent = std::path::absolute(target_folder()?.join("native/agent"))?;
    fs::create_dir_all(target_folder()?.join("native"))?;
    fs::copy(build_programs(SERVICES, &["--bin", "keytally"])?.join("keytally"), &agent)?;
    let mut tests = python("adapters/nginx/tests/test_nginx.py")?;
    let output = run(tests.env("KEYTALLY_TEST_AGENT", agent))?;
    let ran = output.lines().find_map(|line| line.strip_prefix("Ran ")?.split(" in ").next());
    Ok(ran.context("the tests did not print how many ran")?.to_owned())
}

/// Returns the command that measures nginx with the module and without. It writes its results to
/// the folder of the benches.
pub(crate) fn bench() -> Result<Command> {
    tools::require(NEEDS, false)?;
    python("adapters/nginx/benches/measure.py")
}

/// Returns a command that runs a script. Environment variables name the folder to build in, which
/// holds the installed library in `prefix`, and the program `keytally`.
fn python(script: &str) -> Result<Command> {
    let folder = target_folder()?.join("native/nginx");
    tools::remove_folder(&folder)?;
    install::stage(&folder.join("prefix"), Path::new("lib"))?;
    let programs = build_programs(WORKSPACES[0], &["--bin", "keytally"])?;
    let mut python = Command::new("python3");
    python.arg(script).env("LD_LIBRARY_PATH", folder.join("prefix/lib"));
    python.env("KEYTALLY_TEST_NGINX_FOLDER", folder);
    python.env("KEYTALLY_TEST_KEYTALLY", programs.join("keytally"));
    Ok(python)
}
