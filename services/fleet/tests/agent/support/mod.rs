//! Machines in memory, real servers, and a proxy between them.

pub(crate) mod fleet;
pub(crate) mod memory;
pub(crate) mod proxy;
pub(crate) mod servers;
pub(crate) mod time;
