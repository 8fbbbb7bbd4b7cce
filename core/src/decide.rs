//! The decision: a layout, limits, a word, a time and a cost give an outcome and the next word. Nothing else.
//!
//! Every function here is pure. Tables only load a word, ask, and compare-exchange the answer in; a decision whose
//! [`next`](Decision::next) is the word itself is not written at all, so denials are read-only.
//!
//! Three rules about time hold for all of them:
//! - A time before the tally's stamp, by at most the longest window or a minute, whichever is longer, is taken as the
//!   tally's own: a clock that runs late or goes back never opens a window again.
//! - A stamp further ahead than that can only come from a clock that was wrong. The counts are kept, and the present
//!   stamp is taken, so a table heals at once instead of denying until that future comes. This alone is written even
//!   when the request is denied.
//! - Windows that have passed count nothing.

use crate::policy::{Algorithm, Limits, MAX_QUOTAS};
use crate::tally::Layout;
use crate::time::Timestamp;
use crate::verdict::{Outcome, Quotas};

/// An answer, and the word that makes it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// [`Outcome::Admitted`], [`Outcome::Denied`] or [`Outcome::TooCostly`].
    pub outcome: Outcome,
    /// What the tally becomes; the same word when nothing changes.
    pub next: u64,
    /// Each window afterwards.
    pub quotas: Quotas,
    /// When a denied request would be admitted if nobody else spent the room. `None` unless denied.
    pub retry_at: Option<Timestamp>,
    /// What [`settle`] could not charge; 0 from everything else.
    pub uncharged: u32,
}

impl Decision {
    /// The time that the decision holds for: the caller's, or the tally's own when the caller's is late.
    pub fn time(&self) -> Timestamp {
        self.quotas.time
    }
}

/// Units that were charged, and when: what [`refund`] and [`settle`] need to give back just those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The units charged.
    pub cost: u32,
    /// The time that the decision which charged them held for, [`Decision::time`].
    pub at: Timestamp,
}

/// Charges `cost` to every window if all have room for it, else to none.
///
/// A cost of 0 is always admitted and writes nothing. A cost above a limit can never fit: [`Outcome::TooCostly`].
///
/// ```
/// use keytally::{decide, Outcome, Policy, Timestamp};
/// let policy: Policy = "2/minute, 3/hour".parse()?;
/// let (layout, limits) = (policy.layout(), policy.limits());
/// let now = Timestamp::from_unix_s(1_700_000_000);
/// let first = decide::check(layout, limits, 0, now, 2);
/// assert_eq!(first.outcome, Outcome::Admitted);
/// let second = decide::check(layout, limits, first.next, now, 1);
/// assert_eq!(second.outcome, Outcome::Denied);
/// assert_eq!(second.next, first.next);
/// # Ok::<(), keytally::PolicyError>(())
/// ```
#[inline]
pub fn check(layout: &Layout, limits: Limits, word: u64, now: Timestamp, cost: u32) -> Decision {
    let mut reading = Reading::of(layout, limits, word, now);
    let outcome = reading.admits(cost);
    if outcome == Outcome::Admitted && cost > 0 {
        reading.charge(cost);
        reading.decision(outcome, reading.word, cost)
    } else {
        reading.decision(outcome, reading.unchanged(word), cost)
    }
}

/// What [`check`] would answer, without the charge.
pub fn peek(layout: &Layout, limits: Limits, word: u64, now: Timestamp, cost: u32) -> Decision {
    let reading = Reading::of(layout, limits, word, now);
    reading.decision(reading.admits(cost), word, cost)
}

/// Gives back the units of `charge` to the windows that they were charged in and that still count them.
///
/// A window that has passed since gets nothing: the units were never spent in the one that runs now. The caller
/// refunds what it charged, once; a count never goes below 0.
pub fn refund(layout: &Layout, limits: Limits, word: u64, now: Timestamp, charge: Charge) -> Decision {
    let mut reading = Reading::of(layout, limits, word, now);
    let next = if reading.give_back(charge) { reading.word } else { reading.unchanged(word) };
    reading.decision(Outcome::Admitted, next, 0)
}

