//! The planner of one tally: how many units to request, and when to request or give back.
//!
//! It does no I/O, reads no clock and allocates nothing. The agent calls [`Planner::next`] when a
//! request reports a want of credits, when a message of the store arrives, and at
//! [`Planner::due_ms`]. It sends what `next` returns, and passes the reply to
//! [`Planner::replied`]. A planner that is lost, with its agent, costs nothing but its estimates:
//! everything that must hold is in the words of the tally.
//!
//! # Sizes
//! For each window, with the units `left` and the number of `machines` of the last reply, and this
//! machine's demand per second:
//!
//! ```text
//! lease = demand · min(1 s, window / 20), at least min(64, left / (8 · machines)),
//!         at most left / (2 · machines), at least 1
//! ```
//!
//! A request wants one lease more than the holding, and at least the cost that waits. Credits below
//! a third of a lease are low: more are requested ahead. So where limits are small or nearly spent,
//! leases have one unit, and each request of a client makes one lease request.

use keytally_core::MAX_QUOTAS;

use crate::credit::{CreditLayout, Units};
use crate::holding::{self, Applied};
use crate::meta::Meta;
use crate::request::{LeaseRequest, Reply, WINDOW_REFUSED};
use crate::words::{Word, Words, update_meta};

/// A lease request without a reply is given up after this many milliseconds, if replies come at
/// once. It becomes four times the duration of the last exchange, and doubles with each request
/// that is given up: a store that has more requests than it can apply would otherwise only apply
/// those that were given up.
pub const GIVE_UP_MS: u64 = 50;

/// A lease request without a reply is given up after this many milliseconds at the latest.
pub const LONGEST_GIVE_UP_MS: u64 = 1000;

/// At a store unlike the last one, an agent states what it holds and requests nothing for this many
/// milliseconds. Other machines state what they hold meanwhile.
pub const LEARNING_MS: u64 = 1000;

/// The least lease where the store has many units left.
pub const COMMON_LEASE: u32 = 64;

/// Idle credits are given back after this many milliseconds, if each machine's share of the limit
/// is at least [`COMMON_LEASE`].
pub const IDLE_MS: u64 = 15_000;

/// Idle credits are given back after this many milliseconds otherwise.
pub const SMALL_IDLE_MS: u64 = 2000;

/// The most milliseconds between two statements of a holding that get no reply.
pub const LONGEST_SETTLE_MS: u64 = 1000;

/// After an error of one lease request, no other one of its tally is sent for this many
/// milliseconds.
pub const FAILED_PAUSE_MS: u64 = 1000;

/// The assumed number of machines before the first reply.
const MACHINES: u32 = 8;

/// Plans the lease requests of one tally.
#[derive(Clone, Debug)]
pub struct Planner {
    /// The demand in thousandths of a unit per second.
    rate: u64,
    sampled_ms: u64,
    /// The units that were spent since the demand was sampled.
    spent: u64,
    /// Of them, those that the last sample had counted already, since requests waited for them.
    counted: u64,
    /// The credits of the longest window when the planner last looked, and when that was.
    seen: u32,
    seen_ms: u64,
    /// When credits were last spent, as far as the planner saw.
    active_ms: u64,
    /// When the open lease request was made.
    opened_ms: u64,
    /// After how many milliseconds it is given up.
    give_up_ms: u64,
    /// The cost that waits for the reply to the open lease request.
    waiting: u32,
    machines: [u32; MAX_QUOTAS],
    leases: [u32; MAX_QUOTAS],
    /// Until when exhausted windows are not requested again.
    exhausted_until_ms: u64,
    backoff_ms: u64,
    quiet_until_ms: u64,
    is_wanted: bool,
    is_claim_due: bool,
    /// When what was admitted without credits is stated again, if no reply has confirmed it.
    state_at_ms: u64,
    /// The time of a request that was given up, so that the store may count more than the holding;
    /// when to state it again, and after how long the next time.
    unsettled_ms: Option<u64>,
    settle_at_ms: u64,
    settle_after_ms: u64,
    /// Until when nothing is sent, since the store could not execute the last request.
    paused_until_ms: u64,
    recalled: [bool; MAX_QUOTAS],
    random: u64,
}

