//! The verdict as a plain struct, and the HTTP response that follows from it.

use core::ffi::{CStr, c_char};
use core::ops::Range;

use keytally_core::MAX_QUOTAS;
use keytally_core::decide::waits_from;
use keytally_core::{
    Charge, Feature, Outcome, QuotaState, Quotas, Reason, Response, Timestamp, Unavailability,
    Verdict, Window,
};

use crate::charge::kt_charge;
use crate::guard::guard;
use crate::pointers::{Buffer, In, Number, Numbered, Out, Target, Targets, plain};
use crate::status::{FfiResult, kt_status};
use crate::text::put;
use crate::time::Time;

/// The most quotas of a policy.
pub const KT_MAX_QUOTAS: usize = 4;

/// Bytes that are always enough for the header fields of a verdict, with the NUL.
pub const KT_HEADERS_SIZE: usize = 640;

/// Bytes that are always enough for a problem document, with the NUL.
pub const KT_PROBLEM_SIZE: usize = 384;

/// The most header fields of a verdict.
pub const KT_MAX_FIELDS: usize = 6;

/// The value of `calendar` in a quota whose window is a week.
pub const KT_WEEK: u8 = 32;

/// Quotas that the private part of a struct has room for.
const QUOTA_SLOTS: usize = 8;

/// 32-bit words for each quota: the limit, the remaining units, the window's number with two flags,
/// and the low half of the reset in Unix seconds.
///
/// A reset is at most two windows after the decision, so its low half and the time of the decision
/// determine it.
const QUOTA_WORDS: usize = 4;

/// The index of the first window's number and flags.
const FLAGS: usize = 2;

/// The flags of a window that lacks room, of one whose counts last into the next window, and of one
/// that the gate names to be described. A window's number has 28 bits.
const LACKING: u32 = 1 << 31;
const LASTING: u32 = 1 << 30;
const NAMED: u32 = 1 << 29;

/// The flag of a verdict that is admitted and has no charge, in addition to those of the first
/// window.
const NO_CHARGE: u32 = 1 << 28;

/// The flag of a charge for which no credits of a fleet were spent, with those of the second
/// window, and their position.
const UNRESERVED: u32 = 1 << 28;
const UNRESERVED_AT: usize = FLAGS + QUOTA_WORDS;

const _: () = {
    assert!(KT_MAX_QUOTAS == MAX_QUOTAS && MAX_QUOTAS <= QUOTA_SLOTS);
    assert!(KT_HEADERS_SIZE == keytally_core::MAX_HEADERS_LEN);
    assert!(KT_PROBLEM_SIZE == keytally_core::MAX_PROBLEM_LEN);
    assert!(KT_MAX_FIELDS == keytally_core::MAX_FIELDS);
    assert!(Window::WEEK.number() < NO_CHARGE);
    assert!(size_of::<kt_verdict>() == 256 && size_of::<kt_quota>() == 64);
};

/// Declares an enumeration of C and the names of its enumerators. The numbers ascend from 0.
macro_rules! mirrored {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $number:literal => $text:literal, )*
        }
    ) => {
        $(#[$meta])*
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $number, )*
        }

        impl Numbered for $name {
            type Number = u8;
        }

        impl $name {
            /// The names for logs and metric labels, by number.
            const NAMES: &[&CStr] = &[$( $text ),*];

            /// Returns the name; `unknown` for an unknown number.
            fn name(number: Number<Self>) -> &'static CStr {
                Self::NAMES.get(usize::from(number.0)).copied().unwrap_or(c"unknown")
            }
        }

        const _: () = {
            let mut index = 0;
            $( assert!($number == index); index += 1; )*
            assert!(index == $name::NAMES.len());
        };
    };
}

mirrored! {
    /// What was decided.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum kt_outcome {
        /// The request is admitted, and its cost is charged.
        KT_ADMITTED = 0 => c"admitted",
        /// Some window lacks room. Nothing is charged.
        KT_DENIED = 1 => c"denied",
        /// No key was presented.
        KT_MISSING_KEY = 2 => c"missing_key",
        /// The key is invalid; see `kt_reason`. Do not disclose the reason to the client.
        KT_INVALID_KEY = 3 => c"invalid_key",
        /// The cost is above a limit and can never be admitted.
        KT_TOO_COSTLY = 4 => c"too_costly",
        /// A limiter with `KT_ON_FULL_REFUSE` has no slot for a new subject. Nothing is charged.
        KT_FULL = 5 => c"full",
        /// The key does not have a scope that the request needs; nothing is charged.
        KT_FORBIDDEN = 6 => c"forbidden",
        /// The gate does not decide now; see `kt_unavailability`. Nothing is charged.
        KT_UNAVAILABLE = 7 => c"unavailable",
    }
}

