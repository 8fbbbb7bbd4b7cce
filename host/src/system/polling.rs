//! Sleeping on a word that processes share, by short sleeps, on systems other than Linux.

use core::time::Duration;
use std::thread;

use keytally_core::sync::{AtomicU64, Ordering};

use crate::error::Error;

/// The time between two looks at a word.
const LOOK: Duration = Duration::from_micros(500);

/// Sleeps while a word is `value`, at most this long.
pub(crate) fn sleep_on(word: &AtomicU64, value: u64, at_most: Duration) {
    let mut left = at_most;
    while !left.is_zero() && word.load(Ordering::SeqCst) == value {
        let nap = left.min(LOOK);
        thread::sleep(nap);
        left -= nap;
    }
}

/// Does nothing: the sleepers look at the word by themselves.
pub(crate) const fn wake_all(_: &AtomicU64) {}

/// Returns 0: these systems have no number for the boot that can be read without another program.
pub(crate) const fn boot() -> Result<u128, Error> {
    Ok(0)
}
