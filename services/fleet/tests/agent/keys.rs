//! Keys that the agents of two machines carry through a real server.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::thread;

use keytally::{
    AdminError, FleetFile, Gate, GateConfig, Key, KeyId, KeyState, MigrationConfig, Name, NewKey,
    Outcome, Peppers, Plan, Timestamp, now as wall, pepper,
};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::plan::layout::{KeysState, PageWord};
use keytally_fleet::plan::seal::Seal;
use keytally_fleet::{Agent, FleetConfig, FleetError, KeyCarrier, KeyCounts, OnLoss};
use redis::{Value, cmd};

use crate::support::fleet::config;
use crate::support::servers::Server;
use crate::support::time::now;

const RECORDS: &str = "kt:{test/keys}";

fn peppers(byte: &str) -> Peppers {
    pepper::parse(&byte.repeat(32)).unwrap()
}

fn gate_config(keys: u32) -> GateConfig {
    let plan = |name| Plan::new(name, "100/day".parse().unwrap()).unwrap();
    GateConfig::default().with_keys(keys).with_plans(vec![plan("default"), plan("pro")])
}

/// A machine with an agent that carries keys, in a thread.
struct Machine {
    gate: Gate,
    fleet: PathBuf,
    stop: alloc::sync::Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<Result<KeyCounts, FleetError>>>,
    problem: alloc::sync::Arc<std::sync::Mutex<Option<String>>>,
}

impl Machine {
    /// Starts a machine whose gate has room for this many keys, after its first start with the gate
    /// that it has.
    fn start(folder: &Path, name: &str, keys: u32, config: &FleetConfig) -> Self {
        Self::start_with(folder, name, keys, config, "6b", None)
    }

    fn start_with(
        folder: &Path,
        name: &str,
        keys: u32,
        config: &FleetConfig,
        pepper: &str,
        stale_after: Option<Duration>,
    ) -> Self {
        let path = folder.join(format!("{name}.gate"));
        if !path.exists() {
            Gate::create(&path, peppers(pepper), &gate_config(keys)).unwrap();
        }
        let gate = Gate::open(&path, peppers(pepper)).unwrap();
        let fleet = folder.join(format!("{name}.fleet"));
        let mut machine = Self {
            gate,
            fleet,
            stop: alloc::sync::Arc::default(),
            thread: None,
            problem: alloc::sync::Arc::default(),
        };
        machine.run(config, peppers(pepper), stale_after);
        machine
    }

    fn run(&mut self, config: &FleetConfig, peppers: Peppers, stale_after: Option<Duration>) {
        let (path, fleet) = (self.gate.path().unwrap().to_owned(), self.fleet.clone());
        let (config, stop, problem) = (config.clone(), self.stop.clone(), self.problem.clone());
        stop.store(0, Ordering::Release);
        self.thread = Some(thread::spawn(move || {
            let gate = Gate::open(&path, peppers.clone()).unwrap();
            let file = FleetFile::create(&fleet, &gate).unwrap();
            let agent = Agent::new(&file, &config).unwrap();
            let carrier = KeyCarrier::new(&gate, &file, &config, &peppers, stale_after).unwrap();
            let is_stopped = || stop.load(Ordering::Acquire) != 0;
            thread::scope(|scope| {
                let carried = scope.spawn(|| {
                    let result = carrier.run(
                        || agent.key_messages(),
                        || {
                            *problem.lock().unwrap() = carrier.problem();
                            is_stopped()
                        },
                    );
                    stop.store(1, Ordering::Release);
                    result
                });
                agent.run(is_stopped)?;
                carried.join().unwrap()
            })?;
            Ok(carrier.counts())
        }));
    }

    fn stop(&mut self) -> KeyCounts {
        self.stop.store(1, Ordering::Release);
        self.thread.take().unwrap().join().unwrap().unwrap()
    }

    /// Waits until the agent has refused the store.
    fn refusal(mut self) -> String {
        until("refused", || self.thread.as_ref().unwrap().is_finished());
        self.thread.take().unwrap().join().unwrap().unwrap_err().to_string()
    }

    fn issue(&self) -> (Key, KeyId) {
        self.gate.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap()
    }

    fn outcome(&self, key: &Key) -> Outcome {
        self.gate.peek(Some(key.expose().as_bytes()), 1).outcome()
    }

