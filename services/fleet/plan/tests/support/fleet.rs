//! A fleet in virtual time: machines with the real planner and real credit words, a store that is
//! the model of its script, and a network between them. Times are in microseconds.
//!
//! Everything random comes from one seed, so a run can be repeated.

use alloc::collections::{BinaryHeap, VecDeque};
use alloc::rc::Rc;
use core::cmp::Reverse;
use core::fmt;
use std::collections::HashMap;

use keytally_core::Policy;
use keytally_core::sync::AtomicU64;
use keytally_fleet_plan::clock::FleetClock;
use keytally_fleet_plan::credit::CreditLayout;
use keytally_fleet_plan::flow::Flow;
use keytally_fleet_plan::holding::{is_held, unreserved_ms};
use keytally_fleet_plan::lease::Planner;
use keytally_fleet_plan::on_loss::OnLoss;
use keytally_fleet_plan::request::{LeaseRequest, Reply};
use keytally_fleet_plan::words::{Spending, TallyWords, admit_unreserved, spend, want};

use crate::store::{Holding, Published, Terms, Window};

/// A time or duration in microseconds.
pub(crate) type Time = u64;

pub(crate) const SECOND: Time = 1_000_000;

/// What a run does.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) policy: &'static str,
    pub(crate) machines: usize,
    pub(crate) keys: usize,
    /// The exponent of Zipf's law, by which requests choose their keys.
    pub(crate) zipf: f64,
    /// The requests per second of all machines.
    pub(crate) rate: f64,
    pub(crate) seconds: u64,
    /// The part of messages that are lost.
    pub(crate) loss: f64,
    /// The part of lease requests that arrive again, up to two seconds later.
    pub(crate) repeats: f64,
    /// Half of the machines are cut off from the store in this span.
    pub(crate) partition: Option<(Time, Time)>,
    /// Whether all of them are.
    pub(crate) cuts_all_off: bool,
    /// What a request gets that has waited for too long.
    pub(crate) on_loss: OnLoss,
    /// Whether what is admitted without credits is noted for the store. A test removes this rule.
    pub(crate) states_unreserved: bool,
    /// A machine restarts this often, with an empty file and another name.
    pub(crate) restarts: Option<Time>,
    /// An agent is killed this often, and another takes over.
    pub(crate) kills: Option<Time>,
    pub(crate) failure: Option<Failure>,
    /// The most that a machine's clock is ahead or behind, and whether agents correct it.
    pub(crate) skew: Option<(Time, bool)>,
    /// Whether the store refuses old numbers.
    pub(crate) checks_numbers: bool,
    /// The servers of the store, among which keys are distributed.
    pub(crate) servers: usize,
}

/// What happens to the store in the middle of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A replica takes over that lacks what was written in the last microseconds.
    Failover(Time),
    /// It restarts without data.
    Emptied,
}

impl Scenario {
    pub(crate) const fn new(policy: &'static str, machines: usize) -> Self {
        Self {
            policy,
            machines,
            keys: 200,
            zipf: 1.0,
            rate: 5000.0,
            seconds: 130,
            loss: 0.0,
            repeats: 0.0,
            partition: None,
            cuts_all_off: false,
            on_loss: OnLoss::Closed,
            states_unreserved: true,
            restarts: None,
            kills: None,
            failure: None,
            skew: None,
            checks_numbers: true,
            servers: 1,
        }
    }
}

