//! A worker: the test program again, as a process of its own that can be killed.
//!
//! The environment tells it that it is one, and what to do. It speaks to its parent in lines that begin with `@`, since
//! the test harness writes to the same pipe.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// Tells this program that it is a worker: its role, and what the role needs, a word each.
const ROLE: &str = "KEYTALLY_TEST_WORKER";

/// In a worker: its role and what goes with it. Nothing in the parent.
pub(crate) fn role() -> Option<Vec<String>> {
    Some(env::var(ROLE).ok()?.split(' ').map(str::to_owned).collect())
}

/// In a worker: tells the parent one thing.
pub(crate) fn tell(answer: impl core::fmt::Display) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n@{answer}\n").and_then(|()| out.flush()).unwrap();
}

/// A folder in memory where there is one, so that the time goes into the work and not into the disk.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A worker, seen by its parent.
pub(crate) struct Worker {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// The command that starts a worker: the test named `worker` of this program.
    pub(crate) fn command(words: &[&str]) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "worker", "--nocapture", "--test-threads=1"]).env(ROLE, words.join(" "));
        command
    }

    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// What it tells next; `None` when it ended.
    pub(crate) fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.stdout.read_line(&mut line).unwrap() > 0 {
            if let Some(answer) = line.strip_prefix('@') {
                return Some(answer.trim_end().to_owned());
            }
            line.clear();
        }
        None
    }

    /// Kills it with -9, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// No worker outlives its parent's interest.
impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
