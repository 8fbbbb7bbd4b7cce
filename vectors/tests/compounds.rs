//! Compares requests that charge several tallies with the model, on every combination of small
//! words.
//!
//! The words of a test have a stamp of a few units, and counts from 0 to one above the limit. On
//! each combination of words, a request is made in every unit of these stamps and in some after, at
//! the first and the last millisecond of the unit, and at the largest time. Each cost is 0 to one
//! above the largest limit, or the largest cost. The model decides about each tally for itself. All
//! tallies must be charged if all have room, and else none, and each verdict must be that of its
//! tally. Every comparison is made with an explicit time, and with a system clock, which also
//! corrects stamps that are more than a minute ahead of it.
//!
//! The layouts are those that gates and limiters choose. They have more bits than those of
//! `exhaustive.rs`, which compares all words of small ones.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

use alloc::collections::BTreeMap;
use core::cell::Cell;

use keytally_core::{
    CacheLine, Clock, Compound, Entropy, Gate, GateConfig, GatePart, Key, Limiter, Name, NewKey,
    Part, Peppers, Plan, Timestamp, Verdict, check_all, peek_all,
};
use keytally_vectors::model::{self, Algorithm, Model};

/// A system clock whose readings are all the same.
#[derive(Clone, Copy)]
struct Steady(Timestamp);

impl Clock for Steady {
    const IS_SYSTEM: bool = true;

    fn reading(self) -> Timestamp {
        self.0
    }

    fn reread(self) -> Option<Timestamp> {
        Some(self.0)
    }
}

/// A request that may be made with either clock. `costs` are those of the request.
trait Request {
    /// Makes the request, or returns what it would do.
    fn make<C: Clock>(&self, clock: C, costs: &[u32], is_peek: bool) -> Compound;

    /// Returns the lines of all tables.
    fn lines(&self) -> Vec<&CacheLine>;

    /// Makes the request by [`Gate::check`]; `None` if that is not possible.
    fn check<C: Clock>(&self, clock: C, costs: &[u32]) -> Option<Verdict> {
        let _ = (clock, costs);
        None
    }
}

/// A tally of a request.
struct Tally {
    model: Model,
    /// The index of its word among those that the request reads.
    word: usize,
    /// The index of its cost among those of the request.
    cost: usize,
}

impl Tally {
    fn new(policy: &str, word: usize, cost: usize) -> Self {
        Self { model: Model::parse(policy).unwrap(), word, cost }
    }
}

/// What is compared.
struct Comparison<'r, R> {
    request: R,
    /// The tallies in the order of the verdicts.
    tallies: Vec<Tally>,
    /// The indexes of `tallies` in the order in which they are charged.
    order: &'r [usize],
    /// The number of units that the stamps of words are in.
    stamps: i128,
    /// What must occur: the outcomes of the tallies, a correction, or charges that are given back.
    reached: &'r [&'r str],
    /// The number of comparisons that the test makes, one of [`COMPARISONS`].
    comparisons: u64,
}

/// What the model expects of a request.
struct Expected {
    words: Vec<u64>,
    decisions: Vec<model::Decision>,
    is_admitted: bool,
    /// Whether a tally that had room lost it to another tally of the same request.
    is_given_back: bool,
}

