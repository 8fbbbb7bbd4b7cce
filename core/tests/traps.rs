//! Tests of errors that released versions of other rate limiters had.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keytally_core::{
    CacheLine, Charge, Entropy, Gate, Key, KeyId, Limiter, Outcome, ParsePolicyErrorKind, Peppers,
    Policy, Timestamp, Verdict,
};

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use support::{
    NOON_S, at, check, config, end, entropy, gate, image, issue, limiter, memory, new_key, plan,
    refusing_limiter,
};

/// Returns how many of `times` requests at `now` are admitted.
fn admitted(
    limiter: &Limiter<Vec<CacheLine>>,
    subject: &[u8],
    times: usize,
    now: Timestamp,
) -> usize {
    (0..times).filter(|_| limiter.check(subject, 1, now).is_admitted()).count()
}

#[test]
fn concurrent_checks_admit_no_more_than_the_limit() {
    for round in 0..300 {
        let limiter = limiter("50/minute", 8);
        let total: usize = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| admitted(&limiter, b"a", 50, at(round)))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(total, 50, "round {round}");
    }
}

#[test]
fn check_that_the_minute_denies_charges_no_hour() {
    let limiter = limiter("10/minute, 100/hour", 8);
    assert_eq!(admitted(&limiter, b"a", 500, at(0)), 10);
    assert_eq!(limiter.peek(b"a", 1, at(0)).remaining(), Some(90));
}

#[test]
fn denied_cost_charges_nothing() {
    for policy in ["10/minute", "sliding 10/minute"] {
        let limiter = limiter(policy, 8);
        assert!(limiter.check(b"a", 4, at(0)).is_admitted());
        assert_eq!(limiter.check(b"a", 7, at(0)).outcome(), Outcome::Denied);
        assert_eq!(limiter.check(b"a", 6, at(0)).outcome(), Outcome::Admitted);
    }
}

#[test]
fn burst_after_idle_exceeds_neither_limit_nor_remaining() {
    for policy in ["100/minute", "sliding 100/minute"] {
        let limiter = limiter(policy, 8);
        assert_eq!(admitted(&limiter, b"a", 100, at(0)), 100);
        for idle in [120, 3600, 86_400 * 365] {
            let verdict = limiter.peek(b"a", 1, at(idle));
            assert_eq!(verdict.remaining(), Some(100));
        }
        assert_eq!(admitted(&limiter, b"a", 300, at(3600)), 100);
    }
    // After a burst at the end of an aligned minute, half of a sliding quota is available again
    // half a minute later.
    let limiter = limiter("sliding 100/minute", 8);
    assert_eq!(admitted(&limiter, b"a", 300, at(59)), 100);
    assert_eq!(admitted(&limiter, b"a", 300, at(60)), 0);
    assert_eq!(admitted(&limiter, b"a", 300, at(90)), 50);
}

#[test]
fn cost_near_the_largest_integer_is_not_admitted() {
    for policy in
        ["1/hour", "10/hour", "2147483647/second", "sliding 32767/second", "4294967295/day"]
    {
        let limiter = limiter(policy, 8);
        let limit = policy.parse::<Policy>().unwrap().quotas()[0].limit;
        assert!(limiter.check(b"a", 1, at(0)).is_admitted());
        for cost in [5_124_097, u32::MAX - 1, u32::MAX].into_iter().filter(|&cost| cost >= limit) {
            assert!(!limiter.check(b"a", cost, at(0)).is_admitted(), "{cost} of {policy}");
        }
    }
}

#[test]
fn clock_that_goes_back_refills_nothing() {
    for policy in ["5/minute, 9/hour", "sliding 5/minute, 9/hour"] {
        let limiter = limiter(policy, 8);
        assert_eq!(admitted(&limiter, b"a", 9, at(3600)), 5);
        for back in [1, 59, 60, 61, 1800, 3600] {
            assert_eq!(admitted(&limiter, b"a", 9, at(3600 - back)), 0, "{back} s back, {policy}");
        }
    }
}

