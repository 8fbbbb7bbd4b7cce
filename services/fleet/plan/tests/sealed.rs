//! Sealed records, and how what machines know of a key is merged.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use hkdf::Hkdf;
use keytally_core::{
    KeyId, KeyRecord, KeyState, Name, Pepper, Peppers, StoredSecret, Text, Timestamp,
};
use keytally_fleet_plan::fleet_key::{Carried, Exchanged, FIRST_VERSION, FleetKey, Present};
use keytally_fleet_plan::seal::{MAX_SEALED_LEN, MAX_SEALED_TEXT_LEN, Seal};
use proptest::prelude::*;
use sha2::Sha256;

const PEPPERS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

fn peppers(numbers: &[usize]) -> Peppers {
    let all: Vec<_> = numbers.iter().map(|&number| PEPPERS[number]).collect();
    Peppers::new(&all).unwrap()
}

fn key_id() -> KeyId {
    KeyId::from_number(7 << 40).unwrap()
}

fn field() -> String {
    key_id().to_string()
}

fn record() -> KeyRecord {
    KeyRecord {
        key_id: key_id(),
        account: 42,
        env: Name::new("live").unwrap(),
        plan: Text::from_text("default").unwrap(),
        state: KeyState::Active,
        expires: None,
        grace_until: Some(Timestamp::from_unix_s(1_700_000_000)),
        scopes: 5,
        last_characters: Text::from_text("9aZk"),
        secret: StoredSecret { tag: [1; 16], pepper: 11 },
        previous: Some(StoredSecret { tag: [2; 16], pepper: 12 }),
        is_imported: false,
    }
}

fn active(version: u64, record: KeyRecord) -> FleetKey {
    FleetKey::Active { version, record }
}

/// A record in which few values occur, so that some of them are equal.
fn any_record() -> impl Strategy<Value = KeyRecord> {
    let moment = || prop::option::of((1_u64..4).prop_map(Timestamp::from_unix_s));
    let secret =
        || (0_u8..3, 0_u64..2).prop_map(|(tag, pepper)| StoredSecret { tag: [tag; 16], pepper });
    let names = ["live", "test"].map(|name| Name::new(name).unwrap());
    let plans = ["default", "pro", ""].map(|name| Text::from_text(name).unwrap());
    let hints = [None, Text::from_text("9aZk")];
    (
        (0_u32..3, prop::sample::select(names.to_vec()), prop::sample::select(plans.to_vec())),
        (moment(), moment(), 0_u64..4, prop::sample::select(hints.to_vec())),
        (secret(), prop::option::of(secret()), any::<bool>()),
    )
        .prop_map(|((account, env, plan), (expires, grace_until, scopes, hint), secrets)| {
            let (secret, previous, is_imported) = secrets;
            KeyRecord {
                account,
                env,
                plan,
                expires,
                grace_until,
                scopes,
                last_characters: hint,
                secret,
                previous,
                is_imported,
                ..record()
            }
        })
}

fn any_key() -> impl Strategy<Value = FleetKey> {
    prop_oneof![
        1 => (1_u32..4).prop_map(|at_s| FleetKey::Revoked { at_s }),
        4 => (0_u64..3, any_record()).prop_map(|(version, record)| active(version, record)),
    ]
}

