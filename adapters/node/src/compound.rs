//! Requests that charge several tallies: the facts of their verdicts, and the function `checkAll`.

use alloc::rc::Rc;
use alloc::sync::Arc;

use keytally::{
    Address, AddressLimiter, AddressPart, Charge, Compound, CompoundResponse, Counted, Current,
    Followed, Gate, GatePart, Limiter, LimiterPart, MAX_PARTS, MAX_QUOTAS, MAX_WARNINGS, Mapping,
    NamedQuota, Outcome, Patience, QuotaState, Section, TallyVerdict, Timestamp, table,
};
use napi::bindgen_prelude::External;
use napi_derive::napi;
use zeroize::Zeroizing;

use crate::clock::Time;
use crate::errors::{Result, error};
use crate::facts::{self, milliseconds};
use crate::held::{HeldGate, SharedGate};
use crate::request::{Request, patience_of};
use crate::values::Numbers;

/// The positions of the facts of a request with several tallies, as in `lib/facts.js`.
///
/// After them are, for each tally, its part, the numbers of its section and its own facts; for each
/// part that was charged, its index and the bytes of its charge; and for each warning that was
/// reached, the tally, the window and the percentage.
const OUTCOME: usize = 0;
const REASON: usize = 1;
/// -1 without a retry.
const RETRY_AFTER_S: usize = 2;
const CLOCK_AHEAD_S: usize = 3;
const UNCHARGED: usize = 4;
/// The flags of the tally that decided: see [`facts::flags_of`].
const FLAGS: usize = 5;
/// The index of the tally that decided.
const DECISIVE: usize = 6;
/// The index of the first tally of a valid key; -1 without one.
const HOLDER: usize = 7;
const WAITS_FROM_MS: usize = 8;
/// The index of the tally that `quotas` describes, with those of the same section after it.
const OWN: usize = 9;
/// The position of the facts of that tally; 0 if there are several such tallies.
const OWN_AT: usize = 10;
const TALLIES: usize = 11;
const CHARGES: usize = TALLIES + 1;
const CROSSED: usize = CHARGES + 1;
const HEAD: usize = CROSSED + 1;

/// The numbers of a section's name: how many bytes it has, and six of them in each.
const SECTION_LEN: usize = 4;

/// The numbers of a tally of a charge, with four bytes in each.
const ENTRY_LEN: usize = 4;

/// The most numbers that a request takes.
pub(crate) const MAX: usize = HEAD
    + MAX_PARTS * (1 + SECTION_LEN + facts::MAX + 2 + ENTRY_LEN)
    + MAX_PARTS * MAX_QUOTAS * MAX_WARNINGS * 3;

/// What a function returns for a request with several tallies: the number of its facts and this.
const IS_COMPOUND: usize = 100;

/// The gate of each part, and its number: see [`HeldGate::generation`]. `None` for a limiter.
pub(crate) type Gates<'g> = [Option<(&'g Gate, u32)>];

/// Writes the facts of the verdicts on all tallies of a request. Returns their number and
/// [`IS_COMPOUND`].
pub(crate) fn write(compound: &Compound, gates: &Gates<'_>, numbers: &mut [f64]) -> i32 {
    let Some((head, rest)) = numbers.split_first_chunk_mut::<HEAD>() else { return 0 };
    let mut out = Out { numbers: rest, len: 0 };
    let tallies = compound.tallies();
    let own = tallies.iter().position(|tally| tally.section() == Some(&Section::Key)).unwrap_or(0);
    let own_tally = tallies.get(own).map(|own| (own.part(), own.section()));
    let (mut ahead_s, mut holder, mut own_at, mut owns, mut parts) = (0, None, 0, 0, 0);
    for (index, tally) in tallies.iter().enumerate() {
        let gate = gates.get(tally.part()).copied().flatten();
        if own_tally == Some((tally.part(), tally.section())) {
            own_at = HEAD + out.len + 1 + SECTION_LEN;
            owns += 1;
        }
        put_tally(&mut out, compound, tally, gate);
        ahead_s = ahead_s.max(tally.verdict().clock_ahead_s());
        if gate.is_some() && tally.verdict().holder().is_some() {
            holder = holder.or(Some(index));
        }
        parts = parts.max(tally.part() + 1);
    }
    let (mut charges, mut crossed) = (0, 0);
    for part in 0..parts {
        if let Some(charge) = compound.charge(part) {
            put_charge(&mut out, part, &charge);
            charges += 1;
        }
    }
    for (index, tally) in tallies.iter().enumerate() {
        for (window, percent) in tally.crossed() {
            out.put(&[number(index), number(window), f64::from(percent)]);
            crossed += 1;
        }
    }
    let decisive_index = compound.decisive_index();
    let decisive =
        tallies.get(decisive_index).map_or_else(|| compound.decisive(), TallyVerdict::verdict);
    head[OUTCOME] = f64::from(decisive.outcome() as u8);
    head[REASON] = decisive.reason().map_or(0.0, |reason| f64::from(reason as u8));
    head[RETRY_AFTER_S] = decisive.retry_after_s().map_or(-1.0, f64::from);
    head[CLOCK_AHEAD_S] = f64::from(ahead_s);
    head[UNCHARGED] = f64::from(decisive.uncharged());
    head[FLAGS] = f64::from(facts::flags_of(decisive, false));
    head[DECISIVE] = number(decisive_index);
    head[HOLDER] = holder.map_or(-1.0, number);
    head[WAITS_FROM_MS] = milliseconds(decisive.waits_from());
    head[OWN] = number(own);
    head[OWN_AT] = if owns == 1 { number(own_at) } else { 0.0 };
    head[TALLIES] = number(tallies.len());
    head[CHARGES] = number(charges);
    head[CROSSED] = number(crossed);
    i32::try_from(IS_COMPOUND + HEAD + out.len).unwrap_or_default()
}

