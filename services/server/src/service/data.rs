//! The data folder: the gate and, unless a pepper is given, its pepper. The first start creates
//! both.
//!
//! The folder, the pepper, the gate and the first key are each created atomically, and only if they
//! do not exist. So a start continues where an interrupted one ended. Concurrent starts run one
//! after the other.

use core::time::Duration;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use keytally::{AdminError, Error, NewKey};
use keytally::{Gate, GateConfig, now, parse_key, pepper};
use keytally::{Key, Name, Peppers, Plan, Window};

use keytally_cli::internal::Failure;
use keytally_cli::internal::plans;
use keytally_cli::internal::{PepperSource, pluralized, read_pepper_file, revoke_unprinted};

use crate::shell::SHELL;
use crate::system::{create_folder, has_owner_of, try_lock_folder};

/// The result of opening the data folder.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) gate: Gate,
    /// The peppers of the gate.
    pub(crate) peppers: Peppers,
    pub(crate) gate_path: PathBuf,
    /// The file with the pepper; `None` if the pepper is in the environment.
    pub(crate) pepper_path: Option<PathBuf>,
    /// Whether this start created the gate.
    pub(crate) created: bool,
    /// The first key, if this start issued it. This is the only copy.
    pub(crate) first_key: Option<Key>,
}

impl Data {
    /// Revokes the first key, which was not printed. Returns the failure of the start.
    pub(crate) fn revoke_first_key(&self, failure: Failure) -> Failure {
        let parts = self.first_key.as_ref().map(|key| parse_key(key.expose().as_bytes()));
        match parts {
            Some(Ok(parts)) => revoke_unprinted(&self.gate, parts.key_id, &failure),
            _ => failure,
        }
    }
}

/// What the options of a start require of the gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateOptions<'a> {
    /// Whether a missing gate is an error.
    pub(crate) must_exist: bool,
    /// The fleet file that the gate joins. It is that of a gate, so a new gate could not join.
    pub(crate) fleet: Option<&'a Path>,
    /// Plans to add to the gate or to change in it. If there are none, a new gate has the default
    /// plan.
    pub(crate) plans: &'a [Plan],
    /// The capacity in teams. `None` stands for the default of a new gate.
    pub(crate) teams: Option<u32>,
    /// The names of scopes.
    pub(crate) scopes: &'a [String],
    /// The window that `X-RateLimit-*` describe. `None` stands for the default of a new gate.
    pub(crate) described: Option<Window>,
}

/// Opens the data folder, and creates the folder and its files if they do not exist. The first key
/// is issued only if `can_print_key`.
pub(crate) fn open(
    folder: &Path,
    source: &PepperSource,
    options: GateOptions<'_>,
    can_print_key: bool,
) -> Result<Data, Failure> {
    let given_peppers = source.load()?;
    let gate_path = folder.join("api.gate");
    let pepper_file = folder.join("pepper");
    let mut config = GateConfig::default().with_scopes(options.scopes.to_vec());
    (config.teams, config.described) = (options.teams, options.described);
    if !options.plans.is_empty() {
        config.plans = options.plans.to_vec();
    }
    let must_exist_by = match options.fleet {
        _ if options.must_exist => Some("--must-exist"),
        Some(_) => Some("--fleet"),
        None => None,
    };
    if let Some(option) = must_exist_by
        && !gate_path.exists()
    {
        return Err(Failure::new(format!(
            "{option}: there is no gate {0}; name the folder of the gate by --data, restore \
             the gate, or create one by `keytally create {0}`",
            gate_path.display()
        )));
    }
    if !gate_path.exists() {
        // Checks the options with a gate of one key, before anything is created.
        let mut trial = config.clone().with_keys(1);
        trial.teams = trial.teams.map(|teams| teams.min(1));
        Gate::in_memory(pepper::parse(&pepper::generate()?)?, &trial)?;
    }
    let lock = lock_folder(folder)?;
    let exists = gate_path.try_exists().map_err(|error| cannot("access", &gate_path, &error))?;
    let (peppers, pepper_path) = match given_peppers {
        Some(peppers) => (peppers, source.file().map(Path::to_owned)),
        None => (own_peppers(&pepper_file, &gate_path, exists)?, Some(pepper_file)),
    };
    let gate = if exists {
        let gate = Gate::open(&gate_path, peppers.clone())
            .map_err(|error| of_another_user(error, folder, &gate_path))?;
        expect_created_with(&gate, options)?;
        // Before a change, so that a wrong fleet file changes nothing.
        if let Some(path) = options.fleet {
            gate.join(path)?;
        }
        set_plans(&gate, options.plans)?;
        gate
    } else {
        Gate::create(&gate_path, peppers.clone(), &config)?
    };
    let first_key = if can_print_key { first_key(&gate)? } else { None };
    drop(lock);
    Ok(Data { gate, peppers, gate_path, pepper_path, created: !exists, first_key })
}

/// The number of attempts to lock the folder. With [`LOCK_RETRY_DELAY`], a start waits at most 10
/// seconds for another one.
const LOCK_ATTEMPTS: u32 = 1000;