proptest! {
    #[test]
    fn sealed_record_opens_to_what_was_sealed(key in any_key(), count in 1..=3_usize) {
        let numbers: Vec<_> = (0..count).collect();
        let seal = Seal::new("prod", &peppers(&numbers));
        let sealed = seal.seal(&field(), &key).unwrap();
        prop_assert!(sealed.len() <= MAX_SEALED_LEN);
        prop_assert_eq!(seal.open(&field(), &sealed), Some(key));
    }

    #[test]
    fn arbitrary_bytes_are_not_accepted(bytes in prop::collection::vec(0..3_u8, 0..200)) {
        prop_assert_eq!(Seal::new("prod", &peppers(&[0])).open(&field(), &bytes), None);
    }

    #[test]
    fn merge_is_commutative_associative_and_idempotent(
        one in any_key(), two in any_key(), three in any_key(),
    ) {
        let both = one.clone().merge(two.clone());
        prop_assert_eq!(&two.clone().merge(one.clone()), &both);
        prop_assert_eq!(one.clone().merge(one.clone()), one.clone());
        prop_assert_eq!(both.clone().merge(one.clone()), both.clone());
        prop_assert_eq!(both.merge(three.clone()), one.merge(two.merge(three)));
    }

    #[test]
    fn merged_key_is_as_strict_as_both(one in any_key(), two in any_key()) {
        let is_revoked = |key: &FleetKey| matches!(key, FleetKey::Revoked { .. });
        let merged = one.clone().merge(two.clone());
        prop_assert_eq!(is_revoked(&merged), is_revoked(&one) || is_revoked(&two));
        prop_assert_eq!(merged.version(), one.version().max(two.version()));
        if let (
            FleetKey::Active { version: a, record: first },
            FleetKey::Active { version: b, record: second },
            FleetKey::Active { record, .. },
        ) = (&one, &two, &merged) && a == b {
            let ends = [first.expires, second.expires];
            prop_assert_eq!(record.expires, ends.into_iter().flatten().min());
            prop_assert_eq!(record.scopes, first.scopes & second.scopes);
        }
    }
}

#[test]
fn changed_bit_in_any_byte_is_refused() {
    let seal = Seal::new("prod", &peppers(&[0]));
    for key in [active(9, record()), FleetKey::Revoked { at_s: 5 }] {
        let sealed = seal.seal(&field(), &key).unwrap().to_vec();
        for byte in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[byte] ^= 1 << bit;
                assert_eq!(seal.open(&field(), &changed), None, "byte {byte}, bit {bit}");
            }
            assert_eq!(seal.open(&field(), &sealed[..byte]), None, "cut to {byte} bytes");
        }
        assert_eq!(seal.open(&field(), &[&sealed[..], &[0]].concat()), None);
        assert_eq!(seal.open(&field(), &[&sealed[..], &[0; 32]].concat()), Some(key));
        assert_eq!(seal.open(&field(), &[&sealed[..], &[0; 128]].concat()), None);
    }
}

#[test]
fn record_of_another_fleet_key_or_pepper_is_refused() {
    let key = active(9, record());
    let seal = Seal::new("prod", &peppers(&[0]));
    let sealed = seal.seal(&field(), &key).unwrap();
    for other in [Seal::new("prod2", &peppers(&[0])), Seal::new("prod", &peppers(&[1]))] {
        assert_eq!(other.open(&field(), &sealed), None);
    }
    let other = KeyId::from_number((7 << 40) + 1).unwrap().to_string();
    assert_eq!(seal.open(&other, &sealed), None);
    // Where the fleet's name ends and that of the field begins is part of the MAC.
    let text = seal.seal_text("gate", "kt").unwrap();
    assert_eq!(seal.open_text("gate", &text), Some("kt"));
    assert_eq!(Seal::new("prodg", &peppers(&[0])).open_text("ate", &text), None);
    assert_eq!(seal.open_text("gates", &text), None);
    assert_eq!(seal.open(&field(), &text), None);
    assert_eq!(seal.seal_text("gate", &"x".repeat(MAX_SEALED_TEXT_LEN + 1)), None);
    let longest = "x".repeat(MAX_SEALED_TEXT_LEN);
    assert!(seal.seal_text("gate", &longest).unwrap().len() <= MAX_SEALED_LEN);
}

#[test]
fn peppers_are_replaced_on_one_machine_after_the_other() {
    let key = active(9, record());
    let steps = [[0, 0], [0, 1], [1, 1], [1, 2], [2, 2]];
    let lists: [&[usize]; 3] = [&[0], &[0, 1], &[1]];
    for step in steps {
        let [one, two] = step.map(|list| Seal::new("prod", &peppers(lists[list])));
        for (from, to) in [(&one, &two), (&two, &one)] {
            let sealed = from.seal(&field(), &key).unwrap();
            assert_eq!(to.open(&field(), &sealed), Some(key.clone()), "{step:?}");
        }
    }
}

