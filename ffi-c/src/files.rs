//! Both tables in mapped files that any number of processes share, the system's clock and entropy.

use core::ffi::c_char;
use core::time::Duration;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use keytally::{Followed, pepper};
use keytally_core::{Gate, Limiter, MAX_PLANS, Peppers};

use crate::administer::KT_ENTROPY_SIZE;
use crate::clock::HandleClock;
use crate::gate::{FileGate, GateState, GateTable, kt_gate, kt_gate_config};
use crate::guard::{Outcome, guard};
use crate::limiter::{LimiterState, kt_limiter};
use crate::pointers::{Handle, In, Lines, Out, on_heap};
use crate::policy::policy;
use crate::status::kt_status;
use crate::text::utf8;

/// Bytes of a new pepper as text, with the NUL.
pub const KT_PEPPER_SIZE: usize = 65;

impl GateState {
    /// The core's table over the lines of a file, and of each that replaces it.
    fn of_file(file: keytally::Gate, peppers: Peppers) -> Outcome<Self> {
        let keys = peppers.clone();
        let over = move |file: keytally::Gate| match Gate::attach(
            Lines::of_mapping(file.table().memory()),
            keys.clone(),
        ) {
            Ok(table) => Ok(FileGate { table, file }),
            Err(source) => {
                Err(keytally::Error::Attach { path: file.path().unwrap_or(Path::new("")).into(), source })
            }
        };
        let table = GateTable::File(Followed::from_gate(file, peppers, over)?);
        Ok(Self { table, clock: HandleClock::default() })
    }

    /// The gate in a file; in memory there is none to wait for, and none that is replaced.
    fn followed(&self) -> Outcome<&Followed<FileGate>> {
        match &self.table {
            GateTable::File(file) => Ok(file),
            GateTable::Memory(_) => Err(kt_status::KT_NOT_A_FILE),
        }
    }
}

impl LimiterState {
    fn of_file(file: keytally::Limiter) -> Outcome<Self> {
        let table = Limiter::attach(Lines::of_mapping(file.table().memory()))?;
        Ok(Self { table, clock: HandleClock::default(), file: Some(Box::new(file)) })
    }
}

fn path<'c>(path: In<'c, c_char>) -> Outcome<&'c Path> {
    Ok(Path::new(OsStr::from_bytes(path.c_str()?.to_bytes())))
}

/// The peppers in a text; NULL is an error, and not the empty text.
fn peppers(text: In<'_, c_char>, len: usize) -> Outcome<Peppers> {
    Ok(pepper::parse(utf8(text.text(len)?, kt_status::KT_PEPPER_FORM)?)?)
}

/// Returns the system clock's time, in Unix milliseconds. Host builds only.
///
/// To a function it is an explicit time, unless its handle was declared by
/// `kt_gate_use_system_clock` or `kt_limiter_use_system_clock`: give `KT_SYSTEM_CLOCK` instead.
#[unsafe(no_mangle)]
pub extern "C" fn kt_now_ms() -> u64 {
    keytally::now().unix_ms()
}

/// Gets 24 bytes of the system's entropy, for `kt_gate_issue` and `kt_gate_rotate`, or as a seed. Host builds only.
///
/// Statuses: `KT_NO_ENTROPY`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_entropy(entropy_out: Out<[u8; KT_ENTROPY_SIZE]>) -> kt_status {
    guard(|| {
        let place = entropy_out.place()?;
        place.write(*keytally::entropy_bytes()?);
        Ok(())
    })
}

/// Writes a new pepper: 32 bytes of the system's entropy as 64 hex digits and a NUL. Keep it where the server finds it, and
/// nowhere near the gate. Host builds only.
///
/// Statuses: `KT_NO_ENTROPY`; `KT_BUFFER_TOO_SMALL`: `KT_PEPPER_SIZE` bytes are enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_pepper_generate(buffer: Out<c_char>, buffer_len: usize) -> kt_status {
    guard(|| buffer.buffer(buffer_len)?.put(pepper::generate()?.as_bytes()))
}

