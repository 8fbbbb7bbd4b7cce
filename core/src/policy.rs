//! Policies: parses text such as `100/minute, 1000/hour` into a form that is always valid.

use core::fmt;
use core::str::FromStr;

use heapless::Vec;

use crate::features::Feature;
use crate::quota::{Algorithm, Limits, MAX_PART_LEN, MAX_QUOTAS, Quota};
use crate::section::{MAX_GROUP_NAME_LEN, MAX_TALLIES, MAX_TEAM_TALLIES};
use crate::sort::sort_by_key;
use crate::tally::Layout;
use crate::text::Text;
use crate::window::{MAX_WINDOW_S, UNITS, Window};

/// The longest policy text, in bytes.
pub const MAX_POLICY_LEN: usize = 128;

/// One to four quotas that are counted in one tally, in ascending order of their windows.
///
/// ```
/// use keytally_core::Policy;
/// let policy: Policy = "1000/hour, 100/minute".parse()?;
/// assert_eq!(policy.to_string(), "100/minute, 1000/hour");
/// assert_eq!(policy.quotas()[0].limit, 100);
///
/// let error = "100/fortnight".parse::<Policy>().unwrap_err();
/// assert!(error.to_string().starts_with("\"fortnight\" is not a unit"));
/// # Ok::<(), keytally_core::ParsePolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    quotas: Vec<Quota, MAX_QUOTAS>,
    layout: Layout,
}

impl Policy {
    /// A policy of `quotas`, which may be in any order.
    ///
    /// # Errors
    /// [`ParsePolicyError`] if there is no quota or more than [`MAX_QUOTAS`], if a limit is 0, if
    /// two windows are equal or both months, if sliding windows are months, if the counts do not
    /// fit a tally, or if this build leaves out a feature that the policy needs.
    pub fn new(algorithm: Algorithm, quotas: &[Quota]) -> Result<Self, ParsePolicyError> {
        Ok(Self::from_quotas(algorithm, quotas)?)
    }

    /// Parses a policy as [`FromStr`] does, but keeps only the kind of an error.
    ///
    /// A program that uses nothing else to parse policies has a kilobyte less of code.
    ///
    /// # Errors
    /// [`ParsePolicyErrorKind`] if the text is not a policy.
    ///
    /// ```
    /// use keytally_core::{ParsePolicyErrorKind, Policy};
    /// assert_eq!(Policy::from_text("0/minute"), Err(ParsePolicyErrorKind::Limit));
    /// ```
    pub fn from_text(text: &str) -> Result<Self, ParsePolicyErrorKind> {
        Self::parse(text).map_err(|fault| fault.kind)
    }

