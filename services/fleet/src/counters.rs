//! What an agent counts, for metrics.

use keytally_core::sync::{AtomicU64, Ordering};

/// Counts since the agent's start, which other threads may read.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) grants: AtomicU64,
    pub(crate) granted_units: AtomicU64,
    pub(crate) recalls: AtomicU64,
    pub(crate) again: AtomicU64,
    pub(crate) relearned: AtomicU64,
    pub(crate) refused_numbers: AtomicU64,
    pub(crate) refused_windows: AtomicU64,
    pub(crate) unanswered: AtomicU64,
    pub(crate) unconfirmed: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) deferred: AtomicU64,
    pub(crate) renamed: AtomicU64,
    pub(crate) offset_ms: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lease requests that were sent.
    pub requests: u64,
    /// Those whose reply granted units.
    pub grants: u64,
    /// The units of the longest windows that were granted.
    pub granted_units: u64,
    /// Messages that other machines need this machine's idle units.
    pub recalls: u64,
    /// Messages that the store forgot units, so that each machine states its holding again.
    pub again: u64,
    /// Tallies whose holding was stated again, after such a message or at another store.
    pub relearned: u64,
    /// Lease requests whose number the store refused, since two machines had one name.
    pub refused_numbers: u64,
    /// Windows that the store refused, since they had passed or not begun by its clock.
    pub refused_windows: u64,
    /// Lease requests without a reply that could be used.
    pub unanswered: u64,
    /// Lease requests that too few replicas confirmed.
    pub unconfirmed: u64,
    /// Connections that were made to a store.
    pub connections: u64,
    /// Lease requests that waited, since more than the configured number per second were due.
    pub deferred: u64,
    /// How often the machine took a new name, and voided its credits.
    pub renamed: u64,
    /// How many milliseconds the store's clock is ahead of the machine's.
    pub offset_ms: i64,
}

impl Counters {
    /// Returns the counts now.
    pub fn read(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            requests: load(&self.requests),
            grants: load(&self.grants),
            granted_units: load(&self.granted_units),
            recalls: load(&self.recalls),
            again: load(&self.again),
            relearned: load(&self.relearned),
            refused_numbers: load(&self.refused_numbers),
            refused_windows: load(&self.refused_windows),
            unanswered: load(&self.unanswered),
            unconfirmed: load(&self.unconfirmed),
            connections: load(&self.connections),
            deferred: load(&self.deferred),
            renamed: load(&self.renamed),
            offset_ms: load(&self.offset_ms).cast_signed(),
        }
    }
}

/// Adds to a count that only the caller's thread writes.
pub(crate) fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}
