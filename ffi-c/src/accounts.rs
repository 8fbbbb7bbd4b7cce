//! The accounts of a gate with teams: their properties, and the changes to them.

use core::ffi::{c_char, c_int, c_void};

use keytally_core::{
    AccountInfo, Algorithm, MAX_QUOTAS, MAX_TEAM_TALLIES, Outcome, Section, SectionQuotas,
};

use crate::administer::administer;
use crate::gate::{kt_gate, plan_name};
use crate::guard::guard;
use crate::pointers::{Handle, In, Out, plain};
use crate::policy::sections;
use crate::status::kt_status;
use crate::time::with_call_clock;
use crate::verdict::{kt_quota, put_quotas, quota_state};

const _: () = {
    // The private part has room for eight quotas.
    assert!(MAX_TEAM_TALLIES * MAX_QUOTAS * 4 <= 32);
    assert!(size_of::<kt_account_info>() == 192);
};

plain! {
    /// The properties of an account in a gate with teams.
    ///
    /// Its size is fixed. This library writes it; reserved members are zeros.
    /// `kt_account_info_quota` returns its quotas.
    #[derive(Debug)]
    pub struct kt_account_info {
        /// The number of the account.
        pub account: u32,
        /// 1 if the keys of the account are refused, else 0.
        pub suspended: u8,
        /// The number of the plan whose team limits hold for the account; `kt_gate_plan` returns
        /// its name.
        pub plan: u8,
        /// 1 if the account has limits of its own instead of the plan's, else 0.
        pub has_own_limits: u8,
        /// The number of quotas. 0 if the plans have no section `team`, or do not limit it.
        pub quota_count: u8,
        /// The quotas that all keys of the account share, in a form of this library: see
        /// `kt_account_info_quota`.
        pub private_at_ms_: u64,
        /// More of the quotas, in the same form.
        pub private_: [u32; 32],
        /// Zeros.
        pub reserved_: [u64; 6],
    }
}

impl kt_account_info {
    fn new(info: &AccountInfo) -> Self {
        let mut private_ = [0; 32];
        let mut count = 0;
        for quotas in info.quotas() {
            let mut words = [0; 32];
            put_quotas(&mut words, quotas);
            let len = 4 * quotas.len();
            let (start, end) = (4 * count, 4 * count + len);
            if let (Some(target), Some(words)) = (private_.get_mut(start..end), words.get(..len)) {
                target.copy_from_slice(words);
                count += quotas.len();
            }
        }
        // No reset is before the time of any tally.
        let at_ms = info.quotas().iter().map(|quotas| quotas.time().unix_ms()).min();
        Self {
            account: info.account,
            suspended: info.is_suspended.into(),
            plan: info.plan,
            has_own_limits: info.has_own_limits.into(),
            quota_count: u8::try_from(count).unwrap_or(0),
            private_at_ms_: at_ms.unwrap_or(0),
            private_,
            reserved_: [0; 6],
        }
    }
}

/// A callback for each account, with the `context` that was given to `kt_gate_accounts`. `info` is
/// valid during the callback only. Return 0 to continue and any other number to end the list. Do
/// not leave it by an exception or `longjmp`.
pub type kt_account_visitor =
    Option<extern "C" fn(context: *mut c_void, info: In<kt_account_info>) -> c_int>;

/// Writes the properties of an account.
///
/// Statuses: `KT_NO_SUCH_ACCOUNT`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_account(
    gate: Handle<kt_gate>,
    account: u32,
    now_ms: u64,
    info_out: Out<kt_account_info>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, info_out.target()?);
        let info = gate.account(account, gate.clock.time(now_ms)?.moment());
        target.write(kt_account_info::new(&info.ok_or(kt_status::KT_NO_SUCH_ACCOUNT)?));
        Ok(())
    })
}

/// Writes the quota at `index` of an account, from 0 for the shortest window to `quota_count - 1`.
///
/// Statuses: `KT_NO_SUCH_QUOTA`, `KT_NOT_A_VERDICT` if this library did not write `info`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_account_info_quota(
    info: In<kt_account_info>,
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

