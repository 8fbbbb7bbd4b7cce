//! The command `reset`.

use clap::Args;
use keytally::AdminError;
use keytally::{KeyId, Outcome};
use serde::Serialize;

use crate::arguments::parse_key_id;
use crate::failure::Failure;
use crate::gate_file::{GateFile, counts_are_moving};
use crate::output::OutputFormat;
use crate::pepper::PepperSource;
use crate::status::Status;
use crate::views::QuotaUse;

/// Set the counts of a key to zero
#[derive(Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    gate: GateFile,
    /// Key id, as `list` shows it
    #[arg(value_name = "ID", value_parser = parse_key_id)]
    key_id: KeyId,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct ResetKey {
    key_id: String,
    quotas: Vec<QuotaUse>,
}

impl Reset {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let verdict = self.gate.follow(pepper)?.call(|gate| gate.reset(self.key_id));
        let verdict = verdict.ok_or(AdminError::NoSuchKey(self.key_id))?;
        if verdict.outcome() == Outcome::Unavailable {
            return Err(counts_are_moving(self.gate.path()));
        }
        let reset = ResetKey {
            key_id: self.key_id.to_string(),
            quotas: QuotaUse::from_quotas(verdict.quotas()),
        };
        self.format
            .print(&reset, |out| writeln!(out, "the counts of key {} are zero", reset.key_id))?;
        Ok(Status::Success)
    }
}
