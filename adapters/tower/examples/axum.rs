//! An axum application with API keys. It prints a key and a curl command, and listens on the port
//! 8000, or on the one in its first argument.
//!
//! ```sh
//! cargo run --manifest-path services/Cargo.toml -p keytally-tower --features axum --example axum
//! ```
#![expect(clippy::std_instead_of_alloc, reason = "a program of users, who write std")]

use core::error::Error;
use core::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use keytally::{Gate, GateConfig, Limiter, Name, NewKey, pepper};
use keytally_tower::{Caller, GateLayer, LimiterLayer};

/// Returns the application: `/contacts` needs a key, and each client address has a limit.
pub(crate) fn app(gate: Arc<Gate>, addresses: Limiter) -> Result<Router, Box<dyn Error>> {
    let keys = GateLayer::new(gate)
        .key_from(["X-API-Key", "Authorization: Bearer"])?
        .exempt(["/health"])?
        .refund(500..=599)?;
    Ok(Router::new()
        .route("/contacts", get(contacts))
        .route("/health", get(async || "ok\n"))
        .layer(keys)
        // The layer that is added last checks first.
        .layer(LimiterLayer::new(addresses)))
}

async fn contacts(caller: Caller) -> String {
    format!("the contacts of account {}\n", caller.account().unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A server opens its gate by `Followed::open`, with the pepper of its environment.
    let peppers = pepper::parse(&pepper::generate()?)?;
    let gate = Arc::new(Gate::in_memory(peppers, &GateConfig::default())?);
    let (key, _) = gate.issue(&NewKey::new(42, Name::new("live").ok_or("not a name")?))?;
    let addresses = Limiter::in_memory(&"300/minute".parse()?, 100_000)?;

    let port = std::env::args().nth(1).map_or(Ok(8000), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    println!("curl -i -H \"X-API-Key: {}\" http://{address}/contacts", key.expose());
    let app = app(gate, addresses)?;
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}