    /// Returns the file of the agent, which it creates at its first start.
    fn file(&self) -> FleetFile<'_> {
        until("a fleet file", || FleetFile::open(&self.fleet, &self.gate).is_ok());
        FleetFile::open(&self.fleet, &self.gate).unwrap()
    }

    fn page(&self, word: PageWord) -> u64 {
        self.file().page(word).load(Ordering::Acquire)
    }

    fn refused(&self) -> u32 {
        KeysState::from_bits(self.page(PageWord::Keys)).refused
    }

    fn problem(&self) -> String {
        self.problem.lock().unwrap().clone().unwrap_or_default()
    }

    /// Waits until all agents have confirmed all changes of this machine.
    #[track_caller]
    fn wait_for_all(&self, agents: u64) {
        self.wait_for(agents, agents);
    }

    /// Waits until some agents of all have confirmed all changes of this machine.
    #[track_caller]
    fn wait_for(&self, some: u64, agents: u64) {
        let file = self.file();
        let request = || file.page(PageWord::KeysRequested).fetch_add(1, Ordering::AcqRel) + 1;
        let number = AtomicU64::new(request());
        until("confirmed", || {
            let answered = file.page(PageWord::KeysAnswered).load(Ordering::Acquire);
            let confirmed = file.page(PageWord::KeysConfirmed).load(Ordering::Acquire);
            if answered != number.load(Ordering::Relaxed) {
                return false;
            }
            if confirmed >> 32 < agents {
                // The agent that has just started has not reported yet.
                number.store(request(), Ordering::Relaxed);
            }
            confirmed == agents << 32 | some
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(20), "not {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn record_in(server: &Server, key_id: KeyId) -> Vec<u8> {
    match server.query(cmd("HGET").arg(RECORDS).arg(key_id.to_string())) {
        Value::BulkString(bytes) => bytes,
        _ => Vec::new(),
    }
}

/// Writes a record as the scripts do, but without their comparison.
fn write(server: &Server, field: &str, bytes: &[u8]) {
    let log = format!("{RECORDS}:log");
    let last = server.query(cmd("ZRANGE").arg(&log).arg(0).arg(0).arg("REV").arg("WITHSCORES"));
    let last: Vec<String> = redis::from_redis_value(last).unwrap();
    let position = last[1].parse::<f64>().unwrap() + 1.0;
    server.query(cmd("HSET").arg(RECORDS).arg(field).arg(bytes));
    server.query(cmd("ZADD").arg(&log).arg(position).arg(field));
    server.query(cmd("PUBLISH").arg("kt:test:keys").arg(""));
}

#[test]
fn changes_of_keys_are_seen_on_the_other_machine() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let one = Machine::start(folder.path(), "one", 64, &config);
    let two = Machine::start(folder.path(), "two", 64, &config);
    let (first, key_id) = one.issue();
    until("issued", || two.outcome(&first) == Outcome::Admitted);
    let key = two.gate.rotate(key_id, Duration::from_secs(3600), false).unwrap();
    until("rotated", || one.outcome(&key) == Outcome::Admitted);
    assert_eq!(one.outcome(&first), Outcome::Admitted, "in its grace");
    one.gate.end_grace(key_id).unwrap();
    until("its grace has ended", || two.outcome(&first) == Outcome::InvalidKey);
    two.gate.assign(key_id, "pro").unwrap();
    let info = |machine: &Machine| machine.gate.key(key_id).unwrap();
    until("assigned", || info(&one).plan == info(&two).plan);
    let end = Timestamp::from_unix_s(wall().unix_s() - 5);
    one.gate.expire(key_id, Some(end)).unwrap();
    until("expired", || two.outcome(&key) == Outcome::InvalidKey);
    // A later version holds, also if it is less strict.
    two.gate.expire(key_id, None).unwrap();
    until("valid again", || one.outcome(&key) == Outcome::Admitted);
    let foreign = b"sk-0123456789abcdefghijklmnop";
    one.gate.import(foreign, &NewKey::new(7, Name::new("live").unwrap())).unwrap();
    until("imported", || two.gate.peek(Some(foreign), 1).is_admitted());
    two.gate.revoke(key_id).unwrap();
    until("revoked", || one.outcome(&key) == Outcome::InvalidKey);
    one.wait_for_all(2);
    for machine in [&one, &two] {
        assert_eq!((info(machine).state, machine.refused()), (KeyState::Revoked, 0));
    }
}

#[test]
fn keys_of_before_are_carried_to_a_new_machine() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let mut one = Machine::start(folder.path(), "one", 2048, &config);
    one.stop();
    let keys: Vec<_> = (0..700).map(|_| one.issue()).collect();
    one.gate.revoke(keys[3].1).unwrap();
    one.run(&config, peppers("6b"), None);
    // The records of the one are a multiple of those of the other.
    let two = Machine::start(folder.path(), "two", 4096, &config);
    one.wait_for_all(2);
    let is_right = |(number, (key, _)): (usize, &(Key, KeyId))| {
        let expected = if number == 3 { Outcome::InvalidKey } else { Outcome::Admitted };
        two.outcome(key) == expected
    };
    until("carried", || keys.iter().enumerate().all(is_right));
}

