//! Generates `mac.json`: hashes and message authentication codes.

use crate::files::{HashCase, HmacCase, RecordCase};
use crate::model::{Key, encode_key, hmac_sha256, record_mac, sha256};

use super::Lines;
use super::random::Random;

const ABOUT: &str = "SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104, with the cases of RFC 4231). Bytes are pairs of \
    hexadecimal digits. hmac: a mac of fewer than 32 bytes is the beginning of the tag. record: mac is what a gate stores of \
    a key, the first 16 bytes of the HMAC of the key's text under the pepper.";

/// Lengths next to those at which SHA-256 needs one more block. A block has 64 bytes, and padding
/// takes at least 9.
const LENGTHS: [usize; 17] = [0, 1, 3, 31, 32, 33, 54, 55, 56, 63, 64, 65, 119, 120, 127, 128, 256];

/// Returns the text of the file.
pub(super) fn file() -> String {
    let mut random = Random::new(6);

    let mut hashes = Vec::new();
    for data in ["abc", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"] {
        hashes.push(HashCase { data: data.into(), digest: sha256(data.as_bytes()).to_vec() });
    }
    for length in LENGTHS {
        let data = random.bytes(length);
        hashes.push(HashCase { digest: sha256(&data).to_vec(), data });
    }

    let mut hmacs = Vec::new();
    let mut push = |why: String, key: Vec<u8>, data: Vec<u8>, mac_length: usize| {
        let mac = hmac_sha256(&key, &data)[..mac_length].to_vec();
        hmacs.push(HmacCase { why, key, data, mac });
    };
    let text_of_case_7: &str = "This is a test using a larger than block-size key and a larger than block-size data. \
        The key needs to be hashed before being used by the HMAC algorithm.";
    let rfc_4231: [(Vec<u8>, Vec<u8>, usize); 7] = [
        (vec![0x0b; 20], "Hi There".into(), 32),
        ("Jefe".into(), "what do ya want for nothing?".into(), 32),
        (vec![0xaa; 20], vec![0xdd; 50], 32),
        ((1..=25).collect(), vec![0xcd; 50], 32),
        (vec![0x0c; 20], "Test With Truncation".into(), 16),
        (vec![0xaa; 131], "Test Using Larger Than Block-Size Key - Hash Key First".into(), 32),
        (vec![0xaa; 131], text_of_case_7.into(), 32),
    ];
    for (i, (key, data, mac_length)) in rfc_4231.into_iter().enumerate() {
        push(format!("RFC 4231 case {}", i + 1), key, data, mac_length);
    }
    for length in LENGTHS {
        push(format!("data of {length} bytes"), random.bytes(32), random.bytes(length), 32);
    }
    for length in LENGTHS {
        push(format!("key of {length} bytes"), random.bytes(length), random.bytes(47), 32);
    }

    let mut records = Vec::new();
    for (pepper_length, prefix, env) in [
        (32, "kt", "live"),
        (33, "a", "b"),
        (48, "kt", "test"),
        (63, "abcdefgh", "ijklmn"),
        (64, "abcdefgh", "ijklmn"),
        (65, "opqrst", "uvwxyz01"),
        (128, "kt", "live"),
    ] {
        let secret = u128::from(random.any()) << 64 | u128::from(random.any());
        let key =
            Key { prefix: prefix.to_owned(), env: env.to_owned(), key_id: random.any(), secret };
        let key = encode_key(&key);
        let pepper = random.bytes(pepper_length);
        records.push(RecordCase { mac: record_mac(&pepper, key.as_bytes()).to_vec(), pepper, key });
    }

    Lines::new(ABOUT)
        .array("sha256", &hashes)
        .array("hmac", &hmacs)
        .array("record", &records)
        .done()
}
