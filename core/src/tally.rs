//! The tally: one 64-bit word that counts a key's use in all its windows.
//!
//! ```text
//! 64 bits = stamp (in units of time) | count of window 1 | … | count of window n
//! ```
//!
//! The unit is the longest time at whose multiples all windows begin: the greatest common divisor
//! of their lengths, and of a day for weeks and months. So the index of every window follows from
//! the one stamp: with units of a minute, hour = stamp / 60. A sliding window has two counts: the
//! present window's, then the previous one's.
//!
//! A word whose stamp is all ones is not a tally but a *reservation*: the word of a limiter's slot
//! that is being given to another subject (`limiter.rs`), or a gate's tally that was *sealed*
//! because its counts move to another gate (`gate/migration.rs`).

pub(crate) use self::counts::Counts;
use self::counts::{CALENDAR, NAMED};
pub(crate) use self::packed_limits::PackedLimits;
use crate::bits::{Divisor, IS_64_BIT, low};
use crate::quota::{Algorithm, Limits, MAX_QUOTAS, Quota};
use crate::time::{Clock, REUSE_DELAY_MS, Timestamp};
use crate::window::Window;

mod counts;
mod packed_limits;

/// The year 2200 in Unix seconds. A stamp reaches at least this moment.
const STAMP_REACH_S: u64 = 7_258_118_400;

/// The widest count, in bits: limits are `u32`.
const MAX_COUNT_BITS: u32 = 32;

/// The word of a record or slot that was never charged, and the tombstone of a limiter's slot. As a
/// tally, it has no counts, and all its windows passed long ago.
pub(crate) const EMPTY: u64 = 0;

/// The layout of a tally: its windows, and the positions of its stamp and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    counts: Counts,
    /// The word that adds one unit to every window's current count.
    one_each: u64,
    /// The position of the stamp's lowest bit.
    stamp_shift: u32,
    /// The smallest word that is a reservation.
    first_reservation: u64,
    /// The unit of the stamp in milliseconds.
    unit: Divisor,
    /// Each window's length in units; without meaning for weeks and months.
    ratios: [Divisor; MAX_QUOTAS],
    /// Each window's length in milliseconds, if the windows slide; otherwise without meaning.
    lengths: [Divisor; MAX_QUOTAS],
    /// Whether it is known that every window lies within one window of the longest kind, which
    /// therefore ends last.
    is_nested: bool,
}

impl Layout {
    /// The layout for `quotas`, which are sorted. Spare bits go to the counts, so that
    /// limits can be raised in an existing table.
    ///
    /// # Errors
    /// The number of bits that are needed, if it is more than 64.
    pub(crate) fn new(algorithm: Algorithm, quotas: &[Quota]) -> Result<Self, u32> {
        let unit_s = u64::from(unit_s(quotas.iter().map(|quota| quota.window)));
        let stamp = u64::BITS - (STAMP_REACH_S.div_ceil(unit_s) - 1).leading_zeros();
        let counts_per_window = counts_per_window(algorithm);
        let mut needs = [0; MAX_QUOTAS];
        for (need, quota) in needs.iter_mut().zip(quotas) {
            *need = u32::BITS - quota.limit.leading_zeros();
        }
        let needed = stamp + needs.iter().sum::<u32>() * counts_per_window;
        if needed > u64::BITS {
            return Err(needed);
        }
        let counts = u32::try_from(quotas.len()).unwrap_or(u32::MAX) * counts_per_window;
        let share = (u64::BITS - needed) / counts;
        let mut windows = [quotas[0].window; MAX_QUOTAS];
        let mut bits = [0; MAX_QUOTAS];
        for (index, quota) in quotas.iter().enumerate() {
            windows[index] = quota.window;
            bits[index] = u8::try_from((needs[index] + share).min(MAX_COUNT_BITS)).unwrap_or(0);
        }
        Self::from_parts(algorithm, &windows[..quotas.len()], bits).ok_or(needed)
    }

