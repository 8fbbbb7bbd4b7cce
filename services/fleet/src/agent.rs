//! The agent of a machine: moves units between the store and the machine's credits.
//!
//! One thread does everything in turns: it takes the tallies that want credits, lets their planners
//! decide, sends what they request as one pipeline, applies the replies, and wakes the requests
//! that wait. With nothing to do, it sleeps until a request rings, at most 50 ms. A second thread
//! receives the store's messages.

use core::fmt;
use core::time::Duration;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet_plan::clock::FleetClock;
use keytally_fleet_plan::flow::Flow;
use keytally_fleet_plan::holding::{self, Applied};
use keytally_fleet_plan::layout::{PAGE_TEXTS, PageState, PageWord, Phase, ReplicasState};
use keytally_fleet_plan::lease::LEARNING_MS;
use keytally_fleet_plan::meta::Meta;
use keytally_fleet_plan::request::{LeaseRequest, Reply, WINDOW_REFUSED};
use keytally_fleet_plan::words::{TallyWords, Word, Words as _};

use crate::clock::{Drift, Steady, wall_ms};
use crate::config::FleetConfig;
use crate::connection::PAUSES;
use crate::counters::{Counters, Counts, add};
use crate::error::FleetError;
use crate::machine::{Machine, Subject};
use crate::names::{WindowKey, machine as name_in_store};
use crate::store::{Call, PIPELINE, Store};
use crate::subscriber::{MESSAGES, Message, Subscriber};
use crate::tallies::{Present, Tallies, present};

/// The longest sleep of the agent.
pub const SLEEP: Duration = Duration::from_millis(50);

/// How often the agent requests the store's time, which also tests the connection.
const TEST: Duration = Duration::from_millis(500);

/// For how long too few confirming replicas are reported after the last request that they did not
/// confirm, although the store has enough.
const LACKING: Duration = Duration::from_secs(2);

/// How often planners without work are dropped.
const SWEEP: Duration = Duration::from_secs(1);

/// The tallies that the agent reads at once while it looks for those that hold units, and the
/// reports that it takes at once.
const SCAN: u32 = 4096;

/// With more planners that are to decide, no further tally is looked at. A flood of subjects that
/// were admitted without credits would otherwise all have planners at once.
const MOST_QUEUED: usize = 8192;

/// The agent of a machine.
///
/// At most one agent of a machine may run at a time. The caller ensures it by a lock, which the
/// kernel releases when a process is killed.
#[derive(Debug)]
pub struct Agent<'m, M> {
    machine: &'m M,
    config: FleetConfig,
    counters: Counters,
    problem: Mutex<Option<FleetError>>,
    unusable: Mutex<Vec<UnusableKey>>,
    name: AtomicU64,
    key_messages: AtomicU64,
}

impl<'m, M: Machine + Sync> Agent<'m, M> {
    /// An agent that has not connected yet.
    ///
    /// # Errors
    /// [`FleetError::Refused`] for a configuration that no fleet can have.
    pub fn new(machine: &'m M, config: &FleetConfig) -> Result<Self, FleetError> {
        config.verify()?;
        Ok(Self {
            machine,
            config: config.clone(),
            counters: Counters::default(),
            problem: Mutex::new(None),
            unusable: Mutex::default(),
            name: AtomicU64::new(0),
            key_messages: AtomicU64::new(0),
        })
    }

    /// Returns what the agent has counted since its start.
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Returns why the agent has no store at present.
    pub fn problem(&self) -> Option<FleetError> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns some keys of the store that lease requests cannot use, at most [`PAGE_TEXTS`].
    pub fn unusable_keys(&self) -> Vec<UnusableKey> {
        self.unusable().clone()
    }

    /// Returns how many messages the store has sent that keys were written: see
    /// [`KeyCarrier::run`](crate::KeyCarrier::run).
    pub fn key_messages(&self) -> u64 {
        self.key_messages.load(Ordering::Acquire)
    }

