//! The command `list`, and the summary of a gate, which `top` shows too.

use std::io::{self, Write};

use clap::Args;
use keytally::KeyInfo;
use keytally::Timestamp;
use keytally::decide::TOLERANCE_MS;
use keytally::{Gate, now};
use serde::Serialize;

use super::create::PlanText;
use crate::arguments;
use crate::columns::{Align, Columns};
use crate::failure::Failure;
use crate::gate_file::GateFile;
use crate::output::{OutputFormat, pluralized};
use crate::pepper::PepperSource;
use crate::peppers::{self, PepperUse};
use crate::status::Status;
use crate::views::{ListedKey, quota_names};

/// List the keys with their plans and their use
///
/// Use is shown as used/limit for each window. The time of the last use is rounded down to the
/// shortest window, to less if windows do not nest, and to a day if all are weeks and months.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    gate: GateFile,
    /// Only the keys of this account
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = arguments::number_parser(0..=u32::MAX))]
    account: Option<u32>,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Listing {
    #[serde(flatten)]
    summary: Summary,
    keys: Vec<ListedKey>,
}

/// The settings of a gate, and counts over all of its keys.
#[derive(Serialize)]
pub(crate) struct Summary {
    gate: String,
    capacity: u32,
    /// Records that hold a key, revoked or not.
    used: usize,
    prefix: String,
    algorithm: &'static str,
    plans: Vec<PlanText>,
    /// The window that `X-RateLimit-*` describe, if the gate names one.
    described: Option<String>,
    peppers: Vec<PepperUse>,
    /// The number of keys whose tally is ahead of the system clock by more than [`TOLERANCE_MS`].
    keys_ahead: usize,
    /// By how much the most advanced of these tallies is ahead, in seconds; 0 if there are none.
    clock_ahead_s: u32,
    /// Whether the counts are being moved to another gate.
    migrating: bool,
}

impl List {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        let listing =
            Listing::new(&gate, self.gate.path().display().to_string(), self.account, now());
        self.format.print(&listing, |out| listing.write(&gate, out))?;
        Ok(Status::Success)
    }
}

impl Listing {
    fn new(gate: &Gate, path: String, account: Option<u32>, now: Timestamp) -> Self {
        let mut summary = Summary::new(gate, path, now);
        let mut keys = Vec::new();
        for info in gate.table().list(now) {
            summary.count(&info);
            if account.is_none_or(|account| account == info.account) {
                keys.push(ListedKey::new(&info, gate, now));
            }
        }
        Self { summary, keys }
    }

    fn write(&self, gate: &Gate, mut out: &mut dyn Write) -> io::Result<()> {
        self.summary.write(out)?;
        if self.keys.is_empty() {
            return writeln!(
                out,
                "no keys; issue one with: keytally issue {} --account NUMBER",
                self.summary.gate
            );
        }
        let left = |text: &str| (text.to_owned(), Align::Left);
        let right = |text: &str| (text.to_owned(), Align::Right);
        let names = quota_names(gate);
        let mut headings = vec![
            left("KEY"),
            left("KEY ID"),
            right("ACCOUNT"),
            left("ENV"),
            left("PLAN"),
            left("STATE"),
        ];
        headings.extend(names.iter().map(|name| right(&name.to_uppercase())));
        let has_scopes = gate.table().scopes().next().is_some();
        headings.extend(has_scopes.then(|| left("SCOPES")));
        headings.extend([left("LAST USE"), left("EXPIRES")]);
        let mut columns = Columns::new(headings);
        for key in &self.keys {
            columns.push(row(key, &names, has_scopes));
        }
        writeln!(out)?;
        columns.write(&mut out)?;
        for key in &self.keys {
            if let Some(until) = &key.grace_until {
                writeln!(
                    out,
                    "key {} is in a grace period: its previous secret is valid until {until}",
                    key.about.key_id
                )?;
            }
        }
        Ok(())
    }
}

