//! `keytally serve`: the reference service. It shows what a service of one's own does with a gate, and `/auth` puts
//! the gate in front of any service behind a proxy.

mod auth;
mod contacts;
pub(crate) mod data;
mod guard;
mod limits;
pub(crate) mod listen;
mod log;
mod metrics;
mod names;

use alloc::sync::Arc;
use std::path::Path;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use keytally_host::keytally::Peppers;
use keytally_host::{FollowEvent, Followed, Gate};
use serde::Serialize;

use self::log::Log;
use self::metrics::Metrics;
use crate::failure::Failure;

/// What the routes share.
#[derive(Debug)]
pub(crate) struct Service {
    gate: Followed,
    metrics: Metrics,
    log: Log,
    /// Whether everything is admitted, and what would not have been is only reported.
    shadow: bool,
}

impl Service {
    /// A service of this gate, which is opened again when its file is replaced.
    pub(crate) fn new(gate: Gate, peppers: Peppers, shadow: bool) -> Result<Self, Failure> {
        let metrics = Metrics::new()?;
        let log = Log::start(metrics.lost_lines())?;
        let gate = Followed::of(gate, peppers, Ok)?;
        let events = log.events();
        gate.watch(move |event| events.gate(&event))?;
        Ok(Self { gate, metrics, log, shadow })
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

/// All routes.
async fn router(service: Arc<Service>) -> Result<Router, Failure> {
    let names = names::exact().await?;
    Ok(Router::new()
        .route("/api/v1/contacts", get(contacts::contacts))
        .route("/api/v1/limits", get(limits::limits))
        .route("/auth", any(auth::auth))
        .route("/auth/", any(auth::auth))
        .route("/auth/{*path}", any(auth::auth))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || json(StatusCode::OK, r#"{"status": "ok"}"#)))
        .fallback(async || json(StatusCode::NOT_FOUND, r#"{"error": "Not found"}"#))
        .method_not_allowed_fallback(async || {
            json(StatusCode::METHOD_NOT_ALLOWED, r#"{"error": "Method not allowed"}"#)
        })
        .layer(map_response(move |mut response: Response| {
            response.extensions_mut().extend(names.clone());
            core::future::ready(response)
        }))
        .with_state(service))
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    // Counting the keys reads the whole table.
    let text = tokio::task::spawn_blocking(move || {
        service.metrics.text(&service.gate.load(), &service.gate.status())
    })
    .await;
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