    /// Runs until `is_stopped` returns true, at most 50 ms and one exchange with the store later.
    ///
    /// A store that cannot be reached is tried again, with pauses of up to 0.75 s.
    ///
    /// # Errors
    /// [`FleetError::Refused`] if the store refuses the agent, or is unsuitable, before it has
    /// granted anything. Later, that counts as a loss of the store. Also if the machine was in
    /// another fleet: see [`verify_fleet`](Self::verify_fleet).
    pub fn run(&self, is_stopped: impl Fn() -> bool) -> Result<(), FleetError> {
        self.verify_fleet()?;
        let ended = AtomicU64::new(0);
        let (sender, messages) = sync_channel(MESSAGES);
        let name = self.machine.page(PageWord::Name);
        if name.load(Ordering::Acquire) == 0 {
            name.store(random()?, Ordering::Release);
        }
        self.name.store(name.load(Ordering::Acquire), Ordering::Release);
        self.identify();
        self.machine.page(PageWord::Replicas).store(0, Ordering::Release);
        let subscriber = Subscriber {
            config: &self.config,
            name: &self.name,
            stop: &ended,
            messages: sender,
            key_messages: &self.key_messages,
        };
        thread::scope(|scope| {
            let _end = End(&ended);
            scope.spawn(|| subscriber.run(|| self.machine.ring()));
            let mut turns = Turns::new(self, messages)?;
            let result = turns.run(is_stopped);
            turns.set_phase(Phase::Absent);
            result
        })
    }

    /// Refuses a machine whose agents were in another fleet. It would spend what it has leased of
    /// that fleet's limits, and then the limits of this one.
    ///
    /// # Errors
    /// [`FleetError::Refused`].
    pub fn verify_fleet(&self) -> Result<(), FleetError> {
        let number = self.machine.page(PageWord::Fleet).load(Ordering::Acquire);
        if [0, self.config.number()].contains(&number) {
            return Ok(());
        }
        let file = self.machine.path().map_or("the file".into(), |path| path.to_string_lossy());
        Err(FleetError::refused(format!(
            "{file} is the fleet file of another fleet than {}: name that fleet, or another file \
             with --file; to change the fleet of this machine, end its agents and servers, and \
             remove the file",
            self.config.name
        )))
    }

    /// Writes to the page whose it is.
    fn identify(&self) {
        self.machine.identify();
        self.machine.page(PageWord::Fleet).store(self.config.number(), Ordering::Release);
    }

    fn unusable(&self) -> MutexGuard<'_, Vec<UnusableKey>> {
        self.unusable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_problem(&self, problem: Option<FleetError>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// A key of the store with which it cannot execute the lease requests of a tally: it has another
/// type, or values that are not counts. Another program has written it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableKey {
    /// The name of the key.
    pub key: String,
    /// What the store has returned.
    pub error: String,
    tally: u32,
    end_ms: u64,
}

impl fmt::Display for UnusableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, error, .. } = self;
        write!(
            f,
            "the store's key {key} is unusable, so its tally gets no units: delete it ({error})"
        )
    }
}

/// Lets the second thread end, also if the first one panics.
struct End<'e>(&'e AtomicU64);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Release);
    }
}

/// A search for tallies that hold units.
#[derive(Clone, Copy, Debug)]
struct Scan {
    next: u32,
    /// Whether what they hold must be stated again.
    is_claim: bool,
}

/// A lease request of this turn.
struct Prepared {
    tally: u32,
    subject: Subject,
    request: LeaseRequest,
}

impl Prepared {
    fn call(&self) -> Call<'_> {
        let Subject { name, layout, .. } = &self.subject;
        Call { subject: name, layout, request: &self.request }
    }
}

/// What the agent's thread has in memory. Everything that must hold is in the words.
struct Turns<'a, M> {
    agent: &'a Agent<'a, M>,
    machine: &'a M,
    steady: Steady,
    clock: FleetClock,
    drift: Drift,
    store: Option<Store>,
    /// The identity of the store that the agent was last connected to.
    identity: u64,
    connected_at: Duration,
    has_connected: bool,
    retry_at: Duration,
    pause: Duration,
    /// The heartbeat that this agent has written last.
    heartbeat: Option<u64>,
    /// Whether the file was overwritten, and the rest of that may still follow.
    is_overwritten: bool,
    phase: Option<Phase>,
    learning_since_ms: Option<u64>,
    scan: Option<Scan>,
    /// The word of the summary of reports that is taken next.
    wanted_from: usize,
    tallies: Tallies,
    /// How many lease requests one exchange has, by how long exchanges take.
    flow: Flow,
    messages: Receiver<Message>,
    tested_at: Option<Duration>,
    swept_at: Duration,
    /// When too few replicas confirmed last.
    lacking_at: Option<Duration>,
    /// Millionths of lease requests that may be sent, and when they were counted.
    allowance: u64,
    allowed_at: Duration,
    is_deferring: bool,
    random: u64,
}

