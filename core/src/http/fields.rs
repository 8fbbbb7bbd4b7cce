//! Writes header fields into a buffer: their names, numbers and windows, in one of two formats.

use core::ffi::CStr;
use core::ops::Range;

use crate::bits::{IS_64_BIT, index, low};
use crate::window::Window;

/// The most bytes that the header fields of a verdict take, with their line ends.
pub const MAX_HEADERS_LEN: usize = 640;

/// The format in which fields are written.
pub(super) trait FieldFormat {
    /// Writes a field, and calls `value` to write its value. Returns the remainder of the buffer.
    fn field<'b>(
        &mut self,
        out: Writer<'b>,
        name: &'static CStr,
        value: impl FnOnce(Writer<'b>) -> Writer<'b>,
    ) -> Writer<'b>;
}

/// Fields as they are sent, each `Name: value` and a line end.
///
/// A function that is inlined has an `INLINED` format. With one format for both, the compiler
/// shares the code that writes lists between them, which cost either 60 instructions.
pub(super) struct Lines<const INLINED: bool = false>;

impl<const INLINED: bool> FieldFormat for Lines<INLINED> {
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn field<'b>(
        &mut self,
        out: Writer<'b>,
        name: &'static CStr,
        value: impl FnOnce(Writer<'b>) -> Writer<'b>,
    ) -> Writer<'b> {
        value(out.name(name).text(b": ")).text(b"\r\n")
    }
}

/// NUL-terminated values in a buffer of `N` bytes. The callback receives each
/// field's name and the range of its value in the buffer.
pub(super) struct Values<F, const N: usize>(pub(super) F);

impl<F: FnMut(&'static CStr, Range<usize>), const N: usize> FieldFormat for Values<F, N> {
    fn field<'b>(
        &mut self,
        out: Writer<'b>,
        name: &'static CStr,
        value: impl FnOnce(Writer<'b>) -> Writer<'b>,
    ) -> Writer<'b> {
        let begin = N - out.0.len();
        let out = value(out);
        (self.0)(name, begin..N - out.0.len());
        out.text(b"\0")
    }
}

/// The part of a buffer that is not written yet. Each method writes at its front and returns the
/// remainder.
///
/// It is passed by value, so that it stays in registers: `core::fmt` would take ten times as long.
/// A text that does not fit is left out. That does not happen in a buffer of [`MAX_HEADERS_LEN`]
/// bytes: a test writes the longest fields.
pub(super) struct Writer<'b>(pub(super) &'b mut [u8]);

impl Writer<'_> {
    /// Writes a field's name. Only an inlined call knows the length of the name at compile time.
    /// Any other call is slower than one of [`text`](Self::text).
    #[cfg_attr(target_pointer_width = "64", inline)]
    fn name(self, name: &CStr) -> Self {
        match self.0.split_at_mut_checked(name.count_bytes()) {
            Some((target, rest)) => {
                target.copy_from_slice(name.to_bytes());
                Self(rest)
            }
            None => Self(&mut []),
        }
    }

    /// Writes a text of a fixed length.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(super) fn text<const N: usize>(self, text: &[u8; N]) -> Self {
        match self.0.split_first_chunk_mut() {
            Some((target, rest)) => {
                *target = *text;
                Self(rest)
            }
            None => Self(&mut []),
        }
    }

    /// Writes a text of any length.
    pub(super) fn bytes(self, text: &[u8]) -> Self {
        match self.0.split_at_mut_checked(text.len()) {
            Some((target, rest)) => {
                target.copy_from_slice(text);
                Self(rest)
            }
            None => Self(&mut []),
        }
    }

    /// Writes a window's name, equal to its `Display`.
    pub(super) fn window_word(self, window: Window) -> Self {
        match window.name() {
            Some(name) => self.bytes(name.as_bytes()),
            None => self.number(window.seconds().into()).text(b"s"),
        }
    }

    /// Writes a number in decimal.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(super) fn number(self, number: u64) -> Self {
        if !IS_64_BIT {
            return self.digits(number);
        }
        match u32::try_from(number) {
            Ok(number) if number < FOUR_DIGITS => {
                let digits = 1
                    + usize::from(number > 9)
                    + usize::from(number > 99)
                    + usize::from(number > 999);
                self.last_digits(number, digits)
            }
            _ => self.long_number(number),
        }
    }

    /// Writes a number in decimal, one digit at a time, on small targets. A division of 32 bits is
    /// much faster there.
    fn digits(self, number: u64) -> Self {
        let (rest, digit) = match u32::try_from(number) {
            Ok(number) => (u64::from(number / 10), number % 10),
            Err(_) => (number / 10, low(number % 10)),
        };
        let out = if rest > 0 { self.digits(rest) } else { self };
        out.text(&[b'0' + digit.to_le_bytes()[0]])
    }

    #[inline(never)]
    fn long_number(self, number: u64) -> Self {
        self.number(number / u64::from(FOUR_DIGITS))
            .last_digits(low(number % u64::from(FOUR_DIGITS)), 4)
    }

    /// Writes the last `digits` digits, 1 to 4, of a number below 10,000. It stores four bytes; the
    /// next text overwrites the rest.
    #[cfg_attr(target_pointer_width = "64", inline)]
    fn last_digits(self, number: u32, digits: usize) -> Self {
        let [[a, b], [c, d]] =
            [number / 100, number % 100].map(|pair| PAIRS[index(pair.into()) % PAIRS.len()]);
        let text = u32::from_le_bytes([a, b, c, d]) >> (8 * (4 - digits));
        if let Some(target) = self.0.first_chunk_mut() {
            *target = text.to_le_bytes();
        }
        Self(self.0.get_mut(digits..).unwrap_or_default())
    }

    /// Writes a window's length as the parameter `w`. For the most frequent lengths, the whole
    /// parameter is one text.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(super) fn window_length(self, window: Window) -> Self {
        match window.number() {
            60 if IS_64_BIT => self.text(b";w=60"),
            3600 if IS_64_BIT => self.text(b";w=3600"),
            _ => self.text(b";w=").number(window.seconds().into()),
        }
    }

    /// Writes a window's name in quotation marks, equal to its `Display`.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn window_name(self, window: Window) -> Self {
        match window.number() {
            1 => self.text(b"\"second\""),
            60 => self.text(b"\"minute\""),
            3600 => self.text(b"\"hour\""),
            86_400 => self.text(b"\"day\""),
            seconds if !window.is_calendar() => {
                self.text(b"\"").number(seconds.into()).text(b"s\"")
            }
            _ => self.calendar_name(window),
        }
    }

    #[cold]
    #[inline(never)]
    fn calendar_name(self, window: Window) -> Self {
        if window == Window::WEEK { self.text(b"\"week\"") } else { self.text(b"\"month\"") }
    }
}

/// One above the largest number of four digits. Numbers are written four digits at a time.
const FOUR_DIGITS: u32 = 10_000;

/// The two digits of each number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [*b"00"; 100];
    let mut number = 1;
    while number < pairs.len() {
        let [tens, ones] = pairs[number - 1];
        pairs[number] = if ones == b'9' { [tens + 1, b'0'] } else { [tens, ones + 1] };
        number += 1;
    }
    pairs
};
