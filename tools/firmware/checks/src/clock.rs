//! Unix time out of a counter that wraps.

use keytally_core::Timestamp;

/// Makes Unix time of a 32-bit tick counter, such as SysTick's handler or a 32.768 kHz timer gives. The counter may wrap
/// any number of times, but not twice between two readings.
///
/// The Unix time at some tick comes from outside, once: the network, a real-time clock, or the last time that the
/// device wrote down. A device that knows none may begin at any moment, as long as it never goes back: windows then
/// pass as they should, and only the resets that clients see are of another calendar.
#[derive(Debug)]
pub struct Clock {
    /// Unix milliseconds at `ticks`, and what was left over of a millisecond, in ticks times 1000.
    ms: u64,
    rest: u32,
    ticks: u32,
    hz: u32,
}

impl Clock {
    /// A clock that shows `now` at the tick `ticks` of a counter with `hz` ticks a second, 1 to 4,000,000.
    pub const fn new(now: Timestamp, ticks: u32, hz: u32) -> Self {
        Self { ms: now.unix_ms(), rest: 0, ticks, hz }
    }

    /// The time at the tick `ticks`.
    pub fn at(&mut self, ticks: u32) -> Timestamp {
        let passed = u64::from(ticks.wrapping_sub(self.ticks)) * 1000 + u64::from(self.rest);
        let hz = u64::from(self.hz);
        self.ms += passed / hz;
        self.rest = u32::try_from(passed % hz).unwrap_or(0);
        self.ticks = ticks;
        Timestamp::from_unix_ms(self.ms)
    }
}
