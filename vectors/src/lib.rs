//! The vector files that drive the tests of every language, and the model that generates them.
//!
//! Keytally returns the same results in every language, bit for bit. Two implementations define
//! these results and share no code: the core, for speed, and [`model`], for readers. This crate
//! writes the results of the model to files next to its manifest. The tests of each language read
//! those files and compare.
//!
//! | file | holds | loader |
//! |---|---|---|
//! | `policy.json` | policy texts, their meaning and the layout of their tallies; invalid texts | [`load_policies`] |
//! | `decision.json` | operations on tallies, alone and in sequences; corrections; reuse of a limiter's slots | [`load_decisions`] |
//! | `charge.json` | charges as bytes; bytes that are not a charge | [`load_charges`] |
//! | `key.json` | keys, key ids and hints; texts that are not keys; CRC-32 checksums | [`load_keys`] |
//! | `mac.json` | SHA-256, HMAC-SHA-256, the MAC that a gate stores of a key | [`load_macs`] |
//! | `verdict.json` | requests to gates with their verdicts and responses; responses to given verdicts | [`load_verdicts`] |
//! | `sections.json` | requests that are charged to the tallies of several sections | [`load_sections`] |
//! | `prefixes.json` | requests of clients that count in several networks; policies for addresses | [`load_prefixes`] |
//!
//! | term | meaning |
//! |---|---|
//! | tally | the 64-bit word that holds a stamp and the counts of one key or subject in all windows |
//! | stamp | the time of the last write, in units of the smallest window |
//! | effective time | the caller's time, or the start of the stamp's unit if that is later |
//! | correction | sets back a stamp that a wrong clock has set too far ahead |
//! | gate | a table of API keys with their tallies |
//! | limiter | a table of slots, each of which holds the tally of one subject |
//! | pepper | the server's HMAC key, which is not stored in a gate |
//! | hint | the part of a key that may be shown |
//!
//! Each file begins with a text, `about`, that explains its fields and units. One case per line
//! follows. The structs in [`files`] represent the cases.
//!
//! A test fails if a file differs from what the model generates. To generate the files again:
//!
//! ```text
//! cargo run -p keytally-vectors --bin generate
//! ```
//!
//! No code here reads a clock or draws entropy, so the files are the same on every machine.

#[cfg(doctest)]
mod book;
pub mod files;
pub mod generate;
pub mod model;

pub use files::{
    ChargeFile, DecisionFile, KeyFile, MacFile, PolicyFile, PrefixesFile, SectionsFile,
    VerdictFile, load_charges, load_decisions, load_keys, load_macs, load_policies, load_prefixes,
    load_sections, load_verdicts,
};
