//! Migrations of a gate while processes check its keys.
// Windows does not rename over a file that is open and mapped.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use keytally::{
    Compound, Current, Decided as _, Error, Followed, Gate, GateConfig, KeyId, KeyState, Limiter,
    MigrationConfig, NotCarried, Outcome, RequestError, Wait, check_all,
};

use crate::support::prompt::promptly;
use crate::support::worker::{Worker, folder, report, role};
use crate::support::{is_full, is_quick, new_key, peppers, plan, read_keys, write_keys};

/// Processes that check keys during the migrations.
const PROCESSES: usize = 4;

/// The limits of a key and of a team in the plans.
const KEY_LIMIT: u32 = 40_000;
const TEAM_LIMIT: u32 = 90_000;

/// The plans of a gate, in turns: each migration changes the sections or the windows.
const PLANS: [&str; 3] = [
    "40000/31d; team: 90000/31d",
    "100000/minute, 40000/31d; team: 90000/31d",
    "40000/31d; group write: 9/second; team: 900000/hour, 90000/31d",
];

fn open(at: &Path) -> Gate {
    Gate::open(at.join("gate"), peppers()).unwrap()
}

/// Creates a gate with three keys of one team, and one that was imported for another.
fn create(at: &Path, text: &str) -> Vec<(KeyId, String)> {
    let config = GateConfig::default().with_keys(8).with_plans(vec![plan("default", text)]);
    let gate = Gate::create(at.join("gate"), peppers(), &config).unwrap();
    let mut keys = Vec::new();
    for _ in 0..3 {
        let (key, id) = gate.issue(&new_key()).unwrap();
        keys.push((id, key.expose().to_owned()));
    }
    let mut new = new_key();
    new.account = 7;
    let text = "an-imported-key-0001";
    let import = gate.administer(|it| it.import(text.as_bytes(), &new, keytally::now()));
    keys.push((import.unwrap(), text.to_owned()));
    write_keys(at, &keys);
    keys
}

fn check(followed: &Followed, key: &str) -> Compound {
    followed.call(|gate| {
        let part = gate.part(Some(key.as_bytes()), 1);
        // A gate has at most as many tallies as a request may charge.
        check_all(&[&part]).unwrap()
    })
}

/// Checks keys until once after the file `end` exists. Reports the number of each migration that it
/// followed. At the end, it reports how many requests with each key were admitted, how many were
/// denied, and how many found the gate unavailable.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let at = Path::new(&words[0]);
    let keys = read_keys(at);
    let followed = Followed::open(at.join("gate"), peppers()).unwrap();
    report("ready");
    let (mut admitted, mut denied, mut unavailable) = (vec![0; keys.len()], 0, 0);
    let (mut is_last, mut reported) = (false, 0);
    while !is_last {
        is_last = at.join("end").exists();
        for (index, (_, key)) in keys.iter().enumerate() {
            let compound = check(&followed, key);
            match compound.outcome() {
                Outcome::Admitted => admitted[index] += 1,
                Outcome::Denied => {
                    let spent = compound.decisive().quotas().iter().any(|it| it.remaining == 0);
                    assert!(spent, "{compound:?}");
                    denied += 1;
                }
                Outcome::Unavailable => unavailable += 1,
                other => panic!("{other}: {:?}", compound.reason()),
            }
        }
        let reopened = followed.status().reopened;
        if reopened != reported {
            report(reopened);
            reported = reopened;
        }
        thread::yield_now();
    }
    let admitted: Vec<String> = admitted.iter().map(ToString::to_string).collect();
    report(format!("{} {denied} {unavailable}", admitted.join(" ")));
}

