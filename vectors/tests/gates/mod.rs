//! Fills a gate with the keys of `verdict.json`.
//!
//! The test `against_core` and the example `gates` include this file. It is not a part of the
//! library, which must not depend on core.

use keytally_core::{Administrator, CacheLine, Entropy, Name, NewKey, Timestamp, parse_key};
use keytally_vectors::files::{GateSetup, IssuedKey};
use keytally_vectors::model;

/// Imports the keys of a gate, which keeps their ids.
///
/// A key that has a previous secret is imported with it, and then rotated to the new one.
pub(crate) fn import_keys<M: AsRef<[CacheLine]>>(
    administrator: &mut Administrator<'_, M>,
    setup: &GateSetup,
) {
    for key in &setup.keys {
        import(administrator, key);
    }
}

fn import<M: AsRef<[CacheLine]>>(administrator: &mut Administrator<'_, M>, key: &IssuedKey) {
    let now = Timestamp::default();
    let parts = parse_key(key.text.as_bytes()).unwrap();
    let new = NewKey::new(key.account, Name::new(parts.env).unwrap())
        .with_expires(end_time(key.expires_s));
    let first = key.previous.as_ref().unwrap_or(&key.text);
    let key_id = administrator.import(first.as_bytes(), &new, now).unwrap();
    assert_eq!(key_id, parts.key_id);
    if key.previous.is_some() {
        let secret = model::parse_key(key.text.as_bytes()).unwrap().secret.to_be_bytes();
        // A rotation takes the new secret from the last 16 bytes of the entropy.
        let entropy: [u8; 24] = [&[0; 8], &secret[..]].concat().try_into().unwrap();
        let grace_until = end_time(key.grace_until_s);
        let rotated =
            administrator.rotate(key_id, grace_until, false, Entropy::new(entropy), now).unwrap();
        assert_eq!(rotated.expose(), key.text);
    }
    if key.revoked {
        administrator.revoke(key_id).unwrap();
    }
}

/// Returns the end of a validity in a vector file as a time. 0 means that there is no end.
fn end_time(unix_s: u32) -> Option<Timestamp> {
    (unix_s != 0).then(|| Timestamp::from_unix_s(unix_s.into()))
}