#[test]
fn change_without_an_agent_is_carried_after_its_start() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let one = Machine::start(folder.path(), "one", 64, &config);
    let mut two = Machine::start(folder.path(), "two", 64, &config);
    let (key, key_id) = one.issue();
    let (other, other_id) = one.issue();
    one.wait_for_all(2);
    two.stop();
    // Each machine changes another key, and what is remembered says which of them is newer.
    two.gate.expire(key_id, Some(Timestamp::from_unix_s(5))).unwrap();
    one.gate.expire(other_id, Some(Timestamp::from_unix_s(5))).unwrap();
    one.gate.expire(other_id, None).unwrap();
    one.gate.assign(other_id, "pro").unwrap();
    one.wait_for(1, 2);
    two.run(&config, peppers("6b"), None);
    until("carried", || one.outcome(&key) == Outcome::InvalidKey);
    let plan = |machine: &Machine| machine.gate.key(other_id).unwrap().plan;
    until("carried", || plan(&two) == plan(&one));
    assert_eq!(two.outcome(&other), Outcome::Admitted);
}

#[test]
fn hostile_store_changes_no_key() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let mut one = Machine::start(folder.path(), "one", 64, &config);
    let mut two = Machine::start(folder.path(), "two", 64, &config);
    let (key, key_id) = one.issue();
    let (_, other_id) = one.issue();
    one.wait_for_all(2);
    let sealed = record_in(&server, key_id);
    one.gate.expire(key_id, Some(Timestamp::from_unix_s(4_000_000_000))).unwrap();
    one.wait_for_all(2);
    let record = |machine: &Machine| {
        let read = machine.gate.read_as_administrator(|gate| gate.read(key_id));
        read.unwrap().unwrap()
    };
    let before = record(&one);
    let field = key_id.to_string();
    let mut bad: Vec<Vec<u8>> = (0..sealed.len())
        .map(|byte| {
            let mut changed = sealed.clone();
            changed[byte] ^= 1;
            changed
        })
        .collect();
    bad.push(record_in(&server, other_id));
    // Records of another fleet and of other peppers.
    for (fleet, byte) in [("other", "6b"), ("test", "6c")] {
        let seal = Seal::new(fleet, &peppers(byte));
        let revoked = keytally_fleet::plan::fleet_key::FleetKey::Revoked { at_s: 1 };
        bad.push(seal.seal(&field, &revoked).unwrap().to_vec());
    }
    bad.push(vec![0xff; 100_000]);
    bad.push(Vec::new());
    let unsealed = u64::try_from(bad.len() - 1).unwrap();
    for bytes in bad {
        write(&server, &field, &bytes);
        one.wait_for_all(2);
    }
    // An older record replaces nothing, and is replaced.
    write(&server, &field, &sealed);
    until("put back", || record_in(&server, key_id) != sealed);
    write(&server, "no key id", b"bytes");
    one.wait_for_all(2);
    // A machine may read a record only after the other one has replaced it.
    let counts = [one.stop(), two.stop()];
    let [found, older] = [counts.map(|it| it.unsealed), counts.map(|it| it.older)];
    assert!(found.iter().sum::<u64>() >= unsealed, "{counts:?}");
    assert!(older.iter().sum::<u64>() > 0, "{counts:?}");
    for machine in [&one, &two] {
        assert_eq!(record(machine), before);
        assert_eq!(machine.outcome(&key), Outcome::Admitted);
        assert_eq!(machine.gate.list().len(), 2);
    }
}

