//! The alternatives that Keytally is compared with. Each enforces an hourly and a minutely limit: a
//! crate whose limiter has one limit is used twice. The crates read their own clock, as they do in
//! an application. Where a crate can do without, another row has it with a clock that stands still.
//! The hand-written counters and throttlecrab take the time from the caller.
//!
//! governor, quota, rate-net and throttlecrab fill a bucket steadily (GCRA, token bucket) instead
//! of counting in windows. None of them can charge two limits or neither.
//!
//! To add an alternative, implement [`Peer`], and add a line to the lists of `limiter.rs`,
//! `contention.rs` and `flood.rs`. In README.md and docs/PERFORMANCE.md, a row of a table whose
//! first cell ends with a comment `TABLE: ROW` is filled with figures.

#![expect(clippy::disallowed_types, reason = "one alternative is a map of atomics")]

use alloc::sync::Arc;
use core::hash::{BuildHasher, Hash};
use core::hint::black_box;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::{LazyLock, Mutex};

use clock_lib::{Clock as RateNetClock, ManualClock, SystemClock};

use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock, FakeRelativeClock, QuantaUpkeepClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use keytally::TimestampExt as _;
use keytally_core::Timestamp;
use papaya::ResizeMode;
use pingora_limits::rate::Rate;
use quota::{QuotaPolicy, QuotaPool, RefillRate};
use rate_net::{CoarseClock, Eviction, RateLimiter as RateNet};
use throttlecrab::PeriodicStore;

use crate::measure::Kind;
use crate::traffic::{HOUR_LIMIT, MINUTE_LIMIT, Name};

/// The work of implementations that enforce the limit per minute only.
pub(crate) const ONE_WINDOW: &str = "one window";

/// An alternative in the benchmarks whose checks are all admitted.
pub(crate) trait Peer<N>: Sync {
    /// The name of its rows.
    const NAME: &'static str;
    /// What a check does.
    const KIND: Kind;

    /// Creates it without subjects, and with limits that are never reached. `subjects` is the
    /// number that will be added, for those with a fixed size.
    fn roomy(subjects: usize) -> Self;

    /// Checks and charges both limits.
    fn check(&self, subject: &N, now: Timestamp) -> bool;
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

type Governor<K, C, S> =
    RateLimiter<K, DashMapStateStore<K, S>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Two keyed limiters of the crate `governor`. That of the minute is checked first. If it admits
/// and that of the hour denies, a unit of the minute is lost, because governor cannot give it back.
pub(crate) struct Governors<K: Hash + Eq + Clone, C: Clock, S: BuildHasher + Clone = RandomState> {
    minute: Governor<K, C, S>,
    hour: Governor<K, C, S>,
}

impl<K: Hash + Eq + Clone, C: Clock + Clone, S: BuildHasher + Clone + Default> Governors<K, C, S> {
    /// Creates governors whose maps have room for a number of subjects.
    fn with_room(quotas: [Quota; 2], clock: &C, subjects: usize) -> Self {
        let [minute, hour] = quotas.map(|quota| {
            let map = DashMap::with_capacity_and_hasher(subjects, S::default());
            RateLimiter::new(quota, map, clock.clone())
        });
        Self { minute, hour }
    }
}

impl<K: Hash + Eq + Clone> Governors<K, DefaultClock> {
    pub(crate) fn new(quotas: [Quota; 2]) -> Self {
        Self::with_room(quotas, &DefaultClock::default(), 0)
    }
}

impl<K: Hash + Eq + Clone> Governors<K, FakeRelativeClock> {
    /// Creates governors with a clock that stands still, so that reading it costs nothing.
    pub(crate) fn standing_still(quotas: [Quota; 2]) -> Self {
        Self::with_room(quotas, &FakeRelativeClock::default(), 0)
    }
}

/// The interval at which a thread sets a clock: the tick of many kernels.
const TICK: Duration = Duration::from_millis(4);

/// The clock that a thread sets. The process has at most one such thread, which does not end.
static UPKEEP_CLOCK: LazyLock<QuantaUpkeepClock> =
    LazyLock::new(|| QuantaUpkeepClock::from_interval(TICK).expect("a thread"));

/// Implements [`Peer`] for governors with a clock and a hasher.
macro_rules! governors {
    ($($name:literal: $clock:ty, $hasher:ty, $kind:expr, $new:expr;)+) => {$(
        impl<N: Name> Peer<N> for Governors<N, $clock, $hasher> {
            const NAME: &'static str = $name;
            const KIND: Kind = $kind;

            fn roomy(subjects: usize) -> Self {
                Self::with_room(roomy_quotas(), &$new, subjects)
            }

            #[inline]
            fn check(&self, subject: &N, _: Timestamp) -> bool {
                Self::check(self, subject)
            }
        }
    )+};
}

governors! {
    "two governors": DefaultClock, RandomState, Kind::CLOCK_READ, DefaultClock::default();
    "two governors, foldhash":
        DefaultClock, foldhash::fast::RandomState, Kind::CLOCK_READ, DefaultClock::default();
    "two governors, clock of a thread":
        QuantaUpkeepClock, RandomState, Kind::CLOCK_READ, UPKEEP_CLOCK;
    "two governors, no clock read":
        FakeRelativeClock, RandomState, Kind::TIME_GIVEN, FakeRelativeClock::default();
    "two governors, foldhash, no clock read":
        FakeRelativeClock, foldhash::fast::RandomState, Kind::TIME_GIVEN,
        FakeRelativeClock::default();
}

/// One limiter of the crate `governor`.
pub(crate) struct OneGovernor<N: Name>(Governor<N, DefaultClock, RandomState>);

impl<N: Name> Peer<N> for OneGovernor<N> {
    const NAME: &'static str = "one governor";
    const KIND: Kind = Kind { reads_clock: true, work: ONE_WINDOW };

