//! The system clock: the only place that reads it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use keytally_core::{Clock, Timestamp};

/// Returns the system clock's time (`CLOCK_REALTIME`). A clock before 1970 reads as 0.
///
/// ```
/// assert!(keytally::now().unix_s() > 1_700_000_000);
/// ```
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    let time = SystemTime::now();
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// The system clock as a table's methods take it: a first reading, and the clock to read again.
///
/// [`Gate`](crate::Gate) and [`Limiter`](crate::Limiter) use it by themselves. It is for calls to
/// their [`table`](crate::Gate::table) with a reading that the caller has already.
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

    /// Takes an earlier reading of the clock.
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

/// The present on the clock that only waiting is measured by: nothing moves it back.
pub(crate) fn instant() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    let instant = Instant::now();
    instant
}
