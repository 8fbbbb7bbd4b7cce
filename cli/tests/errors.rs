//! Errors and warnings: what is rejected, in which words, and that nothing changes.
// It is about modes, and about paths that only Unix has.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use std::fs;

use support::{GATE, Sandbox, sandbox_with_gate};

#[test]
fn impossible_request_fails_with_one_sentence() {
    let sandbox = sandbox_with_gate();
    let before = fs::read(sandbox.path(GATE)).unwrap();
    sandbox.run(&["create", GATE]).expect_failure(&[GATE, "already"]);
    sandbox
        .run(&["create", "x.gate", "--plan", "default=100/fortnight"])
        .expect_usage_error(&["'--plan <PLAN>'", "\"fortnight\" is not a unit"]);
    sandbox
        .run(&["create", "x.gate", "--plan", "default=0/s"])
        .expect_usage_error(&["plan \"default\""]);
    sandbox
        .run(&["create", "x.gate", "--plan", "a=1/s", "--plan", "a=2/s"])
        .expect_usage_error(&["plan \"a\" is given twice"]);
    sandbox
        .run(&["create", "x.gate", "--plan", "a=1/s", "--plan", "b=2/h"])
        .expect_usage_error(&["share their sections"]);
    sandbox.run(&["create", "x.gate", "--keys", "0"]).expect_usage_error(&[
        "'--keys <NUMBER>'",
        "\"0\" is not a whole number from 1 to 67108864",
    ]);
    sandbox
        .run(&["create", "x.gate", "--keys", "67108865"])
        .expect_usage_error(&["67108865", "67108864"]);
    sandbox
        .run(&["create", "missing/x.gate"])
        .expect_failure(&["missing/x.gate", "No such file or directory"]);
    sandbox
        .run(&["create", "api.gate/x.gate"])
        .expect_failure(&["api.gate/x.gate", "Not a directory"]);
    // A folder in which no user can create files.
    sandbox.run(&["create", "/proc/x.gate"]).expect_failure(&["/proc/x.gate"]);
    sandbox
        .finish(&mut sandbox.command(&["create", "x.gate"]), b"")
        .expect_failure(&["no pepper was given"]);

    sandbox
        .run(&["list", "missing.gate"])
        .expect_failure(&["cannot open missing.gate", "No such file"]);
    sandbox.run(&["list", "."]).expect_failure(&["a directory"]);
    let id = "0000000000A";
    for args in [
        &["revoke", GATE, id][..],
        &["reset", GATE, id],
        &["assign", GATE, id, "--plan", "pro"],
        &["rotate", GATE, id, "--grace", "1h"],
    ] {
        sandbox.run(args).expect_failure(&["the gate has no key 0000000000A", "`list`"]);
    }
    for (args, parts) in [
        (&["issue", GATE, "--account", "-1"][..], ["--account", "\"-1\" is not an account"]),
        (
            &["list", GATE, "--account", "-1"],
            ["--account", "\"-1\" is not a whole number from 0 to"],
        ),
        (&["check", GATE, "--cost", "-1"], ["--cost", "\"-1\" is not a whole number from 0 to"]),
        (&["create", "x.gate", "--keys", "-1"], ["--keys", "from 1 to 67108864"]),
        (&["create", "x.gate", "--keys", "abc"], ["\"abc\" is not", "from 1 to 67108864"]),
        (&["create", "x.gate", "--keys", ""], ["\"\" is not", "from 1 to 67108864"]),
        (&["create", "x.gate", "--teams", "1e3"], ["\"1e3\" is not", "from 0 to 67108864"]),
        (&["migrate", GATE, "x.gate", "--keys", "67108865"], ["\"67108865\" is", "1 to 67108864"]),
        (&["top", GATE, "--rows", "65536"], ["\"65536\" is not", "from 0 to 65535"]),
        (&["rotate", GATE, "00000000000"], ["from 1 to 2^64 - 1", "this one is 0"]),
        (&["rotate", GATE, "zzzzzzzzzzz"], ["from 1 to 2^64 - 1", "this one is 2^64 or more"]),
    ] {
        sandbox.run(args).expect_usage_error(&parts);
    }
    sandbox
        .run(&["issue", GATE, "--account", "1", "--expires", "1000years"])
        .expect_usage_error(&["2106-02-07"]);
    sandbox
        .run_with_input(&["check", GATE, "--key", "-"], b"\n")
        .expect_failure(&["no key on standard input"]);
    assert!(before == fs::read(sandbox.path(GATE)).unwrap(), "a rejected command changed the gate");
    assert_eq!(sandbox.names(), [GATE]);
}

