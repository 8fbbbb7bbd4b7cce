//! Looking at a gate: what may be shown of its keys, and what is wrong with it.

use core::fmt;

use super::{Gate, HINTS_PER_LINE, PEPPER_LINE};
use crate::decide;
use crate::key::{Hint, KeyId, Name};
use crate::line::{Line, high, index, join, low, scale};
use crate::record::{KeyState, Place, Record};
use crate::sync::Ordering;
use crate::text::Text;
use crate::time::Timestamp;
use crate::verdict::Quotas;

/// Everything that may be shown of a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyInfo {
    /// The key's public name.
    pub key_id: KeyId,
    /// The team account that the key belongs to.
    pub account: u32,
    /// The environment; `None` in a damaged record.
    pub env: Option<Name>,
    /// The number of the plan.
    pub plan: u8,
    /// Active or revoked.
    pub state: KeyState,
    /// The moment from which the key is no longer valid; `None` for never.
    pub not_after: Option<Timestamp>,
    /// The moment from which the previous secret is no longer valid: its grace ends or the key expires. `None` if it is
    /// not valid now, as after a revocation.
    pub grace_until: Option<Timestamp>,
    /// The number of the pepper that the secret is stored under.
    pub pepper: u8,
    /// The last four characters, where the gate keeps them.
    pub last_characters: Option<Text<4>>,
    /// When the key was last charged, rounded down to the smallest window; `None` when never, or reset since.
    pub last_used: Option<Timestamp>,
    /// The key's quotas now, or at the tally's own time if that is ahead.
    pub quotas: Quotas,
    /// By how many seconds the tally is ahead of the caller, rounded up; 0 if it is not.
    pub clock_ahead_s: u32,
}

impl<M: AsRef<[Line]>> Gate<M> {
    /// Everything that may be shown of one key.
    pub fn key(&self, key_id: KeyId, now: Timestamp) -> Option<KeyInfo> {
        let (place, record) = self.find(key_id)?;
        self.info(place, &record, now)
    }

    /// Everything that may be shown of every key, revoked ones too, in the order of their key ids.
    pub fn list(&self, now: Timestamp) -> impl Iterator<Item = KeyInfo> {
        self.places().filter_map(move |place| self.info(place, &place.read()?, now))
    }

    fn info(&self, place: Place<'_>, record: &Record, now: Timestamp) -> Option<KeyInfo> {
        let tally = place.tally().load(Ordering::Acquire);
        let (layout, counts) = (&self.layout, self.layout.counts());
        let used =
            (0..layout.len()).any(|at| counts.current(tally, at) > 0 || counts.previous(tally, at) > 0);
        let quotas = decide::quotas(layout, &self.limits(record.plan), tally, now);
        Some(KeyInfo {
            key_id: record.key_id?,
            account: record.account,
            env: self.env(record.env),
            plan: record.plan,
            state: record.state,
            not_after: record.expiry(),
            grace_until: record.previous_until(now),
            pepper: record.pepper,
            last_characters: Hint::last_from_word(self.hint(place.number)),
            last_used: used.then(|| Timestamp::from_unix_ms(layout.stamp_start_ms(layout.stamp(tally)))),
            clock_ahead_s: quotas.ahead_s(now),
            quotas,
        })
    }

    fn hint_cell(&self, number: u32) -> Option<(&Line, usize, bool)> {
        let at = index(u64::from(number));
        let line = self.memory.as_ref().get(self.hints_at? + at / HINTS_PER_LINE)?;
        Some((line, at % HINTS_PER_LINE / 2, at % 2 == 1))
    }

    pub(super) fn hint(&self, number: u32) -> u32 {
        self.hint_cell(number).map_or(
            0,
            |(line, word, upper)| {
                if upper { high(line.load(word)) } else { low(line.load(word)) }
            },
        )
    }

    pub(super) fn store_hint(&self, number: u32, hint: u32) {
        if let Some((line, word, upper)) = self.hint_cell(number) {
            let present = line.load(word);
            line.store(word, if upper { join(hint, low(present)) } else { join(high(present), hint) });
        }
    }

    /// Reads the whole gate and reports what no administrator and no check could have left, a [`Flaw`] each. While
    /// somebody administers, the record that is being written may be reported; an
    /// [administrator's](super::Administrator::verify) reading can't be disturbed so.
    ///
    /// Records have no checksum. So a value that was changed into another valid one is not seen: the key id within its
    /// record, a MAC, an account, a time, a count, or the number of another plan, environment or pepper.
    pub fn verify(&self, now: Timestamp, mut report: impl FnMut(Flaw)) {
        for place in self.places() {
            let Some(record) = place.read() else {
                report(Flaw { record: place.number, key_id: place.key_id(), kind: FlawKind::HalfWritten });
                continue;
            };
            let mut flaw = |kind| report(Flaw { record: place.number, key_id: record.key_id, kind });
            let Some(key_id) = record.key_id else { continue };
            if scale(key_id.number(), u64::from(self.capacity)) != u64::from(place.number) {
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
            let tally = place.tally().load(Ordering::Acquire);
            if self.layout.is_claim_mark(tally) {
                flaw(FlawKind::NoTally);
            } else if decide::is_wrong(&self.layout, tally, now) {
                flaw(FlawKind::FutureTally);
            }
        }
    }
}

/// Something in a gate that no administrator and no check could have left there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flaw {
    /// The number of the record.
    pub record: u32,
    /// The key that the record holds, as far as it can be told.
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
#[non_exhaustive]
pub enum FlawKind {
    /// It is half-written, and no intent says what it was to be.
    HalfWritten,
    /// Its key id belongs into another record, so no check finds it.
    Misplaced,
    /// The gate has no plan of that number.
    NoPlan {
        /// The number.
        plan: u8,
    },
    /// The gate has no environment of that number.
    NoEnv {
        /// The number.
        env: u8,
    },
    /// The gate has no pepper of that number.
    NoPepper {
        /// The number.
        pepper: u8,
    },
    /// Where its tally should be is something else.
    NoTally,
    /// Its tally is more than 60 s ahead: a wrong clock stamped it. The next check by the system
    /// clock corrects it.
    FutureTally,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}", self.record)?;
        if let Some(key_id) = self.key_id {
            write!(f, " (key {key_id})")?;
        }
        match self.kind {
            FlawKind::HalfWritten => f.write_str(" is half-written and can't be read"),
            FlawKind::Misplaced => f.write_str(" holds a key id that belongs into another record"),
            FlawKind::NoPlan { plan } => write!(f, " has plan number {plan}, and there is none"),
            FlawKind::NoEnv { env } => write!(f, " has environment number {env}, and there is none"),
            FlawKind::NoPepper { pepper } => write!(f, " has pepper number {pepper}, and there is none"),
            FlawKind::NoTally => f.write_str(" holds something that is no tally"),
            FlawKind::FutureTally => f.write_str(
                " has a tally that a wrong clock stamped more than 60 s ahead; the key's next check by the system clock corrects it",
            ),
        }
    }
}
