//! Whole gates: `import`, `list`, `top`, `verify`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use core::time::Duration;
use std::fs;
use std::thread;

use keytally::Timestamp;
use serde_json::json;
use support::{GATE, Sandbox, list, listed, outcome, sandbox_with_gate};

#[test]
fn import_accepts_keys_of_any_form_and_names_lines_only() {
    let sandbox = sandbox_with_gate();
    let first = sandbox.watch_secret("sk_live_51H8abcdefghijklmnopqrstuv");
    let second = sandbox.watch_secret("2b1ff0a5-7c1e-4c53-9d3e-0d5ad6b7c1f2");
    let spaced = sandbox.watch_secret("a key with spaces in it");
    let (own, own_id) = sandbox.issue(GATE, &["--account", "1"]);
    let input = format!("{first}\r\nshort\n\n{spaced}\n{second}\n{own}\n{first}");
    let run = sandbox.run_with_input(
        &["import", GATE, "--account", "9", "--env", "test", "--plan", "pro"],
        input.as_bytes(),
    );
    assert_eq!(
        (run.status, run.out.as_str()),
        (1, "2 imported, 1 already in the gate, 3 failed\n"),
        "{run:?}"
    );
    let lines: Vec<&str> = run.err.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("line 2: a key to import has 16 to 256 bytes"), "{lines:?}");
    assert!(lines[1].starts_with("line 4: "), "{lines:?}");
    assert_eq!(
        lines[2],
        format!("line 6: this key is already in the gate, as {own_id} of account 1")
    );

    let check = sandbox.check(GATE, &first, &[]).1;
    assert_eq!(
        (&check["account"], &check["env"], &check["plan"]),
        (&json!(9), &json!("test"), &json!("pro"))
    );
    assert_eq!(sandbox.check(GATE, &second, &[]).1["quotas"][0]["used"], 1);
    assert_eq!(
        outcome(&sandbox.check(GATE, &format!("{first}x"), &[])),
        (1, "invalid_key", Some("unknown"))
    );

    let again = sandbox
        .run_with_input(&["import", GATE, "--account", "9", "--json"], input.as_bytes())
        .json_with_status(1);
    assert_eq!((&again["imported"], &again["already"]), (&json!(0), &json!(3)));
    let failed: Vec<u64> = again["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failed| failed["line"].as_u64().unwrap())
        .collect();
    assert_eq!(failed, [2, 4, 6]);

    let only = sandbox.run(&["list", GATE, "--account", "9", "--json"]).json();
    assert_eq!(only["keys"].as_array().unwrap().len(), 2);
    assert_eq!(only["used"], 3);
    sandbox.run_with_input(&["import", GATE, "--account", "9"], b"").expect_status(0);
    sandbox
        .run_with_input(&["import", GATE, "--account", "9", "--plan", "missing"], b"x")
        .expect_failure(&["no plan \"missing\"", "its plans are: "]);
}

#[test]
fn import_accepts_more_keys_than_a_batch() {
    let sandbox = Sandbox::new();
    sandbox.run(&["create", GATE, "--keys", "8000"]).expect_status(0);
    let keys: String =
        (0..2501).map(|number| format!("foreign-key-of-customer-{number:08}\n")).collect();
    let report = sandbox
        .run_with_input(&["import", GATE, "--account", "9", "--json"], keys.as_bytes())
        .json();
    assert_eq!(report, json!({"imported": 2501, "already": 0, "failed": []}));
    assert_eq!(sandbox.check(GATE, "foreign-key-of-customer-00002500", &[]).0, 0);
}

#[test]
fn list_shows_the_gate_and_its_keys() {
    let sandbox = sandbox_with_gate();
    let text = sandbox.run(&["list", GATE]).expect_status(0);
    assert_eq!(
        text,
        "api.gate: 0 of 1000 keys (0.0 %), prefix kt, fixed windows\n\
         plans: default = 100/31d; pro = 1000/31d\n\
         no keys; issue one with: keytally issue api.gate --account NUMBER\n"
    );
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    sandbox.check(GATE, &key, &["--cost", "7"]);
    sandbox.issue(GATE, &["--account", "7", "--env", "test", "--plan", "pro", "--expires", "1h"]);
    let text = sandbox.run(&["list", GATE]).expect_status(0);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "api.gate: 2 of 1000 keys (0.2 %), prefix kt, fixed windows");
    assert_eq!(lines[2], "keys per pepper: 2 with pepper 0");
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
    assert_eq!(list(&sandbox)["peppers"], json!([{"number": 0, "keys": 2, "given": true}]));
}

