//! Migrates a gate in a file to a larger one, or to one with other sections or windows, while other
//! processes check keys. The core's module `gate/migration` describes how the tallies move.
//!
//! The files are in one folder, and the administrators' lock is that of the old file:
//!
//! 1. The new file is written without a name, with all keys, and flushed.
//! 2. The old file's header announces it, and is flushed. Then the new file gets its name. It does
//!    not open as a gate yet.
//! 3. Every tally is sealed and moved. From its seal on, checks of a key wait.
//! 4. The new file becomes a gate, and is renamed over the old one. Processes that have the old one
//!    open find every tally sealed, and open the path again ([`Followed`](crate::Followed)).
//! 5. The old file's header says that it was replaced. If it has other names, it changes no more.
//!
//! A process that is killed before step 2 leaves nothing. After that, the next administrator of the
//! old file finds the name in its header, and completes steps 3 and 4. If no such file exists, it
//! unseals the tallies and withdraws the name. If the new file cannot be renamed, the same is done
//! at once, and the new file is removed.

use core::cell::RefCell;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use keytally_core::{NotCarried, Plan, Successor, Window};

use crate::clock::SystemClock;
use crate::entropy::random;
use crate::error::Error;
use crate::file::{TableFile, open_table};
use crate::gate::{Gate, GateConfig};
use crate::lock::{Lock, Wait};
use crate::map::Mapping;
use crate::publish::{create_in_memory, create_successor, parent_folder};
use crate::stop::{FileStop, stop};
use crate::system;

type Table = keytally_core::Gate<Mapping>;

/// What a migrated gate has instead of what the old one has.
///
/// ```
/// use keytally::{MigrationConfig, Plan};
/// let plan = Plan::new("default", "100/minute, 30000/month".parse()?).unwrap();
/// let migration = MigrationConfig::default().with_keys(200_000).with_plans(vec![plan]);
/// assert_eq!(migration.keys, Some(200_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MigrationConfig {
    /// The capacity in keys, which is rounded up to a whole multiple of that of the old gate.
    /// `None` keeps it.
    pub keys: Option<u32>,
    /// All plans, which may have other sections and windows than those of the old gate. `None`
    /// keeps the plans.
    pub plans: Option<Vec<Plan>>,
    /// The capacity in teams. `None` stands for that of the old gate, as many times as its keys; if
    /// it has none and the plans have a section `team`, for that of keys.
    pub teams: Option<u32>,
    /// The window that the fields `X-RateLimit-*` describe. `None` keeps that of the old gate if
    /// the new one has it.
    pub described: Option<Window>,
}

impl MigrationConfig {
    /// Sets [`keys`](Self::keys), the capacity.
    #[must_use]
    pub fn with_keys(self, keys: u32) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// Replaces all [`plans`](Self::plans).
    #[must_use]
    pub fn with_plans(self, plans: Vec<Plan>) -> Self {
        Self { plans: Some(plans), ..self }
    }

    /// Sets [`teams`](Self::teams), the capacity in teams.
    #[must_use]
    pub fn with_teams(self, teams: u32) -> Self {
        Self { teams: Some(teams), ..self }
    }

    /// Sets [`described`](Self::described), the window that `X-RateLimit-*` describe.
    #[must_use]
    pub fn with_described(self, window: Window) -> Self {
        Self { described: Some(window), ..self }
    }

    /// Returns the settings of the new gate.
    fn config(&self, old: &Table) -> GateConfig {
        let capacity = old.capacity();
        let factor = self.keys.unwrap_or(capacity).div_ceil(capacity).max(1);
        let plans =
            self.plans.clone().unwrap_or_else(|| old.plans().map(|(_, plan)| plan).collect());
        let teams = self.teams.or_else(|| {
            (old.team_capacity() > 0).then(|| old.team_capacity().saturating_mul(factor))
        });
        let has_teams = plans.iter().any(|plan| plan.sections.named("team").is_some());
        let keys = capacity.saturating_mul(factor);
        let teams = teams.or_else(|| has_teams.then_some(keys));
        let has = |window: &Window| {
            let mut sections = plans.iter().flat_map(|plan| plan.sections.named("key"));
            sections.any(|key| key.quotas().iter().any(|quota| quota.window == *window))
        };
        let described = self.described.or_else(|| old.described().filter(has));
        GateConfig {
            keys,
            prefix: old.prefix(),
            plans,
            teams,
            scopes: old.scopes().map(|scope| scope.as_str().to_owned()).collect(),
            described,
        }
    }
}

