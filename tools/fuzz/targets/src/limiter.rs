//! The target `limiter_calls`: calls on a limiter, compared with a model that has a tally for each
//! subject and no table.

use keytally_core::BUCKET_SLOTS;
use keytally_core::{CacheLine, Charge, Limiter, OnFull, Outcome, Policy, Timestamp, Verdict};
use keytally_vectors::model::{self, Model};

use crate::bytes::{Bytes, Clock, POLICIES};
use crate::headers::{self, model_window};

const SUBJECTS: usize = 48;

/// The model of a subject.
#[derive(Default)]
struct ModelSubject {
    /// Its tally.
    word: u64,
    /// Charges that can be refunded.
    charges: Vec<Charge>,
}

/// Compares calls on a small limiter with a model of each subject.
///
/// There may be more subjects than slots. Then slots are reused, and the table may be full.
pub fn limiter_calls(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let policy: Policy = bytes.pick(POLICIES).parse().unwrap();
    let model = Model::parse(&policy.to_string()).unwrap();
    let capacity = 1 + u32::from(bytes.byte() % 24);
    let seed = [bytes.byte(); 16];
    let subjects = 1 + bytes.below(SUBJECTS);
    let memory: Vec<CacheLine> =
        (0..Limiter::<&[CacheLine]>::lines(capacity)).map(|_| CacheLine::new()).collect();
    let limiters = [
        Limiter::init(&memory[..], &policy, capacity, seed).unwrap(),
        Limiter::attach(&memory[..]).unwrap(),
    ];
    // The model has no overflow tallies.
    limiters[0].set_on_full(OnFull::Refuse);
    // A slot is reused 1 s after its windows have passed. A caller that is later than that may
    // find its subject's slot reused and begin a new count, which the model does not have.
    let mut clock = Clock::late_by_less_than(1);
    let mut known: Vec<ModelSubject> = (0..SUBJECTS).map(|_| ModelSubject::default()).collect();
    for _ in 0..256 {
        if bytes.is_empty() {
            break;
        }
        let call = bytes.byte();
        let limiter = &limiters[usize::from(call & 1)];
        let subject = bytes.below(subjects);
        let name = [b's', u8::try_from(subject).unwrap()];
        let now_ms = clock.read(&mut bytes);
        let now = Timestamp::from_unix_ms(now_ms);
        // The slot of an expired tally may have been reused for another subject.
        let may_be_reused = |known: &ModelSubject| model.is_reusable(known.word, clock.latest_ms);
        let subject = &mut known[subject];
        match (call >> 1) % 8 {
            0..=3 => {
                let cost = bytes.cost();
                let verdict = limiter.check(&name, cost, now);
                headers::check_http(&verdict);
                if verdict.outcome() == Outcome::Full {
                    assert!(may_be_reused(subject), "a subject with a slot got no slot");
                    let taken =
                        known.iter().filter(|known| !model.is_reusable(known.word, now_ms)).count();
                    assert!(taken >= BUCKET_SLOTS, "full with {taken} live subjects");
                    continue;
                }
                let expected = model.check(subject.word, now_ms, cost);
                assert_same(&verdict, &expected);
                subject.word = expected.next;
                if let Some(charge) = verdict.charge() {
                    subject.charges.push(charge);
                }
            }
            4 => {
                let cost = bytes.cost();
                let verdict = limiter.peek(&name, cost, now);
                headers::check_http(&verdict);
                assert_same(&verdict, &model.peek(subject.word, now_ms, cost));
            }
            5 => {
                let Some(charge) = subject.charges.pop() else { continue };
                let verdict = limiter.refund(&name, charge, now);
                subject.word = model.refund(subject.word, modeled(charge), now_ms);
                assert_same_quotas(&verdict, &model.peek(subject.word, now_ms, 0));
            }
            6 => {
                let Some(charge) = subject.charges.pop() else { continue };
                let actual = bytes.cost();
                let verdict = limiter.settle(&name, charge, actual, now);
                if verdict.outcome() == Outcome::Full {
                    assert!(may_be_reused(subject));
                    continue;
                }
                let expected = model.settle(subject.word, modeled(charge), actual, now_ms);
                assert_eq!(verdict.uncharged(), expected.uncharged);
                subject.word = expected.next;
                assert_same_quotas(&verdict, &model.peek(subject.word, now_ms, 0));
            }
            // A reset writes a stamp only if the subject has a slot, which the model cannot know.
            _ if may_be_reused(subject) => {}
            _ => {
                let verdict = limiter.reset(&name, now);
                subject.word = model.reset(subject.word, now_ms);
                assert_same_quotas(&verdict, &model.peek(subject.word, now_ms, 0));
            }
        }
    }
    let live = known.iter().filter(|known| !model.is_reusable(known.word, clock.latest_ms)).count();
    assert_eq!(
        limiters[0].live_subjects(Timestamp::from_unix_ms(clock.latest_ms)),
        u64::try_from(live).unwrap()
    );
}

/// Returns the charge in the type of the model.
pub(crate) fn modeled(charge: Charge) -> model::Charge {
    modeled_at(charge.cost(), charge.at().unix_ms())
}

/// Returns the charge of one tally in the type of the model.
pub(crate) fn modeled_at(cost: u32, at_ms: u64) -> model::Charge {
    model::Charge { cost, at_ms }
}

/// Asserts that the verdict is the decision of the model.
pub(crate) fn assert_same(verdict: &Verdict, expected: &model::Decision) {
    assert_eq!(verdict.outcome().as_str(), expected.outcome.name());
    assert_eq!(verdict.retry_at().map(|at| i128::from(at.unix_ms())), expected.retry_at_ms);
    assert_eq!(verdict.retry_after_s().map(u64::from), expected.retry_after_s);
    if let Some(charge) = verdict.charge() {
        assert_eq!(i128::from(charge.at().unix_ms()), expected.time_ms);
    }
    assert_same_quotas(verdict, expected);
}

/// Asserts that the quotas of the verdict are those of the model.
pub(crate) fn assert_same_quotas(verdict: &Verdict, expected: &model::Decision) {
    let real = verdict.quotas().iter().map(|quota| model::QuotaState {
        limit: quota.limit,
        remaining: quota.remaining,
        window: model_window(quota.window),
        reset_s: quota.reset_unix_s,
    });
    assert_eq!(real.collect::<Vec<_>>(), expected.quotas);
}

#[cfg(test)]
mod tests {
    use super::limiter_calls;

    /// Subject 0 is charged at 00:00. At 01:01:01, its slot goes to subject 1. Then a caller of
    /// subject 0 is as late as the clock allows. If that were 55 minutes, core would begin a new
    /// count in an hour in which the model has one.
    #[test]
    fn late_caller_after_the_reuse_of_its_slot_equals_the_model() {
        let set_up = [1, 0, 7, 1]; // "100/minute, 1000/hour", one bucket, the seed, two subjects
        let calls = [
            [0, 0, 0, 5],   // subject 0 is charged 5
            [0, 1, 230, 0], // an hour passes
            [0, 1, 200, 1], // 61 s pass, and subject 1 takes the slot
            [0, 0, 253, 1], // subject 0 is late
        ];
        limiter_calls(&[&set_up[..], calls.as_flattened()].concat());
    }
}
