//! The store: finds its primaries, and exchanges lease requests for replies.

use core::ops::RangeInclusive;

use keytally::FleetLimiterInfo;
use keytally_core::{MAX_QUOTAS, Window};
use keytally_fleet_plan::credit::CreditLayout;
use keytally_fleet_plan::flow::MOST_IN_FLIGHT;
use keytally_fleet_plan::lease::LEARNING_MS;
use keytally_fleet_plan::request::{LEASE_SCRIPT, LeaseRequest, MOST_RECALLS, Reply, WindowReply};
use redis::{Cmd, ServerError, Value, cmd};

use crate::address::{Endpoint, Topology};
use crate::clock::Steady;
use crate::config::{FleetConfig, StoreConfig};
use crate::connection::{Access, Connection, explained, text};
use crate::error::FleetError;
use crate::machine::Subject;
use crate::names::{channels, write_key};
use crate::sentinel;
use crate::server::Server;
use crate::slots::{SlotMap, redirection, slot};

/// The most lease requests of one pipeline.
pub const PIPELINE: usize = MOST_IN_FLIGHT as usize;

/// How often a lease request is sent again that a server did not execute: it lacked the script, or
/// the slot has moved.
const ROUNDS: usize = 5;

/// For how many milliseconds the replicas may take to confirm a pipeline.
pub const CONFIRM_MS: u32 = 50;

/// A lease request, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'c> {
    pub(crate) subject: &'c str,
    pub(crate) layout: &'c CreditLayout,
    pub(crate) request: &'c LeaseRequest,
}

/// What came of a pipeline.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The reply to each call, or why the store could not execute this one. Without either, the
    /// store may or may not have applied the request.
    pub(crate) replies: Vec<Option<Result<Reply, String>>>,
    /// The calls that too few replicas have confirmed. They have no reply.
    pub(crate) unconfirmed: usize,
    /// The least replicas that have confirmed the calls of a primary. `None` if none had to.
    pub(crate) confirming: Option<u32>,
    /// Why the store must be connected again.
    pub(crate) problem: Option<FleetError>,
}

/// A connection to a primary, with the digest of the script.
#[derive(Debug)]
struct Link {
    connection: Connection,
    digest: String,
    identity: u64,
}

/// The connections to all primaries of the store.
#[derive(Debug)]
pub(crate) struct Store {
    access: Access,
    allows_eviction: bool,
    fleet: String,
    links: Vec<Link>,
    /// In a cluster; its primaries are those of `links`, in the same order.
    slots: Option<SlotMap>,
}

/// A call that is to be sent to a link, perhaps to a node that only imports its slot.
#[derive(Clone, Copy, Debug)]
struct Pending {
    call: usize,
    is_importing: bool,
}

impl Store {
    /// Connects to all primaries.
    pub(crate) fn connect(config: &FleetConfig) -> Result<Self, FleetError> {
        let access = Access::of_servers(&config.store)?;
        let mut store = Self {
            access,
            allows_eviction: config.store.allow_eviction,
            fleet: config.name.clone(),
            links: Vec::new(),
            slots: None,
        };
        if let Topology::Cluster(nodes) = &config.store.url.topology {
            let map = store.map(nodes)?;
            for primary in &map.primaries {
                let link = store.link(primary, true)?;
                store.links.push(link);
            }
            store.slots = Some(map);
        } else {
            let primary = find(&config.store)?;
            let link = store.link(&primary, false)?;
            store.links.push(link);
        }
        Ok(store)
    }

    /// Returns a hash of all primaries, in any order. It differs after a restart or a failover.
    pub(crate) fn identity(&self) -> u64 {
        self.links.iter().fold(0, |all, link| all ^ link.identity).max(1)
    }

    /// Returns the connection to the primary that has a key.
    pub(crate) fn connection_of(&mut self, key: &str) -> Result<&mut Connection, FleetError> {
        let lost = || FleetError::lost("the cluster has no such slot");
        let link = match &self.slots {
            None => 0,
            Some(map) => map.primary_of(slot(key)).ok_or_else(lost)?,
        };
        Ok(&mut self.links.get_mut(link).ok_or_else(lost)?.connection)
    }

