//! The limiter's public behavior: counting, filling, reuse, and takeover from killed inserters.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::{CacheLine, Limiter, Outcome, Timestamp};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{at, image, limiter, refusing_limiter};

#[test]
fn each_subject_has_a_quota_of_its_own() {
    let limiter = limiter("3/minute, 5/hour", 100);
    for subject in 0..100u32 {
        let admitted = (0..9)
            .filter(|_| limiter.check(&subject.to_le_bytes(), 1, at(0)).is_admitted())
            .count();
        assert_eq!(admitted, 3, "subject {subject}");
    }
    assert_eq!(limiter.live_subjects(at(0)), 100);
}

#[test]
fn limiter_reports_its_capacity_and_policy() {
    let limiter = limiter("sliding 3/minute, 5/hour", 100);
    assert_eq!((limiter.capacity(), limiter.layout().windows().len()), (100, 2));
    assert_eq!(limiter.policy(), Some("sliding 3/minute, 5/hour".parse().unwrap()));
}

#[test]
fn verdict_has_the_requested_cost_and_the_decisions_time() {
    let limiter = limiter("3/minute", 8);
    let verdict = limiter.check(b"a", 2, at(61));
    assert_eq!((verdict.cost(), verdict.now(), verdict.quotas().time()), (2, at(61), at(61)));
    let late = limiter.check(b"a", 4, at(59));
    assert_eq!(
        (late.cost(), late.now(), late.quotas().time()),
        (4, at(59), at(60)),
        "a late check is decided at the tally's time"
    );
}

#[test]
fn peek_refused_cost_and_cost_of_zero_take_no_slot() {
    let limiter = limiter("3/minute", 8);
    assert!(limiter.peek(b"a", 3, at(0)).is_admitted());
    assert!(limiter.check(b"a", 0, at(0)).is_admitted());
    assert_eq!(limiter.check(b"a", 4, at(0)).outcome(), Outcome::TooCostly);
    assert_eq!(limiter.reset(b"a", at(0)).remaining(), Some(3));
    assert_eq!(limiter.live_subjects(at(0)), 0);
}

#[test]
fn charge_can_be_refunded_settled_and_reset() {
    let limiter = limiter("10/minute", 8);
    let charge = limiter.check(b"a", 6, at(0)).charge().unwrap();
    assert_eq!(limiter.refund(b"a", charge, at(1)).remaining(), Some(10));
    let charge = limiter.check(b"a", 6, at(2)).charge().unwrap();
    let settled = limiter.settle(b"a", charge, 13, at(3));
    assert_eq!((settled.uncharged(), settled.remaining()), (3, Some(0)));
    assert_eq!(limiter.reset(b"a", at(4)).remaining(), Some(10));
    assert_eq!(limiter.peek(b"a", 10, at(4)).outcome(), Outcome::Admitted);
}

#[test]
fn reset_of_all_counts_the_subjects_that_had_some() {
    for policy in ["3/minute", "sliding 3/minute"] {
        let limiter = limiter(policy, 64);
        for subject in 0..64u32 {
            limiter.check(&subject.to_le_bytes(), 1 + subject % 3, at(0));
        }
        limiter.reset(&0u32.to_le_bytes(), at(1));
        let reserved = tallies(&limiter).iter().position(|tally| *tally == 0).unwrap();
        reserve(&limiter, reserved);
        assert_eq!(limiter.reset_all(at(2)), 63, "{policy}");
        assert_eq!(limiter.reset_all(at(2)), 0, "{policy}");
        assert_eq!(tallies(&limiter)[reserved], u64::MAX, "the reservation is not a tally");
        for subject in 0..64u32 {
            let verdict = limiter.check(&subject.to_le_bytes(), 3, at(3));
            assert!(verdict.is_admitted(), "{policy}, {subject}");
        }
        let after = tallies(&limiter);
        assert_eq!(limiter.reset_all(at(600)), 0, "the windows have passed");
        assert_eq!(tallies(&limiter), after, "expired slots can still be reused");
    }
}

/// Checks each of `subjects` subjects once. Returns how many are refused because no slot is free.
fn fill(limiter: &Limiter<impl AsRef<[CacheLine]>>, subjects: u32, now: Timestamp) -> usize {
    (0..subjects)
        .filter(|subject| limiter.check(&subject.to_le_bytes(), 1, now).outcome() == Outcome::Full)
        .count()
}

