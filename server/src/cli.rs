//! The command line. Each command is a file of its own.

mod assign;
mod check;
mod create;
pub(crate) mod given;
mod import;
mod issue;
mod list;
mod plan;
mod reset;
mod revoke;
mod rotate;
mod serve;
mod top;
mod verify;

use core::fmt::Display;
use core::time::Duration;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use keytally_host::Gate;
use keytally_host::keytally::gate::Plan;
use keytally_host::keytally::{KeyId, Name};
use serde::Serialize;

use self::given::Given;
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::{plans, when};

/// Runs the command line `args`, program name first, as the program `keytally` does, and gives the exit status: 0
/// fine, 1 denied or invalid, 2 usage, 3 failure. It reads and writes the process's standard streams and never ends
/// the process.
pub fn run<A>(args: impl IntoIterator<Item = A>) -> i32
where
    A: Into<OsString>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let program = args.first().map_or_else(|| "keytally".into(), PathBuf::from);
    let given = Given::of(&args);
    let cli = match Cli::try_parse_from(args) {
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
    match cli.command.run(&cli.pepper, &program) {
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

/// The exit status of a command that could not do what it was asked.
const FAILED: i32 = 3;

/// How a command that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// All is well.
    Fine = 0,
    /// The key was denied or is invalid, or some of the input was.
    No = 1,
    /// The work was done and found a fault in the gate.
    Faulty = FAILED as isize,
}

/// Issue API keys, check them, and limit how much each is used: all in one file that every process on the machine
/// may share.
#[derive(Parser)]
#[command(name = "keytally", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    pepper: PepperSource,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Exit status: 0 fine, 1 denied or invalid, 2 usage, 3 failure.

Begin with:
  keytally serve                                 # a service, a key and a curl line

or make a gate of your own:
  export KEYTALLY_PEPPER=$(openssl rand -hex 32) # keep it: without it no key can be checked
  keytally create api.gate --plan \"default=100/minute, 1000/hour\"
  keytally issue api.gate --account 42
  keytally list api.gate";

#[derive(Subcommand)]
enum Command {
    Create(create::Create),
    Issue(issue::Issue),
    Import(import::Import),
    List(list::List),
    Rotate(rotate::Rotate),
    Revoke(revoke::Revoke),
    Assign(assign::Assign),
    Plan(Box<plan::Plan>),
    Reset(reset::Reset),
    Check(check::Check),
    Top(top::Top),
    Verify(verify::Verify),
    Serve(Box<serve::Serve>),
}

impl Command {
    fn run(self, pepper: &PepperSource, program: &Path) -> Result<Status, Failure> {
        match self {
            Self::Create(command) => command.run(pepper),
            Self::Issue(command) => command.run(pepper),
            Self::Import(command) => command.run(pepper),
            Self::List(command) => command.run(pepper),
            Self::Rotate(command) => command.run(pepper),
            Self::Revoke(command) => command.run(pepper),
            Self::Assign(command) => command.run(pepper),
            Self::Plan(command) => command.run(pepper),
            Self::Reset(command) => command.run(pepper),
            Self::Check(command) => command.run(pepper),
            Self::Top(command) => command.run(pepper),
            Self::Verify(command) => command.run(pepper),
            Self::Serve(command) => command.run(pepper, program),
        }
    }
}

/// The gate that a command works on.
#[derive(Args)]
struct GateFile {
    /// The gate's file
    #[arg(value_name = "GATE", value_parser = given::path())]
    path: PathBuf,
}

impl GateFile {
    fn open(&self, pepper: &PepperSource) -> Result<Gate, Failure> {
        Ok(Gate::open(&self.path, pepper.needed()?)?)
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// The gate that a command changes.
#[derive(Args)]
struct ChangedGate {
    #[command(flatten)]
    gate: GateFile,
    /// How long to wait while another process changes the gate, such as 30s; 0s tries once
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = when::span)]
    wait: Duration,
}

impl ChangedGate {
    fn open(&self, pepper: &PepperSource) -> Result<Gate, Failure> {
        let gate = self.gate.open(pepper)?;
        gate.set_wait(self.wait);
        Ok(gate)
    }

    fn path(&self) -> &Path {
        self.gate.path()
    }
}

/// How a command prints what it has to say.
#[derive(Args, Clone, Copy)]
struct Format {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Format {
    /// Prints `data` as one line of JSON, or what `text` writes.
    fn print(
        self,
        data: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.write(data, text).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::of("cannot write to standard output", error),
        })
    }

    fn write(
        self,
        data: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.json {
            // An error of `serde_json` hides the kind of the one beneath it.
            serde_json::to_writer(&mut out, data).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            text(&mut out)?;
        }
        out.flush()
    }
}

/// Says something to the user that isn't the command's output.
fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Warns of quotas in these plans that can never deny a request.
fn warn_of<'p>(plans: impl IntoIterator<Item = &'p Plan>) {
    for plan in plans {
        plans::warnings(&format!("plan {}", plan.name), &plan.policy).iter().for_each(|text| remark(text));
    }
}

/// `1 key`, `2 keys`.
fn counted(count: impl Display, what: &str) -> String {
    let count = count.to_string();
    format!("{count} {what}{}", if count == "1" { "" } else { "s" })
}

fn parse_name(text: &str) -> Result<Name, String> {
    Name::new(text).ok_or_else(|| "it is 1 to 8 characters of a-z and 0-9".to_owned())
}

fn parse_key_id(text: &str) -> Result<KeyId, String> {
    text.parse().map_err(|error: keytally_host::keytally::KeyIdError| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_made() {
        Cli::command().debug_assert();
    }
}
