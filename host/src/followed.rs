//! A gate that follows its path: when its file is replaced, it opens and uses the new file.

use alloc::sync::Arc;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::time::Duration;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_core::{
    Charge, Compound, KeyId, MAX_PARTS, Outcome, Peppers, Settled, TallyVerdict, Verdict,
};
use once_cell::race::OnceBox;

use crate::clock::instant;
use crate::error::{Error, FleetError};
use crate::fleet_credits::Joined;
use crate::gate::Gate;
use crate::lock::Wait;

/// The interval between two examinations of the path.
const INTERVAL_MS: u64 = 1000;

/// The longest time that a call waits for the file to which a key's counts move.
const MOVE_WAIT: Duration = Duration::from_millis(50);

/// The pause between two attempts during this wait.
const MOVE_PAUSE: Duration = Duration::from_micros(500);

/// A gate that follows its path, as `tail -F` does: when another file is renamed over it, the gate
/// opens and uses that file.
///
/// Until the new file is open, the old file stays in force. [`load`](Self::load) returns the gate
/// in force. It takes no lock, makes no system call, and allocates only in the first call of each
/// thread. A replacement is detected by
/// - a thread, once a second, after a call of [`watch`](Self::watch);
/// - a caller of [`reopen_if_due`](Self::reopen_if_due), at most once a second;
/// - [`reopen_if_replaced`](Self::reopen_if_replaced) and [`reopen`](Self::reopen), immediately.
///
/// Overwriting the file in place is not detected: rename a new file over it.
///
/// ```
/// use keytally::{GateConfig, Followed, Gate, Name, NewKey, pepper};
/// # let folder = tempfile::tempdir()?;
/// # let (path, new_path) = (folder.path().join("api.gate"), folder.path().join("new.gate"));
/// let secret = pepper::generate()?;
/// Gate::create(&path, pepper::parse(&secret)?, &GateConfig::default())?;
/// let gate = Followed::open(&path, pepper::parse(&secret)?)?;
/// gate.watch(|event| eprintln!("{event}"))?;
///
/// // Another process creates a new gate, and renames it over the old one.
/// let new_gate = Gate::create(&new_path, pepper::parse(&secret)?, &GateConfig::default())?;
/// let new = NewKey::new(42, Name::new("live").unwrap());
/// let (key, _) = new_gate.issue(&new)?;
/// std::fs::rename(new_path, path)?;
///
/// gate.reopen_if_replaced()?; // the thread would do so within a second
/// assert!(gate.load().check(Some(key.expose().as_bytes()), 1).is_admitted());
/// assert_eq!(gate.status().reopened, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Migrations
/// During [`Gate::migrate`], counts move to the file that replaces this one. Call a gate's methods
/// by [`call`](Self::call), which opens the new file and calls again. A check that does not is
/// [`Outcome::Unavailable`] for a key whose counts have moved.
///
/// # Concurrency
/// Threads share a `&Followed`. A gate that was loaded stays mapped until its [`Current`] is
/// dropped. A forked child does not have the thread of its parent: call [`watch`](Self::watch)
/// again in the child.
pub struct Followed<T = Gate> {
    shared: Arc<Shared<T>>,
    watcher: Mutex<Option<Watcher>>,
}

/// The state that a [`Followed`] shares with its watching thread.
struct Shared<T> {
    path: PathBuf,
    peppers: Peppers,
    /// Converts a gate that was opened into what `load` returns.
    wrap: Box<dyn Fn(Gate) -> Result<T, Error> + Send + Sync>,
    current: ArcSwap<T>,
    status: ArcSwap<FollowStatus>,
    /// The fleet file that every gate at the path joins.
    fleet: OnceBox<PathBuf>,
    /// When this state was created.
    created: Instant,
    /// When [`Followed::reopen_if_due`] last examined the path, in milliseconds since `created`.
    examined_ms: AtomicU64,
    /// The watching thread, as [`this_thread`] returns it. 0 before it runs.
    thread: AtomicU64,
    /// 1 if the watching thread must end, else 0.
    is_ending: AtomicU64,
}

/// The watching thread, and the process that it runs in.
struct Watcher {
    process: u32,
    /// In a forked child this thread does not exist, so the handle must not be joined or detached.
    thread: ManuallyDrop<JoinHandle<()>>,
}

/// The gate that [`Followed::load`] returned. It stays usable if its file is replaced.
pub struct Current<T = Gate>(Guard<Arc<T>>);

