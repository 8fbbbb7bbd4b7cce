//! The verdicts of the layers: status, body, header fields, and what the application sees.

use core::convert::Infallible;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use keytally::{
    AddressLimiter, Followed, Gate, GateConfig, Limiter, Name, NewKey, OnFull, Outcome, Plan,
    Verdict, pepper,
};
use keytally_tower::{Caller, GateLayer, LimiterLayer, set_fields};
use tower::{Layer as _, service_fn};

use crate::support::{call, field, gate, hello, issue, limiter, request, with_key};

const MISSING: &str = r#"{"error": "Missing X-API-Key header"}"#;
const INVALID: &str = r#"{"error": "Invalid API key"}"#;
const DENIED: &str = r#"{"error": "Rate limit exceeded. Please try again later."}"#;
const FULL: &str = r#"{"error": "Too many clients at once. Please try again later."}"#;

/// Returns a request for `/` from this address.
fn from(address: &str) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(SocketAddr::new(address.parse().unwrap(), 40_001));
    request
}

#[tokio::test]
async fn admitted_request_has_a_caller_and_header_fields() {
    let (gate, key) = gate("2/31d");
    let inner = service_fn(async |request: Request<()>| {
        let caller = request.extensions().get::<Caller>().unwrap();
        let verdict = request.extensions().get::<Verdict>().unwrap();
        assert_eq!(caller.verdict(), verdict);
        assert_eq!(caller.gate().list().len(), 1);
        let plan = caller.plan().unwrap().name.to_string();
        let body = format!("{:?} {plan}", caller.account());
        let response = Response::builder().header("X-RateLimit-Limit", "the application's");
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
    });
    let service = GateLayer::new(gate).layer(inner);
    let response = call(&service, with_key(&key)).await;
    assert_eq!((response.status(), &**response.body()), (StatusCode::OK, "Some(42) default"));
    assert_eq!(field(&response, "X-RateLimit-Limit"), "2");
    assert_eq!(field(&response, "X-RateLimit-Remaining"), "1");
    assert_eq!(field(&response, "RateLimit-Policy"), "\"2678400s\";q=2;w=2678400");
    assert_eq!(field(&response, "WWW-Authenticate"), "");
    assert!(response.extensions().get::<Verdict>().unwrap().is_admitted());
}

#[tokio::test]
async fn refusals_have_the_bodies_of_the_contract() {
    let (gate, key) = gate("1/31d");
    let service = GateLayer::new(gate).layer(service_fn(hello));
    assert_eq!(call(&service, with_key(&key)).await.body(), "hello");
    let wrong = "kt_live_8F0M5kuYr9n00k9A4Nudmsi7sqcPweJco38rRFS";
    for (request, status, body) in [
        (request(&[]), 401, MISSING),
        (with_key(wrong), 401, INVALID),
        (with_key(""), 401, INVALID),
        (request(&[("X-API-Key", &key), ("X-API-Key", &key)]), 401, INVALID),
        (request(&[("Authorization", &format!("Bearer {key}"))]), 401, MISSING),
        (with_key(&key), 429, DENIED),
    ] {
        let response = call(&service, request).await;
        assert_eq!((response.status().as_u16(), &**response.body()), (status, body));
        assert_eq!(field(&response, "Content-Type"), "application/json");
        assert_eq!(field(&response, "WWW-Authenticate").is_empty(), status == 429);
        assert_eq!(field(&response, "Retry-After").is_empty(), status == 401);
        assert_eq!(field(&response, "X-RateLimit-Remaining").is_empty(), status == 401);
    }
    let mut in_query = request(&[]);
    *in_query.uri_mut() = format!("/?api_key={key}&X-API-Key={key}").parse().unwrap();
    assert_eq!(call(&service, in_query).await.body(), MISSING);
}

fn address_limiter(policy: &str) -> AddressLimiter {
    AddressLimiter::in_memory(&policy.parse().unwrap(), 100).unwrap()
}

