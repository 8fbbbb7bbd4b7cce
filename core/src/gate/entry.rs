//! The entry of a key in an extended gate: its scopes and its team. It belongs to the record, and
//! is written and read under the record's sequence.

use super::extension::{Extension, REDO_SCOPES_WORD};
use super::table::Gate;
use crate::bits::{high, join, low};
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::key::crc32;
use crate::record::{Keeper, Record, RecordRef, TALLY};

// The words of an entry.
const SCOPES: usize = 0;
const TEAM: usize = 1;

/// The part of a key's record that is in its entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The scopes that the key has, one bit each.
    pub(super) scopes: u64,
    /// The number + 1 of the key's team; 0 for none.
    pub(super) team: u32,
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the entry of a record that was read; `None` if the record was replaced since.
    ///
    /// In a plain gate, the entry is empty.
    pub(super) fn entry(&self, at: RecordRef<'_>, record: &Record) -> Option<Entry> {
        let Some(extension) = &self.extension else { return Some(Entry::default()) };
        if at.is_stable(record) {
            let entry = self.entry_now(at.number);
            // The record's last word is loaded again: a writer stores the entry after it has made
            // the sequence odd.
            if at.is_stable(record) {
                return Some(entry);
            }
        }
        // The record was read from the redo record, for which the scopes had been stored before.
        let scopes = extension.numbers(self.memory.as_ref()).load(REDO_SCOPES_WORD);
        let team = high(at.redo_kept(record)?);
        Some(Entry { scopes, team })
    }

    /// Returns the entry with this number as it is, which a writer may be replacing.
    pub(super) fn entry_now(&self, number: u32) -> Entry {
        let Some(extension) = &self.extension else { return Entry::default() };
        let (line, word) = extension.entry(self.memory.as_ref(), number);
        Entry { scopes: line.load(word + SCOPES), team: low(self.team_word(extension, line, word)) }
    }

    fn team_word(&self, extension: &Extension, line: &CacheLine, word: usize) -> u64 {
        if extension.teams > 0 { line.load(word + TEAM) } else { 0 }
    }

    /// Returns the checksum of a record and its entry; 0 if the record was never written.
    pub(super) fn checksum_of(&self, at: RecordRef<'_>) -> u32 {
        match at.read_words() {
            Some(words) if words[0] != 0 => self.checksum(at.number, &words),
            _ => 0,
        }
    }

    /// Returns the checksum of a record's words, scopes and team.
    pub(super) fn checksum(&self, number: u32, words: &[u64; CACHE_LINE_WORDS]) -> u32 {
        let own = words.iter().enumerate().filter(|(word, _)| *word != TALLY);
        let Entry { scopes, team } = self.entry_now(number);
        let all = own.map(|(_, &word)| word).chain([scopes, team.into()]);
        crc32(all.flat_map(u64::to_le_bytes))
    }

    /// Stores the entry and the hint of a record in a gate that no other process can open yet.
    pub(super) fn store_entry(&self, at: RecordRef<'_>, entry: Entry, hint: u32) {
        if let Some(extension) = &self.extension {
            extension.numbers(self.memory.as_ref()).store(REDO_SCOPES_WORD, entry.scopes);
        }
        self.keep_entry(at.number, join(entry.team, hint));
        self.store_hint(at.number, hint, self.checksum_of(at));
    }

    /// Replaces a record and its entry. Only the administrator may call it.
    pub(super) fn write(&self, at: RecordRef<'_>, record: Record, hint: u32, entry: Entry) {
        if let Some(extension) = &self.extension {
            extension.numbers(self.memory.as_ref()).store(REDO_SCOPES_WORD, entry.scopes);
        }
        at.write(record, join(entry.team, hint), self);
    }
}

impl<M: AsRef<[CacheLine]>> Keeper for Gate<M> {
    fn tallies(&self, number: u32) -> usize {
        // The lines of teams are numbered after those of records.
        if number < self.capacity { 1 } else { 2 }
    }

    fn keep_entry(&self, number: u32, kept: u64) {
        let Some(extension) = self.extension.as_ref().filter(|_| number < self.capacity) else {
            return;
        };
        let lines = self.memory.as_ref();
        let (line, word) = extension.entry(lines, number);
        line.store(word + SCOPES, extension.numbers(lines).load(REDO_SCOPES_WORD));
        if extension.teams > 0 {
            line.store(word + TEAM, high(kept).into());
        }
    }

    fn keep_hint(&self, number: u32, kept: u64, words: &[u64; CACHE_LINE_WORDS]) {
        if number < self.capacity {
            self.store_hint(number, low(kept), self.checksum(number, words));
        }
    }
}
