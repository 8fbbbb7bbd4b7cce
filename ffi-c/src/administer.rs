//! A gate's keys and plans, changed. One administrator at a time; checks go on meanwhile.
//!
//! Of a file, each call waits for its turn, see `kt_gate_set_wait`. Every call gives the lock up before it returns, so an import of
//! many keys lets other administrators in between them.

use core::ffi::c_char;

use keytally_core::{Entropy, Gate, NewKey, Timestamp};

use crate::clock::with_clock;
use crate::gate::{kt_gate, kt_plan, plan, plan_name};
use crate::guard::{Outcome, guard};
use crate::key::{key_id, kt_key, name};
use crate::pointers::{Handle, In, Lines, Out};
use crate::status::kt_status;

/// Random bytes for one new key.
pub const KT_ENTROPY_SIZE: usize = 24;

/// What a new key is to be.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_new_key<'c> {
    /// The environment, 1 to 8 characters of a-z and 0-9; the gate learns new ones as they come, 16 of them.
    pub env: In<'c, c_char>,
    /// Its length.
    pub env_len: usize,
    /// The plan's name; the gate's first plan when the length is 0.
    pub plan: In<'c, c_char>,
    /// Its length.
    pub plan_len: usize,
    /// The team account that the key belongs to.
    pub account: u32,
    /// When the key expires, in Unix seconds; 0 for never.
    pub not_after_s: u32,
}

impl kt_new_key<'_> {
    /// Hands on what the core takes, with the name of the first plan where none is given.
    fn with<T>(&self, gate: &Gate<Lines>, work: impl FnOnce(&NewKey<'_>) -> Outcome<T>) -> Outcome<T> {
        let env = name(self.env, self.env_len)?;
        let first = if self.plan_len == 0 { gate.plan(0) } else { None };
        let plan = match &first {
            Some(plan) => &plan.name,
            None => plan_name(self.plan, self.plan_len)?,
        };
        work(&NewKey::new(self.account, env).with_plan(plan).with_not_after(moment(self.not_after_s)))
    }
}

/// Does `$work` as the gate's administrator: of a file under its lock, which waits for another administrator; of memory
/// if there is no other. (The administrators are of two types, so this can't be a function that takes a closure.)
/// Returns the moment that C gives as Unix seconds; `None` for 0.
fn moment(unix_s: u32) -> Option<Timestamp> {
    (unix_s != 0).then(|| Timestamp::from_unix_s(unix_s.into()))
}

macro_rules! administer {
    ($gate:ident, |$administrator:ident| $work:expr) => {
        match $gate.file() {
            #[cfg(feature = "host")]
            Some(file) => file.administer(|$administrator| $work).map_err(kt_status::from),
            _ => {
                let mut administrator = $gate.administer()?;
                let $administrator = &mut administrator;
                $work.map_err(kt_status::from)
            }
        }
    };
}

pub(crate) use administer;

/// Issues a key. What it writes to `key_out` is the only copy of the secret.
///
/// `entropy` is 24 bytes from the system's entropy, used for this key only (in host builds `kt_entropy` gets them). The key takes
/// a free record, or that of a key that was revoked or has expired and whose counts have been forgotten everywhere.
///
/// Statuses: `KT_NAME_FORM` for the environment, `KT_NAMES_TOO_LONG`, `KT_NO_SUCH_PLAN`, `KT_PLAN_NAME_FORM`, `KT_GATE_FULL`,
/// `KT_ENVS_FULL`, `KT_PEPPERS_FULL`; `KT_BUSY`, see `kt_gate_set_wait` and `kt_gate_take_over`; of a file also
/// `KT_FILE_REPLACED`, `KT_IO`, and those of `kt_gate_open` if the file was replaced.
///
/// ```c
/// kt_new_key new_key = {KT_TEXT("live"), KT_TEXT("default"), 42, 0};
/// kt_key key;
/// uint64_t key_id;
/// kt_status status = kt_gate_issue(gate, &new_key, entropy, KT_SYSTEM_CLOCK, &key, &key_id);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_issue(
    gate: Handle<kt_gate>,
    new_key: In<kt_new_key>,
    entropy: In<[u8; KT_ENTROPY_SIZE]>,
    now_ms: u64,
    key_out: Out<kt_key>,
    key_id_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let gate = gate.in_place()?;
        let (key_place, key_id_place) = (key_out.place()?, key_id_out.place()?);
        let entropy = Entropy::new(entropy.read()?);
        let time = gate.clock.time(now_ms)?;
        let (key, key_id) = new_key.read()?.with(&gate, |new| {
            administer!(gate, |administrator| with_clock!(time.refreshed(), |clock| {
                administrator.issue(new, entropy, clock)
            }))
        })?;
        key_place.write(kt_key::of(&key));
        key_id_place.write(key_id.number());
        Ok(())
    })
}

