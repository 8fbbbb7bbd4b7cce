//! Compound charges: several keys and subjects of one request, charged all or none.

use heapless::Vec;
#[cfg(feature = "host")]
use keytally_core::{Address, AddressLimiter, AddressPart};
use keytally_core::{
    Compound, Counted, GatePart, Limiter, LimiterPart, MAX_PARTS, Part, Reserve, check_all,
    peek_all,
};

use crate::gate::{GateState, GateTable, kt_gate};
use crate::guard::guard;
use crate::limiter::{LimiterState, kt_limiter};
use crate::limiter_table::LimiterTable;
#[cfg(feature = "host")]
use crate::limiter_table::address;
use crate::pointers::{Handle, In, Lines, Number, Out, plain};
use crate::request::{expect_no_names, gate_part, kt_group, kt_name, kt_patience, kt_request};
use crate::status::{FfiResult, kt_status};
use crate::tallies::{KT_MAX_PARTS, kt_compound};
use crate::time::{CallTime, Time, with_call_clock};

plain! {
    /// A key or a subject with a cost, for `kt_check_all`. This struct does not change.
    #[derive(Debug)]
    pub struct kt_part<'c> {
        /// The gate of the key; NULL for a subject.
        pub gate: Handle<'c, kt_gate>,
        /// The limiter of the subject; NULL for a key.
        pub limiter: Handle<'c, kt_limiter>,
        /// The key or the subject. NULL for a key that the request does not have.
        pub text: In<'c, u8>,
        /// The length of the text in bytes.
        pub text_len: usize,
        /// The units to charge. 0 is admitted and charges nothing.
        pub cost: u32,
        /// What the request does if it lacks credits of the gate's fleet. `KT_PATIENCE_WAIT` for a
        /// subject.
        pub patience: Number<kt_patience>,
        /// The groups of the gate's plans that the request charges, too. None for a subject.
        pub groups: In<'c, kt_group<'c>>,
        /// The number of groups.
        pub groups_len: usize,
        /// The scopes that the key must have. None for a subject.
        pub need: In<'c, kt_name<'c>>,
        /// The number of scopes.
        pub need_len: usize,
    }
}

/// The table of a part, and what is charged in it.
enum Table<'c> {
    Gate(&'c GateState, Option<&'c [u8]>, kt_patience),
    Limiter(&'c Limiter<Lines>, &'c [u8], Fleet<'c>),
    #[cfg(feature = "host")]
    Addresses(&'c AddressLimiter<Lines>, Address, Fleet<'c>),
}

/// What a limiter's part does in a fleet.
#[derive(Clone, Copy, Default)]
struct Fleet<'c> {
    reservation: Option<&'c dyn Reserve>,
    /// How many milliseconds the fleet's clock is ahead of the system clock.
    #[cfg(feature = "host")]
    offset_ms: i64,
}

impl<'c> Fleet<'c> {
    #[cfg(feature = "host")]
    fn of(limiter: &'c LimiterState, patience: kt_patience) -> Self {
        let (reservation, offset_ms) = (limiter.reservation(patience), limiter.clock_offset_ms());
        Self { reservation, offset_ms }
    }

    /// A limiter in memory is in no fleet.
    #[cfg(not(feature = "host"))]
    fn of(_: &'c LimiterState, _: kt_patience) -> Self {
        Self::default()
    }
}

impl<'c> Table<'c> {
    fn of(part: &kt_part<'c>) -> FfiResult<Self> {
        match (part.gate.is_null(), part.limiter.is_null()) {
            (false, true) => {
                let (state, patience) = (part.gate.state()?, part.patience.patience()?);
                Ok(Self::Gate(state, part.text.optional(part.text_len)?, patience))
            }
            (true, false) => {
                expect_no_names(part.groups_len, part.need_len)?;
                let (limiter, text) = (part.limiter.state()?, part.text.slice(part.text_len)?);
                let fleet = Fleet::of(limiter, part.patience.patience()?);
                match &limiter.table {
                    LimiterTable::Subjects(table) => Ok(Self::Limiter(table, text, fleet)),
                    #[cfg(feature = "host")]
                    LimiterTable::Addresses(table) => {
                        Ok(Self::Addresses(table, address(text)?, fleet))
                    }
                }
            }
            _ => Err(kt_status::KT_PART_TABLE),
        }
    }
}

#[cfg(feature = "host")]
impl Table<'_> {
    /// Returns how many milliseconds the clock of a limiter's fleet is ahead of the system clock.
    fn offset_ms(&self) -> i64 {
        match self {
            Self::Gate(..) => 0,
            Self::Limiter(_, _, fleet) | Self::Addresses(_, _, fleet) => fleet.offset_ms,
        }
    }
}

