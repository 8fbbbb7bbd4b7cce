//! The command `assign`.

use clap::Args;
use keytally::KeyId;
use serde::Serialize;

use crate::arguments;
use crate::arguments::parse_key_id;
use crate::failure::Failure;
use crate::gate_file::{FleetWait, GateFileToChange};
use crate::output::OutputFormat;
use crate::pepper::PepperSource;
use crate::plans;
use crate::status::Status;

/// Move a key to another plan, and keep its counts
#[derive(Args)]
pub(crate) struct Assign {
    #[command(flatten)]
    gate: GateFileToChange,
    /// Key id, as `list` shows it
    #[arg(value_name = "ID", value_parser = parse_key_id)]
    key_id: KeyId,
    /// Name of the plan
    #[arg(long, value_name = "NAME", value_parser = arguments::value_parser(plans::parse_name))]
    plan: String,
    #[command(flatten)]
    fleet: FleetWait,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Assigned {
    key_id: String,
    plan: String,
}

impl Assign {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        self.fleet.verify(&gate.current())?;
        gate.change(|gate| gate.assign(self.key_id, &self.plan))
            .map_err(|error| plans::no_such_plan(&gate.current(), Some(&self.plan), error))?;
        let assigned = Assigned { key_id: self.key_id.to_string(), plan: self.plan };
        self.format.print(&assigned, |out| {
            writeln!(out, "key {} has plan {}", assigned.key_id, assigned.plan)
        })?;
        self.fleet.wait(&gate.current())
    }
}
