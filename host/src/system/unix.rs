//! Unix: files with an owner and a mode, and their `flock`.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, fchmod, flock, linkat, open, unlink};
use rustix::io::{Errno, retry_on_intr};

use crate::error::Error;

/// The mode of new files: only the owner has access.
pub(super) const OWNER_ONLY: Mode = Mode::RUSR.union(Mode::WUSR);

/// Permission bits that a table's file must have for the processes of its owner.
const OWNER_ACCESS: u32 = 0o600;

const ROOT: u32 = 0;

/// Permission bits that a table's file must not have. A group may have access, but not all users.
const REFUSED_IN_TABLES: u32 = 0o007;

/// Permission bits that a pepper file of root must not have.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Permission bits that a pepper file of another owner must not have.
const OPEN_TO_OTHERS: u32 = 0o077;

/// The number of zeros in one write, where disk space can only be reserved by writing.
const ZEROS_LEN: usize = 1 << 16;

/// Opens a file for reading and writing. Does not wait for the other end of a pipe.
pub(crate) fn open_to_write(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(retry_on_intr(|| open(path, flags, Mode::empty()))?.into())
}

/// Opens a file for reading. Waits for the other end of a pipe.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(retry_on_intr(|| open(path, flags, Mode::empty()))?.into())
}

/// Returns standard input as a file.
pub(crate) fn standard_input() -> io::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Creates a file to which only the owner has access. Fails if the name is taken.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(retry_on_intr(|| open(path, flags, OWNER_ONLY))?.into())
}

/// Gives a new file its mode: the umask has removed bits from the one that it was opened with.
pub(crate) fn restrict(file: &File) -> io::Result<()> {
    Ok(fchmod(file, OWNER_ONLY)?)
}

/// Gives a table's file the owner and the mode of another file. A mode that is refused in tables
/// becomes 0600.
pub(crate) fn copy_access(from: &File, to: &File) -> io::Result<()> {
    let (from, own) = (from.metadata()?, to.metadata()?);
    if (from.uid(), from.gid()) != (own.uid(), own.gid()) {
        std::os::unix::fs::fchown(to, Some(from.uid()), Some(from.gid()))?;
    }
    if from.mode() & REFUSED_IN_TABLES != 0 || from.mode() & OWNER_ACCESS != OWNER_ACCESS {
        return restrict(to);
    }
    to.set_permissions(from.permissions())
}

/// Whether an open and mapped file can be given another name.
pub(crate) const NAMES_OPEN_FILES: bool = true;

/// Gives a file its name instead of a temporary one. Fails if the name is taken.
pub(crate) fn rename_new(temporary: &Path, path: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{RenameFlags, renameat_with};
        match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
            // A file system that cannot rename without replacing may support links.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            other => return Ok(other?),
        }
    }
    linkat(CWD, temporary, CWD, path, AtFlags::empty())?;
    let _ = unlink(temporary);
    Ok(())
}

/// Flushes a folder, so that a new name survives a power failure. Ignores a folder that may be
/// written but not read, and file systems that cannot flush folders.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error)
            if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Fills an empty file with zeros.
pub(super) fn write_zeros(mut file: &File, len: u64) -> io::Result<()> {
    let zeros = [0; ZEROS_LEN];
    let mut left = len;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(ZEROS_LEN).min(ZEROS_LEN);
        file.write_all(&zeros[..count])?;
        left -= count as u64;
    }
    Ok(())
}

/// Returns whether disk space is missing for a part of the file.
pub(crate) fn has_holes(metadata: &Metadata) -> bool {
    metadata.blocks().saturating_mul(512) < metadata.len()
}

