//! The group `limiter`: the check of a subject, by size of the table, order of the subjects, kind
//! of subject and outcome.

use core::hash::Hash;
use core::hint::black_box;

use keytally_core::{Outcome, Timestamp};

use crate::floors::{Chase, count_up};
use crate::measure::{Admitted, Bench, Implementation, Table, calls, checks, is_admitted};
use crate::peers::{
    Governors, Locked, Pingora, RateNets, Ratelimits, Sharded, roomy_quotas, slow_quotas,
};
use crate::tables::limiter;
use crate::traffic::{
    self, Cycle, MINUTES_UNITS, Order, ROOMY, Random, START, Walk, index, thousands,
};

const SIZES: &[u32] = &[1, 1000, 100_000, 1_000_000];

/// Limits that are never reached, for implementations that do not store them in few bits.
const ROOM: [u32; 2] = [u32::MAX; 2];

pub(crate) fn measure(bench: &mut Bench) {
    let sizes = bench.sizes(SIZES, &[1, 1000, 1_000_000]);
    let about = "Both windows checked and charged, all admitted. Includes reading the subject, hashing it and finding it.";
    let title = "Subjects of 40 bytes, all equally often, by their number";
    let mut table = bench.table("limiter/uniform", "ns", title, about);
    for size in sizes {
        admitted(&mut table, *size, Order::Uniform, traffic::text);
    }
    drop(table);
    let others = bench.sizes(SIZES, &[1, 1000]);
    let title =
        "Subjects of 40 bytes, some much more often than others (Zipf's law), by their number";
    let mut table = bench.table("limiter/zipf", "ns", title, about);
    for size in &others[1..] {
        admitted(&mut table, *size, Order::Zipf, traffic::text);
    }
    drop(table);
    let title = "Subjects that are numbers (u64), all equally often, by their number";
    let mut table = bench.table("limiter/numbers", "ns", title, about);
    for size in others {
        admitted(&mut table, *size, Order::Uniform, traffic::number);
    }
    drop(table);
    outcomes(bench);
    full(bench, &sizes[1..]);
}

/// A subject in the form that an implementation takes.
trait Name: Hash + Eq + Clone {
    fn bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R;
}

impl Name for String {
    #[inline]
    fn bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
        with(self.as_bytes())
    }
}

impl Name for u64 {
    #[inline]
    fn bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
        with(&self.to_le_bytes())
    }
}

