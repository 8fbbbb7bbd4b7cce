//! The firmware in Rust: runs the checks on a board, prints their results and the costs of calls,
//! and exits.
//!
//! | file | content |
//! |---|---|
//! | `board.rs` | start, tick counter, exit |
//! | `cost.rs` | the cost of calls: instructions and stack |
//! | `stack.rs` | measures the stack of a call; the only unsafe code |
#![no_std]
#![no_main]

mod board;
mod cost;
mod stack;

use keytally_checks::{GATE_LINES, LIMITER_LINES, life, vectors};
use keytally_core::CacheLine;
use semihosting::println;

/// The memory of both tables.
type Memory = ([CacheLine; GATE_LINES], [CacheLine; LIMITER_LINES]);

/// The memory before the tables are created.
const EMPTY: Memory =
    ([const { CacheLine::new() }; GATE_LINES], [const { CacheLine::new() }; LIMITER_LINES]);

/// Runs all checks and exits.
fn run((gate, limiter): &Memory) -> ! {
    println!("{}", vectors::run(gate));
    let printed = life::run(gate, limiter, &mut board::Out);
    assert!(printed.is_ok(), "cannot print");
    cost::print_all(gate, limiter);
    board::end(0)
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    board::end(1)
}
