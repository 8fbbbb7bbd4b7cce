//! A gate's keys, plans and environments, looked at.

use core::ffi::{c_char, c_int, c_void};

use keytally_core::{Flaw, FlawKind, KeyInfo};
use keytally_core::{KeyState, Timestamp};

use crate::administer::administer;
use crate::gate::kt_gate;
use crate::guard::guard;
use crate::key::{KT_NAME_SIZE, key_id};
use crate::pointers::{Handle, In, Number, Numbered, Out};
use crate::policy::KT_POLICY_SIZE;
use crate::status::kt_status;
use crate::text::{Text, characters, put};
use crate::verdict::{KT_MAX_QUOTAS, fill_quotas, kt_quota};

/// Bytes of a plan's name, with the NUL.
pub const KT_PLAN_NAME_SIZE: usize = 17;

/// Bytes of a key's last characters, with the NUL.
pub const KT_LAST_CHARACTERS_SIZE: usize = 5;

const _: () = assert!(KT_PLAN_NAME_SIZE == keytally_core::MAX_PLAN_NAME_LEN + 1);

/// Everything that may be shown of a key.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_key_info {
    /// The key's public name.
    pub key_id: u64,
    /// When the key was last charged, in Unix milliseconds, rounded down to the smallest window; 0 when never, or reset since.
    pub last_used_ms: u64,
    /// The team account that the key belongs to.
    pub account: u32,
    /// When the key expires, in Unix seconds; 0 for never.
    pub not_after_s: u32,
    /// Until when the previous secret is valid, in Unix seconds: its grace ends or the key expires. 0 when it is not valid now,
    /// as after a revocation.
    pub grace_until_s: u32,
    /// 1 when the key was revoked, else 0.
    pub revoked: u8,
    /// The number of the plan; `kt_gate_plan` tells its name.
    pub plan: u8,
    /// The number of the pepper that the secret is stored under.
    pub pepper: u8,
    /// How many quotas there are.
    pub quota_count: u8,
    /// By how many seconds the tally is ahead of the caller's time, rounded up; 0 if it is not.
    pub clock_ahead_s: u32,
    /// The environment, ended by a NUL; empty in a damaged record.
    pub env: [c_char; KT_NAME_SIZE],
    /// The last four characters, ended by a NUL; empty where the gate doesn't keep them, as in memory of the caller's.
    pub last_characters: [c_char; KT_LAST_CHARACTERS_SIZE],
    /// The key's quotas now, or at the tally's own time if that is ahead, shortest window first.
    /// Those from `quota_count` on are zeros.
    pub quotas: [kt_quota; KT_MAX_QUOTAS],
}

impl From<&KeyInfo> for kt_key_info {
    fn from(info: &KeyInfo) -> Self {
        let mut quotas = [kt_quota::default(); KT_MAX_QUOTAS];
        fill_quotas(&mut quotas, &info.quotas);
        Self {
            key_id: info.key_id.number(),
            last_used_ms: info.last_used.map_or(0, Timestamp::unix_ms),
            account: info.account,
            not_after_s: second(info.not_after),
            grace_until_s: second(info.grace_until),
            revoked: (info.state == KeyState::Revoked).into(),
            plan: info.plan,
            pepper: info.pepper,
            quota_count: u8::try_from(info.quotas.len()).unwrap_or(0),
            clock_ahead_s: info.clock_ahead_s,
            env: characters(
                info.env.map_or_else(Default::default, |env| Text::<KT_NAME_SIZE>::of(&env)).as_bytes(),
            ),
            last_characters: characters(info.last_characters.as_deref().unwrap_or_default().as_bytes()),
            quotas,
        }
    }
}

/// Returns a moment as C has it: Unix seconds, 0 for none. A gate keeps 32 bits of them.
fn second(moment: Option<Timestamp>) -> u32 {
    moment.map_or(0, |moment| u32::try_from(moment.unix_s()).unwrap_or(u32::MAX))
}

/// A plan of a gate.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_plan_info {
    /// The name, ended by a NUL.
    pub name: [c_char; KT_PLAN_NAME_SIZE],
    /// What it admits, ended by a NUL.
    pub policy: [c_char; KT_POLICY_SIZE],
}

/// What is called for each key: with the `context` that was given to `kt_gate_list`, and the key, which is there for the call
/// only. 0 goes on; anything else ends the list. It must return: no exception, no `longjmp`.
pub type kt_key_visitor = Option<extern "C" fn(context: *mut c_void, info: In<kt_key_info>) -> c_int>;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum kt_flaw_kind {
    /// It is half-written, and nothing says what it was to be.
    KT_FLAW_HALF_WRITTEN = 0,
    /// Its key id belongs into another record, so no check finds it.
    KT_FLAW_MISPLACED = 1,
    /// The gate has no plan of that number.
    KT_FLAW_NO_PLAN = 2,
    /// The gate has no environment of that number.
    KT_FLAW_NO_ENV = 3,
    /// The gate has no pepper of that number.
    KT_FLAW_NO_PEPPER = 4,
    /// Where its tally should be is something else.
    KT_FLAW_NO_TALLY = 5,
    /// Its tally is more than 60 s ahead: a wrong clock stamped it. The next check by the system
    /// clock corrects it.
    KT_FLAW_FUTURE_TALLY = 6,
    /// Something that this version of the header has no name for; the sentence tells.
    KT_FLAW_OTHER = 7,
}

impl Numbered for kt_flaw_kind {
    type Number = u32;
}

/// Bytes of a flaw's sentence, with the NUL.
pub const KT_FLAW_SENTENCE_SIZE: usize = 160;

