//! Texts that go into the caller's buffers.

use core::ffi::c_char;
use core::fmt;

use crate::guard::Outcome;
use crate::pointers::{Buffer, Place};
use crate::status::kt_status;

/// Text that fits `N` bytes with its NUL, or is cut there.
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
    pub(crate) fn of(value: &dyn fmt::Display) -> Self {
        let mut text = Self::default();
        // What doesn't fit is cut.
        let _ = fmt::write(&mut text, format_args!("{value}"));
        text
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// As a field of a struct: ended by a NUL, and zeros after it.
    pub(crate) fn characters(&self) -> [c_char; N] {
        characters(self.as_bytes())
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = N.saturating_sub(1).saturating_sub(self.len);
        let mut taken = text.len().min(room);
        while !text.is_char_boundary(taken) {
            taken -= 1;
        }
        if let Some(place) = self.bytes.get_mut(self.len..self.len + taken) {
            place.copy_from_slice(&text.as_bytes()[..taken]);
            self.len += taken;
        }
        if taken == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Bytes as a field of a struct, cut so that a NUL ends them.
pub(crate) fn characters<const N: usize>(bytes: &[u8]) -> [c_char; N] {
    let mut characters = [0; N];
    let room = N.saturating_sub(1);
    for (character, byte) in characters.iter_mut().zip(bytes.iter().take(room)) {
        *character = byte.cast_signed() as c_char;
    }
    characters
}

/// Writes a text with a NUL, and its length without.
pub(crate) fn put(mut buffer: Buffer<'_>, written: Place<'_, usize>, text: &[u8]) -> Outcome {
    buffer.put(text)?;
    written.write(text.len());
    Ok(())
}

/// The text in these bytes, or the status of what it should have been.
pub(crate) fn utf8(bytes: &[u8], otherwise: kt_status) -> Outcome<&str> {
    core::str::from_utf8(bytes).map_err(|_| otherwise)
}
