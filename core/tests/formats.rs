//! The features `serde` and `defmt`.
#![cfg(any(feature = "serde", feature = "defmt"))]

/// Tests of the values that programs log, which serialize, and of those that programs store, which
/// also deserialize.
#[cfg(feature = "serde")]
mod serde {
    use keytally_core::{
        AdminError, AttachError, CacheLine, Charge, CreateError, Entropy, Flaw, FlawKind, Gate,
        GateConfig, Key, KeyId, KeyState, Name, NewKey, Outcome, Peppers, Plan, Policy, Quota,
        Reason, Timestamp, Verdict,
    };
    use serde_json::{Value, from_str, from_value, json, to_value};

    const NOW: Timestamp = Timestamp::from_unix_ms(90_250);

    fn plan() -> Plan {
        Plan::new("pro", "2/minute, 5/hour".parse().unwrap()).unwrap()
    }

    fn gate() -> Gate<Vec<CacheLine>> {
        let plans = [plan()];
        let config = GateConfig::new(4, Name::new("kt").unwrap(), &plans).with_hints(true);
        let peppers = Peppers::new(&[[7_u8; 32]]).unwrap();
        let memory = (0..config.lines()).map(|_| CacheLine::new()).collect();
        Gate::init(memory, &config, peppers).unwrap()
    }

    fn issue(gate: &Gate<Vec<CacheLine>>) -> (Key, KeyId) {
        let new =
            NewKey::new(42, Name::new("live").unwrap()).with_expires(Timestamp::from_unix_s(7000));
        gate.administer().unwrap().issue(&new, Entropy::new([1; 24]), NOW).unwrap()
    }

    #[test]
    fn verdict_serializes_with_all_its_members() {
        let gate = gate();
        let (key, key_id) = issue(&gate);
        let verdict = gate.check(Some(key.expose().as_bytes()), 2, NOW);
        let quota = |window, window_s, limit, reset| {
            json!({
                "window": window, "window_s": window_s, "limit": limit, "used": 2,
                "remaining": limit - 2, "reset_unix_s": reset, "lacking": false, "lasting": false,
            })
        };
        let expected = json!({
            "outcome": "admitted", "reason": null, "http_status": 200, "cost": 2, "uncharged": 0,
            "key_id": key_id.to_string(), "account": 42, "plan_number": 0, "env_number": 0,
            "quotas": [quota("minute", 60, 2, 120), quota("hour", 3600, 5, 3600)],
            "remaining": 3, "retry_after_s": null, "clock_ahead_s": 0,
            "charge": {"tallies": [{"tally": 0, "unit": 0, "cost": 2, "at_ms": 90_250}]},
            "now_ms": 90_250,
        });
        assert_eq!(to_value(verdict).unwrap(), expected);
        assert_eq!(to_value(verdict.quotas()).unwrap(), expected["quotas"]);
        let denied = to_value(gate.check(Some(key.expose().as_bytes()), 1, NOW)).unwrap();
        assert_eq!((&denied["outcome"], &denied["retry_after_s"]), (&json!("denied"), &json!(30)));
        assert_eq!((&denied["http_status"], &denied["charge"]), (&json!(429), &json!(null)));
        assert_eq!(denied["quotas"][0]["lacking"], true);
    }

    #[test]
    fn verdict_without_a_holder_has_empty_members() {
        let verdict = to_value(Verdict::duplicate_header(NOW)).unwrap();
        assert_eq!(
            (&verdict["outcome"], &verdict["reason"]),
            (&json!("invalid_key"), &json!("duplicate"))
        );
        assert_eq!((&verdict["key_id"], &verdict["quotas"]), (&json!(null), &json!([])));
    }

