//! The overflow tallies: what happens to the subjects that find no slot in a limiter.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::{CacheLine, Charge, Limiter, OnFull, Outcome, Timestamp, Verdict, check_all};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{at, limiter, limiter_of_seed, refusing_limiter};

type InMemory = Limiter<Vec<CacheLine>>;

/// A limiter of one bucket, whose eight slots are taken.
fn full(policy: &str) -> InMemory {
    let limiter = limiter(policy, 1);
    for subject in 0..8 {
        assert!(!check(&limiter, subject, 0).is_shared());
    }
    assert_eq!((limiter.live_subjects(at(0)), limiter.refusals()), (8, 0));
    limiter
}

/// Checks a subject with a number, with a cost of 1.
fn check(limiter: &InMemory, subject: u32, seconds: u64) -> Verdict {
    limiter.check(&subject.to_le_bytes(), 1, at(seconds))
}

/// Returns the units left in the overflow tally of a limiter of one bucket.
fn shared_remaining(limiter: &InMemory, now: Timestamp) -> Option<u32> {
    limiter.refund(b"any", Charge::shared(0, now), now).remaining()
}

#[test]
fn subjects_without_a_slot_share_one_limit() {
    for (policy, limit) in [("3/minute", 3), ("sliding 5/minute", 5), ("9/minute, 4/hour", 4)] {
        let limiter = full(policy);
        let verdicts: Vec<_> = (100..120).map(|newcomer| check(&limiter, newcomer, 1)).collect();
        let admitted = verdicts.iter().filter(|verdict| verdict.is_admitted());
        assert_eq!(admitted.count(), limit, "{policy}");
        for denied in &verdicts[limit..] {
            assert_eq!((denied.outcome(), denied.http_status()), (Outcome::Denied, 429));
            assert!(denied.retry_after_s().is_some() && denied.charge().is_none());
        }
        assert!(verdicts.iter().all(Verdict::is_shared));
        assert_eq!((limiter.live_subjects(at(1)), limiter.refusals()), (8, 20));
        // Those with a slot keep what they have.
        assert_eq!(check(&limiter, 0, 1).remaining(), Some(u32::try_from(limit).unwrap() - 2));
    }
}

#[test]
fn each_bucket_has_an_overflow_tally_of_its_own() {
    let limiter = limiter("1/minute", 1000);
    let buckets = limiter.slots_total() / 8;
    let requests = (0..20_000).map(|subject| check(&limiter, subject, 0));
    assert_eq!(requests.count(), 20_000);
    assert_eq!(limiter.live_subjects(at(0)), limiter.slots_total());
    let verdicts = (0..20_000).map(|subject| check(&limiter, subject, 60));
    let shared = verdicts.filter(|verdict| verdict.is_admitted() && verdict.is_shared()).count();
    assert_eq!(shared as u64, buckets, "one unit of each");
}

#[test]
fn refusing_limiter_refuses_and_counts_newcomers() {
    let limiter = full("3/minute");
    limiter.set_on_full(OnFull::Refuse);
    let refused = check(&limiter, 100, 1);
    assert_eq!((refused.outcome(), refused.is_shared()), (Outcome::Full, false));
    assert_eq!((limiter.refusals(), limiter.peek(b"x", 3, at(1)).is_admitted()), (1, true));
    // Every handle of the table follows the choice, and none is forgotten.
    let memory = limiter.memory();
    let other = Limiter::attach(&memory[..]).unwrap();
    assert_eq!((other.on_full(), other.refusals()), (OnFull::Refuse, 1));
    other.set_on_full(OnFull::Share);
    assert!(check(&limiter, 100, 1).is_admitted());
}

#[test]
fn charge_of_the_overflow_tally_is_refunded_there() {
    let limiter = full("9/minute");
    let (subject, own) = (100_u32.to_le_bytes(), 0_u32.to_le_bytes());
    let charge = limiter.check(&subject, 5, at(1)).charge().unwrap();
    assert_eq!(charge, Charge::shared(5, at(1)));
    assert_eq!(Charge::from_bytes(&charge.to_bytes()), Some(charge));
    assert_eq!(limiter.refund(&own, Charge::new(1, at(0)), at(1)).remaining(), Some(9));
    assert_eq!(limiter.settle(&subject, charge, 3, at(1)).remaining(), Some(9 - 3));
    let rest = Charge::shared(3, at(1));
    let settled = limiter.settle(&subject, rest, 11, at(1));
    assert_eq!((settled.remaining(), settled.uncharged(), settled.charge()), (Some(0), 2, None));
    assert_eq!(limiter.refund(&subject, Charge::shared(9, at(1)), at(1)).remaining(), Some(9));
}

