//! The tally: one 64-bit word that counts a key's use in all its windows.
//!
//! ```text
//! 64 bits = stamp (time in units of the smallest window) | count of window 1 | … | count of window n
//! ```
//!
//! Windows nest, so the index of every window follows from the one stamp: hour = minute / 60. A
//! sliding window has two counts: the present window's, then the previous one's.
//!
//! A stamp of all ones marks a reservation instead of a tally (see the limiter).

use crate::bits::{Divisor, low};
use crate::quota::{Algorithm, Limits, MAX_QUOTAS, Quota, Window};
use crate::time::{Clock, TOLERANCE_MS, Timestamp};

/// The year 2200 in Unix seconds. A stamp reaches at least this moment.
const STAMP_REACH_S: u64 = 7_258_118_400;

/// The widest count, in bits: limits are `u32`.
const MAX_COUNT_BITS: u32 = 32;

/// The void word, which is not a tally. Read as a tally, it is unused and long expired.
pub(crate) const VOID: u64 = 0;

/// The layout of a tally: its windows, and the positions of its stamp and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    counts: Counts,
    /// One unit in every window's current count.
    one_each: u64,
    stamp_shift: u32,
    /// The first word that is a reservation.
    first_reservation: u64,
    /// The smallest window, in milliseconds.
    unit: Divisor,
    /// Each window's length in units.
    ratios: [Divisor; MAX_QUOTAS],
    /// Each window's length in milliseconds.
    lengths: [Divisor; MAX_QUOTAS],
    /// The tolerance between clocks, in units, rounded up.
    tolerance: u64,
}

/// The part of a layout that reads counts. It is small enough for every verdict to hold a copy, so
/// that a verdict can compute its states on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    windows: [Window; MAX_QUOTAS],
    /// The largest count of each window, which is its mask too; 0 past the last window.
    masks: [u32; MAX_QUOTAS],
    /// The lowest bit of each window's current count. A sliding window's previous count is directly
    /// below it.
    shifts: [u8; MAX_QUOTAS],
    /// Bits of each count; both counts of a sliding window have them.
    bits: [u8; MAX_QUOTAS],
    len: u8,
    algorithm: Algorithm,
}

impl Counts {
    /// Without any window.
    pub(crate) const NONE: Self = Self {
        windows: [Window::SECOND; MAX_QUOTAS],
        masks: [0; MAX_QUOTAS],
        shifts: [0; MAX_QUOTAS],
        bits: [0; MAX_QUOTAS],
        len: 0,
        algorithm: Algorithm::Fixed,
    };

    /// The most windows, with the widest counts.
    #[cfg(test)]
    pub(crate) fn longest(window: Window) -> Self {
        let (windows, masks) = ([window; MAX_QUOTAS], [u32::MAX; MAX_QUOTAS]);
        Self { windows, masks, len: 4, ..Self::NONE }
    }

    /// Returns the number of windows.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len).min(MAX_QUOTAS)
    }

    #[inline]
    pub(crate) fn window(&self, index: usize) -> Window {
        self.windows[index]
    }

    /// Returns the limit of the window at `index`, at most what its count can hold, so that a sum
    /// never overflows into the next field.
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
        match self.algorithm {
            Algorithm::Fixed => 0,
            Algorithm::Sliding => {
                low(word.wrapping_shr(self.previous_shift(index))) & self.masks[index]
            }
        }
    }

    #[inline]
    fn previous_shift(&self, index: usize) -> u32 {
        u32::from(self.shifts[index] - self.bits[index])
    }

    /// Returns the units that count against the limit of the window at `index`, at a moment within
    /// the unit of the word's stamp.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    #[cfg_attr(not(target_pointer_width = "64"), inline)]
    pub(crate) fn used(&self, word: u64, index: usize, time_ms: u64) -> u32 {
        let length = self.windows[index].ms();
        self.used_by(word, index, time_ms, length, |number| number / length)
    }

    /// Returns the units that count against the limit, with a function that divides by the window's
    /// length.
    ///
    /// The previous count is weighted by the part of its window that overlaps the last full window
    /// length, and rounded up, so that a fraction never admits more. A count has at most 32 bits
    /// and a window at most 2^31.4 milliseconds, so the product fits.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn used_by(
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

    /// Returns whether the previous window counts too.
    #[inline]
    pub(crate) fn slides(&self) -> bool {
        self.algorithm == Algorithm::Sliding
    }

    /// Returns whether units in the window at `index` will also count in the next one.
    #[inline]
    pub(crate) fn lasts(&self, word: u64, index: usize) -> bool {
        self.slides() && self.current(word, index) > 0
    }
}