/// After the position of such an entry, there is no further one.
#[test]
fn entries_far_ahead_in_the_store_delay_no_change() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let mut one = Machine::start(folder.path(), "one", 64, &config);
    let mut two = Machine::start(folder.path(), "two", 64, &config);
    let (_, key_id) = one.issue();
    let (key, other_id) = one.issue();
    one.wait_for_all(2);
    let log = format!("{RECORDS}:log");
    let add = |position: &str, field: &str| {
        server.query(cmd("ZADD").arg(&log).arg(position).arg(field));
    };
    add("9007199254740992", "no key id");
    add("inf", &key_id.to_string());
    (0..300).for_each(|number| add("0.5", &format!("between {number}")));
    one.gate.revoke(other_id).unwrap();
    one.wait_for_all(2);
    assert_eq!(two.outcome(&key), Outcome::InvalidKey);
    let counts = [one.stop(), two.stop()].map(|it| it.unsealed);
    assert_eq!(counts.iter().sum::<u64>(), 2, "{counts:?}");
    // A machine that comes later gets the key whose entry was moved.
    let three = Machine::start(folder.path(), "three", 64, &config);
    until("carried", || three.gate.key(key_id).is_some());
}

/// Replaces a gate by a copy of it, while its agent does not run.
fn restore(machine: &mut Machine, copy: &Path) {
    let path = machine.gate.path().unwrap().to_owned();
    let new = path.with_extension("new");
    std::fs::copy(copy, &new).unwrap();
    std::fs::rename(&new, &path).unwrap();
    machine.gate = Gate::open(&path, peppers("6b")).unwrap();
}

/// Returns a copy of a machine's gate.
fn copy(machine: &Machine, name: &str) -> PathBuf {
    let path = machine.gate.path().unwrap().with_extension(name);
    std::fs::copy(machine.gate.path().unwrap(), &path).unwrap();
    path
}

/// What the agent remembers stays next to the gate, and is newer than the copy.
#[test]
fn restored_gate_gets_the_newest_keys_again() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let mut one = Machine::start(folder.path(), "one", 64, &config);
    let two = Machine::start(folder.path(), "two", 64, &config);
    let (first, key_id) = one.issue();
    let (expired, expired_id) = one.issue();
    let (revoked, revoked_id) = one.issue();
    one.wait_for_all(2);
    let monday = copy(&one, "monday");
    let second = one.gate.rotate(key_id, Duration::ZERO, false).unwrap();
    one.gate.assign(key_id, "pro").unwrap();
    one.gate.assign(key_id, "default").unwrap();
    let past = Timestamp::from_unix_s(wall().unix_s() - 5);
    one.gate.expire(expired_id, Some(past)).unwrap();
    one.gate.revoke(revoked_id).unwrap();
    one.wait_for_all(2);
    let tuesday = copy(&one, "tuesday");
    let third = one.gate.rotate(key_id, Duration::ZERO, false).unwrap();
    one.wait_for_all(2);
    for backup in [&monday, &tuesday, &monday] {
        one.stop();
        restore(&mut one, backup);
        one.run(&config, peppers("6b"), None);
        until("restored", || one.outcome(&third) == Outcome::Admitted);
        one.wait_for_all(2);
        for machine in [&one, &two] {
            assert_eq!(machine.outcome(&third), Outcome::Admitted);
            for ended in [&first, &second, &expired, &revoked] {
                assert_eq!(machine.outcome(ended), Outcome::InvalidKey);
            }
            assert_eq!(machine.refused(), 0);
        }
    }
    // A change on the restored machine is one.
    one.gate.expire(key_id, Some(past)).unwrap();
    one.wait_for_all(2);
    assert_eq!(two.outcome(&third), Outcome::InvalidKey);
}

#[test]
fn older_key_of_a_restored_gate_is_not_sent_to_an_empty_store() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let mut one = Machine::start(folder.path(), "one", 64, &config);
    let mut two = Machine::start(folder.path(), "two", 64, &config);
    let (first, key_id) = one.issue();
    let (revoked, revoked_id) = one.issue();
    one.wait_for_all(2);
    let backup = copy(&one, "backup");
    let second = one.gate.rotate(key_id, Duration::ZERO, false).unwrap();
    one.gate.revoke(revoked_id).unwrap();
    one.wait_for_all(2);
    one.stop();
    two.stop();
    restore(&mut one, &backup);
    server.query(&mut cmd("FLUSHALL"));
    one.run(&config, peppers("6b"), None);
    until("withheld", || one.refused() == 1);
    until("a sentence", || one.problem().contains(&key_id.to_string()));
    assert!(one.problem().contains("an older record"), "{}", one.problem());
    assert!(record_in(&server, key_id).is_empty());
    // The revocation is remembered.
    until("revoked", || one.outcome(&revoked) == Outcome::InvalidKey);
    assert!(!record_in(&server, revoked_id).is_empty());
    two.run(&config, peppers("6b"), None);
    until("the newest", || one.outcome(&second) == Outcome::Admitted);
    until("settled", || one.refused() == 0);
    for machine in [&one, &two] {
        assert_eq!(machine.outcome(&first), Outcome::InvalidKey);
        assert_eq!(machine.outcome(&revoked), Outcome::InvalidKey);
    }
}

