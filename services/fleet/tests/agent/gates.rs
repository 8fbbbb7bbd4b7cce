//! Gates in files, with the agents of two machines and a real server: what a user has.

use core::time::Duration;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;

use keytally::{
    FleetFile, Gate, GateConfig, Name, NewKey, Outcome, Peppers, Plan, Unavailability, Verdict,
    pepper,
};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::plan::layout::{PageState, PageWord, Phase};
use keytally_fleet::{Agent, FleetConfig, OnLoss};

use crate::support::fleet::config;
use crate::support::servers::Server;
use crate::support::time::now;

fn peppers() -> Peppers {
    pepper::parse(&"6b".repeat(32)).unwrap()
}

/// A machine: its gate and its fleet file, which the agent and requests open by themselves.
struct Machine {
    gate: PathBuf,
    fleet: PathBuf,
}

/// Creates the gates of machines with one key. Returns the key too.
fn machines(folder: &Path, count: usize, plan: &str) -> (Vec<Machine>, String) {
    let (machines, [key, _]) = machines_of_team(folder, count, plan);
    (machines, key)
}

/// Creates the gates of machines with two keys of one team.
fn machines_of_team(folder: &Path, count: usize, plan: &str) -> (Vec<Machine>, [String; 2]) {
    let plan = Plan::new("default", plan.parse().unwrap()).unwrap();
    let machine = |number| Machine {
        gate: folder.join(format!("{number}.gate")),
        fleet: folder.join(format!("{number}.fleet")),
    };
    let machines: Vec<_> = (0..count).map(machine).collect();
    let config = GateConfig::default().with_keys(4).with_plans(vec![plan]);
    let gate = Gate::create(&machines[0].gate, peppers(), &config).unwrap();
    let issue = |()| gate.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap().0;
    let keys = [(), ()].map(issue).map(|key| key.expose().to_owned());
    gate.set_fleet(true).unwrap();
    drop(gate);
    for machine in &machines[1..] {
        std::fs::copy(&machines[0].gate, &machine.gate).unwrap();
    }
    (machines, keys)
}

/// Runs an agent for each machine while `work` runs.
fn with_agents(machines: &[Machine], config: &FleetConfig, work: impl FnOnce()) {
    let stop = AtomicU64::new(0);
    thread::scope(|scope| {
        for machine in machines {
            let stop = &stop;
            scope.spawn(move || {
                let gate = Gate::open(&machine.gate, peppers()).unwrap();
                let file = FleetFile::create(&machine.fleet, &gate).unwrap();
                assert!(file.try_lock().unwrap(), "another agent runs");
                let agent = Agent::new(&file, config).unwrap();
                agent.run(|| stop.load(Ordering::Acquire) != 0).unwrap();
            });
        }
        let _end = End(&stop);
        work();
    });
}

/// Ends the agents, also if an assertion fails.
struct End<'e>(&'e AtomicU64);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Release);
    }
}

