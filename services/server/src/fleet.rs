//! The commands of a fleet: the agent of a machine, and what administrators see and change.

pub(crate) mod agent;
pub(crate) mod commands;
mod files;
mod keys;
mod metrics;
mod report;
mod store;
