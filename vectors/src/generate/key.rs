//! Generates `key.json`: keys, and texts that are not keys.

use crate::files::{CrcCase, InvalidKey, ValidKey};
use crate::model::{Key, crc32, encode_key, hint, key_id_text, parse_key};

use super::Lines;
use super::random::Random;

const ABOUT: &str = "API keys. valid: text is the whole key; prefix, env, key_id (0x and 16 hexadecimal digits) and secret (32 \
    hexadecimal digits, a big-endian 128-bit number) are its parts; key_id_text is the key id in base62; hint is the part of \
    the key that may be shown. invalid: text is not a key; error is form (parts, lengths, characters, a number that is too \
    large, key id 0) or checksum; the form is checked first. crc32: crc is the CRC-32 of IEEE 802.3 of the bytes that data \
    holds in hexadecimal.";

/// Returns the text of the file.
pub(super) fn file() -> String {
    let valid = valid();
    let invalid = invalid();
    let mut random = Random::new(4);
    let mut data: Vec<Vec<u8>> =
        ["", "\0", "a", "123456789", "kt_live_", "The quick brown fox jumps over the lazy dog"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    data.push(vec![0xff; 4]);
    data.push((0..=255).collect());
    for length in [2, 3, 4, 7, 8, 9, 41, 49] {
        data.push(random.bytes(length));
    }
    let crcs: Vec<CrcCase> =
        data.into_iter().map(|data| CrcCase { crc: crc32(&data), data }).collect();
    Lines::new(ABOUT).array("valid", &valid).array("invalid", &invalid).array("crc32", &crcs).done()
}

/// Returns keys with chosen and random parts.
fn valid() -> Vec<ValidKey> {
    let mut keys = Vec::new();
    let mut push = |prefix: &str, env: &str, key_id: u64, secret: u128| {
        keys.push(Key { prefix: prefix.to_owned(), env: env.to_owned(), key_id, secret });
    };
    for (prefix, env) in [
        ("a", "b"),
        ("0", "9"),
        ("kt", "live"),
        ("kt", "test"),
        ("abcdefgh", "ijklmn"),
        ("opqrst", "uvwxyz01"),
        ("z9", "a0"),
    ] {
        push(prefix, env, 0x0123_4567_89ab_cdef, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    }
    for key_id in [1, 2, 61, 62, 63, 1 << 32, 1 << 63, u64::MAX - 1, u64::MAX] {
        push("kt", "live", key_id, 1 << 127);
    }
    for secret in [0, 1, 61, 62, u128::from(u64::MAX), 1 << 64, u128::MAX - 1, u128::MAX] {
        push("kt", "live", 7, secret);
    }
    let mut random = Random::new(5);
    for _ in 0..40 {
        let prefix = label(&mut random, 8);
        let env = label(&mut random, 8.min(14 - prefix.len()));
        let secret = u128::from(random.any()) << 64 | u128::from(random.any());
        push(&prefix, &env, random.any(), secret);
    }

    let mut cases = Vec::new();
    for key in keys {
        let text = encode_key(&key);
        assert_eq!(parse_key(text.as_bytes()), Ok(key.clone()));
        cases.push(ValidKey {
            key_id_text: key_id_text(key.key_id),
            hint: hint(&text, &key),
            prefix: key.prefix,
            env: key.env,
            key_id: key.key_id,
            secret: key.secret,
            text,
        });
    }
    cases
}

/// Returns a random prefix or environment of 1 to `longest` characters.
fn label(random: &mut Random, longest: usize) -> String {
    let length = 1 + random.below(u64::try_from(longest).expect("a length"));
    (0..length).map(|_| char::from(*random.pick(b"0123456789abcdefghijklmnopqrstuvwxyz"))).collect()
}

/// Returns texts that are not keys. Most differ from one valid key by one change.
fn invalid() -> Vec<InvalidKey> {
    let valid_key = encode_key(&Key {
        prefix: "kt".to_owned(),
        env: "live".to_owned(),
        key_id: 0x0123_4567_89ab_cdef,
        secret: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
    });
    // The key without `kt_live_`. Its first 11 digits are the id, the next 22 the secret, the last
    // 6 the checksum.
    let body = &valid_key[8..];
    let mut texts: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("only separators", "__".to_owned()),
        ("one part", "kt".to_owned()),
        ("two parts", format!("kt_{body}")),
        ("four parts", format!("kt_li_ve_{body}")),
        ("the body alone", body.to_owned()),
        ("no prefix", format!("_live_{body}")),
        ("no env", format!("kt__{body}")),
        ("no body", "kt_live_".to_owned()),
        ("prefix of 9 characters", with_checksum(&format!("abcdefghi_j_{}", &body[..33]))),
        ("env of 9 characters", with_checksum(&format!("j_abcdefghi_{}", &body[..33]))),
        (
            "prefix and env of 15 characters",
            with_checksum(&format!("abcdefgh_ijklmno_{}", &body[..33])),
        ),
        ("prefix in capitals", with_checksum(&format!("KT_live_{}", &body[..33]))),
        ("env in capitals", with_checksum(&format!("kt_Live_{}", &body[..33]))),
        ("prefix with a dash", with_checksum(&format!("k-t_live_{}", &body[..33]))),
        ("env with a letter beyond ASCII", with_checksum(&format!("kt_lïve_{}", &body[..33]))),
        ("body of 38 characters", valid_key[..valid_key.len() - 1].to_owned()),
        ("body of 40 characters", format!("{valid_key}0")),
        ("a digit too few in the id", with_checksum(&format!("kt_live_{}", &body[1..33]))),
        ("a digit too many in the id", with_checksum(&format!("kt_live_0{}", &body[..33]))),
        ("space before", format!(" {valid_key}")),
        ("space after", format!("{valid_key} ")),
        ("line feed after", format!("{valid_key}\n")),
        ("NUL after", format!("{valid_key}\0")),
        ("quoted", format!("\"{valid_key}\"")),
        ("with a scheme", format!("ApiKey {valid_key}")),
        ("dashes for separators", valid_key.replace('_', "-")),
        ("character that is not a digit in the id", valid_key.replacen(&body[..1], "-", 1)),
        ("character beyond ASCII in a body of 39 bytes", format!("kt_live_é{}", &body[2..])),
        ("key id 0", with_checksum(&format!("kt_live_{}{}", "0".repeat(11), &body[11..33]))),
        ("key id 2^64", with_checksum(&format!("kt_live_LygHa16AHYG{}", &body[11..33]))),
        (
            "key id of the largest 11 digits",
            with_checksum(&format!("kt_live_{}{}", "z".repeat(11), &body[11..33])),
        ),
        ("secret 2^128", with_checksum(&format!("kt_live_{}7n42DGM5Tflk9n8mt7Fhc8", &body[..11]))),
        (
            "secret of the largest 22 digits",
            with_checksum(&format!("kt_live_{}{}", &body[..11], "z".repeat(22))),
        ),
        ("checksum 2^32", format!("kt_live_{}4gfFC4", &body[..33])),
        ("checksum of the largest 6 digits", format!("kt_live_{}zzzzzz", &body[..33])),
        ("key id 2^64 and a wrong checksum", format!("kt_live_LygHa16AHYG{}000000", &body[11..33])),
        ("checksum 2^32 - 1", format!("kt_live_{}4gfFC3", &body[..33])),
        ("checksum 0", format!("kt_live_{}000000", &body[..33])),
        ("another prefix", valid_key.replacen("kt", "kv", 1)),
        ("another env", valid_key.replacen("live", "test", 1)),
        ("a character moved from prefix to env", valid_key.replacen("kt_live", "k_tlive", 1)),
        ("capitals for small letters", format!("kt_live_{}", body.to_uppercase())),
    ];
    for position in 0..39 {
        texts.push(("another digit in the body", with_next_digit(&valid_key, 8 + position)));
    }
    for position in [0, 10, 11, 20, 32, 33, 37] {
        texts.push(("two neighbors swapped", with_neighbors_swapped(&valid_key, 8 + position)));
    }

    let mut cases = Vec::new();
    for (why, text) in texts {
        if let Err(error) = parse_key(text.as_bytes()) {
            cases.push(InvalidKey { why: why.to_owned(), text, error: error.kind().to_owned() });
        } else {
            // Swapping two equal neighbors changes nothing.
            assert_eq!(text, valid_key, "{why}");
        }
    }
    cases
}

/// Appends the checksum of a text, so that only the form can be invalid.
fn with_checksum(start: &str) -> String {
    start.to_owned() + &crate::model::base62(u128::from(crc32(start.as_bytes())), 6)
}

/// Replaces the base62 digit at a position by the next digit.
fn with_next_digit(text: &str, position: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[position] = match bytes[position] {
        b'9' => b'A',
        b'Z' => b'a',
        b'z' => b'0',
        digit => digit + 1,
    };
    String::from_utf8(bytes).expect("ASCII")
}

/// Swaps the character at a position with the next character.
fn with_neighbors_swapped(text: &str, position: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes.swap(position, position + 1);
    String::from_utf8(bytes).expect("ASCII")
}
