//! The class `QuotaState`, the state of one quota of a verdict or of a key.

use keytally::Window;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The state of one quota after a decision: its limit, its remaining units and its reset.
///
/// >>> import keytally
/// >>> limiter = keytally.Limiter.in_memory("5/minute, 9/hour")
/// >>> verdict = limiter.check("203.0.113.9", now=1_700_000_000)
/// >>> minute, hour = verdict.quotas
/// >>> minute
/// <QuotaState minute: 4 of 5 left until 1700000040>
/// >>> hour.name, hour.limit, hour.remaining, hour.window, hour.reset_unix_s, hour.lacking
/// ('hour', 9, 8, 3600, 1700002800, False)
#[pyclass(frozen, module = "keytally")]
pub(crate) struct QuotaState {
    state: keytally::QuotaState,
}

impl From<keytally::QuotaState> for QuotaState {
    fn from(state: keytally::QuotaState) -> Self {
        Self { state }
    }
}

#[pymethods]
impl QuotaState {
    /// The most units that one window admits.
    #[getter]
    fn limit(&self) -> u32 {
        self.state.limit
    }

    /// The units that are left, 0 to the limit.
    #[getter]
    fn remaining(&self) -> u32 {
        self.state.remaining
    }

    /// The length of the window in seconds; of a month that of the longest one, 31 days.
    #[getter]
    fn window(&self) -> u32 {
        self.state.window.seconds()
    }

    /// The window's name in header fields.
    ///
    /// It is ``second``, ``minute``, ``hour``, ``day``, ``week`` or ``month``, otherwise the
    /// seconds, as in ``90s``.
    #[getter]
    fn name(&self) -> String {
        self.state.window.to_string()
    }

    /// The time at which the last unit that is counted now stops counting, in Unix seconds.
    #[getter]
    fn reset_unix_s(&self) -> u64 {
        self.state.reset_unix_s
    }

    /// Whether this window lacked room for the cost, so that the request was denied.
    #[getter]
    fn lacking(&self) -> bool {
        self.state.lacking
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Pickled,))> {
        let restore = slf.py().import("keytally._native")?.getattr("restore_quota_state")?;
        Ok((restore, (to_pickled(&slf.get().state),)))
    }

    fn __repr__(&self) -> String {
        let state = &self.state;
        format!(
            "<QuotaState {}: {} of {} left until {}>",
            state.window, state.remaining, state.limit, state.reset_unix_s
        )
    }
}

/// Returns the states as a tuple of `QuotaState`.
pub(crate) fn quotas<'py>(
    py: Python<'py>,
    quotas: impl Iterator<Item = keytally::QuotaState>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, quotas.map(QuotaState::from).collect::<Vec<_>>())
}

/// The pickled values of a quota's state: the fields of `keytally::QuotaState`, in their order.
pub(crate) type Pickled = (u32, u32, u32, u64, bool, bool, bool);

/// Returns the values of a quota's state to pickle.
pub(crate) fn to_pickled(quota: &keytally::QuotaState) -> Pickled {
    let keytally::QuotaState { limit, remaining, window, reset_unix_s, .. } = *quota;
    let keytally::QuotaState { lacking, lasting, named, .. } = *quota;
    (limit, remaining, window.number(), reset_unix_s, lacking, lasting, named)
}

/// Returns the quota's state with the pickled values; `None` if the window is not valid.
pub(crate) fn from_pickled(state: Pickled) -> Option<keytally::QuotaState> {
    let (limit, remaining, window, reset_unix_s, lacking, lasting, named) = state;
    let window = Window::from_number(window)?;
    let mut state = keytally::QuotaState::new(limit, remaining, window, reset_unix_s);
    (state.lacking, state.lasting, state.named) = (lacking, lasting, named);
    Some(state)
}

/// Returns the `QuotaState` with pickled values. Only `pickle` and `copy` call it.
///
/// >>> import pickle
/// >>> from keytally import Limiter
/// >>> [quota] = Limiter.in_memory("5/minute").check("203.0.113.9", now=1_700_000_000).quotas
/// >>> pickle.loads(pickle.dumps(quota))
/// <QuotaState minute: 4 of 5 left until 1700000040>
#[pyfunction]
pub(crate) fn restore_quota_state(state: Pickled) -> PyResult<QuotaState> {
    from_pickled(state).map(QuotaState::from).ok_or_else(|| {
        PyValueError::new_err("the state is not a quota's: it was pickled by another version")
    })
}
