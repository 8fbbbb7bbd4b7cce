//! Compound charges: one request charges several tallies, all or none.
//!
//! Each tally is a word of its own, so no single exchange can charge them all. Instead:
//!
//! 1. *fetch*: load the memory of all parts, without waiting for it;
//! 2. *probe*: verify every key and decide about every tally, and write nothing. If a tally lacks
//!    room, the request is refused, and the verdicts name each tally that refused it;
//! 3. *charge* the tallies one after another, in the order of their positions: exchange the word
//!    that was decided on or, if it has changed, check the tally as its table's own check does;
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
use core::ops::Range;

use heapless::Vec;

use crate::bits::IS_64_BIT;
use crate::charge::Charge;
use crate::compare_exchange;
use crate::http::{
    CompoundResponse, Headers, MAX_COMPOUND_HEADERS_LEN, MAX_COMPOUND_PROBLEM_LEN, NamedQuota,
};
use crate::outcome::{Outcome, Reason};
use crate::quota::MAX_QUOTAS;
use crate::quotas::QuotaState;
use crate::reservation::{Reserve, TallyNumbers};
use crate::section::Section;
use crate::sort::sort_by_key;
use crate::sync::AtomicU64;
use crate::tally::Layout;
use crate::tally_verdict::{Refusal, TallyVerdict};
use crate::text::Text;
use crate::time::{Clock, Timestamp};
use crate::verdict::{Holder, Verdict};

/// The most parts of a compound charge, and the most tallies that all its parts charge together.
pub const MAX_PARTS: usize = 8;

/// A part of a compound charge: a [`GatePart`](crate::GatePart) or a
/// [`LimiterPart`](crate::LimiterPart).
pub trait Part<C: Clock>: Steps<C> {}

impl<C: Clock, P: Steps<C>> Part<C> for P {}

/// Where a tally is: the number of its table, and the number of its word or home slot. Compound
/// charges charge tallies in the order of their positions.
pub(crate) type Position = (u64, u64);

pub(crate) use self::sealed::Steps;

mod sealed {
    use super::{Charging, Clock, Compound, Reserve, TallyNumbers, TallyVerdict, Verdict};

    /// The steps of a compound charge for one part. A part has one tally or more.
    pub trait Steps<C: Clock> {
        fn fetch(&self);

        /// Decides about every tally now, and charges nothing. Adds the verdict on each, as though
        /// it were charged, or a single verdict that refuses the request.
        fn probe<'p>(&'p self, charging: &mut Charging<'_, 'p>, clock: C);

        /// Checks a tally again, whose word changed since the probe, and replaces its verdict.
        fn charge(&self, tally: &mut TallyVerdict, clock: C);

        /// Returns whether the gate counts uses or has a reservation.
        fn has_extras(&self) -> bool {
            false
        }

        /// Returns what reserves for its tallies, and what numbers them; `None` if they need no
        /// reservation.
        fn reservation(&self) -> Option<(&dyn Reserve, &dyn TallyNumbers)>;

        /// Counts what the whole charge came to, in the counts of uses.
        fn count(&self, _part: usize, _compound: &Compound) {}

        /// Refunds the charge of a tally. `None` if the table no longer has it.
        fn refund(&self, tally: &TallyVerdict, clock: C) -> Option<Verdict>;
    }
}

/// The exchange that charges a tally as it was probed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'p> {
    pub(crate) layout: &'p Layout,
    pub(crate) atomic: &'p AtomicU64,
    /// The word that was decided on, and the next one.
    pub(crate) word: u64,
    pub(crate) next: u64,
}

/// A tally that was probed.
#[derive(Debug)]
struct Probed<'p> {
    position: Position,
    /// The index of its verdict.
    verdict: usize,
    /// `None` if a limiter must search or insert the subject. The verdict is that of a peek then.
    exchange: Option<Exchange<'p>>,
}

