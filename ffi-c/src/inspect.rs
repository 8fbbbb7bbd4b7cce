//! Queries of a gate's keys, plans and environments.

use core::ffi::{c_char, c_int, c_void};

use keytally_core::{Flaw, FlawKind, KeyInfo};
use keytally_core::{KeyState, Timestamp};

use crate::administer::administer;
use crate::gate::kt_gate;
use crate::guard::guard;
use crate::key::{KT_NAME_SIZE, checked_key_id};
use crate::pointers::{Handle, In, Number, Numbered, Out, plain};
use crate::policy::KT_SECTIONS_SIZE;
use crate::status::kt_status;
use crate::text::{Text, put, to_characters};
use crate::verdict::{kt_quota, put_quotas, quota_state};

/// Bytes of a plan's name, with the NUL.
pub const KT_PLAN_NAME_SIZE: usize = 17;

/// Bytes of the name of a scope, with the NUL.
pub const KT_SCOPE_SIZE: usize = 17;

/// Bytes of the name of a window, with the NUL.
pub const KT_WINDOW_SIZE: usize = 9;

/// Bytes of a key's last characters, with the NUL.
pub const KT_LAST_CHARACTERS_SIZE: usize = 5;

const _: () = {
    assert!(KT_PLAN_NAME_SIZE == keytally_core::MAX_PLAN_NAME_LEN + 1);
    assert!(KT_SCOPE_SIZE == keytally_core::MAX_SCOPE_NAME_LEN + 1);
    assert!(size_of::<kt_key_info>() == 256 && size_of::<kt_plan_info>() == 1792);
};

plain! {
    /// The properties of a key that may be shown.
    ///
    /// Its size is fixed. This library writes it; reserved members are zeros. `kt_key_info_quota`
    /// returns its quotas.
    #[derive(Debug)]
    pub struct kt_key_info {
        /// The key id.
        pub key_id: u64,
        /// When a charge, refund or settle last changed the key's counts, in Unix milliseconds. It
        /// is rounded down to the policy's shortest window, to less if its windows do not nest, and
        /// to a day if all are weeks and months. 0 if its tally counts no unit, as before the first
        /// charge and after a reset.
        pub last_used_ms: u64,
        /// The account (team) that the key belongs to.
        pub account: u32,
        /// When the key expires, in Unix seconds; 0 for never.
        pub expires_s: u32,
        /// Until when the previous secret is valid, in Unix seconds: until its grace ends or the
        /// key expires. 0 if it is not valid now, as after a revocation.
        pub grace_until_s: u32,
        /// 1 if the key was revoked, else 0.
        pub revoked: u8,
        /// The number of the plan; `kt_gate_plan` returns its name.
        pub plan: u8,
        /// The number of the pepper that the secret is stored under.
        pub pepper: u8,
        /// The number of quotas.
        pub quota_count: u8,
        /// By how many seconds the tally is ahead of the caller's time, rounded up; 0 if it is not.
        pub clock_ahead_s: u32,
        /// The environment, with a NUL. Empty in a damaged record.
        pub env: [c_char; KT_NAME_SIZE],
        /// The last four characters of the key, with a NUL. Empty if the gate does not store them,
        /// as in the caller's memory.
        pub last_characters: [c_char; KT_LAST_CHARACTERS_SIZE],
        /// Zeros.
        pub reserved_8_: [u8; 6],
        /// The quotas, now or at the tally's own time if that is ahead, in a form of this library:
        /// see `kt_key_info_quota`.
        pub private_at_ms_: u64,
        /// More of the quotas, in the same form.
        pub private_: [u32; 32],
        /// The scopes that the key has, one bit each: bit 0 for the scope that `kt_gate_scope`
        /// names at index 0.
        pub scopes: u64,
        /// Zeros.
        pub reserved_: [u64; 7],
    }
}

