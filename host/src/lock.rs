//! The lock that admits one administrator at a time, among the threads and processes that share a
//! gate.
//!
//! The lock is a word in the gate's header that names the holder: a thread, by its number, its
//! start time and its PID namespace. It lies in the shared memory and not in a descriptor, so a
//! forked child does not inherit it. In addition, the holder keeps an exclusive `flock` on an open
//! file description of its own, as evidence that it is alive.
//!
//! | word | `flock` | meaning | what another administrator does |
//! |---|---|---|---|
//! | 0 | any | the lock is free | writes its own name |
//! | a name | free | the holder has exited, or is about to take the `flock`, or has just released it | takes the `flock`, then replaces the name by its own |
//! | a name | taken | the holder is alive, or a child that it forked keeps the `flock` | replaces the name only if that thread has ended |
//! | a name, marked | any | another program held the `flock` when the holder tried to take it, or the table is in memory | replaces the name only if that thread has ended |
//!
//! Every change of the word is a compare-exchange. A thread that wrote its name and then cannot
//! take the `flock` marks its name. A thread that replaces an unmarked name holds the `flock` while
//! it does so, unless the named thread has ended. If both happen at once, one compare-exchange
//! fails, and that thread starts again. A `flock` of another program therefore delays no
//! administrator.
//!
//! Whether a thread has ended can be determined only within its PID namespace. A process in another
//! namespace (another container) relies on the `flock`, and cannot take over a marked name: see
//! [`Gate::take_over`](crate::Gate::take_over).

use core::fmt;
use core::time::Duration;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;

use keytally_core::CacheLine;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::clock::instant;
use crate::error::Error;
use crate::file::TableFile;
use crate::header::{HOLDER, WAITING};
use crate::holder::LockHolder;
use crate::stop::{FileStop, stop};

/// The longest time that an administering call waits for the lock by default.
pub(crate) const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// The shortest and the longest pause between two attempts to take the lock. Each pause is twice as
/// long as the one before.
const PAUSES: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(10)];

/// An administrator that has waited for longer than this requests that new administrators yield to
/// it.
const PATIENCE: Duration = Duration::from_millis(5);

/// How long a new administrator yields: twice the longest pause, so that each waiting one tries to
/// take the lock meanwhile.
const YIELD_TIME: Duration = Duration::from_millis(20);

/// How often a thread that wrote its name tries to take the `flock`. Another administrator may hold
/// the `flock` for a moment, to find out whether it is free.
const FLOCK_TRIES: u32 = 10;

/// How long an administering call waits for the lock, and what ends the wait early.
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
    /// Waits for at most `time`. Zero tries once.
    pub const fn at_most(time: Duration) -> Self {
        Self { at_most: time, interrupted: None }
    }

    /// Ends the wait with [`Error::Interrupted`] as soon as `interrupted` returns true. The waiting
    /// thread calls it every 10 ms, and for the first time after at most 20 ms.
    #[must_use]
    pub const fn unless(self, interrupted: &'a dyn Fn() -> bool) -> Self {
        Self { interrupted: Some(interrupted), ..self }
    }
}

impl Default for Wait<'_> {
    /// Waits for at most 10 seconds.
    fn default() -> Self {
        Self::at_most(DEFAULT_WAIT)
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("at_most", &self.at_most).finish_non_exhaustive()
    }
}

/// A word of the header.
#[derive(Clone, Copy, Debug)]
struct HeaderWord<'m> {
    line: &'m CacheLine,
    index: usize,
}

