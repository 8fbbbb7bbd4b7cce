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
//!
//! Systems other than Linux can determine only whether a process has ended. There, a name is taken
//! over when the process of the named thread has ended. On Windows, the lock is that of
//! `LockFileEx` instead of a `flock`.

use core::fmt;
use core::time::Duration;
use std::fs::File;
use std::path::Path;
use std::thread::sleep;

use keytally_core::CacheLine;

use crate::clock::instant;
use crate::error::Error;
use crate::file::TableFile;
use crate::header::{HOLDER, WAITING};
use crate::holder::{LockHolder, ThreadState};
use crate::stop::{FileStop, stop};
use crate::system::{self, NUMBER_BITS, SCOPE_BITS};

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

    /// Returns what is left of the wait after this time.
    pub(crate) const fn after(self, passed: Duration) -> Self {
        Self { at_most: self.at_most.saturating_sub(passed), ..self }
    }

    /// Returns whether no time is left.
    pub(crate) const fn is_over(self) -> bool {
        self.at_most.is_zero()
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
    evidence: Option<File>,
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
            system::unlock(&description);
        }
        Ok(Err(HolderName(holder.load())))
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // A child that was forked meanwhile has a copy of this value, but does not hold the lock.
        if self.me.number() != own_number() {
            return;
        }
        if let Some(description) = self.evidence.take() {
            system::unlock(&description);
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

/// Tries to take the `flock`. Returns whether this description holds it; `false` without a
/// description.
fn try_flock(file: &TableFile, description: Option<&File>) -> Result<bool, Error> {
    let Some(description) = description else { return Ok(false) };
    system::try_lock(description).map_err(|error| Error::io("lock", file.shown_path(), error))
}

/// The word of the header that names the lock's holder, a thread. From the lowest bit: its number,
/// the mark (1 bit), its scope, its start time. All are reduced to their low bits. On Linux these
/// are 22, 1, 17 and 24 bits.
///
/// On Linux, the scope is the PID namespace of the thread. Other systems can examine only
/// processes. There, the number and the start time are those of the process, and the scope is the
/// number of the thread in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HolderName(u64);

const MARK: u64 = 1 << NUMBER_BITS;
const SCOPE_SHIFT: u32 = NUMBER_BITS + 1;
const START_SHIFT: u32 = SCOPE_SHIFT + SCOPE_BITS;

const fn low_bits(value: u64, bits: u32) -> u64 {
    value & ((1 << bits) - 1)
}

impl HolderName {
    const FREE: Self = Self(0);

    /// Returns the name of the calling thread.
    fn calling_thread() -> Self {
        Self(
            own_number()
                | low_bits(system::scope(), SCOPE_BITS) << SCOPE_SHIFT
                | low_bits(system::start(), u64::BITS - START_SHIFT) << START_SHIFT,
        )
    }

    const fn number(self) -> u64 {
        low_bits(self.0, NUMBER_BITS)
    }

    const fn scope(self) -> u64 {
        low_bits(self.0 >> SCOPE_SHIFT, SCOPE_BITS)
    }

    /// Returns whether this is the name of no thread: the lock is free.
    const fn is_free(self) -> bool {
        self.number() == 0
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

    /// Returns whether this process can examine the thread: on Linux, whether it is in the same PID
    /// namespace.
    fn is_visible(self) -> bool {
        system::is_visible(self.scope(), low_bits(system::scope(), SCOPE_BITS))
    }

    /// Returns whether the thread has certainly ended. For a thread in another namespace this
    /// cannot be determined.
    fn has_ended(self) -> bool {
        if self.is_free() {
            return true;
        }
        if !self.is_visible() {
            return false;
        }
        match system::thread_state(self.number()) {
            ThreadState::Ended => true,
            ThreadState::Hidden => false,
            ThreadState::Running { start } => {
                low_bits(start, u64::BITS - START_SHIFT) != self.0 >> START_SHIFT
            }
        }
    }

    /// Returns what this process can see of the thread's process.
    fn holder(self) -> LockHolder {
        if self.is_visible() {
            system::describe(self.number())
        } else {
            LockHolder { pid: None, program: None, stopped: false }
        }
    }
}

/// Returns the low bits of the number of the calling thread, or of its process.
fn own_number() -> u64 {
    low_bits(system::number(), NUMBER_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calling_thread_is_alive_and_named_by_its_process() {
        let me = HolderName::calling_thread();
        assert!(!me.is_free() && !me.is_marked() && me.is_visible() && !me.has_ended());
        assert!(
            me.marked().is_marked() && !me.marked().has_ended() && me.marked().is_same_thread(me)
        );
        assert_eq!(me.holder().pid, Some(std::process::id()));
        let names_programs = cfg!(any(target_os = "linux", windows));
        assert!(!names_programs || me.holder().program.is_some_and(|name| !name.is_empty()));
        assert!(
            std::thread::spawn(HolderName::calling_thread)
                .join()
                .is_ok_and(|other| !other.is_same_thread(me))
        );
    }

    // Other systems can determine only whether a process has ended.
    #[cfg(target_os = "linux")]
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

    #[cfg(target_os = "linux")]
    #[test]
    fn thread_of_another_namespace_never_counts_as_ended() {
        let elsewhere =
            HolderName(HolderName::calling_thread().0 ^ 1 << SCOPE_SHIFT ^ 1 << START_SHIFT);
        assert!(!elsewhere.has_ended());
        assert_eq!(elsewhere.holder().to_string(), "a process of another container");
    }

    #[cfg(not(target_os = "linux"))]
    #[test]
    fn process_that_ended_has_ended() {
        // No option of this program has this name, so it ends at once.
        let program = std::env::current_exe().unwrap();
        let mut command = std::process::Command::new(program);
        command.arg("--no-such-option");
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        child.wait().unwrap();
        let number = u64::from(child.id());
        drop(child);
        assert!(HolderName(number).has_ended());
    }
}
