//! The contract, which is the documented behavior of the example API, over real HTTP: the bytes on
//! the wire, and the documented clients.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use core::time::Duration;
use std::collections::HashSet;
use std::env;
use std::process::Command;
use std::thread::sleep;

use keytally::{Key, KeyId, Name, now};
use serde_json::{Value, json};
use support::program::{Sandbox, finish};
use support::server::{GATE, Server, await_log, log};
use support::wire::{Reply, Wire};
use support::{
    CHALLENGE, CONTACTS_OF_1, EXCEEDED, INVALID, MISSING, TICK_MS, key_id, secret, timed,
};

/// Waits until the minute has this many seconds left, so that it does not end during a test, and
/// has begun by every clock.
fn await_room_in_minute(seconds: u64) {
    let is_time = |ms| (TICK_MS..=60_000 - seconds * 1000).contains(&(ms % 60_000));
    while !is_time(now().unix_ms()) {
        sleep(Duration::from_millis(200));
    }
}

/// Returns the rate-limit headers of a response at `now_ms` after `used` units of `minute_limit`
/// per minute and 1000 per hour.
fn rate_headers(minute_limit: u64, used: u64, now_ms: u64) -> Vec<(&'static str, String)> {
    let end_s = |length: u64| (now_ms / 1000 / length + 1) * length;
    let wait_s = |length: u64| (end_s(length) * 1000 - now_ms).div_ceil(1000);
    let left = minute_limit.saturating_sub(used);
    vec![
        ("X-RateLimit-Limit", "1000".to_owned()),
        ("X-RateLimit-Remaining", (1000 - used).to_string()),
        ("X-RateLimit-Reset", end_s(3600).to_string()),
        ("RateLimit-Policy", format!("\"minute\";q={minute_limit};w=60, \"hour\";q=1000;w=3600")),
        (
            "RateLimit",
            format!(
                "\"minute\";r={left};t={}, \"hour\";r={};t={}",
                wait_s(60),
                1000 - used,
                wait_s(3600)
            ),
        ),
        ("Retry-After", wait_s(60).to_string()),
    ]
}

/// Asserts that the reply has exactly these rate-limit headers for some time between the two.
#[track_caller]
fn assert_rate_headers(reply: &Reply, minute_limit: u64, used: u64, between_ms: (u64, u64)) {
    let denied = reply.code() == 429;
    let expected = |now_ms| {
        let mut headers = rate_headers(minute_limit, used, now_ms);
        if !denied {
            assert_eq!(headers.pop().unwrap().0, "Retry-After");
        }
        headers
    };
    let (from, to) = between_ms;
    let times: HashSet<u64> = [from, to].into_iter().chain((from..=to).step_by(100)).collect();
    let matches =
        |now_ms: &u64| expected(*now_ms).iter().all(|(name, value)| reply.header(name) == value);
    assert!(times.iter().any(matches), "{reply:?} does not have {:?}", expected(from));
    assert_eq!(reply.has("Retry-After"), denied, "{reply:?}");
    assert!(!reply.has("WWW-Authenticate"), "{reply:?}");
}

#[test]
fn requests_beyond_100_per_minute_get_429_and_a_retry_time() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let key = server.first_key().unwrap();
    let header = format!("X-API-Key: {key}");
    await_room_in_minute(15);
    let mut wire = Wire::to(server.address);
    for used in 1..=100 {
        let (reply, between) = timed(|| wire.request("GET /api/v1/contacts", &[header.as_bytes()]));
        assert_eq!(reply.status, "HTTP/1.1 200 OK");
        assert_eq!(reply.body, CONTACTS_OF_1);
        assert_rate_headers(&reply, 100, used, between);
        let names: Vec<&str> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "Content-Type",
                "X-RateLimit-Limit",
                "X-RateLimit-Remaining",
                "X-RateLimit-Reset",
                "RateLimit-Policy",
                "RateLimit",
                "Content-Length",
                "Date"
            ]
        );
    }
    for _ in 0..3 {
        let (reply, between) = timed(|| wire.request("GET /api/v1/contacts", &[header.as_bytes()]));
        assert_eq!(reply.status, "HTTP/1.1 429 Too Many Requests");
        assert_eq!(
            (reply.body.as_str(), reply.header("Content-Type")),
            (EXCEEDED, "application/json")
        );
        assert_rate_headers(&reply, 100, 100, between);
    }
    assert_eq!(server.metric("keytally_verdicts_total{outcome=\"admitted\",reason=\"none\"}"), 100);
    assert_eq!(server.metric("keytally_verdicts_total{outcome=\"denied\",reason=\"none\"}"), 3);
    await_log(
        &sandbox,
        &[" denied key=", key_id(&key), " account=1 retry_after=", " route=contacts"],
    );
    assert!(!log(&sandbox).contains(secret(&key)));
}

