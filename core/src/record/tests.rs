//! Tests of the record and its redo record, on lines in memory.

use core::cell::Cell;

use super::*;
use crate::sync::Ordering;

/// Lines for a record, the redo record's words, and the target word.
fn lines() -> [CacheLine; 3] {
    core::array::from_fn(|_| CacheLine::new())
}

/// The record 7 in these lines.
fn record_ref(lines: &[CacheLine; 3]) -> RecordRef<'_> {
    RecordRef {
        number: 7,
        line: &lines[0],
        redo: RedoRecord { words: &lines[1], target: &lines[2] },
    }
}

/// Writes the whole record, without a hint.
fn write(lines: &[CacheLine; 3], record: Record) {
    record_ref(lines).write(record, 0, &Kept(Cell::new(None)));
}

/// Keeps the number of a record and its hint.
struct Kept(Cell<Option<(u32, u64)>>);

impl Keeper for Kept {
    fn tallies(&self, _: u32) -> usize {
        1
    }

    fn keep_entry(&self, _: u32, _: u64) {}

    fn keep_hint(&self, number: u32, kept: u64, _: &[u64; CACHE_LINE_WORDS]) {
        self.0.set(Some((number, kept)));
    }
}

/// All fields of a record except for its sequence.
fn fields(record: &Record) -> (Option<KeyId>, [u64; 4], [u32; 3], KeyState, [u8; 4]) {
    let Record { key_id, tag, previous, account, expires, grace_until, plan, state, env, .. } =
        *record;
    let tags = [tag.0[0], tag.0[1], previous.0[0], previous.0[1]];
    let small = [plan, env, record.pepper, record.previous_pepper];
    (key_id, tags, [account, expires, grace_until], state, small)
}

/// A record whose fields are all zero.
fn zeros() -> Record {
    Record { key_id: None, ..Record::new(KeyId::LAST, Tag([0, 0]), 0, 0, 0, 0) }
}

/// A record whose fields are all as large as they can be.
fn ones() -> Record {
    Record {
        key_id: Some(KeyId::LAST),
        tag: Tag([u64::MAX; 2]),
        previous: Tag([u64::MAX; 2]),
        account: u32::MAX,
        expires: u32::MAX,
        grace_until: u32::MAX,
        plan: u8::MAX,
        state: KeyState::Revoked,
        pepper: 3,
        previous_pepper: 3,
        env: 15,
        last_word: 0,
    }
}

/// Records in which one field is as large as it can be and all others are zero, one for each field.
fn one_field_each() -> [Record; 13] {
    [
        Record { key_id: Some(KeyId::LAST), ..zeros() },
        Record { tag: Tag([u64::MAX, 0]), ..zeros() },
        Record { tag: Tag([0, u64::MAX]), ..zeros() },
        Record { previous: Tag([u64::MAX, 0]), ..zeros() },
        Record { previous: Tag([0, u64::MAX]), ..zeros() },
        Record { account: u32::MAX, ..zeros() },
        Record { expires: u32::MAX, ..zeros() },
        Record { grace_until: u32::MAX, ..zeros() },
        Record { plan: u8::MAX, ..zeros() },
        Record { state: KeyState::Revoked, ..zeros() },
        Record { pepper: 3, ..zeros() },
        Record { previous_pepper: 3, ..zeros() },
        Record { env: 15, ..zeros() },
    ]
}

#[test]
fn every_field_reads_back_and_overlaps_no_other() {
    let lines = lines();
    record_ref(&lines).tally().store(u64::MAX, Ordering::Relaxed);
    for record in one_field_each().into_iter().chain([zeros(), ones(), zeros()]) {
        write(&lines, record);
        assert_eq!(record_ref(&lines).read().as_ref().map(fields), Some(fields(&record)));
        assert_eq!(record_ref(&lines).key_id(), record.key_id);
    }
    assert_eq!(
        record_ref(&lines).tally().load(Ordering::Relaxed),
        u64::MAX,
        "a write leaves the tally alone"
    );
}

