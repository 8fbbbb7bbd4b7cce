//! Windows: when each begins, found by counting days from the epoch.

use std::sync::LazyLock;

/// A window of time. All are in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// A length in seconds. Windows begin at its multiples since the epoch.
    Length(u32),
    /// From Monday to Monday.
    Week,
    /// From this day of a month to the same day of the next. If a month has fewer days, it begins
    /// on the last one.
    Month(u32),
}

const DAY_S: u32 = 24 * 60 * 60;
const DAY_MS: i128 = DAY_S as i128 * 1000;

/// Days and months in 400 years, after which the calendar repeats.
const CYCLE_DAYS: i128 = 146_097;
const CYCLE_MONTHS: i128 = 4800;

impl Window {
    /// Returns the length in seconds, of a month that of the longest one.
    #[must_use]
    pub fn longest_s(self) -> u32 {
        match self {
            Window::Length(seconds) => seconds,
            Window::Week => 7 * DAY_S,
            Window::Month(_) => 31 * DAY_S,
        }
    }

    /// Returns a length at whose multiples since the epoch all windows begin, in seconds.
    #[must_use]
    pub fn grid_s(self) -> u32 {
        match self {
            Window::Length(seconds) => seconds,
            Window::Week | Window::Month(_) => DAY_S,
        }
    }

    /// Returns the index of the window that a time is in. For a length it is 0 for the window that
    /// begins at the epoch, else for the week or month that the epoch is in.
    #[must_use]
    pub fn index(self, time_ms: i128) -> i128 {
        match self {
            Window::Length(seconds) => time_ms.div_euclid(i128::from(seconds) * 1000),
            Window::Week => (time_ms + 3 * DAY_MS).div_euclid(7 * DAY_MS),
            Window::Month(_) => {
                // No month has more than 31 days, so this index is not too large.
                let mut index = time_ms.div_euclid(CYCLE_DAYS * DAY_MS) * CYCLE_MONTHS
                    + time_ms.rem_euclid(CYCLE_DAYS * DAY_MS) / (31 * DAY_MS);
                while self.start_ms(index + 1) <= time_ms {
                    index += 1;
                }
                index
            }
        }
    }

    /// Returns the time at which the window with this index begins, in Unix milliseconds.
    #[must_use]
    pub fn start_ms(self, index: i128) -> i128 {
        match self {
            Window::Length(seconds) => index * i128::from(seconds) * 1000,
            Window::Week => (index * 7 - 3) * DAY_MS,
            Window::Month(day) => {
                // The window that the epoch is in began in December 1969, unless months begin on
                // their first day.
                let month = if day == 1 { index } else { index - 1 };
                let (days, length) = days_before_month(month);
                (days + i128::from(day).min(length) - 1) * DAY_MS
            }
        }
    }

    /// Returns the name in header fields: `minute`, `90s`, `month`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Window::Length(1) => "second".to_owned(),
            Window::Length(60) => "minute".to_owned(),
            Window::Length(3600) => "hour".to_owned(),
            Window::Length(DAY_S) => "day".to_owned(),
            Window::Length(seconds) => format!("{seconds}s"),
            Window::Week => "week".to_owned(),
            Window::Month(_) => "month".to_owned(),
        }
    }
}

/// Returns the days from the epoch to the first day of a month, which is counted from January 1970,
/// and the days of this month.
fn days_before_month(month: i128) -> (i128, i128) {
    let cycles = month.div_euclid(CYCLE_MONTHS);
    let in_cycle = usize::try_from(month.rem_euclid(CYCLE_MONTHS)).expect("a month of the cycle");
    let days = FIRST_DAYS[in_cycle];
    (cycles * CYCLE_DAYS + days, FIRST_DAYS[in_cycle + 1] - days)
}

/// The first day of each month of the 400 years from 1970 on, and of the month after them, in days
/// from the epoch.
static FIRST_DAYS: LazyLock<Vec<i128>> = LazyLock::new(|| {
    let mut days = vec![0];
    for year in 1970..2370 {
        let february = if is_leap(year) { 29 } else { 28 };
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            days.push(days[days.len() - 1] + length);
        }
    }
    days
});

fn is_leap(year: i128) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_at_hand_computed_times() {
        // From `date -u -d DATE +%s`.
        for (window, inside_s, begins_s) in [
            (Window::Week, 1_800_000_000, 1_799_625_600),
            (Window::Week, 0, -3 * 86_400),
            (Window::Month(1), 0, 0),
            (Window::Month(2), 0, -30 * 86_400),
            (Window::Month(31), 0, -86_400),
            (Window::Month(1), 1_800_000_000, 1_798_761_600),
            (Window::Month(17), 1_800_000_000, 1_797_465_600),
            (Window::Month(31), 1_835_400_000, 1_835_395_200),
            (Window::Month(31), 1_835_395_199, 1_832_889_600),
            (Window::Month(1), 4_294_967_295, 4_294_425_600),
        ] {
            let index = window.index(inside_s * 1000);
            assert_eq!(window.start_ms(index), begins_s * 1000, "{window:?} {inside_s}");
        }
    }

    #[test]
    fn index_of_the_epoch_is_0() {
        for window in [Window::Length(90), Window::Week, Window::Month(1), Window::Month(31)] {
            assert_eq!(window.index(0), 0, "{window:?}");
        }
    }
}