#[test]
fn retry_after_the_stated_seconds_is_admitted() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=2/2s, 1000/hour"]);
    let key = server.first_key().unwrap();
    let wait_s = (0..10)
        .find_map(|_| {
            let reply = server.contacts(&key);
            (reply.code() == 429).then(|| reply.header("Retry-After").parse::<u64>().unwrap())
        })
        .unwrap();
    assert!((1..=2).contains(&wait_s));
    sleep(Duration::from_secs(wait_s));
    assert_eq!(server.contacts(&key).code(), 200);
}

/// A client that the contract documents, run as a separate program.
#[derive(Clone, Copy, Debug)]
enum Client {
    Curl,
    Fetch,
    Requests,
}

const CLIENTS: [Client; 3] = [Client::Curl, Client::Fetch, Client::Requests];

impl Client {
    fn get(self, url: &str, key: Option<&str>) -> Reply {
        let tool = |variable: &str, otherwise: &str| {
            env::var(variable).unwrap_or_else(|_| otherwise.to_owned())
        };
        let mut command = match self {
            Self::Curl => {
                let mut curl = Command::new(tool("KEYTALLY_TEST_CURL", "curl"));
                curl.args(["--silent", "--show-error", "--include", url]);
                if let Some(key) = key {
                    curl.args(["-H", &format!("X-API-Key: {key}")]);
                }
                curl
            }
            Self::Fetch => {
                let mut node = Command::new(tool("KEYTALLY_TEST_NODE", "node"));
                node.args(["--input-type=module", "-e", FETCH, url]).args(key);
                node
            }
            Self::Requests => {
                let mut python = Command::new(tool("KEYTALLY_TEST_PYTHON", "python3"));
                python.args(["-c", REQUESTS, url]).args(key);
                python
            }
        };
        // A proxy in the environment must not be used.
        let run = finish(command.env("NO_PROXY", "*").env("no_proxy", "*"), b"");
        assert_eq!(
            run.status, 0,
            "{self:?} failed; `cargo xtask test service` installs what it needs: {}",
            run.err
        );
        match self {
            Self::Curl => {
                let (head, body) = run.out.split_once("\r\n\r\n").unwrap();
                let mut lines = head.split("\r\n");
                let status = lines.next().unwrap().to_owned();
                let split = |line: &str| {
                    line.split_once(": ").map(|(name, value)| (name.into(), value.into()))
                };
                Reply {
                    status,
                    headers: lines.map(|line| split(line).unwrap()).collect(),
                    body: body.to_owned(),
                }
            }
            Self::Fetch | Self::Requests => {
                let (status, headers, body): (u16, _, _) = serde_json::from_str(&run.out).unwrap();
                Reply { status: format!("HTTP/1.1 {status}"), headers, body }
            }
        }
    }
}

const FETCH: &str = "
const [url, key] = process.argv.slice(1);
const response = await fetch(url, key ? { headers: { 'X-API-Key': key } } : {});
const body = Buffer.from(await response.arrayBuffer()).toString('latin1');
console.log(JSON.stringify([response.status, [...response.headers], body]));
";

const REQUESTS: &str = "
import json, sys, requests
url, *key = sys.argv[1:]
response = requests.get(url, headers={'X-API-Key': key[0]} if key else {})
print(json.dumps([response.status_code, list(response.raw.headers.items()), response.content.decode('latin1')]))
";

