//! The header page of a table in a file: its size, and the words that the core leaves to this
//! crate. The core's modules `header` and `gate` define the other words.

use keytally_core::CACHE_LINE_LEN;

/// Bytes in the header of a table in a file: one page.
pub const HEADER_LEN: usize = HEADER_LINES * CACHE_LINE_LEN;

/// The header in lines.
pub(crate) const HEADER_LINES: usize = 64;

const _: () = assert!(HEADER_LEN == 4096, "the header is one page");

/// The line and the word that name the administrator. It is the last word of the line with the
/// peppers.
pub(crate) const HOLDER: (usize, usize) = (1, 7);

/// The line and the word that request new administrators to yield: not 0 if one has waited long. It
/// is the last word of the line with the target word of the redo record.
pub(crate) const WAITING: (usize, usize) = (3, 7);
