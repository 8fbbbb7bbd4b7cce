//! A gate in a file: the core's table with the system's clock, entropy and lock.

use core::time::Duration;
use std::path::{Path, PathBuf};

use keytally_core::sync::{AtomicU64, Ordering};
use keytally_core::{
    AccountInfo, AdminError, Administrator, AttachError, Charge, Clock, Counted, Extras, Flaw,
    GatePart, Key, KeyId, KeyInfo, MAX_KEYS, MAX_PLANS, Name, NewKey, NotReserving, Outcome,
    Peppers, Plan, Quota, Settled, Settlement, Timestamp, Verdict, Window,
};
use once_cell::race::OnceBox;

use crate::clock::{GateClock, SystemClock, now};
use crate::entropy::{entropy, random};
use crate::error::Error;
use crate::file::{TableFile, open_table};
use crate::fleet_credits::{DEFAULT_CREDIT_WAIT, Joined, Patience, micros};
use crate::holder::LockHolder;
use crate::lock::{self, DEFAULT_WAIT, Lock, Wait};
use crate::map::Mapping;
use crate::publish::{create_in_memory, create_table};
use crate::usage_files::UsageFiles;

/// The settings of a new gate.
///
/// ```
/// use keytally::{GateConfig, Plan};
/// let plans = vec![
///     Plan::new("default", "100/minute, 1000/hour".parse()?).unwrap(),
///     Plan::new("pro", "1000/minute, 20000/hour".parse()?).unwrap(),
/// ];
/// let config = GateConfig::default().with_keys(5000).with_plans(plans);
/// assert_eq!(config.prefix.as_str(), "kt");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GateConfig {
    /// The capacity in keys, 1 to 67,108,864. Each key takes 72 bytes of the file: 64 for its
    /// record, 4 for its hint (its last four characters, which lists show), and 4 for a checksum.
    /// If the plans need more than one tally for a key, or if the gate has teams or scopes, it
    /// takes 8 to 64 bytes more.
    pub keys: u32,
    /// The prefix of every key.
    pub prefix: Name,
    /// The plans, 1 to 116. The first is the plan of keys that name none. All plans must have the
    /// same sections, windows and algorithms.
    pub plans: Vec<Plan>,
    /// The capacity in teams, 0 to 67,108,864. Each takes 64 bytes. `None` stands for that of keys
    /// if the plans have a section `team`, and else for 0.
    pub teams: Option<u32>,
    /// The names of the scopes that keys may have, at most 64, of 1 to 16 characters each.
    pub scopes: Vec<String>,
    /// The window of keys that the fields `X-RateLimit-*` describe. `None` stands for the longest
    /// of at most a day, or the shortest if all are longer.
    pub described: Option<Window>,
}

// The documentation of `keys` states this number.
const _: () = assert!(MAX_KEYS == 67_108_864);

impl Default for GateConfig {
    /// Returns a capacity of 100,000 keys, the prefix `kt`, and one plan: `default`, 100/minute,
    /// 1000/hour.
    fn default() -> Self {
        let plan = || Plan::new("default", "100/minute, 1000/hour".parse().ok()?);
        Self {
            keys: 100_000,
            prefix: Name::new("kt").expect("kt is a name"),
            plans: vec![plan().expect("the default plan is valid")],
            teams: None,
            scopes: Vec::new(),
            described: None,
        }
    }
}

impl GateConfig {
    /// Sets [`keys`](Self::keys), the capacity.
    #[must_use]
    pub fn with_keys(self, keys: u32) -> Self {
        Self { keys, ..self }
    }

    /// Sets [`prefix`](Self::prefix), the prefix of every key.
    #[must_use]
    pub fn with_prefix(self, prefix: Name) -> Self {
        Self { prefix, ..self }
    }

    /// Replaces all [`plans`](Self::plans).
    #[must_use]
    pub fn with_plans(self, plans: Vec<Plan>) -> Self {
        Self { plans, ..self }
    }

    /// Sets [`teams`](Self::teams), the capacity in teams.
    #[must_use]
    pub fn with_teams(self, teams: u32) -> Self {
        Self { teams: Some(teams), ..self }
    }

    /// Replaces all [`scopes`](Self::scopes).
    #[must_use]
    pub fn with_scopes(self, scopes: Vec<String>) -> Self {
        Self { scopes, ..self }
    }

    /// Sets [`described`](Self::described), the window that the fields `X-RateLimit-*` describe.
    #[must_use]
    pub fn with_described(self, window: Window) -> Self {
        Self { described: Some(window), ..self }
    }

