//! A process killed at every step of every protocol, one after the other: what it leaves is what was before its
//! operation or what is after it, nobody is stuck, and `verify` completes what was begun.
//!
//! A worker does one operation on a copy of files that were made before, stops for ever at one visit of one stop point,
//! says so, and is killed with -9. Which points an operation visits, and how often, a first worker tells that isn't
//! stopped.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/prompt.rs"]
mod prompt;
mod support;

use core::fmt::Write as _;
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use keytally::stop::{Stop, arm, stopped, visits};
use keytally::{Charge, Entropy, KeyId, Name, Outcome, Peppers, Plan, Reason, Timestamp};
use keytally::{Flaw, NewKey};
use keytally::{Gate, GateConfig, Limiter};

use crate::prompt::promptly;
use crate::support::{Worker, folder, role, tell, wait_for_death};

const NOW: Timestamp = Timestamp::from_unix_s(1_700_000_000);
/// When all that was counted at `NOW` is forgotten everywhere.
const LATER: Timestamp = Timestamp::from_unix_s(1_700_000_000 + 10 * 3600);

const OLD_PEPPER: &[u8] = b"a pepper for tests, of 32 bytes.";
const NEW_PEPPER: &[u8] = b"another pepper, also of 32 bytes";

// The operations.

/// One thing that a process does, with what was there before.
struct Operation {
    name: &'static str,
    /// Makes the files in a folder.
    before: fn(&Path),
    /// Does it, and returns the key that it made, if any.
    act: fn(&Path) -> Option<String>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Limiter,
    Gate,
    /// The same for a change that checks may see in parts, until it is completed: the limits of a plan.
    Plan,
    /// The same for a change that ends this key before it is made.
    Reuse,
    Create,
    /// Creation where files need a name from the beginning.
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
    Operation { name: "spill", before: spilling, act: |at| check(at, 100, NOW), kind: Kind::Limiter },
    Operation {
        name: "refund",
        before: |at| limiter(at, 4, 3),
        act: |at| {
            open_limiter(at).table().refund(b"1", Charge { cost: 1, at: NOW }, NOW);
            None
        },
        kind: Kind::Limiter,
    },
    Operation { name: "check", before: four_keys, act: spend, kind: Kind::Gate },
    Operation { name: "issue", before: four_keys, act: |at| issue(at, "live", NOW), kind: Kind::Gate },
    Operation { name: "issue anew", before: full, act: |at| issue(at, "dev", LATER), kind: Kind::Reuse },
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
    Operation { name: "add a plan", before: four_keys, act: |at| set_plan(at, "new"), kind: Kind::Plan },
    Operation {
        name: "complete a record",
        before: |at| left(at, "rotate", Stop::RecordWord),
        act: verify,
        kind: Kind::Gate,
    },
    Operation {
        name: "complete a plan",
        before: |at| left(at, "change a plan", Stop::PlanWord),
        act: verify,
        kind: Kind::Plan,
    },
    Operation { name: "create a gate", before: |_| (), act: create_gate, kind: Kind::Create },
    Operation { name: "create a limiter", before: |_| (), act: create_limiter, kind: Kind::Create },
    Operation { name: "create with a name", before: |_| (), act: create_gate, kind: Kind::CreateNamed },
];

fn peppers() -> Peppers {
    Peppers::new(&[OLD_PEPPER, NEW_PEPPER]).unwrap()
}

fn plan(name: &str, policy: &str) -> Plan {
    Plan::new(name, policy.parse().unwrap()).unwrap()
}

fn config() -> GateConfig {
    let plans = vec![plan("default", "100/minute, 1000/hour"), plan("pro", "1000/minute, 20000/hour")];
    GateConfig { keys: 8, plans, ..GateConfig::default() }
}

fn open_gate(at: &Path) -> Gate {
    Gate::open(at.join("gate"), peppers()).unwrap()
}

fn open_limiter(at: &Path) -> Limiter {
    Limiter::open(at.join("limiter")).unwrap()
}

