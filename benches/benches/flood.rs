//! The group `flood`: the latency of each of a million calls that add a new subject, and the memory
//! that the subjects take.
//!
//! Each implementation runs in a process of its own, so that its memory is measured separately. The
//! program therefore starts itself again for each.

use core::hint::black_box;
use std::process::Command;

use governor::clock::DefaultClock;
use keytally_core::{CacheLine, GateConfig, Limiter, Name, OnFull, Outcome};
use serde_json::{Value, json};

use crate::measure::{Bench, Kind, PART, is_admitted, now};
use crate::peers::{
    Governors, Locked, ONE_WINDOW, OneGovernor, Packed, Peer, Quotas, RateNets, Sharded,
};
use crate::tables::smallest_limiter;
use crate::traffic::{self, ROOMY, START, index, thousands};

/// The argument that makes the program run one implementation.
pub(crate) const ARGUMENT: &str = "--flood";

const SUBJECTS: u32 = 1_000_000;

/// The quantiles of the latency: their columns, and the fraction of calls that are at most as slow.
const QUANTILES: [(&str, f64); 6] = [
    ("median", 0.5),
    ("90 %", 0.9),
    ("99 %", 0.99),
    ("99.9 %", 0.999),
    ("99.99 %", 0.9999),
    ("longest", 1.0),
];

/// A call that does nothing, so that its time is that of the measurement.
const CLOCK_ALONE: &str = "reading the clock alone";

/// The flood is repeated, and the figure of each call is its quickest time. An interruption of the
/// program hits another call in each flood. A delay by the table itself hits the same call in each.
const REPEATED: &str = "keytally, the quickest of three floods";
/// The work of [`REPEATED`].
const REPEATED_WORK: &str = "three floods";
/// The number of repetitions for [`REPEATED`].
const FLOODS: u32 = 3;

/// The name of an implementation, which is also a value of [`ARGUMENT`], what it does, and a
/// function that creates an empty table and returns its check.
type Flooded = (&'static str, Kind, fn() -> Check);

/// The check of a subject.
type Check = Box<dyn FnMut(&String) -> bool>;

const IMPLEMENTATIONS: &[Flooded] = &[
    ("keytally", Kind::TIME_GIVEN, keytally),
    (REPEATED, Kind { work: REPEATED_WORK, ..Kind::TIME_GIVEN }, keytally),
    peer::<Sharded<String>>(),
    peer::<Locked<String>>(),
    peer::<Packed<String>>(),
    peer::<Sharded<String, foldhash::fast::RandomState>>(),
    with_room::<Sharded<String>>("DashMap of counters, room for all"),
    with_room::<Locked<String>>("Mutex<HashMap> of counters, room for all"),
    with_room::<Packed<String>>("papaya of packed words, room for all"),
    ("keytally, system clock", Kind::CLOCK_READ, || host(ROOMY)),
    peer::<Governors<String, DefaultClock>>(),
    with_room::<Governors<String, DefaultClock>>("two governors, room for all"),
    peer::<RateNets>(),
    peer::<Quotas<String>>(),
    (
        "keytally, system clock, the minute alone",
        Kind { work: ONE_WINDOW, ..Kind::CLOCK_READ },
        || host("100000/minute"),
    ),
    peer::<OneGovernor<String>>(),
    (CLOCK_ALONE, Kind { work: PART, ..Kind::CLOCK_READ }, || {
        Box::new(|text| black_box(text).len() == 40)
    }),
];

fn keytally() -> Check {
    let limiter = smallest_limiter(ROOMY, SUBJECTS);
    Box::new(move |text| is_admitted(&limiter.check(text.as_bytes(), 1, START)))
}

/// Returns the check of a service, whose limiter reads the system clock.
fn host(policy: &str) -> Check {
    let policy = policy.parse().expect("a policy");
    let limiter = keytally::Limiter::in_memory(&policy, SUBJECTS).expect("memory");
    Box::new(move |text| is_admitted(&limiter.check(text.as_bytes(), 1)))
}

const fn peer<P: Peer<String> + 'static>() -> Flooded {
    (P::NAME, P::KIND, || {
        // It gets no room beforehand, and so grows.
        let peer = P::roomy(0);
        Box::new(move |text| peer.check(text, START))
    })
}

/// An alternative that gets room for all subjects beforehand, as Keytally always does.
const fn with_room<P: Peer<String> + 'static>(name: &'static str) -> Flooded {
    (name, P::KIND, || {
        let peer = P::roomy(index(SUBJECTS));
        Box::new(move |text| peer.check(text, START))
    })
}

