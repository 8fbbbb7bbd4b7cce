//! The public properties of a gate's keys.

use core::fmt;

use heapless::Vec;

use super::extension::is_unlimited;
use super::table::{Gate, PEPPER_LINE};
use crate::cache_line::CacheLine;
use crate::decide;
use crate::key::{Hint, KeyId, Name};
use crate::mac::{KEPT_PEPPERS, MAX_PEPPERS};
use crate::quotas::Quotas;
use crate::record::{KeyState, Record, RecordRef};
use crate::section::{MAX_TALLIES, Section};
use crate::sync::{AtomicU64, Ordering};
use crate::tally::Layout;
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
    /// The time of the last change of the key's counts, rounded down to a unit of its tally. That
    /// is the policy's shortest window, or less if its windows do not nest, and a day if all are
    /// weeks and months. A charge, a refund or a settle moves it forward. A correction of the clock
    /// moves it back. `None` if the tally counts no unit, as before the first charge and after a
    /// reset.
    pub last_used: Option<Timestamp>,
    /// The quotas of the key's first tally now, or at the tally's own time if that is ahead.
    /// [`Gate::tallies`] returns those of all tallies.
    pub quotas: Quotas,
    /// The scopes that the key has, one bit each, in the order of [`Gate::scopes`].
    /// [`Gate::scopes_of`] returns their names.
    pub scopes: u64,
    /// The number of the key's record.
    record: u32,
    /// By how many seconds the tally is ahead of the caller, rounded up; 0 if it is not.
    pub clock_ahead_s: u32,
}

/// The state of one tally that the requests of a key charge.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TallyState {
    /// The section of the tally.
    pub section: Section,
    /// Its quotas now, or at the tally's own time if that is ahead.
    pub quotas: Quotas,
}

impl KeyInfo {
    /// Returns whether the key is expired at `now`. A revoked key expires too.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| now >= end)
    }

    /// Returns the state of the key at `now`: `active`, `revoked` or `expired`.
    ///
    /// A key that is both revoked and expired is `revoked`.
    pub fn state_name(&self, now: Timestamp) -> &'static str {
        match self.state {
            KeyState::Active if self.is_expired(now) => "expired",
            state => state.as_str(),
        }
    }

    /// Returns the part of the key that may be shown: prefix, environment and the last four
    /// characters, such as `kt_live_…9aZk`.
    ///
    /// `prefix` is the prefix of the gate. It is shown for an imported key too. The environment is
    /// omitted if the record is damaged, and the last characters if the gate does not keep them.
    pub fn hint(&self, prefix: Name) -> impl fmt::Display {
        InfoHint { prefix, env: self.env, last: self.last_characters.clone() }
    }
}

/// The text that [`KeyInfo::hint`] returns.
struct InfoHint {
    prefix: Name,
    env: Option<Name>,
    last: Option<Text<4>>,
}

