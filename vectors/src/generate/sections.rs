//! Generates `sections.json`: requests to gates whose plans have several sections.

use crate::files::{GroupCost, SectionStep, SectionsCase, TallyLine, WarningLine};
use crate::model::{Charged, Request, Sections};

use super::random::Random;
use super::{Lines, NEW_YEAR_MS};

const ABOUT: &str = "Requests to gates, each with one plan of several sections. A request is charged to the tallies of its key, \
    of its account's team and of the groups that it names, all or none. plan: the text of the plan. steps: now_ms: the time in Unix \
    milliseconds; key: the number of the key; account: its account; cost: units; groups: the groups that the request names, with a \
    cost of their own or null for that of the request. Expected: admitted; tallies: section, outcome, and for each window the units left \
    and the reset in Unix seconds; retry_after_s; crossed: section, index of the window in the tally, percentage.";

/// The plans: sections of one tally and of several, windows of every kind, both algorithms.
const PLANS: [&str; 6] = [
    "5/minute, 20/hour; team: 8/minute; group write: 3/minute",
    "10/minute warn 50% 80%, 60/hour warn 90%; team: 15/minute warn 100%",
    "sliding 6/minute; team: 9/hour; group read: sliding 4/10s, 12/minute",
    "9/second, 30/minute, 200/hour, 999/day, 9999/month@31, 1000000000/week; team: 2147483647/second, 4294967295/month",
    "unlimited; team: 7/minute; group tokens: 5000/minute, 20000/day",
    "30/5h, 40/week; team: sliding 50/7h; group a: 9/day; group b: 9/90s; group c: 12/month@17",
];

/// Moments around which a plan is used: leap days, ends of months, and the year 2106.
const MOMENTS_MS: [u64; 5] = [
    NEW_YEAR_MS,
    1_772_323_140_000, // 2026-02-28T23:59:00Z
    1_835_481_540_000, // 2028-02-29T23:59:00Z
    1_801_439_940_000, // 2027-01-31T23:59:00Z
    4_294_967_280_000, // 2106-02-07T06:28:00Z
];

/// Returns the text of the file.
pub(super) fn file() -> String {
    let mut random = Random::new(20);
    let mut cases = Vec::new();
    for plan in PLANS {
        let groups: Vec<&str> = plan
            .split("group ")
            .skip(1)
            .map(|part| part.split(':').next().expect("a part of a split"))
            .collect();
        for start_ms in MOMENTS_MS {
            let mut gate = Sections::parse(plan);
            let mut now_ms = start_ms;
            let mut steps = Vec::new();
            for _ in 0..14 {
                now_ms += *random.pick(&[0, 1, 900, 10_000, 30_000, 61_000, 3_600_000]);
                let key = u32::try_from(random.below(3)).expect("below three");
                // Keys 0 and 1 are of one team.
                let account = 42 + key / 2;
                let cost = u32::try_from(random.between(0, 6)).expect("a small number");
                let mut named = Vec::new();
                for &group in &groups {
                    match random.below(3) {
                        0 => {}
                        1 => named.push((group, None)),
                        _ => named.push((group, Some(*random.pick(&[0, 1, 3, 2500])))),
                    }
                }
                let request = Request { key, account, cost, groups: named.clone() };
                let answer = gate.check(now_ms, &request);
                steps.push(SectionStep {
                    now_ms,
                    key,
                    account,
                    cost,
                    groups: named
                        .into_iter()
                        .map(|(name, cost)| GroupCost { name: name.to_owned(), cost })
                        .collect(),
                    admitted: answer.admitted,
                    tallies: answer.tallies.iter().map(line).collect(),
                    retry_after_s: answer.retry_after_s,
                    crossed: answer
                        .crossed
                        .into_iter()
                        .map(|(section, window, percent)| WarningLine { section, window, percent })
                        .collect(),
                });
            }
            cases.push(SectionsCase { plan: plan.to_owned(), steps });
        }
    }
    Lines::new(ABOUT).array("cases", &cases).done()
}

fn line(charged: &Charged) -> TallyLine {
    TallyLine {
        section: charged.section.clone(),
        outcome: charged.outcome.name().to_owned(),
        remaining: charged.quotas.iter().map(|quota| quota.remaining).collect(),
        reset_s: charged.quotas.iter().map(|quota| quota.reset_s).collect(),
    }
}
