//! Keys from creation to revocation: `create`, `issue`, `check`, `rotate`, `revoke`, `plan`,
//! `assign`, `reset`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use std::fs;

use serde_json::{Value, json};
use support::{GATE, Sandbox, list, listed, outcome, sandbox_with_gate};

#[test]
fn create_makes_the_gate_that_the_options_describe() {
    let sandbox = Sandbox::new();
    let created = sandbox.run(&["create", GATE, "--json"]).json();
    assert_eq!(created["gate"], GATE);
    assert_eq!((&created["capacity"], &created["prefix"]), (&json!(100_000), &json!("kt")));
    assert_eq!(created["plans"], json!([{"name": "default", "sections": "100/minute, 1000/hour"}]));
    let file = fs::metadata(sandbox.path(GATE)).unwrap();
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&file) & 0o7777, 0o600);
    assert_eq!(created["bytes"], file.len());

    let plans = ["--plan", "free=5/s,10/10s", "--plan", "pro = 50/10s, 20/second"];
    let text = sandbox
        .run(&[&["create", "b.gate", "--keys", "10", "--prefix", "acme"], &plans[..]].concat())
        .expect_status(0);
    assert_eq!(
        text,
        "b.gate: created for 10 keys\nplans: free = 5/second, 10/10s; pro = 20/second, 50/10s\n"
    );
    let (key, _) = sandbox.issue("b.gate", &["--account", "1", "--env", "test"]);
    assert!(key.starts_with("acme_test_"), "{key}");
}

#[test]
fn issue_prints_the_key_once() {
    let sandbox = sandbox_with_gate();
    let issued = sandbox
        .run(&[
            "issue",
            GATE,
            "--account",
            "42",
            "--env",
            "test",
            "--plan",
            "pro",
            "--expires",
            "90d",
            "--json",
        ])
        .json();
    let key = sandbox.watch_secret(issued["key"].as_str().unwrap());
    let names: Vec<&String> = issued.as_object().unwrap().keys().collect();
    assert_eq!(names, ["account", "env", "expires", "hint", "key", "key_id", "plan"]);
    let key_id = issued["key_id"].as_str().unwrap();
    assert_eq!((key_id.len(), &key[8..19]), (11, key_id));
    assert_eq!(issued["hint"], format!("kt_test_…{}", &key[key.len() - 4..]));
    assert_eq!(
        (&issued["account"], &issued["env"], &issued["plan"]),
        (&json!(42), &json!("test"), &json!("pro"))
    );
    assert_eq!(issued["expires"], listed(&sandbox, key_id)["expires"]);
    assert_eq!(issued["expires"].as_str().unwrap().len(), "2026-01-01T00:00:00Z".len());

    // As text, standard output is the key alone, so that a shell can assign it to a variable.
    let run = sandbox.run(&["issue", GATE, "--account", "7"]);
    let key = sandbox.watch_secret(run.out.trim_end());
    assert_eq!((run.status, run.out.as_str()), (0, format!("{key}\n").as_str()));
    assert!(
        run.err.contains(&format!("key id {}, account 7, env live, plan default.", &key[8..19])),
        "{run:?}"
    );
    assert!(!run.err.contains(&key[19..]));

    // No other command prints it: `run` checks every output.
    for args in [
        &["list", GATE][..],
        &["list", GATE, "--json"],
        &["top", GATE, "--once"],
        &["top", GATE, "--json"],
        &["verify", GATE],
        &["reset", GATE, key_id],
        &["assign", GATE, key_id, "--plan", "default"],
        &["plan", GATE, "default=101/31d"],
        &["revoke", GATE, key_id],
    ] {
        sandbox.run(args).expect_status(0);
    }
    assert_eq!(sandbox.check(GATE, &key, &[]).0, 0);
    let text = sandbox.run(&["check", GATE, "--key", &key]);
    assert!(text.expect_status(0).starts_with("admitted: key "));
}

