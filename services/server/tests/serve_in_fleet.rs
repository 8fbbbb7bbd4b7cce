//! The service with a gate whose limits machines share. The test fills the fleet file like an
//! agent.
#![cfg(feature = "fleet")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use core::time::Duration;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;

use keytally::{FleetFile, Gate, now, pepper};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::OnLoss;
use keytally_fleet::plan::holding;
use keytally_fleet::plan::layout::{PageState, PageWord, Phase};
use support::program::Sandbox;
use support::server::{GATE, Server};
use support::wire::Wire;

/// A plan whose window does not end during a test.
const PLAN: [&str; 2] = ["--plan", "default=1000/31d"];

/// A sandbox whose gate is in a fleet, with an empty fleet file and a key.
struct Machine {
    sandbox: Sandbox,
    gate: Gate,
    fleet: PathBuf,
    key: String,
}

impl Machine {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let key = Server::start(&sandbox, &PLAN).first_key().unwrap();
        let peppers = pepper::read_file(sandbox.path("data/pepper")).unwrap();
        let gate = Gate::open(sandbox.path(GATE), peppers).unwrap();
        gate.set_fleet(true).unwrap();
        let fleet = sandbox.path("api.fleet");
        FleetFile::create(&fleet, &gate).unwrap();
        Self { sandbox, gate, fleet, key }
    }

    fn file(&self) -> FleetFile<'_> {
        FleetFile::open(&self.fleet, &self.gate).unwrap()
    }

    /// Writes what an agent says of the store, with a heartbeat that stays fresh.
    fn say(&self, phase: Phase, on_loss: OnLoss) {
        let file = self.file();
        let heartbeat = now().unix_ms() + 3_600_000;
        file.page(PageWord::Heartbeat).store(heartbeat, Ordering::SeqCst);
        let state = PageState { phase, on_loss: Some(on_loss), machines: 1 };
        file.page(PageWord::State).store(state.bits(), Ordering::SeqCst);
    }

    fn serve(&self) -> Server {
        let fleet = self.fleet.to_str().unwrap();
        Server::start(&self.sandbox, &[&PLAN[..], &["--fleet", fleet]].concat())
    }
}

#[test]
fn request_without_credits_gets_what_the_operator_chose() {
    let machine = Machine::new();
    machine.say(Phase::Leading, OnLoss::Closed);
    let server = machine.serve();
    let key = &machine.key;
    let key_line = format!("X-API-Key: {key}");
    for path in ["GET /api/v1/contacts", "GET /auth"] {
        let refused = server.request(path, &[key_line.as_bytes()]);
        assert_eq!((refused.code(), refused.header("Retry-After")), (503, "1"), "{refused:?}");
    }
    assert_eq!(
        server.metric("keytally_verdicts_total{outcome=\"unavailable\",reason=\"lost\"}"),
        2
    );
    machine.say(Phase::Cut, OnLoss::Open);
    let admitted = server.contacts(key);
    assert_eq!((admitted.code(), admitted.header("X-RateLimit-Remaining")), (200, "999"));
    assert_eq!(server.contacts("wrong").code(), 401);
}

#[test]
fn request_waits_for_credits_and_blocks_no_thread() {
    let machine = Machine::new();
    machine.say(Phase::Leading, OnLoss::Closed);
    let server = machine.serve();
    let key_line = format!("X-API-Key: {}", machine.key);
    let request = format!("GET /api/v1/contacts HTTP/1.1\r\nHost: test\r\n{key_line}\r\n\r\n");
    let mut first = 0;
    for _ in 0..10 {
        let connections: Vec<_> =
            (0..128).map(|_| TcpStream::connect(server.address).unwrap()).collect();
        let mut health = Wire::to(server.address);
        let mut waiting: Vec<_> = connections.into_iter().map(Wire::over).collect();
        waiting.iter_mut().for_each(|wire| wire.send(request.as_bytes()));
        assert_eq!(health.request("GET /healthz", &[]).code(), 200);
        let is_silent = |wire: &mut Wire| {
            wire.stream().set_nonblocking(true).unwrap();
            let peeked = wire.stream().peek(&mut [0]);
            wire.stream().set_nonblocking(false).unwrap();
            peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        first += usize::from(waiting.iter_mut().all(is_silent));
        for wire in &mut waiting {
            assert_eq!(wire.read(false).unwrap().code(), 503);
        }
    }
    // With a thread for each request that waits, no thread would be left for this long.
    assert!(first >= 5, "another request was served first {first} times of 10");

    // An agent may be too slow on a busy machine.
    let file = machine.file();
    let is_admitted = (0..100).any(|_| {
        let stop = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while stop.load(Ordering::SeqCst) == 0 {
                    file.wanted().take(|tally| grant(&file, tally, 1));
                    thread::sleep(Duration::from_micros(200));
                }
            });
            let reply = server.request("GET /auth", &[key_line.as_bytes()]);
            stop.store(1, Ordering::SeqCst);
            reply.code() == 200
        })
    });
    assert!(is_admitted);
}

/// Puts credits into a tally, as an agent that leased them.
fn grant(file: &FleetFile<'_>, tally: u32, units: u32) {
    let Some(subject) = file.subject(tally) else { return };
    let words = file.words(tally).unwrap();
    file.owner(tally).unwrap().store(subject.owner, Ordering::Release);
    let (now_ms, units) = (now().unix_ms(), [units; 4]);
    holding::set_holding(&subject.layout, &words, now_ms, now_ms, &units);
    holding::add_credits(&subject.layout, &words, now_ms, now_ms, &units);
}

#[test]
fn wrong_fleet_file_is_an_error_at_the_start_and_changes_nothing() {
    let machine = Machine::new();
    let gate = machine.sandbox.path(GATE);
    let before = std::fs::read(&gate).unwrap();
    for (path, part) in
        [(gate.to_str().unwrap(), "the file is not a fleet file"), ("nowhere", "cannot open")]
    {
        let args = ["serve", "--data", "data", "--listen", "127.0.0.1:0", "--fleet", path];
        let args = [&args[..], &["--plan", "extra=5/31d"]].concat();
        machine.sandbox.run_admin(&args).expect_failure(&[part]);
    }
    assert!(std::fs::read(&gate).unwrap() == before, "a plan was added");
}

#[test]
fn fleet_file_that_is_replaced_is_opened() {
    let machine = Machine::new();
    machine.say(Phase::Cut, OnLoss::Closed);
    let server = machine.serve();
    assert_eq!(server.contacts(&machine.key).code(), 503);
    std::fs::remove_file(&machine.fleet).unwrap();
    FleetFile::create(&machine.fleet, &machine.gate).unwrap();
    machine.say(Phase::Cut, OnLoss::Open);
    // The path is examined once a second.
    let is_opened = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(20));
        server.contacts(&machine.key).code() == 200
    });
    assert!(is_opened);
}