    fn roomy(_: usize) -> Self {
        let [minute, _] = roomy_quotas();
        Self(RateLimiter::dashmap(minute))
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        self.0.check_key(subject).is_ok()
    }
}

impl<K: Hash + Eq + Clone, C: Clock, S: BuildHasher + Clone> Governors<K, C, S> {
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

/// Two rate estimators of the crate `pingora-limits`. Their counts are approximate.
pub(crate) struct Pingora {
    minute: Rate,
    hour: Rate,
}

impl<N: Name> Peer<N> for Pingora {
    const NAME: &'static str = "two pingora-limits";
    const KIND: Kind = Kind { reads_clock: true, work: "estimates" };

    fn roomy(_: usize) -> Self {
        Self { minute: Rate::new(MINUTE), hour: Rate::new(HOUR) }
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        let limit = black_box(isize::MAX);
        self.minute.observe(subject, 1) <= limit && self.hour.observe(subject, 1) <= limit
    }
}

/// Two limiters of the crate `rate-net`.
pub(crate) struct RateNets<C: RateNetClock + Clone = SystemClock> {
    minute: RateNet<C>,
    hour: RateNet<C>,
}

impl<C: RateNetClock + Clone> RateNets<C> {
    fn new(clock: &C) -> Self {
        let [minute, hour] = [MINUTE, HOUR].map(|period| {
            let builder = RateNet::builder().quota(u32::MAX, period);
            builder.eviction(Eviction::unbounded()).clock(clock.clone()).build()
        });
        Self { minute, hour }
    }

    #[inline]
    fn check(&self, subject: &impl Name) -> bool {
        subject.bytes(|key| {
            self.minute.check_bytes(key).is_allow() && self.hour.check_bytes(key).is_allow()
        })
    }
}

impl<N: Name> Peer<N> for RateNets {
    const NAME: &'static str = "two rate-net";
    const KIND: Kind = Kind::CLOCK_READ;

    fn roomy(_: usize) -> Self {
        Self::new(&SystemClock)
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        Self::check(self, subject)
    }
}

/// A clock that stands still.
pub(crate) type StandingClock = Arc<ManualClock>;

impl<N: Name> Peer<N> for RateNets<StandingClock> {
    const NAME: &'static str = "two rate-net, no clock read";
    const KIND: Kind = Kind::TIME_GIVEN;

