//! macOS, FreeBSD and other systems of their family: what they lack of Linux.

use core::time::Duration;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::unix::{create_new, write_zeros};
use crate::entropy;
use crate::holder::{LockHolder, ThreadState};

/// Returns `None`: an open file without a name cannot be given one.
pub(crate) const fn create_unnamed(_: &Path) -> Option<File> {
    None
}

/// Fails: [`create_unnamed`] returns no file.
pub(crate) fn name_unnamed(_: &File, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Reserves disk space for an empty file and fills it with zeros. A file system that copies on
/// write (APFS, ZFS) needs more space when the zeros are overwritten.
pub(crate) fn reserve(file: &File, len: u64) -> io::Result<()> {
    write_zeros(file, len)
}

/// Does nothing: holes in a file that is in use cannot be filled.
pub(crate) const fn fill_holes(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// Writes the changed pages of a mapping to its file.
pub(crate) fn flush_pages(map: &MmapRaw) -> io::Result<()> {
    map.flush()
}

/// Maps `len` zero bytes that forked children share: a file whose name is removed.
pub(crate) fn map_memory(len: usize) -> io::Result<MmapRaw> {
    let number = u64::from_le_bytes(*entropy::random().map_err(io::Error::other)?);
    let path = std::env::temp_dir().join(format!(".keytally.{number:016x}"));
    let file = create_new(&path)?;
    std::fs::remove_file(&path)?;
    write_zeros(&file, len as u64)?;
    MmapOptions::new().len(len).map_raw(&file)
}

/// Bits of the number of a process.
pub(crate) const NUMBER_BITS: u32 = 22;

/// Bits of a scope.
pub(crate) const SCOPE_BITS: u32 = 17;

/// Returns 0: this module does not read when another process started.
pub(crate) const fn start() -> u64 {
    0
}

/// Examines the process with a number. A process that has ended and was not waited for counts as
/// hidden.
pub(crate) fn thread_state(number: u64) -> ThreadState {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    match pid.map(test_kill_process) {
        None | Some(Err(Errno::SRCH)) => ThreadState::Ended,
        _ => ThreadState::Hidden,
    }
}

/// Returns what this process can see of a process: its number.
pub(crate) fn describe(number: u64) -> LockHolder {
    LockHolder { pid: u32::try_from(number).ok(), program: None, stopped: false }
}

/// Returns `None`: these systems have no coarse clock.
#[inline]
pub(crate) const fn coarse_time() -> Option<Duration> {
    None
}

/// Returns the largest resolution, so that only the precise clock is read.
pub(crate) const fn coarse_resolution() -> Duration {
    Duration::MAX
}
