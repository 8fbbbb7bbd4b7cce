//! A limiter of client addresses in a file or in memory, with the system's clock and entropy.

use std::path::Path;

use keytally_core::{
    Address, AddressPart, AddressPolicy, Charge, Clock as _, Compound, OnFull, SetPolicyError,
    Settlement, SubjectInfo,
};

use crate::clock::SystemClock;
use crate::error::Error;
use crate::file::TableFile;
use crate::fleet_credits::{Membership, Patience};
use crate::limiter_file;
use crate::map::Mapping;

/// A limiter of client addresses, which any number of processes share. It counts each client in
/// several networks: its own, and larger ones that contain it.
///
/// Each method that takes an address takes an [`Address`] or a [`core::net::IpAddr`].
///
/// ```
/// use keytally::{Address, AddressLimiter};
/// let policy = "addresses: /64 2/minute; /48 3/minute".parse()?;
/// let limiter = AddressLimiter::in_memory(&policy, 100_000)?;
/// let check = |text| limiter.check(Address::parse(text).unwrap(), 1);
/// assert!(check("2001:db8:0:1::1").is_admitted());
/// assert!(check("2001:db8:0:1::2").is_admitted());
/// assert!(check("2001:db8:0:2::1").is_admitted());
/// let denied = check("2001:db8:0:3::1");
/// assert!(!denied.is_admitted(), "the /48 has spent its three");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AddressLimiter {
    table: keytally_core::AddressLimiter<Mapping>,
    file: TableFile,
    fleet: Membership,
}

impl AddressLimiter {
    /// Creates a limiter for `capacity` networks in a new file at `path`, mode 0600, and reserves
    /// its disk space: about 27 bytes for each network, and up to 432 KiB for fewer than 16,384.
    ///
    /// A client takes a slot for each prefix of the policy. Clients of one network share that
    /// network's slot.
    ///
    /// # Errors
    /// Those of [`Limiter::create`](crate::Limiter::create).
    pub fn create(
        path: impl AsRef<Path>,
        policy: &AddressPolicy,
        capacity: u32,
    ) -> Result<Self, Error> {
        let (file, table) = limiter_file::create(path.as_ref(), policy, capacity)?;
        Ok(Self { table, file, fleet: Membership::default() })
    }

