//! Generates `prefixes.json`: requests to limiters that count each client in several networks.

use crate::files::{InvalidPolicy, PrefixStep, PrefixesCase, TallyLine};
use crate::model::{Answer, Charge, Prefixes};

use super::random::Random;
use super::{Lines, NEW_YEAR_MS};

const ABOUT: &str = "Requests to limiters of addresses. A client counts in its network of each prefix of the policy, all or none. \
    cases: policy: the text; canonical: the text of the parsed policy; steps: now_ms: the time in Unix milliseconds; client: the \
    address; cost: units; refunds: the index of the step whose charge this step gives back, or null for a check. Expected, after a \
    refund of a peek with a cost of 0: admitted; tallies, the longest prefix first: section (empty for the client's own \
    network), outcome, and for each window the units left and the reset in Unix seconds; retry_after_s. invalid: policy texts; error is \
    prefix or a name of policy.json. Numbers are JSON numbers.";

/// Policies: of one prefix to four, the default prefixes, windows that only some prefixes have,
/// both algorithms, months and weeks.
const POLICIES: [&str; 8] = [
    "addresses: 2/minute, 5/hour",
    "addresses: /64 3/minute; /56 5/minute; /48 8/minute",
    " addresses :/48 12/hour ; /64 2/m,5/hour; /60 9/day",
    "addresses: sliding /64 4/minute; /48 6/minute, 20/hour",
    "addresses: /64 6/minute",
    "addresses: /64 3/second; /57 5/10s; /50 9/minute; /33 20/hour",
    "addresses: /63 7/week; /56 9/month@31; /40 12/day",
    "addresses: sliding 2/10s",
];

const INVALID: [&str; 19] = [
    "5/minute",
    "address: 5/minute",
    "addresses 5/minute",
    "addresses:",
    "addresses: sliding",
    "addresses: /64",
    "addresses: /645/minute",
    "addresses: /32 5/minute",
    "addresses: /65 5/minute",
    "addresses: /264 5/minute",
    "addresses: /64 5/minute; /64 5/hour",
    "addresses: /64 5/minute; 5/hour",
    "addresses: /64 1/m; /60 1/m; /56 1/m; /52 1/m; /48 1/m",
    "addresses: /64 0/minute",
    "addresses: /64 5/fortnight",
    "addresses: /64 5/minute, 6/minute",
    "addresses: sliding /64 5/month",
    "addresses: /64 1/s, 1/m, 1/h; /48 1/d, 1/w",
    "addresses: /64 4000000000/m; /48 4000000000/h",
];

/// Clients that share networks, in several forms.
const CLIENTS: [&str; 13] = [
    "2001:db8:1:100::1",
    "[2001:db8:1:100::2]:443",
    "2001:db8:1:101::1%eth0",
    "2001:db8:1:1ff::9",
    "2001:db8:1:8000::1",
    "2001:db8:2::1",
    "203.0.113.9",
    "::ffff:203.0.113.9",
    "203.0.113.200:8080",
    "203.0.7.7",
    "64:ff9b::203.0.7.7",
    "2002:cb00:7109::1",
    "::1",
];

/// Moments around which a policy is used: the ends of a leap day and of a month, and the year 2106.
const MOMENTS_MS: [u64; 3] = [NEW_YEAR_MS, 1_835_481_540_000, 4_294_967_280_000];

/// Returns the text of the file.
pub(super) fn file() -> String {
    let mut random = Random::new(21);
    let mut cases = Vec::new();
    for policy in POLICIES {
        for start_ms in MOMENTS_MS {
            let mut limiter = Prefixes::parse(policy).expect("a valid policy");
            let mut now_ms = start_ms;
            let mut charged: Vec<(usize, &str, u32, Vec<Charge>)> = Vec::new();
            let mut steps: Vec<PrefixStep> = Vec::new();
            for number in 0..24 {
                now_ms += *random.pick(&[0, 0, 1, 900, 10_000, 61_000, 3_600_000]);
                let is_refund = random.below(5) == 0 && !charged.is_empty();
                steps.push(if is_refund {
                    let at = usize::try_from(random.below(charged.len() as u64)).expect("an index");
                    let (refunds, client, cost, charges) = charged.swap_remove(at);
                    let state = limiter.refund(now_ms, client, &charges);
                    step(now_ms, client, cost, Some(refunds), &state)
                } else {
                    let client = *random.pick(&CLIENTS);
                    let cost = u32::try_from(random.between(0, 3)).expect("a small number");
                    let (answer, charges) = limiter.check(now_ms, client, cost);
                    if answer.admitted {
                        charged.push((number, client, cost, charges));
                    }
                    step(now_ms, client, cost, None, &answer)
                });
            }
            let (policy, canonical) = (policy.to_owned(), limiter.text());
            cases.push(PrefixesCase { policy, canonical, steps });
        }
    }
    let invalid: Vec<_> = INVALID
        .into_iter()
        .map(|text| {
            let error = Prefixes::parse(text).expect_err("an invalid policy").to_owned();
            InvalidPolicy { text: text.to_owned(), error, needed_bits: None }
        })
        .collect();
    Lines::new(ABOUT).array("cases", &cases).array("invalid", &invalid).done()
}

fn step(
    now_ms: u64,
    client: &str,
    cost: u32,
    refunds: Option<usize>,
    answer: &Answer,
) -> PrefixStep {
    let tallies = answer.tallies.iter().map(|charged| TallyLine {
        section: charged.section.clone(),
        outcome: charged.outcome.name().to_owned(),
        remaining: charged.quotas.iter().map(|quota| quota.remaining).collect(),
        reset_s: charged.quotas.iter().map(|quota| quota.reset_s).collect(),
    });
    PrefixStep {
        now_ms,
        client: client.to_owned(),
        cost,
        refunds,
        admitted: answer.admitted,
        tallies: tallies.collect(),
        retry_after_s: answer.retry_after_s,
    }
}
