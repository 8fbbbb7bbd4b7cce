//! Tests of the decision by single cases.

use super::*;
use crate::policy::Policy;

/// A noon in UTC, in Unix milliseconds.
const NOON: u64 = 1_700_049_600_000;

/// The moment `after_noon` milliseconds after [`NOON`].
fn ms(after_noon: u64) -> Timestamp {
    Timestamp::from_unix_ms(NOON + after_noon)
}

/// Checks one unit `times` times at `now`, and returns the last decision.
fn spend(policy: &Policy, mut word: u64, now: Timestamp, times: u32) -> Decision {
    let mut last = peek(policy.layout(), &policy.limits(), word, now, 1);
    for _ in 0..times {
        last = check(policy.layout(), &policy.limits(), word, now, 1);
        word = last.next;
    }
    last
}

/// The units that remain in each of two windows.
fn left(policy: &Policy, word: u64, now: Timestamp) -> [u32; 2] {
    let quotas = quotas(policy.layout(), &policy.limits(), word, now);
    [0, 1].map(|index| quotas.get(index).unwrap().remaining)
}

/// The time at which one more unit is admitted.
fn retry_at(policy: &Policy, word: u64, now: Timestamp) -> Timestamp {
    quotas(policy.layout(), &policy.limits(), word, now).room_at(1)
}

#[test]
fn check_above_a_minutes_limit_waits_for_the_next_minute() {
    let policy: Policy = "100/minute, 1000/hour".parse().unwrap();
    let last = spend(&policy, 0, ms(1500), 100);
    assert_eq!(last.outcome, Outcome::Admitted);
    assert_eq!(left(&policy, last.next, ms(1500)), [0, 900]);
    let denied = spend(&policy, last.next, ms(1500), 1);
    assert_eq!(denied.outcome, Outcome::Denied);
    assert_eq!(denied.next, last.next);
    assert_eq!(retry_at(&policy, denied.next, ms(1500)), ms(60_000));
    assert_eq!(spend(&policy, last.next, ms(59_999), 1).outcome, Outcome::Denied);
    assert_eq!(spend(&policy, last.next, ms(60_000), 1).outcome, Outcome::Admitted);
}

#[test]
fn sliding_window_admits_as_the_previous_count_fades() {
    let policy: Policy = "sliding 10/10s".parse().unwrap();
    let full = spend(&policy, 0, ms(9_999), 10).next;
    assert_eq!(spend(&policy, full, ms(10_000), 1).outcome, Outcome::Denied);
    let denied = spend(&policy, full, ms(10_001), 1);
    assert_eq!(retry_at(&policy, denied.next, ms(10_001)), ms(11_000));
    assert_eq!(spend(&policy, full, ms(10_999), 1).outcome, Outcome::Denied);
    assert_eq!(spend(&policy, full, ms(11_000), 1).outcome, Outcome::Admitted);
}

#[test]
fn late_clock_takes_the_time_of_the_tally() {
    let policy: Policy = "5/minute, 9/hour".parse().unwrap();
    let full = spend(&policy, 0, ms(0), 5).next;
    let before = Timestamp::from_unix_ms(NOON - 3_600_000);
    let late = spend(&policy, full, before, 1);
    let time = quotas(policy.layout(), &policy.limits(), full, before).time();
    assert_eq!((late.outcome, time), (Outcome::Denied, ms(0)));
}

/// A system clock with its first and its second reading.
#[derive(Clone, Copy)]
struct TwoReadings(Timestamp, Timestamp);

impl Clock for TwoReadings {
    const IS_SYSTEM: bool = true;

    fn reading(self) -> Timestamp {
        self.0
    }

    fn reread(self) -> Option<Timestamp> {
        Some(self.1)
    }
}

#[test]
fn no_decision_moves_a_stamp_back() {
    for text in ["5/minute, 9/hour", "sliding 5/minute, 9/hour"] {
        let policy: Policy = text.parse().unwrap();
        let (layout, limits) = (policy.layout(), &policy.limits());
        let ahead = spend(&policy, 0, ms(3_660_000), 4).next;
        let charge = TallyCharge { cost: 1, at: ms(3_660_000) };
        for now in [0, NOON - 3_600_000, NOON, NOON + 3_599_999].map(Timestamp::from_unix_ms) {
            assert_eq!(
                check(layout, limits, ahead, now, 1),
                check(layout, limits, ahead, ms(3_660_000), 1)
            );
            assert_eq!(check(layout, limits, ahead, now, 2).next, ahead, "a denial");
            for next in [
                peek(layout, limits, ahead, now, 1).next,
                refund(layout, limits, ahead, now, charge).next,
                settle(layout, limits, ahead, now, charge, 2).next,
                reset(layout, limits, ahead, now).next,
            ] {
                assert_eq!(layout.stamp(next), layout.stamp(ahead));
            }
        }
    }
}

