//! The gate: a table of issued keys with their tallies. Verify, then charge.

use core::ffi::c_char;

use keytally_core::MAX_KEYS;
use keytally_core::{Gate, GateConfig, Name, Peppers, Plan};

use crate::clock::{HandleClock, with_clock};
use crate::guard::{Outcome, guard};
use crate::key::{key_id, name};
use crate::limiter::{KT_HANDLE_ALIGN, KT_TABLE_ALIGN, told};
use crate::pointers::{Handle, Held, In, Lines, Memory, Out};
use crate::policy::policy;
use crate::status::kt_status;
use crate::text::utf8;
use crate::verdict::{kt_charge, kt_verdict};

/// Bytes of a gate's handle.
pub const KT_GATE_HANDLE_SIZE: usize = 1024;

/// The most keys of a gate.
pub const KT_MAX_KEYS: u32 = 67108864;

/// How many plans a gate in memory of the caller's has room for: few, since two of them take as much as a key, and a
/// microcontroller may have no more than a few KiB for all.
pub const KT_GATE_PLAN_SLOTS: usize = 4;

/// The most peppers in use at a time.
pub const KT_MAX_PEPPERS: usize = 4;

const _: () = {
    assert!(size_of::<kt_gate>() == KT_GATE_HANDLE_SIZE && align_of::<kt_gate>() == KT_HANDLE_ALIGN);
    assert!(KT_MAX_KEYS == MAX_KEYS);
    assert!(KT_MAX_PEPPERS == keytally_core::MAX_PEPPERS);
};

/// A gate as one process holds it, with the server's peppers, which are in the table never. Declare one beside the table's
/// memory and give it to `kt_gate_init` or `kt_gate_attach`, or get one from `kt_gate_open`. It must not be moved or copied
/// once it is in use. What is in it is this library's.
#[derive(Debug)]
#[repr(C)]
pub struct kt_gate {
    private_: [u64; 128],
}

/// What is in it.
#[derive(Debug)]
pub struct GateState {
    pub(crate) table: GateTable,
    pub(crate) clock: HandleClock,
}

/// Where a gate lies.
#[cfg_attr(
    feature = "host",
    expect(
        clippy::large_enum_variant,
        reason = "it lies in a handle of the caller's, so nothing is allocated"
    )
)]
#[derive(Debug)]
pub enum GateTable {
    /// A table in memory of the caller's.
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

/// The table that is in force for a call, with the handle's clock.
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
    /// Returns the table that is in force.
    #[inline]
    pub(crate) fn in_force(self) -> Outcome<InForce<'c>> {
        let state = self.state()?;
        let table = match &state.table {
            GateTable::Memory(table) => TableInForce::Memory(table),
            #[cfg(feature = "host")]
            GateTable::File(file) => TableInForce::File(file.load()),
        };
        Ok(InForce { clock: &state.clock, table })
    }

    /// Returns the table whose file is in place, for a change to its keys or plans.
    pub(crate) fn in_place(self) -> Outcome<InForce<'c>> {
        let state = self.state()?;
        let table = match &state.table {
            GateTable::Memory(table) => TableInForce::Memory(table),
            #[cfg(feature = "host")]
            GateTable::File(file) => TableInForce::File(file.in_place()?),
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

/// The state of a table that lies in memory of the caller's.
fn in_memory(table: Gate<Lines>) -> GateState {
    GateState { table: GateTable::Memory(table), clock: HandleClock::default() }
}

/// Some bytes, such as a pepper.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_bytes<'c> {
    /// Where they are.
    pub data: In<'c, u8>,
    /// How many.
    pub len: usize,
}

/// A plan: a named policy.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_plan<'c> {
    /// 1 to 16 characters of a-z, 0-9, - and _.
    pub name: In<'c, c_char>,
    /// Its length.
    pub name_len: usize,
    /// What it admits, such as `100/minute, 1000/hour`.
    pub policy: In<'c, c_char>,
    /// Its length.
    pub policy_len: usize,
}

/// What a gate is made of.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kt_gate_config<'c> {
    /// The plans, the first for keys that name none. All share their windows and algorithm.
    pub plans: In<'c, kt_plan<'c>>,
    /// How many: at least 1; in memory at most `KT_GATE_PLAN_SLOTS`, in files 116.
    pub plans_len: usize,
    /// What every key begins with, 1 to 8 characters of a-z and 0-9.
    pub prefix: In<'c, c_char>,
    /// Its length.
    pub prefix_len: usize,
    /// The most keys, 1 to `KT_MAX_KEYS`.
    pub keys: u32,
}

