//! The counts of uses in a file next to that of the gate, which every open gate fills.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use keytally::{
    Error, Gate, GateConfig, Key, KeyId, MigrationConfig, Name, NewKey, Peppers, Settlement,
    check_all, pepper,
};
use tempfile::TempDir;

const PEPPER: &str = "5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f";

fn peppers() -> Peppers {
    pepper::parse(PEPPER).unwrap()
}

fn sandbox() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.gate");
    (folder, path)
}

fn create(path: &Path) -> Gate {
    Gate::create(path, peppers(), &GateConfig::default().with_keys(16)).unwrap()
}

fn open(path: &Path) -> Gate {
    Gate::open(path, peppers()).unwrap()
}

fn issue(gate: &Gate) -> (Key, KeyId) {
    gate.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap()
}

fn check(gate: &Gate, key: &Key, cost: u32) -> keytally::Verdict {
    gate.check(Some(key.expose().as_bytes()), cost)
}

fn admitted(gate: &Gate, key_id: KeyId) -> Option<u32> {
    gate.key_usage(key_id).map(|usage| usage.admitted())
}

#[test]
fn every_open_gate_counts() {
    let (folder, path) = sandbox();
    let first = create(&path);
    let second = open(&path);
    let (key, key_id) = issue(&first);
    check(&first, &key, 1);
    assert_eq!(admitted(&first, key_id), None);

    second.set_usage(true).unwrap();
    let file = folder.path().join("api.gate.usage");
    assert_eq!(fs::metadata(&file).unwrap().len(), 64 * 17);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    check(&first, &key, 1);
    check(&second, &key, 5);
    check_all(&[&first.part(Some(key.expose().as_bytes()), 2)]).unwrap();
    first.part(Some(key.expose().as_bytes()), 2).check(keytally::SystemClock::read());
    let usage = first.key_usage(key_id).unwrap();
    assert_eq!((usage.admitted(), usage.units()), (4, 10));
    assert_eq!(second.key_usage(key_id), Some(usage));

    // A key that is issued later has a line, too.
    let (other, other_id) = issue(&second);
    check(&first, &other, 1);
    assert_eq!(admitted(&second, other_id), Some(1));

    first.set_usage(false).unwrap();
    check(&second, &key, 1);
    assert_eq!(admitted(&second, key_id), None);
    first.set_usage(true).unwrap();
    assert_eq!(admitted(&second, key_id), Some(4), "what was counted remains");
    assert_eq!(admitted(&open(&path), key_id), Some(4));
}

#[test]
fn units_are_those_that_were_charged_in_the_end() {
    let (_folder, path) = sandbox();
    let gate = create(&path);
    gate.set_usage(true).unwrap();
    let (key, key_id) = issue(&gate);
    let units = || gate.key_usage(key_id).unwrap().units();
    let charge = check(&gate, &key, 10).charge().unwrap();
    gate.settle(key_id, charge, 4).unwrap();
    assert_eq!(units(), 4);
    let charge = check(&gate, &key, 10).charge().unwrap();
    gate.settle_all(key_id, charge, &Settlement::new().with_cost(13)).unwrap();
    assert_eq!(units(), 17);
    let charge = check(&gate, &key, 3).charge().unwrap();
    gate.refund(key_id, charge).unwrap();
    assert_eq!((units(), admitted(&gate, key_id)), (17, Some(3)));
    // The limit is 100 per minute, so the rest has no room.
    let charge = check(&gate, &key, 3).charge().unwrap();
    gate.settle(key_id, charge, 1000).unwrap();
    assert_eq!(units(), 100);
}

#[test]
fn counts_of_another_gate_are_replaced() {
    let (folder, path) = sandbox();
    let gate = create(&path);
    gate.set_usage(true).unwrap();
    let file = folder.path().join("api.gate.usage");

    // The file was removed: the next call creates it, and open gates use the new one.
    let (key, key_id) = issue(&gate);
    let other = open(&path);
    check(&other, &key, 1);
    fs::remove_file(&file).unwrap();
    gate.set_usage(true).unwrap();
    assert_eq!(admitted(&gate, key_id), Some(0));
    check(&other, &key, 1);
    assert_eq!(admitted(&gate, key_id), Some(1));
    drop((gate, other));

    // The gate was replaced.
    fs::remove_file(&path).unwrap();
    let gate = create(&path);
    let (key, key_id) = issue(&gate);
    gate.set_usage(true).unwrap();
    check(&gate, &key, 1);
    assert_eq!(admitted(&gate, key_id), Some(1));

    // A file that is not a table is not replaced.
    gate.set_usage(false).unwrap();
    fs::write(&file, [b'x'; 64 * 17]).unwrap();
    assert!(matches!(gate.set_usage(true), Err(Error::Attach { .. })));
    assert_eq!(fs::read(&file).unwrap(), [b'x'; 64 * 17]);
}

