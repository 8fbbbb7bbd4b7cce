//! Carries the keys of a gate to the other machines of its fleet, through the store.
//!
//! The store has a sealed record of each key, and a position for each write. An agent reads what
//! was written after the position that it knows, merges it with what its gate has, and puts the
//! result into the gate, the store, or both. It writes only if the store still has what it has
//! read. So the order of the machines does not matter, and a store that lost records gets them
//! again. `keytally-fleet-plan` decides what holds.

mod memory;
mod store;

use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt::Write as _;
use core::time::Duration;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use keytally::{
    AdminError, Administrator, Error, FleetFile, Gate, KeyId, KeyRecord, Mapping, Peppers,
};
use keytally_core::Timestamp;
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet_plan::fleet_key::{Carried, Exchanged, FleetKey, Present, digest};
use keytally_fleet_plan::layout::{KeysMode, KeysState, PageWord};
use keytally_fleet_plan::seal::{MAX_SEALED_TEXT_LEN, Seal};

pub use self::memory::MIN_FORMER_KEYS;
use self::memory::Memory;
pub use self::store::{
    CONNECTED_MS, KEY_SCRIPTS, MAX_ENDED_DAYS, MAX_KEYS_AT_ONCE, MAX_LOCATION_LEN,
};
use self::store::{
    Change, GATE_FIELD, KeyStore, MAX_REFUSED, Page, Peer, Progress, Report, Stored, location,
};
use crate::clock::Steady;
use crate::config::FleetConfig;
use crate::connection::PAUSES;
use crate::counters::add;
use crate::error::FleetError;
use crate::names::machine as name_in_store;

/// How often the gate is examined for changes, and the agent for messages of the store.
pub const KEYS_TURN: Duration = Duration::from_millis(20);

/// How often the store is read without a message.
pub const KEYS_POLL: Duration = Duration::from_secs(1);

/// How often all records of the store are read.
pub const KEYS_FULL_READ: Duration = Duration::from_secs(60);

/// For how long a command that waits for other machines gets new answers.
pub const MAX_KEYS_WAIT: Duration = Duration::from_secs(60);

/// How many keys of a gate are compared with those of the store at most, until one is in both.
pub const MAX_KEYS_COMPARED: usize = 1024;

/// The value of [`PageWord::KeysClose`] while the gate is an older copy: all keys are unavailable.
const CLOSED: u64 = 1;

/// A search for changed records takes at most this part of the time.
const SCAN_SHARE: u32 = 10;

/// Reading all records takes at most this part of the time.
const FULL_READ_SHARE: u32 = 50;

/// What the keys of an agent have done, which other threads may read.
#[derive(Debug, Default)]
struct KeyCounters {
    sent: AtomicU64,
    applied: AtomicU64,
    unsealed: AtomicU64,
    older: AtomicU64,
}

/// What was carried since the start of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// Records that were written to the store.
    pub sent: u64,
    /// Keys that were put into the gate or revoked in it.
    pub applied: u64,
    /// Records of the store that were not accepted, as no machine of the fleet had sealed them.
    pub unsealed: u64,
    /// Records of the store that were older than what the store had before.
    pub older: u64,
}

/// Carries the keys of a gate to other machines, next to the machine's
/// [`Agent`](crate::Agent).
///
/// At most one of a gate may run at a time, as of the agent.
#[derive(Debug)]
pub struct KeyCarrier<'g> {
    gate: &'g Gate,
    file: &'g FleetFile<'g>,
    config: FleetConfig,
    peppers: Peppers,
    stale_after: Option<Duration>,
    counters: KeyCounters,
    problem: Mutex<Option<String>>,
    damage: Mutex<Option<String>>,
    /// 1 while the gate is an older copy.
    behind: AtomicU64,
}

impl<'g> KeyCarrier<'g> {
    /// The carrier of the keys of a gate, with its fleet file and its peppers.
    ///
    /// After `stale_after` without the store, all keys of the gate are unavailable to requests that
    /// need credits of the fleet. `None` is never.
    ///
    /// # Errors
    /// [`FleetError::Refused`] for a configuration that no fleet can have.
    pub fn new(
        gate: &'g Gate,
        file: &'g FleetFile<'g>,
        config: &FleetConfig,
        peppers: &Peppers,
        stale_after: Option<Duration>,
    ) -> Result<Self, FleetError> {
        config.verify()?;
        Ok(Self {
            gate,
            file,
            config: config.clone(),
            peppers: peppers.clone(),
            stale_after,
            counters: KeyCounters::default(),
            problem: Mutex::new(None),
            damage: Mutex::new(None),
            behind: AtomicU64::new(0),
        })
    }

