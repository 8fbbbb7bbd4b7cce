//! Keys and key ids: their form, and how they are made, parsed and shown.
//!
//! ```text
//! kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM
//! │  │    └ body, base62 characters: key id (11), secret (22), CRC-32 of all before it (6)
//! │  └ environment
//! └ prefix
//! ```
//!
//! A key has at most 55 bytes, so its HMAC takes two SHA-256 compressions (see `mac.rs`). The
//! checksum lets a web form find a typing error, and a secret scanner recognize a key, without a
//! server.

use core::fmt;
use core::num::NonZeroU64;
use core::str::FromStr;

use heapless::String;
use zeroize::Zeroize;

use crate::bits::{IS_64_BIT, high, join, low};
use crate::text::Text;

/// The longest key of Keytally's form, in bytes.
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

// The inner hash of an HMAC is over the inner pad, which is one block, and the key. The key, the
// end mark (1 byte) and the length (8 bytes) then fit the second block of 64 bytes.
const _: () = assert!(MAX_KEY_LEN == 55);

/// The public name of a key: a 64-bit number, as text 11 base62 characters.
///
/// A key keeps its id when it is rotated. The id is not secret and may be logged.
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

/// The error of parsing a key id. A key id is 11 base62 characters of a number from 1 to 2^64 − 1.
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
    /// The name in `text`; `None` if `text` is not a name.
    pub fn new(text: &str) -> Option<Self> {
        let mut name = [0; MAX_NAME_LEN];
        name.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        is_name(text.as_bytes()).then_some(Self(name))
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

    /// The name in a word of a table's header; `None` if the word does not hold one.
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

/// Returns whether a text is a prefix or an environment name.
fn is_name(bytes: &[u8]) -> bool {
    (1..=MAX_NAME_LEN).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// A key with its secret. A gate returns it when it issues or rotates a key, and keeps no copy.
///
/// Its memory is wiped when it is dropped. `Debug` shows its [`Hint`] instead of the secret.
#[derive(Clone)]
pub struct Key {
    text: String<MAX_KEY_LEN>,
}

impl Key {
    /// The key of these parts, with its checksum; `None` if prefix and environment have more than
    /// 14 characters together.
    pub fn mint(prefix: Name, env: Name, key_id: KeyId, secret: &[u8; SECRET_LEN]) -> Option<Self> {
        if prefix.as_str().len() + env.as_str().len() > MAX_NAMES_LEN {
            return None;
        }
        let mut key = Self { text: String::new() };
        for part in [prefix.as_str(), "_", env.as_str(), "_"] {
            key.text.push_str(part).ok()?;
        }
        key.push_base62::<KEY_ID_LEN>(&key_id.number().to_be_bytes());
        key.push_base62::<SECRET_CHARS>(secret);
        let checksum = crc32(key.text.bytes());
        key.push_base62::<CHECKSUM_CHARS>(&checksum.to_be_bytes());
        Some(key)
    }

    /// Appends a number as `N` base62 characters.
    fn push_base62<const N: usize>(&mut self, number: &[u8]) {
        let mut characters = [0; N];
        encode(number, &mut characters);
        for character in characters {
            // The lengths of all parts add up to at most the capacity.
            let _ = self.text.push(char::from(character));
        }
        characters.zeroize();
    }

    /// Returns the key as the client must send it. The caller must not log it.
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

/// The part of a key that may be shown, such as `kt_live_…9aZk`.
///
/// Prefix and environment are shown if the key has Keytally's form. The last four characters are
/// shown if the key has at least 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint<'a> {
    names: &'a str,
    last: [u8; HINT_CHARS],
}

/// The shortest key whose last characters a hint shows. Four characters of a shorter key would
/// reveal too much.
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

    /// Returns the last characters as the number that a gate keeps; 0 if none may be shown.
    pub(crate) fn last_to_word(&self) -> u32 {
        u32::from_le_bytes(self.last)
    }

    /// Returns the number that a gate keeps for these last characters; 0 if there are not four.
    pub(crate) fn last_as_word(last: &str) -> u32 {
        last.as_bytes().try_into().map_or(0, u32::from_le_bytes)
    }

    /// Returns the last characters from the number that [`last_to_word`](Self::last_to_word)
    /// returned; `None` if none may be shown.
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
    pub key_id: KeyId,
}

/// Why a text is not a key of Keytally's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// The text is not `prefix_env_body` with a body of 39 base62 characters.
    Form,
    /// The checksum does not match, for example after a typing error.
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

/// Checks a key's form and checksum, and returns its public parts. It needs no gate, and does not
/// say whether a gate has the key.
///
/// ```
/// use keytally_core::{Key, KeyId, Name, parse_key};
/// let (prefix, env) = (Name::new("kt").unwrap(), Name::new("live").unwrap());
/// let key = Key::mint(prefix, env, KeyId::from_number(7).unwrap(), &[1; 16]).unwrap();
/// let parts = parse_key(key.expose().as_bytes())?;
/// assert_eq!((parts.env, parts.key_id.number()), ("live", 7));
/// # Ok::<(), keytally_core::ParseKeyError>(())
/// ```
///
/// # Errors
/// [`ParseKeyError::Form`] and [`ParseKeyError::Checksum`].
pub fn parse(key: &[u8]) -> Result<KeyParts<'_>, ParseKeyError> {
    let key_id = validate(key)?;
    let names =
        core::str::from_utf8(&key[..key.len() - BODY_LEN]).map_err(|_| ParseKeyError::Form)?;
    let (prefix, env) = names
        .strip_suffix('_')
        .and_then(|names| names.split_once('_'))
        .ok_or(ParseKeyError::Form)?;
    Ok(KeyParts { prefix, env, key_id })
}