    /// The layout from the parts that a table's header stores: the windows' lengths and the widths
    /// of their counts. `None` if no policy has such a layout.
    pub(crate) fn from_parts(
        algorithm: Algorithm,
        lengths: &[Window],
        bits: [u8; MAX_QUOTAS],
    ) -> Option<Self> {
        let total =
            bits.iter().map(|&bits| u32::from(bits)).sum::<u32>() * counts_per_window(algorithm);
        let stamp_bits = u64::BITS.checked_sub(total)?;
        // A reservation needs its ticket below the stamp. No policy has a stamp of fewer than 12
        // bits, which are enough for units of 31 days, the longest window.
        if total < TICKET_BITS || stamp_bits < 12 {
            return None;
        }
        Self::with_stamp_bits(algorithm, lengths, bits, stamp_bits)
    }

    /// A layout with a stamp of `stamp_bits`, for tests that compare the decision on every word
    /// with a model.
    #[cfg(feature = "__models")]
    #[doc(hidden)]
    pub fn for_model(
        algorithm: Algorithm,
        lengths: &[Window],
        bits: [u8; MAX_QUOTAS],
        stamp_bits: u32,
    ) -> Option<Self> {
        Self::with_stamp_bits(algorithm, lengths, bits, stamp_bits)
    }

    /// A layout with a stamp of `stamp_bits`, the counts directly below it, and unused bits below
    /// the counts. Only layouts for models have unused bits.
    fn with_stamp_bits(
        algorithm: Algorithm,
        lengths: &[Window],
        bits: [u8; MAX_QUOTAS],
        stamp_bits: u32,
    ) -> Option<Self> {
        let first = *lengths.first()?;
        let len = u8::try_from(lengths.len()).ok()?;
        let mut windows = [first; MAX_QUOTAS];
        windows.get_mut(..lengths.len())?.copy_from_slice(lengths);
        let sorted = lengths.windows(2).all(|pair| pair[0] < pair[1]);
        let has_calendar = lengths.iter().any(|window| window.is_calendar());
        let slides_evenly = !algorithm.slides() || !has_calendar;
        let used = &bits[..lengths.len()];
        let widths_valid = used.iter().all(|&bits| bits >= 1 && u32::from(bits) <= MAX_COUNT_BITS)
            && bits[lengths.len()..].iter().all(|&bits| bits == 0);
        let total =
            used.iter().map(|&bits| u32::from(bits)).sum::<u32>() * counts_per_window(algorithm);
        let stamp_shift = u64::BITS.checked_sub(stamp_bits)?;
        if !sorted || !slides_evenly || !widths_valid || stamp_bits == 0 || total > stamp_shift {
            return None;
        }
        // Every time that is computed from the last stamp must fit in 64 bits of milliseconds: the
        // start of the stamp after it, plus the delay of reuse and three of the longest windows.
        let unit_s = unit_s(lengths.iter().copied());
        let unit_ms = u64::from(unit_s) * 1000;
        let longest = lengths[lengths.len() - 1];
        // On small targets, the code that finds this out is longer than that which it saves.
        let is_nested = IS_64_BIT && lengths.iter().all(|window| window.nests_in(longest));
        let last_stamp = u64::MAX >> stamp_shift;
        if last_stamp >= (u64::MAX - REUSE_DELAY_MS - 3 * longest.ms()) / unit_ms {
            return None;
        }
        let (mut shifts, mut masks, mut one_each) = ([0; MAX_QUOTAS], [0; MAX_QUOTAS], 0);
        let mut shift = stamp_shift;
        let mut described = 0;
        for (index, &bits) in used.iter().enumerate() {
            if windows[index].is_at_most_a_day() {
                described = u8::try_from(index).ok()?;
            }
            shift -= u32::from(bits);
            shifts[index] = u8::try_from(shift).ok()?;
            masks[index] = u32::MAX >> (MAX_COUNT_BITS - u32::from(bits));
            one_each |= 1u64 << shift;
            if algorithm.slides() {
                shift -= u32::from(bits);
            }
        }
        let unit = Divisor::new(low(unit_ms));
        let (mut ratios, mut lengths) = ([unit; MAX_QUOTAS], [unit; MAX_QUOTAS]);
        for (index, window) in windows.iter().enumerate() {
            ratios[index] = Divisor::new(window.seconds() / unit_s);
            if algorithm.slides() {
                lengths[index] = Divisor::new(low(window.ms()));
            }
        }
        let marks = if has_calendar { CALENDAR } else { 0 };
        let counts = Counts { windows, masks, shifts, bits, len, described, marks, algorithm };
        let first_reservation = last_stamp << stamp_shift;
        Some(Self {
            counts,
            one_each,
            stamp_shift,
            first_reservation,
            unit,
            ratios,
            lengths,
            is_nested,
        })
    }