impl kt_key_info {
    fn new(info: &KeyInfo) -> Self {
        let mut private_ = [0; 32];
        put_quotas(&mut private_, &info.quotas);
        Self {
            key_id: info.key_id.number(),
            last_used_ms: info.last_used.map_or(0, Timestamp::unix_ms),
            account: info.account,
            expires_s: unix_s(info.expires),
            grace_until_s: unix_s(info.grace_until),
            revoked: (info.state == KeyState::Revoked).into(),
            plan: info.plan,
            pepper: info.pepper,
            quota_count: u8::try_from(info.quotas.len()).unwrap_or(0),
            clock_ahead_s: info.clock_ahead_s,
            env: to_characters(
                info.env
                    .map_or_else(Default::default, |env| Text::<KT_NAME_SIZE>::from_display(&env))
                    .as_bytes(),
            ),
            last_characters: to_characters(
                info.last_characters.as_deref().unwrap_or_default().as_bytes(),
            ),
            reserved_8_: [0; 6],
            private_at_ms_: info.quotas.time().unix_ms(),
            private_,
            scopes: info.scopes,
            reserved_: [0; 7],
        }
    }
}

/// Returns a time as C has it: Unix seconds, 0 for none. A gate stores 32 bits of them.
fn unix_s(time: Option<Timestamp>) -> u32 {
    time.map_or(0, |time| u32::try_from(time.unix_s()).unwrap_or(u32::MAX))
}

plain! {
    /// A plan of a gate. Its size is fixed. This library writes it; reserved members are zeros.
    #[derive(Debug)]
    pub struct kt_plan_info {
        /// The name, with a NUL.
        pub name: [c_char; KT_PLAN_NAME_SIZE],
        /// The quotas in sections, with a NUL.
        pub sections: [c_char; KT_SECTIONS_SIZE],
        /// Zeros.
        pub reserved_: [u8; 239],
    }
}

/// A callback for each key, with the `context` that was given to `kt_gate_list`. `info` is valid
/// during the callback only. Return 0 to continue and any other number to end the list. Do not
/// leave it by an exception or `longjmp`.
pub type kt_key_visitor =
    Option<extern "C" fn(context: *mut c_void, info: In<kt_key_info>) -> c_int>;

/// The kind of a flaw in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum kt_flaw_kind {
    /// The record is half-written, and no redo record completes it.
    KT_FLAW_HALF_WRITTEN = 0,
    /// The key id belongs in another record, so no check finds this one.
    KT_FLAW_MISPLACED = 1,
    /// The gate has no plan of that number.
    KT_FLAW_NO_PLAN = 2,
    /// The gate has no environment of that number.
    KT_FLAW_NO_ENV = 3,
    /// The gate has no pepper of that number.
    KT_FLAW_NO_PEPPER = 4,
    /// The tally is not a valid tally.
    KT_FLAW_NO_TALLY = 5,
    /// The tally is more than 60 s ahead of the call's time. If a wrong clock stamped it, the next
    /// check by the system clock corrects it.
    KT_FLAW_FUTURE_TALLY = 6,
    /// A flaw that this version of the header has no name for; see the sentence.
    KT_FLAW_OTHER = 7,
    /// The words of the record do not have the checksum that was stored with them.
    KT_FLAW_CHECKSUM = 8,
    /// The team of the record does not exist, or is of another account.
    KT_FLAW_NO_TEAM = 9,
}

impl Numbered for kt_flaw_kind {
    type Number = u32;
}

/// Bytes of a flaw's sentence, with the NUL.
pub const KT_FLAW_SENTENCE_SIZE: usize = 192;

plain! {
    /// A flaw: content of a gate that neither an administrator nor a check can have left. Its size
    /// is fixed. This library writes it; reserved members are zeros.
    #[derive(Debug)]
    pub struct kt_flaw {
        /// The key that the record holds; 0 if it is not known.
        pub key_id: u64,
        /// The number of the record.
        pub record: u32,
        /// The kind of flaw.
        pub kind: Number<kt_flaw_kind>,
        /// A sentence about it, with a NUL.
        pub sentence: [c_char; KT_FLAW_SENTENCE_SIZE],
        /// Zeros.
        pub reserved_: [u64; 2],
    }
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
            FlawKind::Checksum => kt_flaw_kind::KT_FLAW_CHECKSUM,
            FlawKind::NoTeam { .. } => kt_flaw_kind::KT_FLAW_NO_TEAM,
            _ => kt_flaw_kind::KT_FLAW_OTHER,
        };
        Self {
            key_id: flaw.key_id.map_or(0, |key_id| key_id.number()),
            record: flaw.record,
            kind: Number(kind as u32),
            sentence: Text::from_display(flaw).to_characters(),
            reserved_: [0; 2],
        }
    }
}

