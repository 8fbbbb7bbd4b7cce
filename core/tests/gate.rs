//! Tests of the gate's public behavior: issuing, checking, rotating, revoking and replacing keys.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::cell::Cell;

use keytally_core::{
    AdminError, AttachError, CacheLine, Charge, CreateError, Entropy, FlawKind, Gate, Key, KeyId,
    KeyState, Name, NewKey, Outcome, Reason, Timestamp, parse_key,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{at, check, config, end, image, memory, name, peppers, plan};

/// The numbers of the pepper of a new gate, and of the pepper that replaces it.
const OLD: u8 = 1;
const NEW: u8 = 2;

/// Returns a gate with two plans and with hints.
fn gate(keys: u32) -> Gate<Vec<CacheLine>> {
    let plans = [plan("default", "3/minute, 10/hour"), plan("pro", "5/minute, 20/hour")];
    support::gate(&config(keys, &plans).with_hints(true))
}

/// Opens the memory of a gate with these peppers.
fn attach<'a>(gate: &'a Gate<Vec<CacheLine>>, numbers: &[u8]) -> Gate<&'a [CacheLine]> {
    Gate::attach(&gate.memory()[..], peppers(numbers)).unwrap()
}

fn new_key(plan: &str) -> NewKey<'_> {
    support::new_key().with_plan(plan)
}

/// Returns entropy that differs from call to call.
fn entropy() -> Entropy {
    thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });
    CALLS.set(CALLS.get() + 1);
    support::entropy(CALLS.get())
}

/// Issues a key of the plan `default` at noon.
fn issue<M: AsRef<[CacheLine]>>(gate: &Gate<M>) -> (Key, KeyId) {
    support::issue(gate, &new_key("default"), entropy())
}

#[test]
fn issued_key_is_charged_until_it_is_denied() {
    let gate = gate(64);
    let (key, key_id) = issue(&gate);
    for used in 1..=3 {
        let verdict = check(&gate, &key, at(0));
        assert!(!verdict.quotas().is_empty());
        assert_eq!((verdict.outcome(), verdict.remaining()), (Outcome::Admitted, Some(10 - used)));
        let holder = verdict.holder().unwrap();
        assert_eq!((holder.key_id, holder.account), (key_id, 42));
        assert_eq!(gate.env(holder.env).unwrap().as_str(), "live");
        assert_eq!(gate.plan(holder.plan).unwrap().name, "default");
    }
    let denied = check(&gate, &key, at(20));
    assert_eq!((denied.outcome(), denied.retry_after_s()), (Outcome::Denied, Some(40)));
}

