//! API-key checks and rate limits of [`keytally`] as tower layers, for axum, tonic, hyper and every
//! other server of HTTP services.
//!
//! - [`GateLayer`] requires a valid API key with quota left, and charges the key.
//! - [`LimiterLayer`] requires quota left for the request's subject, such as the peer's address.
//!
//! ```
//! use std::sync::Arc;
//! use keytally::{Gate, GateConfig, Limiter, pepper};
//! use keytally_tower::{GateLayer, LimiterLayer};
//!
//! let peppers = pepper::parse(&pepper::generate()?)?;
//! let gate = Arc::new(Gate::in_memory(peppers, &GateConfig::default())?);
//! let addresses = Limiter::in_memory(&"300/minute".parse()?, 100_000)?;
//!
//! let gate = GateLayer::new(gate).exempt(["/health"])?.refund(500..=599)?;
//! let addresses = LimiterLayer::new(addresses);
//! # let _ = (gate, addresses);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Responses
//! A refused request gets the status, the body and the header fields of its verdict, as the service
//! and the integrations for other languages send them. If `Accept` names problem documents (RFC
//! 9457), the body is one. `Content-Type` and `Content-Length` are always set.
//! [`GateLayer::refusal`] replaces the body and the status.
//!
//! A gRPC client gets a response without a body instead: `grpc-status` is 16 (UNAUTHENTICATED) or 8
//! (RESOURCE_EXHAUSTED), and the header fields are metadata. A request is of gRPC if its
//! `Content-Type` is `application/grpc`, or begins with that and `+` or `;`.
//!
//! # Several layers
//! - Each table is charged once for a request. If two layers check one table for the same key or
//!   subject, the higher cost is charged.
//! - If a limit refuses the request, earlier charges are refunded. A 401 refunds nothing: a limiter
//!   outside of a gate counts the attempts.
//! - The outermost layer sets the header fields. `X-RateLimit-*` describe the gate or, without a
//!   gate, the first limiter. `RateLimit` and `RateLimit-Policy` list the quotas of all tables. A
//!   repeated name gets a number: `"minute"`, `"minute-2"`.
//!
//! # Charges by outcome
//! | the inner service | `refund(500..=599)` | `settle` | `settle_at_head` |
//! |---|---|---|---|
//! | responds | refunds by the status | called at the end of the body | called at the head |
//! | returns an error | refunds: it counts as 500 | called, with the status 500 | the charge stays |
//! | responds, and its body returns an error | refunds: it counts as 500 | called | as at the head |
//! | is canceled before the response | the charge stays | called, without a status | the charge stays |
//! | is canceled within the body | as by the status | called | as at the head |
//!
//! After a panic of the inner service, the server drops the future, so that is a cancellation. With
//! a layer such as `CatchPanicLayer` inside, it is a response with the status 500.
//!
//! # Fleets
//! If a request of a gate in a fleet lacks credits, its future waits for them, at most for
//! [`set_credit_wait`](keytally::Gate::set_credit_wait), and its thread serves other requests
//! meanwhile. The future needs no timer of a runtime. A future that is dropped while it waits has
//! charged nothing.
//!
//! # Functions of the application
//! They are called on the thread of the request, and must not block. If one of them panics, the
//! panic propagates, as from any service.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
mod answer;
mod body;
mod caller;
mod charge;
mod error;
mod exempt;
mod fields;
mod key;
mod layers;
mod record;
mod respond;
mod rule;
mod service;
mod table;
mod waiting;

#[cfg(feature = "axum")]
pub use self::caller::MissingGateLayer;
pub use self::{
    address::address_subject,
    answer::{Answer, Respond},
    body::GuardBody,
    caller::Caller,
    charge::Sent,
    error::ConfigError,
    key::KeySources,
    layers::{GateLayer, LimiterLayer},
    respond::{refusal, set_fields},
    service::{Guard, GuardFuture},
    table::{Extras, SharedGate, SharedLimiter},
};

/// The examples of the README, compiled with those of this crate.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