impl<R: Request> Comparison<'_, R> {
    /// Returns where the words are: in which line, and at which position in it.
    fn positions(&self) -> Vec<(usize, usize)> {
        let image = || -> Vec<u64> {
            let lines = self.request.lines();
            lines.iter().flat_map(|line| (0..8).map(|word| line.load(word))).collect()
        };
        let costs = vec![1; self.costs()];
        // The first request may insert a subject, which writes more words. At the time of the
        // second one, its units have expired.
        let [first, second] = [0, 1 << 40].map(Timestamp::from_unix_ms);
        assert!(self.request.make(first, &costs, false).is_admitted());
        let before = image();
        assert!(self.request.make(second, &costs, false).is_admitted());
        let after = image();
        let changed = (0..before.len()).filter(|&word| before[word] != after[word]);
        changed.map(|word| (word / 8, word % 8)).collect()
    }

    fn costs(&self) -> usize {
        self.tallies.iter().map(|tally| tally.cost + 1).max().unwrap()
    }

    /// Returns the model of a word.
    fn model(&self, word: usize) -> &Model {
        &self.tallies.iter().find(|tally| tally.word == word).unwrap().model
    }

    /// Returns the small words of the tally at this index.
    fn words(&self, word: usize) -> Vec<u64> {
        let model = self.model(word);
        let per_window = match model.policy().algorithm {
            Algorithm::Fixed => 1,
            Algorithm::Sliding => 2,
        };
        let mut words: Vec<u64> =
            (0..self.stamps).map(|stamp| u64::try_from(stamp).unwrap()).collect();
        for (field, bits) in model.layout().count_bits.iter().enumerate() {
            let limit = u64::from(model.policy().quotas[field / per_window].limit);
            let with =
                |word: &u64| (0..=limit + 1).map(|count| word << bits | count).collect::<Vec<_>>();
            words = words.iter().flat_map(with).collect();
        }
        assert_eq!(model.layout().total_bits(), 64);
        words
    }

    /// Returns the times of requests. The units are those of the shortest stamp.
    fn times(&self) -> Vec<u64> {
        let unit_ms = self.tallies.iter().map(|tally| tally.model.unit_ms()).min().unwrap();
        let longest = self.tallies.iter().map(|tally| tally.model.unit_ms()).max().unwrap();
        let units = self.stamps * longest / unit_ms + 1;
        let times = (0..units).flat_map(|unit| [unit * unit_ms, (unit + 1) * unit_ms - 1]);
        times.map(|ms| u64::try_from(ms).unwrap()).chain([u64::MAX]).collect()
    }

    /// Returns what the model expects.
    fn expected(&self, words: &[u64], now_ms: u64, costs: &[u32]) -> Expected {
        let check = |tally: &Tally, words: &[u64]| {
            tally.model.check(words[tally.word], now_ms, costs[tally.cost])
        };
        let peek = |tally: &Tally, words: &[u64]| {
            tally.model.peek(words[tally.word], now_ms, costs[tally.cost])
        };
        let mut words = words.to_vec();
        let mut decisions: Vec<_> = self.tallies.iter().map(|tally| peek(tally, &words)).collect();
        let admits = |decision: &model::Decision| decision.outcome == model::Outcome::Admitted;
        if !decisions.iter().all(admits) {
            return Expected { words, decisions, is_admitted: false, is_given_back: false };
        }
        for (done, &index) in self.order.iter().enumerate() {
            let tally = &self.tallies[index];
            if costs[tally.cost] == 0 {
                // The probe has decided, and nothing is written.
                continue;
            }
            decisions[index] = check(tally, &words);
            if admits(&decisions[index]) {
                words[tally.word] = decisions[index].next;
                continue;
            }
            for &index in self.order[..done].iter().rev() {
                let (tally, cost) = (&self.tallies[index], costs[self.tallies[index].cost]);
                let at_ms = u64::try_from(decisions[index].time_ms).unwrap();
                let charge = model::Charge { cost, at_ms };
                words[tally.word] = tally.model.refund(words[tally.word], charge, now_ms);
                decisions[index].quotas = peek(tally, &words).quotas;
            }
            return Expected { words, decisions, is_admitted: false, is_given_back: true };
        }
        Expected { words, decisions, is_admitted: true, is_given_back: false }
    }

    /// Compares a request with what is expected of it.
    fn compare_compound(&self, compound: &Compound, expected: &Expected, costs: &[u32]) {
        assert_eq!(compound.is_admitted(), expected.is_admitted);
        assert_eq!(compound.tallies().len(), self.tallies.len());
        for ((tally, real), decision) in
            self.tallies.iter().zip(compound.verdicts()).zip(&expected.decisions)
        {
            assert_eq!(real.outcome().as_str(), decision.outcome.name());
            assert_eq!(real.cost(), costs[tally.cost]);
            let time_ms = real.quotas().time().unix_ms();
            assert_eq!(i128::from(time_ms), decision.time_ms);
            let retry_at = real.retry_at().map(|at| i128::from(at.unix_ms()));
            assert_eq!(retry_at, decision.retry_at_ms);
            assert_eq!(real.retry_after_s().map(u64::from), decision.retry_after_s);
            assert_eq!(real.quotas().len(), decision.quotas.len());
            for (real, expected) in real.quotas().iter().zip(&decision.quotas) {
                assert_eq!(
                    (real.limit, real.remaining, real.reset_unix_s),
                    (expected.limit, expected.remaining, expected.reset_s),
                    "{compound:?}",
                );
            }
            let charge = real.charge().map(|charge| (charge.cost(), charge.at().unix_ms()));
            assert_eq!(charge, expected.is_admitted.then_some((costs[tally.cost], time_ms)));
        }
    }

    /// Compares requests on all combinations of words, at all times, with all costs.
    fn compare(&self) {
        let positions = self.positions();
        let lines = self.request.lines();
        let all: Vec<Vec<u64>> = (0..positions.len()).map(|word| self.words(word)).collect();
        let limits = self.tallies.iter().flat_map(|tally| &tally.model.policy().quotas);
        let largest = limits.map(|quota| quota.limit).max().unwrap();
        let each_cost: Vec<u32> = (0..=largest + 1).chain([u32::MAX]).collect();
        let all_costs = product(&vec![each_cost; self.costs()]);
        let times = self.times();
        let outcomes = Cell::new(BTreeMap::<String, u64>::new());
        let count = |what: String| {
            let mut counts = outcomes.take();
            *counts.entry(what).or_default() += 1;
            outcomes.set(counts);
        };
        let write = |words: &[u64]| {
            for (at, word) in positions.iter().zip(words) {
                lines[at.0].store(at.1, *word);
            }
        };
        let read = || -> Vec<u64> { positions.iter().map(|at| lines[at.0].load(at.1)).collect() };
        let combinations = product(&all);
        // `cargo mutants` runs this test many times, so there it compares about 64 combinations.
        let quick = std::env::var_os("KEYTALLY_QUICK").is_some();
        let step = if quick { (combinations.len() / 64) | 1 } else { 1 };
        let mut compared = 0;
        for words in combinations.iter().step_by(step) {
            for &now_ms in &times {
                for costs in &all_costs {
                    for is_system in [false, true] {
                        let first: Vec<u64> = match is_system {
                            true => words
                                .iter()
                                .enumerate()
                                .map(|(word, value)| self.model(word).correct(*value, now_ms))
                                .collect(),
                            false => words.clone(),
                        };
                        let expected = self.expected(&first, now_ms, costs);
                        let now = Timestamp::from_unix_ms(now_ms);
                        let make = |is_peek| match is_system {
                            true => self.request.make(Steady(now), costs, is_peek),
                            false => self.request.make(now, costs, is_peek),
                        };
                        write(words);
                        let peeked = make(true);
                        let why =
                            || format!("{words:x?} at {now_ms}, system: {is_system}, {costs:?}");
                        assert_eq!(read(), first, "a peek charges nothing: {}", why());
                        assert!(peeked.verdicts().all(|verdict| verdict.charge().is_none()));
                        let compound = make(false);
                        assert_eq!(read(), expected.words, "{}: {compound:?}", why());
                        self.compare_compound(&compound, &expected, costs);
                        if !expected.is_given_back {
                            assert_eq!(peeked.is_admitted(), expected.is_admitted, "{}", why());
                        }
                        write(words);
                        let checked = match is_system {
                            true => self.request.check(Steady(now), costs),
                            false => self.request.check(now, costs),
                        };
                        if let Some(checked) = checked {
                            let summary = |verdict: &Verdict| {
                                (verdict.outcome(), *verdict.quotas(), verdict.retry_at())
                            };
                            assert_eq!(read(), expected.words, "{}: {checked:?}", why());
                            assert_eq!(
                                summary(&checked),
                                summary(compound.decisive()),
                                "{}",
                                why()
                            );
                            assert_eq!(checked.charge(), None);
                        }
                        let all = expected.decisions.iter().map(|it| it.outcome.name());
                        count(all.collect::<Vec<_>>().join(", "));
                        if expected.is_given_back {
                            count("given back".to_owned());
                        }
                        if first != *words {
                            count("corrected".to_owned());
                        }
                        compared += 1;
                    }
                }
            }
        }
        let outcomes = outcomes.take();
        println!("{compared} comparisons: {outcomes:?}");
        if !quick {
            let missing = self.reached.iter().find(|what| !outcomes.contains_key(**what));
            assert_eq!(missing, None, "{outcomes:?}");
            assert_eq!(compared, self.comparisons);
        }
    }
}

