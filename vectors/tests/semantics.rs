//! Tests the worst cases over any interval in docs/SEMANTICS.md: a sequence of checks reaches each,
//! and none exceeds the bounds.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::{Algorithm, Outcome, Policy, Timestamp, decide};
use proptest::prelude::*;

const PAGE: &str = include_str!("../../docs/SEMANTICS.md");

/// The start of a day in Unix milliseconds, at which all windows of the page's policies begin.
const EDGE_MS: u64 = 1_699_920_000_000;

/// Returns the largest cost that an interval of `d` milliseconds admits, by the formulas of the
/// page.
fn bound(policy: &Policy, d: u64) -> u64 {
    let is_sliding = policy.algorithm() == Algorithm::Sliding;
    // `w` is the window in milliseconds.
    let bound_of_quota = |limit: u64, w: u64| {
        if is_sliding { limit * (w + d - 1) / w } else { limit * ((d - 1).div_ceil(w) + 1) }
    };
    let quotas = policy.quotas().iter();
    quotas
        .map(|quota| bound_of_quota(quota.limit.into(), u64::from(quota.window.seconds()) * 1000))
        .min()
        .unwrap()
}

/// Returns the number of checks of cost 1 that an unused tally admits from `start` on, for `d`
/// milliseconds, if each is made as early as possible.
fn admitted(policy: &Policy, start: u64, d: u64) -> u64 {
    let (layout, limits) = (policy.layout(), policy.limits());
    let (mut word, mut now, mut units) = (0, start, 0);
    while now < start + d {
        let time = Timestamp::from_unix_ms(now);
        let decision = decide::check(layout, &limits, word, time, 1);
        word = decision.next;
        if decision.outcome == Outcome::Admitted {
            units += 1;
        } else {
            now = decide::quotas(layout, &limits, word, time).room_at(1).unix_ms();
        }
    }
    units
}

/// Returns the rows of the page's table: policy, interval in milliseconds, largest admitted cost.
fn rows() -> Vec<(Policy, u64, u64)> {
    let table = PAGE.split("<!-- worst cases").nth(1).unwrap().split("<!-- end").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let parse_row = |row: &str| {
        let [policy, interval, units] = row.trim_matches('|').split('|').collect::<Vec<_>>()[..]
        else {
            panic!("{row}")
        };
        let (number, unit) = interval.trim().split_once(' ').unwrap();
        let ms = number.parse::<u64>().unwrap() * if unit == "s" { 1000 } else { 1 };
        (policy.trim().trim_matches('`').parse().unwrap(), ms, units.trim().parse().unwrap())
    };
    rows.map(parse_row).collect()
}

#[test]
fn each_worst_case_on_the_page_is_reached() {
    let rows = rows();
    assert!(rows.len() >= 10, "{} rows", rows.len());
    for (policy, d, units) in rows {
        assert_eq!(bound(&policy, d), units, "the bound of {policy} in {d} ms");
        // The worst interval starts in the last millisecond of a unit. Tries each unit of the hour
        // before the time at which all windows begin.
        let unit_ms = u64::from(policy.quotas()[0].window.seconds()) * 1000;
        let starts = (0..3_600_000 / unit_ms).map(|unit| EDGE_MS - unit * unit_ms - 1);
        let most = starts.map(|start| admitted(&policy, start, d)).max();
        assert_eq!(most, Some(units), "what {policy} admits in {d} ms");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_exceeds_the_worst_case(
        sliding: bool,
        limit in 1u32..12,
        seconds in 1u32..4,
        steps in prop::collection::vec((0u64..1500, 1u32..4), 1..60),
    ) {
        let algorithm = if sliding { "sliding " } else { "" };
        let policy: Policy = format!("{algorithm}{limit}/{seconds}s").parse().unwrap();
        let (mut word, mut now, mut charges) = (0, EDGE_MS, Vec::new());
        for (step, cost) in steps {
            // Half of the steps take no time, so that bursts are common.
            now += step.saturating_sub(750);
            let time = Timestamp::from_unix_ms(now);
            let decision = decide::check(policy.layout(), &policy.limits(), word, time, cost);
            word = decision.next;
            if decision.outcome == Outcome::Admitted {
                charges.push((now, u64::from(cost)));
            }
        }
        for (first, &(from, _)) in charges.iter().enumerate() {
            let mut sum = 0;
            for &(to, cost) in &charges[first..] {
                sum += cost;
                // The shortest interval that contains both charges.
                let d = to - from + 1;
                prop_assert!(sum <= bound(&policy, d), "{sum} of {policy} within {d} ms");
            }
        }
    }
}
