//! The border that no panic crosses.

use crate::status::kt_status;

/// What the functions behind the border return.
pub(crate) type Outcome<T = ()> = Result<T, kt_status>;

/// Does the work of a C function. A panic in it, which would be a defect of this library, is
/// [`KT_INTERNAL`](kt_status::KT_INTERNAL).
#[inline]
pub(crate) fn guard(work: impl FnOnce() -> Outcome) -> kt_status {
    match caught(work) {
        Ok(()) => kt_status::KT_OK,
        Err(status) => status,
    }
}

#[cfg(feature = "host")]
#[inline]
fn caught(work: impl FnOnce() -> Outcome) -> Outcome {
    // A table is atomics all through, so a panic leaves nothing that others may not see.
    std::panic::catch_unwind(core::panic::AssertUnwindSafe(work)).unwrap_or(Err(kt_status::KT_INTERNAL))
}

/// Without std nothing unwinds: a panic ends in the handler.
#[cfg(not(feature = "host"))]
#[inline]
fn caught(work: impl FnOnce() -> Outcome) -> Outcome {
    work()
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_status() {
        assert_eq!(guard(|| panic!("on purpose")), kt_status::KT_INTERNAL);
        assert_eq!(guard(|| Err(kt_status::KT_BUSY)), kt_status::KT_BUSY);
        assert_eq!(guard(|| Ok(())), kt_status::KT_OK);
    }
}