/// Replaces an estimate that was charged by the actual cost: refunds the difference, or charges it as far as every
/// window has room now. What found no room is [`Decision::uncharged`].
pub fn settle(
    layout: &Layout,
    limits: Limits,
    word: u64,
    now: Timestamp,
    estimate: Charge,
    actual: u32,
) -> Decision {
    if actual <= estimate.cost {
        let rest = Charge { cost: estimate.cost - actual, at: estimate.at };
        return refund(layout, limits, word, now, rest);
    }
    let mut reading = Reading::of(layout, limits, word, now);
    let extra = actual - estimate.cost;
    let room = reading.remaining.iter().take(layout.len()).min().copied().unwrap_or(0);
    let charged = extra.min(room);
    reading.charge(charged);
    let next = if charged == 0 { reading.unchanged(word) } else { reading.word };
    let mut decision = reading.decision(Outcome::Admitted, next, 0);
    decision.uncharged = extra - charged;
    decision
}

/// Forgets all counts. The stamp stays, so a late clock can't bring them back.
pub fn reset(layout: &Layout, limits: Limits, word: u64, now: Timestamp) -> Decision {
    let mut reading = Reading::of(layout, limits, word, now);
    reading.word = layout.unused(layout.stamp(reading.word));
    reading.remaining = Reading::measure(layout, &reading.limits, reading.word, reading.time_ms);
    reading.decision(Outcome::Admitted, reading.word, 0)
}

/// The word that a tally should have had if no clock had been wrong; the same word unless its stamp lies ahead of
/// `now` by more than clocks may disagree.
pub(crate) fn heal(layout: &Layout, word: u64, now: Timestamp) -> u64 {
    let asked = layout.stamp_at(now);
    if layout.stamp(word) <= asked + layout.tolerance() {
        return word;
    }
    layout.with_stamp(word, asked)
}

/// What a tally says at a moment: its counts in the windows that run then, and what they leave.
struct Reading<'l> {
    layout: &'l Layout,
    limits: Limits,
    /// The tally, brought to that moment.
    word: u64,
    /// The moment itself, in Unix milliseconds: within the unit that the word's stamp names.
    time_ms: u64,
    /// Whether the tally's stamp came from a wrong clock and was replaced.
    healed: bool,
    remaining: [u32; MAX_QUOTAS],
}

impl<'l> Reading<'l> {
    #[inline]
    fn of(layout: &'l Layout, limits: Limits, word: u64, now: Timestamp) -> Self {
        let asked = layout.stamp_at(now);
        let held = layout.stamp(word);
        let (mut brought, mut time_ms, mut healed) = (word, now.unix_ms(), false);
        if asked == layout.last_stamp() {
            time_ms = time_ms.min(layout.stamp_start_ms(asked + 1) - 1);
        }
        if held < asked {
            brought = layout.rolled(word, asked);
        } else if held > asked {
            healed = held - asked > layout.tolerance();
            if healed {
                brought = layout.with_stamp(word, asked);
            } else {
                time_ms = layout.stamp_start_ms(held);
            }
        }
        let limits = layout.clamp(limits);
        let remaining = Self::measure(layout, &limits, brought, time_ms);
        Self { layout, limits, word: brought, time_ms, healed, remaining }
    }

    /// The next word when nothing was charged: the word itself, but with the present stamp if its own came from a
    /// wrong clock. Left as it is, that stamp would be taken for a present one as soon as the time comes near it.
    #[inline]
    fn unchanged(&self, word: u64) -> u64 {
        if self.healed { self.word } else { word }
    }

    /// What the counts leave: the limit less the units that count against it.
    #[inline]
    fn measure(layout: &Layout, limits: &Limits, word: u64, time_ms: u64) -> [u32; MAX_QUOTAS] {
        let mut remaining = [0; MAX_QUOTAS];
        for (place, remaining) in remaining.iter_mut().enumerate().take(layout.len()) {
            let current = layout.current(word, place);
            let used = match layout.previous(word, place) {
                0 => current,
                previous => current.saturating_add(overlapping(layout, place, word, time_ms, previous)),
            };
            *remaining = limits.0[place].saturating_sub(used);
        }
        remaining
    }