/// Creates a gate in a new file at `path`, mode 0600, with its room on the disk taken. It appears whole or not at all. Host
/// builds only.
///
/// `path` ends with a NUL. `peppers` is text as `KEYTALLY_PEPPER` holds it: each at least 32 bytes in hex or base64, several
/// separated by commas, newest last.
///
/// Statuses: `KT_FILE_EXISTS`, `KT_FILE_NOT_FOUND` for the folder, `KT_FILE_DENIED`, `KT_DISK_FULL`, `KT_IO`, `KT_CAPACITY`,
/// `KT_NAME_FORM`, those that begin with `KT_PLAN_`, `KT_POLICY_` and `KT_PEPPER_`.
///
/// ```c
/// kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
/// kt_gate_config config = {&plan, 1, KT_TEXT("kt"), 100000};
/// kt_gate *gate;
/// kt_status status = kt_gate_create("api.gate", peppers, strlen(peppers), &config, &gate);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_create(
    path: In<c_char>,
    peppers: In<c_char>,
    peppers_len: usize,
    config: In<kt_gate_config>,
    gate_out: Out<*mut kt_gate>,
) -> kt_status {
    guard(|| {
        let place = gate_out.place()?;
        let path = self::path(path)?;
        let config = config.read()?;
        if config.plans_len > MAX_PLANS {
            return Err(kt_status::KT_PLAN_COUNT);
        }
        let config = keytally::GateConfig::default()
            .with_keys(config.keys)
            .with_prefix(config.prefix()?)
            .with_plans(config.plans()?.collect::<Outcome<_>>()?);
        let peppers = self::peppers(peppers, peppers_len)?;
        let file = keytally::Gate::create(path, peppers.clone(), &config)?;
        place.write(on_heap(GateState::of_file(file, peppers)?));
        Ok(())
    })
}

/// Opens the gate at `path`, which any number of processes may have open. Host builds only.
///
/// `path` ends with a NUL. `peppers` is text as `KEYTALLY_PEPPER` holds it: each in hex or base64, several separated by commas,
/// newest last. One of them must be the gate's. End it with `kt_gate_close`.
///
/// Statuses: `KT_FILE_NOT_FOUND`, `KT_FILE_DENIED`, `KT_FILE_MODE`, `KT_FILE_OWNER`, `KT_NOT_A_FILE`, `KT_FILE_TOO_SHORT`,
/// `KT_IO`, `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`, `KT_DAMAGED`,
/// `KT_WRONG_PEPPER`, those that begin with `KT_PEPPER_`.
///
/// ```c
/// kt_gate *gate;
/// const char *peppers = getenv("KEYTALLY_PEPPER");
/// kt_status status = kt_gate_open("api.gate", peppers, peppers ? strlen(peppers) : 0, &gate);
/// if (status != KT_OK) fprintf(stderr, "api.gate: %s\n", kt_status_message(status));
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_open(
    path: In<c_char>,
    peppers: In<c_char>,
    peppers_len: usize,
    gate_out: Out<*mut kt_gate>,
) -> kt_status {
    guard(|| open(path, || self::peppers(peppers, peppers_len), gate_out))
}

/// Opens the gate at `path` with the peppers in a file, one a line; blank lines and lines that begin with `#` are ignored.
/// Host builds only.
///
/// The path `-` is standard input, and the file may be a pipe: then the call waits for what is written to it. Symbolic links
/// are followed. Two kinds of file are accepted: one that root owns and no other user can write, as systemd, Kubernetes and
/// Docker provide secrets, and one that only its owner can read and write. The owner is the user of this process, unless that
/// is root.
///
/// Statuses: those of `kt_gate_open`, of either file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_open_with_pepper_file(
    path: In<c_char>,
    pepper_path: In<c_char>,
    gate_out: Out<*mut kt_gate>,
) -> kt_status {
    guard(|| open(path, || Ok(pepper::read_file(self::path(pepper_path)?)?), gate_out))
}

fn open(
    path: In<'_, c_char>,
    peppers: impl FnOnce() -> Outcome<Peppers>,
    gate_out: Out<'_, *mut kt_gate>,
) -> Outcome {
    let place = gate_out.place()?;
    let path = self::path(path)?;
    let peppers = peppers()?;
    let file = keytally::Gate::open(path, peppers.clone())?;
    place.write(on_heap(GateState::of_file(file, peppers)?));
    Ok(())
}

/// Sets how long the functions that change this gate's keys or plans wait for another administrator, in milliseconds: 10000 unless
/// set, and 0 to try once. Then they return `KT_BUSY`. It may be called at any time, and by any thread. Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory, which never waits.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_set_wait(gate: Handle<kt_gate>, wait_ms: u64) -> kt_status {
    guard(|| {
        gate.state()?.followed()?.load().file.set_wait(Duration::from_millis(wait_ms));
        Ok(())
    })
}

/// Writes the id of the process that is changing this gate: after `KT_BUSY`, the one that was waited for, unless it has ended since.
/// 0 when there is none, or when it is in another container. Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_administrator(gate: Handle<kt_gate>, pid_out: Out<u32>) -> kt_status {
    guard(|| {
        let place = pid_out.place()?;
        let holder = gate.state()?.followed()?.load().file.administrator();
        place.write(holder.and_then(|holder| holder.pid).unwrap_or(0));
        Ok(())
    })
}

