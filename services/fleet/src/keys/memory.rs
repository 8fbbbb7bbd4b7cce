//! What a machine remembers of the keys that it has carried, in a file next to the gate.
//!
//! The name of the file is that of the gate and `.versions`. Its header of 64 bytes has the number
//! of the fleet. Then come 40 bytes for each record of the gate: key id, version, digest, how often
//! the record was written (16) with the expiry of the key (32), and when the key was revoked (32)
//! with a checksum of the entry (32). All numbers are little-endian. An entry that does not fit its
//! checksum is none, as after a power failure.
//!
//! Then come entries of the same form for keys whose records the gate has given to others, at most
//! [`max_former`] of them. If there are more, the key that ended first is forgotten.

use alloc::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use keytally_core::KeyId;
use keytally_fleet_plan::fleet_key::Carried;

use crate::error::FleetError;

/// The first eight bytes of the file.
const MAGIC: u64 = u64::from_le_bytes(*b"ktkeys\n\0");

/// The version of the file's form.
const FORM: u64 = 3;

const HEADER_LEN: usize = 64;
const ENTRY_LEN: usize = 40;

/// The position of the fleet's number among the words of the header.
const FLEET_WORD: usize = 4;

/// The least number of keys that are remembered without a record of the gate.
pub const MIN_FORMER_KEYS: usize = 1024;

/// Returns how many keys are remembered without a record of the gate at most, of a gate with this
/// many records.
fn max_former(records: usize) -> usize {
    records.max(MIN_FORMER_KEYS)
}

/// The words of an entry: key id, version, digest, number of writes and expiry, time of the
/// revocation and checksum.
type Words = [u64; ENTRY_LEN / 8];

/// The memory of a machine.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    path: PathBuf,
    entries: Vec<Words>,
    /// The entries of keys whose records the gate has given to others, at most [`max_former`].
    former: Vec<Words>,
    /// Their indices, by key id.
    former_indices: BTreeMap<u64, usize>,
    /// Their indices, in the order in which the keys ended. Unusable entries are the first.
    former_ends: BTreeSet<(u32, usize)>,
    fleet: u64,
    is_dirty: bool,
    /// Whether the file could not be read, or not all of it.
    was_damaged: bool,
}

