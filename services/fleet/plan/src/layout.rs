//! The layout of the fleet file: a page of words about the machine, two levels of bits that name
//! the tallies with a want of credits, and a cache line for each tally.
//!
//! ```text
//! page (4,096 bytes) | summary: a bit for each word of the next part | a bit for each tally |
//! tallies
//! ```
//!
//! All words have 64 bits. The parts begin at multiples of a cache line. This module maps nothing;
//! it says where everything is, and refuses a page that does not fit.
//!
//! The words of a tally are the first four of [`Word`](crate::words::Word) in their order, then its
//! *owner*: a number for the key, the account or the subject to which they belong, 0 for none. A
//! request of another one spends nothing there. Then its *claim*: in the file of a limiter, the
//! number of the last subject that waited for credits there, or did without. Then
//! [`Word::Unreserved`](crate::words::Word::Unreserved). The last word is 0.

use core::fmt;

use keytally_core::sync::{AtomicU64, Ordering};

use crate::on_loss::OnLoss;

/// Bytes of the page.
pub const PAGE_LEN: usize = 4096;

/// Bytes of a word.
const WORD_LEN: usize = 8;

/// Bytes of the words of a tally.
pub const TALLY_LEN: usize = LINE_LEN;

/// The position of the owner among the words of a tally.
pub const OWNER_WORD: usize = 4;

/// The position of the claim among the words of a tally.
pub const CLAIM_WORD: usize = 5;

/// The position of what was admitted without credits among the words of a tally.
pub const UNRESERVED_WORD: usize = 6;

/// Parts begin at multiples of this.
const LINE_LEN: usize = 64;

/// The most tallies of a file.
pub const MAX_FILE_TALLIES: u32 = 1 << 30;

/// The first word of every fleet file: `ktfleet` and a line feed.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ktfleet\n");

/// The version of the layout.
pub const VERSION: u32 = 1;

/// Where the parts of a file are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLayout {
    tallies: u32,
}

impl FileLayout {
    /// The layout of a file for this many tallies; `None` for none, or more than
    /// [`MAX_FILE_TALLIES`].
    pub const fn new(tallies: u32) -> Option<Self> {
        if tallies == 0 || tallies > MAX_FILE_TALLIES { None } else { Some(Self { tallies }) }
    }

    /// Returns the number of tallies.
    pub const fn tallies(self) -> u32 {
        self.tallies
    }

    /// Returns the number of words with a bit for each tally.
    pub const fn bit_words(self) -> usize {
        (self.tallies as usize).div_ceil(64)
    }

    /// Returns the number of words of the summary.
    pub const fn summary_words(self) -> usize {
        self.bit_words().div_ceil(64)
    }

    /// Returns the position of the summary.
    pub const fn summary_at(self) -> usize {
        PAGE_LEN
    }

    /// Returns the position of the bits.
    pub const fn bits_at(self) -> usize {
        (self.summary_at() + self.summary_words() * WORD_LEN).next_multiple_of(LINE_LEN)
    }

    /// Returns the position of the words of a tally; `None` if there is no such tally.
    pub const fn tally_at(self, tally: u32) -> Option<usize> {
        if tally >= self.tallies {
            return None;
        }
        Some(self.tallies_at() + tally as usize * TALLY_LEN)
    }

    const fn tallies_at(self) -> usize {
        (self.bits_at() + self.bit_words() * WORD_LEN).next_multiple_of(LINE_LEN)
    }

    /// Returns the length of the file.
    pub const fn len(self) -> usize {
        (self.tallies_at() + self.tallies as usize * TALLY_LEN).next_multiple_of(PAGE_LEN)
    }

