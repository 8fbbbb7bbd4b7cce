//! One administrator at a time, among the threads and processes that share a gate.
//!
//! The lock is a word in the gate's header that names the holder: a thread, by its number, its start time and its PID
//! namespace. It lies in the shared memory and not in a descriptor, so a forked child does not inherit it.
//! Beside it, the holder keeps an exclusive `flock` on a description of its own, as evidence that it is alive.
//!
//! | word | `flock` | meaning | another administrator |
//! |---|---|---|---|
//! | 0 | any | free | writes its own name |
//! | a name | free | the holder has died, or is about to take or has just released the `flock` | takes the `flock`, then exchanges the name |
//! | a name | taken | the holder is alive, or a child that it forked keeps the `flock` | exchanges the name only if that thread is gone |
//! | a name, marked | any | the holder found the `flock` taken by another program, or is in a table in memory | the same |
//!
//! A thread that wrote its name and then cannot take the `flock` marks its name by a compare-exchange. Whoever takes
//! over an unmarked name holds the `flock` meanwhile. So of the two only one exchange succeeds, and the other thread
//! begins again. Any other program's `flock` delays no administrator.
//!
//! Whether a thread is gone can be told within one PID namespace. A process in another one (another container) relies on
//! the `flock`, and cannot take over a marked name: see [`Gate::take_over`](crate::Gate::take_over).

use core::fmt;
use core::time::Duration;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use keytally_core::Line;
use keytally_core::stop::{Stop, stop};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::clock::instant;
use crate::error::Error;
use crate::file::TableFile;

/// How long an administering call waits for its turn unless it is told otherwise.
pub(crate) const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// The pauses between two looks at the lock: they double from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(10)];

/// An administrator that has waited for so long asks newcomers to let it go first.
const PATIENCE: Duration = Duration::from_millis(5);

/// How long a newcomer lets others go first: twice the longest pause, so that each of them looks at the lock meanwhile.
const GIVE_WAY: Duration = Duration::from_millis(20);

/// How often the holder tries to take the `flock`, which another administrator takes for a moment to look whether
/// it is free.
const FLOCK_TRIES: u32 = 10;

/// Words of the header that the core leaves: the last of the line of peppers, and the last of the line of intents.
const HOLDER: (usize, usize) = (1, 7);
const WAITING: (usize, usize) = (3, 7);

/// How long an administering call waits for its turn, and what ends the waiting early.
///
/// ```
/// use std::time::Duration;
/// use keytally::{GateConfig, Gate, Wait, pepper};
/// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
/// let stopping = || false; // for example, whether the user has pressed Ctrl-C
/// let wait = Wait::at_most(Duration::from_secs(2)).unless(&stopping);
/// gate.administer_within(wait, |_| Ok(()))?;
/// # Ok::<(), keytally::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    at_most: Duration,
    interrupted: Option<&'a dyn Fn() -> bool>,
}

impl<'a> Wait<'a> {
    /// Waits for so long at most; zero tries once.
    pub const fn at_most(time: Duration) -> Self {
        Self { at_most: time, interrupted: None }
    }

    /// Ends the waiting, with [`Error::Interrupted`], as soon as `interrupted` returns true. It is called every 10 ms
    /// or more often, by the thread that waits.
    #[must_use]
    pub const fn unless(self, interrupted: &'a dyn Fn() -> bool) -> Self {
        Self { interrupted: Some(interrupted), ..self }
    }
}

impl Default for Wait<'_> {
    /// Waits for 10 seconds at most.
    fn default() -> Self {
        Self::at_most(DEFAULT_WAIT)
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("at_most", &self.at_most).finish_non_exhaustive()
    }
}

/// The process that administers a gate, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockHolder {
    /// Its process id; `None` for a process of another PID namespace, such as another container's.
    pub pid: Option<u32>,
    /// The name of its program.
    pub program: Option<String>,
    /// Whether it is stopped, by SIGSTOP or a debugger.
    pub stopped: bool,
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

/// A word of the header.
#[derive(Clone, Copy, Debug)]
struct HeaderWord<'m> {
    line: &'m Line,
    index: usize,
}

impl<'m> HeaderWord<'m> {
    fn new(lines: &'m [Line], (line, index): (usize, usize)) -> Self {
        Self { line: &lines[line], index }
    }

    fn load(self) -> u64 {
        self.line.load(self.index)
    }

    fn store(self, value: u64) {
        self.line.store(self.index, value);
    }

    fn compare_exchange(self, current: u64, new: u64) -> Result<(), u64> {
        self.line.compare_exchange(self.index, current, new)
    }
}

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct Lock<'m> {
    holder: HeaderWord<'m>,
    me: Name,
    /// A description of this lock's own, if its `flock` is held.
    evidence: Option<OwnedFd>,
}

