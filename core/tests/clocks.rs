//! Tests with clocks that disagree, jump, stand still, or are wrong. They count admissions by the
//! time of each decision, `Charge::at`, and assert that no window holds more than its limit.
//!
//! A clock that is late, by any amount, never opens a window again. A clock that ran ahead opens
//! one when its stamp is corrected, by a check with a system clock or by `correct_clock`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::Barrier;
use std::thread;

use keytally_core::sync::{AtomicU64, Ordering::SeqCst};
use keytally_core::{CacheLine, Charge, Clock, Gate, Limiter, Outcome, Policy, Timestamp, Verdict};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{NOON_S, config, entropy, gate, issue, limiter, new_key, plan, refusing_limiter};

const NOON_MS: u64 = NOON_S * 1000;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const TEN_YEARS: u64 = 3653 * 24 * HOUR;

const POLICIES: [&str; 7] = [
    "1/second",
    "7/second, 40/10s, 100/minute",
    "20/minute",
    "20/minute, 100/hour",
    "sliding 20/minute",
    "sliding 20/minute, 100/hour",
    "5/second, 50/minute, 500/hour, 5000/day",
];

fn ms(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

/// A table of one key or one subject, so that each test runs on a gate and on a limiter.
trait Table: Sync {
    /// Checks at an explicit time.
    fn check(&self, cost: u32, now: Timestamp) -> Verdict;
    /// Checks by a system clock.
    fn check_by(&self, cost: u32, clock: TwoReadings) -> Verdict;
    fn refund(&self, charge: Charge, now: Timestamp);
    /// Corrects tallies that are ahead of `now`, and returns their number.
    fn correct(&self, now: Timestamp) -> u64;
}

impl Table for Limiter<Vec<CacheLine>> {
    fn check(&self, cost: u32, now: Timestamp) -> Verdict {
        Limiter::check(self, b"subject", cost, now)
    }

    fn check_by(&self, cost: u32, clock: TwoReadings) -> Verdict {
        Limiter::check(self, b"subject", cost, clock)
    }

    fn correct(&self, now: Timestamp) -> u64 {
        self.correct_clock(now)
    }

    fn refund(&self, charge: Charge, now: Timestamp) {
        Limiter::refund(self, b"subject", charge, now);
    }
}

/// A gate and the text of its only key.
struct OneKey {
    gate: Gate<Vec<CacheLine>>,
    key: String,
}

impl Table for OneKey {
    fn check(&self, cost: u32, now: Timestamp) -> Verdict {
        self.gate.check(Some(self.key.as_bytes()), cost, now)
    }

    fn check_by(&self, cost: u32, clock: TwoReadings) -> Verdict {
        self.gate.check(Some(self.key.as_bytes()), cost, clock)
    }

    fn correct(&self, now: Timestamp) -> u64 {
        self.gate.correct_clock(now)
    }

    fn refund(&self, charge: Charge, now: Timestamp) {
        let id = self.gate.list(now).next().unwrap().key_id;
        self.gate.refund(id, charge, now).unwrap();
    }
}

/// A limiter and a gate of this policy.
fn tables(policy: &Policy) -> [Box<dyn Table>; 2] {
    let text = policy.to_string();
    let gate = gate(&config(8, &[plan("default", &text)]));
    let key = issue(&gate, &new_key(), entropy(9)).0.expose().to_owned();
    [Box::new(limiter(&text, 8)), Box::new(OneKey { gate, key })]
}

/// The units admitted in each window, by the window's length in seconds and its number since the
/// epoch.
#[derive(Debug, Default)]
struct Admitted(HashMap<(u32, u64), u64>);

impl Admitted {
    /// Adds the charge of a verdict. Returns whether the request was admitted.
    fn add(&mut self, policy: &Policy, verdict: &Verdict) -> bool {
        let Some(charge) = verdict.charge() else { return false };
        for quota in policy.quotas() {
            let length = quota.window.seconds();
            let number = charge.at().unix_s() / u64::from(length);
            *self.0.entry((length, number)).or_default() += u64::from(charge.cost());
        }
        true
    }

    fn join(&mut self, other: Self) {
        for (window, count) in other.0 {
            *self.0.entry(window).or_default() += count;
        }
    }

    /// Asserts that no window admitted more than `1 + extra` times its limit.
    fn assert_within(&self, policy: &Policy, extra: u64) {
        for quota in policy.quotas() {
            let limit = u64::from(quota.limit);
            for ((length, number), count) in &self.0 {
                assert!(
                    *length != quota.window.seconds() || *count <= limit * (1 + extra),
                    "{policy}: {count} in window {number} of {length} s"
                );
            }
        }
    }
}

/// Returns the next pseudo-random number below `bound`.
fn random(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) % bound
}

