//! Counts of how each key of a gate is used, in memory of their own.
//!
//! The tally of a key decides; these counts are for people. A check counts only after the key's
//! secret was right, so that the time of a refusal does not reveal whether a key id exists.
//!
//! The first line is a header: words 0 to 2 are those of every table, 3 is the capacity, 4 the
//! random number of the gate, and 5 the generation. Each record of the gate has a line after it:
//!
//! | word | holds |
//! |---|---|
//! | 0 | key id whose uses are counted; 0 for none |
//! | 1 | admitted requests (32) · those with the previous secret of a rotation (32) |
//! | 2 | units that admitted requests cost beyond one each (64) |
//! | 3 | denials by the key's quotas (32) · by the team's (32) |
//! | 4 | denials by the quotas of groups (32) · requests that needed another scope (32) |
//! | 5 | requests with the revoked key (32) · with the expired key or secret (32) |
//! | 6 | Unix second of the last request that was admitted |
//! | 7 | requests while the account was suspended (32) · 0 (32) |
//!
//! A word with two counts is their sum, the second multiplied by 2^32, modulo 2^64. So one addition
//! counts both, and the difference of two readings has the difference of each count, as long as
//! fewer than 2^32 requests were counted between them.
//!
//! Only an administrator changes word 0. A request that counts a key while its record passes to
//! another key may be counted for that one.

use core::num::NonZeroU16;

use crate::bits::{high, index, low};
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::header::{AttachError, CreateError, Header, TableKind};
use crate::key::KeyId;
use crate::sync::Ordering;
use crate::time::Timestamp;

// The words of the header after its magic, kind and size.
const CAPACITY: usize = 3;
const GATE: usize = 4;
const GENERATION: usize = 5;

// The words of a key's line.
const KEY_ID: usize = 0;
const ADMITTED: usize = 1;
const UNITS: usize = 2;
const DENIED: usize = 3;
const REFUSED: usize = 4;
const ENDED: usize = 5;
const LAST_USED: usize = 6;
const SUSPENDED: usize = 7;

/// The largest generation, of which the header of a gate has 14 bits.
pub(crate) const MAX_GENERATION: u16 = 0x3FFF;

/// One in the second count of a word.
const SECOND: u64 = 1 << 32;

/// What a request with a right secret came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Admitted { units: u32, has_previous_secret: bool },
    DeniedByKey,
    DeniedByTeam,
    DeniedByGroup,
    Forbidden,
    Revoked,
    Expired,
    Suspended,
}

/// The counts of uses of a gate's keys, in memory that the caller provides: anything that
/// dereferences to a slice of lines.
///
/// ```
/// use core::num::NonZeroU16;
/// use keytally_core::{CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Peppers, Plan};
/// # use keytally_core::{Timestamp, UsageCounts};
/// # let plans = [Plan::new("default", "2/minute".parse()?).unwrap()];
/// # let config = GateConfig::new(8, Name::new("kt").unwrap(), &plans);
/// # let memory: Vec<_> = (0..config.lines()).map(|_| CacheLine::new()).collect();
/// # let gate = Gate::init(memory, &config, Peppers::new(&[[7; 32]])?)?;
/// # let now = Timestamp::from_unix_s(1_700_000_000);
/// # let new = NewKey::new(42, Name::new("live").unwrap());
/// let (key, key_id) = gate.administer()?.issue(&new, Entropy::new([7; 24]), now)?;
/// let lines = UsageCounts::<Vec<CacheLine>>::lines(gate.capacity());
/// let memory: Vec<_> = (0..lines).map(|_| CacheLine::new()).collect();
/// let counts = gate.init_usage(memory, NonZeroU16::MIN)?;
/// gate.administer()?.begin_usage(&counts);
///
/// for _ in 0..3 {
///     gate.counted(Some(counts.view())).check(Some(key.expose().as_bytes()), 1, now);
/// }
/// let usage = gate.usage_of(counts.view(), key_id).expect("the gate has the key");
/// assert_eq!((usage.admitted(), usage.denied_by_key()), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct UsageCounts<M> {
    memory: M,
    generation: NonZeroU16,
}