#[tokio::test]
async fn address_is_charged_to_the_networks_of_all_prefixes() {
    let limiter = address_limiter("addresses: /64 2/31d; /56 3/31d");
    let service = LimiterLayer::new(limiter).layer(service_fn(hello));
    for (address, status) in [
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1::2", 200),
        ("2001:db8:0:1::3", 429),
        ("2001:db8:0:2::1", 200),
        ("2001:db8:0:3::1", 429),
        ("2001:db8:0:100::1", 200),
        ("203.0.113.9", 200),
        ("::ffff:203.0.113.9", 200),
        ("203.0.113.9", 429),
        ("203.0.113.8", 200),
        ("203.0.113.7", 429),
    ] {
        let response = call(&service, from(address)).await;
        assert_eq!(response.status(), status, "{address}");
        let policy = "\"2678400s\";q=2;w=2678400, \"prefix-56-2678400s\";q=3;w=2678400";
        assert_eq!(field(&response, "RateLimit-Policy"), policy);
    }
    assert_eq!(call(&service, Request::new(())).await.status(), 500);
}

#[tokio::test]
async fn charge_of_an_address_is_refunded_and_settled_in_all_networks() {
    let limiter = Arc::new(address_limiter("addresses: /64 5/31d; /56 9/31d"));
    let left = || {
        let peeked = limiter.peek("2001:db8::1".parse::<IpAddr>().unwrap(), 0);
        peeked.verdicts().map(|verdict| verdict.remaining().unwrap()).collect::<Vec<_>>()
    };
    let layer = || LimiterLayer::new(Arc::clone(&limiter)).cost(2);
    let refunding = layer().refund(200..=299).unwrap().layer(service_fn(hello));
    let response = call(&refunding, from("2001:db8::1")).await;
    assert_eq!((field(&response, "X-RateLimit-Remaining"), left()), ("5", vec![5, 9]));
    let settling = layer().settle_at_head(|_, _| 4).layer(service_fn(hello));
    let response = call(&settling, from("2001:db8::1")).await;
    assert_eq!((field(&response, "X-RateLimit-Remaining"), left()), ("1", vec![1, 5]));
}

#[tokio::test]
async fn subject_of_a_limiter_of_addresses_is_the_text_of_an_address() {
    let limiter = Arc::new(address_limiter("addresses: /64 1/31d"));
    let service = |subject: Option<&'static str>| {
        LimiterLayer::new(Arc::clone(&limiter)).subject(move |_| subject).layer(service_fn(hello))
    };
    for (subject, status) in [
        (Some("[2001:db8::1]:443"), 200),
        (Some("2001:db8::/64"), 429),
        (Some("ann"), 500),
        (None, 200),
    ] {
        let response = call(&service(subject), request(&[])).await;
        assert_eq!(response.status(), status, "{subject:?}");
    }
}

#[tokio::test]
async fn limiters_of_a_gate_count_addresses_by_prefix() {
    let (gate, _) = gate("9/31d");
    let policy = "addresses: /64 9/31d; /56 2/31d";
    let layer =
        GateLayer::new(gate).failures(address_limiter(policy)).without_key(address_limiter(policy));
    let service = layer.layer(service_fn(hello));
    for (last, without_key, wrong_key) in [(1, 200, 401), (2, 200, 401), (3, 429, 429)] {
        let mut request = from(&format!("2001:db8:0:{last}::1"));
        assert_eq!(call(&service, request.clone()).await.status(), without_key);
        request.headers_mut().insert("X-API-Key", "wrong".parse().unwrap());
        assert_eq!(call(&service, request).await.status(), wrong_key);
    }
}

#[tokio::test]
async fn problem_document_is_sent_if_accept_names_it() {
    let (gate, _) = gate("1/31d");
    let service = GateLayer::new(gate).layer(service_fn(hello));
    let accept = request(&[("Accept", "text/html"), ("Accept", "application/problem+json")]);
    let response = call(&service, accept).await;
    assert_eq!(field(&response, "Content-Type"), "application/problem+json");
    assert_eq!(
        response.body(),
        r#"{"type": "about:blank", "title": "Missing X-API-Key header", "status": 401}"#
    );
    let any = call(&service, request(&[("Accept", "*/*")])).await;
    assert_eq!((field(&any, "Content-Type"), &**any.body()), ("application/json", MISSING));
}

