//! The system clock. No other module reads it, except that `system` reads the coarse clock for this
//! one.
//!
//! # Precise and coarse
//! A check first reads the *coarse* clock (`CLOCK_REALTIME_COARSE`), because that takes about 5 ns
//! instead of 25, as measured on x86-64. The kernel sets the coarse clock to the precise one at
//! each of its ticks, which are 1 to 10 ms apart. So the coarse clock is late by up to a tick. It
//! is later still if the kernel could not run its tick, for example while a processor of a virtual
//! machine was stopped.
//!
//! A late reading has three effects:
//! - **A denial** for a window that has just passed would be wrong. The core therefore reads the
//!   precise clock before it denies a request ([`Clock`]). It also does so for an insertion, for a
//!   correction, and if a tally is ahead of the reading.
//! - **A charge** may count in the window that has just passed, if the tally has not been charged
//!   in the present one. No window admits more than its limit, counted by the times of the
//!   decisions. An interval of real time may admit the rest of a window that ended up to a tick
//!   before.
//! - **A key** that expires, and a secret whose grace ends, may be valid for as long as the clock
//!   is late.
//!
//! Hence the rule: the coarse clock is read if its resolution is at most a hundredth of the
//! shortest window. The windows of real time are then exact to a percent. With a tick of 10 ms or
//! less, that allows every window, since the shortest possible window is a second.
//!
//! Administrators, lists and [`now`] read the precise clock. Systems other than Linux have no
//! coarse clock, so checks read the precise one there too.

use core::time::Duration;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use keytally_core::{Clock, Layout, Timestamp};

use crate::system;

/// Returns the system clock's time (`CLOCK_REALTIME`). A clock before 1970 reads as 0.
///
/// ```
/// assert!(keytally::now().unix_s() > 1_700_000_000);
/// ```
pub fn now() -> Timestamp {
    #[cfg(feature = "testing")]
    if let Some(time) = crate::testing::time() {
        return time;
    }
    #[expect(clippy::disallowed_methods, reason = "only this module reads the clock")]
    let time = SystemTime::now();
    Timestamp::from_system_time(time)
}

/// The coarse clock is read if the shortest window is at least this many times its resolution.
const RESOLUTIONS_PER_WINDOW: u32 = 100;

