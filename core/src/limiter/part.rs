//! A subject as a part of a compound charge.

use super::slot::Subject;
use super::table::Limiter;
use crate::cache_line::CacheLine;
use crate::charge::SHARED;
use crate::compound::{Charging, Steps};
use crate::key::KeyId;
use crate::reservation::{Reserve, TallyNumbers};
use crate::tally_verdict::TallyVerdict;
use crate::time::Clock;
use crate::verdict::Verdict;

/// A subject of a limiter as a part of a compound charge. [`Limiter::part`] returns it.
#[derive(Debug)]
pub struct LimiterPart<'l, M> {
    limiter: &'l Limiter<M>,
    subject: Subject,
    cost: u32,
    reservation: Option<&'l dyn Reserve>,
}

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Returns the subject and a cost as a part of [`check_all`](crate::check_all).
    pub fn part(&self, subject: &[u8], cost: u32) -> LimiterPart<'_, M> {
        LimiterPart { limiter: self, subject: self.subject(subject), cost, reservation: None }
    }
}

impl<'l, M> LimiterPart<'l, M> {
    /// Also reserves what `reservation` says, as all processes do that use the limiter.
    #[must_use]
    pub fn with_reservation(self, reservation: Option<&'l dyn Reserve>) -> Self {
        Self { reservation, ..self }
    }
}

impl<M: AsRef<[CacheLine]>> TallyNumbers for LimiterPart<'_, M> {
    fn tally_number(&self, _: KeyId, _: usize) -> Option<u64> {
        None
    }

    fn subject_number(&self, tally: usize) -> Option<(u64, u64)> {
        self.limiter.number_by(self.subject, 0, 1, tally & usize::from(SHARED) != 0)
    }
}

impl<M: AsRef<[CacheLine]>, C: Clock> Steps<C> for LimiterPart<'_, M> {
    fn fetch(&self) {
        self.limiter.fetch(self.subject);
    }

    fn probe<'p>(&'p self, charging: &mut Charging<'_, 'p>, clock: C) {
        let Self { limiter, subject, cost, .. } = *self;
        let position = (limiter.id(), limiter.home_of(subject));
        let (verdict, exchange) = match limiter.probe_by(limiter.rule(), subject, cost, clock) {
            Some((verdict, exchange)) => (verdict, Some(exchange)),
            None => (limiter.peek_by(limiter.rule(), subject, cost, clock), None),
        };
        charging.add_tally(TallyVerdict::new(verdict), position, exchange);
    }

    fn charge(&self, tally: &mut TallyVerdict, clock: C) {
        tally.verdict = self.limiter.check_subject(self.subject, self.cost, clock);
    }

    fn has_extras(&self) -> bool {
        self.reservation.is_some()
    }

    fn reservation(&self) -> Option<(&dyn Reserve, &dyn TallyNumbers)> {
        Some((self.reservation?, self))
    }

    fn refund(&self, tally: &TallyVerdict, clock: C) -> Option<Verdict> {
        let charge = tally.verdict.charge()?;
        Some(self.limiter.refund_by(self.limiter.rule(), self.subject, charge, clock))
    }
}