#[tokio::test]
async fn two_sources_with_different_keys_are_refused() {
    let (gate, key) = gate("9/31d");
    let other = issue(&gate);
    let layer = GateLayer::new(gate).key_from(["X-API-Key", "Authorization: Bearer"]).unwrap();
    let service = layer.layer(service_fn(hello));
    let (same, differs) = (format!("Bearer {key}"), format!("Bearer {other}"));
    for (fields, status) in [
        (&[("Authorization", &*same)][..], 200),
        (&[("X-API-Key", &*key), ("Authorization", &*same)], 200),
        (&[("X-API-Key", &*key), ("Authorization", &*differs)], 401),
        (&[("X-API-Key", &*key), ("Authorization", "Basic dTpw")], 200),
        (&[("Authorization", "Basic dTpw")], 401),
    ] {
        assert_eq!(call(&service, request(fields)).await.status(), status, "{fields:?}");
    }
}

#[tokio::test]
async fn grpc_client_gets_a_status_in_metadata() {
    let (gate, key) = gate("1/31d");
    let layer = GateLayer::new(gate).refusal(|_, _| unreachable!());
    let service = layer.layer(service_fn(hello));
    let grpc = |key| request(&[("Content-Type", "application/grpc+proto"), ("X-API-Key", key)]);
    assert_eq!(call(&service, grpc(&key)).await.body(), "hello");
    for (key, code, message) in [
        (&*key, "8", "Rate limit exceeded. Please try again later."),
        ("wrong", "16", "Invalid API key"),
    ] {
        let response = call(&service, grpc(key)).await;
        assert_eq!((response.status().as_u16(), &**response.body()), (200, ""));
        assert_eq!(field(&response, "content-type"), "application/grpc");
        assert_eq!(field(&response, "grpc-status"), code);
        assert_eq!(field(&response, "grpc-message"), message);
        assert_eq!(field(&response, "retry-after").is_empty(), code == "16");
    }
}

#[tokio::test]
async fn application_replaces_body_and_status_of_a_refusal() {
    let (gate, key) = gate("1/31d");
    let layer = GateLayer::new(gate).refusal(|verdict, request| {
        assert_eq!(request.method, Method::GET);
        let response = Response::builder().status(403).header("WWW-Authenticate", "Bearer");
        response.body(Bytes::from(verdict.outcome().as_str())).unwrap()
    });
    let service = layer.layer(service_fn(hello));
    let response = call(&service, request(&[])).await;
    assert_eq!((response.status().as_u16(), &**response.body()), (403, "missing_key"));
    assert_eq!(field(&response, "Content-Type"), "text/plain; charset=utf-8");
    assert_eq!(field(&response, "WWW-Authenticate"), "Bearer");
    call(&service, with_key(&key)).await;
    let denied = call(&service, with_key(&key)).await;
    assert_eq!((&**denied.body(), field(&denied, "X-RateLimit-Remaining")), ("denied", "0"));
    assert!(!field(&denied, "Retry-After").is_empty());
}

