//! Kills processes with SIGKILL, one at every step of every protocol. The files that a process
//! leaves show the state before its operation or the state after it. No other process is blocked,
//! and `verify` completes an unfinished change.
//!
//! A *stop point* is a line of code at which a test can stop a thread (core/src/stop.rs).
//! A worker performs one operation on a copy of prepared files, stops permanently at one visit of
//! one stop point, reports it, and is killed with SIGKILL. Another worker, which is not stopped,
//! first reports which points the operation visits, and how often.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use keytally::{
    Charge, Entropy, Flaw, Followed, Gate, GateConfig, GatePart, KeyId, Limiter, Mapping,
    MigrationConfig, Name, NewKey, OnFull, Outcome, Peppers, Reason, Settlement, Timestamp,
    Verdict, stop::FileStop,
};
use keytally_core::check_all;
use keytally_core::stop::{Stop, arm, stopped, visits};

use crate::support::prompt::promptly;
use crate::support::worker::{Worker, folder, report, role, wait_for_kill};
use crate::support::{
    NOW, OTHER_PEPPER, PEPPER, config, open_limiter, plan, read_keys, write_keys,
};

/// A time at which everything that was counted at `NOW` has expired.
const LATER: Timestamp = Timestamp::from_unix_s(NOW.unix_s() + 10 * 3600);

// The operations.

/// One operation of a process, and the state that it starts from.
struct Operation {
    name: &'static str,
    /// Creates the files in a folder, in the state before the operation.
    before: fn(&Path),
    /// Performs the operation, and returns the key that it created, if any.
    act: fn(&Path) -> Option<String>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Limiter,
    Gate,
    /// A change to a gate that checks may see in part until it is completed: the limits of a plan.
    Plan,
    /// The reuse of a record, which first ends the revoked key in it.
    Reuse,
    /// A request that charges several tallies, one after another. It has a test of its own.
    Compound,
    Create,
    /// A migration, which the next administrator completes or undoes. It has its own assertions.
    Migration,
    /// Creation on a file system where a file needs a name from the beginning.
    CreateNamed,
    /// A copy of a gate. It has a test of its own.
    Copy,
}

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "hit",
        before: |at| limiter(at, 4, 3),
        act: |at| check(at, 1, NOW),
        kind: Kind::Limiter,
    },
    Operation {
        name: "insert",
        before: |at| limiter(at, 4, 3),
        act: |at| check(at, 7, NOW),
        kind: Kind::Limiter,
    },
    Operation {
        name: "reuse",
        before: |at| limiter(at, 4, 8),
        act: |at| check(at, 8, LATER),
        kind: Kind::Limiter,
    },
    Operation {
        name: "spill",
        before: spilling,
        act: |at| check(at, 100, NOW),
        kind: Kind::Limiter,
    },
    Operation {
        name: "refund",
        before: |at| limiter(at, 4, 3),
        act: |at| {
            open_limiter(at).table().refund(b"1", Charge::new(1, NOW), NOW);
            None
        },
        kind: Kind::Limiter,
    },
    Operation { name: "check", before: four_keys, act: spend, kind: Kind::Gate },
    Operation {
        name: "issue",
        before: four_keys,
        act: |at| issue(at, "live", NOW),
        kind: Kind::Gate,
    },
    Operation {
        name: "issue the first key of a team",
        before: keys_of_teams,
        act: |at| issue(at, "live", NOW),
        kind: Kind::Gate,
    },
    Operation {
        name: "change the scopes of a key",
        before: keys_of_teams,
        act: |at| {
            open_gate(at).set_scopes(ids(at)[1], &["write"]).unwrap();
            None
        },
        kind: Kind::Gate,
    },
    Operation {
        name: "issue into a used record",
        before: full_gate,
        act: |at| issue(at, "dev", LATER),
        kind: Kind::Reuse,
    },
    #[cfg(unix)]
    Operation { name: "migrate", before: keys_to_migrate, act: migrate, kind: Kind::Migration },
    Operation { name: "import", before: four_keys, act: import, kind: Kind::Gate },
    Operation { name: "rotate", before: four_keys, act: rotate, kind: Kind::Gate },
    Operation {
        name: "revoke",
        before: four_keys,
        act: |at| {
            open_gate(at).revoke(ids(at)[1]).unwrap();
            None
        },
        kind: Kind::Gate,
    },
    Operation {
        name: "assign",
        before: four_keys,
        act: |at| {
            open_gate(at).assign(ids(at)[1], "pro").unwrap();
            None
        },
        kind: Kind::Gate,
    },
    Operation {
        name: "change a plan",
        before: four_keys,
        act: |at| set_plan(at, "default"),
        kind: Kind::Plan,
    },
    Operation {
        name: "add a plan",
        before: four_keys,
        act: |at| set_plan(at, "new"),
        kind: Kind::Plan,
    },
    Operation {
        name: "complete a record",
        before: |at| leave_unfinished(at, "rotate", Stop::RecordWord),
        act: verify,
        kind: Kind::Gate,
    },
    Operation {
        name: "complete a plan",
        before: |at| leave_unfinished(at, "change a plan", Stop::PlanWord),
        act: verify,
        kind: Kind::Plan,
    },
    Operation { name: "create a gate", before: |_| (), act: create_gate, kind: Kind::Create },
    Operation { name: "create a limiter", before: |_| (), act: create_limiter, kind: Kind::Create },
    Operation {
        name: "create with a name",
        before: |_| (),
        act: create_gate,
        kind: Kind::CreateNamed,
    },
    Operation { name: "copy", before: four_keys, act: copy_gate, kind: Kind::Copy },
    Operation { name: "copy over a gate", before: older_copy, act: copy_gate, kind: Kind::Copy },
    Operation {
        name: "check a key of a team",
        before: keys_of_a_team,
        act: |at| {
            let gate = open_gate(at);
            assert!(gate.table().check(Some(texts(at)[1].as_bytes()), 2, NOW).is_admitted());
            None
        },
        kind: Kind::Compound,
    },
    Operation {
        name: "check a key, its team and groups",
        before: keys_of_a_team,
        act: |at| {
            let (gate, texts) = (open_gate(at), texts(at));
            assert!(request(&gate, &texts[1]).check(NOW).is_admitted());
            None
        },
        kind: Kind::Compound,
    },
    Operation {
        name: "check two keys and a new subject",
        before: |at| {
            keys_of_a_team(at);
            limiter(at, 4, 3);
        },
        act: |at| {
            let (gate, limiter, texts) = (open_gate(at), open_limiter(at), texts(at));
            let [one, other] =
                [1, 2].map(|index| gate.table().part(Some(texts[index].as_bytes()), 2));
            let subject = limiter.table().part(b"7", 1);
            let all = check_all(&[&one, &subject, &other], NOW);
            assert!(all.unwrap().is_admitted());
            None
        },
        kind: Kind::Compound,
    },
    Operation {
        name: "give charges back",
        before: keys_of_a_team,
        act: |at| {
            // The team has room for each of the two parts, and not for both.
            let (gate, texts) = (open_gate(at), texts(at));
            let [one, other] =
                [1, 2].map(|index| gate.table().part(Some(texts[index].as_bytes()), 50));
            let all = check_all(&[&one, &other], NOW).unwrap();
            assert_eq!(all.outcome(), Outcome::Denied);
            assert!(all.verdicts().all(|verdict| verdict.charge().is_none()));
            None
        },
        kind: Kind::Compound,
    },
    Operation {
        name: "refund a request",
        before: charged_request,
        act: |at| {
            open_gate(at).table().refund(ids(at)[1], charge_of(at), NOW).unwrap();
            None
        },
        kind: Kind::Compound,
    },
    Operation {
        name: "settle a request for less",
        before: charged_request,
        act: |at| settle(at, 1, 2),
        kind: Kind::Compound,
    },
    Operation {
        name: "settle a request for more",
        before: charged_request,
        act: |at| settle(at, 4, 9),
        kind: Kind::Compound,
    },
];

