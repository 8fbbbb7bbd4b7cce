//! The class `Verdict`. It holds a verdict of core, or those of all tallies of a request, and
//! computes each property when it is read.

use alloc::sync::Arc;
use core::fmt;

use keytally::Gate;
use keytally::{CompoundResponse, Outcome, Reason, Response, Section, Unavailability};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::arguments::Moment;
use crate::charge::Charge;
use crate::clock::Time;
use crate::exceptions;
use crate::fields;
use crate::quota_state::quotas;
use crate::snapshot::{Crossed, Holder, Pickled, Snapshot};

/// The result of a check: the values for an HTTP response, a log line or a later refund.
///
/// It is true if the request was admitted.
///
/// >>> import keytally
/// >>> limiter = keytally.Limiter.in_memory("1/minute")
/// >>> verdict = limiter.check("203.0.113.9", now=1_700_000_000)
/// >>> verdict
/// <Verdict admitted: 0 of 1 left>
/// >>> bool(verdict), verdict.remaining, verdict.reset_unix_s
/// (True, 0, 1700000040)
/// >>> verdict = limiter.check("203.0.113.9", now=1_700_000_000)
/// >>> verdict.outcome, verdict.http_status, verdict.retry_after_s
/// ('denied', 429, 40)
/// >>> verdict.body
/// b'{"error": "Rate limit exceeded. Please try again later."}'
/// >>> verdict.headers[-1], verdict.raw_headers[-1]
/// (('Retry-After', '40'), (b'retry-after', b'40'))
///
/// The verdict on a valid key names the account too.
///
/// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
/// >>> key = gate.issue(42)
/// >>> verdict = gate.check(key.expose(), 3)
/// >>> verdict.admitted, verdict.account, verdict.env, verdict.plan, verdict.limit
/// (True, 42, 'live', 'default', 1000)
/// >>> verdict.key_id == key.key_id, verdict.charge.cost, verdict.uncharged, verdict.clock_ahead_s
/// (True, 3, 0, 0)
/// >>> [quota.remaining for quota in verdict.quotas]
/// [97, 997]
/// >>> verdict = gate.check("kt_live_mistyped")
/// >>> verdict.content_type, verdict.problem[:7]
/// ('application/json', b'{"type"')
///
/// If the gate's plans have further sections, a request charges several tallies. The verdict is
/// that of the whole request: ``outcome``, ``retry_after_s`` and the response are those of the
/// tally that decided. ``quotas``, ``limit``, ``remaining`` and ``reset_unix_s`` describe the key.
///
/// >>> plans = {"default": "100/minute; team: 5000/hour; group write: 2/minute"}
/// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
/// >>> verdict = gate.check(gate.issue(42).expose(), 2, costs={"write": 2})
/// >>> [(tally.section, tally.verdict.remaining) for tally in verdict.tallies]
/// [('key', 98), ('team', 4998), ('write', 0)]
/// >>> gate.settle(verdict.key_id, verdict.charge, costs={"write": 3}).uncharged_costs
/// {'write': 1}
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Verdict {
    held: Held,
}

/// The source of a verdict's values.
enum Held {
    /// A verdict of core. If a gate returned it, `gate` has the names of plans and environments.
    Core { verdict: keytally::Verdict, gate: Option<Arc<Gate>>, details: Option<Box<Details>> },
    /// The verdicts of core on all tallies of a request.
    Compound(Box<Compound>),
    /// The values of a verdict that was pickled.
    Pickled(Box<Snapshot>),
}

/// What few verdicts have. In a box, it takes no time of a check.
#[derive(Default)]
struct Details {
    /// The section of the tally, if it is not the key's.
    section: Option<String>,
    /// The units of each group that a settlement could not charge.
    uncharged_costs: Vec<(String, u32)>,
    /// Whether the tally of a request with several is an overflow tally.
    is_shared: bool,
}

/// The verdicts of core on all tallies of a request.
struct Compound {
    compound: keytally::Compound,
    /// The gate of each part; `None` for a limiter.
    gates: Vec<Option<Arc<Gate>>>,
    /// The units of each group that a settlement could not charge.
    uncharged_costs: Vec<(String, u32)>,
}

