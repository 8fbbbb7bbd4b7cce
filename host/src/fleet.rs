//! Fleets: machines that share the limits of their gates and limiters through one store.
//!
//! Each machine has a *fleet file* for its gate or limiter, in memory that its processes share. An
//! agent leases units from the store and puts them into the file as *credits*. Requests spend
//! credits and talk to no store.

use alloc::sync::Arc;
use core::iter;
use core::time::Duration;
use std::path::Path;
use std::thread;

use keytally_core::sync::{AtomicU64, Ordering};
use keytally_core::{
    Address, Layout, MAX_PARTS, NumberedSubject, Reserve, Reserving, Section, TallyOwner,
    Timestamp, Verdict, rule_of_owner,
};
use keytally_fleet_plan::credit::CreditLayout;
use keytally_fleet_plan::holding::is_held;
use keytally_fleet_plan::layout::{
    FileLayout, KeysMode, KeysState, MAX_PAGE_TEXT_LEN, PAGE_TEXT_WORDS, PageWord, WantedBits,
};
use keytally_fleet_plan::words::TallyWords;

use crate::address_limiter::AddressLimiter;
use crate::clock::{GateClock, SystemClock, instant, now};
use crate::error::{Error, FleetError};
use crate::fleet_credits::{Joined, Machine, Patience, is_shared, micros};
use crate::fleet_map::{FleetMap, FleetTally};
use crate::gate::Gate;
use crate::limiter::Limiter;
use crate::lock::Wait;
use crate::map::Mapping;

/// The first pause of [`Gate::credit_pauses`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);

impl Gate {
    /// Joins the fleet of this machine: requests spend credits of the fleet file at `path`, which
    /// the machine's agent fills.
    ///
    /// What a request without credits gets is the choice of the agent's operator. This has no
    /// effect while the gate is not in a fleet: see [`set_fleet`](Self::set_fleet).
    ///
    /// # Errors
    /// - [`Error::Fleet`] if the file belongs to another gate, is a copy or was written before
    ///   this boot, or is damaged. Also if the gate has sliding windows, or has joined before.
    /// - [`Error::NotAFile`], [`Error::Mode`] or [`Error::Owner`] as for the gate's own file.
    /// - [`Error::Io`] if it cannot be opened, or if the number of this boot cannot be read. The
    ///   agent creates the file.
    pub fn join(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let (map, shapes) = open(path, self.into(), FleetMap::open)?;
        let wait_us = self.credit_wait_us().load(Ordering::Relaxed);
        let machine = Arc::new(Machine::new(map, shapes, wait_us));
        let refused = |()| Error::Fleet { path: path.into(), source: FleetError::Joined };
        self.set_joined(Joined::new(&machine)).map_err(refused)
    }

    /// Returns whether requests need credits of a fleet, in every process that has the gate open.
    #[inline]
    pub fn is_in_fleet(&self) -> bool {
        self.table().needs().reservation()
    }

    /// Puts the gate in a fleet, or takes it out of it, for every process that has it open. In a
    /// process that has not [joined](Self::join), all requests are then
    /// [unavailable](keytally_core::Unavailability::NotReserving).
    ///
    /// # Errors
    /// [`Error::Fleet`] if the gate has sliding windows, and those of
    /// [`administer`](Self::administer).
    pub fn set_fleet(&self, is_in_fleet: bool) -> Result<(), Error> {
        self.set_fleet_within(self.wait(), is_in_fleet)
    }

    /// Puts the gate in a fleet, or takes it out of it, as [`set_fleet`](Self::set_fleet) does,
    /// with the given wait.
    ///
    /// # Errors
    /// Those of [`set_fleet`](Self::set_fleet), and [`Error::Interrupted`].
    pub fn set_fleet_within(&self, wait: Wait<'_>, is_in_fleet: bool) -> Result<(), Error> {
        if is_in_fleet {
            let path = || self.path().unwrap_or(Path::new("memory")).into();
            shapes(self.into()).map_err(|source| Error::Fleet { path: path(), source })?;
        }
        self.administer_within(wait, |administrator| {
            administrator.set_reserving(is_in_fleet);
            Ok(())
        })
    }

