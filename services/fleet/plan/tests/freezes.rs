//! A request or an agent is stopped before each of its accesses to the words of a tally, and
//! continues when much has changed: other requests, the agent, another machine or new windows have
//! used the same words.
//!
//! SIGSTOP, a debugger, a cgroup freezer and a suspended virtual machine do this. What continues
//! has an old reading of the clock. A stopped agent keeps its lock, so no other agent of its
//! machine runs meanwhile.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[path = "support/store.rs"]
mod store;

use alloc::collections::BTreeMap;
use core::cell::{Cell, RefCell};

use keytally_core::Policy;
use keytally_core::sync::AtomicU64;
use keytally_fleet_plan::credit::{CreditLayout, Units};
use keytally_fleet_plan::holding::{self, Applied};
use keytally_fleet_plan::request::{LeaseRequest, Reply};
use keytally_fleet_plan::words::{
    CompoundSpending, Part, Spending, TallyWords, Word, Words, refund, spend, spend_all,
    spend_up_to,
};

use store::{Terms, Window};

/// The beginning of an hour.
const START_MS: u64 = 1_699_999_200_000;

/// The tallies of each machine: those of a key and of its team.
const POLICIES: [&str; 2] = ["12/minute", "10/minute, 16/hour"];

/// The machine on which something is stopped, and the other one.
const HERE: usize = 0;
const THERE: usize = 1;

/// The words of a tally, and what happens before the access at which their user is stopped.
struct Stopped<'s> {
    words: TallyWords<'s>,
    /// The number of accesses before that one; below 0 after it.
    left: &'s Cell<i64>,
    meanwhile: &'s dyn Fn(),
}

impl Stopped<'_> {
    fn step(&self) {
        let left = self.left.get();
        self.left.set(left - 1);
        if left == 0 {
            (self.meanwhile)();
        }
    }
}

impl Words for Stopped<'_> {
    fn load(&self, word: Word) -> u64 {
        self.step();
        self.words.load(word)
    }

    fn store(&self, word: Word, value: u64) {
        self.step();
        self.words.store(word, value);
    }

    fn exchange(&self, word: Word, present: u64, next: u64) -> Result<(), u64> {
        self.step();
        self.words.exchange(word, present, next)
    }
}

/// What is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A request that spends units of both tallies.
    Request,
    /// A refund of a request.
    Refund,
    /// The settlement of a request that cost more than estimated.
    Settlement,
    /// An agent that applies a reply.
    Lease,
    /// An agent that gives units back.
    GiveBack,
}

const ROLES: [Role; 5] =
    [Role::Request, Role::Refund, Role::Settlement, Role::Lease, Role::GiveBack];

impl Role {
    fn is_agent(self) -> bool {
        matches!(self, Self::Lease | Self::GiveBack)
    }
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    RequestsSpend,
    RequestsRefund,
    OtherMachineSpends,
    /// The agent gives everything back, and the other machine spends it.
    AgentGivesBack,
    AgentLeases,
    /// The machine gets another name.
    AgentRenews,
    NextMinute,
    NextHour,
}

const ALL: [Meanwhile; 8] = [
    Meanwhile::RequestsSpend,
    Meanwhile::RequestsRefund,
    Meanwhile::OtherMachineSpends,
    Meanwhile::AgentGivesBack,
    Meanwhile::AgentLeases,
    Meanwhile::AgentRenews,
    Meanwhile::NextMinute,
    Meanwhile::NextHour,
];

/// A window: its tally, its index and its beginning.
type Name = (usize, usize, u64);

/// Two machines, and a store that always answers.
struct World {
    layouts: [CreditLayout; 2],
    words: [[[AtomicU64; 5]; 2]; 2],
    /// The names of the machines.
    names: Cell<[u32; 2]>,
    store: RefCell<BTreeMap<Name, Window>>,
    now_ms: Cell<u64>,
    /// The units that were spent, and those that were refunded.
    spent: RefCell<BTreeMap<Name, u32>>,
    refunded: RefCell<BTreeMap<Name, u32>>,
    /// Requests that may be refunded: the times of their charges.
    charges: RefCell<Vec<[u64; 2]>>,
}

fn units(layout: &CreditLayout, count: u32) -> Units {
    let mut units = Units::default();
    units[..layout.len()].fill(count);
    units
}

impl World {
    fn new() -> Self {
        let layout = |policy: &str| {
            let policy: Policy = policy.parse().unwrap();
            CreditLayout::new(policy.layout(), &policy.limits()).unwrap()
        };
        Self {
            layouts: POLICIES.map(layout),
            words: Default::default(),
            names: Cell::new([0, 1]),
            store: RefCell::default(),
            now_ms: Cell::new(START_MS),
            spent: RefCell::default(),
            refunded: RefCell::default(),
            charges: RefCell::default(),
        }
    }

