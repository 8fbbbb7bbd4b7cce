//! `keytally serve`: the reference service. It shows what a service of one's own does with a gate, and `/auth` puts
//! the gate in front of any service behind a proxy.

pub(crate) mod address;
mod auth;
pub(crate) mod bind;
mod contacts;
pub(crate) mod data;
mod guard;
mod guesses;
mod limits;
pub(crate) mod listen;
mod log;
mod metrics;
mod names;
pub(crate) mod preflight;
mod slots;

use alloc::sync::Arc;
use core::time::Duration;
use std::path::Path;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use keytally::{FollowEvent, Followed, Gate};
use keytally::{Peppers, Policy};
use serde::Serialize;
use tokio::sync::Mutex;

use self::address::TrustedProxies;
use self::bind::Listener;
use self::guesses::Guesses;
use self::listen::{Door, MAX_METRICS_CONNECTIONS, permitted_connections};
use self::log::Log;
use self::metrics::Metrics;
use self::preflight::MethodSource;
use self::slots::Slots;
use keytally_cli::Failure;

/// What the routes share.
#[derive(Debug)]
pub(crate) struct Service {
    gate: Followed,
    metrics: Metrics,
    log: Log,
    /// Held while the metrics are read, so that a flood of such requests takes one thread.
    reading: Arc<Mutex<()>>,
    guesses: Guesses,
    settings: Settings,
}

/// How a service behaves.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Whether everything is admitted, and what would not have been is only reported.
    pub(crate) shadow: bool,
    /// The proxies whose forwarded addresses are believed.
    pub(crate) proxies: Arc<TrustedProxies>,
    /// The limit of failed checks for each client, if any.
    pub(crate) failures: Option<Policy>,
    /// Where proxies state the method of CORS preflights, which then pass at `/auth`.
    pub(crate) preflights: Option<MethodSource>,
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Connections of each client at a time.
    pub(crate) per_address: usize,
    /// How long a client may make no progress.
    pub(crate) patience: Duration,
}

impl Service {
    /// Returns a service of this gate, which is opened again when its file is replaced.
    pub(crate) fn new(gate: Gate, peppers: Peppers, settings: Settings) -> Result<Arc<Self>, Failure> {
        let metrics = Metrics::new()?;
        let log = Log::start(metrics.lost_lines())?;
        let gate = Followed::from_gate(gate, peppers, Ok)?;
        let events = log.events();
        gate.watch(move |event| events.gate(&event))?;
        let guesses = Guesses::new(settings.failures.as_ref())?;
        Ok(Arc::new(Self { gate, metrics, log, reading: Arc::default(), guesses, settings }))
    }

    /// Returns what listens: all routes at one door, or the metrics at a door of their own.
    pub(crate) async fn doors(
        self: Arc<Self>,
        listener: Listener,
        metrics_listener: Option<Listener>,
    ) -> Result<Vec<Door>, Failure> {
        let names = names::exact().await?;
        let Settings { per_address, patience, ref proxies, .. } = self.settings;
        let door = |listener, routes, connections| {
            let slots = Slots::new(connections, per_address, self.metrics.closed_connections());
            let router = with_common_routes(routes, names.clone()).with_state(Arc::clone(&self));
            Door { listener, router, slots, proxies: Arc::clone(proxies), patience }
        };
        let metrics_route = Router::new().route("/metrics", get(metrics));
        let routes = Router::new()
            .route("/api/v1/contacts", get(contacts::contacts))
            .route("/api/v1/limits", get(limits::limits))
            .route("/auth", any(auth::auth))
            .route("/auth/", any(auth::auth))
            .route("/auth/{*path}", any(auth::auth));
        let connections = permitted_connections(self.settings.connections);
        Ok(match metrics_listener {
            None => vec![door(listener, routes.merge(metrics_route), connections)],
            Some(metrics_listener) => vec![
                door(listener, routes, connections),
                door(metrics_listener, metrics_route, MAX_METRICS_CONNECTIONS),
            ],
        })
    }

    /// Opens the gate's file again, whether it was replaced or not.
    pub(crate) fn reopen(&self) {
        let events = self.log.events();
        match self.gate.reopen() {
            Ok(()) => events.gate(&FollowEvent::Reopened(self.gate.load().path().unwrap_or(Path::new("")))),
            Err(error) => events.gate(&FollowEvent::Failed(&error)),
        }
    }
}

/// Adds what every listener answers, and the letters of header names.
fn with_common_routes(routes: Router<Arc<Service>>, names: Extensions) -> Router<Arc<Service>> {
    routes
        .route("/healthz", get(async || json(StatusCode::OK, r#"{"status": "ok"}"#)))
        .fallback(async || json(StatusCode::NOT_FOUND, r#"{"error": "Not found"}"#))
        .method_not_allowed_fallback(async || {
            json(StatusCode::METHOD_NOT_ALLOWED, r#"{"error": "Method not allowed"}"#)
        })
        .layer(map_response(move |mut response: Response| {
            response.extensions_mut().extend(names.clone());
            core::future::ready(response)
        }))
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let turn = Arc::clone(&service.reading).lock_owned().await;
    // Counting the keys reads the whole table.
    let read = move || {
        let text = service.metrics.text(&service.gate.load(), &service.gate.status());
        drop(turn);
        text
    };
    let text = tokio::task::spawn_blocking(read).await;
    match text {
        Ok(Ok(text)) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        _ => json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error": "The metrics can't be read"}"#),
    }
}

/// A response whose body is this JSON text.
fn json(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// A response whose body is this as JSON.
fn json_of(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json(StatusCode::OK, body),
        Err(_) => json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error": "The answer can't be written"}"#),
    }
}
