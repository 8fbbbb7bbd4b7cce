//! The sections of a plan: parses text such as `100/minute; team: 500/minute; group write:
//! 10/minute`, and lays out the quotas over tallies.

use core::fmt::{self, Write as _};
use core::ops::Range;
use core::str::FromStr;

use heapless::Vec;

use crate::features::Feature;
use crate::policy::{
    Fault, ParsePolicyError, ParsePolicyErrorKind, Policy, each_quota, leading_number,
    never_binding, parse_quota, put_in_order, split, split_algorithm, trimmed,
};
use crate::quota::{Algorithm, MAX_QUOTAS, Quota};
use crate::section::{MAX_TALLIES, MAX_TEAM_TALLIES, Section};
use crate::tally::Layout;
use crate::text::Text;

/// The longest text of a plan's quotas, in bytes.
pub const MAX_SECTIONS_LEN: usize = 512;

/// The most quotas of all sections.
const MAX_SECTION_QUOTAS: usize = MAX_TALLIES * MAX_QUOTAS;

/// The most warnings of a quota.
pub const MAX_WARNINGS: usize = 2;

/// The percentages of a quota's limit at which charges are reported, the lower one first; 0 for
/// none.
pub type Warnings = [u8; MAX_WARNINGS];

/// The quotas of a plan, in sections.
///
/// The text is the quotas of the key, as in a [`Policy`], and then further sections, each after a
/// semicolon: `team: …` for those that all keys of an account share, and `group NAME: …` for those
/// of requests that name the group. `sliding` holds for its section. `unlimited` in place of quotas
/// counts nothing. `warn 80% 95%` after a quota reports the charges that reach these shares of it.
///
/// ```
/// use keytally_core::Sections;
/// let text = "100/minute, 1000/hour; team: 5000/hour; group write: unlimited";
/// let sections: Sections = text.parse()?;
/// assert_eq!(sections.to_string(), text);
/// assert_eq!(sections.iter().nth(1).unwrap().quotas()[0].limit, 5000);
/// # Ok::<(), keytally_core::ParsePolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sections {
    heads: Vec<Head, MAX_TALLIES>,
    quotas: Vec<Quota, MAX_SECTION_QUOTAS>,
    /// Those of each quota.
    warnings: Vec<Warnings, MAX_SECTION_QUOTAS>,
}

/// A section, and how many of the quotas are its own; 0 if it is unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    section: Section,
    algorithm: Algorithm,
    len: usize,
}

/// A section of a plan with its quotas.
#[derive(Clone, Copy, Debug)]
pub struct SectionQuotas<'s> {
    head: &'s Head,
    quotas: &'s [Quota],
    warnings: &'s [Warnings],
}

impl<'s> SectionQuotas<'s> {
    /// Returns the section.
    pub fn section(&self) -> &'s Section {
        &self.head.section
    }

    /// Returns the algorithm by which the windows count.
    pub fn algorithm(&self) -> Algorithm {
        self.head.algorithm
    }

    /// Returns the quotas, shortest window first; empty if the section is unlimited.
    pub fn quotas(&self) -> &'s [Quota] {
        self.quotas
    }

    /// Returns the warnings of each quota.
    pub fn warnings(&self) -> &'s [Warnings] {
        self.warnings
    }

    /// Returns whether the section counts nothing.
    pub fn is_unlimited(&self) -> bool {
        self.quotas.is_empty()
    }

    /// Returns each quota that can never deny a request, together with a quota of this section that
    /// denies first. See [`Policy::never_binding`].
    pub fn never_binding(&self) -> impl Iterator<Item = (Quota, Quota)> + 's {
        never_binding(self.head.algorithm, self.quotas)
    }
}

impl Sections {
    /// Parses sections as [`FromStr`] does, but keeps only the kind of an error.
    ///
    /// # Errors
    /// [`ParsePolicyErrorKind`] if the text is not that of sections.
    pub fn from_text(text: &str) -> Result<Self, ParsePolicyErrorKind> {
        Self::parse(text).map_err(|fault| fault.kind)
    }