impl<'a, M: Machine + Sync> Turns<'a, M> {
    fn new(agent: &'a Agent<'a, M>, messages: Receiver<Message>) -> Result<Self, FleetError> {
        Ok(Self {
            agent,
            machine: agent.machine,
            steady: Steady::start(),
            clock: FleetClock::new(),
            drift: Drift::default(),
            store: None,
            identity: agent.machine.page(PageWord::Store).load(Ordering::Acquire),
            connected_at: Duration::ZERO,
            has_connected: false,
            retry_at: Duration::ZERO,
            pause: PAUSES[0],
            heartbeat: None,
            is_overwritten: false,
            phase: None,
            learning_since_ms: None,
            scan: Some(Scan { next: 0, is_claim: false }),
            wanted_from: 0,
            tallies: Tallies::default(),
            flow: Flow::default(),
            messages,
            tested_at: None,
            swept_at: Duration::ZERO,
            lacking_at: None,
            allowance: 0,
            allowed_at: Duration::ZERO,
            is_deferring: false,
            random: random()?,
        })
    }

    fn run(&mut self, is_stopped: impl Fn() -> bool) -> Result<(), FleetError> {
        while !is_stopped() {
            self.renew_if_overwritten();
            self.connect()?;
            self.publish_time();
            self.take_wanted();
            self.take_messages();
            self.scan();
            let now_ms = self.now_ms();
            let next_ms = self.tallies.expire(now_ms);
            self.sweep();
            self.test();
            if self.store.is_some() && self.exchange() {
                continue;
            }
            self.sleep(next_ms);
        }
        Ok(())
    }

    /// Returns the fleet's time. Before the first connection, it is what the page says.
    fn now_ms(&mut self) -> u64 {
        if self.has_connected {
            return self.clock.at(self.steady.ms());
        }
        let offset = self.machine.page(PageWord::Offset).load(Ordering::Acquire).cast_signed();
        wall_ms().saturating_add_signed(offset)
    }

