//! Scenarios of a limiter: concurrent charges of one tally, insertions, reuse of slots, and
//! takeover of locks.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::Cell;

use keytally_core::stop::Stop;
use keytally_core::{AttachError, CacheLine, Charge, Clock, Limiter, Outcome, Timestamp, Verdict};

use crate::model::{Stale, Work, explore, preemptions, together};
use crate::support::{self, at, memory};

type Shared = Arc<Limiter<Vec<CacheLine>>>;

/// Every step of an insertion.
pub(crate) const INSERTION_STEPS: [Stop; 6] = [
    Stop::BucketLocked,
    Stop::ReservationsCanceled,
    Stop::SlotReserved,
    Stop::LocksChecked,
    Stop::OwnerWritten,
    Stop::FirstCharge,
];

/// A limiter of one bucket: eight slots.
fn one_bucket(policy: &str) -> Shared {
    limiter(policy, 1)
}

/// A limiter that refuses subjects for which it has no slot.
fn limiter(policy: &str, capacity: u32) -> Shared {
    Arc::new(support::refusing_limiter(policy, capacity))
}

/// A check on a thread of its own.
fn check(
    limiter: &Shared,
    subject: &'static [u8],
    cost: u32,
    now: impl Clock + Send + 'static,
) -> Work<Verdict> {
    let limiter = Arc::clone(limiter);
    Box::new(move || limiter.check(subject, cost, now))
}

fn count(verdicts: &[Verdict], outcome: Outcome) -> usize {
    verdicts.iter().filter(|verdict| verdict.outcome() == outcome).count()
}

/// Inserts other subjects into this many slots of the one bucket.
fn take_slots(limiter: &Shared, slots: u32, now: Timestamp) {
    for filler in 0..slots {
        assert!(limiter.check(&filler.to_le_bytes(), 1, now).is_admitted());
    }
}

fn remaining(limiter: &Shared, subject: &[u8], now: Timestamp) -> u32 {
    limiter.peek(subject, 0, now).remaining().unwrap()
}

#[test]
fn two_charges_for_one_unit_admit_one() {
    explore(preemptions(9, 9), || {
        let limiter = one_bucket("2/minute");
        limiter.check(b"a", 1, at(0));
        let verdicts = together([check(&limiter, b"a", 1, at(0)), check(&limiter, b"a", 1, at(1))]);
        assert_eq!(
            (count(&verdicts, Outcome::Admitted), count(&verdicts, Outcome::Denied)),
            (1, 1)
        );
        assert_eq!(remaining(&limiter, b"a", at(1)), 0);
    });
}

#[test]
fn three_charges_of_two_units_deny_exactly_one() {
    explore(preemptions(3, 5), || {
        let limiter = one_bucket("3/minute, 4/hour");
        limiter.check(b"a", 1, at(0));
        let verdicts = together([0, 1, 2].map(|second| check(&limiter, b"a", 1, at(second))));
        assert_eq!(
            (count(&verdicts, Outcome::Admitted), count(&verdicts, Outcome::Denied)),
            (2, 1)
        );
        assert_eq!(remaining(&limiter, b"a", at(2)), 1);
        assert_eq!(remaining(&limiter, b"a", at(60)), 1, "all windows or none");
    });
}

#[test]
fn denial_means_that_a_window_lacked_room() {
    explore(preemptions(9, 9), || {
        let limiter = one_bucket("3/minute");
        limiter.check(b"a", 1, at(0));
        // Either charge fits alone. A denial is caused by the charge of the other thread.
        let verdicts = together([check(&limiter, b"a", 1, at(0)), check(&limiter, b"a", 2, at(0))]);
        assert_eq!(
            (count(&verdicts, Outcome::Admitted), count(&verdicts, Outcome::Denied)),
            (1, 1)
        );
        let charged = if verdicts[0].is_admitted() { 1 } else { 2 };
        assert_eq!(remaining(&limiter, b"a", at(0)), 2 - charged);
    });
}

