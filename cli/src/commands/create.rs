//! The command `create`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use keytally::Name;
use keytally::Plan;
use keytally::{Error, Gate, GateConfig, MAX_KEYS, Window};
use serde::Serialize;

use crate::arguments;
use crate::arguments::parse_name;
use crate::failure::Failure;
use crate::gate_file::GateFile;
use crate::output::{OutputFormat, pluralized, print_note, warn_of_never_binding_quotas};
use crate::pepper::PepperSource;
use crate::plans;
use crate::status::Status;

/// Create a gate file
///
/// The file takes 72 bytes per key and 4096 bytes for its header, and never grows. Only its owner
/// can read it (mode 0600), and it holds no secret. Plans with several sections, teams and scopes
/// take more: 8 to 64 bytes per key, 64 per team, and up to 64 KiB for the header.
#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    gate: GateFile,
    /// Capacity: the maximum number of keys
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 100_000, value_parser = arguments::number_parser(1..=MAX_KEYS))]
    keys: u32,
    /// A plan, as NAME=SECTIONS, which list the limits: those of the key, then, each after a
    /// semicolon, "team: LIMITS" for all keys of an account, and "group NAME: LIMITS" for requests
    /// that name the group. Repeat the option for more plans. The first plan is the default of new
    /// keys. All plans of a gate have the same sections and windows
    #[arg(long = "plan", value_name = "PLAN", default_value = "default=100/minute, 1000/hour", value_parser = arguments::value_parser(plans::parse))]
    plans: Vec<Plan>,
    /// Capacity: the maximum number of accounts [default: that of keys if the plans have a section
    /// "team", else 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = arguments::number_parser(0..=MAX_KEYS))]
    teams: Option<u32>,
    /// A scope that keys may have, such as read: 1 to 16 characters. Repeat the option for more, at
    /// most 64
    #[arg(long = "scope", value_name = "NAME")]
    scopes: Vec<String>,
    /// Window that X-RateLimit-* describe, such as month: one of the quotas of keys [default: the
    /// longest of at most a day]
    #[arg(long, value_name = "WINDOW", value_parser = arguments::value_parser(plans::parse_window))]
    describe: Option<Window>,
    /// Prefix of every key: 1 to 8 characters of a-z and 0-9
    #[arg(long, value_name = "NAME", default_value = "kt", value_parser = parse_name)]
    prefix: Name,
    /// If the file of --pepper-file does not exist, create it with a new pepper
    #[arg(long)]
    new_pepper: bool,
    #[command(flatten)]
    format: OutputFormat,
}

#[derive(Serialize)]
struct Created {
    gate: String,
    capacity: u32,
    bytes: Option<u64>,
    prefix: String,
    plans: Vec<PlanText>,
    teams: u32,
    scopes: Vec<String>,
    described: Option<String>,
}

/// A plan in JSON.
#[derive(Serialize)]
pub(crate) struct PlanText {
    pub(crate) name: String,
    pub(crate) sections: String,
}

impl PlanText {
    /// Returns the texts of a plan.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { name: plan.name.as_str().to_owned(), sections: plan.sections.to_string() }
    }
}

impl Create {
    pub(crate) fn run(self, pepper: &PepperSource) -> Result<Status, Failure> {
        plans::check_distinct(&self.plans)?;
        let config = GateConfig::default()
            .with_keys(self.keys)
            .with_prefix(self.prefix)
            .with_plans(self.plans)
            .with_scopes(self.scopes);
        let config = match self.teams {
            Some(teams) => config.with_teams(teams),
            None => config,
        };
        let config = match self.describe {
            Some(window) => config.with_described(window),
            None => config,
        };
        let path = self.gate.path();
        refuse_one_path(path, pepper)?;
        let has_new_pepper = self.new_pepper && create_pepper(pepper, path, &config)?;
        let made = pepper.require().and_then(|peppers| Ok(Gate::create(path, peppers, &config)?));
        let gate = made.inspect_err(|_| {
            if has_new_pepper {
                remove_pepper(pepper, path);
            }
        })?;
        let created = Created {
            gate: path.display().to_string(),
            capacity: config.keys,
            bytes: fs::metadata(path).ok().map(|file| file.len()),
            prefix: config.prefix.to_string(),
            plans: config.plans.iter().map(PlanText::new).collect(),
            teams: gate.table().team_capacity(),
            scopes: config.scopes,
            described: gate.table().described().map(|window| window.to_string()),
        };
        self.format.print(&created, |out| {
            write!(out, "{}: created for {}", created.gate, pluralized(created.capacity, "key"))?;
            if created.teams > 0 {
                write!(out, " and {}", pluralized(created.teams, "team"))?;
            }
            writeln!(out)?;
            if !created.scopes.is_empty() {
                writeln!(out, "scopes: {}", created.scopes.join(", "))?;
            }
            if let Some(window) = &created.described {
                writeln!(out, "X-RateLimit-* describe: {window}")?;
            }
            writeln!(out, "plans: {}", plans::describe(config.plans.iter().cloned()))
        })?;
        if let (true, Some(file)) = (has_new_pepper, pepper.file()) {
            print_note(&format!(
                "{}: created with a new pepper; keep a copy, since no key can be checked without it",
                file.display()
            ));
        }
        warn_of_never_binding_quotas(&config.plans);
        Ok(Status::Success)
    }
}

/// Creates the file of the pepper if it is missing and the gate can be created. Returns whether it
/// was created.
fn create_pepper(pepper: &PepperSource, gate: &Path, config: &GateConfig) -> Result<bool, Failure> {
    if gate.symlink_metadata().is_ok() {
        return Err(Error::Exists { path: gate.into() }.into());
    }
    // Checks the options with a gate of one key, before anything is created.
    let mut trial = config.clone().with_keys(1);
    trial.teams = trial.teams.map(|teams| teams.min(1));
    Gate::in_memory(keytally::pepper::parse(&keytally::pepper::generate()?)?, &trial)?;
    pepper.create_missing()
}

/// Removes the file of the pepper that this command has created, since the gate could not be made.
/// So the next attempt is like the first.
fn remove_pepper(pepper: &PepperSource, gate: &Path) {
    // A gate that is there nevertheless may be of another process that used the new pepper.
    let Some(file) = pepper.file().filter(|_| gate.symlink_metadata().is_err()) else { return };
    if let Err(error) = fs::remove_file(file) {
        let file = file.display();
        print_note(&format!("{file}: created with a new pepper, and cannot be removed: {error}"));
    }
}

/// Refuses a gate and a pepper at one path.
fn refuse_one_path(gate: &Path, pepper: &PepperSource) -> Result<(), Failure> {
    let Some(file) = pepper.file().filter(|file| *file != Path::new("-")) else { return Ok(()) };
    if gate != file && real_path(gate).is_none_or(|gate| Some(gate) != real_path(file)) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "GATE and --pepper-file both name {}; nothing was changed: name two files",
        gate.display()
    )))
}

/// Returns the path of a file that may be missing, without symbolic links in its folders. `None` if
/// its folder is missing.
fn real_path(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = fs::canonicalize(folder.unwrap_or_else(|| Path::new("."))).ok()?;
    Some(folder.join(path.file_name()?))
}
