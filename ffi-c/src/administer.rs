//! Changes to a gate's keys and plans. One administrator works at a time; checks do not wait.
//!
//! For a file, each call waits for its turn: see `kt_gate_set_wait`. A call releases the lock
//! before it returns, so other administrators get their turn during an import of many keys.

use core::ffi::c_char;

use keytally_core::{Entropy, NewKey, Timestamp};
use zeroize::Zeroizing;

#[cfg(feature = "host")]
use crate::gate::change;
use crate::gate::{GateTable, kt_gate, kt_plan, plan, plan_name, scopes};
use crate::guard::guard;
use crate::key::{checked_key_id, kt_key, name};
use crate::pointers::{Growing, Handle, In, Out, plain};
use crate::request::kt_name;
use crate::status::{FfiResult, kt_status};
use crate::time::with_clock;

/// Random bytes for one new key or secret.
pub const KT_ENTROPY_SIZE: usize = 24;

plain! {
    /// The properties of a new key. It may get more members; see "Structs" in the contract.
    #[derive(Debug)]
    pub struct kt_new_key<'c> {
        /// `sizeof` this struct.
        pub size: u32,
        /// The account (team) that the key belongs to.
        pub account: u32,
        /// The environment: 1 to 8 characters of a-z and 0-9. A gate has room for 16 different
        /// ones.
        pub env: In<'c, c_char>,
        /// The environment's length.
        pub env_len: usize,
        /// The plan's name. If the length is 0, the gate's first plan.
        pub plan: In<'c, c_char>,
        /// The length of the plan's name.
        pub plan_len: usize,
        /// When the key expires, in Unix seconds; 0 for never. If `size` ends before this member,
        /// it is 0.
        pub expires_s: u32,
        /// Zero.
        pub reserved_: u32,
        /// The scopes of the key.
        pub scopes: In<'c, kt_name<'c>>,
        /// The number of scopes.
        pub scopes_len: usize,
    }
}

impl Growing for kt_new_key<'_> {
    const MIN_SIZE: usize = core::mem::offset_of!(kt_new_key<'_>, expires_s);
}

impl kt_new_key<'_> {
    /// Calls `work` with the properties in core's form.
    fn with_core_key<T>(&self, work: impl FnOnce(&NewKey<'_>) -> FfiResult<T>) -> FfiResult<T> {
        if self.reserved_ != 0 {
            return Err(kt_status::KT_UNKNOWN_MEMBER);
        }
        let env = name(self.env, self.env_len)?;
        let scopes = scopes(self.scopes, self.scopes_len, kt_status::KT_NO_SUCH_SCOPE)?;
        let new = NewKey::new(self.account, env).with_expires(optional_time(self.expires_s));
        let new = new.with_scopes(&scopes);
        match self.plan_len {
            0 => work(&new),
            len => work(&new.with_plan(plan_name(self.plan, len)?)),
        }
    }
}

/// Returns the time that C gives as Unix seconds, `None` for 0.
fn optional_time(unix_s: u32) -> Option<Timestamp> {
    (unix_s != 0).then(|| Timestamp::from_unix_s(unix_s.into()))
}

/// Does `$work` as the administrator of a handle's gate. For a file it holds the lock, and waits
/// for another administrator. If a migration replaces the file during the wait, `$work` changes the
/// new one. In memory it fails if there is another administrator. (The administrators are of two
/// types, so this cannot be a function that takes a closure.)
macro_rules! administer {
    ($gate:ident, |$administrator:ident| $work:expr) => {
        match &$gate.table {
            $crate::gate::GateTable::Memory(table) => {
                let mut administrator = table.administer()?;
                let $administrator = &mut administrator;
                $work.map_err(kt_status::from)
            }
            #[cfg(feature = "host")]
            $crate::gate::GateTable::File(followed) => {
                $crate::gate::change(followed, |file, wait| {
                    file.administer_within(wait, |$administrator| $work)
                })
            }
        }
    };
}

pub(crate) use administer;

