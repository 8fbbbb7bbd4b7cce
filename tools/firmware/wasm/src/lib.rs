//! The checks as a WebAssembly module that imports nothing. `run` does them and answers with the length of what they
//! told, which begins at `text()`; a panic traps, and what was told until then is there.
#![no_std]

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

use keytally_checks::{GATE_LINES, LIMITER_LINES, life, vectors};
use keytally_core::Line;

static GATE: [Line; GATE_LINES] = [const { Line::new() }; GATE_LINES];
static LIMITER: [Line; LIMITER_LINES] = [const { Line::new() }; LIMITER_LINES];

static TEXT: [AtomicU8; 8192] = [const { AtomicU8::new(0) }; 8192];
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Runs the vectors and the life of a device; the length of what they told.
#[unsafe(no_mangle)]
pub extern "C" fn run() -> usize {
    let told = writeln!(Text, "{}", vectors::run(&GATE));
    assert!(told.and_then(|()| life::run(&GATE, &LIMITER, &mut Text)).is_ok(), "the text is too long");
    len()
}

/// Where the text begins.
#[unsafe(no_mangle)]
pub extern "C" fn text() -> *const u8 {
    TEXT.as_ptr().cast()
}

/// How long it is.
#[unsafe(no_mangle)]
pub extern "C" fn len() -> usize {
    LEN.load(Relaxed)
}

struct Text;

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let len = LEN.load(Relaxed);
        let rest = TEXT.get(len..len + text.len()).ok_or(fmt::Error)?;
        for (place, byte) in rest.iter().zip(text.bytes()) {
            place.store(byte, Relaxed);
        }
        LEN.store(len + text.len(), Relaxed);
        Ok(())
    }
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    // What doesn't fit is cut.
    let _ = writeln!(Text, "{info}");
    core::arch::wasm32::unreachable()
}
