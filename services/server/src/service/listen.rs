//! Endpoints: accepting connections, serving them within limits of number, memory and time, and
//! graceful shutdown.

use alloc::sync::Arc;
use core::future::{Future, pending};
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::address::{Network, Peer, TrustedProxies};
use super::bind::{Listener, Stream};
use super::slots::{AGES, MonitoredStream, ProgressReporter, Slot, Slots, spare};
use crate::notify::Supervisor;
use crate::system::{StopSignals, is_out_of_resources, raise_file_limit};
use keytally_cli::internal::Failure;

/// The maximum number of open connections of a separate endpoint for metrics.
pub(crate) const MAX_METRICS_CONNECTIONS: usize = 64;

/// The maximum number of open connections of a separate endpoint for the list of keys.
pub(crate) const MAX_KEYS_CONNECTIONS: usize = 256;

/// The number of files that the process opens in addition to connections.
const OTHER_FILES: usize = 64;

/// The maximum length of a request head, in bytes: `max_buf_size` of hyper in HTTP/1, and
/// `max_header_list_size` in HTTP/2.
const MAX_HEAD_LEN: u16 = 16 * 1024;

/// The maximum number of concurrent streams of an HTTP/2 connection.
const MAX_STREAMS: u32 = 100;

/// The flow-control window of an HTTP/2 stream and of a connection, in bytes: the default of RFC
/// 9113.
const HTTP2_WINDOW: u32 = 65_535;

/// The maximum number of response bytes that wait for an HTTP/2 stream's window.
const HTTP2_SEND_LEN: usize = 16 * 1024;

/// The maximum number of HTTP/2 streams that the client reset before they were accepted. One more
/// ends the connection.
const MAX_PENDING_RESETS: usize = 20;

/// The maximum number of HTTP/2 streams that the service reset for errors of the client. One more
/// ends the connection.
const MAX_ERROR_RESETS: usize = 128;

/// How long a shutdown waits for requests in progress.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a shutdown waits for requests that clients have sent and that have not arrived.
const SHUTDOWN_DELAY: Duration = Duration::from_millis(100);

/// The delay after an error of `accept`, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Raises the soft limit of open files as needed for `connections`. Returns how many connections
/// the limit permits.
pub(crate) fn permitted_connections(connections: usize) -> usize {
    let of_endpoint = |connections| connections + spare(connections);
    let others =
        of_endpoint(MAX_METRICS_CONNECTIONS) + of_endpoint(MAX_KEYS_CONNECTIONS) + OTHER_FILES;
    let files = raise_file_limit(of_endpoint(connections) + others);
    // `spare` adds an eighth, so 8 of 9 remaining files are for connections.
    (files.saturating_sub(others) / 9 * 8).clamp(1, connections)
}

/// The shortest time between two reports to the supervisor.
const MIN_REPORT_INTERVAL: Duration = Duration::from_millis(10);

/// A listener with its routes and the limits of its connections.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) listener: Listener,
    pub(crate) router: Router,
    pub(crate) slots: Arc<Slots>,
    /// Proxies, whose connections are not limited by address.
    pub(crate) proxies: Arc<TrustedProxies>,
    /// How long a connection may make no progress.
    pub(crate) client_timeout: Duration,
}

/// Serves until a stop signal, and reports the beginning and the end to the supervisor. Returns
/// whether all requests in progress were finished in time.
///
/// A second signal ends the wait for them.
pub(crate) async fn serve(
    endpoints: Vec<Endpoint>,
    mut stop: StopSignals,
    supervisor: &Supervisor,
) -> Result<bool, Failure> {
    let graceful = Arc::new(GracefulShutdown::new());
    let (stopping, _) = watch::channel(());
    let mut running = JoinSet::new();
    for endpoint in endpoints {
        running.spawn(endpoint.run(Arc::clone(&graceful), stopping.subscribe()));
    }
    supervisor.report("READY=1");
    tokio::select! {
        () = stop.received() => {}
        () = feed_watchdog(supervisor) => {}
    }
    supervisor.report("STOPPING=1");
    stopping.send_replace(());
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    sleep(SHUTDOWN_DELAY).await;
    let finished = async {
        // The endpoints, which share it, have ended, so this is the only reference.
        if let Some(graceful) = Arc::into_inner(graceful) {
            graceful.shutdown().await;
        }
    };
    tokio::select! {
        // First, since a second signal may have arrived before there was a wait to end.
        biased;
        () = finished => Ok(true),
        () = sleep(SHUTDOWN_TIMEOUT) => Ok(false),
        () = stop.received() => Ok(false),
    }
}