/// A migration that was made, or that can be made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Migrated {
    /// The settings of the new gate.
    pub config: GateConfig,
    /// What the new gate does not have.
    pub not_carried: Vec<NotCarried>,
}

impl Gate {
    /// Returns what [`migrate`](Self::migrate) would do, and changes nothing.
    ///
    /// # Errors
    /// [`Error::Create`] if the settings are not possible. [`Error::Io`] if there is not enough
    /// memory for the new gate. Those of [`administer`](Self::administer).
    pub fn plan_migration(&self, migration: &MigrationConfig) -> Result<Migrated, Error> {
        let config = migration.config(self.table());
        let lines = config.line_count(self.path())?;
        let (_, not_carried) = self.recover(self.wait(), |administrator| {
            let mut not_carried = Vec::new();
            create_in_memory(lines, |memory| {
                let new = config.to_core(0, |core| {
                    keytally_core::Gate::init_successor(memory, core, self.table())
                })?;
                administrator.migration(&new).copy(|it| add(&mut not_carried, it));
                Ok(new)
            })?;
            Ok(not_carried)
        })?;
        Ok(Migrated { config, not_carried: not_carried? })
    }

    /// Moves all keys and counts to a new file, which then replaces this one at its path. Other
    /// processes check keys meanwhile.
    ///
    /// `new_path` is a path in the folder of the gate, at which the new file is until it replaces
    /// the gate. Checks by a [`Followed`](crate::Followed) gate wait at most 50 ms for the new
    /// file, and are then [`Unavailable`](keytally_core::Outcome::Unavailable). This `Gate` stays
    /// with the old file: open the path again.
    ///
    /// If the process is killed, the next administrator completes or undoes the migration.
    ///
    /// ```
    /// use keytally::{Gate, GateConfig, MigrationConfig, Name, NewKey, pepper};
    /// # let folder = tempfile::tempdir()?;
    /// # let (path, new_path) = (folder.path().join("api.gate"), folder.path().join("new.gate"));
    /// let secret = pepper::generate()?;
    /// let gate = Gate::create(&path, pepper::parse(&secret)?, &GateConfig::default())?;
    /// let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").unwrap()))?;
    /// gate.check(Some(key.expose().as_bytes()), 7);
    ///
    /// gate.migrate(&new_path, &MigrationConfig::default().with_keys(150_000))?;
    /// let gate = Gate::open(&path, pepper::parse(&secret)?)?;
    /// assert_eq!(gate.table().capacity(), 200_000, "a whole multiple of 100,000");
    /// assert_eq!(gate.check(Some(key.expose().as_bytes()), 1).remaining(), Some(992));
    /// assert!(!new_path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// - [`Error::NotCarried`] if the new gate cannot have all keys and their state.
    /// - [`Error::Successor`] if the new path is not possible, or on Windows, which cannot replace
    ///   a file that is in use.
    /// - [`Error::Exists`] if the new path exists.
    /// - [`Error::Io`] if the new file cannot replace the gate, for example because the gate's file
    ///   is a mount point. The migration was then undone.
    /// - [`Error::Create`] and [`Error::Entropy`], as [`create`](Self::create).
    /// - Those of [`administer`](Self::administer).
    pub fn migrate(
        &self,
        new_path: impl AsRef<Path>,
        migration: &MigrationConfig,
    ) -> Result<Migrated, Error> {
        let new_path = new_path.as_ref();
        let paths = self.paths(new_path)?;
        let lock = Lock::acquire(self.file(), self.table().memory().as_ref(), self.wait())?;
        self.end_migration(&lock)?;
        let config = migration.config(self.table());
        let lines = config.line_count(Some(new_path))?;
        let id = u64::from_le_bytes(*random()?);
        let not_carried = RefCell::new(Vec::new());
        let administrator = self.table().take_over();
        let make = |memory| {
            let new = config.to_core(id, |core| {
                keytally_core::Gate::init_successor(memory, core, self.table())
            })?;
            administrator.migration(&new).copy(|it| add(&mut not_carried.borrow_mut(), it));
            Ok(new)
        };
        let created = create_successor(&paths.new, lines, self.file(), make, |new| {
            if let Some(problem) = not_carried.borrow().iter().find(|it| it.prevents()) {
                let path = self.path().map(PathBuf::from);
                return Err(Error::NotCarried { path, source: Box::new(problem.clone()) });
            }
            administrator.migration(new).announce(paths.name.as_bytes());
            self.file().flush(self.table().memory())?;
            stop(FileStop::SuccessorAnnounced);
            Ok(())
        });
        drop(administrator);
        match created {
            Ok((file, new)) => self.replace_by(&file, &new, &paths)?,
            Err(error) => {
                // The announcement, if there is one, names no file of this migration.
                self.end_migration(&lock)?;
                return Err(error);
            }
        }
        drop(lock);
        if self.usage().is_some() {
            let (file, table) = open_table(&paths.old, |memory| self.table().attach_other(memory))?;
            Self::new(table, file).take_over_usage(self)?;
        }
        Ok(Migrated { config, not_carried: not_carried.into_inner() })
    }

