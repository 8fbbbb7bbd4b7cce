//! Keytally for C: what `include/keytally.h` declares, which is generated from this crate (`cargo xtask header`).
//!
//! | file | what it holds |
//! |---|---|
//! | `pointers.rs` | pointers from C as types that are checked before they are followed, handles; all unsafe code |
//! | `guard.rs` | the border that no panic crosses |
//! | `status.rs` | every error, its number and its sentence |
//! | `clock.rs` | the time of a call: explicit, or the system clock |
//! | `limiter.rs`, `gate.rs` | the two tables: made, attached, checked |
//! | `administer.rs`, `inspect.rs` | a gate's keys and plans: changed, looked at |
//! | `files.rs` | with the feature `host`: both tables in mapped files, the clock, entropy |
//! | `verdict.rs` | the answer as a plain struct, and the HTTP response that it makes |
//! | `key.rs`, `policy.rs` | keys and policies as text, without any table |
//! | `text.rs` | texts that go into the caller's buffers |
//! | `version.rs` | versions |
//!
//! A C function here does three things: it turns pointers into what they point to or into a status, calls the
//! function of the same name of [`keytally`] or [`keytally`](https://docs.rs/keytally-host), and writes the answer.
#![cfg_attr(not(feature = "host"), no_std)]
#![expect(non_camel_case_types, reason = "the names are those that C sees")]

mod administer;
mod clock;
#[cfg(feature = "host")]
mod files;
mod gate;
mod guard;
mod inspect;
mod key;
mod limiter;
mod pointers;
mod policy;
mod status;
mod text;
mod verdict;
mod version;

#[cfg(feature = "host")]
pub use files::*;
pub use {
    administer::*, clock::*, gate::*, inspect::*, key::*, limiter::*, pointers::*, policy::*, status::*,
    verdict::*, version::*,
};

/// A panic would be a defect of the library, and docs/PANICS.md lists why there is none in a check. There is nobody to tell, and
/// going on would be worse than stopping.
#[cfg(not(feature = "host"))]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
