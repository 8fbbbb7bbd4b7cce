//! Memory of tables.

use keytally_core::Line;

/// Returns lines of zeros.
pub(crate) fn memory(lines: usize) -> Vec<Line> {
    (0..lines).map(|_| Line::new()).collect()
}