impl Layout {
    /// The layout for `quotas`, which are sorted and nested. Spare bits go to the counts, so that
    /// limits can be raised in index.
    ///
    /// # Errors
    /// The bits needed, when that is more than 64.
    pub(crate) fn new(algorithm: Algorithm, quotas: &[Quota]) -> Result<Self, u32> {
        let unit_s = u64::from(quotas[0].window.seconds());
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

    /// The layout of an existing table; `None` if no table has it.
    pub(crate) fn from_parts(
        algorithm: Algorithm,
        lengths: &[Window],
        bits: [u8; MAX_QUOTAS],
    ) -> Option<Self> {
        let total =
            bits.iter().map(|&bits| u32::from(bits)).sum::<u32>() * counts_per_window(algorithm);
        let stamp_bits = u64::BITS.checked_sub(total)?;
        // A reservation needs its ticket below the stamp, and a stamp must reach past the longest
        // window.
        if total < TICKET_BITS || stamp_bits < 12 {
            return None;
        }
        Self::with_stamp_bits(algorithm, lengths, bits, stamp_bits)
    }

    /// A layout with a stamp of `stamp_bits`, for tests that compare the decision with a model on
    /// every word.
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

    /// A layout with a stamp of `stamp_bits`, the counts right below it, and zeros below those. The
    /// layouts of tables come from a policy or a header and leave no bit over.
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
        let nested = lengths
            .windows(2)
            .all(|pair| pair[0] < pair[1] && pair[1].seconds().is_multiple_of(pair[0].seconds()));
        let used = &bits[..lengths.len()];
        let fitting = used.iter().all(|&bits| bits >= 1 && u32::from(bits) <= MAX_COUNT_BITS)
            && bits[lengths.len()..].iter().all(|&bits| bits == 0);
        let total =
            used.iter().map(|&bits| u32::from(bits)).sum::<u32>() * counts_per_window(algorithm);
        let stamp_shift = u64::BITS.checked_sub(stamp_bits)?;
        if !nested || !fitting || stamp_bits == 0 || total > stamp_shift {
            return None;
        }
        // No time that is computed from the last stamp may exceed 64 bits of milliseconds.
        let longest = lengths[lengths.len() - 1];
        let tolerance = TOLERANCE_MS.div_ceil(first.ms());
        let units = (1u128 << stamp_bits) + u128::from(tolerance);
        let reach = units * u128::from(first.ms()) + 3 * u128::from(longest.ms());
        if reach > u128::from(u64::MAX) {
            return None;
        }
        let (mut shifts, mut masks, mut one_each) = ([0; MAX_QUOTAS], [0; MAX_QUOTAS], 0);
        let mut shift = stamp_shift;
        for (index, &bits) in used.iter().enumerate() {
            shift -= u32::from(bits);
            shifts[index] = u8::try_from(shift).ok()?;
            masks[index] = u32::MAX >> (MAX_COUNT_BITS - u32::from(bits));
            one_each |= 1u64 << shift;
            if algorithm == Algorithm::Sliding {
                shift -= u32::from(bits);
            }
        }
        let ratios =
            windows.map(|window| Divisor::new(u64::from(window.seconds() / first.seconds())));
        let lengths = windows.map(|window| Divisor::new(window.ms()));
        let unit = Divisor::new(first.ms());
        let counts = Counts { windows, masks, shifts, bits, len, algorithm };
        let first_reservation = (u64::MAX >> stamp_shift) << stamp_shift;
        Some(Self {
            counts,
            one_each,
            stamp_shift,
            first_reservation,
            unit,
            ratios,
            lengths,
            tolerance,
        })
    }

