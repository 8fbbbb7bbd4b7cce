//! Starts of the service: the data folder, its pepper, plans, and failed starts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::json;
use support::ports::free_port;
use support::program::{Sandbox, finish, names};
use support::server::{GATE, Server, await_log, log, names_without_list};
use support::{CONTACTS_OF_1, secret};

#[test]
fn first_start_creates_all_files_and_prints_commands() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    let mode = |name: &str| fs::metadata(sandbox.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("data"), mode("data/api.gate"), mode("data/pepper")), (0o700, 0o600, 0o600));
    let list = ["keys.db", "keys.db-file", "keys.db-shm", "keys.db-wal"];
    let expected = [&["admin.gate", "api.gate"][..], &list, &["pepper"]].concat();
    assert_eq!(names(&sandbox.path("data")), expected);
    for name in list.iter().chain(&["admin.gate"]) {
        assert_eq!(mode(&format!("data/{name}")), 0o600, "{name}");
    }
    assert_eq!(
        server.startup_message.matches(&key).count(),
        2,
        "the key and the curl command: {}",
        server.startup_message
    );
    let curl = format!("curl -i -H 'X-API-Key: {key}' http://{}/api/v1/contacts", server.address);
    let pasted = server.startup_message.lines().find(|line| line.contains("curl")).unwrap().trim();
    assert_eq!(pasted, curl);
    let mut shell = Command::new("sh");
    let run = finish(shell.args(["-c", &format!("{pasted} --silent")]).env("NO_PROXY", "*"), b"");
    assert!(
        run.out.starts_with("HTTP/1.1 200 OK\r\n") && run.out.ends_with(CONTACTS_OF_1),
        "{run:?}"
    );
    assert!(
        run.out.contains("\r\nX-RateLimit-Limit: 1000\r\nX-RateLimit-Remaining: 999\r\n"),
        "{run:?}"
    );

    let list = sandbox.run_admin(&["list", GATE, "--json"]).json();
    assert_eq!(list["plans"], json!([{"name": "default", "sections": "100/minute, 1000/hour"}]));
    let first = &list["keys"][0];
    assert_eq!(
        (&first["account"], &first["env"], &first["plan"]),
        (&json!(1), &json!("live"), &json!("default"))
    );
    drop(server);

    // Later starts print no secret, and their command works.
    sandbox.watch_secret(&key);
    let server = Server::start(&sandbox, &[]);
    assert!(!server.startup_message.contains(secret(&key)), "{}", server.startup_message);
    let line = server.startup_message.lines().find(|line| line.contains(" issue ")).unwrap().trim();
    let mut shell = Command::new("sh");
    let run = finish(shell.args(["-c", line]).current_dir(sandbox.path(".")), b"");
    let reply = server.contacts(run.out.trim_end());
    assert_eq!(reply.json()["account"], 2);
}

#[test]
fn start_continues_an_interrupted_start() {
    // Interrupted before the pepper file got its name.
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("data")).unwrap();
    let server = Server::start(&sandbox, &[]);
    assert_eq!(names_without_list(&sandbox), ["api.gate", "pepper"]);
    let pepper = fs::read_to_string(sandbox.path("data/pepper")).unwrap();
    drop(server);
    // Interrupted before the gate was created.
    fs::remove_file(sandbox.path(GATE)).unwrap();
    let server = Server::start(&sandbox, &[]);
    assert_eq!(fs::read_to_string(sandbox.path("data/pepper")).unwrap(), pepper);
    let key = server.first_key().unwrap();
    assert_eq!(server.contacts(&key).code(), 200);
    drop(server);
    // Interrupted before the key was issued.
    fs::remove_file(sandbox.path(GATE)).unwrap();
    sandbox.run_admin(&["create", GATE, "--keys", "10"]).expect_status(0);
    let server = Server::start(&sandbox, &[]);
    assert_eq!(server.contacts(&server.first_key().unwrap()).code(), 200);
    drop(server);
    // A lost pepper is not replaced.
    fs::remove_file(sandbox.path("data/pepper")).unwrap();
    expect_start_failure(
        &sandbox,
        &[],
        &["data/api.gate has no pepper file next to it", "--pepper-file"],
    );
    assert_eq!(names_without_list(&sandbox), ["api.gate"]);
}

