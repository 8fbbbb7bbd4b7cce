//! Everything that differs between operating systems: files, access to them, locks on them, memory
//! that processes share, threads, and the coarse clock. The rest of this crate is the same on all.
//!
//! | | Linux | macOS, FreeBSD | Windows |
//! |---|---|---|---|
//! | a new file before it has its name | without a name (`O_TMPFILE`) | under a temporary name | under a temporary name, and closed before it gets its own |
//! | disk space | `fallocate` | zeros are written | `SetEndOfFile` |
//! | access | owner and mode | owner and mode | owner and access control list |
//! | identity | device and inode | device and inode | volume and file id |
//! | flush | `fdatasync` | `msync`, then `F_FULLFSYNC` or `fsync` | `FlushViewOfFile`, then `FlushFileBuffers` |
//! | evidence that an administrator is alive | `flock`, and its thread | `flock`, and its process | `LockFileEx`, and its process |
//! | a table in memory | a sealed memfd | a file without a name | anonymous memory; Windows does not fork |
//! | coarse clock | `CLOCK_REALTIME_COARSE` | none | none |
//! | a wait for credits of a fleet | `futex` | short sleeps | short sleeps |
//! | the boot that a fleet file is of | `boot_id` | not known | not known |

#[cfg(any(windows, test))]
mod access_list;
#[cfg(all(unix, not(target_os = "linux")))]
mod bsd;
#[cfg(target_os = "linux")]
mod futex;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod polling;
#[cfg(not(target_os = "linux"))]
mod thread;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use bsd::*;
#[cfg(target_os = "linux")]
pub(crate) use futex::*;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use polling::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use thread::*;
#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;
