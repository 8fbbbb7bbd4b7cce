//! Runs a program's command line, from its arguments to its exit status.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::arguments::HELP_HINT;
use crate::commands::Command;
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::redactor::Redactor;
use crate::status::{FAILED, Status};

/// Commands that a program has in addition to those of this crate.
pub trait ExtraCommands: Subcommand {
    /// The last lines of the program's help, after the exit statuses and the first steps.
    const HELP_NOTE: &str;

    /// Runs the command that was parsed. `program` is the path that the program was started by.
    ///
    /// # Errors
    /// A [`Failure`] if the command could not do its work.
    fn run(self, pepper: &PepperSource, program: &Path) -> Result<Status, Failure>;
}

/// All commands of a program: those of this crate, and `E`.
#[derive(Subcommand)]
enum AllCommands<E: ExtraCommands> {
    #[command(flatten)]
    Own(Command),
    #[command(flatten)]
    Extra(E),
}

/// Commands that this program lacks. Each fails with an error that names the package that has it.
#[derive(Subcommand)]
pub(crate) enum MissingCommands {
    /// Not in this program
    #[command(hide = true, disable_help_flag = true)]
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        _args: Vec<OsString>,
    },
    /// Not in this program
    #[command(hide = true, disable_help_flag = true)]
    Keys {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        _args: Vec<OsString>,
    },
    /// Not in this program
    #[command(hide = true, disable_help_flag = true)]
    Agent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        _args: Vec<OsString>,
    },
    /// Not in this program
    #[command(hide = true, disable_help_flag = true)]
    Fleet {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        _args: Vec<OsString>,
    },
}

impl ExtraCommands for MissingCommands {
    const HELP_NOTE: &str = "\
The package keytally-server has the commands serve, keys, agent and fleet:
cargo install keytally-server, or pip install keytally-cli";

    fn run(self, _pepper: &PepperSource, _program: &Path) -> Result<Status, Failure> {
        let command = match self {
            Self::Serve { .. } => "serve",
            Self::Keys { .. } => "keys",
            Self::Agent { .. } => "agent",
            Self::Fleet { .. } => "fleet",
        };
        Err(Failure::usage(format!(
            "this program does not have the command {command}; install it with: \
             cargo install keytally-server, or pip install keytally-cli"
        )))
    }
}

/// Returns the command line of [`run`](crate::run), for its completions and manual pages.
pub fn command() -> clap::Command {
    command_with::<MissingCommands>()
}

/// Returns the command line of [`run_with`], for its completions and manual pages.
pub fn command_with<E: ExtraCommands>() -> clap::Command {
    Cli::<E>::command()
}

/// Runs the command line `args` with the commands of this crate and the commands `E`.
///
/// In all other respects, it does what [`run`](crate::run) does.
pub fn run_with<E, A>(args: impl IntoIterator<Item = A>) -> i32
where
    E: ExtraCommands,
    A: Into<OsString>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let program = args.first().map_or_else(|| "keytally".into(), PathBuf::from);
    let redactor = Redactor::new(&args, &Cli::<E>::command());
    let cli = match Cli::<E>::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // A write error is ignored: there is no other stream to report it on.
            let _ = write!(io::stderr(), "{}", redactor.redact(error.render().to_string()));
            return error.exit_code();
        }
        Err(help_or_version) => {
            let _ = help_or_version.print();
            return help_or_version.exit_code();
        }
    };
    let result = match cli.command {
        AllCommands::Own(command) => command.run(&cli.pepper),
        AllCommands::Extra(command) => command.run(&cli.pepper, &program),
    };
    match result {
        Ok(status) => status as i32,
        Err(Failure::OutputClosed) => Status::Success as i32,
        Err(Failure::Failed(message)) => {
            let _ = writeln!(io::stderr(), "keytally: {}", redactor.redact(message));
            FAILED
        }
        Err(Failure::Usage(message)) => {
            let message = redactor.redact(message);
            let _ = writeln!(io::stderr(), "keytally: {message}\n\n{HELP_HINT}");
            USAGE
        }
    }
}

/// The exit status of a usage error: the arguments are wrong, whatever the gate holds. An error of
/// clap has the same exit status.
const USAGE: i32 = 2;

/// Issue and check API keys, and limit their use. Keys and counts are in one file, the gate, which
/// every process on this machine can share.
#[derive(Parser)]
#[command(name = "keytally", version, arg_required_else_help = true, after_help = after_help(E::HELP_NOTE))]
struct Cli<E: ExtraCommands> {
    #[command(flatten)]
    pepper: PepperSource,
    #[command(subcommand)]
    command: AllCommands<E>,
}

/// The command that makes a pepper. On Windows, it is for PowerShell.
const NEW_PEPPER: &str = if cfg!(windows) {
    "$env:KEYTALLY_PEPPER = openssl rand -hex 32"
} else {
    "export KEYTALLY_PEPPER=$(openssl rand -hex 32)"
};

/// Returns the end of the help: exit statuses, first steps, and the note of the program.
fn after_help(note: &str) -> String {
    format!(
        "\
Exit status: 0 success, 1 denied or invalid, 2 wrong usage, 3 failure, or flaws that verify found.

First steps:
  {NEW_PEPPER} # keep a copy
  keytally create api.gate --plan \"default=100/minute, 1000/hour\"
  keytally issue api.gate --account 42
  keytally list api.gate

{note}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_passes_the_checks_of_clap() {
        command().debug_assert();
    }
}
