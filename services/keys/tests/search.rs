//! Searches of names: all that contain a text are found, in any script and case, and soon, also
//! among a million names.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

#[cfg(target_os = "linux")]
#[path = "support/cluster.rs"]
mod cluster;

use core::time::Duration;

use keytally::now;
use keytally_keys::change::Edit;
use keytally_keys::keys::{KeyFilter, MOST_COUNTED, SORTS, Sort};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use support::{Site, creation, operator};

/// The number of names.
fn names() -> u32 {
    if std::env::var_os("KEYTALLY_FULL").is_some() { 1_000_000 } else { 20_000 }
}

/// The rows of many keys of a team, of which each has a number in its name.
macro_rules! insert {
    ($numbers:literal) => {
        concat!(
            "insert into \"key\" (key_id, team_id, env, name, note, plan, scopes, state, imported, \
             tag, pepper, created_s, created_by, seq) \
             select number + 1000000, case when number < 10000 then 1 else 2 end, 'live', \
             'service ' || (number * 7919 % $1) || ' of the Överland team', '', 'default', '', 'active', 0, \
             ",
            $numbers
        )
    };
}

async fn search(site: &Site, team_id: Option<u32>, search: &str) -> (Vec<String>, Duration) {
    let filter =
        KeyFilter { team_id, search: search.to_owned(), limit: 200, ..KeyFilter::default() };
    let mut times = Vec::new();
    let mut found = Vec::new();
    for _ in 0..9 {
        let began = now().unix_ms();
        found = site.list.keys(&filter, now()).await.unwrap();
        times.push(Duration::from_millis(now().unix_ms() - began));
    }
    times.sort();
    (found.into_iter().map(|row| row.name).collect(), times[times.len() / 2])
}

/// Searches among many names, of which one is `Wörld "API" 50%_x`.
async fn searches_are_fast(site: &Site, url: &str, insert: &'static str) {
    let (_, _, key_id) = site.team_with_key().await;
    site.list.create_team(None, "Other", operator()).await.unwrap();
    let mut special = creation(1);
    "billing".clone_into(&mut special.name);
    site.list.create_key(special, operator()).await.unwrap();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    sqlx::query(insert).bind(i64::from(names())).execute(&mut connection).await.unwrap();
    connection.execute("analyze").await.unwrap();
    connection.close().await.unwrap();
    let edit = Edit { name: Some("Wörld \"API\" 50%_x".to_owned()), ..Edit::default() };
    site.list.edit_key(key_id, edit, operator()).await.unwrap();

    // That of the newest key. The numbers in the names are in no order.
    let number = (names() - 7919).to_string();
    let last = format!("service {number} of the Överland team");
    for (team, text, count) in [
        (None, &*number, 1),
        (Some(2), &number, 1),
        (Some(1), &number, 0),
        (None, "\"api\" 50%", 1),
        (Some(1), "0%_", 1),
        (None, "no such name", 0),
        (None, "team", 200),
        (Some(2), "vice 1", 200),
        (None, "vice 12", 200),
        (None, "vice 123", if names() > 20_000 { 200 } else { 111 }),
        (Some(1), "service 7919 ", 1),
        (Some(1), "billing", 1),
        (None, "Wörld", 1),
    ] {
        let (found, took) = search(site, team, text).await;
        println!("{text:?} in {team:?}: {} names in {took:?}", found.len());
        assert_eq!(found.len(), count, "{text:?} in {team:?}: {found:?}");
    }
    assert_eq!(search(site, None, &number).await.0, [last]);
    finds_ids_and_hints(site, key_id).await;
}

