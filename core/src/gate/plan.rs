//! Plans: named policies that keys are issued under.

use heapless::Vec;

use crate::bits::join;
use crate::cache_line::CACHE_LINE_WORDS;
use crate::policy::Policy;
use crate::quota::{MAX_QUOTAS, Quota};
use crate::tally::Layout;
use crate::text::Text;

/// The longest name of a plan, in bytes.
pub const MAX_PLAN_NAME_LEN: usize = 16;

/// Plans in a line of the header.
pub(super) const PLANS_PER_LINE: usize = 2;

/// Words of a plan in the header.
pub(super) const PLAN_WORDS: usize = CACHE_LINE_WORDS / PLANS_PER_LINE;

/// A named policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Plan {
    /// 1 to 16 characters of `a-z`, `0-9`, `-` and `_`.
    pub name: Text<MAX_PLAN_NAME_LEN>,
    /// The policy of keys with this plan.
    pub policy: Policy,
}

impl Plan {
    /// Returns a plan; `None` if the name is not 1 to 16 characters of `a-z`, `0-9`, `-` and `_`.
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
        let [first, second] = name_words(&bytes);
        let limits = self.policy.limits().0;
        [first, second, join(limits[1], limits[0]), join(limits[3], limits[2])]
    }

    pub(super) fn name_from_words(words: [u64; 2]) -> Option<Text<MAX_PLAN_NAME_LEN>> {
        let mut name = Text::new();
        for byte in words.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0) {
            name.push(char::from(byte)).then_some(())?;
        }
        (!name.is_empty()).then_some(name)
    }
}

/// Returns a plan's name, padded with zeros, as words of the header.
pub(super) fn name_words(bytes: &[u8; MAX_PLAN_NAME_LEN]) -> [u64; 2] {
    let (words, _) = bytes.as_chunks();
    core::array::from_fn(|word| u64::from_le_bytes(words[word]))
}

/// Returns the layout that can count the largest limit of every window over all plans.
///
/// Returns `None` if there is no plan, if their algorithms or windows differ, or if the counts do
/// not fit one tally.
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
    Some(*Policy::from_quotas(first.algorithm(), &quotas).ok()?.layout())
}
