//! The pepper and the key that the tests use.

use keytally::{Name, NewKey, Peppers};

pub(crate) fn peppers() -> Peppers {
    Peppers::new(&[b"a pepper for tests, of 32 bytes."]).unwrap()
}

/// Returns what to issue: a key of account 42 that never expires.
pub(crate) fn new_key() -> NewKey<'static> {
    NewKey::new(42, Name::new("live").unwrap())
}
