//! Copies a gate to another file, while other processes check and change keys.
//!
//! 1. The new file is created without a name, and its disk space is reserved.
//! 2. Under the administrators' lock, every word of the gate is loaded once. No record, plan or
//!    checksum changes meanwhile. A tally is one word, so each count in the copy is a count that
//!    the gate had between the beginning and the end of this step.
//! 3. Without the lock, the new file is flushed and gets its name.

use std::path::Path;

use keytally_core::CacheLine;

use crate::error::Error;
use crate::gate::Gate;
use crate::header::{HOLDER, WAITING};
use crate::publish::{Replace, create_copy};

impl Gate {
    /// Copies the gate to a file at `path`, with the owner and mode of the gate's file. Other
    /// processes use the gate meanwhile.
    ///
    /// The copy opens as a gate with the same keys, plans and peppers. No change by an
    /// administrator is half in the copy. Each count in the copy is one that the gate had at a
    /// moment during the call: at least that before the call and at most that after it, unless
    /// units were refunded or counts were reset meanwhile. Counts of different keys may be of
    /// different moments.
    ///
    /// Checks never wait for the copy. Changes to keys and plans wait while the gate is read, and
    /// not while the copy is flushed to the disk. The copy appears atomically: a process that is
    /// killed during the call leaves no part of it at `path`.
    ///
    /// With `replace`, the copy takes the name of another gate that is there, and its owner and
    /// mode. A mode that [`open`](Self::open) would refuse becomes 0600. Processes that have that
    /// gate open keep it, and a [`Followed`](crate::Followed) gate opens the copy. A file whose
    /// beginning is damaged counts as a gate if it is as long as the copy, and so does an empty
    /// file. What the other gate has and this one lacks is lost.
    ///
    /// The counts of [uses](Self::set_usage) are in another file, and are not copied.
    ///
    /// ```
    /// use keytally::{Error, Gate, GateConfig, Name, NewKey, pepper};
    /// # let folder = tempfile::tempdir()?;
    /// # let (path, backup) = (folder.path().join("api.gate"), folder.path().join("backup.gate"));
    /// let secret = pepper::generate()?;
    /// let gate = Gate::create(&path, pepper::parse(&secret)?, &GateConfig::default())?;
    /// let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").unwrap()))?;
    /// gate.check(Some(key.expose().as_bytes()), 7);
    ///
    /// gate.copy(&backup, false)?;
    /// assert!(matches!(gate.copy(&backup, false), Err(Error::Exists { .. })));
    /// gate.copy(&backup, true)?;
    /// let copy = Gate::open(&backup, pepper::parse(&secret)?)?;
    /// assert_eq!(copy.peek(Some(key.expose().as_bytes()), 0).remaining(), Some(993));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Nothing is at `path` that was not there before, except where the last entry says otherwise.
    /// - [`Error::Exists`] if `path` exists, and `replace` is false.
    /// - [`Error::Copy`] if `path` is the gate itself, or another table that is not a gate.
    /// - [`Error::Attach`], [`Error::NotAFile`] or [`Error::TooShort`] if another file is at
    ///   `path`.
    /// - [`Error::Busy`] and [`Error::Replaced`], as [`administer`](Self::administer).
    /// - [`Error::Io`] if the folder cannot be written or the disk is full. Also if the folder
    ///   cannot be flushed: then the copy was made.
    pub fn copy(&self, path: impl AsRef<Path>, replace: bool) -> Result<(), Error> {
        let lines = self.table().memory().as_ref();
        let replace = if replace { Replace::Gate } else { Replace::Nothing };
        create_copy(path.as_ref(), replace, lines.len(), self.file(), |memory| {
            self.recover(self.wait(), |_| copy_words(lines, memory)).map(drop)
        })
    }
}

/// Copies all words of a gate to lines of zeros, except for those that name its administrators: no
/// process administers the copy. The caller is the gate's administrator.
fn copy_words(from: &[CacheLine], to: &[CacheLine]) {
    for (index, (from, to)) in from.iter().zip(to).enumerate() {
        for word in 0..8 {
            let value = from.load(word);
            if value != 0 && ![HOLDER, WAITING].contains(&(index, word)) {
                to.store(word, value);
            }
        }
    }
}