#[test]
fn list_counts_the_keys_of_each_pepper() {
    let sandbox = sandbox_with_gate();
    let (_, old_id) = sandbox.issue(GATE, &["--account", "1"]);
    let both = format!("{},{}", sandbox.pepper, "77".repeat(32));
    let run =
        |args: &[&str]| sandbox.finish(sandbox.command(args).env("KEYTALLY_PEPPER", &both), b"");
    let issued = run(&["issue", GATE, "--account", "2", "--json"]).json();
    sandbox.watch_secret(issued["key"].as_str().unwrap());
    let peppers = run(&["list", GATE, "--json"]).json()["peppers"].clone();
    let [old, new] = [0, 1].map(|number| json!({"number": number, "keys": 1, "given": true}));
    assert_eq!(peppers, json!([old, new]));
    sandbox
        .watch_secret(run(&["rotate", GATE, &old_id, "--grace", "0s"]).expect_status(0).trim_end());
    assert_eq!(
        run(&["list", GATE, "--json"]).json()["peppers"],
        json!([{"number": 1, "keys": 2, "given": true}])
    );
}

#[test]
fn peppers_in_the_wrong_order_make_no_key() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "1"]);
    let new = "77".repeat(32);
    let [right, wrong] = [format!("{},{new}", sandbox.pepper), format!("{new},{}", sandbox.pepper)];
    let run = |peppers: &str, args: &[&str]| {
        let mut command = sandbox.command(args);
        sandbox.finish(command.env("KEYTALLY_PEPPER", peppers), b"an-imported-key-0123456789\n")
    };
    let issue: &[&str] = &["issue", GATE, "--account", "1"];
    let rotate: &[&str] = &["rotate", GATE, &key_id, "--grace", "0s"];
    let import: &[&str] = &["import", GATE, "--account", "1"];
    let advice = "give all peppers, newest last";
    for args in [issue, rotate, import] {
        run(&wrong, args).expect_failure(&[
            "the last one is pepper 0 of the gate, after one that the gate does not have yet",
            advice,
        ]);
    }
    assert_eq!(list(&sandbox)["used"], 1);
    assert_eq!(sandbox.check(GATE, &key, &[]).0, 0, "the secret is unchanged");
    sandbox.watch_secret(run(&right, rotate).expect_status(0).trim_end());
    for args in [issue, rotate, import] {
        run(&wrong, args)
            .expect_failure(&["pepper 0 of the gate, after pepper 1, which is newer", advice]);
    }
    // A migration makes no secret, so it only warns.
    let migrate = ["migrate", GATE, "new.gate", "--dry-run"];
    let planned = run(&wrong, &migrate);
    assert!(planned.err.contains("pepper 1, which is newer"), "{planned:?}");
    assert!(!run(&right, &migrate).err.contains("newer"));
    run(&wrong, &["list", GATE]).expect_status(0);
    // One pepper alone has no order.
    sandbox.watch_secret(run(&sandbox.pepper, issue).expect_status(0).trim_end());
}

#[test]
fn pepper_that_keys_need_and_was_not_given_is_named() {
    let sandbox = sandbox_with_gate();
    let ids = [(); 3].map(|()| sandbox.issue(GATE, &["--account", "1"]).1);
    let new = "77".repeat(32);
    let both = format!("{},{new}", sandbox.pepper);
    let run = |peppers: &str, args: &[&str]| {
        sandbox.finish(sandbox.command(args).env("KEYTALLY_PEPPER", peppers), b"")
    };
    let rotated = run(&both, &["rotate", GATE, &ids[0], "--grace", "1h"]).expect_status(0);
    sandbox.watch_secret(rotated.trim_end());
    let warning = "pepper 0 was not given: 3 keys have a valid secret under it, which is refused \
                   with the reason pepper_missing; give all peppers, newest last";
    for args in [&["list", GATE][..], &["verify", GATE], &["top", GATE, "--once"]] {
        let text = run(&new, args).expect_status(0);
        assert!(text.contains(warning), "{text}");
        let text = run(&both, args).expect_status(0);
        assert!(!text.contains("was not given"), "{text}");
    }
    let peppers = run(&new, &["verify", GATE, "--json"]).json()["peppers"].clone();
    let [old, new_one] = [(0, 3, false), (1, 1, true)]
        .map(|(number, keys, given)| json!({"number": number, "keys": keys, "given": given}));
    assert_eq!(peppers, json!([old, new_one]));
    // A revoked key needs no pepper, and a rotated one needs the old pepper until its grace ends.
    run(&new, &["revoke", GATE, &ids[1]]).expect_status(0);
    run(&new, &["end-grace", GATE, &ids[0]]).expect_status(0);
    let text = run(&new, &["list", GATE]).expect_status(0);
    assert!(text.contains("keys per pepper: 1 with pepper 0, 1 with pepper 1\n"), "{text}");
    assert!(text.contains("pepper 0 was not given: 1 key has a valid secret"), "{text}");
}

