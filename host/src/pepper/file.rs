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
//! On Windows, the owner must be the user of this process, the system or the administrators, unless
//! the process is one of theirs. Only these and the user may have access.
//!
//! A file that is refused is read nevertheless, to find out whether it contains peppers. Nothing
//! else identifies a pepper file, and an error must not advise a command that changes another
//! program's file. Standard input was opened by the parent process, so its owner and mode are
//! checked only if it is a regular file.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::Error;
use crate::system;

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// A pepper file, open for reading.
pub(super) struct Opened {
    pub(super) file: File,
    /// Why its contents must not be used. The caller may return this error only if the file
    /// contains peppers: the command that it advises would break another program's file.
    pub(super) refusal: Option<Error>,
}

/// Opens the pepper file at `path`. Waits for the other end of a pipe.
pub(super) fn open(path: &Path) -> Result<Opened, Error> {
    let not_a_file = |found| Error::NotAFile { path: path.into(), found };
    let is_standard_input = path == Path::new(STANDARD_INPUT);
    let file =
        if is_standard_input { system::standard_input() } else { system::open_to_read(path) };
    let file = file.map_err(|error| match error.kind() {
        // Windows does not open a directory.
        ErrorKind::PermissionDenied if path.is_dir() => not_a_file("a directory"),
        _ => Error::io("open", path, error),
    })?;
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        // Windows cannot examine a pipe.
        Err(_) if is_standard_input => return Ok(Opened { file, refusal: None }),
        Err(error) => return Err(Error::io("examine", path, error)),
    };
    let kind = metadata.file_type();
    let check = |recognized| system::check_secret(path, &file, &metadata, recognized);
    if kind.is_file() {
        let refusal = check(true).err();
        return Ok(Opened { file, refusal });
    }
    if system::is_pipe(kind) && !is_standard_input {
        // The writer of a pipe may take any time. A pipe is therefore refused without being read.
        check(false)?;
    } else if kind.is_dir() {
        return Err(not_a_file("a directory"));
    } else if !is_standard_input {
        return Err(not_a_file("a device"));
    }
    Ok(Opened { file, refusal: None })
}
