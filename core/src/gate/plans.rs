//! The plans of a gate. All share their windows and algorithm, so a key can change its plan, and a
//! plan its limits, without losing counts.

use super::admin_error::AdminError;
use super::extension::{Extension, FIXED_LINES, LIMIT_WORDS, NOTHING, is_unlimited};
use super::plan::{
    MAX_PLAN_NAME_LEN, PLAN_WORDS, PLANS_PER_LINE, Plan, Shape, TallyLimits, name_words,
};
use super::table::{Gate, TARGET_LINE};
use crate::bits::{halves, index, to_words};
use crate::cache_line::CacheLine;
use crate::features::Feature;
use crate::quota::{Algorithm, Limits, MAX_QUOTAS, Quota};
use crate::section::Section;
use crate::sections::{MAX_WARNINGS, Sections};
use crate::stop::{Stop, stop};
use crate::text::Text;

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
        self.plan_slots
    }

    #[inline]
    pub(super) fn limits(&self, plan: u8) -> Limits {
        // A damaged record may name a plan that does not exist. Its limits are 0, so nothing is
        // admitted.
        if usize::from(plan) >= self.plan_slots() {
            return Limits([0; MAX_QUOTAS]);
        }
        let (line, at) = self.plan_line(usize::from(plan));
        Limits(halves([line.load(at + 2), line.load(at + 3)]))
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
        self.prepare_limits(plan);
        for (word, value) in self.plan_words(plan).into_iter().enumerate() {
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
            self.complete_limits(index(number));
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

    /// Returns the name of the plan with this number.
    pub(super) fn plan_name(&self, number: u8) -> Option<Text<MAX_PLAN_NAME_LEN>> {
        if usize::from(number) >= self.plan_slots() {
            return None;
        }
        let (line, at) = self.plan_line(usize::from(number));
        Plan::name_from_words([line.load(at), line.load(at + 1)])
    }

    /// Returns the plan with this number.
    pub fn plan(&self, number: u8) -> Option<Plan> {
        let name = self.plan_name(number)?;
        let mut sections = Sections::new();
        let Some(extension) = &self.extension else {
            sections.push(Section::Key, self.layout.algorithm()).then_some(())?;
            for (&window, &limit) in self.layout.windows().iter().zip(&self.limits(number).0) {
                (limit > 0).then_some(())?;
                sections.push_quota(Quota { limit, window }, [0; MAX_WARNINGS]).then_some(())?;
            }
            return Plan::new(&name, sections);
        };
        let mut last = None;
        for (tally, Shape { section, layout, .. }) in extension.shapes.tallies.iter().enumerate() {
            if last != Some(section) {
                let name = *extension.shapes.sections.get(*section)?;
                sections.push(name, layout.algorithm()).then_some(())?;
                last = Some(section);
            }
            let (limits, warnings) = self.tally_limits(extension, number, tally);
            if is_unlimited(&limits) {
                continue;
            }
            for (index, &window) in layout.windows().iter().enumerate() {
                let quota = Quota { limit: limits.0[index], window };
                (quota.limit > 0).then_some(())?;
                sections.push_quota(quota, warnings[index]).then_some(())?;
            }
        }
        Plan::new(&name, sections)
    }

    /// Returns the limits and the warnings of a plan for a tally of an extended gate.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn tally_limits(
        &self,
        extension: &Extension,
        plan: u8,
        tally: usize,
    ) -> TallyLimits {
        // A damaged record may name a plan that does not exist, whose limits are 0. They would be
        // those of an unlimited section.
        if !self.has_plan(plan) {
            return (Limits(NOTHING), Default::default());
        }
        let (line, word) = extension.limit_words(self.memory.as_ref(), plan.into(), tally);
        let limits = Limits(halves([line.load(word), line.load(word + 1)]));
        let bytes = line.load(word + 2).to_le_bytes();
        let warnings = core::array::from_fn(|quota| [bytes[2 * quota], bytes[2 * quota + 1]]);
        (limits, warnings)
    }

    /// Writes the limits of a plan for all tallies into the redo record of plans, which
    /// [`complete_limits`](Self::complete_limits) copies.
    pub(super) fn prepare_limits(&self, plan: &Plan) {
        let Some(extension) = &self.extension else { return };
        for (tally, shape) in extension.shapes.tallies.iter().enumerate() {
            let (Limits(limits), warnings) = shape.limits_of(&plan.sections);
            let mut bytes = [0; 2 * MAX_QUOTAS];
            bytes.copy_from_slice(warnings.as_flattened());
            let [first, second] = to_words(limits);
            let words = [first, second, u64::from_le_bytes(bytes), 0];
            let (line, word) = extension.redo_words(self.memory.as_ref(), tally);
            for (offset, value) in words.into_iter().enumerate() {
                line.store(word + offset, value);
                stop(Stop::PlanRedoWord);
            }
        }
    }

    /// Writes the limits of a plan for all tallies, from the redo record of plans.
    pub(super) fn complete_limits(&self, plan: usize) {
        let Some(extension) = &self.extension else { return };
        let lines = self.memory.as_ref();
        for tally in 0..extension.shapes.tallies.len() {
            let (line, word) = extension.limit_words(lines, plan, tally);
            let (redo, redo_word) = extension.redo_words(lines, tally);
            for offset in 0..LIMIT_WORDS {
                line.store(word + offset, redo.load(redo_word + offset));
                stop(Stop::PlanWord);
            }
        }
    }

    /// Checks that the gate's tallies can count a plan. A caller that changes several plans checks
    /// all of them first.
    ///
    /// # Errors
    /// [`AdminError::PlanWindows`], [`PlanLimit`](AdminError::PlanLimit).
    pub fn check_plan(&self, plan: &Plan) -> Result<(), AdminError> {
        let own = plan.sections.iter().map(|section| section.section());
        if !own.eq(self.sections()) || (self.extension.is_none() && !plan.sections.is_plain()) {
            return Err(AdminError::PlanWindows);
        }
        for (number, section) in plan.sections.iter().enumerate() {
            self.fits_section(number, section.algorithm(), section.quotas())?;
        }
        Ok(())
    }

    /// Checks that the tallies of a section can count these quotas. An unlimited section has none.
    ///
    /// # Errors
    /// Those of [`check_plan`](Self::check_plan).
    pub(super) fn fits_section(
        &self,
        section: usize,
        algorithm: Algorithm,
        quotas: &[Quota],
    ) -> Result<(), AdminError> {
        if quotas.is_empty() {
            return Ok(());
        }
        let mut rest = quotas.iter();
        for layout in self.layouts_of(section) {
            for (index, window) in layout.windows().iter().enumerate() {
                let quota = rest.next().filter(|quota| quota.window == *window);
                let quota = quota.filter(|_| layout.algorithm() == algorithm);
                let Quota { limit, .. } = *quota.ok_or(AdminError::PlanWindows)?;
                let max = layout.max_limit(index).unwrap_or(0);
                if limit > max {
                    return Err(AdminError::PlanLimit { limit, max });
                }
            }
        }
        if rest.next().is_some() { Err(AdminError::PlanWindows) } else { Ok(()) }
    }

    /// Returns a plan of this gate as words of the header: the name in two, of which the first is
    /// never 0, and the limits of the first tally in two.
    pub(super) fn plan_words(&self, plan: &Plan) -> [u64; PLAN_WORDS] {
        let own = || plan.sections.iter().next().map_or(&[][..], |section| section.quotas());
        let Limits(limits) = match self.shape_of(0) {
            Some(shape) => shape.limits_of(&plan.sections).0,
            None => Limits::of(own()),
        };
        let ([first, second], [third, fourth]) = (name_words(&plan.name), to_words(limits));
        [first, second, third, fourth]
    }

    /// Returns the number of the plan with this name. If there is none, the error is the number
    /// that the next plan gets. It compares the words of the names, since reading whole plans would
    /// take more code and time.
    pub(super) fn plan_named(&self, name: &str) -> Result<u8, usize> {
        // No plan has a longer name, or a NUL in it.
        let is_name = name.len() <= MAX_PLAN_NAME_LEN && !name.as_bytes().contains(&0);
        for number in 0..self.plan_slots() {
            let (line, at) = self.plan_line(number);
            let words = [line.load(at), line.load(at + 1)];
            if words[0] == 0 {
                return Err(number);
            }
            if is_name && words == name_words(name) {
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
        let is_extended = Feature::Sections.is_included() && self.extension.is_some();
        line.load(at) != 0
            && (is_extended
                || windows.into_iter().all(|window| {
                    (1..=self.layout.max_limit(window).unwrap_or(0)).contains(&limits[window])
                }))
    }

    /// Returns whether there is a plan with this number.
    fn has_plan(&self, number: u8) -> bool {
        usize::from(number) < self.plan_slots() && {
            let (line, at) = self.plan_line(usize::from(number));
            line.load(at) != 0
        }
    }

    /// Returns all plans with their numbers.
    pub fn plans(&self) -> impl Iterator<Item = (u8, Plan)> {
        (0..=u8::MAX).map_while(|number| Some((number, self.plan(number)?)))
    }
}
