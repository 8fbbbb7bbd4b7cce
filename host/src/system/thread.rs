//! The number of a thread within its process, on systems on which only processes can be examined.

use keytally_core::sync::{AtomicU64, Ordering};

thread_local! {
    static NUMBER: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// Returns the number of the calling thread, from 0 in the order of the first calls.
pub(super) fn number_in_process() -> u64 {
    NUMBER.with(|number| *number)
}