    fn words(&self, machine: usize, tally: usize) -> TallyWords<'_> {
        TallyWords::from(&self.words[machine][tally])
    }

    fn note(&self, all: &RefCell<BTreeMap<Name, u32>>, tally: usize, at_ms: u64, cost: u32) {
        for index in 0..self.layouts[tally].len() {
            let begin_ms = self.layouts[tally].span(index, at_ms).begin_ms;
            *all.borrow_mut().entry((tally, index, begin_ms)).or_default() += cost;
        }
    }

    /// Makes a request for one unit of both tallies.
    fn request<W: Words>(&self, now_ms: u64, words: [W; 2]) -> bool {
        let [of_key, of_team] = words;
        let [key, team] = &self.layouts;
        let parts = [
            Part { layout: key, words: of_key, cost: 1 },
            Part { layout: team, words: of_team, cost: 1 },
        ];
        let CompoundSpending::Spent { at_ms, .. } = spend_all(&parts, now_ms) else { return false };
        for (tally, at_ms) in at_ms.into_iter().enumerate().take(2) {
            self.note(&self.spent, tally, at_ms, 1);
        }
        self.charges.borrow_mut().push([at_ms[0], at_ms[1]]);
        true
    }

    /// Refunds a request, if there was one.
    fn refund<W: Words>(&self, words: [W; 2]) {
        let Some(charge) = self.charges.borrow_mut().pop() else { return };
        for (tally, words) in words.iter().enumerate() {
            self.note(&self.refunded, tally, charge[tally], 1);
            refund(&self.layouts[tally], words, charge[tally], 1);
        }
    }

    fn of(&self, machine: usize) -> [TallyWords<'_>; 2] {
        [self.words(machine, 0), self.words(machine, 1)]
    }

    fn requests_spend(&self, machine: usize) {
        while self.request(self.now_ms.get(), self.of(machine)) {}
    }

    /// The store applies a lease request.
    fn send(&self, machine: usize, tally: usize, request: &LeaseRequest) -> Reply {
        let mut reply = Reply { store_ms: self.now_ms.get(), ..Reply::default() };
        let mut store = self.store.borrow_mut();
        for (index, window) in request.windows().iter().enumerate() {
            let held = store.entry((tally, index, window.begin_ms)).or_default();
            let (now_ms, name) = (self.now_ms.get(), self.names.get()[machine]);
            let terms = Terms::default();
            reply.windows[index] = held.apply(&terms, now_ms, name, request.number, window).0;
        }
        reply
    }

    /// The agent requests units of a tally, and applies the reply.
    fn lease<W: Words>(&self, machine: usize, tally: usize, count: u32, now_ms: u64, words: &W) {
        let layout = &self.layouts[tally];
        let more = units(layout, count);
        let Some((request, _)) = holding::open(layout, words, now_ms, &more) else { return };
        let reply = self.send(machine, tally, &request);
        let applied = holding::apply(layout, words, now_ms, &request, &reply);
        assert_ne!(applied, Applied::NameTaken);
    }

    fn give_back<W: Words>(&self, machine: usize, tally: usize, now_ms: u64, words: &W) {
        let layout = &self.layouts[tally];
        let all = units(layout, u32::MAX);
        let Some(request) = holding::give_back(layout, words, now_ms, &all) else { return };
        let reply = self.send(machine, tally, &request);
        holding::apply(layout, words, now_ms, &request, &reply);
    }

    /// The agent of a machine, which is not stopped, leases all that is left.
    fn lease_all(&self, machine: usize) {
        for tally in [0, 1] {
            let words = self.words(machine, tally);
            self.lease(machine, tally, 100, self.now_ms.get(), &words);
        }
    }

    fn give_all_back(&self, machine: usize) {
        for tally in [0, 1] {
            self.give_back(machine, tally, self.now_ms.get(), &self.words(machine, tally));
        }
    }

    fn other_machine_spends(&self) {
        self.lease_all(THERE);
        self.requests_spend(THERE);
    }

    /// Changes the world while something is stopped on the first machine.
    fn proceed(&self, meanwhile: Meanwhile, role: Role) {
        match meanwhile {
            Meanwhile::RequestsSpend => self.requests_spend(HERE),
            Meanwhile::RequestsRefund => self.refund(self.of(HERE)),
            Meanwhile::OtherMachineSpends => self.other_machine_spends(),
            Meanwhile::AgentGivesBack => {
                self.give_all_back(HERE);
                self.other_machine_spends();
            }
            Meanwhile::AgentLeases => self.lease_all(HERE),
            Meanwhile::AgentRenews => {
                self.names.set([2, 1]);
                self.of(HERE).iter().for_each(holding::void);
                self.lease_all(HERE);
                self.requests_spend(HERE);
            }
            Meanwhile::NextMinute | Meanwhile::NextHour => {
                let minutes = if meanwhile == Meanwhile::NextHour { 60 } else { 1 };
                self.now_ms.set(self.now_ms.get() + minutes * 60_000);
                if !role.is_agent() {
                    for tally in [0, 1] {
                        let words = self.words(HERE, tally);
                        self.lease(HERE, tally, 3, self.now_ms.get(), &words);
                    }
                }
                self.requests_spend(HERE);
                self.other_machine_spends();
            }
        }
    }

    /// Both machines spend all that is left. Then some window of each tally is full, and none has
    /// more than its limit.
    fn finish(&self) {
        for machine in [HERE, THERE, HERE, THERE] {
            self.lease_all(machine);
            self.requests_spend(machine);
            for tally in [0, 1] {
                let (layout, words) = (&self.layouts[tally], self.words(machine, tally));
                while let Spending::Spent { at_ms, .. } =
                    spend(layout, &words, self.now_ms.get(), 1)
                {
                    self.note(&self.spent, tally, at_ms, 1);
                }
            }
            self.give_all_back(machine);
        }
        let (spent, refunded) = (self.spent.borrow(), self.refunded.borrow());
        for (&name, &spent) in &*spent {
            let limit = self.layouts[name.0].limit(name.1);
            let most = limit + refunded.get(&name).copied().unwrap_or(0);
            assert!(spent <= most, "{spent} of {most} units are spent of {name:?}");
        }
        let held = self.names.get() == [0, 1];
        for (tally, layout) in self.layouts.iter().enumerate().filter(|_| held) {
            let is_full = |index: usize| {
                let name = (tally, index, layout.span(index, self.now_ms.get()).begin_ms);
                spent.get(&name).is_some_and(|&spent| spent >= layout.limit(index))
            };
            assert!((0..layout.len()).any(is_full), "no window of {tally} is full: {spent:?}");
        }
    }

    /// Does what a role does, with words that stop it.
    fn act(&self, role: Role, words: [Stopped<'_>; 2]) {
        let now_ms = self.now_ms.get();
        match role {
            Role::Request => drop(self.request(now_ms, words)),
            Role::Refund => self.refund(words),
            Role::Settlement => {
                for (tally, words) in words.iter().enumerate() {
                    let spent = spend_up_to(&self.layouts[tally], words, now_ms, 2);
                    self.note(&self.spent, tally, now_ms, spent);
                }
            }
            Role::Lease => {
                (0..).zip(&words).for_each(|(tally, words)| {
                    self.lease(HERE, tally, 3, now_ms, words);
                });
            }
            Role::GiveBack => {
                (0..).zip(&words).for_each(|(tally, words)| {
                    self.give_back(HERE, tally, now_ms, words);
                });
            }
        }
    }
}

