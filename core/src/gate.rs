//! The gate: a table of issued keys with their tallies. Verify, then charge.
//!
//! ```text
//! header: shape | peppers, prefix | intent | owner | environments (2 lines) | plans …
//! records, one line per key | hints, 16 per line (where the gate keeps them)
//! ```
//!
//! A key id tells its record: ids are minted so that `id × records / 2^64` is the record's number. So a check reads
//! one line whether or not the id exists, every record can be used, and ids need no index. An imported key, which has
//! no id of ours, may live in any record of two groups of eight that its HMAC names; its id is minted for the record that it gets.

mod administrator;
mod inspect;
mod plan;

use core::ops::Range;

use subtle::{Choice, ConstantTimeEq};

pub use self::administrator::{AdminError, Administrator, Entropy, NewKey};
pub use self::inspect::{Flaw, FlawKind, KeyInfo};
pub use self::plan::Plan;
use self::plan::common_layout;
use crate::cell;
use crate::decide::{self, Charge, Decision};
use crate::header::{AttachError, CreateError, Header, TableKind};
use crate::key::{self, KeyId, Name, ParseKeyError};
use crate::line::{LINE_LEN, LINE_WORDS, Line, index, low, scale};
use crate::mac::{MAX_PEPPERS, Mac, Pepper};
use crate::peppers::Peppers;
use crate::policy::Limits;
use crate::record::{Intent, KeyState, Place, Record};
use crate::stop::{Stop, stop};
use crate::sync::Ordering;
use crate::tally::Layout;
use crate::time::{Clock, Timestamp};
use crate::verdict::{Holder, Outcome, Reason, Verdict};

/// The most keys that a gate can be made for.
pub const MAX_KEYS: u32 = 1 << 26;

/// The most environments of a gate.
pub const MAX_ENVS: usize = 16;

/// The most plans of a gate whose header is one page, as in a file.
pub const MAX_PLANS: usize = (PAGE_LEN / LINE_LEN - FIXED_LINES) * PLANS_PER_LINE;

const PAGE_LEN: usize = 4096;

const _: () = assert!(MAX_PLANS == 116, "LIMITS.md and the header for C say so");

/// The longest name of a plan, in bytes.
pub const MAX_PLAN_NAME_LEN: usize = 16;

/// The shortest and the longest key that can be imported, in bytes.
pub const IMPORTED_KEY_LEN: Range<usize> = 16..257;

/// Records in each of the two groups that an imported key may live in.
pub const IMPORT_GROUP: u32 = 8;

/// Lines of the header before the plans.
const FIXED_LINES: usize = 6;

/// Plans in a line.
const PLANS_PER_LINE: usize = 2;

/// Where the header keeps what; see the module's picture.
const PEPPER_LINE: usize = 1;
const PREFIX_WORD: usize = 4;
const IMPORTS_WORD: usize = 5;
const ADMINISTRATOR_WORD: usize = 6;
const INTENT_LINE: usize = 2;
const OWNER_LINE: usize = 3;
const ENV_LINE: usize = 4;

/// Set in the header's flags when the gate keeps hints.
const HINTS_FLAG: u32 = 1;
const HINTS_PER_LINE: usize = 2 * LINE_WORDS;

/// What a gate is made of.
///
/// ```
/// use keytally_core::{GateConfig, Name, Plan};
/// let plans = [Plan::new("default", "100/minute, 1000/hour".parse()?).unwrap()];
/// let config = GateConfig::new(64, Name::new("kt").unwrap(), &plans).with_plan_slots(4);
/// assert_eq!(config.validate()?, 8 + 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GateConfig<'a> {
    /// The most keys, 1 to [`MAX_KEYS`].
    pub keys: u32,
    /// What every key begins with.
    pub prefix: Name,
    /// The plans; a key that names none has the first. All share their windows and algorithm.
    pub plans: &'a [Plan],
    /// How many plans there will ever be room for; at least as many as `plans`.
    pub plan_slots: usize,
    /// Whether to keep the last four characters of each key, 4 bytes, so that `list` can show them.
    pub hints: bool,
}

impl<'a> GateConfig<'a> {
    /// A gate for `keys` keys that begin with `prefix`, with room for `plans` and no more, and without hints.
    pub const fn new(keys: u32, prefix: Name, plans: &'a [Plan]) -> Self {
        Self { keys, prefix, plans, plan_slots: plans.len(), hints: false }
    }

