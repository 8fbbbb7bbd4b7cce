//! The target `mac`: MACs of keys and other texts, compared with the crate `hmac`. Peppers have
//! various lengths.

use hmac::{Hmac, KeyInit, Mac};
use keytally_core::MIN_PEPPER_LEN;
use keytally_core::{Key, KeyId, Name, Pepper};
use sha2::Sha256;

use crate::bytes::Bytes;

/// The number of different pepper lengths. They exceed 64 bytes, beyond which HMAC hashes its key
/// first.
const PEPPER_LENGTHS: usize = 128;

/// Compares the MAC of a key of Keytally, of a foreign key, or of any text, under a pepper.
pub fn mac(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let pepper_len = MIN_PEPPER_LEN + bytes.below(PEPPER_LENGTHS);
    let kind = bytes.below(3);
    let pepper = bytes.take(pepper_len);
    match kind {
        0 => {
            let names = ["a", "kt", "live", "prefix00"].map(|name| Name::new(name).unwrap());
            let (prefix, env) = (bytes.pick(&names), bytes.pick(&names[..3]));
            let id = KeyId::from_number(bytes.word().max(1)).unwrap();
            let key = Key::mint(prefix, env, id, &bytes.array()).unwrap();
            assert_same_mac(&pepper, key.expose().as_bytes());
        }
        1 => {
            let len = 16 + bytes.below(241);
            assert_same_mac(&pepper, &bytes.take(len));
        }
        _ => assert_same_mac(&pepper, bytes.rest()),
    }
}

/// Asserts that the core and the crate `hmac` return the same MAC.
fn assert_same_mac(pepper: &[u8], message: &[u8]) {
    let mut reference = Hmac::<Sha256>::new_from_slice(pepper).unwrap();
    reference.update(message);
    let expected: [u8; 32] = reference.finalize().into_bytes().into();
    assert_eq!(
        Pepper::new(pepper).unwrap().mac(message).to_bytes(),
        expected,
        "{} bytes",
        message.len()
    );
}
