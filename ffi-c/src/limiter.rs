//! The limiter: a table of tallies for any subject.

use core::ffi::c_char;

#[cfg(feature = "host")]
use keytally_core::Reserve;
use keytally_core::{CacheLine, Limiter, OnFull};

use crate::charge::kt_charge;
use crate::guard::guard;
use crate::limiter_table::{Decided as _, LimiterTable, table_lines, with_subject, with_table};
use crate::pointers::{Handle, Held, In, Lines, Memory, Number, Numbered, Out};
use crate::policy::{POLICY_LEN, limiter_policy};
use crate::request::{kt_patience, kt_request, kt_settlement};
use crate::status::{FfiResult, kt_status};
use crate::text::{Text, put};
use crate::time::{CallClock, CallTime, HandleClock, with_call_clock};
use crate::verdict::kt_verdict;

/// Bytes of a limiter's handle.
pub const KT_LIMITER_HANDLE_SIZE: usize = 384;

/// The alignment of a handle, in bytes.
pub const KT_HANDLE_ALIGN: usize = 8;

/// The alignment of a table's memory, in bytes.
pub const KT_TABLE_ALIGN: usize = 64;

/// Bytes of memory that a limiter of addresses needs in addition to `kt_limiter_size`.
pub const KT_PREFIXES_SIZE: usize = 256;

/// The most subjects of a limiter.
pub const KT_MAX_SUBJECTS: u32 = 1073741824;

#[cfg(feature = "host")]
const _: () = {
    let [subjects, addresses] =
        [Limiter::<Lines>::lines(1), keytally_core::AddressLimiter::<Lines>::lines(1)];
    assert!(KT_PREFIXES_SIZE == (addresses - subjects) * KT_TABLE_ALIGN);
};

const _: () = {
    assert!(
        size_of::<kt_limiter>() == KT_LIMITER_HANDLE_SIZE
            && align_of::<kt_limiter>() == KT_HANDLE_ALIGN
    );
    assert!(align_of::<CacheLine>() == KT_TABLE_ALIGN);
    assert!(KT_MAX_SUBJECTS == keytally_core::MAX_SUBJECTS);
};

/// Evaluates `$work` with a limiter of either kind in a file.
#[cfg(feature = "host")]
macro_rules! with_file {
    ($file:expr, |$each:ident| $work:expr) => {
        match $file {
            $crate::limiter::LimiterFile::Subjects($each) => $work,
            $crate::limiter::LimiterFile::Addresses($each) => $work,
        }
    };
}

#[cfg(feature = "host")]
pub(crate) use with_file;

/// What happens to a request whose subject is new and finds no slot in a limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum kt_on_full {
    /// It is charged to an overflow tally, under the same limits. The subjects that find the same
    /// bucket full share one. A subject that gets a slot later begins there with its whole limit.
    /// This is the value of a new limiter.
    KT_ON_FULL_SHARE = 0,
    /// It is refused with the outcome `KT_FULL`.
    KT_ON_FULL_REFUSE = 1,
}

impl Numbered for kt_on_full {
    type Number = u8;
}

/// A handle of a limiter in one process.
///
/// Declare one in addition to the table's memory and give it to `kt_limiter_init` or
/// `kt_limiter_attach`, or get a pointer to one from `kt_limiter_open`. Do not move or copy it
/// while it is in use. Its content is private.
#[derive(Debug)]
#[repr(C)]
pub struct kt_limiter {
    private_: [u64; 48],
}

/// The content of a limiter's handle.
#[derive(Debug)]
pub struct LimiterState {
    pub(crate) table: LimiterTable,
    pub(crate) clock: HandleClock,
    /// The file that the lines are mapped from.
    #[cfg(feature = "host")]
    pub(crate) file: Option<LimiterFile>,
}