    /// Returns what was carried since the start.
    pub fn counts(&self) -> KeyCounts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let KeyCounters { sent, applied, unsealed, older } = &self.counters;
        KeyCounts {
            sent: load(sent),
            applied: load(applied),
            unsealed: load(unsealed),
            older: load(older),
        }
    }

    /// Returns why keys are not carried at present, or which key the gate refuses.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a sentence if the file that remembers which keys were carried was damaged when the
    /// carrier began.
    pub fn damage(&self) -> Option<String> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether the gate is an older copy of the one that this machine had, and does not
    /// have all changes of the store yet. All its keys are then unavailable to requests that need
    /// credits of the fleet, since some of them may have been revoked after the copy was made.
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire) != 0
    }

    /// Runs until `is_stopped` returns true. `messages` returns the number of messages that the
    /// store has sent on the channel of keys.
    ///
    /// # Errors
    /// [`FleetError::Refused`] if the store cannot be used, has the keys of other gates, or has
    /// keys under other peppers, before any key was carried. Later, that counts as a loss of the
    /// store.
    pub fn run(
        &self,
        messages: impl Fn() -> u64,
        is_stopped: impl Fn() -> bool,
    ) -> Result<(), FleetError> {
        Turns::new(self)?.run(messages, is_stopped)
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn page(&self, word: PageWord) -> &AtomicU64 {
        self.file.page(word)
    }
}

/// Why a turn ended early.
enum Trouble {
    /// The store must be connected again.
    Store(FleetError),
    /// The gate cannot be read or changed now.
    Gate(Error),
}

impl From<FleetError> for Trouble {
    fn from(error: FleetError) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Gate(error)
    }
}

/// A command that waits until other machines have its change.
#[derive(Clone, Copy, Debug)]
struct Requested {
    number: u64,
    at: Duration,
    /// The positions of its change: after the first one, up to the second.
    from: u64,
    to: Option<u64>,
    next: Duration,
}

/// A reading of all records of the store.
#[derive(Debug)]
struct FullRead {
    /// The position up to which they were read.
    after: u64,
    /// Those that were found: a bit for each record of the gate.
    found: Vec<u64>,
    begun: Duration,
    /// Whether the store may have changes that are not known without it.
    is_needed: bool,
}

/// What the thread has in memory.
struct Turns<'a> {
    carrier: &'a KeyCarrier<'a>,
    seal: Seal<'a>,
    description: Description,
    location: String,
    /// A hash of the names and limits of the plans, and when it was read.
    limits: u64,
    limits_at: Duration,
    memory: Memory,
    steady: Steady,
    store: Option<KeyStore>,
    retry_at: Duration,
    pause: Duration,
    has_been_current: bool,
    /// What [`PageWord::KeysClose`] must be.
    close_ms: u64,
    /// The store's time at its last reply.
    now_ms: u64,
    /// The position up to which the store was read; `None` before the first reply.
    after: Option<u64>,
    /// That of its last write.
    head: u64,
    /// The last write as of a second ago or more.
    earlier: (Duration, u64, u64),
    full: Option<FullRead>,
    full_at: Duration,
    polled_at: Option<Duration>,
    seen_messages: u64,
    must_poll: bool,
    progress: Progress,
    /// The last word of each record when it was last seen.
    words: Vec<u64>,
    change_word: Option<u64>,
    scan_at: Duration,
    /// Keys that may differ from what the store has.
    dirty: BTreeSet<KeyId>,
    /// Keys that this machine does not have as the others do: the position of the record, and why.
    refused: BTreeMap<KeyId, (u64, Refusal)>,
    requested: Option<Requested>,
    answered: u64,
}

impl<'a> Turns<'a> {
    fn new(carrier: &'a KeyCarrier<'a>) -> Result<Self, FleetError> {
        let gate = carrier.gate;
        let path = gate.path().unwrap_or_else(|| carrier.file.path());
        let capacity = gate.table().capacity();
        let steady = Steady::start();
        let memory = Memory::open(Path::new(path), gate.table().id(), capacity)?;
        *carrier.damage.lock().unwrap_or_else(PoisonError::into_inner) = memory.damage();
        let mut turns = Self {
            carrier,
            seal: Seal::new(&carrier.config.name, &carrier.peppers),
            description: Description::of(gate),
            location: location(&carrier.config.host, Path::new(path)),
            limits: limits_of(gate),
            limits_at: steady.elapsed(),
            memory,
            steady,
            store: None,
            retry_at: Duration::ZERO,
            pause: PAUSES[0],
            has_been_current: false,
            close_ms: carrier.page(PageWord::KeysClose).load(Ordering::Acquire),
            now_ms: steady.ms(),
            after: None,
            head: 0,
            earlier: (Duration::ZERO, 0, 0),
            full: None,
            full_at: Duration::ZERO,
            polled_at: None,
            seen_messages: 0,
            must_poll: false,
            progress: Progress { position: 0, refused: Vec::new() },
            words: vec![0; usize::try_from(capacity).unwrap_or(0)],
            change_word: None,
            scan_at: Duration::ZERO,
            dirty: BTreeSet::new(),
            refused: BTreeMap::new(),
            requested: None,
            answered: carrier.page(PageWord::KeysAnswered).load(Ordering::Acquire),
        };
        turns.show();
        // Otherwise the time of the agent before counts.
        if turns.close_ms == 0 || (carrier.stale_after.is_none() && turns.close_ms != CLOSED) {
            turns.keep_open(turns.fleet_ms());
        }
        Ok(turns)
    }

