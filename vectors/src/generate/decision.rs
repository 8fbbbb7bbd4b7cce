//! Generates `decision.json`: operations on single tallies, as the model does them.

use crate::files::{Answer, CorrectionCase, DecisionCase, Op, ReusableCase, SequenceStep};
use crate::model::{Algorithm, Charge, Decision, Entry, Model, Outcome, Quota, Tally, Window};

use super::random::Random;
use super::{Lines, NEW_YEAR_MS};

const ABOUT: &str = "Operations on single tallies. A tally is a 64-bit word. policy gives its limits and its layout (policy.json). word is \
    the tally before, next the tally afterwards, both as 0x and 16 hexadecimal digits. next equals word if nothing is written. \
    All times are decimal strings, because they can exceed 2^53. Those named _ms are Unix milliseconds, those named _s Unix \
    seconds. now_ms is the caller's time. op check and peek: cost is the requested cost; outcome is admitted, denied or too_costly; \
    at_ms is the effective time: now_ms, or the start of the stamp's unit if that is later; remaining and reset_s are those of \
    each window, the smallest first, after the charge if one was made; if denied, retry_at_ms is the earliest effective time at \
    which all windows have room, and retry_after_s the number of seconds until then, rounded up, at least 1, counted from the \
    later of now_ms and at_ms, or from now_ms if at_ms is more than 60 seconds ahead of it. op refund: gives back a charge of \
    charged, made at effective time charged_at_ms. op settle: replaces that charge by actual; uncharged is the part of actual \
    that did not fit. op reset: sets all counts to 0. sequences: operations on one tally after another; the word of the first \
    step is 0, that of each other step the next of the step before. reusable: whether a limiter may give the tally's slot to \
    another subject at now_ms. corrections: next is word, corrected by reading_ms, the time of a correct clock; it equals word \
    unless the stamp is more than 60 seconds ahead.";

/// Policies that differ in the number of windows, their lengths, and whether there are spare bits.
const POLICIES: &[&str] = &[
    "100/minute, 1000/hour",
    "1/second",
    "4294967295/day",
    "10/second, 100/minute, 1000/hour",
    "10/minute, 50/10m, 100/hour, 500/day",
    "sliding 100/minute, 1000/hour",
    "sliding 5/10s",
    "sliding 67108863/31d",
    "sliding 3/minute, 5/5m, 7/hour, 9/day",
    "7/5h, 9/day",
    "sliding 5/2h, 7/3h",
    "30/week, 50/month@17",
    "9/month@31",
];

/// The policies without cases of refunds, settlements and reuse of slots. Similar policies have
/// such cases.
const SHORTENED: &[&str] = &[
    "4294967295/day",
    "10/minute, 50/10m, 100/hour, 500/day",
    "sliding 67108863/31d",
    "sliding 3/minute, 5/5m, 7/hour, 9/day",
    "sliding 5/2h, 7/3h",
    "9/month@31",
];

/// 15 February 2027, of a year with 365 days.
const MID_FEBRUARY_2027_MS: u64 = 1_802_649_600_000;

/// 15 February 2028, of a leap year.
const MID_FEBRUARY_2028_MS: u64 = 1_834_185_600_000;

/// 15 February 2106, after the last second that 32 bits can count.
const MID_FEBRUARY_2106_MS: u64 = 4_295_635_200_000;

/// The policies whose windows do not nest, or are weeks or months. They have only cases in which
/// the ends of windows matter.
const OTHER_WINDOWS: &[&str] =
    &["7/5h, 9/day", "sliding 5/2h, 7/3h", "30/week, 50/month@17", "9/month@31"];

/// The names and policies of the sequences. In each, windows end and limits are reached within a
/// few steps.
const SEQUENCES: &[(&str, &str)] = &[
    ("the default policy", "100/minute, 1000/hour"),
    ("a small limit", "3/10s"),
    ("windows that do not nest", "3/4s, 4/6s, 5/9s"),
    ("a week and a month", "3/day, 9/week, 20/month@30"),
    ("three windows", "3/second, 7/10s, 15/minute"),
    ("the default policy, sliding", "sliding 100/minute, 1000/hour"),
    ("a small limit, sliding", "sliding 3/10s"),
    ("four windows, sliding", "sliding 3/second, 7/10s, 15/minute, 20/hour"),
];