impl LimiterState {
    /// Returns the time that `now_ms` means, by the clock of the limiter's fleet if it is in one.
    #[inline]
    pub(crate) fn time(&self, now_ms: u64) -> FfiResult<CallTime> {
        #[cfg(feature = "host")]
        return CallClock::ahead(&self.clock, self.clock_offset_ms()).time(now_ms);
        #[cfg(not(feature = "host"))]
        CallClock::new(&self.clock).time(now_ms)
    }
}

/// A limiter in memory is in no fleet.
#[cfg(feature = "host")]
impl LimiterState {
    /// Returns how many milliseconds the clock of the limiter's fleet is ahead of the system clock.
    #[inline]
    pub(crate) fn clock_offset_ms(&self) -> i64 {
        self.file.as_ref().map_or(0, |file| with_file!(file, |file| file.clock_offset_ms()))
    }

    /// Returns what a request reserves that does this if it lacks credits of a fleet.
    #[inline]
    pub(crate) fn reservation(&self, patience: kt_patience) -> Option<&dyn Reserve> {
        let file = self.file.as_ref()?;
        with_file!(file, |file| file.reservation(patience.to_host()))
    }

    /// Returns the file, or the status of a limiter in memory.
    pub(crate) fn in_file(&self) -> FfiResult<&LimiterFile> {
        self.file.as_ref().ok_or(kt_status::KT_NOT_A_FILE)
    }
}

/// A file of a limiter.
#[cfg(feature = "host")]
#[derive(Debug)]
pub(crate) enum LimiterFile {
    Subjects(Box<keytally::Limiter>),
    Addresses(Box<keytally::AddressLimiter>),
}

impl Held for kt_limiter {
    type State = LimiterState;
    const MAGIC: u64 = u64::from_le_bytes(*b"ktlimit\x02");
}

/// Returns the state of a handle of a table in the caller's memory.
fn in_memory(table: LimiterTable) -> LimiterState {
    LimiterState {
        table,
        clock: HandleClock::default(),
        #[cfg(feature = "host")]
        file: None,
    }
}

/// Returns the bytes of memory that a limiter for `capacity` subjects needs. Returns 0 if
/// `capacity` is not 1 to `KT_MAX_SUBJECTS`. The macro `KT_LIMITER_SIZE` gives the same as a
/// constant.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_size(capacity: u32) -> usize {
    if !(1..=KT_MAX_SUBJECTS).contains(&capacity) {
        return 0;
    }
    Limiter::<Lines>::lines(capacity).checked_mul(KT_TABLE_ALIGN).unwrap_or(0)
}

/// Returns the bytes of a limiter's handle in this library, which is `KT_LIMITER_HANDLE_SIZE` of
/// its header.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_handle_size() -> usize {
    KT_LIMITER_HANDLE_SIZE
}

/// Creates a limiter for `capacity` subjects, 1 to `KT_MAX_SUBJECTS`, in memory that is not in use.
///
/// `memory` is at least `kt_limiter_size(capacity)` bytes at a multiple of 64. Until the handle is
/// closed the memory must not move and must not be used for anything else. `seed` is 16 random
/// bytes, which keep clients from choosing subjects that collide in one bucket.
///
/// In a host build, a policy like `addresses: /64 20/minute; /48 1000/minute` makes a limiter of
/// client addresses. It needs `KT_PREFIXES_SIZE` more bytes of memory, and memory of the heap for
/// its handle until that is closed. Its subjects are addresses as text, which may have a port,
/// brackets and a zone. A request is charged to the networks of all prefixes, or to none. Functions
/// that write a `kt_verdict` write the one that decided, without a charge. `kt_check_all` with one
/// part writes the verdicts on all networks, and its charge is for `kt_limiter_refund`.
///
/// Statuses: those that begin with `KT_POLICY_`, `KT_CAPACITY`, `KT_MEMORY_TOO_SMALL`,
/// `KT_OVERLAP`.
///
/// ```c
/// static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_LIMITER_SIZE(1000)];
/// kt_limiter limiter;
/// kt_status status =
///     kt_limiter_init(memory, sizeof memory, KT_TEXT("5/minute"), 1000, seed, &limiter);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_init(
    memory: Memory,
    memory_len: usize,
    policy: In<c_char>,
    policy_len: usize,
    capacity: u32,
    seed: In<[u8; 16]>,
    limiter_out: Out<kt_limiter>,
) -> kt_status {
    guard(|| {
        let memory = memory.lines(memory_len, &limiter_out)?;
        let target = limiter_out.target()?;
        let policy = limiter_policy(policy, policy_len)?;
        let seed = seed.read()?;
        if kt_limiter_size(capacity) == 0 {
            return Err(kt_status::KT_CAPACITY);
        }
        target.put(in_memory(LimiterTable::init(memory, &policy, capacity, seed)?));
        Ok(())
    })
}

