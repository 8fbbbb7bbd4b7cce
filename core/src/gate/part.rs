//! A key and the tallies that a request charges, as a part of a compound charge.

use core::fmt;

use heapless::Vec;

use super::extension::{Place, is_unlimited};
use super::refusal::Refusal;
use super::table::{Gate, holder};
use crate::bits::index;
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::compare_exchange;
use crate::compound::{Compound, PartsError, Position, Steps, TallyVerdict, check_all, peek_all};
use crate::decide::{self, Decision};
use crate::key::KeyId;
use crate::outcome::{Outcome, Reason};
use crate::quota::{Limits, MAX_QUOTAS};
use crate::record::{Record, RecordRef, RecordVersion, TALLY};
use crate::section::{MAX_GROUP_NAME_LEN, MAX_TALLIES, Section};
use crate::sections::{MAX_WARNINGS, Warnings};
use crate::sync::{AtomicU64, Ordering};
use crate::tally::Layout;
use crate::text::Text;
use crate::time::{Clock, Timestamp};
use crate::verdict::Verdict;

/// A key of a gate as a part of a compound charge. [`Gate::part`] returns it.
///
/// It charges every tally of the key's section and of its team, and those of the groups that were
/// added.
///
/// ```
/// use keytally_core::{CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Peppers, Plan, Sections};
/// use keytally_core::{Timestamp, check_all};
///
/// let sections: Sections = "100/minute; team: 150/minute; group write: 10/minute".parse()?;
/// let plans = [Plan::new("default", sections).unwrap()];
/// let config = GateConfig::new(64, Name::new("kt").unwrap(), &plans).with_teams(16);
/// let memory: Vec<CacheLine> = (0..config.lines()).map(|_| CacheLine::new()).collect();
/// let gate = Gate::init(memory, &config, Peppers::new(&[b"a pepper of at least 32 bytes ..."])?)?;
/// let now = Timestamp::from_unix_s(1_700_000_000);
/// let new = NewKey::new(42, Name::new("live").unwrap());
/// let (key, _) = gate.administer()?.issue(&new, Entropy::new([7; 24]), now)?;
///
/// let key = Some(key.expose().as_bytes());
/// let verdicts = gate.part(key, 1).with_group("write")?.check(now)?;
/// let left = verdicts.verdicts().map(|verdict| verdict.remaining().unwrap());
/// assert!(left.eq([99, 149, 9]), "the key, its team, and the group");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct GatePart<'g, M> {
    gate: &'g Gate<M>,
    api_key: Option<&'g [u8]>,
    cost: u32,
    /// The groups that the request names, and the costs of those that have their own.
    groups: Vec<(&'g Section, Option<u32>), MAX_TALLIES>,
    /// The scopes that the key must have, one bit each.
    scopes: u64,
    /// What the probe verified.
    verified: Option<Verified>,
}

/// The record whose secret was verified, and the number of its team.
#[derive(Clone, Copy, Debug)]
struct Verified {
    version: RecordVersion,
    team: Option<u32>,
}

/// Why a group or a scope cannot be named in a request: the gate does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// No plan of the gate has a group of this name.
    NoSuchGroup(Text<MAX_GROUP_NAME_LEN>),
    /// The gate has no scope of this name.
    NoSuchScope(Text<MAX_GROUP_NAME_LEN>),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchGroup(name) => write!(f, "the plans of this gate have no group \"{name}\""),
            Self::NoSuchScope(name) => write!(f, "this gate has no scope \"{name}\""),
        }
    }
}

impl core::error::Error for RequestError {}

/// Returns the beginning of a name, for an error.
fn beginning(name: &str) -> Text<MAX_GROUP_NAME_LEN> {
    let mut text = Text::new();
    for character in name.chars().filter(|character| !character.is_control()) {
        if !text.push(character) {
            break;
        }
    }
    text
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the key and a cost as a part of [`check_all`](crate::check_all). `api_key` is the
    /// value of the `X-API-Key` header, `None` when there was none.
    pub fn part<'g>(&'g self, api_key: Option<&'g [u8]>, cost: u32) -> GatePart<'g, M> {
        GatePart { gate: self, api_key, cost, groups: Vec::new(), scopes: 0, verified: None }
    }
}

