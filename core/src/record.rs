//! A key's record: one cache line, read whole although it is written word by word.
//!
//! | word | holds |
//! |---|---|
//! | 0 | key id (0 = free) |
//! | 1 | tally |
//! | 2, 3 | tag of the secret |
//! | 4, 5 | tag of the previous secret |
//! | 6 | account (32) · not after, Unix seconds (32; 0 = never) |
//! | 7 | previous secret's grace until (32) · sequence (14) · previous pepper (2) · plan (8) · state (2) · pepper (2) · environment (4) |
//!
//! The tally is everybody's and no part of what follows. The rest is one administrator's at a time, who
//!
//! 1. writes the whole new record to the header as an *intent*, and publishes it,
//! 2. makes the record's sequence odd, writes the words, makes the sequence even again, two further than it was,
//! 3. withdraws the intent.
//!
//! A reader copies the words and takes the copy if the sequence was even and the same before and after. When it is
//! odd the reader takes the intent instead, which is complete and has the same words that the record is about to
//! have; so a reader never waits, and a record that a killed administrator left half-written is as good as written.
//! The next administrator completes it.
//!
//! Every word is stored with release and loaded with acquire, and word 7 is loaded first and last. A
//! reader that sees a new word therefore sees the sequence that was made odd before it, and its
//! second look at word 7 differs from the first.
//!
//! The sequence wraps after 8,192 writes. Before a caller acts on a copy, it therefore compares the
//! key id and the whole of word 7 with the line again ([`Place::unmoved`]). SAFETY.md says what this
//! comparison cannot notice.

use crate::key::KeyId;
use crate::line::{LINE_WORDS, Line, high, join, low};
use crate::mac::Tag;
use crate::stop::{Stop, stop};
use crate::sync::AtomicU64;
use crate::time::Timestamp;

/// Words of a record.
const KEY_ID: usize = 0;
const TALLY: usize = 1;
const SEQUENCE: usize = 7;

/// How often a reader looks again when a record moves under it. One look is enough unless the same record is
/// changed several times during a check; no administrator is so fast, but a damaged file may look like it.
const MAX_LOOKS: u32 = 1000;

/// Bits of the sequence number in word 7.
const SEQUENCE_SHIFT: u32 = 18;
const SEQUENCE_MASK: u64 = (1 << 14) - 1;

/// What has become of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum KeyState {
    /// It is good until it expires.
    Active = 0,
    /// It is no good any more.
    Revoked = 1,
}

/// A record, copied out of its line. The tally is left where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) key_id: Option<KeyId>,
    pub(crate) tag: Tag,
    pub(crate) previous: Tag,
    pub(crate) account: u32,
    /// Unix seconds; 0 = never.
    pub(crate) not_after: u32,
    /// Until when the previous secret is good, in Unix seconds.
    pub(crate) grace_until: u32,
    pub(crate) plan: u8,
    pub(crate) state: KeyState,
    pub(crate) pepper: u8,
    pub(crate) previous_pepper: u8,
    pub(crate) env: u8,
    /// Word 7 as it was read, with its even sequence; 0 in a record that is not written yet.
    last_word: u64,
}

impl Record {
    /// A record of a new key, good for ever, with no previous secret.
    pub(crate) fn new(key_id: KeyId, tag: Tag, pepper: u8, account: u32, plan: u8, env: u8) -> Self {
        Self {
            key_id: Some(key_id),
            tag,
            previous: Tag([0, 0]),
            account,
            not_after: 0,
            grace_until: 0,
            plan,
            state: KeyState::Active,
            pepper,
            previous_pepper: pepper,
            env,
            last_word: 0,
        }
    }

    /// Whether no secret of the key is good any more, or the record is free.
    #[inline]
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        let expired = self.not_after != 0 && now.unix_s() >= u64::from(self.not_after);
        self.key_id.is_none() || self.state == KeyState::Revoked || expired
    }

    /// Whether the previous secret is good still.
    #[inline]
    pub(crate) fn is_in_grace(&self, now: Timestamp) -> bool {
        now.unix_s() < u64::from(self.grace_until)
    }

    /// Returns until when the previous secret is valid; `None` if it is not.
    pub(crate) fn previous_until(&self, now: Timestamp) -> Option<Timestamp> {
        match self.not_after {
            _ if self.has_ended(now) || !self.is_in_grace(now) => None,
            0 => moment(self.grace_until),
            not_after => moment(self.grace_until.min(not_after)),
        }
    }

    /// Returns when the key expires; `None` for never.
    pub(crate) fn expiry(&self) -> Option<Timestamp> {
        moment(self.not_after)
    }

    #[inline]
    fn from_words(words: &[u64; LINE_WORDS]) -> Self {
        let meta = words[SEQUENCE].to_le_bytes();
        Self {
            key_id: KeyId::from_number(words[KEY_ID]),
            tag: Tag([words[2], words[3]]),
            previous: Tag([words[4], words[5]]),
            account: low(words[6]),
            not_after: high(words[6]),
            grace_until: high(words[SEQUENCE]),
            // Low to high: environment (4) pepper (2) state (2) | plan (8) | previous pepper (2) sequence (14) | grace.
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

    fn to_words(self, sequence: u64) -> [u64; LINE_WORDS] {
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
            join(self.not_after, self.account),
            meta,
        ]
    }
}

