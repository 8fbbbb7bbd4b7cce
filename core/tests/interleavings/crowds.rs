//! Scenarios that are too large for loom: more threads, with random operations on random schedules.

use alloc::sync::Arc;
use core::array;

use keytally_core::stop::Stop;
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_core::{Charge, KeyState, NewKey, Outcome, Timestamp};
use shuttle::rand::{Rng, thread_rng};

use crate::gate;
use crate::limiter::INSERTION_STEPS;
use crate::model::{Work, at_stop, explore, killed_at, schedules, thread, together};
use crate::support::{at, check, end, limiter, name, new_key, refusing_limiter};

/// Returns a random element of `choices`.
fn draw<T: Copy>(choices: &[T]) -> T {
    choices[thread_rng().gen_range(0..choices.len())]
}

/// A limiter of two buckets in which four slots are taken and some have expired. Each of four
/// threads checks three times, random ones of five subjects. One thread is stopped at a random step
/// of an insertion until the others are done.
#[test]
fn subjects_of_four_threads_get_their_slots_and_limits() {
    explore(schedules(20_000, 2_000_000), || {
        let limiter = Arc::new(limiter("3/minute", 8));
        for old in 0..6u8 {
            limiter.check(&[0, old], 1, at(0));
        }
        for filler in 0..4u8 {
            limiter.check(&[1, filler], 1, at(120));
        }
        let done = Arc::new(AtomicU64::new(0));
        let worker = |number: usize| -> Work<[(u8, bool); 3]> {
            let (limiter, done) = (Arc::clone(&limiter), Arc::clone(&done));
            Box::new(move || {
                let check = |_| {
                    let subject = draw(&[0, 1, 2, 3, 4]);
                    let verdict = limiter.check(&[2, subject], 1, at(draw(&[120, 140, 179])));
                    assert_ne!(verdict.outcome(), Outcome::Full, "there are slots for all");
                    (subject, verdict.is_admitted())
                };
                if number > 0 {
                    let checks = array::from_fn(check);
                    done.fetch_add(1, Ordering::AcqRel);
                    return checks;
                }
                // If its random subjects need no insertion, the thread is never stopped.
                let until = Arc::clone(&done);
                let wait = move || {
                    while until.load(Ordering::Acquire) < 3 {
                        thread::yield_now();
                    }
                };
                at_stop((draw(&INSERTION_STEPS), 1), wait, || array::from_fn(check)).0
            })
        };
        let checks = together((0..4).map(worker)).concat();
        let mut subjects = 0;
        for subject in 0..5 {
            let verdicts = || checks.iter().filter(|(checked, _)| *checked == subject);
            let (requests, admitted) =
                (verdicts().count(), verdicts().filter(|(_, admitted)| *admitted).count());
            assert_eq!(admitted, requests.min(3), "subject {subject}");
            let left = limiter.peek(&[2, subject], 0, at(179)).remaining().unwrap();
            assert_eq!(usize::try_from(left), Ok(3 - admitted), "subject {subject}");
            subjects += u64::from(requests > 0);
        }
        assert_eq!(limiter.live_subjects(at(179)), 4 + subjects);
    });
}

/// Four threads check four subjects in a limiter of one bucket, in which at least two slots are
/// free.
#[test]
fn subjects_of_four_threads_fill_the_table_exactly() {
    explore(schedules(20_000, 2_000_000), || {
        let limiter = Arc::new(refusing_limiter("2/minute", 1));
        for filler in 0..6u8 {
            limiter.check(&[1, filler], 1, at(draw(&[0, 120])));
        }
        let free = 8 - limiter.live_subjects(at(120));
        let worker = |_| -> Work<[(u8, Outcome); 3]> {
            let limiter = Arc::clone(&limiter);
            Box::new(move || {
                array::from_fn(|_| {
                    let subject = draw(&[0, 1, 2, 3]);
                    (subject, limiter.check(&[2, subject], 1, at(draw(&[120, 179]))).outcome())
                })
            })
        };
        let checks = together((0..4).map(worker)).concat();
        let mut held = 0;
        for subject in 0..4 {
            let of = |outcome| checks.iter().filter(|check| **check == (subject, outcome)).count();
            let (admitted, denied) = (of(Outcome::Admitted), of(Outcome::Denied));
            assert!(admitted <= 2 && (denied == 0 || admitted == 2));
            // No subject lost its slot, so a subject with a slot never got `Full`, and no other
            // subject was charged.
            let left = limiter.peek(&[2, subject], 0, at(179)).remaining().unwrap();
            assert_eq!(usize::try_from(left), Ok(2 - admitted), "subject {subject}");
            held += u64::from(admitted > 0);
            assert!(of(Outcome::Full) == 0 || free < 4);
        }
        assert_eq!(8 - limiter.live_subjects(at(179)), free - held);
        assert!(held == free || checks.iter().all(|(_, outcome)| *outcome != Outcome::Full));
    });
}

