//! The HTTP response of a verdict: status, body and header fields, written into buffers of a fixed
//! size.
//!
//! The fields `X-RateLimit-*` describe the longest window of at most a day, or the shortest window
//! if all are longer. `RateLimit` and `RateLimit-Policy` list all windows, in the form of
//! draft-ietf-httpapi-ratelimit-headers-10. Clients may depend on the exact bytes of the field
//! names and bodies.

use core::ffi::CStr;
use core::ops::Range;

use self::fields::{FieldFormat, Lines, Values, Writer};
use self::parts::{
    AUTHENTICATE, LIMIT, POLICY, QUOTAS, REMAINING, RESET, RETRY_AFTER, put_fields_of, put_problem,
};
use crate::outcome::Outcome;
use crate::quota::MAX_QUOTAS;
use crate::quotas::QuotaState;
use crate::text::Text;
use crate::time::Timestamp;
use crate::verdict::Verdict;

mod compound;
mod fields;
mod parts;

pub use self::compound::{
    CompoundResponse, MAX_COMPOUND_HEADERS_LEN, MAX_COMPOUND_PROBLEM_LEN, NamedQuota,
};
pub use self::fields::MAX_HEADERS_LEN;
pub use self::parts::{BufferTooSmall, Headers};

/// The header that carries a key.
pub const API_KEY_HEADER: &str = "X-API-Key";

/// The most header fields of a verdict.
pub const MAX_FIELDS: usize = 6;

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

/// Converts a field's name from C's form.
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
/// bodies. If a request has several `Accept` fields, the caller checks each. RFC 9110, 12.5.1.
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

impl Outcome {
    /// Returns the HTTP status. It is 200 if the request is admitted; the application then sends
    /// its own status instead.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Admitted => 200,
            Self::MissingKey | Self::InvalidKey => 401,
            Self::Denied | Self::TooCostly => 429,
            Self::Forbidden => 403,
            Self::Full | Self::Unavailable => 503,
        }
    }

    /// Returns the response body, which is JSON; empty if the request is admitted. It never says
    /// why a key is invalid.
    pub const fn body(self) -> &'static str {
        match self {
            Self::Admitted => "",
            Self::MissingKey => r#"{"error": "Missing X-API-Key header"}"#,
            Self::InvalidKey => r#"{"error": "Invalid API key"}"#,
            Self::Denied | Self::TooCostly => {
                r#"{"error": "Rate limit exceeded. Please try again later."}"#
            }
            Self::Forbidden => r#"{"error": "Forbidden"}"#,
            Self::Full => r#"{"error": "Too many clients at once. Please try again later."}"#,
            Self::Unavailable => r#"{"error": "Service unavailable. Please try again later."}"#,
        }
    }
}

impl Verdict {
    /// Returns the HTTP status: 200, 401, 403, 429 or 503.
    pub fn http_status(&self) -> u16 {
        self.outcome.http_status()
    }

    /// Returns the response body, which is JSON; empty if the request is admitted.
    pub fn body(&self) -> &'static str {
        self.outcome.body()
    }

    /// Returns the header fields of the response. A response has each field once, so the caller
    /// must replace a field of the same name instead of appending another.
    ///
    /// ```
    /// use keytally_core::{Limiter, CacheLine, Policy, Timestamp};
    /// let lines = Limiter::<Vec<CacheLine>>::lines(8);
    /// let memory: Vec<CacheLine> = (0..lines).map(|_| CacheLine::new()).collect();
    /// let policy: Policy = "100/minute, 1000/hour".parse()?;
    /// let limiter = Limiter::init(memory, &policy, 8, [7; 16])?;
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

    /// Writes the header fields into `buffer`, each `Name: value` and CRLF. Returns their length in
    /// bytes.
    ///
    /// # Errors
    /// [`BufferTooSmall`] if they do not fit. Nothing is written then. [`MAX_HEADERS_LEN`] bytes
    /// are always enough.
    #[inline]
    pub fn write_headers(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.respond(|response| response.write_headers(buffer))
    }

    /// Returns the body as a problem document, `application/problem+json`, which names the quotas
    /// that lack room. It is empty if the request is admitted. RFC 9457.
    pub fn problem(&self) -> Text<MAX_PROBLEM_LEN> {
        self.respond(|response| response.problem())
    }

    /// Calls `respond` with the values that a response shows.
    #[inline]
    fn respond<R>(&self, respond: impl FnOnce(Response<'_>) -> R) -> R {
        let mut quotas = [QuotaState::NONE; MAX_QUOTAS];
        let len = self.quotas.len();
        for (index, quota) in quotas.iter_mut().enumerate().take(len) {
            *quota = self.quotas.state(index);
        }
        self.quotas.mark(&mut quotas);
        let quotas = quotas.get(..len).unwrap_or_default();
        respond(Response {
            outcome: self.outcome,
            quotas,
            described: quotas.get(self.quotas.described_index()),
            cost: self.cost,
            waits_from: self.waits_from(),
            retry_after_s: self.retry_after_s(),
        })
    }
}

