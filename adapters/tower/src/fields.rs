//! The header fields of a response.

use http::{HeaderMap, HeaderName, HeaderValue};
use keytally::Verdict;

use crate::record::Decision;

/// The field that names, in shadow mode, the outcome of a request that would have been refused.
pub(crate) const SHADOW: &str = "X-Keytally-Shadow";

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const POLICY: &str = "RateLimit-Policy";
const QUOTAS: &str = "RateLimit";

/// The fields that only a refusal has. On other responses, they belong to the application.
const OF_REFUSALS: [&str; 2] = ["Retry-After", "WWW-Authenticate"];

/// `X-RateLimit-*` describe the longest window of a limiter that is at most this long, in seconds.
const DAY_S: u32 = 86_400;

/// Sets a field, and replaces those of the same name.
pub(crate) fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    // Names and values of verdicts are valid.
    if let (Ok(name), Ok(value)) =
        (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
    {
        headers.insert(name, value);
    }
}

/// Sets the fields that only a refusal has, except those that the application set.
pub(crate) fn set_refusal(headers: &mut HeaderMap, verdict: &Verdict) {
    for (name, value) in verdict.headers().iter() {
        if OF_REFUSALS.contains(&name) && !headers.contains_key(name) {
            set(headers, name, value);
        }
    }
}

/// Sets the fields of several decisions, except those that only a refusal has.
///
/// `X-RateLimit-*` describe the last gate. Without a gate, they describe the first limiter. The
/// other fields list the quotas of all tables.
pub(crate) fn set_all(headers: &mut HeaderMap, listed: &[&Decision]) {
    let gate = listed.iter().rposition(|decision| decision.table.is_gate());
    let Some(chosen) = listed.get(gate.unwrap_or(0)) else { return };
    let fields = chosen.reported.headers();
    let own = fields.iter().filter(|(name, _)| !OF_REFUSALS.contains(name));
    if let [_] = listed {
        let is_gate = chosen.table.is_gate();
        own.filter(|(name, _)| is_gate || [POLICY, QUOTAS].contains(name))
            .for_each(|(name, value)| set(headers, name, value));
        if !is_gate {
            set_x_ratelimit(headers, chosen);
        }
        return;
    }
    set_x_ratelimit(headers, chosen);
    let others = listed.iter().filter(|decision| !core::ptr::eq(**decision, *chosen));
    let all: Vec<_> =
        [chosen].into_iter().chain(others).map(|decision| decision.reported.headers()).collect();
    for list in [POLICY, QUOTAS] {
        let values = all.iter().flat_map(|fields| fields.iter()).filter(|&(name, _)| name == list);
        let joined = join(values.map(|(_, value)| value));
        if !joined.is_empty() {
            set(headers, list, &joined);
        }
    }
}

/// Sets `X-RateLimit-*`. Those of a limiter describe its longest window of at most a day. If all
/// its windows are longer, they describe the shortest.
fn set_x_ratelimit(headers: &mut HeaderMap, decision: &Decision) {
    let quotas = decision.reported.quotas();
    let within_a_day = || quotas.iter().rfind(|quota| quota.window.seconds() <= DAY_S);
    let quota = match decision.table.is_gate() {
        true => quotas.iter().next_back(),
        false => within_a_day().or_else(|| quotas.iter().next()),
    };
    let Some(quota) = quota else { return };
    headers.insert(LIMIT, quota.limit.into());
    headers.insert(REMAINING, quota.remaining.into());
    headers.insert(RESET, quota.reset_unix_s.into());
}

/// Joins lists of quotas. A repeated name gets a number, because a list has each name once.
fn join<'v>(values: impl Iterator<Item = &'v str>) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut joined = String::new();
    for item in values.flat_map(|value| value.split(", ")) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        names.push(name);
        if !joined.is_empty() {
            joined += ", ";
        }
        match names.iter().filter(|&&other| other == name).count() {
            1 => joined += name,
            count => {
                joined += name.strip_suffix('"').unwrap_or(name);
                joined += &format!("-{count}\"");
            }
        }
        joined += ";";
        joined += parameters;
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_name_of_a_quota_gets_a_number() {
        let lists = [r#""minute";r=1;t=2, "hour";r=3;t=4"#, r#""minute";r=5;t=6"#];
        let joined = r#""minute";r=1;t=2, "hour";r=3;t=4, "minute-2";r=5;t=6"#;
        assert_eq!(join(lists.into_iter()), joined);
        assert_eq!(join(core::iter::empty()), "");
    }
}