    /// Checks as [`check`](Self::check) does, but does not wait for credits of a fleet. While they
    /// are requested, the verdict is [waiting](keytally_core::Unavailability::Waiting), and nothing
    /// is charged. An event loop checks again after a millisecond, and calls
    /// [`check_without_wait`](Self::check_without_wait) after about 20 ms.
    pub fn try_check(&self, api_key: Option<&[u8]>, cost: u32) -> Verdict {
        self.counted_with(Patience::Return).check(api_key, cost, self.clock())
    }

    /// Checks as [`check`](Self::check) does after a wait for credits of a fleet that had no
    /// effect: without credits, the choice of the agent's operator decides.
    pub fn check_without_wait(&self, api_key: Option<&[u8]>, cost: u32) -> Verdict {
        self.counted_with(Patience::Decide).check(api_key, cost, self.clock())
    }

    /// Returns the pauses of a request that waits for credits of a fleet without its thread: 1 ms,
    /// doubled each time, and altogether the wait that
    /// [`set_credit_wait`](Self::set_credit_wait) sets. Such a request checks by
    /// [`try_check`](Self::try_check) before and after each of them. If it is still waiting after
    /// the last one, it checks by [`check_without_wait`](Self::check_without_wait).
    ///
    /// ```
    /// # use keytally::{Gate, GateConfig, pepper};
    /// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
    /// let pauses: Vec<_> = gate.credit_pauses().map(|pause| pause.as_millis()).collect();
    /// assert_eq!(pauses, [1, 2, 4, 8, 5]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn credit_pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        pauses(self.credit_wait())
    }

    /// Returns the longest time that a request of this process waits for credits of a fleet.
    pub fn credit_wait(&self) -> Duration {
        Duration::from_micros(self.credit_wait_us().load(Ordering::Relaxed))
    }

    /// Sets the longest time that a request of this process waits for credits of a fleet. Zero does
    /// not wait. The default is [`DEFAULT_CREDIT_WAIT`](crate::DEFAULT_CREDIT_WAIT).
    pub fn set_credit_wait(&self, at_most: Duration) {
        let wait_us = micros(at_most);
        self.credit_wait_us().store(wait_us, Ordering::Relaxed);
        if let Some(joined) = self.joined() {
            joined.machine().set_wait(wait_us);
        }
    }
}

/// Returns the pauses of a wait: 1 ms, doubled each time.
fn pauses(wait: Duration) -> impl Iterator<Item = Duration> + use<> {
    let (mut left, mut next) = (wait, FIRST_PAUSE);
    iter::from_fn(move || {
        let pause = next.min(left);
        left -= pause;
        next = next.saturating_mul(2);
        (!pause.is_zero()).then_some(pause)
    })
}

