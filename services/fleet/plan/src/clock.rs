//! The fleet's time: the local clock with the store's offset.

/// Computes the fleet's time from the store's times in its replies, so that the windows of all
/// machines begin at the same moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct FleetClock {
    offset_ms: i64,
    /// The duration of the exchange that the offset comes from, and when it ended.
    round_trip_ms: u64,
    measured_ms: Option<u64>,
    last_ms: u64,
}

/// After this many milliseconds, an exchange that took longer replaces the offset too, since clocks
/// drift.
const FRESH_MS: u64 = 10_000;

impl FleetClock {
    /// A clock without an offset.
    pub const fn new() -> Self {
        Self { offset_ms: 0, round_trip_ms: 0, measured_ms: None, last_ms: 0 }
    }

    /// Notes a reply: the local times at which the request was sent and the reply received, and the
    /// store's time in it. The store is taken to have read its clock halfway.
    pub fn replied(&mut self, sent_ms: u64, received_ms: u64, store_ms: u64) {
        let round_trip_ms = received_ms.saturating_sub(sent_ms);
        let is_fresh = self.measured_ms.is_some_and(|at| received_ms.saturating_sub(at) < FRESH_MS);
        if is_fresh && round_trip_ms > self.round_trip_ms {
            return;
        }
        self.offset_ms = store_ms.wrapping_sub(sent_ms + round_trip_ms / 2).cast_signed();
        (self.round_trip_ms, self.measured_ms) = (round_trip_ms, Some(received_ms));
    }

    /// Returns the fleet's time at a local time. It never steps back.
    pub fn at(&mut self, local_ms: u64) -> u64 {
        self.last_ms = local_ms.saturating_add_signed(self.offset_ms).max(self.last_ms);
        self.last_ms
    }

    /// Returns how many milliseconds the store's clock is ahead of the local one.
    pub const fn offset_ms(&self) -> i64 {
        self.offset_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_is_that_of_the_shortest_recent_exchange() {
        let mut clock = FleetClock::new();
        assert_eq!((clock.at(1000), clock.offset_ms()), (1000, 0));
        clock.replied(1000, 1010, 4005);
        assert_eq!((clock.offset_ms(), clock.at(1010)), (3000, 4010));
        clock.replied(2000, 2100, 6000);
        assert_eq!(clock.offset_ms(), 3000, "a longer exchange says less");
        clock.replied(2200, 2202, 5101);
        assert_eq!(clock.offset_ms(), 2900);
        assert_eq!(clock.at(1011), 4010, "it does not step back");
        clock.replied(20_000, 20_100, 23_000);
        assert_eq!(clock.offset_ms(), 2950, "the last one is too old");
    }

    #[test]
    fn store_may_be_behind() {
        let mut clock = FleetClock::new();
        clock.replied(10_000, 10_000, 9000);
        assert_eq!((clock.offset_ms(), clock.at(10_500)), (-1000, 9500));
    }
}