/// A limiter with subjects `0..subjects`, each charged once. A capacity of 4 is one bucket of 8 slots.
fn limiter(at: &Path, capacity: u32, subjects: u32) {
    let limiter = Limiter::create(at.join("limiter"), &"5/hour".parse().unwrap(), capacity).unwrap();
    for subject in 0..subjects {
        assert!(limiter.table().check(subject.to_string().as_bytes(), 1, NOW).is_admitted());
    }
}

/// A limiter of two buckets, in which the subject 100 has to take the claims of both. The table's seed is random, so
/// some are made until one is so: six subjects of eight or more in one bucket, and the 100 among their like.
fn spilling(at: &Path) {
    loop {
        for subjects in 6..10 {
            let _ = fs::remove_file(at.join("limiter"));
            limiter(at, 8, subjects);
            if count(&find("spill"), at)[Stop::LimiterClaimed as usize] >= 3 {
                return;
            }
        }
    }
}

fn check(at: &Path, subject: u32, now: Timestamp) -> Option<String> {
    assert!(open_limiter(at).table().check(subject.to_string().as_bytes(), 1, now).is_admitted());
    None
}

fn new_key(env: &str) -> NewKey<'static> {
    NewKey::new(42, Name::new(env).unwrap())
}

/// The entropy is always the same, so that two runs of one operation make the same key.
fn entropy(number: u8) -> Entropy {
    let mut bytes = [number; 24];
    // Ids are spread over the records by their upper bits.
    bytes[7] = number.wrapping_mul(37);
    Entropy::new(bytes)
}

/// A gate with some keys under the older pepper, each charged; their texts and ids are in a file beside it.
fn keys(at: &Path, count: u8) {
    let gate = Gate::create(at.join("gate"), Peppers::new(&[OLD_PEPPER]).unwrap(), &config()).unwrap();
    let mut texts = String::new();
    for number in 0..count {
        let (key, id) = gate
            .administer(|administrator| administrator.issue(&new_key("live"), entropy(number), NOW))
            .unwrap();
        assert!(gate.table().check(Some(key.expose().as_bytes()), 3, NOW).is_admitted());
        writeln!(texts, "{} {id}", key.expose()).unwrap();
    }
    fs::write(at.join("keys"), texts).unwrap();
}

fn four_keys(at: &Path) {
    keys(at, 4);
}

/// The key whose record is reused: the one that was revoked.
const FORMER: usize = 5;

/// A gate without a free record, in which one key was revoked.
fn full(at: &Path) {
    keys(at, 8);
    open_gate(at).revoke(ids(at)[FORMER]).unwrap();
}