    /// Writes the heartbeat, and how far the fleet's time is ahead of the clock that requests read.
    fn publish_time(&mut self) {
        let now_ms = self.now_ms();
        if self.has_connected {
            let offset = now_ms.wrapping_sub(wall_ms());
            self.machine.page(PageWord::Offset).store(offset, Ordering::Release);
            self.agent.counters.offset_ms.store(offset, Ordering::Relaxed);
        }
        self.machine.page(PageWord::Heartbeat).store(now_ms, Ordering::Release);
        self.heartbeat = Some(now_ms);
        let counters = &self.agent.counters;
        for (word, count) in
            [(PageWord::Requests, &counters.requests), (PageWord::Granted, &counters.grants)]
        {
            self.machine.page(word).store(count.load(Ordering::Relaxed), Ordering::Release);
        }
        if let Some(since_ms) = self.learning_since_ms
            && self.store.is_some()
            && self.scan.is_none()
            && now_ms >= since_ms.saturating_add(LEARNING_MS)
        {
            if core::mem::take(&mut self.is_overwritten) {
                self.renew();
                return;
            }
            // Only now, so that an agent that takes over before learns too.
            self.machine.page(PageWord::Store).store(self.identity, Ordering::Release);
            self.learning_since_ms = None;
            self.set_phase(Phase::Leading);
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        let FleetConfig { on_loss, machines, .. } = self.agent.config;
        let word = PageState { phase, on_loss: Some(on_loss), machines };
        self.machine.page(PageWord::State).store(word.bits(), Ordering::Release);
        if self.phase != Some(phase) {
            self.phase = Some(phase);
            // Requests that wait look at the state again.
            self.machine.wake();
        }
    }

    /// Connects, unless there is a connection or it is too early.
    fn connect(&mut self) -> Result<(), FleetError> {
        let elapsed = self.steady.elapsed();
        if self.store.is_some() || elapsed < self.retry_at {
            return Ok(());
        }
        let connected = Store::connect(&self.agent.config).and_then(|mut store| {
            store.verify_rights(self.agent.config.confirm)?;
            let sent = self.steady;
            let before_ms = sent.ms();
            let store_ms = store.time()?;
            let received_ms = sent.ms();
            if let Some(limiter) = self.machine.limiter() {
                store.state(&limiter, !self.has_connected)?;
            }
            Ok((store, before_ms, received_ms, store_ms))
        });
        match connected {
            Ok((store, sent_ms, received_ms, store_ms)) => {
                self.connected(store, sent_ms, received_ms, store_ms);
                Ok(())
            }
            Err(problem @ FleetError::Refused(_)) if !self.has_connected => Err(problem),
            Err(problem) => {
                self.agent.set_problem(Some(problem));
                self.pause_before_retry();
                self.set_phase(Phase::Cut);
                Ok(())
            }
        }
    }

    /// Pauses for twice as long as the last time, spread by half.
    fn pause_before_retry(&mut self) {
        let spread = self.random() % 1000;
        let pause = self.pause / 2 + self.pause * u32::try_from(spread).unwrap_or(0) / 1000;
        self.retry_at = self.steady.elapsed() + pause;
        self.pause = (2 * self.pause).min(PAUSES[1]);
    }

    fn connected(&mut self, store: Store, sent_ms: u64, received_ms: u64, store_ms: u64) {
        let before_ms = self.now_ms();
        add(&self.agent.counters.connections, 1);
        self.agent.set_problem(None);
        self.agent.unusable().clear();
        let identity = store.identity();
        self.store = Some(store);
        self.connected_at = self.steady.elapsed();
        if identity != self.identity || !self.has_connected {
            // Its clock may differ from the last one's.
            self.clock = FleetClock::new();
            self.drift = Drift::default();
        }
        self.has_connected = true;
        self.timed(sent_ms, received_ms, store_ms);
        let now_ms = self.now_ms();
        if now_ms.saturating_add(MOST_STEP_BACK_MS) < before_ms && self.machine.limiter().is_some()
        {
            // A slot may have been given to another subject after windows that run again, and what
            // the former subject holds of them is not known any more.
            self.renew();
        }
        let last = self.machine.page(PageWord::Store).load(Ordering::Acquire);
        let is_other = identity != last || identity != self.identity;
        self.identity = identity;
        // Other machines may have admitted requests without credits, and state them now.
        let was_alone = self.phase == Some(Phase::Cut) && self.agent.config.on_loss.is_admitting();
        if is_other || was_alone {
            self.learning_since_ms = Some(now_ms);
        }
        if is_other {
            self.scan = Some(Scan { next: 0, is_claim: true });
        }
        for tally in self.tallies.all() {
            if let (Some(words), Some(entry)) =
                (self.machine.words(tally), self.tallies.get_mut(tally))
            {
                entry.planner.lost(&words, now_ms);
                if is_other || was_alone {
                    entry.planner.reconnected(&words, now_ms);
                }
            }
            self.tallies.queue(tally);
        }
        let is_learning = self.learning_since_ms.is_some();
        self.set_phase(if is_learning { Phase::Learning } else { Phase::Leading });
    }

    /// Gives up the connection.
    fn lost(&mut self, problem: FleetError) {
        self.store = None;
        self.agent.set_problem(Some(problem));
        let now_ms = self.now_ms();
        for tally in self.tallies.all() {
            if let (Some(words), Some(entry)) =
                (self.machine.words(tally), self.tallies.get_mut(tally))
            {
                entry.planner.lost(&words, now_ms);
            }
        }
        if self.steady.elapsed().saturating_sub(self.connected_at) > PAUSES[1] {
            // The first attempt follows immediately.
            self.pause = PAUSES[0];
            self.retry_at = self.steady.elapsed();
        } else {
            self.pause_before_retry();
            self.set_phase(Phase::Cut);
        }
    }

    /// Requests the store's time if that is due.
    fn test(&mut self) {
        let elapsed = self.steady.elapsed();
        let is_due = self.tested_at.is_none_or(|at| elapsed.saturating_sub(at) >= TEST);
        let Some(store) = self.store.as_mut().filter(|_| is_due) else { return };
        let sent_ms = self.steady.ms();
        let time = store.time().map(|store_ms| (store_ms, self.steady.ms()));
        let limiter = self.machine.limiter();
        let has_confirm = self.agent.config.confirm > 0;
        let tested = time.and_then(|time| {
            if let Some(limiter) = limiter {
                store.state(&limiter, false)?;
            }
            let replicas = has_confirm.then(|| store.replicas()).transpose()?;
            Ok((time, replicas))
        });
        match tested {
            Ok(((store_ms, received_ms), replicas)) => {
                if let Some(replicas) = replicas {
                    self.note_replicas(replicas, false);
                }
                if !self.timed(sent_ms, received_ms, store_ms) {
                    self.renew();
                }
            }
            Err(problem) => self.lost(problem),
        }
    }

    /// Notes how many replicas the store has, or how many have confirmed lease requests.
    fn note_replicas(&mut self, confirming: u32, is_confirmation: bool) {
        let state = ReplicasState { needed: self.agent.config.confirm, confirming };
        let elapsed = self.steady.elapsed();
        let is_recent = |at| elapsed.saturating_sub(at) < LACKING;
        if state.bits() != 0 {
            self.lacking_at = Some(elapsed);
        } else if !is_confirmation && self.lacking_at.is_some_and(is_recent) {
            // Replicas that confirm late are replicas all the same.
            return;
        }
        self.machine.page(PageWord::Replicas).store(state.bits(), Ordering::Release);
    }

    /// Notes the store's time. Returns whether its clock has moved as the machine's has.
    fn timed(&mut self, sent_ms: u64, received_ms: u64, store_ms: u64) -> bool {
        let elapsed = self.steady.elapsed();
        self.tested_at = Some(elapsed);
        let has_jumped = self.drift.has_jumped(store_ms, elapsed);
        if has_jumped {
            self.clock = FleetClock::new();
        }
        self.clock.replied(sent_ms, received_ms, store_ms);
        !has_jumped
    }

    /// Takes a new name if the file was overwritten by an older copy of itself, whose credits may
    /// have been spent, or by the file of another machine: then the heartbeat or the name is not
    /// the one that this agent wrote.
    ///
    /// The copy may take a while to be written. So the machine does this again when it has learned,
    /// before anything is granted.
    fn renew_if_overwritten(&mut self) {
        let load = |word| self.machine.page(word).load(Ordering::Acquire);
        let is_named = load(PageWord::Name) == self.agent.name.load(Ordering::Relaxed);
        let heartbeat = load(PageWord::Heartbeat);
        if self.heartbeat.is_some_and(|its| its != heartbeat || !is_named) {
            self.heartbeat = None;
            self.is_overwritten = true;
            self.renew();
        }
    }

    /// Takes a new name, and voids all credits. What the machine held under its old name stays
    /// counted by the store until the windows end.
    fn renew(&mut self) {
        let Ok(name) = random() else { return };
        add(&self.agent.counters.renamed, 1);
        // First, since a void holding under the old name would return units that were spent.
        self.machine.page(PageWord::Name).store(name, Ordering::Release);
        self.agent.name.store(name, Ordering::Release);
        self.agent.identify();
        self.tallies.clear();
        self.agent.unusable().clear();
        let now_ms = self.now_ms();
        self.learning_since_ms = Some(now_ms);
        self.set_phase(if self.store.is_some() { Phase::Learning } else { Phase::Cut });
        for tally in 0..self.machine.tallies() {
            let is_owned =
                self.machine.owner(tally).is_some_and(|owner| owner.load(Ordering::Acquire) != 0);
            let Some(words) = self.machine.words(tally) else { continue };
            if is_owned {
                holding::void(&words);
            }
            let is_waiting = is_owned && Meta::from_bits(words.load(Word::Meta)).wanted() > 0;
            if is_waiting || words.load(Word::Unreserved) != 0 {
                self.want(tally, now_ms);
            }
        }
    }

    /// Makes the planner of a tally, unless there is one.
    fn make(&mut self, tally: u32, now_ms: u64) -> bool {
        let seed = self.random ^ self.agent.name.load(Ordering::Relaxed);
        let learning = self.learning_since_ms;
        let Some((entry, is_new)) = self.tallies.entry(self.machine, tally, now_ms, seed) else {
            return false;
        };
        if let (true, Some(since_ms), Some(words)) = (is_new, learning, self.machine.words(tally)) {
            entry.planner.reconnected(&words, since_ms);
        }
        true
    }

    fn want(&mut self, tally: u32, now_ms: u64) {
        if self.make(tally, now_ms)
            && let Some(entry) = self.tallies.get_mut(tally)
        {
            let is_waiting = |words: TallyWords<'_>| {
                words.load(Word::Unreserved) == 0
                    || Meta::from_bits(words.load(Word::Meta)).wanted() > 0
            };
            // What was admitted without credits needs none any more.
            if self.machine.words(tally).is_none_or(is_waiting) {
                entry.planner.wanted();
            }
            self.tallies.queue(tally);
        }
    }

