//! A subject as a part of a compound charge.

use super::slot::Subject;
use super::table::Limiter;
use crate::cache_line::CacheLine;
use crate::compound::{Position, Steps, TallyVerdict};
use crate::time::Clock;
use crate::verdict::Verdict;

/// A subject of a limiter as a part of a compound charge. [`Limiter::part`] returns it.
#[derive(Debug)]
pub struct LimiterPart<'l, M> {
    limiter: &'l Limiter<M>,
    subject: Subject,
    cost: u32,
    /// The result of the last step.
    verdict: Option<Verdict>,
}

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Returns the subject and a cost as a part of [`check_all`](crate::check_all).
    pub fn part(&self, subject: &[u8], cost: u32) -> LimiterPart<'_, M> {
        LimiterPart { limiter: self, subject: self.subject(subject), cost, verdict: None }
    }
}

impl<M: AsRef<[CacheLine]>, C: Clock> Steps<C> for LimiterPart<'_, M> {
    fn fetch(&self) {
        self.limiter.fetch(self.subject);
    }

    fn probe(&mut self, clock: C) -> bool {
        let verdict = self.limiter.peek_subject(self.subject, self.cost, clock);
        self.verdict = Some(verdict);
        verdict.is_admitted()
    }

    fn tallies(&self) -> usize {
        1
    }

    fn position(&self, _: usize) -> Position {
        (self.limiter.id(), self.limiter.home_of(self.subject))
    }

    fn charge(&mut self, _: usize, clock: C) -> bool {
        let verdict = self.limiter.check_subject(self.subject, self.cost, clock);
        self.verdict = Some(verdict);
        verdict.is_admitted()
    }

    fn give_back(&mut self, _: usize, clock: C) {
        if let Some(charge) = self.verdict.and_then(|verdict| verdict.charge()) {
            self.verdict = Some(self.limiter.refund_subject(self.subject, charge, clock));
        }
    }

    fn report(&self, report: &mut dyn FnMut(TallyVerdict)) {
        if let Some(verdict) = self.verdict {
            report(TallyVerdict::new(verdict));
        }
    }
}