/// The sequence has 14 bits, and each change adds 2 to it.
#[test]
fn record_can_be_changed_without_limit() {
    let lines = lines();
    for change in 1..=(1u64 << 13) + 2 {
        let record = if change % 2 == 0 { zeros() } else { ones() };
        write(&lines, record);
        let read = record_ref(&lines).read();
        assert_eq!(read.as_ref().map(fields), Some(fields(&record)), "{change}");
        assert_eq!(read.map(|read| sequence(read.last_word)), Some(change * 2 % (1 << 14)));
    }
}

#[test]
fn is_unchanged_after_a_write_is_false() {
    let lines = lines();
    write(&lines, ones());
    let before = record_ref(&lines).read().unwrap();
    assert!(record_ref(&lines).is_unchanged(&before));
    write(&lines, ones());
    assert!(!record_ref(&lines).is_unchanged(&before));
}

/// The number of writes after which a record's sequence has the same value again.
const WRITES_PER_CYCLE: u64 = 1 << 13;

/// The record [`ones`] with another key id.
fn another() -> Record {
    Record { key_id: KeyId::from_number(1), ..ones() }
}

#[test]
fn is_unchanged_after_8192_writes_notices_another_key() {
    let lines = lines();
    write(&lines, ones());
    let before = record_ref(&lines).read().unwrap();
    (0..WRITES_PER_CYCLE).for_each(|_| write(&lines, another()));
    assert_eq!(record_ref(&lines).read().unwrap().last_word, before.last_word);
    assert!(!record_ref(&lines).is_unchanged(&before));
}

#[test]
fn is_unchanged_after_8192_writes_notices_another_word_7() {
    for change in one_field_each().into_iter().filter(|change| change.to_words(0)[SEQUENCE] != 0) {
        let lines = lines();
        write(&lines, zeros());
        let before = record_ref(&lines).read().unwrap();
        (0..WRITES_PER_CYCLE).for_each(|_| write(&lines, change));
        assert!(!record_ref(&lines).is_unchanged(&before), "{change:?}");
        (0..WRITES_PER_CYCLE).for_each(|_| write(&lines, zeros()));
        assert!(
            record_ref(&lines).is_unchanged(&before),
            "the same key id and word 7 are there again"
        );
    }
}

#[test]
fn is_unchanged_after_8192_writes_notices_another_redo() {
    let lines = lines();
    begin(&lines, ones(), 3);
    let before = record_ref(&lines).read().unwrap();
    assert!(record_ref(&lines).is_unchanged(&before));
    (0..WRITES_PER_CYCLE).for_each(|_| write(&lines, another()));
    begin(&lines, another(), 3);
    assert_eq!(record_ref(&lines).read().unwrap().last_word, before.last_word);
    assert!(!record_ref(&lines).is_unchanged(&before));
    begin(&lines, Record { plan: 0, ..ones() }, 3);
    assert!(!record_ref(&lines).is_unchanged(&before));
}

#[test]
fn is_unchanged_ignores_a_redo_record_until_the_line_is_odd() {
    let lines = lines();
    let words = begin(&lines, ones(), 0);
    let intended = Record::from_words(&words);
    assert!(record_ref(&lines).is_unchanged(&intended));
    lines[0].store(SEQUENCE, 0);
    assert!(!record_ref(&lines).is_unchanged(&intended));
}

/// Begins to write `record` and stops after `words_written` words, as a killed administrator does.
/// Returns all the words.
fn begin(lines: &[CacheLine; 3], record: Record, words_written: usize) -> [u64; CACHE_LINE_WORDS] {
    let target = record_ref(lines);
    let last_word = target.line.load(SEQUENCE);
    let words = record.to_words(next_sequence(last_word));
    target.redo.publish(target.number, &words, 0xabcd);
    target.line.store(SEQUENCE, last_word | 1 << SEQUENCE_SHIFT);
    for word in (0..SEQUENCE).filter(|&word| word != TALLY).take(words_written) {
        target.line.store(word, words[word]);
    }
    words
}