#[test]
fn two_clocks_in_turn_admit_at_most_two_windows() {
    for policy in ["10/second", "sliding 10/second", "10/minute", "10/minute, 12/hour"] {
        for apart in [1, 2, 30, 60] {
            let limiter = limiter(policy, 8);
            let admitted = (0..1000)
                .filter(|turn| limiter.check(b"a", 1, at(turn % 2 * apart)).is_admitted())
                .count();
            // Each clock may open one window. The late clock opens one only if it comes first.
            assert!(admitted <= 20, "{admitted} of {policy}, {apart} s apart");
        }
    }
}

#[test]
fn no_time_panics() {
    for policy in ["5/second", "5/minute, 9/hour", "sliding 5/minute, 9/hour", "1/31d"] {
        let limiter = limiter(policy, 8);
        for ms in [0, u64::MAX, 1, u64::MAX - 1, NOON_S * 1000, 0, u64::MAX] {
            let now = Timestamp::from_unix_ms(ms);
            let verdict = limiter.check(b"a", 1, now);
            verdict.headers();
            limiter.refund(b"a", Charge::new(1, now), Timestamp::from_unix_ms(u64::MAX - ms));
        }
    }
}

#[test]
fn full_limiter_gives_no_subject_a_second_window() {
    let limiter = refusing_limiter("2/hour", 64);
    let mut admitted = std::collections::HashMap::<u32, u32>::new();
    // In each round there are far more subjects than slots.
    for round in 0..20u64 {
        for subject in 0..2000u32 {
            if limiter.check(&subject.to_le_bytes(), 1, at(round * 60)).is_admitted() {
                *admitted.entry(subject).or_default() += 1;
            }
        }
    }
    assert!(admitted.values().all(|&count| count <= 2));
    assert_eq!(admitted.len() as u64, limiter.slots_total());
}

#[test]
fn subject_without_requests_is_never_denied() {
    let limiter = limiter("5/minute", 100_000);
    let denied = (0..100_000u32).filter(|subject| {
        limiter.check(&subject.to_le_bytes(), 1, at(0)).outcome() == Outcome::Denied
    });
    assert_eq!(denied.count(), 0);
}

#[test]
fn subjects_never_exceed_the_slots() {
    let limiter = limiter("5/minute", 100);
    for subject in 0..100_000u32 {
        limiter.check(&subject.to_le_bytes(), 1, at(0));
    }
    assert!(limiter.live_subjects(at(0)) <= limiter.slots_total());
}

#[test]
fn retry_after_is_positive_and_only_on_denials() {
    let limiter = limiter("1/minute, 5/hour", 8);
    let field = |verdict: &Verdict| {
        let headers = verdict.headers();
        headers.iter().find(|(name, _)| *name == "Retry-After").map(|(_, value)| value.to_owned())
    };
    assert_eq!(field(&limiter.check(b"a", 1, at(0))), None);
    assert_eq!(field(&limiter.check(b"a", 2, at(0))), None, "too costly: no time helps");
    for ms in [0, 1, 30_000, 58_999, 59_000, 59_001, 59_999] {
        let now = Timestamp::from_unix_ms(NOON_S * 1000 + ms);
        let seconds: u64 = field(&limiter.check(b"a", 1, now)).unwrap().parse().unwrap();
        assert_eq!(seconds, (60_000 - ms).div_ceil(1000).max(1));
    }
    let reset =
        limiter.peek(b"a", 1, at(0)).headers().iter().nth(2).map(|(_, value)| value.to_owned());
    assert_eq!(reset, Some((NOON_S + 3600).to_string()), "an integer Unix time");
}

#[test]
fn policy_text_of_an_interval_is_rejected() {
    let kind = |text: &str| text.parse::<Policy>().unwrap_err().kind();
    for text in ["2", "2s", "per_second(2)", "every 2s", "2/", "/s"] {
        assert_eq!(kind(text), ParsePolicyErrorKind::Syntax, "{text}");
    }
    assert_eq!("2/second".parse::<Policy>().unwrap().quotas()[0].limit, 2);
    assert_eq!("1/2s".parse::<Policy>().unwrap().quotas()[0].window.seconds(), 2);
}

