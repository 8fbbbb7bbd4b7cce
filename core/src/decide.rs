//! The decision: a pure function of a layout, limits, a word, a time and a cost, which returns an
//! outcome and the next word.
//!
//! A *tally* is one key's counts in one 64-bit word. Its *stamp* is the time of its last change, in
//! units of the shortest window. Tables load the word, decide, and exchange the word for the next
//! one by compare-exchange. If [`next`](Decision::next) is the word itself, nothing is written, so
//! denials are read-only.
//!
//! Two rules about time hold for all decisions:
//! - If the time is before the tally's stamp, by any amount, the decision is made for the stamp's
//!   time. No decision moves a stamp back. A late clock, or a caller that was stopped after it read
//!   its clock, therefore never opens a window again.
//! - Windows that have passed do not count.
//!
//! If a clock ran ahead, the stamps that it set are ahead of the correct time. A *correction* moves
//! such a stamp back. It is not a decision: it charges nothing and keeps the counts. It needs
//! evidence that the stamp is wrong. The evidence is a reading of the system clock that was taken
//! after the tally was loaded and is earlier than the stamp by more than [`TOLERANCE_MS`]. An
//! explicit time is not evidence, since the caller may have been stopped after it read its clock.
//!
//! # What a wrong clock costs
//! A window is an interval of the times of decisions ([`TallyCharge::at`]). A wrong clock can make
//! a window of a tally admit its limit a second time, which this list calls an extra window:
//! - Late clocks, stale readings, and explicit times that disagree cost none. In a limiter, they
//!   cost one each time that a caller who is more than 1 s late finds its subject's slot reused.
//! - So a system clock that is set back by more than 1 s costs one, for each such step and each
//!   subject of a limiter whose slot was reused within the repeated time.
//! - A system clock that ran more than 60 s ahead and is set right, or that is set back by more
//!   than 60 s, costs one when the tally is corrected. Each check that read the clock before the
//!   step and charges after the correction costs one more.
//! - A thread can be stopped between the reading and the compare-exchange of a correction, for at
//!   least as long as the stamp was ahead. It costs one more if the tally holds the same word again
//!   when the thread continues.
//! - Outside the guarantee are system clocks that stay more than 60 s apart. So are explicit times
//!   more than 60 s ahead, if they are mixed with a system clock. Both cost one each time that they
//!   take turns.
//!
//! In real time, an interval of length `s` can use all windows that an interval of length `s + d`
//! meets, if the times of the callers differ by up to `d`.

use crate::charge::TallyCharge;
use crate::outcome::Outcome;
use crate::quota::{Algorithm, Limits, MAX_QUOTAS};
use crate::quotas::Quotas;
use crate::tally::{Layout, PackedLimits};
#[doc(inline)]
pub use crate::time::TOLERANCE_MS;
use crate::time::{Clock, Timestamp};
use crate::window::Window;

/// An outcome and the next word, small enough for two registers. [`quotas`] computes the state of
/// each window from the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The next word of the tally; the word that was decided on if nothing changes.
    pub next: u64,
    /// The units that [`settle`] could not charge; 0 in every other decision.
    pub uncharged: u32,
    /// [`Outcome::Admitted`], [`Outcome::Denied`] or [`Outcome::TooCostly`]; of a gate's tally also
    /// [`Outcome::Unavailable`].
    pub outcome: Outcome,
}

impl Decision {
    #[inline]
    fn new(outcome: Outcome, next: u64) -> Self {
        Self { next, uncharged: 0, outcome }
    }

    /// The decision on a word that was sealed, which nothing changes.
    pub(crate) fn unavailable(word: u64) -> Self {
        Self::new(Outcome::Unavailable, word)
    }

    /// The decision to admit a request and to write this word.
    #[inline]
    pub(crate) fn admitted(next: u64) -> Self {
        Self::new(Outcome::Admitted, next)
    }

    /// Returns whether some window lacked room, so that a decision for a later time may differ.
    #[inline]
    pub(crate) fn lacks_room(self) -> bool {
        self.outcome == Outcome::Denied || self.uncharged > 0
    }
}

