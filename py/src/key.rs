//! A new key, and the public details of a key.

use keytally::KeyInfo as Info;
use keytally::{KeyId, Timestamp};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::quota_state;

/// A key that was just issued or rotated, with the only copy of its secret.
///
/// The gate stores only an HMAC of the secret. ``print`` and ``repr`` show the hint, so that the
/// secret does not reach a log by accident.
///
/// >>> import keytally
/// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
/// >>> key = gate.issue(42)
/// >>> key.expose().startswith("kt_live_"), key.expose() in repr(key)
/// (True, False)
/// >>> gate.check(key.expose()).key_id == key.key_id
/// True
/// >>> key.hint == "kt_live_…" + key.expose()[-4:]
/// True
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Key {
    pub(crate) key: keytally::Key,
    pub(crate) key_id: KeyId,
}

#[pymethods]
impl Key {
    /// Returns the key as the client must send it. Do not log it.
    ///
    /// >>> import keytally
    /// >>> key = keytally.Gate.in_memory(pepper=keytally.generate_pepper()).issue(42)
    /// >>> f"X-API-Key: {key.expose()}"[:19]
    /// 'X-API-Key: kt_live_'
    fn expose(&self) -> &str {
        self.key.expose()
    }

    /// The id of the key, 11 base62 characters. It survives rotation, and logs may contain it.
    #[getter]
    fn key_id(&self) -> String {
        self.key_id.to_string()
    }

    /// The part of the key that may be shown: prefix, environment and the last four characters.
    #[getter]
    fn hint(&self) -> String {
        self.key.hint().to_string()
    }

    fn __str__(&self) -> String {
        self.hint()
    }

    fn __repr__(&self) -> String {
        format!("<Key {}: {}>", self.key_id, self.hint())
    }
}

/// The public details of a key, as ``Gate.list`` and ``Gate.key`` return them.
///
/// Times are Unix seconds.
///
/// >>> import keytally
/// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), scopes=["read", "write"])
/// >>> key = gate.issue(42, env="test", scopes=["read"])
/// >>> [info] = gate.list()
/// >>> info.account, info.env, info.plan, info.state, info.expires
/// (42, 'test', 'default', 'active', None)
/// >>> info.key_id == key.key_id, info.hint == key.hint
/// (True, True)
/// >>> info.scopes
/// ('read',)
/// >>> info.last_used, info.grace_until, info.pepper, info.clock_ahead_s
/// (None, None, 0, 0)
/// >>> [quota.remaining for quota in info.quotas]
/// [100, 1000]
#[pyclass(frozen, module = "keytally")]
pub(crate) struct KeyInfo {
    info: Info,
    plan: Option<String>,
    hint: String,
    scopes: Vec<String>,
    now: Timestamp,
}

impl KeyInfo {
    pub(crate) fn new(info: Info, gate: &keytally::Gate, now: Timestamp) -> Self {
        let table = gate.table();
        let hint = info.hint(table.prefix()).to_string();
        let plan = table.plan(info.plan).map(|plan| plan.name.as_str().to_owned());
        let scopes = table.scopes_of(&info).map(|scope| scope.to_string()).collect();
        Self { info, plan, hint, scopes, now }
    }
}

#[pymethods]
impl KeyInfo {
    /// The id of the key, 11 base62 characters.
    #[getter]
    fn key_id(&self) -> String {
        self.info.key_id.to_string()
    }

    /// The number of the account that the key belongs to.
    #[getter]
    fn account(&self) -> u32 {
        self.info.account
    }

    /// The environment; ``None`` if the record is damaged.
    #[getter]
    fn env(&self) -> Option<String> {
        self.info.env.map(|env| env.to_string())
    }

    /// The name of the plan; ``None`` if the record is damaged.
    #[getter]
    fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }

    /// The state of the key: ``"active"``, ``"revoked"`` or ``"expired"``.
    #[getter]
    fn state(&self) -> &'static str {
        self.info.state_name(self.now)
    }

    /// The part of the key that may be shown: prefix, environment and the last four characters.
    ///
    /// An imported key is shown with the prefix of the gate. If it has fewer than 24 bytes, its
    /// last characters are not shown.
    #[getter]
    fn hint(&self) -> &str {
        &self.hint
    }

    /// When the key expires, in Unix seconds; ``None`` if it never does.
    #[getter]
    fn expires(&self) -> Option<u64> {
        self.info.expires.map(Timestamp::unix_s)
    }

    /// When the previous secret becomes invalid, in Unix seconds; ``None`` if it is invalid now.
    #[getter]
    fn grace_until(&self) -> Option<u64> {
        self.info.grace_until.filter(|&end| end > self.now).map(Timestamp::unix_s)
    }

    /// When the key's counts last changed, in Unix seconds, rounded down to the shortest window.
    ///
    /// It is rounded down to less if windows do not nest, and to a day if all are weeks and months.
    /// A charge, a refund and a settlement change them. ``None`` if all counts are 0: the key was
    /// never charged, or its counts were reset or refunded since.
    #[getter]
    fn last_used(&self) -> Option<u64> {
        self.info.last_used.map(Timestamp::unix_s)
    }

    /// The number of the pepper, from 0, with which the secret's HMAC was computed.
    #[getter]
    fn pepper(&self) -> u8 {
        self.info.pepper
    }

    /// The names of the scopes that the key has, in the order of ``Gate.scopes``.
    #[getter]
    fn scopes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.scopes)
    }

    /// How far the time of the key's counts is ahead of the caller's, in seconds, rounded up.
    ///
    /// It is 0 if they are not ahead. `Gate` describes the cause and the correction.
    #[getter]
    fn clock_ahead_s(&self) -> u32 {
        self.info.clock_ahead_s
    }

    /// The state of each quota of the key, a `QuotaState`, shortest window first.
    #[getter]
    fn quotas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        quota_state::quotas(py, self.info.quotas.iter())
    }

    fn __repr__(&self) -> String {
        format!(
            "<KeyInfo {}: {}, account {}, {}>",
            self.info.key_id,
            self.hint,
            self.info.account,
            self.state()
        )
    }
}
