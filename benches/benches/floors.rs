//! Basic operations of the machine, which bound the cost of a check from below.

use keytally_core::CacheLine;

use crate::traffic::{Random, index};

/// Adds 1 to a word of a cache line by a load and compare-exchange, repeated until it succeeds.
/// Returns `true`, as a check that admits.
#[inline]
pub(crate) fn count_up(line: &CacheLine, word: usize) -> bool {
    let mut seen = line.load(word);
    while let Err(other) = line.compare_exchange(word, seen, seen + 1) {
        seen = other;
    }
    true
}

/// Cache lines, each of which holds the index of another, in a random order. Each load depends on
/// the load before.
pub(crate) struct PointerChase {
    lines: Vec<[u64; 8]>,
    current: usize,
}

impl PointerChase {
    /// Links this number of lines to one cycle.
    pub(crate) fn new(lines: u32) -> Self {
        let mut order: Vec<u32> = (0..lines).collect();
        Random(5).shuffle(&mut order);
        let mut chase = vec![[0; 8]; index(lines)];
        for (position, &line) in order.iter().enumerate() {
            chase[index(line)][0] = u64::from(order[(position + 1) % order.len()]);
        }
        Self { lines: chase, current: 0 }
    }

    /// Loads the current line, and returns the index of the next.
    #[inline]
    pub(crate) fn next(&mut self) -> usize {
        self.current = usize::try_from(self.lines[self.current][0]).expect("an index in memory");
        self.current
    }
}
