//! The overflow tallies: one for each bucket, for the subjects that find no slot.
//!
//! If a table has [`OnFull::Share`], a new subject that finds both of its buckets full is charged
//! to the overflow tally of its first bucket. The decision is the usual one, under the same limits.
//! An overflow tally is never given to another bucket, so no protocol guards it: each charge is one
//! compare-exchange.
//!
//! - No overflow tally admits more than its limit in a window, whichever subjects charge it.
//! - A charge names the tally that it was made to. Its refund and its settlement change that tally,
//!   also if the subject has a slot by then.
//! - A subject that gets a slot begins there with its whole limit. So it can be admitted up to its
//!   limit again, in the window in which it was charged to the overflow tally.
//! - A peek and a reset of a subject without a slot read the buckets. If both are full, they apply
//!   to the overflow tally, which other subjects share.

use super::on_full::OnFull;
use super::slot::Subject;
use super::table::{Limiter, Rule};
use crate::cache_line::CacheLine;
use crate::compare_exchange;
use crate::decide::Decision;
use crate::quota::Limits;
use crate::sync::Ordering;
use crate::tally::EMPTY;
use crate::time::{Clock, Timestamp};
use crate::verdict::Verdict;

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Decides about a request whose subject found no slot. There will be one at `until`.
    #[cold]
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "each caller differs in all of them")]
    pub(super) fn check_full(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        cost: u32,
        until: Timestamp,
        now: Timestamp,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        self.count_refusal();
        match self.on_full() {
            OnFull::Refuse => Verdict::full(until, now),
            OnFull::Share => self.decide_on_overflow(rule, subject, cost, now, clock, decide),
        }
    }

    /// Applies `decide` to the overflow tally of the subject's first bucket.
    pub(super) fn decide_on_overflow(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        cost: u32,
        mut now: Timestamp,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        let [bucket, _] = self.buckets_of(subject);
        let tally = self.overflow_tally(bucket);
        let (layout, limits) = (rule.layout, &rule.limits());
        let decided = |word, now| Some(decide(limits, word, now));
        // It is always decided, because the tally is never reassigned.
        let decision = compare_exchange::update(tally, layout, &mut now, clock, decided)
            .unwrap_or_else(|| decide(limits, EMPTY, now));
        Verdict::decided(layout, limits, decision, None, now, cost).shared()
    }

    /// Charges `cost` to the overflow tally of the subject's first bucket, if it has room.
    pub(super) fn check_shared(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        cost: u32,
        clock: impl Clock,
    ) -> Verdict {
        self.decide_on_overflow(rule, subject, cost, clock.reading(), clock, rule.check(cost))
    }

    /// Returns the verdict that [`check_shared`](Self::check_shared) would give now, and charges
    /// nothing.
    pub(super) fn peek_shared(
        &self,
        rule: Rule<'_>,
        subject: Subject,
        cost: u32,
        clock: impl Clock,
    ) -> Verdict {
        let now = clock.reading();
        self.decide_on_overflow(rule, subject, cost, now, clock, rule.peek(cost)).without_charge()
    }

    /// Returns whether a subject without a slot is charged to an overflow tally now.
    pub(super) fn overflows(&self, subject: Subject, clock: impl Clock) -> bool {
        if self.on_full() == OnFull::Refuse {
            return false;
        }
        let now = clock.at_least(clock.reading());
        let buckets = self.buckets_of(subject);
        let mut slots = buckets.into_iter().flat_map(|bucket| self.slots(bucket));
        slots.all(|slot| {
            let word = slot.tally().load(Ordering::Relaxed);
            self.layout.is_reservation(word) || !self.layout.is_reusable(word, now)
        })
    }
}
