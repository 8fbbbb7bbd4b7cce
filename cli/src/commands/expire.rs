//! The command `expire`.

use core::time::Duration;

use clap::{ArgGroup, Args};
use keytally::{KeyId, now};
use serde::Serialize;

use crate::arguments::parse_key_id;
use crate::failure::Failure;
use crate::gate_file::{FleetWait, GateFileToChange};
use crate::output::OutputFormat;
use crate::pepper::PepperSource;
use crate::status::Status;
use crate::times;

/// Set when a key expires
///
/// An expired key is valid again if the new time is in the future and no other key has got its
/// record.
#[derive(Args)]
#[command(group = ArgGroup::new("end").required(true).args(["expires", "never"]))]
pub(crate) struct Expire {
    #[command(flatten)]
    gate: GateFileToChange,
    /// Key id, as `list` shows it
    #[arg(value_name = "ID", value_parser = parse_key_id)]
    key_id: KeyId,
    /// Lifetime of the key from now on, such as 90d
    #[arg(long, value_name = "TIME", value_parser = times::parse_lifetime)]
    expires: Option<Duration>,
    /// Let the key never expire
    #[arg(long)]
    never: bool,
    #[command(flatten)]
    fleet: FleetWait,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Expires {
    key_id: String,
    expires: Option<String>,
}

impl Expire {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let not_after = self.expires.map(|lifetime| times::expiry(now(), lifetime)).transpose()?;
        let gate = self.gate.open(pepper)?;
        self.fleet.verify(&gate.current())?;
        gate.change(|gate| gate.expire(self.key_id, not_after))?;
        let shown = Expires {
            key_id: self.key_id.to_string(),
            expires: not_after.map(|end| times::rfc3339(end.unix_s())),
        };
        self.format.print(&shown, |out| match &shown.expires {
            Some(end) => writeln!(out, "key {} expires at {end}", shown.key_id),
            None => writeln!(out, "key {} never expires", shown.key_id),
        })?;
        self.fleet.wait(&gate.current())
    }
}
