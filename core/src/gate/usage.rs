//! The counts of uses: how the requests of a gate come to the lines of `usage.rs`.

use core::num::NonZeroU16;
use core::ops::Deref;

use subtle::ConstantTimeEq as _;

use super::administrator::Administrator;
use super::extras::Extras;
use super::part::GatePart;
use super::settle::{Settled, Settlement};
use super::table::{Gate, LIST_WORD, PEPPER_LINE, RESERVING_FLAG, USAGE_MASK, USAGE_SHIFT};
use crate::bits::high;
use crate::cache_line::CacheLine;
use crate::charge::Charge;
use crate::compound::Compound;
use crate::header::{AttachError, CreateError};
use crate::key::KeyId;
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::reservation::Reserve;
use crate::section::Section;
use crate::tally_verdict::{Refusal, TallyVerdict};
use crate::time::{Clock, Timestamp};
use crate::usage::{KeyUsage, Usage, UsageCounts, Use};
use crate::verdict::Verdict;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the generation of the counts of uses, which all processes that use the gate fill;
    /// 0 if they count none.
    #[inline]
    pub fn usage_generation(&self) -> u16 {
        self.needs().usage_generation()
    }

    /// Creates the counts of uses of this gate, all 0. Nothing is counted before
    /// [`begin_usage`](Administrator::begin_usage). `generation` is 1 to 16383. Give another one
    /// than before, so that processes that have other counts open open these.
    ///
    /// # Errors
    /// [`CreateError::Size`] if the memory does not have as many lines as
    /// [`UsageCounts::lines`] returns.
    pub fn init_usage<N: AsRef<[CacheLine]>>(
        &self,
        memory: N,
        generation: NonZeroU16,
    ) -> Result<UsageCounts<N>, CreateError> {
        UsageCounts::init(memory, self.id(), self.capacity, generation)
    }

    /// Opens the counts of uses of this gate. Requests are counted in them only if their generation
    /// is that of [`usage_generation`](Self::usage_generation).
    ///
    /// # Errors
    /// [`AttachError`] if the memory does not hold the counts of this gate.
    pub fn attach_usage<N: AsRef<[CacheLine]>>(
        &self,
        memory: N,
    ) -> Result<UsageCounts<N>, AttachError> {
        UsageCounts::attach(memory, self.id(), self.capacity)
    }

    /// Returns how a key was used; `None` if the gate does not have it.
    pub fn usage_of(&self, usage: Usage<'_>, key_id: KeyId) -> Option<KeyUsage> {
        let (at, _) = self.find(key_id)?;
        usage.of(at.number, key_id)
    }

    /// Returns how each key was used, revoked ones included, in the order of their key ids.
    pub fn usages(&self, usage: Usage<'_>) -> impl Iterator<Item = (KeyId, KeyUsage)> {
        self.records().filter_map(move |at| {
            let key_id = at.key_id()?;
            Some((key_id, usage.of(at.number, key_id)?))
        })
    }

    /// Returns this gate as one whose requests are counted in `usage`.
    #[inline]
    pub fn counted<'g>(&'g self, usage: Option<Usage<'g>>) -> Counted<'g, M> {
        self.with_extras(usage.map(|usage| Extras { usage: Some(usage), reservation: None }))
    }

    /// Returns this gate as one whose requests are counted, or reserve what they need.
    #[inline]
    pub fn with_extras<'g>(&'g self, extras: Option<Extras<'g>>) -> Counted<'g, M> {
        Counted { gate: self, extras }
    }

    /// Counts what a compound charge came to for a part of this gate.
    pub(super) fn count_part(
        &self,
        usage: Usage<'_>,
        api_key: Option<&[u8]>,
        cost: u32,
        part: usize,
        compound: &Compound,
    ) {
        let mut its = compound.tallies().iter().filter(|tally| tally.part() == part);
        let decisive = match compound.is_admitted() {
            true => its.next(),
            // Another part may have refused the request.
            false => {
                compound.tallies().get(compound.decisive_index()).filter(|it| it.part() == part)
            }
        };
        if let Some(TallyVerdict { verdict, section, .. }) = decisive {
            let how = self.use_of(api_key, cost, verdict, section.as_ref());
            self.count(usage, verdict, how);
        }
    }

    /// Reserves what a request of a plain gate needs, or gives its charge back.
    fn reserve(&self, reservation: &dyn Reserve, verdict: Verdict, clock: impl Clock) -> Verdict {
        if !verdict.is_charged() {
            return verdict;
        }
        let mut tally = TallyVerdict::new(verdict);
        tally.section = Some(Section::Key);
        match reservation.reserve(self, core::slice::from_mut(&mut tally)) {
            None => tally.verdict,
            Some(Refusal { verdict, .. }) => {
                let charged = tally.verdict;
                if let (Some(charge), Some(holder)) = (charged.charge(), charged.holder()) {
                    // The key may be gone, and its record another one's: then no room is owed.
                    let _ = self.refund_tally(holder.key_id, 0, charge.first(), clock);
                }
                verdict
            }
        }
    }

    #[inline]
    fn count(&self, usage: Usage<'_>, verdict: &Verdict, how: Option<Use>) {
        if let (Some(how), Some(holder)) = (how, verdict.holder()) {
            usage.count(self.record_of(holder.key_id).number, holder.key_id, how, verdict.now);
        }
    }

    /// Returns what a request came to; `None` if its secret was wrong or it was not decided.
    #[inline]
    fn use_of(
        &self,
        api_key: Option<&[u8]>,
        cost: u32,
        verdict: &Verdict,
        section: Option<&Section>,
    ) -> Option<Use> {
        let key_id = verdict.holder()?.key_id;
        match (verdict.outcome(), section) {
            (Outcome::Admitted, _) => {
                let has_previous_secret = self.has_previous_secret(api_key?, key_id, verdict.now);
                Some(Use::Admitted { units: cost, has_previous_secret })
            }
            (Outcome::Denied | Outcome::TooCostly, Some(Section::Team)) => Some(Use::DeniedByTeam),
            (Outcome::Denied | Outcome::TooCostly, Some(Section::Group(_))) => {
                Some(Use::DeniedByGroup)
            }
            (Outcome::Denied | Outcome::TooCostly, _) => Some(Use::DeniedByKey),
            (Outcome::Forbidden, _) => Some(Use::Forbidden),
            (Outcome::InvalidKey, _) => match verdict.reason()? {
                Reason::Revoked => Some(Use::Revoked),
                Reason::Expired => Some(Use::Expired),
                Reason::Suspended => Some(Use::Suspended),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns whether a key that was admitted has the secret before the last rotation.
    ///
    /// A verdict does not have this, since that would cost every check. The HMAC is computed again
    /// during the grace of a rotation only.
    #[inline]
    fn has_previous_secret(&self, text: &[u8], key_id: KeyId, now: Timestamp) -> bool {
        let at = self.record_of(key_id);
        now.unix_s() < u64::from(high(at.line.load(GRACE_WORD)))
            && at.read().is_some_and(|record| self.is_previous(text, &record))
    }

    #[cold]
    fn is_previous(&self, text: &[u8], record: &Record) -> bool {
        let pepper = self.pepper(usize::from(record.previous_pepper));
        pepper.is_some_and(|pepper| pepper.mac(text).tag().ct_eq(&record.previous).into())
    }
}

/// A gate whose requests are counted, or reserve what they need. [`Gate::counted`] returns it.
///
/// Its methods are those of the gate, and count what they decide.
#[derive(Debug)]
pub struct Counted<'g, M> {
    gate: &'g Gate<M>,
    extras: Option<Extras<'g>>,
}

impl<M> Clone for Counted<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Counted<'_, M> {}

impl<M> Deref for Counted<'_, M> {
    type Target = Gate<M>;

    #[inline]
    fn deref(&self) -> &Gate<M> {
        self.gate
    }
}

