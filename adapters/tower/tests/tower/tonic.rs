//! The example for tonic, called without a network.

/// The example.
#[expect(dead_code, reason = "its `main` listens until it is stopped")]
#[path = "../../examples/tonic.rs"]
mod example;

use core::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{gate, limiter};

#[tokio::test]
async fn example_checks_keys_and_charges_calls_that_succeed() {
    let (gate, key) = gate("2/31d");
    let (_reporter, health) = tonic_health::server::health_reporter();
    let service = example::keys(Arc::clone(&gate)).layer(Routes::new(health));
    let addresses = Arc::into_inner(limiter("6/31d")).unwrap();
    let service = example::addresses(addresses).layer(service);
    // Calls the method Check with a message that names a service, and returns the metadata.
    let call = async |key: &str, name: &str| -> HeaderMap {
        let message: Vec<u8> = match u8::try_from(name.len()).unwrap() {
            0 => vec![0, 0, 0, 0, 0],
            len => [&[0, 0, 0, 0, len + 2, 10, len], name.as_bytes()].concat(),
        };
        let mut request = Request::post("/grpc.health.v1.Health/Check")
            .header("Content-Type", "application/grpc")
            .header("TE", "trailers")
            .header("X-API-Key", key)
            .body(Body::new(Full::new(Bytes::from(message))))
            .unwrap();
        let peer = "203.0.113.9:40001".parse::<SocketAddr>().unwrap();
        let info = TcpConnectInfo { local_addr: None, remote_addr: Some(peer) };
        request.extensions_mut().insert(info);
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut metadata = response.headers().clone();
        let body = response.into_body().collect().await.unwrap();
        metadata.extend(body.trailers().cloned().unwrap_or_default());
        metadata
    };
    // NOT_FOUND is refunded, as are calls with it afterwards.
    for (key, name, status, remaining) in [
        (&*key, "", "0", Some("1")),
        (&*key, "unknown", "5", Some("1")),
        ("wrong", "", "16", None),
        (&*key, "", "0", Some("0")),
        (&*key, "", "8", Some("0")),
    ] {
        let metadata = call(key, name).await;
        assert_eq!(metadata["grpc-status"], status, "{metadata:?}");
        let shown = metadata.get("x-ratelimit-remaining").map(|value| value.to_str().unwrap());
        assert_eq!(shown, remaining);
    }
}
