//! The header fields of a response.

use core::ffi::CStr;

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::answer::Respond;

/// The field that names, in shadow mode, the outcome of a request that would have been refused.
pub(crate) const SHADOW: HeaderName = HeaderName::from_static("x-keytally-shadow");

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const QUOTAS: HeaderName = HeaderName::from_static("ratelimit");

/// Returns the name of a field of a verdict.
fn name(name: &CStr) -> Option<HeaderName> {
    Some(match name.to_bytes() {
        b"X-RateLimit-Limit" => LIMIT,
        b"X-RateLimit-Remaining" => REMAINING,
        b"X-RateLimit-Reset" => RESET,
        b"RateLimit-Policy" => POLICY,
        b"RateLimit" => QUOTAS,
        b"Retry-After" => RETRY_AFTER,
        b"WWW-Authenticate" => WWW_AUTHENTICATE,
        _ => return None,
    })
}

/// Returns whether only a refusal has a field. On other responses, the field belongs to the
/// application.
fn is_of_refusals(name: &HeaderName) -> bool {
    [RETRY_AFTER, WWW_AUTHENTICATE].contains(name)
}

/// Calls `put` with the name and the value of each field of a response.
fn each(shown: &(impl Respond + ?Sized), mut put: impl FnMut(HeaderName, HeaderValue)) {
    shown.each_field(&mut |text, value| {
        // Names and values of verdicts are valid.
        if let (Some(name), Ok(value)) = (name(text), HeaderValue::from_bytes(value)) {
            put(name, value);
        }
    });
}

/// Sets all fields of a response, and replaces those of the same names.
pub(crate) fn set(headers: &mut HeaderMap, shown: &(impl Respond + ?Sized)) {
    each(shown, |name, value| drop(headers.insert(name, value)));
}

/// Sets the fields that only a refusal has, except those that the application set.
pub(crate) fn set_refusal(headers: &mut HeaderMap, shown: &(impl Respond + ?Sized)) {
    each(shown, |name, value| {
        if is_of_refusals(&name) {
            headers.entry(name).or_insert(value);
        }
    });
}

/// Sets the fields of several tables, except those that only a refusal has.
///
/// `X-RateLimit-*` describe the first table. The other fields list the quotas of all tables.
pub(crate) fn set_all<'d>(
    headers: &mut HeaderMap,
    first: &'d dyn Respond,
    others: impl Iterator<Item = &'d dyn Respond>,
) {
    each(first, |name, value| {
        if !is_of_refusals(&name) {
            headers.insert(name, value);
        }
    });
    let mut others = others.peekable();
    if others.peek().is_none() {
        return;
    }
    let mut lists = [(POLICY, Vec::new()), (QUOTAS, Vec::new())];
    for shown in [first].into_iter().chain(others) {
        each(shown, |name, value| {
            if let Some((_, values)) = lists.iter_mut().find(|(list, _)| *list == name) {
                values.push(value);
            }
        });
    }
    for (list, values) in lists {
        let texts = values.iter().filter_map(|value| value.to_str().ok());
        if let Ok(joined) = HeaderValue::try_from(join(texts))
            && !joined.is_empty()
        {
            headers.insert(list, joined);
        }
    }
}

/// Joins lists of quotas. A list has each name once, so a repeated one gets a number.
fn join<'v>(values: impl Iterator<Item = &'v str>) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut joined = String::new();
    for item in values.flat_map(|value| value.split(", ")) {
        let (numbered, parameters) = item.split_once(';').unwrap_or((item, ""));
        let name = unnumbered(numbered.trim_matches('"'));
        names.push(name);
        if !joined.is_empty() {
            joined += ", ";
        }
        joined += &match names.iter().filter(|&&other| other == name).count() {
            1 => format!("\"{name}\";{parameters}"),
            count => format!("\"{name}-{count}\";{parameters}"),
        };
    }
    joined
}

/// Returns the name of a quota without the number that a list gave it, as in `minute-2`.
fn unnumbered(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_name_of_a_quota_gets_a_number() {
        let lists = [
            r#""minute";r=1;t=2, "team-hour";r=3;t=4"#,
            r#""minute";r=5;t=6, "minute-2";r=7;t=8, "team-hour";r=9;t=0"#,
        ];
        let joined = [
            r#""minute";r=1;t=2, "team-hour";r=3;t=4, "minute-2";r=5;t=6"#,
            r#""minute-3";r=7;t=8, "team-hour-2";r=9;t=0"#,
        ]
        .join(", ");
        assert_eq!(join(lists.into_iter()), joined);
        assert_eq!(join(core::iter::empty()), "");
    }
}
