//! The facts of a verdict as numbers, and the texts of the response that are built from them.
//!
//! A verdict on one tally is a few numbers, which `lib/verdict.js` copies. Most requests need no
//! more of it. The header fields and the body are built from these numbers when they are read.

use keytally::{
    KeyId, MAX_QUOTAS, Outcome, QuotaState, Reason, Response, Timestamp, Unavailability, Verdict,
    Window,
};
use napi_derive::napi;

use crate::errors::{Result, error};
use crate::values::Numbers;

/// The positions of the facts, as in `lib/facts.js`.
const OUTCOME: usize = 0;
/// The number of the reason; 0 without one.
const REASON: usize = 1;
/// The sum of [`CHARGED`], [`SHARED`], [`LEASED`], [`UNRESERVED`], and the number of the
/// unavailability times [`UNAVAILABILITY`].
const FLAGS: usize = 2;
/// -1 without a retry.
const RETRY_AFTER_S: usize = 3;
const WAITS_FROM_MS: usize = 4;
const CLOCK_AHEAD_S: usize = 5;
const COST: usize = 6;
/// The time of the decision.
const AT_MS: usize = 7;
const UNCHARGED: usize = 8;
/// -1 without a holder.
const ACCOUNT: usize = 9;
const KEY_ID_HIGH: usize = 10;
const KEY_ID_LOW: usize = 11;
const PLAN: usize = 12;
const ENV: usize = 13;
/// The number of the file that the gate had: see [`crate::gate`].
const GENERATION: usize = 14;
/// The index of the quota that `X-RateLimit-*` describe.
const DESCRIBED: usize = 15;
const QUOTAS: usize = 16;
/// The facts before the quotas.
pub(crate) const HEAD: usize = 17;

/// The positions of the facts of a quota.
const LIMIT: usize = 0;
const REMAINING: usize = 1;
const RESET_S: usize = 2;
/// The number of the window.
const WINDOW: usize = 3;
/// The sum of [`LACKING`], [`LASTING`] and [`NAMED`].
const QUOTA_FLAGS: usize = 4;
/// The facts of each quota.
pub(crate) const QUOTA_LEN: usize = 5;

/// The facts of a verdict with as many quotas as there may be.
pub(crate) const MAX: usize = HEAD + QUOTA_LEN * MAX_QUOTAS;

const CHARGED: u8 = 1;
const SHARED: u8 = 2;
const LEASED: u8 = 4;
const UNRESERVED: u8 = 8;
const UNAVAILABILITY: u8 = 16;
const LACKING: u8 = 1;
const LASTING: u8 = 2;
const NAMED: u8 = 4;

/// Writes the facts of a verdict, and returns the number of its quotas.
#[inline]
pub(crate) fn write(verdict: &Verdict, generation: u32, numbers: &mut [f64]) -> u32 {
    let Some(facts) = numbers.first_chunk_mut::<MAX>() else { return 0 };
    let quotas = verdict.quotas();
    facts[OUTCOME] = f64::from(verdict.outcome() as u8);
    facts[REASON] = verdict.reason().map_or(0.0, |reason| f64::from(reason as u8));
    facts[FLAGS] = f64::from(flags_of(verdict, verdict.is_charged()));
    facts[RETRY_AFTER_S] = verdict.retry_after_s().map_or(-1.0, f64::from);
    facts[WAITS_FROM_MS] = milliseconds(verdict.waits_from());
    facts[CLOCK_AHEAD_S] = f64::from(verdict.clock_ahead_s());
    facts[COST] = f64::from(verdict.cost());
    facts[AT_MS] = milliseconds(quotas.time());
    facts[UNCHARGED] = f64::from(verdict.uncharged());
    match verdict.holder() {
        Some(holder) => {
            let number = holder.key_id.number();
            facts[ACCOUNT] = f64::from(holder.account);
            facts[KEY_ID_HIGH] = f64::from(half(number >> 32));
            facts[KEY_ID_LOW] = f64::from(half(number));
            facts[PLAN] = f64::from(holder.plan);
            facts[ENV] = f64::from(holder.env);
        }
        None => facts[ACCOUNT] = -1.0,
    }
    facts[GENERATION] = f64::from(generation);
    let described = quotas.described().map(|state| state.window);
    let (mut count, mut described_at) = (0, 0);
    let (blocks, _) = facts[HEAD..].as_chunks_mut::<QUOTA_LEN>();
    for (block, state) in blocks.iter_mut().zip(quotas.iter()) {
        write_quota(&state, block);
        if Some(state.window) == described {
            described_at = count;
        }
        count += 1;
    }
    facts[DESCRIBED] = f64::from(described_at);
    facts[QUOTAS] = f64::from(count);
    count
}