impl Compound {
    /// Returns the verdict on one tally.
    ///
    /// If its part may have several tallies, it has no charge. The charge of the part has them all.
    fn verdict(&self, tally: &keytally::TallyVerdict) -> Verdict {
        let gate = self.gates.get(tally.part()).and_then(Option::clone);
        let has_several = match &gate {
            Some(gate) => gate.table().is_extended(),
            None => {
                let is_its = |other: &&keytally::TallyVerdict| other.part() == tally.part();
                self.compound.tallies().iter().filter(is_its).count() > 1
            }
        };
        let verdict = if has_several { tally.verdict().without_charge() } else { *tally.verdict() };
        let section = tally.section().filter(|&section| *section != Section::Key);
        let section = section.map(|section| section.name().to_owned());
        let is_shared = tally.verdict().is_shared();
        let details = (section.is_some() || is_shared)
            .then(|| Box::new(Details { section, is_shared, ..Details::default() }));
        Verdict { held: Held::Core { verdict, gate, details } }
    }

    /// Returns the gate and the holder of the first key whose secret is right.
    fn holder(&self) -> Option<(&Gate, keytally::Holder)> {
        self.compound.tallies().iter().find_map(|tally| {
            Some((self.gates.get(tally.part())?.as_deref()?, tally.verdict().holder()?))
        })
    }

    /// Returns the quotas of the tallies that the fields `X-RateLimit-*` describe: those of the
    /// first key, or of the first part without one.
    fn quotas(&self) -> Vec<keytally::QuotaState> {
        let tallies = self.compound.tallies();
        let is_key = |tally: &&keytally::TallyVerdict| tally.section() == Some(&Section::Key);
        let own = tallies.iter().find(is_key).or(tallies.first());
        let is_own = |tally: &&keytally::TallyVerdict| {
            own.is_some_and(|own| (own.part(), own.section()) == (tally.part(), tally.section()))
        };
        tallies.iter().filter(is_own).flat_map(|tally| tally.verdict().quotas().iter()).collect()
    }

    /// Returns the warnings that the charge reached.
    fn crossed(&self) -> Vec<Crossed> {
        let tallies = self.compound.tallies().iter().enumerate();
        tallies
            .flat_map(|(index, tally)| {
                tally.crossed().map(move |(window, percent)| (index, window, percent))
            })
            .collect()
    }

    /// Returns how far the time of the counts was ahead, of the tally that was most.
    fn clock_ahead_s(&self) -> u32 {
        let ahead_s = self.compound.verdicts().map(keytally::Verdict::clock_ahead_s);
        ahead_s.max().unwrap_or(0)
    }

    fn snapshot(&self) -> Snapshot {
        let compound = &self.compound;
        let decisive = compound.decisive();
        let holder = self.holder();
        Snapshot {
            outcome: compound.outcome(),
            reason: compound.reason(),
            unavailability: decisive.unavailability(),
            leased: decisive.is_leased(),
            holder: holder.map_or((None, None, None, None), |(gate, holder)| names(gate, holder)),
            quotas: self.quotas(),
            cost: decisive.cost(),
            charge: compound.charge(0),
            waits_from: decisive.waits_from(),
            retry_after_s: compound.retry_after_s(),
            uncharged: decisive.uncharged(),
            clock_ahead_s: self.clock_ahead_s(),
            is_shared: decisive.is_shared(),
            uncharged_costs: self.uncharged_costs.clone(),
            section: None,
            tallies: compound
                .tallies()
                .iter()
                .map(|tally| (tally.part(), self.verdict(tally).snapshot()))
                .collect(),
            crossed: self.crossed(),
        }
    }
}

/// Returns the account, key id, plan and environment of a key.
fn names(gate: &Gate, holder: keytally::Holder) -> Holder {
    let table = gate.table();
    (
        Some(holder.account),
        Some(holder.key_id.to_string()),
        table.plan(holder.plan).map(|plan| plan.name.as_str().to_owned()),
        table.env(holder.env).map(|env| env.to_string()),
    )
}

/// The verdict of a limiter.
impl From<keytally::Verdict> for Verdict {
    #[inline]
    fn from(verdict: keytally::Verdict) -> Self {
        Self::of_core(verdict, None)
    }
}

