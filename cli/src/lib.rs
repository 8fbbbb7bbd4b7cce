//! The command line of Keytally as a library, so that several programs offer the same commands.
//!
//! [`run`] is what the program `keytally` and `python -m keytally` call. It has all commands that
//! work on a gate file. The program of `keytally-server` adds `serve` to them through [`internal`].
//! All decisions are made by `keytally`; this crate calls it and prints the results.
//!
//! ```
//! let status = keytally_cli::run(["keytally", "--version"]);
//! assert_eq!(status, 0);
//! ```
//!
//! # Modules
//! | module | contents |
//! |---|---|
//! | `program` | a program, from its arguments to its exit status |
//! | `commands` | one file per command |
//! | `gate_file` | the arguments that name the gate file |
//! | `output` | what commands print |
//! | `redactor` | the redaction of secrets in errors |
//! | `pepper` | `--pepper-file` and `KEYTALLY_PEPPER` |
//! | `peppers` | which peppers the keys of a gate need, and their order |
//! | `arguments` | value parsers |
//! | `plans` | plans as text: `NAME=POLICY` |
//! | `times` | times and durations as text |
//! | `views` | what commands show of a key, serializable as JSON |
//! | `columns` | text in columns |
//! | `failure`, `status` | the error of a command, and the exit statuses |
//! | `system` | what differs between operating systems |
#![forbid(unsafe_code)]

mod arguments;
mod columns;
mod commands;
mod failure;
mod gate_file;
mod output;
mod pepper;
mod peppers;
mod plans;
mod program;
mod redactor;
mod status;
mod system;
mod times;
mod views;

use std::ffi::OsString;

use self::program::{MissingCommands, run_with};

/// Items that the other programs of this project share. They may change in any release.
pub mod internal {
    pub use crate::arguments::{number_parser, parse_key_id, path_parser, value_parser};
    pub use crate::columns::{Align, Columns};
    pub use crate::commands::revoke_unprinted;
    pub use crate::failure::Failure;
    pub use crate::gate_file::GateFile;
    pub use crate::output::{OutputFormat, pluralized, print_note, warn_of_never_binding_quotas};
    pub use crate::pepper::{PepperSource, read_file as read_pepper_file};
    pub use crate::peppers::{
        PepperUse, check_order as check_pepper_order, in_use as peppers_in_use,
        order_warning as pepper_order_warning, warnings as pepper_warnings,
    };
    pub use crate::program::{ExtraCommands, command, command_with, run_with};
    pub use crate::status::Status;
    pub use crate::views::QuotaUse;

    /// Plans as text.
    pub mod plans {
        pub use crate::plans::{check_distinct, describe, never_binds, parse, parse_window};
    }

    /// Times and durations as text.
    pub mod times {
        pub use crate::times::{parse_duration, rfc3339};
    }
}

/// Runs the command line `args`, program name first, and returns the exit status.
///
/// The status is 0 for success, 1 for denied or invalid, 2 for wrong usage, 3 for a failure or a
/// gate with flaws. Uses the standard streams of the process, and never ends the process.
pub fn run<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> i32 {
    run_with::<MissingCommands, A>(args)
}
