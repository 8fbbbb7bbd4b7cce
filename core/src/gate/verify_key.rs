//! Verification of a key: finds its record and compares its secret in constant time.

use subtle::{Choice, ConstantTimeEq};

use super::refusal::{Refusal, admissible, mismatch_reason};
use super::secret_match::Match;
use super::table::Gate;
use crate::bits::scale;
use crate::cache_line::CacheLine;
use crate::features::Feature;
use crate::key::{self, ParseKeyError};
use crate::outcome::Reason;
use crate::record::{Record, RecordRef};
use crate::time::Timestamp;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the record of a key whose secret is right and that is neither revoked nor expired.
    ///
    /// For keys of Keytally's form with a right checksum, the work does not depend on whether the
    /// id exists or where the secret differs: one record, one HMAC under the record's pepper, both
    /// comparisons. After a rotation that changed the record's pepper, it is two HMACs until the
    /// next rotation.
    #[inline(never)]
    pub(super) fn verify_key(
        &self,
        text: &[u8],
        now: Timestamp,
    ) -> Result<(RecordRef<'_>, Record), Refusal> {
        let Some(key_id) = key::id_in(text) else {
            return self.verify_imported(text, Reason::Malformed, now);
        };
        let at = self.record(scale(key_id.number(), u64::from(self.capacity)));
        let record = at.read().ok_or(Refusal::new(Reason::Damaged))?;
        // The newest pepper replaces one that this process does not have, so that the work is the
        // same.
        let pepper = |number: u8| match self.pepper(usize::from(number)) {
            Some(pepper) => (pepper, true),
            None => (self.peppers.newest(), false),
        };
        let (current, current_there) = pepper(record.pepper);
        let tag = current.mac(text).tag();
        let (previous_tag, previous_there) = if record.previous_pepper == record.pepper {
            (tag, current_there)
        } else if Feature::PepperRotation.is_included() {
            let (previous, previous_there) = pepper(record.previous_pepper);
            (previous.mac(text).tag(), previous_there)
        } else {
            (tag, false)
        };
        let known = record.key_id == Some(key_id);
        // A `Choice`, like the comparisons: the time of a branch would reveal whether the id
        // exists.
        let [current, previous] = [
            tag.ct_eq(&record.tag) & Choice::from(u8::from(known & current_there)),
            previous_tag.ct_eq(&record.previous) & Choice::from(u8::from(known & previous_there)),
        ];
        match Match::new(current, previous) {
            Match::Current => admissible(at, record, false, now),
            Match::Previous => admissible(at, record, true, now),
            Match::None => {
                // The key is rejected. From here on the time may depend on the reason, which only
                // logs show.
                match key::validate(text) {
                    Ok(_) => Err(Refusal::new(mismatch_reason(known, current_there))),
                    Err(ParseKeyError::Form) => self.verify_imported(text, Reason::Malformed, now),
                    Err(ParseKeyError::Checksum) => {
                        self.verify_imported(text, Reason::Checksum, now)
                    }
                }
            }
        }
    }
}
