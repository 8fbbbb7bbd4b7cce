use core::time::Duration;

use clap::Args;
use keytally_host::keytally::KeyId;

use super::issue::print_once;
use super::{ChangedGate, Format, Status, parse_key_id};
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::when;

/// Give a key a new secret and print it, once
///
/// Key id, account, plan and counts stay. Until the grace ends the old secret is good too, and spends the same quota.
#[derive(Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    gate: ChangedGate,
    /// The key's id, as `list` shows it
    #[arg(value_name = "ID", value_parser = parse_key_id)]
    key_id: KeyId,
    /// How long the old secret stays good, such as 24h; 0s ends it at once
    #[arg(long, value_name = "TIME", value_parser = when::span)]
    grace: Duration,
    #[command(flatten)]
    format: Format,
}

impl Rotate {
    pub(super) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        let key = gate.rotate(self.key_id, self.grace)?;
        print_once(self.format, &key, self.key_id, &gate)
    }
}