/// A key may have been revoked after the copy was made, and the store that has that is lost.
#[test]
fn older_gate_admits_no_key_until_the_store_is_back() {
    for stale_after in [None, Some(Duration::from_secs(300))] {
        let (folder, mut server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
        let config = FleetConfig { on_loss: OnLoss::Open, ..config(&server.url()) };
        let start = |name| Machine::start_with(folder.path(), name, 64, &config, "6b", stale_after);
        let (mut one, two) = (start("one"), start("two"));
        let (key, _) = one.issue();
        let (revoked, revoked_id) = one.issue();
        one.gate.set_fleet(true).unwrap();
        one.wait_for_all(2);
        let backup = copy(&one, "backup");
        two.gate.revoke(revoked_id).unwrap();
        two.wait_for_all(2);
        server.kill();
        for is_running in [false, true] {
            let check = |machine: &Machine, key: &Key| {
                let outcome = machine.gate.check(Some(key.expose().as_bytes()), 1).outcome();
                (outcome, machine.page(PageWord::KeysClose))
            };
            if is_running {
                // The gate is written over while its agent runs.
                let bytes = std::fs::read(&backup).unwrap();
                let gate =
                    std::fs::OpenOptions::new().write(true).open(folder.path().join("one.gate"));
                std::os::unix::fs::FileExt::write_all_at(&gate.unwrap(), &bytes, 0).unwrap();
            } else {
                one.stop();
                restore(&mut one, &backup);
                one.run(&config, peppers("6b"), stale_after);
            }
            one.gate.join(&one.fleet).ok();
            until("closed", || check(&one, &key) == (Outcome::Unavailable, 1));
            assert_eq!(check(&one, &revoked).0, Outcome::Unavailable);
            server.restart();
            until("open", || check(&one, &key).0 == Outcome::Admitted);
            assert_eq!(check(&one, &revoked).0, Outcome::InvalidKey);
            let close_ms = check(&one, &key).1;
            assert_eq!(close_ms > 1, stale_after.is_some(), "{close_ms}");
            one.wait_for_all(2);
            server.kill();
            until("lost", || one.problem().contains("store"));
            assert_eq!(check(&one, &key).0, Outcome::Admitted, "it is not older any more");
        }
    }
}

#[test]
fn emptied_store_gets_all_keys_again() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let one = Machine::start(folder.path(), "one", 64, &config);
    let (key, key_id) = one.issue();
    let (_, revoked_id) = one.issue();
    one.gate.revoke(revoked_id).unwrap();
    one.wait_for_all(1);
    server.query(&mut cmd("FLUSHALL"));
    until("put back", || [key_id, revoked_id].iter().all(|id| !record_in(&server, *id).is_empty()));
    let two = Machine::start(folder.path(), "two", 64, &config);
    until("carried", || two.outcome(&key) == Outcome::Admitted);
    assert!(two.gate.key(revoked_id).is_none(), "a revoked key takes no record");
}

/// Starts a machine whose gate has two records, which are free soon after their keys ended.
fn start_small(folder: &Path, name: &str, config: &FleetConfig) -> Machine {
    let plan = |name| Plan::new(name, "100/second".parse().unwrap()).unwrap();
    let small = gate_config(2).with_plans(vec![plan("default"), plan("pro")]);
    Gate::create(folder.join(format!("{name}.gate")), peppers("6b"), &small).unwrap();
    Machine::start(folder, name, 2, config)
}

/// Issues keys on a machine until one of them has the record of an ended key, and revokes them.
fn reuse_record(machine: &Machine, key_id: KeyId) {
    let new = NewKey::new(42, Name::new("live").unwrap());
    until("used again", || {
        // The records are full until their windows have passed.
        drop(machine.gate.issue(&new));
        machine.gate.key(key_id).is_none()
    });
    for info in machine.gate.list() {
        machine.gate.revoke(info.key_id).unwrap();
    }
}

