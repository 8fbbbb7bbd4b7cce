use core::time::Duration;

use clap::Args;
use keytally::AdminError;
use keytally::KeyId;
use keytally::{Error, now};

use super::issue::print_once;
use super::{ChangedGate, Format, Status, parse_key_id};
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::times;

/// Give a key a new secret and print it, once
///
/// Key id, account, plan and counts stay. Until the grace ends the old secret is valid too, and spends the same quota. If
/// the new secret cannot be printed, nothing is changed.
#[derive(Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    gate: ChangedGate,
    /// The key's id, as `list` shows it
    #[arg(value_name = "ID", value_parser = parse_key_id)]
    key_id: KeyId,
    /// How long the old secret stays valid, such as 24h; 0s ends it at once
    #[arg(long, value_name = "TIME", value_parser = times::span)]
    grace: Duration,
    /// Rotate although the secret before the last rotation is still valid, and end that one at once
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: Format,
}

impl Rotate {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        times::grace(now(), self.grace)?;
        let gate = self.gate.open(pepper)?;
        let mut printed = false;
        // The secret is printed before the gate holds it. The other way round, a secret that nobody received would
        // replace the one in use, which could be had back by no command.
        let rotated = gate.rotate_after(self.key_id, self.grace, self.force, |key| {
            print_once(self.format, key, self.key_id, &gate)?;
            printed = true;
            Ok::<(), Failure>(())
        });
        match rotated {
            Ok(Ok(())) => Ok(Status::Fine),
            Ok(Err(failure)) => Err(Failure::because(format!(
                "the new secret could not be printed, so key {} is as it was: {}",
                self.key_id,
                failure.sentence()
            ))),
            Err(Error::Admin { source: AdminError::InGrace { key_id, until }, .. }) => {
                Err(Failure::because(format!(
                    "the secret that key {key_id} had before its last rotation is valid until {}, and another \
                     rotation would end it at once; wait, or give --force",
                    times::rfc3339(until.unix_s())
                )))
            }
            Err(error) if printed => Err(Failure::because(format!(
                "the secret that was printed may be invalid, try it with `keytally check`: {error}"
            ))),
            Err(error) => Err(error.into()),
        }
    }
}
