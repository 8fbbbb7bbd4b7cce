//! The only door to atomics: everything else in the crate names them through here.
//!
//! Under `--cfg loom` the same code runs on loom's model of memory, and under `--cfg shuttle` on shuttle's random
//! schedules, so that what is checked there is what ships.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(shuttle)]
pub use shuttle::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(any(loom, shuttle)))]
#[expect(clippy::disallowed_types, reason = "this is the door")]
/// A 64-bit word that several threads or processes share.
pub type AtomicU64 = core::sync::atomic::AtomicU64;
#[cfg(not(any(loom, shuttle)))]
pub use core::sync::atomic::Ordering;

/// Whether a model checker runs the code: waiting then only adds interleavings that show nothing new.
pub(crate) const MODELLED: bool = cfg!(any(loom, shuttle));

/// Tells the processor, or the model's scheduler, that this thread waits for another one.
pub(crate) fn pause() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(any(loom, shuttle)))]
    core::hint::spin_loop();
}
