//! Quotas, their windows and limits, and the algorithms by which windows count.

use core::fmt;

use crate::bits::IS_64_BIT;
use crate::features::Feature;
use crate::text::Text;

/// The most quotas that a policy may have.
pub const MAX_QUOTAS: usize = 4;

/// The longest window, in seconds: 31 days.
pub const MAX_WINDOW_S: u32 = 31 * 86_400;

/// The algorithm by which a window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Algorithm {
    /// Windows are aligned to the Unix epoch, and each starts with a count of 0.
    Fixed,
    /// The last full window length counts, by an estimate. It is the count of the present aligned
    /// window, plus that of the previous one weighted by its overlap with that length. The weighted
    /// count is rounded up.
    Sliding,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Algorithm {
    /// Returns whether windows slide; always false in a build without sliding windows.
    #[inline]
    pub(crate) const fn slides(self) -> bool {
        Feature::Sliding.is_included() && matches!(self, Self::Sliding)
    }

    /// Returns the word for the algorithm in policy text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Sliding => "sliding",
        }
    }
}

/// The length of a window: whole seconds, from 1 to [`MAX_WINDOW_S`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Window(pub(crate) u32);

impl Window {
    /// A window of `seconds`; `None` if that is 0 or more than [`MAX_WINDOW_S`].
    pub const fn from_seconds(seconds: u32) -> Option<Self> {
        if seconds == 0 || seconds > MAX_WINDOW_S { None } else { Some(Self(seconds)) }
    }

    /// One second.
    pub(crate) const SECOND: Self = Self(1);

    /// Returns the length in seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// Returns how many whole windows fit in `seconds`. Common lengths are constant divisors, which
    /// the compiler turns into multiplications; these are ten times as fast.
    #[inline]
    pub(crate) const fn whole_in(self, seconds: u64) -> u64 {
        match self.0 {
            length if !IS_64_BIT => seconds / length as u64,
            1 => seconds,
            60 => seconds / 60,
            3600 => seconds / 3600,
            86_400 => seconds / 86_400,
            length => seconds / length as u64,
        }
    }

    /// Returns the length in milliseconds.
    pub(crate) const fn ms(self) -> u64 {
        self.0 as u64 * 1000
    }
}

/// A limit for the total cost in each window of a given length.
///
/// The fields are public and complete, so that a caller can write a literal. If other kinds of
/// windows are added, they will be values of [`Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Quota {
    /// The most units that one window admits, at least 1.
    pub limit: u32,
    /// The length of the window.
    pub window: Window,
}

/// The limit of each window of a [`Layout`](crate::Layout), shortest window first. Values past the
/// last window have no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits(pub(crate) [u32; MAX_QUOTAS]);

/// The units of policy text: word, letter and seconds. The longest is first, so that the first unit
/// that divides a length gives the shortest text.
pub(crate) const UNITS: [(&str, &str, u32); 4] =
    [("day", "d", 86_400), ("hour", "h", 3600), ("minute", "m", 60), ("second", "s", 1)];

/// The most bytes of a quota as text, and of the part of a policy text that an error repeats.
pub(crate) const MAX_PART_LEN: usize = 32;

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Quota {
    /// Returns whether requests that this quota admits never exceed `other`, a quota of the same
    /// policy with another window.
    ///
    /// Windows nest. A shorter window's count is therefore part of a longer one's, and a longer
    /// window is a whole number of shorter ones. In sliding windows, the same bounds hold for the
    /// estimates.
    pub(crate) fn implies(&self, other: Self) -> bool {
        let windows_in_other = (other.window.0 / self.window.0).max(1);
        let most = u64::from(self.limit) * u64::from(windows_in_other);
        self.window != other.window && most <= u64::from(other.limit)
    }

    /// Returns the quota as policy text, at most 10 + 1 + 8 bytes. It does not use `core::fmt`,
    /// which would add a kilobyte of code to a program on a small machine.
    pub(crate) fn text(self) -> Text<MAX_PART_LEN> {
        let mut text = Text::new();
        push_number(&mut text, self.limit);
        push(&mut text, "/");
        for (word, letter, seconds) in UNITS {
            if self.window.0 == seconds {
                push(&mut text, word);
                break;
            }
            if self.window.0.is_multiple_of(seconds) {
                push_number(&mut text, self.window.0 / seconds);
                push(&mut text, letter);
                break;
            }
        }
        text
    }
}

/// Appends a number in decimal.
fn push_number(text: &mut Text<MAX_PART_LEN>, number: u32) {
    if number > 9 {
        push_number(text, number / 10);
    }
    // There is room for every quota.
    let _ = text.push(char::from_digit(number % 10, 10).unwrap_or_default());
}

/// Appends a part of a quota, for which there is always room.
fn push(text: &mut Text<MAX_PART_LEN>, part: &str) {
    let _ = text.push_str(part);
}

/// Writes the window's name in HTTP fields: `second`, `minute`, `hour` or `day`, else its seconds,
/// such as `90s`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|(_, _, seconds)| self.0 == *seconds) {
            Some((word, _, _)) => f.write_str(word),
            None => write!(f, "{}s", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_in_equals_the_quotient_for_every_length() {
        for length in [1, 2, 59, 60, 61, 3599, 3600, 3601, 86_399, 86_400, 86_401, MAX_WINDOW_S] {
            let window = Window::from_seconds(length).unwrap();
            for count in [0, 1, 2, 1000] {
                let seconds = count * u64::from(length);
                let counted =
                    [seconds, seconds + u64::from(length) - 1, seconds + u64::from(length)];
                assert_eq!(
                    counted.map(|seconds| window.whole_in(seconds)),
                    [count, count, count + 1]
                );
            }
        }
    }
}
