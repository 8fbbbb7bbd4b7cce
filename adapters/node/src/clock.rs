//! The time of a call: an explicit one, or the system clock.

pub(crate) use keytally::SystemClock;
use keytally::{Clock as _, Gate, Timestamp, now};
use napi_derive::napi;

use crate::facts::{milliseconds, time};

/// The time of a call, by its argument `now`.
#[derive(Clone, Copy)]
pub(crate) enum Time {
    /// The time that the caller gave, used without a correction.
    Explicit(Timestamp),
    /// The system clock, which is read during the call.
    System,
}

/// The time of an argument in Unix milliseconds, or of the system clock if it is negative.
impl From<f64> for Time {
    #[inline]
    fn from(unix_ms: f64) -> Self {
        if unix_ms < 0.0 {
            return Self::System;
        }
        Self::Explicit(Timestamp::from_unix_ms(time(unix_ms)))
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

/// Sets the time that this process reads, in Unix milliseconds; nothing reads the system clock
/// again. Returns the former setting.
#[napi(catch_unwind)]
pub(crate) fn set_test_clock(unix_ms: Option<f64>) -> Option<f64> {
    let set = unix_ms.map(|unix_ms| Timestamp::from_unix_ms(time(unix_ms)));
    keytally::testing::set_clock(set).map(milliseconds)
}

/// Returns the time that calls without `now` read, in Unix milliseconds.
#[napi(catch_unwind)]
pub(crate) fn clock_ms() -> f64 {
    milliseconds(now())
}