/// The most milliseconds by which the threads' correct clocks differ.
const APART: u64 = 5 * SECOND;

/// Lets four threads check concurrently. `wrong` turns a correct time into the time of a thread's
/// clock; its arguments are the thread, the state of its random numbers, and the correct time.
///
/// All threads pass from one moment to the next together. A thread that the scheduler delayed would
/// otherwise be late by more than the test intends.
fn together(
    policy: &Policy,
    table: &dyn Table,
    wrong: impl Fn(usize, &mut u64, u64) -> u64 + Sync,
) -> Admitted {
    const THREADS: usize = 4;
    const MOMENTS: u64 = 300;
    const CHECKS: u64 = 10;
    let moment = Barrier::new(THREADS);
    let mut admitted = Admitted::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (moment, wrong) = (&moment, &wrong);
                scope.spawn(move || {
                    let (mut state, mut moments) = (thread as u64, 1000);
                    let mut admitted = Admitted::default();
                    let mut right = NOON_MS;
                    for _ in 0..MOMENTS {
                        moment.wait();
                        for _ in 0..CHECKS {
                            let right = right + random(&mut state, APART);
                            let now = ms(wrong(thread, &mut state, right));
                            let cost = u32::try_from(random(&mut state, 3)).unwrap() + 1;
                            admitted.add(policy, &table.check(cost, now));
                        }
                        // The next moment is the same for all threads.
                        right += random(&mut moments, 30 * SECOND);
                    }
                    admitted
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| admitted.join(thread.join().unwrap()));
    });
    admitted
}

#[test]
fn clocks_that_disagree_by_a_minute_widen_no_limit() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        for table in tables(&policy) {
            // Each thread's clock is late by a constant. Together with the difference of correct
            // clocks, that is at most a minute.
            let admitted = together(&policy, &*table, |thread, _, right| {
                right - [0, 15, 35, 55][thread] * SECOND
            });
            admitted.assert_within(&policy, 0);
        }
        for table in tables(&policy) {
            // Each check is late by another amount.
            let admitted = together(&policy, &*table, |_, state, right| {
                right - random(state, MINUTE - APART + 1)
            });
            admitted.assert_within(&policy, 0);
        }
    }
}

/// A stopped process continues with a reading that is hours old, or a clock is set back by any
/// amount.
#[test]
fn late_times_by_any_amount_widen_no_limit() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        for table in tables(&policy) {
            let admitted = together(&policy, &*table, |_, state, right| match random(state, 6) {
                0 => right - HOUR,
                1 => right - 61 * SECOND,
                2 => right - TEN_YEARS,
                3 => 0,
                _ => right,
            });
            admitted.assert_within(&policy, 0);
        }
    }
}

/// A system clock with its first and its second reading.
#[derive(Clone, Copy)]
struct TwoReadings {
    first: Timestamp,
    second: Timestamp,
}

impl Clock for TwoReadings {
    const IS_SYSTEM: bool = true;

    fn reading(self) -> Timestamp {
        self.first
    }

    fn reread(self) -> Option<Timestamp> {
        Some(self.second)
    }
}

/// The caller read the system clock, was stopped for a while, and continues.
#[test]
fn stopped_caller_with_the_system_clock_corrects_nothing() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        let limit = policy.quotas()[0].limit;
        for table in tables(&policy) {
            let mut admitted = Admitted::default();
            while admitted.add(&policy, &table.check(1, ms(NOON_MS))) {}
            for stopped_ms in [1, SECOND, 61 * SECOND, 2 * HOUR, TEN_YEARS] {
                let clock = TwoReadings { first: ms(NOON_MS - stopped_ms), second: ms(NOON_MS) };
                for _ in 0..limit {
                    let verdict = table.check_by(1, clock);
                    admitted.add(&policy, &verdict);
                    assert_eq!(
                        (verdict.is_admitted(), verdict.now()),
                        (false, ms(NOON_MS)),
                        "{policy}"
                    );
                }
            }
            assert!(!table.check(1, ms(NOON_MS)).is_admitted());
            admitted.assert_within(&policy, 0);
        }
    }
}

