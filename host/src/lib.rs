//! Checks API keys and charges rate limits, in files that any number of processes on one machine
//! share.
//!
//! The `no_std` core, [`keytally_core`], makes the decisions. This crate adds the operating system:
//! memory-mapped files, locks, the clock and entropy. It re-exports the core at its root.
//!
//! - A *gate* is a table of API keys. Each key has a *record*, a *plan* (its limits) and a *tally*
//!   (its counts in one 64-bit word).
//! - A *limiter* is a table of tallies for any subject, such as a user or a route. A limiter of
//!   addresses counts each client in several networks.
//! - A *pepper* is the server's secret, with which the gate computes the HMAC of each key.
//! - An *administrator* is a thread that changes the keys or plans of a gate.
//!
//! ```
//! use keytally::{GateConfig, Gate, Name, NamedQuota, NewKey, pepper};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("api.gate");
//! // A server keeps its own pepper: see `pepper::read_file`.
//! let peppers = pepper::parse(&pepper::generate()?)?;
//! let gate = Gate::create(&path, peppers, &GateConfig::default())?;
//!
//! let new = NewKey::new(42, Name::new("live").unwrap());
//! let (key, _key_id) = gate.issue(&new)?;
//!
//! let verdict = gate.check(Some(key.expose().as_bytes()), 1);
//! assert!(verdict.is_admitted());
//! assert_eq!(verdict.remaining(), Some(999));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules
//! A module imports only modules below it in this table.
//!
//! | module | contents |
//! |---|---|
//! | [`Followed`] | a gate that is reopened when its file is replaced |
//! | [`MigrationConfig`] | a larger gate, or other sections or windows, while processes check keys |
//! | [`FleetFile`] | machines that share the limits of their gates through one store |
//! | [`Gate`], [`Limiter`], [`AddressLimiter`] | the core's tables in a file, with the system's clock |
//! | `fleet_credits` | how requests of a gate in a fleet spend credits, and wait for them |
//! | `fleet_map` | the mapped file of credits |
//! | `limiter_file` | creates and opens the files of limiters |
//! | [`pepper`] | peppers as text, from the environment or a file |
//! | `publish` | creates a file atomically |
//! | `lock` | one administrator at a time |
//! | `file` | opens a file; which files are refused, and why |
//! | `map` | the mapped memory, and the `unsafe` code of all systems |
//! | [`now()`], [`SystemClock`] | the only code that reads the clock |
//! | `system` | everything that differs between operating systems, and the `unsafe` code of Windows |
//! | [`entropy()`] | the only code that reads the system's entropy |
//! | [`Error`] | every error, each with a full sentence |
//! | [`redact`] | which texts look like secrets, and what errors show instead |
//! | `header`, [`LockHolder`] | the geometry of the header page; the process that administers |
//! | `testing` | with the feature `testing`: the clock that a test sets |
//!
//! # The contract between processes
//! - **Sharing.** Processes that open one file share its counts and keys immediately. No process is
//!   special, and there is no daemon.
//! - **Checks do not wait.** `check`, `peek`, `refund`, `settle` and `reset` take no lock, allocate
//!   nothing, and make no system call except to read the clock. There are two exceptions:
//!   - The first charge of a subject in a limiter takes the lock word of a bucket. It waits for
//!     another holder for at most [`LOCK_SPINS`] spins, and then takes the lock word over.
//!   - The first write to a page that the kernel has just written to the disk may wait for the file
//!     system. A file in `/dev/shm` has no such wait.
//! - **Administrators take turns.** Calls that change keys or plans (`issue`, `import`, `rotate`,
//!   `revoke`, `assign`, `set_plan`, `administer`, `verify`) wait for the gate's lock, at most 10
//!   seconds unless [`Gate::set_wait`] or a [`Wait`] says otherwise. Then [`Error::Busy`] names the
//!   process that administers. If that process exits or is killed, its lock is free immediately,
//!   and the next administrator completes the change that it left unfinished. A forked child does
//!   not inherit the lock. A `flock` that another program holds delays no administrator.
//! - **Long administrations yield.** [`Gate::administer_each`] releases the lock after every
//!   thousand changes. A new administrator first yields to those that have been waiting. One call
//!   of `administer` is not interrupted.
//! - **Crash-safe.** A process that is killed at any instruction (SIGKILL) loses no count and
//!   leaves no other process waiting. At most the cost of its current request stays charged.
//! - **Safe to stop.** A process may be stopped at any instruction, for any time, and continued
//!   (`SIGSTOP`, `docker pause`, a frozen cgroup, a suspended machine). No window admits more than
//!   its limit, counted by the times of the decisions. If the process continues with an old clock
//!   reading, a check uses the later time that the tally holds, or reads the clock again.
//! - **Power failures.** A change by an administrator is on the disk when the call returns. The
//!   kernel writes counts at its own time, so after a power failure they may be half a minute old.
//!   A change that was in progress at the failure may be lost, and its record unreadable: that key
//!   is then invalid, and `verify` reports it.
//! - **Forking.** A child shares the mappings of its parent, of files and of tables in memory
//!   alike. It may continue to use the same `Gate` and `Limiter`. After `exec`, a program opens the
//!   file again; tables in memory no longer exist.
//! - **Files keep their length.** No program may shorten a file that is open: a process that
//!   touches memory which the file no longer backs is killed by `SIGBUS`. This library never
//!   shortens a file, and no replacement requires it: create the new file next to the old one and
//!   rename it. Tables in memory are sealed against a change of length.
//! - **A gate's file may be replaced** by renaming another file over it. A [`Followed`] gate opens
//!   the new file within a second, and keeps the old one until the new one can be opened. A
//!   [`Gate`] stays with its file, and refuses changes ([`Error::Replaced`]). Limiters are not
//!   followed: do not replace one in use, because the new one has none of its counts.
//! - **Disk space** is reserved when a file is created, so a full disk is an error at that moment
//!   and not a `SIGBUS` later. Copy-on-write file systems (btrfs, ZFS) cannot guarantee that.
//!   Prefer another one, or `/dev/shm` where counts need not survive a reboot.
//! - **Local files only.** Two machines that map one file over a network do not see each other's
//!   counts.
//! - **Access.** Files are created with mode 0600. An administrator may admit a group
//!   (`chmod g+rw`). A file to which all users have access, or that belongs to another user, is
//!   refused. A user who can write the file can change every count and key in it, and can keep
//!   administrators waiting.
//!
//! # Systems
//! The contract above is that of Linux, on any processor, with glibc or musl. Other systems differ
//! from it in these points:
//!
//! | | macOS, FreeBSD | Windows |
//! |---|---|---|
//! | a process that is killed while it creates a file | may leave a file whose name begins with a dot and ends with `.new` | the same |
//! | replacing a gate's file | as on Linux | expect it to fail while a process has the file open: stop the processes, replace it, start them |
//! | a file that is shortened while it is open | as on Linux | cannot happen: Windows refuses it |
//! | access | as on Linux; access control lists are not examined | the owner, the system and the administrators, by an access control list; a file of another user, or with access for all users, is refused |
//! | a table in memory | its memory is not sealed | is not shared, because processes do not fork |
//! | killing a process | as on Linux | by `TerminateProcess`; the system releases the lock of an administrator at a time of its own, and the next one takes it over before that |
//! | an administrator's thread that ended without its process | the lock stays held until the process ends | the same |
//! | a killed administrator of a table in memory | its lock is free when its parent has waited for it | |
//! | errors that name the process that administers | without its program; no stopped process is recognized | no suspended process is recognized |
//! | disk space | APFS and ZFS copy on write | a compressed or sparse file has no reserved space |
//! | power failures | as on Linux, by `F_FULLFSYNC` on macOS | as on Linux; a flush takes longer for a larger file |
//! | the first reading of the clock | precise, so a check takes longer | the same |
//! | network drives | as on Linux: not detected | refused |
//!
//! Tests run on Linux on x86-64 and, emulated, on arm64, with glibc and musl. The tests for Windows
//! run in Wine, which permits replacing an open file, and is therefore no evidence for that row.
//! `docs/TESTING.md` states what runs where.