    /// Sets how many plans there is room for.
    #[must_use]
    pub const fn with_plan_slots(self, plan_slots: usize) -> Self {
        Self { plan_slots, ..self }
    }

    /// Sets whether the gate keeps the last four characters of each key.
    #[must_use]
    pub const fn with_hints(self, hints: bool) -> Self {
        Self { hints, ..self }
    }

    /// Returns the lines that the gate takes, of [`LINE_LEN`](crate::LINE_LEN) bytes each. For a configuration that no
    /// gate has, use [`validate`](Self::validate).
    pub const fn lines(&self) -> usize {
        lines(header_lines(self.plan_slots), self.keys, self.hints)
    }

    /// Checks the configuration and returns the lines that the gate takes.
    ///
    /// # Errors
    /// Those of [`Gate::create`], apart from [`CreateError::Size`].
    pub fn validate(&self) -> Result<usize, CreateError> {
        self.common_layout().map(|_| self.lines())
    }

    /// Returns the layout that all plans share.
    fn common_layout(&self) -> Result<Layout, CreateError> {
        if !(1..=MAX_KEYS).contains(&self.keys) {
            return Err(CreateError::Capacity { capacity: self.keys, max: MAX_KEYS });
        }
        let plan_slots = self.plan_slots.min(usize::from(u8::MAX) + 1);
        if self.plans.is_empty() || self.plans.len() > plan_slots || self.plan_slots > plan_slots {
            return Err(CreateError::Plans { plans: self.plans.len(), max: plan_slots });
        }
        for (index, plan) in self.plans.iter().enumerate() {
            if self.plans[..index].iter().any(|other| other.name == plan.name) {
                return Err(CreateError::PlanName);
            }
        }
        common_layout(self.plans).ok_or(CreateError::PlanWindows)
    }
}

/// The lines of a header with room for so many plans.
const fn header_lines(plan_slots: usize) -> usize {
    FIXED_LINES + plan_slots.div_ceil(PLANS_PER_LINE)
}

const fn lines(header_lines: usize, keys: u32, hints: bool) -> usize {
    let keys = index(keys as u64);
    header_lines + keys + if hints { keys.div_ceil(HINTS_PER_LINE) } else { 0 }
}

/// A gate over memory of the caller's: anything that is a slice of lines.
///
/// Every method takes `&self` and may be called from any number of threads, and from any number of processes that
/// map the same memory.
///
/// ```
/// use keytally_core::{Entropy, Gate, GateConfig, Line, Name, Peppers, Plan, Timestamp, NewKey};
/// let plan = Plan::new("default", "100/minute, 1000/hour".parse()?).unwrap();
/// let plans = [plan];
/// let config = GateConfig::new(64, Name::new("kt").unwrap(), &plans).with_plan_slots(4);
/// let memory: Vec<Line> = (0..config.lines()).map(|_| Line::new()).collect();
/// let gate = Gate::create(memory, &config, Peppers::new(&[b"a pepper of at least 32 bytes ..."])?)?;
///
/// let now = Timestamp::from_unix_s(1_700_000_000);
/// let new = NewKey::new(42, Name::new("live").unwrap());
/// let (key, _) = gate.administer()?.issue(&new, Entropy::new([7; 24]), now)?; // entropy: from the system, not 7
///
/// let verdict = gate.check(Some(key.expose().as_bytes()), 1, now);
/// assert!(verdict.is_admitted());
/// assert_eq!(verdict.remaining(), 999);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Gate<M> {
    memory: M,
    peppers: Peppers,
    layout: Layout,
    prefix: Name,
    capacity: u32,
    records_at: usize,
    hints_at: Option<usize>,
}

