//! Compound charges: one request charges several tallies, all or none.
//!
//! Each tally is a word of its own, so no single exchange can charge them all. Instead:
//!
//! 1. *fetch*: load the memory of all parts, without waiting for it;
//! 2. *probe*: verify every key and decide about every tally, and write nothing. If a part is
//!    refused, so is the request, and the verdicts name each part that refused it;
//! 3. *charge* the tallies one after another, in the order of their positions, each as its table's
//!    own check does;
//! 4. *give back*: if a tally has lost its room since it was probed, refund those that were charged
//!    before it, each at the time of its charge.
//!
//! # What holds
//! Steps 3 and 4 are decisions, so all guarantees of a single tally hold for each. No tally admits
//! more than its limit. A request that is refused has charged nothing when the call returns. A
//! process that is killed during step 3 leaves at most the costs of this one request.
//!
//! A denial in step 2 means that a tally lacked room at one instant of the call. A denial in step 3
//! means this too, but the room may have been taken by another compound charge that gives it back
//! before its own call returns. All compound charges use one order, so of those that compete for
//! the same tallies, one wins: without the order, each could take what the others need, and all
//! would be refused. A `reset` between a charge and its refund makes the refund too large, since it
//! subtracts units that others charged after the reset.

use core::fmt;

use heapless::Vec;

use crate::cache_line::CacheLine;
use crate::gate::Gate;
use crate::limiter::{Limiter, Subject};
use crate::outcome::Outcome;
use crate::record::RecordVersion;
use crate::sort::sort_by_key;
use crate::time::Clock;
use crate::verdict::Verdict;

/// The most parts of a compound charge.
pub const MAX_PARTS: usize = 8;

/// A part of a compound charge: a [`GatePart`] or a [`LimiterPart`].
pub trait Part<C: Clock>: sealed::Steps<C> {}

impl<C: Clock, P: sealed::Steps<C>> Part<C> for P {}

/// Where a tally is: the number of its table, and the number of its record or home slot. Compound
/// charges charge tallies in the order of their positions.
type Position = (u64, u64);

mod sealed {
    use super::{Clock, Position, Verdict};

    /// The steps of a compound charge for one part.
    pub trait Steps<C: Clock> {
        fn position(&self) -> Position;
        fn fetch(&self);
        /// Returns the verdict that a charge would have now, and charges nothing.
        fn probe(&mut self, clock: C) -> Verdict;
        /// Charges the part, which [`probe`](Self::probe) admitted.
        fn charge(&mut self, clock: C) -> Verdict;
        /// Refunds the charge of a verdict of this part; `None` if its gate has lost the key.
        fn give_back(&mut self, charged: &Verdict, clock: C) -> Option<Verdict>;
    }
}

/// Checks several parts of one request, and charges all or none.
///
/// A part is a key of a gate with a cost, or a subject of a limiter with a cost. If any key is
/// invalid or any window lacks room, nothing is charged. The parts may be in any order.
///
/// If another request spends the room while this one is charged, charges made before are given
/// back. The room that they take meanwhile may deny other requests. Do not reset the counts of
/// these tallies while requests are checked: a charge that is given back after a reset subtracts
/// units of other requests.
///
/// # Errors
/// [`PartsError`] without a part, or with more than [`MAX_PARTS`].
///
/// ```
/// use keytally_core::{CacheLine, Limiter, Outcome, Policy, Timestamp, check_all};
/// # let lines = Limiter::<&[CacheLine]>::lines(8);
/// # let memory = || (0..lines).map(|_| CacheLine::new()).collect::<Vec<_>>();
/// let (users, teams): (Policy, Policy) = ("3/minute".parse()?, "4/minute".parse()?);
/// let users = Limiter::init(memory(), &users, 8, [7; 16])?;
/// let teams = Limiter::init(memory(), &teams, 8, [8; 16])?;
///
/// let now = Timestamp::from_unix_s(1_700_000_000);
/// let request = |user: &[u8], cost| {
///     check_all(&mut [&mut users.part(user, cost), &mut teams.part(b"team 42", cost)], now)
/// };
/// assert!(request(b"ann", 3)?.is_admitted());
/// let denied = request(b"bob", 2)?;
/// let outcomes = denied.verdicts().iter().map(|verdict| verdict.outcome());
/// assert!(outcomes.eq([Outcome::Admitted, Outcome::Denied]), "the team has one unit left");
/// assert_eq!(denied.verdicts()[0].remaining(), Some(3), "bob was not charged");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check_all<C: Clock>(
    parts: &mut [&mut dyn Part<C>],
    clock: C,
) -> Result<Compound, PartsError> {
    if !(1..=MAX_PARTS).contains(&parts.len()) {
        return Err(PartsError { parts: parts.len() });
    }
    for part in parts.iter() {
        part.fetch();
    }
    let mut verdicts = Vec::new();
    let mut order = Vec::<usize, MAX_PARTS>::new();
    for (index, part) in parts.iter_mut().enumerate() {
        // There is room for as many as were counted.
        let _ = verdicts.push(part.probe(clock).without_charge());
        let _ = order.push(index);
    }
    let mut compound = Compound { verdicts };
    if compound.is_admitted() {
        sort_by_key(&mut order, |&index| parts[index].position());
        charge_in_order(parts, &order, &mut compound.verdicts, clock);
    }
    Ok(compound)
}

