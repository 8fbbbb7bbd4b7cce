//! The service under attack: clients that read nothing, send slowly, send much, or flood a connection. Each takes a
//! bounded share of memory and connections, and others are served meanwhile.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, unreachable_pub, reason = "a module of several tests, each of which uses what it needs")]
mod support;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, sleep};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::http2::{self, Http2};
use support::program::Bench;
use support::server::Server;
use support::wire::{Wire, narrow_connection};

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
const CLOSED_FULL: &str = "keytally_connections_closed_total{reason=\"full\"}";
const CLOSED_TIMEOUT: &str = "keytally_connections_closed_total{reason=\"timeout\"}";

/// The connection slots of a service by default.
const SLOTS: u64 = 2048;

/// The most memory that any of these attacks may take from a service.
const MEMORY_MIB: u64 = 100;

/// Lets this process open as many files as it may. Returns how many connections fill the slots of the service, which
/// may open as many.
fn enough_to_fill_the_slots() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let slots = limit.maximum.map_or(SLOTS, |most| SLOTS.min(most.saturating_sub(137) / 9 * 8));
    usize::try_from(slots + 52).unwrap()
}

/// Opens the connections of an attack, each with what it sends at once, while others ask for the service's health.
///
/// Asserts that each of those is answered, that connections were displaced, and that the memory is bounded.
fn assert_withstands(server: &Server, connections: usize, payload: &[u8]) {
    // Two attacks at once would be a test of this machine.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let over = AtomicBool::new(false);
    let open = thread::scope(|scope| {
        let health = scope.spawn(|| {
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                let stream = TcpStream::connect(server.address).unwrap();
                let mut wire = Wire::over(stream);
                // A flood takes processor time from everyone: the bound is against a hang.
                wire.stream().set_read_timeout(Some(Duration::from_secs(120))).unwrap();
                assert_eq!(wire.ask("GET /healthz", &[]).code(), 200);
                answered += 1;
            }
            answered
        });
        let open: Vec<TcpStream> = (0..connections)
            .map(|_| {
                let mut stream = narrow_connection(server.address);
                stream.set_nonblocking(true).unwrap();
                // What does not fit is not sent.
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
    assert!(server.metric(CLOSED_FULL) >= 40);
    drop(open);
    assert_eq!(server.ask("GET /healthz", &[]).code(), 200);
}

/// Waits until a metric is this. The bound is against a hang.
#[track_caller]
fn await_metric(server: &Server, name: &str, value: u64) {
    for _ in 0..300 {
        if server.metric(name) == value {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("{name} is {}, not {value}", server.metric(name));
}

/// Sends a part every tenth of a second until the service closes the connection. The bound is against a hang.
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
fn unread_answers_leave_slots_and_memory_for_others() {
    let bench = Bench::new();
    let connections = enough_to_fill_the_slots();
    let server = Server::start(&bench, &[]);
    assert_withstands(&server, connections, HEALTH.repeat(150).as_bytes());
}

#[test]
fn large_heads_leave_slots_and_memory_for_others() {
    let bench = Bench::new();
    let connections = enough_to_fill_the_slots();
    let server = Server::start(&bench, &[]);
    let head = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(16_000));
    assert_withstands(&server, connections, head.as_bytes());
}

#[test]
fn unread_http2_streams_leave_slots_and_memory_for_others() {
    let bench = Bench::new();
    enough_to_fill_the_slots();
    let server = Server::start(&bench, &[]);
    let mut payload = http2::preface(1);
    for number in 0..100 {
        payload.extend(http2::get(number, "/healthz"));
    }
    assert_withstands(&server, http2::MAX_CONNECTIONS + 40, &payload);
}

#[test]
fn few_permitted_files_mean_few_slots() {
    let bench = Bench::new();
    let server = Server::start_with_files(&bench, 160, &[]);
    let idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    assert_eq!(server.ask("GET /healthz", &[]).code(), 200);
    // 160 files are 16 connections and 3 that are ending, 64 and 9 for metrics, and 64 other files.
    assert!(server.metric(CLOSED_FULL) >= 100 - 16);
    drop(idle);
}

#[test]
fn a_full_service_displaces_the_most_idle_connection() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--connections", "3"]);
    let [mut first, mut second, mut third] = [(); 3].map(|()| Wire::to(server.address));
    for wire in [&mut first, &mut second, &mut third] {
        assert_eq!(wire.ask("GET /healthz", &[]).code(), 200);
    }
    assert_eq!(first.ask("GET /healthz", &[]).code(), 200);
    let mut fourth = Wire::to(server.address);
    assert_eq!(fourth.ask("GET /healthz", &[]).code(), 200);
    assert!(second.ended());
    for wire in [&mut first, &mut third, &mut fourth] {
        assert_eq!(wire.ask("GET /healthz", &[]).code(), 200);
    }
}

#[test]
fn unread_answers_end_the_connection() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--client-timeout", "1s"]);
    let mut deaf = narrow_connection(server.address);
    deaf.write_all("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200).as_bytes()).unwrap();
    // More requests are no progress while answers are unread.
    deaf.set_nonblocking(true).unwrap();
    for _ in 0..300 {
        let _ = deaf.write(HEALTH.as_bytes());
        sleep(Duration::from_millis(100));
        if server.metric(CLOSED_TIMEOUT) == 1 {
            return;
        }
    }
    panic!("the connection is still open");
}

#[test]
fn a_slow_reader_is_answered_to_the_end() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--client-timeout", "4s"]);
    let mut slow = narrow_connection(server.address);
    slow.write_all("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(60).as_bytes()).unwrap();
    let mut wire = Wire::over(slow);
    for _ in 0..60 {
        sleep(Duration::from_millis(100));
        assert_eq!(wire.read(false).unwrap().code(), 200);
    }
}

#[test]
fn a_slow_head_ends_the_connection() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--client-timeout", "1s"]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
    drip(&mut stream, b"a");
    // Neither an HTTP/1 head nor the preface of HTTP/2 yet.
    let mut undecided = TcpStream::connect(server.address).unwrap();
    undecided.write_all(b"PRI * ").unwrap();
    undecided.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert!(matches!(undecided.read(&mut [0]), Ok(0)));
    await_metric(&server, CLOSED_TIMEOUT, 2);
}

#[test]
fn a_silent_connection_is_closed() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--client-timeout", "1s"]);
    let mut fresh = Wire::to(server.address);
    let mut used = Wire::to(server.address);
    assert_eq!(used.ask("GET /healthz", &[]).code(), 200);
    assert!(fresh.ended() && used.ended());
    await_metric(&server, CLOSED_TIMEOUT, 2);
}

#[test]
fn a_busy_connection_outlives_the_timeout() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--client-timeout", "4s"]);
    let mut wire = Wire::to(server.address);
    for _ in 0..30 {
        assert_eq!(wire.ask("GET /healthz", &[]).code(), 200);
        sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_slow_body_is_answered_and_ends_the_connection() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--client-timeout", "1s"]);
    let mut wire = Wire::to(server.address);
    wire.send(b"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\na");
    assert_eq!(wire.read(false).unwrap().code(), 401);
    drip(wire.stream(), b"a");
}

#[test]
fn heads_are_read_up_to_16_kib() {
    let bench = Bench::new();
    let server = Server::start(&bench, &[]);
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
fn pings_do_not_keep_an_http2_connection() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--client-timeout", "1s"]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&http2::preface(65_535)).unwrap();
    drip(&mut stream, &[http2::frame(6, 0, 0, &[7; 8]), http2::frame(4, 0, 0, &[])].concat());
    await_metric(&server, CLOSED_TIMEOUT, 1);
}

#[test]
fn unread_http2_streams_are_reset() {
    let bench = Bench::new();
    let server = Server::start(&bench, &["--client-timeout", "4s"]);
    let mut client = Http2::to(server.address, 0);
    let mut requests = client.stream.try_clone().unwrap();
    let reset = thread::spawn(move || client.await_frame(|frame| frame.kind == 3));
    // The connection makes progress all the while.
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
    let bench = Bench::new();
    let server = Server::start(&bench, &[]);
    let mut client = Http2::to(server.address, 0);
    for number in 0..101 {
        client.send(&http2::get(number, "/healthz"));
    }
    let refused = client.await_frame(|frame| frame.kind == 3);
    assert_eq!((refused.stream, refused.code()), (201, http2::REFUSED_STREAM));
}

#[test]
fn rapid_resets_end_an_http2_connection() {
    let bench = Bench::new();
    let server = Server::start(&bench, &[]);
    let mut client = Http2::to(server.address, 65_535);
    let mut flood = Vec::new();
    for number in 0..1000 {
        flood.extend(http2::get(number, "/healthz"));
        flood.extend(http2::frame(3, 0, 2 * number + 1, &8_u32.to_be_bytes()));
    }
    // The service may end the connection before all is sent.
    let _ = client.stream.write_all(&flood);
    let end = client.await_frame(|frame| frame.kind == 7);
    assert_eq!(end.last_word(), http2::ENHANCE_YOUR_CALM);
}

#[test]
fn an_endless_http2_head_ends_the_connection() {
    let bench = Bench::new();
    let server = Server::start(&bench, &[]);
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
    let bench = Bench::new();
    let server = Server::start(&bench, &[]);
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
