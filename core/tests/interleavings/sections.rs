//! Scenarios of an extended gate: keys of one team, and changes of scopes and teams.

use alloc::sync::Arc;

use keytally_core::stop::Stop;
use keytally_core::{Compound, Key, KeyId, Outcome, Reason};

use crate::gate::{Shared, entropy, with};
use crate::model::{at_stop, explore, killed_at, preemptions, together};
use crate::support::{self, at, config, new_key, plan};

/// A gate with one team, whose keys have five units a minute each.
fn gate(team: u32) -> Shared {
    let plans = [plan("default", &format!("5/minute; team: {team}/minute"))];
    let config = config(2, &plans).with_plan_slots(1);
    Arc::new(support::gate(&config.with_teams(1).with_scopes(&["read", "write"])))
}

/// Issues a key with the scope `read`.
fn issue(gate: &Shared, seed: u8) -> (Arc<Key>, KeyId) {
    let new = new_key().with_scopes(&["read"]);
    let (key, key_id) = support::issue(gate, &new, entropy(seed));
    (Arc::new(key), key_id)
}

fn check(gate: &Shared, key: &Key, cost: u32) -> Compound {
    gate.part(Some(key.expose().as_bytes()), cost).check(at(1))
}

/// Checks a key for one unit and a scope.
fn check_with(gate: &Shared, key: &Key, scope: &str) -> Outcome {
    let part = gate.part(Some(key.expose().as_bytes()), 1).with_scope(scope).unwrap();
    part.check(at(1)).outcome()
}

/// Returns the units left to the key and to its team.
fn left(gate: &Shared, key: &Key) -> [u32; 2] {
    let compound = gate.part(Some(key.expose().as_bytes()), 0).peek(at(1));
    [0, 1].map(|tally| compound.tallies()[tally].verdict().remaining().unwrap())
}

#[test]
fn keys_of_a_team_share_its_last_unit() {
    explore(preemptions(2, 4), || {
        let gate = gate(1);
        let keys = [1, 2].map(|seed| issue(&gate, seed).0);
        let requests = [0, 1].map(|index| {
            let key = Arc::clone(&keys[index]);
            with(&gate, move |gate| check(gate, &key, 1).is_admitted())
        });
        let admitted = together(requests);
        assert_eq!(admitted.iter().filter(|is_admitted| **is_admitted).count(), 1);
        // The charge of the key that was refused was given back.
        for (key, is_admitted) in keys.iter().zip(admitted) {
            assert_eq!(left(&gate, key), [5 - u32::from(is_admitted), 0]);
        }
    });
}

/// A gate with one team, whose keys have a group each.
fn gate_with_group(team: u32) -> Shared {
    let plans = [plan("default", &format!("9/minute; team: {team}/minute; group write: 9/minute"))];
    let config = config(2, &plans).with_plan_slots(1).with_teams(1);
    Arc::new(support::gate(&config.with_scopes(&["read"])))
}

/// Charges a key, its group and its team. A request that is refused has no charge.
///
/// It returns no verdicts, which would take much of the stack, which is small in loom.
fn write(gate: &Shared, key: &Key, cost: u32) -> (Outcome, Option<Reason>) {
    let part = gate.part(Some(key.expose().as_bytes()), cost).with_group("write").unwrap();
    let compound = part.check(at(1));
    let charged = compound.verdicts().filter(|verdict| verdict.charge().is_some()).count();
    assert_eq!(charged, if compound.is_admitted() { 3 } else { 0 });
    (compound.outcome(), compound.reason())
}

/// Returns the units left to the key, to its group and to its team.
fn all_left(gate: &Shared, key: &Key) -> [u32; 3] {
    let part = gate.part(Some(key.expose().as_bytes()), 0).with_group("write").unwrap();
    let compound = part.peek(at(1));
    [0, 2, 1].map(|tally| compound.tallies()[tally].verdict().remaining().unwrap())
}