#[test]
fn key_of_the_seal_is_that_of_hkdf() {
    let pepper = PEPPERS[0];
    let mut expected = [0; 32];
    let expand = Hkdf::<Sha256>::from_prk(&pepper).unwrap();
    expand.expand(b"keytally sealed records of a fleet", &mut expected).unwrap();
    let sealed =
        Seal::new("prod", &peppers(&[0])).seal("gate", &FleetKey::Revoked { at_s: 5 }).unwrap();
    let (body, mac) = sealed.split_at(sealed.len() - 32);
    let message = [b"\x04\x04prodgate", body].concat();
    assert_eq!(Pepper::new(&expected).unwrap().mac(&message).to_bytes(), mac);
}

/// Exchanges a record that was written since it was remembered.
fn exchange(
    record: Option<&KeyRecord>,
    carried: Option<Carried>,
    theirs: Option<&FleetKey>,
    now_s: u64,
) -> Exchanged {
    let writes = carried.map_or(1, |carried| carried.writes + 1);
    let present = record.map(|record| Present { record, writes });
    FleetKey::exchange(present, carried, theirs, Timestamp::from_unix_s(now_s)).unwrap()
}

#[test]
fn change_on_this_machine_has_a_higher_version() {
    let carried = active(6, record()).carried(3);
    fn version(record: &KeyRecord, carried: Option<Carried>, theirs: Option<&FleetKey>) -> u64 {
        exchange(Some(record), carried, theirs, 9).key.version()
    }
    assert_eq!(version(&record(), Some(carried), None), 6);
    let changed = KeyRecord { scopes: 1, ..record() };
    assert_eq!(version(&changed, Some(carried), None), 7);
    // The first import of a gate changes no other key.
    assert_eq!(version(&KeyRecord { is_imported: true, ..record() }, Some(carried), None), 6);
    // Without memory, the key is as it was at first, unless the store has the same.
    assert_eq!(version(&changed, None, None), FIRST_VERSION);
    let theirs = active(8, record());
    let exchanged = exchange(Some(&changed), None, Some(&theirs), 9);
    assert_eq!((exchanged.key, exchanged.changes_gate), (theirs, true));
    assert_eq!(version(&record(), None, Some(&active(8, record()))), 8);
    // The put was not remembered.
    assert_eq!(version(&changed, Some(carried), Some(&active(8, changed.clone()))), 8);
    // A rotation while nothing was carried follows the secret that the store has.
    let rotated = KeyRecord {
        secret: StoredSecret { tag: [3; 16], pepper: 11 },
        previous: Some(record().secret),
        ..record()
    };
    assert_eq!(version(&rotated, None, Some(&active(8, record()))), 9);
}

#[test]
fn record_of_an_older_copy_is_not_taken_for_a_change() {
    let newest = active(6, KeyRecord { scopes: 1, ..record() });
    let carried = newest.carried(3);
    let old = record();
    let with = |writes, theirs: Option<&FleetKey>| {
        let present = Some(Present { record: &old, writes });
        FleetKey::exchange(present, Some(carried), theirs, Timestamp::from_unix_s(9)).unwrap()
    };
    for writes in [3, 2, 0, 8191, 3 + 4096] {
        // The store has the newest record, or a newer one.
        for theirs in [&newest, &active(7, KeyRecord { scopes: 2, ..record() })] {
            let Exchanged { key, changes_gate, changes_store, is_older, is_withheld } =
                with(writes, Some(theirs));
            assert_eq!((&key, changes_gate), (theirs, true), "{writes}");
            assert_eq!((changes_store, is_older, is_withheld), (false, false, false));
        }
        // The store has none, an older one, or the record of the copy, by a machine without memory.
        // The latter may have another number of a pepper.
        let secret = StoredSecret { pepper: 12, ..old.secret };
        let copies = [record(), KeyRecord { secret, ..record() }].map(|copy| active(1, copy));
        let other = active(5, KeyRecord { scopes: 3, ..record() });
        for theirs in [None, Some(&other), Some(&copies[0]), Some(&copies[1])] {
            let exchanged = with(writes, theirs);
            assert!(exchanged.is_withheld, "{writes}");
            assert!(!exchanged.changes_gate && !exchanged.changes_store, "{exchanged:?}");
        }
        // A gate may have given the number of a pepper to another one.
        let theirs = active(6, KeyRecord { secret, ..record() });
        assert_eq!(with(writes, Some(&theirs)).key, active(7, record()), "{writes}");
    }
    for writes in [4, 5, 3 + 4095] {
        assert_eq!(with(writes, Some(&newest)).key, active(7, record()), "{writes}");
    }
    // A revocation is remembered too.
    let revoked = FleetKey::Revoked { at_s: 5 };
    for writes in [0, 4] {
        let (present, carried) = (Some(Present { record: &old, writes }), revoked.carried(3));
        for theirs in [None, Some(&active(9, record()))] {
            let now = Timestamp::from_unix_s(9);
            let exchanged = FleetKey::exchange(present, Some(carried), theirs, now).unwrap();
            assert_eq!((&exchanged.key, exchanged.changes_gate), (&revoked, true));
            assert!(exchanged.changes_store);
        }
    }
}

