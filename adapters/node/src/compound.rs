//! Requests that charge several tallies: their verdicts, and the function `checkAll`.

use alloc::sync::Arc;

use keytally::{
    Address, AddressLimiter, AddressPart, Compound, Current, Followed, Gate, GatePart, Limiter,
    LimiterPart, Mapping, QuotaState, Section, TallyVerdict, table,
};
use napi::bindgen_prelude::{Buffer, External};
use napi_derive::napi;
use zeroize::Zeroizing;

use crate::charge;
use crate::clock::{Time, with_clock};
use crate::errors::{Result, error};
use crate::facts;
use crate::held::{SharedGate, names_of};
use crate::request::{GroupCost, Request};

/// The verdicts of core on all tallies of a request.
pub(crate) struct HeldCompound {
    compound: Compound,
    /// The gate of each part; `None` for a limiter.
    gates: Vec<Option<Arc<Gate>>>,
    /// The units of each group that a settlement could not charge.
    uncharged: Vec<GroupCost>,
}

impl HeldCompound {
    pub(crate) const fn new(compound: Compound, gates: Vec<Option<Arc<Gate>>>) -> Self {
        Self { compound, gates, uncharged: Vec::new() }
    }

    pub(crate) fn with_uncharged(self, uncharged: Vec<GroupCost>) -> Self {
        Self { uncharged, ..self }
    }

    /// Returns the facts of the verdict on one tally.
    ///
    /// If its part may have several tallies, it has no charge. The charge of the part has them all.
    fn tally(&self, tally: &TallyVerdict) -> TallyFacts {
        let gate = self.gates.get(tally.part()).and_then(Option::as_deref);
        let has_several = match gate {
            Some(gate) => gate.table().is_extended(),
            None => {
                let is_its = |other: &&TallyVerdict| other.part() == tally.part();
                self.compound.tallies().iter().filter(is_its).count() > 1
            }
        };
        let verdict = tally.verdict();
        let is_charged = !has_several && verdict.charge().is_some();
        let names = gate.zip(verdict.holder()).map(|(gate, holder)| names_of(gate, holder));
        let (plan, env) = names.unwrap_or_default();
        let is_key = gate.is_some() && !verdict.quotas().is_empty();
        let section = tally.section().map(|section| section.name().to_owned());
        TallyFacts {
            part: u32::try_from(tally.part()).unwrap_or_default(),
            section: section.or_else(|| is_key.then(|| "key".to_owned())),
            facts: facts::list(verdict, is_charged, verdict.is_shared()),
            plan,
            env,
        }
    }

    /// Returns the quotas of the tallies that the fields `X-RateLimit-*` describe: those of the
    /// first key, or of the first part without one.
    fn quotas(&self) -> impl Iterator<Item = QuotaState> + '_ {
        let tallies = self.compound.tallies();
        let is_key = |tally: &&TallyVerdict| tally.section() == Some(&Section::Key);
        let own = tallies.iter().find(is_key).or(tallies.first());
        let is_own = move |tally: &&TallyVerdict| {
            own.is_some_and(|own| (own.part(), own.section()) == (tally.part(), tally.section()))
        };
        tallies.iter().filter(is_own).flat_map(|tally| tally.verdict().quotas().iter())
    }
}

/// The facts of the verdict on one tally.
#[napi(object)]
pub(crate) struct TallyFacts {
    pub part: u32,
    pub section: Option<String>,
    pub facts: Vec<f64>,
    pub plan: Option<String>,
    pub env: Option<String>,
}

/// A warning that a charge reached: the index of the tally, that of its window, and the percentage.
#[napi(object)]
pub(crate) struct CrossedFacts {
    pub tally: u32,
    pub window: u32,
    pub percent: u8,
}

/// The facts of the verdicts on all tallies of a request.
#[napi(object)]
pub(crate) struct CompoundFacts {
    pub outcome: u32,
    pub reason: u32,
    pub retry_after_s: Option<u32>,
    pub clock_ahead_s: u32,
    pub uncharged: u32,
    pub uncharged_costs: Vec<GroupCost>,
    pub is_shared: bool,
    /// The index of the tally that decided.
    pub decisive: u32,
    /// The index of the tally whose key is valid.
    pub holder: Option<u32>,
    pub quotas: Vec<f64>,
    /// The facts of the quota that `X-RateLimit-*` describe; empty without one.
    pub described: Vec<f64>,
    pub tallies: Vec<TallyFacts>,
    pub crossed: Vec<CrossedFacts>,
}

/// Returns the facts of the verdicts on all tallies of a request.
#[napi(catch_unwind)]
pub(crate) fn compound_facts(held: &External<HeldCompound>) -> CompoundFacts {
    let compound = &held.compound;
    let decisive = compound.decisive();
    let ahead_s = compound.verdicts().map(keytally::Verdict::clock_ahead_s).max();
    let index = |index: usize| u32::try_from(index).unwrap_or_default();
    let is_holder = |tally: &TallyVerdict| {
        let gate = held.gates.get(tally.part()).and_then(Option::as_ref);
        gate.is_some() && tally.verdict().holder().is_some()
    };
    let crossed = compound.tallies().iter().enumerate().flat_map(|(tally, verdict)| {
        let fact = move |(window, percent)| CrossedFacts {
            tally: index(tally),
            window: index(window),
            percent,
        };
        verdict.crossed().map(fact)
    });
    let uncharged_costs = held.uncharged.iter();
    CompoundFacts {
        outcome: u32::from(compound.outcome() as u8),
        reason: compound.reason().map_or(0, |reason| u32::from(reason as u8)),
        retry_after_s: compound.retry_after_s(),
        clock_ahead_s: ahead_s.unwrap_or(0),
        uncharged: decisive.uncharged(),
        uncharged_costs: uncharged_costs
            .map(|GroupCost { name, cost }| GroupCost { name: name.clone(), cost: *cost })
            .collect(),
        is_shared: decisive.is_shared(),
        decisive: index(compound.decisive_index()),
        holder: compound.tallies().iter().position(is_holder).map(index),
        quotas: facts::quotas(held.quotas()),
        described: facts::quotas(compound.described().into_iter()),
        tallies: compound.tallies().iter().map(|tally| held.tally(tally)).collect(),
        crossed: crossed.collect(),
    }
}

