//! Gates and limiters in mapped files that any number of processes share; the system's clock and
//! entropy.

use core::ffi::c_char;
use core::time::Duration;
use std::path::Path;

use keytally::{Followed, pepper};
use keytally_core::{AttachError, Gate, KeyUsage, MAX_PLANS, Peppers, TableKind, Timestamp};

use crate::administer::KT_ENTROPY_SIZE;
use crate::gate::{FileGate, GateState, GateTable, change, kt_gate, kt_gate_config};
use crate::guard::guard;
use crate::key::checked_key_id;
use crate::limiter::{LimiterFile, LimiterState, kt_limiter};
use crate::limiter_table::LimiterTable;
use crate::pointers::{Handle, In, Lines, Out, on_heap, plain};
use crate::policy::{LimiterPolicy, limiter_policy};
use crate::status::{FfiResult, kt_status};
use crate::text::utf8;
use crate::time::HandleClock;

/// Bytes of a new pepper as text, with the NUL.
pub const KT_PEPPER_SIZE: usize = 65;

impl GateState {
    /// Returns the state of a handle of a gate file. Its table follows each file that replaces
    /// this one.
    pub(crate) fn from_file(file: keytally::Gate, peppers: Peppers) -> FfiResult<Self> {
        let peppers_of_tables = peppers.clone();
        let to_table = move |file: keytally::Gate| match Gate::attach(
            Lines::from_mapping(file.table().memory()),
            peppers_of_tables.clone(),
        ) {
            Ok(table) => Ok(FileGate { table, file }),
            Err(source) => Err(keytally::Error::Attach {
                path: file.path().unwrap_or(Path::new("")).into(),
                source,
            }),
        };
        let table = GateTable::File(Followed::from_gate(file, peppers, to_table)?);
        Ok(Self { table, clock: HandleClock::default() })
    }

    /// Returns the gate in a file. A gate in memory has no lock to wait for and is never replaced.
    pub(crate) fn followed(&self) -> FfiResult<&Followed<FileGate>> {
        match &self.table {
            GateTable::File(file) => Ok(file),
            GateTable::Memory(_) => Err(kt_status::KT_NOT_A_FILE),
        }
    }
}

impl LimiterState {
    /// Returns the state of a handle of a limiter file.
    fn from_file(file: LimiterFile) -> FfiResult<Self> {
        let table = LimiterTable::attach(|| {
            Lines::from_mapping(match &file {
                LimiterFile::Subjects(file) => file.table().memory(),
                LimiterFile::Addresses(file) => file.table().memory(),
            })
        })?;
        Ok(Self { table, clock: HandleClock::default(), file: Some(file) })
    }
}

impl LimiterFile {
    /// Opens the limiter at `path`, of either kind.
    fn open(path: &Path) -> FfiResult<Self> {
        match keytally::Limiter::open(path) {
            Err(keytally::Error::Attach {
                source: AttachError::Kind { found: TableKind::AddressLimiter, .. },
                ..
            }) => Ok(keytally::AddressLimiter::open(path)?.into()),
            opened => Ok(opened?.into()),
        }
    }
}

impl From<keytally::Limiter> for LimiterFile {
    fn from(file: keytally::Limiter) -> Self {
        Self::Subjects(Box::new(file))
    }
}

impl From<keytally::AddressLimiter> for LimiterFile {
    fn from(file: keytally::AddressLimiter) -> Self {
        Self::Addresses(Box::new(file))
    }
}

/// Returns the path in a text: any bytes on Unix, UTF-8 on Windows.
pub(crate) fn path<'c>(path: In<'c, c_char>) -> FfiResult<&'c Path> {
    let text = path.c_str()?;
    #[cfg(unix)]
    let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(text.to_bytes());
    #[cfg(windows)]
    let path = text.to_str().map_err(|_| kt_status::KT_IO)?;
    Ok(Path::new(path))
}

/// Parses the peppers in a text. NULL with a length is an error, not the empty text.
fn peppers(text: In<'_, c_char>, len: usize) -> FfiResult<Peppers> {
    Ok(pepper::parse(utf8(text.text(len)?, kt_status::KT_PEPPER_FORM)?)?)
}

/// Returns the system clock's time, in Unix milliseconds. Host builds only.
///
/// Given to a function as `now_ms`, it is an explicit time, unless `kt_gate_use_system_clock` or
/// `kt_limiter_use_system_clock` declared otherwise. Give `KT_SYSTEM_CLOCK` instead.
#[unsafe(no_mangle)]
pub extern "C" fn kt_now_ms() -> u64 {
    keytally::now().unix_ms()
}

