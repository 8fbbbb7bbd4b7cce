//! Tests of migrations: what the new gate keeps, what it cannot keep, and what a killed migration
//! leaves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "sections")]

use keytally_core::{
    CacheLine, Charge, Extras, Gate, GateConfig, Key, KeyId, NotCarried, NotReserving, Outcome,
    Section, Settlement, Timestamp, Window,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{at, check, config, end, entropy, gate, memory, new_key, plan};

type TestGate = Gate<Vec<CacheLine>>;

/// The time of all migrations.
const AT: Timestamp = at(10);

fn successor(old: &TestGate, config: &GateConfig<'_>) -> TestGate {
    Gate::init_successor(memory(config.lines()), &config.with_id(old.id() + 77), old).unwrap()
}

/// Migrates a gate, and returns the new one and what it does not have.
fn migrate(old: &TestGate, config: &GateConfig<'_>) -> (TestGate, Vec<NotCarried>) {
    let new = successor(old, config);
    let mut problems = Vec::new();
    let administrator = old.administer().unwrap();
    let migration = administrator.migration(&new);
    migration.copy(|problem| problems.push(problem));
    if !problems.iter().any(NotCarried::prevents) {
        assert!(migration.announce(b"new.gate"));
        migration.seal(AT);
        migration.publish(AT);
    }
    (new, problems)
}

fn minute() -> Window {
    "minute".parse().unwrap()
}

fn issue(gate: &TestGate, number: u64) -> (Key, KeyId) {
    support::issue(gate, &new_key(), entropy(number))
}

fn peek(gate: &TestGate, key: &Key) -> Vec<(u32, u32)> {
    let verdict = gate.peek(Some(key.expose().as_bytes()), 0, at(20));
    verdict.quotas().iter().map(|state| (state.window.seconds(), state.remaining)).collect()
}

#[test]
fn larger_gate_keeps_keys_counts_and_graces() {
    let plans = [plan("default", "5/minute, 100/hour"), plan("pro", "50/minute, 200/hour")];
    let old = gate(&config(4, &plans).with_hints(true));
    let keys: Vec<_> = (0..4).map(|number| issue(&old, number)).collect();
    for (number, (key, _)) in keys.iter().enumerate() {
        for _ in 0..number {
            assert!(check(&old, key, at(1)).is_admitted());
        }
    }
    let mut administrator = old.administer().unwrap();
    administrator.assign(keys[1].1, "pro").unwrap();
    administrator.revoke(keys[2].1).unwrap();
    let rotated = administrator.rotate(keys[3].1, end(60), false, entropy(9), at(2)).unwrap();
    drop(administrator);
    let before: Vec<_> = old.list(at(20)).map(|info| format!("{info:?}")).collect();

    let plans = [plans[1].clone(), plans[0].clone(), plan("new", "1/minute, 2/hour")];
    let config = config(12, &plans).with_hints(true);
    let (new, problems) = migrate(&old, &config);
    assert_eq!(problems, []);
    for (_, key_id) in &keys {
        let (old, new) = (old.key(*key_id, at(20)).unwrap(), new.key(*key_id, at(20)).unwrap());
        assert_eq!(new.last_characters, old.last_characters);
        assert_eq!((new.state, new.expires, new.account), (old.state, old.expires, old.account));
        assert_eq!(new.grace_until, old.grace_until);
    }
    assert_eq!(before.len(), new.list(at(20)).count());
    let plan_of = |number: usize| new.plan(new.key(keys[number].1, AT).unwrap().plan).unwrap().name;
    assert_eq!(["default", "pro"], [0, 1].map(plan_of).each_ref().map(|name| name.as_str()));
    assert_eq!(peek(&new, &keys[0].0), [(60, 5), (3600, 100)]);
    assert_eq!(peek(&new, &keys[1].0), [(60, 49), (3600, 199)]);
    assert_eq!(peek(&new, &keys[3].0), [(60, 2), (3600, 97)]);
    assert_eq!(check(&new, &keys[2].0, at(20)).outcome(), Outcome::InvalidKey);
    assert_eq!(check(&new, &rotated, at(20)).remaining(), Some(96));
    assert_eq!(check(&new, &keys[3].0, at(60)).outcome(), Outcome::InvalidKey, "the grace ended");
    let mut flaws = 0;
    new.verify(at(20), |_| flaws += 1);
    assert_eq!(flaws, 0);
    // The new gate has room for more keys.
    for number in 100..108 {
        issue(&new, number);
    }
    assert_eq!(new.list(at(20)).count(), 12);
    // It is a gate now, and opens again.
    let again = Gate::attach(new.memory().as_slice(), support::peppers(&[1])).unwrap();
    assert!(check(&again, &keys[1].0, at(21)).is_admitted());
}

#[test]
fn sealed_gate_decides_about_no_key_and_changes_no_count() {
    let plans = [plan("default", "5/minute, 100/hour")];
    let old = gate(&config(4, &plans));
    let (key, key_id) = issue(&old, 1);
    let text = Some(key.expose().as_bytes());
    let charge = old.check(text, 2, at(1)).charge().unwrap();
    assert!(!old.is_migrating());
    migrate(&old, &config(4, &plans));
    assert!(old.is_migrating());
    let image = support::image(old.memory());
    for outcome in [
        old.check(text, 1, at(1)).outcome(),
        old.check(text, 0, at(1)).outcome(),
        old.check(text, 1000, at(100_000)).outcome(),
        old.peek(text, 1, at(1)).outcome(),
        old.part(text, 1).check(at(1)).outcome(),
        old.reset(key_id, at(1)).unwrap().outcome(),
        old.refund(key_id, charge, at(1)).unwrap().outcome(),
        old.settle(key_id, charge, 9, at(1)).unwrap().outcome(),
        old.settle(key_id, charge, 1, at(1)).unwrap().outcome(),
    ] {
        assert_eq!(outcome, Outcome::Unavailable);
    }
    let overdraw = Settlement::new().with_cost(9).with_overdraw(true);
    let settled = old.settle_all(key_id, charge, &overdraw, at(1)).unwrap();
    assert_eq!(settled.verdict.outcome(), Outcome::Unavailable);
    assert_eq!(old.correct_clock(at(0)), 0);
    assert_eq!(support::image(old.memory()), image);
    let verdict = old.check(text, 1, at(1));
    assert_eq!((verdict.http_status(), verdict.retry_after_s()), (503, Some(1)));
    assert_eq!(verdict.holder().unwrap().key_id, key_id);
    assert_eq!(verdict.headers().as_str(), "Retry-After: 1\r\n");
}

#[test]
fn windows_that_both_gates_have_keep_their_counts() {
    let old = gate(&config(4, &[plan("default", "10/minute, 100/hour")]));
    let (key, key_id) = issue(&old, 1);
    let early = old.check(Some(key.expose().as_bytes()), 3, at(1)).charge().unwrap();
    let plans = [plan("default", "2/second, 200/hour, 500/day")];
    let (new, problems) = migrate(&old, &config(4, &plans));
    let window = minute();
    assert_eq!(problems, [NotCarried::Window { section: Section::Key, window }]);
    assert_eq!(peek(&new, &key), [(1, 2), (3600, 197), (86400, 500)]);
    // A charge from before the migration may be of other tallies, so it is not refunded.
    let after = new.refund(key_id, early, at(20)).unwrap();
    assert_eq!(after.quotas().iter().nth(1).unwrap().remaining, 197);
    assert_eq!(new.settle(key_id, early, 1, at(20)).unwrap().uncharged(), 0);
    assert_eq!(new.settle(key_id, early, 9, at(20)).unwrap().uncharged(), 6);
    assert_eq!(peek(&new, &key), [(1, 2), (3600, 197), (86400, 500)]);
    let late = new.check(Some(key.expose().as_bytes()), 2, at(80)).charge().unwrap();
    let after = new.refund(key_id, late, at(80)).unwrap();
    assert_eq!(after.quotas().iter().nth(1).unwrap().remaining, 197);
}

#[test]
fn charge_is_refunded_in_a_gate_with_the_same_windows() {
    let plans = [plan("default", "10/minute, 100/hour")];
    let old = gate(&config(4, &plans));
    let (key, key_id) = issue(&old, 1);
    let charge = old.check(Some(key.expose().as_bytes()), 3, at(1)).charge().unwrap();
    let (new, _) = migrate(&old, &config(8, &[plan("default", "1000/minute, 9000/hour")]));
    assert_eq!(peek(&new, &key), [(60, 997), (3600, 8997)]);
    new.refund(key_id, charge, at(20)).unwrap();
    assert_eq!(peek(&new, &key), [(60, 1000), (3600, 9000)]);
    assert_eq!(new.refund(key_id, Charge::new(0, at(1)), at(20)).unwrap().cost(), 0);
}

#[test]
fn charge_of_a_refused_request_returns_to_the_windows_of_both_gates() {
    let old =
        gate(&config(4, &[plan("default", "10/minute, 100/hour; team: 50/hour")]).with_teams(4));
    let (key, key_id) = issue(&old, 1);
    let charge = old.part(Some(key.expose().as_bytes()), 3).check(at(1)).charge(0).unwrap();
    let plans = [plan("default", "100/hour, 900/day; team: 50/hour, 70/day")];
    let (new, _) = migrate(&old, &config(4, &plans).with_teams(4));
    assert_eq!(left(&new, &key), [("key", vec![97, 900]), ("team", vec![47, 70])].map(named));
    // Others are charged in the windows that the old gate did not have.
    assert!(check(&new, &key, at(11)).is_admitted());
    let returned = new.refund_left(&old, key_id, charge, at(20)).unwrap();
    assert_eq!(returned.outcome(), Outcome::Admitted);
    assert_eq!(left(&new, &key), [("key", vec![99, 899]), ("team", vec![49, 69])].map(named));

    // Only the direct successor knows which of its counts have the charge.
    let charge = new.part(Some(key.expose().as_bytes()), 3).check(at(20)).charge(0).unwrap();
    assert_eq!(old.refund_left(&new, key_id, charge, at(20)), None);
    let (last, _) = migrate(&new, &config(4, &plans).with_teams(4));
    assert_eq!(last.refund_left(&old, key_id, charge, at(20)), None);
    assert_eq!(left(&last, &key)[0], named(("key", vec![96, 896])));
    assert_eq!(
        new.refund_left(&new, key_id, charge, at(20)).unwrap().outcome(),
        Outcome::Unavailable
    );
    new.take_over().undo_migration(at(20));
    new.refund_left(&new, key_id, charge, at(20)).unwrap();
    assert_eq!(left(&new, &key)[0], named(("key", vec![99, 899])));
}

/// The limiting windows of a section, as [`left`] returns them.
fn named((name, left): (&str, Vec<u32>)) -> (String, Vec<u32>) {
    (name.to_owned(), left)
}

#[test]
fn request_that_is_refused_just_after_a_migration_charges_nothing() {
    for (sections, teams) in [("100/hour", 0), ("100/hour; team: 900/hour", 4)] {
        let old = gate(&config(4, &[plan("default", "10/minute")]));
        let (key, _) = issue(&old, 1);
        let (new, _) = migrate(&old, &config(4, &[plan("default", sections)]).with_teams(teams));
        let extras = Some(Extras { usage: None, reservation: Some(&NotReserving) });
        let text = Some(key.expose().as_bytes());
        let refused = new.with_extras(extras).check(text, 3, at(11));
        assert_eq!(refused.outcome(), Outcome::Unavailable);
        assert_eq!(peek(&new, &key), [(3600, 100)], "{sections}");
    }
}

#[test]
fn sliding_counts_and_months_move_too() {
    let text = "sliding 10/minute, 100/hour";
    let old = gate(&config(4, &[plan("default", text)]));
    let (key, _) = issue(&old, 1);
    for second in [1, 61] {
        let text = Some(key.expose().as_bytes());
        assert!(old.check(text, 4, at(second)).is_admitted());
    }
    let peek = |gate: &TestGate, second| {
        let verdict = gate.peek(Some(key.expose().as_bytes()), 0, at(second));
        verdict.quotas().iter().map(|state| state.used()).collect::<Vec<_>>()
    };
    let before = peek(&old, 90);
    let plans = [plan("default", "sliding 10/minute, 20/10m, 100/hour")];
    let (new, _) = migrate(&old, &config(4, &plans));
    let after = peek(&new, 90);
    assert_eq!([after[0], after[1], after[2]], [before[0], 0, before[1]]);

    let old = gate(&config(4, &[plan("default", "10/minute, 100/month@17")]));
    let (key, _) = issue(&old, 1);
    assert!(check(&old, &key, at(1)).is_admitted());
    let (new, problems) = migrate(&old, &config(4, &[plan("default", "100/month@17")]));
    assert_eq!((problems.len(), problems[0].prevents()), (1, false));
    assert_eq!(check(&new, &key, at(2)).quotas().iter().next().unwrap().used(), 2);
}

#[test]
fn imported_keys_are_found_after_two_enlargements() {
    let plans = [plan("default", "5/minute")];
    let mut gate = gate(&config(37, &plans));
    let mut keys = Vec::new();
    let mut import = |gate: &TestGate, count: usize| {
        for _ in 0..count {
            let key = format!("foreign-key-{:04}", keys.len());
            gate.administer().unwrap().import(key.as_bytes(), &new_key(), at(0)).unwrap();
            keys.push(key);
        }
        keys.clone()
    };
    import(&gate, 20);
    for (factor, count) in [(3, 40), (1, 0), (2, 60)] {
        let (new, problems) = migrate(&gate, &config(gate.capacity() * factor, &plans));
        assert_eq!(problems, []);
        gate =
            Gate::attach(new.memory().iter().map(copy).collect(), support::peppers(&[1])).unwrap();
        for key in import(&gate, count) {
            let verdict = gate.check(Some(key.as_bytes()), 1, at(20));
            assert!(verdict.is_admitted(), "{key} of {}", gate.capacity());
            let again = gate.administer().unwrap().import(key.as_bytes(), &new_key(), at(20));
            assert!(again.is_err());
        }
    }
    let (_, problems) = migrate(&gate, &config(gate.capacity() * 2, &plans));
    assert_eq!(problems, [NotCarried::ImportedKeys]);
    assert!(check_text(&gate, "foreign-key-0003").is_admitted(), "nothing was changed");
}

fn copy(line: &CacheLine) -> CacheLine {
    let copy = CacheLine::new();
    (0..8).for_each(|word| copy.store(word, line.load(word)));
    copy
}

fn check_text(gate: &TestGate, text: &str) -> keytally_core::Verdict {
    gate.check(Some(text.as_bytes()), 1, at(120))
}

/// A gate with teams and scopes, and a key of each of three accounts.
fn teams(text: &str) -> (TestGate, Vec<Key>) {
    let plans = [plan("default", text)];
    let config = config(8, &plans).with_teams(4).with_scopes(&["read", "write"]);
    let gate = gate(&config.with_hints(true));
    let keys = (0..3).map(|account| {
        let mut new = new_key().with_scopes(&["write"]);
        new.account = account;
        support::issue(&gate, &new, entropy(account.into())).0
    });
    let keys = keys.collect();
    (gate, keys)
}

/// Returns the name of each section with the units left in its windows.
fn left(gate: &TestGate, key: &Key) -> Vec<(String, Vec<u32>)> {
    let info = gate.list(at(20)).find(|info| {
        let verdict = gate.peek(Some(key.expose().as_bytes()), 0, at(20));
        verdict.holder().is_some_and(|holder| holder.key_id == info.key_id)
    });
    let info = info.unwrap();
    let states = gate.tallies(&info, at(20));
    let left = |state: keytally_core::TallyState| {
        let remaining = state.quotas.iter().map(|quota| quota.remaining).collect();
        (state.section.name().to_owned(), remaining)
    };
    states.map(left).collect()
}

#[test]
fn teams_scopes_and_groups_move_to_other_numbers() {
    let (old, keys) = teams("10/minute; team: 20/minute, 100/day; group write: 5/minute");
    let mut administrator = old.administer().unwrap();
    administrator.set_suspended(1, true).unwrap();
    let own: [keytally_core::Quota; 2] = ["30/minute", "50/day"].map(|text| {
        let policy: keytally_core::Policy = text.parse().unwrap();
        policy.quotas()[0]
    });
    administrator.limit_account(2, &own).unwrap();
    drop(administrator);
    for key in [&keys[0], &keys[2]] {
        let part = old.part(Some(key.expose().as_bytes()), 2).with_group("write").unwrap();
        assert!(part.check(at(1)).is_admitted());
    }
    let text = "10/minute, 99/hour; group read: 7/minute; team: 100/day, 20/minute; \
                group write: 5/minute, 8/hour";
    let plans = [plan("default", text)];
    let config = config(16, &plans).with_teams(9).with_scopes(&["write", "admin", "read"]);
    let (new, problems) = migrate(&old, &config.with_hints(true));
    assert_eq!(problems, []);
    let mut flaws = Vec::new();
    new.verify(at(20), |flaw| flaws.push(flaw.to_string()));
    assert_eq!(flaws, [""; 0]);
    let named = |left: &[(String, Vec<u32>)]| {
        left.iter().map(|(name, left)| format!("{name} {left:?}")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(named(&left(&new, &keys[0])), "key [8, 99], read [7], team [18, 98], write [3, 8]");
    assert_eq!(named(&left(&new, &keys[2])), "key [8, 99], read [7], team [28, 48], write [3, 8]");
    assert_eq!(check(&new, &keys[1], at(20)).reason(), Some(keytally_core::Reason::Suspended));
    let needs = |scope: &str| {
        let part = new.part(Some(keys[0].expose().as_bytes()), 0).with_scope(scope).unwrap();
        part.check(at(20)).outcome()
    };
    assert_eq!(
        ["write", "read", "admin"].map(needs),
        [Outcome::Admitted, Outcome::Forbidden, Outcome::Forbidden]
    );
    assert_eq!(old.part(Some(keys[0].expose().as_bytes()), 1).check(at(20)).http_status(), 503);
    assert_eq!(old.reset_account(0, at(20)), Some(Outcome::Unavailable));
    assert_eq!(new.reset_account(0, at(20)), Some(Outcome::Admitted));
}

#[test]
fn plain_gate_gets_teams_and_loses_them_again() {
    let plans = [plan("default", "10/minute")];
    let old = gate(&config(8, &plans));
    let (key, _) = issue(&old, 1);
    assert!(check(&old, &key, at(1)).is_admitted());
    let sections = [plan("default", "10/minute; team: 20/minute")];
    let (new, problems) = migrate(&old, &config(8, &sections).with_teams(2));
    assert_eq!(problems, []);
    assert!(check(&new, &key, at(2)).is_admitted());
    assert_eq!(left(&new, &key), [("key".to_owned(), vec![8]), ("team".to_owned(), vec![19])]);
    assert_eq!(new.account(42, at(2)).unwrap().quotas()[0].iter().next().unwrap().used(), 1);
    let (plain, problems) = migrate(&new, &config(8, &plans));
    let window = minute();
    assert_eq!(problems, [NotCarried::Window { section: Section::Team, window }]);
    assert_eq!(peek(&plain, &key), [(60, 8)]);
    assert_eq!(new.account(42, at(2)).map(|info| info.account), Some(42));
    assert!(!new.part(Some(key.expose().as_bytes()), 1).check(at(2)).is_admitted());
}

#[test]
fn what_cannot_be_carried_over_is_reported_and_changes_nothing() {
    let text = "10/minute; team: 20/minute";
    let (old, keys) = teams(text);
    let mut administrator = old.administer().unwrap();
    administrator.set_suspended(1, true).unwrap();
    drop(administrator);
    let image = support::image(old.memory());
    let (other, same) = ([plan("other", text)], [plan("default", text)]);
    let plain = [plan("default", "10/minute")];
    let scopes = ["read", "write"];
    let expect = |config: &GateConfig<'_>, expected: NotCarried| {
        let (_, problems) = migrate(&old, config);
        assert!(problems.contains(&expected), "{expected}: {problems:?}");
    };
    expect(&config(12, &same).with_teams(4), NotCarried::Keys { old: 8, new: 12 });
    expect(&config(8, &other).with_teams(4), NotCarried::Plan(same[0].name.clone()));
    let write = old.scopes().nth(1).unwrap();
    expect(&config(8, &same).with_teams(4), NotCarried::Scope(write));
    expect(&config(8, &same).with_teams(2).with_scopes(&scopes), NotCarried::Teams { teams: 2 });
    expect(&config(8, &plain).with_scopes(&scopes), NotCarried::Team { account: 1 });
    let running = support::image(old.memory());
    assert_eq!(running, image);
    assert!(check(&old, &keys[0], at(1)).is_admitted());
}

#[test]
fn undone_migration_keeps_every_count() {
    let plans = [plan("default", "5/minute, 100/hour")];
    let old = gate(&config(4, &plans));
    let (key, _) = issue(&old, 1);
    assert!(old.check(Some(key.expose().as_bytes()), 3, at(1)).is_admitted());
    let config = config(8, &plans);
    let new = successor(&old, &config);
    let mut administrator = old.administer().unwrap();
    administrator.migration(&new).copy(|_| ());
    administrator.migration(&new).announce(b"x.gate");
    administrator.migration(&new).seal(AT);
    let named = old.successor().unwrap();
    assert_eq!((named.id, named.name(), named.is_sealed), (77, b"x.gate".as_slice(), true));
    let info = old.list(at(20)).next().unwrap();
    assert_eq!((info.clock_ahead_s, info.last_used), (0, None), "a seal has no time");
    assert_eq!(info.quotas.iter().map(|quota| quota.used()).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(check(&old, &key, at(20)).outcome(), Outcome::Unavailable);
    administrator.undo_migration(at(30));
    drop(administrator);
    assert!(!old.is_migrating() && old.successor().is_none());
    assert_eq!(peek(&old, &key), [(60, 2), (3600, 97)]);
    assert!(issue(&old, 2).1 != issue(&old, 3).1);
}

#[test]
fn successor_in_force_is_reported_by_the_old_gate() {
    let plans = [plan("default", "5/minute, 100/hour")];
    let old = gate(&config(4, &plans));
    let (key, _) = issue(&old, 1);
    let (new, _) = migrate(&old, &config(8, &plans));
    let is_in_force = || old.successor().map(|named| (named.is_sealed, named.is_in_force));
    assert_eq!(is_in_force(), Some((true, false)));
    let administrator = old.administer().unwrap();
    administrator.migration(&new).finish();
    drop(administrator);
    assert_eq!(is_in_force(), Some((true, true)));
    assert!(old.is_migrating());
    assert_eq!(check(&old, &key, at(20)).outcome(), Outcome::Unavailable);
}

#[test]
fn name_of_a_successor_has_1_to_56_bytes() {
    let plans = [plan("default", "5/minute")];
    let old = gate(&config(4, &plans));
    let new = successor(&old, &config(4, &plans));
    let administrator = old.administer().unwrap();
    for (len, is_valid) in [(0, false), (1, true), (56, true), (57, false)] {
        let name = vec![b'x'; len];
        assert_eq!(administrator.migration(&new).announce(&name), is_valid, "{len}");
        assert_eq!(old.successor().is_some_and(|named| named.name() == name), is_valid);
    }
    assert!(!administrator.migration(&new).announce(b"a\0b"));
    assert!(matches!(
        Gate::attach(new.memory().as_slice(), support::peppers(&[1])),
        Err(keytally_core::AttachError::Kind { .. })
    ));
}