    /// Returns how the windows count.
    pub fn algorithm(&self) -> Algorithm {
        self.counts.algorithm
    }

    /// Returns the part that reads counts.
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

    /// Returns the number of bits of each count, 0 past the last window.
    pub(crate) fn bits(&self) -> [u8; MAX_QUOTAS] {
        self.counts.bits
    }

    /// Returns the largest limit that the window at `index` can count: how far its limit can be
    /// raised without a new layout.
    pub fn max_limit(&self, index: usize) -> u32 {
        self.counts.masks[index]
    }

    /// Returns what [`Counts::used`] returns, without a division.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(crate) fn used(&self, word: u64, index: usize, time_ms: u64) -> u32 {
        let length = self.lengths[index];
        self.counts.used_by(word, index, time_ms, length.value(), |number| length.divide(number))
    }

    /// Returns the stamp of a moment. The largest value is for reservations, so time stops at the
    /// one before it.
    #[inline]
    pub(crate) fn stamp_at(&self, now: Timestamp) -> u64 {
        self.unit.divide(now.unix_ms()).min(self.last_stamp())
    }

    /// Returns the stamp at which time stops.
    #[inline]
    pub(crate) fn last_stamp(&self) -> u64 {
        self.reservation_stamp() - 1
    }

    /// Returns the moment, in Unix milliseconds, at which a stamp begins.
    #[inline]
    pub(crate) fn stamp_start_ms(&self, stamp: u64) -> u64 {
        stamp * self.unit.value()
    }

    /// Returns whether a moment is within the unit of a tally's stamp.
    #[inline]
    pub(crate) fn is_within(&self, word: u64, now: Timestamp) -> bool {
        // All stamps of a layout begin within 64 bits of milliseconds. The difference of a moment
        // before the unit wraps to a large number.
        let start = self.stamp(word).wrapping_mul(self.unit.value());
        now.unix_ms().wrapping_sub(start) < self.unit.value() && !self.is_reservation(word)
    }

    /// Returns whether the fast path may decide on a word at this reading. If the word is ahead of
    /// a system clock's reading, the slow path must read the clock again.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(crate) fn is_due<C: Clock>(&self, word: u64, now: Timestamp) -> bool {
        // The decision calls `is_within` too, so this is free if it holds.
        !C::IS_SYSTEM || self.is_within(word, now) || self.ahead_ms(word, now) == 0
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
        self.ratios[index].divide(stamp)
    }

    /// Returns the tally with this stamp and all counts 0.
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
        word + u64::from(cost) * self.one_each
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

    /// Returns the word at a later stamp. Windows that have passed count nothing. In a sliding
    /// window, the count of the window before the present one becomes the previous count.
    pub(crate) fn rolled(&self, word: u64, stamp: u64) -> u64 {
        let (held, counts) = (self.stamp(word), &self.counts);
        let mut rolled = self.unused(stamp);
        for index in 0..self.len() {
            let passed = self.window_index(index, stamp) - self.window_index(index, held);
            let (current, previous) = match passed {
                0 => (counts.current(word, index), counts.previous(word, index)),
                1 if counts.algorithm == Algorithm::Sliding => (0, counts.current(word, index)),
                _ => (0, 0),
            };
            rolled |= u64::from(current) << counts.shifts[index];
            if counts.algorithm == Algorithm::Sliding {
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

    /// Returns whether all windows that a word counts in have passed, for every clock that is late
    /// by at most [`TOLERANCE_MS`]. The slot can then be reassigned.
    ///
    /// If a slot were reused as soon as its windows passed, a caller with a late clock would not
    /// find its subject and would start a new count in the old window.
    #[inline]
    pub fn is_reusable(&self, word: u64, now: Timestamp) -> bool {
        // No window passes before the unit of the stamp does, so most often this comparison
        // decides.
        let earliest = self.stamp_start_ms(self.stamp(word) + self.tolerance + 1);
        word == VOID
            || (now.unix_ms() >= earliest && self.stamp_at(now) >= self.reusable_from(word))
    }

    /// Returns the first stamp at which the slot of `word` can be reused.
    pub(crate) fn reusable_from(&self, word: u64) -> u64 {
        let windows = match self.algorithm() {
            Algorithm::Fixed => 1,
            Algorithm::Sliding => 2,
        };
        let longest = self.len() - 1;
        let passed =
            (self.window_index(longest, self.stamp(word)) + windows) * self.ratios[longest].value();
        passed + self.tolerance
    }

    /// Returns the stamp of reservations: all ones.
    #[inline]
    fn reservation_stamp(&self) -> u64 {
        u64::MAX.wrapping_shr(self.stamp_shift)
    }

    /// Returns the reservation that an inserter exchanges an expired tally for. `ticket` is cut to
    /// [`TICKET_BITS`].
    pub(crate) fn reservation(&self, ticket: u64) -> u64 {
        self.first_reservation | (ticket & ((1 << TICKET_BITS) - 1))
    }

    /// Returns whether a word is a reservation and not a tally.
    #[inline]
    pub(crate) fn is_reservation(&self, word: u64) -> bool {
        word >= self.first_reservation
    }
}

/// Bits of the ticket that distinguishes the reservations of two locks. Four sliding windows of
/// one-second units leave exactly this many bits below the stamp.
pub(crate) const TICKET_BITS: u32 = 24;

const fn counts_per_window(algorithm: Algorithm) -> u32 {
    match algorithm {
        Algorithm::Fixed => 1,
        Algorithm::Sliding => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn layout(text: &str) -> Layout {
        *text.parse::<Policy>().unwrap().layout()
    }

    #[test]
    fn spare_bits_go_to_the_counts() {
        let layout = layout("100/minute, 1000/hour");
        assert_eq!(layout.stamp_bits(), 27);
        assert_eq!(layout.count_bits(), [17, 20]);
        assert_eq!(layout.max_limit(1), (1 << 20) - 1);
    }

    #[test]
    fn counts_roll_with_their_windows() {
        let layout = layout("sliding 5/10s, 50/100s");
        let of = *layout.counts();
        let counts = |word| [0, 1].map(|index| (of.current(word, index), of.previous(word, index)));
        let word = layout.charged(layout.unused(123_459), 3);
        assert_eq!((layout.stamp(word), counts(word)), (123_459, [(3, 0), (3, 0)]));
        let later = layout.charged(layout.rolled(word, 123_460), 2);
        assert_eq!(counts(later), [(2, 3), (2, 3)]);
        assert_eq!(counts(layout.rolled(later, 123_461)), [(0, 2), (2, 3)]);
        assert_eq!(counts(layout.rolled(later, 123_462)), [(0, 0), (2, 3)]);
        assert_eq!(counts(layout.rolled(later, 123_480)), [(0, 0), (0, 0)]);
        assert_eq!(counts(layout.given_back(later, 1, true, 3)), [(2, 3), (2, 0)]);
    }

    #[test]
    fn time_stops_before_the_reservation_stamp() {
        let layout = layout("100/minute, 1000/hour");
        let last = layout.stamp_at(Timestamp::from_unix_ms(u64::MAX));
        assert_eq!(last, (1 << 27) - 2);
        assert!(!layout.is_reservation(layout.unused(last) | ((1 << 37) - 1)));
        assert!(layout.is_reservation(layout.reservation(u64::MAX)));
        // 24 bits of a ticket distinguish reservations.
        for ticket in [1, 2, 3, 5, 1 << 12, (1 << 23) + 1] {
            assert_eq!(layout.reservation(ticket), layout.reservation(ticket + (1 << 24)));
            assert_ne!(layout.reservation(ticket), layout.reservation(ticket + 2));
            assert_ne!(layout.reservation(ticket), layout.reservation(ticket - 1));
        }
    }

    #[test]
    fn the_tightest_layout_still_has_room_for_a_ticket() {
        let layout = layout("sliding 7/second, 7/minute, 7/hour, 7/day");
        assert_eq!(u64::BITS - layout.stamp_bits(), TICKET_BITS);
    }

    #[test]
    fn a_slot_is_kept_a_minute_longer_than_its_tally() {
        let layout = layout("100/minute, 1000/hour");
        let hour = 3_600_000;
        let word = layout.charged(layout.unused(59), 1);
        assert!(!layout.is_reusable(word, Timestamp::from_unix_ms(hour + 59_999)));
        assert!(layout.is_reusable(word, Timestamp::from_unix_ms(hour + 60_000)));
    }

    #[test]
    fn layouts_that_no_policy_has_are_refused() {
        let minute = Window::from_seconds(60).unwrap();
        let hour = Window::from_seconds(3600).unwrap();
        let parts = |windows: &[Window], bits| {
            Layout::from_parts(Algorithm::Fixed, windows, bits).is_some()
        };
        assert!(parts(&[minute, hour], [17, 20, 0, 0]));
        assert!(!parts(&[hour, minute], [17, 20, 0, 0]));
        assert!(!parts(&[minute, hour], [33, 20, 0, 0]));
        assert!(!parts(&[minute, hour], [17, 0, 0, 0]));
        assert!(!parts(&[minute, hour], [17, 20, 1, 0]));
        assert!(!parts(&[minute, hour], [30, 30, 0, 0]));
        assert!(!parts(&[minute, hour], [7, 10, 0, 0]));
        assert!(!parts(&[], [0; 4]));
        let ninety = Window::from_seconds(90).unwrap();
        assert!(!parts(&[minute, ninety], [17, 20, 0, 0]), "not nested");
        assert!(!parts(&[minute, minute], [17, 20, 0, 0]), "one window twice");
        assert!(!parts(&[minute, hour], [33, 4, 0, 0]), "a count wider than a limit can be");
        assert!(!parts(&[minute, hour], [30, 0, 0, 0]), "a window without a count");
    }

    #[test]
    fn a_layout_has_room_for_its_stamp_and_all_its_counts() {
        let minute = Window::from_seconds(60).unwrap();
        let fits = |algorithm, bits, stamp_bits| {
            Layout::with_stamp_bits(algorithm, &[minute], [bits, 0, 0, 0], stamp_bits).is_some()
        };
        assert!(fits(Algorithm::Fixed, 32, 32) && !fits(Algorithm::Fixed, 32, 33));
        assert!(fits(Algorithm::Sliding, 16, 32) && !fits(Algorithm::Sliding, 17, 32));
        assert!(
            fits(Algorithm::Fixed, 1, 1)
                && !fits(Algorithm::Fixed, 1, 0)
                && !fits(Algorithm::Fixed, 1, 65)
        );
    }

    /// Until 2200 there are 4096 windows of 1,772,002 s, and one more of those that are a second
    /// shorter: 12 bits, with two counts of 26, and 13.
    #[test]
    fn a_stamp_takes_no_bit_more_than_it_needs() {
        assert_eq!(layout("sliding 67108863/1772002s").stamp_bits(), 12);
        assert!("sliding 67108863/1772001s".parse::<Policy>().is_err());
    }

    /// A month is 2^31.3 ms, so from 2^33 of them on, time no longer fits 64 bits.
    #[test]
    fn no_stamp_reaches_past_64_bits_of_milliseconds() {
        let month = [Window::from_seconds(crate::quota::MAX_WINDOW_S).unwrap()];
        let parts = |bits| Layout::from_parts(Algorithm::Fixed, &month, [bits, 0, 0, 0]);
        assert_eq!(parts(32).map(|layout| layout.stamp_bits()), Some(32));
        assert!(parts(31).is_none());
    }
}
