//! Memory of tables.

use keytally_core::CacheLine;

/// Returns lines of zeros.
pub(crate) fn memory(lines: usize) -> Vec<CacheLine> {
    (0..lines).map(|_| CacheLine::new()).collect()
}