    /// Returns the fleet's time as requests read it.
    fn fleet_ms(&self) -> u64 {
        let offset = self.carrier.page(PageWord::Offset).load(Ordering::Acquire).cast_signed();
        self.steady.ms().saturating_add_signed(offset)
    }

    /// Lets keys be valid for the next time without the store.
    fn keep_open(&mut self, now_ms: u64) {
        let close_ms = self.carrier.stale_after.map_or(0, |stale_after| {
            now_ms.saturating_add(u64::try_from(stale_after.as_millis()).unwrap_or(u64::MAX))
        });
        self.set_close(close_ms);
    }

    /// Makes all keys unavailable until the gate has all changes: it is an older copy, and keys of
    /// it may have been revoked since.
    fn close(&mut self) {
        self.carrier.behind.store(1, Ordering::Release);
        self.set_close(CLOSED);
        self.begin_full_read(true);
    }

    fn set_close(&mut self, close_ms: u64) {
        self.close_ms = close_ms;
        self.carrier.page(PageWord::KeysClose).store(close_ms, Ordering::Release);
    }

    /// Writes the state to the page.
    fn show(&self) {
        let refused = u32::try_from(self.refused.len()).unwrap_or(u32::MAX);
        let state = KeysState { mode: KeysMode::Carried, refused };
        self.carrier.page(PageWord::Keys).store(state.bits(), Ordering::Release);
    }

    fn run(
        &mut self,
        messages: impl Fn() -> u64,
        is_stopped: impl Fn() -> bool,
    ) -> Result<(), FleetError> {
        while !is_stopped() {
            let result = self.turn(messages());
            match result {
                Ok(true) => continue,
                Ok(false) => {}
                Err(Trouble::Gate(error)) => self.carrier.set_problem(Some(error.to_string())),
                Err(Trouble::Store(problem)) => self.lost(problem)?,
            }
            thread::sleep(KEYS_TURN);
        }
        Ok(())
    }

    /// Does what is due. Returns whether there is more to do at once.
    fn turn(&mut self, messages: u64) -> Result<bool, Trouble> {
        // The fleet file may have been overwritten.
        self.set_close(self.close_ms);
        self.note_requested();
        self.scan();
        if !self.connect()? {
            return Ok(false);
        }
        let elapsed = self.steady.elapsed();
        if elapsed.saturating_sub(self.earlier.0) >= KEYS_POLL {
            self.earlier = (elapsed, self.earlier.2, self.head);
        }
        if elapsed >= self.full_at && self.full.is_none() {
            self.begin_full_read(false);
        }
        let is_poll_due = self.polled_at.is_none_or(|at| elapsed.saturating_sub(at) >= KEYS_POLL);
        let must_poll = self.must_poll || is_poll_due || messages != self.seen_messages;
        if must_poll && self.after.is_some() {
            self.seen_messages = messages;
            self.poll()?;
        } else if self.full.is_some() {
            self.read_all()?;
        } else if !self.dirty.is_empty() {
            self.push()?;
        }
        self.answer()?;
        Ok(self.must_poll || self.full.is_some() || !self.dirty.is_empty())
    }

    /// Connects, unless there is a connection or it is too early. Returns whether there is one.
    fn connect(&mut self) -> Result<bool, FleetError> {
        if self.store.is_none() && self.steady.elapsed() >= self.retry_at {
            self.store = Some(KeyStore::connect(&self.carrier.config)?);
            self.begin_full_read(true);
        }
        // Without a name, the machine's agent has not begun.
        let name = self.carrier.page(PageWord::Name).load(Ordering::Acquire);
        Ok(self.store.is_some() && name != 0)
    }

    /// Begins to read all records. Until they are read, the gate does not have all changes if that
    /// `is_needed`.
    fn begin_full_read(&mut self, is_needed: bool) {
        let found = vec![0; self.words.len().div_ceil(64)];
        let begun = self.steady.elapsed();
        self.full = Some(FullRead { after: 0, found, begun, is_needed });
        if is_needed {
            (self.after, self.head) = (None, 0);
            self.progress.position = 0;
        }
    }

    /// Gives up the connection.
    fn lost(&mut self, problem: FleetError) -> Result<(), FleetError> {
        if matches!(problem, FleetError::Refused(_)) && !self.has_been_current {
            return Err(problem);
        }
        self.carrier.set_problem(Some(problem.to_string()));
        self.store = None;
        self.retry_at = self.steady.elapsed() + self.pause;
        self.pause = (2 * self.pause).min(PAUSES[1]);
        Ok(())
    }

    fn store(&mut self) -> Result<&mut KeyStore, FleetError> {
        self.store.as_mut().ok_or_else(|| FleetError::lost("the store is not connected"))
    }

