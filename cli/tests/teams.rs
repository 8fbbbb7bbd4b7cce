//! Plans with sections, accounts and scopes on the command line.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use serde_json::{Value, json};
use support::{GATE, Sandbox, listed};

const PLAN: &str =
    "default=3/31d warn 50%; team: 4/31d; group write: 2/31d; group tokens: 5000/31d";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let scopes = ["--scope", "read", "--scope", "write"];
    let create = [&["create", GATE, "--keys", "8", "--teams", "2", "--plan", PLAN], &scopes[..]];
    let text = sandbox.run(&create.concat()).expect_status(0);
    assert!(text.starts_with("api.gate: created for 8 keys and 2 teams\nscopes: read, write\n"));
    sandbox
}

/// Returns the units left in each quota of a report.
fn left(report: &Value) -> Vec<(String, u64)> {
    let quotas = report["quotas"].as_array().unwrap().iter();
    quotas
        .map(|quota| {
            let section = quota["section"].as_str().unwrap().to_owned();
            (section, quota["remaining"].as_u64().unwrap())
        })
        .collect()
}

fn named(left: &[(&str, u64)]) -> Vec<(String, u64)> {
    left.iter().map(|(section, units)| ((*section).to_owned(), *units)).collect()
}

#[test]
fn check_charges_team_and_groups_all_or_none() {
    let sandbox = sandbox();
    let (ann, ann_id) = sandbox.issue(GATE, &["--account", "42"]);
    let (bob, _) = sandbox.issue(GATE, &["--account", "42"]);

    let (status, report) =
        sandbox.check(GATE, &ann, &["--group", "write", "--group", "tokens=4000"]);
    assert_eq!(status, 0, "{report}");
    let expected = named(&[("key", 2), ("team", 3), ("write", 1), ("tokens", 1000)]);
    assert_eq!(left(&report), expected);
    assert!(report["headers"]["RateLimit"].as_str().unwrap().contains("\"team-2678400s\";r=3"));
    let (status, report) = sandbox.check(GATE, &ann, &["--group", "tokens=1001"]);
    assert_eq!((status, &report["outcome"]), (1, &json!("denied")));
    assert_eq!(left(&report), named(&[("key", 2), ("team", 3), ("tokens", 1000)]));
    assert_eq!(sandbox.check(GATE, &bob, &["--cost", "3"]).0, 0);
    let (status, report) = sandbox.check(GATE, &ann, &[]);
    assert_eq!((status, left(&report)), (1, named(&[("key", 2), ("team", 0)])));

    let key = listed(&sandbox, &ann_id);
    assert_eq!(left(&key), named(&[("key", 2), ("team", 0), ("write", 1), ("tokens", 1000)]));
    let list = sandbox.run(&["list", GATE]).expect_status(0);
    assert!(list.contains("TEAM-2678400S") && list.contains(" 4000/5000 "), "{list}");
    sandbox
        .run_with_input(&["check", GATE, "--group", "writes"], ann.as_bytes())
        .expect_failure(&["have no group \"writes\""]);
    sandbox
        .run(&["account", GATE, "x"])
        .expect_usage_error(&["'<ACCOUNT>': \"x\" is not an account; use a whole number"]);
    for wrong in ["tokens=x", "tokens=+5", "tokens="] {
        sandbox
            .run_with_input(&["check", GATE, "--group", wrong], ann.as_bytes())
            .expect_usage_error(&[&format!("\"{wrong}\" is not a group; write NAME or NAME=COST")]);
    }
    sandbox
        .run_with_input(
            &["check", GATE, "--group", "tokens=1", "--group", "tokens"],
            ann.as_bytes(),
        )
        .expect_usage_error(&["group \"tokens\" is given twice"]);
}

#[test]
fn check_names_each_warning_once() {
    let sandbox = sandbox();
    let (key, _) = sandbox.issue(GATE, &["--account", "42"]);
    let crossed = |arguments: &[&str]| sandbox.check(GATE, &key, arguments).1["crossed"].clone();
    let warning = json!([{"section": "key", "window": "2678400s", "percent": 50}]);
    assert_eq!(crossed(&[]), json!([]));
    // A peek charges nothing, so it reaches no warning.
    assert_eq!(crossed(&["--peek"]), json!([]));
    let text = sandbox.run_with_input(&["check", GATE], key.as_bytes()).expect_status(0);
    assert!(text.contains("\n  warning: 2678400s has reached 50 %\n"), "{text}");
    assert_eq!(crossed(&[]), json!([]));

    let (other, _) = sandbox.issue(GATE, &["--account", "43"]);
    assert_eq!(sandbox.check(GATE, &other, &["--cost", "2"]).1["crossed"], warning);
}

