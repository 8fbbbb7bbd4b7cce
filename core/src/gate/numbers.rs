//! Numbers of tallies: each word of a gate that counts has one, so that another file can have
//! something for each of them.
//!
//! The tallies of all records come first, in the order of the records, then those of all teams:
//!
//! ```text
//! record · (tallies of a record) + position | team · (tallies of a team) + position
//! ```

use super::extension::is_unlimited;
use super::inspect::shown;
use super::table::Gate;
use crate::cache_line::CacheLine;
use crate::decide;
use crate::key::KeyId;
use crate::quota::Limits;
use crate::quotas::Quotas;
use crate::reservation::TallyNumbers;
use crate::section::Section;
use crate::tally::Layout;
use crate::time::Timestamp;

/// Whose tally it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TallyOwner {
    /// A key.
    Key(KeyId),
    /// All keys of an account.
    Account(u32),
}

impl TallyOwner {
    /// Returns a number for it that is not 0. Two owners that may have the same tally, one after
    /// the other, have different numbers.
    pub fn number(self) -> u64 {
        match self {
            Self::Key(key_id) => key_id.number().max(1),
            Self::Account(account) => u64::from(account) + 1,
        }
    }
}

/// A tally of a gate, found by its number.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NumberedTally {
    /// Whose tally it is.
    pub owner: TallyOwner,
    /// Its section.
    pub section: Section,
    /// Its layout, which is that of all keys or accounts.
    pub layout: Layout,
    /// Its limits now.
    pub limits: Limits,
    /// Its quotas now, or at the tally's own time if that is ahead.
    pub quotas: Quotas,
}

impl<M: AsRef<[CacheLine]>> TallyNumbers for Gate<M> {
    fn tally_number(&self, key_id: KeyId, tally: usize) -> Option<u64> {
        Self::tally_number(self, key_id, tally)
    }

    fn subject_number(&self, _: usize) -> Option<(u64, u64)> {
        None
    }
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the section and the layout of each tally of a request, by its index in
    /// [`TallyVerdict::tally`](crate::TallyVerdict::tally).
    pub fn tally_shapes(&self) -> impl Iterator<Item = (&Section, &Layout)> {
        (0..self.tally_count()).map(|tally| (self.section_of(tally), self.layout_of(tally)))
    }

    /// Returns how many tallies have a number. The numbers are smaller.
    pub fn numbered_tallies(&self) -> u64 {
        let teams = number_at(self.team_capacity(), self.shared_count(), 0);
        number_at(self.capacity, self.own_count(), teams)
    }

    /// Returns the number of a tally that requests of a key charge, by its index in
    /// [`TallyVerdict::tally`](crate::TallyVerdict::tally). Returns `None` if the key has no such
    /// tally.
    #[inline]
    pub fn tally_number(&self, key_id: KeyId, tally: usize) -> Option<u64> {
        let record = self.record_of(key_id).number;
        if self.extension.is_none() {
            return (tally == 0).then(|| record.into());
        }
        self.extended_number(record, tally)
    }

    fn extended_number(&self, record: u32, tally: usize) -> Option<u64> {
        if !self.has_tally(tally) {
            return None;
        }
        let is_shared = self.is_shared(tally);
        let position = (0..tally).filter(|&it| self.is_shared(it) == is_shared).count() as u64;
        if !is_shared {
            return Some(number_at(record, self.own_count(), position));
        }
        let team = self.entry_now(record).team.checked_sub(1)?;
        let first = number_at(self.capacity, self.own_count(), 0);
        Some(first.wrapping_add(number_at(team, self.shared_count(), position)))
    }

    /// Returns the tally with a number. `None` if no key or account has it now, or if it has no
    /// limits.
    pub fn numbered_tally(&self, number: u64, now: Timestamp) -> Option<NumberedTally> {
        let own = number_at(self.capacity, self.own_count(), 0);
        let (is_shared, number, count) = match number.checked_sub(own) {
            None => (false, number, self.own_count()),
            Some(shared) => (true, shared, self.shared_count()),
        };
        let line = u32::try_from(number.checked_div(count)?).ok()?;
        let position = usize::try_from(number.checked_rem(count)?).ok()?;
        let its = |&it: &usize| self.is_shared(it) == is_shared;
        let tally = (0..self.tally_count()).filter(its).nth(position)?;
        let (owner, plan, team) = if is_shared {
            let team = self.team(line)?;
            (TallyOwner::Account(team.account), team.plan, Some(team))
        } else {
            let record = self.record(line.into()).read()?;
            (TallyOwner::Key(record.key_id?), record.plan, None)
        };
        let (limits, _) = self.limits_of_tally(plan, team.as_ref(), tally);
        if self.is_extended() && is_unlimited(&limits) {
            return None;
        }
        let record = self.record(if is_shared { 0 } else { line.into() });
        let (atomic, layout) = self.tally_word(record, is_shared.then_some(line), tally)?;
        let word = shown(layout, atomic, now);
        let quotas = decide::quotas(layout, &limits, word, now);
        Some(NumberedTally {
            owner,
            section: *self.section_of(tally),
            layout: *layout,
            limits,
            quotas,
        })
    }

    /// Returns the number of tallies of a record, and its entry.
    fn own_count(&self) -> u64 {
        (0..self.tally_count()).filter(|&it| !self.is_shared(it)).count() as u64
    }

    /// Returns the number of tallies of a team.
    fn shared_count(&self) -> u64 {
        (0..self.tally_count()).filter(|&it| self.is_shared(it)).count() as u64
    }
}

/// Returns the number of a position in a list of this many items each. It cannot overflow: both
/// factors have 32 bits at most, and positions are numbers of tallies.
fn number_at(line: u32, count: u64, position: u64) -> u64 {
    u64::from(line).wrapping_mul(count).wrapping_add(position)
}
