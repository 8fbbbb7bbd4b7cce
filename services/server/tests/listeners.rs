//! Listeners and protocols: IPv4, IPv6, Unix sockets, a separate address for metrics, HTTP/2.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses what it needs"
)]
mod support;

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use rustix::net::listen;
use rustix::process::Signal;
use support::program::{Sandbox, finish};
use support::server::Server;
use support::wire::{Reply, Wire};

const SOCKET: &str = "unix:api.socket";

/// Starts a service on a Unix socket.
fn start_on_socket(sandbox: &Sandbox, more: &[&str]) -> Server {
    Server::start_at(sandbox, SOCKET, more, &[])
}

/// Sends a request to the Unix socket of this name.
fn request_over_socket(sandbox: &Sandbox, name: &str, request: &str) -> Reply {
    Wire::to_socket(&sandbox.path(name)).request(request, &[])
}

/// Asserts that a start fails with an error that has all of `parts`.
#[track_caller]
fn expect_start_failure(sandbox: &Sandbox, args: &[&str], parts: &[&str]) {
    sandbox
        .finish(&mut sandbox.command(&[&["serve", "--data", "data"], args].concat()), b"")
        .expect_failure(parts);
}

#[test]
fn unix_socket_file_has_its_mode() {
    for (more, mode) in
        [(&[][..], 0o660), (&["--socket-mode", "600"], 0o600), (&["--socket-mode", "0666"], 0o666)]
    {
        let sandbox = Sandbox::new();
        let server = start_on_socket(&sandbox, more);
        assert!(
            server.startup_message.ends_with("Listening on unix:api.socket (Ctrl-C stops)\n"),
            "{}",
            server.startup_message
        );
        let file = fs::metadata(sandbox.path("api.socket")).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, mode);
        assert_eq!(request_over_socket(&sandbox, "api.socket", "GET /healthz").code(), 200);
        let gate = fs::metadata(sandbox.path("data/api.gate")).unwrap();
        assert_eq!(gate.permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn printed_curl_command_for_a_unix_socket_works() {
    let sandbox = Sandbox::new();
    let server = start_on_socket(&sandbox, &[]);
    let line = server.startup_message.lines().find(|line| line.contains("curl")).unwrap().trim();
    let mut shell = Command::new("sh");
    let run =
        finish(shell.args(["-c", &format!("{line} --silent")]).current_dir(sandbox.path(".")), b"");
    assert!(run.out.starts_with("HTTP/1.1 200 OK\r\n"), "{line} {run:?}");
}

#[test]
fn shutdown_removes_the_socket_file() {
    let sandbox = Sandbox::new();
    let server = start_on_socket(&sandbox, &["--metrics-listen", "unix:metrics.socket"]);
    assert!(sandbox.path("metrics.socket").exists());
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert_eq!(sandbox.names(), ["data", "log.txt"]);
}

#[test]
fn shutdown_keeps_the_socket_file_of_another_process() {
    let sandbox = Sandbox::new();
    let server = start_on_socket(&sandbox, &[]);
    fs::remove_file(sandbox.path("api.socket")).unwrap();
    let _other = UnixListener::bind(sandbox.path("api.socket")).unwrap();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(sandbox.path("api.socket").exists());
}

#[test]
fn start_replaces_a_socket_file_without_a_listener() {
    let sandbox = Sandbox::new();
    let killed = start_on_socket(&sandbox, &[]);
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(sandbox.path("api.socket").exists());
    let _server = start_on_socket(&sandbox, &[]);
    assert_eq!(request_over_socket(&sandbox, "api.socket", "GET /healthz").code(), 200);
}

#[test]
fn start_on_a_used_path_fails() {
    let sandbox = Sandbox::new();
    let _server = start_on_socket(&sandbox, &[]);
    expect_start_failure(
        &sandbox,
        &["--listen", SOCKET],
        &["cannot listen on unix:api.socket", "another process listens there", "--listen"],
    );
    assert_eq!(request_over_socket(&sandbox, "api.socket", "GET /healthz").code(), 200);
    fs::write(sandbox.path("file"), "precious").unwrap();
    expect_start_failure(
        &sandbox,
        &["--listen", "unix:file"],
        &["cannot listen on unix:file", "not a socket"],
    );
    assert_eq!(fs::read_to_string(sandbox.path("file")).unwrap(), "precious");
    expect_start_failure(
        &sandbox,
        &["--listen", "unix:no/folder"],
        &["cannot listen on unix:no/folder"],
    );
    // A failed start removes its first socket.
    expect_start_failure(
        &sandbox,
        &["--listen", "unix:new", "--metrics-listen", SOCKET],
        &["--metrics-listen"],
    );
    assert!(!sandbox.path("new").exists());
}

#[test]
fn start_does_not_wait_for_a_listener_with_a_full_queue() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("api.socket");
    let listener = UnixListener::bind(&path).unwrap();
    listen(&listener, 0).unwrap();
    // One client, which is not accepted, fills the queue.
    let _queued = UnixStream::connect(&path).unwrap();
    expect_start_failure(&sandbox, &["--listen", SOCKET], &["another process listens there"]);
}

#[test]
fn ipv6_addresses_are_served() {
    let sandbox = Sandbox::new();
    if TcpListener::bind("[::1]:0").is_err() {
        // Without IPv6, only the error can be tested.
        return expect_start_failure(
            &sandbox,
            &["--listen", "[::1]:0"],
            &["cannot listen on [::1]:0"],
        );
    }
    let server = Server::start_at(&sandbox, "[::1]:0", &[], &[]);
    assert_eq!(server.request("GET /healthz", &[]).code(), 200);
    let line = server.startup_message.lines().find(|line| line.contains("curl")).unwrap().trim();
    assert!(line.contains(" 'http://[::1]:"), "{line}");
    let mut shell = Command::new("sh");
    let run = finish(shell.args(["-c", &format!("{line} --silent")]).env("NO_PROXY", "*"), b"");
    assert!(run.out.starts_with("HTTP/1.1 200 OK\r\n"), "{line} {run:?}");
}

#[test]
fn metrics_with_their_own_address_are_served_only_there() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--metrics-listen", "127.0.0.1:0"]);
    let line = server
        .startup_message
        .lines()
        .find_map(|line| line.strip_prefix("Metrics on http://"))
        .unwrap();
    let metrics = Wire::to(line.parse().unwrap()).request("GET /metrics", &[]);
    assert_eq!(metrics.code(), 200);
    assert_eq!(Server::value(&metrics.body, "keytally_gate_keys"), 1);
    assert_eq!(server.request("GET /metrics", &[]).code(), 404);
    for request in ["GET /auth", "GET /api/v1/contacts", "GET /api/v1/limits"] {
        assert_eq!(Wire::to(line.parse().unwrap()).request(request, &[]).code(), 404, "{request}");
        assert_eq!(server.request(request, &[]).code(), 401, "{request}");
    }
    assert_eq!(Wire::to(line.parse().unwrap()).request("GET /healthz", &[]).code(), 200);
    assert_eq!(server.request("GET /healthz", &[]).code(), 200);
}