#[test]
fn top_shows_the_most_used_keys_first() {
    let sandbox = sandbox_with_gate();
    sandbox.issue(GATE, &["--account", "1"]);
    let (busy, busy_id) = sandbox.issue(GATE, &["--account", "2"]);
    let (some, some_id) = sandbox.issue(GATE, &["--account", "3", "--plan", "pro"]);
    sandbox.check(GATE, &busy, &["--cost", "50"]);
    sandbox.check(GATE, &some, &["--cost", "100"]);
    let text = sandbox.run(&["top", GATE, "--once"]).expect_status(0);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("api.gate  ▏·········  3 of 1000 keys (0.3 %)  2"), "{text}");
    assert_eq!(lines[1], "plans: default = 100/31d; pro = 1000/31d");
    let words: Vec<Vec<&str>> =
        lines[3..].iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        words[0],
        ["KEY", "KEY", "ID", "ACCOUNT", "PLAN", "STATE", "2678400S", "USED", "WITHIN"]
    );
    assert_eq!(
        words[1][1..7],
        [busy_id.as_str(), "2", "default", "active", "█████·····", "50/100"]
    );
    assert_eq!(words[2][1..7], [some_id.as_str(), "3", "pro", "active", "█·········", "100/1000"]);
    assert_eq!(words[3][5..], ["··········", "0/100", "-"]);
    assert_eq!(words.len(), 4);
    let top = sandbox.run(&["top", GATE, "--json", "--rows", "1"]).json();
    assert_eq!((&top["used"], &top["keys"][0]["key_id"]), (&json!(3), &json!(busy_id)));
    assert_eq!(top["keys"].as_array().unwrap().len(), 1);
    sandbox.run(&["top", GATE]).expect_failure(&["needs a terminal", "--once"]);
}

#[test]
fn tally_ahead_of_the_clock_is_shown_and_corrected() {
    let sandbox = sandbox_with_gate();
    let (key, _) = sandbox.issue(GATE, &["--account", "1"]);
    let (_, other_id) = sandbox.issue(GATE, &["--account", "2"]);
    // A wrong clock charges three units in the window after the next.
    let peppers = keytally::pepper::parse(&sandbox.pepper).unwrap();
    let gate = keytally::Gate::open(sandbox.path(GATE), peppers).unwrap();
    let wrong = Timestamp::from_unix_s(keytally::now().unix_s() + 62 * 86_400);
    assert!(gate.table().check(Some(key.as_bytes()), 3, wrong).is_admitted());

    let all = list(&sandbox);
    let ahead = all["clock_ahead_s"].as_u64().unwrap();
    assert_eq!((&all["keys_ahead"], ahead > 31 * 86_400), (&json!(1), true), "{all}");
    assert_eq!(listed(&sandbox, &other_id)["clock_ahead_s"], json!(0));
    let sentence =
        format!("clock: the tally of 1 key is up to {ahead} s ahead of the system clock");
    for command in ["list", "top"] {
        let once: &[&str] = if command == "top" { &["--once"] } else { &[] };
        let text = sandbox.run(&[&[command, GATE], once].concat()).expect_status(0);
        // The seconds may have changed since.
        assert!(text.contains(&sentence[..40]), "{text}");
    }

    sandbox.check(GATE, &key, &[]);
    let corrected = list(&sandbox);
    assert_eq!((&corrected["keys_ahead"], &corrected["clock_ahead_s"]), (&json!(0), &json!(0)));
    let used =
        corrected["keys"].as_array().unwrap().iter().map(|key| key["quotas"][0]["used"].as_u64());
    assert_eq!(used.max(), Some(Some(4)), "counts are kept");
}

#[test]
fn verify_reports_a_flawed_record() {
    let sandbox = sandbox_with_gate();
    let (_, key_id) = sandbox.issue(GATE, &["--account", "1"]);
    assert_eq!(
        sandbox.run(&["verify", GATE]).expect_status(0),
        format!("api.gate: no flaws in 1000 records\n{UNSEEN}")
    );
    let report = sandbox.run(&["verify", GATE, "--json"]).json();
    assert_eq!(
        (&report["gate"], &report["capacity"], &report["completed"]),
        (&json!(GATE), &json!(1000), &json!(false))
    );
    assert_eq!(report["flaws"], json!([]));

    // Gives the only used record the plan number 9, which no plan has. It is byte 57 of a record.
    let mut bytes = fs::read(sandbox.path(GATE)).unwrap();
    let plan_at = record_of(&bytes, &key_id) + 57;
    bytes[plan_at] = 9;
    fs::write(sandbox.path(GATE), &bytes).unwrap();
    let run = sandbox.run(&["verify", GATE]);
    assert_eq!(run.status, 3, "{run:?}");
    assert_eq!(run.err, "keytally: api.gate has 2 flaws\n");
    assert!(
        run.out.contains(&key_id) && run.out.contains("has plan number 9, and there is none"),
        "{run:?}"
    );
    let report = sandbox.run(&["verify", GATE, "--json"]).json_with_status(3);
    let flaws = &report["flaws"];
    assert_eq!(flaws[0]["kind"], "checksum");
    let flaw = &flaws[1];
    assert_eq!((&flaw["key_id"], &flaw["kind"]), (&json!(key_id), &json!("no_plan")));
    assert_eq!(flaw["sentence"], run.out.lines().nth(1).unwrap());
    bytes[plan_at] = 0;
    fs::write(sandbox.path(GATE), &bytes).unwrap();
    sandbox.run(&["verify", GATE]).expect_status(0);
}

