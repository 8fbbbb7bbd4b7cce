//! The gate: a table of issued keys with their tallies. Verify, then charge.

use core::ffi::c_char;

use keytally_core::MAX_KEYS;
use keytally_core::{Gate, GateConfig, Name, Peppers, Plan};

use crate::charge::kt_charge;
use crate::guard::guard;
use crate::key::{checked_key_id, name};
use crate::limiter::{KT_HANDLE_ALIGN, KT_TABLE_ALIGN, table_lines};
use crate::pointers::{Growing, Handle, Held, In, Lines, Memory, Out, plain};
use crate::policy::sections;
use crate::request::kt_request;
use crate::status::{FfiResult, kt_status};
use crate::text::utf8;
use crate::time::{HandleClock, with_clock};
use crate::verdict::kt_verdict;

/// Bytes of a gate's handle.
pub const KT_GATE_HANDLE_SIZE: usize = 3072;

/// The most keys of a gate.
pub const KT_MAX_KEYS: u32 = 67108864;

/// The plans that a gate in the caller's memory has room for. There are few, because two of them
/// take as much memory as a key, and a microcontroller may have only a few KiB.
pub const KT_GATE_PLAN_SLOTS: usize = 4;

/// The most peppers of a gate at a time.
pub const KT_MAX_PEPPERS: usize = 4;

const _: () = {
    assert!(
        size_of::<kt_gate>() == KT_GATE_HANDLE_SIZE && align_of::<kt_gate>() == KT_HANDLE_ALIGN
    );
    assert!(KT_MAX_KEYS == MAX_KEYS);
    assert!(KT_MAX_PEPPERS == keytally_core::MAX_PEPPERS);
};

/// A handle of a gate in one process, with the server's peppers, which are never in the table.
///
/// Declare one in addition to the table's memory and give it to `kt_gate_init` or `kt_gate_attach`,
/// or get a pointer to one from `kt_gate_open`. Do not move or copy it while it is in use. Its
/// content is private.
#[derive(Debug)]
#[repr(C)]
pub struct kt_gate {
    private_: [u64; 384],
}

/// The content of a gate's handle.
#[derive(Debug)]
pub struct GateState {
    pub(crate) table: GateTable,
    pub(crate) clock: HandleClock,
}

/// Where a gate is stored.
#[cfg_attr(
    feature = "host",
    expect(
        clippy::large_enum_variant,
        reason = "it is part of the caller's handle, so nothing is allocated"
    )
)]
#[derive(Debug)]
pub enum GateTable {
    /// A table in the caller's memory.
    Memory(Gate<Lines>),
    /// A table in a file, which may be replaced by another while the handle is used.
    #[cfg(feature = "host")]
    File(keytally::Followed<FileGate>),
}

/// A table in a file. The lines are the file's, which is unmapped after the table is dropped.
#[cfg(feature = "host")]
#[derive(Debug)]
pub struct FileGate {
    pub(crate) table: Gate<Lines>,
    pub(crate) file: keytally::Gate,
}

#[cfg(feature = "host")]
impl AsRef<keytally::Gate> for FileGate {
    fn as_ref(&self) -> &keytally::Gate {
        &self.file
    }
}

impl Held for kt_gate {
    type State = GateState;
    const MAGIC: u64 = u64::from_le_bytes(*b"ktgates\x03");
}

/// The table that a call uses from its begin to its end, with the handle's clock.
pub(crate) struct InForce<'c> {
    pub(crate) clock: &'c HandleClock,
    table: TableInForce<'c>,
}

enum TableInForce<'c> {
    Memory(&'c Gate<Lines>),
    #[cfg(feature = "host")]
    File(keytally::Current<FileGate>),
}

impl<'c> Handle<'c, kt_gate> {
    /// Returns the table that this handle uses now.
    #[inline]
    pub(crate) fn in_force(self) -> FfiResult<InForce<'c>> {
        let state = self.state()?;
        let table = match &state.table {
            GateTable::Memory(table) => TableInForce::Memory(table),
            #[cfg(feature = "host")]
            GateTable::File(file) => TableInForce::File(file.load()),
        };
        Ok(InForce { clock: &state.clock, table })
    }

    /// Returns the table for a change to its keys or plans. If another file replaced the gate's,
    /// this is the table of the new file.
    pub(crate) fn in_place(self) -> FfiResult<InForce<'c>> {
        let state = self.state()?;
        let table = match &state.table {
            GateTable::Memory(table) => TableInForce::Memory(table),
            #[cfg(feature = "host")]
            GateTable::File(file) => TableInForce::File(file.load_for_change()?),
        };
        Ok(InForce { clock: &state.clock, table })
    }
}