/// A view of [`UsageCounts`], in which requests are counted.
#[derive(Clone, Copy, Debug)]
pub struct Usage<'m> {
    lines: &'m [CacheLine],
}

impl<M: AsRef<[CacheLine]>> UsageCounts<M> {
    /// Returns the lines that the counts of a gate with this capacity take, of
    /// [`CACHE_LINE_LEN`](crate::CACHE_LINE_LEN) bytes each.
    pub const fn lines(capacity: u32) -> usize {
        1 + capacity as usize
    }

    /// Creates the counts of a gate with this random number and capacity, all 0.
    pub(crate) fn init(
        memory: M,
        id: u64,
        capacity: u32,
        generation: NonZeroU16,
    ) -> Result<Self, CreateError> {
        let (lines, needed) = (memory.as_ref(), Self::lines(capacity));
        if lines.len() != needed {
            return Err(CreateError::Size { lines: lines.len(), needed });
        }
        for line in lines {
            line.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        Header::begin(lines, TableKind::Usage);
        lines[0].store(CAPACITY, capacity.into());
        lines[0].store(GATE, id);
        lines[0].store(GENERATION, u64::from(generation.get()));
        Header::publish(lines);
        Ok(Self { memory, generation })
    }

    /// Opens the counts of a gate with this random number and capacity.
    pub(crate) fn attach(memory: M, id: u64, capacity: u32) -> Result<Self, AttachError> {
        let line = Header::read_beginning(memory.as_ref(), TableKind::Usage)?;
        let geometry = |what, value| AttachError::Geometry { what, value };
        let generation = line.load(GENERATION);
        let valid = u16::try_from(generation).ok().and_then(NonZeroU16::new);
        let valid = valid.filter(|generation| generation.get() <= MAX_GENERATION);
        let generation = valid.ok_or_else(|| geometry("generation", generation))?;
        if line.load(GATE) != id {
            return Err(geometry("number of this gate", line.load(GATE)));
        }
        if line.load(CAPACITY) != u64::from(capacity)
            || memory.as_ref().len() != Self::lines(capacity)
        {
            return Err(geometry("capacity of this gate", line.load(CAPACITY)));
        }
        Ok(Self { memory, generation })
    }

    /// Returns the memory that the counts are in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Returns the number by which the gate's header names these counts.
    pub fn generation(&self) -> NonZeroU16 {
        self.generation
    }

    /// Returns a view, in which requests are counted.
    #[inline]
    pub fn view(&self) -> Usage<'_> {
        Usage { lines: self.memory.as_ref() }
    }
}

/// How a key was used, since the gate counts its uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUsage {
    /// Word 0 is 0. See the module.
    words: [u64; CACHE_LINE_WORDS],
}

impl KeyUsage {
    /// Returns the uses since an earlier reading of the same key. Each count is exact if it grew by
    /// less than 2^32.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut words = self.words;
        for word in (ADMITTED..=SUSPENDED).filter(|&word| word != LAST_USED) {
            words[word] = words[word].wrapping_sub(before.words[word]);
        }
        Self { words }
    }

    /// Returns the requests that were admitted.
    pub const fn admitted(&self) -> u32 {
        low(self.words[ADMITTED])
    }

    /// Returns the requests that were admitted with the previous secret, during the grace of a
    /// rotation.
    pub const fn with_previous_secret(&self) -> u32 {
        high(self.words[ADMITTED])
    }

    /// Returns the units that the admitted requests cost, without those that were given back.
    pub const fn units(&self) -> u64 {
        self.words[UNITS].wrapping_add(self.admitted() as u64)
    }

    /// Returns the requests that the quotas of the key denied.
    pub const fn denied_by_key(&self) -> u32 {
        low(self.words[DENIED])
    }

    /// Returns the requests that the quotas of the key's team denied.
    pub const fn denied_by_team(&self) -> u32 {
        high(self.words[DENIED])
    }

    /// Returns the requests that the quotas of a group denied.
    pub const fn denied_by_group(&self) -> u32 {
        low(self.words[REFUSED])
    }

    /// Returns the requests that needed a scope that the key did not have.
    pub const fn forbidden(&self) -> u32 {
        high(self.words[REFUSED])
    }

    /// Returns the requests after the key was revoked.
    pub const fn revoked(&self) -> u32 {
        low(self.words[ENDED])
    }

    /// Returns the requests after the key, or its previous secret, expired.
    pub const fn expired(&self) -> u32 {
        high(self.words[ENDED])
    }

    /// Returns the requests while the account of the key was suspended.
    pub const fn suspended(&self) -> u32 {
        low(self.words[SUSPENDED])
    }

    /// Returns the second of the last request that was admitted; `None` if there was none.
    pub fn last_used(&self) -> Option<Timestamp> {
        let second = self.words[LAST_USED];
        (second > 0).then(|| Timestamp::from_unix_s(second))
    }
}