    #[test]
    fn key_and_its_holder_serialize_without_the_secret() {
        let gate = gate();
        let (key, key_id) = issue(&gate);
        let verdict = gate.check(Some(key.expose().as_bytes()), 1, NOW);
        let holder = json!({
            "key_id": key_id.to_string(), "account": 42, "plan_number": 0, "env_number": 0,
        });
        assert_eq!(to_value(verdict.holder()).unwrap(), holder);
        let last_characters = &key.expose()[key.expose().len() - 4..];
        let mut found = to_value(gate.key(key_id, NOW).unwrap()).unwrap();
        assert_eq!(found["quotas"].take(), to_value(verdict.quotas()).unwrap());
        let expected = json!({
            "key_id": key_id.to_string(), "account": 42, "env": "live", "plan_number": 0,
            "revoked": false, "last_characters": last_characters, "expires_s": 7000,
            "grace_until_s": null, "last_used_ms": 60_000, "pepper": 0, "quotas": null,
            "clock_ahead_s": 0,
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn names_and_errors_serialize_as_text() {
        let policy: Policy = "2/minute, 5/hour".parse().unwrap();
        let quota: Quota = policy.quotas()[1];
        let key_id: KeyId = "0000000000z".parse().unwrap();
        let cases: [(Value, Value); 8] = [
            (to_value(Outcome::InvalidKey).unwrap(), json!("invalid_key")),
            (to_value(Reason::WrongSecret).unwrap(), json!("wrong_secret")),
            (to_value(KeyState::Revoked).unwrap(), json!("revoked")),
            (to_value(&policy).unwrap(), json!("2/minute, 5/hour")),
            (to_value(key_id).unwrap(), json!("0000000000z")),
            (to_value(quota).unwrap(), json!({"limit": 5, "window": "hour", "window_s": 3600})),
            (
                to_value(AdminError::Revoked(key_id)).unwrap(),
                json!(AdminError::Revoked(key_id).to_string()),
            ),
            (
                to_value((AttachError::NotATable, CreateError::PlanName { index: 1 })).unwrap(),
                json!([
                    AttachError::NotATable.to_string(),
                    CreateError::PlanName { index: 1 }.to_string()
                ]),
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn flaw_serializes_with_its_kind_and_its_sentence() {
        let flaw = Flaw::new(3, None, FlawKind::NoPlan { plan: 9 });
        let sentence = "record 3 has plan number 9, and there is none";
        let expected =
            json!({"record": 3, "key_id": null, "kind": "no_plan", "sentence": sentence});
        assert_eq!(to_value(flaw).unwrap(), expected);
    }

    #[test]
    fn stored_values_round_trip() {
        let charge = Charge::new(3, Timestamp::from_unix_ms(1500));
        let charge_json = json!({"tallies": [{"tally": 0, "unit": 0, "cost": 3, "at_ms": 1500}]});
        assert_eq!(to_value(charge).unwrap(), charge_json);
        assert_eq!(from_value::<Charge>(charge_json).unwrap(), charge);
        let key_id: KeyId = "0000000000z".parse().unwrap();
        assert_eq!(from_str::<KeyId>(r#""0000000000z""#).unwrap(), key_id);
        let policy: Policy = from_str(r#""sliding 5/10s""#).unwrap();
        assert_eq!(policy.to_string(), "sliding 5/10s");
        let plan_json = json!({"name": "pro", "policy": "2/minute, 5/hour"});
        assert_eq!(to_value(plan()).unwrap(), plan_json);
        assert_eq!(from_value::<Plan>(plan_json).unwrap(), plan());
        assert_eq!(from_str::<Name>(r#""live""#).unwrap(), Name::new("live").unwrap());
    }

    #[test]
    fn stored_values_are_validated() {
        let error = from_str::<Policy>(r#""5/year""#).unwrap_err().to_string();
        assert!(error.contains("\"year\""), "{error}");
        assert!(from_str::<KeyId>("7").unwrap_err().to_string().contains("11 base62 characters"));
        let plan = |name: &str| from_value::<Plan>(json!({"name": name, "policy": "1/second"}));
        assert!(plan("Pro").unwrap_err().to_string().contains("a-z, 0-9"));
        let too_long = "seventeen-letters";
        assert!(plan(too_long).unwrap_err().to_string().contains("at most 16 bytes"));
        let entry = json!({"tally": 1, "unit": 2, "cost": 3, "at_ms": 4});
        let charge = |tallies| from_value::<Charge>(json!({"tallies": vec![&entry; tallies]}));
        for tallies in [0, 9] {
            let error = charge(tallies).unwrap_err().to_string();
            assert!(error.contains("expected 1 to 8 tallies"), "{error}");
        }
        let eight = charge(8).unwrap();
        assert_eq!(to_value(eight).unwrap()["tallies"], json!(vec![&entry; 8]));
        assert_eq!(Charge::from_bytes(&eight.to_bytes()), Some(eight));
        let other = json!({"tallies": [{"tally": 0, "unit": 0, "cost": 3, "at_s": 1}]});
        assert!(from_value::<Charge>(other).is_err());
        let name = |text: &str| from_value::<Name>(json!(text));
        assert!(name("Live").unwrap_err().to_string().contains("1 to 8 characters"));
        assert!(name("").is_err());
    }
}

/// Checks only that the trait is implemented: the computer that receives the log makes the texts.
#[cfg(feature = "defmt")]
#[test]
fn logged_values_implement_defmt_format() {
    // The bound is what this test checks, when it is compiled. The size is only a value to return.
    const fn size_of_format<T: defmt::Format>() -> usize {
        size_of::<T>()
    }

    macro_rules! sizes {
        ($($name:ident)+) => { [$(size_of_format::<keytally_core::$name>()),+] };
    }

    let sizes = sizes![
        AdminError Algorithm AttachError Charge CreateError Flaw FlawKind Holder KeyId KeyInfo
        KeyState Name Outcome Plan Policy Quota QuotaState Quotas Reason TableKind Timestamp Verdict
        Window
    ];
    assert!(sizes.iter().all(|&size| size > 0));
}
