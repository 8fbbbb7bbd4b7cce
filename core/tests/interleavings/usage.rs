//! Scenarios of the counts of uses: requests that are counted at once, while another thread reads,
//! and while an administrator gives the line to another key.

use alloc::sync::Arc;
use core::num::NonZeroU16;

use keytally_core::{CacheLine, Key, KeyUsage, UsageCounts};

use crate::gate::{Shared, entropy, gate, issue, with};
use crate::model::{explore, preemptions, together};
use crate::support::{at, memory, new_key};

type Counts = Arc<UsageCounts<Vec<CacheLine>>>;

/// Begins to count the uses of a gate.
fn begin(gate: &Shared) -> Counts {
    let lines = UsageCounts::<Vec<CacheLine>>::lines(gate.capacity());
    let counts = gate.init_usage(memory(lines), NonZeroU16::MIN).unwrap();
    gate.administer().unwrap().begin_usage(&counts);
    Arc::new(counts)
}

fn check(gate: &Shared, counts: &Counts, key: &Key, cost: u32) {
    gate.counted(Some(counts.view())).check(Some(key.expose().as_bytes()), cost, at(1));
}

#[test]
fn uses_of_two_threads_are_all_counted() {
    explore(preemptions(2, 4), || {
        let gate = gate(1);
        let (key, key_id) = issue(&gate, &new_key(), 7);
        let counts = begin(&gate);
        let line = &counts.memory()[1];
        // The first counts of both words are full, so each addition may carry.
        for word in [1, 3] {
            line.store(word, u32::MAX.into());
        }
        let usage = move |counts: &Counts, gate: &Shared| {
            gate.usage_of(counts.view(), key_id).expect("the line is the key's")
        };
        let before = usage(&counts, &gate);
        let request = |cost| {
            let (counts, key) = (Arc::clone(&counts), Arc::clone(&key));
            with(&gate, move |gate| {
                check(gate, &counts, &key, cost);
                KeyUsage::default()
            })
        };
        let reader = {
            let counts = Arc::clone(&counts);
            with(&gate, move |gate| usage(&counts, gate))
        };
        // Two units are the limit, and three are never admitted.
        let read = together([request(2), request(3), reader]).pop().unwrap();
        let after = usage(&counts, &gate);
        let (early, late) = (read.since(&before), after.since(&read));
        assert_eq!(early.admitted() + late.admitted(), 1);
        assert_eq!(early.denied_by_key() + late.denied_by_key(), 1);
        let whole = after.since(&before);
        assert_eq!((whole.admitted(), whole.units(), whole.denied_by_key()), (1, 2, 1));
        assert_eq!((whole.with_previous_secret(), whole.denied_by_team()), (0, 0));
    });
}

#[test]
fn line_that_passes_to_another_key_begins_at_0() {
    explore(preemptions(2, 3), || {
        let gate = gate(1);
        let (old, old_id) = issue(&gate, &new_key(), 7);
        let counts = begin(&gate);
        check(&gate, &counts, &old, 2);
        // The record is another key's, and the line still has the counts of the old one.
        let (key, key_id) = {
            let mut administrator = gate.administer().unwrap();
            administrator.revoke(old_id).unwrap();
            administrator.issue(&new_key(), entropy(8), at(200)).unwrap()
        };
        let usage = move |counts: &Counts, gate: &Shared| gate.usage_of(counts.view(), key_id);
        let (writer, requests, reader) =
            (Arc::clone(&counts), Arc::clone(&counts), Arc::clone(&counts));
        let counted = together([
            with(&gate, move |gate| {
                gate.administer().unwrap().begin_usage(&writer);
                false
            }),
            with(&gate, move |gate| {
                let is_assigned = usage(&requests, gate).is_some();
                check(gate, &requests, &key, 1);
                is_assigned
            }),
            with(&gate, move |gate| {
                if let Some(read) = usage(&reader, gate) {
                    assert!(read.admitted() <= 1 && read.units() <= 1, "{read:?}");
                }
                false
            }),
        ]);
        let after = usage(&counts, &gate).unwrap();
        assert!(after.admitted() <= 1 && after.admitted() >= u32::from(counted[1]), "{after:?}");
        assert_eq!(u64::from(after.admitted()), after.units());
        assert_eq!(gate.usage_of(counts.view(), old_id), None);
    });
}
