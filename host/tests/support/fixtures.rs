//! The pepper and the key that the tests use.

use keytally::{Name, NewKey, Peppers};

pub(crate) fn peppers() -> Peppers {
    Peppers::new(&[b"a pepper for tests, of 32 bytes."]).unwrap()
}

/// Returns the description of a new key: of account 42, without an expiry.
pub(crate) fn new_key() -> NewKey<'static> {
    NewKey::new(42, Name::new("live").unwrap())
}
