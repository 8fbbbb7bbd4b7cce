//! The struct [`Gate`], and where in its memory the header, the records and the hints are.

use super::extension::{Extension, HINTS_PER_LINE};
use crate::bits::{high, index, join, low, scale};
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::header::Header;
use crate::key::{KeyId, Name};
use crate::mac::{KEPT_PEPPERS, Pepper, Peppers};
use crate::record::{Record, RecordRef, RedoRecord};
use crate::tally::Layout;
use crate::time::Timestamp;
use crate::verdict::Holder;

/// The most environments of a gate.
pub const MAX_ENVS: usize = 16;

/// The line of the peppers' fingerprints, and of the words below.
pub(super) const PEPPER_LINE: usize = 1;
/// The word of the pepper line that holds the prefix of every key.
pub(super) const PREFIX_WORD: usize = 4;
/// The word of the pepper line that holds [`IMPORTED_FLAG`] in its lowest bit, then the generation
/// of the counts of uses and [`RESERVING_FLAG`], and in the upper 48 bits the number of the last
/// change of a list of keys that was applied to this gate.
pub(super) const LIST_WORD: usize = 5;
/// Set once a key that does not have Keytally's form was imported.
pub(super) const IMPORTED_FLAG: u64 = 1;
/// The position of the generation of the counts of uses; 0 if no uses are counted.
pub(super) const USAGE_SHIFT: u32 = 1;
/// The bits of the generation of the counts of uses.
pub(super) const USAGE_MASK: u32 = 0x3FFF;
/// Set while requests need a [reservation](crate::Reserve).
pub(super) const RESERVING_FLAG: u64 = 1 << 15;
/// The position of the number of the last change of a list of keys.
pub(super) const SEQUENCE_SHIFT: u32 = 16;
/// The word of the pepper line that holds [`REGISTERED`] in its lowest bit. The others are the
/// time, in Unix milliseconds, from which on charges can be refunded.
pub(super) const ADMINISTRATOR_WORD: usize = 6;
/// Set while an administrator is registered.
pub(super) const REGISTERED: u64 = 1;
/// The line of the redo record's words.
pub(super) const REDO_LINE: usize = 2;
/// The line that names the record that the redo record is for. It holds a plan's redo record too.
pub(super) const TARGET_LINE: usize = 3;
/// The word of the target line that holds the number of the gate. The last word of this line and of
/// the pepper line belong to the crate `keytally`.
pub(super) const ID_WORD: usize = 6;
/// The first of the lines that hold the names of the environments, one per word.
pub(super) const ENV_LINE: usize = 4;

/// Set in the header's flags when the gate keeps hints: the last four characters of each key, and
/// a checksum of its record.
pub(super) const HINTS_FLAG: u32 = 1;
/// Set in the header's flags of an extended gate.
pub(super) const EXTENDED_FLAG: u32 = 2;
/// The position in the header's flags of the factors by which the last two migrations enlarged a
/// gate with imported keys, 8 bits each, the last one first.
pub(super) const FACTORS_SHIFT: u32 = 16;