/// Implements what a limiter does in a fleet.
macro_rules! limiter_in_fleet {
    ($limiter:ident) => {
        impl $limiter {
            /// Joins the fleet of this machine: requests spend credits of the fleet file at `path`,
            /// which the machine's agent fills.
            ///
            /// What a request without credits gets is the choice of the agent's operator. This has
            /// no effect while the limiter is not in a fleet: see [`set_fleet`](Self::set_fleet).
            ///
            /// # Errors
            /// - [`Error::Fleet`] if the file belongs to another gate or limiter, is a copy or was
            ///   written before this boot, or is damaged. Also if the limiter has sliding windows,
            ///   or has joined before.
            /// - [`Error::NotAFile`], [`Error::Mode`] or [`Error::Owner`] as for the limiter's own
            ///   file.
            /// - [`Error::Io`] if it cannot be opened, or if the number of this boot cannot be
            ///   read. The agent creates the file.
            pub fn join(&self, path: impl AsRef<Path>) -> Result<(), Error> {
                let path = path.as_ref();
                let (map, shapes) = open(path, self.into(), FleetMap::open)?;
                let refused = |()| Error::Fleet { path: path.into(), source: FleetError::Joined };
                self.membership().join(map, shapes).map_err(refused)
            }

            /// Returns whether requests need credits of a fleet, in every process that has the
            /// limiter open.
            #[inline]
            pub fn is_in_fleet(&self) -> bool {
                self.table().is_reserving()
            }

            /// Puts the limiter in a fleet, or takes it out of it, for every process that has it
            /// open. In a process that has not [joined](Self::join), all requests are then
            /// [unavailable](keytally_core::Unavailability::NotReserving).
            ///
            /// # Errors
            /// [`Error::Fleet`] if the limiter has sliding windows.
            pub fn set_fleet(&self, is_in_fleet: bool) -> Result<(), Error> {
                if is_in_fleet {
                    let path = || self.path().unwrap_or(Path::new("memory")).into();
                    shapes(self.into()).map_err(|source| Error::Fleet { path: path(), source })?;
                }
                self.table().set_reserving(is_in_fleet);
                Ok(())
            }

            /// Sets the longest time that a request of this process waits for credits of a fleet.
            /// Zero does not wait. The default is
            /// [`DEFAULT_CREDIT_WAIT`](crate::DEFAULT_CREDIT_WAIT).
            pub fn set_credit_wait(&self, at_most: Duration) {
                self.membership().set_wait(at_most);
            }

            /// Returns the longest time that a request of this process waits for credits of a
            /// fleet.
            pub fn credit_wait(&self) -> Duration {
                self.membership().wait()
            }

            /// Returns the pauses of a request that waits for credits of a fleet without its
            /// thread: see [`Gate::credit_pauses`]. There is none outside of a fleet.
            pub fn credit_pauses(&self) -> impl Iterator<Item = Duration> + use<> {
                pauses(if self.is_in_fleet() { self.credit_wait() } else { Duration::ZERO })
            }

            /// Returns the core's table as one that spends credits, if it is in a fleet, for a
            /// request that does this if it lacks credits. The time that its methods take is that
            /// of [`clock`](Self::clock).
            #[inline]
            pub fn reserving(
                &self,
                patience: Patience,
            ) -> Reserving<'_, keytally_core::$limiter<Mapping>> {
                self.table().reserving(self.reservation(patience))
            }

            /// Returns what requests reserve, for a request that does this if it lacks credits of a
            /// fleet: for a caller with a table of its own in the limiter's memory. `None` outside
            /// of a fleet.
            #[inline]
            pub fn reservation(&self, patience: Patience) -> Option<&dyn Reserve> {
                self.is_in_fleet().then(|| self.membership().reservation(patience))
            }

            /// Reads the clock for a request, as [`check`](Self::check) does. In a fleet, it is as
            /// far ahead of the system clock as the store's clock is, so that windows begin at the
            /// same moment on all machines.
            pub fn clock(&self) -> GateClock {
                GateClock::ahead(
                    SystemClock::read_for(self.table().layout()),
                    self.clock_offset_ms(),
                )
            }

            /// Reads the precise clock, as far ahead in a fleet as [`clock`](Self::clock) is. The
            /// methods that are not checks read it, such as [`refund`](Self::refund).
            pub fn precise_clock(&self) -> GateClock {
                GateClock::ahead(SystemClock::read(), self.clock_offset_ms())
            }

            /// Returns how many milliseconds the clock of the limiter's fleet is ahead of the
            /// system clock: 0 outside of a fleet.
            #[inline]
            pub fn clock_offset_ms(&self) -> i64 {
                if self.is_in_fleet() { self.membership().offset_ms() } else { 0 }
            }
        }
    };
}

limiter_in_fleet!(Limiter);
limiter_in_fleet!(AddressLimiter);

/// A table whose limits machines share.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum FleetTable<'t> {
    /// The gate.
    Gate(&'t Gate),
    /// The limiter.
    Limiter(&'t Limiter),
    /// The limiter of addresses.
    Addresses(&'t AddressLimiter),
}

impl<'t> From<&'t Gate> for FleetTable<'t> {
    fn from(gate: &'t Gate) -> Self {
        Self::Gate(gate)
    }
}

impl<'t> From<&'t Arc<Gate>> for FleetTable<'t> {
    fn from(gate: &'t Arc<Gate>) -> Self {
        Self::Gate(gate)
    }
}

impl<'t> From<&'t Limiter> for FleetTable<'t> {
    fn from(limiter: &'t Limiter) -> Self {
        Self::Limiter(limiter)
    }
}

impl<'t> From<&'t AddressLimiter> for FleetTable<'t> {
    fn from(limiter: &'t AddressLimiter) -> Self {
        Self::Addresses(limiter)
    }
}

