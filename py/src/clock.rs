//! The time of a call: an explicit one, or the system clock.

pub(crate) use keytally::SystemClock;
use keytally::{Clock as _, Gate, Timestamp, now};
use pyo3::prelude::*;

use crate::arguments::Moment;

/// The time of a call, by its argument `now`.
#[derive(Clone, Copy)]
pub(crate) enum Time {
    /// The time that the caller gave, used without a correction.
    Explicit(Timestamp),
    /// The system clock, which is read during the call.
    System,
}

impl From<Option<Moment>> for Time {
    #[inline]
    fn from(moment: Option<Moment>) -> Self {
        moment.map_or(Self::System, |moment| Self::Explicit(moment.0))
    }
}

impl Time {
    /// Returns the explicit time, or a reading of the system clock.
    pub(crate) fn timestamp(self) -> Timestamp {
        match self {
            Self::Explicit(time) => time,
            Self::System => now(),
        }
    }

    /// Returns the explicit time, or a reading of the clock of a gate.
    pub(crate) fn timestamp_for(self, gate: &Gate) -> Timestamp {
        match self {
            Self::Explicit(time) => time,
            Self::System => gate.precise_clock().reading(),
        }
    }
}

/// Evaluates `$work` with `$clock`, the `Clock` of a [`Time`]: a `Timestamp`, or what `$read`
/// returns, by default `SystemClock::read`.
///
/// The two have different types, so a function with a closure cannot replace this macro.
macro_rules! with_clock {
    ($time:expr, |$clock:ident| $work:expr) => {
        $crate::clock::with_clock!($time, $crate::clock::SystemClock::read(), |$clock| $work)
    };
    ($time:expr, $read:expr, |$clock:ident| $work:expr) => {
        match $time {
            $crate::clock::Time::Explicit($clock) => $work,
            $crate::clock::Time::System => {
                let $clock = $read;
                $work
            }
        }
    };
}

pub(crate) use with_clock;

/// Sets the time that this process reads, in Unix milliseconds; ``None`` reads the system clock
/// again. Returns the former setting. Only ``keytally.testing`` calls this function.
#[pyfunction]
pub(crate) fn set_test_clock(unix_ms: Option<u64>) -> Option<u64> {
    keytally::testing::set_clock(unix_ms.map(Timestamp::from_unix_ms)).map(Timestamp::unix_ms)
}

/// Returns the time that calls without ``now`` read, in Unix milliseconds.
#[pyfunction]
pub(crate) fn clock_ms() -> u64 {
    now().unix_ms()
}
