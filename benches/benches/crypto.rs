//! The group `crypto`: HMAC-SHA-256 of texts as long as API keys, by several crates.

use core::hint::black_box;

use hmac::{Hmac, KeyInit as _, Mac as _};
use keytally_core::Pepper;
use sha2::Sha256;
use sha2::block_api::compress256;

use crate::measure::{Bench, PART, calls};

/// The pepper (the HMAC key) of all gates.
pub(crate) const PEPPER: [u8; 32] = [5; 32];

/// The initial hash value of SHA-256 (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The work of rows that compute a tag and compare it.
const VERIFY: &str = "verify";

/// Measures the group.
pub(crate) fn measure(bench: &mut Bench) {
    let title = "HMAC-SHA-256 of a message, by its length";
    let about = "The HMAC key is prepared before, unless a row says otherwise. A row computes the tag, or also compares it with a given tag (verify).";
    let mut table = bench.table("crypto/mac", "ns", title, about);
    for length in [40, 47, 55] {
        let message = vec![b'a'; length];
        let message = message.as_slice();
        let pepper = Pepper::new(&PEPPER).expect("a pepper");
        let prepared = Hmac::<Sha256>::new_from_slice(&PEPPER).expect("any length");
        let tag = prepared.clone().chain_update(message).finalize().into_bytes();
        assert_eq!(pepper.mac(message).to_bytes(), tag[..]);
        let ring = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &PEPPER);
        assert_eq!(ring::hmac::sign(&ring, message).as_ref(), &tag[..]);
        let signing = prepared.clone();
        let key = ring.clone();
        let mut state = INITIAL;
        let implementations = vec![
            calls("keytally: Pepper::mac and its first half", move || {
                pepper.mac(black_box(message)).tag()
            }),
            calls("hmac: clone and verify_slice", move || {
                prepared.clone().chain_update(black_box(message)).verify_slice(black_box(&tag))
            })
            .with_work(VERIFY),
            calls("hmac: clone and finalize", move || {
                signing.clone().chain_update(black_box(message)).finalize().into_bytes()
            }),
            calls("hmac: a new key each time", move || {
                let hmac = Hmac::<Sha256>::new_from_slice(black_box(&PEPPER)).expect("any length");
                hmac.chain_update(black_box(message)).finalize().into_bytes()
            })
            .with_work("a new key"),
            calls("ring: sign", move || ring::hmac::sign(&key, black_box(message))),
            calls("ring: verify", move || {
                ring::hmac::verify(&ring, black_box(message), black_box(&tag))
            })
            .with_work(VERIFY),
            calls("two dependent compressions alone", move || {
                two_compressions(&mut state, black_box(&[[b'a'; 64]; 2]))
            })
            .with_work(PART),
            calls("one compression alone", || {
                let mut state = black_box(INITIAL);
                compress256(&mut state, black_box(&[[b'a'; 64]]));
                state
            })
            .with_work(PART),
        ];
        table.column(format!("{length} bytes"), implementations);
    }
}

/// Does the two SHA-256 compressions that an HMAC of a short message cannot do without. The second
/// needs the state after the first. The first needs the state after the previous call, so that
/// calls do not overlap. Checks do not overlap either, because each ends with a locked instruction.
#[inline]
pub(crate) fn two_compressions(state: &mut [u32; 8], blocks: &[[u8; 64]; 2]) -> u32 {
    compress256(state, &blocks[..1]);
    compress256(state, &blocks[1..]);
    state[0]
}