/// Writes 24 bytes of the system's entropy, for `kt_gate_issue` and `kt_gate_rotate`, or as a seed.
/// Host builds only.
///
/// Statuses: `KT_NO_ENTROPY`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_entropy(entropy_out: Out<[u8; KT_ENTROPY_SIZE]>) -> kt_status {
    guard(|| {
        let target = entropy_out.target()?;
        target.write(*keytally::entropy_bytes()?);
        Ok(())
    })
}

/// Writes a new pepper: 32 bytes of the system's entropy as 64 hex digits and a NUL. Host builds
/// only.
///
/// Store it where the server finds it, but not in the folder of the gate.
///
/// Statuses: `KT_NO_ENTROPY`. `KT_BUFFER_TOO_SMALL`; `KT_PEPPER_SIZE` bytes are enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_pepper_generate(buffer: Out<c_char>, buffer_len: usize) -> kt_status {
    guard(|| buffer.buffer(buffer_len)?.put(pepper::generate()?.as_bytes()))
}

/// Creates a gate in a new file at `path`, with mode 0600 and its disk blocks allocated. The file
/// appears atomically. Host builds only.
///
/// `path` ends with a NUL. `peppers` is text in the form of `KEYTALLY_PEPPER`: each at least 32
/// bytes in hex or base64, several separated by commas, newest last.
///
/// Statuses: `KT_FILE_EXISTS`, `KT_FILE_NOT_FOUND` for the folder, `KT_FILE_DENIED`,
/// `KT_DISK_FULL`, `KT_NO_MEMORY`, `KT_IO`, `KT_CAPACITY`, `KT_NAME_FORM`, those that begin with
/// `KT_PLAN_`, `KT_POLICY_` and `KT_PEPPER_`, `KT_SCOPES`, `KT_TEAM_COUNT`, `KT_DESCRIBED`,
/// `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`.
///
/// ```c
/// kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
/// kt_gate_config config = {.size = sizeof config, .keys = 100000, .plans = &plan, .plans_len = 1,
///                          .prefix = "kt", .prefix_len = 2};
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
        let target = gate_out.target()?;
        let path = self::path(path)?;
        let config = config.read_growing()?;
        if config.plans_len > MAX_PLANS {
            return Err(kt_status::KT_PLAN_COUNT);
        }
        let scopes = config.scopes()?.into_iter().map(str::to_owned);
        let mut settings = keytally::GateConfig::default()
            .with_keys(config.keys)
            .with_prefix(config.prefix()?)
            .with_plans(config.plans()?.collect::<FfiResult<_>>()?)
            .with_scopes(scopes.collect());
        settings.teams = Some(config.teams).filter(|&teams| teams != 0);
        settings.described = config.described()?;
        let peppers = self::peppers(peppers, peppers_len)?;
        let file = keytally::Gate::create(path, peppers.clone(), &settings)?;
        target.write(on_heap(GateState::from_file(file, peppers)?));
        Ok(())
    })
}

/// Opens the gate at `path`. Any number of processes may have it open. Host builds only.
///
/// `path` ends with a NUL. `peppers` is text in the form of `KEYTALLY_PEPPER`: each in hex or
/// base64, several separated by commas, newest last. One of them must be the gate's. Close the
/// handle with `kt_gate_close`.
///
/// Statuses: `KT_FILE_NOT_FOUND`, `KT_FILE_DENIED`, `KT_FILE_MODE`, `KT_FILE_OWNER`,
/// `KT_NOT_A_FILE`, `KT_FILE_TOO_SHORT`, `KT_NO_MEMORY`, `KT_IO`, `KT_NOT_A_TABLE`,
/// `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`, `KT_DAMAGED`,
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

/// Opens the gate at `path` with the peppers in a file, one on each line. Blank lines and lines
/// that begin with `#` are ignored. Host builds only.
///
/// The path `-` is standard input. If the file is a pipe, the call waits for the data. Symbolic
/// links are followed. Two kinds of file are accepted. One is owned by root and not writable by any
/// other user, as systemd, Kubernetes and Docker provide secrets. The other is readable and
/// writable only by its owner, which is the user of this process, unless that is root.
///
/// Statuses: those of `kt_gate_open`, for either file.
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
    peppers: impl FnOnce() -> FfiResult<Peppers>,
    gate_out: Out<'_, *mut kt_gate>,
) -> FfiResult {
    let target = gate_out.target()?;
    let path = self::path(path)?;
    let peppers = peppers()?;
    let file = keytally::Gate::open(path, peppers.clone())?;
    target.write(on_heap(GateState::from_file(file, peppers)?));
    Ok(())
}

/// Sets how long a function that changes this gate's keys or plans waits for another administrator,
/// in milliseconds. Then it returns `KT_BUSY`. The default is 10000, and 0 does not wait. Any
/// thread may call it at any time. Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory, which never waits.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_set_wait(gate: Handle<kt_gate>, wait_ms: u64) -> kt_status {
    guard(|| {
        gate.state()?.followed()?.load().file.set_wait(Duration::from_millis(wait_ms));
        Ok(())
    })
}

