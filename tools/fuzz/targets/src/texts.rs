//! The targets `policy` and `key`: texts that both the core and the model parse.

use keytally_core::{
    Hint, Key, KeyId, Name, ParseKeyError, ParsePolicyErrorKind, Policy, parse_key,
};
use keytally_vectors::model;

use crate::bytes::Bytes;
use crate::headers::model_window;

/// Parses a policy text.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    match (text.parse::<Policy>(), model::parse_policy(text)) {
        (Ok(policy), Ok(expected)) => {
            assert_eq!(format!("{:?}", policy.algorithm()), format!("{:?}", expected.algorithm));
            let quotas =
                policy.quotas().iter().map(|quota| (quota.limit, model_window(quota.window)));
            assert!(quotas.eq(expected.quotas.iter().map(|quota| (quota.limit, quota.window))));
            let layout = model::Layout::from_policy(&expected);
            assert_eq!(policy.layout().stamp_bits(), layout.stamp_bits);
            assert_eq!(policy.to_string(), expected.to_string());
            assert_eq!(policy.to_string().parse::<Policy>().as_ref(), Ok(&policy));
        }
        (Err(error), Err(expected)) => {
            let kind = match error.kind() {
                ParsePolicyErrorKind::Empty => "empty",
                ParsePolicyErrorKind::TooLong { .. } => "too_long",
                ParsePolicyErrorKind::Syntax => "syntax",
                ParsePolicyErrorKind::Limit => "limit",
                ParsePolicyErrorKind::Window => "window",
                ParsePolicyErrorKind::Unit => "unit",
                ParsePolicyErrorKind::TooManyQuotas => "too_many",
                ParsePolicyErrorKind::Duplicate => "duplicate",
                ParsePolicyErrorKind::SlidingMonth => "sliding_month",
                ParsePolicyErrorKind::TooManyBits { needed } => {
                    assert_eq!(expected, model::PolicyError::TooManyBits { needed });
                    "too_many_bits"
                }
                other => panic!("the model has no {other:?}"),
            };
            assert_eq!(kind, expected.kind());
            assert!(error.part().len() <= 32 && !error.to_string().is_empty());
        }
        (real, expected) => {
            panic!("the core parsed {text:?} as {real:?}, the model as {expected:?}")
        }
    }
}

/// Parses the bytes as a key. Then creates a key from the bytes, and parses it without and with a
/// mistake.
pub fn key(bytes: &[u8]) {
    read_key(bytes);
    let mut bytes = Bytes::new(bytes);
    let mut name = |longest: usize| -> String {
        let len = 1 + bytes.below(longest);
        (0..len).map(|_| char::from(bytes.pick(b"0123456789abcdefghijklmnopqrstuvwxyz"))).collect()
    };
    let prefix = name(8);
    let env = name(8.min(14 - prefix.len()));
    let key_id = bytes.word().max(1);
    let secret: [u8; 16] = bytes.array();
    let made = model::Key {
        prefix: prefix.clone(),
        env: env.clone(),
        key_id,
        secret: u128::from_be_bytes(secret),
    };
    let text = model::encode_key(&made);
    let names = [prefix, env].map(|name| Name::new(&name).unwrap());
    let minted =
        Key::mint(names[0], names[1], KeyId::from_number(key_id).unwrap(), &secret).unwrap();
    assert_eq!(minted.expose(), text);
    assert!(read_key(text.as_bytes()));

    let mut wrong = text.into_bytes();
    let at = bytes.below(wrong.len());
    match bytes.below(4) {
        0 => wrong[at] = bytes.byte(),
        1 => drop(wrong.remove(at)),
        2 => wrong.insert(at, bytes.byte()),
        _ => wrong.truncate(at),
    }
    read_key(&wrong);
}

/// Parses a text with both parsers and compares the results. Returns whether it is a key.
fn read_key(text: &[u8]) -> bool {
    let hint = Hint::new(text).to_string();
    // At most 16 bytes of names, the ellipsis, and the last four characters.
    assert!(hint.len() <= 16 + "…".len() + 4, "{hint}");
    match (parse_key(text), model::parse_key(text)) {
        (Ok(parts), Ok(expected)) => {
            assert_eq!(
                (parts.prefix, parts.env),
                (expected.prefix.as_str(), expected.env.as_str())
            );
            assert_eq!(parts.key_id.number(), expected.key_id);
            assert_eq!(parts.key_id.to_string(), model::key_id_text(expected.key_id));
            assert_eq!(parts.key_id.to_string().parse(), Ok(parts.key_id));
            assert_eq!(hint, model::hint(core::str::from_utf8(text).unwrap(), &expected));
            true
        }
        (Err(error), Err(expected)) => {
            let kind = match error {
                ParseKeyError::Form => "form",
                ParseKeyError::Checksum => "checksum",
                other => panic!("the model has no {other:?}"),
            };
            assert_eq!(kind, expected.kind());
            false
        }
        (real, expected) => {
            panic!("the core parsed {text:?} as {real:?}, the model as {expected:?}")
        }
    }
}
