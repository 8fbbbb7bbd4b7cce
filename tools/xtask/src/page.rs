//! The suite `page`: the page of keys in Chromium, as people use it.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::run;
use crate::step::Form;
use crate::targets::{SERVICES, build_programs, target_folder};
use crate::tools::{self, Tool, tool};

/// The folder of the tests.
const TESTS: &str = "services/keys/tests/browser";

/// The browser. It needs no font beyond its own dependencies.
pub(crate) const CHROMIUM: &[Tool] =
    &[tool("Chromium", "command -v chromium", "chromium fonts-dejavu-core")];

/// Runs the tests in Chromium. They write pictures of all screens into `target/page/pictures`.
pub(crate) fn test(_: Form) -> Result<String> {
    let folder = std::path::absolute(target_folder()?.join("page"))?;
    let pictures = folder.join("pictures");
    fs::create_dir_all(&pictures)?;
    let needed = fs::read_to_string(format!("{TESTS}/requirements.txt"))?;
    let packages: Vec<&str> = needed.lines().filter(|line| !line.starts_with('#')).collect();
    let python = tools::virtual_environment_of(&folder.join("venv"), &packages)?;
    for check in [&["check"][..], &["format", "--check"]] {
        run(Command::new(&python).args(["-m", "ruff"]).args(check).arg(TESTS))?;
    }
    let program = build_programs(SERVICES, &["--bin", "keytally"])?.join("keytally");
    let mut tests = Command::new(&python);
    tests.args(["-m", "pytest", "-q", TESTS]).env("KEYTALLY_TEST_PROGRAM", program);
    tests.env("KEYTALLY_TEST_CHROMIUM", CHROMIUM[0].path()?);
    let output = run(tests.env("KEYTALLY_TEST_PICTURES", pictures))?;
    let summary = output.lines().rev().find_map(|line| line.split_once(" in "));
    Ok(summary.with_context(|| format!("no test ran:\n{output}"))?.0.to_owned())
}