#[test]
fn new_key_has_the_first_plan_and_no_expiry_by_default() {
    let sandbox = sandbox_with_gate();
    let (_, key_id) = sandbox.issue(GATE, &["--account", "4294967295"]);
    let key = listed(&sandbox, &key_id);
    assert_eq!(
        (&key["plan"], &key["env"], &key["expires"]),
        (&json!("default"), &json!("live"), &Value::Null)
    );
    assert_eq!(key["account"], u32::MAX);
    assert_eq!(
        key["quotas"],
        json!([{"section": "key", "window": "2678400s", "window_s": 2_678_400, "limit": 100, "used": 0, "remaining": 100, "reset_unix_s": key["quotas"][0]["reset_unix_s"]}])
    );
    assert_eq!(
        (&key["state"], &key["last_used"], &key["grace_until"]),
        (&json!("active"), &Value::Null, &Value::Null)
    );
}

#[test]
fn expired_key_is_invalid() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "1", "--expires", "1s"]);
    std::thread::sleep(core::time::Duration::from_millis(1100));
    assert_eq!(outcome(&sandbox.check(GATE, &key, &[])), (1, "invalid_key", Some("expired")));
    assert_eq!(listed(&sandbox, &key_id)["state"], "expired");
}

#[test]
fn check_charges_and_peek_does_not() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    let (status, report) = sandbox.check(GATE, &key, &["--cost", "60"]);
    assert_eq!(
        (status, &report["outcome"], &report["charged"]),
        (0, &json!("admitted"), &json!(true))
    );
    assert_eq!((&report["account"], &report["key_id"]), (&json!(42), &json!(key_id)));
    assert_eq!((&report["env"], &report["plan"]), (&json!("live"), &json!("default")));
    assert_eq!((&report["http_status"], &report["body"]), (&json!(200), &json!("")));
    assert_eq!(report["quotas"][0]["remaining"], 40);
    assert_eq!(report["headers"]["X-RateLimit-Remaining"], "40");
    assert_eq!(report["headers"]["RateLimit-Policy"], "\"2678400s\";q=100;w=2678400");

    let (status, report) = sandbox.check(GATE, &key, &["--cost", "40", "--peek"]);
    assert_eq!(
        (status, &report["outcome"], &report["charged"]),
        (0, &json!("admitted"), &json!(false))
    );
    let (status, report) = sandbox.check(GATE, &key, &["--cost", "41"]);
    assert_eq!(
        (status, &report["outcome"], &report["http_status"]),
        (1, &json!("denied"), &json!(429))
    );
    assert_eq!(report["body"], "{\"error\": \"Rate limit exceeded. Please try again later.\"}");
    assert!(report["retry_after_s"].as_u64().unwrap() >= 1);
    let (status, report) = sandbox.check(GATE, &key, &["--cost", "101"]);
    assert_eq!(
        (status, &report["outcome"], &report["retry_after_s"]),
        (1, &json!("too_costly"), &Value::Null)
    );
    assert_eq!(sandbox.check(GATE, &key, &["--cost", "40"]).0, 0);
    assert_eq!(sandbox.check(GATE, &key, &["--cost", "0"]).0, 0);
    assert_eq!(sandbox.check(GATE, &key, &[]).0, 1);
    assert_eq!(listed(&sandbox, &key_id)["quotas"][0]["used"], 100);
    assert!(listed(&sandbox, &key_id)["last_used"].is_string());

    let text =
        sandbox.run_with_input(&["check", GATE, "--key", "-"], key.as_bytes()).expect_status(1);
    assert!(
        text.starts_with(&format!("denied: key {key_id}, account 42, env live, plan default\n")),
        "{text}"
    );
    assert!(text.contains("  2678400s: 0 of 100 left, reset "), "{text}");
    assert!(text.contains("  retry after "), "{text}");
}