#[test]
fn verify_completes_an_interrupted_change() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "1"]);
    let mut bytes = fs::read(sandbox.path(GATE)).unwrap();
    sandbox.run(&["revoke", GATE, &key_id]).expect_status(0);
    // Makes the file as it is after SIGKILL during the revocation. Lines 2 and 3 of the header hold
    // the redo record and the number of the record that it changes. That record is still unchanged.
    let after = fs::read(sandbox.path(GATE)).unwrap();
    bytes[128..256].copy_from_slice(&after[128..256]);
    let record = (record_of(&bytes, &key_id) - keytally::HEADER_LEN) / 64;
    let record = u32::try_from(record).unwrap();
    bytes[192..196].copy_from_slice(&(record + 1).to_le_bytes());
    fs::write(sandbox.path(GATE), &bytes).unwrap();

    let report = sandbox.run(&["verify", GATE, "--json"]).json();
    assert_eq!((&report["completed"], &report["flaws"]), (&json!(true), &json!([])));
    assert_eq!(outcome(&sandbox.check(GATE, &key, &[])), (1, "invalid_key", Some("revoked")));
    assert_eq!(sandbox.run(&["verify", GATE, "--json"]).json()["completed"], false);

    fs::write(sandbox.path(GATE), &bytes).unwrap();
    let text = sandbox.run(&["verify", GATE]).expect_status(0);
    let completed = "completed a change that was interrupted\n";
    assert_eq!(text, format!("{completed}api.gate: no flaws in 1000 records\n{UNSEEN}"));
}

#[test]
fn list_shows_counts_and_the_unfinished_migration() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "1"]);
    sandbox.check(GATE, &key, &["--cost", "7"]);
    let mut bytes = fs::read(sandbox.path(GATE)).unwrap();
    // Makes the file as it is after SIGKILL during a migration whose new file was lost: line 2 of
    // the header names it, line 3 marks the migration, and the tally of the key is sealed.
    bytes[128..192].fill(0);
    bytes[136..140].copy_from_slice(b"lost");
    bytes[192..196].fill(0xFF);
    let tally = record_of(&bytes, &key_id) + 8;
    bytes[tally + 4..tally + 8].fill(0xFF);
    fs::write(sandbox.path(GATE), &bytes).unwrap();

    let all = list(&sandbox);
    assert_eq!((&all["migrating"], &all["keys_ahead"]), (&json!(true), &json!(0)), "{all}");
    let key = &all["keys"][0];
    assert_eq!((&key["quotas"][0]["used"], &key["last_used"]), (&json!(7), &json!(null)), "{key}");
    let sentence = "completes it, or: keytally verify api.gate";
    for args in [&["list", GATE][..], &["top", GATE, "--once"]] {
        let text = sandbox.run(args).expect_status(0);
        assert!(text.contains(sentence) && !text.contains("clock:"), "{text}");
    }
    sandbox.run(&["verify", GATE]).expect_status(0);
    let all = list(&sandbox);
    assert_eq!(
        (&all["migrating"], &all["keys"][0]["quotas"][0]["used"]),
        (&json!(false), &json!(7))
    );
}

#[test]
fn gate_does_not_become_smaller() {
    let sandbox = sandbox_with_gate();
    let run = sandbox.run(&["migrate", GATE, "new.gate", "--keys", "5"]);
    assert!(run.err.contains("does not become smaller: it keeps room for 1000 keys"), "{run:?}");
    run.expect_status(0);
}

/// The last line of `verify`.
const UNSEEN: &str = "Counts have no checksum: a count that was changed is not found.\n";

#[test]
fn verify_finds_every_changed_value_but_a_count() {
    let sandbox = sandbox_with_gate();
    let (_, key_id) = sandbox.issue(GATE, &["--account", "1"]);
    let original = fs::read(sandbox.path(GATE)).unwrap();
    let record = record_of(&original, &key_id);
    // The lowest byte of the id, the first count, the first byte of the MAC, the account, the
    // expiry.
    for (offset, status) in [(0, 3), (8, 0), (16, 3), (48, 3), (52, 3)] {
        let mut changed = original.clone();
        changed[record + offset] ^= 1;
        fs::write(sandbox.path(GATE), &changed).unwrap();
        let text = sandbox.run(&["verify", GATE]).expect_status(status);
        assert!(text.ends_with(UNSEEN), "{offset}: {text}");
    }
    let help = sandbox.run(&["verify", "--help"]).expect_status(0);
    assert!(help.contains(UNSEEN.trim_end()), "{help}");
}

