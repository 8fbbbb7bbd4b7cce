//! The checks, built as a whole without std: `cargo xtask test panics` lists the places in them that could still panic, from
//! the line tables of the object, and compares them with docs/PANICS.md.
#![no_std]

use keytally_core::{Gate, Limiter, Line, Timestamp, Verdict};

/// Verify, then charge.
#[unsafe(no_mangle)]
pub fn keytally_gate_check(gate: &Gate<&[Line]>, key: &[u8], cost: u32, now_ms: u64) -> Verdict {
    gate.check(Some(key), cost, Timestamp::from_unix_ms(now_ms))
}

/// Charge a subject.
#[unsafe(no_mangle)]
pub fn keytally_limiter_check(limiter: &Limiter<&[Line]>, subject: &[u8], cost: u32, now_ms: u64) -> Verdict {
    limiter.check(subject, cost, Timestamp::from_unix_ms(now_ms))
}

unsafe extern "Rust" {
    /// Defined nowhere, so the compiler can't know what becomes of a panic and leave anything out.
    safe fn keytally_panicked(info: &core::panic::PanicInfo<'_>) -> !;
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    keytally_panicked(info)
}