extern crate alloc;

mod address_limiter;
mod clock;
mod compound;
mod copy;
mod entropy;
mod error;
mod file;
mod fleet;
mod fleet_credits;
mod fleet_map;
mod followed;
mod gate;
mod header;
mod holder;
mod limiter;
mod limiter_file;
mod lock;
mod map;
mod migrate;
pub mod pepper;
mod publish;
pub mod redact;
mod system;
#[cfg(feature = "testing")]
pub mod testing;
mod usage;
mod usage_files;

// Not part of the API: for the tests of this project.
#[doc(hidden)]
pub mod stop;

#[doc(inline)]
pub use {
    address_limiter::AddressLimiter,
    clock::{GateClock, SystemClock, TimestampExt, now},
    compound::{check_all, peek_all},
    entropy::{entropy, entropy_bytes},
    error::{Error, FleetError, PepperError},
    fleet::{FleetFile, FleetLimiterInfo, FleetSubject, FleetTable, KeysConfirmed},
    fleet_credits::{DEFAULT_CREDIT_WAIT, Patience},
    followed::{Current, Decided, FollowEvent, FollowStatus, Followed, Left},
    gate::{CHANGES_PER_LOCK, Gate, GateConfig},
    header::HEADER_LEN,
    holder::LockHolder,
    limiter::Limiter,
    lock::Wait,
    map::Mapping,
    migrate::{Migrated, MigrationConfig},
};