impl Planner {
    /// A planner without knowledge of the tally's use. `seed` spreads the retries of machines, and
    /// should differ between them.
    pub const fn new(seed: u64) -> Self {
        Self {
            rate: 0,
            sampled_ms: 0,
            spent: 0,
            counted: 0,
            seen: 0,
            seen_ms: 0,
            active_ms: 0,
            opened_ms: 0,
            give_up_ms: GIVE_UP_MS,
            waiting: 0,
            machines: [MACHINES; MAX_QUOTAS],
            leases: [1; MAX_QUOTAS],
            exhausted_until_ms: 0,
            backoff_ms: 0,
            quiet_until_ms: 0,
            is_wanted: false,
            is_claim_due: false,
            state_at_ms: 0,
            unsettled_ms: None,
            settle_at_ms: 0,
            settle_after_ms: GIVE_UP_MS,
            paused_until_ms: 0,
            recalled: [false; MAX_QUOTAS],
            random: seed,
        }
    }

    /// Notes that a request waits for credits, or found few of them.
    pub fn wanted(&mut self) {
        self.is_wanted = true;
    }

    /// Notes that the store runs out of units of the window at `index`, and needs those that this
    /// machine does not use.
    pub fn recalled(&mut self, index: usize) {
        if let Some(recalled) = self.recalled.get_mut(index) {
            *recalled = true;
        }
    }

    /// Notes that the store has forgotten units of some machine, so that each must state again what
    /// it holds.
    pub fn claim_again(&mut self) {
        self.is_claim_due = true;
    }

    /// Notes that the agent is connected to a store that may lack the last writes, or to a new one.
    /// The planner states what it holds, and requests nothing for [`LEARNING_MS`].
    pub fn reconnected<W: Words>(&mut self, words: &W, now_ms: u64) {
        self.lost(words, now_ms);
        self.is_claim_due = true;
        self.quiet_until_ms = now_ms.saturating_add(LEARNING_MS);
    }

    /// Closes the open lease request, if there is one: its reply will not arrive, since the
    /// connection broke. Unless another request follows, the holding is stated again, as the store
    /// may have granted more.
    pub fn lost<W: Words>(&mut self, words: &W, now_ms: u64) {
        if !Meta::from_bits(words.load(Word::Meta)).is_open() {
            return;
        }
        holding::close(words);
        self.is_wanted |= self.waiting > 0;
        self.unsettled_ms = Some(now_ms);
        self.settle_at_ms = now_ms.saturating_add(self.settle_after_ms);
        self.settle_after_ms = (2 * self.settle_after_ms).min(LONGEST_SETTLE_MS);
    }

    /// Closes the open lease request, which the store could not execute. The next one follows at
    /// least [`FAILED_PAUSE_MS`] later.
    pub fn failed<W: Words>(&mut self, words: &W, now_ms: u64) {
        self.lost(words, now_ms);
        self.paused_until_ms = now_ms.saturating_add(FAILED_PAUSE_MS);
    }

    /// Returns the lease request to send now, if there is one.
    pub fn next<W: Words>(
        &mut self,
        layout: &CreditLayout,
        words: &W,
        now_ms: u64,
    ) -> Option<LeaseRequest> {
        self.look(layout, words, now_ms);
        let meta = Meta::from_bits(words.load(Word::Meta));
        if meta.is_open() {
            if now_ms < self.opened_ms.saturating_add(self.give_up_ms) {
                return None;
            }
            self.give_up_ms = (2 * self.give_up_ms).min(LONGEST_GIVE_UP_MS);
            self.lost(words, now_ms);
        }
        if now_ms < self.paused_until_ms {
            return None;
        }
        let is_claimed =
            core::mem::take(&mut self.is_claim_due) && holding::is_held(layout, words, now_ms);
        if is_claimed || self.is_settling(layout, now_ms) {
            return self.open(layout, words, now_ms, &Units::default());
        }
        if let Some(request) = self.give_back(layout, words, now_ms) {
            self.opened_ms = now_ms;
            return Some(request);
        }
        if now_ms >= self.exhausted_until_ms && meta.is_any_exhausted() {
            update_meta(words, |meta| meta.with_exhausted([false; MAX_QUOTAS]));
        }
        if now_ms >= self.quiet_until_ms
            && core::mem::take(&mut self.is_wanted)
            && let Some(request) = self.request(layout, words, now_ms)
        {
            return Some(request);
        }
        // Any request states what was admitted without credits. Without one, it has its own.
        let is_unreserved = now_ms >= self.state_at_ms
            && holding::unreserved_ms(layout, words, now_ms).is_some_and(|at_ms| at_ms <= now_ms);
        is_unreserved.then(|| self.open(layout, words, now_ms, &Units::default())).flatten()
    }

