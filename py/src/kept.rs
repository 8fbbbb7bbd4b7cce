//! What was pickled: a verdict's values, without the tally and the gate that they came from, and quotas.

use keytally::QuotaState;
use keytally::Response;
use keytally::{MAX_QUOTAS, Window};
use keytally::{Outcome, Reason, Timestamp};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::policy;
use crate::verdict::{self, Verdict};

/// The values of a verdict.
pub(crate) struct Kept {
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<Reason>,
    pub(crate) holder: HolderState,
    /// Shortest window first, at most four.
    pub(crate) quotas: Vec<QuotaState>,
    pub(crate) cost: u32,
    /// When it was charged; `None` unless admitted.
    pub(crate) charged_at: Option<Timestamp>,
    pub(crate) waits_from: Timestamp,
    pub(crate) retry_after_s: Option<u32>,
    pub(crate) uncharged: u32,
    pub(crate) clock_ahead_s: u32,
}

/// Account, key id, plan and environment.
pub(crate) type HolderState = (Option<u32>, Option<String>, Option<String>, Option<String>);

/// Limit, remaining, window, reset, lacking and lasting.
pub(crate) type WindowState = (u32, u32, u32, u64, bool, bool);

/// A verdict as Python pickles it: the fields of [`Kept`] in their order.
pub(crate) type State =
    (String, String, HolderState, Vec<WindowState>, u32, Option<u64>, u64, Option<u32>, u32, u32);

/// The reason of a verdict that has none, as Python pickles it.
const NO_REASON: &str = "none";

impl Kept {
    /// Returns what a response says of the verdict.
    pub(crate) fn response(&self) -> Response<'_> {
        Response::new(self.outcome, &self.quotas, self.cost, self.waits_from, self.retry_after_s)
    }

    /// Returns the values as Python pickles them.
    pub(crate) fn state(&self) -> State {
        (
            self.outcome.as_str().to_owned(),
            self.reason.map_or(NO_REASON, Reason::as_str).to_owned(),
            self.holder.clone(),
            self.quotas.iter().map(window_state).collect(),
            self.cost,
            self.charged_at.map(Timestamp::unix_ms),
            self.waits_from.unix_ms(),
            self.retry_after_s,
            self.uncharged,
            self.clock_ahead_s,
        )
    }

    /// Returns the verdict that a state is of; `None` if it is of none.
    fn from_state(state: State) -> Option<Self> {
        let (
            outcome,
            reason,
            holder,
            quotas,
            cost,
            charged_at,
            waits_from,
            retry_after_s,
            uncharged,
            ahead_s,
        ) = state;
        let quotas: Vec<QuotaState> = quotas.into_iter().map(quota_state).collect::<Option<_>>()?;
        (quotas.len() <= MAX_QUOTAS).then_some(())?;
        Some(Self {
            outcome: *Outcome::ALL.iter().find(|known| known.as_str() == outcome)?,
            reason: match reason.as_str() {
                NO_REASON => None,
                reason => Some(*Reason::ALL.iter().find(|known| known.as_str() == reason)?),
            },
            holder,
            quotas,
            cost,
            charged_at: charged_at.map(Timestamp::from_unix_ms),
            waits_from: Timestamp::from_unix_ms(waits_from),
            retry_after_s,
            uncharged,
            clock_ahead_s: ahead_s,
        })
    }
}

/// Returns one window of a verdict as Python pickles it.
pub(crate) fn window_state(quota: &QuotaState) -> WindowState {
    let QuotaState { limit, remaining, window, reset_unix_s, lacking, lasting, .. } = *quota;
    (limit, remaining, window.seconds(), reset_unix_s, lacking, lasting)
}

fn quota_state(state: WindowState) -> Option<QuotaState> {
    let (limit, remaining, window, reset_unix_s, lacking, lasting) = state;
    let window = Window::from_seconds(window)?;
    let mut state = QuotaState::new(limit, remaining, window, reset_unix_s);
    (state.lacking, state.lasting) = (lacking, lasting);
    Some(state)
}

/// Returns the verdict that was pickled or copied. For `pickle` alone.
///
/// >>> import pickle
/// >>> from keytally import Limiter
/// >>> verdict = Limiter("5/minute").check("203.0.113.9", now=1_700_000_000)
/// >>> pickle.loads(pickle.dumps(verdict))
/// <Verdict admitted: 4 of 5 left>
#[pyfunction]
pub(crate) fn restore_verdict(state: State) -> PyResult<Verdict> {
    Kept::from_state(state).map(Verdict::from_kept).ok_or_else(|| {
        PyValueError::new_err("the state is not a verdict's: it was pickled by another version")
    })
}

/// Returns the window of a verdict that was pickled or copied. For `pickle` alone.
///
/// >>> import pickle
/// >>> from keytally import Limiter
/// >>> [quota] = Limiter("5/minute").check("203.0.113.9", now=1_700_000_000).quotas
/// >>> pickle.loads(pickle.dumps(quota))
/// <QuotaState minute: 4 of 5 left until 1700000040>
#[pyfunction]
pub(crate) fn restore_quota_state(state: WindowState) -> PyResult<verdict::QuotaState> {
    quota_state(state)
        .map(verdict::QuotaState::from)
        .ok_or_else(|| PyValueError::new_err("the state is not a quota's: it was pickled by another version"))
}

/// Returns the quota of a policy that was pickled or copied. For `pickle` alone.
///
/// >>> import pickle
/// >>> from keytally import Policy
/// >>> pickle.loads(pickle.dumps(Policy("5/10s").quotas))
/// (Quota(limit=5, window=10),)
#[pyfunction]
pub(crate) fn restore_quota(limit: u32, window: u32) -> policy::Quota {
    policy::Quota { limit, window }
}