impl<M: AsRef<[Line]>> Gate<M> {
    /// Makes a gate out of memory that nobody uses, [`GateConfig::lines`] of it.
    ///
    /// # Errors
    /// What [`CreateError`] lists.
    pub fn create(memory: M, config: &GateConfig<'_>, peppers: Peppers) -> Result<Self, CreateError> {
        let lines = memory.as_ref();
        let layout = config.common_layout()?;
        if lines.len() != config.lines() {
            return Err(CreateError::Size { lines: lines.len(), needed: config.lines() });
        }
        let header = Header {
            kind: TableKind::Gate,
            capacity: config.keys,
            header_lines: u32::try_from(header_lines(config.plan_slots)).unwrap_or(u32::MAX),
            flags: if config.hints { HINTS_FLAG } else { 0 },
            layout,
        };
        header.write(lines);
        lines[PEPPER_LINE].store(PREFIX_WORD, config.prefix.to_word());
        for (number, pepper) in peppers.0.iter().enumerate() {
            lines[PEPPER_LINE].store(number, pepper.fingerprint());
        }
        let gate = Self::with(memory, &header, config.prefix, peppers);
        for (number, plan) in config.plans.iter().enumerate() {
            gate.store_plan(number, plan.words());
        }
        Header::publish(gate.memory.as_ref());
        Ok(gate)
    }

    /// Opens a gate that exists.
    ///
    /// # Errors
    /// What [`AttachError`] lists: the memory is no gate, or not one of this version, or has another size than it
    /// says, or none of the peppers is the gate's.
    pub fn attach(memory: M, peppers: Peppers) -> Result<Self, AttachError> {
        let lines = memory.as_ref();
        let header = Header::read(lines, TableKind::Gate)?;
        let header_lines = index(u64::from(header.header_lines));
        let valid = (1..=MAX_KEYS).contains(&header.capacity)
            && (FIXED_LINES + 1..=lines.len()).contains(&header_lines)
            && header.flags & !HINTS_FLAG == 0;
        let expected =
            valid.then(|| self::lines(header_lines, header.capacity, header.flags & HINTS_FLAG != 0));
        header.expect_lines(lines, expected)?;
        let prefix = lines[PEPPER_LINE].load(PREFIX_WORD);
        let prefix =
            Name::from_word(prefix).ok_or(AttachError::Geometry { what: "prefix", value: prefix })?;
        let gate = Self::with(memory, &header, prefix, peppers);
        if !gate.has_first_plan() {
            return Err(AttachError::Geometry { what: "first plan", value: gate.plan_line(0).0.load(0) });
        }
        if (0..MAX_PEPPERS).all(|number| gate.pepper(number).is_none()) {
            return Err(AttachError::WrongPepper { given: gate.peppers.0.len() });
        }
        Ok(gate)
    }

