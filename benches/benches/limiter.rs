//! The group `limiter`: the check of a subject, by number of subjects, their distribution over the
//! requests, their type, and the outcome.

use core::hint::black_box;

use governor::clock::{DefaultClock, FakeRelativeClock};
use keytally_core::{Outcome, Timestamp};

use crate::floors::{PointerChase, count_up};
use crate::measure::{Admitted, Bench, Implementation, Table, calls, checks, is_admitted};
use crate::peers::{
    Governors, Locked, OneGovernor, Peer, Pingora, RateNets, Ratelimits, Sharded, slow_quotas,
};
use crate::tables::limiter;
use crate::traffic::{self, Cycle, MINUTE_LIMIT, Name, Order, ROOMY, Random, START, Walk, index};

/// The numbers of subjects.
const SIZES: &[u32] = &[1, 1000, 100_000, 1_000_000];

/// Measures the group.
pub(crate) fn measure(bench: &mut Bench) {
    let sizes = bench.sizes(SIZES, &[1, 1000, 1_000_000]);
    let about = "Both windows are checked and charged. All checks are admitted. The time includes reading, hashing and finding the subject.";
    let title = "Subjects of 40 bytes, all equally often, by their number";
    let mut table = bench.table("limiter/uniform", "ns", title, about);
    for size in sizes {
        admitted_checks(&mut table, *size, Order::Uniform, traffic::text);
    }
    drop(table);
    let others = bench.sizes(SIZES, &[1, 1000]);
    let title =
        "Subjects of 40 bytes, some much more often than others (Zipf's law), by their number";
    let mut table = bench.table("limiter/zipf", "ns", title, about);
    for size in &others[1..] {
        admitted_checks(&mut table, *size, Order::Zipf, traffic::text);
    }
    drop(table);
    let title = "Subjects that are numbers (u64), all equally often, by their number";
    let mut table = bench.table("limiter/numbers", "ns", title, about);
    for size in others {
        admitted_checks(&mut table, *size, Order::Uniform, traffic::number);
    }
    drop(table);
    outcomes(bench);
    full_table(bench, &sizes[1..]);
}

/// Adds a column: checks of `size` subjects, all admitted.
fn admitted_checks<N: Name>(table: &mut Table<'_>, size: u32, order: Order, name: fn(u32) -> N) {
    let all_names: Vec<N> = (0..size).map(name).collect();
    let walk = Walk::new(size, order);
    let names: Vec<N> =
        walk.numbers.iter().map(|&number| all_names[index(number)].clone()).collect();

    // Each row has a limiter of its own, because each has its own clock: the clock of one row would
    // otherwise be late for the tallies that another has charged.
    let [plain, hashed, clocked] = [(); 3].map(|()| {
        // 64 more, so that there are several buckets. A sixteenth more, because a table for exactly
        // a million subjects refuses some of them, whose buckets are full.
        let limiter = limiter(ROOMY, size + size / 16 + 64);
        for name in &all_names {
            assert!(
                name.bytes(|bytes| limiter.check(bytes, 1, START)).is_admitted(),
                "there is room"
            );
        }
        limiter
    });
    let subjects: Vec<_> =
        names.iter().map(|name| name.bytes(|bytes| hashed.subject(bytes))).collect();

    let cycle = || Cycle::new(&names);
    let mut implementations: Vec<Implementation<'_>> = Vec::new();
    let (mut next, mut clock) = (cycle(), walk.clock());
    implementations.push(checks("keytally", Admitted::All, || {
        let now = clock.next();
        is_admitted(&next.next().bytes(|bytes| plain.check(bytes, 1, now)))
    }));
    let (mut next, mut clock) = (Cycle::new(&subjects), walk.clock());
    implementations.push(checks("keytally, subject hashed before", Admitted::All, || {
        is_admitted(&hashed.check_subject(*next.next(), 1, clock.next()))
    }));
    let (mut next, mut clock) = (cycle(), walk.clock());
    let check = checks("keytally, and the system's clock read", Admitted::All, || {
        black_box(keytally::now());
        let now = clock.next();
        is_admitted(&next.next().bytes(|bytes| clocked.check(bytes, 1, now)))
    });
    implementations.push(check.with_clock(true));
    let rows = Rows { all_names: &all_names, names: &names, walk: &walk };
    implementations.extend([
        rows.row::<Governors<N, DefaultClock>>(),
        rows.row::<Governors<N, FakeRelativeClock>>(),
        rows.row::<OneGovernor<N>>(),
        rows.row::<RateNets>(),
        rows.row::<Pingora>(),
        rows.row::<Sharded<N>>(),
        rows.row::<Locked<N>>(),
    ]);
    if size == 1 {
        implementations.push(rows.row::<Ratelimits>());
        let (line, hasher) =
            (keytally_core::CacheLine::new(), siphasher::sip::SipHasher13::new_with_keys(1, 2));
        let mut next = cycle();
        implementations.push(calls(
            "a bare compare-exchange loop on the word that SipHash finds",
            move || {
                // The hash selects the word, so that the exchange depends on it, as in a table.
                let hash = next.next().bytes(|bytes| hasher.hash(bytes));
                count_up(&line, usize::from(hash.to_le_bytes()[0] & 7))
            },
        ));
    }
    let mut chase = PointerChase::new(size);
    implementations.push(calls("a dependent load from as many cache lines", move || chase.next()));
    let mut next = cycle();
    implementations.push(calls("reading the subject alone", || {
        next.next().bytes(|bytes| bytes.iter().fold(0, |sum: u8, byte| sum ^ byte))
    }));
    table.column_of(size, implementations);
}

