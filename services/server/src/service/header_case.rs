//! Header names in the letter case of the contract, such as `X-RateLimit-Limit`.
//!
//! HTTP field names are case-insensitive. hyper sends them in lower case or, with
//! `title_case_headers`, as `X-Ratelimit-Limit`. It sends another case only if the extensions of
//! the response hold its private `HeaderCaseMap`, which it creates only while it parses a message
//! with `preserve_header_case`. So a request with the names of the contract is parsed from memory
//! once, and each response gets a copy of its extensions.

use core::convert::Infallible;
use core::future::ready;
use std::io;
use std::sync::OnceLock;

use axum::body::Body;
use axum::http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keytally::FIELD_NAMES;
use keytally_cli::internal::Failure;

use super::check::SHADOW;
use super::fields::{ACCOUNT_ID, CHARGE, KEY_ENV, KEY_ID, KEY_PLAN};

/// The header names of the service. [`FIELD_NAMES`] has those of a verdict.
const OWN_NAMES: [&str; 6] = [ACCOUNT_ID, KEY_ID, KEY_ENV, KEY_PLAN, SHADOW, CHARGE];

/// Returns the response extensions with which hyper keeps the letter case of [`FIELD_NAMES`] and
/// [`OWN_NAMES`].
///
/// # Errors
/// If hyper does not parse the request from memory.
pub(crate) async fn extensions() -> Result<Extensions, Failure> {
    let names = FIELD_NAMES.into_iter().chain(OWN_NAMES);
    let fields: String = names.map(|name| format!("{name}: 1\r\n")).collect();
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    let parsed = OnceLock::new();
    let service = service_fn(|request: Request<Incoming>| {
        // The connection has one request.
        let _ = parsed.set(request.into_parts().0.extensions);
        ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    });
    let stream = TokioIo::new(tokio::io::join(head.as_bytes(), tokio::io::sink()));
    // The stream ends after the request, before the response is written: a half-closed connection.
    http1::Builder::new()
        .preserve_header_case(true)
        .half_close(true)
        .serve_connection(stream, service)
        .await?;
    Ok(parsed
        .into_inner()
        .ok_or_else(|| io::Error::other("the request in memory was not parsed"))?)
}
