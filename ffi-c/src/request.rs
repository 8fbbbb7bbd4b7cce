//! A request with options, and the names in it.

use core::ffi::c_char;

use keytally_core::{Counted, Feature, GatePart, MAX_TALLIES, Settlement};

use crate::pointers::{Growing, In, Lines, Number, Numbered, plain};
use crate::status::{FfiResult, kt_status};
use crate::text::utf8;
use crate::time::KT_SYSTEM_CLOCK;

/// The most tallies of a plan, and so the most groups of a request.
pub const KT_MAX_TALLIES: usize = 8;

const _: () = assert!(!Feature::Sections.is_included() || KT_MAX_TALLIES == MAX_TALLIES);

/// What a request in a fleet does if it lacks credits that the store may have. It has no effect
/// outside of a fleet: see `kt_gate_join` and `kt_limiter_join`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum kt_patience {
    /// It waits for the agent, at most 20 ms or what `kt_gate_set_credit_wait` sets.
    KT_PATIENCE_WAIT = 0,
    /// Its outcome is `KT_UNAVAILABLE`, with the unavailability `KT_UNAVAILABILITY_WAITING`, and
    /// the caller checks again after a millisecond.
    KT_PATIENCE_RETURN = 1,
    /// It is decided as after a wait without effect: by the choice of the agent's operator.
    KT_PATIENCE_DECIDE = 2,
}

impl Numbered for kt_patience {
    type Number = u32;
}

impl Number<kt_patience> {
    /// Returns the enumerator. For another number, the error is `KT_UNKNOWN_MEMBER`.
    pub(crate) fn patience(self) -> FfiResult<kt_patience> {
        match self.0 {
            0 => Ok(kt_patience::KT_PATIENCE_WAIT),
            1 => Ok(kt_patience::KT_PATIENCE_RETURN),
            2 => Ok(kt_patience::KT_PATIENCE_DECIDE),
            _ => Err(kt_status::KT_UNKNOWN_MEMBER),
        }
    }
}

#[cfg(feature = "host")]
impl kt_patience {
    /// Returns the value of the same name.
    pub(crate) const fn to_host(self) -> keytally::Patience {
        match self {
            Self::KT_PATIENCE_WAIT => keytally::Patience::Wait,
            Self::KT_PATIENCE_RETURN => keytally::Patience::Return,
            Self::KT_PATIENCE_DECIDE => keytally::Patience::Decide,
        }
    }
}

plain! {
    /// A name, such as that of a scope. This struct does not change.
    #[derive(Debug)]
    pub struct kt_name<'c> {
        /// The name.
        pub text: In<'c, c_char>,
        /// Its length.
        pub text_len: usize,
    }

    /// A group of a gate's plans, and its cost. This struct does not change.
    #[derive(Debug)]
    pub struct kt_group<'c> {
        /// The name of the group.
        pub name: In<'c, c_char>,
        /// The name's length.
        pub name_len: usize,
        /// The units of the group, for example the number of tokens. Without meaning if
        /// `has_own_cost` is 0.
        pub cost: u32,
        /// 0 if the group is charged the cost of the request, else 1.
        pub has_own_cost: u32,
    }

    /// A request with options, for `kt_gate_check_request` and `kt_limiter_check_request`. It may
    /// get more members; see "Structs" in the contract.
    ///
    /// ```c
    /// const kt_group groups[] = {{KT_TEXT("write"), 0, 0}, {KT_TEXT("tokens"), 2500, 1}};
    /// const kt_name need[] = {{KT_TEXT("write")}};
    /// kt_request request = {sizeof request, 1, KT_SYSTEM_CLOCK, groups, 2, need, 1, 0, 0};
    /// ```
    #[derive(Debug)]
    pub struct kt_request<'c> {
        /// `sizeof` this struct.
        pub size: u32,
        /// The units to charge. 0 is admitted and charges nothing.
        pub cost: u32,
        /// An explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`.
        pub now_ms: u64,
        /// The groups of the gate's plans that the request charges, too.
        pub groups: In<'c, kt_group<'c>>,
        /// The number of groups.
        pub groups_len: usize,
        /// The scopes that the key must have.
        pub need: In<'c, kt_name<'c>>,
        /// The number of scopes.
        pub need_len: usize,
        /// What the request does if it lacks credits of a fleet. If `size` ends before this member,
        /// it waits.
        pub patience: Number<kt_patience>,
        /// Zero.
        pub reserved_: u32,
    }

    /// What a request really cost, for `kt_gate_settle_all` and `kt_limiter_settle_all`. It may get
    /// more members; see "Structs" in the contract.
    ///
    /// ```c
    /// const kt_group groups[] = {{KT_TEXT("tokens"), 2310, 1}};
    /// kt_settlement settlement = {.size = sizeof settlement, .groups = groups, .groups_len = 1};
    /// ```
    #[derive(Debug)]
    pub struct kt_settlement<'c> {
        /// `sizeof` this struct.
        pub size: u32,
        /// The cost of the request itself. Without meaning if `has_cost` is 0.
        pub cost: u32,
        /// 0 if the estimate of the request's own cost was right, else 1.
        pub has_cost: u8,
        /// 1 if units for which there is no room are counted, too. The windows are then above their
        /// limits, and deny requests for longer. Else 0.
        pub overdraw: u8,
        /// Zeros.
        pub reserved_: [u8; 6],
        /// The costs of groups that were charged a cost of their own. A group that is left out, or
        /// whose `has_own_cost` is 0, keeps its estimate.
        pub groups: In<'c, kt_group<'c>>,
        /// The number of groups, at most `KT_MAX_TALLIES`.
        pub groups_len: usize,
    }
}

