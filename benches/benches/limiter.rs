//! The group `limiter`: a subject's check, by size of the table, order of the subjects, kind of subject and outcome.

use core::hash::Hash;
use core::hint::black_box;

use keytally_core::{Outcome, Timestamp};

use crate::floors::{Chase, count_up};
use crate::measure::{Bench, Contender, Table, Yes, answered, asked, calls};
use crate::peers::{Governors, Locked, Pingora, RateNets, Ratelimits, Sharded, roomy_quotas, slow_quotas};
use crate::tables::limiter;
use crate::traffic::{self, Cycle, MINUTES_UNITS, Order, ROOMY, Random, START, Walk, index, thousands};

const SIZES: &[u32] = &[1, 1000, 100_000, 1_000_000];

/// Limits that are never reached, for those that have no bits to save.
const ROOM: [u32; 2] = [u32::MAX; 2];

pub(crate) fn measure(bench: &mut Bench) {
    let sizes = bench.sizes(SIZES, &[1, 1000, 1_000_000]);
    let about = "Both windows checked and charged, all admitted. Includes reading the subject, hashing it and finding it.";
    let title = "Subjects of 40 bytes, all equally frequent, by how many there are";
    let mut table = bench.table("limiter/uniform", "ns", title, about);
    for size in sizes {
        admitted(&mut table, *size, Order::Uniform, traffic::text);
    }
    drop(table);
    let others = bench.sizes(SIZES, &[1, 1000]);
    let title = "Subjects of 40 bytes, with frequencies by Zipf's law, by how many there are";
    let mut table = bench.table("limiter/zipf", "ns", title, about);
    for size in &others[1..] {
        admitted(&mut table, *size, Order::Zipf, traffic::text);
    }
    drop(table);
    let title = "Subjects that are numbers (u64), all equally frequent, by how many there are";
    let mut table = bench.table("limiter/numbers", "ns", title, about);
    for size in others {
        admitted(&mut table, *size, Order::Uniform, traffic::number);
    }
    drop(table);
    outcomes(bench);
    full(bench, &sizes[1..]);
}

/// Something that names a subject.
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
    let everybody: Vec<N> = (0..size).map(name).collect();
    let walk = Walk::new(size, order);
    let names: Vec<N> = walk.numbers.iter().map(|&number| everybody[index(number)].clone()).collect();

    // Each has a table of its own: two that charge one would pass time for each other.
    let [plain, hashed, clocked] = [(); 3].map(|()| {
        // A table of one bucket would be no table; and one of a million subjects finds no room in a table for just them.
        let limiter = limiter(ROOMY, size + size / 16 + 64);
        for name in &everybody {
            assert!(name.bytes(|bytes| limiter.check(bytes, 1, START)).is_admitted(), "there is room");
        }
        limiter
    });
    let subjects: Vec<_> = names.iter().map(|name| name.bytes(|bytes| hashed.subject(bytes))).collect();
    let governors = Governors::new(roomy_quotas());
    let clockless = Governors::without_clock(roomy_quotas());
    let (rate_nets, pingora, ratelimits) = (RateNets::new(u32::MAX), Pingora::new(), Ratelimits::new());
    let (sharded, locked) = (Sharded::new(ROOM), Locked::new(ROOM));
    for name in &everybody {
        governors.check(name);
        clockless.check(name);
        name.bytes(|bytes| rate_nets.check(bytes));
        sharded.check(name, 1, START);
        locked.check(name, 1, START);
    }
    drop(everybody);

    let cycle = || Cycle::new(&names);
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    let (mut next, mut clock) = (cycle(), walk.clock());
    contenders.push(asked("keytally", Yes::All, || {
        let now = clock.next();
        answered(&next.next().bytes(|bytes| plain.check(bytes, 1, now)))
    }));
    let (mut next, mut clock) = (Cycle::new(&subjects), walk.clock());
    contenders.push(asked("keytally, subject hashed before", Yes::All, || {
        answered(&hashed.check_subject(*next.next(), 1, clock.next()))
    }));
    let (mut next, mut clock) = (cycle(), walk.clock());
    contenders.push(asked("keytally, and the system's clock read", Yes::All, || {
        black_box(keytally::now());
        let now = clock.next();
        answered(&next.next().bytes(|bytes| clocked.check(bytes, 1, now)))
    }));
    let mut next = cycle();
    contenders.push(asked("two governors", Yes::All, || governors.check(next.next())));
    let mut next = cycle();
    contenders.push(asked("two governors, no clock read", Yes::All, || clockless.check(next.next())));
    let mut next = cycle();
    contenders.push(asked("one governor: the minute alone", Yes::All, || governors.check_one(next.next())));
    let mut next = cycle();
    contenders.push(asked("two rate-net", Yes::All, || next.next().bytes(|bytes| rate_nets.check(bytes))));
    let mut next = cycle();
    contenders
        .push(asked("two pingora-limits, approximate", Yes::All, || pingora.check(next.next(), isize::MAX)));
    let (mut next, mut clock) = (cycle(), walk.clock());
    contenders.push(asked("DashMap of counters", Yes::All, || sharded.check(next.next(), 1, clock.next())));
    let (mut next, mut clock) = (cycle(), walk.clock());
    contenders
        .push(asked("Mutex<HashMap> of counters", Yes::All, || locked.check(next.next(), 1, clock.next())));
    if size == 1 {
        contenders.push(asked("two ratelimit, which know no subjects", Yes::All, || ratelimits.check()));
    }
    if size == 1 {
        let (line, hasher) = (keytally_core::Line::new(), siphasher::sip::SipHasher13::new_with_keys(1, 2));
        let mut next = cycle();
        contenders.push(calls("a bare compare-exchange loop on the word that SipHash finds", move || {
            // Which of the line's words only the hash tells, as in any table.
            let hash = next.next().bytes(|bytes| hasher.hash(bytes));
            count_up(&line, usize::from(hash.to_le_bytes()[0] & 7))
        }));
    }
    let mut chase = Chase::new(size);
    contenders.push(calls("a dependent load of a line of as many", move || chase.next()));
    let mut next = cycle();
    contenders.push(calls("reading the subject alone", || {
        next.next().bytes(|bytes| bytes.iter().fold(0, |sum: u8, byte| sum ^ byte))
    }));
    table.column(thousands(size), contenders);
}

