//! Which peppers the keys of a gate need, which of these were not given, and in which order.

use std::path::Path;

use keytally::{Gate, Timestamp};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::pluralized;

/// A pepper that keys need.
#[derive(Debug, Serialize)]
pub struct PepperUse {
    /// The number of the pepper in the gate.
    pub number: usize,
    /// The number of keys with a valid secret under the pepper. A key in the grace of a rotation
    /// may count for two peppers.
    pub keys: u32,
    /// Whether this process was given the pepper.
    pub given: bool,
}

/// Returns the peppers that keys need. Reads the whole gate.
pub fn in_use(gate: &Gate, now: Timestamp) -> Vec<PepperUse> {
    let table = gate.table();
    let counts = table.keys_per_pepper(now).into_iter().enumerate();
    counts
        .filter(|&(_, keys)| keys > 0)
        .map(|(number, keys)| PepperUse { number, keys, given: table.has_pepper(number) })
        .collect()
}

/// Returns a sentence for each of these peppers that was not given.
pub fn warnings(peppers: &[PepperUse]) -> impl Iterator<Item = String> {
    peppers.iter().filter(|pepper| !pepper.given).map(|PepperUse { number, keys, .. }| {
        let have = if *keys == 1 { "has" } else { "have" };
        format!(
            "pepper {number} was not given: {} {have} a valid secret under it, which is refused \
             with the reason pepper_missing; give all peppers, newest last",
            pluralized(keys, "key")
        )
    })
}

/// Returns a sentence if the peppers were probably given in the wrong order.
pub fn order_warning(gate: &Gate) -> Option<String> {
    let (newest, later) = gate.table().misordered_peppers()?;
    let later = match later {
        Some(number) => format!("pepper {number}, which is newer"),
        None => "one that the gate does not have yet".to_owned(),
    };
    Some(format!(
        "the peppers are probably in the wrong order: the last one is pepper {newest} of the gate, \
         after {later}; give all peppers, newest last"
    ))
}

/// Checks that a new secret would be stored under the newest pepper that was given.
///
/// # Errors
/// A failure if the peppers are probably in the wrong order.
pub fn check_order(gate: &Gate, path: &Path) -> Result<(), Failure> {
    order_warning(gate).map_or(Ok(()), |warning| {
        Err(Failure::new(format!(
            "{}: nothing was changed: {warning}, or only the one that new keys are to be under",
            path.display()
        )))
    })
}
