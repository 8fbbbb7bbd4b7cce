//! The gate: a table of issued keys with their tallies. Verify, then charge.

use core::ffi::c_char;

use keytally_core::{Counted, Feature, Gate, GateConfig, MAX_KEYS, Name, Peppers, Plan};
use keytally_core::{Section, Window};

use crate::charge::kt_charge;
use crate::guard::guard;
use crate::key::{checked_key_id, name};
use crate::limiter::{KT_HANDLE_ALIGN, KT_TABLE_ALIGN};
use crate::limiter_table::table_lines;
use crate::pointers::{Growing, Handle, Held, In, Lines, Memory, Out, plain};
use crate::policy::sections;
use crate::request::{kt_name, kt_patience, kt_settlement};
use crate::status::{FfiResult, kt_status};
use crate::tallies::kt_compound;
use crate::text::utf8;
use crate::time::{CallClock, HandleClock, with_call_clock};
use crate::verdict::kt_verdict;

/// Bytes of a gate's handle in this build. The header has the same formula.
pub const KT_GATE_HANDLE_SIZE: usize = match (usize::BITS, Feature::Sections.is_included()) {
    (64, true) => 3072,
    (64, false) => 1024,
    (_, true) => 2048,
    (_, false) => 768,
};

/// The 64-bit words of a gate's handle.
pub const KT_GATE_HANDLE_WORDS_: usize = KT_GATE_HANDLE_SIZE / 8;

/// The most keys of a gate.
pub const KT_MAX_KEYS: u32 = 67108864;

/// The plans that a gate in the caller's memory has room for. There are few, because two of them
/// take as much memory as a key, and a microcontroller may have only a few KiB.
pub const KT_GATE_PLAN_SLOTS: usize = 4;

/// The most peppers of a gate at a time.
pub const KT_MAX_PEPPERS: usize = 4;

/// The most scopes of a gate.
pub const KT_MAX_SCOPES: usize = 64;

/// Scopes that a call has room for.
pub(crate) const SCOPE_SLOTS: usize =
    if Feature::Sections.is_included() { KT_MAX_SCOPES } else { 1 };

const _: () = {
    assert!(
        size_of::<kt_gate>() == KT_GATE_HANDLE_SIZE && align_of::<kt_gate>() == KT_HANDLE_ALIGN
    );
    assert!(KT_MAX_KEYS == MAX_KEYS);
    assert!(KT_MAX_PEPPERS == keytally_core::MAX_PEPPERS);
    assert!(KT_MAX_SCOPES == keytally_core::MAX_SCOPES);
};

/// A handle of a gate in one process, with the server's peppers, which are never in the table.
///
/// Declare one in addition to the table's memory and give it to `kt_gate_init` or `kt_gate_attach`,
/// or get a pointer to one from `kt_gate_open`. Do not move or copy it while it is in use. Its
/// content is private.
#[derive(Debug)]
#[repr(C)]
pub struct kt_gate {
    private_: [u64; KT_GATE_HANDLE_WORDS_],
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

#[cfg(feature = "host")]
impl FileGate {
    /// Returns the table as one that counts uses, if they are counted, and that spends credits, if
    /// it is in a fleet. Also returns how many milliseconds the fleet's clock is ahead.
    #[inline]
    pub(crate) fn counted(&self, patience: kt_patience) -> (Counted<'_, Lines>, i64) {
        if self.table.needs().is_none() {
            return (self.table.with_extras(None), 0);
        }
        self.with_extras(patience)
    }

    #[inline(never)]
    fn with_extras(&self, patience: kt_patience) -> (Counted<'_, Lines>, i64) {
        let extras = self.file.extras(patience.to_host());
        (self.table.with_extras(Some(extras)), self.file.clock_offset_ms())
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
            GateTable::File(file) => TableInForce::File(file.load_newest()),
        };
        Ok(InForce { clock: &state.clock, table })
    }

    /// Calls `work` with the table that this handle uses now and the handle's clock. If the key's
    /// counts are moving to another file, calls it again with that one.
    #[inline]
    #[cfg(feature = "host")]
    pub(crate) fn call<R: keytally::Decided>(
        self,
        work: impl FnMut(Counted<'_, Lines>, CallClock<'_>) -> FfiResult<R>,
    ) -> FfiResult<R> {
        self.call_with(kt_patience::KT_PATIENCE_WAIT, work)
    }

