//! Compares the core with the model on random policies, costs and clocks, and tests guarantees of
//! the core.

use keytally_core::{Outcome, Policy, TallyCharge, Timestamp, Verdict, decide};
use keytally_vectors::model::{self, Model};
use proptest::prelude::*;

/// Generates valid policy texts with one to four nested windows, and limits from 1 to the largest
/// that a tally can hold.
fn policy_text() -> impl Strategy<Value = String> {
    any::<bool>().prop_flat_map(policy_text_with_algorithm)
}

/// Generates valid policy texts for one algorithm.
fn policy_text_with_algorithm(sliding: bool) -> impl Strategy<Value = String> {
    let unit =
        prop_oneof![Just(1u32), Just(7), Just(10), Just(60), Just(90), Just(3600), Just(86_400)];
    let factors = prop::collection::vec(2u32..61, 0..4);
    let limits =
        prop::collection::vec(prop_oneof![1u32..4, 1u32..200, 1u32..5000, Just(u32::MAX)], 4);
    (unit, factors, limits).prop_filter_map(
        "the counts must fit a tally",
        move |(unit, factors, limits)| {
            let mut window = unit;
            let mut text = if sliding { "sliding ".to_owned() } else { String::new() };
            text += &format!("{}/{window}s", limits[0]);
            for (factor, limit) in factors.iter().zip(&limits[1..]) {
                window = window.checked_mul(*factor)?;
                text += &format!(", {limit}/{window}s");
            }
            text.parse::<Policy>().is_ok().then_some(text)
        },
    )
}

/// Generates the change of a clock between two requests, in milliseconds. The clock mostly
/// advances, sometimes goes back, and sometimes jumps by ten years.
fn clock_step() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0i64..2_000,
        4 => 0i64..100_000,
        2 => 0i64..8_000_000,
        2 => -100_000i64..0,
        1 => -8_000_000i64..0,
        1 => prop_oneof![Just(315_360_000_000i64), Just(-315_360_000_000)],
    ]
}

/// An operation on the tally under test.
#[derive(Debug, Clone)]
enum Op {
    /// A check of this cost.
    Check(u32),
    /// A peek of this cost.
    Peek(u32),
    /// The refund of an earlier charge. 0 is the latest charge, 1 the one before it.
    Refund(usize),
    /// The settlement of an earlier charge, counted as in `Refund`, and its actual cost.
    Settle(usize, u32),
    Reset,
}

/// Generates operations. Checks are the most frequent.
fn op() -> impl Strategy<Value = Op> {
    let cost = prop_oneof![8 => Just(1u32), 4 => 0u32..10, 2 => 0u32..5000, 1 => Just(u32::MAX)];
    prop_oneof![
        12 => cost.clone().prop_map(Op::Check),
        2 => cost.clone().prop_map(Op::Peek),
        2 => (0usize..4).prop_map(Op::Refund),
        2 => ((0usize..4), cost).prop_map(|(charge, actual)| Op::Settle(charge, actual)),
        1 => Just(Op::Reset),
    ]
}

/// Returns the number of cases: 30,000 for each property. `cargo mutants` runs the properties
/// many times, with 1,000 cases each.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("KEYTALLY_QUICK").is_some() { 1000 } else { 30_000 };
    ProptestConfig { cases, max_local_rejects: 1_000_000, ..ProptestConfig::default() }
}

