//! The clock of the process, set by a test. Only with the feature `testing`.
//!
//! Enable the feature for tests only:
//!
//! ```toml
//! [dev-dependencies]
//! keytally = { version = "0.1", features = ["testing"] }
//! ```
//!
//! Every table of the process then reads the time that [`at`] sets, in all threads, without a
//! change of the code under test:
//!
//! ```
//! use core::time::Duration;
//! use keytally::{Limiter, Timestamp, testing};
//!
//! let limiter = Limiter::in_memory(&"1/minute".parse()?, 100)?;
//! let clock = testing::at(Timestamp::from_unix_s(1_800_000_059));
//! assert!(limiter.check(b"203.0.113.9", 1).is_admitted());
//! assert!(!limiter.check(b"203.0.113.9", 1).is_admitted());
//! clock.tick(Duration::from_secs(1)); // the next minute
//! assert!(limiter.check(b"203.0.113.9", 1).is_admitted());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The set time is a reading of the system clock. If a test sets it back by more than 60 s, the
//! tallies are corrected and keep their counts. So use a new table for each test.
//!
//! The functions that wait, for an administrator or for a replaced file, measure real time.

use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

use keytally_core::Timestamp;
use keytally_core::sync::{AtomicU64, Ordering};

/// The value of [`SET_MS`] if the clock is not set.
const UNSET: u64 = u64::MAX;

/// The set time in Unix milliseconds, or [`UNSET`].
static SET_MS: AtomicU64 = AtomicU64::new(UNSET);

/// Held by the [`TestClock`].
static HELD: Mutex<()> = Mutex::new(());

/// Returns the set time; `None` if the system clock is to be read.
#[inline]
pub(crate) fn time() -> Option<Timestamp> {
    match SET_MS.load(Ordering::Relaxed) {
        UNSET => None,
        ms => Some(Timestamp::from_unix_ms(ms)),
    }
}

/// Sets the time that the process reads; `None` reads the system clock again. Returns the former
/// setting.
///
/// For test frameworks of other languages. Tests in Rust call [`at`]. The last representable time,
/// `u64::MAX` milliseconds, means the system clock too.
pub fn set_clock(time: Option<Timestamp>) -> Option<Timestamp> {
    let before = SET_MS.swap(time.map_or(UNSET, Timestamp::unix_ms), Ordering::Relaxed);
    (before != UNSET).then_some(Timestamp::from_unix_ms(before))
}

/// Sets the time that the process reads, until the returned value is dropped.
///
/// # Concurrency
/// The time is that of all threads, also of other tests that run at once. If another thread holds a
/// `TestClock`, the call waits until it is dropped. A second call in one thread never returns.
pub fn at(time: Timestamp) -> TestClock {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    set_clock(Some(time));
    TestClock { _held: held }
}

/// The clock that [`at`] set. It stands still unless it is moved. If it is dropped, the process
/// reads the system clock again.
#[derive(Debug)]
#[must_use = "the clock is set until this value is dropped"]
pub struct TestClock {
    _held: MutexGuard<'static, ()>,
}

impl TestClock {
    /// Moves the clock forward.
    pub fn tick(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.set(Timestamp::from_unix_ms(self.now().unix_ms().saturating_add(ms)));
    }

    /// Sets the clock to another time.
    pub fn set(&self, time: Timestamp) {
        set_clock(Some(time));
    }

    /// Returns the time of the clock.
    pub fn now(&self) -> Timestamp {
        time().unwrap_or(Timestamp::from_unix_ms(UNSET))
    }
}

impl Drop for TestClock {
    fn drop(&mut self) {
        set_clock(None);
    }
}