    /// Takes the reports of requests. Without a store, they stay in the file: what was admitted
    /// without credits may be reported there for hours, and by many tallies.
    fn take_wanted(&mut self) {
        if self.store.is_none() || self.tallies.queued() > MOST_QUEUED {
            return;
        }
        let now_ms = self.now_ms();
        let machine = self.machine;
        let begin = self.wanted_from;
        self.wanted_from =
            machine.wanted().take_from(begin, SCAN, |tally| self.want(tally, now_ms));
    }

    fn take_messages(&mut self) {
        let now_ms = self.now_ms();
        while let Ok(message) = self.messages.try_recv() {
            let (key, is_recall) = match &message {
                Message::Recall(key) => (key, true),
                Message::Again(key) => (key, false),
                Message::Missed => {
                    self.scan = Some(Scan { next: 0, is_claim: true });
                    continue;
                }
            };
            let counters = &self.agent.counters;
            add(if is_recall { &counters.recalls } else { &counters.again }, 1);
            let Some(key) = WindowKey::parse(&self.agent.config.name, key) else { continue };
            let named = self.tallies.named(self.machine, &key.subject, now_ms);
            let Some((tally, subject)) = named else { continue };
            if !self.make(tally, now_ms) {
                continue;
            }
            let Some(entry) = self.tallies.get_mut(tally) else { continue };
            if !is_recall {
                entry.planner.claim_again();
                add(&counters.relearned, 1);
            } else if let Some(index) = key.index(&subject.layout) {
                entry.planner.recalled(index);
            }
            self.tallies.queue(tally);
        }
    }

