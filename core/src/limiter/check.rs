//! The check of a subject, and the other operations on its tally: peek, refund, settle, reset.

use super::insert::Insertion;
use super::slot::{Slot, Subject, TOMBSTONE};
use super::table::Limiter;
use crate::cache_line::CacheLine;
use crate::charge::Charge;
use crate::compare_exchange;
use crate::decide::{self, Decision};
use crate::sync::Ordering;
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
    #[inline]
    pub fn check_subject(&self, subject: Subject, cost: u32, clock: impl Clock) -> Verdict {
        self.decide_on(subject, cost, clock, true, |word, now| {
            decide::check(&self.layout, &self.limits, word, now, cost)
        })
    }

    /// Returns the verdict that [`check`](Self::check) would give now, and charges nothing. Whether
    /// a new subject would find a free slot is not looked up.
    pub fn peek(&self, subject: &[u8], cost: u32, clock: impl Clock) -> Verdict {
        self.decide_on(self.subject(subject), cost, clock, false, |word, now| {
            decide::peek(&self.layout, &self.limits, word, now, cost)
        })
        .without_charge()
    }

    /// Returns the units of `charge` to the windows that still count them. Refund each charge once.
    pub fn refund(&self, subject: &[u8], charge: Charge, clock: impl Clock) -> Verdict {
        self.decide_on(self.subject(subject), 0, clock, false, |word, now| {
            decide::refund(&self.layout, &self.limits, word, now, charge)
        })
        .without_charge()
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
        self.decide_on(self.subject(subject), 0, clock, true, |word, now| {
            decide::settle(&self.layout, &self.limits, word, now, estimate, actual)
        })
        .without_charge()
    }

    /// Sets all counts of the subject to 0.
    pub fn reset(&self, subject: &[u8], clock: impl Clock) -> Verdict {
        self.decide_on(self.subject(subject), 0, clock, false, |word, now| {
            decide::reset(&self.layout, &self.limits, word, now)
        })
        .without_charge()
    }

    /// Corrects every tally that is ahead of the clock by more than 60 s, and keeps its counts.
    /// Returns how many it corrected.
    ///
    /// A system clock is read again after each tally was loaded. An explicit time is older than the
    /// loads. If the call is then stopped for more than 60 s between a load and its correction,
    /// each tally that is charged meanwhile may admit one more window. With an explicit time, call
    /// this while no other thread or process charges.
    pub fn correct_clock(&self, clock: impl Clock) -> u64 {
        let corrected = self
            .all_slots()
            .filter(|slot| compare_exchange::correct(slot.tally(), &self.layout, clock));
        corrected.count() as u64
    }

    /// Applies `decide` to the subject's tally, or to an empty one if it has none. If `inserts` is
    /// set and there is something to count, a new subject gets a slot.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn decide_on<C: Clock>(
        &self,
        subject: Subject,
        cost: u32,
        clock: C,
        inserts: bool,
        decide: impl Fn(u64, Timestamp) -> Decision,
    ) -> Verdict {
        if !compare_exchange::HAS_FAST_PATH {
            return self.decide_slow(subject, None, cost, clock, inserts, decide);
        }
        let now = clock.reading();
        // Fast path: a single attempt for a subject that has a slot. Contention and new subjects
        // fall through.
        let mut found = None;
        if let Some(slot) = self.probe_owners(subject)
            && let Some(seen) = self.probe_slot(subject, slot)
            && self.layout.is_decidable::<C>(seen.word, now)
        {
            let decision = decide(seen.word, now);
            let exchanged = match decision.next {
                same if same == seen.word => Ok(()),
                next => compare_exchange::exchange_decided(slot.tally(), seen.word, next),
            };
            match exchanged {
                Ok(()) => {
                    return Verdict::decided(&self.layout, &self.limits, decision, None, now, cost);
                }
                Err(present) => found = Some(Found { word: present, ..seen }),
            }
        }
        self.decide_slow(subject, found, cost, clock, inserts, decide)
    }

    /// The slow path: another thread exchanged the tally, the subject has no slot, or its tally is
    /// ahead of the clock's reading.
    ///
    /// Lock-free, except for an insertion: an attempt fails only if another thread's exchange
    /// succeeded.
    #[cold]
    #[inline(never)]
    fn decide_slow<'m>(
        &'m self,
        subject: Subject,
        mut found: Option<Found<'m>>,
        cost: u32,
        clock: impl Clock,
        inserts: bool,
        decide: impl Fn(u64, Timestamp) -> Decision,
    ) -> Verdict {
        let mut now = clock.reading();
        let decision = loop {
            // Retry on the value that the failed exchange returned; probing again loses the next
            // race too.
            found = found.filter(|found| self.is_unchanged(found)).or_else(|| self.probe(subject));
            let word = found.as_ref().map_or(EMPTY, |found| found.word);
            if let Some(Found { slot, .. }) = &found
                && let Some(corrected) = decide::correction(&self.layout, word, &mut now, clock)
            {
                let word = compare_exchange::exchange_decided(slot.tally(), word, corrected)
                    .err()
                    .unwrap_or(corrected);
                found = found.map(|found| Found { word, ..found });
                continue;
            }
            let decision = decide(word, now);
            if decision.next == word {
                break decision;
            }
            found = match found {
                Some(found) => {
                    match compare_exchange::exchange_decided(
                        found.slot.tally(),
                        word,
                        decision.next,
                    ) {
                        Ok(()) => break decision,
                        Err(present) => Some(Found { word: present, ..found }),
                    }
                }
                None if !inserts => break decision,
                None => match self.insert(subject, decision.next, &mut now, clock) {
                    Insertion::Done { next } => break Decision { next, ..decision },
                    // The subject has a slot after all, or the lock was lost.
                    Insertion::Again => None,
                    Insertion::Full { until } => {
                        let until = Timestamp::from_unix_ms(self.layout.stamp_start_ms(until));
                        return Verdict::full(until, now);
                    }
                },
            };
        };
        Verdict::decided(&self.layout, &self.limits, decision, None, now, cost)
    }

    /// Returns the first slot with the subject's fingerprint, which nearly always is the subject's.
    ///
    /// Compares one owner word at a time, with a branch for each, so that branch prediction can run
    /// ahead of the hash for a busy subject. Comparing a line at once was 3 ns faster for a random
    /// one of 1,000 subjects, and 5 ns slower for a busy one (`cargo xtask bench`).
    #[inline(never)]
    fn probe_owners(&self, subject: Subject) -> Option<Slot<'_>> {
        for bucket in self.buckets_of(subject) {
            for line in self.bucket(bucket) {
                for slot in line.words().as_chunks().0 {
                    if subject.is_named_by(slot[0].load(Ordering::Acquire)) {
                        return Some(Slot(slot));
                    }
                }
            }
        }
        None
    }

    /// Returns the subject's slot, if it has one.
    fn probe(&self, subject: Subject) -> Option<Found<'_>> {
        let mut slots = self.buckets_of(subject).into_iter().flat_map(|bucket| self.slots(bucket));
        slots.find_map(|slot| self.probe_slot(subject, slot))
    }

    /// Returns what a slot holds, if it is the subject's.
    #[inline]
    fn probe_slot<'m>(&self, subject: Subject, slot: Slot<'m>) -> Option<Found<'m>> {
        let owner = slot.owner().load(Ordering::Acquire);
        if !subject.is_named_by(owner) {
            return None;
        }
        let found = Found { slot, owner, word: slot.tally().load(Ordering::Acquire) };
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
struct Found<'m> {
    slot: Slot<'m>,
    owner: u64,
    word: u64,
}