/// Returns the position of a key's record in the bytes of a gate.
fn record_of(bytes: &[u8], key_id: &str) -> usize {
    let id = key_id.parse::<keytally::KeyId>().unwrap().number().to_le_bytes();
    bytes.chunks(64).rposition(|line| line[..8] == id).unwrap() * 64
}

#[test]
fn described_window_is_that_of_the_gate() {
    let sandbox = Sandbox::new();
    let create = |describe: &[&str], plan: &str| {
        let _ = fs::remove_file(sandbox.path(GATE));
        let plan = format!("default={plan}");
        sandbox.run(&[&["create", GATE, "--keys", "8", "--plan", &plan], describe].concat())
    };
    let check = || {
        let (key, _) = sandbox.issue(GATE, &["--account", "42"]);
        let report = sandbox.check(GATE, &key, &[]).1;
        let of_headers = |name: &str| report["headers"][name].as_str().unwrap().to_owned();
        [of_headers("X-RateLimit-Limit"), of_headers("X-RateLimit-Remaining")]
    };
    let plans = [
        "100/minute, 1000/hour, 30000/month@17",
        // The month is in the second tally of the key.
        "100/minute, 1000/hour, 4294967295/day, 30000/month@17; team: 70000/month",
    ];
    for plan in plans {
        create(&[], plan).expect_status(0);
        assert_ne!(check()[0], "30000", "{plan}");
        assert_eq!(list(&sandbox)["described"], json!(null));
        for (window, limit, left) in [("month", "30000", "29999"), ("1m", "100", "99")] {
            let text = create(&["--describe", window], plan).expect_status(0);
            let name = if window == "month" { "month" } else { "minute" };
            assert!(text.contains(&format!("\nX-RateLimit-* describe: {name}\n")), "{text}");
            assert_eq!(check(), [limit, left], "{plan}");
            assert_eq!(list(&sandbox)["described"], name);
        }
    }
    for (window, part) in [
        ("week", "the plans have none for week"),
        ("month@18", "the plans have none for month@18"),
        ("fortnight", "\"fortnight\" is not a unit"),
        ("", "is not a window"),
    ] {
        create(&["--describe", window], "5/minute, 30000/month@17; team: 9/week")
            .expect_usage_error(&[part]);
    }
}

#[test]
fn copy_is_a_gate_with_the_same_keys_and_counts() {
    let sandbox = sandbox_with_gate();
    let (key, _) = sandbox.issue(GATE, &["--account", "42"]);
    sandbox.check(GATE, &key, &["--cost", "7"]);
    let out = sandbox.run(&["copy", GATE, "backup.gate"]).expect_status(0);
    assert_eq!(out, "api.gate: copied to backup.gate\n");
    sandbox.run(&["verify", "backup.gate"]).expect_status(0);
    let (later, _) = sandbox.issue(GATE, &["--account", "42"]);
    assert_eq!(sandbox.check("backup.gate", &key, &["--peek"]).1["quotas"][0]["used"], 7);
    let unknown = (1, "invalid_key", Some("unknown"));
    assert_eq!(outcome(&sandbox.check("backup.gate", &later, &[])), unknown);

    // A file is replaced only with the option, and only if it is another gate.
    sandbox.run(&["copy", GATE, "backup.gate"]).expect_failure(&[
        "backup.gate: a file of that name already exists",
        "--replace replaces a gate",
    ]);
    let copied = sandbox.run(&["copy", GATE, "backup.gate", "--replace", "--json"]).json();
    let bytes = fs::metadata(sandbox.path(GATE)).unwrap().len();
    assert_eq!(copied, json!({"gate": GATE, "copy": "backup.gate", "bytes": bytes}));
    assert_eq!(sandbox.check("backup.gate", &later, &[]).0, 0);
    sandbox
        .run(&["copy", GATE, GATE, "--replace"])
        .expect_failure(&["api.gate: the gate cannot be copied to this path", "is copied"]);
    fs::write(sandbox.path("notes"), "text".repeat(100)).unwrap();
    sandbox.run(&["copy", GATE, "notes", "--replace"]).expect_failure(&["notes: ", "not a"]);
    sandbox.run(&["copy", "missing.gate", "copy"]).expect_failure(&["cannot open missing.gate"]);
    assert!(!sandbox.path("copy").exists());

    // A copy that is put where a gate is used is what the next request finds.
    sandbox.run(&["copy", "backup.gate", GATE, "--replace"]).expect_status(0);
    assert_eq!(sandbox.check(GATE, &key, &["--peek"]).1["quotas"][0]["used"], 7);
}

