//! A limiter in a file or in memory: the core's table with the system's clock and entropy.

use std::path::Path;

use keytally_core::{
    Charge, Clock as _, LimiterPart, OnFull, Policy, SetPolicyError, Settlement, SubjectInfo,
    Verdict,
};

use crate::clock::SystemClock;
use crate::error::Error;
use crate::file::TableFile;
use crate::fleet_credits::{Membership, Patience};
use crate::limiter_file;
use crate::map::Mapping;

/// A limiter: a table of tallies for any subject (an address, a user, a route), which any number of
/// processes share.
///
/// ```
/// use keytally::Limiter;
/// let limiter = Limiter::in_memory(&"2/minute".parse()?, 100_000)?;
/// assert!(limiter.check(b"203.0.113.9", 1).is_admitted());
/// assert!(limiter.check(b"203.0.113.9", 1).is_admitted());
/// let denied = limiter.check(b"203.0.113.9", 1);
/// assert!(denied.retry_after_s().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Limiter {
    table: keytally_core::Limiter<Mapping>,
    file: TableFile,
    fleet: Membership,
}

impl Limiter {
    /// Creates a limiter for `capacity` subjects in a new file at `path`, mode 0600, and reserves
    /// its disk space: about 27 bytes for each subject, and up to 432 KiB for fewer than 16,384.
    ///
    /// The file appears atomically: a process that is killed during the call leaves either no file
    /// at `path` or a complete one.
    ///
    /// # Errors
    /// Nothing was changed, except where the last entry says otherwise.
    /// - [`Error::Exists`] if `path` exists, whatever it is.
    /// - [`Error::Create`] if the capacity is 0 or too large.
    /// - [`Error::Entropy`] if the system provides none.
    /// - [`Error::Io`] if the folder cannot be written or the disk is full. Also if the folder
    ///   cannot be flushed: then the file was created.
    pub fn create(path: impl AsRef<Path>, policy: &Policy, capacity: u32) -> Result<Self, Error> {
        let (file, table) = limiter_file::create(path.as_ref(), policy, capacity)?;
        Ok(Self { table, file, fleet: Membership::default() })
    }

