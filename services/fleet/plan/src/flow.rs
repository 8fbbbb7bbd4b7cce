//! How many lease requests an agent sends before it has the replies.
//!
//! A store with more requests than it can apply would answer all of them too late for the requests
//! of clients that wait. So the number adapts to how long replies take, as a TCP sender adapts to
//! its network: it doubles while replies are quick, is halved if one is slow, and then grows slowly
//! (RFC 5681). What is not sent waits in the machine, where it is not counted twice.

/// The most lease requests without a reply of one agent to one server.
pub const MOST_IN_FLIGHT: u32 = 512;

/// A reply that takes longer than this many milliseconds is slow. A client's request waits at most
/// twice as long.
pub const SLOW_MS: u64 = 10;

/// The number of lease requests that an agent begins with.
const FIRST: u32 = 16;

/// The number of lease requests that an agent may have in flight to one server.
#[derive(Clone, Debug)]
pub struct Flow {
    most: u32,
    /// Up to here, the number doubles.
    doubles_to: u32,
    /// Quick replies since the number last grew slowly.
    quick: u32,
    /// When the number was last halved. Requests that were sent before are no reason to halve it
    /// again.
    halved_ms: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self { most: FIRST, doubles_to: MOST_IN_FLIGHT, quick: 0, halved_ms: 0 }
    }
}

impl Flow {
    /// Returns how many lease requests may be in flight.
    pub const fn most(&self) -> u32 {
        self.most
    }

    /// Notes a reply to a request that was sent at `sent_ms`, or that the agent gave it up.
    pub fn replied(&mut self, sent_ms: u64, now_ms: u64) {
        if now_ms.saturating_sub(sent_ms) > SLOW_MS {
            if sent_ms >= self.halved_ms {
                self.most = (self.most / 2).max(1);
                (self.doubles_to, self.quick, self.halved_ms) = (self.most, 0, now_ms);
            }
            return;
        }
        self.quick += 1;
        if self.most < self.doubles_to || self.quick >= self.most {
            (self.most, self.quick) = ((self.most + 1).min(MOST_IN_FLIGHT), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_doubles_with_quick_replies() {
        let mut flow = Flow::default();
        for _ in 0..FIRST {
            flow.replied(0, 1);
        }
        assert_eq!(flow.most(), 2 * FIRST);
        (0..10_000).for_each(|_| flow.replied(0, 1));
        assert_eq!(flow.most(), MOST_IN_FLIGHT);
    }

    #[test]
    fn slow_replies_halve_the_number_once() {
        let mut flow = Flow::default();
        (0..10_000).for_each(|_| flow.replied(0, 1));
        (0..100).for_each(|_| flow.replied(100, 120));
        assert_eq!(flow.most(), MOST_IN_FLIGHT / 2, "all were sent before it was halved");
        flow.replied(120, 140);
        assert_eq!(flow.most(), MOST_IN_FLIGHT / 4);
        (0..MOST_IN_FLIGHT / 4).for_each(|_| flow.replied(200, 201));
        assert_eq!(flow.most(), MOST_IN_FLIGHT / 4 + 1, "it grows slowly");
        (1..100).for_each(|second| flow.replied(1000 * second, 1000 * second + 100));
        assert_eq!(flow.most(), 1);
    }
}
