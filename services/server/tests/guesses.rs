//! Clients: guessed keys per client address, trusted proxies, CORS preflights, and the identity
//! headers of `/auth`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses what it needs"
)]
mod support;

use support::program::Sandbox;
use support::server::{Server, await_log, log};
use support::wire::{Reply, Wire};

const INVALID: &str = r#"{"error": "Invalid API key"}"#;
const EXCEEDED: &str = r#"{"error": "Rate limit exceeded. Please try again later."}"#;
const REFUSED: &str = "keytally_guesses_total{action=\"refused\"}";
const IDENTITY: [&str; 4] = ["X-Account-Id", "X-Key-Id", "X-Key-Env", "X-Key-Plan"];

/// A limit of two invalid keys per client, in a window that does not end during a test.
const LIMIT_OF_TWO: [&str; 2] = ["--failures", "2/31d"];

/// Sends `GET` with an invalid key and these header lines.
fn guess(server: &Server, path: &str, more: &[&str]) -> Reply {
    let lines: Vec<&[u8]> =
        ["X-API-Key: wrong"].iter().chain(more).map(|line| line.as_bytes()).collect();
    server.request(&format!("GET {path}"), &lines)
}

/// Guesses `count` times. Returns the status codes.
fn guesses(server: &Server, path: &str, more: &[&str], count: usize) -> Vec<u16> {
    (0..count).map(|_| guess(server, path, more).code()).collect()
}

#[test]
fn invalid_keys_beyond_the_limit_get_429() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &LIMIT_OF_TWO);
    let key = sandbox.watch_secret(&server.first_key().unwrap());
    for path in ["/api/v1/contacts", "/api/v1/limits"] {
        let reply = guess(&server, path, &[]);
        assert_eq!((reply.code(), reply.body.as_str()), (401, INVALID));
    }
    assert_eq!(server.metric(REFUSED), 0);
    for path in ["/api/v1/contacts", "/api/v1/limits"] {
        let reply = guess(&server, path, &[]);
        assert_eq!((reply.code(), reply.body.as_str()), (429, EXCEEDED));
        assert!((1..=31 * 86_400).contains(&reply.header("Retry-After").parse::<u32>().unwrap()));
        assert_eq!(reply.header("Content-Type"), "application/json");
        for name in ["X-RateLimit-Limit", "RateLimit", "RateLimit-Policy", "WWW-Authenticate"] {
            assert!(!reply.has(name), "{reply:?}");
        }
    }
    let problem = guess(&server, "/api/v1/contacts", &["Accept: application/problem+json"]);
    assert_eq!((problem.code(), problem.header("Content-Type")), (429, "application/problem+json"));
    assert_eq!(server.metric(REFUSED), 3);
    assert_eq!(
        server.metric("keytally_verdicts_total{outcome=\"invalid_key\",reason=\"malformed\"}"),
        5
    );
    await_log(
        &sandbox,
        &["invalid_key reason=malformed retry_after=", " client=127.0.0.1 ", "route=limits"],
    );
    // Within the limit, no address is logged.
    assert_eq!(log(&sandbox).matches(" client=").count(), 3, "{}", log(&sandbox));
    // A valid key is admitted, and a request without a key does not count.
    assert_eq!(server.contacts(&key).code(), 200);
    assert_eq!(server.request("GET /api/v1/contacts", &[]).code(), 401);
}

#[test]
fn revoked_and_duplicate_keys_count_as_invalid() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &LIMIT_OF_TWO);
    let (key, key_id) = sandbox.new_key(&["--account", "2"]);
    sandbox.run_admin(&["revoke", support::server::GATE, &key_id]).expect_status(0);
    assert_eq!(server.contacts(&key).code(), 401);
    let header = format!("X-API-Key: {key}");
    let twice = [header.as_bytes(), header.as_bytes()];
    assert_eq!(server.request("GET /api/v1/contacts", &twice).code(), 401);
    assert_eq!(server.request("GET /api/v1/contacts", &twice).code(), 429);
    assert_eq!(server.contacts(&key).code(), 429);
}

