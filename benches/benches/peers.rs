//! The alternatives that Keytally is compared with. Those that can are stacked or written to
//! enforce both an hourly and a minutely limit, which is the task. All read their own clock, as
//! they do in use, except the hand-written counters.

use core::hash::Hash;
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

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

type Governor<K, C> =
    RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Two keyed governors, of which the minute's is checked first. If the minute admits and the hour
/// denies, a unit of the minute is lost: governor cannot give it back.
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

impl<K: Hash + Eq + Clone> Governors<K, FakeRelativeClock> {
    /// Uses a clock that stands still and costs nothing.
    pub(crate) fn without_clock(quotas: [Quota; 2]) -> Self {
        let clock = FakeRelativeClock::default();
        let [minute, hour] =
            quotas.map(|quota| RateLimiter::dashmap_with_clock(quota, clock.clone()));
        Self { minute, hour }
    }
}

impl<K: Hash + Eq + Clone, C: Clock> Governors<K, C> {
    #[inline]
    pub(crate) fn check(&self, key: &K) -> bool {
        self.check_one(key) && self.hour.check_key(key).is_ok()
    }

    /// Checks the minute alone.
    #[inline]
    pub(crate) fn check_one(&self, key: &K) -> bool {
        self.minute.check_key(key).is_ok()
    }

    /// Spends all `units` of the minute.
    pub(crate) fn spend(&self, key: &K, units: u32) {
        let spent = self.minute.check_key_n(key, NonZeroU32::new(units).expect("some"));
        spent.expect("not more than the burst").expect("unspent");
    }
}

/// Limits so high that no request is denied.
pub(crate) fn roomy_quotas() -> [Quota; 2] {
    [Quota::per_minute(NonZeroU32::MAX), Quota::per_hour(NonZeroU32::MAX)]
}

/// A burst of `burst`, then one unit per hour: during a benchmark, what is spent stays spent.
pub(crate) fn slow_quotas(burst: u32) -> [Quota; 2] {
    let burst = NonZeroU32::new(burst).expect("some");
    [HOUR, HOUR].map(|period| Quota::with_period(period).expect("some time").allow_burst(burst))
}

/// Two of pingora's rate estimators, which admit or deny approximately.
pub(crate) struct Pingora {
    minute: Rate,
    hour: Rate,
}

impl Pingora {
    pub(crate) fn new() -> Self {
        Self { minute: Rate::new(MINUTE), hour: Rate::new(HOUR) }
    }

    #[inline]
    pub(crate) fn check<K: Hash>(&self, key: &K, limit: isize) -> bool {
        self.minute.observe(key, 1) <= limit && self.hour.observe(key, 1) <= limit
    }
}

/// Two of rate-net's limiters.
pub(crate) struct RateNets {
    minute: RateNet,
    hour: RateNet,
}

impl RateNets {
    pub(crate) fn new(limit: u32) -> Self {
        let [minute, hour] = [MINUTE, HOUR].map(|period| {
            RateNet::builder().quota(limit, period).eviction(Eviction::unbounded()).build()
        });
        Self { minute, hour }
    }

    #[inline]
    pub(crate) fn check(&self, key: &[u8]) -> bool {
        self.minute.check_bytes(key).is_allow() && self.hour.check_bytes(key).is_allow()
    }
}

/// Two of ratelimit's limiters, which have no keys.
pub(crate) struct Ratelimits {
    minute: Ratelimiter,
    hour: Ratelimiter,
}

impl Ratelimits {
    pub(crate) fn new() -> Self {
        let of = |period| {
            let most = u64::from(u32::MAX);
            let limiter =
                Ratelimiter::builder(most).period(period).max_tokens(most).initial_available(most);
            limiter.build().expect("a limiter")
        };
        Self { minute: of(MINUTE), hour: of(HOUR) }
    }

    #[inline]
    pub(crate) fn check(&self) -> bool {
        self.minute.try_wait().is_ok() && self.hour.try_wait().is_ok()
    }
}

/// Hand-written counts of an hour's and a minute's window. They are updated under a lock, so both
/// are charged or neither is.
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

/// A map of counters behind one lock.
pub(crate) struct Locked<K> {
    counts: Mutex<HashMap<K, Counts>>,
    limits: [u32; 2],
}

impl<K: Hash + Eq + Clone> Locked<K> {
    pub(crate) fn new(limits: [u32; 2]) -> Self {
        Self { counts: Mutex::default(), limits }
    }

    #[inline]
    pub(crate) fn check(&self, key: &K, cost: u32, now: Timestamp) -> bool {
        let mut counts = self.counts.lock().expect("no holder panics");
        match counts.get_mut(key) {
            Some(counts) => counts.check(cost, now, self.limits),
            None => counts.entry(key.clone()).or_default().check(cost, now, self.limits),
        }
    }
}

/// A map of counters behind many locks.
pub(crate) struct Sharded<K: Hash + Eq> {
    counts: DashMap<K, Counts>,
    limits: [u32; 2],
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