/// The subject was charged to the overflow tally, and then gets a slot in the same hour.
#[test]
fn refund_after_the_subject_got_a_slot_changes_the_charged_tally() {
    let limiter = limiter("2/minute, 9/hour", 1);
    let mut slots = (0..8).map(|slot: u32| (slot, 3600 * u64::from(slot == 7)));
    // The slots are taken in two hours, so that seven of them become free in the second.
    assert!(slots.all(|(slot, seconds)| check(&limiter, slot, seconds).is_admitted()));
    let subject = 100_u32.to_le_bytes();
    let shared = limiter.check(&subject, 2, at(3600)).charge().unwrap();
    assert_eq!(shared, Charge::shared(2, at(3600)));
    let own = limiter.check(&subject, 2, at(3601)).charge().unwrap();
    assert_eq!(own, Charge::new(2, at(3601)), "a whole limit again");
    let refunded = limiter.refund(&subject, shared, at(3601));
    assert_eq!((refunded.remaining(), refunded.is_shared()), (Some(9), false));
    assert_eq!(limiter.peek(&subject, 0, at(3601)).remaining(), Some(7), "its own is unchanged");
    assert_eq!(limiter.refund(&subject, own, at(3601)).remaining(), Some(9));
}

#[test]
fn peek_and_reset_without_a_slot_find_the_overflow_tally() {
    let limiter = full("3/minute");
    assert!(check(&limiter, 100, 1).is_admitted());
    let other = 101_u32.to_le_bytes();
    assert_eq!(limiter.peek(&other, 1, at(1)).remaining(), Some(2));
    let denied = limiter.peek(&other, 3, at(1));
    assert_eq!((denied.outcome(), denied.is_shared()), (Outcome::Denied, false));
    assert_eq!(limiter.reset(&other, at(1)).remaining(), Some(3));
    assert_eq!(shared_remaining(&limiter, at(1)), Some(3));
    // A subject with a slot has its own. So has one that a check would insert.
    assert_eq!(limiter.peek(&0_u32.to_le_bytes(), 0, at(1)).remaining(), Some(2));
    assert!(check(&limiter, 100, 1).is_admitted());
    assert_eq!(limiter.peek(&other, 3, at(61)).remaining(), Some(3));
}

#[test]
fn reset_and_correction_of_all_include_the_overflow_tallies() {
    let limiter = full("3/minute");
    let ahead = 3600;
    assert!(check(&limiter, 100, 1).is_admitted());
    assert_eq!(limiter.reset_all(at(1)), 8, "the subjects");
    assert_eq!(shared_remaining(&limiter, at(1)), Some(3));
    // The time of the slots' tallies is right, and that of the overflow tally is ahead.
    (0..8).for_each(|subject| assert!(check(&limiter, subject, 1).is_admitted()));
    let wrong = limiter.refund(b"any", Charge::shared(0, at(1)), at(ahead));
    assert_eq!(wrong.remaining(), Some(3));
    let charged = limiter.settle(b"any", Charge::shared(0, at(ahead)), 2, at(ahead));
    assert_eq!(charged.remaining(), Some(1));
    assert_eq!(limiter.correct_clock(at(1)), 1);
    assert_eq!(shared_remaining(&limiter, at(1)), Some(1), "the counts are kept");
}

#[test]
fn late_time_opens_no_window_of_an_overflow_tally() {
    let limiter = full("3/minute");
    // The windows of the slots have passed, but the slots are kept for another second.
    let admitted = |seconds| (0..9).filter(|_| check(&limiter, 100, seconds).is_admitted()).count();
    assert_eq!([59, 60, 59, 60, 0].map(admitted), [3, 3, 0, 0, 0]);
}

