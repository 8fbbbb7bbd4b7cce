//! Sections: the parts of a plan, each with tallies of its own.

use core::fmt::{self, Write as _};
use core::ops::Deref;

use crate::features::Feature;
use crate::text::Text;

/// The most tallies of a plan, and so of a request.
pub const MAX_TALLIES: usize = if Feature::Sections.is_included() { 8 } else { 1 };

/// The most tallies of the section `team`.
pub const MAX_TEAM_TALLIES: usize = 2;

/// The longest name of a group, in bytes.
pub const MAX_GROUP_NAME_LEN: usize = 16;

/// A section of a plan: whose requests its quotas count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Section {
    /// The requests of one key.
    Key,
    /// The requests of all keys of an account.
    Team,
    /// The requests of one key that name this group, such as a group of routes.
    Group(SectionName),
    /// The requests from a network that a client's address is in, `prefix-` and its prefix. It is
    /// a section of a limiter, and not of a plan.
    Prefix(SectionName),
}

/// The name of a group. It dereferences to `str`.
///
/// Copying it takes a few instructions, unlike a [`Text`]: each verdict on a group has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SectionName {
    bytes: [u8; MAX_GROUP_NAME_LEN],
    len: u8,
}

impl SectionName {
    const EMPTY: Self = Self { bytes: [0; MAX_GROUP_NAME_LEN], len: 0 };

    /// The name in a text; `None` if it is longer than 16 bytes.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let mut name = Self::EMPTY;
        name.bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        name.len = u8::try_from(text.len()).ok()?;
        Some(name)
    }
}

impl Deref for SectionName {
    type Target = str;

    fn deref(&self) -> &str {
        let bytes = self.bytes.get(..self.len.into()).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Display for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl fmt::Debug for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for SectionName {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::Format::format(&**self, f);
    }
}

impl Section {
    /// The group of this name; `None` if it is not 1 to 16 characters of `a-z`, `0-9`, `-` and `_`,
    /// or if it is `key` or `team`.
    pub fn group(name: &str) -> Option<Self> {
        let is_name = !name.is_empty()
            && !["key", "team"].contains(&name)
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        is_name.then(|| SectionName::new(name).map(Self::Group)).flatten()
    }

    /// The network with this prefix.
    pub(crate) fn prefix(prefix: u8) -> Self {
        let mut name = Text::<MAX_GROUP_NAME_LEN>::new();
        // It has at most ten bytes.
        let _ = write!(name, "prefix-{prefix}");
        Self::Prefix(SectionName::new(&name).unwrap_or(SectionName::EMPTY))
    }

    /// Returns the name: `key`, `team` or that of the group or prefix.
    pub fn name(&self) -> &str {
        match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::Group(name) | Self::Prefix(name) => name,
        }
    }
}

/// Writes the section as it is named in a plan: `key`, `team` or `group NAME`.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Group(_) = self {
            f.write_str("group ")?;
        }
        f.write_str(self.name())
    }
}
