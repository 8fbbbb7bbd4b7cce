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
//! | `peers.rs` | what one would pick instead, for an hour and a minute |
//! | the others | a group each |

mod contention;
mod limiter;
mod measure;
mod peers;
mod tables;
mod traffic;

use crate::measure::Bench;

/// What measures a group.
type Group = fn(&mut Bench);

/// The groups, in the order in which they run.
const GROUPS: &[(&str, Group)] = &[("limiter", limiter::measure), ("contention", contention::measure)];

fn main() {
    let mut bench = Bench::from_environment();
    for (name, measure) in GROUPS {
        if bench.wants(name) {
            measure(&mut bench);
            bench.save(name);
        }
    }
}
