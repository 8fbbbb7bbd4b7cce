//! The check of a key, and the other operations on its tally: peek, refund, settle, reset.

use super::refusal::{Refusal, parse_reason};
use super::table::{Gate, holder};
use crate::bits::IS_64_BIT;
use crate::cache_line::CacheLine;
use crate::compare_exchange;
use crate::decide::{self, Decision};
use crate::features::Feature;
use crate::key::{self, KeyId, ParseKeyError};
use crate::mac::Message;
use crate::outcome::{Outcome, Reason};
use crate::quota::Limits;
use crate::record::{Record, RecordRef, RecordVersion};
use crate::stop::{Stop, stop};
use crate::sync::{AtomicU64, Ordering};
use crate::tally::Layout;
use crate::time::{Clock, Timestamp};
use crate::verdict::Verdict;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Checks the key and then charges `cost` to every window of its plan, if all have room for it,
    /// else to none.
    ///
    /// `api_key` is the value of the `X-API-Key` header, `None` when there was none. For an invalid
    /// key, no tally is read or written.
    ///
    /// If the plans have several sections, it charges those of the key and of its team, all or
    /// none. The verdict is then that on the key's first tally or, if another one lacks room, on
    /// that one. It has no [`charge`](Verdict::charge). Use [`part`](Self::part) for all verdicts
    /// and the charge.
    #[inline]
    pub fn check(&self, api_key: Option<&[u8]>, cost: u32, clock: impl Clock) -> Verdict {
        if Feature::Sections.is_included() && self.extension.is_some() {
            return self.check_extended(api_key, cost, clock);
        }
        self.check_with::<_, true>(api_key, cost, clock)
    }

    /// The check in an extended gate.
    #[cold]
    #[inline(never)]
    fn check_extended(&self, api_key: Option<&[u8]>, cost: u32, clock: impl Clock) -> Verdict {
        self.part(api_key, cost).check(clock).decisive().without_charge()
    }

    /// Returns the verdict that [`check`](Self::check) would give now, and charges nothing.
    pub fn peek(&self, api_key: Option<&[u8]>, cost: u32, clock: impl Clock) -> Verdict {
        if Feature::Sections.is_included() && self.extension.is_some() {
            return self.part(api_key, cost).peek(clock).decisive().without_charge();
        }
        self.check_with::<_, false>(api_key, cost, clock).without_charge()
    }

    /// Sets all counts of the key to 0, in the tallies of all its sections but the team's. Returns
    /// `None` if the gate does not have the key. If the outcome is [`Outcome::Unavailable`], repeat
    /// it in the other gate.
    pub fn reset(&self, key_id: KeyId, clock: impl Clock) -> Option<Verdict> {
        let mut first = None;
        for tally in (0..self.tally_count()).filter(|&tally| !self.is_shared(tally)) {
            let verdict = self.adjust_tally(key_id, tally, clock, decide::reset)?;
            if verdict.outcome() == Outcome::Unavailable {
                return Some(verdict);
            }
            first = first.or(Some(verdict));
        }
        first
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
            .all_tallies()
            .filter(|(tally, layout)| compare_exchange::correct(tally, layout, clock));
        corrected.count() as u64
    }

    /// Checks the key, and charges it if `CHARGES` is set.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn check_with<C: Clock, const CHARGES: bool>(
        &self,
        api_key: Option<&[u8]>,
        cost: u32,
        clock: C,
    ) -> Verdict {
        let decide = |limits: &Limits, word, now| match CHARGES {
            true => decide::check(&self.layout, limits, word, now, cost),
            false => decide::peek(&self.layout, limits, word, now, cost),
        };
        let now = clock.reading();
        let Some(text) = api_key else {
            return Verdict::refused(Outcome::MissingKey, None, now);
        };
        if !IS_64_BIT {
            return self.verify_and_decide(text, cost, now, clock, decide);
        }
        // Fast path: a single attempt. Everything else falls through to `check_slow`.
        let (at, record, ended) = match self.verify_own(text, now, |_| ()) {
            Ok(verified) => verified,
            Err(reason) => {
                return match key::validate(text) {
                    Ok(_) => Verdict::invalid(reason, None, now),
                    Err(error) => self.check_imported(text, error, cost, clock, decide),
                };
            }
        };
        if let Some(reason) = ended {
            return Verdict::invalid(reason, holder(&record), now);
        }
        stop(Stop::KeyVerified);
        let (limits, tally) = (self.limits(record.plan), at.tally());
        let word = tally.load(Ordering::Acquire);
        if at.is_unchanged(&record) && self.layout.is_decidable::<C>(word, now) {
            // Not by the closure, which would then be called.
            let decision = match CHARGES {
                true => decide::check(&self.layout, &limits, word, now, cost),
                false => decide::peek(&self.layout, &limits, word, now, cost),
            };
            // Keep the first comparison out of `exchange_decided`: with it there, code generation
            // leaked through timing whether an unknown key's record is free (`cargo timing`).
            if decide::is_final(decision, clock)
                && (decision.next == word
                    || compare_exchange::exchange_decided(tally, word, decision.next).is_ok())
            {
                return Verdict::decided_at(
                    &self.layout,
                    &limits,
                    decision,
                    holder(&record),
                    now,
                    cost,
                    // The decision moved no stamp that was within its unit.
                    self.layout.is_within(word, now),
                );
            }
        }
        self.check_slow(text, at.version(&record), cost, clock, decide)
    }

    /// The check of a text that is not a key of Keytally's form, because of `error`.
    #[cold]
    #[inline(never)]
    fn check_imported(
        &self,
        text: &[u8],
        error: ParseKeyError,
        cost: u32,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        let now = clock.reading();
        match self.verify_imported(text, parse_reason(error), now) {
            Ok((at, record)) => self.check_slow(text, at.version(&record), cost, clock, decide),
            Err(Refusal { reason, holder }) => Verdict::invalid(reason, holder, now),
        }
    }

    /// The slow path of a check: retries until the exchange succeeds or the key is invalid.
    ///
    /// `verified` is the version of the record that was verified for the first reading of `clock`.
    /// It takes few words, so that the fast path does not store the record for this call.
    #[cold]
    #[inline(never)]
    fn check_slow(
        &self,
        text: &[u8],
        verified: RecordVersion,
        cost: u32,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        let mut now = clock.reading();
        if let Some((at, record)) = &self.find_version(verified) {
            let limits = self.limits(record.plan);
            let decision = self.decide_verified(*at, record, &limits, &mut now, clock, &decide);
            if let Some(decision) = decision {
                return self.decided(record, &limits, decision, now, cost);
            }
        }
        // The key may have expired, or an administrator reassigned the record.
        now = clock.at_least(now);
        self.verify_and_decide(text, cost, now, clock, decide)
    }

    /// Verifies the key at `now` and decides, until the exchange succeeds or the key is invalid.
    fn verify_and_decide(
        &self,
        text: &[u8],
        cost: u32,
        mut now: Timestamp,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        loop {
            let located = self.locate(text);
            let reason = match (located, &located.and_then(|(_, at)| at.read())) {
                (Some((key_id, at)), Some(record)) => {
                    match self.compare_secrets(key_id, &Message::new(text), record, now) {
                        Ok(None) => {
                            let limits = self.limits(record.plan);
                            let decision =
                                self.decide_verified(at, record, &limits, &mut now, clock, &decide);
                            if let Some(decision) = decision {
                                return self.decided(record, &limits, decision, now, cost);
                            }
                            None
                        }
                        Ok(Some(reason)) => return Verdict::invalid(reason, holder(record), now),
                        Err(reason) => Some(reason),
                    }
                }
                (Some(_), None) => Some(Reason::Damaged),
                (None, _) => Some(Reason::Malformed),
            };
            if let Some(reason) = reason {
                match self.verify_other(text, reason, now) {
                    Ok((at, record)) => {
                        let limits = self.limits(record.plan);
                        let decision =
                            self.decide_verified(at, &record, &limits, &mut now, clock, &decide);
                        if let Some(decision) = decision {
                            return self.decided(&record, &limits, decision, now, cost);
                        }
                    }
                    Err(Refusal { reason, holder }) => {
                        return Verdict::invalid(reason, holder, now);
                    }
                }
            }
            now = clock.at_least(now);
        }
    }

    /// Applies `decide` to the tally of a record whose secret was verified at `now`. Returns `None`
    /// if the key ended since, or if the record was reassigned.
    #[inline]
    fn decide_verified(
        &self,
        at: RecordRef<'_>,
        record: &Record,
        limits: &Limits,
        now: &mut Timestamp,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Option<Decision> {
        update_verified(at, record, (at.tally(), &self.layout), now, clock, |word, now| {
            decide(limits, word, now)
        })
    }

    /// Returns the record if it still has this version.
    pub(super) fn find_version(&self, version: RecordVersion) -> Option<(RecordRef<'_>, Record)> {
        let at = self.record(u64::from(version.number));
        let record = at.read()?;
        (at.version(&record) == version).then_some((at, record))
    }

    /// Returns the verdict that follows from a decision about a record's tally.
    fn decided(
        &self,
        record: &Record,
        limits: &Limits,
        decision: Decision,
        now: Timestamp,
        cost: u32,
    ) -> Verdict {
        if decision.outcome == Outcome::Unavailable {
            return Verdict::unavailable(holder(record), now);
        }
        Verdict::decided(&self.layout, limits, decision, holder(record), now, cost)
    }
}

/// Applies `decide` to a tally of a record whose secret was verified at `now`. Returns `None` if
/// the key ended since, or if the record was reassigned. If the tally is sealed, the outcome is
/// [`Outcome::Unavailable`].
#[inline]
pub(super) fn update_verified(
    at: RecordRef<'_>,
    record: &Record,
    (tally, layout): (&AtomicU64, &Layout),
    now: &mut Timestamp,
    clock: impl Clock,
    decide: impl Fn(u64, Timestamp) -> Decision,
) -> Option<Decision> {
    // The update may read the clock again, and the key may end before that time.
    let in_grace = record.is_in_grace(*now);
    compare_exchange::update(tally, layout, now, clock, |word, now| {
        let is_valid = at.is_unchanged(record)
            && !record.has_ended(now)
            && record.is_in_grace(now) == in_grace;
        is_valid.then(|| decide(word, now))
    })
}
