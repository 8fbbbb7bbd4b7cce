//! What an agent does when it is killed, when its store is killed or emptied, and when its file or
//! its gate changes.

use alloc::sync::Arc;
use core::time::Duration;
use std::thread;

use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::plan::layout::Phase;
use keytally_fleet::plan::layout::{PageWord, WantedBits};
use keytally_fleet::plan::words::{TallyWords, Word, Words as _};
use keytally_fleet::{Agent, FleetConfig, Machine, OnLoss, Subject};
use redis::cmd;

use crate::support::fleet::{Running, admitted, config, most, request};
use crate::support::memory::{Memory, Outcome, subject};
use crate::support::servers::Server;
use crate::support::time::now;

fn machine(policy: &str) -> Arc<Memory> {
    Arc::new(Memory::new(8, policy))
}

/// Sends requests for a key until one is denied or unavailable. Returns how many were admitted.
fn exhaust(machine: &Memory, tally: u32) -> u32 {
    (0..).find(|_| matches!(machine.check(tally), Outcome::Denied | Outcome::Unavailable)).unwrap()
}

#[test]
fn agent_that_takes_over_continues_with_the_words() {
    let server = Server::start(&[]);
    let machine = machine("10000/hour");
    let agent = Running::start(&machine, &config(&server.url()));
    machine.wait_for(Phase::Leading);
    machine.admit(0);
    let name = machine.page(PageWord::Name).load(Ordering::Acquire);
    agent.stop();
    assert_eq!(machine.state().phase, Phase::Absent);
    assert_eq!(machine.check(0), Outcome::Admitted, "credits are spent without an agent");

    let since = now();
    let agent = Running::start(&machine, &config(&server.url()));
    machine.wait_for(Phase::Leading);
    println!("takeover within {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_millis(500), "it does not learn again");
    assert_eq!(machine.page(PageWord::Name).load(Ordering::Acquire), name);
    assert_eq!(exhaust(&machine, 0) + 2, 10_000);
    let counts = agent.stop();
    assert_eq!((counts.relearned, counts.renamed), (0, 0));
}

#[test]
fn killed_store_learns_what_machines_hold() {
    let mut server = Server::start(&[]);
    let machines = [machine("100/hour"), machine("100/hour")];
    let agents: Vec<_> = machines
        .iter()
        .map(|machine| {
            let config = FleetConfig { requests_per_s: 2000, ..config(&server.url()) };
            Running::start(machine, &config)
        })
        .collect();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    for _ in 0..30 {
        machines[0].admit(0);
    }
    server.kill();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Cut));
    assert_eq!(machines[1].check(1), Outcome::Unavailable, "the choice on loss is closed");
    server.restart();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Learning));
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    exhaust(&machines[1], 0);
    exhaust(&machines[0], 0);
    exhaust(&machines[1], 0);
    assert_eq!(most(&machines), 100);
    let counts: Vec<_> = agents.into_iter().map(Running::stop).collect();
    assert!(counts[0].relearned > 0, "{counts:?}");
}

#[test]
fn emptied_store_learns_again_from_its_machines() {
    let server = Server::start(&[]);
    let machines = [machine("100/hour"), machine("100/hour")];
    let agents: Vec<_> =
        machines.iter().map(|machine| Running::start(machine, &config(&server.url()))).collect();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    for machine in &machines {
        for _ in 0..25 {
            machine.admit(0);
        }
    }
    server.query(&mut cmd("FLUSHALL"));
    let since = now();
    let is_done = || most(&machines) >= 100 || since.elapsed() > Duration::from_secs(15);
    request(&machines, 4, 1, Duration::from_millis(1), is_done);
    let end = now() + Duration::from_millis(300);
    request(&machines, 4, 1, Duration::from_millis(1), || now() > end);
    assert_eq!(most(&machines), 100);
    let counts: Vec<_> = agents.into_iter().map(Running::stop).collect();
    assert!(counts.iter().all(|counts| counts.again > 0), "{counts:?}");
}

/// After a loss of the store, it learns what was admitted without credits.
#[test]
fn requests_admitted_on_loss_are_stated_to_the_store() {
    let mut server = Server::start(&[]);
    let machines = [machine("100/hour"), machine("100/hour")];
    let config = FleetConfig { on_loss: OnLoss::Share, machines: 2, ..config(&server.url()) };
    let agents: Vec<_> = machines.iter().map(|one| Running::start(one, &config)).collect();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    machines[0].admit(0);
    server.kill();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Cut));
    // What was leased, then up to the machine's share of the limit.
    exhaust(&machines[0], 0);
    assert_eq!(most(&machines), 50);
    thread::sleep(Duration::from_millis(100));
    server.restart();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    thread::sleep(Duration::from_millis(1500));
    let since = now();
    let is_done = || most(&machines) >= 100 || since.elapsed() > Duration::from_secs(10);
    request(&machines, 4, 1, Duration::from_millis(1), is_done);
    let end = now() + Duration::from_millis(300);
    request(&machines, 4, 1, Duration::from_millis(1), || now() > end);
    assert_eq!(most(&machines), 100, "the store knows of what was admitted alone");
    drop(agents);
}

