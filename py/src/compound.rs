//! The functions `check_all` and `peek_all` and their classes: several keys and subjects of one
//! request, charged all or none.

use alloc::sync::Arc;

use keytally::{
    Address, AddressLimiter, AddressPart, Counted, Current, Followed, Gate, GatePart, Limiter,
    LimiterPart, Mapping, Patience, table,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use zeroize::Zeroizing;

use crate::arguments::Moment;
use crate::charge::Charge;
use crate::clock::Time;
use crate::request::Request;
use crate::verdict::Verdict;

/// A key or a subject with a cost, as a part of ``check_all``.
///
/// ``Gate.part`` and ``Limiter.part`` return it. Make one for each request.
///
/// >>> from keytally import Limiter
/// >>> Limiter.in_memory("5/minute").part("203.0.113.9", 2).cost
/// 2
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Part {
    of: Of,
    cost: u32,
}

/// What a part charges.
enum Of {
    Key { gate: SharedGate, api_key: Option<Zeroizing<Vec<u8>>>, request: Request },
    Subject { limiter: Arc<Limiter>, subject: Vec<u8> },
    Address { limiter: Arc<AddressLimiter>, address: Address },
}

impl Of {
    /// Returns the gate of a key, if it follows its path.
    fn followed(&self) -> Option<&Followed> {
        match self {
            Self::Key { gate: SharedGate::File(gate), .. } => Some(gate),
            _ => None,
        }
    }
}

/// A gate that Python objects share.
#[derive(Clone)]
pub(crate) enum SharedGate {
    /// A gate in memory.
    Memory(Arc<Gate>),
    /// A gate that follows its path.
    File(Arc<Followed>),
}

impl SharedGate {
    /// Returns the gate that is in use.
    pub(crate) fn current(&self) -> Arc<Gate> {
        match self {
            Self::Memory(gate) => Arc::clone(gate),
            Self::File(gate) => {
                gate.reopen_if_due();
                gate.load_newest().to_arc()
            }
        }
    }
}

impl Part {
    /// Returns the part of a key and a request.
    ///
    /// # Errors
    /// A `ValueError` if the gate does not have a group or a scope of the request.
    pub(crate) fn key(
        gate: SharedGate,
        api_key: Option<&[u8]>,
        cost: u32,
        request: Request,
    ) -> PyResult<Self> {
        request.part(gate.current().counted(), api_key, cost)?;
        let api_key = api_key.map(|text| Zeroizing::new(text.to_vec()));
        Ok(Self { of: Of::Key { gate, api_key, request }, cost })
    }

    pub(crate) fn subject(limiter: Arc<Limiter>, subject: &[u8], cost: u32) -> Self {
        Self { of: Of::Subject { limiter, subject: subject.to_vec() }, cost }
    }

    pub(crate) fn address(limiter: Arc<AddressLimiter>, address: Address, cost: u32) -> Self {
        Self { of: Of::Address { limiter, address }, cost }
    }
}

#[pymethods]
impl Part {
    /// The cost in units.
    #[getter]
    fn cost(&self) -> u32 {
        self.cost
    }

    fn __repr__(&self) -> String {
        let table = match self.of {
            Of::Key { .. } => "gate",
            Of::Subject { .. } | Of::Address { .. } => "limiter",
        };
        format!("<Part of a {table}, cost {}>", self.cost)
    }
}

/// The result of ``check_all``: the verdict on all parts. It is true if the request was admitted.
///
/// >>> from keytally import Limiter, check_all
/// >>> users, teams = Limiter.in_memory("5/minute"), Limiter.in_memory("3/minute")
/// >>> compound = check_all(users.part("ann", 4), teams.part("42", 4))
/// >>> compound
/// <Compound too_costly: 5 of 5 left>
/// >>> compound.admitted, compound.outcome, compound.http_status
/// (False, 'too_costly', 429)
/// >>> [verdict.remaining for verdict in compound.verdicts]
/// [5, 3]
///
/// The response lists the quotas of all parts:
///
/// >>> compound.headers[3]
/// ('RateLimit-Policy', '"minute";q=5;w=60, "minute-2";q=3;w=60')
///
/// A key and its team are tallies of one part:
///
/// >>> import keytally
/// >>> plans = {"default": "100/minute; team: 5000/hour"}
/// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
/// >>> key = gate.issue(42)
/// >>> compound = check_all(gate.part(key.expose()), users.part("bob"))
/// >>> [(tally.part, tally.section) for tally in compound.tallies]
/// [(0, 'key'), (0, 'team'), (1, None)]
/// >>> compound.account, compound.key_id == key.key_id, compound.decisive.remaining
/// (42, True, 99)
/// >>> compound.body, compound.content_type, compound.problem, compound.raw_headers[1]
/// (b'', 'application/json', b'', (b'x-ratelimit-remaining', b'99'))
/// >>> compound.remaining, compound.retry_after_s, compound.reason
/// (99, None, None)
/// >>> compound.unavailability, compound.leased
/// (None, False)
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Compound {
    verdict: Verdict,
}

#[pymethods]
impl Compound {
    /// Whether the request was admitted. Every part is then charged, else none.
    #[getter]
    fn admitted(&self) -> bool {
        self.verdict.admitted()
    }

    /// The verdict on each tally, a `TallyVerdict`, in the order of the parts.
    ///
    /// Those of a gate are in the order of its sections, and the first of them is that of the key.
    #[getter]
    fn tallies<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.verdict.tallies_of_all(py)
    }

    /// The verdicts of ``tallies``. A part without further sections has one.
    ///
    /// If the request was refused, each part that refused it has a verdict with another outcome
    /// than ``"admitted"``.
    #[getter]
    fn verdicts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.verdict.verdicts())
    }

    /// The verdict that decided, whose status and body the response has.
    ///
    /// It is that of a missing or invalid key, else of a missing scope, else of a key whose counts
    /// are moving to another file, else of a full limiter, else of a tally that the cost is above a
    /// limit of, else the denial that lasts longest. If the request was admitted, it is the first.
    #[getter]
    fn decisive(&self) -> Option<Verdict> {
        self.verdict.decisive()
    }

    /// Returns the charge of a part, for a later ``refund`` or ``settle`` of its table.
    ///
    /// ``None`` unless the request was admitted.
    ///
    /// Args:
    ///     part: The index of the part, in the order in which they were given.
    ///
    /// >>> from keytally import Limiter, check_all
    /// >>> users, teams = Limiter.in_memory("5/minute"), Limiter.in_memory("9/minute")
    /// >>> compound = check_all(users.part("ann"), teams.part("42", 4))
    /// >>> teams.refund("42", compound.charge(1)).remaining
    /// 9
    fn charge(&self, part: usize) -> Option<Charge> {
        self.verdict.charge_of(part)
    }

    /// Returns the warnings that this charge reached, see ``Verdict.crossed``.
    ///
    /// >>> import keytally
    /// >>> plans = {"default": "10/minute warn 50%"}
    /// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper(), plans=plans)
    /// >>> compound = keytally.check_all(gate.part(gate.issue(42).expose(), 5))
    /// >>> [percent for tally, quota, percent in compound.crossed()]
    /// [50]
    fn crossed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.verdict.crossed_of(&self.tallies(py)?)
    }

    /// The decision: the outcome of ``decisive``.
    #[getter]
    fn outcome(&self) -> &'static str {
        self.verdict.outcome()
    }

    /// Why a key is invalid, see ``Verdict.reason``; ``None`` if none is.
    #[getter]
    fn reason(&self) -> Option<&'static str> {
        self.verdict.reason()
    }

    /// Why a gate does not decide now, see ``Verdict.unavailability``; ``None`` if all do.
    #[getter]
    fn unavailability(&self) -> Option<&'static str> {
        self.verdict.unavailability()
    }

    /// Whether ``decisive`` is on units that machines of a fleet share, see ``Verdict.leased``.
    #[getter]
    fn leased(&self) -> bool {
        self.verdict.leased()
    }

    /// The HTTP status: 200, 401, 403, 429 or 503.
    #[getter]
    fn http_status(&self) -> u16 {
        self.verdict.http_status()
    }

    /// The body of the response, as JSON; empty if the request was admitted.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.verdict.body(py)
    }

    /// The media type of ``body``.
    #[getter]
    fn content_type(&self) -> &'static str {
        self.verdict.content_type()
    }

    /// The body as a problem document, which names the quotas that lacked room. RFC 9457.
    #[getter]
    fn problem<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.verdict.problem(py)
    }

    /// The header fields of the response, a list of names and values.
    ///
    /// ``X-RateLimit-*`` describe a window of the first key, or of the first part without one.
    /// ``RateLimit`` and ``RateLimit-Policy`` list the windows of all tallies.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.verdict.headers(py)
    }

    /// The header fields of the response as bytes, with lowercase names, as ASGI requires.
    #[getter]
    fn raw_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.verdict.raw_headers(py)
    }

    /// The account of the first key whose secret was correct; ``None`` if there is none.
    #[getter]
    fn account(&self) -> Option<u32> {
        self.verdict.account()
    }

    /// The id of the first key whose secret was correct; ``None`` if there is none.
    #[getter]
    fn key_id(&self) -> Option<String> {
        self.verdict.key_id()
    }

    /// The units left in the window that ``X-RateLimit-*`` describe; ``None`` without quotas.
    #[getter]
    fn remaining(&self) -> Option<u32> {
        self.verdict.remaining()
    }

    /// The seconds until a retry can succeed, rounded up, at least 1.
    ///
    /// ``None`` unless the outcome is ``"denied"``, ``"full"`` or ``"unavailable"``.
    #[getter]
    fn retry_after_s(&self) -> Option<u32> {
        self.verdict.retry_after_s()
    }

    fn __bool__(&self) -> bool {
        self.admitted()
    }

    fn __repr__(&self) -> String {
        format!("<Compound {}>", self.verdict)
    }
}

