//! The commands: one file each, and what they share.

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

pub use self::issue::taken_back;

use core::fmt::Display;
use core::time::Duration;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keytally::{Gate, KeyId, Name, Plan};
use serde::Serialize;

use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::{given, plans, times};

/// The exit status of a command that could not do what it was asked.
pub(crate) const FAILED: i32 = 3;

/// How a command that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All is well.
    Fine = 0,
    /// The key was denied or is invalid, or some of the input was.
    No = 1,
    /// The work was done and found a fault in the gate.
    Faulty = FAILED as isize,
}

/// The commands that work on a gate.
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
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = times::span)]
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
pub fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Warns of quotas in these plans that can never deny a request.
pub fn warn_of<'p>(plans: impl IntoIterator<Item = &'p Plan>) {
    for plan in plans {
        plans::warnings(&format!("plan {}", plan.name), &plan.policy).iter().for_each(|text| remark(text));
    }
}

/// `1 key`, `2 keys`.
pub fn counted(count: impl Display, what: &str) -> String {
    let count = count.to_string();
    format!("{count} {what}{}", if count == "1" { "" } else { "s" })
}

fn parse_name(text: &str) -> Result<Name, String> {
    Name::new(text).ok_or_else(|| "it is 1 to 8 characters of a-z and 0-9".to_owned())
}

fn parse_key_id(text: &str) -> Result<KeyId, String> {
    text.parse().map_err(|error: keytally::ParseKeyIdError| error.to_string())
}
