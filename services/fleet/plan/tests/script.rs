//! The store's script on a real server, request by request compared with its model.
//!
//! Requests are random: new, repeated, late and lost ones, with numbers that are counted round, by
//! several machines, of windows that run, are over or have not begun, before and after resets and
//! losses of writes. After each one, the reply, the published messages and the stored hash must be
//! those of the model.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[path = "support/store.rs"]
mod store;

use core::time::Duration;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;

use keytally_fleet_plan::meta::NUMBERS;
use keytally_fleet_plan::request::{LEASE_SCRIPT, WindowReply, WindowRequest};
use redis::{Connection, Value, cmd};

use store::{Holding, Published, Terms, Window};

/// Requests in the short form, and if `KEYTALLY_FULL` is set.
const REQUESTS: [usize; 2] = [10_000, 100_000];

/// The seed of the random requests.
const SEED: u64 = 2025;

/// Machines, in the order of their names in the store.
const NAMES: [&str; 4] = ["machine0", "machine1", "machine2", "machine3"];

const PREFIX: &str = "kt:test";

/// A server in a folder of its own, which listens on a Unix socket only.
struct Server {
    process: Child,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = std::env::var_os("KEYTALLY_TEST_REDIS").unwrap_or("redis-server".into());
        let mut command = Command::new(program);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
        command.arg(folder.path().join("socket")).arg("--dir").arg(folder.path());
        let process = command.stdout(Stdio::null()).spawn();
        let process = process.expect(
            "there is no redis-server; `cargo xtask test fleet --install` installs it, and \
             KEYTALLY_TEST_REDIS names another one, such as valkey-server",
        );
        Self { process, folder }
    }

    fn connect(&self) -> Connection {
        let path: PathBuf = self.folder.path().join("socket");
        let client = redis::Client::open(format!("unix://{}", path.display())).unwrap();
        for _ in 0..200 {
            if let Ok(connection) = client.get_connection() {
                return connection;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("the server did not listen within 10 s");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A random number generator (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).unwrap()
    }
}

/// A lease request for two windows of a subject.
#[derive(Clone, Debug)]
struct Request {
    subject: u32,
    machine: u32,
    number: u32,
    windows: [WindowRequest; 2],
}

fn key(subject: u32, index: usize) -> String {
    format!("kt:{{test/{subject}}}:{index}")
}

/// Runs the script, and returns the store's time, and held, left and machines of each window.
fn evaluate(store: &mut Connection, digest: &str, terms: &Terms, request: &Request) -> Vec<i64> {
    let mut call = cmd("EVALSHA");
    call.arg(digest).arg(2).arg(key(request.subject, 0)).arg(key(request.subject, 1));
    call.arg(PREFIX).arg(NAMES[request.machine as usize]).arg(request.number);
    call.arg(terms.withhold_ms).arg(terms.most_recalls);
    for window in &request.windows {
        call.arg(window.limit).arg(window.hold).arg(window.want);
        call.arg(window.begin_ms).arg(window.end_ms).arg(window.unreserved);
    }
    call.query(store).unwrap()
}

/// Returns what the script published since the last call: channel and message.
fn published(subscriber: &mut Connection) -> Vec<(String, String)> {
    // The reply to a ping follows all messages before it.
    let mut messages = Vec::new();
    subscriber.send_packed_command(&cmd("PING").get_packed_command()).unwrap();
    loop {
        let Value::Array(parts) = subscriber.recv_response().unwrap() else { panic!("no array") };
        let texts: Vec<String> =
            parts.into_iter().map(|part| redis::from_redis_value(part).unwrap()).collect();
        match &texts[..] {
            [kind, _, channel, message] if kind == "pmessage" => {
                messages.push((channel.clone(), message.clone()));
            }
            [pong, ..] if pong == "pong" => return messages,
            other => panic!("{other:?}"),
        }
    }
}

/// Returns what the model publishes, in the script's order.
fn expected(subject: u32, index: usize, published: &Published) -> Vec<(String, String)> {
    let key = key(subject, index);
    let again = published.again.then(|| (format!("{PREFIX}:again"), key.clone()));
    let recall = |name: &u32| (format!("{PREFIX}:recall:{}", NAMES[*name as usize]), key.clone());
    again.into_iter().chain(published.recalls.iter().map(recall)).collect()
}

/// Returns the fields of a hash of the model.
fn fields(window: &Window) -> HashMap<String, i64> {
    let mut fields = HashMap::new();
    if window.machines > 0 {
        fields.insert("t".to_owned(), window.out);
        fields.insert("n".to_owned(), window.machines.into());
    }
    if window.extra > 0 {
        fields.insert("x".to_owned(), window.extra);
    }
    if window.withheld_ms > 0 {
        fields.insert("w".to_owned(), window.withheld_ms.try_into().unwrap());
    }
    for (&name, last) in &window.holdings {
        let value = i64::from(last.number) << 32 | i64::from(last.held);
        fields.insert(NAMES[name as usize].to_owned(), value);
    }
    fields
}

#[derive(Debug, Default)]
struct Seen {
    granted: u32,
    repeated: u32,
    refused_numbers: u32,
    refused_windows: u32,
    again: u32,
    withheld: u32,
    recalls: u32,
    unreserved: u32,
    wrapped: u32,
}

#[test]
fn script_does_what_its_model_does() {
    let server = Server::start();
    let (mut store, mut subscriber) = (server.connect(), server.connect());
    let _: Value = cmd("PSUBSCRIBE").arg("kt:test:*").query(&mut subscriber).unwrap();
    let digest: String = cmd("SCRIPT").arg("LOAD").arg(LEASE_SCRIPT).query(&mut store).unwrap();

    // Short, so that units are withheld and granted again within the test.
    let terms = Terms { withhold_ms: 3, most_recalls: 2, ..Terms::default() };
    let mut random = Random(SEED);
    let time: (u64, u64) = cmd("TIME").query(&mut store).unwrap();
    let start_ms = time.0 * 1000 + time.1 / 1000;
    let mut windows: HashMap<(u32, usize), Window> = HashMap::new();
    let mut numbers = [NUMBERS - 1500; NAMES.len()];
    let mut late: Vec<Request> = Vec::new();
    let mut seen = Seen::default();
    println!("seed {SEED}");
    for _ in 0..REQUESTS[usize::from(std::env::var_os("KEYTALLY_FULL").is_some())] {
        let request = next_request(&mut random, &mut late, &mut numbers, &windows, start_ms);
        let reply = evaluate(&mut store, &digest, &terms, &request);
        let (now_ms, mut messages) = (u64::try_from(reply[0]).unwrap(), Vec::new());
        for (index, wanted) in request.windows.iter().enumerate() {
            let window = windows.entry((request.subject, index)).or_default();
            let before = window.clone();
            let (answer, sent) =
                window.apply(&terms, now_ms, request.machine, request.number, wanted);
            let WindowReply { held, left, machines } = answer;
            let found = &reply[1 + 3 * index..4 + 3 * index];
            let modeled = [held.into(), left.into(), i64::from(machines)];
            assert_eq!(found, modeled, "{request:?} at {now_ms} on {before:?}");
            seen.count(&before, window, &request, &answer, &sent);
            seen.unreserved += u32::from(wanted.unreserved > 0 && !sent.again);
            messages.extend(expected(request.subject, index, &sent));
            let stored: HashMap<String, i64> =
                cmd("HGETALL").arg(key(request.subject, index)).query(&mut store).unwrap();
            assert_eq!(stored, fields(window), "{request:?} at {now_ms} on {before:?}");
        }
        assert_eq!(published(&mut subscriber), messages, "{request:?}");
        disturb(&mut random, &mut store, &mut windows);
    }
    println!("{seen:?}");
    let Seen {
        granted,
        repeated,
        refused_numbers,
        refused_windows,
        again,
        withheld,
        recalls,
        unreserved,
        ..
    } = seen;
    let kinds = [granted, repeated, refused_numbers, refused_windows, again, withheld, recalls];
    for count in kinds.into_iter().chain([unreserved]) {
        assert!(count > 50, "a kind of request is missing: {seen:?}");
    }
    assert!(seen.wrapped > 0, "no number was counted round: {seen:?}");
    let expires_ms: i64 = cmd("PEXPIRETIME").arg(key(0, 0)).query(&mut store).unwrap_or(-3);
    let most_ms = i64::try_from(start_ms + WINDOW_MS + 10_000).unwrap();
    // Redis 6.2 has no such command.
    assert!(expires_ms == -3 || expires_ms == most_ms, "{expires_ms}, not {most_ms}");
}

/// Of very many machines, the script keeps the holdings in order.
#[test]
fn recall_of_many_machines_finds_the_largest_holdings() {
    const MACHINES: u32 = 300;
    let server = Server::start();
    let (mut store, mut subscriber) = (server.connect(), server.connect());
    let _: Value = cmd("PSUBSCRIBE").arg("kt:test:*").query(&mut subscriber).unwrap();
    let digest: String = cmd("SCRIPT").arg("LOAD").arg(LEASE_SCRIPT).query(&mut store).unwrap();
    let (seconds, _): (u64, u64) = cmd("TIME").query(&mut store).unwrap();
    let (begin_ms, end_ms) = (seconds * 1000, seconds * 1000 + WINDOW_MS);
    let terms = Terms::default();
    let (mut random, mut window, mut recalls) = (Random(SEED), Window::default(), 0);
    for number in 1..4000 {
        let machine = random.below(MACHINES);
        let held = window.holdings.get(&machine).map_or(0, |last| last.held);
        let (hold, want) = match random.below(4) {
            0 => (random.below(held + 1), 0),
            _ => (held, held + random.below(40)),
        };
        // Often, the units run out.
        let limit = 3000;
        let want = want.max(hold);
        let wanted = WindowRequest { limit, hold, unreserved: 0, want, begin_ms, end_ms };
        let mut call = cmd("EVALSHA");
        call.arg(&digest).arg(1).arg(key(0, 0)).arg(PREFIX).arg(many(machine)).arg(number);
        call.arg(terms.withhold_ms).arg(terms.most_recalls);
        call.arg(limit).arg(hold).arg(want).arg(begin_ms).arg(end_ms).arg(0);
        let reply: Vec<i64> = call.query(&mut store).unwrap();
        let now_ms = u64::try_from(reply[0]).unwrap();
        let (answer, sent) = window.apply(&terms, now_ms, machine, number, &wanted);
        assert_eq!(reply[1..3], [answer.held.into(), answer.left.into()], "{number}");
        let recalled = |&name: &u32| (format!("{PREFIX}:recall:{}", many(name)), key(0, 0));
        let expected: Vec<_> = sent.recalls.iter().map(recalled).collect();
        assert_eq!(published(&mut subscriber), expected, "{number}");
        recalls += u32::from(window.machines > 100 && !expected.is_empty());
    }
    assert!(recalls > 100, "{recalls} recalls");
    let expires =
        |key: String, store: &mut Connection| -> i64 { cmd("PTTL").arg(key).query(store).unwrap() };
    let ordered = expires(key(0, 0) + ":ordered", &mut store);
    let hash = expires(key(0, 0), &mut store);
    assert!(ordered > 0 && (hash - ordered).abs() < 1000, "{hash} and {ordered}");
}

/// Names one of many machines. Texts and numbers have the same order.
fn many(machine: u32) -> String {
    format!("machine{machine:03}")
}

/// The length of the windows, longer than the test.
const WINDOW_MS: u64 = 3_600_000;

/// Returns a new request, or one that was made before.
fn next_request(
    random: &mut Random,
    late: &mut Vec<Request>,
    numbers: &mut [u32; NAMES.len()],
    windows: &HashMap<(u32, usize), Window>,
    start_ms: u64,
) -> Request {
    if !late.is_empty() && random.below(5) == 0 {
        // Late or repeated: it may arrive again.
        let at = random.below(u32::try_from(late.len()).unwrap()) as usize;
        return if random.below(2) == 0 { late[at].clone() } else { late.swap_remove(at) };
    }
    let (subject, machine) = (random.below(3), random.below(4));
    let number = (numbers[machine as usize] + 1) % NUMBERS;
    numbers[machine as usize] = number;
    let window = |index: usize, random: &mut Random| {
        let known = windows.get(&(subject, index));
        let held =
            known.and_then(|window| window.holdings.get(&machine)).map_or(0, |last| last.held);
        // Mostly what it holds; sometimes less, which gives back, or more, which the store forgot,
        // or which was admitted without units.
        let unreserved = if number.is_multiple_of(8) { number / 8 % 4 } else { 0 };
        let hold = unreserved
            + match random.below(8) {
                0 => random.below(held + 1),
                1 => held + random.below(3),
                _ => held,
            };
        let begin_ms = match random.below(20) {
            0 => start_ms - 2 * WINDOW_MS,
            1 => start_ms + WINDOW_MS,
            _ => start_ms,
        };
        let limit = if random.below(10) == 0 { 10 } else { 100 };
        let want = hold + random.below(30);
        WindowRequest { limit, hold, unreserved, want, begin_ms, end_ms: begin_ms + WINDOW_MS }
    };
    let windows = [window(0, random), window(1, random)];
    let request = Request { subject, machine, number, windows };
    match random.below(10) {
        // Lost on the way for now, and perhaps late.
        0 => {
            late.push(request);
            next_request(random, late, numbers, &HashMap::new(), start_ms)
        }
        1..4 => {
            late.push(request.clone());
            request
        }
        _ => request,
    }
}

/// Sometimes lets the store forget a machine, resets a window, or deletes it.
fn disturb(
    random: &mut Random,
    store: &mut Connection,
    windows: &mut HashMap<(u32, usize), Window>,
) {
    let (subject, index) = (random.below(3), random.below(2) as usize);
    let Some(window) = windows.get_mut(&(subject, index)) else { return };
    let key = key(subject, index);
    let ordered = format!("{key}:ordered");
    match random.below(100) {
        // A failover that lost the last request of a machine.
        0 => {
            let machine = random.below(4);
            let Some(&Holding { number, held }) = window.holdings.get(&machine) else { return };
            let lower = random.below(held + 1);
            let older = (number + NUMBERS - 1) % NUMBERS;
            window.out -= i64::from(held - lower);
            window.holdings.insert(machine, Holding { number: older, held: lower });
            let value = i64::from(older) << 32 | i64::from(lower);
            let mut change = cmd("HSET");
            change.arg(&key).arg("t").arg(window.out).arg(NAMES[machine as usize]).arg(value);
            let _: Value = change.query(store).unwrap();
            // The set has the machine, if there is one.
            let mut order = cmd("ZADD");
            order.arg(&ordered).arg("XX").arg(-i64::from(lower)).arg(NAMES[machine as usize]);
            let _: Value = order.query(store).unwrap();
        }
        // A reset adds what is out to the limit.
        1 if window.out > 0 => {
            window.extra = window.out;
            let _: Value = cmd("HSET").arg(&key).arg("x").arg(window.out).query(store).unwrap();
        }
        2 if random.below(5) == 0 => {
            *window = Window::default();
            let _: Value = cmd("DEL").arg(&key).arg(&ordered).query(store).unwrap();
        }
        _ => {}
    }
}

impl Seen {
    fn count(
        &mut self,
        before: &Window,
        after: &Window,
        request: &Request,
        answer: &WindowReply,
        sent: &Published,
    ) {
        let last = before.holdings.get(&request.machine);
        self.granted += u32::from(after.out > before.out);
        self.repeated += u32::from(
            answer.machines > 0 && last.is_some_and(|last| last.number == request.number),
        );
        self.refused_numbers += u32::from(answer.machines < 0);
        self.refused_windows += u32::from(answer.machines == 0);
        self.again += u32::from(sent.again);
        self.withheld += u32::from(after.withheld_ms > before.withheld_ms);
        self.recalls += u32::from(!sent.recalls.is_empty());
        self.wrapped +=
            u32::from(last.is_some_and(|last| last.number > request.number) && answer.machines > 0);
    }
}
