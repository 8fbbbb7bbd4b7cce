//! Tests of status, body and header fields.

extern crate alloc;
extern crate std;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::*;
use crate::decide;
use crate::policy::Policy;
use crate::quota::Limits;
use crate::quotas::Quotas;
use crate::tally::Counts;
use crate::time::Timestamp;
use crate::window::{MAX_WINDOW_S, Window};

/// 20 seconds after a full hour.
const NOW: Timestamp = Timestamp::from_unix_s(1_700_049_620);

/// The verdict on a request of `cost` after `spent` units were charged.
fn verdict(policy: &str, spent: u32, cost: u32) -> Verdict {
    let policy: Policy = policy.parse().unwrap();
    let word = decide::check(policy.layout(), &policy.limits(), 0, NOW, spent).next;
    let (layout, limits) = (policy.layout(), policy.limits());
    let decision = decide::check(layout, &limits, word, NOW, cost);
    Verdict::decided(layout, &limits, decision, None, NOW, cost)
}

#[test]
fn admitted_verdict_has_every_quota() {
    let headers = verdict("100/minute, 1000/hour", 0, 1).headers();
    assert_eq!(
        headers.as_str(),
        "X-RateLimit-Limit: 1000\r\n\
         X-RateLimit-Remaining: 999\r\n\
         X-RateLimit-Reset: 1700053200\r\n\
         RateLimit-Policy: \"minute\";q=100;w=60, \"hour\";q=1000;w=3600\r\n\
         RateLimit: \"minute\";r=99;t=40, \"hour\";r=999;t=3580\r\n"
    );
}

