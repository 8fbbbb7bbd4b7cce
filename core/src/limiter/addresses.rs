//! A limiter of client addresses, which counts each client in several networks.
//!
//! Each network of an address is a subject of one table, and a request charges all of them or none
//! ([`check_all`](crate::check_all)). No tally is written before all were decided about, and the
//! largest network is charged first. So the clients of a network whose limit is reached take no
//! slots, also if they race, and cannot fill the table.
//!
//! The table has one layout, that of the windows of all prefixes. Each prefix uses some of its
//! windows, so every tally has its stamp at the same position.
//!
//! | word of a prefix's line | holds |
//! |---|---|
//! | 0 | the prefix (8) · a bit for each window of the table that it limits (8) |
//! | 3 to 6 | the limits of these windows, as in the header of a limiter |

use heapless::Vec;

use super::info::SubjectInfo;
use super::numbers::NumberedSubject;
use super::on_full::OnFull;
use super::slot::Subject;
use super::table::{HEADER_LINES, Limiter, Rule, SetPolicyError, fits, store_limits};
use crate::address::{Address, MAX_PREFIX, MIN_PREFIX};
use crate::bits::IS_64_BIT;
use crate::cache_line::CacheLine;
use crate::charge::{Charge, SHARED};
use crate::compound::{Charging, Compound, Exchange, Position, Steps, charge_one, charge_rest};
use crate::decide::Decision;
use crate::gate::Settlement;
use crate::header::{AttachError, CreateError, TableKind};
use crate::key::KeyId;
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::prefixes::{AddressPolicy, MAX_PREFIXES};
use crate::quota::{Limits, MAX_QUOTAS, Quota};
use crate::reservation::{Reserve, TallyNumbers};
use crate::section::Section;
use crate::tally::{Layout, PackedLimits};
use crate::tally_verdict::TallyVerdict;
use crate::time::{Clock, Timestamp};
use crate::verdict::Verdict;

/// Lines of the header: those of a limiter, and one for each prefix.
const ADDRESS_HEADER_LINES: usize = HEADER_LINES + MAX_PREFIXES;

/// Bits for the number of a slot in a position, below the prefix.
const HOME_BITS: u32 = 56;

/// A limiter of client addresses, in memory that the caller provides.
///
/// A request is charged to the client's network of every prefix of the policy, or to none. Any
/// number of threads, and of processes that map the same memory, may call its methods at once.
///
/// ```
/// use keytally_core::{Address, AddressLimiter, AddressPolicy, CacheLine, Outcome, Timestamp};
/// let policy: AddressPolicy = "addresses: /64 2/minute; /48 3/minute".parse()?;
/// let lines = AddressLimiter::<&[CacheLine]>::lines(64);
/// let memory: Vec<_> = (0..lines).map(|_| CacheLine::new()).collect();
/// let limiter = AddressLimiter::init(memory, &policy, 64, [7; 16])?;
///
/// let now = Timestamp::from_unix_s(1_700_000_000);
/// let check = |text| limiter.check(Address::parse(text).unwrap(), 1, now);
/// assert!(check("2001:db8:1:a::1").is_admitted());
/// assert!(check("2001:db8:1:a::2").is_admitted());
/// assert_eq!(check("2001:db8:1:a::3").outcome(), Outcome::Denied, "the /64 has spent its two");
/// assert!(check("2001:db8:1:b::1").is_admitted());
/// assert_eq!(check("2001:db8:1:c::1").outcome(), Outcome::Denied, "the /48 has spent its three");
/// assert!(check("2001:db8:2::1").is_admitted());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AddressLimiter<M> {
    table: Limiter<M>,
    /// Longest prefix first.
    prefixes: Vec<Prefix, MAX_PREFIXES>,
}

/// A prefix, and the windows that it limits.
#[derive(Debug)]
struct Prefix {
    number: u8,
    /// The section of the verdicts on its networks; `None` for that of the client itself.
    section: Option<Section>,
    layout: Layout,
    carries: u64,
}

impl Prefix {
    /// The prefix at this index, which limits the windows of `layout` that have a bit in `mask`.
    fn new(index: usize, number: u8, layout: &Layout, mask: u8) -> Option<Self> {
        let is_valid = (MIN_PREFIX..=MAX_PREFIX).contains(&number);
        let layout = layout.only(|index| mask >> index & 1 == 1).filter(|_| is_valid)?;
        let section = (index > 0).then(|| Section::prefix(number));
        Some(Self { number, section, carries: PackedLimits::carries(layout.counts()), layout })
    }