/// Returns all combinations of one element of each list.
fn product<T: Copy>(lists: &[Vec<T>]) -> Vec<Vec<T>> {
    lists.iter().fold(vec![vec![]], |all, list| {
        let with = |first: &Vec<T>| -> Vec<Vec<T>> {
            list.iter().map(|next| [&first[..], &[*next]].concat()).collect()
        };
        all.iter().flat_map(with).collect()
    })
}

type TestGate = Gate<Vec<CacheLine>>;
type TestLimiter = Limiter<Vec<CacheLine>>;

fn memory(lines: usize) -> Vec<CacheLine> {
    (0..lines).map(|_| CacheLine::new()).collect()
}

/// Returns a gate with two keys of one team.
fn gate(plan: &str) -> (TestGate, [Key; 2]) {
    let plans = [Plan::new("default", plan.parse().unwrap()).unwrap()];
    let teams = u32::from(plan.contains("team"));
    let config = GateConfig::new(2, Name::new("kt").unwrap(), &plans).with_plan_slots(1);
    let config = config.with_teams(teams).with_id(5);
    let peppers = Peppers::new(&[[1; 32]]).unwrap();
    let gate = Gate::init(memory(config.lines()), &config, peppers).unwrap();
    let new = NewKey::new(42, Name::new("live").unwrap());
    // The first byte of an id selects its record.
    let keys = [1, 255].map(|seed| {
        let issue = gate.administer().unwrap().issue(
            &new,
            Entropy::new([seed; 24]),
            Timestamp::from_unix_ms(0),
        );
        issue.unwrap().0
    });
    (gate, keys)
}