/// Returns the text of the file.
pub(super) fn file() -> String {
    let mut cases = Vec::new();
    let mut reusable = Vec::new();
    let mut corrections = Vec::new();
    let mut random = Random::new(2);
    for text in POLICIES {
        let model = Model::parse(text).expect("a policy");
        let mut policy_cases = PolicyCases { policy: text, model, cases: Vec::new() };
        policy_cases.times();
        policy_cases.edges();
        policy_cases.calendar();
        if !OTHER_WINDOWS.contains(text) {
            policy_cases.costs();
            policy_cases.counts();
            policy_cases.late_clocks(&mut corrections);
            policy_cases.unwritten_words();
            policy_cases.sliding();
            policy_cases.resets();
        }
        if !SHORTENED.contains(text) {
            policy_cases.refunds();
            policy_cases.settlements();
            policy_cases.reuse(&mut reusable);
        }
        policy_cases.random(&mut random);
        cases.extend(policy_cases.cases);
    }
    Lines::new(ABOUT)
        .array("cases", &cases)
        .array("sequences", &sequences())
        .array("reusable", &reusable)
        .array("corrections", &corrections)
        .done()
}

/// The cases of one policy, under construction.
struct PolicyCases {
    policy: &'static str,
    model: Model,
    cases: Vec<DecisionCase>,
}

impl PolicyCases {
    /// Checks unused tallies at the first and last times that a stamp can express, and full tallies
    /// at the last.
    fn times(&mut self) {
        let unit_ms = self.unit_ms();
        let last_stamp = u64::try_from(self.model.largest_stamp()).expect("a stamp");
        let last_unit_ms = last_stamp * unit_ms;
        for now_ms in [
            0,
            unit_ms - 1,
            unit_ms,
            NEW_YEAR_MS - 1,
            NEW_YEAR_MS,
            last_unit_ms - 1,
            last_unit_ms,
            last_unit_ms + unit_ms - 1,
            last_unit_ms + unit_ms,
            u64::MAX,
        ] {
            self.check("unused tally", 0, now_ms, 1);
        }
        let full = self.word(last_unit_ms, |quota| quota.limit, |_| 0);
        self.check("full at the last stamp", full, last_unit_ms, 1);
        self.check("full, the time is past the last stamp", full, u64::MAX, 1);
        self.peek("cost 0 at the last stamp", full, last_unit_ms + unit_ms, 0);
    }

    /// Checks with costs next to every limit.
    fn costs(&mut self) {
        let mut costs = vec![0, u32::MAX];
        for quota in self.model.policy().quotas.clone() {
            costs.extend([quota.limit - 1, quota.limit, quota.limit.saturating_add(1)]);
        }
        costs.sort_unstable();
        costs.dedup();
        let used_once = self.word(NEW_YEAR_MS, |_| 1, |_| 0);
        for cost in costs {
            self.check("cost next to a limit, unused", 0, NEW_YEAR_MS, cost);
            if cost < self.model.policy().quotas[0].limit.saturating_add(2) {
                self.check("cost next to a limit, used once", used_once, NEW_YEAR_MS + 1, cost);
            }
        }
    }

    /// Checks tallies whose counts are next to a limit, or the largest that fit the field. Counts
    /// above the limit exist, because an administrator can lower a limit.
    fn counts(&mut self) {
        let now_ms = NEW_YEAR_MS + self.unit_ms() / 4;
        for (i, quota) in self.model.policy().quotas.clone().into_iter().enumerate() {
            let field = self.largest_count(i);
            let mut counts =
                vec![quota.limit - 1, quota.limit, field.min(quota.limit.saturating_add(1)), field];
            counts.dedup();
            for count in counts {
                let word =
                    self.word(now_ms, |other| if *other == quota { count } else { 0 }, |_| 0);
                self.check("count next to its limit", word, now_ms, 1);
                if count == field {
                    self.peek("cost 0 on a full field", word, now_ms, 0);
                }
            }
        }
    }