    /// Returns the rule of the prefix, whose line this is.
    #[inline]
    fn rule<'m>(&'m self, line: &'m CacheLine) -> Rule<'m> {
        Rule { layout: &self.layout, line, carries: self.carries }
    }

    /// Returns the verdict on a network that was charged by writing this word. The prefix has this
    /// index.
    #[inline]
    fn verdict(
        &self,
        index: usize,
        rule: Rule<'_>,
        next: u64,
        now: Timestamp,
        cost: u32,
    ) -> TallyVerdict {
        let (layout, limits) = (rule.layout, &rule.limits());
        let decision = Decision::admitted(next);
        let verdict = Verdict::decided_at(layout, limits, decision, None, now, cost, true);
        self.tally_verdict(index, verdict)
    }

    #[inline]
    fn tally_verdict(&self, index: usize, verdict: Verdict) -> TallyVerdict {
        let mut tally = TallyVerdict::new(verdict);
        // A policy has few prefixes.
        tally.tally = u8::try_from(index).unwrap_or(u8::MAX);
        tally.section = self.section;
        tally
    }
}

impl<M: AsRef<[CacheLine]>> AddressLimiter<M> {
    /// Returns the lines that a limiter for `capacity` networks takes, of 64 bytes each.
    ///
    /// A client takes a slot for each prefix, but all clients of a network share that network's.
    pub const fn lines(capacity: u32) -> usize {
        match Limiter::<M>::validate(ADDRESS_HEADER_LINES, capacity) {
            Ok(lines) => lines,
            Err(_) => usize::MAX,
        }
    }

    /// Creates a table for `capacity` networks in memory that no other table uses. `seed` must be
    /// random.
    ///
    /// # Errors
    /// Those of [`Limiter::init`].
    pub fn init(
        memory: M,
        policy: &AddressPolicy,
        capacity: u32,
        seed: [u8; 16],
    ) -> Result<Self, CreateError> {
        Self::init_after(memory, ADDRESS_HEADER_LINES, policy, capacity, seed)
    }

    /// Creates a table after a header of `header_lines` lines, at least 7.
    ///
    /// # Errors
    /// Those of [`Limiter::init`].
    pub fn init_after(
        memory: M,
        header_lines: usize,
        policy: &AddressPolicy,
        capacity: u32,
        seed: [u8; 16],
    ) -> Result<Self, CreateError> {
        let lines = memory.as_ref().len();
        if header_lines < ADDRESS_HEADER_LINES {
            return Err(CreateError::Size { lines, needed: Self::lines(capacity) });
        }
        let mut prefixes = Vec::new();
        let layout = policy.layout();
        let table = Limiter::create(
            memory,
            header_lines,
            TableKind::AddressLimiter,
            (layout, layout.largest_limits()),
            capacity,
            seed,
            |lines| {
                for (line, (number, quotas)) in lines.iter().skip(HEADER_LINES).zip(policy.iter()) {
                    let mask = mask_of(layout, quotas);
                    line.store(0, u64::from(number) | u64::from(mask) << 8);
                    // A policy that was parsed has valid prefixes.
                    if let Some(prefix) = Prefix::new(prefixes.len(), number, layout, mask) {
                        store_limits(line, &prefix.layout, &Limits::of(quotas));
                        let _ = prefixes.push(prefix);
                    }
                }
            },
        )?;
        Ok(Self { table, prefixes })
    }

