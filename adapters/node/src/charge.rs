//! The functions of the class `Charge`.

use keytally::{Charge, Timestamp};
use napi::bindgen_prelude::{Buffer, Uint8Array};
use napi_derive::napi;

use crate::errors::{Result, error};
use crate::facts::{milliseconds, time};

/// Returns the charge with these bytes.
pub(crate) fn parse(bytes: &[u8]) -> Result<Charge> {
    bytes.try_into().ok().and_then(Charge::from_bytes).ok_or_else(|| {
        error(
            "RangeError",
            "the bytes are not those of a charge: pass the 128 bytes that toBytes returned",
        )
    })
}

/// The numbers of a charge.
#[napi(object)]
pub(crate) struct ChargeFacts {
    pub cost: u32,
    pub at_ms: f64,
}

/// Returns the numbers of the charge with these bytes.
#[napi(catch_unwind)]
pub(crate) fn charge_facts(bytes: Uint8Array) -> Result<ChargeFacts> {
    let charge = parse(&bytes)?;
    Ok(ChargeFacts { cost: charge.cost(), at_ms: milliseconds(charge.at()) })
}

/// Returns the bytes of the charge of one tally.
#[napi(catch_unwind)]
pub(crate) fn charge_bytes(cost: u32, at_ms: f64, is_shared: bool, is_unreserved: bool) -> Buffer {
    let make = match (is_shared, is_unreserved) {
        (false, false) => Charge::new,
        (false, true) => Charge::unreserved,
        (true, false) => Charge::shared,
        (true, true) => Charge::shared_unreserved,
    };
    make(cost, Timestamp::from_unix_ms(time(at_ms))).to_bytes().to_vec().into()
}
