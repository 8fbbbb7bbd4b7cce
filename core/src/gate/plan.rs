//! Plans: named policies that keys are issued under. All plans of a gate share their windows and algorithm, so a key
//! changes its plan, and a plan its limits, with all counts kept.

use heapless::{String, Vec};

use super::{FIXED_LINES, Gate, MAX_PLAN_NAME_LEN, PLANS_PER_LINE};
use crate::line::{LINE_WORDS, Line, high, join, low};
use crate::policy::{Limits, MAX_QUOTAS, Policy, Quota};
use crate::tally::Layout;

/// A named policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// 1 to 16 characters of `a-z`, `0-9`, `-` and `_`.
    pub name: String<MAX_PLAN_NAME_LEN>,
    /// What it admits.
    pub policy: Policy,
}

impl Plan {
    /// The plan of this name; `None` when the name can't be one.
    pub fn new(name: &str, policy: Policy) -> Option<Self> {
        let fits = !name.is_empty()
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        fits.then(|| Some(Self { name: name.try_into().ok()?, policy })).flatten()
    }

    /// The name as two words of the header; the first is never 0.
    pub(super) fn name_words(&self) -> [u64; 2] {
        let mut bytes = [0; MAX_PLAN_NAME_LEN];
        bytes[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| bytes[at + byte]));
        [word(0), word(8)]
    }

    fn name_from_words(words: [u64; 2]) -> Option<String<MAX_PLAN_NAME_LEN>> {
        let mut name = String::new();
        for byte in words.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0) {
            name.push(char::from(byte)).ok()?;
        }
        (!name.is_empty()).then_some(name)
    }
}

impl<M: AsRef<[Line]>> Gate<M> {
    /// The line of a plan, and the first of its four words: the name in two, the limits in two.
    pub(super) fn plan_line(&self, number: usize) -> (&Line, usize) {
        let line = &self.memory.as_ref()[FIXED_LINES + number / PLANS_PER_LINE];
        (line, number % PLANS_PER_LINE * (LINE_WORDS / PLANS_PER_LINE))
    }

    /// How many plans there is room for.
    pub fn plan_slots(&self) -> usize {
        ((self.records_at - FIXED_LINES) * PLANS_PER_LINE).min(usize::from(u8::MAX) + 1)
    }

    #[inline]
    pub(super) fn limits(&self, plan: u8) -> Limits {
        // A plan that isn't there, in a damaged record, has limits of 0: nothing is admitted.
        if usize::from(plan) >= self.plan_slots() {
            return Limits([0; MAX_QUOTAS]);
        }
        let (line, at) = self.plan_line(usize::from(plan));
        let (first, second) = (line.load(at + 2), line.load(at + 3));
        Limits([low(first), high(first), low(second), high(second)])
    }

    /// Writes a plan; its name's first word last, since that is what makes it one.
    pub(super) fn store_plan(&self, number: usize, plan: &Plan) {
        let (line, at) = self.plan_line(number);
        let limits = plan.policy.limits();
        line.store(at + 2, join(limits.0[1], limits.0[0]));
        line.store(at + 3, join(limits.0[3], limits.0[2]));
        let [first, second] = plan.name_words();
        line.store(at + 1, second);
        line.store(at, first);
    }

    /// The plan of this number.
    pub fn plan(&self, number: u8) -> Option<Plan> {
        if usize::from(number) >= self.plan_slots() {
            return None;
        }
        let (line, at) = self.plan_line(usize::from(number));
        let name = Plan::name_from_words([line.load(at), line.load(at + 1)])?;
        let limits = self.limits(number);
        let mut quotas = Vec::<Quota, MAX_QUOTAS>::new();
        for (&window, &limit) in self.layout.windows().iter().zip(&limits.0) {
            quotas.push(Quota { limit, window }).ok()?;
        }
        Plan::new(&name, Policy::new(self.layout.algorithm(), &quotas).ok()?)
    }

    /// All plans and their numbers.
    pub fn plans(&self) -> impl Iterator<Item = (u8, Plan)> {
        (0..=u8::MAX).map_while(|number| Some((number, self.plan(number)?)))
    }
}

/// The layout that holds the largest limit of every window over all plans; `None` when their windows differ or don't
/// fit together.
pub(super) fn common_layout(plans: &[Plan]) -> Option<Layout> {
    let first = &plans.first()?.policy;
    let mut quotas = Vec::<Quota, MAX_QUOTAS>::from_slice(first.quotas()).ok()?;
    for plan in plans {
        let same = plan.policy.algorithm() == first.algorithm() && plan.policy.quotas().len() == quotas.len();
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