/// A part as core takes it.
enum Charged<'t> {
    Key(GatePart<'t, Lines>),
    Subject(LimiterPart<'t, Lines>),
    #[cfg(feature = "host")]
    Address(AddressPart<'t, Lines>),
}

/// Checks several keys and subjects of one request, and charges all or none.
///
/// If a key is invalid or a window lacks room, nothing is charged. If another request spends the
/// room while this one is charged, charges made before are given back, and may deny other requests
/// meanwhile. Do not reset the counts of these tallies while requests are checked. `count` is 1 to
/// `KT_MAX_PARTS`. `now_ms` means what it means to the handle of the first part.
///
/// A gate or limiter in a fleet spends credits of all its tallies. `patience` of its part is what
/// the request does if it lacks some; several such parts may wait one after another. All charges
/// and credits are given back if one refuses. See `kt_gate_join` and `kt_limiter_join`.
///
/// A key charges a tally for each section of its plan: the key's own, its team's, and those of the
/// groups in the part. A plan with many windows takes several tallies for a section. An address
/// charges one for each prefix of its limiter's policy. All parts together have at most
/// `KT_MAX_PARTS` tallies.
///
/// Statuses: `KT_PART_COUNT`, `KT_PART_TABLE`, `KT_NOT_AN_ADDRESS`, `KT_NO_SUCH_GROUP`,
/// `KT_NO_SUCH_SCOPE`, `KT_UNKNOWN_MEMBER`, `KT_NO_CLOCK`.
///
/// ```c
/// const kt_part parts[] = {
///     {.gate = gate, .text = api_key, .text_len = api_key_len, .cost = 1},
///     {.limiter = addresses, .text = address, .text_len = address_len, .cost = 1}};
/// kt_compound compound;
/// if (kt_check_all(parts, 2, KT_SYSTEM_CLOCK, &compound) == KT_OK
///     && compound.outcome != KT_ADMITTED)
///     return respond(compound.http_status, kt_compound_body(&compound));
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_check_all(
    parts: In<kt_part>,
    count: usize,
    now_ms: u64,
    compound_out: Out<kt_compound>,
) -> kt_status {
    guard(|| charge_all(parts, count, now_ms, true, compound_out))
}

/// Writes what `kt_check_all` would write now, without a charge.
///
/// Statuses: those of `kt_check_all`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_peek_all(
    parts: In<kt_part>,
    count: usize,
    now_ms: u64,
    compound_out: Out<kt_compound>,
) -> kt_status {
    guard(|| charge_all(parts, count, now_ms, false, compound_out))
}

/// Checks all parts, and charges them if `charge` is set.
fn charge_all<'c>(
    parts: In<'c, kt_part<'c>>,
    count: usize,
    now_ms: u64,
    charge: bool,
    compound_out: Out<'_, kt_compound>,
) -> FfiResult {
    if !(1..=KT_MAX_PARTS).contains(&count) {
        return Err(kt_status::KT_PART_COUNT);
    }
    let (parts, target) = (parts.slice(count)?, compound_out.target()?);
    let mut tables = Vec::<Table<'_>, MAX_PARTS>::new();
    for part in parts {
        // There is room for all of them.
        let _ = tables.push(Table::of(part)?);
    }
    let time = match tables.first() {
        Some(Table::Gate(gate, ..)) => gate.clock.time(now_ms)?,
        _ => parts
            .first()
            .map_or_else(|| Time::new(now_ms), |part| part.limiter.state()?.clock.time(now_ms))?,
    };
    let gate_of = |table: &Table<'c>| match table {
        Table::Gate(state, _, patience) => Some((&state.table, *patience)),
        _ => None,
    };
    let gates: Vec<_, MAX_PARTS> = tables.iter().map(gate_of).collect();
    let compound = call_all(&gates, time, |gates, time| {
        #[cfg(feature = "host")]
        let time = time.or_ahead(tables.iter().map(Table::offset_ms).find(|&it| it != 0));
        charge_now(&tables, gates, parts, charge, time)
    })?;
    target.put_compound(&compound);
    Ok(())
}