/// Searches for the key `Wörld "API" 50%_x` of team 1 by its id and its hint.
async fn finds_ids_and_hints(site: &Site, key_id: keytally::KeyId) {
    let row = site.list.key(Some(1), key_id).await.unwrap();
    let last = row.last_characters.clone().unwrap();
    let named = row.name.clone();
    let id = key_id.to_string();
    // A name that has the last characters too.
    let edit = Edit { name: Some(format!("so {last} is named")), ..Edit::default() };
    let mut other = creation(1);
    "other".clone_into(&mut other.name);
    let (_, other) = site.list.create_key(other, operator()).await.unwrap();
    site.list.edit_key(other.key_id, edit, operator()).await.unwrap();
    let both = [format!("so {last} is named"), named.clone()];
    for (team, text, found) in [
        (Some(1), &*id, &both[1..]),
        (None, &id, &both[1..]),
        (Some(2), &id, &[]),
        (Some(1), &id[..3], &both[1..]),
        (None, &id[..10], &both[1..]),
        (Some(2), &id[..6], &[]),
        (Some(1), &id[1..7], &[]),
        (Some(1), &format!("kt_live_{id}"), &both[1..]),
        (Some(1), &format!("kt_live_…{last}"), &both[1..]),
        (Some(1), &format!("kt_test_…{last}"), &[]),
        (Some(2), &format!("kt_live_...{last}"), &[]),
        (None, &format!("…{last}"), &both[1..]),
        (Some(1), &last, &both),
        (None, &last, &both),
        (Some(2), &last, &[]),
    ] {
        let (mut names, took) = search(site, team, text).await;
        println!("{text:?} in {team:?}: {} keys in {took:?}", names.len());
        // Keys of one second are in the order of their random ids.
        names.sort_unstable_by(|one, other| other.cmp(one));
        assert_eq!(names, found, "{text:?} in {team:?}");
        let filter = KeyFilter { team_id: team, search: text.to_owned(), ..KeyFilter::default() };
        let count = site.list.count_keys(&filter, now()).await.unwrap();
        assert_eq!(usize::try_from(count).unwrap(), found.len(), "{text:?} in {team:?}");
        // Pages continue after each key, in every order.
        for sort in SORTS.map(|name| Sort::named(name).unwrap()) {
            let mut filter = KeyFilter { limit: 1, sort, ..filter.clone() };
            let mut count = 0;
            while let Some(row) = site.list.keys(&filter, now()).await.unwrap().pop() {
                filter.after = Some(row.cursor(sort));
                count += 1;
            }
            assert_eq!(count, found.len(), "{text:?} in {team:?} by {}", sort.as_str());
        }
    }
    // Counts of many keys end at a bound.
    for (search, count) in [("", MOST_COUNTED), ("service", MOST_COUNTED), ("no such name", -1)] {
        let search = search.to_owned();
        let filter = KeyFilter { search, ..KeyFilter::default() };
        assert_eq!(site.list.count_keys(&filter, now()).await.unwrap(), count + 1);
    }
    let filter = KeyFilter { search: "vice 123".to_owned(), ..KeyFilter::default() };
    let found = site.list.count_keys(&filter, now()).await.unwrap();
    assert_eq!(found, if names() > 20_000 { 1111 } else { 111 });
}

#[tokio::test(flavor = "multi_thread")]
async fn search_in_sqlite_finds_parts_of_names_soon() {
    let site = Site::new().await;
    let url = format!("sqlite:{}?mode=rw", site.path("keys.db").display());
    let insert = insert!(
        "x'00112233445566778899aabbccddeeff', 0, 1700000000 + number, 'test', -1 - number from \
         (with recursive numbers (number) as (select 0 union all select number + 1 from numbers \
          where number + 1 < $1) select number from numbers) as all_numbers"
    );
    searches_are_fast(&site, &url, insert).await;
    // A name of another case is found, also beyond ASCII.
    for team in [None, Some(1)] {
        assert_eq!(search(&site, team, "wÖRLD").await.0.len(), 1);
    }
}

// Debian's paths of PostgreSQL, and a Unix socket.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn search_in_postgresql_finds_parts_of_names_soon() {
    let cluster = cluster::Cluster::start();
    let url = cluster.database("names", None).await;
    let site = Site::with_database(&url).await;
    let insert = insert!(
        "'\\x00112233445566778899aabbccddeeff', 0, 1700000000 + number, 'test', -1 - number \
         from generate_series(0, $1 - 1) as number"
    );
    searches_are_fast(&site, &url, insert).await;
}