fn limiter(policy: &str, seed: u8) -> TestLimiter {
    let lines = memory(TestLimiter::lines(1));
    Limiter::init(lines, &policy.parse().unwrap(), 1, [seed; 16]).unwrap()
}

/// One key of a gate. The second cost, if any, is that of the group `tokens`.
struct OneKey(TestGate, Key);

impl Request for OneKey {
    fn make<C: Clock>(&self, clock: C, costs: &[u32], is_peek: bool) -> Compound {
        let mut part = self.0.part(Some(self.1.expose().as_bytes()), costs[0]);
        if let Some(&tokens) = costs.get(1) {
            part = part.with_group_cost("tokens", tokens).unwrap();
        }
        if is_peek { part.peek(clock) } else { part.check(clock) }
    }

    fn check<C: Clock>(&self, clock: C, costs: &[u32]) -> Option<Verdict> {
        let &[cost] = costs else { return None };
        Some(self.0.check(Some(self.1.expose().as_bytes()), cost, clock))
    }

    fn lines(&self) -> Vec<&CacheLine> {
        self.0.memory().iter().collect()
    }
}

/// Two keys of one team, each with its cost.
struct TwoKeys(TestGate, [Key; 2]);

impl Request for TwoKeys {
    fn make<C: Clock>(&self, clock: C, costs: &[u32], is_peek: bool) -> Compound {
        let part = |key: usize| -> GatePart<'_, _> {
            self.0.part(Some(self.1[key].expose().as_bytes()), costs[key])
        };
        let (one, other) = (part(0), part(1));
        let all: &[&dyn Part<C>] = &[&one, &other];
        if is_peek { peek_all(all, clock) } else { check_all(all, clock) }.unwrap()
    }

    fn lines(&self) -> Vec<&CacheLine> {
        self.0.memory().iter().collect()
    }
}

/// A subject of a limiter and a key, each with its cost. The gate is charged first.
struct SubjectAndKey(TestLimiter, TestGate, Key);

impl Request for SubjectAndKey {
    fn make<C: Clock>(&self, clock: C, costs: &[u32], is_peek: bool) -> Compound {
        let subject = self.0.part(b"subject", costs[0]);
        let key = self.1.part(Some(self.2.expose().as_bytes()), costs[1]);
        let all: &[&dyn Part<C>] = &[&subject, &key];
        if is_peek { peek_all(all, clock) } else { check_all(all, clock) }.unwrap()
    }