#[test]
fn documented_clients_get_the_responses_of_the_contract() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=2/minute, 1000/hour"]);
    let url = format!("http://{}/api/v1/contacts", server.address);
    for client in CLIENTS {
        let (key, _) = sandbox.new_key(&["--account", "1"]);
        await_room_in_minute(12);
        // `fetch` returns header names in lower case, curl and requests return them unchanged.
        let get = |key: Option<&str>| {
            let mut reply = client.get(&url, key);
            if let Client::Fetch = client {
                let exact = server.request("GET /api/v1/contacts", &[b"X-API-Key: unknown"]);
                let names = [
                    "X-RateLimit-Limit",
                    "X-RateLimit-Remaining",
                    "X-RateLimit-Reset",
                    "RateLimit-Policy",
                    "RateLimit",
                    "Retry-After",
                    "Content-Length",
                ];
                let names = exact.headers.iter().map(|(name, _)| name.as_str()).chain(names);
                let names: Vec<&str> = names.collect();
                for (name, _) in &mut reply.headers {
                    assert_eq!(*name, name.to_lowercase());
                    if let Some(exact) = names.iter().find(|exact| exact.eq_ignore_ascii_case(name))
                    {
                        (*exact).clone_into(name);
                    }
                }
            }
            reply
        };
        for used in 1..=2 {
            let (reply, between) = timed(|| get(Some(&key)));
            assert_eq!((reply.code(), reply.body.as_str()), (200, CONTACTS_OF_1), "{client:?}");
            assert_eq!(reply.header("Content-Type"), "application/json");
            assert_rate_headers(&reply, 2, used, between);
        }
        let (reply, between) = timed(|| get(Some(&key)));
        assert_eq!((reply.code(), reply.body.as_str()), (429, EXCEEDED), "{client:?}");
        assert_eq!(reply.header("Content-Type"), "application/json");
        assert_rate_headers(&reply, 2, 2, between);
        for (key, body) in [(None, MISSING), (Some("kt_live_nonsense"), INVALID)] {
            let reply = get(key);
            assert_eq!((reply.code(), reply.body.as_str()), (401, body), "{client:?}");
            assert_eq!(reply.header("Content-Type"), "application/json");
            assert_eq!(reply.header("WWW-Authenticate"), CHALLENGE);
            assert!(!reply.has("X-RateLimit-Limit") && !reply.has("Retry-After"), "{reply:?}");
        }
    }
}

/// Returns a well-formed key with this id and a secret that no gate has issued.
fn forged(key_id: KeyId) -> String {
    let [prefix, env] = ["kt", "live"].map(|name| Name::new(name).unwrap());
    Key::mint(prefix, env, key_id, &[7; 16]).unwrap().expose().to_owned()
}

#[test]
fn invalid_keys_get_one_response_and_the_log_has_the_reason() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--failures", "off"]);
    let (revoked, revoked_id) = sandbox.new_key(&["--account", "2"]);
    sandbox.run_admin(&["revoke", GATE, &revoked_id]).expect_status(0);
    let (expired, _) = sandbox.new_key(&["--account", "3", "--expires", "1s"]);
    let (rotated, rotated_id) = sandbox.new_key(&["--account", "4"]);
    sandbox.new_secret(&rotated_id, "0s");
    let good = server.first_key().unwrap();
    let mut mistyped = good.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'a' { 'b' } else { 'a' });
    let wrong = forged(key_id(&good).parse().unwrap());
    let unknown = forged(KeyId::from_number(u64::MAX / 3).unwrap());
    sleep(Duration::from_millis(1100));

    let expected = "HTTP/1.1 401 Unauthorized";
    let header = |value: &[u8]| [b"X-API-Key: ", value].concat();
    let good_line = header(good.as_bytes());
    let cases: [(&str, Vec<Vec<u8>>); 14] = [
        ("malformed", vec![header(b"nonsense")]),
        ("malformed", vec![header(b"")]),
        ("malformed", vec![header(b"kt_live_\xff\xfe\x80")]),
        ("malformed", vec![header(&b"k".repeat(4000))]),
        ("malformed", vec![header(&[good.as_bytes(), b"0"].concat())]),
        ("malformed", vec![header(&[good.as_bytes(), b", ", good.as_bytes()].concat())]),
        ("checksum", vec![header(mistyped.as_bytes())]),
        ("unknown", vec![header(unknown.as_bytes())]),
        ("wrong_secret", vec![header(wrong.as_bytes())]),
        ("expired", vec![header(rotated.as_bytes())]),
        ("revoked", vec![header(revoked.as_bytes())]),
        ("expired", vec![header(expired.as_bytes())]),
        ("duplicate", vec![good_line.clone(), good_line.clone()]),
        ("duplicate", vec![good_line.clone(), [b"x-api-key: ", unknown.as_bytes()].concat()]),
    ];
    let mut responses = HashSet::new();
    for path in ["/auth", "/api/v1/contacts", "/api/v1/limits"] {
        for (reason, lines) in &cases {
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            let counter =
                format!("keytally_verdicts_total{{outcome=\"invalid_key\",reason=\"{reason}\"}}");
            let before = server.metric(&counter);
            let reply = server.request(&format!("GET {path}"), &lines).without_date();
            assert_eq!(
                (reply.status.as_str(), reply.body.as_str()),
                (expected, INVALID),
                "{reason}"
            );
            assert_eq!(reply.header("WWW-Authenticate"), CHALLENGE);
            responses.insert(format!("{reply:?}"));
            assert_eq!(server.metric(&counter), before + 1, "{reason}");
            if path == "/auth" {
                await_log(&sandbox, &["invalid_key", &format!("reason={reason}"), "route=auth"]);
                // Stays below the log's maximum rate.
                sleep(Duration::from_millis(70));
            }
        }
    }
    // The response of /auth also has empty identity headers.
    assert_eq!(responses.len(), 2, "responses disclose the reason: {responses:?}");
    // The log names the holder if the secret was correct.
    await_log(&sandbox, &["reason=revoked", &revoked_id, "account=2"]);
    let log = log(&sandbox);
    for key in [&good, &revoked, &expired, &rotated, &unknown, &wrong] {
        assert!(!log.contains(secret(key)), "{log}");
    }
    // The duplicate headers were not charged.
    assert_eq!(server.get("/api/v1/limits", &good).header("X-RateLimit-Remaining"), "1000");
}

