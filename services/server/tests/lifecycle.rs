//! A running service: changes by the command line, a replaced gate file, SIGKILL, several services,
//! shutdown.
#![expect(clippy::disallowed_types, reason = "the test counts responses")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::thread::{self, sleep};

use rustix::process::Signal;
use serde_json::json;
use support::program::Sandbox;
use support::server::{GATE, LOG, Server, await_log, log};
use support::wire::{Wire, narrow_connection};
use support::{CONTACTS_OF_1, timed};

#[test]
fn changes_by_the_command_line_affect_the_next_request() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let (key, key_id) = sandbox.new_key(&["--account", "42", "--env", "test"]);
    assert_eq!(server.contacts(&key).code(), 200);
    // All requests use one connection, which must not cache anything of the key.
    let mut wire = Wire::to(server.address);
    let mut contacts =
        |key: &str| wire.request("GET /api/v1/contacts", &[format!("X-API-Key: {key}").as_bytes()]);
    let new = sandbox.new_secret(&key_id, "1h");
    assert_eq!(contacts(&key).header("X-RateLimit-Remaining"), "998");
    assert_eq!(contacts(&new).header("X-RateLimit-Remaining"), "997");
    let newest = sandbox.new_secret(&key_id, "0s");
    assert_eq!((contacts(&key).code(), contacts(&new).code()), (401, 401));
    assert_eq!(contacts(&newest).header("X-RateLimit-Remaining"), "996");
    sandbox.run_admin(&["plan", GATE, "pro=100/minute, 2000/hour"]).expect_status(0);
    sandbox.run_admin(&["assign", GATE, &key_id, "--plan", "pro"]).expect_status(0);
    let reply = contacts(&newest);
    assert_eq!(
        (reply.header("X-RateLimit-Limit"), reply.header("X-RateLimit-Remaining")),
        ("2000", "1995")
    );
    sandbox.run_admin(&["reset", GATE, &key_id]).expect_status(0);
    assert_eq!(contacts(&newest).header("X-RateLimit-Remaining"), "1999");
    sandbox.run_admin(&["revoke", GATE, &key_id]).expect_status(0);
    assert_eq!(contacts(&newest).code(), 401);
}

#[test]
fn requests_before_the_end_of_a_half_get_responses() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    for requests in [1, 2, 50] {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(server.address).unwrap();
            let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request.repeat(requests).as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text.matches("HTTP/1.1 200 OK").count(), requests);
        }
    }
}

#[test]
fn supervisor_gets_the_state_of_the_service() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("supervisor").display().to_string();
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let received = || {
        let mut bytes = [0; 200];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    };
    let variables = [("NOTIFY_SOCKET", &*path), ("WATCHDOG_USEC", "200000")];
    let server = Server::start_with(&sandbox, &[], &variables);
    assert_eq!(received(), "READY=1");
    assert_eq!(server.request("GET /healthz", &[]).code(), 200);
    for _ in 0..3 {
        assert_eq!(received(), "WATCHDOG=1");
    }
    server.signal(Signal::TERM);
    let last = (0..1000).map(|_| received()).find(|line| line != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert!(server.wait().success());
    // The watchdog of another process is not fed.
    let other = [("NOTIFY_SOCKET", &*path), ("WATCHDOG_USEC", "1"), ("WATCHDOG_PID", "1")];
    let server = Server::start_with(&sandbox, &[], &other);
    assert_eq!(received(), "READY=1");
    server.signal(Signal::TERM);
    assert_eq!(received(), "STOPPING=1");
    assert!(server.wait().success());
}

#[test]
fn gate_that_must_exist_is_not_created() {
    let sandbox = Sandbox::new();
    let start = ["serve", "--listen", "127.0.0.1:0", "--data", "data", "--must-exist"];
    let refused = sandbox.run(&start);
    assert_eq!(refused.status, 3);
    refused.expect_failure(&[
        "there is no gate data/api.gate",
        "--data",
        "restore",
        "keytally create data/api.gate",
    ]);
    assert!(!sandbox.path("data").exists());
    let fleet = sandbox.run(&[&start[..5], &["--fleet", "api.fleet"]].concat());
    assert_eq!(fleet.status, 3);
    fleet.expect_failure(&["--fleet: there is no gate data/api.gate"]);
    assert!(!sandbox.path("data").exists());
    let server = Server::start(&sandbox, &[]);
    await_log(&sandbox, &["keytally: data/api.gate is new: there was no gate", "--must-exist"]);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    fs::remove_file(sandbox.path(LOG)).unwrap();
    let server = Server::start(&sandbox, &["--must-exist"]);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert_eq!(log(&sandbox), "");
}

