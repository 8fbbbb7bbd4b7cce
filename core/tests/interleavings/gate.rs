//! Scenarios of a gate: checks while an administrator issues, rotates, revokes, reuses records and
//! changes plans, and opening while another thread creates the gate.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::Cell;

use keytally_core::stop::Stop;
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_core::{
    AdminError, AttachError, CacheLine, Entropy, Gate, GateConfig, Key, KeyId, KeyState, NewKey,
    Plan, Reason, Timestamp, Verdict,
};

use crate::model::{
    Stale, Work, at_stop, explore, full_form_only, join, killed_at, preemptions, start, together,
};
use crate::support::{self, at, check, end, memory, name, new_key, peppers, plan};

pub(crate) type Shared = Arc<Gate<Vec<CacheLine>>>;

/// Two plans in one line of the header.
///
/// They are not on the stack, which is small in loom.
fn plans(default: &str, pro: &str) -> Vec<Plan> {
    [("default", default), ("pro", pro)].iter().map(|(name, text)| plan(name, text)).collect()
}

fn config(plans: &[Plan], keys: u32) -> GateConfig<'_> {
    support::config(keys, plans).with_plan_slots(2)
}

pub(crate) fn gate_of(plans: &[Plan], keys: u32) -> Shared {
    Arc::new(support::gate(&config(plans, keys)))
}

/// A gate of `keys` keys that admit two requests a minute, or four with the plan `pro`.
pub(crate) fn gate(keys: u32) -> Shared {
    gate_of(&plans("2/minute", "4/minute"), keys)
}

/// Entropy from which [`rotated`] can make the same secret.
pub(crate) fn entropy(seed: u8) -> Entropy {
    Entropy::new([seed; 24])
}

/// Issues a key at noon.
pub(crate) fn issue(gate: &Shared, new: &NewKey<'_>, seed: u8) -> (Arc<Key>, KeyId) {
    let (key, key_id) = support::issue(gate, new, entropy(seed));
    (Arc::new(key), key_id)
}

/// The key that the next rotation with this seed will make.
pub(crate) fn rotated(key_id: KeyId, seed: u8) -> Arc<Key> {
    Arc::new(Key::mint(name("kt"), name("live"), key_id, &[seed; 16]).unwrap())
}

pub(crate) fn remaining(gate: &Shared, key: &Key, now: Timestamp) -> u32 {
    gate.peek(Some(key.expose().as_bytes()), 0, now).remaining().unwrap()
}

/// Returns the work of a thread that shares the gate.
pub(crate) fn with<T>(gate: &Shared, work: impl FnOnce(&Shared) -> T + Send + 'static) -> Work<T> {
    let gate = Arc::clone(gate);
    Box::new(move || work(&gate))
}

/// A flag by which a thread shows to the others that an operation is done.
#[derive(Clone)]
struct Flag(Arc<AtomicU64>);

impl Flag {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    fn raise(&self) {
        self.0.store(1, Ordering::Release);
    }

    fn is_up(&self) -> bool {
        self.0.load(Ordering::Acquire) == 1
    }
}

#[test]
fn check_after_a_revocation_is_refused() {
    explore(preemptions(3, 5), || {
        let gate = gate(1);
        let (key, key_id) = issue(&gate, &new_key(), 7);
        let (done, checked) = (Flag::new(), Arc::clone(&key));
        let raised = done.clone();
        let admitted = together([
            with(&gate, move |gate| {
                gate.administer().unwrap().revoke(key_id).unwrap();
                raised.raise();
                0
            }),
            with(&gate, move |gate| {
                let revoked = done.is_up();
                let verdict = check(gate, &checked, at(1));
                if revoked || !verdict.is_admitted() {
                    assert_eq!(verdict.reason(), Some(Reason::Revoked));
                }
                u32::from(verdict.is_admitted())
            }),
        ]);
        assert_eq!(check(&gate, &key, at(1)).reason(), Some(Reason::Revoked));
        let info = gate.key(key_id, at(1)).unwrap();
        assert_eq!(info.quotas.longest().unwrap().remaining, 2 - admitted[1]);
    });
}