/// The tallies that requests of these tests charge.
#[derive(Clone, Copy, Debug)]
enum Tally {
    /// The tally of the key that most requests charge, and those of its groups.
    Key,
    Write,
    Tokens,
    OtherKey,
    /// The team of both keys.
    Team,
    /// The subject of a limiter.
    Subject,
}

/// The units that each [`Tally`] counts.
type Counts = [i64; 6];

/// The changes that an operation on several tallies makes, in their order.
struct Order {
    changes: Vec<(Tally, i64)>,
    /// How many changes the worker had made that was killed last.
    made: usize,
    /// Whether a worker was killed after each number of changes.
    reached: Vec<bool>,
}

impl Order {
    fn new(changes: &[(Tally, i64)]) -> Self {
        Self { changes: changes.to_vec(), made: 0, reached: vec![false; changes.len() + 1] }
    }

    /// Returns whether a worker leaves these counts if it is killed after some changes. It had made
    /// as many as the one before it, or more: it was killed at a later visit of the same point.
    fn leads_to(&mut self, before: Counts, left: Counts) -> bool {
        let mut counts = before;
        let after = self.changes.iter().map(|&(tally, units)| {
            counts[tally as usize] += units;
            counts
        });
        let all: Vec<Counts> = core::iter::once(before).chain(after).collect();
        let Some(more) = all[self.made..].iter().position(|counts| *counts == left) else {
            return false;
        };
        self.made += more;
        self.reached[self.made] = true;
        true
    }
}

/// Returns the orders that the changes of an operation on several tallies may have. Tables are
/// charged in the order of their random numbers, so there may be two.
///
/// The tallies of a gate are charged in the order of their positions: the records of all keys, then
/// the groups of keys, then the teams. A refund returns units in the order of the sections.
fn orders(operation: &Operation) -> Vec<Order> {
    use Tally::{Key, OtherKey, Subject, Team, Tokens, Write};
    let changes = match operation.name {
        "check a key of a team" => &[(Key, 2), (Team, 2)][..],
        "check a key, its team and groups" => &[(Key, 2), (Write, 2), (Tokens, 5), (Team, 2)],
        "check two keys and a new subject" => {
            let keys = [(Key, 2), (OtherKey, 2), (Team, 2), (Team, 2)];
            let subject = [(Subject, 1)];
            return vec![
                Order::new(&[&keys[..], &subject[..]].concat()),
                Order::new(&[&subject[..], &keys[..]].concat()),
            ];
        }
        "give charges back" => {
            &[(Key, 50), (OtherKey, 50), (Team, 50), (Team, -50), (OtherKey, -50), (Key, -50)]
        }
        "refund a request" => &[(Key, -2), (Team, -2), (Write, -2), (Tokens, -5)],
        "settle a request for less" => &[(Key, -1), (Write, -1), (Team, -1), (Tokens, -3)],
        "settle a request for more" => &[(Key, 2), (Write, 2), (Team, 2), (Tokens, 4)],
        other => panic!("{other} charges one tally"),
    };
    vec![Order::new(changes)]
}

fn peppers() -> Peppers {
    Peppers::new(&[PEPPER, OTHER_PEPPER]).unwrap()
}

fn open_gate(at: &Path) -> Gate {
    Gate::open(at.join("gate"), peppers()).unwrap()
}

/// Creates a limiter with subjects `0..subjects`, each charged once. A capacity of 4 is one bucket
/// of 8 slots.
fn limiter(at: &Path, capacity: u32, subjects: u32) {
    let limiter =
        Limiter::create(at.join("limiter"), &"5/hour".parse().unwrap(), capacity).unwrap();
    for subject in 0..subjects {
        assert!(limiter.table().check(subject.to_string().as_bytes(), 1, NOW).is_admitted());
    }
}

