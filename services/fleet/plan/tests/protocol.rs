//! Every order of a small fleet: two machines, two lease requests each, and limits of 2 and 3
//! units.
//!
//! The search visits every state that some order of spending, requests, replies, losses,
//! repetitions, late messages and killed agents leads to. An agent is killed before each of its
//! writes, and a request spends a credit before each of them. The steps are those of the crate, and
//! the store is the model of its script.
//!
//! Each rule of the protocol can be removed. The search must then find a state in which the
//! machines can admit more than the limit, or it would prove nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[path = "support/store.rs"]
mod store;

use alloc::collections::VecDeque;
use core::cell::Cell;
use core::hash::{BuildHasherDefault, Hash, Hasher};
use std::collections::HashSet;

use keytally_core::{MAX_QUOTAS, Policy};
use keytally_fleet_plan::credit::{self, CreditLayout, Units};
use keytally_fleet_plan::holding;
use keytally_fleet_plan::meta::Meta;
use keytally_fleet_plan::request::{LeaseRequest, Reply, WindowReply, WindowRequest};
use keytally_fleet_plan::words::{Word, Words, deduct_unreserved};

use store::{Holding, Terms, Window};

/// The time of everything: the search is about one window.
const NOW_MS: u64 = 1_700_000_040_000;

/// A rule that a search is made without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    /// The store refuses requests with an old number.
    OldNumbersAreRefused,
    /// A reply is void unless its request is the open one.
    LateRepliesAreVoid,
    /// The number of a request is in the file before the request is sent.
    NumberIsSavedFirst,
    /// What is given back is taken from the credits before it is stated.
    CreditsAreTakenFirst,
    /// The holding is written before the credits are added.
    HoldingIsWrittenFirst,
    /// What was admitted without credits is moved to the holding before it is forgotten.
    UnreservedIsHeldFirst,
}

/// The words of one machine and what it has spent, small enough to keep millions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Machine {
    credits: u8,
    holding: u8,
    spent: u8,
    /// What was admitted without credits, and what of it is not in the holding.
    alone: u8,
    unreserved: u8,
    number: u8,
    is_open: bool,
}

/// A message on its way: a lease request, and what the store replied.
#[derive(Clone, Copy, Debug)]
struct Message {
    /// 0 for the first machine, 1 for the second.
    machine: u8,
    number: u8,
    hold: u8,
    unreserved: u8,
    want: u8,
    held: u8,
}

impl Message {
    /// Returns the message as a number that is not 0, since no request has the number 0.
    fn code(self) -> u16 {
        let [hold, unreserved] = [(self.hold, 3), (self.unreserved, 2)];
        let fields = [(self.number, 2), unreserved, hold, (self.want, 3), (self.held, 3)];
        fields.iter().fold(self.machine.into(), |code, &(field, bits)| {
            assert!(field < 1 << bits, "{self:?}");
            code << bits | u16::from(field)
        })
    }

    fn from_code(code: u16) -> Self {
        let field =
            |shift: u16, bits: u16| u8::try_from(code >> shift & ((1 << bits) - 1)).unwrap();
        Self {
            machine: field(13, 1),
            number: field(11, 2),
            unreserved: field(9, 2),
            hold: field(6, 3),
            want: field(3, 3),
            held: field(0, 3),
        }
    }
}

/// The most messages of a kind that are on their way at once.
const MESSAGES: usize = 8;

/// A set of messages: their codes in order, and then zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Messages([u16; MESSAGES]);

impl Messages {
    fn all(&self) -> impl Iterator<Item = Message> + use<> {
        self.0.into_iter().take_while(|&code| code != 0).map(Message::from_code)
    }

    fn len(&self) -> usize {
        self.0.iter().take_while(|&&code| code != 0).count()
    }

    fn with(self, message: Message) -> Self {
        self.with_code(message.code())
    }

    fn with_code(mut self, code: u16) -> Self {
        let len = self.len();
        if let Err(index) = self.0[..len].binary_search(&code) {
            assert!(len < MESSAGES, "more messages than the search has room for");
            self.0[index..=len].rotate_right(1);
            self.0[index] = code;
        }
        self
    }

    fn without(mut self, index: usize) -> Self {
        self.0[index] = 0;
        self.0[index..].rotate_left(1);
        self
    }

