//! Ports for programs that cannot choose one.

use core::sync::atomic::{AtomicU16, Ordering};
use std::net::TcpListener;

/// Returns a free port that the kernel gives to no client, and that this process was not given
/// before. A client that waits for a server could otherwise get the server's port as its own, and
/// connect to itself.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = first + TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_768, "no port is free");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
