//! Measures the stack of a call. Fills the stack with a known value before the call, and then finds
//! the deepest word that was overwritten.

use core::arch::asm;

/// The known value. If a call itself writes this value to the deepest word that it uses, the result
/// is four bytes too small.
const PAINT: u32 = 0x5a17_ca4b;

/// The number of words that are filled: 4 KiB, which each board has free.
const DEPTH: usize = 1024;

/// Returns the bytes of stack that a function uses, including the functions that it calls.
///
/// `call` calls the function and returns its own [`pointer`]. So the frame of `call`, which
/// contains the result of the function, is not counted.
///
/// # Panics
/// Panics if the function uses more than [`DEPTH`] words.
#[inline(never)]
pub(crate) fn used(call: &mut dyn FnMut() -> usize) -> usize {
    let top = pointer();
    let word = |depth: usize| (top - 4 * depth) as *mut u32;
    for depth in 1..=DEPTH {
        // SAFETY: the stack has at least this depth. No code keeps data below the stack pointer,
        // since no interrupt is enabled.
        unsafe { word(depth).write_volatile(PAINT) };
    }
    let caller = call();
    // SAFETY: the loop above wrote these words.
    let painted = |depth: &usize| unsafe { word(*depth).read_volatile() } == PAINT;
    let left = (1..=DEPTH).rev().take_while(painted).count();
    assert!(left > 0, "the call used more than 4 KiB of stack");
    caller - (top - 4 * (DEPTH - left))
}

/// Returns the stack pointer of the calling function.
#[inline(always)]
pub(crate) fn pointer() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "arm")]
    // SAFETY: reads a register.
    unsafe {
        asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    #[cfg(target_arch = "riscv32")]
    // SAFETY: reads a register.
    unsafe {
        asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}
