//! The file of a SQLite database: whether it is still the one that was opened, and whether the
//! write-ahead log next to it is its own.
//!
//! SQLite finds the log by its name, and the log does not say of which database it is. If another
//! file replaces the database while the log of the former one is there, SQLite writes
//! pages of one into the other. So a note next to the database says which log is of which file. If
//! the log is the noted one and the database is not, the database was replaced. If neither is, the
//! folder was copied.
//!
//! Windows does not replace a file that is open, and has no note.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::system::{FileId, file_id};

/// The file of a database that is open.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    /// The path as it was given.
    path: PathBuf,
    /// The path without links, next to which SQLite puts its other files.
    real: PathBuf,
    /// Which file it is; `None` where that is not known.
    id: Option<FileId>,
}

impl DatabaseFile {
    /// Creates the file, for its owner alone, unless it exists. SQLite gives its other files the
    /// same permissions.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        match create_new(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let (real, id) = (fs::canonicalize(path)?, file_id(path)?);
        Ok(Self { path: path.to_owned(), real, id })
    }

    /// Returns whether the write-ahead log next to it is that of a file that it has replaced.
    pub(crate) fn has_foreign_log(&self) -> bool {
        match (self.note(), self.ids()) {
            (Some((noted, noted_log)), Some((database, log))) => {
                noted_log == log && noted != database
            }
            _ => false,
        }
    }

    /// Returns the path as it was given.
    pub(crate) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Returns whether both are the same file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.real == other.real || (self.id.is_some() && self.id == other.id)
    }

    /// Returns whether it is still at its path.
    pub(crate) fn is_in_place(&self) -> bool {
        file_id(&self.path).is_ok_and(|id| id == self.id)
    }

    /// Notes that the log that SQLite has opened is of this file. Without the note, which a full
    /// disk may prevent, a later replacement is not noticed.
    pub(crate) fn note_log(&self) {
        let Some(ids) = self.ids() else { return };
        if self.note() == Some(ids) {
            return;
        }
        let (database, log) = ids;
        let text =
            format!("{} {} {} {}\n", database.device, database.number, log.device, log.number);
        let temporary = self.sibling(&format!("-file.{}", std::process::id()));
        let write = || {
            create_new(&temporary)?.write_all(text.as_bytes())?;
            fs::rename(&temporary, self.sibling("-file"))
        };
        if write().is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }

    /// Returns which files the database and its log are; `None` if there is no log.
    fn ids(&self) -> Option<(FileId, FileId)> {
        Some((self.id?, file_id(&self.sibling("-wal")).ok()??))
    }

    /// Returns which files the note names.
    fn note(&self) -> Option<(FileId, FileId)> {
        let text = fs::read_to_string(self.sibling("-file")).ok()?;
        let numbers: Result<Vec<u64>, _> = text.split_ascii_whitespace().map(str::parse).collect();
        let &[device, number, log_device, log_number] = &numbers.ok()?[..] else { return None };
        let log = FileId { device: log_device, number: log_number };
        Some((FileId { device, number }, log))
    }

    /// Returns the path of a file next to the database.
    fn sibling(&self, suffix: &str) -> PathBuf {
        let mut path = OsString::from(&self.real);
        path.push(suffix);
        path.into()
    }
}

/// Creates a file, for its owner alone.
///
/// # Errors
/// If it exists, or cannot be created.
pub(crate) fn create_new(path: &Path) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