/// Sends a request over HTTP/2 without TLS. Returns the lines of the head, and the body.
fn request_http2(url: &str, headers: &[&str]) -> (Vec<String>, String) {
    let mut curl =
        Command::new(env::var("KEYTALLY_TEST_CURL").unwrap_or_else(|_| "curl".to_owned()));
    curl.args(["--silent", "--show-error", "--include", "--http2-prior-knowledge", url]);
    for header in headers {
        curl.args(["-H", header]);
    }
    let run = finish(curl.env("NO_PROXY", "*").env("no_proxy", "*"), b"");
    assert_eq!(
        run.status, 0,
        "`cargo xtask test service` installs a curl with HTTP/2: {}",
        run.err
    );
    let (head, body) = run.out.split_once("\r\n\r\n").unwrap();
    (head.split("\r\n").map(|line| line.trim_end().to_owned()).collect(), body.to_owned())
}

#[test]
fn http2_without_tls_keeps_the_contract() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=1/day, 1000/30d"]);
    let key = format!("X-API-Key: {}", server.first_key().unwrap());
    let url = |path: &str| format!("http://{}{path}", server.address);
    let (head, body) = request_http2(&url("/api/v1/contacts"), &[&key]);
    assert_eq!(head[0], "HTTP/2 200");
    assert!(head.contains(&"x-ratelimit-remaining: 0".to_owned()), "{head:?}");
    assert!(body.starts_with(r#"{"account":1,"contacts":["#), "{body}");
    let (head, body) = request_http2(&url("/auth/a"), &[&key]);
    assert_eq!(
        (head[0].as_str(), body.as_str()),
        ("HTTP/2 429", r#"{"error": "Rate limit exceeded. Please try again later."}"#)
    );
    assert!(head.iter().any(|line| line.starts_with("retry-after: ")), "{head:?}");
    let (head, body) = request_http2(&url("/auth"), &[]);
    assert_eq!(
        (head[0].as_str(), body.as_str()),
        ("HTTP/2 401", r#"{"error": "Missing X-API-Key header"}"#)
    );
    // HTTP/2 adds 32 bytes to the size of each field.
    let (head, _) = request_http2(&url("/healthz"), &[&format!("X: {}", "a".repeat(16_000))]);
    assert_eq!(head[0], "HTTP/2 200");
    let (head, _) = request_http2(&url("/healthz"), &[&format!("X: {}", "a".repeat(16_384))]);
    assert_eq!(head[0], "HTTP/2 431");
}

#[test]
fn invalid_option_error_states_what_is_valid() {
    let sandbox = Sandbox::new();
    for (args, part) in [
        (["--socket-mode", "888"], "octal number"),
        (["--socket-mode", "1777"], "octal number"),
        (["--trusted-proxy", "10.0.0.0/33"], "10.0.0.0/8"),
        (["--failures", "20/fortnight"], "off disables the limit"),
        (["--preflight-header", "no header"], "X-Forwarded-Method"),
        (["--client-timeout", "0s"], "1s to 1h"),
        (["--client-timeout", "soon"], "--client-timeout"),
        (["--connections", "0"], "\"0\" is not a whole number from 1 to 65536"),
        (["--connections-per-address", "none"], "\"none\" is not a whole number from 1 to 65536"),
        (["--metrics-keys", "101"], "\"101\" is not a whole number from 0 to 100"),
        (["--teams", "abc"], "\"abc\" is not a whole number from 0 to 67108864"),
    ] {
        let run = sandbox.finish(&mut sandbox.command(&[&["serve"], &args[..]].concat()), b"");
        assert_eq!(run.status, 2, "{args:?} {run:?}");
        assert!(run.err.contains(part), "{args:?} {run:?}");
    }
    assert!(sandbox.names().is_empty());
}

/// Runs the service with sockets that are passed as systemd does it: descriptors from 3 on, which
/// the names describe. Returns its output when it has ended.
fn run_with_passed_sockets(sandbox: &Sandbox, script: &str) -> String {
    let program = sandbox.command(&[]).get_program().to_owned();
    let mut python = Command::new("python3");
    python.current_dir(sandbox.path(".")).arg("-c").arg(format!("{PASS}{script}")).arg(program);
    python.env_remove("KEYTALLY_PEPPER").env_remove("KEYTALLY_PEPPER_FILE");
    let run = finish(&mut python, b"");
    assert_eq!(run.status, 0, "{run:?}");
    run.out
}

/// Opens sockets, and starts services that get them.
const PASS: &str = r#"
import os, socket, subprocess, sys, time, urllib.request
tcp = socket.create_server(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX)
unix.bind("passed.socket")
unix.listen(16)
port = tcp.getsockname()[1]

def start(*arguments, names="api:metrics"):
    process = os.fork()
    if process == 0:
        os.dup2(os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sockets = [os.dup(one.fileno()) for one in (tcp, unix)]
        sockets = [os.dup2(one, 60 + number) for number, one in enumerate(sockets)]
        for number, one in enumerate(sockets):
            os.dup2(one, 3 + number, inheritable=True)
        variables = {**os.environ, "LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}
        if names:
            variables["LISTEN_FDNAMES"] = names
        os.execve(sys.argv[1], ["keytally", "serve", "--data", "data", *arguments], variables)
    return process

def stop(process):
    os.kill(process, 15)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

def get(path):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20).status
"#;

#[test]
fn sockets_of_systemd_are_used_and_stay_open() {
    let sandbox = Sandbox::new();
    let script = r#"
for _ in range(2):
    # The requests wait in the sockets until the service accepts them.
    waiting = socket.create_connection(("127.0.0.1", port))
    waiting.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    for client in clients:
        # Not waiting: an error if the queue of the socket is full.
        client.setblocking(False)
        client.connect("passed.socket")
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    service = start("--listen", "systemd:api", "--metrics-listen", "systemd:metrics")
    waiting.settimeout(20)
    for client in clients:
        client.settimeout(20)
    answers = {client.recv(15) for client in (waiting, *clients)}
    print(answers, get("/healthz"), stop(service))
print(os.path.exists("passed.socket"), open("out.txt").read().count(f"http://127.0.0.1:{port}"))
service = start("--listen", "systemd", names="")
print(get("/healthz"), stop(service))
"#;
    let out = run_with_passed_sockets(&sandbox, script);
    let answered = "{b'HTTP/1.0 200 OK'} 200 0\n";
    assert_eq!(out, format!("{answered}{answered}True 2\n200 0\n"));
}

#[test]
fn socket_that_systemd_did_not_pass_is_an_error() {
    let sandbox = Sandbox::new();
    expect_start_failure(
        &sandbox,
        &["--listen", "systemd"],
        &["cannot listen on systemd: there is no socket: systemd passed no socket"],
    );
    let script = r#"
for arguments, names in [
    (("--listen", "systemd:other"), "api:metrics"),
    (("--listen", "systemd:other"), ""),
    (("--listen", "systemd:api", "--metrics-listen", "systemd:api"), "api:metrics"),
    (("--listen", "systemd:api"), "api:api"),
    (("--listen", "systemd"), "api:api"),
]:
    # Without a gate, a start that gets its sockets ends too.
    process = start(*arguments, "--must-exist", names=names)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), open("out.txt").read(), end="")
"#;
    let out = run_with_passed_sockets(&sandbox, script);
    let other = "3 keytally: cannot listen on systemd:other: there is no socket of the name other:";
    let two = "systemd passed 2 sockets of the name api, and one is served; in the socket's unit, \
               an empty ListenStream= before the new address removes the others";
    assert_eq!(
        out,
        format!(
            "{other} systemd passed api, metrics\n{other} systemd passed 2 without names\n\
             3 keytally: cannot listen on systemd:api: another option uses this socket\n\
             3 keytally: cannot listen on systemd:api: {two}\n\
             3 keytally: cannot listen on systemd: {two}\n"
        )
    );
}

#[test]
fn health_reports_whether_a_service_answers() {
    let sandbox = Sandbox::new();
    let health = |address: &str| sandbox.finish(&mut sandbox.command(&["health", address]), b"");
    let server = start_on_socket(&sandbox, &["--metrics-listen", "127.0.0.1:0"]);
    health(SOCKET).expect_status(0);
    drop(server);
    health(SOCKET).expect_failure(&["no service answers at unix:api.socket"]);
    let server = Server::start(&sandbox, &[]);
    health(&server.address.to_string()).expect_status(0);
    drop(server);
    // A server of another kind, and an address at which none listens.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let answer = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = other.accept().unwrap();
        stream.read_exact(&mut [0; 8]).unwrap();
        stream.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n").unwrap();
    });
    health(&address).expect_failure(&["is not a service"]);
    answer.join().unwrap();
    health(&address).expect_failure(&["no service answers at 127.0.0.1:"]);
    health("nowhere").expect_usage_error(&["\"nowhere\" is not an address"]);
    for passed in ["systemd", "systemd:keytally"] {
        let named = format!("{passed:?} names a socket that systemd passes");
        health(passed).expect_usage_error(&[&named, "127.0.0.1:8080", "unix:/run/"]);
    }
}

#[test]
fn health_names_a_server_that_hangs_or_speaks_no_http() {
    let sandbox = Sandbox::new();
    let health = |address: &str| sandbox.finish(&mut sandbox.command(&["health", address]), b"");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    // The system accepts the connection, and no response follows.
    let hangs = "it did not respond within 5 s";
    health(&address).expect_failure(&["no service answers at 127.0.0.1:", hangs]);
    drop(other.accept().unwrap());
    for text in [&b"+PONG\r\n"[..], b"SSH-2.0-OpenSSH_9.6\r\n"] {
        let other = other.try_clone().unwrap();
        let answer = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = other.accept().unwrap();
            stream.read_exact(&mut [0; 25]).unwrap();
            stream.write_all(text).unwrap();
        });
        health(&address).expect_failure(&["is not a service: its response is not HTTP"]);
        answer.join().unwrap();
    }
}
