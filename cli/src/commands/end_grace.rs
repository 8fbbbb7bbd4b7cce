//! The command `end-grace`.

use clap::Args;
use keytally::KeyId;
use serde::Serialize;

use crate::arguments::parse_key_id;
use crate::failure::Failure;
use crate::gate_file::{FleetWait, GateFileToChange};
use crate::output::OutputFormat;
use crate::pepper::PepperSource;
use crate::status::Status;

/// End the previous secret of a key at once, before the end of its grace period
#[derive(Args)]
pub(crate) struct EndGrace {
    #[command(flatten)]
    gate: GateFileToChange,
    /// Key id, as `list` shows it
    #[arg(value_name = "ID", value_parser = parse_key_id)]
    key_id: KeyId,
    #[command(flatten)]
    fleet: FleetWait,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Ended {
    key_id: String,
}

impl EndGrace {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        self.fleet.verify(&gate.current())?;
        gate.change(|gate| gate.end_grace(self.key_id))?;
        let ended = Ended { key_id: self.key_id.to_string() };
        self.format.print(&ended, |out| {
            writeln!(out, "key {} has one secret, its newest", ended.key_id)
        })?;
        self.fleet.wait(&gate.current())
    }
}
