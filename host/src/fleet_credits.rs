//! Credits of a fleet: how the requests of a gate or a limiter spend and return the units that this
//! machine leased.
//!
//! A request is first charged in its tallies, as without a fleet. Then it spends credits of all of
//! them, or of none. If some are lacking, it reports that to the machine's agent and waits. If the
//! agent or the store is lost, the operator's choice decides: see [`OnLoss`].
//!
//! [`OnLoss`]: keytally_fleet_plan::on_loss::OnLoss

use alloc::sync::Arc;
use core::time::Duration;

use heapless::Vec;
use keytally_core::sync::{AtomicU64, Ordering};
use keytally_core::{
    KeyId, MAX_PARTS, MAX_QUOTAS, NotReserving, Refusal, Reserve, Section, TallyCharge,
    TallyNumbers, TallyOwner, TallyVerdict, Timestamp, Unavailability, Verdict,
};
use keytally_fleet_plan::credit::{CreditLayout, Units};
use keytally_fleet_plan::layout::{ABSENT_MS, PageState, PageWord, Phase};
use keytally_fleet_plan::meta::{Meta, NUMBERS};
use keytally_fleet_plan::words::{
    CompoundSpending, Part, Spending, TallyWords, Word, Words, admit_unreserved, deduct_unreserved,
    refund, refusal, spend, spend_all, spend_up_to, want,
};

use once_cell::race::OnceBox;

use crate::clock::{instant, now};
use crate::fleet_map::{FleetMap, FleetTally};

/// The longest time that a request waits for credits of a fleet, unless the process sets another by
/// [`Gate::set_credit_wait`](crate::Gate::set_credit_wait).
pub const DEFAULT_CREDIT_WAIT: Duration = Duration::from_millis(20);

/// Returns a wait in microseconds.
pub(crate) fn micros(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)
}

/// A request that waits reports its want again after this time, in case that an agent was killed
/// which had taken the report.
const REPORT_AGAIN: Duration = Duration::from_millis(5);

/// A machine of a fleet, as the requests of one process see it.
#[derive(Debug)]
pub(crate) struct Machine {
    map: FleetMap,
    /// The layout of each tally's credits, and whether all keys of a team share the tally.
    shapes: Vec<(CreditLayout, bool), MAX_PARTS>,
    wait_us: AtomicU64,
}

/// What a request of a gate in a fleet does if it lacks credits that the store may have: see
/// [`Gate::counted_with`](crate::Gate::counted_with).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It waits for the agent, as that of [`Gate::check`](crate::Gate::check) does.
    Wait,
    /// It is [waiting](Unavailability::Waiting), and the caller checks again, as after
    /// [`Gate::try_check`](crate::Gate::try_check).
    Return,
    /// It is decided as after a wait without effect, as that of
    /// [`Gate::check_without_wait`](crate::Gate::check_without_wait) is.
    Decide,
}

/// Spends credits for requests.
#[derive(Debug)]
pub(crate) struct Spender {
    machine: Arc<Machine>,
    patience: Patience,
}

/// A fleet that a process has joined with a table: what its requests reserve, by what they do
/// without credits.
#[derive(Debug)]
pub(crate) struct Joined {
    wait: Spender,
    give_up: Spender,
    decide: Spender,
}

impl Joined {
    pub(crate) fn new(machine: &Arc<Machine>) -> Self {
        Self {
            wait: Spender::new(machine, Patience::Wait),
            give_up: Spender::new(machine, Patience::Return),
            decide: Spender::new(machine, Patience::Decide),
        }
    }

    pub(crate) fn machine(&self) -> &Machine {
        self.wait.machine()
    }

    pub(crate) fn spender(&self, patience: Patience) -> &Spender {
        match patience {
            Patience::Wait => &self.wait,
            Patience::Return => &self.give_up,
            Patience::Decide => &self.decide,
        }
    }
}

