//! Pseudorandom numbers from fixed seeds.

/// The generator SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// Returns a number of 64 random bits.
    pub(super) fn any(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }

    /// Returns a number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i128, high: i128) -> i128 {
        low + i128::from(self.any()) % (high - low + 1)
    }

    /// Returns a random item of a list.
    pub(super) fn pick<'list, Item>(&mut self, list: &'list [Item]) -> &'list Item {
        let bound = u64::try_from(list.len()).expect("a length");
        &list[usize::try_from(self.below(bound)).expect("below a length")]
    }

    /// Returns `count` random bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.any().to_be_bytes()[0]).collect()
    }
}