    /// Checks full tallies at the end of each window.
    fn edges(&mut self) {
        for quota in self.model.policy().quotas.clone() {
            let length_ms = length_ms(&quota);
            let end_ms = end_ms(&quota, NEW_YEAR_MS);
            let word = self.word(NEW_YEAR_MS, |quota| quota.limit, |_| 0);
            for now_ms in [end_ms - 1, end_ms, end_ms + 1] {
                self.check("full, end of a window", word, now_ms, 1);
            }
            if self.is_sliding() {
                for now_ms in [end_ms + length_ms - 1, end_ms + length_ms] {
                    self.check("full, end of the next window", word, now_ms, 1);
                }
            }
        }
    }

    /// Checks full tallies at the ends of weeks and months: in leap years and in others, in a month
    /// that has no anchor day, and after the 32-bit time of Unix ends.
    fn calendar(&mut self) {
        for quota in self.model.policy().quotas.clone() {
            if matches!(quota.window, Window::Length(_)) {
                continue;
            }
            for start_ms in [0, MID_FEBRUARY_2027_MS, MID_FEBRUARY_2028_MS, MID_FEBRUARY_2106_MS] {
                let mut time_ms = start_ms;
                for _ in 0..2 {
                    let end_ms = end_ms(&quota, time_ms);
                    let word = self.word(time_ms, |quota| quota.limit, |_| 0);
                    self.check("full, end of a week or month", word, end_ms - 1, 1);
                    self.check("full, end of a week or month", word, end_ms, 1);
                    time_ms = end_ms;
                }
            }
        }
    }

    /// Checks, corrections and resets by clocks that are behind the stamp, by up to the tolerance
    /// of a minute and by more.
    fn late_clocks(&mut self, corrections: &mut Vec<CorrectionCase>) {
        let unit_ms = self.unit_ms();
        let tolerance_ms = 60_000;
        let stamp_ms = NEW_YEAR_MS / unit_ms * unit_ms;
        let half = self.word(stamp_ms, |quota| quota.limit / 2, |_| 0);
        let full = self.word(stamp_ms, |quota| quota.limit, |_| 0);
        for (why, now_ms) in [
            ("late by a millisecond", stamp_ms - 1),
            ("late by a minute", stamp_ms - tolerance_ms),
            ("late by more than a minute", stamp_ms - tolerance_ms - 1),
            ("at the epoch, by a late clock", 0),
        ] {
            self.check(why, half, now_ms, 1);
            self.check(why, full, now_ms, 1);
            for word in [half, u64::MAX] {
                let next = self.model.correct(word, now_ms);
                corrections.push(CorrectionCase {
                    policy: self.policy.to_owned(),
                    word,
                    reading_ms: now_ms,
                    next,
                });
            }
        }
        self.reset("late", full, stamp_ms - 1);
        self.reset("late by more than a minute", full, stamp_ms - tolerance_ms - 1);
    }

    /// Checks words with the reserved stamp, which no operation writes, and with stamp 0, which
    /// operations write only near the epoch.
    fn unwritten_words(&mut self) {
        let after_last_stamp = (self.model.largest_stamp() + 1) * self.model.unit_ms();
        let after_last_stamp = u64::try_from(after_last_stamp).expect("a time");
        let count_bits = 64 - self.model.layout().stamp_bits;
        let reserved = u64::MAX << count_bits;
        let all_counts = !reserved;
        for (why, word) in [
            ("all ones", u64::MAX),
            ("reserved stamp", reserved),
            ("stamp 0, largest counts", all_counts),
            ("stamp 0, one count of 1", 1),
        ] {
            self.check(why, word, NEW_YEAR_MS, 1);
            if word > all_counts {
                self.peek(why, word, after_last_stamp, 1);
            } else {
                self.peek(why, word, 0, 1);
            }
        }
    }