impl<'c> kt_gate_config<'c> {
    /// The plans, read one after another.
    pub(crate) fn plans(&self) -> Outcome<impl Iterator<Item = Outcome<Plan>> + use<'c>> {
        Ok(self.plans.slice(self.plans_len)?.iter().map(|plan| self::plan(plan)))
    }

    pub(crate) fn prefix(&self) -> Outcome<Name> {
        name(self.prefix, self.prefix_len)
    }
}

/// A plan, read.
pub(crate) fn plan(plan: &kt_plan<'_>) -> Outcome<Plan> {
    let policy = policy(plan.policy, plan.policy_len)?;
    Plan::new(plan_name(plan.name, plan.name_len)?, policy).ok_or(kt_status::KT_PLAN_NAME_FORM)
}

pub(crate) fn plan_name<'c>(text: In<'c, c_char>, len: usize) -> Outcome<&'c str> {
    utf8(text.text(len)?, kt_status::KT_PLAN_NAME_FORM)
}

/// The peppers in these bytes.
fn peppers(list: In<'_, kt_bytes<'_>>, len: usize) -> Outcome<Peppers> {
    if !(1..=KT_MAX_PEPPERS).contains(&len) {
        return Err(kt_status::KT_PEPPER_COUNT);
    }
    let mut peppers: [&[u8]; KT_MAX_PEPPERS] = [&[]; KT_MAX_PEPPERS];
    for (pepper, bytes) in peppers.iter_mut().zip(list.slice(len)?) {
        *pepper = bytes.data.slice(bytes.len)?;
    }
    Ok(Peppers::new(&peppers[..len])?)
}

/// A gate in memory as C makes them: no hints, and a fixed room for plans.
const fn shape(keys: u32, prefix: Name, plans: &[Plan]) -> GateConfig<'_> {
    GateConfig::new(keys, prefix, plans).with_plan_slots(KT_GATE_PLAN_SLOTS)
}

/// Bytes of the memory that a gate for `keys` keys takes; 0 when there can be no such gate. `KT_GATE_SIZE` is the same
/// as a constant.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_size(keys: u32) -> usize {
    match Name::new("kt") {
        Some(prefix) if (1..=KT_MAX_KEYS).contains(&keys) => {
            shape(keys, prefix, &[]).lines().checked_mul(KT_TABLE_ALIGN).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Bytes of a gate's handle, as this library has it: `KT_GATE_HANDLE_SIZE` of the header that it belongs to.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_handle_size() -> usize {
    KT_GATE_HANDLE_SIZE
}

/// Makes a gate in memory that nobody uses.
///
/// `memory` is at least `kt_gate_size(config->keys)` bytes at a multiple of 64, which stay where they are and are used
/// for nothing else until the handle is closed. `peppers` are the server's secrets as they are, at least 32 random bytes
/// each, newest last: new keys use the newest. Nothing that is pointed to is kept but `memory`.
///
/// Statuses: `KT_CAPACITY`, `KT_MEMORY_TOO_SMALL`, `KT_OVERLAP`, `KT_NAME_FORM` for the prefix, `KT_PLAN_COUNT`,
/// `KT_PLAN_NAME_FORM`, `KT_PLAN_TWICE`, `KT_PLAN_WINDOWS`, those that begin with `KT_POLICY_`, `KT_PEPPER_COUNT`,
/// `KT_PEPPER_TOO_SHORT`, `KT_PEPPER_TWICE`.
///
/// ```c
/// static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_GATE_SIZE(64)];
/// kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
/// kt_gate_config config = {&plan, 1, KT_TEXT("kt"), 64};
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
        let place = gate_out.place()?;
        let config = config.read()?;
        let mut plans = heapless::Vec::<Plan, KT_GATE_PLAN_SLOTS>::new();
        for plan in config.plans()? {
            plans.push(plan?).map_err(|_| kt_status::KT_PLAN_COUNT)?;
        }
        let shape = shape(config.keys, config.prefix()?, &plans);
        let peppers = self::peppers(peppers, peppers_len)?;
        if kt_gate_size(config.keys) == 0 {
            return Err(kt_status::KT_CAPACITY);
        }
        place.put(in_memory(Gate::create(memory.first(shape.lines()), &shape, peppers)?));
        Ok(())
    })
}

/// Opens a gate that was made in this memory, by this process or by another that shares it: it may lie at another address
/// there. `memory_len` may be more than the gate has. One of the peppers must be the gate's.
///
/// Statuses: `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`, `KT_DAMAGED`,
/// `KT_OVERLAP`, `KT_WRONG_PEPPER`, `KT_PEPPER_COUNT`, `KT_PEPPER_TOO_SHORT`, `KT_PEPPER_TWICE`.
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
        let place = gate_out.place()?;
        let peppers = self::peppers(peppers, peppers_len)?;
        place.put(in_memory(Gate::attach(told(memory), peppers)?));
        Ok(())
    })
}

