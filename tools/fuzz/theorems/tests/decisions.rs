//! Theorems about the decision, which is a pure function. Those without the model are marked for
//! the model checker Kani, within small bounds.

use bolero::{TypeGenerator, check};
use keytally_core::{Outcome, TallyCharge, Verdict, decide};
use keytally_theorems::{
    AnyCost, AnyPolicy, AnyTime, AnyWord, START_MS, Tally, at, counts_of, length_ms, limit,
    unit_ms, used, with_stamp,
};
use keytally_vectors::model::{self, Model};

/// The number of random inputs of each harness under `cargo test`.
const INPUTS: usize = 3000;
/// The number of calls in a history.
const CALLS: usize = if cfg!(kani) { 2 } else { 24 };

/// The arguments of a call on any tally.
#[derive(Clone, Copy, Debug, TypeGenerator)]
struct AnyDecision {
    policy: AnyPolicy,
    word: AnyWord,
    now: AnyTime,
    cost: AnyCost,
}

/// A call in a history: a check, a refund or settlement of an earlier charge, or a reset.
#[derive(Clone, Copy, Debug, TypeGenerator)]
struct AnyCall {
    kind: u8,
    earlier: u8,
    cost: AnyCost,
    step: AnyTime,
}

/// Guarantee 1: right after each charge, used(*t*) ≤ *L* for every quota, where *C*(*k*) is the sum
/// of what was charged in window *k* less what was refunded.
#[test]
#[cfg_attr(kani, kani::proof, kani::unwind(8))]
fn charge_in_any_history_stays_within_every_limit() {
    check!().with_iterations(INPUTS).with_type::<(AnyPolicy, [AnyCall; CALLS])>().for_each(
        |(policy, calls)| {
            policy.with(|policy| {
                let (layout, limits) = (policy.layout(), policy.limits());
                let (mut word, mut now_ms) = (0, START_MS);
                // What each call charged and has not been refunded, with its time.
                let mut charges = [TallyCharge { cost: 0, at: at(0) }; CALLS];
                for (index, call) in calls.iter().enumerate() {
                    now_ms = call.step.after(now_ms);
                    let (now, cost) = (at(now_ms), call.cost.units());
                    let time_ms = Tally::new(policy, word).time_ms(now_ms);
                    let earlier = usize::from(call.earlier) % CALLS;
                    word = match call.kind % 8 {
                        0..=4 => {
                            let decision = decide::check(layout, &limits, word, now, cost);
                            if decision.outcome == Outcome::Admitted {
                                charges[index] = TallyCharge { cost, at: at(time_ms) };
                            }
                            decision.next
                        }
                        5 => {
                            let charge = charges[earlier];
                            charges[earlier].cost = 0;
                            decide::refund(layout, &limits, word, now, charge).next
                        }
                        6 => {
                            let charge = charges[earlier];
                            let settled = decide::settle(layout, &limits, word, now, charge, cost);
                            charges[earlier].cost = charge.cost.min(cost);
                            let more = cost.saturating_sub(charge.cost) - settled.uncharged;
                            charges[index] = TallyCharge { cost: more, at: at(time_ms) };
                            settled.next
                        }
                        _ => {
                            charges = [TallyCharge { cost: 0, at: at(0) }; CALLS];
                            decide::reset(layout, &limits, word, now).next
                        }
                    };
                    if charges[index].cost == 0 {
                        continue;
                    }
                    for quota in 0..policy.quotas().len() {
                        let length_ms = length_ms(layout, quota);
                        let charged = |window: u64| -> u64 {
                            let in_window =
                                |charge: &&TallyCharge| charge.at.unix_ms() / length_ms == window;
                            charges
                                .iter()
                                .filter(in_window)
                                .map(|charge| u64::from(charge.cost))
                                .sum()
                        };
                        let used = used(policy, quota, time_ms, charged);
                        assert!(
                            used <= limit(policy, quota),
                            "{used} units in quota {quota} of {policy}"
                        );
                    }
                }
            });
        },
    );
}

/// Guarantee 2: if a check is denied, some quota has used(*t*) + *c* > *L* at the time *t* of the
/// decision.
#[test]
#[cfg_attr(kani, kani::proof, kani::unwind(8))]
fn denial_of_any_cost_means_that_a_quota_lacks_room() {
    check!().with_iterations(INPUTS).with_type::<AnyDecision>().for_each(|input| {
        input.policy.with(|policy| {
            let word = input.word.word(policy);
            let (now_ms, cost) = (input.now.unix_ms(policy.layout()), input.cost.units());
            let decision = decide::check(policy.layout(), &policy.limits(), word, at(now_ms), cost);
            let tally = Tally::new(policy, word);
            let time_ms = tally.time_ms(now_ms);
            let mut quotas = 0..policy.quotas().len();
            let lacks_room =
                |quota| tally.used(quota, time_ms) + u64::from(cost) > limit(policy, quota);
            let is_too_small = |quota| u64::from(cost) > limit(policy, quota);
            match decision.outcome {
                Outcome::Admitted => {}
                Outcome::TooCostly => assert!(quotas.any(is_too_small), "{cost} fits {policy}"),
                _ => assert!(quotas.any(lacks_room), "{policy} has room for {cost} at {time_ms}"),
            }
        });
    });
}