/// A compound charge while it is made.
#[derive(Debug)]
pub struct Charging<'c, 'p> {
    /// Has the verdict on each tally, as though it were charged.
    compound: &'c mut Compound,
    tallies: &'c mut Vec<Probed<'p>, MAX_PARTS>,
    part: u8,
    /// How many verdicts there are, including those for which there was no room.
    verdicts: usize,
}

/// The verdicts and tallies of a [`Charging`] at a moment, to which it can return.
pub(crate) type Mark = (usize, usize);

impl<'p> Charging<'_, 'p> {
    /// Returns the present verdicts and tallies, for [`return_to`](Self::return_to).
    pub(crate) fn mark(&self) -> Mark {
        (self.verdicts, self.tallies.len())
    }

    /// Removes what was added since the mark.
    pub(crate) fn return_to(&mut self, (verdicts, tallies): Mark) {
        self.verdicts = verdicts;
        self.compound.tallies.truncate(verdicts);
        self.tallies.truncate(tallies);
    }

    /// Adds a verdict that is not on a tally that can be charged.
    pub(crate) fn add(&mut self, mut tally: TallyVerdict) {
        tally.part = self.part;
        self.verdicts += 1;
        // Too many are an error, which the end of the probe reports.
        let _ = self.compound.tallies.push(tally);
    }

    /// Adds the verdict on a tally, and the exchange that charges it.
    #[inline]
    pub(crate) fn add_tally(
        &mut self,
        tally: TallyVerdict,
        position: Position,
        exchange: Option<Exchange<'p>>,
    ) {
        let _ = self.tallies.push(Probed { position, verdict: self.verdicts, exchange });
        self.add(tally);
    }
}

/// The verdicts on the tallies of a request.
type Verdicts = Vec<TallyVerdict, MAX_PARTS>;

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
/// [`PartsError`] without a part, or with more than [`MAX_PARTS`] parts or tallies.
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
///     check_all(&[&users.part(user, cost), &teams.part(b"team 42", cost)], now)
/// };
/// assert!(request(b"ann", 3)?.is_admitted());
/// let denied = request(b"bob", 2)?;
/// let outcomes = denied.verdicts().map(|verdict| verdict.outcome());
/// assert!(outcomes.eq([Outcome::Admitted, Outcome::Denied]), "the team has one unit left");
/// assert_eq!(denied.tallies()[0].verdict().remaining(), Some(3), "bob was not charged");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check_all<C: Clock>(parts: &[&dyn Part<C>], clock: C) -> Result<Compound, PartsError> {
    let mut compound = Compound::new();
    charge_all(&mut compound, parts, true, clock)?;
    Ok(compound)
}

/// Returns what [`check_all`] would return now, and charges nothing.
///
/// # Errors
/// Those of [`check_all`].
pub fn peek_all<C: Clock>(parts: &[&dyn Part<C>], clock: C) -> Result<Compound, PartsError> {
    let mut compound = Compound::new();
    charge_all(&mut compound, parts, false, clock)?;
    Ok(compound)
}

/// Returns how many milliseconds the clock for a request of these parts is ahead of the system
/// clock: that of the first part whose [reservation](crate::Reserve) has another clock.
pub fn clock_offset_ms<C: Clock>(parts: &[&dyn Part<C>]) -> i64 {
    let reservations = parts.iter().filter_map(|part| part.reservation());
    let mut offsets = reservations.map(|(reservation, _)| reservation.clock_offset_ms());
    offsets.find(|&offset| offset != 0).unwrap_or(0)
}

/// Charges one part, which has at most as many verdicts as there is room for, or only probes it.
#[inline]
pub(crate) fn charge_one<C: Clock, P: Steps<C>>(part: &P, charges: bool, clock: C) -> Compound {
    let mut compound = Compound::new();
    // On small targets, all parts share the code of `check_all`.
    let _ = if IS_64_BIT {
        charge_all(&mut compound, &[part], charges, clock)
    } else {
        charge_all(&mut compound, &[part as &dyn Steps<C>], charges, clock)
    };
    compound
}