/// The first time of every clock: 2026-01-01T00:00:00Z in Unix milliseconds.
const START_MS: i64 = 1_767_225_600_000;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn core_decides_as_the_model_does(
        text in policy_text(),
        steps in prop::collection::vec((op(), clock_step()), 1..60),
    ) {
        let policy: Policy = text.parse().unwrap();
        let model = Model::parse(&text).unwrap();
        let (layout, limits) = (policy.layout(), policy.limits());
        let (mut word, mut clock, mut charges) = (0u64, START_MS, Vec::new());
        for (op, step) in steps {
            clock = (clock + step).max(0);
            let now_ms = u64::try_from(clock).unwrap();
            let now = Timestamp::from_unix_ms(now_ms);
            match op {
                Op::Check(cost) | Op::Peek(cost) => {
                    let (real, expected) = match op {
                        Op::Check(_) => (decide::check(layout, &limits, word, now, cost), model.check(word, now_ms, cost)),
                        _ => (decide::peek(layout, &limits, word, now, cost), model.peek(word, now_ms, cost)),
                    };
                    prop_assert_eq!(real.outcome.as_str(), expected.outcome.name());
                    prop_assert_eq!(real.next, expected.next);
                    let verdict = Verdict::decided(layout, &limits, real, None, now, cost);
                    prop_assert_eq!(i128::from(verdict.quotas().time().unix_ms()), expected.time_ms);
                    prop_assert_eq!(verdict.retry_at().map(|at| i128::from(at.unix_ms())), expected.retry_at_ms);
                    for (quota, expected) in verdict.quotas().iter().zip(&expected.quotas) {
                        prop_assert!(quota.remaining <= quota.limit);
                        prop_assert_eq!((quota.remaining, quota.reset_unix_s), (expected.remaining, expected.reset_s));
                    }
                    if real.outcome == Outcome::Admitted && matches!(op, Op::Check(_)) {
                        charges.push(TallyCharge { cost, at: verdict.quotas().time() });
                    }
                    word = real.next;
                }
                Op::Refund(charges_ago) | Op::Settle(charges_ago, _) => {
                    let Some(index) = charges.len().checked_sub(charges_ago + 1) else { continue };
                    let charge = charges.remove(index);
                    let model_charge = model::Charge { cost: charge.cost, at_ms: charge.at.unix_ms() };
                    if let Op::Settle(_, actual) = op {
                        let expected = model.settle(word, model_charge, actual, now_ms);
                        let real = decide::settle(layout, &limits, word, now, charge, actual);
                        prop_assert_eq!((real.next, real.uncharged), (expected.next, expected.uncharged));
                        word = real.next;
                    } else {
                        let real = decide::refund(layout, &limits, word, now, charge);
                        prop_assert_eq!(real.next, model.refund(word, model_charge, now_ms));
                        word = real.next;
                    }
                }
                Op::Reset => {
                    let real = decide::reset(layout, &limits, word, now);
                    prop_assert_eq!(real.next, model.reset(word, now_ms));
                    word = real.next;
                }
            }
            for later_ms in [0, 1, 999, 1000, 7_200_000, 100_000_000] {
                let time_ms = now_ms.saturating_add(later_ms);
                let reusable = layout.is_reusable(word, Timestamp::from_unix_ms(time_ms));
                prop_assert_eq!(reusable, model.is_reusable(word, time_ms));
            }
        }
    }

    /// Includes words that no operation writes. One time is arbitrary. The other is within ten
    /// hours of the stamp.
    #[test]
    fn any_word_at_any_time_decides_as_the_model_does(text in policy_text(), word: u64, now_ms: u64, seconds_from_stamp: i16, cost: u32) {
        let policy: Policy = text.parse().unwrap();
        let model = Model::parse(&text).unwrap();
        let (layout, limits) = (policy.layout(), policy.limits());
        let unit_ms = u64::from(policy.quotas()[0].window.seconds()) * 1000;
        let stamp_ms = (word >> (64 - layout.stamp_bits())).saturating_mul(unit_ms);
        for now_ms in [now_ms, stamp_ms.saturating_add_signed(i64::from(seconds_from_stamp) * 1000)] {
            let now = Timestamp::from_unix_ms(now_ms);
            let real = decide::check(layout, &limits, word, now, cost);
            let expected = model.check(word, now_ms, cost);
            prop_assert_eq!((real.outcome.as_str(), real.next), (expected.outcome.name(), expected.next));
            let verdict = Verdict::decided(layout, &limits, real, None, now, cost);
            prop_assert_eq!(verdict.retry_at().map(|at| i128::from(at.unix_ms())), expected.retry_at_ms);
        }
    }

    /// A denied request is denied a millisecond before its retry time. It is admitted at its retry
    /// time, and after the seconds of Retry-After, if nothing else is spent.
    #[test]
    fn retry_at_the_reported_time_succeeds_and_not_before(
        text in policy_text(),
        spent in prop::collection::vec((1u32..4, 0u64..4_000), 1..40),
        cost in 1u32..4,
    ) {
        let policy: Policy = text.parse().unwrap();
        let (layout, limits) = (policy.layout(), policy.limits());
        let (mut word, mut now_ms) = (0, u64::try_from(START_MS).unwrap());
        for (cost, elapsed_ms) in spent {
            now_ms += elapsed_ms;
            word = decide::check(layout, &limits, word, Timestamp::from_unix_ms(now_ms), cost).next;
        }
        let now = Timestamp::from_unix_ms(now_ms);
        let denied = decide::check(layout, &limits, word, now, cost);
        if let Some(retry_at) = Verdict::decided(layout, &limits, denied, None, now, cost).retry_at() {
            let outcome = |at: Timestamp| decide::check(layout, &limits, denied.next, at, cost).outcome;
            prop_assert_eq!(outcome(Timestamp::from_unix_ms(retry_at.unix_ms() - 1)), Outcome::Denied);
            prop_assert_eq!(outcome(retry_at), Outcome::Admitted);
            let seconds = (retry_at.unix_ms() - now_ms).div_ceil(1000);
            prop_assert_eq!(outcome(Timestamp::from_unix_ms(now_ms + seconds * 1000)), Outcome::Admitted);
        }
    }

    /// No window of a fixed policy admits more than its limit, however the clock moves. A charge
    /// belongs to the window of its effective time.
    #[test]
    fn no_window_admits_more_than_its_limit(
        text in policy_text_with_algorithm(false),
        steps in prop::collection::vec((0u32..20, prop_oneof![-50_000i64..60_000, -9_000_000i64..9_000_000]), 1..80),
    ) {
        let policy: Policy = text.parse().unwrap();
        let (mut word, mut clock) = (0, START_MS);
        let mut admitted = std::collections::HashMap::<(usize, u64), u64>::new();
        for (cost, step) in steps {
            clock += step;
            let now = Timestamp::from_unix_ms(u64::try_from(clock).unwrap());
            let decision = decide::check(policy.layout(), &policy.limits(), word, now, cost);
            word = decision.next;
            if decision.outcome == Outcome::Admitted {
                for (quota_index, quota) in policy.quotas().iter().enumerate() {
                    let index = decide::quotas(policy.layout(), &policy.limits(), word, now).time().unix_s() / u64::from(quota.window.seconds());
                    let sum = admitted.entry((quota_index, index)).or_default();
                    *sum += u64::from(cost);
                    prop_assert!(*sum <= u64::from(quota.limit));
                }
            }
        }
    }
}