    /// Calls `work` as [`call`](Self::call) does. `patience` is what a request in a fleet does that
    /// lacks credits.
    #[inline]
    #[cfg(feature = "host")]
    pub(crate) fn call_with<R: keytally::Decided>(
        self,
        patience: kt_patience,
        mut work: impl FnMut(Counted<'_, Lines>, CallClock<'_>) -> FfiResult<R>,
    ) -> FfiResult<R> {
        let state = self.state()?;
        match &state.table {
            GateTable::Memory(table) => work(table.counted(None), CallClock::new(&state.clock)),
            GateTable::File(file) => file.call(|gate| {
                let (counted, offset_ms) = gate.counted(patience);
                work(counted, CallClock::ahead(&state.clock, offset_ms))
            }),
        }
    }

    /// Calls `work` with the table that this handle uses now and the handle's clock.
    #[inline]
    #[cfg(not(feature = "host"))]
    pub(crate) fn call<R>(
        self,
        mut work: impl FnMut(Counted<'_, Lines>, CallClock<'_>) -> FfiResult<R>,
    ) -> FfiResult<R> {
        let state = self.state()?;
        let GateTable::Memory(table) = &state.table;
        work(table.counted(None), CallClock::new(&state.clock))
    }

    /// Calls `work` as [`call`](Self::call) does. A gate in memory is in no fleet.
    #[inline]
    #[cfg(not(feature = "host"))]
    pub(crate) fn call_with<R>(
        self,
        _: kt_patience,
        work: impl FnMut(Counted<'_, Lines>, CallClock<'_>) -> FfiResult<R>,
    ) -> FfiResult<R> {
        self.call(work)
    }
}

/// Calls `work` with the gate in a file, for a change to its keys or plans, and with the longest
/// time to wait for the lock. If another file replaced the gate's, `work` gets that one.
#[cfg(feature = "host")]
pub(crate) fn change<R>(
    followed: &keytally::Followed<FileGate>,
    mut work: impl FnMut(&keytally::Gate, keytally::Wait<'_>) -> Result<R, keytally::Error>,
) -> FfiResult<R> {
    let wait = followed.load().file.wait();
    Ok(followed.change_within(wait, |gate, wait| work(&gate.file, wait))?)
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

    /// A plan: quotas with a name. This struct does not change.
    #[derive(Debug)]
    pub struct kt_plan<'c> {
        /// The name: 1 to 16 characters of a-z, 0-9, - and _.
        pub name: In<'c, c_char>,
        /// The name's length.
        pub name_len: usize,
        /// The quotas in sections, such as
        /// `100/minute, 30000/month; team: 5000/hour; group write: 20/minute`. A policy is the
        /// section of the key alone.
        pub sections: In<'c, c_char>,
        /// The length of the sections.
        pub sections_len: usize,
    }

    /// The configuration of a new gate. It may get more members; see "Structs" in the contract.
    #[derive(Debug)]
    pub struct kt_gate_config<'c> {
        /// `sizeof` this struct.
        pub size: u32,
        /// The most keys, 1 to `KT_MAX_KEYS`.
        pub keys: u32,
        /// The plans. The first is for keys that name none. All have the same sections, windows
        /// and algorithms.
        pub plans: In<'c, kt_plan<'c>>,
        /// The number of plans, at least 1. At most `KT_GATE_PLAN_SLOTS` in the caller's memory,
        /// and 116 in a file.
        pub plans_len: usize,
        /// The text that each key begins with: 1 to 8 characters of a-z and 0-9.
        pub prefix: In<'c, c_char>,
        /// The prefix's length.
        pub prefix_len: usize,
        /// The most teams (accounts), which take 64 bytes each. 0 stands for the number of keys if
        /// the plans have a section `team`, and else for none. If `size` ends before this member,
        /// it is 0.
        pub teams: u32,
        /// Zero.
        pub reserved_: u32,
        /// The names of the scopes that keys may have, of 1 to 16 characters each.
        pub scopes: In<'c, kt_name<'c>>,
        /// The number of scopes, at most `KT_MAX_SCOPES`.
        pub scopes_len: usize,
        /// The window that `X-RateLimit-*` describe, such as `month`: one of the quotas of keys. An
        /// empty text stands for the longest of at most a day, or the shortest if all are longer.
        pub described: In<'c, c_char>,
        /// The length of the window's text.
        pub described_len: usize,
    }
}

impl Growing for kt_gate_config<'_> {
    const MIN_SIZE: usize = core::mem::offset_of!(kt_gate_config<'_>, teams);
}