/// Ends a handle, of whichever origin: wipes it and its peppers, unmaps its file, frees it if this library made it. The table
/// itself stays as it is. No call that uses the handle may be under way. NULL and what is no handle are left alone.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_close(gate: Handle<kt_gate>) {
    let _ = guard(|| {
        gate.close();
        Ok(())
    });
}

/// Checks the key, and then charges `cost` to every window of its plan if all have room for it, else to none. Only a key
/// that passed its check touches a tally.
///
/// `api_key` is the value of the `X-API-Key` header, of `api_key_len` bytes and without a NUL; NULL
/// when there was none. When the header came more than once, ask `kt_verdict_duplicate_header`
/// instead. `now_ms` is an explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`: see the
/// contract.
///
/// Every answer is `KT_OK`: whether the request may go on is the verdict's `outcome`, which is `KT_ADMITTED`, `KT_DENIED`,
/// `KT_TOO_COSTLY`, `KT_MISSING_KEY` or `KT_INVALID_KEY`.
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
        let (gate, place) = (gate.in_force()?, verdict_out.place()?);
        let api_key = api_key.optional(api_key_len)?;
        with_clock!(gate.clock.time(now_ms)?, |clock| {
            place.put_verdict(&gate.check(api_key, cost, clock));
        });
        Ok(())
    })
}

/// What `kt_gate_check` would answer now, without the charge.
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
        let (gate, place) = (gate.in_force()?, verdict_out.place()?);
        let api_key = api_key.optional(api_key_len)?;
        with_clock!(gate.clock.time(now_ms)?, |clock| {
            place.put_verdict(&gate.peek(api_key, cost, clock));
        });
        Ok(())
    })
}

/// Gives back what a check charged, in the windows that still count it. `key_id` and `charge` are those of its verdict.
/// Refund a charge once.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_refund(
    gate: Handle<kt_gate>,
    key_id: u64,
    charge: In<kt_charge>,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (gate, place) = (gate.in_force()?, verdict_out.place()?);
        let (key_id, charge) = (self::key_id(key_id)?, charge.read()?.charge());
        let verdict = with_clock!(gate.clock.time(now_ms)?, |clock| gate.refund(key_id, charge, clock));
        place.put_verdict(&verdict.ok_or(kt_status::KT_NO_SUCH_KEY)?);
        Ok(())
    })
}

/// Replaces an estimate by the actual cost: refunds the difference, or charges it as far as there is room. What found no
/// room is the verdict's `uncharged`. Settle a charge once.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`.
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
        let (gate, place) = (gate.in_force()?, verdict_out.place()?);
        let (key_id, estimate) = (self::key_id(key_id)?, estimate.read()?.charge());
        let verdict =
            with_clock!(gate.clock.time(now_ms)?, |clock| gate.settle(key_id, estimate, actual, clock));
        place.put_verdict(&verdict.ok_or(kt_status::KT_NO_SUCH_KEY)?);
        Ok(())
    })
}

/// Forgets all counts of the key.
///
/// Statuses: `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_reset(
    gate: Handle<kt_gate>,
    key_id: u64,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (gate, place) = (gate.in_force()?, verdict_out.place()?);
        let key_id = self::key_id(key_id)?;
        let verdict = with_clock!(gate.clock.time(now_ms)?, |clock| gate.reset(key_id, clock));
        place.put_verdict(&verdict.ok_or(kt_status::KT_NO_SUCH_KEY)?);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        KT_GATE_HANDLE_SIZE, KT_GATE_PLAN_SLOTS, KT_HANDLE_ALIGN, KT_KEY_SIZE, KT_LIMITER_HANDLE_SIZE,
        KT_TABLE_ALIGN,
    };

    #[test]
    fn the_page_of_limits_says_what_c_sees() {
        let page = include_str!("../../LIMITS.md");
        for row in [
            format!(
                "| a limiter's handle in C | {KT_LIMITER_HANDLE_SIZE} bytes at a multiple of {KT_HANDLE_ALIGN} |"
            ),
            format!(
                "| a gate's handle in C | {KT_GATE_HANDLE_SIZE} bytes at a multiple of {KT_HANDLE_ALIGN} |"
            ),
            format!("| a table's memory in C | at a multiple of {KT_TABLE_ALIGN} bytes |"),
            format!("| plans of a gate in memory made from C | {KT_GATE_PLAN_SLOTS} |"),
            format!("| a key as C gets it | {KT_KEY_SIZE} bytes with its NUL |"),
        ] {
            assert!(page.contains(&row), "{row}");
        }
    }
}
