//! The time of a call: an explicit time, or the system clock.

#[cfg(feature = "host")]
#[expect(clippy::disallowed_types, reason = "a flag, not of a table")]
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[cfg(feature = "host")]
pub(crate) use keytally::{GateClock, SystemClock};
use keytally_core::Timestamp;

use crate::status::FfiResult;
#[cfg(not(feature = "host"))]
use crate::status::kt_status;

/// As `now_ms`: the system clock. It is read in the call, and again if a tally is ahead of that
/// reading or lacks room. A check first reads the kernel's coarse clock, which is late by up to a
/// tick, and by longer if the kernel could not run its tick. A library without the host part
/// returns `KT_NO_CLOCK`.
pub const KT_SYSTEM_CLOCK: u64 = 18446744073709551615;

const _: () = assert!(KT_SYSTEM_CLOCK == u64::MAX);

/// What `now_ms` means to one handle.
#[cfg_attr(feature = "host", expect(clippy::disallowed_types, reason = "a flag, not of a table"))]
#[derive(Debug, Default)]
pub struct HandleClock {
    /// Whether each `now_ms` is a cached reading of the system clock.
    #[cfg(feature = "host")]
    cached: AtomicBool,
}

/// The time of a call, from a `now_ms` and its handle.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Time {
    /// Used as given.
    Explicit(Timestamp),
    /// The system clock, with an earlier reading if the caller has one.
    #[cfg(feature = "host")]
    System(Option<Timestamp>),
}

impl HandleClock {
    /// Declares every explicit time of this handle a cached reading of the system clock.
    #[cfg(feature = "host")]
    pub(crate) fn use_system_clock(&self) {
        self.cached.store(true, Relaxed);
    }

    /// Returns the time that `now_ms` means.
    #[inline]
    pub(crate) fn time(&self, now_ms: u64) -> FfiResult<Time> {
        #[cfg(feature = "host")]
        if now_ms != KT_SYSTEM_CLOCK && self.cached.load(Relaxed) {
            return Ok(Time::System(Some(Timestamp::from_unix_ms(now_ms))));
        }
        Time::new(now_ms)
    }
}

/// The clock of a call on a table: that of its handle, and in a fleet, as far ahead of it as the
/// fleet's clock is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallClock<'c> {
    handle: &'c HandleClock,
    #[cfg(feature = "host")]
    offset_ms: i64,
}

/// The time of a call on a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTime {
    pub(crate) time: Time,
    #[cfg(feature = "host")]
    offset_ms: i64,
}

impl<'c> CallClock<'c> {
    /// The clock of a table that is not in a fleet.
    #[inline]
    pub(crate) fn new(handle: &'c HandleClock) -> Self {
        Self {
            handle,
            #[cfg(feature = "host")]
            offset_ms: 0,
        }
    }

    /// The clock of a table whose fleet's clock is `offset_ms` ahead of the system clock.
    #[cfg(feature = "host")]
    #[inline]
    pub(crate) fn ahead(handle: &'c HandleClock, offset_ms: i64) -> Self {
        Self { handle, offset_ms }
    }

    /// Returns the time that `now_ms` means.
    #[inline]
    pub(crate) fn time(self, now_ms: u64) -> FfiResult<CallTime> {
        Ok(CallTime {
            time: self.handle.time(now_ms)?,
            #[cfg(feature = "host")]
            offset_ms: self.offset_ms,
        })
    }
}

#[cfg(feature = "host")]
impl CallTime {
    /// Returns this time on a fleet whose clock is `offset_ms` ahead of the system clock.
    pub(crate) fn ahead(time: Time, offset_ms: i64) -> Self {
        Self { time, offset_ms }
    }

    /// Returns this time on the fleet of a limiter, unless that of a gate has another clock.
    pub(crate) fn or_ahead(self, offset_ms: Option<i64>) -> Self {
        let offset_ms = if self.offset_ms == 0 { offset_ms.unwrap_or(0) } else { self.offset_ms };
        Self { offset_ms, ..self }
    }

