//! Connections: accepted, bounded in number, memory and patience, and ended gracefully.

use alloc::sync::Arc;
use core::future::Future;
use core::time::Duration;
use std::io;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{interval, sleep, timeout};

use super::address::{Network, Peer, TrustedProxies};
use super::bind::{Listener, Stream};
use super::slots::{AGES, Reporter, Slot, Slots, Watched, spare};
use keytally_cli::Failure;

/// Connections of the listener for metrics at a time.
pub(crate) const MAX_METRICS_CONNECTIONS: usize = 64;

/// Files that the process opens besides connections.
const OTHER_FILES: usize = 64;

/// The longest head of a request, in bytes: what hyper calls `max_buf_size` in HTTP/1 and `max_header_list_size` in HTTP/2.
const MAX_HEAD_LEN: u16 = 16 * 1024;

/// Requests of one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 100;

/// Bytes of request bodies that an HTTP/2 client may send unasked, on a stream and on a connection: the protocol's default.
const HTTP2_WINDOW: u32 = 65_535;

/// Bytes of an answer that wait for room in an HTTP/2 stream.
const HTTP2_SEND_LEN: usize = 16 * 1024;

/// Streams that an HTTP/2 client has reset before they were accepted; with one more, the connection is ended.
const MAX_PENDING_RESETS: usize = 20;

/// Streams that the service has reset for errors of an HTTP/2 client; with one more, the connection is ended.
const MAX_ERROR_RESETS: usize = 128;

/// How long requests that are being answered may take when the service stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long the requests that are on their way when the service stops are waited for.
const LINGER: Duration = Duration::from_millis(100);

/// How long to wait when the system has no room for another connection.
const BREATHER: Duration = Duration::from_millis(100);

/// The signals that stop the service.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Takes the signals over from now on.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn came(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lets the process open files for so many connections, and returns for how many the system permits it.
pub(crate) fn permitted_connections(connections: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let others = MAX_METRICS_CONNECTIONS + spare(MAX_METRICS_CONNECTIONS) + OTHER_FILES;
    let wanted = (connections + spare(connections) + others) as u64;
    let wanted = limit.maximum.map_or(wanted, |most| wanted.min(most));
    let now = limit.current.unwrap_or(u64::MAX);
    let raised = now < wanted
        && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).is_ok();
    let files = usize::try_from(if raised { wanted } else { now }).unwrap_or(usize::MAX);
    (files.saturating_sub(others) / 9 * 8).clamp(1, connections)
}

/// A listener, and what its connections get.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) listener: Listener,
    pub(crate) router: Router,
    pub(crate) slots: Arc<Slots>,
    /// The peers, besides this machine, whose connections are not counted by address.
    pub(crate) proxies: Arc<TrustedProxies>,
    /// How long a connection may make no progress.
    pub(crate) patience: Duration,
}

/// Serves until it is stopped. Returns whether all requests were answered in time.
pub(crate) async fn serve(doors: Vec<Door>, mut stop: Stop) -> Result<bool, Failure> {
    let graceful = Arc::new(GracefulShutdown::new());
    let (stopping, _) = watch::channel(());
    let mut open = JoinSet::new();
    for door in doors {
        open.spawn(door.open(Arc::clone(&graceful), stopping.subscribe()));
    }
    stop.came().await;
    stopping.send_replace(());
    while let Some(closed) = open.join_next().await {
        closed??;
    }
    sleep(LINGER).await;
    let finished = async {
        // The doors, which share it, have ended.
        if let Some(graceful) = Arc::into_inner(graceful) {
            graceful.shutdown().await;
        }
    };
    tokio::select! {
        () = finished => Ok(true),
        () = sleep(STOP_WITHIN) => Ok(false),
        () = stop.came() => Ok(false),
    }
}

