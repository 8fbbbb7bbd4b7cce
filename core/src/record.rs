//! A key's record: one cache line, read through a seqlock with a redo record.
//!
//! A *tag* is the part of a secret's MAC that a record keeps (`mac.rs`). During the *grace* after a
//! rotation, the previous secret is valid too.
//!
//! | word | holds |
//! |---|---|
//! | 0 | key id (0 = free) |
//! | 1 | tally |
//! | 2, 3 | tag of the secret |
//! | 4, 5 | tag of the previous secret |
//! | 6 | account (32) · time of expiry, Unix seconds (32; 0 = never) |
//! | 7 | environment (4) · secret's pepper (2) · state (2) · plan (8) · previous secret's pepper (2) · sequence (14) · end of the grace, Unix seconds (32) |
//!
//! In parentheses is the width of each field in bits. The field in the lowest bits is first.
//!
//! Checks change the tally at any time, so it is not part of the seqlock. Only one administrator
//! writes the other words:
//!
//! 1. It writes the whole new record to the header, as a *redo record*, and publishes that.
//! 2. It makes the record's sequence odd, writes the words, and makes the sequence even again, 2
//!    higher than before.
//! 3. It stores the key's hint and checksum, and withdraws the redo record. The redo record holds
//!    the hint in the word of the tally.
//!
//! | redo record | sequence | state | a reader takes | the next administrator |
//! |---|---|---|---|---|
//! | none, or of another record | even | stable | the record | (nothing to do) |
//! | of this record | even, the old one | published | the record | writes the words, stores the hint, withdraws |
//! | of this record | odd | being written | the redo record | writes the words, stores the hint, withdraws |
//! | of this record | even, the new one | written | the record | stores the hint, withdraws |
//! | none, or of another record | odd | damaged | nothing: `read` returns `None` | reports a flaw; a new write repairs it |
//!
//! A reader copies the words, and takes the copy if the sequence was even and the same before and
//! after. If the sequence is odd, the reader takes the redo record, which is complete and has the
//! words that the record is about to have. A reader therefore never waits for a writer, even if the
//! writer was stopped or killed.
//!
//! Every word is stored with release and loaded with acquire ordering, and word 7 is loaded first
//! and last. A reader that sees a new word therefore sees the odd sequence that was stored before
//! it, so its two loads of word 7 differ.
//!
//! The sequence has its first value again after 8,192 writes. Before a caller acts on a copy, it
//! therefore compares the key id and the whole of word 7 with the line again
//! ([`RecordRef::is_unchanged`]). SAFETY.md says what this comparison cannot detect.

use crate::bits::{high, join, low};
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::key::KeyId;
use crate::mac::Tag;
use crate::stop::{Stop, stop};
use crate::sync::AtomicU64;
use crate::time::Timestamp;

// The positions of words in a record's line.
const KEY_ID: usize = 0;
pub(crate) const TALLY: usize = 1;
const SEQUENCE: usize = 7;

/// The most attempts of a reader. It reads again if the record changed meanwhile, which happens
/// this often only in a damaged file.
const MAX_READS: u32 = 1000;

// The position and width of the sequence in word 7.
pub(crate) const SEQUENCE_SHIFT: u32 = 18;
const SEQUENCE_MASK: u64 = (1 << 14) - 1;

/// The state of a key: active or revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
#[non_exhaustive]
pub enum KeyState {
    /// The key is valid until it expires.
    Active = 0,
    /// The key is no longer valid.
    Revoked = 1,
}

impl KeyState {
    /// Returns the name of the state: `active` or `revoked`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }
}