/// Creates a limiter of two buckets in which the insertion of subject 100 has to lock both. The
/// seed of a table is random, so this repeats until a table has that property: most subjects share
/// one bucket, and 100 belongs to the same bucket.
fn spilling(at: &Path) {
    loop {
        for subjects in 6..10 {
            let _ = fs::remove_file(at.join("limiter"));
            limiter(at, 8, subjects);
            if count_visits(&find_operation("spill"), at)[Stop::BucketLocked.number()] >= 3 {
                return;
            }
        }
    }
}

/// Charges a subject of the limiter.
fn check(at: &Path, subject: u32, now: Timestamp) -> Option<String> {
    assert!(open_limiter(at).table().check(subject.to_string().as_bytes(), 1, now).is_admitted());
    None
}

fn new_key(env: &str) -> NewKey<'static> {
    NewKey::new(42, Name::new(env).unwrap())
}

/// Returns the same entropy for the same number, so that two runs of one operation create the same
/// key.
fn entropy(number: u8) -> Entropy {
    let mut bytes = [number; 24];
    // The upper bits of an id select its record.
    bytes[7] = number.wrapping_mul(37);
    Entropy::new(bytes)
}

/// Creates a gate with some keys under the older pepper, each charged. Their texts and ids are in a
/// file next to it.
fn keys(at: &Path, count: u8) {
    keys_of(at, count, &config(8), &new_key("live"));
}

/// Creates a gate of this configuration, as [`keys`] does.
fn keys_of(at: &Path, count: u8, config: &GateConfig, new: &NewKey<'_>) {
    let gate = Gate::create(at.join("gate"), support::peppers(), config).unwrap();
    let mut keys = vec![];
    for number in 0..count {
        let (key, id) = gate
            .administer(|administrator| administrator.issue(new, entropy(number), NOW))
            .unwrap();
        assert!(gate.table().check(Some(key.expose().as_bytes()), 3, NOW).is_admitted());
        keys.push((id, key.expose().to_owned()));
    }
    write_keys(at, &keys);
}

/// Creates a gate with four keys and four free records.
fn four_keys(at: &Path) {
    keys(at, 4);
}

/// Creates a gate with four keys of a team, and room for the team of the account of [`new_key`].
fn keys_of_teams(at: &Path) {
    let plans = ["default", "pro"].map(|name| plan(name, "100/minute; team: 1000/hour"));
    let config = GateConfig::default().with_keys(8).with_plans(plans.to_vec()).with_teams(2);
    let config = config.with_scopes(vec!["read".to_owned(), "write".to_owned()]);
    let new = NewKey::new(41, Name::new("live").unwrap()).with_scopes(&["read"]);
    keys_of(at, 4, &config, &new);
}

/// Creates a gate with four keys of one team, which has 88 units left, and two groups.
fn keys_of_a_team(at: &Path) {
    const PLAN: &str =
        "100/minute, 1000/hour; team: 100/hour; group write: 50/minute; group tokens: 9000/minute";
    let config = GateConfig::default().with_keys(8).with_plans(vec![plan("default", PLAN)]);
    keys_of(at, 4, &config.with_teams(2), &NewKey::new(41, Name::new("live").unwrap()));
}

/// Creates a gate with three keys of one team, and room for five more.
fn keys_to_migrate(at: &Path) {
    let plans = vec![plan("default", "100/minute, 1000/month; team: 5000/hour")];
    let config = GateConfig::default().with_keys(8).with_plans(plans).with_teams(2);
    keys_of(at, 3, &config, &NewKey::new(41, Name::new("live").unwrap()));
}

/// Migrates the gate to one with twice as many keys and another window.
fn migrate(at: &Path) -> Option<String> {
    let plans = vec![plan("default", "100/minute, 500/hour, 1000/month; team: 5000/hour")];
    let migration = MigrationConfig::default().with_keys(9).with_plans(plans);
    open_gate(at).migrate(at.join("new"), &migration).unwrap();
    None
}

/// Returns the request for two units of a key and of its group `write`, and five of `tokens`.
fn request<'g>(gate: &'g Gate, key: &'g str) -> GatePart<'g, Mapping> {
    let part = gate.table().part(Some(key.as_bytes()), 2).with_group("write").unwrap();
    part.with_group_cost("tokens", 5).unwrap()
}

/// Creates what [`keys_of_a_team`] does, makes the [`request`], and stores its charge.
fn charged_request(at: &Path) {
    keys_of_a_team(at);
    let (gate, texts) = (open_gate(at), texts(at));
    let charge = request(&gate, &texts[1]).check(NOW).charge(0).unwrap();
    fs::write(at.join("charge"), charge.to_bytes()).unwrap();
}

/// Reads the charge that [`charged_request`] stored.
fn charge_of(at: &Path) -> Charge {
    let bytes = fs::read(at.join("charge")).unwrap();
    Charge::from_bytes(&bytes.try_into().unwrap()).unwrap()
}

/// Settles the request of [`charged_request`].
fn settle(at: &Path, cost: u32, tokens: u32) -> Option<String> {
    let settlement = Settlement::new().with_cost(cost).with_group("tokens", tokens);
    let gate = open_gate(at);
    let settled = gate.table().settle_all(ids(at)[1], charge_of(at), &settlement, NOW).unwrap();
    assert_eq!((settled.verdict.uncharged(), settled.uncharged()), (0, &[0][..]));
    None
}

/// The index of the revoked key whose record is reused.
const FORMER: usize = 5;

/// Creates a gate without a free record, in which one key is revoked.
fn full_gate(at: &Path) {
    keys(at, 8);
    open_gate(at).revoke(ids(at)[FORMER]).unwrap();
}

