//! Parses and formats policy texts: `[fixed|sliding] LIMIT/[N]UNIT, LIMIT per [N]UNIT, …`.

use core::fmt;

use num_bigint::BigUint;

use super::layout;
use super::window::Window;

const LONGEST_WINDOW_S: u32 = 31 * 24 * 60 * 60;
const MOST_QUOTAS: usize = 4;
const LONGEST_TEXT: usize = 128;

/// How the windows of a policy count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Counts in windows that are aligned to the Unix epoch. A tally has one count per window.
    Fixed,
    /// Adds the previous window's count, weighted by the part of it that overlaps the last window
    /// length. A tally has two counts per window.
    Sliding,
}

/// A limit and the window in which it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The most cost admitted per window.
    pub limit: u32,
    /// The window.
    pub window: Window,
}

/// One to four quotas, the smallest window first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How the windows count.
    pub algorithm: Algorithm,
    /// The quotas in ascending order of their windows.
    pub quotas: Vec<Quota>,
}

/// Why a text is not a valid policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyError {
    /// The text has no quota.
    Empty,
    /// The text has more than 128 bytes.
    TooLong,
    /// A quota is neither `LIMIT/[N]UNIT` nor `LIMIT per [N]UNIT`.
    Syntax,
    /// A limit is 0 or above 4294967295.
    Limit,
    /// A window is 0 or longer than 31 days, or has a number of weeks or months, or a day that no
    /// month has.
    Window,
    /// A unit is not one of second, minute, hour, day, week, month, sec, min, s, m, h, d, w.
    Unit,
    /// The text has more than four quotas.
    TooMany,
    /// Two windows are equal, or both are months.
    Duplicate,
    /// A month in a sliding policy.
    SlidingMonth,
    /// The counts and the stamp do not fit 64 bits.
    TooManyBits {
        /// The bits that the policy needs.
        needed: u32,
    },
}

impl PolicyError {
    /// Returns the name of this kind in the vector files.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            PolicyError::Empty => "empty",
            PolicyError::TooLong => "too_long",
            PolicyError::Syntax => "syntax",
            PolicyError::Limit => "limit",
            PolicyError::Window => "window",
            PolicyError::Unit => "unit",
            PolicyError::TooMany => "too_many",
            PolicyError::Duplicate => "duplicate",
            PolicyError::SlidingMonth => "sliding_month",
            PolicyError::TooManyBits { .. } => "too_many_bits",
        }
    }
}

/// Parses a policy text. Returns the first error from the left, then errors of the list as a whole.
pub fn parse_policy(text: &str) -> Result<Policy, PolicyError> {
    if text.len() > LONGEST_TEXT {
        return Err(PolicyError::TooLong);
    }
    let text = trim(text);
    if ["", "fixed", "sliding"].contains(&text) {
        return Err(PolicyError::Empty);
    }
    let (algorithm, list) = split_algorithm(text);

    let mut quotas = Vec::new();
    for part in list.split(',') {
        if quotas.len() == MOST_QUOTAS {
            return Err(PolicyError::TooMany);
        }
        quotas.push(parse_quota(part)?);
    }

    if algorithm == Algorithm::Sliding {
        for quota in &mut quotas {
            match quota.window {
                Window::Month(_) => return Err(PolicyError::SlidingMonth),
                // It does not matter on which day a sliding week begins.
                Window::Week => quota.window = Window::Length(quota.window.longest_s()),
                Window::Length(_) => {}
            }
        }
    }
    // A length comes before the week or month as long.
    quotas.sort_by_key(|quota| {
        (quota.window.longest_s(), !matches!(quota.window, Window::Length(_)))
    });
    for (i, quota) in quotas.iter().enumerate() {
        for other in &quotas[..i] {
            let is_month = |window| matches!(window, Window::Month(_));
            let are_months = is_month(quota.window) && is_month(other.window);
            if quota.window == other.window || are_months {
                return Err(PolicyError::Duplicate);
            }
        }
    }
    let policy = Policy { algorithm, quotas };
    let needed = layout::bits_wanted(&policy);
    if needed > 64 {
        return Err(PolicyError::TooManyBits { needed });
    }
    Ok(policy)
}

/// Splits the algorithm from the quotas. A name of an algorithm must be followed by a space or tab.
pub(super) fn split_algorithm(text: &str) -> (Algorithm, &str) {
    for (name, algorithm) in [("fixed", Algorithm::Fixed), ("sliding", Algorithm::Sliding)] {
        if let Some(rest) = text.strip_prefix(name)
            && rest.starts_with([' ', '\t'])
        {
            return (algorithm, rest);
        }
    }
    (Algorithm::Fixed, text)
}

