//! The keys of a fleet in the store: sealed records by key id, and the position of each write.

use alloc::collections::BTreeMap;
use std::path::Path;

use keytally_core::KeyId;
use redis::{Value, cmd};

use crate::config::FleetConfig;
use crate::connection::text;
use crate::error::FleetError;
use crate::names::keys_channel;
use crate::store::Store;

/// The script that reads records.
const READ_SCRIPT: &str = include_str!("read.lua");

/// The script that writes records.
const WRITE_SCRIPT: &str = include_str!("write.lua");

/// The scripts that read and write the keys of a fleet in the store.
pub const KEY_SCRIPTS: [&str; 2] = [READ_SCRIPT, WRITE_SCRIPT];

/// The field of the records that describes the gates of the fleet.
pub(super) const GATE_FIELD: &str = "gate";

/// The most records that are read or written at once.
pub const MAX_KEYS_AT_ONCE: usize = 256;

/// For how many days a revoked or expired key stays in the store.
pub const MAX_ENDED_DAYS: u64 = 90;

/// An agent whose last message is older than this counts as not connected, in milliseconds.
pub const CONNECTED_MS: u64 = 3000;

/// An agent whose last message is older than this is forgotten, in milliseconds, unless its machine
/// may still admit keys.
const FORGOTTEN_MS: u64 = 3_600_000;

/// An agent whose last message is older than this is forgotten, in milliseconds: as long as the
/// store keeps a revoked key.
const MAX_FORGOTTEN_MS: u64 = MAX_ENDED_DAYS * 86_400_000;

/// The most characters of the text that says where a machine is.
pub const MAX_LOCATION_LEN: usize = 80;

/// A record in the store.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) key_id: KeyId,
    /// The position of its last write; 0 if it was read by its id.
    pub(super) position: u64,
    /// Its bytes; none if the store does not have it.
    pub(super) bytes: Vec<u8>,
}

/// What a read returns.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) now_ms: u64,
    /// The position of the last write.
    pub(super) head: u64,
    /// The sealed description of the gates; none if there is none yet.
    pub(super) gate: Vec<u8>,
    /// How many positions the read has removed that no script gives.
    pub(super) misplaced: u64,
    pub(super) records: Vec<Stored>,
    /// The position up to which everything was read.
    pub(super) position: u64,
    pub(super) is_last: bool,
}

/// A record to write.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) field: String,
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
}

/// What an agent of the fleet says that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The position up to which its gate has all keys, except those of the next field.
    pub(super) position: u64,
    /// The positions of keys that its gate refuses, at most [`MAX_REFUSED`].
    pub(super) refused: Vec<u64>,
}

/// The most positions of refused keys that an agent reports.
pub(super) const MAX_REFUSED: usize = 8;

/// What an agent reports of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The host and the path of the gate: see [`location`].
    pub(super) location: String,
    /// After how many milliseconds without the store the machine refuses all keys; 0 for never.
    pub(super) stale_ms: u64,
    /// A hash of the names and limits of the plans.
    pub(super) limits: u64,
    pub(super) progress: Progress,
}

/// Returns the text that says where a machine is, without spaces, at most [`MAX_LOCATION_LEN`]
/// characters: the end of a longer path.
pub(super) fn location(host: &str, path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let clean = |text: &str| -> String {
        let clean = |byte: u8| if byte.is_ascii_graphic() { char::from(byte) } else { '_' };
        text.bytes().map(clean).collect()
    };
    let (mut host, path) = (clean(host), clean(&path.to_string_lossy()));
    host.truncate(MAX_LOCATION_LEN / 2);
    let room = MAX_LOCATION_LEN - host.len() - 1;
    let from = path.len().saturating_sub(room);
    format!("{host}:{}", &path[from..])
}

impl Report {
    fn to_text(&self) -> String {
        let Self { location, stale_ms, limits, progress: Progress { position, refused } } = self;
        let refused = refused.iter().map(|position| format!(" {position}"));
        let refused: String = refused.collect();
        format!("{location} {stale_ms} {limits:016x} {position}{refused}")
    }