impl Door {
    /// Serves connections until the service stops, those included that the kernel has accepted already.
    async fn open(
        self,
        graceful: Arc<GracefulShutdown>,
        mut stopping: watch::Receiver<()>,
    ) -> io::Result<()> {
        let Self { listener, router, slots, proxies, patience } = self;
        let connections = Connections { patience, router, graceful };
        let mut ages = interval(patience / AGES);
        loop {
            tokio::select! {
                _ = stopping.changed() => break,
                _ = ages.tick() => slots.age(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        if let Some(slot) = slots.take(counted(peer, &proxies)).await {
                            connections.accept(stream, peer, slot);
                        }
                    }
                    Err(error) => {
                        if let Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) = Errno::from_io_error(&error) {
                            slots.displace_oldest();
                        }
                        sleep(BREATHER).await;
                    }
                },
            }
        }
        listener.close(|stream, peer| {
            if let Some(slot) = slots.enter(counted(peer, &proxies)) {
                connections.accept(stream, peer, slot);
            }
        })
    }
}

/// The network that a peer's connections are counted by. This machine and trusted proxies connect for many clients.
fn counted(peer: Peer, proxies: &TrustedProxies) -> Option<Network> {
    match peer {
        Peer::Address(address) if !address.is_loopback() && !proxies.contain(peer) => {
            Some(Network::of(address))
        }
        _ => None,
    }
}

/// What makes answers out of bytes: HTTP/1, and HTTP/2 if that is how the client begins.
fn server(streams: Streams) -> auto::Builder<Streams> {
    let mut server = auto::Builder::new(streams);
    // Slots watch over time, for both protocols alike.
    server.http1().title_case_headers(true).header_read_timeout(None).max_buf_size(MAX_HEAD_LEN.into());
    server
        .http2()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_LEN.into())
        .initial_stream_window_size(HTTP2_WINDOW)
        .initial_connection_window_size(HTTP2_WINDOW)
        .max_send_buf_size(HTTP2_SEND_LEN)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS);
    server
}

/// Runs the streams of an HTTP/2 connection. One whose client does not take the answer in time is reset, and all end
/// with the connection.
#[derive(Clone, Debug)]
struct Streams {
    patience: Duration,
    connection: Reporter,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let Self { patience, connection } = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = connection.must_close() => {}
                _ = timeout(patience, stream) => {}
            }
        });
    }
}

/// What turns accepted streams into served connections.
struct Connections {
    patience: Duration,
    router: Router,
    graceful: Arc<GracefulShutdown>,
}

impl Connections {
    fn accept(&self, stream: Stream, peer: Peer, slot: Slot) {
        match stream {
            Stream::Tcp(stream) => {
                // Answers are small and must not wait for company. Where it can't be had they do.
                let _ = stream.set_nodelay(true);
                self.serve(stream, peer, slot);
            }
            Stream::Unix(stream) => self.serve(stream, peer, slot),
        }
    }

    /// Serves a connection until it ends or must be closed.
    fn serve<S>(&self, stream: S, peer: Peer, slot: Slot)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let routes = TowerToHyperService::new(self.router.clone());
        let reporter = slot.reporter();
        let server = server(Streams { patience: self.patience, connection: reporter.clone() });
        let stream = TokioIo::new(Watched::new(stream, reporter.clone()));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let pipelined = reporter.request();
            request.extensions_mut().insert(peer);
            let response = routes.call(request);
            async move {
                if pipelined {
                    // Else a few thousand connections of many requests would delay every other client by seconds.
                    yield_now().await;
                }
                response.await
            }
        });
        let connection = self.graceful.watch(server.serve_connection(stream, service).into_owned());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = slot.must_close() => {}
                // That a client breaks off is its own affair.
                _ = connection => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::super::address::TrustedProxy;
    use super::*;

    #[test]
    fn loopback_and_trusted_proxies_are_not_counted() {
        let proxies = ["10.0.0.0/8".parse::<TrustedProxy>().unwrap()].into_iter().collect();
        let is_counted = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            counted(address.into(), &proxies).is_some()
        };
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.1.2.3"] {
            assert!(!is_counted(address), "{address}");
        }
        for address in ["203.0.113.1", "192.168.0.1", "2001:db8::1"] {
            assert!(is_counted(address), "{address}");
        }
        assert!(counted(Peer::Local, &proxies).is_none());
    }
}
