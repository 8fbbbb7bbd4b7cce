//! The Python module `keytally._native`: it converts, and decides nothing.
//!
//! | file | what it holds |
//! |---|---|
//! | `gate.rs`, `limiter.rs`, `policy.rs`, `verdict.rs`, `charge.rs`, `key.rs`, `report.rs` | a class each, with what belongs to it |
//! | `arguments.rs` | what callers may pass: text or bytes, costs, times, spans, peppers, policies |
//! | `clock.rs` | the time of a call: explicit, or the system clock |
//! | `fields.rs` | header fields |
//! | `exceptions.rs` | errors as exceptions |
//! | `interpreter.rs` | the interpreter that may have the module |
//! | `kept.rs` | verdicts and quotas that were pickled |
//!
//! Python's documentation of every name is the `///` above it here.
#![forbid(unsafe_code)]
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the examples are Python, where brackets are lists, and what Python shows is in angle brackets"
)]

extern crate alloc;

mod arguments;
mod charge;
mod clock;
mod exceptions;
mod fields;
mod gate;
mod interpreter;
mod kept;
mod key;
mod limiter;
mod policy;
mod report;
mod verdict;

use std::ffi::OsString;

use pyo3::prelude::*;

/// Classes are created once in a process, so nothing may be added before the interpreter is known to be the right one.
/// That takes the form of a function: a module's items would be added before its initialization.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    interpreter::refuse_further(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<charge::Charge>()?;
    module.add_class::<gate::Gate>()?;
    module.add_class::<key::Key>()?;
    module.add_class::<key::KeyInfo>()?;
    module.add_class::<limiter::Limiter>()?;
    module.add_class::<policy::Policy>()?;
    module.add_class::<policy::Quota>()?;
    module.add_class::<report::Flaw>()?;
    module.add_class::<report::Report>()?;
    module.add_class::<verdict::QuotaState>()?;
    module.add_class::<verdict::Verdict>()?;
    module.add_function(wrap_pyfunction!(generate_pepper, module)?)?;
    module.add_function(wrap_pyfunction!(redact, module)?)?;
    module.add_function(wrap_pyfunction!(kept::restore_quota, module)?)?;
    module.add_function(wrap_pyfunction!(kept::restore_quota_state, module)?)?;
    module.add_function(wrap_pyfunction!(kept::restore_verdict, module)?)?;
    module.add_function(wrap_pyfunction!(run, module)?)
}

/// Runs the command line ``args``, program name first, as the program ``keytally`` does, and returns the exit
/// status: 0 fine, 1 denied or invalid, 2 usage, 3 failure.
#[pyfunction]
fn run(py: Python<'_>, args: Vec<OsString>) -> i32 {
    py.detach(|| keytally_cli::run(args))
}

/// Returns ``text`` as an error may repeat it: without what looks like a key or a pepper.
///
/// >>> from keytally._native import redact
/// >>> redact("/srv/api.gate"), redact("kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM")
/// ('/srv/api.gate', 'kt_live_…')
#[pyfunction]
fn redact(text: &str) -> String {
    keytally::redact::redact(text).into_owned()
}

/// A new pepper: 32 bytes of the system's entropy as 64 hex digits. Keep it where the server finds it, and
/// nowhere near the gate.
///
/// >>> import keytally
/// >>> len(keytally.generate_pepper())
/// 64
#[pyfunction]
fn generate_pepper() -> PyResult<String> {
    match keytally::pepper::generate() {
        Ok(pepper) => Ok((*pepper).clone()),
        Err(error) => Err(exceptions::of(error)),
    }
}
