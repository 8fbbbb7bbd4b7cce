//! The only door to atomics: everything else in the crate names them through here.
//!
//! Under `--cfg loom` the same code runs on loom's model of memory, so that what is checked there is what ships.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(loom))]
#[expect(clippy::disallowed_types, reason = "this is the door")]
/// A 64-bit word that several threads or processes share.
pub type AtomicU64 = core::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub use core::sync::atomic::Ordering;

/// Tells the processor, or loom's scheduler, that this thread waits for another one.
pub(crate) fn pause() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    core::hint::spin_loop();
}
