//! A gRPC server with API keys: the health service of tonic-health. It prints a key and a grpcurl
//! command, and listens on the port 8000, or on the one in its first argument.
//!
//! ```sh
//! cargo run --manifest-path services/Cargo.toml -p keytally-tower --example tonic
//! ```
#![expect(clippy::std_instead_of_alloc, reason = "a program of users, who write std")]

use core::error::Error;
use core::net::SocketAddr;
use std::sync::Arc;

use keytally::{Gate, GateConfig, Limiter, Name, NewKey, pepper};
use keytally_tower::{GateLayer, LimiterLayer};
use tonic::transport::Server;
use tonic::transport::server::TcpConnectInfo;

/// Returns the layer that limits the address of each client.
pub(crate) fn addresses(limiter: Limiter) -> LimiterLayer {
    LimiterLayer::new(limiter).subject(|request| {
        let info = request.extensions.get::<TcpConnectInfo>()?;
        Some(keytally_tower::address_subject(info.remote_addr()?.ip(), 64))
    })
}

/// Returns the layer that checks keys. A call that fails is not charged.
pub(crate) fn keys(gate: Arc<Gate>) -> GateLayer {
    GateLayer::new(gate).settle_at_head(|_, response| {
        let status = response.headers.get("grpc-status");
        u32::from(status.is_none_or(|status| status == "0"))
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A server opens its gate by `Followed::open`, with the pepper of its environment.
    let peppers = pepper::parse(&pepper::generate()?)?;
    let gate = Arc::new(Gate::in_memory(peppers, &GateConfig::default())?);
    let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").ok_or("not a name")?))?;
    let limiter = Limiter::in_memory(&"300/minute".parse()?, 100_000)?;

    let port = std::env::args().nth(1).map_or(Ok(8000), |port| port.parse())?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    println!(
        "grpcurl -plaintext -proto health.proto -H \"X-API-Key: {}\" {address} \
         grpc.health.v1.Health/Check",
        key.expose()
    );
    let (_reporter, health) = tonic_health::server::health_reporter();
    // Unlike in axum, the layer that is added first checks first.
    let mut server = Server::builder().layer(addresses(limiter)).layer(keys(gate));
    server.add_service(health).serve(address).await?;
    Ok(())
}
