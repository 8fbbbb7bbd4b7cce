//! The gate: a table of issued keys with their tallies. Verify, then charge.
//!
//! ```text
//! header: shape | peppers, prefix | redo record | its owner | environments (2 lines) | plans …
//! records, one line per key | hints, 16 per line (where the gate keeps them)
//! ```
//!
//! A key id names its record: ids are minted so that `id × records / 2^64` is the record's number.
//! So a check reads one line whether or not the id exists, every record can be used, and ids need
//! no index. The module `import` holds the rule for keys of other forms.

mod administrator;
mod ids;
mod import;
mod inspect;
mod plan;

use subtle::{Choice, ConstantTimeEq};

pub use self::administrator::{AdminError, Administrator, Entropy, NewKey};
pub use self::import::{IMPORT_GROUP, IMPORTED_KEY_LEN};
pub use self::inspect::{Flaw, FlawKind, KeyInfo};
pub use self::plan::Plan;
use self::plan::common_layout;
use crate::bits::{index, low, scale};
use crate::charge::Charge;
use crate::compare_exchange;
use crate::decide::{self, Decision};
use crate::header::{AttachError, CreateError, Header, TableKind};
use crate::key::{self, KeyId, Name, ParseKeyError};
use crate::line::{LINE_LEN, LINE_WORDS, Line};
use crate::mac::{MAX_PEPPERS, Pepper, Peppers};
use crate::outcome::{Outcome, Reason};
use crate::quota::Limits;
use crate::record::{KeyState, Record, RecordRef, RedoRecord};
use crate::stop::{Stop, stop};
use crate::sync::Ordering;
use crate::tally::Layout;
use crate::time::{Clock, Timestamp};
use crate::verdict::{Holder, Verdict};

/// The most keys that a gate can be made for.
pub const MAX_KEYS: u32 = 1 << 26;

/// The most environments of a gate.
pub const MAX_ENVS: usize = 16;

/// The most plans of a gate whose header is one page, as in a file.
pub const MAX_PLANS: usize = (PAGE_LEN / LINE_LEN - FIXED_LINES) * PLANS_PER_LINE;

const PAGE_LEN: usize = 4096;

const _: () = assert!(MAX_PLANS == 116, "LIMITS.md and the header for C state this number");

/// The longest name of a plan, in bytes.
pub const MAX_PLAN_NAME_LEN: usize = 16;

/// Lines of the header before the plans.
const FIXED_LINES: usize = 6;

/// Plans in a line.
const PLANS_PER_LINE: usize = 2;

/// Positions of words in the header.
const PEPPER_LINE: usize = 1;
const PREFIX_WORD: usize = 4;
const IMPORTS_WORD: usize = 5;
const ADMINISTRATOR_WORD: usize = 6;
const REDO_LINE: usize = 2;
const OWNER_LINE: usize = 3;
const ENV_LINE: usize = 4;

/// Set in the header's flags when the gate keeps hints.
const HINTS_FLAG: u32 = 1;
const HINTS_PER_LINE: usize = 2 * LINE_WORDS;

/// The size and the plans of a gate to create.
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
    /// The prefix of every key.
    pub prefix: Name,
    /// The plans, of which the first is for keys that name none. All share their windows and
    /// algorithm.
    pub plans: &'a [Plan],
    /// How many plans the gate has room for: at least as many as `plans`, at most 256.
    pub plan_slots: usize,
    /// Whether to keep the last four characters of each key, so that `list` can show them. They
    /// take 4 bytes.
    pub hints: bool,
}

impl<'a> GateConfig<'a> {
    /// A gate for `keys` keys that begin with `prefix`, with room for `plans` and no more, and
    /// without hints.
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

    /// Returns the lines that the gate takes, of [`LINE_LEN`] bytes each. For a
    /// configuration that no gate has, use [`validate`](Self::validate).
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

/// Returns the lines of a header with room for `plan_slots` plans.
const fn header_lines(plan_slots: usize) -> usize {
    FIXED_LINES + plan_slots.div_ceil(PLANS_PER_LINE)
}

const fn lines(header_lines: usize, keys: u32, hints: bool) -> usize {
    let keys = index(keys as u64);
    header_lines + keys + if hints { keys.div_ceil(HINTS_PER_LINE) } else { 0 }
}

/// A gate in memory that the caller provides: anything that dereferences to a slice of lines.
///
/// Any number of threads, and of processes that map the same memory, may call its methods at once.
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
    /// Creates a gate in [`GateConfig::lines`] lines of memory that no other table uses.
    ///
    /// # Errors
    /// [`CreateError`] if no gate has this configuration, or if the memory has another size.
    pub fn create(
        memory: M,
        config: &GateConfig<'_>,
        peppers: Peppers,
    ) -> Result<Self, CreateError> {
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
        let gate = Self::from_header(memory, &header, config.prefix, peppers);
        for (number, plan) in config.plans.iter().enumerate() {
            gate.store_plan(number, plan.words());
        }
        Header::publish(gate.memory.as_ref());
        Ok(gate)
    }

