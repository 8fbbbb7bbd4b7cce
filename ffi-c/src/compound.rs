//! Compound charges: several keys and subjects of one request, charged all or none.

use heapless::Vec;
use keytally_core::{GatePart, Limiter, LimiterPart, MAX_PARTS, Part, check_all};

use crate::gate::{InForce, kt_gate};
use crate::guard::guard;
use crate::limiter::kt_limiter;
use crate::pointers::{Handle, In, Lines, Out, plain};
use crate::status::{FfiResult, kt_status};
use crate::time::{Time, with_clock};
use crate::verdict::kt_verdict;

/// The most parts of a compound charge.
pub const KT_MAX_PARTS: usize = 8;

const _: () = assert!(KT_MAX_PARTS == MAX_PARTS);

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
        /// Zero.
        pub reserved_: u32,
    }
}

/// The table of a part, and what is charged in it.
enum Table<'c> {
    Gate(InForce<'c>, Option<&'c [u8]>),
    Limiter(&'c Limiter<Lines>, &'c [u8]),
}

impl<'c> Table<'c> {
    fn of(part: &kt_part<'c>) -> FfiResult<Self> {
        match (part.gate.is_null(), part.limiter.is_null()) {
            (false, true) => {
                Ok(Self::Gate(part.gate.in_force()?, part.text.optional(part.text_len)?))
            }
            (true, false) => {
                Ok(Self::Limiter(&part.limiter.state()?.table, part.text.slice(part.text_len)?))
            }
            _ => Err(kt_status::KT_PART_TABLE),
        }
    }
}

/// A part as core takes it.
enum Charged<'t> {
    Key(GatePart<'t, Lines>),
    Subject(LimiterPart<'t, Lines>),
}

/// Checks several keys and subjects of one request, and charges all or none.
///
/// If a key is invalid or a window lacks room, nothing is charged. If another request spends the
/// room while this one is charged, charges made before are given back, and may deny other requests
/// meanwhile. Do not reset the counts of these tallies while requests are checked. `count` is 1 to
/// `KT_MAX_PARTS`. `now_ms` means what it means to the handle of the first part.
///
/// `verdicts_out` has room for `count` verdicts, one for each part. If the request is refused, each
/// part that refused it has another outcome than `KT_ADMITTED`, and no verdict has a charge.
/// `decisive_out` gets the index of the verdict whose status and body the response has: that of a
/// missing or invalid key, else of a full limiter, else of a part that the cost is above a limit
/// of, else the denial that lasts longest. If the request is admitted, it is 0.
///
/// Statuses: `KT_PART_COUNT`, `KT_PART_TABLE`, `KT_NO_CLOCK`.
///
/// ```c
/// const kt_part parts[] = {{gate, NULL, api_key, api_key_len, 1, 0},
///                          {NULL, addresses, address, address_len, 1, 0}};
/// kt_verdict verdicts[2];
/// size_t decisive;
/// if (kt_check_all(parts, 2, KT_SYSTEM_CLOCK, verdicts, &decisive) == KT_OK
///     && verdicts[decisive].outcome != KT_ADMITTED)
///     return respond(verdicts[decisive].http_status, kt_verdict_body(&verdicts[decisive]));
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_check_all(
    parts: In<kt_part>,
    count: usize,
    now_ms: u64,
    verdicts_out: Out<kt_verdict>,
    decisive_out: Out<usize>,
) -> kt_status {
    guard(|| {
        if !(1..=KT_MAX_PARTS).contains(&count) {
            return Err(kt_status::KT_PART_COUNT);
        }
        let parts = parts.slice(count)?;
        let (mut verdicts, decisive) = (verdicts_out.targets(count)?, decisive_out.target()?);
        let mut tables = Vec::<Table<'_>, MAX_PARTS>::new();
        for part in parts {
            // There is room for all of them.
            let _ = tables.push(Table::of(part)?);
        }
        let time = match tables.first() {
            Some(Table::Gate(gate, _)) => gate.clock.time(now_ms)?,
            _ => parts.first().map_or_else(
                || Time::new(now_ms),
                |part| part.limiter.state()?.clock.time(now_ms),
            )?,
        };
        let mut charged = Vec::<Charged<'_>, MAX_PARTS>::new();
        for (table, part) in tables.iter().zip(parts) {
            let _ = charged.push(match table {
                Table::Gate(gate, api_key) => Charged::Key(gate.part(*api_key, part.cost)),
                Table::Limiter(limiter, subject) => {
                    Charged::Subject(limiter.part(subject, part.cost))
                }
            });
        }
        let compound = with_clock!(time, |clock| {
            let mut list = Vec::<&mut dyn Part<_>, MAX_PARTS>::new();
            for part in &mut charged {
                let _ = list.push(match part {
                    Charged::Key(part) => part,
                    Charged::Subject(part) => part,
                });
            }
            check_all(&mut list, clock)
        });
        let compound = compound.map_err(|_| kt_status::KT_PART_COUNT)?;
        for (index, verdict) in compound.verdicts().enumerate() {
            if let Some(target) = verdicts.at(index) {
                target.put_verdict(verdict);
            }
        }
        decisive.write(compound.decisive_index());
        Ok(())
    })
}