#[test]
fn missing_keys_never_count() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &LIMIT_OF_TWO);
    for _ in 0..5 {
        assert_eq!(server.request("GET /api/v1/contacts", &[]).code(), 401);
    }
    assert_eq!(guesses(&server, "/api/v1/contacts", &[], 3), [401, 401, 429]);
}

#[test]
fn guesses_are_limited_unless_off() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    // A minute may end during the requests.
    assert!(guesses(&server, "/api/v1/contacts", &[], 50).contains(&429));
    drop(server);
    let server = Server::start(&sandbox, &["--failures", "off"]);
    assert_eq!(guesses(&server, "/api/v1/contacts", &[], 50), [401; 50]);
}

#[test]
fn forwarded_address_of_a_trusted_proxy_is_used() {
    let sandbox = Sandbox::new();
    let server =
        Server::start(&sandbox, &[&LIMIT_OF_TWO[..], &["--trusted-proxy", "127.0.0.0/8"]].concat());
    for path in ["/auth", "/api/v1/contacts"] {
        let host = if path == "/auth" { 1 } else { 2 };
        let from = |last: &str| format!("X-Forwarded-For: 1.2.3.4, 203.0.113.{host}{last}");
        assert_eq!(guesses(&server, path, &[&from("1")], 3), [401, 401, 429], "{path}");
        // The proxy's own address and the client's own text change nothing. Another client has its
        // own count.
        assert_eq!(
            guesses(&server, path, &["X-Forwarded-For: 9.9.9.9", &from("1, 127.0.0.7")], 1),
            [429]
        );
        assert_eq!(guesses(&server, path, &[&from("2")], 3), [401, 401, 429]);
        let site = format!("X-Forwarded-For: 2001:db8:{host}::");
        assert_eq!(guesses(&server, path, &[&format!("{site}1")], 2), [401, 401]);
        assert_eq!(guesses(&server, path, &[&format!("{site}2")], 1), [429]);
        // Unknown clients are not counted.
        assert_eq!(guesses(&server, path, &[], 5), [401; 5]);
        assert_eq!(guesses(&server, path, &["X-Forwarded-For: unknown"], 5), [401; 5]);
    }
}

#[test]
fn forwarded_address_of_another_peer_is_ignored() {
    let sandbox = Sandbox::new();
    let server =
        Server::start(&sandbox, &[&LIMIT_OF_TWO[..], &["--trusted-proxy", "10.0.0.0/8"]].concat());
    // At /auth the peer is an untrusted proxy, whose clients must not share a count.
    let here = "X-Forwarded-For: 203.0.113.1";
    assert_eq!(guesses(&server, "/auth", &[here], 5), [401; 5]);
    let codes: Vec<u16> = (1..=3)
        .flat_map(|last| {
            guesses(
                &server,
                "/api/v1/contacts",
                &[&format!("X-Forwarded-For: 203.0.113.{last}")],
                1,
            )
        })
        .collect();
    assert_eq!(codes, [401, 401, 429]);
}

#[test]
fn unix_socket_peer_is_trusted_only_by_option() {
    for (more, codes) in [(&["--trusted-proxy", "unix"][..], [401, 401, 429]), (&[], [401; 3])] {
        let sandbox = Sandbox::new();
        let _server =
            Server::start_at(&sandbox, "unix:socket", &[&LIMIT_OF_TWO[..], more].concat(), &[]);
        let guess = || {
            let lines: [&[u8]; 2] = [b"X-API-Key: wrong", b"X-Forwarded-For: 203.0.113.1"];
            Wire::to_socket(&sandbox.path("socket")).request("GET /auth", &lines).code()
        };
        assert_eq!([guess(), guess(), guess()], codes, "{more:?}");
    }
}

#[test]
fn shadow_mode_reports_guesses_and_refuses_none() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[&LIMIT_OF_TWO[..], &["--shadow"]].concat());
    assert_eq!(guesses(&server, "/api/v1/contacts", &[], 5), [200; 5]);
    assert_eq!(guess(&server, "/api/v1/contacts", &[]).header("X-Keytally-Shadow"), "invalid_key");
    assert_eq!(server.metric("keytally_guesses_total{action=\"shadow\"}"), 4);
    assert_eq!(server.metric(REFUSED), 0);
}

