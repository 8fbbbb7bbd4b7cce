//! Measures the check of a gate in a fleet, and a script that the store runs for each request.
//!
//! `cargo xtask bench fleet` measures in several rounds. It needs redis-server.

#[expect(dead_code, reason = "this group has fewer kinds of implementations")]
#[path = "../../../benches/benches/measure.rs"]
mod measure;
#[expect(dead_code, reason = "this group has one kind of traffic")]
#[path = "../../../benches/benches/traffic.rs"]
mod traffic;

use core::hint::black_box;
use core::time::Duration;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use keytally::{
    FleetFile, Gate, GateConfig, Name, NewKey, Peppers, Plan, Wait, entropy, now as time, pepper,
};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::plan::holding::{add_credits, set_holding};
use keytally_fleet::{Agent, FleetConfig, OnLoss, StoreConfig};
use redis::Connection;
use serde_json::{Value, json};

use crate::measure::{Admitted, Bench, Kind, checks, now};
use crate::traffic::{Order, Walk};

/// A policy that the benchmark does not exhaust, in one window.
const POLICY: &str = "2000000000/day";

/// Counts requests in a fixed window, as limiters on Redis do.
const SCRIPT: &str = "
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if count == tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return count";

/// The name of the rows of [`SCRIPT`].
const BY_SCRIPT: &str = "a script in Redis for each request";

/// The first requests of keys that are timed in a round.
const FIRST_REQUESTS: usize = 1_000;

fn main() {
    let folder = tempfile::tempdir_in(memory()).expect("a folder in memory");
    let store = Store::start(folder.path());
    let mut bench = Bench::from_environment();
    measure_checks(&mut bench, folder.path(), &store);
    measure_first_requests(&mut bench, folder.path(), &store);
    bench.save("fleet");
}

/// Times requests whose credits are there.
fn measure_checks(bench: &mut Bench, folder: &Path, store: &Store) {
    let title = "A check with credits of a fleet";
    let about = "Each key has one limit per day. The machine holds units of each key, which is what its agent has leased. The script runs for one connection through a Unix socket on this machine.";
    let sizes = bench.sizes(&[1, 1_000, 1_000_000], &[1, 1_000]);
    let mut table = bench.table("fleet/checks", "ns per request", title, about);
    for &size in sizes {
        let (gate, keys) = gate(folder, "alone", size);
        let (in_fleet, its_keys) = self::gate(folder, "in-fleet", size);
        lease(&in_fleet, &folder.join(format!("in-fleet-{size}.fleet")));
        let numbers = Walk::new(size, Order::Uniform).numbers;
        let check = |gate: &Gate, keys: &[String], next: &mut usize, is_leased: bool| {
            let number = traffic::index(numbers[*next]);
            *next = if *next + 1 == numbers.len() { 0 } else { *next + 1 };
            let verdict = gate.check(Some(black_box(keys[number].as_bytes())), 1);
            assert_eq!(verdict.is_leased(), is_leased);
            black_box(&verdict).is_admitted()
        };
        let (mut first, mut second, mut third) = (0, 0, 0);
        let mut client = store.client();
        let mut rows = vec![
            checks("Gate::check, with credits", Admitted::All, || {
                check(&in_fleet, &its_keys, &mut first, true)
            })
            .with_clock(),
            checks("Gate::check, outside of a fleet", Admitted::All, || {
                check(&gate, &keys, &mut second, false)
            })
            .with_clock(),
        ];
        // A million calls before each turn would take a minute.
        if size <= 1_000 {
            let script = checks(BY_SCRIPT, Admitted::All, || {
                let number = numbers[third];
                third = if third + 1 == numbers.len() { 0 } else { third + 1 };
                client.count(number) > 0
            });
            rows.push(script.with_clock());
        }
        table.column_of(size, rows);
    }
}

