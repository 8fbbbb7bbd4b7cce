//! Arithmetic on 64-bit words: halves, scaling, and exact division by a multiplication.

use core::num::NonZeroU32;
#[cfg(not(target_pointer_width = "64"))]
use core::num::NonZeroU64;

/// Whether words are processed in one register. Elsewhere, code that only makes the 64-bit fast
/// path faster is left out, since it would take more memory and not less time.
pub(crate) const IS_64_BIT: bool = cfg!(target_pointer_width = "64");

/// Joins two 32-bit halves to a word.
pub(crate) const fn join(high: u32, low: u32) -> u64 {
    ((high as u64) << 32) | low as u64
}

/// Returns the upper half of a word.
pub(crate) const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Returns the lower half of a word.
#[expect(clippy::cast_possible_truncation, reason = "the upper half is dropped on purpose")]
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

/// Joins four 32-bit halves to two words, the lower half of each first.
pub(crate) const fn to_words([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    [join(b, a), join(d, c)]
}

/// Returns the halves of two words, the lower half of each first.
pub(crate) const fn halves([first, second]: [u64; 2]) -> [u32; 4] {
    [low(first), high(first), low(second), high(second)]
}

/// Returns `fraction / 2^64` of `range`, rounded down: the upper 64 bits of their product.
#[inline]
pub(crate) const fn scale(fraction: u64, range: u64) -> u64 {
    ((fraction as u128 * range as u128) >> 64) as u64
}

/// Converts a number to an index into a slice.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "an index that did not fit fails the slice's own bounds check"
)]
pub(crate) const fn index(number: u64) -> usize {
    number as usize
}

/// A divisor with its reciprocal, so that a division is a multiplication. A 64-bit division
/// instruction would take longer than the rest of a decision. On smaller targets, where a
/// reciprocal takes memory and its multiplication several instructions, it is only the divisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Divisor {
    value: NonZeroU32,
    /// floor((2^64 − 1) / value).
    #[cfg(target_pointer_width = "64")]
    reciprocal: u64,
}

impl Divisor {
    /// The divisor `value`, or 1 if `value` is 0.
    pub(crate) const fn new(value: u32) -> Self {
        let value = match NonZeroU32::new(value) {
            Some(value) => value,
            None => NonZeroU32::MIN,
        };
        Self {
            value,
            // (2^64 − 1) / value has the same floor as 2^64 / value, unless `value` is a power of
            // two. Then it is one too small, which `divide` corrects.
            #[cfg(target_pointer_width = "64")]
            reciprocal: u64::MAX / value.get() as u64,
        }
    }

    /// Returns the divisor itself.
    pub(crate) const fn value(self) -> u64 {
        self.value.get() as u64
    }

    /// Returns `number / value`, exactly.
    ///
    /// Let n be the number, v the divisor, and r = floor((2^64 − 1) / v) the reciprocal. Then
    /// 2^64 = r·v + e with 1 ≤ e ≤ v, so n·r / 2^64 is below n/v by n·e / (2^64·v) < 1. Rounding it
    /// down takes away less than 1. The estimate is therefore at most one too small, and one
    /// comparison corrects it.
    #[inline]
    pub(crate) fn divide(self, number: u64) -> u64 {
        #[cfg(target_pointer_width = "64")]
        {
            let estimate = scale(number, self.reciprocal);
            let rest = number - estimate * self.value();
            if rest >= self.value() { estimate + 1 } else { estimate }
        }
        #[cfg(not(target_pointer_width = "64"))]
        {
            number / NonZeroU64::from(self.value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_is_exact_at_every_edge() {
        let edges = [
            1u32,
            2,
            3,
            7,
            10,
            60,
            1000,
            3600,
            60_000,
            86_400_000,
            1 << 31,
            2_678_400_000,
            u32::MAX - 1,
            u32::MAX,
        ];
        for divisor in edges {
            let length = u64::from(divisor);
            for multiple in [0u64, 1, 2, 3, 1000, u64::MAX / length / 2, u64::MAX / length] {
                for offset in [-1i64, 0, 1] {
                    let number = multiple.wrapping_mul(length).wrapping_add_signed(offset);
                    assert_eq!(
                        Divisor::new(divisor).divide(number),
                        number / length,
                        "{number} / {divisor}"
                    );
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn division_is_exact(number: u64, divisor in 1u32..) {
            proptest::prop_assert_eq!(Divisor::new(divisor).divide(number), number / u64::from(divisor));
        }
    }
}
