//! The features of this crate that a device can leave out to save code.
//!
//! A feature that is left out removes code, and changes no type and no format. A policy, a list of
//! peppers, a key to import or a table that needs it is refused with a [`Feature`] as the reason.
//! So no check decides otherwise than with the feature, on one condition: all programs that use a
//! table at the same time have the same features. A table is examined when it is opened. If another
//! program then imports a key or adds a pepper, a build without that feature keeps the table open
//! and does not find such keys. `docs/EMBEDDED.md` lists the sizes.
//!
//! The rest of the crate branches on [`Feature::is_included`], a constant. Where it is false, the
//! compiler removes the code that depends on it. So every build type-checks all of the code, and no
//! item exists in some builds only.

use core::fmt;

/// A feature of this crate that a device can leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Feature {
    /// Sliding windows: [`Algorithm::Sliding`](crate::Algorithm::Sliding).
    Sliding,
    /// Keys of other forms than Keytally's, which were issued elsewhere.
    ImportedKeys,
    /// More than one pepper at a time, as after a change of the pepper.
    PepperRotation,
    /// Weeks and months.
    Calendar,
    /// Plans with several sections, teams, scopes and warnings.
    Sections,
}

impl Feature {
    /// Returns whether this build has the feature.
    pub const fn is_included(self) -> bool {
        match self {
            Self::Sliding => cfg!(feature = "sliding"),
            Self::ImportedKeys => cfg!(feature = "imported-keys"),
            Self::PepperRotation => cfg!(feature = "pepper-rotation"),
            Self::Calendar => cfg!(feature = "calendar"),
            Self::Sections => cfg!(feature = "sections"),
        }
    }

    /// Returns the name of the feature, as in `Cargo.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sliding => "sliding",
            Self::ImportedKeys => "imported-keys",
            Self::PepperRotation => "pepper-rotation",
            Self::Calendar => "calendar",
            Self::Sections => "sections",
        }
    }
}

/// Writes the sentence of an error that the missing feature causes.
impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sliding => {
                "this build has no sliding windows; build it with the feature `sliding`"
            }
            Self::ImportedKeys => {
                "this build has no keys of other forms; build it with the feature `imported-keys`"
            }
            Self::PepperRotation => {
                "this build has one pepper per gate; build it with the feature `pepper-rotation`"
            }
            Self::Calendar => {
                "this build has no weeks and months; build it with the feature `calendar`"
            }
            Self::Sections => {
                "this build has no sections, teams and scopes; build it with the feature `sections`"
            }
        })
    }
}
