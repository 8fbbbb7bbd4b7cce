//! The command `rotate`.

use core::time::Duration;

use clap::Args;
use keytally::AdminError;
use keytally::KeyId;
use keytally::{Error, now};

use super::issue::print_once;
use crate::arguments::parse_key_id;
use crate::failure::Failure;
use crate::gate_file::{FleetWait, GateFileToChange};
use crate::output::OutputFormat;
use crate::pepper::PepperSource;
use crate::status::Status;
use crate::times;

/// Give a key a new secret and print the key once
///
/// Key id, account, plan and counts stay the same. The old secret is also valid until the grace
/// period ends, and is charged to the same quotas. If the new key cannot be printed, nothing
/// changes.
#[derive(Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    gate: GateFileToChange,
    /// Key id, as `list` shows it
    #[arg(value_name = "ID", value_parser = parse_key_id)]
    key_id: KeyId,
    /// Grace period: how long the old secret stays valid, such as 24h; 0s ends it immediately
    #[arg(long, value_name = "TIME", value_parser = times::parse_duration)]
    grace: Duration,
    /// Rotate although an earlier rotation is in its grace period; that period ends immediately
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    fleet: FleetWait,
    #[command(flatten)]
    format: OutputFormat,
}

impl Rotate {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        times::check_grace(now(), self.grace)?;
        let gate = self.gate.open_for_new_secret(pepper)?;
        self.fleet.verify(&gate.current())?;
        let mut printed = false;
        // The secret is printed before the gate stores it. In the other order, an interruption
        // could replace the secret in use by one that was never printed, which no command can undo.
        let rotated = gate.change(|gate| {
            gate.rotate_after(self.key_id, self.grace, self.force, |key| {
                print_once(self.format, key, self.key_id, gate)?;
                printed = true;
                Ok::<(), Failure>(())
            })
        });
        match rotated {
            Ok(Ok(())) => self.fleet.wait(&gate.current()),
            Ok(Err(failure)) => Err(Failure::new(format!(
                "the new key could not be printed, so key {} is unchanged: {}",
                self.key_id,
                failure.message()
            ))),
            Err(Error::Admin { source: AdminError::InGrace { key_id, until }, .. }) => {
                Err(Failure::new(format!(
                    "key {key_id} is in a grace period: its previous secret is valid until {}, and another \
                     rotation would end it immediately; wait, or give --force",
                    times::rfc3339(until.unix_s())
                )))
            }
            Err(error) if printed => Err(Failure::new(format!(
                "the key that was printed may be invalid; check it with `keytally check`: {error}"
            ))),
            Err(error) => Err(error.into()),
        }
    }
}
