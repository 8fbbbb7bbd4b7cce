//! Teams: the accounts of keys in an extended gate, one line each.
//!
//! | word | holds |
//! |---|---|
//! | 0 | account (32) · 1 if the line is in use (32) |
//! | 1, 2 | tallies |
//! | 3 to 6 | limits of each tally that replace those of the plan |
//! | 7 | as in a record: state, plan, sequence; the environment is 1 if there are such limits |
//!
//! A team is made when its first key is issued, and is not removed. So a check never inserts one.

use super::table::Gate;
use crate::bits::{halves, high, join, low, scale, to_words};
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::quota::{Limits, MAX_QUOTAS};
use crate::record::{KeyState, RecordRef, SEQUENCE_SHIFT};
use crate::section::MAX_TEAM_TALLIES;
use crate::sync::AtomicU64;
use crate::tally::Layout;

/// A copy of a team's line, without its tallies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Team {
    pub(super) account: u32,
    pub(super) is_suspended: bool,
    pub(super) plan: u8,
    /// The limits of each tally, if they replace those of the plan.
    pub(super) limits: Option<[Limits; MAX_TEAM_TALLIES]>,
}

// The position of each value in the lower half of the last word: see `record.rs`.
const STATE_SHIFT: u32 = 6;
const PLAN_SHIFT: u32 = 8;
/// The word of the first limits.
const LIMITS: usize = 3;

impl Team {
    /// The team in these words; `None` if the line is not in use.
    fn from_words(words: &[u64; CACHE_LINE_WORDS]) -> Option<Self> {
        let [meta, plan, ..] = words[7].to_le_bytes();
        let limits = |first: usize| Limits(halves([words[first], words[first + 1]]));
        (high(words[0]) == 1).then(|| Self {
            account: low(words[0]),
            is_suspended: meta >> STATE_SHIFT != KeyState::Active as u8,
            plan,
            limits: (meta & 1 == 1).then(|| [limits(LIMITS), limits(LIMITS + 2)]),
        })
    }

    fn to_words(self, sequence: u64) -> [u64; CACHE_LINE_WORDS] {
        let none = [Limits([0; MAX_QUOTAS]); MAX_TEAM_TALLIES];
        let [one, two] = self.limits.unwrap_or(none).map(|limits| to_words(limits.0));
        let state = if self.is_suspended { KeyState::Revoked } else { KeyState::Active };
        let meta = u64::from(self.limits.is_some())
            | (state as u64) << STATE_SHIFT
            | u64::from(self.plan) << PLAN_SHIFT
            | sequence << SEQUENCE_SHIFT;
        [join(1, self.account), 0, 0, one[0], one[1], two[0], two[1], meta]
    }
}

/// The multiplier of a Fibonacci hash: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the line of the team with this number.
    #[inline]
    pub(super) fn team_at(&self, number: u32) -> Option<RecordRef<'_>> {
        let extension = self.extension.as_ref().filter(|extension| number < extension.teams)?;
        Some(RecordRef {
            number: self.capacity + number,
            line: extension.team(self.memory.as_ref(), number),
            redo: self.redo(),
        })
    }

    /// Returns the line that the redo record names by this number: a record's, or a team's.
    pub(super) fn line_of(&self, number: u32) -> Option<RecordRef<'_>> {
        match number.checked_sub(self.capacity) {
            None => Some(self.record(number.into())),
            Some(team) => self.team_at(team),
        }
    }

    /// Returns the words of a team's tallies with their layouts.
    pub(super) fn team_tallies(&self, number: u32) -> impl Iterator<Item = (&AtomicU64, &Layout)> {
        let shared = (0..self.tally_count()).filter(|&tally| self.is_shared(tally));
        shared.filter_map(move |tally| self.tally_word(self.record(0), Some(number), tally))
    }

    /// Returns the team with this number; `None` if there is none, or if its line is damaged.
    pub(super) fn team(&self, number: u32) -> Option<Team> {
        Team::from_words(&self.team_at(number)?.read_words()?)
    }

    /// Returns the number of an account's team. If there is none, the error is the number of the
    /// line in which it can be made, if there is one.
    pub(super) fn find_team(&self, account: u32) -> Result<u32, Option<u32>> {
        let teams = self.team_capacity();
        let start = scale(u64::from(account).wrapping_mul(GOLDEN), teams.into());
        let start = low(start);
        for number in (start..teams).chain(0..start) {
            match self.team(number) {
                Some(team) if team.account == account => return Ok(number),
                Some(_) => {}
                None => return Err(Some(number)),
            }
        }
        Err(None)
    }

    /// Replaces a team's line except for its tallies. Only the administrator may call it.
    pub(super) fn write_team(&self, number: u32, team: Team) {
        if let Some(at) = self.team_at(number) {
            at.write_words(|sequence| team.to_words(sequence), 0, self);
        }
    }

    /// Returns the numbers of all teams.
    pub(super) fn team_numbers(&self) -> impl Iterator<Item = u32> {
        (0..self.team_capacity()).filter(|&number| self.team(number).is_some())
    }
}

// The position of a team's tallies is that of a record's, and after it.
const _: () = assert!(crate::record::TALLY + MAX_TEAM_TALLIES == LIMITS);