#[test]
fn revocation_keeps_the_time_at_which_it_was_first_carried() {
    let revoked = KeyRecord { state: KeyState::Revoked, ..record() };
    let first = exchange(Some(&revoked), None, None, 9);
    assert_eq!(first.key, FleetKey::Revoked { at_s: 9 });
    let carried = Some(first.key.carried(1));
    assert_eq!(exchange(Some(&revoked), carried, None, 20).key, first.key);
    // Also if the gate has another key in the record since.
    let replayed = active(3, record());
    let again = exchange(None, carried, Some(&replayed), 20);
    assert_eq!(
        (again.key, again.changes_gate, again.changes_store, again.is_older),
        (first.key.clone(), false, true, true)
    );
    let older = exchange(None, Some(active(5, record()).carried(1)), Some(&replayed), 20);
    assert_eq!((older.changes_gate, older.changes_store, older.is_older), (false, false, true));
    assert!(exchange(None, None, Some(&replayed), 20).changes_gate);
    let now = Timestamp::from_unix_s(20);
    assert_eq!(first.key.ended_s(now), Some(9));
    let expires =
        |end| active(1, KeyRecord { expires: Some(Timestamp::from_unix_s(end)), ..record() });
    assert_eq!((expires(20).ended_s(now), expires(21).ended_s(now)), (Some(20), None));
    assert_eq!(active(1, record()).ended_s(now), None);
}

#[test]
fn expired_key_without_a_record_is_valid_again_by_a_newer_version_only() {
    let expires = |version, end: Option<u64>| {
        let expires = end.map(Timestamp::from_unix_s);
        active(version, KeyRecord { expires, ..record() })
    };
    let carried = expires(5, Some(9)).carried(1);
    assert_eq!((carried.expires_s, carried.revoked_s), (9, 0));
    for (version, end, is_older, is_put) in [
        (4, None, true, false),
        // Two machines had changed the key at once.
        (5, None, true, false),
        (5, Some(99), true, false),
        (5, Some(10), true, false),
        (5, Some(9), false, false),
        (5, Some(8), false, false),
        (6, None, false, true),
        (6, Some(99), false, true),
    ] {
        let theirs = expires(version, end);
        let exchanged = exchange(None, Some(carried), Some(&theirs), 20);
        let found = (exchanged.is_older, exchanged.changes_gate, exchanged.changes_store);
        assert_eq!(found, (is_older, is_put, false), "{theirs:?}");
    }
    let unlimited = expires(5, None).carried(1);
    assert_eq!(unlimited.expires_s, 0);
    assert!(exchange(None, Some(unlimited), Some(&expires(5, Some(99))), 20).changes_gate);
}

/// A machine: its gate, and what it remembers.
#[derive(Clone, Default)]
struct Machine {
    record: Option<KeyRecord>,
    writes: u16,
    carried: Option<Carried>,
    /// Whether the gate has a change that is not remembered.
    is_changed: bool,
    is_withheld: bool,
    /// The copies of the gate that were made, with that.
    copies: Vec<(Option<KeyRecord>, u16, bool)>,
    /// Whether the gate has given the record of the revoked key to another one.
    former_revoked: bool,
}

