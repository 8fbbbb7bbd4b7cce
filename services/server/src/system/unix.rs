//! Unix: signals, limits and locks.

use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

#[cfg(target_os = "linux")]
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Returns the name of this machine.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// SIGTERM and SIGINT, which stop the service.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs the signal handlers.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUP, which makes the service reopen the gate file.
pub(crate) type Hangup = Signal;

/// Returns a stream of SIGHUP, or `None` if standard input is a terminal.
///
/// From a terminal, SIGHUP means that the terminal was closed, and ends the service.
pub(crate) fn hangup() -> io::Result<Option<Hangup>> {
    if io::stdin().is_terminal() { Ok(None) } else { signal(SignalKind::hangup()).map(Some) }
}

/// Raises the soft limit of open files to `wanted` if the hard limit permits. Returns the limit.
pub(crate) fn raise_file_limit(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(wanted as u64, |most| most.min(wanted as u64));
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = current < wanted
        && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
            .is_ok();
    usize::try_from(if raised { wanted } else { current }).unwrap_or(usize::MAX)
}

/// Returns whether the system lacks files or memory for another connection.
pub(crate) fn is_out_of_resources(error: &io::Error) -> bool {
    let errors = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| errors.contains(&error))
}

/// Sets the sizes of the kernel's buffers of a connection, in bytes. The kernel doubles them.
/// Connections that a TCP socket accepts inherit them.
pub(crate) fn limit_buffers(
    socket: &impl AsFd,
    send: usize,
    receive: Option<usize>,
) -> io::Result<()> {
    set_socket_send_buffer_size(socket, send)?;
    if let Some(receive) = receive {
        set_socket_recv_buffer_size(socket, receive)?;
    }
    Ok(())
}

/// Sets the backlog to 0, so that the kernel queues at most one more connection.
pub(crate) fn stop_queuing(listener: &impl AsFd) -> io::Result<()> {
    Ok(rustix::net::listen(listener, 0)?)
}

/// Creates a folder to which only the owner has access, unless it exists.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Returns whether a file has the owner of a folder. True if one of them cannot be examined.
pub(crate) fn has_owner_of(file: &Path, folder: &Path) -> bool {
    match (file.metadata(), folder.metadata()) {
        (Ok(file), Ok(folder)) => file.uid() == folder.uid(),
        _ => true,
    }
}

/// Tries to lock a folder. The lock is held while the file is open.
pub(crate) fn try_lock_folder(folder: &Path) -> io::Result<Option<File>> {
    let handle = File::open(folder)?;
    match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(handle)),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns what identifies a file: its device, its inode and the time of its creation. A file
/// system gives the inode of a removed file to the next one.
pub(crate) fn file_id(path: &Path) -> io::Result<[u64; 3]> {
    let metadata = path.metadata()?;
    Ok([metadata.dev(), metadata.ino(), created(path, &metadata).unwrap_or(0)])
}

/// Returns the time of a file's creation in nanoseconds, if the file system records it.
#[cfg(target_os = "linux")]
fn created(path: &Path, _: &Metadata) -> Option<u64> {
    // With musl, the standard library does not have this time.
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BTIME).ok()?;
    let is_recorded = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let seconds = u64::try_from(found.stx_btime.tv_sec).ok().filter(|_| is_recorded)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(found.stx_btime.tv_nsec.into())
}

/// Returns the time of a file's creation in nanoseconds, if the file system records it.
#[cfg(not(target_os = "linux"))]
fn created(_: &Path, metadata: &Metadata) -> Option<u64> {
    let since = metadata.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}