    /// Returns whether the file has no bytes. No file is empty.
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// The words of the page, by their index in it. Each has a cache line of its own if processes write
/// it often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageWord {
    /// [`MAGIC`].
    Magic = 0,
    /// The version (32 bits) and the number of tallies (32).
    Geometry = 1,
    /// The fingerprint of the file of the gate or limiter.
    Gate = 2,
    /// The first half of the identity of the boot.
    BootHigh = 3,
    /// The second half.
    BootLow = 4,
    /// The inode of the file itself.
    Inode = 5,
    /// The machine's name in the store.
    Name = 6,
    /// The store that the agent was last connected to: a hash of its run id and replication id.
    Store = 7,
    /// How many milliseconds the store's clock is ahead, signed.
    Offset = 8,
    /// The state, the mode on loss of the store and the number of machines: see [`PageState`].
    State = 9,
    /// A hash of the name of the agent's fleet; 0 if no agent has begun.
    Fleet = 10,
    /// A number that only the gate file of the agent has; 0 if it is not known.
    GateFile = 11,
    /// When the agent last looked, in milliseconds of the fleet's time.
    Heartbeat = 16,
    /// What the agent sleeps on.
    Doorbell = 24,
    /// Whether the agent sleeps.
    Sleeper = 25,
    /// What requests that wait for credits sleep on.
    Grants = 32,
    /// The lease requests that the agent has sent since it leads.
    Requests = 40,
    /// Those whose reply granted units.
    Granted = 41,
    /// What the agent says of the store's replicas: see [`ReplicasState`].
    Replicas = 42,
    /// What the agent says of the keys: see [`KeysState`].
    Keys = 48,
    /// When the gate last had all keys of the fleet, in milliseconds of the fleet's time; 0 if it
    /// never had.
    KeysCurrent = 49,
    /// From when on all keys are unavailable, in milliseconds of the fleet's time; 0 for never.
    KeysClose = 50,
    /// The number of the last command that waits for the other machines, counted round.
    KeysRequested = 56,
    /// The number of the last command that [`KeysConfirmed`](Self::KeysConfirmed) is for.
    KeysAnswered = 57,
    /// The agents that are connected (32) and those that have confirmed all changes of that command
    /// (32).
    KeysConfirmed = 58,
    /// The first of the texts of machines that have not confirmed that: see [`PAGE_TEXTS`].
    KeysLacking = 64,
    /// The first of the texts of machines whose plans have other limits.
    OtherLimits = 128,
    /// The first of the texts of keys of the store that lease requests cannot use.
    UnusableKeys = 192,
    /// The first of the texts of the path of the agent's gate file, of which there is one: the end
    /// of a long path.
    GatePath = 256,
}

/// How many texts begin at [`PageWord::KeysLacking`], at [`PageWord::OtherLimits`], at
/// [`PageWord::UnusableKeys`] and at [`PageWord::GatePath`]. One of no bytes, and one after it, is
/// none.
pub const PAGE_TEXTS: usize = 4;

/// The words of a text: bytes of UTF-8, then zeros.
pub const PAGE_TEXT_WORDS: usize = 16;

/// The most bytes of a text.
pub const MAX_PAGE_TEXT_LEN: usize = PAGE_TEXT_WORDS * WORD_LEN;

/// How the keys of a gate get to the other machines of its fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeysMode {
    /// They do not.
    #[default]
    Off,
    /// All gates follow one list of keys.
    List,
    /// The agents carry them through the store.
    Carried,
}

/// The word [`PageWord::Keys`]: the mode in bits 0 to 7 (1 a list, 2 carried), and the number of
/// keys that the gate refuses in bits 32 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeysState {
    /// How keys get to other machines.
    pub mode: KeysMode,
    /// The keys of other machines that the gate refuses.
    pub refused: u32,
}

impl KeysState {
    /// The state in a word. A mode without a meaning counts as [`KeysMode::Off`].
    pub const fn from_bits(bits: u64) -> Self {
        let mode = match bits.to_le_bytes()[0] {
            1 => KeysMode::List,
            2 => KeysMode::Carried,
            _ => KeysMode::Off,
        };
        Self { mode, refused: halves_of(bits).0 }
    }

    /// Returns the word.
    pub const fn bits(self) -> u64 {
        let mode = match self.mode {
            KeysMode::Off => 0,
            KeysMode::List => 1,
            KeysMode::Carried => 2,
        };
        (self.refused as u64) << 32 | mode
    }
}

/// The word [`PageWord::Replicas`]: the number of replicas of the store that must confirm each
/// grant in bits 32 to 63, and of those that do in bits 0 to 31. It is 0 while enough do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReplicasState {
    /// How many must confirm each grant.
    pub needed: u32,
    /// How many do.
    pub confirming: u32,
}

impl ReplicasState {
    /// The state in a word. `None` if enough replicas confirm.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        let (needed, confirming) = halves_of(bits);
        if confirming < needed { Some(Self { needed, confirming }) } else { None }
    }

    /// Returns the word.
    pub const fn bits(self) -> u64 {
        if self.confirming < self.needed {
            (self.needed as u64) << 32 | self.confirming as u64
        } else {
            0
        }
    }
}

/// What the agent says of its connection to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// There is no agent.
    #[default]
    Absent,
    /// The store is another one than before, and grants nothing yet.
    Learning,
    /// The agent requests and gives back units.
    Leading,
    /// The store does not answer.
    Cut,
}