#[test]
fn half_written_record_is_read_from_its_redo_record() {
    for words_written in 0..SEQUENCE {
        let lines = lines();
        write(&lines, zeros());
        begin(&lines, ones(), words_written);
        let record = record_ref(&lines);
        let read = record.read().unwrap();
        assert_eq!(fields(&read), fields(&ones()), "{words_written}");
        assert!(record.is_unchanged(&read));
        assert_eq!(record.redo.pending(), Some(7));

        let kept = Kept(Cell::new(None));
        record.redo.recover(record, &kept);
        assert_eq!((record.redo.pending(), kept.0.take()), (None, Some((7, 0xabcd))));
        assert!(record.is_unchanged(&read), "the record has become what was read");
        assert_eq!(record.read().as_ref().map(fields), Some(fields(&ones())));
        // A second recovery has nothing to do.
        record.redo.recover(record, &kept);
        assert_eq!(kept.0.get(), None);
    }
}

#[test]
fn redo_record_that_awaits_its_hint_changes_no_word() {
    let lines = lines();
    let words = begin(&lines, ones(), SEQUENCE);
    let record = record_ref(&lines);
    record.line.store(SEQUENCE, words[SEQUENCE]);
    record.tally().store(5, Ordering::Relaxed);
    let kept = Kept(Cell::new(None));
    record.redo.recover(record, &kept);
    assert_eq!((record.redo.pending(), kept.0.get()), (None, Some((7, 0xabcd))));
    assert_eq!(record.read().as_ref().map(fields), Some(fields(&ones())));
    assert_eq!(record.line.load(SEQUENCE), words[SEQUENCE]);
}

#[test]
fn half_written_record_without_redo_record_is_damaged() {
    for other in [0, 6, 8, u32::MAX - 1] {
        let lines = lines();
        begin(&lines, ones(), 2);
        lines[2].store(TARGET, join(1, other + 1));
        assert!(record_ref(&lines).read().is_none(), "a redo record for record {other}");
    }
    // A redo record of the right record, and of another write.
    let lines = lines();
    begin(&lines, ones(), 2);
    lines[1].store(SEQUENCE, lines[1].load(SEQUENCE) + (2 << SEQUENCE_SHIFT));
    assert!(record_ref(&lines).read().is_none());
    // The next administrator's change makes it whole.
    write(&lines, ones());
    assert_eq!(record_ref(&lines).read().as_ref().map(fields), Some(fields(&ones())));
}

#[test]
fn redo_records_of_one_record_differ_in_their_target_word() {
    let lines = lines();
    let target = || lines[2].load(TARGET);
    write(&lines, ones());
    assert_eq!(target(), join(1, 0));
    begin(&lines, ones(), 0);
    assert_eq!(target(), join(2, 8));
    record_ref(&lines).redo.discard();
    assert_eq!((target(), record_ref(&lines).redo.pending()), (join(2, 0), None));
    lines[2].store(TARGET, join(u32::MAX, 0));
    begin(&lines, ones(), 0);
    assert_eq!(target(), join(0, 8));
}

#[test]
fn expiry_and_grace_end_at_the_start_of_their_second() {
    let at = Timestamp::from_unix_s;
    let key = Record::new(KeyId::LAST, Tag([0, 0]), 0, 0, 0, 0);
    let expiring = Record { expires: 100, ..key };
    assert_eq!([99, 100, 101].map(|now| expiring.has_ended(at(now))), [false, true, true]);
    assert!(!key.has_ended(at(u64::MAX)) && !key.has_ended(at(0)), "0 is never");
    assert!(Record { state: KeyState::Revoked, ..key }.has_ended(at(0)));
    assert!(Record { key_id: None, ..key }.has_ended(at(0)), "a free record has ended");
    let grace = Record { grace_until: 100, ..key };
    assert_eq!([99, 100, 101].map(|now| grace.is_in_grace(at(now))), [true, false, false]);
    assert!(!key.is_in_grace(at(0)));
}