#[test]
fn processes_check_keys_through_migrations_within_every_limit() {
    let folder = folder();
    let at = folder.path();
    let keys = create(at, PLANS[0]);
    let words = at.display().to_string();
    let mut workers: Vec<Worker> =
        (0..PROCESSES).map(|_| Worker::start(Worker::command(&[&words]))).collect();
    for worker in &mut workers {
        assert_eq!(worker.next_report().as_deref(), Some("ready"));
    }
    let migrations: u32 = if is_full() {
        100
    } else if is_quick() {
        3
    } else {
        10
    };
    for number in 1..=migrations {
        let gate = open(at);
        // The processes check keys between two migrations, too. After half of the migrations, the
        // limit of the team is spent.
        let is_spent = || used(&gate, keys[0].0, "team") == TEAM_LIMIT;
        let enough = used(&gate, keys[0].0, "key") + 2 * TEAM_LIMIT / 3 / migrations;
        promptly("checks", || {
            while used(&gate, keys[0].0, "key") < enough && !is_spent() {
                thread::yield_now();
            }
        });
        // A gate with imported keys can be enlarged twice.
        let keys = gate.table().capacity() * if number == 2 || number == 5 { 2 } else { 1 };
        let plans = vec![plan("default", PLANS[number as usize % PLANS.len()])];
        let migration = MigrationConfig::default().with_keys(keys).with_plans(plans);
        gate.migrate(at.join("new"), &migration).unwrap();
        // A request that lasts through two migrations may stay charged although it is refused.
        for worker in &mut workers {
            assert_eq!(worker.next_report(), Some(number.to_string()));
        }
    }
    fs::write(at.join("end"), "").unwrap();
    let mut sums = vec![0; keys.len() + 2];
    for worker in &mut workers {
        let counts = worker.next_report().unwrap();
        for (sum, count) in sums.iter_mut().zip(counts.split(' ')) {
            *sum += count.parse::<u32>().unwrap();
        }
    }
    let (admitted, rest) = sums.split_at(keys.len());
    let followed = Followed::open(at.join("gate"), peppers()).unwrap();
    // Every request that was admitted counts, and no other one.
    let used: Vec<u32> = keys.iter().map(|(id, _)| used(&followed.load(), *id, "key")).collect();
    assert_eq!(admitted, used, "admitted, and counted by the gate; {rest:?}");
    let team = used[..3].iter().sum::<u32>();
    assert_eq!(self::used(&followed.load(), keys[0].0, "team"), team);
    assert!(used.iter().all(|&used| used <= KEY_LIMIT) && team == TEAM_LIMIT, "{used:?}");
    let [denied, unavailable] = rest[..] else { panic!("{rest:?}") };
    assert!(denied > 0, "{rest:?}");
    let sum: u32 = admitted.iter().sum();
    println!("{migrations} migrations: {sum} admitted, {denied} denied, {unavailable} unavailable");
    let (_, key) = &keys[3];
    while check(&followed, key).is_admitted() {}
    assert_eq!(self::used(&followed.load(), keys[3].0, "key"), KEY_LIMIT);
}

/// Returns the units that count in the window of 31 days of a section.
fn used(gate: &Gate, id: KeyId, section: &str) -> u32 {
    let info = gate.key(id).unwrap();
    let mut states = gate.table().tallies(&info, keytally::now());
    let mut windows = states.find_map(|state| {
        let is_it = state.section.name() == section;
        let month = state.quotas.iter().find(|quota| quota.window.seconds() == 31 * 86400);
        is_it.then_some(month).flatten()
    });
    windows.take().unwrap().used()
}

#[test]
fn followed_gate_uses_the_keys_of_the_new_file_at_once() {
    let folder = folder();
    let at = folder.path();
    let keys = create(at, PLANS[0]);
    let followed = Followed::open(at.join("gate"), peppers()).unwrap();
    assert!(check(&followed, &keys[0].1).is_admitted());
    let old = open(at);
    fs::set_permissions(at.join("gate"), fs::Permissions::from_mode(0o640)).unwrap();
    old.migrate(at.join("new"), &MigrationConfig::default().with_keys(9)).unwrap();
    let mode = fs::metadata(at.join("gate")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "the new file has the mode of the old one");
    let new = open(at);
    assert_eq!(new.table().capacity(), 16);
    let (key, _) = new.issue(&new_key()).unwrap();
    new.revoke(keys[1].0).unwrap();
    assert!(check(&followed, key.expose()).is_admitted(), "without a wait of a second");
    assert_eq!(check(&followed, &keys[1].1).outcome(), Outcome::InvalidKey);
    assert!(check(&followed, &keys[3].1).is_admitted(), "an imported key");
    assert_eq!(followed.status().reopened, 1);
    // A gate that is not followed stays with the old file.
    let verdict = old.check(Some(keys[0].1.as_bytes()), 1);
    assert_eq!(Some(verdict).outcome(), Outcome::Unavailable);
    assert!(matches!(old.issue(&new_key()), Err(Error::Replaced { .. })));
}