    /// Finds the records of the gate that were changed, and whether it is an older copy of the one
    /// that was there. The gate may then have room for keys that
    /// it has refused, or a plan that it lacked.
    fn scan(&mut self) {
        let table = self.carrier.gate.table();
        let word = table.change_word();
        let begun = self.steady.elapsed();
        if begun.saturating_sub(self.limits_at) >= KEYS_POLL {
            self.limits_at = begun;
            let limits = limits_of(self.carrier.gate);
            if core::mem::replace(&mut self.limits, limits) != limits {
                self.dirty.extend(self.refused.keys());
            }
        }
        if self.change_word == Some(word) || begun < self.scan_at {
            return;
        }
        self.change_word = Some(word);
        self.dirty.extend(self.refused.keys());
        let mut is_behind = false;
        for ((key_id, word), seen) in table.record_words().zip(&mut self.words) {
            if core::mem::replace(seen, word) != word {
                is_behind |= key_id.is_some_and(|key_id| {
                    self.memory.is_ahead(key_id, table.record_writes(key_id))
                });
                self.dirty.extend(key_id);
            }
        }
        if is_behind {
            self.close();
        }
        let end = self.steady.elapsed();
        self.scan_at = end + SCAN_SHARE * end.saturating_sub(begun);
    }

    /// Reads what was written since the last time.
    fn poll(&mut self) -> Result<(), Trouble> {
        let after = self.after.unwrap_or(0);
        let Some(page) = self.read(after)? else { return Ok(()) };
        self.must_poll = !page.is_last;
        self.polled_at = Some(self.steady.elapsed());
        self.exchange(&page.records, false)?;
        self.after = Some(page.position);
        let lacks_some = self.full.as_ref().is_some_and(|full| full.is_needed);
        if page.is_last && self.dirty.is_empty() && !lacks_some {
            self.is_current(page.position);
        }
        Ok(())
    }

    /// Reads the next ones of all records.
    fn read_all(&mut self) -> Result<(), Trouble> {
        let after = self.full.as_ref().map_or(0, |full| full.after);
        let Some(page) = self.read(after)? else { return Ok(()) };
        // What is written later is read by `poll`.
        self.after.get_or_insert(page.head);
        self.exchange(&page.records, true)?;
        if let Some(full) = &mut self.full {
            full.after = page.position;
        }
        if page.is_last
            && let Some(full) = self.full.take()
        {
            self.find_missing(&full);
            let (name, location) = (self.name(), self.location.clone());
            self.store()?.forget_agents(page.now_ms, &name, &location)?;
            self.compare_limits()?;
            let end = self.steady.elapsed();
            self.refused.retain(|_, (_, why)| match why {
                Refusal::Revoked(at) => end.saturating_sub(*at) < KEYS_FULL_READ,
                _ => true,
            });
            let pause = FULL_READ_SHARE * end.saturating_sub(full.begun);
            self.full_at = end + KEYS_FULL_READ.max(pause);
            self.must_poll = true;
        }
        Ok(())
    }

    /// Reads some records after a position. Returns `None` if the store has lost writes, so that
    /// all records must be read.
    fn read(&mut self, after: u64) -> Result<Option<Page>, Trouble> {
        let (name, report) = (self.name(), self.report());
        let page = self.store()?.read(&name, &report, after)?;
        self.now_ms = page.now_ms;
        add(&self.carrier.counters.unsealed, page.misplaced);
        let has_lost = self.after.is_some_and(|last| page.head < last);
        if has_lost {
            self.begin_full_read(true);
        }
        if !self.verify_gate(&page.gate)? || has_lost {
            return Ok(None);
        }
        self.head = self.head.max(page.head);
        Ok(Some(page))
    }

    /// Returns the machine's name in the store.
    fn name(&self) -> String {
        name_in_store(self.carrier.page(PageWord::Name).load(Ordering::Acquire))
    }

    /// Returns what this machine reports to the others.
    fn report(&self) -> Report {
        let stale_after = self.carrier.stale_after.map_or(0, |time| time.as_millis());
        Report {
            location: self.location.clone(),
            stale_ms: u64::try_from(stale_after).unwrap_or(u64::MAX),
            limits: self.limits,
            progress: self.progress.clone(),
        }
    }

    /// Writes to the page which machines have plans with other limits than this one.
    fn compare_limits(&mut self) -> Result<(), FleetError> {
        let (now_ms, limits) = (self.now_ms, self.limits);
        let mut peers = self.store()?.peers(now_ms)?;
        peers.retain(|peer| peer.is_connected() && peer.report.limits != limits);
        let others: Vec<_> = peers.into_iter().map(|peer| peer.report.location).collect();
        self.carrier.file.set_page_texts(PageWord::OtherLimits, &others);
        Ok(())
    }

    /// Notes that the gate has all that the store had.
    fn is_current(&mut self, position: u64) {
        // This gate does not lack what is revoked.
        let lacked = self.refused.values().filter(|(_, why)| !matches!(why, Refusal::Revoked(_)));
        let mut refused: Vec<_> = lacked.map(|(position, _)| *position).collect();
        refused.sort_unstable_by(|one, other| other.cmp(one));
        refused.truncate(MAX_REFUSED);
        let progress = Progress { position, refused };
        // The other machines must know.
        self.must_poll |= self.progress != progress;
        self.progress = progress;
        self.has_been_current = true;
        self.pause = PAUSES[0];
        self.carrier.page(PageWord::KeysCurrent).store(self.now_ms, Ordering::Release);
        self.carrier.behind.store(0, Ordering::Release);
        self.keep_open(self.now_ms);
        self.show();
        let refused = self.refused.iter().next();
        self.carrier.set_problem(refused.map(|(key_id, (_, why))| why.sentence(*key_id)));
    }