    /// Calls `with` with the settings of the gate with this random number as the core takes them.
    pub(crate) fn to_core<T>(
        &self,
        id: u64,
        with: impl FnOnce(&keytally_core::GateConfig<'_>) -> T,
    ) -> T {
        let has_teams = self.plans.iter().any(|plan| plan.sections.named("team").is_some());
        let teams = self.teams.unwrap_or(if has_teams { self.keys } else { 0 });
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let mut config = keytally_core::GateConfig::new(self.keys, self.prefix, &self.plans)
            .with_plan_slots(MAX_PLANS)
            .with_hints(true)
            .with_teams(teams)
            .with_scopes(&scopes)
            .with_id(id);
        config.described = self.described;
        with(&config)
    }

    /// Returns the size of the gate in cache lines. Refuses impossible settings before any disk
    /// space is reserved.
    pub(crate) fn line_count(&self, path: Option<&Path>) -> Result<usize, Error> {
        self.to_core(0, |config| config.validate())
            .map_err(|source| Error::Create { path: path.map(PathBuf::from), source })
    }
}

/// A gate: a table of issued keys with their tallies, in a file that any number of processes share.
///
/// Threads share a `&Gate`. Checks never wait. Changes to keys and plans wait for another
/// administrator, for a bounded time. The [crate's page](crate) states what holds between
/// processes. If the file is replaced, a `Gate` stays with the file that it opened. A
/// [`Followed`](crate::Followed) gate opens the new one.
///
/// ```
/// use std::time::Duration;
/// use keytally::{GateConfig, Gate, Name, Outcome, NewKey, pepper};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("api.gate");
/// let secret = pepper::generate()?;
/// Gate::create(&path, pepper::parse(&secret)?, &GateConfig::default())?;
///
/// // In another process, or after a restart:
/// let gate = Gate::open(&path, pepper::parse(&secret)?)?;
/// let new = NewKey::new(42, Name::new("live").unwrap());
/// let (old, key_id) = gate.issue(&new)?;
/// let key = gate.rotate(key_id, Duration::from_secs(24 * 3600), false)?;
/// // Both secrets are valid for a day, and share one quota.
/// assert_eq!(gate.check(Some(old.expose().as_bytes()), 1).remaining(), Some(999));
/// assert_eq!(gate.check(Some(key.expose().as_bytes()), 1).remaining(), Some(998));
///
/// gate.revoke(key_id)?;
/// assert_eq!(gate.check(Some(key.expose().as_bytes()), 1).outcome(), Outcome::InvalidKey);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Gate {
    table: keytally_core::Gate<Mapping>,
    file: TableFile,
    /// The longest time that administering calls wait for the lock, in milliseconds.
    wait_ms: AtomicU64,
    /// The longest time that a request waits for credits of a fleet, in microseconds.
    credit_wait_us: AtomicU64,
    usage: UsageFiles,
    /// The fleet that this process has joined.
    joined: OnceBox<Joined>,
}

/// The number of changes that [`Gate::administer_each`] makes under one lock. Between two locks,
/// other administrators can run.
pub const CHANGES_PER_LOCK: usize = 1000;

impl Gate {
    /// Creates a gate in a new file at `path`, mode 0600, and reserves its disk space.
    ///
    /// The file appears atomically: a process that is killed during the call leaves either no file
    /// at `path` or a complete one.
    ///
    /// # Errors
    /// Nothing was changed, except where the last entry says otherwise.
    /// - [`Error::Exists`] if `path` exists, whatever it is.
    /// - [`Error::Create`] if the settings are not possible.
    /// - [`Error::Entropy`] if the system provides none.
    /// - [`Error::Io`] if the folder cannot be written or the disk is full. Also if the folder
    ///   cannot be flushed: then the file was created.
    pub fn create(
        path: impl AsRef<Path>,
        peppers: Peppers,
        config: &GateConfig,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let lines = config.line_count(Some(path))?;
        let id = u64::from_le_bytes(*random()?);
        let again = peppers.clone();
        let (file, table) = create_table(
            path,
            lines,
            |memory| {
                config.to_core(id, |config| keytally_core::Gate::init(memory, config, peppers))
            },
            |memory| keytally_core::Gate::attach(memory, again),
        )?;
        Ok(Self::new(table, file))
    }