#[test]
fn concurrent_refund_and_settlement_lose_no_charge() {
    explore(preemptions(3, 5), || {
        let limiter = one_bucket("5/minute");
        let charge = limiter.check(b"a", 2, at(0)).charge().unwrap();
        let refund: Work<Verdict> = {
            let limiter = Arc::clone(&limiter);
            Box::new(move || limiter.refund(b"a", charge, at(0)))
        };
        let settle: Work<Verdict> = {
            let limiter = Arc::clone(&limiter);
            Box::new(move || {
                let charge = limiter.check(b"a", 1, at(0)).charge().unwrap();
                limiter.settle(b"a", charge, 2, at(0))
            })
        };
        let verdicts = together([refund, settle, check(&limiter, b"a", 1, at(0))]);
        assert!(verdicts[2].is_admitted());
        assert_eq!((verdicts[1].uncharged(), remaining(&limiter, b"a", at(0))), (0, 5 - 3));
    });
}

/// The system clock of a thread that is not stopped.
fn system(seconds: u64) -> Stale {
    Stale { first: at(seconds), again: at(seconds) }
}

/// The units admitted in the minute of a moment, by the time of each charge.
fn admitted_in(verdicts: &[Verdict], seconds: u64) -> u32 {
    let charges = verdicts.iter().filter_map(Verdict::charge);
    charges
        .filter(|charge| charge.at().unix_s() / 60 == at(seconds).unix_s() / 60)
        .map(|charge| charge.cost())
        .sum()
}

#[test]
fn stale_reading_reopens_no_window() {
    explore(preemptions(5, 9), || {
        let limiter = one_bucket("2/minute");
        limiter.check(b"a", 2, at(0));
        let stale = Stale { first: at(0), again: at(61) };
        let verdicts =
            together([check(&limiter, b"a", 2, stale), check(&limiter, b"a", 2, system(61))]);
        let after = limiter.check(b"a", 1, system(61));
        assert_eq!((admitted_in(&verdicts, 0), admitted_in(&verdicts, 61)), (0, 2), "{verdicts:?}");
        assert_eq!((after.outcome(), after.quotas().time()), (Outcome::Denied, at(61)));
    });
}

#[test]
fn stale_inserter_reopens_no_window() {
    explore(preemptions(3, 5), || {
        let limiter = one_bucket("2/minute");
        limiter.check(b"a", 2, at(0));
        take_slots(&limiter, 7, at(0));
        // The first slot that may be reused is the one of `a`.
        let stale = Stale { first: at(0), again: at(61) };
        let verdicts =
            together([check(&limiter, b"a", 1, stale), check(&limiter, b"b", 1, system(61))]);
        assert!(verdicts[1].is_admitted());
        assert_eq!(admitted_in(&verdicts[..1], 0), 0, "{verdicts:?}");
        assert_eq!(verdicts[0].is_admitted(), admitted_in(&verdicts[..1], 61) == 1);
    });
}

#[test]
fn two_corrections_of_one_tally_lose_no_count() {
    explore(preemptions(5, 9), || {
        let limiter = one_bucket("2/minute");
        limiter.check(b"a", 1, at(7200));
        let verdicts =
            together([check(&limiter, b"a", 1, system(0)), check(&limiter, b"a", 1, system(1))]);
        assert_eq!(
            (count(&verdicts, Outcome::Admitted), count(&verdicts, Outcome::Denied)),
            (1, 1)
        );
        let after = limiter.peek(b"a", 0, at(1));
        assert_eq!((after.remaining(), after.clock_ahead_s()), (Some(0), 0));
    });
}

#[test]
fn two_inserters_of_one_subject_share_a_slot() {
    explore(preemptions(4, 5), || {
        let limiter = one_bucket("2/minute");
        let verdicts = together([check(&limiter, b"a", 1, at(0)), check(&limiter, b"a", 1, at(0))]);
        assert_eq!(count(&verdicts, Outcome::Admitted), 2);
        assert_eq!((limiter.live_subjects(at(0)), remaining(&limiter, b"a", at(0))), (1, 0));
    });
}

#[test]
fn three_inserters_of_one_subject_share_a_slot() {
    explore(preemptions(1, 2), || {
        let limiter = one_bucket("2/minute");
        let verdicts = together([0; 3].map(|second| check(&limiter, b"a", 1, at(second))));
        assert_eq!(
            (count(&verdicts, Outcome::Admitted), count(&verdicts, Outcome::Denied)),
            (2, 1)
        );
        assert_eq!((limiter.live_subjects(at(0)), remaining(&limiter, b"a", at(0))), (1, 0));
    });
}

