//! Keys: their form, minting them from the caller's entropy, and parsing them.
//!
//! ```text
//! kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM
//! │  │    └ body, base62 characters: key id (11), secret (22), CRC-32 of all before it (6)
//! │  └ environment
//! └ prefix
//! ```
//!
//! A key has at most 55 bytes, so its HMAC takes two SHA-256 compressions (see `mac.rs`). With the
//! checksum, a secret scanner or a web form can detect a typing error without a server.

use core::fmt;
use core::num::NonZeroU64;
use core::str::FromStr;

use heapless::String;
use zeroize::Zeroize;

use crate::bits::{high, low};
use crate::text::Text;

/// The longest key of this form, in bytes.
pub const MAX_KEY_LEN: usize = MAX_NAMES_LEN + 2 + BODY_LEN;

/// The longest prefix, and the longest environment name, in bytes.
pub const MAX_NAME_LEN: usize = 8;

/// The longest prefix and environment together, in bytes.
pub const MAX_NAMES_LEN: usize = 14;

/// Characters of a key id as text.
pub const KEY_ID_LEN: usize = 11;

/// Bytes of a secret.
pub const SECRET_LEN: usize = 16;

const SECRET_CHARS: usize = 22;
const CHECKSUM_CHARS: usize = 6;
const BODY_LEN: usize = KEY_ID_LEN + SECRET_CHARS + CHECKSUM_CHARS;

/// How many of a key's last characters a hint shows.
const HINT_CHARS: usize = 4;

// After the pad block, the inner hash of a key's HMAC takes one block of 64 bytes: the key, the end
// mark and the 8-byte length.
const _: () = assert!(MAX_KEY_LEN == 55);

/// The public name of a key. It survives rotation and may be logged. As text it has 11 base62
/// characters.
///
/// ```
/// use keytally_core::KeyId;
/// let id: KeyId = "00000000001".parse()?;
/// assert_eq!(id.number(), 1);
/// assert!("0000000000-".parse::<KeyId>().is_err());
/// # Ok::<(), keytally_core::ParseKeyIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(NonZeroU64);

impl KeyId {
    /// The largest key id.
    pub(crate) const LAST: Self = Self(NonZeroU64::MAX);

    /// The key id of this number; `None` for 0, which is not a key id.
    pub const fn from_number(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Returns the key id as a number.
    pub const fn number(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; KEY_ID_LEN];
        encode(&self.number().to_be_bytes(), &mut text);
        text.iter().try_for_each(|&character| fmt::Write::write_char(f, char::from(character)))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error of parsing a text that is not a key id. A key id is 11 base62 characters of a number
/// from 1 to 2^64 − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseKeyIdError;

impl fmt::Display for ParseKeyIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key id is {KEY_ID_LEN} characters of 0-9, A-Z and a-z, as `list` shows it")
    }
}

impl core::error::Error for ParseKeyIdError {}

impl FromStr for KeyId {
    type Err = ParseKeyIdError;

    fn from_str(text: &str) -> Result<Self, ParseKeyIdError> {
        let text: &[u8; KEY_ID_LEN] = text.as_bytes().try_into().map_err(|_| ParseKeyIdError)?;
        decode_id(text).ok_or(ParseKeyIdError)
    }
}

/// A prefix or an environment name: 1 to 8 characters of `a-z` and `0-9`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name([u8; MAX_NAME_LEN]);

impl Name {
    /// The name in `text`; `None` if it has another form.
    pub fn new(text: &str) -> Option<Self> {
        let mut name = [0; MAX_NAME_LEN];
        name.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        (is_name(text.as_bytes())).then_some(Self(name))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(MAX_NAME_LEN);
        core::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }

    /// Returns the name as a word of a table's header; never 0.
    pub(crate) fn to_word(self) -> u64 {
        u64::from_le_bytes(self.0)
    }

