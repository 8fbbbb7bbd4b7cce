//! The command line of Keytally: the program `keytally`, as a library, so that other programs offer the same commands.
//!
//! The program of this package has all commands that work on a gate's file. The reference service adds `serve` to them
//! ([`run_with`]), and the Python package has them as `python -m keytally` ([`run`]). All decisions are the core's;
//! here they are requested and printed.
//!
//! # Layers
//! | module | what it holds |
//! |---|---|
//! | `commands` | the commands, one file each, and what they share |
//! | [`given`] | arguments: paths, values, and what errors may repeat of them |
//! | `pepper` | where the pepper comes from |
//! | [`plans`] | plans as they are written on a command line |
//! | `views`, `columns`, [`times`] | what may be shown of a key, as JSON, in columns, and times as text |
//! | `failure` | why a command failed, in one sentence |
#![forbid(unsafe_code)]

pub mod given;
pub mod plans;
pub mod times;

mod columns;
mod commands;
mod failure;
mod pepper;
mod views;

pub use self::{
    commands::{Status, counted, remark, taken_back, warn_of},
    failure::Failure,
    pepper::{PepperSource, read as read_peppers},
    views::Use,
};

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser, Subcommand};

use self::commands::{Command, FAILED};
use self::given::Given;

/// Commands that a program has besides those of this crate.
pub trait MoreCommands: Subcommand {
    /// The end of the program's help: exit statuses and first steps.
    const EXAMPLES: &str;

    /// Runs the command that was given. `program` is the name that the program was started by.
    ///
    /// # Errors
    /// A [`Failure`] if the command could not do what it was asked.
    fn run(self, pepper: &PepperSource, program: &Path) -> Result<Status, Failure>;
}

/// The commands of a program: those of this crate, and `M`.
#[derive(Subcommand)]
enum All<M: MoreCommands> {
    #[command(flatten)]
    Own(Command),
    #[command(flatten)]
    More(M),
}

/// What the program of this package says of commands that only other programs have.
#[derive(Subcommand)]
enum Elsewhere {
    /// Not in this program
    #[command(hide = true, disable_help_flag = true)]
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        _args: Vec<OsString>,
    },
}

impl MoreCommands for Elsewhere {
    const EXAMPLES: &str = "\
Exit status: 0 fine, 1 denied or invalid, 2 usage, 3 failure.

Begin with:
  export KEYTALLY_PEPPER=$(openssl rand -hex 32) # keep it: without it no key can be checked
  keytally create api.gate --plan \"default=100/minute, 1000/hour\"
  keytally issue api.gate --account 42
  keytally list api.gate

The command serve is in the program of the package keytally-server.";

    fn run(self, _pepper: &PepperSource, _program: &Path) -> Result<Status, Failure> {
        let Self::Serve { .. } = self;
        Err(Failure::usage(
            "this program has no command serve; the program of the package keytally-server has it \
             (cargo install keytally-server)",
        ))
    }
}

/// Runs the command line `args` as the program `keytally` of this package does; see [`run_with`].
pub fn run<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> i32 {
    run_with::<Elsewhere, A>(args)
}

/// Runs the command line `args`, program name first, with the commands of this crate and `M`, and returns the exit
/// status: 0 fine, 1 denied or invalid, 2 usage, 3 failure.
///
/// Reads and writes the process's standard streams, and never ends the process.
pub fn run_with<M, A>(args: impl IntoIterator<Item = A>) -> i32
where
    M: MoreCommands,
    A: Into<OsString>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let program = args.first().map_or_else(|| "keytally".into(), PathBuf::from);
    let given = Given::of(&args, &Cli::<M>::command());
    let cli = match Cli::<M>::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // Where standard error is closed, no user reads it.
            let _ = write!(io::stderr(), "{}", given.redacted(error.render().to_string()));
            return error.exit_code();
        }
        Err(help_or_version) => {
            let _ = help_or_version.print();
            return help_or_version.exit_code();
        }
    };
    let result = match cli.command {
        All::Own(command) => command.run(&cli.pepper),
        All::More(command) => command.run(&cli.pepper, &program),
    };
    match result {
        Ok(status) => status as i32,
        Err(Failure::OutputClosed) => Status::Fine as i32,
        Err(Failure::Because(sentence)) => {
            let _ = writeln!(io::stderr(), "keytally: {}", given.redacted(sentence));
            FAILED
        }
        Err(Failure::Usage(sentence)) => {
            let sentence = given.redacted(sentence);
            let _ = writeln!(io::stderr(), "keytally: {sentence}\n\n{}", given::MORE);
            USAGE
        }
    }
}

/// The exit status of a command whose arguments can't be right for any gate. It is clap's too.
const USAGE: i32 = 2;

/// Issue API keys, check them, and limit how much each is used: all in one file that every process on the machine
/// may share.
#[derive(Parser)]
#[command(name = "keytally", version, arg_required_else_help = true, after_help = M::EXAMPLES)]
struct Cli<M: MoreCommands> {
    #[command(flatten)]
    pepper: PepperSource,
    #[command(subcommand)]
    command: All<M>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_passes_claps_own_checks() {
        Cli::<Elsewhere>::command().debug_assert();
    }
}
