//! Times: Unix seconds in the database, RFC 3339 in the API.

use keytally::Timestamp;
use keytally_cli::internal::times;

use crate::error::{Error, Result};

/// Returns a time as the database keeps it.
pub(crate) fn stored(at: Timestamp) -> i64 {
    i64::try_from(at.unix_s()).unwrap_or(i64::MAX)
}

/// Returns a time of the database.
pub(crate) fn loaded(at_s: i64) -> Timestamp {
    Timestamp::from_unix_s(u64::try_from(at_s).unwrap_or(0))
}

/// Returns the day of a time in UTC, such as `2027-01-31`.
pub fn day(at: Timestamp) -> String {
    shown(stored(at)).chars().take(10).collect()
}

/// Returns a time of the database as text.
pub(crate) fn shown(at_s: i64) -> String {
    times::rfc3339(u64::try_from(at_s).unwrap_or(0))
}

/// Parses a moment that a gate can keep.
///
/// # Errors
/// A sentence that names the field.
pub fn parse(field: &'static str, text: &str) -> Result<Timestamp> {
    let at = humantime::parse_rfc3339(text)
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
        .filter(|since| since.as_secs() > 0);
    let since = at.ok_or_else(|| {
        Error::invalid(field, "it must be a time in UTC, such as 2027-01-31T12:00:00Z")
    })?;
    last_kept(field, since.as_secs().saturating_add(u64::from(since.subsec_nanos() > 0)))
}

/// Returns the moment `lifetime_s` seconds from `now` on.
///
/// # Errors
/// A sentence that names the field.
pub(crate) fn from_now(field: &'static str, now: Timestamp, lifetime_s: u64) -> Result<Timestamp> {
    last_kept(field, now.unix_s().saturating_add(lifetime_s))
}

fn last_kept(field: &'static str, unix_s: u64) -> Result<Timestamp> {
    if unix_s > u64::from(u32::MAX) {
        let last = times::rfc3339(u32::MAX.into());
        return Err(Error::invalid(field, format!("a gate keeps times until {last}")));
    }
    Ok(Timestamp::from_unix_s(unix_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_at_its_limits_is_accepted() {
        assert_eq!(parse("expires", "2027-01-31T12:00:00Z").unwrap().unix_s(), 1_801_396_800);
        assert!(parse("expires", "2106-02-07T06:28:15Z").is_ok());
        for text in
            ["2106-02-07T06:28:16Z", "1970-01-01T00:00:00Z", "1969-01-01T00:00:00Z", "90d", ""]
        {
            assert!(
                parse("expires", text).unwrap_err().to_string().starts_with("expires: "),
                "{text}"
            );
        }
    }
}
