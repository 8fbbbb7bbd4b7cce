//! Measures Keytally, alternatives to it, and basic operations of the machine.
//!
//! An *implementation* is one way to do the work of a benchmark: Keytally, an alternative, or a
//! basic operation. A *group* is a set of tables that are measured together.
//!
//! - `cargo bench -p keytally-benches --bench speed` measures all groups in one round.
//! - `cargo bench -p keytally-benches --bench speed -- limiter` measures one group.
//! - `cargo bench -p keytally-benches --bench paths` times the hot paths with criterion.
//! - `cargo xtask bench` measures in several rounds, and runs the example `report`, which writes
//!   benches/RESULTS.md and docs/PERFORMANCE.md.
//!
//! | file | contents |
//! |---|---|
//! | `measure.rs` | the measurement of a table of implementations, which are interleaved |
//! | `traffic.rs` | the subjects, and the order and time of their requests |
//! | `tables.rs` | empty limiters, and gates with keys |
//! | `floors.rs` | basic operations of the machine, which bound the cost of a check from below |
//! | `peers.rs` | the alternatives, each with an hourly and a minutely limit |
//! | `paths.rs` | a benchmark of its own, by criterion |
//! | other files | one group each |

extern crate alloc;

mod build;
mod contention;
mod crypto;
mod decide;
mod ffi;
mod flood;
mod floors;
mod gate;
mod limiter;
mod measure;
mod peers;
mod tables;
mod traffic;

use crate::measure::Bench;

/// A function that measures a group.
type Measure = fn(&mut Bench);

/// The groups, in the order in which they run.
const GROUPS: &[(&str, Measure)] = &[
    ("decide", decide::measure),
    ("limiter", limiter::measure),
    ("gate", gate::measure),
    ("crypto", crypto::measure),
    ("contention", contention::measure),
    ("flood", flood::measure),
    ("ffi", ffi::measure),
    ("build", build::measure),
];

fn main() {
    // The group `flood` starts this program again for each implementation.
    let mut arguments = std::env::args().skip(1);
    if let (Some(flood::ARGUMENT), Some(name)) = (arguments.next().as_deref(), arguments.next()) {
        return flood::run(&name);
    }
    let mut bench = Bench::from_environment();
    for (name, measure) in GROUPS {
        if bench.wants(name) {
            measure(&mut bench);
            bench.save(name);
        }
    }
}
