//! Connections: accepted, bounded in number and in patience, and ended gracefully.

use alloc::sync::Arc;
use core::time::Duration;
use std::io;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{Service, router};
use crate::failure::Failure;

/// The most connections at a time; more wait until one ends.
const MAX_CONNECTIONS: usize = 4096;

/// How long a client may take to send the head of a request, and how long an idle connection is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// How long requests that are being answered may take when the service stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);

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
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; choose another with --listen, such as 127.0.0.1:0 for any that is free"
            }
            io::ErrorKind::InvalidInput => "; it must be an address and a port, such as 127.0.0.1:8080",
            _ => "",
        };
        Failure::because(format!("cannot listen on {address}: {}{advice}", lower(&error)))
    })
}

/// What the system says, without its number.
fn lower(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Serves until it's stopped. Whether all requests were answered in time.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    mut stop: Stop,
) -> Result<bool, Failure> {
    let router = router(service).await?;
    let mut server = http1::Builder::new();
    server.title_case_headers(true).timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((permit, stream))
        };
        let (permit, stream): (_, TcpStream) = tokio::select! {
            () = stop.came() => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    sleep(BREATHER).await;
                    continue;
                }
            },
        };
        // Answers are small and must not wait for company. Where it can't be had they do.
        let _ = stream.set_nodelay(true);
        let connection =
            server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // That a client breaks off is its own affair.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    Ok(timeout(STOP_WITHIN, graceful.shutdown()).await.is_ok())
}
