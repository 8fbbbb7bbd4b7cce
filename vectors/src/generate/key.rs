//! `key.json`.

use crate::files::{CrcCase, InvalidKey, ValidKey};
use crate::model::{Key, crc32, encode_key, hint, key_id_text, parse_key};

use super::Lines;
use super::random::Random;

const ABOUT: &str = "Keys. valid: prefix, env, key_id (0x and 16 hexadecimal digits) and secret (32 hexadecimal digits, \
    a big-endian 128-bit number) make text and are read from it; key_id_text names the key, hint may be shown. invalid: \
    text is refused as error: form (parts, lengths, characters, a number that is too large, key id 0) or checksum; the \
    form is judged first. crc32: CRC-32 of IEEE 802.3 of the bytes that data holds in hexadecimal.";

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

/// Returns a text of 1 to `longest` of the characters that a prefix may have.
fn label(random: &mut Random, longest: usize) -> String {
    let length = 1 + random.below(u64::try_from(longest).expect("a length"));
    (0..length).map(|_| char::from(*random.pick(b"0123456789abcdefghijklmnopqrstuvwxyz"))).collect()
}

fn invalid() -> Vec<InvalidKey> {
    let good = encode_key(&Key {
        prefix: "kt".to_owned(),
        env: "live".to_owned(),
        key_id: 0x0123_4567_89ab_cdef,
        secret: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
    });
    let body = &good[8..];
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
        ("prefix of 9", with_checksum(&format!("abcdefghi_j_{}", &body[..33]))),
        ("env of 9", with_checksum(&format!("j_abcdefghi_{}", &body[..33]))),
        ("prefix and env of 15", with_checksum(&format!("abcdefgh_ijklmno_{}", &body[..33]))),
        ("prefix in capitals", with_checksum(&format!("KT_live_{}", &body[..33]))),
        ("env in capitals", with_checksum(&format!("kt_Live_{}", &body[..33]))),
        ("prefix with a dash", with_checksum(&format!("k-t_live_{}", &body[..33]))),
        ("env with a letter beyond ASCII", with_checksum(&format!("kt_lïve_{}", &body[..33]))),
        ("body of 38", good[..good.len() - 1].to_owned()),
        ("body of 40", format!("{good}0")),
        ("a digit too few in the id", with_checksum(&format!("kt_live_{}", &body[1..33]))),
        ("a digit too many in the id", with_checksum(&format!("kt_live_0{}", &body[..33]))),
        ("space before", format!(" {good}")),
        ("space after", format!("{good} ")),
        ("line feed after", format!("{good}\n")),
        ("NUL after", format!("{good}\0")),
        ("quoted", format!("\"{good}\"")),
        ("with a scheme", format!("ApiKey {good}")),
        ("dashes for separators", good.replace('_', "-")),
        ("character that is not a digit in the id", good.replacen(&body[..1], "-", 1)),
        ("character beyond ASCII in a body of 39 bytes", format!("kt_live_é{}", &body[2..])),
        ("key id 0", with_checksum(&format!("kt_live_{}{}", "0".repeat(11), &body[11..33]))),
        ("key id 2^64", with_checksum(&format!("kt_live_LygHa16AHYG{}", &body[11..33]))),
        (
            "the largest 11 digits",
            with_checksum(&format!("kt_live_{}{}", "z".repeat(11), &body[11..33])),
        ),
        ("secret 2^128", with_checksum(&format!("kt_live_{}7n42DGM5Tflk9n8mt7Fhc8", &body[..11]))),
        (
            "the largest 22 digits",
            with_checksum(&format!("kt_live_{}{}", &body[..11], "z".repeat(22))),
        ),
        ("checksum 2^32", format!("kt_live_{}4gfFC4", &body[..33])),
        ("the largest 6 digits", format!("kt_live_{}zzzzzz", &body[..33])),
        ("key id 2^64 and a wrong checksum", format!("kt_live_LygHa16AHYG{}000000", &body[11..33])),
        ("checksum 2^32 - 1", format!("kt_live_{}4gfFC3", &body[..33])),
        ("checksum 0", format!("kt_live_{}000000", &body[..33])),
        ("another prefix", good.replacen("kt", "kv", 1)),
        ("another env", good.replacen("live", "test", 1)),
        ("a character moved from prefix to env", good.replacen("kt_live", "k_tlive", 1)),
        ("capitals for small letters", format!("kt_live_{}", body.to_uppercase())),
    ];
    for at in 0..39 {
        texts.push(("another digit in the body", changed(&good, 8 + at)));
    }
    for at in [0, 10, 11, 20, 32, 33, 37] {
        texts.push(("two neighbors exchanged", exchanged(&good, 8 + at)));
    }

    let mut cases = Vec::new();
    for (why, text) in texts {
        if let Err(error) = parse_key(text.as_bytes()) {
            cases.push(InvalidKey { why: why.to_owned(), text, error: error.kind().to_owned() });
        } else {
            assert_eq!(text, good, "{why}");
        }
    }
    cases
}

/// Appends the right checksum, so that only the form can be wrong.
fn with_checksum(start: &str) -> String {
    start.to_owned() + &crate::model::base62(u128::from(crc32(start.as_bytes())), 6)
}

/// Replaces one digit by the next.
fn changed(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = match bytes[at] {
        b'9' => b'A',
        b'Z' => b'a',
        b'z' => b'0',
        digit => digit + 1,
    };
    String::from_utf8(bytes).expect("ASCII")
}

/// Swaps a character and the next.
fn exchanged(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes.swap(at, at + 1);
    String::from_utf8(bytes).expect("ASCII")
}
