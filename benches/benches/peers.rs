//! The alternatives that Keytally is compared with. Each enforces an hourly and a minutely limit: a
//! crate whose limiter has one limit is used twice. The crates read their own clock, as they
//! do in an application, except [`FakeRelativeClock`]. The hand-written counters take the time from
//! the caller.
//!
//! To add an alternative, implement [`Peer`], and add a line to the lists of `limiter.rs`,
//! `contention.rs` and `flood.rs`. In README.md and docs/PERFORMANCE.md, a row of a table whose
//! first cell ends with a comment `TABLE: ROW` is filled with figures.

use core::hash::Hash;
use core::hint::black_box;
use core::num::NonZeroU32;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::Mutex;

use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use keytally_core::Timestamp;
use pingora_limits::rate::Rate;
use rate_net::{Eviction, RateLimiter as RateNet};
use ratelimit::Ratelimiter;

use crate::traffic::Name;

/// An alternative in the benchmarks whose checks are all admitted.
pub(crate) trait Peer<N>: Sync {
    /// The name of its rows.
    const NAME: &'static str;
    /// Whether each check reads a clock.
    const READS_CLOCK: bool;

    /// Creates it without subjects, and with limits that are never reached.
    fn roomy() -> Self;

    /// Checks and charges both limits.
    fn check(&self, subject: &N, now: Timestamp) -> bool;
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

type Governor<K, C> =
    RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Two keyed limiters of the crate `governor`. That of the minute is checked first. If it admits
/// and that of the hour denies, a unit of the minute is lost, because governor cannot give it back.
pub(crate) struct Governors<K: Hash + Eq + Clone, C: Clock> {
    minute: Governor<K, C>,
    hour: Governor<K, C>,
}

impl<K: Hash + Eq + Clone> Governors<K, DefaultClock> {
    pub(crate) fn new(quotas: [Quota; 2]) -> Self {
        let [minute, hour] = quotas.map(RateLimiter::dashmap);
        Self { minute, hour }
    }
}

impl<N: Name> Peer<N> for Governors<N, DefaultClock> {
    const NAME: &'static str = "two governors";
    const READS_CLOCK: bool = true;

    fn roomy() -> Self {
        Self::new(roomy_quotas())
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        Self::check(self, subject)
    }
}

/// The clock stands still, so that reading it costs nothing.
impl<N: Name> Peer<N> for Governors<N, FakeRelativeClock> {
    const NAME: &'static str = "two governors, no clock read";
    const READS_CLOCK: bool = false;

    fn roomy() -> Self {
        let clock = FakeRelativeClock::default();
        let [minute, hour] =
            roomy_quotas().map(|quota| RateLimiter::dashmap_with_clock(quota, clock.clone()));
        Self { minute, hour }
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        Self::check(self, subject)
    }
}

/// One limiter of the crate `governor`.
pub(crate) struct OneGovernor<N: Name>(Governor<N, DefaultClock>);

impl<N: Name> Peer<N> for OneGovernor<N> {
    const NAME: &'static str = "one governor: the minute alone";
    const READS_CLOCK: bool = true;

    fn roomy() -> Self {
        let [minute, _] = roomy_quotas();
        Self(RateLimiter::dashmap(minute))
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        self.0.check_key(subject).is_ok()
    }
}

impl<K: Hash + Eq + Clone, C: Clock> Governors<K, C> {
    /// Checks and charges both limits.
    #[inline]
    pub(crate) fn check(&self, key: &K) -> bool {
        self.minute.check_key(key).is_ok() && self.hour.check_key(key).is_ok()
    }

    /// Spends `units` of the minute, which must be unspent.
    pub(crate) fn spend(&self, key: &K, units: u32) {
        let spent = self.minute.check_key_n(key, NonZeroU32::new(units).expect("some"));
        spent.expect("not more than the burst").expect("unspent");
    }
}

/// Returns limits so high that no request is denied.
pub(crate) fn roomy_quotas() -> [Quota; 2] {
    [Quota::per_minute(NonZeroU32::MAX), Quota::per_hour(NonZeroU32::MAX)]
}

/// Returns limits that admit `burst` units and then one per hour. During a benchmark, spent units
/// do not return.
pub(crate) fn slow_quotas(burst: u32) -> [Quota; 2] {
    let burst = NonZeroU32::new(burst).expect("some");
    [HOUR, HOUR].map(|period| Quota::with_period(period).expect("some time").allow_burst(burst))
}

/// Two rate estimators of the crate `pingora-limits`. Their counts are approximate.
pub(crate) struct Pingora {
    minute: Rate,
    hour: Rate,
}

impl<N: Name> Peer<N> for Pingora {
    const NAME: &'static str = "two pingora-limits, approximate";
    const READS_CLOCK: bool = true;