    /// Applies a reply to `request`, which [`next`](Self::next) returned. The agent then wakes the
    /// requests that wait, and calls `next` again.
    pub fn replied<W: Words>(
        &mut self,
        layout: &CreditLayout,
        words: &W,
        now_ms: u64,
        request: &LeaseRequest,
        reply: &Reply,
    ) -> Applied {
        self.look(layout, words, now_ms);
        let applied = holding::apply(layout, words, now_ms, request, reply);
        let Applied::Granted(gained) = applied else {
            return applied;
        };
        self.waiting = 0;
        let took_ms = now_ms.saturating_sub(self.opened_ms);
        self.give_up_ms = took_ms.saturating_mul(4).clamp(GIVE_UP_MS, LONGEST_GIVE_UP_MS);
        (self.unsettled_ms, self.settle_after_ms) = (None, GIVE_UP_MS);
        let mut exhausted = [false; MAX_QUOTAS];
        let mut pause = None;
        for (index, window) in reply.windows.iter().enumerate().take(layout.len()) {
            let is_past = !layout.is_same_window(index, request.at_ms, now_ms);
            if is_past || window.machines == WINDOW_REFUSED {
                continue;
            }
            self.machines[index] = window.machines.unsigned_abs().max(1);
            exhausted[index] = window.left == 0;
            if exhausted[index] && pause.is_none() {
                pause = Some(self.pause_ms(layout.length_ms(index), gained[index] == 0));
            }
        }
        match pause {
            Some(pause) => self.exhausted_until_ms = now_ms.saturating_add(pause),
            None => self.backoff_ms = 0,
        }
        let credits = layout.current(words.load(Word::Credits), now_ms);
        // Requests that wait look again, and those that still lack credits add their cost again.
        let low_water = self.low_water(layout, &credits, &exhausted);
        update_meta(words, |meta| {
            meta.with_exhausted(exhausted).with_low_water(low_water).with_wanted(0)
        });
        (self.seen, self.seen_ms) = (longest(layout, &credits), now_ms);
        applied
    }

    /// Returns when [`next`](Self::next) must be called although nothing is reported, in Unix
    /// milliseconds.
    pub fn due_ms<W: Words>(&self, layout: &CreditLayout, words: &W) -> Option<u64> {
        let meta = Meta::from_bits(words.load(Word::Meta));
        if meta.is_open() {
            return Some(self.opened_ms.saturating_add(self.give_up_ms));
        }
        let quiet = self.is_wanted.then_some(self.quiet_until_ms);
        let settled = self.unsettled_ms.map(|_| self.settle_at_ms);
        let exhausted = meta.is_any_exhausted().then_some(self.exhausted_until_ms);
        let has_credits =
            layout.current(words.load(Word::Credits), self.seen_ms) != Units::default();
        let idle = has_credits.then(|| self.seen_ms.saturating_add(self.look_ms(layout)));
        let unreserved = holding::unreserved_ms(layout, words, self.seen_ms)
            .map(|at_ms| at_ms.max(self.state_at_ms));
        let due = [quiet, settled, exhausted, idle, unreserved].into_iter().flatten().min();
        due.map(|due_ms| due_ms.max(self.paused_until_ms))
    }

