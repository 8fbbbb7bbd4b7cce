//! The sampler: what the gate counts of uses is added to the list once, whatever becomes of the
//! file of counts, the gate and the services.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;
use std::fs;
use std::thread;

use keytally::{
    Gate, GateConfig, Key, KeyId, MigrationConfig, Name, NewKey, Plan, Timestamp, now, pepper,
};
use keytally_keys::sampler::{MINUTE_KEYS, Sampled, Sampler};
use keytally_keys::usage::{Counts, Width};
use support::{PEPPER, Site, in_s, issue_outside, operator};

fn sampler(site: &Site) -> Sampler {
    Sampler::new(site.list.clone(), None, now()).unwrap()
}

/// Returns the sums of a key's buckets.
async fn sums(site: &Site, key_id: KeyId, width: Width) -> Counts {
    let from = Timestamp::from_unix_s(now().unix_s() - 1200 * width.len_s().cast_unsigned());
    let to = in_s(100 * width.len_s().cast_unsigned());
    let buckets = site.list.usage_of_key(key_id, width, from, to).await.unwrap();
    let mut sums = Counts::default();
    for bucket in buckets {
        sums.requests += bucket.counts.requests;
        sums.units += bucket.counts.units;
        sums.denied_key += bucket.counts.denied_key;
        sums.old_secret += bucket.counts.old_secret;
        sums.revoked += bucket.counts.revoked;
        sums.suspended += bucket.counts.suspended;
    }
    sums
}

async fn requests(site: &Site, key_id: KeyId) -> i64 {
    sums(site, key_id, Width::Day).await.requests
}