/// The verdict of a limiter of addresses.
impl From<keytally::Compound> for Verdict {
    fn from(compound: keytally::Compound) -> Self {
        Self::from_compound(compound, Vec::new())
    }
}

impl Verdict {
    #[inline]
    fn of_core(verdict: keytally::Verdict, gate: Option<Arc<Gate>>) -> Self {
        Self { held: Held::Core { verdict, gate, details: None } }
    }

    /// Returns a gate's verdict.
    #[inline]
    pub(crate) fn from_gate(verdict: keytally::Verdict, gate: Arc<Gate>) -> Self {
        Self::of_core(verdict, Some(gate))
    }

    /// Returns the verdict of a request with these parts, whose gates are `gates`.
    pub(crate) fn from_compound(
        compound: keytally::Compound,
        gates: Vec<Option<Arc<Gate>>>,
    ) -> Self {
        let uncharged_costs = Vec::new();
        Self { held: Held::Compound(Box::new(Compound { compound, gates, uncharged_costs })) }
    }

    /// Returns a gate's verdict of a settlement, with the units that it could not charge to groups.
    pub(crate) fn of_settlement(
        settled: &keytally::Settled,
        gate: Arc<Gate>,
        uncharged_costs: Vec<(String, u32)>,
    ) -> Self {
        if gate.table().is_extended() {
            let (compound, gates) = (settled.compound().clone(), vec![Some(gate)]);
            let compound = Compound { compound, gates, uncharged_costs };
            return Self { held: Held::Compound(Box::new(compound)) };
        }
        let verdict = settled.verdict;
        let details = Some(Box::new(Details { uncharged_costs, ..Details::default() }));
        Self { held: Held::Core { verdict, gate: Some(gate), details } }
    }

    fn from_snapshot(snapshot: Snapshot) -> Self {
        Self { held: Held::Pickled(Box::new(snapshot)) }
    }

    /// Calls `core` with the verdict of core that decided, or `pickled` with the values of a
    /// pickled verdict.
    fn either<T>(
        &self,
        core: impl FnOnce(&keytally::Verdict) -> T,
        pickled: impl FnOnce(&Snapshot) -> T,
    ) -> T {
        match &self.held {
            Held::Core { verdict, .. } => core(verdict),
            Held::Compound(all) => core(all.compound.decisive()),
            Held::Pickled(values) => pickled(values),
        }
    }

