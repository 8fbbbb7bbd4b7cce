//! The class `KeyUsage`, how a key was used.

use keytally::Timestamp;
use pyo3::prelude::*;

/// How a key was used, as ``Gate.key_usage`` returns it.
///
/// A request is counted only if its secret was right. A count of requests continues from 0 after
/// 4294967295.
///
/// >>> import os, tempfile, keytally
/// >>> path = os.path.join(tempfile.mkdtemp(), "api.gate")
/// >>> gate = keytally.Gate.create(path, pepper=keytally.generate_pepper())
/// >>> gate.set_usage(True)
/// >>> key = gate.issue(42)
/// >>> verdicts = [gate.check(key.expose(), cost) for cost in (1, 5, 1000)]
/// >>> usage = gate.key_usage(key.key_id)
/// >>> usage
/// <KeyUsage: 2 admitted, 1 denied>
/// >>> usage.admitted, usage.with_previous_secret, usage.units, usage.last_used is None
/// (2, 0, 6, False)
/// >>> usage.denied_by_key, usage.denied_by_team, usage.denied_by_group
/// (1, 0, 0)
/// >>> usage.forbidden, usage.revoked, usage.expired, usage.suspended
/// (0, 0, 0, 0)
#[pyclass(frozen, eq, module = "keytally")]
#[derive(PartialEq, Eq)]
pub(crate) struct KeyUsage(pub(crate) keytally::KeyUsage);

#[pymethods]
impl KeyUsage {
    /// The requests that were admitted.
    #[getter]
    fn admitted(&self) -> u32 {
        self.0.admitted()
    }

    /// The requests that were admitted with the previous secret, during the grace of a rotation.
    ///
    /// ``admitted`` includes them.
    #[getter]
    fn with_previous_secret(&self) -> u32 {
        self.0.with_previous_secret()
    }

    /// The units that the admitted requests cost, without those that were given back.
    #[getter]
    fn units(&self) -> u64 {
        self.0.units()
    }

    /// The requests that the quotas of the key denied.
    #[getter]
    fn denied_by_key(&self) -> u32 {
        self.0.denied_by_key()
    }

    /// The requests that the quotas of the key's team denied.
    #[getter]
    fn denied_by_team(&self) -> u32 {
        self.0.denied_by_team()
    }

    /// The requests that the quotas of a group denied.
    #[getter]
    fn denied_by_group(&self) -> u32 {
        self.0.denied_by_group()
    }

    /// The requests that needed a scope that the key did not have.
    #[getter]
    fn forbidden(&self) -> u32 {
        self.0.forbidden()
    }

    /// The requests after the key was revoked.
    #[getter]
    fn revoked(&self) -> u32 {
        self.0.revoked()
    }

    /// The requests after the key, or its previous secret, expired.
    #[getter]
    fn expired(&self) -> u32 {
        self.0.expired()
    }

    /// The requests while the account of the key was suspended.
    #[getter]
    fn suspended(&self) -> u32 {
        self.0.suspended()
    }

    /// When a request was last admitted, in Unix seconds; ``None`` if none was.
    #[getter]
    fn last_used(&self) -> Option<u64> {
        self.0.last_used().map(Timestamp::unix_s)
    }

    fn __repr__(&self) -> String {
        let denied = [self.denied_by_key(), self.denied_by_team(), self.denied_by_group()];
        let denied: u64 = denied.map(u64::from).iter().sum();
        format!("<KeyUsage: {} admitted, {denied} denied>", self.admitted())
    }
}
