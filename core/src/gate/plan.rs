//! Plans: named quotas that keys are issued under.

use heapless::Vec;

use crate::cache_line::CACHE_LINE_WORDS;
use crate::policy::ParsePolicyErrorKind;
use crate::quota::{Limits, MAX_QUOTAS, Quota};
use crate::section::{MAX_TALLIES, Section};
use crate::sections::{MAX_WARNINGS, Sections, Warnings, for_each_tally};
use crate::tally::Layout;
use crate::text::Text;
use crate::window::Window;

/// The longest name of a plan, in bytes.
pub const MAX_PLAN_NAME_LEN: usize = 16;

/// Plans in a line of the header.
pub(super) const PLANS_PER_LINE: usize = 2;

/// Words of a plan in the header.
pub(super) const PLAN_WORDS: usize = CACHE_LINE_WORDS / PLANS_PER_LINE;

/// The quota of a section that no plan limits. Its tally is never charged.
const UNLIMITED: Quota = Quota { limit: u32::MAX, window: Window::LONGEST };

/// Named quotas, in sections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Plan {
    /// 1 to 16 characters of `a-z`, `0-9`, `-` and `_`.
    pub name: Text<MAX_PLAN_NAME_LEN>,
    /// The quotas of keys with this plan, of their teams, and of groups of requests.
    pub sections: Sections,
}

impl Plan {
    /// Returns a plan; `None` if the name is not 1 to 16 characters of `a-z`, `0-9`, `-` and `_`.
    pub fn new(name: &str, sections: Sections) -> Option<Self> {
        let fits = !name.is_empty()
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        fits.then(|| Some(Self { name: Text::from_text(name)?, sections })).flatten()
    }

    pub(super) fn name_from_words(words: [u64; 2]) -> Option<Text<MAX_PLAN_NAME_LEN>> {
        let mut name = Text::new();
        for byte in words.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0) {
            name.push(char::from(byte)).then_some(())?;
        }
        (!name.is_empty()).then_some(name)
    }
}

/// Returns the first 16 bytes of a name, padded with zeros, as words of the header.
pub(super) fn name_words(name: &str) -> [u64; 2] {
    let mut bytes = [0; MAX_PLAN_NAME_LEN];
    for (byte, &character) in bytes.iter_mut().zip(name.as_bytes()) {
        *byte = character;
    }
    let (words, _) = bytes.as_chunks();
    core::array::from_fn(|word| u64::from_le_bytes(words[word]))
}

/// What one tally of a gate counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The number of the section.
    pub(super) section: usize,
    /// The position of the tally's first quota in its section.
    pub(super) first: usize,
    pub(super) layout: Layout,
}

/// The sections that all plans share, and the shape of each tally.
#[derive(Debug)]
pub(super) struct Shapes {
    pub(super) sections: Vec<Section, MAX_TALLIES>,
    pub(super) tallies: Vec<Shape, MAX_TALLIES>,
}

/// The limits of a tally under a plan, and the warnings of its quotas. All limits are 0 if the
/// plan does not limit the section.
pub(super) type TallyLimits = (Limits, [Warnings; MAX_QUOTAS]);

impl Shapes {
    /// The shapes that can count the largest limit of every window over all plans.
    ///
    /// Returns `None` if there is no plan, if their sections, algorithms or windows differ, or if
    /// they need too many tallies.
    pub(super) fn common(plans: &[Plan]) -> Option<Self> {
        let first = &plans.first()?.sections;
        let mut common = Sections::new();
        for (number, section) in first.iter().enumerate() {
            let its = |plan| section_of(plan, number);
            for plan in plans {
                (its(plan)?.section() == section.section()).then_some(())?;
            }
            // The windows and the algorithm are those of the first plan that limits the section.
            let model = plans.iter().filter_map(its).find(|section| !section.is_unlimited());
            let algorithm = model.map_or(section.algorithm(), |model| model.algorithm());
            common.push(*section.section(), algorithm).then_some(())?;
            let Some(model) = model else {
                common.push_quota(UNLIMITED, [0; MAX_WARNINGS]).then_some(())?;
                continue;
            };
            for (index, quota) in model.quotas().iter().enumerate() {
                let mut limit = quota.limit;
                for other in plans.iter().filter_map(its).filter(|other| !other.is_unlimited()) {
                    let same = other.algorithm() == algorithm
                        && other.quotas().len() == model.quotas().len();
                    let quota_there = other.quotas().get(index).filter(|_| same)?;
                    (quota_there.window == quota.window).then_some(())?;
                    limit = limit.max(quota_there.limit);
                }
                let quota = Quota { limit, window: quota.window };
                common.push_quota(quota, [0; MAX_WARNINGS]).then_some(())?;
            }
        }
        let is_more = |plan: &Plan| plan.sections.iter().count() != first.iter().count();
        if plans.iter().any(is_more) {
            return None;
        }
        Self::of_sections(&common).ok()
    }

    /// Returns the layouts of the tallies of keys, which are the first ones.
    pub(super) fn of_keys(&self) -> impl Iterator<Item = &Layout> {
        let is_of_key = |shape: &&Shape| self.sections.get(shape.section) == Some(&Section::Key);
        self.tallies.iter().filter(is_of_key).map(|shape| &shape.layout)
    }

    /// Names the window that the fields `X-RateLimit-*` describe, by its position among all windows
    /// of keys. Returns whether there is one.
    pub(super) fn name_described(&mut self, mut position: usize) -> bool {
        for shape in &mut self.tallies {
            if self.sections.get(shape.section) != Some(&Section::Key) {
                break;
            }
            if position < shape.layout.len() {
                shape.layout.name_described(position);
                return true;
            }
            position -= shape.layout.len();
        }
        false
    }

    /// The shapes of sections of which each has quotas.
    fn of_sections(sections: &Sections) -> Result<Self, ParsePolicyErrorKind> {
        let mut shapes = Self { sections: Vec::new(), tallies: Vec::new() };
        for section in sections.iter() {
            // There is room for as many as a plan has.
            let _ = shapes.sections.push(*section.section());
        }
        for_each_tally(sections, |section, range, layout| {
            let _ = shapes.tallies.push(Shape { section, first: range.start, layout });
        })
        .map_err(|fault| fault.kind)?;
        Ok(shapes)
    }
}

impl Shape {
    /// Returns the limits and warnings of a plan for this tally, which must be of a gate whose
    /// sections and windows the plan has.
    pub(super) fn limits_of(&self, sections: &Sections) -> TallyLimits {
        let mut warnings = [[0; MAX_WARNINGS]; MAX_QUOTAS];
        let section = sections.iter().nth(self.section).filter(|section| !section.is_unlimited());
        let Some(section) = section else { return (Limits([0; MAX_QUOTAS]), warnings) };
        let range = self.first..self.first + self.layout.len();
        let quotas = section.quotas().get(range.clone()).unwrap_or_default();
        let its = section.warnings().get(range).unwrap_or_default();
        for (warning, own) in warnings.iter_mut().zip(its) {
            *warning = *own;
        }
        (Limits::of(quotas), warnings)
    }
}

fn section_of(plan: &Plan, number: usize) -> Option<crate::sections::SectionQuotas<'_>> {
    plan.sections.iter().nth(number)
}
