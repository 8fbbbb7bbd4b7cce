//! The charge of an admitted request.

use keytally::Timestamp;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::arguments::Cost;

/// The cost that an admitted request was charged, and the time of the charge.
///
/// ``refund`` and ``settle`` take it. Another process can rebuild it from its two numbers:
/// ``Charge(charge.cost, charge.at_ms)``.
///
/// Args:
///     cost: The units charged, 0 to 4294967295.
///     at_ms: The time of the charge, in Unix milliseconds.
///
/// >>> from keytally import Charge, Limiter
/// >>> charge = Limiter.in_memory("5/minute").check("203.0.113.9", now=1_700_000_000).charge
/// >>> charge
/// Charge(cost=1, at_ms=1700000000000)
/// >>> Charge(charge.cost, charge.at_ms) == charge
/// True
#[pyclass(frozen, eq, hash, module = "keytally")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Charge {
    cost: u32,
    at_ms: u64,
}

#[pymethods]
impl Charge {
    #[new]
    fn new(cost: Cost, at_ms: u64) -> Self {
        Self { cost: cost.0, at_ms }
    }

    /// The cost in units.
    #[getter]
    fn cost(&self) -> u32 {
        self.cost
    }

    /// The time of the charge, in Unix milliseconds.
    #[getter]
    fn at_ms(&self) -> u64 {
        self.at_ms
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyType>, (u32, u64)) {
        let charge = slf.get();
        (slf.get_type(), (charge.cost, charge.at_ms))
    }

    fn __repr__(&self) -> String {
        format!("Charge(cost={}, at_ms={})", self.cost, self.at_ms)
    }
}

impl From<keytally::Charge> for Charge {
    fn from(charge: keytally::Charge) -> Self {
        Self { cost: charge.cost(), at_ms: charge.at().unix_ms() }
    }
}

/// A charge as an argument. `None`, the charge of a verdict that was not admitted, is an error.
pub(crate) struct ChargeArgument(pub(crate) keytally::Charge);

impl<'py> FromPyObject<'_, 'py> for ChargeArgument {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if value.is_none() {
            return Err(PyValueError::new_err(
                "the charge is None: only the verdict of an admitted check has one; check verdict.admitted first",
            ));
        }
        let charge = value.cast::<Charge>()?.get();
        Ok(Self(keytally::Charge::new(charge.cost, Timestamp::from_unix_ms(charge.at_ms))))
    }
}
