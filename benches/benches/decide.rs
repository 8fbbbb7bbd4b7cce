//! The group `decide`: the decision on a tally without a table, and the header fields of a verdict,
//! by number of windows.

use core::fmt::Write as _;
use core::hint::black_box;

use keytally_core::{CacheLine, Limiter, MAX_HEADERS_LEN, Outcome, Policy, Timestamp, decide};

use crate::measure::{Bench, PART, calls};
use crate::traffic::START;

/// Policies with one to four windows. The limits are so low that four sliding windows fit a tally.
const QUOTAS: [&str; 4] = [
    "7/minute",
    "7/minute, 15/10m",
    "7/minute, 15/10m, 31/hour",
    "7/minute, 15/10m, 31/hour, 63/day",
];

/// Policies with one to four windows and limits that are typical of services.
const TYPICAL_QUOTAS: [&str; 4] = [
    "1000/hour",
    "100/minute, 1000/hour",
    "100/minute, 1000/hour, 10000/day",
    "30/minute, 100/10m, 300/hour, 1000/day",
];

/// Measures the group `decide`.
pub(crate) fn measure(bench: &mut Bench) {
    let title = "The decision, by number of windows";
    let about = "decide::check of a tally in a register. It returns the outcome and the next tally. There is no table, no store and no verdict.";
    let mut table = bench.table("decide/windows", "ns", title, about);
    for (count, quotas) in (1..).zip(QUOTAS) {
        let fixed: Policy = quotas.parse().expect("a policy");
        let sliding: Policy = format!("sliding {quotas}").parse().expect("a policy");
        // Each row does other work, so none is compared with another.
        let row = |name, policy: &Policy, word: u64, now: Timestamp, outcome: Outcome| {
            let policy = policy.clone();
            assert_eq!(
                decide::check(policy.layout(), &policy.limits(), word, now, 1).outcome,
                outcome
            );
            calls(name, move || {
                decide::check(
                    black_box(policy.layout()),
                    &policy.limits(),
                    black_box(word),
                    black_box(now),
                    1,
                )
            })
            .with_work(PART)
        };
        let minute_later = Timestamp::from_unix_ms(START.unix_ms() + 60_000);
        let (used, used_sliding) = (used(&fixed), used(&sliding));
        let implementations = vec![
            row("fixed, admitted", &fixed, used, START, Outcome::Admitted),
            row("fixed, admitted in a new minute", &fixed, used, minute_later, Outcome::Admitted),
            row("fixed, denied", &fixed, spent(&fixed, used), START, Outcome::Denied),
            row("sliding, admitted", &sliding, used_sliding, START, Outcome::Admitted),
            row(
                "sliding, admitted in a new minute",
                &sliding,
                used_sliding,
                minute_later,
                Outcome::Admitted,
            ),
            row("sliding, denied", &sliding, spent(&sliding, used_sliding), START, Outcome::Denied),
        ];
        table.column(format!("{count}"), implementations);
    }
    drop(table);
    measure_headers(bench);
}

/// Returns a tally that has spent one unit or more in each current and each previous window.
fn used(policy: &Policy) -> u64 {
    let before = [86_400, 3600, 600, 60, 0].map(|seconds| START.unix_ms() - seconds * 1000);
    before.into_iter().fold(0, |word, ms| {
        decide::check(policy.layout(), &policy.limits(), word, Timestamp::from_unix_ms(ms), 1).next
    })
}

/// Returns the tally after repeated checks of cost 1, when the next one is not admitted.
fn spent(policy: &Policy, mut word: u64) -> u64 {
    loop {
        let decision = decide::check(policy.layout(), &policy.limits(), word, START, 1);
        if decision.outcome != Outcome::Admitted {
            return word;
        }
        word = decision.next;
    }
}

/// Measures the header fields of a verdict.
fn measure_headers(bench: &mut Bench) {
    let title = "All header fields of a verdict, by number of windows";
    let about = "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit-Policy and RateLimit, written to memory.";
    let mut table = bench.table("decide/headers", "ns", title, about);
    for (count, quotas) in (1..).zip(TYPICAL_QUOTAS) {
        let policy: Policy = quotas.parse().expect("a policy");
        let memory: Vec<CacheLine> =
            (0..Limiter::<Vec<CacheLine>>::lines(64)).map(|_| CacheLine::new()).collect();
        let limiter = Limiter::init(memory, &policy, 64, [7; 16]).expect("a limiter");
        let verdict = limiter.check(b"203.0.113.9", 1, START);
        let mut buffer = [0; MAX_HEADERS_LEN];
        let write = calls("Verdict::write_headers", move || {
            black_box(&verdict).write_headers(black_box(&mut buffer))
        });
        let headers = calls("Verdict::headers", move || black_box(&verdict).headers());
        let mut text = String::with_capacity(MAX_HEADERS_LEN);
        let formatted = calls("the same fields by core::fmt", move || {
            text.clear();
            let verdict = black_box(&verdict);
            let longest = verdict.quotas().longest().expect("a quota");
            let _ = write!(
                text,
                "X-RateLimit-Limit: {}\r\nX-RateLimit-Remaining: {}\r\nX-RateLimit-Reset: {}\r\nRateLimit-Policy: ",
                longest.limit, longest.remaining, longest.reset_unix_s
            );
            for (index, quota) in verdict.quotas().iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let _ = write!(
                    text,
                    "{comma}\"{}\";q={};w={}",
                    quota.window,
                    quota.limit,
                    quota.window.seconds()
                );
            }
            text.push_str("\r\nRateLimit: ");
            for (index, quota) in verdict.quotas().iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let left = quota.reset_unix_s - START.unix_s();
                let _ = write!(text, "{comma}\"{}\";r={};t={left}", quota.window, quota.remaining);
            }
            text.push_str("\r\n");
            black_box(text.len())
        });
        table.column(format!("{count}"), vec![write, headers, formatted]);
    }
}
