//! Tests of the features that a device can leave out. In a build without a feature, what needs it
//! is refused, and the error names the feature. The suite `features` runs these tests in builds
//! with each of the features alone and with none.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::{
    AdminError, Algorithm, AttachError, CacheLine, CreateError, Feature, Gate, Limiter,
    ParsePolicyErrorKind, Peppers, PeppersError, Policy, Quota, Sections, Timestamp, Window,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{config, entropy, memory, new_key, peppers, plan};

const CAPACITY: u32 = 8;

/// Whether this build has the features.
const SLIDING: bool = cfg!(feature = "sliding");
const IMPORTED_KEYS: bool = cfg!(feature = "imported-keys");
const PEPPER_ROTATION: bool = cfg!(feature = "pepper-rotation");
const CALENDAR: bool = cfg!(feature = "calendar");
const SECTIONS: bool = cfg!(feature = "sections");

// Lines and words of the header: see `core/src/header.rs` and `core/src/gate/table.rs`.
const SHAPE: usize = 4;
const LENGTHS: usize = 5;
const COUNT_BITS: usize = 7;
const PEPPER_LINE: usize = 1;
const IMPORTS_WORD: usize = 5;

fn now() -> Timestamp {
    Timestamp::from_unix_s(1_700_000_000)
}

/// The memory of a new gate under one pepper, with fixed windows.
fn gate() -> Vec<CacheLine> {
    let plans = [plan("default", "3/minute")];
    let config = config(CAPACITY, &plans);
    let memory = memory(config.lines());
    drop(Gate::init(&memory[..], &config, peppers(&[1])).unwrap());
    memory
}

/// Returns the error of opening a gate.
fn open(memory: &[CacheLine]) -> Option<AttachError> {
    Gate::attach(memory, peppers(&[1])).err()
}

/// Returns the error of a build that does not include the feature.
fn left_out(included: bool, feature: Feature) -> Option<AttachError> {
    (!included).then_some(AttachError::LeftOut(feature))
}

/// Makes the windows of a table sliding, with counts of 16 bits.
fn slide(memory: &[CacheLine]) {
    memory[0].store(SHAPE, memory[0].load(SHAPE) | 1 << 48);
    let plan_slots = memory[0].load(COUNT_BITS) & !0xffff_ffff;
    memory[0].store(COUNT_BITS, plan_slots | 16);
}

#[test]
fn sliding_policy_needs_the_feature() {
    for text in ["sliding 3/minute", "sliding 1/s, 2/m"] {
        match text.parse::<Policy>() {
            Ok(policy) => assert_eq!((policy.algorithm(), SLIDING), (Algorithm::Sliding, true)),
            Err(error) => {
                let left_out = ParsePolicyErrorKind::LeftOut(Feature::Sliding);
                assert_eq!((error.kind(), SLIDING), (left_out, false));
                assert!(error.to_string().contains("`sliding`"), "{error}");
            }
        }
    }
    assert!("fixed 3/minute".parse::<Policy>().is_ok());
    let quota = Quota { limit: 3, window: Window::from_seconds(60).unwrap() };
    assert_eq!(Policy::new(Algorithm::Sliding, &[quota]).is_ok(), SLIDING);
}

#[test]
fn table_with_sliding_windows_needs_the_feature() {
    let gate = gate();
    assert_eq!(open(&gate), None);
    slide(&gate);
    assert_eq!(open(&gate), left_out(SLIDING, Feature::Sliding));

    let limiter = memory(Limiter::<&[CacheLine]>::lines(CAPACITY));
    Limiter::init(&limiter[..], &"3/minute".parse().unwrap(), CAPACITY, [7; 16]).unwrap();
    slide(&limiter);
    assert_eq!(Limiter::attach(&limiter[..]).err(), left_out(SLIDING, Feature::Sliding));
}

#[test]
fn policy_with_weeks_or_months_needs_the_feature() {
    for text in ["3/week", "1/day, 3/month@17"] {
        match text.parse::<Policy>() {
            Ok(policy) => assert_eq!((policy.to_string(), CALENDAR), (text.to_owned(), true)),
            Err(error) => {
                let left_out = ParsePolicyErrorKind::LeftOut(Feature::Calendar);
                assert_eq!((error.kind(), CALENDAR), (left_out, false), "{text}");
                assert!(error.to_string().contains("`calendar`"), "{error}");
            }
        }
    }
    assert!("3/7d".parse::<Policy>().is_ok());
    let quota = Quota { limit: 3, window: Window::WEEK };
    assert_eq!(Policy::new(Algorithm::Fixed, &[quota]).is_ok(), CALENDAR);
}

#[test]
fn table_with_weeks_or_months_needs_the_feature() {
    for window in [Window::WEEK, Window::month(17).unwrap()] {
        let gate = gate();
        gate[0].store(LENGTHS, window.number().into());
        assert_eq!(open(&gate), left_out(CALENDAR, Feature::Calendar));

        let limiter = memory(Limiter::<&[CacheLine]>::lines(CAPACITY));
        Limiter::init(&limiter[..], &"3/minute".parse().unwrap(), CAPACITY, [7; 16]).unwrap();
        limiter[0].store(LENGTHS, window.number().into());
        assert_eq!(Limiter::attach(&limiter[..]).err(), left_out(CALENDAR, Feature::Calendar));
    }
}