    fn lines(&self) -> Vec<&CacheLine> {
        self.1.memory().iter().chain(self.0.memory()).collect()
    }
}

/// What occurs with two tallies.
const OUTCOMES: &[&str] = &[
    "admitted, admitted",
    "admitted, denied",
    "denied, admitted",
    "denied, denied",
    "too_costly, admitted",
    "too_costly, too_costly",
    "corrected",
];

/// The number of comparisons of each test. docs/TESTING.md states the sum.
const COMPARISONS: [u64; 6] = [72_960, 259_200, 233_280, 322_560, 259_200, 1_312_200];

#[test]
fn key_and_team_are_charged_or_none() {
    let (gate, [key, _]) = gate("2/60s; team: 3/120s");
    Comparison {
        request: OneKey(gate, key),
        tallies: vec![Tally::new("2/60s", 0, 0), Tally::new("3/120s", 1, 0)],
        order: &[0, 1],
        stamps: 4,
        reached: OUTCOMES,
        comparisons: COMPARISONS[0],
    }
    .compare();
}

#[test]
fn key_and_group_of_another_cost_are_charged_or_none() {
    let (gate, [key, _]) = gate("2/60s; group tokens: sliding 2/60s");
    Comparison {
        request: OneKey(gate, key),
        tallies: vec![Tally::new("2/60s", 0, 0), Tally::new("sliding 2/60s", 1, 1)],
        order: &[0, 1],
        stamps: 3,
        reached: OUTCOMES,
        comparisons: COMPARISONS[1],
    }
    .compare();
}

#[test]
fn tallies_of_two_windows_are_charged_or_none() {
    let (gate, [key, _]) = gate("1/60s, 2/120s; team: 2/60s, 3/120s");
    Comparison {
        request: OneKey(gate, key),
        tallies: vec![Tally::new("1/60s, 2/120s", 0, 0), Tally::new("2/60s, 3/120s", 1, 0)],
        order: &[0, 1],
        stamps: 3,
        reached: OUTCOMES,
        comparisons: COMPARISONS[2],
    }
    .compare();
}

#[test]
fn two_keys_and_their_team_are_charged_or_none() {
    let (gate, keys) = gate("2/60s; team: 3/60s");
    Comparison {
        request: TwoKeys(gate, keys),
        tallies: vec![
            Tally::new("2/60s", 0, 0),
            Tally::new("3/60s", 2, 0),
            Tally::new("2/60s", 1, 1),
            Tally::new("3/60s", 2, 1),
        ],
        order: &[0, 2, 1, 3],
        stamps: 2,
        reached: &["admitted, admitted, admitted, admitted", "given back"],
        comparisons: COMPARISONS[3],
    }
    .compare();
}

#[test]
fn subject_and_key_are_charged_or_none() {
    let (gate, [key, _]) = gate("2/60s");
    Comparison {
        request: SubjectAndKey(limiter("sliding 2/60s", 200), gate, key),
        tallies: vec![Tally::new("sliding 2/60s", 1, 0), Tally::new("2/60s", 0, 1)],
        order: &[1, 0],
        stamps: 3,
        reached: OUTCOMES,
        comparisons: COMPARISONS[4],
    }
    .compare();
}

#[test]
fn key_group_and_team_are_charged_or_none() {
    let (gate, [key, _]) = gate("1/60s; team: sliding 1/60s; group tokens: 2/60s");
    Comparison {
        request: OneKey(gate, key),
        // The word of the team is the last one.
        tallies: vec![
            Tally::new("1/60s", 0, 0),
            Tally::new("sliding 1/60s", 2, 0),
            Tally::new("2/60s", 1, 1),
        ],
        order: &[0, 2, 1],
        stamps: 3,
        reached: &["admitted, admitted, admitted", "admitted, denied, admitted", "corrected"],
        comparisons: COMPARISONS[5],
    }
    .compare();
}

#[test]
fn testing_page_states_the_number_of_compared_requests() {
    let sum: u64 = COMPARISONS.iter().sum();
    let text = format!("{},{:03},{:03} requests", sum / 1_000_000, sum / 1000 % 1000, sum % 1000);
    let page = include_str!("../../docs/TESTING.md");
    assert!(page.contains(&text), "docs/TESTING.md must say {text}");
}
