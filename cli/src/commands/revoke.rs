//! The command `revoke`.

use clap::Args;
use keytally::KeyId;
use serde::Serialize;

use crate::arguments::parse_key_id;
use crate::failure::Failure;
use crate::gate_file::{FleetWait, GateFileToChange};
use crate::output::OutputFormat;
use crate::pepper::PepperSource;
use crate::status::Status;

/// Revoke a key, effective immediately in every process
#[derive(Args)]
pub(crate) struct Revoke {
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
struct Revoked {
    key_id: String,
    state: &'static str,
}

impl Revoke {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        self.fleet.verify(&gate.current())?;
        gate.change(|gate| gate.revoke(self.key_id))?;
        let revoked = Revoked { key_id: self.key_id.to_string(), state: "revoked" };
        self.format.print(&revoked, |out| writeln!(out, "key {} is revoked", revoked.key_id))?;
        self.fleet.wait(&gate.current())
    }
}
