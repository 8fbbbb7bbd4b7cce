//! Ids: key ids are unsigned, and the columns of a database are signed.

use keytally::KeyId;

/// Returns the number by which the database keeps a key id: its bits. Their order is not that of
/// the ids.
pub(crate) fn stored(key_id: KeyId) -> i64 {
    key_id.number().cast_signed()
}

/// Returns a key id of the database; `None` for 0, which no key has.
pub(crate) fn loaded(number: i64) -> Option<KeyId> {
    KeyId::from_number(number.cast_unsigned())
}

/// Returns a key id of the database as text.
pub(crate) fn shown(number: i64) -> String {
    loaded(number).map(|key_id| key_id.to_string()).unwrap_or_default()
}

/// The characters of the text of a key id.
const ID_LEN: u32 = 11;

/// The fewest characters of an id that a search finds keys by.
pub(crate) const LEAST_PREFIX_LEN: usize = 3;

/// Returns the ranges of the numbers of the database whose key ids begin with a text: two, as the
/// numbers are signed. `None` if no id begins so, or if the text is shorter than
/// [`LEAST_PREFIX_LEN`].
pub(crate) fn beginning_with(text: &str) -> Option<[(i64, i64); 2]> {
    let len = u32::try_from(text.len()).ok().filter(|&len| len <= ID_LEN)?;
    if text.len() < LEAST_PREFIX_LEN {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'Z' => Some(byte - b'A' + 10),
        b'a'..=b'z' => Some(byte - b'a' + 36),
        _ => None,
    };
    let mut first = 0u128;
    for byte in text.bytes() {
        first = first * 62 + u128::from(digit(byte)?);
    }
    let count = 62u128.pow(ID_LEN - len);
    let first = u64::try_from(first * count).ok()?;
    let last = u64::try_from(u128::from(first) + count - 1).unwrap_or(u64::MAX);
    let (top, half) = (i64::MAX.cast_unsigned(), i64::MAX.cast_unsigned() + 1);
    // Of the numbers up to the largest signed one, and of those after it. An empty range begins
    // after its end.
    let low = (first.min(half), last.min(top));
    let high = (first.max(half), last.max(top));
    let signed = |(first, last): (u64, u64)| match first <= last {
        true => (first.cast_signed(), last.cast_signed()),
        false => (1, 0),
    };
    Some([signed(low), signed(high)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_id_is_kept() {
        for number in [1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX] {
            let key_id = KeyId::from_number(number).unwrap();
            assert_eq!(loaded(stored(key_id)), Some(key_id));
        }
        assert_eq!(loaded(0), None);
    }

    #[test]
    fn ids_are_found_by_their_beginning() {
        let is_found = |text: &str, key_id: KeyId| {
            let ranges = beginning_with(text).unwrap_or([(1, 0); 2]);
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&stored(key_id)))
        };
        for number in [1, 61, 1 << 40, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX] {
            let key_id = KeyId::from_number(number).unwrap();
            let id = key_id.to_string();
            for len in LEAST_PREFIX_LEN..=id.len() {
                assert!(is_found(&id[..len], key_id), "{id} by {len} characters");
                let other: String =
                    id[..len].bytes().map(|byte| if byte == b'0' { '1' } else { '0' }).collect();
                assert!(!is_found(&other, key_id), "{id} by {other}");
            }
        }
        for text in ["", "0G", "0G3-", "zzz", "0Gk3XbT9qLmA"] {
            assert_eq!(beginning_with(text), None, "{text}");
        }
    }
}
