//! The keys that are denied most often, in bounded memory.
//!
//! It is the algorithm *Space-Saving* (Metwally, Agrawal, El Abbadi, 2005). A key that is not
//! counted takes the slot with the lowest count, and that count is the most by which its own is too
//! high. A key with more than one in [`SLOTS`] of all denials is always counted.

use std::sync::{Mutex, PoisonError};

use keytally::KeyId;

/// The number of keys that are counted.
const SLOTS: usize = 256;

/// Counts the denials of keys.
#[derive(Debug, Default)]
pub(crate) struct DeniedKeys(Mutex<Vec<Slot>>);

#[derive(Clone, Copy, Debug)]
struct Slot {
    key_id: KeyId,
    count: u64,
    /// The most by which the count is too high.
    error: u64,
}

impl DeniedKeys {
    /// Counts a denial of a key.
    pub(crate) fn count(&self, key_id: KeyId) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.iter_mut().find(|slot| slot.key_id == key_id) {
            slot.count += 1;
        } else if slots.len() < SLOTS {
            let room = SLOTS - slots.len();
            slots.reserve_exact(room);
            slots.push(Slot { key_id, count: 1, error: 0 });
        } else if let Some(lowest) = slots.iter_mut().min_by_key(|slot| slot.count) {
            *lowest = Slot { key_id, count: lowest.count + 1, error: lowest.count };
        }
    }

    /// Returns the keys with the most denials, at most `most` of them. The numbers are never too
    /// high.
    pub(crate) fn top(&self, most: usize) -> Vec<(KeyId, u64)> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut keys: Vec<_> =
            slots.iter().map(|slot| (slot.key_id, slot.count - slot.error)).collect();
        keys.sort_by_key(|&(key_id, count)| (core::cmp::Reverse(count), key_id.number()));
        keys.truncate(most);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> KeyId {
        KeyId::from_number(number).unwrap()
    }

    #[test]
    fn top_keys_are_those_with_the_most_denials() {
        let denied = DeniedKeys::default();
        for (number, count) in [(3, 2), (7, 5), (5, 2), (9, 1)] {
            for _ in 0..count {
                denied.count(key(number));
            }
        }
        assert_eq!(denied.top(3), [(key(7), 5), (key(3), 2), (key(5), 2)]);
        assert_eq!(denied.top(0), []);
        assert_eq!(denied.top(99).len(), 4);
    }

    #[test]
    fn flood_of_other_keys_neither_hides_nor_inflates_a_key() {
        let denied = DeniedKeys::default();
        // 200 of 20,200 denials are more than one in 256.
        for round in 0..200 {
            denied.count(key(1));
            for other in 0..100 {
                denied.count(key(2 + 100 * round + other));
            }
        }
        let top = denied.top(10);
        assert_eq!(top.len(), 10);
        assert_eq!(top.first().map(|top| top.0), Some(key(1)));
        assert!(top.iter().all(|&(id, count)| count <= if id == key(1) { 200 } else { 1 }));
        let slots = denied.0.lock().unwrap();
        assert_eq!((slots.len(), slots.capacity()), (SLOTS, SLOTS));
    }
}
