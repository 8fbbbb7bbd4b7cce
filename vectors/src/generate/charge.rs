//! Generates `charge.json`: charges as bytes.

use crate::files::{ChargeCase, ChargedEntry, InvalidCharge};
use crate::model::{ChargedTally, charge_bytes};

use super::random::Random;
use super::{Lines, NEW_YEAR_MS};

const ABOUT: &str = "Charges as bytes, which are pairs of hexadecimal digits. valid: tallies in the order in which they were \
    charged: the index of the tally in its gate, which cost of the request it is, the units, and the time of the decision in \
    Unix milliseconds. invalid: bytes that are not those of a charge.";

/// Returns the text of the file.
pub(super) fn file() -> String {
    let mut random = Random::new(7);

    let mut valid = Vec::new();
    let first = ChargedTally { tally: 0, unit: 0, cost: 1, at_ms: NEW_YEAR_MS };
    for cost in [0, 1, 255, 256, 0x0102_0304, u32::MAX] {
        for at_ms in [0, 1, NEW_YEAR_MS, 0x0102_0304_0506_0708, u64::MAX] {
            valid.push(case(&[ChargedTally { cost, at_ms, ..first }]));
        }
    }
    for (tally, unit) in [(1, 0), (0, 1), (255, 0), (0, 255)] {
        valid.push(case(&[ChargedTally { tally, unit, ..first }]));
    }
    for count in 2..=8 {
        let mut tallies = Vec::new();
        for _ in 0..count {
            let [tally, unit, c0, c1, c2, c3] = random.bytes(6)[..] else { unreachable!("six") };
            let cost = u32::from_le_bytes([c0, c1, c2, c3]);
            tallies.push(ChargedTally { tally, unit, cost, at_ms: random.any() });
        }
        valid.push(case(&tallies));
    }
    valid.push(case(&[ChargedTally { cost: 0, at_ms: 0, ..first }; 8]));

    let mut invalid = Vec::new();
    let mut push = |why: &str, change: &dyn Fn(&mut [u8])| {
        let mut bytes = charge_bytes(&[first, first]);
        change(&mut bytes);
        invalid.push(InvalidCharge { why: why.to_owned(), bytes });
    };
    push("zeros", &|bytes| bytes.fill(0));
    push("ones", &|bytes| bytes.fill(255));
    push("another mark of the first tally", &|bytes| bytes[6] = 2);
    push("another mark of the second tally", &|bytes| bytes[22] = 255);
    push("no mark of the first tally", &|bytes| bytes[6] = 0);
    push("no mark of the second tally", &|bytes| bytes[22] = 0);
    push("the reserved byte of the first tally", &|bytes| bytes[7] = 1);
    push("the reserved byte of the second tally", &|bytes| bytes[23] = 128);
    push("a unit after the last tally", &|bytes| bytes[32] = 1);
    push("a time after the last tally", &|bytes| bytes[47] = 1);
    push("the last byte", &|bytes| bytes[127] = 1);
    push("a tally after a gap", &|bytes| bytes[54] = 1);

    Lines::new(ABOUT).array("valid", &valid).array("invalid", &invalid).done()
}

/// Returns the case of a charge.
fn case(tallies: &[ChargedTally]) -> ChargeCase {
    let entry = |&ChargedTally { tally, unit, cost, at_ms }: &ChargedTally| ChargedEntry {
        tally,
        unit,
        cost,
        at_ms,
    };
    ChargeCase { tallies: tallies.iter().map(entry).collect(), bytes: charge_bytes(tallies) }
}