/// Checks several keys and subjects of one request, and charges all or none.
///
/// If a key is invalid or lacks a scope, or if a window lacks room, nothing is charged. If another
/// request spends the room while this one is charged, charges made before are given back, and may
/// deny other requests meanwhile. Do not reset counts while requests are checked.
///
/// If gates are in fleets, every part of a gate needs credits of its fleet, or nothing is charged.
/// The call waits for credits as ``Gate.check`` does. In an event loop, use ``acheck_all``. The
/// time is that of the first gate in a fleet. Limiters count on this machine only.
///
/// Args:
///     parts: 1 to 8 parts with at most 8 tallies, see ``Gate.part`` and ``Limiter.part``, in any
///         order.
///     now: An explicit time, in Unix seconds or as a datetime with a time zone; the system clock
///         by default.
///
/// Raises:
///     TypeError: An argument is not a part.
///     ValueError: No part was given, or more than 8 parts or tallies.
///
/// >>> import keytally
/// >>> gate = keytally.Gate.in_memory(pepper=keytally.generate_pepper())
/// >>> key = gate.issue(42).expose()
/// >>> addresses = keytally.Limiter.in_memory("1/day")
/// >>> bool(keytally.check_all(gate.part(key), addresses.part("203.0.113.9")))
/// True
/// >>> denied = keytally.check_all(gate.part(key), addresses.part("203.0.113.9"))
/// >>> denied.admitted, [verdict.outcome for verdict in denied.verdicts]
/// (False, ['admitted', 'denied'])
/// >>> denied.remaining, denied.http_status
/// (999, 429)
#[pyfunction]
#[pyo3(signature = (*parts, now=None))]
pub(crate) fn check_all(parts: &Bound<'_, PyTuple>, now: Option<Moment>) -> PyResult<Compound> {
    let (py, now) = (parts.py(), Time::from(now));
    let parts = parts_of(parts)?;
    let parts: Vec<&Part> = parts.iter().map(Bound::get).collect();
    let compound = charged(&parts, now, Patience::Return)?;
    if !compound.verdict.is_waiting() {
        return Ok(compound);
    }
    // Other Python threads run while this one waits.
    py.detach(|| charged(&parts, now, Patience::Wait))
}