impl<'g, M: AsRef<[CacheLine]>> Counted<'g, M> {
    /// Checks a key and charges it: see [`Gate::check`].
    #[inline]
    pub fn check(self, api_key: Option<&[u8]>, cost: u32, clock: impl Clock) -> Verdict {
        match self.extras {
            None => self.gate.check(api_key, cost, clock),
            Some(extras) => self.check_with(extras, api_key, cost, clock),
        }
    }

    /// The check of a gate with extras. It is out of line, because it is larger than the check that
    /// has none.
    #[inline(never)]
    fn check_with(
        self,
        extras: Extras<'_>,
        api_key: Option<&[u8]>,
        cost: u32,
        clock: impl Clock,
    ) -> Verdict {
        let gate = self.gate;
        if gate.is_extended() {
            let compound = self.part(api_key, cost).check(clock);
            return compound.decisive().without_charge();
        }
        let mut verdict = gate.check(api_key, cost, clock);
        if let Some(reservation) = extras.reservation {
            verdict = gate.reserve(reservation, verdict, clock);
        }
        if let Some(usage) = extras.usage {
            let how = gate.use_of(api_key, cost, &verdict, Some(&Section::Key));
            gate.count(usage, &verdict, how);
        }
        verdict
    }

    /// Returns the key and a cost as a part of a compound charge: see [`Gate::part`].
    pub fn part<'p>(self, api_key: Option<&'p [u8]>, cost: u32) -> GatePart<'p, M>
    where
        'g: 'p,
    {
        self.gate.part(api_key, cost).with_extras(self.extras)
    }

    /// Returns the verdict that [`check`](Self::check) would return now: see [`Gate::peek`].
    pub fn peek(self, api_key: Option<&[u8]>, cost: u32, clock: impl Clock) -> Verdict {
        match self.reservation() {
            None => self.gate.peek(api_key, cost, clock),
            Some(_) if self.gate.is_extended() => {
                self.part(api_key, cost).peek(clock).decisive().without_charge()
            }
            Some(_) => self.show(self.gate.peek(api_key, cost, clock)),
        }
    }

    /// Gives a charge back: see [`Gate::refund`].
    pub fn refund(self, key_id: KeyId, charge: Charge, clock: impl Clock) -> Option<Verdict> {
        let refunded = self.gate.refund(key_id, charge, clock)?;
        self.correct(key_id, charge, 0, &refunded);
        if let Some(reservation) = self.reservation()
            && refunded.outcome() != Outcome::Unavailable
            && !charge.is_unreserved()
            && !self.gate.is_outdated(&charge)
        {
            for entry in charge.entries() {
                reservation.refund(self.gate, Some(key_id), entry.tally.into(), entry.charge());
            }
        }
        Some(self.show(refunded))
    }

    /// Replaces an estimate by the actual cost: see [`Gate::settle`].
    pub fn settle(
        self,
        key_id: KeyId,
        estimate: Charge,
        actual: u32,
        clock: impl Clock,
    ) -> Option<Verdict> {
        if self.reservation().is_some() {
            let settlement = Settlement::new().with_cost(actual);
            let settled = self.settle_all(key_id, estimate, &settlement, clock)?;
            return Some(settled.verdict);
        }
        let settled = self.gate.settle(key_id, estimate, actual, clock)?;
        self.correct(key_id, estimate, actual, &settled);
        Some(settled)
    }

    /// Replaces the estimates of a charge by the actual costs: see [`Gate::settle_all`].
    pub fn settle_all(
        self,
        key_id: KeyId,
        estimate: Charge,
        settlement: &Settlement<'_>,
        clock: impl Clock,
    ) -> Option<Settled> {
        let settled = match self.reservation() {
            Some(reservation) => {
                let mut settled =
                    self.gate.settle_reserved(reservation, key_id, estimate, settlement, clock)?;
                settled.verdict = self.show(settled.verdict);
                settled
            }
            None => self.gate.settle_all(key_id, estimate, settlement, clock)?,
        };
        if let Some(actual) = settlement.cost {
            self.correct(key_id, estimate, actual, &settled.verdict);
        }
        Some(settled)
    }

    /// Returns what requests must reserve.
    fn reservation(self) -> Option<&'g dyn Reserve> {
        self.extras?.reservation
    }

    /// Makes a verdict on the key's first tally, which charged nothing, show what could be
    /// reserved.
    fn show(self, verdict: Verdict) -> Verdict {
        let Some(reservation) = self.reservation().filter(|_| verdict.is_admitted()) else {
            return verdict;
        };
        let mut tally = TallyVerdict::new(verdict);
        tally.section = Some(Section::Key);
        match reservation.peek(self.gate, core::slice::from_mut(&mut tally)) {
            None => tally.verdict,
            Some(Refusal { verdict, .. }) => verdict,
        }
    }

    /// Corrects the units of the key's uses after a settlement.
    fn correct(self, key_id: KeyId, estimate: Charge, actual: u32, verdict: &Verdict) {
        if let Some(usage) = self.extras.and_then(|extras| extras.usage)
            && verdict.outcome() != Outcome::Unavailable
        {
            let charged = i64::from(actual) - i64::from(verdict.uncharged());
            let units = charged - i64::from(estimate.cost());
            usage.adjust(self.gate.record_of(key_id).number, key_id, units);
        }
    }
}

