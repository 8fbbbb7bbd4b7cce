//! A key and the tallies that a request charges, as a part of a compound charge.

use core::fmt;

use super::check::update_verified;
use super::extension::{Location, is_unlimited};
use super::extras::Extras;
use super::plan::TallyLimits;
use super::refusal::Refusal;
use super::table::{Gate, holder};
use super::team::Team;
use crate::cache_line::CacheLine;
use crate::compare_exchange;
use crate::compound::{Charging, Compound, Exchange, Steps, charge_one};
use crate::decide::{self, Decision};
use crate::key::KeyId;
use crate::outcome::{Outcome, Reason};
use crate::quota::{Limits, MAX_QUOTAS};
use crate::record::{Record, RecordRef};
use crate::reservation::{Reserve, TallyNumbers};
use crate::section::{MAX_GROUP_NAME_LEN, MAX_TALLIES, Section, SectionName};
use crate::sections::MAX_WARNINGS;
use crate::sync::{AtomicU64, Ordering};
use crate::tally::Layout;
use crate::tally_verdict::{TallyVerdict, TallyWarnings};
use crate::text::Text;
use crate::time::{Clock, Timestamp};
use crate::verdict::{Holder, Verdict};

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
    groups: Groups,
    /// The scopes that the key must have, one bit each.
    scopes: u64,
    extras: Option<Extras<'g>>,
}

/// The groups that a request names, by the numbers of their sections.
#[derive(Clone, Copy, Debug, Default)]
struct Groups {
    /// A bit for each group, and for each with a cost of its own.
    named: u8,
    costed: u8,
    costs: [u32; MAX_TALLIES],
}

impl Groups {
    fn name(&mut self, section: usize, cost: Option<u32>) {
        let bit = 1 << section;
        self.named |= bit;
        match (cost, self.costs.get_mut(section)) {
            (Some(cost), Some(own)) => (self.costed, *own) = (self.costed | bit, cost),
            _ => self.costed &= !bit,
        }
    }
}

// A bit of a byte for each section.
const _: () = assert!(MAX_TALLIES <= 8);

/// The record whose secret was verified, and its team with its number.
struct Verified<'g> {
    at: RecordRef<'g>,
    record: Record,
    team: Option<(u32, Team)>,
}

