//! The credit word: the units that one machine may spend in each window of a tally.
//!
//! ```text
//! 64 bits = stamp (in units of time) | credits of window 1 | … | credits of window n
//! ```
//!
//! Its layout is that of the tally that it belongs to. Four words of a tally have this form:
//! *credits*, what is left to spend; the *holding*, what the store last confirmed and the machine
//! has not given back; *left*, what the store had left in its last reply; and *unreserved*, what
//! was admitted without credits and is not in the holding yet.
//!
//! All functions are pure: they take words and times, and return words.
//!
//! # Time
//! A window of a word is *current* if it contains the time of the call. If that time is before the
//! word's stamp, the stamp's time counts instead, as in a tally. Credits of a window that is not
//! current are *void*: they are never spent, and count as 0. Only the agent moves a stamp, and only
//! forward.

use core::fmt;

use keytally_core::{Algorithm, Layout, Limits, MAX_QUOTAS, Timestamp, Window, decide};

/// Units of each window, shortest window first. Values past the last window are 0.
pub type Units = [u32; MAX_QUOTAS];

/// The layout of the credit words of one tally: that of the tally, and the limits of its windows.
#[derive(Clone, Copy, Debug)]
pub struct CreditLayout {
    layout: Layout,
    limits: Limits,
    len: usize,
    shifts: [u32; MAX_QUOTAS],
    masks: [u32; MAX_QUOTAS],
    /// The word that has one credit in every window.
    one_each: u64,
    stamp_shift: u32,
    unit_ms: u64,
    /// The length of each window in units of the stamp; without meaning for weeks and months.
    ratios: [u64; MAX_QUOTAS],
}

/// Sliding windows cannot be shared by machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingError;

impl fmt::Display for SlidingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fleet shares fixed windows only, and this policy has sliding ones: write `fixed` in its text")
    }
}

impl core::error::Error for SlidingError {}

/// When a window begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first moment of the window, in Unix milliseconds.
    pub begin_ms: u64,
    /// The first moment after the window, in Unix milliseconds.
    pub end_ms: u64,
}

impl CreditLayout {
    /// The layout of the credits of a tally with this layout and these limits.
    ///
    /// # Errors
    /// [`SlidingError`] if the windows slide.
    pub fn new(layout: &Layout, limits: &Limits) -> Result<Self, SlidingError> {
        if layout.algorithm() == Algorithm::Sliding {
            return Err(SlidingError);
        }
        let len = layout.windows().len();
        let (unit_ms, stamp_shift) =
            (layout.stamp_unit_ms().max(1), u64::BITS - layout.stamp_bits());
        let (mut shifts, mut masks, mut ratios) =
            ([0; MAX_QUOTAS], [0; MAX_QUOTAS], [1; MAX_QUOTAS]);
        let mut one_each = 0;
        for (index, window) in layout.windows().iter().enumerate() {
            shifts[index] = layout.count_shift(index).unwrap_or(0);
            masks[index] = layout.max_limit(index).unwrap_or(0);
            ratios[index] = (u64::from(window.seconds()) * 1000 / unit_ms).max(1);
            one_each |= 1 << shifts[index];
        }
        Ok(Self {
            layout: *layout,
            limits: *limits,
            len,
            shifts,
            masks,
            one_each,
            stamp_shift,
            unit_ms,
            ratios,
        })
    }

    /// Returns the number of windows, 1 to [`MAX_QUOTAS`].
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is no window. No layout is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the windows, shortest first.
    pub fn windows(&self) -> &[Window] {
        self.layout.windows()
    }

    /// Returns the layout of the tally.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the limit of the window at `index`; 0 past the last window.
    pub fn limit(&self, index: usize) -> u32 {
        let state = decide::quotas(&self.layout, &self.limits, 0, Timestamp::from_unix_ms(0));
        state.get(index).map_or(0, |state| state.limit)
    }

    /// Returns the most units of the window at `index` that a word holds; 0 past the last window.
    pub fn max_units(&self, index: usize) -> u32 {
        self.masks.get(index).copied().unwrap_or(0)
    }

    /// Returns the length of the window at `index` in milliseconds; for a month, that of the
    /// longest one.
    pub fn length_ms(&self, index: usize) -> u64 {
        self.windows().get(index).map_or(0, |window| u64::from(window.seconds()) * 1000)
    }

    /// Returns the window at `index` that contains `now_ms`.
    pub fn span(&self, index: usize, now_ms: u64) -> Span {
        let length_ms = self.length_ms(index).max(1);
        if !self.is_calendar(index) {
            let begin_ms = now_ms / length_ms * length_ms;
            return Span { begin_ms, end_ms: begin_ms.saturating_add(length_ms) };
        }
        let end_ms = self.calendar_end_ms(index, now_ms);
        // One longest window and a millisecond before the end is in the window before, since that
        // is longer than a month can be shorter than the longest.
        let before_ms = end_ms.saturating_sub(length_ms + 1);
        let begin_ms = match self.calendar_end_ms(index, before_ms) {
            // The window began before the epoch.
            same if same == end_ms => 0,
            begin_ms => begin_ms,
        };
        Span { begin_ms, end_ms }
    }

