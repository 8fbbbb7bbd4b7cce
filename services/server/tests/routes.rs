//! Routes in addition to the contract: `/api/v1/limits`, `/auth`, `/metrics`, shadow mode, errors,
//! and the log.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use std::collections::HashSet;

use keytally::{Timestamp, now};
use rustix::process::Signal;
use serde_json::json;
use support::program::Sandbox;
use support::server::{GATE, Server, await_log, log};
use support::wire::Wire;
use support::{CONTACTS_OF_1, EXCEEDED, key_id, secret, timed};

#[test]
fn limits_returns_the_quotas_and_charges_nothing() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=3/day, 1000/30d"]);
    let (key, key_id) = sandbox.new_key(&["--account", "42", "--env", "test"]);
    for used in 0..=3 {
        for _ in 0..2 {
            let reply = server.get("/api/v1/limits", &key);
            let remaining = (3 - used).to_string();
            assert_eq!(
                (reply.code(), reply.header("X-RateLimit-Remaining")),
                (200, remaining.as_str())
            );
            let limits = reply.json();
            // X-RateLimit-* describe the longest window of at most a day.
            let reset: u64 = reply.header("X-RateLimit-Reset").parse().unwrap();
            assert_eq!(
                limits,
                json!({"account": 42, "key_id": key_id, "env": "test", "plan": "default", "quotas": [
                    {"section": "key", "window": "day", "window_s": 86_400, "limit": 3, "used": used, "remaining": 3 - used, "reset_unix_s": reset},
                    {"section": "key", "window": "2592000s", "window_s": 2_592_000, "limit": 1000, "used": used, "remaining": 1000 - used, "reset_unix_s": limits["quotas"][1]["reset_unix_s"]},
                ]})
            );
        }
        assert_eq!(server.contacts(&key).code(), if used < 3 { 200 } else { 429 });
    }
}

#[test]
fn auth_charges_team_and_groups_all_or_none() {
    let sandbox = Sandbox::new();
    let plan = "default=5/day; team: 6/day; group write: 2/day; group tokens: 5000/day";
    let server = Server::start(&sandbox, &["--plan", plan]);
    let [(ann, _), (bob, _)] = [(); 2].map(|()| sandbox.new_key(&["--account", "42"]));
    let auth = |key: &str, lines: &[&str]| {
        let key = format!("X-API-Key: {key}");
        let lines: Vec<_> =
            [key.as_str()].iter().chain(lines).map(|line| line.as_bytes()).collect();
        server.request("GET /auth", &lines)
    };
    let reply = auth(&ann, &["X-Group: write, tokens=4000"]);
    assert_eq!((reply.code(), reply.header("X-RateLimit-Remaining")), (200, "4"));
    let limits = reply.header("RateLimit").to_owned();
    for part in ["\"day\";r=4", "\"team-day\";r=5", "\"write-day\";r=1", "\"tokens-day\";r=1000"] {
        assert!(limits.contains(part), "{part} is not in {limits}");
    }
    let denied = auth(&ann, &["X-Group: write", "X-Group: tokens=1001"]);
    assert_eq!((denied.code(), denied.body.as_str()), (429, EXCEEDED));
    assert!(denied.header("RateLimit").contains("\"write-day\";r=1"), "nothing was charged");
    assert_eq!(auth(&bob, &["X-Cost: 4"]).code(), 200);
    // The team has one unit left.
    assert_eq!(auth(&bob, &[]).code(), 200);
    assert_eq!(auth(&ann, &[]).code(), 429);
    let reply = server.get("/api/v1/limits", &ann);
    let quotas = reply.json()["quotas"].clone();
    let left: Vec<_> = quotas.as_array().unwrap().iter().map(|quota| &quota["remaining"]).collect();
    assert_eq!(left, [&json!(4), &json!(0)], "{quotas}");
    for wrong in ["tokens=x", "tokens=-1", "tokens=+5", "tokens="] {
        let reply = auth(&ann, &[&format!("X-Group: {wrong}")]);
        let error = format!("X-Group has {wrong:?}, and must be a list of NAME or NAME=COST");
        assert_eq!((reply.code(), &reply.json()["error"]), (400, &json!(error)));
    }
    for wrong in [&["X-Group: tokens=1, tokens=2"][..], &["X-Group: tokens", "X-Group: tokens=0"]] {
        let reply = auth(&ann, wrong);
        let error = "X-Group has \"tokens\", and must name each group once";
        assert_eq!((reply.code(), &reply.json()["error"]), (400, &json!(error)));
    }
    let unknown = auth(&ann, &["X-Group: writes"]);
    assert_eq!(unknown.code(), 400);
    assert_eq!(unknown.json()["error"], "the plans of this gate have no group \"writes\"");
    assert_eq!(auth(&ann, &["X-Need: admin"]).code(), 400);
}

