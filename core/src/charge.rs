//! The charge of a check, which a later refund returns.

use crate::time::Timestamp;

/// Units that were charged, and the time of the charge. [`refund`](crate::decide::refund) and
/// [`settle`](crate::decide::settle) return units only to the windows of that time.
///
/// The fields are public and complete, so that a caller can store both values and write a literal
/// of them later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Charge {
    /// The units that were charged.
    pub cost: u32,
    /// The time of the decision that charged them: see [`Quotas::time`](crate::Quotas::time).
    #[cfg_attr(feature = "serde", serde(rename = "at_ms"))]
    pub at: Timestamp,
}
