//! What the responses of a verdict and of a compound charge have in common: their header fields and
//! their problem document.

use core::ffi::CStr;
use core::fmt::{self, Write};

use super::fields::{FieldFormat, MAX_HEADERS_LEN, Writer};
use crate::outcome::Outcome;
use crate::quotas::QuotaState;
use crate::time::Timestamp;

pub(super) const LIMIT: &CStr = c"X-RateLimit-Limit";
pub(super) const REMAINING: &CStr = c"X-RateLimit-Remaining";
pub(super) const RESET: &CStr = c"X-RateLimit-Reset";
pub(super) const POLICY: &CStr = c"RateLimit-Policy";
pub(super) const QUOTAS: &CStr = c"RateLimit";
pub(super) const RETRY_AFTER: &CStr = c"Retry-After";
pub(super) const AUTHENTICATE: &CStr = c"WWW-Authenticate";

/// The error of writing into a buffer that is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BufferTooSmall {
    /// The bytes that are needed.
    pub needed: usize,
}

impl fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the buffer is too small: {} bytes are needed", self.needed)
    }
}

impl core::error::Error for BufferTooSmall {}

/// Writes the problem document of a response, which names the quotas that lack room.
pub(super) fn put_problem<Q: Listed>(
    out: &mut impl Write,
    outcome: Outcome,
    quotas: &[Q],
    cost: impl Fn(&Q) -> u32,
) -> fmt::Result {
    let title = match outcome {
        Outcome::Admitted => return Ok(()),
        Outcome::MissingKey => "Missing X-API-Key header",
        Outcome::InvalidKey => "Invalid API key",
        Outcome::Denied => "Rate limit exceeded",
        Outcome::TooCostly => "Request costs more than the limit",
        Outcome::Forbidden => "Forbidden",
        Outcome::Full => "Too many clients at once",
        Outcome::Unavailable => "Service unavailable",
    };
    let kind = match outcome {
        Outcome::Denied | Outcome::TooCostly => {
            "https://iana.org/assignments/http-problem-types#quota-exceeded"
        }
        _ => "about:blank",
    };
    let status = outcome.http_status();
    write!(out, r#"{{"type": "{kind}", "title": "{title}", "status": {status}"#)?;
    let mut before_name = r#", "violated-policies": [""#;
    let mut list_end = "";
    for (index, quota) in quotas.iter().enumerate() {
        let state = quota.state();
        if state.lacking || (outcome == Outcome::TooCostly && cost(quota) > state.limit) {
            out.write_str(before_name)?;
            quota.write_name(quotas.get(..index).unwrap_or_default(), out)?;
            out.write_char('"')?;
            before_name = ", \"";
            list_end = "]";
        }
    }
    write!(out, "{list_end}}}")
}

/// A quota in the list of a response, with the name that it has there. A list has each name once,
/// so the name depends on the quotas that are listed before.
pub(super) trait Listed: Sized {
    fn state(&self) -> &QuotaState;

    /// Writes the name as a quoted string.
    fn put_name<'b>(&self, before: &[Self], out: Writer<'b>) -> Writer<'b>;

    /// Writes the name without quotation marks.
    fn write_name(&self, before: &[Self], out: &mut impl Write) -> fmt::Result;
}

impl Listed for QuotaState {
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn state(&self) -> &QuotaState {
        self
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn put_name<'b>(&self, _: &[Self], out: Writer<'b>) -> Writer<'b> {
        out.window_name(self.window)
    }

    fn write_name(&self, _: &[Self], out: &mut impl Write) -> fmt::Result {
        write!(out, "{}", self.window)
    }
}

/// Writes all fields of a response in a format, and returns the rest of the buffer.
#[cfg_attr(target_pointer_width = "64", inline(always))]
pub(super) fn put_fields_of<'b>(
    mut out: Writer<'b>,
    format: &mut impl FieldFormat,
    outcome: Outcome,
    described: Option<&QuotaState>,
    quotas: &[impl Listed],
    waits_from: Timestamp,
    retry_after_s: Option<u32>,
) -> Writer<'b> {
    if let Some(described) = described {
        out = format.field(out, LIMIT, |out| out.number(described.limit.into()));
        out = format.field(out, REMAINING, |out| out.number(described.remaining.into()));
        out = format.field(out, RESET, |out| out.number(described.reset_unix_s));
    }
    if !quotas.is_empty() {
        out = format.field(out, POLICY, |out| {
            each_quota(out, quotas, |out, quota| {
                out.text(b";q=").number(quota.limit.into()).window_length(quota.window)
            })
        });
        out = format.field(out, QUOTAS, |out| {
            each_quota(out, quotas, |out, quota| {
                // A reset is a whole second, so rounding the present down rounds the wait up.
                let wait_s = quota.reset_unix_s.saturating_sub(waits_from.unix_s());
                out.text(b";r=").number(quota.remaining.into()).text(b";t=").number(wait_s)
            })
        });
    }
    if matches!(outcome, Outcome::MissingKey | Outcome::InvalidKey) {
        out = format.field(out, AUTHENTICATE, |out| {
            out.text(b"ApiKey realm=\"api\", header=\"X-API-Key\"")
        });
    }
    if let Some(seconds) = retry_after_s {
        out = format.field(out, RETRY_AFTER, |out| out.number(seconds.into()));
    }
    out
}

/// Writes a list of quotas: the name of each, then what `parameters` writes.
#[cfg_attr(target_pointer_width = "64", inline)]
fn each_quota<'b>(
    mut out: Writer<'b>,
    quotas: &[impl Listed],
    parameters: impl Fn(Writer<'b>, &QuotaState) -> Writer<'b>,
) -> Writer<'b> {
    for (index, quota) in quotas.iter().enumerate() {
        if index > 0 {
            out = out.text(b", ");
        }
        let before = quotas.get(..index).unwrap_or_default();
        out = parameters(quota.put_name(before, out), quota.state());
    }
    out
}

/// The header fields of a response, stored in the value itself.
#[derive(Clone)]
pub struct Headers<const N: usize = MAX_HEADERS_LEN> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Headers<N> {
    /// The fields that `put` writes into a buffer, of which it returns the rest.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn written(put: impl FnOnce(Writer<'_>) -> Writer<'_>) -> Self {
        let mut headers = Self { bytes: [0; N], len: 0 };
        headers.len = N - put(Writer(&mut headers.bytes)).0.len();
        headers
    }

    /// Copies the fields into `buffer`, and returns their length in bytes.
    ///
    /// # Errors
    /// [`BufferTooSmall`] if they do not fit. Nothing is written then.
    pub(super) fn write_to(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let target = buffer.get_mut(..self.len).ok_or(BufferTooSmall { needed: self.len })?;
        target.copy_from_slice(self.as_bytes());
        Ok(self.len)
    }

    /// Returns all fields as they are sent, each `Name: value` and CRLF.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Returns all fields as ASCII bytes, each `Name: value` and CRLF.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Returns the name and value of each field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.as_str().split_terminator("\r\n").filter_map(|line| line.split_once(": "))
    }
}

impl<const N: usize> fmt::Debug for Headers<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