#[test]
fn limiter_at_capacity_refuses_at_most_1_in_10_000() {
    for capacity in [1, 8, 100, 10_000, 200_000] {
        let limiter = refusing_limiter("3/minute", capacity);
        let refused = fill(&limiter, capacity, at(0));
        assert!(refused * 10_000 <= capacity as usize, "{refused} of {capacity}");
        assert_eq!(limiter.live_subjects(at(0)), u64::from(capacity) - refused as u64);
    }
}

#[test]
fn full_limiter_refuses_new_subjects_and_keeps_known_ones() {
    let limiter = refusing_limiter("3/minute", 64);
    let slots = limiter.slots_total();
    fill(&limiter, 4000, at(0));
    assert_eq!(limiter.live_subjects(at(0)), slots);
    let (mut full, mut known) = (0, 0);
    for subject in 0..4000u32 {
        let verdict = limiter.check(&subject.to_le_bytes(), 1, at(1));
        match verdict.outcome() {
            Outcome::Full => {
                full += 1;
                assert_eq!((verdict.http_status(), verdict.quotas().len()), (503, 0));
            }
            _ => known += 1,
        }
    }
    assert_eq!((known, full), (slots, 4000 - slots));
}

#[test]
fn full_limiter_reports_when_a_slot_will_be_free() {
    let limiter = refusing_limiter("3/minute", 64);
    fill(&limiter, 4000, at(5));
    let subject = (0..4000u32)
        .find(|subject| limiter.check(&subject.to_le_bytes(), 1, at(6)).outcome() == Outcome::Full);
    let subject = subject.unwrap().to_le_bytes();
    let wait = u64::from(limiter.check(&subject, 1, at(6)).retry_after_s().unwrap());
    assert_eq!(wait, 55, "the slots are kept until 1 s after the end of their minute");
    assert_eq!(limiter.check(&subject, 1, at(6 + wait - 1)).outcome(), Outcome::Full);
    assert_eq!(limiter.check(&subject, 1, at(6 + wait)).outcome(), Outcome::Admitted);
}

#[test]
fn slots_of_expired_subjects_are_reused() {
    let limiter = limiter("3/minute", 64);
    for minute in 0..50 {
        for subject in 0..64u32 {
            let name = [subject.to_le_bytes(), u32::to_le_bytes(minute)].concat();
            // The slot's new subject finds it again, whichever subject had it before.
            for left in [2, 1, 0] {
                let verdict = limiter.check(&name, 1, at(u64::from(minute) * 120));
                let result = (verdict.outcome(), verdict.remaining());
                assert_eq!(
                    result,
                    (Outcome::Admitted, Some(left)),
                    "minute {minute}, subject {subject}"
                );
            }
        }
    }
}

#[test]
fn slots_that_a_wrong_clock_filled_are_freed_by_correction() {
    let limiter = refusing_limiter("3/minute", 64);
    let ten_years = 10 * 365 * 86_400;
    fill(&limiter, 4000, at(ten_years));
    // Explicit times correct nothing.
    let full = limiter.check(b"newcomer", 1, at(120));
    assert_eq!(full.outcome(), Outcome::Full);
    assert!(u64::from(full.retry_after_s().unwrap()) >= ten_years - 120, "the true wait");
    // After `correct_clock`, the slots are free 1 s after the end of the minute of its time.
    assert_eq!(limiter.correct_clock(at(0)), limiter.slots_total());
    assert_eq!(limiter.check(b"newcomer", 1, at(60)).outcome(), Outcome::Full);
    assert_eq!(limiter.check(b"newcomer", 1, at(61)).outcome(), Outcome::Admitted);
}

#[test]
fn late_clock_finds_its_subject_and_opens_no_new_window() {
    let limiter = refusing_limiter("3/minute", 1);
    for _ in 0..3 {
        assert!(limiter.check(b"a", 1, at(59)).is_admitted());
    }
    // A clock in the next minute inserts enough other subjects to request every slot. It is ahead
    // by less than a second, so the slot of `a` is kept.
    fill(&limiter, 1000, Timestamp::from_unix_ms(at(60).unix_ms() + 999));
    assert_eq!(limiter.check(b"a", 1, at(59)).outcome(), Outcome::Denied);
}