/// Returns the time of the coarse clock, rounded down to milliseconds. A clock before 1970 reads as
/// 0.
#[inline]
fn coarse_now() -> Timestamp {
    #[cfg(feature = "testing")]
    if let Some(time) = crate::testing::time() {
        return time;
    }
    let Some(since_epoch) = system::coarse_time() else { return now() };
    Timestamp::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the shortest window, in seconds, for which a clock of this resolution may be read.
fn shortest_window_s(resolution: Duration) -> u64 {
    let window = resolution.saturating_mul(RESOLUTIONS_PER_WINDOW);
    window.as_secs().saturating_add(u64::from(window.subsec_nanos() > 0))
}

/// Returns whether the coarse clock may be read for a request that these windows count. Reads the
/// resolution of the clock once per process.
#[inline]
fn allows_coarse(layout: &Layout) -> bool {
    static SHORTEST_WINDOW_S: OnceLock<u64> = OnceLock::new();
    let shortest_s =
        *SHORTEST_WINDOW_S.get_or_init(|| shortest_window_s(system::coarse_resolution()));
    layout.windows().first().is_some_and(|window| u64::from(window.seconds()) >= shortest_s)
}

/// Conversions between [`Timestamp`], which the `no_std` core defines, and [`SystemTime`].
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use keytally::{Timestamp, TimestampExt as _};
/// let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
/// let timestamp = Timestamp::from_system_time(time);
/// assert_eq!(timestamp.unix_ms(), 1_700_000_000_250);
/// assert_eq!(timestamp.to_system_time(), time);
/// ```
pub trait TimestampExt: sealed::Sealed + Sized {
    /// Converts a time, rounded down to milliseconds. A time before 1970 becomes 0, and a time
    /// after the last `Timestamp` becomes the last one.
    fn from_system_time(time: SystemTime) -> Self;

    /// Converts to a time, exactly. On Windows, a time after the last `SystemTime`, which is in the
    /// year 30828, becomes the last whole second before it.
    fn to_system_time(self) -> SystemTime;
}

impl TimestampExt for Timestamp {
    fn from_system_time(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn to_system_time(self) -> SystemTime {
        // Windows counts 100 ns from 1601 in 63 bits. Elsewhere a `SystemTime` has 64 bits of
        // seconds, so this cannot overflow.
        const LAST_OF_WINDOWS_S: u64 = i64::MAX as u64 / 10_000_000 - 11_644_473_600;
        UNIX_EPOCH
            .checked_add(Duration::from_millis(self.unix_ms()))
            .unwrap_or_else(|| UNIX_EPOCH + Duration::from_secs(LAST_OF_WINDOWS_S))
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for keytally_core::Timestamp {}
}

/// The system clock as the time argument of a table's methods: a first reading, and the clock to
/// read again.
///
/// [`Gate`](crate::Gate) and [`Limiter`](crate::Limiter) use it in every call. A caller that
/// already has a reading passes it to the methods of their [`table`](crate::Gate::table).
///
/// ```
/// use keytally::{GateConfig, Gate, SystemClock, now, pepper};
/// let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
/// let reading = now(); // once for several requests
/// gate.table().check(None, 1, SystemClock::cached(reading));
/// # Ok::<(), keytally::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(Timestamp);

impl SystemClock {
    /// Reads the precise clock.
    #[inline]
    pub fn read() -> Self {
        Self(now())
    }

    /// Reads the clock for a request to a table with this layout. It is the coarse clock, which is
    /// faster, if the kernel's tick is at most a hundredth of the shortest window.
    ///
    /// The coarse clock is late by up to a tick, usually 1 to 10 ms. It is later, without a bound,
    /// if the kernel could not run its tick, for example while a processor of a virtual machine was
    /// stopped.
    ///
    /// A request is never denied because of a late reading: the table reads the precise clock
    /// before it denies one. A charge may count in a window that has ended since the time of the
    /// reading, and a key or a former secret may be valid for as long as the reading is late.
    ///
    /// ```
    /// use keytally::{Limiter, SystemClock};
    /// let limiter = Limiter::in_memory(&"2/minute".parse()?, 1000)?;
    /// let table = limiter.table();
    /// let verdict = table.check(b"203.0.113.9", 1, SystemClock::read_for(table.layout()));
    /// assert!(verdict.is_admitted());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn read_for(layout: &Layout) -> Self {
        Self(if allows_coarse(layout) { coarse_now() } else { now() })
    }

    /// Uses an earlier reading of the clock.
    pub const fn cached(reading: Timestamp) -> Self {
        Self(reading)
    }
}

impl Clock for SystemClock {
    const IS_SYSTEM: bool = true;

    #[inline]
    fn reading(self) -> Timestamp {
        self.0
    }

    #[cold]
    #[inline(never)]
    fn reread(self) -> Option<Timestamp> {
        Some(now())
    }
}

/// The clock of a gate's requests: the system clock, and in a fleet, as far ahead of it as the
/// clock of the store is. [`Gate::clock`](crate::Gate::clock) reads it.
#[derive(Clone, Copy, Debug)]
pub struct GateClock {
    reading: Timestamp,
    offset_ms: i64,
}

impl GateClock {
    /// The clock that is `offset_ms` milliseconds ahead of the system clock, such as
    /// [`clock_offset_ms`](crate::Gate::clock_offset_ms) of a gate.
    #[inline]
    pub fn ahead(SystemClock(reading): SystemClock, offset_ms: i64) -> Self {
        Self { reading: ahead(reading, offset_ms), offset_ms }
    }
}

impl Clock for GateClock {
    const IS_SYSTEM: bool = true;

    #[inline]
    fn reading(self) -> Timestamp {
        self.reading
    }

    #[cold]
    #[inline(never)]
    fn reread(self) -> Option<Timestamp> {
        Some(ahead(now(), self.offset_ms))
    }
}

#[inline]
fn ahead(time: Timestamp, offset_ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(time.unix_ms().saturating_add_signed(offset_ms))
}

/// Returns the time of the monotonic clock, which measures waiting.
pub(crate) fn instant() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "only this module reads the clock")]
    let instant = Instant::now();
    instant
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: SystemTime) -> u64 {
        Timestamp::from_system_time(time).unix_ms()
    }

    #[test]
    fn coarse_clock_needs_a_hundred_ticks_in_a_window() {
        let shortest_s = |us| shortest_window_s(Duration::from_micros(us));
        // Kernels with 1000, 250 and 100 ticks in a second.
        assert_eq!([1000, 4000, 10_000].map(shortest_s), [1, 1, 1]);
        assert_eq!([10_001, 20_000, 20_001, 600_000].map(shortest_s), [2, 2, 3, 60]);
        assert_eq!(shortest_window_s(Duration::MAX), u64::MAX);
    }

    #[test]
    fn coarse_clock_is_not_ahead_of_the_precise_one() {
        let coarse = coarse_now();
        let precise = now();
        assert!(coarse <= precise, "{coarse:?} {precise:?}");
        // Both have one unit and one epoch. A test machine may be slow, so the difference may be
        // large.
        let late_ms = precise.unix_ms() - coarse.unix_ms();
        assert!(late_ms < keytally_core::decide::TOLERANCE_MS, "{late_ms}");
    }

    #[test]
    fn time_before_1970_becomes_zero() {
        assert_eq!(ms(UNIX_EPOCH), 0);
        for before in [Duration::from_nanos(1), Duration::from_secs(1 << 30)] {
            assert_eq!(ms(UNIX_EPOCH - before), 0, "{before:?}");
        }
    }

    #[test]
    fn time_is_rounded_down_to_milliseconds() {
        assert_eq!(ms(UNIX_EPOCH + Duration::from_nanos(999_999)), 0);
        assert_eq!(ms(UNIX_EPOCH + Duration::from_nanos(1_999_999)), 1);
    }

    // The last time of Windows is before that of `Timestamp`.
    #[cfg(not(windows))]
    #[test]
    fn time_after_the_last_timestamp_becomes_the_last() {
        let last = Duration::from_millis(u64::MAX);
        let instants = [last - Duration::from_millis(1), last, last + Duration::from_millis(1)];
        assert_eq!(
            instants.map(|since| ms(UNIX_EPOCH + since)),
            [u64::MAX - 1, u64::MAX, u64::MAX]
        );
        assert_eq!(ms(UNIX_EPOCH + Duration::from_secs(i64::MAX as u64)), u64::MAX);
    }

    #[test]
    fn timestamp_survives_conversion_to_system_time() {
        let after_conversion = |unix_ms| ms(Timestamp::from_unix_ms(unix_ms).to_system_time());
        for unix_ms in [0, 1, 1_700_000_000_250] {
            assert_eq!(after_conversion(unix_ms), unix_ms);
        }
        let last = if cfg!(windows) { 910_692_730_085_000 } else { u64::MAX };
        assert_eq!(after_conversion(u64::MAX), last);
    }
}
