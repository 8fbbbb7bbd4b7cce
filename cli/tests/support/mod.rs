//! Support for the tests of the program: a temporary folder in which it runs, and a check that no
//! output contains a secret. The tests of the service use this file too.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;

/// The gate file of most tests.
pub const GATE: &str = "api.gate";

/// A temporary folder in which the program runs.
#[derive(Debug)]
pub struct Sandbox {
    folder: TempDir,
    pub pepper: String,
    /// Texts that no output may contain: the pepper, and the keys that were printed once.
    secrets: Mutex<Vec<String>>,
}

/// The result of a run of the program.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    /// Asserts the exit status. Returns standard output.
    #[track_caller]
    pub fn expect_status(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.out
    }

    /// Asserts exit status 0 and one line of JSON, and returns it.
    #[track_caller]
    pub fn json(self) -> Value {
        self.json_with_status(0)
    }

    /// Asserts the exit status and one line of JSON, and returns it.
    #[track_caller]
    pub fn json_with_status(self, status: i32) -> Value {
        let out = self.expect_status(status);
        assert_eq!(out.lines().count(), 1, "{out}");
        serde_json::from_str(&out).unwrap()
    }

    /// Asserts exit status 3 and no output but one line on standard error with all of `parts`.
    #[track_caller]
    pub fn expect_failure(self, parts: &[&str]) {
        assert_eq!((self.status, self.out.as_str()), (3, ""), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        assert!(self.err.starts_with("keytally: "), "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in {:?}", self.err);
        }
    }

    /// Asserts exit status 2 and a usage error with all of `parts`.
    #[track_caller]
    pub fn expect_usage_error(self, parts: &[&str]) {
        assert_eq!((self.status, self.out.as_str()), (2, ""), "{self:?}");
        for part in parts.iter().chain(&["--help"]) {
            assert!(self.err.contains(part), "{part:?} is not in {:?}", self.err);
        }
    }
}

impl Sandbox {
    pub fn new() -> Self {
        let pepper = "5f".repeat(32);
        Self {
            folder: tempfile::tempdir().unwrap(),
            secrets: Mutex::new(vec![pepper.clone()]),
            pepper,
        }
    }

    /// Returns the path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets the permissions of a file in the folder.
    #[cfg(unix)]
    pub fn set_mode(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Returns the sorted names of the files in the folder.
    pub fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }

    /// Returns a command that runs the program in the folder with these arguments and no pepper.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_keytally");
        // An emulator of the program's processor starts it, if this variable names one.
        let mut command = match std::env::var("KEYTALLY_TEST_EMULATOR") {
            Ok(words) => {
                let (emulator, options) = words.split_once(' ').unwrap();
                let mut command = Command::new(emulator);
                command.args(options.split(' ')).arg(program);
                command
            }
            Err(_) => Command::new(program),
        };
        command.current_dir(self.folder.path()).args(args);
        for name in ["KEYTALLY_PEPPER", "KEYTALLY_PEPPER_FILE"] {
            command.env_remove(name);
        }
        command
    }

    /// Returns such a command that SIGINT ends, with the pepper in its environment. A process of a
    /// background job ignores SIGINT by default.
    pub fn interruptible_command(&self, args: &[&str]) -> Command {
        let program = self.command(args);
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(program.get_program()).args(program.get_args());
        command
            .current_dir(self.folder.path())
            .env("KEYTALLY_PEPPER", &self.pepper)
            .env_remove("KEYTALLY_PEPPER_FILE");
        command
    }

    /// Runs the program with the pepper in its environment.
    pub fn run(&self, args: &[&str]) -> Run {
        self.run_with_input(args, b"")
    }

    /// Runs the program with the pepper in its environment and `input` on standard input.
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        self.finish(self.command(args).env("KEYTALLY_PEPPER", &self.pepper), input)
    }

    /// Runs a command to its end with `input` on standard input, and asserts that it prints no
    /// secret.
    pub fn finish(&self, command: &mut Command, input: &[u8]) -> Run {
        let run = finish(command, input);
        for secret in self.secrets.lock().unwrap().iter() {
            for text in [&run.out, &run.err] {
                assert!(!text.contains(secret), "{command:?} printed a secret: {text}");
            }
        }
        run
    }

    /// Adds a key that was printed: from now on, no output may contain its secret. Returns the key.
    pub fn watch_secret(&self, key: &str) -> String {
        // A key of Keytally's form has more than 39 characters. The last 28 are the secret and the
        // checksum. Of a shorter key, the whole text is secret.
        let secret = if key.len() > 39 { &key[key.len() - 28..] } else { key };
        self.secrets.lock().unwrap().push(secret.to_owned());
        key.to_owned()
    }

    /// Issues a key. Returns the key and its id.
    pub fn issue(&self, gate: &str, more: &[&str]) -> (String, String) {
        self.run_for_key(&[&["issue", gate, "--json"], more].concat())
    }

    /// Rotates a key. Returns the key with its new secret.
    pub fn rotate(&self, gate: &str, key_id: &str, grace: &str) -> String {
        self.run_for_key(&["rotate", gate, key_id, "--grace", grace, "--json"]).0
    }

    /// Runs a command that prints a key as JSON. Returns the key and its id.
    fn run_for_key(&self, args: &[&str]) -> (String, String) {
        let issued = self.run(args).json();
        let [key, key_id] = ["key", "key_id"].map(|name| issued[name].as_str().unwrap().to_owned());
        (self.watch_secret(&key), key_id)
    }

    /// Checks a key. Returns the exit status and the JSON output.
    pub fn check(&self, gate: &str, key: &str, more: &[&str]) -> (i32, Value) {
        let args = [&["check", gate, "--key", "-", "--json"], more].concat();
        let run = self.run_with_input(&args, format!("{key}\n").as_bytes());
        (run.status, serde_json::from_str(&run.out).unwrap())
    }
}

/// Returns a folder with a gate of two plans. Their window of 31 days does not end during a test.
pub fn sandbox_with_gate() -> Sandbox {
    let sandbox = Sandbox::new();
    let plans = ["--plan", "default=100/31d", "--plan", "pro=1000/31d"];
    sandbox.run(&[&["create", GATE, "--keys", "1000"], &plans[..]].concat()).expect_status(0);
    sandbox
}

/// Returns the JSON output of `list`.
pub fn list(sandbox: &Sandbox) -> Value {
    sandbox.run(&["list", GATE, "--json"]).json()
}

/// Returns the entry of a key in the output of `list`.
pub fn listed(sandbox: &Sandbox, key_id: &str) -> Value {
    let list = list(sandbox);
    let mut keys = list["keys"].as_array().unwrap().iter();
    keys.find(|key| key["key_id"] == key_id).unwrap().clone()
}

/// Returns the exit status, the outcome and the reason of a check.
pub fn outcome(check: &(i32, Value)) -> (i32, &str, Option<&str>) {
    (check.0, check.1["outcome"].as_str().unwrap(), check.1["reason"].as_str())
}

/// Returns the sorted names of the files in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs a command to its end with `input` on standard input.
pub fn finish(command: &mut Command, input: &[u8]) -> Run {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().to_owned();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}", missing(&program, &error)));
    // A program that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Run {
        status: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// Returns an error for a program that cannot be started.
fn missing(program: &OsStr, error: &std::io::Error) -> String {
    let program = program.display();
    format!("cannot run {program} ({error}); `cargo xtask test cli` installs what the tests need")
}
