//! Windows: lengths of time, weeks and months, and when each begins and ends.
//!
//! A window is one word of 32 bits, as tables and other programs store it:
//!
//! | bits | hold |
//! |---|---|
//! | 0 to 21 | the longest length in seconds |
//! | 22 to 27 | 0 for a length; 1 to 31 for a month that begins on this day; 32 for a week |
//!
//! Windows of a length begin at its whole multiples since the Unix epoch. Weeks begin on Mondays
//! ([ISO 8601]). Months are those of the proleptic Gregorian calendar. All are in UTC, without leap
//! seconds.
//!
//! [ISO 8601]: https://www.iso.org/iso-8601-date-and-time-format.html

use core::cmp::Ordering;
use core::fmt;
use core::num::{NonZeroU32, NonZeroU64};

use crate::bits::IS_64_BIT;
use crate::features::Feature;

/// The longest window, in seconds: 31 days.
pub const MAX_WINDOW_S: u32 = 31 * DAY_S;

/// A day in seconds.
pub(crate) const DAY_S: u32 = 86_400;

/// A window: a length of whole seconds, from 1 to [`MAX_WINDOW_S`], a week or a month.
///
/// ```
/// use keytally_core::Window;
/// assert_eq!(Window::from_seconds(90).unwrap().to_string(), "90s");
/// assert_eq!(Window::WEEK.seconds(), 7 * 86_400);
/// assert_eq!(Window::month(17).unwrap().to_string(), "month");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Window(NonZeroU32);

/// The bits of a window that hold its length.
const LENGTH_BITS: u32 = 22;

/// The part of a window above its length that marks a week. That of a month is its first day.
const WEEK_MARK: u32 = 32;

/// A week in seconds.
const WEEK_S: u64 = 7 * DAY_S as u64;

/// From the Monday before the epoch, which was a Thursday, to the epoch.
const MONDAY_TO_EPOCH_S: u64 = 3 * DAY_S as u64;

impl Window {
    /// The week, from Monday 00:00 UTC to the next.
    pub const WEEK: Self = Self::made_of(7 * DAY_S, WEEK_MARK);

    /// One second.
    pub(crate) const SECOND: Self = Self::made_of(1, 0);

    /// The longest length of time.
    pub(crate) const LONGEST: Self = Self::made_of(MAX_WINDOW_S, 0);

    const fn made_of(seconds: u32, mark: u32) -> Self {
        match NonZeroU32::new(seconds | (mark << LENGTH_BITS)) {
            Some(number) => Self(number),
            None => Self(NonZeroU32::MIN),
        }
    }

    /// A window of `seconds`; `None` if that is 0 or more than [`MAX_WINDOW_S`].
    pub const fn from_seconds(seconds: u32) -> Option<Self> {
        if seconds == 0 || seconds > MAX_WINDOW_S { None } else { Some(Self::made_of(seconds, 0)) }
    }

    /// The month from 00:00 UTC of `day`, 1 to 31, to that day of the next month; `None` for
    /// another day. In a month without this day, it begins on the last one.
    pub const fn month(day: u32) -> Option<Self> {
        if day == 0 || day > 31 { None } else { Some(Self::made_of(MAX_WINDOW_S, day)) }
    }

    /// The window with this [`number`](Self::number); `None` if there is none.
    pub const fn from_number(number: u32) -> Option<Self> {
        let window = match number >> LENGTH_BITS {
            0 => Self::from_seconds(number),
            WEEK_MARK => Some(Self::WEEK),
            day => Self::month(day),
        };
        match window {
            Some(window) if window.number() == number => Some(window),
            _ => None,
        }
    }

    /// Returns the number of 28 bits by which programs store the window. For a length, it is the
    /// length in seconds.
    pub const fn number(self) -> u32 {
        self.0.get()
    }

    /// Returns the length in seconds; for a month, that of the longest one: 31 days.
    #[inline]
    pub const fn seconds(self) -> u32 {
        self.number() & ((1 << LENGTH_BITS) - 1)
    }

    /// Returns the day on which the month begins, 1 to 31; `None` if the window is not a month.
    pub const fn month_day(self) -> Option<u32> {
        match self.number() >> LENGTH_BITS {
            day @ 1..=31 => Some(day),
            _ => None,
        }
    }

    /// Returns whether the window is a length of at most a day.
    pub(crate) const fn is_at_most_a_day(self) -> bool {
        self.number() <= DAY_S
    }

    /// Returns whether the window is a length, and not a week or a month.
    pub(crate) const fn is_length(self) -> bool {
        self.number() >> LENGTH_BITS == 0
    }