/// Measures the group.
pub(crate) fn measure(bench: &mut Bench) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut measured: Vec<Vec<Value>> = vec![Vec::new(); IMPLEMENTATIONS.len()];
    for _ in 0..bench.long_rounds() {
        for ((name, ..), measured) in IMPLEMENTATIONS.iter().zip(&mut measured) {
            let output = Command::new(&program)
                .args([ARGUMENT, name])
                .output()
                .expect("this program can be started");
            let figures = serde_json::from_slice(&output.stdout);
            measured.push(figures.unwrap_or_else(|_| panic!("{name}: {output:?}")));
        }
    }
    let figures = |measured: &[Value], name: &str| -> Vec<Value> {
        measured.iter().map(|figures| figures[name].clone()).collect()
    };

    let title = format!(
        "Adding {} subjects of 40 bytes, one after the other, by percentile of the calls",
        thousands(SUBJECTS)
    );
    let about = "Each call is timed separately. Its time includes reading the clock. It also includes interruptions of the program, which the quickest of three floods leaves out almost completely.";
    let mut table = bench.table("flood/latency", "ns", &title, about);
    for ((name, kind, _), measured) in IMPLEMENTATIONS.iter().zip(&measured) {
        for (column, _) in QUANTILES {
            table.figures(column, name, *kind, figures(measured, column));
        }
    }
    drop(table);

    let title = format!("Memory per subject, of a table of {}", thousands(SUBJECTS));
    let about = "The growth of the process's memory while the table is created and all subjects are added. For a gate, and for the limiter with 90 % of its slots taken, the memory of the table.";
    let mut table = bench.table("flood/memory", "bytes", &title, about);
    let column = "bytes each";
    for ((name, kind, _), measured) in IMPLEMENTATIONS.iter().zip(&measured) {
        if ![CLOCK_ALONE, REPEATED].contains(name) {
            table.figures(column, name, *kind, figures(measured, "bytes"));
        }
    }
    let (bytes, refused) = fullest();
    let kind = |work| Kind { work, ..Kind::TIME_GIVEN };
    table.figures(column, FULLEST, kind("a fuller table"), vec![json!(bytes)]);
    table.figures("refused meanwhile, %", FULLEST, kind("a fuller table"), vec![json!(refused)]);
    let prefix = Name::new("kt").expect("a name");
    let config = GateConfig::new(SUBJECTS, prefix, &[]).with_plan_slots(1);
    let bytes = config.lines() * size_of::<CacheLine>();
    let bytes_each = bytes as f64 / f64::from(SUBJECTS);
    table.figures(column, "a key of a gate", kind("keys"), vec![json!(bytes_each)]);
}

/// A limiter in which more slots are taken than its capacity in subjects.
const FULLEST: &str = "keytally, 90 % of all slots taken";

/// Fills a limiter until 90 % of its slots are taken. Returns the bytes per subject, and the
/// percentage of subjects that it refused meanwhile.
fn fullest() -> (f64, f64) {
    const CAPACITY: u32 = 100_000;
    let limiter = smallest_limiter(ROOMY, CAPACITY);
    limiter.set_on_full(OnFull::Refuse);
    let wanted = limiter.slots_total() * 9 / 10;
    let (mut live, mut refused, mut number) = (0, 0, 0);
    while live < wanted {
        match limiter.check(traffic::text(number).as_bytes(), 1, START).outcome() {
            Outcome::Full => refused += 1,
            _ => live += 1,
        }
        number += 1;
    }
    let bytes = Limiter::<Vec<CacheLine>>::lines(CAPACITY) * size_of::<CacheLine>();
    (bytes as f64 / live as f64, 100.0 * f64::from(refused) / f64::from(number))
}

/// Runs the implementation of this name, and prints its figures as JSON.
pub(crate) fn run(name: &str) {
    let texts: Vec<String> = (0..SUBJECTS).map(traffic::text).collect();
    let mut times: Vec<u32> = vec![u32::MAX; texts.len()];
    let before = resident_bytes();
    let mut bytes = 0.0;
    let found = IMPLEMENTATIONS.iter().find(|(other, ..)| *other == name);
    let (.., new_table) = found.unwrap_or_else(|| panic!("no implementation: {name}"));
    for _ in 0..if name == REPEATED { FLOODS } else { 1 } {
        let mut check = new_table();
        let mut refused = 0_u32;
        for (text, time) in texts.iter().zip(&mut times) {
            let started = now();
            let admitted = check(text);
            let took = started.elapsed();
            refused += u32::from(!admitted);
            *time = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX).min(*time);
        }
        // One subject in a million may find both its buckets full.
        assert!(refused < 10, "{name} refused {refused}");
        bytes = (resident_bytes() - before) as f64 / f64::from(SUBJECTS);
    }
    times.sort_unstable();
    let mut figures = serde_json::Map::new();
    for (column, fraction) in QUANTILES {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index in a list"
        )]
        let index = (fraction * (times.len() - 1) as f64) as usize;
        figures.insert(column.to_owned(), json!(times[index]));
    }
    figures.insert("bytes".to_owned(), json!(bytes));
    println!("{}", Value::Object(figures));
}

/// Returns the resident memory of this process in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux reports it");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux reports it");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}
