//! What Keytally costs, compared with alternatives and with basic operations of the machine.
//!
//! `cargo bench -p keytally-benches` measures everything once,
//! `cargo bench -p keytally-benches -- limiter` a group. `cargo xtask bench` measures in rounds and
//! writes the pages.
//!
//! | file | contents |
//! |---|---|
//! | `measure.rs` | a table of implementations that are interleaved |
//! | `traffic.rs` | which subjects make requests, in which order, at what time |
//! | `tables.rs` | filled limiters and gates |
//! | `floors.rs` | the cost of basic operations of the machine |
//! | `peers.rs` | the alternatives, for an hour and a minute |
//! | the others | one group each |

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

/// Measures a group.
type Group = fn(&mut Bench);

/// The groups, in the order in which they run.
const GROUPS: &[(&str, Group)] = &[
    ("decide", decide::measure),
    ("limiter", limiter::measure),
    ("gate", gate::measure),
    ("crypto", crypto::measure),
    ("contention", contention::measure),
    ("flood", flood::measure),
    ("ffi", ffi::measure),
];

fn main() {
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