    /// Returns whether the window is a week or a month. Always false in a build without them.
    #[inline]
    pub const fn is_calendar(self) -> bool {
        Feature::Calendar.is_included() && !self.is_length()
    }

    /// Returns whether this window, as a user writes it, means `other`. A `month` without a day
    /// means that of any day, as a policy has at most one month.
    pub(crate) fn means(self, other: Self) -> bool {
        self == other || (self.month_day() == Some(1) && other.month_day().is_some())
    }

    /// Returns the length in milliseconds, as [`seconds`](Self::seconds) does.
    pub(crate) const fn ms(self) -> u64 {
        self.seconds() as u64 * 1000
    }

    /// Returns the largest number of seconds at whose multiples all windows begin.
    pub(crate) const fn grid_s(self) -> u32 {
        if self.is_calendar() { DAY_S } else { self.number() }
    }

    /// Returns the number of the window that contains a moment. Successive windows have successive
    /// numbers.
    pub(crate) fn index_at(self, unix_s: u64) -> u64 {
        match self.month_day() {
            _ if !self.is_calendar() => unix_s / NonZeroU64::from(self.0),
            None => (unix_s + MONDAY_TO_EPOCH_S) / WEEK_S,
            Some(first) => {
                let (month, day) = month_and_day(unix_s / u64::from(DAY_S));
                // In the days before the first one, it is the window of the month before.
                if day < day_in_month(first, month) { month - 1 } else { month }
            }
        }
    }

    /// Returns the moment, in Unix seconds, at which the window with this number begins; 0 if it
    /// began before the epoch.
    fn start_s(self, index: u64) -> u64 {
        match self.month_day() {
            _ if !self.is_calendar() => index * u64::from(self.number()),
            None => (index * WEEK_S).saturating_sub(MONDAY_TO_EPOCH_S),
            Some(first) => {
                let day = first_day(index) + day_in_month(first, index) - 1;
                day.saturating_sub(DAYS_TO_EPOCH) * u64::from(DAY_S)
            }
        }
    }

    /// Returns the moment, in Unix seconds, at which the window ends that follows the one of
    /// `unix_s` by `later` windows.
    pub(crate) fn end_s(self, unix_s: u64, later: u64) -> u64 {
        if self.is_calendar() {
            self.start_s(self.index_at(unix_s) + 1 + later)
        } else {
            self.length_end_s(unix_s, later)
        }
    }

    /// Returns what [`end_s`](Self::end_s) does, for a window that is neither a week nor a month.
    ///
    /// Common lengths are constant divisors, which the compiler turns into multiplications. These
    /// are ten times as fast as a division.
    #[inline]
    pub(crate) fn length_end_s(self, unix_s: u64, later: u64) -> u64 {
        let length = NonZeroU64::from(self.0);
        let whole = match self.number() {
            _ if !IS_64_BIT => unix_s / length,
            1 => unix_s,
            60 => unix_s / 60,
            3600 => unix_s / 3600,
            86_400 => unix_s / 86_400,
            _ => unix_s / length,
        };
        (whole + 1 + later) * length.get()
    }

    /// Returns whether each window of this kind lies within one window of `other`.
    pub(crate) fn nests_in(self, other: Self) -> bool {
        if self.is_calendar() {
            self == other
        } else {
            other.grid_s().is_multiple_of(self.number())
        }
    }

    /// Returns the most windows of this kind that one window of `other` meets.
    pub(crate) fn most_in(self, other: Self) -> u64 {
        if other.nests_in(self) {
            1
        } else if self.nests_in(other) {
            u64::from(other.seconds() / self.seconds())
        } else {
            // A month has at least 28 days.
            let shortest = if self.month_day().is_some() { 28 * DAY_S } else { self.seconds() };
            u64::from(other.seconds().div_ceil(shortest)) + 1
        }
    }
}

/// Windows are in order of their lengths, and after a length are the weeks or months as long.
impl Ord for Window {
    fn cmp(&self, other: &Self) -> Ordering {
        // Moves the length to the upper bits, and the mark to the lower ones.
        let key = |window: Self| window.number().rotate_left(u32::BITS - LENGTH_BITS);
        key(*self).cmp(&key(*other))
    }
}

impl PartialOrd for Window {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Writes the window's name in HTTP fields: `second`, `minute`, `hour`, `day`, `week` or `month`,
/// else its seconds, such as `90s`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}s", self.number()),
        }
    }
}

/// Writes the name, and the day on which a month begins if it is not the first: `month@17`.
impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        match self.month_day() {
            Some(day @ 2..) => write!(f, "@{day}"),
            _ => Ok(()),
        }
    }
}