    /// Completes or undoes a migration whose process was killed. The caller holds the lock.
    ///
    /// # Errors
    /// [`Error::Replaced`] if the migration is complete: the file at the path is the new one. Also
    /// if this is the old file under another name.
    pub(crate) fn end_migration(&self, _: &Lock<'_>) -> Result<(), Error> {
        let Some(successor) = self.table().successor() else { return Ok(()) };
        let replaced = || Error::Replaced { path: self.file().shown_path().into() };
        if successor.is_in_force {
            return Err(replaced());
        }
        let lost = || {
            // A process may have been killed after it renamed the new file.
            if !self.is_at_path().unwrap_or(false) {
                return Err(replaced());
            }
            self.undo_migration()
        };
        let Some(paths) = self.paths_of(&successor)? else { return lost() };
        let attach = |memory| keytally_core::Gate::attach_successor(memory, self.table());
        match open_table(&paths.new, attach) {
            Ok((file, new)) if successor.is(&new) => {
                self.replace_by(&file, &new, &paths)?;
                Err(replaced())
            }
            Err(error @ (Error::Mode { .. } | Error::Owner { .. } | Error::Account { .. })) => {
                Err(error)
            }
            Err(Error::Io { doing, path, source }) if source.kind() != ErrorKind::NotFound => {
                Err(Error::Io { doing, path, source })
            }
            _ => lost(),
        }
    }

    /// Completes a migration whose process was killed, if there is one. The gate at the path is
    /// then another one.
    ///
    /// # Errors
    /// Those of [`administer`](Self::administer), but [`Error::Replaced`].
    pub fn complete_migration(&self) -> Result<(), Error> {
        self.complete_migration_within(self.wait())
    }