    /// Opens a gate that was created before.
    ///
    /// # Errors
    /// [`AttachError`] if the memory does not hold a gate of this format version and of the size
    /// that its header states, or if none of the peppers is the gate's.
    pub fn attach(memory: M, peppers: Peppers) -> Result<Self, AttachError> {
        let lines = memory.as_ref();
        let header = Header::read(lines, TableKind::Gate)?;
        let header_lines = index(u64::from(header.header_lines));
        let valid = (1..=MAX_KEYS).contains(&header.capacity)
            && (FIXED_LINES + 1..=lines.len()).contains(&header_lines)
            && header.flags & !HINTS_FLAG == 0;
        let expected = valid
            .then(|| self::lines(header_lines, header.capacity, header.flags & HINTS_FLAG != 0));
        header.expect_lines(lines, expected)?;
        let prefix = lines[PEPPER_LINE].load(PREFIX_WORD);
        let prefix = Name::from_word(prefix)
            .ok_or(AttachError::Geometry { what: "prefix", value: prefix })?;
        let gate = Self::from_header(memory, &header, prefix, peppers);
        if !gate.has_first_plan() {
            return Err(AttachError::Geometry {
                what: "first plan",
                value: gate.plan_line(0).0.load(0),
            });
        }
        if (0..MAX_PEPPERS).all(|number| gate.pepper(number).is_none()) {
            return Err(AttachError::WrongPepper { given: gate.peppers.0.len() });
        }
        Ok(gate)
    }

    /// Returns the memory that the gate is in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    fn from_header(memory: M, header: &Header, prefix: Name, peppers: Peppers) -> Self {
        let records_at = index(u64::from(header.header_lines));
        let hints_at = (header.flags & HINTS_FLAG != 0)
            .then(|| records_at + index(u64::from(header.capacity)));
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

    /// Checks the key and then charges `cost` to every window of its plan, if all have room for it,
    /// else to none.
    ///
    /// `api_key` is the value of the `X-API-Key` header, `None` when there was none. Only a key
    /// that passed its check touches a tally.
    #[inline]
    pub fn check(&self, api_key: Option<&[u8]>, cost: u32, clock: impl Clock) -> Verdict {
        self.check_with(api_key, cost, clock, |limits, word, now| {
            decide::check(&self.layout, limits, word, now, cost)
        })
    }

    /// Returns what [`check`](Self::check) would answer now, and charges nothing.
    pub fn peek(&self, api_key: Option<&[u8]>, cost: u32, clock: impl Clock) -> Verdict {
        self.check_with(api_key, cost, clock, |limits, word, now| {
            decide::peek(&self.layout, limits, word, now, cost)
        })
    }

    /// Returns the units of `charge` to the windows that still count them. Refund each charge once.
    /// Returns `None` if the gate does not have the key.
    pub fn refund(&self, key_id: KeyId, charge: Charge, clock: impl Clock) -> Option<Verdict> {
        self.adjust(key_id, clock, |limits, word, now| {
            decide::refund(&self.layout, limits, word, now, charge)
        })
    }

    /// Replaces an estimate by the actual cost: refunds the difference, or charges it as far as
    /// there is room.
    ///
    /// The verdict's [`uncharged`](Verdict::uncharged) is the part that found no room. Settle each
    /// charge once. Returns `None` if the gate does not have the key.
    pub fn settle(
        &self,
        key_id: KeyId,
        estimate: Charge,
        actual: u32,
        clock: impl Clock,
    ) -> Option<Verdict> {
        self.adjust(key_id, clock, |limits, word, now| {
            decide::settle(&self.layout, limits, word, now, estimate, actual)
        })
    }

    /// Sets all counts of the key to 0. Returns `None` if the gate does not have the key.
    pub fn reset(&self, key_id: KeyId, clock: impl Clock) -> Option<Verdict> {
        self.adjust(key_id, clock, |limits, word, now| {
            decide::reset(&self.layout, limits, word, now)
        })
    }