    /// Opens a table that was created before.
    ///
    /// # Errors
    /// [`AttachError`] if the memory does not hold a limiter of addresses of this format version
    /// and of the size that its header states.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let table = Limiter::attach_kind(memory, TableKind::AddressLimiter, ADDRESS_HEADER_LINES)?;
        let mut prefixes = Vec::<Prefix, MAX_PREFIXES>::new();
        let lines = table.memory().as_ref().iter().skip(HEADER_LINES).take(MAX_PREFIXES);
        for line in lines.take_while(|line| line.load(0) != 0) {
            let [number, mask, ..] = line.load(0).to_le_bytes();
            let is_next = prefixes.last().is_none_or(|last| number < last.number);
            let prefix =
                Prefix::new(prefixes.len(), number, table.layout(), mask).filter(|_| is_next);
            let what = "prefix of addresses";
            let prefix = prefix.ok_or(AttachError::Geometry { what, value: number.into() })?;
            prefix.rule(line).pack();
            // There is room for as many as there are lines.
            let _ = prefixes.push(prefix);
        }
        if prefixes.is_empty() {
            return Err(AttachError::Geometry { what: "number of prefixes", value: 0 });
        }
        Ok(Self { table, prefixes })
    }

    /// Returns the rule of the prefix at this index.
    #[inline]
    fn rule(&self, index: usize) -> Option<Rule<'_>> {
        let line = self.table.memory().as_ref().get(HEADER_LINES + index)?;
        Some(self.prefixes.get(index)?.rule(line))
    }

    /// Returns the position of a network's tally: the shortest prefix is charged first, so a client
    /// gets a slot only after its larger networks were charged.
    #[inline]
    fn position_of(&self, index: usize, network: Subject) -> Position {
        let prefix = self.prefixes.get(index).map_or(0, |prefix| prefix.number);
        (self.table.id(), u64::from(prefix) << HOME_BITS | self.table.home_of(network))
    }

    /// Returns the network of an address as a subject of the table.
    #[inline]
    fn subject(&self, address: Address, prefix: &Prefix) -> Subject {
        self.table.subject_of(address.network(prefix.number))
    }

    /// Returns the memory that the limiter is in.
    pub fn memory(&self) -> &M {
        self.table.memory()
    }

    /// Returns the layout of the windows of all prefixes.
    pub fn layout(&self) -> &Layout {
        self.table.layout()
    }

    /// Returns how many networks the table was created for.
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// Returns how many networks have a slot that cannot be reused at `now`. Reads the whole table.
    pub fn live_subjects(&self, now: Timestamp) -> u64 {
        self.table.live_subjects(now)
    }

    /// Returns the 48 bits of a hash by which the table knows the client's network of the longest
    /// prefix.
    pub fn fingerprint(&self, address: Address) -> u64 {
        self.prefixes.first().map_or(0, |prefix| self.subject(address, prefix).fingerprint_number())
    }

    /// Returns the networks that have a slot that cannot be reused at `now`, and the overflow
    /// tallies that count something then. Reads the whole table.
    ///
    /// The prefix of a network is not stored. So each has the windows of all prefixes, with the
    /// largest limit of each.
    pub fn list(&self, now: Timestamp) -> impl Iterator<Item = SubjectInfo> {
        let limits = self.largest_limits();
        self.table.list_by(limits, now)
    }

    /// Returns the largest present limit of each window of the table.
    fn largest_limits(&self) -> Limits {
        let mut largest = Limits([0; MAX_QUOTAS]);
        let windows = self.layout().windows();
        for (index, prefix) in self.prefixes.iter().enumerate() {
            let limits = self.rule(index).map_or(largest, Rule::limits);
            for (window, limit) in prefix.layout.windows().iter().zip(limits.0) {
                let position = windows.iter().position(|other| other == window);
                let largest = position.and_then(|position| largest.0.get_mut(position));
                largest.into_iter().for_each(|largest| *largest = limit.max(*largest));
            }
        }
        largest
    }

    /// Returns the number of slots, in whole buckets: at least 1.5 times the capacity.
    pub fn slots_total(&self) -> u64 {
        self.table.slots_total()
    }

    /// Returns what happens to a network that finds no slot.
    pub fn on_full(&self) -> OnFull {
        self.table.on_full()
    }

    /// Sets what happens to a network that finds no slot: see [`Limiter::set_on_full`]. Networks of
    /// all prefixes share an overflow tally.
    pub fn set_on_full(&self, on_full: OnFull) {
        self.table.set_on_full(on_full);
    }

    /// Returns whether requests need a reservation: see [`Limiter::is_reserving`].
    #[inline]
    pub fn is_reserving(&self) -> bool {
        self.table.is_reserving()
    }

    /// Sets whether requests need a reservation: see [`Limiter::set_reserving`].
    pub fn set_reserving(&self, is_reserving: bool) {
        self.table.set_reserving(is_reserving);
    }

    /// Returns a number of this table and its copies, from which the seed cannot be computed.
    pub fn fleet_id(&self) -> u64 {
        self.table.fleet_id()
    }

    /// Returns each prefix and the layout of its networks' tallies, longest first.
    pub fn shapes(&self) -> impl Iterator<Item = (u8, &Layout)> {
        self.prefixes.iter().map(|prefix| (prefix.number, &prefix.layout))
    }

    /// Returns the number of the client's network of the longest prefix as an
    /// [owner](NumberedSubject::owner), also if it has no slot.
    pub fn owner_number(&self, address: Address) -> u64 {
        let prefix = self.prefixes.first();
        prefix.map_or(0, |prefix| self.subject(address, prefix).owner_number(0))
    }

    /// Returns how many tallies have a number: see [`Limiter::numbered_tallies`].
    pub fn numbered_tallies(&self) -> u64 {
        self.table.numbered_by(self.prefixes.len())
    }

    /// Returns the network with a number: see [`Limiter::numbered_subject`].
    pub fn numbered_subject(
        &self,
        number: u64,
        owners: [u64; 2],
        now: Timestamp,
    ) -> Option<NumberedSubject> {
        let mut rules = Vec::<Rule<'_>, MAX_PREFIXES>::new();
        for index in 0..self.prefixes.len() {
            // There is room for every prefix.
            let _ = rules.push(self.rule(index)?);
        }
        self.table.numbered_subject_by(&rules, number, owners, now)
    }

    /// Returns how many networks found no slot: see [`Limiter::refusals`].
    pub fn refusals(&self) -> u64 {
        self.table.refusals()
    }

    /// Returns the present policy; `None` if the header is damaged.
    pub fn policy(&self) -> Option<AddressPolicy> {
        let mut prefixes = Vec::new();
        for (index, Prefix { number, layout, .. }) in self.prefixes.iter().enumerate() {
            let policy = Policy::from_layout(layout, self.rule(index)?.limits())?;
            let mut quotas = Vec::<Quota, MAX_QUOTAS>::new();
            quotas.extend_from_slice(policy.quotas()).ok()?;
            prefixes.push((*number, quotas)).ok()?;
        }
        AddressPolicy::new(self.layout().algorithm(), prefixes).ok()
    }

    /// Changes the limits to those of `policy`, and keeps all counts: see [`Limiter::set_policy`].
    ///
    /// # Errors
    /// [`SetPolicyError`] if the policy has other prefixes or windows, or if a count cannot hold a
    /// limit. Nothing was changed.
    pub fn set_policy(&self, policy: &AddressPolicy) -> Result<(), SetPolicyError> {
        let prefixes = || policy.iter().zip(&self.prefixes).enumerate();
        if policy.iter().count() != self.prefixes.len() {
            return Err(SetPolicyError::Prefixes);
        }
        for (_, ((number, quotas), Prefix { number: own, layout, .. })) in prefixes() {
            if number != *own {
                return Err(SetPolicyError::Prefixes);
            }
            fits(layout, policy.layout().algorithm(), quotas)?;
        }
        for (index, ((_, quotas), Prefix { layout, .. })) in prefixes() {
            if let Some(Rule { line, .. }) = self.rule(index) {
                store_limits(line, layout, &Limits::of(quotas));
            }
        }
        Ok(())
    }

    /// Returns the address and a cost as a part of [`check_all`](crate::check_all).
    pub fn part(&self, address: Address, cost: u32) -> AddressPart<'_, M> {
        let mut subjects = [Subject(0); MAX_PREFIXES];
        for (subject, prefix) in subjects.iter_mut().zip(&self.prefixes) {
            *subject = self.subject(address, prefix);
        }
        AddressPart { limiter: self, subjects, cost, shared: 0, reservation: None }
    }

    /// Returns a part that is charged to the tallies that `charge` was made to.
    fn part_of(&self, address: Address, charge: &Charge, cost: u32) -> AddressPart<'_, M> {
        let charges = charge.entries().map(|entry| Charge::of(*entry));
        let shared = charges.filter(Charge::is_shared).fold(0, |bits, charge| {
            bits | 1_u8.checked_shl(u32::try_from(charge.index()).unwrap_or(u32::MAX)).unwrap_or(0)
        });
        AddressPart { shared, ..self.part(address, cost) }
    }

    /// Charges `cost` to the networks of the address if all of them have room for it, else to none.
    #[inline]
    pub fn check(&self, address: Address, cost: u32, clock: impl Clock) -> Compound {
        match self.prefixes.len() {
            1 if IS_64_BIT => self.check_networks::<1>(address, cost, clock),
            2 if IS_64_BIT => self.check_networks::<2>(address, cost, clock),
            3 if IS_64_BIT => self.check_networks::<3>(address, cost, clock),
            4 if IS_64_BIT => self.check_networks::<4>(address, cost, clock),
            _ => self.check_slow(address, cost, clock),
        }
    }

    /// Charges the networks of the `N` prefixes. If each has a slot and room for the cost, as is
    /// nearly always so, it charges each by one exchange, the largest network first. Otherwise it
    /// does what every compound charge does.
    ///
    /// The number is a constant, so that the result is built where the caller needs it, and not
    /// copied there.
    fn check_networks<const N: usize>(
        &self,
        address: Address,
        cost: u32,
        clock: impl Clock,
    ) -> Compound {
        let lines = self.memory().as_ref().get(HEADER_LINES..).and_then(<[_]>::first_chunk::<N>);
        let (Some(lines), Some(prefixes)) = (lines, self.prefixes.first_chunk::<N>()) else {
            return self.check_slow(address, cost, clock);
        };
        let now = clock.reading();
        let mut subjects = [Subject(0); N];
        for (subject, prefix) in subjects.iter_mut().zip(prefixes) {
            *subject = self.subject(address, prefix);
            if N > 1 {
                self.table.fetch(*subject);
            }
        }
        let unused = Exchange { layout: self.layout(), atomic: lines[0].word(0), word: 0, next: 0 };
        let mut exchanges = [unused; N];
        for index in (0..N).rev() {
            let rule = prefixes[index].rule(&lines[index]);
            let admission = self.table.admission_by(rule, subjects[index], cost, now);
            let Some(exchange) = admission else {
                return self.check_slow(address, cost, clock);
            };
            exchanges[index] = exchange;
        }
        for (done, exchange) in exchanges.iter().rev().enumerate() {
            if !exchange.make() {
                return self.charge_rest(address, cost, &exchanges, done, clock);
            }
        }
        let mut tallies: [TallyVerdict; N] = core::array::from_fn(|_| TallyVerdict::none());
        for index in 0..N {
            let rule = prefixes[index].rule(&lines[index]);
            tallies[index] = prefixes[index].verdict(index, rule, exchanges[index].next, now, cost);
        }
        Compound::from_tallies(tallies)
    }

    #[cold]
    #[inline(never)]
    fn check_slow(&self, address: Address, cost: u32, clock: impl Clock) -> Compound {
        let part = self.part(address, cost);
        Steps::<Timestamp>::fetch(&part);
        charge_one(&part, true, clock)
    }

    /// Continues a charge of which the first tallies, in the order of their positions, are
    /// charged.
    #[cold]
    #[inline(never)]
    fn charge_rest(
        &self,
        address: Address,
        cost: u32,
        exchanges: &[Exchange<'_>],
        done: usize,
        clock: impl Clock,
    ) -> Compound {
        let part = self.part(address, cost);
        charge_rest(&part, done, clock, |charging| {
            let probed = part.networks().zip(&self.prefixes).zip(exchanges);
            for (((index, subject), prefix), exchange) in probed {
                let Some(rule) = self.rule(index) else { continue };
                let tally = prefix.verdict(index, rule, exchange.next, clock.reading(), cost);
                charging.add_tally(tally, self.position_of(index, subject), Some(*exchange));
            }
        })
    }

    /// Returns what [`check`](Self::check) would return now, and charges nothing.
    pub fn peek(&self, address: Address, cost: u32, clock: impl Clock) -> Compound {
        charge_one(&self.part(address, cost), false, clock)
    }

    /// Returns the units of `charge` to the windows that still count them, in all networks. Refund
    /// each charge once. Returns the state after the refund.
    pub fn refund(&self, address: Address, charge: Charge, clock: impl Clock) -> Compound {
        for entry in charge.entries() {
            let charge = Charge::of(*entry);
            if let Some((rule, subject)) = self.tally(address, charge.index()) {
                self.table.refund_by(rule, subject, charge, clock);
            }
        }
        self.state_of(address, &charge, clock)
    }

    /// Returns the state of the tallies that `charge` was made to.
    fn state_of(&self, address: Address, charge: &Charge, clock: impl Clock) -> Compound {
        charge_one(&self.part_of(address, charge, 0), false, clock)
    }

    /// Returns the rule and the subject of the network of the prefix at this index.
    fn tally(&self, address: Address, index: usize) -> Option<(Rule<'_>, Subject)> {
        Some((self.rule(index)?, self.subject(address, self.prefixes.get(index)?)))
    }

    /// Replaces an estimate by the actual cost: refunds the difference, or charges it as far as
    /// there is room in all networks. Settle each charge once.
    ///
    /// Returns the state after the settlement. The [`uncharged`](Verdict::uncharged) of each
    /// verdict is the part that found no room.
    pub fn settle(
        &self,
        address: Address,
        estimate: Charge,
        actual: u32,
        clock: impl Clock,
    ) -> Compound {
        let settlement = Settlement::new().with_cost(actual);
        self.settle_all(address, estimate, &settlement, clock)
    }

    /// Replaces an estimate by the actual cost. A limiter has no groups, so the settlement's costs
    /// of groups have no effect. Settle each charge once.
    ///
    /// Returns the state after the settlement. The [`uncharged`](Verdict::uncharged) of each
    /// verdict is the part that found no room. With [`overdraw`](Settlement::overdraw), that part
    /// is charged too.
    pub fn settle_all(
        &self,
        address: Address,
        estimate: Charge,
        settlement: &Settlement<'_>,
        clock: impl Clock,
    ) -> Compound {
        let actual = settlement.cost.unwrap_or(estimate.cost());
        let Some(extra) = actual.checked_sub(estimate.cost()) else {
            let mut rest = estimate;
            rest.lower(actual);
            return self.refund(address, rest, clock);
        };
        let uncharged = if settlement.overdraw {
            let part = self.part_of(address, &estimate, extra);
            part.networks().map(|(index, _)| part.overdraw(index, clock)).max().unwrap_or(0)
        } else {
            extra - self.charge_up_to(address, &estimate, extra, clock)
        };
        let mut after = self.state_of(address, &estimate, clock);
        for tally in after.tallies_mut() {
            tally.verdict.uncharged = uncharged;
        }
        after
    }

    /// Charges as many of these units as all tallies of a charge have room for, and returns their
    /// number.
    fn charge_up_to(
        &self,
        address: Address,
        charge: &Charge,
        units: u32,
        clock: impl Clock,
    ) -> u32 {
        let mut part = self.part_of(address, charge, 0);
        let (mut units, mut last_room, mut shares) = (units, None, 1);
        while units > 0 {
            part.cost = 0;
            let compound = charge_one(&part, false, clock);
            let rooms = compound.verdicts().flat_map(|verdict| verdict.quotas().iter());
            let room = rooms.map(|state| state.remaining).fold(u32::MAX, u32::min);
            // If there is as much room as before, networks without a slot share an overflow tally,
            // which is charged once for each of them.
            if last_room.is_some_and(|last| room >= last) {
                shares += 1;
            }
            last_room = Some(room);
            units = units.min(room / shares);
            part.cost = units;
            match charge_one(&part, true, clock).outcome() {
                Outcome::Admitted => break,
                // Another request took the room after it was read.
                Outcome::Denied | Outcome::TooCostly => {}
                // A network whose windows have passed has lost its slot, and there is none left.
                _ => units = 0,
            }
        }
        units
    }

    /// Sets all counts of the client's network, that of the longest prefix, to 0. Larger networks
    /// keep their counts. Returns the state after it.
    pub fn reset(&self, address: Address, clock: impl Clock) -> Compound {
        if let Some((rule, subject)) = self.tally(address, 0) {
            self.table.reset_by(rule, subject, clock);
        }
        self.peek(address, 0, clock)
    }

    /// Sets all counts of every network to 0: see [`Limiter::reset_all`].
    pub fn reset_all(&self, clock: impl Clock) -> u64 {
        self.table.reset_all(clock)
    }

    /// Corrects every tally that is ahead of the clock: see [`Limiter::correct_clock`].
    pub fn correct_clock(&self, clock: impl Clock) -> u64 {
        self.table.correct_clock(clock)
    }
}

