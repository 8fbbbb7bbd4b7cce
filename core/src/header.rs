//! The header of every table, and the errors of creating and opening a table.
//!
//! A header is one line of eight little-endian words. The magic is stored last, so an unfinished
//! table never opens.
//!
//! | word | holds |
//! |---|---|
//! | 0 | magic, `keytally` |
//! | 1 | format version (32) · kind (32) |
//! | 2 | bytes in the whole table |
//! | 3 | capacity, the number of subjects or keys (32) · lines before the first bucket or record (32) |
//! | 4 | flags (32) · number of windows (16) · algorithm (16) |
//! | 5, 6 | number of each window, its length in seconds unless it is a week or month (32 each) |
//! | 7 | width of each window's count in bits (8 each) · number of plans that there is room for (32) |
//!
//! In parentheses is the width of each field in bits. The field in the lowest bits is first.

use core::fmt;

use crate::bits::{halves, high, index, join, low, to_words};
use crate::cache_line::{CACHE_LINE_LEN, CacheLine};
use crate::features::Feature;
use crate::quota::{Algorithm, MAX_QUOTAS};
use crate::stop::{Stop, stop};
use crate::tally::Layout;
use crate::window::Window;

/// The version of the table format. A table of another version does not open.
pub const FORMAT_VERSION: u32 = 2;

const MAGIC: u64 = u64::from_le_bytes(*b"keytally");

/// The kind of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
#[non_exhaustive]
pub enum TableKind {
    /// A [`Limiter`](crate::Limiter).
    Limiter = 1,
    /// A [`Gate`](crate::Gate).
    Gate = 2,
    /// An [`AddressLimiter`](crate::AddressLimiter).
    AddressLimiter = 3,
    /// A [`Gate`](crate::Gate) to which another one is being migrated.
    Successor = 4,
    /// The counts of uses of a gate's keys: [`UsageCounts`](crate::UsageCounts).
    Usage = 5,
}

impl TableKind {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Limiter, Self::Gate, Self::AddressLimiter, Self::Successor, Self::Usage]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limiter => "limiter",
            Self::Gate => "gate",
            Self::AddressLimiter => "limiter of addresses",
            Self::Successor => "gate to which another is being migrated",
            Self::Usage => "file of counts of uses",
        })
    }
}

/// The bytes at the beginning of a table by which it is recognized: magic, version and kind.
pub const BEGINNING_LEN: usize = 16;

/// Returns whether a table of any version and kind begins with these bytes.
pub fn is_table_beginning(bytes: [u8; BEGINNING_LEN]) -> bool {
    let word = |first| u64::from_le_bytes(core::array::from_fn(|byte| bytes[first + byte]));
    word(0) == MAGIC && TableKind::from_number(high(word(8))).is_some()
}

/// The contents of a table's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: TableKind,
    /// The number of subjects or keys.
    pub(crate) capacity: u32,
    /// The number of lines before the first bucket or record.
    pub(crate) header_lines: u32,
    /// Flags, which each kind of table defines for itself.
    pub(crate) flags: u32,
    /// The number of plans that a gate has room for; 0 in a limiter.
    pub(crate) plan_slots: u32,
    pub(crate) layout: Layout,
}

impl Header {
    /// Clears `memory` and writes the header except for its magic. No process may have the table
    /// open.
    pub(crate) fn write(&self, memory: &[CacheLine]) {
        memory[0].store(0, 0);
        for word in memory.iter().flat_map(CacheLine::words) {
            // Zero words are not written, so that fresh pages stay untouched.
            if word.load(crate::sync::Ordering::Relaxed) != 0 {
                word.store(0, crate::sync::Ordering::Relaxed);
            }
        }
        let line = &memory[0];
        let algorithm: u32 = match self.layout.algorithm() {
            Algorithm::Fixed => 0,
            Algorithm::Sliding => 1,
        };
        let [first, second] = to_words(self.layout.window_numbers());
        let [b0, b1, b2, b3] = self.layout.bits();
        Self::begin(memory, self.kind);
        line.store(3, join(self.header_lines, self.capacity));
        line.store(
            4,
            join(
                algorithm << 16 | u32::try_from(self.layout.windows().len()).unwrap_or(0),
                self.flags,
            ),
        );
        line.store(5, first);
        line.store(6, second);
        line.store(7, join(self.plan_slots, u32::from_le_bytes([b0, b1, b2, b3])));
    }

    /// Writes the kind, the version and the size.
    pub(crate) fn begin(memory: &[CacheLine], kind: TableKind) {
        memory[0].store(1, join(kind as u32, FORMAT_VERSION));
        memory[0].store(2, bytes(memory.len()));
    }

    /// Writes the magic, so that the table opens. Everything else must be written before.
    pub(crate) fn publish(memory: &[CacheLine]) {
        stop(Stop::TableWritten);
        memory[0].store(0, MAGIC);
        stop(Stop::TablePublished);
    }

