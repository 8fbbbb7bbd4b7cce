//! What happens to a new subject that finds both of its buckets full.

use core::fmt;
use core::str::FromStr;

use crate::quota::MAX_PART_LEN;
use crate::text::Text;

/// What happens to a request whose subject is new and finds both of its buckets full.
///
/// ```
/// use keytally_core::OnFull;
/// assert_eq!("refuse".parse(), Ok(OnFull::Refuse));
/// assert_eq!(OnFull::default().to_string(), "share");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OnFull {
    /// It is charged to the *overflow tally* of the subject's first bucket, under the same limits.
    ///
    /// All subjects that find this bucket full share that tally, and so one limit. It is the
    /// default, because a flood of new subjects can then slow down other newcomers, but not turn
    /// all of them away. No tally admits more than its limit. A subject that gets a slot later
    /// begins there with its whole limit, so it can be admitted up to its limit again in that
    /// window.
    #[default]
    Share,
    /// It is refused with [`Outcome::Full`](crate::Outcome::Full).
    ///
    /// Each subject that is admitted has a tally of its own. A flood of new subjects turns away all
    /// newcomers until slots become free.
    Refuse,
}

impl OnFull {
    /// Every value, in the order of their numbers.
    const ALL: [Self; 2] = [Self::Share, Self::Refuse];

    /// Returns the text: `share` or `refuse`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Refuse => "refuse",
        }
    }

    /// Returns the number by which tables store it.
    pub(super) const fn number(self) -> u64 {
        self as u64
    }

    /// Returns the value with this number.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.number() == number)
    }
}

impl fmt::Display for OnFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OnFull {
    type Err = ParseOnFullError;

    fn from_str(text: &str) -> Result<Self, ParseOnFullError> {
        Self::ALL
            .into_iter()
            .find(|value| value.as_str() == text)
            .ok_or_else(|| ParseOnFullError { text: Text::cut(text) })
    }
}

/// The error of a text that is neither `share` nor `refuse`.
///
/// ```
/// let error = "evict".parse::<keytally_core::OnFull>().unwrap_err();
/// assert_eq!(error.to_string(), "\"evict\" is not a value of on_full; it is share or refuse");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseOnFullError {
    text: Text<MAX_PART_LEN>,
}

impl ParseOnFullError {
    /// Returns the text, cut to 32 bytes.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ParseOnFullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a value of on_full; it is share or refuse", self.text)
    }
}

impl core::error::Error for ParseOnFullError {}