    /// Returns the units of the window at `index` in a word, also if they are void.
    #[inline]
    pub fn units(&self, word: u64, index: usize) -> u32 {
        if index < self.len { low(word >> self.shifts[index]) & self.masks[index] } else { 0 }
    }

    /// Returns the moment at which the unit of a word's stamp begins, in Unix milliseconds.
    #[inline]
    pub fn stamp_ms(&self, word: u64) -> u64 {
        self.stamp(word).saturating_mul(self.unit_ms)
    }

    /// Returns the time that counts for a word: `now_ms`, or the beginning of its stamp's unit if
    /// that is later.
    #[inline]
    pub fn time_ms(&self, word: u64, now_ms: u64) -> u64 {
        now_ms.max(self.stamp_ms(word))
    }

    /// Returns whether two moments are in the same window of `index`.
    pub fn is_same_window(&self, index: usize, one_ms: u64, other_ms: u64) -> bool {
        self.is_same(index, self.stamp_at(one_ms), self.stamp_at(other_ms))
    }

    /// Returns the units of each window of a word that contains both `at_ms` and the word's stamp,
    /// and 0 for the others.
    pub fn units_at(&self, word: u64, at_ms: u64) -> Units {
        let (held, wanted) = (self.stamp(word), self.stamp_at(at_ms));
        let mut units = Units::default();
        for (index, units) in units.iter_mut().enumerate().take(self.len) {
            if self.is_same(index, held, wanted) {
                *units = self.units(word, index);
            }
        }
        units
    }

    /// Returns the units of each window of a word that is current at `now_ms`, and 0 for the
    /// others.
    #[inline]
    pub fn current(&self, word: u64, now_ms: u64) -> Units {
        let (held, present) = (self.stamp(word), self.stamp_at(now_ms));
        let mut units = Units::default();
        for (index, units) in units.iter_mut().enumerate().take(self.len) {
            if held >= present || self.is_same(index, held, present) {
                *units = self.units(word, index);
            }
        }
        units
    }

    /// Returns the word of a tally at `now_ms` whose windows have used what is not left: what is
    /// left is the credits and what the store had `left`, at most the limit. Of a window that the
    /// store has not reported, that is the limit.
    ///
    /// `limit` returns the limit of the window at an index. `change` gets the index and what is
    /// left, and returns what is to be shown.
    #[inline]
    pub fn shown(
        &self,
        [credits, left]: [u64; 2],
        now_ms: u64,
        limit: impl Fn(usize) -> u32,
        change: impl Fn(usize, u32) -> u32,
    ) -> u64 {
        let present = self.stamp_at(now_ms);
        let mut word = present << self.stamp_shift;
        for index in 0..self.len {
            let limit = limit(index);
            let of = |word: u64, otherwise: u32| {
                let held = self.stamp(word);
                let is_current = held >= present || self.is_same(index, held, present);
                if is_current { self.units(word, index) } else { otherwise }
            };
            let has = of(credits, 0).saturating_add(of(left, limit)).min(limit);
            let used = limit.saturating_sub(change(index, has)).min(self.masks[index]);
            word |= u64::from(used) << self.shifts[index];
        }
        word
    }

    /// Returns the word whose windows are those of `now_ms`, with these units. More units than a
    /// word holds become the most that it holds.
    #[inline]
    pub fn word(&self, now_ms: u64, units: &Units) -> u64 {
        let mut word = self.stamp_at(now_ms) << self.stamp_shift;
        for (index, units) in units.iter().enumerate().take(self.len) {
            word |= u64::from((*units).min(self.masks[index])) << self.shifts[index];
        }
        word
    }

    /// Returns the word moved forward to `now_ms`: void units are 0. If its stamp is later, returns
    /// the word itself.
    pub fn rolled(&self, word: u64, now_ms: u64) -> u64 {
        if self.stamp(word) >= self.stamp_at(now_ms) {
            return word;
        }
        self.word(now_ms, &self.current(word, now_ms))
    }

    #[inline]
    fn stamp(&self, word: u64) -> u64 {
        word >> self.stamp_shift
    }

    /// Returns the stamp of a moment, at most the largest stamp of a tally. The one after it marks
    /// reservations.
    #[inline]
    fn stamp_at(&self, now_ms: u64) -> u64 {
        (now_ms / self.unit_ms).min((u64::MAX >> self.stamp_shift) - 1)
    }

    /// Returns whether two stamps are in the same window of `index`.
    #[inline]
    fn is_same(&self, index: usize, one: u64, other: u64) -> bool {
        if one == other {
            return true;
        }
        if self.is_calendar(index) {
            return self.is_same_calendar(index, one, other);
        }
        one / self.ratios[index] == other / self.ratios[index]
    }

