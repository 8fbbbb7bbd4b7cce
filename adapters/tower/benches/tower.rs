//! Measures `LimiterLayer` and tower_governor: calls of a service in the process, without a
//! network. Each address has a limit that the calls do not reach.
//!
//! `cargo xtask bench tower` measures in several rounds.

#[expect(dead_code, reason = "this group has fewer kinds of implementations")]
#[path = "../../../benches/benches/measure.rs"]
mod measure;
#[expect(dead_code, reason = "this group has one kind of traffic")]
#[path = "../../../benches/benches/traffic.rs"]
mod traffic;

extern crate alloc;
// The package of the core, by the name that the shared files use.
extern crate keytally as keytally_core;

use alloc::sync::Arc;
use core::convert::Infallible;
use core::future::{Ready, ready};
use core::net::SocketAddr;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use keytally::Limiter;
use keytally_tower::LimiterLayer;
use tower::{Layer as _, Service, service_fn};
use tower_governor::GovernorLayer;
use tower_governor::governor::GovernorConfigBuilder;

use crate::measure::{Admitted, Bench, Implementation, PART, checks};
use crate::traffic::{Order, Walk};

/// The requests per minute that each address has.
const LIMIT: u32 = 2_000_000_000;

/// The time in which the bucket of a governor gets one unit: a minute by [`LIMIT`].
const UNIT_NS: u64 = 30;

/// The work of implementations whose responses have rate-limit fields.
const FIELDS: &str = "rate-limit fields";

fn main() {
    let mut bench = Bench::from_environment();
    let title = "A limit for each client address, as a tower layer";
    let about = "The time includes creating the request with its address, the calls of poll_ready and of call, and polling the future once. The inner service responds at once. Each address has one limit per minute.";
    let mut table = bench.table("tower/addresses", "ns per request", title, about);
    for size in [1, 1_000, 100_000] {
        let limiter = limiter(size);
        let keytally = LimiterLayer::new(Arc::clone(&limiter));
        let builder = || {
            let mut builder = GovernorConfigBuilder::default();
            builder.per_nanosecond(UNIT_NS).burst_size(LIMIT);
            builder
        };
        let governor = GovernorLayer::new(builder().finish().expect("a valid configuration"));
        let with_fields = builder().use_headers().finish().expect("a valid configuration");
        let inner = service_fn(hello);
        table.column_of(
            size,
            vec![
                calls("LimiterLayer", size, keytally.clone().headers(false).layer(inner))
                    .with_clock(),
                calls("tower_governor", size, governor.layer(inner)).with_clock(),
                calls("LimiterLayer, with fields", size, keytally.layer(inner))
                    .with_clock()
                    .with_work(FIELDS),
                calls(
                    "tower_governor, with fields",
                    size,
                    GovernorLayer::new(with_fields).layer(inner),
                )
                .with_clock()
                .with_work(FIELDS),
                calls("the inner service alone", size, inner).with_work(PART),
            ],
        );
    }
    drop(table);
    bench.save("tower");
}

/// Returns an empty limiter for `size` addresses.
fn limiter(size: u32) -> Arc<Limiter> {
    let policy = format!("{LIMIT}/minute").parse().expect("a policy");
    let capacity = size.max(1_000).next_power_of_two().saturating_mul(2);
    Arc::new(Limiter::in_memory(&policy, capacity).expect("memory"))
}

/// The inner service.
fn hello(_: Request<()>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::from("hello"))))
}

/// Returns an implementation that calls a service with requests from `size` addresses.
fn calls<'a, S, B>(name: &'static str, size: u32, mut service: S) -> Implementation<'a>
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible> + 'a,
{
    let numbers = Walk::new(size, Order::Uniform).numbers;
    let mut next = 0;
    let mut context = Context::from_waker(Waker::noop());
    checks(name, Admitted::All, move || {
        let number = numbers[next];
        next = if next + 1 == numbers.len() { 0 } else { next + 1 };
        let [a, b, c, d] = number.to_be_bytes();
        let mut request = Request::new(());
        let address = SocketAddr::from(([10 + a, b, c, d], 40_001));
        request.extensions_mut().insert(ConnectInfo(address));
        assert!(service.poll_ready(&mut context).is_ready(), "{name} is not ready");
        match pin!(service.call(request)).poll(&mut context) {
            Poll::Ready(Ok(response)) => response.status() == 200,
            Poll::Pending => panic!("{name} does not respond at once"),
        }
    })
}
