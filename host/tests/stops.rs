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
    Charge, Entropy, Flaw, Gate, GateConfig, KeyId, Limiter, Name, NewKey, OnFull, Outcome,
    Peppers, Reason, Timestamp, stop::FileStop,
};
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
    Create,
    /// Creation on a file system where a file needs a name from the beginning.
    CreateNamed,
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
];

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
        Kind::Create | Kind::CreateNamed => {}
    }
    observed
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
    }
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
    for operation in OPERATIONS {
        if operation.kind == Kind::CreateNamed && !can_be_without_proc() {
            // Its steps are those of the other way of creation. host/src/publish.rs tests the way
            // itself.
            println!("not root, or no `unshare`: creation under a temporary name is not killed");
            continue;
        }
        let files = folder();
        (operation.before)(files.path());
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
    let never: Vec<_> =
        all_stops().into_iter().zip(&visited).filter(|(_, visits)| **visits == 0).collect();
    assert!(never.is_empty(), "no operation visits {never:?}");
    println!("{kills} kills at {} points", all_stops().len());
}

/// Returns whether a worker can run without access to `/proc`. On systems other than Linux, every
/// file that is created has a temporary name.
fn can_be_without_proc() -> bool {
    let mut test = Command::new("unshare");
    test.args(["--mount", "sh", "-c", "umount --lazy /proc"]);
    test.output().is_ok_and(|output| output.status.success())
}