    fn roomy(_: usize) -> Self {
        Self::new(&Arc::new(ManualClock::new()))
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        Self::check(self, subject)
    }
}

impl<N: Name> Peer<N> for RateNets<CoarseClock> {
    const NAME: &'static str = "two rate-net, clock of a thread";
    const KIND: Kind = Kind::CLOCK_READ;

    fn roomy(_: usize) -> Self {
        Self::new(&CoarseClock::spawn(TICK).expect("a thread"))
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        Self::check(self, subject)
    }
}

/// Two pools of the crate `quota`.
pub(crate) struct Quotas<N: Name> {
    minute: QuotaPool<N>,
    hour: QuotaPool<N>,
}

impl<N: Name> Peer<N> for Quotas<N> {
    const NAME: &'static str = "two quota";
    const KIND: Kind = Kind::CLOCK_READ;

    fn roomy(subjects: usize) -> Self {
        let [minute, hour] = [RefillRate::per_minute(u32::MAX), RefillRate::per_hour(u32::MAX)]
            .map(|rate| {
                let policy =
                    QuotaPolicy::new().set_capacity(f64::from(u32::MAX)).set_refill_rate(rate);
                QuotaPool::with_capacity(policy, u64::from(u32::MAX), subjects)
            });
        Self { minute, hour }
    }

    #[inline]
    fn check(&self, subject: &N, _: Timestamp) -> bool {
        self.minute.check(subject, 1) && self.hour.check(subject, 1)
    }
}

/// Two limiters of the crate `throttlecrab`. A check needs exclusive access, so a lock is around
/// them.
pub(crate) struct Throttlecrabs(Mutex<[throttlecrab::RateLimiter<PeriodicStore>; 2]>);

impl Peer<String> for Throttlecrabs {
    const NAME: &'static str = "two throttlecrab under a Mutex";
    const KIND: Kind = Kind::TIME_GIVEN;

    fn roomy(subjects: usize) -> Self {
        let new = || throttlecrab::RateLimiter::new(PeriodicStore::with_capacity(subjects));
        Self(Mutex::new([new(), new()]))
    }

