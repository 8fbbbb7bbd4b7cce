//! The list in PostgreSQL: the flow of SQLite, two services on one list, a move from SQLite, and a
//! database that is stopped in the middle.
//!
//! The test makes a cluster of its own in a temporary folder, with the programs that Debian's
//! package `postgresql` installs. `initdb` refuses to run as root, so root runs it as another user.
// Debian's paths, and a Unix socket.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keytally::{KeyId, Outcome, now};
use keytally_keys::change::Edit;
use keytally_keys::database::Database;
use keytally_keys::error::Error;
use keytally_keys::keys::KeyFilter;
use keytally_keys::log::Filter;
use keytally_keys::reconcile::Comparison;
use keytally_keys::roles::Role;
use keytally_keys::sessions::Origin;
use keytally_keys::transfer;
use keytally_keys::usage::{Counts, Grouping, Sample, Width};
use support::{Site, creation, in_s, issue_outside, operator};
use tempfile::TempDir;

/// The user that runs the programs if root runs the test.
const USER: &str = "daemon";

/// A running cluster, which is stopped when dropped.
struct Cluster {
    folder: TempDir,
    programs: PathBuf,
}

/// Returns the folder of the programs of the newest version.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    let newest = folders.filter(|folder| folder.join("initdb").exists()).max();
    newest.expect("there is no initdb; `cargo xtask test keys --install` installs PostgreSQL")
}

impl Cluster {
    fn start() -> Self {
        let cluster = Self { folder: tempfile::tempdir().unwrap(), programs: programs() };
        let folder = cluster.folder.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.join("data");
        fs::create_dir(&data).unwrap();
        if is_root() {
            let output = Command::new("chown").args([USER]).arg(folder).arg(&data).output();
            assert!(output.unwrap().status.success());
        }
        cluster.run("initdb", &["--username=keytally", "--auth=trust", "--no-sync"]);
        cluster.control("start");
        cluster
    }