#[test]
fn start_names_a_pepper_that_was_not_given() {
    let sandbox = Sandbox::new();
    let (old, new) = ("66".repeat(32), "77".repeat(32));
    let both = format!("{old},{new}");
    let start = |pepper: &str| {
        Server::start_with(&sandbox, &["--keys", "off"], &[("KEYTALLY_PEPPER", pepper)])
    };
    drop(start(&old));
    let issue = |pepper: &str| {
        let args = ["issue", GATE, "--account", "1", "--json"];
        let run = sandbox.finish(sandbox.command(&args).env("KEYTALLY_PEPPER", pepper), b"");
        sandbox.watch_secret(run.json()["key"].as_str().unwrap())
    };
    let key = issue(&old);
    issue(&both);
    let keys = |server: &Server, number: u8, given: bool| {
        let labels = format!("{{given=\"{given}\",pepper=\"{number}\"}}");
        server.metric(&format!("keytally_gate_pepper_keys{labels}"))
    };
    let server = start(&both);
    assert_eq!((keys(&server, 0, true), keys(&server, 1, true)), (2, 1));
    assert_eq!(keys(&server, 3, false), 0);
    assert_eq!(server.contacts(&key).code(), 200);
    drop(server);
    assert!(!log(&sandbox).contains("was not given"));
    let server = start(&new);
    await_log(&sandbox, &["keytally: pepper 0 was not given: 2 keys have", "pepper_missing"]);
    assert_eq!((keys(&server, 0, false), keys(&server, 1, true)), (2, 1));
    assert_eq!(server.contacts(&key).code(), 401);
}

/// Replaces the gate file of the service by a new one. Returns a key of the new gate.
fn replace_gate(sandbox: &Sandbox, keys: &str) -> String {
    sandbox.run_admin(&["create", "data/new.gate", "--keys", keys]).expect_status(0);
    let issued = sandbox.run_admin(&["issue", "data/new.gate", "--account", "7", "--json"]).json();
    fs::rename(sandbox.path("data/new.gate"), sandbox.path(GATE)).unwrap();
    sandbox.watch_secret(issued["key"].as_str().unwrap())
}

#[test]
fn replaced_gate_file_is_opened_logged_and_counted() {
    let sandbox = Sandbox::new();
    // With a list of keys, the new gate would get the keys of the list.
    let server = Server::start(&sandbox, &["--keys", "off"]);
    let (old, _) = sandbox.new_key(&["--account", "42"]);
    assert_eq!(server.contacts(&old).code(), 200);
    assert_eq!(server.metric("keytally_gate_reopened_total"), 0);
    let new = replace_gate(&sandbox, "77");
    await_log(&sandbox, &[" gate ", "api.gate: the file at the path was opened and is in force"]);
    assert_eq!((server.contacts(&old).code(), server.contacts(&new).code()), (401, 200));
    assert_eq!(server.metric("keytally_gate_reopened_total"), 1);
    assert_eq!(server.metric("keytally_gate_capacity"), 77);

    // A file that cannot be opened leaves the open gate in use, and the metric reports it.
    fs::write(sandbox.path("data/junk"), "no gate").unwrap();
    fs::rename(sandbox.path("data/junk"), sandbox.path(GATE)).unwrap();
    await_log(&sandbox, &[" gate ", "; the gate that was open before stays in force"]);
    assert_eq!(server.metric("keytally_gate_reopen_failing"), 1);
    assert_eq!(server.contacts(&new).code(), 200);
    let newest = replace_gate(&sandbox, "78");
    // The signal reopens the gate before the next poll.
    server.signal(Signal::HUP);
    while server.contacts(&newest).code() != 200 {
        sleep(Duration::from_millis(20));
    }
    assert_eq!(server.metric("keytally_gate_reopen_failing"), 0);
}

#[test]
fn sighup_reopens_the_gate() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox, &[]);
    server.signal(Signal::HUP);
    await_log(&sandbox, &[" gate ", "opened and is in force"]);
    assert!(server.is_running());
    assert_eq!(server.metric("keytally_gate_reopened_total"), 1);
}

#[test]
fn counts_survive_sigkill_of_the_service() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=100/day, 1000/30d"]);
    let key = sandbox.watch_secret(&server.first_key().unwrap());
    for _ in 0..30 {
        assert_eq!(server.contacts(&key).code(), 200);
    }
    server.signal(Signal::KILL);
    assert!(!server.wait().success());

    let server = Server::start(&sandbox, &[]);
    assert_eq!(server.first_key(), None);
    let limits = server.get("/api/v1/limits", &key).json();
    assert_eq!(
        (&limits["quotas"][0]["used"], &limits["quotas"][1]["used"]),
        (&json!(30), &json!(30))
    );
    assert_eq!(server.contacts(&key).header("X-RateLimit-Remaining"), "69");
}

