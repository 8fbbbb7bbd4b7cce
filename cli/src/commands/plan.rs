use clap::Args;
use serde::Serialize;

use super::create::PlanText;
use super::{ChangedGate, Format, Status, warn_of};
use crate::failure::Failure;
use crate::given;
use crate::pepper::PepperSource;
use crate::plans;

/// Add a plan, or give one other limits, counts kept
///
/// A plan of a gate has the windows and the algorithm of the gate's other plans.
#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    gate: ChangedGate,
    /// The plan, NAME=POLICY
    #[arg(value_name = "PLAN", value_parser = given::value(plans::parse))]
    plan: keytally::Plan,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Set {
    #[serde(flatten)]
    plan: PlanText,
    /// The policy before; none when the plan is new.
    before: Option<String>,
}

impl Plan {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        let plan = self.plan;
        let gate = self.gate.open(pepper)?;
        let before = gate.table().plans().find(|(_, other)| other.name == plan.name);
        gate.set_plan(&plan)?;
        let set = Set { plan: PlanText::of(&plan), before: before.map(|(_, plan)| plan.policy.to_string()) };
        self.format.print(&set, |out| {
            let PlanText { name, policy } = &set.plan;
            match &set.before {
                Some(before) => writeln!(out, "plan {name} is {policy} (was {before})"),
                None => writeln!(out, "plan {name} is {policy} (new)"),
            }
        })?;
        warn_of([&plan]);
        Ok(Status::Fine)
    }
}