/// What a run measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) requests: u64,
    /// The most units that a window admitted beyond its limit, by the number of the window.
    pub(crate) over: u64,
    /// The same for windows of correct time.
    pub(crate) over_in_true_time: u64,
    /// What windows did not admit although it was requested, in percent of what they could.
    pub(crate) unfilled: f64,
    /// What windows with more requests than their limit did not admit, in percent of the limits.
    pub(crate) unusable: f64,
    /// Requests denied while their windows had not admitted their limit, in percent.
    pub(crate) early: f64,
    /// Lease requests for each request.
    pub(crate) leases: f64,
    /// The same for keys that each machine requests at least 50 times per second.
    pub(crate) hot_leases: f64,
    /// Requests that waited for credits, in percent.
    pub(crate) waited: f64,
    /// The longest wait of 99 % of those that waited, in milliseconds.
    pub(crate) wait_p99_ms: f64,
    /// The most lease requests that the store applied in a second.
    pub(crate) busiest_second: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, over {} ({} in true time), unfilled {:.3} %, unusable {:.3} %, early {:.3} %, \
             {:.4} leases per request (hot {:.4}), {:.1} % waited (p99 {:.2} ms), \
             {} leases in the busiest second",
            self.requests,
            self.over,
            self.over_in_true_time,
            self.unfilled,
            self.unusable,
            self.early,
            self.leases,
            self.hot_leases,
            self.waited,
            self.wait_p99_ms,
            self.busiest_second,
        )
    }
}

/// A random number generator (SplitMix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.part()).ln()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}

/// Returns the whole microseconds of a time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no time is negative")]
fn whole(time: f64) -> Time {
    time as Time
}

/// A tally on one machine.
struct Tally {
    words: [AtomicU64; 5],
    planner: Planner,
    /// When the agent looks at it next.
    next: Time,
    /// The requests that wait: when they came, and their numbers.
    waiting: Vec<(Time, u64)>,
    /// When the lease request was sent that has no reply yet.
    sent_ms: Option<u64>,
    is_queued: bool,
}

impl Tally {
    fn new(seed: u64) -> Self {
        let words = [const { AtomicU64::new(0) }; 5];
        Self {
            words,
            planner: Planner::new(seed),
            next: Time::MAX,
            waiting: Vec::new(),
            sent_ms: None,
            is_queued: false,
        }
    }

    fn words(&self) -> TallyWords<'_> {
        TallyWords::from(&self.words)
    }
}

struct Machine {
    /// Its name in the store.
    name: u32,
    /// How far its clock is ahead, in microseconds.
    ahead: i64,
    clock: FleetClock,
    is_connected: bool,
    is_cut_off: bool,
    /// The number of its connection. Replies on an earlier one are lost.
    connection: u32,
    tallies: Vec<Option<Box<Tally>>>,
    flow: Flow,
    /// Lease requests without a reply.
    in_flight: u32,
    /// The tallies that the agent looks at when there are fewer.
    queue: VecDeque<usize>,
}

#[derive(Clone, Debug)]
enum Event {
    Request,
    Agent {
        machine: usize,
        key: usize,
    },
    Store {
        machine: usize,
        name: u32,
        key: usize,
        connection: u32,
        sent_ms: u64,
        request: Rc<LeaseRequest>,
    },
    Reply {
        machine: usize,
        key: usize,
        connection: u32,
        sent_ms: u64,
        answer: Rc<(LeaseRequest, Reply)>,
    },
    WaitedLong {
        machine: usize,
        key: usize,
        number: u64,
    },
    Recall {
        name: u32,
        key: usize,
        index: usize,
    },
    Again {
        machine: usize,
        key: usize,
    },
    Partition(bool),
    Restart,
    Kill,
    Fail,
    Connect {
        machine: usize,
    },
}

/// A write of the store, so that a failover can undo it.
struct Write {
    at: Time,
    window: (usize, usize, u64),
    name: u32,
    before: Option<Holding>,
    out: i64,
    machines: i32,
    withheld_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requested: u64,
    admitted: u64,
}

const LATENCY: f64 = 250.0;
/// From a report to the agent's lease request.
const WAKE: Time = 50;
/// How long the store takes for a lease request.
const SERVICE: Time = 12;
const LONGEST_WAIT: Time = 20_000;
/// From the end of a partition until the last machine is connected again.
const LONGEST_PAUSE: Time = 900_000;
const START_S: u64 = 1_699_999_200;