/// Makes an attempt of ``acheck_all``, which does not wait. The last one is decided as after a wait
/// that had no effect.
#[pyfunction]
#[pyo3(signature = (*parts, is_last, now=None))]
pub(crate) fn attempt_all(
    parts: &Bound<'_, PyTuple>,
    is_last: bool,
    now: Option<Moment>,
) -> PyResult<Compound> {
    let parts = parts_of(parts)?;
    let parts: Vec<&Part> = parts.iter().map(Bound::get).collect();
    charged(&parts, now.into(), if is_last { Patience::Decide } else { Patience::Return })
}

/// Returns how long a request of these parts waits for credits at most, in seconds.
#[pyfunction]
#[pyo3(signature = (*parts))]
pub(crate) fn credit_wait_all(parts: &Bound<'_, PyTuple>) -> PyResult<f64> {
    let parts = parts_of(parts)?;
    let gates = parts.iter().filter_map(|part| part.get().of.followed());
    let waits = gates.map(|gate| gate.load().credit_wait());
    let limiters = parts.iter().filter_map(|part| match &part.get().of {
        Of::Key { .. } => None,
        Of::Subject { limiter, .. } => limiter.is_in_fleet().then(|| limiter.credit_wait()),
        Of::Address { limiter, .. } => limiter.is_in_fleet().then(|| limiter.credit_wait()),
    });
    Ok(waits.chain(limiters).max().map_or(0.0, |wait| wait.as_secs_f64()))
}