    /// Returns each section with its quotas. The first is [`Section::Key`].
    pub fn iter(&self) -> impl Iterator<Item = SectionQuotas<'_>> {
        let mut start = 0;
        self.heads.iter().map(move |head| {
            let range = start..start + head.len;
            start = range.end;
            SectionQuotas {
                head,
                quotas: self.quotas.get(range.clone()).unwrap_or_default(),
                warnings: self.warnings.get(range).unwrap_or_default(),
            }
        })
    }

    /// Returns the section with this name: `key`, `team` or that of a group.
    pub fn named(&self, name: &str) -> Option<SectionQuotas<'_>> {
        self.iter().find(|section| section.section().name() == name)
    }

    /// Returns whether one tally holds everything that the plan counts, and there is no warning.
    pub(crate) fn is_plain(&self) -> bool {
        let unwarned = |warnings: &Warnings| *warnings == [0; MAX_WARNINGS];
        self.heads.len() == 1
            && !self.quotas.is_empty()
            && self.quotas.len() <= MAX_QUOTAS
            && self.warnings.iter().all(unwarned)
            && Layout::new(self.heads[0].algorithm, &self.quotas).is_ok()
    }

    /// No section, to which [`push`](Self::push) adds.
    pub(crate) const fn new() -> Self {
        Self { heads: Vec::new(), quotas: Vec::new(), warnings: Vec::new() }
    }

    /// Adds a section without quotas. Returns false if there is no room for it.
    pub(crate) fn push(&mut self, section: Section, algorithm: Algorithm) -> bool {
        self.heads.push(Head { section, algorithm, len: 0 }).is_ok()
    }

    /// Adds a quota to the last section. Returns false if there is no room for it.
    pub(crate) fn push_quota(&mut self, quota: Quota, warnings: Warnings) -> bool {
        let is_added = self.quotas.push(quota).is_ok() && self.warnings.push(warnings).is_ok();
        match self.heads.last_mut() {
            Some(head) if is_added => head.len += 1,
            _ => return false,
        }
        true
    }

    fn parse(text: &str) -> Result<Self, Fault<'_>> {
        let fault = |kind, part| Err(Fault::new(kind, part));
        if text.len() > MAX_SECTIONS_LEN {
            return fault(ParsePolicyErrorKind::TooLong { max: MAX_SECTIONS_LEN }, text);
        }
        let mut sections = Self::new();
        let mut rest = Some(text);
        while let Some(list) = rest {
            let (part, after) =
                split(list, b';').map_or((list, None), |(part, after)| (part, Some(after)));
            rest = after;
            let part = trimmed(part);
            let (section, quotas) = if sections.heads.is_empty() {
                (Section::Key, part)
            } else {
                parse_name(part).ok_or(Fault::new(ParsePolicyErrorKind::Section, part))?
            };
            if !Feature::Sections.is_included() && section != Section::Key {
                return fault(ParsePolicyErrorKind::LeftOut(Feature::Sections), part);
            }
            if sections.heads.iter().any(|head| head.section == section) {
                return fault(ParsePolicyErrorKind::SectionTwice, name_in(part));
            }
            sections.parse_section(section, part, quotas)?;
        }
        // Refuses what no gate could count, and what would be too long in the form that is written.
        for_each_tally(&sections, |_, _, _| ())?;
        if write!(Text::<MAX_SECTIONS_LEN>::new(), "{sections}").is_err() {
            return fault(ParsePolicyErrorKind::TooLong { max: MAX_SECTIONS_LEN }, text);
        }
        Ok(sections)
    }

    /// Adds a section whose quotas are in a text. `whole` has its name in front of them.
    fn parse_section<'t>(
        &mut self,
        section: Section,
        whole: &'t str,
        text: &'t str,
    ) -> Result<(), Fault<'t>> {
        let (algorithm, list) = split_algorithm(text);
        let is_unlimited = text == "unlimited" && Feature::Sections.is_included();
        if !self.push(section, algorithm) {
            return Err(Fault::new(ParsePolicyErrorKind::TooManyTallies, text));
        }
        if is_unlimited {
            return Ok(());
        }
        let start = self.quotas.len();
        // In ascending order of windows after the loop; the warnings are sorted with them.
        let mut warned = Vec::<(Quota, Warnings), MAX_SECTION_QUOTAS>::new();
        each_quota(whole, list, |part| {
            let (part, warnings) = split_warnings(part)?;
            let added = warned.push((parse_quota(part)?, warnings));
            added.map_err(|_| Fault::new(ParsePolicyErrorKind::TooManyTallies, part))
        })?;
        for &(quota, warnings) in &warned {
            if !self.push_quota(quota, warnings) {
                return Err(Fault::new(ParsePolicyErrorKind::TooManyTallies, text));
            }
        }
        let quotas = self.quotas.get_mut(start..).unwrap_or_default();
        put_in_order(algorithm, quotas)?;
        for (quota, warnings) in quotas.iter().zip(self.warnings.iter_mut().skip(start)) {
            let its = |(other, _): &&(Quota, Warnings)| {
                other.window == quota.window
                    || (algorithm.slides() && other.window.seconds() == quota.window.seconds())
            };
            *warnings = warned.iter().find(its).map_or([0; MAX_WARNINGS], |(_, found)| *found);
        }
        Ok(())
    }
}

