//! The check of a subject, and the other operations on its tally: peek, refund, settle, reset.

use core::hint::select_unpredictable;

use super::insert::Insertion;
use super::slot::{Slot, Subject, TOMBSTONE};
use super::table::{LINE_SLOTS, Limiter, Rule};
use crate::bits::IS_64_BIT;
use crate::cache_line::CacheLine;
use crate::charge::Charge;
use crate::compare_exchange;
use crate::compound::Exchange;
use crate::decide::{self, Decision};
use crate::gate::Settlement;
use crate::outcome::Outcome;
use crate::quota::Limits;
use crate::sync::{AtomicU64, Ordering};
use crate::tally::EMPTY;
use crate::time::{Clock, Timestamp};
use crate::verdict::Verdict;

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Charges `cost` to every window of the subject if all have room for it, else to none.
    #[inline]
    pub fn check(&self, subject: &[u8], cost: u32, clock: impl Clock) -> Verdict {
        self.check_subject(self.subject(subject), cost, clock)
    }

    /// Charges as [`check`](Self::check) does, for a subject that was hashed before.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub fn check_subject(&self, subject: Subject, cost: u32, clock: impl Clock) -> Verdict {
        self.check_by(self.rule(), subject, cost, clock)
    }

    /// Charges a subject that counts by this rule.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn check_by(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        cost: u32,
        clock: impl Clock,
    ) -> Verdict {
        let now = clock.reading();
        // Fast path: a single attempt for a subject that has a slot and whose shortest window has
        // not passed.
        let mut found = self.find(subject);
        if IS_64_BIT
            && let Some(seen) = &mut found
            && let Some(decision) = decide::check_within(
                rule.layout,
                || rule.limits(),
                &rule.packed(),
                seen.word,
                now,
                cost,
            )
            && decide::is_final(decision, clock)
        {
            let exchanged = match decision.next {
                same if same == seen.word => Ok(()),
                next => compare_exchange::exchange_decided(seen.slot.tally(), seen.word, next),
            };
            match exchanged {
                Ok(()) => {
                    return Verdict::decided_at(
                        rule.layout,
                        &rule.limits(),
                        decision,
                        None,
                        now,
                        cost,
                        true,
                    );
                }
                Err(present) => {
                    seen.word = present;
                    found = self.still_or_again(subject, found);
                }
            }
        }
        self.check_slow(rule, subject, found, cost, clock)
    }

    /// The slow path of a check: another thread exchanged the tally, the subject has no slot, the
    /// time is not within the unit of the tally's stamp, or the clock must be read again.
    #[cold]
    #[inline(never)]
    fn check_slow(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        found: Option<Found<'_>>,
        cost: u32,
        clock: impl Clock,
    ) -> Verdict {
        self.decide_on(rule, subject, found, cost, clock, true, rule.check(cost))
    }

    /// Loads the memory of a subject that is checked soon, and does not wait for it.
    ///
    /// A check of a large table takes mostly as long as memory takes to respond. Fetch all subjects
    /// of a request, of any number of limiters, before the first of them is checked: memory then
    /// responds for all of them at once.
    ///
    /// ```
    /// # use keytally_core::{CacheLine, Limiter, Policy, Timestamp};
    /// # let policy: Policy = "2/minute".parse()?;
    /// # let lines = Limiter::<&[CacheLine]>::lines(8);
    /// # let memory: Vec<_> = (0..lines).map(|_| CacheLine::new()).collect();
    /// # let limiter = Limiter::init(&memory[..], &policy, 8, [7; 16])?;
    /// # let now = Timestamp::from_unix_s(1_700_000_000);
    /// let subjects = [&b"203.0.113.9"[..], b"user 7"].map(|subject| limiter.subject(subject));
    /// for subject in subjects {
    ///     limiter.fetch(subject);
    /// }
    /// for subject in subjects {
    ///     assert!(limiter.check_subject(subject, 1, now).is_admitted());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn fetch(&self, subject: Subject) {
        let [home, _] = self.homes_of(subject);
        let [slot, ..] = self.line_of(home);
        // A load whose value is not used, which the compiler must not remove.
        core::hint::black_box(slot.owner().load(Ordering::Relaxed));
    }

    /// Returns the verdict that [`check`](Self::check) would give now, and charges nothing. With
    /// [`OnFull::Refuse`](crate::OnFull::Refuse), whether a new subject would find a free slot is
    /// not looked up.
    pub fn peek(&self, subject: &[u8], cost: u32, clock: impl Clock) -> Verdict {
        self.peek_by(self.rule(), self.subject(subject), cost, clock)
    }

    pub(super) fn peek_by(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        cost: u32,
        clock: impl Clock,
    ) -> Verdict {
        self.decide_on_present(rule, subject, cost, clock, rule.peek(cost))
    }

    /// Returns the verdict that a check would give now, and the exchange that would charge the
    /// subject. `None` unless the subject has a slot whose shortest window has not passed.
    pub(super) fn probe_by<'m>(
        &'m self,
        rule: Rule<'m>,
        subject: Subject,
        cost: u32,
        clock: impl Clock,
    ) -> Option<(Verdict, Exchange<'m>)> {
        let (layout, now) = (rule.layout, clock.reading());
        let Found { slot, word, .. } = self.find(subject)?;
        let limits = || rule.limits();
        let decision = decide::check_within(layout, limits, &rule.packed(), word, now, cost)?;
        decide::is_final(decision, clock).then(|| {
            let limits = &rule.limits();
            let verdict = Verdict::decided_at(layout, limits, decision, None, now, cost, true);
            (verdict, Exchange { layout, atomic: slot.tally(), word, next: decision.next })
        })
    }

    /// Returns the exchange that charges the subject. `None` unless the subject has a slot whose
    /// shortest window has not passed, and all windows have room.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn admission_by<'m>(
        &'m self,
        rule: Rule<'m>,
        subject: Subject,
        cost: u32,
        now: Timestamp,
    ) -> Option<Exchange<'m>> {
        let (layout, Found { slot, word, .. }) = (rule.layout, self.find(subject)?);
        let limits = || rule.limits();
        let decision = decide::check_within(layout, limits, &rule.packed(), word, now, cost)?;
        let exchange = Exchange { layout, atomic: slot.tally(), word, next: decision.next };
        (decision.outcome == Outcome::Admitted).then_some(exchange)
    }

    /// Returns the units of `charge` to the windows that still count them. Refund each charge once.
    pub fn refund(&self, subject: &[u8], charge: Charge, clock: impl Clock) -> Verdict {
        self.refund_by(self.rule(), self.subject(subject), charge, clock)
    }

    pub(super) fn refund_by(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        charge: Charge,
        clock: impl Clock,
    ) -> Verdict {
        self.decide_on_charged(
            rule,
            subject,
            charge.is_shared(),
            clock,
            false,
            |limits, word, now| decide::refund(rule.layout, limits, word, now, charge.first()),
        )
    }

    /// Replaces an estimate by the actual cost: refunds the difference, or charges it as far as
    /// there is room.
    ///
    /// The verdict's [`uncharged`](Verdict::uncharged) is the part that found no room. Settle each
    /// charge once.
    pub fn settle(
        &self,
        subject: &[u8],
        estimate: Charge,
        actual: u32,
        clock: impl Clock,
    ) -> Verdict {
        let settlement = Settlement::new().with_cost(actual);
        self.settle_all(subject, estimate, &settlement, clock)
    }

    /// Replaces an estimate by the actual cost. A limiter has no groups, so the settlement's costs
    /// of groups have no effect.
    ///
    /// The verdict's [`uncharged`](Verdict::uncharged) is the part that found no room. With
    /// [`overdraw`](Settlement::overdraw), the part without room is charged too. Settle each charge
    /// once.
    ///
    /// ```
    /// use keytally_core::{CacheLine, Limiter, Policy, Settlement, Timestamp};
    /// # let lines = Limiter::<&[CacheLine]>::lines(8);
    /// # let memory = (0..lines).map(|_| CacheLine::new()).collect::<Vec<_>>();
    /// let policy: Policy = "10/minute".parse()?;
    /// let limiter = Limiter::init(memory, &policy, 8, [7; 16])?;
    /// # let now = Timestamp::from_unix_s(1_700_000_000);
    /// let estimate = limiter.check(b"ann", 6, now).charge().unwrap();
    /// let settlement = Settlement::new().with_cost(13).with_overdraw(true);
    /// let settled = limiter.settle_all(b"ann", estimate, &settlement, now);
    /// assert_eq!((settled.remaining(), settled.uncharged()), (Some(0), 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn settle_all(
        &self,
        subject: &[u8],
        estimate: Charge,
        settlement: &Settlement<'_>,
        clock: impl Clock,
    ) -> Verdict {
        let (rule, subject, charged) = (self.rule(), self.subject(subject), estimate.first());
        let actual = settlement.cost.unwrap_or(charged.cost);
        let extra = actual.checked_sub(charged.cost).filter(|_| settlement.overdraw);
        self.decide_on_charged(
            rule,
            subject,
            estimate.is_shared(),
            clock,
            true,
            |limits, word, now| match extra {
                Some(extra) => decide::overdraw(rule.layout, word, now, extra),
                None => decide::settle(rule.layout, limits, word, now, charged, actual),
            },
        )
    }

    /// Charges a subject, or its overflow tally, also units for which there is no room.
    pub(super) fn overdraw_by(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        is_shared: bool,
        units: u32,
        clock: impl Clock,
    ) -> Verdict {
        self.decide_on_charged(rule, subject, is_shared, clock, true, |_, word, now| {
            decide::overdraw(rule.layout, word, now, units)
        })
    }

    /// Sets all counts of the subject to 0. If it has no slot and would be charged to an overflow
    /// tally, sets the counts of that tally to 0.
    pub fn reset(&self, subject: &[u8], clock: impl Clock) -> Verdict {
        self.reset_by(self.rule(), self.subject(subject), clock)
    }

    pub(super) fn reset_by(&self, rule: Rule<'_>, subject: Subject, clock: impl Clock) -> Verdict {
        self.decide_on_present(rule, subject, 0, clock, |limits, word, now| {
            decide::reset(rule.layout, limits, word, now)
        })
    }

    /// Applies `decide` to the tally that a charge was made to: an overflow tally if it is shared,
    /// else the subject's own. If `inserts` is set, a subject without a slot gets one.
    fn decide_on_charged(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        is_shared: bool,
        clock: impl Clock,
        inserts: bool,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        let verdict = if is_shared {
            self.decide_on_overflow(rule, subject, 0, clock.reading(), clock, decide)
        } else {
            self.decide_on(rule, subject, self.find(subject), 0, clock, inserts, decide)
        };
        verdict.without_charge()
    }

    /// Applies `decide` to the tally that a check would charge now, and inserts no subject.
    fn decide_on_present(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        cost: u32,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        let found = self.find(subject);
        let verdict = if found.is_none() && self.overflows(subject, clock) {
            self.decide_on_overflow(rule, subject, cost, clock.reading(), clock, decide)
        } else {
            self.decide_on(rule, subject, found, cost, clock, false, decide)
        };
        verdict.without_charge()
    }

    /// Corrects every tally that is ahead of the clock by more than 60 s, and keeps its counts.
    /// Returns how many it corrected.
    ///
    /// A system clock is read again after each tally was loaded. An explicit time is older than the
    /// loads. If the call is then stopped for more than 60 s between a load and its correction,
    /// each tally that is charged meanwhile may admit one more window. With an explicit time, call
    /// this while no other thread or process charges.
    pub fn correct_clock(&self, clock: impl Clock) -> u64 {
        let tallies = self.all_slots().map(Slot::tally).chain(self.overflow_tallies());
        tallies.filter(|tally| compare_exchange::correct(tally, &self.layout, clock)).count() as u64
    }

    /// Sets all counts of every subject to 0. Returns how many subjects had counts in a window that
    /// has not passed.
    ///
    /// Each subject is reset atomically, but not all of them at one moment: a charge during the
    /// call is either reset or counted after it. Lock-free: an attempt fails only if another
    /// thread's exchange of that tally succeeded. Reads the whole table.
    ///
    /// ```
    /// # use keytally_core::{CacheLine, Limiter, Policy, Timestamp};
    /// # let policy: Policy = "2/minute".parse()?;
    /// # let lines = Limiter::<&[CacheLine]>::lines(8);
    /// # let memory: Vec<_> = (0..lines).map(|_| CacheLine::new()).collect();
    /// # let limiter = Limiter::init(&memory[..], &policy, 8, [7; 16])?;
    /// let now = Timestamp::from_unix_s(1_700_000_000);
    /// assert!(limiter.check(b"203.0.113.9", 2, now).is_admitted());
    /// assert_eq!(limiter.reset_all(now), 1);
    /// assert!(limiter.check(b"203.0.113.9", 2, now).is_admitted());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset_all(&self, clock: impl Clock) -> u64 {
        let now = clock.reading();
        for tally in self.overflow_tallies() {
            self.reset_tally(tally, now);
        }
        self.all_slots().filter(|slot| self.reset_tally(slot.tally(), now)).count() as u64
    }

    /// Sets the counts of a tally to 0. Returns whether it had any.
    ///
    /// A tally without counts is not written, so that an expired slot can still be reused.
    fn reset_tally(&self, tally: &AtomicU64, now: Timestamp) -> bool {
        let mut word = tally.load(Ordering::Acquire);
        while self.is_live(word) {
            let stamp = self.layout.stamp_at(now).max(self.layout.stamp(word));
            let next = self.layout.unused(stamp);
            if self.layout.rolled(word, stamp) == next {
                return false;
            }
            match compare_exchange::exchange_decided(tally, word, next) {
                Ok(()) => return true,
                Err(present) => word = present,
            }
        }
        false
    }

    /// Applies `decide` to the tally of the slot that was found, or to an empty one if there is
    /// none. If `inserts` is set and there is something to count, a new subject gets a slot.
    ///
    /// Lock-free, except for an insertion: an attempt fails only if another thread's exchange
    /// succeeded.
    #[expect(clippy::too_many_arguments, reason = "each caller differs in all of them")]
    fn decide_on<'m>(
        &'m self,
        rule: Rule<'_>,
        subject: Subject,
        mut found: Option<Found<'m>>,
        cost: u32,
        clock: impl Clock,
        inserts: bool,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        // Read once, so that the decision and the verdict have the same limits.
        let limits = &rule.limits();
        let mut now = clock.reading();
        let mut is_last_reading = false;
        let decision = loop {
            let Some(Found { slot, word, .. }) = found else {
                let decision = decide(limits, EMPTY, now);
                if decision.next == EMPTY || !inserts {
                    break decision;
                }
                match self.insert(subject, decision.next, &mut now, clock) {
                    Insertion::Done { next } => break Decision { next, ..decision },
                    // The subject has a slot after all, or the lock was lost.
                    Insertion::Again => found = self.find(subject),
                    Insertion::Full { until } => {
                        return self.check_full(rule, subject, cost, until, now, clock, decide);
                    }
                }
                continue;
            };
            let correction = decide::correction(&self.layout, word, &mut now, clock);
            let decision = decide(limits, word, now);
            if correction.is_none()
                && !is_last_reading
                && decide::is_outdated(decision, &mut now, clock)
            {
                is_last_reading = true;
                continue;
            }
            let next = correction.unwrap_or(decision.next);
            let exchanged = match next {
                same if same == word => Ok(()),
                next => compare_exchange::exchange_decided(slot.tally(), word, next),
            };
            // A correction charges nothing: the decision on the corrected word does.
            if exchanged.is_ok() && correction.is_none() {
                break decision;
            }
            let word = exchanged.err().unwrap_or(next);
            found = self.still_or_again(subject, found.map(|found| Found { word, ..found }));
        };
        Verdict::decided(rule.layout, limits, decision, None, now, cost)
    }

    /// Returns `found` if the slot still is the subject's, else searches again.
    ///
    /// Its word is the one that a failed exchange returned. Deciding on that is quick. A search
    /// would lose the next race too.
    fn still_or_again<'m>(
        &'m self,
        subject: Subject,
        found: Option<Found<'m>>,
    ) -> Option<Found<'m>> {
        found.filter(|found| self.is_unchanged(found)).or_else(|| self.find(subject))
    }

    /// Returns the subject's slot, if it has one. It is nearly always in its first home's cache
    /// line.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn find(&self, subject: Subject) -> Option<Found<'_>> {
        let [home, _] = self.homes_of(subject);
        self.find_in_line(subject, home, |_| true).or_else(|| self.find_in_all_lines(subject))
    }

    /// Returns the number of the subject's slot, if it has one.
    pub(super) fn slot_number(&self, subject: Subject) -> Option<u64> {
        self.find(subject).map(|found| self.number_of(found.slot))
    }

    /// Searches all four cache lines of the subject.
    ///
    /// A slot with a tombstone or a reservation may also have an owner word with the subject's
    /// fingerprint, if an inserter was stopped. So only slots with live tallies are considered.
    #[inline(never)]
    fn find_in_all_lines(&self, subject: Subject) -> Option<Found<'_>> {
        let other_line = |home: u64| home ^ LINE_SLOTS as u64;
        let [home, second_home] = self.homes_of(subject);
        let mut lines = [home, other_line(home), second_home, other_line(second_home)].into_iter();
        lines.find_map(|number| self.find_in_line(subject, number, |word| self.is_live(word)))
    }

    /// Returns what a slot of a cache line holds, if it is the subject's: the last slot with the
    /// subject's fingerprint and a word that `considers` accepts. `number` is that of any slot in
    /// the line.
    ///
    /// A processor cannot predict which of the slots it is. So the slot is selected without a
    /// branch, and each tally is loaded together with its owner word. On small targets, which
    /// predict little, a branch saves these loads.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn find_in_line(
        &self,
        subject: Subject,
        number: u64,
        considers: impl Fn(u64) -> bool,
    ) -> Option<Found<'_>> {
        let slots = self.line_of(number);
        let mut found = Found { slot: slots[0], owner: 0, word: TOMBSTONE };
        for slot in slots {
            let owner = slot.owner().load(Ordering::Acquire);
            let is_named = subject.is_named_by(owner);
            if cfg!(not(target_pointer_width = "64")) && !is_named {
                continue;
            }
            let word = slot.tally().load(Ordering::Acquire);
            let is_its = is_named & considers(word);
            found = select_unpredictable(is_its, Found { slot, owner, word }, found);
        }
        self.is_unchanged(&found).then_some(found)
    }

    /// Returns whether a word that was loaded after the slot's owner word is the subject's tally:
    /// the owner word must be unchanged.
    #[inline]
    fn is_unchanged(&self, found: &Found<'_>) -> bool {
        self.is_live(found.word) && found.slot.owner().load(Ordering::Acquire) == found.owner
    }

    #[inline]
    fn is_live(&self, word: u64) -> bool {
        word != TOMBSTONE && !self.layout.is_reservation(word)
    }
}

/// A subject's slot, the owner word that was loaded from it, and the tally that was loaded after
/// the owner word.
#[derive(Clone, Copy)]
struct Found<'m> {
    slot: Slot<'m>,
    owner: u64,
    word: u64,
}