/// A tally of a key or of its team: the word, its layout, the limits and the warnings.
type TallyRef<'g> = (&'g AtomicU64, &'g Layout, TallyLimits);

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
        GatePart { gate: self, api_key, cost, groups: Groups::default(), scopes: 0, extras: None }
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
        let named = SectionName::new(name).map(Section::Group);
        let is_it = |section: &Section| Some(*section) == named;
        let group = self.gate.sections().iter().position(is_it);
        self.groups.name(group.ok_or_else(|| RequestError::NoSuchGroup(beginning(name)))?, cost);
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

    /// Also counts the uses of the key and reserves what `extras` says, as all processes do that
    /// use the gate.
    #[must_use]
    pub fn with_extras(self, extras: Option<Extras<'g>>) -> Self {
        Self { extras, ..self }
    }

    /// Checks the key and then charges all its tallies, or none: [`check_all`](crate::check_all) of
    /// this part alone.
    #[inline(never)]
    pub fn check<C: Clock>(self, clock: C) -> Compound {
        charge_one(&self, true, clock)
    }

    /// Returns what [`check`](Self::check) would return now, and charges nothing.
    pub fn peek<C: Clock>(self, clock: C) -> Compound {
        charge_one(&self, false, clock)
    }

    /// Returns the cost of the request for a section, and which of its costs that is: 0 for the
    /// request's own, else the number of the section. `None` if the request does not charge it.
    #[inline]
    fn cost_of(&self, number: usize, section: &Section) -> Option<(u32, u8)> {
        let Groups { named, costed, costs } = &self.groups;
        if costed >> number & 1 == 1 {
            return Some((*costs.get(number)?, u8::try_from(number).ok()?));
        }
        let is_charged = !matches!(section, Section::Group(_)) || named >> number & 1 == 1;
        is_charged.then_some((self.cost, 0))
    }

    /// Verifies the key at `now`, and compares its scopes and the state of its team. The error is
    /// the verdict of a request that is refused.
    #[expect(clippy::result_large_err, reason = "the verdict is stored, and core has no heap")]
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn verify(&self, now: &mut Timestamp, clock: impl Clock) -> Result<Verified<'g>, Verdict> {
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
            let team = number.and_then(|number| Some((number, gate.team(number)?)));
            match &team {
                None if gate.team_capacity() > 0 => return Err(invalid(Reason::Damaged)),
                Some((_, team)) if team.is_suspended => return Err(invalid(Reason::Suspended)),
                _ => {}
            }
            if self.scopes & !entry.scopes != 0 {
                let mut verdict = Verdict::refused(Outcome::Forbidden, None, *now);
                verdict.holder = holder(&record);
                return Err(verdict);
            }
            return Ok(Verified { at, record, team });
        }
    }

    /// Returns a tally of a verified key; `None` if the key does not have it.
    #[inline]
    fn tally(&self, verified: &Verified<'g>, tally: usize) -> Option<TallyRef<'g>> {
        let Verified { at, record, team } = verified;
        let number = team.as_ref().map(|&(number, _)| number);
        let (atomic, layout) = self.gate.tally_word(*at, number, tally)?;
        let team = team.as_ref().map(|(_, team)| team);
        Some((atomic, layout, self.gate.limits_of_tally(record.plan, team, tally)))
    }

    /// Decides about every tally that the request charges. Returns `None` if the record was changed
    /// since it was verified, or if the key ended.
    #[inline]
    fn decide_all<'p>(
        &'p self,
        verified: &Verified<'g>,
        now: &mut Timestamp,
        charging: &mut Charging<'_, 'p>,
        clock: impl Clock,
    ) -> Option<()> {
        let gate = self.gate;
        let holder = holder(&verified.record);
        let id = gate.id();
        for tally in 0..gate.tally_count() {
            let number = gate.section_number(tally);
            let section = gate.sections().get(number).unwrap_or(&Section::Key);
            let Some((cost, unit)) = self.cost_of(number, section) else { continue };
            let (atomic, layout, (limits, warnings)) = self.tally(verified, tally)?;
            let section = Some(*section);
            if gate.is_extended() && is_unlimited(&limits) {
                if tally == 0 {
                    // The first verdict is that of the key, even if its plan does not limit it.
                    let mut verdict = Verdict::refused(Outcome::Admitted, None, *now);
                    verdict.holder = holder;
                    let verdict = verdict.without_charge();
                    charging.add(TallyVerdict { section, ..TallyVerdict::new(verdict) });
                }
                continue;
            }
            let decided = decide_now(verified, atomic, layout, &limits, cost, now, clock)?;
            let Some((word, decision)) = decided else {
                add_unavailable(charging, section, holder, *now);
                continue;
            };
            let verdict = Verdict::decided(layout, &limits, decision, holder, *now, cost);
            let exchange = Exchange { layout, atomic, word, next: decision.next };
            let tally = u8::try_from(tally).unwrap_or(u8::MAX);
            charging.add_tally(
                TallyVerdict { part: 0, tally, unit, section, warnings, is_warned: false, verdict },
                (id, gate.position_of(atomic)),
                Some(exchange),
            );
        }
        Some(())
    }
}

/// Adds the verdict on a sealed tally.
#[cold]
#[inline(never)]
fn add_unavailable(
    charging: &mut Charging<'_, '_>,
    section: Option<Section>,
    holder: Option<Holder>,
    now: Timestamp,
) {
    let verdict = Verdict::unavailable(holder, now);
    charging.add(TallyVerdict { section, ..TallyVerdict::new(verdict) });
}

/// The word of a tally, and the decision of a check on it.
type Decided = (u64, Decision);

/// Returns the decision of a check on a tally, which is not written; `Some(None)` if the tally is
/// sealed. Returns `None` if the record was changed since it was verified, or if the key ended.
#[inline]
fn decide_now<C: Clock>(
    verified: &Verified<'_>,
    atomic: &AtomicU64,
    layout: &Layout,
    limits: &Limits,
    cost: u32,
    now: &mut Timestamp,
    clock: C,
) -> Option<Option<Decided>> {
    let Verified { at, record, .. } = verified;
    let word = atomic.load(Ordering::Acquire);
    if at.is_unchanged(record) && layout.is_decidable::<C>(word, *now) {
        let decision = decide::check(layout, limits, word, *now, cost);
        if decide::is_final(decision, clock) {
            return Some(Some((word, decision)));
        }
    }
    decide_slow(verified, (atomic, layout), limits, cost, now, clock)
}

