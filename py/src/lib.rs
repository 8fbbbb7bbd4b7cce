//! The Python module `keytally._native`: the classes and functions of the package in Rust.
//!
//! It converts arguments and results. The crates `keytally-core` and `keytally` do the work.
//!
//! ```python
//! import keytally
//!
//! limiter = keytally.Limiter.in_memory("100/minute, 1000/hour")
//! assert limiter.check("203.0.113.9")
//! ```
//!
//! # Layers
//! A module uses modules of lower rows only.
//!
//! | module | contents |
//! |---|---|
//! | `gate`, `limiter` | the tables: a class each |
//! | `compound` | compound charges |
//! | `verdict`, `key`, `account`, `report` | the results of a table's methods: a class or two each |
//! | `sections`, `request` | plans and their sections; the groups and scopes of a request |
//! | `policy`, `charge`, `clock`, `snapshot` | policies; charges; the time of a call; the values of a pickled verdict |
//! | `arguments`, `quota_state` | arguments: text, costs, times, durations, peppers; the state of one quota |
//! | `exceptions`, `fields`, `interpreter` | errors as exceptions; header fields; the interpreter that may import the module |
//!
//! The doc comments of classes, methods and functions are their docstrings in Python.
#![forbid(unsafe_code)]
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the examples are Python, with lists in brackets and representations in angle brackets"
)]

extern crate alloc;

mod account;
mod arguments;
mod charge;
mod clock;
mod compound;
mod exceptions;
mod fields;
mod gate;
mod interpreter;
mod key;
mod limiter;
mod policy;
mod quota_state;
mod report;
mod request;
mod sections;
mod snapshot;
mod usage;
mod verdict;

use std::ffi::OsString;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// Initializes the module.
///
/// Classes are created once per process, so the interpreter is checked before anything is added. A
/// declarative module would add its items before this check.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    interpreter::require_main(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("FIELD_NAMES", PyTuple::new(module.py(), keytally::FIELD_NAMES)?)?;
    module.add_class::<account::AccountInfo>()?;
    module.add_class::<policy::AddressPolicy>()?;
    module.add_class::<charge::Charge>()?;
    module.add_class::<compound::Compound>()?;
    module.add_class::<compound::Part>()?;
    module.add_class::<gate::Gate>()?;
    module.add_class::<key::Key>()?;
    module.add_class::<key::KeyInfo>()?;
    module.add_class::<limiter::Limiter>()?;
    module.add_class::<policy::Policy>()?;
    module.add_class::<policy::Quota>()?;
    module.add_class::<quota_state::QuotaState>()?;
    module.add_class::<report::Flaw>()?;
    module.add_class::<report::Report>()?;
    module.add_class::<sections::SectionQuotas>()?;
    module.add_class::<sections::Sections>()?;
    module.add_class::<usage::KeyUsage>()?;
    module.add_class::<verdict::TallyVerdict>()?;
    module.add_class::<verdict::Verdict>()?;
    module.add("PROBLEM_MEDIA_TYPE", keytally::PROBLEM_MEDIA_TYPE)?;
    module.add_function(wrap_pyfunction!(accepts_problem, module)?)?;
    module.add_function(wrap_pyfunction!(clock::clock_ms, module)?)?;
    module.add_function(wrap_pyfunction!(clock::set_test_clock, module)?)?;
    module.add_function(wrap_pyfunction!(compound::attempt_all, module)?)?;
    module.add_function(wrap_pyfunction!(compound::check_all, module)?)?;
    module.add_function(wrap_pyfunction!(compound::credit_wait_all, module)?)?;
    module.add_function(wrap_pyfunction!(compound::peek_all, module)?)?;
    module.add_function(wrap_pyfunction!(generate_pepper, module)?)?;
    module.add_function(wrap_pyfunction!(redact, module)?)?;
    module.add_function(wrap_pyfunction!(policy::restore_quota, module)?)?;
    module.add_function(wrap_pyfunction!(quota_state::restore_quota_state, module)?)?;
    module.add_function(wrap_pyfunction!(verdict::restore_verdict, module)?)?;
    module.add_function(wrap_pyfunction!(run, module)?)
}

/// Runs the command line ``args``, program name first, and returns the exit status.
///
/// It has the commands of the program ``keytally``, without ``serve``. The status is 0 for success,
/// and 1 for a denied request, an invalid key or rejected lines of an import. It is 2 for wrong
/// usage, and 3 for a failure or a gate with flaws.
#[pyfunction]
fn run(py: Python<'_>, args: Vec<OsString>) -> i32 {
    py.detach(|| keytally_cli::run(args))
}

/// Returns ``text`` without the parts that look like a key or a pepper, for an error message.
///
/// >>> from keytally._native import redact
/// >>> redact("/srv/api.gate"), redact("kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM")
/// ('/srv/api.gate', 'kt_live_…')
#[pyfunction]
fn redact(text: &str) -> String {
    keytally::redact::redact(text).into_owned()
}

/// Returns whether the value of an ``Accept`` field names problem documents (RFC 9457).
///
/// >>> from keytally._native import accepts_problem
/// >>> accepts_problem(b"text/html, application/problem+json"), accepts_problem(b"*/*")
/// (True, False)
#[pyfunction]
fn accepts_problem(accept: &[u8]) -> bool {
    keytally::accepts_problem(accept)
}

/// Returns a new pepper: 32 bytes of the system's entropy, as 64 hex digits.
///
/// Store it where the server can read it, and not next to the gate's file.
///
/// Raises:
///     OSError: The system cannot provide entropy.
///
/// >>> import keytally
/// >>> len(keytally.generate_pepper())
/// 64
#[pyfunction]
fn generate_pepper() -> PyResult<String> {
    match keytally::pepper::generate() {
        Ok(pepper) => Ok((*pepper).clone()),
        Err(error) => Err(exceptions::from_error(error)),
    }
}
