//! Policies: what a user writes, `100/minute, 1000/hour`, read once into a form that can't be wrong.

use core::fmt;
use core::str::FromStr;

use heapless::Vec;

use crate::tally::Layout;
use crate::text::Text;

/// The most quotas that a policy may have.
pub const MAX_QUOTAS: usize = 4;

/// The longest policy text, in bytes.
pub const MAX_POLICY_LEN: usize = 128;

/// The longest window, in seconds: 31 days.
pub const MAX_WINDOW_S: u32 = 31 * 86_400;

/// How a window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// Windows aligned to the Unix epoch; the count starts again with each.
    Fixed,
    /// The last full window length: this window's count, and the previous one's weighted by the part of it that
    /// still overlaps, rounded up.
    Sliding,
}

impl Algorithm {
    /// The word that names it in policy text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Sliding => "sliding",
        }
    }
}

/// A length of time, whole seconds from 1 to [`MAX_WINDOW_S`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window(u32);

impl Window {
    /// A window of `seconds`; `None` when that is 0 or more than [`MAX_WINDOW_S`].
    pub const fn from_seconds(seconds: u32) -> Option<Self> {
        if seconds == 0 || seconds > MAX_WINDOW_S { None } else { Some(Self(seconds)) }
    }

    /// One second.
    pub(crate) const SECOND: Self = Self(1);

    /// The length in seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// How many whole windows there are in so many seconds. The usual lengths are divided by as constants, which is
    /// a multiplication and so ten times as quick.
    #[inline]
    pub(crate) const fn whole_in(self, seconds: u64) -> u64 {
        match self.0 {
            1 => seconds,
            60 => seconds / 60,
            3600 => seconds / 3600,
            86_400 => seconds / 86_400,
            length => seconds / length as u64,
        }
    }

    /// The length in milliseconds.
    pub(crate) const fn ms(self) -> u64 {
        self.0 as u64 * 1000
    }
}

/// A limit for the cost in each window of a length.
///
/// It can be built as a literal, since a limit and a window are all that it will ever have. Another kind of window is
/// another [`Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The most that is admitted in one window, at least 1.
    pub limit: u32,
    /// The length of the window.
    pub window: Window,
}

/// One to four quotas with nested windows, in ascending order of their length, that fit one tally.
///
/// ```
/// use keytally_core::Policy;
/// let policy: Policy = "1000/hour, 100/minute".parse()?;
/// assert_eq!(policy.to_string(), "100/minute, 1000/hour");
/// assert_eq!(policy.quotas()[0].limit, 100);
///
/// let error = "100/fortnight".parse::<Policy>().unwrap_err();
/// assert!(error.to_string().starts_with("\"fortnight\" is no unit"));
/// # Ok::<(), keytally_core::ParsePolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    algorithm: Algorithm,
    quotas: Vec<Quota, MAX_QUOTAS>,
    layout: Layout,
}

impl Policy {
    /// A policy of `quotas`, in any order.
    ///
    /// # Errors
    /// What [`ParsePolicyErrorKind`] lists, apart from the kinds that only text can have.
    pub fn new(algorithm: Algorithm, quotas: &[Quota]) -> Result<Self, ParsePolicyError> {
        if quotas.is_empty() {
            return Err(ParsePolicyError::new(ParsePolicyErrorKind::Empty, ""));
        }
        let mut sorted = Vec::from_slice(quotas)
            .map_err(|_| ParsePolicyError::new(ParsePolicyErrorKind::TooManyQuotas, ""))?;
        sort(&mut sorted);
        if let Some(quota) = sorted.iter().find(|quota| quota.limit == 0) {
            return Err(ParsePolicyError::about(ParsePolicyErrorKind::Limit, quota));
        }
        for pair in sorted.windows(2) {
            if pair[0].window == pair[1].window {
                return Err(ParsePolicyError::about(ParsePolicyErrorKind::Duplicate, &pair[1]));
            }
        }
        for pair in sorted.windows(2) {
            if !pair[1].window.0.is_multiple_of(pair[0].window.0) {
                return Err(ParsePolicyError::about(ParsePolicyErrorKind::NotNested, &pair[1]));
            }
        }
        let layout = Layout::new(algorithm, &sorted)
            .map_err(|needed| ParsePolicyError::new(ParsePolicyErrorKind::TooManyBits { needed }, ""))?;
        Ok(Self { algorithm, quotas: sorted, layout })
    }