impl Growing for kt_settlement<'_> {
    const MIN_SIZE: usize = 16;
}

impl<'c> kt_settlement<'c> {
    /// Returns the settlement without its groups, and the groups.
    pub(crate) fn parts(&self) -> FfiResult<(Settlement<'c>, &'c [kt_group<'c>])> {
        if self.reserved_ != [0; 6] || self.has_cost > 1 || self.overdraw > 1 {
            return Err(kt_status::KT_UNKNOWN_MEMBER);
        }
        if self.groups_len > KT_MAX_TALLIES {
            return Err(kt_status::KT_NO_SUCH_GROUP);
        }
        let mut settlement = Settlement::new().with_overdraw(self.overdraw != 0);
        settlement.cost = (self.has_cost != 0).then_some(self.cost);
        Ok((settlement, self.groups.slice(self.groups_len)?))
    }
}

impl Growing for kt_request<'_> {
    const MIN_SIZE: usize = 16;
}

impl kt_request<'_> {
    /// Returns the request, or for NULL one of cost 1 by the system clock.
    pub(crate) fn or_default(request: In<'_, Self>) -> FfiResult<Self> {
        if request.is_null() {
            return Ok(Self {
                size: 16,
                cost: 1,
                now_ms: KT_SYSTEM_CLOCK,
                groups: In::NULL,
                groups_len: 0,
                need: In::NULL,
                need_len: 0,
                patience: Number(0),
                reserved_: 0,
            });
        }
        request.read_growing()
    }

    /// Returns what the request does if it lacks credits of a fleet.
    pub(crate) fn patience(&self) -> FfiResult<kt_patience> {
        if self.reserved_ != 0 {
            return Err(kt_status::KT_UNKNOWN_MEMBER);
        }
        self.patience.patience()
    }

    /// Checks that the request has neither groups nor scopes, which only a gate has.
    pub(crate) fn expect_plain(&self) -> FfiResult {
        expect_no_names(self.groups_len, self.need_len)
    }
}

/// Checks that a request or a part of one has neither groups nor scopes, which only a gate has.
pub(crate) fn expect_no_names(groups_len: usize, need_len: usize) -> FfiResult {
    match (groups_len, need_len) {
        (0, 0) => Ok(()),
        (0, _) => Err(kt_status::KT_NO_SUCH_SCOPE),
        _ => Err(kt_status::KT_NO_SUCH_GROUP),
    }
}

impl<'c> kt_group<'c> {
    /// Returns the name. A name that is not UTF-8 is not that of a group.
    pub(crate) fn name(&self) -> FfiResult<&'c str> {
        utf8(self.name.text(self.name_len)?, kt_status::KT_NO_SUCH_GROUP)
    }

    /// Returns the cost if the group has one of its own.
    pub(crate) fn own_cost(&self) -> FfiResult<Option<u32>> {
        match self.has_own_cost {
            0 => Ok(None),
            1 => Ok(Some(self.cost)),
            _ => Err(kt_status::KT_UNKNOWN_MEMBER),
        }
    }
}

impl<'c> kt_name<'c> {
    /// Returns the name of a scope. A name that is not UTF-8 is not that of a scope.
    pub(crate) fn scope(&self) -> FfiResult<&'c str> {
        utf8(self.text.text(self.text_len)?, kt_status::KT_NO_SUCH_SCOPE)
    }
}

/// Returns a key of a gate with the groups and scopes of a request.
pub(crate) fn gate_part<'g>(
    gate: Counted<'g, Lines>,
    api_key: Option<&'g [u8]>,
    cost: u32,
    groups: &[kt_group<'_>],
    need: &[kt_name<'_>],
) -> FfiResult<GatePart<'g, Lines>> {
    let mut part = gate.part(api_key, cost);
    for group in groups {
        let name = group.name()?;
        part = match group.own_cost()? {
            None => part.with_group(name)?,
            Some(cost) => part.with_group_cost(name, cost)?,
        };
    }
    for name in need {
        part = part.with_scope(name.scope()?)?;
    }
    Ok(part)
}
