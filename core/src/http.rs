//! HTTP: status, body and header fields of a verdict, written into buffers of a fixed size.
//!
//! X-RateLimit-* describe the longest window. `RateLimit` and `RateLimit-Policy` list all windows,
//! in the form of draft-ietf-httpapi-ratelimit-headers-10. Header names and bodies are exact, byte
//! for byte.

use core::ffi::CStr;
use core::fmt::{self, Write};
use core::ops::Range;

use crate::bits::{index, low};
use crate::outcome::Outcome;
use crate::quota::{MAX_QUOTAS, Window};
use crate::quotas::QuotaState;
use crate::text::Text;
use crate::time::Timestamp;
use crate::verdict::Verdict;

/// The header that carries a key.
pub const API_KEY_HEADER: &str = "X-API-Key";

/// The most bytes that the header fields of a verdict take, with their line ends.
pub const MAX_HEADERS_LEN: usize = 640;

/// The most header fields of a verdict.
pub const MAX_FIELDS: usize = 6;

const LIMIT: &CStr = c"X-RateLimit-Limit";
const REMAINING: &CStr = c"X-RateLimit-Remaining";
const RESET: &CStr = c"X-RateLimit-Reset";
const POLICY: &CStr = c"RateLimit-Policy";
const QUOTAS: &CStr = c"RateLimit";
const RETRY_AFTER: &CStr = c"Retry-After";
const AUTHENTICATE: &CStr = c"WWW-Authenticate";

/// The names of all header fields that a verdict can have. At most [`MAX_FIELDS`] of them are in
/// one response.
pub const FIELD_NAMES: [&str; 7] = [
    name(LIMIT),
    name(REMAINING),
    name(RESET),
    name(POLICY),
    name(QUOTAS),
    name(RETRY_AFTER),
    name(AUTHENTICATE),
];

const fn name(name: &'static CStr) -> &'static str {
    match name.to_str() {
        Ok(name) => name,
        Err(_) => panic!("a field name is ASCII"),
    }
}

/// The media type of a problem document, RFC 9457.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Returns whether the value of an `Accept` header field names problem documents,
/// [`PROBLEM_MEDIA_TYPE`], with a weight above 0.
///
/// Wildcards such as `*/*` do not count: a client that sends them may expect the documented JSON
/// bodies. Call it for each `Accept` field of a request. RFC 9110, 12.5.1.
///
/// ```
/// use keytally_core::accepts_problem;
/// assert!(accepts_problem(b"text/html, application/problem+json;q=0.9"));
/// assert!(!accepts_problem(b"application/problem+json;q=0"));
/// assert!(!accepts_problem(b"application/json, */*"));
/// ```
pub fn accepts_problem(accept: &[u8]) -> bool {
    accept.split(|&byte| byte == b',').any(|range| {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let is_named = parts
            .next()
            .is_some_and(|kind| kind.eq_ignore_ascii_case(PROBLEM_MEDIA_TYPE.as_bytes()));
        is_named && !parts.any(is_zero_weight)
    })
}

/// Returns whether a parameter of a media range is a weight of 0, such as `q=0` or `q=0.000`.
fn is_zero_weight(parameter: &[u8]) -> bool {
    let [b'q' | b'Q', b'=', weight @ ..] = parameter else { return false };
    weight.contains(&b'0') && weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

/// The most bytes of a problem document.
pub const MAX_PROBLEM_LEN: usize = 384;

/// A buffer that is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BufferTooSmall {
    /// Bytes that are needed.
    pub needed: usize,
}

impl fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the buffer is too small: {} bytes are needed", self.needed)
    }
}

impl core::error::Error for BufferTooSmall {}

impl Outcome {
    /// Returns the HTTP status. It is 200 when admitted, which the application replaces by its own.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Admitted => 200,
            Self::MissingKey | Self::InvalidKey => 401,
            Self::Denied | Self::TooCostly => 429,
            Self::Full => 503,
        }
    }

    /// Returns the response body, JSON; empty when admitted. It never says why a key is invalid.
    pub const fn body(self) -> &'static str {
        match self {
            Self::Admitted => "",
            Self::MissingKey => r#"{"error": "Missing X-API-Key header"}"#,
            Self::InvalidKey => r#"{"error": "Invalid API key"}"#,
            Self::Denied | Self::TooCostly => {
                r#"{"error": "Rate limit exceeded. Please try again later."}"#
            }
            Self::Full => r#"{"error": "Too many clients at once. Please try again later."}"#,
        }
    }
}

