//! Connections: accepted, bounded in number and in patience, and ended gracefully.

use alloc::sync::Arc;
use core::time::Duration;
use std::io;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::{Service, router};
use crate::failure::Failure;

/// The most connections at a time; more wait until one ends.
const MAX_CONNECTIONS: usize = 4096;

/// What the system may hold of answers that a client doesn't read, in bytes for each connection.
const SEND_BUFFER_LEN: usize = 64 * 1024;

/// How long a client may take to send the head of a request, and how long an idle connection is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

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

/// Listens at `address`.
pub(crate) async fn bind(address: &str) -> Result<TcpListener, Failure> {
    let cannot = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; choose another with --listen, such as 127.0.0.1:0 for any that is free"
            }
            io::ErrorKind::InvalidInput => "; it must be an address and a port, such as 127.0.0.1:8080",
            _ => "",
        };
        Failure::because(format!("cannot listen on {address}: {error}{advice}"))
    };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    // The connections that it accepts inherit this.
    set_socket_send_buffer_size(&listener, SEND_BUFFER_LEN).map_err(|error| cannot(error.into()))?;
    Ok(listener)
}

/// Serves until it's stopped. Whether all requests were answered in time.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    mut stop: Stop,
) -> Result<bool, Failure> {
    let connections = Connections::new(router(service).await?);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((permit, stream))
        };
        tokio::select! {
            () = stop.came() => break,
            accepted = accepted => match accepted {
                Ok((permit, stream)) => connections.serve(stream, Some(permit)),
                Err(_) => sleep(BREATHER).await,
            },
        }
    }
    // Clients whose connection the system has accepted already are answered too.
    let listener = listener.into_std()?;
    // From now on the system lets no more wait than one: else any number may come between the last look and the closing.
    rustix::net::listen(&listener, 0).map_err(io::Error::from)?;
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        connections.serve(TcpStream::from_std(stream)?, None);
    }
    drop(listener);
    sleep(LINGER).await;
    tokio::select! {
        () = connections.graceful.shutdown() => Ok(true),
        () = sleep(STOP_WITHIN) => Ok(false),
        () = stop.came() => Ok(false),
    }
}

/// All connections that are open.
struct Connections {
    server: http1::Builder,
    router: Router,
    graceful: GracefulShutdown,
}

impl Connections {
    fn new(router: Router) -> Self {
        let mut server = http1::Builder::new();
        server.title_case_headers(true).timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
        Self { server, router, graceful: GracefulShutdown::new() }
    }

    /// Serves a connection until it ends, and gives its permit back then.
    fn serve(&self, stream: TcpStream, permit: Option<OwnedSemaphorePermit>) {
        // Answers are small and must not wait for company. Where it can't be had they do.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.graceful.watch(self.server.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // That a client breaks off is its own affair.
            let _ = connection.await;
            drop(permit);
        });
    }
}