#[test]
fn correction_needs_a_reading_after_the_load() {
    let policy: Policy = "5/minute, 9/hour".parse().unwrap();
    let ahead = spend(&policy, 0, ms(3_660_000), 4).next;
    let correction = |first: u64, second: u64| {
        let mut now = ms(first);
        let clock = TwoReadings(now, ms(second));
        (correction(policy.layout(), ahead, &mut now, clock), now)
    };
    assert_eq!(correction(0, 3_660_000), (None, ms(3_660_000)), "the first reading was stale");
    assert_eq!(correction(0, 3_600_000), (None, ms(3_600_000)), "ahead by the tolerance");
    assert_eq!(correction(3_700_000, 0), (None, ms(3_700_000)), "not ahead of the first reading");
    assert_eq!(correction(3_600_000, 0), (None, ms(3_600_000)), "the later reading counts");
    let (corrected, now) = correction(0, 3_599_999);
    assert_eq!((left(&policy, corrected.unwrap(), now), now), ([1, 5], ms(3_599_999)));
    assert_eq!(super::correction(policy.layout(), ahead, &mut ms(0), ms(0)), None, "explicit");
}

#[test]
fn first_decision_differs_with_time_only_in_its_stamp() {
    for text in ["5/minute, 9/hour", "sliding 5/minute, 9/hour"] {
        let policy: Policy = text.parse().unwrap();
        let (layout, limits) = (policy.layout(), &policy.limits());
        for cost in [0, 1, 5, 6, 10] {
            let [first, later] =
                [ms(0), ms(7_777_777)].map(|now| check(layout, limits, 0, now, cost));
            assert_eq!(first.outcome, later.outcome);
            if first.next != 0 {
                assert_eq!(layout.with_stamp(first.next, layout.stamp(later.next)), later.next);
            }
        }
    }
}

#[test]
fn waits_count_from_the_later_time_within_the_tolerance() {
    assert_eq!(waits_from(ms(0), ms(60_000)), ms(60_000));
    assert_eq!(waits_from(ms(0), ms(60_001)), ms(0));
    assert_eq!(waits_from(ms(5), ms(0)), ms(5));
}

#[test]
fn refund_reaches_only_windows_that_count_the_charge() {
    let policy: Policy = "5/minute, 9/hour".parse().unwrap();
    let charged = check(policy.layout(), &policy.limits(), 0, ms(0), 5);
    let charge = TallyCharge { cost: 5, at: ms(0) };
    let refunded = refund(policy.layout(), &policy.limits(), charged.next, ms(59_000), charge);
    assert_eq!(left(&policy, refunded.next, ms(59_000)), [5, 9]);
    let minute_later = spend(&policy, charged.next, ms(60_000), 2).next;
    let refunded = refund(policy.layout(), &policy.limits(), minute_later, ms(61_000), charge);
    assert_eq!(left(&policy, refunded.next, ms(61_000)), [3, 7]);
    let hour_later = spend(&policy, charged.next, ms(3_600_000), 2).next;
    assert_eq!(
        refund(policy.layout(), &policy.limits(), hour_later, ms(3_600_000), charge).next,
        hour_later
    );
}

#[test]
fn settle_above_the_estimate_charges_up_to_the_limit() {
    let policy: Policy = "5/minute, 9/hour".parse().unwrap();
    let reserved = check(policy.layout(), &policy.limits(), 0, ms(0), 2);
    let charge = TallyCharge { cost: 2, at: ms(0) };
    let over = settle(policy.layout(), &policy.limits(), reserved.next, ms(0), charge, 8);
    assert_eq!(over.uncharged, 3);
    assert_eq!(left(&policy, over.next, ms(0)), [0, 4]);
    let under = settle(policy.layout(), &policy.limits(), reserved.next, ms(0), charge, 0);
    assert_eq!((under.uncharged, left(&policy, under.next, ms(0))), (0, [5, 9]));
    let rest = settle(policy.layout(), &policy.limits(), over.next, ms(0), charge, u32::MAX);
    assert_eq!((rest.uncharged, rest.next), (u32::MAX - 2, over.next));
}

#[test]
fn extreme_values_of_every_range_do_not_overflow() {
    for text in [
        "1/second",
        "2147483647/second",
        "4294967295/31d",
        "sliding 65535/31d",
        "sliding 7/s,7/m,7/h,7/d",
    ] {
        let policy: Policy = text.parse().unwrap();
        for word in [0, 1, u64::MAX, u64::MAX >> 1, 1 << 63] {
            for now in [0, 1, u64::MAX - 1, u64::MAX].map(Timestamp::from_unix_ms) {
                for cost in [0, 1, policy.quotas()[0].limit, u32::MAX] {
                    let charge = TallyCharge { cost, at: now };
                    let (layout, limits) = (policy.layout(), &policy.limits());
                    let decision = check(layout, limits, word, now, cost);
                    let quotas = quotas(layout, limits, decision.next, now);
                    assert!(quotas.iter().all(|quota| quota.remaining <= quota.limit));
                    peek(layout, limits, word, now, cost);
                    refund(layout, limits, word, now, charge);
                    settle(layout, limits, word, now, charge, u32::MAX - cost);
                    reset(layout, limits, word, now);
                }
            }
        }
    }
}
