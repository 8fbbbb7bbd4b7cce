//! What the machine itself takes: figures to stand beside ours.

use keytally_core::sync::{AtomicU64, Ordering};

use crate::traffic::{Random, index};

/// Adds one to a word, as plainly as a load and a compare-exchange can.
#[inline]
pub(crate) fn count_up(word: &AtomicU64) -> bool {
    let mut seen = word.load(Ordering::Acquire);
    while let Err(other) = word.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire) {
        seen = other;
    }
    true
}

/// Lines of memory, each of which tells where the next one is, in an order that nothing can guess.
pub(crate) struct Chase {
    lines: Vec<[u64; 8]>,
    at: usize,
}

impl Chase {
    pub(crate) fn new(lines: u32) -> Self {
        let mut order: Vec<u32> = (0..lines).collect();
        Random(5).shuffle(&mut order);
        let mut chase = vec![[0; 8]; index(lines)];
        for (place, &line) in order.iter().enumerate() {
            chase[index(line)][0] = u64::from(order[(place + 1) % order.len()]);
        }
        Self { lines: chase, at: 0 }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> usize {
        self.at = usize::try_from(self.lines[self.at][0]).expect("a place in memory");
        self.at
    }
}
