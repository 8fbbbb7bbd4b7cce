//! PostgreSQL is stopped in the middle of each step of each change. The change is answered by one
//! sentence or as made, and the list and the gate agree when PostgreSQL runs again.
// Debian's paths, and a Unix socket.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[path = "support/cluster.rs"]
mod cluster;
#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;

use cluster::Cluster;
use keytally::stop::{arm, resume, stopped, visits};
use keytally::{Key, KeyId, Outcome, now};
use keytally_keys::change::Edit;
use keytally_keys::error::{Error, Result};
use keytally_keys::list::List;
use keytally_keys::reconcile::Comparison;
use keytally_keys::steps::KeysStop;
use support::{Site, creation, operator};

/// The changes of keys.
const CHANGES: [&str; 4] = ["create", "rotate", "edit", "revoke"];

/// The steps of a change, and whether the list has the change by then.
const STEPS: [(keytally::stop::Stop, bool); 6] = [
    (KeysStop::HeadLocked, false),
    (KeysStop::Prepared, false),
    (KeysStop::RowsWritten, false),
    (KeysStop::Committed, true),
    (KeysStop::RecordPut, true),
    (KeysStop::Applied, true),
];

/// Makes a change. Returns a new secret, and whether the list has the change.
async fn change(list: List, name: &str, key_id: KeyId) -> Result<(Option<Key>, bool)> {
    match name {
        "create" => Ok((Some(list.create_key(creation(1), operator()).await?.0), true)),
        "rotate" => Ok((Some(list.rotate_key(key_id, 60, true, operator()).await?.0), true)),
        "edit" => {
            let edit = Edit { plan: Some("pro".to_owned()), ..Edit::default() };
            list.edit_key(key_id, edit, operator()).await?;
            Ok((None, true))
        }
        _ => {
            let revoked = list.revoke_keys(vec![key_id], String::new(), operator()).await?;
            Ok((None, revoked[0].is_listed))
        }
    }
}

/// The name of a plan of the gate.
fn plan(site: &Site, key_id: KeyId) -> u8 {
    site.gate().key(key_id).unwrap().plan
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_postgresql_leaves_no_change_half_made() {
    let cluster = Cluster::start();
    let site = Site::with_database(&cluster.database("list", None).await).await;
    site.list.create_team(None, "Acme", operator()).await.unwrap();
    let list = &site.list;
    // One step of each change, unless the suite is named.
    let is_full = std::env::var_os("KEYTALLY_FULL").is_some();
    for (number, name) in CHANGES.into_iter().enumerate() {
        for (at, (step, is_committed)) in STEPS.into_iter().enumerate() {
            if !is_full && at != number + 1 {
                continue;
            }
            let what = format!("{name} at {step:?}");
            let (key, row) = list.create_key(creation(1), operator()).await.unwrap();
            let (key_id, keys) = (row.key_id, site.gate().list().len());
            arm(step, u32::try_from(visits(step)).unwrap() + 1);
            let changed = tokio::spawn(change(list.clone(), name, key_id));
            while !stopped() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cluster.control("stop");
            resume();
            let result = changed.await.unwrap();
            // The gate has all of the change or nothing of it, and at once.
            let is_made = is_committed || name == "revoke";
            let is_revoked = site.outcome(&key) == Outcome::InvalidKey;
            assert_eq!(is_revoked, name == "revoke", "{what}");
            match &result {
                Ok((secret, is_listed)) => {
                    assert!(is_made, "{what}");
                    assert_eq!(*is_listed, is_committed, "{what}");
                    if let Some(secret) = secret {
                        assert_eq!(site.outcome(secret), Outcome::Admitted, "{what}");
                    }
                }
                Err(error) => {
                    assert!(!is_made, "{what}: {error}");
                    assert!(matches!(error, Error::Database(_)), "{what}: {error:?}");
                    assert_eq!(error.to_string().lines().count(), 1, "{what}: {error}");
                    assert_eq!(site.gate().list().len(), keys, "{what}");
                }
            }
            assert_eq!(plan(&site, key_id), u8::from(is_committed && name == "edit"), "{what}");
            let refused = list.follow(now()).await.unwrap_err();
            assert!(matches!(refused, Error::Database(_)), "{what}: {refused:?}");

            cluster.control("start");
            list.follow(now()).await.unwrap();
            let compared = list.compare(Comparison::automatic(), now()).await.unwrap();
            assert_eq!(compared.open(), 0, "{what}: {compared:?}");
            let settled = usize::from(name == "revoke" && !is_committed);
            assert_eq!(compared.differences.len(), settled, "{what}: {compared:?}");
            let row = list.key(Some(1), key_id).await.unwrap();
            assert_eq!(row.is_revoked, name == "revoke", "{what}");
            assert_eq!(row.rotated_s.is_some(), is_committed && name == "rotate", "{what}");
            assert_eq!(&*row.plan == "pro", is_committed && name == "edit", "{what}");
        }
    }
    list.database().close().await;
}