    pub(crate) fn from_quotas(
        algorithm: Algorithm,
        quotas: &[Quota],
    ) -> Result<Self, Fault<'static>> {
        let mut sorted = Vec::from_slice(quotas)
            .map_err(|_| Fault::new(ParsePolicyErrorKind::TooManyQuotas, ""))?;
        put_in_order(algorithm, &mut sorted)?;
        let layout = Layout::new(algorithm, &sorted)
            .map_err(|needed| Fault::new(ParsePolicyErrorKind::TooManyBits { needed }, ""))?;
        Ok(Self { quotas: sorted, layout })
    }

    fn parse(text: &str) -> Result<Self, Fault<'_>> {
        if text.len() > MAX_POLICY_LEN {
            return Err(Fault::new(ParsePolicyErrorKind::TooLong { max: MAX_POLICY_LEN }, text));
        }
        let (algorithm, list) = split_algorithm(trimmed(text));
        let mut quotas = Vec::<Quota, MAX_QUOTAS>::new();
        each_quota(trimmed(text), list, |part| {
            if quotas.is_full() {
                return Err(Fault::new(ParsePolicyErrorKind::TooManyQuotas, part));
            }
            let quota = parse_quota(part)?;
            quotas.push(quota).map_err(|_| Fault::new(ParsePolicyErrorKind::TooManyQuotas, part))
        })?;
        Self::from_quotas(algorithm, &quotas)
    }

    /// The policy of a table's layout with these limits; `None` if one of them is 0.
    pub(crate) fn from_layout(layout: &Layout, limits: Limits) -> Option<Self> {
        let mut quotas = Vec::<Quota, MAX_QUOTAS>::new();
        for (&window, &limit) in layout.windows().iter().zip(&limits.0) {
            quotas.push(Quota { limit, window }).ok()?;
        }
        Self::from_quotas(layout.algorithm(), &quotas).ok()
    }

    /// Returns the algorithm by which the windows count.
    pub fn algorithm(&self) -> Algorithm {
        self.layout.algorithm()
    }

    /// Returns the quotas, shortest window first.
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// Returns each quota that can never deny a request, together with a quota that denies first.
    ///
    /// In `100/minute, 50/hour`, the first quota never denies. In `10/minute, 1000/hour`, the
    /// second one does not, since ten requests per minute are 600 per hour. Such a policy is valid,
    /// but probably a mistake.
    ///
    /// If the limits of a plan are changed, the counts of its keys may already be above what the
    /// new limits admit. Such a quota can then deny for one window.
    ///
    /// ```
    /// let policy: keytally_core::Policy = "100/minute, 50/hour".parse()?;
    /// let (never_denies, denies_first) = policy.never_binding().next().unwrap();
    /// assert_eq!(never_denies.to_string(), "100/minute");
    /// assert_eq!(denies_first.to_string(), "50/hour");
    /// # Ok::<(), keytally_core::ParsePolicyError>(())
    /// ```
    pub fn never_binding(&self) -> impl Iterator<Item = (Quota, Quota)> {
        never_binding(self.algorithm(), &self.quotas)
    }

    /// Returns the layout of a tally of this policy.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the limits, in the order of the windows.
    pub fn limits(&self) -> Limits {
        Limits::of(&self.quotas)
    }
}

impl FromStr for Policy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        Ok(Self::parse(text)?)
    }
}

/// Sorts the quotas of one algorithm by their windows, and checks that they can be counted
/// together, in one tally or in several. A sliding week becomes seven days.
///
/// # Errors
/// Those of [`Policy::new`], apart from those of the tally.
pub(crate) fn put_in_order(
    algorithm: Algorithm,
    quotas: &mut [Quota],
) -> Result<(), Fault<'static>> {
    if algorithm != Algorithm::Fixed && !algorithm.slides() {
        let kind = ParsePolicyErrorKind::LeftOut(Feature::Sliding);
        return Err(Fault::new(kind, algorithm.as_str()));
    }
    if quotas.is_empty() {
        return Err(Fault::new(ParsePolicyErrorKind::Empty, ""));
    }
    for quota in quotas.iter_mut().filter(|quota| !quota.window.is_length()) {
        if !Feature::Calendar.is_included() {
            let kind = ParsePolicyErrorKind::LeftOut(Feature::Calendar);
            return Err(Fault::about(kind, *quota));
        }
        if algorithm.slides() {
            // A sliding window reaches back by its length from any moment, so it does not matter
            // on which day a week begins.
            quota.window = Window::from_seconds(quota.window.seconds())
                .filter(|_| quota.window == Window::WEEK)
                .ok_or_else(|| Fault::about(ParsePolicyErrorKind::SlidingMonth, *quota))?;
        }
    }
    sort_by_key(quotas, |quota| quota.window);
    if let Some(&quota) = quotas.iter().find(|quota| quota.limit == 0) {
        return Err(Fault::about(ParsePolicyErrorKind::Limit, quota));
    }
    for pair in quotas.windows(2) {
        let [first, second] = [pair[0].window, pair[1].window];
        let are_months = first.month_day().is_some() && second.month_day().is_some();
        if first == second || are_months {
            return Err(Fault::about(ParsePolicyErrorKind::Duplicate, pair[1]));
        }
    }
    Ok(())
}