/// A limiter of one bucket in which some slots have expired. Four threads check subjects, and those
/// without a slot share the bucket's overflow tally.
#[test]
fn subjects_of_four_threads_without_a_slot_share_one_limit() {
    explore(schedules(10_000, 1_000_000), || {
        let limiter = Arc::new(limiter("2/minute", 1));
        for filler in 0..8u8 {
            limiter.check(&[1, filler], 1, at(draw(&[0, 120])));
        }
        let worker = |_| -> Work<[(u8, bool, bool); 3]> {
            let limiter = Arc::clone(&limiter);
            Box::new(move || {
                array::from_fn(|_| {
                    let subject = draw(&[0, 1, 2, 3]);
                    let verdict = limiter.check(&[2, subject], 1, at(draw(&[120, 179])));
                    (subject, verdict.is_shared(), verdict.is_admitted())
                })
            })
        };
        let checks = together((0..4).map(worker)).concat();
        let shared = checks.iter().filter(|(_, is_shared, _)| *is_shared);
        assert_eq!(limiter.refusals(), shared.clone().count() as u64);
        let admitted = shared.filter(|(.., is_admitted)| *is_admitted).count();
        let left = limiter.refund(b"any", Charge::shared(0, at(179)), at(179)).remaining();
        assert_eq!(left.map(|left| 2 - left as usize), Some(admitted));
        for subject in 0..4 {
            let own = checks.iter().filter(|check| **check == (subject, false, true)).count();
            // A subject without a slot shows what the others left.
            let left = limiter.peek(&[2, subject], 0, at(179)).remaining().unwrap() as usize;
            assert!(own <= 2 && (own == 0 || left == 2 - own), "subject {subject}");
        }
    });
}

/// An administrator is killed at a random step of a rotation. Three threads check old and new
/// secrets and a key that is being issued. Meanwhile the next administrator completes the rotation,
/// and then issues keys, changes a plan, rotates and revokes.
#[test]
fn checks_of_three_threads_are_right_during_changes() {
    explore(schedules(20_000, 2_000_000), || {
        let shared = gate::gate(2);
        let (old, first) = gate::issue(&shared, &new_key(), 7);
        let new = gate::rotated(first, 8);
        let other = NewKey::new(2, name("live")).with_plan("pro");
        // The same calls with the same entropy on an equal gate return the same key.
        let (third, second) = {
            let equal = gate::gate(2);
            gate::issue(&equal, &new_key(), 7);
            gate::issue(&equal, &other, 9)
        };
        let stop = draw(&[
            (Stop::RedoWord, 5),
            (Stop::RedoPublished, 1),
            (Stop::RecordOdd, 1),
            (Stop::RecordWord, 3),
            (Stop::RecordWord, 5),
            (Stop::RecordEven, 1),
            (Stop::RedoWithdrawn, 1),
        ]);
        let shared_then = Arc::clone(&shared);
        let then = move || {
            let shared = shared_then;
            let administrator = gate::with(&shared, move |gate| {
                let mut administrator = gate.take_over();
                administrator.issue(&other, gate::entropy(9), at(0)).unwrap();
                administrator.assign(first, "pro").unwrap();
                let (until, entropy) = (end(100), gate::entropy(8));
                // The interrupted rotation may be complete, and `now` within its grace.
                let _ = administrator.rotate(first, until, true, entropy, at(0)).unwrap();
                administrator.revoke(second).unwrap();
                [0, 0]
            });
            let checker = || {
                let keys = [Arc::clone(&old), Arc::clone(&new), Arc::clone(&third)];
                gate::with(&shared, move |gate| {
                    let mut admitted = [0, 0];
                    for _ in 0..3 {
                        let key = draw(&[0, 1, 2]);
                        let verdict = check(gate, &keys[key], at(1));
                        admitted[key / 2] += u32::from(verdict.is_admitted());
                        if let Some(holder) = verdict.holder() {
                            let (of_first, plan) = (key < 2, holder.plan);
                            assert_eq!(holder.key_id, if of_first { first } else { second });
                            assert_eq!(holder.account, if of_first { 42 } else { 2 });
                            assert!(of_first || plan == 1);
                        }
                    }
                    admitted
                })
            };
            let admitted = together([administrator, checker(), checker(), checker()]);
            let state = |key_id, at: Timestamp| shared.key(key_id, at).unwrap();
            for (key_id, index) in [(first, 0), (second, 1)] {
                let sum: u32 = admitted.iter().map(|admitted| admitted[index]).sum();
                let info = state(key_id, at(1));
                assert_eq!(info.quotas.longest().unwrap().remaining, 4 - sum);
                assert_eq!(info.plan, 1);
            }
            assert_eq!(state(second, at(1)).state, KeyState::Revoked);
            shared.verify(at(1), |flaw| panic!("{flaw}"));
        };
        let rotate = || {
            let mut administrator = shared.administer().unwrap();
            administrator.rotate(first, end(100), false, gate::entropy(8), at(0)).unwrap()
        };
        killed_at(stop, rotate, then);
    });
}
