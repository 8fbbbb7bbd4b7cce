//! How the list and the gate agree, for metrics and people.

use keytally::Timestamp;

/// How the list and the gate agree.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// When the gate last had every change of the list.
    pub followed: Option<Timestamp>,
    /// Why the gate does not follow the list now; `None` if it does.
    pub problem: Option<String>,
    /// When all keys were last compared.
    pub compared: Option<Timestamp>,
    /// The differences that comparisons have settled since the start.
    pub settled: u64,
    /// The differences of the last comparison that are not settled: keys that the gate refused, or
    /// that the list does not have.
    pub open: u64,
    /// When the list last had all uses of keys that the gate had counted; at first, the start.
    pub sampled: Option<Timestamp>,
    /// Whether the last sample of the uses failed.
    pub sample_failed: bool,
    /// The samples that failed since the start.
    pub sample_errors: u64,
}

impl Status {
    /// Returns for how many seconds the gate has not followed the list.
    pub fn lag_s(&self, now: Timestamp) -> u64 {
        match (&self.problem, self.followed) {
            (Some(_), Some(followed)) => now.unix_s().saturating_sub(followed.unix_s()),
            _ => 0,
        }
    }

    /// Returns for how many seconds no use of a key could be added to the list.
    pub fn sampler_lag_s(&self, now: Timestamp) -> u64 {
        let sampled = self.sampled.filter(|_| self.sample_failed);
        sampled.map_or(0, |sampled| now.unix_s().saturating_sub(sampled.unix_s()))
    }
}
