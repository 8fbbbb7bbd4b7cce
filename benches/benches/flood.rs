//! The group `flood`: a million subjects that nobody has seen before, one after the other, each call timed by itself; and
//! what memory they take.
//!
//! Each contender is a process of its own, so that its memory is its own too: the program starts itself again.

use core::hint::black_box;
use std::process::Command;

use keytally_core::{GateConfig, Limiter, Line, Name, Outcome};
use serde_json::{Value, json};

use crate::measure::{Bench, answered, now};
use crate::peers::{Governors, Locked, RateNets, Sharded, roomy_quotas};
use crate::tables::limiter;
use crate::traffic::{self, ROOMY, START, thousands};

/// What makes the program a contender.
pub(crate) const ARGUMENT: &str = "--flood";

const SUBJECTS: u32 = 1_000_000;

/// Limits that are never reached, for those that have no bits to save.
const ROOM: [u32; 2] = [u32::MAX; 2];

const PARTS: [(&str, f64); 6] = [
    ("median", 0.5),
    ("90 %", 0.9),
    ("99 %", 0.99),
    ("99.9 %", 0.999),
    ("99.99 %", 0.9999),
    ("longest", 1.0),
];

const NOTHING: &str = "reading the clock alone";

/// The same flood again and again, where a call counts as slow only when it is so each time: what interrupts the program meets
/// another call each time, and what the table itself makes wait meets the same one.
const AGAIN: &str = "keytally, the quickest of three floods";
const FLOODS: u32 = 3;

const CONTENDERS: [&str; 9] = [
    "keytally",
    AGAIN,
    "keytally, as a service maps it",
    "one governor: the minute alone",
    "two governors",
    "two rate-net",
    "DashMap of counters",
    "Mutex<HashMap> of counters",
    NOTHING,
];

pub(crate) fn measure(bench: &mut Bench) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut measured: Vec<Vec<Value>> = vec![Vec::new(); CONTENDERS.len()];
    for _ in 0..bench.long_rounds() {
        for (name, measured) in CONTENDERS.iter().zip(&mut measured) {
            let output = Command::new(&program).args([ARGUMENT, name]).output().expect("it can be started");
            let figures = serde_json::from_slice(&output.stdout);
            measured.push(figures.unwrap_or_else(|_| panic!("{name}: {output:?}")));
        }
    }
    let figures = |measured: &[Value], name: &str| -> Vec<f64> {
        measured.iter().map(|figures| figures[name].as_f64().expect("a figure")).collect()
    };

    let title = format!(
        "Adding {} subjects of 40 bytes, one after the other, by how many calls are quicker",
        thousands(SUBJECTS)
    );
    let about = "Each call is timed by itself, and its figure includes reading the clock twice. What interrupts a program is in all of them, but hardly in the quickest of three.";
    let mut table = bench.table("flood/latency", "ns", &title, about);
    for (name, measured) in CONTENDERS.iter().zip(&measured) {
        for (part, _) in PARTS {
            table.figures(part, name, figures(measured, part));
        }
    }
    drop(table);

    let title = format!("Memory, by subject, of a table of {}", thousands(SUBJECTS));
    let about = "What the process has more after they came than before the table was made; for a gate, and a limiter that is as full as can be, what they were given.";
    let mut table = bench.table("flood/memory", "bytes", &title, about);
    let column = "bytes each";
    for (name, measured) in
        CONTENDERS.iter().zip(&measured).filter(|(name, _)| ![NOTHING, AGAIN].contains(name))
    {
        table.figures(column, name, figures(measured, "bytes"));
    }
    let (bytes, refused) = fullest();
    table.figures(column, FULLEST, vec![bytes]);
    table.figures("refused on the way, %", FULLEST, vec![refused]);
    let prefix = Name::new("kt").expect("a name");
    let config = GateConfig::new(SUBJECTS, prefix, &[]).with_plan_slots(1);
    let bytes = config.lines() * size_of::<Line>();
    table.figures(column, "a key of a gate", vec![bytes as f64 / f64::from(SUBJECTS)]);
}

const FULLEST: &str = "keytally, 90 % of all slots taken";

/// Bytes for each subject of a limiter of which nine slots of ten are taken, and how many of a hundred subjects were refused
/// until then.
fn fullest() -> (f64, f64) {
    const CAPACITY: u32 = 100_000;
    let limiter = limiter(ROOMY, CAPACITY);
    let wanted = limiter.slots_total() * 9 / 10;
    let (mut live, mut refused, mut number) = (0, 0, 0);
    while live < wanted {
        match limiter.check(traffic::text(number).as_bytes(), 1, START).outcome() {
            Outcome::Full => refused += 1,
            _ => live += 1,
        }
        number += 1;
    }
    let bytes = Limiter::<Vec<Line>>::lines(CAPACITY) * size_of::<Line>();
    (bytes as f64 / live as f64, 100.0 * f64::from(refused) / f64::from(number))
}

/// Is the contender of this name, and prints its figures.
pub(crate) fn contend(name: &str) {
    let texts: Vec<String> = (0..SUBJECTS).map(traffic::text).collect();
    let mut times: Vec<u32> = vec![u32::MAX; texts.len()];
    let before = resident();
    let mut bytes = 0.0;
    for _ in 0..if name == AGAIN { FLOODS } else { 1 } {
        let mut ask = table(name);
        let mut refused = 0_u32;
        for (text, time) in texts.iter().zip(&mut times) {
            let started = now();
            let admitted = ask(text);
            let took = started.elapsed();
            refused += u32::from(!admitted);
            *time = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX).min(*time);
        }
        // A subject in a million may find both its buckets full.
        assert!(refused < 10, "{name} refused {refused}");
        bytes = (resident() - before) as f64 / f64::from(SUBJECTS);
    }
    times.sort_unstable();
    let mut figures = serde_json::Map::new();
    for (part, fraction) in PARTS {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        let place = (fraction * (times.len() - 1) as f64) as usize;
        figures.insert(part.to_owned(), json!(times[place]));
    }
    figures.insert("bytes".to_owned(), json!(bytes));
    println!("{}", Value::Object(figures));
}

/// The contender's table, to be asked about a subject.
fn table(name: &str) -> Box<dyn FnMut(&String) -> bool> {
    match name {
        "keytally" | AGAIN => {
            let limiter = limiter(ROOMY, SUBJECTS);
            Box::new(move |text| answered(&limiter.check(text.as_bytes(), 1, START)))
        }
        "keytally, as a service maps it" => {
            let policy = ROOMY.parse().expect("a policy");
            let limiter = keytally::Limiter::in_memory(&policy, SUBJECTS).expect("memory");
            Box::new(move |text| answered(&limiter.check(text.as_bytes(), 1)))
        }
        "one governor: the minute alone" => {
            let governors = Governors::new(roomy_quotas());
            Box::new(move |text| governors.check_one(text))
        }
        "two governors" => {
            let governors = Governors::new(roomy_quotas());
            Box::new(move |text| governors.check(text))
        }
        "two rate-net" => {
            let rate_nets = RateNets::new(u32::MAX);
            Box::new(move |text| rate_nets.check(text.as_bytes()))
        }
        "DashMap of counters" => {
            let counters = Sharded::new(ROOM);
            Box::new(move |text| counters.check(text, 1, START))
        }
        "Mutex<HashMap> of counters" => {
            let counters = Locked::new(ROOM);
            Box::new(move |text| counters.check(text, 1, START))
        }
        NOTHING => Box::new(|text| black_box(text).len() == 40),
        _ => panic!("no contender: {name}"),
    }
}

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}
