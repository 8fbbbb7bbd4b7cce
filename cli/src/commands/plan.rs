//! The command `plan`.

use clap::Args;
use keytally::Gate;
use serde::Serialize;

use super::create::PlanText;
use crate::arguments;
use crate::failure::Failure;
use crate::gate_file::GateFileToChange;
use crate::output::{OutputFormat, warn_of_never_binding_quotas};
use crate::pepper::PepperSource;
use crate::plans;
use crate::status::Status;

/// Add a plan, or change the limits of one and keep all counts
///
/// All plans of a gate have the same sections, windows and algorithms.
#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    gate: GateFileToChange,
    /// The plan, as NAME=SECTIONS, such as "pro=1000/minute, 20000/hour"
    #[arg(value_name = "PLAN", value_parser = arguments::value_parser(plans::parse))]
    plan: keytally::Plan,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct SetPlan {
    #[serde(flatten)]
    plan: PlanText,
    /// The sections before the change; `None` if the plan is new.
    before: Option<String>,
}

impl Plan {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let plan = self.plan;
        let gate = self.gate.open(pepper)?;
        let set = |gate: &Gate| {
            let before = gate.table().plans().find(|(_, other)| other.name == plan.name);
            gate.set_plan(&plan).map(|()| before)
        };
        let before =
            gate.change(set).map_err(|error| plans::not_a_plan(&gate.current(), &plan, error))?;
        let set = SetPlan {
            plan: PlanText::new(&plan),
            before: before.map(|(_, plan)| plan.sections.to_string()),
        };
        self.format.print(&set, |out| {
            let PlanText { name, sections } = &set.plan;
            match &set.before {
                Some(before) => writeln!(out, "plan {name} is {sections} (was {before})"),
                None => writeln!(out, "plan {name} is {sections} (new)"),
            }
        })?;
        warn_of_never_binding_quotas([&plan]);
        Ok(Status::Success)
    }
}
