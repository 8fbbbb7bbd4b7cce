//! Times as text (RFC 3339, UTC, whole seconds), and durations as text (`90d`, `1h 30m`).

use core::time::Duration;
use std::time::UNIX_EPOCH;

use keytally::Timestamp;

use crate::failure::Failure;

/// The last second that RFC 3339 can represent: 9999-12-31T23:59:59Z.
const LAST_S: u64 = 253_402_300_799;

/// Formats Unix seconds, such as `2026-01-31T12:00:00Z`.
///
/// Times after the year 9999, which only a damaged file holds, are shown as its last second.
pub fn rfc3339(unix_s: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(unix_s.min(LAST_S));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Returns the expiry of a key that is valid for `lifetime` from `now` on.
///
/// # Errors
/// A usage error if a gate cannot store that time: it stores 32 bits of Unix seconds.
pub(crate) fn expiry(now: Timestamp, lifetime: Duration) -> Result<Timestamp, Failure> {
    let unix_s = now.unix_s().saturating_add(lifetime.as_secs());
    if unix_s > u32::MAX.into() {
        let last = rfc3339(u32::MAX.into());
        return Err(Failure::usage(format!(
            "a key cannot expire after {last}; omit --expires for a key that never expires"
        )));
    }
    Ok(Timestamp::from_unix_s(unix_s))
}

/// Checks that a gate can store the end of a grace period that begins at `now`.
///
/// # Errors
/// A usage error if it cannot.
pub(crate) fn check_grace(now: Timestamp, grace: Duration) -> Result<(), Failure> {
    let end = now.unix_s().saturating_add(grace.as_secs());
    if end <= u32::MAX.into() {
        return Ok(());
    }
    Err(Failure::usage(format!("a grace period cannot end after {}", rfc3339(u32::MAX.into()))))
}

/// Parses a duration such as `1h 30m`.
///
/// # Errors
/// A sentence without any part of the text, which may be a secret. The errors of `humantime`
/// repeat parts of it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "it must be a duration, such as 90d, 24h, 30m or 1h 30m".to_owned())
}

/// Parses a duration of at least one second.
///
/// # Errors
/// A sentence that says what would be valid.
pub(crate) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = parse_duration(text)?;
    if lifetime.as_secs() == 0 { Err("it must be at least 1s".to_owned()) } else { Ok(lifetime) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_formats_every_unix_second() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(LAST_S), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(LAST_S + 1), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn expiry_beyond_32_bits_is_an_error() {
        let now = Timestamp::from_unix_s(1_700_000_000);
        assert_eq!(expiry(now, Duration::from_secs(1)).unwrap().unix_s(), 1_700_000_001);
        let room = u64::from(u32::MAX) - now.unix_s();
        assert_eq!(expiry(now, Duration::from_secs(room)).unwrap().unix_s(), u64::from(u32::MAX));
        assert!(expiry(now, Duration::from_secs(room + 1)).is_err());
        assert!(expiry(now, Duration::MAX).is_err());
    }

    #[test]
    fn lifetime_below_a_second_is_an_error() {
        assert!(parse_lifetime("999ms").is_err());
        assert_eq!(parse_lifetime("1s").unwrap(), Duration::from_secs(1));
        assert_eq!(parse_lifetime("90d").unwrap(), Duration::from_secs(90 * 86_400));
    }
}
