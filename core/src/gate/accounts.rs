//! The accounts of a gate with teams: their properties, and the changes to them.

use heapless::Vec;

use super::admin_error::AdminError;
use super::administrator::Administrator;
use super::extension::is_unlimited;
use super::table::Gate;
use super::team::Team;
use crate::cache_line::CacheLine;
use crate::compare_exchange;
use crate::decide;
use crate::outcome::Outcome;
use crate::quota::{Limits, MAX_QUOTAS, Quota};
use crate::quotas::Quotas;
use crate::section::{MAX_TEAM_TALLIES, Section};
use crate::sync::Ordering;
use crate::time::{Clock, Timestamp};

/// The properties of an account in a gate with teams.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccountInfo {
    /// The number of the account.
    pub account: u32,
    /// Whether its keys are refused.
    pub is_suspended: bool,
    /// The number of the plan whose team limits hold for the account.
    pub plan: u8,
    /// Whether the account has limits of its own instead of the plan's.
    pub has_own_limits: bool,
    quotas: Vec<Quotas, MAX_TEAM_TALLIES>,
}

impl AccountInfo {
    /// Returns the quotas that all keys of the account share, now or at the tally's own time if
    /// that is ahead: one element per tally. It is empty if the plans have no section `team`, or do
    /// not limit it.
    pub fn quotas(&self) -> &[Quotas] {
        &self.quotas
    }
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the properties of an account; `None` if the gate does not have it.
    pub fn account(&self, account: u32, now: Timestamp) -> Option<AccountInfo> {
        self.account_info(self.find_team(account).ok()?, now)
    }

    /// Returns the properties of every account, in no particular order.
    pub fn accounts(&self, now: Timestamp) -> impl Iterator<Item = AccountInfo> {
        self.team_numbers().filter_map(move |number| self.account_info(number, now))
    }

    fn account_info(&self, number: u32, now: Timestamp) -> Option<AccountInfo> {
        let team = self.team(number)?;
        let mut quotas = Vec::new();
        let shared = (0..self.tally_count()).filter(|&tally| self.is_shared(tally));
        for (tally, (atomic, layout)) in shared.zip(self.team_tallies(number)) {
            let (limits, _) = self.limits_of_tally(team.plan, Some(&team), tally);
            if !is_unlimited(&limits) {
                let word = atomic.load(Ordering::Acquire);
                // There is room for every tally of a team.
                let _ = quotas.push(decide::quotas(layout, &limits, word, now));
            }
        }
        Some(AccountInfo {
            account: team.account,
            is_suspended: team.is_suspended,
            plan: team.plan,
            has_own_limits: team.limits.is_some(),
            quotas,
        })
    }

    /// Sets the counts that all keys of an account share to 0. Returns `None` if the gate does not
    /// have the account. If the outcome is [`Outcome::Unavailable`], repeat it in the other gate.
    pub fn reset_account(&self, account: u32, clock: impl Clock) -> Option<Outcome> {
        let number = self.find_team(account).ok()?;
        for (tally, layout) in self.team_tallies(number) {
            let mut now = clock.reading();
            // The limits do not matter for a reset, so the decision is always made.
            let decided = compare_exchange::update(tally, layout, &mut now, clock, |word, now| {
                Some(decide::reset(layout, &Limits([u32::MAX; MAX_QUOTAS]), word, now))
            });
            if decided.is_some_and(|decision| decision.outcome == Outcome::Unavailable) {
                return Some(Outcome::Unavailable);
            }
        }
        Some(Outcome::Admitted)
    }
}

impl<M: AsRef<[CacheLine]>> Administrator<'_, M> {
    /// Refuses all keys of an account from the next check on, or accepts them again.
    ///
    /// # Errors
    /// [`AdminError::NoSuchAccount`].
    pub fn set_suspended(&mut self, account: u32, is_suspended: bool) -> Result<(), AdminError> {
        self.change_team(account, |team| team.is_suspended = is_suspended)
    }

    /// Lets the team limits of another plan hold for an account, and ends limits of its own. Its
    /// keys keep their plans.
    ///
    /// # Errors
    /// [`AdminError::NoSuchAccount`], [`NoSuchPlan`](AdminError::NoSuchPlan).
    pub fn assign_account(&mut self, account: u32, plan: &str) -> Result<(), AdminError> {
        let plan = self.plan_number(plan)?;
        self.change_team(account, |team| (team.plan, team.limits) = (plan, None))
    }

    /// Gives an account limits of its own instead of those of its plan. `quotas` must have the
    /// windows of the section `team`, shortest first.
    ///
    /// # Errors
    /// [`AdminError::NoSuchAccount`], [`PlanWindows`](AdminError::PlanWindows),
    /// [`PlanLimit`](AdminError::PlanLimit).
    pub fn limit_account(&mut self, account: u32, quotas: &[Quota]) -> Result<(), AdminError> {
        let gate = self.gate;
        let section = gate.sections().iter().position(|section| *section == Section::Team);
        let section = section.filter(|_| !quotas.is_empty()).ok_or(AdminError::PlanWindows)?;
        let algorithm = gate.layouts_of(section).next().map(|layout| layout.algorithm());
        gate.fits_section(section, algorithm.ok_or(AdminError::PlanWindows)?, quotas)?;
        let mut limits = [Limits([u32::MAX; MAX_QUOTAS]); MAX_TEAM_TALLIES];
        let mut rest = quotas;
        for (limits, layout) in limits.iter_mut().zip(gate.layouts_of(section)) {
            let (own, after) = rest.split_at(layout.len().min(rest.len()));
            (*limits, rest) = (Limits::of(own), after);
        }
        self.change_team(account, |team| team.limits = Some(limits))
    }

    fn change_team(
        &mut self,
        account: u32,
        change: impl FnOnce(&mut Team),
    ) -> Result<(), AdminError> {
        let number =
            self.gate.find_team(account).map_err(|_| AdminError::NoSuchAccount(account))?;
        let mut team = self.gate.team(number).ok_or(AdminError::NoSuchAccount(account))?;
        change(&mut team);
        self.gate.write_team(number, team);
        Ok(())
    }
}