/// Reads the texts of the keys that [`keys`] created.
fn texts(at: &Path) -> Vec<String> {
    read_keys(at).into_iter().map(|(_, text)| text).collect()
}

/// Reads the ids of the keys that [`keys`] created.
fn ids(at: &Path) -> Vec<KeyId> {
    read_keys(at).into_iter().map(|(id, _)| id).collect()
}

fn spend(at: &Path) -> Option<String> {
    assert!(open_gate(at).table().check(Some(texts(at)[1].as_bytes()), 2, NOW).is_admitted());
    None
}

fn issue(at: &Path, env: &str, now: Timestamp) -> Option<String> {
    let issue = open_gate(at)
        .administer(|administrator| administrator.issue(&new_key(env), entropy(99), now));
    Some(issue.unwrap().0.expose().to_owned())
}

fn import(at: &Path) -> Option<String> {
    const TEXT: &str = "a-key-that-a-customer-has";
    open_gate(at)
        .administer(|administrator| administrator.import(TEXT.as_bytes(), &new_key("live"), NOW))
        .unwrap();
    Some(TEXT.into())
}

fn rotate(at: &Path) -> Option<String> {
    let id = ids(at)[1];
    let grace_until = Some(Timestamp::from_unix_s(LATER.unix_s() + 3600));
    let rotate = open_gate(at)
        .administer(|administrator| administrator.rotate(id, grace_until, false, entropy(98), NOW));
    Some(rotate.unwrap().expose().to_owned())
}

fn set_plan(at: &Path, name: &str) -> Option<String> {
    open_gate(at).set_plan(&plan(name, "222/minute, 2222/hour")).unwrap();
    None
}

/// Creates the files that a worker leaves if it is killed at its second visit of a point of an
/// operation.
fn leave_unfinished(at: &Path, operation: &str, point: Stop) {
    let operation = find_operation(operation);
    (operation.before)(at);
    let mut worker = start(&operation, at, point, 2);
    assert_eq!(worker.next_report().as_deref(), Some("stopped"));
    worker.kill();
}

fn verify(at: &Path) -> Option<String> {
    assert!(open_gate(at).verify(|flaw| panic!("{flaw}")).unwrap());
    None
}

fn create_gate(at: &Path) -> Option<String> {
    Gate::create(at.join("gate"), peppers(), &config(8)).unwrap();
    None
}

fn create_limiter(at: &Path) -> Option<String> {
    Limiter::create(at.join("limiter"), &"5/hour".parse().unwrap(), 8).unwrap();
    None
}

/// Creates a gate with an older copy, in which the key that was revoked since is valid.
fn older_copy(at: &Path) {
    four_keys(at);
    copy_gate(at);
    open_gate(at).revoke(ids(at)[1]).unwrap();
}

fn copy_gate(at: &Path) -> Option<String> {
    open_gate(at).copy(at.join("copy"), true).unwrap();
    None
}

// The worker.

/// Performs one operation and stops at a point of it. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [operation, at, point, visit] = &words[..] else { panic!("{words:?}") };
    let operation = &OPERATIONS[operation.parse::<usize>().unwrap()];
    if let Some(&point) = all_stops().get(point.parse::<usize>().unwrap()) {
        arm(point, visit.parse().unwrap());
    }
    let at = PathBuf::from(at);
    let act = thread::spawn(move || (operation.act)(&at));
    while !stopped() && !act.is_finished() {
        thread::yield_now();
    }
    if stopped() {
        report("stopped");
        wait_for_kill();
    }
    act.join().unwrap();
    let visits: Vec<String> =
        all_stops().into_iter().map(|point| visits(point).to_string()).collect();
    report(visits.join(","));
}

/// The steps of both crates, in the order of their numbers.
fn all_stops() -> Vec<Stop> {
    [Stop::ALL, FileStop::ALL].concat()
}

/// Returns the operation of this name.
fn find_operation(name: &str) -> Operation {
    let index = OPERATIONS.iter().position(|operation| operation.name == name).unwrap();
    let Operation { name, before, act, kind } = OPERATIONS[index];
    Operation { name, before, act, kind }
}

/// Starts a worker that stops at the `visit`th visit of a point.
fn start(operation: &Operation, at: &Path, point: Stop, visit: u64) -> Worker {
    start_by_number(operation, at, point.number(), visit)
}

/// Starts a worker that stops at a point by its number, or that stops nowhere if no point has it.
fn start_by_number(operation: &Operation, at: &Path, point: usize, visit: u64) -> Worker {
    let number = OPERATIONS.iter().position(|other| other.name == operation.name).unwrap();
    let words =
        [number.to_string(), at.display().to_string(), point.to_string(), visit.to_string()];
    let command = Worker::command(&words.each_ref().map(String::as_str));
    Worker::start(if operation.kind == Kind::CreateNamed {
        without_proc(&command)
    } else {
        command
    })
}

/// Returns the command without access to `/proc`, which makes a file need a name from the
/// beginning.
fn without_proc(command: &Command) -> Command {
    let mut inner = Command::new("unshare");
    inner.args(["--mount", "sh", "-c", "umount --lazy /proc && exec \"$0\" \"$@\""]);
    inner.arg(command.get_program()).args(command.get_args());
    inner.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    inner
}

/// Returns how often the operation visits each point, by performing it on a copy of the files.
fn count_visits(operation: &Operation, at: &Path) -> Vec<u64> {
    let copy = copy(at);
    let mut worker = start_by_number(operation, copy.path(), usize::MAX, 0);
    let visits =
        worker.next_report().unwrap_or_else(|| panic!("{}: the worker failed", operation.name));
    visits.split(',').map(|visits| visits.parse().unwrap()).collect()
}