impl core::ops::Deref for InForce<'_> {
    type Target = Gate<Lines>;

    #[inline]
    fn deref(&self) -> &Gate<Lines> {
        match &self.table {
            TableInForce::Memory(table) => table,
            #[cfg(feature = "host")]
            TableInForce::File(file) => &file.table,
        }
    }
}

impl InForce<'_> {
    /// Returns the file, whose lock lets one administrator in at a time.
    #[cfg(feature = "host")]
    pub(crate) fn file(&self) -> Option<&keytally::Gate> {
        match &self.table {
            TableInForce::Memory(_) => None,
            TableInForce::File(file) => Some(&file.file),
        }
    }

    /// Returns `None`: there are no files.
    #[cfg(not(feature = "host"))]
    pub(crate) fn file(&self) -> Option<core::convert::Infallible> {
        None
    }
}

/// Returns the state of a handle of a table in the caller's memory.
fn in_memory(table: Gate<Lines>) -> GateState {
    GateState { table: GateTable::Memory(table), clock: HandleClock::default() }
}

plain! {
    /// Bytes, such as a pepper. This struct does not change.
    #[derive(Debug)]
    pub struct kt_bytes<'c> {
        /// The first byte.
        pub data: In<'c, u8>,
        /// The number of bytes.
        pub len: usize,
    }

    /// A plan: a named policy. This struct does not change.
    #[derive(Debug)]
    pub struct kt_plan<'c> {
        /// The name: 1 to 16 characters of a-z, 0-9, - and _.
        pub name: In<'c, c_char>,
        /// The name's length.
        pub name_len: usize,
        /// The policy, such as `100/minute, 1000/hour`.
        pub policy: In<'c, c_char>,
        /// The policy's length.
        pub policy_len: usize,
    }

    /// The configuration of a new gate. It may get more members; see "Structs" in the contract.
    #[derive(Debug)]
    pub struct kt_gate_config<'c> {
        /// `sizeof` this struct.
        pub size: u32,
        /// The most keys, 1 to `KT_MAX_KEYS`.
        pub keys: u32,
        /// The plans. The first is for keys that name none. All have the same windows and
        /// algorithm.
        pub plans: In<'c, kt_plan<'c>>,
        /// The number of plans, at least 1. At most `KT_GATE_PLAN_SLOTS` in the caller's memory,
        /// and 116 in a file.
        pub plans_len: usize,
        /// The text that each key begins with: 1 to 8 characters of a-z and 0-9.
        pub prefix: In<'c, c_char>,
        /// The prefix's length.
        pub prefix_len: usize,
    }
}

impl Growing for kt_gate_config<'_> {
    const MIN_SIZE: usize = size_of::<kt_gate_config<'_>>();
}

impl<'c> kt_gate_config<'c> {
    /// Parses the plans one after another.
    pub(crate) fn plans(&self) -> FfiResult<impl Iterator<Item = FfiResult<Plan>> + use<'c>> {
        Ok(self.plans.slice(self.plans_len)?.iter().map(|plan| self::plan(plan)))
    }

    pub(crate) fn prefix(&self) -> FfiResult<Name> {
        name(self.prefix, self.prefix_len)
    }
}

/// Parses a plan.
pub(crate) fn plan(plan: &kt_plan<'_>) -> FfiResult<Plan> {
    let sections = sections(plan.policy, plan.policy_len)?;
    Plan::new(plan_name(plan.name, plan.name_len)?, sections).ok_or(kt_status::KT_PLAN_NAME_FORM)
}

pub(crate) fn plan_name<'c>(text: In<'c, c_char>, len: usize) -> FfiResult<&'c str> {
    utf8(text.text(len)?, kt_status::KT_PLAN_NAME_FORM)
}

/// Returns the peppers in these bytes.
fn peppers(list: In<'_, kt_bytes<'_>>, len: usize) -> FfiResult<Peppers> {
    if !(1..=KT_MAX_PEPPERS).contains(&len) {
        return Err(kt_status::KT_PEPPER_COUNT);
    }
    let list = list.slice(len)?;
    for pepper in list {
        pepper.data.slice(pepper.len)?;
    }
    Ok(Peppers::new(list)?)
}

/// The bytes; none if the pointer is not valid.
impl AsRef<[u8]> for kt_bytes<'_> {
    fn as_ref(&self) -> &[u8] {
        self.data.slice(self.len).unwrap_or_default()
    }
}

