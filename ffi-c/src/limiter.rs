//! The limiter: a table of tallies for any subject.

use core::ffi::c_char;

use keytally_core::{Limiter, Line};

use crate::clock::{HandleClock, with_clock};
use crate::guard::guard;
use crate::pointers::{Handle, Held, In, Lines, Memory, Out};
use crate::policy::{KT_POLICY_SIZE, policy};
use crate::status::kt_status;
use crate::text::{Text, put};
use crate::verdict::{kt_charge, kt_verdict};

/// Bytes of a limiter's handle.
pub const KT_LIMITER_HANDLE_SIZE: usize = 384;

/// The alignment of handles.
pub const KT_HANDLE_ALIGN: usize = 8;

/// The alignment of a table's memory.
pub const KT_TABLE_ALIGN: usize = 64;

/// The most subjects of a limiter.
pub const KT_MAX_SUBJECTS: u32 = 1073741824;

const _: () = {
    assert!(size_of::<kt_limiter>() == KT_LIMITER_HANDLE_SIZE && align_of::<kt_limiter>() == KT_HANDLE_ALIGN);
    assert!(align_of::<Line>() == KT_TABLE_ALIGN);
    assert!(KT_MAX_SUBJECTS == keytally_core::MAX_SUBJECTS);
};

/// A limiter as one process holds it. Declare one beside the table's memory and give it to `kt_limiter_init` or
/// `kt_limiter_attach`, or get one from `kt_limiter_open`. It must not be moved or copied once it is in use. What is in
/// it is this library's.
#[derive(Debug)]
#[repr(C)]
pub struct kt_limiter {
    private_: [u64; 48],
}

/// What is in it.
#[derive(Debug)]
pub struct LimiterState {
    pub(crate) table: Limiter<Lines>,
    pub(crate) clock: HandleClock,
    /// The file that the lines are mapped from.
    #[cfg(feature = "host")]
    #[expect(dead_code, reason = "it keeps the mapping")]
    pub(crate) file: Option<Box<keytally::Limiter>>,
}

impl Held for kt_limiter {
    type State = LimiterState;
    const MAGIC: u64 = u64::from_le_bytes(*b"ktlimit\x02");
}

/// Of a table that lies in memory of the caller's.
fn in_memory(table: Limiter<Lines>) -> LimiterState {
    LimiterState {
        table,
        clock: HandleClock::default(),
        #[cfg(feature = "host")]
        file: None,
    }
}

/// Bytes of the memory that a limiter for `capacity` subjects takes; 0 when there can be no such limiter.
/// `KT_LIMITER_SIZE` is the same as a constant.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_size(capacity: u32) -> usize {
    if !(1..=KT_MAX_SUBJECTS).contains(&capacity) {
        return 0;
    }
    Limiter::<Lines>::lines(capacity).checked_mul(KT_TABLE_ALIGN).unwrap_or(0)
}

/// Bytes of a limiter's handle, as this library has it: `KT_LIMITER_HANDLE_SIZE` of the header that it belongs to.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_handle_size() -> usize {
    KT_LIMITER_HANDLE_SIZE
}

/// Makes a limiter for `capacity` subjects, 1 to `KT_MAX_SUBJECTS`, in memory that nobody uses.
///
/// `memory` is at least `kt_limiter_size(capacity)` bytes at a multiple of 64, which stay where they are and are used for
/// nothing else until the handle is closed. `seed` is 16 random bytes: they keep clients from choosing subjects that meet in
/// one bucket.
///
/// Statuses: those that begin with `KT_POLICY_`; `KT_CAPACITY`, `KT_MEMORY_TOO_SMALL`, `KT_OVERLAP`.
///
/// ```c
/// static _Alignas(KT_TABLE_ALIGN) unsigned char memory[KT_LIMITER_SIZE(1000)];
/// kt_limiter limiter;
/// kt_status status = kt_limiter_init(memory, sizeof memory, KT_TEXT("5/minute"), 1000, seed, &limiter);
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
        let place = limiter_out.place()?;
        let policy = self::policy(policy, policy_len)?;
        let seed = seed.read()?;
        if kt_limiter_size(capacity) == 0 {
            return Err(kt_status::KT_CAPACITY);
        }
        let memory = memory.first(Limiter::<Lines>::lines(capacity));
        place.put(in_memory(Limiter::create(memory, &policy, capacity, seed)?));
        Ok(())
    })
}

/// Opens a limiter that was made in this memory, by this process or by another that shares it: it may lie at another
/// address there. `memory_len` may be more than the limiter has.
///
/// Statuses: `KT_NOT_A_TABLE`, `KT_UNFINISHED`, `KT_OTHER_FORMAT`, `KT_OTHER_KIND`, `KT_TRUNCATED`, `KT_DAMAGED`,
/// `KT_OVERLAP`.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_attach(
    memory: Memory,
    memory_len: usize,
    limiter_out: Out<kt_limiter>,
) -> kt_status {
    guard(|| {
        let memory = memory.lines(memory_len, &limiter_out)?;
        let place = limiter_out.place()?;
        let memory = told(memory);
        place.put(in_memory(Limiter::attach(memory)?));
        Ok(())
    })
}

