//! Facade for atomics: every other module of the crate imports them from here.
//!
//! | configuration | `AtomicU64` is |
//! |---|---|
//! | the target has 64-bit atomics | that of `core` |
//! | the target has none, feature `portable-atomic` | that of the crate `portable-atomic` |
//! | the target has none, feature `unshared` | `Word`, a plain cell; tables are then not `Sync`, so the compiler rejects sharing them |
//! | `--cfg loom`, `--cfg shuttle` | that of loom's memory model, or of shuttle's random schedules |
//!
//! The same code uses all of them, so model checkers check the code that ships.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(shuttle)]
pub use shuttle::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(any(loom, shuttle)))]
pub use core::sync::atomic::Ordering;
#[cfg(all(not(any(loom, shuttle)), target_has_atomic = "64"))]
#[expect(clippy::disallowed_types, reason = "this module is the facade")]
/// A 64-bit word that several threads or processes share.
pub type AtomicU64 = core::sync::atomic::AtomicU64;
#[cfg(all(not(target_has_atomic = "64"), not(feature = "portable-atomic")))]
pub use Word as AtomicU64;
#[cfg(all(not(target_has_atomic = "64"), feature = "portable-atomic"))]
pub use portable_atomic::AtomicU64;

#[cfg(not(any(target_has_atomic = "64", feature = "portable-atomic", feature = "unshared")))]
compile_error!(
    "this target has no 64-bit atomics: choose keytally's feature `portable-atomic`, for tables that interrupt handlers, \
     threads or cores share, or `unshared`, for tables that one of them uses alone"
);

/// Whether a model checker runs the code. Waits are then as short as possible, since each turn of a
/// wait only adds equivalent interleavings.
pub(crate) const MODELED: bool = cfg!(any(loom, shuttle));

/// Hints to the processor, or to the model's scheduler, that this thread waits for another one.
pub(crate) fn pause() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(any(loom, shuttle)))]
    core::hint::spin_loop();
}

/// A word that is not shared, without atomics. It has the methods of an atomic word that tables
/// use, and ignores orderings. On targets with atomics, only its test compiles it.
#[cfg(any(test, not(any(target_has_atomic = "64", feature = "portable-atomic"))))]
#[derive(Debug)]
pub struct Word(core::cell::Cell<u64>);

#[cfg(any(test, not(any(target_has_atomic = "64", feature = "portable-atomic"))))]
impl Word {
    /// A word of this value.
    pub const fn new(value: u64) -> Self {
        Self(core::cell::Cell::new(value))
    }

    /// Returns its value.
    #[inline]
    pub fn load(&self, _: Ordering) -> u64 {
        self.0.get()
    }

    /// Sets its value.
    #[inline]
    pub fn store(&self, value: u64, _: Ordering) {
        self.0.set(value);
    }

    /// Adds to its value, and returns the value before. It wraps around.
    #[inline]
    pub fn fetch_add(&self, units: u64, _: Ordering) -> u64 {
        let before = self.0.get();
        self.0.set(before.wrapping_add(units));
        before
    }

    /// Sets its value to `new` if it is `expected`.
    ///
    /// # Errors
    /// The present value, if it is another.
    #[inline]
    pub fn compare_exchange(
        &self,
        expected: u64,
        new: u64,
        _: Ordering,
        _: Ordering,
    ) -> Result<u64, u64> {
        let present = self.0.get();
        if present != expected {
            return Err(present);
        }
        self.0.set(new);
        Ok(present)
    }

    /// Sets its value to `new` if it is `expected`. It never fails spuriously.
    ///
    /// # Errors
    /// The present value, if it is another.
    #[inline]
    pub fn compare_exchange_weak(
        &self,
        expected: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(expected, new, success, failure)
    }
}

#[cfg(test)]
mod tests {
    use super::Ordering::{AcqRel, Acquire, Release};
    use super::{AtomicU64, Word};

    #[test]
    fn unshared_word_behaves_as_an_atomic_one() {
        macro_rules! results {
            ($word:expr) => {{
                let word = $word;
                let kept = word.compare_exchange(4, 5, AcqRel, Acquire);
                word.store(4, Release);
                let changed = word.compare_exchange(4, u64::MAX, AcqRel, Acquire);
                (
                    kept,
                    changed,
                    word.compare_exchange_weak(4, 6, AcqRel, Acquire),
                    word.load(Acquire),
                )
            }};
        }
        let expected = (Err(3), Ok(4), Err(u64::MAX), u64::MAX);
        assert_eq!(results!(AtomicU64::new(3)), expected);
        assert_eq!(results!(Word::new(3)), expected);
    }
}