#[test]
fn rotated_key_stays_valid_and_spends_one_quota() {
    explore(preemptions(1, 3), || {
        let gate = gate(1);
        let (old, key_id) = issue(&gate, &new_key(), 7);
        let new = rotated(key_id, 8);
        let (done, keys) = (Flag::new(), [Arc::clone(&old), Arc::clone(&new)]);
        let raised = done.clone();
        let admitted = together([
            with(&gate, move |gate| {
                gate.administer()
                    .unwrap()
                    .rotate(key_id, end(100), false, entropy(8), at(0))
                    .unwrap();
                raised.raise();
                0
            }),
            with(&gate, move |gate| {
                let [old, new] = keys;
                assert!(check(gate, &old, at(1)).is_admitted());
                let rotated = done.is_up();
                let verdict = check(gate, &new, at(1));
                if !verdict.is_admitted() {
                    assert_eq!((rotated, verdict.reason()), (false, Some(Reason::WrongSecret)));
                }
                1 + u32::from(verdict.is_admitted())
            }),
        ]);
        for key in [old, new] {
            assert_eq!(remaining(&gate, &key, at(1)), 2 - admitted[1]);
        }
    });
}

/// The second secret is always valid: after the first rotation it is the current one, after the
/// second rotation the previous one. A reader could reject it only by combining the previous secret
/// of the first rotation with the current secret of the second.
///
/// The reader starts near the end of the first rotation. An earlier start would let it load more
/// old values, and thus need more interleavings than can be tried.
#[test]
fn two_rotations_are_never_read_as_a_mixture() {
    for begun in [Stop::RecordEven, Stop::HintKept, Stop::RedoWithdrawn] {
        explore(preemptions(1, 3), move || two_rotations((begun, 1)));
    }
}

/// The reader starts while the first rotation still writes the record, so it may load words of both
/// redo records.
#[test]
fn two_redo_records_are_never_read_as_one() {
    explore(full_form_only(0), || two_rotations((Stop::RecordWord, 6)));
}

fn two_rotations(begun: (Stop, u32)) {
    let gate = gate(1);
    let (_, key_id) = issue(&gate, &new_key(), 7);
    let second = rotated(key_id, 8);
    let mut administrator = gate.administer().unwrap();
    let readers = Rc::new(Cell::new(Vec::new()));
    let started = Rc::clone(&readers);
    let reader = with(&gate, move |gate| assert!(check(gate, &second, at(1)).is_admitted()));
    let (_, stopped) = at_stop(
        begun,
        move || started.set(start([reader])),
        || {
            administrator.rotate(key_id, end(100), false, entropy(8), at(0)).unwrap();
            administrator.rotate(key_id, end(200), true, entropy(9), at(0)).unwrap();
        },
    );
    assert!(stopped);
    join(readers.take());
}

/// The record of a revoked key is reused. The administrator first rewrites it unchanged, so that
/// late checks detect the reuse. The reader starts after that. An earlier start would need more
/// interleavings than can be tried.
#[test]
fn reused_record_is_read_as_one_key_or_the_other() {
    for begun in [(Stop::PreviousKeyEnded, 1), (Stop::RedoPublished, 2)] {
        explore(preemptions(1, 2), move || {
            let gate = gate(1);
            let (_, first) = issue(&gate, &new_key(), 7);
            gate.administer().unwrap().revoke(first).unwrap();
            let readers = Rc::new(Cell::new(Vec::new()));
            let started = Rc::clone(&readers);
            let reader = with(&gate, move |gate| {
                let info = gate.list(at(130)).next().expect("no record is lost to a reader");
                let seen = (info.account, info.plan, info.state, info.expires);
                let old = (42, 0, KeyState::Revoked, None);
                let new = (2, 1, KeyState::Active, end(999));
                assert!(seen == if info.key_id == first { old } else { new }, "{info:?}");
            });
            let (_, stopped) = at_stop(
                begun,
                move || started.set(start([reader])),
                || {
                    let new = NewKey::new(2, name("live")).with_plan("pro").with_expires(end(999));
                    gate.administer().unwrap().issue(&new, entropy(9), at(130)).unwrap();
                },
            );
            assert!(stopped);
            join(readers.take());
        });
    }
}

