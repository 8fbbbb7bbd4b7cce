//! One set of vector files that drives every language, and the model that they come from.
//!
//! Keytally promises the same answer everywhere, bit for bit. What that answer is, is told twice, by code that
//! shares nothing: by the core, for speed, and by [`model`], for readers. This crate writes the model's answers to
//! files beside its manifest; the tests of each language read those files and compare.
//!
//! | file | holds | loader |
//! |---|---|---|
//! | `policy.json` | policy texts, what they mean, how words are laid out; texts that are refused | [`load_policies`] |
//! | `decision.json` | one operation on one 64-bit word each, alone and in sequences; reuse of slots | [`load_decisions`] |
//! | `key.json` | keys, key ids and hints; texts that are no keys; CRC-32 | [`load_keys`] |
//! | `mac.json` | SHA-256, HMAC-SHA-256, the MAC in a record | [`load_macs`] |
//! | `verdict.json` | requests to a gate with all that a response needs; header blocks alone | [`load_verdicts`] |
//!
//! Each file begins with a sentence, `about`, that explains its fields and units, and has one case per line. The
//! structs in [`files`] are those lines.
//!
//! A test fails when a file is not what the model writes. To write them anew:
//!
//! ```text
//! cargo run -p keytally-vectors --bin generate
//! ```
//!
//! Nothing here reads a clock or draws entropy: the files are the same on every machine.

pub mod files;
pub mod generate;
pub mod model;

pub use files::{
    DecisionFile, KeyFile, MacFile, PolicyFile, VerdictFile, load_decisions, load_keys, load_macs,
    load_policies, load_verdicts,
};
