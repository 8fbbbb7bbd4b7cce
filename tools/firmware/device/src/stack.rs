//! Measures the stack of a call, by painting the stack before it.

use core::arch::asm;

/// The paint. If a call leaves this value in the deepest word that it uses, the result is four
/// bytes too small.
const PAINT: u32 = 0x5a17_ca4b;

/// The depth of the paint, in words: 4 KiB, which each board has free.
const DEPTH: usize = 1024;

/// Returns the bytes of stack that a function takes, with all that it calls.
///
/// `call` calls the function and returns its own [`pointer`], so that the frame of `call`, which
/// holds the result, is not counted.
///
/// # Panics
/// Panics if the function takes more than was painted.
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
    assert!(left > 0, "the call used more stack than was painted");
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
