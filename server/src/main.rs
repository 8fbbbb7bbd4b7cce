//! The program `keytally`. Everything is in the library, so that other programs can offer the same command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let status = keytally_server::cli::run(std::env::args_os());
    // The statuses are 0 to 3.
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