    /// The memory that the gate lies in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    fn with(memory: M, header: &Header, prefix: Name, peppers: Peppers) -> Self {
        let records_at = index(u64::from(header.header_lines));
        let hints_at =
            (header.flags & HINTS_FLAG != 0).then(|| records_at + index(u64::from(header.capacity)));
        Self {
            memory,
            peppers,
            layout: header.layout,
            prefix,
            capacity: header.capacity,
            records_at,
            hints_at,
        }
    }

    /// Checks the key and then charges `cost` to every window of its plan, if all have room for it, else to none.
    ///
    /// `api_key` is the value of the `X-API-Key` header, `None` when there was none. Only a key that passed its check
    /// touches a tally.
    #[inline]
    pub fn check(&self, api_key: Option<&[u8]>, cost: u32, clock: impl Clock) -> Verdict {
        self.answer(api_key, cost, clock, |limits, word, now| {
            decide::check(&self.layout, limits, word, now, cost)
        })
    }

    /// Returns what [`check`](Self::check) would answer now, and charges nothing.
    pub fn peek(&self, api_key: Option<&[u8]>, cost: u32, clock: impl Clock) -> Verdict {
        self.answer(api_key, cost, clock, |limits, word, now| {
            decide::peek(&self.layout, limits, word, now, cost)
        })
    }

    /// Gives back what a check charged, in the windows that still count it. Refund a charge once.
    ///
    /// `None` when the gate has no such key.
    pub fn refund(&self, key_id: KeyId, charge: Charge, clock: impl Clock) -> Option<Verdict> {
        self.adjust(key_id, clock, |limits, word, now| {
            decide::refund(&self.layout, limits, word, now, charge)
        })
    }

    /// Replaces an estimate by the actual cost: refunds the difference, or charges it as far as there is room. What
    /// found no room is the verdict's [`uncharged`](Verdict::uncharged). Settle a charge once.
    ///
    /// `None` when the gate has no such key.
    pub fn settle(&self, key_id: KeyId, estimate: Charge, actual: u32, clock: impl Clock) -> Option<Verdict> {
        self.adjust(key_id, clock, |limits, word, now| {
            decide::settle(&self.layout, limits, word, now, estimate, actual)
        })
    }

    /// Forgets all counts of the key. `None` when the gate has no such key.
    pub fn reset(&self, key_id: KeyId, clock: impl Clock) -> Option<Verdict> {
        self.adjust(key_id, clock, |limits, word, now| decide::reset(&self.layout, limits, word, now))
    }

    /// Corrects every tally that is ahead of the clock by more than 60 s, counts kept. Returns how many.
    ///
    /// A system clock is read again after each tally was loaded. With an explicit time, which is older
    /// than the loads, a sweep that is stopped in between for more than 60 s admits up to one more
    /// window of each tally that was charged meanwhile: call it while no other thread charges.
    pub fn correct_clock(&self, clock: impl Clock) -> u64 {
        let corrected = self.places().filter(|place| cell::correct(place.tally(), &self.layout, clock));
        corrected.count() as u64
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn answer<C: Clock>(
        &self,
        api_key: Option<&[u8]>,
        cost: u32,
        clock: C,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        let now = clock.reading();
        let Some(text) = api_key else {
            return Verdict::refused(Outcome::MissingKey, None, now);
        };
        // Nearly always nobody comes in between: that is what stands here, without a loop.
        match &self.verify_key(text, now) {
            Ok((place, record)) => {
                stop(Stop::KeyVerified);
                let (limits, tally) = (self.limits(record.plan), place.tally());
                let word = tally.load(Ordering::Acquire);
                if place.unmoved(record) && self.layout.is_due::<C>(word, now) {
                    let decision = decide(&limits, word, now);
                    // Not a matter of `swap`: compiled so, the time of a wrong key told by some hundredths of a nanosecond
                    // whether its record is free.
                    if decision.next == word || cell::swap(tally, word, decision.next).is_ok() {
                        return Verdict::decided(&self.layout, &limits, decision, holder(record), now, cost);
                    }
                }
            }
            Err(Refusal { reason, holder }) => return Verdict::invalid(*reason, *holder, now),
        }
        self.answer_again(text, cost, clock, decide)
    }

    /// The same, as often as it takes.
    #[cold]
    #[inline(never)]
    fn answer_again(
        &self,
        text: &[u8],
        cost: u32,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Verdict {
        let mut now = clock.reading();
        loop {
            // The first reading may be old. The key may have expired since.
            now = clock.at_least(now);
            let verified = self.verify_key(text, now);
            let (place, record) = match &verified {
                Ok(verified) => verified,
                Err(Refusal { reason, holder }) => return Verdict::invalid(*reason, *holder, now),
            };
            // An administrator may have given the record to another key since: then the key is verified again.
            let limits = self.limits(record.plan);
            let decision = cell::update(place.tally(), &self.layout, &mut now, clock, |word, now| {
                place.unmoved(record).then(|| decide(&limits, word, now))
            });
            if let Some(decision) = decision {
                return Verdict::decided(&self.layout, &limits, decision, holder(record), now, cost);
            }
        }
    }

    /// The same for callers that hold a key id, from an earlier verdict or from `list`, and no secret.
    fn adjust(
        &self,
        key_id: KeyId,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Option<Verdict> {
        let mut now = clock.reading();
        loop {
            let (place, record) = self.find(key_id)?;
            let limits = self.limits(record.plan);
            let decision = cell::update(place.tally(), &self.layout, &mut now, clock, |word, now| {
                place.unmoved(&record).then(|| decide(&limits, word, now))
            });
            if let Some(decision) = decision {
                return Some(Verdict::decided(&self.layout, &limits, decision, holder(&record), now, 0));
            }
        }
    }

    /// The record of a key whose secret is right, that is neither revoked nor expired.
    ///
    /// Among keys of our form, with a right checksum, the work is the same whether the id exists and wherever the
    /// secret differs: one record, one HMAC under the record's pepper, both comparisons. (Two HMACs while a record
    /// is in the grace of a rotation that changed its pepper.)
    #[inline(never)]
    fn verify_key(&self, text: &[u8], now: Timestamp) -> Result<(Place<'_>, Record), Refusal> {
        let Some(key_id) = key::id_in(text) else {
            return self.verify_imported(text, Reason::Malformed, now);
        };
        let place = self.place(scale(key_id.number(), u64::from(self.capacity)));
        let record = place.read().ok_or(Refusal::of(Reason::Damaged))?;
        // A pepper that this process doesn't have is stood in for by one that it has, so that the work is the same.
        let pepper = |number: u8| match self.pepper(usize::from(number)) {
            Some(pepper) => (pepper, true),
            None => (self.peppers.newest(), false),
        };
        let (current, current_there) = pepper(record.pepper);
        let tag = current.mac(text).tag();
        let (previous_tag, previous_there) = if record.previous_pepper == record.pepper {
            (tag, current_there)
        } else {
            let (previous, previous_there) = pepper(record.previous_pepper);
            (previous.mac(text).tag(), previous_there)
        };
        let known = record.key_id == Some(key_id);
        // A choice, like the comparisons: a branch here would tell by its time whether the id exists.
        let [current, previous] = [
            tag.ct_eq(&record.tag) & Choice::from(u8::from(known & current_there)),
            previous_tag.ct_eq(&record.previous) & Choice::from(u8::from(known & previous_there)),
        ];
        match Match::of(current, previous) {
            Match::Current => self.admissible(place, record, false, now),
            Match::Previous => self.admissible(place, record, true, now),
            Match::None => {
                // The wrong answer is given; what is left is to tell the logs why.
                match key::validate(text) {
                    Ok(_) => Err(Refusal::of(wrong(known, current_there))),
                    Err(ParseKeyError::Form) => self.verify_imported(text, Reason::Malformed, now),
                    Err(ParseKeyError::Checksum) => self.verify_imported(text, Reason::Checksum, now),
                }
            }
        }
    }

    /// The same for a key of another form, under each pepper that is in use. All of them are tried, always.
    #[cold]
    fn verify_imported(
        &self,
        text: &[u8],
        otherwise: Reason,
        now: Timestamp,
    ) -> Result<(Place<'_>, Record), Refusal> {
        if self.memory.as_ref()[PEPPER_LINE].load(IMPORTS_WORD) == 0
            || !IMPORTED_KEY_LEN.contains(&text.len())
        {
            return Err(Refusal::of(otherwise));
        }
        match self.find_imported(text) {
            Some((place, record, previous)) => self.admissible(place, record, previous, now),
            // In a gate with imported keys any text may have been a key.
            None if otherwise == Reason::Malformed => Err(Refusal::of(Reason::Unknown)),
            None => Err(Refusal::of(otherwise)),
        }
    }

    /// The record of an imported key, and whether the text is its previous secret.
    fn find_imported(&self, text: &[u8]) -> Option<(Place<'_>, Record, bool)> {
        let mut found = None;
        for (number, pepper) in self.known_peppers() {
            let mac = pepper.mac(text);
            for place in self.import_places(&mac) {
                // The key id says which record it is; as it comes from the MAC of the whole key, it tells nothing
                // about any part of one.
                if place.key_id().is_none_or(|key_id| low(key_id.number()) != import_number(&mac)) {
                    continue;
                }
                let Some(record) = place.read() else { continue };
                let of = |number_there: u8| Choice::from(u8::from(usize::from(number_there) == number));
                let current = mac.tag().ct_eq(&record.tag) & of(record.pepper);
                let previous = mac.tag().ct_eq(&record.previous) & of(record.previous_pepper);
                match Match::of(current, previous) {
                    Match::Current => found = Some((place, record, false)),
                    Match::Previous => found = Some((place, record, true)),
                    Match::None => {}
                }
            }
        }
        found
    }

    /// What is left to ask once the secret was found right.
    #[inline]
    fn admissible<'m>(
        &self,
        place: Place<'m>,
        record: Record,
        previous: bool,
        now: Timestamp,
    ) -> Result<(Place<'m>, Record), Refusal> {
        let passed = |until_s: u32| now.unix_s() >= u64::from(until_s);
        let reason = if record.state == KeyState::Revoked {
            Reason::Revoked
        } else if (record.not_after != 0 && passed(record.not_after))
            || (previous && passed(record.grace_until))
        {
            Reason::Expired
        } else {
            return Ok((place, record));
        };
        Err(Refusal { reason, holder: holder(&record) })
    }

    /// The record of a key id, if the gate has it.
    fn find(&self, key_id: KeyId) -> Option<(Place<'_>, Record)> {
        let place = self.place(scale(key_id.number(), u64::from(self.capacity)));
        let record = place.read()?;
        (record.key_id == Some(key_id)).then_some((place, record))
    }

    #[inline]
    fn place(&self, number: u64) -> Place<'_> {
        let lines = self.memory.as_ref();
        Place {
            // A record's number is below the capacity, which is a u32.
            number: low(number),
            line: &lines[self.records_at + index(number)],
            intent: self.intent(),
        }
    }

    fn intent(&self) -> Intent<'_> {
        let lines = self.memory.as_ref();
        Intent { words: &lines[INTENT_LINE], owner: &lines[OWNER_LINE] }
    }

    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        (0..u64::from(self.capacity)).map(|number| self.place(number))
    }

    /// The records that an imported key may live in.
    fn import_places(&self, mac: &Mac) -> impl Iterator<Item = Place<'_>> {
        let [first, second] = self.import_groups(mac);
        // Where both words name one group, it is looked through once.
        let groups = core::iter::once(first).chain((second != first).then_some(second));
        groups.flat_map(|group| self.group_places(group))
    }

    fn import_groups(&self, mac: &Mac) -> [u64; 2] {
        let [_, _, first, second] = mac.words();
        let groups = u64::from(self.capacity.div_ceil(IMPORT_GROUP));
        [first, second].map(|word| scale(word, groups))
    }

    fn group_places(&self, group: u64) -> impl Iterator<Item = Place<'_>> {
        let from = group * u64::from(IMPORT_GROUP);
        let to = (from + u64::from(IMPORT_GROUP)).min(u64::from(self.capacity));
        (from..to).map(|number| self.place(number))
    }

    /// The pepper that records number so, if this process was given it.
    #[inline]
    fn pepper(&self, number: usize) -> Option<&Pepper> {
        self.peppers.of_fingerprint(self.memory.as_ref()[PEPPER_LINE].load(number))
    }

    fn known_peppers(&self) -> impl Iterator<Item = (usize, &Pepper)> {
        (0..MAX_PEPPERS).filter_map(|number| Some((number, self.pepper(number)?)))
    }

    /// The name of an environment, from a verdict's [`Holder`].
    pub fn env(&self, number: u8) -> Option<Name> {
        let line = self.memory.as_ref().get(ENV_LINE + usize::from(number) / LINE_WORDS)?;
        if usize::from(number) >= MAX_ENVS {
            return None;
        }
        Name::from_word(line.load(usize::from(number) % LINE_WORDS))
    }

    /// What every key of this gate begins with.
    pub fn prefix(&self) -> Name {
        self.prefix
    }

    /// The most keys.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The layout of the tallies: the windows that all plans share, and the algorithm.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Why a key of our form isn't the one of its record. It is looked up, not branched to: whether the id exists must make no