#[test]
fn concurrent_first_starts_create_one_gate_and_one_key() {
    let sandbox = Sandbox::new();
    let servers: Vec<Server> = thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| Server::start(&sandbox, &[]))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let keys: Vec<String> = servers.iter().filter_map(Server::first_key).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    for (server, remaining) in servers.iter().zip(["999", "998", "997", "996"]) {
        assert_eq!(server.contacts(&keys[0]).header("X-RateLimit-Remaining"), remaining);
    }
}

#[test]
fn given_pepper_is_used_instead_of_a_new_one() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("my pepper"), "c3".repeat(32)).unwrap();
    fs::set_permissions(sandbox.path("my pepper"), fs::Permissions::from_mode(0o600)).unwrap();
    let server = Server::start(&sandbox, &["--pepper-file", "my pepper"]);
    assert_eq!(names_without_list(&sandbox), ["api.gate"]);
    assert!(
        server.startup_message.contains("--pepper-file 'my pepper'"),
        "{}",
        server.startup_message
    );
    let key = server.first_key().unwrap();
    assert_eq!(server.contacts(&key).code(), 200);
    drop(server);
    expect_start_failure(&sandbox, &[], &["data/api.gate has no pepper file next to it"]);
    let args = ["serve", "--listen", "127.0.0.1:0", "--data", "data"];
    let mut other = sandbox.command(&args);
    sandbox
        .finish(other.env("KEYTALLY_PEPPER", "00".repeat(32)), b"")
        .expect_failure(&["data/api.gate: the pepper that was given does not belong"]);
    let mut short = sandbox.command(&args);
    sandbox
        .finish(short.env("KEYTALLY_PEPPER", "00".repeat(31)), b"")
        .expect_failure(&["has 31 bytes"]);
}

#[test]
fn tokens_under_an_old_pepper_are_named_at_the_start() {
    let sandbox = Sandbox::new();
    drop(Server::start(&sandbox, &[]));
    let old = fs::read_to_string(sandbox.path("data/pepper")).unwrap();
    let (old, new) = (old.trim_end(), "d4".repeat(32));
    let both = format!("{old},{new}");
    let args = ["issue", "data/api.gate", "--account", "1"];
    let mut issue = sandbox.command(&args);
    let issued = sandbox.finish(issue.env("KEYTALLY_PEPPER", &both), b"");
    sandbox.watch_secret(issued.out.trim());
    issued.expect_status(0);
    let start = || {
        let args = ["serve", "--listen", "127.0.0.1:0", "--data", "data"];
        sandbox.finish(sandbox.command(&args).env("KEYTALLY_PEPPER", &new), b"")
    };
    start().expect_failure(&[
        "data/admin.gate: the pepper that was given does not belong",
        "keytally rotate data/admin.gate",
        "stop the service and remove data/admin.gate",
    ]);
    // As the error says, the next start creates it.
    fs::remove_file(sandbox.path("data/admin.gate")).unwrap();
    drop(Server::start_with(&sandbox, &[], &[("KEYTALLY_PEPPER", &new)]));
    assert!(sandbox.path("data/admin.gate").exists());
}

/// Asserts that a start fails with an error that has all of `parts`.
#[track_caller]
fn expect_start_failure(sandbox: &Sandbox, more: &[&str], parts: &[&str]) {
    let args = [&["serve", "--listen", "127.0.0.1:0", "--data", "data"], more].concat();
    sandbox.finish(&mut sandbox.command(&args), b"").expect_failure(parts);
}

#[test]
fn printed_issue_command_names_the_pepper_in_use() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    assert!(
        server.startup_message.contains("--pepper-file data/pepper"),
        "{}",
        server.startup_message
    );
    let pepper = fs::read_to_string(sandbox.path("data/pepper")).unwrap();
    drop(server);
    // With a newer pepper in the environment, the file alone would be incomplete.
    let both = format!("{},{}", pepper.trim_end(), "d4".repeat(32));
    let server = Server::start_with(&sandbox, &[], &[("KEYTALLY_PEPPER", &both)]);
    assert!(!server.startup_message.contains("--pepper-file"), "{}", server.startup_message);
}

