//! The native part of the package `keytally` for Node.js.
//!
//! It converts arguments and results. The crates `keytally-core` and `keytally` do the work. The
//! JavaScript part, `lib/`, checks the types of arguments and has the classes.
//!
//! # Layers
//! A module uses modules of lower rows only.
//!
//! | module | contents |
//! |---|---|
//! | `gate`, `limiter` | the functions of the tables |
//! | `compound` | compound charges, and the verdicts on several tallies |
//! | `held`, `request`, `policy`, `charge`, `address` | the gate of an object; groups and scopes; policies; charges; client addresses |
//! | `facts` | the numbers of a verdict |
//! | `clock`, `errors`, `values` | the time of a call; errors; the arguments of the fast path |
//!
//! A check is a plain function of an external value and not a method of a class: napi-rs looks up
//! the native part of an object by calls that take as long as the check.
#![cfg_attr(
    test,
    allow(dead_code, clippy::allow_attributes, reason = "the macro exports nothing in tests")
)]
#![deny(unsafe_op_in_unsafe_fn)]
#![expect(clippy::needless_pass_by_value, reason = "napi-rs passes the values that it converted")]

extern crate alloc;

mod address;
mod charge;
mod clock;
mod compound;
mod errors;
mod facts;
mod gate;
mod held;
mod limiter;
mod policy;
mod request;
mod values;

use keytally::{FIELD_NAMES, PROBLEM_MEDIA_TYPE};
use napi_derive::napi;

use crate::errors::{Result, from_error};

/// What the package has in common with the other languages.
#[napi(object)]
pub(crate) struct Constants {
    pub version: String,
    pub field_names: Vec<String>,
    pub problem_media_type: String,
    pub max_keys: u32,
    pub max_subjects: u32,
    /// The most facts of a verdict.
    pub max_facts: u32,
}

/// Returns what the package has in common with the other languages.
#[napi(catch_unwind)]
pub(crate) fn constants() -> Constants {
    Constants {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        field_names: FIELD_NAMES.iter().map(|&name| name.to_owned()).collect(),
        problem_media_type: PROBLEM_MEDIA_TYPE.to_owned(),
        max_keys: keytally::MAX_KEYS,
        max_subjects: keytally::MAX_SUBJECTS,
        max_facts: u32::try_from(compound::MAX).unwrap_or_default(),
    }
}

/// Returns a text without the parts that look like a key or a pepper, for an error message.
#[napi(catch_unwind)]
pub(crate) fn redact(text: String) -> String {
    keytally::redact::redact(&text).into_owned()
}

/// Returns a name without the parts that look like a key or a pepper, for an error message.
#[napi(catch_unwind)]
pub(crate) fn redact_name(text: String) -> String {
    keytally::redact::redact_name(&text)
}

/// Returns whether the value of an `Accept` field names problem documents (RFC 9457).
#[napi(catch_unwind)]
pub(crate) fn accepts_problem(accept: String) -> bool {
    keytally::accepts_problem(accept.as_bytes())
}

/// Returns a new pepper: 32 bytes of the system's entropy, as 64 hex digits.
#[napi(catch_unwind)]
pub(crate) fn generate_pepper() -> Result<String> {
    keytally::pepper::generate().map(|pepper| (*pepper).clone()).map_err(from_error)
}
