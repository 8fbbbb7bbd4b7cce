//! The compare-exchange loop: a decision put into a word that others decide on too.

use crate::decide::Decision;
use crate::stop::{Stop, stop};
use crate::sync::{AtomicU64, Ordering};

/// Decides on the word in `cell` until nobody came in between. `decide` answers `None` when the word is not its to
/// decide on any more.
///
/// Each turn is lost to somebody whose charge was written, and charges run out: after at most as many turns as the
/// smallest limit has units, the answer is a denial, which needs no write.
pub(crate) fn update(cell: &AtomicU64, decide: impl Fn(u64) -> Option<Decision>) -> Option<Decision> {
    let mut word = cell.load(Ordering::Acquire);
    loop {
        let decision = decide(word)?;
        if decision.next == word {
            return Some(decision);
        }
        match swap(cell, word, decision.next) {
            Ok(()) => return Some(decision),
            Err(present) => word = present,
        }
    }
}

/// Puts `next` in place of the word that was decided on, if it is still there; else gives what is.
#[inline]
pub(crate) fn swap(cell: &AtomicU64, word: u64, next: u64) -> Result<(), u64> {
    stop(Stop::Decided);
    cell.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire).map(drop)
}