/// Returns a moment as a record keeps it: Unix seconds, rounded up, at most `u32::MAX`. 0 stands for `None`.
pub(crate) fn stored_s(moment: Option<Timestamp>) -> u32 {
    moment.map_or(0, |moment| u32::try_from(moment.unix_ms().div_ceil(1000)).unwrap_or(u32::MAX).max(1))
}

/// Returns the moment that a record keeps in `stored_s`; `None` for 0.
fn moment(stored_s: u32) -> Option<Timestamp> {
    (stored_s != 0).then(|| Timestamp::from_unix_s(stored_s.into()))
}

fn sequence(last_word: u64) -> u64 {
    (last_word >> SEQUENCE_SHIFT) & SEQUENCE_MASK
}

fn is_odd(last_word: u64) -> bool {
    sequence(last_word) & 1 == 1
}

/// The even sequence that a write of the record ends with.
///
/// The line may also be odd without an intent, in a damaged file.
fn next_sequence(last_word: u64) -> u64 {
    ((sequence(last_word) | 1) + 1) & SEQUENCE_MASK
}

/// The line of a record, and where the header keeps the intent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'m> {
    pub(crate) number: u32,
    pub(crate) line: &'m Line,
    pub(crate) intent: Intent<'m>,
}

impl<'m> Place<'m> {
    /// The record as it is, or as it is about to be. `None` when it is damaged.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn read(self) -> Option<Record> {
        for _ in 0..MAX_LOOKS {
            let last_word = self.line.load(SEQUENCE);
            if is_odd(last_word) {
                if let Some(words) = self.intended(last_word) {
                    return Some(Record::from_words(&words));
                }
                crate::sync::pause();
                continue;
            }
            let mut words = [0; LINE_WORDS];
            for (word, copy) in words.iter_mut().enumerate() {
                *copy = self.line.load(word);
            }
            if words[SEQUENCE] == last_word {
                return Some(Record::from_words(&words));
            }
        }
        None
    }

    /// The tally of the record.
    #[inline]
    pub(crate) fn tally(self) -> &'m AtomicU64 {
        self.line.word(TALLY)
    }

    /// The key id alone, which is all that most searches look at.
    pub(crate) fn key_id(self) -> Option<KeyId> {
        KeyId::from_number(self.line.load(KEY_ID))
    }

    /// Whether the line still holds, or is about to hold, the record that was read.
    ///
    /// The key id and the last word decide.
    #[inline]
    pub(crate) fn unmoved(self, record: &Record) -> bool {
        let last_word = self.line.load(SEQUENCE);
        if last_word == record.last_word {
            return self.key_id() == record.key_id;
        }
        is_odd(last_word)
            && self.intended(last_word).is_some_and(|words| {
                words[SEQUENCE] == record.last_word && KeyId::from_number(words[KEY_ID]) == record.key_id
            })
    }

    /// The words that a line with this odd last word is about to hold, as the intent says.
    #[cold]
    #[inline(never)]
    fn intended(self, odd: u64) -> Option<[u64; LINE_WORDS]> {
        // In a damaged file the intent may be of another time.
        self.intent.read(self.number).filter(|words| sequence(words[SEQUENCE]) == next_sequence(odd))
    }

    /// Replaces the record, all but its tally. `hint` goes with it. Only an administrator may.
    pub(crate) fn write(self, record: Record, hint: u32, keep_hint: impl Fn(u32, u32)) {
        let words = record.to_words(next_sequence(self.line.load(SEQUENCE)));
        self.intent.publish(self.number, &words, hint);
        self.complete(&words, hint, keep_hint);
    }

    /// Writes the words of the intent into the record, and withdraws the intent.
    fn complete(self, words: &[u64; LINE_WORDS], hint: u32, keep_hint: impl Fn(u32, u32)) {
        let last_word = self.line.load(SEQUENCE);
        if last_word != words[SEQUENCE] {
            self.line.store(SEQUENCE, last_word | 1 << SEQUENCE_SHIFT);
            stop(Stop::RecordOdd);
            for word in (0..SEQUENCE).filter(|&word| word != TALLY) {
                self.line.store(word, words[word]);
                stop(Stop::RecordWord);
            }
            self.line.store(SEQUENCE, words[SEQUENCE]);
            stop(Stop::RecordEven);
        }
        keep_hint(self.number, hint);
        stop(Stop::HintKept);
        self.intent.withdraw();
        stop(Stop::IntentWithdrawn);
    }
}