/// Uses a key by the gate's file.
fn use_key(site: &Site, key: &Key, times: u32) {
    let gate = site.gate();
    for _ in 0..times {
        gate.check(Some(key.expose().as_bytes()), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_are_added_once_to_each_width() {
    let site = Site::new().await;
    let mut sampler = sampler(&site);
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(0));
    let (_, key, key_id) = site.team_with_key().await;
    let (gate, at) = (site.gate(), now());
    let check = |key: &Key| {
        gate.table().counted(gate.usage()).check(Some(key.expose().as_bytes()), 1, at);
    };
    // The plan has 100 requests a minute.
    (0..150).for_each(|_| check(&key));
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(1));
    let (_, row) = site.list.rotate_key(key_id, 600, false, operator()).await.unwrap();
    assert_eq!(row.last_used_s, Some(i64::try_from(at.unix_s()).unwrap()));
    let later = Timestamp::from_unix_s(at.unix_s() + 60);
    gate.table().counted(gate.usage()).check(Some(key.expose().as_bytes()), 4, later);
    gate.revoke(key_id).unwrap();
    check(&key);
    assert_eq!(sampler.sample(in_s(61)).await.unwrap(), Sampled::Added(1));
    assert_eq!(sampler.sample(in_s(62)).await.unwrap(), Sampled::Added(0));
    let expected = Counts {
        requests: 101,
        units: 104,
        denied_key: 50,
        old_secret: 1,
        revoked: 1,
        ..Counts::default()
    };
    for width in Width::ALL {
        assert_eq!(sums(&site, key_id, width).await, expected, "{width:?}");
    }
    // Old buckets are removed: those of minutes first.
    site.list.prune_usage(in_s(2 * 86_400)).await.unwrap();
    assert_eq!(sums(&site, key_id, Width::Minute).await, Counts::default());
    assert_eq!(sums(&site, key_id, Width::Hour).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_that_a_command_ended_stays_ended() {
    let site = Site::new().await;
    sampler(&site).sample(now()).await.unwrap();
    site.gate().set_usage(false).unwrap();
    assert_eq!(sampler(&site).sample(in_s(40)).await.unwrap(), Sampled::Off);
    let switched = |switch| Sampler::new(site.list.clone(), Some(switch), now()).unwrap();
    let mut on = switched(true);
    assert_eq!(on.sample(in_s(80)).await.unwrap(), Sampled::Added(0));
    // A command may end it while the sampler runs.
    site.gate().set_usage(false).unwrap();
    assert_eq!(on.sample(in_s(90)).await.unwrap(), Sampled::Off);
    site.gate().set_usage(true).unwrap();
    assert_eq!(switched(false).sample(in_s(100)).await.unwrap(), Sampled::Off);
    assert_eq!(site.gate().table().usage_generation(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_file_of_counts_counts_from_zero() {
    let site = Site::new().await;
    let mut sampler = sampler(&site);
    sampler.sample(now()).await.unwrap();
    let (_, key, key_id) = site.team_with_key().await;
    use_key(&site, &key, 3);
    sampler.sample(now()).await.unwrap();
    fs::remove_file(site.path("api.gate.usage")).unwrap();
    site.gate().set_usage(true).unwrap();
    use_key(&site, &key, 4);
    sampler.sample(now()).await.unwrap();
    assert_eq!(requests(&site, key_id).await, 7);
    // A copy of the gate names a file that is not there: the next service begins one.
    fs::remove_file(site.path("api.gate.usage")).unwrap();
    let list = site.reopen().await;
    let site = Site { folder: site.folder, list };
    let mut sampler = Sampler::new(site.list.clone(), None, now()).unwrap();
    assert_eq!(sampler.sample(in_s(40)).await.unwrap(), Sampled::Added(0));
    use_key(&site, &key, 5);
    sampler.sample(in_s(50)).await.unwrap();
    assert_eq!(requests(&site, key_id).await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_adds_no_use_twice() {
    let site = Site::new().await;
    let mut sampler = sampler(&site);
    sampler.sample(now()).await.unwrap();
    let (_, key, key_id) = site.team_with_key().await;
    use_key(&site, &key, 3);
    sampler.sample(now()).await.unwrap();
    use_key(&site, &key, 1);
    let config = MigrationConfig::default().with_keys(2000);
    site.gate().migrate(site.path("new.gate"), &config).unwrap();
    use_key(&site, &key, 2);
    sampler.sample(now()).await.unwrap();
    assert_eq!(requests(&site, key_id).await, 6);
    // Another service is the first one to see the next gate.
    let config = MigrationConfig::default().with_keys(4000);
    site.gate().migrate(site.path("new.gate"), &config).unwrap();
    use_key(&site, &key, 1);
    let mut other = Sampler::new(site.reopen().await, None, now()).unwrap();
    assert_eq!(other.sample(now()).await.unwrap(), Sampled::Elsewhere);
    assert_eq!(other.sample(in_s(40)).await.unwrap(), Sampled::Added(1));
    assert_eq!(sampler.sample(in_s(41)).await.unwrap(), Sampled::Elsewhere);
    assert_eq!(requests(&site, key_id).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn reused_record_counts_for_the_key_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let plans = vec![Plan::new("default", "100/second".parse().unwrap()).unwrap()];
    let config = GateConfig::default().with_keys(1).with_plans(plans);
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, pepper::parse(PEPPER).unwrap(), &config).unwrap();
    let url = keytally_keys::database::Database::url_of_file(&folder.path().join("keys.db"));
    let list = support::open(folder.path(), &url).await;
    let site = Site { folder, list };
    let mut sampler = sampler(&site);
    sampler.sample(now()).await.unwrap();
    let (old, old_id) = issue_outside(&site, 1);
    use_key(&site, &old, 5);
    sampler.sample(now()).await.unwrap();
    let record = gate.administer(|administrator| Ok(administrator.read(old_id))).unwrap().unwrap();
    gate.revoke(old_id).unwrap();
    let new = NewKey::new(2, Name::new("test").unwrap());
    let (new, new_id) = when_free(|| gate.issue(&new));
    use_key(&site, &new, 3);
    for _ in 0..2 {
        sampler.sample(now()).await.unwrap();
        assert_eq!((requests(&site, old_id).await, requests(&site, new_id).await), (5, 3));
    }
    // The former key gets its record back, and is counted from 0.
    gate.revoke(new_id).unwrap();
    when_free(|| gate.administer(|administrator| administrator.put(&record, now())));
    use_key(&site, &old, 6);
    sampler.sample(now()).await.unwrap();
    assert_eq!((requests(&site, old_id).await, requests(&site, new_id).await), (11, 3));
}

/// Repeats a change until the record of a key that ended is free: a tally is kept for a second
/// after its window.
fn when_free<T, E>(change: impl Fn() -> Result<T, E>) -> T {
    loop {
        match change() {
            Ok(value) => return value,
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_decreased_are_added_from_there_on() {
    let site = Site::new().await;
    let mut sampler = sampler(&site);
    sampler.sample(now()).await.unwrap();
    let (_, key, key_id) = site.team_with_key().await;
    let file = site.path("api.gate.usage");
    use_key(&site, &key, 4);
    let before = fs::read(&file).unwrap();
    use_key(&site, &key, 5);
    sampler.sample(now()).await.unwrap();
    // After a power cut, the file may lack what was counted last.
    let mapped = fs::OpenOptions::new().write(true).open(&file).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&mapped, &before, 0).unwrap();
    sampler.sample(now()).await.unwrap();
    assert_eq!(requests(&site, key_id).await, 9);
    use_key(&site, &key, 2);
    sampler.sample(now()).await.unwrap();
    assert_eq!(requests(&site, key_id).await, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_add_each_use_once() {
    let site = Site::new().await;
    let (_, key, key_id) = site.team_with_key().await;
    let mut first = sampler(&site);
    let mut second = Sampler::new(site.reopen().await, None, now()).unwrap();
    first.sample(now()).await.unwrap();
    assert_eq!(second.sample(now()).await.unwrap(), Sampled::Elsewhere);
    let (gate, total) = (site.gate(), 4000);
    let user = thread::spawn(move || {
        for _ in 0..total {
            gate.check(Some(key.expose().as_bytes()), 1);
        }
    });
    // Each takes the lead from the other, whose time is over by its own clock.
    for round in 0_u64..40 {
        let at = in_s(31 * round);
        let (one, two) = tokio::join!(first.sample(at), second.sample(at));
        assert!(one.is_ok() && two.is_ok(), "{one:?}, {two:?}");
    }
    user.join().unwrap();
    let end = in_s(31 * 41);
    first.sample(end).await.unwrap();
    second.sample(end).await.unwrap();
    let sums = sums(&site, key_id, Width::Day).await;
    assert_eq!(sums.requests + sums.denied_key, total);
    // A service that ends lets the other one lead at once.
    for sampler in [&mut first, &mut second] {
        sampler.release().await.unwrap();
    }
    assert_eq!(second.sample(end).await.unwrap(), Sampled::Added(0));
    assert_eq!(first.sample(end).await.unwrap(), Sampled::Elsewhere);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_whose_lead_was_taken_adds_nothing() {
    let site = Site::new().await;
    let (_, key, key_id) = site.team_with_key().await;
    let mut first = sampler(&site);
    first.sample(now()).await.unwrap();
    use_key(&site, &key, 3);
    let mut second = Sampler::new(site.reopen().await, None, now()).unwrap();
    assert_eq!(second.sample(in_s(31)).await.unwrap(), Sampled::Added(1));
    use_key(&site, &key, 2);
    // It still believes that it leads.
    assert_eq!(first.sample(now()).await.unwrap(), Sampled::Elsewhere);
    assert_eq!(requests(&site, key_id).await, 3);
    assert_eq!(first.sample(in_s(62)).await.unwrap(), Sampled::Added(1));
    assert_eq!(requests(&site, key_id).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_that_are_used_have_no_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = GateConfig::default().with_keys(4000);
    config.teams = Some(2);
    let path = folder.path().join("api.gate");
    let gate = Gate::create(&path, pepper::parse(PEPPER).unwrap(), &config).unwrap();
    let url = keytally_keys::database::Database::url_of_file(&folder.path().join("keys.db"));
    let list = support::open(folder.path(), &url).await;
    let site = Site { folder, list };
    let mut sampler = sampler(&site);
    sampler.sample(now()).await.unwrap();
    let new = NewKey::new(1, Name::new("test").unwrap());
    let keys = gate.administer(|administrator| {
        let mut issue = || administrator.issue(&new, keytally::entropy().unwrap(), now());
        (0..=MINUTE_KEYS).map(|_| issue()).collect::<Result<Vec<_>, _>>()
    });
    let keys = keys.unwrap();
    let use_keys = |keys: &[(Key, KeyId)]| {
        for (key, _) in keys {
            gate.check(Some(key.expose().as_bytes()), 1);
        }
    };
    use_keys(&keys);
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(MINUTE_KEYS + 1));
    use_keys(&keys[..MINUTE_KEYS]);
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(MINUTE_KEYS));
    for (index, (_, key_id)) in keys.iter().enumerate().filter(|(index, _)| index % 100 == 0) {
        let is_last = index == MINUTE_KEYS;
        assert_eq!(requests(&site, *key_id).await, if is_last { 1 } else { 2 });
        let minutes = sums(&site, *key_id, Width::Minute).await.requests;
        assert_eq!(minutes, i64::from(!is_last));
    }
    gate.set_suspended(1, true).unwrap();
    use_keys(&keys[..1]);
    assert_eq!(sampler.sample(now()).await.unwrap(), Sampled::Added(1));
    assert_eq!(sums(&site, keys[0].1, Width::Hour).await.suspended, 1);
}