    /// Corrects every tally that is ahead of the clock by more than 60 s, counts kept. Returns how
    /// many.
    ///
    /// A system clock is read again after each tally was loaded. With an explicit time, which is
    /// older than the loads, a sweep that is stopped in between for more than 60 s admits up to one
    /// more window of each tally that was charged meanwhile: call it while no other thread charges.
    pub fn correct_clock(&self, clock: impl Clock) -> u64 {
        let corrected =
            self.records().filter(|at| compare_exchange::correct(at.tally(), &self.layout, clock));
        corrected.count() as u64
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn check_with<C: Clock>(
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
        // Fast path: a single attempt. Contention falls through to `check_slow`.
        match &self.verify_key(text, now) {
            Ok((at, record)) => {
                stop(Stop::KeyVerified);
                let (limits, tally) = (self.limits(record.plan), at.tally());
                let word = tally.load(Ordering::Acquire);
                if at.is_unchanged(record) && self.layout.is_due::<C>(word, now) {
                    let decision = decide(&limits, word, now);
                    // Keep this comparison out of `exchange_decided`: with it there, code
                    // generation leaked through timing whether an unknown key's record is free
                    // (`cargo xtask test timing`).
                    if decision.next == word
                        || compare_exchange::exchange_decided(tally, word, decision.next).is_ok()
                    {
                        return Verdict::decided(
                            &self.layout,
                            &limits,
                            decision,
                            holder(record),
                            now,
                            cost,
                        );
                    }
                }
            }
            Err(Refusal { reason, holder }) => return Verdict::invalid(*reason, *holder, now),
        }
        self.check_slow(text, cost, clock, decide)
    }

    /// The slow path of a check: retries until the exchange succeeds or the key is invalid.
    #[cold]
    #[inline(never)]
    fn check_slow(
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
            let (at, record) = match &verified {
                Ok(verified) => verified,
                Err(Refusal { reason, holder }) => return Verdict::invalid(*reason, *holder, now),
            };
            // If an administrator reassigned the record since, the key is verified again.
            let limits = self.limits(record.plan);
            let decision =
                compare_exchange::update(at.tally(), &self.layout, &mut now, clock, |word, now| {
                    at.is_unchanged(record).then(|| decide(&limits, word, now))
                });
            if let Some(decision) = decision {
                return Verdict::decided(
                    &self.layout,
                    &limits,
                    decision,
                    holder(record),
                    now,
                    cost,
                );
            }
        }
    }

    /// Applies `decide` to the tally of a key id, for callers that do not have the secret.
    fn adjust(
        &self,
        key_id: KeyId,
        clock: impl Clock,
        decide: impl Fn(&Limits, u64, Timestamp) -> Decision,
    ) -> Option<Verdict> {
        let mut now = clock.reading();
        loop {
            let (at, record) = self.find(key_id)?;
            let limits = self.limits(record.plan);
            let decision =
                compare_exchange::update(at.tally(), &self.layout, &mut now, clock, |word, now| {
                    at.is_unchanged(&record).then(|| decide(&limits, word, now))
                });
            if let Some(decision) = decision {
                return Some(Verdict::decided(
                    &self.layout,
                    &limits,
                    decision,
                    holder(&record),
                    now,
                    0,
                ));
            }
        }
    }

    /// Returns the record of a key whose secret is right and that is neither revoked nor expired.
    ///
    /// For keys of Keytally's form with a right checksum, the work does not depend on whether the
    /// id exists or where the secret differs: one record, one HMAC under the record's pepper, both
    /// comparisons. While a record is in the grace of a rotation that changed its pepper, it is two
    /// HMACs.
    #[inline(never)]
    fn verify_key(&self, text: &[u8], now: Timestamp) -> Result<(RecordRef<'_>, Record), Refusal> {
        let Some(key_id) = key::id_in(text) else {
            return self.verify_imported(text, Reason::Malformed, now);
        };
        let at = self.record(scale(key_id.number(), u64::from(self.capacity)));
        let record = at.read().ok_or(Refusal::new(Reason::Damaged))?;
        // The newest pepper replaces one that this process does not have, so that the work is the
        // same.
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
        // A `Choice`, like the comparisons: the time of a branch would reveal whether the id
        // exists.
        let [current, previous] = [
            tag.ct_eq(&record.tag) & Choice::from(u8::from(known & current_there)),
            previous_tag.ct_eq(&record.previous) & Choice::from(u8::from(known & previous_there)),
        ];
        match Match::new(current, previous) {
            Match::Current => self.admissible(at, record, false, now),
            Match::Previous => self.admissible(at, record, true, now),
            Match::None => {
                // The key is rejected. From here on the time may depend on the reason, which only
                // logs show.
                match key::validate(text) {
                    Ok(_) => Err(Refusal::new(wrong(known, current_there))),
                    Err(ParseKeyError::Form) => self.verify_imported(text, Reason::Malformed, now),
                    Err(ParseKeyError::Checksum) => {
                        self.verify_imported(text, Reason::Checksum, now)
                    }
                }
            }
        }
    }

