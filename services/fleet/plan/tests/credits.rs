//! Credits and the holding in any sequence of calls, and words compared with core's tallies.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::sync::{AtomicU64, Ordering};
use keytally_core::{MAX_QUOTAS, Outcome, Policy, Timestamp, decide};
use keytally_fleet_plan::credit::{self, CreditLayout, SlidingError, Units};
use keytally_fleet_plan::holding::{self, Applied};
use keytally_fleet_plan::lease::Planner;
use keytally_fleet_plan::meta::Meta;
use keytally_fleet_plan::request::{LeaseRequest, Reply, WindowReply};
use keytally_fleet_plan::words::{
    CompoundSpending, Part, Spending, TallyWords, Word, Words, admit_unreserved, deduct_unreserved,
    refund, refusal, spend, spend_all, spend_up_to, want,
};
use proptest::prelude::*;

const START_MS: u64 = 1_700_000_000_000;

const POLICIES: [&str; 8] = [
    "1/second",
    "100/minute",
    "100/minute, 1000/hour",
    "4294967295/31d",
    "3/90s, 5/minute, 7/7m",
    "10/minute, 100/hour, 1000/day",
    "50/day, 100/week, 300/month@17",
    "30000/month",
];

fn layout(policy: &str) -> (Policy, CreditLayout) {
    let policy: Policy = policy.parse().unwrap();
    let layout = CreditLayout::new(policy.layout(), &policy.limits()).unwrap();
    (policy, layout)
}

/// The five words of a tally.
#[derive(Default)]
struct Memory([AtomicU64; 5]);

impl Memory {
    fn words(&self) -> TallyWords<'_> {
        TallyWords::from(&self.0)
    }

    fn with_credits(layout: &CreditLayout, now_ms: u64, units: Units) -> Self {
        let memory = Self::default();
        for word in [Word::Credits, Word::Holding] {
            memory.words().store(word, layout.word(now_ms, &units));
        }
        memory
    }

    fn credits(&self, layout: &CreditLayout, now_ms: u64) -> Units {
        layout.current(self.0[0].load(Ordering::Acquire), now_ms)
    }
}

#[test]
fn sliding_windows_are_refused() {
    let policy: Policy = "sliding 100/minute".parse().unwrap();
    let refused = CreditLayout::new(policy.layout(), &policy.limits());
    assert_eq!(refused.unwrap_err(), SlidingError);
    let sentence = SlidingError.to_string();
    assert!(sentence.contains("sliding") && sentence.contains("write `fixed`"), "{sentence}");
}

#[test]
fn month_and_week_begin_and_end_as_in_the_calendar() {
    let (_, layout) = layout("50/day, 100/week, 300/month@17");
    // 2027-02-10 12:00 UTC, a Wednesday.
    let now_ms = 1_802_260_800_000;
    let day = 86_400_000;
    let midnight = now_ms - day / 2;
    let spans = [0, 1, 2].map(|index| layout.span(index, now_ms));
    assert_eq!((spans[0].begin_ms, spans[0].end_ms), (midnight, midnight + day));
    assert_eq!((spans[1].begin_ms, spans[1].end_ms), (midnight - 2 * day, midnight + 5 * day));
    // From 17 January to 17 February.
    assert_eq!((spans[2].begin_ms, spans[2].end_ms), (midnight - 24 * day, midnight + 7 * day));
    // From 17 February to 17 March.
    let span = layout.span(2, midnight + 20 * day);
    assert_eq!((span.begin_ms, span.end_ms), (midnight + 7 * day, midnight + 35 * day));
    // The week of the epoch began before it, and ended on a Monday.
    let span = layout.span(1, 0);
    assert_eq!((span.begin_ms, span.end_ms), (0, 4 * day));
}

