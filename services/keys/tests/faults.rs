//! A full disk and a locked database: each change that cannot be made is one clear sentence, and
//! leaves the list, the gate and the usage as they were.
//!
//! The worker of a full disk has its own mounts, among them a small file system in memory. This
//! needs `unshare` of util-linux, and root or user namespaces.
// It mounts file systems of Linux.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

#[path = "support/worker.rs"]
mod processes;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use keytally::{Key, KeyId, Outcome, Timestamp, now};
use keytally_keys::database::{Database, DatabaseError};
use keytally_keys::error::Error;
use keytally_keys::reconcile::Comparison;
use keytally_keys::roles::Role;
use keytally_keys::sampler::{Sampled, Sampler};
use keytally_keys::tokens;
use keytally_keys::usage::Width;
use processes::{Worker, report, role, wait_for_kill};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use support::{Site, creation, in_s, open, operator};
use tokio::task::JoinSet;

/// The size of the small disk in bytes.
const DISK: usize = 4 << 20;

const FULL: &str = "the disk of the database is full; free some space and try again";
const LOCKED: &str = "another process has locked the database; end it, or try again";

/// Performs the role of a worker. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [folder] = &words[..] else { panic!("{words:?}") };
    let size = format!("size={DISK}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tiny", folder]).output();
    assert!(mounted.unwrap().status.success());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(on_a_full_disk(Path::new(folder)));
    report("done");
    wait_for_kill();
}

/// Fills the disk.
fn fill(folder: &Path) {
    let mut file =
        OpenOptions::new().create(true).append(true).open(folder.join("filler")).unwrap();
    while file.write_all(&[7; 512]).is_ok() {}
}

fn use_key(site: &Site, key: &Key, times: u32) {
    let gate = site.list.gate().load().to_arc();
    for _ in 0..times {
        gate.check(Some(key.expose().as_bytes()), 1);
    }
}

async fn requests(site: &Site, key_id: KeyId) -> i64 {
    let (from, to) = (Timestamp::from_unix_s(now().unix_s() - 86_400), in_s(86_400));
    let days = site.list.usage_of_key(key_id, Width::Day, from, to).await.unwrap();
    days.iter().map(|day| day.counts.requests).sum()
}

async fn assert_agreement(site: &Site) {
    let dry = Comparison { is_dry: true, ..Comparison::automatic() };
    assert_eq!(site.list.compare(dry, now()).await.unwrap().differences, []);
}

/// A list with a sampler, and a key that was used 3 times since the last sample.
async fn list_with_uses(folder: tempfile::TempDir) -> (Site, Sampler, u32, Key, KeyId) {
    let list = open(folder.path(), &Database::url_of_file(&folder.path().join("keys.db"))).await;
    let site = Site { folder, list };
    let (team, key, key_id) = site.team_with_key().await;
    let mut sampler = Sampler::new(site.list.clone(), None, now()).unwrap();
    sampler.sample(now()).await.unwrap();
    use_key(&site, &key, 3);
    (site, sampler, team, key, key_id)
}

async fn on_a_full_disk(folder: &Path) {
    let inner = tempfile::tempdir_in(folder).unwrap();
    let (site, mut sampler, team, key, key_id) = list_with_uses(inner).await;
    fill(folder);
    // The files of the database may have some room left.
    let error = loop {
        if let Err(error) = site.list.create_key(creation(team), operator()).await {
            break error;
        }
    };
    assert!(matches!(error, Error::Database(DatabaseError::Full)), "{error:?}");
    assert_eq!(error.to_string(), FULL);
    let rotated = site.list.rotate_key(key_id, 60, false, operator()).await.unwrap_err();
    assert_eq!(rotated.to_string(), FULL);
    assert_eq!(site.outcome(&key), Outcome::Admitted);
    assert_agreement(&site).await;
    assert_eq!(sampler.sample(now()).await.unwrap_err().to_string(), FULL);
    // A revocation works in the gate.
    let revoked = site.list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap();
    assert!(!revoked[0].is_listed);
    assert_eq!(site.outcome(&key), Outcome::InvalidKey);

    fs::remove_file(folder.join("filler")).unwrap();
    site.list.follow(now()).await.unwrap();
    assert_eq!(site.list.compare(Comparison::automatic(), now()).await.unwrap().open(), 0);
    assert!(site.list.key(None, key_id).await.unwrap().is_revoked);
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(1));
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(0));
    assert_eq!(requests(&site, key_id).await, 3);
    assert_agreement(&site).await;
    site.list.database().close().await;
}