#[tokio::test]
async fn refusal_of_head_has_a_length_and_no_body() {
    let (gate, _) = gate("1/31d");
    let with_method = |mut request: Request<()>, method| {
        *request.method_mut() = method;
        request
    };
    let own = GateLayer::new(Arc::clone(&gate)).refusal(|_, _| {
        let response = Response::builder().header("Content-Length", "500");
        response.body(Bytes::from_static(b"own")).unwrap()
    });
    let limiter = LimiterLayer::new(limiter("1/31d"));
    let hello = service_fn(hello);
    for (service, body) in [
        (GateLayer::new(gate).layer(hello), MISSING),
        (own.layer(hello), "own"),
        (limiter.layer(hello), r#"{"error": "The server does not report the client's address"}"#),
    ] {
        for (method, sent) in [(Method::GET, body), (Method::HEAD, "")] {
            let response = call(&service, with_method(request(&[]), method)).await;
            assert_eq!(field(&response, "Content-Length"), body.len().to_string());
            assert_eq!(response.body(), sent);
        }
    }
}

#[tokio::test]
async fn exempt_path_and_method_need_no_key() {
    let (gate, _) = gate("1/31d");
    let layer = GateLayer::new(gate).exempt(["/health", "/static/*"]).unwrap();
    let service = layer.exempt_methods([Method::OPTIONS]).layer(service_fn(hello));
    let status = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        call(&service, request).await.status().as_u16()
    };
    for (method, path, expected) in [
        ("GET", "/health", 200),
        ("GET", "/health?x=1", 200),
        ("GET", "/static/a.css", 200),
        ("OPTIONS", "/secret", 200),
        ("GET", "/static/%2e%2e/secret", 401),
        ("GET", "/secret", 401),
        ("HEAD", "/", 401),
    ] {
        assert_eq!(status(method, path).await, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn shadow_mode_admits_and_names_the_outcome() {
    let (gate, key) = gate("1/31d");
    let inner = service_fn(async |request: Request<()>| {
        let holder = request.extensions().get::<Caller>().unwrap().holder();
        let response = Response::builder().header("Retry-After", "the application's");
        let body = Full::new(Bytes::from(holder.is_some().to_string()));
        Ok::<_, Infallible>(response.body(body).unwrap())
    });
    let service = GateLayer::new(gate).shadow(true).layer(inner);
    for (request, outcome, has_holder) in [
        (with_key(&key), "", "true"),
        (with_key(&key), "denied", "true"),
        (with_key("wrong"), "invalid_key", "false"),
        (request(&[]), "missing_key", "false"),
    ] {
        let response = call(&service, request).await;
        assert_eq!((response.status().as_u16(), &**response.body()), (200, has_holder));
        assert_eq!(field(&response, "X-Keytally-Shadow"), outcome);
        assert_eq!(field(&response, "Retry-After"), "the application's");
        assert_eq!(field(&response, "WWW-Authenticate"), "");
    }
}

#[tokio::test]
async fn limiter_counts_the_address_of_the_peer() {
    let service = LimiterLayer::new(limiter("1/31d")).layer(service_fn(hello));
    for (address, status) in [
        ("203.0.113.9", 200),
        ("::ffff:203.0.113.9", 429),
        ("203.0.113.10", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 429),
    ] {
        assert_eq!(call(&service, from(address)).await.status(), status, "{address}");
    }
    let mut ip = request(&[]);
    ip.extensions_mut().insert("203.0.113.9".parse::<IpAddr>().unwrap());
    let denied = call(&service, ip).await;
    assert_eq!((denied.status().as_u16(), &**denied.body()), (429, DENIED));

    let unknown = call(&service, request(&[])).await;
    assert_eq!(unknown.status(), 500);
    assert_eq!(unknown.body(), r#"{"error": "The server does not report the client's address"}"#);
    assert_eq!(field(&unknown, "Content-Type"), "application/json");
    let grpc = call(&service, request(&[("Content-Type", "application/grpc")])).await;
    assert_eq!(field(&grpc, "grpc-status"), "13");
}

#[tokio::test]
async fn limiter_counts_the_subject_of_the_application() {
    let layer = LimiterLayer::new(limiter("1/31d"));
    let layer = layer.subject(|request| Some(request.headers.get("X-User")?.as_bytes().to_vec()));
    let service = layer.cost_with(|request| u32::from(request.method == "GET"));
    let service = service.layer(service_fn(hello));
    let user = |name| request(&[("X-User", name)]);
    assert_eq!(call(&service, user("anna")).await.status(), 200);
    assert_eq!(call(&service, user("anna")).await.status(), 429);
    assert_eq!(call(&service, user("bob")).await.status(), 200);
    let mut free = user("anna");
    *free.method_mut() = Method::POST;
    assert_eq!(call(&service, free).await.status(), 200);
    // Not counted.
    for _ in 0..3 {
        let response = call(&service, request(&[])).await;
        assert_eq!((response.status().as_u16(), field(&response, "RateLimit")), (200, ""));
    }
}

#[tokio::test]
async fn full_limiter_refuses_with_503() {
    let limiter = Limiter::in_memory(&"1/31d".parse().unwrap(), 1).unwrap();
    limiter.set_on_full(OnFull::Refuse);
    let layer = LimiterLayer::new(Arc::new(limiter));
    let number = Arc::new(Mutex::new(0_u32));
    let layer = layer.subject(move |_| {
        let mut number = number.lock().unwrap();
        *number += 1;
        Some(number.to_be_bytes())
    });
    let service = layer.layer(service_fn(hello));
    for _ in 0..100 {
        let response = call(&service, request(&[])).await;
        if response.status() != 200 {
            assert_eq!((response.status().as_u16(), &**response.body()), (503, FULL));
            assert!(!field(&response, "Retry-After").is_empty());
            return;
        }
    }
    panic!("no request found the limiter full");
}

#[tokio::test]
async fn invalid_keys_beyond_the_limit_get_429() {
    let (gate, key) = gate("9/31d");
    let layer = GateLayer::new(gate).failures(limiter("1/31d"));
    let service = layer.layer(service_fn(hello));
    let guess = |key: &str| {
        let mut request = from("203.0.113.9");
        request.headers_mut().insert("X-API-Key", key.parse().unwrap());
        request
    };
    assert_eq!(call(&service, guess("wrong")).await.body(), INVALID);
    let refused = call(&service, guess("wrong")).await;
    assert_eq!((refused.status().as_u16(), &**refused.body()), (429, DENIED));
    assert_eq!(field(&refused, "X-RateLimit-Limit"), "");
    assert!(!field(&refused, "Retry-After").is_empty());
    assert_eq!(call(&service, guess(&key)).await.status(), 200);
    assert_eq!(call(&service, from("203.0.113.9")).await.body(), MISSING);
    // A client whose address is unknown.
    assert_eq!(call(&service, with_key("wrong")).await.body(), INVALID);
}

#[tokio::test]
async fn request_without_a_key_is_limited_by_address() {
    let (gate, key) = gate("9/31d");
    let layer = GateLayer::new(gate).without_key(limiter("1/31d"));
    let service = layer.layer(service_fn(hello));
    let first = call(&service, from("203.0.113.9")).await;
    assert_eq!((first.status().as_u16(), field(&first, "X-RateLimit-Limit")), (200, "1"));
    assert_eq!(call(&service, from("203.0.113.9")).await.body(), DENIED);
    let keyed = call(&service, with_key(&key)).await;
    assert_eq!((keyed.status().as_u16(), field(&keyed, "X-RateLimit-Limit")), (200, "9"));
    assert_eq!(call(&service, with_key("wrong")).await.body(), INVALID);
    assert_eq!(call(&service, request(&[])).await.body(), MISSING);
}

#[tokio::test]
async fn several_layers_charge_each_table_once() {
    let (gate, key) = gate("9/31d");
    let addresses = limiter("9/31d");
    let inner = GateLayer::new(Arc::clone(&gate)).cost(3).layer(service_fn(hello));
    let middle = GateLayer::new(gate).layer(inner);
    let service = LimiterLayer::new(addresses).layer(middle);
    let mut request = from("203.0.113.9");
    request.headers_mut().insert("X-API-Key", key.parse().unwrap());
    let response = call(&service, request).await;
    assert_eq!(field(&response, "X-RateLimit-Remaining"), "6");
    let quotas = field(&response, "RateLimit");
    assert!(quotas.starts_with("\"2678400s\";r=6;t="), "{quotas}");
    assert!(quotas.contains(", \"2678400s-2\";r=8;t="), "{quotas}");
}

#[tokio::test]
async fn file_that_is_opened_twice_is_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.limiter");
    let open =
        || Limiter::open_or_create(&path, &"9/31d".parse().unwrap(), 100).map(Arc::new).unwrap();
    let layer = || LimiterLayer::new(open()).subject(|_| Some("anna"));
    let service = layer().layer(layer().layer(service_fn(hello)));
    let response = call(&service, request(&[])).await;
    assert_eq!(field(&response, "RateLimit").matches("r=8;").count(), 1);
    assert_eq!(open().peek(b"anna", 0).remaining(), Some(8));
}

#[tokio::test]
async fn followed_gate_is_checked_after_its_file_was_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let [path, new_path] = ["api.gate", "new.gate"].map(|name| folder.path().join(name));
    let secret = pepper::generate().unwrap();
    let create = |path| {
        let config = GateConfig::default().with_keys(100);
        Gate::create(path, pepper::parse(&secret).unwrap(), &config).unwrap()
    };
    let old_key = issue(&create(&path));
    let gate = Arc::new(Followed::open(&path, pepper::parse(&secret).unwrap()).unwrap());
    let service = GateLayer::new(Arc::clone(&gate)).layer(service_fn(hello));
    assert_eq!(call(&service, with_key(&old_key)).await.status(), 200);
    let key = issue(&create(&new_path));
    std::fs::rename(new_path, path).unwrap();
    gate.reopen_if_replaced().unwrap();
    assert_eq!(call(&service, with_key(&old_key)).await.status(), 401);
    assert_eq!(call(&service, with_key(&key)).await.status(), 200);
}

#[tokio::test]
async fn denial_by_a_gate_refunds_the_limiter_outside() {
    let (gate, key) = gate("1/31d");
    let addresses = limiter("9/31d");
    let inner = GateLayer::new(gate).layer(service_fn(hello));
    let service = LimiterLayer::new(Arc::clone(&addresses)).layer(inner);
    let remaining = || addresses.peek(b"203.0.113.9", 0).remaining();
    let keyed = |key: &str| {
        let mut request = from("203.0.113.9");
        request.headers_mut().insert("X-API-Key", key.parse().unwrap());
        request
    };
    assert_eq!(call(&service, keyed(&key)).await.status(), 200);
    assert_eq!(remaining(), Some(8));
    let denied = call(&service, keyed(&key)).await;
    assert_eq!((denied.status().as_u16(), remaining()), (429, Some(8)));
    assert!(
        field(&denied, "RateLimit").contains("r=0;") && !field(&denied, "Retry-After").is_empty()
    );
    // A 401 counts as an attempt.
    let refused = call(&service, keyed("wrong")).await;
    assert_eq!((refused.status().as_u16(), remaining()), (401, Some(7)));
}

#[tokio::test]
async fn headers_false_hides_the_quotas_of_admitted_requests() {
    let (gate, key) = gate("1/31d");
    let service = GateLayer::new(gate).headers(false).layer(service_fn(hello));
    assert_eq!(field(&call(&service, with_key(&key)).await, "RateLimit"), "");
    assert_ne!(field(&call(&service, with_key(&key)).await, "RateLimit"), "");
}

#[tokio::test]
async fn each_verdict_is_reported_to_the_application() {
    let (gate, key) = gate("1/31d");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let outcomes = Arc::clone(&seen);
    let layer = GateLayer::new(gate).on_verdict(move |verdict, request| {
        outcomes.lock().unwrap().push((verdict.outcome().as_str(), request.uri.path().len()));
    });
    let service = layer.layer(service_fn(hello));
    for request in [with_key(&key), with_key(&key), request(&[])] {
        call(&service, request).await;
    }
    assert_eq!(*seen.lock().unwrap(), [("admitted", 1), ("denied", 1), ("missing_key", 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_are_admitted_up_to_the_limit() {
    let (gate, key) = gate("100/31d");
    let service = GateLayer::new(gate).layer(service_fn(hello));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (service, key) = (service.clone(), key.clone());
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..50 {
                    admitted += u32::from(call(&service, with_key(&key)).await.status() == 200);
                    tokio::task::yield_now().await;
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, 100);
}

#[test]
fn wrong_configuration_is_an_error_that_names_the_value() {
    let (gate, key) = gate("1/31d");
    let layer = || GateLayer::new(Arc::clone(&gate));
    for (error, begins) in [
        (layer().key_from(["X API Key"]).unwrap_err(), "\"X API Key\" is not a source of the key"),
        (layer().exempt(["health"]).unwrap_err(), "\"health\" cannot be exempt"),
        (layer().ipv6_prefix(129).unwrap_err(), "\"129\" is not the length of an IPv6 prefix"),
        (
            layer().refund(RangeInclusive::new(600, 599)).unwrap_err(),
            "\"600..=599\" is not a range of statuses",
        ),
        (layer().refund(0..=599).unwrap_err(), "\"0..=599\" is not a range of statuses"),
        (layer().exempt([&key]).unwrap_err(), "\"kt_live_…\" cannot be exempt"),
    ] {
        assert!(error.to_string().starts_with(begins), "{error}");
    }
}

#[test]
fn functions_give_routes_the_response_of_a_verdict() {
    let limiter = limiter("1/31d");
    limiter.check(b"subject", 1);
    let verdict = limiter.check(b"subject", 1);
    let mut response = keytally_tower::refusal(&verdict, &http::HeaderMap::new());
    set_fields(response.headers_mut(), &verdict);
    assert_eq!(
        (response.status(), &response.body()[..]),
        (StatusCode::TOO_MANY_REQUESTS, DENIED.as_bytes())
    );
    assert_eq!(field(&response, "X-RateLimit-Remaining"), "0");
}

/// A gate whose plan has a team and two groups, and whose scopes are `read` and `write`.
fn extended_gate() -> Arc<Gate> {
    let text = "9/day; team: 5/day; group write: 2/day; group tokens: 5000/day".parse().unwrap();
    let config = GateConfig::default()
        .with_keys(10)
        .with_plans(vec![Plan::new("default", text).unwrap()])
        .with_scopes(vec!["read".to_owned(), "write".to_owned()]);
    let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
    Arc::new(Gate::in_memory(peppers, &config).unwrap())
}

#[tokio::test]
async fn groups_and_team_are_charged_all_or_none() {
    let gate = extended_gate();
    let key = issue(&gate);
    let write = GateLayer::new(Arc::clone(&gate)).group("write").unwrap();
    let service = write.clone().layer(service_fn(hello));
    let first = call(&service, with_key(&key)).await;
    assert_eq!(first.headers()["x-ratelimit-remaining"], "8");
    let listed = first.headers()["ratelimit"].to_str().unwrap().to_owned();
    for part in ["\"day\";r=8", "\"team-day\";r=4", "\"write-day\";r=1"] {
        assert!(listed.contains(part), "{part} is not in {listed}");
    }
    assert_eq!(call(&service, with_key(&key)).await.status(), 200);
    let denied = call(&service, with_key(&key)).await;
    assert_eq!((denied.status().as_u16(), denied.body().as_str()), (429, DENIED));
    assert_eq!(denied.headers()["x-ratelimit-remaining"], "7", "nothing was charged");
    // A second layer charges its group too, and the key and the team once.
    let other = issue(&gate);
    let both = GateLayer::new(Arc::clone(&gate)).group_cost("tokens", 4000).unwrap();
    let both = both.layer(write.layer(service_fn(hello)));
    let reply = call(&both, with_key(&other)).await;
    let listed = reply.headers()["ratelimit"].to_str().unwrap();
    for part in ["\"day\";r=8", "\"team-day\";r=2", "\"write-day\";r=1", "\"tokens-day\";r=1000"] {
        assert!(listed.contains(part), "{part} is not in {listed}");
    }
    // The cost of a group is the higher one, also if one layer charges it its own cost.
    let (high, low) = (issue(&gate), issue(&gate));
    assert_eq!(gate.reset_account(42), Some(Outcome::Admitted));
    let layer = || GateLayer::new(Arc::clone(&gate));
    let dear = layer().cost(2).group("tokens").unwrap();
    let cheap = layer().group_cost("tokens", 1).unwrap();
    let first = dear.clone().layer(cheap.clone().layer(service_fn(hello)));
    let reply = call(&first, with_key(&high)).await;
    assert!(reply.headers()["ratelimit"].to_str().unwrap().contains("\"tokens-day\";r=4998"));
    let reply = call(&cheap.layer(dear.layer(service_fn(hello))), with_key(&low)).await;
    assert!(reply.headers()["ratelimit"].to_str().unwrap().contains("\"tokens-day\";r=4998"));
    let unknown = GateLayer::new(gate).group("writes").unwrap_err();
    assert_eq!(unknown.to_string(), "the plans of this gate have no group \"writes\"");
}

#[tokio::test]
async fn refund_by_outcome_returns_all_tallies() {
    let gate = extended_gate();
    let key = issue(&gate);
    let layer = GateLayer::new(Arc::clone(&gate)).group("write").unwrap();
    let failing = |_: Request<()>| {
        let mut response = Response::new(Full::<Bytes>::from("failed"));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        core::future::ready(Ok::<_, Infallible>(response))
    };
    let service = layer.refund(500..=599).unwrap().layer(service_fn(failing));
    let reply = call(&service, with_key(&key)).await;
    let listed = reply.headers()["ratelimit"].to_str().unwrap();
    for part in ["\"day\";r=9", "\"team-day\";r=5", "\"write-day\";r=2"] {
        assert!(listed.contains(part), "{part} is not in {listed}");
    }
}

#[tokio::test]
async fn key_without_a_needed_scope_is_forbidden() {
    let gate = extended_gate();
    let new = NewKey::new(42, Name::new("live").unwrap()).with_scopes(&["read"]);
    let (key, _) = gate.issue(&new).unwrap();
    let layer = GateLayer::new(Arc::clone(&gate)).need("write").unwrap();
    let reply = call(&layer.layer(service_fn(hello)), with_key(key.expose())).await;
    assert_eq!(reply.status().as_u16(), 403);
    assert_eq!(reply.body(), r#"{"error": "Forbidden"}"#);
    assert!(GateLayer::new(gate).need("admin").is_err());
}