    /// Returns the set with the machines exchanged. Those of the second machine are the larger
    /// codes.
    fn swapped(self) -> Self {
        const SECOND: u16 = 1 << 13;
        let len = self.len();
        let first = self.0[..len].partition_point(|&code| code < SECOND);
        let mut swapped = Self::default();
        let codes = self.0[first..len].iter().chain(&self.0[..first]);
        for (code, new) in codes.zip(&mut swapped.0) {
            *new = code ^ SECOND;
        }
        swapped
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct State {
    machines: [Machine; 2],
    /// What the store knows of each machine: the last number and the holding.
    store: [Option<(u8, u8)>; 2],
    requests: Messages,
    replies: Messages,
}

impl State {
    /// Returns this state or the one with the machines exchanged, which behaves alike.
    fn canonical(self) -> Self {
        let [one, two] = self.machines;
        let [first, second] = self.store;
        let swapped = Self {
            machines: [two, one],
            store: [second, first],
            requests: self.requests.swapped(),
            replies: self.replies.swapped(),
        };
        self.min(swapped)
    }

    fn with_machine(mut self, index: usize, machine: Machine) -> Self {
        self.machines[index] = machine;
        self
    }

    /// What the machines have admitted or can admit without another word of the store.
    fn admissible(&self) -> u8 {
        self.machines.iter().map(|machine| machine.spent + machine.credits).sum()
    }
}

/// The words of a machine, in which an agent can be killed and a request can spend at a write.
struct Memory<'l> {
    layout: &'l CreditLayout,
    words: [Cell<u64>; 5],
    spent: Cell<u8>,
    alone: Cell<u8>,
    /// The most units that are admitted without credits.
    most_alone: u8,
    /// The writes so far.
    writes: Cell<usize>,
    /// The first write that the agent is killed before.
    killed_at: usize,
    /// The write before which a request spends a credit.
    spends_at: usize,
}

const NEVER: usize = usize::MAX;

impl<'l> Memory<'l> {
    fn new(
        layout: &'l CreditLayout,
        machine: Machine,
        most_alone: u8,
        [killed_at, spends_at]: [usize; 2],
    ) -> Self {
        let word = |units: u8| Cell::new(layout.word(NOW_MS, &[units.into(), 0, 0, 0]));
        let meta = Meta::default().with_number(machine.number.into()).with_open(machine.is_open);
        Self {
            layout,
            words: [
                word(machine.credits),
                word(machine.holding),
                Cell::new(0),
                Cell::new(meta.bits()),
                word(machine.unreserved),
            ],
            spent: Cell::new(machine.spent),
            alone: Cell::new(machine.alone),
            most_alone,
            writes: Cell::new(0),
            killed_at,
            spends_at,
        }
    }

    fn machine(&self) -> Machine {
        let units = |word: Word| narrow(self.layout.units(self.load(word), 0));
        let meta = Meta::from_bits(self.load(Word::Meta));
        Machine {
            credits: units(Word::Credits),
            holding: units(Word::Holding),
            spent: self.spent.get(),
            alone: self.alone.get(),
            unreserved: units(Word::Unreserved),
            number: narrow(meta.number()),
            is_open: meta.is_open(),
        }
    }

    /// Spends a credit if there is one. Otherwise the machine may admit a request without.
    fn spend(&self) {
        let [credits, .., unreserved] = &self.words;
        if let Some(next) = credit::spend(self.layout, credits.get(), NOW_MS, 1) {
            credits.set(next);
            self.spent.set(self.spent.get() + 1);
        } else if self.alone.get() < self.most_alone {
            let units = [1, 0, 0, 0];
            unreserved.set(credit::grant(self.layout, unreserved.get(), NOW_MS, NOW_MS, &units));
            self.alone.set(self.alone.get() + 1);
        }
    }

    /// Returns whether the agent still makes this write.
    fn is_made(&self) -> bool {
        let write = self.writes.replace(self.writes.get() + 1);
        if write == self.spends_at {
            self.spend();
        }
        write < self.killed_at
    }
}

impl Words for Memory<'_> {
    fn load(&self, word: Word) -> u64 {
        self.words[word as usize].get()
    }

    fn store(&self, word: Word, value: u64) {
        if self.is_made() {
            self.words[word as usize].set(value);
        }
    }