#[test]
fn warnings_of_a_plan_are_logged_and_counted_once() {
    let sandbox = Sandbox::new();
    let plan = "default=10/31d warn 50% 90%; team: 20/31d; group write: 4/31d warn 75%";
    let server = Server::start(&sandbox, &["--plan", plan]);
    let (key, key_id) = sandbox.new_key(&["--account", "42"]);
    let header = format!("X-API-Key: {key}");
    let auth = |line: &str| server.request("GET /auth", &[header.as_bytes(), line.as_bytes()]);
    let counted = |section: &str, percent: u8| {
        let labels = format!("percent=\"{percent}\",section=\"{section}\",window=\"2678400s\"");
        server.metric(&format!("keytally_crossed_total{{{labels}}}"))
    };
    let counts = || [counted("key", 50), counted("key", 90), counted("write", 75)];
    assert_eq!(counts(), [0, 0, 0], "the counters exist from the start");
    assert_eq!(auth("X-Cost: 4").code(), 200);
    assert_eq!(counts(), [0, 0, 0]);
    assert_eq!(auth("X-Group: write=3").code(), 200);
    assert_eq!(counts(), [1, 0, 1]);
    for code in [200, 200, 200, 200, 200, 429] {
        assert_eq!(server.contacts(&key).code(), code);
    }
    assert_eq!(counts(), [1, 1, 1]);
    let holder = format!("key={key_id} account=42 ");
    await_log(&sandbox, &[" crossed quota=2678400s percent=50 ", &holder, "route=auth"]);
    await_log(&sandbox, &[" crossed quota=write-2678400s percent=75 ", &holder, "route=auth"]);
    await_log(&sandbox, &[" crossed quota=2678400s percent=90 ", &holder, "route=contacts"]);
    assert_eq!(log(&sandbox).matches(" crossed ").count(), 3);
    assert!(!log(&sandbox).contains(secret(&key)), "{}", log(&sandbox));
}