impl fmt::Display for InfoHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_", self.prefix)?;
        if let Some(env) = self.env {
            write!(f, "{env}_")?;
        }
        write!(f, "…{}", self.last.as_deref().unwrap_or_default())
    }
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the public properties of a key; `None` if the gate does not have it.
    pub fn key(&self, key_id: KeyId, now: Timestamp) -> Option<KeyInfo> {
        let (at, record) = self.find(key_id)?;
        self.info(at, &record, now)
    }

    /// Returns whether the record that a key id names holds no key.
    ///
    /// A record that has held a key never becomes free: another key replaces one that has ended. So
    /// this gate did not get the key later than a gate that has it and is otherwise the same.
    pub fn has_free_record(&self, key_id: KeyId) -> bool {
        self.record_of(key_id).read().is_some_and(|record| record.key_id.is_none())
    }

    /// Returns the public properties of every key, revoked ones included, in the order of their key
    /// ids.
    pub fn list(&self, now: Timestamp) -> impl Iterator<Item = KeyInfo> {
        self.records().filter_map(move |at| self.info(at, &at.read()?, now))
    }

    /// Returns the state of every tally that requests of a key charge: those of the key, of its
    /// team and of groups, without those that its plan does not limit. Empty if the record of the
    /// key is damaged or holds another key by now.
    pub fn tallies(&self, info: &KeyInfo, now: Timestamp) -> impl Iterator<Item = TallyState> {
        self.states(info, now).into_iter()
    }

    /// Returns how many keys have a valid secret under each pepper, by the pepper's number.
    ///
    /// A key in the grace of a rotation counts for the pepper of its previous secret, too. A
    /// revoked or expired key has no valid secret. Reads the whole gate.
    pub fn keys_per_pepper(&self, now: Timestamp) -> [u32; MAX_PEPPERS] {
        let mut keys = [0; MAX_PEPPERS];
        for record in self.records().filter_map(RecordRef::read) {
            if record.key_id.is_some() {
                needed_peppers(&record, now).for_each(|number| keys[usize::from(number)] += 1);
            }
        }
        keys
    }

    /// Returns from when on the gate has a record for another key; `None` if no record is free and
    /// no key has ended.
    ///
    /// The record of a revoked or expired key is free 1 s after its longest window has passed. A
    /// tally that a wrong clock stamped counts as it is. Reads the whole gate.
    pub fn free_from(&self, now: Timestamp) -> Option<Timestamp> {
        let from = |at: RecordRef<'_>| {
            let record = at.read()?;
            if record.key_id.is_none() {
                return Some(now);
            }
            let words = self.own_tallies(at);
            let ends = words.map(|(tally, layout)| {
                layout.reusable_from(tally.load(Ordering::Acquire)).max(now)
            });
            ends.max().filter(|_| record.has_ended(now))
        };
        self.records().filter_map(from).min()
    }

    /// Returns whether this process has the pepper with this number, the index in
    /// [`keys_per_pepper`](Self::keys_per_pepper). False for a number that no pepper has.
    pub fn has_pepper(&self, number: usize) -> bool {
        self.known_peppers().any(|(known, _)| known == number)
    }

    /// Returns two peppers of this process that were probably given in the wrong order: the number
    /// of the newest one, and that of one that the gate got later. The second is `None` for a
    /// pepper that the gate has no number for.
    ///
    /// A gate numbers its peppers in the order in which it gets them. Returns `None` if the order
    /// agrees with that. Also returns `None` once the gate has had as many peppers as it has
    /// numbers, because it then gives numbers of earlier peppers to later ones.
    pub fn misordered_peppers(&self) -> Option<(usize, Option<usize>)> {
        let line = &self.memory.as_ref()[PEPPER_LINE];
        let with = |word: u64| (0..KEPT_PEPPERS).find(|&number| line.load(number) == word);
        with(0)?;
        let newest = with(self.peppers.newest().fingerprint())?;
        let mut others = self.peppers.iter().map(|pepper| with(pepper.fingerprint()));
        let later = others.find(|number| number.is_none_or(|number| number > newest))?;
        Some((newest, later))
    }

    fn states(&self, info: &KeyInfo, now: Timestamp) -> Vec<TallyState, MAX_TALLIES> {
        let at = self.record(info.record.into());
        let Some(record) = at.read().filter(|record| record.key_id == Some(info.key_id)) else {
            return Vec::new();
        };
        let team = self.entry_now(at.number).team.checked_sub(1);
        let its = team.and_then(|number| self.team(number));
        let mut states = Vec::new();
        for tally in 0..self.tally_count() {
            let (limits, _) = self.limits_of_tally(record.plan, its.as_ref(), tally);
            let Some((atomic, layout)) = self.tally_word(at, team, tally) else { continue };
            if !self.is_extended() || !is_unlimited(&limits) {
                let word = shown(layout, atomic, now);
                let quotas = decide::quotas(layout, &limits, word, now);
                // There is room for every tally of a gate.
                let _ = states.push(TallyState { section: *self.section_of(tally), quotas });
            }
        }
        states
    }

    fn info(&self, at: RecordRef<'_>, record: &Record, now: Timestamp) -> Option<KeyInfo> {
        let mut last_used = None;
        for (tally, layout) in self.own_tallies(at) {
            let (word, counts) = (tally.load(Ordering::Acquire), layout.counts());
            // A sealed tally does not have the time of its last charge.
            let used = !layout.is_reservation(word)
                && (0..layout.len()).any(|window| {
                    counts.current(word, window) > 0 || counts.previous(word, window) > 0
                });
            let stamp = Timestamp::from_unix_ms(layout.stamp_start_ms(layout.stamp(word)));
            last_used = last_used.max(used.then_some(stamp));
        }
        let tally = shown(&self.layout, at.tally(), now);
        let limits = self.limits(record.plan);
        let quotas = if self.is_extended() && is_unlimited(&limits) {
            Quotas::NONE
        } else {
            decide::quotas(&self.layout, &limits, tally, now)
        };
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
            last_used,
            clock_ahead_s: quotas.ahead_s(now),
            quotas,
            scopes: self.entry_now(at.number).scopes,
            record: at.number,
        })
    }
}

/// Returns the numbers of the peppers that the valid secrets of a key are under, each once.
pub(super) fn needed_peppers(record: &Record, now: Timestamp) -> impl Iterator<Item = u8> {
    let current = (!record.has_ended(now)).then_some(record.pepper);
    let previous = record.previous_until(now).map(|_| record.previous_pepper);
    current.into_iter().chain(previous.filter(|_| previous != current))
}

/// Returns the word of a tally as it is shown. A sealed one has its counts and the present time:
/// the windows of its last charge are not known.
pub(super) fn shown(layout: &Layout, tally: &AtomicU64, now: Timestamp) -> u64 {
    let word = tally.load(Ordering::Acquire);
    if layout.is_reservation(word) { layout.with_stamp(word, layout.stamp_at(now)) } else { word }
}
