//! What the machine itself takes: figures to stand beside ours.

use keytally_core::Line;

use crate::traffic::{Random, index};

/// Adds one to a word, as plainly as a load and a compare-exchange can.
#[inline]
pub(crate) fn count_up(line: &Line, word: usize) -> bool {
    let mut seen = line.load(word);
    while let Err(other) = line.compare_exchange(word, seen, seen + 1) {
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
