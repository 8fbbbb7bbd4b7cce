//! The service: its routes and what they share.

pub(crate) mod address;
mod auth;
pub(crate) mod bind;
pub(crate) mod charges;
mod check;
mod contacts;
pub(crate) mod data;
mod denied;
pub(crate) mod guesses;
mod header_case;
mod limits;
pub(crate) mod listen;
mod log;
mod metrics;
#[cfg(unix)]
mod passed;
pub(crate) mod preflight;
pub(crate) mod refusals;
mod settle;
pub(crate) mod slots;
#[cfg(unix)]
mod unix_socket;

use alloc::sync::Arc;
#[cfg(feature = "keys")]
use core::net::IpAddr;
use core::time::Duration;
use std::path::Path;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use keytally::{FollowEvent, Followed};
#[cfg(feature = "keys")]
use keytally_keys::sampler::Sampler;
use keytally_tower::KeySources;
use serde::Serialize;
use tokio::sync::Mutex;
#[cfg(feature = "keys")]
use tokio::sync::oneshot;

use self::address::TrustedProxies;
use self::bind::Listeners;
use self::charges::Charges;
#[cfg(feature = "keys")]
use self::check::Route;
use self::guesses::{FailurePolicy, GuessLimiter};
use self::listen::{
    Endpoint, MAX_KEYS_CONNECTIONS, MAX_METRICS_CONNECTIONS, permitted_connections,
};
use self::log::Log;
use self::metrics::{ListState, Metrics, TableUse};
use self::preflight::MethodSource;
use self::refusals::Refusals;
use self::slots::Slots;
#[cfg(feature = "keys")]
use crate::keys::{ListTasks, ServedList};
use keytally_cli::internal::Failure;

/// The description of the routes, in OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("service/openapi.json");

/// The state that the routes share.
#[derive(Debug)]
pub(crate) struct Service {
    gate: Arc<Followed>,
    /// The list of keys, if it is served.
    #[cfg(feature = "keys")]
    list: Option<ServedList>,
    metrics: Metrics,
    log: Log,
    /// Held while the metrics are collected, so that concurrent requests for them occupy only one
    /// thread.
    metrics_lock: Arc<Mutex<()>>,
    guesses: GuessLimiter,
    /// Makes and settles the tokens of charges, if that is on.
    charges: Option<Charges>,
    settings: Settings,
}

/// The settings of a service.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Whether all requests are admitted, and refusals are only reported.
    pub(crate) shadow: bool,
    /// The fields that may carry the key of a request.
    pub(crate) key_from: KeySources,
    /// Other statuses and bodies of refusals.
    pub(crate) refusals: Refusals,
    /// The most keys that the metrics name.
    pub(crate) metrics_keys: usize,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub(crate) proxies: Arc<TrustedProxies>,
    /// The limit of invalid keys per client address, if any.
    pub(crate) failures: Option<FailurePolicy>,
    /// Where proxies state the method of the client's request. If set, CORS preflights are admitted
    /// at `/auth`.
    pub(crate) preflights: Option<MethodSource>,
    /// The maximum number of open connections.
    pub(crate) connections: usize,
    /// The maximum number of open connections per client address.
    pub(crate) per_address: usize,
    /// How long a connection may make no progress.
    pub(crate) client_timeout: Duration,
}

impl Service {
    /// Returns a service for this gate, which is reopened when its file is replaced.
    pub(crate) fn new(
        gate: Arc<Followed>,
        charges: Option<Charges>,
        settings: Settings,
        #[cfg(feature = "keys")] list: Option<ServedList>,
    ) -> Result<Arc<Self>, Failure> {
        let metrics = Metrics::new(settings.metrics_keys)?;
        let log = Log::start(metrics.dropped_lines())?;
        let events = log.gate_event_log();
        gate.watch(move |event| events.log(&event))?;
        let guesses = GuessLimiter::new(settings.failures.as_ref())?;
        let metrics_lock = Arc::default();
        Ok(Arc::new(Self {
            gate,
            #[cfg(feature = "keys")]
            list,
            metrics,
            log,
            metrics_lock,
            guesses,
            charges,
            settings,
        }))
    }

    /// Returns the list of keys, if it is served.
    #[cfg(feature = "keys")]
    pub(crate) fn list(&self) -> Option<&ServedList> {
        self.list.as_ref()
    }

