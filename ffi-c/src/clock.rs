//! Functions for the clock of a handle: cached readings, and correction of tallies.

use crate::gate::kt_gate;
use crate::guard::guard;
use crate::limiter::kt_limiter;
use crate::limiter_table::{LimiterTable, with_table};
use crate::pointers::{Handle, Out};
use crate::status::kt_status;
use crate::time::with_clock;

/// Declares that each `now_ms` given with this handle is a cached reading of the system clock. An
/// event loop has such readings. Host builds only.
///
/// A later call reads the clock itself if a tally is ahead of the reading, before it denies a
/// request for lack of room, and before it inserts a subject into a limiter. It uses the later of
/// both readings. Without this declaration a `now_ms` is an explicit time, which corrects nothing.
/// The declaration holds until the handle is closed. Any thread may make it at any time.
#[cfg(feature = "host")]
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_use_system_clock(gate: Handle<kt_gate>) -> kt_status {
    guard(|| {
        gate.state()?.clock.use_system_clock();
        Ok(())
    })
}

/// Declares that each `now_ms` given with this handle is a cached reading of the system clock. An
/// event loop has such readings. Host builds only.
///
/// A later call reads the clock itself if a tally is ahead of the reading, before it denies a
/// request for lack of room, and before it inserts a subject into a limiter. It uses the later of
/// both readings. Without this declaration a `now_ms` is an explicit time, which corrects nothing.
/// The declaration holds until the handle is closed. Any thread may make it at any time.
#[cfg(feature = "host")]
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_use_system_clock(limiter: Handle<kt_limiter>) -> kt_status {
    guard(|| {
        limiter.state()?.clock.use_system_clock();
        Ok(())
    })
}

/// Corrects each tally of the gate that is more than 60 s ahead of the call's time. Counts are
/// kept. Writes the number of corrected tallies. Reads the whole table.
///
/// A check by the system clock corrects the tally that it charges. This function corrects all
/// others.
///
/// With `KT_SYSTEM_CLOCK` the clock is read after each tally was loaded. An explicit `now_ms` is
/// older than the loads. If the call is then stopped for more than 60 s between a load and its
/// correction, each tally that is charged meanwhile may admit one more window. With an explicit
/// time, call this while no other thread or process charges.
///
/// Statuses: `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_correct_clock(
    gate: Handle<kt_gate>,
    now_ms: u64,
    corrected_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let (gate, corrected) = (gate.in_force()?, corrected_out.target()?);
        corrected.write(with_clock!(gate.clock.time(now_ms)?, |clock| gate.correct_clock(clock)));
        Ok(())
    })
}

/// Corrects each tally of the limiter that is more than 60 s ahead of the call's time. Counts are
/// kept. Writes the number of corrected tallies. Reads the whole table.
///
/// A check by the system clock corrects the tally that it charges. This function corrects all
/// others.
///
/// With `KT_SYSTEM_CLOCK` the clock is read after each tally was loaded. An explicit `now_ms` is
/// older than the loads. If the call is then stopped for more than 60 s between a load and its
/// correction, each tally that is charged meanwhile may admit one more window. With an explicit
/// time, call this while no other thread or process charges.
///
/// Statuses: `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_correct_clock(
    limiter: Handle<kt_limiter>,
    now_ms: u64,
    corrected_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let (limiter, corrected) = (limiter.state()?, corrected_out.target()?);
        corrected.write(with_table!(limiter.table, |table| {
            with_clock!(limiter.clock.time(now_ms)?, |clock| table.correct_clock(clock))
        }));
        Ok(())
    })
}