impl Verdict {
    /// Returns the HTTP status: 200, 401, 429 or 503.
    pub fn http_status(&self) -> u16 {
        self.outcome.http_status()
    }

    /// Returns the response body, JSON; empty when admitted.
    pub fn body(&self) -> &'static str {
        self.outcome.body()
    }

    /// Returns the header fields of the response. Set them instead of appending: a response has one
    /// of each.
    ///
    /// ```
    /// use keytally_core::{Limiter, Line, Policy, Timestamp};
    /// let memory: Vec<Line> = (0..Limiter::<Vec<Line>>::lines(8)).map(|_| Line::new()).collect();
    /// let policy: Policy = "100/minute, 1000/hour".parse()?;
    /// let limiter = Limiter::create(memory, &policy, 8, [7; 16])?;
    /// let verdict = limiter.check(b"203.0.113.9", 1, Timestamp::from_unix_s(1_700_000_000));
    /// let headers = verdict.headers();
    /// let mut fields = headers.iter();
    /// assert_eq!(fields.next(), Some(("X-RateLimit-Limit", "1000")));
    /// assert_eq!(fields.next(), Some(("X-RateLimit-Remaining", "999")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn headers(&self) -> Headers {
        self.respond(|response| response.headers())
    }

    /// Writes the header fields into `buffer`, each `Name: value` and a line end, and returns their
    /// length.
    ///
    /// # Errors
    /// [`BufferTooSmall`], and nothing is written. [`MAX_HEADERS_LEN`] bytes are always enough.
    #[inline]
    pub fn write_headers(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.respond(|response| response.write_headers(buffer))
    }

    /// Returns the body as a problem document, `application/problem+json`, which names the quotas
    /// that lack room. It is empty when admitted. RFC 9457.
    pub fn problem(&self) -> Text<MAX_PROBLEM_LEN> {
        self.respond(|response| response.problem())
    }

    #[inline]
    fn respond<R>(&self, respond: impl FnOnce(Response<'_>) -> R) -> R {
        let mut quotas = [QuotaState::NONE; MAX_QUOTAS];
        let len = self.quotas.len();
        for (index, quota) in quotas.iter_mut().enumerate().take(len) {
            *quota = self.quotas.state(index);
        }
        respond(Response {
            outcome: self.outcome,
            quotas: quotas.get(..len).unwrap_or_default(),
            cost: self.cost,
            waits_from: self.waits_from(),
            retry_after_s: self.retry_after_s(),
        })
    }
}

/// The values of a verdict that its response shows, for languages that keep verdicts in a form of
/// their own.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Response<'q> {
    /// What was decided.
    pub outcome: Outcome,
    /// Every window, shortest first, at most four; empty if no tally was reached.
    pub quotas: &'q [QuotaState],
    /// The cost that was requested.
    pub cost: u32,
    /// The time that waits are counted from, [`Verdict::waits_from`].
    pub waits_from: Timestamp,
    /// Seconds until a retry can succeed; `None` unless denied or full.
    pub retry_after_s: Option<u32>,
}

impl<'q> Response<'q> {
    /// A response from the values of a verdict that was kept in another form.
    #[inline]
    pub const fn new(
        outcome: Outcome,
        quotas: &'q [QuotaState],
        cost: u32,
        waits_from: Timestamp,
        retry_after_s: Option<u32>,
    ) -> Self {
        Self { outcome, quotas, cost, waits_from, retry_after_s }
    }
}

