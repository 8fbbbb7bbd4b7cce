//! The operations on a tally, expressed with logs instead of counts.
//!
//! A tally is a stamp and, for each window, a log of entries *(index of the window, cost)*. The
//! stamp is the time of the last write, in the longest units at which all windows begin. The count
//! of a window is the sum of its entries. No count needs to be cleared when a window ends, because
//! entries of other windows are not summed. A tally converts to the 64-bit word that the core
//! stores, and back. The model and the core can therefore be compared on any word.
//!
//! The effective time of an operation is the caller's time, or the start of the stamp's unit if
//! that is later.

use super::http::{Outcome, QuotaState};
use super::layout::Layout;
use super::policy::{Algorithm, Policy, PolicyError, Quota, parse_policy};

/// A cost that was charged in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The index of the window, which is 0 for the window that contains the epoch.
    pub index: i128,
    /// The cost that was charged. A refund is a negative cost.
    pub cost: i128,
}

/// A word, separated into its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The time of the last write in units of [`Model::unit_ms`].
    pub stamp: i128,
    /// The log of each window, the smallest window first.
    pub logs: Vec<Vec<Entry>>,
}

/// How the caller's time relates to the stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The caller's time is in or after the stamp's unit, and is the effective time.
    Current,
    /// The caller's time is before the stamp's unit, by any amount. The effective time is the start
    /// of this unit.
    Late,
}

/// The state of a tally at a caller's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// How the caller's time relates to the stamp that was written.
    pub clock: Clock,
    /// The effective time in Unix milliseconds.
    pub time_ms: i128,
    /// The tally, whose stamp is now that of the effective time.
    pub tally: Tally,
}

/// The result of a check or a peek.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The outcome: admitted, denied or too costly.
    pub outcome: Outcome,
    /// The word afterwards.
    pub next: u64,
    /// The effective time in Unix milliseconds. A refund of this charge needs it.
    pub time_ms: i128,
    /// The remaining cost and the reset of each window, the smallest window first.
    pub quotas: Vec<QuotaState>,
    /// If denied: the earliest effective time at which all windows have room, in Unix milliseconds.
    pub retry_at_ms: Option<i128>,
    /// If denied: the time from `waits_from_ms` to `retry_at_ms` in seconds, rounded up, at least 1
    /// and at most 2^32 − 1.
    pub retry_after_s: Option<u64>,
    /// The time from which waits are counted, in Unix milliseconds: the later of the caller's time
    /// and the effective time, or the caller's if the effective time is more than a minute ahead.
    pub waits_from_ms: u64,
    /// The number of seconds by which the effective time is ahead of the caller's, rounded up, at
    /// most 2^32 − 1.
    pub clock_ahead_s: u64,
}

/// A charge that a check made, which a refund or a settlement changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// The cost that was admitted.
    pub cost: u32,
    /// The effective time of the check in Unix milliseconds.
    pub at_ms: u64,
}

/// The result of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The word afterwards.
    pub next: u64,
    /// The part of the actual cost for which there was no room.
    pub uncharged: u32,
}

/// The largest difference between two correct clocks, in milliseconds.
const TOLERANCE_MS: i128 = 60_000;

/// The time for which a slot is kept after its tally has expired, in milliseconds.
const REUSE_DELAY_MS: i128 = 1000;

/// A policy with the layout of its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    policy: Policy,
    layout: Layout,
    unit_ms: i128,
}

impl Model {
    /// Returns the model of a policy text.
    pub fn parse(text: &str) -> Result<Model, PolicyError> {
        Ok(Model::new(parse_policy(text)?))
    }

    /// Returns the model of a policy with [`Layout::from_policy`].
    #[must_use]
    pub fn new(policy: Policy) -> Model {
        let layout = Layout::from_policy(&policy);
        Model::with_layout(policy, layout)
    }