impl<'m> HeaderWord<'m> {
    fn new(lines: &'m [CacheLine], (line, index): (usize, usize)) -> Self {
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
    me: HolderName,
    /// The open file description whose `flock` this lock holds, if it holds one.
    evidence: Option<OwnedFd>,
}

impl<'m> Lock<'m> {
    /// Waits for the lock of `file`. `lines` is its mapped memory.
    pub(crate) fn acquire(
        file: &TableFile,
        lines: &'m [CacheLine],
        wait: Wait<'_>,
    ) -> Result<Self, Error> {
        let [holder, waiting] = [HOLDER, WAITING].map(|position| HeaderWord::new(lines, position));
        let me = HolderName::calling_thread();
        let begun = instant();
        let time_left = || wait.at_most.saturating_sub(instant().duration_since(begun));
        // Without this pause, a thread that administers in a loop would starve the others.
        if waiting.load() != 0 {
            waiting.store(0);
            sleep(YIELD_TIME.min(time_left()));
        }
        let mut pause = PAUSES[0];
        loop {
            let name = match Self::take(file, holder, me)? {
                Ok(lock) => {
                    stop(FileStop::LockTaken);
                    return Ok(lock);
                }
                Err(name) => name,
            };
            if wait.interrupted.is_some_and(|interrupted| interrupted()) {
                return Err(Error::Interrupted { path: file.path().map(Path::to_path_buf) });
            }
            let left = time_left();
            // A thread that already administers does not wait: it would wait for itself.
            let waited = if name.is_same_thread(me) { Duration::ZERO } else { wait.at_most - left };
            if !name.is_free() && (left.is_zero() || name.is_same_thread(me)) {
                let path = file.path().map(Path::to_path_buf);
                return Err(Error::Busy { path, waited, holder: name.holder() });
            }
            if waited > PATIENCE {
                waiting.store(1);
            }
            sleep(pause.min(left));
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Tries to take the lock once. If another thread holds it, the inner error is its name.
    fn take(
        file: &TableFile,
        holder: HeaderWord<'m>,
        me: HolderName,
    ) -> Result<Result<Self, HolderName>, Error> {
        let exchange =
            |old: HolderName, new: HolderName| holder.compare_exchange(old.0, new.0).is_ok();
        let description = file.new_description()?;
        let found = HolderName(holder.load());
        let mut locked = false;
        if !found.is_free() {
            // A holder with an unmarked name keeps the `flock` while it makes changes. So if the
            // `flock` is free, the holder makes no changes now, in whatever namespace it is.
            locked = !found.is_marked() && try_flock(file, description.as_ref())?;
            if !locked && !found.has_ended() {
                return Ok(Err(found));
            }
        }
        let mut taken = exchange(found, me);
        if taken {
            stop(FileStop::HolderNamed);
            for _ in 0..FLOCK_TRIES {
                if locked || description.is_none() {
                    break;
                }
                locked = try_flock(file, description.as_ref()).inspect_err(|_| {
                    exchange(me, HolderName::FREE);
                })?;
                if !locked {
                    sleep(PAUSES[0]);
                }
            }
            // Another administrator may have taken over the name while it had no `flock`.
            taken = if locked { holder.load() == me.0 } else { exchange(me, me.marked()) };
        }
        let evidence = description.filter(|_| locked);
        if taken {
            return Ok(Ok(Self { holder, me: if locked { me } else { me.marked() }, evidence }));
        }
        if let Some(description) = evidence {
            unlock(&description);
        }
        Ok(Err(HolderName(holder.load())))
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // A child that was forked meanwhile has a copy of this value, but does not hold the lock.
        if self.me.thread() != this_thread() {
            return;
        }
        if let Some(description) = self.evidence.take() {
            unlock(&description);
            stop(FileStop::LockReleased);
        }
        // If this fails, another administrator has taken over since the `flock` was released.
        let _ = self.holder.compare_exchange(self.me.0, 0);
    }
}

/// Returns the process that administers the gate in the memory `lines`, if there is one.
pub(crate) fn holder(lines: &[CacheLine]) -> Option<LockHolder> {
    let name = HolderName(HeaderWord::new(lines, HOLDER).load());
    (!name.is_free() && !name.has_ended()).then(|| name.holder())
}

/// Releases the lock of the administrator that the header names.
pub(crate) fn take_over(lines: &[CacheLine]) {
    HeaderWord::new(lines, HOLDER).store(0);
}

/// Releases a `flock`. Closing the descriptor is not enough: a child that was forked meanwhile
/// keeps the description open.
fn unlock(description: &OwnedFd) {
    let _ = flock(description, FlockOperation::Unlock);
}

/// Tries to take the `flock`. Returns whether this description holds it; `false` without a
/// description.
fn try_flock(file: &TableFile, description: Option<&OwnedFd>) -> Result<bool, Error> {
    let Some(description) = description else { return Ok(false) };
    match rustix::io::retry_on_intr(|| flock(description, FlockOperation::NonBlockingLockExclusive))
    {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(Error::io("lock", file.shown_path(), error)),
    }
}

/// The word of the header that names the lock's holder, a thread. From the lowest bit: its number
/// (22 bits), the mark (1), its PID namespace (17), its start time (24). Namespace and start time
/// are reduced to their low bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HolderName(u64);

/// Thread numbers are at most 2^22 (`PID_MAX_LIMIT`).
const THREAD_BITS: u32 = 22;
const MARK: u64 = 1 << THREAD_BITS;
const NAMESPACE_SHIFT: u32 = THREAD_BITS + 1;
const NAMESPACE_BITS: u32 = 17;
const START_SHIFT: u32 = NAMESPACE_SHIFT + NAMESPACE_BITS;

const fn low_bits(value: u64, bits: u32) -> u64 {
    value & ((1 << bits) - 1)
}

impl HolderName {
    const FREE: Self = Self(0);

    /// Returns the name of the calling thread.
    fn calling_thread() -> Self {
        let start = ThreadStat::read("/proc/thread-self/stat").map_or(0, |stat| stat.start);
        Self(
            this_thread()
                | namespace() << NAMESPACE_SHIFT
                | low_bits(start, u64::BITS - START_SHIFT) << START_SHIFT,
        )
    }

    const fn thread(self) -> u64 {
        low_bits(self.0, THREAD_BITS)
    }

    /// Returns whether this is the name of no thread: the lock is free.
    const fn is_free(self) -> bool {
        self.thread() == 0
    }

    const fn is_marked(self) -> bool {
        self.0 & MARK != 0
    }

    const fn marked(self) -> Self {
        Self(self.0 | MARK)
    }

    /// Returns whether both name the same thread, marked or not.
    fn is_same_thread(self, other: Self) -> bool {
        self.marked() == other.marked()
    }

    /// Returns whether the thread is in the PID namespace of this process.
    fn is_in_this_namespace(self) -> bool {
        low_bits(self.0 >> NAMESPACE_SHIFT, NAMESPACE_BITS) == namespace()
    }

    fn pid(self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.thread()).ok()?)
    }