impl Response<'_> {
    /// Returns the header fields, as [`Verdict::headers`] does.
    #[inline]
    pub fn headers(&self) -> Headers {
        let mut headers = Headers { bytes: [0; MAX_HEADERS_LEN], len: 0 };
        headers.len =
            MAX_HEADERS_LEN - self.put_fields_inlined(Rest(&mut headers.bytes), &mut Block).0.len();
        headers
    }

    /// Writes the header fields into `buffer`, as [`Verdict::write_headers`] does, and returns
    /// their length.
    ///
    /// # Errors
    /// [`BufferTooSmall`], and nothing is written.
    #[inline]
    pub fn write_headers(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let len = buffer.len();
        if len < MAX_HEADERS_LEN {
            let headers = self.headers();
            let target =
                buffer.get_mut(..headers.len).ok_or(BufferTooSmall { needed: headers.len })?;
            target.copy_from_slice(headers.as_bytes());
            return Ok(headers.len);
        }
        Ok(len - self.put_fields(Rest(buffer), &mut Block).0.len())
    }

    /// Writes the values of the header fields into `buffer`, each ended by a NUL. Calls `report`
    /// with the name of each field and the range of its value. It is for servers that set fields
    /// one by one.
    pub fn write_fields(
        &self,
        buffer: &mut [u8; MAX_HEADERS_LEN],
        report: impl FnMut(&'static CStr, Range<usize>),
    ) {
        self.put_fields(Rest(buffer), &mut Separate(report));
    }

    /// Writes the fields, and returns the rest of the buffer.
    #[inline(never)]
    fn put_fields<'b>(&self, out: Rest<'b>, form: &mut impl Form) -> Rest<'b> {
        self.put_fields_inlined(out, form)
    }

    /// Writes the fields as [`put_fields`](Self::put_fields) does. Called, it cost
    /// [`headers`](Self::headers) 37 instructions.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn put_fields_inlined<'b>(&self, mut out: Rest<'b>, form: &mut impl Form) -> Rest<'b> {
        if let Some(longest) = self.quotas.last() {
            out = form.field(out, LIMIT, |out| out.number(longest.limit.into()));
            out = form.field(out, REMAINING, |out| out.number(longest.remaining.into()));
            out = form.field(out, RESET, |out| out.number(longest.reset_unix_s));
            out = form.field(out, POLICY, |out| {
                self.each_quota(out, |out, quota| {
                    out.text(b";q=").number(quota.limit.into()).seconds(quota.window)
                })
            });
            out = form.field(out, QUOTAS, |out| {
                self.each_quota(out, |out, quota| {
                    // A reset is a whole second, so rounding the present down rounds the wait up.
                    let wait_s = quota.reset_unix_s.saturating_sub(self.waits_from.unix_s());
                    out.text(b";r=").number(quota.remaining.into()).text(b";t=").number(wait_s)
                })
            });
        }
        if matches!(self.outcome, Outcome::MissingKey | Outcome::InvalidKey) {
            out = form.field(out, AUTHENTICATE, |out| {
                out.text(b"ApiKey realm=\"api\", header=\"X-API-Key\"")
            });
        }
        if let Some(seconds) = self.retry_after_s {
            out = form.field(out, RETRY_AFTER, |out| out.number(seconds.into()));
        }
        out
    }

    /// Writes the name of each window, and its parameters by `parameters`.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn each_quota<'b>(
        &self,
        mut out: Rest<'b>,
        parameters: impl Fn(Rest<'b>, &QuotaState) -> Rest<'b>,
    ) -> Rest<'b> {
        for (index, quota) in self.quotas.iter().enumerate() {
            if index > 0 {
                out = out.text(b", ");
            }
            out = parameters(out.window(quota.window), quota);
        }
        out
    }

    /// Returns the problem document, as [`Verdict::problem`] does.
    pub fn problem(&self) -> Text<MAX_PROBLEM_LEN> {
        let mut out = Text::new();
        // A test writes the longest document.
        let _ = self.put_problem(&mut out);
        out
    }

    fn put_problem(&self, out: &mut Text<MAX_PROBLEM_LEN>) -> fmt::Result {
        let title = match self.outcome {
            Outcome::Admitted => return Ok(()),
            Outcome::MissingKey => "Missing X-API-Key header",
            Outcome::InvalidKey => "Invalid API key",
            Outcome::Denied => "Rate limit exceeded",
            Outcome::TooCostly => "Request costs more than the limit",
            Outcome::Full => "Too many clients at once",
        };
        let kind = match self.outcome {
            Outcome::Denied | Outcome::TooCostly => {
                "https://iana.org/assignments/http-problem-types#quota-exceeded"
            }
            _ => "about:blank",
        };
        write!(
            out,
            r#"{{"type": "{kind}", "title": "{title}", "status": {}"#,
            self.outcome.http_status()
        )?;
        let lacking = self.quotas.iter().filter(|quota| {
            quota.lacking || (self.outcome == Outcome::TooCostly && self.cost > quota.limit)
        });
        let mut between = r#", "violated-policies": [""#;
        let mut end = "";
        for quota in lacking {
            write!(out, r#"{between}{}""#, quota.window)?;
            between = ", \"";
            end = "]";
        }
        write!(out, "{end}}}")
    }
}