/// Charges `cost` to every window if all have room for it, else to none.
///
/// A cost of 0 is always admitted and writes nothing. A cost above a limit can never fit, so the
/// outcome is [`Outcome::TooCostly`].
///
/// ```
/// use keytally_core::{decide, Outcome, Policy, Timestamp};
/// let policy: Policy = "2/minute, 3/hour".parse()?;
/// let (layout, limits) = (policy.layout(), policy.limits());
/// let now = Timestamp::from_unix_s(1_700_000_000);
/// let first = decide::check(layout, &limits, 0, now, 2);
/// assert_eq!(first.outcome, Outcome::Admitted);
/// let second = decide::check(layout, &limits, first.next, now, 1);
/// assert_eq!(second.outcome, Outcome::Denied);
/// assert_eq!(second.next, first.next);
/// # Ok::<(), keytally_core::ParsePolicyError>(())
/// ```
#[cfg_attr(target_pointer_width = "64", inline(always))]
#[cfg_attr(not(target_pointer_width = "64"), inline)]
pub fn check(layout: &Layout, limits: &Limits, word: u64, now: Timestamp, cost: u32) -> Decision {
    let tally = TallyAt::new(layout, limits, word, now);
    let outcome = tally.admits(cost);
    if outcome == Outcome::Admitted && cost > 0 {
        Decision::new(outcome, layout.charged(tally.word, cost))
    } else {
        Decision::new(outcome, word)
    }
}

/// Returns the decision of [`check`] if `now` is within the unit that the tally's stamp names and
/// every window may admit `cost`. That is nearly always so. `packed` must hold the same limits.
#[cfg_attr(target_pointer_width = "64", inline(always))]
pub(crate) fn check_within(
    layout: &Layout,
    limits: impl FnOnce() -> Limits,
    packed: &PackedLimits,
    word: u64,
    now: Timestamp,
    cost: u32,
) -> Option<Decision> {
    if !layout.is_within(word, now) || !packed.may_admit(cost) {
        return None;
    }
    let charge = layout.charge(cost);
    let has_room = match layout.algorithm() {
        Algorithm::Fixed => packed.have_room(word, charge),
        Algorithm::Sliding => cost <= sliding_room(layout, &limits(), word, now.unix_ms()),
    };
    Some(if has_room {
        // It overflows only if the packed limits in a file are damaged.
        Decision::new(Outcome::Admitted, word.checked_add(charge)?)
    } else {
        Decision::new(Outcome::Denied, word)
    })
}

/// Returns the outcome that [`check`] would have, and charges nothing.
pub fn peek(layout: &Layout, limits: &Limits, word: u64, now: Timestamp, cost: u32) -> Decision {
    Decision::new(TallyAt::new(layout, limits, word, now).admits(cost), word)
}

/// Subtracts the units of `charge` from the windows in which they were charged and still count.
///
/// If a window has passed since, the present one is unchanged, because the units were not spent in
/// it. The caller must refund each charge at most once. A count never goes below 0.
pub fn refund(
    layout: &Layout,
    limits: &Limits,
    word: u64,
    now: Timestamp,
    charge: TallyCharge,
) -> Decision {
    refund_in(layout, limits, word, now, charge, |_| true)
}

/// Returns the units of a charge as [`refund`] does, only to those windows for which `has` returns
/// true.
#[inline]
pub(crate) fn refund_in(
    layout: &Layout,
    limits: &Limits,
    word: u64,
    now: Timestamp,
    charge: TallyCharge,
    has: impl Fn(Window) -> bool,
) -> Decision {
    let mut tally = TallyAt::new(layout, limits, word, now);
    let next = if tally.give_back(charge, has) { tally.word } else { word };
    Decision::new(Outcome::Admitted, next)
}

/// Replaces an estimate by the actual cost: refunds the difference, or charges as much of it as
/// every window has room for now.
///
/// The estimate is what a check charged. [`Decision::uncharged`] is the remainder.
pub fn settle(
    layout: &Layout,
    limits: &Limits,
    word: u64,
    now: Timestamp,
    estimate: TallyCharge,
    actual: u32,
) -> Decision {
    if actual <= estimate.cost {
        let rest = TallyCharge { cost: estimate.cost - actual, at: estimate.at };
        return refund(layout, limits, word, now, rest);
    }
    let tally = TallyAt::new(layout, limits, word, now);
    tally.charge_within(tally.room(), actual - estimate.cost, word)
}

/// Charges `extra` units although windows may lack room for them, as far as the counts can hold
/// them. [`Decision::uncharged`] is the remainder.
pub fn overdraw(layout: &Layout, word: u64, now: Timestamp, extra: u32) -> Decision {
    // No limit is above the largest value of its count.
    let limits = Limits([u32::MAX; MAX_QUOTAS]);
    let tally = TallyAt::new(layout, &limits, word, now);
    let counts = layout.counts();
    let left =
        |index| counts.limit(&limits, index).saturating_sub(counts.current(tally.word, index));
    let room = (0..layout.len()).map(left).fold(u32::MAX, u32::min);
    tally.charge_within(room, extra, word)
}

