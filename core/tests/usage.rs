//! Tests of the counts of uses.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::num::NonZeroU16;

use keytally_core::{
    AttachError, CacheLine, CreateError, Extras, Gate, Key, KeyId, KeyUsage, TableKind, Timestamp,
    UsageCounts, check_all,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{at, config, end, entropy, issue, limiter, memory, new_key, plan};

type TestGate = Gate<Vec<CacheLine>>;

const GENERATION: NonZeroU16 = NonZeroU16::new(7).unwrap();

fn gate(sections: &str) -> TestGate {
    let plans = [plan("default", sections)];
    let teams = if sections.contains("team") { 4 } else { 0 };
    support::gate(&config(16, &plans).with_teams(teams))
}

fn lines(gate: &TestGate) -> Vec<CacheLine> {
    memory(UsageCounts::<Vec<CacheLine>>::lines(gate.capacity()))
}

/// Begins to count.
fn begin(gate: &TestGate) -> UsageCounts<Vec<CacheLine>> {
    let counts = gate.init_usage(lines(gate), GENERATION).unwrap();
    gate.administer().unwrap().begin_usage(&counts);
    counts
}

fn bytes(key: &Key) -> Option<&[u8]> {
    Some(key.expose().as_bytes())
}

#[test]
fn each_outcome_of_a_plain_gate_is_counted() {
    let gate = gate("5/minute");
    let (key, key_id) = issue(&gate, &new_key(), entropy(1));
    let counted = begin(&gate);
    let usage = counted.view();
    let check = |key: &Key, cost, now| {
        gate.counted(Some(usage)).check(bytes(key), cost, now);
        gate.usage_of(usage, key_id).unwrap()
    };
    assert_eq!(gate.usage_of(usage, key_id), Some(KeyUsage::default()));

    let counts = check(&key, 3, at(1));
    assert_eq!((counts.admitted(), counts.units(), counts.last_used()), (1, 3, end(1)));
    let counts = check(&key, 0, at(2));
    assert_eq!((counts.admitted(), counts.units(), counts.last_used()), (2, 3, end(2)));
    let counts = check(&key, 3, at(3));
    assert_eq!((counts.admitted(), counts.denied_by_key(), counts.last_used()), (2, 1, end(2)));
    assert_eq!(check(&key, 6, at(3)).denied_by_key(), 2, "more than the limit");

    let before = check(&key, 1, at(4));
    let wrong = Key::mint(gate.prefix(), new_key().env, key_id, &[9; 16]).unwrap();
    assert_eq!(check(&wrong, 1, at(4)), before, "a wrong secret counts nothing");
    gate.counted(Some(usage)).check(None, 1, at(4));
    assert_eq!(gate.usage_of(usage, key_id), Some(before));

    let end_of_grace = end(90);
    let rotate = |number| {
        let mut administrator = gate.administer().unwrap();
        administrator.rotate(key_id, end_of_grace, true, entropy(number), at(60)).unwrap()
    };
    let new = rotate(2);
    assert_eq!(check(&key, 1, at(61)).since(&before).with_previous_secret(), 1);
    let counts = check(&new, 1, at(61)).since(&before);
    assert_eq!((counts.admitted(), counts.with_previous_secret()), (2, 1));
    assert_eq!(check(&key, 1, at(90)).expired(), 1, "the old secret");
    assert_eq!(check(&new, 1, at(121)).with_previous_secret(), 1, "no grace");

    gate.administer().unwrap().revoke(key_id).unwrap();
    let counts = check(&new, 1, at(122));
    assert_eq!((counts.revoked(), counts.expired(), counts.last_used()), (1, 1, end(121)));
}

#[test]
fn denials_of_a_gate_with_sections_are_counted_by_section() {
    let gate = gate("5/minute; team: 6/minute; group write: 2/minute");
    let gate = {
        let plans = [gate.plan(0).unwrap()];
        support::gate(&config(16, &plans).with_teams(4).with_scopes(&["read"]))
    };
    let (key, key_id) = issue(&gate, &new_key(), entropy(1));
    let (other, _) = issue(&gate, &new_key(), entropy(2));
    let counted = begin(&gate);
    let usage = counted.view();
    let part = |key, cost| {
        gate.part(bytes(key), cost)
            .with_extras(Some(Extras { usage: Some(usage), reservation: None }))
    };
    let counts = || gate.usage_of(usage, key_id).unwrap();

    part(&key, 2).with_group("write").unwrap().check(at(1));
    assert_eq!((counts().admitted(), counts().units()), (1, 2));
    part(&key, 1).with_group("write").unwrap().check(at(1));
    assert_eq!((counts().denied_by_group(), counts().admitted()), (1, 1));
    part(&other, 3).check(at(1));
    part(&key, 2).check(at(1));
    assert_eq!((counts().denied_by_team(), counts().denied_by_key()), (1, 0));
    part(&key, 4).check(at(1));
    assert_eq!(counts().denied_by_key() + counts().denied_by_team(), 2, "each request once");
    part(&key, 1).with_scope("read").unwrap().check(at(1));
    assert_eq!(counts().forbidden(), 1);
    gate.administer().unwrap().set_suspended(42, true).unwrap();
    part(&key, 1).check(at(1));
    assert_eq!(counts().suspended(), 1);
    gate.administer().unwrap().set_suspended(42, false).unwrap();

    // The check without parts counts as well.
    let before = counts();
    gate.counted(Some(usage)).check(bytes(&key), 1, at(61));
    assert_eq!(counts().since(&before).admitted(), 1);
    // A peek does not.
    part(&key, 1).peek(at(61));
    assert_eq!(counts().since(&before).admitted(), 1);
    let gate = gate.counted(Some(usage));
    let charge = gate.part(bytes(&key), 1).check(at(61)).charge(0).unwrap();
    assert_eq!(counts().since(&before).units(), 2);
    gate.refund(key_id, charge, at(61)).unwrap();
    assert_eq!(counts().since(&before).units(), 1);
}

#[test]
fn request_that_another_part_refuses_is_not_counted() {
    let gate = gate("5/minute");
    let (key, key_id) = issue(&gate, &new_key(), entropy(1));
    let counted = begin(&gate);
    let usage = counted.view();
    let addresses = limiter("1/minute", 8);
    let check = |now: Timestamp| {
        let key = gate
            .part(bytes(&key), 1)
            .with_extras(Some(Extras { usage: Some(usage), reservation: None }));
        check_all(&[&addresses.part(b"192.0.2.1", 1), &key], now).unwrap()
    };
    assert!(check(at(1)).is_admitted() && !check(at(1)).is_admitted());
    let counts = gate.usage_of(usage, key_id).unwrap();
    assert_eq!((counts.admitted(), counts.denied_by_key()), (1, 0));
}

#[test]
fn record_that_passes_to_another_key_begins_at_0() {
    let plans = [plan("default", "5/minute")];
    let gate = support::gate(&config(1, &plans));
    let (old, old_id) = issue(&gate, &new_key(), entropy(1));
    let counted = begin(&gate);
    let usage = counted.view();
    gate.counted(Some(usage)).check(bytes(&old), 1, at(1));
    let mut administrator = gate.administer().unwrap();
    administrator.revoke(old_id).unwrap();
    administrator.set_usage(Some(usage));
    let (key, key_id) = administrator.issue(&new_key(), entropy(2), at(200)).unwrap();
    gate.counted(Some(usage)).check(bytes(&old), 1, at(200));
    assert_eq!(gate.usage_of(usage, key_id), Some(KeyUsage::default()));
    gate.counted(Some(usage)).check(bytes(&key), 1, at(200));
    assert_eq!(gate.usage_of(usage, key_id).unwrap().admitted(), 1);
    assert_eq!(gate.usage_of(usage, old_id), None);
}

#[test]
fn uses_of_all_keys_are_those_of_each_key() {
    let gate = gate("5/minute");
    let keys: Vec<_> = (1..=5).map(|seed| issue(&gate, &new_key(), entropy(seed))).collect();
    let counted = begin(&gate);
    let usage = counted.view();
    for (index, (key, _)) in keys.iter().enumerate() {
        for _ in 0..index {
            gate.counted(Some(usage)).check(bytes(key), 1, at(1));
        }
    }
    gate.administer().unwrap().revoke(keys[1].1).unwrap();
    // This one has no line yet.
    let (_, uncounted) = issue(&gate, &new_key(), entropy(6));
    let mut expected: Vec<_> =
        keys.iter().map(|(_, id)| (*id, gate.usage_of(usage, *id).unwrap())).collect();
    expected.sort_by_key(|(key_id, _)| *key_id);
    assert_eq!(gate.usages(usage).collect::<Vec<_>>(), expected);
    assert_eq!(gate.usage_of(usage, uncounted), None);
}

#[test]
fn counts_are_those_of_one_gate_and_generation() {
    let gate = gate("5/minute");
    let (key, key_id) = issue(&gate, &new_key(), entropy(1));
    assert_eq!(gate.usage_generation(), 0);
    let counted = begin(&gate);
    assert_eq!(gate.usage_generation(), GENERATION.get());
    gate.counted(Some(counted.view())).check(bytes(&key), 1, at(1));
    let memory = counted.memory();
    let read = |memory| {
        let counts: UsageCounts<&[CacheLine]> = gate.attach_usage(memory)?;
        Ok((counts.generation(), gate.usage_of(counts.view(), key_id).unwrap().admitted()))
    };
    assert_eq!(read(&memory[..]), Ok((GENERATION, 1)));
    assert!(matches!(read(&memory[1..]), Err(AttachError::NotATable | AttachError::Unfinished)));
    let len = 64 * memory.len() as u64;
    assert_eq!(read(&memory[..8]), Err(AttachError::Truncated { len: 8 * 64, needed: len }));
    assert_eq!(
        gate.init_usage(&memory[1..], GENERATION).err(),
        Some(CreateError::Size { lines: memory.len() - 1, needed: memory.len() })
    );
    for (word, wrong, what) in [
        (3, 15, "capacity of this gate"),
        (4, 1, "number of this gate"),
        (5, 0, "generation"),
        (5, 1 << 16, "generation"),
    ] {
        let right = memory[0].load(word);
        memory[0].store(word, wrong);
        assert_eq!(read(&memory[..]), Err(AttachError::Geometry { what, value: wrong }));
        memory[0].store(word, right);
    }
    let is_gate = Gate::attach(&memory[..], support::peppers(&[1])).err();
    let (found, expected) = (TableKind::Usage, TableKind::Gate);
    assert_eq!(is_gate, Some(AttachError::Kind { found, expected }));

    // The number of the last change of a list of keys is in the same word.
    gate.administer().unwrap().set_applied_sequence((1 << 48) - 1);
    assert_eq!((gate.usage_generation(), gate.applied_sequence()), (7, (1 << 48) - 1));
    let mut administrator = gate.administer().unwrap();
    administrator.end_usage();
    assert_eq!((gate.usage_generation(), gate.applied_sequence()), (0, (1 << 48) - 1));
    // What was counted remains.
    administrator.begin_usage(&counted);
    assert_eq!(read(&memory[..]), Ok((GENERATION, 1)));
}

#[test]
fn counts_of_one_word_do_not_disturb_each_other() {
    let gate = gate("5/minute");
    let (key, key_id) = issue(&gate, &new_key(), entropy(1));
    let counted = begin(&gate);
    let usage = counted.view();
    let line =
        counted.memory().iter().skip(1).find(|line| line.load(0) == key_id.number()).unwrap();
    // One request before the first count of the word is full.
    line.store(1, u32::MAX.into());
    let before = gate.usage_of(usage, key_id).unwrap();
    for _ in 0..3 {
        gate.counted(Some(usage)).check(bytes(&key), 1, at(1));
    }
    let counts = gate.usage_of(usage, key_id).unwrap().since(&before);
    assert_eq!((counts.admitted(), counts.with_previous_secret()), (3, 0));
    assert_eq!(KeyId::from_number(line.load(0)), Some(key_id));
}