impl Memory {
    /// Opens the file next to a gate with this number and capacity, or creates it. In a file of
    /// another gate, only the number of the fleet and the revoked keys stay: this gate has replaced
    /// that one.
    pub(super) fn open(gate: &Path, number: u64, capacity: u32) -> Result<Self, FleetError> {
        let mut name = gate.file_name().unwrap_or_default().to_owned();
        name.push(".versions");
        let path = gate.with_file_name(name);
        let refused = |why: io::Error| {
            FleetError::refused(format!(
                "{}: {why}; the agent remembers the keys that it has carried in this file: let it \
                 write the folder, or start it with --no-keys",
                path.display()
            ))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(refused)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(refused)?;
        let word =
            |index: usize| bytes.get(8 * index..)?.first_chunk().copied().map(u64::from_le_bytes);
        let is_form = [word(0), word(1)] == [MAGIC, FORM].map(Some);
        let fleet = word(FLEET_WORD).filter(|_| is_form).unwrap_or(0);
        let mut header = [0; HEADER_LEN];
        for (chunk, word) in
            header.chunks_exact_mut(8).zip([MAGIC, FORM, number, u64::from(capacity), fleet])
        {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let len_of = |records: usize| HEADER_LEN + (records + max_former(records)) * ENTRY_LEN;
        let records = usize::try_from(capacity).unwrap_or(usize::MAX);
        let len = len_of(records);
        let its_records = word(3).and_then(|records| u32::try_from(records).ok());
        let its_len = its_records.and_then(|records| usize::try_from(records).ok()).map(len_of);
        let has_form = is_form && its_len == Some(bytes.len());
        let is_damaged = |entry: Words| entry != [0; ENTRY_LEN / 8] && parse(entry).is_none();
        let was_damaged =
            !bytes.is_empty() && (!has_form || words_of(&bytes[HEADER_LEN..]).any(is_damaged));
        let mut revoked = Vec::new();
        if !bytes.starts_with(&header[..8 * FLEET_WORD]) || bytes.len() != len {
            if let Some(entries) = bytes.get(HEADER_LEN..).filter(|_| is_form) {
                revoked.extend(words_of(entries).filter_map(parse));
                revoked.retain(|(_, carried)| carried.revoked_s > 0);
            }
            bytes = vec![0; len];
            bytes[..HEADER_LEN].copy_from_slice(&header);
            file.set_len(0).map_err(refused)?;
            file.seek(SeekFrom::Start(0)).map_err(refused)?;
            file.write_all(&header).map_err(refused)?;
            file.set_len(u64::try_from(len).unwrap_or(u64::MAX)).map_err(refused)?;
        }
        let mut entries: Vec<_> = words_of(&bytes[HEADER_LEN..]).collect();
        let mut former = entries.split_off(records);
        let used = former.iter().rposition(|entry| *entry != [0; ENTRY_LEN / 8]);
        former.truncate(used.map_or(0, |last| last + 1));
        let (mut former_indices, mut former_ends) = (BTreeMap::new(), BTreeSet::new());
        for (index, entry) in former.iter().enumerate() {
            let parsed = parse(*entry);
            former_ends.insert((parsed.map_or(0, |(_, carried)| end_s(carried)), index));
            former_indices.extend(parsed.map(|(key_id, _)| (key_id.number(), index)));
        }
        let mut memory = Self {
            file,
            path,
            entries,
            former,
            former_indices,
            former_ends,
            fleet,
            is_dirty: false,
            was_damaged,
        };
        for (key_id, carried) in revoked {
            memory.set_former(key_id, carried)?;
        }
        memory.flush()?;
        Ok(memory)
    }

    /// Returns what the log says if the file was damaged, so that the machine does not remember all
    /// that it had carried.
    pub(super) fn damage(&self) -> Option<String> {
        self.was_damaged.then(|| {
            format!(
                "{} was damaged, so this machine does not remember all keys that it has carried: \
                 if its gate is an older copy, a key of it may be taken for the newest",
                self.path.display()
            )
        })
    }

    /// Returns the number of the fleet that this gate, or the one before it, has been in; 0 for
    /// none.
    pub(super) fn fleet(&self) -> u64 {
        self.fleet
    }

    /// Remembers the number of the fleet.
    pub(super) fn set_fleet(&mut self, number: u64) -> Result<(), FleetError> {
        if self.fleet != number {
            self.fleet = number;
            self.write(8 * FLEET_WORD, &number.to_le_bytes())?;
        }
        Ok(())
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), FleetError> {
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        self.is_dirty = true;
        let seek = self.file.seek(SeekFrom::Start(at));
        seek.and_then(|_| self.file.write_all(bytes)).map_err(|why| self.lost(&why))
    }

    /// Returns the number of the record that a key id names.
    pub(super) fn index(&self, key_id: KeyId) -> usize {
        let scaled = (u128::from(key_id.number()) * (self.entries.len() as u128)) >> 64;
        usize::try_from(scaled).unwrap_or(usize::MAX)
    }

    /// Returns what is remembered of a key.
    pub(super) fn of(&self, key_id: KeyId) -> Option<Carried> {
        let index = self.former_indices.get(&key_id.number());
        let former = index.and_then(|index| self.former.get(*index));
        let own = self.entries.get(self.index(key_id));
        let found = |entry: Option<&Words>| {
            entry.copied().and_then(parse).filter(|(other, _)| *other == key_id)
        };
        found(own).or_else(|| found(former)).map(|(_, carried)| carried)
    }

    /// Returns whether the record that a key id names was written more often, with whichever key,
    /// when it was carried. Then the gate is an older copy of the one that was there.
    pub(super) fn is_ahead(&self, key_id: KeyId, writes: u16) -> bool {
        let entry = self.entries.get(self.index(key_id)).copied().and_then(parse);
        entry.is_some_and(|(_, carried)| carried.is_after(writes))
    }

    /// Returns the keys that are remembered as revoked.
    pub(super) fn revoked(&self) -> impl Iterator<Item = KeyId> {
        let entries = self.entries.iter().chain(&self.former).copied().filter_map(parse);
        entries.filter(|(_, carried)| carried.revoked_s > 0).map(|(key_id, _)| key_id)
    }

    /// Copies the entry of another key that has had the record of this one, so that it is
    /// remembered when this key gets the entry. `is_held` returns whether the gate has this key.
    pub(super) fn keep_former(
        &mut self,
        key_id: KeyId,
        is_held: impl FnOnce() -> bool,
    ) -> Result<(), FleetError> {
        match self.entries.get(self.index(key_id)).copied().and_then(parse) {
            Some((former, carried)) if former != key_id && is_held() => {
                self.set_former(former, carried)
            }
            _ => Ok(()),
        }
    }

    /// Remembers a key. `is_held` returns whether the gate has it.
    pub(super) fn set(
        &mut self,
        key_id: KeyId,
        carried: Carried,
        is_held: impl FnOnce() -> bool,
    ) -> Result<(), FleetError> {
        let index = self.index(key_id);
        if self.of(key_id) == Some(carried) {
            return Ok(());
        }
        let Some(entry) = self.entries.get_mut(index) else { return Ok(()) };
        let is_free = parse(*entry).is_none_or(|(other, _)| other == key_id);
        if !is_free && !is_held() {
            return self.set_former(key_id, carried);
        }
        self.keep_former(key_id, || true)?;
        self.write_entry(index, words(key_id, carried))
    }

    /// Remembers a key without a record of the gate. If there is no room, the key that ended first
    /// is forgotten.
    fn set_former(&mut self, key_id: KeyId, carried: Carried) -> Result<(), FleetError> {
        let entry = words(key_id, carried);
        let known = self.former_indices.get(&key_id.number()).copied();
        let index = match known {
            Some(index) if self.former.get(index) == Some(&entry) => return Ok(()),
            Some(index) => index,
            None if self.former.len() < max_former(self.entries.len()) => {
                self.former.push([0; ENTRY_LEN / 8]);
                self.former.len() - 1
            }
            None => match self.former_ends.first() {
                Some((first_s, index)) if *first_s <= end_s(carried) => *index,
                _ => return Ok(()),
            },
        };
        let before = core::mem::replace(&mut self.former[index], entry);
        let parsed = parse(before);
        self.former_ends.remove(&(parsed.map_or(0, |(_, carried)| end_s(carried)), index));
        if let Some((before, _)) = parsed {
            self.former_indices.remove(&before.number());
        }
        self.former_ends.insert((end_s(carried), index));
        self.former_indices.insert(key_id.number(), index);
        self.write_entry(self.entries.len() + index, entry)
    }

    /// Writes an entry to the file, and to those of the records if it is one of them.
    fn write_entry(&mut self, index: usize, words: Words) -> Result<(), FleetError> {
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = words;
        }
        let mut bytes = [0; ENTRY_LEN];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        self.write(HEADER_LEN + index * ENTRY_LEN, &bytes)
    }

    /// Waits until the disk has what is remembered.
    pub(super) fn flush(&mut self) -> Result<(), FleetError> {
        if core::mem::take(&mut self.is_dirty) {
            self.file.sync_data().map_err(|why| self.lost(&why))?;
        }
        Ok(())
    }

    fn lost(&self, why: &io::Error) -> FleetError {
        FleetError::lost(format!("{}: {why}", self.path.display()))
    }
}

/// Returns the words of entries.
fn words_of(bytes: &[u8]) -> impl Iterator<Item = Words> {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    entries.iter().map(|entry| {
        let (words, _) = entry.as_chunks();
        core::array::from_fn(|word| u64::from_le_bytes(words[word]))
    })
}

/// Returns the key of an entry and what is remembered of it; `None` if the entry is not usable.
fn parse([number, version, digest, more, last]: Words) -> Option<(KeyId, Carried)> {
    let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
    let (revoked_s, expires_s) = (half(last), half(more >> 32));
    let writes = u16::try_from(half(more)).ok()?;
    let is_whole = last == last_word([number, version, digest, more], last);
    let carried = Carried { version, digest, revoked_s, expires_s, writes };
    KeyId::from_number(number).filter(|_| is_whole).map(|key_id| (key_id, carried))
}

/// Returns the entry of a key.
fn words(key_id: KeyId, carried: Carried) -> Words {
    let Carried { version, digest, revoked_s, expires_s, writes } = carried;
    let more = u64::from(expires_s) << 32 | u64::from(writes);
    let [number, version, digest, more] = [key_id.number(), version, digest, more];
    let last = last_word([number, version, digest, more], revoked_s.into());
    [number, version, digest, more, last]
}

/// Returns when a key ended, in Unix seconds: 1 for one that was not known to end.
fn end_s(Carried { revoked_s, expires_s, .. }: Carried) -> u32 {
    revoked_s.max(expires_s).max(1)
}

/// Returns the last word of an entry: the lower half of `last`, and a checksum (FNV-1a) of all.
fn last_word([number, version, digest, more]: [u64; 4], last: u64) -> u64 {
    let revoked_s = last & u64::from(u32::MAX);
    let words = [number, version, digest, more, revoked_s];
    let hash = words
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u64::from(hash) << 32 | revoked_s
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_id(record: u64, number: u64) -> KeyId {
        KeyId::from_number((record << 62) + number).unwrap()
    }

    const ACTIVE: Carried =
        Carried { version: 7, digest: u64::MAX, revoked_s: 0, expires_s: u32::MAX, writes: 8191 };

    const REVOKED: Carried = Carried { version: u64::MAX, revoked_s: 9, expires_s: 0, ..ACTIVE };

    #[test]
    fn what_was_carried_is_remembered_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("api.gate");
        let mut memory = Memory::open(&gate, 5, 4).unwrap();
        let (one, other) = (key_id(3, 1), key_id(3, 2));
        assert_eq!((memory.index(key_id(0, 1)), memory.index(one)), (0, 3));
        assert_eq!(memory.of(one), None);
        memory.set(one, ACTIVE, || true).unwrap();
        memory.set_fleet(77).unwrap();
        memory.flush().unwrap();
        let memory = Memory::open(&gate, 5, 4).unwrap();
        assert_eq!(memory.fleet(), 77);
        assert_eq!((memory.of(one), memory.of(other)), (Some(ACTIVE), None));
    }

