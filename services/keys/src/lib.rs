//! The list of keys.
#![forbid(unsafe_code)]

extern crate alloc;

pub mod api;
pub mod change;
pub mod codes;
pub mod command;
pub mod database;
pub mod error;
pub mod follow;
mod ids;
pub mod keys;
pub mod list;
pub mod log;
pub mod open;
pub mod organize;
pub mod reconcile;
pub mod roles;
pub mod status;
pub mod steps;
mod system;
pub mod teams;
pub mod text;
pub mod time;
pub mod tokens;
pub mod transfer;
pub mod usage;
