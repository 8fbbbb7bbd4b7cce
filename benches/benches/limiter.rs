//! The group `limiter`: the check of a subject, by number of subjects, their distribution over the
//! requests, their type, and the outcome.

use governor::clock::{DefaultClock, FakeRelativeClock, QuantaUpkeepClock};
use keytally_core::{CacheLine, OnFull, Outcome, Timestamp};
use rate_net::CoarseClock;
use siphasher::sip::SipHasher13;

use crate::floors::{PointerChase, count_up};
use crate::measure::{Admitted, Bench, Implementation, PART, calls, checks, is_admitted};
use crate::peers::{
    Governors, Locked, ONE_WINDOW, OneGovernor, Packed, Peer, Pingora, Quotas, RateNets, Sharded,
    StandingClock, Throttlecrabs, roomy_quotas,
};
use crate::tables::{limiter, smallest_limiter};
use crate::traffic::{self, Cycle, MINUTE_LIMIT, Name, Order, ROOMY, Random, START, Walk, index};

/// The numbers of subjects.
const SIZES: &[u32] = &[1, 1000, 10_000, 100_000, 1_000_000];

/// The least number of subjects for rows that read the clock. Fewer subjects would reach their
/// limits in the real minute of the measurement.
const LEAST_WITH_CLOCK: u32 = 1000;

/// Measures the group.
pub(crate) fn measure(bench: &mut Bench) {
    let sizes = bench.sizes(SIZES, &[1, 1000, 10_000, 1_000_000]);
    let others = bench.sizes(SIZES, &[1, 1000]);
    let about = "Both windows are checked and charged. All checks are admitted. The time includes reading, hashing and finding the subject.";
    let title = "Subjects of 40 bytes, all equally often, by their number";
    let mut table = bench.table("limiter/uniform", "ns", title, about);
    for size in sizes {
        let column = Column::new(*size, Order::Uniform, traffic::text);
        let mut implementations = column.with_time_given();
        implementations.push(column.peer::<Throttlecrabs>());
        if *size >= LEAST_WITH_CLOCK {
            implementations.extend(column.with_clock());
        }
        implementations.extend(column.parts());
        table.column_of(*size, implementations);
    }
    drop(table);
    let title =
        "Subjects of 40 bytes, some much more often than others (Zipf's law), by their number";
    let mut table = bench.table("limiter/zipf", "ns", title, about);
    for size in &others[1..] {
        let column = Column::new(*size, Order::Zipf, traffic::text);
        table.column_of(*size, column.with_time_given());
    }
    drop(table);
    let title = "Subjects that are numbers (u64), all equally often, by their number";
    let mut table = bench.table("limiter/numbers", "ns", title, about);
    for size in others {
        let column = Column::new(*size, Order::Uniform, traffic::number);
        table.column_of(*size, column.with_time_given());
    }
    drop(table);
    outcomes(bench);
    let capacities = bench.sizes(&[1000, 100_000, 1_000_000], &[1000, 1_000_000]);
    full_table(bench, capacities);
}

/// The subjects of a column, and their requests.
struct Column<N> {
    all_names: Vec<N>,
    /// The subjects in the order of their requests.
    names: Vec<N>,
    walk: Walk,
}

impl<N: Name> Column<N> {
    fn new(size: u32, order: Order, name: fn(u32) -> N) -> Self {
        let all_names: Vec<N> = (0..size).map(name).collect();
        let walk = Walk::new(size, order);
        let names = walk.numbers.iter().map(|&number| all_names[index(number)].clone()).collect();
        Self { all_names, names, walk }
    }

    /// Returns the capacity of a table for all subjects: 64 more, so that there are several
    /// buckets, and an eighth more, because a table for exactly a million subjects refuses some of
    /// them, whose buckets are full.
    fn capacity(&self) -> u32 {
        let size = u32::try_from(self.all_names.len()).expect("at most a million");
        size + size / 8 + 64
    }