    /// Returns whether the holding must be stated again now, since a request was given up and no
    /// other followed. If its windows have passed, there is nothing to state.
    fn is_settling(&mut self, layout: &CreditLayout, now_ms: u64) -> bool {
        let longest = layout.len() - 1;
        self.unsettled_ms =
            self.unsettled_ms.filter(|&at_ms| layout.is_same_window(longest, at_ms, now_ms));
        // A request for credits states the holding too.
        self.unsettled_ms.is_some() && now_ms >= self.settle_at_ms && !self.is_wanted
    }

    /// Counts what was spent since the planner last looked.
    fn look<W: Words>(&mut self, layout: &CreditLayout, words: &W, now_ms: u64) {
        let credits = longest(layout, &layout.current(words.load(Word::Credits), now_ms));
        if layout.is_same_window(layout.len() - 1, self.seen_ms, now_ms) {
            let spent = self.seen.saturating_sub(credits);
            self.spent += u64::from(spent);
            if spent > 0 {
                self.active_ms = now_ms;
            }
        }
        (self.seen, self.seen_ms) = (credits, now_ms);
    }

    /// Gives back the credits that the store needs, and those that are idle.
    fn give_back<W: Words>(
        &mut self,
        layout: &CreditLayout,
        words: &W,
        now_ms: u64,
    ) -> Option<LeaseRequest> {
        let credits = layout.current(words.load(Word::Credits), now_ms);
        let idle_ms = now_ms.saturating_sub(self.active_ms);
        // A tenth of a second of this machine's own demand stays, rounded down: a unit that is
        // rarely needed here may be all that others lack.
        let kept = if idle_ms > 500 { 0 } else { tenth_of_second(self.rate) };
        let mut units = Units::default();
        for index in 0..layout.len() {
            let after_ms = self.idle_ms(layout, index);
            if core::mem::take(&mut self.recalled[index]) {
                units[index] = credits[index].saturating_sub(kept);
            } else if idle_ms >= after_ms - after_ms / 8 {
                units[index] = credits[index];
            }
            if units[index] > 0 {
                self.leases[index] = 1;
            }
        }
        if units == Units::default() {
            return None;
        }
        if kept == 0 {
            self.rate = 0;
        }
        let request = holding::give_back(layout, words, now_ms, &units)?;
        self.seen = longest(layout, &layout.current(words.load(Word::Credits), now_ms));
        Some(request)
    }

    /// Requests units for the windows that have few credits, or fewer than the cost that waits.
    fn request<W: Words>(
        &mut self,
        layout: &CreditLayout,
        words: &W,
        now_ms: u64,
    ) -> Option<LeaseRequest> {
        let meta = Meta::from_bits(words.load(Word::Meta));
        let wanted = meta.wanted().max(self.waiting);
        self.sample(wanted, now_ms);
        let credits = layout.current(words.load(Word::Credits), now_ms);
        let left = words.load(Word::Left);
        let mut more = Units::default();
        for index in 0..layout.len() {
            let known = layout.is_same_window(index, layout.stamp_ms(left), now_ms);
            let is_exhausted = known && meta.is_exhausted(index);
            let left = if known { layout.units(left, index) } else { layout.limit(index) };
            let lacking = wanted.saturating_sub(credits[index]);
            if is_exhausted && (lacking > 0 || credits[index] == 0) {
                // No request can be admitted, whatever the other windows get.
                update_meta(words, |meta| meta.with_wanted(0));
                self.waiting = 0;
                return None;
            }
            let lease = self.lease(layout.length_ms(index), left, index);
            let is_low = left > 0 && credits[index] <= lease / 3;
            if !is_exhausted && (lacking > 0 || is_low) {
                more[index] = lease.max(lacking);
                self.leases[index] = lease;
            }
        }
        if more == Units::default() {
            return None;
        }
        if wanted > 0 {
            self.active_ms = now_ms;
        }
        self.open(layout, words, now_ms, &more)
    }

