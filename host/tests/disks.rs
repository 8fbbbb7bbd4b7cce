//! A full disk and a read-only disk: creation and changes fail with a clear error, and no file is
//! damaged.
//!
//! A worker has its own mounts, among them a small file system in memory. This needs `unshare` of
//! util-linux, and root or user namespaces.
// It mounts file systems of Linux.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use keytally::{Error, Gate, GateConfig, HEADER_LEN, Key, KeyId, Limiter, MigrationConfig};

use crate::support::worker::{Worker, folder, report, role, wait_for_kill};
use crate::support::{entries, new_key, peppers};

/// The size of the small disk in bytes.
const DISK: usize = 64 * 4096;

/// The settings of a gate that takes half the disk.
fn config() -> GateConfig {
    // Each key takes 68 bytes.
    GateConfig::default().with_keys(u32::try_from(DISK / 2 / 68).unwrap())
}

fn issue(gate: &Gate) -> Result<(Key, KeyId), Error> {
    gate.issue(&new_key())
}

fn assert_admitted(gate: &Gate, key: &Key) {
    assert!(gate.check(Some(key.expose().as_bytes()), 1).is_admitted());
}

/// Fills the disk. Returns the path of the file that fills it.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    while file.write_all(&[7; 512]).is_ok() {}
    path
}

fn mount(arguments: &[&str]) {
    let output = Command::new("mount").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "mount {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Performs the role of a worker. Does nothing unless this process is a worker.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [what, folder] = &words[..] else { panic!("{words:?}") };
    mount(&["-t", "tmpfs", "-o", &format!("size={DISK}"), "tiny", folder]);
    match what.as_str() {
        "full" => on_a_full_disk(Path::new(folder)),
        "read-only" => on_a_read_only_disk(Path::new(folder)),
        "mounted" => on_a_mounted_file(Path::new(folder)),
        _ => panic!("no such role: {what}"),
    }
    report("done");
    wait_for_kill();
}