/// Charges parts, with this patience for credits of a fleet.
fn charged(parts: &[&Part], now: Time, patience: Patience) -> PyResult<Compound> {
    decided(parts, patience, |list| match now {
        Time::Explicit(time) => table::check_all(&as_parts(list), time),
        Time::System => keytally::check_all(&as_parts(list)),
    })
}

/// Returns what ``check_all`` would return now, and charges nothing.
///
/// Args:
///     parts, now: As in ``check_all``.
///
/// Raises:
///     TypeError, ValueError: As in ``check_all``.
///
/// >>> import keytally
/// >>> addresses = keytally.Limiter.in_memory("2/day")
/// >>> [keytally.peek_all(addresses.part("203.0.113.9")).remaining for _ in range(2)]
/// [2, 2]
#[pyfunction]
#[pyo3(signature = (*parts, now=None))]
pub(crate) fn peek_all(parts: &Bound<'_, PyTuple>, now: Option<Moment>) -> PyResult<Compound> {
    let now = Time::from(now);
    let parts = parts_of(parts)?;
    let parts: Vec<&Part> = parts.iter().map(Bound::get).collect();
    decided(&parts, Patience::Return, |list| match now {
        Time::Explicit(time) => table::peek_all(&as_parts(list), time),
        Time::System => keytally::peek_all(&as_parts(list)),
    })
}

/// Returns the parts of a call.
fn parts_of<'py>(parts: &Bound<'py, PyTuple>) -> PyResult<Vec<Bound<'py, Part>>> {
    parts.iter().map(|part| part.cast_into::<Part>().map_err(PyErr::from)).collect()
}

/// Returns the result of `decide` for the parts. If the counts of a key are moving to another file,
/// decides again with that one.
fn decided(
    parts: &[&Part],
    patience: Patience,
    decide: impl Fn(&[Charged<'_>]) -> Result<keytally::Compound, keytally::PartsError>,
) -> PyResult<Compound> {
    let followed: Vec<Option<&Followed>> = parts.iter().map(|part| part.of.followed()).collect();
    followed.iter().flatten().for_each(|gate| gate.reopen_if_due());
    let mut used = Vec::new();
    let compound = Followed::call_all(&followed, |current| {
        let mut current = current.iter();
        let gate_of = |part: &&Part| match &part.of {
            Of::Key { gate: SharedGate::Memory(gate), .. } => Some(Arc::clone(gate)),
            // More parts than a request can have are an error, which `decide` returns.
            Of::Key { gate, .. } => {
                Some(current.next().map_or_else(|| gate.current(), Current::to_arc))
            }
            Of::Subject { .. } | Of::Address { .. } => None,
        };
        used = parts.iter().map(gate_of).collect();
        let charged: Vec<_> = parts
            .iter()
            .zip(&used)
            .filter_map(|(part, gate)| {
                let table = gate.as_ref().map(|gate| gate.counted_with(patience));
                Charged::new(part, table, patience).transpose()
            })
            .collect::<PyResult<_>>()?;
        decide(&charged).map_err(|error| PyValueError::new_err(error.to_string()))
    })?;
    Ok(Compound { verdict: Verdict::from_compound(compound, used) })
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
        part: &'p Part,
        gate: Option<Counted<'p, Mapping>>,
        patience: Patience,
    ) -> PyResult<Option<Self>> {
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
