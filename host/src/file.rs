//! Opens a table's file. Refuses non-regular files, files of other users, and modes that give all
//! users access.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use keytally_core::{AttachError, CACHE_LINE_LEN};
use keytally_core::{BEGINNING_LEN, TableKind, is_table_beginning};

use crate::error::Error;
use crate::map::Mapping;
use crate::stop::{FileStop, stop};
use crate::system::{self, Identity};

/// A table's file, open for as long as the table is, or none for a table in memory.
#[derive(Debug)]
pub(crate) struct TableFile {
    /// The path as the caller gave it, for errors. `memory` without a file.
    path: PathBuf,
    on_disk: Option<OnDisk>,
}

#[derive(Debug)]
struct OnDisk {
    file: File,
    identity: Identity,
    /// The absolute path, which is valid after a change of the working directory.
    absolute: PathBuf,
}

impl TableFile {
    /// Wraps an open file and the path that it was opened by.
    pub(crate) fn new(path: &Path, file: File) -> io::Result<Self> {
        let identity = Identity::new(&file)?;
        let absolute = std::path::absolute(path)?;
        Ok(Self { path: path.into(), on_disk: Some(OnDisk { file, identity, absolute }) })
    }

    /// Returns that of a table in memory.
    pub(crate) fn in_memory() -> Self {
        Self { path: "memory".into(), on_disk: None }
    }

    /// Returns the path as errors show it: the path that the caller gave, or `memory`.
    pub(crate) fn shown_path(&self) -> &Path {
        &self.path
    }

    /// Returns the path that the caller gave. `None` in memory.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.on_disk.as_ref().map(|_| self.path.as_path())
    }

    /// Returns the absolute path. `None` in memory.
    pub(crate) fn absolute(&self) -> Option<&Path> {
        self.on_disk.as_ref().map(|on_disk| on_disk.absolute.as_path())
    }

    /// Returns a number that other files do not have. `None` in memory.
    pub(crate) fn number(&self) -> Option<u64> {
        self.on_disk.as_ref().map(|on_disk| on_disk.identity.whole_number())
    }

    /// Returns the open file. `None` in memory.
    pub(crate) fn open_file(&self) -> Option<&File> {
        self.on_disk.as_ref().map(|on_disk| &on_disk.file)
    }

    /// Gives another file the owner and the mode of this one.
    pub(crate) fn copy_access(&self, to: &File) -> io::Result<()> {
        self.on_disk.as_ref().map_or(Ok(()), |on_disk| system::copy_access(&on_disk.file, to))
    }

    /// Waits until the contents of the file, which is mapped to `memory`, are on the disk.
    pub(crate) fn flush(&self, memory: &Mapping) -> Result<(), Error> {
        if let Some(OnDisk { file, .. }) = &self.on_disk {
            stop(FileStop::ChangeMade);
            let flushed = memory.flush().and_then(|()| file.sync_data());
            flushed.map_err(|error| Error::io("flush", &self.path, error))?;
            stop(FileStop::ChangeFlushed);
        }
        Ok(())
    }

    /// Opens a new open file description of the same file. `None` in memory.
    pub(crate) fn new_description(&self) -> Result<Option<File>, Error> {
        let Some(OnDisk { identity, absolute, .. }) = &self.on_disk else { return Ok(None) };
        let replaced = || Error::Replaced { path: self.path.clone() };
        let file = match system::open_to_write(absolute) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(replaced()),
            Err(error) => return Err(Error::io("open", absolute, error)),
        };
        let found = Identity::new(&file).map_err(|error| Error::io("examine", absolute, error))?;
        if found == *identity { Ok(Some(file)) } else { Err(replaced()) }
    }

    /// Returns whether this is an open file. Never true in memory.
    pub(crate) fn is(&self, file: &File) -> io::Result<bool> {
        let Some(OnDisk { identity, .. }) = &self.on_disk else { return Ok(false) };
        Ok(Identity::new(file)? == *identity)
    }

    /// Returns whether the path still leads to this file. Always true in memory.
    pub(crate) fn is_at_path(&self) -> io::Result<bool> {
        let Some(OnDisk { identity, absolute, .. }) = &self.on_disk else { return Ok(true) };
        Ok(Identity::at(absolute)? == *identity)
    }
}