mirrored! {
    /// Why a key is invalid. For logs and metrics only: do not disclose it to the client.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum kt_reason {
        /// The key is not invalid.
        KT_REASON_NONE = 0 => c"none",
        /// The text does not have this library's form, and cannot be an imported key: the gate has
        /// none, or the text has fewer than 16 or more than 256 bytes.
        KT_REASON_MALFORMED = 1 => c"malformed",
        /// The text has this library's form and a wrong checksum, as after a typing error. No
        /// imported key has this text.
        KT_REASON_CHECKSUM = 2 => c"checksum",
        /// No key of this gate has this key id. For a text without this library's form: the gate
        /// has imported keys, and none under a pepper of this process has this text.
        KT_REASON_UNKNOWN = 3 => c"unknown",
        /// The key id exists, and the secret is wrong.
        KT_REASON_WRONG_SECRET = 4 => c"wrong_secret",
        /// The key was revoked.
        KT_REASON_REVOKED = 5 => c"revoked",
        /// The key has expired, or its previous secret was sent after the grace of a rotation.
        KT_REASON_EXPIRED = 6 => c"expired",
        /// The request has the key header more than once.
        KT_REASON_DUPLICATE = 7 => c"duplicate",
        /// The key belongs to a pepper that this process was not given.
        KT_REASON_PEPPER_MISSING = 8 => c"pepper_missing",
        /// The key's record is damaged.
        KT_REASON_DAMAGED = 9 => c"damaged",
        /// The key's team is suspended.
        KT_REASON_SUSPENDED = 10 => c"suspended",
    }
}

mirrored! {
    /// Why a gate does not decide about a request now.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum kt_unavailability {
        /// The gate has decided.
        KT_UNAVAILABILITY_NONE = 0 => c"none",
        /// The key's counts are being moved to another file, which is not in force yet.
        KT_UNAVAILABILITY_MOVING = 1 => c"moving",
        /// The gate is in a fleet, and this process did not join it: see `kt_gate_join`.
        KT_UNAVAILABILITY_NOT_RESERVING = 2 => c"not_reserving",
        /// The store of the limits that machines share cannot be reached, and the operator of the
        /// agent chose to admit nothing then.
        KT_UNAVAILABILITY_LOST = 3 => c"lost",
        /// Credits were requested: check again after a millisecond. See `kt_patience`.
        KT_UNAVAILABILITY_WAITING = 4 => c"waiting",
    }
}

// The numbers are core's. For reasons, 0 stands for none.
const _: () = {
    assert!(kt_outcome::NAMES.len() == Outcome::ALL.len());
    let mut index = 0;
    while index < Outcome::ALL.len() {
        assert!(Outcome::ALL[index] as usize == index);
        index += 1;
    }
    assert!(kt_reason::NAMES.len() == 1 + Reason::ALL.len());
    index = 0;
    while index < Reason::ALL.len() {
        assert!(Reason::ALL[index] as usize == index + 1);
        index += 1;
    }
    assert!(kt_unavailability::NAMES.len() == 1 + Unavailability::ALL.len());
};

