//! Prints the tables of `docs/reference/fleet-sizes.md`: the lease requests of fleets of 10 to
//! 10,000 machines, by the simulation of the tests, and the memory of their store.
#![expect(clippy::unwrap_used, reason = "an example fails by panicking")]

extern crate alloc;

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/fleet.rs"]
mod fleet;
#[path = "../tests/support/store.rs"]
mod store;

use fleet::{Scenario, run};

/// Machines, requests per second of all, and servers of the store.
const FLEETS: [(usize, f64, usize); 5] = [
    (10, 5000.0, 1),
    (100, 20_000.0, 1),
    (1000, 50_000.0, 1),
    (10_000, 100_000.0, 1),
    (10_000, 100_000.0, 8),
];

/// For a number of machines that use a key, the bytes of its window in redis-server 7.0
/// (`MEMORY USAGE`).
const BYTES: [(u64, u64); 6] =
    [(1, 136), (2, 168), (10, 408), (100, 3160), (1000, 80_480), (10_000, 851_360)];

fn main() {
    println!(
        "| machines | limit | requests/s | servers | lease requests for each request | in the \
         busiest second | denied too early | never admitted | waited | p99 of waits |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (machines, rate, servers) in FLEETS {
        for policy in ["100/minute", "1000/minute", "100000/minute"] {
            let scenario =
                Scenario { rate, seconds: 65, servers, ..Scenario::new(policy, machines) };
            let it = run(&scenario, 1);
            assert_eq!(it.over, 0, "{it}");
            println!(
                "| {machines} | {policy} | {rate} | {servers} | {:.3} | {} | {:.2} % | {:.2} % | \
                 {:.0} % | {:.1} ms |",
                it.leases, it.busiest_second, it.early, it.unfilled, it.waited, it.wait_p99_ms,
            );
        }
    }
    println!("\n| machines that use a key | bytes for each window | a million keys | 10⁹ keys |");
    println!("|---:|---:|---:|---:|");
    for (machines, bytes) in BYTES {
        println!("| {machines} | {bytes} | {bytes} MB | {bytes} GB |");
    }
}
