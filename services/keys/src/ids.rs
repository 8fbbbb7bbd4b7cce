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
}