/// Issues a key. Writes the only copy of its secret to `key_out`.
///
/// `entropy` is 24 bytes from the system's entropy, used for this key only. In host builds
/// `kt_entropy` gets them. The secret is a part of them, so overwrite them after the call.
///
/// The key takes a free record. Else it takes the record of a key that was revoked or has expired,
/// if all windows of its counts have ended.
///
/// The first key of an account makes the account's team, if the gate has teams. The team has the
/// plan of that key.
///
/// Statuses: `KT_NAME_FORM` for the environment, `KT_NAMES_TOO_LONG`, `KT_NO_SUCH_PLAN`,
/// `KT_PLAN_NAME_FORM`, `KT_NO_SUCH_SCOPE`, `KT_GATE_FULL`, `KT_ENVS_FULL`, `KT_TEAMS_FULL`,
/// `KT_PEPPERS_FULL`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`, `KT_NO_CLOCK`, `KT_BUSY` (see
/// `kt_gate_set_wait` and `kt_gate_take_over`).
/// For a file also `KT_FILE_REPLACED`, `KT_DISK_FULL`, `KT_IO`, and those of `kt_gate_open` if the
/// file was replaced.
///
/// ```c
/// kt_new_key new_key = {sizeof new_key, 42, KT_TEXT("live"), KT_TEXT("default"), 0, 0, NULL, 0};
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
        let gate = gate.state()?;
        let (key_target, key_id_target) = (key_out.target()?, key_id_out.target()?);
        let entropy = Zeroizing::new(entropy.read()?);
        let time = gate.clock.time(now_ms)?;
        let (key, key_id) = new_key.read_growing()?.with_core_key(|new| {
            administer!(gate, |administrator| with_clock!(time.refreshed(), |clock| {
                administrator.issue(new, Entropy::new(*entropy), clock)
            }))
        })?;
        key_target.write(kt_key::new(&key));
        key_id_target.write(key_id.number());
        Ok(())
    })
}

/// Imports a key of any form that was issued elsewhere, so that its holder can keep it. A key of
/// this library's form keeps its key id and its environment.
///
/// Statuses: `KT_NOT_IMPORTABLE`, `KT_ALREADY_IMPORTED`, `KT_NO_ROOM_TO_IMPORT`, and those of
/// `kt_gate_issue`.
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
        let (gate, target) = (gate.state()?, key_id_out.target()?);
        let text = api_key.slice(api_key_len)?;
        let time = gate.clock.time(now_ms)?;
        let key_id = new_key.read_growing()?.with_core_key(|new| {
            administer!(gate, |administrator| with_clock!(time.refreshed(), |clock| {
                administrator.import(text, new, clock)
            }))
        })?;
        target.write(key_id.number());
        Ok(())
    })
}

/// Gives a key a new secret. The old secret stays valid until `grace_until_s`, in Unix seconds; 0
/// ends it at once. Both secrets share one quota. `entropy` is as in `kt_gate_issue`.
///
/// A key has at most two secrets. If the secret before the last rotation is still valid, this
/// rotation would end it at once, and is refused unless `force` is not 0.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_IN_GRACE`,
/// `KT_NAMES_TOO_LONG` for an imported key, `KT_PEPPERS_FULL`, `KT_RECORD_DAMAGED`, `KT_NO_CLOCK`,
/// `KT_BUSY`. For a file also those that `kt_gate_issue` lists for a file.
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
        let (gate, target) = (gate.state()?, key_out.target()?);
        let key_id = checked_key_id(key_id)?;
        let entropy = Zeroizing::new(entropy.read()?);
        let time = gate.clock.time(now_ms)?;
        let key = administer!(gate, |administrator| with_clock!(time.refreshed(), |clock| {
            let entropy = Entropy::new(*entropy);
            administrator.rotate(key_id, optional_time(grace_until_s), force != 0, entropy, clock)
        }))?;
        target.write(kt_key::new(&key));
        Ok(())
    })
}

/// Revokes a key and its previous secret at once: the next check in any process refuses them. The
/// record stays listed until a new key needs it. Revoking a revoked key changes nothing.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_BUSY`. For a file also those
/// that `kt_gate_issue` lists for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_revoke(gate: Handle<kt_gate>, key_id: u64) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        let key_id = checked_key_id(key_id)?;
        administer!(gate, |administrator| administrator.revoke(key_id))
    })
}

/// Sets the moment from which a key is no longer valid, in Unix seconds; 0 for never. A moment that
/// has passed ends the key at once. An expired key is valid again if the moment is in the future
/// and no other key has got its record.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_BUSY`. For a
/// file also those that `kt_gate_issue` lists for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_expire(gate: Handle<kt_gate>, key_id: u64, expires_s: u32) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        let key_id = checked_key_id(key_id)?;
        administer!(gate, |administrator| administrator.expire(key_id, optional_time(expires_s)))
    })
}