/// Returns each quota that can never deny a request, together with one that denies first.
pub(crate) fn never_binding(
    algorithm: Algorithm,
    quotas: &[Quota],
) -> impl Iterator<Item = (Quota, Quota)> {
    quotas.iter().filter_map(move |quota| {
        let other = quotas.iter().find(|other| other.implies(*quota, algorithm))?;
        Some((*quota, *other))
    })
}

/// Calls `parse` with each quota of a list that commas separate. `text` is the text that an error
/// about an empty list shows.
pub(crate) fn each_quota<'t>(
    text: &'t str,
    list: &'t str,
    mut parse: impl FnMut(&'t str) -> Result<(), Fault<'t>>,
) -> Result<(), Fault<'t>> {
    if list.is_empty() {
        return Err(Fault::new(ParsePolicyErrorKind::Empty, text));
    }
    let mut rest = Some(list);
    while let Some(list) = rest {
        let (part, after) =
            split(list, b',').map_or((list, None), |(part, after)| (part, Some(after)));
        parse(trimmed(part))?;
        rest = after;
    }
    Ok(())
}

/// Returns a text without the spaces and tabs around it.
pub(crate) fn trimmed(text: &str) -> &str {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let bytes = text.as_bytes();
    let start = bytes.iter().take_while(|byte| blank(byte)).count();
    let after = bytes.iter().rev().take_while(|byte| blank(byte)).count();
    text.get(start..bytes.len() - after).unwrap_or_default()
}

/// Returns the texts before and after the first `separator`.
pub(crate) fn split(text: &str, separator: u8) -> Option<(&str, &str)> {
    let position = text.bytes().position(|byte| byte == separator)?;
    Some((text.get(..position)?, text.get(position + 1..)?))
}

/// Returns the algorithm that the word `fixed` or `sliding` at the front names, and the text after
/// it.
pub(crate) fn split_algorithm(text: &str) -> (Algorithm, &str) {
    for (word, algorithm) in [("fixed", Algorithm::Fixed), ("sliding", Algorithm::Sliding)] {
        match text.strip_prefix(word) {
            Some(rest) if matches!(rest.as_bytes(), [] | [b' ' | b'\t', ..]) => {
                return (algorithm, trimmed(rest));
            }
            _ => {}
        }
    }
    (Algorithm::Fixed, text)
}

/// Returns the number at the front of a text, and how many digits it has. The number is `None` if
/// there is no digit or the number is 2^32 or more.
pub(crate) fn leading_number(text: &str) -> (Option<u32>, usize) {
    let digits = text.bytes().take_while(u8::is_ascii_digit);
    let append =
        |number: u32, digit: u8| number.checked_mul(10)?.checked_add(u32::from(digit - b'0'));
    let len = digits.clone().count();
    (if len == 0 { None } else { digits.clone().try_fold(0, append) }, len)
}

/// Returns the texts before and after the word `per`. A space or tab must be on both sides of it.
fn split_per(text: &str) -> Option<(&str, &str)> {
    let blank = text.bytes().position(|byte| matches!(byte, b' ' | b'\t'))?;
    let (limit, rest) = (text.get(..blank)?, trimmed(text.get(blank..)?));
    let window = rest.strip_prefix("per")?;
    matches!(window.as_bytes(), [b' ' | b'\t', ..]).then_some((limit, window))
}