/// A machine that lost the store admits requests of keys that it has never leased for. When the
/// store is back, it counts them, also if another agent has taken over meanwhile.
#[test]
fn keys_admitted_only_on_loss_are_counted_when_the_store_is_back() {
    for (on_loss, alone) in [(OnLoss::Share, 50), (OnLoss::Open, 100)] {
        let mut server = Server::start(&[]);
        let machines = [machine("100/hour"), machine("100/hour")];
        let config = FleetConfig { on_loss, machines: 2, ..config(&server.url()) };
        let mut agents: Vec<_> = machines.iter().map(|one| Running::start(one, &config)).collect();
        machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
        server.kill();
        machines.iter().for_each(|machine| machine.wait_for(Phase::Cut));
        assert_eq!(exhaust(&machines[0], 0), alone, "{on_loss}");
        // This key is admitted a part of its limit.
        (0..20).for_each(|_| assert_eq!(machines[1].check(1), Outcome::Alone));
        // The first agent of the first machine has taken the reports, and its successor has not.
        agents.remove(0).stop();
        assert!(!machines[0].wanted().is_empty(), "without a store, reports stay in the file");
        machines[0].wanted().take(|_| {});
        agents.push(Running::start(&machines[0], &config));
        machines[0].wait_for(Phase::Cut);
        server.restart();
        machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
        let rest = 2 * 100 - alone - 20;
        let count = || admitted(&machines).values().sum::<u32>() - alone - 20;
        let since = now();
        let is_done = || count() >= rest || since.elapsed() > Duration::from_secs(10);
        let pause = Duration::from_millis(1);
        // The machine that admitted the first key sends no request of it, which would state it too.
        let mut late = request(&machines[1..], 4, 2, pause, is_done).count(Outcome::Alone);
        let end = now() + Duration::from_millis(300);
        late += request(&machines, 4, 2, pause, || now() > end).count(Outcome::Alone);
        // On a busy machine, a request may wait for too long, and be admitted alone.
        let leased = count() - u32::try_from(late).unwrap();
        assert!(leased <= rest && count() >= rest, "{on_loss}: {leased} of {rest}, {late} alone");
    }
}

/// More tallies than the agent takes at once.
#[test]
fn many_keys_admitted_on_loss_are_all_counted() {
    const KEYS: u32 = 20_000;
    let mut server = Server::start(&[]);
    let machine = Arc::new(Memory::new(KEYS, "10/hour"));
    let config = FleetConfig { on_loss: OnLoss::Open, ..config(&server.url()) };
    let agent = Running::start(&machine, &config);
    machine.wait_for(Phase::Leading);
    server.kill();
    machine.wait_for(Phase::Cut);
    (0..KEYS).for_each(|key| assert_eq!(machine.check(key), Outcome::Alone));
    server.restart();
    machine.wait_for(Phase::Leading);
    let held = |key| machine.words(key).unwrap().load(Word::Holding) != 0;
    let since = now();
    while !(0..KEYS).all(held) {
        assert!(since.elapsed() < Duration::from_secs(20), "not all are counted");
        thread::sleep(Duration::from_millis(20));
    }
    let counts = agent.stop();
    // None of them needed units.
    assert_eq!(counts.granted_units, 0, "{counts:?}");
}

#[test]
fn credits_of_another_owner_are_void() {
    let server = Server::start(&[]);
    let machine = machine("100/hour");
    let agent = Running::start(&machine, &config(&server.url()));
    machine.wait_for(Phase::Leading);
    machine.admit(0);
    let owner = || machine.owner(0).unwrap().load(Ordering::Acquire);
    let first = owner();
    machine.set_subject(0, Some(subject("other", "100/hour")));
    machine.admit(0);
    assert_ne!(owner(), first);
    let holding = machine.words(0).unwrap().load(Word::Holding);
    let layout = crate::support::memory::layout("100/hour");
    assert!(layout.units(holding, 0) > 0);
    assert_eq!(1 + exhaust(&machine, 0), 100, "the new key has its own limit");
    machine.set_subject(1, None);
    machine.wanted().report(1);
    machine.set_subject(1, Some(subject("k1", "100/hour")));
    machine.admit(1);
    drop(agent);
}