#[test]
fn damaged_gate_file_is_rejected_and_unchanged() {
    let sandbox = sandbox_with_gate();
    let bytes = fs::read(sandbox.path(GATE)).unwrap();
    let mut other = bytes.clone();
    other[8] = 99;
    for (name, bytes, parts) in [
        ("version.gate", other, &["version 99", "version 2"][..]),
        ("short.gate", bytes[..bytes.len() - 64].to_vec(), &["bytes"]),
        ("long.gate", [&bytes[..], &[0; 64]].concat(), &["bytes"]),
        (
            "text.gate",
            b"not a gate at all, but some text. ".repeat(1000),
            &["not a keytally table"],
        ),
        ("empty.gate", Vec::new(), &["not a keytally table", "0 bytes"]),
    ] {
        fs::write(sandbox.path(name), &bytes).unwrap();
        sandbox.set_mode(name, 0o600);
        for command in ["list", "verify", "top"] {
            sandbox.run(&[command, name]).expect_failure(&[&[name], parts].concat());
        }
        assert!(fs::read(sandbox.path(name)).unwrap() == bytes, "{name} was changed");
    }
    sandbox.set_mode(GATE, 0o604);
    sandbox.run(&["list", GATE]).expect_failure(&["0604", "chmod 600"]);
}

/// Contents of files with secrets, which a test passes as a gate.
const CONTENTS: [&[u8]; 6] = [
    b"5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f\n",
    b"SECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecret\n",
    b"keytally-pepper=SECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecret\n",
    b"keytallySECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecret\n",
    b"keytally\x01\0\0\0SECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecretSECRETsecret\n",
    b"\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef",
];

#[test]
fn error_repeats_no_content_of_a_file() {
    let sandbox = sandbox_with_gate();
    for mode in [0o600, 0o644] {
        for content in CONTENTS {
            fs::write(sandbox.path("file"), content).unwrap();
            sandbox.set_mode("file", mode);
            for command in ["list", "verify", "top"] {
                let run = sandbox.run(&[command, "file"]);
                let sentence =
                    "keytally: file: this is not a keytally table: it does not begin as one does\n";
                assert_eq!((run.status, run.err.as_str()), (3, sentence), "{command} {content:?}");
            }
        }
    }
    // A pepper file as the gate, as in a command with the two exchanged.
    fs::write(sandbox.path("file"), format!("{}\n", sandbox.pepper)).unwrap();
    sandbox.set_mode("file", 0o600);
    let run = sandbox.finish(&mut sandbox.command(&["list", "file", "--pepper-file", "file"]), b"");
    assert_eq!(
        run.err,
        "keytally: file: this is not a keytally table: it does not begin as one does\n"
    );
}

#[test]
fn error_never_advises_to_change_a_foreign_file() {
    let sandbox = sandbox_with_gate();
    let passwd = "root:x:0:0:root:/root:/bin/sh\n".repeat(9);
    for content in [passwd.as_str(), "root:x:0:0\n", ""] {
        for mode in [0o644, 0o666, 0o600] {
            fs::write(sandbox.path("passwd"), content).unwrap();
            sandbox.set_mode("passwd", mode);
            let as_gate = sandbox.run(&["list", "passwd"]);
            let as_pepper = sandbox
                .finish(&mut sandbox.command(&["list", GATE, "--pepper-file", "passwd"]), b"");
            assert!(as_gate.err.contains("this is not a keytally table"), "{as_gate:?}");
            assert!(as_pepper.err.contains("pepper"), "{as_pepper:?}");
            for run in [as_gate, as_pepper] {
                assert!(
                    run.status == 3 && !run.err.contains("fix it") && !run.err.contains("chmod"),
                    "{run:?}"
                );
            }
        }
    }
}

#[test]
fn quota_that_never_denies_causes_a_warning() {
    let sandbox = Sandbox::new();
    let warning = "keytally: warning: 100/minute in plan default can never deny a request, because 50/hour never allows more than that\n";
    let run =
        sandbox.run(&["create", GATE, "--keys", "10", "--plan", "default=100/minute, 50/hour"]);
    assert_eq!((run.status, run.err.as_str()), (0, warning));
    let run = sandbox.run(&["plan", GATE, "default=10/minute, 600/hour", "--json"]);
    let warning = "keytally: warning: 600/hour in plan default can never deny a request, because 10/minute never allows more than that\n";
    assert_eq!((run.status, run.err.as_str()), (0, warning));
    for policy in ["default=10/minute, 599/hour", "default=10/minute, 11/hour"] {
        assert_eq!(sandbox.run(&["plan", GATE, policy]).err, "", "{policy}");
    }
}

#[test]
fn issue_in_a_full_gate_fails() {
    let sandbox = Sandbox::new();
    sandbox.run(&["create", GATE, "--keys", "2"]).expect_status(0);
    sandbox.issue(GATE, &["--account", "1"]);
    let (_, key_id) = sandbox.issue(GATE, &["--account", "1"]);
    sandbox.run(&["issue", GATE, "--account", "1"]).expect_failure(&[
        "the gate is full",
        "all 2 records",
        "passed; for room at once",
    ]);
    sandbox.run(&["revoke", GATE, &key_id]).expect_status(0);
    sandbox
        .run(&["issue", GATE, "--account", "1"])
        .expect_failure(&["`keytally migrate`; the first record of an ended key is free at 20"]);
}