/// Returns the window of a unit, `N` of them if there is a number, or from a day of the month on.
/// The error is the kind of fault.
fn parse_window(
    number: Option<Option<u32>>,
    unit: &str,
    day: Option<&str>,
) -> Result<Window, ParsePolicyErrorKind> {
    let window = match (unit, number, day) {
        ("week" | "w", None, None) => Some(Window::WEEK),
        ("month", None, None) => Window::month(1),
        ("month", None, Some(day)) => match leading_number(day) {
            (Some(number), digits) if digits == day.len() => Window::month(number),
            _ => None,
        },
        ("week" | "w" | "month", ..) => None,
        (_, number, day) => {
            let word = match unit {
                "sec" => "second",
                "min" => "minute",
                unit => unit,
            };
            let (_, _, seconds) = UNITS
                .into_iter()
                .find(|(name, letter, _)| word == *name || word == *letter)
                .ok_or(ParsePolicyErrorKind::Unit)?;
            let length = number.unwrap_or(Some(1)).and_then(|number| number.checked_mul(seconds));
            length.filter(|_| day.is_none()).and_then(Window::from_seconds)
        }
    };
    window.ok_or(ParsePolicyErrorKind::Window)
}

/// Parses `LIMIT/[N]UNIT` or `LIMIT per [N]UNIT`. A month may have a day: `LIMIT/month@DAY`.
pub(crate) fn parse_quota(part: &str) -> Result<Quota, Fault<'_>> {
    let syntax = || Fault::new(ParsePolicyErrorKind::Syntax, part);
    let (limit, window) = split(part, b'/').or_else(|| split_per(part)).ok_or_else(syntax)?;
    let (limit, window) = (trimmed(limit), trimmed(window));
    let (value, digits) = leading_number(limit);
    if limit.is_empty() || digits < limit.len() {
        return Err(syntax());
    }
    let limit = match value {
        Some(value) if value > 0 => value,
        _ => return Err(Fault::new(ParsePolicyErrorKind::Limit, limit)),
    };
    Ok(Quota { limit, window: window_of(window, syntax)? })
}

/// Parses `[N]UNIT` or `month@DAY`. `syntax` is the fault of a text that has neither form.
fn window_of<'t>(text: &'t str, syntax: impl Fn() -> Fault<'t>) -> Result<Window, Fault<'t>> {
    let (span, day) =
        split(text, b'@').map_or((text, None), |(span, day)| (span, Some(trimmed(day))));
    let (number, digits) = leading_number(span);
    let unit = trimmed(span.get(digits..).unwrap_or_default());
    let is_word = !unit.is_empty() && unit.bytes().all(|byte| byte.is_ascii_lowercase());
    if !is_word || day.is_some_and(str::is_empty) {
        return Err(syntax());
    }
    let number = (digits > 0).then_some(number);
    parse_window(number, unit, day).map_err(|kind| {
        Fault::new(kind, if kind == ParsePolicyErrorKind::Unit { unit } else { text })
    })
}

/// Parses the window of a quota, such as `hour`, `90s` or `month@17`.
impl FromStr for Window {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        Ok(window_of(text, || Fault::new(ParsePolicyErrorKind::Window, text))?)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.algorithm() == Algorithm::Sliding {
            f.write_str("sliding ")?;
        }
        for (index, quota) in self.quotas.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            quota.fmt(f)?;
        }
        Ok(())
    }
}