struct Run<'s> {
    scenario: &'s Scenario,
    layout: CreditLayout,
    random: Random,
    now: Time,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    kinds: HashMap<u64, Event>,
    count: u64,
    machines: Vec<Machine>,
    /// Which machine has a name.
    names: HashMap<u32, usize>,
    /// By key, index of the window, and its beginning.
    store: HashMap<(usize, usize, u64), Window>,
    is_store_up: bool,
    /// For each server.
    busy_until: Vec<Time>,
    writes: Vec<Write>,
    terms: Terms,
    /// By index of the window and key, for each window since the start.
    counts: Vec<Vec<Vec<Count>>>,
    true_counts: Vec<Vec<Vec<u64>>>,
    /// By machine, key, index of the window and its beginning, what the machine has admitted.
    own: HashMap<(usize, usize, usize, u64), u32>,
    cumulated: Vec<f64>,
    hot: usize,
    figures: Figures,
    sent: u64,
    hot_sent: u64,
    hot_requests: u64,
    early: u64,
    waits: Vec<Time>,
    second: (u64, u64),
    restarted: usize,
}

/// Runs a scenario with a seed.
pub(crate) fn run(scenario: &Scenario, seed: u64) -> Figures {
    let mut run = Run::new(scenario, seed);
    run.schedule();
    let end = scenario.seconds * SECOND;
    while let Some(Reverse((at, number))) = run.events.pop() {
        if at >= end {
            break;
        }
        run.now = at;
        let event = run.kinds.remove(&number).unwrap();
        run.handle(event);
    }
    run.figures()
}

impl<'s> Run<'s> {
    fn new(scenario: &'s Scenario, seed: u64) -> Self {
        let policy: Policy = scenario.policy.parse().unwrap();
        let layout = CreditLayout::new(policy.layout(), &policy.limits()).unwrap();
        let mut random = Random(seed.wrapping_mul(7919));
        let mut cumulated: Vec<f64> = Vec::new();
        let mut sum = 0.0;
        for key in 0..scenario.keys {
            sum += 1.0 / ((key + 1) as f64).powf(scenario.zipf);
            cumulated.push(sum);
        }
        cumulated.iter_mut().for_each(|part| *part /= sum);
        let part = |key: usize| cumulated[key] - if key == 0 { 0.0 } else { cumulated[key - 1] };
        let is_hot = |key: &usize| part(*key) * scenario.rate / scenario.machines as f64 >= 50.0;
        let hot = (0..scenario.keys).take_while(is_hot).count();
        let mut machines = Vec::new();
        for index in 0..scenario.machines {
            let ahead = scenario.skew.map_or(0, |(most, _)| {
                i64::try_from(random.below(2 * most + 1)).unwrap() - i64::try_from(most).unwrap()
            });
            machines.push(Machine {
                name: u32::try_from(index).unwrap(),
                ahead,
                clock: FleetClock::new(),
                is_connected: true,
                is_cut_off: false,
                connection: 0,
                tallies: (0..scenario.keys).map(|_| None).collect(),
                flow: Flow::default(),
                in_flight: 0,
                queue: VecDeque::new(),
            });
        }
        let names = machines.iter().enumerate().map(|(index, machine)| (machine.name, index));
        Self {
            scenario,
            random,
            now: 0,
            events: BinaryHeap::new(),
            kinds: HashMap::new(),
            count: 0,
            names: names.collect(),
            machines,
            store: HashMap::new(),
            is_store_up: true,
            busy_until: vec![0; scenario.servers],
            writes: Vec::new(),
            terms: Terms { checks_numbers: scenario.checks_numbers, ..Terms::default() },
            counts: vec![vec![Vec::new(); scenario.keys]; layout.len()],
            true_counts: vec![vec![Vec::new(); scenario.keys]; layout.len()],
            layout,
            own: HashMap::new(),
            cumulated,
            hot,
            figures: Figures::default(),
            sent: 0,
            hot_sent: 0,
            hot_requests: 0,
            early: 0,
            waits: Vec::new(),
            second: (0, 0),
            restarted: 0,
        }
    }

