//! Copies of a gate that several processes check and change meanwhile: each copy opens, has no
//! flaw, contains no half of a change, and counts at least what was admitted before the copy and at
//! most what was admitted after it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;
use std::fs;
use std::path::Path;

use keytally::{AttachError, Error, Gate, GateConfig, KeyId, KeyState, Limiter, Name, NewKey};

use crate::support::worker::{Worker, folder, report, role};
use crate::support::{
    NOW, entries, is_full, is_quick, new_key, peppers, plan, read_keys, write_keys,
};

/// Keys that are only charged, all of one team.
const CHARGED: usize = 24;

/// Keys that the administrator rotates and assigns to another plan.
const CHANGED: usize = 8;

/// The least limits of the plan `default` and how much the administrator adds to all of them.
const LIMITS: [u64; 2] = [1_000_000, 2_000_000];
const EXTRAS: u64 = 1000;

fn open_gate(at: &Path) -> Gate {
    Gate::open(at.join("gate"), peppers()).unwrap()
}

/// Returns the sections of a plan whose limits are `extra` above the least ones.
fn sections(extra: u64) -> String {
    let [minute, hour] = LIMITS.map(|limit| limit + extra);
    format!("{minute}/minute, {hour}/hour; team: 100000000/hour")
}

/// Performs the role of a worker until it is killed. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [role, at] = &words[..] else { panic!("{words:?}") };
    let at = Path::new(at);
    let gate = open_gate(at);
    let keys = read_keys(at);
    report("ready");
    match role.as_str() {
        "spend" => loop {
            for (_, key) in &keys[..CHARGED] {
                let part = gate.table().part(Some(key.as_bytes()), 1);
                assert!(part.check(NOW).is_admitted());
            }
        },
        "administer" => administer(&gate, &keys[CHARGED..]),
        _ => panic!("no such role: {words:?}"),
    }
}

/// Issues, revokes, rotates and assigns keys, and changes a plan.
fn administer(gate: &Gate, keys: &[(KeyId, String)]) {
    for round in 0.. {
        let (_, passing) = gate.issue(&new_key()).unwrap();
        for (key_id, _) in keys {
            gate.rotate(*key_id, Duration::from_secs(3600), true).unwrap();
            gate.assign(*key_id, if round % 2 == 0 { "pro" } else { "default" }).unwrap();
        }
        gate.set_plan(&plan("default", &sections(round % EXTRAS))).unwrap();
        gate.revoke(passing).unwrap();
        gate.reset(passing);
    }
}

/// Returns what the gate counts for each charged key, and then for their team.
fn counts(gate: &Gate, keys: &[(KeyId, String)]) -> Vec<u32> {
    let peek = |key: &str| gate.table().part(Some(key.as_bytes()), 0).peek(NOW);
    let used = |verdict: &keytally::Compound, tally: usize| {
        verdict.tallies()[tally].verdict().quotas().iter().last().unwrap().used()
    };
    let mut counts: Vec<u32> = keys[..CHARGED].iter().map(|(_, key)| used(&peek(key), 0)).collect();
    counts.push(used(&peek(&keys[0].1), 1));
    counts
}

/// Asserts that a copy is whole, and that it counts what the gate did during the copy.
fn assert_whole(copy: &Path, keys: &[(KeyId, String)], before: &[u32], after: &[u32]) {
    let gate = Gate::open(copy, peppers()).unwrap();
    assert_eq!(gate.administrator(), None, "no process administers a copy");
    let mut flaws = Vec::new();
    let completed = gate.verify(|flaw| flaws.push(flaw.to_string())).unwrap();
    assert_eq!((completed, flaws), (false, vec![]), "no change is half in the copy");
    for ((before, counted), after) in before.iter().zip(counts(&gate, keys)).zip(after) {
        assert!(*before <= counted && counted <= *after, "{before} <= {counted} <= {after}");
    }
    let limits: Vec<u64> = gate
        .table()
        .plans()
        .find(|(_, plan)| plan.name.as_str() == "default")
        .map(|(_, plan)| {
            plan.sections.named("key").unwrap().quotas().iter().map(|it| it.limit.into()).collect()
        })
        .unwrap();
    assert_eq!(limits[1] - limits[0], LIMITS[1] - LIMITS[0], "{limits:?}");
    let active = gate.list().iter().filter(|info| info.state == KeyState::Active).count();
    assert!((CHARGED + CHANGED..=CHARGED + CHANGED + 1).contains(&active), "{active}");
}

