//! Refunds and settlements of the charge of a request, which may have several tallies.

use heapless::Vec;

use super::extension::is_unlimited;
use super::table::Gate;
use crate::cache_line::CacheLine;
use crate::charge::{Charge, Entry, TallyCharge};
use crate::decide;
use crate::key::KeyId;
use crate::outcome::Outcome;
use crate::section::MAX_TALLIES;
use crate::sort::sort_by_key;
use crate::time::Clock;
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
}

impl Settled {
    /// Returns the part of the cost of each group of the [`Settlement`] that found no room, in
    /// their order. For a group that was not charged a cost of its own, it is the whole cost.
    pub fn uncharged(&self) -> &[u32] {
        &self.uncharged
    }
}

/// A tally of a charge, and its position among all words.
type Charged = (usize, TallyCharge);

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
            let returned = self.refund_tally(key_id, entry.tally.into(), entry.charge(), clock);
            first = first.or(returned);
            if first.is_some_and(|first| first.outcome() == Outcome::Unavailable) {
                break;
            }
        }
        first
    }

    /// Returns the units of a charge to one tally.
    pub(super) fn refund_tally(
        &self,
        key_id: KeyId,
        tally: usize,
        charge: TallyCharge,
        clock: impl Clock,
    ) -> Option<Verdict> {
        if charge.at < self.refunds_from() {
            // The tally with this number may be another one by now.
            return self.adjust_tally(key_id, 0, clock, |layout, limits, word, now| {
                decide::peek(layout, limits, word, now, 0)
            });
        }
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
        let overdraw = settlement.overdraw;
        let (mut own, mut is_begun) = (0, false);
        if let Some(actual) = settlement.cost {
            own =
                self.settle_unit(key_id, &estimate, 0, actual, (overdraw, &mut is_begun), clock)?;
        }
        let mut uncharged = Vec::new();
        for &(name, actual) in &settlement.groups {
            let its = |entry: &&Entry| {
                entry.unit > 0 && self.section_of(entry.tally.into()).name() == name
            };
            let rest = match estimate.entries().find(its) {
                Some(entry) => {
                    let how = (overdraw, &mut is_begun);
                    self.settle_unit(key_id, &estimate, entry.unit, actual, how, clock)?
                }
                // There is no estimate to replace.
                None => actual,
            };
            // There is room for as many as the settlement has.
            let _ = uncharged.push(rest);
        }
        let from = self.refunds_from();
        let mut tallies = estimate
            .entries()
            .filter(|entry| entry.charge().at >= from)
            .map(|entry| usize::from(entry.tally));
        let first = tallies.find(|&tally| self.has_tally(tally)).unwrap_or(0);
        let mut verdict =
            self.adjust_tally(key_id, first, clock, |layout, limits, word, now| {
                decide::peek(layout, limits, word, now, 0)
            })?;
        if is_begun && verdict.outcome() == Outcome::Unavailable {
            // The caller must not settle the charge again.
            let Verdict { holder, now, .. } = verdict;
            verdict = Verdict::refused(Outcome::Admitted, None, now).without_charge();
            verdict.holder = holder;
        }
        verdict.uncharged = own;
        Some(Settled { verdict, uncharged })
    }

    /// Settles one cost of a charge. Returns the units that found no room; `None` if the gate does
    /// not have the key. `how` is whether to overdraw, and a variable that is set if any tally
    /// changes.
    fn settle_unit(
        &self,
        key_id: KeyId,
        estimate: &Charge,
        unit: u8,
        actual: u32,
        (overdraw, is_begun): (bool, &mut bool),
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
                *is_begun |= is_changed(self.refund_tally(key_id, tally, rest, clock)?);
            }
            return Some(0);
        };
        if overdraw {
            let mut rest = 0;
            for (tally, _) in tallies {
                let charged =
                    self.adjust_tally(key_id, tally, clock, |layout, limits, word, now| {
                        if is_unlimited(limits) {
                            return decide::peek(layout, limits, word, now, 0);
                        }
                        decide::overdraw(layout, word, now, extra)
                    })?;
                *is_begun |= is_changed(charged);
                rest = rest.max(if is_changed(charged) { charged.uncharged() } else { extra });
            }
            return Some(rest);
        }
        loop {
            let mut charged = extra;
            for &(tally, _) in &tallies {
                charged = charged.min(self.room_of(key_id, tally, extra, clock)?);
            }
            if charged == 0 || self.charge_in_order(key_id, &tallies, charged, is_begun, clock)? {
                return Some(extra - charged);
            }
        }
    }

    /// Returns how many of `most` units a tally has room for.
    fn room_of(&self, key_id: KeyId, tally: usize, most: u32, clock: impl Clock) -> Option<u32> {
        let verdict = self.adjust_tally(key_id, tally, clock, |layout, limits, word, now| {
            if is_unlimited(limits) {
                return decide::peek(layout, limits, word, now, 0);
            }
            decide::lacking(layout, limits, word, now, most)
        })?;
        if verdict.outcome() == Outcome::Unavailable {
            return Some(0);
        }
        Some(most - verdict.uncharged())
    }

    /// Charges all tallies, in the order of their positions, or none. Returns whether all had room.
    fn charge_in_order(
        &self,
        key_id: KeyId,
        tallies: &[Charged],
        cost: u32,
        is_begun: &mut bool,
        clock: impl Clock,
    ) -> Option<bool> {
        let mut done = Vec::<Charged, MAX_TALLIES>::new();
        for &(tally, _) in tallies {
            let verdict =
                self.adjust_tally(key_id, tally, clock, |layout, limits, word, now| {
                    if is_unlimited(limits) {
                        return decide::peek(layout, limits, word, now, 0);
                    }
                    decide::check(layout, limits, word, now, cost)
                })?;
            if !verdict.is_admitted() {
                for (tally, charge) in done {
                    let refunded = self.refund_tally(key_id, tally, charge, clock)?;
                    *is_begun |= refunded.outcome() == Outcome::Unavailable;
                }
                return Some(false);
            }
            let _ = done.push((tally, TallyCharge { cost, at: verdict.quotas().time() }));
        }
        *is_begun = true;
        Some(true)
    }
}
