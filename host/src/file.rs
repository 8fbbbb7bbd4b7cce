//! Opens a table's file. Refuses non-regular files, files of other users, and modes that give all
//! users access.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use keytally_core::{AttachError, CACHE_LINE_LEN};
use keytally_core::{BEGINNING_LEN, is_table_beginning};
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, open};
use rustix::io::{Errno, retry_on_intr};

use crate::error::Error;
use crate::map::Mapping;
use crate::stop::{FileStop, stop};

/// Permission bits that a table's file must not have. A group may have access, but not all users.
const REFUSED_IN_TABLES: u32 = 0o007;

/// A table's file, open for as long as the table is.
#[derive(Debug)]
pub(crate) struct TableFile {
    file: File,
    identity: Identity,
    /// The path as the caller gave it, for errors.
    path: PathBuf,
    /// The absolute path, which is valid after a change of the working directory. `None` in memory.
    absolute: Option<PathBuf>,
}

/// Identifies a file independently of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn new(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl TableFile {
    /// Wraps an open file and the path that it was opened by.
    pub(crate) fn new(path: &Path, file: File) -> io::Result<Self> {
        let identity = Identity::new(&file)?;
        Ok(Self { file, identity, path: path.into(), absolute: Some(std::path::absolute(path)?) })
    }

    /// Wraps a file without a name. The kernel frees it when the last process closes it.
    pub(crate) fn in_memory(file: File) -> io::Result<Self> {
        let identity = Identity::new(&file)?;
        Ok(Self { file, identity, path: "memory".into(), absolute: None })
    }

    /// Returns the path as errors show it: the path that the caller gave, or `memory`.
    pub(crate) fn shown_path(&self) -> &Path {
        &self.path
    }

    /// Returns the path that the caller gave. `None` in memory.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.absolute.as_ref().map(|_| self.path.as_path())
    }

    /// Waits until the contents of the file are on the disk.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        if self.absolute.is_some() {
            stop(FileStop::ChangeMade);
            self.file.sync_data().map_err(|error| Error::io("flush", &self.path, error))?;
            stop(FileStop::ChangeFlushed);
        }
        Ok(())
    }

    /// Opens a new open file description of the same file. `None` in memory.
    pub(crate) fn new_description(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(absolute) = &self.absolute else { return Ok(None) };
        let replaced = || Error::Replaced { path: self.path.clone() };
        let file = match open_file(absolute, OFlags::RDWR) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(replaced()),
            Err(error) => return Err(Error::io("open", absolute, error)),
        };
        let identity =
            Identity::new(&file).map_err(|error| Error::io("examine", absolute, error))?;
        if identity == self.identity { Ok(Some(file.into())) } else { Err(replaced()) }
    }

    /// Returns whether the path still leads to this file. Always true in memory.
    pub(crate) fn is_at_path(&self) -> io::Result<bool> {
        let Some(absolute) = &self.absolute else { return Ok(true) };
        let metadata = absolute.metadata()?;
        Ok(Identity { device: metadata.dev(), inode: metadata.ino() } == self.identity)
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
    refuse_non_tables(path, &file)?;
    let user = rustix::process::geteuid().as_raw();
    check_access(path, metadata.uid(), metadata.mode() & 0o7777, user)?;
    // In a copy with holes, a write to the mapping could find the disk full, which the kernel
    // reports only by SIGBUS.
    if metadata.blocks().saturating_mul(512) < len {
        fill_holes(&file, len).map_err(io_error("reserve disk space for"))?;
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

/// Reserves disk space for the holes of a file that is in use. Where the file system cannot do
/// that, the holes remain.
fn fill_holes(file: &File, len: u64) -> io::Result<()> {
    match retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, 0, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

/// Opens a regular file. A symbolic link is followed.
fn open_regular(path: &Path) -> Result<File, Error> {
    let file = match open_file(path, OFlags::RDWR) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            return Err(Error::NotAFile { path: path.into(), found: "a directory" });
        }
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let metadata = file.metadata().map_err(|error| Error::io("examine", path, error))?;
    let kind = metadata.file_type();
    if !kind.is_file() {
        let found = if kind.is_dir() {
            "a directory"
        } else if kind.is_fifo() {
            "a pipe"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        return Err(Error::NotAFile { path: path.into(), found });
    }
    Ok(file)
}

/// Refuses a file that does not begin as a table does. The error neither repeats the content of
/// such a file nor advises to change it.
fn refuse_non_tables(path: &Path, file: &File) -> Result<(), Error> {
    let mut bytes = [0; BEGINNING_LEN];
    file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("read", path, error))?;
    let source = match bytes {
        bytes if is_table_beginning(bytes) => return Ok(()),
        [0, 0, 0, 0, 0, 0, 0, 0, ..] => AttachError::Unfinished,
        _ => AttachError::NotATable,
    };
    Err(Error::Attach { path: path.into(), source })
}

/// Refuses a file of another user, or with a mode that gives all users access, for a process of
/// `user`. A file of root and a process of root are exempt from the first rule.
fn check_access(path: &Path, owner: u32, mode: u32, user: u32) -> Result<(), Error> {
    const ROOT: u32 = 0;
    // The owner comes first, because an owner can change the mode at any time.
    if owner != user && owner != ROOT && user != ROOT {
        return Err(Error::Owner { path: path.into(), owner, user, recognized: true });
    }
    if mode & REFUSED_IN_TABLES != 0 {
        return Err(Error::Mode { path: path.into(), mode, recognized: true });
    }
    Ok(())
}

/// Opens a file. Does not wait for the other end of a pipe.
fn open_file(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let descriptor = retry_on_intr(|| open(path, flags, Mode::empty()))?;
    Ok(descriptor.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_another_user_or_open_to_all_is_refused() {
        let rule = |owner, mode, user| check_access(Path::new("f"), owner, mode, user);
        for (owner, user) in [(1000, 1000), (0, 1000), (0, 0), (1000, 0)] {
            assert!(rule(owner, 0o600, user).is_ok(), "{owner} {user}");
            assert!(rule(owner, 0o660, user).is_ok(), "{owner} {user}");
            for mode in [0o604, 0o602, 0o601, 0o666, 0o777] {
                assert!(matches!(rule(owner, mode, user), Err(Error::Mode { .. })), "{mode:o}");
            }
        }
        let error = rule(1001, 0o600, 1000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "f: it belongs to user 1001, and this process is user 1000; fix it with: chown 1000 f"
        );
    }
}
