//! Tests of what a program does that keeps a list of keys: it prepares a change, and puts it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::{
    AdminError, CacheLine, FlawKind, Gate, Key, KeyId, KeyRecord, KeyState, NewKey, Outcome,
    Reason, StoredSecret, Text,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{at, check, config, end, entropy, image, memory, name, new_key, peppers, plan};

/// Room for keys in each gate.
const KEYS: u32 = 64;

/// A key of another form than Keytally's.
const FOREIGN: &[u8] = b"sk-0123456789abcdefghijklmnop";

type TestGate = Gate<Vec<CacheLine>>;

/// Returns a gate with two plans, teams, scopes and hints, under the pepper 1.
fn gate() -> TestGate {
    gate_under(&[1])
}

fn gate_under(numbers: &[u8]) -> TestGate {
    let plans =
        [plan("default", "3/minute; team: 9/minute"), plan("pro", "5/minute; team: 9/minute")];
    let config =
        config(KEYS, &plans).with_hints(true).with_teams(4).with_scopes(&["read", "write"]);
    Gate::init(memory(config.lines()), &config, peppers(numbers)).unwrap()
}

/// Prepares a key with all properties, and puts it.
fn issue(gate: &TestGate) -> (Key, KeyRecord) {
    let mut administrator = gate.administer().unwrap();
    let new = new_key().with_plan("pro").with_scopes(&["write"]).with_expires(end(500));
    let (key, record) = administrator.prepare_issue(&new, &entropy(1), at(0)).unwrap();
    assert!(administrator.put(&record, at(0)).unwrap());
    (key, record)
}

/// Puts a record into a gate.
fn put(gate: &TestGate, record: &KeyRecord) -> Result<bool, AdminError> {
    gate.administer().unwrap().put(record, at(1))
}

#[test]
fn preparing_writes_nothing() {
    let gate = gate();
    let (key, record) = issue(&gate);
    // While an administrator is registered, one word differs.
    let administrator = gate.administer().unwrap();
    let before = image(gate.memory());
    administrator.prepare_issue(&NewKey::new(43, name("test")), &entropy(2), at(0)).unwrap();
    administrator.prepare_import(FOREIGN, &NewKey::new(43, name("test")), at(0)).unwrap();
    let (rotated, _) =
        administrator.prepare_rotation(record.key_id, end(90), false, &entropy(3), at(0)).unwrap();
    assert_eq!(image(gate.memory()), before);
    assert!(check(&gate, &key, at(0)).is_admitted());
    assert_eq!(check(&gate, &rotated, at(0)).reason(), Some(Reason::WrongSecret));
}

#[test]
fn another_gate_holds_a_key_by_its_record() {
    let (first, second) = (gate(), gate());
    let (key, record) = issue(&first);
    assert_eq!((record.plan.as_str(), record.scopes, record.expires), ("pro", 2, end(500)));
    assert_eq!(record.last_characters.as_deref(), key.expose().get(key.expose().len() - 4..));
    assert_eq!(check(&second, &key, at(1)).reason(), Some(Reason::Unknown));

    assert_eq!(put(&second, &record), Ok(true));
    assert_eq!(put(&second, &record), Ok(false), "nothing is left to change");
    assert_eq!(check(&second, &key, at(1)).remaining(), Some(4));
    let of_second = second.administer().unwrap().read(record.key_id);
    assert_eq!(of_second, Some(record.clone()));
    let part = |gate: &TestGate, scope| {
        let part = gate.part(Some(key.expose().as_bytes()), 1).with_scope(scope).unwrap();
        part.peek(at(1)).outcome()
    };
    assert_eq!(
        (part(&second, "write"), part(&second, "read")),
        (Outcome::Admitted, Outcome::Forbidden)
    );
    assert_eq!(second.account(42, at(1)).unwrap().quotas()[0].iter().next().unwrap().remaining, 8);
    assert_eq!(check(&second, &key, at(500)).reason(), Some(Reason::Expired));

    // Its counts stay when a rotation follows, and both secrets are right during the grace.
    let mut administrator = first.administer().unwrap();
    let (next, rotated) =
        administrator.prepare_rotation(record.key_id, end(90), false, &entropy(4), at(1)).unwrap();
    administrator.put(&rotated, at(1)).unwrap();
    drop(administrator);
    assert_eq!(put(&second, &rotated), Ok(true));
    assert_eq!(check(&second, &key, at(1)).remaining(), Some(3));
    assert_eq!(check(&second, &next, at(1)).remaining(), Some(2));
    assert_eq!(check(&second, &key, at(90)).reason(), Some(Reason::Expired));
    assert_eq!(second.administer().unwrap().records().collect::<Vec<_>>(), [rotated]);
    let mut flaws = Vec::new();
    second.administer().unwrap().verify(at(1), |flaw| flaws.push(flaw));
    assert!(flaws.is_empty(), "{flaws:?}");
}