    /// Completes a migration as [`complete_migration`](Self::complete_migration) does, with the
    /// given wait.
    pub(crate) fn complete_migration_within(&self, wait: Wait<'_>) -> Result<(), Error> {
        match self.recover(wait, |_| ()) {
            Ok(_) | Err(Error::Replaced { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Moves the tallies to a successor that has its name, and renames its file over this one.
    fn replace_by(&self, file: &TableFile, new: &Table, paths: &Paths) -> Result<(), Error> {
        let clock = SystemClock::read();
        let administrator = self.table().take_over();
        let migration = administrator.migration(new);
        if self.table().successor().is_some_and(|successor| !successor.is_sealed) {
            migration.seal(clock);
        }
        stop(FileStop::TalliesSealed);
        migration.publish(clock);
        let io_error = |doing| move |error| Error::io(doing, &paths.new, error);
        // Checks wait, so only the header is flushed before the file is in force.
        new.memory().flush_header().map_err(io_error("flush"))?;
        stop(FileStop::SuccessorPublished);
        if let Err(error) = fs::rename(&paths.new, &paths.old) {
            drop(administrator);
            return Err(self.undo_after(error, paths));
        }
        stop(FileStop::SuccessorInForce);
        migration.finish();
        drop(administrator);
        file.flush(new.memory())?;
        self.table().memory().flush_header().map_err(io_error("flush"))?;
        system::sync_folder(parent_folder(&paths.old)).map_err(io_error("flush the folder of"))
    }

    /// Undoes a migration whose new file cannot be renamed, so that checks do not wait for it.
    /// Returns the error.
    fn undo_after(&self, error: io::Error, paths: &Paths) -> Error {
        // A process that is killed after this leaves a migration whose new file was lost.
        let removed = fs::remove_file(&paths.new);
        if let Err(error) = self.undo_migration() {
            return error;
        }
        let rest = match removed {
            Ok(()) => "",
            Err(_) => "; remove this file",
        };
        let sentence =
            format!("{error}; the migration was undone, and the gate stays as it was{rest}");
        Error::io("rename", &paths.new, io::Error::new(error.kind(), sentence))
    }

    /// Unseals the tallies, and withdraws the name of the new file.
    fn undo_migration(&self) -> Result<(), Error> {
        self.table().take_over().undo_migration(SystemClock::read());
        self.file().flush(self.table().memory())
    }

    /// Returns the paths of a migration to a new path.
    fn paths(&self, new_path: &Path) -> Result<Paths, Error> {
        let refused = |why| Error::Successor { path: new_path.into(), why };
        if !system::NAMES_OPEN_FILES {
            return Err(refused("this system cannot replace a file that is in use"));
        }
        let old = self.real_path()?.ok_or_else(|| refused("the gate is in memory"))?;
        let name = new_path
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| (1..=keytally_core::MAX_SUCCESSOR_NAME_LEN).contains(&name.len()));
        let name = name.ok_or_else(|| refused("its name must have 1 to 56 bytes of UTF-8"))?;
        let folder = fs::canonicalize(parent_folder(new_path))
            .map_err(|error| Error::io("examine the folder of", new_path, error))?;
        if folder != parent_folder(&old) {
            return Err(refused("it must be in the folder of the gate"));
        }
        if new_path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: new_path.into() });
        }
        Ok(Paths { new: folder.join(name), name: name.into(), old })
    }

    /// Returns the paths of a migration that the header names; `None` if it names no file.
    fn paths_of(&self, successor: &Successor) -> Result<Option<Paths>, Error> {
        let Some(old) = self.real_path()? else { return Ok(None) };
        let name = str::from_utf8(successor.name()).ok();
        let name = name.filter(|name| Path::new(name).file_name() == Some(name.as_ref()));
        Ok(name.map(|name| Paths {
            new: parent_folder(&old).join(name),
            name: name.into(),
            old: old.clone(),
        }))
    }

    /// Returns the path of the gate's file without symbolic links; `None` in memory.
    pub(crate) fn real_path(&self) -> Result<Option<PathBuf>, Error> {
        let Some(path) = self.file().absolute() else { return Ok(None) };
        let real = fs::canonicalize(path).map_err(|error| Error::io("examine", path, error))?;
        Ok(Some(real))
    }
}

/// The paths of the two files of a migration, and the name of the new one.
struct Paths {
    old: PathBuf,
    new: PathBuf,
    name: String,
}

/// Adds an element that is not there yet.
fn add(list: &mut Vec<NotCarried>, element: NotCarried) {
    if !list.contains(&element) {
        list.push(element);
    }
}
