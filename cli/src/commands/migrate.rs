//! The command `migrate`.

use std::path::PathBuf;

use clap::Args;
use keytally::{MAX_KEYS, MigrationConfig, Plan, Window};
use serde::Serialize;

use super::create::PlanText;
use crate::arguments;
use crate::failure::Failure;
use crate::gate_file::GateFileToChange;
use crate::output::{OutputFormat, pluralized, print_note, warn_of_never_binding_quotas};
use crate::pepper::PepperSource;
use crate::status::Status;
use crate::{peppers, plans};

/// Move all keys and counts of a gate to a new file, while servers check keys
///
/// The new file can have room for more keys, or plans with other sections and windows. It then
/// replaces the old file at its path. No key has to be issued again. Windows that both have keep
/// their counts, and the others begin with 0.
///
/// First lists what the new gate cannot have. If a key would lose its plan, scope or account, or if
/// a record is damaged, nothing is changed.
#[derive(Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    gate: GateFileToChange,
    /// Name of the new file until it replaces the old one, in the same folder
    #[arg(value_name = "NEW_GATE", value_parser = arguments::path_parser())]
    new: PathBuf,
    /// Capacity: the maximum number of keys, rounded up to a multiple of the present one [default:
    /// the present one]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = arguments::number_parser(1..=MAX_KEYS))]
    keys: Option<u32>,
    /// A plan, as NAME=SECTIONS, as in create. Repeat the option for all plans of the new gate
    /// [default: the present plans]
    #[arg(long = "plan", value_name = "PLAN", value_parser = arguments::value_parser(plans::parse))]
    plans: Vec<Plan>,
    /// Capacity: the maximum number of accounts [default: the present one, as many times as that of
    /// keys]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = arguments::number_parser(0..=MAX_KEYS))]
    teams: Option<u32>,
    /// Window that X-RateLimit-* describe, such as month: one of the quotas of keys [default: the
    /// present one]
    #[arg(long, value_name = "WINDOW", value_parser = arguments::value_parser(plans::parse_window))]
    describe: Option<Window>,
    /// Only list what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Report {
    gate: String,
    capacity: u32,
    teams: u32,
    plans: Vec<PlanText>,
    /// Whether the new gate is in force. It is not after `--dry-run`, or if something prevents it.
    migrated: bool,
    not_carried: Vec<NotCarriedText>,
}

#[derive(Serialize)]
struct NotCarriedText {
    prevents: bool,
    sentence: String,
}

impl Migrate {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        plans::check_distinct(&self.plans)?;
        let mut migration = MigrationConfig::default();
        migration.keys = self.keys;
        migration.teams = self.teams;
        migration.described = self.describe;
        migration.plans = (!self.plans.is_empty()).then(|| self.plans.clone());
        let gate = self.gate.open(pepper)?;
        // The new gate numbers the peppers in the order in which they are given.
        if let Some(warning) = peppers::order_warning(&gate.current()) {
            print_note(&warning);
        }
        let mut planned = gate.change(|gate| gate.plan_migration(&migration))?;
        if !self.format.json {
            planned.not_carried.iter().for_each(|it| print_note(&it.to_string()));
        }
        let capacity = gate.current().table().capacity();
        let is_possible = !planned.not_carried.iter().any(|it| it.prevents());
        let migrated = is_possible && !self.dry_run;
        if migrated {
            planned = gate.change(|gate| gate.migrate(&self.new, &migration))?;
        }
        let config = &planned.config;
        if self.keys.is_some_and(|keys| keys < capacity) {
            print_note(&format!(
                "a gate does not become smaller: it keeps room for {}",
                pluralized(config.keys, "key")
            ));
        }
        let not_carried = planned.not_carried.iter();
        let report = Report {
            gate: self.gate.path().display().to_string(),
            capacity: config.keys,
            teams: config.teams.unwrap_or(0),
            plans: config.plans.iter().map(PlanText::new).collect(),
            migrated,
            not_carried: not_carried
                .map(|it| NotCarriedText { prevents: it.prevents(), sentence: it.to_string() })
                .collect(),
        };
        self.format.print(&report, |out| {
            let done = match (migrated, is_possible) {
                (true, _) => "migrated to",
                (false, true) => "can be migrated to",
                (false, false) => "cannot be migrated to",
            };
            let capacity = pluralized(report.capacity, "key");
            writeln!(out, "{}: {done} a gate for {capacity}", report.gate)?;
            writeln!(out, "plans: {}", plans::describe(config.plans.iter().cloned()))
        })?;
        warn_of_never_binding_quotas(&self.plans);
        Ok(if is_possible { Status::Success } else { Status::Denied })
    }
}