/// Reports to the supervisor that the service works, as often as it expects. Never returns.
///
/// Each report follows a task that a thread of the connections ran. So if no such thread takes a
/// task any longer, the reports end.
async fn feed_watchdog(supervisor: &Supervisor) {
    let Some(time) = supervisor.watchdog() else { return pending().await };
    // A quarter of the time, so that a report that is late is not too late.
    let mut turns = interval((time / 4).max(MIN_REPORT_INTERVAL));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if tokio::spawn(async {}).await.is_ok() {
            supervisor.report("WATCHDOG=1");
        }
    }
}

impl Endpoint {
    /// Serves connections until the service stops, and then those that the kernel has already
    /// accepted.
    async fn run(
        self,
        graceful: Arc<GracefulShutdown>,
        mut stopping: watch::Receiver<()>,
    ) -> io::Result<()> {
        let Self { listener, router, slots, proxies, client_timeout } = self;
        let connections = Connections { client_timeout, router, graceful };
        let mut ages = interval(client_timeout / AGES);
        loop {
            tokio::select! {
                _ = stopping.changed() => break,
                _ = ages.tick() => slots.age(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        if let Some(slot) = slots.take(limited_network(peer, &proxies)).await {
                            connections.accept(stream, peer, slot);
                        }
                    }
                    Err(error) => {
                        if is_out_of_resources(&error) {
                            slots.displace_oldest();
                        }
                        sleep(ACCEPT_RETRY_DELAY).await;
                    }
                },
            }
        }
        listener.close(|stream, peer| {
            if let Some(slot) = slots.take_now(limited_network(peer, &proxies)) {
                connections.accept(stream, peer, slot);
            }
        })
    }
}

/// Returns the network by which the connections of a peer are limited.
///
/// Returns `None` for this machine and for trusted proxies, which connect for many clients.
fn limited_network(peer: Peer, proxies: &TrustedProxies) -> Option<Network> {
    match peer {
        Peer::Address(address) if !address.is_loopback() && !proxies.contains(peer) => {
            Some(Network::from(address))
        }
        _ => None,
    }
}

/// Returns hyper's server for a connection: HTTP/1, or HTTP/2 if the client sends its preface.
fn http_server(streams: Streams) -> auto::Builder<Streams> {
    let mut server = auto::Builder::new(streams);
    // hyper's own timeout is off: `Slots` limits the time for both protocols.
    server
        .http1()
        .title_case_headers(true)
        // A client may end its side after its last request. Its pipelined requests get responses.
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_LEN.into());
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

/// The executor of the streams of an HTTP/2 connection.
///
/// Resets a stream whose client does not read the response in time. All streams end with the
/// connection.
#[derive(Clone, Debug)]
struct Streams {
    client_timeout: Duration,
    connection: ProgressReporter,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let Self { client_timeout, connection } = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = connection.wait_for_close() => {}
                _ = timeout(client_timeout, stream) => {}
            }
        });
    }
}

/// Serves the accepted connections of an endpoint.
struct Connections {
    client_timeout: Duration,
    router: Router,
    graceful: Arc<GracefulShutdown>,
}

impl Connections {
    /// Serves an accepted stream in a task of its own.
    fn accept(&self, stream: Stream, peer: Peer, slot: Slot) {
        match stream {
            Stream::Tcp(stream) => {
                // Nagle's algorithm would delay small responses. A failure to disable it causes
                // only that delay.
                let _ = stream.set_nodelay(true);
                self.serve(stream, peer, slot);
            }
            #[cfg(unix)]
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
        let server = http_server(Streams {
            client_timeout: self.client_timeout,
            connection: reporter.clone(),
        });
        let stream = TokioIo::new(MonitoredStream::new(stream, reporter.clone()));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let pipelined = reporter.report_request();
            request.extensions_mut().insert(peer);
            let response = routes.call(request);
            async move {
                if pipelined {
                    // Without this, thousands of connections with pipelined requests delay other
                    // clients by seconds.
                    yield_now().await;
                }
                response.await
            }
        });
        let connection = self.graceful.watch(server.serve_connection(stream, service).into_owned());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = slot.wait_for_close() => {}
                // Errors of the connection, such as a disconnect of the client, are ignored.
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
    fn loopback_and_trusted_proxies_are_not_limited() {
        let proxies = ["10.0.0.0/8".parse::<TrustedProxy>().unwrap()].into_iter().collect();
        let is_limited = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            limited_network(address.into(), &proxies).is_some()
        };
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.1.2.3"] {
            assert!(!is_limited(address), "{address}");
        }
        for address in ["203.0.113.1", "192.168.0.1", "2001:db8::1"] {
            assert!(is_limited(address), "{address}");
        }
        assert!(limited_network(Peer::Local, &proxies).is_none());
    }
}
