//! The header of every table: magic, format version, geometry and windows; and the errors of
//! creating and opening one.
//!
//! All numbers are little-endian words. The magic is stored last, so an unfinished table never
//! opens.
//!
//! | word | holds |
//! |---|---|
//! | 0 | magic, `keytally` |
//! | 1 | format version (32) · kind (32) |
//! | 2 | bytes in the whole table |
//! | 3 | capacity (32) · lines in the header (32) |
//! | 4 | flags (32) · algorithm (16) · number of windows (16) |
//! | 5, 6 | length of each window in seconds (32 each) |
//! | 7 | bits of each count (8 each) |

use core::fmt;

use crate::bits::{high, index, join, low};
use crate::line::{LINE_LEN, Line};
use crate::quota::{Algorithm, MAX_QUOTAS, Window};
use crate::stop::{Stop, stop};
use crate::tally::Layout;

/// The version of the table format. A table of another version does not open.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: u64 = u64::from_le_bytes(*b"keytally");

/// The kind of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum TableKind {
    /// A [`Limiter`](crate::Limiter).
    Limiter = 1,
    /// A [`Gate`](crate::Gate).
    Gate = 2,
}

impl TableKind {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Limiter, Self::Gate].into_iter().find(|kind| *kind as u32 == number)
    }
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limiter => "limiter",
            Self::Gate => "gate",
        })
    }
}

/// The length of the beginning by which a table is recognized: the magic, the version and the kind.
pub const BEGINNING_LEN: usize = 16;

/// Returns whether a table of any version and kind begins with these bytes.
pub fn is_table_beginning(bytes: [u8; BEGINNING_LEN]) -> bool {
    let word = |at| u64::from_le_bytes(core::array::from_fn(|byte| bytes[at + byte]));
    word(0) == MAGIC && TableKind::from_number(high(word(8))).is_some()
}

/// The shape of a table, as in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: TableKind,
    /// Subjects or keys.
    pub(crate) capacity: u32,
    /// Lines before the first bucket or record.
    pub(crate) header_lines: u32,
    /// Flags of the kind.
    pub(crate) flags: u32,
    pub(crate) layout: Layout,
}