/// The kind of a [`ParsePolicyError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParsePolicyErrorKind {
    /// There is no quota.
    Empty,
    /// The text is longer than it may be: [`MAX_POLICY_LEN`], or [`MAX_SECTIONS_LEN`] for a plan.
    ///
    /// [`MAX_SECTIONS_LEN`]: crate::MAX_SECTIONS_LEN
    TooLong {
        /// The most bytes.
        max: usize,
    },
    /// A quota does not have the form `LIMIT/[N]UNIT` or `LIMIT per [N]UNIT`.
    Syntax,
    /// A limit is 0 or above 4294967295.
    Limit,
    /// A window is 0 or longer than [`MAX_WINDOW_S`], or there are several weeks or months, or a
    /// month begins on another day than 1 to 31.
    Window,
    /// A unit is none of second, minute, hour, day, week, month, sec, min, s, m, h, d, w.
    Unit,
    /// There are more than [`MAX_QUOTAS`] quotas.
    TooManyQuotas,
    /// Two quotas have the same window, or both are months.
    Duplicate,
    /// A sliding window is a month.
    SlidingMonth,
    /// The time stamp and the counts together need more than the 64 bits of a tally.
    TooManyBits {
        /// The number of bits that they need.
        needed: u32,
    },
    /// A section of a plan does not have the form `team: …` or `group NAME: …`, or its name has
    /// other characters than `a-z`, `0-9`, `-` and `_`, or is longer than 16, or is `key` or
    /// `team`.
    Section,
    /// Two sections of a plan have the same name.
    SectionTwice,
    /// The sections of a plan need more than [`MAX_TALLIES`] tallies.
    TooManyTallies,
    /// The section `team` needs more than [`MAX_TEAM_TALLIES`] tallies.
    TooManyTeamTallies,
    /// A warning of a quota in a plan is not one or two percentages from 1% to 100%, in ascending
    /// order.
    Warning,
    /// A policy for addresses does not have the form `addresses: /PREFIX …; /PREFIX …`, or a prefix
    /// is not 33 to 64, or there are two of one prefix or more than 4.
    Prefix,
    /// This build leaves out a feature that the policy needs.
    LeftOut(Feature),
}

/// The error of an invalid policy, before its part is copied out of the text.
pub(crate) struct Fault<'t> {
    pub(crate) kind: ParsePolicyErrorKind,
    part: Part<'t>,
}

/// What caused the error of an invalid policy.
enum Part<'t> {
    Text(&'t str),
    Quota(Quota),
}

impl<'t> Fault<'t> {
    pub(crate) fn new(kind: ParsePolicyErrorKind, part: &'t str) -> Self {
        Self { kind, part: Part::Text(part) }
    }

    pub(crate) fn about(kind: ParsePolicyErrorKind, quota: Quota) -> Self {
        Self { kind, part: Part::Quota(quota) }
    }
}

impl From<Fault<'_>> for ParsePolicyError {
    /// Copies the part without its control characters, cut to `MAX_PART_LEN` bytes.
    fn from(fault: Fault<'_>) -> Self {
        let part = match fault.part {
            Part::Quota(quota) => quota.text(),
            Part::Text(text) => Text::cut(text),
        };
        Self { kind: fault.kind, part }
    }
}

/// The error of an invalid policy: its kind, and the part of the text that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsePolicyError {
    kind: ParsePolicyErrorKind,
    part: Text<MAX_PART_LEN>,
}

impl ParsePolicyError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> ParsePolicyErrorKind {
        self.kind
    }

    /// Returns the part of the text that caused the error, cut to 32 bytes; empty if no single part
    /// did. If the text is too long, it is the beginning.
    pub fn part(&self) -> &str {
        &self.part
    }
}

