//! Model checking: interleavings of a few threads on the code that ships, in the smallest tables.
//!
//! Each file holds scenarios: a table, threads that use it, and what must hold however they
//! interleave. Under `--cfg loom`, each scenario tries all interleavings with at most a given
//! number of preemptions, and all values that a load may return in the memory model of C11. Under
//! `--cfg shuttle`, schedules are random and memory is sequentially consistent, which allows more
//! threads and more operations.
//!
//! `cargo xtask test loom shuttle` builds and runs both, `--full` with higher bounds.
#![cfg(any(loom, shuttle))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

mod model;
#[expect(dead_code, reason = "each test uses a part of this module")]
#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod compound;
#[cfg(shuttle)]
mod crowds;
mod gate;
mod limiter;
mod migration;
mod sections;
mod usage;