    fn schedule(&mut self) {
        self.at(0, Event::Request);
        if let Some((from, to)) = self.scenario.partition {
            self.at(from, Event::Partition(true));
            self.at(to, Event::Partition(false));
        }
        for (every, event) in
            [(self.scenario.restarts, Event::Restart), (self.scenario.kills, Event::Kill)]
        {
            let every = every.unwrap_or(Time::MAX / 4);
            let mut at = every;
            while at < self.scenario.seconds * SECOND {
                self.at(at, event.clone());
                at += every;
            }
        }
        if self.scenario.failure.is_some() {
            let at = self.scenario.seconds * SECOND / 2 + self.random.below(10 * SECOND);
            self.at(at, Event::Fail);
        }
    }

    fn at(&mut self, at: Time, event: Event) {
        self.count += 1;
        self.kinds.insert(self.count, event);
        self.events.push(Reverse((at, self.count)));
    }

    fn true_ms(&self) -> u64 {
        START_S * 1000 + self.now / 1000
    }

    /// Returns the time of a machine's clock.
    fn local_ms(&self, machine: usize) -> u64 {
        (START_S * 1000 * 1000 + self.now).saturating_add_signed(self.machines[machine].ahead)
            / 1000
    }

    /// Returns the time by which a machine computes windows.
    fn fleet_ms(&mut self, machine: usize) -> u64 {
        let local_ms = self.local_ms(machine);
        if self.scenario.skew.is_some_and(|(_, is_corrected)| is_corrected) {
            self.machines[machine].clock.at(local_ms)
        } else {
            local_ms
        }
    }

    fn delay(&mut self) -> Time {
        whole(LATENCY * 0.6 + self.random.exponential(LATENCY * 0.4))
    }

    fn is_lost(&mut self) -> bool {
        self.scenario.loss > 0.0 && self.random.part() < self.scenario.loss
    }

    fn tally(&mut self, machine: usize, key: usize) -> &mut Tally {
        let seed = (machine * 1_000_003 + key) as u64;
        self.machines[machine].tallies[key].get_or_insert_with(|| Box::new(Tally::new(seed)))
    }

    /// Returns the position of the window of a time in `counts`. The first one is that before the
    /// start, for clocks that are behind.
    fn position(&self, index: usize, ms: u64) -> usize {
        let length = self.layout.length_ms(index);
        usize::try_from(ms / length + 1 - START_S * 1000 / length).unwrap()
    }

    fn counted(&mut self, index: usize, key: usize, ms: u64) -> &mut Count {
        let position = self.position(index, ms);
        let counts = &mut self.counts[index][key];
        if counts.len() <= position {
            counts.resize(position + 1, Count::default());
        }
        &mut counts[position]
    }

    fn admitted(&mut self, machine: usize, key: usize, at_ms: u64) {
        let true_ms = self.true_ms();
        for index in 0..self.layout.len() {
            if self.scenario.on_loss != OnLoss::Closed {
                let begin_ms = self.layout.span(index, at_ms).begin_ms;
                *self.own.entry((machine, key, index, begin_ms)).or_default() += 1;
            }
            self.counted(index, key, at_ms).admitted += 1;
            let position = self.position(index, true_ms);
            let counts = &mut self.true_counts[index][key];
            if counts.len() <= position {
                counts.resize(position + 1, 0);
            }
            counts[position] += 1;
        }
    }

