//! The gate: a table of issued keys with their tallies. Verify, then charge.
//!
//! ```text
//! header: shape | peppers, prefix | redo record | owner | environments (2 lines) | plans …
//! records, one line per key | hints and checksums, 8 per line (where the gate keeps them)
//! ```
//!
//! A gate with sections, teams or scopes has more lines: see `extension.rs`.
//!
//! The first line is the header that every table has (`header.rs`). The owner line names the record
//! that the redo record is for.
//!
//! A key id names its record: ids are minted so that `id × records / 2^64` is the record's number.
//! So a check reads one line whether or not the id exists, every record can be used, and ids need
//! no index. The module `imported` holds the rule for keys of other forms.

// From the ground up. A module uses only those above it.
//
// plan           a named policy
// extension      what a gate with sections, teams or scopes has in addition, and the size of gates
// config         the configuration of a gate to create
// table          the struct `Gate`, and where in memory each part of it is
// scopes         the sections and scopes
// plans          the plans in the header
// tallies        the words of tallies
// entry          the scopes and the team of a key
// team           the accounts of keys
// open           creation and opening
// secret_match   which of a record's secrets a key has
// refusal        why a key is refused
// imported       the records of keys that were issued elsewhere
// verify_key     the verification of a key
// part           a key and the tallies that a request charges, as a part of a compound charge
// check          the check, and the other operations on tallies
// settle         refunds and settlements
// inspect        the properties of the keys
// accounts       the properties of the accounts
// changes        what shows that a key was changed
// flaws          the flaws of the records
// ids            the key ids of one record
// new_key        what a new key is made of
// admin_error    why a change is refused
// administrator  the changes to keys and plans
// usage          the counts of uses
// key_record     what a change would write, and a record as a value
// migration      moves keys and counts to another gate
mod accounts;
mod admin_error;
mod administrator;
mod changes;
mod check;
mod config;
mod entry;
mod extension;
mod extras;
mod flaws;
mod ids;
mod imported;
mod inspect;
mod key_record;
mod migration;
mod new_key;
mod numbers;
mod open;
mod part;
mod plan;
mod plans;
mod refusal;
mod scopes;
mod secret_match;
mod settle;
mod table;
mod tallies;
mod team;
mod usage;
mod verify_key;

pub use self::accounts::AccountInfo;
pub use self::admin_error::AdminError;
pub use self::administrator::Administrator;
pub use self::config::{GateConfig, MAX_KEYS, MAX_PLANS};
pub use self::extension::{MAX_SCOPE_NAME_LEN, MAX_SCOPES};
pub use self::extras::{Extras, Needs};
pub use self::flaws::{Flaw, FlawKind};
pub use self::imported::{IMPORT_GROUP, IMPORTED_KEY_LEN};
pub use self::inspect::{KeyInfo, TallyState};
pub use self::key_record::{KeyRecord, StoredSecret};
pub use self::migration::{MAX_SUCCESSOR_NAME_LEN, Migration, NotCarried, Successor};
pub use self::new_key::{Entropy, NewKey};
pub use self::numbers::{NumberedTally, TallyOwner};
pub use self::part::{GatePart, RequestError};
pub use self::plan::{MAX_PLAN_NAME_LEN, Plan};
pub use self::settle::{Settled, Settlement};
pub use self::table::{Gate, MAX_ENVS};
pub use self::usage::Counted;