/// Copies the files of a folder to a new folder.
fn copy(at: &Path) -> tempfile::TempDir {
    let copy = folder();
    for entry in at.read_dir().unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

// What must hold.

/// The observable state of the files: the verdicts of checks, and the list of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Observed {
    verdicts: Vec<String>,
    listed: Vec<String>,
}

/// The parts of the state that a comparison omits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Omit {
    Nothing,
    /// The hints of keys (their last characters), which are written after the record.
    Hints,
    /// Hints, and all numbers that depend on a plan.
    HintsAndLimits,
}

/// Observes the files of an operation. `texts` are the keys to check.
fn observe(operation: &Operation, at: &Path, texts: &[String], omit: Omit) -> Observed {
    let mut observed = Observed::default();
    match operation.kind {
        Kind::Limiter => {
            let limiter = open_limiter(at);
            // An expired tally may be reused at any time, so a late clock may or may not see it.
            let times = if operation.name == "reuse" { &[LATER][..] } else { &[NOW, LATER] };
            for subject in (0..10).chain([100]) {
                for &when in times {
                    let verdict = limiter.table().peek(subject.to_string().as_bytes(), 1, when);
                    observed.verdicts.push(format!("{subject} {:?}", verdict.quotas()));
                }
            }
        }
        Kind::Gate | Kind::Plan | Kind::Reuse => {
            let gate = open_gate(at);
            let former = (operation.kind == Kind::Reuse).then(|| ids(at)[FORMER]);
            for (number, text) in texts.iter().enumerate() {
                if former.is_some() && number == FORMER {
                    continue;
                }
                let verdict = gate.table().peek(Some(text.as_bytes()), 1, NOW);
                let (outcome, holder) = (verdict.outcome(), verdict.holder());
                let reason = match verdict.reason() {
                    // In a gate that has imported keys, or is about to, any text may be a key.
                    Some(Reason::Malformed) => Some(Reason::Unknown),
                    other => other,
                };
                let quotas =
                    if omit == Omit::HintsAndLimits { None } else { Some(verdict.quotas()) };
                observed.verdicts.push(format!("{outcome:?} {reason:?} {holder:?} {quotas:?}"));
            }
            for mut info in gate.table().list(NOW).filter(|info| Some(info.key_id) != former) {
                if omit != Omit::Nothing {
                    info.last_characters = None;
                }
                let quotas = if omit == Omit::HintsAndLimits { None } else { Some(info.quotas) };
                let state =
                    (info.key_id, info.account, info.env, info.plan, info.state, info.expires);
                let secret = (info.grace_until, info.pepper, &info.last_characters, info.last_used);
                observed.listed.push(format!("{state:?} {secret:?} {quotas:?}"));
            }
            if omit != Omit::HintsAndLimits {
                observed.listed.extend(gate.table().plans().map(|plan| format!("{plan:?}")));
            }
        }
        Kind::Compound | Kind::Migration | Kind::Create | Kind::CreateNamed | Kind::Copy => {}
    }
    observed
}

/// Returns the units that all windows of a tally count.
fn units(verdict: &Verdict) -> i64 {
    let used: Vec<u32> = verdict.quotas().iter().map(|state| state.used()).collect();
    assert!(verdict.quotas().iter().all(|state| state.used() <= state.limit), "{verdict:?}");
    assert!(used.iter().all(|units| *units == used[0]), "one exchange charges all: {verdict:?}");
    used[0].into()
}

/// Returns the units that each tally counts.
fn counts(at: &Path) -> Counts {
    let (gate, texts) = (open_gate(at), texts(at));
    let all = gate.table().part(Some(texts[1].as_bytes()), 0).with_group("write").unwrap();
    let all = all.with_group("tokens").unwrap().peek(NOW);
    let [key, team, write, tokens] = [0, 1, 2, 3].map(|index| all.tallies()[index].verdict());
    let other = gate.table().part(Some(texts[2].as_bytes()), 0).peek(NOW);
    let subject = at.join("limiter").exists().then(|| open_limiter(at).table().peek(b"7", 0, NOW));
    let gate = [key, write, tokens, other.tallies()[0].verdict(), team].map(units);
    let [key, write, tokens, other, team] = gate;
    [key, write, tokens, other, team, subject.map_or(0, |verdict| units(&verdict))]
}

/// Returns whether a process that is killed at this point leaves an unfinished change. `before`
/// says whether there was one before its operation.
fn leaves_unfinished(point: Stop, before: bool) -> bool {
    match point {
        Stop::RedoPublished
        | Stop::RecordOdd
        | Stop::RecordWord
        | Stop::RecordEven
        | Stop::HintKept
        | Stop::PlanRedoPublished
        | Stop::PlanWord
        | Stop::PlanWritten => true,
        FileStop::HolderNamed | FileStop::LockTaken | Stop::AdministratorEntered => before,
        _ => false,
    }
}

/// Verifies a gate. Returns whether a change was completed, and the flaws.
fn flaws(gate: &Gate) -> (bool, Vec<Flaw>) {
    let mut flaws = Vec::new();
    let completed = gate.verify(|flaw| flaws.push(flaw)).unwrap();
    (completed, flaws)
}