/// The traffic of a column.
struct Rows<'a, N> {
    all_names: &'a [N],
    /// The subjects in the order of their requests.
    names: &'a [N],
    walk: &'a Walk,
}

impl<'a, N: Name> Rows<'a, N> {
    /// Returns the checks of an alternative that knows all subjects.
    fn row<P: Peer<N> + 'a>(&self) -> Implementation<'a> {
        let peer = P::roomy();
        for name in self.all_names {
            peer.check(name, START);
        }
        let (mut next, mut clock) = (Cycle::new(self.names), self.walk.clock());
        let check = move || peer.check(next.next(), clock.next());
        checks(P::NAME, Admitted::All, check).with_clock(P::READS_CLOCK)
    }
}

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
                    limiter.check(name.as_bytes(), MINUTE_LIMIT, now);
                }
            });
            is_admitted(&limiter.check(next.next().as_bytes(), 1, now))
        }));

        // Governors read the real clock. They give back one unit per hour, and the benchmark ends
        // long before that.
        let governors = Governors::new(slow_quotas(10 * MINUTE_LIMIT));
        for name in spent_names() {
            governors.spend(name, 10 * MINUTE_LIMIT);
        }
        let mut next = cycle();
        let check = checks("two governors", expected, move || governors.check(next.next()));
        implementations.push(check.with_clock(true));

        let sharded = Sharded::new([MINUTE_LIMIT, u32::MAX]);
        let (mut next, mut minute) = (cycle(), SpentMinute::default());
        implementations.push(checks("DashMap of counters", expected, move || {
            let now = minute.next(|now| {
                for name in spent_names() {
                    sharded.check(name, MINUTE_LIMIT, now);
                }
            });
            sharded.check(next.next(), 1, now)
        }));

        let locked = Locked::new([MINUTE_LIMIT, u32::MAX]);
        let (mut next, mut minute) = (cycle(), SpentMinute::default());
        implementations.push(checks("Mutex<HashMap> of counters", expected, move || {
            let now = minute.next(|now| {
                for name in spent_names() {
                    locked.check(name, MINUTE_LIMIT, now);
                }
            });
            locked.check(next.next(), 1, now)
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
        let limiter = limiter(ROOMY, *size);
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
        let roomy = self::limiter(ROOMY, 2 * *size);
        for text in &live {
            assert!(roomy.check(text.as_bytes(), 1, START).is_admitted(), "there is room");
        }
        let (mut next, mut clock) = (Cycle::new(&live), walk.clock());
        let hit_with_room = checks("in one with room", Admitted::All, || {
            is_admitted(&roomy.check(next.next().as_bytes(), 1, clock.next()))
        });
        table.column_of(*size, vec![refusal, hit, hit_with_room]);
    }
}

/// The number of refused subjects that are drawn for a full table.
const NEW_SUBJECTS: usize = 1 << 14;