#[test]
fn refund_never_raises_credits_above_the_holding() {
    let (_, layout) = layout("100/minute, 1000/hour");
    let memory = Memory::with_credits(&layout, START_MS, [5, 5, 0, 0]);
    let Spending::Spent { at_ms, .. } = spend(&layout, &memory.words(), START_MS, 3) else {
        panic!("there are credits")
    };
    refund(&layout, &memory.words(), at_ms, 2);
    assert_eq!(memory.credits(&layout, START_MS), [4, 4, 0, 0]);
    refund(&layout, &memory.words(), at_ms, 2);
    assert_eq!(memory.credits(&layout, START_MS), [5, 5, 0, 0], "that was one too many");
    // A minute later, only the hour is the same, and the agent has not moved the word.
    refund(&layout, &memory.words(), at_ms + 60_000, 1);
    assert_eq!(memory.credits(&layout, START_MS), [5, 5, 0, 0]);
}

#[test]
fn settlement_takes_what_every_window_has() {
    let (_, layout) = layout("100/minute, 1000/hour");
    let memory = Memory::with_credits(&layout, START_MS, [3, 9, 0, 0]);
    assert_eq!(spend_up_to(&layout, &memory.words(), START_MS, 5), 3);
    assert_eq!(memory.credits(&layout, START_MS), [0, 6, 0, 0]);
    assert_eq!(spend_up_to(&layout, &memory.words(), START_MS, 5), 0);
}

#[test]
fn late_time_is_taken_as_that_of_the_word() {
    let (_, layout) = layout("100/minute");
    let memory = Memory::with_credits(&layout, START_MS + 60_000, [5, 0, 0, 0]);
    let spent = spend(&layout, &memory.words(), START_MS, 1);
    let Spending::Spent { at_ms, .. } = spent else { panic!("{spent:?}") };
    assert!(layout.is_same_window(0, at_ms, START_MS + 60_000));
    assert_eq!(memory.credits(&layout, START_MS + 60_000), [4, 0, 0, 0]);
}

#[test]
fn compound_charge_spends_of_all_tallies_or_of_none() {
    let (_, key) = layout("100/minute, 1000/hour");
    let (_, team) = layout("30000/month");
    let key_memory = Memory::with_credits(&key, START_MS, [5, 5, 0, 0]);
    let team_memory = Memory::with_credits(&team, START_MS, [2, 0, 0, 0]);
    let parts = |cost| {
        [
            Part { layout: &key, words: key_memory.words(), cost: 1 },
            Part { layout: &team, words: team_memory.words(), cost },
        ]
    };
    assert!(matches!(spend_all(&parts(2), START_MS), CompoundSpending::Spent { .. }));
    assert_eq!(key_memory.credits(&key, START_MS), [4, 4, 0, 0]);
    assert_eq!(team_memory.credits(&team, START_MS), [0; 4]);
    let refused = CompoundSpending::Refused { part: 1, why: Spending::NoCredits };
    assert_eq!(spend_all(&parts(1), START_MS), refused);
    assert_eq!(key_memory.credits(&key, START_MS), [4, 4, 0, 0]);
    let many = [parts(0)[0]; 9];
    assert!(matches!(spend_all(&many, START_MS), CompoundSpending::Refused { .. }));
    assert_eq!(key_memory.credits(&key, START_MS), [4, 4, 0, 0]);
}

/// Words whose credits another request takes right after the first load.
struct Robbed<'m> {
    words: TallyWords<'m>,
    loads: core::cell::Cell<u32>,
    credits: u64,
}

impl Words for Robbed<'_> {
    fn load(&self, word: Word) -> u64 {
        if word == Word::Credits && self.loads.replace(self.loads.get() + 1) == 0 {
            return self.credits;
        }
        self.words.load(word)
    }

    fn store(&self, word: Word, value: u64) {
        self.words.store(word, value);
    }

    fn exchange(&self, word: Word, present: u64, next: u64) -> Result<(), u64> {
        self.words.exchange(word, present, next)
    }
}