/// Writes the id of the process that is changing this gate. After `KT_BUSY` it is the process that
/// was waited for, unless that has ended since. Host builds only.
///
/// The id is 0 if there is no such process, or if it runs in another container.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_administrator(gate: Handle<kt_gate>, pid_out: Out<u32>) -> kt_status {
    guard(|| {
        let target = pid_out.target()?;
        let holder = gate.state()?.followed()?.load().file.administrator();
        target.write(holder.and_then(|holder| holder.pid).unwrap_or(0));
        Ok(())
    })
}

/// Starts a thread that checks once a second whether another file was renamed over the gate's, and
/// opens it. Host builds only.
///
/// Checks do not wait for it. A call in progress finishes with the table that it began with. If the
/// new file cannot be opened, the old one stays in use, and the thread tries again each second: see
/// `kt_gate_reopen_status`.
///
/// `kt_gate_close` ends the thread. A forked child does not have the thread: call this again there.
/// A second call in one process does nothing. Without this call, `kt_gate_reopen_if_replaced` and
/// the functions that change keys or plans check the file.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory. `KT_IO` if the system gives no thread.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_watch(gate: Handle<kt_gate>) -> kt_status {
    guard(|| Ok(gate.state()?.followed()?.watch(|_| ())?))
}

/// Opens the file that was renamed over the gate's, if there is one. If it fails, the old file
/// stays in use. Any thread may call it at any time, also during checks. Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_FILE_NOT_FOUND` if the file was removed,
/// those of `kt_gate_open`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_reopen_if_replaced(gate: Handle<kt_gate>) -> kt_status {
    guard(|| Ok(gate.state()?.followed()?.reopen_if_replaced().map(drop)?))
}

/// Opens the file at the gate's path, whether or not it was replaced. If it fails, the old file
/// stays in use. Any thread may call it at any time, also during checks. Host builds only.
///
/// Statuses: those of `kt_gate_reopen_if_replaced`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_reopen(gate: Handle<kt_gate>) -> kt_status {
    guard(|| Ok(gate.state()?.followed()?.reopen()?))
}

/// Writes to `reopened_out` how often the file at the path was opened again. Writes 1 to
/// `failing_out` while the file at the path cannot be opened, else 0. Host builds only.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_reopen_status(
    gate: Handle<kt_gate>,
    reopened_out: Out<u64>,
    failing_out: Out<u32>,
) -> kt_status {
    guard(|| {
        let (reopened, failing) = (reopened_out.target()?, failing_out.target()?);
        let status = gate.state()?.followed()?.status();
        reopened.write(status.reopened);
        failing.write(status.problem.is_some().into());
        Ok(())
    })
}

const _: () = assert!(size_of::<kt_key_usage>() == 128);

plain! {
    /// How a key was used, since the gate counts uses. A request counts only if its secret was
    /// right. Host builds only.
    ///
    /// Its size is fixed. This library writes it; reserved members are zeros. A count of 32 bits
    /// continues from 0 after 4294967295.
    #[derive(Debug)]
    pub struct kt_key_usage {
        /// The units that the admitted requests cost, without those that were given back.
        pub units: u64,
        /// When a request was last admitted, in Unix seconds; 0 if none was.
        pub last_used_s: u64,
        /// The requests that were admitted.
        pub admitted: u32,
        /// The requests that were admitted with the previous secret, during the grace of a
        /// rotation. `admitted` includes them.
        pub with_previous_secret: u32,
        /// The requests that the quotas of the key denied.
        pub denied_by_key: u32,
        /// The requests that the quotas of the key's team denied.
        pub denied_by_team: u32,
        /// The requests that the quotas of a group denied.
        pub denied_by_group: u32,
        /// The requests that needed a scope that the key did not have.
        pub forbidden: u32,
        /// The requests after the key was revoked.
        pub revoked: u32,
        /// The requests after the key, or its previous secret, expired.
        pub expired: u32,
        /// The requests while the account of the key was suspended.
        pub suspended: u32,
        /// Zero.
        pub reserved_4_: u32,
        /// Zeros.
        pub reserved_: [u64; 9],
    }
}

impl From<KeyUsage> for kt_key_usage {
    fn from(usage: KeyUsage) -> Self {
        Self {
            units: usage.units(),
            last_used_s: usage.last_used().map_or(0, Timestamp::unix_s),
            admitted: usage.admitted(),
            with_previous_secret: usage.with_previous_secret(),
            denied_by_key: usage.denied_by_key(),
            denied_by_team: usage.denied_by_team(),
            denied_by_group: usage.denied_by_group(),
            forbidden: usage.forbidden(),
            revoked: usage.revoked(),
            expired: usage.expired(),
            suspended: usage.suspended(),
            reserved_4_: 0,
            reserved_: [0; 9],
        }
    }
}

