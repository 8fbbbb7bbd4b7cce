//! The commands, one file each, and the arguments and output that they share.

mod assign;
mod check;
mod create;
mod import;
mod issue;
mod list;
mod plan;
mod reset;
mod revoke;
mod rotate;
mod top;
mod verify;

pub use self::issue::revoke_unprinted;

use core::fmt::Display;
use core::time::Duration;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keytally::{Gate, KeyId, Name, Plan};
use serde::Serialize;

use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::{arguments, plans, times};

/// The exit status of a command that failed.
pub(crate) const FAILED: i32 = 3;

/// The result of a command that did its work. The value is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Success = 0,
    /// The key was denied or is invalid, or some of the input was rejected.
    Denied = 1,
    /// The gate has flaws.
    Flawed = FAILED as isize,
}

/// The commands that work on a gate file.
#[derive(Subcommand)]
pub(crate) enum Command {
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
}

impl Command {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
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
        }
    }
}

/// The argument of a command that names its gate file.
#[derive(Args)]
struct GateFile {
    /// Gate file
    #[arg(value_name = "GATE", value_parser = arguments::path_parser())]
    path: PathBuf,
}

impl GateFile {
    /// Opens the gate.
    fn open(&self, pepper: &PepperSource) -> Result<Gate, Failure> {
        Ok(Gate::open(&self.path, pepper.require()?)?)
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// The arguments of a command that changes its gate, under the gate's lock.
#[derive(Args)]
struct GateFileToChange {
    #[command(flatten)]
    gate: GateFile,
    /// How long to wait while another process changes the gate, such as 30s; 0s does not wait
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = times::parse_duration)]
    wait: Duration,
}

impl GateFileToChange {
    /// Opens the gate, with the wait of the user.
    fn open(&self, pepper: &PepperSource) -> Result<Gate, Failure> {
        let gate = self.gate.open(pepper)?;
        gate.set_wait(self.wait);
        Ok(gate)
    }

    fn path(&self) -> &Path {
        self.gate.path()
    }
}

/// The output format of a command.
#[derive(Args, Clone, Copy)]
struct OutputFormat {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl OutputFormat {
    /// Prints `data` as one line of JSON, or what `text` writes, to standard output.
    ///
    /// # Errors
    /// [`Failure::OutputClosed`] if the reader closed standard output, or another write error.
    fn print(
        self,
        data: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.write(data, text).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::with_context("cannot write to standard output", error),
        })
    }

    fn write(
        self,
        data: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.json {
            // An error of `serde_json` does not report the kind of its source.
            serde_json::to_writer(&mut out, data).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            text(&mut out)?;
        }
        out.flush()
    }
}

/// Prints a line for the user to standard error. Write errors are ignored.
pub fn print_note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a warning for each quota of these plans that can never deny a request.
pub fn warn_of_idle_quotas<'p>(plans: impl IntoIterator<Item = &'p Plan>) {
    for plan in plans {
        let warnings = plans::warnings(&format!("plan {}", plan.name), &plan.policy);
        warnings.iter().for_each(|text| print_note(text));
    }
}

/// Returns a count with its noun: `1 key`, `2 keys`.
pub fn pluralized(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    format!("{count} {noun}{}", if count == "1" { "" } else { "s" })
}

fn parse_name(text: &str) -> Result<Name, String> {
    Name::new(text).ok_or_else(|| "it must be 1 to 8 characters of a-z and 0-9".to_owned())
}

fn parse_key_id(text: &str) -> Result<KeyId, String> {
    text.parse().map_err(|error: keytally::ParseKeyIdError| error.to_string())
}