#[test]
fn missing_key_gets_a_response_of_its_own() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    for path in ["/api/v1/contacts", "/api/v1/limits", "/auth"] {
        let reply = server.request(&format!("GET {path}"), &[]);
        assert_eq!(
            (reply.status.as_str(), reply.body.as_str()),
            ("HTTP/1.1 401 Unauthorized", MISSING)
        );
        assert_eq!(reply.header("WWW-Authenticate"), CHALLENGE);
        assert_eq!(reply.header("Content-Type"), "application/json");
    }
    assert_eq!(
        server.metric("keytally_verdicts_total{outcome=\"missing_key\",reason=\"none\"}"),
        3
    );
    await_log(&sandbox, &[" missing_key route=auth"]);
}

#[test]
fn head_is_like_get_without_the_body() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=1/day, 1000/30d"]);
    let key = server.first_key().unwrap();
    let header = format!("X-API-Key: {key}");
    let lines = [header.as_bytes()];
    let stable = |mut reply: Reply| {
        reply.headers.retain(|(name, _)| {
            !["Date", "X-RateLimit-Remaining", "RateLimit", "Retry-After"].contains(&name.as_str())
        });
        (reply.status, reply.headers)
    };
    let head = server.request("HEAD /api/v1/limits", &lines);
    assert_eq!(head.body, "");
    assert_eq!(stable(head), stable(server.request("GET /api/v1/limits", &lines)));
    let head = server.request("HEAD /api/v1/contacts", &lines);
    assert_eq!(
        (head.code(), head.header("X-RateLimit-Remaining")),
        (200, "0"),
        "HEAD is charged as well"
    );
    let head = server.request("HEAD /api/v1/contacts", &lines);
    assert_eq!(head.header("Content-Length"), EXCEEDED.len().to_string());
    assert_eq!(stable(head), stable(server.request("GET /api/v1/contacts", &lines)));
    let head = server.request("HEAD /api/v1/contacts", &[]);
    assert_eq!(stable(head), stable(server.request("GET /api/v1/contacts", &[])));
}

#[test]
fn problem_document_is_sent_only_if_accepted() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=1/day, 1000/30d"]);
    let key = server.first_key().unwrap();
    let header = format!("X-API-Key: {key}");
    let request = |accept: &str| {
        server.request("GET /api/v1/contacts", &[header.as_bytes(), accept.as_bytes()])
    };
    assert_eq!(request("Accept: application/problem+json").body, CONTACTS_OF_1);
    let reply = request("Accept: application/problem+json");
    assert_eq!((reply.code(), reply.header("Content-Type")), (429, "application/problem+json"));
    let problem: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!((&problem["status"], &problem["violated-policies"]), (&json!(429), &json!(["day"])));
    assert!(problem["type"].as_str().unwrap().ends_with("#quota-exceeded"));
    assert!(reply.has("Retry-After") && reply.has("X-RateLimit-Reset"));
    for accept in
        ["Accept: application/json", "Accept: */*", "Accept: application/problem+json;q=0"]
    {
        let reply = request(accept);
        assert_eq!(
            (reply.body.as_str(), reply.header("Content-Type")),
            (EXCEEDED, "application/json"),
            "{accept}"
        );
    }
    let reply = server
        .request("GET /api/v1/contacts", &[b"X-API-Key: x", b"Accept: application/problem+json"]);
    assert_eq!(serde_json::from_str::<Value>(&reply.body).unwrap()["title"], "Invalid API key");
}
