//! Versions: of the library, and of what it reads.

use core::ffi::{CStr, c_char};

use crate::pointers::In;

/// The version of the format of tables. A table of another version is refused with `KT_OTHER_FORMAT`.
pub const KT_TABLE_FORMAT: u32 = 1;

const _: () = assert!(KT_TABLE_FORMAT == keytally_core::FORMAT_VERSION);

/// The version of the library in use, as `KT_VERSION` of the header that a program was compiled with:
/// `major << 16 | minor << 8 | patch`. They may differ where the library is shared.
#[unsafe(no_mangle)]
pub extern "C" fn kt_version() -> u32 {
    const VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | number(env!("CARGO_PKG_VERSION_PATCH"));
    VERSION
}

/// The same as text, such as `0.1.0`. Never NULL; always there.
#[unsafe(no_mangle)]
pub extern "C" fn kt_version_string() -> In<'static, c_char> {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    In::of_static(VERSION)
}

const fn number(digits: &str) -> u32 {
    let mut value = 0;
    let mut place = 0;
    while place < digits.len() {
        value = value * 10 + (digits.as_bytes()[place] - b'0') as u32;
        place += 1;
    }
    assert!(value < 256, "a part of the version has 8 bits");
    value
}