/// Opens a limiter that this process, or another that shares the memory, created there. The memory
/// may have another address here, and `memory_len` may be larger than the limiter.
///
/// Statuses: `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`,
/// `KT_DAMAGED`, `KT_OVERLAP`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_attach(
    memory: Memory,
    memory_len: usize,
    limiter_out: Out<kt_limiter>,
) -> kt_status {
    guard(|| {
        let memory = memory.lines(memory_len, &limiter_out)?;
        let target = limiter_out.target()?;
        let memory = table_lines(memory);
        target.put(in_memory(LimiterTable::attach(|| memory.clone())?));
        Ok(())
    })
}

/// Closes a handle in a struct of the caller, or one that belongs to this library: wipes it, unmaps
/// its file, and frees it if this library allocated it. The table itself remains.
///
/// No other call may use the handle during this call or after it. Does nothing for NULL and for
/// memory that is not a handle.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_close(limiter: Handle<kt_limiter>) {
    let _ = guard(|| {
        limiter.close();
        Ok(())
    });
}

/// Charges `cost` to each window of the subject if all have room for it, else to none.
///
/// A subject is any bytes, such as an address, a user or a route. Only their hash is stored. A cost
/// of 0 is admitted and writes nothing. `now_ms` is an explicit time in Unix milliseconds, or
/// `KT_SYSTEM_CLOCK`. Any thread may call it at any time; see the contract.
///
/// `KT_OK` means that there is a verdict. Its `outcome` is `KT_ADMITTED`, `KT_DENIED`,
/// `KT_TOO_COSTLY`, `KT_FULL` or, in a fleet, `KT_UNAVAILABLE`.
///
/// In a fleet (see `kt_limiter_join`), the call waits for credits, at most 20 ms or what
/// `kt_limiter_set_credit_wait` says.
///
/// Statuses: `KT_NOT_AN_ADDRESS` in a limiter of addresses, `KT_NO_CLOCK`.
///
/// ```c
/// kt_verdict verdict;
/// if (kt_limiter_check(&limiter, address, address_len, 1, KT_SYSTEM_CLOCK, &verdict) == KT_OK
///     && verdict.outcome != KT_ADMITTED)
///     return verdict.http_status;
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_check(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    cost: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, verdict_out.target()?);
        let subject = subject.slice(subject_len)?;
        with_subject!(limiter, kt_patience::KT_PATIENCE_WAIT, subject, |table, named| {
            with_call_clock!(limiter.time(now_ms)?, in table.layout(), |clock| {
                table.check(named, cost, clock).put(target);
            });
        });
        Ok(())
    })
}