#[test]
fn stale_check_never_moves_a_tally_back() {
    explore(preemptions(3, 5), || {
        let gate = gate(1);
        let (key, _) = issue(&gate, &new_key(), 7);
        let (first, second) = (Arc::clone(&key), Arc::clone(&key));
        let now = Stale { first: at(200), again: at(200) };
        let text = |key: &Key| key.expose().as_bytes().to_vec();
        let verdicts = together([
            with(&gate, move |gate| {
                let stale = Stale { first: at(0), again: at(200) };
                [gate.check(Some(&text(&first)), 2, stale)].to_vec()
            }),
            with(&gate, move |gate| {
                [1, 1].map(|cost| gate.check(Some(&text(&second)), cost, now)).to_vec()
            }),
        ])
        .concat();
        let charges = verdicts.iter().filter_map(Verdict::charge);
        let present: u32 =
            charges.filter(|charge| charge.at() >= at(180)).map(|charge| charge.cost()).sum();
        let after = gate.check(Some(&text(&key)), 1, now);
        assert!(present <= 2 && !after.is_admitted(), "{verdicts:?} {after:?}");
        assert_eq!(after.quotas().time(), at(200));
    });
}

/// By the late clock, the key is still valid. Its charge may be lost, since the key has expired,
/// but never goes to the key that has the record now.
#[test]
fn late_check_never_charges_the_next_key_of_the_record() {
    explore(preemptions(3, 5), || {
        let gate = gate(1);
        let (old, first) = issue(&gate, &new_key().with_expires(end(90)), 7);
        let administrators = Rc::new(Cell::new(Vec::new()));
        let started = Rc::clone(&administrators);
        let administrator = with(&gate, |gate| {
            let issued = gate.administer().unwrap().issue(&new_key(), entropy(9), at(130));
            // If the late charge came first, the record cannot be reused yet.
            issued.map_err(|error| assert_eq!(error, AdminError::Full { keys: 1 })).ok()
        });
        let (verdict, _) = at_stop(
            (Stop::KeyVerified, 1),
            move || started.set(start([administrator])),
            || check(&gate, &old, at(70)),
        );
        if verdict.is_admitted() {
            assert_eq!((verdict.holder().unwrap().key_id, verdict.remaining()), (first, Some(1)));
        } else {
            assert!(
                matches!(verdict.reason(), Some(Reason::Revoked) | Some(Reason::Unknown)),
                "{verdict:?}"
            );
        }
        match join(administrators.take()).pop().unwrap() {
            Some((key, _)) => assert_eq!(remaining(&gate, &key, at(130)), 2),
            None => assert!(verdict.is_admitted()),
        }
    });
}

/// A key is revoked, without any charge, in the minute in which it was issued. The tally of another
/// key in its record would begin with the same word, and a late charge would succeed. The record is
/// therefore not reused before the minute has passed.
#[test]
fn late_check_never_charges_a_key_of_the_same_minute() {
    explore(preemptions(3, 5), || {
        let gate = gate(1);
        let (old, first) = issue(&gate, &new_key(), 7);
        let administrators = Rc::new(Cell::new(Vec::new()));
        let started = Rc::clone(&administrators);
        let administrator = with(&gate, move |gate| {
            let mut administrator = gate.administer().unwrap();
            administrator.revoke(first).unwrap();
            administrator.issue(&new_key(), entropy(9), at(0))
        });
        let _ = at_stop(
            (Stop::KeyVerified, 1),
            move || started.set(start([administrator])),
            || check(&gate, &old, at(0)),
        );
        if let Some(Ok((key, _))) = join(administrators.take()).pop() {
            assert_eq!(remaining(&gate, &key, at(0)), 2);
        }
    });
}