    /// Finds the keys of the gate that the store does not have. A store that may have lost data
    /// also gets the revocations of keys that the gate does not have any more.
    fn find_missing(&mut self, FullRead { found, is_needed, .. }: &FullRead) {
        if *is_needed {
            self.dirty.extend(self.memory.revoked());
        }
        for (index, (key_id, _)) in self.carrier.gate.table().record_words().enumerate() {
            let is_found = found.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1);
            if !is_found {
                self.dirty.extend(key_id);
            }
        }
    }

    /// Exchanges some of the keys that may differ.
    fn push(&mut self) -> Result<(), Trouble> {
        let key_ids: Vec<_> = self.dirty.iter().copied().take(MAX_KEYS_AT_ONCE).collect();
        let stored = self.store()?.find(&key_ids)?;
        self.exchange(&stored, true)?;
        self.must_poll |= self.dirty.is_empty();
        Ok(())
    }

    /// Merges records of the store with what the gate has. `heals` replaces records that were not
    /// accepted.
    fn exchange(&mut self, stored: &[Stored], heals: bool) -> Result<(), Trouble> {
        if stored.is_empty() {
            return Ok(());
        }
        let now = Timestamp::from_unix_ms(self.now_ms);
        let opened: Vec<_> = stored
            .iter()
            .map(|Stored { key_id, bytes, .. }| self.seal.open(&key_id.to_string(), bytes))
            .collect();
        let gate = self.carrier.gate;
        // The disk must have what is remembered of a key before its entry is another key's.
        for Stored { key_id, .. } in stored {
            self.memory.keep_former(*key_id, || gate.key(*key_id).is_some())?;
        }
        self.memory.flush()?;
        let memory = &self.memory;
        let merge = |administrator: &Administrator<'_, Mapping>| -> Vec<Option<Merged>> {
            let one = |(Stored { key_id, .. }, theirs): (&Stored, &Option<FleetKey>)| {
                Merged::of(administrator, gate, *key_id, memory.of(*key_id), theirs.as_ref(), now)
            };
            stored.iter().zip(&opened).map(one).collect()
        };
        let mut all = gate.read_as_administrator(merge)?;
        let mut refusals = BTreeMap::new();
        let mut applied = 0;
        if all.iter().flatten().any(Merged::changes_gate) {
            all = gate.administer(|administrator| {
                // The gate may have been changed meanwhile.
                let mut all = merge(administrator);
                for (Stored { key_id, .. }, merged) in stored.iter().zip(&mut all) {
                    let Some(merged) = merged.as_mut().filter(|one| one.changes_gate()) else {
                        continue;
                    };
                    let remembered = memory.of(*key_id);
                    match merged.apply(administrator, gate, *key_id, remembered, now) {
                        Ok(is_other) => applied += u64::from(is_other),
                        Err(why) => drop(refusals.insert(*key_id, why)),
                    }
                }
                Ok(all)
            })?;
        }
        add(&self.carrier.counters.applied, applied);
        let mut changes = Vec::new();
        for ((stored, opened), merged) in stored.iter().zip(opened).zip(all) {
            let Stored { key_id, position, bytes } = stored;
            self.dirty.remove(key_id);
            self.note_found(*key_id, opened.is_some());
            let is_unsealed = opened.is_none() && !bytes.is_empty();
            add(&self.carrier.counters.unsealed, is_unsealed.into());
            let Some(Merged { exchanged, carried, .. }) = merged else { continue };
            add(&self.carrier.counters.older, exchanged.is_older.into());
            let is_held = || gate.key(*key_id).is_some();
            let refusal = match refusals.remove(key_id) {
                Some(why) => Some(Refusal::Gate(why)),
                None if exchanged.is_withheld => Some(Refusal::Older),
                None if !exchanged.is_older || is_held() => None,
                None if exchanged.changes_store => Some(Refusal::Revoked(self.steady.elapsed())),
                None => exchanged.key.ended_s(now).is_none().then_some(Refusal::Former),
            };
            let is_withheld = matches!(refusal, Some(Refusal::Gate(_) | Refusal::Older));
            match refusal {
                Some(why) => {
                    // A further attempt is about the same record.
                    let known = self.refused.get(key_id).map(|(known, _)| *known);
                    let read = Some(*position).filter(|position| *position > 0);
                    let position = read.or(known).unwrap_or(self.head);
                    self.refused.insert(*key_id, (position, why));
                }
                // The store has the revocation again at once, but the log must name the key.
                None if matches!(self.refused.get(key_id), Some((_, Refusal::Revoked(_)))) => {}
                None => drop(self.refused.remove(key_id)),
            }
            if is_withheld {
                continue;
            }
            if !exchanged.is_older || exchanged.changes_store {
                self.memory.set(*key_id, carried, is_held)?;
            }
            let field = key_id.to_string();
            let ended_s = exchanged.key.ended_s(now);
            let is_past = ended_s.is_some_and(|at_s| at_s + MAX_ENDED_DAYS * 86_400 < now.unix_s());
            let after = match exchanged.changes_store {
                // A gate that still has an expired key does not bring it back.
                true if is_past && bytes.is_empty() => continue,
                true if is_unsealed && !heals => continue,
                true => match self.seal.seal(&field, &exchanged.key) {
                    Some(sealed) => sealed.to_vec(),
                    None => continue,
                },
                false if is_past && heals => Vec::new(),
                false => continue,
            };
            changes.push(Change { field, before: bytes.clone(), after });
        }
        self.memory.flush()?;
        self.write(&changes)?;
        Ok(())
    }

    /// Notes that the store has a key, in a reading of all records.
    fn note_found(&mut self, key_id: KeyId, is_sealed: bool) {
        let index = self.memory.index(key_id);
        let is_its = self.carrier.gate.key(key_id).is_some();
        if let Some(full) = &mut self.full
            && let Some(word) = full.found.get_mut(index / 64).filter(|_| is_sealed && is_its)
        {
            *word |= 1 << (index % 64);
        }
    }

    /// Writes records to the store.
    fn write(&mut self, changes: &[Change]) -> Result<(), FleetError> {
        if changes.is_empty() {
            return Ok(());
        }
        let (head, conflicts) = self.store()?.write(changes)?;
        self.head = head;
        let written = changes.len().saturating_sub(conflicts.len());
        add(&self.carrier.counters.sent, u64::try_from(written).unwrap_or(0));
        self.dirty.extend(conflicts.iter().filter_map(|field| field.parse::<KeyId>().ok()));
        // What was written is read as others read it.
        self.must_poll = true;
        Ok(())
    }

    /// Refuses a fleet whose gates are unlike this one, or that has the keys of another gate.
    /// Describes the gate if no agent has yet, or another program has written over that. Returns
    /// whether the fleet has this description.
    fn verify_gate(&mut self, sealed: &[u8]) -> Result<bool, FleetError> {
        let fleet = &self.carrier.config.name;
        let text = match self.seal.open_text(GATE_FIELD, sealed) {
            None if Seal::is_text(sealed) => {
                return Err(FleetError::refused(format!(
                    "the keys of the fleet {fleet} in the store are sealed under other peppers: give \
                     all machines of the fleet the same peppers; if they have them, another \
                     program has changed the field: hdel 'kt:{{{fleet}/keys}}' {GATE_FIELD}"
                )));
            }
            text => text.map(str::to_owned),
        };
        let gate = self.carrier.gate.table();
        let owns_keys = || gate.record_words().any(|(key_id, _)| key_id.is_some());
        let own = match &text {
            None => {
                let remembered = Some(self.memory.fleet()).filter(|number| *number > 0);
                let number = remembered.unwrap_or_else(|| gate.id());
                let line = Line { number, has_keys: owns_keys() };
                format!("{line} {}", self.description)
            }
            Some(text) => {
                let (line, rest) = self.description.verify(text, fleet)?;
                if line.has_keys {
                    self.verify_number(line.number)?;
                }
                self.memory.set_fleet(line.number)?;
                let has_keys = line.has_keys || owns_keys();
                format!("{} {rest}", Line { has_keys, ..line })
            }
        };
        let Some(after) = self.seal.seal_text(GATE_FIELD, &own) else { return Ok(true) };
        // More peppers are newer ones.
        let is_better = after.len() >= sealed.len() && *after != *sealed && self.full.is_some();
        if text.is_none() || is_better {
            // Another program has written what is not the text of any fleet.
            let is_replaced = text.is_none() && !sealed.is_empty();
            add(&self.carrier.counters.unsealed, is_replaced.into());
            let field = GATE_FIELD.to_owned();
            self.write(&[Change { field, before: sealed.to_vec(), after: after.to_vec() }])?;
        }
        Ok(text.is_some())
    }

    /// Refuses a fleet with this number if it has the keys of another gate. A gate belongs to it
    /// if it, or the gate that it has replaced, was in it before; if it is a copy of the first
    /// gate; if it has no keys yet; or if it has one of the keys in the store.
    fn verify_number(&mut self, number: u64) -> Result<(), FleetError> {
        let gate = self.carrier.gate.table();
        if self.memory.fleet() == number || gate.id() == number {
            return Ok(());
        }
        let key_ids = gate.record_words().filter_map(|(key_id, _)| key_id);
        let key_ids: Vec<_> = key_ids.take(MAX_KEYS_COMPARED).collect();
        if key_ids.is_empty() {
            return Ok(());
        }
        for key_ids in key_ids.chunks(MAX_KEYS_AT_ONCE) {
            let stored = self.store()?.find(key_ids)?;
            let is_its = |stored: &Stored| {
                self.seal.open(&stored.key_id.to_string(), &stored.bytes).is_some()
            };
            if stored.iter().any(is_its) {
                return Ok(());
            }
        }
        let fleet = &self.carrier.config.name;
        Err(FleetError::refused(format!(
            "the fleet {fleet} has the keys of another gate, and none of those of this gate: name \
             another fleet, replace this gate by a copy of one of the fleet, or do not carry its \
             keys: --no-keys"
        )))
    }

    /// Takes a command that waits until the other machines have its change. The change was made
    /// before, so the scan that follows finds it.
    fn note_requested(&mut self) {
        let number = self.carrier.page(PageWord::KeysRequested).load(Ordering::Acquire);
        if number != self.answered
            && self.requested.is_none_or(|requested| requested.number != number)
        {
            let at = self.steady.elapsed();
            self.requested =
                Some(Requested { number, at, from: self.earlier.1, to: None, next: at });
            self.scan_at = Duration::ZERO;
        }
    }

    /// Reports to the command how many machines have its change.
    fn answer(&mut self) -> Result<(), FleetError> {
        let elapsed = self.steady.elapsed();
        let head = self.head;
        let lacks_some = self.full.as_ref().is_some_and(|full| full.is_needed);
        let is_sent = self.dirty.is_empty() && !lacks_some && self.polled_at.is_some();
        let Some(requested) =
            self.requested.as_mut().filter(|requested| is_sent && elapsed >= requested.next)
        else {
            return Ok(());
        };
        let to = *requested.to.get_or_insert(head);
        let waited = elapsed.saturating_sub(requested.at);
        requested.next = elapsed + (waited / 20).max(KEYS_TURN);
        let Requested { number, from, .. } = *requested;
        let now_ms = self.now_ms;
        let peers = self.store()?.peers(now_ms)?;
        let has = |peer: &Peer| peer.is_connected() && peer.report.progress.has(from, to);
        let lacking: Vec<_> = peers.iter().filter(|peer| !has(peer)).map(lacks).collect();
        let [confirmed, all] = [peers.len() - lacking.len(), peers.len()]
            .map(|count| u64::try_from(count).unwrap_or(0));
        let page = |word| self.carrier.page(word);
        self.carrier.file.set_page_texts(PageWord::KeysLacking, &lacking);
        page(PageWord::KeysConfirmed).store(all << 32 | confirmed, Ordering::Release);
        page(PageWord::KeysAnswered).store(number, Ordering::Release);
        self.answered = number;
        if (confirmed == all && all > 0) || waited >= MAX_KEYS_WAIT {
            self.requested = None;
        }
        Ok(())
    }
}