    /// An exchange after the agent was killed seems to succeed, so that its loop ends.
    fn exchange(&self, word: Word, present: u64, next: u64) -> Result<(), u64> {
        let cell = &self.words[word as usize];
        let is_made = self.is_made();
        if !is_made {
            return Ok(());
        }
        if cell.get() == present {
            cell.set(next);
            Ok(())
        } else {
            Err(cell.get())
        }
    }
}

fn narrow(units: u32) -> u8 {
    u8::try_from(units).unwrap()
}

struct Search {
    layout: CreditLayout,
    limit: u8,
    /// The most requests of each machine.
    requests: u8,
    /// The most units that both machines together admit without credits.
    most_alone: u8,
    removed: Option<Removed>,
    terms: Terms,
    seen: HashSet<State, BuildHasherDefault<Mixer>>,
    queue: VecDeque<State>,
}

/// What a search found.
#[derive(Debug)]
struct Found {
    states: usize,
    /// The most units that the machines could admit in some state.
    most: u8,
    /// The first state in which they could admit more than the limit.
    violation: Option<State>,
}

impl Search {
    fn new(limit: u8, requests: u8, removed: Option<Removed>) -> Self {
        let policy: Policy = format!("{limit}/minute").parse().unwrap();
        let layout = CreditLayout::new(policy.layout(), &policy.limits()).unwrap();
        let checks_numbers = removed != Some(Removed::OldNumbersAreRefused);
        let terms = Terms { checks_numbers, ..Terms::default() };
        let (seen, queue) = (HashSet::default(), VecDeque::new());
        Self { layout, limit, requests, most_alone: 0, removed, terms, seen, queue }
    }

    fn run(mut self) -> Found {
        self.add(State::default());
        let mut most = 0;
        while let Some(state) = self.queue.pop_front() {
            most = most.max(state.admissible());
            if state.admissible() > self.limit {
                return Found { states: self.seen.len(), most, violation: Some(state) };
            }
            let is_forgotten = |machine: &Machine| {
                let stated = machine.holding + machine.unreserved;
                machine.spent + machine.credits + machine.alone > stated
            };
            if self.removed == Some(Removed::UnreservedIsHeldFirst)
                && state.machines.iter().any(is_forgotten)
            {
                return Found { states: self.seen.len(), most, violation: Some(state) };
            }
            if self.removed.is_none() {
                for (machine, store) in state.machines.iter().zip(state.store) {
                    assert!(machine.spent + machine.credits <= machine.holding, "{state:?}");
                    assert!(!is_forgotten(machine), "{state:?}");
                    let counted = store.map_or(0, |(_, held)| held);
                    assert!(machine.holding <= counted, "the store counts less: {state:?}");
                }
            }
            for index in 0..2 {
                self.steps_of_requests(&state, index);
                self.steps_of_agent(&state, index);
            }
            self.steps_of_messages(&state);
        }
        Found { states: self.seen.len(), most, violation: None }
    }

    fn add(&mut self, state: State) {
        let state = state.canonical();
        if self.seen.insert(state) {
            self.queue.push_back(state);
        }
    }

    /// A request of a client spends a credit at any time.
    fn steps_of_requests(&mut self, state: &State, index: usize) {
        let memory = self.memory(state, index);
        memory.spend();
        self.add(state.with_machine(index, memory.machine()));
    }