    /// Returns whether the table still begins as it did when it was opened.
    pub(crate) fn is_intact(memory: &[CacheLine]) -> bool {
        memory.first().is_some_and(|line| line.load(0) == MAGIC)
    }

    /// Makes a successor a gate, so that it opens as one. Everything else must be written before.
    pub(crate) fn promote(memory: &[CacheLine]) {
        memory[0].store(1, join(TableKind::Gate as u32, FORMAT_VERSION));
    }

    /// Reads the header of a table in `memory`.
    ///
    /// # Errors
    /// [`AttachError`] if the table is not published, is of another kind, does not fill `memory`,
    /// or has an invalid header.
    pub(crate) fn read(memory: &[CacheLine], expected: TableKind) -> Result<Self, AttachError> {
        let line = Self::read_beginning(memory, expected)?;
        let shape = high(line.load(4));
        let geometry = |what, value: u64| AttachError::Geometry { what, value };
        let algorithm = match shape >> 16 {
            0 => Algorithm::Fixed,
            1 if Algorithm::Sliding.slides() => Algorithm::Sliding,
            1 => return Err(AttachError::LeftOut(Feature::Sliding)),
            other => return Err(geometry("algorithm", u64::from(other))),
        };
        let lengths = halves([line.load(5), line.load(6)]);
        let count = index(u64::from(shape & 0xffff));
        if !(1..=MAX_QUOTAS).contains(&count) {
            return Err(geometry("number of windows", u64::from(shape & 0xffff)));
        }
        let mut windows = [Window::SECOND; MAX_QUOTAS];
        for (window, &length) in windows.iter_mut().zip(&lengths[..count]) {
            *window =
                Window::from_number(length).ok_or_else(|| geometry("window", u64::from(length)))?;
            if !Feature::Calendar.is_included() && !window.is_length() {
                return Err(AttachError::LeftOut(Feature::Calendar));
            }
        }
        let bits = low(line.load(7)).to_le_bytes();
        let layout = Layout::from_parts(algorithm, &windows[..count], bits)
            .ok_or_else(|| geometry("tally layout", line.load(7)))?;
        Ok(Self {
            kind: expected,
            capacity: low(line.load(3)),
            header_lines: high(line.load(3)),
            flags: low(line.load(4)),
            plan_slots: high(line.load(7)),
            layout,
        })
    }

    /// Returns the first line of a table in `memory`, of which magic, version, kind and size were
    /// checked.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), if one of these is wrong.
    pub(crate) fn read_beginning(
        memory: &[CacheLine],
        expected: TableKind,
    ) -> Result<&CacheLine, AttachError> {
        let line = memory
            .first()
            .ok_or(AttachError::Truncated { len: 0, needed: CACHE_LINE_LEN as u64 })?;
        match line.load(0) {
            MAGIC => {}
            0 => return Err(AttachError::Unfinished),
            _ => return Err(AttachError::NotATable),
        }
        // A text may begin with the eight letters of the magic. The error shows the version only if
        // a valid kind follows it, which is never so in a text.
        let (version, kind) = (low(line.load(1)), TableKind::from_number(high(line.load(1))));
        match kind {
            None => return Err(AttachError::NotATable),
            Some(_) if version != FORMAT_VERSION => {
                return Err(AttachError::Version { found: version, expected: FORMAT_VERSION });
            }
            Some(kind) if kind == expected => {}
            Some(found) => return Err(AttachError::Kind { found, expected }),
        }
        if line.load(2) != bytes(memory.len()) {
            return Err(AttachError::Truncated { len: bytes(memory.len()), needed: line.load(2) });
        }
        Ok(line)
    }

    /// Checks that the memory has `lines` lines, the number that the table's capacity requires.
    ///
    /// # Errors
    /// [`AttachError::Geometry`] if `lines` is `None`, i.e. the capacity is not possible.
    /// [`AttachError::Truncated`] if the memory has another number of lines.
    pub(crate) fn expect_lines(
        &self,
        memory: &[CacheLine],
        lines: Option<usize>,
    ) -> Result<(), AttachError> {
        match lines {
            Some(lines) if lines == memory.len() => Ok(()),
            Some(lines) => {
                Err(AttachError::Truncated { len: bytes(memory.len()), needed: bytes(lines) })
            }
            None => {
                Err(AttachError::Geometry { what: "capacity", value: u64::from(self.capacity) })
            }
        }
    }
}

/// Returns the size of a number of lines.
fn bytes(lines: usize) -> u64 {
    (lines as u64).saturating_mul(CACHE_LINE_LEN as u64)
}

