//! The command `usage`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use std::fs;

use serde_json::{Value, json};
use support::{GATE, Sandbox, listed, sandbox_with_gate};

/// Returns the counts of a key.
fn counts(sandbox: &Sandbox, key_id: &str) -> Value {
    let shown = sandbox.run(&["usage", "show", GATE, "--json"]).json();
    let mut keys = shown["keys"].as_array().unwrap().iter();
    keys.find(|key| key["key_id"] == key_id).unwrap().clone()
}

#[test]
fn uses_are_counted_between_on_and_off() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    let (_, other_id) = sandbox.issue(GATE, &["--account", "43"]);
    assert_eq!(sandbox.check(GATE, &key, &[]).0, 0);
    sandbox.run(&["usage", "show", GATE]).expect_failure(&[
        "api.gate: uses are not counted",
        "begin with: keytally usage on api.gate",
    ]);

    let text = sandbox.run(&["usage", "on", GATE]).expect_status(0);
    assert_eq!(text, "api.gate: uses of keys are counted\n");
    assert_eq!(sandbox.names(), [GATE, "api.gate.usage"]);
    assert_eq!(sandbox.check(GATE, &key, &["--cost", "5"]).0, 0);
    assert_eq!(sandbox.check(GATE, &key, &["--peek"]).0, 0);
    assert_eq!(sandbox.check(GATE, &key, &["--cost", "1000"]).0, 1);
    let new = sandbox.rotate(GATE, &key_id, "1h");
    assert_eq!(sandbox.check(GATE, &key, &[]).0, 0);
    sandbox.run(&["end-grace", GATE, &key_id]).expect_status(0);
    assert_eq!(sandbox.check(GATE, &key, &[]).0, 1);
    sandbox.run(&["revoke", GATE, &key_id]).expect_status(0);
    assert_eq!(sandbox.check(GATE, &new, &[]).0, 1);

    let shown = counts(&sandbox, &key_id);
    let last_used = shown["last_used"].as_str().unwrap();
    assert!(last_used.ends_with('Z') && last_used.starts_with("20"), "{last_used}");
    let about = listed(&sandbox, &key_id);
    let expected = json!({
        "key_id": key_id, "account": 42, "env": about["env"], "plan": "default",
        "hint": about["hint"], "expires": null,
        "admitted": 2, "with_previous_secret": 1, "units": 6,
        "denied_by_key": 1, "denied_by_team": 0, "denied_by_group": 0,
        "forbidden": 0, "revoked": 1, "expired": 1, "suspended": 0, "last_used": last_used,
    });
    assert_eq!(shown, expected);
    assert_eq!(counts(&sandbox, &other_id)["last_used"], Value::Null);

    let table = sandbox.run(&["usage", "show", GATE, "--account", "42"]).expect_status(0);
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{table}");
    let row = [&key_id, "42", "2", "1", "6", "1", "0", "0", "0", "1", "1", "0", last_used];
    assert_eq!(lines[1], row, "{table}");
    let none = sandbox.run(&["usage", "show", GATE, "--account", "9"]).expect_status(0);
    assert_eq!(none, "no keys\n");

    let off = sandbox.run(&["usage", "off", GATE, "--json"]).json();
    assert_eq!(off, json!({"gate": GATE, "counted": false}));
    sandbox.run(&["usage", "show", GATE]).expect_failure(&["uses are not counted"]);
    let on = sandbox.run(&["usage", "on", GATE, "--json"]).json();
    assert_eq!(on, json!({"gate": GATE, "counted": true}));
    assert_eq!(counts(&sandbox, &key_id), expected);
}

#[test]
fn uses_continue_after_an_older_gate_is_restored() {
    let sandbox = Sandbox::new();
    sandbox.run(&["create", GATE, "--keys", "1", "--plan", "default=1000/second"]).expect_status(0);
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    let back_up = |name: &str| sandbox.run(&["copy", GATE, name]).expect_status(0);
    let restore = |name: &str| sandbox.run(&["copy", name, GATE, "--replace"]).expect_status(0);
    let usage = |args: &[&str]| sandbox.run(&[&["usage"], args, &[GATE]].concat());
    let check = |key: &str| assert_eq!(sandbox.check(GATE, key, &["--cost", "5"]).0, 0);
    let counted = |key_id: &str| {
        let counts = counts(&sandbox, key_id);
        (counts["admitted"].as_u64().unwrap(), counts["units"].as_u64().unwrap())
    };
    // A copy with the same counts: nothing is lost, and nothing is counted twice.
    back_up("uncounted.gate");
    usage(&["on"]).expect_status(0);
    check(&key);
    back_up("same.gate");
    check(&key);
    restore("same.gate");
    assert_eq!(counted(&key_id), (2, 10));
    check(&key);
    usage(&["on"]).expect_status(0);
    assert_eq!(counted(&key_id), (3, 15));
    // A copy from before the counts.
    back_up("counted.gate");
    restore("uncounted.gate");
    usage(&["show"]).expect_failure(&["uses are not counted", "keytally usage on api.gate"]);
    usage(&["on"]).expect_status(0);
    check(&key);
    assert_eq!(counted(&key_id), (4, 20));
    // A copy whose counts were in another file.
    fs::remove_file(sandbox.path("api.gate.usage")).unwrap();
    usage(&["on"]).expect_status(0);
    check(&key);
    restore("counted.gate");
    usage(&["show"]).expect_failure(&["cannot be opened or is not that of this gate"]);
    usage(&["on"]).expect_status(0);
    check(&key);
    assert_eq!(counted(&key_id), (2, 10));
    // A copy with a key whose record another key has had since.
    back_up("former.gate");
    sandbox.run(&["revoke", GATE, &key_id]).expect_status(0);
    let other = (0..600).find_map(|_| {
        let run = sandbox.run(&["issue", GATE, "--account", "7", "--json"]);
        std::thread::sleep(core::time::Duration::from_millis(20));
        (run.status == 0).then(|| sandbox.watch_secret(run.json()["key"].as_str().unwrap()))
    });
    check(&other.expect("the record is free after 2 s"));
    restore("former.gate");
    usage(&["on"]).expect_status(0);
    check(&key);
    assert_eq!(counted(&key_id), (1, 5), "the counts of the former key ended with its record");
}

#[test]
fn file_of_counts_that_is_wrong_is_named() {
    let sandbox = sandbox_with_gate();
    sandbox.run(&["usage", "on", GATE]).expect_status(0);
    fs::remove_file(sandbox.path("api.gate.usage")).unwrap();
    sandbox.run(&["usage", "show", GATE]).expect_failure(&[
        "the file of the counts, api.gate.usage, cannot be opened",
        "create it again with: keytally usage on api.gate",
    ]);
    sandbox.run(&["usage", "on", GATE]).expect_status(0);
    let shown = sandbox.run(&["usage", "show", GATE, "--json"]).json();
    assert_eq!(shown, json!({"gate": GATE, "keys": []}));

    fs::write(sandbox.path("api.gate.usage"), vec![b'x'; 64 * 1001]).unwrap();
    let refused = sandbox.run(&["usage", "on", GATE]);
    refused.expect_failure(&["api.gate.usage: this is not a keytally table"]);
    sandbox.run(&["usage", "on", "other.gate"]).expect_failure(&["other.gate"]);
    for wrong in [&["usage"][..], &["usage", GATE], &["usage", "on"]] {
        let run = sandbox.run(wrong);
        assert_eq!((run.status, run.out.as_str()), (2, ""), "{run:?}");
    }
}
