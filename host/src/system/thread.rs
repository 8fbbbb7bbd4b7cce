//! What names a thread on every system except Linux: its process, which is all that another process
//! can examine, and its number in that process.

use keytally_core::sync::{AtomicU64, Ordering};

thread_local! {
    static NUMBER: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// Returns the number of the calling thread's process.
pub(crate) fn number() -> u64 {
    u64::from(std::process::id())
}

/// Returns the number of the calling thread in its process, from 0 in the order of the first calls.
pub(crate) fn scope() -> u64 {
    NUMBER.with(|number| *number)
}

/// Returns `true`: every process of the machine can be examined, whatever its scope.
pub(crate) const fn is_visible(_: u64, _: u64) -> bool {
    true
}