    /// Decides on a request without credits, by what the machine itself has admitted.
    fn decide_alone(&mut self, machine: usize, key: usize) {
        let (ms, layout) = (self.fleet_ms(machine), self.layout);
        let machines = u32::try_from(self.machines.len()).unwrap();
        let has_room = (0..layout.len()).all(|index| {
            let limit = self.scenario.on_loss.limit(layout.limit(index), machines).unwrap_or(0);
            let window = (machine, key, index, layout.span(index, ms).begin_ms);
            self.own.get(&window).copied().unwrap_or(0) < limit
        });
        if !has_room {
            self.denied(key, ms);
            return;
        }
        self.admitted(machine, key, ms);
        if self.scenario.states_unreserved {
            admit_unreserved(&layout, &self.tally(machine, key).words(), ms, 1);
            self.report(machine, key);
        }
    }

    fn denied(&mut self, key: usize, ms: u64) {
        let has_room = (0..self.layout.len()).all(|index| {
            let limit = u64::from(self.layout.limit(index));
            self.counted(index, key, ms).admitted < limit
        });
        self.early += u64::from(has_room);
    }

    /// Lets the agent look at a tally soon.
    fn report(&mut self, machine: usize, key: usize) {
        let at = self.now + WAKE;
        self.look_at(machine, key, at);
    }

    fn look_at(&mut self, machine: usize, key: usize, at: Time) {
        let tally = self.tally(machine, key);
        if at < tally.next {
            tally.next = at;
            self.at(at, Event::Agent { machine, key });
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request => self.request(),
            Event::Agent { machine, key } => self.agent(machine, key),
            Event::Store { machine, name, key, connection, sent_ms, request } => {
                self.apply((machine, name), key, connection, sent_ms, &request);
            }
            Event::Reply { machine, key, connection, sent_ms, answer } => {
                self.reply(machine, key, connection, sent_ms, &answer);
            }
            Event::WaitedLong { machine, key, number } => {
                let tally = self.tally(machine, key);
                if let Some(at) = tally.waiting.iter().position(|waiting| waiting.1 == number) {
                    tally.waiting.remove(at);
                    self.waits.push(LONGEST_WAIT);
                    self.decide_alone(machine, key);
                }
            }
            Event::Recall { name, key, index } => {
                if let Some(&machine) = self.names.get(&name)
                    && !self.machines[machine].is_cut_off
                {
                    self.tally(machine, key).planner.recalled(index);
                    self.look_at(machine, key, self.now + 1);
                }
            }
            Event::Again { machine, key } => {
                if !self.machines[machine].is_cut_off {
                    self.tally(machine, key).planner.claim_again();
                    self.look_at(machine, key, self.now + 1);
                }
            }
            Event::Partition(is_cut_off) => {
                let part = if self.scenario.cuts_all_off { 1 } else { 2 };
                for machine in 0..self.machines.len() / part {
                    self.machines[machine].is_cut_off = is_cut_off;
                    if self.scenario.on_loss == OnLoss::Closed {
                        continue;
                    }
                    // The agent notices the loss, and learns when it is connected again.
                    self.machines[machine].is_connected = false;
                    self.disconnect(machine);
                    if !is_cut_off {
                        let after = self.random.below(LONGEST_PAUSE);
                        self.at(self.now + after, Event::Connect { machine });
                    }
                }
            }
            Event::Restart => self.restart(),
            Event::Kill => self.kill(),
            Event::Fail => self.fail(),
            Event::Connect { machine } => self.connect(machine),
        }
    }

    /// A client's request arrives.
    fn request(&mut self) {
        let after = whole(self.random.exponential(1e6 / self.scenario.rate).max(1.0));
        self.at(self.now + after, Event::Request);
        let part = self.random.part();
        let key = self.cumulated.partition_point(|&sum| sum < part).min(self.scenario.keys - 1);
        let machine = self.random.index(self.scenario.machines);
        let ms = self.fleet_ms(machine);
        self.figures.requests += 1;
        self.hot_requests += u64::from(key < self.hot);
        for index in 0..self.layout.len() {
            self.counted(index, key, ms).requested += 1;
        }
        let (layout, now, number) = (self.layout, self.now, self.figures.requests);
        let tally = self.tally(machine, key);
        match spend(&layout, &tally.words(), ms, 1) {
            Spending::Spent { at_ms, is_low } => {
                if is_low {
                    tally.planner.wanted();
                    self.report(machine, key);
                }
                self.admitted(machine, key, at_ms);
            }
            Spending::Exhausted => self.denied(key, ms),
            Spending::NoCredits => {
                want(&tally.words(), 1);
                tally.planner.wanted();
                tally.waiting.push((now, number));
                self.at(now + LONGEST_WAIT, Event::WaitedLong { machine, key, number });
                self.report(machine, key);
            }
        }
    }

