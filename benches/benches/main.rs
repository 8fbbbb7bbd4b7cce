//! What Keytally costs, beside what one would pick instead and beside what the machine itself takes.
//!
//! `cargo bench -p keytally-benches` measures everything once, `cargo bench -p keytally-benches -- limiter` a group.
//! `cargo xtask bench` measures in rounds and writes the pages.
//!
//! | file | idea |
//! |---|---|
//! | `measure.rs` | a table of contenders that take turns |
//! | `traffic.rs` | who asks, in which order, at what time |
//! | `tables.rs` | limiters and gates that are filled |
//! | `floors.rs` | what the machine itself takes |
//! | `peers.rs` | what one would pick instead, for an hour and a minute |
//! | the others | a group each |

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

/// What measures a group.
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
        return flood::contend(&name);
    }
    let mut bench = Bench::from_environment();
    for (name, measure) in GROUPS {
        if bench.wants(name) {
            measure(&mut bench);
            bench.save(name);
        }
    }
}
