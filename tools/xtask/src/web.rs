//! The suite `python-web`: the integrations of the Python module in web frameworks.

use anyhow::{Context as _, Result};

use crate::command;
use crate::python;
use crate::tools::Found;

/// Installs the wheel and runs the tests of the integrations.
pub(crate) fn test(found: &[Found]) -> Result<String> {
    let python = found.first().map(|(_, python)| python).context("no Python")?;
    python::install(python)?;
    let mut tests = python::strict(python, &python::PYTEST);
    tests.arg("tests/integrations");
    python::passed(&command::run(tests)?)
}
