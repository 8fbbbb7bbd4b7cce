//! Why a key is refused.

use super::table::holder;
use crate::key::ParseKeyError;
use crate::outcome::Reason;
use crate::record::{KeyState, Record, RecordRef};
use crate::time::Timestamp;
use crate::verdict::Holder;

/// The reason, and the holder if the secret was right.
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) holder: Option<Holder>,
}

impl Refusal {
    pub(super) fn new(reason: Reason) -> Self {
        Self { reason, holder: None }
    }
}

/// Returns the record of a key whose secret is right, or why the key is refused: it is revoked or
/// expired. `previous` is whether the secret is the one before the last rotation.
#[inline]
pub(super) fn admissible<'m>(
    at: RecordRef<'m>,
    record: Record,
    previous: bool,
    now: Timestamp,
) -> Result<(RecordRef<'m>, Record), Refusal> {
    match end_reason(&record, previous, now) {
        Some(reason) => Err(Refusal { reason, holder: holder(&record) }),
        None => Ok((at, record)),
    }
}

/// Returns why a key whose secret is right is no longer valid; `None` if it is valid. `previous` is
/// whether the secret is the one before the last rotation.
#[inline]
pub(super) fn end_reason(record: &Record, previous: bool, now: Timestamp) -> Option<Reason> {
    let passed = |until_s: u32| now.unix_s() >= u64::from(until_s);
    if record.state == KeyState::Revoked {
        Some(Reason::Revoked)
    } else if (record.expires != 0 && passed(record.expires))
        || (previous && passed(record.grace_until))
    {
        Some(Reason::Expired)
    } else {
        None
    }
}

/// Returns why a text that is not a key is refused.
pub(super) fn parse_reason(error: ParseKeyError) -> Reason {
    match error {
        ParseKeyError::Form => Reason::Malformed,
        ParseKeyError::Checksum => Reason::Checksum,
    }
}

/// Returns why a key of Keytally's form does not match its record. It is a table lookup, not a
/// branch, so that the time does not depend on whether the id exists.
pub(super) fn mismatch_reason(known: bool, pepper_there: bool) -> Reason {
    const REASONS: [Reason; 4] =
        [Reason::Unknown, Reason::Unknown, Reason::PepperMissing, Reason::WrongSecret];
    REASONS[2 * usize::from(known) + usize::from(pepper_there)]
}