/// The first reading comes from a clock that is late. The second one is in a later window.
#[test]
fn full_window_of_an_old_reading_denies_nothing() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        let longest = policy.quotas().last().unwrap().window;
        let later = ms(NOON_MS + 2 * u64::from(longest.seconds()) * SECOND);
        for table in tables(&policy) {
            while table.check(1, ms(NOON_MS)).is_admitted() {}
            let verdict = table.check_by(1, TwoReadings { first: ms(NOON_MS), second: later });
            assert_eq!(verdict.charge().map(|charge| charge.at()), Some(later), "{policy}");
        }
    }
}

/// A denial holds at the second reading, from which the wait is counted.
#[test]
fn denial_is_of_the_last_reading() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        for table in tables(&policy) {
            while table.check(1, ms(NOON_MS)).is_admitted() {}
            let clock = TwoReadings { first: ms(NOON_MS), second: ms(NOON_MS + 1) };
            let verdict = table.check_by(1, clock);
            assert_eq!(verdict.outcome(), Outcome::Denied, "{policy}");
            assert_eq!(verdict.now(), ms(NOON_MS + 1), "{policy}");
        }
    }
}

#[test]
fn key_that_expired_between_two_readings_is_refused() {
    let gate = gate_for(8);
    let expires = ms(NOON_MS + SECOND);
    let (key, _) = issue(&gate, &new_key().with_expires(expires), entropy(9));
    let key = Some(key.expose().as_bytes());
    let second_at = |second| TwoReadings { first: ms(NOON_MS), second: ms(second) };
    while gate.check(key, 1, ms(NOON_MS)).is_admitted() {}
    // There is room in the next second, but not for a key that has expired.
    let verdict = gate.check(key, 1, second_at(NOON_MS + SECOND));
    assert_eq!(verdict.outcome(), Outcome::InvalidKey);
    let verdict = gate.check(key, 1, second_at(NOON_MS + SECOND - 1));
    assert_eq!(verdict.outcome(), Outcome::Denied);
}

#[test]
fn settle_charges_the_window_of_the_last_reading() {
    let limiter = limiter("5/minute", 8);
    let gate = gate(&config(8, &[plan("default", "5/minute")]));
    let (key, id) = issue(&gate, &new_key(), entropy(9));
    let charges = [
        limiter.check(b"subject", 5, ms(NOON_MS)).charge().unwrap(),
        gate.check(Some(key.expose().as_bytes()), 5, ms(NOON_MS)).charge().unwrap(),
    ];
    // In the minute of the charge, no unit is left. In the next minute, all are.
    for (second, uncharged) in [(ms(NOON_MS), 3), (ms(NOON_MS + MINUTE), 0)] {
        let clock = TwoReadings { first: ms(NOON_MS), second };
        let verdicts = [
            limiter.settle(b"subject", charges[0], 8, clock),
            gate.settle(id, charges[1], 8, clock).unwrap(),
        ];
        assert_eq!(verdicts.map(|verdict| verdict.uncharged()), [uncharged; 2]);
    }
}

/// A stamp that is ahead of the second reading by more than the tolerance is corrected.
#[test]
fn tally_ahead_of_the_system_clock_is_corrected() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        let unit_ms = u64::from(policy.quotas()[0].window.seconds()) * SECOND;
        let ahead_ms = (unit_ms + MINUTE).div_ceil(unit_ms) * unit_ms;
        for table in tables(&policy) {
            table.check(1, ms(NOON_MS + ahead_ms));
            let left = table.check(0, ms(NOON_MS + ahead_ms)).remaining();
            let right = TwoReadings { first: ms(NOON_MS), second: ms(NOON_MS) };
            let verdict = table.check_by(0, right);
            assert_eq!((verdict.clock_ahead_s(), verdict.remaining()), (0, left), "{policy}");
            assert_eq!(verdict.quotas().time(), ms(NOON_MS), "{policy}");
        }
        for table in tables(&policy) {
            // Correct clocks may differ by a minute, so a stamp that is less ahead stays.
            let minute = MINUTE / unit_ms * unit_ms;
            table.check(1, ms(NOON_MS + minute));
            let verdict =
                table.check_by(0, TwoReadings { first: ms(NOON_MS), second: ms(NOON_MS) });
            assert_eq!(u64::from(verdict.clock_ahead_s()), minute / SECOND, "{policy}");
        }
    }
}