#[test]
fn check_reports_why_a_key_is_invalid() {
    let sandbox = sandbox_with_gate();
    let (key, _) = sandbox.issue(GATE, &["--account", "42"]);
    let mut mistyped = key.clone();
    mistyped.replace_range(30..31, if &key[30..31] == "a" { "b" } else { "a" });
    assert_eq!(outcome(&sandbox.check(GATE, &mistyped, &[])), (1, "invalid_key", Some("checksum")));
    assert_eq!(
        outcome(&sandbox.check(GATE, "nonsense", &[])),
        (1, "invalid_key", Some("malformed"))
    );
    let run = sandbox.run(&["check", GATE, "--key", "nonsense", "--json"]).json_with_status(1);
    assert_eq!((&run["account"], &run["quotas"]), (&Value::Null, &json!([])));
    assert_eq!(run["body"], "{\"error\": \"Invalid API key\"}");

    // A key of another gate with another pepper.
    let other = Sandbox::new();
    let pepper = "a0".repeat(32);
    other
        .finish(other.command(&["create", GATE]).env("KEYTALLY_PEPPER", &pepper), b"")
        .expect_status(0);
    let issued = other
        .finish(
            other
                .command(&["issue", GATE, "--account", "1", "--json"])
                .env("KEYTALLY_PEPPER", &pepper),
            b"",
        )
        .json();
    let foreign = issued["key"].as_str().unwrap();
    assert_eq!(outcome(&sandbox.check(GATE, foreign, &[])), (1, "invalid_key", Some("unknown")));
}

