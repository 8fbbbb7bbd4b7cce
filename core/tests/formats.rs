//! The features `serde` and `defmt`.
#![cfg(any(feature = "serde", feature = "defmt"))]

/// Tests of the values that programs log, which serialize, and of those that programs store, which
/// also deserialize.
#[cfg(feature = "serde")]
mod serde {
    use keytally_core::{Charge, KeyId, Outcome, Policy, Quota, Reason, Timestamp, decide};
    use serde_json::{Value, from_str, json, to_value};

    #[test]
    fn logged_values_have_their_documented_form() {
        let policy: Policy = "2/minute, 5/hour".parse().unwrap();
        let (layout, limits, now) = (policy.layout(), policy.limits(), Timestamp::from_unix_s(90));
        let word = decide::check(layout, &limits, 0, now, 1).next;
        let state = decide::quotas(layout, &limits, word, now).get(0).unwrap();
        let quota: Quota = policy.quotas()[1];
        let cases: [(Value, Value); 5] = [
            (to_value(Outcome::InvalidKey).unwrap(), json!("invalid_key")),
            (to_value(Reason::WrongSecret).unwrap(), json!("wrong_secret")),
            (to_value(quota).unwrap(), json!({"limit": 5, "window": 3600})),
            (to_value(&policy).unwrap(), json!("2/minute, 5/hour")),
            (
                to_value(state).unwrap(),
                json!({
                    "limit": 2, "remaining": 1, "window": 60, "reset_unix_s": 120, "lacking": false,
                    "lasting": false,
                }),
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn stored_values_round_trip() {
        let charge = Charge { cost: 3, at: Timestamp::from_unix_ms(1500) };
        let text = to_value(charge).unwrap().to_string();
        assert_eq!(
            (text.as_str(), from_str::<Charge>(&text).unwrap()),
            (r#"{"at":1500,"cost":3}"#, charge)
        );
        let key_id: KeyId = "0000000000z".parse().unwrap();
        assert_eq!(from_str::<KeyId>(r#""0000000000z""#).unwrap(), key_id);
        assert_eq!(to_value(key_id).unwrap(), json!("0000000000z"));
        let policy: Policy = from_str(r#""sliding 5/10s""#).unwrap();
        assert_eq!(policy.to_string(), "sliding 5/10s");
        let error = from_str::<Policy>(r#""5/week""#).unwrap_err().to_string();
        assert!(error.contains("\"week\""), "{error}");
        assert!(from_str::<KeyId>("7").unwrap_err().to_string().contains("11 base62 characters"));
    }
}

/// Checks only that the trait is implemented: the computer that receives the log makes the texts.
#[cfg(feature = "defmt")]
#[test]
fn logged_values_implement_defmt_format() {
    use keytally_core::{
        Algorithm, Charge, Holder, KeyId, Name, Outcome, Policy, Quota, QuotaState, Reason,
    };
    use keytally_core::{Timestamp, Window};

    // The bound is what this test checks, when it is compiled. The size is only a value to return.
    const fn size_of_format<T: defmt::Format>() -> usize {
        size_of::<T>()
    }

    let sizes = [
        size_of_format::<Algorithm>(),
        size_of_format::<Charge>(),
        size_of_format::<Holder>(),
        size_of_format::<KeyId>(),
        size_of_format::<Name>(),
        size_of_format::<Outcome>(),
        size_of_format::<Policy>(),
        size_of_format::<Quota>(),
        size_of_format::<QuotaState>(),
        size_of_format::<Reason>(),
        size_of_format::<Timestamp>(),
        size_of_format::<Window>(),
    ];
    assert!(sizes.iter().all(|&size| size > 0));
}
