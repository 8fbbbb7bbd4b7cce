//! Secrets in the output: only new keys are printed, on a terminal or by the command that issued
//! them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses what it needs"
)]
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use support::program::{Run, Sandbox};
use support::server::{GATE, Server};

/// The gate file of these tests.
const G: &str = "api.gate";

/// The text of a key id that no gate here has.
const ID: &str = "0000000000A";

/// A key of Keytally, keys of other systems, and peppers.
const SECRETS: [&str; 7] = [
    "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM",
    "sk_live_51H8Tq3JxWm9Zc7Va2NbXrYp",
    "2b1ff0a5-7c1e-4c53-9d3e-0d5ad6b7c1f2",
    "an-old-key-of-customer-42",
    "4correcthorsebatterystaple",
    "8a4fd2730c15be96e7a0c3512d48f96b7e0d5ad6b7c1f2a94c539d3e2b1ff0a5",
    "q/7Zk2Pz+Hc1nT9vYb/4sWdEfUaJoQi83ZKMx0Gq5Xk=",
];

/// Each command with its arguments. The text after an option is its value.
const COMMANDS: [&[&str]; 17] = [
    &["create", "new.gate", "--keys", "10", "--plan", "default=1/day", "--prefix", "kt"],
    &["issue", G, "--account", "1", "--env", "live", "--plan", "default", "--expires", "1h"],
    &["import", G, "--account", "1", "--env", "live", "--plan", "default", "--expires", "1h"],
    &["list", G, "--account", "1"],
    &["rotate", G, ID, "--grace", "1h", "--wait", "1s"],
    &["revoke", G, ID],
    &["assign", G, ID, "--plan", "default"],
    &["plan", G, "default=1/day"],
    &["reset", G, ID],
    &["check", G, "--key", "no-key", "--cost", "1"],
    &["top", G, "--once", "--rows", "1"],
    &["verify", G],
    &["serve", "--listen", "unix:no/folder", "--data", "api.gate", "--plan", "default=1/day"],
    &["serve", "--data", "api.gate", "--metrics-listen", "unix:no/folder", "--failures", "x=1/day"],
    &[
        "serve",
        "--listen",
        "unix:no/folder",
        "--client-timeout",
        "9s",
        "--trusted-proxy",
        "unix",
        "--socket-mode",
        "660",
    ],
    &[
        "serve",
        "--listen",
        "unix:no/folder",
        "--connections",
        "9",
        "--preflight-header",
        "X-Forwarded-Method",
    ],
    &[
        "serve",
        "--listen",
        "unix:no/folder",
        "--settle",
        "60s",
        "--key-from",
        "X-Token",
        "--metrics-keys",
        "9",
        "--refusals",
        "no.json",
    ],
];

/// Asserts that a run prints no twelve consecutive characters of a secret.
#[track_caller]
fn assert_prints_no_secret(run: &Run, secret: &str, args: &[String]) {
    // The prefix and the environment are public.
    let hidden =
        secret.strip_prefix("kt_live_").or(secret.strip_prefix("sk_live_")).unwrap_or(secret);
    for part in hidden.as_bytes().windows(12) {
        let part = core::str::from_utf8(part).unwrap();
        for text in [&run.out, &run.err] {
            assert!(!text.contains(part), "{args:?} prints a part of the secret: {text}");
        }
    }
}

/// Returns this command with the secret in every position where it does not belong.
fn misuses(command: &[&str], secret: &str) -> Vec<Vec<String>> {
    let mut misuses = Vec::new();
    for at in 0..command.len() {
        let mut args: Vec<String> = command.iter().map(|arg| (*arg).to_owned()).collect();
        let before = args.clone();
        args[at] = secret.to_owned();
        misuses.push(args);
        let is_value = at > 0 && before[at - 1].starts_with("--") && before[at - 1] != "--once";
        if is_value {
            let mut joined = before.clone();
            joined[at - 1] = format!("{}={secret}", before[at - 1]);
            joined.remove(at);
            misuses.push(joined);
        }
        for around in
            [format!("{secret}=1/day"), format!("default={secret}"), format!("default=1/{secret}")]
        {
            if before[at].contains('=') {
                let mut args = before.clone();
                args[at] = around;
                misuses.push(args);
            }
        }
    }
    for more in [
        vec![secret.to_owned()],
        vec![format!("--{secret}")],
        vec![format!("-{secret}")],
        vec![format!("--{secret}={secret}")],
        vec![format!("--json={secret}")],
        vec!["--".to_owned(), secret.to_owned()],
        vec!["--pepper-file".to_owned(), secret.to_owned()],
        vec![format!("--pepper-file={secret}")],
    ] {
        let mut args: Vec<String> = command.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(more);
        misuses.push(args);
    }
    misuses
}

