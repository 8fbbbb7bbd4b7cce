//! Time is an argument: a moment in Unix milliseconds, the clock that it comes from, and exact
//! division by a length of time.

use crate::line::scale;

/// A moment: milliseconds since the Unix epoch, UTC, as the caller's clock tells it.
///
/// As a [`Clock`] it is an explicit time: the core uses it as given and never corrects it. What a
/// wrong explicit time costs stands in [`decide`](crate::decide).
///
/// ```
/// use keytally_core::Timestamp;
/// let now = Timestamp::from_unix_ms(1_700_000_000_250);
/// assert_eq!(now.unix_s(), 1_700_000_000);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `ms` milliseconds after the Unix epoch; every value is allowed.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// The moment `seconds` seconds after the Unix epoch; later than a `Timestamp` can tell is the last one.
    pub const fn from_unix_s(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn unix_s(self) -> u64 {
        self.0 / 1000
    }
}

/// The source of a call's time: an explicit time, or a system clock that can be read again.
///
/// Every method of a table that depends on time takes one. [`Timestamp`] implements it as an explicit
/// time. The crate `keytally-host` has the operating system's clock, and a program without an
/// operating system implements it for a clock of its own.
///
/// The core reads a system clock again in two cases: a tally is ahead of the first reading, or a
/// subject is inserted into a limiter. So a thread that was stopped after its first reading neither
/// takes a newer tally for one from a wrong clock nor opens a window that has passed.
///
/// ```
/// use keytally_core::{Clock, Limiter, Line, Policy, Timestamp};
///
/// #[derive(Clone, Copy)]
/// struct Timer(Timestamp);
/// # fn read_timer() -> Timestamp { Timestamp::from_unix_s(1_700_000_000) }
///
/// impl Clock for Timer {
///     const IS_SYSTEM: bool = true;
///     fn reading(self) -> Timestamp { self.0 }
///     fn reread(self) -> Option<Timestamp> { Some(read_timer()) }
/// }
///
/// let memory: Vec<Line> = (0..Limiter::<&[Line]>::lines(64)).map(|_| Line::new()).collect();
/// let policy: Policy = "2/minute".parse()?;
/// let limiter = Limiter::create(&memory[..], &policy, 64, [7; 16])?;
/// assert!(limiter.check(b"203.0.113.9", 1, Timer(read_timer())).is_admitted());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Clock: Copy {
    /// Whether [`reread`](Self::reread) reads a clock.
    const IS_SYSTEM: bool;

    /// Returns the reading that the call came with.
    fn reading(self) -> Timestamp;

    /// Reads the clock again; `None` if the time is explicit.
    fn reread(self) -> Option<Timestamp>;

    /// Returns the later of `now` and the clock, read again.
    #[inline]
    fn at_least(self, now: Timestamp) -> Timestamp {
        self.reread().map_or(now, |reading| reading.max(now))
    }
}

impl Clock for Timestamp {
    const IS_SYSTEM: bool = false;

    #[inline]
    fn reading(self) -> Timestamp {
        self
    }

    #[inline]
    fn reread(self) -> Option<Timestamp> {
        None
    }
}

/// A divisor whose division is a multiplication, since a 64-bit divide would cost more than the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Divisor {
    value: u64,
    /// floor(2^64 / value), or 2^64 − 1 for 1.
    reciprocal: u64,
}

impl Divisor {
    /// `value` must not be 0; 0 is taken as 1.
    pub(crate) const fn new(value: u64) -> Self {
        let value = if value == 0 { 1 } else { value };
        // floor(2^64 / value) from 64-bit arithmetic: 2^64 = (2^64 − 1) + 1, so the quotient of 2^64 − 1 is right
        // unless `value` divides 2^64, a power of two, for which it is one too small; `divide` mends one too small.
        Self { value, reciprocal: u64::MAX / value }
    }

    pub(crate) const fn value(self) -> u64 {
        self.value
    }

    /// `number / value`, exactly.
    ///
    /// With r = floor((2^64−1) / v), n·r / 2^64 is at most n/v and less than 2 below it: with 2^64 = r·v + e,
    /// 1 ≤ e ≤ v, the error is n·e / (2^64·v) < 1, and the floor adds less than 1. So the estimate is one too
    /// small at most, and one comparison mends it.
    #[inline]
    pub(crate) const fn divide(self, number: u64) -> u64 {
        let estimate = scale(number, self.reciprocal);
        let rest = number - estimate * self.value;
        if rest >= self.value { estimate + 1 } else { estimate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_is_exact_at_every_edge() {
        let edges = [
            1u64,
            2,
            3,
            7,
            10,
            60,
            1000,
            3600,
            60_000,
            86_400_000,
            2_678_400_000,
            1 << 31,
            u64::MAX - 1,
            u64::MAX,
        ];
        for divisor in edges {
            for multiple in [0u64, 1, 2, 3, 1000, u64::MAX / divisor / 2, u64::MAX / divisor] {
                for offset in [-1i64, 0, 1] {
                    let number = multiple.wrapping_mul(divisor).wrapping_add_signed(offset);
                    assert_eq!(
                        Divisor::new(divisor).divide(number),
                        number / divisor,
                        "{number} / {divisor}"
                    );
                }
            }
        }
    }

    #[test]
    fn seconds_are_rounded_down_and_saturate() {
        assert_eq!(Timestamp::from_unix_ms(1999).unix_s(), 1);
        assert_eq!(Timestamp::from_unix_s(u64::MAX).unix_ms(), u64::MAX);
    }

    proptest::proptest! {
        #[test]
        fn division_is_exact(number: u64, divisor in 1u64..) {
            proptest::prop_assert_eq!(Divisor::new(divisor).divide(number), number / divisor);
        }
    }
}