    #[test]
    fn key_whose_record_is_another_keys_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("api.gate");
        let keys = [1, 2, 3].map(|number| key_id(3, number));
        let mut memory = Memory::open(&gate, 5, 4).unwrap();
        memory.set(keys[0], REVOKED, || true).unwrap();
        memory.set(keys[1], ACTIVE, || true).unwrap();
        // The gate does not have this one.
        memory.set(keys[2], REVOKED, || false).unwrap();
        let all = |memory: &Memory| keys.map(|key_id| memory.of(key_id));
        let expected = [Some(REVOKED), Some(ACTIVE), Some(REVOKED)];
        assert_eq!(all(&memory), expected);
        let mut memory = Memory::open(&gate, 5, 4).unwrap();
        assert_eq!(all(&memory), expected);
        assert_eq!(memory.revoked().collect::<Vec<_>>(), [keys[0], keys[2]]);
        // What is remembered of it changes.
        let earlier = Carried { revoked_s: 3, ..REVOKED };
        memory.set(keys[0], earlier, || false).unwrap();
        // It has its record again.
        let valid = Carried { version: 9, ..ACTIVE };
        memory.set(keys[2], valid, || true).unwrap();
        let expected = [Some(earlier), Some(ACTIVE), Some(valid)];
        assert_eq!(all(&memory), expected);
        assert_eq!(all(&Memory::open(&gate, 5, 4).unwrap()), expected);
    }

    #[test]
    fn key_that_ended_first_is_forgotten_when_there_is_no_room() {
        for capacity in [4, 2048] {
            let folder = tempfile::tempdir().unwrap();
            let gate = folder.path().join("api.gate");
            let mut memory = Memory::open(&gate, 5, capacity).unwrap();
            let held = key_id(1, 1);
            memory.set(held, ACTIVE, || true).unwrap();
            let room = max_former(usize::try_from(capacity).unwrap());
            assert_eq!(room, MIN_FORMER_KEYS.max(usize::try_from(capacity).unwrap()));
            let key = |number: usize| key_id(1, 2 + u64::try_from(number).unwrap());
            // The second one ends first.
            let end = |number: usize| Carried {
                revoked_s: if number == 1 { 50 } else { 100 + u32::try_from(number).unwrap() },
                ..REVOKED
            };
            for number in 0..room {
                memory.set(key(number), end(number), || false).unwrap();
            }
            let has = |memory: &Memory, number| memory.of(key(number)) == Some(end(number));
            assert!((0..room).all(|number| has(&memory, number)));
            memory
                .set(key_id(1, u64::MAX >> 2), Carried { revoked_s: 49, ..REVOKED }, || false)
                .unwrap();
            assert!((0..room).all(|number| has(&memory, number)), "that one ended before");
            memory.set(key(room), end(room), || false).unwrap();
            let mut memory = Memory::open(&gate, 5, capacity).unwrap();
            assert!((0..=room).all(|number| has(&memory, number) != (number == 1)));
            memory.set(key(room + 1), end(room + 1), || false).unwrap();
            assert!((0..=room + 1).all(|number| has(&memory, number) != (number < 2)));
            assert_eq!(memory.of(held), Some(ACTIVE));
            let len = std::fs::metadata(folder.path().join("api.gate.versions")).unwrap().len();
            let entries = usize::try_from(capacity).unwrap() + room;
            assert_eq!(usize::try_from(len).unwrap(), HEADER_LEN + entries * ENTRY_LEN);
        }
    }

    #[test]
    fn file_of_another_gate_and_damaged_entry_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("api.gate");
        let path = folder.path().join("api.gate.versions");
        let (one, former) = (key_id(3, 1), key_id(3, 2));
        let mut memory = Memory::open(&gate, 5, 4).unwrap();
        memory.set(former, REVOKED, || true).unwrap();
        memory.set(one, ACTIVE, || true).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), HEADER_LEN + (4 + MIN_FORMER_KEYS) * ENTRY_LEN);
        for (index, key_id, other) in [(3, one, former), (4, former, one)] {
            let from = HEADER_LEN + index * ENTRY_LEN;
            for byte in from..from + ENTRY_LEN {
                let mut damaged = bytes.clone();
                damaged[byte] ^= 1;
                std::fs::write(&path, damaged).unwrap();
                let mut memory = Memory::open(&gate, 5, 4).unwrap();
                assert_eq!(memory.of(key_id), None, "byte {byte}");
                assert!(memory.of(other).is_some(), "byte {byte}");
                memory.set(key_id, REVOKED, || key_id == one).unwrap();
                assert_eq!(Memory::open(&gate, 5, 4).unwrap().of(key_id), Some(REVOKED));
            }
        }
        for (number, capacity) in [(6, 4), (5, 8)] {
            std::fs::write(&path, &bytes).unwrap();
            Memory::open(&gate, 5, 4).unwrap().set_fleet(77).unwrap();
            let memory = Memory::open(&gate, number, capacity).unwrap();
            assert_eq!((memory.of(one), memory.fleet()), (None, 77));
            // A revocation holds in each gate.
            assert_eq!(memory.of(former), Some(REVOKED));
            assert_eq!(Memory::open(&gate, number, capacity).unwrap().of(former), Some(REVOKED));
        }
        std::fs::write(&path, [0xff; 99]).unwrap();
        assert_eq!(Memory::open(&gate, 5, 4).unwrap().fleet(), 0);
        let damage = |contents: &[u8], capacity| {
            std::fs::write(&path, contents).unwrap();
            Memory::open(&gate, 5, capacity).unwrap().damage()
        };
        let mut changed = bytes.clone();
        changed[HEADER_LEN + 3 * ENTRY_LEN] ^= 1;
        for damaged in [b"junk", &bytes[..8], &bytes[..bytes.len() - 1], &changed] {
            let sentence = damage(damaged, 4).unwrap_or_default();
            assert!(sentence.contains("api.gate.versions was damaged"), "{}", damaged.len());
            assert_eq!(Memory::open(&gate, 5, 4).unwrap().damage().is_some(), damaged == changed);
        }
        // A file of another capacity is whole, and a new machine has none.
        for (whole, capacity) in [(&bytes[..], 4), (&bytes, 8), (&[], 4)] {
            assert_eq!(damage(whole, capacity), None);
        }
        std::fs::create_dir(folder.path().join("b.gate.versions")).unwrap();
        let error = Memory::open(&folder.path().join("b.gate"), 5, 4).unwrap_err().to_string();
        assert!(error.contains("b.gate.versions") && error.contains("--no-keys"), "{error}");
    }
}
