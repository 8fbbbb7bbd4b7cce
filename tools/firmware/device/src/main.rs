//! The firmware: runs the checks on a board, prints what happened and what it cost, and ends with an exit status.
//!
//! | file | what it holds |
//! |---|---|
//! | `board.rs` | how it starts, what counts instructions, how it ends |
//! | `cost.rs` | what a check costs: instructions, and stack |
//! | `stack.rs` | a painted stack; the only unsafe code |
#![no_std]
#![no_main]

mod board;
mod cost;
mod stack;

use keytally_checks::{GATE_LINES, LIMITER_LINES, life, vectors};
use keytally_core::Line;
use semihosting::println;

/// The tables' memory, all that they will ever take.
type Memory = ([Line; GATE_LINES], [Line; LIMITER_LINES]);

/// Its content before there are tables in it.
const EMPTY: Memory = ([const { Line::new() }; GATE_LINES], [const { Line::new() }; LIMITER_LINES]);

fn run((gate, limiter): &Memory) -> ! {
    println!("{}", vectors::run(gate));
    let lived = life::run(gate, limiter, &mut board::Out);
    assert!(lived.is_ok(), "what happened can't be printed");
    cost::tell(gate, limiter);
    board::end(0)
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("{info}");
    board::end(1)
}
