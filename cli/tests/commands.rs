//! The commands, end to end: what they print, how they end, and that no secret is shown twice.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(unreachable_pub, reason = "a module of the tests")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use keytally::Timestamp;
use serde_json::{Value, json};
use support::Bench;

const G: &str = "api.gate";

/// A bench with a gate of two plans. Their window is so long that its end doesn't fall into a test.
fn bench() -> Bench {
    let bench = Bench::new();
    let plans = ["--plan", "default=100/31d", "--plan", "pro=1000/31d"];
    bench.run(&[&["create", G, "--keys", "1000"], &plans[..]].concat()).with(0);
    bench
}

fn list(bench: &Bench) -> Value {
    bench.run(&["list", G, "--json"]).json()
}

fn listed(bench: &Bench, key_id: &str) -> Value {
    let list = list(bench);
    let mut keys = list["keys"].as_array().unwrap().iter();
    keys.find(|key| key["key_id"] == key_id).unwrap().clone()
}

fn outcome(answer: &(i32, Value)) -> (i32, &str, Option<&str>) {
    (answer.0, answer.1["outcome"].as_str().unwrap(), answer.1["reason"].as_str())
}

#[test]
fn create_makes_a_gate_as_it_was_asked_for() {
    let bench = Bench::new();
    let created = bench.run(&["create", G, "--json"]).json();
    assert_eq!(created["gate"], G);
    assert_eq!((&created["capacity"], &created["prefix"]), (&json!(100_000), &json!("kt")));
    assert_eq!(created["plans"], json!([{"name": "default", "policy": "100/minute, 1000/hour"}]));
    let file = fs::metadata(bench.path(G)).unwrap();
    assert_eq!(file.permissions().mode() & 0o7777, 0o600);
    assert_eq!(created["bytes"], file.len());

    let plans = ["--plan", "free=5/s,10/10s", "--plan", "pro = 50/10s, 20/second"];
    let text =
        bench.run(&[&["create", "b.gate", "--keys", "10", "--prefix", "acme"], &plans[..]].concat()).with(0);
    assert_eq!(text, "b.gate: made for 10 keys\nplans: free = 5/second, 10/10s; pro = 20/second, 50/10s\n");
    let (key, _) = bench.issue("b.gate", &["--account", "1", "--env", "test"]);
    assert!(key.starts_with("acme_test_"), "{key}");
}

#[test]
fn issue_shows_a_key_once() {
    let bench = bench();
    let issued = bench
        .run(&["issue", G, "--account", "42", "--env", "test", "--plan", "pro", "--expires", "90d", "--json"])
        .json();
    let key = bench.remember(issued["key"].as_str().unwrap());
    let names: Vec<&String> = issued.as_object().unwrap().keys().collect();
    assert_eq!(names, ["account", "env", "expires", "hint", "key", "key_id", "plan"]);
    let key_id = issued["key_id"].as_str().unwrap();
    assert_eq!((key_id.len(), &key[8..19]), (11, key_id));
    assert_eq!(issued["hint"], format!("kt_test_…{}", &key[key.len() - 4..]));
    assert_eq!(
        (&issued["account"], &issued["env"], &issued["plan"]),
        (&json!(42), &json!("test"), &json!("pro"))
    );
    assert_eq!(issued["expires"], listed(&bench, key_id)["expires"]);
    assert_eq!(issued["expires"].as_str().unwrap().len(), "2026-01-01T00:00:00Z".len());

    // As text the key is all that standard output holds: it can be kept in a variable.
    let ran = bench.run(&["issue", G, "--account", "7"]);
    let key = bench.remember(ran.out.trim_end());
    assert_eq!((ran.status, ran.out.as_str()), (0, format!("{key}\n").as_str()));
    assert!(
        ran.err.contains(&format!("key id {}, account 7, env live, plan default.", &key[8..19])),
        "{ran:?}"
    );
    assert!(!ran.err.contains(&key[19..]));

    // Nothing else ever shows it; `run` looks for it everywhere.
    for args in [
        &["list", G][..],
        &["list", G, "--json"],
        &["top", G, "--once"],
        &["top", G, "--json"],
        &["verify", G],
        &["reset", G, key_id],
        &["assign", G, key_id, "--plan", "default"],
        &["plan", G, "default=101/31d"],
        &["revoke", G, key_id],
    ] {
        bench.run(args).with(0);
    }
    assert_eq!(bench.check(G, &key, &[]).0, 0);
    let text = bench.run(&["check", G, "--key", &key]);
    assert!(text.with(0).starts_with("admitted: key "));
}

#[test]
fn a_new_key_has_the_first_plan_and_never_expires_unless_told() {
    let bench = bench();
    let (_, key_id) = bench.issue(G, &["--account", "4294967295"]);
    let key = listed(&bench, &key_id);
    assert_eq!(
        (&key["plan"], &key["env"], &key["expires"]),
        (&json!("default"), &json!("live"), &Value::Null)
    );
    assert_eq!(key["account"], u32::MAX);
    assert_eq!(
        key["quotas"],
        json!([{"window": "2678400s", "window_s": 2_678_400, "limit": 100, "used": 0, "remaining": 100, "reset": key["quotas"][0]["reset"]}])
    );
    assert_eq!(
        (&key["state"], &key["last_use"], &key["grace_until"]),
        (&json!("active"), &Value::Null, &Value::Null)
    );
}

#[test]
fn a_key_ends_when_it_expires() {
    let bench = bench();
    let (key, key_id) = bench.issue(G, &["--account", "1", "--expires", "1s"]);
    std::thread::sleep(core::time::Duration::from_millis(1100));
    assert_eq!(outcome(&bench.check(G, &key, &[])), (1, "invalid_key", Some("expired")));
    assert_eq!(listed(&bench, &key_id)["state"], "expired");
}

