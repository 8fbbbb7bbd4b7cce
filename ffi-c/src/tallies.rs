//! The result of a request that charges several tallies, and the HTTP response that follows from
//! it.

use core::ffi::{CStr, c_char};
use core::fmt::Write as _;

use heapless::Vec;
use keytally_core::{
    Charge, Compound, CompoundResponse, MAX_QUOTAS, NamedQuota, Section, Text, Timestamp,
};

use crate::charge::kt_charge;
use crate::guard::guard;
use crate::pointers::{In, Number, Out, Target, plain};
use crate::status::{FfiResult, kt_status};
use crate::text::{put, to_characters};
use crate::verdict::{
    KT_MAX_FIELDS, body, kt_field, kt_outcome, kt_reason, kt_verdict, put_fields,
};

/// The most parts of a compound charge, and the most tallies that its parts charge together.
pub const KT_MAX_PARTS: usize = 8;

/// Bytes of the name of a section, with the NUL.
pub const KT_SECTION_SIZE: usize = 17;

/// Bytes of the name of a quota in header fields, such as `team-hour`, with the NUL.
pub const KT_QUOTA_NAME_SIZE: usize = 26; // section, hyphen, window

/// Bytes that are always enough for the header fields of a compound charge, with the NUL.
pub const KT_COMPOUND_HEADERS_SIZE: usize = 4096;

/// Bytes that are always enough for the problem document of a compound charge, with the NUL.
pub const KT_COMPOUND_PROBLEM_SIZE: usize = 1280;

/// Quotas of a tally that `kt_tally` has room for.
const QUOTA_SLOTS: usize = 8;

const _: () = {
    assert!(KT_MAX_PARTS == keytally_core::MAX_PARTS);
    assert!(KT_SECTION_SIZE == keytally_core::MAX_GROUP_NAME_LEN + 1);
    assert!(KT_COMPOUND_HEADERS_SIZE == keytally_core::MAX_COMPOUND_HEADERS_LEN);
    assert!(KT_COMPOUND_PROBLEM_SIZE == keytally_core::MAX_COMPOUND_PROBLEM_LEN);
    assert!(KT_MAX_FIELDS == keytally_core::MAX_FIELDS);
    assert!(MAX_QUOTAS <= QUOTA_SLOTS && keytally_core::MAX_WARNINGS == 2);
    assert!(size_of::<kt_tally>() == 320 && size_of::<kt_compound>() == 2624);
};

plain! {
    /// The verdict on one tally of a compound charge. Its size is fixed. This library writes it;
    /// reserved members are zeros.
    #[derive(Debug)]
    pub struct kt_tally {
        /// The verdict.
        pub verdict: kt_verdict,
        /// The charge in a form of this library: see `kt_compound_charge`.
        pub private_: [u64; 2],
        /// The section of the gate's plans: `key`, `team` or the name of a group, with a NUL. In a
        /// limiter of addresses, a network larger than the client's own: `prefix-56`. Otherwise
        /// empty for a limiter, and if the check reached no tally.
        pub section: [c_char; KT_SECTION_SIZE],
        /// The index of the part in the call.
        pub part: u8,
        /// The warnings that this charge reached: for each quota of the verdict, up to two
        /// percentages of its limit, else 0. One request reports each warning.
        pub crossed: [[u8; 2]; 8],
        /// Zeros.
        pub reserved_: [u8; 14],
    }

    /// The answer to a request that charges several tallies, all or none. It is a struct without
    /// pointers, which may be copied, stored and sent.
    ///
    /// Its size is fixed. This library writes it; reserved members are zeros.
    #[derive(Debug)]
    pub struct kt_compound {
        /// What was decided about the request.
        pub outcome: Number<kt_outcome>,
        /// Why a key is invalid. Do not disclose it to the client.
        pub reason: Number<kt_reason>,
        /// The HTTP status: 401, 403, 429, 503, or 200 if admitted, which the application may
        /// replace.
        pub http_status: u16,
        /// Seconds to wait, at least 1. 0 unless denied or full.
        pub retry_after_s: u32,
        /// The key id of the first key whose secret is right. 0 if there is none.
        pub key_id: u64,
        /// The account (team) of that key. Without meaning if `key_id` is 0.
        pub account: u32,
        /// The number of that key's plan; `kt_gate_plan` returns its name.
        pub plan: u8,
        /// The number of that key's environment; `kt_gate_env` returns its name.
        pub env: u8,
        /// The number of verdicts in `tallies`, at least 1.
        pub tally_count: u8,
        /// The index of the verdict that decided. It is that of a missing or invalid key, else of a
        /// missing scope, else of a full limiter, else of a tally that the cost is above a limit
        /// of, else the denial that lasts longest. If the request is admitted, it is 0.
        pub decisive_index: u8,
        /// When to try a denied request again, in Unix milliseconds. 0 unless denied or full.
        pub retry_at_ms: u64,
        /// The units left in the window that the fields `X-RateLimit-*` describe; 0 if there is
        /// none.
        pub remaining: u32,
        /// Zero.
        pub reserved_4_: u32,
        /// Zeros.
        pub reserved_: [u64; 3],
        /// The verdicts, in the order of the parts. Those of a gate are in the order of its
        /// sections, and the first of them is that of the key. If the request is refused, each part
        /// that refused it has a verdict with another outcome than `KT_ADMITTED`.
        pub tallies: [kt_tally; KT_MAX_PARTS],
    }
}