#[test]
fn two_new_subjects_take_two_slots() {
    explore(preemptions(3, 5), || {
        let limiter = one_bucket("1/minute");
        let verdicts = together([check(&limiter, b"a", 1, at(0)), check(&limiter, b"b", 1, at(0))]);
        assert_eq!(count(&verdicts, Outcome::Admitted), 2);
        assert_eq!(limiter.live_subjects(at(0)), 2);
        assert_eq!([b"a", b"b"].map(|subject| remaining(&limiter, subject, at(0))), [0, 0]);
    });
}

#[test]
fn two_subjects_for_the_last_slot_insert_one() {
    explore(preemptions(3, 5), || {
        let limiter = one_bucket("1/minute");
        take_slots(&limiter, 7, at(0));
        let verdicts = together([check(&limiter, b"a", 1, at(0)), check(&limiter, b"b", 1, at(0))]);
        assert_eq!((count(&verdicts, Outcome::Admitted), count(&verdicts, Outcome::Full)), (1, 1));
        assert_eq!(limiter.live_subjects(at(0)), 8);
        let left = [b"a", b"b"].map(|subject| remaining(&limiter, subject, at(0)));
        assert_eq!(left, [0, 1].map(|at: usize| u32::from(!verdicts[at].is_admitted())));
    });
}

/// An inserter that lost its lock may still reserve the slot for a moment. That is not a reason to
/// report the table full.
#[test]
fn insertion_into_the_last_slot_never_reports_full() {
    explore(preemptions(4, 5), || {
        let limiter = one_bucket("2/minute");
        take_slots(&limiter, 7, at(0));
        let verdicts = together([check(&limiter, b"a", 1, at(0)), check(&limiter, b"a", 1, at(0))]);
        assert_eq!(count(&verdicts, Outcome::Admitted), 2);
        assert_eq!((limiter.live_subjects(at(0)), remaining(&limiter, b"a", at(0))), (8, 0));
    });
}

/// The clock of `a` is a second late. Its window has passed for it, and for the clock of `b` the
/// slot can be reused.
#[test]
fn hit_and_reuse_of_a_slot_charge_their_own_subjects() {
    explore(preemptions(4, 5), || {
        let limiter = one_bucket("2/minute");
        limiter.check(b"a", 2, at(0));
        let verdicts =
            together([check(&limiter, b"a", 1, at(60)), check(&limiter, b"b", 1, at(61))]);
        assert_eq!(count(&verdicts, Outcome::Admitted), 2);
        assert_eq!(limiter.live_subjects(at(61)), 2);
        assert_eq!([b"a", b"b"].map(|subject| remaining(&limiter, subject, at(60))), [1, 1]);
    });
}

/// The slot is reassigned twice, and the second time to its first subject.
#[test]
fn hit_and_two_reuses_of_a_slot_charge_their_own_subjects() {
    explore(preemptions(3, 4), || {
        let limiter = one_bucket("9/minute");
        limiter.check(b"a", 9, at(0));
        take_slots(&limiter, 7, at(120));
        let later: Work<Verdict> = {
            let limiter = Arc::clone(&limiter);
            Box::new(move || {
                let taken = limiter.check(b"b", 4, at(120)).is_admitted();
                assert_eq!(remaining(&limiter, b"b", at(120)), if taken { 5 } else { 9 });
                limiter.check(b"a", 2, at(240))
            })
        };
        let [late, later] =
            together([check(&limiter, b"a", 1, at(180)), later]).try_into().unwrap();
        assert!(later.is_admitted());
        // If the late check comes last, it is decided at 240, so its unit counts too. While `b` has
        // the slot, it finds the table full.
        let left = remaining(&limiter, b"a", at(240));
        assert!(left == 7 || (left == 6 && late.is_admitted()), "{left}");
    });
}