    /// Starts the tasks of the list of keys, if it is served: one keeps the gate up to date with
    /// the list, and one adds the uses of keys to the list. Uses are counted from then on; `usage`
    /// is whether they are, if the operator chose.
    ///
    /// # Errors
    /// If the system has no random numbers.
    #[cfg(feature = "keys")]
    pub(crate) async fn start_list(
        &self,
        usage: Option<bool>,
    ) -> Result<Option<ListTasks>, Failure> {
        let Some(served) = &self.list else { return Ok(None) };
        let report = || {
            let log = self.log.gate_event_log();
            move |sentence: &str| log.list(sentence)
        };
        let list = served.list.clone();
        let url = format!("{}{}", served.public_url, served.base_path);
        if let Err(error) = list.record_url(url).await {
            // The service works without it. Only the command for links does not know its URL.
            report()(&format!("the URL of the page is not recorded: {error}"));
        }
        let following = tokio::spawn(list.follow_always(keytally::now, report()));
        let mut sampler = Sampler::new(served.list.clone(), usage, keytally::now())?;
        // An error is reported by the task.
        let _ = sampler.sample(keytally::now()).await;
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let sampling = tokio::spawn(sampler.sample_always(keytally::now, report(), stopped));
        Ok(Some(ListTasks { following, sampling, stop }))
    }

    /// Returns how the list of keys and the gate agree; zeros if it is not served.
    fn list_state(&self) -> ListState {
        #[cfg(feature = "keys")]
        if let Some(served) = &self.list {
            let status = served.list.status();
            return ListState {
                lag_s: status.lag_s(keytally::now()),
                applied: self.gate.load().table().applied_sequence(),
                settled: status.settled,
                open: status.open,
                sampler_lag_s: status.sampler_lag_s(keytally::now()),
                sampler_errors: status.sample_errors,
            };
        }
        ListState::default()
    }

    /// Returns one endpoint for each listener. Routes without one of their own are at the main one.
    pub(crate) async fn endpoints(
        self: Arc<Self>,
        listeners: Listeners,
    ) -> Result<Vec<Endpoint>, Failure> {
        let header_case = header_case::extensions().await?;
        let Settings { per_address, client_timeout, ref proxies, .. } = self.settings;
        let endpoint = |listener, routes, connections| {
            let slots = Slots::new(connections, per_address, self.metrics.closed_connections());
            let router =
                with_common_routes(routes, header_case.clone()).with_state(Arc::clone(&self));
            Endpoint { listener, router, slots, proxies: Arc::clone(proxies), client_timeout }
        };
        let metrics_route = Router::new().route("/metrics", get(metrics));
        let mut routes = Router::new()
            .route("/openapi.json", get(async || json(StatusCode::OK, DESCRIPTION)))
            .route("/api/v1/contacts", get(contacts::contacts))
            .route("/api/v1/limits", get(limits::limits))
            .route("/auth", any(auth::auth))
            .route("/auth/", any(auth::auth))
            .route("/auth/{*path}", any(auth::auth));
        if self.charges.is_some() {
            routes = routes.route("/settle", post(settle::settle));
        }
        #[cfg(feature = "keys")]
        let list_routes = match &self.list {
            Some(served) => self.list_routes(served)?,
            None => Router::new(),
        };
        #[cfg(not(feature = "keys"))]
        let list_routes = Router::new();
        let mut endpoints = Vec::new();
        for (listener, more, connections) in [
            (listeners.keys, list_routes, MAX_KEYS_CONNECTIONS),
            (listeners.metrics, metrics_route, MAX_METRICS_CONNECTIONS),
        ] {
            match listener {
                Some(listener) => endpoints.push(endpoint(listener, more, connections)),
                None => routes = routes.merge(more),
            }
        }
        let connections = permitted_connections(self.settings.connections);
        endpoints.push(endpoint(listeners.main, routes, connections));
        Ok(endpoints)
    }

