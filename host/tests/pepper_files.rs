//! Pepper files: which are accepted, of which owner, and the errors of the others.
// It is about owners, modes and pipes. `windows.rs` is about access control lists.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use keytally::{Gate, GateConfig, pepper};
use tempfile::TempDir;

use crate::support::set_mode;
use crate::support::worker::copy_of_this_program;

const PEPPER: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

/// A user other than root. If root runs the tests, it gives files to this user.
const USER: u32 = 65_534;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Writes a file that does not belong to root, even if root runs the test.
fn own_file(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    give_away(path);
    set_mode(path, 0o600);
}

fn give_away(path: &Path) {
    if is_root() {
        chown(path, Some(USER), None).unwrap();
    }
}

fn make_pipe(folder: &TempDir, mode: u32) -> PathBuf {
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    set_mode(&path, mode);
    path
}

fn error(path: &Path) -> String {
    pepper::read_file(path).unwrap_err().to_string().replace(&path.display().to_string(), "FILE")
}

#[test]
fn every_line_of_the_file_is_a_pepper() {
    let folder = folder();
    let path = folder.path().join("pepper");
    own_file(&path, format!("# first\r\n{PEPPER}\r\n\n  # second\n  {OTHER}"));
    let gate = folder.path().join("api.gate");
    Gate::create(&gate, pepper::read_file(&path).unwrap(), &GateConfig::default().with_keys(1))
        .unwrap();
    assert!(Gate::open(&gate, pepper::parse(OTHER).unwrap()).is_ok());
    assert!(Gate::open(&gate, pepper::parse(PEPPER).unwrap()).is_ok());
}

