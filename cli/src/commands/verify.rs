use core::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{ChangedGate, Format, Status, counted, remark};
use crate::failure::Failure;
use crate::pepper::PepperSource;

/// Read the whole gate and report what is wrong with it
///
/// A change that was interrupted is completed first, and said so. Exit status 3 when something is wrong.
///
/// It finds records that are half-written, lie in another record's place, have no tally or one from the future, or name a
/// plan, an environment or a pepper that the gate does not have. Records have no checksum, so it does not see a value that was
/// changed into another valid one: the key id within its record, a MAC, an account, a time, a count, or the number of
/// another plan, environment or pepper of the gate.
#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    gate: ChangedGate,
    /// End the change of a process in another container that is gone; only when the error says so
    #[arg(long)]
    take_over: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Report {
    gate: String,
    capacity: u32,
    /// Whether an interrupted change was completed.
    completed: bool,
    flaws: Vec<FlawText>,
    /// In what a change into another valid value is not seen.
    unseen: [&'static str; 6],
}

const UNSEEN: [&str; 6] = [
    "the key id within its record",
    "MACs",
    "accounts",
    "times",
    "counts",
    "the numbers of plans, environments and peppers",
];

#[derive(Serialize)]
struct FlawText {
    record: u32,
    key_id: Option<String>,
    what: String,
}

impl Verify {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        if self.take_over {
            gate.take_over()?;
        }
        let capacity = gate.table().capacity();
        let bar = ProgressBar::new_spinner().with_message(format!("reading {}", counted(capacity, "record")));
        bar.set_style(ProgressStyle::default_spinner());
        bar.enable_steady_tick(Duration::from_millis(100));
        let mut flaws = Vec::new();
        let completed = gate.verify(|flaw| {
            bar.set_message(format!(
                "reading {}, {}",
                counted(capacity, "record"),
                counted(flaws.len() + 1, "flaw")
            ));
            flaws.push(FlawText {
                record: flaw.record,
                key_id: flaw.key_id.map(|key_id| key_id.to_string()),
                what: flaw.to_string(),
            });
        });
        bar.finish_and_clear();
        let report = Report {
            gate: self.gate.path().display().to_string(),
            capacity,
            completed: completed?,
            flaws,
            unseen: UNSEEN,
        };
        self.format.print(&report, |out| {
            if report.completed {
                writeln!(out, "a change that was interrupted is now completed")?;
            }
            for flaw in &report.flaws {
                writeln!(out, "{}", flaw.what)?;
            }
            if report.flaws.is_empty() {
                writeln!(out, "{}: no flaw in {}", report.gate, counted(capacity, "record"))?;
            }
            writeln!(
                out,
                "Not seen: other valid values in place of the right ones, since records have no checksum. These are {}.",
                report.unseen.join(", ")
            )
        })?;
        if report.flaws.is_empty() {
            return Ok(Status::Fine);
        }
        remark(&format!("keytally: {} has {}", report.gate, counted(report.flaws.len(), "flaw")));
        Ok(Status::Faulty)
    }
}
