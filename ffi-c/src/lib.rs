//! The C interface of Keytally: what `include/keytally.h` declares. `cargo xtask header` generates
//! that header from this crate.
//!
//! ```c
//! kt_verdict verdict;
//! kt_status status = kt_gate_check(gate, key, strlen(key), 1, KT_SYSTEM_CLOCK, &verdict);
//! ```
//!
//! Each module imports only modules of earlier rows of this table, or of its own row.
//!
//! | file | content |
//! |---|---|
//! | `status.rs` | the statuses: the number and the message of each |
//! | `pointers.rs` | pointers from C, checked before a dereference; handles; all unsafe code |
//! | `guard.rs` | the panic boundary |
//! | `time.rs` | the time of a call: an explicit time, or the system clock |
//! | `text.rs` | texts in the caller's buffers |
//! | `message.rs`, `version.rs` | messages of statuses; versions |
//! | `policy.rs`, `key.rs` | policies and keys as text, without a table |
//! | `charge.rs` | the charge of a verdict, for refunds |
//! | `request.rs`, `verdict.rs` | requests with options; the verdict and its HTTP response |
//! | `tallies.rs` | the result of a request that charges several tallies |
//! | `limiter.rs`, `gate.rs` | the two tables: create, attach, check |
//! | `limiter_table.rs` | the table of a limiter's handle: of subjects or of addresses |
//! | `compound.rs` | several keys and subjects of one request, charged all or none |
//! | `clock.rs` | the clock of a handle |
//! | `administer.rs`, `inspect.rs` | changes to a gate's keys and plans; queries |
//! | `accounts.rs` | the accounts of a gate with teams |
//! | `files.rs` | with the feature `host`: both tables in mapped files, the clock, entropy |
//! | `fleet.rs` | with the feature `host`: gates whose limits machines share |
//!
//! A C function does three things. It turns pointers into values or into a status. It calls the
//! corresponding function of [`keytally_core`] or [`keytally`](https://docs.rs/keytally), such as
//! `Gate::check` for `kt_gate_check`. It writes the result.
#![cfg_attr(not(feature = "host"), no_std)]
#![expect(non_camel_case_types, reason = "C sees these names")]

mod accounts;
mod administer;
mod charge;
mod clock;
mod compound;
#[cfg(feature = "host")]
mod files;
#[cfg(feature = "host")]
mod fleet;
mod gate;
mod guard;
mod inspect;
mod key;
mod limiter;
mod limiter_table;
mod message;
mod pointers;
mod policy;
mod request;
mod status;
mod tallies;
mod text;
mod time;
mod verdict;
mod version;

pub use {
    accounts::*, administer::*, charge::*, clock::*, compound::*, gate::*, inspect::*, key::*,
    limiter::*, message::*, pointers::*, policy::*, request::*, status::*, tallies::*, time::*,
    verdict::*, version::*,
};
#[cfg(feature = "host")]
pub use {files::*, fleet::*};

/// Loops without end. A panic is a defect of the library, and SAFETY.md says why a check
/// cannot panic. Without an operating system, this crate cannot report a panic, and it must not
/// return to the caller.
#[cfg(not(feature = "host"))]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
