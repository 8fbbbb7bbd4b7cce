//! Scenarios of a migration: an administrator seals tallies while other threads charge them.

use alloc::sync::Arc;

use keytally_core::stop::Stop;
use keytally_core::{Charge, Gate, Key, KeyId, Outcome};

use crate::gate::{Shared, entropy, with};
use crate::model::{explore, killed_at, preemptions, together};
use crate::support::{self, at, config, memory, new_key, plan};

/// The plan of a gate with a team.
const OLD: &str = "3/minute; team: 5/minute";

/// A gate, its successor to which the records are copied, and its key.
fn gates(sections: [&str; 2]) -> ([Shared; 2], Arc<Key>, KeyId) {
    let [old, new] = sections.map(|text| [plan("default", text)]);
    let teams = u32::from(sections[0].contains("team"));
    let settings = config(1, &old).with_plan_slots(1).with_teams(teams);
    let old = Arc::new(support::gate(&settings));
    let (key, key_id) = support::issue(&old, &new_key(), entropy(1));
    let settings = config(2, &new).with_plan_slots(1).with_teams(teams).with_id(7);
    let new = Gate::init_successor(memory(settings.lines()), &settings, &old).unwrap();
    let new = Arc::new(new);
    let administrator = old.administer().unwrap();
    let migration = administrator.migration(&new);
    migration.copy(|problem| panic!("{problem}"));
    assert!(migration.announce(b"new"));
    drop(administrator);
    ([old, new], Arc::new(key), key_id)
}

/// Seals and publishes, as the next administrator does after a kill too.
fn seal(old: &Shared, new: &Shared) {
    let administrator = old.take_over();
    let migration = administrator.migration(new);
    migration.seal(at(1));
    migration.publish(at(1));
}

/// Returns the units of the key's first window that count in the new gate.
fn used(gate: &Shared, key: &Key) -> u32 {
    let verdict = gate.peek(Some(key.expose().as_bytes()), 0, at(1));
    verdict.quotas().iter().next().unwrap().used()
}

#[test]
fn charge_is_made_before_its_tally_is_sealed_or_not_at_all() {
    explore(preemptions(3, 5), || {
        let ([old, new], key, _) = gates(["2/minute"; 2]);
        let requests = [0, 1].map(|_| {
            let key = Arc::clone(&key);
            with(&old, move |old| support::check(old, &key, at(1)).outcome())
        });
        let successor = Arc::clone(&new);
        let sealing = with(&old, move |old| {
            seal(old, &successor);
            Outcome::Full
        });
        let outcomes = together(requests.into_iter().chain([sealing]));
        let admitted =
            outcomes[..2].iter().filter(|outcome| **outcome == Outcome::Admitted).count();
        for outcome in &outcomes[..2] {
            assert!(matches!(outcome, Outcome::Admitted | Outcome::Unavailable));
        }
        assert_eq!(used(&new, &key) as usize, admitted, "the new gate has what was admitted");
        assert_eq!(support::check(&old, &key, at(1)).outcome(), Outcome::Unavailable);
    });
}

#[test]
fn refund_is_made_before_the_seal_or_refused() {
    explore(preemptions(3, 5), || {
        let ([old, new], key, key_id) = gates(["3/minute"; 2]);
        let charge = old.check(Some(key.expose().as_bytes()), 2, at(1)).charge().unwrap();
        let successor = Arc::clone(&new);
        let outcomes = together([
            with(&old, move |old| refund(old, key_id, charge)),
            with(&old, move |old| {
                seal(old, &successor);
                Outcome::Full
            }),
        ]);
        let is_refunded = outcomes[0] != Outcome::Unavailable;
        assert_eq!(used(&new, &key), if is_refunded { 0 } else { 2 });
        if !is_refunded {
            refund(&new, key_id, charge);
        }
        assert_eq!(used(&new, &key), 0);
    });
}

fn refund(gate: &Shared, key_id: KeyId, charge: Charge) -> Outcome {
    gate.refund(key_id, charge, at(1)).unwrap().outcome()
}

#[test]
fn compound_charge_during_the_seal_leaves_what_it_returns() {
    explore(preemptions(2, 3), || {
        let ([old, new], key, _) = gates([OLD; 2]);
        let (checked, successor) = (Arc::clone(&key), Arc::clone(&new));
        let outcomes = together([
            with(&old, move |old| {
                let compound = old.part(Some(checked.expose().as_bytes()), 1).check(at(1));
                (compound.is_admitted(), compound.charge(0))
            }),
            with(&old, move |old| {
                seal(old, &successor);
                (false, None)
            }),
        ]);
        let (is_admitted, charge) = outcomes[0];
        let expected = u32::from(charge.is_some());
        assert!(!is_admitted || charge.is_some());
        assert_eq!(used(&new, &key), expected, "the rest was given back before the seal");
    });
}

#[test]
fn killed_seal_is_completed_with_every_charge() {
    for stop in [Stop::LineBegun, Stop::TallyNoted, Stop::TallySealed, Stop::TallyMoved] {
        explore(preemptions(2, 4), move || {
            let ([old, new], key, _) = gates(["3/minute", "3/minute, 9/hour"]);
            assert!(support::check(&old, &key, at(1)).is_admitted());
            let (shared, successor) = (Arc::clone(&old), Arc::clone(&new));
            let work = move || {
                let administrator = old.take_over();
                administrator.migration(&new).seal(at(1));
            };
            killed_at((stop, 1), work, move || {
                let (checked, next) = (Arc::clone(&key), Arc::clone(&successor));
                let units = together([
                    with(&shared, move |old| {
                        u32::from(support::check(old, &checked, at(1)).is_admitted())
                    }),
                    with(&shared, move |old| {
                        seal(old, &next);
                        1
                    }),
                ]);
                assert_eq!(used(&successor, &key), units.iter().sum());
            });
        });
    }
}
