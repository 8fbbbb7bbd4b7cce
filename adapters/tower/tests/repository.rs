//! Files of the repository: the responses in its vectors, and the code on the how-to page.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

use alloc::sync::Arc;
use core::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use keytally::{Gate, GateConfig, Limiter, Name, NewKey, OnFull, pepper};
use keytally_tower::GateLayer;
use serde_json::Value;
use tower::{Layer as _, ServiceExt as _, service_fn};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../vectors/verdict.json")).unwrap()
}

/// Returns header fields as lines, each with CR LF, in the order of their names.
fn lines(fields: &HeaderMap) -> Vec<String> {
    let named =
        fields.iter().filter(|(name, _)| *name != "content-type" && *name != "content-length");
    let mut lines: Vec<_> =
        named.map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

/// Returns the lines of a vector with lowercase names, as `http` writes them, in the same order.
fn expected_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text
        .split_inclusive("\r\n")
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            format!("{}: {value}", name.to_lowercase())
        })
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn requests_without_a_valid_key_get_the_responses_of_the_vectors() {
    let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
    let gate = Gate::in_memory(peppers, &GateConfig::default().with_keys(100)).unwrap();
    let hello =
        async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")));
    let service = GateLayer::new(gate).layer(service_fn(hello));
    let mut tested = 0;
    for step in vectors()["steps"].as_array().unwrap() {
        if step["status"] != 401 {
            continue;
        }
        let mut request = Request::new(());
        for key in step["api_keys"].as_array().unwrap() {
            let value = HeaderValue::from_bytes(key.as_str().unwrap().as_bytes());
            // A server refuses a request with such a field before it calls a service.
            let Ok(value) = value else { continue };
            request.headers_mut().append("X-API-Key", value);
        }
        if request.headers().len() != step["api_keys"].as_array().unwrap().len() {
            continue;
        }
        let (head, body) = service.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(head.status, 401, "{step}");
        assert_eq!(body, step["body"].as_str().unwrap(), "{step}");
        assert_eq!(lines(&head.headers), expected_lines(step["headers"].as_str().unwrap()));
        tested += 1;
    }
    assert!(tested > 10, "{tested}");
}

