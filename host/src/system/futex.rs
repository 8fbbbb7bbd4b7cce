//! Sleeping on a word that processes share, by Linux's `futex`.
#![expect(clippy::disallowed_types, reason = "the kernel compares 32 bits of a word")]

use core::sync::atomic::AtomicU32;
use core::time::Duration;

use keytally_core::sync::AtomicU64;
use rustix::thread::futex::{Flags, wait, wake};

/// Sleeps while the lower half of a word is that of `value`, at most this long. May return earlier.
pub(crate) fn sleep_on(word: &AtomicU64, value: u64, at_most: Duration) {
    let Ok(timeout) = at_most.try_into() else { return };
    let [low, _] = halves(value);
    let _ = wait(lower_half(word), Flags::empty(), low, Some(&timeout));
}

/// Wakes all threads that sleep on a word, in all processes. Its value must have been changed
/// before.
pub(crate) fn wake_all(word: &AtomicU64) {
    let _ = wake(lower_half(word), Flags::empty(), i32::MAX.unsigned_abs());
}

/// Returns the lower and the upper half of a value.
const fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// Returns the lower half of a word, for its address only: no code loads or stores it.
fn lower_half(word: &AtomicU64) -> &AtomicU32 {
    let halves = core::ptr::from_ref(word).cast::<AtomicU32>();
    let half = halves.wrapping_add(usize::from(cfg!(target_endian = "big")));
    // SAFETY: The pointer is to the first or second half of a word that lives as long as the
    // result, and is aligned to 4 bytes. Every bit pattern is valid. The result is only passed to
    // the kernel, so there is no access of another size than that of the word.
    unsafe { &*half }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use keytally_core::sync::Ordering;

    use super::*;
    use crate::clock::instant;

    #[test]
    fn sleeper_returns_at_the_wake_the_change_or_the_end() {
        let word = AtomicU64::new(7 << 32 | 5);
        let word = &word;
        let value = || word.load(Ordering::SeqCst);
        let start = instant();
        sleep_on(word, value(), Duration::from_millis(20));
        assert!(start.elapsed() >= Duration::from_millis(20));
        sleep_on(word, value() + 1, Duration::from_secs(60));
        thread::scope(|scope| {
            let (begun, begins) = channel();
            scope.spawn(move || {
                let before = value();
                begun.send(()).unwrap();
                sleep_on(word, before, Duration::from_secs(60));
            });
            begins.recv().unwrap();
            word.fetch_add(1, Ordering::SeqCst);
            wake_all(word);
        });
        assert!(start.elapsed() < Duration::from_secs(50));
    }
}
