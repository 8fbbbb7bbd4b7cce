//! Compares the core with the model on every word of small layouts.
//!
//! A layout here has a stamp of a few bits and counts of one to three bits, so it has a few hundred
//! or thousand words. On each word, the tests apply every operation in every unit of time that the
//! stamp can express and in the three units after, at several times within the unit. They also
//! apply it at the largest time. Checks have every cost from 0 to one above the largest limit, and
//! the largest cost. Refunds and settlements have every possible
//! charge. This includes words with counts above their limits, late clocks, and stamps that only a
//! wrong clock writes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::MAX_QUOTAS;
use keytally_core::{
    Algorithm, Layout, Limits, Outcome, Policy, TallyCharge, Timestamp, Verdict, decide,
};
use keytally_vectors::model::{self, Clock, Model};

/// A policy with a layout of few bits.
struct SmallLayout {
    /// The policy text.
    policy: &'static str,
    /// The width of the stamp in bits.
    stamp_bits: u32,
    /// The width of each window's count in bits. A sliding window has two counts of that width.
    count_bits: &'static [u8],
    /// The caller's times within a unit, in thousandths of the unit. The first, second and last
    /// millisecond of the unit are added.
    times_in_unit: &'static [u64],
    /// The number of comparisons that the test makes. docs/TESTING.md states the sum.
    comparisons: u64,
}

/// Defines one test per layout, so that they run in parallel.
macro_rules! layouts {
    ($($test:ident: $policy:literal, stamp $stamp_bits:literal, counts $count_bits:expr, at $times_in_unit:expr, $comparisons:literal;)*) => {
        $(#[test]
        fn $test() {
            compare(ALL.iter().find(|small| small.policy == $policy).unwrap());
        })*

        const ALL: &[SmallLayout] = &[$(SmallLayout {
            policy: $policy,
            stamp_bits: $stamp_bits,
            count_bits: &$count_bits,
            times_in_unit: &$times_in_unit,
            comparisons: $comparisons,
        }),*];
    };
}

// A slot is reusable only if a caller that is a minute late no longer counts its charges. In units
// of the smallest window, a minute is one unit in most layouts and two in `fixed_four_windows`. It
// is three, nine or thirty units in the layouts whose names state it.
layouts! {
    fixed_one_window: "3/60s", stamp 4, counts [2], at [500], 2_200_512;
    fixed_nine_units_of_lateness: "2/7s", stamp 5, counts [2], at [500], 9_434_368;
    fixed_thirty_units_of_lateness: "1/2s", stamp 6, counts [1], at [], 13_933_184;
    fixed_two_windows: "2/60s, 3/120s", stamp 3, counts [2, 2], at [500], 1_464_192;
    fixed_three_units_of_lateness: "2/20s, 3/60s", stamp 4, counts [2, 2], at [], 6_631_680;
    fixed_shorter_window_has_the_larger_limit: "3/60s, 2/120s", stamp 3, counts [2, 2], at [500], 1_464_192;
    fixed_three_windows: "1/60s, 2/120s, 3/240s", stamp 4, counts [1, 2, 2], at [], 13_263_360;
    fixed_four_windows: "1/30s, 1/60s, 1/120s, 1/240s", stamp 5, counts [1, 1, 1, 1], at [], 15_346_176;
    fixed_windows_that_do_not_nest: "1/40s, 2/60s", stamp 4, counts [1, 2], at [500], 2_784_512;
    fixed_shorter_window_ends_last: "1/2d, 1/3d", stamp 4, counts [1, 1], at [], 573_760;
    weeks: "2/week", stamp 5, counts [2], at [500], 9_434_368;
    months: "1/month@30", stamp 6, counts [1], at [], 13_933_184;
    week_ends_after_the_month: "1/week, 1/month", stamp 6, counts [1, 1], at [], 27_866_368;
    sliding_one_window: "sliding 3/60s", stamp 4, counts [2], at [250, 333, 500, 667, 750], 17_483_520;
    sliding_larger_counts: "sliding 6/60s", stamp 3, counts [3], at [333, 500], 18_643_968;
    sliding_nine_units_of_lateness: "sliding 1/7s", stamp 5, counts [1], at [333, 500], 6_369_408;
    sliding_thirty_units_of_lateness: "sliding 1/2s", stamp 6, counts [1], at [], 27_866_368;
    sliding_two_windows: "sliding 2/60s, 3/120s", stamp 3, counts [2, 2], at [500], 23_427_072;
    sliding_three_units_of_lateness: "sliding 1/20s, 1/60s", stamp 4, counts [1, 1], at [333, 500], 3_797_248;
    sliding_shorter_window_has_the_larger_limit: "sliding 3/60s, 1/120s", stamp 3, counts [2, 1], at [500], 5_856_768;
    sliding_windows_that_do_not_nest: "sliding 1/40s, 2/60s", stamp 4, counts [1, 2], at [], 16_783_360;
    sliding_three_windows: "sliding 1/60s, 1/120s, 1/240s", stamp 4, counts [1, 1, 1], at [500], 12_184_576;
}

