//! The values of a verdict that was pickled, independent of the gate that returned the verdict.

use keytally::{Charge, Outcome, Reason, Timestamp, Unavailability};
use keytally::{CompoundResponse, MAX_PARTS, MAX_QUOTAS, NamedQuota, QuotaState, Response};

use crate::quota_state::{self, from_pickled, to_pickled};

/// The values of a verdict.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<Reason>,
    pub(crate) unavailability: Option<Unavailability>,
    pub(crate) leased: bool,
    pub(crate) holder: Holder,
    /// Shortest window first, at most [`MAX_QUOTAS`] of each tally.
    pub(crate) quotas: Vec<QuotaState>,
    pub(crate) cost: u32,
    /// `None` unless the request was admitted.
    pub(crate) charge: Option<Charge>,
    /// The time that `retry_after_s` is counted from.
    pub(crate) waits_from: Timestamp,
    pub(crate) retry_after_s: Option<u32>,
    pub(crate) uncharged: u32,
    pub(crate) clock_ahead_s: u32,
    pub(crate) is_shared: bool,
    /// The units of each group that a settlement could not charge.
    pub(crate) uncharged_costs: Vec<(String, u32)>,
    /// The section whose tally the verdict is on; `None` if that is not one tally of a gate.
    pub(crate) section: Option<String>,
    /// The index of the part and the verdict of each tally of the request, at most [`MAX_PARTS`];
    /// empty in the verdict on one tally.
    pub(crate) tallies: Vec<(usize, Snapshot)>,
    /// The warnings that the charge reached: the index of the tally, that of its window, and the
    /// percentage.
    pub(crate) crossed: Vec<Crossed>,
}

/// The index of a tally, that of its window, and a percentage.
pub(crate) type Crossed = (usize, usize, u8);

/// The account, key id, plan and environment of the key, each `None` unless the secret was correct.
pub(crate) type Holder = (Option<u32>, Option<String>, Option<String>, Option<String>);

/// The pickled values of a verdict: those of the whole, of its tallies, and the fields of
/// [`Snapshot`] after them.
pub(crate) type Pickled =
    (PickledValues, Vec<(usize, PickledValues)>, Vec<Crossed>, Vec<(String, u32)>);

/// The pickled values without tallies: the first fields of [`Snapshot`] in their order, of which
/// those of the decision are a tuple.
type PickledValues = (
    (String, String, String, bool),
    Holder,
    Vec<quota_state::Pickled>,
    u32,
    Option<[u8; Charge::LEN]>,
    u64,
    Option<u32>,
    u32,
    u32,
    bool,
    Option<String>,
);

/// The pickled text of `reason` and `unavailability` if they are `None`.
const NONE: &str = "none";

impl Snapshot {
    /// Calls `single` or `compound` with the HTTP response to the request.
    pub(crate) fn respond<R>(
        &self,
        single: impl FnOnce(Response<'_>) -> R,
        compound: impl FnOnce(CompoundResponse<'_>) -> R,
    ) -> R {
        let (waits_from, retry_after_s) = (self.waits_from, self.retry_after_s);
        let Some(first) = self.tallies.first() else {
            let (outcome, quotas) = (self.outcome, &self.quotas);
            return single(Response::new(outcome, quotas, self.cost, waits_from, retry_after_s));
        };
        let is_key = |(_, tally): &&(usize, Self)| tally.section.as_deref() == Some("key");
        let (own_part, own) = self.tallies.iter().find(is_key).unwrap_or(first);
        let mut quotas = Vec::new();
        for (part, tally) in &self.tallies {
            let is_own = (part, &tally.section) == (own_part, &own.section);
            let section = tally.section.as_deref();
            let named = |&state| NamedQuota::new(section, state, tally.cost, is_own);
            quotas.extend(tally.quotas.iter().map(named));
        }
        compound(CompoundResponse::new(self.outcome, &quotas, waits_from, retry_after_s))
    }

    /// Returns the state of the quota that the fields `X-RateLimit-*` describe.
    pub(crate) fn described(&self) -> Option<QuotaState> {
        self.respond(
            |_| QuotaState::described(&self.quotas).copied(),
            |response| response.described().copied(),
        )
    }

    /// Returns the values to pickle.
    pub(crate) fn to_pickled(&self) -> Pickled {
        let of_tally = |(part, tally): &(usize, Self)| (*part, tally.to_pickled_values());
        (
            self.to_pickled_values(),
            self.tallies.iter().map(of_tally).collect(),
            self.crossed.clone(),
            self.uncharged_costs.clone(),
        )
    }

    fn to_pickled_values(&self) -> PickledValues {
        (
            (
                self.outcome.as_str().to_owned(),
                self.reason.map_or(NONE, Reason::as_str).to_owned(),
                self.unavailability.map_or(NONE, Unavailability::as_str).to_owned(),
                self.leased,
            ),
            self.holder.clone(),
            self.quotas.iter().map(to_pickled).collect(),
            self.cost,
            self.charge.map(|charge| charge.to_bytes()),
            self.waits_from.unix_ms(),
            self.retry_after_s,
            self.uncharged,
            self.clock_ahead_s,
            self.is_shared,
            self.section.clone(),
        )
    }

    /// Returns the snapshot with pickled values; `None` if they are not those of a verdict.
    pub(crate) fn from_pickled(state: Pickled) -> Option<Self> {
        let (values, tallies, crossed, uncharged_costs) = state;
        let of_tally = |(part, values)| {
            let values = Self::from_pickled_values(values)?;
            (values.quotas.len() <= MAX_QUOTAS).then_some((part, values))
        };
        let tallies: Vec<_> = tallies.into_iter().map(of_tally).collect::<Option<_>>()?;
        let is_crossed = |&(tally, window, _): &Crossed| {
            let tally: Option<&(usize, Self)> = tallies.get(tally);
            tally.is_some_and(|(_, tally)| window < tally.quotas.len())
        };
        let values = Self::from_pickled_values(values)?;
        let max = if tallies.is_empty() { MAX_QUOTAS } else { MAX_QUOTAS * MAX_PARTS };
        let is_valid = tallies.len() <= MAX_PARTS
            && values.quotas.len() <= max
            && crossed.iter().all(is_crossed);
        is_valid.then_some(Self { uncharged_costs, tallies, crossed, ..values })
    }

    fn from_pickled_values(state: PickledValues) -> Option<Self> {
        let (
            (outcome, reason, unavailability, leased),
            holder,
            quotas,
            cost,
            charge,
            waits_from,
            retry_after_s,
            uncharged,
            clock_ahead_s,
            is_shared,
            section,
        ) = state;
        Some(Self {
            outcome: *Outcome::ALL.iter().find(|known| known.as_str() == outcome)?,
            reason: match reason.as_str() {
                NONE => None,
                reason => Some(*Reason::ALL.iter().find(|known| known.as_str() == reason)?),
            },
            unavailability: match unavailability.as_str() {
                NONE => None,
                why => Some(*Unavailability::ALL.iter().find(|known| known.as_str() == why)?),
            },
            leased,
            holder,
            quotas: quotas.into_iter().map(from_pickled).collect::<Option<_>>()?,
            cost,
            charge: match charge {
                None => None,
                Some(bytes) => Some(Charge::from_bytes(&bytes)?),
            },
            waits_from: Timestamp::from_unix_ms(waits_from),
            retry_after_s,
            uncharged,
            clock_ahead_s,
            is_shared,
            uncharged_costs: Vec::new(),
            section,
            tallies: Vec::new(),
            crossed: Vec::new(),
        })
    }
}
