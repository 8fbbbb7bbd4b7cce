//! The machine's clocks. No other module of this crate reads one.

use core::time::Duration;
use std::time::Instant;

/// Returns the time of the machine's clock in Unix milliseconds. An administrator may set it.
pub(crate) fn wall_ms() -> u64 {
    keytally::now().unix_ms()
}

/// A clock that never steps. It begins with the time of the machine's clock at its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    start: Instant,
    start_ms: u64,
}

impl Steady {
    pub(crate) fn start() -> Self {
        Self { start: now(), start_ms: wall_ms() }
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.start)
    }

    /// Returns the time in milliseconds.
    pub(crate) fn ms(&self) -> u64 {
        let elapsed = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start_ms.saturating_add(elapsed)
    }
}

#[expect(clippy::disallowed_methods, reason = "only this module reads the clock")]
fn now() -> Instant {
    Instant::now()
}