    #[inline]
    fn check(&self, subject: &String, now: Timestamp) -> bool {
        const MOST: i64 = u32::MAX as i64;
        let now = now.to_system_time();
        let mut limiters = self.0.lock().expect("no thread panics with the lock");
        limiters.iter_mut().zip([60, 3600]).all(|(limiter, period_s)| {
            limiter
                .rate_limit(subject, MOST, MOST, period_s, 1, now)
                .is_ok_and(|(is_allowed, _)| is_allowed)
        })
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
pub(crate) struct Locked<N, S = RandomState> {
    counts: Mutex<HashMap<N, Counts, S>>,
    limits: [u32; 2],
}

impl<N: Name, S: BuildHasher + Default> Locked<N, S> {
    pub(crate) fn new(limits: [u32; 2]) -> Self {
        Self::with_room(limits, 0)
    }

    /// Creates a map with room for a number of subjects.
    fn with_room(limits: [u32; 2], subjects: usize) -> Self {
        let counts = HashMap::with_capacity_and_hasher(subjects, S::default());
        Self { counts: Mutex::new(counts), limits }
    }

    #[inline]
    pub(crate) fn charge(&self, subject: &N, cost: u32, now: Timestamp) -> bool {
        let mut counts = self.counts.lock().expect("no thread panics with the lock");
        match counts.get_mut(subject) {
            Some(counts) => counts.check(cost, now, self.limits),
            None => counts.entry(subject.clone()).or_default().check(cost, now, self.limits),
        }
    }
}

/// A map of hand-written counts behind one lock per part of the map.
pub(crate) struct Sharded<N: Name, S = RandomState> {
    counts: DashMap<N, Counts, S>,
    limits: [u32; 2],
}

impl<N: Name, S: BuildHasher + Default + Clone> Sharded<N, S> {
    pub(crate) fn new(limits: [u32; 2]) -> Self {
        Self::with_room(limits, 0)
    }

    /// Creates a map with room for a number of subjects.
    fn with_room(limits: [u32; 2], subjects: usize) -> Self {
        let counts = DashMap::with_capacity_and_hasher(subjects, S::default());
        Self { counts, limits }
    }

    #[inline]
    pub(crate) fn charge(&self, subject: &N, cost: u32, now: Timestamp) -> bool {
        if let Some(mut counts) = self.counts.get_mut(subject) {
            return counts.check(cost, now, self.limits);
        }
        self.counts.entry(subject.clone()).or_default().check(cost, now, self.limits)
    }
}

/// A lock-free map of words. Each has the counts of the current minute and of the current hour, and
/// is charged by a compare-exchange loop.
pub(crate) struct Packed<N, S = RandomState> {
    words: papaya::HashMap<N, AtomicU64, S>,
    limits: [u32; 2],
}

impl<N: Name, S: BuildHasher + Default> Packed<N, S> {
    /// Creates a map with room for a number of subjects. Each limit is below 2^20.
    fn with_room(limits: [u32; 2], subjects: usize) -> Self {
        // Otherwise, entries move to a larger table only during later insertions. Here there are
        // none, so each check would search two tables.
        let words = papaya::HashMap::builder().capacity(subjects).resize_mode(ResizeMode::Blocking);
        Self { words: words.hasher(S::default()).build(), limits }
    }

    /// The bits of each count. Above them are 24 bits for the index of the minute.
    const COUNT_BITS: u32 = 20;
    const COUNT: u64 = (1 << Self::COUNT_BITS) - 1;

    #[inline]
    pub(crate) fn charge(&self, subject: &N, cost: u32, now: Timestamp) -> bool {
        let words = self.words.pin();
        let word = match words.get(subject) {
            Some(word) => word,
            None => words.get_or_insert_with(subject.clone(), AtomicU64::default),
        };
        let minute = now.unix_ms() / 60_000 % (1 << 24);
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let seen_minute = seen >> (2 * Self::COUNT_BITS);
            let is_hour = seen_minute / 60 == minute / 60;
            let of_hour = if is_hour { seen & Self::COUNT } else { 0 };
            let is_minute = seen_minute == minute;
            let of_minute = if is_minute { seen >> Self::COUNT_BITS & Self::COUNT } else { 0 };
            let after = [of_minute, of_hour].map(|count| count + u64::from(cost));
            if after.iter().zip(self.limits).any(|(count, limit)| *count > u64::from(limit)) {
                return false;
            }
            let next = (minute << Self::COUNT_BITS | after[0]) << Self::COUNT_BITS | after[1];
            match word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
    }
}

/// Implements [`Peer`] for hand-written counts with a hasher.
macro_rules! counts {
    ($($name:literal: $counts:ident<$hasher:ty>;)+) => {$(
        impl<N: Name> Peer<N> for $counts<N, $hasher> {
            const NAME: &'static str = $name;
            const KIND: Kind = Kind::TIME_GIVEN;

            fn roomy(subjects: usize) -> Self {
                Self::with_room([MINUTE_LIMIT, HOUR_LIMIT], subjects)
            }

            #[inline]
            fn check(&self, subject: &N, now: Timestamp) -> bool {
                self.charge(subject, 1, now)
            }
        }
    )+};
}

// `RandomState` is SipHash-1-3, which Keytally uses, too. Clients that know the seed of another
// hasher can choose subjects that share a bucket. rate-net, quota, throttlecrab and pingora-limits
// use ahash, and their callers cannot replace it.
counts! {
    "DashMap of counters": Sharded<RandomState>;
    "DashMap of counters, foldhash": Sharded<foldhash::fast::RandomState>;
    "DashMap of counters, ahash": Sharded<ahash::RandomState>;
    "Mutex<HashMap> of counters": Locked<RandomState>;
    "Mutex<HashMap> of counters, foldhash": Locked<foldhash::fast::RandomState>;
    "papaya of packed words": Packed<RandomState>;
    "papaya of packed words, foldhash": Packed<foldhash::fast::RandomState>;
}
