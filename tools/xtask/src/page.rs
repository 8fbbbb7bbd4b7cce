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

/// An environment variable: if it is set, the reference pictures are recorded again, and no other
/// test runs.
const WRITE: &str = "KEYTALLY_WRITE_PICTURES";

/// An environment variable: if it is set, the page is measured, and no test runs.
const MEASURE: &str = "KEYTALLY_MEASURE_PAGE";

/// Runs the tests in Chromium. In the short form, they run with SQLite and compare eight pictures.
/// In the others, they also run with PostgreSQL, and compare all pictures.
///
/// Pictures that differ are in `target/page/pictures`.
pub(crate) fn test(form: Form) -> Result<String> {
    let folder = std::path::absolute(target_folder()?.join("page"))?;
    let pictures = folder.join("pictures");
    tools::remove_folder(&pictures)?;
    fs::create_dir_all(&pictures)?;
    let needed = fs::read_to_string(format!("{TESTS}/requirements.txt"))?;
    let packages: Vec<&str> = needed.lines().filter(|line| !line.starts_with('#')).collect();
    let python = tools::virtual_environment_of(&folder.join("venv"), &packages)?;
    for check in [&["check"][..], &["format", "--check"]] {
        run(Command::new(&python).args(["-m", "ruff"]).args(check).arg(TESTS))?;
    }
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let chosen = match (is_set(WRITE), is_set(MEASURE)) {
        (true, _) => format!("{TESTS}/test_pictures.py"),
        (_, true) => format!("{TESTS}/measure_page.py"),
        _ => TESTS.to_owned(),
    };
    let program = build_programs(SERVICES, &["--bin", "keytally"])?.join("keytally");
    let mut tests = Command::new(&python);
    tests.args(["-m", "pytest", "-q", &chosen]).env("KEYTALLY_TEST_PROGRAM", program);
    if !is_set(MEASURE) {
        // Much of the time, a test waits. The tests of a file share what they have set up.
        tests.args(["-n", "2", "--dist", "loadfile"]);
    }
    tests.env("KEYTALLY_TEST_CHROMIUM", CHROMIUM[0].path()?);
    tests.env("KEYTALLY_TEST_PICTURES", pictures);
    if form >= Form::Named {
        tests.env("KEYTALLY_LONG", "1").env("KEYTALLY_TEST_DATABASES", "sqlite postgres");
    }
    let output = run(&mut tests)?;
    if is_set(MEASURE) {
        println!("{output}");
    }
    let summary = output.lines().rev().find_map(|line| line.split_once(" in "));
    Ok(summary.with_context(|| format!("no test ran:\n{output}"))?.0.to_owned())
}
