//! Checks API keys and rate limits: may the holder of this API key make this request now?
//!
//! A [`Gate`] is a table of issued keys. A check verifies a key in constant time and charges every
//! window of its quota in one atomic step. Its [`Verdict`] holds everything that the HTTP response
//! needs. A [`Limiter`] does the same for any subject, such as an address, without keys.
//!
//! This crate is the core of Keytally: no `std`, no allocation, no clock, no I/O, no randomness and
//! no `unsafe`. The caller passes in time, memory and entropy. Servers use the crate `keytally`,
//! which adds files that processes share, the system's clock and its entropy.
//!
//! ```
//! use keytally_core::{CacheLine, Entropy, Gate, GateConfig, Name, NewKey, Outcome, Peppers, Plan};
//! use keytally_core::Timestamp;
//!
//! // Memory for 64 keys: 64 lines, and 7 lines of header for one plan.
//! static MEMORY: [CacheLine; 71] = [const { CacheLine::new() }; 71];
//!
//! let plans = [Plan::new("default", "1/minute, 1000/hour".parse()?).unwrap()];
//! let config = GateConfig::new(64, Name::new("kt").unwrap(), &plans);
//! let peppers = Peppers::new(&[b"32 random bytes that you keep .."])?; // the server's HMAC keys
//! let gate = Gate::init(&MEMORY[..], &config, peppers)?;
//!
//! let now = Timestamp::from_unix_s(1_700_000_040); // from your clock
//! let entropy = Entropy::new(*b"24 bytes, always random!"); // from your source of randomness
//! let new = NewKey::new(42, Name::new("live").unwrap());
//! let (key, _key_id) = gate.administer()?.issue(&new, entropy, now)?;
//!
//! let admitted = gate.check(Some(key.expose().as_bytes()), 1, now);
//! assert_eq!((admitted.is_admitted(), admitted.remaining()), (true, Some(999)));
//!
//! let denied = gate.check(Some(key.expose().as_bytes()), 1, now);
//! assert_eq!((denied.outcome(), denied.http_status()), (Outcome::Denied, 429));
//! assert_eq!(denied.retry_after_s(), Some(60));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Concurrency
//! Every method takes `&self`. Any number of threads, and of processes that share the memory, may
//! use a table at once. A check of a gate takes no lock. The first charge of a subject in a limiter
//! takes the lock word of a bucket, and waits for it for at most [`LOCK_SPINS`] spins before it
//! takes it over. ARCHITECTURE.md lists what each operation may wait for. Clocks may disagree: see
//! [`decide`].
//!
//! # Units
//! Times are Unix milliseconds. Costs and limits are `u32`.
//!
//! # Features
//! | feature | effect |
//! |---|---|
//! | `sliding` (default) | sliding windows |
//! | `imported-keys` (default) | keys of other forms, which were issued elsewhere |
//! | `pepper-rotation` (default) | more than one pepper at a time |
//! | `calendar` (default) | weeks and months |
//! | `sections` (default) | plans with sections, teams, scopes and warnings |
//! | `portable-atomic` | 64-bit atomics where the target has none, from the crate of that name |
//! | `unshared` | plain cells where the target has no 64-bit atomics; tables are then not `Sync` |
//! | `serde` | `Serialize` for values that programs log, `Deserialize` for those that they store |
//! | `defmt` | `defmt::Format` for the values that firmware logs |
//!
//! A device can leave out the default features to save code. What needs one is then refused with
//! the [`Feature`] as the reason. Programs that share a table must have the same features.
//!
//! No serialized or logged form contains a secret. That of a [`Verdict`] contains the reason why a
//! key is invalid, which must not be disclosed to the client.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// For `stop.rs` under a model checker. The macros of the model checkers name `std`.
#[cfg(any(loom, shuttle))]
extern crate alloc;
#[cfg(any(loom, shuttle))]
extern crate std;

