//! The command `copy`.

use std::path::PathBuf;

use clap::Args;
use keytally::{AttachError, Error, Gate, KeyState, now};
use serde::Serialize;

use crate::arguments;
use crate::failure::Failure;
use crate::gate_file::GateFileToChange;
use crate::output::{OutputFormat, pluralized};
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
/// second. A gate with keys or revocations that the copy lacks is replaced only with
/// --discard-newer.
#[derive(Args)]
pub(crate) struct Copy {
    #[command(flatten)]
    gate: GateFileToChange,
    /// File of the copy
    #[arg(value_name = "COPY", value_parser = arguments::path_parser())]
    copy: PathBuf,
    /// If COPY is another gate, replace it, unless it has keys or revocations that GATE lacks
    #[arg(long)]
    replace: bool,
    /// Replace also a gate that has keys or revocations that GATE lacks, or other peppers
    #[arg(long, requires = "replace")]
    discard_newer: bool,
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
        if self.replace && !self.discard_newer {
            self.expect_nothing_newer(&gate.current(), pepper)?;
        }
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

    /// Refuses to replace a gate that has what the copy would lack. What is not a gate that can be
    /// opened is left to [`Gate::copy`].
    fn expect_nothing_newer(&self, gate: &Gate, pepper: &PepperSource) -> Result<(), Failure> {
        let refused = |what: &str| {
            Failure::new(format!(
                "{}: nothing was changed: this gate has {what}; --discard-newer replaces it",
                self.copy.display()
            ))
        };
        let replaced = match Gate::open(&self.copy, pepper.require()?) {
            Ok(replaced) => replaced,
            Err(Error::Attach { source: AttachError::WrongPepper { .. }, .. }) => {
                return Err(refused("other peppers, so its keys cannot be compared"));
            }
            Err(_) => return Ok(()),
        };
        let time = now();
        let (mut keys, mut revocations) = (0_usize, 0_usize);
        for info in replaced.table().list(time) {
            match gate.table().key(info.key_id, time) {
                Some(copied) if info.state == KeyState::Revoked => {
                    revocations += usize::from(copied.state != KeyState::Revoked);
                }
                Some(_) => {}
                None if info.state_name(time) == "active" => {
                    keys += usize::from(gate.table().has_free_record(info.key_id));
                }
                None => {}
            }
        }
        let lacking = match (keys, revocations) {
            (0, 0) => return Ok(()),
            (0, _) => pluralized(revocations, "revocation"),
            (_, 0) => pluralized(keys, "key"),
            (..) => {
                format!("{} and {}", pluralized(keys, "key"), pluralized(revocations, "revocation"))
            }
        };
        Err(refused(&format!("{lacking} that {} lacks", self.gate.path().display())))
    }
}
