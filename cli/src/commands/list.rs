use std::io::{self, Write};

use clap::Args;
use keytally::KeyInfo;
use keytally::Timestamp;
use keytally::decide::TOLERANCE_MS;
use keytally::{Gate, now};
use serde::Serialize;

use super::create::PlanText;
use super::{Format, GateFile, Status, counted};
use crate::columns::{Align, Table};
use crate::failure::Failure;
use crate::pepper::PepperSource;
use crate::views::Listed;

/// Show the keys: what each may use, and has used
///
/// Use is shown as used/limit for every window. Last use is told to the smallest window.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    gate: GateFile,
    /// Only the keys of this account
    #[arg(long, value_name = "NUMBER")]
    account: Option<u32>,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Listing {
    #[serde(flatten)]
    summary: Summary,
    keys: Vec<Listed>,
}

/// What is told of a gate as a whole.
#[derive(Serialize)]
pub(crate) struct Summary {
    gate: String,
    capacity: u32,
    /// Records that hold a key, revoked ones too.
    used: usize,
    prefix: String,
    algorithm: &'static str,
    plans: Vec<PlanText>,
    peppers: Vec<PepperUse>,
    /// Keys whose tally is ahead of the system clock by more than it may be.
    keys_ahead: usize,
    /// By how many seconds the one that is furthest ahead is.
    clock_ahead_s: u32,
}

/// How many keys are stored under a pepper: it must be kept as long as there are any.
#[derive(Serialize)]
struct PepperUse {
    number: u8,
    keys: usize,
}

impl List {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        let listing = Listing::of(&gate, self.gate.path().display().to_string(), self.account, now());
        self.format.print(&listing, |out| listing.write(&gate, out))?;
        Ok(Status::Fine)
    }
}

impl Listing {
    fn of(gate: &Gate, path: String, account: Option<u32>, now: Timestamp) -> Self {
        let mut summary = Summary::of(gate, path);
        let mut keys = Vec::new();
        for info in gate.table().list(now) {
            summary.count(&info);
            if account.is_none_or(|account| account == info.account) {
                keys.push(Listed::of(&info, gate, now));
            }
        }
        Self { summary, keys }
    }

    fn write(&self, gate: &Gate, mut out: &mut dyn Write) -> io::Result<()> {
        self.summary.write(out)?;
        if self.keys.is_empty() {
            return writeln!(
                out,
                "no keys; `keytally issue {} --account NUMBER` makes one",
                self.summary.gate
            );
        }
        let left = |text: &str| (text.to_owned(), Align::Left);
        let right = |text: &str| (text.to_owned(), Align::Right);
        let windows: Vec<String> =
            gate.table().layout().windows().iter().map(|window| window.to_string().to_uppercase()).collect();
        let mut columns =
            vec![left("KEY"), left("KEY ID"), right("ACCOUNT"), left("ENV"), left("PLAN"), left("STATE")];
        columns.extend(windows.iter().map(|window| right(window)));
        columns.extend([left("LAST USE"), left("EXPIRES")]);
        let mut table = Table::new(columns);
        for key in &self.keys {
            table.push(row(key));
        }
        writeln!(out)?;
        table.write(&mut out)?;
        for key in &self.keys {
            if let Some(until) = &key.grace_until {
                writeln!(out, "the secret that {} had before is valid until {until}", key.about.key_id)?;
            }
        }
        Ok(())
    }
}

fn row(key: &Listed) -> Vec<String> {
    let about = &key.about;
    let mut row = vec![
        about.hint.clone(),
        about.key_id.clone(),
        about.account.to_string(),
        about.env().to_owned(),
        about.plan().to_owned(),
        key.state.to_owned(),
    ];
    row.extend(key.quotas.iter().map(|quota| format!("{}/{}", quota.used, quota.limit)));
    row.push(key.last_use.clone().unwrap_or_else(|| "-".to_owned()));
    row.push(about.expires.clone().unwrap_or_else(|| "never".to_owned()));
    row
}

impl Summary {
    /// What the header tells; keys are counted with [`count`](Self::count).
    pub(crate) fn of(gate: &Gate, path: String) -> Self {
        let table = gate.table();
        Self {
            gate: path,
            capacity: table.capacity(),
            used: 0,
            prefix: table.prefix().to_string(),
            algorithm: table.layout().algorithm().as_str(),
            plans: table.plans().map(|(_, plan)| PlanText::of(&plan)).collect(),
            peppers: Vec::new(),
            keys_ahead: 0,
            clock_ahead_s: 0,
        }
    }

    /// Counts a key.
    pub(crate) fn count(&mut self, info: &KeyInfo) {
        self.used += 1;
        if u64::from(info.clock_ahead_s) * 1000 > TOLERANCE_MS {
            self.keys_ahead += 1;
            self.clock_ahead_s = self.clock_ahead_s.max(info.clock_ahead_s);
        }
        let pepper = info.pepper;
        match self.peppers.iter_mut().find(|other| other.number == pepper) {
            Some(there) => there.keys += 1,
            None => {
                self.peppers.push(PepperUse { number: pepper, keys: 1 });
                self.peppers.sort_unstable_by_key(|pepper| pepper.number);
            }
        }
    }

    /// Returns a sentence about tallies that are ahead of the system clock, if there are any.
    pub(crate) fn ahead(&self) -> Option<String> {
        (self.keys_ahead > 0).then(|| {
            format!(
                "clock: the tally of {} is up to {} s ahead of this clock; the next check of each corrects it",
                counted(self.keys_ahead, "key"),
                self.clock_ahead_s
            )
        })
    }

    /// The gate's file.
    pub(crate) fn gate(&self) -> &str {
        &self.gate
    }

    /// `3 of 100000 keys (0.0 %)`.
    pub(crate) fn fill(&self) -> String {
        let tenths = self.fill_tenths();
        let capacity = counted(self.capacity, "key");
        format!("{} of {capacity} ({}.{} %)", self.used, tenths / 10, tenths % 10)
    }

    /// Thousandths of the records that hold a key.
    pub(crate) fn fill_tenths(&self) -> usize {
        self.used * 1000 / usize::try_from(self.capacity).unwrap_or(usize::MAX).max(1)
    }

    /// `default = 100/minute, 1000/hour; pro = …`.
    pub(crate) fn plans(&self) -> String {
        let words = self.plans.iter().map(|plan| format!("{} = {}", plan.name, plan.policy));
        words.collect::<Vec<_>>().join("; ")
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}: {}, prefix {}, {} windows", self.gate, self.fill(), self.prefix, self.algorithm)?;
        writeln!(out, "plans: {}", self.plans())?;
        if !self.peppers.is_empty() {
            let words = self
                .peppers
                .iter()
                .map(|pepper| format!("number {} holds {}", pepper.number, counted(pepper.keys, "key")));
            writeln!(out, "peppers: {}", words.collect::<Vec<_>>().join(", "))?;
        }
        if let Some(ahead) = self.ahead() {
            writeln!(out, "{ahead}")?;
        }
        Ok(())
    }
}
