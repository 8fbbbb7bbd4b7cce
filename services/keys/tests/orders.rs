//! The orders of the list: in each, every key is on one page, in SQLite and PostgreSQL, also where
//! many keys have one value.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

#[cfg(target_os = "linux")]
#[path = "support/cluster.rs"]
mod cluster;

use alloc::collections::BTreeSet;

use keytally::now;
use keytally_keys::keys::{Cursor, KeyFilter, KeyRow, SORTS, Sort, SortBy};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use support::{Site, operator};

/// The number of keys of the team.
const KEYS: usize = 10_000;

/// The rows of the keys of a team, and of some of another one. Names, times of creation, expiries
/// and last uses occur several times each, and some keys have neither an expiry nor a use.
macro_rules! insert {
    ($tag:literal, $numbers:literal) => {
        concat!(
            "insert into \"key\" (key_id, team_id, env, name, note, plan, scopes, state, imported, \
             tag, pepper, created_s, created_by, seq, not_after_s, last_used_s) \
             select (number + 1) * 7777777777, case when number < 10000 then 1 else 2 end, \
             case when number % 3 = 0 then 'test' else 'live' end, \
             case when number % 2 = 0 then 'service' else 'SERVICE' end || (100000 + number * 7919 % 2000), \
             '', 'default', '', 'active', 0, ",
            $tag,
            ", 0, 1700000000 + number / 100, 'test', -1 - number, \
             case when number % 4 = 0 then null else 4000000000 + number * 31 % 500 end, \
             case when number % 5 = 0 then null else 1750000000 + number * 13 % 3000 end from ",
            $numbers
        )
    };
}

/// Returns the value by which a key is sorted, as a text in that order.
fn value(row: &KeyRow, by: SortBy) -> String {
    match by {
        SortBy::Created => format!("{:012}", row.created_s),
        SortBy::Name => row.name.to_lowercase(),
        SortBy::LastUsed => format!("{:012}", row.last_used_s.unwrap_or(0)),
        SortBy::Expires => format!("{:012}", row.not_after_s.unwrap_or(99_999_999_999)),
    }
}

async fn every_order_has_every_key_once(site: &Site, url: &str, insert: &'static str) {
    for name in ["Acme", "Other"] {
        site.list.create_team(None, name, operator()).await.unwrap();
    }
    let mut connection = AnyConnection::connect(url).await.unwrap();
    connection.execute(insert).await.unwrap();
    connection.execute("analyze").await.unwrap();
    connection.close().await.unwrap();
    let all = KeyFilter { team_id: Some(1), limit: 190, ..KeyFilter::default() };
    let of_env = KeyFilter { env: "test".to_owned(), ..all.clone() };
    let found = KeyFilter { search: "vice1005".to_owned(), ..all.clone() };
    let endless = KeyFilter { flag: "never_expires".to_owned(), ..all.clone() };
    for (filter, count) in [(all, KEYS), (of_env, 3334), (found, 500), (endless, 2500)] {
        for name in SORTS {
            let sort = Sort::named(name).unwrap();
            let mut page = KeyFilter { sort, ..filter.clone() };
            let mut rows = Vec::<KeyRow>::new();
            loop {
                let found = site.list.keys(&page, now()).await.unwrap();
                let Some(last) = found.last() else { break };
                // A cursor is a text on the way.
                let cursor = last.cursor(sort).to_string();
                page.after = Some(Cursor::parse(sort, &cursor).unwrap());
                assert!(found.len() <= 190 && rows.len() <= count, "{name}");
                rows.extend(found);
            }
            let ids: BTreeSet<_> = rows.iter().map(|row| row.key_id).collect();
            assert_eq!((ids.len(), rows.len()), (count, count), "{name} of {filter:?}");
            assert!(rows.iter().all(|row| row.team_id == 1));
            let values: Vec<_> = rows.iter().map(|row| value(row, sort.by)).collect();
            let is_sorted = match sort.is_descending {
                true => values.is_sorted_by(|one, next| one >= next),
                false => values.is_sorted(),
            };
            assert!(is_sorted, "{name} of {filter:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_in_sqlite_has_every_key_once() {
    let site = Site::new().await;
    let url = format!("sqlite:{}?mode=rw", site.path("keys.db").display());
    let insert = insert!(
        "x'00112233445566778899aabbccddeeff'",
        "(with recursive numbers (number) as (select 0 union all select number + 1 from numbers \
          where number + 1 < 11000) select number from numbers) as all_numbers"
    );
    every_order_has_every_key_once(&site, &url, insert).await;
}

// Debian's paths of PostgreSQL, and a Unix socket.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn every_order_in_postgresql_has_every_key_once() {
    let cluster = cluster::Cluster::start();
    let url = cluster.database("orders", None).await;
    let site = Site::with_database(&url).await;
    let insert = insert!(
        "'\\x00112233445566778899aabbccddeeff'::bytea",
        "generate_series(0, 10999) as number"
    );
    every_order_has_every_key_once(&site, &url, insert).await;
}
