//! The check that the main interpreter of the process imports the module, not a subinterpreter.

use std::{io, thread};

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// Returns an `ImportError` unless the caller is the main interpreter of the process.
///
/// PyO3 creates classes and looks up exceptions once per process, but each interpreter imports
/// `keytally.exceptions` itself. In a second interpreter, `except PepperError` would therefore not
/// catch the `PepperError` that this module raises.
pub(crate) fn require_main(py: Python<'_>) -> PyResult<()> {
    // Each interpreter has its own module `builtins`. A new thread is attached to the main one.
    let main = py.detach(|| {
        let thread = thread::Builder::new().spawn(|| Python::attach(builtins))?;
        thread
            .join()
            .map_err(|_| io::Error::other("the thread that finds the main interpreter panicked"))
    })??;
    if main.is(&builtins(py)?) {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "keytally works only in the main interpreter of a process, and this is another one; with \
         mod_wsgi, set WSGIApplicationGroup %{GLOBAL}, and give each application its own WSGIDaemonProcess",
    ))
}

fn builtins(py: Python<'_>) -> PyResult<Py<PyModule>> {
    py.import("builtins").map(Bound::unbind)
}
