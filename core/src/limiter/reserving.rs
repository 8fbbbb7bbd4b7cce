//! A limiter whose requests also need a reservation, such as units that several machines share.

use core::ops::Deref;

use heapless::Vec;

use super::addresses::{AddressLimiter, AddressPart};
use super::part::LimiterPart;
use super::table::Limiter;
use crate::address::Address;
use crate::cache_line::CacheLine;
use crate::charge::{Charge, MAX, TallyCharge};
use crate::compound::{Compound, charge_one};
use crate::gate::Settlement;
use crate::reservation::{Reserve, TallyNumbers};
use crate::tally_verdict::{Refusal, TallyVerdict};
use crate::time::{Clock, Timestamp};
use crate::verdict::Verdict;

/// A limiter whose requests reserve what they need. [`Limiter::reserving`] and
/// [`AddressLimiter::reserving`] return it.
///
/// Its methods are those of the limiter. They also reserve what they charge, and release what they
/// give back. There is no overdraft of a reservation.
#[derive(Debug)]
pub struct Reserving<'l, L> {
    limiter: &'l L,
    reservation: Option<&'l dyn Reserve>,
}

impl<L> Clone for Reserving<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Reserving<'_, L> {}

impl<L> Deref for Reserving<'_, L> {
    type Target = L;

    #[inline]
    fn deref(&self) -> &L {
        self.limiter
    }
}

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Returns this limiter as one whose requests reserve what they need; `None` for nothing.
    #[inline]
    pub fn reserving<'l>(&'l self, reservation: Option<&'l dyn Reserve>) -> Reserving<'l, Self> {
        Reserving { limiter: self, reservation }
    }
}

impl<M: AsRef<[CacheLine]>> AddressLimiter<M> {
    /// Returns this limiter as one whose requests reserve what they need; `None` for nothing.
    #[inline]
    pub fn reserving<'l>(&'l self, reservation: Option<&'l dyn Reserve>) -> Reserving<'l, Self> {
        Reserving { limiter: self, reservation }
    }
}

impl<'l, M: AsRef<[CacheLine]>> Reserving<'l, Limiter<M>> {
    /// Returns the subject and a cost as a part of [`check_all`](crate::check_all).
    pub fn part(self, subject: &[u8], cost: u32) -> LimiterPart<'l, M> {
        self.limiter.part(subject, cost).with_reservation(self.reservation)
    }

    /// Charges `cost` to the subject: see [`Limiter::check`].
    pub fn check(self, subject: &[u8], cost: u32, clock: impl Clock) -> Verdict {
        let verdict = self.limiter.check(subject, cost, clock);
        let Some(reservation) = self.reservation.filter(|_| verdict.is_charged()) else {
            return verdict;
        };
        let mut tally = TallyVerdict::new(verdict);
        match reservation.reserve(&self.part(subject, cost), core::slice::from_mut(&mut tally)) {
            None => tally.verdict,
            Some(Refusal { verdict, .. }) => {
                if let Some(charge) = tally.verdict.charge() {
                    self.limiter.refund(subject, charge, clock);
                }
                verdict
            }
        }
    }

    /// Returns the verdict that [`check`](Self::check) would give now, and charges nothing: see
    /// [`Limiter::peek`].
    pub fn peek(self, subject: &[u8], cost: u32, clock: impl Clock) -> Verdict {
        self.show(subject, self.limiter.peek(subject, cost, clock))
    }

    /// Returns the units of a charge: see [`Limiter::refund`].
    pub fn refund(self, subject: &[u8], charge: Charge, clock: impl Clock) -> Verdict {
        let refunded = self.limiter.refund(subject, charge, clock);
        if let Some(reservation) = self.reservation {
            release(reservation, &self.part(subject, 0), &charge);
        }
        self.show_after(subject, &charge, refunded)
    }

    /// Replaces an estimate by the actual cost: see [`Limiter::settle`].
    pub fn settle(
        self,
        subject: &[u8],
        estimate: Charge,
        actual: u32,
        clock: impl Clock,
    ) -> Verdict {
        self.settle_all(subject, estimate, &Settlement::new().with_cost(actual), clock)
    }

    /// Replaces an estimate by the actual cost: see [`Limiter::settle_all`].
    pub fn settle_all(
        self,
        subject: &[u8],
        estimate: Charge,
        settlement: &Settlement<'_>,
        clock: impl Clock,
    ) -> Verdict {
        let settle = |settlement: &_| self.limiter.settle_all(subject, estimate, settlement, clock);
        let Some(reservation) = self.reservation.filter(|_| !estimate.is_unreserved()) else {
            return settle(settlement);
        };
        let part = self.part(subject, 0);
        let mut difference =
            Difference::reserve(reservation, &part, &estimate, settlement, clock.reading());
        let mut settled = settle(&difference.settlement());
        settled.uncharged = difference.finish(settled.uncharged);
        self.show_after(subject, &estimate, settled)
    }

    /// Makes a verdict on the subject's own tally, which charged nothing, show what could be
    /// reserved.
    fn show(self, subject: &[u8], verdict: Verdict) -> Verdict {
        let Some(reservation) = self.reservation.filter(|_| verdict.is_admitted()) else {
            return verdict;
        };
        let mut tally = TallyVerdict::new(verdict);
        match reservation.peek(&self.part(subject, 0), core::slice::from_mut(&mut tally)) {
            None => tally.verdict,
            Some(Refusal { verdict, .. }) => verdict,
        }
    }

    /// Shows the verdict on the tally that a charge was made to.
    fn show_after(self, subject: &[u8], charge: &Charge, verdict: Verdict) -> Verdict {
        // The subject may have a slot by now, whose units are others.
        if charge.is_shared() { verdict } else { self.show(subject, verdict) }
    }
}