/// The header fields of a verdict.
#[derive(Clone)]
pub struct Headers {
    bytes: [u8; MAX_HEADERS_LEN],
    len: usize,
}

impl Headers {
    /// Returns all fields as they are sent, each `Name: value` and a line end.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Returns all fields as ASCII bytes, each `Name: value` and a line end.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Returns the name and value of each field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.as_str().split_terminator("\r\n").filter_map(|line| line.split_once(": "))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The form in which fields are written.
trait Form {
    /// Writes a field.
    fn field<'b>(
        &mut self,
        out: Rest<'b>,
        name: &'static CStr,
        value: impl FnOnce(Rest<'b>) -> Rest<'b>,
    ) -> Rest<'b>;
}

/// Fields as they are sent, each `Name: value` and a line end.
struct Block;

impl Form for Block {
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn field<'b>(
        &mut self,
        out: Rest<'b>,
        name: &'static CStr,
        value: impl FnOnce(Rest<'b>) -> Rest<'b>,
    ) -> Rest<'b> {
        value(out.name(name).text(b": ")).text(b"\r\n")
    }
}

/// NUL-terminated values, each range of which is reported to a callback.
struct Separate<T>(T);

impl<T: FnMut(&'static CStr, Range<usize>)> Form for Separate<T> {
    fn field<'b>(
        &mut self,
        out: Rest<'b>,
        name: &'static CStr,
        value: impl FnOnce(Rest<'b>) -> Rest<'b>,
    ) -> Rest<'b> {
        let begin = MAX_HEADERS_LEN - out.0.len();
        let out = value(out);
        (self.0)(name, begin..MAX_HEADERS_LEN - out.0.len());
        out.text(b"\0")
    }
}

/// The rest of a buffer that has room for the longest block of fields, which a test writes. It is
/// passed from field to field, so it stays in registers; `core::fmt` would take ten times as long.
struct Rest<'b>(&'b mut [u8]);

impl Rest<'_> {
    /// Writes a text whose length is not in its type. Where neither is inlined, it is slower than
    /// `text`.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn name(self, name: &CStr) -> Self {
        match self.0.split_at_mut_checked(name.count_bytes()) {
            Some((target, rest)) => {
                target.copy_from_slice(name.to_bytes());
                Self(rest)
            }
            None => Self(&mut []),
        }
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn text<const N: usize>(self, text: &[u8; N]) -> Self {
        match self.0.split_first_chunk_mut() {
            Some((target, rest)) => {
                *target = *text;
                Self(rest)
            }
            None => Self(&mut []),
        }
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn number(self, number: u64) -> Self {
        match u32::try_from(number) {
            Ok(number) if number < FOUR => {
                let digits = 1
                    + usize::from(number > 9)
                    + usize::from(number > 99)
                    + usize::from(number > 999);
                self.last_digits(number, digits)
            }
            _ => self.long_number(number),
        }
    }

    #[inline(never)]
    fn long_number(self, number: u64) -> Self {
        self.number(number / u64::from(FOUR)).last_digits(low(number % u64::from(FOUR)), 4)
    }

    /// Writes the last `digits` digits, 1 to 4, of a number below 10,000. It stores four bytes; the
    /// next text overwrites the rest.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn last_digits(self, number: u32, digits: usize) -> Self {
        let [[a, b], [c, d]] =
            [number / 100, number % 100].map(|pair| PAIRS[index(pair.into()) % PAIRS.len()]);
        let text = u32::from_le_bytes([a, b, c, d]) >> (8 * (4 - digits));
        if let Some(target) = self.0.first_chunk_mut() {
            *target = text.to_le_bytes();
        }
        Self(self.0.get_mut(digits..).unwrap_or_default())
    }

    /// Writes the window's length as a parameter. Those of common windows are one text.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn seconds(self, window: Window) -> Self {
        match window.seconds() {
            60 => self.text(b";w=60"),
            3600 => self.text(b";w=3600"),
            seconds => self.text(b";w=").number(seconds.into()),
        }
    }

    /// Writes the window's name, as its `Display` does, in quotation marks.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn window(self, window: Window) -> Self {
        match window.seconds() {
            1 => self.text(b"\"second\""),
            60 => self.text(b"\"minute\""),
            3600 => self.text(b"\"hour\""),
            86_400 => self.text(b"\"day\""),
            seconds => self.text(b"\"").number(seconds.into()).text(b"s\""),
        }
    }
}

