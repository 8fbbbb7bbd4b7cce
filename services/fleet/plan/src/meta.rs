//! The meta word of a tally: the state of its lease requests.
//!
//! | bits | hold | written by |
//! |---|---|---|
//! | 0 to 31 | the cost for which requests wait | requests add to it, the agent clears it |
//! | 32 to 52 | the number of the last lease request | the agent |
//! | 53 | whether that lease request is open: sent, and neither answered nor given up | the agent |
//! | 54 to 57 | for each window, whether the store had no unit left | the agent |
//! | 58 to 63 | the low water, rounded down to one of 63 values | the agent |

use keytally_core::MAX_QUOTAS;

/// Bits of the number of a lease request. Numbers are counted round.
pub const NUMBER_BITS: u32 = 21;

/// One more than the largest number of a lease request.
pub const NUMBERS: u32 = 1 << NUMBER_BITS;

/// A meta word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Meta(u64);

const NUMBER_SHIFT: u32 = 32;
const OPEN: u64 = 1 << 53;
const EXHAUSTED_SHIFT: u32 = 54;
const EXHAUSTED: u64 = ((1 << MAX_QUOTAS) - 1) << EXHAUSTED_SHIFT;
const LOW_WATER_SHIFT: u32 = 58;

impl Meta {
    /// The meta word with these bits; every word is valid.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the bits of the word.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the cost for which requests wait.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the upper half holds other fields")]
    pub const fn wanted(self) -> u32 {
        self.0 as u32
    }

    /// Returns the word with this wanted cost.
    pub fn with_wanted(self, cost: u32) -> Self {
        Self(self.0 & !u64::from(u32::MAX) | u64::from(cost))
    }

    /// Returns the number of the last lease request.
    pub const fn number(self) -> u32 {
        (self.0 >> NUMBER_SHIFT) as u32 & (NUMBERS - 1)
    }

    /// Returns the word with this number, of which the lowest [`NUMBER_BITS`] count.
    pub fn with_number(self, number: u32) -> Self {
        let mask = u64::from(NUMBERS - 1);
        Self(self.0 & !(mask << NUMBER_SHIFT) | (u64::from(number) & mask) << NUMBER_SHIFT)
    }

    /// Returns whether the last lease request is open.
    pub const fn is_open(self) -> bool {
        self.0 & OPEN != 0
    }

    /// Returns the word in which the last lease request is open or not.
    pub const fn with_open(self, is_open: bool) -> Self {
        Self(if is_open { self.0 | OPEN } else { self.0 & !OPEN })
    }

    /// Returns whether the store had no unit left of the window at `index`.
    #[inline]
    pub const fn is_exhausted(self, index: usize) -> bool {
        index < MAX_QUOTAS && self.0 >> EXHAUSTED_SHIFT & 1 << index != 0
    }

    /// Returns whether the store had no unit left of some window.
    pub const fn is_any_exhausted(self) -> bool {
        self.0 & EXHAUSTED != 0
    }

    /// Returns the word in which exactly these windows are exhausted.
    pub fn with_exhausted(self, windows: [bool; MAX_QUOTAS]) -> Self {
        let bit = |(index, is_exhausted): (usize, &bool)| u64::from(*is_exhausted) << index;
        let bits = windows.iter().enumerate().map(bit).fold(0, |all, bit| all | bit);
        Self(self.0 & !EXHAUSTED | bits << EXHAUSTED_SHIFT)
    }

    /// Returns the low water: with fewer credits in some window, a request reports it to the agent.
    #[inline]
    pub const fn low_water(self) -> u32 {
        let code = (self.0 >> LOW_WATER_SHIFT) as u32;
        // The values are 1, and 2 or 3 times a power of two that is at most 2^30.
        match code.checked_sub(1) {
            None => 0,
            Some(0 | 1) => 1,
            Some(half) => (2 + half % 2) << (half / 2 - 1),
        }
    }

    /// Returns the word with this low water, rounded down to 0, 1 or a power of two, or to three
    /// halves of one.
    pub fn with_low_water(self, credits: u32) -> Self {
        let code = match credits.checked_ilog2() {
            None => 0,
            // Of 1, a half is rounded down.
            Some(0) => 1,
            Some(exponent) => 1 + 2 * exponent + (credits >> (exponent - 1) & 1),
        };
        Self(self.0 & !(63 << LOW_WATER_SHIFT) | u64::from(code.min(63)) << LOW_WATER_SHIFT)
    }
}

/// Returns whether `number` is newer than `last`. Numbers are counted round, so half of them are.
pub const fn is_newer(number: u32, last: u32) -> bool {
    number.wrapping_sub(last).wrapping_sub(1) % NUMBERS < NUMBERS / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap() {
        let all = Meta::default()
            .with_wanted(u32::MAX)
            .with_number(NUMBERS - 1)
            .with_open(true)
            .with_exhausted([true; MAX_QUOTAS])
            .with_low_water(u32::MAX);
        assert_eq!(all.bits(), u64::MAX);
        assert_eq!((all.wanted(), all.number(), all.is_open()), (u32::MAX, NUMBERS - 1, true));
        assert!((0..MAX_QUOTAS).all(|index| all.is_exhausted(index)) && !all.is_exhausted(4));
        assert_eq!(all.with_wanted(7).with_wanted(u32::MAX), all);
        let none = all.with_wanted(0).with_number(NUMBERS).with_open(false).with_low_water(0);
        assert_eq!(none.with_exhausted([false; MAX_QUOTAS]), Meta::default());
        let second = Meta::default().with_exhausted([false, true, false, false]);
        assert_eq!(
            [0, 1, 2, 3].map(|index| second.is_exhausted(index)),
            [false, true, false, false]
        );
    }

    #[test]
    fn low_water_is_rounded_down_by_less_than_a_third() {
        assert_eq!(Meta::default().with_low_water(u32::MAX).low_water(), 1 << 31);
        for credits in (0..100_000).chain([u32::MAX / 3, u32::MAX / 2, (1 << 31) + 1]) {
            let low = Meta::default().with_low_water(credits).low_water();
            assert!(low <= credits && low >= credits - credits / 3, "{credits} became {low}");
        }
    }

    #[test]
    fn newer_numbers_are_the_next_half() {
        assert!(is_newer(1, 0) && !is_newer(0, 1) && !is_newer(5, 5));
        assert!(is_newer(0, NUMBERS - 1) && !is_newer(NUMBERS - 1, 0));
        assert!(is_newer(NUMBERS / 2, 0) && !is_newer(NUMBERS / 2 + 1, 0));
    }
}