/// A callback for each flaw, with the `context` that was given to `kt_gate_verify`. `flaw` is valid
/// during the callback only. Do not leave it by an exception or `longjmp`.
pub type kt_flaw_visitor = Option<extern "C" fn(context: *mut c_void, flaw: In<kt_flaw>)>;

/// Writes the properties of one key.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_key(
    gate: Handle<kt_gate>,
    key_id: u64,
    now_ms: u64,
    info_out: Out<kt_key_info>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, info_out.target()?);
        let info = gate.key(checked_key_id(key_id)?, gate.clock.time(now_ms)?.moment());
        target.write(kt_key_info::new(&info.ok_or(kt_status::KT_NO_SUCH_KEY)?));
        Ok(())
    })
}

/// Writes the quota at `index` of a key, from 0 for the shortest window to `quota_count - 1`.
///
/// Statuses: `KT_NO_SUCH_QUOTA`, `KT_NOT_A_VERDICT` if this library did not write `info`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_key_info_quota(
    info: In<kt_key_info>,
    index: usize,
    quota_out: Out<kt_quota>,
) -> kt_status {
    guard(|| {
        let target = quota_out.target()?;
        let info = info.get()?;
        let state = quota_state(&info.private_, info.quota_count, index, info.private_at_ms_)?;
        target.put_quota(&state);
        Ok(())
    })
}

/// Calls `visit` with the properties of each key, in the order of their key ids. Revoked keys are
/// included. Reads the whole gate.
///
/// `visit` may call any function of this library, also of this gate.
///
/// Statuses: `KT_NO_CLOCK`.
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
            if visit(context, In::from_ref(&kt_key_info::new(&info))) != 0 {
                break;
            }
        }
        Ok(())
    })
}

/// Writes the plan with this number, such as the `plan` of a verdict. To list all plans, count from
/// 0 until `KT_NO_SUCH_PLAN`.
///
/// Statuses: `KT_NO_SUCH_PLAN`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_plan(
    gate: Handle<kt_gate>,
    plan: u8,
    info_out: Out<kt_plan_info>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, info_out.target()?);
        let plan = gate.plan(plan).ok_or(kt_status::KT_NO_SUCH_PLAN)?;
        target.write(kt_plan_info {
            name: to_characters(plan.name.as_bytes()),
            sections: Text::from_display(&plan.sections).to_characters(),
            reserved_: [0; 239],
        });
        Ok(())
    })
}

/// Writes the name of an environment and a NUL. Writes the length without the NUL to `written_out`.
///
/// Statuses: `KT_NO_SUCH_ENV`. `KT_BUFFER_TOO_SMALL`; `KT_NAME_SIZE` bytes are always enough.
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
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.target()?);
        let env = gate.env(env).ok_or(kt_status::KT_NO_SUCH_ENV)?;
        put(buffer, written, env.as_str().as_bytes())
    })
}

/// Writes the name of a scope of the gate, and a NUL. Writes the length without the NUL to
/// `written_out`. To list all scopes, count `index` from 0 until `KT_NO_SUCH_SCOPE`.
///
/// Statuses: `KT_NO_SUCH_SCOPE`. `KT_BUFFER_TOO_SMALL`; `KT_SCOPE_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_scope(
    gate: Handle<kt_gate>,
    index: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let gate = gate.in_force()?;
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.target()?);
        let scope = gate.scopes().nth(index).ok_or(kt_status::KT_NO_SUCH_SCOPE)?;
        put(buffer, written, scope.as_bytes())
    })
}

