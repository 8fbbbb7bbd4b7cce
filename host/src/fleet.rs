//! Fleets: machines that share the limits of their gates through one store.
//!
//! Each machine has a *fleet file* for its gate, in memory that its processes share. An agent
//! leases units from the store and puts them into the file as *credits*. Requests spend credits and
//! talk to no store.

use alloc::sync::Arc;
use core::time::Duration;
use std::path::Path;
use std::thread;

use heapless::Vec;
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_core::{MAX_PARTS, Section, TallyOwner, Timestamp, Verdict};
use keytally_fleet_plan::credit::{CreditLayout, Units};
use keytally_fleet_plan::layout::{FileLayout, KeysMode, KeysState, PageWord, WantedBits};
use keytally_fleet_plan::words::TallyWords;

use crate::clock::{instant, now};
use crate::error::{Error, FleetError};
use crate::fleet_credits::{Machine, Patience, is_shared, micros};
use crate::fleet_map::FleetMap;
use crate::gate::{Gate, Joined};
use crate::lock::Wait;

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
    /// - [`Error::Io`] if it cannot be opened. The agent creates it.
    pub fn join(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let refused = |source| Error::Fleet { path: path.into(), source };
        let shapes = shapes(self).map_err(refused)?;
        let map = FleetMap::open(path, file_layout(self).map_err(refused)?, self.table().id())?;
        let wait_us = self.credit_wait_us().load(Ordering::Relaxed);
        let machine = Arc::new(Machine::new(map, shapes, wait_us));
        self.set_joined(Joined::new(&machine)).map_err(|()| refused(FleetError::Joined))
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
            shapes(self).map_err(|source| Error::Fleet { path: path(), source })?;
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
        let mut left = self.credit_wait();
        let mut next = FIRST_PAUSE;
        core::iter::from_fn(move || {
            let pause = next.min(left);
            left -= pause;
            next = next.saturating_mul(2);
            (!pause.is_zero()).then_some(pause)
        })
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

/// The fleet file of a gate, as the machine's agent uses it.
///
/// A request reads and writes only credits and the wanted cost, and rings. Everything else is the
/// agent's, of which one at a time may run: see [`try_lock`](Self::try_lock).
#[derive(Debug)]
pub struct FleetFile<'g> {
    gate: &'g Gate,
    map: FleetMap,
}

/// A tally that machines share, as its store names it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FleetSubject {
    /// Its part of the store's key names: the key id or the account, and the section, such as
    /// `0Gk3XbT9qLm:key`, `0Gk3XbT9qLm:group.search` or `team.12:team`.
    pub name: String,
    /// The number that stands in the owner word: see [`FleetFile::owner`].
    pub owner: u64,
    /// The windows, and the limits that they have now.
    pub layout: CreditLayout,
}

impl<'g> FleetFile<'g> {
    /// Creates the fleet file of a gate at `path`, mode 0600, or opens it. Replaces a file that was
    /// written before this boot, or that is a copy, since its credits are void.
    ///
    /// The file should be in memory, such as in `/dev/shm`: nothing in it survives a restart.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`Error::Io`] if the file cannot be created.
    pub fn create(path: impl AsRef<Path>, gate: &'g Gate) -> Result<Self, Error> {
        Self::with(path.as_ref(), gate, FleetMap::create)
    }

    /// Creates the fleet file of a gate as [`create`](Self::create) does. Also replaces the fleet
    /// file of another gate, such as the one that this gate has replaced, of another version, or of
    /// another length. An agent's file is kept: see [`try_lock`](Self::try_lock).
    ///
    /// # Errors
    /// Those of [`create`](Self::create).
    pub fn replace(path: impl AsRef<Path>, gate: &'g Gate) -> Result<Self, Error> {
        Self::with(path.as_ref(), gate, FleetMap::replace)
    }

    /// Opens the fleet file of a gate.
    ///
    /// # Errors
    /// Those of [`Gate::join`].
    pub fn open(path: impl AsRef<Path>, gate: &'g Gate) -> Result<Self, Error> {
        Self::with(path.as_ref(), gate, FleetMap::open)
    }

