//! What the tests of the program share: a folder of its own, the program run in it, and a watch on its secrets.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;

/// A folder with the program at work in it.
#[derive(Debug)]
pub struct Bench {
    folder: TempDir,
    pub pepper: String,
    /// What no output may show: all keys that have been shown once, and the pepper.
    secrets: Mutex<Vec<String>>,
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Asserts that it ended so, and gives what was on standard output.
    #[track_caller]
    pub fn with(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.out
    }

    /// The one line of JSON of a run that ended well.
    #[track_caller]
    pub fn json(self) -> Value {
        self.json_with(0)
    }

    /// The one line of JSON of a run that ended so.
    #[track_caller]
    pub fn json_with(self, status: i32) -> Value {
        let out = self.with(status);
        assert_eq!(out.lines().count(), 1, "{out}");
        serde_json::from_str(&out).unwrap()
    }

    /// Asserts that it failed with a sentence that holds all of these, and printed nothing else.
    #[track_caller]
    pub fn fails(self, parts: &[&str]) {
        assert_eq!((self.status, self.out.as_str()), (3, ""), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        assert!(self.err.starts_with("keytally: "), "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in {:?}", self.err);
        }
    }
}

impl Ran {
    /// Asserts that its arguments were refused in words that hold all of these.
    #[track_caller]
    pub fn misused(self, parts: &[&str]) {
        assert_eq!((self.status, self.out.as_str()), (2, ""), "{self:?}");
        for part in parts.iter().chain(&["--help"]) {
            assert!(self.err.contains(part), "{part:?} is not in {:?}", self.err);
        }
    }
}

impl Bench {
    pub fn new() -> Self {
        let pepper = "5f".repeat(32);
        Self { folder: tempfile::tempdir().unwrap(), secrets: Mutex::new(vec![pepper.clone()]), pepper }
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names of what is in the folder.
    pub fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }

    /// The program, about to run in the folder with these arguments and no pepper.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keytally"));
        command.current_dir(self.folder.path()).args(args);
        for name in ["KEYTALLY_PEPPER", "KEYTALLY_PEPPER_FILE"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the program with the pepper in its environment.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with_input(args, b"")
    }

    /// The same with an input.
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        self.finish(self.command(args).env("KEYTALLY_PEPPER", &self.pepper), input)
    }

    /// Runs a command of the program to its end, and looks for secrets in what it prints.
    pub fn finish(&self, command: &mut Command, input: &[u8]) -> Ran {
        let ran = finish(command, input);
        for secret in self.secrets.lock().unwrap().iter() {
            for text in [&ran.out, &ran.err] {
                assert!(!text.contains(secret), "a secret is shown by {command:?}: {text}");
            }
        }
        ran
    }

    /// A key that was shown once: from now on no output may hold its secret.
    pub fn remember(&self, key: &str) -> String {
        let secret = if key.len() > 39 { &key[key.len() - 28..] } else { key };
        self.secrets.lock().unwrap().push(secret.to_owned());
        key.to_owned()
    }

    /// Issues a key; gives it and its id.
    pub fn issue(&self, gate: &str, more: &[&str]) -> (String, String) {
        self.print_key(&[&["issue", gate, "--json"], more].concat())
    }

    /// Gives a key another secret.
    pub fn rotate(&self, gate: &str, key_id: &str, grace: &str) -> String {
        self.print_key(&["rotate", gate, key_id, "--grace", grace, "--json"]).0
    }

    fn print_key(&self, args: &[&str]) -> (String, String) {
        let issued = self.run(args).json();
        let [key, key_id] = ["key", "key_id"].map(|name| issued[name].as_str().unwrap().to_owned());
        (self.remember(&key), key_id)
    }

    /// What a check of the key answers, and its exit status.
    pub fn check(&self, gate: &str, key: &str, more: &[&str]) -> (i32, Value) {
        let args = [&["check", gate, "--key", "-", "--json"], more].concat();
        let ran = self.run_with_input(&args, format!("{key}\n").as_bytes());
        (ran.status, serde_json::from_str(&ran.out).unwrap())
    }
}

/// The names of what is in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs any command to its end.
pub fn finish(command: &mut Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().to_owned();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}", missing(&program, &error)));
    // A program that fails early doesn't read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Ran {
        status: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn missing(program: &OsStr, error: &std::io::Error) -> String {
    let program = program.display();
    format!("{program} can't be run ({error}); `cargo xtask test cli` gets what the tests need")
}
