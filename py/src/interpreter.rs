//! The interpreter that may have the module: the main one of the process.

use std::{io, thread};

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// Refuses every interpreter but the main one.
///
/// PyO3 creates classes and finds exceptions once in a process, and at times it does so in the main interpreter. In a
/// further one, `except PepperError` would not catch what is raised.
pub(crate) fn refuse_further(py: Python<'_>) -> PyResult<()> {
    // Each interpreter has a module `builtins` of its own, and a thread of no interpreter is attached to the main one.
    let main = py.detach(|| {
        let thread = thread::Builder::new().spawn(|| Python::attach(builtins))?;
        thread.join().map_err(|_| io::Error::other("the thread that finds the main interpreter panicked"))
    })??;
    if main.is(&builtins(py)?) {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "keytally works in the main interpreter of a process, and this is another one; with mod_wsgi, \
         set WSGIApplicationGroup %{GLOBAL}, and give each application a WSGIDaemonProcess of its own",
    ))
}

fn builtins(py: Python<'_>) -> PyResult<Py<PyModule>> {
    py.import("builtins").map(Bound::unbind)
}