    fn agent(&mut self, machine: usize, key: usize) {
        if self.tally(machine, key).next != self.now {
            return;
        }
        self.tally(machine, key).next = Time::MAX;
        let here = &self.machines[machine];
        if !here.is_connected {
            return;
        }
        let (is_full, is_cut_off) = (here.in_flight >= here.flow.most(), here.is_cut_off);
        let tally = self.tally(machine, key);
        if is_full && tally.sent_ms.is_none() && !is_cut_off {
            if !core::mem::replace(&mut tally.is_queued, true) {
                self.machines[machine].queue.push_back(key);
            }
            return;
        }
        let (ms, layout) = (self.fleet_ms(machine), self.layout);
        let tally = self.tally(machine, key);
        let request = tally.planner.next(&layout, &TallyWords::from(&tally.words), ms);
        let due_ms = tally.planner.due_ms(&layout, &tally.words());
        if let Some(due_ms) = due_ms {
            let wait_ms = due_ms.saturating_sub(ms).max(1);
            self.look_at(machine, key, self.now + wait_ms * 1000);
        }
        if let Some(request) = request {
            self.send(machine, key, request);
        }
    }

    fn send(&mut self, machine: usize, key: usize, request: LeaseRequest) {
        self.sent += 1;
        self.hot_sent += u64::from(key < self.hot);
        let (connection, sent_ms) = (self.machines[machine].connection, self.local_ms(machine));
        if self.machines[machine].is_cut_off {
            return;
        }
        self.settle(machine, key);
        self.tally(machine, key).sent_ms = Some(sent_ms);
        self.machines[machine].in_flight += 1;
        let (request, name) = (Rc::new(request), self.machines[machine].name);
        let event = Event::Store { machine, name, key, connection, sent_ms, request };
        if !self.is_lost() {
            let delay = self.delay();
            self.at(self.now + delay, event.clone());
        }
        if self.scenario.repeats > 0.0 && self.random.part() < self.scenario.repeats {
            let delay = self.random.below(2 * SECOND);
            self.at(self.now + delay, event);
        }
    }

    /// Notes that the lease request of a tally has its reply, or was given up.
    fn settle(&mut self, machine: usize, key: usize) {
        let now_ms = self.local_ms(machine);
        let Some(sent_ms) = self.tally(machine, key).sent_ms.take() else { return };
        let here = &mut self.machines[machine];
        here.in_flight -= 1;
        here.flow.replied(sent_ms, now_ms);
        for _ in here.in_flight..here.flow.most() {
            let Some(next) = self.machines[machine].queue.pop_front() else { break };
            self.tally(machine, next).is_queued = false;
            self.look_at(machine, next, self.now + 1);
        }
    }

    /// Forgets the lease requests of a connection that ended.
    fn disconnect(&mut self, machine: usize) {
        let here = &mut self.machines[machine];
        (here.connection, here.in_flight) = (here.connection + 1, 0);
        (here.flow, here.queue) = (Flow::default(), VecDeque::new());
        for tally in here.tallies.iter_mut().flatten() {
            (tally.sent_ms, tally.is_queued) = (None, false);
        }
    }

