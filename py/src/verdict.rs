//! The class `Verdict`. It holds a verdict of core, and computes each property when it is read.

use alloc::sync::Arc;

use keytally::Gate;
use keytally::Headers;
use keytally::{Outcome, Reason};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::arguments::Moment;
use crate::charge::Charge;
use crate::clock::Time;
use crate::exceptions;
use crate::fields;
use crate::quota_state::quotas;
use crate::snapshot::{Holder, Pickled, Snapshot};

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
#[pyclass(frozen, module = "keytally")]
pub(crate) struct Verdict {
    held: Held,
}

/// The source of a verdict's values.
enum Held {
    /// A verdict of core. If a gate returned it, `gate` has the names of plans and environments.
    Core { verdict: keytally::Verdict, gate: Option<Arc<Gate>> },
    /// The values of a verdict that was pickled.
    Pickled(Box<Snapshot>),
}

impl Verdict {
    /// Returns a limiter's verdict.
    #[inline]
    pub(crate) fn new(verdict: keytally::Verdict) -> Self {
        Self { held: Held::Core { verdict, gate: None } }
    }

    /// Returns a gate's verdict.
    #[inline]
    pub(crate) fn from_gate(verdict: keytally::Verdict, gate: Arc<Gate>) -> Self {
        Self { held: Held::Core { verdict, gate: Some(gate) } }
    }

    fn from_snapshot(snapshot: Snapshot) -> Self {
        Self { held: Held::Pickled(Box::new(snapshot)) }
    }

    /// Calls `core` with the verdict of core, or `pickled` with the values of a pickled verdict.
    fn either<T>(
        &self,
        core: impl FnOnce(&keytally::Verdict) -> T,
        pickled: impl FnOnce(&Snapshot) -> T,
    ) -> T {
        match &self.held {
            Held::Core { verdict, .. } => core(verdict),
            Held::Pickled(values) => pickled(values),
        }
    }

    fn core_outcome(&self) -> Outcome {
        self.either(keytally::Verdict::outcome, |values| values.outcome)
    }

    /// Returns the state of the quota that the fields `X-RateLimit-*` describe.
    fn described(&self) -> Option<keytally::QuotaState> {
        self.either(
            |verdict| verdict.quotas().described(),
            |values| keytally::QuotaState::described(&values.quotas).copied(),
        )
    }

    /// Returns the header fields as one block of lines, see [`fields::split`].
    fn header_block(&self) -> Headers {
        self.either(keytally::Verdict::headers, |values| values.response().headers())
    }

    fn holder(&self) -> Holder {
        (self.account(), self.key_id(), self.plan(), self.env())
    }

    /// Returns the values to pickle.
    fn to_pickled(&self) -> Pickled {
        self.either(
            |verdict| {
                let snapshot = Snapshot {
                    outcome: verdict.outcome(),
                    reason: verdict.reason(),
                    holder: self.holder(),
                    quotas: verdict.quotas().iter().collect(),
                    cost: verdict.cost(),
                    charge: verdict.charge(),
                    waits_from: verdict.waits_from(),
                    retry_after_s: verdict.retry_after_s(),
                    uncharged: verdict.uncharged(),
                    clock_ahead_s: verdict.clock_ahead_s(),
                };
                snapshot.to_pickled()
            },
            Snapshot::to_pickled,
        )
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
        Self::new(keytally::Verdict::duplicate_header(Time::from(now).timestamp()))
    }

    /// Whether the request was admitted.
    #[getter]
    fn admitted(&self) -> bool {
        self.core_outcome() == Outcome::Admitted
    }