/// Decides as [`decide_now`] does if the clock must be read again, or the tally corrected.
#[cold]
fn decide_slow<C: Clock>(
    Verified { at, record, .. }: &Verified<'_>,
    (atomic, layout): (&AtomicU64, &Layout),
    limits: &Limits,
    cost: u32,
    now: &mut Timestamp,
    clock: C,
) -> Option<Option<Decided>> {
    let peeked = update_verified(*at, record, (atomic, layout), now, clock, |word, now| {
        decide::peek(layout, limits, word, now, cost)
    })?;
    if peeked.outcome == Outcome::Unavailable {
        return Some(None);
    }
    // A peek leaves the word as it is.
    Some(Some((peeked.next, decide::check(layout, limits, peeked.next, *now, cost))))
}

impl<M: AsRef<[CacheLine]>, C: Clock> Steps<C> for GatePart<'_, M> {
    fn fetch(&self) {
        if let Some(text) = self.api_key {
            self.gate.fetch(text);
        }
    }

    fn probe<'p>(&'p self, charging: &mut Charging<'_, 'p>, clock: C) {
        let mut now = clock.reading();
        let before = charging.mark();
        loop {
            let verified = match self.verify(&mut now, clock) {
                Ok(verified) => verified,
                Err(verdict) => return charging.add(TallyVerdict::new(verdict)),
            };
            if self.decide_all(&verified, &mut now, charging, clock).is_some() {
                return;
            }
            // The key may have expired, or an administrator changed the record.
            charging.return_to(before);
            now = clock.at_least(now);
        }
    }

    fn charge(&self, charged: &mut TallyVerdict, clock: C) {
        let cost = charged.verdict.cost();
        let mut now = clock.reading();
        loop {
            let verified = match self.verify(&mut now, clock) {
                Ok(verified) => verified,
                Err(verdict) => {
                    *charged = TallyVerdict { part: charged.part, ..TallyVerdict::new(verdict) };
                    return;
                }
            };
            let Some((atomic, layout, (mut limits, warnings))) =
                self.tally(&verified, charged.tally.into())
            else {
                return charged.verdict = Verdict::invalid(Reason::Damaged, None, now);
            };
            let mut cost = cost;
            if self.gate.is_extended() && is_unlimited(&limits) {
                // The plan has lost this limit since the probe, so nothing is charged.
                (limits, cost) = (Limits([u32::MAX; MAX_QUOTAS]), 0);
            }
            let Verified { at, record, .. } = &verified;
            let tally = (atomic, layout);
            let decided = update_verified(*at, record, tally, &mut now, clock, |word, now| {
                decide::check(layout, &limits, word, now, cost)
            });
            if let Some(decision) = decided {
                let holder = holder(record);
                if decision.outcome == Outcome::Unavailable {
                    charged.verdict = Verdict::unavailable(holder, now);
                    return;
                }
                charged.warnings = warnings;
                charged.verdict = Verdict::decided(layout, &limits, decision, holder, now, cost);
                return;
            }
            now = clock.at_least(now);
        }
    }

    #[inline]
    fn has_extras(&self) -> bool {
        self.extras.is_some()
    }

    fn reservation(&self) -> Option<(&dyn Reserve, &dyn TallyNumbers)> {
        Some((self.extras?.reservation?, self.gate))
    }

    fn count(&self, part: usize, compound: &Compound) {
        if let Some(usage) = self.extras.and_then(|extras| extras.usage) {
            self.gate.count_part(usage, self.api_key, self.cost, part, compound);
        }
    }

    fn refund(&self, tally: &TallyVerdict, clock: C) -> Option<Verdict> {
        let charge = tally.verdict.charge()?.first();
        let key_id = tally.verdict.holder()?.key_id;
        self.gate.refund_tally(key_id, tally.tally.into(), charge, clock)
    }
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the record of a key whose secret is right, or why the key is refused.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn verify_key(&self, text: &[u8], now: Timestamp) -> Result<(RecordRef<'_>, Record), Refusal> {
        match self.verify_own(text, now, |at| self.fetch_entry(at)) {
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
            self.fetch_entry(at);
        }
    }

    /// Loads the entry of a record and the team that it names, as [`fetch`](Self::fetch) does.
    #[inline]
    fn fetch_entry(&self, at: RecordRef<'_>) {
        if self.extension.is_some() {
            let team = self.entry_now(at.number).team.checked_sub(1);
            let team = team.and_then(|number| self.team_at(number));
            core::hint::black_box(team.map(|at| at.tally().load(Ordering::Relaxed)));
        }
    }

    /// Returns the limits of a tally under the plan of a key, or of its team, and the warnings.
    #[inline]
    pub(super) fn limits_of_tally(
        &self,
        plan: u8,
        team: Option<&Team>,
        tally: usize,
    ) -> TallyLimits {
        let Some(extension) = &self.extension else {
            return (self.limits(plan), [[0; MAX_WARNINGS]; MAX_QUOTAS]);
        };
        let (plan, own) = match (extension.location(tally), team) {
            (Location::Team(position), Some(team)) => {
                (team.plan, team.limits.as_ref().and_then(|all| all.get(position)))
            }
            _ => (plan, None),
        };
        let (limits, warnings) = self.tally_limits(extension, plan, tally);
        (own.copied().unwrap_or(limits), warnings)
    }

    /// Returns the word of every tally with its layout: those of all records, free ones too, and of
    /// all teams.
    pub(super) fn all_tallies(&self) -> impl Iterator<Item = (&AtomicU64, &Layout)> {
        let of_keys = self.records().flat_map(|at| self.own_tallies(at));
        of_keys.chain(self.team_numbers().flat_map(|number| self.team_tallies(number)))
    }

    /// Returns the position of a tally among all words of the gate.
    #[inline]
    fn position_of(&self, tally: &AtomicU64) -> u64 {
        let first = self.memory.as_ref().as_ptr().addr();
        (core::ptr::from_ref(tally).addr() - first) as u64
    }

    /// Returns the position of a key's tally among all words of the gate; 0 if the key does not
    /// have it.
    pub(super) fn position_of_key(&self, key_id: KeyId, tally: usize) -> u64 {
        let at = self.record_of(key_id);
        let team = self.entry_now(at.number).team.checked_sub(1);
        self.tally_word(at, team, tally).map_or(0, |(atomic, _)| self.position_of(atomic))
    }

    /// Applies `decide` to a tally of a key id, for callers that do not have the secret. Returns
    /// `None` if the gate does not have the key, or if the key does not have the tally. If the
    /// tally is sealed, nothing changes, and the outcome is [`Outcome::Unavailable`].
    pub(super) fn adjust_tally(
        &self,
        key_id: KeyId,
        tally: usize,
        clock: impl Clock,
        decide: impl Fn(&Layout, &Limits, u64, Timestamp) -> Decision,
    ) -> Option<Verdict> {
        self.adjust_warned(key_id, tally, clock, decide).map(|(verdict, _)| verdict)
    }

    /// Does what [`adjust_tally`](Self::adjust_tally) does. Also returns the warnings of the tally.
    pub(super) fn adjust_warned(
        &self,
        key_id: KeyId,
        tally: usize,
        clock: impl Clock,
        decide: impl Fn(&Layout, &Limits, u64, Timestamp) -> Decision,
    ) -> Option<(Verdict, TallyWarnings)> {
        let mut now = clock.reading();
        loop {
            let (at, record) = self.find(key_id)?;
            let Some(entry) = self.entry(at, &record) else { continue };
            let team = entry.team.checked_sub(1);
            let (atomic, layout) = self.tally_word(at, team, tally)?;
            let its = team.and_then(|number| self.team(number));
            let (limits, warnings) = self.limits_of_tally(record.plan, its.as_ref(), tally);
            let decision =
                compare_exchange::update(atomic, layout, &mut now, clock, |word, now| {
                    at.is_unchanged(&record).then(|| decide(layout, &limits, word, now))
                });
            if let Some(decision) = decision {
                let holder = holder(&record);
                if decision.outcome == Outcome::Unavailable {
                    return Some((Verdict::unavailable(holder, now), warnings));
                }
                let verdict = Verdict::decided(layout, &limits, decision, holder, now, 0);
                return Some((verdict.without_charge(), warnings));
            }
        }
    }
}