#[test]
fn another_gate_finds_an_imported_key() {
    let (first, second) = (gate(), gate());
    let record = first.administer().unwrap().prepare_import(FOREIGN, &new_key(), at(0)).unwrap();
    assert!(record.is_imported);
    assert_eq!(second.check(Some(FOREIGN), 1, at(1)).reason(), Some(Reason::Malformed));
    assert_eq!(put(&second, &record), Ok(true));
    assert!(second.check(Some(FOREIGN), 1, at(1)).is_admitted());
    assert_eq!(put(&second, &record), Ok(false));
}

#[test]
fn revoked_key_stays_revoked() {
    let gate = gate();
    let (key, record) = issue(&gate);
    gate.administer().unwrap().revoke(record.key_id).unwrap();
    assert_eq!(put(&gate, &record), Err(AdminError::Revoked(record.key_id)));
    assert_eq!(check(&gate, &key, at(1)).reason(), Some(Reason::Revoked));
    // The other way round, a record that is revoked revokes the key, and adds none.
    let other = self::gate();
    let revoked = KeyRecord { state: KeyState::Revoked, ..record.clone() };
    assert_eq!(put(&other, &revoked), Ok(false));
    assert_eq!(other.key(record.key_id, at(1)).map(|info| info.key_id), None);
    assert_eq!(put(&other, &record), Ok(true));
    assert_eq!(put(&other, &revoked), Ok(true));
    assert_eq!(check(&other, &key, at(1)).reason(), Some(Reason::Revoked));
}

#[test]
fn record_of_another_key_is_not_taken() {
    let gate = gate();
    let (_, record) = issue(&gate);
    let other =
        KeyRecord { key_id: KeyId::from_number(record.key_id.number() ^ 1).unwrap(), ..record };
    assert_eq!(put(&gate, &other), Err(AdminError::NoRoomToImport));
    // Once that key has ended and its windows have passed, the record is free.
    gate.administer().unwrap().revoke(record.key_id).unwrap();
    assert_eq!(gate.administer().unwrap().put(&other, at(200)), Ok(true));
    assert!(gate.key(record.key_id, at(200)).is_none());
}

#[test]
fn what_a_gate_does_not_have_is_refused_before_anything_is_written() {
    let gate = gate();
    let (_, record) = issue(&self::gate());
    let of_pepper = |pepper| StoredSecret { pepper, ..record.secret };
    let before = image(gate.memory());
    for (refused, error) in [
        (KeyRecord { plan: plan("max", "1/s").name, ..record.clone() }, AdminError::NoSuchPlan),
        (KeyRecord { plan: Text::new(), ..record.clone() }, AdminError::NoSuchPlan),
        (KeyRecord { scopes: 4, ..record.clone() }, AdminError::NoSuchScope),
        (KeyRecord { secret: of_pepper(1), ..record.clone() }, AdminError::NoSuchPepper),
        (KeyRecord { secret: of_pepper(0), ..record.clone() }, AdminError::NoSuchPepper),
        (KeyRecord { previous: Some(of_pepper(1)), ..record.clone() }, AdminError::NoSuchPepper),
    ] {
        assert_eq!(put(&gate, &refused), Err(error), "{refused:?}");
        assert_eq!(image(gate.memory()), before);
    }
    assert!(!format!("{record:?}").contains(&record.secret.pepper.to_string()));
}

#[test]
fn secrets_under_two_peppers_are_right_in_a_new_gate() {
    let (first, second) = (gate_under(&[1]), gate_under(&[1, 2]));
    let (key, record) = issue(&first);
    let first = Gate::attach(&first.memory()[..], peppers(&[1, 2])).unwrap();
    let administrator = first.administer().unwrap();
    let (next, rotated) =
        administrator.prepare_rotation(record.key_id, end(90), false, &entropy(4), at(1)).unwrap();
    assert_ne!(rotated.previous.unwrap().pepper, rotated.secret.pepper);
    assert_eq!(put(&second, &rotated), Ok(true));
    assert!(
        check(&second, &key, at(1)).is_admitted() && check(&second, &next, at(1)).is_admitted()
    );
    assert_eq!(second.administer().unwrap().read(record.key_id), Some(rotated));
}

