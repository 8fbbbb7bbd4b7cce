//! Stores of several servers: a failover by Sentinel, a cluster whose slots move, and grants that
//! replicas confirm.

use alloc::sync::Arc;
use core::cell::OnceCell;
use core::time::Duration;
use std::thread;

use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::plan::layout::{PageWord, Phase, ReplicasState};
use keytally_fleet::{FleetConfig, Machine as _};
use redis::{Value, cmd};

use crate::support::fleet::{Running, admitted, config, most, request};
use crate::support::memory::{Memory, Outcome};
use crate::support::proxy::Proxy;
use crate::support::servers::Server;
use crate::support::time::now;

/// Waits until `is_so`.
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let since = now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(20), "waited for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn info(server: &Server, name: &str) -> String {
    let text: String =
        redis::from_redis_value(server.query(cmd("INFO").arg("replication"))).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// A server and a replica that is in step with it. The replica gets its data by a port.
fn replicated(port_of_primary: impl Fn(&Server) -> u16) -> (Server, Server) {
    let primary = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let port = port_of_primary(&primary).to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]);
    wait("the replica", || info(&replica, "master_link_status") == "up");
    (primary, replica)
}

/// A Sentinel that watches a primary, and how soon it finds it down.
fn sentinel(primary: &Server) -> Server {
    let configuration = tempfile::NamedTempFile::new().unwrap();
    let (_, path) = configuration.keep().unwrap();
    let text = format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 400\n\
         sentinel failover-timeout main 2000\n",
        primary.port
    );
    std::fs::write(&path, text).unwrap();
    Server::start_sentinel(&path)
}

/// A primary with a replica, which gets its data by a proxy, and a Sentinel that knows both.
struct Failover {
    primary: Server,
    replica: Server,
    proxy: Proxy,
    sentinel: Server,
}

impl Failover {
    fn start() -> Self {
        let proxy = OnceCell::new();
        let (primary, replica) =
            replicated(|primary| proxy.get_or_init(|| Proxy::start(primary.port)).port);
        let sentinel = sentinel(&primary);
        // The Sentinel finds replicas by what the primary says about them, in up to ten seconds.
        let knows_replica = || {
            let reply = sentinel.query_by_port(cmd("SENTINEL").arg("replicas").arg("main"));
            matches!(reply, Value::Array(replicas) if !replicas.is_empty())
        };
        wait("the Sentinel to know the replica", knows_replica);
        Self { primary, replica, proxy: proxy.into_inner().unwrap(), sentinel }
    }

    /// From now on, the replica gets nothing, and the connection of the proxy stays open.
    fn cut_replication(&self) {
        self.proxy.faults.drops_replies.store(1, Ordering::Release);
    }

    fn address_of_primary(&self) -> String {
        let mut query = cmd("SENTINEL");
        let reply = self.sentinel.query_by_port(query.arg("get-master-addr-by-name").arg("main"));
        let (host, port): (String, u16) = redis::from_redis_value(reply).unwrap();
        format!("redis://{host}:{port}")
    }
}

/// The replica lacks what the primary granted in its last second.
#[test]
fn failover_that_lost_a_second_admits_nothing_twice() {
    let mut servers = Failover::start();
    let url = format!("redis+sentinel://127.0.0.1:{}/main", servers.sentinel.port);
    let limit = 3000;
    let machines: Vec<_> =
        (0..3).map(|_| Arc::new(Memory::new(2, &format!("{limit}/hour")))).collect();
    let agents: Vec<_> =
        machines.iter().map(|machine| Running::start(machine, &config(&url))).collect();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    let since = now();
    let pause = Duration::from_millis(2);
    request(&machines, 3, 2, pause, || since.elapsed() > Duration::from_millis(800));
    let before = most(&machines);
    servers.cut_replication();
    request(&machines, 3, 2, pause, || since.elapsed() > Duration::from_millis(1800));
    let lost = most(&machines) - before;
    servers.primary.kill();
    let killed = now();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Cut));
    machines.iter().for_each(|machine| machine.wait_for(Phase::Learning));
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    let leading = killed.elapsed();
    assert_eq!(info(&servers.replica, "role"), "master");
    let since = now();
    let is_done = || {
        admitted(&machines).values().all(|&count| count >= limit)
            || since.elapsed() > Duration::from_secs(20)
    };
    request(&machines, 6, 2, Duration::from_micros(100), is_done);
    let end = now() + Duration::from_millis(300);
    request(&machines, 6, 2, Duration::from_millis(1), || now() > end);
    println!("{lost} admitted of one key in the lost second; leading after {leading:?}");
    assert!(lost > 10, "the test lost nothing");
    assert!(admitted(&machines).values().all(|&count| count == limit), "{:?}", admitted(&machines));
    let counts: Vec<_> = agents.into_iter().map(Running::stop).collect();
    assert!(counts.iter().all(|counts| counts.relearned > 0 && counts.renamed == 0), "{counts:?}");
}

