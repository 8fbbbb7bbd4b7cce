//! The function `check_all` and its classes: several keys and subjects of one request, charged all
//! or none.

use alloc::sync::Arc;

use keytally::{Gate, GatePart, Limiter, LimiterPart, Mapping, table};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use zeroize::Zeroizing;

use crate::arguments::Moment;
use crate::clock::{Time, with_clock};
use crate::verdict::Verdict;

/// A key or a subject with a cost, as a part of ``check_all``.
///
/// ``Gate.part`` and ``Limiter.part`` return it. Make one for each request: a part of a gate uses
/// the file that was at the gate's path when it was made.
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
    Key { gate: Arc<Gate>, api_key: Option<Zeroizing<Vec<u8>>> },
    Subject { limiter: Arc<Limiter>, subject: Vec<u8> },
}

impl Part {
    pub(crate) fn key(gate: Arc<Gate>, api_key: Option<&[u8]>, cost: u32) -> Self {
        let api_key = api_key.map(|text| Zeroizing::new(text.to_vec()));
        Self { of: Of::Key { gate, api_key }, cost }
    }

    pub(crate) fn subject(limiter: Arc<Limiter>, subject: &[u8], cost: u32) -> Self {
        Self { of: Of::Subject { limiter, subject: subject.to_vec() }, cost }
    }

    /// Returns the verdict of this part as an object.
    fn verdict(&self, verdict: keytally::Verdict) -> Verdict {
        match &self.of {
            Of::Key { gate, .. } => Verdict::from_gate(verdict, Arc::clone(gate)),
            Of::Subject { .. } => Verdict::new(verdict),
        }
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
            Of::Subject { .. } => "limiter",
        };
        format!("<Part of a {table}, cost {}>", self.cost)
    }
}

/// The result of ``check_all``: the verdict of each part. It is true if the request was admitted.
///
/// >>> from keytally import Limiter, check_all
/// >>> users, teams = Limiter.in_memory("5/minute"), Limiter.in_memory("3/minute")
/// >>> compound = check_all(users.part("ann", 4), teams.part("42", 4))
/// >>> compound.admitted, compound.decisive.outcome
/// (False, 'too_costly')
/// >>> [verdict.remaining for verdict in compound.verdicts]
/// [5, 3]
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Compound {
    verdicts: Vec<Py<Verdict>>,
    decisive: Py<Verdict>,
    admitted: bool,
}

#[pymethods]
impl Compound {
    /// Whether the request was admitted. Every part is then charged, else none.
    #[getter]
    fn admitted(&self) -> bool {
        self.admitted
    }

    /// The verdict of each part, in the order of the parts.
    ///
    /// If the request was refused, each part that refused it has another outcome than
    /// ``"admitted"``, and no verdict has a charge. If it was admitted, each charge can be refunded
    /// and settled as that of a single check.
    #[getter]
    fn verdicts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.verdicts)
    }

    /// The verdict that decided, whose status and body the response has.
    ///
    /// It is that of a missing or invalid key, else of a full limiter, else of a part that the cost
    /// is above a limit of, else the denial that lasts longest. If the request was admitted, it is
    /// the first.
    #[getter]
    fn decisive(&self, py: Python<'_>) -> Py<Verdict> {
        self.decisive.clone_ref(py)
    }

    fn __bool__(&self) -> bool {
        self.admitted
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let verdicts = self.verdicts(py)?.repr()?;
        Ok(format!("<Compound {verdicts}>"))
    }
}

/// Checks several keys and subjects of one request, and charges all or none.
///
/// If a key is invalid or a window lacks room, nothing is charged. If another request spends the
/// room while this one is charged, charges made before are given back, and may deny other requests
/// meanwhile. Do not reset counts while requests are checked.
///
/// Args:
///     parts: 1 to 8 parts, see ``Gate.part`` and ``Limiter.part``, in any order.
///     now: An explicit time, in Unix seconds or as a datetime with a time zone; the system clock
///         by default.
///
/// Raises:
///     TypeError: An argument is not a part.
///     ValueError: No part was given, or more than 8.
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
/// >>> denied.verdicts[0].remaining, denied.decisive.http_status
/// (999, 429)
#[pyfunction]
#[pyo3(signature = (*parts, now=None))]
pub(crate) fn check_all(
    py: Python<'_>,
    parts: &Bound<'_, PyTuple>,
    now: Option<Moment>,
) -> PyResult<Compound> {
    let parts: Vec<Bound<'_, Part>> = parts
        .iter()
        .map(|part| part.cast_into::<Part>().map_err(PyErr::from))
        .collect::<PyResult<_>>()?;
    let mut charged: Vec<Charged<'_>> = parts.iter().map(|part| Charged::new(part.get())).collect();
    let compound = with_clock!(Time::from(now), |clock| {
        let mut list: Vec<&mut dyn keytally::Part<_>> =
            charged.iter_mut().map(Charged::as_part).collect();
        table::check_all(&mut list, clock)
    });
    let compound = compound.map_err(|error| PyValueError::new_err(error.to_string()))?;
    let verdicts = compound
        .verdicts()
        .zip(&parts)
        .map(|(verdict, part)| Py::new(py, part.get().verdict(*verdict)))
        .collect::<PyResult<Vec<_>>>()?;
    let decisive = verdicts[compound.decisive_index()].clone_ref(py);
    Ok(Compound { verdicts, decisive, admitted: compound.is_admitted() })
}

/// A part as host takes it.
enum Charged<'p> {
    Key(GatePart<'p, Mapping>),
    Subject(LimiterPart<'p, Mapping>),
}

impl<'p> Charged<'p> {
    fn new(part: &'p Part) -> Self {
        match &part.of {
            Of::Key { gate, api_key } => {
                Self::Key(gate.part(api_key.as_deref().map(Vec::as_slice), part.cost))
            }
            Of::Subject { limiter, subject } => Self::Subject(limiter.part(subject, part.cost)),
        }
    }

    fn as_part<C: keytally::Clock>(&mut self) -> &mut dyn keytally::Part<C> {
        match self {
            Self::Key(part) => part,
            Self::Subject(part) => part,
        }
    }
}
