//! The time of a call: an explicit one, or the system clock.

#[cfg(feature = "host")]
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[cfg(feature = "host")]
pub(crate) use keytally::SystemClock;
use keytally_core::Timestamp;

use crate::gate::kt_gate;
use crate::guard::{Outcome, guard};
use crate::limiter::kt_limiter;
use crate::pointers::{Handle, Out};
use crate::status::kt_status;

/// As `now_ms`: the system clock. It is read in the call, and again if a tally is ahead of that
/// reading. A library without the host part returns `KT_NO_CLOCK`.
pub const KT_SYSTEM_CLOCK: u64 = 18446744073709551615;

const _: () = assert!(KT_SYSTEM_CLOCK == u64::MAX);

/// What `now_ms` means to one handle.
#[derive(Debug, Default)]
pub struct HandleClock {
    /// Whether it is a cached reading of the system clock.
    #[cfg(feature = "host")]
    cached: AtomicBool,
}

/// The time of a call, as a `now_ms` and its handle say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Time {
    /// Used as given.
    Explicit(Timestamp),
    /// The system clock, with an earlier reading if the caller has one.
    #[cfg(feature = "host")]
    System(Option<Timestamp>),
}

impl HandleClock {
    /// Returns the time that `now_ms` means.
    #[inline]
    pub(crate) fn time(&self, now_ms: u64) -> Outcome<Time> {
        #[cfg(feature = "host")]
        if now_ms != KT_SYSTEM_CLOCK && self.cached.load(Relaxed) {
            return Ok(Time::System(Some(Timestamp::from_unix_ms(now_ms))));
        }
        Time::new(now_ms)
    }
}

impl Time {
    /// Returns the time that `now_ms` means without a handle.
    #[inline]
    pub(crate) fn new(now_ms: u64) -> Outcome<Self> {
        match now_ms {
            #[cfg(feature = "host")]
            KT_SYSTEM_CLOCK => Ok(Self::System(None)),
            #[cfg(not(feature = "host"))]
            KT_SYSTEM_CLOCK => Err(kt_status::KT_NO_CLOCK),
            _ => Ok(Self::Explicit(Timestamp::from_unix_ms(now_ms))),
        }
    }

    /// Returns the time itself. A cached reading is replaced by a later one.
    pub(crate) fn moment(self) -> Timestamp {
        match self {
            Self::Explicit(time) => time,
            #[cfg(feature = "host")]
            Self::System(cached) => keytally::now().max(cached.unwrap_or_default()),
        }
    }

    /// Replaces a cached reading by a later one, for work that the caller may have waited for.
    pub(crate) fn refreshed(self) -> Self {
        match self {
            Self::Explicit(_) => self,
            #[cfg(feature = "host")]
            Self::System(_) => Self::System(Some(self.moment())),
        }
    }
}

/// Does `$work` with `$clock`, the [`Clock`](keytally_core::Clock) of a [`Time`]: a `Timestamp` or a
/// `SystemClock`. (The two are of different types, so this cannot be a function that takes a
/// closure.)
macro_rules! with_clock {
    ($time:expr, |$clock:ident| $work:expr) => {
        match $time {
            $crate::clock::Time::Explicit($clock) => $work,
            #[cfg(feature = "host")]
            $crate::clock::Time::System(cached) => {
                use $crate::clock::SystemClock;
                let $clock = cached.map_or_else(SystemClock::read, SystemClock::cached);
                $work
            }
        }
    };
}

pub(crate) use with_clock;

/// Declares that every `now_ms` given with this handle is a cached reading of the system clock, as
/// an event loop has one. A call reads the clock itself if a tally is ahead of the reading, and
/// uses the later of both. Without this, a `now_ms` is an explicit time, which corrects nothing. It
/// holds for this handle until it is closed. Host builds only.
#[cfg(feature = "host")]
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_use_system_clock(gate: Handle<kt_gate>) -> kt_status {
    guard(|| {
        gate.state()?.clock.cached.store(true, Relaxed);
        Ok(())
    })
}

/// Declares that every `now_ms` given with this handle is a cached reading of the system clock, as
/// an event loop has one. A call reads the clock itself if a tally is ahead of the reading, and
/// uses the later of both. Without this, a `now_ms` is an explicit time, which corrects nothing. It
/// holds for this handle until it is closed. Host builds only.
#[cfg(feature = "host")]
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_use_system_clock(limiter: Handle<kt_limiter>) -> kt_status {
    guard(|| {
        limiter.state()?.clock.cached.store(true, Relaxed);
        Ok(())
    })
}

/// Corrects every tally of the gate that is more than 60 s ahead, counts kept, and writes how many.
/// Checks by the system clock correct the tallies that they meet; this is for all others. Reads the
/// whole table.
///
/// The system clock is read after each tally was loaded. An explicit `now_ms` is older than the
/// loads: if the call is stopped for more than 60 s in between, each tally that is charged
/// meanwhile may admit one more window. With an explicit time, call it while no other thread or
/// process charges.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_correct_clock(
    gate: Handle<kt_gate>,
    now_ms: u64,
    corrected_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let (gate, place) = (gate.in_force()?, corrected_out.place()?);
        place.write(with_clock!(gate.clock.time(now_ms)?, |clock| gate.correct_clock(clock)));
        Ok(())
    })
}

/// Corrects every tally of the limiter that is more than 60 s ahead, counts kept, and writes how
/// many. Checks by the system clock correct the tallies that they meet; this is for all others.
/// Reads the whole table.
///
/// The system clock is read after each tally was loaded. An explicit `now_ms` is older than the
/// loads: if the call is stopped for more than 60 s in between, each tally that is charged
/// meanwhile may admit one more window. With an explicit time, call it while no other thread or
/// process charges.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_correct_clock(
    limiter: Handle<kt_limiter>,
    now_ms: u64,
    corrected_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let (limiter, place) = (limiter.state()?, corrected_out.place()?);
        place.write(with_clock!(limiter.clock.time(now_ms)?, |clock| limiter.table.correct_clock(clock)));
        Ok(())
    })
}