/// Checks like `kt_limiter_check`, with the options of a request. A NULL `request` has a cost of 1
/// and the time of the system clock.
///
/// Statuses: `KT_NOT_AN_ADDRESS`, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`, `KT_NO_CLOCK`.
/// `KT_NO_SUCH_GROUP` and `KT_NO_SUCH_SCOPE` for a request with groups or scopes, which a limiter
/// does not have.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_check_request(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    request: In<kt_request>,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, verdict_out.target()?);
        let subject = subject.slice(subject_len)?;
        let request = kt_request::or_default(request)?;
        request.expect_plain()?;
        let patience = request.patience()?;
        with_subject!(limiter, patience, subject, |table, named| {
            with_call_clock!(limiter.time(request.now_ms)?, in table.layout(), |clock| {
                table.check(named, request.cost, clock).put(target);
            });
        });
        Ok(())
    })
}

/// Writes the verdict that `kt_limiter_check` would give now, without a charge. With
/// `KT_ON_FULL_REFUSE`, does not look for a free slot for a new subject.
///
/// Statuses: `KT_NOT_AN_ADDRESS`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_peek(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    cost: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, verdict_out.target()?);
        let subject = subject.slice(subject_len)?;
        with_subject!(limiter, kt_patience::KT_PATIENCE_WAIT, subject, |table, named| {
            with_call_clock!(limiter.time(now_ms)?, in table.layout(), |clock| {
                table.peek(named, cost, clock).put(target);
            });
        });
        Ok(())
    })
}

/// Gives back what a check charged, in the windows that still count it. `charge` is that of the
/// check's verdict. Refund a charge only once.
///
/// Statuses: `KT_NOT_AN_ADDRESS`, `KT_NOT_A_CHARGE`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_refund(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    charge: In<kt_charge>,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, verdict_out.target()?);
        let (subject, charge) = (subject.slice(subject_len)?, charge.read()?.to_core()?);
        with_subject!(limiter, kt_patience::KT_PATIENCE_WAIT, subject, |table, named| {
            with_call_clock!(limiter.time(now_ms)?, |clock| {
                table.refund(named, charge, clock).put(target);
            });
        });
        Ok(())
    })
}

/// Replaces an estimated cost by the actual cost: refunds the difference, or charges it as far as
/// there is room. The verdict's `uncharged` is what found no room. Settle a charge only once.
///
/// Statuses: `KT_NOT_AN_ADDRESS`, `KT_NOT_A_CHARGE`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_settle(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    estimate: In<kt_charge>,
    actual: u32,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, verdict_out.target()?);
        let (subject, estimate) = (subject.slice(subject_len)?, estimate.read()?.to_core()?);
        with_subject!(limiter, kt_patience::KT_PATIENCE_WAIT, subject, |table, named| {
            with_call_clock!(limiter.time(now_ms)?, |clock| {
                table.settle(named, estimate, actual, clock).put(target);
            });
        });
        Ok(())
    })
}

/// Replaces an estimated cost by the actual cost, as `settlement` says. If it overdraws, units for
/// which there is no room are charged too. The verdict's `uncharged` is what found no room. Settle
/// a charge only once.
///
/// Statuses: `KT_NOT_AN_ADDRESS`, `KT_NOT_A_CHARGE`, `KT_NO_SUCH_GROUP` for a settlement with
/// groups, which a limiter does not have, `KT_STRUCT_SIZE`, `KT_UNKNOWN_MEMBER`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_settle_all(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    estimate: In<kt_charge>,
    settlement: In<kt_settlement>,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, verdict_out.target()?);
        let (subject, estimate) = (subject.slice(subject_len)?, estimate.read()?.to_core()?);
        let (settlement, groups) = settlement.read_growing()?.parts()?;
        if !groups.is_empty() {
            return Err(kt_status::KT_NO_SUCH_GROUP);
        }
        with_subject!(limiter, kt_patience::KT_PATIENCE_WAIT, subject, |table, named| {
            with_call_clock!(limiter.time(now_ms)?, |clock| {
                table.settle_all(named, estimate, &settlement, clock).put(target);
            });
        });
        Ok(())
    })
}