#[test]
fn auth_forbids_a_key_without_the_scope() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--scope", "read", "--scope", "write"]);
    let forbidden = "keytally_verdicts_total{outcome=\"forbidden\",reason=\"none\"}";
    assert_eq!(server.metric(forbidden), 0);
    let (key, _) = sandbox.new_key(&["--account", "42", "--scope", "read"]);
    let key = format!("X-API-Key: {key}");
    let auth = |need: &str| server.request("GET /auth", &[key.as_bytes(), need.as_bytes()]);
    assert_eq!(auth("X-Need: read").code(), 200);
    let reply = auth("X-Need: read, write");
    assert_eq!((reply.code(), reply.body.as_str()), (403, r#"{"error": "Forbidden"}"#));
    assert!(!reply.has("X-RateLimit-Limit"), "{reply:?}");
    assert_eq!(server.metric(forbidden), 1);
    drop(server);

    let template = r#"{"forbidden": {"status": 404, "body": "{outcome}"}}"#;
    std::fs::write(sandbox.path("refusals.json"), template).unwrap();
    let server = Server::start(&sandbox, &["--refusals", "refusals.json"]);
    let reply = server.request("GET /auth", &[key.as_bytes(), b"X-Need: write"]);
    assert_eq!((reply.code(), reply.body.as_str()), (404, "forbidden"));
}

// Windows cannot replace a gate that is in use, so nothing migrates it there.
#[cfg(unix)]
#[test]
fn key_whose_counts_are_moving_gets_503() {
    let sandbox = Sandbox::new();
    let template = r#"{"unavailable": {"status": 500, "body": "{outcome} {retry_after}"}}"#;
    std::fs::write(sandbox.path("refusals.json"), template).unwrap();
    let server = Server::start(&sandbox, &[]);
    let own = Server::start(&sandbox, &["--refusals", "refusals.json"]);
    let unavailable = "keytally_verdicts_total{outcome=\"unavailable\",reason=\"moving\"}";
    assert_eq!(server.metric(unavailable), 0);
    let (key, _) = sandbox.new_key(&["--account", "42"]);
    assert_eq!(server.contacts(&key).header("X-RateLimit-Remaining"), "999");
    sandbox.migrate_elsewhere();
    let reply = server.contacts(&key);
    let body = r#"{"error": "Service unavailable. Please try again later."}"#;
    assert_eq!((reply.code(), reply.body.as_str()), (503, body));
    assert_eq!(reply.header("Retry-After"), "1");
    assert!(!reply.has("X-RateLimit-Limit"), "{reply:?}");
    assert_eq!(server.metric(unavailable), 1);
    let reply = own.contacts(&key);
    assert_eq!((reply.code(), reply.body.as_str()), (500, "unavailable 1"));
    // The new file is opened at once.
    std::fs::rename(sandbox.path("other.gate"), sandbox.path(GATE)).unwrap();
    let reply = server.contacts(&key);
    assert_eq!((reply.code(), reply.header("X-RateLimit-Remaining")), (200, "998"));
}

// On Windows, the open file cannot be written by another process.
#[cfg(unix)]
#[test]
fn gate_whose_header_was_overwritten_is_in_the_log_and_the_metrics() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let (key, _) = sandbox.new_key(&["--account", "42"]);
    let is_damaged = || server.metric("keytally_gate_damaged");
    assert_eq!((server.contacts(&key).code(), is_damaged()), (200, 0));
    let gate = std::fs::File::options().write(true).open(sandbox.path(GATE)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&gate, &[0; 4096], 0).unwrap();
    assert_eq!((server.contacts(&key).code(), is_damaged()), (401, 1));
    await_log(&sandbox, &["invalid_key reason=gate_damaged"]);
}