/// Returns how many of `cost` units some window lacks room for, as [`Decision::uncharged`]. Charges
/// nothing.
pub(crate) fn lacking(
    layout: &Layout,
    limits: &Limits,
    word: u64,
    now: Timestamp,
    cost: u32,
) -> Decision {
    let room = TallyAt::new(layout, limits, word, now).room();
    Decision { next: word, uncharged: cost.saturating_sub(room), outcome: Outcome::Admitted }
}

/// Sets all counts to 0. The stamp does not move back, so a late clock cannot restore them.
pub fn reset(layout: &Layout, limits: &Limits, word: u64, now: Timestamp) -> Decision {
    let tally = TallyAt::new(layout, limits, word, now);
    Decision::new(Outcome::Admitted, layout.unused(layout.stamp(tally.word)))
}

/// Returns the state of each window of a tally at the time `now`. For the next word of a
/// [`Decision`], it is the state after the decision.
#[cfg_attr(target_pointer_width = "64", inline)]
pub fn quotas(layout: &Layout, limits: &Limits, word: u64, now: Timestamp) -> Quotas {
    quotas_at(layout, limits, word, now, layout.is_within(word, now))
}

/// Returns what [`quotas`] returns. `is_within` is whether the unit of the word's stamp contains
/// `now` ([`Layout::is_within`]).
#[cfg_attr(target_pointer_width = "64", inline)]
pub(crate) fn quotas_at(
    layout: &Layout,
    limits: &Limits,
    word: u64,
    now: Timestamp,
    is_within: bool,
) -> Quotas {
    let (word, time_ms) = if is_within { (word, now.unix_ms()) } else { roll(layout, word, now) };
    Quotas::new(layout.counts(), limits, word, Timestamp::from_unix_ms(time_ms))
}

/// Returns the time that waits are counted from. `now` is the caller's time, and `at` is the time
/// that the decision was made for. See [`Verdict::waits_from`](crate::Verdict::waits_from).
#[inline]
pub fn waits_from(now: Timestamp, at: Timestamp) -> Timestamp {
    if at <= now || at.unix_ms() - now.unix_ms() > TOLERANCE_MS { now } else { at }
}

/// Returns the word with its stamp moved back to `reading` and the same counts, if the stamp is
/// ahead of `reading` by more than [`TOLERANCE_MS`]. Otherwise returns the word itself.
///
/// `reading` must come from a correct clock that was read after the word was loaded: see
/// [What a wrong clock costs](self#what-a-wrong-clock-costs).
pub fn correct(layout: &Layout, word: u64, reading: Timestamp) -> u64 {
    if is_wrong(layout, word, reading) {
        layout.with_stamp(word, layout.stamp_at(reading))
    } else {
        word
    }
}

/// Returns the corrected word; `None` if `word` needs no correction, is a reservation, or the time
/// is explicit.
///
/// The caller must have loaded `word` before this call. If the tally is ahead of `now`, the clock
/// is read again and `now` moves forward to that reading.
#[inline]
pub(crate) fn correction<C: Clock>(
    layout: &Layout,
    word: u64,
    now: &mut Timestamp,
    clock: C,
) -> Option<u64> {
    if !C::IS_SYSTEM || layout.ahead_ms(word, *now) == 0 || layout.is_reservation(word) {
        return None;
    }
    *now = clock.at_least(*now);
    Some(correct(layout, word, *now)).filter(|&corrected| corrected != word)
}

/// Returns whether `decision`, made for the first reading of `clock`, stands. If it lacked room, a
/// system clock must be read again.
#[inline]
pub(crate) fn is_final<C: Clock>(decision: Decision, _clock: C) -> bool {
    !(C::IS_SYSTEM && decision.lacks_room())
}

/// Returns whether `decision` must be made again, because it lacked room at an old reading of a
/// system clock. Then `now` moves forward to a reading that is later than the old one.
///
/// A system clock is read again only if the decision lacked room. The tally must have been loaded
/// before this call.
#[inline]
pub(crate) fn is_outdated(decision: Decision, now: &mut Timestamp, clock: impl Clock) -> bool {
    if !decision.lacks_room() {
        return false;
    }
    let first = *now;
    *now = clock.at_least(first);
    *now > first
}

/// Returns whether the stamp of `word` comes from a wrong clock. `now` must come from a correct
/// clock that was read after the word was loaded.
pub(crate) fn is_wrong(layout: &Layout, word: u64, now: Timestamp) -> bool {
    layout.ahead_ms(word, now) > TOLERANCE_MS
}

/// A tally at a moment, as a decision reads it: its counts in the windows of that moment, and the
/// room that they leave.
struct TallyAt<'l> {
    layout: &'l Layout,
    limits: &'l Limits,
    /// The tally, with its stamp and counts moved to that moment ([`Layout::rolled`]).
    word: u64,
    /// The moment in Unix milliseconds, within the unit that the word's stamp names.
    time_ms: u64,
}