impl<'m> Usage<'m> {
    /// Returns how a key was used; `None` if other uses are counted in the line of its record.
    pub(crate) fn of(self, record: u32, key_id: KeyId) -> Option<KeyUsage> {
        let line = self.line(record)?;
        let is_its = || line.load(KEY_ID) == key_id.number();
        let load = |word| if word == KEY_ID { 0 } else { line.load(word) };
        (is_its().then(|| KeyUsage { words: core::array::from_fn(load) })).filter(|_| is_its())
    }

    /// Begins to count the uses of a key from 0, unless they are counted already.
    pub(crate) fn assign(self, record: u32, key_id: KeyId) {
        if let Some(line) = self.line(record)
            && line.load(KEY_ID) != key_id.number()
        {
            line.store(KEY_ID, 0);
            for word in ADMITTED..=SUSPENDED {
                line.store(word, 0);
            }
            line.store(KEY_ID, key_id.number());
        }
    }

    /// Takes over counts of a key from the counts of another gate.
    pub(crate) fn take_over(self, record: u32, key_id: KeyId, counts: &KeyUsage) {
        self.assign(record, key_id);
        if let Some(line) = self.line(record) {
            for word in ADMITTED..=SUSPENDED {
                line.store(word, counts.words[word]);
            }
        }
    }

    /// Counts a use of a key at a time.
    #[inline]
    pub(crate) fn count(self, record: u32, key_id: KeyId, how: Use, now: Timestamp) {
        let Some(line) = self.line(record) else { return };
        if line.load(KEY_ID) != key_id.number() {
            return;
        }
        let (word, count) = match how {
            Use::Admitted { units, has_previous_secret } => {
                let beyond = u64::from(units).wrapping_sub(1);
                if beyond != 0 {
                    add(line, UNITS, beyond);
                }
                if line.load(LAST_USED) != now.unix_s() {
                    line.store(LAST_USED, now.unix_s());
                }
                (ADMITTED, if has_previous_secret { 1 | SECOND } else { 1 })
            }
            Use::DeniedByKey => (DENIED, 1),
            Use::DeniedByTeam => (DENIED, SECOND),
            Use::DeniedByGroup => (REFUSED, 1),
            Use::Forbidden => (REFUSED, SECOND),
            Use::Revoked => (ENDED, 1),
            Use::Expired => (ENDED, SECOND),
            Use::Suspended => (SUSPENDED, 1),
        };
        add(line, word, count);
    }

    /// Corrects the units of a key's admitted requests by a settlement or a refund.
    pub(crate) fn adjust(self, record: u32, key_id: KeyId, units: i64) {
        if let Some(line) = self.line(record)
            && line.load(KEY_ID) == key_id.number()
        {
            add(line, UNITS, units.cast_unsigned());
        }
    }

    /// Returns the line of a record.
    #[inline]
    fn line(self, record: u32) -> Option<&'m CacheLine> {
        self.lines.get(1 + index(u64::from(record)))
    }
}

/// Adds to a word, modulo 2^64.
#[inline]
fn add(line: &CacheLine, word: usize, count: u64) {
    line.word(word).fetch_add(count, Ordering::Relaxed);
}
