//! The plans of a gate. All share their windows and algorithm, so a key can change its plan, and a
//! plan its limits, without losing counts.

use super::config::FIXED_LINES;
use super::plan::{MAX_PLAN_NAME_LEN, PLAN_WORDS, PLANS_PER_LINE, Plan, name_words};
use super::table::{Gate, TARGET_LINE};
use crate::bits::{high, index, low};
use crate::cache_line::CacheLine;
use crate::policy::Policy;
use crate::quota::{Limits, MAX_QUOTAS};
use crate::stop::{Stop, stop};

/// The word of the target line that holds the number + 1 of the plan that is being changed. The
/// words after it hold the new plan.
const PLAN_REDO: usize = 1;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the line of a plan, and the index of the first of its four words: the name in two,
    /// the limits in two.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(super) fn plan_line(&self, number: usize) -> (&CacheLine, usize) {
        let line = &self.memory.as_ref()[FIXED_LINES + number / PLANS_PER_LINE];
        (line, number % PLANS_PER_LINE * PLAN_WORDS)
    }

    /// Returns how many plans the gate has room for.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub fn plan_slots(&self) -> usize {
        ((self.records_at - FIXED_LINES) * PLANS_PER_LINE).min(usize::from(u8::MAX) + 1)
    }

    #[inline]
    pub(super) fn limits(&self, plan: u8) -> Limits {
        // A damaged record may name a plan that does not exist. Its limits are 0, so nothing is
        // admitted.
        if usize::from(plan) >= self.plan_slots() {
            return Limits([0; MAX_QUOTAS]);
        }
        let (line, at) = self.plan_line(usize::from(plan));
        let (first, second) = (line.load(at + 2), line.load(at + 3));
        Limits([low(first), high(first), low(second), high(second)])
    }

    /// Writes the words of a plan, the first word of its name last, since that word makes the plan
    /// exist. A concurrent check takes the old or the new limit of each window.
    pub(super) fn store_plan(&self, number: usize, words: [u64; PLAN_WORDS]) {
        let (line, at) = self.plan_line(number);
        for (word, &value) in words.iter().enumerate().rev() {
            line.store(at + word, value);
            stop(Stop::PlanWord);
        }
    }

    /// Changes a plan atomically: publishes a redo record first, which the next administrator
    /// completes if this one is killed.
    pub(super) fn change_plan(&self, number: usize, plan: &Plan) {
        let line = &self.memory.as_ref()[TARGET_LINE];
        for (word, value) in plan.words().into_iter().enumerate() {
            line.store(PLAN_REDO + 1 + word, value);
            stop(Stop::PlanRedoWord);
        }
        line.store(PLAN_REDO, number as u64 + 1);
        stop(Stop::PlanRedoPublished);
        self.complete_plan();
    }

    /// Completes the plan change in the redo record, if there is one. Returns whether there was.
    pub(super) fn complete_plan(&self) -> bool {
        let line = &self.memory.as_ref()[TARGET_LINE];
        let Some(number) = line.load(PLAN_REDO).checked_sub(1) else { return false };
        if number < self.plan_slots() as u64 {
            self.store_plan(
                index(number),
                core::array::from_fn(|word| line.load(PLAN_REDO + 1 + word)),
            );
        }
        stop(Stop::PlanWritten);
        line.store(PLAN_REDO, 0);
        stop(Stop::PlanRedoWithdrawn);
        true
    }

    /// Returns the plan with this number.
    pub fn plan(&self, number: u8) -> Option<Plan> {
        if usize::from(number) >= self.plan_slots() {
            return None;
        }
        let (line, at) = self.plan_line(usize::from(number));
        let name = Plan::name_from_words([line.load(at), line.load(at + 1)])?;
        Plan::new(&name, Policy::from_layout(&self.layout, self.limits(number))?)
    }

    /// Returns the number of the plan with this name. If there is none, the error is the number
    /// that the next plan gets. It compares the words of the names, since reading whole plans would
    /// take more code and time.
    pub(super) fn plan_named(&self, name: &str) -> Result<u8, usize> {
        let mut bytes = [0; MAX_PLAN_NAME_LEN];
        if let Some(start) = bytes.get_mut(..name.len()) {
            start.copy_from_slice(name.as_bytes());
        }
        // No plan has a longer name, or a NUL in it.
        let is_name = name.len() <= MAX_PLAN_NAME_LEN && !name.as_bytes().contains(&0);
        for number in 0..self.plan_slots() {
            let (line, at) = self.plan_line(number);
            let words = [line.load(at), line.load(at + 1)];
            if words[0] == 0 {
                return Err(number);
            }
            if is_name && words == name_words(&bytes) {
                return u8::try_from(number).map_err(|_| number);
            }
        }
        Err(self.plan_slots())
    }

    /// Returns whether there is a first plan, which every gate has. It does not read the whole
    /// plan, since that would link the policy code into programs that only check.
    pub(super) fn has_first_plan(&self) -> bool {
        let limits = self.limits(0).0;
        let windows = 0..self.layout.windows().len();
        let (line, at) = self.plan_line(0);
        line.load(at) != 0
            && windows.into_iter().all(|window| {
                (1..=self.layout.max_limit(window).unwrap_or(0)).contains(&limits[window])
            })
    }

    /// Returns all plans with their numbers.
    pub fn plans(&self) -> impl Iterator<Item = (u8, Plan)> {
        (0..=u8::MAX).map_while(|number| Some((number, self.plan(number)?)))
    }
}
