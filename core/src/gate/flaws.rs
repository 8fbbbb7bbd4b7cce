//! Flaws of a gate: states of its records that no administrator leaves behind, and no check by a
//! right clock.

use core::fmt;

use super::table::{Gate, PEPPER_LINE};
use crate::bits::scale;
use crate::cache_line::CacheLine;
use crate::decide;
use crate::key::KeyId;
use crate::sync::Ordering;
use crate::time::Timestamp;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Reads the whole gate and reports each [`Flaw`]: a state that no administrator leaves behind,
    /// and no check by a right clock. Tallies are compared with `now`.
    ///
    /// While there is an administrator, the record that it writes may be reported too. To exclude
    /// that, use [`Administrator::verify`](super::administrator::Administrator::verify).
    ///
    /// Each record has a checksum, if the gate keeps hints. It does not cover the counts. In a gate
    /// without hints, a value that was changed into another valid value is not detected: a MAC, an
    /// account, a time, or the number of another plan, environment or pepper.
    pub fn verify(&self, now: Timestamp, mut report: impl FnMut(Flaw)) {
        for at in self.records() {
            let Some(record) = at.read() else {
                report(Flaw {
                    record: at.number,
                    key_id: at.key_id(),
                    kind: FlawKind::HalfWritten,
                });
                continue;
            };
            let mut flaw = |kind| report(Flaw { record: at.number, key_id: record.key_id, kind });
            if self.stored_checksum(at.number).is_some_and(|stored| stored != self.checksum_of(at))
            {
                flaw(FlawKind::Checksum);
            }
            let Some(key_id) = record.key_id else { continue };
            if scale(key_id.number(), u64::from(self.capacity)) != u64::from(at.number) {
                flaw(FlawKind::Misplaced);
            }
            if self.plan(record.plan).is_none() {
                flaw(FlawKind::NoPlan { plan: record.plan });
            }
            if self.env(record.env).is_none() {
                flaw(FlawKind::NoEnv { env: record.env });
            }
            if self.memory.as_ref()[PEPPER_LINE].load(usize::from(record.pepper)) == 0 {
                flaw(FlawKind::NoPepper { pepper: record.pepper });
            }
            if self.team_capacity() > 0 {
                let team = self.entry_now(at.number).team;
                let its = team.checked_sub(1).and_then(|number| self.team(number));
                if its.is_none_or(|its| its.account != record.account) {
                    flaw(FlawKind::NoTeam { team });
                }
            }
            for (tally, layout) in self.own_tallies(at) {
                let word = tally.load(Ordering::Acquire);
                if layout.is_reservation(word) {
                    flaw(FlawKind::NoTally);
                } else if decide::is_wrong(layout, word, now) {
                    flaw(FlawKind::FutureTally);
                }
            }
        }
    }
}

/// A state of a record that no administrator leaves behind, and no check by a right clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Flaw {
    /// The number of the record.
    pub record: u32,
    /// The key in the record, if its id can be read.
    pub key_id: Option<KeyId>,
    /// What is wrong.
    pub kind: FlawKind,
}

impl Flaw {
    /// A flaw of this record.
    pub const fn new(record: u32, key_id: Option<KeyId>, kind: FlawKind) -> Self {
        Self { record, key_id, kind }
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FlawKind {
    /// It is half-written, and there is no redo record for it.
    HalfWritten,
    /// Its key id belongs in another record, so no check finds it.
    Misplaced,
    /// The gate does not have a plan with that number.
    NoPlan {
        /// The number.
        plan: u8,
    },
    /// The gate does not have an environment with that number.
    NoEnv {
        /// The number.
        env: u8,
    },
    /// The gate does not have a pepper with that number.
    NoPepper {
        /// The number.
        pepper: u8,
    },
    /// Its words do not have the checksum that was stored with them.
    Checksum,
    /// The gate does not have a team with that number less 1, or the team is of another account.
    NoTeam {
        /// The number.
        team: u32,
    },
    /// The word of its tally has the stamp of reservations, which only slots of a limiter can have.
    NoTally,
    /// Its tally is more than 60 s ahead of the time that [`Gate::verify`] was given. A clock or an
    /// explicit time that was ahead stamped it, or the given time is late. If the tally is still
    /// that far ahead at the next check by the system clock, that check corrects it.
    FutureTally,
}

impl FlawKind {
    /// Returns the name of the kind, such as `half_written`, without the number that it contains.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HalfWritten => "half_written",
            Self::Misplaced => "misplaced",
            Self::NoPlan { .. } => "no_plan",
            Self::NoEnv { .. } => "no_env",
            Self::NoPepper { .. } => "no_pepper",
            Self::Checksum => "checksum",
            Self::NoTeam { .. } => "no_team",
            Self::NoTally => "no_tally",
            Self::FutureTally => "future_tally",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}", self.record)?;
        if let Some(key_id) = self.key_id {
            write!(f, " (key {key_id})")?;
        }
        match self.kind {
            FlawKind::HalfWritten => f.write_str(" is half-written and cannot be read"),
            FlawKind::Misplaced => f.write_str(" holds a key id that belongs into another record"),
            FlawKind::NoPlan { plan } => write!(f, " has plan number {plan}, and there is none"),
            FlawKind::NoEnv { env } => write!(f, " has environment number {env}, and there is none"),
            FlawKind::NoPepper { pepper } => write!(f, " has pepper number {pepper}, and there is none"),
            FlawKind::Checksum => f.write_str(" was changed by something else than Keytally: its checksum is wrong"),
            FlawKind::NoTeam { team } => write!(f, " has team number {team}, which is not that of its account"),
            FlawKind::NoTally => f.write_str(" has a word that is not a tally"),
            FlawKind::FutureTally => f.write_str(
                " has a tally that is more than 60 s ahead of this call's time; if a wrong clock stamped it, the key's next check by the system clock corrects it",
            ),
        }
    }
}
