//! Processes in four languages spend the units of two machines, while agents are killed, or agents
//! and processes are stopped and continued.
//!
//! Each process counts what is admitted to it, by window. An admitted request has a unit of a
//! window that ran between the decision of its tally and its return. So the requests of all
//! processes must fit into the limits of these windows.
//!
//! The suite builds the programs of `tests/languages`. The processes in Rust are this program.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
#[path = "support/machines.rs"]
mod machines;
#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
#[path = "support/program.rs"]
mod program;

use alloc::collections::BTreeMap;
use core::time::Duration;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;

use keytally::{Gate, Outcome, now, pepper};
use machines::{Agent, Store, create_machines, join};
use program::Sandbox;
use rustix::process::{Pid, Signal, kill_process};

/// The only window of each limit, in seconds.
const WINDOW_S: u64 = 2;

/// The units of a key and of a team. All processes together request more in a window.
const KEY: u64 = 1000;
const TEAM: u64 = 1600;

/// The names of the machines.
const MACHINES: [&str; 2] = ["one", "two"];

/// The variable that makes this program a process that spends. It holds the arguments, one on each
/// line.
const SPEND: &str = "KEYTALLY_TEST_SPEND";

/// How long the processes run, in the short form and if `KEYTALLY_FULL` is set.
const LENGTHS_S: [u64; 2] = [12, 60];

fn length_ms() -> u64 {
    LENGTHS_S[usize::from(std::env::var_os("KEYTALLY_FULL").is_some())] * 1000
}

/// What processes counted: by number of the key, window and lateness, as `languages/spend.c`.
type Counts = BTreeMap<(usize, u64, i64), u64>;

/// The process in Rust, which [`Process::start`] starts. Does nothing if [`SPEND`] is not set.
#[test]
fn spend() {
    let Ok(arguments) = std::env::var(SPEND) else { return };
    let arguments: Vec<&str> = arguments.lines().collect();
    let [gate, fleet, _, end, keys @ ..] = &arguments[..] else { panic!("{arguments:?}") };
    let peppers = pepper::parse(&std::env::var("KEYTALLY_PEPPER").unwrap()).unwrap();
    let gate = Gate::open(gate, peppers).unwrap();
    gate.join(fleet).unwrap();
    let mut counts = Counts::new();
    println!("\nready");
    while !Path::new(end).exists() {
        for (number, key) in keys.iter().enumerate() {
            let verdict = gate.check(Some(key.as_bytes()), 1);
            if verdict.outcome() == Outcome::Unavailable {
                continue;
            }
            let window = verdict.quotas().get(0).unwrap().reset_unix_s / WINDOW_S - 1;
            let returned = (now().unix_ms() + 10) / 1000 / WINDOW_S;
            let late = match verdict.outcome() {
                Outcome::Denied => -1,
                _ => i64::try_from(returned - window).unwrap(),
            };
            assert!(late < 0 || verdict.is_admitted() && verdict.is_leased(), "{verdict:?}");
            *counts.entry((number, window, late)).or_default() += 1;
        }
        sleep(Duration::from_millis(5));
    }
    for ((number, window, late), count) in counts {
        println!("{number} {window} {late} {count}");
    }
}

/// A process that spends.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a process on a machine, and waits until it has opened the gate.
    fn start(sandbox: &Sandbox, mut command: Command) -> Self {
        command.env("KEYTALLY_PEPPER", &sandbox.pepper).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line != "ready\n" {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "{command:?} ended");
        }
        Self { child, output }
    }

    /// Waits until the process has ended, and returns what it counted.
    fn end(mut self) -> Counts {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        // The test harness of Rust prints other lines.
        let counts = text.lines().filter_map(|line| {
            let numbers: Option<Vec<i64>> =
                line.split(' ').map(|number| number.parse().ok()).collect();
            let [key, window, late, count] = numbers?[..] else { return None };
            let key = (usize::try_from(key).unwrap(), window.try_into().unwrap(), late);
            Some((key, u64::try_from(count).unwrap()))
        });
        counts.collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two machines, their agents, and the processes of each in Rust, C, Python and JavaScript.
struct Fleet<'s> {
    sandbox: &'s Sandbox,
    store: Store,
    /// Of the first machine, the agent that leads and one that stands by.
    agents: [Vec<Agent<'s>>; 2],
    processes: Vec<Process>,
}

impl<'s> Fleet<'s> {
    fn start(sandbox: &'s Sandbox) -> Self {
        let plan = format!("default={KEY}/{WINDOW_S}s; team: {TEAM}/{WINDOW_S}s");
        let (first, _) = create_machines(sandbox, &plan, &["zero"]);
        let of_team = [(); 2].map(|()| sandbox.issue("zero/api.gate", &["--account", "7"]).0);
        for machine in MACHINES {
            fs::create_dir(sandbox.path(machine)).unwrap();
            let gate = sandbox.path(&format!("{machine}/api.gate"));
            fs::copy(sandbox.path("zero/api.gate"), gate).unwrap();
        }
        let store = Store::start(sandbox, &[]);
        let [one, two] = MACHINES.map(|machine| join(sandbox, &store, &[machine]));
        let mut fleet = Self { sandbox, store, agents: [one, two], processes: Vec::new() };
        let standby = fleet.agent(0);
        fleet.agents[0].push(standby);
        let keys = [first, of_team[0].clone(), of_team[1].clone()];
        for machine in MACHINES {
            for command in commands(sandbox, machine, &keys) {
                fleet.processes.push(Process::start(sandbox, command));
            }
        }
        fleet
    }

    /// Starts an agent of a machine.
    fn agent(&self, machine: usize) -> Agent<'s> {
        Agent::start(self.sandbox, MACHINES[machine], &self.store, &[])
    }

    /// Ends the processes, and returns what each counted.
    fn end(mut self) -> Vec<Counts> {
        fs::write(self.sandbox.path("end"), "").unwrap();
        let processes = core::mem::take(&mut self.processes);
        processes.into_iter().map(Process::end).collect()
    }
}