#[test]
fn new_key_is_complete_when_it_is_first_valid() {
    explore(preemptions(2, 3), || {
        let gate = gate(1);
        let new = NewKey::new(2, name("test")).with_plan("pro");
        // An equal gate returns the same key for the same entropy.
        let key = {
            let equal = self::gate(1);
            let issued = equal.administer().unwrap().issue(&new, entropy(9), at(130)).unwrap();
            Arc::new(issued.0)
        };
        let (done, checked) = (Flag::new(), Arc::clone(&key));
        let raised = done.clone();
        let admitted = together([
            with(&gate, move |gate| {
                gate.administer().unwrap().issue(&new, entropy(9), at(130)).unwrap();
                raised.raise();
                0
            }),
            with(&gate, move |gate| {
                let issued = done.is_up();
                let verdict = check(gate, &checked, at(130));
                if verdict.is_admitted() {
                    let holder = verdict.holder().unwrap();
                    assert_eq!((holder.account, verdict.remaining()), (2, Some(3)));
                    assert_eq!(gate.env(holder.env), Some(name("test")));
                } else {
                    assert_eq!((issued, verdict.reason()), (false, Some(Reason::Unknown)));
                }
                u32::from(verdict.is_admitted())
            }),
        ]);
        assert_eq!(remaining(&gate, &key, at(130)), 4 - admitted[1]);
    });
}

#[test]
fn imported_key_is_valid_once_its_import_is_done() {
    const TEXT: &[u8] = b"sk_another_issuer_0123456789";
    explore(preemptions(4, 7), || {
        let gate = gate(1);
        let done = Flag::new();
        let raised = done.clone();
        together([
            with(&gate, move |gate| {
                gate.administer().unwrap().import(TEXT, &new_key(), at(0)).unwrap();
                raised.raise();
            }),
            with(&gate, move |gate| {
                let first = gate.check(Some(TEXT), 1, at(0));
                let imported = done.is_up() || first.is_admitted();
                let second = gate.check(Some(TEXT), 1, at(0));
                assert!(second.is_admitted() || !imported, "{second:?}");
            }),
        ]);
    });
}

#[test]
fn key_that_changes_plan_has_the_limits_of_one_plan() {
    explore(preemptions(2, 4), || {
        let gate = gate_of(&plans("1/minute, 9/hour", "2/minute, 3/hour"), 1);
        let (key, key_id) = issue(&gate, &new_key(), 7);
        let admitted = together([
            with(&gate, move |gate| {
                gate.administer().unwrap().assign(key_id, "pro").unwrap();
                0
            }),
            with(&gate, move |gate| {
                let mut admitted = 0;
                for _ in 0..2 {
                    let verdict = check(gate, &key, at(0));
                    assert!([[1, 9], [2, 3]].contains(&limits(&verdict)), "{verdict:?}");
                    admitted += u32::from(verdict.is_admitted());
                }
                admitted
            }),
        ]);
        let info = gate.key(key_id, at(0)).unwrap();
        assert_eq!(info.quotas.longest().unwrap().remaining, 3 - admitted[1]);
    });
}

fn limits(verdict: &Verdict) -> [u32; 2] {
    [0, 1].map(|index| verdict.quotas().get(index).unwrap().limit)
}

#[test]
fn each_limit_of_a_changing_plan_is_the_old_or_the_new_one() {
    explore(preemptions(4, 6), || {
        let gate = gate_of(&plans("1/minute, 9/hour", "1/minute, 1/hour"), 1);
        let (key, key_id) = issue(&gate, &new_key(), 7);
        let done = Flag::new();
        let raised = done.clone();
        let admitted = together([
            with(&gate, move |gate| {
                gate.administer().unwrap().set_plan(&plan("default", "2/minute, 3/hour")).unwrap();
                raised.raise();
                0
            }),
            with(&gate, move |gate| {
                let mut admitted = 0;
                for _ in 0..3 {
                    let changed = done.is_up();
                    let verdict = check(gate, &key, at(0));
                    let [minute, hour] = limits(&verdict);
                    assert!([1, 2].contains(&minute) && [9, 3].contains(&hour), "{verdict:?}");
                    assert!(!changed || (minute, hour) == (2, 3), "{verdict:?}");
                    admitted += u32::from(verdict.is_admitted());
                }
                admitted
            }),
        ]);
        assert!((1..=2).contains(&admitted[1]));
        let info = gate.key(key_id, at(0)).unwrap();
        assert_eq!(info.quotas.longest().unwrap().remaining, 3 - admitted[1]);
    });
}

