//! A disk that is full, and one that can only be read: creating and changing end in a clear error, and no file is harmed.
//!
//! A worker has mounts of its own, a tiny file system in memory among them (`unshare` of util-linux; as root, or where
//! users may have namespaces).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use core::time::Duration;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use keytally::NewKey;
use keytally::{Error, Gate, GateConfig, HEADER_LEN, Limiter};
use keytally::{Key, KeyId, Name, Peppers};

use crate::support::{Worker, folder, role, tell, wait_for_death};

/// The room on the tiny disk.
const DISK: usize = 64 * 4096;

fn peppers() -> Peppers {
    Peppers::new(&[b"a pepper for tests, of 32 bytes."]).unwrap()
}

/// A gate that takes half the disk.
fn config() -> GateConfig {
    GateConfig { keys: u32::try_from(DISK / 2 / 68).unwrap(), ..GateConfig::default() }
}

fn issue(gate: &Gate) -> Result<(Key, KeyId), Error> {
    gate.issue(&NewKey::new(1, Name::new("live").unwrap()))
}

fn entries(folder: &Path) -> usize {
    folder.read_dir().unwrap().count()
}

fn is_good(gate: &Gate, key: &Key) {
    assert!(gate.check(Some(key.expose().as_bytes()), 1).is_admitted());
}

/// Takes all the room that is left.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    while file.write_all(&[7; 512]).is_ok() {}
    path
}

fn mount(arguments: &[&str]) {
    let output = Command::new("mount").args(arguments).output().unwrap();
    assert!(output.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The worker; no test unless it is told to be one.
#[test]
fn worker() {
    let Some(words) = role() else { return };
    let [what, folder] = &words[..] else { panic!("{words:?}") };
    mount(&["-t", "tmpfs", "-o", &format!("size={DISK}"), "tiny", folder]);
    match what.as_str() {
        "full" => on_a_full_disk(Path::new(folder)),
        "read-only" => on_a_disk_that_can_only_be_read(Path::new(folder)),
        _ => panic!("no such role: {what}"),
    }
    tell("done");
    wait_for_death();
}

fn on_a_full_disk(folder: &Path) {
    let says_full = |error: &Error, path: &Path| {
        let expected = format!(
            "cannot find room on the disk for {}: No space left on device (os error 28)",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
    };
    // What doesn't fit is refused before anything is there, and leaves nothing.
    let large = folder.join("large");
    let too_large = GateConfig { keys: config().keys * 3, ..config() };
    says_full(&Gate::create(&large, peppers(), &too_large).unwrap_err(), &large);
    let policy = "5/minute".parse().unwrap();
    says_full(&Limiter::create(&large, &policy, 20_000).unwrap_err(), &large);
    says_full(&Limiter::open_or_create(&large, &policy, 20_000).unwrap_err(), &large);
    assert_eq!(entries(folder), 0);

    let path = folder.join("gate");
    let gate = Gate::create(&path, peppers(), &config()).unwrap();
    let (first, id) = issue(&gate).unwrap();
    let limiter_path = folder.join("limiter");
    let limiter = Limiter::create(&limiter_path, &policy, 100).unwrap();
    fill(folder);
    let other = folder.join("other");
    says_full(&Limiter::create(&other, &policy, 100).unwrap_err(), &other);
    assert!(!other.exists());
    // Their room was taken when they were made: every key that the gate was made for can be issued, and all the rest.
    let mut keys = vec![first];
    for _ in 1..config().keys {
        keys.push(issue(&gate).unwrap().0);
    }
    assert!(issue(&gate).unwrap_err().to_string().contains("the gate is full"));
    keys[0] = gate.rotate(id, Duration::ZERO, false).unwrap();
    keys.iter().for_each(|key| is_good(&gate, key));
    for subject in 0..100_u32 {
        assert!(limiter.check(&subject.to_le_bytes(), 1).is_admitted());
    }
    gate.revoke(id).unwrap();
    assert!(!gate.verify(|flaw| panic!("{flaw}")).unwrap());
    drop((gate, limiter));
    assert_eq!(Gate::open(&path, peppers()).unwrap().list().len(), config().keys as usize);
    Limiter::open(&limiter_path).unwrap();

    // A copy with holes is given its room when it is opened, or is refused.
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    (&file).write_all(&bytes[..HEADER_LEN]).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fill(folder);
    let error = Gate::open(&path, peppers()).unwrap_err();
    says_full(&error, &path);
    fs::remove_file(folder.join("filler")).unwrap();
    assert!(Gate::open(&path, peppers()).is_ok());
}

fn on_a_disk_that_can_only_be_read(folder: &Path) {
    let shown = folder.to_str().unwrap();
    let path = folder.join("gate");
    let gate = Gate::create(&path, peppers(), &config()).unwrap();
    let (key, id) = issue(&gate).unwrap();
    let limiter_path = folder.join("limiter");
    let policy = "5/minute".parse().unwrap();
    let limiter = Limiter::create(&limiter_path, &policy, 100).unwrap();
    let before = fs::read(&path).unwrap();

    // The same disk once more over itself, to be read only.
    mount(&["--bind", shown, shown]);
    mount(&["-o", "remount,bind,ro", shown]);
    let says_so = |error: &Error, doing: &str, path: &Path| {
        let expected = format!("cannot {doing} {}: Read-only file system (os error 30)", path.display());
        assert_eq!(error.to_string(), expected);
    };
    let new = folder.join("new");
    says_so(&Gate::create(&new, peppers(), &config()).unwrap_err(), "create", &new);
    says_so(&Limiter::create(&new, &policy, 100).unwrap_err(), "create", &new);
    says_so(&Limiter::open_or_create(&new, &policy, 100).unwrap_err(), "create", &new);
    says_so(&Gate::open(&path, peppers()).unwrap_err(), "open", &path);
    says_so(&Limiter::open(&limiter_path).unwrap_err(), "open", &limiter_path);
    // Who opened it before can't change keys any more, and is told so.
    says_so(&issue(&gate).unwrap_err(), "open", &path);
    says_so(&gate.rotate(id, Duration::ZERO, false).unwrap_err(), "open", &path);
    says_so(&gate.revoke(id).unwrap_err(), "open", &path);
    says_so(&gate.verify(|_| ()).unwrap_err(), "open", &path);
    assert_eq!(fs::read(&path).unwrap(), before, "nothing was changed");
    assert_eq!(entries(folder), 2);
    // Checks go on with what is mapped.
    is_good(&gate, &key);
    assert!(limiter.check(b"subject", 1).is_admitted());

    let output = Command::new("umount").arg(folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let again = gate.rotate(id, Duration::ZERO, false).unwrap();
    is_good(&gate, &again);
    assert!(!gate.verify(|flaw| panic!("{flaw}")).unwrap());
}

/// Lets a worker do it that has mounts of its own.
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
    assert_eq!(worker.answer().as_deref(), Some("done"), "the worker failed: see above");
    worker.kill();
}

#[test]
fn a_full_disk_is_a_clear_error_and_harms_no_file() {
    with_own_mounts("full");
}

#[test]
fn a_disk_that_can_only_be_read_is_a_clear_error_and_harms_no_file() {
    with_own_mounts("read-only");
}