/// A copy of a record, without its tally.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// `None` in a free record.
    pub(crate) key_id: Option<KeyId>,
    /// The tag of the secret.
    pub(crate) tag: Tag,
    /// The tag of the previous secret.
    pub(crate) previous: Tag,
    pub(crate) account: u32,
    /// When the key expires, in Unix seconds; 0 = never.
    pub(crate) expires: u32,
    /// When the grace of the previous secret ends, in Unix seconds; 0 = no grace.
    pub(crate) grace_until: u32,
    pub(crate) plan: u8,
    pub(crate) state: KeyState,
    /// The number of the pepper under which the tag was made.
    pub(crate) pepper: u8,
    /// The number of the pepper under which the previous secret's tag was made.
    pub(crate) previous_pepper: u8,
    pub(crate) env: u8,
    /// Word 7 as it was read, with its even sequence; 0 in a record that is not written yet.
    last_word: u64,
}

impl Record {
    /// The record of a new key that never expires and has no previous secret.
    pub(crate) fn new(
        key_id: KeyId,
        tag: Tag,
        pepper: u8,
        account: u32,
        plan: u8,
        env: u8,
    ) -> Self {
        Self {
            key_id: Some(key_id),
            tag,
            previous: Tag([0, 0]),
            account,
            expires: 0,
            grace_until: 0,
            plan,
            state: KeyState::Active,
            pepper,
            previous_pepper: pepper,
            env,
            last_word: 0,
        }
    }

    /// Returns whether the key is revoked or expired, or the record is free.
    #[inline]
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        let expired = self.expires != 0 && now.unix_s() >= u64::from(self.expires);
        self.key_id.is_none() || self.state == KeyState::Revoked || expired
    }

    /// Returns whether `now` is before the end of the previous secret's grace.
    #[inline]
    pub(crate) fn is_in_grace(&self, now: Timestamp) -> bool {
        now.unix_s() < u64::from(self.grace_until)
    }

    /// Returns the time at which the previous secret stops being valid; `None` if it is not valid.
    pub(crate) fn previous_until(&self, now: Timestamp) -> Option<Timestamp> {
        match self.expires {
            _ if self.has_ended(now) || !self.is_in_grace(now) => None,
            0 => moment(self.grace_until),
            expires => moment(self.grace_until.min(expires)),
        }
    }

    /// Returns the end of the previous secret's grace; `None` if it has none.
    pub(crate) fn grace_end(&self) -> Option<Timestamp> {
        moment(self.grace_until)
    }

    /// Returns the time at which the key expires; `None` for never.
    pub(crate) fn expiry(&self) -> Option<Timestamp> {
        moment(self.expires)
    }

    #[inline]
    fn from_words(words: &[u64; CACHE_LINE_WORDS]) -> Self {
        let meta = words[SEQUENCE].to_le_bytes();
        Self {
            key_id: KeyId::from_number(words[KEY_ID]),
            tag: Tag([words[2], words[3]]),
            previous: Tag([words[4], words[5]]),
            account: low(words[6]),
            expires: high(words[6]),
            grace_until: high(words[SEQUENCE]),
            // The bytes of word 7, lowest first: environment (4), pepper (2), state (2) | plan (8)
            // | previous pepper (2), sequence …
            plan: meta[1],
            state: if (meta[0] >> 6) == KeyState::Active as u8 {
                KeyState::Active
            } else {
                KeyState::Revoked
            },
            pepper: (meta[0] >> 4) & 3,
            previous_pepper: meta[2] & 3,
            env: meta[0] & 0xf,
            last_word: words[SEQUENCE],
        }
    }

    fn to_words(self, sequence: u64) -> [u64; CACHE_LINE_WORDS] {
        let meta = u64::from(self.env)
            | u64::from(self.pepper) << 4
            | (self.state as u64) << 6
            | u64::from(self.plan) << 8
            | u64::from(self.previous_pepper) << 16
            | sequence << SEQUENCE_SHIFT
            | u64::from(self.grace_until) << 32;
        [
            self.key_id.map_or(0, KeyId::number),
            0,
            self.tag.0[0],
            self.tag.0[1],
            self.previous.0[0],
            self.previous.0[1],
            join(self.expires, self.account),
            meta,
        ]
    }
}