    #[cold]
    fn is_same_calendar(&self, index: usize, one: u64, other: u64) -> bool {
        let end = |stamp: u64| self.calendar_end_ms(index, stamp.saturating_mul(self.unit_ms));
        end(one) == end(other)
    }

    fn is_calendar(&self, index: usize) -> bool {
        self.windows().get(index).is_some_and(|window| window.is_calendar())
    }

    /// Returns the end of the week or month at `index` that contains a moment. Core computes it: as
    /// the time at which an unused tally of that moment resets.
    fn calendar_end_ms(&self, index: usize, now_ms: u64) -> u64 {
        let now = Timestamp::from_unix_ms(now_ms);
        let state = decide::quotas(&self.layout, &self.limits, 0, now);
        state.get(index).map_or(0, |state| state.reset_unix_s.saturating_mul(1000))
    }
}

/// Takes `cost` credits of every window, or of none. Returns the next word; `None` if a window that
/// is current lacks credits or a window is void. The stamp stays, so a spender never moves it.
#[inline]
pub fn spend(layout: &CreditLayout, word: u64, now_ms: u64, cost: u32) -> Option<u64> {
    let (held, present) = (layout.stamp(word), layout.stamp_at(now_ms));
    let fits = (0..layout.len).all(|index| {
        let is_current = held >= present || layout.is_same(index, held, present);
        let credits = if is_current { layout.units(word, index) } else { 0 };
        credits >= cost
    });
    fits.then(|| word - u64::from(cost) * layout.one_each)
}

/// Takes at most `cost` credits, the same number of every window. Returns the next word, and how
/// many it took.
pub fn spend_up_to(layout: &CreditLayout, word: u64, now_ms: u64, cost: u32) -> (u64, u32) {
    let credits = layout.current(word, now_ms);
    let spent = credits[..layout.len].iter().fold(cost, |least, &credits| least.min(credits));
    (word - u64::from(spent) * layout.one_each, spent)
}

/// Adds credits to the windows that contained `at_ms` and are current at `now_ms`. Credits of other
/// windows are dropped. The word moves forward to `now_ms`.
pub fn grant(layout: &CreditLayout, word: u64, now_ms: u64, at_ms: u64, units: &Units) -> u64 {
    let time_ms = layout.time_ms(word, now_ms);
    let mut credits = layout.current(word, now_ms);
    for (index, credits) in credits.iter_mut().enumerate().take(layout.len) {
        if layout.is_same_window(index, at_ms, time_ms) {
            *credits = credits.saturating_add(units[index]);
        }
    }
    layout.word(time_ms, &credits)
}

/// Sets the units of the windows that contained `at_ms` and are current at `now_ms`, and keeps
/// those of the other current windows. The word moves forward to `now_ms`.
pub fn set(layout: &CreditLayout, word: u64, now_ms: u64, at_ms: u64, units: &Units) -> u64 {
    let time_ms = layout.time_ms(word, now_ms);
    let mut kept = layout.current(word, now_ms);
    for (index, kept) in kept.iter_mut().enumerate().take(layout.len) {
        if layout.is_same_window(index, at_ms, time_ms) {
            *kept = units[index];
        }
    }
    layout.word(time_ms, &kept)
}

/// Subtracts units from the windows that contained `at_ms`, at most those that they have. The stamp
/// stays.
pub fn deduct(layout: &CreditLayout, word: u64, at_ms: u64, units: &Units) -> u64 {
    let present = layout.units_at(word, at_ms);
    let mut next = word;
    for index in 0..layout.len {
        next -= u64::from(units[index].min(present[index])) << layout.shifts[index];
    }
    next
}

/// Takes at most `units` of each current window. Returns the next word, moved forward to `now_ms`,
/// and what was taken of each window.
pub fn take(layout: &CreditLayout, word: u64, now_ms: u64, units: &Units) -> (u64, Units) {
    let mut credits = layout.current(word, now_ms);
    let mut taken = Units::default();
    for index in 0..layout.len {
        taken[index] = units[index].min(credits[index]);
        credits[index] -= taken[index];
    }
    (layout.word(layout.time_ms(word, now_ms), &credits), taken)
}

/// Returns `cost` credits to the windows in which they were spent at `spent_ms`, if the word still
/// has these windows. The credits of a window never become more than the holding of that window.
/// The stamp stays.
pub fn refund(layout: &CreditLayout, word: u64, holding: u64, spent_ms: u64, cost: u32) -> u64 {
    let spent = layout.stamp_at(spent_ms);
    let mut next = word;
    for index in 0..layout.len {
        let is_of = |word| layout.is_same(index, spent, layout.stamp(word));
        if is_of(word) && is_of(holding) {
            let room = layout.units(holding, index).saturating_sub(layout.units(word, index));
            next += u64::from(cost.min(room)) << layout.shifts[index];
        }
    }
    next
}

/// Returns the lower half of a word.
#[expect(clippy::cast_possible_truncation, reason = "the upper half is dropped on purpose")]
const fn low(word: u64) -> u32 {
    word as u32
}