#[test]
fn misused_command_prints_no_secret() {
    let sandbox = Sandbox::new();
    sandbox.run(&["create", G, "--keys", "10", "--plan", "default=1/day"]).expect_status(0);
    let before = sandbox.names();
    let mut count = 0;
    for secret in SECRETS {
        let mut all: Vec<Vec<String>> =
            COMMANDS.iter().flat_map(|command| misuses(command, secret)).collect();
        all.push(vec![secret.to_owned()]);
        all.push(vec!["help".to_owned(), secret.to_owned()]);
        for args in all {
            let words: Vec<&str> = args.iter().map(String::as_str).collect();
            let run = sandbox.run_with_input(&words, secret.as_bytes());
            // Importing or checking a key is not a misuse, but must not print it either.
            let is_use = ["import", "check"].contains(&words[0]) || run.status == 0;
            assert!(is_use || run.status > 1, "{args:?} {run:?}");
            assert_prints_no_secret(&run, secret, &args);
            count += 1;
            for name in sandbox.names().iter().filter(|name| !before.contains(name)) {
                fs::remove_file(sandbox.path(name)).unwrap();
            }
        }
    }
    assert!(count > 900, "{count}");
}

#[test]
fn secret_as_the_name_of_a_header_is_refused() {
    // The first four look like keys and peppers. Refusals would show them to clients.
    let sandbox = Sandbox::new();
    for secret in [SECRETS[0], SECRETS[1], SECRETS[5], "aB3dE5fG7hI9jK1lM3nO"] {
        let args =
            ["serve", "--listen", "unix:no/folder", "--key-from", "X-Token", "--key-from", secret];
        let run = sandbox.finish(&mut sandbox.command(&args), b"");
        assert_prints_no_secret(&run, secret, &args.map(str::to_owned));
        run.expect_usage_error(&["'--key-from <HEADER>'", "not like the name of a header"]);
    }
    for name in ["Ocp-Apim-Subscription-Key", "X-RapidAPI-Proxy-Secret", "X-GitHub-Token-V2"] {
        let args = ["serve", "--data", "data", "--listen", "unix:no/folder", "--key-from", name];
        sandbox.finish(&mut sandbox.command(&args), b"").expect_status(3);
    }
}

#[test]
fn environment_variable_is_never_printed() {
    let sandbox = Sandbox::new();
    sandbox.run(&["create", G]).expect_status(0);
    for secret in SECRETS {
        for args in [&["list", G][..], &["--help"], &["list", "--help"], &["list", G, "--nix"]] {
            for variable in ["KEYTALLY_PEPPER_FILE", "KEYTALLY_PEPPER"] {
                let run = sandbox.finish(sandbox.command(args).env(variable, secret), b"");
                assert_prints_no_secret(&run, secret, &[format!("{args:?} with {variable}")]);
            }
        }
    }
}

#[test]
fn file_named_like_a_secret_needs_an_explicit_path() {
    let sandbox = Sandbox::new();
    let path = format!("./{}", SECRETS[0]);
    sandbox.run(&["create", SECRETS[0]]).expect_status(2);
    sandbox.run(&["create", &path]).expect_status(0);
    sandbox.run(&["verify", &path]).expect_status(0);
    assert_eq!(sandbox.names(), [SECRETS[0]]);
}

#[test]
fn first_key_is_printed_on_a_terminal() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    assert_eq!(server.contacts(&key).code(), 200);
}

#[test]
fn first_key_is_not_printed_to_a_log() {
    let sandbox = Sandbox::new();
    let mut serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0", "--data", "data"]);
    let mut child =
        serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut message = String::new();
    for line in lines.map(Result::unwrap) {
        message += &format!("{line}\n");
        if line.starts_with("Listening on") {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!message.contains("kt_live_"), "{message}");
    assert!(message.contains("standard output is not a terminal"), "{message}");
    let issue = message.lines().find(|line| line.contains(" issue ")).unwrap();
    let mut shell = std::process::Command::new("sh");
    let run = sandbox.finish(shell.args(["-c", issue]).current_dir(sandbox.path(".")), b"");
    assert!(run.out.starts_with("kt_live_"), "{run:?}");

    // The gate now has a key, so a later start on a terminal issues none.
    assert_eq!(
        sandbox.run_admin(&["list", GATE, "--json"]).json()["keys"].as_array().unwrap().len(),
        1
    );
    assert_eq!(Server::start(&sandbox, &[]).first_key(), None);
}
