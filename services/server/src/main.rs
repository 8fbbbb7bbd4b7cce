//! The program `keytally` with all commands, `serve` among them.

use std::process::ExitCode;

fn main() -> ExitCode {
    let status = keytally_server::run(std::env::args_os());
    // The statuses are 0 to 3.
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
