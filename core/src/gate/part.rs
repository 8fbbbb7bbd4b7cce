//! A key and the tallies that a request charges, as a part of a compound charge.

use core::fmt;

use heapless::Vec;

use super::check::update_verified;
use super::extension::{Location, is_unlimited};
use super::plan::TallyLimits;
use super::refusal::Refusal;
use super::table::{Gate, holder};
use super::team::Team;
use crate::bits::index;
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::charge::TallyCharge;
use crate::compare_exchange;
use crate::compound::{Compound, Position, Steps, TallyVerdict, charge_in_order};
use crate::decide::{self, Decision};
use crate::key::KeyId;
use crate::outcome::{Outcome, Reason};
use crate::quota::{Limits, MAX_QUOTAS};
use crate::record::{Record, RecordRef, TALLY};
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
/// use keytally_core::{
///     CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Peppers, Plan, Sections, Timestamp,
/// };
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
/// let verdicts = gate.part(key, 1).with_group("write")?.check(now);
/// let left = verdicts.verdicts().map(|verdict| verdict.remaining().unwrap());
/// assert!(left.eq([99, 149, 9]), "the key, its team, and the group");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct GatePart<'g, M> {
    gate: &'g Gate<M>,
    api_key: Option<&'g [u8]>,
    cost: u32,
    /// The numbers of the sections of groups that the request names, and the costs of those that
    /// have their own.
    groups: Vec<(usize, Option<u32>), MAX_TALLIES>,
    /// The scopes that the key must have, one bit each.
    scopes: u64,
    /// What the probe verified.
    verified: Option<Verified<'g>>,
    /// The verdict of a part without tallies.
    refused: Option<Verdict>,
    held: Vec<Held, MAX_TALLIES>,
}

/// The record whose secret was verified, and the number of its team.
#[derive(Clone, Copy, Debug)]
struct Verified<'g> {
    at: RecordRef<'g>,
    record: Record,
    team: Option<u32>,
}

/// What a part knows of a tally.
#[derive(Clone, Copy, Debug)]
struct Held {
    tally: usize,
    /// Which of the request's costs it is charged: 0 for the request's own.
    unit: u8,
    cost: u32,
    limits: Limits,
    warnings: [Warnings; MAX_QUOTAS],
    /// The word that the decision was made for, and the time of the decision.
    word: u64,
    now: Timestamp,
    decision: Decision,
    is_charged: bool,
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
        GatePart {
            gate: self,
            api_key,
            cost,
            groups: Vec::new(),
            scopes: 0,
            verified: None,
            refused: None,
            held: Vec::new(),
        }
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
            |section: &Section| matches!(section, Section::Group(_)) && section.name() == name;
        let group = self.gate.sections().iter().position(is_it);
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
    pub fn check<C: Clock>(mut self, clock: C) -> Compound {
        if self.probe(clock) {
            charge_in_order(&mut [&mut self], clock);
        }
        Compound::of_parts::<C>(core::iter::once(&self))
    }

    /// Returns what [`check`](Self::check) would return now, and charges nothing.
    pub fn peek<C: Clock>(mut self, clock: C) -> Compound {
        self.probe(clock);
        Compound::of_parts::<C>(core::iter::once(&self))
    }