    /// Returns checks that get the time from their caller.
    ///
    /// Each has a table of its own, because each has a clock of its own. The clock of one would be
    /// late for the tallies that another has charged.
    fn with_time_given(&self) -> Vec<Implementation<'_>> {
        let [plain, hashed] = [(); 2].map(|()| {
            let limiter = limiter(ROOMY, self.capacity());
            for name in &self.all_names {
                let verdict = name.bytes(|bytes| limiter.table().check(bytes, 1, START));
                assert!(verdict.is_admitted(), "there is room");
            }
            limiter
        });
        let subjects: Vec<_> = self
            .names
            .iter()
            .map(|name| name.bytes(|bytes| hashed.table().subject(bytes)))
            .collect();
        let (mut next, mut clock) = (Cycle::new(&self.names), self.walk.clock());
        let keytally = checks("keytally", Admitted::All, move || {
            let now = clock.next();
            is_admitted(&next.next().bytes(|bytes| plain.table().check(bytes, 1, now)))
        });
        let (mut number, mut clock) = (0, self.walk.clock());
        let check_subject = checks("keytally, subject hashed before", Admitted::All, move || {
            let subject = subjects[number];
            number = if number + 1 == subjects.len() { 0 } else { number + 1 };
            is_admitted(&hashed.table().check_subject(subject, 1, clock.next()))
        });
        vec![
            keytally,
            self.peer::<Governors<N, FakeRelativeClock>>(),
            self.peer::<Governors<N, FakeRelativeClock, foldhash::fast::RandomState>>(),
            self.peer::<RateNets<StandingClock>>(),
            self.peer::<Sharded<N>>(),
            self.peer::<Locked<N>>(),
            self.peer::<Packed<N>>(),
            self.peer::<Sharded<N, foldhash::fast::RandomState>>(),
            self.peer::<Sharded<N, ahash::RandomState>>(),
            self.peer::<Locked<N, foldhash::fast::RandomState>>(),
            self.peer::<Packed<N, foldhash::fast::RandomState>>(),
            check_subject.with_work("no hash"),
        ]
    }

    /// Returns checks that read the clock.
    fn with_clock(&self) -> Vec<Implementation<'_>> {
        vec![
            self.host("keytally, system clock", ROOMY).with_clock(),
            self.peer::<Governors<N, DefaultClock>>(),
            self.peer::<Governors<N, DefaultClock, foldhash::fast::RandomState>>(),
            self.peer::<Governors<N, QuantaUpkeepClock>>(),
            self.peer::<RateNets>(),
            self.peer::<RateNets<CoarseClock>>(),
            self.peer::<Quotas<N>>(),
            self.host("keytally, system clock, the minute alone", MINUTE)
                .with_clock()
                .with_work(ONE_WINDOW),
            self.peer::<OneGovernor<N>>(),
            self.peer::<Pingora>(),
        ]
    }

    /// Returns the checks of a service, whose limiter reads the system clock.
    fn host(&self, name: &'static str, policy: &str) -> Implementation<'_> {
        let policy = policy.parse().expect("a policy");
        let limiter = keytally::Limiter::in_memory(&policy, self.capacity()).expect("memory");
        for name in &self.all_names {
            let verdict = name.bytes(|bytes| limiter.check(bytes, 1));
            assert!(verdict.is_admitted(), "there is room");
        }
        let mut next = Cycle::new(&self.names);
        checks(name, Admitted::All, move || {
            is_admitted(&next.next().bytes(|bytes| limiter.check(bytes, 1)))
        })
    }

    /// Returns the checks of an alternative that knows all subjects.
    fn peer<'a, P: Peer<N> + 'a>(&'a self) -> Implementation<'a> {
        let peer = P::roomy(self.all_names.len());
        for name in &self.all_names {
            peer.check(name, START);
        }
        let (mut next, mut clock) = (Cycle::new(&self.names), self.walk.clock());
        let check = move || peer.check(next.next(), clock.next());
        checks(P::NAME, Admitted::All, check).with_kind(P::KIND)
    }

    /// Returns parts of the work alone.
    fn parts(&self) -> Vec<Implementation<'_>> {
        let mut chase = PointerChase::new(u32::try_from(self.all_names.len()).expect("a million"));
        let mut next = Cycle::new(&self.names);
        let mut parts = vec![
            calls("a dependent load from as many cache lines", move || chase.next()),
            calls("reading the subject alone", move || {
                next.next().bytes(|bytes| bytes.iter().fold(0, |sum: u8, byte| sum ^ byte))
            }),
        ];
        if self.all_names.len() == 1 {
            let (line, hasher) = (CacheLine::new(), SipHasher13::new_with_keys(1, 2));
            let mut next = Cycle::new(&self.names);
            parts.push(calls(
                "a bare compare-exchange loop on the word that SipHash finds",
                move || {
                    // The hash selects the word, so that the exchange depends on it, as in a table.
                    let hash = next.next().bytes(|bytes| hasher.hash(bytes));
                    count_up(&line, usize::from(hash.to_le_bytes()[0] & 7))
                },
            ));
        }
        parts.into_iter().map(|part| part.with_work(PART)).collect()
    }
}

/// The minute's limit of [`ROOMY`] alone.
const MINUTE: &str = "100000/minute";