#[test]
fn gate_with_what_the_copy_lacks_is_kept() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    sandbox.issue(GATE, &["--account", "42"]);
    let restore = ["copy", "backup.gate", GATE, "--replace"];
    sandbox.run(&["copy", GATE, "backup.gate"]).expect_status(0);
    let refuse = |what: &str| {
        let before = fs::read(sandbox.path(GATE)).unwrap();
        sandbox.run(&restore).expect_failure(&[
            &format!("api.gate: nothing was changed: this gate has {what}"),
            "--discard-newer",
        ]);
        assert_eq!(fs::read(sandbox.path(GATE)).unwrap(), before);
    };
    sandbox.run(&["revoke", GATE, &key_id]).expect_status(0);
    refuse("1 revocation that backup.gate lacks");
    let (later, later_id) = sandbox.issue(GATE, &["--account", "42"]);
    refuse("1 key and 1 revocation that backup.gate lacks");
    // A backup of a gate that was used meanwhile is replaced.
    sandbox.run(&["copy", GATE, "backup.gate", "--replace"]).expect_status(0);
    let (_, other_id) = sandbox.issue(GATE, &["--account", "42"]);
    refuse("1 key that backup.gate lacks");
    // A key that is not valid any more is not lost.
    sandbox.run(&["revoke", GATE, &other_id]).expect_status(0);
    sandbox.run(&restore).expect_status(0);
    sandbox.run(&["revoke", GATE, &later_id]).expect_status(0);
    sandbox.run(&[&restore[..], &["--discard-newer"]].concat()).expect_status(0);
    assert_eq!(sandbox.check(GATE, &later, &[]).0, 0);
    assert_eq!(outcome(&sandbox.check(GATE, &key, &[])), (1, "invalid_key", Some("revoked")));
    let without = ["copy", GATE, "backup.gate", "--discard-newer"];
    sandbox.run(&without).expect_usage_error(&["--replace"]);
    // A gate of other peppers is another one.
    let other = sandbox.path("other-pepper");
    let made = ["create", "other.gate", "--keys", "1000", "--new-pepper", "--pepper-file"];
    sandbox.run(&[&made[..], &[other.to_str().unwrap()]].concat()).expect_status(0);
    let over_other = ["copy", GATE, "other.gate", "--replace"];
    sandbox.run(&over_other).expect_failure(&["other.gate: nothing was changed", "other peppers"]);
    sandbox.run(&[&over_other[..], &["--discard-newer"]].concat()).expect_status(0);
}