#[test]
fn request_of_two_gates_follows_both_of_them() {
    let folder = folder();
    let at = folder.path();
    let [one, other] = ["one", "other"].map(|name| {
        fs::create_dir(at.join(name)).unwrap();
        let keys = create(&at.join(name), "1000/31d; team: 2000/31d");
        let followed = Followed::open(at.join(name).join("gate"), peppers()).unwrap();
        (followed, keys[0].clone())
    });
    let addresses = Limiter::in_memory(&"1000/31d".parse().unwrap(), 10).unwrap();
    let check = || {
        let gates = [None, Some(&one.0), Some(&other.0)];
        let compound = Followed::call_all(&gates, |gates| {
            let own = gates[0].part(Some(one.1.1.as_bytes()), 1);
            let others = gates[1].part(Some(other.1.1.as_bytes()), 1);
            check_all(&[&addresses.part(b"a", 1), &own, &others])
        });
        compound.unwrap()
    };
    assert!(check().is_admitted());
    for name in ["one", "other"] {
        let plans = vec![plan("default", "1000/31d, 40/second; team: 2000/31d")];
        let migration = MigrationConfig::default().with_keys(16).with_plans(plans);
        open(&at.join(name)).migrate(at.join(name).join("new"), &migration).unwrap();
        assert!(check().is_admitted(), "{name}");
    }
    for (followed, (id, _)) in [&one, &other] {
        let used = ["key", "team"].map(|section| used(&followed.load(), *id, section));
        assert_eq!((used, followed.status().reopened), ([3, 3], 1));
    }
    assert_eq!(addresses.peek(b"a", 0).remaining(), Some(997));
}

#[test]
fn group_of_the_new_plans_is_known_at_once() {
    let folder = folder();
    let at = folder.path();
    let keys = create(at, PLANS[0]);
    let followed = Followed::open(at.join("gate"), peppers()).unwrap();
    let check = || {
        followed.call(|gate| {
            let part = gate.part(Some(keys[0].1.as_bytes()), 1).with_group("write")?;
            Ok::<_, RequestError>(check_all(&[&part]).unwrap())
        })
    };
    assert!(check().is_err());
    let migration = MigrationConfig::default().with_plans(vec![plan("default", PLANS[2])]);
    open(at).migrate(at.join("new"), &migration).unwrap();
    assert!(check().is_ok_and(|compound| compound.is_admitted()));
}

#[test]
fn reset_of_an_account_follows_its_counts() {
    let folder = folder();
    let at = folder.path();
    let keys = create(at, PLANS[0]);
    let followed = Followed::open(at.join("gate"), peppers()).unwrap();
    assert!(check(&followed, &keys[0].1).is_admitted());
    let old = open(at);
    old.migrate(at.join("new"), &MigrationConfig::default()).unwrap();
    assert_eq!(old.reset_account(42), Some(Outcome::Unavailable));
    assert_eq!(followed.call(|gate| gate.reset_account(42)), Some(Outcome::Admitted));
    let used = ["key", "team"].map(|section| used(&followed.load(), keys[0].0, section));
    assert_eq!(used, [1, 0]);
    assert_eq!(followed.call(|gate| gate.reset_account(99)), None);
}

#[test]
fn refund_and_settlement_follow_the_counts() {
    let folder = folder();
    let at = folder.path();
    let keys = create(at, "1000/31d");
    let followed = Followed::open(at.join("gate"), peppers()).unwrap();
    let (id, key) = &keys[0];
    let charge = |cost| {
        let verdict = followed.call(|gate| gate.check(Some(key.as_bytes()), cost));
        verdict.charge().unwrap()
    };
    let charges = [10, 20].map(charge);
    open(at).migrate(at.join("new"), &MigrationConfig::default().with_keys(16)).unwrap();
    assert!(followed.call(|gate| gate.refund(*id, charges[0])).is_some());
    assert_eq!(used(&followed.load(), *id, "key"), 20);
    let settled = followed.call(|gate| gate.settle(*id, charges[1], 25)).unwrap();
    assert_eq!((settled.uncharged(), used(&followed.load(), *id, "key")), (0, 25));
    assert_eq!(followed.call(|gate| gate.reset(*id)).unwrap().remaining(), Some(1000));
}