/// Measures checks of subjects of which half, or all, have spent their minute.
fn outcomes(bench: &mut Bench) {
    const SIZE: u32 = 1000;
    let title = "1,000 subjects of 40 bytes, all equally often, by how many are denied";
    let about = "The time includes reading, hashing and finding the subject. A denied subject has spent its minute. Two governors then do not check the hour.";
    let mut table = bench.table("limiter/outcomes", "ns", title, about);
    let all_names: Vec<String> = (0..SIZE).map(traffic::text).collect();
    let walk = Walk::new(SIZE, Order::Uniform);
    let names: Vec<String> =
        walk.numbers.iter().map(|&number| all_names[index(number)].clone()).collect();
    for (column, expected, step) in [("half", Admitted::Half, 2), ("all", Admitted::None, 1)] {
        let spent_names = || all_names.iter().step_by(step);
        let cycle = || Cycle::new(&names);
        let mut implementations: Vec<Implementation<'_>> = Vec::new();

        let limiter = limiter(ROOMY, SIZE);
        let (mut next, mut minute) = (cycle(), SpentMinute::default());
        implementations.push(checks("keytally", expected, move || {
            let now = minute.next(|now| {
                for name in spent_names() {
                    limiter.table().check(name.as_bytes(), MINUTE_LIMIT, now);
                }
            });
            is_admitted(&limiter.table().check(next.next().as_bytes(), 1, now))
        }));

        // The clock of the governors stands still, so spent units do not return.
        let governors = Governors::standing_still(roomy_quotas());
        for name in spent_names() {
            governors.spend(name, u32::MAX);
        }
        let mut next = cycle();
        implementations.push(checks("two governors, no clock read", expected, move || {
            governors.check(next.next())
        }));

        let sharded = <Sharded<String>>::new([MINUTE_LIMIT, u32::MAX]);
        let (mut next, mut minute) = (cycle(), SpentMinute::default());
        implementations.push(checks("DashMap of counters", expected, move || {
            let now = minute.next(|now| {
                for name in spent_names() {
                    sharded.charge(name, MINUTE_LIMIT, now);
                }
            });
            sharded.charge(next.next(), 1, now)
        }));

        let locked = <Locked<String>>::new([MINUTE_LIMIT, u32::MAX]);
        let (mut next, mut minute) = (cycle(), SpentMinute::default());
        implementations.push(checks("Mutex<HashMap> of counters", expected, move || {
            let now = minute.next(|now| {
                for name in spent_names() {
                    locked.charge(name, MINUTE_LIMIT, now);
                }
            });
            locked.charge(next.next(), 1, now)
        }));
        table.column(column, implementations);
    }
}

/// A clock for subjects that have spent their minute. After [`REQUESTS`](Self::REQUESTS) requests,
/// it moves to the next hour, so that no hourly limit is reached, and the subjects spend their
/// minute again.
#[derive(Default)]
struct SpentMinute {
    hour: u64,
    requests: u64,
}

impl SpentMinute {
    /// The requests in each minute. Spending the limits again costs less than a thousandth of them.
    const REQUESTS: u64 = 1 << 20;

    /// Returns the time of the next request. At the start of a minute, calls `spend`.
    #[inline]
    fn next(&mut self, spend: impl FnOnce(Timestamp)) -> Timestamp {
        if self.requests.is_multiple_of(Self::REQUESTS) {
            self.requests = 0;
            self.hour += 1;
            spend(self.start());
        }
        self.requests += 1;
        Timestamp::from_unix_ms(self.start().unix_ms() + (self.requests >> 5))
    }

    #[inline]
    fn start(&self) -> Timestamp {
        Timestamp::from_unix_ms(START.unix_ms() + self.hour * 3_600_000)
    }
}

/// Measures a full table: checks of new subjects, which it refuses, and of the subjects in it.
fn full_table(bench: &mut Bench, sizes: &[u32]) {
    let title = "A full table, by its capacity in subjects";
    let about = "Subjects of 40 bytes. Refused: new subjects, for which the full table has no slot. In the table: the subjects of the full table. In one with room: the same subjects in a table of twice the capacity.";
    let mut table = bench.table("limiter/full", "ns", title, about);
    for size in sizes {
        let limiter = smallest_limiter(ROOMY, *size);
        limiter.set_on_full(OnFull::Refuse);
        let (mut refused, mut live) = (Vec::new(), Vec::<String>::new());
        let mut number = 0;
        while refused.len() < NEW_SUBJECTS {
            let text = traffic::text(number);
            match limiter.check(text.as_bytes(), 1, START).outcome() {
                Outcome::Full => refused.push(text),
                _ => live.push(text),
            }
            number += 1;
        }
        Random(1).shuffle(&mut live);
        // Copies the texts, so that they are in memory in the order of the requests.
        let [live, refused] =
            [live, refused].map(|texts| texts.iter().map(String::clone).collect::<Vec<_>>());
        let walk = Walk::new(*size, Order::Uniform);
        let (mut next, mut clock) = (Cycle::new(&refused), walk.clock());
        let refusal = checks("refused", Admitted::None, || {
            is_admitted(&limiter.check(next.next().as_bytes(), 1, clock.next()))
        });
        let (mut next, mut clock) = (Cycle::new(&live), walk.clock());
        let hit = checks("in the table", Admitted::All, || {
            is_admitted(&limiter.check(next.next().as_bytes(), 1, clock.next()))
        });
        let roomy = smallest_limiter(ROOMY, 2 * *size);
        for text in &live {
            assert!(roomy.check(text.as_bytes(), 1, START).is_admitted(), "there is room");
        }
        let (mut next, mut clock) = (Cycle::new(&live), walk.clock());
        let hit_with_room = checks("in one with room", Admitted::All, || {
            is_admitted(&roomy.check(next.next().as_bytes(), 1, clock.next()))
        });
        table.column_of(
            *size,
            vec![
                refusal.with_work("no slot is free"),
                hit.with_work("a hit"),
                hit_with_room.with_work("a hit"),
            ],
        );
    }
}

/// The number of refused subjects that are drawn for a full table.
const NEW_SUBJECTS: usize = 1 << 14;
