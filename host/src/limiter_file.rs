//! Creates and opens the files of limiters, of subjects and of addresses.

use core::fmt::Display;
use std::path::{Path, PathBuf};

use keytally_core::{AddressPolicy, AttachError, CreateError, Policy, SetPolicyError};

use crate::entropy;
use crate::error::Error;
use crate::file::{TableFile, open_table};
use crate::header::HEADER_LINES;
use crate::map::Mapping;
use crate::publish::{Table, create_in_memory, create_table};

/// The number of attempts that [`open_or_create`] makes while other processes create and remove the
/// file.
const MAX_ATTEMPTS: u32 = 8;

/// A limiter of the core. Each method is the core's.
pub(crate) trait CoreLimiter: Table + Sized {
    /// The limits.
    type Policy: PartialEq + Display;

    fn init(
        memory: Mapping,
        policy: &Self::Policy,
        capacity: u32,
        seed: &[u8; 16],
    ) -> Result<Self, CreateError>;
    fn attach(memory: Mapping) -> Result<Self, AttachError>;
    fn policy(&self) -> Option<Self::Policy>;
    fn set_policy(&self, policy: &Self::Policy) -> Result<(), SetPolicyError>;
    fn capacity(&self) -> u32;
}

/// Implements [`CoreLimiter`] for a limiter of the core.
macro_rules! core_limiter {
    ($limiter:ty, $policy:ty) => {
        impl CoreLimiter for $limiter {
            type Policy = $policy;

            fn init(
                memory: Mapping,
                policy: &$policy,
                capacity: u32,
                seed: &[u8; 16],
            ) -> Result<Self, CreateError> {
                Self::init_after(memory, HEADER_LINES, policy, capacity, *seed)
            }

            fn attach(memory: Mapping) -> Result<Self, AttachError> {
                Self::attach(memory)
            }

            fn policy(&self) -> Option<$policy> {
                self.policy()
            }

            fn set_policy(&self, policy: &$policy) -> Result<(), SetPolicyError> {
                self.set_policy(policy)
            }

            fn capacity(&self) -> u32 {
                self.capacity()
            }
        }
    };
}

core_limiter!(keytally_core::Limiter<Mapping>, Policy);
core_limiter!(keytally_core::AddressLimiter<Mapping>, AddressPolicy);

/// Creates a limiter in a new file at `path`.
pub(crate) fn create<L: CoreLimiter>(
    path: &Path,
    policy: &L::Policy,
    capacity: u32,
) -> Result<(TableFile, L), Error> {
    let lines = line_count(Some(path), capacity)?;
    let seed = entropy::random()?;
    create_table(path, lines, |memory| L::init(memory, policy, capacity, &seed), L::attach)
}

/// Opens the limiter at `path`.
pub(crate) fn open<L: CoreLimiter>(path: &Path) -> Result<(TableFile, L), Error> {
    open_table(path, L::attach)
}

/// Opens the limiter at `path`, or creates it if there is none.
pub(crate) fn open_or_create<L: CoreLimiter>(
    path: &Path,
    policy: &L::Policy,
    capacity: u32,
) -> Result<(TableFile, L), Error> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match open::<L>(path) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            other => {
                let (file, limiter) = other?;
                check_settings(&limiter, path, policy, capacity)?;
                return Ok((file, limiter));
            }
        }
        match create(path, policy, capacity) {
            Err(Error::Exists { .. }) if attempts < MAX_ATTEMPTS => {}
            other => return other,
        }
    }
}

/// Gives the limiter this policy. Fails if it cannot count it or has another capacity.
fn check_settings<L: CoreLimiter>(
    limiter: &L,
    path: &Path,
    policy: &L::Policy,
    capacity: u32,
) -> Result<(), Error> {
    let Some(found) = limiter.policy() else {
        let source = AttachError::Geometry { what: "limit", value: 0 };
        return Err(Error::Attach { path: path.into(), source });
    };
    if limiter.capacity() != capacity {
        return Err(Error::Capacity {
            path: path.into(),
            found: limiter.capacity(),
            requested: capacity,
        });
    }
    if found != *policy {
        limiter.set_policy(policy).map_err(|source| {
            let (found, requested) = (found.to_string(), policy.to_string());
            Error::Policy { path: path.into(), found, requested, source }
        })?;
    }
    Ok(())
}

/// Creates a limiter in memory.
pub(crate) fn in_memory<L: CoreLimiter>(
    policy: &L::Policy,
    capacity: u32,
) -> Result<(TableFile, L), Error> {
    let lines = line_count(None, capacity)?;
    let seed = entropy::random()?;
    create_in_memory(lines, |memory| L::init(memory, policy, capacity, &seed))
}

/// A limiter for fewer subjects than this, but at least [`MIN_SPREAD_SUBJECTS`], gets the slots of
/// one for 16 times as many, at most for this many.
///
/// If many subjects share a cache line, threads that charge different subjects wait for each other.
/// With this many slots, few lines of a small table have more than one subject.
const SPREAD_SUBJECTS: u32 = 1 << 14;

/// A limiter for fewer subjects is as small as it can be.
const MIN_SPREAD_SUBJECTS: u32 = 64;

/// Returns the size of the limiter in cache lines, with the header. Refuses an impossible capacity
/// before any disk space is reserved.
fn line_count(path: Option<&Path>, capacity: u32) -> Result<usize, Error> {
    let spread = match capacity {
        0..MIN_SPREAD_SUBJECTS => capacity,
        _ => capacity.max(capacity.saturating_mul(16).min(SPREAD_SUBJECTS)),
    };
    keytally_core::Limiter::<Mapping>::validate(HEADER_LINES, spread)
        .map_err(|source| Error::Create { path: path.map(PathBuf::from), source })
}