plain! {
    /// One window of a verdict or of a key, after the decision. This library writes it; reserved
    /// members are zeros.
    #[derive(Debug)]
    pub struct kt_quota {
        /// The most units that one window admits.
        pub limit: u32,
        /// The units that are left, at most the limit.
        pub remaining: u32,
        /// The length of the window in seconds; of a month that of the longest one, 31 days.
        pub window_s: u32,
        /// 1 if the request was denied because this window lacks room, else 0.
        pub lacking: u8,
        /// 1 if the units counted now still count in the next window, as in a sliding window, else
        /// 0.
        pub lasting: u8,
        /// 1 to 31 if the window is a month that begins on this day, `KT_WEEK` if it is a week that
        /// begins on Monday, else 0.
        pub calendar: u8,
        /// Zero.
        pub reserved_8_: u8,
        /// When all units counted now will be forgotten, in Unix seconds.
        pub reset_unix_s: u64,
        /// Zeros.
        pub reserved_: [u64; 5],
    }

    /// The answer to a check: a struct without pointers, which may be copied, stored and sent.
    ///
    /// Its size is fixed. This library writes it; reserved members are zeros. `kt_verdict_quota`
    /// returns its quotas.
    #[derive(Debug)]
    pub struct kt_verdict {
        /// What was decided.
        pub outcome: Number<kt_outcome>,
        /// Why the key is invalid. Do not disclose it to the client.
        pub reason: Number<kt_reason>,
        /// The HTTP status: 401, 403, 429, 503, or 200 if admitted, which the application may
        /// replace.
        pub http_status: u16,
        /// Seconds to wait, at least 1. 0 unless denied, full or unavailable.
        pub retry_after_s: u32,
        /// The key id. 0 if the holder is not known. It is known once the secret was found right,
        /// also if the key was revoked or has expired.
        pub key_id: u64,
        /// The account (team) that the key belongs to. Without meaning if `key_id` is 0.
        pub account: u32,
        /// The number of the key's plan; `kt_gate_plan` returns its name.
        pub plan: u8,
        /// The number of the key's environment; `kt_gate_env` returns its name.
        pub env: u8,
        /// The number of quotas. 0 if the check reached no tally.
        pub quota_count: u8,
        /// 1 if a limiter had no slot for the subject and charged it to an overflow tally, which it
        /// shares with others, or denied it for lack of room there. Else 0. See `kt_on_full`.
        pub is_shared: u8,
        /// The time that the decision holds for, in Unix milliseconds.
        pub at_ms: u64,
        /// The caller's time in Unix milliseconds: the explicit time, or the last reading of the
        /// system clock.
        pub now_ms: u64,
        /// When to try a denied request again, in Unix milliseconds. 0 unless denied or full.
        pub retry_at_ms: u64,
        /// The cost of the request.
        pub cost: u32,
        /// The units that were charged, for `kt_verdict_charge`. 0 unless a check was admitted, so
        /// also after a peek. 0 also after a `kt_gate_check` of a gate that is not plain: the
        /// verdict has no charge then, see `kt_gate_check_request`.
        pub charged: u32,
        /// The units that a `settle` found no room for. 0 in every other verdict.
        pub uncharged: u32,
        /// By how many seconds the tally was ahead of the caller, rounded up; 0 if it was not. More
        /// than 60 means that a clock, or an explicit time, was wrong. The next check by the system
        /// clock corrects the tally.
        pub clock_ahead_s: u32,
        /// The quotas in a form of this library: see `kt_verdict_quota`.
        pub private_: [u32; 32],
        /// 1 if the counts are those of units that the machines of a fleet share, 0 if the tally of
        /// this machine decided. See `kt_gate_join`.
        pub is_leased: u8,
        /// Why the outcome is `KT_UNAVAILABLE`.
        pub unavailability: Number<kt_unavailability>,
        /// Zeros.
        pub reserved_1_: [u8; 6],
        /// Zeros.
        pub reserved_: [u64; 7],
    }
}

const _: () = assert!(QUOTA_SLOTS * QUOTA_WORDS == 32);

/// Writes quotas in the form of the private part, which the caller has filled with zeros.
#[cfg_attr(target_pointer_width = "64", inline(always))]
#[cfg_attr(not(target_pointer_width = "64"), inline(never))]
pub(crate) fn put_quotas(words: &mut [u32; QUOTA_SLOTS * QUOTA_WORDS], quotas: &Quotas) {
    let (slots, _) = words.as_chunks_mut::<QUOTA_WORDS>();
    for (index, slot) in slots.iter_mut().enumerate().take(MAX_QUOTAS) {
        let Some(state) = quotas.get(index) else { break };
        let lacking = if state.lacking { LACKING } else { 0 };
        let lasting = if state.lasting { LASTING } else { 0 };
        let named = if Feature::Sections.is_included() && state.named { NAMED } else { 0 };
        let window = state.window.number() | lacking | lasting | named;
        *slot = [state.limit, state.remaining, window, low_half(state.reset_unix_s)];
    }
}

/// Returns the member `calendar` of a quota with this window.
fn calendar(window: Window) -> u8 {
    match window.month_day() {
        Some(day) => u8::try_from(day).unwrap_or(0),
        None if window == Window::WEEK => KT_WEEK,
        None => 0,
    }
}

/// Returns the low 32 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the high half is not wanted")]
fn low_half(number: u64) -> u32 {
    number as u32
}

