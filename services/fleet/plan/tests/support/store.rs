//! The store's script as a pure model: what `lease.lua` does to one window, in the same order.

use alloc::collections::BTreeMap;

use keytally_fleet_plan::lease::LEARNING_MS;
use keytally_fleet_plan::meta::{NUMBERS, is_newer};
use keytally_fleet_plan::request::{
    MOST_RECALLS, NUMBER_REFUSED, WINDOW_REFUSED, WindowReply, WindowRequest,
};

/// What the store knows of one machine in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holding {
    /// The number of the last request that was applied.
    pub(crate) number: u32,
    pub(crate) held: u32,
}

/// The hash of one window. Machines are named by numbers here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    /// The sum of all holdings.
    pub(crate) out: i64,
    pub(crate) machines: i32,
    /// Units that a reset added to the limit.
    pub(crate) extra: i64,
    /// Until when units are withheld, after the store lost writes.
    pub(crate) withheld_ms: u64,
    pub(crate) holdings: BTreeMap<u32, Holding>,
}

/// What a request publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    /// Whether all machines must state again what they hold.
    pub(crate) again: bool,
    /// The machines whose idle units are needed.
    pub(crate) recalls: Vec<u32>,
}

/// The parameters of the script that are the same for all requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) withhold_ms: u64,
    pub(crate) most_recalls: usize,
    /// Whether requests with an old number are refused. A test removes this rule.
    pub(crate) checks_numbers: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { withhold_ms: LEARNING_MS, most_recalls: MOST_RECALLS as usize, checks_numbers: true }
    }
}

impl Window {
    /// Applies the request of a machine for this window at the store's time.
    pub(crate) fn apply(
        &mut self,
        terms: &Terms,
        now_ms: u64,
        machine: u32,
        number: u32,
        request: &WindowRequest,
    ) -> (WindowReply, Published) {
        let mut published = Published::default();
        let WindowRequest { limit, hold, unreserved, want, begin_ms, end_ms } = *request;
        if !(begin_ms..end_ms).contains(&now_ms) {
            let reply = WindowReply { held: hold, left: 0, machines: WINDOW_REFUSED };
            return (reply, published);
        }
        let last = self.holdings.get(&machine).copied();
        let most = i64::from(limit) + self.extra;
        if terms.checks_numbers {
            match last {
                Some(last) if last.number == number % NUMBERS => {
                    let left = clamped(most - self.out);
                    let reply = WindowReply { held: last.held, left, machines: self.machines };
                    return (reply, published);
                }
                Some(last) if !is_newer(number, last.number) => {
                    let reply = WindowReply { held: hold, left: 0, machines: NUMBER_REFUSED };
                    return (reply, published);
                }
                _ => {}
            }
        }
        let had = last.map_or(0, |last| last.held);
        if hold - unreserved > had {
            if now_ms >= self.withheld_ms + terms.withhold_ms {
                self.withheld_ms = now_ms + terms.withhold_ms;
            }
            published.again = true;
        }
        let before = most - self.out;
        let free = before + i64::from(had) - i64::from(hold);
        let wanted = if now_ms >= self.withheld_ms { i64::from(want) - i64::from(hold) } else { 0 };
        let grant = wanted.min(free).max(0);
        let held = hold + clamped(grant);
        self.out += i64::from(held) - i64::from(had);
        if self.holdings.insert(machine, Holding { number, held }).is_none() {
            self.machines += 1;
        }
        let left = (free - grant).max(0);
        let has_fallen = before * 8 > i64::from(limit) && left * 8 <= i64::from(limit);
        if grant > 0 && self.machines > 1 && (left == 0 || has_fallen) {
            published.recalls = self.largest(machine, terms.most_recalls);
        }
        (WindowReply { held, left: clamped(left), machines: self.machines }, published)
    }

    /// Returns the other machines with the largest holdings above 1.
    fn largest(&self, machine: u32, most: usize) -> Vec<u32> {
        let others = self.holdings.iter().filter(|&(&name, last)| name != machine && last.held > 1);
        let mut others: Vec<_> = others.map(|(&name, last)| (last.held, name)).collect();
        others.sort_by_key(|&(held, name)| (core::cmp::Reverse(held), name));
        others.into_iter().take(most).map(|(_, name)| name).collect()
    }
}

fn clamped(units: i64) -> u32 {
    u32::try_from(units.max(0)).unwrap_or(u32::MAX)
}
