//! The allocations of a request that passes one layer, beyond those of the service inside.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::convert::Infallible;
use core::future::{Ready, ready};
use core::net::{IpAddr, SocketAddr};
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use keytally::{Gate, GateConfig, Limiter, Name, NewKey, pepper};
use keytally_tower::{GateLayer, LimiterLayer};
use tower::{Layer as _, Service, service_fn};

fn hello(_: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Full::from("hello"))))
}

/// Returns how often a service allocates for a request.
fn allocations<S, B>(mut service: S, request: Request<()>) -> u64
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
{
    let count = allocation_counter::measure(|| {
        let future = pin!(service.call(request));
        let Poll::Ready(Ok(response)) = future.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the service does not respond at once");
        };
        assert_eq!(response.status(), 200);
    });
    count.count_total
}

fn from(address: &str) -> Request<()> {
    let mut request = Request::new(());
    let address: IpAddr = address.parse().unwrap();
    request.extensions_mut().insert(SocketAddr::new(address, 40_001));
    request
}

#[test]
fn limiter_layer_allocates_its_record_and_the_fields() {
    let limiter = Limiter::in_memory(&"100/minute, 1000/hour".parse().unwrap(), 100).unwrap();
    let layer = LimiterLayer::new(limiter);
    let alone = layer.clone().headers(false);
    for address in ["203.0.113.9", "2001:db8:1234:5678::1"] {
        assert_eq!(allocations(service_fn(hello), from(address)), 0);
        // The record, and its entry in the extensions.
        assert_eq!(allocations(alone.layer(service_fn(hello)), from(address)), 2);
        // Five values, and two for the map of `http`.
        assert_eq!(allocations(layer.layer(service_fn(hello)), from(address)), 2 + 5 + 2);
    }
}

#[test]
fn gate_layer_allocates_its_record_and_extensions() {
    let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
    let gate = Gate::in_memory(peppers, &GateConfig::default().with_keys(100)).unwrap();
    let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap();
    let request = || Request::builder().header("X-API-Key", key.expose()).body(()).unwrap();
    let layer = GateLayer::new(gate).headers(false);
    assert_eq!(allocations(service_fn(hello), request()), 0);
    // The record, and its key: a value of this request shares its memory only once it is cloned.
    // In the request's extensions: the map, its table, the record, the `Caller` and the
    // `Verdict`. In those of the response: the map, its table and the `Verdict`.
    assert_eq!(allocations(layer.layer(service_fn(hello)), request()), 2 + 5 + 3);
}
