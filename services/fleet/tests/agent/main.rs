//! Agents of machines in memory, on real servers of Redis or Valkey.
//!
//! `KEYTALLY_TEST_REDIS` names another server than `redis-server`, such as `valkey-server`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

mod failover;
mod gates;
mod keys;
mod lifecycle;
mod limiters;
mod network;
mod refusals;
mod sharing;
mod support;
