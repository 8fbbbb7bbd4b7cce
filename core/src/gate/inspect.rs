//! Inspection of a gate: the public properties of its keys, and its flaws.

use core::fmt;

use super::{Gate, HINTS_PER_LINE, PEPPER_LINE};
use crate::bits::{high, index, join, low, scale};
use crate::decide;
use crate::key::{Hint, KeyId, Name};
use crate::line::Line;
use crate::quotas::Quotas;
use crate::record::{KeyState, Record, RecordRef};
use crate::sync::Ordering;
use crate::text::Text;
use crate::time::Timestamp;

/// The public properties of a key.
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
    /// The moment from which the previous secret is no longer valid: its grace ends or the key
    /// expires. `None` if it is not valid now, as after a revocation.
    pub grace_until: Option<Timestamp>,
    /// The number of the pepper that the secret is stored under.
    pub pepper: u8,
    /// The last four characters, if the gate keeps hints.
    pub last_characters: Option<Text<4>>,
    /// When the key was last charged, rounded down to the smallest window; `None` when never, or
    /// reset since.
    pub last_used: Option<Timestamp>,
    /// The key's quotas now, or at the tally's own time if that is ahead.
    pub quotas: Quotas,
    /// By how many seconds the tally is ahead of the caller, rounded up; 0 if it is not.
    pub clock_ahead_s: u32,
}

impl<M: AsRef<[Line]>> Gate<M> {
    /// Returns the public properties of a key; `None` if the gate does not have it.
    pub fn key(&self, key_id: KeyId, now: Timestamp) -> Option<KeyInfo> {
        let (at, record) = self.find(key_id)?;
        self.info(at, &record, now)
    }

    /// Returns the public properties of every key, revoked ones included, in the order of their key
    /// ids.
    pub fn list(&self, now: Timestamp) -> impl Iterator<Item = KeyInfo> {
        self.records().filter_map(move |at| self.info(at, &at.read()?, now))
    }

    fn info(&self, at: RecordRef<'_>, record: &Record, now: Timestamp) -> Option<KeyInfo> {
        let tally = at.tally().load(Ordering::Acquire);
        let (layout, counts) = (&self.layout, self.layout.counts());
        let used = (0..layout.len())
            .any(|window| counts.current(tally, window) > 0 || counts.previous(tally, window) > 0);
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
            last_characters: Hint::last_from_word(self.hint(at.number)),
            last_used: used
                .then(|| Timestamp::from_unix_ms(layout.stamp_start_ms(layout.stamp(tally)))),
            clock_ahead_s: quotas.ahead_s(now),
            quotas,
        })
    }

    fn hint_word(&self, number: u32) -> Option<(&Line, usize, bool)> {
        let at = index(u64::from(number));
        let line = self.memory.as_ref().get(self.hints_at? + at / HINTS_PER_LINE)?;
        Some((line, at % HINTS_PER_LINE / 2, at % 2 == 1))
    }

    pub(super) fn hint(&self, number: u32) -> u32 {
        self.hint_word(number).map_or(0, |(line, word, upper)| {
            if upper { high(line.load(word)) } else { low(line.load(word)) }
        })
    }

    pub(super) fn store_hint(&self, number: u32, hint: u32) {
        if let Some((line, word, upper)) = self.hint_word(number) {
            let present = line.load(word);
            line.store(
                word,
                if upper { join(hint, low(present)) } else { join(high(present), hint) },
            );
        }
    }

    /// Reads the whole gate and reports each [`Flaw`]: a state that no administrator and no check
    /// leaves behind.
    ///
    /// While there is an administrator, the record that it writes may be reported too. To exclude
    /// that, use [`Administrator::verify`](super::Administrator::verify).
    ///
    /// Records have no checksum. So a value that was changed into another valid value is not
    /// detected: the key id within its record, a MAC, an account, a time, a count, or the number of
    /// another plan, environment or pepper.
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
            let tally = at.tally().load(Ordering::Acquire);
            if self.layout.is_reservation(tally) {
                flaw(FlawKind::NoTally);
            } else if decide::is_wrong(&self.layout, tally, now) {
                flaw(FlawKind::FutureTally);
            }
        }
    }
}

/// A state of a record that no administrator and no check leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The word of its tally is not a tally.
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
            FlawKind::HalfWritten => f.write_str(" is half-written and cannot be read"),
            FlawKind::Misplaced => f.write_str(" holds a key id that belongs into another record"),
            FlawKind::NoPlan { plan } => write!(f, " has plan number {plan}, and there is none"),
            FlawKind::NoEnv { env } => write!(f, " has environment number {env}, and there is none"),
            FlawKind::NoPepper { pepper } => write!(f, " has pepper number {pepper}, and there is none"),
            FlawKind::NoTally => f.write_str(" has a word that is not a tally"),
            FlawKind::FutureTally => f.write_str(
                " has a tally that a wrong clock stamped more than 60 s ahead; the key's next check by the system clock corrects it",
            ),
        }
    }
}
