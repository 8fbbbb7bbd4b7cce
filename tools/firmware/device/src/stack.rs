//! A painted stack: how much of it a call takes.

use core::arch::asm;

/// What is painted. A call that leaves just this in the deepest word that it uses is measured four bytes short.
const PAINT: u32 = 0x5a17_ca4b;

/// How deep, in words: 4 KiB, which every board has left.
const DEPTH: usize = 1024;

/// The bytes of stack that a call takes, with all that it calls, below its caller: that is `call`, which tells its own
/// [`pointer`], so that its frame, where the answer lies, isn't counted.
///
/// # Panics
/// When it takes more than was painted.
#[inline(never)]
pub(crate) fn used(call: &mut dyn FnMut() -> usize) -> usize {
    let top = pointer();
    let word = |depth: usize| (top - 4 * depth) as *mut u32;
    for depth in 1..=DEPTH {
        // SAFETY: the stack reaches so far, and below its pointer nobody keeps anything: no interrupt is enabled.
        unsafe { word(depth).write_volatile(PAINT) };
    }
    let caller = call();
    // SAFETY: as above; the words were written.
    let painted = |depth: &usize| unsafe { word(*depth).read_volatile() } == PAINT;
    let left = (1..=DEPTH).rev().take_while(painted).count();
    assert!(left > 0, "more stack was used than was painted");
    caller - (top - 4 * (DEPTH - left))
}

/// The stack pointer of the function that asks.
#[inline(always)]
pub(crate) fn pointer() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "arm")]
    // SAFETY: it reads a register.
    unsafe {
        asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    #[cfg(target_arch = "riscv32")]
    // SAFETY: it reads a register.
    unsafe {
        asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}
