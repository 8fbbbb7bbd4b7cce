//! Who asks, as the service knows it: guessed keys by client address, trusted proxies, CORS preflights, and the
//! identity that `/auth` reports.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, unreachable_pub, reason = "a module of several tests, each of which uses what it needs")]
mod support;

use support::program::Bench;
use support::server::{Server, logged};
use support::wire::{Reply, Wire};

const INVALID: &str = r#"{"error": "Invalid API key"}"#;
const EXCEEDED: &str = r#"{"error": "Rate limit exceeded. Please try again later."}"#;
const REFUSED: &str = "keytally_guesses_total{action=\"refused\"}";
const IDENTITY: [&str; 4] = ["X-Account-Id", "X-Key-Id", "X-Key-Env", "X-Key-Plan"];

/// Two wrong keys a client, in a window whose end doesn't fall into a test.
const TWO: [&str; 2] = ["--failures", "2/31d"];

fn guess(server: &Server, path: &str, more: &[&str]) -> Reply {
    let lines: Vec<&[u8]> = ["X-API-Key: wrong"].iter().chain(more).map(|line| line.as_bytes()).collect();
    server.ask(&format!("GET {path}"), &lines)
}

fn guesses(server: &Server, path: &str, more: &[&str], count: usize) -> Vec<u16> {
    (0..count).map(|_| guess(server, path, more).code()).collect()
}

#[test]
fn wrong_keys_beyond_the_limit_get_429() {
    let bench = Bench::new();
    let server = Server::start(&bench, &TWO);
    let key = bench.remember(&server.first_key().unwrap());
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
    assert_eq!(server.metric("keytally_verdicts_total{outcome=\"invalid_key\",reason=\"malformed\"}"), 5);
    logged(&bench, &["invalid_key reason=malformed retry_after=", "route=limits"]);
    // A right key passes, and requests without one are no guesses.
    assert_eq!(server.contacts(&key).code(), 200);
    assert_eq!(server.ask("GET /api/v1/contacts", &[]).code(), 401);
}

#[test]
fn revoked_keys_and_duplicates_count_as_wrong_ones() {
    let bench = Bench::new();
    let server = Server::start(&bench, &TWO);
    let (key, key_id) = bench.new_key(&["--account", "2"]);
    bench.administer(&["revoke", support::server::GATE, &key_id]).with(0);
    assert_eq!(server.contacts(&key).code(), 401);
    let header = format!("X-API-Key: {key}");
    let twice = [header.as_bytes(), header.as_bytes()];
    assert_eq!(server.ask("GET /api/v1/contacts", &twice).code(), 401);
    assert_eq!(server.ask("GET /api/v1/contacts", &twice).code(), 429);
    assert_eq!(server.contacts(&key).code(), 429);
}

#[test]
fn missing_keys_never_count() {
    let bench = Bench::new();
    let server = Server::start(&bench, &TWO);
    for _ in 0..5 {
        assert_eq!(server.ask("GET /api/v1/contacts", &[]).code(), 401);
    }
    assert_eq!(guesses(&server, "/api/v1/contacts", &[], 3), [401, 401, 429]);
}

#[test]
fn guesses_are_limited_by_default_unless_off() {
    let bench = Bench::new();
    let server = Server::start(&bench, &[]);
    // A minute may end on the way.
    assert!(guesses(&server, "/api/v1/contacts", &[], 50).contains(&429));
    drop(server);
    let server = Server::start(&bench, &["--failures", "off"]);
    assert_eq!(guesses(&server, "/api/v1/contacts", &[], 50), [401; 50]);
}