#[test]
fn gate_with_later_changes_of_keys_is_kept() {
    let sandbox = sandbox_with_gate();
    let (old, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    let (_, other_id) = sandbox.issue(GATE, &["--account", "42"]);
    let restore = ["copy", "backup.gate", GATE, "--replace"];
    let changes: [&[&str]; 4] = [
        &["rotate", GATE, &key_id, "--grace", "0s"],
        &["expire", GATE, &key_id, "--expires", "1h"],
        &["rotate", GATE, &key_id, "--grace", "1h"],
        &["end-grace", GATE, &key_id],
    ];
    for change in changes {
        sandbox.run(&["copy", GATE, "backup.gate", "--replace"]).expect_status(0);
        let changed = sandbox.run(change);
        if change[0] == "rotate" {
            sandbox.watch_secret(changed.out.trim());
        }
        changed.expect_status(0);
        let before = fs::read(sandbox.path(GATE)).unwrap();
        sandbox.run(&restore).expect_failure(&[
            "api.gate: nothing was changed: this gate has 1 changed key that backup.gate lacks",
            "--discard-newer",
        ]);
        assert_eq!(fs::read(sandbox.path(GATE)).unwrap(), before, "{change:?}");
    }
    assert_eq!(outcome(&sandbox.check(GATE, &old, &[])).2, Some("wrong_secret"));
    sandbox.run(&["revoke", GATE, &other_id]).expect_status(0);
    sandbox.issue(GATE, &["--account", "42"]);
    sandbox
        .run(&restore)
        .expect_failure(&["has 1 key, 1 revocation and 1 changed key that backup.gate lacks"]);
    // The copy of a migrated gate has other numbers of writes: each difference of a key counts.
    sandbox.run(&["copy", GATE, "backup.gate", "--replace"]).expect_status(0);
    sandbox.run(&["migrate", GATE, "new.gate", "--keys", "2000"]).expect_status(0);
    sandbox.run(&restore).expect_status(0);
    sandbox.run(&["migrate", GATE, "new.gate", "--keys", "2000"]).expect_status(0);
    let rotated = sandbox.run(&["rotate", GATE, &key_id, "--grace", "0s"]);
    sandbox.watch_secret(rotated.out.trim());
    sandbox.run(&restore).expect_failure(&["has 1 changed key that backup.gate lacks"]);
}

#[test]
fn gate_with_later_changes_of_accounts_is_kept() {
    let sandbox = Sandbox::new();
    let plans = ["--plan", "default=9/31d; team: 100/31d", "--plan", "pro=9/31d; team: 500/31d"];
    sandbox.run(&[&["create", GATE, "--keys", "100"], &plans[..]].concat()).expect_status(0);
    let (key, _) = sandbox.issue(GATE, &["--account", "42"]);
    sandbox.issue(GATE, &["--account", "43"]);
    let restore = ["copy", "backup.gate", GATE, "--replace"];
    for change in [&["--suspend"][..], &["--limits", "3/31d"], &["--plan", "pro"]] {
        sandbox.run(&["copy", GATE, "backup.gate", "--replace"]).expect_status(0);
        sandbox.run(&[&["account", GATE, "42"], change].concat()).expect_status(0);
        let refusal = sandbox.run(&restore);
        refusal.expect_failure(&["has 1 changed account that backup.gate lacks"]);
    }
    // What was changed and is again as in the backup is not lost.
    sandbox.run(&["copy", GATE, "backup.gate", "--replace"]).expect_status(0);
    sandbox.run(&["account", GATE, "42", "--resume"]).expect_status(0);
    sandbox.run(&["account", GATE, "42", "--suspend"]).expect_status(0);
    sandbox.run(&restore).expect_status(0);
    assert_eq!(sandbox.check(GATE, &key, &[]).1["reason"], "suspended");
}

/// A revocation in a damaged record is not undone.
#[test]
fn gate_with_a_flaw_neither_replaces_one_nor_is_replaced() {
    let sandbox = sandbox_with_gate();
    let (_, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    sandbox.run(&["copy", GATE, "backup.gate"]).expect_status(0);
    sandbox.run(&["revoke", GATE, &key_id]).expect_status(0);
    let mut bytes = fs::read(sandbox.path(GATE)).unwrap();
    // The last bytes that differ are the checksum of the revoked record.
    let before = fs::read(sandbox.path("backup.gate")).unwrap();
    let at = (0..bytes.len()).rfind(|&at| bytes[at] != before[at]).unwrap();
    bytes[at] ^= 1;
    fs::write(sandbox.path(GATE), &bytes).unwrap();
    let restore = ["copy", "backup.gate", GATE, "--replace"];
    let back = ["copy", GATE, "backup.gate", "--replace"];
    for (command, flawed) in [(restore, "this gate has 1 flaw"), (back, "api.gate has 1 flaw")] {
        let run = sandbox.run(&command);
        run.expect_failure(&["nothing was changed", flawed, "--discard-newer replaces it"]);
    }
    assert_eq!(fs::read(sandbox.path(GATE)).unwrap(), bytes);
    sandbox.run(&[&restore[..], &["--discard-newer"]].concat()).expect_status(0);
    sandbox.run(&["verify", GATE]).expect_status(0);
}

/// A file of another length that does not begin as a gate may be anything.
#[test]
fn damaged_gate_of_another_length_is_to_be_moved_away() {
    let sandbox = sandbox_with_gate();
    sandbox.run(&["copy", GATE, "backup.gate"]).expect_status(0);
    sandbox.run(&["migrate", GATE, "new.gate", "--keys", "2000"]).expect_status(0);
    let mut damaged = fs::read(sandbox.path(GATE)).unwrap();
    for byte in [0, 0xA5] {
        damaged[..4096].fill(byte);
        fs::write(sandbox.path(GATE), &damaged).unwrap();
        for more in [&["--replace"][..], &["--replace", "--discard-newer"]] {
            let restore = [&["copy", "backup.gate", GATE], more].concat();
            sandbox.run(&restore).expect_failure(&[
                "api.gate: ",
                "if it is a damaged gate, move it to another path, and repeat the command",
            ]);
            assert_eq!(fs::read(sandbox.path(GATE)).unwrap(), damaged);
        }
    }
    fs::rename(sandbox.path(GATE), sandbox.path("damaged.gate")).unwrap();
    sandbox.run(&["copy", "backup.gate", GATE, "--replace"]).expect_status(0);
}

/// What a gate has is not lost because it cannot be opened.
#[test]
fn gate_that_cannot_be_compared_is_kept() {
    let sandbox = sandbox_with_gate();
    sandbox.issue(GATE, &["--account", "42"]);
    sandbox.run(&["copy", GATE, "backup.gate"]).expect_status(0);
    let whole = fs::read(sandbox.path(GATE)).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let restore = ["copy", "backup.gate", GATE, "--replace"];
    let discard = [&restore[..], &["--discard-newer"]].concat();
    let kept = |bytes: &[u8], why: &str| {
        fs::write(sandbox.path(GATE), bytes).unwrap();
        sandbox.run(&restore).expect_failure(&[
            why,
            "nothing was changed, since it could not be compared with backup.gate",
            "--discard-newer replaces it",
        ]);
        assert_eq!(fs::read(sandbox.path(GATE)).unwrap(), bytes);
        sandbox.run(&discard).expect_status(0);
        sandbox.run(&["verify", GATE]).expect_status(0);
    };
    kept(&whole[..whole.len() - 64], "and its header says");
    kept(&[&whole[..], &[0; 64]].concat(), "and its header says");
    kept(&with(8, 77), "format version 77");
    kept(&vec![0; whole.len()], "this table is incomplete");
    kept(&vec![0xA5; whole.len()], "this is not a keytally table");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;

        let mode = || sandbox.path(GATE).metadata().unwrap().permissions().mode() & 0o7777;
        sandbox.set_mode(GATE, 0o644);
        kept(&whole, "its mode is 0644");
        assert_eq!(mode(), 0o600);
        sandbox.set_mode(GATE, 0o660);
        sandbox.run(&restore).expect_status(0);
        assert_eq!(mode(), 0o660);
    }
    // An empty file has nothing that could be lost.
    fs::write(sandbox.path(GATE), "").unwrap();
    sandbox.run(&restore).expect_status(0);
    sandbox.run(&["verify", GATE]).expect_status(0);
    // What is never replaced gets no advice to discard it.
    fs::write(sandbox.path("notes"), "text".repeat(100)).unwrap();
    let over_notes = sandbox.run(&["copy", GATE, "notes", "--replace"]);
    assert!(!over_notes.err.contains("--discard-newer"), "{over_notes:?}");
}

/// A backup is older than its gate also if the record of a key that it has was used again.
#[test]
fn backup_with_a_key_whose_record_is_used_again_is_replaced() {
    let sandbox = Sandbox::new();
    let create = ["create", GATE, "--keys", "1", "--plan", "default=1/second"];
    sandbox.run(&create).expect_status(0);
    let (_, key_id) = sandbox.issue(GATE, &["--account", "42"]);
    sandbox.run(&["copy", GATE, "backup.gate"]).expect_status(0);
    sandbox.run(&["revoke", GATE, &key_id]).expect_status(0);
    // The record is free once the window of the key has passed.
    let is_issued = |_| {
        thread::sleep(Duration::from_millis(50));
        sandbox.run(&["issue", GATE, "--account", "42"]).status == 0
    };
    assert!((0..1000).any(is_issued));
    sandbox.run(&["copy", GATE, "backup.gate", "--replace"]).expect_status(0);
}

#[test]
fn gate_is_created_with_a_new_pepper_once() {
    let sandbox = Sandbox::new();
    let create = |gate: &str, more: &[&str]| {
        let mut command = sandbox.command(&[&["create", gate, "--new-pepper"], more].concat());
        sandbox.finish(command.env_remove("KEYTALLY_PEPPER"), b"")
    };
    let file = ["--pepper-file", "pepper"];
    create(GATE, &[]).expect_usage_error(&["--new-pepper", "--pepper-file"]);
    create(GATE, &["--pepper-file", "-"]).expect_usage_error(&["--new-pepper"]);
    // Nothing is left of a gate that cannot be created.
    let impossible = [&file[..], &["--scope", "a b"]].concat();
    create(GATE, &impossible).expect_usage_error(&["scope 1 is not possible"]);
    assert!(!sandbox.path("pepper").exists());
    create("missing/c.gate", &file).expect_failure(&["missing"]);
    assert!(!sandbox.path("pepper").exists());
    // Two files are necessary, however the path is written.
    for one in ["pepper", "./pepper"] {
        create(one, &file).expect_usage_error(&["GATE and --pepper-file both name", "two files"]);
        assert!(!sandbox.path("pepper").exists());
    }
    let made = create(GATE, &file);
    assert!(made.err.contains("pepper: created with a new pepper; keep a copy"), "{made:?}");
    assert_eq!(made.status, 0);
    let pepper = fs::read_to_string(sandbox.path("pepper")).unwrap();
    sandbox.watch_secret(pepper.trim_end());
    // A pepper that exists is used.
    create(GATE, &file).expect_failure(&["api.gate: a file of that name already exists"]);
    let other = create("other.gate", &file);
    assert_eq!((other.status, other.err.as_str()), (0, ""));
    assert_eq!(fs::read_to_string(sandbox.path("pepper")).unwrap(), pepper);
    // No pepper is created for a gate that exists.
    create(GATE, &["--pepper-file", "lost"]).expect_failure(&["already exists"]);
    assert!(!sandbox.path("lost").exists());
    // A pepper that was there before stays if a gate cannot be created.
    create("missing/c.gate", &file).expect_failure(&["missing"]);
    assert_eq!(fs::read_to_string(sandbox.path("pepper")).unwrap(), pepper);
}
