//! Scenarios of compound charges: two requests that charge the same two tallies.

use alloc::sync::Arc;

use keytally_core::stop::Stop;
use keytally_core::{CacheLine, Compound, Limiter, Outcome, check_all};

use crate::model::{Work, at_stop, explore, killed_at, preemptions, together};
use crate::support::{at, limiter_of_seed};

type Tables = Arc<[Limiter<Vec<CacheLine>>; 2]>;

/// Two limiters whose subject `a` has `room` units left in each.
fn tables(room: [u32; 2]) -> Tables {
    let tables = [1, 2].map(|seed| limiter_of_seed(seed, "9/minute", 1));
    for (table, room) in tables.iter().zip(room) {
        assert!(table.check(b"a", 9 - room, at(0)).is_admitted());
    }
    Arc::new(tables)
}

/// Charges both tables, in the order of the parts or in the other one.
fn request(tables: &Tables, costs: [u32; 2], is_reversed: bool) -> Work<Compound> {
    let tables = Arc::clone(tables);
    Box::new(move || {
        let [one, two] = &*tables;
        let (one, two) = (one.part(b"a", costs[0]), two.part(b"a", costs[1]));
        if is_reversed {
            check_all(&[&two, &one], at(0)).unwrap()
        } else {
            check_all(&[&one, &two], at(0)).unwrap()
        }
    })
}

fn left(tables: &Tables) -> [u32; 2] {
    [0, 1].map(|table| tables[table].peek(b"a", 0, at(0)).remaining().unwrap())
}

fn admitted(all: &[Compound]) -> u32 {
    u32::try_from(all.iter().filter(|compound| compound.is_admitted()).count()).unwrap()
}

#[test]
fn of_two_requests_for_the_last_units_one_is_admitted() {
    explore(preemptions(9, 9), || {
        let tables = tables([1, 1]);
        let all = together([request(&tables, [1, 1], false), request(&tables, [1, 1], true)]);
        assert_eq!(admitted(&all), 1);
        assert_eq!(left(&tables), [0, 0]);
    });
}

#[test]
fn refused_request_has_charged_nothing() {
    explore(preemptions(9, 9), || {
        let tables = tables([3, 1]);
        let all = together([request(&tables, [1, 1], false), request(&tables, [2, 1], true)]);
        // The second table admits one of them. The other one's charge of the first is given back.
        assert_eq!(admitted(&all), 1);
        let cost = if all[0].is_admitted() { 1 } else { 2 };
        assert_eq!(left(&tables), [3 - cost, 0]);
        let refused = all.iter().find(|compound| !compound.is_admitted()).unwrap();
        assert_eq!(refused.decisive().outcome(), Outcome::Denied);
        assert!(refused.verdicts().all(|verdict| verdict.charge().is_none()));
    });
}

#[test]
fn single_check_and_compound_charge_share_a_tally() {
    explore(preemptions(9, 9), || {
        let tables = tables([2, 2]);
        let single: Work<Compound> = {
            let tables = Arc::clone(&tables);
            Box::new(move || check_all(&[&tables[1].part(b"a", 2)], at(0)).unwrap())
        };
        let all = together([request(&tables, [1, 2], false), single]);
        assert_eq!(admitted(&all), 1);
        let first = if all[0].is_admitted() { 1 } else { 2 };
        assert_eq!(left(&tables), [first, 0]);
    });
}

#[test]
fn of_three_requests_two_are_admitted() {
    explore(preemptions(2, 4), || {
        let tables = tables([2, 2]);
        let all = together([
            request(&tables, [1, 1], false),
            request(&tables, [1, 1], true),
            request(&tables, [1, 1], false),
        ]);
        assert_eq!(admitted(&all), 2);
        assert_eq!(left(&tables), [0, 0]);
    });
}

#[test]
fn killed_request_leaves_at_most_its_own_costs_charged() {
    for visit in [1, 2] {
        explore(preemptions(9, 9), move || {
            let tables = tables([5, 5]);
            let shared = Arc::clone(&tables);
            // The exchanges of a request are those of its charges.
            killed_at((Stop::Decided, visit), request(&tables, [2, 3], false), move || {
                let all =
                    together([request(&shared, [1, 1], true), request(&shared, [1, 1], false)]);
                assert_eq!(admitted(&all), 2);
                let dead = if visit == 1 { 0 } else { 2 };
                assert_eq!(left(&shared), [3 - dead, 3]);
            });
        });
    }
}

#[test]
fn request_stopped_between_its_charges_gives_the_first_back() {
    explore(preemptions(9, 9), || {
        let tables = tables([5, 2]);
        let shared = Arc::clone(&tables);
        let (compound, was_stopped) = at_stop(
            (Stop::Decided, 2),
            move || {
                let all =
                    together([request(&shared, [1, 1], true), request(&shared, [1, 1], true)]);
                assert_eq!(admitted(&all), 2);
            },
            request(&tables, [2, 1], false),
        );
        assert!(was_stopped && !compound.is_admitted());
        assert_eq!(left(&tables), [3, 0]);
    });
}