/// Returns which machine has not confirmed a change, and why.
fn lacks(peer: &Peer) -> String {
    let location = &peer.report.location;
    if peer.is_connected() {
        format!("{location} (behind, or it refuses the key)")
    } else {
        format!("{location} (no report for {} s)", peer.age_ms / 1000)
    }
}

/// Returns a hash of the names and limits of a gate's plans.
fn limits_of(gate: &Gate) -> u64 {
    let mut text = String::new();
    for (_, plan) in gate.table().plans() {
        let _ = write!(text, "{}=", plan.name.as_str());
        for section in plan.sections.iter() {
            let _ = write!(text, "{}", section.section().name());
            for quota in section.quotas() {
                let _ = write!(text, " {}/{}", quota.limit, quota.window);
            }
        }
        text.push(';');
    }
    digest(text.as_bytes())
}

/// Writes to a machine's page that its agent does not carry keys.
pub fn set_not_carried(file: &FleetFile<'_>, mode: KeysMode) {
    file.set_page_texts(PageWord::OtherLimits, &[]);
    file.page(PageWord::Keys).store(KeysState { mode, refused: 0 }.bits(), Ordering::Release);
    file.page(PageWord::KeysClose).store(0, Ordering::Release);
}

/// What comes of an exchange about one key of a gate, and what is then remembered of the key.
#[derive(Debug)]
struct Merged {
    exchanged: Exchanged,
    carried: Carried,
    /// Whether the record is from an older copy of the gate, but holds what it must.
    is_behind: bool,
}