#[test]
fn two_subjects_reuse_one_expired_slot() {
    explore(preemptions(3, 5), || {
        let limiter = one_bucket("2/minute");
        limiter.check(b"z", 1, at(0));
        take_slots(&limiter, 7, at(120));
        let verdicts =
            together([check(&limiter, b"a", 1, at(120)), check(&limiter, b"b", 1, at(120))]);
        assert_eq!((count(&verdicts, Outcome::Admitted), count(&verdicts, Outcome::Full)), (1, 1));
        let left = [b"a", b"b"].map(|subject| remaining(&limiter, subject, at(120)));
        assert_eq!(left, [0, 1].map(|at: usize| 2 - u32::from(verdicts[at].is_admitted())));
    });
}

/// A limiter of one bucket, whose slots are taken at second 0, with an overflow tally.
fn full_bucket(policy: &str) -> Shared {
    let limiter = Arc::new(support::limiter(policy, 1));
    take_slots(&limiter, 8, at(0));
    limiter
}

/// The units left in the overflow tally of the first bucket.
fn shared_remaining(limiter: &Shared, now: Timestamp) -> u32 {
    limiter.refund(b"any", Charge::shared(0, now), now).remaining().unwrap()
}

#[test]
fn two_newcomers_without_a_slot_share_one_limit() {
    explore(preemptions(4, 5), || {
        let limiter = full_bucket("3/minute");
        let verdicts = together([check(&limiter, b"a", 2, at(0)), check(&limiter, b"b", 2, at(0))]);
        assert!(verdicts.iter().all(Verdict::is_shared));
        assert_eq!(
            (count(&verdicts, Outcome::Admitted), count(&verdicts, Outcome::Denied)),
            (1, 1)
        );
        assert_eq!((shared_remaining(&limiter, at(0)), limiter.refusals()), (1, 2));
    });
}

/// For the clock of the first check, the slots are kept. For that of the second, a second later,
/// they can be reused.
#[test]
fn newcomer_charges_the_overflow_tally_or_a_free_slot() {
    explore(preemptions(3, 5), || {
        let limiter = full_bucket("3/minute");
        let verdicts =
            together([check(&limiter, b"a", 2, at(60)), check(&limiter, b"a", 2, at(61))]);
        // The first check also takes a slot if the second reserved one and lost its lock.
        let charged = |is_shared| -> u32 {
            let of = verdicts.iter().filter(|verdict| verdict.is_shared() == is_shared);
            of.filter_map(Verdict::charge).map(|charge| charge.cost()).sum()
        };
        assert!(!verdicts[1].is_shared());
        assert_eq!((charged(false), remaining(&limiter, b"a", at(61))), (2, 1));
        assert_eq!(shared_remaining(&limiter, at(61)), 3 - charged(true));
        assert_eq!(limiter.live_subjects(at(61)), 1);
    });
}

#[test]
fn limiter_opens_only_when_it_is_complete() {
    explore(preemptions(3, 5), || {
        let memory: Arc<[CacheLine]> = memory(Limiter::<Vec<CacheLine>>::lines(1)).into();
        let created = Arc::clone(&memory);
        let create: Work<bool> = Box::new(move || {
            let limiter = Limiter::init(created, &"2/minute".parse().unwrap(), 1, [7; 16]).unwrap();
            limiter.check(b"a", 1, at(0)).is_admitted()
        });
        let opened = Arc::clone(&memory);
        let open: Work<bool> = Box::new(move || match Limiter::attach(opened) {
            Ok(limiter) => {
                assert_eq!(limiter.policy(), Some("2/minute".parse().unwrap()));
                limiter.check(b"a", 1, at(0)).is_admitted()
            }
            Err(error) => {
                assert_eq!(error, AttachError::Unfinished);
                false
            }
        });
        let admitted: u32 = together([create, open]).into_iter().map(u32::from).sum();
        let limiter = Limiter::attach(memory).unwrap();
        assert_eq!(limiter.peek(b"a", 0, at(0)).remaining(), Some(2 - admitted));
    });
}

/// Inserters that stop permanently, or for a while.
mod stops {
    use super::*;
    use crate::model::{at_stop, join, killed_at, start};