/// The header's copy of a record that is being written: a line of words, with the hint in place of the tally, and a
/// word that says whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intent<'m> {
    pub(crate) words: &'m Line,
    /// Record number + 1 (32; 0 = no intent) · how many intents there were (32).
    pub(crate) owner: &'m Line,
}

/// The word of the owner line that the intent uses.
const OWNER: usize = 0;

impl Intent<'_> {
    /// The words that record `number` is about to have, if it is that record's intent.
    fn read(self, number: u32) -> Option<[u64; LINE_WORDS]> {
        let owner = self.owner.load(OWNER);
        if low(owner) != number + 1 {
            return None;
        }
        let mut words = [0; LINE_WORDS];
        for (word, copy) in words.iter_mut().enumerate() {
            *copy = self.words.load(word);
        }
        // The count of intents tells this one from a later one for the same record.
        (self.owner.load(OWNER) == owner).then_some(words)
    }

    fn publish(self, number: u32, words: &[u64; LINE_WORDS], hint: u32) {
        for (word, &value) in words.iter().enumerate() {
            self.words.store(word, if word == TALLY { u64::from(hint) } else { value });
            stop(Stop::IntentWord);
        }
        self.owner.store(OWNER, join(high(self.owner.load(OWNER)).wrapping_add(1), number + 1));
        stop(Stop::IntentPublished);
    }

    fn withdraw(self) {
        self.owner.store(OWNER, join(high(self.owner.load(OWNER)), 0));
    }

    /// The record that the intent is for, if a killed administrator left one.
    pub(crate) fn pending(self) -> Option<u32> {
        low(self.owner.load(OWNER)).checked_sub(1)
    }

    /// Completes what a killed administrator left: `place` is the pending record's.
    pub(crate) fn recover(self, place: Place<'_>, keep_hint: impl Fn(u32, u32)) {
        if let Some(words) = self.read(place.number) {
            place.complete(&words, low(words[TALLY]), keep_hint);
        }
    }

    /// Drops an intent that names no record.
    pub(crate) fn discard(self) {
        self.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;
    use crate::sync::Ordering;

    /// A record's line, the intent's, and the owner's.
    fn lines() -> [Line; 3] {
        [const { Line::new() }; 3]
    }

    fn place(lines: &[Line; 3]) -> Place<'_> {
        Place { number: 7, line: &lines[0], intent: Intent { words: &lines[1], owner: &lines[2] } }
    }

    fn write(lines: &[Line; 3], record: Record) {
        place(lines).write(record, 0, |_, _| ());
    }

    /// Everything of a record but its sequence.
    fn fields(record: &Record) -> (Option<KeyId>, [u64; 4], [u32; 3], KeyState, [u8; 4]) {
        let Record { key_id, tag, previous, account, not_after, grace_until, plan, state, env, .. } = *record;
        let tags = [tag.0[0], tag.0[1], previous.0[0], previous.0[1]];
        let small = [plan, env, record.pepper, record.previous_pepper];
        (key_id, tags, [account, not_after, grace_until], state, small)
    }

    fn zeros() -> Record {
        Record { key_id: None, ..Record::new(KeyId::LAST, Tag([0, 0]), 0, 0, 0, 0) }
    }

    fn ones() -> Record {
        Record {
            key_id: Some(KeyId::LAST),
            tag: Tag([u64::MAX; 2]),
            previous: Tag([u64::MAX; 2]),
            account: u32::MAX,
            not_after: u32::MAX,
            grace_until: u32::MAX,
            plan: u8::MAX,
            state: KeyState::Revoked,
            pepper: 3,
            previous_pepper: 3,
            env: 15,
            last_word: 0,
        }
    }

    /// Records in which one field is as large as it can be and all others are zero.
    fn one_field_each() -> [Record; 13] {
        [
            Record { key_id: Some(KeyId::LAST), ..zeros() },
            Record { tag: Tag([u64::MAX, 0]), ..zeros() },
            Record { tag: Tag([0, u64::MAX]), ..zeros() },
            Record { previous: Tag([u64::MAX, 0]), ..zeros() },
            Record { previous: Tag([0, u64::MAX]), ..zeros() },
            Record { account: u32::MAX, ..zeros() },
            Record { not_after: u32::MAX, ..zeros() },
            Record { grace_until: u32::MAX, ..zeros() },
            Record { plan: u8::MAX, ..zeros() },
            Record { state: KeyState::Revoked, ..zeros() },
            Record { pepper: 3, ..zeros() },
            Record { previous_pepper: 3, ..zeros() },
            Record { env: 15, ..zeros() },
        ]
    }

    #[test]
    fn every_field_comes_back_and_runs_into_no_other() {
        let lines = lines();
        place(&lines).tally().store(u64::MAX, Ordering::Relaxed);
        for record in one_field_each().into_iter().chain([zeros(), ones(), zeros()]) {
            write(&lines, record);
            assert_eq!(place(&lines).read().as_ref().map(fields), Some(fields(&record)));
            assert_eq!(place(&lines).key_id(), record.key_id);
        }
        assert_eq!(place(&lines).tally().load(Ordering::Relaxed), u64::MAX, "the tally is everybody's");
    }

    /// The sequence has 14 bits, and goes two further with each change.
    #[test]
    fn a_record_can_be_changed_without_end() {
        let lines = lines();
        for change in 1..=(1u64 << 13) + 2 {
            let record = if change % 2 == 0 { zeros() } else { ones() };
            write(&lines, record);
            let read = place(&lines).read();
            assert_eq!(read.as_ref().map(fields), Some(fields(&record)), "{change}");
            assert_eq!(read.map(|read| sequence(read.last_word)), Some(change * 2 % (1 << 14)));
        }
    }

    #[test]
    fn a_change_is_noticed_by_who_read_before() {
        let lines = lines();
        write(&lines, ones());
        let before = place(&lines).read().unwrap();
        assert!(place(&lines).unmoved(&before));
        write(&lines, ones());
        assert!(!place(&lines).unmoved(&before));
    }

    /// Writes of a record after which its sequence is the same again.
    const PERIOD: u64 = 1 << 13;

    /// A record like [`ones`] of another key.
    fn another() -> Record {
        Record { key_id: KeyId::from_number(1), ..ones() }
    }

    #[test]
    fn unmoved_after_a_period_notices_another_key() {
        let lines = lines();
        write(&lines, ones());
        let before = place(&lines).read().unwrap();
        (0..PERIOD).for_each(|_| write(&lines, another()));
        assert_eq!(place(&lines).read().unwrap().last_word, before.last_word);
        assert!(!place(&lines).unmoved(&before));
    }

    #[test]
    fn unmoved_after_a_period_notices_another_last_word() {
        for change in one_field_each().into_iter().filter(|change| change.to_words(0)[SEQUENCE] != 0) {
            let lines = lines();
            write(&lines, zeros());
            let before = place(&lines).read().unwrap();
            (0..PERIOD).for_each(|_| write(&lines, change));
            assert!(!place(&lines).unmoved(&before), "{change:?}");
            (0..PERIOD).for_each(|_| write(&lines, zeros()));
            assert!(place(&lines).unmoved(&before), "the same key and last word are back");
        }
    }

    #[test]
    fn unmoved_after_a_period_notices_another_intent() {
        let lines = lines();
        begin(&lines, ones(), 3);
        let before = place(&lines).read().unwrap();
        assert!(place(&lines).unmoved(&before));
        (0..PERIOD).for_each(|_| write(&lines, another()));
        begin(&lines, another(), 3);
        assert_eq!(place(&lines).read().unwrap().last_word, before.last_word);
        assert!(!place(&lines).unmoved(&before));
        begin(&lines, Record { plan: 0, ..ones() }, 3);
        assert!(!place(&lines).unmoved(&before));
    }

    #[test]
    fn unmoved_ignores_an_intent_until_the_line_is_odd() {
        let lines = lines();
        let words = begin(&lines, ones(), 0);
        let intended = Record::from_words(&words);
        assert!(place(&lines).unmoved(&intended));
        lines[0].store(SEQUENCE, 0);
        assert!(!place(&lines).unmoved(&intended));
    }

    /// Leaves a change to `record` undone after so many words, as a killed administrator does.
    fn begin(lines: &[Line; 3], record: Record, words_written: usize) -> [u64; LINE_WORDS] {
        let place = place(lines);
        let last_word = place.line.load(SEQUENCE);
        let words = record.to_words(next_sequence(last_word));
        place.intent.publish(place.number, &words, 0xabcd);
        place.line.store(SEQUENCE, last_word | 1 << SEQUENCE_SHIFT);
        for word in (0..SEQUENCE).filter(|&word| word != TALLY).take(words_written) {
            place.line.store(word, words[word]);
        }
        words
    }

    #[test]
    fn a_half_written_record_is_read_from_the_intent_and_completed() {
        for words_written in 0..SEQUENCE {
            let lines = lines();
            write(&lines, zeros());
            begin(&lines, ones(), words_written);
            let place = place(&lines);
            let read = place.read().unwrap();
            assert_eq!(fields(&read), fields(&ones()), "{words_written}");
            assert!(place.unmoved(&read));
            assert_eq!(place.intent.pending(), Some(7));

            let hint = Cell::new(None);
            place.intent.recover(place, |number, kept| hint.set(Some((number, kept))));
            assert_eq!((place.intent.pending(), hint.get()), (None, Some((7, 0xabcd))));
            assert!(place.unmoved(&read), "the record has become what was read");
            assert_eq!(place.read().as_ref().map(fields), Some(fields(&ones())));
            // Once is enough.
            place.intent.recover(place, |_, _| panic!("there is nothing to recover"));
        }
    }

    #[test]
    fn an_intent_that_only_awaits_its_hint_changes_no_word() {
        let lines = lines();
        let words = begin(&lines, ones(), SEQUENCE);
        let place = place(&lines);
        place.line.store(SEQUENCE, words[SEQUENCE]);
        place.tally().store(5, Ordering::Relaxed);
        let hint = Cell::new(None);
        place.intent.recover(place, |number, kept| hint.set(Some((number, kept))));
        assert_eq!((place.intent.pending(), hint.get()), (None, Some((7, 0xabcd))));
        assert_eq!(place.read().as_ref().map(fields), Some(fields(&ones())));
        assert_eq!(place.line.load(SEQUENCE), words[SEQUENCE]);
    }

    #[test]
    fn a_half_written_record_without_its_intent_is_damaged() {
        for other in [0, 6, 8, u32::MAX - 1] {
            let lines = lines();
            begin(&lines, ones(), 2);
            lines[2].store(OWNER, join(1, other + 1));
            assert!(place(&lines).read().is_none(), "an intent of record {other}");
        }
        // An intent of the right record, and of another time.
        let lines = lines();
        begin(&lines, ones(), 2);
        lines[1].store(SEQUENCE, lines[1].load(SEQUENCE) + (2 << SEQUENCE_SHIFT));
        assert!(place(&lines).read().is_none());
        // The next administrator's change makes it whole.
        write(&lines, ones());
        assert_eq!(place(&lines).read().as_ref().map(fields), Some(fields(&ones())));
    }

    #[test]
    fn each_intent_is_another() {
        let lines = lines();
        let owner = || lines[2].load(OWNER);
        write(&lines, ones());
        assert_eq!(owner(), join(1, 0));
        begin(&lines, ones(), 0);
        assert_eq!(owner(), join(2, 8));
        place(&lines).intent.discard();
        assert_eq!((owner(), place(&lines).intent.pending()), (join(2, 0), None));
        lines[2].store(OWNER, join(u32::MAX, 0));
        begin(&lines, ones(), 0);
        assert_eq!(owner(), join(0, 8));
    }

    #[test]
    fn an_end_is_the_first_second_that_is_too_late() {
        let at = Timestamp::from_unix_s;
        let key = Record::new(KeyId::LAST, Tag([0, 0]), 0, 0, 0, 0);
        let expiring = Record { not_after: 100, ..key };
        assert_eq!([99, 100, 101].map(|now| expiring.has_ended(at(now))), [false, true, true]);
        assert!(!key.has_ended(at(u64::MAX)) && !key.has_ended(at(0)), "0 is never");
        assert!(Record { state: KeyState::Revoked, ..key }.has_ended(at(0)));
        assert!(Record { key_id: None, ..key }.has_ended(at(0)), "a free record is nobody's");
        let grace = Record { grace_until: 100, ..key };
        assert_eq!([99, 100, 101].map(|now| grace.is_in_grace(at(now))), [true, false, false]);
        assert!(!key.is_in_grace(at(0)));
    }
}