#[test]
fn two_services_on_one_folder_admit_one_limit() {
    let sandbox = Sandbox::new();
    let first = Server::start(&sandbox, &["--plan", "default=500/day"]);
    let second = Server::start(&sandbox, &[]);
    let key = first.first_key().unwrap();
    let header = format!("X-API-Key: {key}");
    let admitted: usize = thread::scope(|scope| {
        let clients: Vec<_> = [&first, &second, &first, &second]
            .map(|server| {
                scope.spawn(|| {
                    let mut wire = Wire::to(server.address);
                    let mut request =
                        || wire.request("GET /api/v1/contacts", &[header.as_bytes()]).code();
                    (0..200).filter(|_| request() == 200).count()
                })
            })
            .into_iter()
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(admitted, 500);
}

/// Sends requests whose responses exceed the socket buffers, and waits until the buffers are full.
fn request_much(wire: &mut Wire) {
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    // The requests fit one read of the service, so none is unread when it closes.
    wire.send(&request.repeat(200));
    sleep(Duration::from_millis(1500));
}

#[test]
fn shutdown_finishes_requests_in_progress() {
    for signal in [Signal::TERM, Signal::INT] {
        let sandbox = Sandbox::new();
        let mut server = Server::start(&sandbox, &[]);
        let mut idle = Wire::to(server.address);
        assert_eq!(idle.request("GET /healthz", &[]).code(), 200);
        let mut busy = Wire::over(narrow_connection(server.address));
        request_much(&mut busy);
        server.signal(signal);
        sleep(Duration::from_millis(700));
        assert!(server.is_running(), "the service dropped a request in progress");
        assert!(idle.ended(), "an idle connection is closed immediately");
        let refused = TcpStream::connect(server.address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let mut replies = 0;
        while let Some(reply) = busy.read(false) {
            assert_eq!(reply.code(), 200);
            replies += 1;
        }
        assert!((1..200).contains(&replies), "{replies}");
        assert!(server.wait().success());
    }
}

#[test]
fn shutdown_ends_after_ten_seconds_or_a_second_signal() {
    let sandbox = Sandbox::new();
    let waiting = Server::start(&sandbox, &[]);
    let mut unread = Wire::over(narrow_connection(waiting.address));
    request_much(&mut unread);
    let interrupted = Server::start(&sandbox, &[]);
    let mut also_unread = Wire::over(narrow_connection(interrupted.address));
    request_much(&mut also_unread);

    let (_, between) = timed(|| {
        interrupted.signal(Signal::TERM);
        sleep(Duration::from_millis(500));
        interrupted.signal(Signal::TERM);
        assert!(interrupted.wait().success());
    });
    assert!(between.1 - between.0 < 5000, "{between:?}");
    let (_, between) = timed(|| {
        waiting.signal(Signal::TERM);
        assert!(waiting.wait().success());
    });
    assert!((9000..15_000).contains(&(between.1 - between.0)), "{between:?}");
    assert!(log(&sandbox).contains("stopped before all responses were sent"), "{}", log(&sandbox));
}

#[test]
fn shutdown_under_load_truncates_no_response() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--plan", "default=100000/day"]);
    let key = server.first_key().unwrap();
    let request = format!(
        "GET /api/v1/contacts HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {key}\r\n\r\n"
    );
    let address = server.address;
    let answered_by_now = AtomicU32::new(0);
    // Returns how many requests were answered, and 1 if the last one was not, else 0.
    let client = || {
        let mut answered = 0;
        while let Ok(mut stream) = TcpStream::connect(address) {
            let mut response = Vec::new();
            let sent = stream.write_all(request.as_bytes());
            let read = sent.and_then(|()| stream.read_to_end(&mut response));
            if response.is_empty() {
                return (answered, 1);
            }
            assert!(read.is_ok() && response.ends_with(CONTACTS_OF_1.as_bytes()), "{read:?}");
            answered += 1;
            answered_by_now.fetch_add(1, Ordering::Relaxed);
        }
        (answered, 0)
    };
    let ends: Vec<(u32, u32)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        while answered_by_now.load(Ordering::Relaxed) < 100 {
            assert!(
                !clients.iter().any(|client| client.is_finished()),
                "a client was not accepted"
            );
            sleep(Duration::from_millis(10));
        }
        server.signal(Signal::TERM);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let answered: u32 = ends.iter().map(|(answered, _)| answered).sum();
    let dropped: u32 = ends.iter().map(|(_, dropped)| dropped).sum();
    // The kernel may accept one more connection between the last `accept` and `close`.
    assert!(dropped <= 1, "{dropped} were accepted and not answered");
    assert!(server.wait().success());
    let used =
        sandbox.run_admin(&["list", GATE, "--json"]).json()["keys"][0]["quotas"][0]["used"].clone();
    assert_eq!(used, answered, "every charged request was answered");
}