/// The gate has forgotten the key, but its agent has not.
#[test]
fn revoked_key_whose_record_was_used_again_stays_revoked() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let mut one = start_small(folder.path(), "one", &config);
    let mut two = start_small(folder.path(), "two", &config);
    let (key, key_id) = one.issue();
    one.wait_for_all(2);
    let sealed = record_in(&server, key_id);
    one.gate.revoke(key_id).unwrap();
    one.wait_for_all(2);
    reuse_record(&one, key_id);
    one.wait_for_all(2);
    let revoked = record_in(&server, key_id);
    for round in 0..2 {
        // The other machine's gate has the key, and its agent would write the revocation.
        two.stop();
        write(&server, &key_id.to_string(), &sealed);
        until("revoked in the store", || record_in(&server, key_id) == revoked);
        until("named", || one.problem().contains(&key_id.to_string()));
        assert_eq!(one.refused(), 1);
        two.run(&config, peppers("6b"), None);
        one.wait_for_all(2);
        for machine in [&one, &two] {
            assert_eq!(machine.outcome(&key), Outcome::InvalidKey, "round {round}");
        }
        assert!(one.gate.key(key_id).is_none());
        // What an agent remembers is in its file.
        assert!(one.stop().older > 0);
        one.run(&config, peppers("6b"), None);
        one.wait_for_all(2);
        assert_eq!(one.refused(), 0);
    }
}

#[test]
fn emptied_store_revokes_former_keys_on_a_machine_that_was_down() {
    for is_first_back in [true, false] {
        let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
        let config = config(&server.url());
        let mut one = start_small(folder.path(), "one", &config);
        let mut two = start_small(folder.path(), "two", &config);
        let (key, key_id) = one.issue();
        one.wait_for_all(2);
        two.stop();
        one.gate.revoke(key_id).unwrap();
        one.wait_for(1, 2);
        reuse_record(&one, key_id);
        one.wait_for(1, 2);
        if is_first_back {
            one.stop();
            server.query(&mut cmd("FLUSHALL"));
            two.run(&config, peppers("6b"), None);
            // The store gets the key, valid, from the machine that was down.
            until("valid", || !record_in(&server, key_id).is_empty());
            one.run(&config, peppers("6b"), None);
        } else {
            server.query(&mut cmd("FLUSHALL"));
            // Without the machine that was down, the store has the revocation.
            until("put back", || !record_in(&server, key_id).is_empty());
            two.run(&config, peppers("6b"), None);
        }
        until("revoked", || two.outcome(&key) == Outcome::InvalidKey);
        one.wait_for_all(2);
        assert_eq!(one.outcome(&key), Outcome::InvalidKey);
        assert!(one.gate.key(key_id).is_none());
    }
}

#[test]
fn expired_key_whose_record_was_used_again_stays_expired() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let one = start_small(folder.path(), "one", &config);
    let (key, key_id) = one.issue();
    one.wait_for_all(1);
    let sealed = record_in(&server, key_id);
    one.gate.expire(key_id, Some(Timestamp::from_unix_s(wall().unix_s() - 5))).unwrap();
    one.wait_for_all(1);
    reuse_record(&one, key_id);
    one.wait_for_all(1);
    assert_eq!(one.refused(), 0);
    write(&server, &key_id.to_string(), &sealed);
    until("refused", || one.refused() == 1);
    let named = format!("an older record of key {key_id}");
    until("named", || one.problem().contains(&named));
    assert_eq!(one.outcome(&key), Outcome::InvalidKey);
    // Another machine cannot know of the end, but its later change of the key holds.
    let two = start_small(folder.path(), "two", &config);
    until("carried", || two.outcome(&key) == Outcome::Admitted);
    for plan in ["pro", "default"] {
        let before = record_in(&server, key_id);
        two.gate.assign(key_id, plan).unwrap();
        until("sent", || record_in(&server, key_id) != before);
    }
    // The record is free after its window, and a change of the gate lets its agent try again.
    let limit = AtomicU64::new(100);
    until("carried", || {
        let policy = format!("{}/second", limit.fetch_add(1, Ordering::Relaxed));
        one.gate.set_plan(&Plan::new("pro", policy.parse().unwrap()).unwrap()).unwrap();
        one.outcome(&key) == Outcome::Admitted
    });
    until("settled", || one.refused() == 0);
}

