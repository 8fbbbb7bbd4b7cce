//! The command `verify`.

use core::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keytally::{Flaw, Gate, now};
use serde::Serialize;

use crate::failure::Failure;
use crate::gate_file::GateFileToChange;
use crate::output::{OutputFormat, pluralized, print_note};
use crate::pepper::PepperSource;
use crate::peppers::{self, PepperUse};
use crate::status::Status;

/// Check the records of a gate for flaws
///
/// First completes an interrupted change, and reports it. The exit status is 3 if there are flaws.
///
/// A record holds one key. A record is flawed if it is partly written, if it is at the position of
/// another key, if its checksum is wrong, if its counts are missing or from the future, or if it
/// refers to a plan, an environment, a pepper or a team that the gate does not have.
///
/// Counts have no checksum: a count that was changed is not found.
///
/// If keys need a pepper that was not given, a line reports how many. The gate is not flawed for
/// that.
#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    gate: GateFileToChange,
    /// Release the lock of a process in another container, which no longer runs. Use this option
    /// only if an error advises it
    #[arg(long)]
    take_over: bool,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Report {
    gate: String,
    capacity: u32,
    /// Whether a change that was interrupted was completed.
    completed: bool,
    flaws: Vec<FlawText>,
    /// The peppers that keys need.
    peppers: Vec<PepperUse>,
}

#[derive(Serialize)]
struct FlawText {
    record: u32,
    key_id: Option<String>,
    kind: &'static str,
    sentence: String,
}

impl Verify {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let gate = self.gate.open(pepper)?;
        if self.take_over {
            gate.change(Gate::take_over)?;
        }
        let capacity = gate.current().table().capacity();
        let bar = ProgressBar::new_spinner()
            .with_message(format!("reading {}", pluralized(capacity, "record")));
        bar.set_style(ProgressStyle::default_spinner());
        bar.enable_steady_tick(Duration::from_millis(100));
        let mut flaws = Vec::new();
        let mut report = |flaw: Flaw| {
            bar.set_message(format!(
                "reading {}, {}",
                pluralized(capacity, "record"),
                pluralized(flaws.len() + 1, "flaw")
            ));
            flaws.push(FlawText {
                record: flaw.record,
                key_id: flaw.key_id.map(|key_id| key_id.to_string()),
                kind: flaw.kind.as_str(),
                sentence: flaw.to_string(),
            });
        };
        let completed = gate.change(|gate| gate.verify(&mut report));
        bar.finish_and_clear();
        let capacity = gate.current().table().capacity();
        let report = Report {
            gate: self.gate.path().display().to_string(),
            capacity,
            completed: completed?,
            flaws,
            peppers: peppers::in_use(&gate.current(), now()),
        };
        self.format.print(&report, |out| {
            if report.completed {
                writeln!(out, "completed a change that was interrupted")?;
            }
            for flaw in &report.flaws {
                writeln!(out, "{}", flaw.sentence)?;
            }
            if report.flaws.is_empty() {
                writeln!(out, "{}: no flaws in {}", report.gate, pluralized(capacity, "record"))?;
            }
            writeln!(out, "Counts have no checksum: a count that was changed is not found.")?;
            peppers::warnings(&report.peppers).try_for_each(|warning| writeln!(out, "{warning}"))
        })?;
        if report.flaws.is_empty() {
            return Ok(Status::Success);
        }
        print_note(&format!(
            "keytally: {} has {}",
            report.gate,
            pluralized(report.flaws.len(), "flaw")
        ));
        Ok(Status::Flawed)
    }
}
