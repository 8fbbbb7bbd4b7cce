//! The service under attack: clients that do not read, send slowly, send much, or flood a
//! connection. Each takes a bounded share of memory and connections, and other clients are
//! served during the attack.
#![expect(clippy::disallowed_types, reason = "the test waits for a flag")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses what it needs"
)]
mod support;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, sleep};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::http2::{self, Http2};
use support::program::Sandbox;
use support::server::Server;
use support::wire::{Wire, narrow_connection};

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
const CLOSED_FULL: &str = "keytally_connections_closed_total{reason=\"full\"}";
const CLOSED_TIMEOUT: &str = "keytally_connections_closed_total{reason=\"timeout\"}";

/// The default number of connection slots.
const SLOTS: u64 = 2048;

/// The maximum memory of a service during any of these attacks, in MiB.
const MEMORY_MIB: u64 = 100;

/// Raises this process's limit of open files to its maximum. Returns a number of connections that
/// exceeds the slots of the service by 52. The service inherits the limit, which may lower the
/// number of slots.
fn allow_more_connections_than_slots() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    // Of the open files, 64 + 9 are for metrics connections and 64 for other files. Of each nine
    // others, eight are for slots and one is for a connection that is ending.
    let slots =
        limit.maximum.map_or(SLOTS, |most| SLOTS.min(most.saturating_sub(64 + 9 + 64) / 9 * 8));
    usize::try_from(slots + 52).unwrap()
}

/// Opens the connections of an attack, each of which sends `payload`, during health checks by
/// another client.
///
/// Asserts that every health check is answered, that connections were displaced, and that memory is
/// bounded.
fn assert_withstands(server: &Server, connections: usize, payload: &[u8]) {
    // Concurrent attacks would overload the machine rather than the service.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let over = AtomicBool::new(false);
    let open = thread::scope(|scope| {
        let health = scope.spawn(|| {
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                let stream = TcpStream::connect(server.address).unwrap();
                let mut wire = Wire::over(stream);
                // The bound detects a hang. A flood slows every client down.
                wire.stream().set_read_timeout(Some(Duration::from_secs(120))).unwrap();
                assert_eq!(wire.request("GET /healthz", &[]).code(), 200);
                answered += 1;
            }
            answered
        });
        let open: Vec<TcpStream> = (0..connections)
            .map(|_| {
                let mut stream = narrow_connection(server.address);
                stream.set_nonblocking(true).unwrap();
                // Bytes beyond the send buffer are not sent.
                let _ = stream.write(payload);
                stream
            })
            .collect();
        sleep(Duration::from_secs(1));
        over.store(true, Ordering::Relaxed);
        let answered = health.join().unwrap();
        println!("{answered} health checks were answered");
        assert!(answered > 0);
        open
    });
    let memory = server.peak_memory_mib();
    println!("{memory} MiB for {connections} connections");
    assert!(memory < MEMORY_MIB, "{memory} MiB");
    // At least 40 connections exceed the slots. On a busy machine, the service displaces the last
    // ones only after the attack.
    await_metric(server, CLOSED_FULL, |closed| closed >= 40);
    drop(open);
    assert_eq!(server.request("GET /healthz", &[]).code(), 200);
}