    /// Returns the store's time in milliseconds. All primaries must answer.
    pub(crate) fn time(&mut self) -> Result<u64, FleetError> {
        let mut time = None;
        for link in &mut self.links {
            let reply = link.connection.query(&cmd("TIME"))?;
            let read = parse_time(&reply);
            time = time.or(Some(read.ok_or_else(|| link.connection.unintelligible("TIME"))?));
        }
        time.ok_or_else(|| FleetError::lost("the store has no primary"))
    }

    /// Returns how many replicas the primary with the fewest has.
    pub(crate) fn replicas(&mut self) -> Result<u32, FleetError> {
        let mut least = u32::MAX;
        for link in &mut self.links {
            // With no replica to wait for, the reply comes immediately.
            let reply = link.connection.query(cmd("WAIT").arg(0).arg(CONFIRM_MS))?;
            let replicas = parse_replicas(&reply);
            least = least.min(replicas.ok_or_else(|| link.connection.unintelligible("WAIT"))?);
        }
        Ok(least)
    }

    /// Refuses a user without a right that an agent needs, and names all that lack.
    pub(crate) fn verify_rights(&mut self, confirm: u32) -> Result<(), FleetError> {
        let is_cluster = self.slots.is_some();
        let key = format!("kt:{{{}/rights}}", self.fleet);
        let channel = format!("{}:rights", channels(&self.fleet));
        let commands = right_commands(&key, &channel, confirm > 0, is_cluster);
        let mut subscribe = cmd("SUBSCRIBE");
        subscribe.arg(&channel);
        let subscribe = [subscribe];
        for link in &mut self.links {
            let mut lacking = link.connection.lacking_rights(&commands)?;
            // A connection that has subscribed cannot send other commands.
            let mut other = Connection::open(link.connection.endpoint(), &self.access)?;
            lacking.extend(other.lacking_rights(&subscribe)?);
            lacking.sort_unstable();
            lacking.dedup();
            let endpoint = link.connection.endpoint();
            if !lacking.is_empty() {
                let lacking = lacking.join(" ");
                return Err(FleetError::refused(format!(
                    "the store at {endpoint} gives the agent's user too few rights: it lacks \
                     {lacking}"
                )));
            }
        }
        Ok(())
    }

