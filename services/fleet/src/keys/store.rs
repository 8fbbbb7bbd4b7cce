//! The keys of a fleet in the store: sealed records by key id, and the position of each write.

use std::collections::HashMap;

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

/// An agent whose last message is older than this counts as not connected, in milliseconds.
pub const CONNECTED_MS: u64 = 3000;

/// An agent whose last message is older than this is forgotten, in milliseconds.
const FORGOTTEN_MS: u64 = 3_600_000;

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

impl Progress {
    fn to_text(&self) -> String {
        let refused = self.refused.iter().map(|position| format!(" {position}"));
        format!("{}{}", self.position, refused.collect::<String>())
    }

    /// Reads a text, and the time in milliseconds before it.
    fn parse(text: &str) -> Option<(u64, Self)> {
        let mut numbers = text.split(' ').map(str::parse);
        let at_ms = numbers.next()?.ok()?;
        let position = numbers.next()?.ok()?;
        let refused = numbers.collect::<Result<_, _>>().ok()?;
        Some((at_ms, Self { position, refused }))
    }

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
        progress: &Progress,
        after: u64,
    ) -> Result<Page, FleetError> {
        let mut command = cmd("EVALSHA");
        command.arg(&self.read_digest).arg(3).arg(&self.names[..]);
        command.arg(machine).arg(progress.to_text()).arg(after).arg(MAX_KEYS_AT_ONCE);
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

    /// Returns what the agents have that are connected now, by their machines.
    pub(super) fn agents(&mut self, now_ms: u64) -> Result<HashMap<String, Progress>, FleetError> {
        let agents = self.all_agents()?.into_iter();
        let connected =
            agents.filter(|(_, (at_ms, _))| now_ms.saturating_sub(*at_ms) <= CONNECTED_MS);
        Ok(connected.map(|(machine, (_, progress))| (machine, progress)).collect())
    }

    /// Forgets the agents that have not been connected for an hour.
    pub(super) fn forget_agents(&mut self, now_ms: u64) -> Result<(), FleetError> {
        let is_old = |at_ms: u64| now_ms.saturating_sub(at_ms) > FORGOTTEN_MS;
        let all = self.all_agents()?.into_iter();
        let old: Vec<_> =
            all.filter(|(_, (at_ms, _))| is_old(*at_ms)).map(|(name, _)| name).collect();
        if old.is_empty() {
            return Ok(());
        }
        let connection = self.store.connection_of(&self.names[0])?;
        connection.query(cmd("HDEL").arg(&self.names[2]).arg(old)).map(drop)
    }

    /// Returns all agents, with the time of the last message of each. What is not understood
    /// counts as very old.
    fn all_agents(&mut self) -> Result<HashMap<String, (u64, Progress)>, FleetError> {
        let connection = self.store.connection_of(&self.names[0])?;
        let reply = connection.query(cmd("HGETALL").arg(&self.names[2]))?;
        let fields: HashMap<String, String> =
            redis::from_redis_value(reply).map_err(|_| connection.unintelligible("HGETALL"))?;
        let none = || (0, Progress { position: 0, refused: Vec::new() });
        let read = |(machine, text): (String, String)| {
            (machine, Progress::parse(&text).unwrap_or_else(none))
        };
        Ok(fields.into_iter().map(read).collect())
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
    let (first, rest) = parts.split_at_checked(3)?;
    let [now_ms, head, gate] = first else { return None };
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
    let (now_ms, head) = (number(now_ms)?, number(head)?);
    let is_last = count < MAX_KEYS_AT_ONCE;
    let position = if is_last { head } else { last };
    Some(Page { now_ms, head, gate: bytes(gate)?.to_vec(), records, position, is_last })
}