/// Reads the quota at `index` from the private part of a struct that has `count` quotas, decided at
/// `at_ms`.
///
/// # Errors
/// `KT_NO_SUCH_QUOTA` if `index` is not below `count`. `KT_NOT_A_VERDICT` if this library did not
/// write the words.
pub(crate) fn quota_state(
    words: &[u32; QUOTA_SLOTS * QUOTA_WORDS],
    count: u8,
    index: usize,
    at_ms: u64,
) -> FfiResult<QuotaState> {
    if index >= usize::from(count) {
        return Err(kt_status::KT_NO_SUCH_QUOTA);
    }
    let (slots, _) = words.as_chunks::<QUOTA_WORDS>();
    let &[limit, remaining, window, reset_low] =
        slots.get(index).ok_or(kt_status::KT_NOT_A_VERDICT)?;
    let length = Window::from_number(window & !(LACKING | LASTING | NAMED | NO_CHARGE))
        .ok_or(kt_status::KT_NOT_A_VERDICT)?;
    let at_s = at_ms / 1000;
    let reset_unix_s = at_s + u64::from(reset_low.wrapping_sub(low_half(at_s)));
    let mut state = QuotaState::new(limit, remaining.min(limit), length, reset_unix_s);
    state.lacking = window & LACKING != 0;
    state.lasting = window & LASTING != 0;
    state.named = window & NAMED != 0;
    Ok(state)
}

impl Target<'_, kt_quota> {
    /// Writes the state of a quota.
    pub(crate) fn put_quota(mut self, state: &QuotaState) {
        let out = self.zeroed();
        out.limit = state.limit;
        out.remaining = state.remaining;
        out.window_s = state.window.seconds();
        out.calendar = calendar(state.window);
        out.lacking = state.lacking.into();
        out.lasting = state.lasting.into();
        out.reset_unix_s = state.reset_unix_s;
    }
}

impl Target<'_, kt_verdict> {
    /// Writes a verdict member by member. A copy of the whole struct would wait for all the stores
    /// that made it, which is most of the time that a call from C takes. Returns its outcome.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub(crate) fn put_verdict(&mut self, verdict: &Verdict) -> Outcome {
        self.zeroed().fill(verdict);
        verdict.outcome()
    }
}

impl kt_verdict {
    /// Fills in the members of a verdict that is zeros.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub(crate) fn fill(&mut self, verdict: &Verdict) {
        self.outcome = Number(verdict.outcome() as u8);
        self.reason = Number(verdict.reason().map_or(0, |reason| reason as u8));
        self.http_status = verdict.http_status();
        if let Some(retry_at) = verdict.retry_at() {
            self.retry_at_ms = retry_at.unix_ms();
            self.retry_after_s = verdict.retry_after_s().unwrap_or(0);
            // A verdict without a time for a retry is none of an unavailable gate.
            let why = verdict.unavailability();
            self.unavailability = Number(why.map_or(0, |why| why as u8));
        }
        if let Some(holder) = verdict.holder() {
            self.key_id = holder.key_id.number();
            (self.account, self.plan, self.env) = (holder.account, holder.plan, holder.env);
        }
        self.quota_count = u8::try_from(verdict.quotas().len()).unwrap_or(0);
        self.at_ms = verdict.quotas().time().unix_ms();
        self.is_shared = verdict.is_shared().into();
        self.is_leased = verdict.is_leased().into();
        let is_charged = verdict.charge().is_some();
        self.charged = if is_charged { verdict.cost() } else { 0 };
        self.now_ms = verdict.now().unix_ms();
        self.cost = verdict.cost();
        self.uncharged = verdict.uncharged();
        if verdict.quotas().time() > verdict.now() {
            self.clock_ahead_s = verdict.clock_ahead_s();
        }
        put_quotas(&mut self.private_, verdict.quotas());
        if verdict.is_admitted() && !is_charged {
            self.private_[FLAGS] |= NO_CHARGE;
        }
        if verdict.is_unreserved() {
            self.private_[UNRESERVED_AT] |= UNRESERVED;
        }
    }

    pub(crate) fn outcome(&self) -> FfiResult<Outcome> {
        let outcome = Outcome::ALL.get(usize::from(self.outcome.0));
        outcome.copied().ok_or(kt_status::KT_NOT_A_VERDICT)
    }

    /// Checks that the reason is one.
    pub(crate) fn expect_reason(&self) -> FfiResult {
        let name = kt_reason::NAMES.get(usize::from(self.reason.0));
        name.map(drop).ok_or(kt_status::KT_NOT_A_VERDICT)
    }

    pub(crate) fn quota(&self, index: usize) -> FfiResult<QuotaState> {
        quota_state(&self.private_, self.quota_count, index, self.at_ms)
    }

    /// Returns the HTTP response, with the states of the quotas in `states`, which is empty.
    fn response<'q>(
        &self,
        states: &'q mut heapless::Vec<QuotaState, KT_MAX_QUOTAS>,
    ) -> FfiResult<Response<'q>> {
        let damaged = kt_status::KT_NOT_A_VERDICT;
        let outcome = self.outcome()?;
        self.expect_reason()?;
        for index in 0..usize::from(self.quota_count) {
            states.push(self.quota(index)?).map_err(|_| damaged)?;
        }
        Ok(Response::new(outcome, states, self.cost, self.waits_from(), self.retry_after()?))
    }

    /// Returns the time that waits are counted from.
    pub(crate) fn waits_from(&self) -> Timestamp {
        let [now, decided_at] = [self.now_ms, self.at_ms].map(Timestamp::from_unix_ms);
        waits_from(now, decided_at)
    }

    /// Returns the seconds until a retry can succeed, `None` if they are 0. Only a denial, a full
    /// limiter and an unavailable gate have them.
    pub(crate) fn retry_after(&self) -> FfiResult<Option<u32>> {
        match (self.retry_after_s, self.outcome()?) {
            (0, _) => Ok(None),
            (seconds, Outcome::Denied | Outcome::Full | Outcome::Unavailable) => Ok(Some(seconds)),
            _ => Err(kt_status::KT_NOT_A_VERDICT),
        }
    }
}

