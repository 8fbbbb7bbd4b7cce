//! A worker: the test program again, as a process of its own that can be killed.
//!
//! The environment tells it that it is one, and what to do. It speaks to its parent in lines that
//! begin with `@`, since the test harness writes to the same pipe.

use core::time::Duration;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

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

/// In a worker: nothing more is done, and the parent kills.
pub(crate) fn wait_for_death() -> ! {
    loop {
        thread::park();
    }
}

/// A folder in memory where there is one, so that the time goes into the work and not into the
/// disk.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A worker, seen by its parent.
pub(crate) struct Worker {
    pub(crate) child: Child,
    answers: Receiver<String>,
}

/// A worker that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(answer) = line.strip_prefix('@') {
                    // Nobody listens any more once the worker is killed.
                    let _ = sender.send(answer.to_owned());
                }
            }
        });
        Self { child, answers }
    }

    /// What it tells next; `None` when it ended. Panics when it hangs.
    pub(crate) fn answer(&mut self) -> Option<String> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the worker hangs"),
        }
    }

    /// Kills it with -9, and waits until it is gone. It must not have ended by itself.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "a worker failed: {status}");
    }
}

/// No worker outlives its parent's interest.
impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
