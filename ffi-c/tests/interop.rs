//! Processes in C, C++ and Rust check the keys of one gate file at the same time: together they
//! admit exactly the limit.
//!
//! The first two are `ffi-c/tests/c/worker.c` and `ffi-c/tests/cpp/worker.cpp`, which the suite
//! builds. The third is this program, started again.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use keytally::{Followed, Gate, GateConfig, MigrationConfig, pepper};
use keytally_core::{Name, NewKey, Plan, Timestamp};

const NOW_MS: u64 = 1_767_225_600_000;
const LIMIT: u64 = 1000;

/// The variable that makes this program a worker. It holds the arguments of a worker, one on each
/// line.
const SPEND: &str = "KEYTALLY_TEST_SPEND";

/// A process that checks keys, ready to begin.
struct Worker {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker and waits until it has opened the gate.
    fn start(mut command: Command, pepper: &str) -> Self {
        command.env("KEYTALLY_PEPPER", pepper).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        // The test harness of Rust prints lines first.
        while !line.ends_with("ready\n") {
            line.clear();
            assert_ne!(
                output.read_line(&mut line).unwrap(),
                0,
                "the worker ended before it was ready"
            );
        }
        Self { child, output }
    }

    /// Lets the worker begin its checks.
    fn begin(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Returns how often each key was admitted.
    fn end(mut self, keys: usize) -> Vec<u64> {
        let lines = self.output.by_ref().lines().take(keys);
        let admitted = lines.map(|line| line.unwrap().parse().unwrap()).collect();
        // Reads the remaining lines of the test harness, so that it can end.
        self.output.read_to_end(&mut Vec::new()).unwrap();
        assert!(self.child.wait().unwrap().success());
        admitted
    }
}

/// Starts the processes: three in C, three in C++ and two in Rust.
fn workers(gate: &Path, turns: u64, keys: &[String], pepper: &str) -> Vec<Worker> {
    let built = PathBuf::from(
        std::env::var_os("KEYTALLY_TEST_WORKERS")
            .expect("the suite `interop` says where the workers are"),
    );
    let mut arguments = vec![gate.display().to_string(), NOW_MS.to_string(), turns.to_string()];
    arguments.extend_from_slice(keys);
    let mut workers = Vec::new();
    for round in 0..3 {
        for name in ["in_c", "in_cpp"] {
            let mut command = Command::new(built.join(name));
            command.args(&arguments);
            workers.push(Worker::start(command, pepper));
        }
        if round == 2 {
            break;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "spend", "--nocapture"]).env(SPEND, arguments.join("\n"));
        workers.push(Worker::start(command, pepper));
    }
    workers
}

/// Issues `keys` keys, lets each process check each of them `turns` times, and returns how often
/// each was admitted.
fn spend_together(keys: usize, turns: u64) -> Vec<u64> {
    spend_under(&format!("{LIMIT}/hour"), keys, turns)
}

/// Does what [`spend_together`] does, with this plan. All keys are of one account.
fn spend_under(plan: &str, keys: usize, turns: u64) -> Vec<u64> {
    spend_through(0, plan, keys, turns)
}

/// Does what [`spend_under`] does, and migrates the gate this often meanwhile.
fn spend_through(migrations: usize, plan: &str, keys: usize, turns: u64) -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    let pepper = pepper::generate().unwrap();
    let plans = vec![Plan::new("default", plan.parse().unwrap()).unwrap()];
    let config = GateConfig::default().with_keys(1000).with_plans(plans);
    let gate = Gate::create(&path, pepper::parse(&pepper).unwrap(), &config).unwrap();
    let new = NewKey::new(1, Name::new("live").unwrap());
    let keys: Vec<String> =
        (0..keys).map(|_| gate.issue(&new).unwrap().0.expose().to_owned()).collect();

    let mut workers = workers(&path, turns, &keys, &pepper);
    workers.iter_mut().for_each(Worker::begin);
    for _ in 0..migrations {
        let gate = Gate::open(&path, pepper::parse(&pepper).unwrap()).unwrap();
        let migration = MigrationConfig::default();
        gate.migrate(folder.path().join("new.gate"), &migration).unwrap();
    }
    let mut sums = vec![0; keys.len()];
    for worker in workers {
        for (sum, admitted) in sums.iter_mut().zip(worker.end(keys.len())) {
            *sum += admitted;
        }
    }
    sums
}

#[test]
fn one_key_admits_exactly_its_limit() {
    assert_eq!(spend_together(1, 5000), [LIMIT]);
}

#[test]
fn many_keys_each_admit_exactly_their_limit() {
    assert_eq!(spend_together(50, 400), [LIMIT; 50]);
}

#[test]
fn checks_below_the_limit_are_all_admitted() {
    // The eight processes together stay below the limit.
    assert_eq!(spend_together(3, 100), [800; 3]);
}

/// The rounds of the next test.
fn rounds() -> u64 {
    std::env::var("KEYTALLY_TEST_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap())
}

#[test]
fn keys_of_one_team_admit_exactly_its_limit() {
    for _ in 0..rounds() {
        // Each key has room for more than its share, and all keys together for more than the team.
        let admitted = spend_under("100/hour; team: 1000/hour", 20, 50);
        assert!(admitted.iter().all(|&count| count <= 100), "{admitted:?}");
        assert_eq!(admitted.iter().sum::<u64>(), 1000, "{admitted:?}");
        // If the keys have less room than the team, each admits exactly its own limit.
        assert_eq!(spend_under("40/hour; team: 1000/hour", 20, 50), [40; 20]);
    }
}

#[test]
fn keys_admit_exactly_their_limit_through_migrations() {
    assert_eq!(spend_through(20, "100000/hour", 3, 5000), [40_000; 3]);
    assert_eq!(spend_through(20, "10000/hour", 3, 5000), [10_000; 3]);
    let admitted = spend_through(20, "100000/hour; team: 10000/hour", 3, 5000);
    assert_eq!(admitted.iter().sum::<u64>(), 10_000, "{admitted:?}");
}

/// The worker in Rust, which [`workers`] starts. Does nothing if [`SPEND`] is not set.
#[test]
fn spend() {
    let Ok(arguments) = std::env::var(SPEND) else { return };
    let mut arguments = arguments.lines();
    let gate = arguments.next().unwrap();
    let now = Timestamp::from_unix_ms(arguments.next().unwrap().parse().unwrap());
    let turns: u64 = arguments.next().unwrap().parse().unwrap();
    let keys: Vec<&str> = arguments.collect();
    let peppers = pepper::parse(&std::env::var("KEYTALLY_PEPPER").unwrap()).unwrap();
    let gate = Followed::open(gate, peppers).unwrap();
    let mut admitted = vec![0u64; keys.len()];
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for _ in 0..turns {
        for (count, key) in admitted.iter_mut().zip(&keys) {
            let verdict = gate.call(|gate| gate.table().check(Some(key.as_bytes()), 1, now));
            *count += u64::from(verdict.is_admitted());
        }
    }
    admitted.iter().for_each(|count| println!("{count}"));
}