/// Ends the previous secret of a key at once, without waiting for the end of its grace. Does
/// nothing if the key has none.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_BUSY`. For a
/// file also those that `kt_gate_issue` lists for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_end_grace(gate: Handle<kt_gate>, key_id: u64) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        let key_id = checked_key_id(key_id)?;
        administer!(gate, |administrator| administrator.end_grace(key_id))
    })
}

/// Moves a key to another plan. Counts are kept.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_NO_SUCH_PLAN`,
/// `KT_PLAN_NAME_FORM`, `KT_BUSY`. For a file also those that `kt_gate_issue` lists for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_assign(
    gate: Handle<kt_gate>,
    key_id: u64,
    plan: In<c_char>,
    plan_len: usize,
) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        let (key_id, plan) = (checked_key_id(key_id)?, plan_name(plan, plan_len)?);
        administer!(gate, |administrator| administrator.assign(key_id, plan))
    })
}

/// Replaces the scopes of a key.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_REVOKED`, `KT_NO_SUCH_SCOPE`,
/// `KT_BUSY`. For a file also those that `kt_gate_issue` lists for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_set_scopes(
    gate: Handle<kt_gate>,
    key_id: u64,
    scopes: In<kt_name>,
    scopes_len: usize,
) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        let key_id = checked_key_id(key_id)?;
        let scopes = self::scopes(scopes, scopes_len, kt_status::KT_NO_SUCH_SCOPE)?;
        administer!(gate, |administrator| administrator.set_scopes(key_id, &scopes))
    })
}

/// Adds a plan, or gives the plan of that name other limits. Counts are kept.
///
/// Statuses: `KT_PLAN_NAME_FORM`, those that begin with `KT_POLICY_`, `KT_PLAN_WINDOWS`,
/// `KT_PLAN_LIMIT`, `KT_PLANS_FULL`, `KT_BUSY`. For a file also those that `kt_gate_issue` lists
/// for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_set_plan(gate: Handle<kt_gate>, plan: In<kt_plan>) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        let plan = self::plan(&plan.read()?)?;
        administer!(gate, |administrator| administrator.set_plan(&plan))
    })
}

/// Completes the change of an administrator whose process was killed, and lets others administer
/// the gate again. Call it only if you are sure that no other thread or process administers the
/// gate, for instance because you hold a lock of your own.
///
/// A file needs it in one case only: the administrator was killed in another container, while
/// another program or a forked child held an `flock` on the file.
///
/// Statuses: for a file `KT_BUSY`, and those that `kt_gate_issue` lists for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_take_over(gate: Handle<kt_gate>) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        match &gate.table {
            GateTable::Memory(table) => {
                drop(table.take_over());
                Ok(())
            }
            #[cfg(feature = "host")]
            GateTable::File(followed) => change(followed, |file, _| file.take_over()),
        }
    })
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use std::thread;

    use keytally::{Gate, GateConfig, MigrationConfig, Name, pepper};

    use super::*;
    use crate::gate::GateState;

    #[test]
    fn changes_continue_in_the_new_file_through_migrations() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        let peppers = pepper::parse(&pepper::generate().unwrap()).unwrap();
        let open = || Gate::open(at("gate"), peppers.clone()).unwrap();
        let config = GateConfig::default().with_keys(500);
        let gate = Gate::create(at("gate"), peppers.clone(), &config).unwrap();
        let (_, key_id) = gate.issue(&NewKey::new(42, Name::new("live").unwrap())).unwrap();

        let state = GateState::from_file(gate, peppers.clone()).unwrap();
        thread::scope(|scope| {
            let change = || {
                while !at("end").exists() {
                    let expires = Some(Timestamp::from_unix_s(4_000_000_000));
                    administer!(state, |administrator| administrator.expire(key_id, expires))?;
                }
                Ok::<(), kt_status>(())
            };
            let changes = [(); 2].map(|()| scope.spawn(change));
            for _ in 0..40 {
                open().migrate(at("new"), &MigrationConfig::default()).unwrap();
            }
            std::fs::write(at("end"), "").unwrap();
            for thread in changes {
                assert_eq!(thread.join().unwrap(), Ok(()));
            }
        });
        assert_eq!(open().list()[0].expires, Some(Timestamp::from_unix_s(4_000_000_000)));
    }
}
