use clap::Args;
use keytally::AdminError;
use keytally::KeyId;
use serde::Serialize;

use super::{Format, GateFile, Status, parse_key_id};
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::views::Use;

/// Forget all that a key has used
#[derive(Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    gate: GateFile,
    /// The key's id, as `list` shows it
    #[arg(value_name = "ID", value_parser = parse_key_id)]
    key_id: KeyId,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Forgotten {
    key_id: String,
    quotas: Vec<Use>,
}

impl Reset {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let verdict = self.gate.open(pepper)?.reset(self.key_id).ok_or(AdminError::NoSuchKey(self.key_id))?;
        let forgotten = Forgotten { key_id: self.key_id.to_string(), quotas: Use::of(verdict.quotas()) };
        self.format.print(&forgotten, |out| writeln!(out, "key {} has used nothing", forgotten.key_id))?;
        Ok(Status::Fine)
    }
}