/// Waits until the value of a metric is as `expected`. The bound detects a hang.
#[track_caller]
fn await_metric(server: &Server, name: &str, expected: impl Fn(u64) -> bool) {
    for _ in 0..300 {
        if expected(server.metric(name)) {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("{name} is {}", server.metric(name));
}

/// Sends `part` every 100 ms until the service closes the connection. The bound detects a hang.
fn drip(stream: &mut TcpStream, part: &[u8]) {
    for _ in 0..300 {
        if stream.write_all(part).is_err() {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("the connection is still open");
}

#[test]
fn unread_responses_leave_slots_and_memory_for_others() {
    let sandbox = Sandbox::new();
    let connections = allow_more_connections_than_slots();
    let server = Server::start(&sandbox, &[]);
    assert_withstands(&server, connections, HEALTH.repeat(150).as_bytes());
}

#[test]
fn large_heads_leave_slots_and_memory_for_others() {
    let sandbox = Sandbox::new();
    let connections = allow_more_connections_than_slots();
    let server = Server::start(&sandbox, &[]);
    let head = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(16_000));
    assert_withstands(&server, connections, head.as_bytes());
}

#[test]
fn unread_http2_streams_leave_slots_and_memory_for_others() {
    let sandbox = Sandbox::new();
    allow_more_connections_than_slots();
    let server = Server::start(&sandbox, &[]);
    let mut payload = http2::preface(1);
    for number in 0..100 {
        payload.extend(http2::get(number, "/healthz"));
    }
    assert_withstands(&server, http2::MAX_CONNECTIONS + 40, &payload);
}

#[test]
fn limit_of_open_files_limits_the_slots() {
    let sandbox = Sandbox::new();
    let server = Server::start_with_files(&sandbox, 160, &[]);
    let idle: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    assert_eq!(server.request("GET /healthz", &[]).code(), 200);
    // 160 files: 16 connections and 3 that are ending, 64 + 9 for metrics, and 64 other files.
    assert!(server.metric(CLOSED_FULL) >= 100 - 16);
    drop(idle);
}

#[test]
fn full_service_displaces_the_most_idle_connection() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--connections", "3"]);
    let [mut first, mut second, mut third] = [(); 3].map(|()| Wire::to(server.address));
    for wire in [&mut first, &mut second, &mut third] {
        assert_eq!(wire.request("GET /healthz", &[]).code(), 200);
    }
    assert_eq!(first.request("GET /healthz", &[]).code(), 200);
    let mut fourth = Wire::to(server.address);
    assert_eq!(fourth.request("GET /healthz", &[]).code(), 200);
    assert!(second.ended());
    for wire in [&mut first, &mut third, &mut fourth] {
        assert_eq!(wire.request("GET /healthz", &[]).code(), 200);
    }
}

#[test]
fn unread_responses_end_the_connection() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--client-timeout", "1s"]);
    let mut unread = narrow_connection(server.address);
    unread.write_all("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200).as_bytes()).unwrap();
    // Further requests are not progress while responses are unread.
    unread.set_nonblocking(true).unwrap();
    for _ in 0..300 {
        let _ = unread.write(HEALTH.as_bytes());
        sleep(Duration::from_millis(100));
        if server.metric(CLOSED_TIMEOUT) == 1 {
            return;
        }
    }
    panic!("the connection is still open");
}

#[test]
fn slow_reader_gets_every_response() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--client-timeout", "4s"]);
    let mut slow = narrow_connection(server.address);
    slow.write_all("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(60).as_bytes()).unwrap();
    let mut wire = Wire::over(slow);
    for _ in 0..60 {
        sleep(Duration::from_millis(100));
        assert_eq!(wire.read(false).unwrap().code(), 200);
    }
}

#[test]
fn slow_head_ends_the_connection() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--client-timeout", "1s"]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
    drip(&mut stream, b"a");
    // Not yet distinguishable: an HTTP/1 head or the preface of HTTP/2.
    let mut undecided = TcpStream::connect(server.address).unwrap();
    undecided.write_all(b"PRI * ").unwrap();
    undecided.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert!(matches!(undecided.read(&mut [0]), Ok(0)));
    await_metric(&server, CLOSED_TIMEOUT, |closed| closed == 2);
}

#[test]
fn silent_connection_is_closed() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--client-timeout", "1s"]);
    let mut fresh = Wire::to(server.address);
    let mut used = Wire::to(server.address);
    assert_eq!(used.request("GET /healthz", &[]).code(), 200);
    assert!(fresh.ended() && used.ended());
    await_metric(&server, CLOSED_TIMEOUT, |closed| closed == 2);
}