/// Numbers are written four digits at a time.
const FOUR: u32 = 10_000;

/// The two digits of each number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [*b"00"; 100];
    let mut number = 1;
    while number < pairs.len() {
        let [tens, ones] = pairs[number - 1];
        pairs[number] = if ones == b'9' { [tens + 1, b'0'] } else { [tens, ones + 1] };
        number += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    extern crate alloc;
    extern crate std;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;
    use crate::decide;
    use crate::policy::Policy;
    use crate::quota::{Limits, MAX_WINDOW_S};
    use crate::quotas::Quotas;
    use crate::tally::Counts;
    use crate::time::Timestamp;

    /// 20 seconds after a full hour.
    const NOW: Timestamp = Timestamp::from_unix_s(1_700_049_620);

    fn verdict(policy: &str, spent: u32, cost: u32) -> Verdict {
        let policy: Policy = policy.parse().unwrap();
        let word = decide::check(policy.layout(), &policy.limits(), 0, NOW, spent).next;
        let (layout, limits) = (policy.layout(), policy.limits());
        let decision = decide::check(layout, &limits, word, NOW, cost);
        Verdict::decided(layout, &limits, decision, None, NOW, cost)
    }

    #[test]
    fn an_admitted_request_carries_every_quota() {
        let headers = verdict("100/minute, 1000/hour", 0, 1).headers();
        assert_eq!(
            headers.as_str(),
            "X-RateLimit-Limit: 1000\r\n\
             X-RateLimit-Remaining: 999\r\n\
             X-RateLimit-Reset: 1700053200\r\n\
             RateLimit-Policy: \"minute\";q=100;w=60, \"hour\";q=1000;w=3600\r\n\
             RateLimit: \"minute\";r=99;t=40, \"hour\";r=999;t=3580\r\n"
        );
    }

    #[test]
    fn denied_verdict_has_retry_after_and_names_the_quota() {
        let denied = verdict("100/minute, 1000/hour", 100, 1);
        assert_eq!(denied.headers().iter().last(), Some(("Retry-After", "40")));
        assert_eq!(
            denied.problem().as_str(),
            r#"{"type": "https://iana.org/assignments/http-problem-types#quota-exceeded", "title": "Rate limit exceeded", "status": 429, "violated-policies": ["minute"]}"#
        );
        let too_costly = verdict("100/minute, 1000/hour", 0, 101);
        assert!(too_costly.headers().iter().all(|(name, _)| name != "Retry-After"));
        assert!(too_costly.problem().ends_with(r#""violated-policies": ["minute"]}"#));
    }

    #[test]
    fn a_cost_violates_only_the_limits_below_it() {
        let too_costly = verdict("5/minute, 10/hour, 20/day", 0, 10);
        assert!(too_costly.problem().ends_with(r#""violated-policies": ["minute"]}"#));
        let too_costly = verdict("5/minute, 10/hour, 20/day", 0, 11);
        assert!(too_costly.problem().ends_with(r#""violated-policies": ["minute", "hour"]}"#));
    }

    #[test]
    fn separate_fields_equal_those_of_the_block() {
        let all = [
            verdict("100/minute, 1000/hour", 0, 1),
            verdict("100/minute", 100, 1),
            Verdict::refused(Outcome::MissingKey, None, NOW),
            Verdict::refused(Outcome::Full, None, NOW),
            longest(),
        ];
        for verdict in all {
            let mut buffer = [b'!'; MAX_HEADERS_LEN];
            let mut reported = Vec::new();
            verdict.respond(|response| {
                response.write_fields(&mut buffer, |name, value| reported.push((name, value)));
            });
            let headers = verdict.headers();
            assert!(reported.len() <= MAX_FIELDS && headers.iter().count() == reported.len());
            for ((name, value), (field, range)) in headers.iter().zip(reported) {
                assert_eq!(
                    (field.to_str(), buffer.get(range.clone())),
                    (Ok(name), Some(value.as_bytes()))
                );
                assert_eq!(buffer[range.end], 0);
            }
        }
    }

    #[test]
    fn every_field_written_has_a_listed_name() {
        for verdict in
            [verdict("100/minute", 100, 1), Verdict::refused(Outcome::InvalidKey, None, NOW)]
        {
            let headers = verdict.headers();
            assert!(headers.iter().all(|(name, _)| FIELD_NAMES.contains(&name)), "{headers:?}");
        }
    }

    #[test]
    fn accept_names_problems_with_a_weight_above_zero() {
        for accept in [
            "application/problem+json",
            "Application/Problem+JSON",
            "text/html,application/problem+json",
            " text/html , \tapplication/problem+json ; q=0.001",
            "application/problem+json;q=1.000",
            "application/problem+json;q=0.10",
            "application/problem+json;charset=utf-8",
            "application/problem+json;xq=0",
            "application/problem+json;q=0, application/problem+json",
        ] {
            assert!(accepts_problem(accept.as_bytes()), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/*",
            "application/json",
            "application/problem",
            "application/problem+json2",
            "application/problem+json;q=0",
            "application/problem+json; Q=0.000",
            "application/problem+json;charset=utf-8;q=0.",
            "application/json;a=application/problem+json",
        ] {
            assert!(!accepts_problem(accept.as_bytes()), "{accept}");
        }
        assert!(!accepts_problem(b"\xff;q=\xff,application/problem+json\xff"));
    }

    #[test]
    fn debug_shows_the_fields() {
        let headers = verdict("100/minute", 0, 1).headers();
        assert_eq!(std::format!("{headers:?}"), headers.as_str());
    }

    #[test]
    fn missing_and_invalid_keys_get_www_authenticate() {
        for outcome in [Outcome::MissingKey, Outcome::InvalidKey] {
            let refused = Verdict::refused(outcome, None, NOW);
            let expected = "WWW-Authenticate: ApiKey realm=\"api\", header=\"X-API-Key\"\r\n";
            assert_eq!((refused.headers().as_str(), refused.http_status()), (expected, 401));
        }
    }

    /// A verdict of which every number is as long as it can be.
    fn longest() -> Verdict {
        let window = Window::from_seconds(MAX_WINDOW_S - 1).unwrap();
        let late = Timestamp::from_unix_ms(u64::MAX - 2 * window.ms());
        // A unit is spent in each window, so that none has room for all.
        let mut quotas = Quotas::new(&Counts::longest(window), &Limits([u32::MAX; 4]), 1, late);
        quotas.denied = u32::MAX;
        let mut verdict = Verdict::refused(Outcome::Denied, None, Timestamp::from_unix_ms(0));
        verdict.quotas = quotas;
        verdict.cost = u32::MAX;
        verdict
    }

    #[test]
    fn the_longest_verdict_fits_its_buffers() {
        let headers = longest().headers();
        let fields: Vec<_> = headers.iter().collect();
        assert_eq!(fields.len(), 6);
        assert_eq!(fields[5], ("Retry-After", "4294967295"));
        assert!(longest().problem().ends_with(r#", "2678399s"]}"#));
        let title = [Outcome::Denied, Outcome::TooCostly]
            .map(|outcome| Verdict { outcome, ..longest() }.problem());
        assert!(title.iter().all(|problem| problem.ends_with('}')));
    }

    #[test]
    fn a_number_has_all_of_its_digits() {
        for digits in 0..20 {
            let power = 10u64.pow(digits);
            for number in [power - 1, power, power + 1, 2 * (power / 3), u64::MAX / power] {
                let mut buffer = [0; 64];
                let left = Rest(&mut buffer).number(number).0.len();
                let written = &buffer[..buffer.len() - left];
                assert_eq!(core::str::from_utf8(written).unwrap(), number.to_string());
            }
        }
    }

    #[test]
    fn too_small_a_buffer_is_left_unchanged() {
        let verdict = verdict("100/minute", 0, 1);
        let needed = verdict.headers().as_str().len();
        let mut buffer = std::vec![b'!'; needed];
        for len in 0..needed {
            assert_eq!(verdict.write_headers(&mut buffer[..len]), Err(BufferTooSmall { needed }));
        }
        assert!(buffer.iter().all(|&byte| byte == b'!'));
        assert_eq!(verdict.write_headers(&mut buffer), Ok(needed));
        assert_eq!(core::str::from_utf8(&buffer).unwrap().to_string(), verdict.headers().as_str());
    }
}
