//! Moments in Unix milliseconds, and the clocks that they come from. Callers pass both as
//! arguments.

/// The most milliseconds by which two correct system clocks may differ, whatever the policy. A
/// stamp that is further ahead of the system clock comes from a wrong clock.
pub const TOLERANCE_MS: u64 = 60_000;

/// How many milliseconds a limiter keeps a slot after all windows of its tally have passed. A
/// caller that is late by less than this still finds its subject.
pub(crate) const REUSE_DELAY_MS: u64 = 1000;

/// A moment in milliseconds since the Unix epoch, in UTC.
///
/// As a [`Clock`], it is an explicit time: the core uses it as given and never corrects it.
/// [`decide`](crate::decide) says what a wrong explicit time costs.
///
/// ```
/// use keytally_core::Timestamp;
/// let now = Timestamp::from_unix_ms(1_700_000_000_250);
/// assert_eq!(now.unix_s(), 1_700_000_000);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `ms` milliseconds after the Unix epoch; every value is allowed.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// The moment `seconds` seconds after the Unix epoch, at most the latest `Timestamp`.
    pub const fn from_unix_s(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since the Unix epoch, rounded down.
    pub const fn unix_s(self) -> u64 {
        self.0 / 1000
    }
}

/// The source of a call's time: an explicit time, or a system clock that can be read again.
///
/// Every method of a table that depends on time takes a clock. A [`Timestamp`] is a clock with an
/// explicit time. The crate `keytally` has the operating system's clock. A program without an
/// operating system implements this trait for its own clock.
///
/// The core reads a system clock again in four cases: a tally is ahead of the first reading, a
/// tally lacks room at the first reading, a subject is inserted into a limiter, or the check of a
/// key is repeated. Without that, a thread that was stopped after its first reading could conclude
/// that a wrong clock had made a newer tally. It could also charge a window that has passed, deny a
/// request for such a window, or accept a key that has expired since.
///
/// The first reading may therefore come from a faster clock that is late, such as a cached reading.
///
/// ```
/// use keytally_core::{Clock, Limiter, CacheLine, Policy, Timestamp};
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
/// let lines = Limiter::<&[CacheLine]>::lines(64);
/// let memory: Vec<CacheLine> = (0..lines).map(|_| CacheLine::new()).collect();
/// let policy: Policy = "2/minute".parse()?;
/// let limiter = Limiter::init(&memory[..], &policy, 64, [7; 16])?;
/// assert!(limiter.check(b"203.0.113.9", 1, Timer(read_timer())).is_admitted());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Clock: Copy {
    /// Whether this is a clock that [`reread`](Self::reread) reads; false for an explicit time.
    const IS_SYSTEM: bool;

    /// Returns the first reading, which the caller passed to the table.
    fn reading(self) -> Timestamp;

    /// Reads the clock again; `None` if the time is explicit.
    fn reread(self) -> Option<Timestamp>;

    /// Reads the clock again, and returns that reading or `now`, whichever is later. Returns `now`
    /// if the time is explicit.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_down_and_saturate() {
        assert_eq!(Timestamp::from_unix_ms(1999).unix_s(), 1);
        assert_eq!(Timestamp::from_unix_s(u64::MAX).unix_ms(), u64::MAX);
    }
}