#[test]
fn compound_charge_that_loses_a_race_returns_what_it_took() {
    let (_, layout) = layout("100/minute");
    let (first, second) =
        (Memory::with_credits(&layout, START_MS, [5, 0, 0, 0]), Memory::default());
    // The probe of the second tally sees credits that are spent before its charge.
    let credits = layout.word(START_MS, &[5, 0, 0, 0]);
    let seen = |memory| Robbed { words: memory, loads: core::cell::Cell::new(0), credits };
    let parts = [
        Part { layout: &layout, words: seen(first.words()), cost: 2 },
        Part { layout: &layout, words: seen(second.words()), cost: 1 },
    ];
    let refused = CompoundSpending::Refused { part: 1, why: Spending::NoCredits };
    assert_eq!(spend_all(&parts, START_MS), refused);
    assert_eq!(first.credits(&layout, START_MS), [5, 0, 0, 0]);
}

#[test]
fn exhausted_window_denies_until_it_passes_or_the_planner_retries() {
    let (_, layout) = layout("10/minute, 1000/hour");
    let memory = Memory::default();
    let words = memory.words();
    let mut planner = Planner::new(1);
    want(&words, 3);
    planner.wanted();
    let request = planner.next(&layout, &words, START_MS).unwrap();
    assert!(request.windows()[0].want >= 3);
    let mut reply = Reply { store_ms: START_MS, ..Reply::default() };
    reply.windows[0] = WindowReply { held: 0, left: 0, machines: 4 };
    reply.windows[1] = WindowReply { held: 3, left: 400, machines: 4 };
    let applied = planner.replied(&layout, &words, START_MS, &request, &reply);
    assert_eq!(applied, Applied::Granted([0, 3, 0, 0]));
    assert_eq!(spend(&layout, &words, START_MS, 1), Spending::Exhausted);
    assert_eq!(refusal(&layout, &words, START_MS + 60_000, 1), Spending::NoCredits);
    planner.wanted();
    assert_eq!(planner.next(&layout, &words, START_MS + 1), None, "it is too early");
    let mut now_ms = START_MS;
    while spend(&layout, &words, now_ms, 1) == Spending::Exhausted {
        now_ms = planner.due_ms(&layout, &words).unwrap().max(now_ms + 1);
        assert_eq!(planner.next(&layout, &words, now_ms), None);
    }
    // A sixtieth of the minute, times 0.5 to 1.5.
    assert!((500..=1500).contains(&(now_ms - START_MS)), "after {} ms", now_ms - START_MS);
    assert_eq!(spend(&layout, &words, now_ms, 1), Spending::NoCredits);
}

#[test]
fn reply_after_its_window_does_not_exhaust_the_next_one() {
    let (_, layout) = layout("10/minute, 1000/hour");
    let memory = Memory::default();
    let words = memory.words();
    let mut planner = Planner::new(1);
    let begins_ms = layout.span(0, START_MS).end_ms;
    want(&words, 1);
    planner.wanted();
    let request = planner.next(&layout, &words, begins_ms - 1).unwrap();
    let mut reply = Reply { store_ms: begins_ms - 1, ..Reply::default() };
    reply.windows[0] = WindowReply { held: 0, left: 0, machines: 4 };
    reply.windows[1] = WindowReply { held: 3, left: 400, machines: 4 };
    planner.replied(&layout, &words, begins_ms + 1, &request, &reply);
    assert_eq!(spend(&layout, &words, begins_ms + 1, 1), Spending::NoCredits);
    assert_eq!(memory.credits(&layout, begins_ms + 1), [0, 3, 0, 0], "the hour is the same");
    let left = layout.current(words.load(Word::Left), begins_ms + 1);
    assert_eq!(left, [10, 400, 0, 0]);
    want(&words, 1);
    planner.wanted();
    let request = planner.next(&layout, &words, begins_ms + 2).unwrap();
    assert_eq!((request.windows()[0].hold, request.windows()[1].hold), (0, 3));
}