impl Target<'_, kt_compound> {
    /// Writes the result of a compound charge.
    pub(crate) fn put_compound(self, compound: &Compound) {
        let out = self.zeroed();
        let decisive = compound.decisive();
        out.outcome = Number(decisive.outcome() as u8);
        out.reason = Number(decisive.reason().map_or(0, |reason| reason as u8));
        out.http_status = decisive.http_status();
        out.retry_at_ms = decisive.retry_at().map_or(0, Timestamp::unix_ms);
        out.retry_after_s = decisive.retry_after_s().unwrap_or(0);
        if let Some(holder) = compound.holder() {
            out.key_id = holder.key_id.number();
            (out.account, out.plan, out.env) = (holder.account, holder.plan, holder.env);
        }
        out.tally_count = u8::try_from(compound.tallies().len()).unwrap_or(0);
        out.decisive_index = u8::try_from(compound.decisive_index()).unwrap_or(0);
        out.remaining = compound.remaining().unwrap_or(0);
        for (out, tally) in out.tallies.iter_mut().zip(compound.tallies()) {
            out.verdict.fill(tally.verdict());
            let section = tally.section().map_or("", Section::name);
            out.section = to_characters(section.as_bytes());
            out.part = u8::try_from(tally.part()).unwrap_or(0);
            for (window, percent) in tally.crossed() {
                let slots = out.crossed.get_mut(window);
                if let Some(slot) = slots.and_then(|its| its.iter_mut().find(|slot| **slot == 0)) {
                    *slot = percent;
                }
            }
        }
        for part in 0..KT_MAX_PARTS {
            let Some(charge) = compound.charge(part) else { continue };
            // The charge of a part lists those of its tallies in their order, 16 bytes for each.
            let bytes = charge.to_bytes();
            let (entries, _) = bytes.as_chunks::<8>();
            let charged =
                out.tallies.iter_mut().zip(compound.tallies()).filter(|(_, tally)| {
                    tally.part() == part && tally.verdict().charge().is_some()
                });
            for ((out, _), entry) in charged.zip(entries.chunks_exact(2)) {
                for (word, bytes) in out.private_.iter_mut().zip(entry) {
                    *word = u64::from_ne_bytes(*bytes);
                }
            }
        }
    }
}

impl kt_tally {
    /// Returns the section, that of a prefix as a group; `None` if there is none.
    fn section(&self) -> FfiResult<Option<Section>> {
        let damaged = kt_status::KT_NOT_A_VERDICT;
        let bytes = self.section.map(|character| u8::from_ne_bytes(character.to_ne_bytes()));
        let name = CStr::from_bytes_until_nul(&bytes).ok().and_then(|name| name.to_str().ok());
        match name.ok_or(damaged)? {
            "" => Ok(None),
            "key" => Ok(Some(Section::Key)),
            "team" => Ok(Some(Section::Team)),
            name => Section::group(name).map(Some).ok_or(damaged),
        }
    }
}

