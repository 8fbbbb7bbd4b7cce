//! Tests of the form of keys, hints and key ids.

extern crate alloc;
extern crate std;
use alloc::string::ToString;
use std::format;

use super::*;

/// The key of the largest id in the environment `live`.
fn key() -> Key {
    let secret = core::array::from_fn(|index| u8::try_from(index * 17).unwrap());
    Key::mint(
        Name::new("kt").unwrap(),
        Name::new("live").unwrap(),
        KeyId::from_number(u64::MAX).unwrap(),
        &secret,
    )
    .unwrap()
}

#[test]
fn checksum_equals_the_crc_of_ieee_802_3() {
    assert_eq!(crc32(*b"123456789"), 0xCBF4_3926);
    assert_eq!(crc32([]), 0);
}

#[test]
fn minted_key_parses_to_its_parts() {
    let key = key();
    assert_eq!(key.expose().len(), 2 + 1 + 4 + 1 + 39);
    let parts = parse(key.expose().as_bytes()).unwrap();
    assert_eq!((parts.prefix, parts.env, parts.key_id.number()), ("kt", "live", u64::MAX));
    assert_eq!(parts.key_id.to_string(), "LygHa16AHYF");
    assert_eq!("LygHa16AHYF".parse(), Ok(parts.key_id));
}

#[test]
fn key_with_one_changed_character_is_rejected() {
    let key = key();
    for index in 0..key.expose().len() {
        let mut text = key.expose().as_bytes().to_vec();
        text[index] = if text[index] == b'a' { b'b' } else { b'a' };
        assert!(parse(&text).is_err(), "{index}");
    }
}

/// Returns the text with its checksum appended.
fn with_checksum(text: &str) -> alloc::string::String {
    let mut checksum = [0; CHECKSUM_CHARS];
    encode(&crc32(text.bytes()).to_be_bytes(), &mut checksum);
    format!("{text}{}", core::str::from_utf8(&checksum).unwrap())
}

#[test]
fn text_of_another_form_is_rejected_despite_its_checksum() {
    let body = format!("00000000001{}", "0".repeat(SECRET_CHARS));
    assert!(parse(with_checksum(&format!("12345678_123456_{body}")).as_bytes()).is_ok());
    for text in [
        body.clone(),
        format!("_{body}"),
        format!("kt_{body}"),
        format!("ktlive{body}"),
        format!("kt_live{body}"),
        format!("_live_{body}"),
        format!("kt__{body}"),
        format!("KT_live_{body}"),
        format!("kt_Live_{body}"),
        format!("kt_live_x_{body}"),
        format!("123456789_a_{body}"),
        format!("a_123456789_{body}"),
        format!("12345678_1234567_{body}"),
        format!("12345678_12345678_{body}"),
        // The id 0, an id beyond 64 bits, a secret beyond 128 bits, and characters that are
        // not base62.
        format!("kt_live_{}", "0".repeat(33)),
        format!("kt_live_LygHa16AHYG{}", "0".repeat(SECRET_CHARS)),
        format!("kt_live_00000000001{}", "z".repeat(SECRET_CHARS)),
        format!("kt_live_00000000001{}-", "0".repeat(SECRET_CHARS - 1)),
        format!("kt_live_0000000000-{}", "0".repeat(SECRET_CHARS)),
        format!("kt_live_000000000--{}", "0".repeat(SECRET_CHARS)),
    ] {
        assert_eq!(parse(with_checksum(&text).as_bytes()), Err(ParseKeyError::Form), "{text}");
    }
    for text in ["", "kt"].into_iter().map(alloc::string::String::from).chain([
        // A checksum beyond 32 bits.
        format!("kt_live_{body}zzzzzz"),
        format!("kt_live_{body}00000-"),
        format!("kt_live_{body}0000\u{e9}"),
    ]) {
        assert_eq!(parse(text.as_bytes()), Err(ParseKeyError::Form), "{text}");
    }
}

#[test]
fn names_above_14_characters_together_are_rejected() {
    let mint = |prefix, env| {
        Key::mint(
            Name::new(prefix).unwrap(),
            Name::new(env).unwrap(),
            KeyId::from_number(1).unwrap(),
            &[0; 16],
        )
    };
    assert_eq!(mint("12345678", "123456").unwrap().expose().len(), MAX_KEY_LEN);
    assert!(mint("12345678", "1234567").is_none());
    assert!(
        Name::new("").is_none() && Name::new("123456789").is_none() && Name::new("a_b").is_none()
    );
}

#[test]
fn debug_and_hint_show_no_secret() {
    let key = key();
    let shown = format!("{key:?}");
    assert!(shown.starts_with("Key(kt_live_…") && shown.len() < 24, "{shown}");
    assert_eq!(Hint::new(b"short-imported-key").to_string(), "…");
    assert_eq!(Hint::new(b"an-imported-key-of-32-bytes-1234").to_string(), "…1234");
}