/// Grants units of a limit by a counter, as other limiters do. It does not know who has them.
const COUNTER: &str = "
    if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then return 0 end
    redis.call('INCR', KEYS[1])
    return 1";

/// The test before this one would fail with a counter: the scenario is able to show the fault.
#[test]
fn counter_exceeds_the_limit_after_the_same_failover() {
    let mut servers = Failover::start();
    let limit = 3000;
    let granted = AtomicU64::new(0);
    // Requests units from three threads, until `is_done`, or if there is none left.
    let lease = |servers: &Failover, pause: Duration, is_done: &(dyn Fn() -> bool + Sync)| {
        let run = || {
            let mut connection = None;
            while !is_done() {
                let Some(present) = &mut connection else {
                    let client = redis::Client::open(servers.address_of_primary()).unwrap();
                    connection = client.get_connection_with_timeout(Duration::from_secs(1)).ok();
                    thread::sleep(Duration::from_millis(10));
                    continue;
                };
                match cmd("EVAL").arg(COUNTER).arg(1).arg("counter").arg(limit).query(present) {
                    Ok(0) => return,
                    Ok(units) => drop(granted.fetch_add(units, Ordering::AcqRel)),
                    // The replica refuses to write until it is the primary.
                    Err(_) => connection = None,
                }
                thread::sleep(pause);
            }
        };
        thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(run))));
    };
    let (since, pause) = (now(), Duration::from_millis(2));
    lease(&servers, pause, &|| since.elapsed() > Duration::from_millis(800));
    let before = granted.load(Ordering::Acquire);
    servers.cut_replication();
    lease(&servers, pause, &|| since.elapsed() > Duration::from_millis(1800));
    let lost = granted.load(Ordering::Acquire) - before;
    servers.primary.kill();
    lease(&servers, Duration::ZERO, &|| since.elapsed() > Duration::from_secs(30));
    let granted = granted.load(Ordering::Acquire);
    println!("a counter granted {granted} of {limit}, and {lost} in the lost second");
    assert_eq!(info(&servers.replica, "role"), "master");
    assert!(granted > limit, "{granted} of {limit} units were granted");
}

#[test]
fn grants_need_as_many_replicas_as_are_to_confirm() {
    let (primary, mut replica) = replicated(|primary| primary.port);
    let machine = Arc::new(Memory::new(8, "10000/hour"));
    let confirmed = FleetConfig { confirm: 1, ..config(&primary.url()) };
    let agent = Running::start(&machine, &confirmed);
    let lacking =
        || ReplicasState::from_bits(machine.page(PageWord::Replicas).load(Ordering::Acquire));
    machine.wait_for(Phase::Leading);
    machine.admit(0);
    assert_eq!(lacking(), None);
    replica.kill();
    let none = ReplicasState { needed: 1, confirming: 0 };
    wait("the report, without a request", || lacking() == Some(none));
    assert_eq!(machine.check(1), Outcome::Unavailable, "no replica confirms");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(machine.check(1), Outcome::Unavailable, "no replica confirms");
    replica.restart();
    wait("the replica", || info(&replica, "master_link_status") == "up");
    wait("a grant", || machine.check(1) != Outcome::Unavailable);
    assert_eq!(lacking(), None);
    let counts = agent.stop();
    assert!(counts.unconfirmed > 0, "{counts:?}");
}

/// Three primaries, of which the first has all slots.
fn cluster() -> Vec<Server> {
    let arguments = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "2000",
        "--cluster-allow-replica-migration",
        "no",
    ];
    let nodes: Vec<_> = (0..3).map(|_| Server::start(&arguments)).collect();
    for node in &nodes[1..] {
        let mut meet = cmd("CLUSTER");
        nodes[0].query(meet.arg("MEET").arg("127.0.0.1").arg(node.port));
    }
    let slots: Vec<u16> = (0..16384).collect();
    nodes[0].query(cmd("CLUSTER").arg("ADDSLOTS").arg(&slots[..8192]));
    nodes[1].query(cmd("CLUSTER").arg("ADDSLOTS").arg(&slots[8192..]));
    for node in &nodes {
        wait("the cluster", || {
            let text: String =
                redis::from_redis_value(node.query(cmd("CLUSTER").arg("INFO"))).unwrap();
            text.contains("cluster_state:ok") && text.contains("cluster_known_nodes:3")
        });
    }
    nodes
}