/// Writes the name of a section that all plans of the gate share, and a NUL: `key`, `team` or the
/// name of a group. Writes the length without the NUL to `written_out`. To list all sections, count
/// `index` from 0 until `KT_NO_SUCH_GROUP`.
///
/// Statuses: `KT_NO_SUCH_GROUP`. `KT_BUFFER_TOO_SMALL`; `KT_SECTION_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_section(
    gate: Handle<kt_gate>,
    index: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let gate = gate.in_force()?;
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.target()?);
        let section = gate.sections().get(index).ok_or(kt_status::KT_NO_SUCH_GROUP)?;
        put(buffer, written, section.name().as_bytes())
    })
}

/// Writes the window that the gate names to be described by `X-RateLimit-*`, and a NUL. The text is
/// empty if it names none. Writes the length without the NUL to `written_out`.
///
/// Statuses: `KT_BUFFER_TOO_SMALL`; `KT_WINDOW_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_described(
    gate: Handle<kt_gate>,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let gate = gate.in_force()?;
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.target()?);
        let text = gate
            .described()
            .map_or_else(Default::default, |window| Text::<KT_WINDOW_SIZE>::from_display(&window));
        put(buffer, written, text.as_bytes())
    })
}

/// Writes the most teams that the gate can hold; 0 if it has none.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_team_capacity(gate: Handle<kt_gate>, teams_out: Out<u32>) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, teams_out.target()?);
        target.write(gate.team_capacity());
        Ok(())
    })
}

/// Writes 0 if the gate is plain (see `kt_gate_size`), else 1. A check of a gate that is not plain
/// may charge several tallies, and takes longer.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_is_extended(gate: Handle<kt_gate>, extended_out: Out<u32>) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, extended_out.target()?);
        target.write(gate.is_extended().into());
        Ok(())
    })
}

/// Writes the most keys that the gate can hold.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_capacity(gate: Handle<kt_gate>, keys_out: Out<u32>) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, keys_out.target()?);
        target.write(gate.capacity());
        Ok(())
    })
}

/// Reads the whole gate and calls `report` for each flaw. First it completes the change of an
/// administrator that was killed.
///
/// Other administrators wait only if there is a flaw. Then the gate is read again under the lock,
/// and `report` must not call a function that changes this gate.
///
/// In a file, each record has a checksum, which does not cover its counts. In the caller's memory
/// there are no checksums. A value that was changed into another valid value is not found there:
/// another key id of the same record, a MAC, an account, a time, a count, or the number of another
/// plan, environment or pepper.
///
/// Statuses: `KT_BUSY`, `KT_NO_CLOCK`. For a file also those that `kt_gate_issue` lists for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_verify(
    gate: Handle<kt_gate>,
    now_ms: u64,
    report: kt_flaw_visitor,
    context: *mut c_void,
) -> kt_status {
    guard(|| {
        let state = gate.state()?;
        let report = report.ok_or(kt_status::KT_NULL_POINTER)?;
        let time = state.clock.time(now_ms)?;
        let report = |flaw: Flaw| report(context, In::from_ref(&kt_flaw::from(&flaw)));
        administer!(state, |_administrator| Ok::<(), keytally_core::AdminError>(()))?;
        // A concurrent change may look like a flaw, so the gate is read again under the lock.
        let mut flawed = false;
        gate.in_force()?.verify(time.moment(), |_| flawed = true);
        if !flawed {
            return Ok(());
        }
        administer!(state, |administrator| {
            administrator.verify(time.moment(), report);
            Ok::<(), keytally_core::AdminError>(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_sentence_of_each_kind_of_flaw_fits() {
        let number = u8::MAX;
        for kind in [
            FlawKind::HalfWritten,
            FlawKind::Misplaced,
            FlawKind::NoPlan { plan: number },
            FlawKind::NoEnv { env: number },
            FlawKind::NoPepper { pepper: number },
            FlawKind::NoTally,
            FlawKind::FutureTally,
            FlawKind::Checksum,
            FlawKind::NoTeam { team: u32::MAX },
        ] {
            let flaw = Flaw::new(u32::MAX, keytally_core::KeyId::from_number(u64::MAX), kind);
            let sentence = std::format!("{flaw}");
            assert!(sentence.len() < KT_FLAW_SENTENCE_SIZE, "{} bytes: {sentence}", sentence.len());
        }
    }
}