    /// Returns whether credits of a fleet are requested for the request.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.core_unavailability() == Some(Unavailability::Waiting)
    }

    fn core_unavailability(&self) -> Option<Unavailability> {
        self.either(keytally::Verdict::unavailability, |values| values.unavailability)
    }

    fn core_outcome(&self) -> Outcome {
        self.either(keytally::Verdict::outcome, |values| values.outcome)
    }

    /// Returns the state of the quota that the fields `X-RateLimit-*` describe.
    fn described(&self) -> Option<keytally::QuotaState> {
        match &self.held {
            Held::Core { verdict, .. } => verdict.quotas().described(),
            Held::Compound(all) => all.compound.described(),
            Held::Pickled(values) => values.described(),
        }
    }

    /// Calls `work` with the header fields as one block of lines, see [`fields::split`].
    fn with_header_block<T>(&self, work: impl Fn(&[u8]) -> T) -> T {
        match &self.held {
            Held::Core { verdict, .. } => work(verdict.headers().as_bytes()),
            Held::Compound(all) => work(all.compound.headers().as_bytes()),
            Held::Pickled(values) => values.respond(
                |response: Response<'_>| work(response.headers().as_bytes()),
                |response: CompoundResponse<'_>| work(response.headers().as_bytes()),
            ),
        }
    }

    /// Returns the gate and the holder of the key, of a verdict that was not pickled.
    fn core_holder(&self) -> Option<(&Gate, keytally::Holder)> {
        match &self.held {
            Held::Core { verdict, gate, .. } => Some((gate.as_deref()?, verdict.holder()?)),
            Held::Compound(all) => all.holder(),
            Held::Pickled(_) => None,
        }
    }

    /// Returns a value of the holder of the key, or that of a pickled verdict.
    fn of_holder<T>(
        &self,
        core: impl FnOnce(&Gate, keytally::Holder) -> Option<T>,
        pickled: impl FnOnce(&Holder) -> Option<T>,
    ) -> Option<T> {
        match &self.held {
            Held::Pickled(values) => pickled(&values.holder),
            _ => self.core_holder().and_then(|(gate, holder)| core(gate, holder)),
        }
    }

    /// Returns the charge of a part; `None` if it was not charged.
    pub(crate) fn charge_of(&self, part: usize) -> Option<Charge> {
        let charge = match &self.held {
            Held::Core { verdict, .. } => verdict.charge(),
            Held::Compound(all) => all.compound.charge(part),
            Held::Pickled(values) => values.charge,
        };
        charge.map(Charge)
    }

    /// Returns the verdict on each tally, of a request with parts.
    pub(crate) fn verdicts(&self) -> Vec<Self> {
        match &self.held {
            Held::Compound(all) => {
                all.compound.tallies().iter().map(|tally| all.verdict(tally)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the verdict that decided, of a request with parts.
    pub(crate) fn decisive(&self) -> Option<Self> {
        match &self.held {
            Held::Compound(all) => {
                let index = all.compound.decisive_index();
                all.compound.tallies().get(index).map(|tally| all.verdict(tally))
            }
            _ => None,
        }
    }

    /// Returns the name of the section whose tally this verdict is on; `None` if that is not one
    /// tally of a gate.
    fn section(&self) -> Option<String> {
        match &self.held {
            Held::Core { verdict, gate, details } => {
                let section = details.as_ref().and_then(|details| details.section.clone());
                let is_key = gate.is_some() && !verdict.quotas().is_empty();
                section.or_else(|| is_key.then(|| "key".to_owned()))
            }
            Held::Compound(_) => None,
            Held::Pickled(values) => values.section.clone(),
        }
    }

    /// Returns the verdict on each tally, of a request with several.
    pub(crate) fn tallies_of_all<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let tally = |part, verdict: Self| {
            let section = verdict.section();
            Ok(TallyVerdict { part, section, verdict: Py::new(py, verdict)? })
        };
        let tallies: PyResult<Vec<_>> = match &self.held {
            Held::Compound(all) => {
                let tallies = all.compound.tallies().iter();
                tallies.map(|found| tally(found.part(), all.verdict(found))).collect()
            }
            Held::Pickled(values) => {
                let tallies = values.tallies.iter();
                tallies
                    .map(|(part, values)| tally(*part, Self::from_snapshot(values.clone())))
                    .collect()
            }
            Held::Core { .. } => Ok(Vec::new()),
        };
        PyTuple::new(py, tallies?)
    }

    /// Returns the warnings that the charge reached, with their tallies of `tallies`.
    pub(crate) fn crossed_of<'py>(
        &self,
        tallies: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyList>> {
        let crossed = match &self.held {
            Held::Core { .. } => Vec::new(),
            Held::Compound(all) => all.crossed(),
            Held::Pickled(values) => values.crossed.clone(),
        };
        let found = PyList::empty(tallies.py());
        for (tally, window, percent) in crossed {
            let tally = tallies.get_item(tally)?;
            let quota = tally.getattr("verdict")?.getattr("quotas")?.get_item(window)?;
            found.append((tally, quota, percent))?;
        }
        Ok(found)
    }

    /// Returns the values of the verdict.
    fn snapshot(&self) -> Snapshot {
        match &self.held {
            Held::Core { verdict, .. } => Snapshot {
                outcome: verdict.outcome(),
                reason: verdict.reason(),
                unavailability: verdict.unavailability(),
                leased: verdict.is_leased(),
                holder: self
                    .core_holder()
                    .map_or((None, None, None, None), |(gate, holder)| names(gate, holder)),
                quotas: verdict.quotas().iter().collect(),
                cost: verdict.cost(),
                charge: verdict.charge(),
                waits_from: verdict.waits_from(),
                retry_after_s: verdict.retry_after_s(),
                uncharged: verdict.uncharged(),
                clock_ahead_s: verdict.clock_ahead_s(),
                is_shared: self.is_shared(),
                uncharged_costs: self.uncharged_costs_of_groups().to_vec(),
                section: self.section(),
                tallies: Vec::new(),
                crossed: Vec::new(),
            },
            Held::Compound(all) => all.snapshot(),
            Held::Pickled(values) => (**values).clone(),
        }
    }

    /// Returns the units of each group that a settlement could not charge.
    fn uncharged_costs_of_groups(&self) -> &[(String, u32)] {
        match &self.held {
            Held::Core { details: Some(details), .. } => &details.uncharged_costs,
            Held::Core { .. } => &[],
            Held::Compound(all) => &all.uncharged_costs,
            Held::Pickled(values) => &values.uncharged_costs,
        }
    }
}

#[pymethods]
impl Verdict {
    /// Returns the verdict on a request with more than one key header.
    ///
    /// The key is invalid whatever the values are, because the next server in the chain may select
    /// another value.
    ///
    /// Args:
    ///     now: An explicit time, see `Gate`; the system clock by default.
    ///
    /// Raises:
    ///     TypeError, ValueError: ``now`` has the wrong type or is out of range.
    ///
    /// >>> from keytally import Verdict
    /// >>> verdict = Verdict.duplicate_header()
    /// >>> verdict.http_status, verdict.reason
    /// (401, 'duplicate')
    #[staticmethod]
    #[pyo3(signature = (*, now=None))]
    fn duplicate_header(now: Option<Moment>) -> Self {
        keytally::Verdict::duplicate_header(Time::from(now).timestamp()).into()
    }

    /// Whether the request was admitted.
    #[getter]
    pub(crate) fn admitted(&self) -> bool {
        self.core_outcome() == Outcome::Admitted
    }

    /// The decision.
    ///
    /// It is ``"admitted"``, ``"denied"``, ``"missing_key"``, ``"invalid_key"``, ``"too_costly"``,
    /// ``"full"``, ``"forbidden"`` or ``"unavailable"``.
    #[getter]
    pub(crate) fn outcome(&self) -> &'static str {
        self.core_outcome().as_str()
    }

    /// Why the key is invalid; ``None`` if it is not. Log it, but never disclose it to the client.
    ///
    /// - ``"malformed"``: the text does not have the form of a key of this gate. If the gate has
    ///   imported keys, the reason is ``"unknown"`` for such a text of 16 to 256 bytes.
    /// - ``"checksum"``: the checksum of a well-formed key does not match.
    /// - ``"unknown"``: no key of the gate has this key id, or no key with this text was imported.
    /// - ``"wrong_secret"``: the key id exists, and the secret is wrong.
    /// - ``"revoked"``: the key was revoked.
    /// - ``"expired"``: the key has expired, or its previous secret was sent after its grace.
    /// - ``"duplicate"``: the request has more than one key header.
    /// - ``"pepper_missing"``: the key is stored under a pepper that this process does not have.
    /// - ``"damaged"``: the key's record is damaged.
    /// - ``"suspended"``: the account of the key is suspended.
    #[getter]
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.either(keytally::Verdict::reason, |values| values.reason).map(Reason::as_str)
    }

    /// Why the gate does not decide now; ``None`` unless the outcome is ``"unavailable"``.
    ///
    /// - ``"moving"``: the counts of the key are being moved to another file.
    /// - ``"not_reserving"``: the gate is in a fleet, and this process opened it without ``fleet``.
    /// - ``"lost"``: the store of the fleet, or the agent of this machine, cannot be reached.
    /// - ``"waiting"``: credits of the fleet are requested. Only ``Gate.try_check`` returns this.
    ///
    /// >>> import keytally
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
    /// >>> key = gate.issue(42).expose()
    /// >>> gate.set_fleet(True)
    /// >>> verdict = gate.check(key)
    /// >>> verdict.outcome, verdict.unavailability, verdict.leased
    /// ('unavailable', 'not_reserving', False)
    #[getter]
    pub(crate) fn unavailability(&self) -> Option<&'static str> {
        self.core_unavailability().map(Unavailability::as_str)
    }

    /// Whether the verdict is on units that machines of a fleet share.
    ///
    /// ``remaining`` is then what this machine has leased and what the store had left when it last
    /// replied. It may be too high by what other machines have taken since. False if only the
    /// counts of this machine decided.
    #[getter]
    pub(crate) fn leased(&self) -> bool {
        self.either(keytally::Verdict::is_leased, |values| values.leased)
    }

    /// The HTTP status: 200, 401, 403, 429 or 503. The application replaces 200 by its own status.
    #[getter]
    pub(crate) fn http_status(&self) -> u16 {
        self.core_outcome().http_status()
    }

    /// The body of the response, as JSON; empty if the request was admitted.
    #[getter]
    pub(crate) fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.core_outcome().body().as_bytes())
    }

    /// The media type of ``body``.
    #[getter]
    pub(crate) fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// The body as a problem document, ``application/problem+json``; empty if the request was
    /// admitted.
    ///
    /// Unlike ``body``, it names the quotas that lacked room. The source is RFC 9457.
    #[getter]
    pub(crate) fn problem<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let bytes = |problem: &str| PyBytes::new(py, problem.as_bytes());
        match &self.held {
            Held::Core { verdict, .. } => bytes(&verdict.problem()),
            Held::Compound(all) => bytes(&all.compound.problem()),
            Held::Pickled(values) => values.respond(
                |response| bytes(&response.problem()),
                |response| bytes(&response.problem()),
            ),
        }
    }

    /// The header fields of the response, a list of names and values.
    ///
    /// Set them, do not append them: a response must have each field once. The source of
    /// ``RateLimit`` and ``RateLimit-Policy`` is draft-ietf-httpapi-ratelimit-headers-10.
    #[getter]
    pub(crate) fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.with_header_block(|block| {
            let field = |(name, value)| (fields::name(py, name), fields::text(py, value));
            PyList::new(py, fields::split(block).map(field).collect::<Vec<_>>())
        })
    }

    /// The header fields of the response as bytes, with lowercase names, as ASGI requires.
    #[getter]
    pub(crate) fn raw_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.with_header_block(|block| {
            let field = |(name, value)| (fields::raw_name(py, name), PyBytes::new(py, value));
            PyList::new(py, fields::split(block).map(field).collect::<Vec<_>>())
        })
    }

    /// The number of the account that the key belongs to; ``None`` unless the secret was correct.
    #[getter]
    pub(crate) fn account(&self) -> Option<u32> {
        self.of_holder(|_, holder| Some(holder.account), |names| names.0)
    }

    /// The id of the key, 11 base62 characters; ``None`` unless the secret was correct.
    #[getter]
    pub(crate) fn key_id(&self) -> Option<String> {
        self.of_holder(|_, holder| Some(holder.key_id.to_string()), |names| names.1.clone())
    }

    /// The name of the key's plan; ``None`` unless the secret was correct.
    #[getter]
    fn plan(&self) -> Option<String> {
        self.of_holder(
            |gate, holder| Some(gate.table().plan(holder.plan)?.name.as_str().to_owned()),
            |names| names.2.clone(),
        )
    }

    /// The environment of the key; ``None`` unless the secret was correct.
    #[getter]
    fn env(&self) -> Option<String> {
        self.of_holder(
            |gate, holder| Some(gate.table().env(holder.env)?.to_string()),
            |names| names.3.clone(),
        )
    }

    /// The limit of the longest window of at most a day, as in ``X-RateLimit-Limit``.
    ///
    /// If all windows are longer, it is that of the shortest. ``None`` without quotas, as for an
    /// invalid key.
    #[getter]
    fn limit(&self) -> Option<u32> {
        self.described().map(|quota| quota.limit)
    }

    /// The units left in the window that ``limit`` is of; ``None`` without quotas.
    #[getter]
    pub(crate) fn remaining(&self) -> Option<u32> {
        self.described().map(|quota| quota.remaining)
    }

    /// The time at which the last unit in the window of ``limit`` stops counting, in Unix seconds.
    ///
    /// ``None`` without quotas.
    #[getter]
    fn reset_unix_s(&self) -> Option<u64> {
        self.described().map(|quota| quota.reset_unix_s)
    }

    /// The seconds until a retry can succeed, rounded up, at least 1.
    ///
    /// ``None`` unless the outcome is ``"denied"``, ``"full"`` or ``"unavailable"``.
    #[getter]
    pub(crate) fn retry_after_s(&self) -> Option<u32> {
        self.either(keytally::Verdict::retry_after_s, |values| values.retry_after_s)
    }

    /// How far the time of the counts was ahead of the caller's, in seconds, rounded up.
    ///
    /// It is 0 if they were not ahead. A value above 60 means that a clock, or an explicit ``now``,
    /// was wrong. The next call that uses the system clock corrects the time of the counts.
    #[getter]
    fn clock_ahead_s(&self) -> u32 {
        match &self.held {
            Held::Compound(all) => all.clock_ahead_s(),
            _ => self.either(keytally::Verdict::clock_ahead_s, |values| values.clock_ahead_s),
        }
    }

    /// The quotas of the key or subject after the decision, each a `QuotaState`, shortest window
    /// first.
    ///
    /// Empty without quotas, as for an invalid key. ``tallies`` has those of other sections.
    #[getter]
    fn quotas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match &self.held {
            Held::Core { verdict, .. } => quotas(py, verdict.quotas().iter()),
            Held::Compound(all) => quotas(py, all.quotas().into_iter()),
            Held::Pickled(values) => quotas(py, values.quotas.iter().copied()),
        }
    }

    /// The charge, for a later ``refund`` or ``settle``.
    ///
    /// It has all tallies of the request. ``None`` unless this is the verdict of an admitted check.
    /// A peek charges nothing.
    #[getter]
    fn charge(&self) -> Option<Charge> {
        self.charge_of(0)
    }

    /// Whether a limiter had no slot for the subject and charged it to an overflow tally.
    ///
    /// The subject shares that tally with others: see ``Limiter.on_full``. True also if the tally
    /// denied the request. False for a peek, refund, settle or reset. In a limiter of addresses it
    /// is about the network that decided, and each of ``tallies`` has its own.
    ///
    /// >>> from keytally import Limiter
    /// >>> limiter = Limiter.in_memory("5/minute", capacity=1)  # It has eight slots.
    /// >>> [limiter.check(str(number)).is_shared for number in range(9)].index(True)
    /// 8
    #[getter]
    fn is_shared(&self) -> bool {
        match &self.held {
            Held::Core { verdict, details, .. } => {
                verdict.is_shared() || details.as_ref().is_some_and(|details| details.is_shared)
            }
            Held::Compound(all) => all.compound.decisive().is_shared(),
            Held::Pickled(values) => values.is_shared,
        }
    }

    /// The units that ``settle`` could not charge for lack of room; 0 in other verdicts.
    #[getter]
    fn uncharged(&self) -> u32 {
        self.either(keytally::Verdict::uncharged, |values| values.uncharged)
    }

    /// The units of each group of ``costs`` that ``settle`` could not charge for lack of room, by
    /// the group's name; empty in other verdicts.
    #[getter]
    fn uncharged_costs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let costs = PyDict::new(py);
        for (name, cost) in self.uncharged_costs_of_groups() {
            costs.set_item(name, cost)?;
        }
        Ok(costs)
    }

    /// The verdict on each tally of the request, a `TallyVerdict`, in the order of the sections.
    ///
    /// The verdict of a limiter, and that of a gate without further sections, has one. That of a
    /// limiter of addresses has one for each prefix.
    #[getter]
    fn tallies<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let (section, py) = (slf.get().section(), slf.py());
        let is_single = match &slf.get().held {
            Held::Core { .. } => true,
            Held::Compound(_) => false,
            Held::Pickled(values) => values.tallies.is_empty(),
        };
        if is_single {
            return PyTuple::new(
                py,
                [TallyVerdict { part: 0, section, verdict: slf.clone().unbind() }],
            );
        }
        slf.get().tallies_of_all(py)
    }

    /// Returns the warnings that this charge reached: each the `TallyVerdict`, the `QuotaState` and
    /// the percentage of its limit.
    ///
    /// ``warn 80%`` after a quota of a plan sets a warning. One request reports each: the one whose
    /// charge brought the count from below the share to it or above. The verdict of ``settle`` has
    /// those that the units above the estimate reached.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "100/minute warn 80% 95%; team: 5000/hour"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> key = gate.issue(42).expose()
    /// >>> gate.check(key, 79).crossed()
    /// []
    /// >>> for tally, quota, percent in gate.check(key).crossed():
    /// ...     print(f"{percent} % of {quota.limit} per {quota.name}, section {tally.section}")
    /// 80 % of 100 per minute, section key
    fn crossed<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        slf.get().crossed_of(&Self::tallies(slf)?)
    }

    /// Raises an exception unless the request was admitted.
    ///
    /// Raises:
    ///     MissingKeyError, InvalidKeyError, ForbiddenError: The key is not accepted.
    ///     DeniedError, TooCostlyError, FullError: A limit refuses the request. All of these are
    ///         `RefusedError`, with the verdict.
    ///
    /// >>> import keytally
    /// >>> limiter = keytally.Limiter.in_memory("1/minute")
    /// >>> limiter.check("203.0.113.9", now=1_700_000_000).raise_for_status()
    /// >>> limiter.check("203.0.113.9", now=1_700_000_000).raise_for_status()
    /// Traceback (most recent call last):
    /// keytally.exceptions.DeniedError: denied (429); try again in 40 s
    fn raise_for_status(slf: &Bound<'_, Self>) -> PyResult<()> {
        let outcome = slf.get().core_outcome();
        exceptions::from_outcome(outcome, (slf.clone().unbind(),)).map_or(Ok(()), Err)
    }

    fn __bool__(&self) -> bool {
        self.admitted()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Pickled,))> {
        let restore = slf.py().import("keytally._native")?.getattr("restore_verdict")?;
        Ok((restore, (slf.get().snapshot().to_pickled(),)))
    }

    fn __repr__(&self) -> String {
        format!("<Verdict {self}>")
    }
}