    /// Looks at some further tallies of the file, whether they hold units or have admitted some
    /// without credits. Without a store, there is nothing to do with them.
    fn scan(&mut self) {
        let is_ready = self.store.is_some() && self.tallies.queued() <= MOST_QUEUED;
        let Some(scan) = self.scan.filter(|_| is_ready) else { return };
        let now_ms = self.now_ms();
        let end = scan.next.saturating_add(SCAN).min(self.machine.tallies());
        for tally in scan.next..end {
            self.scan_tally(tally, scan.is_claim, now_ms);
        }
        let is_done = end == self.machine.tallies();
        self.scan = (!is_done).then_some(Scan { next: end, ..scan });
    }

    fn scan_tally(&mut self, tally: u32, is_claim: bool, now_ms: u64) {
        let owner = self.machine.owner(tally).map_or(0, |owner| owner.load(Ordering::Acquire));
        let Some(words) = self.machine.words(tally) else { return };
        let is_open = Meta::from_bits(words.load(Word::Meta)).is_open();
        let is_used = owner != 0 && (words.load(Word::Holding) != 0 || is_open);
        if !is_used && words.load(Word::Unreserved) == 0 {
            return;
        }
        let Some(subject) = self.machine.subject_at(tally, now_ms) else { return };
        let layout = &subject.layout;
        let is_unreserved = holding::unreserved_ms(layout, &words, now_ms).is_some();
        // What was admitted without credits is that of the present subject, whose the other words
        // may not be yet.
        let is_its = subject.owner == owner;
        if !is_its && !is_unreserved {
            return;
        }
        self.tallies.remember(&subject, tally);
        let is_held = is_its && holding::is_held(layout, &words, now_ms);
        let credits = layout.current(words.load(Word::Credits), now_ms);
        let is_claimed = is_claim && is_held;
        let has_credits = is_its && credits.iter().any(|&units| units > 0);
        if !(is_claimed || is_unreserved || (is_its && is_open) || has_credits) {
            return;
        }
        if self.make(tally, now_ms) {
            if is_claimed && let Some(entry) = self.tallies.get_mut(tally) {
                entry.planner.claim_again();
                add(&self.agent.counters.relearned, 1);
            }
            self.tallies.queue(tally);
        }
    }

