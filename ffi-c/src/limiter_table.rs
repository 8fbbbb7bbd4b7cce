//! The table of a limiter's handle: of any subjects, or of client addresses.
//!
//! Limits by address need the host build: such a table is larger than a handle.

#[cfg(feature = "host")]
use keytally_core::{Address, AddressLimiter, AttachError, TableKind};
use keytally_core::{CACHE_LINE_LEN, CacheLine, Compound, Limiter, OnFull, Timestamp, Verdict};

use crate::pointers::{Lines, Target};
use crate::policy::LimiterPolicy;
use crate::status::FfiResult;
#[cfg(feature = "host")]
use crate::status::kt_status;
use crate::verdict::kt_verdict;

/// The table of a limiter's handle.
#[derive(Debug)]
#[cfg_attr(
    feature = "host",
    expect(clippy::large_enum_variant, reason = "a check of a subject needs no indirection")
)]
pub(crate) enum LimiterTable {
    Subjects(Limiter<Lines>),
    #[cfg(feature = "host")]
    Addresses(Box<AddressLimiter<Lines>>),
}

/// Evaluates `$work` for the table of a limiter, whichever it is.
macro_rules! with_table {
    ($table:expr, |$each:ident| $work:expr) => {
        match &$table {
            LimiterTable::Subjects($each) => $work,
            #[cfg(feature = "host")]
            LimiterTable::Addresses($each) => $work,
        }
    };
}

/// Evaluates `$work` with the table and the subject or address in these bytes. In a fleet, the
/// table's methods reserve what they charge, and `$patience` is what a request does that lacks
/// credits.
macro_rules! with_subject {
    ($limiter:expr, $patience:expr, $bytes:expr, |$each:ident, $named:ident| $work:expr) => {{
        #[cfg(feature = "host")]
        let reservation = $limiter.reservation($patience);
        #[cfg(not(feature = "host"))]
        let _ = $patience;
        match &$limiter.table {
            $crate::limiter_table::LimiterTable::Subjects($each) => {
                #[cfg(feature = "host")]
                let $each = $each.reserving(reservation);
                let $named = $bytes;
                $work
            }
            #[cfg(feature = "host")]
            $crate::limiter_table::LimiterTable::Addresses($each) => {
                let $each = $each.reserving(reservation);
                let $named = $crate::limiter_table::address($bytes)?;
                $work
            }
        }
    }};
}

pub(crate) use {with_subject, with_table};

/// Parses the address of a client.
#[cfg(feature = "host")]
pub(crate) fn address(bytes: &[u8]) -> FfiResult<Address> {
    let text = core::str::from_utf8(bytes).ok();
    text.and_then(Address::parse).ok_or(kt_status::KT_NOT_AN_ADDRESS)
}

impl LimiterTable {
    /// Creates a table.
    pub(crate) fn init(
        memory: Lines,
        policy: &LimiterPolicy,
        capacity: u32,
        seed: [u8; 16],
    ) -> FfiResult<Self> {
        match policy {
            LimiterPolicy::Subjects(policy) => {
                let memory = memory.first(Limiter::<Lines>::lines(capacity));
                Ok(Self::Subjects(Limiter::init(memory, policy, capacity, seed)?))
            }
            #[cfg(feature = "host")]
            LimiterPolicy::Addresses(policy) => {
                let memory = memory.first(AddressLimiter::<Lines>::lines(capacity));
                Ok(Self::Addresses(Box::new(AddressLimiter::init(memory, policy, capacity, seed)?)))
            }
        }
    }

    /// Opens a table, for which `memory` returns the lines.
    pub(crate) fn attach(memory: impl Fn() -> Lines) -> FfiResult<Self> {
        match Limiter::attach(memory()) {
            #[cfg(feature = "host")]
            Err(AttachError::Kind { found: TableKind::AddressLimiter, .. }) => {
                Ok(Self::Addresses(Box::new(AddressLimiter::attach(memory())?)))
            }
            attached => Ok(Self::Subjects(attached?)),
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        with_table!(*self, |table| table.capacity())
    }

    pub(crate) fn slots_total(&self) -> u64 {
        with_table!(*self, |table| table.slots_total())
    }

    pub(crate) fn refusals(&self) -> u64 {
        with_table!(*self, |table| table.refusals())
    }

    pub(crate) fn on_full(&self) -> OnFull {
        with_table!(*self, |table| table.on_full())
    }

    pub(crate) fn set_on_full(&self, on_full: OnFull) {
        with_table!(*self, |table| table.set_on_full(on_full));
    }

    pub(crate) fn live_subjects(&self, now: Timestamp) -> u64 {
        with_table!(*self, |table| table.live_subjects(now))
    }
}

/// Returns the lines that belong to the table, by its own header. The memory may be larger.
pub(crate) fn table_lines(memory: Lines) -> Lines {
    let bytes = memory.as_ref().first().map_or(0, |line: &CacheLine| line.load(2));
    // The core refuses a length that is not valid.
    match usize::try_from(bytes) {
        Ok(bytes) if bytes > 0 && bytes.is_multiple_of(CACHE_LINE_LEN) => {
            memory.first(bytes / CACHE_LINE_LEN)
        }
        _ => memory,
    }
}

/// What a limiter decided.
pub(crate) trait Decided {
    /// Writes it as a verdict.
    fn put(&self, target: Target<'_, kt_verdict>);
}

impl Decided for Verdict {
    #[inline(always)]
    fn put(&self, mut target: Target<'_, kt_verdict>) {
        target.put_verdict(self);
    }
}

/// The verdict that decided has the charge of one network only, so it is written without it.
impl Decided for Compound {
    fn put(&self, mut target: Target<'_, kt_verdict>) {
        target.put_verdict(&self.decisive().without_charge());
    }
}