/// One clock is sometimes wrong for one check.
#[test]
fn correction_admits_at_most_one_more_window() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        let tightest = policy.quotas()[0].limit;
        for wrong in [
            0,
            1,
            NOON_MS - TEN_YEARS,
            NOON_MS - 3 * 24 * HOUR,
            NOON_MS + TEN_YEARS,
            u64::MAX - 1,
            u64::MAX,
        ] {
            for table in tables(&policy) {
                let mut admitted = Admitted::default();
                let mut wrong_checks = 0;
                for round in 0..5 {
                    while admitted.add(&policy, &table.check(1, ms(NOON_MS))) {}
                    // A request by the wrong clock is charged in the window of that time.
                    wrong_checks += 1;
                    let by_wrong_clock = table.check(1, ms(wrong));
                    assert!(
                        by_wrong_clock.retry_at().is_none_or(|at| at >= by_wrong_clock.now()),
                        "{policy} {wrong} {round}"
                    );
                    // A check at an explicit time corrects nothing, and `correct_clock` does.
                    let locked = wrong > NOON_MS && by_wrong_clock.is_admitted();
                    let before = table.check(1, ms(NOON_MS));
                    assert_eq!(before.clock_ahead_s() > 60, locked, "{policy} {wrong} {round}");
                    admitted.add(&policy, &before);
                    assert_eq!(table.correct(ms(NOON_MS)) > 0, locked, "{policy} {wrong} {round}");
                    let here = table.check(0, ms(NOON_MS));
                    assert_eq!((here.is_admitted(), here.clock_ahead_s()), (true, 0));
                    assert!(here.remaining().unwrap() <= policy.quotas().last().unwrap().limit);
                }
                admitted.assert_within(&policy, wrong_checks);
                // In the next window, the whole limit is available again.
                let later = ms(NOON_MS + 62 * 24 * HOUR);
                assert!(table.check(tightest, later).is_admitted(), "{policy} {wrong}");
            }
        }
    }
}

/// Threads whose clocks are sometimes right and sometimes absurd. No check panics, hangs or
/// overflows. Every verdict is consistent, and each absurd check costs one window at most.
#[test]
fn each_absurd_clock_admits_at_most_one_more_window() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        for table in tables(&policy) {
            let absurd = AtomicU64::new(0);
            let admitted = together(&policy, &*table, |thread, state, right| {
                if thread > 0 || random(state, 300) > 0 {
                    return right;
                }
                absurd.fetch_add(1, SeqCst);
                match random(state, 6) {
                    0 => 0,
                    1 => u64::MAX,
                    2 => right + TEN_YEARS,
                    3 => right - TEN_YEARS,
                    4 => random(state, u64::MAX),
                    _ => right - HOUR,
                }
            });
            admitted.assert_within(&policy, absurd.load(SeqCst));
        }
    }
}

/// A refund for a time at which nothing was charged returns nothing.
#[test]
fn refund_by_a_wrong_clock_admits_no_more() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        for table in tables(&policy) {
            let mut admitted = Admitted::default();
            while admitted.add(&policy, &table.check(1, ms(NOON_MS))) {}
            for at in [0, 1, NOON_MS - TEN_YEARS, NOON_MS - 2 * HOUR, NOON_MS + TEN_YEARS, u64::MAX]
            {
                // A refund of a charge that was never made.
                table.refund(Charge::new(u32::MAX, ms(at)), ms(NOON_MS));
                let verdict = table.check(1, ms(NOON_MS));
                let previous_window = policy.algorithm() == keytally_core::Algorithm::Sliding;
                assert!(!verdict.is_admitted() || previous_window, "{policy}: a refund of {at}");
            }
            admitted.assert_within(&policy, 0);
        }
    }
}

