//! The bytes of a charge of several tallies.

/// What one of several tallies was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChargedTally {
    /// The index of the tally in its gate.
    pub tally: u8,
    /// Which cost of the request this is.
    pub unit: u8,
    /// The units.
    pub cost: u32,
    /// The time of the decision in Unix milliseconds.
    pub at_ms: u64,
}

/// Returns the 128 bytes of a charge: 16 for each tally, followed by zeros.
///
/// # Panics
///
/// If there are more than eight tallies.
#[must_use]
pub fn charge_bytes(tallies: &[ChargedTally]) -> Vec<u8> {
    assert!(tallies.len() <= 8, "a charge has at most eight tallies");
    let mut bytes = Vec::new();
    for charged in tallies {
        bytes.extend(charged.cost.to_le_bytes());
        bytes.extend([charged.tally, charged.unit, 1, 0]);
        bytes.extend(charged.at_ms.to_le_bytes());
    }
    bytes.resize(128, 0);
    bytes
}
