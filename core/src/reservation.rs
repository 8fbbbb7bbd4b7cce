//! Reservations: what a request needs in addition to room in the tallies of a gate or a limiter.
//!
//! A table decides by its tallies alone. A reservation is for a server that must also have
//! something else for each request, such as units that several machines share. It is called after
//! all tallies were charged. If it refuses, the charges are given back, so a refused request
//! charges nothing.

use core::fmt;

use crate::charge::TallyCharge;
use crate::key::KeyId;
use crate::outcome::Unavailability;
use crate::tally_verdict::{Refusal, TallyVerdict};
use crate::time::Timestamp;
#[cfg(doc)]
use crate::verdict::Verdict;

/// A gate, or a request of a limiter, which numbers its tallies.
pub trait TallyNumbers {
    /// Returns the number of a tally that requests of a key charge: see
    /// [`Gate::tally_number`](crate::Gate::tally_number). `None` for a limiter.
    fn tally_number(&self, key_id: KeyId, tally: usize) -> Option<u64>;

    /// Returns the number of a tally of a limiter's request and the number of its
    /// [owner](crate::NumberedSubject::owner), by its
    /// [`charge_index`](TallyVerdict::charge_index). `None` for a gate, and if the subject has no
    /// slot.
    fn subject_number(&self, tally: usize) -> Option<(u64, u64)>;
}

/// Reserves what the requests of a gate or a limiter need in addition to room in its tallies.
///
/// A call may wait. The tallies stay charged meanwhile, so that other requests may be denied for
/// the room that they take.
pub trait Reserve: fmt::Debug + Sync {
    /// Returns how many milliseconds the clock by which this reserves is ahead of the system clock.
    fn clock_offset_ms(&self) -> i64 {
        0
    }

    /// Reserves the cost of every tally, or of none. The tallies are those that the request
    /// charged. A verdict without a [charge](Verdict::charge) is one of a section without limits,
    /// which needs nothing.
    ///
    /// It may [show](TallyVerdict::show) other counts than those of the tally, such as what is left
    /// on all machines. If it admits the request without a reservation, it
    /// [marks](TallyVerdict::mark_unreserved) every verdict.
    ///
    /// Returns why nothing was reserved, or `None` if the request is admitted.
    fn reserve(&self, table: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal>;

    /// Gives back what [`reserve`](Self::reserve) reserved for these tallies, since the request was
    /// refused for another reason.
    fn release(&self, table: &dyn TallyNumbers, tallies: &[TallyVerdict]);

    /// Shows what could be reserved for these tallies now, and reserves nothing. Nothing was
    /// charged, and all tallies have room. Returns why a request would be refused.
    fn peek(&self, table: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal>;

    /// Returns units of a tally that were reserved, since a refund or a settlement gives them back.
    /// A charge of a limiter has no key, and its tally is a
    /// [`charge_index`](TallyVerdict::charge_index).
    fn refund(
        &self,
        table: &dyn TallyNumbers,
        key_id: Option<KeyId>,
        tally: usize,
        charge: TallyCharge,
    );

    /// Reserves at most `most` units more, the same number for each of these tallies of a charge,
    /// for a settlement above the estimate. It does not wait. Returns how many.
    fn reserve_more(
        &self,
        table: &dyn TallyNumbers,
        key_id: Option<KeyId>,
        tallies: &[usize],
        most: u32,
        now: Timestamp,
    ) -> u32;
}

/// Refuses every request that needs a reservation, for a process that makes none.
#[derive(Clone, Copy, Debug)]
pub struct NotReserving;

impl NotReserving {
    fn refuse(tallies: &[TallyVerdict]) -> Option<Refusal> {
        let first = tallies.first()?.verdict();
        Some(Refusal { index: 0, verdict: first.unavailable_since(Unavailability::NotReserving) })
    }
}

impl Reserve for NotReserving {
    fn reserve(&self, _: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal> {
        Self::refuse(tallies)
    }

    fn release(&self, _: &dyn TallyNumbers, _: &[TallyVerdict]) {}

    fn peek(&self, _: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal> {
        Self::refuse(tallies)
    }

    fn refund(&self, _: &dyn TallyNumbers, _: Option<KeyId>, _: usize, _: TallyCharge) {}

    fn reserve_more(
        &self,
        _: &dyn TallyNumbers,
        _: Option<KeyId>,
        _: &[usize],
        _: u32,
        _: Timestamp,
    ) -> u32 {
        0
    }
}
