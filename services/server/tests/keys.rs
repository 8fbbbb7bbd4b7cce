//! The list of keys in the program: the service with its API, the commands, and the
//! options that refuse what is not safe.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses what it needs"
)]
mod support;

use core::net::SocketAddr;
use core::time::Duration;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::{fs, thread};

use rustix::process::Signal;
use serde_json::Value;
use support::program::{Run, Sandbox, names};
use support::server::{LOG, Server, await_log};
use support::wire::Wire;

/// The arguments that name the folder of the service.
const DATA: [&str; 2] = ["--data", "data"];

/// Runs the program with the pepper of the folder.
fn run(sandbox: &Sandbox, args: &[&str]) -> Run {
    sandbox.finish(&mut sandbox.command(args), b"")
}

/// Runs `keytally keys` on the folder of the service.
fn keys(sandbox: &Sandbox, args: &[&str]) -> Value {
    run(sandbox, &[&["keys"], args, &DATA, &["--json"]].concat()).json()
}

/// Makes a token. Returns it.
fn token(sandbox: &Sandbox, args: &[&str]) -> String {
    let token = keys(sandbox, &[&["token", "create", "test"], args].concat());
    sandbox.watch_secret(token["key"].as_str().unwrap())
}

/// Sends a request with a body to the API. Returns the status and the answer.
fn post(server: &Server, token: &str, path: &str, body: &str) -> (u16, Value) {
    post_to(server.address, token, path, body)
}

/// Sends a request with a body to the API at an address. Returns the status and the answer.
fn post_to(address: SocketAddr, token: &str, path: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "POST /keys/api/v1/{path} HTTP/1.1\r\nHost: test\r\nX-API-Key: {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut wire = Wire::to(address);
    wire.send(request.as_bytes());
    let reply = wire.read(false).unwrap();
    (reply.code(), serde_json::from_str(&reply.body).unwrap())
}

