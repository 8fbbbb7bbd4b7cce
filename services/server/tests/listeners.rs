//! Where the service listens and what it speaks: IPv4, IPv6, Unix sockets, an address for metrics, HTTP/2.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, unreachable_pub, reason = "a module of several tests, each of which uses what it needs")]
mod support;

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use rustix::net::listen;
use rustix::process::Signal;
use support::program::{Bench, finish};
use support::server::Server;
use support::wire::{Reply, Wire};

const SOCKET: &str = "unix:api.socket";

fn at_socket(bench: &Bench, more: &[&str]) -> Server {
    Server::start_at(bench, SOCKET, more, &[])
}

fn ask_socket(bench: &Bench, name: &str, request: &str) -> Reply {
    Wire::to_socket(&bench.path(name)).ask(request, &[])
}

/// Asserts that a start fails with such a sentence.
#[track_caller]
fn serve_fails(bench: &Bench, args: &[&str], parts: &[&str]) {
    bench.finish(&mut bench.command(&[&["serve", "--data", "data"], args].concat()), b"").fails(parts);
}

#[test]
fn a_unix_socket_serves_with_its_mode() {
    for (more, mode) in
        [(&[][..], 0o660), (&["--socket-mode", "600"], 0o600), (&["--socket-mode", "0666"], 0o666)]
    {
        let bench = Bench::new();
        let server = at_socket(&bench, more);
        assert!(
            server.greeting.ends_with("Listening on unix:api.socket (Ctrl-C stops)\n"),
            "{}",
            server.greeting
        );
        let file = fs::metadata(bench.path("api.socket")).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, mode);
        assert_eq!(ask_socket(&bench, "api.socket", "GET /healthz").code(), 200);
        let gate = fs::metadata(bench.path("data/api.gate")).unwrap();
        assert_eq!(gate.permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn the_curl_line_of_a_unix_socket_works() {
    let bench = Bench::new();
    let server = at_socket(&bench, &[]);
    let line = server.greeting.lines().find(|line| line.contains("curl")).unwrap().trim();
    let mut shell = Command::new("sh");
    let ran = finish(shell.args(["-c", &format!("{line} --silent")]).current_dir(bench.path(".")), b"");
    assert!(ran.out.starts_with("HTTP/1.1 200 OK\r\n"), "{line} {ran:?}");
}

#[test]
fn a_stop_removes_the_socket_file() {
    let bench = Bench::new();
    let server = at_socket(&bench, &["--metrics-listen", "unix:metrics.socket"]);
    assert!(bench.path("metrics.socket").exists());
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert_eq!(bench.names(), ["data", "log.txt"]);
}

#[test]
fn a_stop_keeps_the_socket_file_of_another_process() {
    let bench = Bench::new();
    let server = at_socket(&bench, &[]);
    fs::remove_file(bench.path("api.socket")).unwrap();
    let _other = UnixListener::bind(bench.path("api.socket")).unwrap();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(bench.path("api.socket").exists());
}

#[test]
fn a_start_replaces_a_socket_file_without_a_listener() {
    let bench = Bench::new();
    let killed = at_socket(&bench, &[]);
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(bench.path("api.socket").exists());
    let _server = at_socket(&bench, &[]);
    assert_eq!(ask_socket(&bench, "api.socket", "GET /healthz").code(), 200);
}

#[test]
fn a_start_refuses_a_path_that_is_taken() {
    let bench = Bench::new();
    let _server = at_socket(&bench, &[]);
    serve_fails(
        &bench,
        &["--listen", SOCKET],
        &["cannot listen on unix:api.socket", "another process listens there", "--listen"],
    );
    assert_eq!(ask_socket(&bench, "api.socket", "GET /healthz").code(), 200);
    fs::write(bench.path("file"), "precious").unwrap();
    serve_fails(&bench, &["--listen", "unix:file"], &["cannot listen on unix:file", "not a socket"]);
    assert_eq!(fs::read_to_string(bench.path("file")).unwrap(), "precious");
    serve_fails(&bench, &["--listen", "unix:no/folder"], &["cannot listen on unix:no/folder"]);
    // No failed start leaves its first socket behind.
    serve_fails(&bench, &["--listen", "unix:new", "--metrics-listen", SOCKET], &["--metrics-listen"]);
    assert!(!bench.path("new").exists());
}

#[test]
fn a_start_does_not_wait_for_a_listener_with_a_full_queue() {
    let bench = Bench::new();
    let path = bench.path("api.socket");
    let listener = UnixListener::bind(&path).unwrap();
    listen(&listener, 0).unwrap();
    // The queue has room for one client, which is not accepted.
    let _queued = UnixStream::connect(&path).unwrap();
    serve_fails(&bench, &["--listen", SOCKET], &["another process listens there"]);
}

#[test]
fn ipv6_addresses_are_served() {
    let bench = Bench::new();
    if TcpListener::bind("[::1]:0").is_err() {
        // Without IPv6 there is nothing but the error.
        return serve_fails(&bench, &["--listen", "[::1]:0"], &["cannot listen on [::1]:0"]);
    }
    let server = Server::start_at(&bench, "[::1]:0", &[], &[]);
    assert_eq!(server.ask("GET /healthz", &[]).code(), 200);
    let line = server.greeting.lines().find(|line| line.contains("curl")).unwrap().trim();
    assert!(line.contains(" 'http://[::1]:"), "{line}");
    let mut shell = Command::new("sh");
    let ran = finish(shell.args(["-c", &format!("{line} --silent")]).env("NO_PROXY", "*"), b"");
    assert!(ran.out.starts_with("HTTP/1.1 200 OK\r\n"), "{line} {ran:?}");
}

#[test]
fn metrics_are_served_at_their_own_address_alone() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--metrics-listen", "127.0.0.1:0"]);
    let line = server.greeting.lines().find_map(|line| line.strip_prefix("Metrics are on http://")).unwrap();
    let metrics = Wire::to(line.parse().unwrap()).ask("GET /metrics", &[]);
    assert_eq!(metrics.code(), 200);
    assert_eq!(Server::value(&metrics.body, "keytally_gate_keys"), 1);
    assert_eq!(server.ask("GET /metrics", &[]).code(), 404);
    for request in ["GET /auth", "GET /api/v1/contacts", "GET /api/v1/limits"] {
        assert_eq!(Wire::to(line.parse().unwrap()).ask(request, &[]).code(), 404, "{request}");
        assert_eq!(server.ask(request, &[]).code(), 401, "{request}");
    }
    assert_eq!(Wire::to(line.parse().unwrap()).ask("GET /healthz", &[]).code(), 200);
    assert_eq!(server.ask("GET /healthz", &[]).code(), 200);
}

/// Asks over HTTP/2 without TLS. Returns the status line and the other lines of the head, and the body.
fn ask_http2(url: &str, headers: &[&str]) -> (Vec<String>, String) {
    let mut curl = Command::new(env::var("KEYTALLY_TEST_CURL").unwrap_or_else(|_| "curl".to_owned()));
    curl.args(["--silent", "--show-error", "--include", "--http2-prior-knowledge", url]);
    for header in headers {
        curl.args(["-H", header]);
    }
    let ran = finish(curl.env("NO_PROXY", "*").env("no_proxy", "*"), b"");
    assert_eq!(ran.status, 0, "`cargo xtask test service` gets a curl with HTTP/2: {}", ran.err);
    let (head, body) = ran.out.split_once("\r\n\r\n").unwrap();
    (head.split("\r\n").map(|line| line.trim_end().to_owned()).collect(), body.to_owned())
}

#[test]
fn http2_without_tls_keeps_the_contract() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--plan", "default=1/day, 1000/30d"]);
    let key = format!("X-API-Key: {}", server.first_key().unwrap());
    let url = |path: &str| format!("http://{}{path}", server.address);
    let (head, body) = ask_http2(&url("/api/v1/contacts"), &[&key]);
    assert_eq!(head[0], "HTTP/2 200");
    assert!(head.contains(&"x-ratelimit-remaining: 999".to_owned()), "{head:?}");
    assert!(body.starts_with(r#"{"account":1,"contacts":["#), "{body}");
    let (head, body) = ask_http2(&url("/auth/a"), &[&key]);
    assert_eq!(
        (head[0].as_str(), body.as_str()),
        ("HTTP/2 429", r#"{"error": "Rate limit exceeded. Please try again later."}"#)
    );
    assert!(head.iter().any(|line| line.starts_with("retry-after: ")), "{head:?}");
    let (head, body) = ask_http2(&url("/auth"), &[]);
    assert_eq!((head[0].as_str(), body.as_str()), ("HTTP/2 401", r#"{"error": "Missing X-API-Key header"}"#));
    // HTTP/2 counts 32 more bytes for each field.
    let (head, _) = ask_http2(&url("/healthz"), &[&format!("X: {}", "a".repeat(16_000))]);
    assert_eq!(head[0], "HTTP/2 200");
    let (head, _) = ask_http2(&url("/healthz"), &[&format!("X: {}", "a".repeat(16_384))]);
    assert_eq!(head[0], "HTTP/2 431");
}

#[test]
fn wrong_options_say_what_would_be_right() {
    let bench = Bench::new();
    for (args, part) in [
        (["--socket-mode", "888"], "octal number"),
        (["--socket-mode", "1777"], "octal number"),
        (["--trusted-proxy", "10.0.0.0/33"], "10.0.0.0/8"),
        (["--failures", "20/fortnight"], "or write off"),
        (["--preflight-header", "no header"], "X-Forwarded-Method"),
        (["--client-timeout", "0s"], "1s to 1h"),
        (["--client-timeout", "soon"], "--client-timeout"),
        (["--connections", "0"], "1..=65536"),
        (["--connections-per-address", "none"], "--connections-per-address"),
    ] {
        let ran = bench.finish(&mut bench.command(&[&["serve"], &args[..]].concat()), b"");
        assert_eq!(ran.status, 2, "{args:?} {ran:?}");
        assert!(ran.err.contains(part), "{args:?} {ran:?}");
    }
    assert!(bench.names().is_empty());
}
