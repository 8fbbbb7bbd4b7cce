//! The reference service, `keytally serve`: an API behind a gate, and `/auth` for services behind a proxy.
//!
//! The program of this package has the commands of `keytally-cli` and `serve`.
//!
//! # Layers
//! | module | what it holds |
//! |---|---|
//! | `serve` | the command: its arguments, the greeting, signals |
//! | `service` | what the routes share: the gate, the log, the metrics, the limit of wrong keys |
//! | `service::auth`, `contacts`, `limits` | the routes |
//! | `service::guard`, `guesses`, `preflight` | the check in front of a route, the limit of wrong keys, CORS preflights |
//! | `service::address` | who the client of a request is |
//! | `service::listen`, `bind`, `slots` | connections: accepted, limited in number and time, ended |
//! | `service::data` | the data folder: the gate and its pepper |
//! | `service::log`, `metrics`, `names` | the log, the metrics, the letters of header names |
#![forbid(unsafe_code)]

extern crate alloc;

mod serve;
mod service;

use std::ffi::OsString;
use std::path::Path;

use clap::Subcommand;
use keytally_cli::{Failure, MoreCommands, PepperSource, Status};

/// The command that this package adds.
#[derive(Subcommand)]
enum Service {
    Serve(Box<serve::Serve>),
}

impl MoreCommands for Service {
    const EXAMPLES: &str = "\
Exit status: 0 fine, 1 denied or invalid, 2 usage, 3 failure.

Begin with:
  keytally serve                                 # a service, a key and a curl line

or make a gate of your own:
  export KEYTALLY_PEPPER=$(openssl rand -hex 32) # keep it: without it no key can be checked
  keytally create api.gate --plan \"default=100/minute, 1000/hour\"
  keytally issue api.gate --account 42
  keytally list api.gate";

    fn run(self, pepper: &PepperSource, program: &Path) -> Result<Status, Failure> {
        let Self::Serve(serve) = self;
        serve.run(pepper, program)
    }
}

/// Runs the command line `args`, program name first, as the program `keytally` of this package does, and returns the exit
/// status: 0 fine, 1 denied or invalid, 2 usage, 3 failure.
pub fn run<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> i32 {
    keytally_cli::run_with::<Service, A>(args)
}