#[test]
fn peppers_in_the_wrong_order_are_logged() {
    let sandbox = Sandbox::new();
    drop(Server::start(&sandbox, &[]));
    let old = fs::read_to_string(sandbox.path("data/pepper")).unwrap();
    let (old, new) = (old.trim_end(), "d4".repeat(32));
    let start = |peppers: String| {
        drop(Server::start_with(&sandbox, &[], &[("KEYTALLY_PEPPER", &peppers)]));
        log(&sandbox)
    };
    assert!(!start(format!("{old},{new}")).contains("wrong order"));
    let logged = start(format!("{new},{old}"));
    let warning = "keytally: the peppers are probably in the wrong order: the last one is pepper 0 \
                   of the gate, after one that the gate does not have yet; give all peppers, \
                   newest last\n";
    assert_eq!(logged.matches(warning).count(), 1, "{logged}");
}

#[test]
fn health_check_follows_the_variable_of_the_address() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let health = |listen: &str| {
        let mut command = sandbox.command(&["health"]);
        sandbox.finish(command.env("KEYTALLY_LISTEN", listen), b"")
    };
    for listen in [format!("0.0.0.0:{port}"), "unix:socket".to_owned()] {
        assert_eq!(health(&listen).status, 3);
        let mut serve = sandbox.command(&["serve", "--data", "data"]);
        serve.env("KEYTALLY_LISTEN", &listen);
        let mut child = serve.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("Listening on ")));
        assert_eq!(health(&listen).status, 0, "{listen}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    health("8080").expect_usage_error(&["is not an address"]);
}

#[test]
fn failed_start_changes_nothing() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut serve = sandbox.command(&["serve", "--data", "data", "--listen", &address]);
    sandbox.finish(&mut serve, b"").expect_failure(&[
        "cannot listen on",
        &address,
        "in use",
        "--listen",
    ]);
    let mut serve = sandbox.command(&["serve", "--data", "data", "--listen", "banana"]);
    sandbox
        .finish(&mut serve, b"")
        .expect_usage_error(&["'--listen <ADDRESS>'", "\"banana\" is not an address;"]);
    let expect_usage_error = |more: &[&str], parts: &[&str]| {
        let args = [&["serve", "--listen", "127.0.0.1:0", "--data", "data"], more].concat();
        sandbox.finish(&mut sandbox.command(&args), b"").expect_usage_error(parts);
    };
    expect_usage_error(
        &["--plan", "default=100/fortnight"],
        &["\"fortnight\"", "the units are second"],
    );
    expect_usage_error(&["--plan", "a=1/s", "--plan", "b=1/h"], &["share their sections, windows"]);
    expect_usage_error(&["--plan", "a=1/s", "--plan", "a=2/s"], &["plan \"a\" is given twice"]);
    expect_usage_error(&["--describe", "day"], &["the plans have none for day"]);
    expect_usage_error(&["--scope", "a b"], &["at most 64 scopes"]);
    expect_usage_error(&["--teams", "-1"], &["'--teams <NUMBER>'"]);
    expect_usage_error(&["--teams", "0", "--plan", "a=1/s; team: 1/s"], &["team"]);
    expect_usage_error(
        &["--failures", "20/fortnight"],
        &[
            "'--failures <POLICY>'",
            "\"fortnight\"",
            "the units are second",
            "off disables the limit",
        ],
    );
    for name in ["Authorization", "cookie", "X API Key", "", "Authorization: Basic"] {
        expect_usage_error(&["--key-from", name], &["'--key-from <HEADER>'", "such as X-API-Key"]);
    }
    expect_usage_error(
        &["--key-from", "X-Token", "--key-from", "x-token"],
        &["\"x-token\" is named twice"],
    );
    for address in [
        "",
        ":80",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "::1:80",
        "[::1]",
        "[x]:80",
        "unix:",
    ] {
        expect_usage_error(
            &["--metrics-listen", address],
            &["'--metrics-listen <ADDRESS>'", "unix: and a path"],
        );
    }
    expect_start_failure(&sandbox, &["--pepper-file", "nix"], &["cannot open nix"]);
    assert_eq!(sandbox.names(), [] as [&str; 0]);

    fs::write(sandbox.path("file"), "").unwrap();
    for (folder, parts) in [
        ("file", &["file is not a folder"]),
        ("file/data", &["cannot create the folder file/data"]),
        ("/proc/keytally", &["cannot create the folder /proc/keytally"]),
    ] {
        let args = ["serve", "--listen", "127.0.0.1:0", "--data", folder];
        sandbox.finish(&mut sandbox.command(&args), b"").expect_failure(parts);
    }

    drop(Server::start(&sandbox, &[]));
    let before = fs::read(sandbox.path(GATE)).unwrap();
    let windows = ["windows and algorithm", "default = 100/minute, 1000/hour"];
    expect_start_failure(
        &sandbox,
        &["--plan", "new=1/minute, 2/hour", "--plan", "default=1/day"],
        &windows,
    );
    expect_start_failure(
        &sandbox,
        &["--plan", "new=1/minute, 2/hour", "--plan", "default=sliding 1/minute, 2/hour"],
        &windows,
    );
    assert!(fs::read(sandbox.path(GATE)).unwrap() == before, "a failed start changed the gate");
    let mut other = before.clone();
    // Byte 8 is the format version.
    other[8] = 99;
    fs::write(sandbox.path(GATE), &other).unwrap();
    expect_start_failure(&sandbox, &[], &["data/api.gate", "version 99"]);
    fs::set_permissions(sandbox.path("data/pepper"), fs::Permissions::from_mode(0o664)).unwrap();
    expect_start_failure(&sandbox, &[], &["data/pepper", "0664", "fix it with: chmod "]);
}

