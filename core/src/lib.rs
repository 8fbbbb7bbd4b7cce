//! May the holder of this API key make this request now?
//!
//! Keytally checks the key in constant time, charges every window of its quota in one atomic step, and returns
//! everything that an HTTP response needs. This crate is the core: no `std`, no allocation, no clock, no I/O, no
//! randomness, no `unsafe`. Time is an argument, memory is the caller's, and entropy is passed in.
//!
//! # Layers
//! | module | what it holds |
//! |---|---|
//! | [`policy`] | `100/minute, 1000/hour`, read once into a form that can't be wrong |
//! | [`tally`] | the one word that counts a key's use in all windows |
//! | [`decide`] | the decision: a pure function of layout, limits, word, time and cost |
//! | `cell` | the compare-exchange loop around it |
//! | [`limiter`] | a table of tallies for any subject |
//! | [`key`], [`mac`] | the form of keys, and their HMAC |
//! | `record`, [`gate`] | a table of issued keys with their tallies: verify, then charge |
//! | [`verdict`], [`http`] | the answer, and the HTTP response it makes |
//! | [`header`], `line`, [`sync`] | how tables begin, the cache line, the only door to atomics |
//! | `stop` | for tests only: where a thread can be stopped for ever; empty without the feature `__stop-points` |
//!
//! # The contract
//! - Every method takes `&self`: tables may be used by any number of threads, and by processes that share the memory.
//! - Nothing blocks. A call is bounded work, apart from compare-exchanges lost to others who got on.
//! - Clocks may disagree: see [`decide`]. Times are Unix milliseconds, costs and limits are `u32`.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// For the models' stops, see stop.rs; their macros name `std`.
#[cfg(any(loom, shuttle))]
extern crate alloc;
#[cfg(any(loom, shuttle))]
extern crate std;

mod cell;
mod gate;
mod header;
mod http;
mod key;
mod limiter;
mod line;
mod mac;
mod peppers;
mod policy;
mod record;
mod tally;
mod text;
mod time;
mod verdict;

pub mod decide;

#[doc(hidden)]
pub mod stop;
#[doc(hidden)]
pub mod sync;

pub use {
    decide::Charge,
    gate::{
        AdminError, Administrator, Entropy, Flaw, FlawKind, Gate, GateConfig, IMPORT_GROUP, IMPORTED_KEY_LEN,
        KeyInfo, MAX_ENVS, MAX_KEYS, MAX_PLAN_NAME_LEN, MAX_PLANS, NewKey, Plan,
    },
    header::{AttachError, BEGINNING_LEN, CreateError, FORMAT_VERSION, TableKind, is_table_beginning},
    http::{
        API_KEY_HEADER, BufferTooSmall, FIELD_NAMES, Headers, MAX_FIELDS, MAX_HEADERS_LEN, MAX_PROBLEM_LEN,
        PROBLEM_MEDIA_TYPE, Response, accepts_problem,
    },
    key::{
        Hint, KEY_ID_LEN, Key, KeyId, KeyParts, MAX_KEY_LEN, MAX_NAME_LEN, MAX_NAMES_LEN, Name,
        ParseKeyError, ParseKeyIdError, SECRET_LEN, parse as parse_key,
    },
    limiter::{BUCKET_SLOTS, CLAIM_SPINS, Limiter, MAX_SUBJECTS, Subject},
    line::{LINE_LEN, Line},
    mac::{MAX_PEPPERS, MIN_PEPPER_LEN, Mac, Pepper, PepperTooShort, Tag},
    peppers::{Peppers, PeppersError},
    policy::{
        Algorithm, Limits, MAX_POLICY_LEN, MAX_QUOTAS, MAX_WINDOW_S, ParsePolicyError, ParsePolicyErrorKind,
        Policy, Quota, Window,
    },
    record::KeyState,
    tally::Layout,
    text::Text,
    time::{Clock, Timestamp},
    verdict::{Holder, Outcome, QuotaState, Quotas, Reason, Verdict},
};