impl<T> Current<T> {
    /// Returns the gate as an `Arc`, for a caller that keeps it for longer than one request.
    pub fn to_arc(&self) -> Arc<T> {
        Arc::clone(&self.0)
    }
}

impl<T: AsRef<Gate>> Current<T> {
    fn is_migrating(&self) -> bool {
        (**self).as_ref().table().is_migrating()
    }
}

impl<T> Deref for Current<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Current<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

/// A charge that could not be given back, because its counts had moved: see [`Compound::charge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// The index of the part of the request.
    pub part: usize,
    /// The key's id.
    pub key_id: KeyId,
    /// The charge.
    pub charge: Charge,
}

/// A result of a gate's method, for [`Followed::call`] and [`Followed::call_all`].
pub trait Decided {
    /// Returns the outcome. It is that of an invalid key if the gate does not have the key.
    fn outcome(&self) -> Outcome;

    /// Returns the charges that could not be given back.
    fn left(&self) -> Vec<Left> {
        Vec::new()
    }
}

impl Decided for Outcome {
    fn outcome(&self) -> Outcome {
        *self
    }
}

impl Decided for Verdict {
    fn outcome(&self) -> Outcome {
        Self::outcome(self)
    }
}

impl Decided for Compound {
    fn outcome(&self) -> Outcome {
        Self::outcome(self)
    }

    fn left(&self) -> Vec<Left> {
        if self.is_admitted() {
            return Vec::new();
        }
        let parts = self.tallies().iter().map(TallyVerdict::part).max().map_or(0, |last| last + 1);
        let of_part = |part: usize| {
            let mut tallies = self.tallies().iter().filter(|tally| tally.part() == part);
            let holder = tallies.find_map(|tally| tally.verdict().holder())?;
            Some(Left { part, key_id: holder.key_id, charge: self.charge(part)? })
        };
        (0..parts).filter_map(of_part).collect()
    }
}

impl Decided for Option<Verdict> {
    fn outcome(&self) -> Outcome {
        self.as_ref().map_or(Outcome::InvalidKey, Verdict::outcome)
    }
}

impl Decided for Option<Settled> {
    fn outcome(&self) -> Outcome {
        self.as_ref().map_or(Outcome::InvalidKey, |settled| settled.verdict.outcome())
    }
}

/// The result of [`Gate::reset_account`].
impl Decided for Option<Outcome> {
    fn outcome(&self) -> Outcome {
        self.unwrap_or(Outcome::InvalidKey)
    }
}

/// An error counts as an invalid key: a group that a gate does not have may be in the file to which
/// it was migrated.
impl<R: Decided, E> Decided for Result<R, E> {
    fn outcome(&self) -> Outcome {
        self.as_ref().map_or(Outcome::InvalidKey, R::outcome)
    }

    fn left(&self) -> Vec<Left> {
        self.as_ref().map(R::left).unwrap_or_default()
    }
}

/// The state of a [`Followed`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FollowStatus {
    /// How often the file at the path was opened again.
    pub reopened: u64,
    /// The error because of which the file at the path is not in force. `None` if it is in force.
    pub problem: Option<String>,
}

/// An event that [`Followed::watch`] reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum FollowEvent<'e> {
    /// The file at the path was opened again, and is in force.
    Reopened(&'e Path),
    /// The file was removed, or replaced by one that cannot be opened. The old one stays in force,
    /// and the new one is tried again every second. An error that repeats is reported once.
    Failed(&'e Error),
}

impl fmt::Display for FollowEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reopened(path) => {
                write!(f, "{}: the file at the path was opened and is in force", path.display())
            }
            Self::Failed(error) => {
                write!(f, "{error}; the gate that was open before stays in force")
            }
        }
    }
}

impl Followed {
    /// Opens the gate at `path`.
    ///
    /// # Errors
    /// Those of [`Gate::open`].
    pub fn open(path: impl AsRef<Path>, peppers: Peppers) -> Result<Self, Error> {
        let gate = Gate::open(&path, peppers.clone())?;
        Self::from_gate(gate, peppers, Ok)
    }
}

