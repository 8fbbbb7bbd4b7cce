//! The verdict. It holds the core's, and works out what it is asked for.

use alloc::sync::Arc;

use keytally::Gate;
use keytally::Headers;
use keytally::{Outcome, Reason, Timestamp};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::arguments::Moment;
use crate::charge::Charge;
use crate::clock::Time;
use crate::exceptions;
use crate::fields;
use crate::kept::{HolderState, Kept, State, WindowState, window_state};

/// The answer to a check: everything that an HTTP response, a log line or a later refund needs. True when admitted.
///
/// >>> import keytally
/// >>> limiter = keytally.Limiter("1/minute")
/// >>> verdict = limiter.check("203.0.113.9", now=1_700_000_000)
/// >>> verdict
/// <Verdict admitted: 0 of 1 left>
/// >>> bool(verdict), verdict.remaining, verdict.reset
/// (True, 0, 1700000040)
/// >>> verdict = limiter.check("203.0.113.9", now=1_700_000_000)
/// >>> verdict.outcome, verdict.status, verdict.retry_after
/// ('denied', 429, 40)
/// >>> verdict.body
/// b'{"error": "Rate limit exceeded. Please try again later."}'
/// >>> verdict.headers[-1], verdict.raw_headers[-1]
/// (('Retry-After', '40'), (b'retry-after', b'40'))
///
/// That on a good key tells whose it is, too.
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
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Verdict {
    held: Held,
}

enum Held {
    /// As core gave it, with the gate that knows the names of plan and environment.
    Core { verdict: keytally::Verdict, gate: Option<Arc<Gate>> },
    /// As it was pickled.
    Kept(Box<Kept>),
}

impl Verdict {
    #[inline]
    pub(crate) fn of(verdict: keytally::Verdict) -> Self {
        Self { held: Held::Core { verdict, gate: None } }
    }

    #[inline]
    pub(crate) fn of_gate(verdict: keytally::Verdict, gate: Arc<Gate>) -> Self {
        Self { held: Held::Core { verdict, gate: Some(gate) } }
    }

    pub(crate) fn from_kept(kept: Kept) -> Self {
        Self { held: Held::Kept(Box::new(kept)) }
    }

    /// Returns what `core` finds in the verdict, or `kept` in the values of one that was pickled.
    fn either<T>(&self, core: impl FnOnce(&keytally::Verdict) -> T, kept: impl FnOnce(&Kept) -> T) -> T {
        match &self.held {
            Held::Core { verdict, .. } => core(verdict),
            Held::Kept(values) => kept(values),
        }
    }

    fn decided(&self) -> Outcome {
        self.either(keytally::Verdict::outcome, |kept| kept.outcome)
    }

    fn longest(&self) -> Option<keytally::QuotaState> {
        self.either(|verdict| verdict.quotas().longest(), |kept| kept.quotas.last().copied())
    }

    fn block(&self) -> Headers {
        self.either(keytally::Verdict::headers, |kept| kept.response().headers())
    }

    fn holder(&self) -> HolderState {
        (self.account(), self.key_id(), self.plan(), self.env())
    }

    fn charged_at(&self) -> Option<Timestamp> {
        self.either(|verdict| verdict.charge().map(|charge| charge.at), |kept| kept.charged_at)
    }

    /// Returns the values to pickle.
    fn state(&self) -> State {
        self.either(
            |verdict| {
                let kept = Kept {
                    outcome: verdict.outcome(),
                    reason: verdict.reason(),
                    holder: self.holder(),
                    quotas: verdict.quotas().iter().collect(),
                    cost: verdict.cost(),
                    charged_at: self.charged_at(),
                    waits_from: verdict.waits_from(),
                    retry_after_s: verdict.retry_after_s(),
                    uncharged: verdict.uncharged(),
                    clock_ahead_s: verdict.clock_ahead_s(),
                };
                kept.state()
            },
            Kept::state,
        )
    }
}

#[pymethods]
impl Verdict {
    /// Returns the verdict on a request whose key header came more than once: it is invalid, whatever the values
    /// are, since the next server in the chain might pick another one.
    ///
    /// >>> from keytally import Verdict
    /// >>> verdict = Verdict.duplicate_header()
    /// >>> verdict.status, verdict.reason
    /// (401, 'duplicate')
    #[staticmethod]
    #[pyo3(signature = (*, now=None))]
    fn duplicate_header(now: Option<Moment>) -> Self {
        Self::of(keytally::Verdict::duplicate_header(Time::from(now).moment()))
    }