/// A step back of the clock by more than 1 s admits the limit a second time, but only if the slot
/// was reused before the step.
#[test]
fn clock_set_back_reopens_one_window_per_step_and_reuse() {
    let mut reuses = 0;
    for other in 0..32u32 {
        let limiter = refusing_limiter("3/minute", 1);
        let admitted = || (0..9).filter(|_| limiter.check(b"a", 1, at(59)).is_admitted()).count();
        assert_eq!(admitted(), 3);
        limiter.check(&other.to_le_bytes(), 1, at(61));
        let is_reused = limiter.peek(b"a", 0, at(59)).remaining() == Some(3);
        assert_eq!(admitted(), if is_reused { 3 } else { 0 });
        assert_eq!(admitted(), 0, "one window for each reuse");
        reuses += u32::from(is_reused);
    }
    assert!((1..32).contains(&reuses), "{reuses} of 32 take the slot");
}

#[test]
fn locks_of_killed_inserters_are_taken_over() {
    let limiter = refusing_limiter("3/minute", 64);
    // Every bucket is locked by an inserter that was killed.
    let buckets = usize::try_from(limiter.slots_total()).unwrap() / 8;
    let memory = limiter.memory();
    // A lock word of all ones is locked. Each is followed by an overflow tally.
    for line in &memory[memory.len() - buckets.div_ceil(4)..] {
        (0..4).for_each(|bucket| line.store(2 * bucket, u64::MAX));
    }
    assert_eq!(fill(&limiter, 64, at(0)), 0);
    assert_eq!(limiter.live_subjects(at(0)), 64);
}

/// The line of the first slot, after a header of three lines.
const SLOTS_AT: usize = 3;

/// Returns the tally of each slot.
fn tallies(limiter: &Limiter<Vec<CacheLine>>) -> Vec<u64> {
    let lines = usize::try_from(limiter.slots_total()).unwrap() / 4;
    let words = image(&limiter.memory()[SLOTS_AT..SLOTS_AT + lines]);
    words.chunks(2).map(|slot| slot[1]).collect()
}

/// Puts the reservation of a killed inserter into a slot: its stamp is all ones.
fn reserve(limiter: &Limiter<Vec<CacheLine>>, slot: usize) {
    limiter.memory()[SLOTS_AT + slot / 4].store(slot % 4 * 2 + 1, u64::MAX);
}

#[test]
fn reservation_of_a_killed_inserter_counts_for_no_subject() {
    let limiter = limiter("3/minute", 4);
    limiter.check(b"a", 1, at(0));
    reserve(&limiter, tallies(&limiter).iter().position(|tally| *tally != 0).unwrap());
    assert_eq!(limiter.live_subjects(at(0)), 0);
    assert_eq!(limiter.peek(b"a", 3, at(0)).remaining(), Some(3));
    assert_eq!(limiter.check(b"a", 1, at(0)).remaining(), Some(2));
    assert_eq!(
        (limiter.check(b"a", 1, at(0)).remaining(), limiter.live_subjects(at(0))),
        (Some(1), 1)
    );
    assert!(!tallies(&limiter).contains(&u64::MAX), "the reservation is gone");
}

/// Two buckets are full except for the reservation of a killed inserter in one of them. A new
/// subject gets that slot if either of its buckets has it.
#[test]
fn reservation_of_a_killed_inserter_is_reused_in_both_buckets() {
    let admitted = |newcomer: u32, reserved: usize| {
        let limiter = refusing_limiter("3/minute", 10);
        fill(&limiter, 1000, at(0));
        assert_eq!((limiter.live_subjects(at(0)), limiter.slots_total()), (16, 16));
        reserve(&limiter, reserved);
        limiter.check(&newcomer.to_le_bytes(), 1, at(0)).is_admitted()
    };
    let mut from_both = 0;
    for newcomer in 1000..1020 {
        // A slot of each bucket.
        let [one, other] = [0, 15].map(|reserved| admitted(newcomer, reserved));
        assert!(one || other, "{newcomer}");
        from_both += usize::from(one && other);
    }
    assert!(from_both > 3, "about half have two buckets");
}

#[test]
fn threads_that_insert_one_subject_share_one_quota() {
    for round in 0..200u32 {
        let limiter = limiter("5/minute", 8);
        let admitted: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..40u32)
                            .filter(|subject| {
                                limiter
                                    .check(&(subject % 8).to_le_bytes(), 1, at(u64::from(round)))
                                    .is_admitted()
                            })
                            .count()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(
            (admitted, limiter.live_subjects(at(u64::from(round)))),
            (40, 8),
            "round {round}"
        );
    }
}
