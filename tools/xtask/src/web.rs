//! The Python module behind web frameworks: middleware, dependencies, extensions, each also under a real server.

use anyhow::{Context as _, Result};

use crate::command;
use crate::python;
use crate::tools::Found;

/// Every test of the integrations, of the wheel that users get.
pub(crate) fn test(found: &[Found]) -> Result<String> {
    let python = found.first().map(|(_, python)| python).context("no Python")?;
    python::install(python)?;
    let mut tests = python::strict(python, &python::PYTEST);
    tests.arg("tests/integrations");
    python::passed(&command::run(tests)?)
}
