//! Refunds and settlements of the charge of a request, which may have several tallies.

use core::cell::Cell;

use heapless::Vec;

use super::extension::is_unlimited;
use super::table::Gate;
use crate::cache_line::CacheLine;
use crate::charge::{Charge, Entry, TallyCharge};
use crate::compound::Compound;
use crate::decide::{self, Decision};
use crate::key::KeyId;
use crate::outcome::Outcome;
use crate::quota::Limits;
use crate::quotas::Quotas;
use crate::reservation::{Reserve, TallyNumbers};
use crate::section::MAX_TALLIES;
use crate::sort::sort_by_key;
use crate::tally::Layout;
use crate::tally_verdict::{TallyVerdict, TallyWarnings, newly_reached};
use crate::time::{Clock, Timestamp};
use crate::verdict::Verdict;

/// What a request really cost, for [`Gate::settle_all`].
///
/// ```
/// use keytally_core::Settlement;
/// let settlement = Settlement::new().with_group("tokens", 2310).with_overdraw(true);
/// assert!(settlement.overdraw);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settlement<'a> {
    /// The cost of the request itself; `None` if the estimate was right.
    pub cost: Option<u32>,
    groups: Vec<(&'a str, u32), MAX_TALLIES>,
    /// Whether units for which there is no room are counted, too. The windows are then above their
    /// limits, and deny requests for longer.
    pub overdraw: bool,
}

impl<'a> Settlement<'a> {
    /// A settlement in which all estimates were right.
    pub const fn new() -> Self {
        Self { cost: None, groups: Vec::new(), overdraw: false }
    }

    /// Sets the cost of the request itself.
    #[must_use]
    pub fn with_cost(self, cost: u32) -> Self {
        Self { cost: Some(cost), ..self }
    }

    /// Sets the cost of a group that was charged a cost of its own. Groups that are left out keep
    /// their estimates. The last cost of a group counts. If there are more groups than a request
    /// can charge, the last ones are ignored.
    #[must_use]
    pub fn with_group(mut self, name: &'a str, cost: u32) -> Self {
        match self.groups.iter_mut().find(|(other, _)| *other == name) {
            Some((_, own)) => *own = cost,
            None => drop(self.groups.push((name, cost))),
        }
        self
    }

    /// Sets whether units for which there is no room are counted, too.
    #[must_use]
    pub fn with_overdraw(self, overdraw: bool) -> Self {
        Self { overdraw, ..self }
    }
}

/// The result of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// The verdict on the first tally. Its [`uncharged`](Verdict::uncharged) is the part of the
    /// request's own cost that found no room.
    pub verdict: Verdict,
    uncharged: Vec<u32, MAX_TALLIES>,
    compound: Compound,
}

impl Settled {
    /// Returns the part of the cost of each group of the [`Settlement`] that found no room, in
    /// their order. For a group that was not charged a cost of its own, it is the whole cost.
    pub fn uncharged(&self) -> &[u32] {
        &self.uncharged
    }

    /// Returns the verdict on each tally of the charge, after the settlement.
    pub fn compound(&self) -> &Compound {
        &self.compound
    }

    /// Returns each warning that the settlement reached by units that it charged: the tally, the
    /// window's index and the percentage of its limit. See [`Compound::crossed`].
    pub fn crossed(&self) -> impl Iterator<Item = (&TallyVerdict, usize, u8)> {
        self.compound.crossed()
    }
}

/// A tally of a charge, and what it was charged.
type Charged = (usize, TallyCharge);

/// A settlement while it is made.
#[derive(Default)]
struct Settling {
    overdraw: bool,
    /// The warnings that were reached, by tally.
    reached: Vec<(usize, TallyWarnings), MAX_TALLIES>,
    /// Whether any tally was changed.
    is_begun: bool,
}

impl Settling {
    /// Adds the warnings that a charge of a tally reached.
    fn add(&mut self, tally: usize, warnings: &TallyWarnings) {
        let mut all = self.of(tally);
        for (all, warnings) in all.iter_mut().zip(warnings) {
            for percent in *warnings {
                if !all.contains(&percent) {
                    let free = all.iter_mut().find(|slot| **slot == 0);
                    free.into_iter().for_each(|slot| *slot = percent);
                }
            }
        }
        match self.reached.iter_mut().find(|(its, _)| *its == tally) {
            Some((_, its)) => *its = all,
            // There is room for every tally of a gate.
            None => drop(self.reached.push((tally, all))),
        }
    }