    /// Returns the cost of the request for a section, and which of its costs that is; `None` if the
    /// request does not charge the section.
    fn cost_of(&self, section: usize) -> Option<(u32, u8)> {
        if !matches!(self.gate.sections().get(section), Some(Section::Group(_))) {
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
    #[expect(clippy::result_large_err, reason = "the verdict is stored, and core has no heap")]
    fn verify(
        &self,
        now: &mut Timestamp,
        clock: impl Clock,
    ) -> Result<(Verified<'g>, Option<Team>), Verdict> {
        let gate = self.gate;
        let text = self.api_key.ok_or_else(|| Verdict::refused(Outcome::MissingKey, None, *now))?;
        loop {
            let (at, record) = gate
                .verify_key(text, *now)
                .map_err(|Refusal { reason, holder }| Verdict::invalid(reason, holder, *now))?;
            let Some(entry) = gate.entry(at, &record) else {
                *now = clock.at_least(*now);
                continue;
            };
            let invalid = |reason| Verdict::invalid(reason, holder(&record), *now);
            let number = entry.team.checked_sub(1);
            let team = number.and_then(|number| gate.team(number));
            match team {
                None if gate.team_capacity() > 0 => return Err(invalid(Reason::Damaged)),
                Some(team) if team.is_suspended => return Err(invalid(Reason::Suspended)),
                _ => {}
            }
            if self.scopes & !entry.scopes != 0 {
                let mut verdict = Verdict::refused(Outcome::Forbidden, None, *now);
                verdict.holder = holder(&record);
                return Err(verdict);
            }
            return Ok((Verified { at, record, team: number }, team));
        }
    }

    /// Decides about every tally that the request charges. Returns `None` if the record was changed
    /// since it was verified, or if the key ended.
    fn decide_all(
        &mut self,
        verified: &Verified<'g>,
        team: Option<&Team>,
        now: &mut Timestamp,
        clock: impl Clock,
    ) -> Option<bool> {
        self.held.clear();
        let mut have_room = true;
        for tally in 0..self.gate.tally_count() {
            let Some((cost, unit)) = self.cost_of(self.gate.section_number(tally)) else {
                continue;
            };
            let plan = verified.record.plan;
            let (limits, warnings) = self.gate.limits_of_tally(plan, team, tally);
            if self.gate.is_extended() && is_unlimited(&limits) {
                continue;
            }
            let (atomic, layout) = self.gate.tally_word(verified.at, verified.team, tally)?;
            let (word, decision) = decide_now(verified, atomic, layout, &limits, cost, now, clock)?;
            have_room &= decision.outcome == Outcome::Admitted;
            // There is room for every tally of a gate.
            let now = *now;
            let is_charged = false;
            let _ = self.held.push(Held {
                tally,
                unit,
                cost,
                limits,
                warnings,
                word,
                now,
                decision,
                is_charged,
            });
        }
        Some(have_room)
    }

    /// Charges a tally whose word or record changed since it was probed.
    #[cold]
    fn charge_slow(&mut self, index: usize, clock: impl Clock) -> bool {
        let mut held = self.held[index];
        held.now = clock.reading();
        loop {
            let (verified, team) = match self.verify(&mut held.now, clock) {
                Ok(verified) => verified,
                Err(verdict) => {
                    self.refused = Some(verdict);
                    return false;
                }
            };
            self.verified = Some(verified);
            let plan = verified.record.plan;
            (held.limits, held.warnings) =
                self.gate.limits_of_tally(plan, team.as_ref(), held.tally);
            if self.gate.is_extended() && is_unlimited(&held.limits) {
                // The plan has lost this limit since the probe, so nothing is charged.
                held.limits = Limits([u32::MAX; MAX_QUOTAS]);
                held.cost = 0;
            }
            let Some((atomic, layout)) =
                self.gate.tally_word(verified.at, verified.team, held.tally)
            else {
                return false;
            };
            let Verified { at, record, .. } = verified;
            let tally = (atomic, layout);
            let decided = update_verified(at, &record, tally, &mut held.now, clock, |word, now| {
                decide::check(layout, &held.limits, word, now, held.cost)
            });
            if let Some(decision) = decided {
                held.is_charged = decision.outcome == Outcome::Admitted;
                (held.word, held.decision) = (decision.next, decision);
                self.held[index] = held;
                return held.is_charged;
            }
            held.now = clock.at_least(held.now);
        }
    }
}

/// Returns the word of a tally and the decision of a check on it, which is not written. Returns
/// `None` if the record was changed since it was verified, or if the key ended.
#[inline]
fn decide_now<C: Clock>(
    verified: &Verified<'_>,
    atomic: &AtomicU64,
    layout: &Layout,
    limits: &Limits,
    cost: u32,
    now: &mut Timestamp,
    clock: C,
) -> Option<(u64, Decision)> {
    let Verified { at, record, .. } = verified;
    let word = atomic.load(Ordering::Acquire);
    if at.is_unchanged(record) && layout.is_decidable::<C>(word, *now) {
        let decision = decide::check(layout, limits, word, *now, cost);
        if decide::is_final(decision, clock) {
            return Some((word, decision));
        }
    }
    // The clock must be read again, or the tally corrected.
    let peeked = update_verified(*at, record, (atomic, layout), now, clock, |word, now| {
        decide::peek(layout, limits, word, now, cost)
    })?;
    // A peek leaves the word as it is.
    Some((peeked.next, decide::check(layout, limits, peeked.next, *now, cost)))
}

impl<M: AsRef<[CacheLine]>, C: Clock> Steps<C> for GatePart<'_, M> {
    fn fetch(&self) {
        if let Some(text) = self.api_key {
            self.gate.fetch(text);
        }
    }

    fn probe(&mut self, clock: C) -> bool {
        let mut now = clock.reading();
        loop {
            let (verified, team) = match self.verify(&mut now, clock) {
                Ok(verified) => verified,
                Err(verdict) => {
                    self.refused = Some(verdict);
                    return false;
                }
            };
            if let Some(have_room) = self.decide_all(&verified, team.as_ref(), &mut now, clock) {
                self.verified = Some(verified);
                return have_room;
            }
            // The key may have expired, or an administrator changed the record.
            now = clock.at_least(now);
        }
    }

    fn tallies(&self) -> usize {
        self.held.len()
    }

    fn position(&self, tally: usize) -> Position {
        let number = self.verified.map_or(0, |verified| {
            self.gate.position_of(verified.at.number, verified.team, self.held[tally].tally)
        });
        (self.gate.id(), number as u64)
    }

    fn charge(&mut self, tally: usize, clock: C) -> bool {
        let Held { tally: number, word, decision, .. } = self.held[tally];
        // A single attempt on the word that was probed, if the record is still the same.
        if let Some(verified) = &self.verified
            && let Some((atomic, _)) = self.gate.tally_word(verified.at, verified.team, number)
            && verified.at.is_unchanged(&verified.record)
            && (decision.next == word
                || compare_exchange::exchange_decided(atomic, word, decision.next).is_ok())
        {
            self.held[tally].is_charged = true;
            return true;
        }
        self.charge_slow(tally, clock)
    }

    fn give_back(&mut self, tally: usize, clock: C) {
        let held = &mut self.held[tally];
        held.is_charged = false;
        let Some(verified) = &self.verified else { return };
        let (Some(key_id), Some((_, layout))) =
            (verified.record.key_id, self.gate.tally_word(verified.at, verified.team, held.tally))
        else {
            return;
        };
        let at = decide::quotas(layout, &held.limits, held.decision.next, held.now).time();
        let charge = TallyCharge { cost: held.cost, at };
        let returned = self.gate.refund_tally(key_id, held.tally, charge, clock);
        // If the gate has lost the key, its counts are not shown.
        if let Some(word) = returned.map(|verdict| verdict.word()) {
            held.word = word;
        }
    }

    fn report(&self, report: &mut dyn FnMut(TallyVerdict)) {
        if let Some(refused) = self.refused {
            return report(TallyVerdict::new(refused));
        }
        let Some(verified) = &self.verified else { return };
        let holder = holder(&verified.record);
        if self.held.first().is_none_or(|first| first.tally > 0) {
            // The first verdict is that of the key, even if its plan does not limit it.
            let mut verdict = Verdict::refused(Outcome::Admitted, None, Timestamp::from_unix_ms(0));
            verdict.holder = holder;
            report(TallyVerdict {
                section: Some(Section::Key),
                ..TallyVerdict::new(verdict.without_charge())
            });
        }
        for held in &self.held {
            let Some((_, layout)) = self.gate.tally_word(verified.at, verified.team, held.tally)
            else {
                continue;
            };
            let decision = match held.is_charged {
                true => held.decision,
                false => Decision { next: held.word, ..held.decision },
            };
            let mut verdict =
                Verdict::decided(layout, &held.limits, decision, holder, held.now, held.cost);
            if !held.is_charged {
                verdict = verdict.without_charge();
            }
            report(TallyVerdict {
                part: 0,
                tally: u8::try_from(held.tally).unwrap_or(u8::MAX),
                unit: held.unit,
                section: Some(self.gate.section_of(held.tally).clone()),
                warnings: held.warnings,
                verdict,
            });
        }
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
        plan: u8,
        team: Option<&Team>,
        tally: usize,
    ) -> TallyLimits {
        let none = [[0; MAX_WARNINGS]; MAX_QUOTAS];
        let Some(extension) = &self.extension else { return (self.limits(plan), none) };
        if let Location::Team(_) = extension.location(tally)
            && let Some(team) = team
        {
            let (_, warnings) = self.tally_limits(extension, team.plan, tally);
            return (self.team_limits(team, tally), warnings);
        }
        self.tally_limits(extension, plan, tally)
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
        match extension.location(tally) {
            Location::Record => in_record,
            Location::Entry(word) => extension.entry_position(record) + word,
            Location::Team(word) => extension.team_position(team.unwrap_or(0)) + TALLY + word,
        }
    }

    /// Returns the position of a key's tally among all words of the gate; 0 if the gate does not
    /// have the key.
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
            let its = team.and_then(|number| self.team(number));
            let (limits, _) = self.limits_of_tally(record.plan, its.as_ref(), tally);
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