/// Returns the configuration of a gate in the caller's memory: no last characters of keys, and a
/// fixed number of plan slots.
const fn shape(keys: u32, prefix: Name, plans: &[Plan]) -> GateConfig<'_> {
    GateConfig::new(keys, prefix, plans).with_plan_slots(KT_GATE_PLAN_SLOTS)
}

/// Returns the bytes of memory that a gate for `keys` keys needs. Returns 0 if `keys` is not 1 to
/// `KT_MAX_KEYS`. The macro `KT_GATE_SIZE` gives the same as a constant.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_size(keys: u32) -> usize {
    match Name::new("kt") {
        Some(prefix) if (1..=KT_MAX_KEYS).contains(&keys) => {
            shape(keys, prefix, &[]).lines().checked_mul(KT_TABLE_ALIGN).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Returns the bytes of a gate's handle in this library, which is `KT_GATE_HANDLE_SIZE` of its
/// header.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_handle_size() -> usize {
    KT_GATE_HANDLE_SIZE
}

/// Creates a gate in memory that is not in use.
///
/// `memory` is at least `kt_gate_size(config->keys)` bytes at a multiple of 64. Until the handle is
/// closed the memory must not move and must not be used for anything else. `peppers` are the
/// server's secrets as bytes, at least 32 random bytes each, newest last: new keys use the newest.
/// Of all pointers, only `memory` is retained.
///
/// Statuses: `KT_CAPACITY`, `KT_MEMORY_TOO_SMALL`, `KT_OVERLAP`, `KT_NAME_FORM` for the prefix,
/// `KT_PLAN_COUNT`, `KT_PLAN_NAME_FORM`, `KT_PLAN_TWICE`, `KT_PLAN_WINDOWS`, those that begin with
/// `KT_POLICY_`, `KT_PEPPER_COUNT`, `KT_PEPPER_TOO_SHORT`, `KT_PEPPER_TWICE`, `KT_STRUCT_SIZE`,
/// `KT_UNKNOWN_MEMBER`.
///
/// ```c
/// static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_GATE_SIZE(64)];
/// kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
/// kt_gate_config config = {sizeof config, 64, &plan, 1, KT_TEXT("kt")};
/// kt_bytes pepper = {secret, sizeof secret};
/// kt_gate gate;
/// kt_status status = kt_gate_init(memory, sizeof memory, &config, &pepper, 1, &gate);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_init(
    memory: Memory,
    memory_len: usize,
    config: In<kt_gate_config>,
    peppers: In<kt_bytes>,
    peppers_len: usize,
    gate_out: Out<kt_gate>,
) -> kt_status {
    guard(|| {
        let memory = memory.lines(memory_len, &gate_out)?;
        let target = gate_out.target()?;
        let config = config.read_growing()?;
        let mut plans = heapless::Vec::<Plan, KT_GATE_PLAN_SLOTS>::new();
        for plan in config.plans()? {
            plans.push(plan?).map_err(|_| kt_status::KT_PLAN_COUNT)?;
        }
        let shape = shape(config.keys, config.prefix()?, &plans);
        let peppers = self::peppers(peppers, peppers_len)?;
        if kt_gate_size(config.keys) == 0 {
            return Err(kt_status::KT_CAPACITY);
        }
        target.put(in_memory(Gate::init(memory.first(shape.lines()), &shape, peppers)?));
        Ok(())
    })
}

/// Opens a gate that this process, or another that shares the memory, created there. The memory may
/// have another address here, and `memory_len` may be larger than the gate. One of the peppers must
/// be the gate's.
///
/// Statuses: `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`,
/// `KT_DAMAGED`, `KT_OVERLAP`, `KT_WRONG_PEPPER`, `KT_PEPPER_COUNT`, `KT_PEPPER_TOO_SHORT`,
/// `KT_PEPPER_TWICE`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_attach(
    memory: Memory,
    memory_len: usize,
    peppers: In<kt_bytes>,
    peppers_len: usize,
    gate_out: Out<kt_gate>,
) -> kt_status {
    guard(|| {
        let memory = memory.lines(memory_len, &gate_out)?;
        let target = gate_out.target()?;
        let peppers = self::peppers(peppers, peppers_len)?;
        target.put(in_memory(Gate::attach(table_lines(memory), peppers)?));
        Ok(())
    })
}

/// Closes a handle in a struct of the caller, or one that belongs to this library: wipes it and its
/// peppers, unmaps its file, and frees it if this library allocated it. The table itself remains.
///
/// No other call may use the handle during this call or after it. Does nothing for NULL and for
/// memory that is not a handle.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_close(gate: Handle<kt_gate>) {
    let _ = guard(|| {
        gate.close();
        Ok(())
    });
}