    /// Returns the words of a machine, in which nothing happens meanwhile.
    fn memory(&self, state: &State, index: usize) -> Memory<'_> {
        let most_alone = self.most_alone(state, index);
        Memory::new(&self.layout, state.machines[index], most_alone, [NEVER, NEVER])
    }

    /// Returns how many units a machine may have admitted without credits.
    fn most_alone(&self, state: &State, index: usize) -> u8 {
        self.most_alone - state.machines[1 - index].alone
    }

    fn steps_of_agent(&mut self, state: &State, index: usize) {
        let machine = state.machines[index];
        // It gives the open request up, or is killed while it does nothing.
        if machine.is_open {
            self.add(state.with_machine(index, Machine { is_open: false, ..machine }));
        }
        self.killed(state, index, machine);
        if machine.number >= self.requests {
            return;
        }
        for more in 0..=u32::from(self.limit.min(2)) {
            self.every_way(state, index, |layout, memory| {
                let more = [more, 0, 0, 0];
                holding::open(layout, memory, NOW_MS, &more).map(|(request, _)| request)
            });
        }
        for units in 1..=machine.credits {
            let units = [units.into(), 0, 0, 0];
            self.every_way(state, index, |layout, memory| {
                holding::give_back(layout, memory, NOW_MS, &units)
            });
            if self.removed == Some(Removed::CreditsAreTakenFirst) {
                // The agent is killed before it would take the credits.
                self.every_way(state, index, |layout, memory| {
                    holding::lower_holding(layout, memory, NOW_MS, &units);
                    holding::open(layout, memory, NOW_MS, &NONE).map(|(request, _)| request)
                });
            }
        }
    }

    /// Lets the agent do `work` undisturbed, with a request that spends before one of its writes,
    /// and killed before each of them. If it is not killed, the lease request that it returns is
    /// sent.
    fn every_way(
        &mut self,
        state: &State,
        index: usize,
        work: impl Fn(&CreditLayout, &Memory<'_>) -> Option<LeaseRequest>,
    ) {
        let (layout, most_alone) = (self.layout, self.most_alone(state, index));
        let machine = state.machines[index];
        let run = |killed_at, spends_at| {
            let memory = Memory::new(&layout, machine, most_alone, [killed_at, spends_at]);
            let request = work(&layout, &memory);
            (memory.machine(), memory.writes.get(), request)
        };
        let (after, writes, request) = run(NEVER, NEVER);
        self.sent(state, index, after, request);
        for write in 0..writes {
            let (after, _, request) = run(NEVER, write);
            self.sent(state, index, after, request);
            let (after, _, _) = run(write, NEVER);
            self.killed(state, index, after);
        }
    }

    fn sent(&mut self, state: &State, index: usize, after: Machine, request: Option<LeaseRequest>) {
        let mut next = state.with_machine(index, after);
        if let Some(request) = request {
            let window = request.windows()[0];
            next.requests = next.requests.with(Message {
                machine: narrow(index.try_into().unwrap()),
                number: narrow(request.number),
                hold: narrow(window.hold),
                unreserved: narrow(window.unreserved),
                want: narrow(window.want),
                held: 0,
            });
        }
        self.add(next);
    }

    /// The agent was killed, and another takes over from the words.
    fn killed(&mut self, state: &State, index: usize, machine: Machine) {
        let mut machine = machine;
        if self.removed == Some(Removed::NumberIsSavedFirst) && machine.is_open {
            machine.number -= 1;
        }
        machine.is_open = false;
        self.add(state.with_machine(index, machine));
    }

    /// Each message is lost, or arrives, perhaps not for the last time.
    fn steps_of_messages(&mut self, state: &State) {
        for (at, message) in state.requests.all().enumerate() {
            let lost = State { requests: state.requests.without(at), ..*state };
            self.add(lost);
            self.add(self.applied(&lost, message));
            if state.requests.len() < 4 {
                self.add(self.applied(state, message));
            }
        }
        for (at, message) in state.replies.all().enumerate() {
            let lost = State { replies: state.replies.without(at), ..*state };
            self.add(lost);
            self.replied(&lost, message);
        }
    }

    /// The store applies a request, and replies.
    fn applied(&self, state: &State, message: Message) -> State {
        let mut window = Window::default();
        for (name, known) in (0..).zip(state.store) {
            if let Some((number, held)) = known {
                let holding = Holding { number: number.into(), held: held.into() };
                window.holdings.insert(name, holding);
                window.machines += 1;
                window.out += i64::from(held);
            }
        }
        let (machine, request) = (message.machine.into(), self.request(message));
        let (reply, _) = window.apply(
            &self.terms,
            NOW_MS,
            machine,
            message.number.into(),
            &request.windows()[0],
        );
        let mut next = *state;
        for (name, known) in (0..).zip(&mut next.store) {
            let holding = window.holdings.get(&name);
            *known = holding.map(|holding| (narrow(holding.number), narrow(holding.held)));
        }
        // The reply to an old request is void, whatever it says.
        if reply.machines > 0 {
            next.replies = next.replies.with(Message { held: narrow(reply.held), ..message });
        }
        next
    }

    fn replied(&mut self, state: &State, message: Message) {
        let index = usize::from(message.machine);
        let mut request = self.request(message);
        if self.removed == Some(Removed::LateRepliesAreVoid) {
            request.number = state.machines[index].number.into();
        }
        let mut reply = Reply { store_ms: NOW_MS, ..Reply::default() };
        reply.windows[0] = WindowReply { held: message.held.into(), left: 1, machines: 1 };
        self.every_way(state, index, |layout, memory| {
            holding::apply(layout, memory, NOW_MS, &request, &reply);
            None
        });
        let is_open =
            state.machines[index].is_open && state.machines[index].number == message.number;
        if self.removed == Some(Removed::HoldingIsWrittenFirst) && is_open {
            // The agent is killed before it would write the holding.
            let gained = [u32::from(message.held - message.hold), 0, 0, 0];
            let memory = self.memory(state, index);
            holding::add_credits(&self.layout, &memory, NOW_MS, NOW_MS, &gained);
            let machine = memory.machine();
            self.killed(state, index, machine);
        }
        if self.removed == Some(Removed::UnreservedIsHeldFirst) && is_open {
            // The agent is killed before it would write the holding.
            let counted = [u32::from(message.unreserved), 0, 0, 0];
            let memory = self.memory(state, index);
            deduct_unreserved(&self.layout, &memory, NOW_MS, &counted);
            let machine = memory.machine();
            self.killed(state, index, machine);
        }
    }

    fn request(&self, message: Message) -> LeaseRequest {
        let span = self.layout.span(0, NOW_MS);
        let mut windows = [WindowRequest::default(); MAX_QUOTAS];
        windows[0] = WindowRequest {
            limit: self.limit.into(),
            hold: message.hold.into(),
            unreserved: message.unreserved.into(),
            want: message.want.into(),
            begin_ms: span.begin_ms,
            end_ms: span.end_ms,
        };
        LeaseRequest { number: message.number.into(), at_ms: NOW_MS, windows, len: 1 }
    }
}

