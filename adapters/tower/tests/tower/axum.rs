//! The example for axum, called without a network.

/// The example.
#[expect(dead_code, reason = "its `main` listens until it is stopped")]
#[path = "../../examples/axum.rs"]
mod example;

use core::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use keytally::Limiter;
use keytally_tower::Caller;
use tower::ServiceExt as _;

use crate::support::{field, gate};

/// Calls an application, and reads the body of the response.
async fn call(app: &Router, path: &str, key: Option<&str>) -> Response<String> {
    let mut request = Request::builder().uri(path);
    if let Some(key) = key {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let mut request = request.body(Body::empty()).unwrap();
    let peer = "203.0.113.9:40001".parse::<SocketAddr>().unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn example_checks_keys_and_addresses() {
    let (gate, key) = gate("2/31d");
    let addresses = Limiter::in_memory(&"6/31d".parse().unwrap(), 100).unwrap();
    let app = example::app(gate, addresses).unwrap();
    let response = call(&app, "/contacts", Some(&key)).await;
    assert_eq!(response.body(), "the contacts of account 42\n");
    assert_eq!(field(&response, "X-RateLimit-Limit"), "2");
    assert_eq!(call(&app, "/contacts", None).await.status(), 401);
    assert_eq!(call(&app, "/health", None).await.body(), "ok\n");
    assert_eq!(call(&app, "/contacts", Some(&key)).await.status(), 200);
    let denied = call(&app, "/contacts", Some(&key)).await;
    assert_eq!(
        (denied.status().as_u16(), field(&denied, "RateLimit").contains("r=0;")),
        (429, true)
    );
    // The address has 2 requests left, because the denied one was refunded.
    for status in [401, 401, 429] {
        assert_eq!(call(&app, "/contacts", None).await.status(), status);
    }
}

#[tokio::test]
async fn extractor_without_the_layer_responds_with_500() {
    let app = Router::new()
        .route("/required", get(async |_: Caller| "not reached"))
        .route("/optional", get(async |caller: Option<Caller>| caller.is_none().to_string()));
    let response = call(&app, "/required", None).await;
    assert_eq!(response.status(), 500);
    assert_eq!(response.body(), r#"{"error": "The route has no GateLayer"}"#);
    assert_eq!(call(&app, "/optional", None).await.body(), "true");
}
