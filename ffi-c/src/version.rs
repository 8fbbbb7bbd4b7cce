//! Versions of the library and of the table format that it reads.

use core::ffi::{CStr, c_char};

use crate::pointers::In;

/// The version of the table format. For another version, functions return `KT_OTHER_FORMAT`.
pub const KT_TABLE_FORMAT: u32 = 2;

const _: () = assert!(KT_TABLE_FORMAT == keytally_core::FORMAT_VERSION);

/// Returns the version of the library in use: `major << 16 | minor << 8 | patch`.
///
/// `KT_VERSION` is the version of the header that a program was compiled with. The two may differ
/// if the library is shared.
#[unsafe(no_mangle)]
pub extern "C" fn kt_version() -> u32 {
    const VERSION: u32 = parse(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | parse(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | parse(env!("CARGO_PKG_VERSION_PATCH"));
    VERSION
}

/// Returns the version of the library in use as text, such as `0.1.0`. Never NULL. The text is
/// static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn kt_version_string() -> In<'static, c_char> {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    In::from_static(VERSION)
}

const fn parse(digits: &str) -> u32 {
    let mut value = 0;
    let mut index = 0;
    while index < digits.len() {
        value = value * 10 + (digits.as_bytes()[index] - b'0') as u32;
        index += 1;
    }
    assert!(value < 256, "a part of the version has 8 bits");
    value
}
