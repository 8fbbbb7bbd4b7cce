//! The target `sealed`: bytes as a sealed record of a fleet, and a sealed record with changed
//! bytes.

use keytally_core::Peppers;
use keytally_fleet_plan::fleet_key::FleetKey;
use keytally_fleet_plan::seal::Seal;

use crate::bytes::Bytes;

/// The field of the store: a key id.
const FIELD: &str = "00000000001";

/// Opens bytes as a sealed record. None of them is accepted, since the MAC is not right, except a
/// sealed record itself.
pub fn sealed(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let seal = Seal::new("prod", &Peppers::new(&[[7; 32]]).unwrap());
    let kind = bytes.below(2);
    if kind == 0 {
        assert_eq!(seal.open(FIELD, bytes.rest()), None);
        return;
    }
    let key = FleetKey::Revoked { at_s: 1_700_000_000 };
    let sealed = seal.seal(FIELD, &key).unwrap();
    let mut changed = sealed.to_vec();
    for _ in 0..bytes.below(4) {
        let at = bytes.below(changed.len());
        changed[at] ^= bytes.array::<1>()[0];
    }
    let expected = (changed == *sealed).then_some(key);
    assert_eq!(seal.open(FIELD, &changed), expected);
}