    /// Returns whether the thread has certainly ended. For a thread in another namespace this
    /// cannot be determined.
    fn has_ended(self) -> bool {
        let Some(pid) = self.pid() else { return true };
        if !self.is_in_this_namespace() {
            return false;
        }
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return true;
        }
        // If the system hides another user's processes, the thread counts as alive.
        let Some(stat) = ThreadStat::read(&format!("/proc/{}/stat", self.thread())) else {
            return false;
        };
        stat.has_ended() || low_bits(stat.start, u64::BITS - START_SHIFT) != self.0 >> START_SHIFT
    }

    /// Returns what this process can see of the thread's process.
    fn holder(self) -> LockHolder {
        if !self.is_in_this_namespace() {
            return LockHolder { pid: None, program: None, stopped: false };
        }
        let thread = self.thread();
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        // A process has the number of its first thread, the thread group id.
        let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        let pid = tgid.or(u32::try_from(thread).ok());
        let program = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        let stopped =
            ThreadStat::read(&format!("/proc/{thread}/stat")).is_some_and(|stat| stat.is_stopped());
        LockHolder { pid, program: program.map(|name| name.trim_end().to_owned()), stopped }
    }
}

/// Returns the number of the calling thread.
pub(crate) fn this_thread() -> u64 {
    let number = rustix::thread::gettid().as_raw_nonzero().get();
    low_bits(u64::try_from(number).unwrap_or(0), THREAD_BITS)
}

/// Returns the low bits of the number of this process's PID namespace, or 0 without `/proc`.
fn namespace() -> u64 {
    low_bits(fs::metadata("/proc/self/ns/pid").map_or(0, |file| file.ino()), NAMESPACE_BITS)
}

/// The needed fields of a `/proc/…/stat` (proc_pid_stat(5)).
#[derive(Debug)]
struct ThreadStat {
    state: u8,
    /// The start time, in clock ticks since the system started.
    start: u64,
}

impl ThreadStat {
    fn read(path: &str) -> Option<Self> {
        // The needed fields are in the first 512 bytes, which one call reads.
        let mut text = [0; 512];
        let len = File::open(path).ok()?.read(&mut text).ok()?;
        Self::parse(&String::from_utf8_lossy(&text[..len]))
    }

    /// Parses the line. The second field, the name, may contain any character; the third is the
    /// state, and the 22nd the start time.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        Some(Self { state, start: fields.nth(18)?.parse().ok()? })
    }

    /// Returns whether the thread is a zombie or dead: it no longer runs, and its parent has not
    /// yet waited for it.
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
    fn calling_thread_is_alive_and_named_by_its_process() {
        let me = HolderName::calling_thread();
        assert!(!me.is_free() && !me.is_marked() && me.is_in_this_namespace() && !me.has_ended());
        assert!(
            me.marked().is_marked() && !me.marked().has_ended() && me.marked().is_same_thread(me)
        );
        assert_eq!(me.holder().pid, Some(std::process::id()));
        assert!(me.holder().program.is_some_and(|program| !program.is_empty()));
        assert!(
            std::thread::spawn(HolderName::calling_thread)
                .join()
                .is_ok_and(|other| !other.is_same_thread(me))
        );
    }

    #[test]
    fn thread_that_ended_or_has_another_start_has_ended() {
        let ended = std::thread::spawn(HolderName::calling_thread).join().unwrap();
        // The kernel may need a moment after the thread was joined.
        while !ended.has_ended() {
            std::thread::yield_now();
        }
        let another_start = HolderName(HolderName::calling_thread().0 ^ 1 << START_SHIFT);
        assert!(another_start.has_ended());
    }

    #[test]
    fn thread_of_another_namespace_never_counts_as_ended() {
        let elsewhere =
            HolderName(HolderName::calling_thread().0 ^ 1 << NAMESPACE_SHIFT ^ 1 << START_SHIFT);
        assert!(!elsewhere.has_ended());
        assert_eq!(elsewhere.holder().to_string(), "a process of another container");
    }

    #[test]
    fn stat_of_a_program_with_any_name_is_parsed() {
        let text = "77 (a) Z 1) T 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1234 20 21";
        let stat = ThreadStat::parse(text).unwrap();
        assert!(stat.is_stopped() && !stat.has_ended());
        assert_eq!(stat.start, 1234);
        assert!(ThreadStat::parse("").is_none() && ThreadStat::parse("1 (a) S").is_none());
    }
}