fn texts(at: &Path) -> Vec<String> {
    let keys = fs::read_to_string(at.join("keys")).unwrap();
    keys.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

fn ids(at: &Path) -> Vec<KeyId> {
    let keys = fs::read_to_string(at.join("keys")).unwrap();
    keys.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

fn spend(at: &Path) -> Option<String> {
    assert!(open_gate(at).table().check(Some(texts(at)[1].as_bytes()), 2, NOW).is_admitted());
    None
}

fn issue(at: &Path, env: &str, now: Timestamp) -> Option<String> {
    let issue =
        open_gate(at).administer(|administrator| administrator.issue(&new_key(env), entropy(99), now));
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

/// What a worker leaves that is killed at a point of an operation.
fn left(at: &Path, operation: &str, point: Stop) {
    let operation = find(operation);
    (operation.before)(at);
    let mut worker = start(&operation, at, point, 2);
    assert_eq!(worker.answer().as_deref(), Some("stopped"));
    worker.kill();
}

fn verify(at: &Path) -> Option<String> {
    assert!(open_gate(at).verify(|flaw| panic!("{flaw}")).unwrap());
    None
}

fn create_gate(at: &Path) -> Option<String> {
    Gate::create(at.join("gate"), peppers(), &config()).unwrap();
    None
}

fn create_limiter(at: &Path) -> Option<String> {
    Limiter::create(at.join("limiter"), &"5/hour".parse().unwrap(), 8).unwrap();
    None
}

// The worker.

/// Does one operation and stops on the way; no test unless it is told to be one.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [operation, at, point, visit] = &words[..] else { panic!("{words:?}") };
    let operation = &OPERATIONS[operation.parse::<usize>().unwrap()];
    if let Some(&point) = Stop::ALL.get(point.parse::<usize>().unwrap()) {
        arm(point, visit.parse().unwrap());
    }
    let at = PathBuf::from(at);
    let act = thread::spawn(move || (operation.act)(&at));
    while !stopped() && !act.is_finished() {
        thread::yield_now();
    }
    if stopped() {
        tell("stopped");
        wait_for_death();
    }
    act.join().unwrap();
    let visits: Vec<String> = Stop::ALL.iter().map(|&point| visits(point).to_string()).collect();
    tell(visits.join(","));
}

fn find(name: &str) -> Operation {
    let place = OPERATIONS.iter().position(|operation| operation.name == name).unwrap();
    let Operation { name, before, act, kind } = OPERATIONS[place];
    Operation { name, before, act, kind }
}

fn start(operation: &Operation, at: &Path, point: Stop, visit: u64) -> Worker {
    worker_at(operation, at, point as usize, visit)
}

fn worker_at(operation: &Operation, at: &Path, point: usize, visit: u64) -> Worker {
    let number = OPERATIONS.iter().position(|other| other.name == operation.name).unwrap();
    let words = [number.to_string(), at.display().to_string(), point.to_string(), visit.to_string()];
    let command = Worker::command(&words.each_ref().map(String::as_str));
    Worker::start(if operation.kind == Kind::CreateNamed { without_proc(&command) } else { command })
}

/// The same command where there is no `/proc`, without which a file needs a name from the beginning.
fn without_proc(command: &Command) -> Command {
    let mut inner = Command::new("unshare");
    inner.args(["--mount", "sh", "-c", "umount --lazy /proc && exec \"$0\" \"$@\""]);
    inner.arg(command.get_program()).args(command.get_args());
    inner.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    inner
}

/// How often the operation visits each point, done on a copy of the files.
fn count(operation: &Operation, at: &Path) -> Vec<u64> {
    let copy = copy(at);
    let mut worker = worker_at(operation, copy.path(), usize::MAX, 0);
    let answer = worker.answer().unwrap_or_else(|| panic!("{}: the worker failed", operation.name));
    answer.split(',').map(|visits| visits.parse().unwrap()).collect()
}

fn copy(at: &Path) -> tempfile::TempDir {
    let copy = folder();
    for entry in at.read_dir().unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

// What must hold.

/// All that anybody can see of the files: what checks answer, and what is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    answers: Vec<String>,
    listed: Vec<String>,
}

/// What is left out of what is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum But {
    Nothing,
    /// The hint, which is kept after the record is written.
    Hints,
    /// Hints, and all numbers that a plan says.
    Limits,
}

fn see(operation: &Operation, at: &Path, texts: &[String], but: But) -> Seen {
    let mut seen = Seen::default();
    match operation.kind {
        Kind::Limiter => {
            let limiter = open_limiter(at);
            // What has expired may go; what is left of it to a clock that is late is no promise.
            let times = if operation.name == "reuse" { &[LATER][..] } else { &[NOW, LATER] };
            for subject in (0..10).chain([100]) {
                for &when in times {
                    let verdict = limiter.table().peek(subject.to_string().as_bytes(), 1, when);
                    seen.answers.push(format!("{subject} {:?}", verdict.quotas()));
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
                    // In a gate that has, or is about to have, imported keys any text may be a key.
                    Some(Reason::Malformed) => Some(Reason::Unknown),
                    other => other,
                };
                let quotas = if but == But::Limits { None } else { Some(verdict.quotas()) };
                seen.answers.push(format!("{outcome:?} {reason:?} {holder:?} {quotas:?}"));
            }
            for mut info in gate.table().list(NOW).filter(|info| Some(info.key_id) != former) {
                if but != But::Nothing {
                    info.last_characters = None;
                }
                let quotas = if but == But::Limits { None } else { Some(info.quotas) };
                let state = (info.key_id, info.account, info.env, info.plan, info.state, info.not_after);
                let secret = (info.grace_until, info.pepper, &info.last_characters, info.last_used);
                seen.listed.push(format!("{state:?} {secret:?} {quotas:?}"));
            }
            if but != But::Limits {
                seen.listed.extend(gate.table().plans().map(|plan| format!("{plan:?}")));
            }
        }
        Kind::Create | Kind::CreateNamed => {}
    }
    seen
}

/// Whether a change is left half-done by who dies here.
fn leaves_an_intent(point: Stop, before: bool) -> bool {
    match point {
        Stop::IntentPublished
        | Stop::RecordOdd
        | Stop::RecordWord
        | Stop::RecordEven
        | Stop::HintKept
        | Stop::PlanIntentPublished
        | Stop::PlanWord
        | Stop::PlanWritten => true,
        Stop::HolderNamed | Stop::LockTaken | Stop::AdministratorEntered => before,
        _ => false,
    }
}

fn flaws(gate: &Gate) -> (bool, Vec<Flaw>) {
    let mut flaws = Vec::new();
    let completed = gate.verify(|flaw| flaws.push(flaw)).unwrap();
    (completed, flaws)
}

/// One kill, and all that must hold after it.
fn kill_at(
    operation: &Operation,
    files: &Path,
    [before, after]: [&dyn Fn(But) -> Seen; 2],
    texts: &[String],
    point: Stop,
    visit: u64,
) {
    let at = copy(files);
    let at = at.path();
    let what = format!("{}, killed at {point:?} {visit}", operation.name);
    let mut worker = start(operation, at, point, visit);
    assert_eq!(worker.answer().as_deref(), Some("stopped"), "{what}");
    let but = if operation.kind == Kind::Plan { But::Limits } else { But::Hints };
    let either = |but: But, when: &str| {
        let (seen, before, after) = (see(operation, at, texts, but), before(but), after(but));
        // While a record is written, it may be listed before a key of foreign form in it is found.
        for (seen, before, after) in
            [(seen.answers, before.answers, after.answers), (seen.listed, before.listed, after.listed)]
        {
            assert!(
                seen == before || seen == after,
                "{what}, {when}: {seen:#?}\nbefore: {before:#?}\nafter: {after:#?}"
            );
        }
    };
    // A process that stands still does no more harm than a dead one.
    either(but, "stopped");
    worker.kill();
    either(but, "killed");
    match operation.kind {
        Kind::Limiter => limiter_lives(&what, at, point, operation),
        Kind::Gate | Kind::Plan | Kind::Reuse => {
            let gate = open_gate(at);
            let expected = leaves_an_intent(point, operation.name.starts_with("complete"));
            assert_eq!(promptly(&what, || flaws(&gate)), (expected, vec![]), "{what}");
            assert_eq!(flaws(&gate), (false, vec![]), "{what}");
            let seen = see(operation, at, texts, But::Nothing);
            // The reuse of a record first ends the key that had it, which is a change of its own.
            let begun = expected && operation.kind != Kind::Reuse;
            assert!(
                seen == after(But::Nothing) || !begun && seen == before(But::Nothing),
                "{what}, verified: {seen:#?}\nafter: {:#?}",
                after(But::Nothing)
            );
            gate_lives(&what, &gate, operation);
        }
        Kind::Create | Kind::CreateNamed => creation_left_nothing(&what, at, point, operation),
    }
}

/// Every slot can be used, and the subject of the operation has its whole limit and no more.
fn limiter_lives(what: &str, at: &Path, point: Stop, operation: &Operation) {
    let limiter = open_limiter(at);
    let (subject, when) = match operation.name {
        "insert" => ("7", NOW),
        "reuse" => ("8", LATER),
        "spill" => ("100", NOW),
        _ => ("1", NOW),
    };
    let counted = u32::from(point == Stop::LimiterCharged || matches!(operation.name, "hit" | "refund"));
    promptly(what, || {
        for place in counted..6 {
            let outcome = limiter.table().check(subject.as_bytes(), 1, when).outcome();
            assert_eq!(
                outcome,
                if place < 5 { Outcome::Admitted } else { Outcome::Denied },
                "{what}: {place}"
            );
        }
        let mut full = 0;
        for other in 1000..1200 {
            let verdict = limiter.table().check(other.to_string().as_bytes(), 1, when);
            full += u32::from(verdict.outcome() == Outcome::Full);
        }
        assert!(full > 100, "{what}");
    });
    assert_eq!(limiter.table().live_subjects(when), limiter.table().slots_total(), "{what}");
}

fn gate_lives(what: &str, gate: &Gate, operation: &Operation) {
    promptly(what, || {
        // Where all records were taken, one was freed, or is the new key's.
        let next = gate.administer(|administrator| administrator.issue(&new_key("next"), entropy(50), LATER));
        match next {
            Ok((key, id)) => {
                assert!(gate.table().check(Some(key.expose().as_bytes()), 1, LATER).is_admitted(), "{what}");
                gate.rotate(id, Duration::from_secs(1), false).unwrap();
                gate.revoke(id).unwrap();
            }
            Err(error) => assert!(operation.kind == Kind::Reuse, "{what}: {error}"),
        }
        assert_eq!(flaws(gate), (false, vec![]), "{what}");
    });
}

fn creation_left_nothing(what: &str, at: &Path, point: Stop, operation: &Operation) {
    let (mut whole, mut unnamed) = (0, 0);
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
                assert!(name.starts_with(".gate.") && name.ends_with(".new"), "{what}: {name}");
                unnamed += 1;
            }
        }
    }
    let named = point == Stop::FileNamed;
    assert_eq!(whole, i32::from(named), "{what}");
    // Only a file that needs a name from the beginning is left under one, of its own.
    assert_eq!(unnamed, i32::from(operation.kind == Kind::CreateNamed && !named), "{what}");
    // Whoever comes next creates it, or finds it whole.
    if !named {
        promptly(what, || (operation.act)(at));
    }
}