    /// Returns a model with a given layout, for tests with few bits and for limits that an
    /// administrator has changed.
    ///
    /// The last count is in the least significant bits, and the stamp is above the first count. If
    /// the fields have fewer than 64 bits together, the bits above the stamp are 0.
    ///
    /// # Panics
    ///
    /// If a limit does not fit its count, the layout has the wrong number of counts, or the two
    /// counts of a sliding window differ in width.
    #[must_use]
    pub fn with_layout(policy: Policy, layout: Layout) -> Model {
        assert!(!policy.quotas.is_empty());
        let per_window = match policy.algorithm {
            Algorithm::Fixed => 1,
            Algorithm::Sliding => 2,
        };
        assert_eq!(layout.count_bits.len(), per_window * policy.quotas.len(), "number of counts");
        assert!(layout.stamp_bits >= 1 && layout.total_bits() <= 64, "{layout:?}");
        for (i, quota) in policy.quotas.iter().enumerate() {
            for j in 0..per_window {
                let bits = layout.count_bits[per_window * i + j];
                assert_eq!(
                    bits,
                    layout.count_bits[per_window * i],
                    "counts of one window have the same width"
                );
                assert!(
                    u64::from(quota.limit) < 1u64 << bits,
                    "{quota:?} does not fit {bits} bits"
                );
            }
        }
        let unit_ms = i128::from(policy.unit_s()) * 1000;
        Model { policy, layout, unit_ms }
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the layout of the policy's words.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the unit of the stamp in milliseconds.
    #[must_use]
    pub fn unit_ms(&self) -> i128 {
        self.unit_ms
    }

    /// Returns the tolerance for late clocks in units of the stamp: a minute, rounded up.
    #[must_use]
    pub fn units_of_tolerance(&self) -> i128 {
        divide_up(TOLERANCE_MS, self.unit_ms())
    }

    /// Returns the length of the longest window in units of the stamp.
    #[must_use]
    pub fn units_in_longest(&self) -> i128 {
        let longest = self.policy.quotas.last().expect("a policy has a quota");
        length_ms(longest) / self.unit_ms()
    }

    /// Returns the index of the window of a quota that a stamp is in.
    #[must_use]
    pub fn index(&self, quota: &Quota, stamp: i128) -> i128 {
        quota.window.index(stamp * self.unit_ms())
    }

    /// Returns the largest stamp of a time. The stamp above it, all ones, marks the core's
    /// reservations of slots.
    #[must_use]
    pub fn largest_stamp(&self) -> i128 {
        (1i128 << self.layout.stamp_bits) - 2
    }

    /// Returns the stamp of a time in Unix milliseconds.
    #[must_use]
    pub fn stamp_of(&self, time_ms: u64) -> i128 {
        (i128::from(time_ms) / self.unit_ms()).min(self.largest_stamp())
    }

    /// Converts a word to a tally.
    #[must_use]
    pub fn unpack(&self, word: u64) -> Tally {
        // Takes the fields from the low end, so the last one first.
        let mut rest = i128::from(word);
        let mut take = |bits: u32| {
            let field = rest % (1 << bits);
            rest /= 1 << bits;
            field
        };
        let mut counts: Vec<i128> =
            self.layout.count_bits.iter().rev().map(|bits| take(*bits)).collect();
        counts.reverse();
        let stamp = take(self.layout.stamp_bits);

        let mut logs = Vec::new();
        let mut next_count = counts.into_iter();
        let mut next_count = || next_count.next().expect("as many counts as the layout has");
        for quota in &self.policy.quotas {
            let index = self.index(quota, stamp);
            let mut log = vec![Entry { index, cost: next_count() }];
            if self.policy.algorithm == Algorithm::Sliding {
                log.push(Entry { index: index - 1, cost: next_count() });
            }
            logs.push(log);
        }
        Tally { stamp, logs }
    }

    /// Converts a tally to a word. Entries of windows before the stamp's are dropped.
    ///
    /// # Panics
    ///
    /// If a count exceeds its field. The model never admits that much.
    #[must_use]
    pub fn pack(&self, tally: &Tally) -> u64 {
        let mut fields = vec![(self.layout.stamp_bits, tally.stamp)];
        let mut bits = self.layout.count_bits.iter().copied();
        let mut bits = || bits.next().expect("as many counts as the layout has");
        for (quota, log) in self.policy.quotas.iter().zip(&tally.logs) {
            let index = self.index(quota, tally.stamp);
            fields.push((bits(), spent(log, index)));
            if self.policy.algorithm == Algorithm::Sliding {
                fields.push((bits(), spent(log, index - 1)));
            }
        }

        let mut word = 0;
        for (bits, value) in fields {
            assert!(value >= 0 && value < 1 << bits, "{value} does not fit {bits} bits");
            word = word * (1 << bits) + value;
        }
        u64::try_from(word).expect("the fields have 64 bits at most")
    }

    /// Returns the state of a word at a caller's time.
    #[must_use]
    pub fn read(&self, word: u64, now_ms: u64) -> Reading {
        let written = self.unpack(word);
        let now_stamp = self.stamp_of(now_ms);
        let ahead = written.stamp - now_stamp;

        if ahead > 0 {
            Reading { clock: Clock::Late, time_ms: written.stamp * self.unit_ms(), tally: written }
        } else {
            // Time stays in the last unit that a stamp can express.
            let last_ms = (self.largest_stamp() + 1) * self.unit_ms() - 1;
            Reading {
                clock: Clock::Current,
                time_ms: i128::from(now_ms).min(last_ms),
                tally: Tally { stamp: now_stamp, logs: written.logs },
            }
        }
    }

    /// Corrects a word by the time of a correct clock. If the stamp is more than a minute ahead of
    /// it, a wrong clock has charged in future windows. These charges then count in the windows of
    /// the correct time.
    #[must_use]
    pub fn correct(&self, word: u64, reading_ms: u64) -> u64 {
        let written = self.unpack(word);
        if written.stamp * self.unit_ms() - i128::from(reading_ms) <= TOLERANCE_MS {
            return word;
        }
        let stamp = self.stamp_of(reading_ms);
        let mut tally = Tally { stamp, logs: Vec::new() };
        for (quota, log) in self.policy.quotas.iter().zip(&written.logs) {
            let moved = self.index(quota, stamp) - self.index(quota, written.stamp);
            let moved =
                log.iter().map(|entry| Entry { index: entry.index + moved, cost: entry.cost });
            tally.logs.push(moved.collect());
        }
        self.pack(&tally)
    }

    /// Returns the cost that counts against the limit of a window at a given time.
    #[must_use]
    pub fn used(&self, quota: &Quota, log: &[Entry], time_ms: i128) -> i128 {
        let index = quota.window.index(time_ms);
        let current = spent(log, index);
        match self.policy.algorithm {
            Algorithm::Fixed => current,
            Algorithm::Sliding => {
                let previous = spent(log, index - 1);
                let length = length_ms(quota);
                let overlap = quota.window.start_ms(index + 1) - time_ms;
                current + divide_up(previous * overlap, length)
            }
        }
    }

    /// Decides whether all windows have room for `cost`. If so, charges it.
    #[must_use]
    pub fn check(&self, word: u64, now_ms: u64, cost: u32) -> Decision {
        let mut decision = self.peek(word, now_ms, cost);
        let mut reading = self.read(word, now_ms);
        if decision.outcome == Outcome::Admitted && cost > 0 {
            self.spend(&mut reading, i128::from(cost));
            decision.next = self.pack(&reading.tally);
            decision.quotas = self.quota_states(&reading);
        }
        decision
    }

    /// Decides whether all windows have room for `cost`, without a charge.
    #[must_use]
    pub fn peek(&self, word: u64, now_ms: u64, cost: u32) -> Decision {
        let reading = self.read(word, now_ms);
        let cost = i128::from(cost);

        let mut outcome = Outcome::Admitted;
        let mut retry_at_ms = None;
        if self.policy.quotas.iter().any(|quota| cost > i128::from(quota.limit)) {
            outcome = Outcome::TooCostly;
        } else if cost > 0 {
            for (quota, log) in self.policy.quotas.iter().zip(&reading.tally.logs) {
                if !self.has_room(quota, log, cost, reading.time_ms) {
                    outcome = Outcome::Denied;
                    let room_at_ms = self.earliest_room(quota, log, cost, reading.time_ms);
                    retry_at_ms = retry_at_ms.max(Some(room_at_ms));
                }
            }
        }

        let ahead_ms = (reading.time_ms - i128::from(now_ms)).max(0);
        let waits_from_ms = if ahead_ms > TOLERANCE_MS { now_ms } else { now_ms + whole(ahead_ms) };
        let seconds = |ms: i128| whole(divide_up(ms.max(0), 1000).min(i128::from(u32::MAX)));
        let retry_after_s =
            retry_at_ms.map(|at: i128| seconds(at - i128::from(waits_from_ms)).max(1));
        Decision {
            outcome,
            next: word,
            time_ms: reading.time_ms,
            quotas: self.quota_states(&reading),
            retry_at_ms,
            retry_after_s,
            waits_from_ms,
            clock_ahead_s: seconds(ahead_ms),
        }
    }

    /// Gives a charge back in each of its windows that still counts.
    #[must_use]
    pub fn refund(&self, word: u64, charge: Charge, now_ms: u64) -> u64 {
        let mut reading = self.read(word, now_ms);
        let mut given_back = 0;
        for (i, quota) in self.policy.quotas.iter().enumerate() {
            let charged_index = self.index(quota, self.stamp_of(charge.at_ms));
            let current_index = self.index(quota, reading.tally.stamp);
            let counts = match self.policy.algorithm {
                Algorithm::Fixed => charged_index == current_index,
                Algorithm::Sliding => {
                    charged_index == current_index || charged_index == current_index - 1
                }
            };
            if counts {
                let log = &mut reading.tally.logs[i];
                let back = i128::from(charge.cost).min(spent(log, charged_index));
                log.push(Entry { index: charged_index, cost: -back });
                given_back += back;
            }
        }
        if given_back == 0 { word } else { self.pack(&reading.tally) }
    }

    /// Replaces the estimated cost that a check charged by the actual cost, or by as much of it as
    /// has room.
    #[must_use]
    pub fn settle(&self, word: u64, charge: Charge, actual: u32, now_ms: u64) -> Settled {
        if actual <= charge.cost {
            let unspent = Charge { cost: charge.cost - actual, at_ms: charge.at_ms };
            return Settled { next: self.refund(word, unspent, now_ms), uncharged: 0 };
        }

        let extra = actual - charge.cost;
        let mut reading = self.read(word, now_ms);
        let remaining = self.quota_states(&reading).iter().map(|quota| quota.remaining).min();
        let charged = extra.min(remaining.expect("a policy has a quota"));
        if charged == 0 {
            return Settled { next: word, uncharged: extra };
        }
        self.spend(&mut reading, i128::from(charged));
        Settled { next: self.pack(&reading.tally), uncharged: extra - charged }
    }

    /// Sets all counts to 0.
    #[must_use]
    pub fn reset(&self, word: u64, now_ms: u64) -> u64 {
        let mut reading = self.read(word, now_ms);
        for log in &mut reading.tally.logs {
            log.clear();
        }
        self.pack(&reading.tally)
    }

    /// Returns whether a limiter may give the slot of this word to another subject. It may if no
    /// window counts a charge of the word any longer, even for a caller that is late by less than a
    /// second.
    #[must_use]
    pub fn is_reusable(&self, word: u64, now_ms: u64) -> bool {
        if word == 0 {
            // The slot has no tally yet.
            return true;
        }
        let counted_windows = match self.policy.algorithm {
            Algorithm::Fixed => 1,
            Algorithm::Sliding => 2,
        };
        let stamp = self.unpack(word).stamp;
        let has_expired = |quota: &Quota| {
            let end_ms = quota.window.start_ms(self.index(quota, stamp) + counted_windows);
            // The windows of the last stamp never pass.
            self.stamp_of(now_ms) >= end_ms / self.unit_ms()
                && i128::from(now_ms) >= end_ms + REUSE_DELAY_MS
        };
        self.policy.quotas.iter().all(has_expired)
    }

    /// Adds `cost` to every log, in the window of the effective time.
    fn spend(&self, reading: &mut Reading, cost: i128) {
        for (quota, log) in self.policy.quotas.iter().zip(&mut reading.tally.logs) {
            let index = self.index(quota, reading.tally.stamp);
            log.push(Entry { index, cost });
        }
    }

    /// Returns whether a window has room for `cost` at a given time.
    fn has_room(&self, quota: &Quota, log: &[Entry], cost: i128, time_ms: i128) -> bool {
        self.used(quota, log, time_ms) + cost <= i128::from(quota.limit)
    }

    /// Returns the first time, from `from_ms` on, at which the window has room if nothing more is
    /// spent.
    ///
    /// The used cost never rises over time, so bisection finds the time. At the end of the next
    /// window, nothing that is counted now counts. A test compares the result with a search through
    /// every millisecond.
    fn earliest_room(&self, quota: &Quota, log: &[Entry], cost: i128, from_ms: i128) -> i128 {
        let mut full_ms = from_ms - 1;
        let mut room_ms = quota.window.start_ms(quota.window.index(from_ms) + 2);
        while room_ms - full_ms > 1 {
            let middle = full_ms + (room_ms - full_ms) / 2;
            if self.has_room(quota, log, cost, middle) {
                room_ms = middle;
            } else {
                full_ms = middle;
            }
        }
        room_ms
    }

    /// Returns the remaining cost and the reset of each window.
    fn quota_states(&self, reading: &Reading) -> Vec<QuotaState> {
        let mut states = Vec::new();
        for (quota, log) in self.policy.quotas.iter().zip(&reading.tally.logs) {
            let left = i128::from(quota.limit) - self.used(quota, log, reading.time_ms);
            let index = quota.window.index(reading.time_ms);
            let lasts = self.policy.algorithm == Algorithm::Sliding && spent(log, index) > 0;
            let reset_ms = quota.window.start_ms(index + if lasts { 2 } else { 1 });
            states.push(QuotaState {
                limit: quota.limit,
                remaining: u32::try_from(left.max(0)).expect("at most the limit"),
                window: quota.window,
                reset_s: u64::try_from(reset_ms / 1000).expect("a time is never negative"),
            });
        }
        states
    }
}

/// Returns the sum of a log's entries for one window.
fn spent(log: &[Entry], index: i128) -> i128 {
    let mut sum = 0;
    for entry in log {
        if entry.index == index {
            sum += entry.cost;
        }
    }
    sum
}

/// Converts a number that is known to be from 0 to 2^64 − 1.
fn whole(number: i128) -> u64 {
    u64::try_from(number).expect("a number that was bounded")
}

/// Returns the length of a quota's window in milliseconds, of a month that of the longest one.
fn length_ms(quota: &Quota) -> i128 {
    i128::from(quota.window.longest_s()) * 1000
}

/// Returns `a` divided by a positive `b`, rounded up.
fn divide_up(a: i128, b: i128) -> i128 {
    let rounded_down = a.div_euclid(b);
    if rounded_down * b == a { rounded_down } else { rounded_down + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01T00:00:00Z, the start of a minute, an hour and a day.
    const NEW_YEAR: u64 = 1_767_225_600_000;

    fn model(text: &str) -> Model {
        Model::parse(text).unwrap()
    }

    fn remaining(decision: &Decision) -> Vec<u32> {
        decision.quotas.iter().map(|quota| quota.remaining).collect()
    }

    fn resets(decision: &Decision) -> Vec<u64> {
        decision.quotas.iter().map(|quota| quota.reset_s).collect()
    }

    #[test]
    fn first_check_matches_a_hand_computed_one() {
        // 00:00:12.345: stamp 29453760 (minutes), 48 s to the minute's end, 3588 s to the hour's.
        let decision = model("100/minute, 1000/hour").check(0, NEW_YEAR + 12_345, 1);
        assert_eq!(decision.outcome, Outcome::Admitted);
        assert_eq!(decision.next, (29_453_760 << 37) | (1 << 20) | 1);
        assert_eq!(remaining(&decision), [99, 999]);
        assert_eq!(resets(&decision), [1_767_225_660, 1_767_229_200]);
        assert_eq!(decision.retry_at_ms, None);
    }

    #[test]
    fn bursts_are_denied_by_minute_then_by_hour() {
        let model = model("100/minute, 1000/hour");
        let mut word = 0;
        for minute in 0..10 {
            let now = NEW_YEAR + minute * 60_000 + 500;
            for _ in 0..100 {
                let decision = model.check(word, now, 1);
                assert_eq!(decision.outcome, Outcome::Admitted);
                word = decision.next;
            }
            let denied = model.check(word, now, 1);
            assert_eq!(denied.outcome, Outcome::Denied);
            assert_eq!(denied.next, word);
            // The tenth minute also exhausts the hour: 3600 - 540.5 s.
            let wait = if minute < 9 { 60 } else { 3060 };
            assert_eq!(denied.retry_after_s, Some(wait));
        }
        assert_eq!(model.check(word, NEW_YEAR + 600_000, 1).outcome, Outcome::Denied);
        assert_eq!(model.check(word, NEW_YEAR + 3_599_999, 1).outcome, Outcome::Denied);
        let decision = model.check(word, NEW_YEAR + 3_600_000, 1);
        assert_eq!((decision.outcome, remaining(&decision)), (Outcome::Admitted, vec![99, 999]));
    }

    #[test]
    fn previous_window_is_weighted_and_rounded_up() {
        // The previous window has 6 units. After 2.5 of 10 s, 6 x 0.75 = 4.5 units count, rounded
        // up to 5. So 5 of 10 remain.
        let model = model("sliding 10/10s");
        let spent = model.check(0, NEW_YEAR, 6);
        let decision = model.peek(spent.next, NEW_YEAR + 12_500, 1);
        assert_eq!(remaining(&decision), [5]);
        // Nothing is current, so everything expires at the end of this window.
        assert_eq!(resets(&decision), [1_767_225_620]);

        // A cost of 7 has room if 6 x (10 - e) / 10 <= 3, after e = 5 s.
        let denied = model.check(spent.next, NEW_YEAR + 12_500, 7);
        assert_eq!(denied.outcome, Outcome::Denied);
        assert_eq!(denied.retry_at_ms, Some(i128::from(NEW_YEAR) + 15_000));
        assert_eq!(denied.retry_after_s, Some(3));
        assert_eq!(model.check(spent.next, NEW_YEAR + 14_999, 7).outcome, Outcome::Denied);
        let admitted = model.check(spent.next, NEW_YEAR + 15_000, 7);
        assert_eq!(remaining(&admitted), [0]);
        // Seven are current now and count until the end of the next window.
        assert_eq!(resets(&admitted), [1_767_225_630]);

        // A cost of 6 has room if 7 x (10 - e) / 10 <= 4, after e = 4285.71… ms, so from the next
        // whole millisecond on.
        let denied = model.check(admitted.next, NEW_YEAR + 15_000, 6);
        assert_eq!(denied.retry_at_ms, Some(i128::from(NEW_YEAR) + 24_286));
    }

    #[test]
    fn bisection_finds_the_first_millisecond_with_room() {
        let model = model("sliding 9/2s");
        let quota = model.policy().quotas[0];
        for (current, previous) in [(0, 9), (9, 0), (9, 9), (4, 7), (5, 1), (1, 8), (12, 3)] {
            let log = [Entry { index: 3, cost: current }, Entry { index: 2, cost: previous }];
            for from_ms in [6_000, 6_777, 7_999] {
                for cost in 1..=9 {
                    let first =
                        (from_ms..).find(|ms| model.has_room(&quota, &log, cost, *ms)).unwrap();
                    assert_eq!(model.earliest_room(&quota, &log, cost, from_ms), first);
                }
            }
        }
    }

    #[test]
    fn cost_at_the_limit_fits_and_one_above_is_too_costly() {
        let model = model("3/second, 5/minute");
        assert_eq!(model.check(0, NEW_YEAR, 3).outcome, Outcome::Admitted);
        let costly = model.check(0, NEW_YEAR, 4);
        assert_eq!(
            (costly.outcome, costly.next, costly.retry_after_s),
            (Outcome::TooCostly, 0, None)
        );
        // Cost 0 is admitted even if nothing remains, and writes nothing.
        let full = model.check(0, NEW_YEAR, 3).next;
        let free = model.check(full, NEW_YEAR + 999, 0);
        assert_eq!(
            (free.outcome, free.next, remaining(&free)),
            (Outcome::Admitted, full, vec![0, 2])
        );
    }

    #[test]
    fn late_clock_spends_in_the_window_of_the_stamp() {
        let model = model("2/minute, 10/hour");
        let word = model.check(0, NEW_YEAR + 30_000, 2).next;
        // Lateness by any amount has the same result.
        for late_ms in [1, 60_000, 3_600_000, 7_200_000, NEW_YEAR] {
            let denied = model.check(word, NEW_YEAR - late_ms, 1);
            assert_eq!(denied.outcome, Outcome::Denied);
            assert_eq!(denied.time_ms, i128::from(NEW_YEAR));
            assert_eq!(denied.retry_at_ms, Some(i128::from(NEW_YEAR) + 60_000));
        }
        // Lateness of up to a minute is that of a correct clock, so the wait starts at the stamp's
        // time. After more, the wait starts at the caller's.
        let waits = |late_ms| {
            let denied = model.check(word, NEW_YEAR - late_ms, 1);
            (denied.retry_after_s, denied.clock_ahead_s)
        };
        assert_eq!(waits(60_000), (Some(60), 60));
        assert_eq!(waits(60_001), (Some(121), 61));
        assert_eq!(waits(NEW_YEAR), (Some(NEW_YEAR / 1000 + 60), NEW_YEAR / 1000));
    }

    #[test]
    fn correction_beyond_a_minute_keeps_counts() {
        let model = model("2/minute, 10/hour");
        let word = model.check(0, NEW_YEAR + 30_000, 2).next;
        assert_eq!(model.correct(word, NEW_YEAR - 60_000), word);
        let corrected = model.correct(word, NEW_YEAR - 60_001);
        assert_eq!(model.unpack(corrected).stamp, i128::from(NEW_YEAR / 60_000) - 2);
        let denied = model.check(corrected, NEW_YEAR - 60_001, 1);
        assert_eq!((denied.outcome, remaining(&denied)), (Outcome::Denied, vec![0, 8]));
        assert_eq!(denied.retry_after_s, Some(1));
    }

    #[test]
    fn refund_reaches_windows_that_are_still_counted() {
        let model = model("5/minute, 9/hour");
        let word = model.check(0, NEW_YEAR, 4).next;
        let charge = Charge { cost: 4, at_ms: NEW_YEAR };
        let all = model.refund(word, charge, NEW_YEAR + 59_999);
        assert_eq!(remaining(&model.peek(all, NEW_YEAR, 0)), [5, 9]);
        let hour = model.refund(word, charge, NEW_YEAR + 60_000);
        assert_eq!(remaining(&model.peek(hour, NEW_YEAR + 60_000, 0)), [5, 9]);
        assert_eq!(model.refund(word, charge, NEW_YEAR + 3_600_000), word);
        // A second refund of the charge does not go below 0.
        assert_eq!(model.refund(all, charge, NEW_YEAR), all);
    }

    #[test]
    fn settle_gives_back_or_charges_what_fits() {
        let model = model("5/minute, 9/hour");
        let word = model.check(0, NEW_YEAR, 2).next;
        let charge = Charge { cost: 2, at_ms: NEW_YEAR };
        let less = model.settle(word, charge, 0, NEW_YEAR);
        assert_eq!(
            (remaining(&model.peek(less.next, NEW_YEAR, 0)), less.uncharged),
            (vec![5, 9], 0)
        );
        assert_eq!(model.settle(word, charge, 2, NEW_YEAR), Settled { next: word, uncharged: 0 });
        let more = model.settle(word, charge, 10, NEW_YEAR);
        assert_eq!(
            (remaining(&model.peek(more.next, NEW_YEAR, 0)), more.uncharged),
            (vec![0, 4], 5)
        );
    }

    #[test]
    fn word_is_reusable_once_no_late_clock_counts_it() {
        for text in ["2/second, 9/4s", "sliding 2/second, 9/4s"] {
            let model = model(text);
            let word = model.check(0, 108_000, 2).next;
            for now_ms in (108_000..120_000u64).step_by(100) {
                // Whether a clock that is late by less than a second counts any charge.
                let counts = (0..1000).step_by(111).any(|late_ms| {
                    let reading = model.read(word, now_ms - late_ms);
                    let quotas = model.policy().quotas.iter().zip(&reading.tally.logs);
                    quotas.map(|(quota, log)| model.used(quota, log, reading.time_ms)).sum::<i128>()
                        > 0
                });
                assert_eq!(model.is_reusable(word, now_ms), !counts, "{text} at {now_ms}");
            }
        }
    }

    #[test]
    fn last_time_gets_the_last_stamp() {
        let model = model("1/31d");
        let decision = model.check(0, u64::MAX, 1);
        assert_eq!(decision.outcome, Outcome::Admitted);
        // All ones is reserved.
        assert_eq!(decision.next, (u64::from(u32::MAX - 1) << 32) | 1);
        assert_eq!(decision.time_ms, i128::from(u32::MAX) * 2_678_400_000 - 1);
        let denied = model.check(decision.next, u64::MAX, 1);
        assert_eq!(denied.retry_after_s, Some(1));
    }

    #[test]
    fn unpacked_word_packs_to_itself() {
        for text in
            ["100/minute, 1000/hour", "sliding 3/second, 5/minute", "1/31d", "4294967295/day"]
        {
            let model = model(text);
            for word in [0, 1, u64::MAX, u64::MAX - 1, 0x0123_4567_89ab_cdef, 1 << 63, 0xffff_ffff]
            {
                assert_eq!(model.pack(&model.unpack(word)), word);
            }
        }
    }

    /// Checks every word of a layout of 8 or 12 bits at every quarter of a second. A denied request
    /// is denied a millisecond before its retry time and admitted at it.
    #[test]
    fn retry_succeeds_at_the_reported_time_and_not_before() {
        for text in ["2/second, 3/3s", "sliding 2/second, 3/3s"] {
            let policy = parse_policy(text).unwrap();
            let counts = if policy.algorithm == Algorithm::Fixed { 2 } else { 4 };
            let model =
                Model::with_layout(policy, Layout { stamp_bits: 4, count_bits: vec![2; counts] });
            for word in 0..1 << model.layout().total_bits() {
                assert_eq!(model.pack(&model.unpack(word)), word);
                for now_ms in (0..15_000).step_by(250) {
                    let cost = 1 + u32::from(now_ms % 1000 == 0);
                    let denied = model.check(word, now_ms, cost);
                    let Some(retry_at_ms) = denied.retry_at_ms else { continue };
                    assert_eq!(denied.outcome, Outcome::Denied);
                    assert_eq!(denied.next, word);
                    // No stamp expresses that time.
                    if retry_at_ms / 1000 > model.largest_stamp() {
                        continue;
                    }
                    let retry_at_ms = u64::try_from(retry_at_ms).unwrap();
                    assert_eq!(
                        model.check(denied.next, retry_at_ms, cost).outcome,
                        Outcome::Admitted
                    );
                    assert_eq!(
                        model.check(denied.next, retry_at_ms - 1, cost).outcome,
                        Outcome::Denied
                    );
                    // The seconds are rounded up, and at least 1.
                    let retry_ms = denied.waits_from_ms + denied.retry_after_s.unwrap() * 1000;
                    assert!(
                        retry_ms >= retry_at_ms
                            && (retry_ms < retry_at_ms + 1000
                                || retry_ms == denied.waits_from_ms + 1000)
                    );
                }
            }
        }
    }
}
