//! What a check charged.

use crate::time::Timestamp;

/// Units that were charged, and when, so that [`refund`](crate::decide::refund) and [`settle`](crate::decide::settle) can return exactly those.
///
/// It can be built as a literal, so that a caller can store both values and put them together
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Charge {
    /// The units charged.
    pub cost: u32,
    /// The time of the decision that charged them, [`Quotas::time`](crate::Quotas::time).
    pub at: Timestamp,
}