#[test]
fn a_process_killed_at_any_step_harms_nobody() {
    let mut visited = vec![0; Stop::ALL.len()];
    let mut kills = 0;
    for operation in OPERATIONS {
        if operation.kind == Kind::CreateNamed && !can_be_without_proc() {
            // Its steps are those of the other way to create; the way itself is tested in host/src/publish.rs.
            println!("not root, or no `unshare`: creation under a name of its own isn't killed");
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
        let before = |but| see(operation, files.path(), &texts, but);
        let after = |but| see(operation, done.path(), &texts, but);
        let visits = count(operation, files.path());
        // Whoever changes keys or plans flushes before the call returns, and does so under the lock.
        let changes =
            matches!(operation.kind, Kind::Gate | Kind::Plan | Kind::Reuse) && operation.name != "check";
        for point in
            [Stop::HolderNamed, Stop::LockTaken, Stop::ChangeMade, Stop::ChangeFlushed, Stop::LockReleased]
        {
            assert_eq!(visits[point as usize], u64::from(changes), "{}: {point:?}", operation.name);
        }
        for (place, &visits) in visits.iter().enumerate() {
            visited[place] += visits;
            for visit in 1..=visits {
                kill_at(operation, files.path(), [&before, &after], &texts, Stop::ALL[place], visit);
                kills += 1;
            }
        }
    }
    let never: Vec<_> = Stop::ALL.iter().zip(&visited).filter(|(_, visits)| **visits == 0).collect();
    assert!(never.is_empty(), "no operation comes to {never:?}");
    println!("{kills} kills at {} points", Stop::ALL.len());
}

fn can_be_without_proc() -> bool {
    let mut test = Command::new("unshare");
    test.args(["--mount", "sh", "-c", "umount --lazy /proc"]);
    test.output().is_ok_and(|output| output.status.success())
}