fn wait_for(machines: &[Machine], phase: Phase) {
    let since = now();
    for machine in machines {
        loop {
            let gate = Gate::open(&machine.gate, peppers()).unwrap();
            let found = FleetFile::open(&machine.fleet, &gate).map(|file| {
                PageState::from_bits(file.page(PageWord::State).load(Ordering::Acquire)).phase
            });
            if found.is_ok_and(|found| found == phase) {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "no {phase:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Opens the gates as servers do.
fn joined(machines: &[Machine]) -> Vec<Gate> {
    let join = |machine: &Machine| {
        let gate = Gate::open(&machine.gate, peppers()).unwrap();
        gate.join(&machine.fleet).unwrap();
        gate
    };
    machines.iter().map(join).collect()
}

/// Sends requests to all machines in turn, until 200 of them in a row were refused. Returns how
/// many were admitted, and the last verdict.
fn admitted(gates: &[Gate], key: &str) -> (u32, Verdict) {
    let (mut admitted, mut refused) = (0, 0);
    loop {
        for gate in gates {
            let verdict = gate.check(Some(key.as_bytes()), 1);
            if verdict.is_admitted() {
                assert!(verdict.is_leased(), "{verdict:?}");
                (admitted, refused) = (admitted + 1, 0);
            } else {
                refused += 1;
                if refused == 200 {
                    return (admitted, verdict);
                }
                // Units that the other machine does not need return within 0.25 s.
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn gates_of_two_machines_share_one_limit_through_losses() {
    let folder = tempfile::tempdir().unwrap();
    let (machines, key) = machines(folder.path(), 2, "100/week");
    let mut server = Server::start(&[]);
    with_agents(&machines, &config(&server.url()), || {
        wait_for(&machines, Phase::Leading);
        let gates = joined(&machines);
        let first = gates[0].check(Some(key.as_bytes()), 30);
        assert_eq!((first.outcome(), first.is_leased()), (Outcome::Admitted, true));
        assert_eq!(first.remaining(), Some(70), "of all machines");

        server.kill();
        wait_for(&machines, Phase::Cut);
        // Credits that a machine has are spent; without any, the choice decides: closed.
        let (alone, last) = admitted(&gates, &key);
        assert_eq!(last.outcome(), Outcome::Unavailable);
        assert_eq!(last.unavailability(), Some(Unavailability::Lost));
        assert_eq!(last.http_status(), 503);
        assert!(alone < 70, "{alone} were admitted without the store");

        server.restart();
        wait_for(&machines, Phase::Leading);
        let (rest, last) = admitted(&gates, &key);
        assert_eq!(
            30 + alone + rest,
            100,
            "exactly one limit, after the store was restarted empty"
        );
        assert_eq!((last.outcome(), last.http_status()), (Outcome::Denied, 429));
        assert_eq!(last.remaining(), Some(0));
    });
}

/// Sends requests of a key to a gate until one is refused. Returns how many were admitted, and by
/// credits.
fn admitted_here(gate: &Gate, key: &str, group: Option<&str>) -> (u32, u32) {
    let (mut admitted, mut leased) = (0, 0);
    loop {
        let mut part = gate.part(Some(key.as_bytes()), 1);
        if let Some(group) = group {
            part = part.with_group(group).unwrap();
        }
        let verdict = part.check(gate.clock());
        if !verdict.is_admitted() {
            return (admitted, leased);
        }
        admitted += 1;
        leased += u32::from(verdict.decisive().is_leased());
    }
}

#[test]
fn every_section_admitted_on_loss_is_counted_when_the_store_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let plan = "100/week; team: 150/week; group write: 40/week";
    let (machines, [one, two]) = machines_of_team(folder.path(), 2, plan);
    let mut server = Server::start(&[]);
    let config = FleetConfig { on_loss: OnLoss::Open, ..config(&server.url()) };
    with_agents(&machines, &config, || {
        wait_for(&machines, Phase::Leading);
        let gates = joined(&machines);
        server.kill();
        wait_for(&machines, Phase::Cut);
        assert_eq!(admitted_here(&gates[0], &one, Some("write")), (40, 0), "none is leased");
        server.restart();
        wait_for(&machines, Phase::Leading);
        gates.iter().for_each(|gate| gate.set_credit_wait(Duration::from_secs(5)));
        // The other machine gets the rest: nothing of the group, 60 of the key, 110 of the team.
        assert_eq!(admitted_here(&gates[1], &one, Some("write")), (0, 0));
        assert_eq!(admitted_here(&gates[1], &one, None), (60, 60));
        assert_eq!(admitted_here(&gates[1], &two, None), (50, 50));
    });
}

/// Replaces the content of a file, and keeps its inode.
fn overwrite(path: &Path, content: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all(content).unwrap();
}

#[test]
fn file_overwritten_by_an_older_copy_is_void() {
    let folder = tempfile::tempdir().unwrap();
    let (machines, key) = machines(folder.path(), 1, "100/week");
    let server = Server::start(&[]);
    with_agents(&machines, &config(&server.url()), || {
        wait_for(&machines, Phase::Leading);
        let gates = joined(&machines);
        let check = || gates[0].check(Some(key.as_bytes()), 1);
        let key_id = check().holder().unwrap().key_id;
        let file = FleetFile::open(&machines[0].fleet, &gates[0]).unwrap();
        let name = || file.page(PageWord::Name).load(Ordering::Acquire);
        let credits = || -> u32 {
            let of_tally = |tally| {
                let word = file.words(tally)?.credits.load(Ordering::Acquire);
                Some(file.subject(tally)?.layout.units(word, 0))
            };
            (0..file.tallies()).filter_map(of_tally).sum()
        };
        // Its leases become larger.
        let first = 1 + (0..20).take_while(|_| credits() == 0 && check().is_leased()).count();
        let (before, copied) = (name(), credits());
        assert!(copied > 0, "there is no credit to count again");
        let copy = std::fs::read(&machines[0].fleet).unwrap();
        assert_eq!(first + admitted(&gates, &key).0 as usize, 100);
        // From here on, only the credits limit the key.
        gates[0].reset(key_id);
        overwrite(&machines[0].fleet, &copy);
        let since = now();
        while name() == before {
            assert!(since.elapsed() < Duration::from_secs(10), "the agent has not noticed it");
            thread::sleep(Duration::from_millis(5));
        }
        wait_for(&machines, Phase::Leading);
        assert_eq!(credits(), 0, "of {copied}");
        assert_eq!(admitted(&gates, &key).0, 0);
    });
}

#[test]
fn process_that_did_not_join_admits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (machines, key) = machines(folder.path(), 1, "100/week; team: 100/day");
    let server = Server::start(&[]);
    with_agents(&machines, &config(&server.url()), || {
        wait_for(&machines, Phase::Leading);
        let other = Gate::open(&machines[0].gate, peppers()).unwrap();
        let verdict = other.check(Some(key.as_bytes()), 1);
        assert_eq!(verdict.unavailability(), Some(Unavailability::NotReserving));
        let gates = joined(&machines);
        let (units, last) = admitted(&gates, &key);
        assert_eq!((units, last.outcome()), (100, Outcome::Denied), "all sections have credits");
        // An administrator takes the gate out of the fleet: the machine's own tallies decide.
        other.set_fleet(false).unwrap();
        let verdict = other.check(Some(key.as_bytes()), 1);
        assert_eq!((verdict.outcome(), verdict.is_leased()), (Outcome::Denied, false));
    });
}
