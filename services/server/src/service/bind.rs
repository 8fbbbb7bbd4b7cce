//! Listening sockets: TCP addresses, and Unix sockets with their files.

use core::net::SocketAddr;
use std::io;
use std::path::Path;

use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use super::address::Peer;
#[cfg(unix)]
use super::unix_socket::{SocketFile, bind_unix};
use crate::system::{limit_buffers, stop_queuing};
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
    #[cfg(unix)]
    Unix(UnixListener, SocketFile),
}

/// The listening sockets of a service.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// That of the API, and of all that has no other.
    pub(crate) main: Listener,
    /// That of the metrics.
    pub(crate) metrics: Option<Listener>,
    /// That of the list of keys.
    pub(crate) keys: Option<Listener>,
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Listener {
    /// Listens at `address`, the value of `option`: a TCP address, or `unix:` and a path whose file
    /// gets `mode`. Windows has no file of a Unix socket with a mode, so there it is an error.
    #[cfg_attr(windows, expect(unused_variables, reason = "it is the mode of a Unix socket"))]
    pub(crate) async fn bind(option: &str, address: &str, mode: u32) -> Result<Self, Failure> {
        let bound = match address.strip_prefix(UNIX) {
            #[cfg(unix)]
            Some(path) => {
                bind_unix(Path::new(path), mode).map(|(socket, file)| Self::Unix(socket, file))
            }
            #[cfg(windows)]
            Some(_) => Err(io::ErrorKind::Unsupported.into()),
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
            #[cfg(unix)]
            Self::Unix(..) => None,
        }
    }

    /// Returns the path of the Unix socket.
    pub(crate) fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            #[cfg(unix)]
            Self::Unix(_, file) => Some(file.path()),
        }
    }

    /// Accepts a connection.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), address.ip().into()))
            }
            #[cfg(unix)]
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                // An accepted TCP stream inherits the option from its listener, a Unix stream does
                // not.
                limit_buffers(&stream, SEND_BUFFER_LEN, None)?;
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
                stop_queuing(&listener)?;
                while let Ok((stream, address)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    serve(Stream::Tcp(TcpStream::from_std(stream)?), address.ip().into());
                }
            }
            #[cfg(unix)]
            Self::Unix(listener, file) => {
                let listener = listener.into_std()?;
                stop_queuing(&listener)?;
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
    limit_buffers(&listener, SEND_BUFFER_LEN, Some(RECEIVE_BUFFER_LEN))?;
    Ok(Listener::Tcp(listener))
}
