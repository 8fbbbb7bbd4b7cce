//! Times of the tests: seconds after a noon, at which a minute, an hour and a half-day begin.

use keytally_core::Timestamp;

/// Noon in Unix seconds: 2023-11-15T12:00:00Z.
pub(crate) const NOON_S: u64 = 1_700_049_600;

/// Returns the moment this many seconds after noon.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_s(NOON_S + seconds)
}