    /// Checks sliding windows whose previous count is weighted, and finds the first millisecond
    /// with room.
    fn sliding(&mut self) {
        if !self.is_sliding() {
            return;
        }
        let quotas = self.model.policy().quotas.clone();
        for (i, quota) in quotas.iter().enumerate() {
            // The smallest and the longest window.
            if i != 0 && i + 1 != quotas.len() {
                continue;
            }
            let length_ms = length_ms(quota);
            let start_ms = NEW_YEAR_MS / length_ms * length_ms;
            let limit = quota.limit;
            for (current, previous, cost) in [
                (0, limit, limit),
                (limit, 0, limit),
                (limit / 3, limit - 1, limit / 2),
                (limit - 1, limit, 1),
                (limit, limit, 1),
            ] {
                let cost = cost.max(1);
                for elapsed_ms in [1, length_ms / 3] {
                    let now_ms = start_ms + elapsed_ms;
                    let word = self.word(
                        now_ms,
                        |other| if other == quota { current } else { 0 },
                        |other| if other == quota { previous } else { 0 },
                    );
                    let decision = self.model.peek(word, now_ms, cost);
                    match decision.retry_at_ms {
                        Some(retry_at_ms) if elapsed_ms == 1 => {
                            let retry_at_ms = u64::try_from(retry_at_ms).expect("a time");
                            self.check("denied by the weighted count", word, now_ms, cost);
                            self.check(
                                "denied a millisecond before there is room",
                                word,
                                retry_at_ms - 1,
                                cost,
                            );
                            self.check("there is room", word, retry_at_ms, cost);
                        }
                        _ => self.check("previous window weighted", word, now_ms, cost),
                    }
                }
            }
        }
    }

    /// Refunds in the unit of the charge, at the ends of windows, after them, and by wrong clocks.
    fn refunds(&mut self) {
        let at_ms = NEW_YEAR_MS + self.unit_ms() / 2;
        let half = |quota: &Quota| quota.limit / 2 + 1;
        let word = self.word(at_ms, half, |_| 0);
        let smallest = self.model.policy().quotas[0].limit;
        for charged in [0, 1, smallest / 2 + 1, u32::MAX] {
            self.refund("refund in the same unit", word, at_ms, charged, at_ms);
        }
        self.refund("refund without a charge", 0, at_ms, 1, at_ms);
        self.refund("refund by a late clock", word, at_ms - self.unit_ms(), 1, at_ms);
        self.refund("refund of a charge in the future", word, at_ms, 1, at_ms + self.unit_ms());
        self.refund("refund of a charge at the largest time", word, at_ms, 1, u64::MAX);
        for quota in self.model.policy().quotas.clone() {
            let length_ms = length_ms(&quota);
            let end_ms = end_ms(&quota, at_ms);
            self.refund("refund in the last millisecond of a window", word, end_ms - 1, 1, at_ms);
            self.refund("refund after the end of a window", word, end_ms, 1, at_ms);
            if self.is_sliding() {
                self.refund(
                    "refund in the last millisecond of the next window",
                    word,
                    end_ms + length_ms - 1,
                    1,
                    at_ms,
                );
                self.refund("refund after the next window", word, end_ms + length_ms, 1, at_ms);
                let both = self.word(end_ms, half, half);
                self.refund("refund from the previous window", both, end_ms + 1, 1, at_ms);
                self.refund(
                    "refund of more than the previous window's count",
                    both,
                    end_ms + 1,
                    u32::MAX,
                    at_ms,
                );
            }
        }
        let longest_ms = longest_window_ms(&self.model).max(60_000);
        let ahead = self.word(at_ms + 2 * longest_ms, half, |_| 0);
        self.refund(
            "refund of a charge by a clock that was ahead",
            ahead,
            at_ms,
            1,
            at_ms + 2 * longest_ms,
        );
        self.refund(
            "refund of a charge by a correct clock, the stamp is ahead",
            ahead,
            at_ms,
            1,
            at_ms,
        );
    }