/// Converts a moment to the form in which a record keeps it: Unix seconds, rounded up, from 1 to
/// `u32::MAX`. `None` becomes 0.
pub(crate) fn stored_s(moment: Option<Timestamp>) -> u32 {
    moment.map_or(0, |moment| {
        u32::try_from(moment.unix_ms().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    })
}

/// Converts a moment from the form in which a record keeps it; `None` for 0.
pub(crate) fn moment(stored_s: u32) -> Option<Timestamp> {
    (stored_s != 0).then(|| Timestamp::from_unix_s(stored_s.into()))
}

/// Returns the sequence in word 7.
fn sequence(last_word: u64) -> u64 {
    (last_word >> SEQUENCE_SHIFT) & SEQUENCE_MASK
}

/// Returns whether the sequence in word 7 is odd, i.e. the record is being written.
fn is_odd(last_word: u64) -> bool {
    sequence(last_word) & 1 == 1
}

/// Returns the even sequence with which a write of the record ends. `last_word` is word 7 before or
/// during the write.
fn next_sequence(last_word: u64) -> u64 {
    ((sequence(last_word) | 1) + 1) & SEQUENCE_MASK
}

/// Identifies what a record held when it was read: its number, key id and word 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordVersion {
    pub(crate) number: u32,
    key_id: Option<KeyId>,
    last_word: u64,
}

/// A reference to a record's line and to the header's redo record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordRef<'m> {
    pub(crate) number: u32,
    pub(crate) line: &'m CacheLine,
    pub(crate) redo: RedoRecord<'m>,
}

impl<'m> RecordRef<'m> {
    /// Returns a copy of the record, or of the record that a writer is replacing it by; `None` if
    /// it is damaged.
    #[inline]
    pub(crate) fn read(self) -> Option<Record> {
        self.read_words().map(|words| Record::from_words(&words))
    }

    /// Returns a copy of the words of the line, or of those that a writer is replacing them by;
    /// `None` if they are damaged.
    #[inline]
    pub(crate) fn read_words(self) -> Option<[u64; CACHE_LINE_WORDS]> {
        for _ in 0..MAX_READS {
            let last_word = self.line.load(SEQUENCE);
            if is_odd(last_word) {
                if let Some(words) = self.redo_words(last_word) {
                    return Some(words);
                }
                crate::sync::pause();
                continue;
            }
            let mut words = [0; CACHE_LINE_WORDS];
            for (word, copy) in words.iter_mut().enumerate() {
                *copy = self.line.load(word);
            }
            if words[SEQUENCE] == last_word {
                return Some(words);
            }
        }
        None
    }

    /// Returns the version of a record that was read from this line.
    #[inline]
    pub(crate) fn version(self, record: &Record) -> RecordVersion {
        RecordVersion { number: self.number, key_id: record.key_id, last_word: record.last_word }
    }