/// Lets a thread of this library look once a second whether another file was renamed over the gate's, and open that one. Checks
/// do not wait for it, and a call that is under way ends with the table that it began with. While the new file cannot
/// be opened, the old one decides, and the new one is tried again every second: see `kt_gate_reopen_status`.
///
/// The thread ends with `kt_gate_close`. A forked child does not have it: call this again there. A second call in one process
/// does nothing. Without this call, `kt_gate_reopen_if_replaced` and the functions that change keys or plans look. Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory; `KT_IO` when the system gives no thread.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_watch(gate: Handle<kt_gate>) -> kt_status {
    guard(|| Ok(gate.state()?.followed()?.watch(|_| ())?))
}

/// Looks whether another file was renamed over the gate's, and if so opens that one. Any thread may call it at any time, also
/// while others check. If it fails, the old file stays in use. Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_FILE_NOT_FOUND` when the file was removed, those of `kt_gate_open`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_reopen_if_replaced(gate: Handle<kt_gate>) -> kt_status {
    guard(|| Ok(gate.state()?.followed()?.reopen_if_replaced().map(drop)?))
}

/// Opens the file at the gate's path, whether it was replaced or not. Otherwise it is as `kt_gate_reopen_if_replaced`. Host builds
/// only.
///
/// Statuses: those of `kt_gate_reopen_if_replaced`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_reopen(gate: Handle<kt_gate>) -> kt_status {
    guard(|| Ok(gate.state()?.followed()?.reopen()?))
}

/// Writes how often another file took the place of the gate's, and into `failing_out` 1 while what is at the path cannot be
/// opened, else 0. Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_reopen_status(
    gate: Handle<kt_gate>,
    reopened_out: Out<u64>,
    failing_out: Out<u32>,
) -> kt_status {
    guard(|| {
        let (reopened, failing) = (reopened_out.place()?, failing_out.place()?);
        let status = gate.state()?.followed()?.status();
        reopened.write(status.reopened);
        failing.write(status.problem.is_some().into());
        Ok(())
    })
}

/// Creates a limiter for `capacity` subjects in a new file at `path`, mode 0600, with its room on the disk taken: about 25
/// bytes for each. It appears whole or not at all. Host builds only.
///
/// Statuses: `KT_FILE_EXISTS`, `KT_FILE_NOT_FOUND` for the folder, `KT_FILE_DENIED`, `KT_DISK_FULL`, `KT_IO`, `KT_CAPACITY`,
/// `KT_NO_ENTROPY`, those that begin with `KT_POLICY_`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_create(
    path: In<c_char>,
    policy: In<c_char>,
    policy_len: usize,
    capacity: u32,
    limiter_out: Out<*mut kt_limiter>,
) -> kt_status {
    guard(|| {
        let place = limiter_out.place()?;
        let path = self::path(path)?;
        let file = keytally::Limiter::create(path, &self::policy(policy, policy_len)?, capacity)?;
        place.write(on_heap(LimiterState::of_file(file)?));
        Ok(())
    })
}

/// Opens the limiter at `path`. End it with `kt_limiter_close`. Host builds only.
///
/// Statuses: those of `kt_gate_open`, but those of peppers.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_open(path: In<c_char>, limiter_out: Out<*mut kt_limiter>) -> kt_status {
    guard(|| {
        let place = limiter_out.place()?;
        let file = keytally::Limiter::open(self::path(path)?)?;
        place.write(on_heap(LimiterState::of_file(file)?));
        Ok(())
    })
}

/// Opens the limiter at `path`, or creates it if there is none. Of several processes that do so at once, one creates it and the
/// others open the same. Host builds only.
///
/// Statuses: `KT_OTHER_POLICY` and `KT_OTHER_CAPACITY` when the limiter there has another; those of `kt_limiter_open` and
/// `kt_limiter_create`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_open_or_create(
    path: In<c_char>,
    policy: In<c_char>,
    policy_len: usize,
    capacity: u32,
    limiter_out: Out<*mut kt_limiter>,
) -> kt_status {
    guard(|| {
        let place = limiter_out.place()?;
        let path = self::path(path)?;
        let policy = self::policy(policy, policy_len)?;
        let file = keytally::Limiter::open_or_create(path, &policy, capacity)?;
        place.write(on_heap(LimiterState::of_file(file)?));
        Ok(())
    })
}