/// Two machines have one name, as a virtual machine and its copy.
#[test]
fn second_machine_of_a_name_takes_another_one() {
    let server = Server::start(&[]);
    let machines = [machine("1000/hour"), machine("1000/hour")];
    for machine in &machines {
        machine.page(PageWord::Name).store(7, Ordering::Release);
    }
    let agents: Vec<_> =
        machines.iter().map(|machine| Running::start(machine, &config(&server.url()))).collect();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    // The first has sent more lease requests, so the second's numbers are old.
    for _ in 0..200 {
        machines[0].check(0);
    }
    let since = now();
    let name = |index: usize| machines[index].page(PageWord::Name).load(Ordering::Acquire);
    while name(1) == 7 && name(0) == 7 && since.elapsed() < Duration::from_secs(5) {
        machines[1].check(0);
        machines[0].check(0);
    }
    assert_ne!(name(0), name(1));
    let is_done = || since.elapsed() > Duration::from_secs(3);
    request(&machines, 2, 1, Duration::from_millis(1), is_done);
    let counts: Vec<_> = agents.into_iter().map(Running::stop).collect();
    assert!(counts.iter().any(|counts| counts.renamed == 1 && counts.refused_numbers > 0));
}

#[test]
fn lease_requests_are_bounded_per_second() {
    let server = Server::start(&[]);
    let machine = Arc::new(Memory::new(2000, "10/hour"));
    let config = FleetConfig { requests_per_s: 200, ..config(&server.url()) };
    let agent = Running::start(&machine, &config);
    machine.wait_for(Phase::Leading);
    let before = now();
    let is_done = || before.elapsed() > Duration::from_secs(2);
    request(core::slice::from_ref(&machine), 8, 2000, Duration::ZERO, is_done);
    let counts = agent.stop();
    // Three seconds with that of learning, and a tenth of a second at once.
    assert!(counts.requests <= 200 * 4, "{counts:?}");
    assert!(counts.requests >= 200 && counts.deferred > 0, "{counts:?}");
}

/// A machine whose agent is killed at the n-th step: the thread ends without a further write.
struct Mortal<'m> {
    machine: &'m Memory,
    steps: AtomicU64,
}

impl Mortal<'_> {
    fn step(&self) {
        if self.steps.fetch_sub(1, Ordering::AcqRel) == 0 {
            std::panic::resume_unwind(Box::new("killed"));
        }
    }
}

impl Machine for Mortal<'_> {
    fn page(&self, word: PageWord) -> &AtomicU64 {
        self.step();
        self.machine.page(word)
    }

    fn tallies(&self) -> u32 {
        self.machine.tallies()
    }

    fn wanted(&self) -> WantedBits<'_> {
        self.step();
        self.machine.wanted()
    }

    fn words(&self, tally: u32) -> Option<TallyWords<'_>> {
        self.step();
        self.machine.words(tally)
    }

    fn owner(&self, tally: u32) -> Option<&AtomicU64> {
        self.step();
        self.machine.owner(tally)
    }

    fn subject(&self, tally: u32) -> Option<Subject> {
        self.machine.subject(tally)
    }

    fn sleep(&self, at_most: Duration) {
        self.step();
        self.machine.sleep(at_most);
    }

    fn wake(&self) {
        self.step();
        self.machine.wake();
    }

    fn ring(&self) {
        self.machine.ring();
    }
}

#[test]
fn agents_killed_at_any_step_admit_nothing_twice() {
    let server = Server::start(&[]);
    let limit = 6000;
    let machines: Vec<_> =
        (0..2).map(|_| Arc::new(Memory::new(4, &format!("{limit}/hour")))).collect();
    let config = config(&server.url());
    let other = Running::start(&machines[1], &config);
    // An agent that is killed within the first second begins to learn again.
    let first = Running::start(&machines[0], &config);
    machines[0].wait_for(Phase::Leading);
    first.stop();
    let kills = AtomicU64::new(0);
    let since = now();
    let is_full = || admitted(&machines).values().filter(|&&count| count >= limit).count() == 4;
    let is_done = || is_full() || since.elapsed() > Duration::from_secs(20);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random: u64 = 5;
            while !is_done() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let steps = AtomicU64::new(20 + (random >> 33) % 400);
                let mortal = Mortal { machine: &machines[0], steps };
                let agent = Agent::new(&mortal, &config).unwrap();
                let run = core::panic::AssertUnwindSafe(|| agent.run(is_done));
                if std::panic::catch_unwind(run).is_err() {
                    kills.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        request(&machines, 4, 4, Duration::from_micros(500), is_done);
    });
    let kills = kills.load(Ordering::Acquire);
    println!("{kills} kills in {:?}, {:?}", since.elapsed(), admitted(&machines));
    assert!(kills >= 5, "{kills} kills");
    assert!(most(&machines) <= limit, "{:?}", admitted(&machines));
    assert!(is_full(), "{:?}", admitted(&machines));
    drop(other);
}