    /// The name in a word of a table's header; `None` if there is none.
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let bytes = word.to_le_bytes();
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(MAX_NAME_LEN);
        let padded = bytes[len..].iter().all(|&byte| byte == 0);
        (padded && is_name(&bytes[..len])).then_some(Self(bytes))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_name(bytes: &[u8]) -> bool {
    (1..=MAX_NAME_LEN).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// A key with its secret. A gate returns it when it issues or rotates the key, and keeps no copy.
/// It is wiped when dropped, and `Debug` shows its hint.
#[derive(Clone)]
pub struct Key {
    text: String<MAX_KEY_LEN>,
}

impl Key {
    /// The key of these parts; `None` if prefix and environment have more than 14 characters
    /// together.
    pub fn mint(prefix: Name, env: Name, id: KeyId, secret: &[u8; SECRET_LEN]) -> Option<Self> {
        if prefix.as_str().len() + env.as_str().len() > MAX_NAMES_LEN {
            return None;
        }
        let mut key = Self { text: String::new() };
        for part in [prefix.as_str(), "_", env.as_str(), "_"] {
            key.text.push_str(part).ok()?;
        }
        key.push_base62::<KEY_ID_LEN>(&id.number().to_be_bytes());
        key.push_base62::<SECRET_CHARS>(secret);
        let checksum = crc32(key.text.as_bytes());
        key.push_base62::<CHECKSUM_CHARS>(&checksum.to_be_bytes());
        Some(key)
    }

    fn push_base62<const N: usize>(&mut self, number: &[u8]) {
        let mut characters = [0; N];
        encode(number, &mut characters);
        for character in characters {
            // The lengths of all parts add up to at most the capacity.
            let _ = self.text.push(char::from(character));
        }
        characters.zeroize();
    }

    /// Returns the key as the client must send it. Do not log it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns the part of the key that may be shown: prefix, environment and the last four
    /// characters.
    pub fn hint(&self) -> Hint<'_> {
        Hint::new(self.text.as_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.hint())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.text.as_mut_str().zeroize();
    }
}

/// The part of a key that may be shown, such as `kt_live_…9aZk`. If the key does not have the form
/// of this module, only the last four characters are shown, and none if it has fewer than 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint<'a> {
    names: &'a str,
    last: [u8; HINT_CHARS],
}

/// The shortest key of which a hint shows the last characters. Four characters of a shorter key
/// would reveal too much.
const MIN_HINTED_LEN: usize = 24;

impl<'a> Hint<'a> {
    /// The hint of a key's text.
    pub fn new(key: &'a [u8]) -> Self {
        let last = match key.last_chunk::<HINT_CHARS>() {
            Some(last) if key.len() >= MIN_HINTED_LEN && last.iter().all(u8::is_ascii_graphic) => {
                *last
            }
            _ => [0; HINT_CHARS],
        };
        let names = match well_formed_id(key) {
            Some(_) => core::str::from_utf8(&key[..key.len() - BODY_LEN]).unwrap_or_default(),
            None => "",
        };
        Self { names, last }
    }

    /// Returns the last characters as a gate keeps them; 0 if there are none to show.
    pub(crate) fn last_to_word(&self) -> u32 {
        u32::from_le_bytes(self.last)
    }

    /// Returns the last characters that [`last_to_word`](Self::last_to_word) encoded, if they can
    /// be shown.
    pub(crate) fn last_from_word(word: u32) -> Option<Text<HINT_CHARS>> {
        let last = word.to_le_bytes();
        if !last.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        core::str::from_utf8(&last).ok().and_then(Text::from_text)
    }
}

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names)?;
        f.write_str("…")?;
        f.write_str(&Self::last_from_word(self.last_to_word()).unwrap_or_default())
    }
}

/// The public parts of a key, returned by [`parse_key`](crate::parse_key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyParts<'a> {
    /// The prefix.
    pub prefix: &'a str,
    /// The environment.
    pub env: &'a str,
    /// The key id.
    pub id: KeyId,
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// It is not `prefix_env_body` with a body of 39 base62 characters.
    Form,
    /// The checksum is wrong, as after a typing error.
    Checksum,
}

