//! What a machine does while it has no store: the operator's choice, and what each choice admits.

use core::fmt;
use core::str::FromStr;

/// What a request gets that finds no credits while the store cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnLoss {
    /// It is refused: the outcome is `Unavailable`.
    Closed,
    /// It is decided by the machine's own tally, with the limit divided by the number of machines.
    Share,
    /// It is decided by the machine's own tally, with the whole limit.
    Open,
}

/// The text is none of the three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOnLossError;

impl fmt::Display for ParseOnLossError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("on loss of the store, a fleet is `closed`, `share` or `open`")
    }
}

impl core::error::Error for ParseOnLossError {}

impl FromStr for OnLoss {
    type Err = ParseOnLossError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Closed, Self::Share, Self::Open];
        all.into_iter().find(|one| one.as_str() == text).ok_or(ParseOnLossError)
    }
}

impl fmt::Display for OnLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl OnLoss {
    /// Returns the word for it, as the operator writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Share => "share",
            Self::Open => "open",
        }
    }

    /// Returns whether a request can be admitted without credits.
    pub const fn is_admitting(self) -> bool {
        !matches!(self, Self::Closed)
    }

    /// Returns the limit by which the machine decides alone, in a fleet of `machines`. `None`
    /// if it refuses. A share is rounded down, so a limit below the number of machines admits
    /// nothing.
    pub const fn limit(self, limit: u32, machines: u32) -> Option<u32> {
        match self {
            Self::Closed => None,
            Self::Share => match limit.checked_div(machines) {
                Some(share) => Some(share),
                None => Some(limit),
            },
            Self::Open => Some(limit),
        }
    }

    /// Returns the most units that a window can admit on all machines, if this many of them are cut
    /// off from the store at some moment of the window: the limit by leases, and what each of them
    /// admits alone.
    pub const fn most_admitted(self, limit: u32, machines: u32, cut_off: u32) -> u64 {
        let alone = match self.limit(limit, machines) {
            Some(alone) => alone as u64,
            None => 0,
        };
        limit as u64 + alone * cut_off as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_read_and_written() {
        for one in [OnLoss::Closed, OnLoss::Share, OnLoss::Open] {
            assert_eq!(one.as_str().parse(), Ok(one));
        }
        assert_eq!("fail-open".parse::<OnLoss>(), Err(ParseOnLossError));
    }

    #[test]
    fn machines_that_are_cut_off_admit_their_shares() {
        assert_eq!(OnLoss::Closed.limit(100, 8), None);
        assert_eq!(OnLoss::Share.limit(100, 8), Some(12));
        assert_eq!(OnLoss::Share.limit(7, 8), Some(0), "a share is rounded down");
        assert_eq!(OnLoss::Share.limit(7, 0), Some(7));
        assert_eq!(OnLoss::Open.limit(100, 8), Some(100));
        let most = |mode: OnLoss| mode.most_admitted(100, 10, 4);
        assert_eq!([OnLoss::Closed, OnLoss::Share, OnLoss::Open].map(most), [100, 140, 500]);
    }
}