/// Continues the charge of one part. `probe` adds its tallies, all of which have room. The first
/// `done` of them, in the order of their positions, are charged already.
pub(crate) fn charge_rest<'p, C: Clock, P: Steps<C>>(
    part: &P,
    done: usize,
    clock: C,
    probe: impl FnOnce(&mut Charging<'_, 'p>),
) -> Compound {
    let (mut compound, mut tallies) = (Compound::new(), Vec::new());
    let mut charging =
        Charging { compound: &mut compound, tallies: &mut tallies, part: 0, verdicts: 0 };
    probe(&mut charging);
    charging.charge_in_order(done, &[part], clock);
    compound
}

/// Fetches and probes all parts, and then charges all tallies if all have room and `charges` is
/// set. Writes the verdicts into `compound`, which is returned in this way since it is large.
fn charge_all<C: Clock, P: Steps<C> + ?Sized>(
    compound: &mut Compound,
    parts: &[&P],
    charges: bool,
    clock: C,
) -> Result<(), PartsError> {
    if !(1..=MAX_PARTS).contains(&parts.len()) {
        return Err(PartsError { parts: parts.len() });
    }
    // A single part loads its memory itself, while it compares the secret.
    if parts.len() > 1 {
        for part in parts {
            part.fetch();
        }
    }
    let mut tallies = Vec::new();
    let mut charging = Charging { compound, tallies: &mut tallies, part: 0, verdicts: 0 };
    for part in parts {
        part.probe(&mut charging, clock);
        charging.part += 1;
    }
    if charging.verdicts > MAX_PARTS {
        return Err(PartsError { parts: charging.verdicts });
    }
    if charges && charging.compound.is_admitted() {
        charging.charge_in_order(0, parts, clock);
    } else {
        charging.withdraw(0);
    }
    if parts.iter().any(|part| part.has_extras()) {
        charging.reserve_and_count(parts, charges, clock);
    }
    Ok(())
}

impl Charging<'_, '_> {
    /// Charges all tallies in the order of their positions, except the first ones, which are
    /// charged already. If one has lost its room, gives back those before it.
    fn charge_in_order<C: Clock, P: Steps<C> + ?Sized>(
        &mut self,
        first: usize,
        parts: &[&P],
        clock: C,
    ) {
        sort_by_key(self.tallies, |probed| probed.position);
        for done in first..self.tallies.len() {
            let Probed { verdict, exchange, .. } = &self.tallies[done];
            if exchange.as_ref().is_some_and(Exchange::make) {
                continue;
            }
            let tally = &mut self.compound.tallies[*verdict];
            charge_again(parts, tally, clock);
            if !tally.verdict.is_admitted() {
                self.withdraw(done + 1);
                self.give_back(done, parts, clock);
                return;
            }
        }
    }

    /// Makes the verdicts on the tallies from `first` on those of tallies that were not charged.
    fn withdraw(&mut self, first: usize) {
        for Probed { verdict, exchange, .. } in &self.tallies[first..] {
            if let Some(Exchange { layout, word, .. }) = exchange {
                self.compound.tallies[*verdict].verdict.withdraw(layout, *word);
            }
        }
    }

    /// Reserves what the parts need, and then counts what the charge came to. If nothing was
    /// charged, only shows whether it could be reserved.
    #[cold]
    #[inline(never)]
    fn reserve_and_count<C: Clock, P: Steps<C> + ?Sized>(
        &mut self,
        parts: &[&P],
        charges: bool,
        clock: C,
    ) {
        match self.compound.is_admitted() {
            true if charges => self.reserve(parts, clock),
            true => self.peek_reservations(parts),
            false => {}
        }
        if !charges {
            return;
        }
        for (number, part) in parts.iter().enumerate() {
            part.count(number, self.compound);
        }
    }

