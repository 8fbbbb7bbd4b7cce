//! The compare-exchange loop: a decision put into a word that others decide on too.

use crate::decide::{self, Decision};
use crate::stop::{Stop, stop};
use crate::sync::{AtomicU64, Ordering};
use crate::tally::Layout;
use crate::time::{Clock, Timestamp};

/// Decides on the word in `cell` and exchanges it, in a compare-exchange loop.
///
/// A word that a wrong clock stamped is corrected first. `now` moves forward to the clock's reading
/// where the word is ahead of it. Returns `None` if `decide` does, i.e. when the word has another owner.
///
/// Lock-free: a failed exchange means that another thread's exchange succeeded.
pub(crate) fn update(
    cell: &AtomicU64,
    layout: &Layout,
    now: &mut Timestamp,
    clock: impl Clock,
    decide: impl Fn(u64, Timestamp) -> Option<Decision>,
) -> Option<Decision> {
    let mut word = cell.load(Ordering::Acquire);
    loop {
        if let Some(corrected) = decide::correction(layout, word, now, clock) {
            word = swap(cell, word, corrected).err().unwrap_or(corrected);
            continue;
        }
        let decision = decide(word, *now)?;
        if decision.next == word {
            return Some(decision);
        }
        match swap(cell, word, decision.next) {
            Ok(()) => return Some(decision),
            Err(present) => word = present,
        }
    }
}

/// Returns `word`, which was loaded from `cell`, or what it was corrected to.
pub(crate) fn corrected(
    cell: &AtomicU64,
    word: u64,
    layout: &Layout,
    now: &mut Timestamp,
    clock: impl Clock,
) -> u64 {
    match decide::correction(layout, word, now, clock) {
        Some(corrected) if swap(cell, word, corrected).is_ok() => corrected,
        _ => word,
    }
}

/// Corrects the word in `cell` if it is ahead of the clock by more than the tolerance, counts kept.
/// Returns whether it did. A system clock is read after the word was loaded.
pub(crate) fn correct(cell: &AtomicU64, layout: &Layout, clock: impl Clock) -> bool {
    let word = cell.load(Ordering::Acquire);
    let first = clock.reading();
    if layout.is_claim_mark(word) || layout.ahead_ms(word, first) == 0 {
        return false;
    }
    let corrected = decide::correct(layout, word, clock.at_least(first));
    corrected != word && swap(cell, word, corrected).is_ok()
}

/// Puts `next` in place of the word that was decided on, if it is still there; else gives what is.
#[inline]
pub(crate) fn swap(cell: &AtomicU64, word: u64, next: u64) -> Result<(), u64> {
    stop(Stop::Decided);
    cell.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire).map(drop)
}
