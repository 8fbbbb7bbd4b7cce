//! The checks that each device runs: the shared vectors, then a simulated life of a device.
//!
//! They verify that all devices make the same decisions. Both use memory that the device provides.
//! Their output must be the same on all devices.
#![no_std]
#![forbid(unsafe_code)]

mod clock;
pub mod life;
mod table;
pub mod vectors;

pub use clock::Clock;

use keytally_core::{CacheLine, Limiter};

/// The capacity of the device's gate, in keys.
pub const KEYS: u32 = 64;

/// The capacity of the gate, in plans.
pub const PLAN_SLOTS: usize = 4;

/// The size of the gate, in lines: 6 of header, one for each two plans, one for each key.
pub const GATE_LINES: usize = 6 + PLAN_SLOTS / 2 + KEYS as usize;

/// The capacity of the device's limiter, in subjects.
pub const SUBJECTS: u32 = 16;

/// The size of the limiter, in lines.
pub const LIMITER_LINES: usize = Limiter::<&[CacheLine]>::lines(SUBJECTS);
