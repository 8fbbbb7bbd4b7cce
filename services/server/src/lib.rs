//! The reference service, `keytally serve`: an example API behind a gate (a table of API keys), and
//! `/auth` for services behind a proxy.
//!
//! The program of this package has all commands of `keytally-cli`, and `serve`. In this package,
//! *the contract* is the documented behavior of the example API: the status, the headers and the
//! body of each response.
//!
//! ```
//! assert_eq!(keytally_server::run(["keytally", "--version"]), 0);
//! ```
//!
//! # Modules
//! | module | contents |
//! |---|---|
//! | `serve` | the command: its arguments, its startup message, signals |
//! | `health` | the command that checks whether a service answers |
//! | `fleet` | with the feature `fleet`: the commands `agent` and `fleet`, of machines that share limits |
//! | `notify` | reports to the supervisor, such as systemd |
//! | `keys` | with the feature `keys`: the options and the start of the list of keys |
//! | `shell` | how printed commands are written for a shell |
//! | `service` | the routes |
//! | `service::state`, `list` | what the routes share: the gate, the log, the metrics; the list of keys that is served |
//! | `service::fields`, `json` | header fields of requests, bodies in JSON |
//! | `service::auth`, `settle`, `contacts`, `limits` | the routes |
//! | `service::refusals` | other statuses and bodies of refusals |
//! | `service::charges` | the tokens of charges, each settled once |
//! | `service::check`, `guesses`, `preflight` | the check before a route, the limit of invalid keys, CORS preflights |
//! | `service::address` | the client address of a request |
//! | `service::bind`, `socket`, `passed`, `listen`, `slots` | sockets, those of systemd, connections, and the limits of connections |
//! | `service::data` | the data folder: the gate and its pepper |
//! | `service::log`, `header_case` | the log, the letter case of header names |
//! | `service::metrics`, `denied` | the metrics, the keys that are denied most |
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "fleet")]
mod fleet;
mod health;
#[cfg(feature = "keys")]
mod keys;
mod notify;
mod serve;
mod service;
mod shell;
mod system;

use std::ffi::OsString;
use std::path::Path;

use clap::Subcommand;
use keytally_cli::internal::{ExtraCommands, Failure, PepperSource, Status};

/// The commands that this package adds.
#[derive(Subcommand)]
enum ServiceCommands {
    Serve(Box<serve::Serve>),
    Health(health::Health),
    #[cfg(feature = "keys")]
    Keys(Box<keytally_keys::command::Keys>),
    #[cfg(feature = "fleet")]
    Agent(Box<fleet::agent::AgentCommand>),
    #[cfg(feature = "fleet")]
    #[command(subcommand)]
    Fleet(Box<fleet::commands::FleetCommand>),
}

impl ExtraCommands for ServiceCommands {
    const HELP_NOTE: &str = "\
Without a gate of your own:
  keytally serve # creates a gate, and prints a key and a curl command";

    fn run(self, pepper: &PepperSource, program: &Path) -> Result<Status, Failure> {
        match self {
            Self::Serve(serve) => serve.run(pepper, program),
            Self::Health(health) => health.run(),
            #[cfg(feature = "keys")]
            Self::Keys(keys) => keys.run(pepper),
            #[cfg(feature = "fleet")]
            Self::Agent(agent) => agent.run(pepper),
            #[cfg(feature = "fleet")]
            Self::Fleet(command) => command.run(pepper),
        }
    }
}

/// Runs the command line `args`, program name first, and returns the exit status.
///
/// The status is 0 for success, 1 for denied or invalid, 2 for wrong usage, 3 for a failure.
pub fn run<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> i32 {
    keytally_cli::internal::run_with::<ServiceCommands, A>(args)
}

/// Returns the command line of [`run`], for its completions and manual pages.
///
/// ```
/// assert!(keytally_server::command().find_subcommand("serve").is_some());
/// ```
pub fn command() -> clap::Command {
    keytally_cli::internal::command_with::<ServiceCommands>()
}
