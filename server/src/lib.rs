//! The program `keytally`: the command line of a gate, and a service that checks API keys over HTTP.
//!
//! # Layers
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the command line; one file a command |
//! | `pepper` | where the pepper comes from |
//! | `plans` | plans as they are written on a command line |
//! | `shown`, `table`, `when` | what may be shown of a key, as JSON, in columns, and times as text |
//! | `failure` | why a command failed, in one sentence |
//! | `service` | `keytally serve`: the data folder, the routes, metrics, the log, and how it stops |
//!
//! All decisions are the core's; here they are asked for and shown.
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cli;

mod failure;
mod pepper;
mod plans;
mod service;
mod shown;
mod table;
mod when;
