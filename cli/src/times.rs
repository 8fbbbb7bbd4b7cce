//! Times as text: RFC 3339 in UTC, to the second.

use core::time::Duration;
use std::time::UNIX_EPOCH;

use keytally::Timestamp;

use crate::failure::Failure;

/// The last second that RFC 3339 can tell: 9999-12-31T23:59:59Z.
const LAST_S: u64 = 253_402_300_799;

/// `2026-01-31T12:00:00Z`. A time after the year 9999, which only a damaged file holds, is shown as the last second
/// of that.
pub fn rfc3339(unix_s: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(unix_s.min(LAST_S));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The second `after` from now, as a gate keeps it: a key's end.
pub fn expiry(now: Timestamp, after: Duration) -> Result<Timestamp, Failure> {
    let unix_s = now.unix_s().saturating_add(after.as_secs());
    if unix_s > u32::MAX.into() {
        let last = rfc3339(u32::MAX.into());
        return Err(Failure::usage(format!(
            "a key can't expire after {last}; leave --expires out for one that never does"
        )));
    }
    Ok(Timestamp::from_unix_s(unix_s))
}

/// Refuses a grace that ends later than a gate can keep.
pub fn grace(now: Timestamp, grace: Duration) -> Result<(), Failure> {
    let end = now.unix_s().saturating_add(grace.as_secs());
    if end <= u32::MAX.into() {
        return Ok(());
    }
    Err(Failure::usage(format!("a grace can't end after {}", rfc3339(u32::MAX.into()))))
}

/// Reads a length of time. (The errors of `humantime` repeat parts of the text, which may be a secret.)
pub fn span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "it is a length of time, such as 90d, 24h, 30m or 1h 30m".to_owned())
}

/// Reads a length of time of at least a second.
pub fn at_least_a_second(text: &str) -> Result<Duration, String> {
    let span = span(text)?;
    if span.as_secs() == 0 { Err("it must be at least 1s".to_owned()) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_can_be_shown() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(LAST_S), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(LAST_S + 1), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_key_ends_within_what_a_gate_can_keep() {
        let now = Timestamp::from_unix_s(1_700_000_000);
        assert_eq!(expiry(now, Duration::from_secs(1)).unwrap().unix_s(), 1_700_000_001);
        let room = u64::from(u32::MAX) - now.unix_s();
        assert_eq!(expiry(now, Duration::from_secs(room)).unwrap().unix_s(), u64::from(u32::MAX));
        assert!(expiry(now, Duration::from_secs(room + 1)).is_err());
        assert!(expiry(now, Duration::MAX).is_err());
    }

    #[test]
    fn a_span_has_at_least_a_second() {
        assert!(at_least_a_second("999ms").is_err());
        assert_eq!(at_least_a_second("1s").unwrap(), Duration::from_secs(1));
        assert_eq!(at_least_a_second("90d").unwrap(), Duration::from_secs(90 * 86_400));
    }
}
