//! Listening sockets: TCP addresses, Unix sockets with their files, and sockets of systemd.

use core::net::{Ipv6Addr, SocketAddr};
use std::io;
use std::path::Path;

use keytally::redact::redact;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpListener, TcpStream};

use super::address::Peer;
#[cfg(unix)]
use super::passed::PassedSockets;
use super::socket::Socket;
#[cfg(unix)]
use super::unix_socket::bind_unix;
use crate::system::{limit_buffers, stop_queuing};
use keytally_cli::internal::Failure;

/// The kernel's send buffer of a connection, in bytes. The kernel doubles the value.
const SEND_BUFFER_LEN: usize = 16 * 1024;

/// The kernel's receive buffer of a connection, in bytes. The kernel doubles the value.
const RECEIVE_BUFFER_LEN: usize = 16 * 1024;

/// The prefix of the address of a Unix socket.
const UNIX: &str = "unix:";

/// The address of a socket that systemd passes; a colon and a name may follow.
const SYSTEMD: &str = "systemd";

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    /// Whether systemd passed it. Connections then wait in it while no service runs.
    is_passed: bool,
}

/// Where listeners get their sockets.
pub(crate) struct Sockets {
    /// The permissions of the files of Unix sockets.
    #[cfg_attr(windows, expect(dead_code, reason = "Windows has no such files"))]
    mode: u32,
    #[cfg(unix)]
    passed: PassedSockets,
}

impl Sockets {
    /// Reads which sockets systemd passed: see [`PassedSockets::from_environment`]. The files of
    /// Unix sockets get `mode`.
    pub(crate) fn new(mode: u32) -> Self {
        Self {
            mode,
            #[cfg(unix)]
            passed: PassedSockets::from_environment(),
        }
    }
}

/// Returns the name in an address such as `systemd:api`, which is empty for `systemd`; `None` for
/// other addresses.
pub(crate) fn passed_name(address: &str) -> Option<&str> {
    match address.strip_prefix(SYSTEMD)? {
        "" => Some(""),
        rest => rest.strip_prefix(':'),
    }
}

/// Checks the syntax of an address to listen on.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let is_tcp = |(host, port): (&str, &str)| {
        let brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let has_host = match brackets {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '[', ']']),
        };
        has_host && port.parse::<u16>().is_ok()
    };
    let is_address = match text.strip_prefix("unix:") {
        Some(path) => !path.is_empty(),
        None => passed_name(text).is_some() || text.rsplit_once(':').is_some_and(is_tcp),
    };
    if is_address {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{:?} is not an address; write an address and a port, such as 127.0.0.1:8080 or [::1]:8080, or unix: and a path, or systemd",
        redact(text)
    ))
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
    /// Listens at `address`, the value of `option`: a TCP address, `unix:` and a path whose file
    /// gets the mode of `sockets`, or `systemd` and the name of a socket that systemd passed.
    /// Windows has neither of the latter two, so there they are errors.
    pub(crate) async fn bind(
        option: &str,
        address: &str,
        sockets: &mut Sockets,
    ) -> Result<Self, Failure> {
        let passed = passed_name(address);
        let bound = match (address.strip_prefix(UNIX), passed) {
            #[cfg(unix)]
            (Some(path), _) => bind_unix(Path::new(path), sockets.mode)
                .map(|(socket, file)| Socket::Unix(socket, file)),
            #[cfg(unix)]
            (_, Some(name)) => sockets.passed.take(name).and_then(|socket| match socket {
                Socket::Tcp(listener) => limited(listener),
                unix @ Socket::Unix(..) => Ok(unix),
            }),
            #[cfg(windows)]
            (Some(_), _) | (_, Some(_)) => Err(io::ErrorKind::Unsupported.into()),
            (None, None) => TcpListener::bind(address).await.and_then(limited),
        };
        let bound = bound.map(|socket| Self { socket, is_passed: passed.is_some() });
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
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Socket::Unix(..) => None,
        }
    }

    /// Returns the path of the Unix socket.
    pub(crate) fn unix_path(&self) -> Option<&Path> {
        match &self.socket {
            Socket::Tcp(_) => None,
            #[cfg(unix)]
            Socket::Unix(_, file) => Some(file.path()),
        }
    }

    /// Accepts a connection.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Stream::Tcp(stream), address.ip().into()))
            }
            #[cfg(unix)]
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                // An accepted TCP stream inherits the option from its listener, a Unix stream does
                // not.
                limit_buffers(&stream, SEND_BUFFER_LEN, None)?;
                Ok((Stream::Unix(stream), Peer::Local))
            }
        }
    }

    /// Stops listening, after serving the connections that the kernel has already accepted. Those
    /// in a socket of systemd wait for the next start.
    pub(crate) fn close(self, mut serve: impl FnMut(Stream, Peer)) -> io::Result<()> {
        if self.is_passed {
            return Ok(());
        }
        // With a backlog of 0, the kernel queues at most one more connection between the last
        // `accept` and `close`.
        match self.socket {
            Socket::Tcp(listener) => {
                let listener = listener.into_std()?;
                stop_queuing(&listener)?;
                while let Ok((stream, address)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    serve(Stream::Tcp(TcpStream::from_std(stream)?), address.ip().into());
                }
            }
            #[cfg(unix)]
            Socket::Unix(listener, file) => {
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

/// Limits the buffers of the connections of a listener, which inherit the sizes.
fn limited(listener: TcpListener) -> io::Result<Socket> {
    limit_buffers(&listener, SEND_BUFFER_LEN, Some(RECEIVE_BUFFER_LEN))?;
    Ok(Socket::Tcp(listener))
}
