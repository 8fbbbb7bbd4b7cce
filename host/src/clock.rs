//! The system clock. No other module reads it.

use core::time::Duration;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use keytally_core::{Clock, Timestamp};

/// Returns the system clock's time (`CLOCK_REALTIME`). A clock before 1970 reads as 0.
///
/// ```
/// assert!(keytally::now().unix_s() > 1_700_000_000);
/// ```
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "only this module reads the clock")]
    let time = SystemTime::now();
    Timestamp::from_system_time(time)
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

    /// Converts to a time, exactly.
    fn to_system_time(self) -> SystemTime;
}

impl TimestampExt for Timestamp {
    fn from_system_time(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn to_system_time(self) -> SystemTime {
        // This cannot overflow: on Linux a `SystemTime` has 64 bits of seconds.
        UNIX_EPOCH + Duration::from_millis(self.unix_ms())
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
    /// Reads the clock.
    #[inline]
    pub fn read() -> Self {
        Self(now())
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
    fn time_before_1970_becomes_zero() {
        assert_eq!(ms(UNIX_EPOCH), 0);
        for before in [Duration::from_nanos(1), Duration::from_secs(1 << 40)] {
            assert_eq!(ms(UNIX_EPOCH - before), 0, "{before:?}");
        }
    }

    #[test]
    fn time_is_rounded_down_to_milliseconds() {
        assert_eq!(ms(UNIX_EPOCH + Duration::from_nanos(999_999)), 0);
        assert_eq!(ms(UNIX_EPOCH + Duration::from_nanos(1_999_999)), 1);
    }

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
        for unix_ms in [0, 1, 1_700_000_000_250, u64::MAX] {
            assert_eq!(ms(Timestamp::from_unix_ms(unix_ms).to_system_time()), unix_ms);
        }
    }
}