/// The word of a record whose upper half is the end of the grace.
const GRACE_WORD: usize = 7;

impl<'g, M: AsRef<[CacheLine]>> Administrator<'g, M> {
    /// Begins to count the uses of all keys, in every process that uses the gate. Counts of keys
    /// that are in `counts` already remain.
    pub fn begin_usage<N: AsRef<[CacheLine]>>(&mut self, counts: &UsageCounts<N>) {
        for at in self.gate.records() {
            if let Some(key_id) = at.key_id() {
                counts.view().assign(at.number, key_id);
            }
        }
        self.gate.set_usage_generation(counts.generation().get());
    }

    /// Sets whether requests need a [reservation](crate::Reserve), in every process that uses the
    /// gate. A process that makes none then refuses all requests:
    /// [`Unavailability::NotReserving`](crate::Unavailability::NotReserving).
    pub fn set_reserving(&mut self, is_reserving: bool) {
        self.gate.set_list_bits(RESERVING_FLAG, if is_reserving { RESERVING_FLAG } else { 0 });
    }

    /// Ends counting the uses, in every process that uses the gate.
    pub fn end_usage(&mut self) {
        self.gate.set_usage_generation(0);
    }

    /// Sets the counts of uses in which this administrator assigns a line to each new key.
    pub fn set_usage(&mut self, usage: Option<Usage<'g>>) {
        self.usage = usage;
    }

    /// Takes over the counts of the keys of another gate, such as one that was migrated to this
    /// one.
    pub fn take_over_usage<N: AsRef<[CacheLine]>>(
        &mut self,
        usage: Usage<'_>,
        from: &Gate<N>,
        counts: Usage<'_>,
    ) {
        for at in self.gate.records() {
            if let Some(key_id) = at.key_id()
                && let Some(before) = from.usage_of(counts, key_id)
            {
                usage.take_over(at.number, key_id, &before);
            }
        }
    }
}

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Sets the generation of the counts of uses. Only the administrator may call it.
    pub(super) fn set_usage_generation(&self, generation: u16) {
        let bits = u64::from(u32::from(generation) & USAGE_MASK) << USAGE_SHIFT;
        self.set_list_bits(u64::from(USAGE_MASK) << USAGE_SHIFT, bits);
    }

    /// Replaces some bits of the word of the list. Only the administrator may call it.
    fn set_list_bits(&self, mask: u64, bits: u64) {
        let line = &self.memory.as_ref()[PEPPER_LINE];
        line.store(LIST_WORD, line.load(LIST_WORD) & !mask | bits);
    }
}
