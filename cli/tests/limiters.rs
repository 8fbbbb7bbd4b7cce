//! Limiter files: `limiter create`, `check`, `list`, `top` and `reset`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use keytally::{Address, AddressLimiter, Limiter, OnFull};
use serde_json::{Value, json};
use support::Sandbox;

/// The name of the limiter file.
const FILE: &str = "addresses.limiter";

/// A limiter of one bucket with two subjects.
fn sandbox_with_limiter() -> (Sandbox, Limiter) {
    let sandbox = Sandbox::new();
    let policy = "5/31d, 9/month".parse().unwrap();
    let limiter = Limiter::create(sandbox.path(FILE), &policy, 5).unwrap();
    assert!(limiter.check(b"203.0.113.9", 4).is_admitted());
    assert!(limiter.check(b"203.0.113.10", 1).is_admitted());
    (sandbox, limiter)
}

/// Returns how many units of the shortest window each subject used, in the order of the output.
fn used(listing: &Value) -> Vec<u64> {
    let subjects = listing["subjects"].as_array().unwrap().iter();
    subjects.map(|subject| subject["quotas"][0]["used"].as_u64().unwrap()).collect()
}

#[test]
fn limiter_list_shows_occupancy_and_use_by_fingerprint() {
    let (sandbox, limiter) = sandbox_with_limiter();
    let fingerprint = format!("{:012x}", limiter.table().fingerprint(b"203.0.113.9"));
    let text = sandbox.run(&["limiter", "list", FILE]).expect_status(0);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("addresses.limiter: 2 live subjects in 8 slots, for 5 "),
        "{text}"
    );
    assert_eq!(lines[1], "on full: share; 0 requests found no slot since the creation");
    assert_eq!(lines[3], "FINGERPRINT   2678400S  MONTH");
    let row = format!("{fingerprint}       4/5    4/9");
    assert!(lines[4..].contains(&row.as_str()) && lines.len() == 6, "{text}");

    let listing = sandbox.run(&["limiter", "list", FILE, "--json"]).json();
    for (member, value) in [
        ("limiter", json!(FILE)),
        ("policy", json!("5/31d, 9/month")),
        ("capacity", json!(5)),
        ("slots", json!(8)),
        ("live_subjects", json!(2)),
        ("refusals", json!(0)),
        ("on_full", json!("share")),
    ] {
        assert_eq!(listing[member], value, "{member}");
    }
    let mut units = used(&listing);
    units.sort_unstable();
    assert_eq!(units, [1, 4]);
    let of = |subject: &&Value| subject["fingerprint"] == json!(fingerprint);
    let found = listing["subjects"].as_array().unwrap().iter().find(of).unwrap();
    assert_eq!((&found["quotas"][0]["limit"], &found["clock_ahead_s"]), (&json!(5), &json!(0)));
}

#[test]
fn limiter_list_shows_requests_without_a_slot() {
    let (sandbox, limiter) = sandbox_with_limiter();
    (0..10_u8).for_each(|number| assert!(limiter.check(&[number], 1).is_admitted()));
    let listing = sandbox.run(&["limiter", "list", FILE, "--json"]).json();
    assert_eq!((&listing["live_subjects"], &listing["refusals"]), (&json!(8), &json!(4)));
    let shared = listing["subjects"].as_array().unwrap().iter();
    let shared = shared.filter(|subject| subject["fingerprint"].is_null());
    assert_eq!(shared.map(|subject| &subject["quotas"][0]["used"]).collect::<Vec<_>>(), [4]);
    limiter.set_on_full(OnFull::Refuse);
    let text = sandbox.run(&["limiter", "list", FILE]).expect_status(0);
    assert!(text.contains("on full: refuse; 4 requests found no slot"), "{text}");
    assert!(text.lines().any(|line| line == "shared             4/5    4/9"), "{text}");
}

#[test]
fn limiter_top_shows_the_most_used_first() {
    let (sandbox, limiter) = sandbox_with_limiter();
    assert!(limiter.check(b"203.0.113.11", 3).is_admitted());
    let top = sandbox.run(&["limiter", "top", FILE, "--json"]).json();
    assert_eq!(used(&top), [4, 3, 1]);
    let top = sandbox.run(&["limiter", "top", FILE, "--json", "--rows", "2"]).json();
    assert_eq!((used(&top), &top["live_subjects"]), (vec![4, 3], &json!(3)));
    let text = sandbox.run(&["limiter", "top", FILE, "--once"]).expect_status(0);
    assert!(text.lines().nth(4).unwrap().ends_with("4/5    4/9"), "{text}");
    sandbox.run(&["limiter", "top", FILE]).expect_failure(&["needs a terminal", "--once"]);
}

