//! The list of keys of a gate: who has which key, who made it, and what was done with it.
//!
//! A gate knows records. People need names, teams and history. These are in a database, SQLite or
//! PostgreSQL. The database is the list of keys, and the gate decides. Each change goes one path:
//! it takes the gate's file lock, prepares what it writes, commits that to the database, puts it
//! into the gate, and then returns. A follower puts into the gate what other services changed. A
//! comparison of all keys settles what commands changed in the gate alone.
//!
//! # Modules
//! A module imports only modules below it in this table.
//!
//! | module | contents |
//! |---|---|
//! | [`command`] | the command `keytally keys` |
//! | [`page`] | the API Keys page |
//! | [`api`] | the JSON API |
//! | [`open`] | opens the list of a data folder |
//! | [`transfer`] | copies a list to another database |
//! | [`sampler`] | adds what the gate counts of uses to the list |
//! | [`usage`] | what each key was used for |
//! | [`tokens`] | admin tokens, which are keys of a gate of their own |
//! | [`organize`] | the changes of teams, members and links |
//! | `requests` | requests that must not be repeated |
//! | [`follow`] | keeps the gate up to date with the list |
//! | [`reconcile`] | compares all keys, and settles what differs |
//! | [`change`] | the changes of keys |
//! | [`list`] | the list and its gate, and the one path on which both change |
//! | [`status`], [`steps`] | how list and gate agree; the steps at which tests kill a process |
//! | `passkeys` | the passkeys of members, with the feature `passkeys` |
//! | [`sessions`] | the sessions of people who are signed in to the page |
//! | [`codes`], [`keys`], [`teams`], [`log`] | the rows of the tables |
//! | [`roles`] | roles and actors |
//! | [`error`], [`database`] | errors; connections and transactions |
//! | `file` | the file of a SQLite database |
//! | [`public_url`] | the URL of the service as people see it |
//! | [`text`], [`time`], `ids`, `system` | texts from people, times, key ids, the machine and its files |
#![forbid(unsafe_code)]

extern crate alloc;

pub mod api;
pub mod change;
pub mod codes;
pub mod command;
pub mod database;
pub mod error;
mod file;
pub mod follow;
mod ids;
pub mod keys;
pub mod list;
pub mod log;
pub mod open;
pub mod organize;
pub mod page;
#[cfg(feature = "passkeys")]
pub mod passkeys;
pub mod public_url;
pub mod reconcile;
mod requests;
pub mod roles;
pub mod sampler;
pub mod sessions;
pub mod status;
pub mod steps;
mod system;
pub mod teams;
pub mod text;
pub mod time;
pub mod tokens;
pub mod transfer;
pub mod usage;