impl<'c> kt_gate_config<'c> {
    /// Parses the plans one after another.
    pub(crate) fn plans(&self) -> FfiResult<impl Iterator<Item = FfiResult<Plan>> + use<'c>> {
        Ok(self.plans.slice(self.plans_len)?.iter().map(|plan| self::plan(plan)))
    }

    pub(crate) fn prefix(&self) -> FfiResult<Name> {
        name(self.prefix, self.prefix_len)
    }

    /// Returns the names of the scopes.
    pub(crate) fn scopes(&self) -> FfiResult<heapless::Vec<&'c str, SCOPE_SLOTS>> {
        if self.reserved_ != 0 {
            return Err(kt_status::KT_UNKNOWN_MEMBER);
        }
        scopes(self.scopes, self.scopes_len, kt_status::KT_SCOPES)
    }

    /// Returns the window to describe.
    pub(crate) fn described(&self) -> FfiResult<Option<Window>> {
        match self.described.text(self.described_len)? {
            [] => Ok(None),
            _ if !Feature::Sections.is_included() => Err(kt_status::KT_NO_SECTIONS),
            text => utf8(text, kt_status::KT_DESCRIBED)?
                .parse()
                .map(Some)
                .map_err(|_| kt_status::KT_DESCRIBED),
        }
    }

    /// Calls `with` with the configuration of a gate in the caller's memory.
    fn with_core_config<T>(
        &self,
        with: impl FnOnce(&GateConfig<'_>) -> FfiResult<T>,
    ) -> FfiResult<T> {
        let mut plans = heapless::Vec::<Plan, KT_GATE_PLAN_SLOTS>::new();
        for plan in self.plans()? {
            plans.push(plan?).map_err(|_| kt_status::KT_PLAN_COUNT)?;
        }
        let has_teams = plans.iter().any(|plan| plan.sections.named("team").is_some());
        let teams = match self.teams {
            0 if has_teams => self.keys,
            teams => teams,
        };
        let scopes = self.scopes()?;
        let mut config =
            shape(self.keys, self.prefix()?, &plans).with_teams(teams).with_scopes(&scopes);
        config.described = self.described()?;
        with(&config)
    }
}

/// Returns names of scopes. `otherwise` is the error for a name that is not UTF-8, and for more
/// names than there can be scopes.
pub(crate) fn scopes<'c>(
    names: In<'c, kt_name<'c>>,
    len: usize,
    otherwise: kt_status,
) -> FfiResult<heapless::Vec<&'c str, SCOPE_SLOTS>> {
    if len > 0 && !Feature::Sections.is_included() {
        return Err(kt_status::KT_NO_SECTIONS);
    }
    let mut scopes = heapless::Vec::new();
    if len > KT_MAX_SCOPES {
        return Err(otherwise);
    }
    for name in names.slice(len)? {
        let text = utf8(name.text.text(name.text_len)?, otherwise)?;
        scopes.push(text).map_err(|_| otherwise)?;
    }
    Ok(scopes)
}

/// Parses a plan.
pub(crate) fn plan(plan: &kt_plan<'_>) -> FfiResult<Plan> {
    let sections = sections(plan.sections, plan.sections_len)?;
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

/// Returns the bytes of memory that a plain gate for `keys` keys needs. Returns 0 if `keys` is not
/// 1 to `KT_MAX_KEYS`. The macro `KT_GATE_SIZE` gives the same as a constant.
///
/// A gate is plain if each plan fits one tally and has no warnings, and the gate has no teams and
/// no scopes. For any other gate, `kt_gate_config_size` writes the size.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_size(keys: u32) -> usize {
    if !(1..=KT_MAX_KEYS).contains(&keys) {
        return 0;
    }
    // Six lines, one for each two plans, and one for each key.
    let keys = usize::try_from(keys).unwrap_or(usize::MAX);
    let lines = keys.checked_add(6 + KT_GATE_PLAN_SLOTS / 2);
    lines.and_then(|lines| lines.checked_mul(KT_TABLE_ALIGN)).unwrap_or(0)
}

/// Writes the bytes of memory that a gate with this configuration needs for `kt_gate_init`.
///
/// Statuses: those of `kt_gate_init` about `config`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_config_size(
    config: In<kt_gate_config>,
    size_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let target = size_out.target()?;
        let lines = config.read_growing()?.with_core_config(|config| Ok(config.validate()?))?;
        target.write(lines.checked_mul(KT_TABLE_ALIGN).ok_or(kt_status::KT_CAPACITY)?);
        Ok(())
    })
}

