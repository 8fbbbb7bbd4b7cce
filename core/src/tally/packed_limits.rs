//! The limits of fixed windows in one word, so that one addition compares every count with its
//! limit (SWAR: SIMD within a register).

use super::counts::Counts;
use crate::quota::Limits;

/// The limits of a policy, packed for the comparison with the counts of a tally.
///
/// A count that reaches its limit would reach the end of its field if the field ended at the limit.
/// So the distances between the limits and the fields' ends are added together with the charge. A
/// count exceeds its limit exactly if the addition carries out of its field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedLimits {
    /// For each count, its field's largest value less its limit.
    distances: u64,
    /// The bit above each count.
    carries: u64,
    /// The smallest limit.
    least: u64,
}

impl PackedLimits {
    /// Packs the limits of the current counts. In a sliding layout, the previous counts have no
    /// limit, and a carry shows nothing.
    #[cfg(any(test, feature = "__models"))]
    pub(crate) fn new(counts: &Counts, limits: &Limits) -> Self {
        Self::from_words(Self::words(counts, limits), Self::carries(counts))
    }

    /// Returns the packed limits as two words, for [`from_words`](Self::from_words).
    pub(crate) fn words(counts: &Counts, limits: &Limits) -> [u64; 2] {
        let (mut distances, mut least) = (0, u32::MAX);
        for index in 0..counts.len() {
            let limit = counts.limit(limits, index);
            distances |= u64::from(counts.masks[index] - limit) << counts.shifts[index];
            least = least.min(limit);
        }
        [distances, least.into()]
    }

    /// Returns the bit above each count.
    pub(crate) fn carries(counts: &Counts) -> u64 {
        let bit = |index: usize| 1_u64 << (counts.shifts[index] + counts.bits[index]);
        (0..counts.len()).fold(0, |bits, index| bits | bit(index))
    }

    /// The limits in words that [`words`](Self::words) returned.
    #[inline]
    pub(crate) fn from_words([distances, least]: [u64; 2], carries: u64) -> Self {
        Self { distances, carries, least }
    }

    /// Returns whether `cost` is at least 1 and at most every limit. Only such a cost can be
    /// compared by [`have_room`](Self::have_room).
    #[inline]
    pub(crate) fn may_admit(&self, cost: u32) -> bool {
        u64::from(cost).wrapping_sub(1) < self.least
    }

    /// Returns whether every count of `word` has room for `charge`, the word that adds a cost to
    /// every count.
    ///
    /// A field's addend is at most its largest value, since the cost is at most the limit. So no
    /// field carries by more than one, and the bits above the stamp's lowest one are irrelevant.
    #[inline]
    pub(crate) fn have_room(&self, word: u64, charge: u64) -> bool {
        let addend = charge.wrapping_add(self.distances);
        let carried = word.wrapping_add(addend) ^ word ^ addend;
        carried & self.carries == 0
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::policy::Policy;

    /// The values up to two below and above `value`, at most `max`.
    fn near(value: u32, max: u32) -> impl Iterator<Item = u32> + Clone {
        (value.saturating_sub(2)..=value.saturating_add(2).min(max)).chain([0, max])
    }

    #[test]
    fn one_addition_decides_as_a_comparison_of_each_count() {
        let policies = [
            "1/second",
            "2147483647/second",
            "4294967295/31d",
            "100/minute, 1000/hour",
            "1/minute, 4294967295/31d",
            "1/s, 1/m, 1/h",
            "3/s, 7/m, 100/h",
        ];
        let (mut rooms, mut refusals) = (0, 0);
        for policy in policies.map(|text| text.parse::<Policy>().unwrap()) {
            let (layout, limits) = (policy.layout(), policy.limits());
            let (counts, packed) = (layout.counts(), PackedLimits::new(layout.counts(), &limits));
            let mut words = std::vec![layout.unused(layout.last_stamp())];
            for index in 0..layout.len() {
                let values = near(counts.limit(&limits, index), counts.masks[index]);
                let with_count = |word| {
                    values.clone().map(move |value| word | u64::from(value) << counts.shifts[index])
                };
                words = words.into_iter().flat_map(with_count).collect();
            }
            let costs = (0..layout.len()).flat_map(|index| near(limits.0[index], u32::MAX));
            for cost in costs.chain([1, 2]) {
                let least = limits.0[..layout.len()].iter().min().unwrap();
                assert_eq!(packed.may_admit(cost), (1..=*least).contains(&cost), "{cost}");
                if !packed.may_admit(cost) {
                    continue;
                }
                for &word in &words {
                    let have_room = (0..layout.len()).all(|index| {
                        let count = u64::from(counts.current(word, index));
                        count + u64::from(cost) <= u64::from(limits.0[index])
                    });
                    let found = packed.have_room(word, layout.charge(cost));
                    assert_eq!(found, have_room, "{policy} {word:#x} {cost}");
                    *(if have_room { &mut rooms } else { &mut refusals }) += 1;
                }
            }
        }
        assert!(rooms > 100 && refusals > 1000, "{rooms} with room, {refusals} without");
    }
}