#[test]
fn check_charges_and_peek_does_not() {
    let bench = bench();
    let (key, key_id) = bench.issue(G, &["--account", "42"]);
    let (status, answer) = bench.check(G, &key, &["--cost", "60"]);
    assert_eq!((status, &answer["outcome"], &answer["charged"]), (0, &json!("admitted"), &json!(true)));
    assert_eq!((&answer["account"], &answer["key_id"]), (&json!(42), &json!(key_id)));
    assert_eq!((&answer["env"], &answer["plan"]), (&json!("live"), &json!("default")));
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("")));
    assert_eq!(answer["quotas"][0]["remaining"], 40);
    assert_eq!(answer["headers"]["X-RateLimit-Remaining"], "40");
    assert_eq!(answer["headers"]["RateLimit-Policy"], "\"2678400s\";q=100;w=2678400");

    let (status, answer) = bench.check(G, &key, &["--cost", "40", "--peek"]);
    assert_eq!((status, &answer["outcome"], &answer["charged"]), (0, &json!("admitted"), &json!(false)));
    let (status, answer) = bench.check(G, &key, &["--cost", "41"]);
    assert_eq!((status, &answer["outcome"], &answer["status"]), (1, &json!("denied"), &json!(429)));
    assert_eq!(answer["body"], "{\"error\": \"Rate limit exceeded. Please try again later.\"}");
    assert!(answer["retry_after"].as_u64().unwrap() >= 1);
    let (status, answer) = bench.check(G, &key, &["--cost", "101"]);
    assert_eq!((status, &answer["outcome"], &answer["retry_after"]), (1, &json!("too_costly"), &Value::Null));
    assert_eq!(bench.check(G, &key, &["--cost", "40"]).0, 0);
    assert_eq!(bench.check(G, &key, &["--cost", "0"]).0, 0);
    assert_eq!(bench.check(G, &key, &[]).0, 1);
    assert_eq!(listed(&bench, &key_id)["quotas"][0]["used"], 100);
    assert!(listed(&bench, &key_id)["last_use"].is_string());

    let text = bench.run_with_input(&["check", G, "--key", "-"], key.as_bytes()).with(1);
    assert!(
        text.starts_with(&format!("denied: key {key_id}, account 42, env live, plan default\n")),
        "{text}"
    );
    assert!(text.contains("  0 of 100 left in the 2678400s, reset "), "{text}");
    assert!(text.contains("  worth trying again in "), "{text}");
}

#[test]
fn check_says_why_a_key_is_invalid() {
    let bench = bench();
    let (key, _) = bench.issue(G, &["--account", "42"]);
    let mut mistyped = key.clone();
    mistyped.replace_range(30..31, if &key[30..31] == "a" { "b" } else { "a" });
    assert_eq!(outcome(&bench.check(G, &mistyped, &[])), (1, "invalid_key", Some("checksum")));
    assert_eq!(outcome(&bench.check(G, "nonsense", &[])), (1, "invalid_key", Some("malformed")));
    let ran = bench.run(&["check", G, "--key", "nonsense", "--json"]).json_with(1);
    assert_eq!((&ran["account"], &ran["quotas"]), (&Value::Null, &json!([])));
    assert_eq!(ran["body"], "{\"error\": \"Invalid API key\"}");

    // The key of another gate, with another pepper.
    let other = Bench::new();
    let pepper = "a0".repeat(32);
    other.finish(other.command(&["create", G]).env("KEYTALLY_PEPPER", &pepper), b"").with(0);
    let issued = other
        .finish(other.command(&["issue", G, "--account", "1", "--json"]).env("KEYTALLY_PEPPER", &pepper), b"")
        .json();
    let stranger = issued["key"].as_str().unwrap();
    assert_eq!(outcome(&bench.check(G, stranger, &[])), (1, "invalid_key", Some("unknown")));
}

#[test]
fn rotate_keeps_the_old_secret_for_its_grace_and_the_counts_for_ever() {
    let bench = bench();
    let (old, key_id) = bench.issue(G, &["--account", "42"]);
    assert_eq!(bench.check(G, &old, &["--cost", "10"]).0, 0);
    let new = bench.rotate(G, &key_id, "24h");
    assert_ne!(old, new);
    assert_eq!(old[..19], new[..19], "the key id stays");
    assert_eq!(bench.check(G, &old, &["--cost", "10"]).1["quotas"][0]["used"], 20);
    assert_eq!(bench.check(G, &new, &["--cost", "10"]).1["quotas"][0]["used"], 30);
    let listed = listed(&bench, &key_id);
    assert_eq!(listed["hint"], format!("kt_live_…{}", &new[new.len() - 4..]));
    assert!(listed["grace_until"].is_string());
    let text = bench.run(&["list", G]).with(0);
    assert!(text.contains(&format!("the secret that {key_id} had before is valid until 2")), "{text}");

    let newest = bench.run(&["rotate", G, &key_id, "--grace", "0s", "--force", "--json"]).json();
    let newest = bench.remember(newest["key"].as_str().unwrap());
    assert_eq!(outcome(&bench.check(G, &old, &[])), (1, "invalid_key", Some("wrong_secret")));
    assert_eq!(outcome(&bench.check(G, &new, &[])), (1, "invalid_key", Some("expired")));
    assert_eq!(bench.check(G, &newest, &[]).1["quotas"][0]["used"], 31);
}

#[test]
fn rotation_within_a_grace_needs_force() {
    let bench = bench();
    let (first, key_id) = bench.issue(G, &["--account", "42"]);
    let second = bench.rotate(G, &key_id, "1h");
    let until = listed(&bench, &key_id)["grace_until"].clone();
    for grace in ["1h", "0s"] {
        let refused = bench.run(&["rotate", G, &key_id, "--grace", grace]);
        refused.fails(&[&key_id, "is valid until", until.as_str().unwrap(), "--force"]);
    }
    for key in [&first, &second] {
        assert_eq!(bench.check(G, key, &[]).0, 0, "the refusal ended a secret");
    }
    let forced = bench.run(&["rotate", G, &key_id, "--grace", "1h", "--force"]).with(0);
    let third = bench.remember(forced.trim_end());
    assert_eq!(outcome(&bench.check(G, &first, &[])), (1, "invalid_key", Some("wrong_secret")));
    assert_eq!([&second, &third].map(|key| bench.check(G, key, &[]).0), [0, 0]);
    // A key without a running grace needs none.
    let (_, other_id) = bench.issue(G, &["--account", "43"]);
    bench.rotate(G, &other_id, "0s");
    bench.rotate(G, &other_id, "0s");
}

#[test]
fn ended_key_has_no_old_secret_in_a_grace() {
    let bench = bench();
    let (_, revoked) = bench.issue(G, &["--account", "1"]);
    let (_, expired) = bench.issue(G, &["--account", "2", "--expires", "3s"]);
    let (_, brief) = bench.issue(G, &["--account", "3", "--expires", "30m"]);
    for key_id in [&revoked, &expired, &brief] {
        bench.rotate(G, key_id, "1h");
        assert!(listed(&bench, key_id)["grace_until"].is_string());
    }
    // The old secret ends with its key.
    assert_eq!(listed(&bench, &brief)["grace_until"], listed(&bench, &brief)["expires"]);
    bench.run(&["revoke", G, &revoked]).with(0);
    std::thread::sleep(core::time::Duration::from_millis(3100));
    for key_id in [&revoked, &expired] {
        assert_eq!(listed(&bench, key_id)["grace_until"], Value::Null);
    }
    let text = bench.run(&["list", G]).with(0);
    assert_eq!(text.matches("had before is valid until").count(), 1, "{text}");
    // So nothing is lost by another rotation.
    bench.rotate(G, &expired, "1h");
}