#[test]
fn two_keys_of_one_record_are_valid_where_they_were_issued() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let mut one = Machine::start(folder.path(), "one", 1, &config);
    one.wait_for_all(1);
    let mut two = Machine::start(folder.path(), "two", 1, &config);
    two.wait_for_all(2);
    one.stop();
    two.stop();
    let (mine, mine_id) = one.issue();
    let (theirs, theirs_id) = two.issue();
    one.run(&config, peppers("6b"), None);
    two.run(&config, peppers("6b"), None);
    for (machine, own, other, other_id) in
        [(&one, &mine, &theirs, theirs_id), (&two, &theirs, &mine, mine_id)]
    {
        until("refused", || machine.refused() == 1);
        assert_eq!(machine.outcome(own), Outcome::Admitted);
        assert_eq!(machine.outcome(other), Outcome::InvalidKey);
        until("a sentence", || machine.problem().contains(&other_id.to_string()));
        assert!(machine.problem().contains(&AdminError::NoRoomToImport.to_string()));
    }
    // Revoked, it needs no record on the other machine.
    two.gate.revoke(theirs_id).unwrap();
    until("settled", || one.refused() == 0);
    assert_eq!(one.problem(), "");
}

#[test]
fn fleet_of_other_gates_or_peppers_is_refused() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let one = Machine::start(folder.path(), "one", 64, &config);
    let (_, _) = one.issue();
    one.wait_for_all(1);
    let error = Machine::start(folder.path(), "two", 96, &config).refusal();
    assert!(error.contains("have 64 records, prefix kt, key day"), "{error}");
    assert!(error.contains("this gate has 96 records"), "{error}");
    let error = Machine::start_with(folder.path(), "three", 64, &config, "6c", None).refusal();
    assert!(error.contains("sealed under other peppers"), "{error}");
    let path = folder.path().join("four.gate");
    let hourly = Plan::new("default", "100/hour".parse().unwrap()).unwrap();
    let other = GateConfig::default().with_keys(64).with_plans(vec![hourly]);
    Gate::create(&path, peppers("6b"), &other).unwrap();
    let error = Machine::start(folder.path(), "four", 64, &config).refusal();
    assert!(error.contains("this gate has 64 records, prefix kt, key hour"), "{error}");
}

#[test]
fn gate_with_keys_of_its_own_is_refused() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let one = Machine::start(folder.path(), "one", 64, &config);
    let (key, key_id) = one.issue();
    one.wait_for_all(1);
    // A gate of the same form, with a key of its own.
    let path = folder.path().join("billing.gate");
    let billing = Gate::create(&path, peppers("6b"), &gate_config(64)).unwrap();
    let (own, own_id) = billing.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap();
    let error = Machine::start(folder.path(), "billing", 64, &config).refusal();
    assert!(error.contains("the fleet test has the keys of another gate"), "{error}");
    assert!(error.contains("name another fleet"), "{error}");
    assert!(billing.key(key_id).is_none());
    assert!(record_in(&server, own_id).is_empty());
    assert_eq!(one.outcome(&own), Outcome::InvalidKey);
    assert_eq!(one.outcome(&key), Outcome::Admitted);
}

#[test]
fn gates_of_one_line_stay_in_their_fleet() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let mut one = Machine::start(folder.path(), "one", 64, &config);
    let (key, _) = one.issue();
    one.wait_for_all(1);
    let path = |name: &str| folder.path().join(name);
    // A copy, without what the agent of the original remembers.
    std::fs::copy(path("one.gate"), path("two.gate")).unwrap();
    let two = Machine::start(folder.path(), "two", 64, &config);
    let (other, _) = two.issue();
    until("carried", || one.outcome(&other) == Outcome::Admitted);
    // A migrated gate has another number, and the same keys.
    one.gate.migrate(path("new.gate"), &MigrationConfig::default().with_keys(128)).unwrap();
    one.stop();
    std::fs::remove_file(path("one.gate.versions")).unwrap();
    std::fs::remove_file(path("one.fleet")).unwrap();
    one.gate = Gate::open(path("one.gate"), peppers("6b")).unwrap();
    one.run(&config, peppers("6b"), None);
    let (third, _) = one.issue();
    until("carried", || two.outcome(&third) == Outcome::Admitted);
    assert_eq!(one.outcome(&key), Outcome::Admitted);
    // Another gate replaces it, next to what the agent remembers.
    one.stop();
    let new = Gate::create(path("new.gate"), peppers("6b"), &gate_config(128)).unwrap();
    let (fourth, _) = new.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap();
    std::fs::rename(path("new.gate"), path("one.gate")).unwrap();
    std::fs::remove_file(path("one.fleet")).unwrap();
    one.gate = Gate::open(path("one.gate"), peppers("6b")).unwrap();
    one.run(&config, peppers("6b"), None);
    until("carried", || two.outcome(&fourth) == Outcome::Admitted);
    until("carried", || one.outcome(&third) == Outcome::Admitted);
}

