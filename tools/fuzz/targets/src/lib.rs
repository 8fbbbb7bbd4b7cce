//! Fuzz targets: functions that interpret bytes as a text or as a sequence of calls.
//!
//! A target panics if the core differs from the reference model, or if a guarantee is broken. The
//! model, `keytally_vectors::model`, is a second implementation that is slow and simple.
//! `tools/fuzz/fuzz_targets` calls the targets from libFuzzer. `tests/corpus.rs` calls them with
//! the inputs in `tools/fuzz/corpus`, with any toolchain.
//!
//! | target | meaning of the bytes | compared with |
//! |---|---|---|
//! | [`policy()`] | a policy text | the model's parser |
//! | [`sections()`] | the text of a plan with sections | the model's parser, and a gate with that plan |
//! | [`prefixes()`] | the text of a policy for addresses, and requests of clients | the model's parser, and a model of each network |
//! | [`key()`] | a key, or the parts of one and a mistake in it | the model's parser |
//! | [`mac()`] | a pepper, and a key or another text | the crate `hmac` |
//! | [`headers()`] | a policy and a few calls | the model's header block, and each field parsed |
//! | [`limiter_calls()`] | calls on a small limiter, at times that step back and forth | a model of each subject |
//! | [`gate_calls()`] | calls on a small gate, including an administrator's | a model of each key |
//! | [`compound_calls()`] | requests on a small gate with sections, teams and scopes | a model of each tally |
//! | [`c_calls()`] | calls of the C library with invalid arguments | every call returns, and a failed call writes nothing |
//! | [`sealed()`] | a sealed record of a fleet's key, or a changed one | only the record itself is accepted |
//! | [`fleet_file()`] | a fleet file with arbitrary words, requests and replies of a store | every call returns, and the gate's own limit holds |
//! | [`open_bytes()`] | a damaged gate or limiter, or arbitrary bytes as one | every call returns, and a key that was not issued is not admitted |
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a target fails by panicking")]
#![expect(clippy::missing_panics_doc, reason = "a target fails by panicking")]

extern crate alloc;

mod bytes;
mod c_calls;
mod compound;
mod fleet;
mod gate;
mod headers;
mod limiter;
mod mac;
mod open;
mod prefixes;
mod sealed;
mod texts;

pub use c_calls::c_calls;
pub use compound::compound_calls;
pub use fleet::fleet_file;
pub use gate::gate_calls;
pub use headers::headers;
pub use limiter::limiter_calls;
pub use mac::mac;
pub use open::open_bytes;
pub use prefixes::prefixes;
pub use sealed::sealed;
pub use texts::{key, policy, sections};

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name, which is also the folder of the target's corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("policy", policy),
    ("sections", sections),
    ("prefixes", prefixes),
    ("key", key),
    ("mac", mac),
    ("headers", headers),
    ("limiter_calls", limiter_calls),
    ("gate_calls", gate_calls),
    ("compound_calls", compound_calls),
    ("open_bytes", open_bytes),
    ("fleet_file", fleet_file),
    ("c_calls", c_calls),
    ("sealed", sealed),
];