#[tokio::test]
async fn refusal_names_the_fields_that_other_integrations_name() {
    let python = include_str!("../../../py/tests/integrations/test_keys.py");
    let challenges = python.split_once("CHALLENGES = (").unwrap().1.split_once(")\n").unwrap().0;
    let challenges: String =
        challenges.lines().map(|line| line.trim().trim_matches('\'')).collect();
    let body = r#"{"error": "Missing API key"}"#;
    assert!(python.contains(body));
    let nginx = include_str!("../../nginx/src/ngx_http_keytally_refusal.c");
    assert!(nginx.replace('\\', "").contains(body));

    let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
    let gate = Gate::in_memory(peppers, &GateConfig::default()).unwrap();
    let hello =
        async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")));
    let fields = ["X-API-Key", "Authorization: Bearer", "X-Token"];
    let layer = GateLayer::new(gate).key_from(fields).unwrap();
    let own = layer.clone().refusal(|_, _| Response::new(Bytes::from("Missing X-API-Key header")));
    let call = async |layer: &GateLayer, name: &str, value: &str| {
        let request = Request::builder().header(name, value).body(()).unwrap();
        let response = layer.layer(service_fn(hello)).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        assert_eq!(head.headers["WWW-Authenticate"], challenges);
        let message = head.headers.get("grpc-message").cloned();
        let length = head.headers["Content-Length"].to_str().unwrap().parse().ok();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(length, Some(bytes.len()));
        (String::from_utf8(bytes.to_vec()).unwrap(), message)
    };
    assert_eq!(call(&layer, "Accept", "*/*").await.0, body);
    assert_eq!(call(&layer, "X-Token", "wrong").await.0, r#"{"error": "Invalid API key"}"#);
    assert_eq!(
        call(&layer, "Accept", "application/problem+json").await.0,
        r#"{"type": "about:blank", "title": "Missing API key", "status": 401}"#
    );
    let (_, message) = call(&layer, "Content-Type", "application/grpc").await;
    assert_eq!(message.unwrap(), "Missing API key");
    assert_eq!(call(&own, "Accept", "*/*").await.0, "Missing X-API-Key header");
}

#[test]
fn bodies_of_all_outcomes_are_those_of_the_vectors() {
    let vectors = vectors();
    let responses = vectors["responses"].as_array().unwrap();
    let body = |status: u64| {
        let response = responses.iter().find(|response| response["status"] == status).unwrap();
        response["body"].as_str().unwrap()
    };
    let limiter = Limiter::in_memory(&"1/31d".parse().unwrap(), 1).unwrap();
    limiter.set_on_full(OnFull::Refuse);
    let too_costly = limiter.check(b"subject", 2);
    limiter.check(b"subject", 1);
    let denied = limiter.check(b"subject", 1);
    let full = (0..100_u32)
        .map(|number| limiter.check(&number.to_be_bytes(), 1))
        .find(|verdict| verdict.http_status() == 503)
        .unwrap();
    for (verdict, status) in [(too_costly, 429), (denied, 429), (full, 503)] {
        let response = keytally_tower::refusal(&verdict, &HeaderMap::new());
        assert_eq!(u64::from(response.status().as_u16()), status);
        assert_eq!(response.body(), body(status).as_bytes());
    }
}

/// The code of the how-to page that is in neither example.
mod page {
    use alloc::sync::Arc;

    use keytally::{Gate, Limiter};
    use keytally_tower::{GateLayer, LimiterLayer};

    pub(super) fn by_size(gate: Arc<Gate>) -> GateLayer {
        GateLayer::new(gate).cost(10).settle(|_, sent| {
            let kilobytes = u32::try_from(sent.bytes / 1000).unwrap_or(u32::MAX);
            if sent.is_complete { kilobytes.saturating_add(1) } else { sent.cost }
        })
    }

    pub(super) fn behind_a_proxy(addresses: Limiter) -> LimiterLayer {
        LimiterLayer::new(addresses).subject(|request| {
            let field = request.headers.get("X-Real-IP").and_then(|value| value.to_str().ok());
            let address = field.and_then(|text| text.parse().ok());
            Some(address.map_or("unknown".to_owned(), |it| keytally_tower::address_subject(it, 64)))
        })
    }
}

#[tokio::test]
async fn code_of_the_how_to_page_is_compiled() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let sources = words(
        &[
            include_str!("../examples/axum.rs"),
            include_str!("../examples/tonic.rs"),
            include_str!("repository.rs"),
        ]
        .concat(),
    );
    let page = include_str!("../../../docs/how-to/tower.md");
    let blocks =
        page.split("```rust,no_run\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let count = blocks.inspect(|block| assert!(sources.contains(&words(block)), "{block}")).count();
    assert_eq!(count, 5);

    let addresses = Limiter::in_memory(&"1/31d".parse().unwrap(), 100).unwrap();
    let hello =
        async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")));
    let service = page::behind_a_proxy(addresses).layer(service_fn(hello));
    for (field, status) in [
        ("203.0.113.9", 200),
        ("203.0.113.9", 429),
        ("203.0.113.10", 200),
        ("203.0.113.9:40001", 200),
        ("", 429),
    ] {
        let request = Request::builder().header("X-Real-IP", field).body(()).unwrap();
        assert_eq!(service.clone().oneshot(request).await.unwrap().status(), status, "{field}");
    }

    let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
    let gate = Arc::new(Gate::in_memory(peppers, &GateConfig::default()).unwrap());
    let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap();
    let service = page::by_size(Arc::clone(&gate)).layer(service_fn(hello));
    let request = Request::builder().header("X-API-Key", key.expose()).body(()).unwrap();
    service.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(gate.peek(Some(key.expose().as_bytes()), 0).remaining(), Some(999));
}
