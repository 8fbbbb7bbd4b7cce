//! The reader that was written from docs/FORMAT.md alone reads gates as `list --json` does, also
//! damaged ones.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use std::fs;
use std::process::Command;

use serde_json::{Map, Value, json};
use support::{GATE, Sandbox};

/// Plans whose windows do not end during a test: plain, sliding, and with every kind of section.
const PLANS: [&[&str]; 3] = [
    &["--plan", "default=9/31d, 90/month@17", "--plan", "pro=99/31d, 900/month@17"],
    &["--plan", "default=sliding 9/30d, 90/31d", "--describe", "31d"],
    &[
        "--plan",
        "default=9/31d, 90/month, 1073741823/29d, 1073741823/week; team: 70/31d, 71/month@3; \
         group write: sliding 5/31d; group read: 6/28d warn 50% 90%",
        "--plan",
        "pro=unlimited; team: 80/31d, 81/month@3; group write: unlimited; group read: 7/28d",
        "--teams",
        "3",
        "--scope",
        "read",
        "--scope",
        "admin",
        "--describe",
        "month",
    ],
];

/// Makes a gate with keys of several kinds, of which some were used.
fn gate_with_keys(plans: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.run(&[&["create", GATE, "--keys", "10"], plans].concat()).expect_status(0);
    let is_extended = plans.len() > 4;
    for account in ["1", "2", "3", "1"] {
        let mut options = vec!["--account", account, "--env", "live"];
        if account == "2" {
            options.extend(["--expires", "400d"]);
        }
        if is_extended && account != "3" {
            options.extend(["--scope", "admin"]);
        }
        let (key, _) = sandbox.issue(GATE, &options);
        sandbox.check(GATE, &key, &["--cost", "2"]);
        if is_extended {
            sandbox.check(GATE, &key, &["--group", "write", "--group", "read=3"]);
        }
    }
    let (_, revoked) = sandbox.issue(GATE, &["--account", "1", "--env", "test"]);
    sandbox.run(&["revoke", GATE, &revoked]).expect_status(0);
    if is_extended {
        sandbox.issue(GATE, &["--account", "2", "--plan", "pro"]);
        let limits = ["--limits", "33/31d, 34/month@3"];
        sandbox.run(&[&["account", GATE, "2"], &limits[..]].concat()).expect_status(0);
        sandbox.run(&["account", GATE, "3", "--plan", "pro"]).expect_status(0);
    }
    sandbox
}

/// Returns what the program lists of a file, with the members that the reader has; null if it
/// refuses the file.
fn listed(sandbox: &Sandbox, file: &str) -> Value {
    let run = sandbox.run(&["list", file, "--json"]);
    if run.status != 0 {
        assert_eq!(run.status, 3, "{run:?}");
        return Value::Null;
    }
    let all = run.json();
    let members = |value: &Value, names: &[&str]| -> Value {
        let member = |name: &&str| ((*name).to_owned(), value[name].clone());
        Value::Object(names.iter().map(member).collect::<Map<_, _>>())
    };
    let keys = all["keys"].as_array().unwrap().iter().map(|key| {
        let mut shown = members(
            key,
            &[
                "key_id",
                "account",
                "env",
                "plan",
                "hint",
                "state",
                "pepper",
                "scopes",
                "last_used",
                "expires",
            ],
        );
        let quotas = key["quotas"].as_array().unwrap().iter();
        let quotas: Vec<_> = quotas
            .map(|quota| members(quota, &["section", "window", "limit", "remaining"]))
            .collect();
        shown["quotas"] = quotas.into();
        shown
    });
    let plans = all["plans"].as_array().unwrap().iter().map(|plan| plan["name"].clone());
    json!({
        "capacity": all["capacity"],
        "prefix": all["prefix"],
        "plans": plans.collect::<Vec<_>>(),
        "described": all["described"],
        "keys": keys.collect::<Vec<_>>(),
    })
}

/// Returns what the reader finds in each file.
fn read(sandbox: &Sandbox, files: &[String]) -> Vec<Value> {
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/format/reader.py");
    let mut python = Command::new("python3");
    python.arg(reader).args(files.iter().map(|file| sandbox.path(file)));
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the bits of a file that are changed, one for each damaged copy: one of every word that
/// is neither a tally, nor the fingerprint of a pepper, which the program compares with its own.
fn damaged_bits(bytes: &[u8], header_lines: usize, capacity: usize) -> Vec<usize> {
    let records = header_lines * 8..(header_lines + capacity) * 8;
    let hints = records.end..records.end + capacity.div_ceil(8) * 8;
    let mut state = 1_u64;
    (0..bytes.len() / 8)
        .filter(|word| {
            (records.contains(word) && word % 8 != 1)
                || (*word < 56 && !(8..12).contains(word))
                || hints.contains(word)
        })
        .map(|word| {
            // Every word is damaged at one position, which a linear congruence selects.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            word * 64 + usize::try_from(state >> 58).unwrap()
        })
        .collect()
}

#[test]
fn reader_of_the_page_agrees_with_list() {
    for plans in PLANS {
        let sandbox = gate_with_keys(plans);
        let expected = listed(&sandbox, GATE);
        assert!(expected["keys"].as_array().unwrap().len() >= 5, "{expected}");
        assert_eq!(read(&sandbox, &[GATE.to_owned()]), [expected], "{plans:?}");

        let bytes = fs::read(sandbox.path(GATE)).unwrap();
        let header_lines = u32::from_le_bytes(bytes[28..32].try_into().unwrap());
        let mut copies: Vec<_> = damaged_bits(&bytes, usize::try_from(header_lines).unwrap(), 10)
            .into_iter()
            .map(|bit| {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                (format!("{bit}.gate"), damaged)
            })
            .collect();
        let mut descending = bytes.clone();
        descending[40..48].rotate_left(4);
        copies.push(("descending.gate".to_owned(), descending));
        let mut too_wide = bytes.clone();
        // Word 7: the width of a fourth window, which no plan here has.
        too_wide[56 + 3] ^= u8::from(too_wide[56 + 3] == 0);
        copies.push(("wide.gate".to_owned(), too_wide));
        let mut files = Vec::new();
        for (file, damaged) in copies {
            fs::write(sandbox.path(&file), damaged).unwrap();
            #[cfg(unix)]
            sandbox.set_mode(&file, 0o600);
            files.push(file);
        }
        let found = read(&sandbox, &files);
        let mut refused = 0;
        for (file, found) in files.iter().zip(found) {
            let expected = listed(&sandbox, file);
            refused += usize::from(expected.is_null());
            assert!(found == expected, "{file} of {plans:?}:\n{found}\n{expected}");
        }
        assert!((5..files.len() / 2).contains(&refused), "{refused} of {}", files.len());
    }
}