    /// Sends lease requests of a machine, and receives their replies. At least `confirm` replicas
    /// must have each of them.
    pub(crate) fn exchange(&mut self, machine: &str, calls: &[Call<'_>], confirm: u32) -> Exchange {
        let mut exchange = Exchange {
            replies: vec![None; calls.len()],
            unconfirmed: 0,
            confirming: None,
            problem: None,
        };
        let mut pending: Vec<Vec<Pending>> = vec![Vec::new(); self.links.len()];
        for (call, wanted) in calls.iter().enumerate() {
            match self.link_of(wanted).and_then(|link| pending.get_mut(link)) {
                Some(pending) => pending.push(Pending { call, is_importing: false }),
                None => exchange.problem = Some(FleetError::lost("the cluster has no such slot")),
            }
        }
        for _ in 0..ROUNDS {
            if exchange.problem.is_some() || pending.iter().all(Vec::is_empty) {
                break;
            }
            match self.round(machine, calls, confirm, &pending, &mut exchange) {
                Ok(next) => pending = next,
                Err(problem) => exchange.problem = Some(problem),
            }
        }
        exchange
    }

    /// Sends and receives once. Returns what must be sent again, for each link.
    fn round(
        &mut self,
        machine: &str,
        calls: &[Call<'_>],
        confirm: u32,
        pending: &[Vec<Pending>],
        exchange: &mut Exchange,
    ) -> Result<Vec<Vec<Pending>>, FleetError> {
        let since = Steady::start();
        let mut bytes = Vec::new();
        for (link, pending) in self.links.iter_mut().zip(pending) {
            if pending.is_empty() {
                continue;
            }
            bytes.clear();
            for pending in pending {
                if pending.is_importing {
                    cmd("ASKING").write_packed_command(&mut bytes);
                }
                command(&link.digest, &self.fleet, machine, &calls[pending.call])
                    .write_packed_command(&mut bytes);
            }
            if confirm > 0 {
                cmd("WAIT").arg(confirm).arg(CONFIRM_MS).write_packed_command(&mut bytes);
            }
            link.connection.send(&bytes)?;
        }
        let mut again: Vec<(Redirection, Pending)> = Vec::new();
        for (index, pending) in pending.iter().enumerate().filter(|(_, all)| !all.is_empty()) {
            let link = &mut self.links[index];
            let mut lacks_script = false;
            for pending in pending {
                if pending.is_importing {
                    link.connection.receive(&since)?;
                }
                let value = link.connection.receive(&since)?;
                let redirection = match value {
                    Value::ServerError(error) => match error.code() {
                        "NOSCRIPT" => {
                            lacks_script = true;
                            Some(Redirection::Same(index))
                        }
                        "MOVED" | "ASK" => {
                            let detail = error.details().unwrap_or_default();
                            let sender = link.connection.endpoint();
                            let is_moved = error.code() == "MOVED";
                            let (slot, node) = redirection(detail, sender)
                                .ok_or_else(|| link.connection.unintelligible("EVALSHA"))?;
                            Some(Redirection::Node { node, moved: is_moved.then_some(slot) })
                        }
                        // While a slot moves, it may have only some of the windows.
                        "TRYAGAIN" => None,
                        _ if is_of_one_call(&error) => {
                            exchange.replies[pending.call] = Some(Err(sentence(&error)));
                            None
                        }
                        _ => return Err(explained(link.connection.endpoint(), &error.into())),
                    },
                    value => {
                        let Value::Array(_) = value else {
                            return Err(link.connection.unintelligible("EVALSHA"));
                        };
                        let reply = parse_reply(&value, calls[pending.call].request);
                        exchange.replies[pending.call] = Some(reply.ok_or_else(|| {
                            "its counts are not numbers of units in a window".to_owned()
                        }));
                        None
                    }
                };
                if let Some(redirection) = redirection {
                    again.push((redirection, *pending));
                }
            }
            if confirm > 0 {
                let replicas = match link.connection.receive(&since)? {
                    Value::ServerError(error) => {
                        return Err(explained(link.connection.endpoint(), &error.into()));
                    }
                    value => parse_replicas(&value)
                        .ok_or_else(|| link.connection.unintelligible("WAIT"))?,
                };
                exchange.confirming = Some(replicas.min(exchange.confirming.unwrap_or(u32::MAX)));
                for pending in pending.iter().filter(|_| replicas < confirm) {
                    let reply = &mut exchange.replies[pending.call];
                    exchange.unconfirmed += usize::from(reply.take_if(|it| it.is_ok()).is_some());
                }
            }
            if lacks_script {
                link.digest = link.connection.load(LEASE_SCRIPT)?;
            }
        }
        let mut next = vec![Vec::new(); self.links.len()];
        for (redirection, pending) in again {
            let (link, is_importing) = match redirection {
                Redirection::Same(link) => (link, pending.is_importing),
                Redirection::Node { node, moved } => {
                    (self.redirected(node, moved)?, moved.is_none())
                }
            };
            next.resize(self.links.len(), Vec::new());
            next[link].push(Pending { is_importing, ..pending });
        }
        Ok(next)
    }

    /// Returns the key that makes the store refuse a lease request, and when its window ends. If
    /// none is found, it is that of the first window.
    pub(crate) fn unusable_key(
        &mut self,
        machine: &str,
        call: &Call<'_>,
    ) -> Result<(String, u64), FleetError> {
        let fleet = self.fleet.clone();
        let windows = call.layout.windows().iter().zip(call.request.windows());
        let keys: Vec<(String, u64)> = windows
            .map(|(window, wanted)| {
                let mut key = String::new();
                write_key(&mut key, &fleet, call.subject, *window, wanted.begin_ms);
                (key, wanted.end_ms)
            })
            .collect();
        let first = keys.first().cloned().unwrap_or_default();
        let connection = self.connection_of(&first.0)?;
        let since = Steady::start();
        let ordered = |key: &str| format!("{key}:ordered");
        let mut bytes = Vec::new();
        for (key, _) in &keys {
            cmd("HMGET").arg(key).arg(&FIELDS).arg(machine).write_packed_command(&mut bytes);
            cmd("ZRANGE").arg(ordered(key)).arg(0).arg(0).write_packed_command(&mut bytes);
        }
        connection.send(&bytes)?;
        let mut unusable = None;
        for (key, end_ms) in keys {
            let is_usable = match connection.receive(&since)? {
                Value::Array(values) => (0..).zip(&values).all(|it| is_count(it.0, it.1)),
                _ => false,
            };
            let is_ordered = matches!(connection.receive(&since)?, Value::Array(_));
            let key = if is_usable { ordered(&key) } else { key };
            if !(is_usable && is_ordered) && unusable.is_none() {
                unusable = Some((key, end_ms));
            }
        }
        Ok(unusable.unwrap_or(first))
    }

    /// Returns the link to a node that has a slot, or imports it.
    fn redirected(&mut self, node: Endpoint, moved: Option<u16>) -> Result<usize, FleetError> {
        let Some(map) = &mut self.slots else {
            return Err(FleetError::refused(
                "the store is a cluster: write `redis+cluster://HOST`",
            ));
        };
        let index = map.primary(node.clone());
        if let Some(slot) = moved {
            map.moved(slot, index);
        }
        if index == self.links.len() {
            let link = self.link(&node, true)?;
            self.links.push(link);
        }
        Ok(index)
    }

    fn link_of(&self, call: &Call<'_>) -> Option<usize> {
        let Some(map) = &self.slots else { return Some(0) };
        let mut key = String::new();
        let (window, begin_ms) = (call.layout.windows().first()?, 0);
        write_key(&mut key, &self.fleet, call.subject, *window, begin_ms);
        map.primary_of(slot(&key))
    }

    /// Connects to a primary, refuses it if it is unsuitable, and loads the script.
    fn link(&self, endpoint: &Endpoint, is_cluster: bool) -> Result<Link, FleetError> {
        let mut connection = Connection::open(endpoint, &self.access)?;
        let mut info = String::new();
        for section in ["server", "replication", "memory"] {
            let reply = connection.query(cmd("INFO").arg(section))?;
            info += &text(&reply).ok_or_else(|| connection.unintelligible("INFO"))?;
        }
        let server = Server::parse(&info);
        server.verify(is_cluster, self.allows_eviction)?;
        let digest = connection.load(LEASE_SCRIPT)?;
        Ok(Link { connection, digest, identity: server.identity() })
    }

    /// Queries the nodes one after the other, until one returns the primaries of all slots.
    fn map(&self, nodes: &[Endpoint]) -> Result<SlotMap, FleetError> {
        let mut problem = FleetError::refused("the store's URL names no node");
        for node in nodes {
            let map = Connection::open(node, &self.access).and_then(|mut connection| {
                let reply = connection.query(cmd("CLUSTER").arg("SLOTS"))?;
                let map = SlotMap::parse(&reply, node)
                    .ok_or_else(|| connection.unintelligible("CLUSTER SLOTS"))?;
                let lacks = FleetError::lost("the cluster has slots without a primary");
                if map.is_complete() { Ok(map) } else { Err(lacks) }
            });
            match map {
                Ok(map) => return Ok(map),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }
}

/// Returns one command for each right that an agent needs and has not used at its start. None of
/// them changes a key: those that write have no such key, or an argument that is refused after the
/// right was examined.
fn right_commands(key: &str, channel: &str, confirms: bool, is_cluster: bool) -> Vec<Cmd> {
    let no_script = "0".repeat(40);
    let mut commands: Vec<Vec<&str>> = vec![
        vec!["EVALSHA", &no_script, "1", key],
        vec!["HMGET", key, "field"],
        vec!["HSET", key, "field", "1", "field without a value"],
        vec!["HGETALL", key],
        vec!["HDEL", key, "field"],
        vec!["PEXPIREAT", key, "1"],
        vec!["ZADD", key, "no number", "member"],
        vec!["ZRANGE", key, "0", "0"],
        vec!["ZREM", key, "member"],
        vec!["PUBLISH", channel, ""],
    ];
    if confirms {
        commands.push(vec!["WAIT", "0", "1"]);
    }
    if is_cluster {
        commands.push(vec!["ASKING"]);
    }
    commands.push(vec!["PING"]);
    commands
        .into_iter()
        .map(|arguments| {
            let mut command = Cmd::new();
            command.arg(arguments);
            command
        })
        .collect()
}

/// Reads the reply of `WAIT`.
fn parse_replicas(value: &Value) -> Option<u32> {
    match value {
        Value::Int(replicas) => u32::try_from(*replicas).ok(),
        _ => None,
    }
}

/// The fields of a window's hash that the script reads, without that of the machine.
const FIELDS: [&str; 4] = ["t", "n", "x", "w"];

/// The largest number in a field.
const MOST_COUNT: u64 = 1 << 53;

/// The numbers of machines that a hash may have.
const MACHINES: RangeInclusive<u64> = 1..=(1 << 31) - 2;

/// Returns whether the field at `index`, one of [`FIELDS`] or the machine's, has no value, or one
/// that the script accepts.
fn is_count(index: usize, value: &Value) -> bool {
    let is_machines = FIELDS.get(index) == Some(&"n");
    let range = if is_machines { MACHINES } else { 0..=MOST_COUNT };
    let number = || text(value)?.parse().ok();
    *value == Value::Nil || number().is_some_and(|number| range.contains(&number))
}

/// Returns whether an error of the script is one of this call's keys, and not one of the store.
/// A key has another type, or the script cannot compute with its values.
fn is_of_one_call(error: &ServerError) -> bool {
    let detail = error.details().unwrap_or_default();
    let is_of_script = detail.contains("user_script");
    // Redis 6 has the error's code in the detail.
    error.code() == "WRONGTYPE"
        || (is_of_script
            && ["WRONGTYPE", "attempt to", "not a count"].iter().any(|it| detail.contains(it)))
}

/// Returns an error of the script as text.
fn sentence(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

/// The script by which machines compare their limiters.
const LIMITER_SCRIPT: &str = include_str!("limiter.lua");

/// For how many milliseconds the store keeps the properties that a machine has stated.
const STATED_MS: u64 = 10_000;

impl Store {
    /// States the properties of this machine's limiter, and compares them with those that another
    /// machine has stated. Limits may differ while they are changed on one machine after the other,
    /// so they are compared only when an agent starts.
    ///
    /// # Errors
    /// [`FleetError::Refused`] if the limiters differ: each machine would count its subjects alone.
    pub(crate) fn state(
        &mut self,
        limiter: &FleetLimiterInfo,
        is_start: bool,
    ) -> Result<(), FleetError> {
        let FleetLimiterInfo { file, id, tallies, policy, .. } = limiter;
        let (id, tallies) = (format!("{id:016x}"), tallies.to_string());
        let key = format!("kt:{{{}/limiter.{file}}}:table", self.fleet);
        let lost = || FleetError::lost("the cluster has no such slot");
        let link = match &self.slots {
            None => 0,
            Some(map) => map.primary_of(slot(&key)).ok_or_else(lost)?,
        };
        let connection = &mut self.links.get_mut(link).ok_or_else(lost)?.connection;
        let digest = connection.load(LIMITER_SCRIPT)?;
        let mut command = cmd("EVALSHA");
        command.arg(digest).arg(1).arg(&key).arg(&id).arg(&tallies).arg(policy);
        command.arg(u8::from(is_start)).arg(STATED_MS);
        let Value::Array(stated) = call(connection, &command, &[key])? else {
            return Err(connection.unintelligible("EVALSHA"));
        };
        let stated: Vec<String> = stated.iter().filter_map(text).collect();
        let [its_id, its_tallies, its_policy] = &stated[..] else { return Ok(()) };
        let copy = "copy the limiter file of one of them to this machine";
        let why = if *its_id != id {
            format!(
                "has another seed than that of the other machines, so its subjects have other hashes: {copy}"
            )
        } else if *its_tallies != tallies {
            format!(
                "has {tallies} slots and overflow tallies, and that of the other machines has {its_tallies}: {copy}"
            )
        } else {
            format!(
                "has the limits \"{policy}\", and that of the other machines has \"{its_policy}\": give all of them the same limits"
            )
        };
        Err(FleetError::refused(format!(
            "the limiter {file} cannot share its limits in fleet {}: it {why}",
            self.fleet
        )))
    }
}

/// The script that lets windows admit their limits again.
const RESET_SCRIPT: &str = include_str!("reset.lua");

/// Lets the windows of these subjects that run now admit their limits again, on all machines of
/// the fleet. Returns the number of windows in which units had been leased.
///
/// Each machine's own counts stay, which also limit what it admits.
///
/// # Errors
/// [`FleetError`] if the store cannot be used. Some of the windows may have been changed.
pub fn reset(config: &FleetConfig, subjects: &[Subject]) -> Result<u64, FleetError> {
    config.verify()?;
    let mut store = Store::connect(config)?;
    let now_ms = store.time()?;
    let mut found = 0;
    for Subject { name, layout, .. } in subjects.iter().filter(|it| !it.layout.is_empty()) {
        let key = |(index, window): (usize, &Window)| {
            let mut key = String::new();
            write_key(&mut key, &config.name, name, *window, layout.span(index, now_ms).begin_ms);
            key
        };
        let keys: Vec<String> = layout.windows().iter().enumerate().map(key).collect();
        let connection = store.connection_of(&keys[0])?;
        let mut command = cmd("EVAL");
        command.arg(RESET_SCRIPT).arg(keys.len()).arg(&keys).arg(channels(&config.name));
        match call(connection, &command, &keys)? {
            Value::Int(count) => found += u64::try_from(count).unwrap_or(0),
            _ => return Err(connection.unintelligible("EVAL")),
        }
    }
    Ok(found)
}

/// Calls a script, and returns its reply. The error names the key that is not a hash, if one of
/// them is not.
fn call(connection: &mut Connection, command: &Cmd, keys: &[String]) -> Result<Value, FleetError> {
    let mut query = |command: &Cmd| {
        connection.send(&command.get_packed_command())?;
        connection.receive(&Steady::start())
    };
    let error = match query(command)? {
        Value::ServerError(error) => error,
        value => return Ok(value),
    };
    if is_of_one_call(&error) {
        for key in keys {
            if let Value::ServerError(error) = query(cmd("HMGET").arg(key).arg(&FIELDS))? {
                return Err(FleetError::lost(format!(
                    "the store's key {key} is unusable: delete it ({})",
                    sentence(&error)
                )));
            }
        }
    }
    Err(explained(connection.endpoint(), &error.into()))
}

/// Where a lease request that was not executed is sent again.
#[derive(Clone, Debug)]
enum Redirection {
    Same(usize),
    Node { node: Endpoint, moved: Option<u16> },
}

/// Returns a server of the store. In a cluster, this is the first node that answers.
pub(crate) fn find(store: &StoreConfig) -> Result<Endpoint, FleetError> {
    match &store.url.topology {
        Topology::Single(endpoint) => Ok(endpoint.clone()),
        Topology::Sentinel { sentinels, group } => {
            sentinel::primary(sentinels, group, &Access::of_sentinels(store)?)
        }
        Topology::Cluster(nodes) => {
            let access = Access::of_servers(store)?;
            let mut problem = FleetError::refused("the store's URL names no node");
            for node in nodes {
                match Connection::open(node, &access) {
                    Ok(_) => return Ok(node.clone()),
                    Err(error) => problem = error,
                }
            }
            Err(problem)
        }
    }
}

/// Returns the command of a lease request.
fn command(digest: &str, fleet: &str, machine: &str, call: &Call<'_>) -> Cmd {
    let request = call.request;
    let mut command = cmd("EVALSHA");
    command.arg(digest).arg(request.windows().len());
    let mut key = String::new();
    for (window, wanted) in call.layout.windows().iter().zip(request.windows()) {
        key.clear();
        write_key(&mut key, fleet, call.subject, *window, wanted.begin_ms);
        command.arg(&key);
    }
    command.arg(channels(fleet)).arg(machine).arg(request.number);
    command.arg(LEARNING_MS).arg(MOST_RECALLS);
    for window in request.windows() {
        command.arg(window.limit).arg(window.hold).arg(window.want);
        command.arg(window.begin_ms).arg(window.end_ms).arg(window.unreserved);
    }
    command
}

/// Reads the reply of the script. `None` if no script would send it.
pub(crate) fn parse_reply(value: &Value, request: &LeaseRequest) -> Option<Reply> {
    let Value::Array(parts) = value else { return None };
    let number = |index: usize| match parts.get(index) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    };
    let units = |index: usize| u32::try_from(number(index)?).ok();
    let windows = request.windows().len();
    if parts.len() != 1 + 3 * windows {
        return None;
    }
    let store_ms = u64::try_from(number(0)?).ok()?;
    let mut reply = Reply { store_ms, windows: [WindowReply::default(); MAX_QUOTAS] };
    for (index, window) in reply.windows.iter_mut().enumerate().take(windows) {
        let at = 1 + 3 * index;
        let machines = i32::try_from(number(at + 2)?).ok()?;
        *window = WindowReply { held: units(at)?, left: units(at + 1)?, machines };
    }
    Some(reply)
}

/// Reads the reply of `TIME`.
pub(crate) fn parse_time(value: &Value) -> Option<u64> {
    let Value::Array(parts) = value else { return None };
    let [seconds, micros] = &parts[..] else { return None };
    let number = |value| text(value)?.parse::<u64>().ok();
    number(seconds)?.checked_mul(1000)?.checked_add(number(micros)? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytally_fleet_plan::request::WindowRequest;

    fn request() -> LeaseRequest {
        let (begin_ms, end_ms) = (60_000, 120_000);
        let window = WindowRequest { limit: 9, hold: 3, unreserved: 2, want: 4, begin_ms, end_ms };
        LeaseRequest { number: 7, at_ms: 61_000, windows: [window; MAX_QUOTAS], len: 1 }
    }

    #[test]
    fn command_has_the_arguments_of_the_script() {
        let policy: keytally_core::Policy = "9/minute".parse().unwrap();
        let layout = CreditLayout::new(policy.layout(), &policy.limits()).unwrap();
        let call = Call { subject: "0Gk:key", layout: &layout, request: &request() };
        let command = command("d1", "prod", "m1", &call).get_packed_command();
        let text = String::from_utf8(command).unwrap();
        let arguments: Vec<&str> = text.split("\r\n").skip(2).step_by(2).collect();
        assert_eq!(
            arguments,
            [
                "EVALSHA",
                "d1",
                "1",
                "kt:{prod/0Gk}:key:60:60",
                "kt:prod",
                "m1",
                "7",
                "1000",
                "64",
                "9",
                "3",
                "4",
                "60000",
                "120000",
                "2"
            ]
        );
    }

    #[test]
    fn reply_that_no_script_sends_is_none() {
        let array =
            |numbers: &[i64]| Value::Array(numbers.iter().copied().map(Value::Int).collect());
        let read = |value: &Value| parse_reply(value, &request());
        let reply = read(&array(&[5, 4, 2, -1])).unwrap();
        assert_eq!(reply.windows[0], WindowReply { held: 4, left: 2, machines: -1 });
        assert_eq!(reply.store_ms, 5);
        for bad in [
            Value::Nil,
            array(&[]),
            array(&[5, 4, 2]),
            array(&[5, 4, 2, 1, 1]),
            array(&[-5, 4, 2, 1]),
            array(&[5, -4, 2, 1]),
            array(&[5, 1 << 32, 2, 1]),
            array(&[5, 4, -2, 1]),
            array(&[5, 4, 2, 1 << 31]),
            Value::Array(vec![Value::Int(5), Value::Nil, Value::Int(2), Value::Int(1)]),
        ] {
            assert_eq!(read(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn time_is_in_milliseconds() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let time =
            |parts: &[&str]| parse_time(&Value::Array(parts.iter().map(|p| bulk(p)).collect()));
        assert_eq!(time(&["1700000000", "123999"]), Some(1_700_000_000_123));
        assert_eq!(time(&["1700000000"]), None);
        assert_eq!(time(&["x", "1"]), None);
        assert_eq!(time(&["18446744073709551615", "1"]), None);
    }
}