#[test]
fn name_that_another_machine_uses_closes_the_request() {
    let (_, layout) = layout("10/minute");
    let memory = Memory::default();
    let words = memory.words();
    let (request, _) = holding::open(&layout, &words, START_MS, &[5, 0, 0, 0]).unwrap();
    let mut reply = Reply::default();
    reply.windows[0].machines = -1;
    let applied = holding::apply(&layout, &words, START_MS, &request, &reply);
    assert_eq!(applied, Applied::NameTaken);
    assert!(!Meta::from_bits(words.load(Word::Meta)).is_open());
    holding::void(&words);
    assert_eq!(words.load(Word::Credits), 0);
}

#[test]
fn nothing_is_given_back_without_credits_or_during_a_request() {
    let (_, layout) = layout("10/minute");
    let memory = Memory::default();
    let words = memory.words();
    let give_back = || holding::give_back(&layout, &words, START_MS, &[3, 0, 0, 0]);
    assert_eq!(give_back(), None);
    for word in [Word::Credits, Word::Holding] {
        words.store(word, layout.word(START_MS, &[2, 0, 0, 0]));
    }
    assert_eq!(give_back().unwrap().windows()[0].want, 0);
    words.store(Word::Credits, layout.word(START_MS, &[2, 0, 0, 0]));
    assert_eq!(give_back(), None, "a request is open");
    assert_eq!(memory.credits(&layout, START_MS), [2, 0, 0, 0]);
}

#[test]
fn reply_beyond_the_request_grants_what_was_wanted() {
    let (_, layout) = layout("10/minute");
    let memory = Memory::default();
    let (request, _) = holding::open(&layout, &memory.words(), START_MS, &[5, 0, 0, 0]).unwrap();
    let mut reply = Reply::default();
    reply.windows[0] = WindowReply { held: u32::MAX, left: 7, machines: 1 };
    holding::apply(&layout, &memory.words(), START_MS, &request, &reply);
    assert_eq!(memory.credits(&layout, START_MS), [5, 0, 0, 0]);
}

#[test]
fn what_was_admitted_without_credits_is_stated_as_held() {
    let (_, layout) = layout("10/minute");
    let memory = Memory::with_credits(&layout, START_MS, [2, 0, 0, 0]);
    let (words, none) = (memory.words(), Units::default());
    admit_unreserved(&layout, &words, START_MS, 4);
    let (request, _) = holding::open(&layout, &words, START_MS, &none).unwrap();
    let window = request.windows()[0];
    assert_eq!((window.hold, window.unreserved, window.want), (6, 4, 6));
    // Another one is admitted before the reply.
    admit_unreserved(&layout, &words, START_MS, 1);
    let mut reply = Reply::default();
    reply.windows[0] = WindowReply { held: 6, left: 4, machines: 1 };
    holding::apply(&layout, &words, START_MS, &request, &reply);
    assert_eq!(memory.credits(&layout, START_MS), [2, 0, 0, 0], "none of it can be spent");
    assert_eq!(layout.units(words.load(Word::Holding), 0), 6);
    let (request, _) = holding::open(&layout, &words, START_MS, &none).unwrap();
    let window = request.windows()[0];
    assert_eq!((window.hold, window.unreserved, window.want), (7, 1, 7));
}

#[test]
fn idle_credits_are_given_back_in_time() {
    for (policy, machines, most_ms) in
        [("1000/minute", 4, 15_000), ("100/minute", 4, 2000), ("100/second", 4, 250)]
    {
        let (_, layout) = layout(policy);
        let memory = Memory::default();
        let words = memory.words();
        let mut planner = Planner::new(3);
        planner.wanted();
        want(&words, 1);
        let request = planner.next(&layout, &words, START_MS).unwrap();
        let mut reply = Reply::default();
        reply.windows[0] = WindowReply { held: request.windows()[0].want, left: 50, machines };
        planner.replied(&layout, &words, START_MS, &request, &reply);
        let mut now_ms = START_MS;
        let given_back = loop {
            now_ms = planner.due_ms(&layout, &words).unwrap().max(now_ms + 1);
            if let Some(request) = planner.next(&layout, &words, now_ms) {
                break request;
            }
        };
        assert_eq!((given_back.windows()[0].hold, given_back.windows()[0].want), (0, 0));
        assert_eq!(memory.credits(&layout, now_ms), [0; 4]);
        let after_ms = now_ms - START_MS;
        assert!((most_ms / 2..=most_ms).contains(&after_ms), "{policy}: after {after_ms} ms");
    }
}

