//! The header page of a table in a file: its size, and the words in it that the core leaves to this
//! crate.

use keytally_core::LINE_LEN;

/// Bytes in the header of a table in a file: one page.
pub const HEADER_LEN: usize = HEADER_LINES * LINE_LEN;

/// The header in lines.
pub(crate) const HEADER_LINES: usize = 64;

const _: () = assert!(HEADER_LEN == 4096, "the header is one page");

/// Line and word that name the administrator: the last word of the line of peppers.
pub(crate) const HOLDER: (usize, usize) = (1, 7);

/// Line and word that are set while an administrator has been waiting: the last word of the line of
/// intents.
pub(crate) const WAITING: (usize, usize) = (3, 7);