#[test]
fn stopped_agent_has_not_confirmed_until_its_machine_closes() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = FleetConfig { host: "web 1".to_owned(), ..config(&server.url()) };
    let one = Machine::start(folder.path(), "one", 64, &config);
    let stale_after = Some(Duration::from_secs(6));
    let mut two = Machine::start_with(folder.path(), "two", 64, &config, "6b", stale_after);
    let (_, key_id) = one.issue();
    one.wait_for_all(2);
    let file = FleetFile::open(&one.fleet, &one.gate).unwrap();
    let lacking = || file.lacking_keys().collect::<Vec<_>>();
    assert_eq!(lacking(), <[&str; 0]>::default());
    two.stop();
    one.gate.revoke(key_id).unwrap();
    one.wait_for(1, 2);
    let gate = two.gate.path().unwrap().display().to_string();
    let [text] = &lacking()[..] else { panic!("{:?}", lacking()) };
    assert!(text.starts_with("web_1:"), "{text}");
    assert!(text.contains(&gate) || text.contains("two.gate (no report for"), "{text}");
    // After that time, the machine refuses all keys.
    one.wait_for(1, 1);
    assert_eq!(lacking(), <[&str; 0]>::default());
}

#[test]
fn key_is_put_when_its_plan_is_there() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let one = Machine::start(folder.path(), "one", 64, &config);
    let two = Machine::start(folder.path(), "two", 64, &config);
    let plan = || Plan::new("large", "500/day".parse().unwrap()).unwrap();
    one.gate.set_plan(&plan()).unwrap();
    let new = NewKey::new(7, Name::new("live").unwrap()).with_plan("large");
    let (key, key_id) = one.gate.issue(&new).unwrap();
    until("refused", || two.refused() == 1);
    until("a sentence", || two.problem().contains(&key_id.to_string()));
    one.wait_for(1, 2);
    two.gate.set_plan(&plan()).unwrap();
    // Sooner than all keys are read again.
    until("put", || two.outcome(&key) == Outcome::Admitted);
    one.wait_for_all(2);
}

#[test]
fn revocations_reach_the_other_machine() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = config(&server.url());
    let one = Machine::start(folder.path(), "one", 256, &config);
    let two = Machine::start(folder.path(), "two", 256, &config);
    let keys: Vec<_> = (0..100).map(|_| one.issue()).collect();
    one.wait_for_all(2);
    let mut times: Vec<_> = keys
        .iter()
        .map(|(key, key_id)| {
            one.gate.revoke(*key_id).unwrap();
            let since = now();
            while two.outcome(key) != Outcome::InvalidKey {
                assert!(since.elapsed() < Duration::from_secs(20), "not revoked");
                thread::sleep(Duration::from_micros(200));
            }
            since.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("revoked on the other machine: p50 {:?}, p99 {:?}", times[50], times[98]);
}

#[test]
fn machine_without_the_store_closes_and_opens_again() {
    let (folder, mut server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
    let config = FleetConfig { on_loss: OnLoss::Open, ..config(&server.url()) };
    let stale_after = Some(Duration::from_millis(2500));
    let start = |name| Machine::start_with(folder.path(), name, 4, &config, "6b", stale_after);
    let (one, two) = (start("one"), start("two"));
    let (key, key_id) = one.issue();
    until("carried", || two.outcome(&key) == Outcome::Admitted);
    two.gate.set_fleet(true).unwrap();
    two.gate.join(&two.fleet).unwrap();
    // A cost of 0 verifies the key alone.
    let check = || two.gate.check(Some(key.expose().as_bytes()), 0).outcome();
    assert_eq!(check(), Outcome::Admitted);
    server.kill();
    // Without the store, requests are admitted by --on-loss open, until keys may be out of date.
    until("closed", || check() == Outcome::Unavailable);
    one.gate.revoke(key_id).unwrap();
    server.restart();
    until("open", || check() == Outcome::InvalidKey);
    let (other, _) = one.issue();
    until("admitted", || {
        two.gate.check(Some(other.expose().as_bytes()), 1).outcome() == Outcome::Admitted
    });
}
