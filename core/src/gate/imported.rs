//! Keys of other forms, which were issued elsewhere and imported.
//!
//! An imported key has no id in its text. Its HMAC names two groups of [`IMPORT_GROUP`] records. It
//! may be in any of these. Its id is minted for the record that it gets, and ends with 32 bits of
//! the HMAC.
//!
//! A key that was imported before its gate was migrated to a larger one keeps its id, which names
//! another record now. The id is the first of the smaller gate's record that ends with the bits of
//! the HMAC. So for each record of the groups in the smaller gate, the HMAC names one record.

use core::ops::Range;

use subtle::{Choice, ConstantTimeEq};

use super::ids::RecordIds;
use super::refusal::{Refusal, admissible};
use super::secret_match::Match;
use super::table::{Gate, IMPORTED_FLAG, LIST_WORD, PEPPER_LINE};
use crate::bits::{low, scale};
use crate::cache_line::CacheLine;
use crate::features::Feature;
use crate::mac::Mac;
use crate::outcome::Reason;
use crate::record::{Record, RecordRef};
use crate::time::Timestamp;

/// The lengths of a key that can be imported, in bytes: 16 to 256.
pub const IMPORTED_KEY_LEN: Range<usize> = 16..257;

/// Records in each of the two groups that an imported key may live in.
pub const IMPORT_GROUP: u32 = 8;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the record of a key of another form, or why it is refused.
    ///
    /// If the text cannot be an imported key of this gate, the reason is `otherwise`. Else the
    /// HMACs under all peppers of this process are computed, also after a match.
    #[cold]
    pub(super) fn verify_imported(
        &self,
        text: &[u8],
        otherwise: Reason,
        now: Timestamp,
    ) -> Result<(RecordRef<'_>, Record), Refusal> {
        if !Feature::ImportedKeys.is_included()
            || self.memory.as_ref()[PEPPER_LINE].load(LIST_WORD) & IMPORTED_FLAG == 0
            || !IMPORTED_KEY_LEN.contains(&text.len())
        {
            return Err(Refusal::new(otherwise));
        }
        match self.find_imported(text) {
            Some((at, record, previous)) => admissible(at, record, previous, now),
            // In a gate with imported keys, any text may have been a key.
            None if otherwise == Reason::Malformed => Err(Refusal::new(Reason::Unknown)),
            None => Err(Refusal::new(otherwise)),
        }
    }

    /// Returns the record of an imported key, and whether the text is its previous secret.
    pub(super) fn find_imported(&self, text: &[u8]) -> Option<(RecordRef<'_>, Record, bool)> {
        let mut found = None;
        for (number, pepper) in self.known_peppers() {
            let mac = pepper.mac(text);
            for at in self.import_records(&mac) {
                // The key id selects the record. It comes from the MAC of the whole key, so the
                // time of this branch reveals nothing about a part of the key.
                if at.key_id().is_none_or(|key_id| low(key_id.number()) != import_number(&mac)) {
                    continue;
                }
                let Some(record) = at.read() else { continue };
                let has_number =
                    |number_there: u8| Choice::from(u8::from(usize::from(number_there) == number));
                let current = mac.tag().ct_eq(&record.tag) & has_number(record.pepper);
                let previous =
                    mac.tag().ct_eq(&record.previous) & has_number(record.previous_pepper);
                match Match::new(current, previous) {
                    Match::Current => found = Some((at, record, false)),
                    Match::Previous => found = Some((at, record, true)),
                    Match::None => {}
                }
            }
        }
        found
    }

    /// Returns the records that an imported key may be in.
    fn import_records(&self, mac: &Mac) -> impl Iterator<Item = RecordRef<'_>> {
        let number = import_number(mac);
        self.import_capacities().flat_map(move |records| {
            import_groups(mac, records).into_iter().flat_map(move |group| {
                group_numbers(group, records).map(move |record| match records {
                    _ if records == self.capacity => self.record(record),
                    _ => {
                        self.record_of(RecordIds::new(low(record), records).id_ending_with(number))
                    }
                })
            })
        })
    }

    /// Returns the capacities that the gate had when keys may have been imported: its own, and
    /// those before migrations.
    fn import_capacities(&self) -> impl Iterator<Item = u32> {
        let [last, before] = self.import_factors.map(u32::from);
        let smaller = [last, last * before].into_iter().filter(|&factor| factor > 0);
        let capacity = self.capacity;
        core::iter::once(capacity).chain(smaller.map(move |factor| capacity / factor))
    }

    /// Returns the records of each group that a new key may be imported into.
    pub(super) fn import_groups(&self, mac: &Mac) -> [impl Iterator<Item = RecordRef<'_>>; 2] {
        let groups = import_groups(mac, self.capacity);
        groups.map(|group| group_numbers(group, self.capacity).map(|number| self.record(number)))
    }
}

/// Returns the two groups of a key in a gate of this many records.
fn import_groups(mac: &Mac, records: u32) -> [u64; 2] {
    let [_, _, first, second] = mac.words();
    let groups = u64::from(records.div_ceil(IMPORT_GROUP));
    [first, second].map(|word| scale(word, groups))
}

/// Returns the numbers of the records of a group.
fn group_numbers(group: u64, records: u32) -> Range<u64> {
    let from = group * u64::from(IMPORT_GROUP);
    from..(from + u64::from(IMPORT_GROUP)).min(records.into())
}

/// Returns the 32 bits of an imported key's MAC that its key id ends with.
pub(super) fn import_number(mac: &Mac) -> u32 {
    low(mac.words()[2])
}