impl<'l> TallyAt<'l> {
    #[cfg_attr(target_pointer_width = "64", inline)]
    fn new(layout: &'l Layout, limits: &'l Limits, word: u64, now: Timestamp) -> Self {
        // For most checks, the tally was charged before in the present unit.
        let (word, time_ms) = if layout.is_within(word, now) {
            (word, now.unix_ms())
        } else {
            roll(layout, word, now)
        };
        Self { layout, limits, word, time_ms }
    }

    /// Returns the limit of the window at `index`, or the largest value of its count if that is
    /// less.
    #[cfg_attr(target_pointer_width = "64", inline)]
    fn limit(&self, index: usize) -> u32 {
        self.layout.counts().limit(self.limits, index)
    }

    /// Returns the units left in the window at `index`: its limit less the units that count against
    /// it.
    #[cfg_attr(target_pointer_width = "64", inline)]
    fn remaining(&self, index: usize) -> u32 {
        self.limit(index).saturating_sub(self.layout.used(self.word, index, self.time_ms))
    }

    /// Returns the largest cost for which every window has room.
    #[cfg_attr(target_pointer_width = "64", inline)]
    fn room(&self) -> u32 {
        match self.layout.algorithm() {
            Algorithm::Fixed => {
                let mut room = u32::MAX;
                for index in 0..self.layout.len() {
                    let current = self.layout.counts().current(self.word, index);
                    room = room.min(self.limit(index).saturating_sub(current));
                }
                room
            }
            Algorithm::Sliding => sliding_room(self.layout, self.limits, self.word, self.time_ms),
        }
    }

    /// Charges as much of `extra` as `room` allows. If that is nothing, `word` stays as it is.
    fn charge_within(&self, room: u32, extra: u32, word: u64) -> Decision {
        let charged = extra.min(room);
        let next = if charged == 0 { word } else { self.layout.charged(self.word, charged) };
        Decision { next, uncharged: extra - charged, outcome: Outcome::Admitted }
    }

    /// Returns the outcome of a request of this cost.
    #[cfg_attr(target_pointer_width = "64", inline)]
    fn admits(&self, cost: u32) -> Outcome {
        if cost <= self.room() {
            Outcome::Admitted
        } else {
            refusal(self.layout, self.limits, cost)
        }
    }

    /// Subtracts the units of `charge` from the counts that hold them, of the windows for which
    /// `has` returns true, and returns whether any count changed.
    #[inline]
    fn give_back(&mut self, charge: TallyCharge, has: impl Fn(Window) -> bool) -> bool {
        let layout = self.layout;
        let (now, charged) = (layout.stamp(self.word), layout.stamp_at(charge.at));
        let before = self.word;
        let windows = layout.windows().iter();
        for (index, _) in windows.enumerate().filter(|&(_, &window)| has(window)) {
            let previous = match layout
                .window_index(index, now)
                .checked_sub(layout.window_index(index, charged))
            {
                Some(0) => false,
                Some(1) => true,
                _ => continue,
            };
            let counts = layout.counts();
            let count = if previous {
                counts.previous(before, index)
            } else {
                counts.current(before, index)
            };
            if count > 0 {
                self.word = layout.given_back(self.word, index, previous, charge.cost.min(count));
            }
        }
        self.word != before
    }
}

/// Returns the largest cost for which every window of a sliding layout has room.
#[inline(never)]
fn sliding_room(layout: &Layout, limits: &Limits, word: u64, time_ms: u64) -> u32 {
    let tally = TallyAt { layout, limits, word, time_ms };
    (0..layout.len()).fold(u32::MAX, |least, index| least.min(tally.remaining(index)))
}

/// Returns the outcome of a request for which some window lacks room.
#[inline(never)]
fn refusal(layout: &Layout, limits: &Limits, cost: u32) -> Outcome {
    let too_costly = (0..layout.len()).any(|index| cost > layout.counts().limit(limits, index));
    if too_costly { Outcome::TooCostly } else { Outcome::Denied }
}

/// Returns the tally at the later of `now` and the start of its stamp's unit, and that moment in
/// Unix milliseconds.
#[inline(never)]
fn roll(layout: &Layout, word: u64, now: Timestamp) -> (u64, u64) {
    let present = layout.stamp_at(now);
    let held = layout.stamp(word);
    let mut time_ms = now.unix_ms();
    if present == layout.last_stamp() {
        time_ms = time_ms.min(layout.stamp_start_ms(present + 1) - 1);
    }
    if held <= present {
        (layout.rolled(word, present), time_ms)
    } else {
        (word, layout.stamp_start_ms(held))
    }
}

#[cfg(test)]
mod tests;