    fn apply(
        &mut self,
        (machine, name): (usize, u32),
        key: usize,
        connection: u32,
        sent_ms: u64,
        request: &LeaseRequest,
    ) {
        if !self.is_store_up || self.machines[machine].is_cut_off {
            return;
        }
        let server = key % self.scenario.servers;
        let done = self.busy_until[server].max(self.now) + SERVICE;
        self.busy_until[server] = done;
        self.count_second();
        let now_ms = self.true_ms();
        let mut reply = Reply { store_ms: now_ms, ..Reply::default() };
        for (index, window) in request.windows().iter().enumerate() {
            let position = (key, index, window.begin_ms);
            let entry = self.store.entry(position).or_default();
            if self.scenario.failure.is_some() {
                self.writes.push(Write {
                    at: self.now,
                    window: position,
                    name,
                    before: entry.holdings.get(&name).copied(),
                    out: entry.out,
                    machines: entry.machines,
                    withheld_ms: entry.withheld_ms,
                });
            }
            let (answer, published) =
                entry.apply(&self.terms, now_ms, name, request.number, window);
            reply.windows[index] = answer;
            self.publish(done, key, index, &published);
        }
        if !self.is_lost() {
            let delay = self.delay();
            let answer = Rc::new((*request, reply));
            self.at(done + delay, Event::Reply { machine, key, connection, sent_ms, answer });
        }
    }

    fn publish(&mut self, done: Time, key: usize, index: usize, published: &Published) {
        for &name in &published.recalls {
            self.busy_until[key % self.scenario.servers] += 1;
            if !self.is_lost() {
                let delay = self.delay();
                self.at(done + delay, Event::Recall { name, key, index });
            }
        }
        if published.again {
            for machine in 0..self.machines.len() {
                if !self.is_lost() {
                    let delay = self.delay();
                    self.at(done + delay, Event::Again { machine, key });
                }
            }
        }
    }

    fn count_second(&mut self) {
        let second = self.now / SECOND;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        self.figures.busiest_second = self.figures.busiest_second.max(self.second.1);
    }

    fn reply(
        &mut self,
        machine: usize,
        key: usize,
        connection: u32,
        sent_ms: u64,
        (request, reply): &(LeaseRequest, Reply),
    ) {
        let here = &self.machines[machine];
        if here.is_cut_off || !here.is_connected || here.connection != connection {
            return;
        }
        if self.tally(machine, key).sent_ms == Some(sent_ms) {
            self.settle(machine, key);
        }
        let local_ms = self.local_ms(machine);
        self.machines[machine].clock.replied(sent_ms, local_ms, reply.store_ms);
        let (ms, layout, now) = (self.fleet_ms(machine), self.layout, self.now);
        let tally = self.tally(machine, key);
        tally.planner.replied(&layout, &TallyWords::from(&tally.words), ms, request, reply);
        // The requests that wait look again.
        let (mut rest, mut admitted, mut denied) = (Vec::new(), Vec::new(), 0);
        for (came, number) in core::mem::take(&mut tally.waiting) {
            match spend(&layout, &tally.words(), ms, 1) {
                Spending::Spent { at_ms, .. } => admitted.push((came, at_ms)),
                Spending::Exhausted => denied += 1,
                Spending::NoCredits => {
                    want(&tally.words(), 1);
                    tally.planner.wanted();
                    rest.push((came, number));
                }
            }
        }
        tally.waiting = rest;
        for (came, at_ms) in admitted {
            self.waits.push(now - came);
            self.admitted(machine, key, at_ms);
        }
        for _ in 0..denied {
            self.denied(key, ms);
        }
        self.report(machine, key);
    }

    /// A machine restarts. Its file is empty, and it takes another name.
    fn restart(&mut self) {
        let machine = self.restarted % self.machines.len();
        self.restarted += 1;
        let name = u32::try_from(self.machines.len() + self.restarted).unwrap();
        self.names.remove(&self.machines[machine].name);
        self.names.insert(name, machine);
        self.machines[machine].name = name;
        self.disconnect(machine);
        for key in 0..self.scenario.keys {
            let waiting = self.tally(machine, key).waiting.len();
            *self.tally(machine, key) = Tally::new(name.into());
            let ms = self.fleet_ms(machine);
            (0..waiting).for_each(|_| self.denied(key, ms));
        }
    }

