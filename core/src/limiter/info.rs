//! What a limiter holds, for people: its subjects and their use.

use super::slot::{Slot, Subject};
use super::table::Limiter;
use crate::cache_line::CacheLine;
use crate::decide;
use crate::quota::Limits;
use crate::quotas::Quotas;
use crate::sync::Ordering;
use crate::time::Timestamp;

/// A subject of a limiter, or an overflow tally, which several subjects share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct SubjectInfo {
    /// The subject's fingerprint: see [`Limiter::fingerprint`]. `None` for an overflow tally.
    pub fingerprint: Option<u64>,
    /// The state of each window.
    pub quotas: Quotas,
    /// By how many seconds the tally is ahead of the time of the call, rounded up; 0 if it is not.
    pub clock_ahead_s: u32,
}

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Returns the 48 bits of a subject's hash by which the table knows it. The text of a subject
    /// is not stored.
    ///
    /// ```
    /// # use keytally_core::{CacheLine, Limiter, Policy, Timestamp};
    /// # let policy: Policy = "2/minute".parse()?;
    /// # let lines = Limiter::<&[CacheLine]>::lines(8);
    /// # let memory: Vec<_> = (0..lines).map(|_| CacheLine::new()).collect();
    /// # let limiter = Limiter::init(&memory[..], &policy, 8, [7; 16])?;
    /// let now = Timestamp::from_unix_s(1_700_000_000);
    /// limiter.check(b"203.0.113.9", 1, now);
    /// let found = limiter.list(now).next().unwrap();
    /// assert_eq!(found.fingerprint, Some(limiter.fingerprint(b"203.0.113.9")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fingerprint(&self, subject: &[u8]) -> u64 {
        self.subject(subject).fingerprint_number()
    }

    /// Returns the subjects that have a slot that cannot be reused at `now`, and the overflow
    /// tallies that count something then. Reads the whole table.
    pub fn list(&self, now: Timestamp) -> impl Iterator<Item = SubjectInfo> {
        self.list_by(self.rule().limits(), now)
    }

    /// Returns the subjects as [`list`](Self::list) does, with these limits.
    pub(super) fn list_by(
        &self,
        limits: Limits,
        now: Timestamp,
    ) -> impl Iterator<Item = SubjectInfo> {
        let subjects = self.all_slots().filter_map(move |slot| self.subject_in(&limits, slot, now));
        let shared = self
            .overflow_tallies()
            .filter_map(move |tally| self.info(&limits, None, tally.load(Ordering::Relaxed), now));
        subjects.chain(shared)
    }

    /// Returns the subject of a slot; `None` if it has none, or if it was reassigned meanwhile.
    fn subject_in(&self, limits: &Limits, slot: Slot<'_>, now: Timestamp) -> Option<SubjectInfo> {
        let owner = slot.owner().load(Ordering::Acquire);
        let word = slot.tally().load(Ordering::Acquire);
        let is_its = slot.owner().load(Ordering::Acquire) == owner;
        let fingerprint = Some(Subject::fingerprint_in(owner));
        self.info(limits, fingerprint, word, now).filter(|_| is_its)
    }

    /// Returns the use of a tally; `None` if all its windows have passed.
    fn info(
        &self,
        limits: &Limits,
        fingerprint: Option<u64>,
        word: u64,
        now: Timestamp,
    ) -> Option<SubjectInfo> {
        if self.layout.is_reservation(word) || self.layout.is_reusable(word, now) {
            return None;
        }
        let quotas = decide::quotas(&self.layout, limits, word, now);
        Some(SubjectInfo { fingerprint, quotas, clock_ahead_s: quotas.ahead_s(now) })
    }
}
