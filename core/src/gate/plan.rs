//! Plans: named policies that keys are issued under. All plans of a gate share their windows and
//! algorithm, so a key can change its plan, and a plan its limits, without losing counts.

use heapless::Vec;

use super::{FIXED_LINES, Gate, MAX_PLAN_NAME_LEN, OWNER_LINE, PLANS_PER_LINE};
use crate::bits::{high, index, join, low};
use crate::line::{LINE_WORDS, Line};
use crate::policy::Policy;
use crate::quota::{Limits, MAX_QUOTAS, Quota};
use crate::stop::{Stop, stop};
use crate::tally::Layout;
use crate::text::Text;

/// Words of a plan in the header.
pub(super) const PLAN_WORDS: usize = LINE_WORDS / PLANS_PER_LINE;

/// The word of the owner line that holds the number + 1 of the plan that is being changed. The
/// words after it hold the new plan.
const PLAN_REDO: usize = 1;

/// A named policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// 1 to 16 characters of `a-z`, `0-9`, `-` and `_`.
    pub name: Text<MAX_PLAN_NAME_LEN>,
    /// The policy of keys with this plan.
    pub policy: Policy,
}

impl Plan {
    /// A plan of this name; `None` if the name has another form.
    pub fn new(name: &str, policy: Policy) -> Option<Self> {
        let fits = !name.is_empty()
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        fits.then(|| Some(Self { name: Text::from_text(name)?, policy })).flatten()
    }

    /// Returns the plan as words of the header: the name in two, of which the first is never 0, and
    /// the limits in two.
    pub(super) fn words(&self) -> [u64; PLAN_WORDS] {
        let mut bytes = [0; MAX_PLAN_NAME_LEN];
        bytes[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| bytes[at + byte]));
        let limits = self.policy.limits().0;
        [word(0), word(8), join(limits[1], limits[0]), join(limits[3], limits[2])]
    }

    fn name_from_words(words: [u64; 2]) -> Option<Text<MAX_PLAN_NAME_LEN>> {
        let mut name = Text::new();
        for byte in words.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0) {
            name.push(char::from(byte)).then_some(())?;
        }
        (!name.is_empty()).then_some(name)
    }
}

impl<M: AsRef<[Line]>> Gate<M> {
    /// Returns the line of a plan, and the index of the first of its four words: the name in two,
    /// the limits in two.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn plan_line(&self, number: usize) -> (&Line, usize) {
        let line = &self.memory.as_ref()[FIXED_LINES + number / PLANS_PER_LINE];
        (line, number % PLANS_PER_LINE * PLAN_WORDS)
    }

    /// Returns how many plans the gate has room for.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
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
        let owner = &self.memory.as_ref()[OWNER_LINE];
        for (word, value) in plan.words().into_iter().enumerate() {
            owner.store(PLAN_REDO + 1 + word, value);
            stop(Stop::PlanIntentWord);
        }
        owner.store(PLAN_REDO, number as u64 + 1);
        stop(Stop::PlanIntentPublished);
        self.complete_plan();
    }

    /// Completes the plan change in the redo record, if there is one. Returns whether there was.
    pub(super) fn complete_plan(&self) -> bool {
        let owner = &self.memory.as_ref()[OWNER_LINE];
        let Some(number) = owner.load(PLAN_REDO).checked_sub(1) else { return false };
        if number < self.plan_slots() as u64 {
            self.store_plan(
                index(number),
                core::array::from_fn(|word| owner.load(PLAN_REDO + 1 + word)),
            );
        }
        stop(Stop::PlanWritten);
        owner.store(PLAN_REDO, 0);
        stop(Stop::PlanIntentWithdrawn);
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

    /// Returns whether there is a first plan, which every gate has. It does not read the whole
    /// plan, since that would link the policy code into programs that only check.
    pub(super) fn has_first_plan(&self) -> bool {
        let limits = self.limits(0).0;
        let windows = 0..self.layout.windows().len();
        let (line, at) = self.plan_line(0);
        line.load(at) != 0
            && windows
                .into_iter()
                .all(|window| (1..=self.layout.max_limit(window)).contains(&limits[window]))
    }

    /// Returns all plans with their numbers.
    pub fn plans(&self) -> impl Iterator<Item = (u8, Plan)> {
        (0..=u8::MAX).map_while(|number| Some((number, self.plan(number)?)))
    }
}

/// Returns the layout that can count the largest limit of every window over all plans; `None` if
/// their windows differ or do not fit one tally.
pub(super) fn common_layout(plans: &[Plan]) -> Option<Layout> {
    let first = &plans.first()?.policy;
    let mut quotas = Vec::<Quota, MAX_QUOTAS>::from_slice(first.quotas()).ok()?;
    for plan in plans {
        let same = plan.policy.algorithm() == first.algorithm()
            && plan.policy.quotas().len() == quotas.len();
        for (common, quota) in quotas.iter_mut().zip(plan.policy.quotas()) {
            if !same || common.window != quota.window {
                return None;
            }
            common.limit = common.limit.max(quota.limit);
        }
        if !same {
            return None;
        }
    }
    Some(*Policy::new(first.algorithm(), &quotas).ok()?.layout())
}
