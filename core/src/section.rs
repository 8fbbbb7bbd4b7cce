//! Sections: the parts of a plan, each with tallies of its own.

use core::fmt::{self, Write as _};

use crate::features::Feature;
use crate::text::Text;

/// The most tallies of a plan, and so of a request.
pub const MAX_TALLIES: usize = if Feature::Sections.is_included() { 8 } else { 1 };

/// The most tallies of the section `team`.
pub const MAX_TEAM_TALLIES: usize = 2;

/// The longest name of a group, in bytes.
pub const MAX_GROUP_NAME_LEN: usize = 16;

/// A section of a plan: whose requests its quotas count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Section {
    /// The requests of one key.
    Key,
    /// The requests of all keys of an account.
    Team,
    /// The requests of one key that name this group, such as a group of routes.
    Group(Text<MAX_GROUP_NAME_LEN>),
    /// The requests from a network that a client's address is in, `prefix-` and its prefix. It is
    /// a section of a limiter, and not of a plan.
    Prefix(Text<MAX_GROUP_NAME_LEN>),
}

impl Section {
    /// The group of this name; `None` if it is not 1 to 16 characters of `a-z`, `0-9`, `-` and `_`,
    /// or if it is `key` or `team`.
    pub fn group(name: &str) -> Option<Self> {
        let is_name = !name.is_empty()
            && !["key", "team"].contains(&name)
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        is_name.then(|| Text::from_text(name).map(Self::Group)).flatten()
    }

    /// The network with this prefix.
    pub(crate) fn prefix(prefix: u8) -> Self {
        let mut name = Text::new();
        // It has at most ten bytes.
        let _ = write!(name, "prefix-{prefix}");
        Self::Prefix(name)
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