/// Keys expire, and graces end, by the caller's clock. A wrong clock does not affect callers with
/// another clock.
#[test]
fn absurd_clock_expires_no_key_for_other_callers() {
    let plans = [plan("default", "20/minute, 100/hour")];
    let gate = gate(&config(8, &plans).with_hints(true));
    let expires = ms(NOON_MS + HOUR);
    let new = new_key().with_expires(expires);
    let (old, id) = issue(&gate, &new, entropy(9));
    let grace_until = ms(NOON_MS + MINUTE);
    let key = gate
        .administer()
        .unwrap()
        .rotate(id, Some(grace_until), false, entropy(8), ms(NOON_MS))
        .unwrap();
    let admitted = |key: &str, at: u64| gate.check(Some(key.as_bytes()), 1, ms(at)).is_admitted();
    for _ in 0..3 {
        assert!(!admitted(key.expose(), u64::MAX) && !admitted(old.expose(), u64::MAX));
        assert!(admitted(key.expose(), NOON_MS) && admitted(old.expose(), NOON_MS));
        assert!(!admitted(old.expose(), NOON_MS + 60 * SECOND));
        assert!(
            admitted(key.expose(), NOON_MS + HOUR - 1) && !admitted(key.expose(), NOON_MS + HOUR)
        );
        // By a clock at the epoch both are valid, since nothing has expired.
        assert!(admitted(key.expose(), 0) && admitted(old.expose(), 0));
        let listed = gate.list(ms(u64::MAX)).chain(gate.list(ms(0))).count();
        assert_eq!(listed, 2);
        gate.verify(ms(NOON_MS), |flaw| {
            assert!(flaw.to_string().contains("wrong clock"), "{flaw}");
        });
    }
}

/// A gate of this capacity for five requests a second.
fn gate_for(keys: u32) -> Gate<Vec<CacheLine>> {
    gate(&config(keys, &[plan("default", "5/second")]))
}

/// A caller read the system clock, was stopped until the key had expired, and finds the tally ahead
/// of its reading.
#[test]
fn key_that_expired_during_a_stop_is_refused() {
    let gate = gate_for(8);
    let expires = ms(NOON_MS + HOUR);
    let new = new_key().with_expires(expires);
    let (key, _) = issue(&gate, &new, entropy(9));
    let key = Some(key.expose().as_bytes());
    assert!(gate.check(key, 1, ms(NOON_MS + 2 * MINUTE)).is_admitted());
    let stopped_for = |ms_later| TwoReadings { first: ms(NOON_MS), second: ms(NOON_MS + ms_later) };
    assert!(gate.check(key, 1, stopped_for(HOUR - SECOND)).is_admitted());
    assert!(!gate.check(key, 1, stopped_for(HOUR)).is_admitted());
}

/// A revoked key's tally, whose stamp comes from a clock that ran ahead, keeps its record from
/// another key only until the tally is corrected and its windows have passed.
#[test]
fn record_whose_tally_is_ahead_is_reused() {
    let gate = gate_for(1);
    let new = new_key();
    let issue = |number, at: u64| {
        let clock = TwoReadings { first: ms(at), second: ms(at) };
        gate.administer().unwrap().issue(&new, entropy(number), clock)
    };
    let (key, id) = issue(9, NOON_MS).unwrap();
    assert!(gate.check(Some(key.expose().as_bytes()), 1, ms(NOON_MS + 24 * HOUR)).is_admitted());
    gate.administer().unwrap().revoke(id).unwrap();
    // The first attempt corrects the tally. Its windows pass from that time on.
    assert!(issue(8, NOON_MS + MINUTE).is_err());
    assert!(issue(8, NOON_MS + 3 * MINUTE).is_ok());
}

/// A caller read the system clock, was stopped, and finds no slot that was free at the time of that
/// reading.
#[test]
fn limiter_that_emptied_during_a_stop_is_not_full() {
    let limiter = refusing_limiter("2/minute", 5);
    let is_full = |subject: u32, clock: TwoReadings| {
        Limiter::check(&limiter, &subject.to_le_bytes(), 1, clock).outcome() == Outcome::Full
    };
    let at = |first: u64, second: u64| TwoReadings { first: ms(first), second: ms(second) };
    let mut subjects = 0..1000;
    assert!(
        subjects.any(|subject| is_full(subject, at(NOON_MS, NOON_MS))),
        "a thousand subjects fill a table of five"
    );
    for subject in subjects {
        assert!(!is_full(subject, at(NOON_MS, NOON_MS + HOUR + u64::from(subject) * HOUR)));
    }
}