impl fmt::Display for ParsePolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = &self.part;
        match self.kind {
            ParsePolicyErrorKind::Empty => {
                match part.as_str() {
                    "" => f.write_str("a policy")?,
                    part => write!(f, "\"{part}\"")?,
                }
                f.write_str(" needs at least one quota, like \"100/minute, 1000/hour\"")
            }
            ParsePolicyErrorKind::TooLong { max: MAX_POLICY_LEN } => {
                write!(
                    f,
                    "\"{part}…\" is longer than the {MAX_POLICY_LEN} bytes that a policy may have"
                )
            }
            ParsePolicyErrorKind::TooLong { max } => {
                write!(
                    f,
                    "\"{part}…\" is longer than the {max} bytes that a plan's quotas may have"
                )
            }
            ParsePolicyErrorKind::Syntax => {
                match part.as_str() {
                    "" => f.write_str("nothing is before or after a comma")?,
                    part => write!(f, "\"{part}\" is not a quota")?,
                }
                f.write_str(
                    "; a quota is LIMIT/UNIT or LIMIT/N UNIT, like \"100/minute\" or \"5/10s\"",
                )?;
                f.write_str(misplaced(part))
            }
            ParsePolicyErrorKind::Limit => {
                write!(f, "\"{part}\" is not a limit; a limit is 1 to {}", u32::MAX)
            }
            ParsePolicyErrorKind::Window => {
                write!(
                    f,
                    "\"{part}\" is not a window; a window is 1 second to {} days, week, month, or month@1 to month@31",
                    MAX_WINDOW_S / 86_400
                )
            }
            ParsePolicyErrorKind::Unit => {
                write!(
                    f,
                    "\"{part}\" is not a unit; the units are second, minute, hour, day, week, month, or sec, min, s, m, h, d, w"
                )
            }
            ParsePolicyErrorKind::TooManyQuotas => {
                write!(f, "\"{part}\" is one quota too many; a policy has at most {MAX_QUOTAS}")
            }
            ParsePolicyErrorKind::Duplicate => {
                write!(
                    f,
                    "\"{part}\" has the window of another quota; each window may appear once, and only one may be a month"
                )
            }
            ParsePolicyErrorKind::SlidingMonth => {
                write!(
                    f,
                    "\"{part}\" cannot slide, since months differ in length; write it in a fixed policy, or use 30d"
                )
            }
            ParsePolicyErrorKind::TooManyBits { needed } if !part.is_empty() => {
                write!(
                    f,
                    "\"{part}\" needs {needed} bits and a tally has 64; lower the limit"
                )
            }
            ParsePolicyErrorKind::TooManyBits { needed } => {
                write!(
                    f,
                    "the policy needs {needed} bits and a tally has 64; lower a limit or drop a window"
                )
            }
            ParsePolicyErrorKind::Section if part.is_empty() => f.write_str(
                "nothing is after a semicolon; leave the semicolon out, or write a section there, like \"team: 5000/hour\" or \"group write: 20/minute\"",
            ),
            ParsePolicyErrorKind::Section if begins_with_algorithm(part) => write!(
                f,
                "\"{part}\" is not a section; \"sliding\" and \"fixed\" stand after the colon, as in \"team: sliding 5000/hour\""
            ),
            ParsePolicyErrorKind::Section => write!(
                f,
                "\"{part}\" is not a section; after the key's quotas, a section is \"team: …\" or \"group NAME: …\", with a name of 1 to {MAX_GROUP_NAME_LEN} characters of a-z, 0-9, - and _ that is not key or team"
            ),
            ParsePolicyErrorKind::SectionTwice => {
                write!(f, "\"{part}\" is the name of two sections; each appears once")
            }
            ParsePolicyErrorKind::TooManyTallies => write!(
                f,
                "the quotas need more than the {MAX_TALLIES} tallies that a plan may have; drop a group or a window, or lower a limit"
            ),
            ParsePolicyErrorKind::TooManyTeamTallies => write!(
                f,
                "the team's quotas need more than {MAX_TEAM_TALLIES} tallies; drop a window, or lower a limit"
            ),
            ParsePolicyErrorKind::Warning => write!(
                f,
                "\"{part}\" is not a warning of a plan's quota; a warning is one or two percentages, the lower one first, like \"1000/hour warn 80% 95%\""
            ),
            ParsePolicyErrorKind::Prefix if part.is_empty() => f.write_str(
                "nothing is before or after a semicolon; leave the semicolon out, or limit a prefix there, like \"/48 1000/minute\"",
            ),
            ParsePolicyErrorKind::Prefix if begins_with_algorithm(part) => write!(
                f,
                "\"{part}\" does not limit addresses; \"sliding\" and \"fixed\" stand once, before all prefixes, as in \"addresses: sliding /64 20/minute; /48 1000/minute\""
            ),
            ParsePolicyErrorKind::Prefix => write!(
                f,
                "\"{part}\" does not limit addresses; up to 4 prefixes from /33 to /64 have quotas, each once, like \"addresses: /64 20/minute; /48 1000/minute\""
            ),
            ParsePolicyErrorKind::LeftOut(feature) => feature.fmt(f),
        }
    }
}

