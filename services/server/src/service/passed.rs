//! Listening sockets that a service manager opened and passed to the process: systemd's socket
//! activation.
//!
//! systemd passes the sockets of the unit `keytally.socket` from descriptor 3 on, with their number
//! in `LISTEN_FDS`, their names in `LISTEN_FDNAMES` and the process in `LISTEN_PID`: see
//! sd_listen_fds(3). It keeps them open, so clients wait while the service restarts.

use std::io;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use super::socket::Socket;
use super::unix_socket::SocketFile;

/// The sockets that were passed to this process.
pub(crate) struct PassedSockets {
    sockets: ListenFd,
    names: Vec<String>,
}

impl PassedSockets {
    /// Reads which sockets were passed. It is called before there are other threads, because it
    /// removes the variables, which are not for child processes.
    pub(crate) fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Self { sockets: ListenFd::from_env(), names: names.split(':').map(str::to_owned).collect() }
    }

    /// Takes the socket with this name, or the first one if `name` is empty.
    ///
    /// # Errors
    /// If there is none, if it was taken, or if several have its name: clients of those that are
    /// not served would wait without end.
    pub(super) fn take(&mut self, name: &str) -> io::Result<Socket> {
        let position = match name {
            "" => Some(0),
            _ => self.names.iter().position(|other| other == name),
        };
        let is_passed = |index: &usize| *index < self.sockets.len();
        let Some(index) = position.filter(is_passed) else { return Err(self.missing(name)) };
        self.check_unique(index)?;
        if let Ok(Some(listener)) = self.sockets.take_tcp_listener(index) {
            listener.set_nonblocking(true)?;
            return Ok(Socket::Tcp(TcpListener::from_std(listener)?));
        }
        let Some(listener) = self.sockets.take_unix_listener(index)? else {
            return Err(io::Error::other("another option uses this socket"));
        };
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let path = address.as_pathname().unwrap_or_else(|| "(without a path)".as_ref());
        Ok(Socket::Unix(UnixListener::from_std(listener)?, SocketFile::of_another_process(path)))
    }

    /// Checks that no other socket has the name of the socket with this index.
    fn check_unique(&self, index: usize) -> io::Result<()> {
        let name = self.names.get(index).filter(|name| !name.is_empty());
        let count = self.names.iter().filter(|&other| Some(other) == name).count();
        match name {
            Some(name) if count > 1 => Err(io::Error::other(format!(
                "systemd passed {count} sockets of the name {name}, and one is served; in the \
                 socket's unit, an empty ListenStream= before the new address removes the others"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the error for a socket that was not passed.
    fn missing(&self, name: &str) -> io::Error {
        let passed = match (self.sockets.len(), self.names.join(", ")) {
            (0, _) => "systemd passed no socket to this process".to_owned(),
            (count, names) if names.is_empty() => format!("systemd passed {count} without names"),
            (_, names) => format!("systemd passed {names}"),
        };
        let name = if name.is_empty() { String::new() } else { format!(" of the name {name}") };
        io::Error::new(io::ErrorKind::NotFound, format!("there is no socket{name}: {passed}"))
    }
}