/// Checks the form and checksum of a key, and returns its key id.
pub(crate) fn validate(key: &[u8]) -> Result<KeyId, ParseKeyError> {
    let id = well_formed_id(key).ok_or(ParseKeyError::Form)?;
    let body = &key[key.len() - BODY_LEN..];
    let (secret, checksum) = body[KEY_ID_LEN..].split_at(SECRET_CHARS);
    // 22 characters can hold more than the 128 bits of a secret, and 6 characters more than the 32
    // bits of a checksum. `decode` rejects such numbers.
    let mut number = [0; SECRET_LEN / 4];
    let mut expected = [0];
    let is_number = decode(secret, &mut number) && decode(checksum, &mut expected);
    number.zeroize();
    if !is_number {
        return Err(ParseKeyError::Form);
    }
    if expected[0] == crc32(key[..key.len() - CHECKSUM_CHARS].iter().copied()) {
        Ok(id)
    } else {
        Err(ParseKeyError::Checksum)
    }
}

/// Returns the key id if the text has a key's length, names and key id. It does not examine the
/// secret and the checksum.
fn well_formed_id(key: &[u8]) -> Option<KeyId> {
    let id = id_in(key)?;
    let names = key[..key.len() - BODY_LEN].strip_suffix(b"_")?;
    let separator = names.iter().position(|&byte| byte == b'_')?;
    (is_name(&names[..separator]) && is_name(&names[separator + 1..])).then_some(id)
}

/// Returns the key id from its position in a key; `None` if there is none or the text is longer
/// than a key. A check of a valid key parses nothing else, since the HMAC covers the whole text.
#[cfg_attr(target_pointer_width = "64", inline)]
#[cfg_attr(not(target_pointer_width = "64"), inline(never))]
pub(crate) fn id_in(key: &[u8]) -> Option<KeyId> {
    if key.len() > MAX_KEY_LEN {
        return None;
    }
    decode_id(key.last_chunk::<BODY_LEN>()?.first_chunk()?)
}

/// Parses a key id; `None` if a character is not base62 or the number is 0 or too large.
#[inline]
fn decode_id(text: &[u8; KEY_ID_LEN]) -> Option<KeyId> {
    if !IS_64_BIT {
        let mut number = [0; 2];
        return if decode(text, &mut number) {
            KeyId::from_number(join(number[0], number[1]))
        } else {
            None
        };
    }
    let digits = text.map(digit_or_more);
    // Valid digits are below 64, and `NO_DIGIT` is not.
    if digits.iter().fold(0, |all, digit| all | digit) >= NO_DIGIT {
        return None;
    }
    let digits = digits.map(u64::from);
    // The digits are joined in pairs, so that the multiplications do not depend on each other. Ten
    // digits stay below 62^10 < 2^60.
    let pair = |first: usize| digits[first] * 62 + digits[first + 1];
    let four = |first: usize| pair(first) * (62 * 62) + pair(first + 2);
    let ten = (four(0) * (62 * 62 * 62 * 62) + four(4)) * (62 * 62) + pair(8);
    ten.checked_mul(62)?.checked_add(digits[KEY_ID_LEN - 1]).and_then(KeyId::from_number)
}

/// Returns the value of a digit; [`NO_DIGIT`] or more if the character is not a digit.
#[inline]
fn digit_or_more(character: u8) -> u8 {
    let digit = DIGITS[usize::from(character) % DIGITS.len()];
    // A table of the ASCII characters lacks those with the highest bit.
    if DIGITS.len() == 256 { digit } else { digit | character & 0x80 }
}

/// The digits of base62, in the order of their values.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The least value of a character that is not a digit, and its entry in [`DIGITS`].
const NO_DIGIT: u8 = 64;

/// The characters in [`DIGITS`]: all, or on small targets those of ASCII.
const CHARACTERS: usize = if IS_64_BIT { 256 } else { 128 };

/// The value of each character as a digit.
const DIGITS: [u8; CHARACTERS] = {
    let mut digits = [NO_DIGIT; CHARACTERS];
    let mut value = 0;
    while value < 62u8 {
        digits[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// Writes a number in base62 into the whole of `text`, with leading zeros.
///
/// `number` is big-endian and has at most [`SECRET_LEN`] bytes. If `text` is too short, the
/// first digits are missing.
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

/// Returns the character of a digit. It reads the whole alphabet, so that the time does not depend
/// on the digit.
fn select(digit: u32) -> u8 {
    ALPHABET.iter().zip(0u32..).fold(0, |found, (&character, value)| {
        found | (character & u8::from(value == digit).wrapping_neg())
    })
}

/// Parses a base62 number into 32-bit limbs, highest first, which hold 0. Returns false if a
/// character is not a digit or the number is too large.
fn decode(text: &[u8], number: &mut [u32]) -> bool {
    for &character in text {
        let mut carry = u32::from(digit_or_more(character));
        if carry >= NO_DIGIT.into() {
            return false;
        }
        for limb in number.iter_mut().rev() {
            let value = u64::from(*limb) * 62 + u64::from(carry);
            *limb = low(value);
            carry = high(value);
        }
        if carry != 0 {
            return false;
        }
    }
    true
}

/// Returns the CRC-32 of IEEE 802.3 (reflected, 0xEDB88320), computed four bits at a time.
pub(crate) fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
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
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..2 {
            crc = (crc >> 4) ^ NIBBLES[usize::from(crc.to_le_bytes()[0] & 0xf)];
        }
    }
    !crc
}

#[cfg(test)]
mod tests;