impl core::error::Error for ParsePolicyError {}

fn begins_with_algorithm(part: &str) -> bool {
    ["sliding", "fixed"].into_iter().any(|word| {
        part.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
    })
}

/// Returns the end of a sentence about a part that is possible elsewhere, which says where; the
/// empty text for other parts. It finds the word `warn` by its bytes, because the search of `str`
/// contains a panic.
fn misplaced(part: &str) -> &'static str {
    if begins_with_algorithm(part) {
        "; \"sliding\" and \"fixed\" stand once, before all quotas, as in \"team: sliding 5/hour\" or \"addresses: sliding /64 5/hour\""
    } else if part == "unlimited" {
        "; in a plan, \"unlimited\" stands in place of all quotas of a section"
    } else if part.as_bytes().windows(4).any(|word| word == b"warn") {
        "; only a quota of a plan has warnings"
    } else if part.starts_with('/') {
        "; prefixes follow \"addresses:\", with semicolons between them"
    } else if part.contains([':', ';']) {
        "; sections follow the quotas of the key in a plan, each after a semicolon"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::string::ToString;

    use super::*;

    /// The kind of the error of parsing `text`.
    fn kind(text: &str) -> ParsePolicyErrorKind {
        text.parse::<Policy>().expect_err(text).kind()
    }

    #[test]
    fn text_has_one_canonical_form() {
        for (text, canonical) in [
            ("100/minute, 1000/hour", "100/minute, 1000/hour"),
            ("1000/h,100/m", "100/minute, 1000/hour"),
            ("sliding 5/10s", "sliding 5/10s"),
            ("fixed\t7/ 90 second ", "7/90s"),
            ("1/120s", "1/2m"),
            ("1/31day", "1/31d"),
            ("4294967295/day", "4294967295/day"),
            ("1/s,1/m,1/h,1/d", "1/second, 1/minute, 1/hour, 1/day"),
            ("100 per minute", "100/minute"),
            ("sliding 5\tper\t10 s, 100 per hour", "sliding 5/10s, 100/hour"),
            ("100/min, 10/sec", "10/second, 100/minute"),
            ("7/2min,5 per 30sec", "5/30s, 7/2m"),
            ("9/month @ 17, 2/2h, 3/5h", "2/2h, 3/5h, 9/month@17"),
            ("9/month@1, 3/w", "3/week, 9/month"),
            ("sliding 3/week", "sliding 3/7d"),
        ] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn text_may_have_the_documented_length() {
        let mut text = "1/s".to_string();
        text += &" ".repeat(MAX_POLICY_LEN - text.len());
        assert!(text.parse::<Policy>().is_ok());
        assert_eq!(kind(&(text + " ")), ParsePolicyErrorKind::TooLong { max: MAX_POLICY_LEN });
    }

    #[test]
    fn every_error_names_its_part() {
        use ParsePolicyErrorKind::{
            Duplicate, Empty, Limit, SlidingMonth, Syntax, TooManyQuotas, Unit, Window,
        };
        for (text, expected) in [
            ("", Empty),
            ("sliding ", Empty),
            ("100", Syntax),
            ("-1/s", Syntax),
            ("1/", Syntax),
            ("1/minute,", Syntax),
            ("1/Minute", Syntax),
            ("1 minute", Syntax),
            ("per minute", Syntax),
            ("1per minute", Syntax),
            ("1 perminute", Syntax),
            ("1 per", Syntax),
            ("1 Per minute", Syntax),
            ("1 per 5", Syntax),
            ("1 1 per minute", Syntax),
            ("0 per minute", Limit),
            ("0/s", Limit),
            ("4294967296/s", Limit),
            ("1/fortnight", Unit),
            ("1/minutes", Unit),
            ("1/0s", Window),
            ("1/32d", Window),
            ("1/4294967295d", Window),
            ("1/s,1/m,1/h,1/d,x", TooManyQuotas),
            ("fixed5/s", Syntax),
            ("1/60s, 2/m", Duplicate),
            ("1/2w", Window),
            ("1/month@32", Window),
            ("1/day@2", Window),
            ("1/month@", Syntax),
            ("1/month, 2/month@2", Duplicate),
            ("sliding 1/month", SlidingMonth),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        assert_eq!(
            kind(&"1".repeat(MAX_POLICY_LEN + 1)),
            ParsePolicyErrorKind::TooLong { max: MAX_POLICY_LEN }
        );
        for (text, part) in [("5/10s, 3/0h", "0h"), ("5/10s, 0/h", "0"), ("1/60s, 2/m", "2/minute")]
        {
            assert_eq!(text.parse::<Policy>().unwrap_err().part(), part);
        }
    }

    #[test]
    fn policy_of_more_than_64_bits_is_rejected() {
        // The stamp of seconds until the year 2200 takes 33 bits, and the count 31 or 32.
        assert!("2147483647/second".parse::<Policy>().is_ok());
        assert_eq!(kind("2147483648/second"), ParsePolicyErrorKind::TooManyBits { needed: 65 });
    }

    #[test]
    fn quotas_that_never_deny_are_named_with_their_reason() {
        let named = |text: &str| -> alloc::vec::Vec<(_, _)> {
            let policy: Policy = text.parse().unwrap();
            policy
                .never_binding()
                .map(|(never_denies, denies_first)| {
                    (never_denies.to_string(), denies_first.to_string())
                })
                .collect()
        };
        for text in [
            "100/minute",
            "100/minute, 1000/hour",
            "10/minute, 599/hour",
            "sliding 2/10s, 11/m, 70/h",
        ] {
            assert_eq!(named(text), [], "{text}");
        }
        let pair = |never_denies: &str, denies_first: &str| {
            (never_denies.to_string(), denies_first.to_string())
        };
        assert_eq!(named("100/minute, 50/hour"), [pair("100/minute", "50/hour")]);
        assert_eq!(named("50/minute, 50/hour"), [pair("50/minute", "50/hour")]);
        assert_eq!(named("10/minute, 600/hour"), [pair("600/hour", "10/minute")]);
        assert_eq!(named("sliding 10/minute, 600/hour"), [pair("600/hour", "10/minute")]);
        assert_eq!(
            named("9/second, 5/minute, 300/hour, 4/day"),
            [pair("9/second", "5/minute"), pair("5/minute", "4/day"), pair("300/hour", "5/minute")]
        );
        assert_eq!(named("1/minute, 4294967295/31d"), [pair("4294967295/31d", "1/minute")]);
        // An hour meets up to 516 windows of seven seconds, and a month up to six weeks.
        assert_eq!(named("1/7s, 516/hour"), [pair("516/hour", "1/7s")]);
        assert_eq!(named("1/7s, 515/hour"), []);
        assert_eq!(named("sliding 1/7s, 600/hour"), []);
        assert_eq!(named("1/week, 6/month@17"), [pair("6/month@17", "1/week")]);
    }

    #[test]
    fn new_rejects_no_quota_and_a_zero_limit() {
        let quota = Quota { limit: 0, window: Window::SECOND };
        assert_eq!(
            Policy::new(Algorithm::Fixed, &[quota]).unwrap_err().kind(),
            ParsePolicyErrorKind::Limit
        );
        assert_eq!(
            Policy::new(Algorithm::Fixed, &[]).unwrap_err().kind(),
            ParsePolicyErrorKind::Empty
        );
    }
}