/// Stops at the access after `accesses` others. Returns whether there is one.
fn stop(role: Role, meanwhile: Meanwhile, accesses: i64) -> bool {
    let world = World::new();
    for tally in [0, 1] {
        world.lease(HERE, tally, 6, START_MS, &world.words(HERE, tally));
        world.lease(THERE, tally, 2, START_MS, &world.words(THERE, tally));
    }
    for _ in 0..2 {
        assert!(world.request(START_MS, world.of(HERE)));
    }
    let left = Cell::new(accesses);
    let proceed = || world.proceed(meanwhile, role);
    let stopped = |words| Stopped { words, left: &left, meanwhile: &proceed };
    world.act(role, world.of(HERE).map(stopped));
    world.finish();
    left.get() < 0
}

#[test]
fn stop_at_any_access_admits_nothing_twice() {
    for role in ROLES {
        for meanwhile in ALL {
            let is_by_agent = matches!(
                meanwhile,
                Meanwhile::AgentGivesBack | Meanwhile::AgentLeases | Meanwhile::AgentRenews
            );
            if role.is_agent() && is_by_agent {
                continue;
            }
            let stops = (0..).take_while(|&accesses| stop(role, meanwhile, accesses)).count();
            println!("{role:?} is stopped at {stops} accesses, {meanwhile:?}");
            assert!(stops >= 4, "{role:?} makes {stops} accesses");
        }
    }
}