#[test]
fn killed_request_has_charged_the_first_of_its_tallies() {
    // The exchanges are those of the key, of its group and of its team.
    for visit in [1, 2, 3] {
        explore(preemptions(2, 3), move || {
            let gate = gate_with_group(9);
            let (key, _) = issue(&gate, 1);
            let (shared, checked) = (Arc::clone(&gate), Arc::clone(&key));
            let request = with(&gate, move |gate| write(gate, &checked, 3));
            killed_at((Stop::Decided, visit), request, move || {
                let mut left = [9, 9, 9];
                left[..visit as usize - 1].fill(6);
                assert_eq!(all_left(&shared, &key), left);
                let requests = [1, 2].map(|cost| {
                    let key = Arc::clone(&key);
                    with(&shared, move |gate| write(gate, &key, cost).0)
                });
                assert_eq!(together(requests), [Outcome::Admitted; 2]);
                assert_eq!(all_left(&shared, &key), left.map(|left| left - 3));
            });
        });
    }
}

#[test]
fn request_stopped_before_its_team_gives_back_or_completes() {
    // The team keeps room for the stopped request, or does not.
    for (team, is_admitted) in [(5, true), (4, false)] {
        explore(preemptions(2, 3), move || {
            let gate = gate_with_group(team);
            let keys = [1, 2].map(|seed| issue(&gate, seed).0);
            let (shared, other) = (Arc::clone(&gate), Arc::clone(&keys[1]));
            let checked = Arc::clone(&keys[0]);
            let ((outcome, _), was_stopped) = at_stop(
                (Stop::Decided, 3),
                move || {
                    let requests = [0, 1].map(|_| {
                        let other = Arc::clone(&other);
                        with(&shared, move |gate| write(gate, &other, 1).0)
                    });
                    assert_eq!(together(requests), [Outcome::Admitted; 2]);
                },
                with(&gate, move |gate| write(gate, &checked, 3)),
            );
            assert!(was_stopped);
            assert_eq!(outcome == Outcome::Admitted, is_admitted);
            let cost = if is_admitted { 3 } else { 0 };
            assert_eq!(all_left(&gate, &keys[0]), [9 - cost, 9 - cost, team - 2 - cost]);
            assert_eq!(all_left(&gate, &keys[1])[..2], [7, 7]);
        });
    }
}

#[test]
fn request_whose_key_is_revoked_meanwhile_has_charged_nothing() {
    explore(preemptions(2, 3), || {
        let gate = gate_with_group(9);
        let (key, key_id) = issue(&gate, 1);
        let (other, _) = issue(&gate, 2);
        let checked = Arc::clone(&key);
        let checked_by_other = Arc::clone(&other);
        let meanwhile = [
            with(&gate, move |gate| gate.administer().unwrap().revoke(key_id).is_ok()),
            with(&gate, move |gate| write(gate, &checked_by_other, 1).0 == Outcome::Admitted),
        ];
        let ((_, reason), was_stopped) = at_stop(
            (Stop::Decided, 2),
            move || assert_eq!(together(meanwhile), [true, true]),
            with(&gate, move |gate| write(gate, &checked, 3)),
        );
        assert!(was_stopped);
        assert_eq!(reason, Some(Reason::Revoked));
        let info = gate.key(key_id, at(1)).unwrap();
        assert!(info.quotas.iter().all(|state| state.used() == 0), "{info:?}");
        assert_eq!(all_left(&gate, &other), [8, 8, 8]);
    });
}

