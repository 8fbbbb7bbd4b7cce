//! Times: Unix seconds in the database, RFC 3339 in the API.

use keytally::Timestamp;
use keytally_cli::internal::{pluralized, times};

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
    let unix_s = unix_s(text).filter(|&unix_s| unix_s > 0).ok_or_else(|| {
        let reason = "it must be a time, such as 2027-01-31T12:00:00Z or 2027-01-31T13:00:00+01:00";
        Error::invalid(field, reason)
    })?;
    last_kept(field, unix_s)
}

/// Parses a day, such as `2027-01-31`, which is one of UTC, or `2027-01-31+01:00`, one with that
/// offset from UTC. Returns its beginning.
///
/// # Errors
/// A sentence that names the field.
pub fn parse_day(field: &'static str, text: &str) -> Result<Timestamp> {
    let midnight = |day: &str, offset: &str| {
        let offset = if offset.is_empty() { "Z" } else { offset };
        parse(field, &format!("{day}T00:00:00{offset}")).ok()
    };
    let found = text.split_at_checked(10).and_then(|(day, offset)| midnight(day, offset));
    found.ok_or_else(|| Error::invalid(field, "it must be a day, such as 2027-01-31"))
}

/// Returns the Unix seconds of a time of RFC 3339, rounded up. A leap second has none.
fn unix_s(text: &str) -> Option<u64> {
    let (local, offset_s) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, offset_s(offset)?)
        }
    };
    if local.get(17..19) == Some("60") {
        return None;
    }
    let at = humantime::parse_rfc3339(&format!("{}Z", local.replace('t', "T"))).ok()?;
    let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    let rounded_s = since.as_secs().saturating_add(u64::from(since.subsec_nanos() > 0));
    rounded_s.checked_add_signed(offset_s.checked_neg()?)
}

/// Returns the seconds of an offset such as `+01:00`.
fn offset_s(text: &str) -> Option<i64> {
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let number = |text: &str, end: i64| {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|&number: &i64| is_plain && number < end)
    };
    let seconds = number(hours, 24)? * 3600 + number(minutes, 60)? * 60;
    match text.get(..1)? {
        "+" => Some(seconds),
        "-" => Some(-seconds),
        _ => None,
    }
}

/// Returns a length of time in the largest unit that divides it, such as `36 hours`, or in several
/// units, such as `1 minute 30 seconds`.
pub(crate) fn exact_length(seconds: u64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let found = units.into_iter().find(|(len_s, _)| seconds.is_multiple_of(*len_s));
    if let Some((len_s, unit)) = found {
        return pluralized(seconds / len_s, unit);
    }
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (len_s, unit) in units.into_iter().chain([(1, "second")]) {
        if rest >= len_s {
            parts.push(pluralized(rest / len_s, unit));
            rest %= len_s;
        }
    }
    parts.join(" ")
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
    fn day_begins_at_midnight_of_its_offset() {
        for (text, at) in [
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("2027-01-31Z", "2027-01-31T00:00:00Z"),
            ("2027-01-31+01:00", "2027-01-30T23:00:00Z"),
            ("2027-01-31-05:30", "2027-01-31T05:30:00Z"),
        ] {
            assert_eq!(parse_day("from", text).unwrap(), parse("from", at).unwrap(), "{text}");
        }
        for text in ["", "x", "2027-1-31", "2027-02-30", "2027-01-31+1", "2027-01-31T00:00", "é"] {
            let error = parse_day("from", text).unwrap_err().to_string();
            assert_eq!(error, "from: it must be a day, such as 2027-01-31", "{text}");
        }
    }

    #[test]
    fn moment_at_its_limits_is_accepted() {
        assert_eq!(parse("expires", "2027-01-31T12:00:00Z").unwrap().unix_s(), 1_801_396_800);
        assert!(parse("expires", "2106-02-07T06:28:15Z").is_ok());
        for (text, unix_s) in [
            ("2027-01-31T13:00:00+01:00", 1_801_396_800),
            ("2027-01-31t06:30:00.5-05:30", 1_801_396_801),
            ("2027-01-31T12:00:00-00:00", 1_801_396_800),
            ("2106-02-07T07:28:15+01:00", u32::MAX.into()),
        ] {
            assert_eq!(parse("expires", text).unwrap().unix_s(), unix_s, "{text}");
        }
        for text in [
            "2106-02-07T06:28:16Z",
            "2106-02-07T06:28:15-00:01",
            "1970-01-01T00:00:00Z",
            "1970-01-01T00:30:00+01:00",
            "1969-01-01T00:00:00Z",
            "2027-01-31T12:00:60Z",
            "2027-01-31T12:00:60+01:00",
            "2027-01-31T12:00:00",
            "2027-01-31T12:00:00+24:00",
            "2027-01-31T12:00:00+01:60",
            "2027-01-31T12:00:00+0100",
            "2027-01-31T12:00:00*01:00",
            "2027-01-31T12:00:00+-1:00",
            "é1:00:00",
            "90d",
            "",
        ] {
            assert!(
                parse("expires", text).unwrap_err().to_string().starts_with("expires: "),
                "{text}"
            );
        }
    }
}