/// Begins to count how each key of a gate is used if `is_counted` is not 0, else ends it, in every
/// process that has the gate open. Host builds only.
///
/// The counts are in a file next to the gate's, whose name is that of the gate and `.usage`. It
/// takes 64 bytes for each key that the gate has room for, and remains when counting ends. The
/// counts are for pictures and reviews: those of the last seconds are lost if the machine loses
/// power.
///
/// Statuses: `KT_NOT_A_FILE` for a gate in memory, `KT_BUSY`, those of `kt_gate_create` about the
/// file, those of `kt_gate_open` for the file of the counts, and those that `kt_gate_issue` lists
/// for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_set_usage(gate: Handle<kt_gate>, is_counted: u8) -> kt_status {
    guard(|| match &gate.state()?.table {
        GateTable::Memory(_) => Err(kt_status::KT_NOT_A_FILE),
        GateTable::File(followed) => {
            change(followed, |file, wait| file.set_usage_within(wait, is_counted != 0))
        }
    })
}

/// Writes how a key was used. Host builds only.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NOT_A_FILE` for a gate in memory,
/// `KT_NOT_COUNTED`, `KT_NO_SUCH_KEY`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_key_usage(
    gate: Handle<kt_gate>,
    key_id: u64,
    usage_out: Out<kt_key_usage>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, usage_out.target()?);
        let key_id = checked_key_id(key_id)?;
        let file = gate.file().ok_or(kt_status::KT_NOT_A_FILE)?;
        let counts = file.usage().ok_or(kt_status::KT_NOT_COUNTED)?;
        let usage = file.table().usage_of(counts, key_id).ok_or(kt_status::KT_NO_SUCH_KEY)?;
        target.write(usage.into());
        Ok(())
    })
}

/// Creates a limiter for `capacity` subjects in a new file at `path`, with mode 0600 and its disk
/// blocks allocated: about 27 bytes for each subject, and up to 432 KiB for fewer than 16,384. The
/// file appears atomically. Host builds only.
///
/// Statuses: `KT_FILE_EXISTS`, `KT_FILE_NOT_FOUND` for the folder, `KT_FILE_DENIED`,
/// `KT_DISK_FULL`, `KT_NO_MEMORY`, `KT_IO`, `KT_CAPACITY`, `KT_NO_ENTROPY`, those that begin with
/// `KT_POLICY_`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_create(
    path: In<c_char>,
    policy: In<c_char>,
    policy_len: usize,
    capacity: u32,
    limiter_out: Out<*mut kt_limiter>,
) -> kt_status {
    guard(|| {
        let target = limiter_out.target()?;
        let path = self::path(path)?;
        let file = match limiter_policy(policy, policy_len)? {
            LimiterPolicy::Subjects(policy) => {
                keytally::Limiter::create(path, &policy, capacity)?.into()
            }
            LimiterPolicy::Addresses(policy) => {
                keytally::AddressLimiter::create(path, &policy, capacity)?.into()
            }
        };
        target.write(on_heap(LimiterState::from_file(file)?));
        Ok(())
    })
}

/// Opens the limiter at `path`. Close the handle with `kt_limiter_close`. Host builds only.
///
/// Statuses: those of `kt_gate_open`, except those about peppers.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_open(
    path: In<c_char>,
    limiter_out: Out<*mut kt_limiter>,
) -> kt_status {
    guard(|| {
        let target = limiter_out.target()?;
        let file = LimiterFile::open(self::path(path)?)?;
        target.write(on_heap(LimiterState::from_file(file)?));
        Ok(())
    })
}

/// Opens the limiter at `path`, or creates it if there is none. If several processes do so at once,
/// one creates the limiter and the others open it. If only the limits of the policy differ, they
/// are changed in the file, and all processes use them from their next check on. Host builds only.
///
/// Statuses: `KT_OTHER_POLICY` if the limiter there has other windows or prefixes, or cannot count
/// a limit; `KT_OTHER_CAPACITY` if it has another; those of `kt_limiter_open` and
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
        let target = limiter_out.target()?;
        let path = self::path(path)?;
        let file = match limiter_policy(policy, policy_len)? {
            LimiterPolicy::Subjects(policy) => {
                keytally::Limiter::open_or_create(path, &policy, capacity)?.into()
            }
            LimiterPolicy::Addresses(policy) => {
                keytally::AddressLimiter::open_or_create(path, &policy, capacity)?.into()
            }
        };
        target.write(on_heap(LimiterState::from_file(file)?));
        Ok(())
    })
}