/// Guarantee 3: if the outcome of a check is not `Admitted`, no count of any quota changes.
#[test]
#[cfg_attr(kani, kani::proof, kani::unwind(8))]
fn denial_of_any_cost_changes_no_count() {
    check!().with_iterations(INPUTS).with_type::<AnyDecision>().for_each(|input| {
        input.policy.with(|policy| {
            let word = input.word.word(policy);
            let (now, cost) = (at(input.now.unix_ms(policy.layout())), input.cost.units());
            let decision = decide::check(policy.layout(), &policy.limits(), word, now, cost);
            if decision.outcome != Outcome::Admitted {
                assert_eq!(decision.next, word, "{:?} of {cost} by {policy}", decision.outcome);
            }
        });
    });
}

/// Guarantee 7: no decision lowers a stamp, and a correction lowers it only if it is more than 60 s
/// ahead of the reading, and keeps all counts.
#[test]
#[cfg_attr(kani, kani::proof, kani::unwind(8))]
fn call_at_any_time_moves_no_stamp_back() {
    check!().with_iterations(INPUTS).with_type::<(AnyDecision, AnyTime)>().for_each(
        |(input, charged_at)| {
            input.policy.with(|policy| {
                let (layout, limits) = (policy.layout(), &policy.limits());
                let word = input.word.word(policy);
                let (now_ms, cost) = (input.now.unix_ms(layout), input.cost.units());
                let now = at(now_ms);
                let charge = TallyCharge { cost: cost / 2, at: at(charged_at.unix_ms(layout)) };
                let stamp = Tally::new(policy, word).stamp;
                for next in [
                    decide::check(layout, limits, word, now, cost).next,
                    decide::peek(layout, limits, word, now, cost).next,
                    decide::refund(layout, limits, word, now, charge).next,
                    decide::settle(layout, limits, word, now, charge, cost).next,
                    decide::settle(layout, limits, word, now, charge, cost / 4).next,
                    decide::reset(layout, limits, word, now).next,
                ] {
                    let moved = Tally::new(policy, next).stamp;
                    let expected = stamp.max(now_ms / unit_ms(layout));
                    assert!(
                        moved == expected || next == word,
                        "from {stamp} to {moved} at {now_ms}"
                    );
                }
                let is_wrong = (stamp * unit_ms(layout)).saturating_sub(now_ms) > 60_000;
                let corrected = decide::correct(layout, word, now);
                let expected = if is_wrong { now_ms / unit_ms(layout) } else { stamp };
                assert_eq!(corrected, with_stamp(layout, word, expected), "read {now_ms}");
                assert_eq!(counts_of(layout, corrected), counts_of(layout, word));
            });
        },
    );
}

/// Guarantee 9: every call gives the outcome, numbers and header fields of the model, which writes
/// the vectors that all languages read.
#[test]
fn result_of_any_call_equals_that_of_the_model() {
    check!().with_iterations(INPUTS).with_type::<(AnyDecision, AnyTime)>().for_each(
        |(input, charged_at)| {
            input.policy.with(|policy| {
                let (layout, limits) = (policy.layout(), &policy.limits());
                let model = Model::parse(&policy.to_string()).expect("the policy is valid");
                let word = input.word.word(policy);
                let (now_ms, cost) = (input.now.unix_ms(layout), input.cost.units());
                let now = at(now_ms);
                for (real, expected) in [
                    (
                        decide::check(layout, limits, word, now, cost),
                        model.check(word, now_ms, cost),
                    ),
                    (decide::peek(layout, limits, word, now, cost), model.peek(word, now_ms, cost)),
                ] {
                    assert_eq!(real.outcome.as_str(), expected.outcome.name());
                    assert_eq!(real.next, expected.next);
                    let verdict = Verdict::decided(layout, limits, real, None, now, cost);
                    let retry_at = verdict.retry_at().map(|at| i128::from(at.unix_ms()));
                    assert_eq!(retry_at, expected.retry_at_ms);
                    assert_eq!(verdict.retry_after_s().map(u64::from), expected.retry_after_s);
                    let block = model::header_block(
                        expected.outcome,
                        &expected.quotas,
                        expected.retry_after_s,
                        verdict.waits_from().unix_ms(),
                    );
                    assert_eq!(verdict.headers().as_str(), block);
                    assert_eq!(verdict.body(), model::body(expected.outcome));
                }
                let at_ms = charged_at.unix_ms(layout);
                let (charge, modeled) =
                    (TallyCharge { cost, at: at(at_ms) }, model::Charge { cost, at_ms });
                let refunded = decide::refund(layout, limits, word, now, charge);
                assert_eq!(refunded.next, model.refund(word, modeled, now_ms));
                for actual in [cost / 2, cost.saturating_mul(2)] {
                    let modeled = model::Charge { cost, at_ms };
                    let real = decide::settle(layout, limits, word, now, charge, actual);
                    let expected = model.settle(word, modeled, actual, now_ms);
                    assert_eq!((real.next, real.uncharged), (expected.next, expected.uncharged));
                }
                let reset = decide::reset(layout, limits, word, now);
                assert_eq!(reset.next, model.reset(word, now_ms));
                assert_eq!(decide::correct(layout, word, now), model.correct(word, now_ms));
            });
        },
    );
}
