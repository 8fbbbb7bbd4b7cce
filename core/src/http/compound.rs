//! The HTTP response of a compound charge, which lists the quotas of all its tallies.

use core::ffi::CStr;
use core::fmt::{self, Write};
use core::ops::Range;

use super::fields::{FieldFormat, Lines, Values, Writer};
use super::parts::{BufferTooSmall, Headers, Listed, put_fields_of, put_problem};
use crate::outcome::Outcome;
use crate::quotas::QuotaState;
use crate::section::Section;
use crate::text::Text;
use crate::time::Timestamp;

/// The most bytes that the header fields of a compound charge take, with their line ends.
pub const MAX_COMPOUND_HEADERS_LEN: usize = 4096;

/// The most bytes of the problem document of a compound charge.
pub const MAX_COMPOUND_PROBLEM_LEN: usize = 1280;

/// A quota that a response lists, and the section that its name begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedQuota<'s> {
    /// The section, such as `team`; empty for the quotas of the key. The name of the quota in the
    /// response is the window alone then, such as `hour`, and else `team-hour`. A repeated name has
    /// a number, such as `hour-2`.
    pub section: &'s str,
    /// The state of its window.
    pub state: QuotaState,
    /// The cost that the request has for this section.
    pub cost: u32,
    /// Whether the fields `X-RateLimit-*` may describe it.
    pub is_own: bool,
}

impl<'s> NamedQuota<'s> {
    /// A quota of the section with this name; `None` for that of a limiter.
    pub fn new(section: Option<&'s str>, state: QuotaState, cost: u32, is_own: bool) -> Self {
        let section = section.filter(|&name| name != Section::Key.name()).unwrap_or_default();
        Self { section, state, cost, is_own }
    }
}

/// The name of the quota in a response that lists no other quota of this name, such as `team-hour`.
impl fmt::Display for NamedQuota<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_name(&[], f)
    }
}

impl NamedQuota<'_> {
    /// Returns the number that a response adds to the name, as in `minute-2`, if it lists quotas of
    /// that name before.
    fn number_after(&self, before: &[Self]) -> Option<usize> {
        let has_name = |other: &&Self| {
            let (window, other_window) = (self.state.window, other.state.window);
            window.seconds() == other_window.seconds()
                && window.is_calendar() == other_window.is_calendar()
                && self.section == other.section
        };
        match before.iter().filter(has_name).count() {
            0 => None,
            count => Some(count.saturating_add(1)),
        }
    }
}

impl Listed for NamedQuota<'_> {
    fn state(&self) -> &QuotaState {
        &self.state
    }

    fn put_name<'b>(&self, before: &[Self], out: Writer<'b>) -> Writer<'b> {
        let mut out = out.text(b"\"");
        if !self.section.is_empty() {
            out = out.bytes(self.section.as_bytes()).text(b"-");
        }
        out = out.window_word(self.state.window);
        if let Some(number) = self.number_after(before) {
            out = out.text(b"-").number(u64::try_from(number).unwrap_or(u64::MAX));
        }
        out.text(b"\"")
    }

    fn write_name(&self, before: &[Self], out: &mut impl Write) -> fmt::Result {
        if !self.section.is_empty() {
            write!(out, "{}-", self.section)?;
        }
        write!(out, "{}", self.state.window)?;
        match self.number_after(before) {
            Some(number) => write!(out, "-{number}"),
            None => Ok(()),
        }
    }
}

/// The values of a compound charge that its HTTP response shows. Bindings whose verdict is a type
/// of another language use it to write the same response.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CompoundResponse<'q> {
    /// What was decided.
    pub outcome: Outcome,
    /// The quotas of all tallies that were charged or read.
    pub quotas: &'q [NamedQuota<'q>],
    /// The time that waits are counted from: see [`Verdict::waits_from`].
    ///
    /// [`Verdict::waits_from`]: crate::Verdict::waits_from
    pub waits_from: Timestamp,
    /// Seconds until a retry can succeed; `None` unless the request was denied or a limiter is
    /// full.
    pub retry_after_s: Option<u32>,
}

impl<'q> CompoundResponse<'q> {
    /// The response of a compound charge with these values.
    pub const fn new(
        outcome: Outcome,
        quotas: &'q [NamedQuota<'q>],
        waits_from: Timestamp,
        retry_after_s: Option<u32>,
    ) -> Self {
        Self { outcome, quotas, waits_from, retry_after_s }
    }

    /// Returns the quota that the fields `X-RateLimit-*` describe: the longest window of at most a
    /// day, or the shortest if all are longer.
    pub fn described(&self) -> Option<&'q QuotaState> {
        let own = self.quotas.iter().filter(|quota| quota.is_own);
        QuotaState::described_among(own.map(|quota| &quota.state))
    }

    /// Returns the header fields of the response.
    pub fn headers(&self) -> Headers<MAX_COMPOUND_HEADERS_LEN> {
        Headers::written(|out| self.put_fields(out, &mut Lines::<false>))
    }

    /// Writes the header fields into `buffer`, each `Name: value` and CRLF, and returns their
    /// length in bytes. [`MAX_COMPOUND_HEADERS_LEN`] bytes are always enough.
    ///
    /// # Errors
    /// [`BufferTooSmall`] if they do not fit. Nothing is written then.
    pub fn write_headers(&self, buffer: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.headers().write_to(buffer)
    }

    /// Writes the values of the header fields into `buffer`, each ended by a NUL. Calls `report`
    /// with the name of each field and the range of its value in `buffer`.
    ///
    /// It is for servers whose API sets one field per call.
    pub fn write_fields(
        &self,
        buffer: &mut [u8; MAX_COMPOUND_HEADERS_LEN],
        report: impl FnMut(&'static CStr, Range<usize>),
    ) {
        self.put_fields(Writer(buffer), &mut Values::<_, MAX_COMPOUND_HEADERS_LEN>(report));
    }

    fn put_fields<'b>(&self, out: Writer<'b>, format: &mut impl FieldFormat) -> Writer<'b> {
        put_fields_of(
            out,
            format,
            self.outcome,
            self.described(),
            self.quotas,
            self.waits_from,
            self.retry_after_s,
        )
    }

    /// Returns the body as a problem document, `application/problem+json`, which names the quotas
    /// that lack room. It is empty if the request is admitted. RFC 9457.
    pub fn problem(&self) -> Text<MAX_COMPOUND_PROBLEM_LEN> {
        let mut out = Text::new();
        // The longest document fits, as a test shows.
        let _ = put_problem(&mut out, self.outcome, self.quotas, |quota| quota.cost);
        out
    }
}