/// Something in a gate that no administrator and no check could have left there.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_flaw {
    /// The key that the record holds, as far as it can be told, else 0.
    pub key_id: u64,
    /// The number of the record.
    pub record: u32,
    /// What is wrong.
    pub kind: Number<kt_flaw_kind>,
    /// The same as a sentence, ended by a NUL.
    pub sentence: [c_char; KT_FLAW_SENTENCE_SIZE],
}

impl From<&Flaw> for kt_flaw {
    fn from(flaw: &Flaw) -> Self {
        let kind = match flaw.kind {
            FlawKind::HalfWritten => kt_flaw_kind::KT_FLAW_HALF_WRITTEN,
            FlawKind::Misplaced => kt_flaw_kind::KT_FLAW_MISPLACED,
            FlawKind::NoPlan { .. } => kt_flaw_kind::KT_FLAW_NO_PLAN,
            FlawKind::NoEnv { .. } => kt_flaw_kind::KT_FLAW_NO_ENV,
            FlawKind::NoPepper { .. } => kt_flaw_kind::KT_FLAW_NO_PEPPER,
            FlawKind::NoTally => kt_flaw_kind::KT_FLAW_NO_TALLY,
            FlawKind::FutureTally => kt_flaw_kind::KT_FLAW_FUTURE_TALLY,
            _ => kt_flaw_kind::KT_FLAW_OTHER,
        };
        Self {
            key_id: flaw.key_id.map_or(0, |key_id| key_id.number()),
            record: flaw.record,
            kind: Number(kind as u32),
            sentence: Text::of(flaw).characters(),
        }
    }
}

/// What is called for each flaw, as a `kt_key_visitor` is for keys; it can't end the reading.
pub type kt_flaw_visitor = Option<extern "C" fn(context: *mut c_void, flaw: In<kt_flaw>)>;

/// Everything that may be shown of one key.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_key(
    gate: Handle<kt_gate>,
    key_id: u64,
    now_ms: u64,
    info_out: Out<kt_key_info>,
) -> kt_status {
    guard(|| {
        let (gate, place) = (gate.in_force()?, info_out.place()?);
        let info = gate.key(self::key_id(key_id)?, gate.clock.time(now_ms)?.moment());
        place.write((&info.ok_or(kt_status::KT_NO_SUCH_KEY)?).into());
        Ok(())
    })
}

/// Calls `visit` with everything that may be shown of each key, revoked ones too, in the order of their key ids. Reads the
/// whole gate. `visit` may call any function of this library, of this gate too.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_list(
    gate: Handle<kt_gate>,
    now_ms: u64,
    visit: kt_key_visitor,
    context: *mut c_void,
) -> kt_status {
    guard(|| {
        let gate = gate.in_force()?;
        let visit = visit.ok_or(kt_status::KT_NULL_POINTER)?;
        for info in gate.list(gate.clock.time(now_ms)?.moment()) {
            if visit(context, In::of(&kt_key_info::from(&info))) != 0 {
                break;
            }
        }
        Ok(())
    })
}

/// The plan of this number: of a verdict, or from 0 on until `KT_NO_SUCH_PLAN`.
///
/// Statuses: `KT_NO_SUCH_PLAN`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_plan(gate: Handle<kt_gate>, plan: u8, info_out: Out<kt_plan_info>) -> kt_status {
    guard(|| {
        let (gate, place) = (gate.in_force()?, info_out.place()?);
        let plan = gate.plan(plan).ok_or(kt_status::KT_NO_SUCH_PLAN)?;
        place.write(kt_plan_info {
            name: characters(plan.name.as_bytes()),
            policy: Text::of(&plan.policy).characters(),
        });
        Ok(())
    })
}

/// Writes the name of an environment, ended by a NUL, and its length without that.
///
/// Statuses: `KT_NO_SUCH_ENV`; `KT_BUFFER_TOO_SMALL`: `KT_NAME_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_env(
    gate: Handle<kt_gate>,
    env: u8,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let gate = gate.in_force()?;
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.place()?);
        let env = gate.env(env).ok_or(kt_status::KT_NO_SUCH_ENV)?;
        put(buffer, written, env.as_str().as_bytes())
    })
}

/// The most keys that the gate can hold.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_capacity(gate: Handle<kt_gate>, keys_out: Out<u32>) -> kt_status {
    guard(|| {
        let (gate, place) = (gate.in_force()?, keys_out.place()?);
        place.write(gate.capacity());
        Ok(())
    })
}

/// Reads the whole gate, and calls `report` with what no administrator and no check could have left there. First it completes
/// the change of an administrator that was killed. Other administrators wait only if something is wrong: then the gate is
/// read again under the lock, and in `report` no function that changes this gate may be called.
///
/// Records have no checksum. So a value that was changed into another valid one is not seen: the key id within its record, a
/// MAC, an account, a time, a count, or the number of another plan, environment or pepper.
///
/// Statuses: `KT_BUSY`; of a file also `KT_FILE_REPLACED`, `KT_IO`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_verify(
    gate: Handle<kt_gate>,
    now_ms: u64,
    report: kt_flaw_visitor,
    context: *mut c_void,
) -> kt_status {
    guard(|| {
        let gate = gate.in_place()?;
        let report = report.ok_or(kt_status::KT_NULL_POINTER)?;
        let time = gate.clock.time(now_ms)?;
        let tell = |flaw: Flaw| report(context, In::of(&kt_flaw::from(&flaw)));
        administer!(gate, |_administrator| Ok::<(), keytally_core::AdminError>(()))?;
        // A change that is being made meanwhile may look like a flaw, so flaws are looked for again undisturbed.
        let mut flawed = false;
        gate.verify(time.moment(), |_| flawed = true);
        if !flawed {
            return Ok(());
        }
        administer!(gate, |administrator| {
            administrator.verify(time.moment(), tell);
            Ok::<(), keytally_core::AdminError>(())
        })
    })
}