    /// Shows what each part could reserve.
    fn peek_reservations<C: Clock, P: Steps<C> + ?Sized>(&mut self, parts: &[&P]) {
        for (number, part) in parts.iter().enumerate() {
            let its = self.compound.tallies_of(number);
            let first = its.start;
            let Some((reservation, table)) = part.reservation() else { continue };
            let refused = reservation.peek(table, &mut self.compound.tallies[its]);
            if let Some(Refusal { index, verdict }) = refused
                && let Some(refused) = self.compound.tallies.get_mut(first + index)
            {
                refused.verdict = verdict;
            }
        }
    }

    /// Reserves what each part needs. If one is refused, releases what the others reserved, and
    /// gives all charges back.
    fn reserve<C: Clock, P: Steps<C> + ?Sized>(&mut self, parts: &[&P], clock: C) {
        for (number, part) in parts.iter().enumerate() {
            let its = self.compound.tallies_of(number);
            let first = its.start;
            let Some((reservation, table)) = part.reservation() else { continue };
            let refused = reservation.reserve(table, &mut self.compound.tallies[its]);
            let Some(Refusal { index, verdict }) = refused else { continue };
            for (number, part) in parts[..number].iter().enumerate().rev() {
                let Some((reservation, table)) = part.reservation() else { continue };
                let its = self.compound.tallies_of(number);
                reservation.release(table, &self.compound.tallies[its]);
            }
            self.refund_first(self.tallies.len(), parts, clock);
            if let Some(refused) = self.compound.tallies.get_mut(first + index) {
                refused.verdict = verdict;
            }
            return;
        }
    }

    /// Refunds the first tallies, since the one after them has lost its room or its key.
    #[cold]
    fn give_back<C: Clock, P: Steps<C> + ?Sized>(&mut self, done: usize, parts: &[&P], clock: C) {
        self.refund_first(done, parts, clock);
        let refused = &self.compound.tallies[self.tallies[done].verdict];
        if refused.verdict.outcome() == Outcome::InvalidKey {
            // The key is no longer valid, so its other tallies are not shown.
            let (part, only) = (refused.part, refused.clone());
            self.compound.tallies.retain(|tally| tally.part != part);
            let _ = self.compound.tallies.push(only);
        }
    }

    /// Refunds the first tallies.
    fn refund_first<C: Clock, P: Steps<C> + ?Sized>(
        &mut self,
        done: usize,
        parts: &[&P],
        clock: C,
    ) {
        for Probed { verdict, .. } in self.tallies[..done].iter().rev() {
            let tally = &mut self.compound.tallies[*verdict];
            let refunded = parts[tally.part()].refund(tally, clock);
            // A tally that is sealed meanwhile keeps its charge: see `Compound::charge`.
            if refunded.is_none_or(|refunded| refunded.outcome() != Outcome::Unavailable) {
                tally.give_back(refunded);
            }
        }
    }
}

/// Checks a tally again that changed since the probe.
#[cold]
fn charge_again<C: Clock, P: Steps<C> + ?Sized>(parts: &[&P], tally: &mut TallyVerdict, clock: C) {
    parts[tally.part()].charge(tally, clock);
}

impl Exchange<'_> {
    /// Makes a single attempt. Returns whether it succeeded.
    #[inline]
    pub(crate) fn make(&self) -> bool {
        let Self { atomic, word, next, .. } = *self;
        next == word || compare_exchange::exchange_decided(atomic, word, next).is_ok()
    }
}

/// The result of a compound charge: the verdict on each tally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compound {
    tallies: Verdicts,
}

impl Compound {
    /// The result without a verdict, to which the parts add theirs.
    #[inline]
    pub(crate) fn new() -> Self {
        Self { tallies: Verdicts::new() }
    }

    /// The result with these verdicts.
    #[inline]
    pub(crate) fn from_tallies<const N: usize>(tallies: [TallyVerdict; N]) -> Self {
        Self { tallies: Verdicts::from_array(tallies) }
    }

    /// Returns whether the request is admitted. Every tally is then charged.
    pub fn is_admitted(&self) -> bool {
        self.verdicts().all(Verdict::is_admitted)
    }