#[test]
fn service_and_commands_share_one_list() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    assert!(
        server.startup_message.contains("keys token create NAME"),
        "{}",
        server.startup_message
    );
    let operator = token(&sandbox, &[]);
    let (status, team) = post(&server, &operator, "teams", r#"{"name": "Acme", "team": 7}"#);
    assert_eq!((status, &team["team"]), (201, &7.into()));
    let owner = token(&sandbox, &["--team", "7", "--role", "owner"]);
    let (status, key) = post(&server, &owner, "keys", r#"{"name": "a", "env": "live"}"#);
    assert_eq!(status, 201);
    let text = sandbox.watch_secret(key["key"].as_str().unwrap());
    assert_eq!(server.contacts(&text).code(), 200);

    let entries = keys(&sandbox, &["log"]);
    let entry = &entries["entries"][0];
    assert_eq!((&entry["action"], &entry["address"]), (&"key.create".into(), &"127.0.0.1".into()));
    let rules = ["team", "set", "7", "--longest-days", "60", "--live-role", "owner"];
    assert_eq!(keys(&sandbox, &rules)["settings"]["longest_days"], 60);
    let never = keys(&sandbox, &["team", "set", "7", "--longest-days", "never"]);
    assert_eq!(
        (&never["settings"]["longest_days"], &never["name"]),
        (&Value::Null, &"Acme".into())
    );
    for (args, sentence) in [
        (&["7"][..], "required"),
        (&["7", "--longest-days", "0"], "it must be a number of days from 1 to 3650, or never"),
        (&["7", "--live-role", "viewer"], "it must be member, admin or owner"),
    ] {
        let refused = run(&sandbox, &[&["keys", "team", "set"], args, &DATA].concat());
        refused.expect_usage_error(&[sentence]);
    }
    let log = |args: &[&str]| keys(&sandbox, &[&["log"], args].concat())["entries"].clone();
    let made = log(&["--actor", "token", "--action", "key", "--from", "2026-01-01T00:00:00Z"]);
    assert_eq!(made.as_array().unwrap().len(), 1);
    assert_eq!(log(&["--actor", "operator", "--action", "key"]), Value::Array(Vec::new()));
    assert_eq!(log(&["--to", "2026-01-01T00:00:00Z"]), Value::Array(Vec::new()));
    for (args, sentence) in [
        (&["--action", "Key"][..], "it must be an action, such as key.revoke"),
        (&["--from", "yesterday"], "it must be a time, such as"),
        (
            &["--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"],
            "--to: it must be later than --from",
        ),
    ] {
        let refused = run(&sandbox, &[&["keys", "log"], args, &DATA].concat());
        refused.expect_usage_error(&[sentence]);
    }
    keys(&sandbox, &["member", "set", "7", "ann", "--role", "viewer"]);
    assert_eq!(keys(&sandbox, &["member", "list", "7"])["members"][0]["role"], "viewer");
    keys(&sandbox, &["member", "remove", "7", "1"]);
    let link = |args: &[&str]| keys(&sandbox, &[&["link", "--team", "7"], args].concat());
    let bob = link(&["--user", "bob", "--role", "admin"]);
    let begin = format!("http://localhost:{}/keys/in#", server.address.port());
    assert!(bob["url"].as_str().unwrap().starts_with(&begin), "{begin}");
    let url = ["--user", "bob", "--public-url", "https://keys.example"];
    assert!(link(&url)["url"].as_str().unwrap().starts_with("https://keys.example/keys/in#"));
    // A link does not change the role of a member, and no command takes the last owner away.
    assert_eq!(link(&["--user", "bob"])["role"], "admin");
    keys(&sandbox, &["member", "set", "7", "ann", "--role", "owner"]);
    assert_eq!(link(&["--user", "ann", "--role", "viewer"])["role"], "viewer");
    for args in [&["set", "7", "ann", "--role", "viewer"][..], &["remove", "7", "1"]] {
        let refused = run(&sandbox, &[&["keys", "member"], args, &DATA].concat());
        refused.expect_failure(&["the team would have no owner"]);
    }
    let members = keys(&sandbox, &["member", "list", "7"]);
    assert_eq!(members["members"][0]["role"], "owner");
    let tokens = keys(&sandbox, &["token", "list", "--team", "7"]);
    let id = tokens["tokens"][0]["token"].as_str().unwrap().to_owned();
    keys(&sandbox, &["token", "revoke", &id]);
    assert_eq!(post(&server, &owner, "keys", "{}").0, 401);
    let compared = keys(&sandbox, &["reconcile", "--accept"]);
    assert!(compared["differences"].as_array().unwrap().iter().all(|one| one["settled"] == true));
    assert!(server.metric("keytally_list_applied") >= 4);
    assert_eq!(server.metric("keytally_list_open"), 0);

    // An export has every row and no secret, which the sandbox checks.
    let export = run(&sandbox, &["keys", "export", "--data", "data"]).expect_status(0);
    let lines: Vec<Value> =
        export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["team", "key", "entry"] {
        assert!(lines.iter().any(|line| line.get(name).is_some()), "{name}: {export}");
    }
    drop(server);
    let path = format!("sqlite:{}", sandbox.path("other.db").display());
    let moved = keys(&sandbox, &["migrate-to", &path]);
    assert!(moved["rows"].as_u64().unwrap() > 8);
    // The old list names the new one.
    for command in [&["keys", "migrate-to", &path][..], &["keys", "team", "list"]] {
        let refused = run(&sandbox, &[command, &DATA].concat());
        refused.expect_failure(&["was moved to sqlite:/", "/other.db", "KEYTALLY_DATABASE"]);
    }
    let refused = run(&sandbox, &[&["serve", "--listen", "127.0.0.1:0"][..], &DATA].concat());
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(refused.err.contains("was moved to sqlite:/"), "{refused:?}");
    let server = Server::start(&sandbox, &["--database", &path]);
    assert_eq!(server.contacts(&text).code(), 200);
    assert_eq!(post(&server, &operator, "teams", r#"{"name": "New"}"#).1["team"], 8);
}

#[test]
fn token_is_refused_with_peppers_in_the_wrong_order() {
    let sandbox = Sandbox::new();
    drop(Server::start(&sandbox, &[]));
    let old = fs::read_to_string(sandbox.path("data/pepper")).unwrap();
    let (old, new) = (old.trim_end(), "d4".repeat(32));
    let create = |peppers: String| {
        let mut command = sandbox.command(&["keys", "token", "create", "test", "--data", "data"]);
        sandbox.finish(command.env("KEYTALLY_PEPPER", peppers), b"")
    };
    let wrong = create(format!("{new},{old}"));
    wrong.expect_failure(&["nothing was changed", "peppers are probably in the wrong order"]);
    assert_eq!(keys(&sandbox, &["token", "list"])["tokens"].as_array().unwrap().len(), 0);
    assert_eq!(create(format!("{old},{new}")).status, 0);
}

#[test]
fn role_without_a_team_is_a_usage_error() {
    let sandbox = Sandbox::new();
    drop(Server::start(&sandbox, &[]));
    for args in [&["token", "create", "test"][..], &["link"]] {
        let run = run(&sandbox, &[&["keys"], args, &["--role", "viewer"], &DATA].concat());
        run.expect_usage_error(&["--team <NUMBER>"]);
    }
    assert_eq!(keys(&sandbox, &["token", "list"])["tokens"].as_array().unwrap().len(), 0);
}

/// Sends a request to the API. Returns the reply.
fn get(server: &Server, token: &str, path: &str) -> support::wire::Reply {
    server.get(&format!("/keys/api/v1/{path}"), token)
}

/// Returns the names of the teams of the list, without that of the key that the first start issues.
fn teams(sandbox: &Sandbox) -> Vec<String> {
    let teams = keys(sandbox, &["team", "list"]);
    let others = teams["teams"].as_array().unwrap().iter().filter(|team| team["team"] != 1);
    others.map(|team| team["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn removed_database_is_refused_until_it_is_back() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let operator = token(&sandbox, &[]);
    assert_eq!(post(&server, &operator, "teams", r#"{"name": "Acme", "team": 7}"#).0, 201);
    let new = r#"{"name": "a", "env": "live"}"#;
    let key = post(&server, &operator, "keys?team=7", new).1;
    let (text, id) = (key["key"].as_str().unwrap(), key["key_id"].as_str().unwrap());
    sandbox.watch_secret(text);
    fs::rename(sandbox.path("data/keys.db"), sandbox.path("data/away.db")).unwrap();

    let (status, problem) = post(&server, &operator, "keys?team=7", new);
    let sentence = "data/keys.db was removed or replaced while it was in use";
    assert_eq!(status, 503, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(sentence), "{problem}");
    assert_eq!(get(&server, &operator, "keys?team=7").code(), 503);
    await_log(&sandbox, &["the gate does not follow the list", sentence]);
    // No command begins an empty list.
    let listed = run(&sandbox, &[&["keys", "team", "list"], &DATA[..]].concat());
    listed.expect_failure(&["there is no list of keys in data/keys.db", "KEYTALLY_DATABASE"]);
    assert!(!sandbox.path("data/keys.db").exists());
    // The gate still decides, and takes a revocation.
    assert_eq!(server.contacts(text).code(), 200);
    let (status, revoked) = post(&server, &operator, &format!("keys/{id}/revoke?team=7"), "{}");
    assert_eq!((status, &revoked["listed"]), (200, &false.into()));
    assert_eq!(server.contacts(text).code(), 401);

    fs::rename(sandbox.path("data/away.db"), sandbox.path("data/keys.db")).unwrap();
    assert_eq!(post(&server, &operator, "teams", r#"{"name": "Second"}"#).0, 201);
    assert_eq!(teams(&sandbox), ["Acme", "Second"]);
}

#[test]
fn database_replaced_next_to_its_log_is_refused() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let operator = token(&sandbox, &[]);
    assert_eq!(post(&server, &operator, "teams", r#"{"name": "Acme", "team": 7}"#).0, 201);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let (list, log) = (sandbox.path("data/keys.db"), sandbox.path("data/keys.db-wal"));
    assert!(!log.exists());
    fs::copy(&list, sandbox.path("data/copy.db")).unwrap();
    let server = Server::start(&sandbox, &[]);
    for name in ["Second", "Third"] {
        assert_eq!(post(&server, &operator, "teams", &format!(r#"{{"name": "{name}"}}"#)).0, 201);
    }
    fs::rename(sandbox.path("data/copy.db"), &list).unwrap();
    assert_eq!(post(&server, &operator, "teams", r#"{"name": "Fourth"}"#).0, 503);
    let before = fs::read(&list).unwrap();
    let refuse = || {
        for args in [&["team", "list"][..], &["team", "create", "Fifth"]] {
            let run = run(&sandbox, &[&["keys"], args, &DATA].concat());
            run.expect_failure(&["data/keys.db-wal is of another file", "remove data/keys.db-wal"]);
        }
    };
    refuse();
    // Killed or stopped, the service leaves the log.
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(log.metadata().unwrap().len() > 0);
    refuse();
    let serve = run(&sandbox, &[&["serve", "--listen", "127.0.0.1:0"], &DATA[..]].concat());
    assert!(serve.err.contains("data/keys.db-wal is of another file"), "{serve:?}");
    assert_eq!(fs::read(&list).unwrap(), before);
    // The copy is whole.
    for name in ["data/keys.db-wal", "data/keys.db-shm"] {
        fs::remove_file(sandbox.path(name)).unwrap();
    }
    assert_eq!(teams(&sandbox), ["Acme"]);

    // A killed service leaves the log, and a copy of the whole folder continues with it.
    let server = Server::start(&sandbox, &[]);
    assert_eq!(post(&server, &operator, "teams", r#"{"name": "Sixth"}"#).0, 201);
    server.signal(Signal::KILL);
    server.wait();
    let folder = sandbox.path(".");
    let copied = Command::new("cp").args(["-a", "data", "moved"]).current_dir(folder).status();
    assert!(copied.unwrap().success());
    fs::remove_dir_all(sandbox.path("data")).unwrap();
    fs::rename(sandbox.path("moved"), sandbox.path("data")).unwrap();
    assert_eq!(teams(&sandbox), ["Acme", "Sixth"]);
}

#[test]
fn killed_move_of_a_list_is_repeated() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let operator = token(&sandbox, &[]);
    assert_eq!(post(&server, &operator, "teams", r#"{"name": "Acme", "team": 7}"#).0, 201);
    drop(server);
    keys(&sandbox, &["team", "list"]);
    let list = sandbox.path("data/keys.db");
    let own = format!("sqlite:{}", list.display());
    let refused = run(&sandbox, &[&["keys", "migrate-to", &own], &DATA[..]].concat());
    refused.expect_failure(&["is the database of this list already"]);
    let before = fs::read(&list).unwrap();
    let first = keys(&sandbox, &["migrate-to", "sqlite:other.db"]);
    // As if it was killed after the copy, before it marked the list as moved.
    fs::write(&list, &before).unwrap();
    assert_eq!(keys(&sandbox, &["migrate-to", "sqlite:other.db"]), first);
    run(&sandbox, &[&["keys", "team", "list"], &DATA[..]].concat())
        .expect_failure(&["was moved to"]);
    // A list that has changed since is not taken for the copy.
    fs::write(&list, &before).unwrap();
    keys(&sandbox, &["team", "create", "Second"]);
    let refused = run(&sandbox, &[&["keys", "migrate-to", "sqlite:other.db"], &DATA[..]].concat());
    refused.expect_failure(&["has another list of keys already"]);
    assert_eq!(teams(&sandbox), ["Acme", "Second"]);
}

#[test]
fn backup_of_a_list_in_use_is_restored() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let operator = token(&sandbox, &[]);
    assert_eq!(post(&server, &operator, "teams", r#"{"name": "Acme", "team": 7}"#).0, 201);
    let copied = keys(&sandbox, &["backup", "backup.db"]);
    assert_eq!(copied["file"], "backup.db");
    let mode = sandbox.path("backup.db").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = run(&sandbox, &[&["keys", "backup", "backup.db"], &DATA[..]].concat());
    again.expect_failure(&["backup.db", "exists"]);
    let none = run(&sandbox, &[&["keys", "backup", "none/backup.db"], &DATA[..]].concat());
    none.expect_failure(&["cannot write none/backup.db"]);
    let new = r#"{"name": "a", "env": "live"}"#;
    let key = post(&server, &operator, "keys?team=7", new).1;
    let text = sandbox.watch_secret(key["key"].as_str().unwrap());
    server.signal(Signal::TERM);
    assert!(server.wait().success());

    for name in ["data/keys.db-wal", "data/keys.db-shm"] {
        let _ = fs::remove_file(sandbox.path(name));
    }
    fs::copy(sandbox.path("backup.db"), sandbox.path("data/keys.db")).unwrap();
    let server = Server::start(&sandbox, &[]);
    let (status, problem) = post(&server, &operator, "keys?team=7", new);
    assert_eq!(status, 503, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("an old copy"), "{problem}");
    assert_eq!(server.contacts(&text).code(), 200);
    let compared = keys(&sandbox, &["reconcile", "--accept"]);
    assert_eq!(compared["differences"][0]["settled"], true);
    let made = post(&server, &operator, "keys?team=7", new);
    assert_eq!(made.0, 201, "{}", made.1);
    sandbox.watch_secret(made.1["key"].as_str().unwrap());
    let listed: Value = serde_json::from_str(&get(&server, &operator, "keys?team=7").body).unwrap();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
}

#[test]
fn invalid_tokens_beyond_the_limit_get_429() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--failures", "2/31d"]);
    let operator = token(&sandbox, &[]);
    let codes: Vec<u16> =
        ["keys", "teams", "nothing"].map(|path| get(&server, "wrong", path).code()).to_vec();
    assert_eq!(codes, [401, 401, 429]);
    let refused = get(&server, "wrong", "keys");
    assert_eq!(refused.code(), 429);
    assert_eq!(refused.header("Content-Type"), "application/problem+json");
    assert!((1..=31 * 86_400).contains(&refused.header("Retry-After").parse::<u32>().unwrap()));
    assert!(refused.body.contains("this address has sent too many invalid tokens"), "{refused:?}");
    for name in ["X-RateLimit-Limit", "RateLimit", "WWW-Authenticate"] {
        assert!(!refused.has(name), "{refused:?}");
    }
    // A valid token passes, and a missing one does not count. Keys of the API count together.
    assert_eq!(get(&server, &operator, "teams").code(), 200);
    assert_eq!(server.request("GET /keys/api/v1/teams", &[]).code(), 401);
    assert_eq!(server.contacts("wrong").code(), 429);
    assert_eq!(server.metric("keytally_guesses_total{action=\"refused\"}"), 3);
    let tokens = "keytally_token_refusals_total";
    let invalid = format!("{tokens}{{outcome=\"invalid_key\",reason=\"malformed\"}}");
    assert_eq!(server.metric(&invalid), 4);
    assert_eq!(server.metric(&format!("{tokens}{{outcome=\"missing_key\",reason=\"none\"}}")), 1);
    await_log(&sandbox, &["invalid_key reason=malformed retry_after=", "route=keys"]);
}

#[test]
fn unknown_path_of_the_api_is_a_problem() {
    let sandbox = Sandbox::new();
    for more in [&[][..], &["--base-path", "/internal"]] {
        let server = Server::start(&sandbox, more);
        let operator = token(&sandbox, &[]);
        for path in ["", "/", "/nothing", "/keys/a/b/c", "/teams/"] {
            let reply = server.get(&format!("/keys/api/v1{path}"), &operator);
            assert_eq!(reply.code(), 404, "{path}");
            assert_eq!(reply.header("Content-Type"), "application/problem+json", "{path}");
            assert!(reply.body.contains("there is no such route"), "{path}");
        }
    }
}

#[test]
fn link_has_the_url_that_the_service_would_take() {
    let sandbox = Sandbox::new();
    drop(Server::start(&sandbox, &[]));
    for url in [
        "",
        "a.example",
        "ftp://a.example",
        "https://u:p@a.example",
        "https://a.example?b",
        "https://a.example/a b",
        "https://a.example/..",
        "javascript://a",
    ] {
        let run = run(&sandbox, &[&["keys", "link", "--public-url", url], &DATA[..]].concat());
        run.expect_usage_error(&["--public-url", "it must be a URL such as https://"]);
    }
    for (url, begin) in [
        ("https://a.example/", "https://a.example/keys/in#"),
        ("https://a.example/internal", "https://a.example/internal/keys/in#"),
    ] {
        let link = keys(&sandbox, &["link", "--public-url", url]);
        assert!(link["url"].as_str().unwrap().starts_with(begin), "{link}");
    }
}

/// Sends a request to the page. Returns the reply.
fn page(server: &Server, head: &str, body: &str) -> support::wire::Reply {
    let request = format!(
        "{head} HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut wire = Wire::to(server.address);
    wire.send(request.as_bytes());
    wire.read(false).unwrap()
}

/// Returns the command that a start prints for a link to the page.
fn printed_command(server: &Server) -> &str {
    let lines = server.startup_message.lines().skip_while(|line| !line.contains(" link to the"));
    lines.skip(1).find(|line| !line.is_empty()).unwrap().trim()
}

#[test]
fn printed_command_makes_a_link_in_any_folder() {
    let own = ["--pepper-file", "own pepper", "--database", "sqlite:data/list.db"];
    for (args, is_own) in [(&[][..], false), (&own[..], true)] {
        let sandbox = Sandbox::new();
        let pepper = sandbox.path("own pepper");
        fs::write(&pepper, &sandbox.pepper).unwrap();
        fs::set_permissions(&pepper, fs::Permissions::from_mode(0o600)).unwrap();
        let server = Server::start(&sandbox, args);
        let command = printed_command(&server);
        assert!(!command.contains("--public-url"), "{command}");
        assert_eq!(command.contains("/own pepper'"), is_own, "{command}");
        assert_eq!(command.contains("--database"), is_own, "{command}");
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env_clear().current_dir("/");
        let run = sandbox.finish(&mut shell, b"");
        let begin = format!("http://localhost:{}/keys/in#", server.address.port());
        assert!(run.out.starts_with(&begin), "{command}: {run:?}");
        // The page shows the same line.
        let page = server.request("GET /keys/in", &[]).body;
        let shown = page.replace("&#39;", "'");
        assert!(shown.contains(&format!("<code>{command}</code>")), "{shown}");
        server.signal(Signal::TERM);
        assert!(server.wait().success());
    }
    // What has a secret is not in the line, and is named.
    let sandbox = Sandbox::new();
    let variables =
        [("KEYTALLY_PEPPER", &*sandbox.pepper), ("KEYTALLY_DATABASE", "sqlite:data/list.db")];
    let server = Server::start_with(&sandbox, &[], &variables);
    let remark = "page of keys, with KEYTALLY_PEPPER and KEYTALLY_DATABASE as now:";
    assert!(server.startup_message.contains(remark), "{}", server.startup_message);
    let page = server.request("GET /keys/in", &[]).body;
    let variables = "<code>KEYTALLY_PEPPER</code> and <code>KEYTALLY_DATABASE</code> must be set";
    assert!(page.contains(variables), "{page}");
    assert!(!page.contains("list.db") && !page.contains(&sandbox.pepper), "{page}");
}

#[test]
fn printed_link_signs_in_to_the_page_once() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--base-path", "/internal"]);
    let port = server.address.port();
    let line = server.startup_message.lines().find(|line| line.starts_with("Keys page: "));
    let link = line.unwrap().split(' ').nth(2).unwrap();
    let begin = format!("http://localhost:{port}/internal/keys/in#");
    let code = link.strip_prefix(&begin).unwrap();
    let sign_in = || page(&server, "POST /internal/keys/in", &format!("code={code}"));
    let reply = sign_in();
    assert_eq!((reply.code(), reply.header("Location")), (303, "/internal/keys"));
    let cookie = reply.header("Set-Cookie").split(';').next().unwrap().to_owned();
    assert_eq!(sign_in().code(), 403);
    let cookie = format!("Cookie: {cookie}");
    for (path, status) in [("/internal/keys/teams", 200), ("/internal/keys/x", 404), ("/keys", 404)]
    {
        let reply = server.request(&format!("GET {path}"), &[cookie.as_bytes()]);
        assert_eq!(reply.code(), status, "{path}");
    }
    for path in ["internal", "/a/../b", "/a?b"] {
        let run = run(&sandbox, &["serve", "--data", "data", "--base-path", path]);
        run.expect_usage_error(&["it must be a path"]);
    }
}

/// Returns the sums of the members `requests`, `denied_key` and `units` of a key's hours.
fn hours(server: &Server, token: &str, id: &str) -> [i64; 3] {
    let path = format!("GET /keys/api/v1/keys/{id}/usage?width=hour");
    let reply = server.request(&path, &[format!("X-API-Key: {token}").as_bytes()]);
    assert_eq!(reply.code(), 200);
    let answer: Value = serde_json::from_str(&reply.body).unwrap();
    let buckets = answer["buckets"].as_array().unwrap();
    ["requests", "denied_key", "units"]
        .map(|name| buckets.iter().map(|bucket| bucket[name].as_i64().unwrap()).sum())
}

#[test]
fn usage_by_hour_is_what_the_requests_came_to() {
    let sandbox = Sandbox::new();
    // No window ends during the test.
    let plan = ["--plan", "default=100/month"];
    let server = Server::start(&sandbox, &plan);
    let operator = token(&sandbox, &[]);
    post(&server, &operator, "teams", r#"{"name": "Acme"}"#);
    let (_, key) = post(&server, &operator, "keys?team=1", r#"{"name": "a", "env": "live"}"#);
    let text = sandbox.watch_secret(key["key"].as_str().unwrap());
    let id = key["key_id"].as_str().unwrap().to_owned();
    let codes: Vec<u16> = (0..150).map(|_| server.contacts(&text).code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 429).count(), 50);
    let is_sampled = || {
        thread::sleep(Duration::from_millis(100));
        let [requests, denied, _] = hours(&server, &operator, &id);
        // A sample may be taken between two requests.
        requests + denied >= 150
    };
    assert!((0..600).any(|_| is_sampled()), "no sample has all requests");
    assert_eq!(hours(&server, &operator, &id), [100, 50, 100]);
    assert_eq!(server.metric("keytally_sampler_lag_seconds"), 0);
    assert_eq!(server.metric("keytally_sampler_errors_total"), 0);

    // A service that stops adds the rest, and the next one adds nothing twice.
    assert_eq!(server.contacts(&text).code(), 429);
    server.signal(Signal::TERM);
    server.wait();
    let server = Server::start(&sandbox, &plan);
    assert_eq!(hours(&server, &operator, &id), [100, 51, 100]);
    drop(server);

    // What a command ended stays ended, unless --usage says otherwise.
    let pepper = ["--pepper-file", "data/pepper"];
    run(&sandbox, &[&["usage", "off", "data/api.gate"], &pepper[..]].concat()).expect_status(0);
    let shown = || run(&sandbox, &[&["usage", "show", "data/api.gate"], &pepper[..]].concat());
    // A request is answered after counting has begun or ended.
    let restart = |args: &[&str]| {
        let code = Server::start(&sandbox, &[&plan[..], args].concat()).contacts(&text).code();
        assert_eq!(code, 429);
    };
    restart(&[]);
    assert!(!shown().out.contains(&id), "{:?}", shown());
    restart(&["--usage", "on"]);
    assert!(shown().out.contains(&id), "{:?}", shown());
    restart(&["--usage", "off"]);
    assert!(!shown().out.contains(&id), "{:?}", shown());
}

#[test]
fn api_is_what_openapi_json_describes() {
    let schemathesis = std::env::var_os("KEYTALLY_TEST_SCHEMATHESIS");
    let schemathesis = schemathesis.expect("`cargo xtask test keys` sets this");
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    keys(&sandbox, &["team", "create", "Acme"]);
    // Each token has limits.
    let tokens: Vec<_> = (0..16).map(|_| token(&sandbox, &[])).collect();
    let is_full = std::env::var_os("KEYTALLY_FULL").is_some();
    let url = format!("http://{}/keys/api/v1/openapi.json", server.address);
    let mut command = Command::new(schemathesis);
    command.args(["run", &url, "--checks=all", "--workers=1", "--no-color", "--seed=1"]);
    command.arg(format!("--max-examples={}", if is_full { 100 } else { 5 }));
    command.env("KEYTALLY_TOKENS", tokens.join(" ")).env("SCHEMATHESIS_HOOKS", "keys_hooks");
    command.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/languages"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(sandbox.path("."));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let operations = text.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    assert_eq!(operations, Some("23"), "{text}");
}

/// A header field of a request that may be sent again.
const ONCE: &str = "Idempotency-Key: once\r\n";

/// Sends a request with more header fields, and keeps its answer. Returns the answer.
fn call(
    server: &Server,
    answers: &mut Vec<String>,
    token: &str,
    (request, fields): (&str, &str),
    body: &str,
) -> (u16, Value) {
    let mut wire = Wire::to(server.address);
    let (method, path) = request.split_once(' ').unwrap();
    let request = format!(
        "{method} /keys/api/v1/{path} HTTP/1.1\r\nHost: test\r\nX-API-Key: {token}\r\n\
         Content-Type: application/json\r\n{fields}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    wire.send(request.as_bytes());
    let reply = wire.read(false).unwrap();
    answers.push(format!("{reply:?}"));
    (reply.code(), serde_json::from_str(&reply.body).unwrap_or_default())
}

/// Asserts that no file below a folder contains one of these texts. Returns the number of files.
fn assert_in_no_file(folder: &Path, texts: &[String]) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += assert_in_no_file(&path, texts);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for text in texts {
            let is_there = bytes.windows(text.len()).any(|at| at == text.as_bytes());
            assert!(!is_there, "{} has a secret", path.display());
        }
        files += 1;
    }
    files
}

#[test]
fn secret_is_in_one_answer_and_in_no_file() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let operator = token(&sandbox, &[]);
    let mut answers = Vec::new();
    let mut secrets = Vec::new();
    let mut make = |token: &str, request: &str, body: &str, status: u16| {
        let (code, answer) = call(&server, &mut answers, token, (request, ONCE), body);
        assert_eq!(code, status, "{request}: {answer}");
        for name in ["key", "url"] {
            if let Some(text) = answer[name].as_str() {
                // The last characters of a key are secret, and the code of a link.
                secrets.push(text[text.len() - 28..].to_owned());
                sandbox.watch_secret(text);
            }
        }
        answer
    };
    let text = |answer: &Value, name: &str| answer[name].as_str().unwrap().to_owned();
    keys(&sandbox, &["team", "create", "Acme"]);
    let owner = make(&operator, "POST tokens?team=1", r#"{"name": "t", "role": "owner"}"#, 201);
    let owner = text(&owner, "key");
    let new = r#"{"name": "billing", "env": "live"}"#;
    let made = make(&owner, "POST keys", new, 201);
    let (key, id) = (text(&made, "key"), text(&made, "key_id"));
    // Sent again with the same Idempotency-Key.
    assert_eq!(text(&make(&owner, "POST keys", new, 409), "key_id"), id);
    let token = make(&owner, "POST tokens", r#"{"name": "t", "role": "viewer"}"#, 409);
    assert!(token["key"].is_null());
    let link = r#"{"user": "ann", "role": "admin"}"#;
    make(&owner, "POST sessions", link, 201);
    let second = make(&operator, "POST tokens?team=1", r#"{"name": "u", "role": "owner"}"#, 409);
    assert!(second["key"].is_null());
    let rotate = format!("POST keys/{id}/rotate");
    make(&owner, &rotate, r#"{"grace_s": 3600}"#, 409);
    let backend = keys(&sandbox, &["token", "create", "b", "--team", "1", "--role", "owner"]);
    let backend = sandbox.watch_secret(backend["key"].as_str().unwrap());
    let rotated = text(&make(&backend, &rotate, r#"{"grace_s": 3600}"#, 200), "key");
    make(&backend, &rotate, r#"{"grace_s": 3600}"#, 409);
    // Both secrets are used, and sent where they are not expected.
    for key in [&key, &rotated] {
        assert_eq!(server.contacts(key).code(), 200);
        let secret = &key[key.len() - 28..];
        for request in [
            format!("GET keys/{key}"),
            format!("GET keys?search={secret}&{secret}=1"),
            format!("GET keys?state={key}&env={key}"),
            format!("GET log?key={key}"),
            format!("GET keys?team={secret}"),
            format!("DELETE tokens/{key}"),
            format!("GET {key}"),
        ] {
            let (code, _) = call(&server, &mut answers, &backend, (&request, ""), "");
            assert!((400..500).contains(&code), "{request}: {code}");
        }
        for body in [
            format!(r#"{{"name": 1, "{key}": 1}}"#),
            format!(r#"{{"name": "a", "env": "{key}"}}"#),
            format!(r#"{{"name": "a", "env": "test", "plan": "{key}"}}"#),
            format!(r#"{{"name": "a", "env": "test", "scopes": ["{key}"]}}"#),
            format!(r#"{{"name": "a", "env": "test", "expires": "{key}"}}"#),
            format!(r#"{{"name": ["{key}"], "env": "test"}}"#),
            format!("{{{key}"),
        ] {
            let (code, _) = call(&server, &mut answers, &backend, ("POST keys", ""), &body);
            assert_eq!(code, 400, "{body}");
        }
        let (code, _) = call(&server, &mut answers, key, ("GET keys", ""), "");
        assert_eq!(code, 401);
    }
    for request in [
        format!("POST keys/{id}/end-grace"),
        format!("PATCH keys/{id}"),
        format!("POST keys/{id}/revoke"),
    ] {
        let body = if request.starts_with("PATCH") { r#"{"note": "n"}"# } else { "{}" };
        assert_eq!(call(&server, &mut answers, &backend, (&request, ""), body).0, 200, "{request}");
    }
    for request in ["GET keys", "GET tokens", "GET members", "GET log", "GET usage", "GET team"] {
        assert_eq!(call(&server, &mut answers, &backend, (request, ""), "").0, 200);
    }
    assert_eq!(call(&server, &mut answers, &backend, (&format!("GET keys/{id}"), ""), "").0, 200);
    answers.push(server.request("GET /metrics", &[]).body);
    for args in [&["log"][..], &["token", "list"], &["export"], &["team", "list"]] {
        run(&sandbox, &[&["keys"], args, &DATA].concat()).expect_status(0);
    }

    // A key, its second secret, a token and a link.
    assert_eq!(secrets.len(), 4);
    for secret in &secrets {
        assert_eq!(answers.iter().filter(|answer| answer.contains(secret)).count(), 1);
    }
    // The crashed service leaves no core file, and the rest on the disk.
    let limit = ["--core=unlimited", "--pid", &server.id().to_string()];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
    server.signal(Signal::ABORT);
    let ended = server.wait();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));
    let texts: Vec<_> = secrets.into_iter().chain([operator, backend]).collect();
    let files = assert_in_no_file(&sandbox.path("."), &texts);
    // The log, the pepper, two gates, the database, its write-ahead log and its index.
    assert!(files >= 7, "{:?}", sandbox.names());
    let wal = fs::read(sandbox.path("data/keys.db-wal")).unwrap();
    assert!(wal.windows(7).any(|at| at == b"billing"));
}

#[test]
fn list_is_not_served_where_tokens_could_be_read() {
    let sandbox = Sandbox::new();
    let serve = |args: &[&str]| run(&sandbox, &[&["serve", "--data", "data"], args].concat());
    let public = serve(&["--listen", "0.0.0.0:0", "--keys", "on"]);
    public.expect_usage_error(&["other machines can reach 0.0.0.0", "--public-url https://"]);
    let plain = ["--listen", "0.0.0.0:0", "--keys", "on", "--public-url", "http://a.example"];
    serve(&plain).expect_usage_error(&["without TLS"]);
    serve(&["--public-url", "a.example/x"]).expect_usage_error(&["must be a URL without a path"]);
    serve(&["--keys", "maybe"]).expect_usage_error(&["it must be on, off or an address"]);
    serve(&["--listen", "127.0.0.1:0", "--keys", "0.0.0.0:0"])
        .expect_usage_error(&["--keys: other machines can reach 0.0.0.0"]);
    serve(&["--listen", "unix:api.socket", "--keys", "on"])
        .expect_usage_error(&["a Unix socket has no URL for links", "--public-url"]);
    serve(&["--listen", "127.0.0.1:0", "--keys", "127.0.0.1:0", "--usage", "maybe"])
        .expect_usage_error(&["it must be on or off"]);
    for option in [["--database", "sqlite:x.db"], ["--usage", "off"]] {
        let run = serve(&[&["--listen", "127.0.0.1:0", "--keys", "off"][..], &option].concat());
        run.expect_usage_error(&[option[0], "--keys off"]);
    }
    assert!(sandbox.names().is_empty());
    // The variable may be set for other commands.
    let server = Server::start_with(&sandbox, &["--keys", "off"], &[("KEYTALLY_DATABASE", "x")]);
    drop(server);
    // Without --keys, it is left out there.
    for (listen, args) in [("0.0.0.0:0", &[][..]), ("127.0.0.1:0", &["--keys", "off"])] {
        let server = Server::start_at(&sandbox, listen, args, &[]);
        assert_eq!(server.request("GET /keys/api/v1/openapi.json", &[]).code(), 404);
        assert!(!server.startup_message.contains("keys token"));
    }
    assert!(!sandbox.path("data/keys.db").exists());
    let https = ["--public-url", "https://a.example"];
    let server = Server::start_at(&sandbox, "0.0.0.0:0", &https, &[]);
    let reply = server.request("GET /keys/api/v1/openapi.json", &[]);
    assert_eq!(reply.code(), 200);
    assert!(reply.body.contains("\"openapi\":\"3.1.0\""));
}

#[test]
fn list_has_an_address_of_its_own() {
    let sandbox = Sandbox::new();
    // Clients can reach the API from other machines, and the list from this one alone.
    let server = Server::start_at(&sandbox, "0.0.0.0:0", &["--keys", "127.0.0.1:0"], &[]);
    let line =
        server.startup_message.lines().find_map(|line| line.strip_prefix("List of keys on "));
    let list: SocketAddr = line.unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    let link = format!("Keys page: http://localhost:{}/keys/in#", list.port());
    assert!(server.startup_message.contains(&link), "{}", server.startup_message);
    let first = server.first_key().unwrap();
    sandbox.watch_secret(&first);
    for (path, at_list, at_api) in [
        ("/keys/in", 200, 404),
        ("/keys/api/v1/openapi.json", 200, 404),
        ("/healthz", 200, 200),
        ("/metrics", 404, 200),
        ("/api/v1/limits", 404, 200),
    ] {
        let key = format!("X-API-Key: {first}");
        let request =
            |address| Wire::to(address).request(&format!("GET {path}"), &[key.as_bytes()]).code();
        assert_eq!((request(list), request(server.address)), (at_list, at_api), "{path}");
    }
    // A member gets a link with the URL of the list.
    let operator = token(&sandbox, &[]);
    assert_eq!(post_to(list, &operator, "teams", r#"{"name": "Acme", "team": 7}"#).0, 201);
    let owner = token(&sandbox, &["--team", "7", "--role", "owner"]);
    let body = r#"{"user": "ann", "role": "admin"}"#;
    let (status, session) = post_to(list, &owner, "sessions", body);
    assert_eq!(status, 201, "{session}");
    let url = session["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("http://localhost:{}/keys/in#", list.port())), "{url}");
    drop(server);

    let public = ["--keys", "unix:keys.socket", "--public-url", "https://keys.example.com"];
    let server = Server::start(&sandbox, &public);
    assert!(server.startup_message.contains("List of keys on unix:keys.socket\n"));
    assert!(server.startup_message.contains("Keys page: https://keys.example.com/keys/in#"));
    assert!(sandbox.path("keys.socket").exists());
    assert_eq!(server.request("GET /keys/in", &[]).code(), 404);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(!sandbox.path("keys.socket").exists());
}

#[test]
fn command_without_a_list_creates_none() {
    let sandbox = Sandbox::new();
    drop(Server::start(&sandbox, &["--keys", "off"]));
    let before = names(&sandbox.path("data"));
    let commands: [&[&str]; 4] = [
        &["keys", "backup", "copy.db"],
        &["keys", "token", "create", "ci"],
        &["keys", "team", "list"],
        &["keys", "migrate-to", "sqlite:other.db"],
    ];
    for command in commands {
        run(&sandbox, &[command, &DATA].concat()).expect_failure(&[
            "there is no list of keys: data/admin.gate does not exist",
            "--data",
            "start keytally serve with --keys on",
        ]);
    }
    assert_eq!(names(&sandbox.path("data")), before);
    // A mistyped database is not begun, either.
    drop(Server::start(&sandbox, &[]));
    let before = names(&sandbox.path("data"));
    let url = format!("sqlite:{}", sandbox.path("data/kesy.db").display());
    for command in commands {
        run(&sandbox, &[command, &DATA, &["--database", &url]].concat())
            .expect_failure(&["there is no list of keys: ", "data/kesy.db does not exist"]);
    }
    assert_eq!(names(&sandbox.path("data")), before);
    assert_eq!(sandbox.names(), ["data", LOG]);
}

#[test]
fn database_that_cannot_be_used_is_one_sentence() {
    let sandbox = Sandbox::new();
    drop(Server::start(&sandbox, &[]));
    let password = "hunter2hunter2";
    let postgres = format!("postgres://u:{password}@127.0.0.1:1/x");
    for (url, parts) in [
        ("mysql://x", &["the URL of the database is not valid"][..]),
        ("sqlite::memory:", &["the URL of the database is not valid"]),
        ("sqlite:x.db?mode=ro", &["a database in SQLite has no options", "without ?"]),
        (&*postgres, &["cannot open the database postgres://u:…@127.0.0.1:1/x"]),
    ] {
        for command in [&["serve"][..], &["keys", "team", "list"]] {
            let run = run(&sandbox, &[command, &DATA, &["--database", url]].concat());
            assert!(!run.err.contains(password), "{run:?}");
            let error = run.err.lines().last().unwrap_or_default().to_owned();
            assert_eq!(run.status, 3, "{run:?}");
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
    assert!(!sandbox.path("x.db").exists());
    let url = "sqlite:no/folder/keys.db";
    let served = run(&sandbox, &[&["serve"], &DATA[..], &["--database", url]].concat());
    assert_eq!(served.status, 3, "{served:?}");
    let cannot = "cannot create the database no/folder/keys.db";
    assert!(served.err.lines().last().unwrap_or_default().contains(cannot), "{served:?}");
    let missing = run(&sandbox, &["keys", "team", "list", "--data", "none"]);
    assert_eq!(missing.status, 3);
    let unknown = run(&sandbox, &[&["keys", "member", "list", "9"], &DATA[..]].concat());
    unknown.expect_failure(&["there is no team 9"]);
    fs::write(sandbox.path("data/keys.db"), "not a database").unwrap();
    for name in ["data/keys.db-wal", "data/keys.db-shm"] {
        let _ = fs::remove_file(sandbox.path(name));
    }
    let damaged = run(&sandbox, &[&["keys", "team", "list"], &DATA[..]].concat());
    damaged.expect_failure(&["cannot open the database", "not a database"]);
}
