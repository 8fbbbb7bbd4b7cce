//! Base62: numbers as text of the digits `0-9`, `A-Z` and `a-z`, in this order of their values.
//! Encoding does not index a table by a digit, since the number may be a secret.

use zeroize::Zeroize;

use crate::bits::{high, low};

/// The length of a 64-bit number as text.
const U64_LEN: usize = 11;

/// The longest number that [`encode`] takes, in bytes.
const MAX_NUMBER_LEN: usize = 16;

/// Parses a 64-bit number; `None` if a character is not a digit or the number is too large.
#[inline]
pub(super) fn decode_u64(text: &[u8; U64_LEN]) -> Option<u64> {
    let digits = text.map(|character| DIGITS[usize::from(character)]);
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
    ten.checked_mul(62)?.checked_add(digits[U64_LEN - 1])
}

/// Returns the value of a digit; `None` if the character is not a digit.
#[inline]
fn digit(character: u8) -> Option<u64> {
    let digit = DIGITS[usize::from(character)];
    (digit < NO_DIGIT).then_some(u64::from(digit))
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The entry of [`DIGITS`] for a character that is not a digit.
const NO_DIGIT: u8 = 64;

/// The value of each character as a digit.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 62u8 {
        digits[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// Writes a number into the whole of `text`, with leading zeros.
///
/// `number` is big-endian and has at most [`MAX_NUMBER_LEN`] bytes. If `text` is too short, the
/// first digits are missing.
pub(super) fn encode(number: &[u8], text: &mut [u8]) {
    let mut rest = [0; MAX_NUMBER_LEN];
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

/// Parses a number into 32-bit limbs, highest first; `None` if a character is not a digit or the
/// number is too large.
pub(super) fn decode<const LIMBS: usize>(text: &[u8]) -> Option<[u32; LIMBS]> {
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