/// Returns a bit for each window of a layout that one of the quotas has.
fn mask_of(layout: &Layout, quotas: &[Quota]) -> u8 {
    let has = |window| quotas.iter().any(|quota| quota.window == window);
    let windows = layout.windows().iter().enumerate();
    windows.filter(|(_, window)| has(**window)).fold(0, |mask, (index, _)| mask | 1 << index)
}

/// The address of a client as a part of a compound charge. [`AddressLimiter::part`] returns it.
#[derive(Debug)]
pub struct AddressPart<'l, M> {
    limiter: &'l AddressLimiter<M>,
    /// The network of each prefix.
    subjects: [Subject; MAX_PREFIXES],
    cost: u32,
    /// A bit for each prefix whose overflow tally is charged, as by an earlier charge. Otherwise
    /// the network's slot is charged, if it gets one.
    shared: u8,
    reservation: Option<&'l dyn Reserve>,
}

impl<'l, M> AddressPart<'l, M> {
    /// Also reserves what `reservation` says, as all processes do that use the limiter.
    #[must_use]
    pub fn with_reservation(self, reservation: Option<&'l dyn Reserve>) -> Self {
        Self { reservation, ..self }
    }
}

impl<M: AsRef<[CacheLine]>> TallyNumbers for AddressPart<'_, M> {
    fn tally_number(&self, _: KeyId, _: usize) -> Option<u64> {
        None
    }

    fn subject_number(&self, tally: usize) -> Option<(u64, u64)> {
        let (index, is_overflow) = (tally & !usize::from(SHARED), tally & usize::from(SHARED) != 0);
        let rules = self.limiter.prefixes.len();
        let subject = *self.subjects.get(index).filter(|_| index < rules)?;
        self.limiter.table.number_by(subject, index, rules, is_overflow)
    }
}

