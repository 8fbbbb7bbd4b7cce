//! Plans with sections: requests that are charged to several tallies, all or none.
//!
//! Requests are made one after another, so no charge loses a race.

use std::collections::HashMap;

use super::http::{Outcome, QuotaState};
use super::tally::{Decision, Model};

/// A tally of a plan: the name of its section, and what it counts.
#[derive(Debug, Clone)]
struct PlanTally {
    section: String,
    model: Model,
    /// The warnings of each quota in percent.
    warnings: Vec<Vec<u32>>,
}

/// A gate with one plan, whose keys are numbers.
#[derive(Debug, Clone)]
pub struct Sections {
    tallies: Vec<PlanTally>,
    /// The word of each tally of each key, or of each account for the section `team`.
    words: HashMap<(usize, u32), u64>,
}

/// A request: a key of an account, its cost, and the groups that it names.
#[derive(Debug, Clone)]
pub struct Request<'r> {
    /// The number of the key.
    pub key: u32,
    /// The account of the key.
    pub account: u32,
    /// The cost of the request.
    pub cost: u32,
    /// The names of groups, with their own costs or none.
    pub groups: Vec<(&'r str, Option<u32>)>,
}

/// The decision on one tally of a request.
#[derive(Debug, Clone)]
pub struct Charged {
    /// The section of the tally.
    pub section: String,
    /// The outcome for this tally alone.
    pub outcome: Outcome,
    /// The state of its windows afterwards.
    pub quotas: Vec<QuotaState>,
}

/// The result of a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Whether all tallies had room. All were charged then, else none.
    pub admitted: bool,
    /// The decision on each tally.
    pub tallies: Vec<Charged>,
    /// The seconds until a retry can succeed: the longest wait of all tallies that deny, unless the
    /// cost is above a limit of one.
    pub retry_after_s: Option<u64>,
    /// The section, the position of the window and the percentage of each warning reached.
    pub crossed: Vec<(String, usize, u32)>,
}

impl Sections {
    /// Returns a gate with the plan of a text, which must be valid.
    ///
    /// # Panics
    ///
    /// If a quota does not fit a tally.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "the vectors have valid plans")]
    pub fn parse(text: &str) -> Sections {
        let mut tallies = Vec::new();
        for (number, part) in text.split(';').enumerate() {
            let part = part.trim();
            let (section, list) = match part.split_once(':') {
                Some((name, list)) if number > 0 => {
                    (name.trim().trim_start_matches("group").trim(), list.trim())
                }
                _ => ("key", part),
            };
            if list == "unlimited" {
                continue;
            }
            let (slides, list) = match list.strip_prefix("sliding ") {
                Some(list) => ("sliding ", list),
                None => ("", list),
            };
            let mut quotas: Vec<(String, Vec<u32>)> = Vec::new();
            for quota in list.split(',') {
                let (quota, warnings) = quota.split_once("warn").unwrap_or((quota, ""));
                let warnings = warnings.split_whitespace();
                let percents = warnings.map(|word| word.trim_end_matches('%').parse().unwrap());
                quotas.push((quota.trim().to_owned(), percents.collect()));
            }
            let window = |text: &str| Model::parse(text).unwrap().policy().quotas[0].window;
            quotas.sort_by_key(|(text, _)| window(text).longest_s());
            // Each tally takes as many quotas as fit, the shortest windows first.
            while !quotas.is_empty() {
                let texts = |count: usize| {
                    let texts: Vec<&str> =
                        quotas[..count].iter().map(|(text, _)| text.as_str()).collect();
                    Model::parse(&format!("{slides}{}", texts.join(", ")))
                };
                let count = (1..=quotas.len().min(4)).rev().find(|&count| texts(count).is_ok());
                let count = count.expect("a quota fits a tally");
                tallies.push(PlanTally {
                    section: section.to_owned(),
                    model: texts(count).expect("it was parsed before"),
                    warnings: quotas[..count]
                        .iter()
                        .map(|(_, warnings)| warnings.clone())
                        .collect(),
                });
                quotas.drain(..count);
            }
        }
        Sections { tallies, words: HashMap::new() }
    }

    /// Charges a request to every tally that it names, if all have room, else to none.
    pub fn check(&mut self, now_ms: u64, request: &Request<'_>) -> Answer {
        let mut charged: Vec<(usize, (usize, u32), u32)> = Vec::new();
        for (number, tally) in self.tallies.iter().enumerate() {
            let group = request.groups.iter().find(|(name, _)| *name == tally.section);
            let cost = match (tally.section.as_str(), group) {
                ("key" | "team", _) => request.cost,
                (_, Some((_, cost))) => cost.unwrap_or(request.cost),
                (_, None) => continue,
            };
            let owner = if tally.section == "team" { request.account } else { request.key };
            charged.push((number, (number, owner), cost));
        }
        let decide = |(number, word, cost): &(usize, (usize, u32), u32)| -> Decision {
            let word = self.words.get(word).copied().unwrap_or(0);
            self.tallies[*number].model.check(word, now_ms, *cost)
        };
        let decisions: Vec<Decision> = charged.iter().map(decide).collect();
        let admitted = decisions.iter().all(|decision| decision.outcome == Outcome::Admitted);
        let is_too_costly = decisions.iter().any(|decision| decision.outcome == Outcome::TooCostly);
        let mut answer = Answer {
            admitted,
            tallies: Vec::new(),
            retry_after_s: if is_too_costly {
                None
            } else {
                decisions.iter().filter_map(|decision| decision.retry_after_s).max()
            },
            crossed: Vec::new(),
        };
        for ((number, word, cost), decision) in charged.iter().zip(decisions) {
            let tally = &self.tallies[*number];
            let before = self.words.get(word).copied().unwrap_or(0);
            let mut quotas = decision.quotas;
            if admitted {
                let was = tally.model.peek(before, now_ms, 0).quotas;
                for (window, (quota, was)) in quotas.iter().zip(&was).enumerate() {
                    for &percent in &tally.warnings[window] {
                        let is_reached = |remaining: u32| {
                            let used = u64::from(quota.limit - remaining);
                            100 * used >= u64::from(percent) * u64::from(quota.limit)
                        };
                        if is_reached(quota.remaining) && !is_reached(was.remaining) {
                            answer.crossed.push((tally.section.clone(), window, percent));
                        }
                    }
                }
                self.words.insert(*word, decision.next);
            } else {
                quotas = tally.model.peek(before, now_ms, *cost).quotas;
            }
            answer.tallies.push(Charged {
                section: tally.section.clone(),
                outcome: decision.outcome,
                quotas,
            });
        }
        answer
    }
}
