//! Gates and limiters in a fleet: machines that share their limits through one store.

use core::ffi::c_char;
use core::time::Duration;

use crate::files::path;
use crate::gate::{change, kt_gate};
use crate::guard::guard;
use crate::limiter::{kt_limiter, with_file};
use crate::limiter_table::{Decided as _, LimiterTable, with_subject, with_table};
use crate::pointers::{Handle, In, Out};
use crate::request::kt_patience;
use crate::status::{FfiResult, kt_status};
use crate::time::with_call_clock;
use crate::verdict::kt_verdict;

/// Joins the fleet of this machine: requests spend credits of the fleet file at `fleet_path`, which
/// the machine's agent (`keytally agent`) fills. Host builds only.
///
/// `fleet_path` ends with a NUL. Join once for each handle. What a request without credits gets is
/// the choice of the agent's operator. A gate that replaces this one joins too, by the fleet file
/// at the same path. It has no effect while the gate is not in a fleet: see `kt_gate_set_fleet`.
/// The gate's check, its refund and its settlement have the clock of the fleet's store, unless
/// their time is explicit.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_JOINED`, `KT_NOT_A_FLEET_FILE`,
/// `KT_FLEET_SLIDING`, `KT_FILE_NOT_FOUND` if no agent has created the file, `KT_FILE_DENIED`,
/// `KT_FILE_MODE`, `KT_FILE_OWNER`, `KT_NO_MEMORY`, `KT_IO`.
///
/// ```c
/// kt_status status = kt_gate_join(gate, "/dev/shm/api.gate.fleet");
/// if (status != KT_OK) fprintf(stderr, "api.gate.fleet: %s\n", kt_status_message(status));
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_join(gate: Handle<kt_gate>, fleet_path: In<c_char>) -> kt_status {
    guard(|| Ok(gate.state()?.followed()?.join(path(fleet_path)?)?))
}

/// Puts the gate in a fleet if `is_in_fleet` is not 0, else takes it out of it, for every process
/// that has it open. In a process that has not joined, all requests are then unavailable. Host
/// builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_FLEET_SLIDING`, `KT_BUSY`, those that
/// `kt_gate_issue` lists for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_set_fleet(gate: Handle<kt_gate>, is_in_fleet: u8) -> kt_status {
    guard(|| {
        change(gate.state()?.followed()?, |file, wait| {
            file.set_fleet_within(wait, is_in_fleet != 0)
        })
    })
}

/// Writes 1 if the gate is in a fleet, in every process that has it open, else 0. Host builds only.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_is_in_fleet(
    gate: Handle<kt_gate>,
    is_in_fleet_out: Out<u32>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, is_in_fleet_out.target()?);
        target.write(gate.needs().reservation().into());
        Ok(())
    })
}

/// Sets the longest time that a request of this handle waits for credits of a fleet, in
/// microseconds. The default is 20000, and 0 does not wait. Any thread may call it at any time.
/// Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory, which never waits.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_set_credit_wait(gate: Handle<kt_gate>, wait_us: u64) -> kt_status {
    guard(|| {
        let wait = Duration::from_micros(wait_us);
        gate.state()?.followed()?.load().file.set_credit_wait(wait);
        Ok(())
    })
}

/// Checks a key as `kt_gate_check` does, but does not wait for credits of a fleet. While they are
/// requested, the outcome is `KT_UNAVAILABLE` and the unavailability `KT_UNAVAILABILITY_WAITING`,
/// and nothing is charged. Host builds only.
///
/// An event loop checks again after a millisecond, and calls `kt_gate_check_without_wait` after
/// about 20 ms.
///
/// Statuses: `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_try_check(
    gate: Handle<kt_gate>,
    api_key: In<u8>,
    api_key_len: usize,
    cost: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let api_key = api_key.optional(api_key_len)?;
        check(gate, kt_patience::KT_PATIENCE_RETURN, api_key, cost, now_ms, verdict_out)
    })
}

/// Checks a key as `kt_gate_check` does after a wait for credits of a fleet that had no effect:
/// without credits, the choice of the agent's operator decides. Host builds only.
///
/// Statuses: `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_check_without_wait(
    gate: Handle<kt_gate>,
    api_key: In<u8>,
    api_key_len: usize,
    cost: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let api_key = api_key.optional(api_key_len)?;
        check(gate, kt_patience::KT_PATIENCE_DECIDE, api_key, cost, now_ms, verdict_out)
    })
}

