//! What an administrator needs for a new key: its properties and random bytes.

use core::fmt;

use zeroize::Zeroize;

use crate::key::{Name, SECRET_LEN};
use crate::time::Timestamp;

/// Random bytes from the caller for one key: 8 for the key id and 16 for the secret. They are wiped
/// when dropped.
#[derive(Clone)]
pub struct Entropy([u8; 8 + SECRET_LEN]);

impl Entropy {
    /// Takes 24 bytes, which must come from a cryptographic source of randomness.
    pub const fn new(bytes: [u8; 8 + SECRET_LEN]) -> Self {
        Self(bytes)
    }

    pub(super) fn id(&self) -> u64 {
        u64::from_le_bytes(core::array::from_fn(|byte| self.0[byte]))
    }

    pub(super) fn secret(&self) -> &[u8; SECRET_LEN] {
        self.0.last_chunk().unwrap_or(&[0; SECRET_LEN])
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy(…)")
    }
}

impl Drop for Entropy {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The properties of a key to issue or import.
///
/// ```
/// use keytally_core::{Name, NewKey, Timestamp};
/// let new = NewKey::new(42, Name::new("live").unwrap())
///     .with_plan("pro")
///     .with_expires(Timestamp::from_unix_s(1_800_000_000));
/// assert_eq!(new.plan, Some("pro"));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NewKey<'a> {
    /// The team account that the key belongs to.
    pub account: u32,
    /// The environment. The gate registers each new name, at most
    /// [`MAX_ENVS`](super::table::MAX_ENVS).
    pub env: Name,
    /// The name of the key's plan; `None` for the gate's first plan.
    pub plan: Option<&'a str>,
    /// The moment from which the key is no longer valid; `None` for never.
    ///
    /// A gate keeps whole Unix seconds, rounded up, until 2106-02-07T06:28:15Z. A later moment is
    /// kept as that one.
    pub expires: Option<Timestamp>,
    /// The names of the scopes that the key has, of those that the gate has.
    pub scopes: &'a [&'a str],
}

impl<'a> NewKey<'a> {
    /// A key of this account and environment, under the gate's first plan, that never expires and
    /// has no scopes.
    pub const fn new(account: u32, env: Name) -> Self {
        Self { account, env, plan: None, expires: None, scopes: &[] }
    }

    /// Sets the name of the plan.
    #[must_use]
    pub const fn with_plan<'b>(self, plan: &'b str) -> NewKey<'b>
    where
        'a: 'b,
    {
        NewKey { plan: Some(plan), ..self }
    }

    /// Sets the scopes that the key has.
    #[must_use]
    pub const fn with_scopes<'b>(self, scopes: &'b [&'b str]) -> NewKey<'b>
    where
        'a: 'b,
    {
        NewKey { scopes, ..self }
    }

    /// Sets when the key expires: a [`Timestamp`], or an `Option` of one.
    #[must_use]
    pub fn with_expires(self, expires: impl Into<Option<Timestamp>>) -> Self {
        Self { expires: expires.into(), ..self }
    }
}