impl<M: AsRef<[CacheLine]>> AddressPart<'_, M> {
    fn networks(&self) -> impl Iterator<Item = (usize, Subject)> {
        self.subjects.into_iter().take(self.limiter.prefixes.len()).enumerate()
    }

    fn is_shared(&self, index: usize) -> bool {
        self.shared >> index & 1 == 1
    }

    /// Charges the network of a prefix also units for which there is no room. Returns the units
    /// that its count cannot hold.
    fn overdraw(&self, index: usize, clock: impl Clock) -> u32 {
        let (Some(rule), Some(&subject)) = (self.limiter.rule(index), self.subjects.get(index))
        else {
            return 0;
        };
        let is_shared = self.is_shared(index);
        self.limiter.table.overdraw_by(rule, subject, is_shared, self.cost, clock).uncharged()
    }
}

impl<M: AsRef<[CacheLine]>, C: Clock> Steps<C> for AddressPart<'_, M> {
    fn fetch(&self) {
        self.networks().for_each(|(_, subject)| self.limiter.table.fetch(subject));
    }

    fn probe<'p>(&'p self, charging: &mut Charging<'_, 'p>, clock: C) {
        let (limiter, table) = (self.limiter, &self.limiter.table);
        for (index, subject) in self.networks() {
            let Some(rule) = limiter.rule(index) else { continue };
            let (verdict, exchange) = if self.is_shared(index) {
                (table.peek_shared(rule, subject, self.cost, clock), None)
            } else {
                match table.probe_by(rule, subject, self.cost, clock) {
                    Some((verdict, exchange)) => (verdict, Some(exchange)),
                    None => (table.peek_by(rule, subject, self.cost, clock), None),
                }
            };
            let Some(prefix) = limiter.prefixes.get(index) else { continue };
            let tally = prefix.tally_verdict(index, verdict);
            charging.add_tally(tally, limiter.position_of(index, subject), exchange);
        }
    }

    fn charge(&self, tally: &mut TallyVerdict, clock: C) {
        let index = usize::from(tally.tally);
        if let (Some(rule), Some(&subject)) = (self.limiter.rule(index), self.subjects.get(index)) {
            let table = &self.limiter.table;
            tally.verdict = if self.is_shared(index) {
                table.check_shared(rule, subject, self.cost, clock)
            } else {
                table.check_by(rule, subject, self.cost, clock)
            };
        }
    }

    fn has_extras(&self) -> bool {
        self.reservation.is_some()
    }

    fn reservation(&self) -> Option<(&dyn Reserve, &dyn TallyNumbers)> {
        Some((self.reservation?, self))
    }

    fn refund(&self, tally: &TallyVerdict, clock: C) -> Option<Verdict> {
        let charge = tally.verdict.charge()?;
        let index = usize::from(tally.tally);
        let subject = *self.subjects.get(index)?;
        Some(self.limiter.table.refund_by(self.limiter.rule(index)?, subject, charge, clock))
    }
}

// All prefixes of a policy fit a compound charge.
const _: () = assert!(MAX_PREFIXES <= crate::compound::MAX_PARTS);