#[test]
fn auth_charges_the_cost_and_reports_the_holder() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=100/day, 1000/30d"]);
    let (key, key_id) = sandbox.new_key(&["--account", "4294967295", "--env", "test"]);
    let header = format!("X-API-Key: {key}");
    let request_auth = |request: &str, cost: &[&str]| {
        let lines: Vec<&[u8]> =
            [header.as_str()].iter().chain(cost).map(|line| line.as_bytes()).collect();
        server.request(request, &lines)
    };
    let requests = [
        "GET /auth",
        "POST /auth",
        "HEAD /auth",
        "PUT /auth/",
        "DELETE /auth/api/v1/contacts",
        "PURGE /auth/a?b=c",
        "OPTIONS /auth",
    ];
    for (request, remaining) in requests.iter().zip((90..=99).rev()) {
        let reply = request_auth(request, &[]);
        assert_eq!((reply.code(), reply.body.as_str()), (200, ""), "{request}");
        assert_eq!(reply.header("X-RateLimit-Remaining"), remaining.to_string(), "{request}");
        assert_eq!(reply.header("X-Account-Id"), "4294967295");
        assert_eq!(reply.header("X-Key-Id"), key_id);
        assert_eq!((reply.header("X-Key-Env"), reply.header("X-Key-Plan")), ("test", "default"));
        for name in ["X-RateLimit-Limit", "X-RateLimit-Reset", "RateLimit-Policy", "RateLimit"] {
            assert!(reply.has(name), "{name} is not in {reply:?}");
        }
    }
    // A body, which Envoy may forward, is ignored.
    let mut wire = Wire::to(server.address);
    wire.send(
        format!("POST /auth HTTP/1.1\r\nHost: a\r\n{header}\r\nContent-Length: 5\r\n\r\nhello")
            .as_bytes(),
    );
    assert_eq!(wire.read(false).unwrap().header("X-RateLimit-Remaining"), "92");

    assert_eq!(request_auth("GET /auth", &["X-Cost: 12"]).header("X-RateLimit-Remaining"), "80");
    assert_eq!(request_auth("GET /auth", &["x-cost: 80"]).header("X-RateLimit-Remaining"), "0");
    let denied = request_auth("GET /auth", &["X-Cost: 1"]);
    assert_eq!((denied.code(), denied.body.as_str()), (429, EXCEEDED));
    assert!(denied.has("Retry-After") && denied.header("X-Account-Id").is_empty(), "{denied:?}");
    let costly = request_auth("GET /auth", &["X-Cost: 101"]);
    assert_eq!((costly.code(), costly.body.as_str()), (429, EXCEEDED));
    assert!(!costly.has("Retry-After"), "{costly:?}");

    for cost in [
        &["X-Cost: 0"][..],
        &["X-Cost:"],
        &["X-Cost: -1"],
        &["X-Cost: 1.5"],
        &["X-Cost: 4294967296"],
        &["X-Cost: 1", "X-Cost: 1"],
    ] {
        let reply = request_auth("GET /auth", cost);
        assert_eq!(reply.code(), 400, "{cost:?}");
        assert!(
            reply.json()["error"].as_str().unwrap().starts_with("X-Cost must be "),
            "{reply:?}"
        );
    }
    let (fresh, _) = sandbox.new_key(&["--account", "1"]);
    let reply =
        server.request("GET /auth", &[format!("X-API-Key: {fresh}").as_bytes(), b"X-Cost: 1O"]);
    assert_eq!(reply.code(), 400);
    assert_eq!(server.get("/api/v1/limits", &fresh).header("X-RateLimit-Remaining"), "100");
    // Other routes ignore the header.
    let reply = server.request(
        "GET /api/v1/contacts",
        &[format!("X-API-Key: {fresh}").as_bytes(), b"X-Cost: 50"],
    );
    assert_eq!(reply.header("X-RateLimit-Remaining"), "99");
}

#[test]
fn key_comes_from_named_headers() {
    let sandbox = Sandbox::new();
    let all = ["X-API-Key", "Authorization: Bearer", "X-Token"];
    let options: Vec<&str> = all.iter().flat_map(|name| ["--key-from", *name]).collect();
    let server = Server::start(&sandbox, &[&options[..], &["--failures", "off"]].concat());
    let key = server.first_key().unwrap();
    let (other, _) = sandbox.new_key(&["--account", "2"]);
    let [api_key, bearer, token] =
        ["X-API-Key: ", "Authorization: Bearer ", "X-Token: "].map(|start| format!("{start}{key}"));
    let loose = format!("authorization: bEARER   {key}");
    let (basic, wrong) = ("Authorization: Basic dTpw", format!("X-Token: {other}"));
    let get = |path: &str, lines: &[&str]| {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        server.request(&format!("GET {path}"), &lines)
    };
    let challenges = r#"ApiKey realm="api", header="X-API-Key", Bearer realm="api", ApiKey realm="api", header="X-Token""#;
    for path in ["/auth", "/api/v1/contacts", "/api/v1/limits"] {
        for lines in [
            &[&*api_key][..],
            &[&bearer],
            &[&token],
            &[&loose],
            &[&api_key, &bearer, &token],
            &[basic, &token],
        ] {
            assert_eq!(get(path, lines).code(), 200, "{path} {lines:?}");
        }
        for (lines, error) in [
            (&[][..], "Missing API key"),
            (&[basic], "Missing API key"),
            (&[&*api_key, &api_key], "Invalid API key"),
            (&[basic, &bearer], "Invalid API key"),
            (&[&api_key, &wrong], "Invalid API key"),
            (&[&bearer, "X-Token:"], "Invalid API key"),
        ] {
            let reply = get(path, lines);
            assert_eq!((reply.code(), reply.json()), (401, json!({"error": error})), "{lines:?}");
            assert_eq!(reply.header("WWW-Authenticate"), challenges);
            assert_eq!(reply.header("Content-Type"), "application/json");
        }
        // The query is not read.
        assert_eq!(get(&format!("{path}?api_key={key}&X-Token={key}"), &[]).code(), 401);
    }
    let problem = get("/auth", &["Accept: application/problem+json"]);
    assert_eq!(
        problem.body,
        r#"{"type": "about:blank", "title": "Missing API key", "status": 401}"#
    );
    drop(server);

    // Without the default, X-API-Key is not read.
    let server = Server::start(&sandbox, &["--key-from", "X-Token"]);
    assert_eq!(server.contacts(&key).code(), 401);
    assert_eq!(server.request("GET /auth", &[token.as_bytes()]).code(), 200);
}

