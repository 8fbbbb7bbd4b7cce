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
}

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Returns the subject and a cost as a part of [`check_all`](crate::check_all).
    pub fn part(&self, subject: &[u8], cost: u32) -> LimiterPart<'_, M> {
        LimiterPart { limiter: self, subject: self.subject(subject), cost }
    }
}

impl<M: AsRef<[CacheLine]>, C: Clock> Steps<C> for LimiterPart<'_, M> {
    fn fetch(&self) {
        self.limiter.fetch(self.subject);
    }

    fn probe(&mut self, clock: C, report: &mut dyn FnMut(TallyVerdict)) {
        let verdict = self.limiter.peek_subject(self.subject, self.cost, clock);
        report(TallyVerdict::new(verdict));
    }

    fn position(&self, _: u8) -> Position {
        (self.limiter.id(), self.limiter.home_of(self.subject))
    }

    fn charge(&mut self, _: u8, clock: C) -> Verdict {
        self.limiter.check_subject(self.subject, self.cost, clock)
    }

    fn give_back(&mut self, _: u8, charged: &Verdict, clock: C) -> Option<Verdict> {
        Some(self.limiter.refund_subject(self.subject, charged.charge()?, clock))
    }
}