/// Sends a request with these header lines. Returns the reply without its date.
fn authorize(server: &Server, request: &str, lines: &[&str]) -> Reply {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    server.request(request, &lines).without_date()
}

#[test]
fn auth_always_sets_the_identity_headers() {
    for more in [&[][..], &["--shadow"]] {
        let sandbox = Sandbox::new();
        let server = Server::start(&sandbox, &[&["--plan", "default=1/31d"], more].concat());
        let key = format!("X-API-Key: {}", server.first_key().unwrap());
        let admitted = authorize(&server, "GET /auth", &[&key]);
        assert!(IDENTITY.iter().all(|name| !admitted.header(name).is_empty()), "{admitted:?}");
        for lines in [&[][..], &["X-API-Key: wrong"], &[&key, &key]] {
            let reply = authorize(
                &server,
                "GET /auth",
                &[&["X-Account-Id: 7", "X-Key-Plan: pro"], lines].concat(),
            );
            for name in IDENTITY {
                assert_eq!(reply.header(name), "", "{reply:?}");
            }
        }
        // Denied, and an invalid cost: the holder is reported only in shadow mode.
        for cost in ["X-Cost: 1", "X-Cost: many"] {
            let reply = authorize(&server, "GET /auth", &[&key, cost]);
            for name in IDENTITY {
                assert_eq!(reply.header(name).is_empty(), more.is_empty(), "{reply:?}");
            }
        }
        // Other routes do not have these headers.
        let elsewhere = authorize(&server, "GET /api/v1/limits", &[&key]);
        assert!(IDENTITY.iter().all(|name| !elsewhere.has(name)), "{elsewhere:?}");
    }
}

#[test]
fn preflight_is_admitted_by_the_header_of_the_proxy() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--preflight-header", "X-Forwarded-Method"]);
    let key = server.first_key().unwrap();
    let with_key = format!("X-API-Key: {key}");
    for lines in [&["X-Forwarded-Method: OPTIONS"][..], &["x-forwarded-method: OPTIONS", &with_key]]
    {
        let reply = authorize(&server, "GET /auth/path", lines);
        assert_eq!((reply.code(), reply.body.as_str()), (200, ""));
        for name in IDENTITY {
            assert_eq!(reply.header(name), "");
        }
        assert!(!reply.has("X-RateLimit-Limit"), "{reply:?}");
    }
    assert_eq!(server.metric("keytally_preflights_total"), 2);
    for (request, lines) in [
        ("GET /auth", &["X-Original-Method: OPTIONS"][..]),
        ("OPTIONS /auth", &[]),
        ("GET /auth", &["X-Forwarded-Method: GET"]),
        ("GET /auth", &["X-Forwarded-Method: options"]),
        ("GET /auth", &["X-Forwarded-Method: OPTIONS", "X-Forwarded-Method: GET"]),
        ("GET /auth", &["X-Forwarded-Method: OPTIONS", "X-Forwarded-Method: OPTIONS"]),
        ("GET /api/v1/limits", &["X-Forwarded-Method: OPTIONS"]),
    ] {
        assert_eq!(authorize(&server, request, lines).code(), 401, "{request} {lines:?}");
    }
    assert_eq!(server.get("/api/v1/limits", &key).header("X-RateLimit-Remaining"), "1000");
}

#[test]
fn preflight_of_envoy_is_admitted_by_its_method() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--preflight-header", ":method"]);
    assert_eq!(authorize(&server, "OPTIONS /auth/path", &[]).code(), 200);
    assert_eq!(authorize(&server, "GET /auth", &["X-Forwarded-Method: OPTIONS"]).code(), 401);
}

#[test]
fn preflight_is_not_admitted_by_default() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let claims = ["X-Forwarded-Method: OPTIONS", "X-Original-Method: OPTIONS"];
    assert_eq!(authorize(&server, "OPTIONS /auth", &claims).code(), 401);
}