/// A small layout as the core and as the model represent it.
struct CoreAndModel {
    layout: Layout,
    limits: Limits,
    model: Model,
    /// A word of the core is a word of the model, shifted left by this many bits. The core's fields
    /// are in the high bits of a word, those of the model in the low bits.
    shift: u32,
}

impl CoreAndModel {
    fn new(small: &SmallLayout) -> Self {
        let policy: Policy = small.policy.parse().unwrap();
        let mut bits = [0; MAX_QUOTAS];
        bits[..small.count_bits.len()].copy_from_slice(small.count_bits);
        let windows = policy.layout().windows();
        let layout =
            Layout::for_model(policy.algorithm(), windows, bits, small.stamp_bits).unwrap();
        let counts_each = if policy.algorithm() == Algorithm::Sliding { 2 } else { 1 };
        let count_bits = small
            .count_bits
            .iter()
            .flat_map(|&bits| core::iter::repeat_n(u32::from(bits), counts_each));
        let model = Model::with_layout(
            model::parse_policy(small.policy).unwrap(),
            model::Layout { stamp_bits: small.stamp_bits, count_bits: count_bits.collect() },
        );
        let shift = 64 - model.layout().total_bits();
        Self { layout, limits: policy.limits(), model, shift }
    }

    /// Compares check and peek, and their verdicts, with the model.
    fn compare_check_and_peek(&self, word: u64, now_ms: u64, cost: u32) {
        let (now, shifted) = (Timestamp::from_unix_ms(now_ms), word << self.shift);
        let checked = decide::check(&self.layout, &self.limits, shifted, now, cost);
        let peeked = decide::peek(&self.layout, &self.limits, shifted, now, cost);
        // A limiter decides most checks on its fast path, which must give the same results.
        if let Some(fast) = Verdict::of_fast_path(&self.layout, &self.limits, shifted, now, cost) {
            let verdict = Verdict::decided(&self.layout, &self.limits, checked, None, now, cost);
            let why = || format!("{} {word:#x} {now_ms} {cost}", self.model.policy());
            assert_eq!(fast, (checked, verdict), "the fast path: {}", why());
        }
        let results = [
            (checked, self.model.check(word, now_ms, cost)),
            (peeked, self.model.peek(word, now_ms, cost)),
        ];
        for (real, expected) in results {
            let why = || format!("{} {word:#x} {now_ms} {cost}", self.model.policy());
            assert_eq!(real.outcome.as_str(), expected.outcome.name(), "{}", why());
            assert_eq!(real.next, expected.next << self.shift, "{}", why());
            let verdict = Verdict::decided(&self.layout, &self.limits, real, None, now, cost);
            let (quotas, retry_at) = (verdict.quotas(), verdict.retry_at());
            assert_eq!(i128::from(quotas.time().unix_ms()), expected.time_ms, "{}", why());
            assert_eq!(
                retry_at.map(|at| i128::from(at.unix_ms())),
                expected.retry_at_ms,
                "{}",
                why()
            );
            assert_eq!(verdict.retry_after_s().map(u64::from), expected.retry_after_s, "{}", why());
            assert_eq!(verdict.waits_from().unix_ms(), expected.waits_from_ms, "{}", why());
            assert_eq!(u64::from(verdict.clock_ahead_s()), expected.clock_ahead_s, "{}", why());
            assert_eq!(quotas.len(), expected.quotas.len());
            for (real_quota, quota) in quotas.iter().zip(&expected.quotas) {
                assert_eq!(
                    (real_quota.limit, real_quota.window.seconds()),
                    (quota.limit, quota.window.longest_s())
                );
                assert_eq!(
                    (real_quota.remaining, real_quota.reset_unix_s),
                    (quota.remaining, quota.reset_s),
                    "{}",
                    why()
                );
                let lacking = real.outcome == Outcome::Denied && cost > quota.remaining;
                assert_eq!(real_quota.lacking, lacking, "{}", why());
            }
        }
    }

    /// Compares the refund of a charge of `cost` at `at_ms`.
    fn compare_refund(&self, word: u64, now_ms: u64, cost: u32, at_ms: u64) {
        let charge = TallyCharge { cost, at: Timestamp::from_unix_ms(at_ms) };
        let now = Timestamp::from_unix_ms(now_ms);
        let real = decide::refund(&self.layout, &self.limits, word << self.shift, now, charge);
        let expected = self.model.refund(word, model::Charge { cost, at_ms }, now_ms);
        let why =
            || format!("{} {word:#x} {now_ms} refund of {cost} from {at_ms}", self.model.policy());
        assert_eq!(real.next, expected << self.shift, "{}", why());
    }

