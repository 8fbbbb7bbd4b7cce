//! The verdict: the result of a check, for the HTTP response, logs and a later refund.

use crate::charge::Charge;
use crate::decide::{self, Decision};
use crate::key::KeyId;
use crate::outcome::{Outcome, Reason, Unavailability};
use crate::quota::Limits;
use crate::quotas::Quotas;
use crate::tally::Layout;
#[cfg(feature = "__models")]
use crate::tally::PackedLimits;
use crate::time::Timestamp;

/// The holder of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Holder {
    /// The key's public name.
    pub key_id: KeyId,
    /// The team account that the key belongs to.
    pub account: u32,
    /// The number of the key's plan; [`Gate::plan`](crate::Gate::plan) returns its name.
    pub plan: u8,
    /// The number of the key's environment; [`Gate::env`](crate::Gate::env) returns its name.
    pub env: u8,
}

/// The result of a check: the outcome, the state of every window, and the holder of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) note: Note,
    pub(crate) holder: Option<Holder>,
    pub(crate) quotas: Quotas,
    pub(crate) cost: u32,
    pub(crate) uncharged: u32,
    pub(crate) now: Timestamp,
    /// When a slot becomes free, with [`Outcome::Full`], or when the caller may try again, with
    /// [`Outcome::Unavailable`].
    pub(crate) free_at: Option<Timestamp>,
}

/// What a verdict reports in addition to its outcome. As one byte that is constant in a check, it
/// costs no instruction there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) enum Note {
    /// Nothing.
    None,
    /// Nothing was charged, although the outcome is [`Outcome::Admitted`].
    NoCharge,
    /// The decision is about an overflow tally of a limiter.
    Shared,
    /// The verdict shows leased units.
    Leased,
    /// The verdict shows leased units, and nothing was charged, although the outcome is
    /// [`Outcome::Admitted`].
    LeasedNoCharge,
    /// The request was charged, but nothing was reserved for it.
    Unreserved,
    /// The request was charged to an overflow tally, and nothing was reserved for it.
    SharedUnreserved,
    /// Requests need a reservation, and this process makes none.
    NotReserving,
    /// What grants reservations cannot be reached.
    Lost,
    /// The reservation is not granted yet.
    Waiting,
    /// Why the key is invalid.
    Invalid(Reason),
}

impl Verdict {
    /// Returns whether the request is admitted.
    #[inline]
    pub fn is_admitted(&self) -> bool {
        self.outcome == Outcome::Admitted
    }

    /// Returns the outcome.
    #[inline]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns why the key is invalid, for logs and metrics and never for the client; `None` unless
    /// the outcome is [`Outcome::InvalidKey`].
    pub fn reason(&self) -> Option<Reason> {
        match self.note {
            Note::Invalid(reason) => Some(reason),
            _ => None,
        }
    }

    /// Returns why the gate does not decide; `None` unless the outcome is
    /// [`Outcome::Unavailable`].
    pub fn unavailability(&self) -> Option<Unavailability> {
        let why = match self.note {
            Note::NotReserving => Unavailability::NotReserving,
            Note::Lost => Unavailability::Lost,
            Note::Waiting => Unavailability::Waiting,
            _ => Unavailability::Moving,
        };
        (self.outcome == Outcome::Unavailable).then_some(why)
    }

    /// Returns whether the verdict is on units that several machines share: those that this
    /// machine leased, and those that the store had left in its last reply. False if only the tally
    /// decided.
    pub fn is_leased(&self) -> bool {
        matches!(self.note, Note::Leased | Note::LeasedNoCharge)
    }

    /// Returns the holder of the key; `None` unless the secret was right or the call named the key
    /// id. A revoked or expired key has a holder too.
    pub fn holder(&self) -> Option<Holder> {
        self.holder
    }

