//! The clock by which tests measure.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the tests measure")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
