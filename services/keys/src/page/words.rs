//! Times, numbers, limits and browsers in words.

use core::fmt;

use askama::filters::HtmlSafe;
use keytally::{Plan, Section, SectionQuotas, Timestamp, Window};

use crate::sessions::WITH_PASSKEY;
use crate::time;

/// A moment. It is shown in UTC, and a script shows it in the reader's zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) i64);

impl Moment {
    /// Returns the moment as RFC 3339.
    pub(super) fn rfc3339(self) -> String {
        time::shown(self.0)
    }

    /// Returns the moment as people read it, to the minute.
    pub(super) fn utc(self) -> String {
        let text = self.rfc3339();
        let (date, time) = text.split_at_checked(10).unwrap_or((&text, ""));
        format!("{date} {} UTC", time.get(1..6).unwrap_or_default())
    }

    /// Returns the day alone, for columns without room for the time.
    pub(super) fn day(self) -> Day {
        Day(self)
    }

    /// Returns the date in UTC.
    fn date(self) -> String {
        self.rfc3339().chars().take(10).collect()
    }
}

/// A moment of which the day is shown, and the rest on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day(Moment);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(at) = self;
        let (machine, day, utc) = (at.rfc3339(), at.date(), at.utc());
        write!(f, r#"<time datetime="{machine}" title="{utc}" data-day>{day} UTC</time>"#)
    }
}

// It writes digits and its own tags only.
impl HtmlSafe for Day {}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"<time datetime="{}">{}</time>"#, self.rfc3339(), self.utc())
    }
}

// It writes digits and its own tags only.
impl HtmlSafe for Moment {}

/// Returns how long ago a moment was, such as `3 minutes ago`.
pub(super) fn ago(at_s: i64, now: Timestamp) -> String {
    let passed_s = time::stored(now).saturating_sub(at_s);
    if passed_s < 60 {
        return "just now".to_owned();
    }
    format!("{} ago", length(passed_s))
}

/// Returns a length of time in its largest unit, rounded down, such as `3 minutes`.
pub(super) fn length(seconds: i64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (count, unit) = units
        .into_iter()
        .find_map(|(len_s, unit)| (seconds >= len_s).then_some((seconds / len_s, unit)))
        .unwrap_or((0, "second"));
    plural(count, unit)
}

/// Returns a number with its noun, such as `1 key` or `2,000 keys`.
pub(super) fn plural(count: i64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Returns a number with a comma before each three digits.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a window in words, such as `a minute`.
pub(super) fn window(window: Window) -> String {
    match window.to_string().as_str() {
        name @ ("second" | "minute" | "day" | "week" | "month") => format!("a {name}"),
        "hour" => "an hour".to_owned(),
        _ => format!("in {}", exact_length(window.seconds().into())),
    }
}

/// Returns a length of time in the largest unit that divides it.
fn exact_length(seconds: i64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let found = units.into_iter().find(|(len_s, _)| seconds % len_s == 0);
    found.map_or_else(|| plural(seconds, "second"), |(len_s, unit)| plural(seconds / len_s, unit))
}

/// Returns whose requests a section counts.
pub(super) fn section(section: &Section) -> String {
    match section {
        Section::Key => "This key".to_owned(),
        Section::Team => "All keys of the team".to_owned(),
        Section::Group(name) => format!("Group {}", &**name),
        other => other.to_string(),
    }
}

/// Returns the limits of a plan in words.
pub(super) fn limits(plan: &Plan) -> Vec<String> {
    let sections = plan.sections.iter().filter(|section| !section.is_unlimited());
    let sentence = |quotas: SectionQuotas<'_>| {
        let parts: Vec<_> = quotas
            .quotas()
            .iter()
            .map(|quota| format!("{} {}", grouped(quota.limit.into()), window(quota.window)))
            .collect();
        let whose = match quotas.section() {
            Section::Key => "Each key".to_owned(),
            other => section(other),
        };
        format!("{whose}: {}", joined(&parts))
    };
    let sentences: Vec<_> = sections.map(sentence).collect();
    if sentences.is_empty() { vec!["No limits".to_owned()] } else { sentences }
}

/// Joins parts of a sentence.
fn joined(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Returns the browser and the system that a text names.
pub(super) fn browser(agent: &str) -> String {
    if let Some((agent, passkey)) = agent.rsplit_once(WITH_PASSKEY) {
        return format!("{}{WITH_PASSKEY}{passkey}", browser(agent));
    }
    let first = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name)
    };
    let name = first(&[
        ("Firefox/", "Firefox"),
        ("Edg/", "Edge"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS", "macOS"),
        ("Linux", "Linux"),
    ]);
    match (name, system) {
        (Some(name), Some(system)) => format!("{name} on {system}"),
        (Some(name), None) => name.to_owned(),
        (None, _) if agent.is_empty() => "Unknown browser".to_owned(),
        (None, _) => agent.chars().take(40).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_is_shown_in_utc_with_its_machine_form() {
        let moment = Moment(1_801_396_800);
        let shown = r#"<time datetime="2027-01-31T12:00:00Z">2027-01-31 12:00 UTC</time>"#;
        assert_eq!(moment.to_string(), shown);
        let shown = r#"<time datetime="2027-01-31T12:00:00Z" title="2027-01-31 12:00 UTC" data-day>2027-01-31 UTC</time>"#;
        assert_eq!(moment.day().to_string(), shown);
    }

    #[test]
    fn length_is_in_its_largest_unit() {
        let texts = [0, 1, 59, 60, 7199, 7200, 86_400, 7_776_000].map(length);
        let expected = [
            "0 seconds",
            "1 second",
            "59 seconds",
            "1 minute",
            "1 hour",
            "2 hours",
            "1 day",
            "90 days",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn number_has_a_comma_before_each_three_digits() {
        let texts = [0, 999, 1000, 1_234_567, -1000].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567", "-1,000"]);
    }

    #[test]
    fn plan_is_read_as_a_sentence() {
        let words = |policy: &str| limits(&Plan::new("a", policy.parse().unwrap()).unwrap());
        assert_eq!(words("100/minute, 1000/hour"), ["Each key: 100 a minute and 1,000 an hour"]);
        assert_eq!(
            words("5/10s, 7/15m, 9/month"),
            ["Each key: 5 in 10 seconds, 7 in 15 minutes and 9 a month"]
        );
        assert_eq!(
            words("10/minute; team: 500/day"),
            ["Each key: 10 a minute", "All keys of the team: 500 a day"]
        );
    }

    #[test]
    fn browser_is_named_by_what_people_call_it() {
        for (agent, name) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0 Safari/537.36",
                "Chrome on Linux",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/604.1",
                "Safari on iPhone",
            ),
            ("curl/8.1", "curl"),
            ("Firefox/150.0 with passkey phone", "Firefox with passkey phone"),
            ("", "Unknown browser"),
            ("<script>", "<script>"),
        ] {
            assert_eq!(browser(agent), name);
        }
    }
}