/// What a limiter of this process knows of its fleet.
#[derive(Debug)]
pub(crate) struct Membership {
    joined: OnceBox<Joined>,
    /// The longest time that a request waits for credits, in microseconds.
    wait_us: AtomicU64,
}

impl Default for Membership {
    fn default() -> Self {
        Self { joined: OnceBox::new(), wait_us: AtomicU64::new(micros(DEFAULT_CREDIT_WAIT)) }
    }
}

impl Membership {
    /// Joins a fleet. Fails if this process has joined one.
    pub(crate) fn join(
        &self,
        map: FleetMap,
        shapes: Vec<(CreditLayout, bool), MAX_PARTS>,
    ) -> Result<(), ()> {
        let wait_us = self.wait_us.load(Ordering::Relaxed);
        let machine = Arc::new(Machine::new(map, shapes, wait_us));
        self.joined.set(Box::new(Joined::new(&machine))).map_err(drop)
    }

    /// Sets the longest time that a request waits for credits.
    pub(crate) fn set_wait(&self, at_most: Duration) {
        self.wait_us.store(micros(at_most), Ordering::Relaxed);
        if let Some(joined) = self.joined.get() {
            joined.machine().set_wait(micros(at_most));
        }
    }

    /// Returns the longest time that a request waits for credits.
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_micros(self.wait_us.load(Ordering::Relaxed))
    }

    /// Returns how many milliseconds the fleet's clock is ahead of the system clock; 0 if this
    /// process has not joined.
    pub(crate) fn offset_ms(&self) -> i64 {
        self.joined.get().map_or(0, |joined| joined.machine().map().offset_ms())
    }

    /// Returns what requests of the limiter reserve while it is in a fleet.
    pub(crate) fn reservation(&self, patience: Patience) -> &dyn Reserve {
        match self.joined.get() {
            Some(joined) => joined.spender(patience),
            None => &NotReserving,
        }
    }
}

/// A tally of a request.
#[derive(Clone, Copy, Debug)]
struct Need<'m> {
    /// Its index among the verdicts.
    index: usize,
    /// Its number in the fleet file.
    number: u32,
    part: Part<'m, OwnWords<'m>>,
    /// The number of the lease request at which the cost was added to what is wanted.
    wanted_at: Option<u32>,
    /// The time of the windows that the verdict shows: that of the request, or a later one if the
    /// credits of a later window were spent.
    shown_ms: u64,
}

type Needs<'m> = Vec<Need<'m>, MAX_PARTS>;

/// The words of a tally, as a request of one owner sees them: while they belong to another owner,
/// there are no credits.
///
/// The agent voids the words of a tally before it changes the owner. So credits that were loaded
/// before the owner are the owner's. An exchange that expects them fails after that: the slot of a
/// limiter is given to another subject only when all windows of the former one have passed, so the
/// credits of the new owner have a later stamp.
#[derive(Clone, Copy, Debug)]
struct OwnWords<'m> {
    words: TallyWords<'m>,
    owner: &'m AtomicU64,
    /// The number of the owner.
    its: u64,
    /// Where a subject of a limiter states that it waits.
    claim: Option<&'m AtomicU64>,
}

impl OwnWords<'_> {
    #[inline]
    fn is_own(&self) -> bool {
        self.owner.load(Ordering::Acquire) == self.its
    }

    /// States whose the words are, if they are another owner's and the agent cannot know it.
    fn claim(&self) {
        if let Some(claim) = self.claim.filter(|_| !self.is_own()) {
            claim.store(self.its, Ordering::Release);
        }
    }
}

impl Words for OwnWords<'_> {
    #[inline]
    fn load(&self, word: Word) -> u64 {
        let value = self.words.load(word);
        if word == Word::Meta || self.is_own() { value } else { 0 }
    }

    #[inline]
    fn store(&self, word: Word, value: u64) {
        self.words.store(word, value);
    }

    #[inline]
    fn exchange(&self, word: Word, present: u64, next: u64) -> Result<(), u64> {
        let exchanged = self.words.exchange(word, present, next);
        exchanged.map_err(|other| if word == Word::Meta || self.is_own() { other } else { 0 })
    }
}

