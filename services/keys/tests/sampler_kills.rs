//! Kills a process with SIGKILL at every step of the sampler. Afterwards the next sampler adds what
//! the killed one did not, and nothing twice.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

#[path = "support/worker.rs"]
mod processes;

#[cfg(target_os = "linux")]
#[path = "support/cluster.rs"]
mod cluster;

use core::time::Duration;
use std::path::Path;
use std::thread;

use keytally::stop::{Stop, arm, stopped, visits};
use keytally::{Key, KeyId, MigrationConfig, Timestamp, now};
use keytally_keys::database::Database;
use keytally_keys::sampler::{Sampled, Sampler};
use keytally_keys::steps::SampleStop;
use keytally_keys::usage::Width;
use processes::{Worker, folder, report, role, wait_for_kill};
use support::{Site, in_s, issue_outside, open};

/// How often a process is killed at each step; more often if the suite is named.
const ROUNDS: u32 = 10;

/// How often that is if the suite is named.
const MANY_ROUNDS: u32 = 1000;

/// The steps of a sampler that begins to count.
const OF_A_BEGINNING: [Stop; 4] = [
    SampleStop::CountingBegun,
    SampleStop::LeadWritten,
    SampleStop::LeadTaken,
    SampleStop::CountsRead,
];

/// The steps of a sampler that adds uses.
const OF_USES: [Stop; 5] = [
    SampleStop::LeadWritten,
    SampleStop::LeadTaken,
    SampleStop::CountsRead,
    SampleStop::UsesWritten,
    SampleStop::UsesAdded,
];

/// What there is before a sampler is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// A gate that does not count.
    Nothing,
    /// Uses, of which some are in the list.
    Uses,
    /// The same, and the gate was migrated since.
    Migrated,
    /// Uses, and a file of counts that was made again since.
    NewFile,
}

/// When the next sampler takes over from one that was killed.
const LATER_S: u64 = 31;

fn is_full() -> bool {
    std::env::var_os("KEYTALLY_FULL").is_some()
}

/// Performs the role of a worker. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(role) = role() else { return };
    let [folder, url, step, at_s] = &role[..] else { panic!("{role:?}") };
    let step = SampleStop::ALL[step.parse::<usize>().unwrap()];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let at = Timestamp::from_unix_s(at_s.parse().unwrap());
    let mut sampler = runtime
        .block_on(async { Sampler::new(open(Path::new(folder), url).await, None, at).unwrap() });
    assert_eq!(visits(step), 0);
    arm(step, 1);
    thread::spawn(|| {
        while !stopped() {
            thread::sleep(Duration::from_millis(1));
        }
        report("stopped");
    });
    runtime.block_on(sampler.sample(at)).unwrap();
    report("done");
    wait_for_kill();
}

/// Uses a key: three requests are admitted, and one is denied.
fn use_key(site: &Site, key: &Key) {
    let gate = site.gate();
    for cost in [1, 1, 2, 101] {
        gate.check(Some(key.expose().as_bytes()), cost);
    }
}

/// Returns the admitted requests, their units and the denied requests of a key in the list.
async fn listed(site: &Site, key_id: KeyId) -> (i64, i64, i64) {
    let (from, to) = (Timestamp::from_unix_s(now().unix_s() - 86_400), in_s(86_400));
    let days = site.list.usage_of_key(key_id, Width::Day, from, to).await.unwrap();
    let counts = || days.iter().map(|day| day.counts);
    (
        counts().map(|it| it.requests).sum(),
        counts().map(|it| it.units).sum(),
        counts().map(|it| it.denied_key).sum(),
    )
}

/// Takes a sample with a sampler of its own.
async fn sample(site: &Site, at: Timestamp) -> Sampled {
    Sampler::new(site.list.clone(), None, at).unwrap().sample(at).await.unwrap()
}

/// Kills a sampler at a step, and compares the list with the uses.
async fn kill(before: Before, step: Stop, url: Option<&str>) {
    let folder = folder();
    let file = Database::url_of_file(&folder.path().join("keys.db"));
    let url = url.unwrap_or(&file);
    let list = open(folder.path(), url).await;
    let site = Site { folder, list };
    let (key, key_id) = issue_outside(&site, 1);
    let mut used = 0;
    let mut begin = now();
    if before != Before::Nothing {
        sample(&site, begin).await;
        use_key(&site, &key);
        begin = in_s(LATER_S);
        assert_eq!(sample(&site, begin).await, Sampled::Added(1));
        if before == Before::NewFile {
            std::fs::remove_file(site.path("api.gate.usage")).unwrap();
            site.gate().set_usage(true).unwrap();
        }
        use_key(&site, &key);
        used = 2;
        begin = in_s(2 * LATER_S);
        if before == Before::Migrated {
            let config = MigrationConfig::default().with_keys(2000);
            site.gate().migrate(site.path("new.gate"), &config).unwrap();
        }
    }
    let number = SampleStop::ALL.iter().position(|it| *it == step).unwrap().to_string();
    let (path, at_s) = (site.folder.path().to_str().unwrap(), begin.unix_s().to_string());
    let mut worker = Worker::start(Worker::command(&[path, url, &number, &at_s]));
    let what = format!("{before:?}, killed at {step:?}");
    assert_eq!(worker.next_report().as_deref(), Some("stopped"), "{what}");
    worker.kill();

    use_key(&site, &key);
    used += 1;
    for round in 1..=3 {
        let at = Timestamp::from_unix_s(begin.unix_s() + round * LATER_S);
        sample(&site, at).await;
        assert_eq!(listed(&site, key_id).await, (3 * used, 4 * used, used), "{what}");
        if round == 2 {
            use_key(&site, &key);
            used += 1;
        }
    }
    site.list.database().close().await;
}

/// Kills samplers at every step.
async fn kill_at_every_step(rounds: u32, url: Option<&str>) {
    for _ in 0..rounds {
        for step in OF_A_BEGINNING {
            kill(Before::Nothing, step, url).await;
        }
        for before in [Before::Uses, Before::Migrated, Before::NewFile] {
            for step in OF_USES {
                kill(before, step, url).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_sampler_loses_and_doubles_nothing() {
    kill_at_every_step(if is_full() { MANY_ROUNDS } else { ROUNDS }, None).await;
}

// Debian's paths of PostgreSQL, and a Unix socket.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn killed_sampler_loses_nothing_in_postgresql() {
    let cluster = cluster::Cluster::start();
    let url = cluster.database("list", None).await;
    kill_at_every_step(if is_full() { MANY_ROUNDS } else { 1 }, Some(&url)).await;
}

#[test]
fn steps_are_numbered_after_those_of_changes() {
    let last = keytally_keys::steps::KeysStop::ALL.last().unwrap();
    assert_eq!(SampleStop::ALL[0].number(), last.number() + 1);
}