#[test]
fn request_that_was_given_up_is_settled_although_nothing_waits() {
    let (_, layout) = layout("100/minute");
    let memory = Memory::with_credits(&layout, START_MS, [5, 0, 0, 0]);
    let words = memory.words();
    let mut planner = Planner::new(3);
    planner.recalled(0);
    let lost = planner.next(&layout, &words, START_MS).unwrap();
    assert_eq!((lost.windows()[0].hold, lost.windows()[0].want), (0, 0));
    // The message that gives back is lost, so the store still counts five units.
    let mut now_ms = START_MS;
    let again = loop {
        now_ms = planner.due_ms(&layout, &words).unwrap().max(now_ms + 1);
        if let Some(request) = planner.next(&layout, &words, now_ms) {
            break request;
        }
    };
    assert_eq!(again.windows(), lost.windows());
    assert_ne!(again.number, lost.number);
    assert!(now_ms - START_MS <= 150, "after {} ms", now_ms - START_MS);
    let mut reply = Reply::default();
    reply.windows[0] = WindowReply { held: 0, left: 100, machines: 1 };
    planner.replied(&layout, &words, now_ms, &again, &reply);
    assert_eq!(planner.due_ms(&layout, &words), None, "all is settled");
}

#[test]
fn recall_takes_all_but_a_tenth_of_a_second_of_demand() {
    let (_, layout) = layout("10000/minute");
    let memory = Memory::default();
    let words = memory.words();
    let mut planner = Planner::new(3);
    let mut now_ms = START_MS;
    // 100 units per second, for a second and until there are some credits left.
    for step in 0.. {
        if step >= 100 && memory.credits(&layout, now_ms)[0] > 40 {
            break;
        }
        assert!(step < 1000, "there are never more than 40 credits");
        now_ms += 10;
        if spend(&layout, &words, now_ms, 1) == Spending::NoCredits {
            want(&words, 1);
        }
        planner.wanted();
        if let Some(request) = planner.next(&layout, &words, now_ms) {
            let held = request.windows()[0].want;
            let mut reply = Reply::default();
            reply.windows[0] = WindowReply { held, left: 5000, machines: 2 };
            planner.replied(&layout, &words, now_ms, &request, &reply);
        }
    }
    planner.recalled(0);
    let request = planner.next(&layout, &words, now_ms).unwrap();
    assert_eq!(request.windows()[0].want, request.windows()[0].hold);
    let kept = memory.credits(&layout, now_ms)[0];
    assert!((5..=25).contains(&kept), "{kept} credits are kept");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A word that core charges has the count of each window where this crate reads it, and what
    /// core rolls forward is what this crate rolls forward.
    #[test]
    fn layout_is_that_of_the_tally(
        policy in 0..POLICIES.len(),
        time_ms in 0..4_000_000_000_000_u64,
        later_ms in 0..4_000_000_000_u64,
        cost in 1..4_u32,
    ) {
        let (policy, layout) = layout(POLICIES[policy]);
        let at = |ms| Timestamp::from_unix_ms(ms);
        let first = decide::check(policy.layout(), &policy.limits(), 0, at(time_ms), cost);
        if first.outcome == Outcome::Admitted {
            let mut units = Units::default();
            units[..layout.len()].fill(cost);
            prop_assert_eq!(first.next, layout.word(time_ms, &units));
            prop_assert_eq!(layout.current(first.next, time_ms), units);
            let now_ms = time_ms + later_ms;
            let quotas = decide::quotas(policy.layout(), &policy.limits(), first.next, at(now_ms));
            let current = layout.current(first.next, now_ms);
            let rolled = layout.rolled(first.next, now_ms);
            for (index, &units) in current.iter().enumerate().take(layout.len()) {
                let state = quotas.get(index).unwrap();
                prop_assert_eq!(units, state.used());
                prop_assert_eq!(layout.units(rolled, index), state.used());
                prop_assert_eq!(layout.limit(index), state.limit);
                let span = layout.span(index, now_ms);
                prop_assert_eq!(span.end_ms, state.reset_unix_s * 1000);
                prop_assert!(span.begin_ms <= now_ms && now_ms < span.end_ms);
                if let Some(before_ms) = span.begin_ms.checked_sub(1) {
                    prop_assert_eq!(layout.span(index, before_ms).end_ms, span.begin_ms);
                }
                prop_assert!(layout.is_same_window(index, span.begin_ms, span.end_ms - 1));
                prop_assert!(!layout.is_same_window(index, span.begin_ms, span.end_ms));
            }
        }
    }

    /// No request spends a credit of a window that has passed.
    #[test]
    fn void_window_is_never_spent(
        policy in 0..POLICIES.len(),
        time_ms in 0..4_000_000_000_000_u64,
        later_ms in 0..4_000_000_000_u64,
        credits in any::<[u8; MAX_QUOTAS]>(),
        cost in 1..100_u32,
    ) {
        let (_, layout) = layout(POLICIES[policy]);
        let units = credits.map(u32::from);
        let word = layout.word(time_ms, &units);
        let now_ms = time_ms + later_ms;
        let spent = credit::spend(&layout, word, now_ms, cost);
        let is_void = |index| !layout.is_same_window(index, layout.stamp_ms(word), now_ms);
        let lacks = |index| layout.units(word, index) < cost;
        let expected = !(0..layout.len()).any(|index| is_void(index) || lacks(index));
        prop_assert_eq!(spent.is_some(), expected);
        prop_assert!(credit::spend_up_to(&layout, word, now_ms, cost).1 == 0 || expected
            || !(0..layout.len()).any(is_void));
        if let Some(next) = spent {
            for index in 0..layout.len() {
                prop_assert_eq!(layout.units(next, index), layout.units(word, index) - cost);
            }
        }
    }

    /// In each window of any sequence of calls, what was spent and what is left to spend is at most
    /// the holding, and the holding is at most what the store counts.
    #[test]
    fn spent_and_credits_never_exceed_the_holding(
        policy in 0..POLICIES.len(),
        steps in prop::collection::vec((0..12_u8, 1..6_u32, 0..40_000_u64), 1..120),
    ) {
        let (_, layout) = layout(POLICIES[policy]);
        let memory = Memory::default();
        let words = memory.words();
        let mut now_ms = START_MS;
        let mut history = History::default();
        for (step, units, elapsed_ms) in steps {
            now_ms += if units == 1 { elapsed_ms } else { elapsed_ms % 7 };
            history.step(&layout, &words, step, units, now_ms);
            history.verify(&layout, &words, now_ms)?;
        }
    }
}

