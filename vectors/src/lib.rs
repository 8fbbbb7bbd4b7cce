//! The vector files that drive the tests of every language, and the model that generates them.
//!
//! Keytally returns the same results in every language, bit for bit. Two implementations define
//! these results and share no code: the core, for speed, and [`model`], for readers. This crate
//! writes the results of the model to files next to its manifest. The tests of each language read
//! those files and compare.
//!
//! | file | holds | loader |
//! |---|---|---|
//! | `policy.json` | policy texts, their meaning and the layout of their words; texts that are refused | [`load_policies`] |
//! | `decision.json` | one operation on one 64-bit word each, alone and in sequences; reuse of slots | [`load_decisions`] |
//! | `key.json` | keys, key ids and hints; texts that are not keys; CRC-32 | [`load_keys`] |
//! | `mac.json` | SHA-256, HMAC-SHA-256, the MAC in a record | [`load_macs`] |
//! | `verdict.json` | requests to a gate with everything that a response needs; header blocks alone | [`load_verdicts`] |
//!
//! Each file begins with a text, `about`, that explains its fields and units. Then follows one case
//! per line, which the structs in [`files`] represent.
//!
//! A test fails if a file differs from what the model generates. To generate the files again:
//!
//! ```text
//! cargo run -p keytally-vectors --bin generate
//! ```
//!
//! No code here reads a clock or draws entropy, so the files are the same on every machine.

pub mod files;
pub mod generate;
pub mod model;

pub use files::{
    DecisionFile, KeyFile, MacFile, PolicyFile, VerdictFile, load_decisions, load_keys, load_macs,
    load_policies, load_verdicts,
};
