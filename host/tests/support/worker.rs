//! Workers: this test program again, each in a process of its own that can be killed.
//!
//! An environment variable makes it a worker and names its role. A worker reports to its parent in
//! lines that begin with `@`, because the test harness writes to the same pipe.

use core::time::Duration;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use tempfile::TempDir;

/// The variable that makes this program a worker. It holds the role and its arguments, separated by
/// spaces.
const ROLE: &str = "KEYTALLY_TEST_WORKER";

/// The variable that holds the emulator of this program's processor, and its options.
const EMULATOR: &str = "KEYTALLY_TEST_EMULATOR";

/// Returns the command that starts a copy of this program, by the emulator if one runs this
/// program.
pub(crate) fn copy_of_this_program(path: &Path) -> Command {
    let Ok(words) = env::var(EMULATOR) else { return Command::new(path) };
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(path);
    command
}

/// In a worker: returns its role and the arguments. Returns `None` in the parent.
pub(crate) fn role() -> Option<Vec<String>> {
    Some(env::var(ROLE).ok()?.split(' ').map(str::to_owned).collect())
}

/// In a worker: sends a report to the parent.
pub(crate) fn report(text: impl core::fmt::Display) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n@{text}\n").and_then(|()| out.flush()).unwrap();
}

/// In a worker: waits until the parent kills it.
pub(crate) fn wait_for_kill() -> ! {
    loop {
        thread::park();
    }
}

/// Returns a folder in memory if there is one, so that the disk does not slow the tests down.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A worker, as its parent sees it. Killed when dropped.
pub(crate) struct Worker {
    pub(crate) child: Child,
    reports: Receiver<String>,
}

/// A worker that reports nothing for this long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

impl Worker {
    /// The options with which this program is a worker.
    pub(crate) const OPTIONS: [&str; 4] = ["--exact", "worker", "--nocapture", "--test-threads=1"];

    /// Returns the command that starts a worker: the test named `worker` of this program. `words`
    /// are its role and the arguments.
    pub(crate) fn command(words: &[&str]) -> Command {
        let mut command = copy_of_this_program(&env::current_exe().unwrap());
        command.args(Self::OPTIONS).env(ROLE, words.join(" "));
        command.stdin(Stdio::null());
        command
    }

    /// Starts a worker, and a thread that reads its reports.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, reports) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|len| len > 0) {
                // A line without its end was cut off by a kill, and does not count as a report.
                if let Some(report) =
                    line.strip_prefix('@').and_then(|report| report.strip_suffix('\n'))
                {
                    // This fails if the parent has dropped the worker.
                    let _ = sender.send(report.to_owned());
                }
                line.clear();
            }
        });
        Self { child, reports }
    }

    /// Returns the next report. Returns `None` when the worker has ended, and panics when it hangs.
    pub(crate) fn next_report(&mut self) -> Option<String> {
        match self.reports.recv_timeout(PATIENCE) {
            Ok(report) => Some(report),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the worker hangs"),
        }
    }

    /// Kills the worker with SIGKILL and waits until it has ended. Panics if it had already ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert!(is_of_a_kill(status), "a worker failed: {status}");
    }
}

/// Returns whether a process ended by [`Child::kill`].
fn is_of_a_kill(status: ExitStatus) -> bool {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    // A test that fails ends with another code.
    #[cfg(windows)]
    return status.code() == Some(1);
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
