use core::time::Duration;

use clap::Args;
use keytally_host::Error;
use keytally_host::keytally::KeyId;
use keytally_host::keytally::gate::AdminError;

use super::issue::print_once;
use super::{ChangedGate, Format, Status, parse_key_id};
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::when;

/// Give a key a new secret and print it, once
///
/// Key id, account, plan and counts stay. Until the grace ends the old secret is valid too, and spends the same quota.
#[derive(Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    gate: ChangedGate,
    /// The key's id, as `list` shows it
    #[arg(value_name = "ID", value_parser = parse_key_id)]
    key_id: KeyId,
    /// How long the old secret stays valid, such as 24h; 0s ends it at once
    #[arg(long, value_name = "TIME", value_parser = when::span)]
    grace: Duration,
    /// Rotate although the secret before the last rotation is still valid, and end that one at once
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: Format,
}

impl Rotate {
    pub(super) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        let key = gate.rotate(self.key_id, self.grace, self.force).map_err(|error| match error {
            Error::Admin { source: AdminError::InGrace { key_id, until }, .. } => Failure::because(format!(
                "the secret that key {key_id} had before its last rotation is valid until {}, and another \
                 rotation would end it at once; wait, or give --force",
                when::rfc3339(until.into())
            )),
            error => error.into(),
        })?;
        print_once(self.format, &key, self.key_id, &gate)
    }
}
