//! What differs between operating systems: the name of the machine, and which file is at a path.

use std::io;
use std::path::Path;

/// Which file of a machine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    /// The number of its inode.
    pub(crate) number: u64,
}

/// Returns which file is at a path.
///
/// # Errors
/// If there is none.
#[cfg(unix)]
pub(crate) fn file_id(path: &Path) -> io::Result<Option<FileId>> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = path.metadata()?;
    Ok(Some(FileId { device: metadata.dev(), number: metadata.ino() }))
}

/// Returns `None`: no other file can replace one that is open.
///
/// # Errors
/// If there is no file.
#[cfg(windows)]
pub(crate) fn file_id(path: &Path) -> io::Result<Option<FileId>> {
    path.metadata()?;
    Ok(None)
}

/// Returns the name of this machine.
#[cfg(unix)]
pub(crate) fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Returns the name of this machine.
#[cfg(windows)]
pub(crate) fn machine() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}
