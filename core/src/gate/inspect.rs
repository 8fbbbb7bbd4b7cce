//! The public properties of a gate's keys.

use super::table::Gate;
use crate::cache_line::CacheLine;
use crate::decide;
use crate::key::{Hint, KeyId, Name};
use crate::quotas::Quotas;
use crate::record::{KeyState, Record, RecordRef};
use crate::sync::Ordering;
use crate::text::Text;
use crate::time::Timestamp;

/// The public properties of a key.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
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
    pub expires: Option<Timestamp>,
    /// The moment from which the previous secret is no longer valid: its grace ends or the key
    /// expires. `None` if it is not valid now, as after a revocation.
    pub grace_until: Option<Timestamp>,
    /// The number of the pepper that the secret is stored under.
    pub pepper: u8,
    /// The last four characters, if the gate keeps hints.
    pub last_characters: Option<Text<4>>,
    /// The time of the last change of the key's counts, rounded down to the start of the policy's
    /// shortest window. A charge, a refund or a settle moves it forward. A correction of the clock
    /// moves it back. `None` if the tally counts no unit, as before the first charge and after a
    /// reset.
    pub last_used: Option<Timestamp>,
    /// The key's quotas now, or at the tally's own time if that is ahead.
    pub quotas: Quotas,
    /// By how many seconds the tally is ahead of the caller, rounded up; 0 if it is not.
    pub clock_ahead_s: u32,
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
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
            expires: record.expiry(),
            grace_until: record.previous_until(now),
            pepper: record.pepper,
            last_characters: Hint::last_from_word(self.hint(at.number)),
            last_used: used
                .then(|| Timestamp::from_unix_ms(layout.stamp_start_ms(layout.stamp(tally)))),
            clock_ahead_s: quotas.ahead_s(now),
            quotas,
        })
    }
}