impl<'g, M: AsRef<[CacheLine]>> GatePart<'g, M> {
    /// Charges the request's cost to a group of the gate's plans, too.
    ///
    /// # Errors
    /// [`RequestError::NoSuchGroup`].
    pub fn with_group(self, name: &str) -> Result<Self, RequestError> {
        self.with(name, None)
    }

    /// Charges a cost of its own to a group of the gate's plans, for example the number of tokens.
    ///
    /// # Errors
    /// [`RequestError::NoSuchGroup`].
    pub fn with_group_cost(self, name: &str, cost: u32) -> Result<Self, RequestError> {
        self.with(name, Some(cost))
    }

    fn with(mut self, name: &str, cost: Option<u32>) -> Result<Self, RequestError> {
        let is_it =
            |section: &&Section| matches!(section, Section::Group(_)) && section.name() == name;
        let group = self.gate.sections().iter().find(is_it);
        let group = group.ok_or_else(|| RequestError::NoSuchGroup(beginning(name)))?;
        self.groups.retain(|(other, _)| *other != group);
        // There is room for as many groups as a gate has.
        let _ = self.groups.push((group, cost));
        Ok(self)
    }

    /// Requires that the key has a scope. If it does not, the outcome is [`Outcome::Forbidden`].
    ///
    /// # Errors
    /// [`RequestError::NoSuchScope`].
    pub fn with_scope(mut self, name: &str) -> Result<Self, RequestError> {
        let bit = self.gate.scope_bit(name);
        self.scopes |= bit.ok_or_else(|| RequestError::NoSuchScope(beginning(name)))?;
        Ok(self)
    }

    /// Checks the key and then charges all its tallies, or none: [`check_all`](crate::check_all) of
    /// this part alone.
    ///
    /// # Errors
    /// Never: a gate has at most as many tallies as a request may charge.
    pub fn check<C: Clock>(mut self, clock: C) -> Result<Compound, PartsError> {
        check_all(&mut [&mut self], clock)
    }

    /// Returns what [`check`](Self::check) would return now, and charges nothing.
    ///
    /// # Errors
    /// Never: see [`check`](Self::check).
    pub fn peek<C: Clock>(mut self, clock: C) -> Result<Compound, PartsError> {
        peek_all(&mut [&mut self], clock)
    }

    /// Returns the cost of the request for a section, and which of its costs that is; `None` if the
    /// request does not charge the section.
    fn cost_of(&self, section: &Section) -> Option<(u32, u8)> {
        if !matches!(section, Section::Group(_)) {
            return Some((self.cost, 0));
        }
        let position = self.groups.iter().position(|(group, _)| *group == section)?;
        match self.groups.get(position)?.1 {
            None => Some((self.cost, 0)),
            Some(cost) => Some((cost, u8::try_from(position + 1).ok()?)),
        }
    }

    /// Verifies the key at `now`, and compares its scopes and the state of its team. The error is
    /// the verdict of a request that is refused.
    ///
    /// If [`verified`](Self::verified) still has its version, the secret is not verified again.
    fn verify(
        &mut self,
        now: &mut Timestamp,
        clock: impl Clock,
    ) -> Result<(RecordRef<'g>, Record, Option<u32>), Verdict> {
        let gate = self.gate;
        let text = self.api_key.ok_or_else(|| Verdict::refused(Outcome::MissingKey, None, *now))?;
        if let Some(Verified { version, team }) = self.verified.take()
            && let Some((at, record)) = gate.find_version(version)
            && !record.has_ended(*now)
        {
            self.verified = Some(Verified { version, team });
            return Ok((at, record, team));
        }
        loop {
            let (at, record) = gate
                .verify_key(text, *now)
                .map_err(|Refusal { reason, holder }| Verdict::invalid(reason, holder, *now))?;
            let Some(entry) = gate.entry(at, &record) else {
                *now = clock.at_least(*now);
                continue;
            };
            let invalid = |reason| Verdict::invalid(reason, holder(&record), *now);
            let team = entry.team.checked_sub(1);
            if gate.team_capacity() > 0 {
                let team = team.and_then(|number| gate.team(number));
                if team.ok_or_else(|| invalid(Reason::Damaged))?.is_suspended {
                    return Err(invalid(Reason::Suspended));
                }
            }
            if self.scopes & !entry.scopes != 0 {
                let mut verdict = Verdict::refused(Outcome::Forbidden, None, *now);
                verdict.holder = holder(&record);
                return Err(verdict);
            }
            self.verified = Some(Verified { version: at.version(&record), team });
            return Ok((at, record, team));
        }
    }

