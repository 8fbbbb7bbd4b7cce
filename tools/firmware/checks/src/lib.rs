//! What every device runs to show that it decides as every other one does: the shared vectors, then a short life of
//! a device. Both use one piece of memory that the device gives, and tell what they did as text.
#![no_std]
#![forbid(unsafe_code)]

mod clock;
pub mod life;
mod table;
pub mod vectors;

pub use clock::Clock;

use keytally_core::{Limiter, Line};

/// Keys that the device's gate has room for.
pub const KEYS: u32 = 64;

/// Plans that it has room for.
pub const PLAN_SLOTS: usize = 4;

/// Lines of that gate: 6 of header, one for every two plans, one for every key.
pub const GATE_LINES: usize = 6 + PLAN_SLOTS / 2 + KEYS as usize;

/// Subjects that the device's limiter has room for.
pub const SUBJECTS: u32 = 16;

/// Lines of that limiter.
pub const LIMITER_LINES: usize = Limiter::<&[Line]>::lines(SUBJECTS);