    /// How the windows count.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The quotas, shortest window first.
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// Returns each quota that can never deny a request, with the quota that allows no more than it already: in
    /// `100/minute, 50/hour` the first, in `10/minute, 1000/hour` the second. Such a policy is allowed, but hardly what
    /// its author meant.
    ///
    /// This holds for counts that the same policy made. After a plan's limits were changed, the counts of the limits
    /// before may reach such a quota for one window.
    ///
    /// ```
    /// let policy: keytally_core::Policy = "100/minute, 50/hour".parse()?;
    /// let (idle, other) = policy.never_binding().next().unwrap();
    /// assert_eq!((idle.to_string(), other.to_string()), ("100/minute".into(), "50/hour".into()));
    /// # Ok::<(), keytally_core::ParsePolicyError>(())
    /// ```
    pub fn never_binding(&self) -> impl Iterator<Item = (Quota, Quota)> {
        self.quotas.iter().filter_map(|quota| {
            let other = self.quotas.iter().find(|other| other.implies(*quota))?;
            Some((*quota, *other))
        })
    }

    /// Where a tally of this policy keeps its stamp and counts.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The limits alone, in the order of the windows.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits([u32::MAX; MAX_QUOTAS]);
        for (limit, quota) in limits.0.iter_mut().zip(&self.quotas) {
            *limit = quota.limit;
        }
        limits
    }
}

/// The limit of each window of a [`Layout`], shortest window first; what lies past the last window says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits(pub(crate) [u32; MAX_QUOTAS]);

impl FromStr for Policy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        if text.len() > MAX_POLICY_LEN {
            return Err(ParsePolicyError::new(ParsePolicyErrorKind::TooLong, text));
        }
        let (algorithm, list) = split_algorithm(trimmed(text));
        if list.is_empty() {
            return Err(ParsePolicyError::new(ParsePolicyErrorKind::Empty, text));
        }
        let mut quotas = Vec::<Quota, MAX_QUOTAS>::new();
        let mut rest = Some(list);
        while let Some(list) = rest {
            let (part, after) = split(list, b',').map_or((list, None), |(part, after)| (part, Some(after)));
            let part = trimmed(part);
            rest = after;
            if quotas.is_full() {
                return Err(ParsePolicyError::new(ParsePolicyErrorKind::TooManyQuotas, part));
            }
            let quota = parse_quota(part)?;
            quotas
                .push(quota)
                .map_err(|_| ParsePolicyError::new(ParsePolicyErrorKind::TooManyQuotas, part))?;
        }
        Self::new(algorithm, &quotas)
    }
}

/// Puts quotas in the order of their windows. (There are four at most; `sort_unstable` is two kilobytes of code.)
fn sort(quotas: &mut [Quota]) {
    for end in (1..quotas.len()).rev() {
        for place in 0..end {
            if quotas[place].window > quotas[place + 1].window {
                quotas.swap(place, place + 1);
            }
        }
    }
}

/// A text without the spaces and tabs around it.
fn trimmed(text: &str) -> &str {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let bytes = text.as_bytes();
    let start = bytes.iter().take_while(|byte| blank(byte)).count();
    let after = bytes.iter().rev().take_while(|byte| blank(byte)).count();
    text.get(start..bytes.len() - after).unwrap_or_default()
}

