//! The counts of a tally: where they are in its word, and how many units count against a limit.

use crate::bits::low;
use crate::features::Feature;
use crate::quota::{Algorithm, Limits, MAX_QUOTAS};
use crate::window::Window;

/// The marks of [`Counts::marks`].
pub(super) const CALENDAR: u8 = 1;
pub(super) const NAMED: u8 = 2;

/// The part of a layout that reads counts. It is small, so that each verdict can hold a copy and
/// compute the state of a window on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The windows, shortest first; the values past the last one have no meaning.
    pub(super) windows: [Window; MAX_QUOTAS],
    /// The largest count of each window, which is also the mask of its bits; 0 past the last
    /// window.
    pub(super) masks: [u32; MAX_QUOTAS],
    /// The position of the lowest bit of each window's current count. A sliding window's previous
    /// count is directly below it.
    pub(super) shifts: [u8; MAX_QUOTAS],
    /// The width of each window's count in bits. A sliding window has two counts of this width.
    pub(super) bits: [u8; MAX_QUOTAS],
    /// The number of windows.
    pub(super) len: u8,
    /// The index of the window that the fields `X-RateLimit-*` describe.
    pub(super) described: u8,
    /// [`CALENDAR`] if a window is a week or a month, and [`NAMED`] if the gate names the window
    /// that is described.
    pub(super) marks: u8,
    pub(super) algorithm: Algorithm,
}

impl Counts {
    /// The counts of no window.
    pub(crate) const NONE: Self = Self {
        windows: [Window::SECOND; MAX_QUOTAS],
        masks: [0; MAX_QUOTAS],
        shifts: [0; MAX_QUOTAS],
        bits: [0; MAX_QUOTAS],
        len: 0,
        described: 0,
        marks: 0,
        algorithm: Algorithm::Fixed,
    };

    /// The most windows, all of one length, with the widest counts.
    #[cfg(test)]
    pub(crate) fn widest(window: Window) -> Self {
        let (windows, masks) = ([window; MAX_QUOTAS], [u32::MAX; MAX_QUOTAS]);
        Self { windows, masks, len: 4, ..Self::NONE }
    }

    /// Returns the number of windows.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len).min(MAX_QUOTAS)
    }

    /// Returns the index of the window that the fields `X-RateLimit-*` describe.
    #[inline]
    pub(crate) fn described(&self) -> usize {
        usize::from(self.described) % MAX_QUOTAS
    }

    /// Returns whether a window is a week or a month, or the gate names the one that is described.
    #[inline]
    pub(crate) fn has_marks(&self) -> bool {
        (Feature::Calendar.is_included() || Feature::Sections.is_included()) && self.marks != 0
    }

    /// Returns the index of the window that the gate names to be described; `None` if it names
    /// none of these.
    #[inline]
    pub(crate) fn named(&self) -> Option<usize> {
        let is_named = Feature::Sections.is_included() && self.marks & NAMED != 0;
        is_named.then(|| self.described())
    }

    #[inline]
    pub(crate) fn window(&self, index: usize) -> Window {
        self.windows[index]
    }

    /// Returns the limit of the window at `index`, or the largest value of its count if that is
    /// less. So a charge never overflows into the next count.
    #[inline]
    pub(crate) fn limit(&self, limits: &Limits, index: usize) -> u32 {
        limits.0[index].min(self.masks[index])
    }

    /// Returns the current count of the window at `index`.
    #[inline]
    pub(crate) fn current(&self, word: u64, index: usize) -> u32 {
        low(word.wrapping_shr(u32::from(self.shifts[index]))) & self.masks[index]
    }

    /// Returns the previous count of the window at `index`; 0 in a fixed layout.
    #[inline]
    pub(crate) fn previous(&self, word: u64, index: usize) -> u32 {
        if self.slides() {
            low(word.wrapping_shr(self.previous_shift(index))) & self.masks[index]
        } else {
            0
        }
    }

    /// Returns the position of the lowest bit of the previous count of the window at `index`, in a
    /// sliding layout.
    #[inline]
    pub(super) fn previous_shift(&self, index: usize) -> u32 {
        u32::from(self.shifts[index] - self.bits[index])
    }

    /// Returns the units that count against the limit of the window at `index`. The time must be
    /// within the unit that the word's stamp names.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn used(&self, word: u64, index: usize, time_ms: u64) -> u32 {
        let length = self.windows[index].ms();
        self.used_by(word, index, time_ms, length, |number| number / length)
    }

    /// Returns the units that count against the limit, as [`used`](Self::used) does. `divide`
    /// divides by `length`, the window's length in milliseconds.
    ///
    /// A sliding window reaches back from `time_ms` by its length. The previous count is weighted
    /// by the part of its window within that reach, and rounded up, so that a fraction never admits
    /// more. A count has at most 32 bits and a length at most 2^31.4 ms, so the product fits.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn used_by(
        &self,
        word: u64,
        index: usize,
        time_ms: u64,
        length: u64,
        divide: impl Fn(u64) -> u64,
    ) -> u32 {
        let current = self.current(word, index);
        match self.previous(word, index) {
            0 => current,
            previous => {
                // Windows begin at whole multiples of their length.
                let overlap = length - (time_ms - divide(time_ms) * length);
                let weighted = divide(u64::from(previous) * overlap + (length - 1));
                current.saturating_add(u32::try_from(weighted).unwrap_or(previous))
            }
        }
    }

    /// Returns whether the previous window counts too, i.e. the windows are sliding.
    #[inline]
    pub(crate) fn slides(&self) -> bool {
        self.algorithm.slides()
    }

    /// Returns whether units that count in the window at `index` will also count in the next one.
    #[inline]
    pub(crate) fn lasts(&self, word: u64, index: usize) -> bool {
        self.slides() && self.current(word, index) > 0
    }
}
