//! The result of comparing a key with both secrets of a record.

use subtle::Choice;

/// Which of a record's two secrets a key has.
pub(super) enum Match {
    Current,
    Previous,
    None,
}

impl Match {
    /// Declassifies the result of the comparisons. Nothing else branches on it: both tags have been
    /// compared entirely, and the response reveals whether the key is right.
    #[inline]
    pub(super) fn new(current: Choice, previous: Choice) -> Self {
        match (bool::from(current), bool::from(previous)) {
            (true, _) => Self::Current,
            (false, true) => Self::Previous,
            (false, false) => Self::None,
        }
    }
}