/// Calls `visit` with the properties of each account, in no particular order. Reads all teams.
///
/// `visit` may call any function of this library, also of this gate. A gate without teams has no
/// accounts.
///
/// Statuses: `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_accounts(
    gate: Handle<kt_gate>,
    now_ms: u64,
    visit: kt_account_visitor,
    context: *mut c_void,
) -> kt_status {
    guard(|| {
        let gate = gate.in_force()?;
        let visit = visit.ok_or(kt_status::KT_NULL_POINTER)?;
        for info in gate.accounts(gate.clock.time(now_ms)?.moment()) {
            if visit(context, In::from_ref(&kt_account_info::new(&info))) != 0 {
                break;
            }
        }
        Ok(())
    })
}

/// Refuses all keys of an account from the next check on if `suspended` is not 0, else accepts them
/// again. The reason of such a refusal is `KT_REASON_SUSPENDED`.
///
/// Statuses: `KT_NO_SUCH_ACCOUNT`, `KT_BUSY`. For a file also those that `kt_gate_issue` lists for
/// a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_set_suspended(
    gate: Handle<kt_gate>,
    account: u32,
    suspended: u8,
) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        administer!(gate, |administrator| administrator.set_suspended(account, suspended != 0))
    })
}

/// Lets the team limits of another plan hold for an account, and ends limits of its own. Its keys
/// keep their plans. Counts are kept.
///
/// Statuses: `KT_NO_SUCH_ACCOUNT`, `KT_NO_SUCH_PLAN`, `KT_PLAN_NAME_FORM`, `KT_BUSY`. For a file
/// also those that `kt_gate_issue` lists for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_assign_account(
    gate: Handle<kt_gate>,
    account: u32,
    plan: In<c_char>,
    plan_len: usize,
) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        let plan = plan_name(plan, plan_len)?;
        administer!(gate, |administrator| administrator.assign_account(account, plan))
    })
}

/// Gives an account limits of its own instead of those of its plan. `quotas` are written as in the
/// section `team` of a plan, such as `5000/hour, 100000/day`, with the same windows. They count by
/// the algorithm of that section, and its warnings hold. Counts are kept.
///
/// Statuses: `KT_NO_SUCH_ACCOUNT`, those that begin with `KT_POLICY_`, `KT_ACCOUNT_LIMITS`,
/// `KT_PLAN_WINDOWS`, `KT_PLAN_LIMIT`, `KT_BUSY`. For a file also those that `kt_gate_issue` lists
/// for a file.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_limit_account(
    gate: Handle<kt_gate>,
    account: u32,
    quotas: In<c_char>,
    quotas_len: usize,
) -> kt_status {
    guard(|| {
        let gate = gate.state()?;
        let sections = sections(quotas, quotas_len)?;
        let is_plain = |section: &SectionQuotas<'_>| {
            *section.section() == Section::Key
                && section.algorithm() == Algorithm::Fixed
                && section.warnings().iter().flatten().all(|&percent| percent == 0)
        };
        if !sections.iter().all(|section| is_plain(&section)) {
            return Err(kt_status::KT_ACCOUNT_LIMITS);
        }
        let quotas = sections.iter().next().map_or(&[][..], |section| section.quotas());
        administer!(gate, |administrator| administrator.limit_account(account, quotas))
    })
}

/// Resets the counts that all keys of an account share. Those of each key are kept: see
/// `kt_gate_reset`.
///
/// The status is `KT_BUSY` if the counts are being moved to another file.
///
/// Statuses: `KT_NO_SUCH_ACCOUNT`, `KT_BUSY`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_reset_account(
    gate: Handle<kt_gate>,
    account: u32,
    now_ms: u64,
) -> kt_status {
    guard(|| {
        let outcome = gate.call(|gate, own| {
            Ok(with_call_clock!(own.time(now_ms)?, |clock| gate.reset_account(account, clock)))
        })?;
        match outcome.ok_or(kt_status::KT_NO_SUCH_ACCOUNT)? {
            Outcome::Unavailable => Err(kt_status::KT_BUSY),
            _ => Ok(()),
        }
    })
}
