//! The process that administers a gate, as errors and callers see it.

use core::fmt;

/// The process that administers a gate, as far as this process can see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockHolder {
    /// Its process id. `None` if it runs in another PID namespace, such as another container's.
    pub pid: Option<u32>,
    /// The name of its program. `None` on macOS and FreeBSD.
    pub program: Option<String>,
    /// Whether it is stopped, by SIGSTOP or a debugger. Detected on Linux only.
    pub stopped: bool,
}

/// What a system reports of a thread. Systems other than Linux report on its process instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadState {
    /// It has certainly ended.
    Ended,
    /// It may be running, and cannot be examined.
    Hidden,
    /// A thread with this number is running.
    #[cfg_attr(
        not(any(target_os = "linux", windows)),
        expect(dead_code, reason = "no call of these systems returns the start of a process")
    )]
    Running {
        /// When it started, in a unit of the system.
        start: u64,
    },
}

impl fmt::Display for LockHolder {
    /// Shows `process 4242 (keytally)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else { return f.write_str("a process of another container") };
        write!(f, "process {pid}")?;
        match &self.program {
            Some(program) => write!(f, " ({program})"),
            None => Ok(()),
        }
    }
}