#[test]
fn account_is_shown_limited_suspended_and_reset() {
    let sandbox = sandbox();
    let (key, _) = sandbox.issue(GATE, &["--account", "42"]);
    assert_eq!(sandbox.check(GATE, &key, &["--cost", "3"]).0, 0);
    let account = |options: &[&str]| {
        sandbox.run(&[&["account", GATE, "42", "--json"], options].concat()).json()
    };
    let shown = account(&[]);
    assert_eq!((&shown["plan"], &shown["suspended"]), (&json!("default"), &json!(false)));
    assert_eq!((&shown["own_limits"], left(&shown)), (&json!(false), named(&[("team", 1)])));
    let limited = account(&["--limits", "9/31d"]);
    assert_eq!((&limited["own_limits"], left(&limited)), (&json!(true), named(&[("team", 6)])));
    assert_eq!(left(&account(&["--reset"])), named(&[("team", 9)]));
    assert_eq!(account(&["--suspend"])["suspended"], true);
    let (status, report) = sandbox.check(GATE, &key, &["--peek"]);
    assert_eq!((status, &report["reason"]), (1, &json!("suspended")));
    let text = sandbox.run(&["account", GATE, "42"]).expect_status(0);
    assert!(text.starts_with("account 42: suspended, its own limits\n  2678400s: 9 of 9 left"));
    account(&["--resume"]);
    account(&["--plan", "default"]);
    let text = sandbox.run(&["account", GATE, "42"]).expect_status(0);
    assert!(text.starts_with("account 42: the limits of plan default\n"), "{text}");

    sandbox.run(&["account", GATE, "7"]).expect_failure(&["the gate has no account 7"]);
    sandbox
        .run(&["account", GATE, "42", "--limits", "9/hour"])
        .expect_failure(&["windows of the section team: 9/hour was given", "team: 4/31d"]);
    for (limits, extra) in [
        ("9/31d; group tokens: 5/31d", "the section \"group tokens\""),
        ("9/31d; team: 5/31d", "the section \"team\""),
        ("9/31d warn 80%", "the warning at 80%"),
        ("sliding 9/31d", "the algorithm \"sliding\""),
    ] {
        sandbox
            .run(&["account", GATE, "42", "--limits", limits])
            .expect_usage_error(&[extra, "is not possible here"]);
    }
    sandbox
        .run(&["account", GATE, "42", "--suspend", "--resume"])
        .expect_usage_error(&["cannot be used with"]);
    sandbox.issue(GATE, &["--account", "43"]);
    sandbox
        .run(&["issue", GATE, "--account", "44"])
        .expect_failure(&["the gate has room for 2 teams and has them all"]);
}

#[test]
fn scope_is_needed_and_forbidden_without() {
    let sandbox = sandbox();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42", "--scope", "read"]);
    assert_eq!(sandbox.check(GATE, &key, &["--need", "read"]).0, 0);
    let (status, report) = sandbox.check(GATE, &key, &["--need", "read", "--need", "write"]);
    assert_eq!((status, &report["outcome"]), (1, &json!("forbidden")));
    assert_eq!((&report["http_status"], &report["charged"]), (&json!(403), &json!(false)));
    assert_eq!(report["body"], "{\"error\": \"Forbidden\"}");
    assert_eq!(listed(&sandbox, &key_id)["scopes"], json!(["read"]));
    let (_, other) =
        sandbox.issue(GATE, &["--account", "42", "--scope", "write", "--scope", "read"]);
    let (_, without) = sandbox.issue(GATE, &["--account", "42"]);
    let list = sandbox.run(&["list", GATE]).expect_status(0);
    let line = |part: &str| list.lines().find(|line| line.contains(part)).unwrap();
    assert!(line("KEY ID").contains("  SCOPES  "), "{list}");
    for (key_id, scopes) in [(key_id, " read "), (other, " read,write "), (without, "  -  ")] {
        assert!(line(&key_id).contains(scopes), "{scopes}: {list}");
    }
    sandbox
        .run(&["issue", GATE, "--account", "42", "--scope", "admin"])
        .expect_failure(&["the gate has no scope \"admin\"; its scopes are: read, write"]);
}