/// The delay between two attempts to lock the folder.
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(10);

/// Creates the folder unless it exists, and locks it against other starts.
fn lock_folder(folder: &Path) -> Result<File, Failure> {
    if folder.exists() && !folder.is_dir() {
        return Err(Failure::new(format!(
            "{} is not a folder; choose another path with --data",
            folder.display()
        )));
    }
    create_folder(folder).map_err(|error| cannot("create the folder", folder, &error))?;
    for _ in 0..LOCK_ATTEMPTS {
        let lock = try_lock_folder(folder);
        match lock.map_err(|error| cannot("lock the folder", folder, &error))? {
            Some(lock) => return Ok(lock),
            None => thread::sleep(LOCK_RETRY_DELAY),
        }
    }
    Err(Failure::new(format!(
        "{}: another start has locked this folder for 10s; end that process, or try again",
        folder.display()
    )))
}

/// Reads the pepper of the folder, or creates it if there is no gate either.
fn own_peppers(path: &Path, gate_path: &Path, gate_exists: bool) -> Result<Peppers, Failure> {
    if path.try_exists().map_err(|error| cannot("access", path, &error))? {
        return read_pepper_file(path);
    }
    if gate_exists {
        return Err(Failure::new(format!(
            "{} has no pepper file next to it; give its pepper in KEYTALLY_PEPPER or with --pepper-file",
            gate_path.display()
        )));
    }
    // The pepper must be on disk before the gate is created: without it, the gate is useless.
    pepper::create_file(path)?;
    read_pepper_file(path)
}

/// Refuses scopes, a number of teams and a window to describe that the gate was not created with:
/// they cannot change.
fn expect_created_with(gate: &Gate, options: GateOptions<'_>) -> Result<(), Failure> {
    let table = gate.table();
    if let Some(scope) = options.scopes.iter().find(|scope| table.scope_bit(scope).is_none()) {
        let scopes: Vec<_> = table.scopes().map(|scope| scope.to_string()).collect();
        let scopes = if scopes.is_empty() { "none".to_owned() } else { scopes.join(", ") };
        return Err(Failure::new(format!(
            "--scope {scope}: the gate was created with other scopes, which cannot be changed: {scopes}"
        )));
    }
    // A month has the same name, whichever day it begins on.
    let named = |window: Window| window.to_string();
    if let Some(window) = options.described.map(named)
        && table.described().map(named).as_ref() != Some(&window)
    {
        return Err(Failure::new(format!(
            "--describe {window}: the gate was created without it, which cannot be changed"
        )));
    }
    let capacity = table.team_capacity();
    match options.teams.filter(|&teams| teams != capacity) {
        Some(teams) => Err(Failure::new(format!(
            "--teams {teams}: the gate was created for {}, which cannot be changed",
            pluralized(capacity, "team")
        ))),
        None => Ok(()),
    }
}

/// Adds plans, or changes those of the same name. If one does not fit the gate, changes none.
fn set_plans(gate: &Gate, new_plans: &[Plan]) -> Result<(), Failure> {
    let table = gate.table();
    for plan in new_plans {
        table.check_plan(plan).map_err(|error| {
            let existing = plans::describe(table.plans().map(|(_, plan)| plan));
            Failure::new(format!(
                "--plan {}={}: {error} (the gate has {existing})",
                plan.name, plan.sections
            ))
        })?;
    }
    let is_new = |plan: &Plan| !table.plans().any(|(_, other)| other.name == plan.name);
    let total = table.plans().count() + new_plans.iter().filter(|plan| is_new(plan)).count();
    if total > table.plan_slots() {
        return Err(AdminError::PlansFull { max: table.plan_slots() }.into());
    }
    for plan in new_plans {
        gate.set_plan(plan)?;
    }
    Ok(())
}

/// Issues a key for account 1 with all scopes if the gate has none.
fn first_key(gate: &Gate) -> Result<Option<Key>, Failure> {
    if gate.table().list(now()).next().is_some() {
        return Ok(None);
    }
    let env =
        Name::new("live").ok_or_else(|| Failure::new("the environment name live is not valid"))?;
    let scopes: Vec<_> = gate.table().scopes().collect();
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let (key, _) = gate.issue(&NewKey::new(1, env).with_scopes(&scopes))?;
    Ok(Some(key))
}

/// Returns the failure to open the gate. If it has another owner than the folder, as after a
/// `keytally create` by root, the sentence has the command that fixes it.
fn of_another_user(error: Error, folder: &Path, gate: &Path) -> Failure {
    let is_denied = matches!(
        &error,
        Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied
    );
    if !is_denied || has_owner_of(gate, folder) {
        return error.into();
    }
    Failure::new(format!(
        "{error}; its owner is not that of the folder; fix it with: chown --reference={} {}",
        SHELL.word(folder.display()),
        SHELL.word(gate.display())
    ))
}

/// Returns the failure of an action on a path.
fn cannot(action: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::with_context(format_args!("cannot {action} {}", path.display()), error)
}