#[test]
fn start_warns_of_quotas_that_never_deny() {
    let sandbox = Sandbox::new();
    let plan = ["--plan", "default=100/minute, 50/hour"];
    let _server =
        Server::start(&sandbox, &[&plan[..], &["--failures", "20/minute, 10/hour"]].concat());
    await_log(
        &sandbox,
        &["warning: 100/minute in plan default can never deny a request", "50/hour"],
    );
    await_log(&sandbox, &["warning: 20/minute in --failures can never deny a request", "10/hour"]);
}

#[test]
fn plans_of_a_later_start_are_added_or_changed() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    assert_eq!(server.contacts(&key).header("X-RateLimit-Remaining"), "999");
    drop(server);
    let plans = ["--plan", "pro=200/minute, 4000/hour", "--plan", "default=50/minute, 600/hour"];
    let server = Server::start(&sandbox, &plans);
    let expected = "Plans: default = 50/minute, 600/hour; pro = 200/minute, 4000/hour.";
    assert!(server.startup_message.contains(expected), "{}", server.startup_message);
    let reply = server.contacts(&key);
    assert_eq!(
        (reply.header("X-RateLimit-Limit"), reply.header("X-RateLimit-Remaining")),
        ("600", "598")
    );
}

#[test]
fn gate_is_created_with_scopes_and_teams() {
    let sandbox = Sandbox::new();
    let plan = ["--plan", "default=90/hour, 5/31d; team: 6/31d", "--describe", "31d"];
    let options = [&plan[..], &["--scope", "read", "--scope", "write", "--teams", "2"]].concat();
    let server = Server::start(&sandbox, &options);
    assert!(server.startup_message.contains("Scopes: read, write."), "{}", server.startup_message);
    assert!(
        server.startup_message.contains("for account 1 with all scopes."),
        "{}",
        server.startup_message
    );
    let command = "api.gate --account 2 --scope read --scope write --pepper-file ";
    assert!(server.startup_message.contains(command), "{}", server.startup_message);
    let key = format!("X-API-Key: {}", server.first_key().unwrap());
    let reply = server.request("GET /auth", &[key.as_bytes(), b"X-Need: read, write"]);
    assert_eq!((reply.code(), reply.header("X-RateLimit-Limit")), (200, "5"), "{reply:?}");
    sandbox.new_key(&["--account", "2", "--scope", "write"]);
    let third = ["issue", GATE, "--account", "3", "--pepper-file", "data/pepper"];
    sandbox
        .finish(&mut sandbox.command(&third), b"")
        .expect_failure(&["the gate has room for 2 teams"]);
    drop(server);

    // A later start may have the same options or none, and no others.
    let server = Server::start(&sandbox, &options);
    assert!(server.startup_message.contains("Scopes: read, write."), "{}", server.startup_message);
    drop(server);
    drop(Server::start(&sandbox, &[]));
    expect_start_failure(
        &sandbox,
        &["--scope", "admin"],
        &["--scope admin: ", "created with other scopes, which cannot be changed: read, write"],
    );
    expect_start_failure(
        &sandbox,
        &["--describe", "hour"],
        &["--describe hour: the gate was created without it, which cannot be changed"],
    );
    expect_start_failure(
        &sandbox,
        &["--teams", "3"],
        &["--teams 3: the gate was created for 2 teams, which cannot be changed"],
    );
}