    fn open<W: Words>(
        &mut self,
        layout: &CreditLayout,
        words: &W,
        now_ms: u64,
        more: &Units,
    ) -> Option<LeaseRequest> {
        let (request, wanted) = holding::open(layout, words, now_ms, more)?;
        (self.opened_ms, self.waiting) = (now_ms, wanted.max(self.waiting));
        self.state_at_ms = now_ms.saturating_add(GIVE_UP_MS);
        Some(request)
    }

    /// Estimates the demand: half of the last estimate, and half of what was spent since, or waits.
    fn sample(&mut self, wanted: u32, now_ms: u64) {
        let spent = self.spent.saturating_sub(self.counted);
        let elapsed_ms = now_ms.saturating_sub(self.sampled_ms).max(20);
        let rate = (spent + u64::from(wanted)).saturating_mul(1_000_000) / elapsed_ms;
        self.rate = if self.rate == 0 { rate } else { u64::midpoint(self.rate, rate) };
        (self.sampled_ms, self.spent, self.counted) = (now_ms, 0, wanted.into());
    }

    fn lease(&self, length_ms: u64, left: u32, index: usize) -> u32 {
        let machines = self.machines[index];
        let common = COMMON_LEASE.min(left / machines.saturating_mul(8));
        let demand = units(self.rate, (length_ms / 20).min(1000));
        demand.max(common).min(left / machines.saturating_mul(2)).max(1)
    }

    /// Returns the low water after a reply: the fewest credits of all windows at the moment when
    /// the first of them has a third of its lease left. A window of which the store has nothing
    /// left has no low water, and neither has a lease of one unit.
    fn low_water(
        &self,
        layout: &CreditLayout,
        credits: &Units,
        exhausted: &[bool; MAX_QUOTAS],
    ) -> u32 {
        let least = credits[..layout.len()].iter().copied().min().unwrap_or(0);
        let until = |index: usize| {
            let lease = self.leases[index];
            let low = lease / 3 + u32::from(lease > 1);
            (low > 0 && !exhausted[index]).then(|| credits[index].saturating_sub(low))
        };
        let spent = (0..layout.len()).filter_map(until).min();
        spent.map_or(0, |spent| least.saturating_sub(spent))
    }

    /// Returns after how long idle credits of a window are given back.
    fn idle_ms(&self, layout: &CreditLayout, index: usize) -> u64 {
        let share = layout.limit(index) / self.machines[index].max(1);
        let idle_ms = if share >= COMMON_LEASE { IDLE_MS } else { SMALL_IDLE_MS };
        idle_ms.min(layout.length_ms(index) / 4)
    }

    /// Returns how often the planner looks for idle credits: often enough that they are given back
    /// within the idle time.
    fn look_ms(&self, layout: &CreditLayout) -> u64 {
        let least = (0..layout.len()).map(|index| self.idle_ms(layout, index)).min();
        (least.unwrap_or(0) / 8).max(20)
    }

    /// Returns for how long an exhausted window of this length is not requested again: a sixtieth
    /// of the window, at least 20 ms and at most 1 s. It doubles up to four times that, while
    /// requests get nothing, and is spread at random.
    fn pause_ms(&mut self, length_ms: u64, got_nothing: bool) -> u64 {
        let base = (length_ms / 60).clamp(20, 1000);
        let mut pause = base;
        if got_nothing {
            pause = self.backoff_ms.clamp(base, 4 * base);
            self.backoff_ms = 2 * pause;
        }
        pause / 2 + self.random() % pause
    }

    /// Returns a pseudorandom number (SplitMix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Returns the units of the longest window.
fn longest(layout: &CreditLayout, units: &Units) -> u32 {
    units[layout.len() - 1]
}

/// Returns the units that a demand needs in a tenth of a second, rounded down.
fn tenth_of_second(rate: u64) -> u32 {
    u32::try_from(rate / 10_000).unwrap_or(u32::MAX)
}

/// Returns the units that a demand needs in a time, rounded up.
fn units(rate: u64, time_ms: u64) -> u32 {
    let thousandths = rate.saturating_mul(time_ms).div_ceil(1000);
    u32::try_from(thousandths.div_ceil(1000)).unwrap_or(u32::MAX)
}