const NONE: Units = [0; MAX_QUOTAS];

/// A fast hash for states, of which there are millions.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

fn holds(limit: u8) {
    let found = Search::new(limit, 2, None).run();
    println!("limit {limit}: {} states, at most {} units admissible", found.states, found.most);
    assert!(found.violation.is_none(), "{found:?}");
    assert_eq!(found.most, limit, "the search never reaches the limit");
    assert!(found.states > 100_000, "the search is too small: {} states", found.states);
}

#[test]
fn two_machines_admit_two_units_in_every_order() {
    holds(2);
}

/// What a machine admits without credits is counted by the store as soon as it hears of it. Nothing
/// of it is forgotten, and the units that are leased never exceed the limit.
#[test]
fn units_admitted_without_credits_are_never_forgotten() {
    let search = Search { most_alone: 1, ..Search::new(1, 2, None) };
    let found = search.run();
    println!("{} states, at most {} units admissible", found.states, found.most);
    assert!(found.violation.is_none(), "{found:?}");
    assert_eq!(found.most, 1, "the search never reaches the limit");
    assert!(found.states > 100_000, "the search is too small: {} states", found.states);
}

#[test]
fn unreserved_units_that_are_deducted_before_they_are_held_are_forgotten() {
    let removed = Some(Removed::UnreservedIsHeldFirst);
    let found = Search { most_alone: 1, ..Search::new(1, 2, removed) }.run();
    println!("violated after {} states", found.states);
    assert!(found.violation.is_some(), "no state forgets a unit");
}

/// In the short form, one search is enough.
#[test]
fn two_machines_admit_three_units_in_every_order() {
    if std::env::var_os("KEYTALLY_FULL").is_some() {
        holds(3);
    }
}

fn violates(removed: Removed) {
    let found = Search::new(2, 2, Some(removed)).run();
    println!("without {removed:?}: violated after {} states", found.states);
    assert!(found.violation.is_some(), "no state violates the limit without {removed:?}");
}

#[test]
fn store_that_accepts_old_numbers_exceeds_the_limit() {
    violates(Removed::OldNumbersAreRefused);
}

#[test]
fn late_reply_that_is_applied_exceeds_the_limit() {
    violates(Removed::LateRepliesAreVoid);
}

#[test]
fn number_that_is_not_saved_first_exceeds_the_limit() {
    violates(Removed::NumberIsSavedFirst);
}

#[test]
fn giving_back_before_taking_credits_exceeds_the_limit() {
    violates(Removed::CreditsAreTakenFirst);
}

#[test]
fn credits_added_before_the_holding_exceed_the_limit() {
    violates(Removed::HoldingIsWrittenFirst);
}
