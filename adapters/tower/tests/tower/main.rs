//! Tests of the layers, by calls of their services without a network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::std_instead_of_alloc, reason = "a test is a program of users, who write std")]

#[cfg(feature = "axum")]
mod axum;
mod connections;
mod fleet;
mod layers;
mod outcomes;
mod support;
mod tonic;