/// Checks all parts with the tables of their gates that are in force.
fn charge_now(
    tables: &[Table<'_>],
    gates: &[Option<Counted<'_, Lines>>],
    parts: &[kt_part<'_>],
    charge: bool,
    time: CallTime,
) -> FfiResult<Compound> {
    let mut charged = Vec::<Charged<'_>, MAX_PARTS>::new();
    for ((table, gate), part) in tables.iter().zip(gates).zip(parts) {
        let _ = charged.push(match table {
            Table::Gate(_, api_key, _) => {
                let groups = part.groups.slice(part.groups_len)?;
                let need = part.need.slice(part.need_len)?;
                let gate = gate.ok_or(kt_status::KT_INTERNAL)?;
                Charged::Key(gate_part(gate, *api_key, part.cost, groups, need)?)
            }
            Table::Limiter(limiter, subject, fleet) => {
                let part = limiter.part(subject, part.cost);
                Charged::Subject(part.with_reservation(fleet.reservation))
            }
            #[cfg(feature = "host")]
            Table::Addresses(limiter, address, fleet) => {
                let part = limiter.part(*address, part.cost);
                Charged::Address(part.with_reservation(fleet.reservation))
            }
        });
    }
    let compound = with_call_clock!(time, |clock| {
        let mut list = Vec::<&dyn Part<_>, MAX_PARTS>::new();
        for part in &charged {
            let _ = list.push(match part {
                Charged::Key(part) => part,
                Charged::Subject(part) => part,
                #[cfg(feature = "host")]
                Charged::Address(part) => part,
            });
        }
        if charge { check_all(&list, clock) } else { peek_all(&list, clock) }
    })?;
    Ok(compound)
}

/// A gate of a part, and what its request does that lacks credits of a fleet.
type PartGate<'c> = (&'c GateTable, kt_patience);

/// Calls `work` with the tables in force of these gates, of which each part has one or none, and
/// with the time by the clock of their fleet. If the counts of a key are moving to another file,
/// calls it again with that one.
#[cfg(feature = "host")]
fn call_all<R: keytally::Decided>(
    gates: &[Option<PartGate<'_>>],
    time: Time,
    mut work: impl FnMut(&[Option<Counted<'_, Lines>>], CallTime) -> FfiResult<R>,
) -> FfiResult<R> {
    let followed: Vec<_, MAX_PARTS> = gates
        .iter()
        .map(|gate| match gate {
            Some((GateTable::File(file), _)) => Some(file),
            _ => None,
        })
        .collect();
    keytally::Followed::call_all(&followed, |current| {
        let mut current = current.iter();
        let mut offset_ms = 0;
        let in_force: Vec<_, MAX_PARTS> = gates
            .iter()
            .map(|gate| match gate {
                Some((GateTable::Memory(table), _)) => Some(table.counted(None)),
                Some((GateTable::File(_), patience)) => {
                    let (counted, its_ms) = current.next()?.counted(*patience);
                    offset_ms = if offset_ms == 0 { its_ms } else { offset_ms };
                    Some(counted)
                }
                None => None,
            })
            .collect();
        work(&in_force, CallTime::ahead(time, offset_ms))
    })
}

/// Calls `work` with the tables in force of these gates, of which each part has one or none.
#[cfg(not(feature = "host"))]
fn call_all<R>(
    gates: &[Option<PartGate<'_>>],
    time: Time,
    work: impl FnOnce(&[Option<Counted<'_, Lines>>], CallTime) -> FfiResult<R>,
) -> FfiResult<R> {
    let in_force: Vec<_, MAX_PARTS> = gates
        .iter()
        .map(|gate| gate.map(|(GateTable::Memory(table), _)| table.counted(None)))
        .collect();
    work(&in_force, CallTime { time })
}

/// Checks a key like `kt_gate_check`, with the options of a request: the groups that it charges and
/// the scopes that it needs. A NULL `request` has a cost of 1 and the time of the system clock.
///
/// Each section of the key's plan has a tally: the key's own, its team's, and those of the groups.
/// All are charged, or none. If the key lacks a scope, the outcome is `KT_FORBIDDEN`.
///
/// Statuses: `KT_NO_SUCH_GROUP`, `KT_NO_SUCH_SCOPE`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`,
/// `KT_NO_CLOCK`.
///
/// ```c
/// const kt_group groups[] = {{KT_TEXT("write"), 0, 0}};
/// kt_request request = {sizeof request, 1, KT_SYSTEM_CLOCK, groups, 1, NULL, 0, 0, 0};
/// kt_compound compound;
/// if (kt_gate_check_request(gate, api_key, api_key_len, &request, &compound) == KT_OK
///     && compound.outcome != KT_ADMITTED)
///     return respond(compound.http_status, kt_compound_body(&compound));
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_check_request(
    gate: Handle<kt_gate>,
    api_key: In<u8>,
    api_key_len: usize,
    request: In<kt_request>,
    compound_out: Out<kt_compound>,
) -> kt_status {
    guard(|| check_request(gate, api_key.optional(api_key_len), request, true, compound_out))
}

/// Writes what `kt_gate_check_request` would write now, without a charge.
///
/// Statuses: those of `kt_gate_check_request`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_peek_request(
    gate: Handle<kt_gate>,
    api_key: In<u8>,
    api_key_len: usize,
    request: In<kt_request>,
    compound_out: Out<kt_compound>,
) -> kt_status {
    guard(|| check_request(gate, api_key.optional(api_key_len), request, false, compound_out))
}

/// Checks a key with the options of a request, and charges it if `charge` is set.
fn check_request(
    gate: Handle<'_, kt_gate>,
    api_key: FfiResult<Option<&[u8]>>,
    request: In<'_, kt_request<'_>>,
    charge: bool,
    compound_out: Out<'_, kt_compound>,
) -> FfiResult {
    let target = compound_out.target()?;
    let (api_key, request) = (api_key?, kt_request::or_default(request)?);
    let groups = request.groups.slice(request.groups_len)?;
    let need = request.need.slice(request.need_len)?;
    let patience = request.patience()?;
    let compound: Compound = gate.call_with(patience, |gate, own| {
        let time = own.time(request.now_ms)?;
        let part = gate_part(gate, api_key, request.cost, groups, need)?;
        Ok(with_call_clock!(time, |clock| if charge {
            part.check(clock)
        } else {
            part.peek(clock)
        }))
    })?;
    target.put_compound(&compound);
    Ok(())
}