    /// Opens the limiter at `path`. A symbolic link is followed.
    ///
    /// # Errors
    /// - [`Error::Attach`] if the file is not a limiter, has another version or size, or is
    ///   damaged.
    /// - [`Error::NotAFile`], [`Error::Mode`], [`Error::Owner`] or [`Error::TooShort`] if no table
    ///   may be in such a file; on Windows also [`Error::Account`].
    /// - [`Error::Io`] if it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let (file, table) = limiter_file::open(path.as_ref())?;
        Ok(Self { table, file, fleet: Membership::default() })
    }

    /// Opens the limiter at `path`, or creates it if there is none. If several processes do so at
    /// the same time, one creates it and the others open it.
    ///
    /// If only the limits of the policy have changed, changes them in the file: see
    /// [`set_policy`](Self::set_policy). Other windows need a new file, and the error says how to
    /// change to it without losing counts.
    ///
    /// ```
    /// use keytally::Limiter;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("addresses.limiter");
    /// let limiter = Limiter::open_or_create(&path, &"5/minute".parse()?, 1000)?;
    /// let same = Limiter::open_or_create(&path, &"5/minute".parse()?, 1000)?;
    /// assert_eq!(limiter.check(b"203.0.113.9", 1).remaining(), Some(4));
    /// assert_eq!(same.check(b"203.0.113.9", 1).remaining(), Some(3));
    ///
    /// // Another limit is put in force in the file, and the counts stay.
    /// Limiter::open_or_create(&path, &"6/minute".parse()?, 1000)?;
    /// assert_eq!(limiter.check(b"203.0.113.9", 1).remaining(), Some(3));
    ///
    /// let error = Limiter::open_or_create(&path, &"6/hour".parse()?, 1000).unwrap_err();
    /// assert!(error.to_string().contains("cannot change to \"6/hour\""));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Policy`] if the limiter at `path` cannot count the policy. [`Error::Capacity`] if
    /// it has another capacity. Those of [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(
        path: impl AsRef<Path>,
        policy: &Policy,
        capacity: u32,
    ) -> Result<Self, Error> {
        let (file, table) = limiter_file::open_or_create(path.as_ref(), policy, capacity)?;
        Ok(Self { table, file, fleet: Membership::default() })
    }

    /// Creates a limiter in memory instead of a file, for one process with the children that it
    /// forks. It exists until the last of them ends.
    ///
    /// # Errors
    /// [`Error::Create`] if the capacity is 0 or too large. [`Error::Io`] if there is not enough
    /// memory. [`Error::Entropy`].
    pub fn in_memory(policy: &Policy, capacity: u32) -> Result<Self, Error> {
        let (file, table) = limiter_file::in_memory(policy, capacity)?;
        Ok(Self { table, file, fleet: Membership::default() })
    }

    /// Returns the path that the limiter was opened or created with, as it was given. `None` in
    /// memory.
    pub fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    /// Changes the limits to those of `policy` and keeps all counts, as
    /// [`keytally_core::Limiter::set_policy`] does. All processes that have the file open use them
    /// from their next check on.
    ///
    /// # Errors
    /// [`SetPolicyError`] if the limiter has other windows or cannot count a limit.
    pub fn set_policy(&self, policy: &Policy) -> Result<(), SetPolicyError> {
        self.table.set_policy(policy)
    }

    /// Returns the limiter's policy. `None` if its header is damaged.
    pub fn policy(&self) -> Option<Policy> {
        self.table.policy()
    }

    /// Returns what happens to a new subject that finds no slot: [`OnFull::Share`] unless it was
    /// set otherwise.
    pub fn on_full(&self) -> OnFull {
        self.table.on_full()
    }

    /// Sets what happens to a new subject that finds no slot. It is stored in the table, and
    /// applies to all processes that have it open, from their next such request on.
    ///
    /// ```
    /// use keytally::{Limiter, OnFull};
    /// let limiter = Limiter::in_memory(&"2/minute".parse()?, 1000)?;
    /// limiter.set_on_full(OnFull::Refuse);
    /// assert_eq!(limiter.on_full(), OnFull::Refuse);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_on_full(&self, on_full: OnFull) {
        self.table.set_on_full(on_full);
    }

    /// Returns how many requests found no slot for their subject since the table was created. What
    /// became of them is the choice of [`on_full`](Self::on_full) at that time.
    pub fn refusals(&self) -> u64 {
        self.table.refusals()
    }

    /// Returns how many subjects have a slot that cannot be reused now. Reads the whole table.
    pub fn live_subjects(&self) -> u64 {
        self.table.live_subjects(self.precise_clock().reading())
    }

    /// Returns the subjects that have a slot that cannot be reused now, and the overflow tallies
    /// that count something. Reads the whole table.
    pub fn list(&self) -> impl Iterator<Item = SubjectInfo> {
        self.table.list(self.precise_clock().reading())
    }

    /// Returns what this process knows of its fleet.
    pub(crate) fn membership(&self) -> &Membership {
        &self.fleet
    }

    /// Reads the system clock for a request.
    #[inline]
    fn system_clock(&self) -> SystemClock {
        SystemClock::read_for(self.table.layout())
    }

    /// Returns the core's table, whose methods take the time as an argument.
    pub fn table(&self) -> &keytally_core::Limiter<Mapping> {
        &self.table
    }

    /// Charges `cost`: to every window of the subject if all have room, else to none. The clock is
    /// that of [`SystemClock::read_for`].
    ///
    /// In a fleet, it also spends credits, and waits for them: see [`join`](Self::join).
    #[inline]
    pub fn check(&self, subject: &[u8], cost: u32) -> Verdict {
        if self.table.is_reserving() {
            return self.check_in_fleet(subject, cost, Patience::Wait);
        }
        self.table.check(subject, cost, self.system_clock())
    }

    /// The check of a limiter in a fleet.
    #[inline(never)]
    fn check_in_fleet(&self, subject: &[u8], cost: u32, patience: Patience) -> Verdict {
        self.reserving(patience).check(subject, cost, self.clock())
    }

    /// Checks as [`check`](Self::check) does, but does not wait for credits of a fleet. While they
    /// are requested, the verdict is [waiting](keytally_core::Unavailability::Waiting), and nothing
    /// is charged. An event loop checks again after a millisecond, and calls
    /// [`check_without_wait`](Self::check_without_wait) after about 20 ms.
    pub fn try_check(&self, subject: &[u8], cost: u32) -> Verdict {
        self.check_in_fleet(subject, cost, Patience::Return)
    }

    /// Checks as [`check`](Self::check) does after a wait for credits of a fleet that had no
    /// effect: without credits, the choice of the agent's operator decides.
    pub fn check_without_wait(&self, subject: &[u8], cost: u32) -> Verdict {
        self.check_in_fleet(subject, cost, Patience::Decide)
    }

    /// Returns the subject and a cost as a part of [`check_all`](crate::check_all).
    pub fn part(&self, subject: &[u8], cost: u32) -> LimiterPart<'_, Mapping> {
        self.reserving(Patience::Wait).part(subject, cost)
    }

    /// Returns the verdict that [`check`](Self::check) would return now, without charging. In a
    /// fleet, it requests no credits: a request for which the store may have units is admitted.
    pub fn peek(&self, subject: &[u8], cost: u32) -> Verdict {
        self.reserving(Patience::Wait).peek(subject, cost, self.clock())
    }

    /// Gives back what a check charged, in the windows that still count it. Refund a charge at most
    /// once.
    pub fn refund(&self, subject: &[u8], charge: Charge) -> Verdict {
        self.reserving(Patience::Wait).refund(subject, charge, self.precise_clock())
    }

    /// Replaces an estimated cost by the actual one: refunds the difference, or charges it as far
    /// as there is room. The rest is the verdict's [`uncharged`](Verdict::uncharged). Settle a
    /// charge at most once.
    pub fn settle(&self, subject: &[u8], estimate: Charge, actual: u32) -> Verdict {
        self.reserving(Patience::Wait).settle(subject, estimate, actual, self.precise_clock())
    }

    /// Replaces an estimated cost by the actual one. With [`overdraw`](Settlement::overdraw), units
    /// for which there is no room are charged too. A limiter has no groups, so their costs have no
    /// effect. Settle a charge at most once.
    pub fn settle_all(
        &self,
        subject: &[u8],
        estimate: Charge,
        settlement: &Settlement<'_>,
    ) -> Verdict {
        self.reserving(Patience::Wait).settle_all(
            subject,
            estimate,
            settlement,
            self.precise_clock(),
        )
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

    /// Sets all counts of the subject to 0.
    pub fn reset(&self, subject: &[u8]) -> Verdict {
        self.table.reset(subject, self.precise_clock())
    }

    /// Sets all counts of every subject to 0. Returns how many subjects had counts in a window that
    /// has not passed. A charge during the call is either reset or counted after it.
    pub fn reset_all(&self) -> u64 {
        self.table.reset_all(self.precise_clock())
    }
}