/// The bit of the [index](TallyVerdict::charge_index) of a limiter's overflow tally.
const OVERFLOW: usize = 128;

impl Machine {
    pub(crate) fn new(
        map: FleetMap,
        shapes: Vec<(CreditLayout, bool), MAX_PARTS>,
        wait_us: u64,
    ) -> Self {
        Self { map, shapes, wait_us: AtomicU64::new(wait_us) }
    }

    pub(crate) fn map(&self) -> &FleetMap {
        &self.map
    }

    /// Sets the longest time that a request waits for credits, in microseconds.
    pub(crate) fn set_wait(&self, wait_us: u64) {
        self.wait_us.store(wait_us, Ordering::Relaxed);
    }

    fn wait(&self) -> Duration {
        Duration::from_micros(self.wait_us.load(Ordering::Relaxed))
    }

    /// Returns the number, the words and the layout of a tally of a key.
    #[inline]
    fn tally(
        &self,
        table: &dyn TallyNumbers,
        key_id: KeyId,
        tally: usize,
    ) -> Option<(u32, FleetTally<'_>, &CreditLayout, bool)> {
        let (layout, is_shared) = self.shapes.get(tally)?;
        let number = u32::try_from(table.tally_number(key_id, tally)?).ok()?;
        Some((number, self.map.tally(number)?, layout, *is_shared))
    }

    /// Returns the number, the words and the layout of a tally of a limiter's request.
    #[inline]
    fn subject(
        &self,
        table: &dyn TallyNumbers,
        tally: usize,
    ) -> Option<(u32, OwnWords<'_>, &CreditLayout)> {
        let (layout, _) = self.shapes.get(tally & !OVERFLOW)?;
        let (number, its) = table.subject_number(tally)?;
        let number = u32::try_from(number).ok()?;
        let FleetTally { words, owner } = self.map.tally(number)?;
        let claim = self.map.claim(number);
        Some((number, OwnWords { words, owner, its, claim }, layout))
    }

    /// Returns the words and the layout of a tally of a charge. `None` if the file does not have
    /// them.
    fn charged(
        &self,
        table: &dyn TallyNumbers,
        key_id: Option<KeyId>,
        tally: usize,
    ) -> Option<(OwnWords<'_>, &CreditLayout)> {
        let Some(key_id) = key_id else {
            let (_, words, layout) = self.subject(table, tally)?;
            return Some((words, layout));
        };
        let (_, FleetTally { words, owner }, layout, is_shared) =
            self.tally(table, key_id, tally)?;
        // The account of the key is not known here.
        let its = match is_shared {
            true => owner.load(Ordering::Acquire),
            false => TallyOwner::Key(key_id).number(),
        };
        Some((OwnWords { words, owner, its, claim: None }, layout))
    }