/// difference in time.
fn wrong(known: bool, pepper_there: bool) -> Reason {
    const REASONS: [Reason; 4] =
        [Reason::Unknown, Reason::Unknown, Reason::PepperMissing, Reason::WrongSecret];
    REASONS[2 * usize::from(known) + usize::from(pepper_there)]
}

fn holder(record: &Record) -> Option<Holder> {
    Some(Holder { key_id: record.key_id?, account: record.account, plan: record.plan, env: record.env })
}

/// The 32 bits of an imported key's MAC that its key id ends with.
fn import_number(mac: &Mac) -> u32 {
    low(mac.words()[2])
}

/// Which of a record's two secrets a key is.
enum Match {
    Current,
    Previous,
    None,
}

impl Match {
    /// The one place where the comparison's answer becomes something that code branches on: both tags have been
    /// compared whole, and that the key is right or wrong is what the client is told anyway.
    #[inline]
    fn of(current: Choice, previous: Choice) -> Self {
        match (bool::from(current), bool::from(previous)) {
            (true, _) => Self::Current,
            (false, true) => Self::Previous,
            (false, false) => Self::None,
        }
    }
}

struct Refusal {
    reason: Reason,
    holder: Option<Holder>,
}

impl Refusal {
    fn of(reason: Reason) -> Self {
        Self { reason, holder: None }
    }
}