#[test]
fn denied_verdict_has_retry_after_and_names_the_quota() {
    let denied = verdict("100/minute, 1000/hour", 100, 1);
    assert_eq!(denied.headers().iter().last(), Some(("Retry-After", "40")));
    assert_eq!(
        denied.problem().as_str(),
        r#"{"type": "https://iana.org/assignments/http-problem-types#quota-exceeded", "title": "Rate limit exceeded", "status": 429, "violated-policies": ["minute"]}"#
    );
    let too_costly = verdict("100/minute, 1000/hour", 0, 101);
    assert!(too_costly.headers().iter().all(|(name, _)| name != "Retry-After"));
    assert!(too_costly.problem().ends_with(r#""violated-policies": ["minute"]}"#));
}

#[test]
fn cost_violates_only_the_limits_below_it() {
    let too_costly = verdict("5/minute, 10/hour, 20/day", 0, 10);
    assert!(too_costly.problem().ends_with(r#""violated-policies": ["minute"]}"#));
    let too_costly = verdict("5/minute, 10/hour, 20/day", 0, 11);
    assert!(too_costly.problem().ends_with(r#""violated-policies": ["minute", "hour"]}"#));
}

#[test]
fn separate_fields_equal_those_of_the_block() {
    let all = [
        verdict("100/minute, 1000/hour", 0, 1),
        verdict("100/minute", 100, 1),
        Verdict::refused(Outcome::MissingKey, None, NOW),
        Verdict::refused(Outcome::Full, None, NOW),
        longest(),
    ];
    for verdict in all {
        let mut buffer = [b'!'; MAX_HEADERS_LEN];
        let mut reported = Vec::new();
        verdict.respond(|response| {
            response.write_fields(&mut buffer, |name, value| reported.push((name, value)));
        });
        let headers = verdict.headers();
        assert!(reported.len() <= MAX_FIELDS && headers.iter().count() == reported.len());
        for ((name, value), (field, range)) in headers.iter().zip(reported) {
            assert_eq!(
                (field.to_str(), buffer.get(range.clone())),
                (Ok(name), Some(value.as_bytes()))
            );
            assert_eq!(buffer[range.end], 0);
        }
    }
}

#[test]
fn every_field_written_has_a_listed_name() {
    for verdict in [verdict("100/minute", 100, 1), Verdict::refused(Outcome::InvalidKey, None, NOW)]
    {
        let headers = verdict.headers();
        assert!(headers.iter().all(|(name, _)| FIELD_NAMES.contains(&name)), "{headers:?}");
    }
}

#[test]
fn accept_names_problems_with_a_weight_above_zero() {
    for accept in [
        "application/problem+json",
        "Application/Problem+JSON",
        "text/html,application/problem+json",
        " text/html , \tapplication/problem+json ; q=0.001",
        "application/problem+json;q=1.000",
        "application/problem+json;q=0.10",
        "application/problem+json;charset=utf-8",
        "application/problem+json;xq=0",
        "application/problem+json;q=0, application/problem+json",
    ] {
        assert!(accepts_problem(accept.as_bytes()), "{accept}");
    }
    for accept in [
        "",
        "*/*",
        "application/*",
        "application/json",
        "application/problem",
        "application/problem+json2",
        "application/problem+json;q=0",
        "application/problem+json; Q=0.000",
        "application/problem+json;charset=utf-8;q=0.",
        "application/json;a=application/problem+json",
    ] {
        assert!(!accepts_problem(accept.as_bytes()), "{accept}");
    }
    assert!(!accepts_problem(b"\xff;q=\xff,application/problem+json\xff"));
}

#[test]
fn debug_shows_the_fields() {
    let headers = verdict("100/minute", 0, 1).headers();
    assert_eq!(std::format!("{headers:?}"), headers.as_str());
}

#[test]
fn missing_and_invalid_keys_get_www_authenticate() {
    for outcome in [Outcome::MissingKey, Outcome::InvalidKey] {
        let refused = Verdict::refused(outcome, None, NOW);
        let expected = "WWW-Authenticate: ApiKey realm=\"api\", header=\"X-API-Key\"\r\n";
        assert_eq!((refused.headers().as_str(), refused.http_status()), (expected, 401));
    }
}

/// A denial in which every number has as many digits as it can have.
fn longest() -> Verdict {
    let window = Window::from_seconds(MAX_WINDOW_S - 1).unwrap();
    let late = Timestamp::from_unix_ms(u64::MAX - 2 * window.ms());
    // The word 1 counts a unit in each window, so no window has room for `u32::MAX`.
    let mut quotas = Quotas::new(&Counts::widest(window), &Limits([u32::MAX; 4]), 1, late);
    quotas.denied = u32::MAX;
    let mut verdict = Verdict::refused(Outcome::Denied, None, Timestamp::from_unix_ms(0));
    verdict.quotas = quotas;
    verdict.cost = u32::MAX;
    verdict
}

#[test]
fn longest_verdict_fits_its_buffers() {
    let headers = longest().headers();
    let fields: Vec<_> = headers.iter().collect();
    assert_eq!(fields.len(), 6);
    assert_eq!(fields[5], ("Retry-After", "4294967295"));
    assert!(longest().problem().ends_with(r#", "2678399s"]}"#));
    let problems = [Outcome::Denied, Outcome::TooCostly]
        .map(|outcome| Verdict { outcome, ..longest() }.problem());
    assert!(problems.iter().all(|problem| problem.ends_with('}')), "{problems:?}");
}

#[test]
fn number_has_all_of_its_digits() {
    for digits in 0..20 {
        let power = 10u64.pow(digits);
        for number in [power - 1, power, power + 1, 2 * (power / 3), u64::MAX / power] {
            let mut buffer = [0; 64];
            let rest = Writer(&mut buffer).number(number).0.len();
            let written = &buffer[..buffer.len() - rest];
            assert_eq!(core::str::from_utf8(written).unwrap(), number.to_string());
        }
    }
}

#[test]
fn buffer_that_is_too_small_is_left_unchanged() {
    let verdict = verdict("100/minute", 0, 1);
    let needed = verdict.headers().as_str().len();
    let mut buffer = std::vec![b'!'; needed];
    for len in 0..needed {
        assert_eq!(verdict.write_headers(&mut buffer[..len]), Err(BufferTooSmall { needed }));
    }
    assert!(buffer.iter().all(|&byte| byte == b'!'));
    assert_eq!(verdict.write_headers(&mut buffer), Ok(needed));
    assert_eq!(core::str::from_utf8(&buffer).unwrap().to_string(), verdict.headers().as_str());
}