    /// Returns those of a tally.
    fn of(&self, tally: usize) -> TallyWarnings {
        let its = self.reached.iter().find(|(its, _)| *its == tally);
        its.map(|(_, warnings)| *warnings).unwrap_or_default()
    }
}

/// A charge of a key for which units are reserved.
#[derive(Clone, Copy)]
struct Reserved<'r> {
    reservation: &'r dyn Reserve,
    gate: &'r dyn TallyNumbers,
    key_id: KeyId,
    charge: &'r Charge,
}

impl Reserved<'_> {
    fn refund(&self, tally: usize, charge: TallyCharge) {
        self.reservation.refund(self.gate, Some(self.key_id), tally, charge);
    }

    fn reserve_more(&self, tallies: &[usize], most: u32, now: Timestamp) -> u32 {
        self.reservation.reserve_more(self.gate, Some(self.key_id), tallies, most, now)
    }
}

/// The difference of one cost of a charge between its estimate and its actual cost, in units that
/// are reserved.
#[derive(Clone, Copy, Debug, Default)]
struct Difference {
    unit: u8,
    /// The units that are to be released.
    less: u32,
    /// The units that were reserved.
    more: u32,
    /// The units that could not be reserved.
    lacking: u32,
}

impl Difference {
    /// Reserves what the actual cost is above the estimate, and lowers it to what is reserved.
    fn reserve(reserved: Reserved<'_>, unit: u8, actual: &mut u32, now: Timestamp) -> Self {
        let mut tallies = Vec::<usize, MAX_TALLIES>::new();
        let mut estimated = 0;
        for entry in reserved.charge.entries().filter(|entry| entry.unit == unit) {
            estimated = entry.charge().cost;
            // There is room for every tally of a gate.
            let _ = tallies.push(entry.tally.into());
        }
        let wanted = actual.saturating_sub(estimated);
        let more = match wanted {
            0 => 0,
            _ if tallies.is_empty() => return Self::default(),
            _ => reserved.reserve_more(&tallies, wanted, now).min(wanted),
        };
        *actual -= wanted - more;
        Self { unit, less: estimated.saturating_sub(*actual), more, lacking: wanted - more }
    }

    /// Releases what the settlement gave back: what the actual cost is below the estimate, and what
    /// was reserved and not charged. Returns the units that were not charged in total.
    fn finish(&self, reserved: Reserved<'_>, uncharged: u32, now: Timestamp) -> u32 {
        for entry in
            reserved.charge.entries().filter(|entry| entry.unit == self.unit && self.less > 0)
        {
            let charge = TallyCharge { cost: self.less, ..entry.charge() };
            reserved.refund(entry.tally.into(), charge);
        }
        self.give_back(reserved, uncharged, now);
        uncharged.saturating_add(self.lacking)
    }

    /// Releases at most `units` of those that were reserved.
    fn give_back(&self, reserved: Reserved<'_>, units: u32, now: Timestamp) {
        let cost = units.min(self.more);
        for entry in reserved.charge.entries().filter(|entry| entry.unit == self.unit && cost > 0) {
            reserved.refund(entry.tally.into(), TallyCharge { cost, at: now });
        }
    }
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the units of `charge` to the windows that still count them, in all tallies. Refund
    /// each charge once. Returns the verdict on the first tally, or `None` if the gate does not
    /// have the key.
    ///
    /// If the outcome is [`Outcome::Unavailable`], nothing was returned. If only later tallies are
    /// sealed, they keep their units.
    pub fn refund(&self, key_id: KeyId, charge: Charge, clock: impl Clock) -> Option<Verdict> {
        let mut first = None;
        for entry in charge.entries() {
            let returned = if entry.charge().at < self.refunds_from() {
                // The tally with this number may be another one by now.
                self.adjust_tally(key_id, 0, clock, |layout, limits, word, now| {
                    decide::peek(layout, limits, word, now, 0)
                })
            } else {
                self.refund_tally(key_id, entry.tally.into(), entry.charge(), clock)
            };
            first = first.or(returned);
            if first.is_some_and(|first| first.outcome() == Outcome::Unavailable) {
                break;
            }
        }
        first
    }

