//! Commands whose output cannot be written, and commands that wait for other processes.
// It uses signals, and files that only Unix has.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use std::fs;

use support::{GATE, Sandbox, list, listed, sandbox_with_gate};

#[test]
fn key_that_cannot_be_printed_is_revoked() {
    let sandbox = sandbox_with_gate();
    for json in [&[][..], &["--json"]] {
        let args = [&["issue", GATE, "--account", "1"], json].concat();
        for (out, why) in [
            (std::process::Stdio::from(full_disk()), "No space left on device"),
            (closed_pipe().into(), "the reader of standard output closed it"),
            (std::process::Stdio::null(), "standard output is closed or /dev/null"),
        ] {
            let (status, err) = run_into(&sandbox, &args, "", out);
            assert_eq!(status, 3, "{err}");
            assert!(err.contains("was revoked:") && err.contains(why), "{err}");
            let all = list(&sandbox);
            let keys = all["keys"].as_array().unwrap();
            assert!(keys.iter().all(|key| key["state"] == "revoked"), "{all}");
            assert!(keys.iter().any(|key| err.contains(key["key_id"].as_str().unwrap())), "{err}");
        }
    }
    assert_eq!(list(&sandbox)["used"], 6);
}

#[test]
fn rotation_that_cannot_be_printed_changes_nothing() {
    let sandbox = sandbox_with_gate();
    let (key, key_id) = sandbox.issue(GATE, &["--account", "1"]);
    let before = listed(&sandbox, &key_id);
    for grace in ["0s", "1h"] {
        let args = ["rotate", GATE, &key_id, "--grace", grace];
        for out in [full_disk().into(), closed_pipe().into(), std::process::Stdio::null()] {
            let (status, err) = run_into(&sandbox, &args, "", out);
            assert_eq!(status, 3, "{err}");
            assert!(err.contains(&format!("key {key_id} is unchanged")), "{err}");
            assert_eq!(listed(&sandbox, &key_id), before);
        }
    }
    assert_eq!(sandbox.check(GATE, &key, &[]).0, 0);
    // Another attempt succeeds without --force.
    let new = sandbox.rotate(GATE, &key_id, "1h");
    assert_eq!([&key, &new].map(|key| sandbox.check(GATE, key, &[]).0), [0, 0]);
}

#[test]
fn unwritable_output_is_an_error() {
    let sandbox = sandbox_with_gate();
    let (_, key_id) = sandbox.issue(GATE, &["--account", "1"]);
    for (args, input) in [
        (&["list", GATE][..], ""),
        (&["import", GATE, "--account", "1"], "customer-key-0001\n"),
        (&["revoke", GATE, &key_id], ""),
    ] {
        let (status, err) = run_into(&sandbox, args, input, full_disk());
        let sentence =
            "keytally: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!((status, err.as_str()), (3, sentence), "{args:?}");
    }
}

#[test]
fn closed_output_is_not_an_error() {
    let sandbox = sandbox_with_gate();
    let mut child = sandbox
        .command(&["list", GATE])
        .env("KEYTALLY_PEPPER", &sandbox.pepper)
        .stdout(closed_pipe())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(err, "");
}

/// Runs a command with this standard output. Returns its exit status and its standard error.
fn run_into(
    sandbox: &Sandbox,
    args: &[&str],
    input: &str,
    out: impl Into<std::process::Stdio>,
) -> (i32, String) {
    use std::io::{Read as _, Write as _};
    let mut command = sandbox.command(args);
    command.env("KEYTALLY_PEPPER", &sandbox.pepper).stdout(out);
    command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (child.wait().unwrap().code().unwrap(), err)
}

/// Returns a file whose every write fails as on a full disk.
fn full_disk() -> fs::File {
    fs::File::options().write(true).open("/dev/full").unwrap()
}

/// Returns the writing end of a pipe without a reader.
fn closed_pipe() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

/// Calls `work` while this process holds the lock of the gate.
fn while_administering(sandbox: &Sandbox, work: impl FnOnce()) {
    let peppers = keytally::pepper::parse(&sandbox.pepper).unwrap();
    let gate = keytally::Gate::open(sandbox.path(GATE), peppers).unwrap();
    gate.administer(|_| {
        work();
        Ok(())
    })
    .unwrap();
}