/// Runs a command whose standard output is this file; gives its exit status and what it says.
fn run_into(bench: &Bench, args: &[&str], input: &str, out: impl Into<std::process::Stdio>) -> (i32, String) {
    use std::io::{Read as _, Write as _};
    let mut command = bench.command(args);
    command.env("KEYTALLY_PEPPER", &bench.pepper).stdout(out);
    command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (child.wait().unwrap().code().unwrap(), err)
}

fn full_disk() -> fs::File {
    fs::File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn key_that_cannot_be_printed_is_revoked_again() {
    let bench = bench();
    for json in [&[][..], &["--json"]] {
        let args = [&["issue", G, "--account", "1"], json].concat();
        for (out, why) in [
            (std::process::Stdio::from(full_disk()), "No space left on device"),
            (closed_pipe().into(), "the reader of the output has gone"),
            (std::process::Stdio::null(), "standard output is closed, or /dev/null"),
        ] {
            let (status, err) = run_into(&bench, &args, "", out);
            assert_eq!(status, 3, "{err}");
            assert!(err.contains("is revoked again") && err.contains(why), "{err}");
            let all = list(&bench);
            let keys = all["keys"].as_array().unwrap();
            assert!(keys.iter().all(|key| key["state"] == "revoked"), "{all}");
            assert!(keys.iter().any(|key| err.contains(key["key_id"].as_str().unwrap())), "{err}");
        }
    }
    assert_eq!(list(&bench)["used"], 6);
}

#[test]
fn secret_that_cannot_be_printed_replaces_none() {
    let bench = bench();
    let (key, key_id) = bench.issue(G, &["--account", "1"]);
    let before = listed(&bench, &key_id);
    for grace in ["0s", "1h"] {
        let args = ["rotate", G, &key_id, "--grace", grace];
        for out in [full_disk().into(), closed_pipe().into(), std::process::Stdio::null()] {
            let (status, err) = run_into(&bench, &args, "", out);
            assert_eq!(status, 3, "{err}");
            assert!(err.contains(&format!("key {key_id} is as it was")), "{err}");
            assert_eq!(listed(&bench, &key_id), before);
        }
    }
    assert_eq!(bench.check(G, &key, &[]).0, 0);
    // It can be tried again, without force.
    let new = bench.rotate(G, &key_id, "1h");
    assert_eq!([&key, &new].map(|key| bench.check(G, key, &[]).0), [0, 0]);
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let bench = bench();
    let (_, key_id) = bench.issue(G, &["--account", "1"]);
    for (args, input) in [
        (&["list", G][..], ""),
        (&["import", G, "--account", "1"], "customer-key-0001\n"),
        (&["revoke", G, &key_id], ""),
    ] {
        let (status, err) = run_into(&bench, args, input, full_disk());
        let sentence = "keytally: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!((status, err.as_str()), (3, sentence), "{args:?}");
    }
}

#[test]
fn revoke_ends_a_key() {
    let bench = bench();
    let (key, key_id) = bench.issue(G, &["--account", "42"]);
    let revoked = bench.run(&["revoke", G, &key_id, "--json"]).json();
    assert_eq!(revoked, json!({"key_id": key_id, "state": "revoked"}));
    assert_eq!(outcome(&bench.check(G, &key, &[])), (1, "invalid_key", Some("revoked")));
    assert_eq!(listed(&bench, &key_id)["state"], "revoked");
    assert_eq!(bench.run(&["revoke", G, &key_id]).with(0), format!("key {key_id} is revoked\n"));
    bench.run(&["rotate", G, &key_id, "--grace", "1h"]).fails(&[&key_id, "was revoked"]);
    bench.run(&["assign", G, &key_id, "--plan", "pro"]).fails(&[&key_id, "was revoked"]);
}

#[test]
fn plans_change_and_counts_stay() {
    let bench = bench();
    let (key, key_id) = bench.issue(G, &["--account", "42"]);
    assert_eq!(bench.check(G, &key, &["--cost", "100"]).0, 0);
    assert_eq!(bench.check(G, &key, &[]).0, 1);
    let assigned = bench.run(&["assign", G, &key_id, "--plan", "pro", "--json"]).json();
    assert_eq!(assigned, json!({"key_id": key_id, "plan": "pro"}));
    assert_eq!(bench.check(G, &key, &[]).1["quotas"][0]["remaining"], 899);
    let set = bench.run(&["plan", G, "pro=2000/31d", "--json"]).json();
    assert_eq!(set, json!({"name": "pro", "policy": "2000/31d", "before": "1000/31d"}));
    assert_eq!(bench.check(G, &key, &[]).1["quotas"][0]["remaining"], 1898);
    bench.run(&["plan", G, "pro=50/31d"]).with(0);
    assert_eq!(bench.check(G, &key, &[]).1["quotas"][0]["remaining"], 0);
    assert_eq!(bench.run(&["plan", G, "free=1/31d"]).with(0), "plan free is 1/31d (new)\n");

    bench.run(&["plan", G, "pro=2000/day"]).fails(&[G, "windows and algorithm"]);
    bench.run(&["plan", G, "pro=sliding 2000/31d"]).fails(&["windows and algorithm"]);
    bench.run(&["plan", G, "pro=2000/fortnight"]).misused(&["plan \"pro\"", "\"fortnight\" is no unit"]);
    bench.run(&["plan", G, "2000/31d"]).misused(&["\"2000/31d\" is no plan", "NAME=POLICY"]);
    bench.run(&["plan", G, "=2000/31d"]).misused(&["can't be a plan's name"]);
    bench.run(&["assign", G, &key_id, "--plan", "nix"]).fails(&["no plan of that name"]);
    bench.run(&["issue", G, "--account", "1", "--plan", "nix"]).fails(&["no plan of that name"]);
    let plans = &list(&bench)["plans"];
    assert_eq!(
        plans,
        &json!([{"name": "default", "policy": "100/31d"}, {"name": "pro", "policy": "50/31d"}, {"name": "free", "policy": "1/31d"}])
    );
}

#[test]
fn reset_forgets_what_was_used() {
    let bench = bench();
    let (key, key_id) = bench.issue(G, &["--account", "42"]);
    assert_eq!(bench.check(G, &key, &["--cost", "100"]).0, 0);
    let reset = bench.run(&["reset", G, &key_id, "--json"]).json();
    assert_eq!((&reset["key_id"], &reset["quotas"][0]["used"]), (&json!(key_id), &json!(0)));
    assert_eq!(bench.check(G, &key, &["--cost", "100"]).0, 0);
}

#[test]
fn import_takes_in_keys_of_any_form_and_names_lines_only() {
    let bench = bench();
    let first = bench.remember("sk_live_51H8abcdefghijklmnopqrstuv");
    let second = bench.remember("2b1ff0a5-7c1e-4c53-9d3e-0d5ad6b7c1f2");
    let spaced = bench.remember("a key with spaces in it");
    let (own, own_id) = bench.issue(G, &["--account", "1"]);
    let input = format!("{first}\r\nshort\n\n{spaced}\n{second}\n{own}\n{first}");
    let ran = bench
        .run_with_input(&["import", G, "--account", "9", "--env", "test", "--plan", "pro"], input.as_bytes());
    assert_eq!((ran.status, ran.out.as_str()), (1, "2 imported, 1 already there, 3 failed\n"), "{ran:?}");
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("line 2: a key to import has 16 to 256 bytes"), "{lines:?}");
    assert!(lines[1].starts_with("line 4: "), "{lines:?}");
    assert_eq!(lines[2], format!("line 6: this key is in the gate already, as {own_id}, for account 1"));

    let answer = bench.check(G, &first, &[]).1;
    assert_eq!(
        (&answer["account"], &answer["env"], &answer["plan"]),
        (&json!(9), &json!("test"), &json!("pro"))
    );
    assert_eq!(bench.check(G, &second, &[]).1["quotas"][0]["used"], 1);
    assert_eq!(outcome(&bench.check(G, &format!("{first}x"), &[])), (1, "invalid_key", Some("unknown")));

    let again =
        bench.run_with_input(&["import", G, "--account", "9", "--json"], input.as_bytes()).json_with(1);
    assert_eq!((&again["imported"], &again["already"]), (&json!(0), &json!(3)));
    let failed: Vec<u64> =
        again["failed"].as_array().unwrap().iter().map(|failed| failed["line"].as_u64().unwrap()).collect();
    assert_eq!(failed, [2, 4, 6]);

    let only = bench.run(&["list", G, "--account", "9", "--json"]).json();
    assert_eq!(only["keys"].as_array().unwrap().len(), 2);
    assert_eq!(only["used"], 3);
    bench.run_with_input(&["import", G, "--account", "9"], b"").with(0);
    bench
        .run_with_input(&["import", G, "--account", "9", "--plan", "nix"], b"x")
        .fails(&["no plan of that name"]);
}

