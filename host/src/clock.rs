//! The system's clock: the only place that reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use keytally::Timestamp;

/// The present, as the system's clock tells it. A clock before 1970 reads as 0.
///
/// ```
/// assert!(keytally_host::now().unix_s() > 1_700_000_000);
/// ```
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    let time = SystemTime::now();
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
