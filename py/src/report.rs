//! The classes `Report`, the result of `Gate.verify`, and `Flaw`.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The result of ``Gate.verify``.
///
/// >>> import keytally
/// >>> report = keytally.Gate.in_memory(pepper=keytally.generate_pepper()).verify()
/// >>> report.completed, report.flaws
/// (False, ())
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Report {
    pub(crate) completed: bool,
    pub(crate) flaws: Vec<keytally::Flaw>,
}

#[pymethods]
impl Report {
    /// Whether the call completed a change during which an administrator was killed.
    #[getter]
    fn completed(&self) -> bool {
        self.completed
    }

    /// The flaws, each a `Flaw`; empty if there are none.
    #[getter]
    fn flaws<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.flaws.iter().map(|&flaw| Flaw { flaw }).collect::<Vec<_>>())
    }

    fn __repr__(&self) -> String {
        let flaws: Vec<String> = self.flaws.iter().map(|flaw| format!("<Flaw: {flaw}>")).collect();
        let completed = if self.completed { "True" } else { "False" };
        format!("<Report: completed={completed}, flaws=[{}]>", flaws.join(", "))
    }
}

/// A record of a gate that is not valid, or whose tally is more than 60 s ahead of the clock.
///
/// ``str`` returns the flaw as a sentence.
///
/// >>> import keytally
/// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
/// >>> for flaw in gate.verify().flaws:
/// ...     print(f"record {flaw.record}, key {flaw.key_id}, {flaw.kind}: {flaw}")
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Flaw {
    flaw: keytally::Flaw,
}

#[pymethods]
impl Flaw {
    /// The number of the record, from 0.
    #[getter]
    fn record(&self) -> u32 {
        self.flaw.record
    }

    /// The id of the key in the record; ``None`` if the record does not have a valid one.
    #[getter]
    fn key_id(&self) -> Option<String> {
        self.flaw.key_id.map(|key_id| key_id.to_string())
    }

    /// What is wrong, as a name: ``"half_written"``, ``"misplaced"``, ``"no_plan"``, ``"no_env"``,
    /// ``"no_pepper"``, ``"no_tally"``, ``"no_team"``, ``"checksum"`` or ``"future_tally"``.
    #[getter]
    fn kind(&self) -> &'static str {
        self.flaw.kind.as_str()
    }

    fn __str__(&self) -> String {
        self.flaw.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<Flaw: {}>", self.flaw)
    }
}
