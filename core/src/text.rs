//! Short texts of a bounded length, stored without allocation.

use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;

use heapless::String;

/// A text of at most `N` bytes, stored in the value itself. It dereferences to `str`.
///
/// ```
/// use keytally_core::{Plan, Text};
/// let plan = Plan::new("pro", "1000/minute".parse()?).unwrap();
/// let name: &Text<16> = &plan.name;
/// assert_eq!((name, name.as_str(), name.len()), (&plan.name, "pro", 3));
/// # Ok::<(), keytally_core::ParsePolicyError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const N: usize>(String<N, u16>);

impl<const N: usize> Text<N> {
    /// An empty text.
    pub const fn new() -> Self {
        Self(String::new())
    }

    /// Returns a copy of `text`; `None` if it has more than `N` bytes.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut copy = Self::new();
        copy.push_str(text).then_some(copy)
    }

    /// The beginning of `text` without control characters, as an error repeats it.
    pub(crate) fn cut(text: &str) -> Self {
        let mut cut = Self::new();
        for character in text.chars().filter(|character| !character.is_control()) {
            if !cut.push(character) {
                break;
            }
        }
        cut
    }

    /// Returns the text as a slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends `part`. Returns false and appends nothing if it does not fit.
    pub(crate) fn push_str(&mut self, part: &str) -> bool {
        self.0.push_str(part).is_ok()
    }

    /// Appends `character`. Returns false and appends nothing if it does not fit.
    pub(crate) fn push(&mut self, character: char) -> bool {
        self.0.push(character).is_ok()
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> AsRef<str> for Text<N> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> Borrow<str> for Text<N> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> PartialEq<str> for Text<N> {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl<const N: usize> PartialEq<&str> for Text<N> {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.push_str(part) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_does_not_fit_is_left_out_entirely() {
        assert_eq!(Text::<3>::from_text("abcd"), None);
        let mut text = Text::<3>::from_text("ab").unwrap();
        assert!(!text.push_str("cd") && !text.push('é'));
        assert_eq!(text, "ab");
        assert!(text.push('c') && !text.push('d'));
        assert_eq!((text.as_str(), text.len()), ("abc", 3));
    }
}