/// Writes the outcome, and why or how many units are left.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.core_outcome();
        match (self.reason(), self.described()) {
            (Some(reason), _) => write!(f, "{outcome}: {reason}"),
            (None, Some(quota)) => {
                write!(f, "{outcome}: {} of {} left", quota.remaining, quota.limit)
            }
            (None, None) => write!(f, "{outcome}"),
        }
    }
}

/// The verdict on one tally of a request, as ``Verdict.tallies`` and ``Compound.tallies`` have it.
///
/// >>> import keytally
/// >>> plans = {"default": "100/minute; team: 5000/hour"}
/// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
/// >>> key, team = gate.check(gate.issue(42).expose()).tallies
/// >>> team
/// <TallyVerdict team: admitted: 4999 of 5000 left>
/// >>> team.part, team.section, team.verdict.remaining
/// (0, 'team', 4999)
#[pyclass(frozen, module = "keytally")]
pub(crate) struct TallyVerdict {
    part: usize,
    section: Option<String>,
    verdict: Py<Verdict>,
}

#[pymethods]
impl TallyVerdict {
    /// The index of the part of ``check_all`` whose tally this is; 0 in another verdict.
    #[getter]
    fn part(&self) -> usize {
        self.part
    }

    /// The section of the gate's plans: ``"key"``, ``"team"`` or the name of a group. In a limiter
    /// of addresses, the network: ``"prefix-56"``.
    ///
    /// ``None`` for another limiter, for the client's own network, and if no tally was read.
    #[getter]
    fn section(&self) -> Option<&str> {
        self.section.as_deref()
    }

    /// The verdict on the tally.
    ///
    /// In a gate with further sections, and in a limiter of addresses, it has no charge: that of
    /// the whole has all tallies.
    #[getter]
    fn verdict(&self, py: Python<'_>) -> Py<Verdict> {
        self.verdict.clone_ref(py)
    }

    fn __repr__(&self) -> String {
        let verdict = self.verdict.get().to_string();
        match &self.section {
            Some(section) => format!("<TallyVerdict {section}: {verdict}>"),
            None => format!("<TallyVerdict {verdict}>"),
        }
    }
}

/// Returns the `Verdict` with pickled values. Only `pickle` and `copy` call it.
///
/// >>> import pickle
/// >>> from keytally import Limiter
/// >>> verdict = Limiter.in_memory("5/minute").check("203.0.113.9", now=1_700_000_000)
/// >>> pickle.loads(pickle.dumps(verdict))
/// <Verdict admitted: 4 of 5 left>
#[pyfunction]
pub(crate) fn restore_verdict(state: Pickled) -> PyResult<Verdict> {
    Snapshot::from_pickled(state).map(Verdict::from_snapshot).ok_or_else(|| {
        PyValueError::new_err("the state is not a verdict's: it was pickled by another version")
    })
}