/// A gate in memory that the caller provides: anything that dereferences to a slice of lines.
///
/// Any number of threads, and of processes that map the same memory, may call its methods at once.
///
/// ```
/// use keytally_core::{CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Peppers, Plan};
/// use keytally_core::Timestamp;
///
/// let plan = Plan::new("default", "100/minute, 1000/hour".parse()?).unwrap();
/// let plans = [plan];
/// let config = GateConfig::new(64, Name::new("kt").unwrap(), &plans).with_plan_slots(4);
/// let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
/// let gate = Gate::init(memory, &config, Peppers::new(&[b"a pepper of at least 32 bytes ..."])?)?;
///
/// let now = Timestamp::from_unix_s(1_700_000_000);
/// let new = NewKey::new(42, Name::new("live").unwrap());
/// let entropy = Entropy::new([7; 24]); // from the system in a real program
/// let (key, _) = gate.administer()?.issue(&new, entropy, now)?;
///
/// let verdict = gate.check(Some(key.expose().as_bytes()), 1, now);
/// assert!(verdict.is_admitted());
/// assert_eq!(verdict.remaining(), Some(999));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Gate<M> {
    pub(super) memory: M,
    pub(super) peppers: Peppers,
    pub(super) layout: Layout,
    pub(super) prefix: Name,
    pub(super) capacity: u32,
    pub(super) plan_slots: usize,
    /// `None` in a plain gate.
    pub(super) extension: Option<Extension>,
    /// The factors of the header's flags: see [`FACTORS_SHIFT`].
    pub(super) import_factors: [u8; 2],
    /// The index of the first record's line.
    pub(super) records_at: usize,
    /// The index of the first line of hints, if the gate keeps them.
    pub(super) hints_at: Option<usize>,
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    pub(super) fn from_header(
        memory: M,
        header: &Header,
        extension: Option<Extension>,
        prefix: Name,
        peppers: Peppers,
    ) -> Self {
        // See `FACTORS_SHIFT`.
        let [_, _, last, before] = header.flags.to_le_bytes();
        let records_at = index(u64::from(header.header_lines));
        let hints_at = (header.flags & HINTS_FLAG != 0)
            .then(|| records_at + index(u64::from(header.capacity)));
        Self {
            memory,
            peppers,
            layout: header.layout,
            prefix,
            capacity: header.capacity,
            plan_slots: index(u64::from(header.plan_slots)),
            extension,
            import_factors: [last, before],
            records_at,
            hints_at,
        }
    }

    /// Returns the memory that the gate is in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Returns the random number of this gate, which no other gate has. Compound charges order
    /// tables by it.
    pub fn id(&self) -> u64 {
        self.memory.as_ref()[TARGET_LINE].load(ID_WORD)
    }

    /// Returns the time before which a charge cannot be refunded or settled: that of the migration
    /// from a gate with other sections or windows.
    pub(super) fn refunds_from(&self) -> Timestamp {
        let word = self.memory.as_ref()[PEPPER_LINE].load(ADMINISTRATOR_WORD);
        Timestamp::from_unix_ms(word >> 1)
    }

    /// Returns the prefix of every key of this gate.
    pub fn prefix(&self) -> Name {
        self.prefix
    }

    /// Returns the most keys that the gate can hold.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Returns the layout of the tallies: the windows that all plans share, and the algorithm.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the name of an environment, by its number in a [`Holder`].
    pub fn env(&self, number: u8) -> Option<Name> {
        let line = self.memory.as_ref().get(ENV_LINE + usize::from(number) / CACHE_LINE_WORDS)?;
        if usize::from(number) >= MAX_ENVS {
            return None;
        }
        Name::from_word(line.load(usize::from(number) % CACHE_LINE_WORDS))
    }

    /// Returns the record of a key id, if the gate has the key.
    pub(super) fn find(&self, key_id: KeyId) -> Option<(RecordRef<'_>, Record)> {
        let at = self.record_of(key_id);
        let record = at.read()?;
        (record.key_id == Some(key_id)).then_some((at, record))
    }

    /// Returns the record that a key id names.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(super) fn record_of(&self, key_id: KeyId) -> RecordRef<'_> {
        self.record(scale(key_id.number(), u64::from(self.capacity)))
    }

    /// Returns the record with this number, which is below the capacity.
    #[inline]
    pub(super) fn record(&self, number: u64) -> RecordRef<'_> {
        let lines = self.memory.as_ref();
        RecordRef {
            // A record's number is below the capacity, which is a u32.
            number: low(number),
            line: &lines[self.records_at + index(number)],
            redo: self.redo(),
        }
    }

    pub(super) fn redo(&self) -> RedoRecord<'_> {
        let lines = self.memory.as_ref();
        RedoRecord { words: &lines[REDO_LINE], target: &lines[TARGET_LINE] }
    }

    pub(super) fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        (0..u64::from(self.capacity)).map(|number| self.record(number))
    }

    /// Returns the pepper that records name by this number, if this process has it.
    #[inline]
    pub(super) fn pepper(&self, number: usize) -> Option<&Pepper> {
        self.peppers.by_fingerprint(self.memory.as_ref()[PEPPER_LINE].load(number))
    }

    /// Returns the peppers that this process has, each with the number by which records name it.
    pub(super) fn known_peppers(&self) -> impl Iterator<Item = (usize, &Pepper)> {
        (0..KEPT_PEPPERS).filter_map(|number| Some((number, self.pepper(number)?)))
    }

    /// Returns the line of a record's hint and checksum, and the index of their word.
    fn hint_word(&self, number: u32) -> Option<(&CacheLine, usize)> {
        let at = index(u64::from(number));
        let line = self.memory.as_ref().get(self.hints_at? + at / HINTS_PER_LINE)?;
        Some((line, at % HINTS_PER_LINE))
    }

    /// Returns the hint of a record; 0 if the gate keeps none.
    pub(super) fn hint(&self, number: u32) -> u32 {
        self.hint_word(number).map_or(0, |(line, word)| low(line.load(word)))
    }

    /// Returns the checksum that is stored for a record, if the gate keeps them.
    pub(super) fn stored_checksum(&self, number: u32) -> Option<u32> {
        self.hint_word(number).map(|(line, word)| high(line.load(word)))
    }

    /// Stores the hint and the checksum of a record, if the gate keeps them.
    pub(super) fn store_hint(&self, number: u32, hint: u32, checksum: u32) {
        if let Some((line, word)) = self.hint_word(number) {
            line.store(word, join(checksum, hint));
        }
    }
}

/// Returns whose key a record holds; `None` for a record without a key.
pub(super) fn holder(record: &Record) -> Option<Holder> {
    Some(Holder {
        key_id: record.key_id?,
        account: record.account,
        plan: record.plan,
        env: record.env,
    })
}
