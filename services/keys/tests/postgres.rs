//! The list in PostgreSQL: the flow of SQLite, two services on one list, a move from SQLite, and a
//! database that is stopped in the middle.
// Debian's paths, and a Unix socket.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

#[path = "support/cluster.rs"]
mod cluster;

use cluster::Cluster;
use keytally::{Key, KeyId, Outcome, now};
use keytally_keys::change::{Caller, Edit};
use keytally_keys::database::Database;
use keytally_keys::error::Error;
use keytally_keys::keys::KeyFilter;
use keytally_keys::log::Filter;
use keytally_keys::reconcile::Comparison;
use keytally_keys::roles::Role;
use keytally_keys::sampler::{Sampled, Sampler};
use keytally_keys::sessions::Origin;
use keytally_keys::transfer;
use keytally_keys::usage::{Grouping, Width};
use sqlx::{Connection as _, Executor as _};
use support::{Site, creation, in_s, issue_outside, operator};

async fn assert_agreement(site: &Site) {
    let dry = Comparison { is_dry: true, ..Comparison::automatic() };
    assert_eq!(site.list.compare(dry, now()).await.unwrap().differences, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_kept_in_postgresql() {
    let cluster = Cluster::start();
    let url = cluster.database("list", None).await;
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
    let log = Filter { team_id: Some(team), key_id: Some(key_id), limit: 9, ..Filter::default() };
    assert_eq!(first.list.log(&log).await.unwrap().len(), 3);
    first.list.set_member(team, "ann", Role::Admin, operator()).await.unwrap();
    first.list.create_token(Some(team), Role::Owner, "t", operator()).await.unwrap();
    let link =
        first.list.create_link(Some(team), Some("ann"), Role::Owner, operator()).await.unwrap();
    let token = first.list.sign_in(link.code, Origin::default(), now()).await.unwrap();
    assert!(first.list.session(&token, now()).await.unwrap().is_some());
    add_usage(&first, &old, key_id).await;

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
async fn log_is_filtered_in_postgresql() {
    let cluster = Cluster::start();
    let url = cluster.database("log", None).await;
    let site = Site::with_database(&url).await;
    support::assert_log_is_filtered(&site).await;
    site.list.database().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_moves_from_sqlite_to_postgresql() {
    let cluster = Cluster::start();
    let site = Site::new().await;
    let (team, key, key_id) = site.team_with_key().await;
    site.list.rotate_key(key_id, 60, false, operator()).await.unwrap();
    site.list.set_member(team, "ann", Role::Admin, operator()).await.unwrap();
    site.list.create_token(Some(team), Role::Owner, "t", operator()).await.unwrap();
    add_usage(&site, &key, key_id).await;
    let before = site.list.key(None, key_id).await.unwrap();
    let url = cluster.database("moved", None).await;
    let other = Database::open(&url).await.unwrap();
    // 1 team, 1 user, 1 member, 1 key, 5 entries, 1 token, 3 buckets, 1 file of counts, 1 reading.
    assert_eq!(transfer::copy(site.list.database(), &other).await.unwrap(), 15);
    let again = transfer::copy(site.list.database(), &other).await.unwrap_err();
    let moved = format!("was moved to {}", url.split('?').next().unwrap());
    assert!(again.to_string().contains(&moved), "{again}");
    let same = transfer::copy(&other, &Database::open(&url).await.unwrap()).await.unwrap_err();
    assert!(same.to_string().contains("is the database of this list already"), "{same}");
    other.close().await;

    let list = support::open(site.folder.path(), &url).await;
    let site = Site { folder: site.folder, list };
    site.list.follow(now()).await.unwrap();
    assert_eq!(site.list.key(None, key_id).await.unwrap(), before);
    assert_agreement(&site).await;
    // The uses that were added before the move are not added again.
    let gate = site.list.gate().load().to_arc();
    gate.check(Some(key.expose().as_bytes()), 1);
    let mut sampler = Sampler::new(site.list.clone(), None, now()).unwrap();
    assert_eq!(sampler.sample(in_s(60)).await.unwrap(), Sampled::Added(1));
    let from = keytally::Timestamp::from_unix_s(now().unix_s() - 86_400);
    let days = site.list.usage_of_key(key_id, Width::Day, from, in_s(60)).await.unwrap();
    assert_eq!(days.iter().map(|day| day.counts.requests).sum::<i64>(), 3);
    site.list.revoke_keys(vec![key_id], String::new(), operator()).await.unwrap();
    assert_eq!(site.outcome(&key), Outcome::InvalidKey);
    site.list.database().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_repeated_requests_are_those_of_sqlite() {
    let cluster = Cluster::start();
    let site = Site::with_database(&cluster.database("numbers", None).await).await;
    for (chosen, made) in [(Some(2), 2), (Some(u32::MAX), u32::MAX), (None, 1), (None, 3)] {
        let team = site.list.create_team(chosen, "Acme", operator()).await.unwrap();
        assert_eq!(team.team, made);
    }
    let caller = || Caller { idempotency_key: Some("once".to_owned()), ..operator() };
    let team = site.list.create_team(None, "Once", caller()).await.unwrap();
    let again = site.list.create_team(None, "Once", caller()).await.unwrap_err();
    assert!(again.to_string().contains(&format!("for team {}", team.team)), "{again}");
    site.list.database().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_postgresql_are_plain_sentences() {
    let cluster = Cluster::start();
    let url = cluster.database("plain", None).await;
    let missing = Database::open(&url.replace("plain", "missing")).await.unwrap_err().to_string();
    assert!(missing.ends_with("database \"missing\" does not exist"), "{missing}");
    let site = Site::with_database(&url).await;
    let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
    connection
        .execute("alter database plain set default_transaction_read_only = on")
        .await
        .unwrap();
    let read_only = Database::open(&url).await.unwrap_err().to_string();
    assert!(read_only.contains("the database cannot be written"), "{read_only}");
    connection.close().await.unwrap();
    site.list.database().close().await;
}

/// Uses a key, and reads its usage.
async fn add_usage(site: &Site, key: &Key, key_id: KeyId) {
    let mut sampler = Sampler::new(site.list.clone(), None, now()).unwrap();
    sampler.sample(now()).await.unwrap();
    let gate = site.list.gate().load().to_arc();
    for cost in [3, 2, 101, 101] {
        gate.check(Some(key.expose().as_bytes()), cost);
    }
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(1));
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(0));
    let (from, to) = (keytally::Timestamp::from_unix_s(now().unix_s() - 7200), in_s(60));
    let buckets = site.list.usage_of_key(key_id, Width::Hour, from, to).await.unwrap();
    assert_eq!((buckets[0].counts.requests, buckets[0].counts.units), (2, 5));
    for grouping in [Grouping::Key, Grouping::Env, Grouping::Plan] {
        let groups =
            site.list.usage_of_team(Some(1), grouping, Width::Hour, from, to).await.unwrap();
        assert_eq!(groups[0].counts.denied_key, 2);
        let other =
            site.list.usage_of_team(Some(2), grouping, Width::Hour, from, to).await.unwrap();
        assert_eq!(other, []);
    }
    assert!(site.list.key(None, key_id).await.unwrap().last_used_s.is_some());
}
