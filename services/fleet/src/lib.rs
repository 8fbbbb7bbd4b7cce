//! The agent of a machine that shares limits with others through a Redis or Valkey.
//!
//! Each machine of a fleet leases units of each window from the store, and its requests spend them
//! as credits from memory. The [`Agent`] moves them: it is the only part that talks to the store.
//! What is leased and when, and why the sum never exceeds a limit, is in `keytally-fleet-plan`.
//!
//! ```no_run
//! use keytally_fleet::{Agent, FleetConfig, Machine, OnLoss, StoreConfig};
//!
//! fn lead(machine: &(impl Machine + Sync)) -> Result<(), keytally_fleet::FleetError> {
//!     let store = StoreConfig::new("redis://store.example".parse()?);
//!     let config = FleetConfig::new("prod", store, OnLoss::Closed);
//!     Agent::new(machine, &config)?.run(|| false)
//! }
//! ```
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
mod agent;
mod clock;
mod config;
mod connection;
mod counters;
mod error;
mod keys;
mod machine;
mod names;
mod password;
#[cfg(feature = "__replies")]
mod replies;
mod sentinel;
mod server;
mod slots;
mod store;
mod subscriber;
mod tallies;

pub use address::{MAX_HOSTS, StoreUrl};
pub use agent::{Agent, SLEEP, UnusableKey};
pub use clock::MOST_JUMP_MS;
pub use config::{FleetConfig, MAX_CONFIRM, MAX_FLEET_NAME_LEN, REQUESTS_PER_S, StoreConfig};
pub use connection::{CONNECT_TIMEOUT, PAUSES, REPLY_TIMEOUT};
pub use counters::{Counters, Counts};
pub use error::FleetError;
pub use keys::{
    CONNECTED_MS, KEY_SCRIPTS, KEYS_FULL_READ, KEYS_POLL, KEYS_TURN, KeyCarrier, KeyCounts,
    MAX_ENDED_DAYS, MAX_KEYS_AT_ONCE, MAX_KEYS_COMPARED, MAX_KEYS_WAIT, MAX_LOCATION_LEN,
    MIN_FORMER_KEYS, set_not_carried,
};
pub use keytally_fleet_plan as plan;
pub use keytally_fleet_plan::on_loss::OnLoss;
pub use machine::{Machine, Subject};
pub use password::{MAX_PASSWORD_LEN, PasswordSource};
#[cfg(feature = "__replies")]
#[doc(hidden)]
pub use replies::Replies;
pub use store::{CONFIRM_MS, PIPELINE, reset};
pub use subscriber::MESSAGES;