#[test]
fn rotate_keeps_counts_and_the_old_secret_until_grace_ends() {
    let sandbox = sandbox_with_gate();
    let (old, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    assert_eq!(sandbox.check(GATE, &old, &["--cost", "10"]).0, 0);
    let new = sandbox.rotate(GATE, &key_id, "24h");
    assert_ne!(old, new);
    assert_eq!(old[..19], new[..19], "the key id stays");
    assert_eq!(sandbox.check(GATE, &old, &["--cost", "10"]).1["quotas"][0]["used"], 20);
    assert_eq!(sandbox.check(GATE, &new, &["--cost", "10"]).1["quotas"][0]["used"], 30);
    let listed = listed(&sandbox, &key_id);
    assert_eq!(listed["hint"], format!("kt_live_…{}", &new[new.len() - 4..]));
    assert!(listed["grace_until"].is_string());
    let text = sandbox.run(&["list", GATE]).expect_status(0);
    let note = format!("key {key_id} is in a grace period: its previous secret is valid until 2");
    assert!(text.contains(&note), "{text}");

    let newest =
        sandbox.run(&["rotate", GATE, &key_id, "--grace", "0s", "--force", "--json"]).json();
    let newest = sandbox.watch_secret(newest["key"].as_str().unwrap());
    assert_eq!(outcome(&sandbox.check(GATE, &old, &[])), (1, "invalid_key", Some("wrong_secret")));
    assert_eq!(outcome(&sandbox.check(GATE, &new, &[])), (1, "invalid_key", Some("expired")));
    assert_eq!(sandbox.check(GATE, &newest, &[]).1["quotas"][0]["used"], 31);
}

#[test]
fn rotation_during_a_grace_period_needs_force() {
    let sandbox = sandbox_with_gate();
    let (first, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    let second = sandbox.rotate(GATE, &key_id, "1h");
    let until = listed(&sandbox, &key_id)["grace_until"].clone();
    for grace in ["1h", "0s"] {
        let refused = sandbox.run(&["rotate", GATE, &key_id, "--grace", grace]);
        refused.expect_failure(&[&key_id, "is valid until", until.as_str().unwrap(), "--force"]);
    }
    for key in [&first, &second] {
        assert_eq!(sandbox.check(GATE, key, &[]).0, 0, "the rejected rotation ended a secret");
    }
    let forced =
        sandbox.run(&["rotate", GATE, &key_id, "--grace", "1h", "--force"]).expect_status(0);
    let third = sandbox.watch_secret(forced.trim_end());
    assert_eq!(
        outcome(&sandbox.check(GATE, &first, &[])),
        (1, "invalid_key", Some("wrong_secret"))
    );
    assert_eq!([&second, &third].map(|key| sandbox.check(GATE, key, &[]).0), [0, 0]);
    // Outside a grace period, a rotation does not need it.
    let (_, other_id) = sandbox.issue(GATE, &["--account", "43"]);
    sandbox.rotate(GATE, &other_id, "0s");
    sandbox.rotate(GATE, &other_id, "0s");
}

#[test]
fn grace_period_ends_with_its_key() {
    let sandbox = sandbox_with_gate();
    let (_, revoked) = sandbox.issue(GATE, &["--account", "1"]);
    let (_, expired) = sandbox.issue(GATE, &["--account", "2", "--expires", "3s"]);
    let (_, brief) = sandbox.issue(GATE, &["--account", "3", "--expires", "30m"]);
    for key_id in [&revoked, &expired, &brief] {
        sandbox.rotate(GATE, key_id, "1h");
        assert!(listed(&sandbox, key_id)["grace_until"].is_string());
    }
    // The grace period does not outlast the key.
    assert_eq!(listed(&sandbox, &brief)["grace_until"], listed(&sandbox, &brief)["expires"]);
    sandbox.run(&["revoke", GATE, &revoked]).expect_status(0);
    std::thread::sleep(core::time::Duration::from_millis(3100));
    for key_id in [&revoked, &expired] {
        assert_eq!(listed(&sandbox, key_id)["grace_until"], Value::Null);
    }
    let text = sandbox.run(&["list", GATE]).expect_status(0);
    assert_eq!(text.matches("its previous secret is valid until").count(), 1, "{text}");
    // Another rotation therefore needs no --force.
    sandbox.rotate(GATE, &expired, "1h");
}

#[test]
fn grace_period_ends_on_request() {
    let sandbox = sandbox_with_gate();
    let (old, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    let new = sandbox.rotate(GATE, &key_id, "1h");
    let ended = sandbox.run(&["end-grace", GATE, &key_id]).expect_status(0);
    assert_eq!(ended, format!("key {key_id} has one secret, its newest\n"));
    assert_eq!(outcome(&sandbox.check(GATE, &old, &[])), (1, "invalid_key", Some("expired")));
    assert_eq!(sandbox.check(GATE, &new, &[]).0, 0);
    assert_eq!(
        sandbox.run(&["end-grace", GATE, &key_id, "--json"]).json(),
        json!({"key_id": key_id})
    );
}

#[test]
fn expiry_can_be_changed() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42", "--expires", "1s"]);
    std::thread::sleep(core::time::Duration::from_millis(2100));
    assert_eq!(outcome(&sandbox.check(GATE, &key, &[])), (1, "invalid_key", Some("expired")));
    let changed = sandbox.run(&["expire", GATE, &key_id, "--expires", "90d", "--json"]).json();
    assert_eq!(changed["expires"], listed(&sandbox, &key_id)["expires"]);
    assert_eq!(sandbox.check(GATE, &key, &[]).0, 0);
    let never = sandbox.run(&["expire", GATE, &key_id, "--never"]).expect_status(0);
    assert_eq!(never, format!("key {key_id} never expires\n"));
    assert_eq!(listed(&sandbox, &key_id)["expires"], Value::Null);
    for options in [&[][..], &["--never", "--expires", "1d"], &["--expires", "0s"]] {
        let args = [&["expire", GATE, &key_id], options].concat();
        sandbox.run(&args).expect_usage_error(&[]);
    }
    sandbox.run(&["revoke", GATE, &key_id]).expect_status(0);
    let refused = sandbox.run(&["expire", GATE, &key_id, "--never"]);
    refused.expect_failure(&[&key_id, "was revoked"]);
}

#[test]
fn revoked_key_is_invalid() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    let revoked = sandbox.run(&["revoke", GATE, &key_id, "--json"]).json();
    assert_eq!(revoked, json!({"key_id": key_id, "state": "revoked"}));
    assert_eq!(outcome(&sandbox.check(GATE, &key, &[])), (1, "invalid_key", Some("revoked")));
    assert_eq!(listed(&sandbox, &key_id)["state"], "revoked");
    assert_eq!(
        sandbox.run(&["revoke", GATE, &key_id]).expect_status(0),
        format!("key {key_id} is revoked\n")
    );
    sandbox
        .run(&["rotate", GATE, &key_id, "--grace", "1h"])
        .expect_failure(&[&key_id, "was revoked"]);
    sandbox
        .run(&["assign", GATE, &key_id, "--plan", "pro"])
        .expect_failure(&[&key_id, "was revoked"]);
}

#[test]
fn plan_changes_keep_the_counts() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    assert_eq!(sandbox.check(GATE, &key, &["--cost", "100"]).0, 0);
    assert_eq!(sandbox.check(GATE, &key, &[]).0, 1);
    let assigned = sandbox.run(&["assign", GATE, &key_id, "--plan", "pro", "--json"]).json();
    assert_eq!(assigned, json!({"key_id": key_id, "plan": "pro"}));
    assert_eq!(sandbox.check(GATE, &key, &[]).1["quotas"][0]["remaining"], 899);
    let set = sandbox.run(&["plan", GATE, "pro=2000/31d", "--json"]).json();
    assert_eq!(set, json!({"name": "pro", "sections": "2000/31d", "before": "1000/31d"}));
    assert_eq!(sandbox.check(GATE, &key, &[]).1["quotas"][0]["remaining"], 1898);
    sandbox.run(&["plan", GATE, "pro=50/31d"]).expect_status(0);
    assert_eq!(sandbox.check(GATE, &key, &[]).1["quotas"][0]["remaining"], 0);
    assert_eq!(
        sandbox.run(&["plan", GATE, "free=1/31d"]).expect_status(0),
        "plan free is 1/31d (new)\n"
    );

    sandbox.run(&["plan", GATE, "pro=2000/day"]).expect_failure(&[
        GATE,
        "windows and algorithm",
        "2000/day was given",
        "default = ",
    ]);
    sandbox.run(&["plan", GATE, "pro=sliding 2000/31d"]).expect_failure(&["windows and algorithm"]);
    sandbox
        .run(&["plan", GATE, "pro=2000/fortnight"])
        .expect_usage_error(&["plan \"pro\"", "\"fortnight\" is not a unit"]);
    sandbox
        .run(&["plan", GATE, "2000/31d"])
        .expect_usage_error(&["\"2000/31d\" is not a plan", "NAME=SECTIONS"]);
    sandbox.run(&["plan", GATE, "=2000/31d"]).expect_usage_error(&["is not a plan name"]);
    sandbox
        .run(&["assign", GATE, &key_id, "--plan", "missing"])
        .expect_failure(&["no plan \"missing\"", "default = 100/31d"]);
    sandbox
        .run(&["issue", GATE, "--account", "1", "--plan", "missing"])
        .expect_failure(&["no plan \"missing\"", "default = 100/31d"]);
    let plans = &list(&sandbox)["plans"];
    assert_eq!(
        plans,
        &json!([{"name": "default", "sections": "100/31d"}, {"name": "pro", "sections": "50/31d"}, {"name": "free", "sections": "1/31d"}])
    );
}

#[test]
fn reset_sets_the_counts_to_zero() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    assert_eq!(sandbox.check(GATE, &key, &["--cost", "100"]).0, 0);
    let reset = sandbox.run(&["reset", GATE, &key_id, "--json"]).json();
    assert_eq!((&reset["key_id"], &reset["quotas"][0]["used"]), (&json!(key_id), &json!(0)));
    assert_eq!(sandbox.check(GATE, &key, &["--cost", "100"]).0, 0);
}
