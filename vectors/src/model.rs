//! A slow and obvious model of Keytally: the oracle that the core is compared with.
//!
//! It shares no code with the core, and is written to be compared with the specification by
//! reading: plain loops, `i128` or big integers instead of clever arithmetic, lists instead of bit
//! fields, a search instead of a formula. If the core and the model differ, one of them is wrong,
//! and reading usually shows which.
//!
//! | file | holds |
//! |---|---|
//! | `window` | when windows, weeks and months begin, and their names in header fields |
//! | `policy` | policy text, its errors, canonical text |
//! | `layout` | the width of each field of the word |
//! | `tally` | the state of a tally at a given time; check, peek, refund, settle, reset, correction after a wrong clock, reuse of slots |
//! | `charge` | the bytes of a charge |
//! | `key` | the text form of a key, base62, CRC-32 |
//! | `mac` | SHA-256, HMAC-SHA-256 |
//! | `http` | outcome, status, header block, body |
//! | `gate` | a list of keys: verify, then charge |
//! | `compound` | plans with sections: several tallies, all or none |
//! | `prefixes` | limits by address: a client counts in several networks |

mod charge;
mod compound;
mod gate;
mod http;
mod key;
mod layout;
mod mac;
mod policy;
mod prefixes;
mod tally;
mod window;

pub use charge::{ChargedTally, charge_bytes};
pub use compound::{Answer, Charged, Request, Sections};
pub use gate::{Gate, GateKey, Reason, Verdict};
pub use http::{Outcome, QuotaState, body, header_block, rate_limit, rate_limit_policy, status};
pub use key::{
    Key, KeyError, base62, crc32, encode_key, from_base62, hint, key_id_text, parse_key,
};
pub use layout::{Layout, bit_length, bits_wanted, stamp_bits_wanted};
pub use mac::{hmac_sha256, record_mac, sha256};
pub use policy::{Algorithm, Policy, PolicyError, Quota, parse_policy};
pub use prefixes::Prefixes;
pub use tally::{Charge, Clock, Decision, Entry, Model, Reading, Settled, Tally};
pub use window::Window;