impl kt_compound {
    fn tallies(&self) -> FfiResult<&[kt_tally]> {
        let tallies = self.tallies.get(..self.tally_count.into());
        tallies.filter(|tallies| !tallies.is_empty()).ok_or(kt_status::KT_NOT_A_VERDICT)
    }

    /// Returns the verdict that decided.
    fn decisive(&self) -> FfiResult<&kt_verdict> {
        let tally = self.tallies()?.get(usize::from(self.decisive_index));
        tally.map(|tally| &tally.verdict).ok_or(kt_status::KT_NOT_A_VERDICT)
    }

    /// Calls `respond` with the values that a response shows.
    fn respond<R>(&self, respond: impl FnOnce(CompoundResponse<'_>) -> R) -> FfiResult<R> {
        let damaged = kt_status::KT_NOT_A_VERDICT;
        let (tallies, decisive) = (self.tallies()?, self.decisive()?);
        let mut sections = Vec::<Option<Section>, KT_MAX_PARTS>::new();
        for tally in tallies {
            tally.verdict.outcome()?;
            tally.verdict.expect_reason()?;
            sections.push(tally.section()?).map_err(|_| damaged)?;
        }
        // The window of the first key is described, or that of the first tally.
        let is_key = |section: &Option<Section>| *section == Some(Section::Key);
        let own = sections.iter().position(is_key).unwrap_or(0);
        let own = tallies.get(own).zip(sections.get(own)).map(|(own, section)| (own.part, section));
        let mut quotas = Vec::<NamedQuota<'_>, { KT_MAX_PARTS * MAX_QUOTAS }>::new();
        for (tally, section) in tallies.iter().zip(&sections) {
            let name = section.as_ref().map(Section::name);
            let is_own = own == Some((tally.part, section));
            for index in 0..usize::from(tally.verdict.quota_count) {
                let state = tally.verdict.quota(index)?;
                let quota = NamedQuota::new(name, state, tally.verdict.cost, is_own);
                quotas.push(quota).map_err(|_| damaged)?;
            }
        }
        let (waits_from, retry_after) = (decisive.waits_from(), decisive.retry_after()?);
        let response = CompoundResponse::new(decisive.outcome()?, &quotas, waits_from, retry_after);
        Ok(respond(response))
    }
}

/// Writes what a part was charged, for a later refund or settlement of all its tallies. Its cost is
/// 0 unless the request was admitted: a refund of it then does nothing.
///
/// `part` is the index of the part in the call; 0 for `kt_gate_check_request`.
///
/// Statuses: `KT_NOT_A_VERDICT`, `KT_PART_COUNT` if there is no such part.
///
/// ```c
/// kt_charge charge;
/// if (kt_compound_charge(&compound, 0, &charge) == KT_OK)
///     kt_gate_refund(gate, compound.key_id, &charge, KT_SYSTEM_CLOCK, &verdict);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_compound_charge(
    compound: In<kt_compound>,
    part: usize,
    charge_out: Out<kt_charge>,
) -> kt_status {
    guard(|| {
        let target = charge_out.target()?;
        let mut its =
            compound.get()?.tallies()?.iter().filter(|tally| usize::from(tally.part) == part);
        let first = its.clone().next().ok_or(kt_status::KT_PART_COUNT)?;
        let none = Charge::new(0, Timestamp::from_unix_ms(first.verdict.at_ms));
        let mut charge = kt_charge { words: [0; 16] };
        let (entries, _) = charge.words.as_chunks_mut::<2>();
        let charged = its.by_ref().map(|tally| tally.private_).filter(|words| *words != [0; 2]);
        let mut count = 0;
        for (entry, words) in entries.iter_mut().zip(charged) {
            *entry = words;
            count += 1;
        }
        target.put_charge(match count {
            0 => none,
            _ => charge.to_core().map_err(|_| kt_status::KT_NOT_A_VERDICT)?,
        });
        Ok(())
    })
}

