//! Why an administrator refuses a change.

use core::fmt;

use super::extension::MAX_SCOPES;
use super::imported::IMPORTED_KEY_LEN;
use super::table::MAX_ENVS;
use crate::features::Feature;
use crate::key::{self, KeyId};
use crate::mac::MAX_PEPPERS;
use crate::time::Timestamp;

/// Why an administrator refused a change. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum AdminError {
    /// There is another administrator.
    Busy,
    /// Every record is damaged, or holds a key that is active or that ended so recently that its
    /// counts still matter.
    Full {
        /// The most keys that the gate can hold.
        keys: u32,
    },
    /// All records that this imported key could have are taken.
    NoRoomToImport,
    /// The gate does not have this key.
    NoSuchKey(KeyId),
    /// The gate does not have this plan.
    NoSuchPlan,
    /// There is no room for another plan.
    PlansFull {
        /// The most there can be.
        max: usize,
    },
    /// The plan's sections, windows or algorithms differ from the gate's, or the gate is plain and
    /// the plan is not: it has an unlimited section or a warning.
    PlanWindows,
    /// A limit of the plan is above what the gate's tallies can count.
    PlanLimit {
        /// The limit.
        limit: u32,
        /// The most that the window's count can hold.
        max: u32,
    },
    /// There is no room for another environment.
    EnvsFull,
    /// There is no room for another team.
    TeamsFull {
        /// The most there can be.
        teams: u32,
    },
    /// The gate has no team of this account.
    NoSuchAccount(u32),
    /// The gate has no scope of this name.
    NoSuchScope,
    /// The gate holds no key under this pepper, and this process does not have the pepper.
    NoSuchPepper,
    /// Prefix and environment have more than 14 characters together.
    NamesTooLong,
    /// The key was revoked.
    Revoked(KeyId),
    /// The secret before the key's last rotation is still valid, and another rotation would end it
    /// at once.
    InGrace {
        /// The key.
        key_id: KeyId,
        /// Until when that secret is valid.
        until: Timestamp,
    },
    /// The key's record names an environment that does not exist.
    Damaged(KeyId),
    /// The key is in the gate already.
    AlreadyImported(KeyId),
    /// The text cannot be imported as a key.
    NotImportable {
        /// Its length in bytes.
        len: usize,
    },
    /// This build leaves out a feature that the change needs.
    LeftOut(Feature),
    /// Keys use [`MAX_PEPPERS`] peppers, so there is no number for the newest one.
    PeppersFull,
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("another administrator is changing this gate right now; try again"),
            Self::Full { keys } => write!(
                f,
                "the gate is full: all {keys} records hold keys, and that of a revoked or expired key is free once its longest window has passed; for room at once, enlarge the gate: `keytally migrate`"
            ),
            Self::NoRoomToImport => f.write_str(
                "the records that this key could be imported into are taken; migrate the gate to one with a third more keys than you import",
            ),
            Self::NoSuchKey(key_id) => write!(f, "the gate has no key {key_id}; `list` shows all"),
            Self::NoSuchPlan => f.write_str("the gate has no plan of that name; `list` shows the plans"),
            Self::PlansFull { max } => write!(f, "the gate has room for {max} plans and has them all"),
            Self::PlanWindows => f.write_str(
                "the plan's sections, windows and algorithms must be those of the gate's other plans; unlimited sections and warnings are possible only if the gate was created with one, with teams or with scopes; for others, migrate the gate",
            ),
            Self::PlanLimit { limit, max } => {
                write!(f, "a limit of {limit} is more than this gate's tallies can count in that window; the most is {max}")
            }
            Self::EnvsFull => write!(f, "the gate has room for {MAX_ENVS} environments and has them all"),
            Self::TeamsFull { teams: 0 } => {
                f.write_str("the gate was created without teams; create one with room for them")
            }
            Self::TeamsFull { teams } => {
                write!(f, "the gate has room for {teams} teams and has them all; create one with more")
            }
            Self::NoSuchAccount(account) => {
                write!(
                    f,
                    "the gate has no account {account}; an account is made with its first key, in a gate with room for teams"
                )
            }
            Self::NoSuchScope => write!(
                f,
                "the gate has no scope of that name; its scopes are named when it is created, at most {MAX_SCOPES}"
            ),
            Self::NoSuchPepper => f.write_str(
                "the secret is under a pepper that neither this gate nor this process has; give the pepper",
            ),
            Self::NamesTooLong => {
                write!(f, "prefix and environment have more than {} characters together", key::MAX_NAMES_LEN)
            }
            Self::Revoked(key_id) => write!(f, "key {key_id} was revoked and cannot be changed; issue a new one"),
            Self::InGrace { key_id, until } => write!(
                f,
                "the secret that key {key_id} had before its last rotation is valid until Unix second {}, and another rotation would end it at once; wait, or force the rotation",
                until.unix_s(),
            ),
            Self::Damaged(key_id) => write!(f, "the record of key {key_id} is damaged; `verify` reports how"),
            Self::AlreadyImported(key_id) => write!(f, "this key is in the gate already, as {key_id}"),
            Self::NotImportable { len } => write!(
                f,
                "a key to import has {} to {} bytes of printable ASCII without spaces; this one has {len} bytes",
                IMPORTED_KEY_LEN.start,
                IMPORTED_KEY_LEN.end - 1,
            ),
            Self::LeftOut(feature) => feature.fmt(f),
            Self::PeppersFull => write!(
                f,
                "keys under {MAX_PEPPERS} peppers are in this gate; rotate those of the oldest pepper before you use another"
            ),
        }
    }
}

impl core::error::Error for AdminError {}