/// Returns the lower half of a number.
#[expect(clippy::cast_possible_truncation, reason = "the other half is a fact of its own")]
const fn half(number: u64) -> u32 {
    number as u32
}

#[inline]
pub(crate) fn write_quota(state: &QuotaState, facts: &mut [f64; QUOTA_LEN]) {
    facts[LIMIT] = f64::from(state.limit);
    facts[REMAINING] = f64::from(state.remaining);
    facts[RESET_S] = milliseconds(Timestamp::from_unix_ms(state.reset_unix_s));
    facts[WINDOW] = f64::from(state.window.number());
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    let flags =
        flag(state.lacking, LACKING) | flag(state.lasting, LASTING) | flag(state.named, NAMED);
    facts[QUOTA_FLAGS] = f64::from(flags);
}

/// Returns the facts of a verdict, and of quotas that are not one tally's.
pub(crate) fn quotas(states: impl Iterator<Item = QuotaState>) -> Vec<f64> {
    let mut facts = Vec::new();
    for state in states {
        let mut block = [0.0; QUOTA_LEN];
        write_quota(&state, &mut block);
        facts.extend(block);
    }
    facts
}

/// Returns the facts of a verdict as a list.
pub(crate) fn list(verdict: &Verdict) -> Vec<f64> {
    let mut facts = vec![0.0; MAX];
    let len = write_tally(verdict, 0, verdict.is_charged(), &mut facts);
    facts.truncate(len);
    facts
}

/// Writes the facts of a verdict on one of several tallies, and returns how many these are.
/// `is_charged` replaces whether the verdict has a charge.
pub(crate) fn write_tally(
    verdict: &Verdict,
    generation: u32,
    is_charged: bool,
    numbers: &mut [f64],
) -> usize {
    let count = write(verdict, generation, numbers);
    if let Some(flags) = numbers.get_mut(FLAGS) {
        *flags = f64::from(flags_of(verdict, is_charged));
    }
    HEAD + QUOTA_LEN * usize::try_from(count).unwrap_or_default()
}

/// Returns the flags of a verdict. `is_charged` is whether it has a charge.
pub(crate) fn flags_of(verdict: &Verdict, is_charged: bool) -> u8 {
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    let why = verdict.unavailability().map_or(0, |why| why as u8);
    flag(is_charged, CHARGED)
        | flag(verdict.is_shared(), SHARED)
        | flag(verdict.is_leased(), LEASED)
        | flag(verdict.is_unreserved(), UNRESERVED)
        | (why * UNAVAILABILITY)
}

/// Returns a whole number of 0 to 4294967295.
pub(crate) fn whole(number: f64) -> Option<u32> {
    let is_whole = (0.0..=f64::from(u32::MAX)).contains(&number) && number.trunc() == number;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is whole and in range"
    )]
    is_whole.then_some(number as u32)
}

/// Returns a number of milliseconds as JavaScript has it. Those above 2^53 are rounded.
#[expect(clippy::cast_precision_loss, reason = "no clock shows such times")]
pub(crate) fn milliseconds(time: Timestamp) -> f64 {
    time.unix_ms() as f64
}

/// Returns a number of milliseconds or seconds; rounded, and 0 if it is negative.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, which is the nearest time"
)]
pub(crate) fn time(number: f64) -> u64 {
    number.round() as u64
}

/// The states of quotas that facts have.
pub(crate) struct States {
    outcome: Outcome,
    states: [QuotaState; MAX_QUOTAS],
    count: usize,
    pub(crate) cost: u32,
    waits_from: Timestamp,
    retry_after_s: Option<u32>,
}

impl States {
    /// Returns the states; `None` if the numbers are not the facts of a verdict.
    fn parse(facts: &[f64]) -> Option<Self> {
        let (states, rest) = Self::parse_first(facts)?;
        rest.is_empty().then_some(states)
    }