/// What happened to one tally: a store that grants everything within the limit, in order.
#[derive(Default)]
struct History {
    /// Units spent less those refunded, by window and its beginning.
    spent: std::collections::HashMap<(usize, u64), i64>,
    /// What the store counts, by window and its beginning.
    counted: std::collections::HashMap<(usize, u64), u32>,
    charges: Vec<(u64, u32)>,
    /// Units admitted without credits, by window and its beginning.
    admitted: std::collections::HashMap<(usize, u64), i64>,
    open: Option<(LeaseRequest, Reply)>,
}

impl History {
    fn step(
        &mut self,
        layout: &CreditLayout,
        words: &TallyWords<'_>,
        step: u8,
        units: u32,
        now_ms: u64,
    ) {
        let mut all = Units::default();
        all[..layout.len()].fill(units);
        match step {
            0..=3 => {
                if let Spending::Spent { at_ms, .. } = spend(layout, words, now_ms, units) {
                    add(&mut self.spent, layout, at_ms, i64::from(units));
                    self.charges.push((at_ms, units));
                }
            }
            4 => {
                if let Some((at_ms, cost)) = self.charges.pop() {
                    // It counts less where credits were returned.
                    let before = layout.current(words.load(Word::Credits), 0);
                    refund(layout, words, at_ms, cost);
                    let after = layout.current(words.load(Word::Credits), 0);
                    for index in 0..layout.len() {
                        let begin_ms = layout.span(index, at_ms).begin_ms;
                        let returned = i64::from(after[index] - before[index]);
                        *self.spent.entry((index, begin_ms)).or_default() -= returned;
                    }
                }
            }
            5 | 6 => {
                if let Some((request, _)) = holding::open(layout, words, now_ms, &all) {
                    self.send(request);
                }
            }
            7 => {
                if let Some((request, reply)) = self.open.take() {
                    holding::apply(layout, words, now_ms, &request, &reply);
                }
            }
            8 => {
                if let Some(request) = holding::give_back(layout, words, now_ms, &all) {
                    self.send(request);
                }
            }
            9 => holding::close(words),
            10 => {
                admit_unreserved(layout, words, now_ms, units);
                add(&mut self.admitted, layout, now_ms, i64::from(units));
            }
            // A request of some part before was refused for another reason.
            _ => {
                let noted = layout.units_at(words.load(Word::Unreserved), now_ms);
                let units = noted[..layout.len()].iter().fold(units, |a, &b| a.min(b));
                deduct_unreserved(layout, words, now_ms, &[units; MAX_QUOTAS]);
                add(&mut self.admitted, layout, now_ms, -i64::from(units));
            }
        }
    }