/// As much of the memory as the table in it says that it has, so that memory may be larger than a table.
pub(crate) fn told(memory: Lines) -> Lines {
    let bytes = memory.as_ref().first().map_or(0, |line| line.load(2));
    // A length that is none is for the core to refuse.
    match usize::try_from(bytes) {
        Ok(bytes) if bytes > 0 && bytes.is_multiple_of(KT_TABLE_ALIGN) => {
            memory.first(bytes / KT_TABLE_ALIGN)
        }
        _ => memory,
    }
}

/// Ends a handle, of whichever origin: wipes it, unmaps its file, frees it if this library made it. The table itself stays
/// as it is. No call that uses the handle may be under way. NULL and what is no handle are left alone.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_close(limiter: Handle<kt_limiter>) {
    let _ = guard(|| {
        limiter.close();
        Ok(())
    });
}

/// Charges `cost` to every window of the subject if all have room for it, else to none.
///
/// A subject is any bytes: an address, a user, a route; only their hash is kept. A cost of 0 is admitted and writes nothing.
/// `now_ms` is an explicit time in Unix milliseconds, or `KT_SYSTEM_CLOCK`: see the contract.
///
/// Every answer is `KT_OK`: whether the request may go on is the verdict's `outcome`, which is `KT_ADMITTED`, `KT_DENIED`,
/// `KT_TOO_COSTLY` or `KT_FULL`.
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
        let (limiter, place) = (limiter.state()?, verdict_out.place()?);
        let subject = subject.slice(subject_len)?;
        with_clock!(limiter.clock.time(now_ms)?, |clock| {
            place.put_verdict(&limiter.table.check(subject, cost, clock));
        });
        Ok(())
    })
}

/// What `kt_limiter_check` would answer now, without the charge. It doesn't look whether a new subject would find a slot.
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
        let (limiter, place) = (limiter.state()?, verdict_out.place()?);
        let subject = subject.slice(subject_len)?;
        with_clock!(limiter.clock.time(now_ms)?, |clock| {
            place.put_verdict(&limiter.table.peek(subject, cost, clock));
        });
        Ok(())
    })
}

/// Gives back what a check charged, in the windows that still count it. `charge` is the `charge` of its verdict. Refund a
/// charge once.
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
        let (limiter, place) = (limiter.state()?, verdict_out.place()?);
        let (subject, charge) = (subject.slice(subject_len)?, charge.read()?.charge());
        let verdict =
            with_clock!(limiter.clock.time(now_ms)?, |clock| limiter.table.refund(subject, charge, clock));
        place.put_verdict(&verdict);
        Ok(())
    })
}

/// Replaces an estimate by the actual cost: refunds the difference, or charges it as far as there is room. What found no
/// room is the verdict's `uncharged`. Settle a charge once.
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
        let (limiter, place) = (limiter.state()?, verdict_out.place()?);
        let (subject, estimate) = (subject.slice(subject_len)?, estimate.read()?.charge());
        let verdict = with_clock!(limiter.clock.time(now_ms)?, |clock| {
            limiter.table.settle(subject, estimate, actual, clock)
        });
        place.put_verdict(&verdict);
        Ok(())
    })
}

/// Forgets all counts of the subject.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_reset(
    limiter: Handle<kt_limiter>,
    subject: In<u8>,
    subject_len: usize,
    now_ms: u64,
    verdict_out: Out<kt_verdict>,
) -> kt_status {
    guard(|| {
        let (limiter, place) = (limiter.state()?, verdict_out.place()?);
        let subject = subject.slice(subject_len)?;
        let verdict = with_clock!(limiter.clock.time(now_ms)?, |clock| limiter.table.reset(subject, clock));
        place.put_verdict(&verdict);
        Ok(())
    })
}

/// How many subjects the limiter was made for.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_capacity(limiter: Handle<kt_limiter>, capacity_out: Out<u32>) -> kt_status {
    guard(|| {
        let (limiter, place) = (limiter.state()?, capacity_out.place()?);
        place.write(limiter.table.capacity());
        Ok(())
    })
}

/// How many subjects have a slot that can't be reused now. Reads the whole table.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_live(limiter: Handle<kt_limiter>, now_ms: u64, live_out: Out<u64>) -> kt_status {
    guard(|| {
        let (limiter, place) = (limiter.state()?, live_out.place()?);
        place.write(limiter.table.live_subjects(limiter.clock.time(now_ms)?.moment()));
        Ok(())
    })
}

/// Writes the policy that the limiter was made with, ended by a NUL, and its length without that.
///
/// Statuses: `KT_DAMAGED`; `KT_BUFFER_TOO_SMALL`: `KT_POLICY_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_limiter_policy(
    limiter: Handle<kt_limiter>,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let limiter = limiter.state()?;
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.place()?);
        let policy = limiter.table.policy().ok_or(kt_status::KT_DAMAGED)?;
        put(buffer, written, Text::<KT_POLICY_SIZE>::of(&policy).as_bytes())
    })
}
