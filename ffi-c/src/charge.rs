//! The charge: what a check charged, as bytes that callers store.

use keytally_core::{Charge, Timestamp};

use crate::guard::guard;
use crate::pointers::{In, Out, Target, plain};
use crate::status::{FfiResult, kt_status};

const _: () = assert!(size_of::<kt_charge>() == Charge::LEN);

plain! {
    /// What a request was charged: an opaque struct of a fixed size and without pointers, which may
    /// be copied, stored and sent. Refunds and settlements take it.
    ///
    /// `kt_verdict_charge` and `kt_charge_new` write it. Its 128 bytes are the same in every
    /// language and on every machine. Zeros are not a charge.
    #[derive(Debug)]
    pub struct kt_charge {
        /// The bytes of the charge. Only this library reads their content.
        pub words: [u64; 16],
    }
}

impl kt_charge {
    /// # Errors
    /// `KT_NOT_A_CHARGE` if this library does not write these bytes.
    pub(crate) fn to_core(self) -> FfiResult<Charge> {
        let mut bytes = [0; Charge::LEN];
        let (chunks, _) = bytes.as_chunks_mut();
        for (chunk, word) in chunks.iter_mut().zip(self.words) {
            *chunk = word.to_ne_bytes();
        }
        Charge::from_bytes(&bytes).ok_or(kt_status::KT_NOT_A_CHARGE)
    }
}

impl Target<'_, kt_charge> {
    /// Writes a charge.
    pub(crate) fn put_charge(mut self, charge: Charge) {
        let bytes = charge.to_bytes();
        let (chunks, _) = bytes.as_chunks();
        for (word, chunk) in self.zeroed().words.iter_mut().zip(chunks) {
            *word = u64::from_ne_bytes(*chunk);
        }
    }
}

/// Writes the charge of one tally: `cost` units, at a decision of the time `at_ms`. For callers
/// that stored these two numbers.
///
/// ```c
/// kt_charge charge;
/// if (kt_charge_new(cost, at_ms, &charge) == KT_OK)
///     kt_gate_refund(gate, key_id, &charge, KT_SYSTEM_CLOCK, &verdict);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_charge_new(cost: u32, at_ms: u64, charge_out: Out<kt_charge>) -> kt_status {
    guard(|| {
        charge_out.target()?.put_charge(Charge::new(cost, Timestamp::from_unix_ms(at_ms)));
        Ok(())
    })
}

/// Writes the units that the request itself was charged; 0 if only groups with costs of their own
/// were charged.
///
/// Statuses: `KT_NOT_A_CHARGE`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_charge_cost(charge: In<kt_charge>, cost_out: Out<u32>) -> kt_status {
    guard(|| {
        let target = cost_out.target()?;
        target.write(charge.read()?.to_core()?.cost());
        Ok(())
    })
}

/// Writes the time of the decision that charged the first tally, in Unix milliseconds.
///
/// Statuses: `KT_NOT_A_CHARGE`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_charge_at_ms(charge: In<kt_charge>, at_ms_out: Out<u64>) -> kt_status {
    guard(|| {
        let target = at_ms_out.target()?;
        target.write(charge.read()?.to_core()?.at().unix_ms());
        Ok(())
    })
}
