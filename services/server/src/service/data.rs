//! The data folder: the gate, and its pepper when none is given. Both are made at the first start.
//!
//! Folder, pepper, gate, first key: each is made whole or not at all, and looked for before it is made, so a start
//! that was interrupted is carried on by the next one. Several starts at once wait for each other.

use core::time::Duration;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;

use keytally::{AdminError, NewKey};
use keytally::{Gate, GateConfig, now, pepper};
use keytally::{Key, Name, Peppers, Plan};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use keytally_cli::Failure;
use keytally_cli::plans;
use keytally_cli::{PepperSource, read_peppers};

/// What a start found or made.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) gate: Gate,
    /// The peppers of the gate.
    pub(crate) peppers: Peppers,
    pub(crate) gate_path: PathBuf,
    /// The file that holds the pepper; `None` when the environment does.
    pub(crate) pepper_path: Option<PathBuf>,
    /// Whether the gate was made just now.
    pub(crate) made: bool,
    /// The first key, when the gate had none and it can be shown: the only copy.
    pub(crate) first_key: Option<Key>,
}

/// Opens the data folder, and makes what isn't there yet; the first key only if it can be shown.
pub(crate) fn open(
    folder: &Path,
    source: &PepperSource,
    new_plans: &[Plan],
    can_show: bool,
) -> Result<Data, Failure> {
    let given = source.given()?;
    let gate_path = folder.join("api.gate");
    let own_pepper = folder.join("pepper");
    let mut config = GateConfig::default();
    if !new_plans.is_empty() {
        config.plans = new_plans.to_vec();
    }
    if !gate_path.exists() {
        // What can't be is refused before anything is made: a gate of one key has the same plans.
        let trial = GateConfig { keys: 1, ..config.clone() };
        Gate::in_memory(pepper::parse(&pepper::generate()?)?, &trial)?;
    }
    let lock = lock_folder(folder)?;
    let exists = gate_path.try_exists().map_err(|error| cannot("look at", &gate_path, &error))?;
    let (peppers, pepper_path) = match given {
        Some(peppers) => (peppers, source.file().map(Path::to_owned)),
        None => (own_peppers(&own_pepper, &gate_path, exists)?, Some(own_pepper)),
    };
    let gate = if exists {
        let gate = Gate::open(&gate_path, peppers.clone())?;
        set_plans(&gate, new_plans)?;
        gate
    } else {
        Gate::create(&gate_path, peppers.clone(), &config)?
    };
    let first_key = if can_show { first_key(&gate)? } else { None };
    drop(lock);
    Ok(Data { gate, peppers, gate_path, pepper_path, made: !exists, first_key })
}

/// A start waits for another one for 10 seconds at most.
const LOOKS: u32 = 1000;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Makes the folder unless it's there, and keeps other starts out of it.
fn lock_folder(folder: &Path) -> Result<File, Failure> {
    if folder.exists() && !folder.is_dir() {
        return Err(Failure::because(format!("{} is no folder; name another with --data", folder.display())));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| cannot("make the folder", folder, &error))?;
    let handle = File::open(folder).map_err(|error| cannot("open the folder", folder, &error))?;
    for _ in 0..LOOKS {
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(handle),
            Err(Errno::WOULDBLOCK | Errno::INTR) => thread::sleep(LOOK_EVERY),
            Err(error) => return Err(cannot("lock the folder", folder, &error.into())),
        }
    }
    Err(Failure::because(format!(
        "{}: another start has been using this folder for 10s; end that one, or try again",
        folder.display()
    )))
}

/// The peppers in the folder, which are made if there is no gate yet either.
fn own_peppers(path: &Path, gate_path: &Path, gate_exists: bool) -> Result<Peppers, Failure> {
    if path.try_exists().map_err(|error| cannot("look at", path, &error))? {
        return read_peppers(path);
    }
    if gate_exists {
        return Err(Failure::because(format!(
            "{} has no pepper beside it; give the one that it was made with in KEYTALLY_PEPPER or with --pepper-file",
            gate_path.display()
        )));
    }
    write_new(path, &pepper::generate()?).map_err(|error| cannot("write", path, &error))?;
    read_peppers(path)
}

/// Writes a secret into a new file, whole or not at all.
fn write_new(path: &Path, secret: &str) -> io::Result<()> {
    // What a start that was killed has left. Nobody else is here: the folder is locked.
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = writeln!(file, "{secret}").and_then(|()| file.sync_all());
    // A link, unlike a new name, replaces nothing.
    let linked = written.and_then(|()| fs::hard_link(&unfinished, path));
    fs::remove_file(&unfinished)?;
    linked?;
    // That the name is on the disk before the gate is: a gate without its pepper is worth nothing.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Adds or changes plans: all of them or none.
fn set_plans(gate: &Gate, new_plans: &[Plan]) -> Result<(), Failure> {
    let table = gate.table();
    for plan in new_plans {
        plans::fits(plan, table.layout()).map_err(|error| {
            let there = plans::in_words(table.plans().map(|(_, plan)| plan));
            Failure::because(format!("--plan {}={}: {error} ({there})", plan.name, plan.policy))
        })?;
    }
    let names = |plan: &Plan| !table.plans().any(|(_, other)| other.name == plan.name);
    let total = table.plans().count() + new_plans.iter().filter(|plan| names(plan)).count();
    if total > table.plan_slots() {
        return Err(AdminError::PlansFull { max: table.plan_slots() }.into());
    }
    for plan in new_plans {
        gate.set_plan(plan)?;
    }
    Ok(())
}

/// Issues a key for account 1 if the gate has none.
fn first_key(gate: &Gate) -> Result<Option<Key>, Failure> {
    if gate.table().list(now()).next().is_some() {
        return Ok(None);
    }
    let plan = gate.table().plan(0).map(|plan| plan.name).unwrap_or_default();
    let env = Name::new("live").ok_or_else(|| Failure::because("live is no name"))?;
    let (key, _) = gate.issue(&NewKey::new(1, env).with_plan(&plan))?;
    Ok(Some(key))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::of(format_args!("cannot {what} {}", path.display()), error)
}
