//! Machines that share limits through a real server: never more than the limit, and all of it if it
//! is requested.

use alloc::sync::Arc;
use core::time::Duration;

use keytally_fleet::plan::layout::Phase;

use crate::support::fleet::{Running, admitted, config, most, request};
use crate::support::memory::{Memory, Outcome};
use crate::support::servers::Server;
use crate::support::time::now;

fn machines(count: usize, tallies: u32, policy: &str) -> Vec<Arc<Memory>> {
    (0..count).map(|_| Arc::new(Memory::new(tallies, policy))).collect()
}

/// Starts an agent for each machine, and waits until all lead.
fn lead(machines: &[Arc<Memory>], url: &str) -> Vec<Running> {
    let agents = machines.iter().map(|machine| Running::start(machine, &config(url))).collect();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    agents
}

/// Requests units of one key from all machines until all of the limit is admitted.
fn share_exactly(count: usize, limit: u32) {
    let server = Server::start(&[]);
    let machines = machines(count, 1, &format!("{limit}/hour"));
    let agents = lead(&machines, &server.url());
    let since = now();
    let is_done = || most(&machines) >= limit || since.elapsed() > Duration::from_secs(20);
    let got = request(&machines, 2 * count, 1, Duration::from_micros(100), is_done);
    // Further requests are denied.
    let end = now() + Duration::from_millis(200);
    request(&machines, count, 1, Duration::from_millis(1), || now() > end);
    println!("{count} machines: {got:?} in {:?}", since.elapsed());
    assert_eq!(most(&machines), limit, "the most that an hour admitted, {:?}", admitted(&machines));
    let counts: Vec<_> = agents.into_iter().map(Running::stop).collect();
    println!("{counts:?}");
    assert!(counts.iter().all(|counts| counts.grants > 0), "each machine got some: {counts:?}");
    assert_eq!(got.count(Outcome::Alone) + got.count(Outcome::Unavailable), 0, "{got:?}");
}

#[test]
fn two_machines_share_a_limit_exactly() {
    share_exactly(2, 1000);
}

#[test]
fn ten_machines_share_a_limit_exactly() {
    share_exactly(10, 1000);
}

#[test]
fn windows_of_a_second_admit_at_most_their_limit() {
    let server = Server::start(&[]);
    let machines = machines(3, 4, "40/second, 150/10s");
    let agents = lead(&machines, &server.url());
    let since = now();
    let is_done = || since.elapsed() > Duration::from_secs(4);
    let got = request(&machines, 6, 4, Duration::from_micros(500), is_done);
    let mut full = 0;
    for ((tally, index, begin_ms), count) in admitted(&machines) {
        let limit = [40, 150][index];
        assert!(count <= limit, "{count} of tally {tally}, window {index} at {begin_ms}");
        full += u32::from(count == limit);
    }
    println!("{got:?}, {full} windows full");
    assert!(full >= 4, "{full} windows are full");
    drop(agents);
}

/// Prints the figures that the design has targets for.
#[test]
fn hot_keys_need_few_lease_requests() {
    let server = Server::start(&[]);
    let machines = machines(2, 1000, "60000/hour");
    let agents = lead(&machines, &server.url());
    let since = now();
    let is_done = || since.elapsed() > Duration::from_secs(3);
    let got = request(&machines, 4, 4, Duration::from_micros(100), is_done);
    let counts: Vec<_> = agents.into_iter().map(Running::stop).collect();
    let sent: u64 = counts.iter().map(|counts| counts.requests).sum();
    let per_request = sent as f64 / got.requests() as f64;
    println!("{} requests, {per_request:.4} lease requests for each", got.requests());
    assert!(per_request <= 0.02, "{per_request}: {counts:?}");
}

#[test]
fn first_request_of_a_key_waits_in_memory() {
    let server = Server::start(&[]);
    let machines = machines(1, 3000, "600/hour");
    let agents = lead(&machines, &server.url());
    let mut waits = Vec::new();
    for tally in 0..2000 {
        let since = now();
        let outcome = machines[0].check(tally);
        assert!(matches!(outcome, Outcome::Waited | Outcome::Admitted), "{outcome:?}");
        waits.push(since.elapsed());
    }
    waits.sort_unstable();
    let at = |part: usize| waits[waits.len() * part / 100];
    println!("cold keys: p50 {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99));
    assert!(at(50) < Duration::from_millis(2), "p50 {:?}", at(50));
    drop(agents);
}
