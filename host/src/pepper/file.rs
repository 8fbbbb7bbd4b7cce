//! Opens a pepper file. Refuses a file that another user can write. Unless root owns the file,
//! refuses it also if another user can read it.
//!
//! | owner | accepted if | provided by |
//! |---|---|---|
//! | the user of this process, or any user if the process is root's | no other user can read or write it: 0600, 0400 | an administrator, `keytally serve` |
//! | root | no other user can write it: 0400, 0440, 0444 | systemd, Kubernetes, Docker |
//!
//! The mode of a file of root may let other users read it: root protects secrets by the folder, an
//! access control list or a namespace, none of which the mode shows. Symbolic links are followed,
//! and the rule applies to the file that they lead to. It applies to a pipe as well.
//!
//! A file that is refused is read nevertheless, to find out whether it contains peppers. Nothing
//! else identifies a pepper file, and an error must not advise a command that changes another
//! program's file. Standard input was opened by the parent process, so its owner and mode are
//! checked only if it is a regular file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open as open_file};

use crate::error::Error;

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

const ROOT: u32 = 0;

/// Permission bits that a file of root must not have.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Permission bits that a file of another owner must not have.
const OPEN_TO_OTHERS: u32 = 0o077;

/// A pepper file, open for reading.
pub(super) struct Opened {
    pub(super) file: File,
    /// Why its contents must not be used. The caller may return this error only if the file
    /// contains peppers: the command that it advises would break another program's file.
    pub(super) refusal: Option<Error>,
}

/// Opens the pepper file at `path`. Waits for the other end of a pipe.
pub(super) fn open(path: &Path) -> Result<Opened, Error> {
    let is_standard_input = path == Path::new(STANDARD_INPUT);
    let file = if is_standard_input { standard_input() } else { open_path(path) };
    let file = file.map_err(|error| Error::io("open", path, error))?;
    let metadata = file.metadata().map_err(|error| Error::io("examine", path, error))?;
    let kind = metadata.file_type();
    let check = |recognized| {
        let user = rustix::process::geteuid().as_raw();
        check_access(path, metadata.uid(), metadata.mode() & 0o7777, user, recognized)
    };
    if kind.is_file() {
        return Ok(Opened { file, refusal: check(true).err() });
    }
    if kind.is_fifo() && !is_standard_input {
        // The writer of a pipe may take any time. A pipe is therefore refused without being read.
        check(false)?;
    } else if kind.is_dir() {
        return Err(Error::NotAFile { path: path.into(), found: "a directory" });
    } else if !is_standard_input {
        return Err(Error::NotAFile { path: path.into(), found: "a device" });
    }
    Ok(Opened { file, refusal: None })
}

fn standard_input() -> io::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

fn open_path(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::io::retry_on_intr(|| open_file(path, flags, Mode::empty()))?.into())
}

/// Applies the access rule of the table above for a process of `user`. The owner is checked first,
/// because an owner can change the mode.
fn check_access(
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

    fn rule(owner: u32, mode: u32, user: u32) -> Result<(), String> {
        check_access(Path::new("f"), owner, mode, user, true).map_err(|error| error.to_string())
    }

    #[test]
    fn file_of_root_is_accepted_unless_others_can_write() {
        for mode in [0o400, 0o600, 0o440, 0o640, 0o444, 0o644, 0o755] {
            for user in [ROOT, USER] {
                assert_eq!(rule(ROOT, mode, user), Ok(()), "{mode:o}");
            }
        }
        for mode in [0o420, 0o402, 0o660, 0o666, 0o777] {
            assert_eq!(
                rule(ROOT, mode, USER).unwrap_err(),
                format!(
                    "f: its mode is {mode:04o}, so users other than root can write it; fix it with: chmod go-w f"
                )
            );
        }
    }

    #[test]
    fn file_of_a_user_is_accepted_if_only_its_owner_has_access() {
        for user in [USER, ROOT] {
            for mode in [0o400, 0o600, 0o700] {
                assert_eq!(rule(USER, mode, user), Ok(()), "{mode:o}");
            }
            for mode in [0o640, 0o604, 0o620, 0o602, 0o440, 0o444] {
                assert!(rule(USER, mode, user).unwrap_err().ends_with("chmod 600 f"), "{mode:o}");
            }
        }
    }

    #[test]
    fn file_of_another_user_is_refused() {
        for mode in [0o400, 0o600, 0o444] {
            assert!(
                rule(1001, mode, USER).unwrap_err().contains("belongs to user 1001"),
                "{mode:o}"
            );
        }
    }
}
