//! Reports to the supervisor of a service, as `sd_notify` of systemd does: a datagram of lines
//! `NAME=VALUE` to the socket that the environment variable `NOTIFY_SOCKET` names.

use core::time::Duration;
use std::env;
#[cfg(unix)]
use std::os::unix::net::UnixDatagram;

/// The supervisor, or nothing if none waits for reports.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    #[cfg(unix)]
    socket: Option<UnixDatagram>,
    /// How long the supervisor waits for a report that the process works.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Returns the supervisor that the environment names. A socket that cannot be reached counts as
    /// none.
    #[cfg(unix)]
    pub(crate) fn of_environment() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let Some(socket) = name.and_then(|name| connect(&name).ok()) else {
            return Self::default();
        };
        let watchdog = watchdog(env::var("WATCHDOG_USEC").ok(), env::var("WATCHDOG_PID").ok());
        Self { socket: Some(socket), watchdog }
    }

    /// Returns no supervisor: the system has no such socket.
    #[cfg(not(unix))]
    pub(crate) fn of_environment() -> Self {
        Self::default()
    }

    /// Returns how long the supervisor waits for a report that the process works, if it does.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends lines `NAME=VALUE`. Errors are ignored: the supervisor may have ended.
    #[cfg(unix)]
    pub(crate) fn report(&self, lines: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(lines.as_bytes());
        }
    }

    /// Does nothing.
    #[cfg(not(unix))]
    pub(crate) fn report(&self, _: &str) {}
}

/// Returns a socket that is connected to the path or, after an `@`, to the abstract address.
#[cfg(unix)]
fn connect(name: &std::ffi::OsStr) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::SocketAddr;

        socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        return Ok(socket);
    }
    socket.connect(name)?;
    Ok(socket)
}

/// Returns the time in `WATCHDOG_USEC`, unless `WATCHDOG_PID` names another process.
#[cfg(unix)]
fn watchdog(micros: Option<String>, pid: Option<String>) -> Option<Duration> {
    let is_own = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let micros = micros?.parse().ok().filter(|&micros| is_own && micros > 0)?;
    Some(Duration::from_micros(micros))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn time_of_the_watchdog_is_that_of_this_process() {
        let text = |text: &str| Some(text.to_owned());
        let own = std::process::id();
        assert_eq!(watchdog(text("2000000"), None), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(text("5"), text(&own.to_string())), Some(Duration::from_micros(5)));
        assert_eq!(watchdog(text("5"), text(&(own + 1).to_string())), None);
        for other in [None, text("0"), text("-1"), text("")] {
            assert_eq!(watchdog(other, None), None);
        }
    }
}
