//! A gate that follows its path: its file is replaced, removed, or replaced by something that is
//! not a gate.
// Windows does not rename over a file that is open and mapped.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use keytally::{Error, Followed, Gate, GateConfig, KeyId, Peppers};
use tempfile::TempDir;

use crate::support::{new_key, other_peppers, peppers};

/// The time after which a missing event is a failure. An event is expected within a second.
const HANG_TIMEOUT: Duration = Duration::from_secs(10);

/// A folder with a gate at `path`.
struct Files {
    folder: TempDir,
    path: PathBuf,
}

impl Files {
    /// Creates a gate, and returns a key of it.
    fn new() -> (Self, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.gate");
        let files = Self { folder, path };
        let (key, _) = files.replace(peppers());
        (files, key)
    }

    /// Replaces the gate's file by a new gate, and returns a key of it.
    fn replace(&self, peppers: Peppers) -> (String, KeyId) {
        let new_path = self.folder.path().join("new.gate");
        let gate = Gate::create(&new_path, peppers, &GateConfig::default().with_keys(8)).unwrap();
        let new = new_key();
        let (key, id) = gate.issue(&new).unwrap();
        fs::rename(new_path, &self.path).unwrap();
        (key.expose().to_owned(), id)
    }

    fn follow(&self) -> Followed {
        Followed::open(&self.path, peppers()).unwrap()
    }
}

/// Returns whether the gate in force admits a request with `key`.
fn admits(gate: &Followed, key: &str) -> bool {
    gate.load().check(Some(key.as_bytes()), 1).is_admitted()
}

#[test]
fn watched_gate_opens_the_file_that_replaces_it() {
    let (files, old) = Files::new();
    let gate = files.follow();
    let (sender, events) = mpsc::channel();
    gate.watch(move |event| sender.send(event.to_string()).unwrap()).unwrap();
    assert!(admits(&gate, &old));
    for round in 1..=2 {
        let (new, _) = files.replace(peppers());
        let sentence =
            format!("{}: the file at the path was opened and is in force", files.path.display());
        assert_eq!(events.recv_timeout(HANG_TIMEOUT).unwrap(), sentence);
        assert!(admits(&gate, &new) && !admits(&gate, &old));
        assert_eq!((gate.status().reopened, gate.status().problem), (round, None));
    }
}

#[test]
fn gate_is_not_reopened_while_its_file_is_at_its_path() {
    let (files, old) = Files::new();
    let gate = files.follow();
    assert!(!gate.reopen_if_replaced().unwrap());
    assert_eq!(gate.status().reopened, 0);
    // `reopen` opens the file again although it was not replaced.
    gate.reopen().unwrap();
    assert_eq!(gate.status().reopened, 1);
    assert!(admits(&gate, &old));
}

#[test]
fn replacement_that_does_not_open_keeps_the_old_gate() {
    let (files, old) = Files::new();
    let gate = files.follow();
    let (sender, events) = mpsc::channel();
    gate.watch(move |event| sender.send(event.to_string()).unwrap()).unwrap();
    let junk = files.folder.path().join("junk");
    // A gate with a pepper that the follower does not have, an empty file, and zeros.
    for content in [None, Some(vec![]), Some(vec![0; 8192])] {
        match content {
            None => drop(files.replace(other_peppers())),
            Some(bytes) => {
                fs::write(&junk, bytes).unwrap();
                fs::set_permissions(&junk, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                    .unwrap();
                fs::rename(&junk, &files.path).unwrap();
            }
        }
        let event_text = events.recv_timeout(HANG_TIMEOUT).unwrap();
        assert!(
            event_text.ends_with("; the gate that was open before stays in force"),
            "{event_text}"
        );
        // The failure recurs every second, and is reported once.
        assert!(gate.reopen_if_replaced().is_err());
        assert!(events.recv_timeout(Duration::from_millis(2500)).is_err());
        assert!(admits(&gate, &old));
        assert!(event_text.starts_with(&gate.status().problem.unwrap()));
        assert_eq!(gate.status().reopened, 0);
    }
    let (new, _) = files.replace(peppers());
    assert!(
        events
            .recv_timeout(HANG_TIMEOUT)
            .unwrap()
            .ends_with("the file at the path was opened and is in force")
    );
    assert_eq!((gate.status().reopened, gate.status().problem), (1, None));
    assert!(admits(&gate, &new));
}

#[test]
fn gate_of_a_removed_file_still_checks_but_refuses_changes() {
    let (files, old) = Files::new();
    let gate = files.follow();
    let aside = files.folder.path().join("aside");
    fs::rename(&files.path, &aside).unwrap();
    assert!(gate.reopen_if_replaced().is_err());
    assert!(gate.status().problem.unwrap().contains("No such file"));
    assert!(admits(&gate, &old));
    assert!(matches!(
        gate.load_for_change().unwrap().revoke(id_of(&gate)),
        Err(Error::Replaced { .. })
    ));
    fs::rename(&aside, &files.path).unwrap();
    assert!(!gate.reopen_if_replaced().unwrap());
    assert_eq!(gate.status().problem, None);
}

/// Returns the id of the first key of the gate in force.
fn id_of(gate: &Followed) -> KeyId {
    gate.load().list()[0].key_id
}

#[test]
fn change_is_made_to_the_file_at_the_path() {
    let (files, _) = Files::new();
    let gate = files.follow();
    gate.load().set_wait(Duration::from_millis(7));
    let (new, id) = files.replace(peppers());
    gate.load_for_change().unwrap().revoke(id).unwrap();
    assert!(!admits(&gate, &new));
    // The wait that was set on the old file applies to the new one.
    assert_eq!(
        format!("{:?}", gate.load().wait()),
        format!("{:?}", keytally::Wait::at_most(Duration::from_millis(7)))
    );
    files.replace(other_peppers());
    assert!(matches!(gate.load_for_change(), Err(Error::Attach { .. })));
}

#[test]
fn gate_loaded_before_a_replacement_stays_usable() {
    let (files, old) = Files::new();
    let gate = files.follow();
    let loaded = gate.load();
    let kept = loaded.to_arc();
    files.replace(peppers());
    assert!(gate.reopen_if_replaced().unwrap());
    assert!(!admits(&gate, &old));
    assert!(loaded.check(Some(old.as_bytes()), 1).is_admitted());
    drop((loaded, gate));
    assert!(kept.check(Some(old.as_bytes()), 1).is_admitted());
}

#[test]
fn unwatched_gate_is_reopened_when_due() {
    let (files, _) = Files::new();
    let gate = files.follow();
    gate.reopen_if_due();
    let (new, _) = files.replace(peppers());
    let before = gate.status();
    while gate.status() == before {
        gate.reopen_if_due();
        thread::sleep(Duration::from_millis(10));
    }
    assert!(admits(&gate, &new));
}

#[test]
fn threads_check_while_the_file_is_replaced_repeatedly() {
    let (files, old) = Files::new();
    let gate = files.follow();
    thread::scope(|scope| {
        let checks: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..20_000).filter(|_| admits(&gate, &old)).count()))
            .collect();
        for _ in 0..30 {
            files.replace(peppers());
            assert!(gate.reopen_if_replaced().unwrap());
        }
        for check in checks {
            check.join().unwrap();
        }
    });
    assert_eq!(gate.status().reopened, 30);
}

#[test]
fn gate_in_memory_cannot_be_followed() {
    let gate = Gate::in_memory(peppers(), &GateConfig::default()).unwrap();
    assert!(matches!(
        Followed::from_gate(gate, peppers(), Ok),
        Err(Error::Io { doing: "follow", .. })
    ));
}