    /// Opens the limiter at `path`. A symbolic link is followed.
    ///
    /// # Errors
    /// Those of [`Limiter::open`](crate::Limiter::open).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let (file, table) = limiter_file::open(path.as_ref())?;
        Ok(Self { table, file, fleet: Membership::default() })
    }

    /// Opens the limiter at `path`, or creates it if there is none. If several processes do so at
    /// the same time, one creates it and the others open it.
    ///
    /// If only the limits of the policy have changed, changes them in the file: see
    /// [`set_policy`](Self::set_policy). Other prefixes or windows need a new file.
    ///
    /// # Errors
    /// [`Error::Policy`] if the limiter at `path` cannot count the policy. [`Error::Capacity`] if
    /// it has another capacity. Those of [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(
        path: impl AsRef<Path>,
        policy: &AddressPolicy,
        capacity: u32,
    ) -> Result<Self, Error> {
        let (file, table) = limiter_file::open_or_create(path.as_ref(), policy, capacity)?;
        Ok(Self { table, file, fleet: Membership::default() })
    }

    /// Creates a limiter in memory instead of a file, for one process with the children that it
    /// forks. It exists until the last of them ends.
    ///
    /// # Errors
    /// Those of [`Limiter::in_memory`](crate::Limiter::in_memory).
    pub fn in_memory(policy: &AddressPolicy, capacity: u32) -> Result<Self, Error> {
        let (file, table) = limiter_file::in_memory(policy, capacity)?;
        Ok(Self { table, file, fleet: Membership::default() })
    }

    /// Returns the path that the limiter was opened or created with, as it was given. `None` in
    /// memory.
    pub fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    /// Changes the limits to those of `policy` and keeps all counts. All processes that have the
    /// file open use them from their next check on.
    ///
    /// # Errors
    /// [`SetPolicyError`] if the limiter has other prefixes or windows, or cannot count a limit.
    pub fn set_policy(&self, policy: &AddressPolicy) -> Result<(), SetPolicyError> {
        self.table.set_policy(policy)
    }

    /// Returns the limiter's policy. `None` if its header is damaged.
    pub fn policy(&self) -> Option<AddressPolicy> {
        self.table.policy()
    }

    /// Returns what happens to a new network that finds no slot: [`OnFull::Share`] unless it was
    /// set otherwise.
    pub fn on_full(&self) -> OnFull {
        self.table.on_full()
    }

    /// Sets what happens to a new network that finds no slot. It is stored in the table, and
    /// applies to all processes that have it open.
    pub fn set_on_full(&self, on_full: OnFull) {
        self.table.set_on_full(on_full);
    }

    /// Returns how many networks found no slot since the table was created.
    pub fn refusals(&self) -> u64 {
        self.table.refusals()
    }

    /// Returns how many networks have a slot that cannot be reused now. Reads the whole table.
    pub fn live_subjects(&self) -> u64 {
        self.table.live_subjects(self.precise_clock().reading())
    }

    /// Returns the networks that have a slot that cannot be reused now, and the overflow tallies
    /// that count something. Reads the whole table.
    ///
    /// The prefix of a network is not stored. So each has the windows of all prefixes, with the
    /// largest limit of each.
    pub fn list(&self) -> impl Iterator<Item = SubjectInfo> {
        self.table.list(self.precise_clock().reading())
    }

    /// Returns the core's table, whose methods take the time as an argument.
    pub fn table(&self) -> &keytally_core::AddressLimiter<Mapping> {
        &self.table
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

    /// Charges `cost` to the networks of the address if all of them have room for it, else to none.
    /// The clock is that of [`SystemClock::read_for`].
    ///
    /// In a fleet, it also spends credits, and waits for them: see [`join`](Self::join).
    #[inline]
    pub fn check(&self, address: impl Into<Address>, cost: u32) -> Compound {
        if self.table.is_reserving() {
            return self.check_in_fleet(address.into(), cost, Patience::Wait);
        }
        self.table.check(address.into(), cost, self.system_clock())
    }

    /// The check of a limiter in a fleet.
    #[inline(never)]
    fn check_in_fleet(&self, address: Address, cost: u32, patience: Patience) -> Compound {
        self.reserving(patience).check(address, cost, self.clock())
    }

    /// Checks as [`check`](Self::check) does, but does not wait for credits of a fleet: see
    /// [`Limiter::try_check`](crate::Limiter::try_check).
    pub fn try_check(&self, address: impl Into<Address>, cost: u32) -> Compound {
        self.check_in_fleet(address.into(), cost, Patience::Return)
    }

    /// Checks as [`check`](Self::check) does after a wait for credits of a fleet that had no
    /// effect: without credits, the choice of the agent's operator decides.
    pub fn check_without_wait(&self, address: impl Into<Address>, cost: u32) -> Compound {
        self.check_in_fleet(address.into(), cost, Patience::Decide)
    }

    /// Returns the address and a cost as a part of [`check_all`](crate::check_all).
    pub fn part(&self, address: impl Into<Address>, cost: u32) -> AddressPart<'_, Mapping> {
        self.reserving(Patience::Wait).part(address.into(), cost)
    }

    /// Returns what [`check`](Self::check) would return now, without charging. In a fleet, it
    /// requests no credits: a request for which the store may have units is admitted.
    pub fn peek(&self, address: impl Into<Address>, cost: u32) -> Compound {
        self.reserving(Patience::Wait).peek(address.into(), cost, self.clock())
    }

    /// Gives back what a check charged, in the windows that still count it and in all networks.
    /// Refund a charge at most once. Returns the state after the refund.
    pub fn refund(&self, address: impl Into<Address>, charge: Charge) -> Compound {
        self.reserving(Patience::Wait).refund(address.into(), charge, self.precise_clock())
    }

    /// Replaces an estimated cost by the actual one: refunds the difference, or charges it as far
    /// as all networks have room. The rest is each verdict's
    /// [`uncharged`](crate::Verdict::uncharged). Settle a charge at most once.
    pub fn settle(&self, address: impl Into<Address>, estimate: Charge, actual: u32) -> Compound {
        self.reserving(Patience::Wait).settle(
            address.into(),
            estimate,
            actual,
            self.precise_clock(),
        )
    }

    /// Replaces an estimated cost by the actual one. With [`overdraw`](Settlement::overdraw), units
    /// for which there is no room are charged too. Settle a charge at most once.
    pub fn settle_all(
        &self,
        address: impl Into<Address>,
        estimate: Charge,
        settlement: &Settlement<'_>,
    ) -> Compound {
        self.reserving(Patience::Wait).settle_all(
            address.into(),
            estimate,
            settlement,
            self.precise_clock(),
        )
    }

    /// Sets all counts of the client's network, that of the longest prefix, to 0. Larger networks
    /// keep their counts. Returns the state after it.
    pub fn reset(&self, address: impl Into<Address>) -> Compound {
        self.table.reset(address.into(), self.precise_clock())
    }

    /// Sets all counts of every network to 0. Returns how many networks had counts in a window that
    /// has not passed. A charge during the call is either reset or counted after it.
    pub fn reset_all(&self) -> u64 {
        self.table.reset_all(self.precise_clock())
    }

    /// Corrects every tally that is more than 60 s ahead of the system clock, and keeps its counts.
    /// Returns the number of corrected tallies: see
    /// [`Limiter::correct_clock`](crate::Limiter::correct_clock).
    pub fn correct_clock(&self) -> u64 {
        self.table.correct_clock(self.precise_clock())
    }
}