    /// An agent is killed, and another takes over from the words, on a connection of its own.
    fn kill(&mut self) {
        let machine = self.random.index(self.machines.len());
        self.disconnect(machine);
        for key in 0..self.scenario.keys {
            let tally = self.tally(machine, key);
            tally.planner = Planner::new(7);
            if !tally.waiting.is_empty() {
                want(&tally.words(), 1);
                tally.planner.wanted();
            }
            // It sees the report of every tally that was reported.
            self.report(machine, key);
        }
    }

    fn fail(&mut self) {
        match self.scenario.failure {
            Some(Failure::Emptied) => self.store.clear(),
            Some(Failure::Failover(lost)) => {
                while let Some(write) = self.writes.pop_if(|write| write.at + lost >= self.now) {
                    let window = self.store.get_mut(&write.window).unwrap();
                    (window.out, window.machines) = (write.out, write.machines);
                    window.withheld_ms = write.withheld_ms;
                    match write.before {
                        Some(before) => window.holdings.insert(write.name, before),
                        None => window.holdings.remove(&write.name),
                    };
                }
            }
            None => {}
        }
        self.is_store_up = false;
        for machine in 0..self.machines.len() {
            self.machines[machine].is_connected = false;
            self.disconnect(machine);
            let after = 3 * SECOND + self.random.below(400_000);
            self.at(self.now + after, Event::Connect { machine });
        }
    }

    fn connect(&mut self, machine: usize) {
        self.is_store_up = true;
        self.machines[machine].is_connected = true;
        let (ms, layout) = (self.fleet_ms(machine), self.layout);
        for key in 0..self.scenario.keys {
            let tally = self.tally(machine, key);
            let words = TallyWords::from(&tally.words);
            tally.planner.reconnected(&words, ms);
            if !tally.waiting.is_empty() {
                tally.planner.wanted();
            }
            let is_unreserved = unreserved_ms(&layout, &words, ms).is_some();
            if is_held(&layout, &words, ms) || is_unreserved || !tally.waiting.is_empty() {
                self.look_at(machine, key, self.now + 1);
            }
        }
    }

    fn figures(mut self) -> Figures {
        let (mut possible, mut unfilled, mut full, mut unusable) = (0, 0, 0, 0);
        for index in 0..self.layout.len() {
            let limit = u64::from(self.layout.limit(index));
            for count in self.counts[index].iter().flatten() {
                let ideal = count.requested.min(limit);
                if index == 0 && count.requested > limit {
                    full += limit;
                    unusable += limit.saturating_sub(count.admitted);
                }
                if index == 0 {
                    possible += ideal;
                    unfilled += ideal.saturating_sub(count.admitted);
                }
                self.figures.over = self.figures.over.max(count.admitted.saturating_sub(limit));
            }
            for count in self.true_counts[index].iter().flatten() {
                let over = count.saturating_sub(limit);
                self.figures.over_in_true_time = self.figures.over_in_true_time.max(over);
            }
        }
        self.waits.sort_unstable();
        let requests = self.figures.requests as f64;
        let percent = |part: u64, all: f64| 100.0 * part as f64 / all.max(1.0);
        Figures {
            unfilled: percent(unfilled, possible as f64),
            unusable: percent(unusable, full as f64),
            early: percent(self.early, requests),
            leases: self.sent as f64 / requests,
            hot_leases: self.hot_sent as f64 / (self.hot_requests as f64).max(1.0),
            waited: percent(self.waits.len() as u64, requests),
            wait_p99_ms: self
                .waits
                .get(self.waits.len().saturating_sub(1) * 99 / 100)
                .map_or(0.0, |&wait| wait as f64 / 1000.0),
            ..self.figures
        }
    }
}