#[test]
fn import_of_a_key_of_another_form_needs_the_feature() {
    let memory = gate();
    let gate = Gate::attach(&memory[..], peppers(&[1])).unwrap();
    let mut administrator = gate.administer().unwrap();
    let other_form = b"an-old-key-of-another-form";
    let imported = administrator.import(other_form, &new_key(), now());
    if IMPORTED_KEYS {
        assert!(imported.is_ok());
        assert!(gate.check(Some(other_form), 1, now()).is_admitted());
    } else {
        assert_eq!(imported.unwrap_err(), AdminError::LeftOut(Feature::ImportedKeys));
        assert_eq!(gate.list(now()).count(), 0);
    }
    let issued = administrator.issue(&new_key(), entropy(1), now()).unwrap().0;
    let other_gate = self::gate();
    let other_gate = Gate::attach(&other_gate[..], peppers(&[1])).unwrap();
    let key = issued.expose().as_bytes();
    other_gate.administer().unwrap().import(key, &new_key(), now()).unwrap();
    assert!(other_gate.check(Some(key), 1, now()).is_admitted());
}

#[test]
fn gate_with_imported_keys_needs_the_feature() {
    let gate = gate();
    gate[PEPPER_LINE].store(IMPORTS_WORD, 1);
    assert_eq!(open(&gate), left_out(IMPORTED_KEYS, Feature::ImportedKeys));
}

#[test]
fn more_than_one_pepper_needs_the_feature() {
    let two = Peppers::new(&[[1; 32], [2; 32]]);
    if PEPPER_ROTATION {
        assert!(two.is_ok());
    } else {
        assert_eq!(two.unwrap_err(), PeppersError::LeftOut(Feature::PepperRotation));
    }
    assert_eq!(Peppers::new::<[u8; 32]>(&[]).unwrap_err(), PeppersError::Count);
}

#[test]
fn gate_with_another_pepper_needs_the_feature() {
    for number in 1..4 {
        let gate = gate();
        gate[PEPPER_LINE].store(number, 7);
        assert_eq!(open(&gate), left_out(PEPPER_ROTATION, Feature::PepperRotation), "{number}");
    }
}

#[test]
fn gate_whose_pepper_has_another_number_needs_the_feature() {
    let gate = gate();
    let fingerprint = gate[PEPPER_LINE].load(0);
    gate[PEPPER_LINE].store(0, 0);
    gate[PEPPER_LINE].store(2, fingerprint);
    assert_eq!(open(&gate), left_out(PEPPER_ROTATION, Feature::PepperRotation));
}

#[test]
fn secret_rotation_needs_no_feature() {
    let memory = gate();
    let gate = Gate::attach(&memory[..], peppers(&[1])).unwrap();
    let mut administrator = gate.administer().unwrap();
    let (old, key_id) = administrator.issue(&new_key(), entropy(1), now()).unwrap();
    let until = Timestamp::from_unix_s(now().unix_s() + 60);
    let new = administrator.rotate(key_id, Some(until), false, entropy(2), now()).unwrap();
    for key in [old, new] {
        assert!(gate.check(Some(key.expose().as_bytes()), 1, now()).is_admitted());
    }
}

#[test]
fn sentence_names_the_feature() {
    for (feature, included) in [
        (Feature::Sliding, SLIDING),
        (Feature::ImportedKeys, IMPORTED_KEYS),
        (Feature::PepperRotation, PEPPER_ROTATION),
        (Feature::Calendar, CALENDAR),
    ] {
        assert_eq!(feature.is_included(), included);
        let sentence = feature.to_string();
        assert!(sentence.contains(&format!("`{}`", feature.as_str())), "{sentence}");
        assert_eq!(AttachError::LeftOut(feature).to_string(), sentence);
        assert_eq!(AdminError::LeftOut(feature).to_string(), sentence);
        assert_eq!(PeppersError::LeftOut(feature).to_string(), sentence);
    }
}

#[test]
fn sections_teams_and_scopes_need_the_feature() {
    for text in ["3/minute; team: 5/minute", "3/minute; group write: 1/minute", "unlimited"] {
        let error = text.parse::<Sections>().err().map(|error| error.kind());
        let is_refused = matches!(
            error,
            Some(ParsePolicyErrorKind::LeftOut(Feature::Sections) | ParsePolicyErrorKind::Syntax)
        );
        assert_eq!(is_refused, !SECTIONS, "{text}: {error:?}");
    }
    let plans = [plan("default", "3/minute")];
    let left_out = (!SECTIONS).then_some(CreateError::LeftOut(Feature::Sections));
    assert_eq!(config(CAPACITY, &plans).with_teams(1).validate().err(), left_out);
    assert_eq!(config(CAPACITY, &plans).with_scopes(&["read"]).validate().err(), left_out);
    // A table of another build. Its flag is in the lower half of this word.
    let gate = gate();
    gate[0].store(SHAPE, gate[0].load(SHAPE) | 2);
    let error = open(&gate);
    assert_eq!(error == Some(AttachError::LeftOut(Feature::Sections)), !SECTIONS, "{error:?}");
}
