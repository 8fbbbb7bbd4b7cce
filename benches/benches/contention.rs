//! The group `contention`: checks by one thread, and by two threads at the same time.

use core::hint::black_box;

use governor::clock::FakeRelativeClock;
use keytally_core::{CacheLine, Timestamp};

use crate::floors::count_up;
use crate::measure::{Admitted, Bench, Implementation, PART, count, is_admitted, threads};
use crate::peers::{
    Governors, Locked, Packed, Peer, RateNets, Sharded, StandingClock, roomy_quotas,
};
use crate::tables::limiter;
use crate::traffic::{self, Clock, Cycle, MINUTE_LIMIT, Order, ROOMY, START, Walk, index};

/// The number of subjects. Each belongs to one thread.
const SIZE: u32 = 1000;

/// The numbers of threads, and the names of their columns.
const COUNTS: [(usize, &str); 2] = [(1, "1 thread"), (2, "2 threads")];

/// Measures the group.
pub(crate) fn measure(bench: &mut Bench) {
    let about = "The time that a check takes its thread. Both windows are checked and charged. All checks are admitted.";
    let title = "One subject of 40 bytes for all threads, by the number of threads";
    let mut table = bench.table("contention/one", "ns", title, about).with_mean();
    let one = [traffic::text(0)];
    for (threads, column) in COUNTS {
        let names = vec![&one[..]; threads];
        let mut implementations = admitted_checks(&one, &names);
        implementations.push(bare_loops(threads));
        table.column(column, implementations);
    }
    drop(table);

    let title = "1,000 subjects of 40 bytes, each thread with its own, by the number of threads";
    let mut table = bench.table("contention/many", "ns", title, about).with_mean();
    let all_names: Vec<String> = (0..SIZE).map(traffic::text).collect();
    let walk = Walk::new(SIZE, Order::Uniform);
    for (threads, column) in COUNTS {
        let names_of_thread = |thread| {
            let numbers = walk.numbers.iter().filter(|&&number| index(number) % threads == thread);
            numbers.map(|&number| all_names[index(number)].clone()).collect::<Vec<String>>()
        };
        let names: Vec<Vec<String>> = (0..threads).map(names_of_thread).collect();
        let names: Vec<&[String]> = names.iter().map(Vec::as_slice).collect();
        table.column(column, admitted_checks(&all_names, &names));
    }
    drop(table);

    let title = "One subject of 40 bytes for all threads, by the number of threads, all denied";
    let about = "The time that a check takes its thread. The subject has spent its minute.";
    let mut table = bench.table("contention/denied", "ns", title, about).with_mean();
    for (threads, column) in COUNTS {
        table.column(column, denied_checks(threads, &one[0]));
    }
}

/// Returns the implementations that several threads can use, with all checks admitted. `names` has
/// one list of subjects for each thread, in the order of its requests.
fn admitted_checks<'a>(
    all_names: &'a [String],
    names: &'a [&'a [String]],
) -> Vec<Implementation<'a>> {
    let threads_count = names.len();
    let walk = Walk::new(u32::try_from(all_names.len()).expect("a few"), Order::Uniform);
    let clock = walk.clock().faster(8);
    let [limiter, hashed] = [(); 2].map(|()| limiter(ROOMY, SIZE));
    for name in all_names {
        assert!(limiter.table().check(name.as_bytes(), 1, START).is_admitted(), "there is room");
        assert!(hashed.table().check(name.as_bytes(), 1, START).is_admitted(), "there is room");
    }
    let subjects_of = |names: &&[String]| {
        names.iter().map(|name| hashed.table().subject(name.as_bytes())).collect()
    };
    let subjects: Vec<Vec<_>> = names.iter().map(subjects_of).collect();
    let keytally = move |thread: usize, done, times| {
        let (mut next, mut clock) = (Cycle::after(names[thread], done), clock.after(done));
        count(times, || {
            is_admitted(&limiter.table().check(next.next().as_bytes(), 1, clock.next()))
        })
    };
    let check_subject = move |thread: usize, done, times| {
        let (mut next, mut clock) = (Cycle::after(&subjects[thread], done), clock.after(done));
        count(times, || is_admitted(&hashed.table().check_subject(*next.next(), 1, clock.next())))
    };
    vec![
        threads("keytally", Admitted::All, threads_count, keytally),
        peer::<Governors<String, FakeRelativeClock>>(all_names, names, clock),
        peer::<RateNets<StandingClock>>(all_names, names, clock),
        peer::<Sharded<String>>(all_names, names, clock),
        peer::<Locked<String>>(all_names, names, clock),
        peer::<Packed<String>>(all_names, names, clock),
        peer::<Sharded<String, foldhash::fast::RandomState>>(all_names, names, clock),
        threads("keytally, subject hashed before", Admitted::All, threads_count, check_subject)
            .with_work("no hash"),
    ]
}

/// Returns the checks of an alternative that knows all subjects.
fn peer<'a, P: Peer<String> + 'a>(
    all_names: &[String],
    names: &'a [&'a [String]],
    clock: Clock,
) -> Implementation<'a> {
    let peer = P::roomy(all_names.len());
    for name in all_names {
        peer.check(name, START);
    }
    let check = move |thread: usize, done, times| {
        let (mut next, mut clock) = (Cycle::after(names[thread], done), clock.after(done));
        count(times, || peer.check(next.next(), clock.next()))
    };
    threads(P::NAME, Admitted::All, names.len(), check).with_kind(P::KIND)
}

/// Returns the lower bound: all threads increment one word by a plain load and compare-exchange.
fn bare_loops(threads_count: usize) -> Implementation<'static> {
    let line = CacheLine::new();
    threads(
        "a bare loop of load and compare-exchange",
        Admitted::All,
        threads_count,
        move |_, _, times| count(times, || count_up(&line, 0)),
    )
    .with_work(PART)
}

/// Returns implementations in which all threads check one subject whose minute is spent.
fn denied_checks<'a>(threads_count: usize, name: &'a String) -> Vec<Implementation<'a>> {
    let limiter = limiter(ROOMY, SIZE);
    assert!(
        limiter.table().check(name.as_bytes(), MINUTE_LIMIT, START).is_admitted(),
        "there is room"
    );
    let governors = Governors::standing_still(roomy_quotas());
    governors.spend(name, u32::MAX);
    let (sharded, locked) = (<Sharded<String>>::new([1, 1]), <Locked<String>>::new([1, 1]));
    sharded.charge(name, 1, START);
    locked.charge(name, 1, START);
    // The time stays within the minute.
    let now = |done: u64| Timestamp::from_unix_ms(START.unix_ms() + done % 60_000);
    vec![
        threads("keytally", Admitted::None, threads_count, move |_, done, times| {
            let now = now(done);
            count(times, || is_admitted(&limiter.table().check(black_box(name).as_bytes(), 1, now)))
        }),
        threads(
            "two governors, no clock read",
            Admitted::None,
            threads_count,
            move |_, _, times| count(times, || governors.check(black_box(name))),
        ),
        threads("DashMap of counters", Admitted::None, threads_count, move |_, _, times| {
            count(times, || sharded.charge(black_box(name), 1, START))
        }),
        threads("Mutex<HashMap> of counters", Admitted::None, threads_count, move |_, _, times| {
            count(times, || locked.charge(black_box(name), 1, START))
        }),
    ]
}