/// Checks a key, then charges `cost` to each window of its plan if all have room for it, else to
/// none. Only a valid key is charged.
///
/// `api_key` is the value of the `X-API-Key` header: `api_key_len` bytes without a NUL, or NULL if
/// the request has no such header. If it has more than one, call `kt_verdict_duplicate_header`
/// instead. `now_ms` is an explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`. Any thread may
/// call it at any time; see the contract.
///
/// `KT_OK` means that there is a verdict. Its `outcome` is `KT_ADMITTED`, `KT_DENIED`,
/// `KT_TOO_COSTLY`, `KT_MISSING_KEY` or `KT_INVALID_KEY`.
///
/// Statuses: `KT_NO_CLOCK`.
///
/// ```c
/// kt_verdict verdict;
/// if (kt_gate_check(gate, api_key, api_key_len, 1, KT_SYSTEM_CLOCK, &verdict) == KT_OK
///     && verdict.outcome != KT_ADMITTED)
///     return respond(verdict.http_status, kt_verdict_body(&verdict));
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_check(
    gate: Handle<kt_gate>,
    api_key: In<u8>,
    api_key_len: usize,
    cost: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, verdict_out.target()?);
        let api_key = api_key.optional(api_key_len)?;
        with_clock!(gate.clock.time(now_ms)?, gate.layout(), |clock| {
            target.put_verdict(&gate.check(api_key, cost, clock));
        });
        Ok(())
    })
}

/// Checks like `kt_gate_check`, with the options of a request. A NULL `request` has a cost of 1 and
/// the time of the system clock.
///
/// Statuses: `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_check_request(
    gate: Handle<kt_gate>,
    api_key: In<u8>,
    api_key_len: usize,
    request: In<kt_request>,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, verdict_out.target()?);
        let api_key = api_key.optional(api_key_len)?;
        let request = kt_request::or_default(request)?;
        with_clock!(gate.clock.time(request.now_ms)?, gate.layout(), |clock| {
            target.put_verdict(&gate.check(api_key, request.cost, clock));
        });
        Ok(())
    })
}

/// Writes the verdict that `kt_gate_check` would give now, without a charge.
///
/// Statuses: `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_peek(
    gate: Handle<kt_gate>,
    api_key: In<u8>,
    api_key_len: usize,
    cost: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, verdict_out.target()?);
        let api_key = api_key.optional(api_key_len)?;
        with_clock!(gate.clock.time(now_ms)?, gate.layout(), |clock| {
            target.put_verdict(&gate.peek(api_key, cost, clock));
        });
        Ok(())
    })
}

/// Gives back what a check charged, in the windows that still count it. `key_id` and `charge` are
/// those of the check's verdict. Refund a charge only once.
///
/// Statuses: `KT_NOT_A_CHARGE`, `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_refund(
    gate: Handle<kt_gate>,
    key_id: u64,
    charge: In<kt_charge>,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, verdict_out.target()?);
        let (key_id, charge) = (checked_key_id(key_id)?, charge.read()?.to_core()?);
        let verdict =
            with_clock!(gate.clock.time(now_ms)?, |clock| gate.refund(key_id, charge, clock));
        target.put_verdict(&verdict.ok_or(kt_status::KT_NO_SUCH_KEY)?);
        Ok(())
    })
}

/// Replaces an estimated cost by the actual cost: refunds the difference, or charges it as far as
/// there is room. The verdict's `uncharged` is what found no room. Settle a charge only once.
///
/// Statuses: `KT_NOT_A_CHARGE`, `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_settle(
    gate: Handle<kt_gate>,
    key_id: u64,
    estimate: In<kt_charge>,
    actual: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, verdict_out.target()?);
        let (key_id, estimate) = (checked_key_id(key_id)?, estimate.read()?.to_core()?);
        let verdict = with_clock!(gate.clock.time(now_ms)?, |clock| gate
            .settle(key_id, estimate, actual, clock));
        target.put_verdict(&verdict.ok_or(kt_status::KT_NO_SUCH_KEY)?);
        Ok(())
    })
}

/// Resets all counts of the key.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_reset(
    gate: Handle<kt_gate>,
    key_id: u64,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (gate, target) = (gate.in_force()?, verdict_out.target()?);
        let key_id = checked_key_id(key_id)?;
        let verdict = with_clock!(gate.clock.time(now_ms)?, |clock| gate.reset(key_id, clock));
        target.put_verdict(&verdict.ok_or(kt_status::KT_NO_SUCH_KEY)?);
        Ok(())
    })
}