    #[inline]
    fn window_start_ms(&self, place: usize) -> u64 {
        window_start_ms(self.layout, place, self.word)
    }

    /// Whether every window has room for `cost`.
    #[inline]
    fn admits(&self, cost: u32) -> Outcome {
        let places = 0..self.layout.len();
        if places.clone().all(|place| cost <= self.remaining[place]) {
            Outcome::Admitted
        } else if places.clone().any(|place| cost > self.limits.0[place]) {
            Outcome::TooCostly
        } else {
            Outcome::Denied
        }
    }

    /// Adds `cost` to every window, which has been found to have room for it.
    #[inline]
    fn charge(&mut self, cost: u32) {
        self.word = self.layout.charged(self.word, cost);
        for remaining in &mut self.remaining[..self.layout.len()] {
            *remaining -= cost;
        }
    }

    /// Takes the units of `charge` out of the counts that hold them, and tells whether any did.
    fn give_back(&mut self, charge: Charge) -> bool {
        let layout = self.layout;
        let (now, charged) = (layout.stamp(self.word), layout.stamp_at(charge.at));
        let before = self.word;
        for place in 0..layout.len() {
            let previous =
                match layout.window_index(place, now).checked_sub(layout.window_index(place, charged)) {
                    Some(0) => false,
                    Some(1) => true,
                    _ => continue,
                };
            let count = if previous { layout.previous(before, place) } else { layout.current(before, place) };
            if count > 0 {
                self.word = layout.given_back(self.word, place, previous, charge.cost.min(count));
            }
        }
        self.remaining = Self::measure(layout, &self.limits, self.word, self.time_ms);
        self.word != before
    }

    /// The earliest moment, in Unix milliseconds, at which the window at `place` has room for `cost` if nothing more
    /// is spent; the present when it has room now. `cost` is at most the limit.
    fn room_at_ms(&self, place: usize, cost: u32) -> u64 {
        if cost <= self.remaining[place] {
            return self.time_ms;
        }
        let length = self.layout.windows()[place].ms();
        let start = self.window_start_ms(place);
        // How long into a window until `count` units of the window before weigh at most `room`:
        // ceil(count·(L − e) / L) ≤ room holds from e = L − floor(room·L / count) on.
        let fades = |count: u64, room: u64| length.saturating_sub(room * length / count.max(1));
        match self.layout.algorithm() {
            Algorithm::Fixed => start + length,
            Algorithm::Sliding => {
                let limit = u64::from(self.limits.0[place]);
                let current = u64::from(self.layout.current(self.word, place));
                match limit.checked_sub(current + u64::from(cost)) {
                    Some(room) => start + fades(u64::from(self.layout.previous(self.word, place)), room),
                    None => start + length + fades(current, limit - u64::from(cost)),
                }
            }
        }
    }

    #[inline]
    fn decision(&self, outcome: Outcome, next: u64, cost: u32) -> Decision {
        let layout = self.layout;
        let mut quotas = Quotas {
            windows: layout.all_windows(),
            limits: self.limits.0,
            remaining: self.remaining,
            len: layout.len_u8(),
            lacking: 0,
            lasting: 0,
            time: Timestamp::from_unix_ms(self.time_ms),
        };
        if layout.algorithm() == Algorithm::Sliding {
            for place in 0..layout.len() {
                quotas.lasting |= u8::from(layout.current(self.word, place) > 0) << place;
            }
        }
        let mut retry_at = None;
        if outcome == Outcome::Denied {
            for place in 0..layout.len() {
                quotas.lacking |= u8::from(cost > self.remaining[place]) << place;
            }
            retry_at = self.retry_at(cost);
        }
        Decision { outcome, next, quotas, retry_at, uncharged: 0 }
    }

