//! The answer as a plain struct, and the HTTP response that it makes.

use core::ffi::{CStr, c_char};
use core::ops::Range;

use keytally_core::MAX_QUOTAS;
use keytally_core::decide::waits_from;
use keytally_core::{
    Charge, Outcome as Decided, QuotaState, Quotas, Reason, Response, Timestamp, Verdict, Window,
};

use crate::clock::Time;
use crate::guard::{Outcome, guard};
use crate::pointers::{In, Number, Numbered, Out, Place};
use crate::status::kt_status;
use crate::text::put;

/// The most quotas of a policy.
pub const KT_MAX_QUOTAS: usize = 4;

/// Always enough for the header fields of a verdict, with the NUL.
pub const KT_HEADERS_SIZE: usize = 640;

/// Always enough for a problem document, with the NUL.
pub const KT_PROBLEM_SIZE: usize = 384;

/// The most header fields of a verdict.
pub const KT_MAX_FIELDS: usize = 6;

const _: () = {
    assert!(KT_MAX_QUOTAS == MAX_QUOTAS);
    assert!(KT_HEADERS_SIZE == keytally_core::MAX_HEADERS_LEN);
    assert!(KT_PROBLEM_SIZE == keytally_core::MAX_PROBLEM_LEN);
    assert!(KT_MAX_FIELDS == keytally_core::MAX_FIELDS);
};

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum kt_outcome {
    /// The request may go on; its cost is charged.
    KT_ADMITTED = 0,
    /// Some window lacks room; nothing is charged.
    KT_DENIED = 1,
    /// No key was presented.
    KT_MISSING_KEY = 2,
    /// The key is no good, for a `kt_reason` that the client isn't told.
    KT_INVALID_KEY = 3,
    /// The cost is above a limit and can never be admitted.
    KT_TOO_COSTLY = 4,
    /// A limiter has no slot for a new subject; nothing is charged.
    KT_FULL = 5,
}

/// Why a key is invalid: for logs and metrics, never for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum kt_reason {
    /// The key isn't invalid.
    KT_REASON_NONE = 0,
    /// The text has no form that a key of this gate could have.
    KT_REASON_MALFORMED = 1,
    /// The checksum of a well-formed key is wrong: a typo.
    KT_REASON_CHECKSUM = 2,
    /// No key of this gate has this key id.
    KT_REASON_UNKNOWN = 3,
    /// The key id exists and the secret is another.
    KT_REASON_WRONG_SECRET = 4,
    /// The key was revoked.
    KT_REASON_REVOKED = 5,
    /// The key, or the grace of its previous secret, ended.
    KT_REASON_EXPIRED = 6,
    /// The header was sent more than once.
    KT_REASON_DUPLICATE = 7,
    /// The key belongs to a pepper that this process wasn't given.
    KT_REASON_PEPPER_MISSING = 8,
    /// The key's record can't be read.
    KT_REASON_DAMAGED = 9,
}

impl Numbered for kt_outcome {
    type Number = u8;
}

impl Numbered for kt_reason {
    type Number = u8;
}

/// Units that were charged, and when: what `refund` and `settle` need to give back just those.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_charge {
    /// The time that the decision held for, in Unix milliseconds.
    pub at_ms: u64,
    /// The units; 0 when nothing was charged, so that refunding it does nothing.
    pub cost: u32,
}

/// One window of a verdict, after the decision.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct kt_quota {
    /// The most that one window admits.
    pub limit: u32,
    /// What is left, at most the limit.
    pub remaining: u32,
    /// The length of the window in seconds.
    pub window_s: u32,
    /// 1 when this window is why the request was denied, else 0.
    pub lacking: u8,
    /// 1 when what is counted now will still count in the window after this one, as in sliding windows, else 0.
    pub lasting: u8,
    /// When all that is counted now will be forgotten, in Unix seconds.
    pub reset_unix_s: u64,
}

