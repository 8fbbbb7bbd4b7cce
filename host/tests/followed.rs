//! A gate that follows its path: what happens when its file is replaced, removed, or replaced by something else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use keytally::NewKey;
use keytally::{Error, Followed, Gate, GateConfig};
use keytally::{KeyId, Name, Peppers};
use tempfile::TempDir;

/// A bound against a hang, and no measurement.
const PROMPT: Duration = Duration::from_secs(10);

fn peppers() -> Peppers {
    Peppers::new(&[b"a pepper for tests, of 32 bytes."]).unwrap()
}

fn other_peppers() -> Peppers {
    Peppers::new(&[b"another pepper, also of 32 bytes"]).unwrap()
}

struct Files {
    folder: TempDir,
    path: PathBuf,
}

impl Files {
    /// A gate and a key of it.
    fn new() -> (Self, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.gate");
        let files = Self { folder, path };
        let (key, _) = files.replace(peppers());
        (files, key)
    }

    /// Puts a new gate in place of what is there, and gives a key of it.
    fn replace(&self, peppers: Peppers) -> (String, KeyId) {
        let new_path = self.folder.path().join("new.gate");
        let gate =
            Gate::create(&new_path, peppers, &GateConfig { keys: 8, ..GateConfig::default() }).unwrap();
        let new = NewKey::new(1, Name::new("live").unwrap());
        let (key, id) = gate.issue(&new).unwrap();
        fs::rename(new_path, &self.path).unwrap();
        (key.expose().to_owned(), id)
    }

    fn follow(&self) -> Followed {
        Followed::open(&self.path, peppers()).unwrap()
    }
}

fn admits(gate: &Followed, key: &str) -> bool {
    gate.load().check(Some(key.as_bytes()), 1).is_admitted()
}

#[test]
fn a_watched_gate_takes_up_the_file_that_replaces_it() {
    let (files, old) = Files::new();
    let gate = files.follow();
    let (tell, told) = mpsc::channel();
    gate.watch(move |event| tell.send(event.to_string()).unwrap()).unwrap();
    assert!(admits(&gate, &old));
    for round in 1..=2 {
        let (new, _) = files.replace(peppers());
        let sentence =
            format!("{}: the file was replaced, and the new one is in force", files.path.display());
        assert_eq!(told.recv_timeout(PROMPT).unwrap(), sentence);
        assert!(admits(&gate, &new) && !admits(&gate, &old));
        assert_eq!((gate.status().reopened, gate.status().problem), (round, None));
    }
}

#[test]
fn a_gate_is_not_opened_again_while_its_file_is_in_place() {
    let (files, old) = Files::new();
    let gate = files.follow();
    assert!(!gate.look().unwrap());
    assert_eq!(gate.status().reopened, 0);
    gate.reopen().unwrap();
    assert_eq!(gate.status().reopened, 1);
    assert!(admits(&gate, &old));
}

#[test]
fn a_replacement_that_does_not_open_keeps_the_old_gate() {
    let (files, old) = Files::new();
    let gate = files.follow();
    let (tell, told) = mpsc::channel();
    gate.watch(move |event| tell.send(event.to_string()).unwrap()).unwrap();
    let junk = files.folder.path().join("junk");
    for content in [None, Some(vec![]), Some(vec![0; 8192])] {
        match content {
            None => drop(files.replace(other_peppers())),
            Some(bytes) => {
                fs::write(&junk, bytes).unwrap();
                fs::set_permissions(&junk, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                fs::rename(&junk, &files.path).unwrap();
            }
        }
        let said = told.recv_timeout(PROMPT).unwrap();
        assert!(said.ends_with("; the gate that was open before stays in force"), "{said}");
        // It is tried again every second, and reported once.
        assert!(gate.look().is_err());
        assert!(told.recv_timeout(Duration::from_millis(2500)).is_err());
        assert!(admits(&gate, &old));
        assert!(said.starts_with(&gate.status().problem.unwrap()));
        assert_eq!(gate.status().reopened, 0);
    }
    let (new, _) = files.replace(peppers());
    assert!(told.recv_timeout(PROMPT).unwrap().ends_with("the new one is in force"));
    assert_eq!((gate.status().reopened, gate.status().problem), (1, None));
    assert!(admits(&gate, &new));
}

#[test]
fn a_removed_file_stays_in_force_until_another_is_there() {
    let (files, old) = Files::new();
    let gate = files.follow();
    let aside = files.folder.path().join("aside");
    fs::rename(&files.path, &aside).unwrap();
    assert!(gate.look().is_err());
    assert!(gate.status().problem.unwrap().contains("No such file"));
    assert!(admits(&gate, &old));
    assert!(matches!(gate.in_place().unwrap().revoke(id_of(&gate)), Err(Error::Replaced { .. })));
    fs::rename(&aside, &files.path).unwrap();
    assert!(!gate.look().unwrap());
    assert_eq!(gate.status().problem, None);
}

fn id_of(gate: &Followed) -> KeyId {
    gate.load().list()[0].key_id
}

#[test]
fn a_change_is_made_to_the_file_that_is_there() {
    let (files, _) = Files::new();
    let gate = files.follow();
    gate.load().set_wait(Duration::from_millis(7));
    let (new, id) = files.replace(peppers());
    gate.in_place().unwrap().revoke(id).unwrap();
    assert!(!admits(&gate, &new));
    // What was set for the old file holds for the new one.
    assert_eq!(
        format!("{:?}", gate.load().wait()),
        format!("{:?}", keytally::Wait::at_most(Duration::from_millis(7)))
    );
    files.replace(other_peppers());
    assert!(matches!(gate.in_place(), Err(Error::Attach { .. })));
}

#[test]
fn a_gate_loaded_before_a_replacement_stays_usable() {
    let (files, old) = Files::new();
    let gate = files.follow();
    let loaded = gate.load();
    let kept = loaded.to_arc();
    files.replace(peppers());
    assert!(gate.look().unwrap());
    assert!(!admits(&gate, &old));
    assert!(loaded.check(Some(old.as_bytes()), 1).is_admitted());
    drop((loaded, gate));
    assert!(kept.check(Some(old.as_bytes()), 1).is_admitted());
}

#[test]
fn a_gate_without_a_thread_looks_when_a_second_has_passed() {
    let (files, _) = Files::new();
    let gate = files.follow();
    gate.look_when_due();
    let (new, _) = files.replace(peppers());
    let begun = gate.status();
    while gate.status() == begun {
        gate.look_when_due();
        thread::sleep(Duration::from_millis(10));
    }
    assert!(admits(&gate, &new));
}

#[test]
fn threads_check_while_the_file_is_replaced_many_times() {
    let (files, old) = Files::new();
    let gate = files.follow();
    thread::scope(|scope| {
        let checks: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..20_000).filter(|_| admits(&gate, &old)).count())).collect();
        for _ in 0..30 {
            files.replace(peppers());
            assert!(gate.look().unwrap());
        }
        for check in checks {
            check.join().unwrap();
        }
    });
    assert_eq!(gate.status().reopened, 30);
}

#[test]
fn a_gate_in_memory_has_no_path_to_follow() {
    let gate = Gate::in_memory(peppers(), &GateConfig::default()).unwrap();
    assert!(matches!(Followed::of(gate, peppers(), Ok), Err(Error::Io { doing: "follow", .. })));
}