#[doc(inline)]
pub use keytally_core::{
    API_KEY_HEADER, AccountInfo, Address, AddressPart, AddressPolicy, AdminError, Administrator,
    Algorithm, AttachError, BEGINNING_LEN, BUCKET_SLOTS, BufferTooSmall, CACHE_LINE_LEN, CacheLine,
    Charge, Clock, Compound, CompoundResponse, Counted, CreateError, Entropy, FIELD_NAMES,
    FORMAT_VERSION, Flaw, FlawKind, GatePart, Headers, Hint, Holder, IMPORT_GROUP,
    IMPORTED_KEY_LEN, KEY_ID_LEN, Key, KeyId, KeyInfo, KeyParts, KeyRecord, KeyState, KeyUsage,
    LOCK_SPINS, Layout, LimiterPart, Limits, MAX_COMPOUND_HEADERS_LEN, MAX_COMPOUND_PROBLEM_LEN,
    MAX_ENVS, MAX_FIELDS, MAX_GROUP_NAME_LEN, MAX_HEADERS_LEN, MAX_KEY_LEN, MAX_KEYS, MAX_NAME_LEN,
    MAX_NAMES_LEN, MAX_PARTS, MAX_PEPPERS, MAX_PLAN_NAME_LEN, MAX_PLANS, MAX_POLICY_LEN,
    MAX_PREFIXES, MAX_PROBLEM_LEN, MAX_QUOTAS, MAX_SCOPE_NAME_LEN, MAX_SCOPES, MAX_SECTIONS_LEN,
    MAX_SUBJECTS, MAX_TALLIES, MAX_TEAM_TALLIES, MAX_WARNINGS, MAX_WINDOW_S, MIN_PEPPER_LEN, Mac,
    Name, NamedQuota, NewKey, NotCarried, OnFull, Outcome, PROBLEM_MEDIA_TYPE, ParseKeyError,
    ParseKeyIdError, ParseOnFullError, ParsePolicyError, ParsePolicyErrorKind, Part, PartsError,
    Pepper, PepperTooShort, Peppers, PeppersError, Plan, Policy, Quota, QuotaState, Quotas, Reason,
    RequestError, Reserve, Reserving, Response, SECRET_LEN, Section, SectionName, SectionQuotas,
    Sections, SetPolicyError, Settled, Settlement, StoredSecret, Subject, SubjectInfo, TableKind,
    Tag, TallyCharge, TallyState, TallyVerdict, Text, Timestamp, Unavailability, Usage,
    UsageCounts, Verdict, Warnings, Window, accepts_problem, decide, embedded_ipv4,
    is_table_beginning, parse_key,
};

/// The tables of the core, over any memory, and its `check_all`, which takes an explicit time.
/// [`Gate::table`] and [`Limiter::table`] return them.
pub mod table {
    pub use keytally_core::{AddressLimiter, Gate, GateConfig, Limiter, check_all, peek_all};
}

// The threads of a server share each of these.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Gate>();
    shared::<Followed>();
    shared::<Limiter>();
    shared::<AddressLimiter>();
    shared::<Error>();
};

/// The examples of the project's README, compiled with those of this crate.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