/// The answer to a check: a plain struct without pointers, to be copied, stored and sent at will.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_verdict {
    /// What was decided.
    pub outcome: Number<kt_outcome>,
    /// Why the key is invalid: for logs and metrics, never for the client.
    pub reason: Number<kt_reason>,
    /// The HTTP status: 401, 429, 503, or 200 when admitted, which is the application's to replace.
    pub http_status: u16,
    /// Seconds to wait, at least 1; 0 unless denied or full.
    pub retry_after_s: u32,
    /// The key's public name; 0 when it isn't known whose key it was. Known once the secret was found right, also when
    /// the key turns out revoked or expired.
    pub key_id: u64,
    /// The team account that the key belongs to; says nothing when `key_id` is 0.
    pub account: u32,
    /// The number of the key's plan; `kt_gate_plan` tells its name.
    pub plan: u8,
    /// The number of the key's environment; `kt_gate_env` tells its name.
    pub env: u8,
    /// How many quotas there are; 0 when no tally was reached.
    pub quota_count: u8,
    /// What was charged; its cost is 0 unless admitted.
    pub charge: kt_charge,
    /// The caller's time, in Unix milliseconds: the last reading, if it was the system clock's.
    pub now_ms: u64,
    /// When a denied request is worth trying again, in Unix milliseconds; 0 unless denied or full.
    pub retry_at_ms: u64,
    /// What was asked for.
    pub cost: u32,
    /// What a `settle` found no room for; 0 in every other verdict.
    pub uncharged: u32,
    /// By how many seconds the tally was ahead of the caller, rounded up; 0 if it was not. More
    /// than 60 says that a clock, or an explicit time, was wrong. The next check by the system
    /// clock corrects the tally.
    pub clock_ahead_s: u32,
    /// The quotas, shortest window first; those from `quota_count` on are zeros.
    pub quotas: [kt_quota; KT_MAX_QUOTAS],
}

/// Fills in the quotas as C has them.
#[cfg_attr(target_pointer_width = "64", inline(always))]
#[cfg_attr(not(target_pointer_width = "64"), inline(never))]
pub(crate) fn fill_quotas(all: &mut [kt_quota; KT_MAX_QUOTAS], quotas: &Quotas) {
    for (place, quota) in all.iter_mut().enumerate() {
        *quota = match quotas.get(place) {
            Some(state) => kt_quota {
                limit: state.limit,
                remaining: state.remaining,
                window_s: state.window.seconds(),
                lacking: state.lacking.into(),
                lasting: state.lasting.into(),
                reset_unix_s: state.reset_unix_s,
            },
            None => kt_quota::default(),
        };
    }
}

impl Place<'_, kt_verdict> {
    /// Writes a verdict, field by field into its place: a copy of the whole would wait for all the stores before it, and
    /// that is most of what a call from C costs.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub(crate) fn put_verdict(self, verdict: &Verdict) {
        let out = self.slot();
        out.outcome = Number(verdict.outcome() as u8);
        out.reason = Number(verdict.reason().map_or(0, |reason| reason as u8));
        out.http_status = verdict.http_status();
        out.retry_after_s = verdict.retry_after_s().unwrap_or(0);
        (out.key_id, out.account, out.plan, out.env) = match verdict.holder() {
            Some(holder) => (holder.key_id.number(), holder.account, holder.plan, holder.env),
            None => (0, 0, 0, 0),
        };
        out.quota_count = u8::try_from(verdict.quotas().len()).unwrap_or(0);
        out.charge.at_ms = verdict.quotas().time().unix_ms();
        out.charge.cost = if verdict.is_admitted() { verdict.cost() } else { 0 };
        out.now_ms = verdict.now().unix_ms();
        out.retry_at_ms = verdict.retry_at().map_or(0, Timestamp::unix_ms);
        out.cost = verdict.cost();
        out.uncharged = verdict.uncharged();
        out.clock_ahead_s = verdict.clock_ahead_s();
        fill_quotas(&mut out.quotas, verdict.quotas());
    }
}

const _: () = {
    let mut number = 0;
    while number < Decided::ALL.len() {
        assert!(Decided::ALL[number] as usize == number);
        number += 1;
    }
    // The reason 0 is none.
    number = 0;
    while number < Reason::ALL.len() {
        assert!(Reason::ALL[number] as usize == number + 1);
        number += 1;
    }
};