    /// Returns the states at the beginning of numbers, and the numbers after them.
    pub(crate) fn parse_first(facts: &[f64]) -> Option<(Self, &[f64])> {
        let (head, rest) = facts.split_first_chunk::<HEAD>()?;
        let count = usize::try_from(whole(head[QUOTAS])?).ok()?;
        if count > MAX_QUOTAS {
            return None;
        }
        let (blocks, rest) = rest.split_at_checked(QUOTA_LEN * count)?;
        let (blocks, _) = blocks.as_chunks::<QUOTA_LEN>();
        let outcome = Outcome::ALL.get(usize::try_from(whole(head[OUTCOME])?).ok()?)?;
        let unused = QuotaState::new(0, 0, Window::from_number(1)?, 0);
        let mut states = [unused; MAX_QUOTAS];
        for (state, block) in states.iter_mut().zip(blocks) {
            let window = Window::from_number(whole(block[WINDOW])?)?;
            let (limit, remaining) = (whole(block[LIMIT])?, whole(block[REMAINING])?);
            *state = QuotaState::new(limit, remaining, window, time(block[RESET_S]));
            let flags = whole(block[QUOTA_FLAGS])?;
            state.lacking = flags & u32::from(LACKING) != 0;
            state.lasting = flags & u32::from(LASTING) != 0;
            state.named = flags & u32::from(NAMED) != 0;
        }
        let states = Self {
            outcome: *outcome,
            states,
            count,
            cost: whole(head[COST])?,
            waits_from: Timestamp::from_unix_ms(time(head[WAITS_FROM_MS])),
            retry_after_s: match head[RETRY_AFTER_S] {
                -1.0 => None,
                seconds => Some(whole(seconds)?),
            },
        };
        Some((states, rest))
    }

    /// Returns the states, shortest window first.
    pub(crate) fn list(&self) -> &[QuotaState] {
        self.states.get(..self.count).unwrap_or_default()
    }

    fn response(&self) -> Response<'_> {
        Response::new(self.outcome, self.list(), self.cost, self.waits_from, self.retry_after_s)
    }
}

/// Returns what `work` makes of the response of a verdict with these facts.
fn respond<T>(mut facts: Numbers, work: impl FnOnce(&Response<'_>) -> T) -> Result<T> {
    let states = States::parse(facts.as_mut())
        .ok_or_else(|| error("TypeError", "the numbers are not the facts of a verdict"))?;
    Ok(work(&states.response()))
}

/// Returns the header fields as lines that end with CR LF.
#[napi(catch_unwind)]
pub(crate) fn headers_of(facts: Numbers) -> Result<String> {
    respond(facts, |response| response.headers().as_str().to_owned())
}

/// Returns the problem document.
#[napi(catch_unwind)]
pub(crate) fn problem_of(facts: Numbers) -> Result<String> {
    respond(facts, |response| response.problem().to_string())
}

/// Returns the body of an outcome.
#[napi(catch_unwind)]
pub(crate) fn body_of(outcome: u32) -> String {
    let outcome = usize::try_from(outcome).ok().and_then(|number| Outcome::ALL.get(number));
    outcome.map(|outcome| outcome.body()).unwrap_or_default().to_owned()
}

/// What the numbers of the facts mean.
#[napi(object)]
pub(crate) struct Meanings {
    pub outcomes: Vec<String>,
    pub statuses: Vec<u16>,
    pub reasons: Vec<String>,
    pub unavailabilities: Vec<String>,
}

/// Returns what the numbers of the facts mean.
#[napi(catch_unwind)]
pub(crate) fn meanings() -> Meanings {
    Meanings {
        outcomes: Outcome::ALL.iter().map(|outcome| outcome.as_str().to_owned()).collect(),
        statuses: Outcome::ALL.iter().map(|outcome| outcome.http_status()).collect(),
        reasons: Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect(),
        unavailabilities: Unavailability::ALL.iter().map(|why| why.as_str().to_owned()).collect(),
    }
}

/// The name of a window, and its length in seconds.
#[napi(object)]
pub(crate) struct NamedWindow {
    pub name: String,
    pub seconds: u32,
}

/// Returns the window with a number.
#[napi(catch_unwind)]
pub(crate) fn window_of(number: u32) -> Option<NamedWindow> {
    let window = Window::from_number(number)?;
    Some(NamedWindow { name: window.to_string(), seconds: window.seconds() })
}

/// Returns the text of the key id whose number has these halves.
#[napi(catch_unwind)]
pub(crate) fn key_id_of(high: u32, low: u32) -> Option<String> {
    KeyId::from_number(u64::from(high) << 32 | u64::from(low)).map(|key_id| key_id.to_string())
}