/// Subjects of which half, or all, have spent their minute.
fn outcomes(bench: &mut Bench) {
    const SIZE: u32 = 1000;
    let title = "1,000 subjects of 40 bytes, all equally frequent, by how many are denied";
    let about =
        "As above. Denied subjects have spent the minute; stacked limiters then do not check the hour.";
    let mut table = bench.table("limiter/outcomes", "ns", title, about);
    let everybody: Vec<String> = (0..SIZE).map(traffic::text).collect();
    let walk = Walk::new(SIZE, Order::Uniform);
    let names: Vec<String> = walk.numbers.iter().map(|&number| everybody[index(number)].clone()).collect();
    for (column, yes, every) in [("half", Yes::Half, 2), ("all", Yes::None, 1)] {
        let spenders = || everybody.iter().step_by(every);
        let cycle = || Cycle::new(&names);
        let mut contenders: Vec<Contender<'_>> = Vec::new();

        let limiter = limiter(ROOMY, SIZE);
        let (mut next, mut minute) = (cycle(), Minute::default());
        contenders.push(asked("keytally", yes, move || {
            let now = minute.next(|now| {
                for name in spenders() {
                    limiter.check(name.as_bytes(), MINUTES_UNITS, now);
                }
            });
            answered(&limiter.check(next.next().as_bytes(), 1, now))
        }));

        // In units that come back once an hour, a benchmark is short.
        let governors = Governors::new(slow_quotas(10 * MINUTES_UNITS));
        for name in spenders() {
            governors.spend(name, 10 * MINUTES_UNITS);
        }
        let mut next = cycle();
        contenders.push(asked("two governors", yes, move || governors.check(next.next())));

        let sharded = Sharded::new([MINUTES_UNITS, u32::MAX]);
        let (mut next, mut minute) = (cycle(), Minute::default());
        contenders.push(asked("DashMap of counters", yes, move || {
            let now = minute.next(|now| {
                for name in spenders() {
                    sharded.check(name, MINUTES_UNITS, now);
                }
            });
            sharded.check(next.next(), 1, now)
        }));

        let locked = Locked::new([MINUTES_UNITS, u32::MAX]);
        let (mut next, mut minute) = (cycle(), Minute::default());
        contenders.push(asked("Mutex<HashMap> of counters", yes, move || {
            let now = minute.next(|now| {
                for name in spenders() {
                    locked.check(name, MINUTES_UNITS, now);
                }
            });
            locked.check(next.next(), 1, now)
        }));
        table.column(column, contenders);
    }
}

/// A minute of the day in which half of the subjects have spent what they may; then the next hour, so that no hour's limit
/// is reached.
#[derive(Default)]
struct Minute {
    hour: u64,
    requests: u64,
}

impl Minute {
    /// Requests in the minute; spending anew costs less than a thousandth of them.
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

/// A table that has no room for the subjects that ask, and what that is to those that are in it.
fn full(bench: &mut Bench, sizes: &[u32]) {
    let title = "A full table, by the number of subjects that it was made for";
    let about = "Subjects of 40 bytes: new ones that are refused, those that are in it, and the same ones in a table with room.";
    let mut table = bench.table("limiter/full", "ns", title, about);
    for size in sizes {
        let limiter = limiter(ROOMY, *size);
        let (mut refused, mut live) = (Vec::new(), Vec::<String>::new());
        let mut number = 0;
        while refused.len() < STRANGERS {
            let text = traffic::text(number);
            match limiter.check(text.as_bytes(), 1, START).outcome() {
                Outcome::Full => refused.push(text),
                _ => live.push(text),
            }
            number += 1;
        }
        Random(1).shuffle(&mut live);
        // In the order in which they ask.
        let [live, refused] =
            [live, refused].map(|texts| texts.iter().map(String::clone).collect::<Vec<_>>());
        let walk = Walk::new(*size, Order::Uniform);
        let (mut next, mut clock) = (Cycle::new(&refused), walk.clock());
        let refusal =
            asked("refused", Yes::None, || answered(&limiter.check(next.next().as_bytes(), 1, clock.next())));
        let (mut next, mut clock) = (Cycle::new(&live), walk.clock());
        let hit = asked("in the table", Yes::All, || {
            answered(&limiter.check(next.next().as_bytes(), 1, clock.next()))
        });
        let roomy = self::limiter(ROOMY, 2 * *size);
        for text in &live {
            assert!(roomy.check(text.as_bytes(), 1, START).is_admitted(), "there is room");
        }
        let (mut next, mut clock) = (Cycle::new(&live), walk.clock());
        let elsewhere = asked("in one with room", Yes::All, || {
            answered(&roomy.check(next.next().as_bytes(), 1, clock.next()))
        });
        table.column(thousands(*size), vec![refusal, hit, elsewhere]);
    }
}

/// New subjects that ask a full table.
const STRANGERS: usize = 1 << 14;