/// Calls `report` for each tally that counts the quotas of some sections: with the number of its
/// section, the range of the section's quotas that it counts, and its layout.
///
/// If the quotas of a section do not fit one tally, the longest windows are in further ones.
///
/// # Errors
/// The fault if a quota does not fit a tally, or if there are too many tallies.
pub(crate) fn for_each_tally(
    sections: &Sections,
    mut report: impl FnMut(usize, Range<usize>, Layout),
) -> Result<(), Fault<'static>> {
    let fault = |kind| Err(Fault::new(kind, ""));
    let mut tallies = 0;
    for (number, section) in sections.iter().enumerate() {
        let (mut start, mut own) = (0, 0);
        while start < section.quotas().len() {
            let (end, layout) = longest_tally(section.algorithm(), section.quotas(), start)?;
            report(number, start..end, layout);
            (start, own) = (end, own + 1);
        }
        if *section.section() == Section::Team && own > MAX_TEAM_TALLIES {
            return fault(ParsePolicyErrorKind::TooManyTeamTallies);
        }
        // A section that this plan does not limit has a tally for the plans that do.
        tallies += own.max(1);
    }
    if tallies > MAX_TALLIES { fault(ParsePolicyErrorKind::TooManyTallies) } else { Ok(()) }
}

/// Returns the end of the most quotas from `start` on that fit one tally, and their layout.
fn longest_tally(
    algorithm: Algorithm,
    quotas: &[Quota],
    start: usize,
) -> Result<(usize, Layout), Fault<'static>> {
    let rest = quotas.get(start..).unwrap_or_default();
    let mut needed = 0;
    for len in (1..=rest.len().min(MAX_QUOTAS)).rev() {
        match Layout::new(algorithm, rest.get(..len).unwrap_or_default()) {
            Ok(layout) => return Ok((start + len, layout)),
            Err(bits) => needed = bits,
        }
    }
    let kind = ParsePolicyErrorKind::TooManyBits { needed };
    Err(rest.first().map_or(Fault::new(kind, ""), |&quota| Fault::about(kind, quota)))
}

/// Splits `team: …` or `group NAME: …` into the section and its quotas.
fn parse_name(part: &str) -> Option<(Section, &str)> {
    let (_, quotas) = split(part, b':')?;
    let name = name_in(part);
    let section = if name == "team" {
        Section::Team
    } else {
        let name = name.strip_prefix("group")?;
        // A blank must separate the word from the name.
        Section::group(trimmed(name.strip_prefix([' ', '\t'])?))?
    };
    Some((section, trimmed(quotas)))
}

/// Returns the name at the front of a section, before the colon.
fn name_in(part: &str) -> &str {
    split(part, b':').map_or(part, |(name, _)| trimmed(name))
}

/// Splits `QUOTA warn 80% 95%` into the quota and the percentages.
fn split_warnings(part: &str) -> Result<(&str, Warnings), Fault<'_>> {
    let Some(at) = part.find("warn") else { return Ok((part, [0; MAX_WARNINGS])) };
    let fault = || Fault::new(ParsePolicyErrorKind::Warning, part);
    let (quota, list) =
        (part.get(..at).unwrap_or_default(), part.get(at + 4..).unwrap_or_default());
    let mut warnings = [0; MAX_WARNINGS];
    let mut count = 0_usize;
    for word in list.split([' ', '\t']).filter(|word| !word.is_empty()) {
        let (number, digits) = leading_number(word);
        let percent = number.and_then(|number| u8::try_from(number).ok());
        let is_above = |&percent: &u8| {
            (1..=100).contains(&percent)
                && count.checked_sub(1).is_none_or(|last: usize| percent > warnings[last])
        };
        let percent = percent
            .filter(is_above)
            .filter(|_| word.get(digits..) == Some("%"))
            .ok_or_else(fault)?;
        *warnings.get_mut(count).ok_or_else(fault)? = percent;
        count += 1;
    }
    if count == 0 || !list.starts_with([' ', '\t']) || !quota.ends_with([' ', '\t']) {
        return Err(fault());
    }
    Ok((trimmed(quota), warnings))
}

impl From<Policy> for Sections {
    /// The sections of a plan that counts this policy for each key and nothing else.
    fn from(policy: Policy) -> Self {
        let mut sections = Self::new();
        // There is room for one policy.
        let _ = sections.push(Section::Key, policy.algorithm());
        for &quota in policy.quotas() {
            let _ = sections.push_quota(quota, [0; MAX_WARNINGS]);
        }
        sections
    }
}

impl FromStr for Sections {
    type Err = ParsePolicyError;

    /// # Errors
    /// [`ParsePolicyError`] if the text does not have the form above, has more than
    /// [`MAX_SECTIONS_LEN`] bytes, or needs more than [`MAX_TALLIES`] tallies.
    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        Ok(Self::parse(text)?)
    }
}

impl fmt::Display for Sections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, section) in self.iter().enumerate() {
            if number > 0 {
                write!(f, "; {}: ", section.section())?;
            }
            if section.is_unlimited() {
                f.write_str("unlimited")?;
                continue;
            }
            if section.algorithm() == Algorithm::Sliding {
                f.write_str("sliding ")?;
            }
            for (index, quota) in section.quotas().iter().enumerate() {
                if index > 0 {
                    f.write_str(", ")?;
                }
                quota.fmt(f)?;
                let mut before = " warn ";
                for percent in section.warnings()[index].iter().filter(|&&percent| percent > 0) {
                    write!(f, "{before}{percent}%")?;
                    before = " ";
                }
            }
        }
        Ok(())
    }
}
