//! The counts of uses: how the requests of a gate come to the lines of `usage.rs`.

use core::num::NonZeroU16;

use subtle::ConstantTimeEq as _;

use super::administrator::Administrator;
use super::table::{Gate, LIST_WORD, PEPPER_LINE, USAGE_MASK, USAGE_SHIFT};
use crate::bits::{high, low};
use crate::cache_line::CacheLine;
use crate::compound::{Compound, TallyVerdict};
use crate::header::{AttachError, CreateError};
use crate::key::KeyId;
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::section::Section;
use crate::time::{Clock, Timestamp};
use crate::usage::{KeyUsage, Usage, UsageCounts, Use};
use crate::verdict::Verdict;

impl<M: AsRef<[CacheLine]>> Gate<M> {
    /// Returns the generation of the counts of uses, which all processes that use the gate fill;
    /// 0 if they count none.
    #[inline]
    pub fn usage_generation(&self) -> u16 {
        let word = self.memory.as_ref()[PEPPER_LINE].load(LIST_WORD);
        // The mask has 15 bits.
        (low(word) >> USAGE_SHIFT & USAGE_MASK) as u16
    }

    /// Creates the counts of uses of this gate, all 0. Nothing is counted before
    /// [`begin_usage`](Administrator::begin_usage). `generation` is 1 to 32767. Give another one
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

    /// Checks a key and charges it, as [`check`](Self::check) does, and counts that.
    #[inline]
    pub fn check_and_count(
        &self,
        usage: Option<Usage<'_>>,
        api_key: Option<&[u8]>,
        cost: u32,
        clock: impl Clock,
    ) -> Verdict {
        let Some(usage) = usage else { return self.check(api_key, cost, clock) };
        if self.is_extended() {
            let compound = self.part(api_key, cost).with_usage(Some(usage)).check(clock);
            return compound.decisive().without_charge();
        }
        let verdict = self.check(api_key, cost, clock);
        let how = self.use_of(api_key, cost, &verdict, Some(&Section::Key));
        self.count(usage, &verdict, how);
        verdict
    }

    /// Corrects the units of the requests of a key that were admitted: by those that a settlement
    /// charged in addition, or gave back if `units` is negative.
    pub fn adjust_usage(&self, usage: Usage<'_>, key_id: KeyId, units: i64) {
        usage.adjust(self.record_of(key_id).number, key_id, units);
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
    /// A verdict does not say so, since that would cost every check. The HMAC is computed again
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
        let line = &self.memory.as_ref()[PEPPER_LINE];
        let others = line.load(LIST_WORD) & !(u64::from(USAGE_MASK) << USAGE_SHIFT);
        line.store(
            LIST_WORD,
            others | u64::from(u32::from(generation) & USAGE_MASK) << USAGE_SHIFT,
        );
    }
}
