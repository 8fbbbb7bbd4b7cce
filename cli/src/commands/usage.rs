//! The command `usage`: how each key of a gate is used.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use keytally::{Gate, KeyInfo, KeyUsage, now};
use serde::Serialize;

use crate::arguments;
use crate::columns::{Align, Columns};
use crate::failure::Failure;
use crate::gate_file::{GateFile, GateFileToChange};
use crate::output::OutputFormat;
use crate::pepper::PepperSource;
use crate::status::Status;
use crate::times;
use crate::views::KeyView;

/// Count how each key is used, and show the counts
///
/// The counts are in a file next to that of the gate, GATE.usage, which every process that has the
/// gate open fills. They are for pictures and reviews, not for billing.
#[derive(Args)]
pub(crate) struct Usage {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    On(On),
    Off(Off),
    Show(Show),
}

/// Begin to count, in every process that has the gate open
#[derive(Args)]
struct On {
    #[command(flatten)]
    gate: GateFileToChange,
    #[command(flatten)]
    format: OutputFormat,
}

/// End counting, in every process that has the gate open; the counts remain
#[derive(Args)]
struct Off {
    #[command(flatten)]
    gate: GateFileToChange,
    #[command(flatten)]
    format: OutputFormat,
}

/// Show how each key was used since counting began
#[derive(Args)]
struct Show {
    #[command(flatten)]
    gate: GateFile,
    /// Only the keys of this account
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = arguments::number_parser(0..=u32::MAX))]
    account: Option<u32>,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Switched {
    gate: String,
    counted: bool,
}

#[derive(Serialize)]
struct Counts {
    gate: String,
    keys: Vec<CountedKey>,
}

/// A key, and how it was used.
#[derive(Serialize)]
struct CountedKey {
    #[serde(flatten)]
    about: KeyView,
    admitted: u32,
    /// The part of `admitted` that had the previous secret of a rotation.
    with_previous_secret: u32,
    units: u64,
    denied_by_key: u32,
    denied_by_team: u32,
    denied_by_group: u32,
    forbidden: u32,
    revoked: u32,
    expired: u32,
    suspended: u32,
    last_used: Option<String>,
}

impl Usage {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        match self.command {
            Command::On(On { gate, format }) => switch(&gate, true, format, pepper),
            Command::Off(Off { gate, format }) => switch(&gate, false, format, pepper),
            Command::Show(show) => show.run(pepper),
        }
    }
}

fn switch(
    gate: &GateFileToChange,
    counted: bool,
    format: OutputFormat,
    pepper: &PepperSource,
) -> Result<Status, Failure> {
    gate.open(pepper)?.change(|gate| gate.set_usage(counted))?;
    let switched = Switched { gate: gate.path().display().to_string(), counted };
    format.print(&switched, |out| {
        let state = if counted { "counted" } else { "no longer counted" };
        writeln!(out, "{}: uses of keys are {state}", switched.gate)
    })?;
    Ok(Status::Success)
}

impl Show {
    fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        let path = self.gate.path().display().to_string();
        if gate.usage().is_none() {
            return Err(Failure::new(match gate.table().usage_generation() {
                0 => format!("{path}: uses are not counted; begin with: keytally usage on {path}"),
                _ => format!(
                    "{path}: the file of the counts, {path}.usage, cannot be opened or is not that \
                     of this gate; create it again with: keytally usage on {path}"
                ),
            }));
        }
        let infos = gate.table().list(now());
        let of_account = |info: &KeyInfo| self.account.is_none_or(|number| number == info.account);
        let keys = infos.filter(of_account).map(|info| CountedKey::new(&info, &gate)).collect();
        let counts = Counts { gate: path, keys };
        self.format.print(&counts, |out| counts.write(out))?;
        Ok(Status::Success)
    }
}

impl CountedKey {
    fn new(info: &KeyInfo, gate: &Gate) -> Self {
        // Another process may have ended counting meanwhile.
        let usage: KeyUsage = gate.key_usage(info.key_id).unwrap_or_default();
        Self {
            about: KeyView::new(info, gate),
            admitted: usage.admitted(),
            with_previous_secret: usage.with_previous_secret(),
            units: usage.units(),
            denied_by_key: usage.denied_by_key(),
            denied_by_team: usage.denied_by_team(),
            denied_by_group: usage.denied_by_group(),
            forbidden: usage.forbidden(),
            revoked: usage.revoked(),
            expired: usage.expired(),
            suspended: usage.suspended(),
            last_used: usage.last_used().map(|time| times::rfc3339(time.unix_s())),
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.about.key_id.clone(),
            self.about.account.to_string(),
            self.admitted.to_string(),
            self.with_previous_secret.to_string(),
            self.units.to_string(),
            self.denied_by_key.to_string(),
            self.denied_by_team.to_string(),
            self.denied_by_group.to_string(),
            self.forbidden.to_string(),
            self.revoked.to_string(),
            self.expired.to_string(),
            self.suspended.to_string(),
            self.last_used.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

impl Counts {
    fn write(&self, mut out: &mut dyn Write) -> io::Result<()> {
        if self.keys.is_empty() {
            return writeln!(out, "no keys");
        }
        let numbers = [
            "ACCOUNT",
            "ADMITTED",
            "OLD SECRET",
            "UNITS",
            "DENIED: KEY",
            "TEAM",
            "GROUP",
            "FORBIDDEN",
            "REVOKED",
            "EXPIRED",
            "SUSPENDED",
        ];
        let mut headings = vec![("KEY ID".to_owned(), Align::Left)];
        headings.extend(numbers.map(|heading| (heading.to_owned(), Align::Right)));
        headings.push(("LAST ADMITTED".to_owned(), Align::Left));
        let mut columns = Columns::new(headings);
        for key in &self.keys {
            columns.push(key.row());
        }
        columns.write(&mut out)
    }
}
