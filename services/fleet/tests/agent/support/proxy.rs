//! A proxy between agents and a server, which loses, delays and repeats what it forwards.

use alloc::sync::Arc;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use keytally_core::sync::{AtomicU64, Ordering};

use crate::support::servers::free_port;

/// What the proxy does to each of its connections, from now on.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// If not 0, bytes of requests are read and dropped, and the connection stays open.
    pub(crate) drops_requests: AtomicU64,
    /// The same for replies: the server has applied the requests.
    pub(crate) drops_replies: AtomicU64,
    /// For how many milliseconds each forwarded piece of requests waits, and each of replies.
    pub(crate) delays_ms: [AtomicU64; 2],
    /// Instead of forwarding each n-th piece of replies, the connection breaks. 0 for never.
    pub(crate) breaks_each: AtomicU64,
    /// Each piece of requests is sent again on a connection of its own, this much later.
    pub(crate) repeats_after_ms: AtomicU64,
    /// If not 0, no further connection is made.
    pub(crate) refuses: AtomicU64,
    pieces: AtomicU64,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) faults: Arc<Faults>,
    stop: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) fn start(server: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (faults, stop) = (Arc::new(Faults::default()), Arc::new(AtomicU64::new(0)));
        let proxy = Self { port, faults: faults.clone(), stop: stop.clone() };
        thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::Acquire) != 0 {
                    return;
                }
                let Ok(client) = client else { continue };
                if faults.refuses.load(Ordering::Acquire) != 0 {
                    continue;
                }
                let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let (client_again, upstream_again) =
                    (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let (one, other) = (faults.clone(), faults.clone());
                thread::spawn(move || forward(client, upstream, true, server, &one));
                thread::spawn(move || forward(upstream_again, client_again, false, server, &other));
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Release);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Forwards pieces in one direction until either side closes.
fn forward(
    mut from: TcpStream,
    mut to: TcpStream,
    is_request: bool,
    server: u16,
    faults: &Arc<Faults>,
) {
    let mut piece = vec![0; 1 << 20];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        let dropped = if is_request { &faults.drops_requests } else { &faults.drops_replies };
        let delay = faults.delays_ms[usize::from(!is_request)].load(Ordering::Acquire);
        if delay > 0 {
            thread::sleep(Duration::from_millis(delay));
        }
        if dropped.load(Ordering::Acquire) != 0 {
            continue;
        }
        if is_request {
            repeat(&piece[..read], server, faults);
        } else {
            let number = faults.pieces.fetch_add(1, Ordering::AcqRel) + 1;
            let every = faults.breaks_each.load(Ordering::Acquire);
            if every > 0 && number.is_multiple_of(every) {
                break;
            }
        }
        if to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Sends a piece of requests again, later and on another connection.
fn repeat(piece: &[u8], server: u16, faults: &Faults) {
    let after_ms = faults.repeats_after_ms.load(Ordering::Acquire);
    if after_ms == 0 {
        return;
    }
    let piece = piece.to_vec();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(after_ms));
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", server)) else { return };
        let _ = stream.write_all(&piece);
        let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
        let _ = stream.read(&mut [0; 4096]);
    });
}
