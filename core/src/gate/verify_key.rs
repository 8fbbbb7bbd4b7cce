//! Verification of a key: finds its record and compares its secret in constant time.

use subtle::{Choice, ConstantTimeEq};

use super::refusal::{Refusal, end_reason, mismatch_reason, parse_reason};
use super::secret_match::Match;
use super::table::{Gate, PEPPER_LINE};
use crate::cache_line::CacheLine;
use crate::features::Feature;
use crate::header::Header;
use crate::key::{self, KeyId};
use crate::mac::Message;
use crate::outcome::Reason;
use crate::record::{Record, RecordRef};
use crate::time::Timestamp;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the record of an imported key. `reason` is why the text is refused if it has
    /// Keytally's form.
    pub(super) fn verify_other(
        &self,
        text: &[u8],
        reason: Reason,
        now: Timestamp,
    ) -> Result<(RecordRef<'_>, Record), Refusal> {
        match key::validate(text) {
            Ok(_) => Err(Refusal::new(reason)),
            Err(error) => self.verify_imported(text, parse_reason(error), now),
        }
    }

    /// Returns the record of a key of Keytally's form whose secret is right, and why the key is no
    /// longer valid, if it is not.
    ///
    /// The error is the reason why the key is refused, unless [`key::validate`] finds another one.
    /// `fetch` loads what the caller reads of the key next, so that memory responds while the
    /// secret is compared.
    ///
    /// Always inlined: returned through memory, the record would be stored and loaded again.
    #[inline(always)]
    pub(super) fn verify_own(
        &self,
        text: &[u8],
        now: Timestamp,
        fetch: impl FnOnce(RecordRef<'_>),
    ) -> Result<(RecordRef<'_>, Record, Option<Reason>), Reason> {
        let (key_id, at) = self.locate(text).ok_or(Reason::Malformed)?;
        fetch(at);
        // Laid out before the record is read, so that the stores are done when the compression
        // loads the block.
        let message = Message::new(text);
        let record = at.read().ok_or(Reason::Damaged)?;
        let ended = self.compare_secrets(key_id, &message, &record, now)?;
        Ok((at, record, ended))
    }

    /// Returns whether the header was overwritten after the gate was opened. Then no key is valid:
    /// a check refuses each as unknown or as one whose pepper is missing.
    ///
    /// Only the first word and the first pepper are looked at, which every gate has. Other damage
    /// is found by [`verify`](Self::verify), and when the gate is opened again.
    pub fn is_damaged(&self) -> bool {
        let lines = self.memory.as_ref();
        let has_pepper = lines.get(PEPPER_LINE).is_some_and(|line| line.load(0) != 0);
        !(has_pepper && Header::is_intact(lines))
    }

    /// Returns the key id of a key of Keytally's form, and the record that the id names, which may
    /// hold another key.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(super) fn locate(&self, text: &[u8]) -> Option<(KeyId, RecordRef<'_>)> {
        let key_id = key::id_in(text)?;
        Some((key_id, self.record_of(key_id)))
    }

    /// Compares the secret of a key of Keytally's form with those of its record. If it is right,
    /// returns why the key is no longer valid, or `None` if it is.
    ///
    /// The error is as in [`verify_own`](Self::verify_own). From there on the time may depend on
    /// the reason, which only logs show.
    ///
    /// For keys of Keytally's form with a right checksum, the work does not depend on whether the
    /// id exists or where the secret differs: one record, one HMAC under the record's pepper, both
    /// comparisons. After a rotation that changed the record's pepper, it is two HMACs until the
    /// next rotation.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub(super) fn compare_secrets(
        &self,
        key_id: KeyId,
        message: &Message<'_>,
        record: &Record,
        now: Timestamp,
    ) -> Result<Option<Reason>, Reason> {
        // The newest pepper replaces one that this process does not have, so that the work is the
        // same.
        let pepper = |number: u8| match self.pepper(usize::from(number)) {
            Some(pepper) => (pepper, true),
            None => (self.peppers.newest(), false),
        };
        let (current, current_there) = pepper(record.pepper);
        let tag = current.mac_of(message).tag();
        let (previous_tag, previous_there) = if record.previous_pepper == record.pepper {
            (tag, current_there)
        } else if Feature::PepperRotation.is_included() {
            let (previous, previous_there) = pepper(record.previous_pepper);
            (previous.mac_of(message).tag(), previous_there)
        } else {
            (tag, false)
        };
        let known = record.key_id == Some(key_id);
        // A `Choice`, like the comparisons: the time of a branch would reveal whether the id
        // exists. As a bit of the tags' difference it would take fewer instructions, but memcheck
        // would no longer see that a wrong tag decides alone.
        let current = tag.ct_eq(&record.tag) & Choice::from(u8::from(known & current_there));
        let previous =
            previous_tag.ct_eq(&record.previous) & Choice::from(u8::from(known & previous_there));
        match Match::new(current, previous) {
            Match::Current => Ok(end_reason(record, false, now)),
            Match::Previous => Ok(end_reason(record, true, now)),
            Match::None => {
                let previous_missing = !previous_there & record.is_in_grace(now);
                Err(mismatch_reason(known, current_there & !previous_missing))
            }
        }
    }
}