#[test]
fn impossible_migration_changes_nothing() {
    let folder = folder();
    let at = folder.path();
    let keys = create(at, PLANS[0]);
    let gate = open(at);
    let before = fs::read(at.join("gate")).unwrap();
    let same = MigrationConfig::default();
    let other = MigrationConfig::default().with_plans(vec![plan("other", PLANS[0])]);
    let planned = gate.plan_migration(&other).unwrap();
    assert_eq!(planned.not_carried, [NotCarried::Plan(other_name(&gate))]);
    assert!(matches!(gate.migrate(at.join("new"), &other), Err(Error::NotCarried { .. })));
    let elsewhere = tempfile::tempdir().unwrap();
    for path in [elsewhere.path().join("new"), at.join("x".repeat(57)), at.join("..")] {
        assert!(matches!(gate.migrate(&path, &same), Err(Error::Successor { .. })), "{path:?}");
    }
    fs::write(at.join("taken"), "precious").unwrap();
    assert!(matches!(gate.migrate(at.join("taken"), &same), Err(Error::Exists { .. })));
    assert_eq!(fs::read_to_string(at.join("taken")).unwrap(), "precious");
    assert!(!at.join("new").exists());
    assert_eq!(open(at).check(Some(keys[0].1.as_bytes()), 0).outcome(), Outcome::Admitted);
    // Words of the lock and of former redo records may differ.
    let after = fs::read(at.join("gate")).unwrap();
    assert_eq!(after[4096..], before[4096..]);
    assert!(!gate.table().is_migrating());
}

/// Returns the name of the plan of a gate.
fn other_name(gate: &Gate) -> keytally::Text<16> {
    gate.table().plan(0).unwrap().name
}

#[test]
fn changes_continue_in_the_new_file_through_migrations() {
    let folder = folder();
    let at = folder.path();
    let migrations: u32 = if is_full() { 400 } else { 40 };
    // A thread issues this many keys for each migration. Without a bound, slow migrations would let
    // the threads fill the gate: the record of a revoked key is free after an hour only.
    let (threads, each) = (2, 6);
    let config = GateConfig::default().with_keys(threads * each * migrations);
    drop(Gate::create(at.join("gate"), peppers(), &config).unwrap());
    let migrated = Mutex::new(0);
    let changes: u32 = thread::scope(|scope| {
        let change = || {
            let followed = Followed::open(at.join("gate"), peppers()).unwrap();
            let mut issued = 0;
            loop {
                let finished = *migrated.lock().unwrap();
                if finished == migrations {
                    return 2 * issued;
                }
                if issued == each * (finished + 1) {
                    thread::yield_now();
                    continue;
                }
                let issue = |gate: &Current, _: Wait<'_>| gate.issue(&new_key());
                let (key, id) = followed.change_within(Wait::default(), issue).unwrap();
                let revoke = |gate: &Current, _: Wait<'_>| gate.revoke(id);
                followed.change_within(Wait::default(), revoke).unwrap();
                let verdict = followed.call(|gate| gate.check(Some(key.expose().as_bytes()), 1));
                assert_eq!(Some(verdict).outcome(), Outcome::InvalidKey);
                issued += 1;
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(change)).collect();
        let followed = Followed::open(at.join("gate"), peppers()).unwrap();
        for _ in 0..migrations {
            let migrate = |gate: &Current, _: Wait<'_>| {
                gate.migrate(at.join("new"), &MigrationConfig::default())
            };
            followed.change_within(Wait::default(), migrate).unwrap();
            *migrated.lock().unwrap() += 1;
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let keys = open(at).list();
    assert!(keys.iter().all(|key| key.state == KeyState::Revoked));
    println!("{migrations} migrations, {changes} changes");
}

#[test]
fn old_file_under_another_name_is_not_revived() {
    let folder = folder();
    let at = folder.path();
    let keys = create(at, PLANS[0]);
    fs::hard_link(at.join("gate"), at.join("link")).unwrap();
    open(at).migrate(at.join("new"), &MigrationConfig::default()).unwrap();
    let old = Gate::open(at.join("link"), peppers()).unwrap();
    assert!(matches!(old.verify(|_| ()), Err(Error::Replaced { .. })));
    assert!(matches!(old.revoke(keys[0].0), Err(Error::Replaced { .. })));
    old.complete_migration().unwrap();
    let verdict = old.check(Some(keys[0].1.as_bytes()), 1);
    assert_eq!(Some(verdict).outcome(), Outcome::Unavailable);
}
