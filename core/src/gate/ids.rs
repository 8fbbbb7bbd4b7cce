//! The key ids of one record.

use crate::bits::scale;
use crate::key::KeyId;

/// The key ids of one record: those with `id × records / 2^64` equal to its number.
pub(super) struct RecordIds {
    start: u64,
    /// 0 for all 2^64 ids of a gate with one record.
    width: u64,
}

impl RecordIds {
    /// The ids of record `number` of `records`.
    pub(super) fn new(number: u32, records: u32) -> Self {
        let start = Self::start(number, records);
        Self { start, width: Self::start(number + 1, records).wrapping_sub(start) }
    }

    /// Returns ceil(number · 2^64 / records), which wraps to 0 for the number after the last.
    fn start(number: u32, records: u32) -> u64 {
        if number == 0 || number == records {
            return 0;
        }
        // 2^64 = quotient · records + rest, from 64-bit arithmetic; the rest may be `records`
        // itself.
        let (number, records) = (u64::from(number), u64::from(records));
        let (quotient, rest) = (u64::MAX / records, u64::MAX % records + 1);
        number * quotient + (number * rest).div_ceil(records)
    }

    /// Returns the id at `fraction / 2^64` of the range of ids, or another id if that one is 0.
    pub(super) fn id_at(&self, fraction: u64) -> KeyId {
        let offset = if self.width == 0 { fraction } else { scale(fraction, self.width) };
        Self::id(self.start + offset).unwrap_or_else(|| self.id_ending_with(1))
    }

    /// Returns the first id whose lower 32 bits are `number`. A record has at least 2^38 ids, so
    /// there is one.
    pub(super) fn id_ending_with(&self, number: u32) -> KeyId {
        const LOW: u64 = 0xffff_ffff;
        let first = (self.start & !LOW) | u64::from(number);
        let id = if first < self.start || first == 0 { first + (1 << 32) } else { first };
        // `id` is never 0, so the fallback is never used.
        Self::id(id).unwrap_or(KeyId::LAST)
    }

    fn id(number: u64) -> Option<KeyId> {
        KeyId::from_number(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::low;
    use crate::gate::config::MAX_KEYS;

    #[test]
    fn ids_of_a_record_lead_to_no_other_record() {
        for records in [1, 2, 3, 7, 8, 64, 1000, 65_536, 999_983, MAX_KEYS] {
            for number in [0, 1, records / 2, records.saturating_sub(2), records - 1]
                .into_iter()
                .filter(|&n| n < records)
            {
                let ids = RecordIds::new(number, records);
                for fraction in [0, 1, u64::MAX / 2, u64::MAX] {
                    let id = ids.id_at(fraction);
                    assert_eq!(
                        scale(id.number(), u64::from(records)),
                        u64::from(number),
                        "{number} of {records}"
                    );
                }
                for ending in [0, 1, u32::MAX] {
                    let id = ids.id_ending_with(ending);
                    assert_eq!(
                        scale(id.number(), u64::from(records)),
                        u64::from(number),
                        "{number} of {records}"
                    );
                    assert_eq!(low(id.number()), ending);
                    let before = id.number().saturating_sub(1 << 32);
                    assert!(before < ids.start || before == 0, "the id is the first");
                }
                if number > 0 {
                    assert_eq!(scale(ids.start - 1, u64::from(records)), u64::from(number) - 1);
                }
            }
        }
    }
}
