//! The panic boundary for exported functions.

use crate::status::{FfiResult, kt_status};

/// Runs the work of a C function. A panic in it would be a defect of this library, and becomes
/// [`KT_INTERNAL`](kt_status::KT_INTERNAL).
#[inline]
pub(crate) fn guard(work: impl FnOnce() -> FfiResult) -> kt_status {
    match without_unwinding(work) {
        Ok(()) => kt_status::KT_OK,
        Err(status) => status,
    }
}

#[cfg(feature = "host")]
#[inline]
fn without_unwinding(work: impl FnOnce() -> FfiResult) -> FfiResult {
    // A table consists of atomics, so a panic leaves no state in it that others must not see.
    std::panic::catch_unwind(core::panic::AssertUnwindSafe(work))
        .unwrap_or(Err(kt_status::KT_INTERNAL))
}

/// Without `std` nothing unwinds: a panic ends in the handler.
#[cfg(not(feature = "host"))]
#[inline]
fn without_unwinding(work: impl FnOnce() -> FfiResult) -> FfiResult {
    work()
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_a_status() {
        assert_eq!(guard(|| panic!("on purpose")), kt_status::KT_INTERNAL);
        assert_eq!(guard(|| Err(kt_status::KT_BUSY)), kt_status::KT_BUSY);
        assert_eq!(guard(|| Ok(())), kt_status::KT_OK);
    }
}
