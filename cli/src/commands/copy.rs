//! The command `copy`.

use std::path::PathBuf;

use clap::Args;
use keytally::Error;
use serde::Serialize;

use crate::arguments;
use crate::failure::Failure;
use crate::gate_file::GateFileToChange;
use crate::output::OutputFormat;
use crate::pepper::PepperSource;
use crate::status::Status;

/// Copy a gate to another file, while servers check keys
///
/// No change of a key or plan is half in the copy. Each count in it is one that the gate had while
/// the command ran. It has the owner and mode of the gate's file. Changes to keys and plans wait
/// while the gate is read; checks never wait.
///
/// The file appears when it is complete and on the disk. The counts of "keytally usage" are in
/// another file, and are not copied.
///
/// With --replace, a backup can also be put where servers use a gate: most of them open it within a
/// second.
#[derive(Args)]
pub(crate) struct Copy {
    #[command(flatten)]
    gate: GateFileToChange,
    /// File of the copy
    #[arg(value_name = "COPY", value_parser = arguments::path_parser())]
    copy: PathBuf,
    /// If COPY is another gate, replace it
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Copied {
    gate: String,
    copy: String,
    bytes: Option<u64>,
}

impl Copy {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        gate.change(|gate| gate.copy(&self.copy, self.replace)).map_err(|error| match error {
            Error::Exists { .. } => Failure::new(format!("{error}; --replace replaces a gate")),
            error => error.into(),
        })?;
        let copied = Copied {
            gate: self.gate.path().display().to_string(),
            copy: self.copy.display().to_string(),
            bytes: std::fs::metadata(&self.copy).ok().map(|file| file.len()),
        };
        self.format
            .print(&copied, |out| writeln!(out, "{}: copied to {}", copied.gate, copied.copy))?;
        Ok(Status::Success)
    }
}
