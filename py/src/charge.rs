//! The charge of an admitted request.

use keytally::Timestamp;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arguments::{Cost, wrong_type};

/// What an admitted request was charged, and when.
///
/// ``refund`` and ``settle`` take it. Another process can restore it from its bytes, which are the
/// same in every language. It can also make one of two numbers:
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
/// >>> Charge.from_bytes(charge.to_bytes()) == charge
/// True
#[pyclass(frozen, eq, hash, module = "keytally")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Charge(pub(crate) keytally::Charge);

#[pymethods]
impl Charge {
    #[new]
    fn new(cost: Cost, at_ms: u64) -> Self {
        Self(keytally::Charge::new(cost.0, Timestamp::from_unix_ms(at_ms)))
    }

    /// Returns the charge with these bytes.
    ///
    /// Args:
    ///     data: The 128 bytes of a charge, as ``to_bytes`` returned them.
    ///
    /// Raises:
    ///     ValueError: The bytes are not those of a charge.
    ///     TypeError: ``data`` is not ``bytes``.
    ///
    /// >>> from keytally import Charge
    /// >>> Charge.from_bytes(Charge(3, 1_700_000_000_000).to_bytes())
    /// Charge(cost=3, at_ms=1700000000000)
    #[staticmethod]
    fn from_bytes(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let bytes = data.cast::<PyBytes>().map_err(|_| wrong_type("data", "bytes", data))?;
        let bytes = bytes.as_bytes().try_into().ok();
        bytes.and_then(keytally::Charge::from_bytes).map(Self).ok_or_else(|| {
            PyValueError::new_err(
                "data is not the bytes of a charge: pass the 128 bytes that to_bytes returned",
            )
        })
    }

    /// Returns the charge as 128 bytes, to be stored.
    ///
    /// >>> from keytally import Charge
    /// >>> len(Charge(3, 1_700_000_000_000).to_bytes())
    /// 128
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    /// The units that the request itself was charged.
    ///
    /// It is 0 if only groups with costs of their own were charged.
    #[getter]
    fn cost(&self) -> u32 {
        self.0.cost()
    }

    /// The time of the charge, in Unix milliseconds.
    #[getter]
    fn at_ms(&self) -> u64 {
        self.0.at().unix_ms()
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let restore = slf.get_type().getattr("from_bytes")?;
        Ok((restore, (slf.get().to_bytes(slf.py()),)))
    }

    fn __repr__(&self) -> String {
        format!("Charge(cost={}, at_ms={})", self.cost(), self.at_ms())
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
        Ok(Self(value.cast::<Charge>()?.get().0))
    }
}
