//! Measures the list of keys: how long changes, a page and a search take, and how much memory the
//! list needs.
//!
//! `cargo run --release --manifest-path services/Cargo.toml -p keytally-keys --example figures --
//! sqlite:/tmp/keys.db` measures in a new SQLite file, and `postgres://…` in an empty database of
//! PostgreSQL. Prints one line per figure. The last column is the most that the figure may be.
#![expect(clippy::unwrap_used, reason = "a measuring program fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "a module of several tests")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use keytally::{Gate, Name, NewKey, now, pepper};
use keytally_keys::keys::KeyFilter;
use keytally_keys::list::List;
use keytally_keys::reconcile::{Comparison, Unknown};
use support::{PEPPER, Site, config, creation, open, operator};

/// The keys of the team whose list is measured.
const KEYS: u32 = 10_000;

/// The names that are searched.
const NAMES: i64 = 1_000_000;

/// How often each change is measured, and each search.
const ROUNDS: usize = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match &arguments[1..] {
        [url] => runtime.block_on(measure(url)),
        // This program calls itself so, since a process keeps memory that it has freed.
        [url, folder] => runtime.block_on(print_memory(url, folder.as_ref())),
        _ => panic!("name the database: sqlite:PATH or postgres://USER@HOST/NAME"),
    }
}

/// Prints by how much the list increases the memory of a process that has the gate.
async fn print_memory(url: &str, folder: &Path) {
    let peppers = pepper::parse(PEPPER).unwrap();
    let gate = Gate::open(folder.join("api.gate"), peppers).unwrap();
    let keys = gate.list().len();
    let before = resident_mb();
    let list = open(folder, url).await;
    for _ in 0..3 {
        list.follow(now()).await.unwrap();
        list.compare(Comparison::automatic(), now()).await.unwrap();
        let page = KeyFilter { team_id: Some(1), limit: 51, ..KeyFilter::default() };
        list.keys(&page, now()).await.unwrap();
    }
    println!(
        "{:66} {:8.1} MB (at most 30)",
        format!("memory of a list of {keys} keys"),
        resident_mb() - before
    );
}

async fn measure(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let config = config().with_keys(2 * KEYS);
    let peppers = pepper::parse(PEPPER).unwrap();
    Gate::create(folder.path().join("api.gate"), peppers, &config).unwrap();
    let list = open(folder.path(), url).await;
    let site = Site { folder, list };
    let list = &site.list;
    let team = list.create_team(None, "Acme", operator()).await.unwrap().team;
    add_keys(&site, team).await;
    for _ in 0..3 {
        list.follow(now()).await.unwrap();
        list.compare(Comparison::automatic(), now()).await.unwrap();
    }

    let (mut creates, mut rotates, mut revokes) = (Times::new(), Times::new(), Times::new());
    for _ in 0..ROUNDS {
        let (_, row) = creates.time(list.create_key(creation(team), operator())).await.unwrap();
        let key_id = row.key_id;
        rotates.time(list.rotate_key(key_id, 60, false, operator())).await.unwrap();
        revokes.time(list.revoke_keys(vec![key_id], String::new(), operator())).await.unwrap();
    }
    creates.print("create a key", 20.0);
    rotates.print("rotate a key", 20.0);
    revokes.print("revoke a key", 20.0);

    let page = KeyFilter { team_id: Some(team), limit: 51, ..KeyFilter::default() };
    search(list, &page, "a page of a team with 10,000 keys", 5.0).await;
    let mut deep = page.clone();
    let rows = list.keys(&KeyFilter { limit: 9000, ..page.clone() }, now()).await.unwrap();
    deep.after = rows.last().map(|row| row.cursor(page.sort));
    search(list, &deep, "the page after 9,000 keys", 5.0).await;
    for (text, what) in [("billing", "all names contain"), ("zzz", "no name contains")] {
        let what = format!("a search of 10,000 names, text that {what}");
        search(list, &searching(&page, text), &what, 50.0).await;
    }
    let mut own = Command::new(std::env::current_exe().unwrap());
    assert!(own.arg(url).arg(site.folder.path()).status().unwrap().success());

    fill(url, team).await;
    for (text, what) in [
        ("service 00777", "1 of 100,000"),
        ("777", "1 of 333"),
        ("99", "1 of 25, with 2 characters"),
        ("service", "each"),
        ("no such name", "none"),
        ("zq", "none, with 2 characters"),
    ] {
        let what = format!("a search of 1,000,000 names, found: {what}");
        search(list, &searching(&page, text), &what, 50.0).await;
    }
    list.database().close().await;
}

fn searching(page: &KeyFilter, text: &str) -> KeyFilter {
    KeyFilter { search: text.to_owned(), ..page.clone() }
}

/// Issues keys in the gate, and enters them into the list.
async fn add_keys(site: &Site, team: u32) {
    let gate = site.gate();
    let new = NewKey::new(team, Name::new("test").unwrap());
    for _ in 0..KEYS {
        gate.issue(&new).unwrap();
    }
    let adopt = Comparison { unknown: Unknown::Adopt, accept: true, is_dry: false };
    site.list.compare(adopt, now()).await.unwrap();
}

/// Adds names to the list alone.
async fn fill(url: &str, team: u32) {
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(url).await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < $1) \
         insert into \"key\" (key_id, team_id, env, name, note, plan, scopes, state, \
         imported, tag, pepper, created_s, created_by, seq) \
         select (i * 2654435761) % 4611686018427387904, $2, 'test', \
         'Service ' || substr(cast(1000000 + i as text), 2) || ' of ' || (i % 100), \
         '', 'default', '', 'active', 0, $3, 0, 1700000000 + i, 'operator shell', \
         -i from n",
    )
    .bind(NAMES)
    .bind(i64::from(team))
    .bind(vec![0_u8; 16])
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    if url.starts_with("postgres") {
        sqlx::query("vacuum analyze").execute(&pool).await.unwrap();
    }
    pool.close().await;
}

async fn search(list: &List, filter: &KeyFilter, what: &str, most_ms: f64) {
    let mut times = Times::new();
    let mut found = 0;
    for _ in 0..ROUNDS {
        found = times.time(list.keys(filter, now())).await.unwrap().len();
    }
    times.print(&format!("{what} ({found})"), most_ms);
}

/// Durations in milliseconds.
struct Times(Vec<f64>);

impl Times {
    fn new() -> Self {
        Self(Vec::with_capacity(ROUNDS))
    }

    #[expect(clippy::disallowed_methods, reason = "this program measures")]
    async fn time<T>(&mut self, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = work.await;
        self.0.push(started.elapsed().as_secs_f64() * 1000.0);
        result
    }

    fn print(mut self, what: &str, most_ms: f64) {
        self.0.sort_by(f64::total_cmp);
        let at = |share: usize| self.0[self.0.len() * share / 100];
        println!("{what:66} median {:7.2} ms, p95 {:7.2} ms (at most {most_ms})", at(50), at(95));
    }
}

/// Returns the memory of this process that is in use, without that of files, in megabytes.
fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kb: f64 = line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0.0);
    kb / 1000.0
}
