//! A clock that computes Unix time from a counter that wraps.

use keytally_core::Timestamp;

/// Converts a 32-bit tick counter to Unix time. The counter may be a 32.768 kHz timer, or one that
/// SysTick's handler increments.
///
/// The counter may wrap any number of times, but fewer than 2^32 ticks may pass between two
/// readings.
///
/// The caller provides the Unix time at one tick: from the network, a real-time clock, or the last
/// time that the device stored. A device that does not know the date may start at any time, but not
/// before a time that it has used. Windows then have the right length, but the resets that clients
/// see have a wrong date.
#[derive(Debug)]
pub struct Clock {
    /// Unix milliseconds at `ticks`.
    ms: u64,
    /// The fraction of a millisecond at `ticks`, in units of 1/1000 tick.
    rest: u32,
    /// The counter at the last reading.
    ticks: u32,
    /// The ticks per second.
    hz: u32,
}

impl Clock {
    /// Returns a clock whose time is `now` when the counter is `ticks`. The counter has `hz` ticks
    /// per second, 1 to 4,000,000.
    pub const fn new(now: Timestamp, ticks: u32, hz: u32) -> Self {
        Self { ms: now.unix_ms(), rest: 0, ticks, hz }
    }

    /// Returns the time when the counter is `ticks`, which the caller has just read.
    pub fn at(&mut self, ticks: u32) -> Timestamp {
        let passed = u64::from(ticks.wrapping_sub(self.ticks)) * 1000 + u64::from(self.rest);
        let hz = u64::from(self.hz);
        self.ms += passed / hz;
        self.rest = u32::try_from(passed % hz).unwrap_or(0);
        self.ticks = ticks;
        Timestamp::from_unix_ms(self.ms)
    }
}