    /// Returns units that a refused request of the gate `old` could not give back, because its
    /// counts were moving to this gate: see [`Compound::charge`]. They return to the windows that
    /// both gates count in. `old` may also be this gate, whose migration was undone.
    ///
    /// Nothing was reserved for the request, and its use was not counted, so both stay as they are.
    /// If this gate is not the direct successor of `old`, nothing is returned. Returns the verdict
    /// on the first tally, or `None` if the gate does not have the key.
    ///
    /// If the outcome is [`Outcome::Unavailable`], nothing was returned. If only later tallies are
    /// sealed, they keep their units.
    pub fn refund_left<O: AsRef<[CacheLine]>>(
        &self,
        old: &Gate<O>,
        key_id: KeyId,
        charge: Charge,
        clock: impl Clock,
    ) -> Option<Verdict> {
        let is_next = old.successor().is_some_and(|successor| successor.is(self));
        let mut first = None;
        for entry in charge.entries().filter(|_| is_next || old.id() == self.id()) {
            let (tally, charge) = (usize::from(entry.tally), entry.charge());
            if !old.has_tally(tally) {
                continue;
            }
            let (section, windows) = (old.section_of(tally), old.layout_of(tally).windows());
            for own in (0..self.tally_count()).filter(|&own| self.section_of(own) == section) {
                let returned =
                    self.adjust_tally(key_id, own, clock, |layout, limits, word, now| {
                        let has = |window| windows.contains(&window);
                        decide::refund_in(layout, limits, word, now, charge, has)
                    });
                first = first.or(returned);
                if first.is_some_and(|first| first.outcome() == Outcome::Unavailable) {
                    return first;
                }
            }
        }
        first
    }

    /// Returns whether a charge was made before its tallies may have become others: see
    /// [`refunds_from`](Self::refunds_from).
    pub(super) fn is_outdated(&self, charge: &Charge) -> bool {
        charge.entries().any(|entry| entry.charge().at < self.refunds_from())
    }

    /// Returns the units of a charge to one tally. This gate made the charge.
    pub(super) fn refund_tally(
        &self,
        key_id: KeyId,
        tally: usize,
        charge: TallyCharge,
        clock: impl Clock,
    ) -> Option<Verdict> {
        self.adjust_tally(key_id, tally, clock, |layout, limits, word, now| {
            decide::refund(layout, limits, word, now, charge)
        })
    }

    /// Replaces an estimate by the actual cost of the request: refunds the difference, or charges
    /// it as far as there is room in every tally.
    ///
    /// The verdict's [`uncharged`](Verdict::uncharged) is the part that found no room. Settle each
    /// charge once. Returns `None` if the gate does not have the key. Groups that were charged a
    /// cost of their own keep it: see [`settle_all`](Self::settle_all).
    pub fn settle(
        &self,
        key_id: KeyId,
        estimate: Charge,
        actual: u32,
        clock: impl Clock,
    ) -> Option<Verdict> {
        let settlement = Settlement::new().with_cost(actual);
        self.settle_all(key_id, estimate, &settlement, clock).map(|settled| settled.verdict)
    }

    /// Replaces the estimates of a charge by the actual costs. Each cost is settled for itself: the
    /// difference is refunded, or charged to all its tallies as far as the smallest room allows.
    ///
    /// Settle each charge once. Returns `None` if the gate does not have the key. If the outcome is
    /// [`Outcome::Unavailable`], nothing was settled.
    pub fn settle_all(
        &self,
        key_id: KeyId,
        estimate: Charge,
        settlement: &Settlement<'_>,
        clock: impl Clock,
    ) -> Option<Settled> {
        let mut settling = Settling { overdraw: settlement.overdraw, ..Settling::default() };
        let mut own = 0;
        if let Some(actual) = settlement.cost {
            own = self.settle_unit(key_id, &estimate, 0, actual, &mut settling, clock)?;
        }
        let mut uncharged = Vec::new();
        for &(name, actual) in &settlement.groups {
            let its = |entry: &&Entry| {
                entry.unit > 0 && self.section_of(entry.tally.into()).name() == name
            };
            let rest = match estimate.entries().find(its) {
                Some(entry) => {
                    self.settle_unit(key_id, &estimate, entry.unit, actual, &mut settling, clock)?
                }
                // There is no estimate to replace.
                None => actual,
            };
            // There is room for as many as the settlement has.
            let _ = uncharged.push(rest);
        }
        let mut compound = Compound::new();
        // Tallies that were charged before may be others by now.
        let from = self.refunds_from();
        for entry in estimate.entries().filter(|entry| entry.charge().at >= from) {
            let tally = usize::from(entry.tally);
            if self.has_tally(tally) {
                compound.push(self.settled_tally(key_id, tally, entry.unit, &settling, clock)?);
            }
        }
        if compound.tallies().is_empty() {
            compound.push(self.settled_tally(key_id, 0, 0, &settling, clock)?);
        }
        let first = compound.tallies_mut().first_mut()?;
        first.verdict.uncharged = own;
        Some(Settled { verdict: first.verdict, uncharged, compound })
    }