    /// The store applies the request, and its reply is on its way.
    fn send(&mut self, request: LeaseRequest) {
        let mut reply = Reply::default();
        for (index, window) in request.windows().iter().enumerate() {
            let counted = self.counted.entry((index, window.begin_ms)).or_default();
            *counted = window.want.min(window.limit).max(window.hold);
            let left = window.limit.saturating_sub(*counted);
            reply.windows[index] = WindowReply { held: *counted, left, machines: 1 };
        }
        self.open = Some((request, reply));
    }

    fn verify(
        &self,
        layout: &CreditLayout,
        words: &TallyWords<'_>,
        now_ms: u64,
    ) -> Result<(), TestCaseError> {
        let credits = layout.current(words.load(Word::Credits), now_ms);
        let held = layout.current(words.load(Word::Holding), now_ms);
        let unreserved = layout.units_at(words.load(Word::Unreserved), now_ms);
        for index in 0..layout.len() {
            let window = (index, layout.span(index, now_ms).begin_ms);
            let spent = self.spent.get(&window).copied().unwrap_or(0);
            let counted = self.counted.get(&window).copied().unwrap_or(0);
            let admitted = self.admitted.get(&window).copied().unwrap_or(0);
            let stated = i64::from(held[index]) + i64::from(unreserved[index]);
            prop_assert!(spent + i64::from(credits[index]) <= i64::from(held[index]));
            prop_assert!(spent + i64::from(credits[index]) + admitted <= stated);
            prop_assert!(held[index] <= counted, "the store counts less than is held");
        }
        for (&(index, _), &spent) in &self.spent {
            prop_assert!(spent <= i64::from(layout.limit(index)));
        }
        Ok(())
    }
}

/// Adds units to all windows of a time.
fn add(
    all: &mut std::collections::HashMap<(usize, u64), i64>,
    layout: &CreditLayout,
    at_ms: u64,
    units: i64,
) {
    for index in 0..layout.len() {
        let begin_ms = layout.span(index, at_ms).begin_ms;
        *all.entry((index, begin_ms)).or_default() += units;
    }
}
