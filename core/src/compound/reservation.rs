//! Reservations: what a request needs beside room in the tallies of a gate.
//!
//! A gate decides by its tallies alone. A reservation is for a server that must also have something
//! else for each request, such as units that several machines share. It is asked after all tallies
//! were charged. If it refuses, the charges are given back, so a refused request charges nothing.

use core::fmt;

use super::TallyVerdict;
use crate::verdict::Verdict;

/// Reserves what the requests of a gate need beside room in its tallies.
///
/// A call may wait. The tallies stay charged meanwhile, so that other requests may be denied for the
/// room that they take.
pub trait Reserve: fmt::Debug + Sync {
    /// Reserves the cost of every tally, or of none. The tallies are those that the request charged.
    ///
    /// It may [show](TallyVerdict::show) other counts than those of the tally, such as what is left
    /// on all machines.
    /// Returns why nothing was reserved, or `None` if all was.
    fn reserve(&self, tallies: &mut [TallyVerdict]) -> Option<Refusal>;

    /// Gives back what [`reserve`](Self::reserve) reserved for these tallies, since the request was
    /// refused for another reason.
    fn release(&self, tallies: &[TallyVerdict]);
}

/// Why nothing was reserved.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The index of the tally that lacks something, among those of the call.
    pub index: usize,
    /// The verdict on it, such as one of [`Verdict::decided`] with a denial.
    pub verdict: Verdict,
}
