//! Policies and their quotas.

use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::arguments::PolicyText;

/// What may be used: one to four limits, each per window of time, whose windows nest.
///
/// Args:
///     text: ``[fixed|sliding] LIMIT/[N]UNIT, …`` with the units second, minute, hour, day, or sec, min, s, m, h, d.
///         ``LIMIT per [N]UNIT`` is read too.
///
/// Raises:
///     PolicyError: There is no such policy; the message says which part is wrong, and how.
///
/// >>> from keytally import Policy
/// >>> policy = Policy("1000/hour, 100/minute")
/// >>> policy
/// Policy('100/minute, 1000/hour')
/// >>> policy.algorithm, policy.quotas
/// ('fixed', (Quota(limit=100, window=60), Quota(limit=1000, window=3600)))
/// >>> Policy("100/fortnight")
/// Traceback (most recent call last):
/// keytally.exceptions.PolicyError: "fortnight" is no unit; the units are second, minute, hour, day, or sec, min, s, m, h, d
#[pyclass(frozen, eq, module = "keytally")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) policy: keytally::Policy,
}

#[pymethods]
impl Policy {
    #[new]
    fn new(text: PolicyText) -> Self {
        Self { policy: text.0 }
    }

    /// How the windows count: ``"fixed"``, aligned to the Unix epoch, or ``"sliding"``, the last full window length.
    #[getter]
    fn algorithm(&self) -> &'static str {
        self.policy.algorithm().as_str()
    }

    /// The quotas, shortest window first.
    #[getter]
    fn quotas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.policy.quotas().iter().map(Quota::of).collect::<Vec<_>>())
    }

    /// Each quota that can never deny a request, with the quota that allows no more than it already.
    ///
    /// >>> from keytally import Policy
    /// >>> Policy("100/minute, 50/hour").never_binding
    /// ((Quota(limit=100, window=60), Quota(limit=50, window=3600)),)
    /// >>> Policy("100/minute, 1000/hour").never_binding
    /// ()
    #[getter]
    fn never_binding<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let pairs = self.policy.never_binding().map(|(idle, other)| (Quota::of(&idle), Quota::of(&other)));
        PyTuple::new(py, pairs.collect::<Vec<_>>())
    }

    fn __str__(&self) -> String {
        self.policy.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Policy('{}')", self.policy)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (String,)) {
        (slf.get_type(), (slf.get().policy.to_string(),))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.policy.to_string().into_pyobject(py)?.hash()
    }
}

/// At most so many units of cost in each window of that length.
///
/// >>> from keytally import Policy
/// >>> [quota] = Policy("5/10s").quotas
/// >>> quota.limit, quota.window
/// (5, 10)
#[pyclass(frozen, eq, hash, module = "keytally")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Quota {
    pub(crate) limit: u32,
    pub(crate) window: u32,
}

impl Quota {
    fn of(quota: &keytally::Quota) -> Self {
        Self { limit: quota.limit, window: quota.window.seconds() }
    }
}

#[pymethods]
impl Quota {
    /// The most that is admitted in one window.
    #[getter]
    fn limit(&self) -> u32 {
        self.limit
    }

    /// The length of the window in seconds.
    #[getter]
    fn window(&self) -> u32 {
        self.window
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (u32, u32))> {
        let restore = slf.py().import("keytally._native")?.getattr("restore_quota")?;
        let quota = slf.get();
        Ok((restore, (quota.limit, quota.window)))
    }

    fn __repr__(&self) -> String {
        format!("Quota(limit={}, window={})", self.limit, self.window)
    }
}