#[test]
fn copies_of_a_gate_in_use_are_whole() {
    let copies = if is_full() {
        1000
    } else if is_quick() {
        5
    } else {
        100
    };
    let folder = folder();
    let at = folder.path();
    let plans = ["default", "pro"].map(|name| plan(name, &sections(0)));
    let config = GateConfig::default().with_keys(20_000).with_teams(8).with_plans(plans.to_vec());
    let gate = Gate::create(at.join("gate"), peppers(), &config).unwrap();
    let keys: Vec<(KeyId, String)> = (0..CHARGED + CHANGED)
        .map(|_| {
            gate.administer(|it| it.issue(&new_key(), keytally::entropy().unwrap(), NOW)).unwrap()
        })
        .map(|(key, key_id)| (key_id, key.expose().to_owned()))
        .collect();
    write_keys(at, &keys);
    let path = at.display().to_string();
    let mut workers: Vec<Worker> = ["spend", "administer", "spend"]
        .map(|role| Worker::start(Worker::command(&[role, &path])))
        .into();
    for worker in &mut workers {
        assert_eq!(worker.next_report().as_deref(), Some("ready"));
    }
    let mut charged = false;
    for number in 0..copies {
        let copy = at.join("copy");
        let before = counts(&gate, &keys);
        gate.copy(&copy, number % 2 == 1).unwrap();
        let after = counts(&gate, &keys);
        charged |= before < after;
        assert_whole(&copy, &keys, &before, &after);
        if number % 2 == 1 {
            fs::remove_file(&copy).unwrap();
        }
    }
    assert!(charged, "keys are charged during copies");
    workers.iter_mut().for_each(Worker::kill);
    assert_eq!(entries(at), 2, "the gate and its keys");
}

#[test]
fn copy_replaces_a_gate_only_if_it_may() {
    let folder = folder();
    let at = folder.path();
    let gate = Gate::create(at.join("gate"), peppers(), &support::config(8)).unwrap();
    let new = NewKey::new(42, Name::new("live").unwrap());
    let (key, _) = gate.issue(&new).unwrap();
    let copy = at.join("copy");
    gate.copy(&copy, true).unwrap();
    let (later, _) = gate.issue(&new).unwrap();
    let is_known = |path: &Path, text: &str| {
        Gate::open(path, peppers()).unwrap().peek(Some(text.as_bytes()), 1).is_admitted()
    };
    assert!(matches!(gate.copy(&copy, false), Err(Error::Exists { .. })));
    assert!(is_known(&copy, key.expose()) && !is_known(&copy, later.expose()));

    // Of what is there, only another gate is replaced.
    let text = at.join("text");
    fs::write(&text, "precious ".repeat(10)).unwrap();
    let refused = gate.copy(&text, true);
    assert!(
        matches!(refused, Err(Error::Attach { source: AttachError::NotATable, .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read_to_string(&text).unwrap(), "precious ".repeat(10));
    let limiter = at.join("limiter");
    Limiter::create(&limiter, &"5/hour".parse().unwrap(), 8).unwrap();
    let other_name = at.join("other-name");
    fs::hard_link(at.join("gate"), &other_name).unwrap();
    let unchanged = [fs::read(&limiter).unwrap(), fs::read(at.join("gate")).unwrap()];
    for path in [&limiter, &at.join("gate"), &other_name] {
        let refused = gate.copy(path, true);
        assert!(matches!(refused, Err(Error::Copy { .. })), "{refused:?}");
    }
    assert!(matches!(gate.copy(at, true), Err(Error::NotAFile { .. })));
    assert!(gate.is_at_path().unwrap());
    assert_eq!(unchanged, [fs::read(&limiter).unwrap(), fs::read(at.join("gate")).unwrap()]);

    // Another gate is replaced at once, also by the name of a link.
    let open = Gate::open(&copy, peppers()).unwrap();
    #[cfg(unix)]
    let path = {
        let link = at.join("link");
        std::os::unix::fs::symlink(&copy, &link).unwrap();
        support::set_mode(&copy, 0o640);
        // Only root may.
        let _ = std::os::unix::fs::chown(&copy, Some(65_532), None);
        link
    };
    #[cfg(not(unix))]
    let path = {
        drop(open);
        copy.clone()
    };
    #[cfg(unix)]
    let owner = std::os::unix::fs::MetadataExt::uid(&copy.metadata().unwrap());
    gate.copy(&path, true).unwrap();
    assert!(is_known(&copy, later.expose()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

        assert!(!open.is_at_path().unwrap());
        assert!(!open.peek(Some(later.expose().as_bytes()), 1).is_admitted());
        assert!(path.symlink_metadata().unwrap().is_symlink());
        let found = copy.metadata().unwrap();
        assert_eq!((found.permissions().mode() & 0o7777, found.uid()), (0o640, owner));
    }

    // The copy does not get a mode with which it would be refused.
    #[cfg(unix)]
    for mode in [0o644, 0o700, 0o607] {
        use std::os::unix::fs::PermissionsExt as _;

        support::set_mode(&copy, mode);
        gate.copy(&copy, true).unwrap();
        let found = copy.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, if mode == 0o700 { 0o700 } else { 0o600 });
    }
    fs::write(&copy, "").unwrap();
    gate.copy(&copy, true).unwrap();
    assert!(is_known(&copy, later.expose()));

    // A damaged gate is replaced too, if it is as long as the copy.
    for beginning in [[0; 64], [0xA5; 64]] {
        let mut bytes = fs::read(&copy).unwrap();
        bytes[..64].copy_from_slice(&beginning);
        fs::write(&copy, &bytes).unwrap();
        gate.copy(&copy, true).unwrap();
        assert!(is_known(&copy, later.expose()));
        bytes.push(0);
        fs::write(&copy, &bytes).unwrap();
        let refused = gate.copy(&copy, true);
        assert!(matches!(refused, Err(Error::Attach { .. })), "{refused:?}");
        fs::write(&copy, &bytes[..bytes.len() - 1]).unwrap();
        gate.copy(&copy, true).unwrap();
    }
}