/// Returns the bytes of a gate's handle in this library, which is `KT_GATE_HANDLE_SIZE` of its
/// header.
///
/// A program that defines `KT_WITHOUT_SECTIONS` can be linked only with a library that was built
/// without the feature `sections`. So its smaller handles are always large enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_handle_size() -> usize {
    KT_GATE_HANDLE_SIZE
}

/// Creates a gate in memory that is not in use.
///
/// `memory` is at least `kt_gate_size(config->keys)` bytes for a plain gate, else at least what
/// `kt_gate_config_size` writes, at a multiple of 64. Until the handle is closed the memory must
/// not move and must not be used for anything else. `peppers` are the server's secrets as bytes, at
/// least 32 random bytes each, newest last: new keys use the newest. Of all pointers, only `memory`
/// is retained.
///
/// Statuses: `KT_CAPACITY`, `KT_MEMORY_TOO_SMALL`, `KT_OVERLAP`, `KT_NAME_FORM` for the prefix,
/// `KT_PLAN_COUNT`, `KT_PLAN_NAME_FORM`, `KT_PLAN_TWICE`, `KT_PLAN_WINDOWS`, those that begin with
/// `KT_POLICY_`, `KT_SCOPES`, `KT_TEAM_COUNT`, `KT_DESCRIBED`, `KT_PEPPER_COUNT`,
/// `KT_PEPPER_TOO_SHORT`, `KT_PEPPER_TWICE`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`.
///
/// ```c
/// static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_GATE_SIZE(64)];
/// kt_plan plan = {KT_TEXT("default"), KT_TEXT("100/minute, 1000/hour")};
/// kt_gate_config config = {.size = sizeof config, .keys = 64, .plans = &plan, .plans_len = 1,
///                          .prefix = "kt", .prefix_len = 2};
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
        let peppers = self::peppers(peppers, peppers_len)?;
        let gate = config.with_core_config(|config| {
            let memory = memory.first(config.validate()?);
            Ok(Gate::init(memory, config, peppers)?)
        })?;
        target.put(in_memory(gate));
        Ok(())
    })
}

/// `kt_gate_init` under the name that a program with smaller handles calls. Only a library without
/// `sections` has it, so the linker refuses any other.
#[cfg(not(feature = "sections"))]
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_init_without_sections(
    memory: Memory,
    memory_len: usize,
    config: In<kt_gate_config>,
    peppers: In<kt_bytes>,
    peppers_len: usize,
    gate_out: Out<kt_gate>,
) -> kt_status {
    kt_gate_init(memory, memory_len, config, peppers, peppers_len, gate_out)
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

/// `kt_gate_attach` under the name that a program with smaller handles calls.
#[cfg(not(feature = "sections"))]
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_attach_without_sections(
    memory: Memory,
    memory_len: usize,
    peppers: In<kt_bytes>,
    peppers_len: usize,
    gate_out: Out<kt_gate>,
) -> kt_status {
    kt_gate_attach(memory, memory_len, peppers, peppers_len, gate_out)
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
/// If the gate is not plain (see `kt_gate_size`), the windows of the key's team are charged too.
/// The verdict is then that of the tally that decided: it has the quotas of that tally only, and
/// no charge, so that `kt_verdict_charge` returns `KT_NOT_A_CHARGE`. For such a gate, call
/// `kt_gate_check_request`: its compound has the header fields of all quotas, and the charge.
///
/// `api_key` is the value of the `X-API-Key` header: `api_key_len` bytes without a NUL, or NULL if
/// the request has no such header. If it has more than one, call `kt_verdict_duplicate_header`
/// instead. `now_ms` is an explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`. Any thread may
/// call it at any time; see the contract.
///
/// `KT_OK` means that there is a verdict. Its `outcome` is `KT_ADMITTED`, `KT_DENIED`,
/// `KT_TOO_COSTLY`, `KT_MISSING_KEY`, `KT_INVALID_KEY` or, during a migration and in a fleet,
/// `KT_UNAVAILABLE`.
///
/// In a fleet (see `kt_gate_join`), the call waits for credits, at most 20 ms or what
/// `kt_gate_set_credit_wait` sets. `kt_gate_try_check` does not wait.
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
        let mut target = verdict_out.target()?;
        let api_key = api_key.optional(api_key_len)?;
        // Written within the call: a verdict that left it would be moved on the stack, twice.
        gate.call(|gate, own| {
            Ok(with_call_clock!(own.time(now_ms)?, of gate, |clock| {
                target.put_verdict(&gate.check(api_key, cost, clock))
            }))
        })
        .map(drop)
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
        let mut target = verdict_out.target()?;
        let api_key = api_key.optional(api_key_len)?;
        // Written within the call: a verdict that left it would be moved on the stack, twice.
        gate.call(|gate, own| {
            Ok(with_call_clock!(own.time(now_ms)?, of gate, |clock| {
                target.put_verdict(&gate.peek(api_key, cost, clock))
            }))
        })
        .map(drop)
    })
}

