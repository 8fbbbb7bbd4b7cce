//! The class `AccountInfo`, the properties of an account.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::quota_state;

/// The properties of an account, as ``Gate.account`` and ``Gate.accounts`` return them.
///
/// >>> import keytally
/// >>> plans = {"default": "100/minute; team: 5000/hour"}
/// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
/// >>> key = gate.issue(42)
/// >>> [info] = gate.accounts()
/// >>> info
/// <AccountInfo 42: plan default>
/// >>> info.account, info.plan, info.is_suspended, info.has_own_limits
/// (42, 'default', False, False)
/// >>> info.quotas
/// (<QuotaState hour: 5000 of 5000 left until ...>,)
#[pyclass(frozen, module = "keytally")]
pub(crate) struct AccountInfo {
    info: keytally::AccountInfo,
    plan: Option<String>,
}

impl AccountInfo {
    pub(crate) fn new(info: keytally::AccountInfo, gate: &keytally::Gate) -> Self {
        let plan = gate.table().plan(info.plan).map(|plan| plan.name.as_str().to_owned());
        Self { info, plan }
    }
}

#[pymethods]
impl AccountInfo {
    /// The number of the account.
    #[getter]
    fn account(&self) -> u32 {
        self.info.account
    }

    /// Whether the keys of the account are refused, see ``Gate.suspend``.
    #[getter]
    fn is_suspended(&self) -> bool {
        self.info.is_suspended
    }

    /// The name of the plan whose team limits hold for the account.
    #[getter]
    fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }

    /// Whether the account has limits of its own instead, see ``Gate.limit_account``.
    #[getter]
    fn has_own_limits(&self) -> bool {
        self.info.has_own_limits
    }

    /// The state of each quota that all keys of the account share, a `QuotaState`, shortest window
    /// first.
    ///
    /// Empty if the plans have no section ``team``, or do not limit it.
    #[getter]
    fn quotas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        quota_state::quotas(py, self.info.quotas().iter().flat_map(|quotas| quotas.iter()))
    }

    fn __repr__(&self) -> String {
        let plan = self.plan.as_deref().unwrap_or("?");
        let state = if self.info.is_suspended { ", suspended" } else { "" };
        format!("<AccountInfo {}: plan {plan}{state}>", self.info.account)
    }
}