impl FleetTable<'_> {
    /// Returns the path that the table was opened with. `None` in memory.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Gate(gate) => gate.path(),
            Self::Limiter(limiter) => limiter.path(),
            Self::Addresses(limiter) => limiter.path(),
        }
    }

    /// Returns whether requests need credits of a fleet, in every process that has the table open.
    pub fn is_in_fleet(&self) -> bool {
        match self {
            Self::Gate(gate) => gate.is_in_fleet(),
            Self::Limiter(limiter) => limiter.is_in_fleet(),
            Self::Addresses(limiter) => limiter.is_in_fleet(),
        }
    }

    /// Puts the table in a fleet, or takes it out of it: see [`Gate::set_fleet`].
    ///
    /// # Errors
    /// Those of [`Gate::set_fleet`].
    pub fn set_fleet(&self, is_in_fleet: bool) -> Result<(), Error> {
        match self {
            Self::Gate(gate) => gate.set_fleet(is_in_fleet),
            Self::Limiter(limiter) => limiter.set_fleet(is_in_fleet),
            Self::Addresses(limiter) => limiter.set_fleet(is_in_fleet),
        }
    }

    /// Returns the properties in which the limiters of all machines must be equal; `None` for a
    /// gate. Machines whose limiters differ would count each subject by itself.
    pub fn limiter(&self) -> Option<FleetLimiterInfo> {
        let (id, policy, tallies) = match self {
            Self::Gate(_) => return None,
            Self::Limiter(limiter) => {
                let table = limiter.table();
                (table.fleet_id(), table.policy()?.to_string(), table.numbered_tallies())
            }
            Self::Addresses(limiter) => {
                let table = limiter.table();
                (table.fleet_id(), table.policy()?.to_string(), table.numbered_tallies())
            }
        };
        let file = self.path().and_then(Path::file_name);
        let file = file.map_or("memory".into(), |file| file.to_string_lossy().into_owned());
        Some(FleetLimiterInfo { file, id, tallies, policy })
    }

    /// Returns the subject of a limiter with this text, as the store names it, also if it has no
    /// slot. In a limiter of addresses, it is the network of the longest prefix. `None` for a gate,
    /// and for a text that is not an address.
    pub fn named_subject(&self, text: &str) -> Option<FleetSubject> {
        let (owner, layout) = match self {
            Self::Gate(_) => return None,
            Self::Limiter(limiter) => {
                let table = limiter.table();
                (table.owner_number(text.as_bytes()), table.layout())
            }
            Self::Addresses(limiter) => {
                let table = limiter.table();
                (table.owner_number(Address::parse(text)?), table.shapes().next()?.1)
            }
        };
        // The limits are those of the next lease request.
        let layout = CreditLayout::new(layout, &layout.largest_limits()).ok()?;
        let name = self.name_of(&format!("{owner:016x}"), 0)?;
        Some(FleetSubject { name, owner, layout })
    }

    /// Returns the name in the store of a subject that counts by this rule, or of an overflow
    /// tally.
    fn name_of(&self, whose: &str, rule: usize) -> Option<String> {
        let id = self.id();
        Some(match self {
            Self::Addresses(limiter) => {
                let (prefix, _) = limiter.table().shapes().nth(rule)?;
                format!("{whose}.{id:016x}:prefix.{prefix}")
            }
            _ => format!("{whose}.{id:016x}:subject"),
        })
    }

    /// Returns the number of the table, which its copies share.
    fn id(&self) -> u64 {
        match self {
            Self::Gate(gate) => gate.table().id(),
            Self::Limiter(limiter) => limiter.table().fleet_id(),
            Self::Addresses(limiter) => limiter.table().fleet_id(),
        }
    }

    fn tallies(&self) -> u64 {
        match self {
            Self::Gate(gate) => gate.table().numbered_tallies(),
            Self::Limiter(limiter) => limiter.table().numbered_tallies(),
            Self::Addresses(limiter) => limiter.table().numbered_tallies(),
        }
    }

    /// Returns the subject of a limiter with a number, one of these owners: see
    /// [`keytally_core::Limiter::numbered_subject`].
    fn numbered_subject(
        &self,
        number: u32,
        owners: [u64; 2],
        now: Timestamp,
    ) -> Option<NumberedSubject> {
        match self {
            Self::Gate(_) => None,
            Self::Limiter(limiter) => limiter.table().numbered_subject(number.into(), owners, now),
            Self::Addresses(limiter) => {
                limiter.table().numbered_subject(number.into(), owners, now)
            }
        }
    }
}

