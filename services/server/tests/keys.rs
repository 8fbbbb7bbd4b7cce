//! The list of keys in the program: the service with its API, the commands, and the
//! options that refuse what is not safe.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses what it needs"
)]
mod support;

use core::time::Duration;
use std::{fs, thread};

use rustix::process::Signal;
use serde_json::Value;
use support::program::{Run, Sandbox};
use support::server::Server;
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
    let request = format!(
        "POST /keys/api/v1/{path} HTTP/1.1\r\nHost: test\r\nX-API-Key: {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut wire = Wire::to(server.address);
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
    keys(&sandbox, &["member", "set", "7", "ann", "--role", "viewer"]);
    assert_eq!(keys(&sandbox, &["member", "list", "7"])["members"][0]["role"], "viewer");
    keys(&sandbox, &["member", "remove", "7", "1"]);
    let link = keys(&sandbox, &["link", "--team", "7", "--user", "bob", "--role", "admin"]);
    assert!(link["url"].as_str().unwrap().starts_with("http://localhost:8080/keys/in#"));
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
    let again = run(&sandbox, &["keys", "migrate-to", &path, "--data", "data"]);
    again.expect_failure(&["has a list of keys already"]);
    let server = Server::start(&sandbox, &["--database", &path]);
    assert_eq!(server.contacts(&text).code(), 200);
    assert_eq!(post(&server, &operator, "teams", r#"{"name": "New"}"#).1["team"], 8);
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
        hours(&server, &operator, &id) != [0; 3]
    };
    assert!((0..600).any(|_| is_sampled()), "no sample was taken");
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

    // What a command ended stays ended, unless the service is told.
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
fn list_is_not_served_where_tokens_could_be_read() {
    let sandbox = Sandbox::new();
    let serve = |args: &[&str]| run(&sandbox, &[&["serve", "--data", "data"], args].concat());
    let public = serve(&["--listen", "0.0.0.0:0", "--keys", "on"]);
    public.expect_usage_error(&["other machines can reach 0.0.0.0", "--public-url https://"]);
    let plain = ["--listen", "0.0.0.0:0", "--keys", "on", "--public-url", "http://a.example"];
    serve(&plain).expect_usage_error(&["without TLS"]);
    serve(&["--public-url", "a.example/x"]).expect_usage_error(&["must be a URL without a path"]);
    serve(&["--keys", "maybe"]).expect_usage_error(&["it must be on or off"]);
    assert!(sandbox.names().is_empty());
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
fn database_that_cannot_be_used_is_one_sentence() {
    let sandbox = Sandbox::new();
    drop(Server::start(&sandbox, &[]));
    let password = "hunter2hunter2";
    let postgres = format!("postgres://u:{password}@127.0.0.1:1/x");
    for (url, parts) in [
        ("mysql://x", &["the URL of the database is not valid"][..]),
        ("sqlite::memory:", &["the URL of the database is not valid"]),
        ("sqlite:no/folder/keys.db", &["cannot create the database no/folder/keys.db"]),
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
