//! The counts of uses of a gate's keys, in a file next to that of the gate: `api.gate.usage`.
//!
//! The gate's header says whether uses are counted, and by a number which file has the counts. Each
//! process maps that file when it first counts a use. If it cannot, it counts nothing: a request is
//! never refused or delayed for that.

use core::num::NonZeroU16;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use keytally_core::{Administrator, AttachError, KeyId, KeyUsage, Usage};

use crate::entropy::random;
use crate::error::Error;
use crate::file::{TableFile, open_table};
use crate::gate::Gate;
use crate::lock::{Lock, Wait};
use crate::map::Mapping;
use crate::publish::create_successor;
use crate::usage_files::Counts;

impl Gate {
    /// Returns the counts of uses; `None` if none are counted. Every process that has the gate open
    /// fills them.
    #[inline]
    pub fn usage(&self) -> Option<Usage<'_>> {
        match self.table().usage_generation() {
            0 => None,
            generation => self.usage_files().counts(generation, || self.open_usage(generation)),
        }
    }

    /// Returns how a key was used; `None` if uses are not counted or the gate does not have the
    /// key.
    ///
    /// ```
    /// # use keytally::{Gate, GateConfig, Name, NewKey, pepper};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("api.gate");
    /// # let peppers = pepper::parse(&pepper::generate()?)?;
    /// let gate = Gate::create(&path, peppers, &GateConfig::default())?;
    /// gate.set_usage(true)?;
    /// let (key, key_id) = gate.issue(&NewKey::new(42, Name::new("live").unwrap()))?;
    /// gate.check(Some(key.expose().as_bytes()), 5);
    /// let usage = gate.key_usage(key_id).expect("uses are counted");
    /// assert_eq!((usage.admitted(), usage.units()), (1, 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn key_usage(&self, key_id: KeyId) -> Option<KeyUsage> {
        self.table().usage_of(self.usage()?, key_id)
    }

    /// Begins to count the uses of all keys, in every process that has the gate open, or ends it.
    /// The counts are in a file next to that of the gate, of 64 bytes for each key that the gate
    /// has room for. It has the owner and mode of the gate's file, and remains when counting ends.
    ///
    /// If the file was removed, this creates another one, and every open gate counts in that one
    /// from its next request on. It keeps the removed one mapped until it is closed.
    ///
    /// # Errors
    /// [`Error::Io`] for a gate in memory. Those of [`create`](Self::create), for the
    /// file of the counts, and of [`administer`](Self::administer).
    pub fn set_usage(&self, is_counted: bool) -> Result<(), Error> {
        self.set_usage_within(self.wait(), is_counted)
    }

    /// Begins to count the uses of all keys, or ends it, as [`set_usage`](Self::set_usage) does,
    /// with the given wait.
    ///
    /// # Errors
    /// Those of [`set_usage`](Self::set_usage), and [`Error::Interrupted`].
    pub fn set_usage_within(&self, wait: Wait<'_>, is_counted: bool) -> Result<(), Error> {
        let path = self.usage_path()?;
        self.change_usage(wait, |administrator| {
            if is_counted {
                administrator.begin_usage(&self.own_counts(&path)?);
            } else {
                administrator.end_usage();
            }
            Ok(())
        })
    }

    /// Counts the uses of the keys of a gate that was migrated in the gate that replaces it, from
    /// the counts so far on. Counting begins when they are there, so no count ever decreases.
    pub(crate) fn take_over_usage(&self, old: &Self) -> Result<(), Error> {
        let Some(before) = old.usage() else { return Ok(()) };
        let path = self.usage_path()?;
        self.change_usage(self.wait(), |administrator| {
            let counts = self.own_counts(&path)?;
            administrator.take_over_usage(counts.view(), old.table(), before);
            administrator.begin_usage(&counts);
            Ok(())
        })
    }

    /// Calls `change` with the administrator, and flushes the gate.
    fn change_usage(
        &self,
        wait: Wait<'_>,
        change: impl FnOnce(&mut Administrator<'_, Mapping>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let lock = Lock::acquire(self.file(), self.table().memory().as_ref(), wait)?;
        self.end_migration(&lock)?;
        let mut administrator = self.table().take_over();
        change(&mut administrator)?;
        drop(administrator);
        self.file().flush(self.table().memory())
    }

    /// Maps the file of this generation; `None` if that is not possible.
    fn open_usage(&self, generation: u16) -> Option<Counts> {
        let (_, counts) = self.open_counts(&self.usage_path().ok()?).ok()?;
        (counts.generation().get() == generation).then_some(counts)
    }

    fn open_counts(&self, path: &Path) -> Result<(TableFile, Counts), Error> {
        open_table(path, |mapping| self.table().attach_usage(mapping))
    }

    /// Opens the file of this gate's counts, or creates it. Replaces the counts of another gate.
    fn own_counts(&self, path: &Path) -> Result<Counts, Error> {
        match self.open_counts(path) {
            Ok((_, counts)) => return Ok(counts),
            Err(Error::Attach { source: AttachError::Geometry { .. }, .. }) => {
                fs::remove_file(path).map_err(|error| Error::io("remove", path, error))?;
            }
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let random = u16::from_le_bytes(*random()?);
        let present = self.table().usage_generation();
        // 1 to 16383, and another one than the present.
        let other = |number: u16| NonZeroU16::new(number & 0x3FFF).filter(|it| it.get() != present);
        let generation = (0..=2).find_map(|step| other(random.wrapping_add(step)));
        let generation = generation.unwrap_or(NonZeroU16::MIN);
        let lines = Counts::lines(self.table().capacity());
        let make = |memory| self.table().init_usage(memory, generation);
        let (_, counts) = create_successor(path, lines, self.file(), make, |_| Ok(()))?;
        Ok(counts)
    }

    /// Returns the path of the file of the counts.
    fn usage_path(&self) -> Result<PathBuf, Error> {
        let unsupported =
            || Error::io("count uses in", Path::new("memory"), ErrorKind::Unsupported);
        let mut path = self.real_path()?.ok_or_else(unsupported)?.into_os_string();
        path.push(".usage");
        Ok(path.into())
    }
}