/// Writes the charge of a part: its index, the number of its tallies, and four bytes in each
/// number. The bytes after the last tally are 0 and are not written.
fn put_charge(out: &mut Out<'_>, part: usize, charge: &Charge) {
    let bytes = charge.to_bytes();
    let (entries, _) = bytes.as_chunks::<{ 4 * ENTRY_LEN }>();
    let is_used = |entry: &&[u8; 4 * ENTRY_LEN]| **entry != [0; 4 * ENTRY_LEN];
    let used = entries.iter().take_while(is_used).count();
    out.put(&[number(part), number(used)]);
    for entry in &entries[..used] {
        let (words, _) = entry.as_chunks();
        let mut numbers = [0.0; ENTRY_LEN];
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = f64::from(u32::from_le_bytes(*word));
        }
        out.put(&numbers);
    }
}

/// Writes the facts of one tally.
///
/// If its part may have several tallies, it has no charge. The charge of the part has them all.
fn put_tally(
    out: &mut Out<'_>,
    compound: &Compound,
    tally: &TallyVerdict,
    gate: Option<(&Gate, u32)>,
) {
    let has_several = match gate {
        Some((gate, _)) => gate.table().is_extended(),
        None => {
            let is_its = |other: &&TallyVerdict| other.part() == tally.part();
            compound.tallies().iter().filter(is_its).count() > 1
        }
    };
    let verdict = tally.verdict();
    let is_key = gate.is_some() && !verdict.quotas().is_empty();
    let section = match tally.section() {
        Some(section) => section.name(),
        None if is_key => Section::Key.name(),
        None => "",
    };
    let mut bytes = [0; 6 * (SECTION_LEN - 1)];
    if let Some(name) = bytes.get_mut(..section.len()) {
        name.copy_from_slice(section.as_bytes());
    }
    let mut named = [number(tally.part()), number(section.len()), 0.0, 0.0, 0.0];
    let (parts, _) = bytes.as_chunks();
    for (number, [a, b, c, d, e, f]) in named[2..].iter_mut().zip(parts) {
        let low = u32::from_le_bytes([*a, *b, *c, *d]);
        *number = f64::from(low) + f64::from(u16::from_le_bytes([*e, *f])) * TWO_TO_32;
    }
    out.put(&named);
    let generation = gate.map_or(0, |(_, generation)| generation);
    let is_charged = !has_several && verdict.is_charged();
    out.len += facts::write_tally(verdict, generation, is_charged, out.rest());
}

const TWO_TO_32: f64 = 4_294_967_296.0;

/// The numbers that are written.
struct Out<'n> {
    numbers: &'n mut [f64],
    len: usize,
}

impl Out<'_> {
    fn put(&mut self, numbers: &[f64]) {
        let end = self.len + numbers.len();
        if let Some(block) = self.numbers.get_mut(self.len..end) {
            block.copy_from_slice(numbers);
            self.len = end;
        }
    }

    fn rest(&mut self) -> &mut [f64] {
        self.numbers.get_mut(self.len..).unwrap_or_default()
    }
}

/// Returns a small number.
fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or_default())
}

