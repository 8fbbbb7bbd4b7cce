//! A Python module with the parts of `keytally.Limiter.check`, each with the parts before it, as a
//! method that `measure.py` times. Each has the signature of `check`.

use core::hint::black_box;

use keytally::Limiter;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// A limiter.
#[pyclass(frozen)]
#[derive(Debug)]
struct Parts(Limiter);

#[pymethods]
impl Parts {
    /// Creates a limiter in memory.
    #[new]
    fn new(policy: &str, capacity: u32) -> PyResult<Self> {
        let policy = policy.parse().map_err(|_| PyValueError::new_err("not a policy"))?;
        let limiter = Limiter::in_memory(&policy, capacity);
        limiter.map(Self).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Returns at once.
    #[pyo3(signature = (subject, cost=1, *, now=None))]
    fn call(&self, subject: &Bound<'_, PyAny>, cost: u32, now: Option<u64>) {
        black_box((subject, cost, now));
    }

    /// Also copies the subject to bytes.
    #[pyo3(signature = (subject, cost=1, *, now=None))]
    fn copy(&self, subject: &Bound<'_, PyAny>, cost: u32, now: Option<u64>) -> PyResult<()> {
        let bytes = subject.cast::<PyString>()?.encode_utf8()?;
        black_box((bytes.as_bytes(), cost, now));
        Ok(())
    }

    /// Also checks the subject and charges it, but returns no verdict.
    #[pyo3(signature = (subject, cost=1, *, now=None))]
    fn core(&self, subject: &Bound<'_, PyAny>, cost: u32, now: Option<u64>) -> PyResult<()> {
        let bytes = subject.cast::<PyString>()?.encode_utf8()?;
        black_box((self.0.check(bytes.as_bytes(), cost), now));
        Ok(())
    }

    /// Resets the counts of a subject.
    fn reset(&self, subject: &str) {
        self.0.reset(subject.as_bytes());
    }
}

#[pymodule]
fn keytally_parts(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Parts>()
}