#[test]
fn import_takes_in_more_than_one_batch() {
    let bench = Bench::new();
    bench.run(&["create", G, "--keys", "8000"]).with(0);
    let keys: String = (0..2501).map(|number| format!("foreign-key-of-customer-{number:08}\n")).collect();
    let tidings = bench.run_with_input(&["import", G, "--account", "9", "--json"], keys.as_bytes()).json();
    assert_eq!(tidings, json!({"imported": 2501, "already": 0, "failed": []}));
    assert_eq!(bench.check(G, "foreign-key-of-customer-00002500", &[]).0, 0);
}

#[test]
fn list_shows_the_gate_and_its_keys() {
    let bench = bench();
    let text = bench.run(&["list", G]).with(0);
    assert_eq!(
        text,
        "api.gate: 0 of 1000 keys (0.0 %), prefix kt, fixed windows\n\
         plans: default = 100/31d; pro = 1000/31d\n\
         no keys; `keytally issue api.gate --account NUMBER` makes one\n"
    );
    let (key, key_id) = bench.issue(G, &["--account", "42"]);
    bench.check(G, &key, &["--cost", "7"]);
    bench.issue(G, &["--account", "7", "--env", "test", "--plan", "pro", "--expires", "1h"]);
    let text = bench.run(&["list", G]).with(0);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "api.gate: 2 of 1000 keys (0.2 %), prefix kt, fixed windows");
    assert_eq!(lines[2], "peppers: number 0 holds 2 keys");
    let fields = |line: &str| {
        line.split("  ")
            .map(str::trim)
            .filter(|field| !field.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        fields(lines[4]),
        ["KEY", "KEY ID", "ACCOUNT", "ENV", "PLAN", "STATE", "2678400S", "LAST USE", "EXPIRES"]
    );
    let line = lines.iter().find(|line| line.contains(&key_id)).unwrap();
    let fields = fields(line);
    let hint = format!("kt_live_…{}", &key[key.len() - 4..]);
    assert_eq!(fields[..7], [hint.as_str(), &key_id, "42", "live", "default", "active", "7/100"]);
    assert_eq!(fields[8], "never");
    assert_eq!(list(&bench)["peppers"], json!([{"number": 0, "keys": 2}]));
}

#[test]
fn list_tells_which_pepper_keys_wait_on() {
    let bench = bench();
    let (old, old_id) = bench.issue(G, &["--account", "1"]);
    let both = format!("{},{}", bench.pepper, "77".repeat(32));
    let run = |args: &[&str]| bench.finish(bench.command(args).env("KEYTALLY_PEPPER", &both), b"");
    let issued = run(&["issue", G, "--account", "2", "--json"]).json();
    bench.remember(issued["key"].as_str().unwrap());
    let peppers = run(&["list", G, "--json"]).json()["peppers"].clone();
    assert_eq!(peppers, json!([{"number": 0, "keys": 1}, {"number": 1, "keys": 1}]));
    bench.remember(run(&["rotate", G, &old_id, "--grace", "0s"]).with(0).trim_end());
    assert_eq!(run(&["list", G, "--json"]).json()["peppers"], json!([{"number": 1, "keys": 2}]));
    drop(old);
}

#[test]
fn top_shows_the_most_used_first() {
    let bench = bench();
    let (idle, _) = bench.issue(G, &["--account", "1"]);
    let (busy, busy_id) = bench.issue(G, &["--account", "2"]);
    let (some, some_id) = bench.issue(G, &["--account", "3", "--plan", "pro"]);
    bench.check(G, &busy, &["--cost", "50"]);
    bench.check(G, &some, &["--cost", "100"]);
    let text = bench.run(&["top", G, "--once"]).with(0);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("api.gate  ▏·········  3 of 1000 keys (0.3 %)  2"), "{text}");
    assert_eq!(lines[1], "plans: default = 100/31d; pro = 1000/31d");
    let words: Vec<Vec<&str>> = lines[3..].iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["KEY", "KEY", "ID", "ACCOUNT", "PLAN", "STATE", "2678400S", "USED", "WITHIN"]);
    assert_eq!(words[1][1..7], [busy_id.as_str(), "2", "default", "active", "█████·····", "50/100"]);
    assert_eq!(words[2][1..7], [some_id.as_str(), "3", "pro", "active", "█·········", "100/1000"]);
    assert_eq!(words[3][5..], ["··········", "0/100", "-"]);
    assert_eq!(words.len(), 4);
    let top = bench.run(&["top", G, "--json", "--rows", "1"]).json();
    assert_eq!((&top["used"], &top["keys"][0]["key_id"]), (&json!(3), &json!(busy_id)));
    assert_eq!(top["keys"].as_array().unwrap().len(), 1);
    bench.run(&["top", G]).fails(&["needs a terminal", "--once"]);
    drop(idle);
}