impl<'l, M: AsRef<[CacheLine]>> Reserving<'l, AddressLimiter<M>> {
    /// Returns the address and a cost as a part of [`check_all`](crate::check_all).
    pub fn part(self, address: Address, cost: u32) -> AddressPart<'l, M> {
        self.limiter.part(address, cost).with_reservation(self.reservation)
    }

    /// Charges `cost` to the networks of the address: see [`AddressLimiter::check`].
    pub fn check(self, address: Address, cost: u32, clock: impl Clock) -> Compound {
        match self.reservation {
            None => self.limiter.check(address, cost, clock),
            Some(_) => charge_one(&self.part(address, cost), true, clock),
        }
    }

    /// Returns what [`check`](Self::check) would return now, and charges nothing: see
    /// [`AddressLimiter::peek`].
    pub fn peek(self, address: Address, cost: u32, clock: impl Clock) -> Compound {
        charge_one(&self.part(address, cost), false, clock)
    }

    /// Returns the units of a charge: see [`AddressLimiter::refund`].
    pub fn refund(self, address: Address, charge: Charge, clock: impl Clock) -> Compound {
        let refunded = self.limiter.refund(address, charge, clock);
        if let Some(reservation) = self.reservation {
            release(reservation, &self.part(address, 0), &charge);
        }
        self.show(address, refunded)
    }

    /// Replaces an estimate by the actual cost: see [`AddressLimiter::settle`].
    pub fn settle(
        self,
        address: Address,
        estimate: Charge,
        actual: u32,
        clock: impl Clock,
    ) -> Compound {
        self.settle_all(address, estimate, &Settlement::new().with_cost(actual), clock)
    }

    /// Replaces an estimate by the actual cost: see [`AddressLimiter::settle_all`].
    pub fn settle_all(
        self,
        address: Address,
        estimate: Charge,
        settlement: &Settlement<'_>,
        clock: impl Clock,
    ) -> Compound {
        let settle = |settlement: &_| self.limiter.settle_all(address, estimate, settlement, clock);
        let Some(reservation) = self.reservation.filter(|_| !estimate.is_unreserved()) else {
            return settle(settlement);
        };
        let part = self.part(address, 0);
        let mut difference =
            Difference::reserve(reservation, &part, &estimate, settlement, clock.reading());
        let mut settled = settle(&difference.settlement());
        let uncharged = settled.verdicts().map(Verdict::uncharged).max().unwrap_or(0);
        let uncharged = difference.finish(uncharged);
        settled.tallies_mut().iter_mut().for_each(|tally| tally.verdict.uncharged = uncharged);
        self.show(address, settled)
    }

    /// Makes verdicts that charged nothing show what could be reserved.
    fn show(self, address: Address, mut compound: Compound) -> Compound {
        if let Some(reservation) = self.reservation.filter(|_| compound.is_admitted())
            && let Some(Refusal { index, verdict }) =
                reservation.peek(&self.part(address, 0), compound.tallies_mut())
            && let Some(refused) = compound.tallies_mut().get_mut(index)
        {
            refused.verdict = verdict;
        }
        compound
    }
}

/// Releases all units of a charge.
fn release(reservation: &dyn Reserve, table: &dyn TallyNumbers, charge: &Charge) {
    for entry in charge.entries().filter(|_| !charge.is_unreserved()) {
        reservation.refund(table, None, entry.tally.into(), entry.charge());
    }
}

/// The difference between the estimate of a charge and its actual cost, in units that are reserved.
struct Difference<'d> {
    reservation: &'d dyn Reserve,
    table: &'d dyn TallyNumbers,
    estimate: &'d Charge,
    now: Timestamp,
    /// The actual cost as far as units for it are reserved; `None` if the estimate was right.
    actual: Option<u32>,
    /// The units that were reserved, and those that could not be.
    more: u32,
    lacking: u32,
}

impl<'d> Difference<'d> {
    /// Reserves what the actual cost is above the estimate.
    fn reserve(
        reservation: &'d dyn Reserve,
        table: &'d dyn TallyNumbers,
        estimate: &'d Charge,
        settlement: &Settlement<'_>,
        now: Timestamp,
    ) -> Self {
        let wanted = settlement.cost.unwrap_or(0).saturating_sub(estimate.cost());
        let mut tallies = Vec::<usize, MAX>::new();
        for entry in estimate.entries() {
            // There is room for every tally of a charge.
            let _ = tallies.push(entry.tally.into());
        }
        let more = match wanted {
            0 => 0,
            _ => reservation.reserve_more(table, None, &tallies, wanted, now).min(wanted),
        };
        let lacking = wanted - more;
        let actual = settlement.cost.map(|cost| cost - lacking);
        Self { reservation, table, estimate, now, actual, more, lacking }
    }

    /// Returns what is to be settled in the tallies.
    fn settlement(&self) -> Settlement<'static> {
        self.actual.map_or(Settlement::new(), |actual| Settlement::new().with_cost(actual))
    }

    /// Releases what the settlement gave back, and what was reserved and not charged. Returns the
    /// units that were not charged in total.
    fn finish(&mut self, uncharged: u32) -> u32 {
        let less = self.actual.map_or(0, |actual| self.estimate.cost().saturating_sub(actual));
        let surplus = uncharged.min(self.more);
        for entry in self.estimate.entries() {
            let charge = TallyCharge { cost: less, ..entry.charge() };
            let unused = TallyCharge { cost: surplus, at: self.now };
            for charge in [charge, unused].into_iter().filter(|charge| charge.cost > 0) {
                self.reservation.refund(self.table, None, entry.tally.into(), charge);
            }
        }
        uncharged.saturating_add(self.lacking)
    }
}
