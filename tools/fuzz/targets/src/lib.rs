//! What the fuzz targets do: each takes bytes, makes of them a text or a sequence of calls, and panics when the core
//! and the slow model differ or a promise is broken.
//!
//! They are plain functions. `tools/fuzz/fuzz_targets` gives them to libFuzzer, and `tests/corpus.rs` gives them the inputs that
//! are checked in under `tools/fuzz/corpus`, with any toolchain.
//!
//! | target | what the bytes are | held against |
//! |---|---|---|
//! | [`policy()`] | a policy text | the model's parser |
//! | [`key()`] | a key, or the parts of one and a mistake in it | the model's parser |
//! | [`mac()`] | a pepper, and a key or another text | the crate `hmac` |
//! | [`headers()`] | a policy and a few calls | the model's header block; each field read back |
//! | [`limiter_calls()`] | calls on a small limiter, by clocks that disagree | a model of each subject |
//! | [`gate_calls()`] | calls on a small gate, an administrator's too | a model of each key |
//! | [`c_calls()`] | calls on the C library with arguments that are wrong | every call returns, and what fails writes nothing |
//! | [`open_bytes()`] | a gate or limiter with damage anywhere, or no table at all | a stranger is never admitted, and every call returns |
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a target fails by panicking")]
#![expect(clippy::missing_panics_doc, reason = "a target fails by panicking")]

mod bytes;
mod c_calls;
mod gate;
mod headers;
mod limiter;
mod mac;
mod open;
mod texts;

pub use c_calls::c_calls;
pub use gate::gate_calls;
pub use headers::headers;
pub use limiter::limiter_calls;
pub use mac::mac;
pub use open::open_bytes;
pub use texts::{key, policy};

/// A target: what it does with bytes.
pub type Target = fn(&[u8]);

/// Every target and its name, which is its corpus's folder too.
pub const TARGETS: &[(&str, Target)] = &[
    ("policy", policy),
    ("key", key),
    ("mac", mac),
    ("headers", headers),
    ("limiter_calls", limiter_calls),
    ("gate_calls", gate_calls),
    ("open_bytes", open_bytes),
    ("c_calls", c_calls),
];