/// Writes the name that header fields have for the quota at `index` of a tally, such as `hour` or
/// `team-hour`, and a NUL. Writes the length without the NUL to `written_out`.
///
/// Statuses: `KT_NO_SUCH_QUOTA`, `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`; `KT_QUOTA_NAME_SIZE`
/// bytes are always enough.
///
/// ```c
/// char name[KT_QUOTA_NAME_SIZE];
/// size_t written;
/// for (size_t i = 0; i < tally->verdict.quota_count; i++)
///     if (tally->crossed[i][0] > 0 &&
///         kt_tally_quota_name(tally, i, name, sizeof name, &written) == KT_OK)
///         printf("%s has reached %u %%\n", name, (unsigned)tally->crossed[i][0]);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn kt_tally_quota_name(
    tally: In<kt_tally>,
    index: usize,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.target()?);
        let tally = tally.get()?;
        let section = tally.section()?;
        let state = tally.verdict.quota(index)?;
        let quota = NamedQuota::new(section.as_ref().map(Section::name), state, 0, false);
        let mut name = Text::<KT_QUOTA_NAME_SIZE>::new();
        // The longest name fits.
        let _ = write!(name, "{quota}");
        put(buffer, written, name.as_bytes())
    })
}

/// Writes the header fields of the response, each `Name: value` with CR LF, and a NUL. Writes their
/// length without the NUL to `written_out`.
///
/// `X-RateLimit-*` describe a window of the first key, or of the first part if there is no key.
/// `RateLimit` and `RateLimit-Policy` list the windows of all tallies. Set these fields instead of
/// appending them: a response must have each only once.
///
/// Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written;
/// `KT_COMPOUND_HEADERS_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_compound_headers(
    compound: In<kt_compound>,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.target()?);
        let headers = compound.get()?.respond(|response| response.headers())?;
        put(buffer, written, headers.as_bytes())
    })
}

/// Writes the header fields of the response one by one, for servers that set each field by a call.
/// Writes their number to `count_out`.
///
/// `buffer` receives the values, and `fields_out` receives one element for each field. Set these
/// fields instead of appending them: a response must have each only once.
///
/// Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written;
/// `KT_COMPOUND_HEADERS_SIZE` bytes and `KT_MAX_FIELDS` elements are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_compound_fields<'c>(
    compound: In<kt_compound>,
    buffer: Out<'c, c_char>,
    buffer_len: usize,
    fields_out: Out<kt_field<'c>>,
    fields_len: usize,
    count_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let buffer = buffer.buffer(buffer_len)?;
        let (fields, count) = (fields_out.targets(fields_len)?, count_out.target()?);
        compound.get()?.respond(|response| {
            put_fields(
                buffer,
                fields,
                count,
                |values: &mut [u8; KT_COMPOUND_HEADERS_SIZE], report| {
                    response.write_fields(values, report);
                },
            )
        })?
    })
}

/// Returns the response body, JSON with a NUL. It is empty if admitted, and for a struct that is
/// not the result of a compound charge. It does not disclose why a key is invalid.
///
/// Never NULL. The text is static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn kt_compound_body(compound: In<kt_compound>) -> In<'static, c_char> {
    let outcome = compound.get().and_then(|compound| compound.decisive()?.outcome());
    In::from_static(outcome.map_or(c"", body))
}

/// Writes the body as a problem document (`application/problem+json`, RFC 9457), with a NUL. It
/// names the violated quotas of all tallies. Writes the length without the NUL to `written_out`.
/// Empty if admitted.
///
/// Statuses: `KT_NOT_A_VERDICT`. `KT_BUFFER_TOO_SMALL`, and nothing is written;
/// `KT_COMPOUND_PROBLEM_SIZE` bytes are always enough.
#[unsafe(no_mangle)]
pub extern "C" fn kt_compound_problem(
    compound: In<kt_compound>,
    buffer: Out<c_char>,
    buffer_len: usize,
    written_out: Out<usize>,
) -> kt_status {
    guard(|| {
        let (buffer, written) = (buffer.buffer(buffer_len)?, written_out.target()?);
        let problem: Text<KT_COMPOUND_PROBLEM_SIZE> =
            compound.get()?.respond(|response| response.problem())?;
        put(buffer, written, problem.as_bytes())
    })
}
