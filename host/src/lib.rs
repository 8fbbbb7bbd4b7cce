//! Keytally on an operating system: gates and limiters in files that any number of processes share, with the
//! system's clock and entropy.
//!
//! The core, [`keytally`], decides; this crate brings the memory, the time and the randomness.
//!
//! ```
//! use keytally::{GateConfig, Gate, Name, NewKey, pepper};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("api.gate");
//! let peppers = pepper::parse(&pepper::generate()?)?; // a real one is kept: see `pepper::read_file`
//! let gate = Gate::create(&path, peppers, &GateConfig::default())?;
//!
//! let new = NewKey::new(42, Name::new("live").unwrap());
//! let (key, _key_id) = gate.issue(&new)?;
//!
//! let verdict = gate.check(Some(key.expose().as_bytes()), 1);
//! assert!(verdict.is_admitted());
//! assert_eq!(verdict.remaining(), 999);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layers
//! | module | what it holds |
//! |---|---|
//! | [`Gate`], [`Limiter`] | the core's tables in a file, with the system's clock |
//! | [`Followed`] | a gate that is opened again when its file is replaced |
//! | `file` | opening a file: what is refused, and why |
//! | `publish` | creating one: whole or not at all |
//! | `lock` | one administrator at a time |
//! | `map` | the mapped memory, and all `unsafe` code of this crate |
//! | [`SystemClock`], [`now()`], [`entropy()`] | the only reads of the clock and of the system's entropy |
//! | [`pepper`] | peppers as text, from the environment or a file; which files are accepted |
//! | [`redact`] | which texts look like secrets, and what errors show in their place |
//! | [`Error`] | everything that can go wrong, a sentence each |
//!
//! # The contract between processes
//! - **Sharing.** Processes that open one file share its counts and keys at once. No process is special, none has to
//!   run for the others to work, and there is no daemon.
//! - **Checks never wait.** `check`, `peek`, `refund`, `settle` and `reset` take no lock and make no system call but
//!   the reading of the clock. They allocate nothing. (The first to touch a page that the system has just written to
//!   the disk may wait for the file system; in `/dev/shm` there is no such thing.)
//! - **Administrators take turns.** What changes keys or plans (`issue`, `import`, `rotate`, `revoke`, `assign`,
//!   `set_plan`, `administer`, `verify`) waits for the gate's lock: 10 seconds at most, unless
//!   [`Gate::set_wait`] or a [`Wait`] says otherwise. Then [`Error::Busy`] names the process that administers. The lock of a
//!   process that dies is free at once, and the next administrator completes what it left half-done. A forked child
//!   does not inherit the lock, and a `flock` of another program delays nobody.
//! - **Long administrations let others in.** [`Gate::administer_each`] gives the lock up after every thousand changes, and
//!   an administrator that begins lets those go first that have been waiting. One call of `administer` is not interrupted.
//! - **Death is harmless.** A process killed at any instruction loses no count and leaves nobody waiting.
//! - **Stops are harmless.** A process that is stopped at any instruction, for any time, and continued (`SIGSTOP`,
//!   `docker pause`, a frozen cgroup, a suspended machine) lets no window admit more than its limit, counted by the times of
//!   the decisions. Its old reading of the clock is taken as the time of the tally that it meets, or read again.
//! - **Power failures.** A change that an administrator made is on the disk when the call returns. Counts are written
//!   when the system sees fit, so after a power failure they may be half a minute old. A change that was being made
//!   just then may be lost, and its record unreadable: that key is invalid, and `verify` names it.
//! - **Forking.** A child shares the mapping of its parent, of files and of tables in memory alike, and may go on
//!   using the same `Gate` and `Limiter`. After `exec` a program opens the file anew; tables in memory are gone.
//! - **Files stay as long as they were.** Nobody may shorten a file that is open: a process that touches memory which
//!   the file no longer backs is killed by `SIGBUS`. Nothing here ever does it, and no replacement needs it: make the
//!   new file beside the old one and rename it. Tables in memory are sealed against it.
//! - **A gate's file may be replaced** by renaming another over it. A [`Followed`] gate opens the new file within a second, and
//!   keeps the old one until the new one can be opened. A [`Gate`] stays with its file, and refuses changes
//!   ([`Error::Replaced`]). Limiters are not followed: a new limiter has forgotten all counts, so nobody replaces one in use.
//! - **Disk space** is taken when a file is created, so that a full disk is an error then and never a `SIGBUS` later.
//!   File systems that copy on write (btrfs, ZFS) can't promise that; prefer another, or `/dev/shm` where counts need
//!   not survive a reboot.
//! - **Local files only.** Two machines that map one file over a network don't see each other's counts.
//! - **Who may open.** Files are made with mode 0600. A group may be let in (`chmod g+rw`); a file that others can get
//!   at, or that belongs to a stranger, is refused. Whoever can write the file can change every count and key in it, and
//!   can keep administrators waiting.
//!
//! Linux only: `O_TMPFILE`, `memfd_create` and `flock` have no equals elsewhere that keep these promises.

