//! The compare-exchange loop: applies a pure decision to a word that other threads and processes
//! change too.

use crate::decide::{self, Decision};
use crate::stop::{Stop, stop};
use crate::sync::{AtomicU64, Ordering};
use crate::tally::Layout;
use crate::time::{Clock, Timestamp};

/// Applies `decide` to the word in `atomic`, in a compare-exchange loop.
///
/// If a wrong clock made the word's stamp, the word is corrected first. If the word is ahead of
/// `now`, or lacks room at `now`, a system clock is read again and `now` moves forward to that
/// reading. Returns `None` if `decide` does, i.e. if the slot or record was reassigned. A sealed
/// word is not decided on: the outcome is `Unavailable`.
///
/// Lock-free: a failed exchange means that another thread's exchange succeeded.
pub(crate) fn update(
    atomic: &AtomicU64,
    layout: &Layout,
    now: &mut Timestamp,
    clock: impl Clock,
    decide: impl Fn(u64, Timestamp) -> Option<Decision>,
) -> Option<Decision> {
    let mut word = atomic.load(Ordering::Acquire);
    let mut is_last_reading = false;
    loop {
        if layout.is_reservation(word) {
            return Some(Decision::unavailable(word));
        }
        if let Some(corrected) = decide::correction(layout, word, now, clock) {
            word = exchange_decided(atomic, word, corrected).err().unwrap_or(corrected);
            continue;
        }
        let decision = decide(word, *now)?;
        if !is_last_reading && decide::is_outdated(decision, now, clock) {
            is_last_reading = true;
            continue;
        }
        if decision.next == word {
            return Some(decision);
        }
        match exchange_decided(atomic, word, decision.next) {
            Ok(()) => return Some(decision),
            Err(present) => word = present,
        }
    }
}

/// Corrects `word`, which was loaded from `atomic`, if a wrong clock made its stamp. Returns the
/// corrected word; `word` itself if it needed no correction or another thread changed it.
pub(crate) fn corrected(
    atomic: &AtomicU64,
    word: u64,
    layout: &Layout,
    now: &mut Timestamp,
    clock: impl Clock,
) -> u64 {
    match decide::correction(layout, word, now, clock) {
        Some(corrected) if exchange_decided(atomic, word, corrected).is_ok() => corrected,
        _ => word,
    }
}

/// Corrects the word in `atomic` if its stamp is ahead of the clock by more than
/// [`decide::TOLERANCE_MS`], and keeps its counts. Returns whether it did.
///
/// A system clock is read again after the word was loaded. An explicit time is taken as correct.
pub(crate) fn correct(atomic: &AtomicU64, layout: &Layout, clock: impl Clock) -> bool {
    let word = atomic.load(Ordering::Acquire);
    let first = clock.reading();
    if layout.is_reservation(word) || layout.ahead_ms(word, first) == 0 {
        return false;
    }
    let corrected = decide::correct(layout, word, clock.at_least(first));
    corrected != word && exchange_decided(atomic, word, corrected).is_ok()
}

/// Exchanges `word`, for which a decision was made, for the decision's `next`. It is a stop point.
///
/// # Errors
/// The present word, if it is not `word`.
#[inline]
pub(crate) fn exchange_decided(atomic: &AtomicU64, word: u64, next: u64) -> Result<(), u64> {
    stop(Stop::Decided);
    exchange(atomic, word, next)
}

/// Exchanges `word` for `next`, with acquire and release ordering.
///
/// # Errors
/// The present word, if it is not `word`.
#[inline]
pub(crate) fn exchange(atomic: &AtomicU64, word: u64, next: u64) -> Result<(), u64> {
    atomic.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    #[test]
    fn reservation_is_never_corrected() {
        let policy: Policy = "100/minute".parse().unwrap();
        let reservation = policy.layout().reservation(7);
        let atomic = AtomicU64::new(reservation);
        assert!(!correct(&atomic, policy.layout(), Timestamp::from_unix_s(1_800_000_000)));
        assert_eq!(atomic.load(Ordering::Acquire), reservation);
    }
}