impl<T: AsRef<Gate> + Send + Sync + 'static> Followed<T> {
    /// Follows the path of a gate that was opened or created with these peppers. `wrap` converts
    /// each gate into what [`load`](Self::load) returns.
    ///
    /// # Errors
    /// The error of `wrap`. [`Error::Io`] if the gate is in memory.
    pub fn from_gate(
        gate: Gate,
        peppers: Peppers,
        wrap: impl Fn(Gate) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let named = gate
            .path()
            .ok_or_else(|| Error::io("follow", Path::new("memory"), ErrorKind::NotFound))?;
        let path = std::path::absolute(named).map_err(|error| Error::io("follow", named, error))?;
        let shared = Shared {
            path,
            peppers,
            current: ArcSwap::from_pointee(wrap(gate)?),
            wrap: Box::new(wrap),
            status: ArcSwap::default(),
            fleet: OnceBox::new(),
            created: instant(),
            examined_ms: AtomicU64::new(0),
            thread: AtomicU64::new(0),
            is_ending: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), watcher: Mutex::new(None) })
    }

    /// Returns the gate in force. Keep it for one request: a verdict names plans by their number in
    /// this gate.
    #[inline]
    pub fn load(&self) -> Current<T> {
        Current(self.shared.current.load())
    }

    /// Returns the gate in force, as [`load`](Self::load) does. If it was migrated, opens the file
    /// at the path first.
    #[inline]
    pub fn load_newest(&self) -> Current<T> {
        let gate = self.load();
        if !gate.is_migrating() {
            return gate;
        }
        // If the file cannot be opened, the gate stays in force.
        let _ = self.reopen_if_replaced();
        self.load()
    }

    /// Joins the fleet of this machine by the fleet file at `path`: see [`Gate::join`]. The gates
    /// that replace this one join it too, and a fleet file that replaces this one is opened. This
    /// gate may have joined before it was followed.
    ///
    /// A gate that replaces this one is in force once the fleet file is its own, which the agent
    /// ensures. A gate that was migrated is in force at once. Until it has joined, its requests are
    /// [unavailable](keytally_core::Unavailability::NotReserving).
    ///
    /// # Errors
    /// Those of [`Gate::join`].
    pub fn join(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        if self.shared.fleet.get().is_some() {
            return Err(Error::Fleet { path: path.into(), source: FleetError::Joined });
        }
        let absolute = std::path::absolute(path).map_err(|error| Error::io("open", path, error))?;
        match (*self.load()).as_ref().join(path) {
            Err(Error::Fleet { source: FleetError::Joined, .. }) => {}
            joined => joined?,
        }
        let _ = self.shared.fleet.set(Box::new(absolute));
        // Another gate may have replaced the one that has joined.
        self.shared.join((*self.load()).as_ref())
    }

    /// Calls `work` with the gate in force. If the key's counts are moving to another file, waits
    /// at most 50 ms until that file is at the path, opens it, and calls `work` with it.
    ///
    /// If the wait was too short, returns the last result, which is [`Outcome::Unavailable`]. If no
    /// migration is in progress, `work` is called once.
    ///
    /// Units that a refused request charged just before their tally was sealed are returned in the
    /// other file, in the windows that both files count in. They stay charged if the wait was too
    /// short, if the file was migrated twice during the call, and if `work` returns a [`Verdict`]
    /// on a gate with several sections, which does not name them.
    ///
    /// ```
    /// # use keytally::{Followed, Gate, GateConfig, MigrationConfig, Name, NewKey, pepper};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("api.gate");
    /// # let secret = pepper::generate()?;
    /// # let peppers = || pepper::parse(&secret);
    /// # let gate = Gate::create(&path, peppers()?, &GateConfig::default())?;
    /// # let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").unwrap()))?;
    /// let followed = Followed::open(&path, peppers()?)?;
    /// let check = || followed.call(|gate| gate.check(Some(key.expose().as_bytes()), 1));
    /// assert_eq!(check().remaining(), Some(999));
    /// gate.migrate(folder.path().join("new.gate"), &MigrationConfig::default())?;
    /// assert_eq!(check().remaining(), Some(998));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn call<R: Decided>(&self, mut work: impl FnMut(&Current<T>) -> R) -> R {
        let gate = self.load();
        let result = work(&gate);
        if result.outcome() == Outcome::Admitted || !gate.is_migrating() {
            return result;
        }
        call_again(&[self], |_| 0, &mut [gate], result, &mut |gates| work(&gates[0]))
    }

    /// Calls `work` with the gates in force, for a request that charges several gates. Waits as
    /// [`call`](Self::call) does if the counts of a key are moving to another file.
    ///
    /// `gates` has the gate of each part, of which there are at most [`MAX_PARTS`]. It is `None`
    /// for a part of a limiter, and of a gate that does not follow its path. `work` is given the
    /// gates in force, without these.
    ///
    /// ```
    /// # use keytally::{Followed, Gate, GateConfig, MigrationConfig, Name, NewKey, pepper};
    /// # let folder = tempfile::tempdir()?;
    /// # let secret = pepper::generate()?;
    /// # let peppers = || pepper::parse(&secret);
    /// # let mut keys = Vec::new();
    /// # for name in ["users.gate", "partners.gate"] {
    /// #     let path = folder.path().join(name);
    /// #     let gate = Gate::create(path, peppers()?, &GateConfig::default())?;
    /// #     keys.push(gate.issue(&NewKey::new(42, Name::new("live").unwrap()))?.0);
    /// # }
    /// use keytally::check_all;
    /// let users = Followed::open(folder.path().join("users.gate"), peppers()?)?;
    /// let partners = Followed::open(folder.path().join("partners.gate"), peppers()?)?;
    /// # let [user, partner] = &keys[..] else { unreachable!() };
    /// let checked = Followed::call_all(&[Some(&users), Some(&partners)], |gates| {
    ///     let user = gates[0].part(Some(user.expose().as_bytes()), 1);
    ///     let partner = gates[1].part(Some(partner.expose().as_bytes()), 5);
    ///     check_all(&[&user, &partner])
    /// })?;
    /// assert!(checked.is_admitted());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call_all<R: Decided>(
        gates: &[Option<&Self>],
        mut work: impl FnMut(&[Current<T>]) -> R,
    ) -> R {
        let followed = || gates.iter().flatten().take(MAX_PARTS);
        let mut current: heapless::Vec<_, MAX_PARTS> = followed().map(|gate| gate.load()).collect();
        let result = work(&current);
        if result.outcome() == Outcome::Admitted || !current.iter().any(Current::is_migrating) {
            return result;
        }
        let index = |part| gates.iter().take(part).flatten().count();
        let followed: Vec<&Self> = followed().copied().collect();
        call_again(&followed, index, &mut current, result, &mut work)
    }

    /// Opens the file at the path if it is another one. Returns whether another gate than this one
    /// is in force.
    fn open_moved(&self, gate: &Current<T>) -> bool {
        // Another thread may have opened it. There is no lock, which a forked child could find
        // held.
        let is_other = || !Arc::ptr_eq(&gate.0, &self.shared.current.load());
        is_other() || (self.shared.examine(false, &mut |_| ()).is_ok() && is_other())
    }

    /// Starts the thread that examines the path once a second, and calls `report` with the events
    /// that it detects. Does nothing if this process already has the thread.
    ///
    /// An event that another method detects first, such as [`reopen`](Self::reopen), is not
    /// reported.
    ///
    /// # Errors
    /// [`Error::Io`] if the system cannot start a thread.
    pub fn watch(
        &self,
        mut report: impl FnMut(FollowEvent<'_>) + Send + 'static,
    ) -> Result<(), Error> {
        let process = std::process::id();
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if watcher.as_ref().is_some_and(|watcher| watcher.process == process) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let work = move || {
            shared.thread.store(this_thread(), Ordering::Release);
            while shared.is_ending.load(Ordering::Acquire) == 0 {
                // A spurious wake-up only makes the next examination earlier.
                thread::park_timeout(Duration::from_millis(INTERVAL_MS));
                let _ = shared.examine(false, &mut report);
            }
        };
        let thread = thread::Builder::new()
            .name("keytally-watch".to_owned())
            .spawn(work)
            .map_err(|error| Error::io("start a thread to follow", &self.shared.path, error))?;
        *watcher = Some(Watcher { process, thread: ManuallyDrop::new(thread) });
        Ok(())
    }

    /// Examines the path now. If the file was replaced, opens the new one. Returns whether it was
    /// replaced.
    ///
    /// # Errors
    /// Those of [`Gate::open`], and [`Error::Io`] if the file was removed. Also the error of the
    /// `wrap` that [`from_gate`](Self::from_gate) was given. The old file stays in force.
    pub fn reopen_if_replaced(&self) -> Result<bool, Error> {
        self.shared.examine(false, &mut |_| ())
    }

    /// Examines the path if no call of this method has done so for a second, for programs that
    /// cannot have a watching thread. If the file was replaced, opens the new one.
    /// [`status`](Self::status) reports what was found. A call that examines the path makes a
    /// system call; the other calls only read the clock.
    #[inline]
    pub fn reopen_if_due(&self) {
        let examined_ms = self.shared.examined_ms.load(Ordering::Relaxed);
        let now_ms = self.shared.now_ms();
        if now_ms.saturating_sub(examined_ms) >= INTERVAL_MS {
            self.shared.examine_once(examined_ms, now_ms);
        }
    }

    /// Opens the file at the path again, whether or not it was replaced.
    ///
    /// # Errors
    /// Those of [`reopen_if_replaced`](Self::reopen_if_replaced). The old file stays in force.
    pub fn reopen(&self) -> Result<(), Error> {
        self.shared.examine(true, &mut |_| ()).map(drop)
    }

    /// Returns the gate whose file is at the path now, for a change to its keys or plans.
    ///
    /// A change to a file that was replaced would be lost, so this examines the path and opens a
    /// new file first. If no file is at the path, returns the gate in force, which refuses changes.
    /// If the gate is being migrated, waits until that has ended, or completes it.
    ///
    /// # Errors
    /// Those of [`reopen_if_replaced`](Self::reopen_if_replaced), unless no file is at the path.
    /// Those of [`Gate::complete_migration`].
    pub fn load_for_change(&self) -> Result<Current<T>, Error> {
        let wait = (*self.load()).as_ref().wait();
        self.load_for_change_within(wait)
    }

    /// Calls `work` with the gate whose file is at the path, for a change to its keys or plans. If
    /// a migration replaced that file before `work` changed anything, calls it again with the gate
    /// of the new file.
    ///
    /// `work` is given what is left of the wait. It is called again at least once, and then until
    /// the wait is over. It must return the error of the gate's method unchanged.
    ///
    /// ```
    /// # use keytally::{Followed, Gate, GateConfig, MigrationConfig, Name, NewKey, Wait, pepper};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("api.gate");
    /// # let secret = pepper::generate()?;
    /// # let peppers = || pepper::parse(&secret);
    /// # let gate = Gate::create(&path, peppers()?, &GateConfig::default())?;
    /// # let (key, key_id) = gate.issue(&NewKey::new(42, Name::new("live").unwrap()))?;
    /// let followed = Followed::open(&path, peppers()?)?;
    /// gate.migrate(folder.path().join("new.gate"), &MigrationConfig::default())?;
    /// followed.change_within(Wait::default(), |gate, wait| {
    ///     gate.administer_within(wait, |administrator| administrator.revoke(key_id))
    /// })?;
    /// assert!(!followed.load().check(Some(key.expose().as_bytes()), 1).is_admitted());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`load_for_change`](Self::load_for_change), and of `work`.
    pub fn change_within<R>(
        &self,
        wait: Wait<'_>,
        mut work: impl FnMut(&Current<T>, Wait<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let begun = instant();
        let left = || wait.after(instant().duration_since(begun));
        let mut is_first = true;
        loop {
            let gate = self.load_for_change_within(left())?;
            match work(&gate, left()) {
                // A gate returns this error before it changes anything.
                Err(Error::Replaced { .. })
                    if (is_first || !left().is_over()) && self.open_moved(&gate) =>
                {
                    is_first = false;
                }
                result => return result,
            }
        }
    }

    fn load_for_change_within(&self, wait: Wait<'_>) -> Result<Current<T>, Error> {
        let gate = self.load();
        if gate.is_migrating() {
            (*gate).as_ref().complete_migration_within(wait)?;
        }
        match self.reopen_if_replaced() {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            reopened => {
                reopened?;
            }
        }
        Ok(self.load())
    }

    /// Returns how often the file was opened again, and the present error if there is one.
    pub fn status(&self) -> FollowStatus {
        FollowStatus::clone(&self.shared.status.load())
    }
}

impl<T: AsRef<Gate>> Shared<T> {
    /// Returns the time in milliseconds since `created`.
    fn now_ms(&self) -> u64 {
        u64::try_from(instant().duration_since(self.created).as_millis()).unwrap_or(u64::MAX)
    }

    /// Examines the path, unless another thread has begun to since `examined_ms` was loaded.
    #[cold]
    fn examine_once(&self, examined_ms: u64, now_ms: u64) {
        let exchanged = self.examined_ms.compare_exchange(
            examined_ms,
            now_ms,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if exchanged.is_ok() {
            let _ = self.examine(false, &mut |_| ());
        }
    }

    /// Examines the path, and reports what was found. Returns whether the file was opened again.
    fn examine(&self, force: bool, report: &mut dyn FnMut(FollowEvent<'_>)) -> Result<bool, Error> {
        let opened = self.open_if_replaced(force);
        let before = self.status.load();
        match &opened {
            Ok(true) => report(FollowEvent::Reopened(&self.path)),
            Ok(false) if before.problem.is_none() => {}
            // The old file is back at the path.
            Ok(false) => self.change_status(|status| status.problem = None),
            Err(error) => {
                let problem = error.to_string();
                if before.problem.as_ref() != Some(&problem) {
                    self.change_status(|status| status.problem = Some(problem.clone()));
                    report(FollowEvent::Failed(error));
                }
            }
        }
        opened
    }

    /// Opens the file at the path if it was replaced, or in any case if `force` is set.
    fn open_if_replaced(&self, force: bool) -> Result<bool, Error> {
        let current = self.current.load_full();
        let old = (*current).as_ref();
        let is_at_path =
            old.is_at_path().map_err(|error| Error::io("examine", &self.path, error))?;
        if is_at_path && !force && self.is_fleet_in_force(old)? {
            return Ok(false);
        }
        let gate = Gate::open(&self.path, self.peppers.clone())?;
        gate.copy_waits_from(old);
        let joined = self.join(&gate);
        // The old gate decides until then, unless its counts have moved.
        if !old.table().is_migrating() {
            joined?;
        }
        self.current.store(Arc::new((self.wrap)(gate)?));
        self.change_status(|status| {
            *status = FollowStatus { reopened: status.reopened + 1, problem: None }
        });
        Ok(true)
    }

    /// Joins the fleet with a gate that must, and has not.
    fn join(&self, gate: &Gate) -> Result<(), Error> {
        let Some(path) = self.fleet.get() else { return Ok(()) };
        if gate.joined().is_some() || !gate.is_in_fleet() {
            return Ok(());
        }
        match gate.join(path) {
            // Another thread was first.
            Err(Error::Fleet { source: FleetError::Joined, .. }) => Ok(()),
            joined => joined,
        }
    }

    /// Returns whether a gate has joined by the fleet file that is at the path now. Joins if it has
    /// not joined at all.
    fn is_fleet_in_force(&self, gate: &Gate) -> Result<bool, Error> {
        self.join(gate)?;
        let is_at_path = |joined: &Joined| {
            let is_at_path = joined.machine().map().file().is_at_path();
            is_at_path.unwrap_or(false)
        };
        Ok(!gate.is_in_fleet() || gate.joined().is_none_or(is_at_path))
    }

    fn change_status(&self, change: impl Fn(&mut FollowStatus)) {
        self.status.rcu(|status| {
            let mut status = FollowStatus::clone(status);
            change(&mut status);
            status
        });
    }
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        let watcher = self.watcher.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(watcher) = watcher.filter(|watcher| watcher.process == std::process::id()) else {
            return;
        };
        self.shared.is_ending.store(1, Ordering::Release);
        watcher.thread.thread().unpark();
        // If `report` holds the last reference, this runs on the thread itself, which must not join
        // itself.
        if self.shared.thread.load(Ordering::Acquire) != this_thread() {
            let _ = ManuallyDrop::into_inner(watcher.thread).join();
        }
    }
}

/// Calls `work` with the gates to which counts move. `index` returns that of the gate of a part.
#[cold]
fn call_again<T: AsRef<Gate> + Send + Sync + 'static, R: Decided>(
    gates: &[&Followed<T>],
    index: impl Fn(usize) -> usize,
    current: &mut [Current<T>],
    mut result: R,
    work: &mut dyn FnMut(&[Current<T>]) -> R,
) -> R {
    let begun = instant();
    let mut left = Vec::new();
    loop {
        let its = result.left().into_iter();
        left.extend(its.filter_map(|it| Some((current.get(index(it.part))?.to_arc(), it))));
        let mut is_moved = false;
        for (gate, current) in gates.iter().zip(&mut *current) {
            if gate.open_moved(current) {
                *current = gate.load();
                is_moved = true;
            }
        }
        // What was charged is refunded before the next attempt, which may need the room.
        give_back(&mut left, &index, current);
        if !is_moved {
            // While an old file is at its path, its keys are in force.
            let is_final = result.outcome() != Outcome::Unavailable && left.is_empty();
            if is_final || instant().duration_since(begun) >= MOVE_WAIT {
                return result;
            }
            thread::sleep(MOVE_PAUSE);
        }
        // An administrator may also have undone the migration.
        result = work(current);
        if result.outcome() == Outcome::Admitted || !current.iter().any(Current::is_migrating) {
            give_back(&mut left, &index, current);
            return result;
        }
    }
}

/// Returns charges, each of which has the gate that was charged, and keeps those whose counts have
/// not arrived yet. `index` returns the index of the gate of a part.
fn give_back<T: AsRef<Gate>>(
    left: &mut Vec<(Arc<T>, Left)>,
    index: impl Fn(usize) -> usize,
    gates: &[Current<T>],
) {
    left.retain(|(old, Left { part, key_id, charge })| {
        let Some(gate) = gates.get(index(*part)) else { return false };
        let (gate, old) = ((**gate).as_ref(), (**old).as_ref());
        let clock = gate.precise_clock();
        let returned = gate.table().refund_left(old.table(), *key_id, *charge, clock);
        returned.is_some_and(|verdict| verdict.outcome() == Outcome::Unavailable)
    });
}

/// Returns a number that no other running thread has: the address of its copy of a variable.
///
/// `thread::current` would allocate memory in threads that Rust did not start, and valgrind would
/// report it in every program in C.
fn this_thread() -> u64 {
    thread_local!(static OWN: u8 = const { 0 });
    OWN.with(|own| u64::try_from(core::ptr::from_ref(own).addr()).unwrap_or(0))
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use keytally_core::{CacheLine, Name, NewKey, Plan};

    use super::*;
    use crate::clock::SystemClock;
    use crate::gate::GateConfig;

    /// A result with this outcome and these charges that could not be given back.
    struct Made(Outcome, Vec<Left>);

    impl Decided for Made {
        fn outcome(&self) -> Outcome {
            self.0
        }

        fn left(&self) -> Vec<Left> {
            self.1.clone()
        }
    }

    #[test]
    fn charge_that_is_left_is_refunded_once_its_counts_arrived() {
        let folder = tempfile::tempdir().unwrap();
        let peppers = || Peppers::new(&[[7; 32]]).unwrap();
        let plans = vec![Plan::new("default", "100/31d".parse().unwrap()).unwrap()];
        let config = GateConfig::default().with_keys(4).with_plans(plans);
        let create = |name: &str| {
            let gate = Gate::create(folder.path().join(name), peppers(), &config).unwrap();
            Followed::from_gate(gate, peppers(), Ok).unwrap()
        };
        let [other, followed] = ["other.gate", "api.gate"].map(create);
        let gate = followed.load();
        let (key, key_id) = gate.issue(&NewKey::new(1, Name::new("live").unwrap())).unwrap();
        let check = || followed.load().check(Some(key.expose().as_bytes()), 9);
        let charge = check().charge().unwrap();

        // A migration that has sealed the tallies, and whose successor is not at the path.
        let clock = SystemClock::read();
        let table = gate.table();
        let plan = [table.plan(0).unwrap()];
        let core = keytally_core::GateConfig::new(4, table.prefix(), &plan).with_hints(true);
        let memory: Vec<CacheLine> = (0..core.lines()).map(|_| CacheLine::new()).collect();
        let new = keytally_core::Gate::init_successor(memory, &core.with_id(9), table).unwrap();
        let administrator = table.take_over();
        let migration = administrator.migration(&new);
        migration.copy(|problem| panic!("{problem}"));
        migration.announce(b"new.gate");
        migration.seal(clock);
        drop(administrator);
        assert_eq!(check().outcome(), Outcome::Unavailable);

        let mut calls = 0;
        let made = Followed::call_all(&[Some(&other), None, Some(&followed)], |gates| {
            assert_eq!(gates.len(), 2);
            calls += 1;
            match calls {
                1 => Made(Outcome::Unavailable, vec![Left { part: 2, key_id, charge }]),
                2 => Made(Outcome::Unavailable, Vec::new()),
                _ => {
                    gates[1].table().take_over().undo_migration(clock);
                    Made(Outcome::Denied, Vec::new())
                }
            }
        });
        assert_eq!((made.outcome(), calls), (Outcome::Denied, 3));
        assert_eq!(check().remaining(), Some(91), "the 9 units were given back");
    }
}
