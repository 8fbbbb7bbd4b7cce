//! The cost of basic operations of the machine, for comparison.

use keytally_core::Line;

use crate::traffic::{Random, index};

/// Adds one to a word by a plain load and compare-exchange.
#[inline]
pub(crate) fn count_up(line: &Line, word: usize) -> bool {
    let mut seen = line.load(word);
    while let Err(other) = line.compare_exchange(word, seen, seen + 1) {
        seen = other;
    }
    true
}

/// Lines of memory, each with the index of the next one, in an unpredictable order.
pub(crate) struct Chase {
    lines: Vec<[u64; 8]>,
    at: usize,
}

impl Chase {
    pub(crate) fn new(lines: u32) -> Self {
        let mut order: Vec<u32> = (0..lines).collect();
        Random(5).shuffle(&mut order);
        let mut chase = vec![[0; 8]; index(lines)];
        for (position, &line) in order.iter().enumerate() {
            chase[index(line)][0] = u64::from(order[(position + 1) % order.len()]);
        }
        Self { lines: chase, at: 0 }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> usize {
        self.at = usize::try_from(self.lines[self.at][0]).expect("an index in memory");
        self.at
    }
}