    /// Settlements of estimates above, at and below the actual cost.
    fn settlements(&mut self) {
        let at_ms = NEW_YEAR_MS + self.unit_ms() / 2;
        let word = self.word(at_ms, |quota| quota.limit / 2 + 1, |_| 0);
        let charged = self.model.policy().quotas[0].limit / 2 + 1;
        let remaining =
            self.model.peek(word, at_ms, 0).quotas.iter().map(|quota| quota.remaining).min();
        let remaining = remaining.expect("a policy has a quota");
        let mut actuals = vec![0, charged - 1, charged, charged + 1, charged + remaining, u32::MAX];
        actuals.push((charged + remaining).saturating_add(1));
        actuals.dedup();
        for actual in actuals {
            self.settle(
                "settle in the same unit",
                word,
                at_ms,
                Charge { cost: charged, at_ms },
                actual,
            );
        }
        let full = self.word(at_ms, |quota| quota.limit, |_| 0);
        self.settle("settle without room", full, at_ms, Charge { cost: 1, at_ms }, 2);
        let longest_ms = longest_window_ms(&self.model);
        for (why, now_ms) in [
            ("settle in the next unit", at_ms + self.unit_ms()),
            ("settle two longest windows later", at_ms + 2 * longest_ms),
            ("settle by a late clock", at_ms - self.unit_ms()),
            ("settle a charge by a clock that was ahead", at_ms - 3 * longest_ms),
        ] {
            self.settle(why, word, now_ms, Charge { cost: 1, at_ms }, 0);
            self.settle(why, word, now_ms, Charge { cost: 1, at_ms }, 2);
        }
    }

    /// Resets of unused and full tallies.
    fn resets(&mut self) {
        let full = self.word(NEW_YEAR_MS, |quota| quota.limit, |_| 0);
        self.reset("an unused tally", 0, NEW_YEAR_MS);
        self.reset("full", full, NEW_YEAR_MS + 1);
        self.reset("much later", full, NEW_YEAR_MS + 10 * longest_window_ms(&self.model));
        self.reset("largest time", full, u64::MAX);
    }

    /// Random operations on random tallies, at times near their stamps.
    fn random(&mut self, random: &mut Random) {
        for _ in 0..10 {
            let longest = self.model.units_in_longest().max(self.model.units_of_tolerance());
            let stamp = self.model.stamp_of(NEW_YEAR_MS) + random.between(0, 3 * longest);
            let mut tally = Tally { stamp, logs: Vec::new() };
            for quota in &self.model.policy().quotas {
                let index = self.model.index(quota, stamp);
                let mut count = || i128::from(random.below(u64::from(quota.limit) + 1));
                let mut log = vec![Entry { index, cost: count() }];
                if self.is_sliding() {
                    log.push(Entry { index: index - 1, cost: count() });
                }
                tally.logs.push(log);
            }
            let word = self.model.pack(&tally);

            let unit_ms = self.model.unit_ms();
            let now_ms =
                random.between((stamp - 2 * longest) * unit_ms, (stamp + 3 * longest) * unit_ms);
            let at_ms = random.between(now_ms - 2 * longest * unit_ms, now_ms);
            let (now_ms, at_ms) =
                (u64::try_from(now_ms).expect("a time"), u64::try_from(at_ms).expect("a time"));
            let limit = u64::from(self.model.policy().quotas[0].limit);
            let mut cost = || u32::try_from(random.below(limit + 1)).expect("below a limit");
            let (cost, actual) = (cost(), cost());
            match random.below(6) {
                0..=2 => self.check("random", word, now_ms, cost),
                3 => self.peek("random", word, now_ms, cost),
                4 => self.refund("random", word, now_ms, cost, at_ms),
                _ => self.settle("random", word, now_ms, Charge { cost, at_ms }, actual),
            }
        }
    }

