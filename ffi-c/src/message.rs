//! The message of a status, for C.

use core::ffi::c_char;

use crate::pointers::{In, Number, Numbered};
use crate::status::kt_status;

impl Numbered for kt_status {
    type Number = i32;
}

/// Returns the message of a status: one English sentence, without a full stop, on what is wrong and
/// what is expected instead.
///
/// Never returns NULL: an unknown number has a message too. The text is static: do not free it. Any
/// thread may call this function.
///
/// ```c
/// kt_status status = kt_limiter_open("addresses.limiter", &limiter);
/// if (status != KT_OK) fprintf(stderr, "addresses.limiter: %s\n", kt_status_message(status));
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_status_message(status: Number<kt_status>) -> In<'static, c_char> {
    let found = kt_status::ALL.iter().find(|known| **known as i32 == status.0);
    In::from_static(
        found.map_or(c"this number is not a status of keytally", |known| known.message()),
    )
}
