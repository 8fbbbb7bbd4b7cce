//! Processes that are stopped with SIGSTOP at random instants while they check, and continued: no
//! window admits more than its limit.
//!
//! A process that is stopped between reading its clock and charging continues with an old reading,
//! as under `docker pause`, a cgroup freezer, a debugger or in a suspended virtual machine. The
//! stops are shorter and longer than the tolerance of 60 s, and the slots of a limiter are reused
//! in the meantime. Admissions are counted by `Charge::at`, the time that their decision applied
//! to.
//!
//! The short form takes 90 s. The long form (if `KEYTALLY_FULL` is set) takes 15 minutes and makes
//! at least 10⁸ checks.
// Windows has no signal that stops a process.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use alloc::collections::BTreeMap;
use core::time::Duration;
use std::fs;
use std::path::Path;
use std::thread;

use keytally::{Charge, Gate, GateConfig, Limiter, OnFull, Plan, Policy, Timestamp, Verdict, now};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::random::Random;
use crate::support::worker::{Worker, folder, report, role, wait_for_kill};
use crate::support::{is_full, new_key, peppers};

/// The parameters of one run.
struct Form {
    length_ms: u64,
    /// The number of workers that are stopped for longer than the tolerance, and of those that are
    /// stopped briefly.
    frozen: usize,
    brief: usize,
    least_checks: u64,
}

const SHORT: Form = Form { length_ms: 86_000, frozen: 40, brief: 4, least_checks: 100_000 };
const LONG: Form = Form { length_ms: 900_000, frozen: 40, brief: 4, least_checks: 100_000_000 };

/// The most that one window of each table admits.
const LIMIT: u32 = 10;

/// The windows of the tables, in seconds: two gates and a limiter.
const WINDOWS_S: [u64; 3] = [1, 60, 1];

/// Each half second has a subject of its own, which is not checked later. A slot may be reused one
/// to two seconds after its last check, so about as many slots are in use as there are (8). Each
/// slot is therefore reused soon after it may be.
const CAPACITY: u32 = 5;

fn policy(window_s: u64) -> Policy {
    format!("{LIMIT}/{window_s}s").parse().unwrap()
}

/// What was admitted, by table, subject and window.
#[derive(Default)]
struct Admitted(BTreeMap<(usize, u64, u64), u32>);

impl Admitted {
    fn add(&mut self, table: usize, subject: u64, verdict: &Verdict) {
        if let Some(charge) = verdict.charge() {
            *self
                .0
                .entry((table, subject, charge.at().unix_s() / WINDOWS_S[table]))
                .or_default() += charge.cost();
        }
    }
}

/// Checks until the file `end` exists. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [folder, number, keys @ ..] = &words[..] else { panic!("{words:?}") };
    let folder = Path::new(folder);
    let gates =
        [0, 1].map(|table| Gate::open(folder.join(format!("gate-{table}")), peppers()).unwrap());
    let limiter = Limiter::open(folder.join("limiter")).unwrap();
    let mut random = Random(number.parse().unwrap());
    let (mut admitted, mut checks) = (Admitted::default(), 0_u64);
    while !checks.is_multiple_of(1024) || !folder.join("end").exists() {
        checks += 1;
        let pick = random.below(64);
        // A refund of 0 and a peek keep the counts, and must also keep the tally's stamp (its
        // time).
        let nothing = Charge::new(0, Timestamp::from_unix_s(0));
        match pick {
            0..24 => {
                let table = usize::from(pick >= 12);
                let key = Some(keys[table].as_bytes());
                match pick % 12 {
                    0 => drop(gates[table].peek(key, 1)),
                    1 => drop(gates[table].refund(keys[table + 2].parse().unwrap(), nothing)),
                    _ => admitted.add(table, 0, &gates[table].check(key, 1)),
                }
            }
            24 => drop(limiter.refund(b"0", nothing)),
            _ => {
                let subject = if pick < 32 { 0 } else { now().unix_ms() / 500 };
                admitted.add(2, subject, &limiter.check(subject.to_string().as_bytes(), 1));
            }
        }
    }
    let counts = admitted.0.iter();
    let counts = counts
        .map(|((table, subject, window), count)| format!("{table}:{subject}:{window}:{count}"));
    report(format!("{checks} {}", counts.collect::<Vec<_>>().join(" ")));
    wait_for_kill();
}