#[test]
fn two_administrators_never_hold_one_gate() {
    explore(preemptions(9, 9), || {
        let gate = gate(2);
        let administer = |seed: u8| {
            with(&gate, move |gate| match gate.administer() {
                Ok(mut administrator) => {
                    assert!(!administrator.has_recovered(), "no change was left half-done");
                    Some(administrator.issue(&new_key(), entropy(seed), at(0)).unwrap())
                }
                Err(error) => {
                    assert_eq!(error, AdminError::Busy);
                    None
                }
            })
        };
        let issued: Vec<_> =
            together([administer(7), administer(8)]).into_iter().flatten().collect();
        assert!(!issued.is_empty());
        assert_eq!(gate.list(at(0)).count(), issued.len());
        for (key, _) in &issued {
            assert!(check(&gate, key, at(0)).is_admitted());
        }
        assert!(gate.administer().is_ok());
    });
}

#[test]
fn gate_opens_only_when_it_is_complete() {
    explore(preemptions(2, 3), || {
        let memory = memory(config(&plans("2/minute", "4/minute"), 1).lines());
        let memory: Arc<[CacheLine]> = memory.into();
        let created = Arc::clone(&memory);
        let create: Work<()> = Box::new(move || {
            let plans = plans("2/minute", "4/minute");
            let gate = Gate::init(created, &config(&plans, 1), peppers(&[1])).unwrap();
            let issued = gate.administer().unwrap().issue(&new_key(), entropy(7), at(0));
            assert!(issued.is_ok());
        });
        let open: Work<()> = Box::new(move || match Gate::attach(memory, peppers(&[1])) {
            Ok(gate) => {
                let names: Vec<_> = gate.plans().map(|(_, plan)| plan.name).collect();
                assert_eq!(
                    (gate.prefix(), &names[0][..], &names[1][..]),
                    (name("kt"), "default", "pro")
                );
                assert!(gate.list(at(0)).all(|info| info.account == 42));
            }
            Err(error) => assert_eq!(error, AttachError::Unfinished),
        });
        together([create, open]);
    });
}

/// Administrators that are killed, and the next administrator, which completes their changes while
/// checks continue.
mod stops {
    use super::*;

    /// Every step of the writing of a record, some of them several times.
    const RECORD_STEPS: [(Stop, u32); 9] = [
        (Stop::RedoWord, 8),
        (Stop::RedoPublished, 1),
        (Stop::RecordOdd, 1),
        (Stop::RecordWord, 1),
        (Stop::RecordWord, 3),
        (Stop::RecordWord, 6),
        (Stop::RecordEven, 1),
        (Stop::HintKept, 1),
        (Stop::RedoWithdrawn, 1),
    ];

    /// Whether the change takes effect if its administrator is killed at this step.
    fn is_made(stop: Stop) -> bool {
        stop != Stop::RedoWord
    }

    /// Whether the next administrator must complete the change.
    fn is_left_unfinished(stop: Stop) -> bool {
        is_made(stop) && stop != Stop::RedoWithdrawn
    }

    #[test]
    fn interrupted_rotation_blocks_no_check() {
        for stop in RECORD_STEPS {
            explore(preemptions(1, 2), move || {
                let gate = gate(1);
                let (old, key_id) = issue(&gate, &new_key(), 7);
                let new = rotated(key_id, 8);
                let shared = Arc::clone(&gate);
                let then = move || {
                    let keys = [Arc::clone(&old), Arc::clone(&new)];
                    let checks = with(&shared, move |gate| {
                        let [old, new] = keys;
                        assert!(check(gate, &old, at(1)).is_admitted());
                        let admitted = check(gate, &new, at(1)).is_admitted();
                        match stop.0 {
                            Stop::RedoWord => assert!(!admitted),
                            // The new secret is valid once the rotation has been completed.
                            Stop::RedoPublished => {}
                            _ => assert!(admitted),
                        }
                        1 + u32::from(admitted)
                    });
                    let next = with(&shared, move |gate| {
                        assert_eq!(gate.take_over().has_recovered(), is_left_unfinished(stop.0));
                        0
                    });
                    let admitted = together([checks, next])[0];
                    assert_eq!(remaining(&shared, &old, at(1)), 2 - admitted);
                    let made = shared.peek(Some(new.expose().as_bytes()), 0, at(1)).is_admitted();
                    let grace = shared.key(key_id, at(1)).unwrap().grace_until;
                    assert_eq!((made, grace.is_some()), (is_made(stop.0), is_made(stop.0)));
                    shared.verify(at(1), |flaw| panic!("{flaw}"));
                };
                let rotate = || {
                    gate.administer()
                        .unwrap()
                        .rotate(key_id, end(100), false, entropy(8), at(0))
                        .unwrap();
                };
                killed_at(stop, rotate, then);
            });
        }
    }