#[test]
fn command_that_times_out_names_the_lock_holder() {
    let sandbox = sandbox_with_gate();
    let (_, id) = sandbox.issue(GATE, &["--account", "1"]);
    let id = id.as_str();
    let holder = format!("api.gate: process {} (concurrent", std::process::id());
    while_administering(&sandbox, || {
        for args in [
            &["issue", GATE, "--account", "1"][..],
            &["rotate", GATE, id, "--grace", "1h"],
            &["revoke", GATE, id],
            &["assign", GATE, id, "--plan", "pro"],
            &["plan", GATE, "pro=7/31d"],
            &["verify", GATE],
        ] {
            let run = sandbox.run(&[args, &["--wait", "20ms"]].concat());
            run.expect_failure(&[
                &holder,
                "for longer than the wait of 20ms; try again, wait longer, or end that process",
            ]);
        }
        let args = ["import", GATE, "--account", "1", "--wait", "0s"];
        sandbox.run_with_input(&args, b"customer-key-0001\n").expect_failure(&[&holder]);
        // `list` does not wait for the lock.
        assert_eq!(listed(&sandbox, id)["state"], "active");
    });
    assert_eq!(sandbox.run(&["revoke", GATE, id, "--wait", "soon"]).status, 2);
    sandbox.run(&["revoke", GATE, id, "--wait", "0s"]).expect_status(0);
}

#[test]
fn ctrl_c_ends_a_wait() {
    use std::os::unix::process::ExitStatusExt as _;
    let sandbox = sandbox_with_gate();
    let (_, id) = sandbox.issue(GATE, &["--account", "1"]);
    while_administering(&sandbox, || {
        let mut command = sandbox.interruptible_command(&["revoke", GATE, &id, "--wait", "60s"]);
        let mut waiting = command.spawn().unwrap();
        std::thread::sleep(core::time::Duration::from_millis(200));
        assert!(waiting.try_wait().unwrap().is_none());
        let pid = rustix::process::Pid::from_child(&waiting);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(waiting.wait().unwrap().signal(), Some(2));
    });
    assert_eq!(listed(&sandbox, &id)["state"], "active");
}

#[test]
fn verify_takes_over_a_lock_only_with_its_option() {
    use std::os::unix::fs::FileExt as _;
    // The offset of the word that names the holder of the lock: see host/src/header.rs.
    const HOLDER: u64 = 64 + 7 * 8;
    let sandbox = sandbox_with_gate();
    let file = fs::OpenOptions::new().write(true).open(sandbox.path(GATE)).unwrap();
    file.write_all_at(&u64::MAX.to_le_bytes(), HOLDER).unwrap();
    let refused = sandbox.run(&["verify", GATE, "--wait", "20ms"]);
    refused.expect_failure(&["a process of another container", "use: keytally verify --take-over"]);
    sandbox.run(&["verify", GATE, "--take-over"]).expect_status(0);
    sandbox.run(&["verify", GATE, "--wait", "0s"]).expect_status(0);
}

#[test]
fn changes_continue_in_the_new_file_through_migrations() {
    let sandbox = sandbox_with_gate();
    std::thread::scope(|scope| {
        let migrate = || {
            while !sandbox.path("end").exists() {
                sandbox.run(&["migrate", GATE, "new.gate"]).expect_status(0);
            }
        };
        let migrating = scope.spawn(migrate);
        for _ in 0..20 {
            let (_, id) = sandbox.issue(GATE, &["--account", "1"]);
            sandbox.run(&["assign", GATE, &id, "--plan", "pro"]).expect_status(0);
            sandbox.rotate(GATE, &id, "1h");
            sandbox.run(&["plan", GATE, "pro=7/31d"]).expect_status(0);
            sandbox.run(&["verify", GATE]).expect_status(0);
            sandbox.run(&["revoke", GATE, &id]).expect_status(0);
        }
        fs::write(sandbox.path("end"), "").unwrap();
        migrating.join().unwrap();
    });
    let all = list(&sandbox);
    let keys = all["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 20);
    assert!(keys.iter().all(|key| key["state"] == "revoked" && key["plan"] == "pro"), "{all}");
}