/// Charges the parts in this order. If one is refused, gives back those before it.
fn charge_in_order<C: Clock>(
    parts: &mut [&mut dyn Part<C>],
    order: &[usize],
    verdicts: &mut [Verdict],
    clock: C,
) {
    for (done, &index) in order.iter().enumerate() {
        verdicts[index] = parts[index].charge(clock);
        if verdicts[index].is_admitted() {
            continue;
        }
        for &earlier in order[..done].iter().rev() {
            let charged = verdicts[earlier];
            let returned = parts[earlier].give_back(&charged, clock);
            verdicts[earlier] = returned.unwrap_or(charged).without_charge();
        }
        return;
    }
}

/// The result of a compound charge: the verdict of each part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compound {
    verdicts: Vec<Verdict, MAX_PARTS>,
}

impl Compound {
    /// Returns whether the request is admitted. Every part is then charged.
    pub fn is_admitted(&self) -> bool {
        self.verdicts.iter().all(Verdict::is_admitted)
    }

    /// Returns the verdict of each part, in the order in which they were given.
    ///
    /// If the request is refused, each part that refused it has another outcome than
    /// [`Outcome::Admitted`], and no verdict has a [`charge`](Verdict::charge). If it is admitted,
    /// the charge of each part can be refunded and settled as that of a single check.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Returns the verdict that decided, whose status and body the response has: that of a missing
    /// or invalid key, else of a full limiter, else of a part that the cost is above a limit of,
    /// else the denial that lasts longest. If the request is admitted, it is the first.
    pub fn decisive(&self) -> &Verdict {
        &self.verdicts[self.decisive_index()]
    }

    /// Returns the index of the verdict that [`decisive`](Self::decisive) returns.
    pub fn decisive_index(&self) -> usize {
        let rank = |verdict: &Verdict| match verdict.outcome() {
            Outcome::MissingKey | Outcome::InvalidKey => (4, None),
            Outcome::Full => (3, verdict.retry_at()),
            Outcome::TooCostly => (2, None),
            Outcome::Denied => (1, verdict.retry_at()),
            Outcome::Admitted => (0, None),
        };
        let mut decisive = 0;
        for (index, verdict) in self.verdicts.iter().enumerate() {
            if rank(verdict) > rank(&self.verdicts[decisive]) {
                decisive = index;
            }
        }
        decisive
    }
}

/// The error of a compound charge without a part, or with more than [`MAX_PARTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartsError {
    /// The number of parts.
    pub parts: usize,
}

impl fmt::Display for PartsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a compound charge of {} parts is not possible; it has 1 to {MAX_PARTS}",
            self.parts
        )
    }
}

impl core::error::Error for PartsError {}

/// A key of a gate as a part of a compound charge. [`Gate::part`] returns it.
#[derive(Debug)]
pub struct GatePart<'g, M> {
    gate: &'g Gate<M>,
    api_key: Option<&'g [u8]>,
    cost: u32,
    /// The record whose secret [`probe`](sealed::Steps::probe) verified.
    verified: Option<RecordVersion>,
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the key and a cost as a part of [`check_all`]. `api_key` is the value of the
    /// `X-API-Key` header, `None` when there was none.
    pub fn part<'g>(&'g self, api_key: Option<&'g [u8]>, cost: u32) -> GatePart<'g, M> {
        GatePart { gate: self, api_key, cost, verified: None }
    }
}

impl<M: AsRef<[CacheLine]>, C: Clock> sealed::Steps<C> for GatePart<'_, M> {
    fn position(&self) -> Position {
        (self.gate.id(), self.verified.map_or(0, |version| version.number.into()))
    }

    fn fetch(&self) {
        if let Some(text) = self.api_key {
            self.gate.fetch(text);
        }
    }

    fn probe(&mut self, clock: C) -> Verdict {
        let (verdict, verified) = self.gate.probe(self.api_key, self.cost, clock);
        self.verified = verified;
        verdict
    }

    fn charge(&mut self, clock: C) -> Verdict {
        match (self.api_key, self.verified) {
            (Some(text), Some(verified)) => {
                self.gate.check_verified(text, verified, self.cost, clock)
            }
            _ => self.gate.check(self.api_key, self.cost, clock),
        }
    }

    fn give_back(&mut self, charged: &Verdict, clock: C) -> Option<Verdict> {
        self.gate.refund(charged.holder()?.key_id, charged.charge()?, clock)
    }
}

/// A subject of a limiter as a part of a compound charge. [`Limiter::part`] returns it.
#[derive(Debug)]
pub struct LimiterPart<'l, M> {
    limiter: &'l Limiter<M>,
    subject: Subject,
    cost: u32,
}

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Returns the subject and a cost as a part of [`check_all`].
    pub fn part(&self, subject: &[u8], cost: u32) -> LimiterPart<'_, M> {
        LimiterPart { limiter: self, subject: self.subject(subject), cost }
    }
}

impl<M: AsRef<[CacheLine]>, C: Clock> sealed::Steps<C> for LimiterPart<'_, M> {
    fn position(&self) -> Position {
        (self.limiter.id(), self.limiter.home_of(self.subject))
    }

    fn fetch(&self) {
        self.limiter.fetch(self.subject);
    }

    fn probe(&mut self, clock: C) -> Verdict {
        self.limiter.peek_subject(self.subject, self.cost, clock)
    }

    fn charge(&mut self, clock: C) -> Verdict {
        self.limiter.check_subject(self.subject, self.cost, clock)
    }

    fn give_back(&mut self, charged: &Verdict, clock: C) -> Option<Verdict> {
        Some(self.limiter.refund_subject(self.subject, charged.charge()?, clock))
    }
}
