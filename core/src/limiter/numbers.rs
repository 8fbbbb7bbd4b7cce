//! Numbers of tallies: each slot and each overflow tally has one, so that another file can have
//! something for each of them.
//!
//! The slots come first, then the overflow tallies of each bucket, one for each rule:
//!
//! ```text
//! slot | slots + bucket · rules + rule
//! ```
//!
//! A limiter of addresses has a rule for each prefix, and another limiter has one.
//!
//! # What is reserved for a subject
//! It is at the number of the subject's slot, and names the subject by its owner's number. It is
//! for windows in which the subject was charged, and a slot is kept until 1 s after they have
//! passed. So nothing that is reserved is lost when the slot is given to another subject, and a
//! subject never has units of one window at two numbers.

use super::slot::Subject;
use super::table::{Limiter, Rule};
use crate::bits::index;
use crate::cache_line::CacheLine;
use crate::decide;
use crate::quota::Limits;
use crate::quotas::Quotas;
use crate::sync::Ordering;
use crate::tally::Layout;
use crate::time::Timestamp;

/// A subject of a limiter, or an overflow tally, found by its number.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NumberedSubject {
    /// The number of the subject, or of the overflow tally. It is not 0. Two subjects that may have
    /// the slot, one after the other, have different numbers.
    pub owner: u64,
    /// The bucket of an overflow tally; `None` for a subject.
    pub bucket: Option<u64>,
    /// The index of the prefix in a limiter of addresses; 0 in another limiter.
    pub rule: usize,
    /// The layout of the tally.
    pub layout: Layout,
    /// Its limits now.
    pub limits: Limits,
    /// Its quotas now, or at the tally's own time if that is ahead.
    pub quotas: Quotas,
}

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Returns how many tallies have a number. The numbers are smaller.
    pub fn numbered_tallies(&self) -> u64 {
        self.numbered_by(1)
    }

    pub(super) fn numbered_by(&self, rules: usize) -> u64 {
        let buckets = self.slots_total() / super::table::BUCKET_SLOTS as u64;
        self.slots_total().saturating_add(buckets.saturating_mul(rules as u64))
    }

    /// Returns the number of the tally that a request of a subject charges, and the number of its
    /// owner. `None` if the subject has no slot.
    pub(super) fn number_by(
        &self,
        subject: Subject,
        rule: usize,
        rules: usize,
        is_overflow: bool,
    ) -> Option<(u64, u64)> {
        if is_overflow {
            let [bucket, _] = self.buckets_of(subject);
            let before = self.slots_total().saturating_add(bucket.saturating_mul(rules as u64));
            let number = before.saturating_add(rule as u64);
            return Some((number, overflow_owner(number)));
        }
        Some((self.slot_number(subject)?, subject.owner_number(rule)))
    }

    /// Returns the number of a subject as an [owner](NumberedSubject::owner), also if it has no
    /// slot.
    pub fn owner_number(&self, subject: &[u8]) -> u64 {
        self.subject(subject).owner_number(0)
    }

    /// Returns the subject with a number. A slot holds only the fingerprint of its subject, so it
    /// is one of `owners`, the first that fits. `None` if none of them has the slot, or if the slot
    /// is not kept until the windows of `now` have passed.
    pub fn numbered_subject(
        &self,
        number: u64,
        owners: [u64; 2],
        now: Timestamp,
    ) -> Option<NumberedSubject> {
        self.numbered_subject_by(&[self.rule()], number, owners, now)
    }

    pub(super) fn numbered_subject_by(
        &self,
        rules: &[Rule<'_>],
        number: u64,
        owners: [u64; 2],
        now: Timestamp,
    ) -> Option<NumberedSubject> {
        let (owner, bucket, rule, word) = match number.checked_sub(self.slots_total()) {
            None => {
                let slot = self.slot(number)?;
                let name = slot.owner().load(Ordering::Acquire);
                let word = slot.tally().load(Ordering::Acquire);
                let is_its = slot.owner().load(Ordering::Acquire) == name;
                if !is_its || self.layout.is_reservation(word) || !self.layout.is_kept(word, now) {
                    return None;
                }
                let fits = |owner: &u64| Subject::of_owner_number(*owner).1.is_named_by(name);
                let owner = owners.into_iter().filter(|&owner| owner != 0).find(fits)?;
                (owner, None, Subject::of_owner_number(owner).0, word)
            }
            Some(position) => {
                let (count, owner) = (rules.len() as u64, overflow_owner(number));
                let bucket = position.checked_div(count)?;
                if number >= self.numbered_by(rules.len()) {
                    return None;
                }
                let word = self.overflow_tally(bucket).load(Ordering::Acquire);
                (owner, Some(bucket), index(position.checked_rem(count)?), word)
            }
        };
        let Rule { layout, .. } = rules.get(rule)?;
        let limits = rules.get(rule)?.limits();
        let quotas = decide::quotas(layout, &limits, word, now);
        Some(NumberedSubject { owner, bucket, rule, layout: **layout, limits, quotas })
    }
}

/// Returns the owner's number of an overflow tally, which is never given to another owner.
fn overflow_owner(number: u64) -> u64 {
    number.saturating_add(1)
}

/// Returns the index of the rule by which the subject with an owner's number counts. It is that of
/// the prefix in a limiter of addresses, and 0 in another limiter.
pub fn rule_of_owner(owner: u64) -> usize {
    Subject::of_owner_number(owner).0
}