/// Writes the quota at `index` of a verdict, from 0 for the shortest window to `quota_count - 1`.
///
/// Statuses: `KT_NO_SUCH_QUOTA`, `KT_NOT_A_VERDICT`.
///
/// ```c
/// kt_quota quota;
/// for (size_t i = 0; kt_verdict_quota(&verdict, i, &quota) == KT_OK; i++)
///     printf("%u of %u\n", (unsigned)quota.remaining, (unsigned)quota.limit);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_quota(
    verdict: In<kt_verdict>,
    index: usize,
    quota_out: Out<kt_quota>,
) -> kt_status {
    guard(|| {
        let target = quota_out.target()?;
        target.put_quota(&verdict.get()?.quota(index)?);
        Ok(())
    })
}

/// Writes what the check charged, for a later refund or settlement. If the check was not admitted,
/// the cost of the charge is 0, and a refund of it does nothing.
///
/// An admitted verdict of `kt_gate_check` has no charge if the gate is not plain (see
/// `kt_gate_size`): call `kt_gate_check_request` and `kt_compound_charge` for such a gate. That of
/// a peek, a refund, a settlement or a reset has none either.
///
/// Statuses: `KT_NOT_A_VERDICT`. `KT_NOT_A_CHARGE` if the verdict is admitted and has no charge.
///
/// ```c
/// kt_charge charge;
/// if (kt_verdict_charge(&verdict, &charge) == KT_OK)
///     kt_gate_refund(gate, verdict.key_id, &charge, KT_SYSTEM_CLOCK, &verdict);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_charge(
    verdict: In<kt_verdict>,
    charge_out: Out<kt_charge>,
) -> kt_status {
    guard(|| {
        let target = charge_out.target()?;
        let verdict = verdict.get()?;
        if verdict.outcome()? == Outcome::Admitted && verdict.private_[FLAGS] & NO_CHARGE != 0 {
            return Err(kt_status::KT_NOT_A_CHARGE);
        }
        let make = match (verdict.is_shared, verdict.private_[UNRESERVED_AT] & UNRESERVED) {
            (0, 0) => Charge::new,
            (0, _) => Charge::unreserved,
            _ => Charge::shared,
        };
        target.put_charge(make(verdict.charged, Timestamp::from_unix_ms(verdict.at_ms)));
        Ok(())
    })
}