    /// Drops planners that have nothing to do.
    fn sweep(&mut self) {
        let elapsed = self.steady.elapsed();
        if elapsed.saturating_sub(self.swept_at) >= SWEEP {
            self.swept_at = elapsed;
            self.tallies.drop_idle();
            let now_ms = self.now_ms();
            self.agent.unusable().retain(|it| now_ms < it.end_ms);
        }
    }

    /// Sends what planners request, applies the replies and wakes the requests that wait. Returns
    /// whether it sent anything.
    fn exchange(&mut self) -> bool {
        let mut prepared = Vec::new();
        let allowed = self.allowed();
        let most = allowed.min(usize::try_from(self.flow.most()).unwrap_or(PIPELINE));
        while prepared.len() < most {
            let Some(tally) = self.tallies.take() else { break };
            prepared.extend(self.prepare(tally));
        }
        let is_deferring = prepared.len() == most && !self.tallies.is_queue_empty();
        let is_limited = is_deferring && most == allowed && allowed < PIPELINE;
        add(&self.agent.counters.deferred, u64::from(is_limited && !self.is_deferring));
        self.is_deferring = is_limited;
        if prepared.is_empty() {
            return false;
        }
        let count = u64::try_from(prepared.len()).unwrap_or(u64::MAX);
        self.allowance = self.allowance.saturating_sub(count.saturating_mul(MILLION));
        add(&self.agent.counters.requests, count);
        let name = name_in_store(self.agent.name.load(Ordering::Relaxed));
        let calls: Vec<Call<'_>> = prepared.iter().map(Prepared::call).collect();
        let sent_ms = self.steady.ms();
        let Some(store) = &mut self.store else { return false };
        let exchange = store.exchange(&name, &calls, self.agent.config.confirm);
        add(&self.agent.counters.unconfirmed, u64::try_from(exchange.unconfirmed).unwrap_or(0));
        if let Some(confirming) = exchange.confirming {
            self.note_replicas(confirming, true);
        }
        let now_ms = self.now_ms();
        let received_ms = self.steady.ms();
        (0..count).for_each(|_| self.flow.replied(sent_ms, received_ms));
        // Then no request is open any more, and the replies are void.
        self.renew_if_overwritten();
        let mut is_name_taken = false;
        for (prepared, reply) in prepared.iter().zip(&exchange.replies) {
            is_name_taken |= self.apply(prepared, reply.as_ref(), now_ms);
        }
        let named = match exchange.problem {
            Some(problem) => Err(problem),
            None => self.name_unusable(&name, &prepared, &exchange.replies),
        };
        if is_name_taken {
            self.renew();
        }
        self.machine.wake();
        if let Err(problem) = named {
            self.lost(problem);
        }
        true
    }

    /// Finds out with which keys the store cannot execute lease requests.
    fn name_unusable(
        &mut self,
        machine: &str,
        prepared: &[Prepared],
        replies: &[Option<Result<Reply, String>>],
    ) -> Result<(), FleetError> {
        for (prepared, reply) in prepared.iter().zip(replies) {
            let (tally, Some(reply)) = (prepared.tally, reply) else { continue };
            let mut keys = self.agent.unusable();
            let Err(error) = reply else {
                keys.retain(|it| it.tally != tally);
                continue;
            };
            if keys.len() >= PAGE_TEXTS || keys.iter().any(|it| it.tally == tally) {
                continue;
            }
            drop(keys);
            let Some(store) = &mut self.store else { break };
            let (key, end_ms) = store.unusable_key(machine, &prepared.call())?;
            let key = UnusableKey { key, error: error.clone(), tally, end_ms };
            self.agent.unusable().push(key);
        }
        Ok(())
    }

    /// Lets the planner of a tally decide whether to send a lease request.
    fn prepare(&mut self, tally: u32) -> Option<Prepared> {
        let now_ms = self.now_ms();
        let Some(Present { subject, words }) = present(self.machine, tally, now_ms) else {
            self.tallies.remove(tally);
            return None;
        };
        if self.tallies.get_mut(tally)?.owner != subject.owner {
            // What the planner knows is of another owner.
            self.tallies.remove(tally);
            self.want(tally, now_ms);
        }
        let entry = self.tallies.get_mut(tally)?;
        let request = entry.planner.next(&subject.layout, &words, now_ms);
        let due_ms = entry.planner.due_ms(&subject.layout, &words);
        self.tallies.schedule(tally, due_ms);
        request.map(|request| Prepared { tally, subject, request })
    }