/// The properties in which the limiters of all machines of a fleet must be equal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetLimiterInfo {
    /// The name of its file, without the folder.
    pub file: String,
    /// A number of the table, which its copies share. It follows from the seed.
    pub id: u64,
    /// How many slots and overflow tallies it has.
    pub tallies: u64,
    /// Its policy, as text.
    pub policy: String,
}

/// The fleet file of a gate or a limiter, as the machine's agent uses it.
///
/// A request reads and writes only credits and the wanted cost, and rings. Everything else is the
/// agent's, of which one at a time may run: see [`try_lock`](Self::try_lock).
#[derive(Debug)]
pub struct FleetFile<'t> {
    table: FleetTable<'t>,
    map: FleetMap,
    shapes: heapless::Vec<(CreditLayout, bool), MAX_PARTS>,
}

/// A tally that machines share, as its store names it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FleetSubject {
    /// Its part of the store's key names: the key id or the account, and the section, such as
    /// `0Gk3XbT9qLm:key`, `0Gk3XbT9qLm:group.search` or `team.12:team`. For a limiter, hashes of
    /// the subject and of the table's seed, such as `00c5…09.8b1f…e2:subject`.
    pub name: String,
    /// The number that stands in the owner word: see [`FleetFile::owner`].
    pub owner: u64,
    /// The windows, and the limits that they have now.
    pub layout: CreditLayout,
}

impl<'t> FleetFile<'t> {
    /// Creates the fleet file of a gate or a limiter at `path`, mode 0600, or opens it. Replaces a
    /// file that was written before this boot, or that is a copy, since its credits are void.
    ///
    /// The file should be in memory, such as in `/dev/shm`: nothing in it survives a restart.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`Error::Io`] if the file cannot be created.
    pub fn create(path: impl AsRef<Path>, table: impl Into<FleetTable<'t>>) -> Result<Self, Error> {
        Self::with(path.as_ref(), table.into(), FleetMap::create)
    }

    /// Creates the fleet file of a gate or a limiter as [`create`](Self::create) does. Also
    /// replaces the fleet file of another one, such as the gate that this gate has replaced, of
    /// another version, or of another length. An agent's file is kept: see
    /// [`try_lock`](Self::try_lock).
    ///
    /// # Errors
    /// Those of [`create`](Self::create).
    pub fn replace(
        path: impl AsRef<Path>,
        table: impl Into<FleetTable<'t>>,
    ) -> Result<Self, Error> {
        Self::with(path.as_ref(), table.into(), FleetMap::replace)
    }

    /// Opens the fleet file of a gate or a limiter.
    ///
    /// # Errors
    /// Those of [`Gate::join`].
    pub fn open(path: impl AsRef<Path>, table: impl Into<FleetTable<'t>>) -> Result<Self, Error> {
        Self::with(path.as_ref(), table.into(), FleetMap::open)
    }

    fn with(path: &Path, table: FleetTable<'t>, with: OpenMap) -> Result<Self, Error> {
        let (map, shapes) = open(path, table, with)?;
        Ok(Self { table, map, shapes })
    }

