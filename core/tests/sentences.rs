//! Tests of the texts of errors and flaws: each names the value and what would be valid.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::fmt::Display;

use keytally_core::{
    AddressPolicy, AdminError, AttachError, CreateError, Entropy, Flaw, FlawKind, KeyId, Name,
    OnFull, Outcome, ParseKeyError, Pepper, Peppers, PeppersError, Policy, Reason, Sections,
    TableKind, Timestamp, Verdict,
};

/// Asserts that each text contains its phrases, and no braces or double spaces of a format string.
fn assert_texts_contain(texts: &[(&dyn Display, &[&str])]) {
    for (text, phrases) in texts {
        let text = text.to_string();
        for phrase in *phrases {
            assert!(text.contains(phrase), "{text:?} contains {phrase:?}");
        }
        assert!(!text.contains(['{', '}']) && !text.contains("  "), "{text:?}");
    }
}

/// The key id that the texts contain.
fn id() -> KeyId {
    "0000000000z".parse().unwrap()
}

#[test]
fn attach_error_names_what_was_found_and_expected() {
    assert_texts_contain(&[
        (&AttachError::NotATable, &["keytally table", "does not begin as one does"]),
        (&AttachError::Unfinished, &["interrupted", "create it again"]),
        (&AttachError::Version { found: 7, expected: 1 }, &["version 7", "reads version 1"]),
        (
            &AttachError::Kind { found: TableKind::Gate, expected: TableKind::Limiter },
            &["is a gate", "not a limiter"],
        ),
        (&AttachError::Truncated { len: 4096, needed: 8192 }, &["has 4096 bytes", "says 8192"]),
        (&AttachError::Geometry { what: "window", value: 99 }, &["damaged: 99 is ", "window"]),
        (&AttachError::WrongPepper { given: 1 }, &["the pepper that was given", "created with"]),
        (&AttachError::WrongPepper { given: 3 }, &["none of the 3 peppers", "created with"]),
    ]);
}

#[test]
fn create_error_names_the_value_and_its_bounds() {
    assert_texts_contain(&[
        (&CreateError::Size { lines: 10, needed: 20 }, &["10 lines", "takes 20"]),
        (&CreateError::Capacity { capacity: 0, max: 1000 }, &["capacity of 0", "1 to 1000"]),
        (&CreateError::Plans { plans: 9, max: 4 }, &["9 plans", "1 to 4"]),
        (
            &CreateError::PlanName { index: 2 },
            &["plan 3 has", "1 to 16 characters", "appears once"],
        ),
        (&CreateError::PlanWindows { index: 1 }, &["plan 2 differs", "share their sections"]),
        (&CreateError::Scopes { index: 64 }, &["scope 65 is", "at most 64 scopes"]),
    ]);
}

#[test]
fn administrator_error_names_the_value_and_a_remedy() {
    assert_texts_contain(&[
        (&AdminError::Busy, &["try again"]),
        (
            &AdminError::Full { keys: 64 },
            &["all 64 records", "revoked", "longest window has passed; ", "`keytally migrate`"],
        ),
        (&AdminError::NoRoomToImport, &["a third more"]),
        (&AdminError::NoSuchKey(id()), &["no key 0000000000z", "`list`"]),
        (&AdminError::NoSuchPlan, &["no plan of that name", "`list`"]),
        (&AdminError::PlansFull { max: 4 }, &["4 plans"]),
        (&AdminError::PlanWindows, &["windows and algorithm"]),
        (&AdminError::PlanLimit { limit: 5000, max: 4095 }, &["5000", "the most is 4095"]),
        (&AdminError::EnvsFull, &["16 environments"]),
        (&AdminError::NamesTooLong, &["14 characters together"]),
        (&AdminError::Revoked(id()), &["0000000000z was revoked", "issue a new one"]),
        (
            &AdminError::InGrace { key_id: id(), until: Timestamp::from_unix_s(1_700_000_000) },
            &["key 0000000000z", "valid until Unix second 1700000000", "force"],
        ),
        (&AdminError::Damaged(id()), &["0000000000z is damaged", "`verify`"]),
        (&AdminError::AlreadyImported(id()), &["already", "0000000000z"]),
        (&AdminError::NotImportable { len: 7 }, &["16 to 256 bytes", "this one has 7"]),
        (&AdminError::PeppersFull, &["4 peppers", "rotate"]),
    ]);
}

