//! The group `crypto`: the HMAC of a key, by implementation.

use core::hint::black_box;

use hmac::{Hmac, KeyInit as _, Mac as _};
use keytally_core::Pepper;
use sha2::Sha256;
use sha2::block_api::compress256;

use crate::measure::{Bench, calls};

/// The bytes of the pepper.
pub(crate) const PEPPER: [u8; 32] = [5; 32];

/// The initial state of SHA-256, FIPS 180-4, 5.3.3.
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

pub(crate) fn measure(bench: &mut Bench) {
    let title = "HMAC-SHA-256 of a message, by its length";
    let about = "With a prepared key, unless a row says otherwise. Only the MAC, or its comparison with a given one.";
    let mut table = bench.table("crypto/mac", "ns", title, about);
    for length in [40, 47, 55] {
        let message = vec![b'a'; length];
        let message = message.as_slice();
        let pepper = Pepper::new(&PEPPER).expect("a pepper");
        let ready = Hmac::<Sha256>::new_from_slice(&PEPPER).expect("any length");
        let tag = ready.clone().chain_update(message).finalize().into_bytes();
        assert_eq!(pepper.mac(message).to_bytes(), tag[..]);
        let ring = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &PEPPER);
        assert_eq!(ring::hmac::sign(&ring, message).as_ref(), &tag[..]);
        let sign = ready.clone();
        let key = ring.clone();
        let mut state = INITIAL;
        let implementations = vec![
            calls("keytally: Pepper::mac and its first half", move || {
                pepper.mac(black_box(message)).tag()
            }),
            calls("hmac: clone and verify_slice", move || {
                ready.clone().chain_update(black_box(message)).verify_slice(black_box(&tag))
            }),
            calls("hmac: clone and finalize", move || {
                sign.clone().chain_update(black_box(message)).finalize().into_bytes()
            }),
            calls("hmac: a new key each time", move || {
                let hmac = Hmac::<Sha256>::new_from_slice(black_box(&PEPPER)).expect("any length");
                hmac.chain_update(black_box(message)).finalize().into_bytes()
            }),
            calls("ring: sign", move || ring::hmac::sign(&key, black_box(message))),
            calls("ring: verify", move || {
                ring::hmac::verify(&ring, black_box(message), black_box(&tag))
            }),
            calls("two dependent compressions alone", move || {
                two_compressions(&mut state, black_box(&[[b'a'; 64]; 2]))
            }),
            calls("one compression alone", || {
                let mut state = black_box(INITIAL);
                compress256(&mut state, black_box(&[[b'a'; 64]]));
                state
            }),
        ];
        table.column(format!("{length} bytes"), implementations);
    }
}

/// The least work of an HMAC of a short message: two compressions, each of which needs the state
/// after the one before. That includes the first compression of a call: a check ends with a locked
/// instruction, and the next check begins after it.
#[inline]
pub(crate) fn two_compressions(state: &mut [u32; 8], blocks: &[[u8; 64]; 2]) -> u32 {
    compress256(state, &blocks[..1]);
    compress256(state, &blocks[1..]);
    state[0]
}