    /// Settles a charge as [`settle_all`](Self::settle_all) does, and releases or reserves the
    /// differences. Units above an estimate that cannot be reserved are not charged. There is no
    /// overdraft of a reservation.
    pub(super) fn settle_reserved(
        &self,
        reservation: &dyn Reserve,
        key_id: KeyId,
        estimate: Charge,
        settlement: &Settlement<'_>,
        clock: impl Clock,
    ) -> Option<Settled> {
        if estimate.is_unreserved() || self.is_outdated(&estimate) {
            return self.settle_all(key_id, estimate, settlement, clock);
        }
        let now = clock.reading();
        let reserved = Reserved { reservation, gate: self, key_id, charge: &estimate };
        let mut limited = Settlement { overdraw: false, ..settlement.clone() };
        let mut own = Difference::default();
        if let Some(actual) = &mut limited.cost {
            own = Difference::reserve(reserved, 0, actual, now);
        }
        let mut groups = Vec::<Difference, MAX_TALLIES>::new();
        for (name, actual) in &mut limited.groups {
            let its = |entry: &&Entry| {
                entry.unit > 0 && self.section_of(entry.tally.into()).name() == *name
            };
            let unit = estimate.entries().find(its).map(|entry| entry.unit);
            let group = unit.map_or_else(Difference::default, |unit| {
                Difference::reserve(reserved, unit, actual, now)
            });
            // There is room for as many as the settlement has.
            let _ = groups.push(group);
        }
        let Some(mut settled) = self.settle_all(key_id, estimate, &limited, clock) else {
            own.give_back(reserved, u32::MAX, now);
            return None;
        };
        if settled.verdict.outcome() == Outcome::Unavailable {
            own.give_back(reserved, u32::MAX, now);
            groups.iter().for_each(|it| it.give_back(reserved, u32::MAX, now));
            return Some(settled);
        }
        let uncharged = settled.verdict.uncharged;
        settled.verdict.uncharged = own.finish(reserved, uncharged, now);
        if let Some(first) = settled.compound.tallies_mut().first_mut() {
            first.verdict.uncharged = settled.verdict.uncharged;
        }
        for (group, uncharged) in groups.iter().zip(&mut settled.uncharged) {
            *uncharged = group.finish(reserved, *uncharged, now);
        }
        Some(settled)
    }

    /// Returns the verdict on a tally after a settlement, with the warnings that were reached.
    fn settled_tally(
        &self,
        key_id: KeyId,
        tally: usize,
        unit: u8,
        settling: &Settling,
        clock: impl Clock,
    ) -> Option<TallyVerdict> {
        let mut verdict =
            self.adjust_tally(key_id, tally, clock, |layout, limits, word, now| {
                decide::peek(layout, limits, word, now, 0)
            })?;
        if settling.is_begun && verdict.outcome() == Outcome::Unavailable {
            // The caller must not settle the charge again.
            let Verdict { holder, now, .. } = verdict;
            verdict = Verdict::refused(Outcome::Admitted, None, now).without_charge();
            verdict.holder = holder;
        }
        Some(TallyVerdict {
            tally: u8::try_from(tally).ok()?,
            unit,
            section: Some(*self.section_of(tally)),
            warnings: settling.of(tally),
            is_warned: true,
            ..TallyVerdict::new(verdict)
        })
    }