    /// Returns the verdict on each tally, in the order of the parts. Those of a gate are in the
    /// order of its sections, and the first of them is that of the key.
    ///
    /// If the request is refused, each part that refused it has a verdict with another outcome than
    /// [`Outcome::Admitted`].
    pub fn tallies(&self) -> &[TallyVerdict] {
        &self.tallies
    }

    /// Returns the indices of the tallies of a part, which are adjacent.
    fn tallies_of(&self, part: usize) -> Range<usize> {
        let first = self.tallies.iter().take_while(|tally| tally.part() < part).count();
        first..first + self.tallies[first..].iter().take_while(|it| it.part() == part).count()
    }

    /// Adds the verdict on a tally, up to [`MAX_PARTS`].
    pub(crate) fn push(&mut self, tally: TallyVerdict) {
        let _ = self.tallies.push(tally);
    }

    pub(crate) fn tallies_mut(&mut self) -> &mut [TallyVerdict] {
        &mut self.tallies
    }

    /// Returns the verdicts of [`tallies`](Self::tallies).
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.tallies.iter().map(|tally| &tally.verdict)
    }

    /// Returns the verdict that decided, whose status and body the response has: that of a missing
    /// or invalid key, else of a missing scope, else of a sealed tally, else of a full limiter,
    /// else of a tally that the cost is above a limit of, else the denial that lasts longest. If
    /// the request is admitted, it is the first.
    pub fn decisive(&self) -> &Verdict {
        &self.tallies[self.decisive_index()].verdict
    }

    /// Returns the index of the verdict that [`decisive`](Self::decisive) returns.
    pub fn decisive_index(&self) -> usize {
        let rank = |tally: &TallyVerdict| match tally.verdict.outcome() {
            Outcome::MissingKey | Outcome::InvalidKey => (6, None),
            Outcome::Forbidden => (5, None),
            Outcome::Unavailable => (4, None),
            Outcome::Full => (3, tally.verdict.retry_at()),
            Outcome::TooCostly => (2, None),
            Outcome::Denied => (1, tally.verdict.retry_at()),
            Outcome::Admitted => (0, None),
        };
        let mut decisive = 0;
        for (index, tally) in self.tallies.iter().enumerate() {
            if rank(tally) > rank(&self.tallies[decisive]) {
                decisive = index;
            }
        }
        decisive
    }

    /// Returns the outcome of the request: that of [`decisive`](Self::decisive).
    pub fn outcome(&self) -> Outcome {
        self.decisive().outcome()
    }

    /// Returns the charge of a part, which the caller keeps for a later `refund` or `settle`;
    /// `None` unless the request is admitted.
    ///
    /// If the outcome is [`Outcome::Unavailable`], it is what could not be given back, because it
    /// moves to the other gate. The caller returns it there by
    /// [`Gate::refund_left`](crate::Gate::refund_left) before it checks again.
    pub fn charge(&self, part: usize) -> Option<Charge> {
        let mut charge = Charge::EMPTY;
        for tally in self.tallies.iter().filter(|tally| tally.part() == part) {
            if let Some(its) = tally.verdict.charge() {
                // There is room for every tally of a gate.
                let _ = charge.push(tally.tally | its.tally(), tally.unit, its.first());
                if its.is_unreserved() {
                    charge.set_unreserved();
                }
            }
        }
        (charge != Charge::EMPTY).then_some(charge)
    }

    /// Returns each warning that this charge reached: the tally, the window's index and the
    /// percentage of its limit. One request reports each: the one whose charge brought the count
    /// from below the share to it or above.
    pub fn crossed(&self) -> impl Iterator<Item = (&TallyVerdict, usize, u8)> {
        self.tallies.iter().flat_map(|tally| {
            tally.crossed().map(move |(window, percent)| (tally, window, percent))
        })
    }

    /// Returns the HTTP status: 200, 401, 403, 429 or 503.
    pub fn http_status(&self) -> u16 {
        self.outcome().http_status()
    }

    /// Returns the response body, which is JSON; empty if the request is admitted.
    pub fn body(&self) -> &'static str {
        self.outcome().body()
    }

    /// Returns the header fields of the response. `X-RateLimit-*` describe a window of the key, or
    /// of the first part without one. `RateLimit` and `RateLimit-Policy` list the windows of all
    /// tallies that the request charges. A repeated name gets a number: `minute`, `minute-2`.
    ///
    /// A response has each field once, so the caller must replace a field of the same name instead
    /// of appending another.
    pub fn headers(&self) -> Headers<MAX_COMPOUND_HEADERS_LEN> {
        self.respond(|response| response.headers())
    }

    /// Returns the body as a problem document, `application/problem+json`, which names the quotas
    /// that lack room. It is empty if the request is admitted. RFC 9457.
    pub fn problem(&self) -> Text<MAX_COMPOUND_PROBLEM_LEN> {
        self.respond(|response| response.problem())
    }

    /// Calls `respond` with the values that a response shows.
    pub fn respond<R>(&self, respond: impl FnOnce(CompoundResponse<'_>) -> R) -> R {
        let mut quotas = Vec::<NamedQuota<'_>, { MAX_PARTS * MAX_QUOTAS }>::new();
        let is_own = self.is_own();
        for tally in &self.tallies {
            let section = tally.section.as_ref().map(Section::name);
            let is_own = is_own(tally);
            for state in tally.verdict.quotas().iter() {
                // There is room for four quotas of every tally.
                let _ = quotas.push(NamedQuota::new(section, state, tally.verdict.cost(), is_own));
            }
        }
        let waits_from = self.decisive().waits_from();
        let retry_after_s = self.decisive().retry_after_s();
        respond(CompoundResponse::new(self.outcome(), &quotas, waits_from, retry_after_s))
    }

    /// Returns which tallies the fields `X-RateLimit-*` may describe: those of the first key, or of
    /// the first part without one.
    fn is_own(&self) -> impl Fn(&TallyVerdict) -> bool {
        let mut tallies = self.tallies.iter();
        let key = tallies.clone().find(|tally| tally.section == Some(Section::Key));
        let own = key.or_else(|| tallies.next());
        move |tally| own.is_some_and(|own| (own.part, &own.section) == (tally.part, &tally.section))
    }

    /// Returns the latest time at which a retry can succeed, of all tallies that deny; `None`
    /// unless the outcome is [`Outcome::Denied`] or [`Outcome::Full`].
    pub fn retry_at(&self) -> Option<Timestamp> {
        self.decisive().retry_at()
    }

    /// Returns the seconds until [`retry_at`](Self::retry_at), rounded up and at least 1; `None` if
    /// that is `None`.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.decisive().retry_after_s()
    }

    /// Returns the holder of the first key whose secret is right.
    pub fn holder(&self) -> Option<Holder> {
        self.verdicts().find_map(Verdict::holder)
    }

    /// Returns why a key is invalid, for logs and metrics and never for the client; `None` unless
    /// the outcome is [`Outcome::InvalidKey`].
    pub fn reason(&self) -> Option<Reason> {
        self.decisive().reason()
    }

    /// Returns the state of the window that the fields `X-RateLimit-*` describe.
    pub fn described(&self) -> Option<QuotaState> {
        let is_own = self.is_own();
        let own = self.tallies.iter().filter(|tally| is_own(tally));
        QuotaState::described_among(own.flat_map(|tally| tally.verdict.quotas().iter()))
    }

    /// Returns the units left in the window that [`described`](Self::described) returns.
    pub fn remaining(&self) -> Option<u32> {
        self.described().map(|state| state.remaining)
    }
}

/// The error of a compound charge without a part, or with more than [`MAX_PARTS`] parts or tallies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartsError {
    /// The number of parts, or of tallies if that is too large.
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
