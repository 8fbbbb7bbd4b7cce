//! Ports for programs that cannot choose one.

use std::net::TcpListener;

/// Returns a free port that the kernel gives to no client. A client that waits for a server could
/// otherwise get the server's port as its own, and connect to itself.
pub(crate) fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    (first..32_768).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