    /// Whether the request may go on.
    #[getter]
    fn admitted(&self) -> bool {
        self.decided() == Outcome::Admitted
    }

    /// What was decided: ``"admitted"``, ``"denied"``, ``"missing_key"``, ``"invalid_key"``, ``"too_costly"`` or
    /// ``"full"``.
    #[getter]
    fn outcome(&self) -> &'static str {
        self.decided().as_str()
    }

    /// Why the key is invalid, for logs and metrics, never for the client: ``"malformed"``, ``"checksum"``,
    /// ``"unknown"``, ``"wrong_secret"``, ``"revoked"``, ``"expired"``, ``"duplicate"``, ``"pepper_missing"`` or
    /// ``"damaged"``; ``None`` when it isn't.
    #[getter]
    fn reason(&self) -> Option<&'static str> {
        self.either(keytally::Verdict::reason, |kept| kept.reason).map(Reason::as_str)
    }

    /// The HTTP status: 200 (the application's to replace), 401, 429 or 503.
    #[getter]
    fn status(&self) -> u16 {
        self.decided().http_status()
    }

    /// The response's body, JSON; empty when admitted.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.decided().body().as_bytes())
    }

    /// The body's media type.
    #[getter]
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// The body as a problem document, ``application/problem+json`` (RFC 9457), for clients that want to be told which
    /// quota it was; empty when admitted.
    #[getter]
    fn problem<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let problem = self.either(keytally::Verdict::problem, |kept| kept.response().problem());
        PyBytes::new(py, problem.as_bytes())
    }

    /// The header fields of the response, name and value of each, whatever the outcome. Set them, don't append: there
    /// must be one of each.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let headers = self.block();
        let field = |(name, value)| (fields::name(py, name), fields::text(py, value));
        PyList::new(py, fields::split(headers.as_bytes()).map(field).collect::<Vec<_>>())
    }

    /// The same as bytes with lowercase names, as ASGI takes them.
    #[getter]
    fn raw_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let headers = self.block();
        let field = |(name, value)| (fields::raw_name(py, name), PyBytes::new(py, value));
        PyList::new(py, fields::split(headers.as_bytes()).map(field).collect::<Vec<_>>())
    }

    /// The number of the account that the key belongs to; ``None`` unless the secret was right.
    #[getter]
    fn account(&self) -> Option<u32> {
        self.either(|verdict| verdict.holder().map(|holder| holder.account), |kept| kept.holder.0)
    }

    /// The key's public name; ``None`` unless the secret was right.
    #[getter]
    fn key_id(&self) -> Option<String> {
        self.either(
            |verdict| verdict.holder().map(|holder| holder.key_id.to_string()),
            |kept| kept.holder.1.clone(),
        )
    }

    /// The name of the key's plan; ``None`` unless the secret was right.
    #[getter]
    fn plan(&self) -> Option<String> {
        match &self.held {
            Held::Core { verdict, gate } => {
                let plan = gate.as_ref()?.table().plan(verdict.holder()?.plan)?;
                Some(plan.name.as_str().to_owned())
            }
            Held::Kept(kept) => kept.holder.2.clone(),
        }
    }

    /// The key's environment; ``None`` unless the secret was right.
    #[getter]
    fn env(&self) -> Option<String> {
        match &self.held {
            Held::Core { verdict, gate } => {
                let env = gate.as_ref()?.table().env(verdict.holder()?.env)?;
                Some(env.to_string())
            }
            Held::Kept(kept) => kept.holder.3.clone(),
        }
    }

    /// The limit of the longest window; ``None`` when nothing was counted, as for an invalid key.
    #[getter]
    fn limit(&self) -> Option<u32> {
        self.longest().map(|quota| quota.limit)
    }

    /// Units left in the longest window; 0 when nothing was counted, as for an invalid key.
    #[getter]
    fn remaining(&self) -> u32 {
        self.longest().map_or(0, |quota| quota.remaining)
    }

    /// When the longest window will have forgotten all that it counts now, in Unix seconds; ``None`` when nothing was
    /// counted.
    #[getter]
    fn reset(&self) -> Option<u64> {
        self.longest().map(|quota| quota.reset_unix_s)
    }

    /// Seconds until a try is worthwhile, rounded up and at least 1; ``None`` unless denied or full.
    #[getter]
    fn retry_after(&self) -> Option<u32> {
        self.either(keytally::Verdict::retry_after_s, |kept| kept.retry_after_s)
    }

    /// By how many seconds the tally was ahead of the caller's time, rounded up; 0 if it was not.
    /// More than 60 says that a clock, or an explicit ``now``, was wrong. The next call by the
    /// system clock corrects the tally.
    #[getter]
    fn clock_ahead_s(&self) -> u32 {
        self.either(keytally::Verdict::clock_ahead_s, |kept| kept.clock_ahead_s)
    }

    /// Every window after the decision, shortest first, each a `QuotaState`; empty when nothing was counted.
    #[getter]
    fn quotas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.either(
            |verdict| quotas(py, verdict.quotas().iter()),
            |kept| quotas(py, kept.quotas.iter().copied()),
        )
    }

    /// What was charged, to be kept for a later ``refund`` or ``settle``; ``None`` unless admitted.
    #[getter]
    fn charge(&self) -> Option<Charge> {
        let cost = self.either(keytally::Verdict::cost, |kept| kept.cost);
        self.charged_at().map(|at| Charge::from(keytally::Charge { cost, at }))
    }

    /// Units that a ``settle`` found no room for; 0 in every other verdict.
    #[getter]
    fn uncharged(&self) -> u32 {
        self.either(keytally::Verdict::uncharged, |kept| kept.uncharged)
    }

    /// Does nothing when admitted, and raises what happened otherwise.
    ///
    /// Raises:
    ///     MissingKeyError, InvalidKeyError, DeniedError, TooCostlyError, FullError: Each is a `RefusedError`, and
    ///         holds the verdict.
    ///
    /// >>> import keytally
    /// >>> limiter = keytally.Limiter("1/minute")
    /// >>> limiter.check("203.0.113.9", now=1_700_000_000).raise_for_status()
    /// >>> limiter.check("203.0.113.9", now=1_700_000_000).raise_for_status()
    /// Traceback (most recent call last):
    /// keytally.exceptions.DeniedError: denied (429); try again in 40 s
    fn raise_for_status(slf: &Bound<'_, Self>) -> PyResult<()> {
        let outcome = slf.get().decided();
        exceptions::refused(outcome, (slf.clone().unbind(),)).map_or(Ok(()), Err)
    }

    fn __bool__(&self) -> bool {
        self.admitted()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (State,))> {
        let restore = slf.py().import("keytally._native")?.getattr("restore_verdict")?;
        Ok((restore, (slf.get().state(),)))
    }

    fn __repr__(&self) -> String {
        let outcome = self.decided();
        match (self.reason(), self.longest()) {
            (Some(reason), _) => format!("<Verdict {outcome}: {reason}>"),
            (None, Some(quota)) => {
                format!("<Verdict {outcome}: {} of {} left>", quota.remaining, quota.limit)
            }
            (None, None) => format!("<Verdict {outcome}>"),
        }
    }
}