    /// Returns the routes of the list of keys: its page and its API.
    #[cfg(feature = "keys")]
    fn list_routes(self: &Arc<Self>, served: &ServedList) -> Result<Router<Arc<Self>>, Failure> {
        use axum::extract::Request;
        use axum::middleware::{Next, from_fn};
        use keytally_keys::api::{self, Api, ClientAddress};
        use keytally_keys::page::{self, Page};

        let proxies = Arc::clone(&self.settings.proxies);
        let add_address = move |mut request: Request| {
            let peer = request.extensions().get::<address::Peer>().copied();
            let client = peer.and_then(|peer| proxies.client(peer, request.headers()));
            if let Some(client) = client {
                request.extensions_mut().insert(ClientAddress(client.to_string()));
            }
            core::future::ready(request)
        };
        let ServedList { list, public_url, base_path, api_url, link_command } = served;
        let settings = page::Settings {
            public_url: public_url.clone(),
            base_path: base_path.clone(),
            example_url: format!("{api_url}/api/v1/contacts"),
            link_command: link_command.clone(),
            clock: keytally::now,
        };
        let page = page::router(Page::new(list.clone(), settings)?)?;
        let link_base = format!("{public_url}{base_path}");
        let service = Arc::clone(self);
        let limit = from_fn(move |request: Request, next: Next| {
            let service = Arc::clone(&service);
            async move {
                let (extensions, headers) = (request.extensions(), request.headers());
                let client = service.client(Route::Keys, extensions, headers);
                let response = next.run(request).await;
                service.limit_tokens(client, response)
            }
        });
        let api = api::router(Api::new(list.clone(), &link_base, keytally::now)).layer(limit);
        Ok(page.merge(api).layer(axum::middleware::map_request(add_address)))
    }

    /// Counts and logs a token that the API of the list refused. If its client has sent too many
    /// invalid ones, returns the response to that, else `response`.
    #[cfg(feature = "keys")]
    fn limit_tokens(&self, client: Option<IpAddr>, response: Response) -> Response {
        use keytally_keys::api::{Problem, RefusedToken};

        let Some(RefusedToken(verdict)) = response.extensions().get() else { return response };
        let too_many = self.guesses.too_many(verdict, client);
        let retry_after_s = too_many.as_ref().unwrap_or(verdict).retry_after_s();
        self.metrics.count_token(verdict);
        let guessing = client.filter(|_| too_many.is_some());
        self.log.refusal(Route::Keys.as_str(), verdict, retry_after_s, guessing, false);
        if too_many.is_none() {
            return response;
        }
        self.metrics.count_guess(false);
        Problem::too_many_tokens(retry_after_s).into_response()
    }

    /// Returns the occupancy of each table besides the gate. Reads the whole tables.
    fn tables(&self) -> Vec<TableUse> {
        let settled = self.charges.as_ref().map(Charges::table_use);
        self.guesses.table_use().into_iter().chain(settled).collect()
    }

    /// Reopens the gate file, whether it was replaced or not.
    pub(crate) fn reopen(&self) {
        let events = self.log.gate_event_log();
        match self.gate.reopen() {
            Ok(()) => {
                events
                    .log(&FollowEvent::Reopened(self.gate.load().path().unwrap_or(Path::new(""))));
            }
            Err(error) => events.log(&FollowEvent::Failed(&error)),
        }
    }
}

/// Adds the routes that every endpoint has, and sets the letter case of header names.
fn with_common_routes(
    routes: Router<Arc<Service>>,
    header_case: Extensions,
) -> Router<Arc<Service>> {
    routes
        .route("/healthz", get(async || json(StatusCode::OK, r#"{"status": "ok"}"#)))
        .fallback(async || json(StatusCode::NOT_FOUND, r#"{"error": "Not found"}"#))
        .method_not_allowed_fallback(async || {
            json(StatusCode::METHOD_NOT_ALLOWED, r#"{"error": "Method not allowed"}"#)
        })
        .layer(map_response(move |mut response: Response| {
            response.extensions_mut().extend(header_case.clone());
            core::future::ready(response)
        }))
}

/// Responds with the metrics. They are collected on a thread that may block.
async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let lock = Arc::clone(&service.metrics_lock).lock_owned().await;
    // Counting the keys reads the whole table.
    let read = move || {
        let (gate, status, list) =
            (service.gate.load(), service.gate.status(), service.list_state());
        let text = service.metrics.text(&gate, &status, &list, || service.tables());
        drop(lock);
        text
    };
    let text = tokio::task::spawn_blocking(read).await;
    match text {
        Ok(Ok(text)) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        _ => json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error": "Cannot read the metrics"}"#),
    }
}

/// Returns a response whose body is this JSON text.
fn json(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// Returns a response whose body is this value as JSON.
fn json_of(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json(StatusCode::OK, body),
        Err(_) => {
            json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error": "Cannot write the response"}"#)
        }
    }
}