#[test]
fn compound_charge_of_an_overflow_tally_is_given_back_there() {
    let addresses = full("9/minute");
    let users = limiter_of_seed(9, "2/minute", 8);
    let subject = 100_u32.to_le_bytes();
    let request = |cost| {
        check_all(&[&addresses.part(&subject, cost), &users.part(b"ann", 1)], at(1)).unwrap()
    };
    let charge = request(4).charge(0).unwrap();
    assert_eq!(charge, Charge::shared(4, at(1)));
    assert_eq!(shared_remaining(&addresses, at(1)), Some(5));
    assert!(request(1).is_admitted());
    assert!(!request(1).is_admitted(), "the user has no units left");
    assert_eq!(shared_remaining(&addresses, at(1)), Some(4), "a refused request charges nothing");
    assert_eq!(addresses.refund(&subject, charge, at(1)).remaining(), Some(8));
}

#[test]
fn threads_that_share_an_overflow_tally_stay_within_its_limit() {
    let limiter = full("100/minute");
    let admitted: usize = std::thread::scope(|scope| {
        let worker = |thread: u32| {
            let limiter = &limiter;
            let subjects = thread * 1000 + 100..thread * 1000 + 200;
            scope.spawn(move || {
                subjects.filter(|subject| check(limiter, *subject, 1).is_admitted()).count()
            })
        };
        let workers: Vec<_> = (0..4).map(worker).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!((admitted, limiter.refusals()), (100, 400));
}

/// The words that other programs write are decided on like tallies.
#[test]
fn damaged_overflow_tally_makes_no_call_panic() {
    for policy in ["3/minute", "sliding 5/second, 9/hour", "1/31d, 4/month", "7/week"] {
        let limiter = full(policy);
        let damaged = [u64::MAX, u64::MAX << 24, u64::MAX >> 1, 1, 1 << 63];
        for word in damaged {
            let last = limiter.memory().last().unwrap();
            last.store(1, word);
            for now in [at(0), Timestamp::from_unix_ms(0), Timestamp::from_unix_ms(u64::MAX)] {
                let charge = Charge::shared(1, now);
                let verdicts = [
                    limiter.check(b"new", 1, at(0)),
                    limiter.peek(b"new", 1, at(0)),
                    limiter.settle(b"new", charge, 2, now),
                    limiter.refund(b"new", charge, now),
                    limiter.reset(b"new", at(0)),
                ];
                assert!(
                    verdicts.iter().all(|verdict| verdict.headers().as_str().ends_with("\r\n")
                        || verdict.quotas().is_empty())
                );
                assert!(limiter.list(now).count() <= 9);
                limiter.correct_clock(at(0));
                limiter.reset_all(now);
            }
        }
    }
}

/// A flood of 170,000 addresses fills a limiter for 65,536. It continues while 1,000 others begin
/// to send five requests each.
#[test]
fn newcomers_are_served_during_a_flood() {
    const FLOOD: usize = 170_000;
    const NEWCOMERS: u32 = 1000;
    let served = |limiter: InMemory| {
        let policy = limiter.policy().unwrap();
        assert_eq!(policy.to_string(), "20/minute, 200/hour");
        // Each address of the flood sends one request.
        let mut flood = 0..;
        let mut flood = |requests: usize| {
            let sent = flood.by_ref().take(requests).map(|host| check(&limiter, host, 1));
            assert_eq!(sent.count(), requests);
        };
        flood(FLOOD);
        let newcomers = u32::MAX - NEWCOMERS..u32::MAX;
        let admitted = newcomers.map(|newcomer| {
            flood(10);
            (0..5).filter(|_| check(&limiter, newcomer, 2).is_admitted()).count()
        });
        let (mut whole, mut none) = (0, 0);
        for admitted in admitted {
            whole += u32::from(admitted == 5);
            none += u32::from(admitted == 0);
        }
        (whole, none)
    };
    let (whole, none) = served(limiter("20/minute, 200/hour", 65_536));
    assert!(whole > 950 && none < 10, "{whole} served in full, {none} not at all");
    let (whole, none) = served(refusing_limiter("20/minute, 200/hour", 65_536));
    assert!((whole, none) == (0, NEWCOMERS), "{whole} served in full, {none} not at all");
}