    /// Reads a text, and the time in milliseconds before it.
    fn parse(text: &str) -> Option<(u64, Self)> {
        let mut parts = text.split(' ');
        let at_ms = parts.next()?.parse().ok()?;
        let location = parts.next()?.to_owned();
        let is_valid = |byte: u8| byte.is_ascii_graphic();
        if location.len() > MAX_LOCATION_LEN || !location.bytes().all(is_valid) {
            return None;
        }
        let stale_ms = parts.next()?.parse().ok()?;
        let limits = u64::from_str_radix(parts.next()?, 16).ok()?;
        let position = parts.next()?.parse().ok()?;
        let refused = parts.map(str::parse).collect::<Result<_, _>>().ok()?;
        let progress = Progress { position, refused };
        Some((at_ms, Self { location, stale_ms, limits, progress }))
    }
}

/// An agent of the fleet.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The machine's name in the store.
    pub(super) machine: String,
    /// How long ago the agent has reported, in milliseconds.
    pub(super) age_ms: u64,
    pub(super) report: Report,
}

impl Peer {
    pub(super) fn is_connected(&self) -> bool {
        self.age_ms <= CONNECTED_MS
    }

    /// Returns whether the machine may admit keys: it refuses all of them only when they may be out
    /// of date.
    fn may_admit(&self) -> bool {
        let Report { stale_ms, .. } = self.report;
        self.is_connected() || stale_ms == 0 || self.age_ms <= stale_ms.saturating_add(CONNECTED_MS)
    }

    /// Returns whether the store need not keep the report.
    fn is_forgotten(&self) -> bool {
        let is_old = self.age_ms > FORGOTTEN_MS && !self.may_admit();
        is_old || self.age_ms > MAX_FORGOTTEN_MS
    }
}

impl Progress {
    /// Returns whether the gate has the changes after `from`, up to `to`.
    pub(super) fn has(&self, from: u64, to: u64) -> bool {
        let is_one = |position: &u64| (from + 1..=to).contains(position);
        self.position >= to && !self.refused.iter().any(is_one)
    }
}

/// A connection to the primary that has the keys.
#[derive(Debug)]
pub(super) struct KeyStore {
    store: Store,
    read_digest: String,
    write_digest: String,
    names: [String; 3],
    channel: String,
}

impl KeyStore {
    /// Connects, and loads the scripts.
    pub(super) fn connect(config: &FleetConfig) -> Result<Self, FleetError> {
        let mut store = Store::connect(config)?;
        let records = format!("kt:{{{}/keys}}", config.name);
        let connection = store.connection_of(&records)?;
        let read_digest = connection.load(READ_SCRIPT)?;
        let write_digest = connection.load(WRITE_SCRIPT)?;
        let names = [records.clone(), format!("{records}:log"), format!("{records}:agents")];
        let channel = keys_channel(&config.name);
        Ok(Self { store, read_digest, write_digest, names, channel })
    }

    /// Reads the records that were written after a position, and notes what this machine has.
    pub(super) fn read(
        &mut self,
        machine: &str,
        report: &Report,
        after: u64,
    ) -> Result<Page, FleetError> {
        let mut command = cmd("EVALSHA");
        command.arg(&self.read_digest).arg(3).arg(&self.names[..]);
        command.arg(machine).arg(report.to_text()).arg(after).arg(MAX_KEYS_AT_ONCE);
        let connection = self.store.connection_of(&self.names[0])?;
        let reply = connection.query(&command)?;
        parse_page(&reply, after).ok_or_else(|| connection.unintelligible("EVALSHA"))
    }

    /// Reads the records of these keys.
    pub(super) fn find(&mut self, key_ids: &[KeyId]) -> Result<Vec<Stored>, FleetError> {
        let mut command = cmd("HMGET");
        command.arg(&self.names[0]);
        for key_id in key_ids {
            command.arg(key_id.to_string());
        }
        let connection = self.store.connection_of(&self.names[0])?;
        let Value::Array(values) = connection.query(&command)? else {
            return Err(connection.unintelligible("HMGET"));
        };
        let stored = |(key_id, value): (&KeyId, Value)| {
            let bytes = match value {
                Value::BulkString(bytes) => bytes,
                _ => Vec::new(),
            };
            Stored { key_id: *key_id, position: 0, bytes }
        };
        Ok(key_ids.iter().zip(values).map(stored).collect())
    }