/// What comes before the first byte `at`, and what comes after it.
fn split(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = text.bytes().position(|byte| byte == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// Takes the word `fixed` or `sliding` off the front, where there is one.
fn split_algorithm(text: &str) -> (Algorithm, &str) {
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

/// The number that a text begins with, `None` when it has no digit or is above 2^32, and how many digits it has.
fn leading_number(text: &str) -> (Option<u32>, usize) {
    let digits = text.bytes().take_while(u8::is_ascii_digit);
    let more = |number: u32, digit: u8| number.checked_mul(10)?.checked_add(u32::from(digit - b'0'));
    let len = digits.clone().count();
    (if len == 0 { None } else { digits.clone().try_fold(0, more) }, len)
}

/// What comes before the word `per`, which blanks separate from it, and what comes after.
fn split_per(text: &str) -> Option<(&str, &str)> {
    let blank = text.bytes().position(|byte| matches!(byte, b' ' | b'\t'))?;
    let (limit, rest) = (text.get(..blank)?, trimmed(text.get(blank..)?));
    let window = rest.strip_prefix("per")?;
    matches!(window.as_bytes(), [b' ' | b'\t', ..]).then_some((limit, window))
}

/// Reads `LIMIT/[N]UNIT` or `LIMIT per [N]UNIT`.
fn parse_quota(part: &str) -> Result<Quota, ParsePolicyError> {
    let syntax = || ParsePolicyError::new(ParsePolicyErrorKind::Syntax, part);
    let (limit, window) = split(part, b'/').or_else(|| split_per(part)).ok_or_else(syntax)?;
    let (limit, window) = (trimmed(limit), trimmed(window));
    let (value, digits) = leading_number(limit);
    if limit.is_empty() || digits < limit.len() {
        return Err(syntax());
    }
    let limit = match value {
        Some(value) if value > 0 => value,
        _ => return Err(ParsePolicyError::new(ParsePolicyErrorKind::Limit, limit)),
    };
    let (number, digits) = leading_number(window);
    let unit = trimmed(window.get(digits..).unwrap_or_default());
    if unit.is_empty() || !unit.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(syntax());
    }
    let word = match unit {
        "sec" => "second",
        "min" => "minute",
        unit => unit,
    };
    let (_, _, seconds) = UNITS
        .into_iter()
        .find(|(name, letter, _)| word == *name || word == *letter)
        .ok_or_else(|| ParsePolicyError::new(ParsePolicyErrorKind::Unit, unit))?;
    let number = if digits == 0 { Some(1) } else { number };
    let window = number
        .and_then(|number| number.checked_mul(seconds))
        .and_then(Window::from_seconds)
        .ok_or_else(|| ParsePolicyError::new(ParsePolicyErrorKind::Window, window))?;
    Ok(Quota { limit, window })
}

/// The units of policy text, the longest first, so that the first that divides a length names it best.
const UNITS: [(&str, &str, u32); 4] =
    [("day", "d", 86_400), ("hour", "h", 3600), ("minute", "m", 60), ("second", "s", 1)];

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.algorithm == Algorithm::Sliding {
            f.write_str("sliding ")?;
        }
        for (place, quota) in self.quotas.iter().enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            quota.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Quota {
    /// Whether what this quota admits always fits `other`, one of another window of the same policy. Windows nest, so
    /// a shorter window's count is part of a longer one's, and a longer window is a whole number of shorter ones. In
    /// sliding windows the estimates are bounded alike.
    fn implies(&self, other: Self) -> bool {
        let (own, others) = (self.window.0, other.window.0);
        let within = u64::from(self.limit) * u64::from((others / own).max(1));
        own != others && within <= u64::from(other.limit)
    }

    /// The quota as policy text: at most 10 + 1 + 8 bytes. (By itself, since `core::fmt` is a kilobyte of code that small
    /// machines do without.)
    fn text(self) -> Text<MAX_PART_LEN> {
        let mut text = Text::new();
        push_number(&mut text, self.limit);
        push(&mut text, "/");
        for (word, letter, seconds) in UNITS {
            if self.window.0 == seconds {
                push(&mut text, word);
                break;
            }
            if self.window.0.is_multiple_of(seconds) {
                push_number(&mut text, self.window.0 / seconds);
                push(&mut text, letter);
                break;
            }
        }
        text
    }
}

fn push_number(text: &mut Text<MAX_PART_LEN>, number: u32) {
    if number > 9 {
        push_number(text, number / 10);
    }
    // It has room for every quota.
    let _ = text.push(char::from_digit(number % 10, 10).unwrap_or_default());
}

fn push(text: &mut Text<MAX_PART_LEN>, part: &str) {
    let _ = text.push_str(part);
}

/// The window's name in HTTP fields: `second`, `minute`, `hour` or `day`, else its seconds, `90s`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|(_, _, seconds)| self.0 == *seconds) {
            Some((word, _, _)) => f.write_str(word),
            None => write!(f, "{}s", self.0),
        }
    }
}