#[test]
fn parse_error_names_the_value_and_the_valid_form() {
    assert_texts_contain(&[
        (&"7".parse::<KeyId>().unwrap_err(), &["11 characters", "0-9, A-Z and a-z"]),
        (&ParseKeyError::Form, &["prefix_env_", "39 characters"]),
        (&ParseKeyError::Checksum, &["checksum", "mistyped"]),
        (&Pepper::new(&[1; 31]).unwrap_err(), &["31 bytes", "at least 32"]),
        (&Peppers::new(&[[1; 5]]).unwrap_err(), &["5 bytes", "at least 32"]),
        (&PeppersError::Count, &["1 to 4 different peppers"]),
        (&PeppersError::Repeated, &["given twice"]),
        (
            &Verdict::duplicate_header(Timestamp::default()).write_headers(&mut []).unwrap_err(),
            &["58 bytes"],
        ),
    ]);
    let policies: [(&str, &[&str]); 17] = [
        ("", &["at least one quota", "100/minute"]),
        (&"1".repeat(200), &["\"11111111111111111111111111111111…\"", "128 bytes"]),
        ("5 a minute", &["\"5 a minute\" is ", "a quota is LIMIT/UNIT"]),
        ("0/minute", &["\"0\" is ", "a limit is 1 to 4294967295"]),
        ("1/32d", &["\"32d\" is ", "a window is 1 second to 31 days"]),
        ("1/2week", &["\"2week\" is ", "a window is 1 second to 31 days, week, month"]),
        ("1/year", &["\"year\" is ", "the units are second, minute"]),
        ("1/s, 1/m, 1/h, 1/d, 1/2d", &["\"1/2d\" is one quota too many", "at most 4"]),
        ("1/minute, 2/60s", &["2/minute", "each window may appear once"]),
        (" sliding ", &["\"sliding\" needs at least one quota"]),
        ("1/minute,", &["nothing is before or after a comma", "a quota is LIMIT/UNIT"]),
        ("1/s, sliding 2/h", &["\"sliding 2/h\" is ", "stand once, before all quotas"]),
        ("1/s; 2/h", &["\"1/s; 2/h\" is ", "in a plan, each after a semicolon"]),
        ("1/s warn 80%", &["\"1/s warn 80%\" is ", "only a quota of a plan"]),
        ("unlimited", &["\"unlimited\" is ", "in place of all quotas of a section"]),
        ("sliding 1/month", &["\"1/month\" cannot slide", "or use 30d"]),
        ("4294967295/second, 4294967295/minute", &["97 bits", "has 64"]),
    ];
    for (text, words) in policies {
        assert_texts_contain(&[(&text.parse::<Policy>().unwrap_err(), words)]);
    }
    let plans: [(&str, &[&str]); 7] = [
        ("1/s;", &["nothing is after a semicolon", "like \"team: 5000/hour\""]),
        ("1/s; ; team: 2/h", &["nothing is after a semicolon"]),
        ("1/s; team:", &["\"team:\" needs at least one quota", "100/minute"]),
        ("1/s; group a: sliding", &["\"group a: sliding\" needs at least one quota"]),
        ("1/s; sliding team: 2/h", &["\"sliding team: 2/h\" is ", "\"team: sliding 5000/hour\""]),
        ("1/s, team: 2/h", &["\"team: 2/h\" is ", "each after a semicolon"]),
        ("1/m; team: 4294967295/s", &["\"4294967295/second\" needs 65 bits", "lower the limit"]),
    ];
    for (text, words) in plans {
        assert_texts_contain(&[(&text.parse::<Sections>().unwrap_err(), words)]);
    }
    let addresses: [(&str, &[&str]); 7] = [
        ("addresses:", &["\"addresses:\" needs at least one quota"]),
        ("addresses: /64", &["\"/64\" does not limit", "up to 4 prefixes from /33 to /64"]),
        ("addresses: /64 1/s;", &["nothing is before or after a semicolon", "/48 1000/minute"]),
        ("addresses: /64 1/s; ; /48 2/s", &["nothing is before or after a semicolon"]),
        ("addresses: /64 sliding 1/s", &["\"sliding 1/s\" is ", "\"addresses: sliding /64 "]),
        ("addresses: /64 1/s; sliding /48 2/s", &["\"sliding /48 2/s\"", "before all prefixes"]),
        ("addresses: 1/s, /48 2/s", &["\"/48 2/s\" is ", "semicolons between them"]),
    ];
    for (text, words) in addresses {
        assert_texts_contain(&[(&text.parse::<AddressPolicy>().unwrap_err(), words)]);
    }
    let on_full = format!("evict\n{}", "!".repeat(40)).parse::<OnFull>().unwrap_err();
    assert_eq!(on_full.text(), format!("evict{}", "!".repeat(27)));
    assert_texts_contain(&[(&on_full, &["\"evict!", "it is share or refuse"])]);
    assert!(Peppers::new(&[[1; 31]]).unwrap_err().to_string().contains("31 bytes"));
}