    /// Returns the gate or the limiter.
    pub fn table(&self) -> FleetTable<'t> {
        self.table
    }

    /// Returns the path, as it was given.
    pub fn path(&self) -> &Path {
        self.map.file().shown_path()
    }

    /// Returns whether the path still leads to this file.
    ///
    /// # Errors
    /// The system's error, such as [`NotFound`](std::io::ErrorKind::NotFound) if the file was
    /// removed.
    pub fn is_at_path(&self) -> std::io::Result<bool> {
        self.map.file().is_at_path()
    }

    /// Tries to become the machine's only agent, by the file's lock. Returns whether this process
    /// is. The lock ends with the process.
    ///
    /// # Errors
    /// The system's error.
    pub fn try_lock(&self) -> std::io::Result<bool> {
        self.map.try_lock()
    }

    /// Writes what identifies the fleet file, as its page may have been overwritten by that of
    /// another machine, and which gate file it is for. For the agent: see
    /// [`verify_gate`](Self::verify_gate).
    pub fn identify(&self) {
        self.map.identify();
        if let FleetTable::Gate(gate) = self.table
            && let (Some(number), Some(path)) = (gate.file().number(), gate.file().absolute())
        {
            self.page(PageWord::GateFile).store(number, Ordering::Release);
            self.set_page_texts(PageWord::GatePath, &[path_text(path)]);
        }
    }

    /// Refuses a fleet file that was made for another gate file: that of another machine, whose
    /// gate is a copy of this one. A gate that has replaced the one at its path is accepted.
    ///
    /// # Errors
    /// [`Error::OtherGate`], which has the paths of both gates.
    pub fn verify_gate(&self) -> Result<(), Error> {
        let FleetTable::Gate(gate) = self.table else { return Ok(()) };
        let noted = self.page(PageWord::GateFile).load(Ordering::Acquire);
        let (Some(number), Some(path)) = (gate.file().number(), gate.file().absolute()) else {
            return Ok(());
        };
        let other = self.page_texts(PageWord::GatePath).into_iter().next().unwrap_or_default();
        if noted == 0 || noted == number || other == path_text(path) {
            return Ok(());
        }
        Err(Error::OtherGate { path: self.path().into(), gate: path.into(), other: other.into() })
    }

    /// Returns a word of the page.
    pub fn page(&self, word: PageWord) -> &AtomicU64 {
        self.map.page(word)
    }

    /// Returns the texts that begin at a word of the page, at most
    /// [`PAGE_TEXTS`](keytally_fleet_plan::layout::PAGE_TEXTS).
    pub fn page_texts(&self, first: PageWord) -> Vec<String> {
        let texts = self.map.page_texts(first).chunks_exact(PAGE_TEXT_WORDS);
        let read = |words: &[AtomicU64]| {
            let bytes = words.iter().flat_map(|word| word.load(Ordering::Acquire).to_le_bytes());
            let bytes = bytes.take_while(|byte| *byte != 0).collect::<Vec<_>>();
            // The agent may be writing it.
            let text = String::from_utf8_lossy(&bytes);
            text.chars().filter(|character| !character.is_control()).collect::<String>()
        };
        texts.map(read).take_while(|text| !text.is_empty()).collect()
    }

    /// Writes the texts that begin at a word of the page: the first
    /// [`PAGE_TEXTS`](keytally_fleet_plan::layout::PAGE_TEXTS) ones, each up to
    /// [`MAX_PAGE_TEXT_LEN`] bytes.
    pub fn set_page_texts(&self, first: PageWord, texts: &[String]) {
        let texts = texts.iter().map(String::as_str).chain(iter::repeat(""));
        let words = self.map.page_texts(first).chunks_exact(PAGE_TEXT_WORDS);
        for (words, text) in words.zip(texts) {
            let mut bytes = text.bytes().chain(iter::repeat(0));
            for word in words {
                let value = core::array::from_fn(|_| bytes.next().unwrap_or(0));
                word.store(u64::from_le_bytes(value), Ordering::Release);
            }
        }
    }

    /// Returns the number of tallies of the file.
    pub fn tallies(&self) -> u32 {
        self.map.tallies()
    }

    /// Returns the tallies that want credits.
    pub fn wanted(&self) -> WantedBits<'_> {
        self.map.wanted()
    }

    /// Returns the five words of a tally; `None` if there is no such tally.
    pub fn words(&self, tally: u32) -> Option<TallyWords<'_>> {
        self.map.tally(tally).map(|tally| tally.words)
    }

    /// Returns the word that names the key, account or subject to which the words of a tally
    /// belong; it is 0 for none. The agent voids the words before it changes the owner.
    pub fn owner(&self, tally: u32) -> Option<&AtomicU64> {
        self.map.tally(tally).map(|tally| tally.owner)
    }

    /// Returns what the table has at a tally now: `None` if a gate has no key or account there, or
    /// if its plan does not limit the section. `None` if a limiter has no subject there.
    pub fn subject(&self, tally: u32) -> Option<FleetSubject> {
        let offset_ms = self.page(PageWord::Offset).load(Ordering::Acquire).cast_signed();
        self.subject_at(tally, now().unix_ms().saturating_add_signed(offset_ms))
    }

    /// Returns what the table has at a tally, as [`subject`](Self::subject) does, for the windows
    /// of `now_ms`.
    ///
    /// A slot of a limiter has a subject only if it is kept until these windows have passed, and if
    /// no former subject of the slot holds units of them. So what is leased for these windows by
    /// this subject stays its own.
    pub fn subject_at(&self, tally: u32, now_ms: u64) -> Option<FleetSubject> {
        let FleetTable::Gate(gate) = self.table else { return self.limited(tally, now_ms) };
        let found = gate.table().numbered_tally(tally.into(), now())?;
        let layout = CreditLayout::new(&found.layout, &found.limits).ok()?;
        let whose = match found.owner {
            TallyOwner::Key(key_id) => key_id.to_string(),
            TallyOwner::Account(account) => format!("team.{account}"),
        };
        let name = match &found.section {
            Section::Group(name) => format!("{whose}:group.{name}", name = &**name),
            section => format!("{whose}:{}", section.name()),
        };
        Some(FleetSubject { name, owner: found.owner.number(), layout })
    }

    /// Returns the subject of a limiter at a tally.
    fn limited(&self, tally: u32, now_ms: u64) -> Option<FleetSubject> {
        let (found, present) = self.numbered_subject(tally, now_ms)?;
        let words = self.words(tally)?;
        if present != 0 && present != found.owner {
            let (layout, _) = self.shapes.get(rule_of_owner(present))?;
            if is_held(layout, &words, now_ms) {
                return None;
            }
        }
        let layout = CreditLayout::new(&found.layout, &found.limits).ok()?;
        let whose = match found.bucket {
            Some(bucket) => format!("overflow.{bucket}"),
            None => format!("{:016x}", found.owner),
        };
        let name = self.table.name_of(&whose, found.rule)?;
        Some(FleetSubject { name, owner: found.owner, layout })
    }

    /// Returns the subject of a limiter at a tally, and the owner of the tally's words. The subject
    /// is that owner, or the one that claims the words.
    fn numbered_subject(&self, tally: u32, now_ms: u64) -> Option<(NumberedSubject, u64)> {
        let FleetTally { words, owner } = self.map.tally(tally)?;
        let claim = self.map.claim(tally)?;
        let (present, claim) = (owner.load(Ordering::Acquire), claim.load(Ordering::Acquire));
        let mut at_ms = now_ms;
        if let Some((layout, _)) = self.shapes.get(rule_of_owner(present)) {
            // A lease request is for the windows of the holding, if that is ahead.
            at_ms = layout.time_ms(words.holding.load(Ordering::Acquire), now_ms);
        }
        let at = Timestamp::from_unix_ms(at_ms);
        Some((self.table.numbered_subject(tally, [claim, present], at)?, present))
    }

    /// Waits until the gates of all machines of the fleet have the changes of keys that were made
    /// in this gate before, at most this long. Returns `None` if the machine's agent has not
    /// answered.
    ///
    /// A machine whose agent is stopped or cut off from the store has not confirmed them. It counts
    /// until it refuses all keys, as they may be out of date. [`lacking_keys`](Self::lacking_keys)
    /// names the machines. A confirmation is what the store says: a program that may write to the
    /// store can also forge one.
    ///
    /// # Errors
    /// - [`Error::Fleet`] with [`FleetError::NotCarried`] if the agent carries no keys.
    /// - Those of [`verify_gate`](Self::verify_gate).
    pub fn wait_for_keys(&self, at_most: Duration) -> Result<Option<KeysConfirmed>, Error> {
        self.verify_gate()?;
        let load = |word| self.page(word).load(Ordering::Acquire);
        if KeysState::from_bits(load(PageWord::Keys)).mode != KeysMode::Carried {
            let path = self.path().into();
            return Err(Error::Fleet { path, source: FleetError::NotCarried });
        }
        let number =
            self.page(PageWord::KeysRequested).fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        let begun = instant();
        loop {
            // The numbers are compared round: another command may have been answered since.
            let is_answered = load(PageWord::KeysAnswered).wrapping_sub(number) < u64::MAX / 2;
            let confirmed =
                is_answered.then(|| KeysConfirmed::from_bits(load(PageWord::KeysConfirmed)));
            let left = at_most.saturating_sub(instant().saturating_duration_since(begun));
            if confirmed.is_some_and(KeysConfirmed::is_complete) || left.is_zero() {
                return Ok(confirmed);
            }
            thread::sleep(KEYS_PAUSE.min(left));
        }
    }

    /// Returns some of the machines that had not confirmed the changes of keys when
    /// [`wait_for_keys`](Self::wait_for_keys) returned: at most four texts that say where each is,
    /// and why.
    pub fn lacking_keys(&self) -> impl Iterator<Item = String> {
        self.page_texts(PageWord::KeysLacking).into_iter()
    }

    /// Sleeps until a request rings, at most this long. Returns at once if a tally wants credits.
    pub fn sleep(&self, at_most: Duration) {
        self.map.sleep(at_most);
    }

    /// Wakes the requests that wait for grants.
    pub fn wake(&self) {
        self.map.wake();
    }

    /// Ends the agent's [`sleep`](Self::sleep), as a request does.
    pub fn ring(&self) {
        self.map.ring();
    }
}