    /// Reuse of a limiter's slot next to the first time at which its tally allows it.
    fn reuse(&self, cases: &mut Vec<ReusableCase>) {
        let longest_ms = longest_window_ms(&self.model);
        let quotas = &self.model.policy().quotas;
        let ends = quotas.iter().map(|quota| end_ms(quota, NEW_YEAR_MS));
        let end_ms = ends.max().expect("a policy has a quota");
        let mut push = |word: u64, now_ms: u64| {
            let reusable = self.model.is_reusable(word, now_ms);
            cases.push(ReusableCase { policy: self.policy.to_owned(), word, now_ms, reusable });
        };
        for written_ms in [NEW_YEAR_MS, end_ms - 1] {
            let word = self.word(written_ms, |quota| quota.limit, |_| 0);
            // A fixed window counts until its end, a sliding one until the end of the next.
            for edge_ms in [end_ms + 1000, end_ms + longest_ms + 1000] {
                push(word, edge_ms - 1);
                push(word, edge_ms);
            }
            push(word, written_ms - 1);
        }
        push(0, 0);
        push(0, NEW_YEAR_MS);
        push(u64::MAX, NEW_YEAR_MS);
        push(u64::MAX, u64::MAX);
    }

    fn check(&mut self, why: &str, word: u64, now_ms: u64, cost: u32) {
        self.push(why, word, now_ms, Op::Check { cost });
    }

    fn peek(&mut self, why: &str, word: u64, now_ms: u64, cost: u32) {
        self.push(why, word, now_ms, Op::Peek { cost });
    }

    fn refund(&mut self, why: &str, word: u64, now_ms: u64, charged: u32, charged_at_ms: u64) {
        self.push(why, word, now_ms, Op::Refund { charged, charged_at_ms });
    }

    fn settle(&mut self, why: &str, word: u64, now_ms: u64, charge: Charge, actual: u32) {
        self.push(
            why,
            word,
            now_ms,
            Op::Settle { charged: charge.cost, charged_at_ms: charge.at_ms, actual },
        );
    }

    fn reset(&mut self, why: &str, word: u64, now_ms: u64) {
        self.push(why, word, now_ms, Op::Reset);
    }

    /// Adds a case with the model's result, unless there is a case with the same inputs.
    fn push(&mut self, why: &str, word: u64, now_ms: u64, op: Op) {
        let has_inputs =
            |other: &DecisionCase| (other.word, other.now_ms, other.op) == (word, now_ms, op);
        if !self.cases.iter().any(has_inputs) {
            self.cases.push(case(why, self.policy, &self.model, word, now_ms, op));
        }
    }

    /// Returns a tally with the stamp of a time. The functions give the counts of each quota: in
    /// the window of the stamp, and in the window before, which only sliding policies count.
    fn word(
        &self,
        time_ms: u64,
        current: impl Fn(&Quota) -> u32,
        previous: impl Fn(&Quota) -> u32,
    ) -> u64 {
        let stamp = self.model.stamp_of(time_ms);
        let mut tally = Tally { stamp, logs: Vec::new() };
        for quota in &self.model.policy().quotas {
            let index = self.model.index(quota, stamp);
            tally.logs.push(vec![
                Entry { index, cost: i128::from(current(quota)) },
                Entry { index: index - 1, cost: i128::from(previous(quota)) },
            ]);
        }
        self.model.pack(&tally)
    }

    /// Returns the largest count that fits the field of window `i`.
    fn largest_count(&self, i: usize) -> u32 {
        let per_window = if self.is_sliding() { 2 } else { 1 };
        let bits = self.model.layout().count_bits[per_window * i];
        u32::try_from((1u64 << bits) - 1).expect("at most 32 bits")
    }

    fn is_sliding(&self) -> bool {
        self.model.policy().algorithm == Algorithm::Sliding
    }

    fn unit_ms(&self) -> u64 {
        u64::try_from(self.model.unit_ms()).expect("a length")
    }
}

/// Returns the length of the longest window.
fn longest_window_ms(model: &Model) -> u64 {
    length_ms(model.policy().quotas.last().expect("a policy has a quota"))
}

/// Returns the length of a quota's window, of a month that of the longest one.
fn length_ms(quota: &Quota) -> u64 {
    u64::from(quota.window.longest_s()) * 1000
}

/// Returns the end of the window that a time is in.
fn end_ms(quota: &Quota, time_ms: u64) -> u64 {
    let index = quota.window.index(i128::from(time_ms));
    u64::try_from(quota.window.start_ms(index + 1)).expect("a time after the epoch")
}

