//! The service: its routes.

pub(crate) mod address;
mod auth;
pub(crate) mod bind;
pub(crate) mod charges;
mod check;
mod contacts;
pub(crate) mod data;
mod denied;
mod fields;
pub(crate) mod guesses;
mod header_case;
mod json;
mod limits;
#[cfg(feature = "keys")]
pub(crate) mod list;
pub(crate) mod listen;
mod log;
mod metrics;
#[cfg(unix)]
mod passed;
pub(crate) mod preflight;
pub(crate) mod refusals;
mod settle;
pub(crate) mod slots;
mod socket;
pub(crate) mod state;
#[cfg(unix)]
mod unix_socket;

use alloc::sync::Arc;
#[cfg(feature = "keys")]
use core::net::IpAddr;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};

use self::bind::Listeners;
#[cfg(feature = "keys")]
use self::check::Route;
use self::json::json;
#[cfg(feature = "keys")]
use self::list::ServedList;
use self::listen::{
    Endpoint, MAX_KEYS_CONNECTIONS, MAX_METRICS_CONNECTIONS, permitted_connections,
};
use self::slots::Slots;
use self::state::{Service, Settings};
use keytally_cli::internal::Failure;

/// The description of the routes, in OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("service/openapi.json");

impl Service {
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
        let (route, reason) = (Route::Keys.as_str(), log::reason_of(verdict));
        self.log.refusal(route, verdict, reason, retry_after_s, guessing, false);
        if too_many.is_none() {
            return response;
        }
        self.metrics.count_guess(false);
        Problem::too_many_tokens(retry_after_s).into_response()
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