    /// Settles one cost of a charge. Returns the units that found no room; `None` if the gate does
    /// not have the key.
    fn settle_unit(
        &self,
        key_id: KeyId,
        estimate: &Charge,
        unit: u8,
        actual: u32,
        settling: &mut Settling,
        clock: impl Clock,
    ) -> Option<u32> {
        let mut tallies = Vec::<Charged, MAX_TALLIES>::new();
        let is_its = |entry: &&Entry| entry.unit == unit && self.has_tally(entry.tally.into());
        for entry in estimate.entries().filter(is_its) {
            // There is room for every tally of a gate.
            let _ = tallies.push((entry.tally.into(), entry.charge()));
        }
        sort_by_key(&mut tallies, |&(tally, _)| self.position_of_key(key_id, tally));
        let estimated = tallies.first().map_or(0, |(_, charge)| charge.cost);
        if tallies.iter().any(|(_, charge)| charge.at < self.refunds_from()) {
            // The tallies with these numbers may be others by now.
            return Some(actual.saturating_sub(estimated));
        }
        let is_changed = |verdict: Verdict| verdict.outcome() != Outcome::Unavailable;
        let Some(extra) = actual.checked_sub(estimated) else {
            for (tally, charge) in tallies {
                let rest = TallyCharge { cost: estimated - actual, ..charge };
                settling.is_begun |= is_changed(self.refund_tally(key_id, tally, rest, clock)?);
            }
            return Some(0);
        };
        if settling.overdraw {
            let mut rest = 0;
            for (tally, _) in tallies {
                let (charged, warnings) =
                    self.adjust_limited(key_id, tally, clock, |layout, _, word, now| {
                        decide::overdraw(layout, word, now, extra)
                    })?;
                settling.add(tally, &warnings);
                settling.is_begun |= is_changed(charged);
                rest = rest.max(if is_changed(charged) { charged.uncharged() } else { extra });
            }
            return Some(rest);
        }
        loop {
            let mut charged = extra;
            for &(tally, _) in &tallies {
                charged = charged.min(self.room_of(key_id, tally, extra, clock)?);
            }
            if charged == 0 || self.charge_in_order(key_id, &tallies, charged, settling, clock)? {
                return Some(extra - charged);
            }
        }
    }

    /// Returns how many of `most` units a tally has room for.
    fn room_of(&self, key_id: KeyId, tally: usize, most: u32, clock: impl Clock) -> Option<u32> {
        let (verdict, _) =
            self.adjust_limited(key_id, tally, clock, |layout, limits, word, now| {
                decide::lacking(layout, limits, word, now, most)
            })?;
        if verdict.outcome() == Outcome::Unavailable {
            return Some(0);
        }
        Some(most - verdict.uncharged())
    }

    /// Charges all tallies, in the order of their positions, or none. Returns whether all had room.
    ///
    /// A warning that a charge reached is reported even if the charge is given back, unless the
    /// share is no longer reached without it.
    fn charge_in_order(
        &self,
        key_id: KeyId,
        tallies: &[Charged],
        cost: u32,
        settling: &mut Settling,
        clock: impl Clock,
    ) -> Option<bool> {
        let mut done = Vec::<(Charged, TallyWarnings), MAX_TALLIES>::new();
        for &(tally, _) in tallies {
            let (verdict, warnings) =
                self.adjust_limited(key_id, tally, clock, |layout, limits, word, now| {
                    decide::check(layout, limits, word, now, cost)
                })?;
            if !verdict.is_admitted() {
                for ((tally, charge), warnings) in done {
                    let refunded = self.refund_tally(key_id, tally, charge, clock)?;
                    let still = newly_reached(&warnings, &Quotas::NONE, refunded.quotas());
                    settling.add(tally, &still);
                    settling.is_begun |= refunded.outcome() == Outcome::Unavailable;
                }
                return Some(false);
            }
            let charge = TallyCharge { cost, at: verdict.quotas().time() };
            let _ = done.push(((tally, charge), warnings));
        }
        for ((tally, _), warnings) in &done {
            settling.add(*tally, warnings);
        }
        settling.is_begun = true;
        Some(true)
    }

    /// Applies `decide` to a tally, but leaves a tally that is not limited as it is. Also returns
    /// the warnings that the decision reached.
    fn adjust_limited(
        &self,
        key_id: KeyId,
        tally: usize,
        clock: impl Clock,
        decide: impl Fn(&Layout, &Limits, u64, Timestamp) -> Decision,
    ) -> Option<(Verdict, TallyWarnings)> {
        let before = Cell::new(Quotas::NONE);
        let (verdict, warnings) =
            self.adjust_warned(key_id, tally, clock, |layout, limits, word, now| {
                if is_unlimited(limits) {
                    return decide::peek(layout, limits, word, now, 0);
                }
                before.set(decide::quotas(layout, limits, word, now));
                decide(layout, limits, word, now)
            })?;
        Some((verdict, newly_reached(&warnings, &before.get(), verdict.quotas())))
    }
}