/// Times the first requests of keys, for which the agent leases units.
fn measure_first_requests(bench: &mut Bench, folder: &Path, store: &Store) {
    let rounds = bench.long_rounds();
    let count = u32::try_from((rounds + 1) * FIRST_REQUESTS).expect("a number of keys");
    let (gate, keys) = gate(folder, "first", count);
    let path = folder.join("first.fleet");
    let file = FleetFile::create(&path, &gate).expect("a fleet file");
    gate.set_fleet(true).expect("no other administrator");
    gate.join(&path).expect("the fleet file");
    let url = format!("unix://{}", store.socket).parse().expect("a URL");
    let config = FleetConfig::new("bench", StoreConfig::new(url), OnLoss::Closed);
    let agent = Agent::new(&file, &config).expect("an agent");
    let is_stopped = AtomicU64::new(0);
    let (mut waits, mut calls): (Vec<Vec<f64>>, Vec<Vec<f64>>) = Default::default();
    thread::scope(|scope| {
        let agent = scope.spawn(|| agent.run(|| is_stopped.load(Ordering::Acquire) != 0));
        let mut keys = keys.chunks(FIRST_REQUESTS);
        // The first keys wait until the agent leads.
        for key in keys.next().expect("a chunk") {
            while !gate.check(Some(key.as_bytes()), 1).is_admitted() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let mut client = store.client();
        for keys in keys {
            let (mut round_waits, mut round_calls) = (Vec::new(), Vec::new());
            for (key, number) in keys.iter().zip(0..) {
                let began = now();
                let verdict = gate.check(Some(key.as_bytes()), 1);
                round_waits.push(began.elapsed().as_secs_f64() * 1e6);
                assert!(verdict.is_admitted() && verdict.is_leased());
                let began = now();
                black_box(client.count(number));
                round_calls.push(began.elapsed().as_secs_f64() * 1e6);
            }
            waits.push(round_waits);
            calls.push(round_calls);
        }
        is_stopped.store(1, Ordering::Release);
        agent.join().expect("no panic").expect("the agent ends well");
    });
    let title = "The first request of a key";
    let about = "The machine holds no units of the key. The request reports that to the agent of its machine, and waits until the agent has leased some from the store. The agent and the store run on this machine.";
    let mut table = bench.table("fleet/first", "µs per request", title, about);
    for (column, fraction) in [("median", 0.5), ("99 %", 0.99)] {
        for (row, rounds) in [("Gate::check", &waits), (BY_SCRIPT, &calls)] {
            let figures = rounds.iter().map(|round| json!(measure::quantile(round, fraction)));
            table.figures(column, row, Kind::CLOCK_READ, figures.collect::<Vec<Value>>());
        }
    }
}

/// Returns a folder in memory, if there is one.
fn memory() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.into() } else { std::env::temp_dir() }
}

/// Creates a gate with `count` keys, and returns the keys.
fn gate(folder: &Path, name: &str, count: u32) -> (Gate, Vec<String>) {
    let peppers: Peppers = pepper::parse(&"6b".repeat(32)).expect("a pepper");
    let plan = Plan::new("default", POLICY.parse().expect("a policy")).expect("a plan");
    // Issuing into a gate that is nearly full takes long.
    let config = GateConfig::default().with_keys(count * 2).with_plans(vec![plan]);
    let path = folder.join(format!("{name}-{count}.gate"));
    let gate = Gate::create(path, peppers, &config).expect("a gate");
    let new = NewKey::new(1, Name::new("live").expect("a name"));
    let mut keys = Vec::new();
    gate.administer_each(Wait::default(), 0..count, |administrator, _| {
        let (key, _) = administrator.issue(&new, entropy().expect("entropy"), time())?;
        keys.push(key.expose().to_owned());
        Ok(())
    })
    .expect("room");
    (gate, keys)
}

/// Puts a gate in a fleet, and gives every key credits.
fn lease(gate: &Gate, path: &Path) {
    let file = FleetFile::create(path, gate).expect("a fleet file");
    for tally in 0..file.tallies() {
        let Some(subject) = file.subject(tally) else { continue };
        let words = file.words(tally).expect("a tally of the file");
        file.owner(tally).expect("an owner").store(subject.owner, Ordering::Release);
        let (at_ms, units) = (time().unix_ms(), [1_900_000_000; 4]);
        set_holding(&subject.layout, &words, at_ms, at_ms, &units);
        add_credits(&subject.layout, &words, at_ms, at_ms, &units);
    }
    gate.set_fleet(true).expect("no other administrator");
    gate.join(path).expect("the fleet file");
}

/// A server of Redis on this machine.
struct Store {
    process: Child,
    socket: String,
}

/// A connection that runs [`SCRIPT`].
struct Client {
    connection: Connection,
    /// The name of the script in the store.
    name: String,
}

impl Store {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("socket").display().to_string();
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket", socket.as_str()])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed");
        Self { process, socket }
    }

    fn client(&self) -> Client {
        let client = redis::Client::open(format!("unix://{}", self.socket)).expect("a URL");
        let connected = || {
            thread::sleep(Duration::from_millis(10));
            client.get_connection().ok()
        };
        let mut connection = (0..500).find_map(|_| connected()).expect("the server answers");
        let loaded = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query(&mut connection);
        Client { connection, name: loaded.expect("the store has scripts") }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Client {
    /// Counts a request of a key, and returns the number of requests in its window.
    fn count(&mut self, key: u32) -> u64 {
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.name).arg(1).arg(format!("bench:{key}")).arg(1).arg(86_400_000);
        call.query(&mut self.connection).expect("the store counts")
    }
}