    /// Returns the tally of the record.
    #[inline]
    pub(crate) fn tally(self) -> &'m AtomicU64 {
        self.line.word(TALLY)
    }

    /// Returns the key id alone, for searches that need nothing else of a record.
    pub(crate) fn key_id(self) -> Option<KeyId> {
        KeyId::from_number(self.line.load(KEY_ID))
    }

    /// Returns word 7, which differs after each write of the record.
    pub(crate) fn last_word(self) -> u64 {
        self.line.load(SEQUENCE)
    }

    /// Returns how often the record was written, counted round.
    pub(crate) fn writes(self) -> u16 {
        u16::try_from(sequence(self.last_word()) / 2).unwrap_or(0)
    }

    /// Returns whether the line still holds, or is about to hold, the record that was read. It
    /// compares the key id and word 7.
    #[inline]
    pub(crate) fn is_unchanged(self, record: &Record) -> bool {
        let last_word = self.line.load(SEQUENCE);
        if last_word == record.last_word {
            return self.key_id() == record.key_id;
        }
        is_odd(last_word)
            && self.redo_words(last_word).is_some_and(|words| {
                words[SEQUENCE] == record.last_word
                    && KeyId::from_number(words[KEY_ID]) == record.key_id
            })
    }

    /// Returns the words that the line is about to hold, from the redo record. `odd` is the line's
    /// word 7 during the write.
    #[inline]
    fn redo_words(self, odd: u64) -> Option<[u64; CACHE_LINE_WORDS]> {
        // In a damaged file, the redo record may belong to another write.
        self.redo.read(self.number).filter(|words| sequence(words[SEQUENCE]) == next_sequence(odd))
    }

    /// Returns whether the line holds the record that was read, and no writer is replacing it.
    pub(crate) fn is_stable(self, record: &Record) -> bool {
        self.line.load(SEQUENCE) == record.last_word
    }

    /// Returns the word of the tally of the redo record, if a writer is replacing the line by
    /// `record`. See [`Keeper`].
    pub(crate) fn redo_kept(self, record: &Record) -> Option<u64> {
        let last_word = self.line.load(SEQUENCE);
        let words = is_odd(last_word).then(|| self.redo_words(last_word)).flatten()?;
        (words[SEQUENCE] == record.last_word).then_some(words[TALLY])
    }

    /// Stores a record in a gate that no other process can open yet.
    pub(crate) fn store_unshared(self, record: Record) {
        let words = record.to_words(next_sequence(0));
        for (word, value) in words.into_iter().enumerate().filter(|(word, _)| *word != TALLY) {
            self.line.store(word, value);
        }
    }

    /// Replaces the record except for its tally. Only the administrator may call it. `kept` is
    /// what `keeper` keeps of the record.
    pub(crate) fn write(self, record: Record, kept: u64, keeper: &impl Keeper) {
        self.write_words(|sequence| record.to_words(sequence), kept, keeper);
    }

    /// Replaces the words of the line except for its tallies by those that `words` returns for the
    /// next sequence.
    pub(crate) fn write_words(
        self,
        words: impl FnOnce(u64) -> [u64; CACHE_LINE_WORDS],
        kept: u64,
        keeper: &impl Keeper,
    ) {
        let words = words(next_sequence(self.line.load(SEQUENCE)));
        self.redo.publish(self.number, &words, kept);
        self.complete(&words, kept, keeper);
    }

    /// Writes the words of the redo record into the record, and withdraws the redo record.
    fn complete(self, words: &[u64; CACHE_LINE_WORDS], kept: u64, keeper: &impl Keeper) {
        let last_word = self.line.load(SEQUENCE);
        if last_word != words[SEQUENCE] {
            self.line.store(SEQUENCE, last_word | 1 << SEQUENCE_SHIFT);
            stop(Stop::RecordOdd);
            let after_tallies = TALLY + keeper.tallies(self.number);
            for word in (0..SEQUENCE).filter(|word| !(TALLY..after_tallies).contains(word)) {
                self.line.store(word, words[word]);
                stop(Stop::RecordWord);
            }
            keeper.keep_entry(self.number, kept);
            self.line.store(SEQUENCE, words[SEQUENCE]);
            stop(Stop::RecordEven);
        }
        keeper.keep_hint(self.number, kept, words);
        stop(Stop::HintKept);
        self.redo.withdraw();
        stop(Stop::RedoWithdrawn);
    }
}

/// What keeps the parts of a record that are not in its line.
///
/// The redo record holds them in the word of the tally, which a writer does not replace.
pub(crate) trait Keeper {
    /// Returns how many words of a line are tallies.
    fn tallies(&self, number: u32) -> usize;

    /// Stores what checks read, while the sequence is odd.
    fn keep_entry(&self, number: u32, kept: u64);

    /// Stores what only administrators read, after the line was written.
    fn keep_hint(&self, number: u32, kept: u64, words: &[u64; CACHE_LINE_WORDS]);
}

/// The header's redo record: the words of the record that is being written, and the *target word*,
/// which names that record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RedoRecord<'m> {
    /// The words of the record, with what a [`Keeper`] keeps in the word of the tally.
    pub(crate) words: &'m CacheLine,
    /// The line of the target word. Its lower half is the record's number + 1, or 0 if there is no
    /// redo record. Its upper half counts the redo records, so that two for one record differ.
    pub(crate) target: &'m CacheLine,
}