#[test]
fn invalid_file_is_refused_with_its_fault() {
    let folder = folder();
    let path = folder.path().join("pepper");
    for (text, sentence) in [
        ("# none\n\n".to_owned(), "FILE: no pepper is given; `openssl rand -hex 32` makes one"),
        (format!("{PEPPER}\nshort\n"), "FILE: pepper 2 of 2 is neither hex nor base64"),
        (format!("{PEPPER}\n{PEPPER}\n"), "FILE: pepper 2 of 2 is the same as one before it"),
        (
            "#".repeat(pepper::MAX_FILE_LEN + 1),
            "FILE: the file has more than 65536 bytes, so it cannot be a pepper file",
        ),
        (
            format!("\u{feff}{PEPPER}\n"),
            "FILE: the text begins with a UTF-8 byte-order mark; save it as ASCII or as UTF-8 without that mark",
        ),
    ] {
        own_file(&path, text);
        assert_eq!(error(&path), sentence);
    }
    let utf16: Vec<u8> =
        format!("\u{feff}{PEPPER}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    own_file(&path, utf16);
    assert!(error(&path).contains("a UTF-16 byte-order mark"));

    own_file(&path, "#".repeat(pepper::MAX_FILE_LEN - 65) + "\n" + PEPPER);
    assert!(pepper::read_file(&path).is_ok());
    assert_eq!(error(folder.path()), "FILE: this is a directory, not a regular file");
    assert_eq!(error(Path::new("/dev/zero")), "FILE: this is a device, not a regular file");
}

#[test]
fn file_of_a_user_is_accepted_if_only_its_owner_has_access() {
    let folder = folder();
    let path = folder.path().join("pepper");
    own_file(&path, PEPPER);
    for (mode, others) in [
        (0o640, "its group has"),
        (0o620, "its group has"),
        (0o604, "every user has"),
        (0o661, "every user has"),
    ] {
        set_mode(&path, mode);
        let sentence = format!(
            "FILE: its mode is {mode:04o}, so {others} access to it; fix it with: chmod 600 FILE"
        );
        assert_eq!(error(&path), sentence);
    }
    for mode in [0o600, 0o400] {
        set_mode(&path, mode);
        assert!(pepper::read_file(&path).is_ok(), "{mode:o}");
    }
}

/// Only a file that contains peppers is certainly a pepper file.
#[test]
fn file_without_peppers_gets_no_advice_to_change_it() {
    let folder = folder();
    let path = folder.path().join("passwd");
    for (text, sentence) in [
        (
            "root:x:0:0:root:/root:/bin/sh\n".repeat(3),
            "FILE: pepper 1 of 3 is neither hex nor base64",
        ),
        (
            "#".repeat(1 << 17),
            "FILE: the file has more than 65536 bytes, so it cannot be a pepper file",
        ),
        (String::new(), "FILE: no pepper is given; `openssl rand -hex 32` makes one"),
    ] {
        for mode in [0o600, 0o644, 0o666, 0o777] {
            own_file(&path, &text);
            set_mode(&path, mode);
            assert_eq!(error(&path), sentence, "{mode:o}");
        }
    }
}

/// Needs root, which alone can create files of root and start a process of another user.
#[test]
fn file_of_root_is_accepted_if_only_root_can_write_it() {
    if let Some(path) = std::env::var_os("PEPPER_FILE") {
        // This is the process of the other user, which the test starts below.
        let said =
            pepper::read_file(path).map_or_else(|error| error.to_string(), |_| "read".to_owned());
        println!("said: {said}");
        return;
    }
    if !is_root() {
        println!("not root: nothing is tested here");
        return;
    }
    let folder = folder();
    set_mode(folder.path(), 0o755);
    // The other user may have no access to the folder of this program.
    let program = folder.path().join("program");
    assert!(
        Command::new("cp")
            .arg(std::env::current_exe().unwrap())
            .arg(&program)
            .status()
            .unwrap()
            .success()
    );
    let path = folder.path().join("pepper");
    fs::write(&path, PEPPER).unwrap();
    let as_user = |group: u32, mode: u32| {
        chown(&path, Some(0), Some(group)).unwrap();
        set_mode(&path, mode);
        let mut reader = copy_of_this_program(&program);
        reader.args([
            "--exact",
            "file_of_root_is_accepted_if_only_root_can_write_it",
            "--nocapture",
        ]);
        let output = reader.env("PEPPER_FILE", &path).uid(USER).gid(USER).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = text.lines().find_map(|line| line.split_once("said: ")).unwrap().1;
        said.replace(&path.display().to_string(), "FILE")
    };
    // Kubernetes with fsGroup. An access control list of systemd gives the same mode.
    assert_eq!(as_user(USER, 0o440), "read");
    assert_eq!(as_user(USER, 0o640), "read");
    // Docker.
    assert_eq!(as_user(0, 0o444), "read");
    assert_eq!(as_user(0, 0o400), "cannot open FILE: Permission denied (os error 13)");
    for mode in [0o460, 0o646, 0o666] {
        let sentence = format!(
            "FILE: its mode is {mode:04o}, so users other than root can write it; fix it with: chmod go-w FILE"
        );
        assert_eq!(as_user(USER, mode), sentence);
    }
    // The same holds for a process of root.
    set_mode(&path, 0o444);
    assert!(pepper::read_file(&path).is_ok());
    set_mode(&path, 0o464);
    assert!(pepper::read_file(&path).is_err());
}

/// Kubernetes replaces a secret by renaming a link.
#[test]
fn link_is_followed_and_its_target_checked() {
    let folder = folder();
    let at = folder.path();
    fs::create_dir(at.join("..2026_01_31")).unwrap();
    own_file(&at.join("..2026_01_31/pepper"), PEPPER);
    symlink("..2026_01_31", at.join("..data")).unwrap();
    symlink("..data/pepper", at.join("pepper")).unwrap();
    assert!(pepper::read_file(at.join("pepper")).is_ok());

    // The rule applies to the file that the link leads to.
    set_mode(&at.join("..2026_01_31/pepper"), 0o640);
    assert!(error(&at.join("pepper")).contains("its mode is 0640"));
    symlink("loop", at.join("loop")).unwrap();
    assert!(error(&at.join("loop")).starts_with("cannot open FILE"));
}

#[test]
fn pipe_is_read_to_its_end() {
    let folder = folder();
    let path = make_pipe(&folder, 0o600);
    give_away(&path);
    let writer = {
        let path = path.clone();
        thread::spawn(move || {
            let mut pipe = fs::OpenOptions::new().write(true).open(path).unwrap();
            for half in PEPPER.as_bytes().chunks(32) {
                pipe.write_all(half).unwrap();
                thread::yield_now();
            }
        })
    };
    assert!(pepper::read_file(&path).is_ok());
    writer.join().unwrap();
}

#[test]
fn endless_pipe_is_an_error() {
    let folder = folder();
    let path = make_pipe(&folder, 0o600);
    give_away(&path);
    let writer = {
        let path = path.clone();
        thread::spawn(move || {
            let mut pipe = fs::OpenOptions::new().write(true).open(path).unwrap();
            while pipe.write_all(&[b'#'; 4096]).is_ok() {}
        })
    };
    assert!(error(&path).contains("more than 65536 bytes"));
    writer.join().unwrap();
}

#[test]
fn pipe_that_others_can_write_is_refused() {
    let folder = folder();
    let path = make_pipe(&folder, 0o622);
    // Both ends are open, so that neither waits for the other.
    let _both = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let sentence = error(&path);
    assert!(sentence.contains("its mode is 0622") && !sentence.contains("fix it"), "{sentence}");
}

/// A shell passes `<(command)` in this form.
#[test]
fn descriptor_of_a_pipe_is_read() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writeln!(writer, "{PEPPER}").unwrap();
    drop(writer);
    assert!(pepper::read_file(format!("/dev/fd/{}", reader.as_raw_fd())).is_ok());
}

#[test]
fn pepper_given_as_a_path_is_not_repeated() {
    for path in [PEPPER, OTHER] {
        let error = pepper::read_file(path).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(path), "{error}");
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