/// Opens the table at `path`: checks the file, maps it, and lets `attach` check its contents.
pub(crate) fn open_table<T>(
    path: &Path,
    attach: impl FnOnce(Mapping) -> Result<T, AttachError>,
) -> Result<(TableFile, T), Error> {
    let file = open_regular(path)?;
    let io_error = |doing| move |error| Error::io(doing, path, error);
    let metadata = file.metadata().map_err(io_error("examine"))?;
    let len = metadata.len();
    let whole_lines = len / CACHE_LINE_LEN as u64;
    let lines = usize::try_from(whole_lines).unwrap_or(usize::MAX);
    if lines == 0 {
        return Err(Error::TooShort { path: path.into(), len });
    }
    // The errors of the access check may advise a command that changes the file. Only a table may
    // get such an error.
    read_beginning(path, &file)?;
    system::check_table(path, &file, &metadata)?;
    // In a copy with holes, a write to the mapping could find the disk full, which the kernel
    // reports only by SIGBUS.
    if system::has_holes(&metadata) {
        system::fill_holes(&file, len).map_err(io_error("reserve disk space for"))?;
    }
    let mapping = Mapping::new(&file, lines).map_err(io_error("map"))?;
    let whole_len = whole_lines * CACHE_LINE_LEN as u64;
    let attached = match attach(mapping) {
        // The core sees only whole cache lines, so its error has a rounded length.
        Err(AttachError::Truncated { needed, .. }) => Err(AttachError::Truncated { len, needed }),
        // A part of a cache line at the end is reported last: any other fault takes precedence.
        Ok(_) if whole_len != len => Err(AttachError::Truncated { len, needed: whole_len }),
        other => other,
    };
    let table = attached.map_err(|source| Error::Attach { path: path.into(), source })?;
    Ok((TableFile::new(path, file).map_err(io_error("examine"))?, table))
}

/// Opens a regular file. A symbolic link is followed.
pub(crate) fn open_regular(path: &Path) -> Result<File, Error> {
    let not_a_file = |found| Error::NotAFile { path: path.into(), found };
    let file = system::open_to_write(path).map_err(|error| match error.kind() {
        // The systems report different errors for a directory.
        io::ErrorKind::NotFound => Error::io("open", path, error),
        _ if path.is_dir() => not_a_file("a directory"),
        _ => Error::io("open", path, error),
    })?;
    let metadata = file.metadata().map_err(|error| Error::io("examine", path, error))?;
    let kind = metadata.file_type();
    if kind.is_file() { Ok(file) } else { Err(not_a_file(system::irregular(kind))) }
}

/// Opens a table of any kind and version, without its contents. Returns whether it is a gate.
pub(crate) fn open_any_table(path: &Path) -> Result<(File, bool), Error> {
    let file = open_regular(path)?;
    let len = file.metadata().map_err(|error| Error::io("examine", path, error))?.len();
    if len < CACHE_LINE_LEN as u64 {
        return Err(Error::TooShort { path: path.into(), len });
    }
    let beginning = read_beginning(path, &file)?;
    Ok((file, beginning[BEGINNING_LEN - 4..] == (TableKind::Gate as u32).to_le_bytes()))
}

/// Reads the beginning of a table. Refuses a file that does not begin as a table does. The error
/// neither repeats the content of such a file nor advises to change it.
fn read_beginning(path: &Path, mut file: &File) -> Result<[u8; BEGINNING_LEN], Error> {
    let mut bytes = [0; BEGINNING_LEN];
    file.read_exact(&mut bytes).map_err(|error| Error::io("read", path, error))?;
    let source = match bytes {
        bytes if is_table_beginning(bytes) => return Ok(bytes),
        [0, 0, 0, 0, 0, 0, 0, 0, ..] => AttachError::Unfinished,
        _ => AttachError::NotATable,
    };
    Err(Error::Attach { path: path.into(), source })
}