#[test]
fn tallies_ahead_of_the_clock_are_shown_and_corrected() {
    let bench = bench();
    let (key, _) = bench.issue(G, &["--account", "1"]);
    let (_, other_id) = bench.issue(G, &["--account", "2"]);
    // A wrong clock charges three units two windows from now.
    let peppers = keytally::pepper::parse(&bench.pepper).unwrap();
    let gate = keytally::Gate::open(bench.path(G), peppers).unwrap();
    let wrong = Timestamp::from_unix_s(keytally::now().unix_s() + 62 * 86_400);
    assert!(gate.table().check(Some(key.as_bytes()), 3, wrong).is_admitted());

    let all = list(&bench);
    let ahead = all["clock_ahead_s"].as_u64().unwrap();
    assert_eq!((&all["keys_ahead"], ahead > 31 * 86_400), (&json!(1), true), "{all}");
    assert_eq!(listed(&bench, &other_id)["clock_ahead_s"], json!(0));
    let sentence = format!("clock: the tally of 1 key is up to {ahead} s ahead of this clock");
    for command in ["list", "top"] {
        let once: &[&str] = if command == "top" { &["--once"] } else { &[] };
        let text = bench.run(&[&[command, G], once].concat()).with(0);
        assert!(text.contains(&sentence[..40]), "{text}");
    }

    bench.check(G, &key, &[]);
    let corrected = list(&bench);
    assert_eq!((&corrected["keys_ahead"], &corrected["clock_ahead_s"]), (&json!(0), &json!(0)));
    let used = corrected["keys"].as_array().unwrap().iter().map(|key| key["quotas"][0]["used"].as_u64());
    assert_eq!(used.max(), Some(Some(4)), "counts are kept");
}

#[test]
fn verify_reads_the_whole_file() {
    let bench = bench();
    let (_, key_id) = bench.issue(G, &["--account", "1"]);
    assert_eq!(bench.run(&["verify", G]).with(0), format!("api.gate: no flaw in 1000 records\n{UNSEEN}"));
    let report = bench.run(&["verify", G, "--json"]).json();
    assert_eq!(
        (&report["gate"], &report["capacity"], &report["completed"]),
        (&json!(G), &json!(1000), &json!(false))
    );
    assert_eq!(report["flaws"], json!([]));

    // The plan number of the one record that is taken: there is no plan 9.
    let mut bytes = fs::read(bench.path(G)).unwrap();
    let id = number_of(&key_id).to_le_bytes();
    let plan_at = bytes.chunks(64).rposition(|line| line[..8] == id).unwrap() * 64 + 57;
    bytes[plan_at] = 9;
    fs::write(bench.path(G), &bytes).unwrap();
    let ran = bench.run(&["verify", G]);
    assert_eq!(ran.status, 3, "{ran:?}");
    assert_eq!(ran.err, "keytally: api.gate has 1 flaw\n");
    assert!(ran.out.contains(&key_id) && ran.out.contains("has plan number 9, and there is none"), "{ran:?}");
    let report = bench.run(&["verify", G, "--json"]).json_with(3);
    assert_eq!(report["flaws"][0]["key_id"], key_id);
    bytes[plan_at] = 0;
    fs::write(bench.path(G), &bytes).unwrap();
    bench.run(&["verify", G]).with(0);
}

#[test]
fn verify_completes_a_change_that_was_interrupted() {
    let bench = bench();
    let (key, key_id) = bench.issue(G, &["--account", "1"]);
    let mut bytes = fs::read(bench.path(G)).unwrap();
    bench.run(&["revoke", G, &key_id]).with(0);
    // The file as a process leaves it that is killed between two steps of the revocation: the header's lines 2 and 3
    // hold the intent and whose record it is for, the record is as it was.
    let after = fs::read(bench.path(G)).unwrap();
    bytes[128..256].copy_from_slice(&after[128..256]);
    let id = number_of(&key_id).to_le_bytes();
    let line = bytes.chunks(64).rposition(|line| line[..8] == id).unwrap();
    let record = u32::try_from(line - keytally::HEADER_LEN / 64).unwrap();
    bytes[192..196].copy_from_slice(&(record + 1).to_le_bytes());
    fs::write(bench.path(G), &bytes).unwrap();

    let report = bench.run(&["verify", G, "--json"]).json();
    assert_eq!((&report["completed"], &report["flaws"]), (&json!(true), &json!([])));
    assert_eq!(outcome(&bench.check(G, &key, &[])), (1, "invalid_key", Some("revoked")));
    assert_eq!(bench.run(&["verify", G, "--json"]).json()["completed"], false);

    fs::write(bench.path(G), &bytes).unwrap();
    let text = bench.run(&["verify", G]).with(0);
    let completed = "a change that was interrupted is now completed\n";
    assert_eq!(text, format!("{completed}api.gate: no flaw in 1000 records\n{UNSEEN}"));
}

/// What `verify` says of itself.
const UNSEEN: &str = "Not seen: other valid values in place of the right ones, since records have no checksum. These are the \
                      key id within its record, MACs, accounts, times, counts, the numbers of plans, environments and peppers.\n";

#[test]
fn verify_says_that_it_sees_no_changed_id_mac_or_account() {
    let bench = bench();
    let (_, key_id) = bench.issue(G, &["--account", "1"]);
    let good = fs::read(bench.path(G)).unwrap();
    let id = number_of(&key_id).to_le_bytes();
    let record = good.chunks(64).rposition(|line| line[..8] == id).unwrap() * 64;
    // The last byte of the id, the MAC's first byte, the account, the expiry.
    for at in [0, 16, 48, 52] {
        let mut changed = good.clone();
        changed[record + at] ^= 1;
        fs::write(bench.path(G), &changed).unwrap();
        let text = bench.run(&["verify", G]).with(0);
        assert!(text.ends_with(UNSEEN), "{at}: {text}");
        assert_eq!(bench.run(&["verify", G, "--json"]).json()["unseen"].as_array().unwrap().len(), 6);
    }
    let help = bench.run(&["verify", "--help"]).with(0).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["no checksum", "the key id within its record, a MAC, an account, a time, a count"] {
        assert!(help.contains(part), "{help}");
    }
}

