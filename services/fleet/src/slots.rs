//! Which node of a cluster has a key.

use redis::Value;

use crate::address::Endpoint;
use crate::connection::text;

/// The number of slots of a cluster.
pub(crate) const SLOTS: u16 = 16384;

/// Returns the slot of a key: CRC-16 of what is in its first braces, or of the whole key.
pub(crate) fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, as the specification of Redis Cluster says.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 }
        })
    })
}

/// The primary of each slot, as an index of `primaries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotMap {
    pub(crate) primaries: Vec<Endpoint>,
    slots: Vec<Option<usize>>,
}

impl SlotMap {
    /// Reads the reply of `CLUSTER SLOTS` that the node `sender` sent.
    pub(crate) fn parse(reply: &Value, sender: &Endpoint) -> Option<Self> {
        let Value::Array(ranges) = reply else { return None };
        let mut map = Self { primaries: Vec::new(), slots: vec![None; SLOTS.into()] };
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = &parts[..] else {
                return None;
            };
            let [host, Value::Int(port), ..] = &node[..] else { return None };
            let host = text(host).unwrap_or_default();
            let endpoint = endpoint(&host, u16::try_from(*port).ok()?, sender)?;
            let primary = map.primary(endpoint);
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            map.slots.get_mut(first..=last)?.fill(Some(primary));
        }
        Some(map)
    }

    /// Returns the index of a primary, which is added if it is new.
    pub(crate) fn primary(&mut self, endpoint: Endpoint) -> usize {
        let known = self.primaries.iter().position(|primary| *primary == endpoint);
        known.unwrap_or_else(|| {
            self.primaries.push(endpoint);
            self.primaries.len() - 1
        })
    }

    /// Returns the primary of a slot.
    pub(crate) fn primary_of(&self, slot: u16) -> Option<usize> {
        self.slots.get(usize::from(slot)).copied().flatten()
    }

    /// Notes that a slot has moved.
    pub(crate) fn moved(&mut self, slot: u16, primary: usize) {
        if let Some(known) = self.slots.get_mut(usize::from(slot)) {
            *known = Some(primary);
        }
    }

    /// Returns whether each slot has a primary.
    pub(crate) fn is_complete(&self) -> bool {
        self.slots.iter().all(Option::is_some)
    }
}

/// Reads the node of an answer `MOVED SLOT HOST:PORT` or `ASK SLOT HOST:PORT` of the node `sender`.
pub(crate) fn redirection(detail: &str, sender: &Endpoint) -> Option<(u16, Endpoint)> {
    let (slot, address) = detail.split_once(' ')?;
    let (host, port) = address.trim().rsplit_once(':')?;
    let slot: u16 = slot.parse().ok()?;
    (slot < SLOTS).then_some((slot, endpoint(host, port.parse().ok()?, sender)?))
}

/// Returns a node's endpoint. A node without a host is where the sender is.
fn endpoint(host: &str, port: u16, sender: &Endpoint) -> Option<Endpoint> {
    match (host, sender) {
        ("" | "?", Endpoint::Tcp(host, _)) => Some(Endpoint::Tcp(host.clone(), port)),
        ("" | "?", Endpoint::Unix(_)) => None,
        _ => Some(Endpoint::Tcp(host.to_owned(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp(host.to_owned(), port)
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!((slot("foo"), slot("bar"), slot("")), (12182, 5061, 0));
        assert_eq!(slot("kt:{prod/0Gk}:key:60:1"), slot("kt:{prod/0Gk}:key:3600:2"));
        assert_eq!(slot("kt:{prod/0Gk}:key:60:1"), slot("prod/0Gk"));
        assert_eq!(slot("{}foo"), crc16(b"{}foo") % SLOTS, "an empty tag is none");
        assert_eq!(slot("{user}{x}"), slot("user"));
    }

    #[test]
    fn map_has_the_primary_of_each_slot() {
        let host = |host: &str| Value::BulkString(host.as_bytes().to_vec());
        let range = |first, last, name: &str, port| {
            let primary = Value::Array(vec![host(name), Value::Int(port), host("id")]);
            let replica = Value::Array(vec![host("r"), Value::Int(1), host("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
        };
        let sender = node("sender", 7000);
        let reply = Value::Array(vec![range(0, 99, "a", 7001), range(100, 16383, "", 7002)]);
        let mut map = SlotMap::parse(&reply, &sender).unwrap();
        assert_eq!(map.primaries, [node("a", 7001), node("sender", 7002)]);
        assert_eq!([0, 99, 100].map(|slot| map.primary_of(slot)), [Some(0), Some(0), Some(1)]);
        assert!(map.is_complete());
        let third = map.primary(node("b", 7003));
        map.moved(99, third);
        assert_eq!((map.primary_of(99), map.primary(node("a", 7001))), (Some(2), 0));

        let part =
            SlotMap::parse(&Value::Array(vec![range(1, 16383, "a", 7001)]), &sender).unwrap();
        assert!(!part.is_complete());
        for bad in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16384, "a", 7001)]),
            Value::Array(vec![range(9, 2, "a", 7001)]),
            Value::Array(vec![range(0, 2, "a", 70_000)]),
            Value::Array(vec![range(-1, 2, "a", 7001)]),
        ] {
            assert_eq!(SlotMap::parse(&bad, &sender), None, "{bad:?}");
        }
    }

    #[test]
    fn redirection_names_slot_and_node() {
        let sender = node("sender", 7000);
        let read = |detail| redirection(detail, &sender);
        assert_eq!(read("3999 10.0.0.1:6381"), Some((3999, node("10.0.0.1", 6381))));
        assert_eq!(read("3999 fd00::1:6381"), Some((3999, node("fd00::1", 6381))));
        assert_eq!(read("3999 :6381"), Some((3999, node("sender", 6381))));
        for bad in ["", "3999", "x a:1", "3999 a", "16384 a:1", "3999 a:70000"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
