//! What a machine remembers of the keys that it has carried, in a file next to the gate.
//!
//! The name of the file is that of the gate and `.versions`. Its header of 64 bytes has the number
//! of the fleet. Then come 40 bytes for each record of the gate: key id, version, digest, how often
//! the record was written, and when the key was revoked (32) with a checksum of the entry (32). All
//! numbers are little-endian. An entry that does not fit its checksum is none, as after a power
//! failure.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use keytally_core::KeyId;
use keytally_fleet_plan::fleet_key::Carried;

use crate::error::FleetError;

/// The first eight bytes of the file.
const MAGIC: u64 = u64::from_le_bytes(*b"ktkeys\n\0");

/// The version of the file's form.
const FORM: u64 = 2;

const HEADER_LEN: usize = 64;
const ENTRY_LEN: usize = 40;

/// The position of the fleet's number among the words of the header.
const FLEET_WORD: usize = 4;

/// The words of an entry: key id, version, digest, number of writes, time of the revocation and
/// checksum.
type Words = [u64; ENTRY_LEN / 8];

/// The memory of a machine.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    path: PathBuf,
    entries: Vec<Words>,
    fleet: u64,
    is_dirty: bool,
}

impl Memory {
    /// Opens the file next to a gate with this number and capacity, or creates it. In a file of
    /// another gate, only the number of the fleet stays: this gate has replaced that one.
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
        let records = usize::try_from(capacity).unwrap_or(usize::MAX);
        let len = HEADER_LEN + records * ENTRY_LEN;
        if !bytes.starts_with(&header[..8 * FLEET_WORD]) || bytes.len() != len {
            bytes = vec![0; len];
            bytes[..HEADER_LEN].copy_from_slice(&header);
            file.set_len(0).map_err(refused)?;
            file.seek(SeekFrom::Start(0)).map_err(refused)?;
            file.write_all(&header).map_err(refused)?;
            file.set_len(u64::try_from(len).unwrap_or(u64::MAX)).map_err(refused)?;
        }
        let (entries, _) = bytes[HEADER_LEN..].as_chunks::<ENTRY_LEN>();
        let words = |entry: &[u8; ENTRY_LEN]| {
            let (words, _) = entry.as_chunks();
            core::array::from_fn(|word| u64::from_le_bytes(words[word]))
        };
        let entries = entries.iter().map(words).collect();
        Ok(Self { file, path, entries, fleet, is_dirty: false })
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
        let [number, version, digest, writes, last] = *self.entries.get(self.index(key_id))?;
        let is_its =
            number == key_id.number() && last == last_word([number, version, digest, writes], last);
        let revoked_s = u32::try_from(last & u64::from(u32::MAX)).unwrap_or(0);
        let writes = u16::try_from(writes).unwrap_or(0);
        is_its.then_some(Carried { version, digest, revoked_s, writes })
    }

    /// Returns whether a key can be remembered: the entry of its record is free or its own, or
    /// belongs to a key that the gate does not have any more.
    pub(super) fn has_room(&self, key_id: KeyId, has_key: impl Fn(KeyId) -> bool) -> bool {
        let Some([number, ..]) = self.entries.get(self.index(key_id)) else { return false };
        let other = KeyId::from_number(*number).filter(|other| *other != key_id);
        other.is_none_or(|other| !has_key(other))
    }

    /// Remembers a key.
    pub(super) fn set(&mut self, key_id: KeyId, carried: Carried) -> Result<(), FleetError> {
        let index = self.index(key_id);
        if self.of(key_id) == Some(carried) {
            return Ok(());
        }
        let Carried { version, digest, revoked_s, writes } = carried;
        let words = [key_id.number(), version, digest, writes.into()];
        let Some(entry) = self.entries.get_mut(index) else { return Ok(()) };
        let [number, version, digest, writes] = words;
        *entry = [number, version, digest, writes, last_word(words, revoked_s.into())];
        let mut bytes = [0; ENTRY_LEN];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(entry) {
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

/// Returns the last word of an entry: the lower half of `last`, and a checksum (FNV-1a) of all.
fn last_word([number, version, digest, writes]: [u64; 4], last: u64) -> u64 {
    let revoked_s = last & u64::from(u32::MAX);
    let words = [number, version, digest, writes, revoked_s];
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

    const CARRIED: Carried = Carried { version: 7, digest: u64::MAX, revoked_s: 9, writes: 8191 };

    #[test]
    fn what_was_carried_is_remembered_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("api.gate");
        let mut memory = Memory::open(&gate, 5, 4).unwrap();
        let (one, other) = (key_id(3, 1), key_id(3, 2));
        assert_eq!((memory.index(key_id(0, 1)), memory.index(one)), (0, 3));
        assert_eq!(memory.of(one), None);
        memory.set(one, CARRIED).unwrap();
        memory.set_fleet(77).unwrap();
        memory.flush().unwrap();
        let mut memory = Memory::open(&gate, 5, 4).unwrap();
        assert_eq!(memory.fleet(), 77);
        assert_eq!((memory.of(one), memory.of(other)), (Some(CARRIED), None));
        // The record has another key.
        assert!(memory.has_room(one, |_| true) && memory.has_room(other, |_| false));
        assert!(!memory.has_room(other, |key_id| key_id == one));
        memory.set(other, CARRIED).unwrap();
        assert_eq!((memory.of(one), memory.of(other)), (None, Some(CARRIED)));
    }

    #[test]
    fn file_of_another_gate_and_damaged_entry_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let gate = folder.path().join("api.gate");
        let path = folder.path().join("api.gate.versions");
        let one = key_id(3, 1);
        Memory::open(&gate, 5, 4).unwrap().set(one, CARRIED).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), HEADER_LEN + 4 * ENTRY_LEN);
        for byte in HEADER_LEN + 3 * ENTRY_LEN..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Memory::open(&gate, 5, 4).unwrap().of(one), None, "byte {byte}");
        }
        for (number, capacity) in [(6, 4), (5, 8)] {
            std::fs::write(&path, &bytes).unwrap();
            Memory::open(&gate, 5, 4).unwrap().set_fleet(77).unwrap();
            let memory = Memory::open(&gate, number, capacity).unwrap();
            assert_eq!((memory.of(one), memory.fleet()), (None, 77));
        }
        std::fs::write(&path, [0xff; 99]).unwrap();
        assert_eq!(Memory::open(&gate, 5, 4).unwrap().fleet(), 0);
        std::fs::create_dir(folder.path().join("b.gate.versions")).unwrap();
        let error = Memory::open(&folder.path().join("b.gate"), 5, 4).unwrap_err().to_string();
        assert!(error.contains("b.gate.versions") && error.contains("--no-keys"), "{error}");
    }
}
