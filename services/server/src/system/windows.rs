//! Windows: console events and locks. The system has no limit of open files that a process can
//! raise, and no SIGHUP.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::Path;

use tokio::net::TcpListener;
use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlShutdown, ctrl_break, ctrl_c, ctrl_shutdown};

/// Returns the name of this machine.
pub(crate) fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// Ctrl-C, Ctrl-Break and the end of the system, which stop the service.
pub(crate) struct StopSignals {
    interrupt: CtrlC,
    stop: CtrlBreak,
    shutdown: CtrlShutdown,
}

impl StopSignals {
    /// Installs the handlers.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: ctrl_c()?, stop: ctrl_break()?, shutdown: ctrl_shutdown()? })
    }

    /// Waits for the next event.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.stop.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}

/// The stream of an event that does not exist.
pub(crate) enum Hangup {}

impl Hangup {
    pub(crate) async fn recv(&mut self) -> Option<()> {
        match *self {}
    }
}

/// Returns `None`: there is no SIGHUP. The service follows the gate file anyway.
pub(crate) const fn hangup() -> io::Result<Option<Hangup>> {
    Ok(None)
}

/// Returns `wanted`: the system has no such limit.
pub(crate) const fn raise_file_limit(wanted: usize) -> usize {
    wanted
}

/// Returns whether the system lacks sockets or memory for another connection.
pub(crate) fn is_out_of_resources(error: &io::Error) -> bool {
    // WSAEMFILE and WSAENOBUFS
    matches!(error.raw_os_error(), Some(10_024 | 10_055))
}

/// Does nothing: the system chooses the sizes of buffers.
pub(crate) const fn limit_buffers(_: &TcpListener, _: usize, _: Option<usize>) -> io::Result<()> {
    Ok(())
}

/// Does nothing: the system resets the connections that it has queued when the socket is closed.
pub(crate) const fn stop_queuing(_: &std::net::TcpListener) -> io::Result<()> {
    Ok(())
}

/// Creates a folder, unless it exists. The files in it have access control lists of their own.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(folder)
}

/// Returns true: the command that changes an owner is one of Unix.
pub(crate) const fn has_owner_of(_: &Path, _: &Path) -> bool {
    true
}

/// Tries to lock a folder, by a file in it that only one process can have open. The lock is held
/// while the file is open.
pub(crate) fn try_lock_folder(folder: &Path) -> io::Result<Option<File>> {
    const ERROR_SHARING_VIOLATION: i32 = 32;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).share_mode(0);
    match options.open(folder.join("lock")) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what identifies a file: its volume, its index there, and the time of its creation. A
/// file that replaces one of the same name within seconds may get that file's time, but NTFS does
/// not give it the index, which has a sequence number.
pub(crate) fn file_id(path: &Path) -> io::Result<[u64; 3]> {
    let found = winapi_util::file::information(File::open(path)?)?;
    let created = found.creation_time().unwrap_or(0);
    Ok([found.volume_serial_number(), found.file_index(), created])
}