/// Values that are not secret have the same text in `Display` and in `Debug`.
#[test]
fn debug_of_a_public_name_equals_its_display() {
    let env = Name::new("live").unwrap();
    assert_eq!(format!("{env} {env:?} {} {:?}", id(), id()), "live live 0000000000z 0000000000z");
    assert_eq!(format!("{:?}", Entropy::new([0xa7; 24])), "Entropy(…)", "entropy is secret");
}

#[test]
fn flaw_names_its_record_and_the_damage() {
    let flaw = |kind| Flaw::new(5, Some(id()), kind);
    assert_texts_contain(&[
        (&flaw(FlawKind::HalfWritten), &["record 5 (key 0000000000z) is half-written"]),
        (&flaw(FlawKind::Misplaced), &["record 5 (key 0000000000z)", "another record"]),
        (&flaw(FlawKind::NoPlan { plan: 9 }), &["plan number 9"]),
        (&flaw(FlawKind::NoEnv { env: 8 }), &["environment number 8"]),
        (&flaw(FlawKind::NoPepper { pepper: 3 }), &["pepper number 3"]),
        (&flaw(FlawKind::NoTally), &["not a tally"]),
        (&flaw(FlawKind::FutureTally), &["wrong clock", "corrects it"]),
        (&Flaw::new(6, None, FlawKind::NoTally), &["record 6 has a word"]),
    ]);
}

/// The words are for logs and metric labels, where letters and underscores need no quotation marks.
#[test]
fn outcome_and_reason_are_one_word_each() {
    use Outcome::{Admitted, Denied, Full, InvalidKey, MissingKey, TooCostly};
    let outcomes = [Admitted, Denied, MissingKey, InvalidKey, TooCostly, Full]
        .map(|outcome| outcome.to_string());
    let reasons = [
        Reason::Malformed,
        Reason::Checksum,
        Reason::Unknown,
        Reason::WrongSecret,
        Reason::Revoked,
        Reason::Expired,
        Reason::Duplicate,
        Reason::PepperMissing,
        Reason::Damaged,
    ]
    .map(|reason| reason.to_string());
    assert_eq!(
        outcomes,
        ["admitted", "denied", "missing_key", "invalid_key", "too_costly", "full"]
    );
    assert_eq!(
        reasons,
        [
            "malformed",
            "checksum",
            "unknown",
            "wrong_secret",
            "revoked",
            "expired",
            "duplicate",
            "pepper_missing",
            "damaged"
        ]
    );
}