/// Returns the text of a path in the page: the end of a longer one.
fn path_text(path: &Path) -> String {
    let path = path.to_string_lossy();
    let text: String = path.chars().filter(|character| !character.is_control()).collect();
    let from = text.len().saturating_sub(MAX_PAGE_TEXT_LEN);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[from..].to_owned()
}

/// How often a command looks whether other machines have its change.
const KEYS_PAUSE: Duration = Duration::from_millis(2);

/// How many machines of a fleet have changes of keys: see [`FleetFile::wait_for_keys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeysConfirmed {
    /// The agents that have confirmed the changes.
    pub confirmed: u32,
    /// The agents whose machines may still admit keys, that of this machine among them.
    pub agents: u32,
}

impl KeysConfirmed {
    fn from_bits(bits: u64) -> Self {
        let [low, high] = [bits, bits >> 32].map(|half| u32::try_from(half & 0xffff_ffff));
        Self { confirmed: low.unwrap_or(0), agents: high.unwrap_or(0) }
    }

    /// Returns whether all of them have confirmed.
    pub const fn is_complete(self) -> bool {
        self.confirmed == self.agents && self.agents > 0
    }
}

/// Opens or creates the map of a fleet file.
type OpenMap = fn(&Path, FileLayout, u64) -> Result<FleetMap, Error>;