#[test]
fn zero_limit_is_rejected_and_stamp_zero_is_counted() {
    for (text, kind) in
        [("0/minute", ParsePolicyErrorKind::Limit), ("5/0s", ParsePolicyErrorKind::Window)]
    {
        assert_eq!(text.parse::<Policy>().unwrap_err().kind(), kind);
    }
    // The stamp of the first minute after the epoch is 0, and a limit holds there too.
    let limiter = limiter("2/minute", 8);
    assert_eq!(admitted(&limiter, b"a", 9, Timestamp::from_unix_ms(0)), 2);
    assert_eq!(admitted(&limiter, b"a", 9, Timestamp::from_unix_ms(59_999)), 0);
}

#[test]
fn cost_above_the_limit_has_no_retry_time() {
    let limiter = limiter("10/minute, 100/hour", 8);
    assert!(limiter.check(b"a", 4, at(0)).is_admitted());
    let verdict = limiter.check(b"a", 11, at(0));
    assert_eq!((verdict.outcome(), verdict.http_status()), (Outcome::TooCostly, 429));
    assert_eq!(
        (verdict.remaining(), verdict.retry_after_s(), verdict.charge()),
        (Some(96), None, None)
    );
}

/// Returns a gate, its only key, which may make two requests an hour, and that key's id.
fn gate_with_key() -> (Gate<Vec<CacheLine>>, Key, KeyId) {
    let gate = gate(&config(8, &[plan("default", "2/hour")]));
    let (key, key_id) = issue(&gate, &new_key(), entropy(5));
    (gate, key, key_id)
}

#[test]
fn check_with_a_wrong_secret_charges_nothing() {
    let (gate, key, _) = gate_with_key();
    let text = key.expose().as_bytes();
    for index in text.len() - 28..text.len() {
        let mut wrong = text.to_vec();
        wrong[index] = if wrong[index] == b'x' { b'y' } else { b'x' };
        assert_eq!(gate.check(Some(&wrong), 1, at(0)).outcome(), Outcome::InvalidKey);
    }
    assert_eq!(check(&gate, &key, at(0)).remaining(), Some(1));
}

#[test]
fn two_key_headers_are_rejected_whichever_a_server_takes() {
    let verdict = Verdict::duplicate_header(at(0));
    assert_eq!(
        (verdict.outcome(), verdict.body()),
        (Outcome::InvalidKey, r#"{"error": "Invalid API key"}"#)
    );
}

#[test]
fn revoked_key_is_invalid_at_the_next_check() {
    let (gate, key, key_id) = gate_with_key();
    assert!(check(&gate, &key, at(0)).is_admitted());
    gate.administer().unwrap().revoke(key_id).unwrap();
    assert!(!check(&gate, &key, at(0)).is_admitted());
}

#[test]
fn old_and_new_secret_share_one_quota() {
    let (gate, old, key_id) = gate_with_key();
    let mut administrator = gate.administer().unwrap();
    let new = administrator.rotate(key_id, end(3600), false, entropy(6), at(1)).unwrap();
    let keys = [&old, &new, &old, &new];
    assert_eq!(keys.iter().filter(|key| check(&gate, key, at(1)).is_admitted()).count(), 2);
}

#[test]
fn gate_memory_holds_no_secret_and_no_pepper() {
    let plans = [plan("default", "2/hour")];
    let config = config(8, &plans);
    let pepper = [0xa7; 32];
    let peppers = Peppers::new(&[pepper]).unwrap();
    let gate = Gate::init(memory(config.lines()), &config, peppers).unwrap();
    let secret = *b"sixteen secret b";
    let entropy: [u8; 24] = [[9; 8].as_slice(), &secret].concat().try_into().unwrap();
    let (key, _) = issue(&gate, &new_key(), Entropy::new(entropy));
    let stored: Vec<u8> = image(gate.memory()).into_iter().flat_map(u64::to_le_bytes).collect();
    let holds = |needle: &[u8]| stored.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"default"), "the search finds the plan's name");
    for part in [&secret[..8], &secret[8..], &key.expose().as_bytes()[20..32], &pepper[..8]] {
        assert!(!holds(part));
        assert!(!holds(&part.iter().rev().copied().collect::<Vec<u8>>()));
    }
}

#[test]
fn missing_and_wrong_key_get_www_authenticate() {
    let (gate, _, _) = gate_with_key();
    for api_key in [None, Some(&b"wrong"[..])] {
        let headers = gate.check(api_key, 1, at(0)).headers();
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["WWW-Authenticate"]);
    }
}