    /// Applies `decide` to a tally of a key that was verified at `now`. Returns `None` if the key
    /// ended since, or if the record was reassigned.
    fn decide(
        &self,
        (at, record, team): (RecordRef<'g>, &Record, Option<u32>),
        tally: usize,
        now: &mut Timestamp,
        clock: impl Clock,
        cost: u32,
        decide: impl Fn(&Layout, &Limits, u64, Timestamp) -> Decision,
    ) -> Option<Verdict> {
        let (atomic, layout) = self.gate.tally_word(at, team, tally)?;
        let (limits, _) = self.gate.limits_of_tally(record, team, tally);
        let in_grace = record.is_in_grace(*now);
        let decision = compare_exchange::update(atomic, layout, now, clock, |word, now| {
            let is_valid = !record.has_ended(now) && record.is_in_grace(now) == in_grace;
            (is_valid && at.is_unchanged(record)).then(|| decide(layout, &limits, word, now))
        })?;
        Some(Verdict::decided(layout, &limits, decision, holder(record), *now, cost))
    }
}

impl<M: AsRef<[CacheLine]>, C: Clock> Steps<C> for GatePart<'_, M> {
    fn fetch(&self) {
        if let Some(text) = self.api_key {
            self.gate.fetch(text);
        }
    }

    fn probe(&mut self, clock: C, report: &mut dyn FnMut(TallyVerdict)) {
        let mut now = clock.reading();
        'again: loop {
            let (at, record, team) = match self.verify(&mut now, clock) {
                Ok(verified) => verified,
                Err(verdict) => return report(TallyVerdict::new(verdict)),
            };
            let mut verdicts = Vec::<TallyVerdict, MAX_TALLIES>::new();
            for tally in 0..self.gate.tally_count() {
                let section = self.gate.section_of(tally);
                let Some((cost, unit)) = self.cost_of(section) else { continue };
                let (limits, warnings) = self.gate.limits_of_tally(&record, team, tally);
                let verdict = if is_unlimited(&limits) {
                    // The first verdict is that of the key, even if nothing of it is counted.
                    if tally > 0 {
                        continue;
                    }
                    let mut verdict = Verdict::refused(Outcome::Admitted, None, now);
                    verdict.holder = holder(&record);
                    verdict
                } else {
                    let verified = (at, &record, team);
                    let decided = self.decide(
                        verified,
                        tally,
                        &mut now,
                        clock,
                        cost,
                        |layout, limits, word, now| decide::peek(layout, limits, word, now, cost),
                    );
                    let Some(verdict) = decided else {
                        // The key may have expired, or an administrator changed the record.
                        self.verified = None;
                        now = clock.at_least(now);
                        continue 'again;
                    };
                    verdict
                };
                // There is room for every tally of a gate.
                let _ = verdicts.push(TallyVerdict {
                    tally: u8::try_from(tally).unwrap_or(u8::MAX),
                    unit,
                    section: Some(section.clone()),
                    warnings,
                    ..TallyVerdict::new(verdict)
                });
            }
            return verdicts.into_iter().for_each(report);
        }
    }

    fn position(&self, tally: u8) -> Position {
        let number = self.verified.map_or(0, |verified| {
            self.gate.position_of(verified.version.number, verified.team, tally.into())
        });
        (self.gate.id(), number as u64)
    }

    fn charge(&mut self, tally: u8, clock: C) -> Verdict {
        let tally = usize::from(tally);
        let cost = self.cost_of(self.gate.section_of(tally)).map_or(0, |(cost, _)| cost);
        let mut now = clock.reading();
        loop {
            let (at, record, team) = match self.verify(&mut now, clock) {
                Ok(verified) => verified,
                Err(verdict) => return verdict,
            };
            let verified = (at, &record, team);
            let decided =
                self.decide(verified, tally, &mut now, clock, cost, |layout, limits, word, now| {
                    if is_unlimited(limits) {
                        // The plan has lost this limit since the probe.
                        return decide::peek(layout, &Limits([u32::MAX; MAX_QUOTAS]), word, now, 0);
                    }
                    decide::check(layout, limits, word, now, cost)
                });
            if let Some(verdict) = decided {
                return verdict;
            }
            self.verified = None;
            now = clock.at_least(now);
        }
    }

    fn give_back(&mut self, tally: u8, charged: &Verdict, clock: C) -> Option<Verdict> {
        let (key_id, charge) = (charged.holder()?.key_id, charged.charge()?.first());
        self.gate.adjust_tally(key_id, tally.into(), clock, |layout, limits, word, now| {
            decide::refund(layout, limits, word, now, charge)
        })
    }
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the record of a key whose secret is right, or why the key is refused.
    fn verify_key(&self, text: &[u8], now: Timestamp) -> Result<(RecordRef<'_>, Record), Refusal> {
        match self.verify_own(text, now) {
            Ok((at, record, None)) => Ok((at, record)),
            Ok((_, record, Some(reason))) => Err(Refusal { reason, holder: holder(&record) }),
            Err(reason) => self.verify_other(text, reason, now),
        }
    }

    /// Loads the memory of a key that is checked soon, and does not wait for it.
    fn fetch(&self, text: &[u8]) {
        if let Some((_, at)) = self.locate(text) {
            // Loads whose values are not used, which the compiler must not remove.
            core::hint::black_box(at.tally().load(Ordering::Relaxed));
            if self.extension.is_some() {
                core::hint::black_box(self.entry_now(at.number));
            }
        }
    }

    /// Returns the limits of a tally under the plan of a key, or of its team, and the warnings.
    pub(super) fn limits_of_tally(
        &self,
        record: &Record,
        team: Option<u32>,
        tally: usize,
    ) -> (Limits, [Warnings; MAX_QUOTAS]) {
        let none = [[0; MAX_WARNINGS]; MAX_QUOTAS];
        let Some(extension) = &self.extension else { return (self.limits(record.plan), none) };
        if let Place::Team(_) = extension.place(tally)
            && let Some(team) = team.and_then(|number| self.team(number))
        {
            let (_, warnings) = self.tally_limits(extension, team.plan, tally);
            return (self.team_limits(&team, tally), warnings);
        }
        self.tally_limits(extension, record.plan, tally)
    }

    /// Returns the word of every tally with its layout: those of all records, free ones too, and of
    /// all teams.
    pub(super) fn all_tallies(&self) -> impl Iterator<Item = (&AtomicU64, &Layout)> {
        let of_keys = self.records().flat_map(|at| self.own_tallies(at));
        of_keys.chain(self.team_numbers().flat_map(|number| self.team_tallies(number)))
    }

    /// Returns the position of a tally among all words of the gate.
    fn position_of(&self, record: u32, team: Option<u32>, tally: usize) -> usize {
        let in_record = (self.records_at + index(record.into())) * CACHE_LINE_WORDS + TALLY;
        let Some(extension) = &self.extension else { return in_record };
        match extension.place(tally) {
            Place::Record => in_record,
            Place::Entry(word) => extension.entry_position(record) + word,
            Place::Team(word) => extension.team_position(team.unwrap_or(0)) + TALLY + word,
        }
    }

    /// Returns the position of a key's tally among all words of the gate; 0 if the gate does not have
    /// the key.
    pub(super) fn position_of_key(&self, key_id: KeyId, tally: usize) -> usize {
        let at = self.record_of(key_id);
        self.position_of(at.number, self.entry_now(at.number).team.checked_sub(1), tally)
    }

    /// Applies `decide` to a tally of a key id, for callers that do not have the secret. Returns
    /// `None` if the gate does not have the key, or if the key does not have the tally.
    pub(super) fn adjust_tally(
        &self,
        key_id: KeyId,
        tally: usize,
        clock: impl Clock,
        decide: impl Fn(&Layout, &Limits, u64, Timestamp) -> Decision,
    ) -> Option<Verdict> {
        let mut now = clock.reading();
        loop {
            let (at, record) = self.find(key_id)?;
            let Some(entry) = self.entry(at, &record) else { continue };
            let team = entry.team.checked_sub(1);
            let (atomic, layout) = self.tally_word(at, team, tally)?;
            let (limits, _) = self.limits_of_tally(&record, team, tally);
            let decision =
                compare_exchange::update(atomic, layout, &mut now, clock, |word, now| {
                    at.is_unchanged(&record).then(|| decide(layout, &limits, word, now))
                });
            if let Some(decision) = decision {
                let holder = holder(&record);
                let verdict = Verdict::decided(layout, &limits, decision, holder, now, 0);
                return Some(verdict.without_charge());
            }
        }
    }
}