/// Writes the header fields of the response, each `Name: value` with CR LF, and a NUL. Writes their
/// length without the NUL to `written_out`.
///
/// Set these fields instead of appending them: a response must have each only once.
///
/// Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written; `KT_HEADERS_SIZE`
/// bytes are always enough.
///
/// ```c
/// char headers[KT_HEADERS_SIZE];
/// size_t written;
/// if (kt_verdict_headers(&verdict, headers, sizeof headers, &written) == KT_OK)
///     write_all(socket, headers, written);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_headers(
    verdict: In<kt_verdict>,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let mut buffer = buffer.buffer(buffer_len)?;
        let written = written_out.target()?;
        let mut states = heapless::Vec::new();
        let response = verdict.get()?.response(&mut states)?;
        // Into the buffer itself if all fields are sure to fit: a copy is a large part of the work.
        let Some(bytes) = buffer.unwritten::<KT_HEADERS_SIZE>() else {
            return put(buffer, written, response.headers().as_bytes());
        };
        let len = response.write_headers(bytes).map_err(|_| kt_status::KT_BUFFER_TOO_SMALL)?;
        *bytes.get_mut(len).ok_or(kt_status::KT_BUFFER_TOO_SMALL)? = 0;
        written.write(len);
        Ok(())
    })
}

plain! {
    /// A header field of a response.
    #[derive(Debug)]
    pub struct kt_field<'c> {
        /// The name, with a NUL. The text is static.
        pub name: In<'static, c_char>,
        /// The name's length.
        pub name_len: usize,
        /// The value, with a NUL. It lies in the `buffer` of the call.
        pub value: In<'c, c_char>,
        /// The value's length.
        pub value_len: usize,
    }
}

/// Writes the header fields of the response one by one, for servers that set each field by a call.
/// Writes their number to `count_out`.
///
/// `buffer` receives the values, and `fields_out` receives one element for each field. Set these
/// fields instead of appending them: a response must have each only once.
///
/// Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written; `KT_HEADERS_SIZE`
/// bytes and `KT_MAX_FIELDS` elements are always enough.
///
/// ```c
/// char buffer[KT_HEADERS_SIZE];
/// kt_field fields[KT_MAX_FIELDS];
/// size_t count;
/// if (kt_verdict_fields(&verdict, buffer, sizeof buffer, fields, KT_MAX_FIELDS, &count) == KT_OK)
///     for (size_t i = 0; i < count; i++)
///         set_header(response, fields[i].name, fields[i].value);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_fields<'c>(
    verdict: In<kt_verdict>,
    buffer: Out<'c, c_char>,
    buffer_len: usize,
    fields_out: Out<kt_field<'c>>,
    fields_len: usize,
    count_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let (fields, count) = (fields_out.targets(fields_len)?, count_out.target()?);
        let mut states = heapless::Vec::new();
        let response = verdict.get()?.response(&mut states)?;
        put_fields(buffer, fields, count, |values: &mut [u8; KT_HEADERS_SIZE], report| {
            response.write_fields(values, report);
        })
    })
}

/// Writes header fields one by one, and their number. `write` puts the values into an array and
/// reports the name of each field and the range of its value.
pub(crate) fn put_fields<'c, const SIZE: usize>(
    mut buffer: Buffer<'c>,
    mut fields: Targets<'_, kt_field<'c>>,
    count_target: Target<'_, usize>,
    write: impl FnOnce(&mut [u8; SIZE], &mut dyn FnMut(&'static CStr, Range<usize>)),
) -> FfiResult {
    let begin = buffer.begin();
    let field = |name: &'static CStr, value: Range<usize>| kt_field {
        name: In::from_static(name),
        name_len: name.count_bytes(),
        value: begin.after(value.start),
        value_len: value.len(),
    };
    let mut count = 0;
    if fields.len() >= KT_MAX_FIELDS
        && let Some(bytes) = buffer.unwritten()
    {
        write(bytes, &mut |name, value| {
            fields.write(count, field(name, value));
            count += 1;
        });
    } else {
        // Room for a program that was compiled with smaller constants. What does not fit must not
        // be written, so the fields are written here first.
        let (mut values, mut end) = ([0; SIZE], 0);
        let mut found = [None; KT_MAX_FIELDS];
        write(&mut values, &mut |name, value: Range<usize>| {
            end = value.end + 1;
            if let Some(slot) = found.get_mut(count) {
                *slot = Some(field(name, value));
            }
            count += 1;
        });
        let values = values.get(..end).filter(|_| count <= fields.len());
        buffer.copy(values.ok_or(kt_status::KT_BUFFER_TOO_SMALL)?)?;
        for (index, field) in found.into_iter().flatten().enumerate() {
            fields.write(index, field);
        }
    }
    count_target.write(count);
    Ok(())
}