impl Header {
    /// Clears `memory` and writes everything but the magic. No process may have the table open.
    pub(crate) fn write(&self, memory: &[Line]) {
        memory[0].store(0, 0);
        for word in memory.iter().flat_map(Line::words) {
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
        let mut lengths = [0; MAX_QUOTAS];
        for (length, window) in lengths.iter_mut().zip(self.layout.windows()) {
            *length = window.seconds();
        }
        let [b0, b1, b2, b3] = self.layout.bits();
        line.store(1, join(self.kind as u32, FORMAT_VERSION));
        line.store(2, bytes(memory.len()));
        line.store(3, join(self.header_lines, self.capacity));
        line.store(
            4,
            join(
                algorithm << 16 | u32::try_from(self.layout.windows().len()).unwrap_or(0),
                self.flags,
            ),
        );
        line.store(5, join(lengths[1], lengths[0]));
        line.store(6, join(lengths[3], lengths[2]));
        line.store(7, u64::from(u32::from_le_bytes([b0, b1, b2, b3])));
    }

    /// Writes the magic, so that the table opens. Everything else must be written before.
    pub(crate) fn publish(memory: &[Line]) {
        stop(Stop::TableWritten);
        memory[0].store(0, MAGIC);
        stop(Stop::TablePublished);
    }

    /// Reads the header of a published table of this kind that fills `memory`.
    pub(crate) fn read(memory: &[Line], expected: TableKind) -> Result<Self, AttachError> {
        let line =
            memory.first().ok_or(AttachError::Truncated { len: 0, needed: LINE_LEN as u64 })?;
        match line.load(0) {
            MAGIC => {}
            0 => return Err(AttachError::Unfinished),
            _ => return Err(AttachError::NotATable),
        }
        // Any text may begin with eight letters. The error repeats a number only if a kind follows,
        // which text never has.
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
        let shape = high(line.load(4));
        let geometry = |what, value: u64| AttachError::Geometry { what, value };
        let algorithm = match shape >> 16 {
            0 => Algorithm::Fixed,
            1 => Algorithm::Sliding,
            other => return Err(geometry("algorithm", u64::from(other))),
        };
        let lengths =
            [low(line.load(5)), high(line.load(5)), low(line.load(6)), high(line.load(6))];
        let count = index(u64::from(shape & 0xffff));
        if !(1..=MAX_QUOTAS).contains(&count) {
            return Err(geometry("number of windows", u64::from(shape & 0xffff)));
        }
        let mut windows = [Window::SECOND; MAX_QUOTAS];
        for (window, &length) in windows.iter_mut().zip(&lengths[..count]) {
            *window = Window::from_seconds(length)
                .ok_or_else(|| geometry("window", u64::from(length)))?;
        }
        let bits = low(line.load(7)).to_le_bytes();
        let layout = Layout::from_parts(algorithm, &windows[..count], bits)
            .ok_or_else(|| geometry("tally layout", line.load(7)))?;
        Ok(Self {
            kind: expected,
            capacity: low(line.load(3)),
            header_lines: high(line.load(3)),
            flags: low(line.load(4)),
            layout,
        })
    }

    /// Checks that the memory has the size that the table's own geometry gives.
    pub(crate) fn expect_lines(
        &self,
        memory: &[Line],
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

fn bytes(lines: usize) -> u64 {
    (lines as u64).saturating_mul(LINE_LEN as u64)
}

/// Why memory cannot be opened as a table. Each variant names what was found and what is valid.
///
/// If the memory does not begin as a table does, nothing of it is repeated: it may be a file that
/// holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// It does not begin as a table does: with the magic, a version and a kind.
    NotATable,
    /// Its creator has not finished, or was killed before it had.
    Unfinished,
    /// It has another version of the format.
    Version {
        /// The table's.
        found: u32,
        /// This library's.
        expected: u32,
    },
    /// It is a limiter where a gate was expected, or vice versa.
    Kind {
        /// What it is.
        found: TableKind,
        /// What was expected.
        expected: TableKind,
    },
    /// Its size differs from the one in its header.
    Truncated {
        /// Bytes found.
        len: u64,
        /// Bytes that it should have.
        needed: u64,
    },
    /// A number in its header is not valid.
    Geometry {
        /// The meaning of the number.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// None of the peppers given is the gate's.
    WrongPepper {
        /// How many were given.
        given: usize,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATable => f.write_str("this is not a keytally table: it does not begin as one does"),
            Self::Unfinished => {
                f.write_str("this table was never finished: its creation was interrupted; create it again")
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
#[non_exhaustive]
pub enum CreateError {
    /// The memory has another size than the table.
    Size {
        /// Lines given.
        lines: usize,
        /// Lines needed.
        needed: usize,
    },
    /// The capacity is 0 or above its maximum.
    Capacity {
        /// The capacity requested.
        capacity: u32,
        /// The maximum.
        max: u32,
    },
    /// There is no plan, or there are more than there is room for.
    Plans {
        /// The number of plans requested.
        plans: usize,
        /// The maximum.
        max: usize,
    },
    /// A plan's name is not 1 to 16 characters of `a-z`, `0-9`, `-` and `_`, or appears twice.
    PlanName,
    /// The plans differ in their windows or algorithm, or together need more bits than a tally has.
    PlanWindows,
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
            Self::Plans { plans, max } => write!(f, "{plans} plans are not possible; a gate has 1 to {max}"),
            Self::PlanName => {
                f.write_str("a plan's name is 1 to 16 characters of a-z, 0-9, - and _, and each appears once")
            }
            Self::PlanWindows => f.write_str(
                "all plans of a gate must share their windows and algorithm, and fit one tally together",
            ),
        }
    }
}

impl core::error::Error for CreateError {}