// The modules, from the ground up. A module uses only those above it.
//
// bits      arithmetic on words: halves, scaling, exact division
// siphash   SipHash-1-3, the hash of a limiter's subjects
// sync      the atomics, and their replacements where there are none or where a model checker runs
// stop      steps at which tests stop a thread; empty without the feature `__stop-points`
// features  features that a device can leave out
// text      short texts of a bounded length
// sort      sorts a few items
// time      timestamps and clocks
// window    lengths of time, weeks and months
// section   sections of a plan: the key, its team, groups
// quota     limits and algorithms
// outcome   what a check decides, and why a key is invalid
// tally     the word that counts, and its layout
// charge    what a check charged, for refunds
// quotas    the state of each window of a tally
// decide    the decision: a pure function of layout, limits, word, time and cost
// policy    policy text, such as `100/minute, 1000/hour`
// address   client addresses, and the networks by which limiters count them
// prefixes  the text of limits by address, such as `addresses: /64 20/minute`
// sections  the text of a plan, such as `100/minute; team: 500/minute`
// compare_exchange  the compare-exchange loop around a decision
// cache_line  the cache line that tables consist of
// header    the header of every table
// key       the form of keys and key ids
// mac       HMAC-SHA-256, peppers and tags
// verdict   the result of a check
// tally_verdict  the result for one tally of several
// http      the HTTP response of a verdict
// compound  charges of several tallies, all or none
// reservation  what a request needs in addition to room in the tallies of a gate
// usage     counts of how each key is used
// record    a key's record: a seqlock with a redo record
// gate      the table of issued keys
// limiter   the table of tallies for any subject
// formats   the features `serde` and `defmt`
//
// Inlining: functions of the hot path are `#[inline]`. On 64-bit targets, one is `inline(always)`
// where a check or header fields took more instructions without it (`cargo xtask test budgets`). On
// smaller targets, one has no attribute or `inline(never)` where it made code larger or the stack
// deeper (`cargo xtask test firmware`). Where `bits::IS_64_BIT` is false, code is left out that
// only saves instructions of a 64-bit target.
mod address;
mod bits;
mod cache_line;
mod charge;
mod compare_exchange;
mod compound;
mod features;
#[cfg(any(feature = "serde", feature = "defmt"))]
mod formats;
mod gate;
mod header;
mod http;
mod key;
mod limiter;
mod mac;
mod outcome;
mod policy;
mod prefixes;
mod quota;
mod quotas;
mod record;
mod reservation;
mod section;
mod sections;
mod siphash;
mod sort;
mod tally;
mod tally_verdict;
mod text;
mod time;
mod usage;
mod verdict;
mod window;

pub mod decide;

// Not part of the API: for the other crates and tests of this project, without a guarantee of
// stability.
#[doc(hidden)]
pub mod stop;
#[doc(hidden)]
pub mod sync;

pub use {
    address::{Address, embedded_ipv4},
    cache_line::{CACHE_LINE_LEN, CacheLine},
    charge::{Charge, TallyCharge},
    compound::{Compound, MAX_PARTS, Part, PartsError, check_all, clock_offset_ms, peek_all},
    features::Feature,
    gate::{
        AccountInfo, AdminError, Administrator, Counted, Entropy, Extras, Flaw, FlawKind, Gate,
        GateConfig, GatePart, IMPORT_GROUP, IMPORTED_KEY_LEN, KeyInfo, KeyRecord, MAX_ENVS,
        MAX_KEYS, MAX_PLAN_NAME_LEN, MAX_PLANS, MAX_SCOPE_NAME_LEN, MAX_SCOPES,
        MAX_SUCCESSOR_NAME_LEN, Migration, Needs, NewKey, NotCarried, NumberedTally, Plan,
        RequestError, Settled, Settlement, StoredSecret, Successor, TallyOwner, TallyState,
    },
    header::{
        AttachError, BEGINNING_LEN, CreateError, FORMAT_VERSION, TableKind, is_table_beginning,
    },
    http::{
        API_KEY_HEADER, BufferTooSmall, CompoundResponse, FIELD_NAMES, Headers,
        MAX_COMPOUND_HEADERS_LEN, MAX_COMPOUND_PROBLEM_LEN, MAX_FIELDS, MAX_HEADERS_LEN,
        MAX_PROBLEM_LEN, NamedQuota, PROBLEM_MEDIA_TYPE, Response, accepts_problem,
    },
    key::{
        Hint, KEY_ID_LEN, Key, KeyId, KeyParts, MAX_KEY_LEN, MAX_NAME_LEN, MAX_NAMES_LEN, Name,
        ParseKeyError, ParseKeyIdError, SECRET_LEN, parse as parse_key,
    },
    limiter::{
        AddressLimiter, AddressPart, BUCKET_SLOTS, LOCK_SPINS, Limiter, LimiterPart, MAX_SUBJECTS,
        NumberedSubject, OnFull, ParseOnFullError, Reserving, SetPolicyError, Subject, SubjectInfo,
        rule_of_owner,
    },
    mac::{MAX_PEPPERS, MIN_PEPPER_LEN, Mac, Pepper, PepperTooShort, Peppers, PeppersError, Tag},
    outcome::{Outcome, Reason, Unavailability},
    policy::{MAX_POLICY_LEN, ParsePolicyError, ParsePolicyErrorKind, Policy},
    prefixes::{AddressPolicy, MAX_PREFIXES},
    quota::{Algorithm, Limits, MAX_QUOTAS, Quota},
    quotas::{QuotaState, Quotas},
    record::KeyState,
    reservation::{NotReserving, Reserve, TallyNumbers},
    section::{MAX_GROUP_NAME_LEN, MAX_TALLIES, MAX_TEAM_TALLIES, Section, SectionName},
    sections::{MAX_SECTIONS_LEN, MAX_WARNINGS, SectionQuotas, Sections, Warnings},
    tally::Layout,
    tally_verdict::{Refusal, TallyVerdict},
    text::Text,
    time::{Clock, Timestamp},
    usage::{KeyUsage, Usage, UsageCounts},
    verdict::{Holder, Verdict},
    window::{MAX_WINDOW_S, Window},
};

/// The example of the package's README, compiled with those of this crate.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