/// Identifies a file independently of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::from_metadata(&metadata))
    }

    /// Returns the identity of the file at a path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        path.metadata().map(|metadata| Self::from_metadata(&metadata))
    }

    /// Returns a number that differs between files, also of different file systems; not 0.
    pub(crate) fn whole_number(&self) -> u64 {
        (self.inode ^ self.device.rotate_left(32)).max(1)
    }

    /// Returns a number that differs between files of one file system.
    pub(crate) fn number(&self) -> u64 {
        self.inode
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Returns whether the file is a pipe that has a name.
pub(crate) fn is_pipe(kind: FileType) -> bool {
    kind.is_fifo()
}

/// Returns what a file is that is not a regular one.
pub(crate) fn irregular(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Tries to take the `flock` of an open file description. Returns whether it holds it.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    match retry_on_intr(|| flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Releases the `flock`. Closing the descriptor is not enough: a child that was forked meanwhile
/// keeps the description open.
pub(crate) fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
}

/// Refuses a table's file of another user, or with a mode that gives all users access.
pub(crate) fn check_table(path: &Path, _: &File, metadata: &Metadata) -> Result<(), Error> {
    let user = rustix::process::geteuid().as_raw();
    table_rule(path, metadata.uid(), metadata.mode() & 0o7777, user)
}

/// Returns the owner of a fleet file, unless it is the user of this process or root. A process of
/// root also accepts the owner of one of these other files.
pub(crate) fn foreign_owner(metadata: &Metadata, others: &[Metadata]) -> Option<u32> {
    let user = rustix::process::geteuid().as_raw();
    let others = others.iter().map(|other| other.uid());
    Some(metadata.uid()).filter(|owner| is_foreign(*owner, user, others))
}

fn is_foreign(owner: u32, user: u32, mut others: impl Iterator<Item = u32>) -> bool {
    owner != user && owner != ROOT && !(user == ROOT && others.any(|other| other == owner))
}

/// Refuses a pepper file that another user can write, or, unless root owns it, read.
pub(crate) fn check_secret(
    path: &Path,
    _: &File,
    metadata: &Metadata,
    recognized: bool,
) -> Result<(), Error> {
    let user = rustix::process::geteuid().as_raw();
    secret_rule(path, metadata.uid(), metadata.mode() & 0o7777, user, recognized)
}

/// Applies the rule for tables, for a process of `user`. A file of root and a process of root are
/// exempt from the rule on owners.
fn table_rule(path: &Path, owner: u32, mode: u32, user: u32) -> Result<(), Error> {
    // The owner comes first, because an owner can change the mode at any time.
    if owner != user && owner != ROOT && user != ROOT {
        return Err(Error::Owner { path: path.into(), owner, user, recognized: true });
    }
    if mode & REFUSED_IN_TABLES != 0 {
        return Err(Error::Mode { path: path.into(), mode, recognized: true });
    }
    Ok(())
}

/// Applies the rule for pepper files, for a process of `user`. The owner is checked first, because
/// an owner can change the mode.
fn secret_rule(
    path: &Path,
    owner: u32,
    mode: u32,
    user: u32,
    recognized: bool,
) -> Result<(), Error> {
    if owner == ROOT {
        return match mode & WRITABLE_BY_OTHERS {
            0 => Ok(()),
            _ => Err(Error::Writable { path: path.into(), mode, recognized }),
        };
    }
    if owner != user && user != ROOT {
        return Err(Error::Owner { path: path.into(), owner, user, recognized });
    }
    match mode & OPEN_TO_OTHERS {
        0 => Ok(()),
        _ => Err(Error::Mode { path: path.into(), mode, recognized }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user of the process.
    const USER: u32 = 1000;

    fn secret(owner: u32, mode: u32, user: u32) -> Result<(), String> {
        secret_rule(Path::new("f"), owner, mode, user, true).map_err(|error| error.to_string())
    }

    #[test]
    fn table_of_another_user_or_open_to_all_is_refused() {
        let rule = |owner, mode, user| table_rule(Path::new("f"), owner, mode, user);
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

    #[test]
    fn fleet_file_of_a_user_whom_root_does_not_serve_is_refused() {
        let rule = |owner, user, others: &[u32]| is_foreign(owner, user, others.iter().copied());
        for (owner, user) in [(1000, 1000), (0, 1000), (0, 0)] {
            assert!(!rule(owner, user, &[]), "{owner} {user}");
        }
        assert!(!rule(1000, ROOT, &[0, 1000]));
        for (user, others) in [(ROOT, &[0, 1000][..]), (ROOT, &[]), (1000, &[1001])] {
            assert!(rule(1001, user, others), "{user}");
        }
    }

    #[test]
    fn secret_of_root_is_accepted_unless_others_can_write() {
        for mode in [0o400, 0o600, 0o440, 0o640, 0o444, 0o644, 0o755] {
            for user in [ROOT, USER] {
                assert_eq!(secret(ROOT, mode, user), Ok(()), "{mode:o}");
            }
        }
        for mode in [0o420, 0o402, 0o660, 0o666, 0o777] {
            assert_eq!(
                secret(ROOT, mode, USER).unwrap_err(),
                format!(
                    "f: its mode is {mode:04o}, so users other than root can write it; fix it with: chmod go-w f"
                )
            );
        }
    }

    #[test]
    fn secret_of_a_user_is_accepted_if_only_its_owner_has_access() {
        for user in [USER, ROOT] {
            for mode in [0o400, 0o600, 0o700] {
                assert_eq!(secret(USER, mode, user), Ok(()), "{mode:o}");
            }
            for mode in [0o640, 0o604, 0o620, 0o602, 0o440, 0o444] {
                assert!(secret(USER, mode, user).unwrap_err().ends_with("chmod 600 f"), "{mode:o}");
            }
        }
    }

    #[test]
    fn secret_of_another_user_is_refused() {
        for mode in [0o400, 0o600, 0o444] {
            assert!(
                secret(1001, mode, USER).unwrap_err().contains("belongs to user 1001"),
                "{mode:o}"
            );
        }
    }

    #[test]
    fn written_zeros_reserve_disk_space() {
        for len in [1, ZEROS_LEN as u64, ZEROS_LEN as u64 + 1, 3 * ZEROS_LEN as u64 - 1] {
            let file = tempfile::tempfile().unwrap();
            write_zeros(&file, len).unwrap();
            let metadata = file.metadata().unwrap();
            assert_eq!(metadata.len(), len);
            assert!(!has_holes(&metadata));
        }
    }
}