#[test]
fn forwarded_addresses_are_believed_from_trusted_proxies() {
    let bench = Bench::new();
    let server = Server::start(&bench, &[&TWO[..], &["--trusted-proxy", "127.0.0.0/8"]].concat());
    for path in ["/auth", "/api/v1/contacts"] {
        let host = if path == "/auth" { 1 } else { 2 };
        let from = |last: &str| format!("X-Forwarded-For: 1.2.3.4, 203.0.113.{host}{last}");
        assert_eq!(guesses(&server, path, &[&from("1")], 3), [401, 401, 429], "{path}");
        // The proxy's own address and what the client wrote change nothing, another client has its own count.
        assert_eq!(guesses(&server, path, &["X-Forwarded-For: 9.9.9.9", &from("1, 127.0.0.7")], 1), [429]);
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
fn forwarded_addresses_of_other_peers_are_not_believed() {
    let bench = Bench::new();
    let server = Server::start(&bench, &[&TWO[..], &["--trusted-proxy", "10.0.0.0/8"]].concat());
    // At /auth the peer is a proxy that nobody vouched for: its clients must not share a count.
    let here = "X-Forwarded-For: 203.0.113.1";
    assert_eq!(guesses(&server, "/auth", &[here], 5), [401; 5]);
    let codes: Vec<u16> = (1..=3)
        .flat_map(|last| {
            guesses(&server, "/api/v1/contacts", &[&format!("X-Forwarded-For: 203.0.113.{last}")], 1)
        })
        .collect();
    assert_eq!(codes, [401, 401, 429]);
}

#[test]
fn peers_of_unix_sockets_are_trusted_only_if_told() {
    for (more, codes) in [(&["--trusted-proxy", "unix"][..], [401, 401, 429]), (&[], [401; 3])] {
        let bench = Bench::new();
        let _server = Server::start_at(&bench, "unix:socket", &[&TWO[..], more].concat(), &[]);
        let guess = || {
            let lines: [&[u8]; 2] = [b"X-API-Key: wrong", b"X-Forwarded-For: 203.0.113.1"];
            Wire::to_socket(&bench.path("socket")).ask("GET /auth", &lines).code()
        };
        assert_eq!([guess(), guess(), guess()], codes, "{more:?}");
    }
}

#[test]
fn shadow_mode_reports_guesses_and_refuses_none() {
    let bench = Bench::new();
    let server = Server::start(&bench, &[&TWO[..], &["--shadow"]].concat());
    assert_eq!(guesses(&server, "/api/v1/contacts", &[], 5), [200; 5]);
    assert_eq!(guess(&server, "/api/v1/contacts", &[]).header("X-Keytally-Shadow"), "invalid_key");
    assert_eq!(server.metric("keytally_guesses_total{action=\"shadow\"}"), 4);
    assert_eq!(server.metric(REFUSED), 0);
}

/// Asks `/auth` with these lines besides. Returns the reply without what changes with time.
fn authorize(server: &Server, request: &str, lines: &[&str]) -> Reply {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    server.ask(request, &lines).timeless()
}

#[test]
fn auth_always_reports_an_identity_or_none() {
    for more in [&[][..], &["--shadow"]] {
        let bench = Bench::new();
        let server = Server::start(&bench, &[&["--plan", "default=1/31d"], more].concat());
        let key = format!("X-API-Key: {}", server.first_key().unwrap());
        let admitted = authorize(&server, "GET /auth", &[&key]);
        assert!(IDENTITY.iter().all(|name| !admitted.header(name).is_empty()), "{admitted:?}");
        for lines in [&[][..], &["X-API-Key: wrong"], &[&key, &key]] {
            let reply =
                authorize(&server, "GET /auth", &[&["X-Account-Id: 7", "X-Key-Plan: pro"], lines].concat());
            for name in IDENTITY {
                assert_eq!(reply.header(name), "", "{reply:?}");
            }
        }
        // Denied, and with a cost that cannot be read: who asks is known in shadow mode alone.
        for cost in ["X-Cost: 1", "X-Cost: many"] {
            let reply = authorize(&server, "GET /auth", &[&key, cost]);
            for name in IDENTITY {
                assert_eq!(reply.header(name).is_empty(), more.is_empty(), "{reply:?}");
            }
        }
        // Elsewhere there are no such headers.
        let elsewhere = authorize(&server, "GET /api/v1/limits", &[&key]);
        assert!(IDENTITY.iter().all(|name| !elsewhere.has(name)), "{elsewhere:?}");
    }
}

#[test]
fn preflights_pass_where_the_proxy_states_their_method() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--preflight-header", "X-Forwarded-Method"]);
    let key = server.first_key().unwrap();
    let with_key = format!("X-API-Key: {key}");
    for lines in [&["X-Forwarded-Method: OPTIONS"][..], &["x-forwarded-method: OPTIONS", &with_key]] {
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
fn preflights_of_envoy_pass_by_their_own_method() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--preflight-header", ":method"]);
    assert_eq!(authorize(&server, "OPTIONS /auth/path", &[]).code(), 200);
    assert_eq!(authorize(&server, "GET /auth", &["X-Forwarded-Method: OPTIONS"]).code(), 401);
}

#[test]
fn no_preflight_passes_unless_told() {
    let bench = Bench::new();
    let server = Server::start(&bench, &[]);
    let claims = ["X-Forwarded-Method: OPTIONS", "X-Original-Method: OPTIONS"];
    assert_eq!(authorize(&server, "OPTIONS /auth", &claims).code(), 401);
}