    /// Returns the clock of the fleet, if it differs from that of the system and this is not an
    /// explicit time.
    #[inline]
    pub(crate) fn fleet(self) -> Option<GateClock> {
        match self.time {
            Time::System(cached) if self.offset_ms != 0 => {
                let clock = cached.map_or_else(SystemClock::read, SystemClock::cached);
                Some(GateClock::ahead(clock, self.offset_ms))
            }
            _ => None,
        }
    }
}

impl Time {
    /// Returns the time that `now_ms` means without a handle.
    #[inline]
    pub(crate) fn new(now_ms: u64) -> FfiResult<Self> {
        match now_ms {
            #[cfg(feature = "host")]
            KT_SYSTEM_CLOCK => Ok(Self::System(None)),
            #[cfg(not(feature = "host"))]
            KT_SYSTEM_CLOCK => Err(kt_status::KT_NO_CLOCK),
            _ => Ok(Self::Explicit(Timestamp::from_unix_ms(now_ms))),
        }
    }

    /// Returns the timestamp. Reads the system clock; a cached reading is used only if it is later.
    pub(crate) fn moment(self) -> Timestamp {
        match self {
            Self::Explicit(time) => time,
            #[cfg(feature = "host")]
            Self::System(cached) => keytally::now().max(cached.unwrap_or_default()),
        }
    }

    /// Replaces a cached reading by a later one, before work that the caller may have waited for.
    pub(crate) fn refreshed(self) -> Self {
        match self {
            Self::Explicit(_) => self,
            #[cfg(feature = "host")]
            Self::System(_) => Self::System(Some(self.moment())),
        }
    }
}

/// Does `$work` with `$clock`, the [`Clock`](keytally_core::Clock) of a [`Time`]: a `Timestamp` or
/// a `SystemClock`. (The two are of different types, so this cannot be a function that takes a
/// closure.)
///
/// With the `$layout` of a table, or with `of` a gate that has one tally for each key, the system
/// clock is read by `SystemClock::read_for`, else by `SystemClock::read`.
macro_rules! with_clock {
    ($time:expr, $layout:expr, |$clock:ident| $work:expr) => {
        $crate::time::with_clock!(@ $time, |$clock| $work, || SystemClock::read_for($layout))
    };
    ($time:expr, of $gate:expr, |$clock:ident| $work:expr) => {
        $crate::time::with_clock!(@ $time, |$clock| $work, || {
            if $gate.is_extended() {
                SystemClock::read()
            } else {
                SystemClock::read_for($gate.layout())
            }
        })
    };
    ($time:expr, |$clock:ident| $work:expr) => {
        $crate::time::with_clock!(@ $time, |$clock| $work, SystemClock::read)
    };
    (@ $time:expr, |$clock:ident| $work:expr, $read:expr) => {
        match $time {
            $crate::time::Time::Explicit($clock) => $work,
            #[cfg(feature = "host")]
            $crate::time::Time::System(cached) => {
                use $crate::time::SystemClock;
                let $clock = cached.map_or_else($read, SystemClock::cached);
                $work
            }
        }
    };
}

pub(crate) use with_clock;

/// Does `$work` with `$clock`, the [`Clock`](keytally_core::Clock) of a [`CallTime`], as
/// [`with_clock`] does.
macro_rules! with_call_clock {
    ($time:expr, $(of $gate:expr,)? $(in $layout:expr,)? |$clock:ident| $work:expr) => {{
        let time = $time;
        #[cfg(feature = "host")]
        let fleet = time.fleet();
        #[cfg(not(feature = "host"))]
        let fleet = None::<keytally_core::Timestamp>;
        match fleet {
            Some($clock) => $work,
            None => {
                $crate::time::with_clock!(time.time, $(of $gate,)? $($layout,)? |$clock| $work)
            }
        }
    }};
}

pub(crate) use with_call_clock;