#[test]
fn full_disk_is_one_sentence_and_leaves_all_as_it_was() {
    let folder = processes::folder();
    let command = Worker::command(&[folder.path().to_str().unwrap()]);
    let ways: [&[&str]; 2] = [&["--mount"], &["--mount", "--map-root-user"]];
    let works = |way: &&&[&str]| {
        let mut trial = Command::new("unshare");
        trial.args(**way).args(["mount", "-t", "tmpfs", "trial"]).arg(folder.path());
        trial.output().is_ok_and(|output| output.status.success())
    };
    let way = ways.iter().find(works).expect(
        "a test of a full disk needs mounts of its own: run it as root, or where `unshare --map-root-user` works",
    );
    let mut unshare = Command::new("unshare");
    unshare.args(*way).arg(command.get_program()).args(command.get_args());
    unshare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut worker = Worker::start(unshare);
    assert_eq!(worker.next_report().as_deref(), Some("done"), "the worker failed: see above");
    worker.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_database_is_one_sentence_and_leaves_all() {
    let (site, mut sampler, team, key, key_id) = list_with_uses(tempfile::tempdir().unwrap()).await;
    let url = Database::url_of_file(&site.path("keys.db"));
    let mut other = AnyConnection::connect(&format!("{url}?mode=rw")).await.unwrap();
    other.execute("begin immediate").await.unwrap();
    let created = site.list.create_key(creation(team), operator());
    let rotated = site.list.rotate_key(key_id, 60, false, operator());
    let sampled = sampler.sample(now());
    let (created, sampled) = tokio::join!(created, sampled);
    for error in [created.unwrap_err(), sampled.unwrap_err(), rotated.await.unwrap_err()] {
        assert!(matches!(error, Error::Database(DatabaseError::Locked)), "{error:?}");
        assert_eq!(error.to_string(), LOCKED);
    }
    assert_eq!(site.outcome(&key), Outcome::Admitted);
    let revoked = site.list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap();
    assert!(!revoked[0].is_listed);
    assert_eq!(site.outcome(&key), Outcome::InvalidKey);
    other.execute("rollback").await.unwrap();

    site.list.follow(now()).await.unwrap();
    assert_eq!(site.list.compare(Comparison::automatic(), now()).await.unwrap().open(), 0);
    assert!(site.list.key(None, key_id).await.unwrap().is_revoked);
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(1));
    assert_eq!(requests(&site, key_id).await, 3);
    assert_agreement(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_and_token_are_revoked_while_changes_wait_for_the_database() {
    let site = Site::new().await;
    let (team, key, key_id) = site.team_with_key().await;
    let made = site.list.create_token(Some(team), Role::Owner, "t", operator()).await.unwrap();
    let (token, token_id) = (made.0, made.1.token.parse().unwrap());
    let url = Database::url_of_file(&site.path("keys.db"));
    let mut other = AnyConnection::connect(&format!("{url}?mode=rw")).await.unwrap();
    other.execute("begin immediate").await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..4 {
        let list = site.list.clone();
        waiting.spawn(async move { list.create_key(creation(team), operator()).await.map(drop) });
        let list = site.list.clone();
        waiting.spawn(async move {
            list.create_token(Some(team), Role::Viewer, "w", operator()).await.map(drop)
        });
    }
    // All of them have begun to wait.
    tokio::time::sleep(core::time::Duration::from_millis(100)).await;
    let revoked = site.list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap();
    assert!(!revoked[0].is_listed);
    assert_eq!(site.outcome(&key), Outcome::InvalidKey);
    let unlisted = site.list.revoke_token(None, token_id, operator()).await.unwrap_err();
    assert!(matches!(unlisted, Error::Unlisted { .. }), "{unlisted:?}");
    assert!(tokens::check(site.list.admin(), Some(token.expose().as_bytes())).1.is_none());
    while let Some(waited) = waiting.join_next().await {
        let error = waited.unwrap().unwrap_err();
        assert!(matches!(error, Error::Database(_)), "{error:?}");
    }
    other.execute("rollback").await.unwrap();
    site.list.create_key(creation(team), operator()).await.unwrap();
    site.list.compare(Comparison::automatic(), now()).await.unwrap();
    assert!(site.list.key(None, key_id).await.unwrap().is_revoked);
}
