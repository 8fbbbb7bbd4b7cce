//! The widths of the fields in a tally, the 64-bit word that holds a stamp and counts.
//!
//! A stamp is a time in units of the smallest window. Each count gets the bits that its limit needs
//! and an equal share of the spare bits, but at most 32 bits in all. The stamp gets all other bits.

use super::policy::{Algorithm, Policy};

/// The time that each stamp must be able to express: the start of the year 2200 in Unix seconds.
const YEAR_2200_S: u128 = 7_258_118_400;

/// The widths of a word's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Bits of the stamp, the most significant field.
    pub stamp_bits: u32,
    /// Bits of each count, from the most to the least significant. Fixed: one count per window, the
    /// smallest window first. Sliding: two per window, the current one and then the previous one.
    pub count_bits: Vec<u32>,
}

impl Layout {
    /// Returns the layout of a policy.
    ///
    /// # Panics
    ///
    /// If the policy needs more than 64 bits. Parsed policies do not.
    #[must_use]
    pub fn from_policy(policy: &Policy) -> Layout {
        let wanted = bits_wanted(policy);
        assert!(wanted <= 64, "the policy needs {wanted} bits");
        let counts: Vec<u32> = counts_wanted(policy);
        let spare = 64 - wanted;
        let share = spare / u32::try_from(counts.len()).expect("at most 8 counts");

        let mut stamp_bits = 64;
        let mut count_bits = Vec::new();
        for need in counts {
            let bits = (need + share).min(32);
            stamp_bits -= bits;
            count_bits.push(bits);
        }
        Layout { stamp_bits, count_bits }
    }

    /// Returns the number of bits of all fields: 64, or possibly fewer in the layout of a test.
    #[must_use]
    pub fn total_bits(&self) -> u32 {
        self.stamp_bits + self.count_bits.iter().sum::<u32>()
    }
}

/// Returns the least number of bits that can hold the stamp and all counts of a policy.
#[must_use]
pub fn bits_wanted(policy: &Policy) -> u32 {
    stamp_bits_wanted(policy.unit_s()) + counts_wanted(policy).iter().sum::<u32>()
}

/// Returns the least number of bits with which a stamp in units of `unit_s` seconds reaches the
/// year 2200.
#[must_use]
pub fn stamp_bits_wanted(unit_s: u32) -> u32 {
    let mut bits = 0;
    let mut reached_s = u128::from(unit_s);
    while reached_s < YEAR_2200_S {
        bits += 1;
        reached_s *= 2;
    }
    bits
}

/// Returns the bits that each count needs to hold its limit, in the order of the word.
fn counts_wanted(policy: &Policy) -> Vec<u32> {
    let mut wanted = Vec::new();
    for quota in &policy.quotas {
        wanted.push(bit_length(quota.limit));
        if policy.algorithm == Algorithm::Sliding {
            wanted.push(bit_length(quota.limit));
        }
    }
    wanted
}

/// Returns the number of binary digits of `value`.
#[must_use]
pub fn bit_length(value: u32) -> u32 {
    let mut bits = 0;
    let mut rest = value;
    while rest > 0 {
        bits += 1;
        rest /= 2;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::super::policy::parse_policy;
    use super::*;

    /// Returns the stamp's bits and the counts' bits.
    fn layout(text: &str) -> (u32, Vec<u32>) {
        let layout = Layout::from_policy(&parse_policy(text).unwrap());
        assert_eq!(layout.total_bits(), 64);
        (layout.stamp_bits, layout.count_bits)
    }

    #[test]
    fn known_limits_have_their_bit_length() {
        for (limit, bits) in
            [(1, 1), (2, 2), (3, 2), (100, 7), (127, 7), (128, 8), (1000, 10), (u32::MAX, 32)]
        {
            assert_eq!(bit_length(limit), bits);
        }
    }

    #[test]
    fn stamp_reaches_2200() {
        for (unit_s, bits) in [(1, 33), (60, 27), (3600, 21), (86400, 17), (31 * 86400, 12)] {
            assert_eq!(stamp_bits_wanted(unit_s), bits);
        }
    }

    #[test]
    fn layouts_match_hand_computed_ones() {
        // 64 - 27 - 7 - 10 = 20 spare, 10 for each of two counts.
        assert_eq!(layout("100/minute, 1000/hour"), (27, vec![17, 20]));
        // 64 - 27 - 2 x 17 = 3 spare: none for each of four counts, all three for the stamp.
        assert_eq!(layout("sliding 100/minute, 1000/hour"), (30, vec![7, 7, 10, 10]));
        // 64 - 17 - 1 = 46 spare, but a count has at most 32 bits.
        assert_eq!(layout("1/day"), (32, vec![32]));
        // 64 - 33 - 31: nothing to spare.
        assert_eq!(layout("2147483647/s"), (33, vec![31]));
        // 64 - 17 - 33 = 14 spare, 7 for each, none of which the first can use.
        assert_eq!(layout("4294967295/day, 1/31d"), (24, vec![32, 8]));
    }
}
