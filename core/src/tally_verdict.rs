//! The verdict on one tally of a request, and the warnings that its charge reached.

use heapless::Vec;

use crate::charge::SHARED;
use crate::outcome::Outcome;
use crate::quota::MAX_QUOTAS;
use crate::quotas::{QuotaState, Quotas};
use crate::section::Section;
use crate::sections::{MAX_WARNINGS, Warnings};
use crate::tally::Layout;
use crate::time::Timestamp;
use crate::verdict::Verdict;

/// The warnings of each window of a tally.
pub(crate) type TallyWarnings = [Warnings; MAX_QUOTAS];

/// The verdict on one tally of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TallyVerdict {
    pub(crate) part: u8,
    pub(crate) tally: u8,
    /// Which of the request's costs the tally is charged: 0 for the request's own.
    pub(crate) unit: u8,
    pub(crate) section: Option<Section>,
    pub(crate) warnings: TallyWarnings,
    /// Whether all of the warnings are reported, although there is no charge.
    pub(crate) is_warned: bool,
    pub(crate) verdict: Verdict,
}

impl TallyVerdict {
    /// A verdict that read no tally.
    #[inline]
    pub(crate) fn none() -> Self {
        Self::new(Verdict::refused(Outcome::MissingKey, None, Timestamp::from_unix_ms(0)))
    }

    /// A verdict that is not on a tally of a section, as of a limiter or an invalid key.
    pub(crate) const fn new(verdict: Verdict) -> Self {
        let warnings = [[0; MAX_WARNINGS]; MAX_QUOTAS];
        Self { part: 0, tally: 0, unit: 0, section: None, warnings, is_warned: false, verdict }
    }

    /// Returns the index of the part, in the order in which they were given.
    pub fn part(&self) -> usize {
        self.part.into()
    }

    /// Returns the section of the gate's plans whose tally this is; `None` for a limiter, and for a
    /// verdict that read no tally.
    pub fn section(&self) -> Option<&Section> {
        self.section.as_ref()
    }

    /// Returns the verdict.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Returns the number of the tally among those of its key and the key's team; 0 is the first
    /// of the key's own.
    pub fn tally(&self) -> usize {
        self.tally.into()
    }

    /// Returns the index of the tally in a [charge](crate::Charge::to_bytes):
    /// [`tally`](Self::tally), and 128 more for an overflow tally of a limiter.
    pub fn charge_index(&self) -> usize {
        (self.tally | if self.verdict.is_shared() { SHARED } else { 0 }).into()
    }

    /// Makes the verdict show the counts of another word of the same time, such as those of units
    /// that several machines share. The verdict is then [leased](Verdict::is_leased). The charge
    /// and the reached warnings stay those of the tally.
    pub fn show(&mut self, layout: &Layout, word: u64) {
        if self.warnings != TallyWarnings::default() {
            let crossed = self.crossed();
            self.report(crossed);
        }
        self.verdict.show(layout, word);
    }

    /// Notes that nothing was reserved for the tally, so that a refund of its charge releases
    /// nothing.
    pub fn mark_unreserved(&mut self) {
        self.verdict.mark_unreserved();
    }

    /// Returns each warning of this tally that the charge reached: the window's index and the
    /// percentage of its limit. See [`Compound::crossed`](crate::Compound::crossed).
    pub fn crossed(&self) -> impl Iterator<Item = (usize, u8)> + use<> {
        let cost = self.verdict.charge().map_or(0, |_| self.verdict.cost());
        let is_warned = self.is_warned;
        let reached = move |state: &QuotaState, percent: u8| {
            is_warned || (is_reached(state, percent, 0) && !is_reached(state, percent, cost))
        };
        self.warned(reached).into_iter()
    }

    /// Returns the window's index and the percentage of each warning that `reached` returns true
    /// for.
    fn warned(
        &self,
        reached: impl Fn(&QuotaState, u8) -> bool,
    ) -> Vec<(usize, u8), { MAX_QUOTAS * MAX_WARNINGS }> {
        let mut found = Vec::new();
        for (window, state) in self.verdict.quotas().iter().enumerate() {
            let warnings = self.warnings.get(window).copied().unwrap_or_default();
            for percent in warnings.into_iter().filter(|&percent| percent > 0) {
                if reached(&state, percent) {
                    // There is room for every warning.
                    let _ = found.push((window, percent));
                }
            }
        }
        found
    }

    /// Makes this the verdict of a charge that was given back. A warning that the charge reached is
    /// still reported if the share stays reached without it: requests that were charged meanwhile
    /// did not report it.
    #[cold]
    pub(crate) fn give_back(&mut self, refunded: Option<Verdict>) {
        let crossed = self.crossed();
        self.verdict.give_back(refunded);
        let quotas = *self.verdict.quotas();
        let is_still = |&(window, percent): &(usize, u8)| {
            quotas.get(window).is_some_and(|state| is_reached(&state, percent, 0))
        };
        self.report(crossed.filter(is_still));
    }

    /// Makes these the warnings that are reported.
    fn report(&mut self, crossed: impl Iterator<Item = (usize, u8)>) {
        let mut warnings = TallyWarnings::default();
        for (window, percent) in crossed {
            let free = warnings[window].iter_mut().find(|slot| **slot == 0);
            free.into_iter().for_each(|slot| *slot = percent);
        }
        (self.warnings, self.is_warned) = (warnings, true);
    }
}

/// Returns whether the units that a window has used, without `less` of them, are this share of its
/// limit or more.
fn is_reached(state: &QuotaState, percent: u8, less: u32) -> bool {
    // Of a limit L, p % are reached with the first count c with 100·c ≥ p·L.
    let used = u64::from(state.used().saturating_sub(less));
    100 * used >= u64::from(percent) * u64::from(state.limit)
}

/// Returns those of the warnings whose shares are reached by `after` and not by `before`. A window
/// that `before` does not have has used nothing.
pub(crate) fn newly_reached(
    warnings: &TallyWarnings,
    before: &Quotas,
    after: &Quotas,
) -> TallyWarnings {
    let mut reached = *warnings;
    for (window, percents) in reached.iter_mut().enumerate() {
        let (before, after) = (before.get(window), after.get(window));
        for percent in percents {
            let is_before = before.is_some_and(|state| is_reached(&state, *percent, 0));
            if is_before || !after.is_some_and(|state| is_reached(&state, *percent, 0)) {
                *percent = 0;
            }
        }
    }
    reached
}

/// Why nothing was reserved: see [`Reserve`](crate::Reserve).
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The index of the tally that lacks something, among those of the call.
    pub index: usize,
    /// The verdict on it, such as one of [`Verdict::denied_by`].
    pub verdict: Verdict,
}