/// Stops and continues one worker until the time `end_ms`.
fn freeze(pid: Pid, frozen: bool, mut random: Random, end_ms: u64) {
    let stop = |before_ms: u64, for_ms: u64| {
        thread::sleep(Duration::from_millis(before_ms));
        // Leaves the worker enough time to continue before its counts are requested.
        if now().unix_ms() + for_ms + 3000 > end_ms {
            return false;
        }
        kill_process(pid, Signal::STOP).unwrap();
        thread::sleep(Duration::from_millis(for_ms));
        kill_process(pid, Signal::CONT).unwrap();
        true
    };
    loop {
        let stopped = if frozen {
            stop(500 + random.below(8000), 64_000 + random.below(8000))
        } else {
            stop(random.below(500), random.below(3000))
        };
        if !stopped {
            return;
        }
    }
}

#[test]
fn stopped_processes_admit_no_more_than_the_limit() {
    let form = if is_full() { LONG } else { SHORT };
    let folder = folder();
    let (mut keys, mut ids) = (Vec::new(), Vec::new());
    for table in [0, 1] {
        let plans = vec![Plan::new("default", policy(WINDOWS_S[table]).into()).unwrap()];
        let config = GateConfig::default().with_keys(8).with_plans(plans);
        let gate =
            Gate::create(folder.path().join(format!("gate-{table}")), peppers(), &config).unwrap();
        let new = new_key();
        let (key, key_id) = gate.issue(&new).unwrap();
        keys.push(key.expose().to_owned());
        ids.push(key_id.to_string());
    }
    let limiter = Limiter::create(folder.path().join("limiter"), &policy(WINDOWS_S[2]), CAPACITY);
    // Each subject is counted by itself here.
    limiter.unwrap().set_on_full(OnFull::Refuse);

    let at = folder.path().to_str().unwrap();
    let mut workers: Vec<Worker> = (0..form.frozen + form.brief)
        .map(|number| {
            let number = number.to_string();
            let words = [&[at, &number][..], &[&keys[0], &keys[1], &ids[0], &ids[1]]].concat();
            Worker::start(Worker::command(&words))
        })
        .collect();
    let end_ms = now().unix_ms() + form.length_ms;
    thread::scope(|scope| {
        for (number, worker) in workers.iter().enumerate() {
            let (pid, frozen) = (Pid::from_child(&worker.child), number < form.frozen);
            scope.spawn(move || freeze(pid, frozen, Random(number as u64), end_ms));
        }
    });
    thread::sleep(Duration::from_millis(end_ms.saturating_sub(now().unix_ms())));
    fs::write(folder.path().join("end"), "").unwrap();

    let (mut windows, mut checks) = (BTreeMap::<String, u32>::new(), 0);
    for worker in &mut workers {
        let counts = worker.next_report().unwrap();
        let mut words = counts.split_whitespace();
        checks += words.next().unwrap().parse::<u64>().unwrap();
        for entry in words {
            let (window, count) = entry.rsplit_once(':').unwrap();
            *windows.entry(window.to_owned()).or_default() += count.parse::<u32>().unwrap();
        }
    }
    workers.iter_mut().for_each(Worker::kill);
    let over: Vec<_> = windows.iter().filter(|(_, count)| **count > LIMIT).collect();
    let full = windows.values().filter(|count| **count == LIMIT).count();
    println!(
        "{checks} checks, {} windows, {full} of them full, {} over",
        windows.len(),
        over.len()
    );
    assert!(over.is_empty(), "table:subject:window and what it admitted: {over:?}");
    assert!(full * 2 > windows.len(), "{full} of {} windows were full", windows.len());
    assert!(checks >= form.least_checks, "{checks} checks");
}