impl kt_verdict {
    /// Asks what a response tells of the verdict; `None` when it is none.
    fn respond<R>(&self, respond: impl FnOnce(Response<'_>) -> R) -> Option<R> {
        const NONE: QuotaState =
            QuotaState::new(0, 0, Window::from_seconds(1).expect("a second is a window"), 0);
        let outcome = *Decided::ALL.get(usize::from(self.outcome.0))?;
        if usize::from(self.reason.0) > Reason::ALL.len() {
            return None;
        }
        let mut states = [NONE; KT_MAX_QUOTAS];
        let quotas = self.quotas.get(..usize::from(self.quota_count))?;
        for (state, quota) in states.iter_mut().zip(quotas) {
            let window = Window::from_seconds(quota.window_s)?;
            *state =
                QuotaState::new(quota.limit, quota.remaining.min(quota.limit), window, quota.reset_unix_s);
            state.lacking = quota.lacking != 0;
            state.lasting = quota.lasting != 0;
        }
        let [now, charged_at] = [self.now_ms, self.charge.at_ms].map(Timestamp::from_unix_ms);
        Some(respond(Response::new(
            outcome,
            states.get(..quotas.len())?,
            self.cost,
            waits_from(now, charged_at),
            Some(self.retry_after_s).filter(|&seconds| seconds != 0),
        )))
    }
}

impl kt_charge {
    pub(crate) fn charge(&self) -> Charge {
        Charge { cost: self.cost, at: Timestamp::from_unix_ms(self.at_ms) }
    }
}

fn respond<R>(verdict: In<'_, kt_verdict>, respond: impl FnOnce(Response<'_>) -> R) -> Outcome<R> {
    // A copy: the answer may be written anywhere.
    verdict.read()?.respond(respond).ok_or(kt_status::KT_NOT_A_VERDICT)
}

/// Writes the header fields of the response: each `Name: value` with CR LF, ended by a NUL; and their length without that.
/// Set them, don't append: there must be one of each.
///
/// Statuses: `KT_NOT_A_VERDICT`; `KT_BUFFER_TOO_SMALL`, and nothing was written: `KT_HEADERS_SIZE` bytes are always enough.
///
/// ```c
/// char headers[KT_HEADERS_SIZE];
/// size_t written;
/// if (kt_verdict_headers(&verdict, headers, sizeof headers, &written) == KT_OK) write_all(socket, headers, written);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_headers(
    verdict: In<kt_verdict>,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let bytes = buffer.buffer(buffer_len)?.bytes();
        let written = written_out.place()?;
        // In place where all of it is sure to fit, since a copy is a good part of the work; else with room for the NUL.
        let room = if buffer_len >= KT_HEADERS_SIZE { buffer_len } else { buffer_len.saturating_sub(1) };
        let (text, _) = bytes.split_at_mut(room);
        let len = respond(verdict, |response| response.write_headers(text))?
            .map_err(|_| kt_status::KT_BUFFER_TOO_SMALL)?;
        *bytes.get_mut(len).ok_or(kt_status::KT_BUFFER_TOO_SMALL)? = 0;
        written.write(len);
        Ok(())
    })
}

/// A header field of a response.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_field<'c> {
    /// Its name, ended by a NUL: always there.
    pub name: In<'static, c_char>,
    /// The name's length.
    pub name_len: usize,
    /// Its value, ended by a NUL: in the buffer that was given.
    pub value: In<'c, c_char>,
    /// The value's length.
    pub value_len: usize,
}

