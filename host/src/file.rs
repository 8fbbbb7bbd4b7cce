//! Opening a table's file: once, and with everything refused that would make it somebody else's.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use keytally_core::stop::{Stop, stop};
use keytally_core::{AttachError, LINE_LEN};
use keytally_core::{BEGINNING_LEN, is_table_beginning};
use rustix::fs::{Mode, OFlags, open};

use crate::error::Error;
use crate::map::Mapping;

/// Permission bits that a table's file must not have: a group may be let in, everybody may not.
const REFUSED_IN_TABLES: u32 = 0o007;

/// A table's file, open for as long as the table is.
#[derive(Debug)]
pub(crate) struct TableFile {
    file: File,
    identity: Identity,
    /// As it was given, for people.
    path: PathBuf,
    /// Where the file is found again, also after a change of the working directory; `None` in memory.
    absolute: Option<PathBuf>,
}

/// What tells a file from every other one, whatever their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl TableFile {
    /// The file of this descriptor, which `path` names.
    pub(crate) fn at(path: &Path, file: File) -> io::Result<Self> {
        let identity = Identity::of(&file)?;
        Ok(Self { file, identity, path: path.into(), absolute: Some(std::path::absolute(path)?) })
    }

    /// A file that has no name, and goes when the last process closes it.
    pub(crate) fn in_memory(file: File) -> io::Result<Self> {
        let identity = Identity::of(&file)?;
        Ok(Self { file, identity, path: "memory".into(), absolute: None })
    }

    /// What to call it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its path, if it has one.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.absolute.as_ref().map(|_| self.path.as_path())
    }

    /// Waits until the disk has what is in the file.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        if self.absolute.is_some() {
            stop(Stop::ChangeMade);
            self.file.sync_data().map_err(|error| Error::io("flush", &self.path, error))?;
            stop(Stop::ChangeFlushed);
        }
        Ok(())
    }

    /// A new open file description of the same file; `None` in memory.
    pub(crate) fn new_description(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(absolute) = &self.absolute else { return Ok(None) };
        let gone = || Error::Replaced { path: self.path.clone() };
        let file = match open_file(absolute, OFlags::RDWR) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            Err(error) => return Err(Error::io("open", absolute, error)),
        };
        let identity = Identity::of(&file).map_err(|error| Error::io("look at", absolute, error))?;
        if identity == self.identity { Ok(Some(file.into())) } else { Err(gone()) }
    }

    #[cfg(test)]
    pub(crate) fn descriptor(&self) -> &File {
        &self.file
    }

    /// Whether the path still leads to this file. A table in memory stays where it is.
    pub(crate) fn is_in_place(&self) -> io::Result<bool> {
        let Some(absolute) = &self.absolute else { return Ok(true) };
        let metadata = absolute.metadata()?;
        Ok(Identity { device: metadata.dev(), inode: metadata.ino() } == self.identity)
    }
}

/// Opens the table at `path`: checks the file, maps it and lets `attach` check what is in it.
pub(crate) fn open_table<T>(
    path: &Path,
    attach: impl FnOnce(Mapping) -> Result<T, AttachError>,
) -> Result<(TableFile, T), Error> {
    let file = open_regular(path)?;
    let io_error = |doing| move |error| Error::io(doing, path, error);
    let metadata = file.metadata().map_err(io_error("look at"))?;
    let len = metadata.len();
    let whole = len / LINE_LEN as u64;
    let lines = usize::try_from(whole).unwrap_or(usize::MAX);
    if lines == 0 {
        return Err(Error::TooShort { path: path.into(), len });
    }
    // What is asked next may lead to a command that changes the file, which only a table's file should suffer.
    refuse_other_files(path, &file)?;
    let user = rustix::process::geteuid().as_raw();
    refuse_strangers(path, metadata.uid(), metadata.mode() & 0o7777, user)?;
    // A copy with holes in it would run out of disk at a check, which the kernel can tell only by SIGBUS.
    if metadata.blocks().saturating_mul(512) < len {
        crate::publish::fill_holes(&file, len).map_err(io_error("find room on the disk for"))?;
    }
    let mapping = Mapping::of(&file, lines).map_err(io_error("map"))?;
    let needed = whole * LINE_LEN as u64;
    let attached = match attach(mapping) {
        // What is wrong is named before the odd bytes at its end are.
        Err(AttachError::Truncated { needed, .. }) => Err(AttachError::Truncated { len, needed }),
        Ok(_) if needed != len => Err(AttachError::Truncated { len, needed }),
        other => other,
    };
    let table = attached.map_err(|source| Error::Attach { path: path.into(), source })?;
    Ok((TableFile::at(path, file).map_err(io_error("look at"))?, table))
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
    let metadata = file.metadata().map_err(|error| Error::io("look at", path, error))?;
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

/// Refuses a file that no table begins, before anything else is said of it: no error repeats its content or advises to
/// change it.
fn refuse_other_files(path: &Path, file: &File) -> Result<(), Error> {
    let mut bytes = [0; BEGINNING_LEN];
    file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("read", path, error))?;
    let source = match bytes {
        bytes if is_table_beginning(bytes) => return Ok(()),
        [0, 0, 0, 0, 0, 0, 0, 0, ..] => AttachError::Unfinished,
        _ => AttachError::NotATable,
    };
    Err(Error::Attach { path: path.into(), source })
}

/// The rule of who may get at a file, for a process of `user`.
fn refuse_strangers(path: &Path, owner: u32, mode: u32, user: u32) -> Result<(), Error> {
    const ROOT: u32 = 0;
    // Whoever owns the file can open it to everybody at any moment, so that is asked first.
    if owner != user && owner != ROOT && user != ROOT {
        return Err(Error::Owner { path: path.into(), owner, user, recognized: true });
    }
    if mode & REFUSED_IN_TABLES != 0 {
        return Err(Error::Mode { path: path.into(), mode, recognized: true });
    }
    Ok(())
}

/// Opens without waiting for the other end of a pipe.
fn open_file(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let descriptor = rustix::io::retry_on_intr(|| open(path, flags, Mode::empty()))?;
    Ok(descriptor.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_strangers_and_files_open_to_all_are_refused() {
        let rule = |owner, mode, user| refuse_strangers(Path::new("f"), owner, mode, user);
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