    /// When every window will have room for `cost`: it is the last of them that counts, since none of the others
    /// has less room then than before.
    #[cold]
    fn retry_at(&self, cost: u32) -> Option<Timestamp> {
        let rooms = (0..self.layout.len()).map(|place| self.room_at_ms(place, cost));
        rooms.max().map(Timestamp::from_unix_ms)
    }
}

/// The part of the previous window's count that still overlaps the last full window length. Rounded up, so that a
/// fraction never admits more.
///
/// A count has at most 32 bits and a window at most 2^31.4 milliseconds, so the product fits; and the weighted count is
/// at most the count.
fn overlapping(layout: &Layout, place: usize, word: u64, time_ms: u64, previous: u32) -> u32 {
    let length = layout.windows()[place].ms();
    let overlap = length - (time_ms - window_start_ms(layout, place, word));
    u32::try_from((u64::from(previous) * overlap).div_ceil(length)).unwrap_or(previous)
}

/// When the window at `place` began that the word's stamp lies in, in Unix milliseconds.
fn window_start_ms(layout: &Layout, place: usize, word: u64) -> u64 {
    layout.window_index(place, layout.stamp(word)) * layout.windows()[place].ms()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    const NOON: u64 = 1_700_049_600_000;

    fn ms(after_noon: u64) -> Timestamp {
        Timestamp::from_unix_ms(NOON + after_noon)
    }

    /// Checks one unit `times` times at `now` and gives the last decision.
    fn spend(policy: &Policy, mut word: u64, now: Timestamp, times: u32) -> Decision {
        let mut last = peek(policy.layout(), policy.limits(), word, now, 1);
        for _ in 0..times {
            last = check(policy.layout(), policy.limits(), word, now, 1);
            word = last.next;
        }
        last
    }

    #[test]
    fn the_hundred_and_first_of_a_minute_waits_for_the_next() {
        let policy: Policy = "100/minute, 1000/hour".parse().unwrap();
        let last = spend(&policy, 0, ms(1500), 100);
        assert_eq!(last.outcome, Outcome::Admitted);
        assert_eq!(last.quotas.longest().map(|quota| quota.remaining), Some(900));
        let denied = spend(&policy, last.next, ms(1500), 1);
        assert_eq!(denied.outcome, Outcome::Denied);
        assert_eq!(denied.next, last.next);
        assert_eq!(denied.retry_at, Some(ms(60_000)));
        assert_eq!(spend(&policy, last.next, ms(59_999), 1).outcome, Outcome::Denied);
        assert_eq!(spend(&policy, last.next, ms(60_000), 1).outcome, Outcome::Admitted);
    }

    #[test]
    fn a_sliding_window_fades_and_never_doubles() {
        let policy: Policy = "sliding 10/10s".parse().unwrap();
        let full = spend(&policy, 0, ms(9_999), 10).next;
        assert_eq!(spend(&policy, full, ms(10_000), 1).outcome, Outcome::Denied);
        let denied = spend(&policy, full, ms(10_001), 1);
        assert_eq!(denied.retry_at, Some(ms(11_000)));
        assert_eq!(spend(&policy, full, ms(10_999), 1).outcome, Outcome::Denied);
        assert_eq!(spend(&policy, full, ms(11_000), 1).outcome, Outcome::Admitted);
    }

    #[test]
    fn a_late_clock_takes_the_tallys_time() {
        let policy: Policy = "5/minute, 9/hour".parse().unwrap();
        let full = spend(&policy, 0, ms(0), 5).next;
        let late = spend(&policy, full, Timestamp::from_unix_ms(NOON - 3_600_000), 1);
        assert_eq!((late.outcome, late.time()), (Outcome::Denied, ms(0)));
    }

    #[test]
    fn a_stamp_from_a_wrong_clock_heals_at_once() {
        let policy: Policy = "5/minute, 9/hour".parse().unwrap();
        let ahead = spend(&policy, 0, ms(3_660_000), 4).next;
        let healed = spend(&policy, ahead, ms(0), 1);
        assert_eq!(healed.outcome, Outcome::Admitted);
        assert_eq!(healed.quotas.remaining[0], 0);
        assert_eq!(policy.layout().stamp(healed.next), NOON / 60_000);
        let present = peek(policy.layout(), policy.limits(), heal(policy.layout(), ahead, ms(0)), ms(0), 0);
        assert_eq!(present.quotas.remaining[0], 1);
        assert_eq!(policy.layout().stamp(heal(policy.layout(), ahead, ms(0))), NOON / 60_000);
        assert_eq!(heal(policy.layout(), ahead, ms(60_000)), ahead);
        // Also by a request that is denied: when the time comes near the wrong stamp, the tally must not be late.
        let denied = check(policy.layout(), policy.limits(), ahead, ms(0), 2);
        assert_eq!((denied.outcome, denied.retry_at), (Outcome::Denied, Some(ms(60_000))));
        assert_eq!(spend(&policy, denied.next, ms(60_000), 1).outcome, Outcome::Admitted);
    }

    #[test]
    fn a_refund_goes_only_where_the_charge_still_counts() {
        let policy: Policy = "5/minute, 9/hour".parse().unwrap();
        let charged = check(policy.layout(), policy.limits(), 0, ms(0), 5);
        let charge = Charge { cost: 5, at: charged.time() };
        let back = refund(policy.layout(), policy.limits(), charged.next, ms(59_000), charge);
        assert_eq!(back.quotas.remaining[0], 5);
        let minute_later = spend(&policy, charged.next, ms(60_000), 2).next;
        let back = refund(policy.layout(), policy.limits(), minute_later, ms(61_000), charge);
        assert_eq!(back.quotas.remaining[0], 3);
        assert_eq!(back.quotas.remaining[1], 7);
        let hour_later = spend(&policy, charged.next, ms(3_600_000), 2).next;
        assert_eq!(
            refund(policy.layout(), policy.limits(), hour_later, ms(3_600_000), charge).next,
            hour_later
        );
    }

    #[test]
    fn a_settle_above_the_estimate_charges_up_to_the_limit() {
        let policy: Policy = "5/minute, 9/hour".parse().unwrap();
        let reserved = check(policy.layout(), policy.limits(), 0, ms(0), 2);
        let charge = Charge { cost: 2, at: reserved.time() };
        let over = settle(policy.layout(), policy.limits(), reserved.next, ms(0), charge, 8);
        assert_eq!(over.uncharged, 3);
        assert_eq!(over.quotas.remaining[0], 0);
        let under = settle(policy.layout(), policy.limits(), reserved.next, ms(0), charge, 0);
        assert_eq!((under.uncharged, under.quotas.remaining[0]), (0, 5));
        let rest = settle(policy.layout(), policy.limits(), over.next, ms(0), charge, u32::MAX);
        assert_eq!((rest.uncharged, rest.next), (u32::MAX - 2, over.next));
    }

    #[test]
    fn the_ends_of_every_range_decide_without_overflow() {
        for text in [
            "1/second",
            "2147483647/second",
            "4294967295/31d",
            "sliding 65535/31d",
            "sliding 7/s,7/m,7/h,7/d",
        ] {
            let policy: Policy = text.parse().unwrap();
            for word in [0, 1, u64::MAX, u64::MAX >> 1, 1 << 63] {
                for now in [0, 1, u64::MAX - 1, u64::MAX].map(Timestamp::from_unix_ms) {
                    for cost in [0, 1, policy.quotas()[0].limit, u32::MAX] {
                        let charge = Charge { cost, at: now };
                        let (layout, limits) = (policy.layout(), policy.limits());
                        let decision = check(layout, limits, word, now, cost);
                        assert!(decision.quotas.iter().all(|quota| quota.remaining <= quota.limit));
                        peek(layout, limits, word, now, cost);
                        refund(layout, limits, word, now, charge);
                        settle(layout, limits, word, now, charge, u32::MAX - cost);
                        reset(layout, limits, word, now);
                    }
                }
            }
        }
    }
}