/// Parses one quota, `LIMIT/[N]UNIT` or `LIMIT per [N]UNIT`, from left to right.
fn parse_quota(part: &str) -> Result<Quota, PolicyError> {
    let Some((limit, window)) = part.split_once('/').or_else(|| split_at_per(part)) else {
        return Err(PolicyError::Syntax);
    };

    let limit = trim(limit);
    if limit.is_empty() || !limit.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PolicyError::Syntax);
    }
    let limit = number(limit);
    if limit == BigUint::ZERO || limit > BigUint::from(u32::MAX) {
        return Err(PolicyError::Limit);
    }

    let window = trim(window);
    let (window, day) = match window.split_once('@') {
        Some((window, day)) => (window, Some(trim(day))),
        None => (window, None),
    };
    if day == Some("") {
        return Err(PolicyError::Syntax);
    }
    let unit_start = window.find(|c: char| !c.is_ascii_digit()).unwrap_or(window.len());
    let (digits, unit) = window.split_at(unit_start);
    let unit = trim(unit);
    if unit.is_empty() || !unit.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(PolicyError::Syntax);
    }
    let unit_s: u32 = match unit {
        "second" | "sec" | "s" => 1,
        "minute" | "min" | "m" => 60,
        "hour" | "h" => 60 * 60,
        "day" | "d" => 24 * 60 * 60,
        "week" | "w" => {
            if !digits.is_empty() || day.is_some() {
                return Err(PolicyError::Window);
            }
            return Ok(Quota { limit: small(&limit), window: Window::Week });
        }
        "month" => {
            let day = day.unwrap_or("1");
            let is_number = day.bytes().all(|byte| byte.is_ascii_digit());
            if !digits.is_empty() || !is_number {
                return Err(PolicyError::Window);
            }
            let day = number(day);
            if day == BigUint::ZERO || day > BigUint::from(31u32) {
                return Err(PolicyError::Window);
            }
            return Ok(Quota { limit: small(&limit), window: Window::Month(small(&day)) });
        }
        _ => return Err(PolicyError::Unit),
    };
    let multiple = if digits.is_empty() { BigUint::from(1u32) } else { number(digits) };
    let window_s = multiple * unit_s;
    let is_length = window_s > BigUint::ZERO && window_s <= BigUint::from(LONGEST_WINDOW_S);
    if !is_length || day.is_some() {
        return Err(PolicyError::Window);
    }

    Ok(Quota { limit: small(&limit), window: Window::Length(small(&window_s)) })
}

/// Splits `LIMIT per WINDOW` at `per`, which must be the second word and not the last.
fn split_at_per(part: &str) -> Option<(&str, &str)> {
    let part = trim(part);
    let limit_end = part.find([' ', '\t'])?;
    let (limit, rest) = part.split_at(limit_end);
    let (word, window) = trim(rest).split_once([' ', '\t'])?;
    (word == "per").then_some((limit, window))
}

/// Removes ASCII spaces and tabs, and nothing else, from both ends.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Returns the value of decimal digits. There may be any number of them.
fn number(digits: &str) -> BigUint {
    let mut value = BigUint::ZERO;
    for digit in digits.bytes() {
        value = value * 10u32 + u32::from(digit - b'0');
    }
    value
}

/// Converts a number that is known to fit 32 bits.
fn small(value: &BigUint) -> u32 {
    u32::try_from(value).expect("range was checked")
}

impl fmt::Display for Policy {
    /// Writes the canonical text, which parses to the same policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.algorithm == Algorithm::Sliding {
            f.write_str("sliding ")?;
        }
        f.write_str(&self.quotas_text())
    }
}