/// Returns the commands of the four processes of a machine.
fn commands(sandbox: &Sandbox, machine: &str, keys: &[String]) -> [Command; 4] {
    let folder = PathBuf::from(
        std::env::var_os("KEYTALLY_TEST_WORKERS").expect("the suite `fleet` builds the programs"),
    );
    let at = |name: &str| sandbox.path(name).display().to_string();
    let (gate, fleet) = (at(&format!("{machine}/api.gate")), at(&format!("{machine}/api.fleet")));
    let mut arguments = vec![gate, fleet, WINDOW_S.to_string(), at("end")];
    arguments.extend_from_slice(keys);
    let languages = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/languages");
    let mut in_rust = Command::new(std::env::current_exe().unwrap());
    in_rust.args(["--exact", "spend", "--nocapture"]).env(SPEND, arguments.join("\n"));
    let mut in_c = Command::new(folder.join("spend"));
    in_c.args(&arguments);
    let mut in_python = Command::new("python3");
    in_python.arg(format!("{languages}/spend.py")).args(&arguments);
    in_python.env("PYTHONPATH", folder.join("python"));
    let mut in_javascript = Command::new(std::env::var_os("KEYTALLY_TEST_NODE").unwrap());
    in_javascript.arg(format!("{languages}/spend.js")).args(&arguments);
    in_javascript.env("NODE_PATH", folder.join("node_modules"));
    [in_rust, in_c, in_python, in_javascript]
}

/// What was counted of one limit, by window.
#[derive(Debug, Default)]
struct Window {
    /// By the window in which they returned, the requests that were admitted.
    admitted: BTreeMap<u64, u64>,
    denied: u64,
}

impl Window {
    fn admitted(&self) -> u64 {
        self.admitted.values().sum()
    }
}

/// Returns what all processes counted of the limit that these keys share.
fn windows(counts: &[Counts], keys: &[usize]) -> BTreeMap<u64, Window> {
    let mut windows = BTreeMap::<u64, Window>::new();
    for ((key, window, late), count) in counts.iter().flatten() {
        if !keys.contains(key) {
            continue;
        }
        let counted = windows.entry(*window).or_default();
        match window.checked_add_signed(*late).filter(|_| *late >= 0) {
            Some(returned) => *counted.admitted.entry(returned).or_default() += count,
            None => counted.denied += count,
        }
    }
    windows
}

/// Asserts that each admitted request has a unit of a window between its own and the one in which
/// it returned.
fn assert_within(limit: u64, windows: &BTreeMap<u64, Window>) {
    let first = *windows.keys().next().unwrap();
    let last = windows.values().filter_map(|window| window.admitted.keys().max()).max().unwrap();
    let mut waiting = BTreeMap::<u64, u64>::new();
    for window in first..=*last {
        for (returned, count) in windows.get(&window).map_or(&BTreeMap::new(), |it| &it.admitted) {
            *waiting.entry(*returned).or_default() += count;
        }
        let mut room = limit;
        while room > 0
            && let Some(mut next) = waiting.first_entry()
        {
            let served = room.min(*next.get());
            room -= served;
            *next.get_mut() -= served;
            if *next.get() == 0 {
                next.remove();
            }
        }
        let over: u64 = waiting.range(..=window).map(|(_, count)| count).sum();
        assert_eq!(over, 0, "beyond the limit of {limit} in window {window}: {windows:?}");
    }
}