impl<'m> Lock<'m> {
    /// Waits for the lock of the file whose lines these are.
    pub(crate) fn of(file: &TableFile, lines: &'m [Line], wait: Wait<'_>) -> Result<Self, Error> {
        let [holder, waiting] = [HOLDER, WAITING].map(|at| HeaderWord::new(lines, at));
        let me = Name::mine();
        let begun = instant();
        let left = |begun: Instant| wait.at_most.saturating_sub(instant().duration_since(begun));
        // Without this, a thread that administers again and again would hardly ever let another one in.
        if waiting.load() != 0 {
            waiting.store(0);
            sleep(GIVE_WAY.min(left(begun)));
        }
        let mut pause = PAUSES[0];
        loop {
            let name = match Self::take(file, holder, me)? {
                Ok(lock) => {
                    stop(Stop::LockTaken);
                    return Ok(lock);
                }
                Err(name) => name,
            };
            if wait.interrupted.is_some_and(|interrupted| interrupted()) {
                return Err(Error::Interrupted { path: file.named().map(Path::to_path_buf) });
            }
            let left = left(begun);
            // A thread that administers already would wait for itself.
            let waited = if name.is_thread_of(me) { Duration::ZERO } else { wait.at_most - left };
            if !name.is_free() && (left.is_zero() || name.is_thread_of(me)) {
                let path = file.named().map(Path::to_path_buf);
                return Err(Error::Busy { path, waited, holder: name.holder() });
            }
            if waited > PATIENCE {
                waiting.store(1);
            }
            sleep(pause.min(left));
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Tries once; returns the name of the holder if there is another.
    fn take(file: &TableFile, holder: HeaderWord<'m>, me: Name) -> Result<Result<Self, Name>, Error> {
        let exchange = |old: Name, new: Name| holder.compare_exchange(old.0, new.0).is_ok();
        let description = file.new_description()?;
        let found = Name(holder.load());
        let mut locked = false;
        if !found.is_free() {
            // Evidence of its death, wherever it lived: an administrator that is at work holds the `flock`.
            locked = !found.is_marked() && try_flock(file, description.as_ref())?;
            if !locked && !found.is_gone() {
                return Ok(Err(found));
            }
        }
        let mut taken = exchange(found, me);
        if taken {
            stop(Stop::HolderNamed);
            for _ in 0..FLOCK_TRIES {
                if locked || description.is_none() {
                    break;
                }
                locked = try_flock(file, description.as_ref()).inspect_err(|_| {
                    exchange(me, Name::NOBODY);
                })?;
                if !locked {
                    sleep(PAUSES[0]);
                }
            }
            // Another administrator may have taken over a name without a `flock`.
            taken = if locked { holder.load() == me.0 } else { exchange(me, me.marked()) };
        }
        let evidence = description.filter(|_| locked);
        if taken {
            return Ok(Ok(Self { holder, me: if locked { me } else { me.marked() }, evidence }));
        }
        if let Some(description) = evidence {
            unlock(&description);
        }
        Ok(Err(Name(holder.load())))
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // A child that was forked meanwhile has a copy of this, and does not hold the lock.
        if self.me.thread() != this_thread() {
            return;
        }
        if let Some(description) = self.evidence.take() {
            unlock(&description);
            stop(Stop::LockReleased);
        }
        // If it fails, another administrator has taken over since the `flock` was released.
        let _ = self.holder.compare_exchange(self.me.0, 0);
    }
}

/// Who administers the gate whose lines these are.
pub(crate) fn holder(lines: &[Line]) -> Option<LockHolder> {
    let name = Name(lines[HOLDER.0].load(HOLDER.1));
    (!name.is_free() && !name.is_gone()).then(|| name.holder())
}

/// Ends whichever administration the header names.
pub(crate) fn take_over(lines: &[Line]) {
    lines[HOLDER.0].store(HOLDER.1, 0);
}

/// Releases a `flock`. Closing is not enough: a child that was forked meanwhile keeps the description open.
fn unlock(description: &OwnedFd) {
    let _ = flock(description, FlockOperation::Unlock);
}

/// Takes the `flock` unless another description has it; `false` without a description.
fn try_flock(file: &TableFile, description: Option<&OwnedFd>) -> Result<bool, Error> {
    let Some(description) = description else { return Ok(false) };
    match rustix::io::retry_on_intr(|| flock(description, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(Error::io("lock", file.path(), error)),
    }
}

/// The name of a thread: its number (22 bits) · mark (1) · PID namespace (17) · start time (24), the low bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name(u64);

/// The largest number of a thread is 2^22 (`PID_MAX_LIMIT`).
const THREAD_BITS: u32 = 22;
const MARK: u64 = 1 << THREAD_BITS;
const NAMESPACE_AT: u32 = THREAD_BITS + 1;
const NAMESPACE_BITS: u32 = 17;
const START_AT: u32 = NAMESPACE_AT + NAMESPACE_BITS;

const fn low_bits(value: u64, bits: u32) -> u64 {
    value & ((1 << bits) - 1)
}

impl Name {
    const NOBODY: Self = Self(0);

    /// The calling thread's.
    fn mine() -> Self {
        let start = ThreadStat::read("/proc/thread-self/stat").map_or(0, |stat| stat.start);
        Self(this_thread() | namespace() << NAMESPACE_AT | low_bits(start, u64::BITS - START_AT) << START_AT)
    }

    const fn thread(self) -> u64 {
        low_bits(self.0, THREAD_BITS)
    }

    /// Whether it names no thread.
    const fn is_free(self) -> bool {
        self.thread() == 0
    }

    const fn is_marked(self) -> bool {
        self.0 & MARK != 0
    }

    const fn marked(self) -> Self {
        Self(self.0 | MARK)
    }

    fn is_thread_of(self, other: Self) -> bool {
        self.marked() == other.marked()
    }

    fn is_here(self) -> bool {
        low_bits(self.0 >> NAMESPACE_AT, NAMESPACE_BITS) == namespace()
    }

    fn pid(self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.thread()).ok()?)
    }

    /// Whether the thread has certainly ended. For a thread in another namespace, this is unknown.
    fn is_gone(self) -> bool {
        let Some(pid) = self.pid() else { return true };
        if !self.is_here() {
            return false;
        }
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return true;
        }
        // Where another user's processes are hidden, it counts as alive.
        let Some(stat) = ThreadStat::read(&format!("/proc/{}/stat", self.thread())) else { return false };
        stat.has_ended() || low_bits(stat.start, u64::BITS - START_AT) != self.0 >> START_AT
    }