/// Kills one worker, and asserts everything that must hold afterwards.
fn kill_at(
    operation: &Operation,
    files: &Path,
    [before, after]: [&dyn Fn(Omit) -> Observed; 2],
    texts: &[String],
    point: Stop,
    visit: u64,
) {
    let at = copy(files);
    let at = at.path();
    let what = format!("{}, killed at {point:?} {visit}", operation.name);
    let mut worker = start(operation, at, point, visit);
    assert_eq!(worker.next_report().as_deref(), Some("stopped"), "{what}");
    let omit = if operation.kind == Kind::Plan { Omit::HintsAndLimits } else { Omit::Hints };
    let assert_either = |omit: Omit, when: &str| {
        let (observed, before, after) =
            (observe(operation, at, texts, omit), before(omit), after(omit));
        // While a record is written, the list may show an imported key before a check finds it.
        for (observed, before, after) in [
            (observed.verdicts, before.verdicts, after.verdicts),
            (observed.listed, before.listed, after.listed),
        ] {
            assert!(
                observed == before || observed == after,
                "{what}, {when}: {observed:#?}\nbefore: {before:#?}\nafter: {after:#?}"
            );
        }
    };
    // A stopped process has the same effect as a killed one.
    assert_either(omit, "stopped");
    worker.kill();
    assert_either(omit, "killed");
    match operation.kind {
        Kind::Limiter => assert_limiter_works(&what, at, point, operation),
        Kind::Gate | Kind::Plan | Kind::Reuse => {
            let gate = open_gate(at);
            let expected = leaves_unfinished(point, operation.name.starts_with("complete"));
            assert_eq!(promptly(&what, || flaws(&gate)), (expected, vec![]), "{what}");
            assert_eq!(flaws(&gate), (false, vec![]), "{what}");
            let observed = observe(operation, at, texts, Omit::Nothing);
            // The reuse of a record first ends its former key, and the first key of a team first
            // makes the team. Each is a change by itself.
            let is_second =
                operation.kind == Kind::Reuse || operation.name == "issue the first key of a team";
            let begun = expected && !is_second;
            assert!(
                observed == after(Omit::Nothing) || !begun && observed == before(Omit::Nothing),
                "{what}, verified: {observed:#?}\nafter: {:#?}",
                after(Omit::Nothing)
            );
            assert_gate_works(&what, &gate, operation);
        }
        Kind::Create | Kind::CreateNamed => assert_creation_is_atomic(&what, at, point, operation),
        Kind::Compound | Kind::Migration | Kind::Copy => {
            unreachable!("{what}: it has its own assertions")
        }
    }
}

/// Kills one worker in a request that charges several tallies. Returns the counts that it leaves.
fn kill_in_request(operation: &Operation, files: &Path, point: Stop, visit: u64) -> Counts {
    let at = copy(files);
    let at = at.path();
    let what = format!("{}, killed at {point:?} {visit}", operation.name);
    let mut worker = start(operation, at, point, visit);
    assert_eq!(worker.next_report().as_deref(), Some("stopped"), "{what}");
    let left = counts(at);
    worker.kill();
    assert_eq!(counts(at), left, "{what}: a stopped process has the same effect as a killed one");
    let gate = open_gate(at);
    assert_eq!(promptly(&what, || flaws(&gate)), (false, vec![]), "{what}");
    assert_requests_work(&what, at, left);
    assert_gate_works(&what, &gate, operation);
    left
}

/// Kills one worker in a migration. Meanwhile and afterwards, no key is refused, and every charge
/// counts in the gate that is at the path in the end.
fn kill_in_migration(operation: &Operation, files: &Path, point: Stop, visit: u64) {
    let at = copy(files);
    let at = at.path();
    let what = format!("{}, killed at {point:?} {visit}", operation.name);
    let texts = texts(at);
    let followed = Followed::open(at.join("gate"), peppers()).unwrap();
    // Each key and its team have 3 and 9 units from before.
    let mut used = vec![3; texts.len()];
    let mut charge = |when: &str| {
        for (used, text) in used.iter_mut().zip(&texts) {
            let compound =
                followed.call(|gate| gate.table().part(Some(text.as_bytes()), 2).check(NOW));
            match compound.outcome() {
                Outcome::Admitted => *used += 2,
                Outcome::Unavailable => assert!(when != "ended", "{what}, {when}"),
                other => panic!("{what}, {when}: {other} {:?}", compound.reason()),
            }
            // A charge before a seal that could not be given back counts.
            *used += compound
                .charge(0)
                .map_or(0, |left| if compound.is_admitted() { 0 } else { left.cost() });
        }
    };
    let mut worker = start(operation, at, point, visit);
    assert_eq!(worker.next_report().as_deref(), Some("stopped"), "{what}");
    charge("stopped");
    worker.kill();
    charge("killed");
    // The next administrator completes or undoes the migration.
    let gate = promptly(&what, || followed.load_for_change()).unwrap();
    assert!(!gate.table().is_migrating(), "{what}");
    let is_complete = gate.table().capacity() == 16;
    let is_named = at.join("new").exists();
    drop(gate);
    charge("ended");
    assert!(!is_named, "{what}: the new file is at the path, or does not exist");
    let named = !matches!(
        point,
        FileStop::FileMade
            | FileStop::FileRoomTaken
            | FileStop::FileWritten
            | FileStop::FileSynced
            | FileStop::SuccessorAnnounced
            | Stop::TableWritten
            | Stop::TablePublished
    );
    if matches!(
        point,
        FileStop::FileNamed
            | Stop::LineBegun
            | Stop::TallyNoted
            | Stop::TallySealed
            | Stop::TallyMoved
            | FileStop::TalliesSealed
            | FileStop::SuccessorPublished
            | FileStop::SuccessorInForce
    ) || !named
    {
        assert_eq!(is_complete, named, "{what}");
    }
    let gate = open_gate(at);
    assert_eq!(flaws(&gate), (false, vec![]), "{what}");
    for (used, text) in used.iter().zip(&texts) {
        let compound = gate.table().part(Some(text.as_bytes()), 0).peek(NOW);
        let month = compound.tallies()[0].verdict().quotas().iter().last().unwrap();
        assert_eq!(
            compound.tallies()[0].verdict().clock_ahead_s(),
            0,
            "{what}: the stamp moved, too"
        );
        assert_eq!(month.used(), *used, "{what}");
    }
    let info = gate.table().account(41, NOW).unwrap();
    let team = info.quotas()[0].iter().next().unwrap().used();
    assert_eq!(team, used.iter().sum::<u32>(), "{what}");
    if !is_complete {
        (operation.act)(at);
        assert_eq!(open_gate(at).table().capacity(), 16, "{what}");
    }
    let gate = open_gate(at);
    let issued = gate.administer(|it| it.issue(&new_key("next"), entropy(50), NOW));
    let (key, _) = issued.unwrap();
    assert!(gate.table().check(Some(key.expose().as_bytes()), 1, NOW).is_admitted(), "{what}");
}

