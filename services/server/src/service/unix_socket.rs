//! Unix sockets and their files.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::umask;
use tokio::net::UnixListener;

/// The file of a Unix socket. When dropped, it is removed unless another socket has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode, which distinguish this file from a later one of the same name. `None` if
    /// another process made the file.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// A file that another process made, and removes.
    pub(super) fn of_another_process(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Listens at `path`, whose file gets `mode`.
pub(super) fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    // The umask makes the file's mode right from its creation. No other thread creates files
    // meanwhile.
    let before = umask(!Mode::from_raw_mode(mode) & Mode::from_raw_mode(0o777));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    let found = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: Some((found.dev(), found.ino())) };
    Ok((listener, file))
}

/// Removes a socket file on which no process listens, such as that of a killed service.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is not a socket"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // Non-blocking: if the queue of a listener is full, `connect` would wait.
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
    match connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path)
            .is_ok_and(|found| self.identity == Some((found.dev(), found.ino())))
        {
            // A file that cannot be removed is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