/// Gives back what a check charged, in the windows that still count it. `key_id` and `charge` are
/// those of the check's verdict or compound. All tallies of the charge are refunded, and the
/// verdict is that of the first. Refund a charge only once.
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
        let mut target = verdict_out.target()?;
        let (key_id, charge) = (checked_key_id(key_id)?, charge.read()?.to_core()?);
        let verdict = gate.call(|gate, own| {
            Ok(with_call_clock!(own.time(now_ms)?, |clock| gate.refund(key_id, charge, clock)))
        })?;
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
        let mut target = verdict_out.target()?;
        let (key_id, estimate) = (checked_key_id(key_id)?, estimate.read()?.to_core()?);
        let verdict = gate.call(|gate, own| {
            let time = own.time(now_ms)?;
            Ok(with_call_clock!(time, |clock| gate.settle(key_id, estimate, actual, clock)))
        })?;
        target.put_verdict(&verdict.ok_or(kt_status::KT_NO_SUCH_KEY)?);
        Ok(())
    })
}

/// Replaces the estimates of a charge by the actual costs. Each cost is settled for itself: the
/// difference is refunded, or charged to all its tallies as far as the smallest room allows.
///
/// The verdict is that of the first tally, and its `uncharged` is the part of the request's own
/// cost that found no room. `uncharged_out` has room for `groups_len` numbers: the part of the cost
/// of each group that found no room. It may be NULL if there is none. `compound_out` gets the
/// verdict on each tally of the charge, whose `crossed` are the warnings that this settlement
/// reached by units that it charged. It may be NULL. Settle a charge only once.
///
/// Statuses: `KT_NOT_A_CHARGE`, `KT_NO_SUCH_GROUP`, also for more than `KT_MAX_TALLIES` groups,
/// `KT_KEY_ID_FORM` for the key id 0, `KT_NO_SUCH_KEY`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`,
/// `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_gate_settle_all(
    gate: Handle<kt_gate>,
    key_id: u64,
    estimate: In<kt_charge>,
    settlement: In<kt_settlement>,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
    uncharged_out: Out<u32>,
    compound_out: Out<kt_compound>,
) -> kt_status {
    guard(|| {
        let mut target = verdict_out.target()?;
        let compound = compound_out.optional_target()?;
        let (key_id, estimate) = (checked_key_id(key_id)?, estimate.read()?.to_core()?);
        let (mut settlement, groups) = settlement.read_growing()?.parts()?;
        let mut uncharged = uncharged_out.targets(groups.len())?;
        for group in groups {
            let name = group.name()?;
            let is_it =
                |section: &Section| matches!(section, Section::Group(_)) && section.name() == name;
            if !gate.in_force()?.sections().iter().any(is_it) {
                return Err(kt_status::KT_NO_SUCH_GROUP);
            }
            if group.own_cost()?.is_some() {
                settlement = settlement.with_group(name, group.cost);
            }
        }
        let settled = gate.call(|gate, own| {
            let time = own.time(now_ms)?;
            Ok(with_call_clock!(time, |clock| gate.settle_all(
                key_id,
                estimate,
                &settlement,
                clock
            )))
        })?;
        let settled = settled.ok_or(kt_status::KT_NO_SUCH_KEY)?;
        let mut rest = settled.uncharged().iter();
        for (index, group) in groups.iter().enumerate() {
            let its = if group.has_own_cost == 1 { rest.next() } else { None };
            uncharged.write(index, its.copied().unwrap_or(0));
        }
        target.put_verdict(&settled.verdict);
        if let Some(compound) = compound {
            compound.put_compound(settled.compound());
        }
        Ok(())
    })
}

/// Resets all counts of the key. Those of its team are kept: see `kt_gate_reset_account`.
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
        let mut target = verdict_out.target()?;
        let key_id = checked_key_id(key_id)?;
        let verdict = gate.call(|gate, own| {
            Ok(with_call_clock!(own.time(now_ms)?, |clock| gate.reset(key_id, clock)))
        })?;
        target.put_verdict(&verdict.ok_or(kt_status::KT_NO_SUCH_KEY)?);
        Ok(())
    })
}
