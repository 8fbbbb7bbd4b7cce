//! Header names in exactly the letters that the contract writes them in.
//!
//! HTTP doesn't care about the case of header names, and hyper sends them in lower case, or each word with a
//! capital. People who search the output of `curl -i` do care. hyper sends a name in the letters in which it read
//! it when a response carries what a request kept of them, so one request with the contract's names is read, once,
//! at the start.

use core::convert::Infallible;
use std::io;

use axum::body::Body;
use axum::http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, duplex};
use tokio::sync::mpsc;

use super::auth::{ACCOUNT_ID, KEY_ENV, KEY_ID, KEY_PLAN};
use super::guard::SHADOW;
use keytally::FIELD_NAMES;
use keytally_cli::Failure;

/// The names of ours that responses have, besides the verdict's.
const NAMES: [&str; 5] = [ACCOUNT_ID, KEY_ID, KEY_ENV, KEY_PLAN, SHADOW];

/// What a response must carry so that its names are sent so.
pub(crate) async fn exact() -> Result<Extensions, Failure> {
    let (mut client, server) = duplex(4096);
    let (kept, mut read) = mpsc::channel(1);
    let keep = service_fn(move |request: Request<Incoming>| {
        let kept = kept.clone();
        async move {
            // The channel has room for the one request that comes.
            let _ = kept.try_send(request.extensions().clone());
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let mut request = "GET / HTTP/1.1\r\nHost: names\r\nConnection: close\r\n".to_owned();
    for name in FIELD_NAMES.into_iter().chain(NAMES) {
        request.extend([name, ": 1\r\n"]);
    }
    request += "\r\n";
    client.write_all(request.as_bytes()).await?;
    http1::Builder::new().preserve_header_case(true).serve_connection(TokioIo::new(server), keep).await?;
    Ok(read.recv().await.ok_or_else(|| io::Error::other("the names of the headers weren't read"))?)
}
