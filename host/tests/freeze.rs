//! Processes that are stopped with SIGSTOP at random instants while they check, and continued: no
//! window admits more than its limit, and a denied request has charged none of its tallies.
//!
//! A process that is stopped between reading its clock and charging continues with an old reading,
//! as under `docker pause`, a cgroup freezer, a debugger or in a suspended virtual machine. The
//! stops are shorter and longer than the tolerance of 60 s, and the slots of a limiter are reused
//! in the meantime. Admissions are counted by `Charge::at`, the time that their decision applied
//! to.
//!
//! Two tests run at the same time. In the first, the processes also charge the keys of one team. In
//! the second, which takes ten seconds of that time, the stops are short and hit requests between
//! two of their charges.
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
use std::fs::{self, File};
use std::path::Path;
use std::thread;

use keytally::{
    Charge, Gate, GateConfig, GatePart, Limiter, Mapping, OnFull, Outcome, Plan, Policy,
    SystemClock, Timestamp, Verdict, entropy, now,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::support::prompt::promptly;
use crate::support::random::Random;
use crate::support::worker::{Worker, folder, report, role, wait_for_kill};
use crate::support::{NOW, is_full, new_key, open_raw, peppers, read_at, write_at};

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

/// The windows of the tables, in seconds: two gates, a limiter, and the gate of a team. That one
/// has three tallies: of a key, of its group and of its team. The numbers of its windows follow,
/// the short ones first.
const WINDOWS_S: [u64; 9] = [1, 60, 1, 1, 1, 1, LONG_S, LONG_S, LONG_S];

/// A long window, in which no request is denied. Its counts show whether each
/// denied request gave its charges back.
const LONG_S: u64 = 30 * 24 * 3600;

/// The number of the short window of a key of the team, and of its long one.
const KEY: usize = 3;
const LONG_KEY: usize = 6;

/// The number of the short window of the team.
const TEAM: usize = 4;

/// Each half second has a subject of its own, which is not checked later. A slot may be reused one
/// to two seconds after its last check, so about as many slots are in use as there are (8). Each
/// slot is therefore reused soon after it may be.
const CAPACITY: u32 = 5;

fn policy(window_s: u64) -> Policy {
    format!("{LIMIT}/{window_s}s").parse().unwrap()
}

/// Returns the plan of the gate of a team.
fn team_plan() -> Plan {
    let quotas = format!("{LIMIT}/1s, 1000000/{LONG_S}s");
    let sections = format!("{quotas}; team: {quotas}; group write: {quotas}");
    Plan::new("default", sections.parse().unwrap()).unwrap()
}

/// Returns a request for a key of the team.
fn request<'g>(gate: &'g Gate, key: &'g str, cost: u32) -> GatePart<'g, Mapping> {
    gate.part(Some(key.as_bytes()), cost).with_group("write").unwrap()
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
    if let [role, folder, number, key] = &words[..]
        && role == "requests"
    {
        make_requests(Path::new(folder), number.parse().unwrap(), key);
    }
    let [folder, number, keys @ ..] = &words[..] else { panic!("{words:?}") };
    let folder = Path::new(folder);
    let gates =
        [0, 1].map(|table| Gate::open(folder.join(format!("gate-{table}")), peppers()).unwrap());
    let limiter = Limiter::open(folder.join("limiter")).unwrap();
    let mut random = Random(number.parse().unwrap());
    let team = Gate::open(folder.join("team"), peppers()).unwrap();
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
            25..28 => {
                let key = pick % 2;
                let all = request(&team, &keys[4 + usize::try_from(key).unwrap()], 1);
                for (tally, verdict) in all.check(SystemClock::read()).verdicts().enumerate() {
                    let subject = if KEY + tally == TEAM { 0 } else { key };
                    admitted.add(KEY + tally, subject, verdict);
                    admitted.add(LONG_KEY + tally, subject, verdict);
                }
            }
            _ => {
                let subject = if pick < 34 { 0 } else { now().unix_ms() / 500 };
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
    let config = GateConfig::default().with_keys(8).with_plans(vec![team_plan()]);
    let team = Gate::create(folder.path().join("team"), peppers(), &config).unwrap();
    let of_team = [(); 2].map(|()| team.issue(&new_key()).unwrap().0.expose().to_owned());
    let limiter = Limiter::create(folder.path().join("limiter"), &policy(WINDOWS_S[2]), CAPACITY);
    // Each subject is counted by itself here.
    limiter.unwrap().set_on_full(OnFull::Refuse);

    let at = folder.path().to_str().unwrap();
    let mut workers: Vec<Worker> = (0..form.frozen + form.brief)
        .map(|number| {
            let number = number.to_string();
            let words =
                [at, &number, &keys[0], &keys[1], &ids[0], &ids[1], &of_team[0], &of_team[1]];
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
    let (long, windows): (BTreeMap<_, _>, BTreeMap<_, _>) =
        windows.into_iter().partition(|(window, _)| table_of(window) >= LONG_KEY);
    assert_team_counts(&team, &of_team, &long);
    let over: Vec<_> = windows.iter().filter(|(_, count)| **count > LIMIT).collect();
    // The team has less room than its two keys, so no window of these is expected to be full.
    let windows: BTreeMap<_, _> = windows
        .iter()
        .filter(|(window, _)| table_of(window) <= 2 || table_of(window) == TEAM)
        .collect();
    let full = windows.values().filter(|count| ***count == LIMIT).count();
    println!(
        "{checks} checks, {} windows, {full} of them full, {} over",
        windows.len(),
        over.len()
    );
    assert!(over.is_empty(), "table:subject:window and what it admitted: {over:?}");
    assert!(full * 2 > windows.len(), "{full} of {} windows were full", windows.len());
    assert!(checks >= form.least_checks, "{checks} checks");
}

/// Returns the table of a window, which its worker reported as `table:subject:window`.
fn table_of(window: &str) -> usize {
    window.split(':').next().unwrap().parse().unwrap()
}

/// Asserts that the tallies of a team count what was admitted, and nothing of denied requests.
fn assert_team_counts(gate: &Gate, keys: &[String], admitted: &BTreeMap<String, u32>) {
    for (number, key) in keys.iter().enumerate() {
        let all = request(gate, key, 0).peek(SystemClock::read());
        for (tally, verdict) in all.verdicts().enumerate() {
            let long = verdict.quotas().iter().last().unwrap();
            let window = long.reset_unix_s / LONG_S - 1;
            let subject = if KEY + tally == TEAM { 0 } else { number };
            let name = format!("{}:{subject}:{window}", LONG_KEY + tally);
            assert_eq!(Some(&long.used()), admitted.get(&name), "{name}");
        }
    }
}

// Short stops between the charges of a request.

/// The workers that make requests, each with a key of its own.
const REQUESTERS: usize = 4;

/// The most requests of the team that are admitted and not refunded yet: fewer than the workers,
/// so that a request often loses the room that its probe found.
const TEAM_LIMIT: u32 = 3;

/// The tallies of a request, in the order of the plan's sections: the key's, two of the team, and
/// those of five groups.
const TALLIES: usize = 8;

/// The tallies of [`TALLIES`] in the order in which a request charges them.
const CHARGED: [usize; TALLIES] = [0, 3, 4, 5, 6, 7, 1, 2];

/// The tallies of the team.
const OF_TEAM: [usize; 2] = [1, 2];

/// The groups of the plan.
const GROUPS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What a worker is about to do, or has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    /// It makes a request.
    Charge,
    /// Its request is admitted.
    Charged,
    /// It refunds the request.
    Refund,
}

/// The journal of a worker: its step, and the number of its requests.
struct Journal(File);

impl Journal {
    fn open(folder: &Path, number: usize) -> Self {
        Self(open_raw(&folder.join(format!("journal-{number}"))))
    }

    fn write(&self, step: Step, requests: u64) {
        write_at(&self.0, &(requests << 2 | step as u64).to_le_bytes(), 0);
    }

    fn read(&self) -> (Step, u64) {
        let mut bytes = [0; 8];
        read_at(&self.0, &mut bytes, 0);
        let number = u64::from_le_bytes(bytes);
        let steps = [Step::Idle, Step::Charge, Step::Charged, Step::Refund];
        (steps[usize::try_from(number & 3).unwrap()], number >> 2)
    }
}

/// Returns a request for one unit of each tally.
fn wide_request<'g>(gate: &'g Gate, key: &'g str, cost: u32) -> GatePart<'g, Mapping> {
    let part = gate.part(Some(key.as_bytes()), cost);
    GROUPS.iter().fold(part, |part, group| part.with_group(group).unwrap())
}

/// Makes a request and refunds it, until the file `end` exists.
fn make_requests(folder: &Path, number: usize, key: &str) -> ! {
    let gate = Gate::open(folder.join("gate"), peppers()).unwrap();
    let journal = Journal::open(folder, number);
    let mut requests = 0_u64;
    while !requests.is_multiple_of(64) || !folder.join("end").exists() {
        requests += 1;
        journal.write(Step::Charge, requests);
        let all = wide_request(&gate, key, 1).check(NOW);
        let Some(charge) = all.charge(0).filter(|_| all.is_admitted()) else {
            assert_eq!(all.outcome(), Outcome::Denied);
            journal.write(Step::Idle, requests);
            continue;
        };
        journal.write(Step::Charged, requests);
        let key_id = all.holder().unwrap().key_id;
        journal.write(Step::Refund, requests);
        gate.table().refund(key_id, charge, NOW).unwrap();
        journal.write(Step::Idle, requests);
    }
    report(requests);
    wait_for_kill();
}

/// Returns the units that each tally counts of a key.
fn counts(gate: &Gate, key: &str) -> [u32; TALLIES] {
    let all = wide_request(gate, key, 0).peek(NOW);
    core::array::from_fn(|tally| {
        let state = all.tallies()[tally].verdict().quotas().iter().next().unwrap();
        assert!(state.used() <= state.limit, "{all:?}");
        state.used()
    })
}

/// Returns which tallies a request of a worker may have charged, if the worker is stopped in this
/// step.
fn possible(step: Step) -> Vec<[bool; TALLIES]> {
    let first = |order: [usize; TALLIES], count: usize| {
        let mut charged = [false; TALLIES];
        order[..count].iter().for_each(|tally| charged[*tally] = true);
        charged
    };
    match step {
        Step::Idle => vec![[false; TALLIES]],
        Step::Charged => vec![[true; TALLIES]],
        Step::Charge => (0..=TALLIES).map(|count| first(CHARGED, count)).collect(),
        // A refund takes the tallies in the order of the sections.
        Step::Refund => {
            let order = core::array::from_fn(|tally| tally);
            (0..=TALLIES).map(|count| first(order, count).map(|is_refunded| !is_refunded)).collect()
        }
    }
}

/// Asserts that the stopped workers have charged the first tallies of their requests and no others.
/// Returns how many of them have charged a part.
fn assert_counts_of_stopped(gate: &Gate, keys: &[String], journals: &[Journal]) -> usize {
    let (mut in_part, mut of_team) = (0, vec![[0; 2]]);
    let mut counted = [0; 2];
    for (key, journal) in keys.iter().zip(journals) {
        let (step, _) = journal.read();
        let counts = counts(gate, key);
        counted = OF_TEAM.map(|tally| counts[tally]);
        let is_it = |charged: &[bool; TALLIES]| {
            let own = (0..TALLIES).filter(|tally| !OF_TEAM.contains(tally));
            own.into_iter().all(|tally| u32::from(charged[tally]) == counts[tally])
        };
        let found: Vec<_> = possible(step).into_iter().filter(is_it).collect();
        assert!(!found.is_empty(), "{step:?}: {counts:?}");
        let is_part =
            |charged: &[bool; TALLIES]| charged.contains(&true) && charged.contains(&false);
        in_part += usize::from(found.iter().all(is_part));
        // The team counts the requests of all workers.
        let sums = of_team.iter().flat_map(|sum: &[u32; 2]| {
            found
                .iter()
                .map(|charged| [0, 1].map(|index| sum[index] + u32::from(charged[OF_TEAM[index]])))
        });
        of_team = sums.collect();
    }
    assert!(of_team.contains(&counted), "the team counts {counted:?} and not one of {of_team:?}");
    in_part
}

#[test]
fn request_stopped_between_charges_blocks_no_other() {
    let folder = folder();
    let at = folder.path();
    let groups: String = GROUPS.iter().map(|group| format!("; group {group}: 9/hour")).collect();
    // The team has two tallies, since both counts do not fit one.
    let team = format!("{TEAM_LIMIT}/1s, 2000000000/30d");
    let plan = Plan::new("default", format!("9/hour; team: {team}{groups}").parse().unwrap());
    let config = GateConfig::default().with_keys(8).with_plans(vec![plan.unwrap()]);
    let gate = Gate::create(at.join("gate"), peppers(), &config).unwrap();
    let issue = |_| gate.administer(|it| it.issue(&new_key(), entropy().unwrap(), NOW)).unwrap();
    let keys: Vec<String> =
        (0..REQUESTERS).map(issue).map(|(key, _)| key.expose().to_owned()).collect();
    let mut journals = Vec::new();
    let mut workers = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        fs::write(at.join(format!("journal-{number}")), [0; 8]).unwrap();
        journals.push(Journal::open(at, number));
        let words = ["requests", at.to_str().unwrap(), &number.to_string(), key];
        workers.push(Worker::start(Worker::command(&words)));
    }
    let pids: Vec<Pid> = workers.iter().map(|worker| Pid::from_child(&worker.child)).collect();
    let stop = |pid: Pid| {
        kill_process(pid, Signal::STOP).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "a worker failed: {status:?}");
    };
    let mut random = Random(now().unix_ms());
    let end_ms = now().unix_ms() + if is_full() { 60_000 } else { 10_000 };
    let (mut rounds, mut in_part) = (0, 0);
    while now().unix_ms() < end_ms {
        rounds += 1;
        thread::sleep(Duration::from_micros(random.below(3000)));
        // All stop, so that the counts stand still. Then one stays stopped, while the others work.
        pids.iter().for_each(|pid| stop(*pid));
        in_part += assert_counts_of_stopped(&gate, &keys, &journals);
        let stopped = usize::try_from(random.below(REQUESTERS as u64)).unwrap();
        let others = || (0..REQUESTERS).filter(|number| *number != stopped);
        others().for_each(|number| kill_process(pids[number], Signal::CONT).unwrap());
        let left = counts(&gate, &keys[stopped])[0];
        let before: Vec<u64> = journals.iter().map(|journal| journal.read().1).collect();
        promptly("requests of other processes", || {
            while others().any(|number| journals[number].read().1 < before[number] + 2) {
                thread::yield_now();
            }
        });
        assert_eq!(counts(&gate, &keys[stopped])[0], left, "the stopped process changes nothing");
        kill_process(pids[stopped], Signal::CONT).unwrap();
    }
    fs::write(at.join("end"), "").unwrap();
    let requests: Vec<u64> =
        workers.iter_mut().map(|worker| worker.next_report().unwrap().parse().unwrap()).collect();
    workers.iter_mut().for_each(Worker::kill);
    for key in &keys {
        assert_eq!(counts(&gate, key), [0; TALLIES], "every charge was refunded or given back");
    }
    println!("{rounds} rounds, {in_part} requests stopped between charges, {requests:?} requests");
    assert!(in_part > 0, "no request was stopped between two charges, in {rounds} rounds");
}