/// The word [`PageWord::State`]: the phase in bits 0 to 7, the mode on loss of the store in bits 8
/// to 15 (1 closed, 2 share, 3 open), and the number of machines in bits 32 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageState {
    /// What the agent says.
    pub phase: Phase,
    /// What a request gets without credits while the store is lost; `None` if no agent has chosen.
    pub on_loss: Option<OnLoss>,
    /// The number of machines that [`OnLoss::Share`] divides a limit by.
    pub machines: u32,
}

impl PageState {
    /// The state in a word. A number without a meaning counts as 0.
    pub const fn from_bits(bits: u64) -> Self {
        let [phase, mode, ..] = bits.to_le_bytes();
        let phase = match phase {
            1 => Phase::Learning,
            2 => Phase::Leading,
            3 => Phase::Cut,
            _ => Phase::Absent,
        };
        let on_loss = match mode {
            1 => Some(OnLoss::Closed),
            2 => Some(OnLoss::Share),
            3 => Some(OnLoss::Open),
            _ => None,
        };
        let (machines, _) = halves_of(bits);
        Self { phase, on_loss, machines }
    }

    /// Returns the word.
    pub const fn bits(self) -> u64 {
        let phase = match self.phase {
            Phase::Absent => 0,
            Phase::Learning => 1,
            Phase::Leading => 2,
            Phase::Cut => 3,
        };
        let mode = match self.on_loss {
            None => 0,
            Some(OnLoss::Closed) => 1,
            Some(OnLoss::Share) => 2,
            Some(OnLoss::Open) => 3,
        };
        (self.machines as u64) << 32 | mode << 8 | phase
    }
}

/// Requests see an agent as absent if its heartbeat is older than this many milliseconds.
pub const ABSENT_MS: u64 = 2000;

/// What identifies a file: it is void if any of this differs from what the process sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The number of tallies.
    pub tallies: u32,
    /// The fingerprint of the file of the gate or limiter.
    pub gate: u64,
    /// The identity of the boot.
    pub boot: u128,
    /// The inode of the file.
    pub inode: u64,
}

/// Why a page is not that of the expected file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageError {
    /// The file has only zeros where [`MAGIC`] must be, and not the length of a fleet file.
    Empty,
    /// The file does not begin with [`MAGIC`].
    NotAFleet,
    /// The file has another version of the layout.
    Version(u32),
    /// The file has another number of tallies.
    Tallies {
        /// The number in the file.
        found: u32,
        /// The number that the gate or limiter has.
        expected: u32,
    },
    /// The file belongs to another gate or limiter.
    OtherGate,
    /// The file was written before this boot, or is a copy. Its credits are void.
    Stale,
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the fleet file is empty: remove it, and start the agent again, which creates it"),
            Self::NotAFleet => f.write_str("the file is not a fleet file; `keytally agent` creates one at a path without a file"),
            Self::Version(found) => {
                write!(f, "the fleet file has version {found} of the layout, and this program has {VERSION}")
            }
            Self::Tallies { found, expected } => {
                write!(f, "the fleet file has {found} tallies, and the table has {expected}")
            }
            Self::OtherGate => f.write_str("the fleet file belongs to another gate or limiter"),
            Self::Stale => f.write_str("the fleet file was written before this boot, or was copied, so its credits are void"),
        }
    }
}

impl core::error::Error for PageError {}

impl Identity {
    /// Returns the words of a new page that say what the file is. [`PageWord::Magic`] must be
    /// stored last.
    pub const fn words(&self) -> [(PageWord, u64); 6] {
        [
            (PageWord::Geometry, (VERSION as u64) << 32 | self.tallies as u64),
            (PageWord::Gate, self.gate),
            (PageWord::BootHigh, halves(self.boot).0),
            (PageWord::BootLow, halves(self.boot).1),
            (PageWord::Inode, self.inode),
            (PageWord::Magic, MAGIC),
        ]
    }