    /// Collects what the tallies need, and returns the time of the request. `None` if the file does
    /// not have one of them.
    #[inline]
    fn needs<'m>(
        &'m self,
        table: &dyn TallyNumbers,
        tallies: &[TallyVerdict],
        is_charged: bool,
        needs: &mut Needs<'m>,
    ) -> Option<u64> {
        let mut now_ms = 0;
        needs.clear();
        for (index, tally) in tallies.iter().enumerate() {
            let verdict = tally.verdict();
            if verdict.quotas().is_empty() || (is_charged && !verdict.is_charged()) {
                continue;
            }
            let (number, words, layout) = match verdict.holder() {
                Some(holder) => {
                    let (number, FleetTally { words, owner }, layout, is_shared) =
                        self.tally(table, holder.key_id, tally.tally())?;
                    let its = match is_shared {
                        true => TallyOwner::Account(holder.account),
                        false => TallyOwner::Key(holder.key_id),
                    };
                    let its = its.number();
                    (number, OwnWords { words, owner, its, claim: None }, layout)
                }
                None => match self.subject(table, tally.charge_index()) {
                    Some(found) => found,
                    // A subject without a slot has not been charged.
                    None if !is_charged || verdict.cost() == 0 => continue,
                    None => return None,
                },
            };
            let part = Part { layout, words, cost: verdict.cost() };
            let shown_ms = verdict.quotas().time().unix_ms();
            let need = Need { index, number, part, wanted_at: None, shown_ms };
            // There is room for every tally of a request.
            let _ = needs.push(need);
            now_ms = now_ms.max(shown_ms);
        }
        Some(now_ms)
    }

    /// Returns what the agent says of the store, and whether it is worth to wait for it.
    fn state(&self) -> (PageState, bool) {
        let state = self.map.state();
        let heartbeat = self.map.page(PageWord::Heartbeat).load(Ordering::Acquire);
        let now_ms = now().unix_ms().saturating_add_signed(self.map.offset_ms());
        let is_alive = now_ms.saturating_sub(heartbeat) <= ABSENT_MS;
        let is_connected = matches!(state.phase, Phase::Learning | Phase::Leading);
        (state, is_alive && is_connected)
    }

    /// Reports the costs that wait to the agent, each once for a lease request, and wakes it.
    #[cold]
    fn report(&self, needs: &mut [Need<'_>], now_ms: u64) {
        for need in needs {
            let Part { layout, words, cost } = &need.part;
            let credits = layout.current(words.load(Word::Credits), now_ms);
            let is_lacking = credits[..layout.len()].iter().any(|credits| credits < cost);
            if !is_lacking || *cost == 0 {
                continue;
            }
            words.claim();
            let meta = Meta::from_bits(words.load(Word::Meta));
            let is_known = need.wanted_at.is_some_and(|at| {
                meta.number() == at || (meta.is_open() && meta.number() == (at + 1) % NUMBERS)
            });
            if !is_known {
                need.wanted_at = Some(want(words, *cost).number());
            }
            self.map.wanted().report(need.number);
        }
        self.map.ring();
    }

    /// Returns whether all keys are unavailable to a request, since the agent has had no store for
    /// too long: a key may have been revoked on another machine.
    #[inline]
    fn is_closed(&self, verdict: &Verdict) -> bool {
        let close_ms = self.map.page(PageWord::KeysClose).load(Ordering::Acquire);
        // 0 is never: the number before it is the largest one.
        close_ms.wrapping_sub(1) < verdict.now().unix_ms()
    }

    /// Returns whether all keys are unavailable to a request of these tallies.
    fn is_closed_to(&self, tallies: &[TallyVerdict]) -> bool {
        tallies.first().is_some_and(|tally| self.is_closed(tally.verdict()))
    }

    /// Makes the verdicts show what the fleet has left.
    fn show(needs: &[Need<'_>], tallies: &mut [TallyVerdict]) {
        for need in needs {
            if let Some(tally) = tallies.get_mut(need.index) {
                let word = need.shown(tally.verdict(), |_, units| units);
                tally.show(need.part.layout.layout(), word);
            }
        }
    }
}

impl Need<'_> {
    /// Returns the word of a tally whose windows have used what the fleet does not have left.
    /// `change` gets the index of each window, and what is left of it.
    #[inline]
    fn shown(&self, verdict: &Verdict, change: impl Fn(usize, u32) -> u32) -> u64 {
        let Part { layout, words, .. } = &self.part;
        let (credits, left) = (words.load(Word::Credits), words.load(Word::Left));
        let limit = |index| verdict.quotas().limit_of(index).unwrap_or(0);
        layout.shown([credits, left], self.shown_ms, limit, change)
    }

    /// Returns the refusal of a request for which the fleet has no units.
    #[cold]
    fn denied(&self, tallies: &[TallyVerdict]) -> Option<Refusal> {
        let verdict = tallies.get(self.index)?.verdict();
        let Part { layout, words, cost } = &self.part;
        let now_ms = verdict.quotas().time().unix_ms();
        let credits = layout.current(words.load(Word::Credits), now_ms);
        let meta = Meta::from_bits(words.load(Word::Meta));
        let word = self.shown(verdict, |index, units| {
            let lacks = credits[index] < *cost && meta.is_exhausted(index);
            if lacks { 0 } else { units }
        });
        let verdict = verdict.denied_by(layout.layout(), word).leased();
        Some(Refusal { index: self.index, verdict })
    }
}