/// A key id as a number.
fn number_of(key_id: &str) -> u64 {
    key_id.parse::<keytally::KeyId>().unwrap().number()
}

#[test]
fn the_pepper_comes_from_the_environment_or_a_file() {
    let bench = bench();
    let (key, _) = bench.issue(G, &["--account", "1"]);
    let args = ["check", G, "--key", "-"];
    let file = bench.path("pepper");
    fs::write(&file, format!("{}\n", bench.pepper)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let named = [&args[..], &["--pepper-file", "pepper"]].concat();
    bench.finish(&mut bench.command(&named), key.as_bytes()).with(0);
    bench.finish(bench.command(&args).env("KEYTALLY_PEPPER_FILE", "pepper"), key.as_bytes()).with(0);
    // The file is the nearer of the two.
    let other = "99".repeat(32);
    bench.finish(bench.command(&named).env("KEYTALLY_PEPPER", &other), key.as_bytes()).with(0);
    bench
        .finish(bench.command(&args).env("KEYTALLY_PEPPER", &other), key.as_bytes())
        .fails(&[G, "the pepper that was given does not belong to this gate"]);

    let none = ["KEYTALLY_PEPPER", "--pepper-file", "openssl rand -hex 32"];
    bench.finish(&mut bench.command(&args), b"").fails(&none);
    bench.finish(bench.command(&args).env("KEYTALLY_PEPPER", ""), b"").fails(&none);
    bench.finish(bench.command(&args).env("KEYTALLY_PEPPER", "ab".repeat(31)), b"").fails(&[
        "KEYTALLY_PEPPER",
        "has 31 bytes",
        "at least 32",
    ]);
    bench
        .finish(bench.command(&args).env("KEYTALLY_PEPPER", "no/hex!"), b"")
        .fails(&["neither hex nor base64"]);
    bench.finish(bench.command(&args).env("KEYTALLY_PEPPER_FILE", "nix"), b"").fails(&["cannot open nix"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o660)).unwrap();
    bench.finish(&mut bench.command(&named), b"").fails(&["pepper", "0660", "fix it with: chmod "]);
}

#[test]
fn pepper_comes_from_standard_input() {
    let bench = bench();
    let (key, _) = bench.issue(G, &["--account", "1"]);
    let from_input = |args: &[&str], input: &str| {
        bench.finish(&mut bench.command(&[args, &["--pepper-file", "-"]].concat()), input.as_bytes())
    };
    let pepper = format!("{}\n", bench.pepper);
    let used = |text: &str| text.contains("1 of 1000 keys");
    assert!(used(&from_input(&["list", G], &pepper).with(0)));
    from_input(&["check", G, "--key", &key], &pepper).with(0);
    from_input(&["list", G], "").fails(&["-: no pepper is given"]);
    // A pipe that a shell makes. A named one would do only as long as its writer has it open.
    let mut shell = std::process::Command::new("bash");
    let program = env!("CARGO_BIN_EXE_keytally");
    let script = format!("{program} list {G} --pepper-file <(printenv PEPPER)");
    shell.current_dir(bench.path(".")).env("PEPPER", &bench.pepper).args(["-c", &script]);
    assert!(used(&bench.finish(&mut shell, b"").with(0)));

    // One standard input doesn't hold both.
    for args in [&["check", G][..], &["check", G, "--key", "-"], &["import", G, "--account", "1"]] {
        from_input(args, &pepper).misused(&["standard input can't hold both the pepper and the key"]);
    }
}

#[test]
fn check_reads_the_key_from_standard_input() {
    let bench = bench();
    let (key, _) = bench.issue(G, &["--account", "1"]);
    bench.run_with_input(&["check", G], format!("{key}\n").as_bytes()).with(0);
    bench.run_with_input(&["check", G], b"").fails(&["no key on standard input"]);
}

#[test]
fn key_may_begin_with_a_dash() {
    let bench = bench();
    for key in ["-old-key-of-customer-42", "--json-is-no-option-here"] {
        let key = bench.remember(key);
        bench.run_with_input(&["import", G, "--account", "1"], key.as_bytes()).with(0);
        bench.run(&["check", G, "--key", &key]).with(0);
        bench.run(&["check", G, &format!("--key={key}")]).with(0);
        bench.run_with_input(&["check", G], key.as_bytes()).with(0);
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_sentence() {
    let bench = bench();
    let before = fs::read(bench.path(G)).unwrap();
    bench.run(&["create", G]).fails(&[G, "already"]);
    bench
        .run(&["create", "x.gate", "--plan", "default=100/fortnight"])
        .misused(&["'--plan <PLAN>'", "\"fortnight\" is no unit"]);
    bench.run(&["create", "x.gate", "--plan", "default=0/s"]).misused(&["plan \"default\""]);
    bench
        .run(&["create", "x.gate", "--plan", "a=1/s", "--plan", "a=2/s"])
        .misused(&["plan \"a\" is given twice"]);
    bench.run(&["create", "x.gate", "--plan", "a=1/s", "--plan", "b=2/h"]).misused(&["share their windows"]);
    bench.run(&["create", "x.gate", "--keys", "0"]).misused(&["'--keys <NUMBER>'", "1..=67108864"]);
    bench.run(&["create", "x.gate", "--keys", "67108865"]).misused(&["67108865", "67108864"]);
    bench.run(&["create", "nix/x.gate"]).fails(&["nix/x.gate", "No such file or directory"]);
    bench.run(&["create", "api.gate/x.gate"]).fails(&["api.gate/x.gate", "Not a directory"]);
    // A folder that not even root can write.
    bench.run(&["create", "/proc/x.gate"]).fails(&["/proc/x.gate"]);
    bench.finish(&mut bench.command(&["create", "x.gate"]), b"").fails(&["no pepper was given"]);

    bench.run(&["list", "nix.gate"]).fails(&["cannot open nix.gate", "No such file"]);
    bench.run(&["list", "."]).fails(&["a directory"]);
    let id = "0000000000A";
    for args in [
        &["revoke", G, id][..],
        &["reset", G, id],
        &["assign", G, id, "--plan", "pro"],
        &["rotate", G, id, "--grace", "1h"],
    ] {
        bench.run(args).fails(&["the gate has no key 0000000000A", "`list`"]);
    }
    bench.run(&["issue", G, "--account", "1", "--expires", "1000years"]).misused(&["2106-02-07"]);
    bench.run_with_input(&["check", G, "--key", "-"], b"\n").fails(&["no key on standard input"]);
    assert!(before == fs::read(bench.path(G)).unwrap(), "a refusal changed the gate");
    assert_eq!(bench.names(), [G]);
}

#[test]
fn a_gate_that_is_another_or_damaged_is_refused_with_both_sides_named() {
    let bench = bench();
    let bytes = fs::read(bench.path(G)).unwrap();
    let mut other = bytes.clone();
    other[8] = 99;
    for (name, bytes, parts) in [
        ("version.gate", other, &["version 99", "version 1"][..]),
        ("short.gate", bytes[..bytes.len() - 64].to_vec(), &["bytes"]),
        ("long.gate", [&bytes[..], &[0; 64]].concat(), &["bytes"]),
        ("text.gate", b"not a gate at all, but some text. ".repeat(1000), &["no keytally table"]),
        ("empty.gate", Vec::new(), &["no keytally table", "0 bytes"]),
    ] {
        fs::write(bench.path(name), &bytes).unwrap();
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        for command in ["list", "verify", "top"] {
            bench.run(&[command, name]).fails(&[&[name], parts].concat());
        }
        assert!(fs::read(bench.path(name)).unwrap() == bytes, "{name} was changed");
    }
    fs::set_permissions(bench.path(G), fs::Permissions::from_mode(0o604)).unwrap();
    bench.run(&["list", G]).fails(&["0604", "chmod 600"]);
}

/// Files that hold secrets, given where a gate or a pepper file belongs.
const CONTENTS: [&[u8]; 6] = [
    b"5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f\n",
    b"SECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecret\n",
    b"keytally-pepper=SECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecret\n",
    b"keytallySECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecret\n",
    b"keytally\x01\0\0\0SECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecret\n",
    b"\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef",
];

#[test]
fn error_says_nothing_of_what_a_file_holds() {
    let bench = bench();
    for mode in [0o600, 0o644] {
        for content in CONTENTS {
            fs::write(bench.path("file"), content).unwrap();
            fs::set_permissions(bench.path("file"), fs::Permissions::from_mode(mode)).unwrap();
            for command in ["list", "verify", "top"] {
                let ran = bench.run(&[command, "file"]);
                let sentence = "keytally: file: this is no keytally table: it does not begin as one does\n";
                assert_eq!((ran.status, ran.err.as_str()), (3, sentence), "{command} {content:?}");
            }
        }
    }
    // The gate and the pepper in one, as in a command with the two exchanged.
    fs::write(bench.path("file"), format!("{}\n", bench.pepper)).unwrap();
    fs::set_permissions(bench.path("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let ran = bench.finish(&mut bench.command(&["list", "file", "--pepper-file", "file"]), b"");
    assert_eq!(ran.err, "keytally: file: this is no keytally table: it does not begin as one does\n");
}

#[test]
fn another_program_s_file_is_never_advised_to_change() {
    let bench = bench();
    let passwd = "root:x:0:0:root:/root:/bin/sh\n".repeat(9);
    for content in [passwd.as_str(), "root:x:0:0\n", ""] {
        for mode in [0o644, 0o666, 0o600] {
            fs::write(bench.path("passwd"), content).unwrap();
            fs::set_permissions(bench.path("passwd"), fs::Permissions::from_mode(mode)).unwrap();
            let as_gate = bench.run(&["list", "passwd"]);
            let as_pepper = bench.finish(&mut bench.command(&["list", G, "--pepper-file", "passwd"]), b"");
            assert!(as_gate.err.contains("this is no keytally table"), "{as_gate:?}");
            assert!(as_pepper.err.contains("pepper"), "{as_pepper:?}");
            for ran in [as_gate, as_pepper] {
                assert!(
                    ran.status == 3 && !ran.err.contains("fix it") && !ran.err.contains("chmod"),
                    "{ran:?}"
                );
            }
        }
    }
}

#[test]
fn quota_that_never_denies_is_a_warning() {
    let bench = Bench::new();
    let warning = "keytally: warning: 100/minute in plan default can never deny a request, since 50/hour allows no more already\n";
    let ran = bench.run(&["create", G, "--keys", "10", "--plan", "default=100/minute, 50/hour"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, warning));
    let ran = bench.run(&["plan", G, "default=10/minute, 600/hour", "--json"]);
    let warning = "keytally: warning: 600/hour in plan default can never deny a request, since 10/minute allows no more already\n";
    assert_eq!((ran.status, ran.err.as_str()), (0, warning));
    for policy in ["default=10/minute, 599/hour", "default=10/minute, 11/hour"] {
        assert_eq!(bench.run(&["plan", G, policy]).err, "", "{policy}");
    }
}

#[test]
fn policy_is_read_as_people_write_it() {
    let bench = Bench::new();
    let plans = ["--plan", "a=100 per minute, 1000 per hour", "--plan", "b=100/min, 3000/hour"];
    let created = bench.run(&[&["create", G, "--json"], &plans[..]].concat()).json();
    assert_eq!(
        created["plans"],
        json!([{"name": "a", "policy": "100/minute, 1000/hour"}, {"name": "b", "policy": "100/minute, 3000/hour"}])
    );
    let created = bench.run(&["create", "b.gate", "--plan", "c=10/sec", "--json"]).json();
    assert_eq!(created["plans"], json!([{"name": "c", "policy": "10/second"}]));
}

#[test]
fn help_of_create_tells_the_size_of_the_file() {
    let bench = Bench::new();
    let size = |keys: &str| {
        bench.run(&["create", &format!("{keys}.gate"), "--keys", keys, "--json"]).json()["bytes"]
            .as_u64()
            .unwrap()
    };
    let [small, large] = ["1600", "3200"].map(size);
    let (each, header) = ((large - small) / 1600, small - (large - small));
    let help = bench.run(&["create", "--help"]).with(0);
    assert!(help.contains(&format!("takes {each} bytes a key and {header} bytes for its header")), "{help}");
}

#[test]
fn one_is_singular() {
    let bench = Bench::new();
    let made = bench.run(&["create", G, "--keys", "1"]).with(0);
    assert!(made.starts_with("api.gate: made for 1 key\n"), "{made}");
    bench.issue(G, &["--account", "1"]);
    let text = bench.run(&["list", G]).with(0);
    assert!(text.starts_with("api.gate: 1 of 1 key (100.0 %)"), "{text}");
    assert!(bench.run(&["verify", G]).with(0).starts_with("api.gate: no flaw in 1 record\n"));
    fs::write(bench.path("x.gate"), "x").unwrap();
    bench.run(&["list", "x.gate"]).fails(&["it has 1 byte, "]);
}

#[test]
fn a_full_gate_says_so() {
    let bench = Bench::new();
    bench.run(&["create", G, "--keys", "2"]).with(0);
    bench.issue(G, &["--account", "1"]);
    bench.issue(G, &["--account", "1"]);
    bench.run(&["issue", G, "--account", "1"]).fails(&["the gate is full", "all 2 records"]);
}

#[test]
fn usage_is_told_and_ends_with_2() {
    let bench = bench();
    for args in [
        &[][..],
        &["nix"],
        &["list"],
        &["issue", G],
        &["issue", G, "--account", "-1"],
        &["issue", G, "--account", "4294967296"],
        &["issue", G, "--account", "1", "--env", "Live"],
        &["issue", G, "--account", "1", "--env", "ninechars"],
        &["issue", G, "--account", "1", "--expires", "soon"],
        &["issue", G, "--account", "1", "--expires", "0s"],
        &["create", "x.gate", "--prefix", "k_t"],
        &["rotate", G, "0000000000A"],
        &["rotate", G, "tooshort", "--grace", "1h"],
        &["check"],
        &["check", G, "--key", "x", "--cost", "many"],
        &["assign", G, "0000000000A"],
        &["assign", G, "0000000000A", "--plan", "a-name-of-17-char"],
        &["issue", G, "--account", "1", "--plan", "BAD NAME"],
        &["rotate", G, "0000000000A", "--grace", "300y"],
        &["revoke", G, "0000000000A", "--wait", "soon"],
        &["plan", G, "default=1/fortnight"],
        &["import", G, "--account", "1", "--expires", "1000years"],
        &["list", G, "--account", "all"],
        &["top", G, "--rows", "-1"],
        &["serve", "--socket-mode", "999"],
        &["serve", "--trusted-proxy", "nonsense"],
        &["serve", "--connections", "0"],
        &["serve", "--connections-per-address", "x"],
        &["serve", "--client-timeout", "2h"],
    ] {
        let ran = bench.run(args);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "{args:?} {ran:?}");
        assert!(ran.err.contains("Usage:") || ran.err.contains("--help"), "{args:?} {ran:?}");
    }
    assert_eq!(bench.names(), [G]);
}

/// Calls `work` while this process administers the bench's gate.
fn while_administering(bench: &Bench, work: impl FnOnce()) {
    let peppers = keytally::pepper::parse(&bench.pepper).unwrap();
    let gate = keytally::Gate::open(bench.path(G), peppers).unwrap();
    gate.administer(|_| {
        work();
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_command_that_waits_in_vain_names_the_holder() {
    let bench = bench();
    let (_, id) = bench.issue(G, &["--account", "1"]);
    let id = id.as_str();
    let holder = format!("api.gate: process {} (commands", std::process::id());
    while_administering(&bench, || {
        for args in [
            &["issue", G, "--account", "1"][..],
            &["rotate", G, id, "--grace", "1h"],
            &["revoke", G, id],
            &["assign", G, id, "--plan", "pro"],
            &["plan", G, "pro=7/31d"],
            &["verify", G],
        ] {
            let ran = bench.run(&[args, &["--wait", "20ms"]].concat());
            ran.fails(&[
                &holder,
                "for longer than the wait of 20ms; try again, wait longer, or end that process",
            ]);
        }
        let args = ["import", G, "--account", "1", "--wait", "0s"];
        bench.run_with_input(&args, b"customer-key-0001\n").fails(&[&holder]);
        // Checks and lists do not wait.
        assert_eq!(listed(&bench, id)["state"], "active");
    });
    assert_eq!(bench.run(&["revoke", G, id, "--wait", "soon"]).status, 2);
    bench.run(&["revoke", G, id, "--wait", "0s"]).with(0);
}

#[test]
fn ctrl_c_ends_a_wait() {
    use std::os::unix::process::ExitStatusExt as _;
    let bench = bench();
    let (_, id) = bench.issue(G, &["--account", "1"]);
    while_administering(&bench, || {
        // As in a terminal, even if the tests are run in the background.
        let mut command = std::process::Command::new("env");
        command.args([
            "--default-signal=INT",
            env!("CARGO_BIN_EXE_keytally"),
            "revoke",
            G,
            &id,
            "--wait",
            "60s",
        ]);
        command
            .current_dir(bench.path("."))
            .env("KEYTALLY_PEPPER", &bench.pepper)
            .env_remove("KEYTALLY_PEPPER_FILE");
        let mut waiting = command.spawn().unwrap();
        std::thread::sleep(core::time::Duration::from_millis(200));
        assert!(waiting.try_wait().unwrap().is_none());
        let pid = rustix::process::Pid::from_child(&waiting);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(waiting.wait().unwrap().signal(), Some(2));
    });
    assert_eq!(listed(&bench, &id)["state"], "active");
}

#[test]
fn verify_takes_over_only_when_it_is_told() {
    use std::os::unix::fs::FileExt as _;
    // Where the gate names who administers it, see host/src/lock.rs.
    const HOLDER: u64 = 64 + 7 * 8;
    let bench = bench();
    let file = fs::OpenOptions::new().write(true).open(bench.path(G)).unwrap();
    file.write_all_at(&u64::MAX.to_le_bytes(), HOLDER).unwrap();
    let refused = bench.run(&["verify", G, "--wait", "20ms"]);
    refused.fails(&["a process of another container", "use: keytally verify --take-over"]);
    bench.run(&["verify", G, "--take-over"]).with(0);
    bench.run(&["verify", G, "--wait", "0s"]).with(0);
}

#[test]
fn every_command_explains_itself() {
    let bench = Bench::new();
    let help = bench.run(&["--help"]).with(0);
    let commands = [
        "create", "issue", "import", "list", "rotate", "revoke", "assign", "plan", "reset", "check", "top",
        "verify",
    ];
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in {help}");
        let help = bench.run(&[command, "--help"]).with(0);
        assert!(help.contains("Usage: keytally ") && help.contains("--pepper-file"), "{help}");
        assert!(help.contains("--json"), "{help}");
        let changes = ["issue", "import", "rotate", "revoke", "assign", "plan", "verify"].contains(&command);
        assert_eq!(help.contains("--wait"), changes, "{help}");
    }
    assert!(bench.run(&["--version"]).with(0).starts_with("keytally 0."));
}

#[test]
fn serve_names_the_package_that_has_it() {
    let bench = Bench::new();
    for args in [&["serve"][..], &["serve", "--listen", "127.0.0.1:0"], &["serve", "--help"]] {
        bench.run(args).misused(&["no command serve", "cargo install keytally-server"]);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bench = bench();
    let mut child = bench
        .command(&["list", G])
        .env("KEYTALLY_PEPPER", &bench.pepper)
        .stdout(closed_pipe())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(err, "");
}

/// The writing end of a pipe that nobody reads.
fn closed_pipe() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}
