// The program of docs/tutorial/rust.md: a small API that requires keys.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use keytally::{API_KEY_HEADER, Gate, Verdict, now, pepper};

#[tokio::main]
async fn main() -> Result<(), Box<dyn core::error::Error>> {
    let gate = Gate::open("api.gate", pepper::parse(&std::env::var("KEYTALLY_PEPPER")?)?)?;
    let api = Router::new()
        .route("/contacts", get(|| async { "Ann, Bob\n" }))
        .layer(from_fn_with_state(Arc::new(gate), require_key));
    let listener = tokio::net::TcpListener::bind(std::env::var("LISTEN")?).await?;
    Ok(axum::serve(listener, api).await?)
}

/// Checks the key of a request. If it is refused, responds without calling the route.
async fn require_key(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let keys: Vec<&HeaderValue> = request.headers().get_all(API_KEY_HEADER).iter().collect();
    let verdict = match keys[..] {
        [] => gate.check(None, 1),
        [key] => gate.check(Some(key.as_bytes()), 1),
        _ => Verdict::duplicate_header(now()),
    };
    let mut response = if verdict.is_admitted() {
        next.run(request).await
    } else {
        let status = StatusCode::from_u16(verdict.http_status()).unwrap_or(StatusCode::FORBIDDEN);
        (status, [(CONTENT_TYPE, "application/json")], verdict.body()).into_response()
    };
    for (name, value) in verdict.headers().iter() {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