/// Asserts that the next request is charged to all tallies, and that later ones get exactly what
/// is left.
fn assert_requests_work(what: &str, at: &Path, left: Counts) {
    let (gate, texts) = (open_gate(at), texts(at));
    promptly(what, || {
        let next = request(&gate, &texts[1]).check(NOW);
        assert!(next.is_admitted(), "{what}: {next:?}");
        let [key, write, tokens, other, team, subject] = left;
        assert_eq!(
            counts(at),
            [key + 2, write + 2, tokens + 5, other, team + 2, subject],
            "{what}: the next request"
        );
        let room = (100 - (key + 2)).min(50 - (write + 2)).min(100 - (team + 2));
        let one = || gate.table().part(Some(texts[1].as_bytes()), 1).with_group("write").unwrap();
        for index in 0..room {
            assert!(one().check(NOW).is_admitted(), "{what}: {index} of {room}");
        }
        let full = counts(at);
        assert_eq!(one().check(NOW).outcome(), Outcome::Denied, "{what}");
        assert_eq!(counts(at), full, "{what}: a denied request charges nothing");
    });
}

/// Asserts that every slot can be used, and that the subject of the operation gets exactly its
/// limit.
fn assert_limiter_works(what: &str, at: &Path, point: Stop, operation: &Operation) {
    let limiter = open_limiter(at);
    let (subject, when) = match operation.name {
        "insert" => ("7", NOW),
        "reuse" => ("8", LATER),
        "spill" => ("100", NOW),
        _ => ("1", NOW),
    };
    let counted =
        u32::from(point == Stop::FirstCharge || matches!(operation.name, "hit" | "refund"));
    promptly(what, || {
        for index in counted..6 {
            let outcome = limiter.table().check(subject.as_bytes(), 1, when).outcome();
            assert_eq!(
                outcome,
                if index < 5 { Outcome::Admitted } else { Outcome::Denied },
                "{what}: {index}"
            );
        }
        let mut full = 0;
        limiter.set_on_full(OnFull::Refuse);
        for other in 1000..1200 {
            let verdict = limiter.table().check(other.to_string().as_bytes(), 1, when);
            full += u32::from(verdict.outcome() == Outcome::Full);
        }
        assert!(full > 100, "{what}");
    });
    assert_eq!(limiter.table().live_subjects(when), limiter.table().slots_total(), "{what}");
}

/// Asserts that keys can be issued, rotated and revoked.
fn assert_gate_works(what: &str, gate: &Gate, operation: &Operation) {
    promptly(what, || {
        // If all records were taken, one is now free, or belongs to the new key.
        let next = gate
            .administer(|administrator| administrator.issue(&new_key("next"), entropy(50), LATER));
        match next {
            Ok((key, id)) => {
                assert!(
                    gate.table().check(Some(key.expose().as_bytes()), 1, LATER).is_admitted(),
                    "{what}"
                );
                gate.rotate(id, Duration::from_secs(1), false).unwrap();
                gate.revoke(id).unwrap();
            }
            Err(error) => assert!(operation.kind == Kind::Reuse, "{what}: {error}"),
        }
        assert_eq!(flaws(gate), (false, vec![]), "{what}");
    });
}

/// Asserts that a table is complete if it has its name, and that it can be created otherwise.
fn assert_creation_is_atomic(what: &str, at: &Path, point: Stop, operation: &Operation) {
    let (mut whole, mut temporary) = (0, 0);
    for entry in at.read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        match name.as_str() {
            "gate" => {
                assert_eq!(flaws(&open_gate(at)), (false, vec![]), "{what}");
                whole += 1;
            }
            "limiter" => {
                assert_eq!(open_limiter(at).table().live_subjects(NOW), 0, "{what}");
                whole += 1;
            }
            _ => {
                assert!(name.starts_with('.') && name.ends_with(".new"), "{what}: {name}");
                temporary += 1;
            }
        }
    }
    let named = point == FileStop::FileNamed;
    assert_eq!(whole, i32::from(named), "{what}");
    // Only a file that needs a name from the beginning is left, under its temporary name.
    let needs_name = operation.kind == Kind::CreateNamed || !cfg!(target_os = "linux");
    assert_eq!(temporary, i32::from(needs_name && !named), "{what}");
    // Another process can create the file, or finds it complete.
    if !named {
        promptly(what, || (operation.act)(at));
    }
}