/// What is wrong with a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParsePolicyErrorKind {
    /// There is no quota in it.
    Empty,
    /// The text is longer than [`MAX_POLICY_LEN`].
    TooLong,
    /// A quota isn't of the form `LIMIT/[N]UNIT` or `LIMIT per [N]UNIT`.
    Syntax,
    /// A limit is 0 or above 4294967295.
    Limit,
    /// A window is 0 or longer than [`MAX_WINDOW_S`].
    Window,
    /// A unit is none of second, minute, hour, day, sec, min, s, m, h, d.
    Unit,
    /// There are more than [`MAX_QUOTAS`] quotas.
    TooManyQuotas,
    /// Two quotas have the same window.
    Duplicate,
    /// A window isn't a whole multiple of the next shorter one.
    NotNested,
    /// The stamp and the counts don't fit the 64 bits of a tally.
    TooManyBits {
        /// The bits that they need.
        needed: u32,
    },
}

/// A policy that can't be: the kind of error and the part of the text that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsePolicyError {
    kind: ParsePolicyErrorKind,
    part: Text<MAX_PART_LEN>,
}

/// How much of an offending part an error repeats, in bytes.
const MAX_PART_LEN: usize = 32;

impl ParsePolicyError {
    fn new(kind: ParsePolicyErrorKind, part: &str) -> Self {
        let mut kept = Text::new();
        for character in part.chars().filter(|character| !character.is_control()) {
            if !kept.push(character) {
                break;
            }
        }
        Self { kind, part: kept }
    }

    fn about(kind: ParsePolicyErrorKind, quota: &Quota) -> Self {
        Self { kind, part: quota.text() }
    }

    /// What is wrong.
    pub fn kind(&self) -> ParsePolicyErrorKind {
        self.kind
    }

    /// The offending part of the text, cut to 32 bytes; empty when it is the whole that is wrong.
    pub fn part(&self) -> &str {
        &self.part
    }
}

impl fmt::Display for ParsePolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = &self.part;
        match self.kind {
            ParsePolicyErrorKind::Empty => {
                f.write_str("a policy needs at least one quota, like \"100/minute, 1000/hour\"")
            }
            ParsePolicyErrorKind::TooLong => {
                write!(f, "\"{part}…\" is longer than the {MAX_POLICY_LEN} bytes that a policy may have")
            }
            ParsePolicyErrorKind::Syntax => {
                write!(
                    f,
                    "\"{part}\" is no quota; a quota is LIMIT/UNIT or LIMIT/N UNIT, like \"100/minute\" or \"5/10s\""
                )
            }
            ParsePolicyErrorKind::Limit => write!(f, "\"{part}\" is no limit; a limit is 1 to {}", u32::MAX),
            ParsePolicyErrorKind::Window => {
                write!(f, "\"{part}\" is no window; a window is 1 second to {} days", MAX_WINDOW_S / 86_400)
            }
            ParsePolicyErrorKind::Unit => {
                write!(
                    f,
                    "\"{part}\" is no unit; the units are second, minute, hour, day, or sec, min, s, m, h, d"
                )
            }
            ParsePolicyErrorKind::TooManyQuotas => {
                write!(f, "\"{part}\" is one quota too many; a policy has at most {MAX_QUOTAS}")
            }
            ParsePolicyErrorKind::Duplicate => {
                write!(f, "\"{part}\" has the window of another quota; each window may appear once")
            }
            ParsePolicyErrorKind::NotNested => {
                write!(
                    f,
                    "the window of \"{part}\" is no whole multiple of the next shorter window; windows must nest"
                )
            }
            ParsePolicyErrorKind::TooManyBits { needed } => {
                write!(f, "the policy needs {needed} bits and a tally has 64; lower a limit or drop a window")
            }
        }
    }
}