/// Returns the number of the outcome.
#[napi(catch_unwind)]
pub(crate) fn compound_outcome(held: &External<HeldCompound>) -> u32 {
    u32::from(held.compound.outcome() as u8)
}

/// Returns the header fields as lines that end with CR LF.
#[napi(catch_unwind)]
pub(crate) fn compound_headers(held: &External<HeldCompound>) -> String {
    held.compound.headers().as_str().to_owned()
}

/// Returns the problem document.
#[napi(catch_unwind)]
pub(crate) fn compound_problem(held: &External<HeldCompound>) -> String {
    held.compound.problem().to_string()
}

/// Returns the bytes of the charge of a part; nothing if it was not charged.
#[napi(catch_unwind)]
pub(crate) fn compound_charge(held: &External<HeldCompound>, part: u32) -> Option<Buffer> {
    held.compound.charge(usize::try_from(part).ok()?).map(|made| charge::to_buffer(&made))
}

/// A key or a subject with a cost, as a part of a compound charge.
pub(crate) struct HeldPart {
    of: Of,
    cost: u32,
}

/// What a part charges.
enum Of {
    Key { gate: SharedGate, api_key: Option<Zeroizing<Vec<u8>>>, request: Request },
    Subject { limiter: Arc<Limiter>, subject: Vec<u8> },
    Address { limiter: Arc<AddressLimiter>, address: Address },
}

impl HeldPart {
    /// Returns the part of a key and a request.
    ///
    /// # Errors
    /// A `RangeError` if the gate does not have a group or a scope of the request.
    pub(crate) fn key(
        gate: SharedGate,
        api_key: Option<&[u8]>,
        cost: u32,
        request: Request,
    ) -> Result<Self> {
        request.part(&gate.current(), api_key, cost)?;
        let api_key = api_key.map(|text| Zeroizing::new(text.to_vec()));
        Ok(Self { of: Of::Key { gate, api_key, request }, cost })
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
            Of::Key { gate: SharedGate::File(gate), .. } => Some(gate),
            _ => None,
        }
    }
}

/// Checks the parts of one request, or only peeks, and charges all or none.
#[napi(catch_unwind)]
pub(crate) fn decide_all(
    is_peek: bool,
    parts: Vec<&External<HeldPart>>,
    now: f64,
) -> Result<External<HeldCompound>> {
    let now = Time::from(now);
    let followed: Vec<Option<&Followed>> = parts.iter().map(|part| part.followed()).collect();
    followed.iter().flatten().for_each(|gate| gate.reopen_if_due());
    let mut used = Vec::new();
    let compound = Followed::call_all(&followed, |current| {
        let mut current = current.iter();
        let gate_of = |part: &&External<HeldPart>| match &part.of {
            Of::Key { gate: SharedGate::Memory(gate), .. } => Some(Arc::clone(gate)),
            // More parts than a request can have are an error, which the decision returns.
            Of::Key { gate, .. } => {
                Some(current.next().map_or_else(|| gate.current(), Current::to_arc))
            }
            Of::Subject { .. } | Of::Address { .. } => None,
        };
        used = parts.iter().map(gate_of).collect();
        let charged = parts
            .iter()
            .zip(&used)
            .filter_map(|(part, gate)| Charged::new(part, gate.as_deref()).transpose())
            .collect::<Result<Vec<_>>>()?;
        let decided = with_clock!(now, |clock| {
            let parts = as_parts(&charged);
            if is_peek { table::peek_all(&parts, clock) } else { table::check_all(&parts, clock) }
        });
        decided.map_err(|problem| error("RangeError", problem.to_string()))
    })?;
    Ok(External::new(HeldCompound::new(compound, used)))
}

/// A part as host takes it.
enum Charged<'p> {
    Key(GatePart<'p, Mapping>),
    Subject(LimiterPart<'p, Mapping>),
    Address(AddressPart<'p, Mapping>),
}

impl<'p> Charged<'p> {
    /// Returns a part, of this gate if it is a key. Returns `None` for a key without a gate.
    fn new(part: &'p HeldPart, gate: Option<&'p Gate>) -> Result<Option<Self>> {
        Ok(match &part.of {
            Of::Key { api_key, request, .. } => {
                let api_key = api_key.as_deref().map(Vec::as_slice);
                gate.map(|gate| request.part(gate, api_key, part.cost)).transpose()?.map(Self::Key)
            }
            Of::Subject { limiter, subject } => {
                Some(Self::Subject(limiter.part(subject, part.cost)))
            }
            Of::Address { limiter, address } => {
                Some(Self::Address(limiter.part(*address, part.cost)))
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
