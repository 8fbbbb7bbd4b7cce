//! The Python module `keytally._native`: it converts, and decides nothing.
//!
//! | file | what it holds |
//! |---|---|
//! | `gate.rs`, `limiter.rs`, `policy.rs`, `verdict.rs`, `charge.rs`, `key.rs`, `report.rs` | a class each, with what belongs to it |
//! | `arguments.rs` | what callers may pass: text or bytes, costs, times, spans, peppers, policies |
//! | `clock.rs` | the time of a call: explicit, or the system clock |
//! | `fields.rs` | header fields |
//! | `exceptions.rs` | errors as exceptions |
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
mod key;
mod limiter;
mod policy;
mod report;
mod verdict;

#[pyo3::pymodule(gil_used = false)]
mod _native {
    use std::ffi::OsString;

    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::charge::Charge;
    #[pymodule_export]
    use crate::gate::Gate;
    #[pymodule_export]
    use crate::key::{Key, KeyInfo};
    #[pymodule_export]
    use crate::limiter::Limiter;
    #[pymodule_export]
    use crate::policy::{Policy, Quota};
    #[pymodule_export]
    use crate::report::{Flaw, Report};
    #[pymodule_export]
    use crate::verdict::{QuotaState, Verdict};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Runs the command line ``args``, program name first, as the program ``keytally`` does, and returns the exit
    /// status: 0 fine, 1 denied or invalid, 2 usage, 3 failure.
    #[pyfunction]
    fn run(py: Python<'_>, args: Vec<OsString>) -> i32 {
        py.detach(|| keytally_server::cli::run(args))
    }

    /// Returns ``text`` as an error may repeat it: without what looks like a key or a pepper.
    ///
    /// >>> from keytally._native import redact
    /// >>> redact("/srv/api.gate"), redact("kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM")
    /// ('/srv/api.gate', 'kt_live_…')
    #[pyfunction]
    fn redact(text: &str) -> String {
        keytally_host::redact::redact(text).into_owned()
    }

    /// A new pepper: 32 bytes of the system's entropy as 64 hex digits. Keep it where the server finds it, and
    /// nowhere near the gate.
    ///
    /// >>> import keytally
    /// >>> len(keytally.generate_pepper())
    /// 64
    #[pyfunction]
    fn generate_pepper() -> PyResult<String> {
        match keytally_host::pepper::generate() {
            Ok(pepper) => Ok((*pepper).clone()),
            Err(error) => Err(crate::exceptions::of(error)),
        }
    }
}
