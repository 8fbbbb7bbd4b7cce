//! The checks as a WebAssembly module that imports nothing.
//!
//! `run` runs the checks and returns the length of their output, which begins at `text()`. A panic
//! traps. The output before it, and the message of the panic, remain readable.
#![no_std]

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

use keytally_checks::{GATE_LINES, LIMITER_LINES, life, vectors};
use keytally_core::CacheLine;

static GATE: [CacheLine; GATE_LINES] = [const { CacheLine::new() }; GATE_LINES];
static LIMITER: [CacheLine; LIMITER_LINES] = [const { CacheLine::new() }; LIMITER_LINES];

/// The output, of which the first [`LEN`] bytes are written.
static TEXT: [AtomicU8; 8192] = [const { AtomicU8::new(0) }; 8192];
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Runs the vectors and the life of a device. Returns the length of their output in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn run() -> usize {
    let printed = writeln!(Text, "{}", vectors::run(&GATE));
    assert!(
        printed.and_then(|()| life::run(&GATE, &LIMITER, &mut Text)).is_ok(),
        "the output is too long"
    );
    len()
}

/// Returns the start of the output.
#[unsafe(no_mangle)]
pub extern "C" fn text() -> *const u8 {
    TEXT.as_ptr().cast()
}

/// Returns the length of the output in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn len() -> usize {
    LEN.load(Relaxed)
}

/// Writes to [`TEXT`].
struct Text;

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let len = LEN.load(Relaxed);
        let rest = TEXT.get(len..len + text.len()).ok_or(fmt::Error)?;
        for (slot, byte) in rest.iter().zip(text.bytes()) {
            slot.store(byte, Relaxed);
        }
        LEN.store(len + text.len(), Relaxed);
        Ok(())
    }
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    // If the output is full, the message is cut.
    let _ = writeln!(Text, "{info}");
    core::arch::wasm32::unreachable()
}