fn admitted<N: Name>(table: &mut Table<'_>, size: u32, order: Order, name: fn(u32) -> N) {
    let all_names: Vec<N> = (0..size).map(name).collect();
    let walk = Walk::new(size, order);
    let names: Vec<N> =
        walk.numbers.iter().map(|&number| all_names[index(number)].clone()).collect();

    // Each has a table of its own: two that charge the same table would advance time for each
    // other.
    let [plain, hashed, clocked] = [(); 3].map(|()| {
        // A table of one bucket would not be representative. A table for exactly a million subjects
        // would refuse some of them.
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
    let governors = Governors::new(roomy_quotas());
    let clockless = Governors::without_clock(roomy_quotas());
    let (rate_nets, pingora, ratelimits) =
        (RateNets::new(u32::MAX), Pingora::new(), Ratelimits::new());
    let (sharded, locked) = (Sharded::new(ROOM), Locked::new(ROOM));
    for name in &all_names {
        governors.check(name);
        clockless.check(name);
        name.bytes(|bytes| rate_nets.check(bytes));
        sharded.check(name, 1, START);
        locked.check(name, 1, START);
    }
    drop(all_names);

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
    implementations.push(checks("keytally, and the system's clock read", Admitted::All, || {
        black_box(keytally::now());
        let now = clock.next();
        is_admitted(&next.next().bytes(|bytes| clocked.check(bytes, 1, now)))
    }));
    let mut next = cycle();
    implementations.push(checks("two governors", Admitted::All, || governors.check(next.next())));
    let mut next = cycle();
    implementations.push(checks("two governors, no clock read", Admitted::All, || {
        clockless.check(next.next())
    }));
    let mut next = cycle();
    implementations.push(checks("one governor: the minute alone", Admitted::All, || {
        governors.check_one(next.next())
    }));
    let mut next = cycle();
    implementations.push(checks("two rate-net", Admitted::All, || {
        next.next().bytes(|bytes| rate_nets.check(bytes))
    }));
    let mut next = cycle();
    implementations.push(checks("two pingora-limits, approximate", Admitted::All, || {
        pingora.check(next.next(), isize::MAX)
    }));
    let (mut next, mut clock) = (cycle(), walk.clock());
    implementations.push(checks("DashMap of counters", Admitted::All, || {
        sharded.check(next.next(), 1, clock.next())
    }));
    let (mut next, mut clock) = (cycle(), walk.clock());
    implementations.push(checks("Mutex<HashMap> of counters", Admitted::All, || {
        locked.check(next.next(), 1, clock.next())
    }));
    if size == 1 {
        implementations.push(checks(
            "two ratelimit, which know no subjects",
            Admitted::All,
            || ratelimits.check(),
        ));
    }
    if size == 1 {
        let (line, hasher) =
            (keytally_core::Line::new(), siphasher::sip::SipHasher13::new_with_keys(1, 2));
        let mut next = cycle();
        implementations.push(calls(
            "a bare compare-exchange loop on the word that SipHash finds",
            move || {
                // Only the hash determines the word, as in any table.
                let hash = next.next().bytes(|bytes| hasher.hash(bytes));
                count_up(&line, usize::from(hash.to_le_bytes()[0] & 7))
            },
        ));
    }
    let mut chase = Chase::new(size);
    implementations.push(calls("a dependent load of a line of as many", move || chase.next()));
    let mut next = cycle();
    implementations.push(calls("reading the subject alone", || {
        next.next().bytes(|bytes| bytes.iter().fold(0, |sum: u8, byte| sum ^ byte))
    }));
    table.column(thousands(size), implementations);
}

/// Measures subjects of which half, or all, have spent their minute.
fn outcomes(bench: &mut Bench) {
    const SIZE: u32 = 1000;
    let title = "1,000 subjects of 40 bytes, all equally often, by how many are denied";
    let about = "As above. A denied subject has spent its minute. Stacked implementations then do not check the hour.";
    let mut table = bench.table("limiter/outcomes", "ns", title, about);
    let all_names: Vec<String> = (0..SIZE).map(traffic::text).collect();
    let walk = Walk::new(SIZE, Order::Uniform);
    let names: Vec<String> =
        walk.numbers.iter().map(|&number| all_names[index(number)].clone()).collect();
    for (column, yes, every) in [("half", Admitted::Half, 2), ("all", Admitted::None, 1)] {
        let spenders = || all_names.iter().step_by(every);
        let cycle = || Cycle::new(&names);
        let mut implementations: Vec<Implementation<'_>> = Vec::new();

        let limiter = limiter(ROOMY, SIZE);
        let (mut next, mut minute) = (cycle(), Minute::default());
        implementations.push(checks("keytally", yes, move || {
            let now = minute.next(|now| {
                for name in spenders() {
                    limiter.check(name.as_bytes(), MINUTES_UNITS, now);
                }
            });
            is_admitted(&limiter.check(next.next().as_bytes(), 1, now))
        }));

        // The benchmark is short compared with the hour in which one unit returns.
        let governors = Governors::new(slow_quotas(10 * MINUTES_UNITS));
        for name in spenders() {
            governors.spend(name, 10 * MINUTES_UNITS);
        }
        let mut next = cycle();
        implementations.push(checks("two governors", yes, move || governors.check(next.next())));

        let sharded = Sharded::new([MINUTES_UNITS, u32::MAX]);
        let (mut next, mut minute) = (cycle(), Minute::default());
        implementations.push(checks("DashMap of counters", yes, move || {
            let now = minute.next(|now| {
                for name in spenders() {
                    sharded.check(name, MINUTES_UNITS, now);
                }
            });
            sharded.check(next.next(), 1, now)
        }));

        let locked = Locked::new([MINUTES_UNITS, u32::MAX]);
        let (mut next, mut minute) = (cycle(), Minute::default());
        implementations.push(checks("Mutex<HashMap> of counters", yes, move || {
            let now = minute.next(|now| {
                for name in spenders() {
                    locked.check(name, MINUTES_UNITS, now);
                }
            });
            locked.check(next.next(), 1, now)
        }));
        table.column(column, implementations);
    }
}

/// A minute in which some of the subjects have spent their limit. After
/// [`REQUESTS`](Self::REQUESTS) requests, the next hour follows, so that no hourly limit is
/// reached.
#[derive(Default)]
struct Minute {
    hour: u64,
    requests: u64,
}

impl Minute {
    /// Requests per minute. Spending the limits again costs less than a thousandth of them.
    const REQUESTS: u64 = 1 << 20;

    #[inline]
    fn next(&mut self, spend: impl FnOnce(Timestamp)) -> Timestamp {
        if self.requests.is_multiple_of(Self::REQUESTS) {
            self.requests = 0;
            self.hour += 1;
            spend(self.begin());
        }
        self.requests += 1;
        Timestamp::from_unix_ms(self.begin().unix_ms() + (self.requests >> 5))
    }

    #[inline]
    fn begin(&self) -> Timestamp {
        Timestamp::from_unix_ms(START.unix_ms() + self.hour * 3_600_000)
    }
}

/// Measures a full table: new subjects that are refused, and the subjects in the table.
fn full(bench: &mut Bench, sizes: &[u32]) {
    let title = "A full table, by its capacity in subjects";
    let about = "Subjects of 40 bytes: new ones that are refused, those in the table, and the same ones in a table with room.";
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
        // Copies the texts into the order of the requests.
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
        let elsewhere = checks("in one with room", Admitted::All, || {
            is_admitted(&roomy.check(next.next().as_bytes(), 1, clock.next()))
        });
        table.column(thousands(*size), vec![refusal, hit, elsewhere]);
    }
}

/// The number of new subjects that a full table refuses.
const NEW_SUBJECTS: usize = 1 << 14;