/// Gives the header fields of the response one by one, for servers that set them so; and how many there are. Their values are
/// written into `buffer`. Set them, don't append: there must be one of each.
///
/// Statuses: `KT_NOT_A_VERDICT`; `KT_BUFFER_TOO_SMALL` when the buffer has fewer than `KT_HEADERS_SIZE` bytes.
///
/// ```c
/// char buffer[KT_HEADERS_SIZE];
/// kt_field fields[KT_MAX_FIELDS];
/// size_t count;
/// if (kt_verdict_fields(&verdict, buffer, sizeof buffer, fields, &count) == KT_OK)
///     for (size_t i = 0; i < count; i++) set_header(response, fields[i].name, fields[i].value);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_fields<'c>(
    verdict: In<kt_verdict>,
    buffer: Out<'c, c_char>,
    buffer_len: usize,
    fields_out: Out<[kt_field<'c>; KT_MAX_FIELDS]>,
    count_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let texts = buffer.begin();
        let bytes = buffer.bytes().first_chunk_mut().ok_or(kt_status::KT_BUFFER_TOO_SMALL)?;
        let (fields, count) = (fields_out.place()?.slot(), count_out.place()?);
        let mut places = fields.iter_mut();
        let tell = |name: &'static CStr, value: Range<usize>| {
            if let Some(place) = places.next() {
                *place = kt_field {
                    name: In::of_static(name),
                    name_len: name.count_bytes(),
                    value: texts.after(value.start),
                    value_len: value.len(),
                };
            }
        };
        respond(verdict, |response| response.write_fields(bytes, tell))?;
        count.write(KT_MAX_FIELDS - places.len());
        Ok(())
    })
}

/// The response body, JSON, ended by a NUL; empty when admitted, and for a struct that is no verdict. It never tells why a
/// key is invalid. Never NULL; the text is always there and must not be freed.
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_body(verdict: In<kt_verdict>) -> In<'static, c_char> {
    let outcome = verdict.read().ok().and_then(|verdict| Decided::ALL.get(usize::from(verdict.outcome.0)));
    In::of_static(outcome.map_or(c"", |outcome| body(*outcome)))
}

/// The body with its NUL; a test compares it with the core's.
fn body(outcome: Decided) -> &'static CStr {
    match outcome {
        Decided::MissingKey => cr#"{"error": "Missing X-API-Key header"}"#,
        Decided::InvalidKey => cr#"{"error": "Invalid API key"}"#,
        Decided::Denied | Decided::TooCostly => {
            cr#"{"error": "Rate limit exceeded. Please try again later."}"#
        }
        Decided::Full => cr#"{"error": "Too many clients at once. Please try again later."}"#,
        // Admitted.
        _ => c"",
    }
}

/// Writes the body as a problem document (`application/problem+json`, RFC 9457), for clients that want to be told which
/// quota it was, ended by a NUL; and its length without that. Empty when admitted.
///
/// Statuses: `KT_NOT_A_VERDICT`; `KT_BUFFER_TOO_SMALL`, and nothing was written: `KT_PROBLEM_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_problem(
    verdict: In<kt_verdict>,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let written = written_out.place()?;
        put(buffer, written, respond(verdict, |response| response.problem())?.as_bytes())
    })
}

/// The verdict on a request whose key header came more than once: it is invalid, whatever the values are, since the next
/// server in the chain might pick another one. No gate needs to be asked.
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_duplicate_header(now_ms: u64, verdict_out: Out<kt_verdict>) -> kt_status {
    guard(|| {
        let place = verdict_out.place()?;
        place.put_verdict(&Verdict::duplicate_header(Time::new(now_ms)?.moment()));
        Ok(())
    })
}

/// A short word for logs and metric labels, such as `invalid_key`. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kt_outcome_name(outcome: Number<kt_outcome>) -> In<'static, c_char> {
    const NAMES: [&CStr; Decided::ALL.len()] =
        [c"admitted", c"denied", c"missing_key", c"invalid_key", c"too_costly", c"full"];
    In::of_static(NAMES.get(usize::from(outcome.0)).copied().unwrap_or(c"unknown"))
}

/// A short word for logs and metric labels, such as `wrong_secret`. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kt_reason_name(reason: Number<kt_reason>) -> In<'static, c_char> {
    const NAMES: [&CStr; 1 + Reason::ALL.len()] = [
        c"none",
        c"malformed",
        c"checksum",
        c"unknown",
        c"wrong_secret",
        c"revoked",
        c"expired",
        c"duplicate",
        c"pepper_missing",
        c"damaged",
    ];
    In::of_static(NAMES.get(usize::from(reason.0)).copied().unwrap_or(c"unknown"))
}