#[test]
fn limiter_reset_sets_one_or_all_counts_to_zero() {
    let (sandbox, limiter) = sandbox_with_limiter();
    let fingerprint = format!("{:012x}", limiter.table().fingerprint(b"203.0.113.9"));
    let text = sandbox.run(&["limiter", "reset", FILE, "203.0.113.9"]).expect_status(0);
    assert_eq!(
        text,
        format!("the counts of the subject with fingerprint {fingerprint} are zero\n")
    );
    assert_eq!(limiter.peek(b"203.0.113.9", 1).remaining(), Some(5));
    assert_eq!(limiter.peek(b"203.0.113.10", 1).remaining(), Some(4));
    // The subject is known but has no counts any more, and another was never counted.
    for subject in ["203.0.113.9", "ann"] {
        let fingerprint = format!("{:012x}", limiter.table().fingerprint(subject.as_bytes()));
        let text = sandbox.run(&["limiter", "reset", FILE, subject]).expect_status(0);
        assert_eq!(text, format!("the subject with fingerprint {fingerprint} had no counts\n"));
    }
    sandbox.run(&["limiter", "reset", FILE]).expect_usage_error(&["--all", "SUBJECT"]);
    let all = ["limiter", "reset", FILE, "--all"];
    let both = [&all[..], &["203.0.113.10"]].concat();
    sandbox.run(&both).expect_usage_error(&["--all"]);
    let text = sandbox.run(&all).expect_status(0);
    assert_eq!(text, "all counts are zero; 1 subject had any\n");
    let done = sandbox.run(&[&all[..], &["--json"]].concat()).json();
    assert_eq!(done, json!({"fingerprint": null, "reset_subjects": 0}));
    assert_eq!(limiter.peek(b"203.0.113.10", 1).remaining(), Some(5));
}

#[test]
fn limiter_of_addresses_is_listed_and_reset() {
    let sandbox = Sandbox::new();
    let policy = "addresses: /64 5/31d; /56 9/31d".parse().unwrap();
    let limiter = AddressLimiter::create(sandbox.path(FILE), &policy, 5).unwrap();
    let client = |text| Address::parse(text).unwrap();
    assert!(limiter.check(client("2001:db8::1"), 4).is_admitted());
    assert!(limiter.check(client("2001:db8:0:1::1"), 1).is_admitted());
    let listing = sandbox.run(&["limiter", "list", FILE, "--json"]).json();
    assert_eq!((&listing["policy"], &listing["slots"]), (&json!(policy.to_string()), &json!(8)));
    let mut units = used(&listing);
    units.sort_unstable();
    assert_eq!((units, &listing["live_subjects"]), (vec![1, 4, 5], &json!(3)));
    let limits = listing["subjects"].as_array().unwrap().iter();
    assert!(limits.map(|subject| &subject["quotas"][0]["limit"]).all(|limit| *limit == json!(9)));

    let fingerprint = format!("{:012x}", limiter.table().fingerprint(client("2001:db8::1")));
    let text = sandbox.run(&["limiter", "reset", FILE, "[2001:db8::2]:443"]).expect_status(0);
    assert!(text.contains(&fingerprint), "{text}");
    let left = limiter.peek(client("2001:db8::1"), 0);
    assert!(left.verdicts().map(|verdict| verdict.remaining()).eq([Some(5), Some(4)]));
    let failure = sandbox.run(&["limiter", "reset", FILE, "ann"]);
    failure.expect_failure(&["\"ann\" is not an address", "203.0.113.9"]);
    let text = sandbox.run(&["limiter", "reset", FILE, "--all"]).expect_status(0);
    assert_eq!(text, "all counts are zero; 2 subjects had any\n");
}

#[test]
fn file_that_is_not_a_limiter_is_a_failure() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("text"), "hello ".repeat(1000)).unwrap();
    sandbox.set_mode("text", 0o600);
    for command in ["list", "top", "reset"] {
        let more = if command == "reset" { "--all" } else { "--json" };
        sandbox.run(&["limiter", command, "text", more]).expect_failure(&["not a keytally table"]);
        sandbox.run(&["limiter", command, "nothing", more]).expect_failure(&["nothing"]);
    }
}

#[test]
fn limiter_is_created_and_its_subjects_are_charged() {
    let sandbox = Sandbox::new();
    let create = |file: &str, policy: &str| {
        sandbox.run(&["limiter", "create", file, "--policy", policy, "--capacity", "9"])
    };
    let created = create(FILE, "2 per 31d").expect_status(0);
    assert_eq!(created, "created addresses.limiter: 2/31d for each of 9 subjects\n");
    create(FILE, "2/31d").expect_failure(&["addresses.limiter"]);
    create("other", "2/fortnight").expect_usage_error(&["--policy", "is not a unit"]);
    let check = |file: &str, subject: &str, more: &[&str]| {
        sandbox.run(&[&["limiter", "check", file, subject], more].concat())
    };
    let first = check(FILE, "ann", &[]).expect_status(0);
    assert!(first.starts_with("admitted\n  2678400s: 1 of 2 left, reset "), "{first}");
    let denied = check(FILE, "ann", &["--cost", "2", "--json"]);
    assert_eq!(denied.status, 1);
    let denied: Value = serde_json::from_str(&denied.out).unwrap();
    assert_eq!((&denied["outcome"], &denied["http_status"]), (&json!("denied"), &json!(429)));
    assert_eq!(denied["quotas"][0]["remaining"], 1);

    create("networks", "addresses: /64 5/31d; /48 6/31d").expect_status(0);
    check("networks", "2001:db8::1", &["--cost", "5"]).expect_status(0);
    check("networks", "2001:db8:0:1::1", &["--cost", "2"]).expect_status(1);
    check("networks", "ann", &[]).expect_failure(&["\"ann\" is not an address"]);

    // A limiter in a fleet that this process did not join.
    let limiter = Limiter::open(sandbox.path(FILE)).unwrap();
    limiter.set_fleet(true).unwrap();
    let refused = check(FILE, "ann", &[]).expect_status(1);
    assert!(refused.starts_with("unavailable\n  retry after 1 s"), "{refused}");
    check(FILE, "ann", &["--fleet", "nowhere"]).expect_failure(&["nowhere"]);
}