#[test]
fn refused_request_reports_a_warning_that_stays_reached() {
    explore(preemptions(1, 2), || {
        // (units of another request meanwhile, whether the refused one reports 50 %)
        for (meanwhile, is_reported) in [(2, true), (1, false)] {
            let plans = [plan("default", "10/minute warn 50%; team: 15/minute")];
            let config = config(2, &plans).with_plan_slots(1);
            let gate = Arc::new(support::gate(&config.with_teams(1).with_scopes(&["read"])));
            let ((key, _), (other, _)) = (issue(&gate, 1), issue(&gate, 2));
            assert!(check(&gate, &key, 3).is_admitted());
            let (shared, same) = (Arc::clone(&gate), Arc::clone(&key));
            let (refused, was_stopped) = at_stop(
                (Stop::Decided, 2),
                move || {
                    let requests = [(same, meanwhile), (other, 10)].map(|(key, cost)| {
                        with(&shared, move |gate| {
                            let all = check(gate, &key, cost);
                            (all.is_admitted(), all.crossed().count())
                        })
                    });
                    // The first sees the units of the request that is stopped, so it reports
                    // nothing. The other key has its own count.
                    assert_eq!(together(requests), [(true, 0), (true, 1)]);
                },
                {
                    let (gate, key) = (Arc::clone(&gate), Arc::clone(&key));
                    Box::new(move || check(&gate, &key, 2))
                },
            );
            assert!(was_stopped && !refused.is_admitted());
            let reported = refused.crossed().map(|(_, window, percent)| (window, percent));
            assert!(reported.eq(is_reported.then_some((0, 50))));
        }
    });
}

#[test]
fn check_sees_the_old_scopes_or_the_new_ones() {
    explore(preemptions(1, 2), || {
        let gate = gate(9);
        let (key, key_id) = issue(&gate, 1);
        let checked = Arc::clone(&key);
        let [[reads, writes], _] = together([
            with(&gate, move |gate| {
                let read = check_with(gate, &checked, "read");
                [read, check_with(gate, &checked, "write")]
            }),
            with(&gate, move |gate| {
                gate.administer().unwrap().set_scopes(key_id, &["write"]).unwrap();
                [Outcome::Admitted; 2]
            }),
        ])
        .try_into()
        .unwrap();
        assert!(
            [reads, writes]
                .iter()
                .all(|&outcome| { matches!(outcome, Outcome::Admitted | Outcome::Forbidden) })
        );
        // Once the new scopes were seen, the old ones are not.
        assert!(reads != Outcome::Forbidden || writes == Outcome::Admitted);
        assert_eq!(check_with(&gate, &key, "read"), Outcome::Forbidden);
    });
}

#[test]
fn killed_change_of_scopes_is_completed_by_the_next_administrator() {
    // Before the redo record is published, while the record is written, and after it.
    for (step, is_new) in
        [(Stop::RedoWord, false), (Stop::RecordOdd, true), (Stop::RecordEven, true)]
    {
        explore(preemptions(2, 3), move || {
            let gate = gate(9);
            let (key, key_id) = issue(&gate, 1);
            let shared = Arc::clone(&gate);
            let change =
                with(&gate, move |gate| gate.administer().unwrap().set_scopes(key_id, &["write"]));
            killed_at((step, 1), change, move || {
                let checked = Arc::clone(&key);
                let [outcome, _] = together([
                    with(&shared, move |gate| check_with(gate, &checked, "write")),
                    with(&shared, |gate| {
                        gate.take_over();
                        Outcome::Admitted
                    }),
                ])
                .try_into()
                .unwrap();
                assert_eq!(outcome == Outcome::Admitted, is_new, "{outcome:?}");
                assert_eq!(check_with(&shared, &key, "write") == Outcome::Admitted, is_new);
                let mut flaws = 0;
                shared.verify(at(1), |_| flaws += 1);
                assert_eq!(flaws, 0);
            });
        });
    }
}

#[test]
fn check_that_was_stopped_does_not_charge_a_suspended_team() {
    explore(preemptions(2, 3), || {
        let gate = gate(9);
        let (key, _) = issue(&gate, 1);
        let checked = Arc::clone(&key);
        let suspend = [with(&gate, |gate| gate.administer().unwrap().set_suspended(42, true))];
        let (outcome, was_stopped) = at_stop(
            (Stop::Decided, 1),
            move || assert!(together(suspend).pop().unwrap().is_ok()),
            with(&gate, move |gate| check(gate, &checked, 1).outcome()),
        );
        // The check began before the suspension, and ends as it began.
        assert!(was_stopped);
        assert_eq!(outcome, Outcome::Admitted);
        let later = [0, 1].map(|_| {
            let key = Arc::clone(&key);
            with(&gate, move |gate| check(gate, &key, 1).reason())
        });
        assert_eq!(together(later), [Some(Reason::Suspended); 2]);
    });
}