    fn holder(self) -> LockHolder {
        if !self.is_here() {
            return LockHolder { pid: None, program: None, stopped: false };
        }
        let thread = self.thread();
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        let pid = group.or(u32::try_from(thread).ok());
        let program = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        let stopped = ThreadStat::read(&format!("/proc/{thread}/stat")).is_some_and(|stat| stat.is_stopped());
        LockHolder { pid, program: program.map(|name| name.trim_end().to_owned()), stopped }
    }
}

/// The number of the calling thread.
pub(crate) fn this_thread() -> u64 {
    let number = rustix::thread::gettid().as_raw_nonzero().get();
    low_bits(u64::try_from(number).unwrap_or(0), THREAD_BITS)
}

/// The low bits of the number of this process's PID namespace; 0 where there is no `/proc`.
fn namespace() -> u64 {
    low_bits(fs::metadata("/proc/self/ns/pid").map_or(0, |file| file.ino()), NAMESPACE_BITS)
}

/// What is read of a `/proc/…/stat`.
#[derive(Debug)]
struct ThreadStat {
    state: u8,
    /// In clock ticks since the system started.
    start: u64,
}

impl ThreadStat {
    fn read(path: &str) -> Option<Self> {
        // All that is wanted stands in the first 512 bytes, which come in one piece.
        let mut text = [0; 512];
        let len = File::open(path).ok()?.read(&mut text).ok()?;
        Self::parse(&String::from_utf8_lossy(&text[..len]))
    }

    /// The second field, the name, may hold anything; the third is the state, and the 22nd the start time.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        Some(Self { state, start: fields.nth(18)?.parse().ok()? })
    }

    /// Whether it is a zombie or dead: it runs no more, and its parent has not waited for it yet.
    fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn my_own_thread_is_alive_and_named_by_its_process() {
        let me = Name::mine();
        assert!(!me.is_free() && !me.is_marked() && me.is_here() && !me.is_gone());
        assert!(me.marked().is_marked() && !me.marked().is_gone() && me.marked().is_thread_of(me));
        assert_eq!(me.holder().pid, Some(std::process::id()));
        assert!(me.holder().program.is_some_and(|program| !program.is_empty()));
        assert!(std::thread::spawn(Name::mine).join().is_ok_and(|other| !other.is_thread_of(me)));
    }

    #[test]
    fn a_thread_that_ended_or_began_later_is_gone() {
        let ended = std::thread::spawn(Name::mine).join().unwrap();
        // The system may need a moment after the thread was joined.
        while !ended.is_gone() {
            std::thread::yield_now();
        }
        let another_start = Name(Name::mine().0 ^ 1 << START_AT);
        assert!(another_start.is_gone());
    }

    #[test]
    fn a_thread_of_another_namespace_is_never_called_gone() {
        let elsewhere = Name(Name::mine().0 ^ 1 << NAMESPACE_AT ^ 1 << START_AT);
        assert!(!elsewhere.is_gone());
        assert_eq!(elsewhere.holder().to_string(), "a process of another container");
    }

    #[test]
    fn a_stat_is_read_whatever_the_program_is_called() {
        let text = "77 (a) Z 1) T 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1234 20 21";
        let stat = ThreadStat::parse(text).unwrap();
        assert!(stat.is_stopped() && !stat.has_ended());
        assert_eq!(stat.start, 1234);
        assert!(ThreadStat::parse("").is_none() && ThreadStat::parse("1 (a) S").is_none());
    }
}
