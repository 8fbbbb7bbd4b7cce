use clap::{Args, value_parser};
use keytally::Name;
use keytally::Plan;
use keytally::{Gate, GateConfig};
use serde::Serialize;

use super::{Format, GateFile, Status, counted, parse_name, warn_of};
use crate::failure::Failure;
use crate::given;
use crate::pepper::PepperSource;
use crate::plans;

/// Make a new gate
///
/// The file takes 68 bytes a key and 4096 bytes for its header, and no more ever. It belongs to you alone (mode 0600) and holds no secret.
#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    gate: GateFile,
    /// The most keys that the gate will hold
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000, value_parser = value_parser!(u32).range(1..=MAX_KEYS))]
    keys: u32,
    /// A plan, NAME=POLICY; the first is the one for keys that name none. All plans of a gate share their windows
    #[arg(long = "plan", value_name = "PLAN", default_value = "default=100/minute, 1000/hour", value_parser = given::value(plans::parse))]
    plans: Vec<Plan>,
    /// What every key begins with
    #[arg(long, value_name = "NAME", default_value = "kt", value_parser = parse_name)]
    prefix: Name,
    #[command(flatten)]
    format: Format,
}

/// The most keys of a gate, as clap takes it.
const MAX_KEYS: i64 = keytally::MAX_KEYS as i64;

#[derive(Serialize)]
struct Created {
    gate: String,
    capacity: u32,
    bytes: Option<u64>,
    prefix: String,
    plans: Vec<PlanText>,
}

/// A plan as JSON shows it.
#[derive(Serialize)]
pub(crate) struct PlanText {
    pub(crate) name: String,
    pub(crate) policy: String,
}

impl PlanText {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self { name: plan.name.as_str().to_owned(), policy: plan.policy.to_string() }
    }
}

impl Create {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        plans::refuse_twins(&self.plans)?;
        let config =
            GateConfig::default().with_keys(self.keys).with_prefix(self.prefix).with_plans(self.plans);
        let path = self.gate.path();
        Gate::create(path, pepper.needed()?, &config)?;
        let created = Created {
            gate: path.display().to_string(),
            capacity: config.keys,
            bytes: std::fs::metadata(path).ok().map(|file| file.len()),
            prefix: config.prefix.to_string(),
            plans: config.plans.iter().map(PlanText::of).collect(),
        };
        self.format.print(&created, |out| {
            writeln!(out, "{}: made for {}", created.gate, counted(created.capacity, "key"))?;
            writeln!(out, "plans: {}", plans::in_words(config.plans.iter().cloned()))
        })?;
        warn_of(&config.plans);
        Ok(Status::Fine)
    }
}