    /// The layout of tallies of the same table that count some of the windows, those that `keep`
    /// returns true for by their index. `None` if that is none.
    ///
    /// The stamp and each count are at the same positions, so the time at which a slot can be
    /// reused follows from this layout too.
    pub(crate) fn only(&self, keep: impl Fn(usize) -> bool) -> Option<Self> {
        let mut only = *self;
        let (from, to) = (&self.counts, &mut only.counts);
        (to.len, to.described, to.marks, only.one_each) = (0, 0, 0, 0);
        for index in (0..self.len()).filter(|&index| keep(index)) {
            let at = usize::from(to.len);
            let window = from.windows[index];
            (to.windows[at], to.masks[at]) = (window, from.masks[index]);
            (to.shifts[at], to.bits[at]) = (from.shifts[index], from.bits[index]);
            (only.ratios[at], only.lengths[at]) = (self.ratios[index], self.lengths[index]);
            if window.is_calendar() {
                to.marks |= CALENDAR;
            }
            if window.is_at_most_a_day() {
                to.described = to.len;
            }
            only.one_each |= 1 << from.shifts[index];
            to.len += 1;
        }
        // It is not known of these windows.
        only.is_nested = false;
        (to.len > 0).then_some(only)
    }

    /// Names the window at `index` as the one that the fields `X-RateLimit-*` describe.
    pub(crate) fn name_described(&mut self, index: usize) {
        if index < self.len() {
            self.counts.described = u8::try_from(index).unwrap_or(0);
            self.counts.marks |= NAMED;
        }
    }

    /// Returns the algorithm by which the windows count.
    pub fn algorithm(&self) -> Algorithm {
        if self.counts.slides() { Algorithm::Sliding } else { Algorithm::Fixed }
    }

    /// Returns the part of the layout that reads counts.
    #[inline]
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the windows, shortest first.
    pub fn windows(&self) -> &[Window] {
        &self.counts.windows[..self.len()]
    }

    /// Returns the number of windows, 1 to [`MAX_QUOTAS`].
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Returns the number of bits of the stamp.
    pub fn stamp_bits(&self) -> u32 {
        u64::BITS - self.stamp_shift
    }

    /// Returns the number of bits of each window's count, shortest window first.
    pub fn count_bits(&self) -> &[u8] {
        &self.counts.bits[..self.len()]
    }

    /// Returns the number of each window, 0 past the last window.
    pub(crate) fn window_numbers(&self) -> [u32; MAX_QUOTAS] {
        let mut numbers = [0; MAX_QUOTAS];
        for (number, window) in numbers.iter_mut().zip(self.windows()) {
            *number = window.number();
        }
        numbers
    }

    /// Returns the number of bits of each count, 0 past the last window.
    pub(crate) fn bits(&self) -> [u8; MAX_QUOTAS] {
        self.counts.bits
    }

    /// Returns the largest limit of the window at `index` for which this layout has room; `None` if
    /// the layout has no such window.
    pub fn max_limit(&self, index: usize) -> Option<u32> {
        self.counts.masks[..self.len()].get(index).copied()
    }

    /// Returns the largest limit of every window.
    pub fn largest_limits(&self) -> Limits {
        Limits(self.counts.masks)
    }