    /// The decision.
    ///
    /// It is ``"admitted"``, ``"denied"``, ``"missing_key"``, ``"invalid_key"``, ``"too_costly"``
    /// or ``"full"``.
    #[getter]
    fn outcome(&self) -> &'static str {
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
    #[getter]
    fn reason(&self) -> Option<&'static str> {
        self.either(keytally::Verdict::reason, |values| values.reason).map(Reason::as_str)
    }

    /// The HTTP status: 200, 401, 429 or 503. The application replaces 200 by its own status.
    #[getter]
    fn http_status(&self) -> u16 {
        self.core_outcome().http_status()
    }

    /// The body of the response, as JSON; empty if the request was admitted.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.core_outcome().body().as_bytes())
    }

    /// The media type of ``body``.
    #[getter]
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// The body as a problem document, ``application/problem+json``; empty if the request was
    /// admitted.
    ///
    /// Unlike ``body``, it names the quotas that lacked room. The source is RFC 9457.
    #[getter]
    fn problem<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let problem = self.either(keytally::Verdict::problem, |values| values.response().problem());
        PyBytes::new(py, problem.as_bytes())
    }

    /// The header fields of the response, a list of names and values.
    ///
    /// Set them, do not append them: a response must have each field once. The source of
    /// ``RateLimit`` and ``RateLimit-Policy`` is draft-ietf-httpapi-ratelimit-headers-10.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let headers = self.header_block();
        let field = |(name, value)| (fields::name(py, name), fields::text(py, value));
        PyList::new(py, fields::split(headers.as_bytes()).map(field).collect::<Vec<_>>())
    }

    /// The header fields of the response as bytes, with lowercase names, as ASGI requires.
    #[getter]
    fn raw_headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let headers = self.header_block();
        let field = |(name, value)| (fields::raw_name(py, name), PyBytes::new(py, value));
        PyList::new(py, fields::split(headers.as_bytes()).map(field).collect::<Vec<_>>())
    }

    /// The number of the account that the key belongs to; ``None`` unless the secret was correct.
    #[getter]
    fn account(&self) -> Option<u32> {
        self.either(
            |verdict| verdict.holder().map(|holder| holder.account),
            |values| values.holder.0,
        )
    }

    /// The id of the key, 11 base62 characters; ``None`` unless the secret was correct.
    #[getter]
    fn key_id(&self) -> Option<String> {
        self.either(
            |verdict| verdict.holder().map(|holder| holder.key_id.to_string()),
            |values| values.holder.1.clone(),
        )
    }

    /// The name of the key's plan; ``None`` unless the secret was correct.
    #[getter]
    fn plan(&self) -> Option<String> {
        match &self.held {
            Held::Core { verdict, gate } => {
                let plan = gate.as_ref()?.table().plan(verdict.holder()?.plan)?;
                Some(plan.name.as_str().to_owned())
            }
            Held::Pickled(values) => values.holder.2.clone(),
        }
    }

    /// The environment of the key; ``None`` unless the secret was correct.
    #[getter]
    fn env(&self) -> Option<String> {
        match &self.held {
            Held::Core { verdict, gate } => {
                let env = gate.as_ref()?.table().env(verdict.holder()?.env)?;
                Some(env.to_string())
            }
            Held::Pickled(values) => values.holder.3.clone(),
        }
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
    fn remaining(&self) -> Option<u32> {
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
    /// ``None`` unless the outcome is ``"denied"`` or ``"full"``.
    #[getter]
    fn retry_after_s(&self) -> Option<u32> {
        self.either(keytally::Verdict::retry_after_s, |values| values.retry_after_s)
    }

    /// How far the time of the counts was ahead of the caller's, in seconds, rounded up.
    ///
    /// It is 0 if they were not ahead. A value above 60 means that a clock, or an explicit ``now``,
    /// was wrong. The next call that uses the system clock corrects the time of the counts.
    #[getter]
    fn clock_ahead_s(&self) -> u32 {
        self.either(keytally::Verdict::clock_ahead_s, |values| values.clock_ahead_s)
    }

    /// The quotas after the decision, each a `QuotaState`, shortest window first.
    ///
    /// Empty without quotas, as for an invalid key.
    #[getter]
    fn quotas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.either(
            |verdict| quotas(py, verdict.quotas().iter()),
            |values| quotas(py, values.quotas.iter().copied()),
        )
    }

    /// The charge, for a later ``refund`` or ``settle``.
    ///
    /// ``None`` unless this is the verdict of an admitted check. A peek charges nothing.
    #[getter]
    fn charge(&self) -> Option<Charge> {
        self.either(keytally::Verdict::charge, |values| values.charge).map(Charge)
    }

    /// The units that ``settle`` could not charge for lack of room; 0 in other verdicts.
    #[getter]
    fn uncharged(&self) -> u32 {
        self.either(keytally::Verdict::uncharged, |values| values.uncharged)
    }

    /// Raises an exception unless the request was admitted.
    ///
    /// Raises:
    ///     MissingKeyError, InvalidKeyError, DeniedError, TooCostlyError, FullError: The request
    ///         was refused. Each is a `RefusedError` with the verdict.
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
        Ok((restore, (slf.get().to_pickled(),)))
    }

    fn __repr__(&self) -> String {
        let outcome = self.core_outcome();
        match (self.reason(), self.described()) {
            (Some(reason), _) => format!("<Verdict {outcome}: {reason}>"),
            (None, Some(quota)) => {
                format!("<Verdict {outcome}: {} of {} left>", quota.remaining, quota.limit)
            }
            (None, None) => format!("<Verdict {outcome}>"),
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
