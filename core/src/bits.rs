//! Arithmetic on words: halves, scaling, and exact division by a multiplication.

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

/// Scales `fraction`, of 2^64, to a number below `range`: the upper 64 bits of their product.
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

/// A divisor that divides by a multiplication, since a 64-bit division would cost more than the
/// decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Divisor {
    value: u64,
    /// floor(2^64 / value), or 2^64 − 1 for 1.
    reciprocal: u64,
}

impl Divisor {
    /// `value` must not be 0; 0 is taken as 1.
    pub(crate) const fn new(value: u64) -> Self {
        let value = if value == 0 { 1 } else { value };
        // floor(2^64 / value) from 64-bit arithmetic: 2^64 = (2^64 − 1) + 1, so the quotient of
        // 2^64 − 1 is right unless `value` divides 2^64, a power of two, for which it is one too
        // small; `divide` corrects that.
        Self { value, reciprocal: u64::MAX / value }
    }

    pub(crate) const fn value(self) -> u64 {
        self.value
    }

    /// Returns `number / value`, exactly.
    ///
    /// With r = floor((2^64−1) / v), n·r / 2^64 is at most n/v and less than 2 below it: with 2^64
    /// = r·v + e, 1 ≤ e ≤ v, the error is n·e / (2^64·v) < 1, and the floor adds less than 1. So
    /// the estimate is one too small at most, and one comparison corrects it.
    #[inline]
    pub(crate) const fn divide(self, number: u64) -> u64 {
        let estimate = scale(number, self.reciprocal);
        let rest = number - estimate * self.value;
        if rest >= self.value { estimate + 1 } else { estimate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_is_exact_at_every_edge() {
        let edges = [
            1u64,
            2,
            3,
            7,
            10,
            60,
            1000,
            3600,
            60_000,
            86_400_000,
            2_678_400_000,
            1 << 31,
            u64::MAX - 1,
            u64::MAX,
        ];
        for divisor in edges {
            for multiple in [0u64, 1, 2, 3, 1000, u64::MAX / divisor / 2, u64::MAX / divisor] {
                for offset in [-1i64, 0, 1] {
                    let number = multiple.wrapping_mul(divisor).wrapping_add_signed(offset);
                    assert_eq!(
                        Divisor::new(divisor).divide(number),
                        number / divisor,
                        "{number} / {divisor}"
                    );
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn division_is_exact(number: u64, divisor in 1u64..) {
            proptest::prop_assert_eq!(Divisor::new(divisor).divide(number), number / divisor);
        }
    }
}
