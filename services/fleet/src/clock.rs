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

/// If the store's clock moves by this much more or less than the machine's, in milliseconds, one of
/// them was set, or the machine is an old copy of itself.
pub const MOST_JUMP_MS: u64 = 1000;

/// Compares how the store's clock and the machine's steady one move.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Drift {
    /// The store's time in its last reply to a test, and the machine's when that arrived.
    last: Option<(u64, Duration)>,
}

impl Drift {
    /// Notes the store's time. Returns whether it has jumped since the last one.
    pub(crate) fn has_jumped(&mut self, store_ms: u64, elapsed: Duration) -> bool {
        let Some((last_ms, at)) = self.last.replace((store_ms, elapsed)) else { return false };
        let moved = elapsed.saturating_sub(at).as_millis();
        let expected_ms = last_ms.saturating_add(u64::try_from(moved).unwrap_or(u64::MAX));
        expected_ms.abs_diff(store_ms) > MOST_JUMP_MS
    }
}

#[expect(clippy::disallowed_methods, reason = "only this module reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_that_moves_apart_by_over_a_second_has_jumped() {
        let mut drift = Drift::default();
        let at = Duration::from_millis;
        assert!(!drift.has_jumped(50_000, at(0)), "there is no time to compare with");
        assert!(!drift.has_jumped(50_500, at(500)));
        assert!(!drift.has_jumped(51_500 + MOST_JUMP_MS, at(1500)), "by just a second");
        assert!(!drift.has_jumped(52_500, at(2500)), "compared with the last one");
        assert!(drift.has_jumped(53_001 + MOST_JUMP_MS, at(3000)));
        assert!(drift.has_jumped(52_500, at(3500)), "it went back");
        assert!(!drift.has_jumped(112_500, at(63_500)), "a pause does not matter");
    }
}
