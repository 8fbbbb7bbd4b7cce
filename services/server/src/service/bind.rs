//! Listening sockets: TCP addresses, and Unix sockets with their files.

use core::net::SocketAddr;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::umask;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::address::Peer;
use keytally_cli::internal::Failure;

/// The kernel's send buffer of a connection, in bytes. The kernel doubles the value.
const SEND_BUFFER_LEN: usize = 16 * 1024;

/// The kernel's receive buffer of a connection, in bytes. The kernel doubles the value.
const RECEIVE_BUFFER_LEN: usize = 16 * 1024;

/// The prefix of the address of a Unix socket.
const UNIX: &str = "unix:";

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The file of a Unix socket. When dropped, it is removed unless another socket has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode, which distinguish this file from a later one of the same name.
    identity: (u64, u64),
}

impl Listener {
    /// Listens at `address`, the value of `option`: a TCP address, or `unix:` and a path whose file
    /// gets `mode`.
    pub(crate) async fn bind(option: &str, address: &str, mode: u32) -> Result<Self, Failure> {
        let bound = match address.strip_prefix(UNIX) {
            Some(path) => bind_unix(Path::new(path), mode),
            None => bind_tcp(address).await,
        };
        bound.map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse if address.starts_with(UNIX) => {
                    "; choose another path with "
                }
                io::ErrorKind::AddrInUse => {
                    "; choose another address, such as 127.0.0.1:0 for a free port, with "
                }
                _ => return Failure::new(format!("cannot listen on {address}: {error}")),
            };
            Failure::new(format!("cannot listen on {address}: {error}{advice}{option}"))
        })
    }

    /// Returns the TCP address, with the port that the system chose.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Returns the path of the Unix socket.
    pub(crate) fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, file) => Some(&file.path),
        }
    }

    /// Accepts a connection.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), address.ip().into()))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                // An accepted TCP stream inherits the option from its listener, a Unix stream does
                // not.
                set_socket_send_buffer_size(&stream, SEND_BUFFER_LEN)?;
                Ok((Stream::Unix(stream), Peer::Local))
            }
        }
    }

    /// Stops listening, after serving the connections that the kernel has already accepted.
    pub(crate) fn close(self, mut serve: impl FnMut(Stream, Peer)) -> io::Result<()> {
        // With a backlog of 0, the kernel queues at most one more connection between the last
        // `accept` and `close`.
        match self {
            Self::Tcp(listener) => {
                let listener = listener.into_std()?;
                rustix::net::listen(&listener, 0)?;
                while let Ok((stream, address)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    serve(Stream::Tcp(TcpStream::from_std(stream)?), address.ip().into());
                }
            }
            Self::Unix(listener, file) => {
                let listener = listener.into_std()?;
                rustix::net::listen(&listener, 0)?;
                // The file is removed first, so that later clients find no socket instead of one
                // that refuses them.
                drop(file);
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    serve(Stream::Unix(UnixStream::from_std(stream)?), Peer::Local);
                }
            }
        }
        Ok(())
    }
}

async fn bind_tcp(address: &str) -> io::Result<Listener> {
    let listener = TcpListener::bind(address).await?;
    // Accepted connections inherit the sizes.
    set_socket_send_buffer_size(&listener, SEND_BUFFER_LEN)?;
    set_socket_recv_buffer_size(&listener, RECEIVE_BUFFER_LEN)?;
    Ok(Listener::Tcp(listener))
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    remove_stale(path)?;
    // The umask makes the file's mode right from its creation. No other thread creates files
    // meanwhile.
    let before = umask(!Mode::from_raw_mode(mode) & Mode::from_raw_mode(0o777));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    let found = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()) };
    Ok(Listener::Unix(listener, file))
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
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
        {
            // A file that cannot be removed is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