    /// Compares the settlement of a charge of `cost` at `at_ms` as `actual`.
    fn compare_settle(&self, word: u64, now_ms: u64, cost: u32, at_ms: u64, actual: u32) {
        let charge = TallyCharge { cost, at: Timestamp::from_unix_ms(at_ms) };
        let now = Timestamp::from_unix_ms(now_ms);
        let real =
            decide::settle(&self.layout, &self.limits, word << self.shift, now, charge, actual);
        let expected = self.model.settle(word, model::Charge { cost, at_ms }, actual, now_ms);
        let why = || {
            format!(
                "{} {word:#x} {now_ms} settlement of {cost} from {at_ms} as {actual}",
                self.model.policy()
            )
        };
        assert_eq!(
            (real.next, real.uncharged),
            (expected.next << self.shift, expected.uncharged),
            "{}",
            why()
        );
    }

    /// Compares reset, reuse of a slot, and correction. Returns whether the correction changed the
    /// word.
    fn compare_reset_reuse_and_correction(&self, word: u64, now_ms: u64) -> bool {
        let (now, shifted) = (Timestamp::from_unix_ms(now_ms), word << self.shift);
        let real = decide::reset(&self.layout, &self.limits, shifted, now);
        let why = || format!("{} {word:#x} {now_ms}", self.model.policy());
        assert_eq!(real.next, self.model.reset(word, now_ms) << self.shift, "{}", why());
        // A slot is kept for 1 s after its windows.
        for later_ms in [0, 999, 1000] {
            let later_ms = now_ms.saturating_add(later_ms);
            let real = self.layout.is_reusable(shifted, Timestamp::from_unix_ms(later_ms));
            assert_eq!(real, self.model.is_reusable(word, later_ms), "{} {later_ms}", why());
        }
        let corrected = decide::correct(&self.layout, shifted, now);
        assert_eq!(corrected, self.model.correct(word, now_ms) << self.shift, "{}", why());
        let late = self.model.read(word, now_ms).clock == Clock::Late;
        assert!(corrected == shifted || late, "{}", why());
        corrected != shifted
    }
}

/// Compares all operations on all words of a layout, at all times, with all costs and charges.
fn compare(small: &SmallLayout) {
    let both = CoreAndModel::new(small);
    let unit_ms = u64::try_from(both.model.unit_ms()).unwrap();
    // The stamp of only ones is reserved, so the last unit that a stamp expresses is the second to
    // last of its values. Times after it have the last stamp.
    let units = (0..(1u64 << small.stamp_bits) + 2).map(|unit| unit * unit_ms);
    let within_unit: Vec<u64> = small
        .times_in_unit
        .iter()
        .map(|part| part * unit_ms / 1000)
        .chain([0, 1, unit_ms - 1])
        .collect();
    let times: Vec<u64> = units
        .clone()
        .flat_map(|unit| within_unit.iter().map(move |ms| unit + ms))
        .chain([u64::MAX])
        .collect();
    // One time per unit: of a charge's time, only the unit matters.
    let charge_times: Vec<u64> = units.map(|unit| unit + unit_ms - 1).chain([u64::MAX]).collect();
    let largest = both.model.policy().quotas.iter().map(|quota| quota.limit).max().unwrap();
    let (mut compared, mut current, mut late, mut corrected) = (0, 0_u64, 0_u64, 0_u64);
    let words = 1u64 << both.model.layout().total_bits();
    // `cargo mutants` runs this test many times, so there it compares about 64 words.
    let quick = std::env::var_os("KEYTALLY_QUICK").is_some();
    let step = if quick { usize::try_from(words / 64).unwrap() | 1 } else { 1 };
    for word in (0..words).step_by(step) {
        for &now_ms in &times {
            match both.model.read(word, now_ms).clock {
                Clock::Current => current += 1,
                Clock::Late => late += 1,
            }
            for cost in (0..=largest + 1).chain([u32::MAX]) {
                both.compare_check_and_peek(word, now_ms, cost);
                compared += 2;
            }
            corrected += u64::from(both.compare_reset_reuse_and_correction(word, now_ms));
            compared += 3;
            for &at_ms in &charge_times {
                for cost in 0..=largest {
                    both.compare_refund(word, now_ms, cost, at_ms);
                    compared += 1;
                    for actual in 0..=largest + 1 {
                        both.compare_settle(word, now_ms, cost, at_ms, actual);
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(
        current > 0 && late > 0 && corrected > 0,
        "{current} current clocks, {late} late clocks, {corrected} corrections"
    );
    println!("{}: {compared} comparisons", small.policy);
    assert!(quick || compared == small.comparisons, "{}: {compared}", small.policy);
}

#[test]
fn testing_page_states_the_number_of_comparisons() {
    let sum: u64 = ALL.iter().map(|small| small.comparisons).sum();
    let text =
        format!("{},{:03},{:03} comparisons", sum / 1_000_000, sum / 1000 % 1000, sum % 1000);
    assert!(
        include_str!("../../docs/TESTING.md").contains(&text),
        "docs/TESTING.md must say {text}"
    );
}