/// Takes in a key that was issued elsewhere, of any form, so that its holder keeps it. A key of this library's form keeps its
/// key id and its environment.
///
/// Statuses: `KT_NOT_IMPORTABLE`, `KT_ALREADY_IMPORTED`, `KT_NO_ROOM_TO_IMPORT`, and those of `kt_gate_issue`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_import(
    gate: Handle<kt_gate>,
    api_key: In<u8>,
    api_key_len: usize,
    new_key: In<kt_new_key>,
    now_ms: u64,
    key_id_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let (gate, place) = (gate.in_place()?, key_id_out.place()?);
        let text = api_key.slice(api_key_len)?;
        let time = gate.clock.time(now_ms)?;
        let key_id = new_key.read()?.with(&gate, |new| {
            administer!(gate, |administrator| with_clock!(time.refreshed(), |clock| {
                administrator.import(text, new, clock)
            }))
        })?;
        place.write(key_id.number());
        Ok(())
    })
}

/// Gives a key a new secret. The old one stays valid until `grace_until_s`, in Unix seconds (0 for not at all), and both spend
/// the same quota. `entropy` is as in `kt_gate_issue`.
///
/// A key has two secrets at most. If the one before the last rotation is still valid, this rotation would end it at once, and
/// is refused unless `force` is not 0.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_IN_GRACE`, `KT_NAMES_TOO_LONG` for an
/// imported key, `KT_PEPPERS_FULL`, `KT_RECORD_DAMAGED`; `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_rotate(
    gate: Handle<kt_gate>,
    key_id: u64,
    grace_until_s: u32,
    force: u8,
    entropy: In<[u8; KT_ENTROPY_SIZE]>,
    now_ms: u64,
    key_out: Out<kt_key>,
) -> kt_status {
    guard(|| {
        let (gate, place) = (gate.in_place()?, key_out.place()?);
        let key_id = self::key_id(key_id)?;
        let entropy = Entropy::new(entropy.read()?);
        let time = gate.clock.time(now_ms)?;
        let key = administer!(gate, |administrator| with_clock!(time.refreshed(), |clock| {
            administrator.rotate(key_id, moment(grace_until_s), force != 0, entropy, clock)
        }))?;
        place.write(kt_key::of(&key));
        Ok(())
    })
}

/// Ends a key, and its previous secret with it, at once: the next check in any process sees it. The record stays, to be listed,
/// until its place is needed. A key that was revoked before stays so.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`; `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_revoke(gate: Handle<kt_gate>, key_id: u64) -> kt_status {
    guard(|| {
        let gate = gate.in_place()?;
        let key_id = self::key_id(key_id)?;
        administer!(gate, |administrator| administrator.revoke(key_id))
    })
}

/// Moves a key to another plan, counts kept.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_NO_SUCH_PLAN`, `KT_PLAN_NAME_FORM`;
/// `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_assign(
    gate: Handle<kt_gate>,
    key_id: u64,
    plan: In<c_char>,
    plan_len: usize,
) -> kt_status {
    guard(|| {
        let gate = gate.in_place()?;
        let (key_id, plan) = (self::key_id(key_id)?, plan_name(plan, plan_len)?);
        administer!(gate, |administrator| administrator.assign(key_id, plan))
    })
}

/// Adds a plan, or gives the plan of that name other limits, counts kept.
///
/// Statuses: `KT_PLAN_NAME_FORM`, those that begin with `KT_POLICY_`, `KT_PLAN_WINDOWS`, `KT_PLAN_LIMIT`, `KT_PLANS_FULL`;
/// `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_set_plan(gate: Handle<kt_gate>, plan: In<kt_plan>) -> kt_status {
    guard(|| {
        let gate = gate.in_place()?;
        let plan = self::plan(&plan.read()?)?;
        administer!(gate, |administrator| administrator.set_plan(&plan))
    })
}

/// Ends the administration that a process left which died in the middle of it, and completes its change. Call it when a lock of
/// yours, or that you are alone, proves that no other thread or process administers.
///
/// A file needs it in one case only: when the administrator was killed in another container while another program or a
/// forked child held an `flock` on the file.
///
/// Statuses: of a file `KT_FILE_REPLACED`, `KT_IO`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_take_over(gate: Handle<kt_gate>) -> kt_status {
    guard(|| {
        let gate = gate.in_place()?;
        match gate.file() {
            #[cfg(feature = "host")]
            Some(file) => Ok(file.take_over()?),
            _ => {
                drop(gate.take_over());
                Ok(())
            }
        }
    })
}