impl Spender {
    pub(crate) fn new(machine: &Arc<Machine>, patience: Patience) -> Self {
        Self { machine: Arc::clone(machine), patience }
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Spends the credits of all needs, or of none. Returns the part that refused it, and why.
    #[inline]
    fn spend(&self, needs: &mut Needs<'_>, now_ms: u64) -> Result<(), Option<(usize, Spending)>> {
        if let [Need { number, part: Part { layout, words, cost }, shown_ms, .. }] = &mut needs[..]
        {
            return match spend(layout, words, now_ms, *cost) {
                Spending::Spent { at_ms, is_low } => {
                    *shown_ms = at_ms;
                    if is_low {
                        self.hint(*number);
                    }
                    Ok(())
                }
                why => Err(Some((0, why))),
            };
        }
        let mut parts = Vec::<Part<'_, OwnWords<'_>>, MAX_PARTS>::new();
        for need in needs.iter().filter(|need| need.part.cost > 0) {
            // There is room for as many as there are needs.
            let _ = parts.push(need.part);
        }
        match spend_all(&parts, now_ms) {
            CompoundSpending::Spent { at_ms, is_low } => {
                let spent = needs.iter_mut().filter(|need| need.part.cost > 0);
                spent.zip(at_ms).for_each(|(need, at_ms)| need.shown_ms = at_ms);
                if is_low.contains(&true) {
                    let spent = needs.iter().filter(|need| need.part.cost > 0);
                    let low = spent.zip(is_low).filter(|(_, is_low)| *is_low);
                    low.for_each(|(need, _)| self.hint(need.number));
                }
                Ok(())
            }
            CompoundSpending::Refused { part, why } => {
                let mut spending = (0..).zip(&*needs).filter(|(_, need)| need.part.cost > 0);
                Err(spending.nth(part).map(|(index, _)| (index, why)))
            }
        }
    }

    /// Reports that a tally has few credits left.
    #[cold]
    fn hint(&self, number: u32) {
        let wanted = self.machine.map.wanted();
        if wanted.hint(number) {
            self.machine.map.ring();
        }
    }

    /// Spends credits after the first attempt failed: waits for them, or decides without them.
    #[cold]
    #[inline(never)]
    fn reserve_slow(
        &self,
        needs: &mut Needs<'_>,
        tallies: &mut [TallyVerdict],
        now_ms: u64,
    ) -> Option<Refusal> {
        let map = &self.machine.map;
        let mut end = None;
        loop {
            let grants = map.grants();
            match self.spend(needs, now_ms) {
                Ok(()) => {
                    Machine::show(needs, tallies);
                    return None;
                }
                Err(Some((index, Spending::Exhausted))) => {
                    return needs.get(index).and_then(|need| need.denied(tallies));
                }
                Err(_) => {}
            }
            let (state, is_led) = self.machine.state();
            if !is_led {
                return alone(map, state, needs, tallies);
            }
            self.machine.report(needs, now_ms);
            match self.patience {
                Patience::Return => {
                    let index = needs.first().map_or(0, |need| need.index);
                    return unavailable(tallies, index, Unavailability::Waiting);
                }
                Patience::Decide => return alone(map, state, needs, tallies),
                Patience::Wait => {}
            }
            let time = instant();
            let end = *end.get_or_insert(time + self.machine.wait());
            let left = end.saturating_duration_since(time);
            if left.is_zero() {
                return alone(map, state, needs, tallies);
            }
            map.wait(grants, left.min(REPORT_AGAIN));
        }
    }
}

/// Decides without credits, by the tallies of this machine, as the operator chose. What it admits
/// is noted for the agent, which states it to the store.
#[cold]
fn alone(
    map: &FleetMap,
    state: PageState,
    needs: &[Need<'_>],
    tallies: &mut [TallyVerdict],
) -> Option<Refusal> {
    for need in needs {
        let verdict = tallies.get(need.index)?.verdict();
        let share = |limit| state.on_loss.and_then(|mode| mode.limit(limit, state.machines));
        let mut used = Units::default();
        let mut is_lacking = false;
        for (index, window) in verdict.quotas().iter().enumerate().take(MAX_QUOTAS) {
            let Some(share) = share(window.limit) else {
                return unavailable(tallies, need.index, Unavailability::Lost);
            };
            let lacks = window.used() > share;
            used[index] = if lacks { window.limit } else { window.used() };
            is_lacking |= lacks;
        }
        if is_lacking {
            let layout = need.part.layout;
            let word = layout.word(verdict.quotas().time().unix_ms(), &used);
            let verdict = verdict.denied_by(layout.layout(), word);
            return Some(Refusal { index: need.index, verdict });
        }
    }
    for need in needs.iter().filter(|need| need.part.cost > 0) {
        let Part { layout, words, cost } = &need.part;
        let at_ms = tallies.get(need.index)?.verdict().quotas().time().unix_ms();
        words.claim();
        admit_unreserved(layout, &words.words, at_ms, *cost);
        map.wanted().report(need.number);
    }
    map.ring();
    tallies.iter_mut().for_each(TallyVerdict::mark_unreserved);
    None
}

/// Returns the refusal of a request that the gate does not decide about.
#[cold]
fn unavailable(tallies: &[TallyVerdict], index: usize, why: Unavailability) -> Option<Refusal> {
    let verdict = tallies.get(index)?.verdict().unavailable_since(why);
    Some(Refusal { index, verdict })
}

impl Spender {
    /// Spends the credits of a request with one tally. Returns whether it did; else nothing was
    /// spent, and the general path decides.
    #[inline]
    fn reserve_one(&self, table: &dyn TallyNumbers, tally: &mut TallyVerdict) -> bool {
        let verdict = tally.verdict();
        let Some(holder) = verdict.holder().filter(|_| verdict.is_charged()) else { return false };
        let found = self.machine.tally(table, holder.key_id, tally.tally());
        let Some((number, FleetTally { words, owner }, layout, false)) = found else {
            return false;
        };
        let its = TallyOwner::Key(holder.key_id).number();
        let is_free = verdict.cost() == 0;
        if owner.load(Ordering::Acquire) != its || is_free || self.machine.is_closed(verdict) {
            return false;
        }
        let now_ms = verdict.quotas().time().unix_ms();
        let spent = spend_one(layout, &words, now_ms, verdict.cost());
        let Spending::Spent { at_ms, is_low } = spent else {
            return false;
        };
        if is_low {
            self.hint(number);
        }
        let words = [words.load(Word::Credits), words.load(Word::Left)];
        let limit = |index| verdict.quotas().limit_of(index).unwrap_or(0);
        let word = layout.shown(words, at_ms, limit, |_, units| units);
        tally.show(layout.layout(), word);
        true
    }
}

/// Spends credits of one tally. Inlined into its caller, it takes more instructions.
#[inline(never)]
fn spend_one(layout: &CreditLayout, words: &TallyWords<'_>, now_ms: u64, cost: u32) -> Spending {
    spend(layout, words, now_ms, cost)
}

impl Reserve for Spender {
    fn clock_offset_ms(&self) -> i64 {
        self.machine.map.offset_ms()
    }

    fn reserve(&self, table: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal> {
        if let [tally] = &mut *tallies
            && self.reserve_one(table, tally)
        {
            return None;
        }
        if self.machine.is_closed_to(tallies) {
            return unavailable(tallies, 0, Unavailability::Lost);
        }
        let mut needs = Needs::new();
        let Some(now_ms) = self.machine.needs(table, tallies, true, &mut needs) else {
            return unavailable(tallies, 0, Unavailability::Lost);
        };
        if self.spend(&mut needs, now_ms).is_ok() {
            Machine::show(&needs, tallies);
            return None;
        }
        self.reserve_slow(&mut needs, tallies, now_ms)
    }

    fn release(&self, table: &dyn TallyNumbers, tallies: &[TallyVerdict]) {
        for tally in tallies {
            let verdict = tally.verdict();
            let Some(charge) = verdict.charge() else { continue };
            let key_id = verdict.holder().map(|holder| holder.key_id);
            if !charge.is_unreserved() {
                let charge = TallyCharge { cost: charge.cost(), at: charge.at() };
                self.refund(table, key_id, tally.charge_index(), charge);
            } else if let Some((words, layout)) =
                self.machine.charged(table, key_id, tally.charge_index())
            {
                let units = [charge.cost(); MAX_QUOTAS];
                deduct_unreserved(layout, &words.words, charge.at().unix_ms(), &units);
            }
        }
    }

    fn peek(&self, table: &dyn TallyNumbers, tallies: &mut [TallyVerdict]) -> Option<Refusal> {
        if self.machine.is_closed_to(tallies) {
            return unavailable(tallies, 0, Unavailability::Lost);
        }
        let mut needs = Needs::new();
        let now_ms = self.machine.needs(table, tallies, false, &mut needs)?;
        for need in needs.iter().filter(|it| it.part.words.is_own() && it.part.cost > 0) {
            let Part { layout, words, cost } = &need.part;
            let credits = layout.current(words.load(Word::Credits), now_ms);
            let has_credits = credits[..layout.len()].iter().all(|credits| credits >= cost);
            if !has_credits && refusal(layout, words, now_ms, *cost) == Spending::Exhausted {
                return need.denied(tallies);
            }
        }
        Machine::show(&needs, tallies);
        None
    }

    fn refund(
        &self,
        table: &dyn TallyNumbers,
        key_id: Option<KeyId>,
        tally: usize,
        charge: TallyCharge,
    ) {
        if let Some((words, layout)) = self.machine.charged(table, key_id, tally) {
            refund(layout, &words, charge.at.unix_ms(), charge.cost);
        }
    }

    fn reserve_more(
        &self,
        table: &dyn TallyNumbers,
        key_id: Option<KeyId>,
        tallies: &[usize],
        most: u32,
        now: Timestamp,
    ) -> u32 {
        let mut least = most;
        for (done, &tally) in tallies.iter().enumerate() {
            let spent = match self.machine.charged(table, key_id, tally) {
                Some((words, layout)) => spend_up_to(layout, &words, now.unix_ms(), least),
                // The key does not have this tally.
                None if key_id.is_some() => continue,
                // The subject has lost its slot.
                None => 0,
            };
            let surplus = TallyCharge { cost: least - spent, at: now };
            if surplus.cost > 0 {
                let before = tallies.get(..done).unwrap_or_default();
                before.iter().for_each(|&tally| self.refund(table, key_id, tally, surplus));
            }
            least = spent;
        }
        least
    }
}

/// Returns whether a section's tallies are shared by all keys of a team.
pub(crate) fn is_shared(section: &Section) -> bool {
    *section == Section::Team
}