    /// Compares a page with what is expected. `load` returns a word of the page.
    ///
    /// # Errors
    /// [`PageError`], the first that applies.
    pub fn verify(&self, load: impl Fn(PageWord) -> u64) -> Result<(), PageError> {
        match load(PageWord::Magic) {
            MAGIC => {}
            0 => return Err(PageError::Empty),
            _ => return Err(PageError::NotAFleet),
        }
        let geometry = load(PageWord::Geometry);
        let (version, found) = halves_of(geometry);
        if version != VERSION {
            return Err(PageError::Version(version));
        }
        if found != self.tallies {
            return Err(PageError::Tallies { found, expected: self.tallies });
        }
        if load(PageWord::Gate) != self.gate {
            return Err(PageError::OtherGate);
        }
        let boot = (load(PageWord::BootHigh), load(PageWord::BootLow));
        if boot != halves(self.boot) || load(PageWord::Inode) != self.inode {
            return Err(PageError::Stale);
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each half has 64 bits")]
const fn halves(number: u128) -> (u64, u64) {
    ((number >> 64) as u64, number as u64)
}

#[expect(clippy::cast_possible_truncation, reason = "each half has 32 bits")]
const fn halves_of(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// The tallies that want credits, as two levels of bits. A request sets the bit of its tally, then
/// that of the summary; the agent clears them in the other order. So no report is lost, also if a
/// process is killed between the two, as the next request sets both again.
#[derive(Clone, Copy, Debug)]
pub struct WantedBits<'m> {
    summary: &'m [AtomicU64],
    bits: &'m [AtomicU64],
}

impl<'m> WantedBits<'m> {
    /// The bits in these words, of which a [`FileLayout`] has the numbers.
    pub const fn new(summary: &'m [AtomicU64], bits: &'m [AtomicU64]) -> Self {
        Self { summary, bits }
    }

    /// Reports that a request waits for credits of a tally. What the caller wrote before is visible
    /// to the agent that takes the report.
    pub fn report(&self, tally: u32) {
        let index = tally as usize / 64;
        if let (Some(bits), Some(summary)) = (self.bits.get(index), self.summary.get(index / 64)) {
            set(bits, tally % 64);
            set(summary, u32::try_from(index % 64).unwrap_or(0));
        }
    }

    /// Reports that a tally has few credits, unless it is reported already. Nothing waits for it,
    /// so a report that the agent is just taking is enough. Returns whether it was not reported.
    pub fn hint(&self, tally: u32) -> bool {
        let index = tally as usize / 64;
        let is_set = |words: &[AtomicU64], at: usize| {
            let word = words.get(at / 64).map_or(0, |word| word.load(Ordering::Acquire));
            word >> (at % 64) & 1 == 1
        };
        let is_new = !(is_set(self.bits, tally as usize) && is_set(self.summary, index));
        if is_new {
            self.report(tally);
        }
        is_new
    }

    /// Takes all reports, and calls `found` with each tally.
    pub fn take(&self, found: impl FnMut(u32)) {
        self.take_from(0, u32::MAX, found);
    }

    /// Takes reports until there are `most`, and at most 4,095 more, and calls `found` with each
    /// tally. Begins at a word of the summary, and returns the one to begin at the next time, so
    /// that every tally gets its turn.
    pub fn take_from(&self, begin: usize, most: u32, mut found: impl FnMut(u32)) -> usize {
        let (len, mut count) = (self.summary.len(), 0);
        for summary_index in (begin..len).chain(0..begin.min(len)) {
            if count >= most {
                return summary_index;
            }
            let Some(summary) = self.summary.get(summary_index) else { continue };
            let mut words = clear(summary);
            while let Some(index) = lowest(&mut words) {
                let index = summary_index * 64 + index as usize;
                let mut tallies = self.bits.get(index).map_or(0, clear);
                while let Some(bit) = lowest(&mut tallies) {
                    found(u32::try_from(index * 64).unwrap_or(u32::MAX).saturating_add(bit));
                    count += 1;
                }
            }
        }
        begin
    }

    /// Returns whether nothing is reported.
    pub fn is_empty(&self) -> bool {
        self.summary.iter().all(|word| word.load(Ordering::Acquire) == 0)
    }
}

/// Sets a bit of a word, by an exchange even if it is set, so that the caller's writes are visible
/// to a thread that clears it.
fn set(word: &AtomicU64, bit: u32) {
    let mut present = word.load(Ordering::Acquire);
    while let Err(other) =
        word.compare_exchange(present, present | 1 << bit, Ordering::AcqRel, Ordering::Acquire)
    {
        present = other;
    }
}

/// Clears a word, and returns what it was.
fn clear(word: &AtomicU64) -> u64 {
    let mut present = word.load(Ordering::Acquire);
    while present != 0 {
        match word.compare_exchange(present, 0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(other) => present = other,
        }
    }
    present
}

/// Removes the lowest bit of a word, and returns its position.
fn lowest(word: &mut u64) -> Option<u32> {
    let bit = word.trailing_zeros();
    *word &= word.wrapping_sub(1);
    (bit < 64).then_some(bit)
}