    /// Opens the gate at `path`. A symbolic link is followed.
    ///
    /// # Errors
    /// - [`Error::Attach`] if the file is not a gate, has another version or size, is damaged, or
    ///   has other peppers.
    /// - [`Error::NotAFile`], [`Error::Mode`], [`Error::Owner`] or [`Error::TooShort`] if a table
    ///   may not be in a file of this type, mode, owner or length. On Windows, [`Error::Account`]
    ///   if another user owns it or all users have access.
    /// - [`Error::Io`] if it cannot be opened.
    pub fn open(path: impl AsRef<Path>, peppers: Peppers) -> Result<Self, Error> {
        let attach =
            |memory| -> Result<_, AttachError> { keytally_core::Gate::attach(memory, peppers) };
        let (file, table) = open_table(path.as_ref(), attach)?;
        Ok(Self::new(table, file))
    }

    /// Creates a gate in memory instead of a file, for tests, and for one process with the children
    /// that it forks. It exists until the last of them ends.
    ///
    /// ```
    /// use keytally::{GateConfig, Gate, pepper};
    /// let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
    /// assert!(gate.path().is_none());
    /// # Ok::<(), keytally::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Create`] if the settings are not possible. [`Error::Entropy`] if the system
    /// provides none. [`Error::Io`] if there is not enough memory.
    pub fn in_memory(peppers: Peppers, config: &GateConfig) -> Result<Self, Error> {
        let lines = config.line_count(None)?;
        let id = u64::from_le_bytes(*random()?);
        let (file, table) = create_in_memory(lines, |memory| {
            config.to_core(id, |config| keytally_core::Gate::init(memory, config, peppers))
        })?;
        Ok(Self::new(table, file))
    }

    pub(crate) fn new(table: keytally_core::Gate<Mapping>, file: TableFile) -> Self {
        let gate = Self {
            table,
            file,
            wait_ms: AtomicU64::new(0),
            credit_wait_us: AtomicU64::new(micros(DEFAULT_CREDIT_WAIT)),
            usage: UsageFiles::default(),
            joined: OnceBox::new(),
        };
        gate.set_wait(DEFAULT_WAIT);
        // Maps the counts of uses, so that the first check does not have to.
        let _ = gate.usage();
        gate
    }

