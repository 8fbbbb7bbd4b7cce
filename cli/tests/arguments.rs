//! Arguments, standard input, the pepper, and help.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use std::fs;

use serde_json::json;
use support::{GATE, Sandbox, sandbox_with_gate};

#[test]
fn pepper_is_read_from_the_environment_or_a_file() {
    let sandbox = sandbox_with_gate();
    let (key, _) = sandbox.issue(GATE, &["--account", "1"]);
    let args = ["check", GATE, "--key", "-"];
    fs::write(sandbox.path("pepper"), format!("{}\n", sandbox.pepper)).unwrap();
    #[cfg(unix)]
    sandbox.set_mode("pepper", 0o600);
    let with_file = [&args[..], &["--pepper-file", "pepper"]].concat();
    sandbox.finish(&mut sandbox.command(&with_file), key.as_bytes()).expect_status(0);
    sandbox
        .finish(sandbox.command(&args).env("KEYTALLY_PEPPER_FILE", "pepper"), key.as_bytes())
        .expect_status(0);
    // The file takes precedence over the variable.
    let other = "99".repeat(32);
    sandbox
        .finish(sandbox.command(&with_file).env("KEYTALLY_PEPPER", &other), key.as_bytes())
        .expect_status(0);
    sandbox
        .finish(sandbox.command(&args).env("KEYTALLY_PEPPER", &other), key.as_bytes())
        .expect_failure(&[GATE, "the pepper that was given does not belong to this gate"]);

    let advice = ["KEYTALLY_PEPPER", "--pepper-file", "openssl rand -hex 32"];
    sandbox.finish(&mut sandbox.command(&args), b"").expect_failure(&advice);
    sandbox.finish(sandbox.command(&args).env("KEYTALLY_PEPPER", ""), b"").expect_failure(&advice);
    sandbox
        .finish(sandbox.command(&args).env("KEYTALLY_PEPPER", "ab".repeat(31)), b"")
        .expect_failure(&["KEYTALLY_PEPPER", "has 31 bytes after decoding as hex", "at least 32"]);
    sandbox
        .finish(sandbox.command(&args).env("KEYTALLY_PEPPER", "no/hex!"), b"")
        .expect_failure(&["neither hex nor base64"]);
    sandbox
        .finish(sandbox.command(&args).env("KEYTALLY_PEPPER_FILE", "missing"), b"")
        .expect_failure(&["cannot open missing"]);
    #[cfg(unix)]
    {
        sandbox.set_mode("pepper", 0o660);
        let read = sandbox.finish(&mut sandbox.command(&with_file), b"");
        read.expect_failure(&["pepper", "0660", "fix it with: chmod "]);
    }
}

#[test]
fn pepper_is_read_from_standard_input() {
    let sandbox = sandbox_with_gate();
    let (key, _) = sandbox.issue(GATE, &["--account", "1"]);
    let from_input = |args: &[&str], input: &str| {
        sandbox.finish(
            &mut sandbox.command(&[args, &["--pepper-file", "-"]].concat()),
            input.as_bytes(),
        )
    };
    let pepper = format!("{}\n", sandbox.pepper);
    let lists_the_key = |text: &str| text.contains("1 of 1000 keys");
    assert!(lists_the_key(&from_input(&["list", GATE], &pepper).expect_status(0)));
    from_input(&["check", GATE, "--key", &key], &pepper).expect_status(0);
    from_input(&["list", GATE], "").expect_failure(&["-: no pepper is given"]);
    // A pipe of the shell.
    #[cfg(unix)]
    {
        let list = sandbox.command(&["list", GATE]);
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", "\"$0\" \"$@\" --pepper-file <(printenv PEPPER)"]);
        shell.arg(list.get_program()).args(list.get_args());
        shell.current_dir(sandbox.path(".")).env("PEPPER", &sandbox.pepper);
        assert!(lists_the_key(&sandbox.finish(&mut shell, b"").expect_status(0)));
    }

    // Standard input cannot hold both the pepper and a key.
    for args in
        [&["check", GATE][..], &["check", GATE, "--key", "-"], &["import", GATE, "--account", "1"]]
    {
        from_input(args, &pepper)
            .expect_usage_error(&["standard input cannot hold both the pepper and the key"]);
    }
}

#[test]
fn check_reads_the_key_from_standard_input() {
    let sandbox = sandbox_with_gate();
    let (key, _) = sandbox.issue(GATE, &["--account", "1"]);
    sandbox.run_with_input(&["check", GATE], format!("{key}\n").as_bytes()).expect_status(0);
    sandbox.run_with_input(&["check", GATE], b"").expect_failure(&["no key on standard input"]);
}

#[test]
fn key_may_begin_with_a_dash() {
    let sandbox = sandbox_with_gate();
    for key in ["-old-key-of-customer-42", "--json-is-no-option-here"] {
        let key = sandbox.watch_secret(key);
        sandbox
            .run_with_input(&["import", GATE, "--account", "1"], key.as_bytes())
            .expect_status(0);
        sandbox.run(&["check", GATE, "--key", &key]).expect_status(0);
        sandbox.run(&["check", GATE, &format!("--key={key}")]).expect_status(0);
        sandbox.run_with_input(&["check", GATE], key.as_bytes()).expect_status(0);
    }
}