#[test]
fn damaged_record_is_written_again() {
    let gate = gate();
    let (key, record) = issue(&gate);
    let line = gate.memory().iter().rfind(|line| line.load(0) == record.key_id.number()).unwrap();
    // An odd sequence without a redo record.
    line.store(7, line.load(7) | 1 << 18);
    assert_eq!(check(&gate, &key, at(1)).reason(), Some(Reason::Damaged));
    assert_eq!(put(&gate, &record), Ok(true));
    assert!(check(&gate, &key, at(1)).is_admitted());
    gate.administer().unwrap().verify(at(1), |flaw| {
        assert_ne!(flaw.kind, FlawKind::Checksum, "{flaw:?}");
    });
}

#[test]
fn expiry_is_set_moved_and_removed() {
    let gate = gate();
    let (key, record) = issue(&gate);
    let expire = |not_after| gate.administer().unwrap().expire(record.key_id, not_after);
    expire(end(20)).unwrap();
    assert!(check(&gate, &key, at(19)).is_admitted());
    assert_eq!(check(&gate, &key, at(20)).reason(), Some(Reason::Expired));
    expire(end(30)).unwrap();
    assert!(check(&gate, &key, at(20)).is_admitted());
    expire(None).unwrap();
    assert!(check(&gate, &key, at(100_000)).is_admitted());
    gate.administer().unwrap().revoke(record.key_id).unwrap();
    assert_eq!(expire(None), Err(AdminError::Revoked(record.key_id)));
}

#[test]
fn grace_ends_at_once() {
    let gate = gate();
    let (old, record) = issue(&gate);
    let mut administrator = gate.administer().unwrap();
    let new = administrator.rotate(record.key_id, end(90), false, entropy(5), at(1)).unwrap();
    assert!(check(&gate, &old, at(1)).is_admitted());
    administrator.end_grace(record.key_id).unwrap();
    assert_eq!(check(&gate, &old, at(1)).reason(), Some(Reason::Expired));
    assert!(check(&gate, &new, at(1)).is_admitted());
    assert_eq!(gate.key(record.key_id, at(1)).unwrap().grace_until, None);
    // Another rotation needs no force now.
    administrator.rotate(record.key_id, None, false, entropy(6), at(2)).unwrap();
    let other = KeyId::from_number(2).unwrap();
    assert_eq!(administrator.end_grace(other), Err(AdminError::NoSuchKey(other)));
}

#[test]
fn each_change_of_a_key_changes_two_words() {
    let gate = gate();
    let (_, record) = issue(&gate);
    let read = || {
        let words = gate.record_words().find(|(key_id, _)| *key_id == Some(record.key_id));
        (gate.change_word(), words.unwrap().1, gate.record_writes(record.key_id))
    };
    let mut before = read();
    gate.check(None, 1, at(1));
    assert_eq!(read(), before, "a check changes no key");
    let mut administrator = gate.administer().unwrap();
    let id = record.key_id;
    for change in 0..6 {
        match change {
            0 => drop(administrator.rotate(id, end(90), false, entropy(5), at(1)).unwrap()),
            1 => administrator.expire(id, end(400)).unwrap(),
            2 => administrator.assign(id, "default").unwrap(),
            3 => administrator.set_scopes(id, &["read"]).unwrap(),
            4 => {
                let before = administrator.read(id);
                administrator.write_again(id).unwrap();
                assert_eq!(administrator.read(id), before);
            }
            _ => administrator.revoke(id).unwrap(),
        }
        let after = read();
        assert_ne!(after.0, before.0, "change {change}");
        assert_ne!(after.1, before.1, "change {change}");
        assert_eq!(after.2, before.2 + 1, "change {change}");
        before = after;
    }
    let other = KeyId::from_number(2).unwrap();
    assert_eq!(administrator.write_again(other), Err(AdminError::NoSuchKey(other)));
    let held = gate.record_words().filter(|(key_id, _)| key_id.is_some()).count();
    assert_eq!((held, gate.record_words().count()), (1, usize::try_from(KEYS).unwrap()));
}