/// The values of a verdict that its HTTP response shows. Bindings whose verdict is a type of
/// another language use it to write the same response.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Response<'q> {
    /// What was decided.
    pub outcome: Outcome,
    /// The state of every window, shortest first, at most four; empty if no tally was charged or
    /// read.
    pub quotas: &'q [QuotaState],
    /// That of these states which the fields `X-RateLimit-*` describe.
    described: Option<&'q QuotaState>,
    /// The cost that was requested.
    pub cost: u32,
    /// The time that waits are counted from: see [`Verdict::waits_from`].
    pub waits_from: Timestamp,
    /// Seconds until a retry can succeed; `None` unless the request was denied or the limiter is
    /// full.
    pub retry_after_s: Option<u32>,
}

impl<'q> Response<'q> {
    /// The response of a verdict with these values.
    #[inline]
    pub fn new(
        outcome: Outcome,
        quotas: &'q [QuotaState],
        cost: u32,
        waits_from: Timestamp,
        retry_after_s: Option<u32>,
    ) -> Self {
        let described = QuotaState::described(quotas);
        Self { outcome, quotas, described, cost, waits_from, retry_after_s }
    }
}

impl Response<'_> {
    /// Returns the header fields, as [`Verdict::headers`] does.
    #[inline]
    pub fn headers(&self) -> Headers {
        Headers::written(|out| self.put_fields_inlined(out, &mut Lines::<true>))
    }

    /// Writes the header fields into `buffer`, as [`Verdict::write_headers`] does, and returns
    /// their length in bytes.
    ///
    /// # Errors
    /// [`BufferTooSmall`] if they do not fit. Nothing is written then.
    #[inline]
    pub fn write_headers(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let len = buffer.len();
        if len < MAX_HEADERS_LEN {
            let headers = self.headers();
            return headers.write_to(buffer);
        }
        Ok(len - self.put_fields(Writer(buffer), &mut Lines::<false>).0.len())
    }

    /// Writes the values of the header fields into `buffer`, each ended by a NUL. Calls `report`
    /// with the name of each field and the range of its value in `buffer`.
    ///
    /// It is for servers whose API sets one field per call.
    pub fn write_fields(
        &self,
        buffer: &mut [u8; MAX_HEADERS_LEN],
        report: impl FnMut(&'static CStr, Range<usize>),
    ) {
        self.put_fields(Writer(buffer), &mut Values::<_, MAX_HEADERS_LEN>(report));
    }

    /// Writes all fields in a format, and returns the rest of the buffer. It is a call of
    /// [`put_fields_inlined`](Self::put_fields_inlined), so that its callers stay small.
    #[inline(never)]
    fn put_fields<'b>(&self, out: Writer<'b>, format: &mut impl FieldFormat) -> Writer<'b> {
        self.put_fields_inlined(out, format)
    }

    /// Writes all fields in a format, and returns the rest of the buffer.
    ///
    /// The function exists under two names only for its instruction count:
    /// [`headers`](Self::headers) inlines it, since a call of [`put_fields`](Self::put_fields) cost
    /// it 37 instructions.
    #[cfg_attr(target_pointer_width = "64", inline)]
    fn put_fields_inlined<'b>(&self, out: Writer<'b>, format: &mut impl FieldFormat) -> Writer<'b> {
        put_fields_of(
            out,
            format,
            self.outcome,
            self.described,
            self.quotas,
            self.waits_from,
            self.retry_after_s,
        )
    }

    /// Returns the problem document, as [`Verdict::problem`] does.
    pub fn problem(&self) -> Text<MAX_PROBLEM_LEN> {
        let mut out = Text::new();
        // The longest document fits, as a test shows.
        let _ = put_problem(&mut out, self.outcome, self.quotas, |_| self.cost);
        out
    }
}

#[cfg(test)]
mod tests;
