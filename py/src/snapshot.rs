//! The values of a verdict that was pickled, independent of the gate that returned the verdict.

use keytally::MAX_QUOTAS;
use keytally::QuotaState;
use keytally::Response;
use keytally::{Charge, Outcome, Reason, Timestamp};

use crate::quota_state::{self, from_pickled, to_pickled};

/// The values of a verdict.
pub(crate) struct Snapshot {
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<Reason>,
    pub(crate) holder: Holder,
    /// Shortest window first, at most [`MAX_QUOTAS`].
    pub(crate) quotas: Vec<QuotaState>,
    pub(crate) cost: u32,
    /// `None` unless the request was admitted.
    pub(crate) charge: Option<Charge>,
    /// The time that `retry_after_s` is counted from.
    pub(crate) waits_from: Timestamp,
    pub(crate) retry_after_s: Option<u32>,
    pub(crate) uncharged: u32,
    pub(crate) clock_ahead_s: u32,
}

/// The account, key id, plan and environment of the key, each `None` unless the secret was correct.
pub(crate) type Holder = (Option<u32>, Option<String>, Option<String>, Option<String>);

/// The pickled values of a verdict: the fields of [`Snapshot`] in their order.
pub(crate) type Pickled = (
    String,
    String,
    Holder,
    Vec<quota_state::Pickled>,
    u32,
    Option<[u8; Charge::LEN]>,
    u64,
    Option<u32>,
    u32,
    u32,
);

/// The pickled text of `reason` if it is `None`.
const NO_REASON: &str = "none";

impl Snapshot {
    /// Returns the HTTP response to the request.
    pub(crate) fn response(&self) -> Response<'_> {
        Response::new(self.outcome, &self.quotas, self.cost, self.waits_from, self.retry_after_s)
    }

    /// Returns the values to pickle.
    pub(crate) fn to_pickled(&self) -> Pickled {
        (
            self.outcome.as_str().to_owned(),
            self.reason.map_or(NO_REASON, Reason::as_str).to_owned(),
            self.holder.clone(),
            self.quotas.iter().map(to_pickled).collect(),
            self.cost,
            self.charge.map(|charge| charge.to_bytes()),
            self.waits_from.unix_ms(),
            self.retry_after_s,
            self.uncharged,
            self.clock_ahead_s,
        )
    }

    /// Returns the snapshot with pickled values; `None` if they are not those of a verdict.
    pub(crate) fn from_pickled(state: Pickled) -> Option<Self> {
        let (
            outcome,
            reason,
            holder,
            quotas,
            cost,
            charge,
            waits_from,
            retry_after_s,
            uncharged,
            clock_ahead_s,
        ) = state;
        let quotas: Vec<QuotaState> =
            quotas.into_iter().map(from_pickled).collect::<Option<_>>()?;
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
            charge: match charge {
                None => None,
                Some(bytes) => Some(Charge::from_bytes(&bytes)?),
            },
            waits_from: Timestamp::from_unix_ms(waits_from),
            retry_after_s,
            uncharged,
            clock_ahead_s,
        })
    }
}