#[test]
fn refusals_have_the_statuses_and_bodies_of_a_file() {
    let sandbox = Sandbox::new();
    let write = |text: &str| std::fs::write(sandbox.path("refusals.json"), text).unwrap();
    write(
        r#"{"missing_key": {"body": "<p>{outcome}</p>", "content_type": "text/html"},
            "denied": {"status": 503, "body": "{\"wait\": {retry_after}}"},
            "too_costly": {"body": "never {retry_after}."}}"#,
    );
    let options = ["--refusals", "refusals.json", "--failures", "1/31d", "--plan", "default=1/31d"];
    let server = Server::start(&sandbox, &options);
    let key = format!("X-API-Key: {}", server.first_key().unwrap());
    let get = |lines: &[&str]| {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        server.request("GET /auth", &lines)
    };
    let guess = || server.request("GET /api/v1/limits", &[b"X-API-Key: wrong"]);
    let missing = get(&["Accept: application/problem+json"]);
    assert_eq!((missing.code(), missing.body.as_str()), (401, "<p>missing_key</p>"));
    assert_eq!(missing.header("Content-Type"), "text/html");
    assert!(missing.has("WWW-Authenticate"));
    // An outcome that the file does not have keeps its response.
    let invalid = guess();
    assert_eq!((invalid.code(), invalid.json()), (401, json!({"error": "Invalid API key"})));
    let costly = get(&[&key, "X-Cost: 2"]);
    assert_eq!((costly.code(), costly.body.as_str()), (429, "never ."));
    assert_eq!(get(&[&key]).code(), 200);
    // The limit of invalid keys is the same outcome.
    for denied in [get(&[&key]), guess()] {
        let wait: u32 = denied.header("Retry-After").parse().unwrap();
        assert_eq!((denied.code(), denied.json()), (503, json!({"wait": wait})), "{denied:?}");
        assert_eq!(denied.header("Content-Type"), "application/json");
    }
    drop(server);

    for (text, parts) in [
        ("", "line 1, column 0"),
        (r#"{"denied": {"status": 503}}"#, "it must be JSON such as"),
        (r#"{"kt_live_secret": {"body": ""}}"#, "line 1, column"),
        (r#"{"denied": {"status": 200, "body": ""}}"#, "for denied the status 200"),
        (r#"{"denied": {"content_type": "\n", "body": ""}}"#, "for denied the content_type"),
        (r#"{"denied": {"content_type": "", "body": ""}}"#, "the content_type \"\", which is not"),
        (r#"{"denied": {"content_type": "html", "body": ""}}"#, "\"html\", which is not"),
        (r#"{"denied": {"content_type": "text/é", "body": ""}}"#, "which is not one such as"),
        (&" ".repeat(65_537), "more than 65536 bytes"),
    ] {
        write(text);
        let args = [
            "serve",
            "--listen",
            "unix:no/folder",
            "--data",
            "data",
            "--refusals",
            "refusals.json",
        ];
        let run = sandbox.finish(&mut sandbox.command(&args), b"");
        assert!(!run.err.contains("secret"), "{run:?}");
        run.expect_failure(&["refusals.json, the file of --refusals, ", parts]);
    }
    let args = ["serve", "--listen", "127.0.0.1:0", "--data", "data", "--refusals", "nix"];
    sandbox.finish(&mut sandbox.command(&args), b"").expect_failure(&["cannot read nix"]);
}

#[test]
fn unknown_routes_and_methods_get_json_errors() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    let header = format!("X-API-Key: {key}");
    for (request, code, error) in [
        ("GET /", 404, "Not found"),
        ("GET /api/v1/nix", 404, "Not found"),
        ("POST /api/v1/contacts", 405, "Method not allowed"),
        ("DELETE /api/v1/limits", 405, "Method not allowed"),
        ("POST /metrics", 405, "Method not allowed"),
    ] {
        let reply = server.request(request, &[header.as_bytes()]);
        assert_eq!((reply.code(), reply.json()), (code, json!({"error": error})), "{request}");
        assert_eq!(reply.has("Allow"), code == 405);
    }
    assert_eq!(server.request("GET /healthz", &[]).json(), json!({"status": "ok"}));
    assert_eq!(server.get("/api/v1/limits", &key).header("X-RateLimit-Remaining"), "1000");
}

#[test]
fn metrics_are_prometheus_text() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    server.contacts(&key);
    server.contacts("nonsense");
    let reply = server.request("GET /metrics", &[]);
    assert_eq!(reply.header("Content-Type"), "text/plain; version=0.0.4");
    let mut typed = HashSet::new();
    for line in reply.body.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["#", "HELP", ..] => {}
            ["#", "TYPE", name, kind] => {
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(typed.insert(name), "{name} is there twice");
            }
            [sample, value] => {
                let name = sample.split('{').next().unwrap();
                let base = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end))
                    .unwrap_or(name);
                assert!(typed.contains(base) || typed.contains(name), "{line} has no type");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
            _ => panic!("{line}"),
        }
    }
    assert_eq!(server.metric("keytally_gate_keys"), 1);
    assert_eq!(server.metric("keytally_gate_capacity"), 100_000);
    assert_eq!(server.metric("keytally_check_duration_seconds_count"), 2);
    assert_eq!(server.metric("keytally_check_duration_seconds_bucket{le=\"+Inf\"}"), 2);
    assert!(!reply.body.contains(&key[8..]));
}

#[test]
fn metrics_name_the_keys_that_are_denied_most() {
    let sandbox = Sandbox::new();
    let options = ["--metrics-keys", "2", "--plan", "default=2/31d"];
    let server = Server::start(&sandbox, &options);
    let keys: Vec<_> = (0..3).map(|_| sandbox.new_key(&["--account", "1"])).collect();
    for (requests, (key, _)) in [4, 6, 3].into_iter().zip(&keys) {
        for _ in 0..requests {
            server.contacts(key);
        }
    }
    // Too costly.
    let line = format!("X-API-Key: {}", keys[1].0);
    assert_eq!(server.request("GET /auth", &[line.as_bytes(), b"X-Cost: 3"]).code(), 429);
    let text = server.request("GET /metrics", &[]).body;
    let denied =
        |(_, id): &(String, String)| format!("keytally_top_denied_total{{key_id=\"{id}\"}}");
    assert_eq!(Server::value(&text, &denied(&keys[1])), 5);
    assert_eq!(Server::value(&text, &denied(&keys[0])), 2);
    assert!(!text.contains(&keys[2].1), "{text}");
    for (key, _) in &keys {
        assert!(!text.contains(secret(key)), "{text}");
    }
    drop(server);
    // Clients may reach the only listener, so it names no key by default.
    let server = Server::start(&sandbox, &[]);
    assert_eq!(server.contacts(&keys[0].0).code(), 429);
    assert!(!server.request("GET /metrics", &[]).body.contains("keytally_top_denied_total"));
}

#[test]
fn metrics_count_keys_by_the_share_of_a_quota_they_used() {
    let sandbox = Sandbox::new();
    let plans = ["--plan", "default=10/day, 100/31d", "--plan", "pro=20/day, 20/31d"];
    let server = Server::start(&sandbox, &plans);
    let _ = server.first_key().unwrap();
    let charge = |plan: &str, cost: u32| {
        let (key, key_id) = sandbox.new_key(&["--account", "1", "--plan", plan]);
        let lines = [format!("X-API-Key: {key}"), format!("X-Cost: {cost}")];
        server.request("GET /auth", &lines.each_ref().map(|line| line.as_bytes()));
        key_id
    };
    for (plan, cost) in [("default", 4), ("default", 5), ("default", 9), ("pro", 20)] {
        charge(plan, cost);
    }
    let revoked = charge("pro", 20);
    sandbox.run_admin(&["revoke", GATE, &revoked]).expect_status(0);
    let text = server.request("GET /metrics", &[]).body;
    for (plan, counts) in [("default", [2, 1, 1, 0]), ("pro", [1, 1, 1, 1])] {
        for (share, count) in ["0.5", "0.8", "0.9", "1"].iter().zip(counts) {
            let name = format!("keytally_gate_keys_used{{plan=\"{plan}\",share=\"{share}\"}}");
            assert_eq!(Server::value(&text, &name), count, "{name}");
        }
    }
    assert_eq!(Server::value(&text, "keytally_table_entries{table=\"gate\"}"), 6);
    assert_eq!(Server::value(&text, "keytally_table_capacity{table=\"gate\"}"), 100_000);
}

#[test]
fn metrics_have_the_occupancy_of_each_table() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--settle", "60s"]);
    server.contacts("wrong");
    let line = format!("X-API-Key: {}", server.first_key().unwrap());
    let token =
        server.request("GET /auth", &[line.as_bytes()]).header("X-Keytally-Charge").to_owned();
    let line = format!("X-Keytally-Charge: {token}");
    assert_eq!(server.request("POST /settle", &[line.as_bytes(), b"X-Cost: 0"]).code(), 200);
    let text = server.request("GET /metrics", &[]).body;
    for (table, entries, capacity) in
        [("failures", 1, 65_536), ("settled", 1, 524_288), ("gate", 1, 100_000)]
    {
        let value = |name: &str| Server::value(&text, &format!("{name}{{table=\"{table}\"}}"));
        let found = [value("keytally_table_entries"), value("keytally_table_capacity")];
        assert_eq!(found, [entries, capacity], "{table}");
        let refusals = format!("keytally_limiter_refusals_total{{table=\"{table}\"}} 0");
        assert_eq!(text.lines().any(|line| line == refusals), table != "gate", "{table}");
    }
    drop(server);
    let server = Server::start(&sandbox, &["--failures", "off"]);
    let text = server.request("GET /metrics", &[]).body;
    assert!(!text.contains("table=\"failures\"") && !text.contains("table=\"settled\""));
}