/// Returns an operation with the model's result.
fn case(why: &str, policy: &str, model: &Model, word: u64, now_ms: u64, op: Op) -> DecisionCase {
    let (next, decision, uncharged) = match op {
        Op::Check { cost } => {
            let decision = model.check(word, now_ms, cost);
            (decision.next, Some(decision), None)
        }
        Op::Peek { cost } => {
            let decision = model.peek(word, now_ms, cost);
            (decision.next, Some(decision), None)
        }
        Op::Refund { charged, charged_at_ms } => {
            let charge = Charge { cost: charged, at_ms: charged_at_ms };
            (model.refund(word, charge, now_ms), None, None)
        }
        Op::Settle { charged, charged_at_ms, actual } => {
            let charge = Charge { cost: charged, at_ms: charged_at_ms };
            let settled = model.settle(word, charge, actual, now_ms);
            (settled.next, None, Some(settled.uncharged))
        }
        Op::Reset => (model.reset(word, now_ms), None, None),
    };
    DecisionCase {
        why: why.to_owned(),
        policy: policy.to_owned(),
        word,
        now_ms,
        op,
        next,
        answer: decision.as_ref().map(answer),
        uncharged,
    }
}

/// Converts a decision of the model to the form of the file.
fn answer(decision: &Decision) -> Answer {
    let time = |time_ms: i128| u64::try_from(time_ms).expect("a time within 64 bits");
    Answer {
        outcome: decision.outcome.name().to_owned(),
        at_ms: time(decision.time_ms),
        remaining: decision.quotas.iter().map(|quota| quota.remaining).collect(),
        reset_s: decision.quotas.iter().map(|quota| quota.reset_s).collect(),
        retry_at_ms: decision.retry_at_ms.map(time),
        retry_after_s: decision.retry_after_s,
    }
}

/// Returns random sequences of operations, each on an unused tally, with a clock that mostly moves
/// forward.
fn sequences() -> Vec<SequenceStep> {
    let mut random = Random::new(3);
    let mut steps = Vec::new();
    for (sequence, policy) in SEQUENCES {
        let model = Model::parse(policy).expect("a policy");
        let unit_ms = u64::try_from(model.unit_ms()).expect("a length");
        let longest_ms = longest_window_ms(&model);
        let limit = u64::from(model.policy().quotas[0].limit);
        let mut word = 0;
        let mut now_ms = NEW_YEAR_MS + random.below(longest_ms);
        let mut charge = Charge { cost: 0, at_ms: now_ms };
        for _ in 0..18 {
            let mut why = "";
            now_ms += match random.below(10) {
                0..=4 => random.below(unit_ms / 4),
                5..=8 => random.below(2 * unit_ms),
                _ => random.below(longest_ms),
            };
            let mut time_ms = now_ms;
            if random.below(10) == 0 {
                why = "late clock";
                time_ms -= random.below(longest_ms / 2);
            }
            let cost = u32::try_from(random.below(limit) + 1).expect("a cost");
            let op = match random.below(20) {
                0..=12 => Op::Check { cost },
                13 | 14 => Op::Peek { cost },
                15 | 16 => Op::Refund { charged: charge.cost, charged_at_ms: charge.at_ms },
                17 | 18 => {
                    Op::Settle { charged: charge.cost, charged_at_ms: charge.at_ms, actual: cost }
                }
                _ => Op::Reset,
            };
            let case = case(why, policy, &model, word, time_ms, op);
            word = case.next;
            match (&case.op, &case.answer) {
                (Op::Check { cost }, Some(answer))
                    if answer.outcome == Outcome::Admitted.name() =>
                {
                    charge = Charge { cost: *cost, at_ms: answer.at_ms };
                }
                // A charge is given back or settled only once.
                (Op::Refund { .. } | Op::Settle { .. } | Op::Reset, _) => charge.cost = 0,
                _ => {}
            }
            steps.push(SequenceStep { sequence: (*sequence).to_owned(), case });
        }
    }
    steps
}