/// The windows as a tuple.
pub(crate) fn quotas<'py>(
    py: Python<'py>,
    quotas: impl Iterator<Item = keytally::QuotaState>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, quotas.map(QuotaState::from).collect::<Vec<_>>())
}

/// One window of a verdict.
///
/// >>> import keytally
/// >>> verdict = keytally.Limiter("5/minute, 9/hour").check("203.0.113.9", now=1_700_000_000)
/// >>> minute, hour = verdict.quotas
/// >>> minute
/// <QuotaState minute: 4 of 5 left until 1700000040>
/// >>> hour.name, hour.limit, hour.remaining, hour.window, hour.reset, hour.lacking
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
    /// The most that one window admits.
    #[getter]
    fn limit(&self) -> u32 {
        self.state.limit
    }

    /// What is left, at most the limit.
    #[getter]
    fn remaining(&self) -> u32 {
        self.state.remaining
    }

    /// The length of the window in seconds.
    #[getter]
    fn window(&self) -> u32 {
        self.state.window.seconds()
    }

    /// The window's name in header fields: ``second``, ``minute``, ``hour`` or ``day``, else its seconds, ``90s``.
    #[getter]
    fn name(&self) -> String {
        self.state.window.to_string()
    }

    /// When all that is counted now will be forgotten, in Unix seconds.
    #[getter]
    fn reset(&self) -> u64 {
        self.state.reset_unix_s
    }

    /// Whether this window is why the request was denied.
    #[getter]
    fn lacking(&self) -> bool {
        self.state.lacking
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (WindowState,))> {
        let restore = slf.py().import("keytally._native")?.getattr("restore_quota_state")?;
        Ok((restore, (window_state(&slf.get().state),)))
    }

    fn __repr__(&self) -> String {
        let state = &self.state;
        format!(
            "<QuotaState {}: {} of {} left until {}>",
            state.window, state.remaining, state.limit, state.reset_unix_s
        )
    }
}