/// Why memory cannot be opened as a table.
///
/// If the memory does not begin as a table does, the error shows none of its bytes, since they may
/// be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum AttachError {
    /// The memory does not begin as a table does, with the magic, a version and a kind.
    NotATable,
    /// The table is not published: its creator is still writing it, or was killed.
    Unfinished,
    /// The table has another version of the format.
    Version {
        /// The table's version.
        found: u32,
        /// The version that this library reads.
        expected: u32,
    },
    /// The table is of another kind, as a limiter where a gate was expected.
    Kind {
        /// The table's kind.
        found: TableKind,
        /// The kind that was expected.
        expected: TableKind,
    },
    /// The table's size differs from the one in its header.
    Truncated {
        /// The table's bytes.
        len: u64,
        /// The bytes that its header requires.
        needed: u64,
    },
    /// A number in the table's header is not valid.
    Geometry {
        /// The meaning of the number.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// This build leaves out a feature that the table needs.
    LeftOut(Feature),
    /// None of the given peppers is one under which the gate stores keys.
    WrongPepper {
        /// The number of peppers that were given.
        given: usize,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATable => f.write_str("this is not a keytally table: it does not begin as one does"),
            Self::Unfinished => {
                f.write_str("this table is incomplete: its creation was interrupted, or it was damaged; restore a backup, or create it again")
            }
            Self::Version { found, expected } => {
                write!(f, "this table has format version {found}, and this library reads version {expected}")
            }
            Self::Kind { found, expected } => write!(f, "this is a {found}, not a {expected}"),
            Self::Truncated { len, needed } => {
                write!(f, "this table has {len} bytes and its header says {needed}")
            }
            Self::Geometry { what, value } => {
                write!(f, "this table's header is damaged: {value} is not a valid {what}")
            }
            Self::LeftOut(feature) => feature.fmt(f),
            Self::WrongPepper { given: 1 } => f.write_str(
                "the pepper that was given does not belong to this gate; give the one that it was created with",
            ),
            Self::WrongPepper { given } => write!(
                f,
                "none of the {given} peppers that were given belongs to this gate; give the one that it was created with"
            ),
        }
    }
}

impl core::error::Error for AttachError {}

/// Why a table cannot be created in this memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum CreateError {
    /// The memory has another size than the table.
    Size {
        /// The lines of the memory.
        lines: usize,
        /// The lines that the table needs.
        needed: usize,
    },
    /// The capacity is 0 or above its maximum.
    Capacity {
        /// The capacity requested.
        capacity: u32,
        /// The maximum.
        max: u32,
    },
    /// There is no plan, there are more plans than the gate has room for, or its room is for more
    /// than 256.
    Plans {
        /// The number of plans requested.
        plans: usize,
        /// The maximum.
        max: usize,
    },
    /// Two plans have the same name.
    PlanName {
        /// The index of the second of them among the plans.
        index: usize,
    },
    /// The plans differ in their sections, windows or algorithms, or together need more bits than
    /// their tallies have.
    PlanWindows {
        /// The index of the first plan that does not go together with those before it.
        index: usize,
    },
    /// There are more than 64 scopes, or two with the same name, or a name does not have 1 to 16
    /// printable ASCII characters without spaces, commas and quotation marks.
    Scopes {
        /// The index of the first scope that is one too many or has a name that is not possible.
        index: usize,
    },
    /// The plans have a section for teams and there is room for none, or for more than there can be
    /// keys.
    Teams {
        /// The number of teams requested.
        teams: u32,
    },
    /// The plans have no quota of keys with the window to describe.
    Described {
        /// The window requested.
        window: Window,
    },
    /// This build leaves out a feature that the gate needs.
    LeftOut(Feature),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { lines, needed } => {
                write!(f, "the memory has {lines} lines of 64 bytes and the table takes {needed}")
            }
            Self::Capacity { capacity, max } => {
                write!(f, "a capacity of {capacity} is not possible; it is 1 to {max}")
            }
            Self::Plans { plans, max } => {
                write!(f, "{plans} plans are not possible; a gate has 1 to {max}")
            }
            Self::PlanName { index } => write!(
                f,
                "plan {} has the name of another; a plan's name is 1 to 16 characters of a-z, 0-9, - and _, and each appears once",
                index + 1
            ),
            Self::PlanWindows { index } => write!(
                f,
                "plan {} differs from those before it; all plans of a gate must share their sections, windows and algorithms, and fit the same tallies together",
                index + 1
            ),
            Self::Scopes { index } => write!(
                f,
                "scope {} is not possible; a gate has at most 64 scopes, each of 1 to 16 printable ASCII characters without spaces, commas and quotation marks, and each once",
                index + 1
            ),
            Self::Teams { teams } => write!(
                f,
                "room for {teams} teams is not possible; it is at most 67108864, and at least 1 if a plan has a section for teams"
            ),
            Self::Described { window } => write!(
                f,
                "the window to describe must be that of a quota of keys, and the plans have none for {window:?}"
            ),
            Self::LeftOut(feature) => feature.fmt(f),
        }
    }
}

impl core::error::Error for CreateError {}