/// Returns the response body, JSON with a NUL. It is empty if admitted, and for a struct that is
/// not a verdict. It does not disclose why a key is invalid.
///
/// Never NULL. The text is static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_body(verdict: In<kt_verdict>) -> In<'static, c_char> {
    In::from_static(verdict.get().and_then(kt_verdict::outcome).map_or(c"", body))
}

/// Returns core's body with a NUL.
pub(crate) fn body(outcome: Outcome) -> &'static CStr {
    match outcome {
        Outcome::MissingKey => cr#"{"error": "Missing X-API-Key header"}"#,
        Outcome::InvalidKey => cr#"{"error": "Invalid API key"}"#,
        Outcome::Denied | Outcome::TooCostly => {
            cr#"{"error": "Rate limit exceeded. Please try again later."}"#
        }
        Outcome::Full => cr#"{"error": "Too many clients at once. Please try again later."}"#,
        Outcome::Forbidden => cr#"{"error": "Forbidden"}"#,
        Outcome::Unavailable => cr#"{"error": "Service unavailable. Please try again later."}"#,
        // Admitted.
        _ => c"",
    }
}

/// Writes the body as a problem document (`application/problem+json`, RFC 9457), with a NUL. It
/// names the violated quotas. Writes the length without the NUL to `written_out`. Empty if
/// admitted.
///
/// Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written; `KT_PROBLEM_SIZE`
/// bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_problem(
    verdict: In<kt_verdict>,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let written = written_out.target()?;
        let mut states = heapless::Vec::new();
        let response = verdict.get()?.response(&mut states)?;
        put(buffer, written, response.problem().as_bytes())
    })
}

/// Writes the verdict on a request that has the key header more than once. Such a request is
/// invalid, whatever the values are, because another server in the chain might read another one.
/// No gate is needed.
///
/// Statuses: `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_verdict_duplicate_header(
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let mut target = verdict_out.target()?;
        target.put_verdict(&Verdict::duplicate_header(Time::new(now_ms)?.moment()));
        Ok(())
    })
}

/// Returns a short word for logs and metric labels, such as `invalid_key`; `unknown` for an unknown
/// number. Never NULL. The text is static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn kt_outcome_name(outcome: Number<kt_outcome>) -> In<'static, c_char> {
    In::from_static(kt_outcome::name(outcome))
}

/// Returns a short word for logs and metric labels, such as `wrong_secret`; `unknown` for an
/// unknown number. Never NULL. The text is static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn kt_reason_name(reason: Number<kt_reason>) -> In<'static, c_char> {
    In::from_static(kt_reason::name(reason))
}

/// Returns a short word for logs and metric labels, such as `waiting`; `unknown` for an unknown
/// number. Never NULL. The text is static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn kt_unavailability_name(
    unavailability: Number<kt_unavailability>,
) -> In<'static, c_char> {
    In::from_static(kt_unavailability::name(unavailability))
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;

    #[test]
    fn reset_beyond_32_bits_is_restored() {
        // The decision is 10 s before the low half of Unix seconds wraps, and the reset 50 s after.
        let at_s = (1 << 32) - 10;
        let reset_unix_s = at_s + 60;
        let mut words = [0; QUOTA_SLOTS * QUOTA_WORDS];
        words[..QUOTA_WORDS].copy_from_slice(&[5, 3, 60, low_half(reset_unix_s)]);
        let state = quota_state(&words, 1, 0, at_s * 1000).unwrap();
        assert_eq!(state.reset_unix_s, reset_unix_s);
    }

    #[test]
    fn names_and_bodies_are_those_of_core() {
        for outcome in Outcome::ALL {
            assert_eq!(kt_outcome::NAMES[*outcome as usize].to_str(), Ok(outcome.as_str()));
            assert_eq!(body(*outcome).to_str(), Ok(outcome.body()));
        }
        assert_eq!(kt_reason::NAMES[0], c"none");
        for reason in Reason::ALL {
            assert_eq!(kt_reason::NAMES[*reason as usize].to_str(), Ok(reason.as_str()));
        }
        assert_eq!(kt_unavailability::NAMES[0], c"none");
        for why in Unavailability::ALL {
            assert_eq!(kt_unavailability::NAMES[*why as usize].to_str(), Ok(why.as_str()));
        }
    }
}