#[test]
fn policy_accepts_common_spellings() {
    let sandbox = Sandbox::new();
    let plans = ["--plan", "a=100 per minute, 1000 per hour", "--plan", "b=100/min, 3000/hour"];
    let created = sandbox.run(&[&["create", GATE, "--json"], &plans[..]].concat()).json();
    assert_eq!(
        created["plans"],
        json!([{"name": "a", "sections": "100/minute, 1000/hour"}, {"name": "b", "sections": "100/minute, 3000/hour"}])
    );
    let created = sandbox.run(&["create", "b.gate", "--plan", "c=10/sec", "--json"]).json();
    assert_eq!(created["plans"], json!([{"name": "c", "sections": "10/second"}]));
}

#[test]
fn wrong_usage_exits_with_2() {
    let sandbox = sandbox_with_gate();
    for args in [
        &[][..],
        &["missing"],
        &["list"],
        &["issue", GATE],
        &["issue", GATE, "--account", "-1"],
        &["issue", GATE, "--account", "4294967296"],
        &["issue", GATE, "--account", "1", "--env", "Live"],
        &["issue", GATE, "--account", "1", "--env", "ninechars"],
        &["issue", GATE, "--account", "1", "--expires", "soon"],
        &["issue", GATE, "--account", "1", "--expires", "0s"],
        &["create", "x.gate", "--prefix", "k_t"],
        &["rotate", GATE, "0000000000A"],
        &["rotate", GATE, "tooshort", "--grace", "1h"],
        &["check"],
        &["check", GATE, "--key", "x", "--cost", "many"],
        &["assign", GATE, "0000000000A"],
        &["assign", GATE, "0000000000A", "--plan", "a-name-of-17-char"],
        &["issue", GATE, "--account", "1", "--plan", "BAD NAME"],
        &["rotate", GATE, "0000000000A", "--grace", "300y"],
        &["revoke", GATE, "0000000000A", "--wait", "soon"],
        &["plan", GATE, "default=1/fortnight"],
        &["import", GATE, "--account", "1", "--expires", "1000years"],
        &["list", GATE, "--account", "all"],
        &["top", GATE, "--rows", "-1"],
    ] {
        let run = sandbox.run(args);
        assert_eq!((run.status, run.out.as_str()), (2, ""), "{args:?} {run:?}");
        assert!(run.err.contains("Usage:") || run.err.contains("--help"), "{args:?} {run:?}");
    }
    assert_eq!(sandbox.names(), [GATE]);
}

#[test]
fn every_command_has_help() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(&["--help"]).expect_status(0);
    assert!(help.contains("3 failure, or flaws that verify found.\n"), "{help}");
    let commands = [
        "create",
        "issue",
        "import",
        "list",
        "rotate",
        "end-grace",
        "expire",
        "revoke",
        "assign",
        "account",
        "plan",
        "reset",
        "check",
        "top",
        "verify",
    ];
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in {help}");
        let help = sandbox.run(&[command, "--help"]).expect_status(0);
        let usage = format!("Usage: keytally{} ", std::env::consts::EXE_SUFFIX);
        assert!(help.contains(&usage) && help.contains("--pepper-file"), "{help}");
        assert!(help.contains("--json"), "{help}");
        let changes = [
            "issue",
            "import",
            "rotate",
            "end-grace",
            "expire",
            "revoke",
            "assign",
            "account",
            "plan",
            "verify",
        ]
        .contains(&command);
        assert_eq!(help.contains("--wait"), changes, "{help}");
    }
    assert!(sandbox.run(&["--version"]).expect_status(0).starts_with("keytally 0."));
}

#[test]
fn help_of_create_states_the_size_of_the_file() {
    let sandbox = Sandbox::new();
    let size = |keys: &str| {
        sandbox.run(&["create", &format!("{keys}.gate"), "--keys", keys, "--json"]).json()["bytes"]
            .as_u64()
            .unwrap()
    };
    let [small, large] = ["1600", "3200"].map(size);
    let (each, header) = ((large - small) / 1600, small - (large - small));
    let help = sandbox.run(&["create", "--help"]).expect_status(0);
    assert!(
        help.contains(&format!("takes {each} bytes per key and {header} bytes for its header")),
        "{help}"
    );
}

#[test]
fn serve_names_the_package_that_has_it() {
    let sandbox = Sandbox::new();
    for args in [&["serve"][..], &["serve", "--listen", "127.0.0.1:0"], &["serve", "--help"]] {
        sandbox.run(args).expect_usage_error(&[
            "does not have the command serve",
            "cargo install keytally-server, or pip install keytally-cli",
        ]);
    }
}

#[test]
fn commands_of_a_fleet_name_the_package_that_has_them() {
    let sandbox = Sandbox::new();
    for (args, command) in
        [(&["agent", GATE, "--on-loss", "open"][..], "agent"), (&["fleet", "status"], "fleet")]
    {
        sandbox.run(args).expect_usage_error(&[
            &format!("does not have the command {command}"),
            "cargo install keytally-server, or pip install keytally-cli",
        ]);
    }
}

#[test]
fn count_of_one_is_singular() {
    let sandbox = Sandbox::new();
    let created = sandbox.run(&["create", GATE, "--keys", "1"]).expect_status(0);
    assert!(created.starts_with("api.gate: created for 1 key\n"), "{created}");
    sandbox.issue(GATE, &["--account", "1"]);
    let text = sandbox.run(&["list", GATE]).expect_status(0);
    assert!(text.starts_with("api.gate: 1 of 1 key (100.0 %)"), "{text}");
    assert!(
        sandbox
            .run(&["verify", GATE])
            .expect_status(0)
            .starts_with("api.gate: no flaws in 1 record\n")
    );
    fs::write(sandbox.path("x.gate"), "x").unwrap();
    sandbox.run(&["list", "x.gate"]).expect_failure(&["it has 1 byte, "]);
}