#[test]
fn kill_at_any_step_loses_nothing_and_blocks_no_process() {
    let mut visited = vec![0; all_stops().len()];
    let mut kills = 0;
    let have_own_test = [Kind::Compound, Kind::Copy];
    for operation in OPERATIONS.iter().filter(|it| !have_own_test.contains(&it.kind)) {
        if operation.kind == Kind::CreateNamed && !can_be_without_proc() {
            // Its steps are those of the other way of creation. host/src/publish.rs tests the way
            // itself.
            println!("not root, or no `unshare`: creation under a temporary name is not killed");
            continue;
        }
        let files = folder();
        (operation.before)(files.path());
        if operation.kind == Kind::Migration {
            for (index, visits) in count_visits(operation, files.path()).into_iter().enumerate() {
                visited[index] += visits;
                for visit in 1..=visits {
                    kill_in_migration(operation, files.path(), all_stops()[index], visit);
                    kills += 1;
                }
            }
            continue;
        }
        let done = copy(files.path());
        let mut texts = if done.path().join("keys").exists() { texts(done.path()) } else { vec![] };
        let made = (operation.act)(done.path());
        if let Some(text) = &made {
            let gate = open_gate(done.path());
            let id = gate.table().peek(Some(text.as_bytes()), 0, NOW).holder().unwrap().key_id;
            let hint = gate.table().key(id, NOW).unwrap().last_characters;
            assert_eq!(hint.as_deref(), Some(&text[text.len() - 4..]), "{}", operation.name);
        }
        texts.extend(made);
        let before = |omit| observe(operation, files.path(), &texts, omit);
        let after = |omit| observe(operation, done.path(), &texts, omit);
        let visits = count_visits(operation, files.path());
        // A call that changes keys or plans flushes before it returns, under the lock.
        let changes = matches!(operation.kind, Kind::Gate | Kind::Plan | Kind::Reuse)
            && operation.name != "check";
        for point in [
            FileStop::HolderNamed,
            FileStop::LockTaken,
            FileStop::ChangeMade,
            FileStop::ChangeFlushed,
            FileStop::LockReleased,
        ] {
            assert_eq!(visits[point.number()], u64::from(changes), "{}: {point:?}", operation.name);
        }
        for (index, &visits) in visits.iter().enumerate() {
            visited[index] += visits;
            for visit in 1..=visits {
                kill_at(
                    operation,
                    files.path(),
                    [&before, &after],
                    &texts,
                    all_stops()[index],
                    visit,
                );
                kills += 1;
            }
        }
    }
    // Windows has no migration.
    let is_of_migration = |point: Stop| {
        matches!(
            point,
            Stop::LineBegun
                | Stop::TallyNoted
                | Stop::TallySealed
                | Stop::TallyMoved
                | FileStop::SuccessorAnnounced
                | FileStop::TalliesSealed
                | FileStop::SuccessorPublished
                | FileStop::SuccessorInForce
        )
    };
    let points = all_stops().into_iter().zip(&visited);
    let never =
        points.filter(|(point, visits)| **visits == 0 && (cfg!(unix) || !is_of_migration(*point)));
    let never: Vec<_> = never.collect();
    assert!(never.is_empty(), "no operation visits {never:?}");
    println!("{kills} kills at {} points", all_stops().len());
}

#[test]
fn kill_between_charges_leaves_part_of_one_request() {
    for operation in OPERATIONS.iter().filter(|operation| operation.kind == Kind::Compound) {
        let files = folder();
        (operation.before)(files.path());
        let before = counts(files.path());
        let mut orders = orders(operation);
        let mut kills = 0;
        for (index, visits) in count_visits(operation, files.path()).into_iter().enumerate() {
            orders.iter_mut().for_each(|order| order.made = 0);
            for visit in 1..=visits {
                let point = all_stops()[index];
                let left = kill_in_request(operation, files.path(), point, visit);
                orders.retain_mut(|order| order.leads_to(before, left));
                assert!(!orders.is_empty(), "{}, {point:?} {visit}: {left:?}", operation.name);
                kills += 1;
            }
        }
        for Order { changes, reached, .. } in orders {
            let all = &reached[..changes.len()];
            assert!(all.iter().all(|is_reached| *is_reached), "{changes:?}: {reached:?}");
        }
        println!("{}: {kills} kills", operation.name);
    }
}

#[test]
fn kill_during_a_copy_leaves_a_whole_copy_or_none() {
    for operation in OPERATIONS.iter().filter(|operation| operation.kind == Kind::Copy) {
        let files = folder();
        (operation.before)(files.path());
        let had_copy = files.path().join("copy").exists();
        let visits = count_visits(operation, files.path());
        for point in [FileStop::LockTaken, FileStop::FileMade, FileStop::FileNamed] {
            assert_eq!(visits[point.number()], 1, "{}: {point:?}", operation.name);
        }
        for (index, visits) in visits.into_iter().enumerate() {
            for visit in 1..=visits {
                let at = copy(files.path());
                let at = at.path();
                let point = all_stops()[index];
                let what = format!("{}, killed at {point:?} {visit}", operation.name);
                let mut worker = start(operation, at, point, visit);
                assert_eq!(worker.next_report().as_deref(), Some("stopped"), "{what}");
                worker.kill();
                let named = point == FileStop::FileNamed;
                assert_eq!(at.join("copy").exists(), named || had_copy, "{what}");
                for entry in at.read_dir().unwrap() {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    let is_whole = ["gate", "keys", "copy"].contains(&name.as_str());
                    assert!(is_whole || support::may_be_left(&name), "{what}: {name}");
                }
                if at.join("copy").exists() {
                    let copied = Gate::open(at.join("copy"), peppers()).unwrap();
                    assert_eq!(promptly(&what, || flaws(&copied)), (false, vec![]), "{what}");
                    let verdict = copied.table().peek(Some(texts(at)[1].as_bytes()), 1, NOW);
                    let is_newer = verdict.reason() == Some(Reason::Revoked);
                    assert_eq!(is_newer, named && had_copy, "{what}");
                }
                let gate = open_gate(at);
                assert_eq!(promptly(&what, || flaws(&gate)), (false, vec![]), "{what}");
                assert_gate_works(&what, &gate, operation);
                promptly(&what, || (operation.act)(at));
            }
        }
    }
}

/// Returns whether a worker can run without access to `/proc`. On systems other than Linux, every
/// file that is created has a temporary name.
fn can_be_without_proc() -> bool {
    let mut test = Command::new("unshare");
    test.args(["--mount", "sh", "-c", "umount --lazy /proc"]);
    test.output().is_ok_and(|output| output.status.success())
}