    /// Checks whether a key whose secret is right is revoked or expired.
    #[inline]
    fn admissible<'m>(
        &self,
        at: RecordRef<'m>,
        record: Record,
        previous: bool,
        now: Timestamp,
    ) -> Result<(RecordRef<'m>, Record), Refusal> {
        let passed = |until_s: u32| now.unix_s() >= u64::from(until_s);
        let reason = if record.state == KeyState::Revoked {
            Reason::Revoked
        } else if (record.not_after != 0 && passed(record.not_after))
            || (previous && passed(record.grace_until))
        {
            Reason::Expired
        } else {
            return Ok((at, record));
        };
        Err(Refusal { reason, holder: holder(&record) })
    }

    /// Returns the record of a key id, if the gate has the key.
    fn find(&self, key_id: KeyId) -> Option<(RecordRef<'_>, Record)> {
        let at = self.record(scale(key_id.number(), u64::from(self.capacity)));
        let record = at.read()?;
        (record.key_id == Some(key_id)).then_some((at, record))
    }

    #[inline]
    fn record(&self, number: u64) -> RecordRef<'_> {
        let lines = self.memory.as_ref();
        RecordRef {
            // A record's number is below the capacity, which is a u32.
            number: low(number),
            line: &lines[self.records_at + index(number)],
            redo: self.redo(),
        }
    }

    fn redo(&self) -> RedoRecord<'_> {
        let lines = self.memory.as_ref();
        RedoRecord { words: &lines[REDO_LINE], owner: &lines[OWNER_LINE] }
    }

    fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        (0..u64::from(self.capacity)).map(|number| self.record(number))
    }

    /// Returns the pepper with this number in records, if this process has it.
    #[inline]
    fn pepper(&self, number: usize) -> Option<&Pepper> {
        self.peppers.by_fingerprint(self.memory.as_ref()[PEPPER_LINE].load(number))
    }

    fn known_peppers(&self) -> impl Iterator<Item = (usize, &Pepper)> {
        (0..MAX_PEPPERS).filter_map(|number| Some((number, self.pepper(number)?)))
    }

    /// Returns the name of an environment, by its number in a [`Holder`].
    pub fn env(&self, number: u8) -> Option<Name> {
        let line = self.memory.as_ref().get(ENV_LINE + usize::from(number) / LINE_WORDS)?;
        if usize::from(number) >= MAX_ENVS {
            return None;
        }
        Name::from_word(line.load(usize::from(number) % LINE_WORDS))
    }

    /// Returns the prefix of every key of this gate.
    pub fn prefix(&self) -> Name {
        self.prefix
    }

    /// Returns the most keys that the gate can hold.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Returns the layout of the tallies: the windows that all plans share, and the algorithm.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Returns why a key of Keytally's form does not match its record. It is a table lookup, not a
/// branch, so that the time does not depend on whether the id exists.
fn wrong(known: bool, pepper_there: bool) -> Reason {
    const REASONS: [Reason; 4] =
        [Reason::Unknown, Reason::Unknown, Reason::PepperMissing, Reason::WrongSecret];
    REASONS[2 * usize::from(known) + usize::from(pepper_there)]
}

fn holder(record: &Record) -> Option<Holder> {
    Some(Holder {
        key_id: record.key_id?,
        account: record.account,
        plan: record.plan,
        env: record.env,
    })
}

/// Which of a record's two secrets a key has.
enum Match {
    Current,
    Previous,
    None,
}

impl Match {
    /// Declassifies the result of the comparisons. Nothing else branches on it: both tags have been
    /// compared entirely, and the response reveals whether the key is right.
    #[inline]
    fn new(current: Choice, previous: Choice) -> Self {
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
    fn new(reason: Reason) -> Self {
        Self { reason, holder: None }
    }
}