impl Machine {
    /// Exchanges with the store, as an agent does. Returns what the store gets.
    fn exchange(&mut self, theirs: Option<&FleetKey>, forgets: bool) -> Option<FleetKey> {
        let now = Timestamp::from_unix_s(9);
        let writes = self.writes;
        let present = self.record.as_ref().map(|record| Present { record, writes });
        let exchanged = FleetKey::exchange(present, self.carried, theirs, now)?;
        let Exchanged { key, changes_gate, changes_store, is_older, is_withheld } = exchanged;
        self.is_withheld = is_withheld;
        if is_withheld {
            return theirs.cloned();
        }
        self.writes += u16::from(changes_gate);
        match &key {
            FleetKey::Active { record, .. } if changes_gate => self.record = Some(record.clone()),
            FleetKey::Revoked { .. } => {
                if let Some(record) = &mut self.record {
                    record.state = KeyState::Revoked;
                }
            }
            FleetKey::Active { .. } => {}
        }
        if let Some(carried) = self.carried.filter(|_| self.record.is_some()) {
            self.writes = self.writes.max(carried.writes);
        }
        self.is_changed |= changes_gate;
        if !forgets && (self.record.is_some() || !is_older) {
            self.carried = Some(key.carried(self.writes));
            self.is_changed = false;
        }
        if changes_store { Some(key) } else { theirs.cloned() }
    }
}

