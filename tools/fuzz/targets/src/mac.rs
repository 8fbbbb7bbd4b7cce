//! MACs of keys and other texts under peppers of any length, compared with the crate `hmac`.

use hmac::{Hmac, KeyInit, Mac};
use keytally_core::MIN_PEPPER_LEN;
use keytally_core::{Key, KeyId, Name, Pepper};
use sha2::Sha256;

use crate::bytes::Bytes;

/// The range of pepper lengths. HMAC hashes a key of more than 64 bytes first.
const MORE_PEPPER: usize = 128;

/// Compares MACs under a pepper: of a key of Keytally's form, of a foreign key, or of any text.
pub fn mac(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let pepper_len = MIN_PEPPER_LEN + bytes.below(MORE_PEPPER);
    let kind = bytes.below(3);
    let pepper = bytes.take(pepper_len);
    match kind {
        0 => {
            let names = ["a", "kt", "live", "prefix00"].map(|name| Name::new(name).unwrap());
            let (prefix, env) = (bytes.pick(&names), bytes.pick(&names[..3]));
            let id = KeyId::from_number(bytes.word().max(1)).unwrap();
            let key = Key::mint(prefix, env, id, &bytes.array()).unwrap();
            agree(&pepper, key.expose().as_bytes());
        }
        1 => {
            let len = 16 + bytes.below(241);
            agree(&pepper, &bytes.take(len));
        }
        _ => agree(&pepper, bytes.rest()),
    }
}

/// Asserts that the core and the crate `hmac` return the same MAC.
fn agree(pepper: &[u8], message: &[u8]) {
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