#[cfg(not(target_os = "linux"))]
compile_error!("keytally-host supports Linux only; keytally, the core, builds for any target");

extern crate alloc;

mod clock;
mod entropy;
mod error;
mod file;
mod followed;
mod gate;
mod limiter;
mod lock;
mod map;
pub mod pepper;
mod publish;
pub mod redact;

#[doc(inline)]
pub use {
    clock::{SystemClock, now},
    entropy::{entropy, entropy_bytes},
    error::{Error, PepperError},
    followed::{Current, FollowEvent, FollowStatus, Followed},
    gate::{Gate, GateConfig},
    limiter::Limiter,
    lock::{LockHolder, Wait},
    map::Mapping,
};

#[doc(inline)]
pub use keytally_core::{
    API_KEY_HEADER, AdminError, Administrator, Algorithm, AttachError, BEGINNING_LEN, BUCKET_SLOTS,
    BufferTooSmall, Charge, Clock, CreateError, Entropy, FIELD_NAMES, FORMAT_VERSION, Flaw, FlawKind,
    Headers, Hint, Holder, IMPORT_GROUP, IMPORTED_KEY_LEN, KEY_ID_LEN, Key, KeyId, KeyInfo, KeyParts,
    KeyState, LINE_LEN, Layout, Limits, Line, MAX_ENVS, MAX_FIELDS, MAX_HEADERS_LEN, MAX_KEY_LEN, MAX_KEYS,
    MAX_NAME_LEN, MAX_NAMES_LEN, MAX_PEPPERS, MAX_PLAN_NAME_LEN, MAX_PLANS, MAX_POLICY_LEN, MAX_PROBLEM_LEN,
    MAX_QUOTAS, MAX_SUBJECTS, MAX_WINDOW_S, MIN_PEPPER_LEN, Mac, Name, NewKey, Outcome, PROBLEM_MEDIA_TYPE,
    ParseKeyError, ParseKeyIdError, ParsePolicyError, ParsePolicyErrorKind, Pepper, PepperTooShort, Peppers,
    PeppersError, Plan, Policy, Quota, QuotaState, Quotas, Reason, Response, SECRET_LEN, Subject, TableKind,
    Tag, Text, Timestamp, Verdict, Window, accepts_problem, decide, is_table_beginning, parse_key,
};

/// The tables of the core, over memory of any kind: what [`Gate::table`] and [`Limiter::table`] return.
pub mod table {
    pub use keytally_core::{Gate, Limiter};
}

/// Bytes in the header that tables in files have: one page.
pub const HEADER_LEN: usize = HEADER_LINES * LINE_LEN;

/// The header in lines.
const HEADER_LINES: usize = 64;

const _: () = assert!(HEADER_LEN == 4096, "the header is one page");

// A server's threads share one of each.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Gate>();
    shared::<Followed>();
    shared::<Limiter>();
    shared::<Error>();
};

/// The example of the project's README, which is compiled with the others.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