/// Returns what `work` makes of the response of a request with these facts.
fn respond<T>(given: Numbers, work: impl FnOnce(&CompoundResponse<'_>) -> T) -> Result<T> {
    let response = parsed(given)?;
    let quotas: Vec<NamedQuota<'_>> = response
        .tallies
        .iter()
        .flat_map(|tally| {
            let section = (!tally.section.is_empty()).then_some(&*tally.section);
            let named =
                move |&state| NamedQuota::new(section, state, tally.states.cost, tally.is_own);
            tally.states.list().iter().map(named)
        })
        .collect();
    let Parsed { outcome, waits_from, retry_after_s, .. } = response;
    Ok(work(&CompoundResponse::new(outcome, &quotas, waits_from, retry_after_s)))
}

/// Returns the facts of a request.
fn parsed(mut given: Numbers) -> Result<Parsed> {
    parse(given.as_mut())
        .ok_or_else(|| error("TypeError", "the numbers are not the facts of a request"))
}

/// The facts that a response needs.
struct Parsed {
    outcome: Outcome,
    waits_from: Timestamp,
    retry_after_s: Option<u32>,
    tallies: Vec<ParsedTally>,
}

struct ParsedTally {
    section: String,
    is_own: bool,
    states: facts::States,
}

/// Returns the facts; `None` if the numbers are not those of a request.
fn parse(numbers: &[f64]) -> Option<Parsed> {
    let (head, mut rest) = numbers.split_first_chunk::<HEAD>()?;
    let count = usize::try_from(facts::whole(head[TALLIES])?).ok()?;
    let own = usize::try_from(facts::whole(head[OWN])?).ok()?;
    if count > MAX_PARTS {
        return None;
    }
    let mut tallies = Vec::new();
    let mut blocks = Vec::new();
    for _ in 0..count {
        let ([part, len, names @ ..], after) = rest.split_first_chunk::<{ 1 + SECTION_LEN }>()?;
        let section = section_of(*len, names)?;
        let (states, after) = facts::States::parse_first(after)?;
        blocks.push((facts::whole(*part)?, section.clone()));
        tallies.push(ParsedTally { section, is_own: false, states });
        rest = after;
    }
    let own = blocks.get(own).cloned();
    for (tally, block) in tallies.iter_mut().zip(&blocks) {
        tally.is_own = own.as_ref() == Some(block);
    }
    Some(Parsed {
        outcome: *Outcome::ALL.get(usize::try_from(facts::whole(head[OUTCOME])?).ok()?)?,
        waits_from: Timestamp::from_unix_ms(facts::time(head[WAITS_FROM_MS])),
        retry_after_s: match head[RETRY_AFTER_S] {
            -1.0 => None,
            seconds => Some(facts::whole(seconds)?),
        },
        tallies,
    })
}

/// Returns the name of a section.
fn section_of(len: f64, names: &[f64]) -> Option<String> {
    let len = usize::try_from(facts::whole(len)?).ok()?;
    let bytes = names.iter().flat_map(|name| {
        let number = facts::time(*name);
        let [a, b, c, d, e, f, ..] = number.to_le_bytes();
        [a, b, c, d, e, f]
    });
    let bytes: Vec<u8> = bytes.take(len).collect();
    String::from_utf8(bytes).ok()
}

/// Returns the header fields as lines that end with CR LF.
#[napi(catch_unwind)]
pub(crate) fn compound_headers_of(facts: Numbers) -> Result<String> {
    respond(facts, |response| response.headers().as_str().to_owned())
}

/// Returns the problem document.
#[napi(catch_unwind)]
pub(crate) fn compound_problem_of(facts: Numbers) -> Result<String> {
    respond(facts, |response| response.problem().to_string())
}

/// Returns the facts of the quota that `X-RateLimit-*` describe; none without one.
#[napi(catch_unwind)]
pub(crate) fn compound_described_of(facts: Numbers) -> Result<Vec<f64>> {
    let response = parsed(facts)?;
    let own = response.tallies.iter().filter(|tally| tally.is_own);
    let states: Vec<_> = own.flat_map(|tally| tally.states.list()).copied().collect();
    Ok(facts::quotas(QuotaState::described(&states).copied().into_iter()))
}

/// A key or a subject with a cost, as a part of a compound charge.
pub(crate) struct HeldPart {
    of: Of,
    cost: u32,
}

/// What a part charges.
enum Of {
    Key { held: Rc<HeldGate>, api_key: Option<Zeroizing<Vec<u8>>>, request: Request },
    Subject { limiter: Arc<Limiter>, subject: Vec<u8> },
    Address { limiter: Arc<AddressLimiter>, address: Address },
}

impl HeldPart {
    /// Returns the part of a key and a request.
    ///
    /// # Errors
    /// A `RangeError` if the gate does not have a group or a scope of the request.
    pub(crate) fn key(
        held: Rc<HeldGate>,
        api_key: Option<&[u8]>,
        cost: u32,
        request: Request,
    ) -> Result<Self> {
        request.part(held.shared.current().counted(), api_key, cost)?;
        let api_key = api_key.map(|text| Zeroizing::new(text.to_vec()));
        Ok(Self { of: Of::Key { held, api_key, request }, cost })
    }

    pub(crate) fn subject(limiter: Arc<Limiter>, subject: &[u8], cost: u32) -> Self {
        Self { of: Of::Subject { limiter, subject: subject.to_vec() }, cost }
    }

    pub(crate) const fn address(limiter: Arc<AddressLimiter>, address: Address, cost: u32) -> Self {
        Self { of: Of::Address { limiter, address }, cost }
    }

    /// Returns the gate of a key, if it follows its path.
    fn followed(&self) -> Option<&Followed> {
        match &self.of {
            Of::Key { held, .. } => match &held.shared {
                SharedGate::File(gate) => Some(gate),
                SharedGate::Memory(_) => None,
            },
            _ => None,
        }
    }
}

/// Checks the parts of one request, or only peeks, and charges all or none. `mode` is as in
/// `gate_check`.
#[napi(catch_unwind)]
pub(crate) fn decide_all(
    mode: u32,
    parts: Vec<&External<HeldPart>>,
    now: f64,
    mut facts: Numbers,
) -> Result<i32> {
    let (now, patience) = (Time::from(now), patience_of(mode));
    let followed: Vec<Option<&Followed>> = parts.iter().map(|part| part.followed()).collect();
    followed.iter().flatten().for_each(|gate| gate.reopen_if_due());
    let mut used = Vec::new();
    let compound = Followed::call_all(&followed, |current| {
        let mut current = current.iter();
        let gate_of = |part: &&External<HeldPart>| match &part.of {
            Of::Key { held, .. } => {
                let gate = match &held.shared {
                    SharedGate::Memory(gate) => Arc::clone(gate),
                    // More parts than a request can have are an error, which the decision returns.
                    SharedGate::File(_) => {
                        current.next().map_or_else(|| held.shared.current(), Current::to_arc)
                    }
                };
                let generation = held.generation(&gate);
                Some((gate, generation))
            }
            Of::Subject { .. } | Of::Address { .. } => None,
        };
        used = parts.iter().map(gate_of).collect();
        let charged = parts
            .iter()
            .zip(&used)
            .filter_map(|(part, gate)| {
                let patience = patience.unwrap_or(Patience::Return);
                let table = gate.as_ref().map(|(gate, _)| gate.counted_with(patience));
                Charged::new(part, table, patience).transpose()
            })
            .collect::<Result<Vec<_>>>()?;
        let decided = match (now, patience.is_none()) {
            (Time::Explicit(time), false) => table::check_all(&as_parts(&charged), time),
            (Time::Explicit(time), true) => table::peek_all(&as_parts(&charged), time),
            (Time::System, false) => keytally::check_all(&as_parts(&charged)),
            (Time::System, true) => keytally::peek_all(&as_parts(&charged)),
        };
        decided.map_err(|problem| error("RangeError", problem.to_string()))
    })?;
    let gates: Vec<_> = used
        .iter()
        .map(|used| used.as_ref().map(|(gate, generation)| (&**gate, *generation)))
        .collect();
    Ok(write(&compound, &gates, facts.as_mut()))
}

/// A part as host takes it.
enum Charged<'p> {
    Key(GatePart<'p, Mapping>),
    Subject(LimiterPart<'p, Mapping>),
    Address(AddressPart<'p, Mapping>),
}

impl<'p> Charged<'p> {
    /// Returns a part, of this gate if it is a key. Returns `None` for a key without a gate.
    fn new(
        part: &'p HeldPart,
        gate: Option<Counted<'p, Mapping>>,
        patience: Patience,
    ) -> Result<Option<Self>> {
        Ok(match &part.of {
            Of::Key { api_key, request, .. } => {
                let api_key = api_key.as_deref().map(Vec::as_slice);
                gate.map(|gate| request.part(gate, api_key, part.cost)).transpose()?.map(Self::Key)
            }
            Of::Subject { limiter, subject } => {
                Some(Self::Subject(limiter.reserving(patience).part(subject, part.cost)))
            }
            Of::Address { limiter, address } => {
                Some(Self::Address(limiter.reserving(patience).part(*address, part.cost)))
            }
        })
    }
}

/// Returns parts as host takes them.
fn as_parts<'p, C: keytally::Clock>(parts: &'p [Charged<'_>]) -> Vec<&'p dyn keytally::Part<C>> {
    let as_part = |part: &'p Charged<'_>| -> &'p dyn keytally::Part<C> {
        match part {
            Charged::Key(part) => part,
            Charged::Subject(part) => part,
            Charged::Address(part) => part,
        }
    };
    parts.iter().map(as_part).collect()
}
