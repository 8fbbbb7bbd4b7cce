//! The form of an API key: `prefix_env_body`. The body is the id in 11 base62 digits, the secret in
//! 22, and the CRC-32 of everything before it in 6.

use num_bigint::BigUint;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const ID_WIDTH: usize = 11;
const SECRET_WIDTH: usize = 22;
const CRC_WIDTH: usize = 6;

/// The parts of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The issuer's prefix: 1 to 8 characters of `[a-z0-9]`.
    pub prefix: String,
    /// The environment: 1 to 8 characters of `[a-z0-9]`, at most 14 together with the prefix.
    pub env: String,
    /// The public key id, never 0.
    pub key_id: u64,
    /// The secret.
    pub secret: u128,
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// Not three parts, a wrong length, a wrong character, a number that is too large, or key id 0.
    Form,
    /// The checksum does not match the rest.
    Checksum,
}

impl KeyError {
    /// Returns the name of this kind in the vector files.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            KeyError::Form => "form",
            KeyError::Checksum => "checksum",
        }
    }
}

/// Formats a key.
///
/// # Panics
///
/// If the prefix or the environment is not of the form, or the key id is 0.
#[must_use]
pub fn encode_key(key: &Key) -> String {
    assert!(is_label(&key.prefix) && is_label(&key.env) && key.prefix.len() + key.env.len() <= 14);
    assert_ne!(key.key_id, 0);
    let mut text = format!("{}_{}_", key.prefix, key.env);
    text += &key_id_text(key.key_id);
    text += &base62(key.secret, SECRET_WIDTH);
    text += &base62(u128::from(crc32(text.as_bytes())), CRC_WIDTH);
    text
}

/// Parses a key.
pub fn parse_key(text: &[u8]) -> Result<Key, KeyError> {
    let Ok(text) = core::str::from_utf8(text) else {
        return Err(KeyError::Form);
    };
    let parts: Vec<&str> = text.split('_').collect();
    let [prefix, env, body] = parts[..] else {
        return Err(KeyError::Form);
    };
    if !is_label(prefix) || !is_label(env) || prefix.len() + env.len() > 14 {
        return Err(KeyError::Form);
    }
    if body.len() != ID_WIDTH + SECRET_WIDTH + CRC_WIDTH || !body.is_ascii() {
        return Err(KeyError::Form);
    }
    let (id, rest) = body.split_at(ID_WIDTH);
    let (secret, crc) = rest.split_at(SECRET_WIDTH);
    let (Some(id), Some(secret), Some(crc)) =
        (from_base62(id), from_base62(secret), from_base62(crc))
    else {
        return Err(KeyError::Form);
    };
    let (Ok(key_id), Ok(secret), Ok(crc)) =
        (u64::try_from(id), u128::try_from(secret), u32::try_from(crc))
    else {
        return Err(KeyError::Form);
    };
    if key_id == 0 {
        return Err(KeyError::Form);
    }
    if crc != crc32(&text.as_bytes()[..text.len() - CRC_WIDTH]) {
        return Err(KeyError::Checksum);
    }
    Ok(Key { prefix: prefix.to_owned(), env: env.to_owned(), key_id, secret })
}

/// Returns the hint, the part of a key that may be shown: prefix, environment and the last four
/// characters.
#[must_use]
pub fn hint(text: &str, key: &Key) -> String {
    format!("{}_{}_…{}", key.prefix, key.env, &text[text.len() - 4..])
}

/// Formats a key id as 11 base62 characters.
#[must_use]
pub fn key_id_text(key_id: u64) -> String {
    base62(u128::from(key_id), ID_WIDTH)
}

/// Formats a number in `width` base62 digits, the most significant first.
///
/// # Panics
///
/// If the number does not fit.
#[must_use]
pub fn base62(value: u128, width: usize) -> String {
    let mut rest = value;
    let mut digits = Vec::new();
    for _ in 0..width {
        let digit = usize::try_from(rest % 62).expect("below 62");
        digits.push(char::from(ALPHABET[digit]));
        rest /= 62;
    }
    assert_eq!(rest, 0, "{value} has more than {width} digits");
    digits.iter().rev().collect()
}

/// Parses a text of base62 digits of any length. Returns `None` if a character is not a digit.
#[must_use]
pub fn from_base62(text: &str) -> Option<BigUint> {
    let mut value = BigUint::ZERO;
    for character in text.bytes() {
        let digit = ALPHABET.iter().position(|digit| *digit == character)?;
        value = value * 62u32 + digit;
    }
    Some(value)
}

/// Returns the CRC-32 of IEEE 802.3, computed bit by bit. It equals `zlib.crc32`.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = 0xffff_ffff;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let lowest_bit = crc & 1;
            crc >>= 1;
            if lowest_bit == 1 {
                crc ^= 0xedb8_8320;
            }
        }
    }
    !crc
}

/// Returns whether a text can be a prefix or an environment.
fn is_label(text: &str) -> bool {
    (1..=8).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_matches_known_values() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn base62_matches_known_values() {
        assert_eq!(base62(0, 2), "00");
        assert_eq!(base62(61, 2), "0z");
        assert_eq!(base62(62, 2), "10");
        // 62^11 - 1 > 2^64 - 1, 62^22 - 1 > 2^128 - 1, 62^6 - 1 > 2^32 - 1: the widths hold all
        // numbers.
        assert_eq!(base62(u128::from(u64::MAX), 11), "LygHa16AHYF");
        assert_eq!(base62(u128::MAX, 22), "7n42DGM5Tflk9n8mt7Fhc7");
        assert_eq!(base62(u128::from(u32::MAX), 6), "4gfFC3");
        assert_eq!(from_base62("LygHa16AHYF"), Some(BigUint::from(u64::MAX)));
        assert_eq!(from_base62("a-b"), None);
    }

    #[test]
    fn encoded_key_parses_to_its_parts() {
        let key = Key { prefix: "kt".into(), env: "live".into(), key_id: 1, secret: u128::MAX };
        let text = encode_key(&key);
        assert!(text.starts_with("kt_live_000000000017n42DGM5Tflk9n8mt7Fhc7"));
        assert_eq!(text.len(), 8 + 39);
        assert_eq!(parse_key(text.as_bytes()), Ok(key.clone()));
        assert_eq!(hint(&text, &key), format!("kt_live_…{}", &text[text.len() - 4..]));
        assert_eq!(parse_key(text.to_uppercase().as_bytes()), Err(KeyError::Form));
        assert_eq!(parse_key(text.replace("live", "love").as_bytes()), Err(KeyError::Checksum));
        assert_eq!(parse_key(b"\xff_a_b"), Err(KeyError::Form));
    }
}
