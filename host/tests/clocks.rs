//! Processes whose clocks disagree by up to a minute, on one gate and one limiter: together they
//! admit exactly the limit.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use alloc::collections::BTreeMap;
use std::path::Path;

use keytally::{Gate, GateConfig, Limiter, Plan, Timestamp, entropy};

use crate::support::worker::{Worker, folder, report, role, wait_for_kill};
use crate::support::{new_key, peppers};

/// Ten seconds before a minute ends.
const BEGIN_S: u64 = 1_700_000_030;
/// The test time between two steps of a process, and the number of its steps: 200 s in total.
const STEP_MS: u64 = 10;
const STEPS: u64 = 20_000;

/// By how many seconds the clock of each process is late. [`AHEAD_MS`] adds to this. The sum must
/// stay below the tolerance of a minute.
const LATE_S: [u64; 4] = [0, 7, 20, 35];

/// By how much the steps of a process may be ahead of those of another, in milliseconds of test
/// time. A process that is further ahead waits.
const AHEAD_MS: u64 = 20_000;

const POLICY: &str = "60/minute, 200/hour";

/// Checks by its own clock, and reports what was admitted in which minute. Does nothing unless this
/// process is a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [folder, number, key] = &words[..] else { panic!("{words:?}") };
    let (folder, number) = (Path::new(folder), number.parse::<usize>().unwrap());
    let gate = Gate::open(folder.join("gate"), peppers()).unwrap();
    let limiter = Limiter::open(folder.join("limiter")).unwrap();
    let pace = Pace::new(folder, number);
    let mut admitted = [BTreeMap::new(), BTreeMap::new()];
    for step in 0..STEPS {
        let true_ms = BEGIN_S * 1000 + step * STEP_MS;
        pace.wait_for_others(step * STEP_MS);
        let now = Timestamp::from_unix_ms(true_ms - LATE_S[number] * 1000);
        let verdicts = [
            gate.table().check(Some(key.as_bytes()), 1, now),
            limiter.table().check(b"subject", 1, now),
        ];
        for (verdict, admitted) in verdicts.iter().zip(&mut admitted) {
            if let Some(charge) = verdict.charge() {
                *admitted.entry(charge.at().unix_s() / 60).or_insert(0_u32) += 1;
            }
        }
    }
    pace.end();
    for counts in admitted {
        report(
            counts
                .iter()
                .map(|(minute, count)| format!("{minute}:{count}"))
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    wait_for_kill();
}

/// Keeps the processes together although the system may run them one after the other. Each process
/// reports its progress, in milliseconds of test time, as the length of a file of its own.
struct Pace {
    own: std::fs::File,
    others: Vec<std::path::PathBuf>,
}

impl Pace {
    fn new(folder: &Path, number: usize) -> Self {
        let path = |number: usize| folder.join(format!("pace-{number}"));
        let others = (0..LATE_S.len()).filter(|other| *other != number).map(path).collect();
        Self { own: std::fs::OpenOptions::new().write(true).open(path(number)).unwrap(), others }
    }

    /// Reports the progress of this process, and waits until the others are near.
    fn wait_for_others(&self, progress_ms: u64) {
        if !progress_ms.is_multiple_of(1000) {
            return;
        }
        self.own.set_len(progress_ms).unwrap();
        while self
            .others
            .iter()
            .any(|other| other.metadata().unwrap().len() + AHEAD_MS < progress_ms)
        {
            std::thread::yield_now();
        }
    }

    /// Reports that this process has finished, so that no other waits for it.
    fn end(&self) {
        self.own.set_len(u64::from(u32::MAX)).unwrap();
    }
}

#[test]
fn processes_with_different_clocks_admit_exactly_the_limit() {
    let folder = folder();
    let plans = vec![Plan::new("default", POLICY.parse().unwrap()).unwrap()];
    let config = GateConfig::default().with_keys(8).with_plans(plans);
    let gate = Gate::create(folder.path().join("gate"), peppers(), &config).unwrap();
    Limiter::create(folder.path().join("limiter"), &POLICY.parse().unwrap(), 8).unwrap();
    let new = new_key();
    let (key, _) = gate
        .administer(|administrator| {
            administrator.issue(&new, entropy().unwrap(), Timestamp::from_unix_s(BEGIN_S))
        })
        .unwrap();
    for number in 0..LATE_S.len() {
        std::fs::write(folder.path().join(format!("pace-{number}")), "").unwrap();
    }
    let at = folder.path().to_str().unwrap();
    let mut workers: Vec<Worker> = (0..LATE_S.len())
        .map(|number| Worker::start(Worker::command(&[at, &number.to_string(), key.expose()])))
        .collect();
    for table in ["gate", "limiter"] {
        let mut minutes: BTreeMap<u64, u32> = BTreeMap::new();
        for worker in &mut workers {
            for entry in worker.next_report().unwrap().split_whitespace() {
                let (minute, count) = entry.split_once(':').unwrap();
                *minutes.entry(minute.parse().unwrap()).or_default() +=
                    count.parse::<u32>().unwrap();
            }
        }
        // 200 seconds lie within one hour, and each minute is offered more than its limit. So
        // exactly the hour's limit is admitted.
        assert!(minutes.values().all(|count| *count <= 60), "{table}: {minutes:?}");
        assert_eq!(minutes.values().sum::<u32>(), 200, "{table}: {minutes:?}");
        let full = minutes.values().filter(|count| **count == 60).count();
        assert!(full >= 2, "{table}: {minutes:?}");
    }
    workers.iter_mut().for_each(Worker::kill);
}