/// Checks a key. `patience` is what the request does if it lacks credits.
fn check(
    gate: Handle<'_, kt_gate>,
    patience: kt_patience,
    api_key: Option<&[u8]>,
    cost: u32,
    now_ms: u64,
    verdict_out: Out<'_, kt_verdict>,
) -> FfiResult {
    let mut target = verdict_out.target()?;
    gate.call_with(patience, |gate, own| {
        Ok(with_call_clock!(own.time(now_ms)?, of gate, |clock| {
            target.put_verdict(&gate.check(api_key, cost, clock))
        }))
    })
    .map(drop)
}

/// Joins the fleet of this machine: requests spend credits of the fleet file at `fleet_path`, which
/// the machine's agent (`keytally agent`) fills. Host builds only.
///
/// `fleet_path` ends with a NUL. Join once for each handle. What a request without credits gets is
/// the choice of the agent's operator. It has no effect while the limiter is not in a fleet: see
/// `kt_limiter_set_fleet`. The limiter's check, its refund and its settlement have the clock of the
/// fleet's store, unless their time is explicit. All machines must have copies of one limiter file.
///
/// Statuses: `KT_NOT_A_FILE` for a limiter in memory, `KT_JOINED`, `KT_NOT_A_FLEET_FILE`,
/// `KT_FLEET_SLIDING`, `KT_FILE_NOT_FOUND` if no agent has created the file, `KT_FILE_DENIED`,
/// `KT_FILE_MODE`, `KT_FILE_OWNER`, `KT_NO_MEMORY`, `KT_IO`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_join(
    limiter: Handle<kt_limiter>,
    fleet_path: In<c_char>,
) -> kt_status {
    guard(|| {
        let (limiter, fleet_path) = (limiter.state()?, path(fleet_path)?);
        Ok(with_file!(limiter.in_file()?, |file| file.join(fleet_path))?)
    })
}

/// Puts the limiter in a fleet if `is_in_fleet` is not 0, else takes it out of it, for every
/// process that has it open. In a process that has not joined, all requests are then unavailable.
/// Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a limiter in memory, `KT_FLEET_SLIDING`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_set_fleet(limiter: Handle<kt_limiter>, is_in_fleet: u8) -> kt_status {
    guard(|| {
        let limiter = limiter.state()?;
        Ok(with_file!(limiter.in_file()?, |file| file.set_fleet(is_in_fleet != 0))?)
    })
}

/// Writes 1 if the limiter is in a fleet, in every process that has it open, else 0. Host builds
/// only.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_is_in_fleet(
    limiter: Handle<kt_limiter>,
    is_in_fleet_out: Out<u32>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, is_in_fleet_out.target()?);
        target.write(with_table!(limiter.table, |table| table.is_reserving()).into());
        Ok(())
    })
}

/// Sets the longest time that a request of this handle waits for credits of a fleet, in
/// microseconds. The default is 20000, and 0 does not wait. Any thread may call it at any time.
/// Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a limiter in memory, which never waits.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_set_credit_wait(
    limiter: Handle<kt_limiter>,
    wait_us: u64,
) -> kt_status {
    guard(|| {
        let wait = Duration::from_micros(wait_us);
        with_file!(limiter.state()?.in_file()?, |file| file.set_credit_wait(wait));
        Ok(())
    })
}

/// Charges a subject as `kt_limiter_check` does, but does not wait for credits of a fleet. While
/// they are requested, the outcome is `KT_UNAVAILABLE` and the unavailability
/// `KT_UNAVAILABILITY_WAITING`, and nothing is charged. Host builds only.
///
/// An event loop checks again after a millisecond, and calls `kt_limiter_check_without_wait` after
/// about 20 ms.
///
/// Statuses: `KT_NOT_AN_ADDRESS`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_try_check(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    cost: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let subject = subject.slice(subject_len)?;
        check_subject(limiter, kt_patience::KT_PATIENCE_RETURN, subject, cost, now_ms, verdict_out)
    })
}

/// Charges a subject as `kt_limiter_check` does after a wait for credits of a fleet that had no
/// effect: without credits, the choice of the agent's operator decides. Host builds only.
///
/// Statuses: `KT_NOT_AN_ADDRESS`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_check_without_wait(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    cost: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let subject = subject.slice(subject_len)?;
        check_subject(limiter, kt_patience::KT_PATIENCE_DECIDE, subject, cost, now_ms, verdict_out)
    })
}

/// Charges a subject. `patience` is what the request does if it lacks credits.
fn check_subject(
    limiter: Handle<'_, kt_limiter>,
    patience: kt_patience,
    subject: &[u8],
    cost: u32,
    now_ms: u64,
    verdict_out: Out<'_, kt_verdict>,
) -> FfiResult {
    let (limiter, target) = (limiter.state()?, verdict_out.target()?);
    with_subject!(limiter, patience, subject, |table, named| {
        with_call_clock!(limiter.time(now_ms)?, in table.layout(), |clock| {
            table.check(named, cost, clock).put(target);
        });
    });
    Ok(())
}