    /// Returns the state of every window after the decision; empty if no tally was read.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Returns the units left in the window that [`Quotas::described`] names, as in
    /// `X-RateLimit-Remaining`; `None` if no tally was read.
    pub fn remaining(&self) -> Option<u32> {
        self.quotas.described_remaining()
    }

    /// Returns the time at which a retry can succeed; `None` unless the outcome is
    /// [`Outcome::Denied`], [`Outcome::Full`] or [`Outcome::Unavailable`].
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self.outcome {
            Outcome::Denied => Some(self.quotas.room_at(self.cost)),
            _ => self.free_at,
        }
    }

    /// Returns the seconds from [`waits_from`](Self::waits_from) until
    /// [`retry_at`](Self::retry_at), rounded up and at least 1; `None` if that is `None`.
    #[inline]
    pub fn retry_after_s(&self) -> Option<u32> {
        let wait_ms = self.retry_at()?.unix_ms().saturating_sub(self.waits_from().unix_ms());
        Some(u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1))
    }

    /// Returns the time that waits are counted from, in `Retry-After` and in the `t` of
    /// `RateLimit`.
    ///
    /// It is the later of the caller's time and the decision's. If the tally is ahead by more than
    /// 60 s, one of the clocks is wrong. Then it is the caller's time, so that the wait ends by the
    /// caller's clock.
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub fn waits_from(&self) -> Timestamp {
        decide::waits_from(self.now, self.quotas.time())
    }

    /// Returns by how many seconds the tally was ahead of the caller, rounded up; 0 if it was not.
    ///
    /// If it is more than 60, a clock or an explicit time was wrong. With the system clock, the
    /// next check corrects the tally; see [`decide`] for what that costs.
    pub fn clock_ahead_s(&self) -> u32 {
        self.quotas.ahead_s(self.now)
    }

    /// Returns whether this is the verdict of a check that was charged: whether there is a
    /// [`charge`](Self::charge).
    #[inline]
    pub fn is_charged(&self) -> bool {
        self.is_admitted() && !matches!(self.note, Note::NoCharge | Note::LeasedNoCharge)
    }

    /// Returns the charge, which the caller keeps for a later `refund` or `settle`; `None` unless
    /// this is the verdict of an admitted check. A peek, refund, settle or reset has none.
    #[inline]
    pub fn charge(&self) -> Option<Charge> {
        self.is_charged().then(|| {
            let make = match self.note {
                Note::Shared => Charge::shared,
                Note::Unreserved => Charge::unreserved,
                Note::SharedUnreserved => Charge::shared_unreserved,
                _ => Charge::new,
            };
            make(self.cost, self.quotas.time())
        })
    }

    /// Returns whether the request was charged without a [reservation](crate::Reserve), although
    /// the gate has one: what grants reservations cannot be reached, and its operator chose so.
    #[inline]
    pub fn is_unreserved(&self) -> bool {
        matches!(self.note, Note::Unreserved | Note::SharedUnreserved)
    }

    /// Returns whether the subject found no slot in a limiter and was charged to a tally that it
    /// shares with others, or was denied for lack of room there: see
    /// [`OnFull::Share`](crate::OnFull::Share). False for a peek, refund, settle or reset.
    pub fn is_shared(&self) -> bool {
        matches!(self.note, Note::Shared | Note::SharedUnreserved)
    }

    /// Returns the cost that was requested; 0 if no tally was read, and after a refund, settle or
    /// reset.
    #[inline]
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// Returns the units that a `settle` found no room for; 0 in every other verdict.
    pub fn uncharged(&self) -> u32 {
        self.uncharged
    }

    /// Returns the caller's time: the explicit time, or the largest reading of the system clock
    /// during the call.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The verdict on a request with more than one key header: the key is invalid, whatever the
    /// values are. A proxy or server behind this one might use another of the values.
    pub fn duplicate_header(now: Timestamp) -> Self {
        Self::refused(Outcome::InvalidKey, Some(Reason::Duplicate), now)
    }

    /// The verdict that follows from a decision, for callers that store tallies of their own.
    /// `layout`, `limits`, `now` and `cost` must be those of the decision. If that is not the
    /// decision of a check, add [`without_charge`](Self::without_charge).
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub fn decided(
        layout: &Layout,
        limits: &Limits,
        decision: Decision,
        holder: Option<Holder>,
        now: Timestamp,
        cost: u32,
    ) -> Self {
        let is_within = layout.is_within(decision.next, now);
        Self::decided_at(layout, limits, decision, holder, now, cost, is_within)
    }

    /// The verdict that [`decided`](Self::decided) returns. `is_within` is whether the unit of the
    /// next word's stamp contains `now` ([`Layout::is_within`]).
    #[cfg_attr(target_pointer_width = "64", inline)]
    pub(crate) fn decided_at(
        layout: &Layout,
        limits: &Limits,
        decision: Decision,
        holder: Option<Holder>,
        now: Timestamp,
        cost: u32,
        is_within: bool,
    ) -> Self {
        let mut quotas = decide::quotas_at(layout, limits, decision.next, now, is_within);
        quotas.denied = if decision.outcome == Outcome::Denied { cost } else { 0 };
        Self {
            outcome: decision.outcome,
            note: Note::None,
            holder,
            quotas,
            cost,
            uncharged: decision.uncharged,
            now,
            free_at: None,
        }
    }

    /// The decision and the verdict of a limiter's fast path, for tests that compare them with a
    /// model on every word.
    #[cfg(feature = "__models")]
    #[doc(hidden)]
    pub fn of_fast_path(
        layout: &Layout,
        limits: &Limits,
        word: u64,
        now: Timestamp,
        cost: u32,
    ) -> Option<(Decision, Self)> {
        let packed = PackedLimits::new(layout.counts(), limits);
        let decision = decide::check_within(layout, || *limits, &packed, word, now, cost)?;
        Some((decision, Self::decided_at(layout, limits, decision, None, now, cost, true)))
    }

    /// This verdict without a [`charge`](Self::charge), for a decision that charged nothing.
    #[must_use]
    pub fn without_charge(mut self) -> Self {
        if self.is_admitted() {
            self.note = if self.is_leased() { Note::LeasedNoCharge } else { Note::NoCharge };
        } else if self.is_shared() {
            self.note = Note::None;
        }
        self
    }

    /// Returns this verdict as one on [leased](Self::is_leased) units.
    #[must_use]
    pub fn leased(self) -> Self {
        Self { note: Note::Leased, ..self }
    }

    /// Returns the denial of this verdict's cost by a tally with this word, at the same time. The
    /// layout is that of the tally.
    #[must_use]
    pub fn denied_by(&self, layout: &Layout, word: u64) -> Self {
        let time = self.quotas.time();
        let mut quotas = decide::quotas(layout, self.quotas.limits(), word, time);
        quotas.denied = self.cost;
        Self { outcome: Outcome::Denied, note: Note::None, quotas, ..*self }
    }

    /// Returns the verdict that the gate does not decide about this request now.
    #[must_use]
    pub fn unavailable_since(&self, why: Unavailability) -> Self {
        let mut verdict = Self::unavailable(self.holder, self.now);
        verdict.note = match why {
            Unavailability::Moving => Note::None,
            Unavailability::NotReserving => Note::NotReserving,
            Unavailability::Lost => Note::Lost,
            Unavailability::Waiting => Note::Waiting,
        };
        verdict
    }

    /// This verdict as one about an overflow tally.
    pub(crate) fn shared(mut self) -> Self {
        self.note = Note::Shared;
        self
    }

    /// Makes this the verdict of a decision that was not carried out. `word` is the word that was
    /// decided on.
    pub(crate) fn withdraw(&mut self, layout: &Layout, word: u64) {
        let denied = self.quotas.denied;
        self.quotas = decide::quotas(layout, self.quotas.limits(), word, self.now);
        self.quotas.denied = denied;
        *self = self.without_charge();
    }

    /// Makes this verdict show the counts of another word of the same time, as leased units.
    pub(crate) fn show(&mut self, layout: &Layout, word: u64) {
        let (denied, time) = (self.quotas.denied, self.quotas.time());
        let is_within = layout.is_within(word, time);
        self.quotas = decide::quotas_at(layout, self.quotas.limits(), word, time, is_within);
        self.quotas.denied = denied;
        self.note = match self.note {
            Note::None => Note::Leased,
            Note::NoCharge => Note::LeasedNoCharge,
            other => other,
        };
    }

    /// Makes this the verdict of a charge for which nothing was reserved.
    pub(crate) fn mark_unreserved(&mut self) {
        self.note = match self.note {
            Note::None => Note::Unreserved,
            Note::Shared => Note::SharedUnreserved,
            other => other,
        };
    }

    /// Makes this the verdict of a charge that was given back, with the state after the refund.
    pub(crate) fn give_back(&mut self, refunded: Option<Self>) {
        if let Some(refunded) = refunded {
            self.quotas = refunded.quotas;
        }
        *self = self.without_charge();
    }

    /// The verdict on a new subject in a limiter that has no slot for one before `until`.
    pub(crate) fn full(until: Timestamp, now: Timestamp) -> Self {
        let mut verdict = Self::refused(Outcome::Full, None, now);
        verdict.free_at = Some(until);
        verdict
    }

    /// The verdict on a key whose tally is sealed.
    #[cold]
    pub(crate) fn unavailable(holder: Option<Holder>, now: Timestamp) -> Self {
        let mut verdict = Self::refused(Outcome::Unavailable, None, now);
        verdict.holder = holder;
        verdict.free_at = Some(Timestamp::from_unix_ms(now.unix_ms().saturating_add(1000)));
        verdict
    }

    /// The verdict on an invalid key. `holder` is the key's holder if the secret was right.
    #[inline(never)]
    pub(crate) fn invalid(reason: Reason, holder: Option<Holder>, now: Timestamp) -> Self {
        let mut verdict = Self::refused(Outcome::InvalidKey, Some(reason), now);
        verdict.holder = holder;
        verdict
    }

    /// A verdict that read no tally.
    pub(crate) fn refused(outcome: Outcome, reason: Option<Reason>, now: Timestamp) -> Self {
        Self {
            outcome,
            note: reason.map_or(Note::None, Note::Invalid),
            holder: None,
            quotas: Quotas::NONE,
            cost: 0,
            uncharged: 0,
            now,
            free_at: None,
        }
    }
}

// As one byte, it costs no instruction in a check.
const _: () = assert!(size_of::<Note>() == 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn a_verdict_without_a_tally_has_no_remaining_units() {
        let verdict = Verdict::refused(Outcome::MissingKey, None, Timestamp::from_unix_s(60));
        assert_eq!((verdict.remaining(), verdict.charge()), (None, None));
    }

    #[test]
    fn only_an_admitted_check_has_a_charge() {
        let policy: Policy = "3/minute".parse().unwrap();
        let (layout, limits, at) = (policy.layout(), policy.limits(), Timestamp::from_unix_s(60));
        let verdict = |cost| {
            let decision = decide::check(layout, &limits, 0, at, cost);
            Verdict::decided(layout, &limits, decision, None, at, cost)
        };
        for cost in [0, 1, 3] {
            assert_eq!(verdict(cost).charge(), Some(Charge::new(cost, at)));
            let without = verdict(cost).without_charge();
            assert_eq!((without.charge(), without.reason(), without.cost()), (None, None, cost));
            assert_eq!(without.quotas(), verdict(cost).quotas());
        }
        assert_eq!(verdict(4).charge(), None);
        assert_eq!(verdict(4).without_charge(), verdict(4));
    }
}