/// The position of the target word in its line.
const TARGET: usize = 0;

// The lower half of the target word of a gate that is being migrated, or that was: see
// `gate/migration.rs`. No line has these numbers.
const SEALING: u32 = u32::MAX;
const SEALED: u32 = u32::MAX - 1;
const REPLACED: u32 = u32::MAX - 2;

impl RedoRecord<'_> {
    /// Returns the words that record `number` is about to have, if the redo record is for it.
    #[cold]
    #[inline(never)]
    fn read(self, number: u32) -> Option<[u64; CACHE_LINE_WORDS]> {
        let target = self.target.load(TARGET);
        if low(target) != number + 1 {
            return None;
        }
        let mut words = [0; CACHE_LINE_WORDS];
        for (word, copy) in words.iter_mut().enumerate() {
            *copy = self.words.load(word);
        }
        // If a later redo record was published meanwhile, the count in the target word differs.
        (self.target.load(TARGET) == target).then_some(words)
    }

    /// Writes the redo record for record `number`. The target word is written last.
    fn publish(self, number: u32, words: &[u64; CACHE_LINE_WORDS], kept: u64) {
        for (word, &value) in words.iter().enumerate() {
            self.words.store(word, if word == TALLY { kept } else { value });
            stop(Stop::RedoWord);
        }
        self.name(number + 1);
        stop(Stop::RedoPublished);
    }

    /// Stores the lower half of the target word, and counts one more redo record.
    fn name(self, lower: u32) {
        self.target.store(TARGET, join(high(self.target.load(TARGET)).wrapping_add(1), lower));
    }

    /// Returns the target word. It differs after each redo record, and while there is one.
    pub(crate) fn change_word(self) -> u64 {
        self.target.load(TARGET)
    }

    /// Names the line whose tallies are being moved, in the gate that they move to.
    pub(crate) fn begin_line(self, number: u32) {
        self.name(number + 1);
    }

    /// Publishes words that name another gate as the successor of this one.
    pub(crate) fn announce(self, words: &[u64; CACHE_LINE_WORDS]) {
        for (word, &value) in words.iter().enumerate() {
            self.words.store(word, value);
        }
        self.name(SEALING);
    }

    /// Records that every tally has been moved to the successor.
    pub(crate) fn set_sealed(self) {
        self.name(SEALED);
    }

    /// Records that the successor replaced the gate at its path.
    pub(crate) fn set_replaced(self) {
        self.name(REPLACED);
    }

    /// Returns whether the gate has a successor.
    #[inline]
    pub(crate) fn has_successor(self) -> bool {
        low(self.target.load(TARGET)) >= REPLACED
    }

    /// Returns the words that name the successor, whether every tally has been moved to it, and
    /// whether it replaced the gate at its path.
    pub(crate) fn successor(self) -> Option<([u64; CACHE_LINE_WORDS], bool, bool)> {
        let state = low(self.target.load(TARGET));
        let words = core::array::from_fn(|word| self.words.load(word));
        let is_sealed = matches!(state, SEALED | REPLACED);
        (state >= REPLACED).then_some((words, is_sealed, state == REPLACED))
    }

    /// Clears the number in the target word and keeps its count.
    pub(crate) fn withdraw(self) {
        self.target.store(TARGET, join(high(self.target.load(TARGET)), 0));
    }

    /// Returns the number of the record that a killed administrator was writing.
    pub(crate) fn pending(self) -> Option<u32> {
        low(self.target.load(TARGET)).checked_sub(1).filter(|_| !self.has_successor())
    }

    /// Completes the write that this redo record describes, if it is for `record`.
    pub(crate) fn recover(self, record: RecordRef<'_>, keeper: &impl Keeper) {
        if let Some(words) = self.read(record.number) {
            record.complete(&words, words[TALLY], keeper);
        }
    }

    /// Withdraws a redo record whose number is not that of a record of the gate.
    pub(crate) fn discard(self) {
        self.withdraw();
    }
}

#[cfg(test)]
mod tests;