#[test]
fn busy_connection_outlives_the_timeout() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--client-timeout", "4s"]);
    let mut wire = Wire::to(server.address);
    for _ in 0..30 {
        assert_eq!(wire.request("GET /healthz", &[]).code(), 200);
        sleep(Duration::from_millis(200));
    }
}

#[test]
fn slow_body_gets_a_response_and_ends_the_connection() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--client-timeout", "1s"]);
    let mut wire = Wire::to(server.address);
    wire.send(b"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\na");
    assert_eq!(wire.read(false).unwrap().code(), 401);
    drip(wire.stream(), b"a");
}

#[test]
fn heads_are_read_up_to_16_kib() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let head = |len: usize| {
        let head = "GET /healthz HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{head}{}\r\n\r\n", "a".repeat(len - head.len() - 4))
    };
    for (len, code) in [(16_383, 200), (16_384, 200), (16_385, 431)] {
        let mut wire = Wire::to(server.address);
        wire.send(head(len).as_bytes());
        assert_eq!(wire.read(false).unwrap().code(), code, "{len}");
    }
}

#[test]
fn http2_pings_are_not_progress() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--client-timeout", "1s"]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&http2::preface(65_535)).unwrap();
    drip(&mut stream, &[http2::frame(6, 0, 0, &[7; 8]), http2::frame(4, 0, 0, &[])].concat());
    await_metric(&server, CLOSED_TIMEOUT, |closed| closed == 1);
}

#[test]
fn unread_http2_streams_are_reset() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &["--client-timeout", "4s"]);
    let mut client = Http2::to(server.address, 0);
    let mut requests = client.stream.try_clone().unwrap();
    let reset = thread::spawn(move || client.await_frame(|frame| frame.kind == 3));
    // The connection makes progress during the whole test.
    for number in 0.. {
        requests.write_all(&http2::get(number, "/healthz")).unwrap();
        if reset.is_finished() {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    assert_eq!(reset.join().unwrap().stream, 1);
}

#[test]
fn http2_streams_beyond_100_are_refused() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let mut client = Http2::to(server.address, 0);
    for number in 0..101 {
        client.send(&http2::get(number, "/healthz"));
    }
    let refused = client.await_frame(|frame| frame.kind == 3);
    assert_eq!((refused.stream, refused.code()), (201, http2::REFUSED_STREAM));
}

#[test]
fn rapid_resets_end_an_http2_connection() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let mut client = Http2::to(server.address, 65_535);
    let mut flood = Vec::new();
    for number in 0..1000 {
        flood.extend(http2::get(number, "/healthz"));
        flood.extend(http2::frame(3, 0, 2 * number + 1, &8_u32.to_be_bytes()));
    }
    // The service may end the connection before all frames are sent.
    let _ = client.stream.write_all(&flood);
    let end = client.await_frame(|frame| frame.kind == 7);
    assert_eq!(end.goaway_code(), http2::ENHANCE_YOUR_CALM);
}

#[test]
fn endless_http2_head_ends_the_connection() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let mut client = Http2::to(server.address, 65_535);
    client.send(&http2::frame(1, 1, 1, &http2::request("/healthz")));
    let field = [&[0x00, 1, b'x', 0x7f, 0x81, 0x07][..], &[b'a'; 1024]].concat();
    for _ in 0..1000 {
        if client.stream.write_all(&http2::frame(9, 0, 1, &field)).is_err() {
            return;
        }
    }
    client.await_end();
}

#[test]
fn http2_connections_beyond_64_displace_the_oldest() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, &[]);
    let mut clients: Vec<Http2> = (0..=http2::MAX_CONNECTIONS)
        .map(|_| {
            let mut client = Http2::to(server.address, 65_535);
            client.send(&http2::get(0, "/healthz"));
            client.await_frame(|frame| frame.kind == 1);
            client
        })
        .collect();
    clients[0].await_end();
    assert_eq!(server.metric(CLOSED_FULL), 1);
    clients[1].send(&http2::get(1, "/healthz"));
    clients[1].await_frame(|frame| frame.kind == 1 && frame.stream == 3);
}