    /// Applies a reply, or gives the request up if there is none or an error. Returns whether
    /// another machine has this machine's name.
    fn apply(
        &mut self,
        prepared: &Prepared,
        reply: Option<&Result<Reply, String>>,
        now_ms: u64,
    ) -> bool {
        let counters = &self.agent.counters;
        let layout = &prepared.subject.layout;
        let (Some(words), Some(entry)) =
            (self.machine.words(prepared.tally), self.tallies.get_mut(prepared.tally))
        else {
            return false;
        };
        let mut is_name_taken = false;
        match reply {
            Some(Ok(reply)) => {
                let windows = prepared.request.windows().len();
                let refused = |window: &&_| **window == WINDOW_REFUSED;
                let machines = reply.windows[..windows].iter().map(|window| window.machines);
                let machines: Vec<i32> = machines.collect();
                let refused = machines.iter().filter(refused).count();
                add(&counters.refused_windows, u64::try_from(refused).unwrap_or(0));
                match entry.planner.replied(layout, &words, now_ms, &prepared.request, reply) {
                    Applied::Void => add(&counters.unanswered, 1),
                    Applied::Granted(units) => {
                        let granted = units[layout.len() - 1];
                        add(&counters.grants, u64::from(units.iter().any(|&units| units > 0)));
                        add(&counters.granted_units, granted.into());
                    }
                    Applied::NameTaken => {
                        add(&counters.refused_numbers, 1);
                        is_name_taken = true;
                    }
                }
            }
            Some(Err(_)) => {
                add(&counters.unanswered, 1);
                entry.planner.failed(&words, now_ms);
            }
            None => {
                add(&counters.unanswered, 1);
                entry.planner.lost(&words, now_ms);
            }
        }
        let due_ms = entry.planner.due_ms(layout, &words);
        self.tallies.schedule(prepared.tally, due_ms);
        is_name_taken
    }

    /// Returns how many lease requests may be sent now.
    fn allowed(&mut self) -> usize {
        let elapsed = self.steady.elapsed();
        let micros = elapsed.saturating_sub(self.allowed_at).as_micros();
        self.allowed_at = elapsed;
        let rate = u64::from(self.agent.config.requests_per_s);
        let more = u64::try_from(micros).unwrap_or(u64::MAX).saturating_mul(rate);
        // A tenth of a second of requests may follow a pause.
        let most = (rate / 10).max(1).saturating_mul(MILLION);
        self.allowance = self.allowance.saturating_add(more).min(most);
        usize::try_from(self.allowance / MILLION).unwrap_or(PIPELINE).min(PIPELINE)
    }

    /// Sleeps until a request rings or a planner is due.
    fn sleep(&mut self, next_ms: Option<u64>) {
        if self.is_deferring && self.store.is_some() {
            thread::sleep(Duration::from_millis(1));
            return;
        }
        if self.scan.is_some() && self.store.is_some() {
            return;
        }
        let now_ms = self.now_ms();
        let mut at_most = SLEEP;
        if let Some(next_ms) = next_ms.filter(|_| self.store.is_some()) {
            at_most = at_most.min(Duration::from_millis(next_ms.saturating_sub(now_ms).max(1)));
        }
        if self.store.is_none() {
            let until = self.retry_at.saturating_sub(self.steady.elapsed());
            // The reports that are not taken would end the machine's sleep.
            thread::sleep(at_most.min(until.max(Duration::from_millis(1))));
            return;
        }
        self.machine.sleep(at_most);
    }

    /// Returns a pseudorandom number (SplitMix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// How many milliseconds the fleet's time may step back, when another store has another clock,
/// before a limiter's machine takes a new name. A slot is kept for longer than this after its
/// windows have passed.
const MOST_STEP_BACK_MS: u64 = 500;

/// Millionths of a lease request.
const MILLION: u64 = 1_000_000;

/// Returns a random number of the system, never 0.
fn random() -> Result<u64, FleetError> {
    getrandom::u64()
        .map(|number| number.max(1))
        .map_err(|why| FleetError::refused(format!("the system has no random numbers: {why}")))
}