impl Merged {
    fn of(
        administrator: &Administrator<'_, Mapping>,
        gate: &Gate,
        key_id: KeyId,
        remembered: Option<Carried>,
        theirs: Option<&FleetKey>,
        now: Timestamp,
    ) -> Option<Self> {
        let record = administrator.read(key_id);
        let writes = gate.table().record_writes(key_id);
        let present = record.as_ref().map(|record| Present { record, writes });
        let exchanged = FleetKey::exchange(present, remembered, theirs, now)?;
        let is_behind = record.is_some()
            && !exchanged.is_withheld
            && remembered.is_some_and(|carried| carried.is_after(writes));
        let carried = Self::carried(&exchanged.key, record, writes);
        Some(Self { exchanged, carried, is_behind })
    }

    /// Returns what is remembered of a key, of which the gate has this record.
    fn carried(key: &FleetKey, record: Option<KeyRecord>, writes: u16) -> Carried {
        let carried = key.carried(writes);
        match (key, record) {
            // A gate may keep less of a key than others do.
            (FleetKey::Active { version, .. }, Some(record)) => {
                let digest = FleetKey::Active { version: *version, record }.digest();
                Carried { digest, ..carried }
            }
            _ => carried,
        }
    }

    fn changes_gate(&self) -> bool {
        self.exchanged.changes_gate || self.is_behind
    }