    /// Sets the longest time that this gate's administering methods wait for the lock. The default
    /// is 10 seconds. Zero tries once.
    pub fn set_wait(&self, at_most: Duration) {
        let wait_ms = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX);
        self.wait_ms.store(wait_ms, Ordering::Relaxed);
    }

    /// Returns the longest time that this gate's administering methods wait for the lock.
    pub fn wait(&self) -> Wait<'static> {
        Wait::at_most(Duration::from_millis(self.wait_ms.load(Ordering::Relaxed)))
    }

    /// Sets both waits to those of another gate.
    pub(crate) fn copy_waits_from(&self, other: &Self) {
        self.wait_ms.store(other.wait_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        self.credit_wait_us.store(other.credit_wait_us.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Returns the longest time that a request waits for credits of a fleet, in microseconds.
    pub(crate) fn credit_wait_us(&self) -> &AtomicU64 {
        &self.credit_wait_us
    }

    /// Returns whether the gate's path still leads to the file that is open. Always true for a gate
    /// in memory.
    ///
    /// # Errors
    /// The system's error, such as [`NotFound`](std::io::ErrorKind::NotFound) if the file was
    /// removed.
    pub fn is_at_path(&self) -> std::io::Result<bool> {
        self.file.is_at_path()
    }

    /// Returns the path that the gate was opened or created with, as it was given. `None` in
    /// memory.
    pub fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    /// Reads the clock for a request, as [`check`](Self::check) does. In a fleet, it is as far
    /// ahead of the system clock as the store's clock is, so that windows begin at the same moment
    /// on all machines. Pass it to [`table::check_all`](crate::table::check_all), or to the check
    /// of a [`part`](Self::part), of a gate in a fleet.
    pub fn clock(&self) -> GateClock {
        GateClock::ahead(self.system_clock(), self.clock_offset_ms())
    }

    /// Reads the precise clock, as far ahead in a fleet as [`clock`](Self::clock) is. The methods
    /// that are not checks read it, such as [`refund`](Self::refund) and [`list`](Self::list).
    pub fn precise_clock(&self) -> GateClock {
        GateClock::ahead(SystemClock::read(), self.clock_offset_ms())
    }

    /// Returns how many milliseconds the clock of the gate's fleet is ahead of the system clock: 0
    /// outside of a fleet.
    #[inline]
    pub fn clock_offset_ms(&self) -> i64 {
        match self.joined() {
            Some(joined) if self.table.needs().reservation() => joined.machine().map().offset_ms(),
            _ => 0,
        }
    }

    /// Reads the system clock for a request.
    #[inline]
    fn system_clock(&self) -> SystemClock {
        if self.table.is_extended() {
            return SystemClock::read();
        }
        SystemClock::read_for(self.table.layout())
    }

    /// Returns the files of counts that are mapped.
    pub(crate) fn usage_files(&self) -> &UsageFiles {
        &self.usage
    }

    /// Returns the file.
    pub(crate) fn file(&self) -> &TableFile {
        &self.file
    }

    /// Returns the fleet that this process has joined.
    pub(crate) fn joined(&self) -> Option<&Joined> {
        self.joined.get()
    }

    /// Joins a fleet. Fails if this process has joined one.
    pub(crate) fn set_joined(&self, joined: Joined) -> Result<(), ()> {
        self.joined.set(Box::new(joined)).map_err(drop)
    }

    /// Returns the core's table as one that counts uses, if they are counted, and that spends
    /// credits, if it is in a fleet. Its methods take the time as an argument, and wait for
    /// credits.
    #[inline]
    pub fn counted(&self) -> Counted<'_, Mapping> {
        self.counted_with(Patience::Wait)
    }

    /// Returns the core's table as [`counted`](Self::counted) does, for a request that does this if
    /// it lacks credits. The time that its methods take is that of [`clock`](Self::clock).
    #[inline]
    pub fn counted_with(&self, patience: Patience) -> Counted<'_, Mapping> {
        if self.table.needs().is_none() {
            return self.table.with_extras(None);
        }
        self.with_extras(patience)
    }

    /// Returns the core's table with what its requests need in addition to their charges.
    fn with_extras(&self, patience: Patience) -> Counted<'_, Mapping> {
        self.table.with_extras(Some(self.extras(patience)))
    }

    /// Returns what requests need in addition to their charges, for a request that does this if it
    /// lacks credits of a fleet: for a caller with a table of its own in the gate's memory.
    pub fn extras(&self, patience: Patience) -> Extras<'_> {
        let mut extras = Extras { usage: self.usage(), reservation: None };
        if self.table.needs().reservation() {
            extras.reservation = Some(match self.joined() {
                Some(joined) => joined.spender(patience),
                None => &NotReserving,
            });
        }
        extras
    }

    /// Returns the core's table, whose methods take the time as an argument and count no uses.
    pub fn table(&self) -> &keytally_core::Gate<Mapping> {
        &self.table
    }

    /// Checks the key and then charges `cost`: to every window of its plan if all have room, else
    /// to none.
    ///
    /// `api_key` is the value of the `X-API-Key` header, `None` if the request has none. The clock
    /// is that of [`SystemClock::read_for`].
    #[inline]
    pub fn check(&self, api_key: Option<&[u8]>, cost: u32) -> Verdict {
        if self.table.needs().is_none() {
            return self.table.check(api_key, cost, self.system_clock());
        }
        self.check_with_extras(api_key, cost)
    }

    /// The check of a gate that counts uses, or that is in a fleet.
    #[inline(never)]
    fn check_with_extras(&self, api_key: Option<&[u8]>, cost: u32) -> Verdict {
        let counted = self.counted_with(Patience::Wait);
        match self.joined() {
            None => counted.check(api_key, cost, self.system_clock()),
            Some(_) => counted.check(api_key, cost, self.clock()),
        }
    }

    /// Returns the key and a cost as a part of [`check_all`](crate::check_all).
    pub fn part<'g>(&'g self, api_key: Option<&'g [u8]>, cost: u32) -> GatePart<'g, Mapping> {
        self.counted().part(api_key, cost)
    }

    /// Returns the verdict that [`check`](Self::check) would return now, without charging. In a
    /// fleet, it requests no credits: a request for which the store may have units is admitted.
    pub fn peek(&self, api_key: Option<&[u8]>, cost: u32) -> Verdict {
        if self.table.needs().reservation() {
            return self.counted().peek(api_key, cost, self.clock());
        }
        self.table.peek(api_key, cost, self.system_clock())
    }

    /// Gives back what a check charged, in the windows that still count it. Refund a charge at most
    /// once.
    ///
    /// Returns `None` if the gate has no such key.
    ///
    /// ```
    /// # use keytally::{GateConfig, Gate, Name, NewKey, pepper};
    /// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
    /// # let new = NewKey::new(1, Name::new("live").unwrap());
    /// # let (key, _) = gate.issue(&new)?;
    /// let verdict = gate.check(Some(key.expose().as_bytes()), 10);
    /// if let (Some(holder), Some(charge)) = (verdict.holder(), verdict.charge()) {
    ///     let after = gate.refund(holder.key_id, charge).expect("the gate has the key");
    ///     assert_eq!(after.remaining(), Some(1000));
    /// }
    /// # Ok::<(), keytally::Error>(())
    /// ```
    pub fn refund(&self, key_id: KeyId, charge: Charge) -> Option<Verdict> {
        self.counted().refund(key_id, charge, self.precise_clock())
    }

    /// Replaces an estimated cost by the actual one: refunds the difference, or charges it as far
    /// as there is room. The rest is the verdict's [`uncharged`](Verdict::uncharged). Settle a
    /// charge at most once.
    ///
    /// Returns `None` if the gate has no such key.
    pub fn settle(&self, key_id: KeyId, estimate: Charge, actual: u32) -> Option<Verdict> {
        self.counted().settle(key_id, estimate, actual, self.precise_clock())
    }

    /// Replaces the estimated costs of a request and its groups by the actual ones. Settle a charge
    /// at most once.
    ///
    /// Returns `None` if the gate has no such key.
    pub fn settle_all(
        &self,
        key_id: KeyId,
        estimate: Charge,
        settlement: &Settlement<'_>,
    ) -> Option<Settled> {
        self.counted().settle_all(key_id, estimate, settlement, self.precise_clock())
    }

    /// Sets all counts of the key to 0. Returns `None` if the gate has no such key.
    pub fn reset(&self, key_id: KeyId) -> Option<Verdict> {
        self.table.reset(key_id, self.precise_clock())
    }

    /// Corrects every tally that is more than 60 s ahead of the system clock, and keeps its counts.
    /// Returns the number of corrected tallies.
    ///
    /// A tally gets ahead if a caller passed a wrong time, or if the clock was wrong. Its windows
    /// then end only when the clock reaches their ends. A check by the system clock corrects the
    /// tally that it charges; this method corrects all of them. It reads the clock after it has
    /// loaded a tally.
    pub fn correct_clock(&self) -> u64 {
        self.table.correct_clock(self.precise_clock())
    }

    /// Issues a key. The returned key is the only copy of the secret.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::issue`]; those of
    /// [`administer`](Self::administer); [`Error::Entropy`].
    pub fn issue(&self, new: &NewKey<'_>) -> Result<(Key, KeyId), Error> {
        let entropy = entropy()?;
        self.administer(|administrator| administrator.issue(new, entropy, SystemClock::read()))
    }

    /// Imports a key that was issued elsewhere, of any form, so that its holder can keep it.
    ///
    /// For many keys use [`administer_each`](Self::administer_each), which locks and flushes once
    /// for a thousand.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::import`]; those of
    /// [`administer`](Self::administer).
    pub fn import(&self, text: &[u8], new: &NewKey<'_>) -> Result<KeyId, Error> {
        self.administer(|administrator| administrator.import(text, new, SystemClock::read()))
    }

    /// Gives a key a new secret, and returns the new key. The old secret stays valid for `grace`,
    /// rounded up to seconds, but not longer than the key. Both secrets share one quota.
    ///
    /// A key has two secrets at most. If the secret before the last rotation is still valid,
    /// another rotation would end it immediately. It is refused unless `force` is set.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use keytally::{GateConfig, Error, Gate, Name, AdminError, NewKey, pepper};
    /// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
    /// # let new = NewKey::new(1, Name::new("live").unwrap());
    /// # let (_, key_id) = gate.issue(&new)?;
    /// let hour = Duration::from_secs(3600);
    /// gate.rotate(key_id, hour, false)?;
    /// let refused = gate.rotate(key_id, hour, false);
    /// assert!(matches!(refused, Err(Error::Admin { source: AdminError::InGrace { .. }, .. })));
    /// gate.rotate(key_id, hour, true)?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::rotate`]; those of
    /// [`administer`](Self::administer); [`Error::Entropy`].
    pub fn rotate(&self, key_id: KeyId, grace: Duration, force: bool) -> Result<Key, Error> {
        let entropy = entropy()?;
        self.administer(|administrator| {
            let clock = SystemClock::read();
            administrator.rotate(key_id, grace_until(clock.reading(), grace), force, entropy, clock)
        })
    }

    /// Gives a key a new secret, as [`rotate`](Self::rotate) does, after `hand_over` has delivered
    /// the new key. If `hand_over` fails, nothing is changed. A rotation cannot be undone, so it
    /// must not end the old secret before the new key has been received.
    ///
    /// Other administrators wait while `hand_over` runs; checks do not.
    ///
    /// # Errors
    /// Those of [`rotate`](Self::rotate). The inner result is the error of `hand_over`.
    pub fn rotate_after<E>(
        &self,
        key_id: KeyId,
        grace: Duration,
        force: bool,
        hand_over: impl FnOnce(&Key) -> Result<(), E>,
    ) -> Result<Result<(), E>, Error> {
        let entropy = entropy()?;
        self.administer(|administrator| {
            let (key, mut record) =
                administrator.prepare_rotation(key_id, None, force, &entropy, now())?;
            if let Err(error) = hand_over(&key) {
                return Ok(Err(error));
            }
            // The clock is read again, because the hand-over may have taken long.
            let clock = SystemClock::read();
            record.grace_until = grace_until(clock.reading(), grace);
            administrator.put(&record, clock).map(|_| Ok(()))
        })
    }

    /// Revokes a key. The next check in any process sees it.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::revoke`]; those of
    /// [`administer`](Self::administer).
    pub fn revoke(&self, key_id: KeyId) -> Result<(), Error> {
        self.administer(|administrator| administrator.revoke(key_id))
    }

    /// Sets the moment from which a key is no longer valid; `None` for never. See
    /// [`Administrator::expire`].
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::expire`]; those of
    /// [`administer`](Self::administer).
    pub fn expire(&self, key_id: KeyId, not_after: Option<Timestamp>) -> Result<(), Error> {
        self.administer(|administrator| administrator.expire(key_id, not_after))
    }

    /// Ends the previous secret of a key at once, without waiting for the end of its grace.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::end_grace`]; those of
    /// [`administer`](Self::administer).
    pub fn end_grace(&self, key_id: KeyId) -> Result<(), Error> {
        self.administer(|administrator| administrator.end_grace(key_id))
    }

    /// Moves a key to another plan, and keeps its counts.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::assign`]; those of
    /// [`administer`](Self::administer).
    pub fn assign(&self, key_id: KeyId, plan: &str) -> Result<(), Error> {
        self.administer(|administrator| administrator.assign(key_id, plan))
    }

    /// Replaces the scopes of a key.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::set_scopes`]; those of
    /// [`administer`](Self::administer).
    pub fn set_scopes(&self, key_id: KeyId, scopes: &[&str]) -> Result<(), Error> {
        self.administer(|administrator| administrator.set_scopes(key_id, scopes))
    }

    /// Returns the properties of an account; `None` if the gate does not have it.
    pub fn account(&self, account: u32) -> Option<AccountInfo> {
        self.table.account(account, self.precise_clock().reading())
    }

    /// Returns the properties of every account. Empty in a gate without teams.
    pub fn accounts(&self) -> Vec<AccountInfo> {
        self.table.accounts(self.precise_clock().reading()).collect()
    }

    /// Refuses all keys of an account from the next check on, or accepts them again.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::set_suspended`]; those of
    /// [`administer`](Self::administer).
    pub fn set_suspended(&self, account: u32, is_suspended: bool) -> Result<(), Error> {
        self.administer(|administrator| administrator.set_suspended(account, is_suspended))
    }

    /// Lets the team limits of another plan hold for an account, and ends limits of its own.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::assign_account`]; those of
    /// [`administer`](Self::administer).
    pub fn assign_account(&self, account: u32, plan: &str) -> Result<(), Error> {
        self.administer(|administrator| administrator.assign_account(account, plan))
    }

    /// Gives an account limits of its own, with the windows of the section `team`.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::limit_account`]; those of
    /// [`administer`](Self::administer).
    pub fn limit_account(&self, account: u32, quotas: &[Quota]) -> Result<(), Error> {
        self.administer(|administrator| administrator.limit_account(account, quotas))
    }

    /// Sets the counts that all keys of an account share to 0. Returns `None` if the gate does not
    /// have the account. If the outcome is [`Outcome::Unavailable`], repeat it in the other gate,
    /// as [`Followed::call`](crate::Followed::call) does.
    pub fn reset_account(&self, account: u32) -> Option<Outcome> {
        self.table.reset_account(account, self.precise_clock())
    }

    /// Adds a plan, or gives the plan of that name other limits. Counts are kept.
    ///
    /// # Errors
    /// [`Error::Admin`] with the errors of [`Administrator::set_plan`]; those of
    /// [`administer`](Self::administer).
    pub fn set_plan(&self, plan: &Plan) -> Result<(), Error> {
        self.administer(|administrator| administrator.set_plan(plan))
    }

    /// Lists all keys, including revoked ones, with everything that may be shown of them. Reads the
    /// whole file.
    pub fn list(&self) -> Vec<KeyInfo> {
        self.table.list(self.precise_clock().reading()).collect()
    }

    /// Returns everything that may be shown of one key. `None` if the gate has no such key.
    pub fn key(&self, key_id: KeyId) -> Option<KeyInfo> {
        self.table.key(key_id, self.precise_clock().reading())
    }

    /// Reads the whole gate and reports its flaws. First completes the unfinished change of an
    /// administrator that was killed. Returns whether it completed a change.
    ///
    /// If there is a flaw, the gate is read again under the lock. Other administrators wait during
    /// this second reading, and while an unfinished change is completed.
    ///
    /// Each record has a checksum, which does not cover its counts. Counts that were changed are
    /// not detected.
    ///
    /// ```
    /// # use keytally::{GateConfig, Gate, pepper};
    /// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
    /// let mut flaws = 0;
    /// let completed = gate.verify(|flaw| {
    ///     eprintln!("{flaw}");
    ///     flaws += 1;
    /// })?;
    /// assert_eq!((completed, flaws), (false, 0));
    /// # Ok::<(), keytally::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`administer`](Self::administer).
    pub fn verify(&self, report: impl FnMut(Flaw)) -> Result<bool, Error> {
        self.verify_within(self.wait(), self.precise_clock(), report)
    }

    /// Verifies the gate as [`verify`](Self::verify) does, with the given wait and clock.
    ///
    /// # Errors
    /// Those of [`administer`](Self::administer), and [`Error::Interrupted`].
    pub fn verify_within(
        &self,
        wait: Wait<'_>,
        clock: impl Clock,
        report: impl FnMut(Flaw),
    ) -> Result<bool, Error> {
        let latest = || clock.at_least(clock.reading());
        let (completed, ()) = self.recover(wait, |_| ())?;
        // A change in progress may look like a flaw, so the search is repeated under the lock.
        let mut flawed = false;
        self.table.verify(latest(), |_| flawed = true);
        if !flawed {
            return Ok(completed);
        }
        let mut flaws = Vec::new();
        let (completed_again, ()) = self.recover(wait, |administrator| {
            administrator.verify(latest(), |flaw| flaws.push(flaw));
        })?;
        flaws.into_iter().for_each(report);
        Ok(completed || completed_again)
    }

    /// Takes the lock, completes an unfinished change, and calls `work`. Returns whether a change
    /// was completed, and the result of `work`. Flushes only if a change was completed.
    pub(crate) fn recover<T>(
        &self,
        wait: Wait<'_>,
        work: impl FnOnce(&mut Administrator<'_, Mapping>) -> T,
    ) -> Result<(bool, T), Error> {
        let lock = Lock::acquire(&self.file, self.table.memory().as_ref(), wait)?;
        self.end_migration(&lock)?;
        let mut administrator = self.table.take_over();
        let result = work(&mut administrator);
        let completed = administrator.has_recovered();
        if completed {
            self.file.flush(self.table.memory())?;
        }
        Ok((completed, result))
    }

    /// Calls `work` as the one administrator, for a caller that changes nothing. It waits as
    /// [`administer`](Self::administer) does, and flushes only a change that a killed administrator
    /// left unfinished.
    ///
    /// # Errors
    /// Those of [`administer`](Self::administer).
    pub fn read_as_administrator<T>(
        &self,
        work: impl FnOnce(&Administrator<'_, Mapping>) -> T,
    ) -> Result<T, Error> {
        self.recover(self.wait(), |administrator| work(administrator)).map(|(_, result)| result)
    }

    /// Makes many changes as one administrator, under one lock, and flushes them to the disk once.
    /// Other administrators wait meanwhile; checks do not. The changes are not one transaction:
    /// those made before an error remain.
    ///
    /// Keep `work` short, because other administrators wait 10 seconds at most. For more than about
    /// a thousand changes, use [`administer_each`](Self::administer_each). In `work`, use only the
    /// administrator: any other administering method of the same gate fails with [`Error::Busy`].
    ///
    /// ```
    /// use keytally::{GateConfig, Gate, Name, NewKey, now, pepper};
    /// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
    /// let new = NewKey::new(7, Name::new("live").unwrap());
    /// let imported = gate.administer(|administrator| {
    ///     let keys = ["customer-key-0001", "customer-key-0002"];
    ///     let import = |key: &&str| administrator.import(key.as_bytes(), &new, now());
    ///     keys.iter().map(import).collect::<Result<Vec<_>, _>>()
    /// })?;
    /// assert_eq!(imported.len(), 2);
    /// # Ok::<(), keytally::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`Error::Admin`] with the error of `work`.
    /// - [`Error::Busy`] if another administrator did not finish in time.
    /// - [`Error::Replaced`] if the gate's path now leads to another file, also after this call
    ///   completed a migration whose process was killed.
    /// - [`Error::Io`] if the file cannot be opened again or locked. Also if it cannot be flushed:
    ///   then the changes were made.
    pub fn administer<T>(
        &self,
        work: impl FnOnce(&mut Administrator<'_, Mapping>) -> Result<T, AdminError>,
    ) -> Result<T, Error> {
        self.administer_within(self.wait(), work)
    }

    /// Makes changes as [`administer`](Self::administer) does, with the given wait.
    ///
    /// # Errors
    /// Those of [`administer`](Self::administer), and [`Error::Interrupted`].
    pub fn administer_within<T>(
        &self,
        wait: Wait<'_>,
        work: impl FnOnce(&mut Administrator<'_, Mapping>) -> Result<T, AdminError>,
    ) -> Result<T, Error> {
        let lock = Lock::acquire(&self.file, self.table.memory().as_ref(), wait)?;
        self.end_migration(&lock)?;
        let mut administrator = self.table.take_over();
        administrator.set_usage(self.usage());
        let result = work(&mut administrator);
        // Also after an error, because the changes before it remain.
        self.file.flush(self.table.memory())?;
        result.map_err(|source| Error::Admin { path: self.path().map(PathBuf::from), source })
    }

    /// Calls `work` for each item, and releases the lock after every thousand. Other administrators
    /// take their turn in between, so an import of a million keys delays a revocation by at most a
    /// thousand imports. Items are drawn without the lock.
    ///
    /// ```
    /// use keytally::{GateConfig, Gate, Wait, Name, NewKey, now, pepper};
    /// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
    /// let new = NewKey::new(7, Name::new("live").unwrap());
    /// let keys = (0..5000).map(|number| format!("customer-key-{number:04}"));
    /// gate.administer_each(Wait::default(), keys, |administrator, key| {
    ///     administrator.import(key.as_bytes(), &new, now()).map(drop)
    /// })?;
    /// assert_eq!(gate.list().len(), 5000);
    /// # Ok::<(), keytally::Error>(())
    /// ```
    ///
    /// # Errors
    /// The first error of [`administer_within`](Self::administer_within). The changes before it
    /// remain, and no further items are drawn.
    pub fn administer_each<T>(
        &self,
        wait: Wait<'_>,
        items: impl IntoIterator<Item = T>,
        mut work: impl FnMut(&mut Administrator<'_, Mapping>, T) -> Result<(), AdminError>,
    ) -> Result<(), Error> {
        let mut items = items.into_iter();
        loop {
            let batch: Vec<T> = items.by_ref().take(CHANGES_PER_LOCK).collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.administer_within(wait, |administrator| {
                batch.into_iter().try_for_each(|item| work(administrator, item))
            })?;
        }
    }

    /// Returns the process that administers the gate now, if there is one.
    pub fn administrator(&self) -> Option<LockHolder> {
        lock::holder(self.table.memory().as_ref())
    }

    /// Takes the lock from a process that has certainly ended, and completes its change.
    ///
    /// This is needed in one case only: an administrator in another container was killed, and at
    /// that moment another program or a forked child held a `flock` on the file. In every other
    /// case the lock ends with its process. If the other administrator is still alive, both write
    /// at the same time and may damage the record that they change.
    ///
    /// # Errors
    /// Those of [`administer`](Self::administer).
    pub fn take_over(&self) -> Result<(), Error> {
        lock::take_over(self.table.memory().as_ref());
        self.administer(|_| Ok(()))
    }
}

impl AsRef<Self> for Gate {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Returns the end of a grace period that begins now. `None` if the period is empty.
fn grace_until(now: Timestamp, grace: Duration) -> Option<Timestamp> {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    (!grace.is_zero()).then(|| Timestamp::from_unix_ms(now.unix_ms().saturating_add(grace_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_ends_after_its_length_and_zero_is_none() {
        let [now, end] = [10_900, 11_900].map(Timestamp::from_unix_ms);
        assert_eq!(grace_until(now, Duration::ZERO), None);
        assert_eq!(grace_until(now, Duration::from_secs(1)), Some(end));
        assert_eq!(grace_until(now, Duration::MAX), Some(Timestamp::from_unix_ms(u64::MAX)));
    }
}