/// Opens the fleet file of a table, and returns the shapes of its tallies.
fn open(
    path: &Path,
    table: FleetTable<'_>,
    open: OpenMap,
) -> Result<(FleetMap, heapless::Vec<(CreditLayout, bool), MAX_PARTS>), Error> {
    let refused = |source| Error::Fleet { path: path.into(), source };
    let shapes = shapes(table).map_err(refused)?;
    let map = open(path, file_layout(table).map_err(refused)?, table.id())?;
    Ok((map, shapes))
}

/// Returns the layout of the credits of each tally of a request, and whether a team shares it.
fn shapes(
    table: FleetTable<'_>,
) -> Result<heapless::Vec<(CreditLayout, bool), MAX_PARTS>, FleetError> {
    let mut shapes = heapless::Vec::new();
    let mut add = |layout: &Layout, is_shared| {
        // Requests spend without the limits, which each plan has its own of.
        let credits = CreditLayout::new(layout, &layout.largest_limits())?;
        // There is room for every tally of a request.
        let _ = shapes.push((credits, is_shared));
        Ok::<_, FleetError>(())
    };
    match table {
        FleetTable::Gate(gate) => {
            for (section, layout) in gate.table().tally_shapes() {
                add(layout, is_shared(section))?;
            }
        }
        FleetTable::Limiter(limiter) => add(limiter.table().layout(), false)?,
        FleetTable::Addresses(limiter) => {
            for (_, layout) in limiter.table().shapes() {
                add(layout, false)?;
            }
        }
    }
    Ok(shapes)
}

/// Returns the layout of the fleet file of a table.
fn file_layout(table: FleetTable<'_>) -> Result<FileLayout, FleetError> {
    let tallies = table.tallies();
    let layout = u32::try_from(tallies).ok().and_then(FileLayout::new);
    layout.ok_or(FleetError::Tallies { tallies })
}