impl fmt::Display for ParseKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a key is prefix_env_ and 39 characters of 0-9, A-Z and a-z",
            Self::Checksum => "the key's checksum is wrong: a character was mistyped or lost",
        })
    }
}

impl core::error::Error for ParseKeyError {}

/// Parses a key's public parts and checks its form and checksum, offline. The result does not say
/// whether a gate has the key.
///
/// ```
/// use keytally_core::{Key, KeyId, Name, parse_key};
/// let (prefix, env) = (Name::new("kt").unwrap(), Name::new("live").unwrap());
/// let key = Key::mint(prefix, env, KeyId::from_number(7).unwrap(), &[1; 16]).unwrap();
/// let parts = parse_key(key.expose().as_bytes())?;
/// assert_eq!((parts.env, parts.id.number()), ("live", 7));
/// # Ok::<(), keytally_core::ParseKeyError>(())
/// ```
///
/// # Errors
/// [`ParseKeyError::Form`] and [`ParseKeyError::Checksum`].
pub fn parse(key: &[u8]) -> Result<KeyParts<'_>, ParseKeyError> {
    let id = validate(key)?;
    let names =
        core::str::from_utf8(&key[..key.len() - BODY_LEN]).map_err(|_| ParseKeyError::Form)?;
    let (prefix, env) = names
        .strip_suffix('_')
        .and_then(|names| names.split_once('_'))
        .ok_or(ParseKeyError::Form)?;
    Ok(KeyParts { prefix, env, id })
}

/// Checks the form and checksum of a key, and returns its key id.
pub(crate) fn validate(key: &[u8]) -> Result<KeyId, ParseKeyError> {
    let id = well_formed_id(key).ok_or(ParseKeyError::Form)?;
    let body = &key[key.len() - BODY_LEN..];
    let (secret, checksum) = body[KEY_ID_LEN..].split_at(SECRET_CHARS);
    // 22 characters can exceed the 128 bits of a secret, and 6 the 32 bits of a checksum. `decode`
    // rejects both.
    let mut number = decode::<{ SECRET_LEN / 4 }>(secret).ok_or(ParseKeyError::Form)?;
    number.zeroize();
    let [sum] = decode(checksum).ok_or(ParseKeyError::Form)?;
    if sum == crc32(&key[..key.len() - CHECKSUM_CHARS]) {
        Ok(id)
    } else {
        Err(ParseKeyError::Checksum)
    }
}

/// Returns the key id of a text whose length, names and key id have the form of a key. Does not
/// examine secret and checksum.
fn well_formed_id(key: &[u8]) -> Option<KeyId> {
    let id = id_in(key)?;
    let names = key[..key.len() - BODY_LEN].strip_suffix(b"_")?;
    let separator = names.iter().position(|&byte| byte == b'_')?;
    (is_name(&names[..separator]) && is_name(&names[separator + 1..])).then_some(id)
}

/// Returns the key id in a text that is not longer than a key, where a key has it. A check of a
/// valid key parses no more than this, since the HMAC covers the rest.
#[cfg_attr(target_pointer_width = "64", inline)]
#[cfg_attr(not(target_pointer_width = "64"), inline(never))]
pub(crate) fn id_in(key: &[u8]) -> Option<KeyId> {
    if key.len() > MAX_KEY_LEN {
        return None;
    }
    decode_id(key.last_chunk::<BODY_LEN>()?.first_chunk()?)
}

#[inline]
fn decode_id(text: &[u8; KEY_ID_LEN]) -> Option<KeyId> {
    let digits = text.map(|character| DIGITS[usize::from(character)]);
    // Valid digits are below 64, and `NO_DIGIT` is not.
    if digits.iter().fold(0, |all, digit| all | digit) >= NO_DIGIT {
        return None;
    }
    let digits = digits.map(u64::from);
    // In pairs, so that the multiplications are independent. Ten digits stay below 62^10 < 2^60.
    let pair = |at: usize| digits[at] * 62 + digits[at + 1];
    let four = |at: usize| pair(at) * (62 * 62) + pair(at + 2);
    let ten = (four(0) * (62 * 62 * 62 * 62) + four(4)) * (62 * 62) + pair(8);
    ten.checked_mul(62)?.checked_add(digits[KEY_ID_LEN - 1]).and_then(KeyId::from_number)
}