fn on_a_full_disk(folder: &Path) {
    let assert_full = |error: &Error, path: &Path| {
        let expected = format!(
            "cannot reserve disk space for {}: No space left on device (os error 28)",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
    };
    // A table that does not fit is refused before a file exists, and leaves none.
    let large = folder.join("large");
    let too_large = config().with_keys(config().keys * 3);
    assert_full(&Gate::create(&large, peppers(), &too_large).unwrap_err(), &large);
    let policy = "5/minute".parse().unwrap();
    assert_full(&Limiter::create(&large, &policy, 20_000).unwrap_err(), &large);
    assert_full(&Limiter::open_or_create(&large, &policy, 20_000).unwrap_err(), &large);
    assert_eq!(entries(folder), 0);

    let path = folder.join("gate");
    let gate = Gate::create(&path, peppers(), &config()).unwrap();
    let (first, id) = issue(&gate).unwrap();
    let limiter_path = folder.join("limiter");
    let limiter = Limiter::create(&limiter_path, &policy, 100).unwrap();
    fill(folder);
    let other = folder.join("other");
    assert_full(&Limiter::create(&other, &policy, 100).unwrap_err(), &other);
    assert!(!other.exists());
    // The space of existing tables was reserved at their creation, so every key can be issued and
    // every subject inserted.
    let mut keys = vec![first];
    for _ in 1..config().keys {
        keys.push(issue(&gate).unwrap().0);
    }
    assert!(issue(&gate).unwrap_err().to_string().contains("the gate is full"));
    keys[0] = gate.rotate(id, Duration::ZERO, false).unwrap();
    keys.iter().for_each(|key| assert_admitted(&gate, key));
    for subject in 0..100_u32 {
        assert!(limiter.check(&subject.to_le_bytes(), 1).is_admitted());
    }
    gate.revoke(id).unwrap();
    assert!(!gate.verify(|flaw| panic!("{flaw}")).unwrap());
    drop((gate, limiter));
    assert_eq!(Gate::open(&path, peppers()).unwrap().list().len(), config().keys as usize);
    Limiter::open(&limiter_path).unwrap();

    // Opening a copy with holes reserves its space, or fails.
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    (&file).write_all(&bytes[..HEADER_LEN]).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fill(folder);
    let error = Gate::open(&path, peppers()).unwrap_err();
    assert_full(&error, &path);
    fs::remove_file(folder.join("filler")).unwrap();
    assert!(Gate::open(&path, peppers()).is_ok());
}

fn on_a_read_only_disk(folder: &Path) {
    let shown = folder.to_str().unwrap();
    let path = folder.join("gate");
    let gate = Gate::create(&path, peppers(), &config()).unwrap();
    let (key, id) = issue(&gate).unwrap();
    let limiter_path = folder.join("limiter");
    let policy = "5/minute".parse().unwrap();
    let limiter = Limiter::create(&limiter_path, &policy, 100).unwrap();
    let before = fs::read(&path).unwrap();

    // Mounts the same disk over itself, read-only.
    mount(&["--bind", shown, shown]);
    mount(&["-o", "remount,bind,ro", shown]);
    let assert_read_only = |error: &Error, doing: &str, path: &Path| {
        let expected =
            format!("cannot {doing} {}: Read-only file system (os error 30)", path.display());
        assert_eq!(error.to_string(), expected);
    };
    let new = folder.join("new");
    assert_read_only(&Gate::create(&new, peppers(), &config()).unwrap_err(), "create", &new);
    assert_read_only(&Limiter::create(&new, &policy, 100).unwrap_err(), "create", &new);
    assert_read_only(&Limiter::open_or_create(&new, &policy, 100).unwrap_err(), "create", &new);
    assert_read_only(&Gate::open(&path, peppers()).unwrap_err(), "open", &path);
    assert_read_only(&Limiter::open(&limiter_path).unwrap_err(), "open", &limiter_path);
    // A process that opened the file before can no longer change keys. Its error names the reason.
    assert_read_only(&issue(&gate).unwrap_err(), "open", &path);
    assert_read_only(&gate.rotate(id, Duration::ZERO, false).unwrap_err(), "open", &path);
    assert_read_only(&gate.revoke(id).unwrap_err(), "open", &path);
    assert_read_only(&gate.verify(|_| ()).unwrap_err(), "open", &path);
    assert_eq!(fs::read(&path).unwrap(), before, "nothing was changed");
    assert_eq!(entries(folder), 2);
    // Checks continue on the mapped file.
    assert_admitted(&gate, &key);
    assert!(limiter.check(b"subject", 1).is_admitted());

    let output = Command::new("umount").arg(folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let again = gate.rotate(id, Duration::ZERO, false).unwrap();
    assert_admitted(&gate, &again);
    assert!(!gate.verify(|flaw| panic!("{flaw}")).unwrap());
}

/// No file can be renamed over a mount point, such as a file that a container mounts.
fn on_a_mounted_file(folder: &Path) {
    let (path, new) = (folder.join("gate"), folder.join("new"));
    let gate = Gate::create(&path, peppers(), &config().with_keys(20)).unwrap();
    let (key, id) = issue(&gate).unwrap();
    assert_admitted(&gate, &key);
    let shown = path.to_str().unwrap();
    mount(&["--bind", shown, shown]);
    let gate = Gate::open(&path, peppers()).unwrap();
    for _ in 0..2 {
        let error = gate.migrate(&new, &MigrationConfig::default()).unwrap_err();
        let expected = format!(
            "cannot rename {}: Device or resource busy (os error 16); the migration was undone, \
             and the gate stays as it was",
            new.display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(!new.exists() && !gate.table().is_migrating());
    }
    assert_eq!(gate.check(Some(key.expose().as_bytes()), 1).remaining(), Some(998));
    gate.revoke(id).unwrap();
}

/// Runs a worker in this role that has its own mounts.
fn with_own_mounts(what: &str) {
    let folder = folder();
    let command = Worker::command(&[what, folder.path().to_str().unwrap()]);
    let ways: [&[&str]; 2] = [&["--mount"], &["--mount", "--map-root-user"]];
    let works = |way: &&&[&str]| {
        let mut trial = Command::new("unshare");
        trial.args(**way).args(["mount", "-t", "tmpfs", "trial"]).arg(folder.path());
        trial.output().is_ok_and(|output| output.status.success())
    };
    let way = ways.iter().find(works).expect(
        "a test of full and read-only disks needs mounts of its own: run it as root, or where `unshare --map-root-user` works",
    );
    let mut unshare = Command::new("unshare");
    unshare.args(*way).arg(command.get_program()).args(command.get_args());
    unshare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut worker = Worker::start(unshare);
    assert_eq!(worker.next_report().as_deref(), Some("done"), "the worker failed: see above");
    worker.kill();
}

#[test]
fn full_disk_is_a_clear_error_and_damages_no_file() {
    with_own_mounts("full");
}

#[test]
fn read_only_disk_is_a_clear_error_and_damages_no_file() {
    with_own_mounts("read-only");
}

#[test]
fn migration_of_a_mounted_file_is_undone() {
    with_own_mounts("mounted");
}