/// The units of policy text: word, letter and seconds. The longest is first, so that the first unit
/// that divides a length gives the shortest text.
pub(crate) const UNITS: [(&str, &str, u32); 4] =
    [("day", "d", DAY_S), ("hour", "h", 3600), ("minute", "m", 60), ("second", "s", 1)];

impl Window {
    /// Returns the word for the window, if it has one.
    pub(crate) fn name(self) -> Option<&'static str> {
        if self.is_calendar() {
            return Some(if self == Self::WEEK { "week" } else { "month" });
        }
        UNITS.into_iter().find(|(_, _, seconds)| self.number() == *seconds).map(|(word, _, _)| word)
    }
}

// Months are numbered from March of the year 0, so that the day that leap years add is the last one
// of a year. The lengths of the months from March on repeat after five months, which have 153 days.
// The algorithm is Howard Hinnant's: https://howardhinnant.github.io/date_algorithms.html

/// Days from 1 March of the year 0 to the epoch.
const DAYS_TO_EPOCH: u64 = 719_468;

/// Days in 400 years, after which the calendar repeats.
const CYCLE_DAYS: u64 = 146_097;

/// Returns the number of the month that a day is in, and which day of it, from 1. The day is
/// counted from the epoch.
fn month_and_day(day: u64) -> (u64, u64) {
    let day = day + DAYS_TO_EPOCH;
    let (cycle, in_cycle) = (day / CYCLE_DAYS, day % CYCLE_DAYS);
    // Every 4 years have 1,461 days, every 100 one fewer, and 400 one more.
    let leap_days = in_cycle / 1460 - in_cycle / 36_524 + in_cycle / 146_096;
    let year = (in_cycle - leap_days) / 365;
    let in_year = in_cycle - days_before_year(year);
    let month = (5 * in_year + 2) / 153;
    ((400 * cycle + year) * 12 + month, in_year - days_before_month(month) + 1)
}

/// Returns the days from 1 March of the year 0 to the first day of the month with this number.
fn first_day(month: u64) -> u64 {
    let (year, in_year) = (month / 12, month % 12);
    year / 400 * CYCLE_DAYS + days_before_year(year % 400) + days_before_month(in_year)
}

/// Returns the days from 1 March of the first year of a cycle to that of the given one.
fn days_before_year(year: u64) -> u64 {
    365 * year + year / 4 - year / 100
}

/// Returns the days from 1 March to the first day of a month, 0 for March.
fn days_before_month(month: u64) -> u64 {
    (153 * month + 2) / 5
}

