//! Keys that the agents of two machines carry through a real server.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::thread;

use keytally::{
    FleetFile, Gate, GateConfig, Key, KeyId, KeyState, MigrationConfig, Name, NewKey, Outcome,
    Peppers, Plan, Timestamp, now as wall, pepper,
};
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::plan::layout::{KeysState, PageWord};
use keytally_fleet::plan::seal::Seal;
use keytally_fleet::{Agent, FleetConfig, FleetError, KeyCarrier, KeyCounts, OnLoss};
use redis::cmd;

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

fn new_key() -> NewKey<'static> {
    NewKey::new(42, Name::new("live").unwrap())
}

/// A store, and the folder of the machines that use it.
struct Fleet {
    folder: tempfile::TempDir,
    server: Server,
    options: Options,
}

/// What the agents have that start next.
#[derive(Clone)]
struct Options {
    config: FleetConfig,
    peppers: Peppers,
    stale_after: Option<Duration>,
}

/// Starts two machines, whose gates have room for 256 keys each.
fn two_machines() -> (Fleet, Machine, Machine) {
    let fleet = Fleet::new();
    let [one, two] = ["one", "two"].map(|name| fleet.start(name, 256));
    (fleet, one, two)
}

impl Fleet {
    fn new() -> Self {
        let server = Server::start(&[]);
        let (config, peppers) = (config(&server.url()), peppers("6b"));
        let options = Options { config, peppers, stale_after: None };
        Self { folder: tempfile::tempdir().unwrap(), server, options }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a machine whose gate has room for this many keys, if it has none yet.
    fn start(&self, name: &str, keys: u32) -> Machine {
        let (path, options) = (self.path(&format!("{name}.gate")), self.options.clone());
        if !path.exists() {
            Gate::create(&path, options.peppers.clone(), &gate_config(keys)).unwrap();
        }
        let mut machine = Machine {
            gate: Gate::open(&path, options.peppers.clone()).unwrap(),
            fleet: self.path(&format!("{name}.fleet")),
            options,
            stop: alloc::sync::Arc::default(),
            thread: None,
            problem: alloc::sync::Arc::default(),
        };
        machine.run();
        machine
    }

    /// Starts a machine whose gate has two records, which are free soon after their keys ended.
    fn start_small(&self, name: &str) -> Machine {
        let plan = |name| Plan::new(name, "100/second".parse().unwrap()).unwrap();
        let small = gate_config(2).with_plans(vec![plan("default"), plan("pro")]);
        Gate::create(self.path(&format!("{name}.gate")), peppers("6b"), &small).unwrap();
        self.start(name, 2)
    }

    /// Returns the record of a key in the store.
    fn record(&self, key_id: KeyId) -> Vec<u8> {
        let record = self.server.query(cmd("HGET").arg(RECORDS).arg(key_id.to_string()));
        redis::from_redis_value(record).unwrap_or_default()
    }

    /// Writes a record as the scripts do, but without their comparison.
    fn write(&self, field: &str, bytes: &[u8]) {
        let log = format!("{RECORDS}:log");
        let query = |command: &mut redis::Cmd| self.server.query(command);
        let last = query(cmd("ZRANGE").arg(&log).arg(0).arg(0).arg("REV").arg("WITHSCORES"));
        let last: Vec<String> = redis::from_redis_value(last).unwrap();
        let position = last[1].parse::<f64>().unwrap() + 1.0;
        query(cmd("HSET").arg(RECORDS).arg(field).arg(bytes));
        query(cmd("ZADD").arg(&log).arg(position).arg(field));
        query(cmd("PUBLISH").arg("kt:test:keys").arg(""));
    }

    /// Empties the store.
    fn empty(&self) {
        self.server.query(&mut cmd("FLUSHALL"));
    }
}

/// A machine with an agent that carries keys, in a thread.
struct Machine {
    gate: Gate,
    fleet: PathBuf,
    options: Options,
    stop: alloc::sync::Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<Result<KeyCounts, FleetError>>>,
    problem: alloc::sync::Arc<std::sync::Mutex<Option<String>>>,
}

impl Machine {
    /// Starts the agent, of the gate that the machine has now.
    fn run(&mut self) {
        let (path, fleet) = (self.gate.path().unwrap().to_owned(), self.fleet.clone());
        let (stop, problem) = (self.stop.clone(), self.problem.clone());
        let Options { config, peppers, stale_after } = self.options.clone();
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
        self.gate.issue(&new_key()).unwrap()
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
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(20), "not {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn changes_of_keys_are_seen_on_the_other_machine() {
    let (_fleet, one, two) = two_machines();
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
    one.gate.import(foreign, &new_key()).unwrap();
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
    let fleet = Fleet::new();
    let mut one = fleet.start("one", 2048);
    one.stop();
    let keys: Vec<_> = (0..700).map(|_| one.issue()).collect();
    one.gate.revoke(keys[3].1).unwrap();
    one.run();
    // The records of the one are a multiple of those of the other.
    let two = fleet.start("two", 4096);
    one.wait_for_all(2);
    let is_right = |(number, (key, _)): (usize, &(Key, KeyId))| {
        let expected = if number == 3 { Outcome::InvalidKey } else { Outcome::Admitted };
        two.outcome(key) == expected
    };
    until("carried", || keys.iter().enumerate().all(is_right));
}

#[test]
fn change_without_an_agent_is_carried_after_its_start() {
    let (_fleet, one, mut two) = two_machines();
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
    two.run();
    until("carried", || one.outcome(&key) == Outcome::InvalidKey);
    let plan = |machine: &Machine| machine.gate.key(other_id).unwrap().plan;
    until("carried", || plan(&two) == plan(&one));
    assert_eq!(two.outcome(&other), Outcome::Admitted);
}

#[test]
fn hostile_store_changes_no_key() {
    let (fleet, mut one, mut two) = two_machines();
    let (key, key_id) = one.issue();
    let (_, other_id) = one.issue();
    one.wait_for_all(2);
    let sealed = fleet.record(key_id);
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
    bad.push(fleet.record(other_id));
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
        fleet.write(&field, &bytes);
        one.wait_for_all(2);
    }
    // An older record replaces nothing, and is replaced.
    fleet.write(&field, &sealed);
    until("put back", || fleet.record(key_id) != sealed);
    fleet.write("no key id", b"bytes");
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
    let (fleet, mut one, mut two) = two_machines();
    let (_, key_id) = one.issue();
    let (key, other_id) = one.issue();
    one.wait_for_all(2);
    let log = format!("{RECORDS}:log");
    let add = |position: &str, field: &str| {
        fleet.server.query(cmd("ZADD").arg(&log).arg(position).arg(field));
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
    let three = fleet.start("three", 256);
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
    let (_fleet, mut one, two) = two_machines();
    let (first, key_id) = one.issue();
    let (expired, expired_id) = one.issue();
    let (revoked, revoked_id) = one.issue();
    let (_, same_id) = one.issue();
    one.wait_for_all(2);
    let monday = copy(&one, "monday");
    let second = one.gate.rotate(key_id, Duration::ZERO, false).unwrap();
    one.gate.assign(key_id, "pro").unwrap();
    one.gate.assign(key_id, "default").unwrap();
    let past = Timestamp::from_unix_s(wall().unix_s() - 5);
    one.gate.expire(expired_id, Some(past)).unwrap();
    one.gate.revoke(revoked_id).unwrap();
    one.gate.assign(same_id, "pro").unwrap();
    one.wait_for_all(2);
    let tuesday = copy(&one, "tuesday");
    // As on Monday, but it is the newest state.
    one.gate.assign(same_id, "default").unwrap();
    let third = one.gate.rotate(key_id, Duration::ZERO, false).unwrap();
    one.wait_for_all(2);
    for backup in [&monday, &tuesday, &monday] {
        one.stop();
        restore(&mut one, backup);
        one.run();
        until("restored", || one.outcome(&third) == Outcome::Admitted);
        one.wait_for_all(2);
        for machine in [&one, &two] {
            assert_eq!(machine.outcome(&third), Outcome::Admitted);
            for ended in [&first, &second, &expired, &revoked] {
                assert_eq!(machine.outcome(ended), Outcome::InvalidKey);
            }
            assert_eq!(machine.gate.key(same_id).unwrap().plan, 0);
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
    let (fleet, mut one, mut two) = two_machines();
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
    fleet.empty();
    one.run();
    until("withheld", || one.refused() == 1);
    until("a sentence", || one.problem().contains(&key_id.to_string()));
    assert!(one.problem().contains("an older record"), "{}", one.problem());
    assert!(fleet.record(key_id).is_empty());
    // The revocation is remembered.
    until("revoked", || one.outcome(&revoked) == Outcome::InvalidKey);
    assert!(!fleet.record(revoked_id).is_empty());
    two.run();
    until("the newest", || one.outcome(&second) == Outcome::Admitted);
    until("settled", || one.refused() == 0);
    for machine in [&one, &two] {
        assert_eq!(machine.outcome(&first), Outcome::InvalidKey);
        assert_eq!(machine.outcome(&revoked), Outcome::InvalidKey);
    }
}

/// The second machine is a new copy of the older gate, so it writes the older record.
#[test]
fn older_key_never_replaces_the_newest_in_any_order_of_starts() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let fleet = Fleet::new();
        Gate::create(fleet.path("one.gate"), peppers("6b"), &gate_config(64)).unwrap();
        for name in ["two.gate", "three.gate"] {
            std::fs::copy(fleet.path("one.gate"), fleet.path(name)).unwrap();
        }
        let mut machines = ["one", "two", "three"].map(|name| fleet.start(name, 64));
        let (leaked, key_id) = machines[0].issue();
        machines[0].wait_for_all(3);
        let backup = copy(&machines[0], "backup");
        let newest = machines[2].gate.rotate(key_id, Duration::ZERO, false).unwrap();
        machines[2].wait_for_all(3);
        for machine in &mut machines {
            machine.stop();
        }
        restore(&mut machines[0], &backup);
        restore(&mut machines[1], &backup);
        std::fs::remove_file(fleet.path("two.gate.versions")).unwrap();
        fleet.empty();
        for (started, index) in (1..).zip(order) {
            machines[index].run();
            // The machine has read the store, and has written what it writes.
            let confirmed = || machines[index].page(PageWord::KeysCurrent);
            let before = confirmed();
            until("current", || confirmed() > before);
            let lacks_newest = order[..started].iter().all(|other| *other != 2);
            if lacks_newest && order[..started].contains(&0) {
                until("withheld", || machines[0].refused() == 1);
            }
        }
        for machine in &machines {
            until("the newest", || machine.outcome(&newest) == Outcome::Admitted);
            until("settled", || machine.refused() == 0);
            assert_eq!(machine.outcome(&leaked), Outcome::InvalidKey, "{order:?}");
        }
    }
}

/// A key may have been revoked after the copy was made, and the store that has that is lost.
#[test]
fn older_gate_admits_no_key_until_the_store_is_back() {
    for stale_after in [None, Some(Duration::from_secs(300))] {
        let mut fleet = Fleet::new();
        fleet.options.config.on_loss = OnLoss::Open;
        fleet.options.stale_after = stale_after;
        let [mut one, two] = ["one", "two"].map(|name| fleet.start(name, 64));
        let (key, _) = one.issue();
        let (revoked, revoked_id) = one.issue();
        one.gate.set_fleet(true).unwrap();
        one.wait_for_all(2);
        let backup = copy(&one, "backup");
        two.gate.revoke(revoked_id).unwrap();
        two.wait_for_all(2);
        fleet.server.kill();
        for is_running in [false, true] {
            let check = |machine: &Machine, key: &Key| {
                let outcome = machine.gate.check(Some(key.expose().as_bytes()), 1).outcome();
                (outcome, machine.page(PageWord::KeysClose))
            };
            if is_running {
                // The gate is written over while its agent runs.
                let bytes = std::fs::read(&backup).unwrap();
                let gate = std::fs::OpenOptions::new().write(true).open(fleet.path("one.gate"));
                std::os::unix::fs::FileExt::write_all_at(&gate.unwrap(), &bytes, 0).unwrap();
            } else {
                one.stop();
                restore(&mut one, &backup);
                one.run();
            }
            one.gate.join(&one.fleet).ok();
            until("closed", || check(&one, &key) == (Outcome::Unavailable, 1));
            assert_eq!(check(&one, &revoked).0, Outcome::Unavailable);
            fleet.server.restart();
            until("open", || check(&one, &key).0 == Outcome::Admitted);
            assert_eq!(check(&one, &revoked).0, Outcome::InvalidKey);
            let close_ms = check(&one, &key).1;
            assert_eq!(close_ms > 1, stale_after.is_some(), "{close_ms}");
            one.wait_for_all(2);
            fleet.server.kill();
            until("lost", || one.problem().contains("store"));
            assert_eq!(check(&one, &key).0, Outcome::Admitted, "it is not older any more");
        }
    }
}

#[test]
fn emptied_store_gets_all_keys_again() {
    let fleet = Fleet::new();
    let one = fleet.start("one", 64);
    let (key, key_id) = one.issue();
    let (_, revoked_id) = one.issue();
    one.gate.revoke(revoked_id).unwrap();
    one.wait_for_all(1);
    fleet.empty();
    until("put back", || [key_id, revoked_id].iter().all(|id| !fleet.record(*id).is_empty()));
    let two = fleet.start("two", 64);
    until("carried", || two.outcome(&key) == Outcome::Admitted);
    assert!(two.gate.key(revoked_id).is_none(), "a revoked key takes no record");
}

/// Issues keys on a machine until one of them has the record of an ended key, and revokes them.
fn reuse_record(machine: &Machine, key_id: KeyId) {
    until("used again", || {
        // The records are full until their windows have passed.
        drop(machine.gate.issue(&new_key()));
        machine.gate.key(key_id).is_none()
    });
    for info in machine.gate.list() {
        machine.gate.revoke(info.key_id).unwrap();
    }
}

/// The gate has forgotten the key, but its agent has not.
#[test]
fn revoked_key_whose_record_was_used_again_stays_revoked() {
    let fleet = Fleet::new();
    let [mut one, mut two] = ["one", "two"].map(|name| fleet.start_small(name));
    let (key, key_id) = one.issue();
    one.wait_for_all(2);
    let sealed = fleet.record(key_id);
    one.gate.revoke(key_id).unwrap();
    one.wait_for_all(2);
    reuse_record(&one, key_id);
    one.wait_for_all(2);
    let revoked = fleet.record(key_id);
    for round in 0..2 {
        // The other machine's gate has the key, and its agent would write the revocation.
        two.stop();
        fleet.write(&key_id.to_string(), &sealed);
        until("revoked in the store", || fleet.record(key_id) == revoked);
        until("named", || one.problem().contains(&key_id.to_string()));
        assert_eq!(one.refused(), 1);
        two.run();
        one.wait_for_all(2);
        for machine in [&one, &two] {
            assert_eq!(machine.outcome(&key), Outcome::InvalidKey, "round {round}");
        }
        assert!(one.gate.key(key_id).is_none());
        // What an agent remembers is in its file.
        assert!(one.stop().older > 0);
        one.run();
        one.wait_for_all(2);
        assert_eq!(one.refused(), 0);
    }
}

#[test]
fn emptied_store_revokes_former_keys_on_a_machine_that_was_down() {
    for is_first_back in [true, false] {
        let fleet = Fleet::new();
        let [mut one, mut two] = ["one", "two"].map(|name| fleet.start_small(name));
        let (key, key_id) = one.issue();
        one.wait_for_all(2);
        two.stop();
        one.gate.revoke(key_id).unwrap();
        one.wait_for(1, 2);
        reuse_record(&one, key_id);
        one.wait_for(1, 2);
        if is_first_back {
            one.stop();
            fleet.empty();
            two.run();
            // The store gets the key, valid, from the machine that was down.
            until("valid", || !fleet.record(key_id).is_empty());
            one.run();
        } else {
            fleet.empty();
            // Without the machine that was down, the store has the revocation.
            until("put back", || !fleet.record(key_id).is_empty());
            two.run();
        }
        until("revoked", || two.outcome(&key) == Outcome::InvalidKey);
        one.wait_for_all(2);
        assert_eq!(one.outcome(&key), Outcome::InvalidKey);
        assert!(one.gate.key(key_id).is_none());
    }
}

#[test]
fn expired_key_whose_record_was_used_again_stays_expired() {
    let fleet = Fleet::new();
    let one = fleet.start_small("one");
    let (key, key_id) = one.issue();
    one.wait_for_all(1);
    let sealed = fleet.record(key_id);
    one.gate.expire(key_id, Some(Timestamp::from_unix_s(wall().unix_s() - 5))).unwrap();
    one.wait_for_all(1);
    reuse_record(&one, key_id);
    one.wait_for_all(1);
    assert_eq!(one.refused(), 0);
    fleet.write(&key_id.to_string(), &sealed);
    until("refused", || one.refused() == 1);
    let named = format!("an older record of key {key_id}");
    until("named", || one.problem().contains(&named));
    assert_eq!(one.outcome(&key), Outcome::InvalidKey);
    // Another machine cannot know of the end, but its later change of the key holds.
    let two = fleet.start_small("two");
    until("carried", || two.outcome(&key) == Outcome::Admitted);
    for plan in ["pro", "default"] {
        let before = fleet.record(key_id);
        two.gate.assign(key_id, plan).unwrap();
        until("sent", || fleet.record(key_id) != before);
    }
    // The record is free after its window, and a change of the gate lets its agent try again. The
    // gate has two records, by the first bit of the key id: the changed key has the other one.
    let changed_id = loop {
        let Ok((_, issued_id)) = one.gate.issue(&new_key()) else { continue };
        if issued_id.number() >> 63 != key_id.number() >> 63 {
            break issued_id;
        }
        one.gate.revoke(issued_id).unwrap();
    };
    let mut plans = ["pro", "default"].iter().cycle();
    until("carried", || {
        one.gate.assign(changed_id, plans.next().unwrap()).unwrap();
        one.outcome(&key) == Outcome::Admitted
    });
    until("settled", || one.refused() == 0);
}

#[test]
fn two_keys_of_one_record_are_valid_where_they_were_issued() {
    let fleet = Fleet::new();
    let mut one = fleet.start("one", 1);
    one.wait_for_all(1);
    let mut two = fleet.start("two", 1);
    two.wait_for_all(2);
    one.stop();
    two.stop();
    let (mine, mine_id) = one.issue();
    let (theirs, theirs_id) = two.issue();
    one.run();
    two.run();
    for (machine, own, other, other_id) in
        [(&one, &mine, &theirs, theirs_id), (&two, &theirs, &mine, mine_id)]
    {
        until("refused", || machine.refused() == 1);
        assert_eq!(machine.outcome(own), Outcome::Admitted);
        assert_eq!(machine.outcome(other), Outcome::InvalidKey);
        until("a sentence", || machine.problem().contains(&other_id.to_string()));
        let why = "another key has its record; revoke one of the two, and issue another key";
        assert!(machine.problem().contains(why), "{}", machine.problem());
    }
    // Revoked, it needs no record on the other machine.
    two.gate.revoke(theirs_id).unwrap();
    until("settled", || one.refused() == 0);
    assert_eq!(one.problem(), "");
}

#[test]
fn fleet_of_other_gates_or_peppers_is_refused() {
    let mut fleet = Fleet::new();
    let one = fleet.start("one", 64);
    one.issue();
    one.wait_for_all(1);
    let error = fleet.start("two", 96).refusal();
    assert!(error.contains("have 64 records, prefix kt, key day"), "{error}");
    assert!(error.contains("this gate has 96 records"), "{error}");
    let hourly = Plan::new("default", "100/hour".parse().unwrap()).unwrap();
    let other = gate_config(64).with_plans(vec![hourly]);
    Gate::create(fleet.path("three.gate"), peppers("6b"), &other).unwrap();
    let error = fleet.start("three", 64).refusal();
    assert!(error.contains("this gate has 64 records, prefix kt, key hour"), "{error}");
    fleet.options.peppers = peppers("6c");
    let error = fleet.start("four", 64).refusal();
    assert!(error.contains("sealed under other peppers"), "{error}");
}

#[test]
fn overwritten_description_of_the_gates_is_written_again() {
    let (fleet, mut one, two) = two_machines();
    one.issue();
    one.wait_for_all(2);
    let write = |bytes: &[u8]| fleet.server.query(cmd("HSET").arg(RECORDS).arg("gate").arg(bytes));
    for junk in [&b"junk"[..], b"x", b"\x04\x03abc", b"", &[b'0'; 99]] {
        write(junk);
        let (key, _) = one.issue();
        until("carried", || two.outcome(&key) == Outcome::Admitted);
    }
    // What has the form of a description may be that of another fleet.
    let seal =
        |byte| Seal::new("test", &peppers(byte)).seal_text("gate", "of another one").unwrap();
    let other = seal("6c");
    write(&other);
    let error = fleet.start("three", 256).refusal();
    assert!(error.contains("hdel 'kt:{test/keys}' gate"), "{error}");
    until("a sentence", || one.problem().contains("sealed under other peppers"));
    let stored = fleet.server.query(cmd("HGET").arg(RECORDS).arg("gate"));
    assert_eq!(redis::from_redis_value::<Vec<u8>>(stored).unwrap(), *other);
    fleet.server.query(cmd("HDEL").arg(RECORDS).arg("gate"));
    until("no problem", || one.problem().is_empty());
    assert!(one.stop().unsealed > 0);
}

#[test]
fn gate_with_keys_of_its_own_is_refused() {
    let fleet = Fleet::new();
    let one = fleet.start("one", 64);
    let (key, key_id) = one.issue();
    one.wait_for_all(1);
    // A gate of the same form, with a key of its own.
    let path = fleet.path("billing.gate");
    let billing = Gate::create(&path, peppers("6b"), &gate_config(64)).unwrap();
    let (own, own_id) = billing.issue(&new_key()).unwrap();
    let error = fleet.start("billing", 64).refusal();
    assert!(error.contains("the fleet test has the keys of another gate"), "{error}");
    assert!(error.contains("name another fleet"), "{error}");
    assert!(billing.key(key_id).is_none());
    assert!(fleet.record(own_id).is_empty());
    assert_eq!(one.outcome(&own), Outcome::InvalidKey);
    assert_eq!(one.outcome(&key), Outcome::Admitted);
}

#[test]
fn gates_of_one_line_stay_in_their_fleet() {
    let fleet = Fleet::new();
    let mut one = fleet.start("one", 64);
    let (key, _) = one.issue();
    one.wait_for_all(1);
    // A copy, without what the agent of the original remembers.
    std::fs::copy(fleet.path("one.gate"), fleet.path("two.gate")).unwrap();
    let two = fleet.start("two", 64);
    let (other, _) = two.issue();
    until("carried", || one.outcome(&other) == Outcome::Admitted);
    // A migrated gate has another number, and the same keys.
    one.gate.migrate(fleet.path("new.gate"), &MigrationConfig::default().with_keys(128)).unwrap();
    one.stop();
    std::fs::remove_file(fleet.path("one.gate.versions")).unwrap();
    std::fs::remove_file(fleet.path("one.fleet")).unwrap();
    one.gate = Gate::open(fleet.path("one.gate"), peppers("6b")).unwrap();
    one.run();
    let (third, _) = one.issue();
    until("carried", || two.outcome(&third) == Outcome::Admitted);
    assert_eq!(one.outcome(&key), Outcome::Admitted);
    // Another gate replaces it, next to what the agent remembers.
    one.stop();
    let new = Gate::create(fleet.path("new.gate"), peppers("6b"), &gate_config(128)).unwrap();
    let (fourth, _) = new.issue(&new_key()).unwrap();
    std::fs::rename(fleet.path("new.gate"), fleet.path("one.gate")).unwrap();
    std::fs::remove_file(fleet.path("one.fleet")).unwrap();
    one.gate = Gate::open(fleet.path("one.gate"), peppers("6b")).unwrap();
    one.run();
    until("carried", || two.outcome(&fourth) == Outcome::Admitted);
    until("carried", || one.outcome(&third) == Outcome::Admitted);
}

#[test]
fn stopped_agent_has_not_confirmed_until_its_machine_closes() {
    let mut fleet = Fleet::new();
    fleet.options.config.host = "web 1".to_owned();
    let one = fleet.start("one", 64);
    fleet.options.stale_after = Some(Duration::from_secs(10));
    let mut two = fleet.start("two", 64);
    let (_, key_id) = one.issue();
    one.wait_for_all(2);
    let file = one.file();
    let lacking = || file.lacking_keys().collect::<Vec<_>>();
    assert_eq!(lacking(), <[&str; 0]>::default());
    two.stop();
    // It has all changes, but does not report that any more.
    until("lacking", || {
        let found = file.wait_for_keys(Duration::from_millis(20)).unwrap();
        found.is_some_and(|found| (found.confirmed, found.agents) == (1, 2))
    });
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
    let (_fleet, one, two) = two_machines();
    let plan = || Plan::new("large", "500/day".parse().unwrap()).unwrap();
    one.gate.set_plan(&plan()).unwrap();
    let (key, key_id) = one.gate.issue(&new_key().with_plan("large")).unwrap();
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
    let (_fleet, one, two) = two_machines();
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
    let mut fleet = Fleet::new();
    fleet.options.config.on_loss = OnLoss::Open;
    fleet.options.stale_after = Some(Duration::from_millis(2500));
    let [one, two] = ["one", "two"].map(|name| fleet.start(name, 4));
    let (key, key_id) = one.issue();
    until("carried", || two.outcome(&key) == Outcome::Admitted);
    two.gate.set_fleet(true).unwrap();
    two.gate.join(&two.fleet).unwrap();
    // A cost of 0 verifies the key alone.
    let check = || two.gate.check(Some(key.expose().as_bytes()), 0).outcome();
    assert_eq!(check(), Outcome::Admitted);
    fleet.server.kill();
    // Without the store, requests are admitted by --on-loss open, until keys may be out of date.
    until("closed", || check() == Outcome::Unavailable);
    one.gate.revoke(key_id).unwrap();
    fleet.server.restart();
    until("open", || check() == Outcome::InvalidKey);
    let (other, _) = one.issue();
    until("admitted", || {
        two.gate.check(Some(other.expose().as_bytes()), 1).outcome() == Outcome::Admitted
    });
}