    #[test]
    fn lock_and_reservation_of_a_killed_inserter_are_taken_over() {
        for step in INSERTION_STEPS {
            explore(preemptions(3, 4), move || {
                let limiter = one_bucket("3/minute");
                // Two slots are free. The killed inserter was taking one of them.
                take_slots(&limiter, 6, at(0));
                let counted = u32::from(step == Stop::FirstCharge);
                let shared = Arc::clone(&limiter);
                let then = move || {
                    let verdicts =
                        together([check(&shared, b"a", 1, at(0)), check(&shared, b"b", 1, at(0))]);
                    assert_eq!(count(&verdicts, Outcome::Admitted), 2, "{step:?}");
                    assert_eq!(shared.live_subjects(at(0)), 8);
                    let left = [b"a", b"b"].map(|subject| remaining(&shared, subject, at(0)));
                    assert_eq!(left, [2 - counted, 2], "{step:?}");
                };
                killed_at((step, 1), || limiter.check(b"a", 1, at(0)), then);
            });
        }
    }

    #[test]
    fn inserters_that_take_over_one_lock_share_a_slot() {
        for step in INSERTION_STEPS {
            explore(preemptions(3, 4), move || {
                let limiter = one_bucket("3/minute");
                limiter.check(b"z", 1, at(0));
                let counted = u32::from(step == Stop::FirstCharge);
                let shared = Arc::clone(&limiter);
                let then = move || {
                    let verdicts = together([
                        check(&shared, b"a", 1, at(120)),
                        check(&shared, b"a", 1, at(120)),
                    ]);
                    assert_eq!(count(&verdicts, Outcome::Admitted), 2, "{step:?}");
                    let left = remaining(&shared, b"a", at(120));
                    assert_eq!((shared.live_subjects(at(120)), left), (1, 1 - counted), "{step:?}");
                };
                killed_at((step, 1), || limiter.check(b"a", 1, at(120)), then);
            });
        }
    }

    /// The stopped inserter continues while others take its lock over, or afterwards.
    #[test]
    fn inserter_that_resumes_late_changes_no_other_slot() {
        for (step, late) in
            INSERTION_STEPS.into_iter().flat_map(|step| [(step, false), (step, true)])
        {
            explore(preemptions(1, 2), move || {
                let limiter = one_bucket("3/minute");
                limiter.check(b"z", 1, at(0));
                // Two slots are free.
                take_slots(&limiter, 6, at(120));
                let others = [check(&limiter, b"a", 1, at(120)), check(&limiter, b"b", 1, at(120))];
                let (running, finished) =
                    (Rc::new(Cell::new(Vec::new())), Rc::new(Cell::new(Vec::new())));
                let then = {
                    let (running, finished) = (Rc::clone(&running), Rc::clone(&finished));
                    move || {
                        let threads = start(others);
                        if late { finished.set(join(threads)) } else { running.set(threads) }
                    }
                };
                let (own, stopped) = at_stop((step, 1), then, || limiter.check(b"a", 1, at(120)));
                assert!(stopped);
                let mut verdicts = finished.take();
                verdicts.extend(join(running.take()));
                verdicts.push(own);
                assert_eq!(count(&verdicts, Outcome::Admitted), 3, "{step:?}");
                assert_eq!(limiter.live_subjects(at(120)), 8, "{step:?}");
                let left = [b"a", b"b"].map(|subject| remaining(&limiter, subject, at(120)));
                assert_eq!(left, [1, 2], "{step:?}");
            });
        }
    }
}

/// Scenarios with two buckets, and subjects that are chosen by their buckets.
mod two_buckets {
    use siphasher::sip::SipHasher13;

    use super::*;

    const CAPACITY: u32 = 8;

    fn two_buckets(policy: &str) -> Shared {
        let limiter = limiter(policy, CAPACITY);
        assert_eq!(limiter.slots_total(), 16);
        limiter
    }

    /// Subjects with these two buckets. The seed of the table and the arithmetic are the limiter's.
    fn subjects(buckets: [u64; 2]) -> impl Iterator<Item = [u8; 4]> {
        let seed = u64::from_le_bytes([7; 8]);
        (0u32..).map(u32::to_le_bytes).filter(move |bytes| {
            let hash = SipHasher13::new_with_keys(seed, seed).hash(bytes);
            [hash >> 63, hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63] == buckets
        })
    }