#[test]
fn tally_ahead_of_the_clock_is_counted() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=100/10s"]);
    let key = server.first_key().unwrap();
    assert_eq!(server.contacts(&key).code(), 200);
    assert_eq!(server.metric("keytally_clock_ahead_total"), 0);
    // The clock of another process is 50 s ahead, which is within the tolerance.
    let peppers = keytally::pepper::read_file(sandbox.path("data/pepper")).unwrap();
    let gate = keytally::Gate::open(sandbox.path(GATE), peppers).unwrap();
    let ahead = Timestamp::from_unix_ms(now().unix_ms() + 50_000);
    assert!(gate.table().check(Some(key.as_bytes()), 1, ahead).is_admitted());
    assert_eq!(server.contacts(&key).code(), 200);
    assert_eq!(server.metric("keytally_clock_ahead_total"), 1);
}

#[test]
fn shadow_mode_admits_all_and_reports_refusals() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--shadow", "--plan", "default=1/day, 1000/30d"]);
    assert!(server.startup_message.contains("Shadow mode"), "{}", server.startup_message);
    let key = server.first_key().unwrap();
    let header = format!("X-API-Key: {key}");
    let admitted = server.contacts(&key);
    assert_eq!((admitted.code(), admitted.body.as_str()), (200, CONTACTS_OF_1));
    assert!(!admitted.has("X-Keytally-Shadow"), "{admitted:?}");

    let denied = server.contacts(&key);
    assert_eq!((denied.code(), denied.body.as_str()), (200, CONTACTS_OF_1));
    assert_eq!(denied.header("X-Keytally-Shadow"), "denied");
    assert_eq!(denied.header("X-RateLimit-Remaining"), "0", "a refused request is not charged");
    assert!(!denied.has("Retry-After"), "{denied:?}");
    let key_id = key_id(&key);
    await_log(&sandbox, &[" shadow denied key=", key_id, " account=1 "]);

    for (lines, outcome) in [
        (&[][..], "missing_key"),
        (&[&b"X-API-Key: nonsense"[..]][..], "invalid_key"),
        (&[header.as_bytes(), header.as_bytes()][..], "invalid_key"),
    ] {
        let reply = server.request("GET /api/v1/contacts", lines);
        assert_eq!((reply.code(), reply.header("X-Keytally-Shadow")), (200, outcome));
        assert_eq!(reply.json()["account"], 0);
        assert!(!reply.has("WWW-Authenticate") && !reply.has("X-RateLimit-Limit"), "{reply:?}");
        let reply = server.request("POST /auth/x", lines);
        assert_eq!((reply.code(), reply.header("X-Keytally-Shadow")), (200, outcome));
        for name in ["X-Account-Id", "X-Key-Id", "X-Key-Env", "X-Key-Plan"] {
            assert_eq!(reply.header(name), "");
        }
        assert_eq!(server.request("GET /api/v1/limits", lines).json()["quotas"], json!([]));
    }
    let reply = server.request("GET /auth", &[header.as_bytes(), b"X-Cost: many"]);
    assert_eq!((reply.code(), reply.header("X-Keytally-Shadow")), (200, "bad_cost"));
    assert_eq!(reply.header("X-Account-Id"), "1");
    let reply = server.request("GET /auth", &[header.as_bytes(), b"X-Cost: 2"]);
    assert_eq!((reply.code(), reply.header("X-Keytally-Shadow")), (200, "too_costly"));

    let count = |outcome: &str, reason: &str| {
        let labels = format!("{{outcome=\"{outcome}\",reason=\"{reason}\"}}");
        let [verdicts, shadow] = ["verdicts", "shadow_admissions"]
            .map(|name| server.metric(&format!("keytally_{name}_total{labels}")));
        assert_eq!(verdicts, shadow);
        shadow
    };
    assert_eq!(
        (count("denied", "none"), count("missing_key", "none"), count("too_costly", "none")),
        (1, 3, 1)
    );
    assert_eq!((count("invalid_key", "malformed"), count("invalid_key", "duplicate")), (3, 3));

    // The holder of a revoked key is not reported as the client.
    sandbox.run_admin(&["revoke", GATE, key_id]).expect_status(0);
    let reply = server.request("GET /auth", &[header.as_bytes()]);
    assert_eq!((reply.code(), reply.header("X-Keytally-Shadow")), (200, "invalid_key"));
    for name in ["X-Account-Id", "X-Key-Id", "X-Key-Env", "X-Key-Plan"] {
        assert_eq!(reply.header(name), "");
    }
    assert_eq!(server.contacts(&key).json()["account"], 0);
}

#[test]
fn log_lines_per_second_are_limited() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let mut wire = Wire::to(server.address);
    let (_, between) = timed(|| {
        for _ in 0..2000 {
            assert_eq!(wire.request("GET /api/v1/contacts", &[]).code(), 401);
        }
    });
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let log = log(&sandbox);
    let seconds = usize::try_from(between.1 / 1000 - between.0 / 1000 + 1).unwrap();
    // Besides notes of the start, at most twenty lines per second, and one with the number of
    // dropped lines.
    let lines = log.lines().filter(|line| !line.starts_with("keytally: ")).count();
    assert!((1..=seconds * 21).contains(&lines), "{lines}");
    assert!(log.contains(" more lines in this second"), "{log}");
}