impl core::error::Error for ParsePolicyError {}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::string::ToString;

    use super::*;

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
        ] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn whole_windows_are_counted_whatever_their_length() {
        for length in [1, 2, 59, 60, 61, 3599, 3600, 3601, 86_399, 86_400, 86_401, MAX_WINDOW_S] {
            let window = Window::from_seconds(length).unwrap();
            for count in [0, 1, 2, 1000] {
                let seconds = count * u64::from(length);
                let counted = [seconds, seconds + u64::from(length) - 1, seconds + u64::from(length)];
                assert_eq!(counted.map(|seconds| window.whole_in(seconds)), [count, count, count + 1]);
            }
        }
    }

    #[test]
    fn a_text_may_be_as_long_as_it_says() {
        let mut text = "1/s".to_string();
        text += &" ".repeat(MAX_POLICY_LEN - text.len());
        assert!(text.parse::<Policy>().is_ok());
        assert_eq!(kind(&(text + " ")), ParsePolicyErrorKind::TooLong);
    }

    #[test]
    fn every_error_names_its_part() {
        use ParsePolicyErrorKind::{
            Duplicate, Empty, Limit, NotNested, Syntax, TooLong, TooManyQuotas, Unit, Window,
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
            ("1 per week", Unit),
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
            ("1/90s, 2/2m", NotNested),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        assert_eq!(kind(&"1".repeat(MAX_POLICY_LEN + 1)), TooLong);
        for (text, part) in [("5/10s, 3/0h", "0h"), ("5/10s, 0/h", "0"), ("1/60s, 2/m", "2/minute")] {
            assert_eq!(text.parse::<Policy>().unwrap_err().part(), part);
        }
    }

    #[test]
    fn bits_are_counted_when_a_policy_is_read() {
        // 33 for seconds until 2200, and 31 or 32 for the count.
        assert!("2147483647/second".parse::<Policy>().is_ok());
        assert_eq!(kind("2147483648/second"), ParsePolicyErrorKind::TooManyBits { needed: 65 });
    }

    #[test]
    fn quotas_that_never_deny_are_named_with_their_reason() {
        let named = |text: &str| -> alloc::vec::Vec<(_, _)> {
            let policy: Policy = text.parse().unwrap();
            policy.never_binding().map(|(idle, other)| (idle.to_string(), other.to_string())).collect()
        };
        for text in
            ["100/minute", "100/minute, 1000/hour", "10/minute, 599/hour", "sliding 2/10s, 11/m, 70/h"]
        {
            assert_eq!(named(text), [], "{text}");
        }
        let pair = |idle: &str, other: &str| (idle.to_string(), other.to_string());
        assert_eq!(named("100/minute, 50/hour"), [pair("100/minute", "50/hour")]);
        assert_eq!(named("50/minute, 50/hour"), [pair("50/minute", "50/hour")]);
        assert_eq!(named("10/minute, 600/hour"), [pair("600/hour", "10/minute")]);
        assert_eq!(named("sliding 10/minute, 600/hour"), [pair("600/hour", "10/minute")]);
        assert_eq!(
            named("9/second, 5/minute, 300/hour, 4/day"),
            [pair("9/second", "5/minute"), pair("5/minute", "4/day"), pair("300/hour", "5/minute")]
        );
        assert_eq!(named("1/minute, 4294967295/31d"), [pair("4294967295/31d", "1/minute")]);
    }

    #[test]
    fn zero_limits_are_refused_without_text_too() {
        let quota = Quota { limit: 0, window: Window(60) };
        assert_eq!(Policy::new(Algorithm::Fixed, &[quota]).unwrap_err().kind(), ParsePolicyErrorKind::Limit);
        assert_eq!(Policy::new(Algorithm::Fixed, &[]).unwrap_err().kind(), ParsePolicyErrorKind::Empty);
    }
}