    fn subject(buckets: [u64; 2]) -> &'static [u8] {
        // `fill` inserts at most the first eight of these subjects.
        let subject = subjects(buckets).nth(8).unwrap();
        Box::leak(Box::new(subject))
    }

    fn fill(limiter: &Shared, bucket: u64, slots: usize, now: Timestamp) {
        for filler in subjects([bucket, bucket]).take(slots) {
            assert!(limiter.check(&filler, 1, now).is_admitted());
        }
    }

    #[test]
    fn inserters_into_the_second_bucket_share_a_slot() {
        explore(preemptions(3, 5), || {
            let limiter = two_buckets("2/minute");
            fill(&limiter, 0, 8, at(0));
            let spilling = subject([0, 1]);
            let verdicts = together([
                check(&limiter, spilling, 1, at(0)),
                check(&limiter, spilling, 1, at(0)),
            ]);
            assert_eq!(count(&verdicts, Outcome::Admitted), 2);
            assert_eq!(
                (limiter.live_subjects(at(0)), remaining(&limiter, spilling, at(0))),
                (9, 0)
            );
        });
    }

    /// Four slots of the first bucket are taken. If five are, an inserter prefers the second
    /// bucket.
    #[test]
    fn inserters_that_disagree_about_the_bucket_share_a_slot() {
        explore(preemptions(1, 2), || {
            let limiter = two_buckets("2/minute");
            fill(&limiter, 0, 4, at(0));
            let (either, here) = (subject([0, 1]), subject([0, 0]));
            let verdicts = together([
                check(&limiter, either, 1, at(0)),
                check(&limiter, here, 1, at(0)),
                check(&limiter, either, 1, at(0)),
            ]);
            assert_eq!(count(&verdicts, Outcome::Admitted), 3);
            assert_eq!(limiter.live_subjects(at(0)), 6);
            assert_eq!([either, here].map(|subject| remaining(&limiter, subject, at(0))), [0, 1]);
        });
    }

    /// For one clock the first bucket is full. For the other, which is a minute ahead, all its
    /// slots have expired. One inserter therefore locks both buckets, in their order, and the other
    /// locks only the first.
    #[test]
    fn inserters_with_clocks_that_disagree_share_a_slot() {
        for (first, other) in [(0, 1), (1, 0)] {
            explore(preemptions(3, 5), move || {
                let limiter = two_buckets("2/minute");
                fill(&limiter, first, 8, at(0));
                let either = subject([first, other]);
                let verdicts = together([
                    check(&limiter, either, 1, at(119)),
                    check(&limiter, either, 1, at(120)),
                ]);
                assert_eq!(count(&verdicts, Outcome::Admitted), 2);
                assert_eq!(limiter.live_subjects(at(120)), 1);
                assert!(remaining(&limiter, either, at(120)) <= 1);
            });
        }
    }

    #[test]
    fn inserters_that_need_both_locks_do_not_deadlock() {
        explore(preemptions(3, 4), || {
            let limiter = two_buckets("2/minute");
            fill(&limiter, 0, 6, at(0));
            fill(&limiter, 1, 5, at(0));
            let (one, other) = (subject([0, 1]), subject([1, 0]));
            let verdicts =
                together([check(&limiter, one, 1, at(0)), check(&limiter, other, 1, at(0))]);
            assert_eq!(count(&verdicts, Outcome::Admitted), 2);
            assert_eq!(limiter.live_subjects(at(0)), 13);
            assert_eq!([one, other].map(|subject| remaining(&limiter, subject, at(0))), [1, 1]);
        });
    }

    /// The subject's slot in the second bucket has expired, and its first bucket has room again.
    #[test]
    fn subject_whose_old_slot_is_reused_has_one_slot() {
        explore(preemptions(1, 2), || {
            let limiter = two_buckets("2/minute");
            fill(&limiter, 0, 8, at(0));
            let (either, there) = (subject([0, 1]), subject([1, 1]));
            limiter.check(either, 2, at(0));
            let verdicts = together([
                check(&limiter, either, 1, at(120)),
                check(&limiter, there, 1, at(120)),
                check(&limiter, either, 1, at(120)),
            ]);
            assert_eq!(count(&verdicts, Outcome::Admitted), 3);
            assert_eq!(limiter.live_subjects(at(120)), 2);
            assert_eq!(
                [either, there].map(|subject| remaining(&limiter, subject, at(120))),
                [0, 1]
            );
        });
    }
}