    /// Writes records. Returns the position of the last write, and the fields whose records the
    /// store had changed since they were read.
    pub(super) fn write(&mut self, changes: &[Change]) -> Result<(u64, Vec<String>), FleetError> {
        let mut command = cmd("EVALSHA");
        command.arg(&self.write_digest).arg(2).arg(&self.names[..2]).arg(&self.channel);
        for Change { field, before, after } in changes {
            command.arg(field).arg(before).arg(after);
        }
        let connection = self.store.connection_of(&self.names[0])?;
        let reply = connection.query(&command)?;
        let parsed = || {
            let Value::Array(parts) = &reply else { return None };
            let (first, others) = parts.split_first()?;
            Some((number(first)?, others.iter().map(text).collect::<Option<_>>()?))
        };
        parsed().ok_or_else(|| connection.unintelligible("EVALSHA"))
    }

    /// Returns the agents whose machines may admit keys, by their machines.
    pub(super) fn peers(&mut self, now_ms: u64) -> Result<Vec<Peer>, FleetError> {
        let (peers, _) = self.all_peers(now_ms)?;
        Ok(peers.into_iter().filter(Peer::may_admit).collect())
    }

    /// Forgets the agents that have ended for good: those whose machines have refused all keys for
    /// long, and those that were at the same location as this machine under another name.
    pub(super) fn forget_agents(
        &mut self,
        now_ms: u64,
        machine: &str,
        location: &str,
    ) -> Result<(), FleetError> {
        let (peers, mut old) = self.all_peers(now_ms)?;
        let is_former = |peer: &Peer| {
            peer.report.location == location && peer.machine != machine && !peer.is_connected()
        };
        let ended = peers.into_iter().filter(|peer| peer.is_forgotten() || is_former(peer));
        old.extend(ended.map(|peer| peer.machine));
        if old.is_empty() {
            return Ok(());
        }
        let connection = self.store.connection_of(&self.names[0])?;
        connection.query(cmd("HDEL").arg(&self.names[2]).arg(old)).map(drop)
    }

    /// Returns all agents in the order of their names, and the fields that no agent writes.
    fn all_peers(&mut self, now_ms: u64) -> Result<(Vec<Peer>, Vec<String>), FleetError> {
        let connection = self.store.connection_of(&self.names[0])?;
        let reply = connection.query(cmd("HGETALL").arg(&self.names[2]))?;
        let fields: BTreeMap<String, String> =
            redis::from_redis_value(reply).map_err(|_| connection.unintelligible("HGETALL"))?;
        let (mut peers, mut others) = (Vec::new(), Vec::new());
        for (machine, text) in fields {
            match Report::parse(&text) {
                Some((at_ms, report)) => {
                    let age_ms = now_ms.saturating_sub(at_ms);
                    peers.push(Peer { machine, age_ms, report });
                }
                None => others.push(machine),
            }
        }
        Ok((peers, others))
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// Reads the reply of the script. `None` if no script would send it.
fn parse_page(reply: &Value, after: u64) -> Option<Page> {
    let Value::Array(parts) = reply else { return None };
    let (first, rest) = parts.split_at_checked(4)?;
    let [now_ms, head, gate, misplaced] = first else { return None };
    if !rest.len().is_multiple_of(3) {
        return None;
    }
    let count = rest.len() / 3;
    let (mut records, mut last) = (Vec::new(), after);
    for part in rest.chunks_exact(3) {
        let [field, position, sealed] = part else { return None };
        let position = number(position)?;
        last = last.max(position);
        // Another program may have written other fields.
        let Some(key_id) = text(field).and_then(|field| field.parse().ok()) else { continue };
        records.push(Stored { key_id, position, bytes: bytes(sealed)?.to_vec() });
    }
    let (now_ms, head, misplaced) = (number(now_ms)?, number(head)?, number(misplaced)?);
    let is_last = count < MAX_KEYS_AT_ONCE;
    let position = if is_last { head } else { last };
    let gate = bytes(gate)?.to_vec();
    Some(Page { now_ms, head, gate, misplaced, records, position, is_last })
}