impl Policy {
    /// Returns the canonical text of the quotas, without the algorithm.
    #[must_use]
    pub fn quotas_text(&self) -> String {
        let text = |quota: &Quota| format!("{}/{}", quota.limit, window_text(quota.window));
        self.quotas.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    /// Returns the unit of the stamp in seconds: the longest at whose multiples all windows begin.
    #[must_use]
    pub fn unit_s(&self) -> u32 {
        let grids: Vec<u32> = self.quotas.iter().map(|quota| quota.window.grid_s()).collect();
        let shortest = *grids.iter().min().expect("a policy has a quota");
        let divides_all = |unit: &u32| grids.iter().all(|grid| grid % unit == 0);
        (1..=shortest).rev().find(divides_all).expect("1 divides every number")
    }
}

/// Formats a window for a policy text: `minute`, `90s`, `2m`, `7d`, `week`, `month@17`.
fn window_text(window: Window) -> String {
    let window_s = match window {
        Window::Length(seconds) => seconds,
        Window::Week => return "week".to_owned(),
        Window::Month(1) => return "month".to_owned(),
        Window::Month(day) => return format!("month@{day}"),
    };
    for (unit_s, word) in [(1, "second"), (60, "minute"), (3600, "hour"), (86400, "day")] {
        if window_s == unit_s {
            return word.to_owned();
        }
    }
    for (unit_s, letter) in [(86400, 'd'), (3600, 'h'), (60, 'm')] {
        if window_s.is_multiple_of(unit_s) {
            return format!("{}{letter}", window_s / unit_s);
        }
    }
    format!("{window_s}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(limit: u32, window_s: u32) -> Quota {
        Quota { limit, window: Window::Length(window_s) }
    }

    #[test]
    fn documented_policies_parse() {
        let policy = parse_policy("100/minute, 1000/hour").unwrap();
        assert_eq!(policy.algorithm, Algorithm::Fixed);
        assert_eq!(policy.quotas, [quota(100, 60), quota(1000, 3600)]);
        assert_eq!(policy.to_string(), "100/minute, 1000/hour");

        let policy = parse_policy("sliding 5/10s").unwrap();
        assert_eq!(policy.algorithm, Algorithm::Sliding);
        assert_eq!(policy.quotas, [quota(5, 10)]);
        assert_eq!(policy.to_string(), "sliding 5/10s");
    }

    #[test]
    fn policy_is_printed_sorted_and_shortened() {
        let text = "\tfixed  0007 / 48 h ,3/120s,\t2/60s ";
        assert_eq!(parse_policy(text).unwrap().to_string(), "2/minute, 3/2m, 7/2d");
        assert_eq!(parse_policy("1/90s").unwrap().to_string(), "1/90s");
        assert_eq!(parse_policy("3 per 2min,1 \tper sec ").unwrap().to_string(), "1/second, 3/2m");
    }

    #[test]
    fn first_mistake_is_the_reported_error() {
        for (text, error) in [
            ("", PolicyError::Empty),
            (" \t ", PolicyError::Empty),
            ("100", PolicyError::Syntax),
            ("/s", PolicyError::Syntax),
            ("+1/s", PolicyError::Syntax),
            ("1/", PolicyError::Syntax),
            ("1/60", PolicyError::Syntax),
            ("1/S", PolicyError::Syntax),
            ("1/s,", PolicyError::Syntax),
            ("1 per", PolicyError::Syntax),
            ("per s", PolicyError::Syntax),
            ("1 a s", PolicyError::Syntax),
            ("sliding", PolicyError::Empty),
            ("sliding,", PolicyError::Syntax),
            ("0/parsec", PolicyError::Limit),
            ("4294967296/d", PolicyError::Limit),
            ("1/0parsec", PolicyError::Unit),
            ("1/seconds", PolicyError::Unit),
            ("1/0s", PolicyError::Window),
            ("1/32d", PolicyError::Window),
            ("1/s,1/2s,1/4s,1/8s,", PolicyError::TooMany),
            ("1/m,1/60s", PolicyError::Duplicate),
            ("1/2w", PolicyError::Window),
            ("1/month@0", PolicyError::Window),
            ("1/month@32", PolicyError::Window),
            ("1/day@2", PolicyError::Window),
            ("1/month@", PolicyError::Syntax),
            ("1/month,1/month@2", PolicyError::Duplicate),
            ("sliding 1/month", PolicyError::SlidingMonth),
            ("2147483648/s", PolicyError::TooManyBits { needed: 33 + 32 }),
            ("sliding 8388608/day", PolicyError::TooManyBits { needed: 17 + 2 * 24 }),
        ] {
            assert_eq!(parse_policy(text), Err(error), "{text:?}");
        }
        assert!(parse_policy("2147483647/s").is_ok());
        assert!(parse_policy("sliding 8388607/day").is_ok());
        assert!(parse_policy("1/31d").is_ok());
    }

    #[test]
    fn length_of_text_is_counted_in_bytes() {
        let longest = format!("{}1/s", " ".repeat(125));
        assert!(parse_policy(&longest).is_ok());
        assert_eq!(parse_policy(&format!(" {longest}")), Err(PolicyError::TooLong));
    }
}
