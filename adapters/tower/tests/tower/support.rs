//! What the tests share: gates, requests, and calls without a network.

use core::convert::Infallible;
use core::future::{Ready, ready};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use keytally::{Gate, GateConfig, Limiter, Name, NewKey, Plan, pepper};
use tower::{Service, ServiceExt as _};

/// A response whose body was read.
pub(crate) type Read = Response<String>;

/// Returns a gate in memory with this policy, and a key of account 42.
pub(crate) fn gate(policy: &str) -> (Arc<Gate>, String) {
    let plan = Plan::new("default", policy.parse().unwrap()).unwrap();
    let config = GateConfig::default().with_keys(100).with_plans(vec![plan]);
    let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
    let gate = Arc::new(Gate::in_memory(peppers, &config).unwrap());
    let key = issue(&gate);
    (gate, key)
}

pub(crate) fn issue(gate: &Gate) -> String {
    let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap();
    key.expose().to_owned()
}

/// Returns a limiter in memory.
pub(crate) fn limiter(policy: &str) -> Arc<Limiter> {
    Arc::new(Limiter::in_memory(&policy.parse().unwrap(), 100).unwrap())
}

/// Returns a request for `/` with these fields.
pub(crate) fn request(fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::new(());
    for (name, value) in fields {
        let name = name.parse::<http::HeaderName>().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

/// Returns a request for `/` with a key.
pub(crate) fn with_key(key: &str) -> Request<()> {
    request(&[("X-API-Key", key)])
}

/// The inner service: responds with `hello`.
pub(crate) fn hello(_: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Full::from("hello"))))
}

/// Calls a service once, and reads the body of the response.
pub(crate) async fn call<S, B>(service: &S, request: Request<()>) -> Read
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Data = Bytes>,
    B::Error: core::fmt::Debug,
{
    let response = service.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(bytes.to_vec()).unwrap())
}

/// Returns the value of a field, or an empty text if there is none. Fails if there are several.
pub(crate) fn field<'r, T>(response: &'r Response<T>, name: &str) -> &'r str {
    let mut values = response.headers().get_all(name).iter();
    let value = values.next().map_or("", |value| value.to_str().unwrap());
    assert!(values.next().is_none(), "two fields {name}");
    value
}
