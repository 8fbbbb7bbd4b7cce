//! A request with options.

use crate::pointers::{Growing, In, plain};
use crate::status::FfiResult;
use crate::time::KT_SYSTEM_CLOCK;

plain! {
    /// A request with options, for `kt_gate_check_request` and `kt_limiter_check_request`. It may
    /// get more members; see "Structs" in the contract.
    ///
    /// ```c
    /// kt_request request = {sizeof request, 5, KT_SYSTEM_CLOCK};
    /// ```
    #[derive(Debug)]
    pub struct kt_request {
        /// `sizeof` this struct.
        pub size: u32,
        /// The units to charge. 0 is admitted and charges nothing.
        pub cost: u32,
        /// An explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`.
        pub now_ms: u64,
    }
}

impl Growing for kt_request {
    const MIN_SIZE: usize = 16;
}

impl kt_request {
    /// Returns the request, or for NULL one of cost 1 by the system clock.
    pub(crate) fn or_default(request: In<'_, Self>) -> FfiResult<Self> {
        if request.is_null() {
            return Ok(Self { size: 16, cost: 1, now_ms: KT_SYSTEM_CLOCK });
        }
        request.read_growing()
    }
}