#[test]
fn hostile_file_of_counts_is_refused_and_stays_unused() {
    let (folder, path) = sandbox();
    let gate = create(&path);
    gate.set_usage(true).unwrap();
    let (key, key_id) = issue(&gate);
    let file = folder.path().join("api.gate.usage");
    let right = fs::read(&file).unwrap();
    let word = |at: usize, value: u64| {
        let mut bytes = right.clone();
        bytes[8 * at..8 * (at + 1)].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let kind = |number: u64| word(1, number << 32 | 2);
    let longer = [&right[..], &[0; 64]].concat();
    let cases = [
        ("empty", Vec::new(), false),
        ("too short for a header", right[..63].to_vec(), false),
        ("truncated", right[..64 * 16].to_vec(), false),
        ("too long", longer, false),
        ("zeros", vec![0; right.len()], false),
        ("ones", vec![0xff; right.len()], false),
        ("a gate", kind(2), false),
        ("a limiter", kind(1), false),
        ("another version", word(1, 5 << 32 | 3), false),
        // A file of counts, but not of this gate: it is replaced.
        ("another gate", word(4, 1), true),
        ("another capacity", word(3, 17), true),
        ("no generation", word(5, 0), true),
        ("a large generation", word(5, u64::MAX), true),
    ];
    for (name, bytes, is_replaced) in cases {
        fs::remove_file(&file).unwrap();
        fs::write(&file, &bytes).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let other = open(&path);
        assert!(check(&other, &key, 1).is_admitted(), "{name}");
        assert_eq!(other.key_usage(key_id), None, "{name}");
        assert_eq!(other.set_usage(true).is_ok(), is_replaced, "{name}");
        if !is_replaced {
            assert_eq!(fs::read(&file).unwrap(), bytes, "{name}");
        }
    }
    // Lines with any content are counts.
    fs::remove_file(&file).unwrap();
    let gate = open(&path);
    gate.set_usage(true).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let line = bytes.chunks_mut(64).skip(1).find(|line| line[..8] != [0; 8]).unwrap();
    line[8..].fill(0xff);
    fs::write(&file, &bytes).unwrap();
    assert!(check(&gate, &key, 1).is_admitted());
    // The first count of a word carries into the second.
    let usage = gate.key_usage(key_id).unwrap();
    assert_eq!((usage.admitted(), usage.with_previous_secret()), (0, 0));
    assert_eq!(usage.units(), u64::MAX);
}

#[test]
fn without_the_file_checks_continue() {
    let (folder, path) = sandbox();
    let gate = create(&path);
    gate.set_usage(true).unwrap();
    let (key, key_id) = issue(&gate);
    fs::remove_file(folder.path().join("api.gate.usage")).unwrap();
    let other = open(&path);
    assert!(check(&other, &key, 1).is_admitted());
    assert_eq!(admitted(&other, key_id), None);
}

#[test]
#[cfg(unix)]
fn open_gate_counts_in_every_file_that_replaces_another() {
    let (folder, path) = sandbox();
    let gate = create(&path);
    let (key, key_id) = issue(&gate);
    let file = folder.path().join("api.gate.usage");
    for round in 0..8 {
        open(&path).set_usage(true).unwrap();
        assert_eq!(admitted(&gate, key_id), Some(0), "{round}");
        assert!(check(&gate, &key, 1).is_admitted());
        assert_eq!(admitted(&gate, key_id), Some(1), "{round}");
        assert_eq!(admitted(&open(&path), key_id), Some(1), "{round}");
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn gate_in_memory_has_no_file() {
    let gate = Gate::in_memory(peppers(), &GateConfig::default()).unwrap();
    let error = gate.set_usage(true).unwrap_err().to_string();
    assert!(error.starts_with("cannot count uses in memory"), "{error}");
}

/// Opening a file that is replaced meanwhile may fail on Windows.
#[cfg(unix)]
#[test]
fn counts_never_decrease_during_a_migration() {
    use std::thread;

    let (folder, path) = sandbox();
    let gate = create(&path);
    gate.set_usage(true).unwrap();
    let (key, key_id) = issue(&gate);
    check(&gate, &key, 7);
    drop(gate);
    let mut least = 1;
    thread::scope(|scope| {
        let migrations = scope.spawn(|| {
            for keys in [32, 64, 128, 256, 512, 1024, 2048, 4096] {
                let config = MigrationConfig::default().with_keys(keys);
                open(&path).migrate(folder.path().join("new.gate"), &config).unwrap();
            }
        });
        while !migrations.is_finished() {
            let count = admitted(&open(&path), key_id);
            least = least.min(count.unwrap_or(least));
        }
    });
    assert_eq!(least, 1);
}

#[test]
#[cfg(unix)]
fn migrated_gate_keeps_the_counts() {
    let (folder, path) = sandbox();
    let gate = create(&path);
    gate.set_usage(true).unwrap();
    let (key, key_id) = issue(&gate);
    check(&gate, &key, 7);
    let config = MigrationConfig::default().with_keys(32);
    gate.migrate(folder.path().join("new.gate"), &config).unwrap();
    let gate = open(&path);
    let usage = gate.key_usage(key_id).unwrap();
    assert_eq!((usage.admitted(), usage.units()), (1, 7));
    check(&gate, &key, 1);
    assert_eq!(admitted(&gate, key_id), Some(2));
    let (other, other_id) = issue(&gate);
    check(&gate, &other, 1);
    assert_eq!(admitted(&gate, other_id), Some(1));
}