    /// Returns the units that count against the limit of the window at `index`, as
    /// [`Counts::used`] does, without a division instruction.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(crate) fn used(&self, word: u64, index: usize, time_ms: u64) -> u32 {
        let length = self.lengths[index];
        self.counts.used_by(word, index, time_ms, length.value(), |number| length.divide(number))
    }

    /// Returns the stamp of a moment. The largest stamp is that of reservations, so from its start
    /// on, every moment has the stamp before it.
    #[inline]
    pub(crate) fn stamp_at(&self, now: Timestamp) -> u64 {
        self.unit.divide(now.unix_ms()).min(self.last_stamp())
    }

    /// Returns the last stamp of a tally, which all later moments have too.
    #[inline]
    pub(crate) fn last_stamp(&self) -> u64 {
        self.reservation_stamp() - 1
    }

    /// Returns the moment, in Unix milliseconds, at which a stamp begins.
    #[inline]
    pub(crate) fn stamp_start_ms(&self, stamp: u64) -> u64 {
        stamp * self.unit.value()
    }

    /// Returns whether a moment is within the unit that a tally's stamp names.
    #[inline]
    pub(crate) fn is_within(&self, word: u64, now: Timestamp) -> bool {
        // The start of every stamp fits in 64 bits of milliseconds. For a moment before it, the
        // difference wraps around to a large number.
        let start = self.stamp(word).wrapping_mul(self.unit.value());
        now.unix_ms().wrapping_sub(start) < self.unit.value() && !self.is_reservation(word)
    }

    /// Returns whether the fast path may decide on a word at this reading of the clock. If the word
    /// is ahead of a system clock's reading, the slow path must read the clock again.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(crate) fn is_decidable<C: Clock>(&self, word: u64, now: Timestamp) -> bool {
        // The decision calls `is_within` too, so the compiler evaluates it once. A sealed word is
        // ahead of every system clock.
        self.is_within(word, now)
            || if C::IS_SYSTEM { self.ahead_ms(word, now) == 0 } else { !self.is_reservation(word) }
    }

    /// Returns by how many milliseconds a word's stamp is ahead of a moment.
    #[inline]
    pub(crate) fn ahead_ms(&self, word: u64, now: Timestamp) -> u64 {
        self.stamp_start_ms(self.stamp(word)).saturating_sub(now.unix_ms())
    }

    /// Returns the stamp of a word.
    #[inline]
    pub(crate) fn stamp(&self, word: u64) -> u64 {
        word.wrapping_shr(self.stamp_shift)
    }

    /// Returns the number, since the epoch, of the window at `index` that a stamp is in.
    #[inline]
    pub(crate) fn window_index(&self, index: usize, stamp: u64) -> u64 {
        if self.counts.window(index).is_calendar() {
            return self.calendar_index(index, stamp);
        }
        self.ratios[index].divide(stamp)
    }

    #[inline(never)]
    fn calendar_index(&self, index: usize, stamp: u64) -> u64 {
        self.counts.window(index).index_at(self.stamp_start_ms(stamp) / 1000)
    }

    /// Returns the tally of this stamp whose counts are all 0.
    #[inline]
    pub(crate) fn unused(&self, stamp: u64) -> u64 {
        stamp << self.stamp_shift
    }

    /// Returns the word with `cost` added to every window's current count. Each must have room for
    /// it.
    #[inline]
    pub(crate) fn charged(&self, word: u64, cost: u32) -> u64 {
        debug_assert!(
            (0..self.len())
                .all(|index| cost <= self.counts.masks[index] - self.counts.current(word, index))
        );
        word + self.charge(cost)
    }

    /// Returns the word that adds `cost` to every window's current count. `cost` must fit in each.
    #[inline]
    pub(crate) fn charge(&self, cost: u32) -> u64 {
        u64::from(cost) * self.one_each
    }

    /// Returns the word with `cost` subtracted from the current or the previous count of the window
    /// at `index`. The count must be at least `cost`.
    pub(crate) fn given_back(&self, word: u64, index: usize, previous: bool, cost: u32) -> u64 {
        let shift = if previous {
            self.counts.previous_shift(index)
        } else {
            self.counts.shifts[index].into()
        };
        word - (u64::from(cost) << shift)
    }

    /// Returns the word at a later stamp. Counts of windows that have passed are 0. If a sliding
    /// window has passed and the next one has not, its current count becomes the previous count.
    pub(crate) fn rolled(&self, word: u64, stamp: u64) -> u64 {
        let (held, counts) = (self.stamp(word), &self.counts);
        let mut rolled = self.unused(stamp);
        for index in 0..self.len() {
            let passed = self.window_index(index, stamp) - self.window_index(index, held);
            let (current, previous) = match passed {
                0 => (counts.current(word, index), counts.previous(word, index)),
                1 if counts.slides() => (0, counts.current(word, index)),
                _ => (0, 0),
            };
            rolled |= u64::from(current) << counts.shifts[index];
            if counts.slides() {
                rolled |= u64::from(previous) << counts.previous_shift(index);
            }
        }
        rolled
    }

    /// Returns the word with another stamp and the same counts.
    pub(crate) fn with_stamp(&self, word: u64, stamp: u64) -> u64 {
        let counts = (1u64 << self.stamp_shift) - 1;
        self.unused(stamp) | (word & counts)
    }

    /// Returns whether a limiter may reuse the slot of a word: all its windows have passed, also by
    /// a clock that is late by less than 1 s.
    ///
    /// If a slot were reused as soon as its windows passed, a caller with a late clock would not
    /// find its subject and would start a new count in the old window.
    #[inline]
    pub fn is_reusable(&self, word: u64, now: Timestamp) -> bool {
        // Each window is at least one unit long. For most words, this comparison therefore decides.
        let earliest = self.stamp_start_ms(self.stamp(word) + 1) + REUSE_DELAY_MS;
        word == EMPTY || (now.unix_ms() >= earliest && self.has_expired(word, now))
    }

    /// Returns whether `now` is at least the time of [`reusable_from`](Self::reusable_from).
    ///
    /// The windows of the last stamp never pass, because all later moments have that stamp too.
    fn has_expired(&self, word: u64, now: Timestamp) -> bool {
        let end = self.expiry(word);
        end <= self.last_stamp() && now.unix_ms() >= self.stamp_start_ms(end) + REUSE_DELAY_MS
    }

    /// Returns whether a slot with this word is kept at least until all windows of `now` have
    /// passed.
    pub(crate) fn is_kept(&self, word: u64, now: Timestamp) -> bool {
        word != EMPTY && self.expiry(word) >= self.expiry(self.unused(self.stamp_at(now)))
    }

    /// Returns the position of the count of the window at `index` in a word, in bits; `None` past
    /// the last window.
    pub fn count_shift(&self, index: usize) -> Option<u32> {
        self.counts.shifts.get(..self.len())?.get(index).copied().map(u32::from)
    }

    /// Returns the length of a unit of the stamp in milliseconds. All windows begin at multiples of
    /// it.
    pub fn stamp_unit_ms(&self) -> u64 {
        self.stamp_start_ms(1)
    }

    /// Returns the first moment at which the slot of `word` can be reused.
    pub(crate) fn reusable_from(&self, word: u64) -> Timestamp {
        Timestamp::from_unix_ms(self.stamp_start_ms(self.expiry(word)) + REUSE_DELAY_MS)
    }

    /// Returns the first stamp at which no window counts a charge of `word`.
    fn expiry(&self, word: u64) -> u64 {
        let windows = match self.algorithm() {
            Algorithm::Fixed => 1,
            Algorithm::Sliding => 2,
        };
        let longest = self.len() - 1;
        let first = if self.is_nested { longest } else { 0 };
        let ends = (first..=longest).map(|index| self.end(index, self.stamp(word), windows));
        ends.fold(0, u64::max)
    }

    /// Returns the stamp at which the window of `stamp` and those after it have passed, `windows`
    /// in all.
    fn end(&self, index: usize, stamp: u64, windows: u64) -> u64 {
        let window = self.counts.window(index);
        if window.is_calendar() {
            let end_s = window.end_s(self.stamp_start_ms(stamp) / 1000, windows - 1);
            return self.unit.divide(end_s * 1000);
        }
        (self.window_index(index, stamp) + windows) * self.ratios[index].value()
    }

    /// Returns the stamp of reservations: all ones.
    #[inline]
    fn reservation_stamp(&self) -> u64 {
        u64::MAX.wrapping_shr(self.stamp_shift)
    }

    /// Returns the reservation with this ticket, of which the lowest [`TICKET_BITS`] bits count. A
    /// limiter exchanges a slot's expired tally for it.
    pub(crate) fn reservation(&self, ticket: u64) -> u64 {
        self.first_reservation | (ticket & ((1 << TICKET_BITS) - 1))
    }

    /// Returns the word that seals a tally: its stamp is that of reservations, and its counts
    /// remain.
    pub(crate) fn sealed(&self, word: u64) -> u64 {
        self.first_reservation | word
    }

    /// Returns the tally that has the counts of these words in all windows that both layouts have.
    /// Windows that none of them has begin with 0.
    ///
    /// Its stamp is that of the latest word. A count above the largest value of this layout becomes
    /// that value, which is at least the limit.
    pub(crate) fn carried<'l>(&self, words: impl Iterator<Item = (&'l Self, u64)> + Clone) -> u64 {
        let is_shared = |from: &Self| from.windows().iter().any(|it| self.windows().contains(it));
        let sources = words.filter(|(from, _)| is_shared(from));
        if let Some((_, word)) = sources.clone().find(|(from, _)| from.has_counts_of(self)) {
            return word;
        }
        let starts = sources.clone().map(|(from, word)| from.stamp_start_ms(from.stamp(word)));
        let at = Timestamp::from_unix_ms(starts.fold(0, u64::max));
        let mut carried = self.unused(self.stamp_at(at));
        for (from, word) in sources {
            let word = from.rolled(word, from.stamp_at(at));
            for (index, window) in self.windows().iter().enumerate() {
                let Some(its) = from.windows().iter().position(|other| other == window) else {
                    continue;
                };
                let count = |count: u32| u64::from(count.min(self.counts.masks[index]));
                carried |= count(from.counts.current(word, its)) << self.counts.shifts[index];
                if self.counts.slides() {
                    let previous = count(from.counts.previous(word, its));
                    carried |= previous << self.counts.previous_shift(index);
                }
            }
        }
        carried
    }

    /// Returns whether a word has the same meaning in both layouts.
    pub(crate) fn has_counts_of(&self, other: &Self) -> bool {
        (self.windows(), self.algorithm(), self.bits())
            == (other.windows(), other.algorithm(), other.bits())
    }

    /// Returns whether a word is a reservation and not a tally.
    #[inline]
    pub(crate) fn is_reservation(&self, word: u64) -> bool {
        word >= self.first_reservation
    }
}

/// Bits of the ticket, a number that distinguishes reservations by the lock under which they were
/// made. The narrowest counts of a policy, twice three bits for each of four sliding windows, take
/// exactly this many bits below the stamp.
pub(crate) const TICKET_BITS: u32 = 24;

/// Returns the unit of the stamp in seconds: the longest at whose multiples all windows begin.
fn unit_s(windows: impl Iterator<Item = Window>) -> u32 {
    windows.fold(0, |unit, window| common_divisor(unit, window.grid_s()))
}

/// Returns the greatest common divisor of two numbers, of which one may be 0.
const fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Returns how many counts the word holds for each window.
const fn counts_per_window(algorithm: Algorithm) -> u32 {
    if algorithm.slides() { 2 } else { 1 }
}

#[cfg(test)]
mod tests;