    /// Makes the gate's record what it must be. Its number of writes does not fall below what was
    /// remembered, so that a further older copy of the gate is seen as one. Returns whether the
    /// record was another one.
    fn apply(
        &mut self,
        administrator: &mut Administrator<'_, Mapping>,
        gate: &Gate,
        key_id: KeyId,
        remembered: Option<Carried>,
        now: Timestamp,
    ) -> Result<bool, AdminError> {
        if self.exchanged.changes_gate {
            apply(administrator, key_id, &self.exchanged.key, now)?;
        }
        let writes = || gate.table().record_writes(key_id);
        while remembered.is_some_and(|carried| carried.is_after(writes())) {
            administrator.write_again(key_id)?;
        }
        let record = administrator.read(key_id);
        self.carried = Self::carried(&self.exchanged.key, record, writes());
        Ok(self.exchanged.changes_gate)
    }
}

/// Why this machine does not have a key as the others do.
#[derive(Debug)]
enum Refusal {
    /// The gate cannot hold it.
    Gate(AdminError),
    /// The gate has an older record than it had.
    Older,
    /// The store had an older record of a revoked key that the gate does not have any more. It was
    /// found at this time, and is reported for at least [`KEYS_FULL_READ`] since then.
    Revoked(Duration),
    /// The store has an older record than this machine has carried, and the gate does not have the
    /// key any more.
    Former,
}

impl Refusal {
    /// Returns what the log says of a key.
    fn sentence(&self, key_id: KeyId) -> String {
        match self {
            Self::Gate(AdminError::NoRoomToImport) => format!(
                "key {key_id} of another machine cannot be put into this gate: another key has its \
                 record; revoke one of the two, and issue another key"
            ),
            Self::Gate(why) => {
                format!("key {key_id} of another machine cannot be put into this gate: {why}")
            }
            Self::Older => format!(
                "the gate has an older record of key {key_id} than this machine has carried, and \
                 the store has no newer one, so no other machine gets it: start the agent of a \
                 machine that has the newer one, or rotate or revoke the key"
            ),
            Self::Revoked(_) => format!(
                "the store had an older record of key {key_id}, which is revoked: it is not \
                 accepted, and its revocation is written again. A machine that was not connected \
                 has sent it, or another program writes to the store"
            ),
            Self::Former => format!(
                "the store has an older record of key {key_id} than this machine has carried, and \
                 this gate does not have the key any more: it is not accepted here. If it must not \
                 be valid on other machines, revoke it on one that has it"
            ),
        }
    }
}

/// Puts a key into the gate, or revokes it there.
fn apply(
    administrator: &mut Administrator<'_, Mapping>,
    key_id: KeyId,
    key: &FleetKey,
    now: Timestamp,
) -> Result<(), AdminError> {
    match key {
        FleetKey::Revoked { .. } => administrator.revoke(key_id),
        FleetKey::Active { record, .. } => administrator.put(record, now).map(drop),
    }
}

/// Which gates are in a fleet: copies of one, those that replaced one, and those that had no keys
/// when they came.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// The number of the first gate.
    number: u64,
    /// Whether a gate of the fleet has had keys. Before, any gate may bring its own.
    has_keys: bool,
}

impl Line {
    fn parse(text: &str) -> Self {
        let (number, has_keys) = text.split_once(':').unwrap_or_default();
        Self { number: u64::from_str_radix(number, 16).unwrap_or(0), has_keys: has_keys != "0" }
    }
}

impl core::fmt::Display for Line {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:016x}:{}", self.number, u8::from(self.has_keys))
    }
}

/// What gates must have in common to carry keys from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Description {
    records: u32,
    /// The prefix, and the sections with their windows.
    shape: String,
}

impl Description {
    fn of(gate: &Gate) -> Self {
        let table = gate.table();
        let mut shape = format!("prefix {}", table.prefix().as_str());
        for (section, layout) in table.tally_shapes() {
            let _ = write!(shape, ", {}", section.name());
            for window in layout.windows() {
                let _ = write!(shape, " {window}");
            }
        }
        if shape.len() > MAX_SEALED_TEXT_LEN - 40 {
            shape = format!("sections with the number {:016x}", digest(shape.as_bytes()));
        }
        Self { records: table.capacity(), shape }
    }

    /// Returns the line that a text begins with, and the description. Refuses one with another
    /// shape, or with a number of records of which none is a multiple of the other.
    fn verify<'t>(&self, text: &'t str, fleet: &str) -> Result<(Line, &'t str), FleetError> {
        let (line, theirs) = text.split_once(' ').unwrap_or_default();
        let (records, shape) = theirs.split_once(" records, ").unwrap_or_default();
        let records = records.parse().unwrap_or(0);
        let is_multiple = |one: u32, other: u32| other > 0 && one.is_multiple_of(other);
        let fits = is_multiple(self.records, records) || is_multiple(records, self.records);
        if shape == self.shape && fits {
            return Ok((Line::parse(line), theirs));
        }
        Err(FleetError::refused(format!(
            "the gates of the fleet {fleet} have {theirs}, and this gate has {self}: create it \
             alike, name another fleet, or do not carry its keys: --no-keys"
        )))
    }
}

impl core::fmt::Display for Description {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} records, {}", self.records, self.shape)
    }
}