/// Returns what the windows admitted in which clearly more was requested than the limit, and the
/// sum of their limits. The first and the last window are not complete.
fn filled(limit: u64, windows: &BTreeMap<u64, Window>) -> (u64, u64) {
    let complete = windows.values().skip(1).take(windows.len().saturating_sub(2));
    let is_demanded = |window: &&Window| window.admitted() + window.denied >= limit * 5 / 4;
    let demanded: Vec<_> = complete.filter(is_demanded).collect();
    let admitted = demanded.iter().map(|window| window.admitted()).sum();
    (admitted, limit * u64::try_from(demanded.len()).unwrap())
}

/// The limits: their units, and the numbers of the keys that share them.
const LIMITS: [(u64, &[usize]); 4] = [(KEY, &[0]), (KEY, &[1]), (KEY, &[2]), (TEAM, &[1, 2])];

fn assert_limits(counts: &[Counts]) {
    for (number, counted) in counts.iter().enumerate() {
        let admitted = counted.iter().filter(|((_, _, late), _)| *late >= 0);
        let admitted: u64 = admitted.map(|(_, count)| count).sum();
        println!("process {number} was admitted {admitted} units");
        assert!(admitted > 0, "process {number} was admitted nothing");
    }
    for (limit, keys) in LIMITS {
        assert_within(limit, &windows(counts, keys));
    }
}

#[test]
fn agents_killed_under_load_admit_nothing_twice() {
    let sandbox = Sandbox::new();
    let mut fleet = Fleet::start(&sandbox);
    let end_ms = now().unix_ms() + length_ms();
    let (mut kills, mut takeovers) = (0, 0);
    while now().unix_ms() < end_ms {
        sleep(Duration::from_millis(400));
        let machine = kills % MACHINES.len();
        let mut killed = fleet.agents[machine].remove(0);
        killed.process.kill().unwrap();
        killed.process.wait().unwrap();
        takeovers += usize::from(
            killed.log().contains("standing by") && killed.log().contains("keytally: leading"),
        );
        let next = fleet.agent(machine);
        fleet.agents[machine].push(next);
        kills += 1;
    }
    let counts = fleet.end();
    assert_limits(&counts);
    let [(admitted, limits), (of_team, limits_of_team)] =
        [LIMITS[0], LIMITS[3]].map(|(limit, keys)| filled(limit, &windows(&counts, keys)));
    println!(
        "{kills} kills, {takeovers} takeovers; {admitted} of {limits} units of a key and {of_team} \
         of {limits_of_team} of a team"
    );
    assert!(takeovers > 0, "no agent that stood by was killed while it led");
    assert!(limits >= 2 * KEY && limits_of_team >= 2 * TEAM, "too little was requested");
    assert!(admitted * 100 >= limits * 99, "{admitted} of {limits} units of a key");
    assert!(of_team * 100 >= limits_of_team * 99, "{of_team} of {limits_of_team} units of a team");
}

/// Stops a process at random instants, and continues it, until a time.
fn freeze(process: Pid, mut random: u64, end_ms: u64) {
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % bound
    };
    loop {
        let (before_ms, for_ms) = (below(500), below(3000));
        sleep(Duration::from_millis(before_ms));
        if now().unix_ms() + for_ms > end_ms {
            return;
        }
        kill_process(process, Signal::STOP).unwrap();
        sleep(Duration::from_millis(for_ms));
        kill_process(process, Signal::CONT).unwrap();
    }
}

/// A process may be stopped between the charge of its tally and that of its credits, and an agent
/// between any two of its writes. Its lock stays with it meanwhile.
#[test]
fn processes_and_agents_stopped_under_load_admit_nothing_twice() {
    let sandbox = Sandbox::new();
    let fleet = Fleet::start(&sandbox);
    let end_ms = now().unix_ms() + length_ms();
    let agents = fleet.agents.iter().map(|agents| &agents[0].process);
    let processes = fleet.processes.iter().map(|process| &process.child);
    std::thread::scope(|scope| {
        for (seed, child) in agents.chain(processes).enumerate() {
            let pid = Pid::from_child(child);
            scope.spawn(move || freeze(pid, u64::try_from(seed).unwrap(), end_ms));
        }
    });
    let standby = fleet.agents[0][1].log();
    let counts = fleet.end();
    assert_limits(&counts);
    assert!(!standby.contains("keytally: leading"), "{standby}");
    let windows = windows(&counts, &[0, 1, 2]);
    let late = windows.iter().flat_map(|(window, it)| it.admitted.range(window + 1..));
    let late: u64 = late.map(|(_, count)| count).sum();
    println!("{late} requests returned after their window");
    assert!(late > 0, "no process was stopped in a request");
}
