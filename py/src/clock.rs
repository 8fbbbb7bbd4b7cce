//! The time of a call: an explicit one, or the system clock.

pub(crate) use keytally::SystemClock;
use keytally::Timestamp;
use keytally::now;

use crate::arguments::Moment;

/// The time of a call, as its argument `now` says.
#[derive(Clone, Copy)]
pub(crate) enum Time {
    /// Used as given.
    Explicit(Timestamp),
    /// The system clock, which was not read yet.
    System,
}

impl From<Option<Moment>> for Time {
    #[inline]
    fn from(moment: Option<Moment>) -> Self {
        moment.map_or(Self::System, |moment| Self::Explicit(moment.0))
    }
}

impl Time {
    /// Returns the time itself, and reads the clock for it if need be.
    pub(crate) fn moment(self) -> Timestamp {
        match self {
            Self::Explicit(time) => time,
            Self::System => now(),
        }
    }
}

/// Does `$work` with `$clock`, the `Clock` of a [`Time`]: a `Timestamp` or a `SystemClock`. The two
/// are of different types, so this cannot be a function that takes a closure.
macro_rules! with_clock {
    ($time:expr, |$clock:ident| $work:expr) => {
        match $time {
            $crate::clock::Time::Explicit($clock) => $work,
            $crate::clock::Time::System => {
                let $clock = $crate::clock::SystemClock::read();
                $work
            }
        }
    };
}

pub(crate) use with_clock;
