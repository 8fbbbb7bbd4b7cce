//! Agents whose messages are lost, late or repeated, by a proxy in front of a real server.

use alloc::sync::Arc;
use core::time::Duration;
use std::thread;

use keytally_core::sync::Ordering;
use keytally_fleet::plan::layout::Phase;
use keytally_fleet::{FleetConfig, OnLoss};

use crate::support::fleet::{Running, config, most, request};
use crate::support::memory::{Memory, Outcome};
use crate::support::proxy::{Faults, Proxy};
use crate::support::servers::Server;
use crate::support::time::now;

/// Three machines of which the third has a proxy, with limits that are requested fully, while
/// `disturb` changes what the proxy does. No window admits more than its limit.
fn disturbed(limit: u32, seconds: u64, disturb: impl Fn(&Faults, u32) + Send + Sync) {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let keys = 8;
    let policy = format!("{limit}/2s");
    let machines: Vec<Arc<Memory>> = (0..3).map(|_| Arc::new(Memory::new(keys, &policy))).collect();
    let urls = [server.url(), proxy.url(), proxy.url()];
    let agents: Vec<_> = machines
        .iter()
        .zip(&urls)
        .map(|(machine, url)| Running::start(machine, &config(url)))
        .collect();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    let since = now();
    let is_done = || since.elapsed() > Duration::from_secs(seconds);
    let got = thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !is_done() {
                disturb(&proxy.faults, turn);
                turn += 1;
                thread::sleep(Duration::from_millis(50));
            }
        });
        request(&machines, 6, keys, Duration::from_micros(300), is_done)
    });
    let counts: Vec<_> = agents.into_iter().map(Running::stop).collect();
    println!("{:?}, at most {} of {limit}; {counts:?}", got.outcomes, most(&machines));
    assert!(most(&machines) <= limit, "{} of {limit}", most(&machines));
    assert_eq!(most(&machines), limit, "no window was full");
    assert!(counts[1..].iter().any(|counts| counts.unanswered > 0), "nothing was lost: {counts:?}");
}

#[test]
fn lost_replies_and_requests_admit_nothing_twice() {
    disturbed(60, 8, |faults, turn| {
        faults.drops_requests.store(u64::from(turn % 8 == 3), Ordering::Release);
        faults.drops_replies.store(u64::from(turn % 8 == 6), Ordering::Release);
    });
}

/// Other machines that were cut off state what they admitted meanwhile, before any gets the rest.
#[test]
fn machine_that_admitted_requests_alone_learns_before_it_leases() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let machine = Arc::new(Memory::new(1, "100/hour"));
    let config = FleetConfig { on_loss: OnLoss::Share, machines: 2, ..config(&proxy.url()) };
    let agent = Running::start(&machine, &config);
    machine.wait_for(Phase::Leading);
    proxy.faults.drops_replies.store(1, Ordering::Release);
    machine.wait_for(Phase::Cut);
    assert_eq!(machine.check(0), Outcome::Alone);
    proxy.faults.drops_replies.store(0, Ordering::Release);
    machine.wait_for(Phase::Learning);
    machine.wait_for(Phase::Leading);
    machine.admit(0);
    drop(agent);
}

#[test]
fn broken_connections_admit_nothing_twice() {
    disturbed(60, 6, |faults, _| faults.breaks_each.store(23, Ordering::Release));
}

#[test]
fn late_and_repeated_requests_admit_nothing_twice() {
    disturbed(60, 8, |faults, turn| {
        faults.repeats_after_ms.store(u64::from(turn % 4) * 30, Ordering::Release);
        faults.delays_ms[0].store(if turn % 5 == 4 { 300 } else { 0 }, Ordering::Release);
        faults.delays_ms[1].store(if turn % 7 == 3 { 40 } else { 0 }, Ordering::Release);
    });
}

/// The connection stays open, and nothing arrives.
#[test]
fn half_open_connection_is_given_up_within_a_second() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let machine = Arc::new(Memory::new(4, "10000/hour"));
    let agent = Running::start(&machine, &config(&proxy.url()));
    machine.wait_for(Phase::Leading);
    machine.admit(0);
    proxy.faults.drops_requests.store(1, Ordering::Release);
    let since = now();
    machine.wait_for(Phase::Cut);
    assert!(since.elapsed() < Duration::from_millis(1500), "{:?}", since.elapsed());
    assert_ne!(machine.check(0), Outcome::Unavailable, "credits are spent without a store");
    assert_eq!(machine.check(1), Outcome::Unavailable);
    proxy.faults.drops_requests.store(0, Ordering::Release);
    machine.wait_for(Phase::Leading);
    machine.admit(1);
    let counts = agent.stop();
    assert!(counts.connections >= 2, "{counts:?}");
    assert_eq!(counts.renamed, 0, "{counts:?}");
}
