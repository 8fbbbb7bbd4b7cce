//! Texts in the caller's buffers and in members of structs.

use core::ffi::c_char;
use core::fmt;

use crate::pointers::{Buffer, Target};
use crate::status::{FfiResult, kt_status};

/// A text that fits `N` bytes with its NUL. A longer one is cut.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Text<N> {
    /// Formats a value.
    pub(crate) fn from_display(value: &dyn fmt::Display) -> Self {
        let mut text = Self::default();
        // What does not fit is cut.
        let _ = fmt::write(&mut text, format_args!("{value}"));
        text
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Returns the text as a member of a struct: a NUL ends it, and zeros follow.
    pub(crate) fn to_characters(&self) -> [c_char; N] {
        to_characters(self.as_bytes())
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = N.saturating_sub(1).saturating_sub(self.len);
        let mut taken = text.len().min(room);
        while !text.is_char_boundary(taken) {
            taken -= 1;
        }
        if let Some(target) = self.bytes.get_mut(self.len..self.len + taken) {
            target.copy_from_slice(&text.as_bytes()[..taken]);
            self.len += taken;
        }
        if taken == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Returns bytes as a member of a struct, cut so that a NUL ends them.
pub(crate) fn to_characters<const N: usize>(bytes: &[u8]) -> [c_char; N] {
    let mut characters = [0; N];
    let room = N.saturating_sub(1);
    for (character, byte) in characters.iter_mut().zip(bytes.iter().take(room)) {
        *character = byte.cast_signed() as c_char;
    }
    characters
}

/// Writes a text with a NUL, and its length without.
pub(crate) fn put(mut buffer: Buffer<'_>, written: Target<'_, usize>, text: &[u8]) -> FfiResult {
    buffer.put(text)?;
    written.write(text.len());
    Ok(())
}

/// Returns the text in these bytes.
///
/// # Errors
/// `otherwise` if they are not UTF-8.
pub(crate) fn utf8(bytes: &[u8], otherwise: kt_status) -> FfiResult<&str> {
    core::str::from_utf8(bytes).map_err(|_| otherwise)
}