/// Returns `day`, or the last day of the month with this number if it has fewer days.
fn day_in_month(day: u32, month: u64) -> u64 {
    u64::from(day).min(first_day(month + 1) - first_day(month))
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::string::ToString;

    use super::*;

    fn length(seconds: u32) -> Window {
        Window::from_seconds(seconds).unwrap()
    }

    /// The Unix time of 00:00 UTC of a date, by adding up the lengths of all years and months.
    fn unix_s(year: u64, month: u64, day: u64) -> u64 {
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let months = |year| {
            [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let years: u64 = (1970..year).map(|year| months(year).iter().sum::<u64>()).sum();
        let before: u64 = months(year).iter().take(usize::try_from(month - 1).unwrap()).sum();
        (years + before + day - 1) * 86_400
    }

    #[test]
    fn window_of_a_length_ends_at_its_next_multiple() {
        for seconds in [1, 2, 59, 60, 61, 3599, 3600, 3601, 86_399, 86_400, 86_401, MAX_WINDOW_S] {
            let window = length(seconds);
            let seconds = u64::from(seconds);
            for count in [0, 1, 2, 1000] {
                let start = count * seconds;
                for moment in [start, start + seconds - 1] {
                    assert_eq!(window.end_s(moment, 0), start + seconds);
                    assert_eq!(window.end_s(moment, 1), start + 2 * seconds);
                    assert_eq!(window.index_at(moment), count);
                }
            }
        }
    }

    #[test]
    fn number_of_no_window_is_refused() {
        for window in [length(1), Window::LONGEST, Window::WEEK, Window::month(17).unwrap()] {
            assert_eq!(Window::from_number(window.number()), Some(window));
        }
        // Without a length, weeks and months of another length, and a day after the 31st.
        let (week, month) = (Window::WEEK.number(), Window::month(17).unwrap().number());
        for number in [0, MAX_WINDOW_S + 1, week + 1, week - 1, month - 1, 33 << LENGTH_BITS] {
            assert_eq!(Window::from_number(number), None, "{number}");
        }
    }

    #[test]
    fn week_ends_on_monday() {
        assert_eq!(Window::WEEK.end_s(0, 0), unix_s(1970, 1, 5));
        assert_eq!(Window::WEEK.start_s(Window::WEEK.index_at(0)), 0, "it began before the epoch");
        let monday = unix_s(2027, 2, 1);
        for moment in [monday, monday + 1, monday + 7 * 86_400 - 1] {
            assert_eq!(Window::WEEK.end_s(moment, 0), unix_s(2027, 2, 8));
            assert_eq!(Window::WEEK.end_s(moment, 1), unix_s(2027, 2, 15));
        }
        assert_eq!(Window::WEEK.end_s(monday - 1, 0), monday);
    }

    /// For each day of 430 years and each first day of a month.
    #[test]
    fn month_ends_on_its_day_or_on_the_last_one() {
        for first in 1..=31 {
            let window = Window::month(first).unwrap();
            let begins = |year, month| {
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                let last = (unix_s(next.0, next.1, 1) - unix_s(year, month, 1)) / 86_400;
                unix_s(year, month, u64::from(first).min(last))
            };
            let mut index = window.index_at(0);
            let mut start = 0;
            for month in 0..12 * if first % 10 == 0 { 430 } else { 12 } {
                let end = begins(1970 + month / 12, month % 12 + 1);
                if end == 0 {
                    continue;
                }
                for moment in [start, start + 1, end - 86_400, end - 1] {
                    assert_eq!((window.index_at(moment), window.end_s(moment, 0)), (index, end));
                }
                (start, index) = (end, index + 1);
            }
        }
    }

    #[test]
    fn month_ends_at_documented_moments() {
        for (first, (year, month, day), end) in [
            (1, (2027, 1, 31), (2027, 2, 1)),
            (17, (2027, 1, 16), (2027, 1, 17)),
            (17, (2027, 1, 17), (2027, 2, 17)),
            (29, (2027, 2, 27), (2027, 2, 28)),
            (29, (2028, 2, 28), (2028, 2, 29)),
            (31, (2027, 4, 29), (2027, 4, 30)),
            (31, (2027, 4, 30), (2027, 5, 31)),
            (30, (2100, 2, 27), (2100, 2, 28)),
            (1, (2106, 2, 28), (2106, 3, 1)),
        ] {
            let window = Window::month(first).unwrap();
            let moment = unix_s(year, month, day) + 86_399;
            assert_eq!(window.end_s(moment, 0), unix_s(end.0, end.1, end.2), "{first} {year}");
        }
    }

    #[test]
    fn number_names_each_window_and_nothing_else() {
        let windows = (1..=31).map(|day| Window::month(day).unwrap());
        let lengths = [1, 60, MAX_WINDOW_S].map(length);
        for window in windows.chain(lengths).chain([Window::WEEK]) {
            assert_eq!(Window::from_number(window.number()), Some(window));
            assert!(window.number() < 1 << 28);
        }
        for number in [0, MAX_WINDOW_S + 1, 33 << LENGTH_BITS | 60, 1 << 28 | 60, u32::MAX] {
            assert_eq!(Window::from_number(number), None, "{number}");
        }
        assert_eq!((Window::month(0), Window::month(32)), (None, None));
    }

    #[test]
    fn windows_are_in_order_of_their_lengths() {
        let day = length(86_400);
        let month = Window::month(1).unwrap();
        let sorted =
            [length(1), day, length(7 * 86_400), Window::WEEK, length(MAX_WINDOW_S), month];
        assert!(sorted.is_sorted());
        assert!(month < Window::month(2).unwrap());
        assert_eq!(alloc::format!("{month:?} {:?}", Window::month(17).unwrap()), "month month@17");
        assert_eq!(
            sorted.map(|window| window.to_string()),
            ["second", "day", "604800s", "week", "2678400s", "month"]
        );
    }

    #[test]
    fn most_windows_in_another_are_counted_at_the_worst_alignment() {
        let (minute, hour, day) = (length(60), length(3600), length(86_400));
        let month = Window::month(17).unwrap();
        for (inner, outer, most) in [
            (minute, hour, 60),
            (hour, minute, 1),
            (day, month, 31),
            (month, day, 1),
            (hour, Window::WEEK, 168),
            (Window::WEEK, month, 6),
            (month, Window::WEEK, 2),
            (length(5 * 3600), day, 6),
            (day, length(5 * 3600), 2),
            (length(7 * 86_400), Window::WEEK, 2),
        ] {
            assert_eq!(inner.most_in(outer), most, "{inner:?} in {outer:?}");
        }
    }
}