    #[test]
    fn interrupted_reuse_leaves_one_key_or_the_other() {
        const STEPS: [(Stop, u32); 8] = [
            (Stop::RecordWord, 3),
            (Stop::PreviousKeyEnded, 1),
            (Stop::TallyCleared, 1),
            (Stop::RedoPublished, 2),
            (Stop::RecordOdd, 2),
            (Stop::RecordWord, 7),
            (Stop::RecordWord, 12),
            (Stop::HintKept, 2),
        ];
        for stop in STEPS {
            // A reuse writes the record twice: the first write ends the former key.
            let made = stop.1 >= if stop.0 == Stop::RecordWord { 7 } else { 2 };
            explore(preemptions(1, 2), move || {
                let gate = gate(1);
                let (_, first) = issue(&gate, &new_key(), 7);
                gate.administer().unwrap().revoke(first).unwrap();
                let new = NewKey::new(2, name("live")).with_plan("pro").with_expires(end(999));
                let shared = Arc::clone(&gate);
                let then = move || {
                    let seen = move |gate: &Shared| {
                        let info =
                            gate.list(at(130)).next().expect("no record is lost to a reader");
                        let seen = (info.account, info.plan, info.state, info.expires);
                        let old = (42, 0, KeyState::Revoked, None);
                        let new = (2, 1, KeyState::Active, end(999));
                        assert!(seen == if info.key_id == first { old } else { new }, "{info:?}");
                    };
                    let next = |gate: &Shared| drop(gate.take_over());
                    together([with(&shared, seen), with(&shared, next)]);
                    let info = shared.list(at(130)).next().unwrap();
                    assert_eq!(info.key_id != first, made);
                    shared.verify(at(130), |flaw| panic!("{flaw}"));
                    let again = shared.administer().unwrap().issue(&new_key(), entropy(9), at(300));
                    assert_eq!(again.is_ok(), !made);
                };
                let reuse = || {
                    gate.administer().unwrap().issue(&new, entropy(9), at(130)).unwrap();
                };
                killed_at(stop, reuse, then);
            });
        }
    }

    #[test]
    fn interrupted_change_of_a_plan_is_completed() {
        const STEPS: [(Stop, u32); 7] = [
            (Stop::PlanRedoWord, 4),
            (Stop::PlanRedoPublished, 1),
            (Stop::PlanWord, 1),
            (Stop::PlanWord, 2),
            (Stop::PlanWord, 4),
            (Stop::PlanWritten, 1),
            (Stop::PlanRedoWithdrawn, 1),
        ];
        for stop in STEPS {
            explore(preemptions(2, 4), move || {
                let gate = gate_of(&plans("1/minute, 9/hour", "1/minute, 1/hour"), 1);
                let (key, key_id) = issue(&gate, &new_key(), 7);
                let shared = Arc::clone(&gate);
                let then = move || {
                    let checks = with(&shared, move |gate| {
                        let verdicts = [check(gate, &key, at(0)), check(gate, &key, at(0))];
                        for verdict in verdicts {
                            let [minute, hour] = limits(&verdict);
                            assert!(
                                [1, 2].contains(&minute) && [9, 3].contains(&hour),
                                "{verdict:?}"
                            );
                        }
                        assert!(verdicts[0].is_admitted());
                    });
                    let next = |gate: &Shared| drop(gate.take_over());
                    together([checks, with(&shared, next)]);
                    let quotas = shared.key(key_id, at(0)).unwrap().quotas;
                    let limits = [0, 1].map(|index| quotas.get(index).unwrap().limit);
                    let made = stop.0 != Stop::PlanRedoWord;
                    assert_eq!(limits, if made { [2, 3] } else { [1, 9] });
                };
                let change = || {
                    let plan = plan("default", "2/minute, 3/hour");
                    gate.administer().unwrap().set_plan(&plan).unwrap();
                };
                killed_at(stop, change, then);
            });
        }
    }
}