    fn roomy() -> Self {
        Self { minute: Rate::new(MINUTE), hour: Rate::new(HOUR) }
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        let limit = black_box(isize::MAX);
        self.minute.observe(subject, 1) <= limit && self.hour.observe(subject, 1) <= limit
    }
}

/// Two limiters of the crate `rate-net`.
pub(crate) struct RateNets {
    minute: RateNet,
    hour: RateNet,
}

impl<N: Name> Peer<N> for RateNets {
    const NAME: &'static str = "two rate-net";
    const READS_CLOCK: bool = true;

    fn roomy() -> Self {
        let [minute, hour] = [MINUTE, HOUR].map(|period| {
            RateNet::builder().quota(u32::MAX, period).eviction(Eviction::unbounded()).build()
        });
        Self { minute, hour }
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        subject.bytes(|key| {
            self.minute.check_bytes(key).is_allow() && self.hour.check_bytes(key).is_allow()
        })
    }
}

/// Two of ratelimit's limiters, which have no keys.
pub(crate) struct Ratelimits {
    minute: Ratelimiter,
    hour: Ratelimiter,
}

impl<N: Name> Peer<N> for Ratelimits {
    const NAME: &'static str = "two ratelimit, without subjects";
    const READS_CLOCK: bool = true;

    fn roomy() -> Self {
        let of = |period| {
            let most = u64::from(u32::MAX);
            let limiter =
                Ratelimiter::builder(most).period(period).max_tokens(most).initial_available(most);
            limiter.build().expect("a limiter")
        };
        Self { minute: of(MINUTE), hour: of(HOUR) }
    }

    #[inline]
    fn check(&self, _: &N, _: Timestamp) -> bool {
        self.minute.try_wait().is_ok() && self.hour.try_wait().is_ok()
    }
}

/// Hand-written counts of the current minute and the current hour, each with the index of its
/// window. They are updated under a lock, so both are charged or neither is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    minute: (u64, u32),
    hour: (u64, u32),
}

impl Counts {
    #[inline]
    fn check(&mut self, cost: u32, now: Timestamp, limits: [u32; 2]) -> bool {
        let (minute, hour) = (now.unix_ms() / 60_000, now.unix_ms() / 3_600_000);
        if self.minute.0 != minute {
            self.minute = (minute, 0);
        }
        if self.hour.0 != hour {
            self.hour = (hour, 0);
        }
        let after = [self.minute.1, self.hour.1].map(|count| count.saturating_add(cost));
        let admitted = after[0] <= limits[0] && after[1] <= limits[1];
        if admitted {
            [self.minute.1, self.hour.1] = after;
        }
        admitted
    }
}

/// A map of hand-written counts behind one lock.
pub(crate) struct Locked<K> {
    counts: Mutex<HashMap<K, Counts>>,
    limits: [u32; 2],
}

impl<N: Name> Peer<N> for Locked<N> {
    const NAME: &'static str = "Mutex<HashMap> of counters";
    const READS_CLOCK: bool = false;

    fn roomy() -> Self {
        Self::new([u32::MAX; 2])
    }

    #[inline]
    fn check(&self, subject: &N, now: Timestamp) -> bool {
        Self::check(self, subject, 1, now)
    }
}

impl<K: Hash + Eq + Clone> Locked<K> {
    pub(crate) fn new(limits: [u32; 2]) -> Self {
        Self { counts: Mutex::default(), limits }
    }

    #[inline]
    pub(crate) fn check(&self, key: &K, cost: u32, now: Timestamp) -> bool {
        let mut counts = self.counts.lock().expect("no thread panics with the lock");
        match counts.get_mut(key) {
            Some(counts) => counts.check(cost, now, self.limits),
            None => counts.entry(key.clone()).or_default().check(cost, now, self.limits),
        }
    }
}

/// A map of hand-written counts behind one lock per part of the map.
pub(crate) struct Sharded<K: Hash + Eq> {
    counts: DashMap<K, Counts>,
    limits: [u32; 2],
}

impl<N: Name> Peer<N> for Sharded<N> {
    const NAME: &'static str = "DashMap of counters";
    const READS_CLOCK: bool = false;

    fn roomy() -> Self {
        Self::new([u32::MAX; 2])
    }

    #[inline]
    fn check(&self, subject: &N, now: Timestamp) -> bool {
        Self::check(self, subject, 1, now)
    }
}

impl<K: Hash + Eq + Clone> Sharded<K> {
    pub(crate) fn new(limits: [u32; 2]) -> Self {
        Self { counts: DashMap::new(), limits }
    }

    #[inline]
    pub(crate) fn check(&self, key: &K, cost: u32, now: Timestamp) -> bool {
        if let Some(mut counts) = self.counts.get_mut(key) {
            return counts.check(cost, now, self.limits);
        }
        self.counts.entry(key.clone()).or_default().check(cost, now, self.limits)
    }
}
