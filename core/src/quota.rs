//! Quotas and their limits, and the algorithms by which windows count.

use core::fmt;

use crate::features::Feature;
use crate::text::Text;
use crate::window::{UNITS, Window};

/// The most quotas that a policy may have.
pub const MAX_QUOTAS: usize = 4;

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

/// A limit for the total cost in each window of a given length.
///
/// The fields are public and complete, so that a caller can write a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Quota {
    /// The most units that one window admits, at least 1.
    pub limit: u32,
    /// The window.
    pub window: Window,
}

/// The limit of each window of a [`Layout`](crate::Layout), shortest window first. Values past the
/// last window have no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits(pub(crate) [u32; MAX_QUOTAS]);

impl Limits {
    /// The limits of these quotas, of which the first four count.
    pub(crate) fn of(quotas: &[Quota]) -> Self {
        let mut limits = [u32::MAX; MAX_QUOTAS];
        for (limit, quota) in limits.iter_mut().zip(quotas) {
            *limit = quota.limit;
        }
        Self(limits)
    }
}

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
    /// If the windows nest, the same bound holds for the estimates of sliding windows. Otherwise it
    /// may not, so nothing is claimed about them.
    pub(crate) fn implies(&self, other: Self, algorithm: Algorithm) -> bool {
        let (inner, outer) = (self.window, other.window);
        let is_bound = !algorithm.slides() || inner.nests_in(outer) || outer.nests_in(inner);
        let most = u64::from(self.limit) * inner.most_in(outer);
        inner != outer && is_bound && most <= u64::from(other.limit)
    }

    /// Returns the quota as policy text, at most 10 + 1 + 8 bytes. It does not use `core::fmt`,
    /// which would add a kilobyte of code to a program on a small machine.
    pub(crate) fn text(self) -> Text<MAX_PART_LEN> {
        let mut text = Text::new();
        push_number(&mut text, self.limit);
        push(&mut text, "/");
        match self.window.name() {
            Some(name) => push(&mut text, name),
            None => {
                let seconds = self.window.seconds();
                let unit = UNITS.into_iter().find(|(_, _, unit)| seconds.is_multiple_of(*unit));
                let (_, letter, unit) = unit.unwrap_or(("second", "s", 1));
                push_number(&mut text, seconds / unit);
                push(&mut text, letter);
            }
        }
        if let Some(day @ 2..) = self.window.month_day() {
            push(&mut text, "@");
            push_number(&mut text, day);
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