#[test]
fn invalid_key_has_a_reason_and_the_same_response() {
    let gate = gate(64);
    let (key, key_id) = issue(&gate);
    let text = key.expose();
    let other = Key::mint(gate.prefix(), name("live"), key_id, &[9; 16]).unwrap();
    let unknown_id = KeyId::from_number(key_id.number() ^ 1).unwrap();
    let unknown = Key::mint(gate.prefix(), name("live"), unknown_id, &[9; 16]).unwrap();
    let mut typo = text.to_owned().into_bytes();
    let last = typo.len() - 1;
    typo[last] = if typo[last] == b'0' { b'1' } else { b'0' };
    for (presented, reason) in [
        (other.expose().as_bytes(), Some(Reason::WrongSecret)),
        (unknown.expose().as_bytes(), Some(Reason::Unknown)),
        (&typo[..], Some(Reason::Checksum)),
        (b"", Some(Reason::Malformed)),
        (b"hello", Some(Reason::Malformed)),
        (&[0xff; 300][..], Some(Reason::Malformed)),
    ] {
        let verdict = gate.check(Some(presented), 1, at(0));
        assert_eq!((verdict.outcome(), verdict.reason()), (Outcome::InvalidKey, reason));
        assert_eq!(verdict.holder(), None);
        assert_eq!(verdict.body(), r#"{"error": "Invalid API key"}"#);
    }
    assert_eq!(gate.check(None, 1, at(0)).outcome(), Outcome::MissingKey);
    assert!(gate.check(None, 1, at(0)).quotas().is_empty());
    assert_eq!(
        gate.key(key_id, at(0)).unwrap().last_used,
        None,
        "only the key's holder spends its quota"
    );
}

#[test]
fn revoked_key_is_invalid_immediately_and_still_listed() {
    let gate = gate(64);
    let (key, key_id) = issue(&gate);
    let elsewhere = attach(&gate, &[OLD]);
    assert!(check(&elsewhere, &key, at(0)).is_admitted());
    gate.administer().unwrap().revoke(key_id).unwrap();
    let verdict = check(&elsewhere, &key, at(0));
    assert_eq!((verdict.outcome(), verdict.reason()), (Outcome::InvalidKey, Some(Reason::Revoked)));
    assert_eq!(verdict.holder().map(|holder| holder.key_id), Some(key_id));
    assert_eq!(gate.key(key_id, at(0)).unwrap().state, KeyState::Revoked);
    let mut administrator = gate.administer().unwrap();
    assert_eq!(
        administrator.rotate(key_id, None, false, entropy(), at(0)).err(),
        Some(AdminError::Revoked(key_id))
    );
    assert_eq!(administrator.revoke(key_id), Ok(()));
}

#[test]
fn key_is_invalid_from_the_second_of_its_expiry() {
    let gate = gate(64);
    let new = new_key("default").with_expires(end(100));
    let (key, _) = gate.administer().unwrap().issue(&new, entropy(), at(0)).unwrap();
    assert!(check(&gate, &key, at(99)).is_admitted());
    assert_eq!(check(&gate, &key, at(100)).reason(), Some(Reason::Expired));
}

#[test]
fn both_secrets_of_a_rotated_key_spend_one_quota() {
    let gate = gate(64);
    let (old, key_id) = issue(&gate);
    assert!(check(&gate, &old, at(0)).is_admitted());
    let new = gate.administer().unwrap().rotate(key_id, end(30), false, entropy(), at(0)).unwrap();
    assert_eq!(parse_key(new.expose().as_bytes()).unwrap().key_id, key_id);
    assert_eq!(check(&gate, &new, at(1)).remaining(), Some(8));
    assert_eq!(check(&gate, &old, at(29)).remaining(), Some(7));
    assert_eq!(check(&gate, &new, at(29)).outcome(), Outcome::Denied);
    assert_eq!(check(&gate, &old, at(30)).reason(), Some(Reason::Expired));
    assert!(check(&gate, &new, at(60)).is_admitted());
    // A second rotation, without grace, ends both secrets.
    let newest = gate.administer().unwrap().rotate(key_id, None, false, entropy(), at(61)).unwrap();
    assert_eq!(check(&gate, &new, at(61)).reason(), Some(Reason::Expired));
    assert_eq!(check(&gate, &old, at(61)).reason(), Some(Reason::WrongSecret));
    assert!(check(&gate, &newest, at(61)).is_admitted());
}

#[test]
fn rotation_within_a_grace_is_refused_unless_forced() {
    let gate = gate(64);
    let (first, key_id) = issue(&gate);
    let rotate =
        |force, now| gate.administer().unwrap().rotate(key_id, end(90), force, entropy(), now);
    let second = rotate(false, at(0)).unwrap();
    let refused = rotate(false, at(89)).unwrap_err();
    assert_eq!(refused, AdminError::InGrace { key_id, until: at(90) });
    assert!(
        check(&gate, &first, at(1)).is_admitted() && check(&gate, &second, at(1)).is_admitted()
    );
    // The error or the key is that of `rotate`, and nothing is changed.
    let same = || Entropy::new([5; 24]);
    let next = |force, now| {
        let administrator = gate.administer().unwrap();
        administrator.prepare_rotation(key_id, end(90), force, &same(), now).map(|(key, _)| key)
    };
    assert_eq!(next(false, at(89)).unwrap_err(), refused);
    let third = next(true, at(1)).unwrap();
    assert!(!check(&gate, &third, at(1)).is_admitted(), "nothing was changed");
    let rotated = gate.administer().unwrap().rotate(key_id, end(90), true, same(), at(1)).unwrap();
    assert_eq!(rotated.expose(), third.expose());
    assert_eq!(check(&gate, &first, at(60)).reason(), Some(Reason::WrongSecret));
    assert!(
        check(&gate, &second, at(60)).is_admitted() && check(&gate, &third, at(60)).is_admitted()
    );
    assert!(rotate(false, at(90)).is_ok());
}

#[test]
fn previous_secret_is_valid_no_longer_than_its_key() {
    let gate = gate(64);
    let new = new_key("default").with_expires(end(50));
    let (_, key_id) = gate.administer().unwrap().issue(&new, entropy(), at(0)).unwrap();
    let until = |now| gate.key(key_id, now).unwrap().grace_until;
    assert_eq!(until(at(0)), None);
    gate.administer().unwrap().rotate(key_id, end(30), false, entropy(), at(0)).unwrap();
    assert_eq!([0, 29, 30].map(|s| until(at(s))), [end(30), end(30), None]);
    gate.administer().unwrap().rotate(key_id, end(90), false, entropy(), at(30)).unwrap();
    assert_eq!([30, 49, 50].map(|s| until(at(s))), [end(50), end(50), None]);
    assert_eq!(gate.list(at(30)).next().unwrap().grace_until, end(50));
    // An expired key has no valid secret, so another rotation takes none away.
    assert!(gate.administer().unwrap().rotate(key_id, end(90), false, entropy(), at(50)).is_ok());
    gate.administer().unwrap().revoke(key_id).unwrap();
    assert_eq!(until(at(0)), None);
}

#[test]
fn peppers_rotate_with_the_keys() {
    let gate = gate(64);
    let (old_key, key_id) = issue(&gate);
    let both = attach(&gate, &[OLD, NEW]);
    assert!(check(&both, &old_key, at(0)).is_admitted());
    let new_key =
        both.administer().unwrap().rotate(key_id, end(1000), false, entropy(), at(0)).unwrap();
    assert!(check(&both, &new_key, at(1)).is_admitted(), "the new secret is under the new pepper");
    assert!(check(&both, &old_key, at(1)).is_admitted(), "the old secret is under the old pepper");
    let only_new = attach(&gate, &[NEW]);
    assert!(check(&only_new, &new_key, at(60)).is_admitted());
    assert_eq!(check(&only_new, &old_key, at(60)).reason(), Some(Reason::PepperMissing));
    assert_eq!(check(&only_new, &old_key, at(1000)).reason(), Some(Reason::WrongSecret));
    let only_old = attach(&gate, &[OLD]);
    assert_eq!(check(&only_old, &new_key, at(61)).reason(), Some(Reason::PepperMissing));
    let error = Gate::attach(gate.memory(), peppers(&[3])).unwrap_err();
    assert_eq!(error, AttachError::WrongPepper { given: 1 });
}

#[test]
fn pepper_is_needed_by_keys_that_can_still_be_used() {
    let gate = gate(64);
    let ids = [(); 4].map(|()| issue(&gate).1);
    let both = attach(&gate, &[OLD, NEW]);
    assert_eq!(both.keys_per_pepper(at(0)), [4, 0, 0, 0]);
    let mut admin = both.administer().unwrap();
    admin.rotate(ids[0], end(10), false, entropy(), at(0)).unwrap();
    admin.rotate(ids[1], None, false, entropy(), at(0)).unwrap();
    admin.revoke(ids[2]).unwrap();
    admin.expire(ids[3], end(20)).unwrap();
    drop(admin);
    // The grace of one key, and the other key until it expires.
    assert_eq!(both.keys_per_pepper(at(9)), [2, 2, 0, 0]);
    assert_eq!(both.keys_per_pepper(at(10)), [1, 2, 0, 0]);
    assert_eq!(both.keys_per_pepper(at(20)), [0, 2, 0, 0]);
    let has =
        |gate: &Gate<&[CacheLine]>| [0, 1, 2, usize::MAX].map(|number| gate.has_pepper(number));
    assert_eq!(has(&both), [true, true, false, false]);
    assert_eq!(has(&attach(&gate, &[NEW])), [false, true, false, false]);
    // A grace under the same pepper counts once.
    let mut admin = both.administer().unwrap();
    admin.rotate(ids[1], end(30), false, entropy(), at(20)).unwrap();
    drop(admin);
    assert_eq!(both.keys_per_pepper(at(20)), [0, 2, 0, 0]);
}

#[test]
fn peppers_in_the_wrong_order_are_detected() {
    let gate = gate(64);
    let key_id = issue(&gate).1;
    let misordered = |given: &[u8]| attach(&gate, given).misordered_peppers();
    assert_eq!(misordered(&[OLD]), None);
    assert_eq!(misordered(&[OLD, NEW]), None);
    assert_eq!(misordered(&[NEW, OLD]), Some((0, None)), "the gate does not have the new one yet");
    let rotate = |given: &[u8]| {
        attach(&gate, given)
            .administer()
            .unwrap()
            .rotate(key_id, None, true, entropy(), at(0))
            .unwrap()
    };
    rotate(&[OLD, NEW]);
    assert_eq!(misordered(&[OLD, NEW]), None);
    assert_eq!(misordered(&[NEW, OLD]), Some((0, Some(1))));
    assert_eq!(misordered(&[OLD]), None, "one pepper has no order");
    rotate(&[NEW, 3]);
    assert_eq!(misordered(&[OLD, 3, NEW]), Some((1, Some(2))));
    // With all numbers in use, the fifth pepper gets the number of the first.
    rotate(&[3, 4]);
    rotate(&[4, 5]);
    assert_eq!(misordered(&[4, 5]), None);
    assert_eq!(misordered(&[5, 4]), None);
}

#[test]
fn fifth_pepper_is_rejected_until_one_is_unused() {
    let gate = gate(64);
    issue(&gate);
    let ids = [2, 3, 4].map(|number| issue(&attach(&gate, &[OLD, number])).1);
    let fifth = attach(&gate, &[OLD, 5]);
    let refused = fifth.administer().unwrap().issue(&new_key("default"), entropy(), at(0)).err();
    assert_eq!(refused, Some(AdminError::PeppersFull));
    let fourth = attach(&gate, &[2, 4]);
    // The grace of the old secret needs the old pepper until it is over; a key that was revoked
    // needs none.
    fourth.administer().unwrap().rotate(ids[0], end(10), false, entropy(), at(0)).unwrap();
    let issue_at =
        |now| fifth.administer().unwrap().issue(&new_key("default"), entropy(), now).map(|_| ());
    assert_eq!(issue_at(at(9)), Err(AdminError::PeppersFull));
    assert_eq!(issue_at(at(10)), Ok(()));
    fifth.administer().unwrap().revoke(ids[1]).unwrap();
    issue(&attach(&gate, &[OLD, 6]));
}

#[test]
fn rejected_change_leaves_the_gate_unchanged() {
    let gate = gate(64);
    let both = attach(&gate, &[OLD, NEW]);
    let long = NewKey::new(42, name("12345678"));
    let before = image(gate.memory());
    let mut administrator = both.administer().unwrap();
    assert_eq!(
        administrator.issue(&new_key("gold"), entropy(), at(0)).err(),
        Some(AdminError::NoSuchPlan)
    );
    let imported = administrator.import(b"an-imported-key-0001", &new_key("gold"), at(0));
    assert_eq!(imported, Err(AdminError::NoSuchPlan));
    let issued = administrator.issue(&long.with_plan("gold"), entropy(), at(0));
    assert_eq!(issued.err(), Some(AdminError::NoSuchPlan));
    drop(administrator);
    assert!(image(gate.memory()) == before);
}

#[test]
fn interrupted_plan_change_is_completed() {
    let gate = gate(64);
    let raised = plan("pro", "7/minute, 70/hour");
    gate.administer().unwrap().set_plan(&raised).unwrap();
    let target = &gate.memory()[3];
    assert_eq!(target.load(1), 0);
    let lowered = plan("pro", "6/minute, 60/hour");
    gate.administer().unwrap().set_plan(&lowered).unwrap();
    // The header still holds the words of the lowered plan. The test writes the raised limits into
    // them and publishes them, like an administrator that is killed before it writes the plan.
    target.store(4, 70 << 32 | 7);
    target.store(1, 2);
    assert!(gate.administer().unwrap().has_recovered());
    assert_eq!(gate.plan(1), Some(raised));
    assert!(!gate.administer().unwrap().has_recovered());
    // A redo record that names no plan is discarded.
    target.store(1, u64::MAX);
    assert!(gate.administer().unwrap().has_recovered());
    assert_eq!(gate.plans().count(), 2);
    target.store(1, gate.plan_slots() as u64 + 1);
    let records = image(&gate.memory()[RECORDS_AT..]);
    assert!(gate.administer().unwrap().has_recovered());
    assert!(image(&gate.memory()[RECORDS_AT..]) == records);
}

/// The index of the first record's line in the memory of a [`gate`], after the fixed lines and four
/// plans.
const RECORDS_AT: usize = 8;

#[test]
fn interrupted_record_change_is_completed() {
    let gate = gate(64);
    for _ in 0..64 {
        issue(&gate);
    }
    let target = &gate.memory()[3];
    for number in [0, 1, 62, 63] {
        let line = &gate.memory()[RECORDS_AT + number];
        let key_id = KeyId::from_number(line.load(0)).unwrap();
        let meta = line.load(7);
        gate.administer().unwrap().revoke(key_id).unwrap();
        // The header still holds the words that were written. An administrator that is killed
        // before it withdraws them leaves them published, and the sequence odd.
        line.store(7, meta | 1 << 18);
        target.store(0, number as u64 + 1);
        assert_eq!(
            gate.key(key_id, at(0)).unwrap().state,
            KeyState::Revoked,
            "readers take the redo record"
        );
        // A plan's redo record may be pending too.
        target.store(1, u64::from(number == 62));
        assert!(gate.administer().unwrap().has_recovered(), "{number}");
        assert!(!gate.administer().unwrap().has_recovered());
        assert_eq!(line.load(7) >> 18 & 1, 0);
        assert_eq!(gate.key(key_id, at(0)).unwrap().state, KeyState::Revoked);
    }
    // A redo record that names no record is discarded.
    let before = image(gate.memory());
    for number in [64, 1000, u32::MAX - 4] {
        target.store(0, target.load(0) | u64::from(number + 1));
        assert!(gate.administer().unwrap().has_recovered());
        assert!(image(gate.memory()) == before, "{number}");
    }
}

#[test]
fn imported_key_rotates_into_a_key_of_our_form() {
    let gate = gate(64);
    let foreign = b"sk-proj-0123456789abcdef";
    assert_eq!(gate.check(Some(foreign), 1, at(0)).reason(), Some(Reason::Malformed));
    let key_id = gate.administer().unwrap().import(foreign, &new_key("pro"), at(0)).unwrap();
    let verdict = gate.check(Some(foreign), 1, at(0));
    assert_eq!(
        (verdict.remaining(), verdict.holder().map(|holder| holder.key_id)),
        (Some(19), Some(key_id))
    );
    assert_eq!(
        gate.check(Some(b"sk-proj-0123456789abcdeg"), 1, at(0)).reason(),
        Some(Reason::Unknown)
    );
    let again = gate.administer().unwrap().import(foreign, &new_key("pro"), at(0));
    assert_eq!(again, Err(AdminError::AlreadyImported(key_id)));

    let ours = gate.administer().unwrap().rotate(key_id, end(60), false, entropy(), at(0)).unwrap();
    assert_eq!(check(&gate, &ours, at(1)).remaining(), Some(18));
    assert_eq!(gate.check(Some(foreign), 1, at(2)).remaining(), Some(17));
    assert_eq!(gate.check(Some(foreign), 1, at(60)).reason(), Some(Reason::Expired));
    let both = attach(&gate, &[OLD, NEW]);
    let again = both.administer().unwrap().import(foreign, &new_key("pro"), at(0));
    assert_eq!(again, Err(AdminError::AlreadyImported(key_id)), "whichever pepper is the newest");
}

#[test]
fn imported_key_of_our_form_keeps_its_id() {
    let (key, key_id) = issue(&gate(64));
    let gate = gate(1000);
    let other_env = NewKey::new(42, name("test"));
    let imported = gate.administer().unwrap().import(key.expose().as_bytes(), &other_env, at(0));
    assert_eq!(imported, Ok(key_id));
    assert!(check(&gate, &key, at(0)).is_admitted());
    assert_eq!(gate.key(key_id, at(0)).unwrap().env, Name::new("live"), "it keeps its environment");
}

#[test]
fn rejected_import_names_its_reason_and_changes_nothing() {
    let gate = gate(64);
    for text in ["", "fifteen-bytes..", "a key with spaces in it", "schl\u{fc}ssel-mit-umlaut"] {
        let refused =
            gate.administer().unwrap().import(text.as_bytes(), &new_key("default"), at(0));
        assert_eq!(refused, Err(AdminError::NotImportable { len: text.len() }));
    }
    assert_eq!(gate.list(at(0)).count(), 0);
}

#[test]
fn import_succeeds_up_to_three_quarters_of_a_gate() {
    let gate = gate(4000);
    let mut administrator = gate.administer().unwrap();
    for number in 0..3000 {
        let key = format!("imported-key-number-{number:06}");
        administrator
            .import(key.as_bytes(), &new_key("default"), at(0))
            .unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    drop(administrator);
    for number in 0..3000 {
        let key = format!("imported-key-number-{number:06}");
        assert!(gate.check(Some(key.as_bytes()), 1, at(0)).is_admitted(), "{number}");
    }
    verify_is_clean(&gate, at(0));
}

#[test]
fn every_record_can_be_used_and_reused() {
    let gate = gate(100);
    let ids: Vec<KeyId> = (0..100).map(|_| issue(&gate).1).collect();
    let full = gate.administer().unwrap().issue(&new_key("default"), entropy(), at(0)).err();
    assert_eq!(full, Some(AdminError::Full { keys: 100 }));
    assert_eq!(gate.free_from(at(0)), None);
    gate.administer().unwrap().revoke(ids[33]).unwrap();
    assert_eq!(gate.free_from(at(0)), Some(at(3601)), "its longest window, and a second");
    let full = gate.administer().unwrap().issue(&new_key("default"), entropy(), at(3600)).err();
    assert_eq!(
        full,
        Some(AdminError::Full { keys: 100 }),
        "the revoked key's tally still counts for a late clock"
    );
    let (key, key_id) =
        gate.administer().unwrap().issue(&new_key("default"), entropy(), at(3601)).unwrap();
    assert!(check(&gate, &key, at(3601)).is_admitted());
    assert_ne!(key_id, ids[33]);
    assert_eq!(gate.key(ids[33], at(3601)).map(|info| info.account), None);
    assert_eq!(gate.list(at(3601)).count(), 100);
    verify_is_clean(&gate, at(3601));
}

/// Asserts that `verify` finds no flaw.
fn verify_is_clean(gate: &Gate<Vec<CacheLine>>, now: Timestamp) {
    gate.verify(now, |flaw| panic!("{flaw}"));
}

#[test]
fn changed_plan_or_limits_keep_the_counts() {
    let gate = gate(64);
    let (key, key_id) = issue(&gate);
    for _ in 0..3 {
        assert!(check(&gate, &key, at(0)).is_admitted());
    }
    assert!(!check(&gate, &key, at(0)).is_admitted());
    gate.administer().unwrap().assign(key_id, "pro").unwrap();
    assert_eq!(check(&gate, &key, at(0)).remaining(), Some(16));
    let raised = plan("pro", "100/minute, 200/hour");
    gate.administer().unwrap().set_plan(&raised).unwrap();
    assert_eq!(check(&gate, &key, at(0)).remaining(), Some(195));
    let lowered = plan("pro", "1/minute, 2/hour");
    gate.administer().unwrap().set_plan(&lowered).unwrap();
    let verdict = check(&gate, &key, at(0));
    assert_eq!((verdict.outcome(), verdict.remaining()), (Outcome::Denied, Some(0)));

    let mut administrator = gate.administer().unwrap();
    for name in ["gold", "", "\0", "default\0", "default-and-longer"] {
        assert_eq!(administrator.assign(key_id, name), Err(AdminError::NoSuchPlan), "{name:?}");
    }
    let other_windows = plan("gold", "1/second");
    assert_eq!(administrator.set_plan(&other_windows), Err(AdminError::PlanWindows));
    assert!(matches!(
        administrator.set_plan(&plan("gold", "4000000/minute, 1/hour")),
        Err(AdminError::PlanLimit { limit: 4_000_000, .. })
    ));
    // The largest limit that the count can hold, and one more.
    let max = gate.layout().max_limit(1).unwrap();
    let limit = |limit| plan("pro", &format!("5/minute, {limit}/hour"));
    assert_eq!(administrator.set_plan(&limit(max)), Ok(()));
    assert_eq!(
        administrator.set_plan(&limit(max + 1)),
        Err(AdminError::PlanLimit { limit: max + 1, max })
    );
    for name in ["gold", "silver"] {
        administrator.set_plan(&plan(name, "9/minute, 9/hour")).unwrap();
    }
    let fifth = plan("bronze", "9/minute, 9/hour");
    assert_eq!(administrator.set_plan(&fifth), Err(AdminError::PlansFull { max: 4 }));
}

#[test]
fn key_id_is_enough_to_refund_settle_and_reset() {
    let gate = gate(64);
    let (key, key_id) = issue(&gate);
    let charge = gate.check(Some(key.expose().as_bytes()), 3, at(0)).charge().unwrap();
    assert_eq!(gate.refund(key_id, charge, at(0)).unwrap().remaining(), Some(10));
    let charge = gate.check(Some(key.expose().as_bytes()), 1, at(0)).charge().unwrap();
    assert_eq!(gate.settle(key_id, charge, 9, at(0)).unwrap().uncharged(), 6);
    assert_eq!(gate.reset(key_id, at(0)).unwrap().remaining(), Some(10));
    let unknown = KeyId::from_number(key_id.number() ^ 1).unwrap();
    assert_eq!(gate.refund(unknown, Charge::new(1, at(0)), at(0)), None);
}

#[test]
fn second_administrator_is_rejected_as_busy() {
    let gate = gate(64);
    let administrator = gate.administer().unwrap();
    assert_eq!(attach(&gate, &[OLD]).administer().err(), Some(AdminError::Busy));
    drop(administrator);
    assert!(gate.administer().is_ok());
}

#[test]
fn list_shows_all_fields_and_no_secret() {
    let gate = gate(64);
    let (key, key_id) = issue(&gate);
    check(&gate, &key, at(59));
    let list: Vec<_> = gate.list(at(59)).collect();
    assert_eq!(list.len(), 1);
    let info = &list[0];
    assert_eq!(
        (info.key_id, info.account, info.state, info.expires),
        (key_id, 42, KeyState::Active, None)
    );
    assert!(key.expose().ends_with(info.last_characters.as_ref().unwrap().as_str()));
    assert_eq!(info.last_used, Some(at(0)));
    assert_eq!(info.quotas.longest().unwrap().remaining, 9);
    let debug = format!("{info:?} {gate:?}");
    assert!(!debug.contains(&key.expose()[19..41]), "{debug}");
}

#[test]
fn key_state_name_and_hint_are_those_that_people_see() {
    let gate = gate(64);
    let new = support::new_key().with_expires(at(60));
    let (key, key_id) = gate.administer().unwrap().issue(&new, entropy(), at(0)).unwrap();
    let state_names = || {
        let info = gate.key(key_id, at(0)).unwrap();
        [59, 60].map(|s| info.state_name(at(s)))
    };
    assert_eq!(state_names(), ["active", "expired"]);
    let mut shown = gate.key(key_id, at(0)).unwrap();
    assert_eq!(shown.hint(gate.prefix()).to_string(), key.hint().to_string());
    (shown.env, shown.last_characters) = (None, None);
    assert_eq!(shown.hint(gate.prefix()).to_string(), "kt_…");
    gate.administer().unwrap().revoke(key_id).unwrap();
    assert_eq!(state_names(), ["revoked"; 2]);
}

#[test]
fn last_use_is_shown_while_the_previous_window_counts() {
    let plans = [plan("default", "sliding 5/minute")];
    let gate = support::gate(&config(8, &plans));
    assert_eq!(gate.capacity(), 8);
    let (key, key_id) = issue(&gate);
    assert!(check(&gate, &key, at(0)).is_admitted());
    let charge = check(&gate, &key, at(60)).charge().unwrap();
    gate.refund(key_id, charge, at(60)).unwrap();
    assert_eq!(gate.key(key_id, at(60)).unwrap().last_used, Some(at(60)));
    gate.reset(key_id, at(60)).unwrap();
    assert_eq!(gate.key(key_id, at(60)).unwrap().last_used, None);
}

/// A word holds a hint in its lower half, and a checksum in the upper one. Programs of other
/// versions depend on it.
#[test]
fn hints_are_stored_in_the_order_of_their_records() {
    let gate = gate(64);
    for _ in 0..64 {
        issue(&gate);
    }
    let hints = image(&gate.memory()[RECORDS_AT + 64..]);
    let hints = hints.iter().map(|word| u32::try_from(word & 0xFFFF_FFFF).unwrap());
    let shown = gate.list(at(0)).map(|info| {
        let last: [u8; 4] = info.last_characters.unwrap().as_bytes().try_into().unwrap();
        u32::from_le_bytes(last)
    });
    assert!(hints.eq(shown));
}

#[test]
fn plans_of_other_windows_or_algorithm_are_rejected() {
    for (one, other) in [
        ("1/minute", "1/hour"),
        ("1/minute", "sliding 1/minute"),
        ("1/minute", "1/minute, 5/hour"),
        ("1/minute, 5/hour", "1/minute, 5/day"),
    ] {
        for policies in [[one, other], [other, one]] {
            let plans = [plan("a", policies[0]), plan("b", policies[1])];
            let config = config(8, &plans);
            let made = Gate::init(memory(config.lines()), &config, peppers(&[OLD]));
            assert_eq!(made.err(), Some(CreateError::PlanWindows { index: 1 }), "{policies:?}");
        }
    }
}

#[test]
fn seventeenth_environment_is_rejected() {
    let gate = gate(64);
    let mut administrator = gate.administer().unwrap();
    let mut issue = |env: &str| {
        let new = NewKey::new(42, name(env));
        administrator.issue(&new, entropy(), at(0)).map(|(key, _)| key)
    };
    for number in 0..16 {
        assert!(
            issue(&format!("env{number}"))
                .unwrap()
                .expose()
                .starts_with(&format!("kt_env{number}_"))
        );
    }
    assert_eq!(issue("another").err(), Some(AdminError::EnvsFull));
    assert!(issue("env3").is_ok());
}

/// Returns the line of a key's record.
fn record_of(gate: &Gate<Vec<CacheLine>>, key_id: KeyId) -> &CacheLine {
    let mut records = gate.memory()[RECORDS_AT..].iter();
    records.find(|line| line.load(0) == key_id.number()).unwrap()
}

#[test]
fn damaged_record_is_reported_and_admits_no_other_key() {
    let gate = gate(64);
    let (key, key_id) = issue(&gate);
    let line = record_of(&gate, key_id);
    let meta = line.load(7);
    let flaws = || {
        let (mut kinds, mut administrators) = (vec![], vec![]);
        gate.verify(at(0), |flaw| kinds.push(flaw.kind));
        gate.administer().unwrap().verify(at(0), |flaw| administrators.push(flaw.kind));
        assert_eq!(kinds, administrators);
        kinds
    };
    assert_eq!(flaws(), []);
    // Half-written, without a redo record.
    line.store(7, meta | 1 << 18);
    assert_eq!(flaws(), [FlawKind::HalfWritten]);
    assert_eq!(check(&gate, &key, at(0)).reason(), Some(Reason::Damaged));
    // A plan that does not exist admits nothing.
    line.store(7, meta | 0xff << 8);
    assert_eq!(flaws(), [FlawKind::Checksum, FlawKind::NoPlan { plan: 255 }]);
    assert_eq!(check(&gate, &key, at(0)).outcome(), Outcome::TooCostly);
    line.store(7, meta | 0xf);
    assert_eq!(flaws(), [FlawKind::Checksum, FlawKind::NoEnv { env: 15 }]);
    line.store(7, meta | 3 << 4);
    assert_eq!(flaws(), [FlawKind::Checksum, FlawKind::NoPepper { pepper: 3 }]);
    assert_eq!(check(&gate, &key, at(0)).reason(), Some(Reason::PepperMissing));
    line.store(7, meta);
    line.store(1, u64::MAX);
    assert_eq!(flaws(), [FlawKind::NoTally]);
    line.store(1, 0);
    line.store(0, key_id.number() ^ 1 << 63);
    assert_eq!(flaws(), [FlawKind::Checksum, FlawKind::Misplaced]);
    assert_eq!(check(&gate, &key, at(0)).reason(), Some(Reason::Unknown));
    line.store(0, key_id.number());
    assert!(check(&gate, &key, at(0)).is_admitted());
    // The previous secret is not valid for another key id either.
    let new = gate.administer().unwrap().rotate(key_id, end(100), false, entropy(), at(0)).unwrap();
    line.store(0, key_id.number() ^ 1 << 63);
    assert_eq!(
        [&key, &new].map(|key| check(&gate, key, at(0)).reason()),
        [Some(Reason::Unknown); 2]
    );
}

#[test]
fn imported_key_with_one_tag_bit_changed_is_unknown() {
    let gate = gate(64);
    let foreign = b"sk-proj-0123456789abcdef";
    let key_id = gate.administer().unwrap().import(foreign, &new_key("pro"), at(0)).unwrap();
    let line = record_of(&gate, key_id);
    for word in [2, 3] {
        let tag = line.load(word);
        line.store(word, tag ^ 1);
        assert_eq!(gate.check(Some(foreign), 1, at(0)).reason(), Some(Reason::Unknown));
        line.store(word, tag);
    }
    assert!(gate.check(Some(foreign), 1, at(0)).is_admitted());
}

#[test]
fn foreign_key_may_have_our_form_and_another_checksum() {
    let gate = gate(64);
    let (ours, _) = issue(&gate);
    let mut typo = ours.expose().to_owned().into_bytes();
    let last = typo.len() - 1;
    typo[last] = if typo[last] == b'0' { b'1' } else { b'0' };
    // A key of Keytally's form with a wrong checksum has the reason `Checksum`, also in a gate with
    // imported keys.
    gate.administer().unwrap().import(b"sk-proj-0123456789abcdef", &new_key("pro"), at(0)).unwrap();
    assert_eq!(gate.check(Some(&typo), 1, at(0)).reason(), Some(Reason::Checksum));
    gate.administer().unwrap().import(&typo, &new_key("pro"), at(0)).unwrap();
    assert_eq!(gate.check(Some(&typo), 1, at(0)).remaining(), Some(19));
}

#[test]
fn imported_keys_in_one_record_have_different_ids() {
    let gate = gate(1);
    let import =
        |text: &[u8], now| gate.administer().unwrap().import(text, &new_key("pro"), now).unwrap();
    let first = import(b"an-imported-key-0001", at(0));
    gate.administer().unwrap().revoke(first).unwrap();
    let second = import(b"an-imported-key-0002", at(7200));
    assert_ne!(first, second);
    assert!(gate.key(first, at(7200)).is_none());
}

#[test]
fn rotation_to_the_same_secret_keeps_the_key_valid() {
    let gate = gate(64);
    let same = || Entropy::new([5; 24]);
    let (key, key_id) = gate.administer().unwrap().issue(&new_key("pro"), same(), at(0)).unwrap();
    let again = gate.administer().unwrap().rotate(key_id, end(60), false, same(), at(0)).unwrap();
    assert_eq!(key.expose(), again.expose());
    assert!(check(&gate, &key, at(0)).is_admitted() && check(&gate, &key, at(60)).is_admitted());
}

#[test]
fn gate_without_hints_lists_no_last_characters() {
    let gate = support::gate(&config(64, &[plan("default", "3/minute, 10/hour")]));
    let (key, key_id) = issue(&gate);
    assert!(check(&gate, &key, at(0)).is_admitted());
    assert_eq!(gate.key(key_id, at(0)).unwrap().last_characters, None);
    assert_eq!(gate.memory().len(), RECORDS_AT + 64);
}