fn id(node: &Server) -> String {
    redis::from_redis_value(node.query(cmd("CLUSTER").arg("MYID"))).unwrap()
}

/// Moves a slot with its keys from one node to another, slowly enough for requests in between.
fn move_slot(slot: u16, from: &Server, to: &Server, all: &[Server]) {
    let set = |node: &Server, state: &str, other: &Server| {
        node.query(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(id(other)));
    };
    set(to, "IMPORTING", from);
    set(from, "MIGRATING", to);
    loop {
        let keys = from.query(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(1));
        let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
        let Some(key) = keys.first() else { break };
        let mut migrate = cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(to.port).arg(key).arg(0).arg(1000);
        from.query(&mut migrate);
        thread::sleep(Duration::from_millis(30));
    }
    thread::sleep(Duration::from_millis(100));
    for node in [to, from].into_iter().chain(all) {
        set(node, "NODE", to);
    }
}

/// The node that has the slot has none of its keys, so it names the other one for this request.
#[test]
fn first_request_of_a_slot_that_moves_is_granted() {
    let nodes = cluster();
    let url = format!("redis+cluster://127.0.0.1:{}", nodes[0].port);
    let machine = Arc::new(Memory::new(1, "10000/hour"));
    let agent = Running::start(&machine, &config(&url));
    machine.wait_for(Phase::Leading);
    let slot = nodes[0].query(cmd("CLUSTER").arg("KEYSLOT").arg("{test/k0}"));
    let slot: u16 = redis::from_redis_value(slot).unwrap();
    let from = &nodes[usize::from(slot >= 8192)];
    for (node, state, other) in [(&nodes[2], "IMPORTING", from), (from, "MIGRATING", &nodes[2])] {
        node.query(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(id(other)));
    }
    machine.admit(0);
    let counts = agent.stop();
    assert!(counts.grants > 0 && counts.unanswered == 0, "{counts:?}");
}

#[test]
fn slots_that_move_under_load_admit_nothing_twice() {
    let nodes = cluster();
    let url = format!("redis+cluster://127.0.0.1:{}", nodes[0].port);
    let keys = 6;
    let limit = 2000;
    let policy = format!("{limit}/hour, 5000/day");
    let machines: Vec<_> = (0..3).map(|_| Arc::new(Memory::new(keys, &policy))).collect();
    let agents: Vec<_> =
        machines.iter().map(|machine| Running::start(machine, &config(&url))).collect();
    machines.iter().for_each(|machine| machine.wait_for(Phase::Leading));
    let moved = AtomicU64::new(0);
    let since = now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            for key in 0..keys {
                let name = format!("kt:{{test/k{key}}}:key:3600:0");
                let slot = nodes[0].query(cmd("CLUSTER").arg("KEYSLOT").arg(&name));
                let slot: u16 = redis::from_redis_value(slot).unwrap();
                let from = usize::from(slot >= 8192);
                // To a node that had no slots, then to another one, so that links must be made.
                move_slot(slot, &nodes[from], &nodes[2], &nodes);
                move_slot(slot, &nodes[2], &nodes[1 - from], &nodes);
                moved.fetch_add(2, Ordering::AcqRel);
            }
        });
        let is_done = || {
            let full = admitted(&machines).values().filter(|&&count| count >= limit).count();
            (moved.load(Ordering::Acquire) == u64::from(2 * keys) && full >= 2 * keys as usize)
                || since.elapsed() > Duration::from_secs(25)
        };
        request(&machines, 6, keys, Duration::from_micros(300), is_done);
    });
    let counts: Vec<_> = agents.into_iter().map(Running::stop).collect();
    println!("{} moves, {:?}; {counts:?}", moved.load(Ordering::Acquire), since.elapsed());
    assert_eq!(moved.load(Ordering::Acquire), u64::from(2 * keys));
    for ((tally, index, _), count) in admitted(&machines) {
        assert_eq!(count, limit, "tally {tally}, window {index}");
    }
    assert!(counts.iter().all(|counts| counts.grants > 0), "{counts:?}");
}
