//! The limiter: a table of tallies for any subject, with a fixed number of slots.
//!
//! ```text
//! header | bucket 0: 8 × { owner, tally } | … | bucket 0: { lock word, overflow tally } | …
//! ```
//!
//! The table uses two-choice hashing with buckets: a keyed hash of the subject names two home
//! slots, each in a bucket, and the subject has a slot in at most one of these buckets. A new
//! subject takes the first bucket, unless that has `SPILL` slots taken and the second has fewer. In
//! its bucket it takes the home slot, else another slot of the home slot's cache line, else one of
//! the other line. So nearly every check reads one cache line, that of the first home slot.
//!
//! A slot's *owner word* names the subject that has the slot. It is a 48-bit fingerprint of the
//! subject's hash above a 16-bit generation, which counts how often the slot was reassigned (an ABA
//! counter).
//!
//! # States of a slot
//! | tally | owner | meaning |
//! |---|---|---|
//! | tombstone (0) | any | no subject has the slot: it was never used, or its reservation was canceled |
//! | reservation (a stamp of all ones, and a lock ticket) | any | an inserter is taking the slot, or lost its lock |
//! | live | a fingerprint | the subject with that fingerprint has the slot |
//! | expired (all windows passed at least 1 s ago) | a fingerprint | as live, but another subject may take the slot |
//!
//! # Hit
//! Load the owner words and the tallies of a cache line, select the subject's slot, load its owner
//! word again, compare-exchange the tally. A slot is reassigned only by first exchanging its
//! *expired* tally for a reservation, and the new tally's stamp is later, in later windows. So a
//! compare-exchange that succeeds proves that the slot was still this subject's.
//!
//! The module `insert` holds the protocol that gives a slot to a new subject. The module `overflow`
//! defines what is charged if there is none.

// From the ground up. A module uses only those above it.
//
// slot      subjects, and the slots that they get
// on_full   the choice of what happens to subjects that find no slot
// table     the struct `Limiter`, and where in memory each part of it is
// insert    the protocol that gives a slot to a new subject
// overflow  the tallies of subjects that find no slot
// check     the check, and the other operations on tallies
// part      a subject as a part of a compound charge
// info      the list of subjects
// numbers   numbers of slots and overflow tallies, for what is reserved for their subjects
// addresses a limiter of client addresses, which counts each in several networks
// reserving limiters whose requests also need a reservation
mod addresses;
mod check;
mod info;
mod insert;
mod numbers;
mod on_full;
mod overflow;
mod part;
mod reserving;
mod slot;
mod table;

pub use self::addresses::{AddressLimiter, AddressPart};
pub use self::info::SubjectInfo;
pub use self::insert::LOCK_SPINS;
pub use self::numbers::{NumberedSubject, rule_of_owner};
pub use self::on_full::{OnFull, ParseOnFullError};
pub use self::part::LimiterPart;
pub use self::reserving::Reserving;
pub use self::slot::Subject;
pub use self::table::{BUCKET_SLOTS, Limiter, MAX_SUBJECTS, SetPolicyError};