/// What happens in a fleet.
#[derive(Clone, Debug)]
enum Event {
    /// A machine exchanges with the store. It may be killed before it remembers that, and the
    /// store may lose what it got.
    Exchange {
        machine: usize,
        forgets: bool,
        is_lost: bool,
    },
    /// The store has again what it had before.
    Replay {
        back: usize,
    },
    /// The store is emptied.
    Empty,
    /// An administrator changes the key on a machine.
    Change {
        machine: usize,
        scopes: u64,
    },
    Rotate {
        machine: usize,
        tag: u8,
    },
    Revoke {
        machine: usize,
    },
    /// The key expires, or expires no more.
    Expire {
        machine: usize,
        expires: bool,
    },
    /// The gate gives the record of the ended key to another one, which ends too.
    Reuse {
        machine: usize,
    },
    /// A copy of the gate is made.
    Copy {
        machine: usize,
    },
    /// The gate is replaced by a copy of it. What the agent remembers stays.
    Restore {
        machine: usize,
        copy: usize,
    },
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..3_usize, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(machine, forgets, is_lost)| Event::Exchange { machine, forgets, is_lost }),
        2 => (0..9_usize).prop_map(|back| Event::Replay { back }),
        1 => Just(Event::Empty),
        3 => (0..3_usize, 0..8_u64).prop_map(
            |(machine, scopes)| Event::Change { machine, scopes }),
        2 => (0..3_usize, any::<u8>()).prop_map(|(machine, tag)| Event::Rotate { machine, tag }),
        1 => (0..3_usize).prop_map(|machine| Event::Revoke { machine }),
        2 => (0..3_usize, any::<bool>()).prop_map(
            |(machine, expires)| Event::Expire { machine, expires }),
        3 => (0..3_usize).prop_map(|machine| Event::Reuse { machine }),
        2 => (0..3_usize).prop_map(|machine| Event::Copy { machine }),
        2 => (0..3_usize, 0..3_usize).prop_map(|(machine, copy)| Event::Restore { machine, copy }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn revocation_is_never_taken_back(events in prop::collection::vec(any_event(), 0..60)) {
        let first = Machine { record: Some(record()), writes: 1, ..Machine::default() };
        let mut machines = [first.clone(), first, Machine::default()];
        let mut store: Option<FleetKey> = None;
        let mut past: Vec<Option<FleetKey>> = Vec::new();
        let mut last: HashMap<usize, u64> = HashMap::new();
        for event in events {
            let was_revoked: Vec<_> = machines.iter().map(is_revoked).collect();
            match event {
                Event::Exchange { machine, forgets, is_lost } => {
                    let before = machines[machine].clone();
                    let written = machines[machine].exchange(store.as_ref(), forgets);
                    if let Some(carried) = before.carried.filter(|_| !before.is_changed) {
                        let version = |key: &Option<FleetKey>| key.as_ref().map(FleetKey::version);
                        let most = version(&store).max(Some(carried.version));
                        prop_assert!(version(&written) <= most, "no change was taken for one");
                    }
                    if let (Some(carried), None) = (before.carried, &before.record) {
                        let newer = store.as_ref().is_some_and(|key| key.version() > carried.version);
                        let is_put = machines[machine].record.is_some();
                        prop_assert!(carried.expires_s == 0 || newer || !is_put, "an end was taken back");
                    }
                    let Machine { record, former_revoked, .. } = &machines[machine];
                    let is_valid = record.is_some() && !is_revoked(&machines[machine]);
                    prop_assert!(!(*former_revoked && is_valid), "a former key is valid again");
                    if !is_lost {
                        past.push(store.clone());
                        store = written;
                    }
                    if let Some(carried) = machines[machine].carried.filter(|_| !forgets) {
                        let before = last.insert(machine, carried.version).unwrap_or(0);
                        prop_assert!(carried.version >= before, "a version fell");
                    }
                }
                Event::Replay { back } => store = past.get(back).cloned().unwrap_or(store),
                Event::Empty => store = None,
                Event::Change { machine, scopes } => change(&mut machines[machine], |record| {
                    record.scopes = scopes;
                }),
                Event::Rotate { machine, tag } => change(&mut machines[machine], |record| {
                    record.previous = Some(record.secret);
                    record.secret = StoredSecret { tag: [tag; 16], pepper: 11 };
                }),
                Event::Revoke { machine } => change(&mut machines[machine], |record| {
                    record.state = KeyState::Revoked;
                }),
                Event::Expire { machine, expires } => change(&mut machines[machine], |record| {
                    record.expires = expires.then_some(Timestamp::from_unix_s(5));
                }),
                Event::Reuse { machine } => {
                    let machine = &mut machines[machine];
                    let is_ended = |record: &KeyRecord| {
                        record.state == KeyState::Revoked || record.expires.is_some()
                    };
                    // What was not carried is not known to the agent.
                    if machine.record.as_ref().is_some_and(is_ended) && !machine.is_changed {
                        machine.former_revoked |= is_revoked(machine);
                        machine.record = None;
                        machine.writes += 1;
                    }
                    continue;
                }
                Event::Copy { machine } => {
                    let Machine { record, writes, is_changed, copies, .. } = &mut machines[machine];
                    copies.push((record.clone(), *writes, *is_changed));
                }
                Event::Restore { machine, copy } => {
                    let machine = &mut machines[machine];
                    let Some(copy) = machine.copies.get(copy).cloned() else { continue };
                    (machine.record, machine.writes, machine.is_changed) = copy;
                    continue;
                }
            }
            for (machine, was_revoked) in machines.iter().zip(was_revoked) {
                prop_assert!(is_revoked(machine) || !was_revoked, "a revocation was taken back");
            }
        }
        // When the store works, two rounds make all machines that have the key the same.
        for _ in 0..2 {
            for machine in &mut machines {
                store = machine.exchange(store.as_ref(), false);
            }
        }
        // What was carried as revoked is revoked again in a restored gate.
        let is_remembered = |machine: &Machine| machine.carried.is_some_and(|one| one.revoked_s > 0);
        let mut holders = machines.iter().filter(|machine| machine.record.is_some());
        prop_assert!(holders.all(|machine| is_revoked(machine) || !is_remembered(machine)));
        if machines.iter().any(|machine| machine.is_withheld) {
            // No machine has the newest record of the key any more.
            return Ok(());
        }
        let revoked = machines.iter().filter(|machine| is_revoked(machine)).count();
        let holders: Vec<_> = machines.iter().filter_map(|machine| machine.record.as_ref()).collect();
        prop_assert!(revoked == 0 || revoked == holders.len());
        if revoked == 0 {
            prop_assert!(holders.iter().all(|record| *record == holders[0]), "{holders:?}");
        }
    }
}

fn is_revoked(machine: &Machine) -> bool {
    machine.record.as_ref().is_some_and(|record| record.state == KeyState::Revoked)
}

/// Changes the key of a machine, unless it is revoked or not there.
fn change(machine: &mut Machine, change: impl FnOnce(&mut KeyRecord)) {
    if !is_revoked(machine)
        && let Some(record) = &mut machine.record
    {
        change(record);
        machine.writes += 1;
        machine.is_changed = true;
    }
}
