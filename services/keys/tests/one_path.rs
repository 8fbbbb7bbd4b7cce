//! Kills a process with SIGKILL at every step of every change. Afterwards the key has its state
//! before the change or after it, the list and the gate agree, and no other process is blocked.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

#[cfg(target_os = "linux")]
#[path = "support/cluster.rs"]
mod cluster;

#[path = "support/worker.rs"]
mod processes;

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::thread;

use keytally::stop::{Stop, arm, stopped, visits};
use keytally::{Key, KeyId, now};
use keytally_keys::change::Edit;
use keytally_keys::database::Database;
use keytally_keys::keys::KeyRow;
use keytally_keys::list::List;
use keytally_keys::reconcile::Comparison;
use keytally_keys::steps::KeysStop;
use processes::{Worker, folder, report, role, wait_for_kill};
use support::{creation, open, operator};

/// The changes of keys.
const CHANGES: [&str; 4] = ["create", "rotate", "edit", "revoke"];

/// How often a process is killed at each step; more often if the suite is named.
const ROUNDS: u32 = 10;

/// How often that is if the suite is named.
const MANY_ROUNDS: u32 = 1000;

/// Returns how often a process is killed at each step: `rounds` unless the suite is named.
fn rounds(rounds: u32) -> u32 {
    if std::env::var_os("KEYTALLY_FULL").is_some() { MANY_ROUNDS } else { rounds }
}

/// Where the lists are.
enum Databases {
    Files,
    #[cfg(target_os = "linux")]
    Cluster(cluster::Cluster),
}

impl Databases {
    /// Returns the URL of the database of the list in a folder. With PostgreSQL, this makes a
    /// database with the name of the folder, `copied` from the one with that name.
    async fn url(&self, folder: &Path, copied: Option<&str>) -> String {
        match self {
            Self::Files => Database::url_of_file(&folder.join("keys.db")),
            #[cfg(target_os = "linux")]
            Self::Cluster(cluster) => {
                cluster.database(folder.file_name().unwrap().to_str().unwrap(), copied).await
            }
        }
    }
}

/// Makes a change of the key with this id.
async fn change(list: &List, name: &str, key_id: KeyId) {
    match name {
        "create" => drop(list.create_key(creation(1), operator()).await.unwrap()),
        "rotate" => drop(list.rotate_key(key_id, 60, true, operator()).await.unwrap()),
        "edit" => {
            let edit = Edit { plan: Some("pro".to_owned()), ..Edit::default() };
            drop(list.edit_key(key_id, edit, operator()).await.unwrap());
        }
        _ => drop(list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap()),
    }
}

/// Performs the role of a worker. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(role) = role() else { return };
    let [name, folder, url, key_id, step] = &role[..] else { panic!("{role:?}") };
    let step = KeysStop::ALL[step.parse::<usize>().unwrap()];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let list = runtime.block_on(open(Path::new(folder), url));
    // Opening visits no step of a change.
    assert_eq!(visits(step), 0);
    arm(step, 1);
    thread::spawn(|| {
        while !stopped() {
            thread::sleep(Duration::from_millis(1));
        }
        report("stopped");
    });
    runtime.block_on(change(&list, name, key_id.parse().unwrap()));
    report("done");
    wait_for_kill();
}

/// What a change left.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    keys: usize,
    plan: String,
    is_revoked: bool,
    is_rotated: bool,
}

async fn left(list: &List, key_id: KeyId) -> Left {
    let filter = keytally_keys::keys::KeyFilter { limit: 100, ..Default::default() };
    let rows: Vec<KeyRow> = list.keys(&filter, now()).await.unwrap();
    let row = rows.iter().find(|row| row.key_id == key_id).unwrap();
    Left {
        keys: rows.len(),
        plan: row.plan.clone(),
        is_revoked: row.is_revoked,
        is_rotated: row.rotated_s.is_some(),
    }
}

/// Copies a folder with its files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn killed_change_leaves_the_list_and_the_gate_in_agreement() {
    kill_at_every_step(&Databases::Files, rounds(ROUNDS));
}

// Debian's paths of PostgreSQL, and a Unix socket.
#[cfg(target_os = "linux")]
#[test]
fn killed_change_leaves_postgresql_and_the_gate_in_agreement() {
    kill_at_every_step(&Databases::Cluster(cluster::Cluster::start()), rounds(1));
}

/// Kills processes at every step of every change, and compares the list with the gate.
fn kill_at_every_step(databases: &Databases, rounds: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = folder();
    let before = folder.path().join("before");
    fs::create_dir(&before).unwrap();
    let (key, key_id): (Key, KeyId) = runtime.block_on(async {
        let list = open(&before, &databases.url(&before, None).await).await;
        let team = list.create_team(None, "Acme", operator()).await.unwrap();
        let (key, row) = list.create_key(creation(team.team), operator()).await.unwrap();
        list.compare(Comparison::automatic(), now()).await.unwrap();
        list.database().close().await;
        (key, row.key_id)
    });
    let unchanged =
        || Left { keys: 1, plan: "default".to_owned(), is_revoked: false, is_rotated: false };
    for name in CHANGES {
        let changed = match name {
            "create" => Left { keys: 2, ..unchanged() },
            "rotate" => Left { is_rotated: true, ..unchanged() },
            "edit" => Left { plan: "pro".to_owned(), ..unchanged() },
            _ => Left { is_revoked: true, ..unchanged() },
        };
        for number in 0..KeysStop::ALL.len() {
            for round in 0..rounds {
                let at = folder.path().join("after");
                copy(&before, &at);
                let url = runtime.block_on(databases.url(&at, Some("before")));
                let (path, id, step) =
                    (at.to_str().unwrap(), key_id.to_string(), number.to_string());
                let mut worker = Worker::start(Worker::command(&[name, path, &url, &id, &step]));
                let what = format!("{name} killed at {:?}, round {round}", KeysStop::ALL[number]);
                assert_eq!(worker.next_report().as_deref(), Some("stopped"), "{what}");
                worker.kill();
                runtime.block_on(async {
                    let list = open(&at, &url).await;
                    list.follow(now()).await.unwrap();
                    let compared = list.compare(Comparison::automatic(), now()).await.unwrap();
                    assert_eq!(compared.differences, [], "{what}");
                    let is_committed = number >= committed();
                    let expected = if is_committed { &changed } else { &unchanged() };
                    assert_eq!(left(&list, key_id).await, *expected, "{what}");
                    let gate = list.gate().load();
                    let is_valid = gate.peek(Some(key.expose().as_bytes()), 1).is_admitted();
                    assert_eq!(is_valid, !(is_committed && name == "revoke"), "{what}");
                    // No lock is left, and what was created was never shown.
                    list.create_key(creation(1), operator()).await.unwrap();
                    let filter = keytally_keys::keys::KeyFilter { limit: 9, ..Default::default() };
                    let rows = list.keys(&filter, now()).await.unwrap();
                    assert!(rows.iter().all(|row| row.shown_s.is_none()), "{what}");
                    list.database().close().await;
                });
                fs::remove_dir_all(&at).unwrap();
            }
        }
    }
}

/// Returns the position of the first step after which a change is in the list.
fn committed() -> usize {
    KeysStop::ALL.iter().position(|step| *step == KeysStop::Committed).unwrap()
}

#[test]
fn steps_are_numbered_after_those_of_the_crates_below() {
    assert!(KeysStop::ALL[0].number() > Stop::ALL[Stop::ALL.len() - 1].number());
}