fn row(key: &ListedKey, names: &[String], has_scopes: bool) -> Vec<String> {
    let about = &key.about;
    let mut row = vec![
        about.hint.clone(),
        about.key_id.clone(),
        about.account.to_string(),
        about.env().to_owned(),
        about.plan().to_owned(),
        key.state.to_owned(),
    ];
    row.extend(names.iter().map(|name| match key.quota(name) {
        Some(quota) => format!("{}/{}", quota.used, quota.limit),
        None => "-".to_owned(),
    }));
    row.extend(has_scopes.then(|| or_dash(key.scopes.join(","))));
    row.push(key.last_used.clone().unwrap_or_else(|| "-".to_owned()));
    row.push(about.expires.clone().unwrap_or_else(|| "never".to_owned()));
    row
}

/// Returns the text, or a dash if it is empty.
fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

impl Summary {
    /// Returns the summary of a gate. Keys are added with [`count`](Self::count).
    pub(crate) fn new(gate: &Gate, path: String, now: Timestamp) -> Self {
        let table = gate.table();
        Self {
            gate: path,
            capacity: table.capacity(),
            used: 0,
            prefix: table.prefix().to_string(),
            algorithm: table.layout().algorithm().as_str(),
            plans: table.plans().map(|(_, plan)| PlanText::new(&plan)).collect(),
            described: table.described().map(|window| window.to_string()),
            peppers: peppers::in_use(gate, now),
            keys_ahead: 0,
            clock_ahead_s: 0,
            migrating: table.is_migrating(),
        }
    }

    /// Adds a key to the counts.
    pub(crate) fn count(&mut self, info: &KeyInfo) {
        self.used += 1;
        if u64::from(info.clock_ahead_s) * 1000 > TOLERANCE_MS {
            self.keys_ahead += 1;
            self.clock_ahead_s = self.clock_ahead_s.max(info.clock_ahead_s);
        }
    }

    /// Returns a warning if tallies are ahead of the system clock.
    pub(crate) fn clock_warning(&self) -> Option<String> {
        (self.keys_ahead > 0).then(|| {
            format!(
                "clock: the tally of {} is up to {} s ahead of the system clock; \
                 the next check of a key corrects it",
                pluralized(self.keys_ahead, "key"),
                self.clock_ahead_s
            )
        })
    }

    /// Returns a warning if a migration of the gate is not finished.
    pub(crate) fn migration_warning(&self) -> Option<String> {
        self.migrating.then(|| {
            format!(
                "migration: not finished, so checks of some keys wait; the next change of the gate \
                 completes it, or: keytally verify {}",
                self.gate
            )
        })
    }

    /// Returns a warning for each pepper that keys need and that was not given.
    pub(crate) fn pepper_warnings(&self) -> impl Iterator<Item = String> {
        peppers::warnings(&self.peppers)
    }

    /// Returns the path of the gate.
    pub(crate) fn gate(&self) -> &str {
        &self.gate
    }

    /// Returns how full the gate is: `3 of 100000 keys (0.0 %)`.
    pub(crate) fn fill(&self) -> String {
        let thousandths = self.fill_thousandths();
        let capacity = pluralized(self.capacity, "key");
        format!("{} of {capacity} ({}.{} %)", self.used, thousandths / 10, thousandths % 10)
    }

    /// Returns the share of records that hold a key, in thousandths.
    pub(crate) fn fill_thousandths(&self) -> usize {
        self.used * 1000 / usize::try_from(self.capacity).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the plans as text: `default = 100/minute, 1000/hour; pro = …`.
    pub(crate) fn plans(&self) -> String {
        let texts = self.plans.iter().map(|plan| format!("{} = {}", plan.name, plan.sections));
        texts.collect::<Vec<_>>().join("; ")
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {}, prefix {}, {} windows",
            self.gate,
            self.fill(),
            self.prefix,
            self.algorithm
        )?;
        writeln!(out, "plans: {}", self.plans())?;
        if let Some(window) = &self.described {
            writeln!(out, "X-RateLimit-* describe: {window}")?;
        }
        if !self.peppers.is_empty() {
            let texts = self
                .peppers
                .iter()
                .map(|pepper| format!("{} with pepper {}", pepper.keys, pepper.number));
            writeln!(out, "keys per pepper: {}", texts.collect::<Vec<_>>().join(", "))?;
        }
        let warnings = [self.migration_warning(), self.clock_warning()].into_iter().flatten();
        for warning in warnings.chain(self.pepper_warnings()) {
            writeln!(out, "{warning}")?;
        }
        Ok(())
    }
}