    fn with(
        path: &Path,
        gate: &'g Gate,
        open: impl FnOnce(&Path, FileLayout, u64) -> Result<FleetMap, Error>,
    ) -> Result<Self, Error> {
        let refused = |source| Error::Fleet { path: path.into(), source };
        shapes(gate).map_err(refused)?;
        let map = open(path, file_layout(gate).map_err(refused)?, gate.table().id())?;
        Ok(Self { gate, map })
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

    /// Returns a word of the page.
    pub fn page(&self, word: PageWord) -> &AtomicU64 {
        self.map.page(word)
    }

    /// Returns the number of tallies of the file.
    pub fn tallies(&self) -> u32 {
        self.map.tallies()
    }

    /// Returns the tallies that want credits.
    pub fn wanted(&self) -> WantedBits<'_> {
        self.map.wanted()
    }

    /// Returns the four words of a tally; `None` if there is no such tally.
    pub fn words(&self, tally: u32) -> Option<TallyWords<'_>> {
        self.map.tally(tally).map(|tally| tally.words)
    }

    /// Returns the word that names the key or account to which the words of a tally belong; it is 0
    /// for none. The agent voids the words before it changes the owner.
    pub fn owner(&self, tally: u32) -> Option<&AtomicU64> {
        self.map.tally(tally).map(|tally| tally.owner)
    }

    /// Returns what the gate has at a tally now: `None` if it has no key or account there, or if
    /// its plan does not limit the section.
    pub fn subject(&self, tally: u32) -> Option<FleetSubject> {
        let found = self.gate.table().numbered_tally(tally.into(), now())?;
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

    /// Returns the tally's own counts in this machine's gate, of the windows of `now_ms`. They also
    /// have what was admitted without credits.
    pub fn counted(&self, tally: u32, now_ms: u64) -> Units {
        let now = Timestamp::from_unix_ms(now_ms);
        let mut units = Units::default();
        if let Some(found) = self.gate.table().numbered_tally(tally.into(), now) {
            for (units, state) in units.iter_mut().zip(found.quotas.iter()) {
                *units = state.used();
            }
        }
        units
    }

    /// Waits until the gates of all machines of the fleet have the changes of keys that were made
    /// in this gate before, at most this long. Returns `None` if the machine's agent has not
    /// answered.
    ///
    /// A machine that is cut off from the store is not counted: it has the changes when it is
    /// connected again, or refuses all keys when they may be out of date.
    ///
    /// # Errors
    /// [`Error::Fleet`] with [`FleetError::NotCarried`] if the agent carries no keys.
    pub fn wait_for_keys(&self, at_most: Duration) -> Result<Option<KeysConfirmed>, Error> {
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

/// How often a command looks whether other machines have its change.
const KEYS_PAUSE: Duration = Duration::from_millis(2);

/// How many machines of a fleet have changes of keys: see [`FleetFile::wait_for_keys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeysConfirmed {
    /// The agents that have confirmed the changes.
    pub confirmed: u32,
    /// The agents that are connected to the store, that of this machine among them.
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

/// Returns the layout of the credits of each tally of a request, and whether a team shares it.
fn shapes(gate: &Gate) -> Result<Vec<(CreditLayout, bool), MAX_PARTS>, FleetError> {
    let mut shapes = Vec::new();
    for (section, layout) in gate.table().tally_shapes() {
        // Requests spend without the limits, which each plan has its own of.
        let credits = CreditLayout::new(layout, &layout.largest_limits())?;
        // There is room for every tally of a request.
        let _ = shapes.push((credits, is_shared(section)));
    }
    Ok(shapes)
}

/// Returns the layout of the fleet file of a gate.
fn file_layout(gate: &Gate) -> Result<FileLayout, FleetError> {
    let tallies = gate.table().numbered_tallies();
    let layout = u32::try_from(tallies).ok().and_then(FileLayout::new);
    layout.ok_or(FleetError::Tallies { tallies })
}