    /// Runs a program of PostgreSQL on the cluster.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={USER}"), "--clear-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.arg("--pgdata").arg(self.folder.path().join("data")).args(arguments);
        let output = command.current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        output
    }

    fn control(&self, action: &str) {
        let folder = self.folder.path().display();
        let options =
            format!("-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off");
        let log = self.folder.path().join("log.txt");
        let (log, options) = (format!("--log={}", log.display()), format!("--options={options}"));
        self.run("pg_ctl", &[action, "--wait", "--mode=immediate", &log, &options]);
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://keytally@localhost/{database}?host={}", self.folder.path().display())
    }

    /// Makes a database. Returns its URL.
    async fn database(&self, name: &'static str) -> String {
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(&self.url("postgres")).await.unwrap();
        let create = format!("create database {name}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&pool).await.unwrap();
        pool.close().await;
        self.url(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.folder.path().join("data/postmaster.pid").exists() {
            self.control("stop");
        }
    }
}

fn is_root() -> bool {
    Path::new("/proc/self").metadata().unwrap().uid() == 0
}

async fn assert_agreement(site: &Site) {
    let dry = Comparison { is_dry: true, ..Comparison::automatic() };
    assert_eq!(site.list.compare(dry, now()).await.unwrap().differences, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_kept_in_postgresql() {
    let cluster = Cluster::start();
    let url = cluster.database("list").await;
    let (first, second) = tokio::join!(Site::with_database(&url), Site::with_database(&url));
    let (team, old, key_id) = first.team_with_key().await;
    second.list.follow(now()).await.unwrap();
    let (new, row) = second.list.rotate_key(key_id, 60, false, operator()).await.unwrap();
    second.list.mark_shown(&row, now()).await.unwrap();
    let edit =
        Edit { note: Some("n".to_owned()), expires: Some(Some(in_s(900))), ..Edit::default() };
    first.list.edit_key(key_id, edit, operator()).await.unwrap();
    for key in [&old, &new] {
        assert_eq!(first.outcome(key), Outcome::Admitted);
    }

    // Both services change the list at once.
    let create = async |site: &Site| {
        for _ in 0..10 {
            site.list.create_key(creation(team), operator()).await.unwrap();
        }
    };
    tokio::join!(create(&first), create(&second));
    let (_, outside) = issue_outside(&first, 7);
    for site in [&first, &second, &first] {
        site.list.follow(now()).await.unwrap();
        assert_eq!(site.list.compare(Comparison::automatic(), now()).await.unwrap().open(), 0);
    }
    assert_agreement(&first).await;
    assert_agreement(&second).await;
    assert_eq!(first.list.key(Some(7), outside).await.unwrap().team_id, 7);

    let mut new = creation(team);
    "100%_Ä\\".clone_into(&mut new.name);
    first.list.create_key(new, operator()).await.unwrap();
    let filter = KeyFilter { team_id: Some(team), limit: 50, ..KeyFilter::default() };
    let search = KeyFilter { search: "%_ä\\".to_owned(), ..filter.clone() };
    assert_eq!(first.list.keys(&search, now()).await.unwrap().len(), 1);
    let active = KeyFilter { state: "active".to_owned(), ..filter.clone() };
    assert_eq!(first.list.keys(&active, now()).await.unwrap().len(), 22);
    let log = Filter { team_id: Some(team), key_id: Some(key_id), before: None, limit: 9 };
    assert_eq!(first.list.log(&log).await.unwrap().len(), 3);
    first.list.set_member(team, "ann", Role::Admin, operator()).await.unwrap();
    first.list.create_token(Some(team), Role::Owner, "t", operator()).await.unwrap();
    let link =
        first.list.create_link(Some(team), Some("ann"), Role::Owner, operator()).await.unwrap();
    let token = first.list.sign_in(link.code, Origin::default(), now()).await.unwrap();
    assert!(first.list.session(&token, now()).await.unwrap().is_some());
    add_usage(&first, key_id).await;

    // The database is stopped in the middle: a revocation works in the gate.
    cluster.control("stop");
    let revoked = first.list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap();
    assert!(!revoked[0].is_listed);
    assert_eq!(first.outcome(&old), Outcome::InvalidKey);
    let refused = first.list.create_key(creation(team), operator()).await.unwrap_err();
    assert!(matches!(refused, Error::Database(_)), "{refused}");
    assert_eq!(refused.to_string().lines().count(), 1);
    assert!(first.list.follow(now()).await.is_err());
    cluster.control("start");
    first.list.follow(now()).await.unwrap();
    assert_eq!(first.list.compare(Comparison::automatic(), now()).await.unwrap().open(), 0);
    assert!(first.list.key(None, key_id).await.unwrap().is_revoked);
    second.list.follow(now()).await.unwrap();
    assert_eq!(second.outcome(&old), Outcome::InvalidKey);
    assert_agreement(&first).await;
    for site in [first, second] {
        site.list.database().close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn list_moves_from_sqlite_to_postgresql() {
    let cluster = Cluster::start();
    let site = Site::new().await;
    let (team, key, key_id) = site.team_with_key().await;
    site.list.rotate_key(key_id, 60, false, operator()).await.unwrap();
    site.list.set_member(team, "ann", Role::Admin, operator()).await.unwrap();
    site.list.create_token(Some(team), Role::Owner, "t", operator()).await.unwrap();
    add_usage(&site, key_id).await;
    let before = site.list.key(None, key_id).await.unwrap();
    let url = cluster.database("moved").await;
    let other = Database::open(&url).await.unwrap();
    // 1 team, 1 user, 1 member, 1 key, 5 entries, 1 token, 3 buckets, 1 sampler.
    assert_eq!(transfer::copy(site.list.database(), &other).await.unwrap(), 14);
    let again = transfer::copy(site.list.database(), &other).await.unwrap_err();
    assert!(again.to_string().contains("has a list of keys already"), "{again}");
    other.close().await;

    let list = support::open(site.folder.path(), &url).await;
    let site = Site { folder: site.folder, list };
    site.list.follow(now()).await.unwrap();
    assert_eq!(site.list.key(None, key_id).await.unwrap(), before);
    assert_agreement(&site).await;
    site.list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap();
    assert_eq!(site.outcome(&key), Outcome::InvalidKey);
    site.list.database().close().await;
}

/// Adds usage of a key, and reads it.
async fn add_usage(site: &Site, key_id: KeyId) {
    let counts = Counts { requests: 3, units: 5, denied_key: 2, ..Counts::default() };
    let sample = Sample { key_id, at: now(), last_used: Some(now()), counts };
    site.list.add_usage("m", 1, "boot", vec![sample, sample]).await.unwrap();
    assert_eq!(site.list.seen("m").await.unwrap(), Some((1, "boot".to_owned())));
    let (from, to) = (keytally::Timestamp::from_unix_s(now().unix_s() - 7200), in_s(60));
    let buckets = site.list.usage_of_key(key_id, Width::Hour, from, to).await.unwrap();
    assert_eq!((buckets[0].counts.requests, buckets[0].counts.units), (6, 10));
    for grouping in [Grouping::Key, Grouping::Env, Grouping::Plan] {
        let groups =
            site.list.usage_of_team(Some(1), grouping, Width::Hour, from, to).await.unwrap();
        assert_eq!(groups[0].counts.denied_key, 4);
        let other =
            site.list.usage_of_team(Some(2), grouping, Width::Hour, from, to).await.unwrap();
        assert_eq!(other, []);
    }
    assert!(site.list.key(None, key_id).await.unwrap().last_used_s.is_some());
}
