//! The checks of a gate and of a limiter, compiled into one library without std.
//!
//! `cargo xtask test panics` reads the library's line tables, lists the source lines that could
//! still panic, and compares them with `expected.txt`.
#![no_std]

use keytally_core::{CacheLine, Gate, Limiter, Timestamp, Verdict};

/// Verifies a key, then charges it.
#[unsafe(no_mangle)]
pub fn keytally_gate_check(
    gate: &Gate<&[CacheLine]>,
    key: &[u8],
    cost: u32,
    now_ms: u64,
) -> Verdict {
    gate.check(Some(key), cost, Timestamp::from_unix_ms(now_ms))
}

/// Charges a subject.
#[unsafe(no_mangle)]
pub fn keytally_limiter_check(
    limiter: &Limiter<&[CacheLine]>,
    subject: &[u8],
    cost: u32,
    now_ms: u64,
) -> Verdict {
    limiter.check(subject, cost, Timestamp::from_unix_ms(now_ms))
}

unsafe extern "Rust" {
    /// Has no definition. If the compiler knew what a panic does, it could remove the panic.
    safe fn keytally_panicked(info: &core::panic::PanicInfo<'_>) -> !;
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    keytally_panicked(info)
}