#[inline]
fn digit(character: u8) -> Option<u64> {
    let digit = DIGITS[usize::from(character)];
    (digit < NO_DIGIT).then_some(u64::from(digit))
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The value of characters outside the alphabet.
const NO_DIGIT: u8 = 64;

/// The value of each character.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 62u8 {
        digits[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// Writes a big-endian number in base62, zero-padded to the length of `text`, which has room for
/// it.
fn encode(number: &[u8], text: &mut [u8]) {
    let mut rest = [0; SECRET_LEN];
    let rest = &mut rest[..number.len()];
    rest.copy_from_slice(number);
    for character in text.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in rest.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(0);
            remainder = value % 62;
        }
        *character = select(remainder);
    }
    rest.zeroize();
}

/// Returns the character of a digit, without indexing a table by a secret.
fn select(digit: u32) -> u8 {
    ALPHABET.iter().zip(0u32..).fold(0, |found, (&character, value)| {
        found | (character & u8::from(value == digit).wrapping_neg())
    })
}

/// Parses base62 into a number of 32-bit limbs, highest first; `None` if a character is outside the
/// alphabet or the number is too large.
fn decode<const LIMBS: usize>(text: &[u8]) -> Option<[u32; LIMBS]> {
    let mut number = [0; LIMBS];
    for &character in text {
        let mut carry = digit(character)?;
        for limb in number.iter_mut().rev() {
            let value = u64::from(*limb) * 62 + carry;
            *limb = low(value);
            carry = u64::from(high(value));
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

/// Returns the CRC-32 of IEEE 802.3 (reflected, 0xEDB88320), computed four bits at a time.
fn crc32(bytes: &[u8]) -> u32 {
    const NIBBLES: [u32; 16] = {
        let mut table = [0; 16];
        let mut value = 0;
        while value < 16u32 {
            let mut crc = value;
            let mut bit = 0;
            while bit < 4 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[value as usize] = crc;
            value += 1;
        }
        table
    };
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..2 {
            crc = (crc >> 4) ^ NIBBLES[usize::from(crc.to_le_bytes()[0] & 0xf)];
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    extern crate std;
    use alloc::string::ToString;
    use std::format;

    use super::*;

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
    fn the_checksum_is_the_one_of_ieee_802_3() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn minted_key_parses_to_its_parts() {
        let key = key();
        assert_eq!(key.expose().len(), 2 + 1 + 4 + 1 + 39);
        let parts = parse(key.expose().as_bytes()).unwrap();
        assert_eq!((parts.prefix, parts.env, parts.id.number()), ("kt", "live", u64::MAX));
        assert_eq!(parts.id.to_string(), "LygHa16AHYF");
        assert_eq!("LygHa16AHYF".parse(), Ok(parts.id));
    }

    #[test]
    fn every_changed_character_is_noticed() {
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
        encode(&crc32(text.as_bytes()).to_be_bytes(), &mut checksum);
        format!("{text}{}", core::str::from_utf8(&checksum).unwrap())
    }

    #[test]
    fn other_forms_are_refused_even_with_a_right_checksum() {
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
    fn names_together_have_14_characters_at_most() {
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
            Name::new("").is_none()
                && Name::new("123456789").is_none()
                && Name::new("a_b").is_none()
        );
    }

    #[test]
    fn nothing_shows_a_secret() {
        let key = key();
        let shown = format!("{key:?}");
        assert!(shown.starts_with("Key(kt_live_…") && shown.len() < 24, "{shown}");
        assert_eq!(Hint::new(b"short-imported-key").to_string(), "…");
        assert_eq!(Hint::new(b"an-imported-key-of-32-bytes-1234").to_string(), "…1234");
    }
}