/// Resets all counts of the subject. If it has no slot and would be charged to an overflow tally,
/// resets that one. In a limiter of addresses, larger networks than the client's own keep their
/// counts.
///
/// Statuses: `KT_NOT_AN_ADDRESS`, `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_reset(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, verdict_out.target()?);
        let subject = subject.slice(subject_len)?;
        with_subject!(limiter, kt_patience::KT_PATIENCE_WAIT, subject, |table, named| {
            with_call_clock!(limiter.time(now_ms)?, |clock| {
                table.reset(named, clock).put(target);
            });
        });
        Ok(())
    })
}

/// Writes the number of subjects that the limiter was created for.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_capacity(
    limiter: Handle<kt_limiter>,
    capacity_out: Out<u32>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, capacity_out.target()?);
        target.write(limiter.table.capacity());
        Ok(())
    })
}

/// Writes the number of slots: at least 1.5 times the capacity.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_slots_total(
    limiter: Handle<kt_limiter>,
    slots_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, slots_out.target()?);
        target.write(limiter.table.slots_total());
        Ok(())
    })
}

/// Writes the number of subjects whose slot cannot be given to another subject now. Reads the whole
/// table.
///
/// Statuses: `KT_NO_CLOCK`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_live_subjects(
    limiter: Handle<kt_limiter>,
    now_ms: u64,
    live_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, live_out.target()?);
        target.write(limiter.table.live_subjects(limiter.clock.time(now_ms)?.moment()));
        Ok(())
    })
}

/// Writes the number of requests that found no slot for their subject since the limiter was
/// created. What became of them is the choice of `kt_limiter_on_full` at that time.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_refusals(
    limiter: Handle<kt_limiter>,
    refusals_out: Out<u64>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, refusals_out.target()?);
        target.write(limiter.table.refusals());
        Ok(())
    })
}

/// Writes what happens to a new subject that finds no slot, a `kt_on_full`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_on_full(
    limiter: Handle<kt_limiter>,
    on_full_out: Out<u8>,
) -> kt_status {
    guard(|| {
        let (limiter, target) = (limiter.state()?, on_full_out.target()?);
        let on_full = match limiter.table.on_full() {
            OnFull::Share => kt_on_full::KT_ON_FULL_SHARE,
            OnFull::Refuse => kt_on_full::KT_ON_FULL_REFUSE,
        };
        target.write(on_full as u8);
        Ok(())
    })
}

/// Sets what happens to a new subject that finds no slot. The table stores it. It applies to all
/// processes that have the table open, from their next such request on.
///
/// Statuses: `KT_UNKNOWN_MEMBER` if the value is neither `KT_ON_FULL_SHARE` nor
/// `KT_ON_FULL_REFUSE`.
///
/// ```c
/// kt_status status = kt_limiter_set_on_full(&limiter, KT_ON_FULL_REFUSE);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_set_on_full(
    limiter: Handle<kt_limiter>,
    on_full: Number<kt_on_full>,
) -> kt_status {
    guard(|| {
        let limiter = limiter.state()?;
        limiter.table.set_on_full(match on_full.0 {
            0 => OnFull::Share,
            1 => OnFull::Refuse,
            _ => return Err(kt_status::KT_UNKNOWN_MEMBER),
        });
        Ok(())
    })
}

/// Writes the policy that the limiter was created with, and a NUL. Writes the length without the
/// NUL to `written_out`.
///
/// Statuses: `KT_DAMAGED`. `KT_BUFFER_TOO_SMALL`; `KT_POLICY_SIZE` bytes are always enough, and for
/// a limiter of addresses `KT_SECTIONS_SIZE`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_policy(
    limiter: Handle<kt_limiter>,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let limiter = limiter.state()?;
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.target()?);
        with_table!(limiter.table, |table| {
            let policy = table.policy().ok_or(kt_status::KT_DAMAGED)?;
            put(buffer, written, Text::<POLICY_LEN>::from_display(&policy).as_bytes())
        })
    })
}
