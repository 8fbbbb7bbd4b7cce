//! The struct [`Limiter`]: its creation, its opening, and where in its memory the buckets are.

use core::fmt;

use super::on_full::OnFull;
use super::slot::{Slot, Subject};
use crate::bits::{halves, index, scale, to_words};
use crate::cache_line::{CACHE_LINE_WORDS, CacheLine};
use crate::decide::{self, Decision};
use crate::header::{AttachError, CreateError, Header, TableKind};
use crate::policy::Policy;
use crate::quota::{Algorithm, Limits, Quota};
use crate::siphash;
use crate::sync::{AtomicU64, Ordering};
use crate::tally::{Layout, PackedLimits};
use crate::time::Timestamp;

/// Slots of a bucket: two cache lines.
pub const BUCKET_SLOTS: usize = 8;

/// The most subjects that a limiter can be made for.
pub const MAX_SUBJECTS: u32 = 1 << 30;

/// Lines of the header: that of every table, the limits, and the words that change while the table
/// is in use.
pub(super) const HEADER_LINES: usize = 3;

/// The line of the seed in two words, the number of buckets, and the words below.
const LIMITS_LINE: usize = 1;
const BUCKETS: usize = 2;
/// The limits, in two words.
const LIMITS: usize = 3;
/// The packed limits, in two words.
const PACKED: usize = 5;
/// Whether requests need a reservation: 0 or 1.
const RESERVING: usize = 7;

/// The line with the words that change: how many requests found no slot, and the number of the
/// [`OnFull`]. Checks do not read it, so a flood does not delay them.
const CHANGING_LINE: usize = 2;

/// Buckets whose lock words and overflow tallies are in one line: a pair of words for each.
const PAIRS_PER_LINE: usize = CACHE_LINE_WORDS / 2;

/// Lines of a bucket.
pub(super) const BUCKET_LINES: usize = 2;

/// Slots of a cache line.
pub(super) const LINE_SLOTS: usize = BUCKET_SLOTS / BUCKET_LINES;

/// Slots for every 2 subjects of capacity. With 1.5 slots for each subject, about one new subject
/// in a million finds both of its buckets full before the table holds as many subjects as its
/// capacity.
const SLOTS_PER_2_SUBJECTS: u64 = 3;

/// A limiter in memory that the caller provides: anything that dereferences to a slice of lines.
///
/// Any number of threads, and of processes that map the same memory, may call its methods at once.
///
/// ```
/// use keytally_core::{Limiter, CacheLine, Outcome, Policy, Timestamp};
/// const LINES: usize = Limiter::<&[CacheLine]>::lines(64);
/// static MEMORY: [CacheLine; LINES] = [const { CacheLine::new() }; LINES];
/// let policy: Policy = "2/minute".parse()?;
/// let limiter = Limiter::init(&MEMORY[..], &policy, 64, [7; 16])?;
/// let now = Timestamp::from_unix_s(1_700_000_000);
/// assert!(limiter.check(b"203.0.113.9", 1, now).is_admitted());
/// assert!(limiter.check(b"203.0.113.9", 1, now).is_admitted());
/// assert_eq!(limiter.check(b"203.0.113.9", 1, now).outcome(), Outcome::Denied);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Limiter<M> {
    memory: M,
    pub(super) layout: Layout,
    /// The bit above each count, see [`PackedLimits`].
    pub(super) carries: u64,
    seed: [u64; 2],
    /// The first line of the buckets, and of their lock words and overflow tallies.
    buckets_at: usize,
    pairs_at: usize,
    /// The number of slots: that of the buckets times [`BUCKET_SLOTS`].
    slots: u64,
    capacity: u32,
}

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Returns the lines that a limiter for `capacity` subjects takes, of 64 bytes each.
    pub const fn lines(capacity: u32) -> usize {
        lines_after(HEADER_LINES, buckets_for(capacity))
    }

    /// Returns the lines that a limiter for `capacity` subjects takes, including a header of
    /// `header_lines`. A header has at least 3 lines.
    ///
    /// # Errors
    /// [`CreateError::Capacity`] if no limiter has this capacity.
    pub const fn validate(header_lines: usize, capacity: u32) -> Result<usize, CreateError> {
        if capacity == 0 || capacity > MAX_SUBJECTS {
            return Err(CreateError::Capacity { capacity, max: MAX_SUBJECTS });
        }
        let header_lines = if header_lines < HEADER_LINES { HEADER_LINES } else { header_lines };
        Ok(lines_after(header_lines, buckets_for(capacity)))
    }

    /// Creates a table for `capacity` subjects, 1 to [`MAX_SUBJECTS`], in memory that no other
    /// table uses. `seed` must be random: a client that knew it could choose subjects that collide
    /// in one bucket. A new table has [`OnFull::Share`].
    ///
    /// With the memory of a larger capacity, fewer subjects share a cache line, so threads that
    /// charge different subjects wait less for each other.
    ///
    /// # Errors
    /// [`CreateError::Capacity`]; [`CreateError::Size`] if the memory does not have the
    /// [`lines`](Self::lines) of this or a larger capacity.
    pub fn init(
        memory: M,
        policy: &Policy,
        capacity: u32,
        seed: [u8; 16],
    ) -> Result<Self, CreateError> {
        Self::init_after(memory, HEADER_LINES, policy, capacity, seed)
    }

    /// Creates a table after a header of `header_lines` lines, at least 3. In files a header has
    /// one page.
    ///
    /// # Errors
    /// Those of [`init`](Self::init).
    pub fn init_after(
        memory: M,
        header_lines: usize,
        policy: &Policy,
        capacity: u32,
        seed: [u8; 16],
    ) -> Result<Self, CreateError> {
        Self::create(
            memory,
            header_lines,
            TableKind::Limiter,
            (policy.layout(), policy.limits()),
            capacity,
            seed,
            |_| (),
        )
    }

    /// Creates a table of a kind, with a layout and limits. `write` writes the rest of the header.
    pub(super) fn create(
        memory: M,
        header_lines: usize,
        kind: TableKind,
        (layout, limits): (&Layout, Limits),
        capacity: u32,
        seed: [u8; 16],
        write: impl FnOnce(&[CacheLine]),
    ) -> Result<Self, CreateError> {
        let needed = Self::validate(header_lines, capacity)?;
        let lines = memory.as_ref();
        let buckets = buckets_in(lines.len().saturating_sub(header_lines));
        let fits = lines.len() >= needed && lines.len() == lines_after(header_lines, buckets);
        if !fits || header_lines < HEADER_LINES {
            return Err(CreateError::Size { lines: lines.len(), needed });
        }
        let header = Header {
            plan_slots: 0,
            kind,
            capacity,
            header_lines: u32::try_from(header_lines).unwrap_or(u32::MAX),
            flags: 0,
            layout: *layout,
        };
        header.write(lines);
        let [low, high] =
            [0, 8].map(|at| u64::from_le_bytes(core::array::from_fn(|byte| seed[at + byte])));
        for (word, value) in [low, high, buckets].into_iter().enumerate() {
            lines[LIMITS_LINE].store(word, value);
        }
        store_limits(&lines[LIMITS_LINE], layout, &limits);
        write(lines);
        Header::publish(lines);
        Ok(Self::from_header(memory, &header))
    }

    /// Opens a table that was created before.
    ///
    /// # Errors
    /// [`AttachError`] if the memory does not hold a limiter of this format version and of the size
    /// that its header states.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        Self::attach_kind(memory, TableKind::Limiter, HEADER_LINES)
    }

    /// Opens a table of this kind, whose header has at least `header_lines` lines.
    pub(super) fn attach_kind(
        memory: M,
        kind: TableKind,
        header_lines: usize,
    ) -> Result<Self, AttachError> {
        let lines = memory.as_ref();
        let header = Header::read(lines, kind)?;
        let buckets = lines.get(1).map_or(0, |line| line.load(BUCKETS));
        let valid = (1..=MAX_SUBJECTS).contains(&header.capacity)
            && (header_lines..=lines.len()).contains(&index(u64::from(header.header_lines)));
        let needed = valid.then(|| {
            let least = buckets_for(header.capacity);
            lines_after(index(u64::from(header.header_lines)), buckets.max(least))
        });
        header.expect_lines(lines, needed)?;
        let number = lines.get(CHANGING_LINE).map_or(0, |line| line.load(1));
        if OnFull::from_number(number).is_none() {
            return Err(AttachError::Geometry {
                what: "behavior of a full limiter",
                value: number,
            });
        }
        Ok(Self::from_header(memory, &header))
    }

    fn from_header(memory: M, header: &Header) -> Self {
        let line = &memory.as_ref()[LIMITS_LINE];
        let seed = [line.load(0), line.load(1)];
        let (layout, carries) = (&header.layout, PackedLimits::carries(header.layout.counts()));
        Rule { layout, line, carries }.pack();
        let buckets_at = index(u64::from(header.header_lines));
        let buckets = buckets_in(memory.as_ref().len().saturating_sub(buckets_at));
        Self {
            layout: header.layout,
            carries,
            seed,
            buckets_at,
            pairs_at: buckets_at + index(buckets) * BUCKET_LINES,
            slots: buckets * BUCKET_SLOTS as u64,
            capacity: header.capacity,
            memory,
        }
    }

    /// Returns the memory that the limiter is in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Returns the layout of the tallies: windows and algorithm.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the present policy; `None` if the header is damaged.
    pub fn policy(&self) -> Option<Policy> {
        Policy::from_layout(&self.layout, self.rule().limits())
    }

    /// Changes the limits to those of `policy`, and keeps all counts. Every program that has the
    /// table open uses them from its next check on. A check at the same time uses the old or the
    /// new limit of each window.
    ///
    /// ```
    /// use keytally_core::{CacheLine, Limiter, Policy, Timestamp};
    /// # let lines = Limiter::<&[CacheLine]>::lines(8);
    /// # let memory: Vec<_> = (0..lines).map(|_| CacheLine::new()).collect();
    /// let (two, three): (Policy, Policy) = ("2/minute".parse()?, "3/minute".parse()?);
    /// let limiter = Limiter::init(memory, &two, 8, [7; 16])?;
    /// let now = Timestamp::from_unix_s(1_700_000_000);
    /// assert!(limiter.check(b"203.0.113.9", 2, now).is_admitted());
    /// limiter.set_policy(&three)?;
    /// assert_eq!(limiter.peek(b"203.0.113.9", 1, now).remaining(), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SetPolicyError`] if the tallies of this table cannot count the policy. Nothing was
    /// changed.
    pub fn set_policy(&self, policy: &Policy) -> Result<(), SetPolicyError> {
        let layout = &self.layout;
        fits(layout, policy.algorithm(), policy.quotas())?;
        store_limits(&self.memory.as_ref()[LIMITS_LINE], layout, &policy.limits());
        Ok(())
    }

    /// Returns the rule by which all subjects of the table count.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn rule(&self) -> Rule<'_> {
        let line = &self.memory.as_ref()[LIMITS_LINE];
        Rule { layout: &self.layout, line, carries: self.carries }
    }

    /// Returns how many subjects the table was created for.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Returns a random number of this table, by which compound charges order tables.
    pub(crate) fn id(&self) -> u64 {
        self.seed[0]
    }

    /// Returns the number of a subject's first home slot, by which compound charges order the
    /// subjects of this table.
    pub(crate) fn home_of(&self, subject: Subject) -> u64 {
        let [home, _] = self.homes_of(subject);
        home
    }

    /// Hashes the bytes of a subject, such as an address, a user or a route.
    #[inline]
    pub fn subject(&self, bytes: &[u8]) -> Subject {
        Subject(siphash::hash(self.seed, bytes))
    }

    /// Hashes the numbers of a network.
    #[inline]
    pub(super) fn subject_of(&self, network: (u64, u16)) -> Subject {
        Subject(siphash::hash_ten_bytes(self.seed, network))
    }

    /// Returns how many subjects have a slot that cannot be reused at `now`. Reads the whole table.
    pub fn live_subjects(&self, now: Timestamp) -> u64 {
        let live = self.all_slots().filter(|slot| {
            let word = slot.tally().load(Ordering::Relaxed);
            !self.layout.is_reservation(word) && !self.layout.is_reusable(word, now)
        });
        live.count() as u64
    }

    /// Returns the number of slots, in whole buckets: at least 1.5 times the capacity.
    pub fn slots_total(&self) -> u64 {
        self.slots
    }

    /// Returns how many requests found no slot for their subject since the table was created. What
    /// became of them is the choice of [`on_full`](Self::on_full) at that time.
    ///
    /// A request is counted once, also if its subject was refused before. Peeks are not counted.
    ///
    /// ```
    /// # use keytally_core::{CacheLine, Limiter, OnFull, Policy, Timestamp};
    /// # let policy: Policy = "2/minute".parse()?;
    /// # let lines = Limiter::<&[CacheLine]>::lines(1);
    /// # let memory: Vec<_> = (0..lines).map(|_| CacheLine::new()).collect();
    /// # let limiter = Limiter::init(&memory[..], &policy, 1, [7; 16])?;
    /// let now = Timestamp::from_unix_s(1_700_000_000);
    /// // The table has eight slots.
    /// for subject in 0..10_u8 {
    ///     limiter.check(&[subject], 1, now);
    /// }
    /// assert_eq!((limiter.live_subjects(now), limiter.refusals()), (8, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refusals(&self) -> u64 {
        self.changing_word(0).load(Ordering::Relaxed)
    }

    /// Counts a request that found no slot.
    pub(super) fn count_refusal(&self) {
        self.changing_word(0).fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what happens to a new subject that finds both of its buckets full.
    pub fn on_full(&self) -> OnFull {
        // A number that another program stored meanwhile refuses.
        OnFull::from_number(self.changing_word(1).load(Ordering::Relaxed)).unwrap_or(OnFull::Refuse)
    }

    /// Sets what happens to a new subject that finds both of its buckets full. It applies to all
    /// processes that have the table open, from their next such request on.
    ///
    /// ```
    /// # use keytally_core::{CacheLine, Limiter, OnFull, Policy};
    /// # let policy: Policy = "2/minute".parse()?;
    /// # let lines = Limiter::<&[CacheLine]>::lines(8);
    /// # let memory: Vec<_> = (0..lines).map(|_| CacheLine::new()).collect();
    /// # let limiter = Limiter::init(&memory[..], &policy, 8, [7; 16])?;
    /// assert_eq!(limiter.on_full(), OnFull::Share);
    /// limiter.set_on_full(OnFull::Refuse);
    /// assert_eq!(limiter.on_full(), OnFull::Refuse);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_on_full(&self, on_full: OnFull) {
        self.changing_word(1).store(on_full.number(), Ordering::Relaxed);
    }

    /// Returns whether requests need a [reservation](crate::Reserve), in every process that uses
    /// the table: see [`reserving`](Self::reserving).
    #[inline]
    pub fn is_reserving(&self) -> bool {
        self.memory.as_ref()[LIMITS_LINE].load(RESERVING) != 0
    }

    /// Sets whether requests need a [reservation](crate::Reserve), for every process that uses the
    /// table. A program that makes none then refuses all requests, by
    /// [`NotReserving`](crate::NotReserving).
    pub fn set_reserving(&self, is_reserving: bool) {
        self.memory.as_ref()[LIMITS_LINE].store(RESERVING, is_reserving.into());
    }

    /// Returns a number of this table and its copies, from which the seed cannot be computed.
    pub fn fleet_id(&self) -> u64 {
        siphash::hash(self.seed, b"fleet of this table")
    }

    /// Returns a word of the header that changes while the table is in use.
    fn changing_word(&self, word: usize) -> &AtomicU64 {
        self.memory.as_ref()[CHANGING_LINE].word(word)
    }

    /// Returns the numbers of a subject's two home slots, one in each of its buckets. The first
    /// comes from the upper bits of the hash. The second comes from the upper bits of its product
    /// with an odd constant (2^64 divided by the golden ratio), so it depends on the lower bits
    /// too.
    #[inline]
    pub(super) fn homes_of(&self, subject: Subject) -> [u64; 2] {
        [subject.0, subject.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)]
            .map(|hash| scale(hash, self.slots))
    }

    /// Returns the buckets of a subject.
    #[inline]
    pub(super) fn buckets_of(&self, subject: Subject) -> [u64; 2] {
        self.homes_of(subject).map(|home| home / BUCKET_SLOTS as u64)
    }

    /// Returns the slots of the cache line that contains the slot `number`.
    #[inline]
    pub(super) fn line_of(&self, number: u64) -> [Slot<'_>; LINE_SLOTS] {
        slots(&self.memory.as_ref()[self.buckets_at + index(number) / LINE_SLOTS])
    }

    /// Returns the slots of the bucket of the slot `home`, in the order in which a new subject
    /// prefers them: the home slot, the others of its cache line, those of the other line.
    pub(super) fn slots_from(&self, home: u64) -> impl Iterator<Item = Slot<'_>> {
        let home = index(home);
        let line = |line: usize| {
            let lines = self.memory.as_ref();
            slots(&lines[self.buckets_at + ((home / LINE_SLOTS) ^ line)])
        };
        let lines = [line(0), line(1)];
        (0..BUCKET_SLOTS).map(move |step| lines[step / LINE_SLOTS][(home ^ step) % LINE_SLOTS])
    }

    #[inline]
    pub(super) fn slots(&self, bucket: u64) -> impl Iterator<Item = Slot<'_>> {
        let first = index(bucket) * BUCKET_SLOTS;
        (first..first + BUCKET_SLOTS).map(|number| {
            let line = &self.memory.as_ref()[self.buckets_at + number / LINE_SLOTS];
            Slot(&line.words().as_chunks().0[number % LINE_SLOTS])
        })
    }

    /// Returns the slot with a number; `None` if there is none.
    pub(super) fn slot(&self, number: u64) -> Option<Slot<'_>> {
        let number = usize::try_from(number).ok().filter(|_| number < self.slots)?;
        let line = self.memory.as_ref().get(self.buckets_at + number / LINE_SLOTS)?;
        Some(slots(line)[number % LINE_SLOTS])
    }

    /// Returns the number of a slot of this table.
    #[inline]
    pub(super) fn number_of(&self, slot: Slot<'_>) -> u64 {
        let first = core::ptr::from_ref(&self.memory.as_ref()[self.buckets_at]).addr();
        let bytes = core::ptr::from_ref(slot.0).addr() - first;
        (bytes / size_of::<[AtomicU64; 2]>()) as u64
    }

    pub(super) fn all_slots(&self) -> impl Iterator<Item = Slot<'_>> {
        (0..self.slots / BUCKET_SLOTS as u64).flat_map(|bucket| self.slots(bucket))
    }

    /// Returns the lock word of a bucket. The module `insert` defines its states.
    #[inline]
    pub(super) fn lock_word(&self, bucket: u64) -> &AtomicU64 {
        &self.pair(bucket)[0]
    }

    /// Returns the overflow tally of a bucket. The module `overflow` defines who is charged to it.
    pub(super) fn overflow_tally(&self, bucket: u64) -> &AtomicU64 {
        &self.pair(bucket)[1]
    }

    /// Returns the overflow tallies of all buckets.
    pub(super) fn overflow_tallies(&self) -> impl Iterator<Item = &AtomicU64> {
        (0..self.slots / BUCKET_SLOTS as u64).map(|bucket| self.overflow_tally(bucket))
    }

    /// Returns the lock word and the overflow tally of a bucket. They are in one line, because a
    /// request that is charged to the overflow tally has just taken the lock.
    #[inline]
    fn pair(&self, bucket: u64) -> &[AtomicU64; 2] {
        let bucket = index(bucket);
        let line = &self.memory.as_ref()[self.pairs_at + bucket / PAIRS_PER_LINE];
        &line.words().as_chunks().0[bucket % PAIRS_PER_LINE]
    }
}

/// Why a limiter cannot count a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetPolicyError {
    /// The policy has other windows, or another algorithm, than the limiter.
    Windows,
    /// The policy has other prefixes than the limiter of addresses.
    Prefixes,
    /// A limit is above what the limiter's tallies can count.
    Limit {
        /// The limit.
        limit: u32,
        /// The most that the window's count can hold.
        max: u32,
    },
}

impl fmt::Display for SetPolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Windows => {
                f.write_str("the windows and the algorithm must be those of the limiter")
            }
            Self::Prefixes => f.write_str("the prefixes must be those of the limiter"),
            Self::Limit { limit, max } => write!(
                f,
                "a limit of {limit} is more than this limiter's tallies can count in that window; the most is {max}"
            ),
        }
    }
}

impl core::error::Error for SetPolicyError {}

/// The windows and the present limits by which a subject counts. Each call loads the limits, which
/// [`Limiter::set_policy`] may change at any time.
#[derive(Clone, Copy)]
pub(super) struct Rule<'m> {
    pub(super) layout: &'m Layout,
    /// The line of the limits.
    pub(super) line: &'m CacheLine,
    pub(super) carries: u64,
}

impl<'m> Rule<'m> {
    /// Returns the decision of a check. All checks share its code.
    #[inline]
    pub(super) fn check(self, cost: u32) -> impl Fn(&Limits, u64, Timestamp) -> Decision + use<'m> {
        move |limits, word, now| decide::check(self.layout, limits, word, now, cost)
    }

    /// Returns the decision of a peek.
    #[inline]
    pub(super) fn peek(self, cost: u32) -> impl Fn(&Limits, u64, Timestamp) -> Decision + use<'m> {
        move |limits, word, now| decide::peek(self.layout, limits, word, now, cost)
    }

    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn limits(self) -> Limits {
        Limits(halves([self.line.load(LIMITS), self.line.load(LIMITS + 1)]))
    }

    /// Returns the limits in the form that the fast path compares.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    pub(super) fn packed(self) -> PackedLimits {
        PackedLimits::from_words([self.line.load(PACKED), self.line.load(PACKED + 1)], self.carries)
    }

    /// Corrects the packed limits. They differ if a change of the limits was killed, or in a
    /// damaged file.
    pub(super) fn pack(self) {
        pack_limits(self.line, self.layout, &self.limits());
    }
}

/// Writes limits into a line of the header. A concurrent check takes the old or the new limit of
/// each window. So does every check after a call that was killed, until the next call.
pub(super) fn store_limits(line: &CacheLine, layout: &Layout, limits: &Limits) {
    pack_limits(line, layout, limits);
    for (word, value) in to_words(limits.0).into_iter().enumerate() {
        line.store(LIMITS + word, value);
    }
}

/// Writes the packed form of limits into a line of the header.
fn pack_limits(line: &CacheLine, layout: &Layout, limits: &Limits) {
    for (word, value) in PackedLimits::words(layout.counts(), limits).into_iter().enumerate() {
        if line.load(PACKED + word) != value {
            line.store(PACKED + word, value);
        }
    }
}

/// Checks that tallies of a layout can count these quotas.
pub(super) fn fits(
    layout: &Layout,
    algorithm: Algorithm,
    quotas: &[Quota],
) -> Result<(), SetPolicyError> {
    let windows = quotas.iter().map(|quota| &quota.window);
    if !windows.eq(layout.windows()) || algorithm != layout.algorithm() {
        return Err(SetPolicyError::Windows);
    }
    for (index, &Quota { limit, .. }) in quotas.iter().enumerate() {
        let max = layout.max_limit(index).unwrap_or(0);
        if limit > max {
            return Err(SetPolicyError::Limit { limit, max });
        }
    }
    Ok(())
}

/// Returns the smallest number of buckets for `capacity` subjects.
const fn buckets_for(capacity: u32) -> u64 {
    (capacity as u64 * SLOTS_PER_2_SUBJECTS).div_ceil(2 * BUCKET_SLOTS as u64)
}

/// Returns the lines of a table: its header, its buckets, and their lock words and overflow
/// tallies.
const fn lines_after(header_lines: usize, buckets: u64) -> usize {
    let lines = buckets
        .saturating_mul(BUCKET_LINES as u64)
        .saturating_add(buckets.div_ceil(PAIRS_PER_LINE as u64));
    let lines = if lines > usize::MAX as u64 { usize::MAX } else { index(lines) };
    header_lines.saturating_add(lines)
}

/// Returns the largest number of buckets that fit in `lines` together with their lock words and
/// overflow tallies.
const fn buckets_in(lines: usize) -> u64 {
    // Four buckets take eight lines, and one line for their lock words and overflow tallies.
    const GROUP_LINES: u64 = (PAIRS_PER_LINE * BUCKET_LINES + 1) as u64;
    lines as u64 * PAIRS_PER_LINE as u64 / GROUP_LINES
}

/// Returns the slots of a cache line.
#[inline]
fn slots(line: &CacheLine) -> [Slot<'_>; LINE_SLOTS] {
    let slots = line.words().as_chunks().0;
    core::array::from_fn(|index| Slot(&slots[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_their_words_fill_the_memory() {
        for lines in 0..1000 {
            let buckets = buckets_in(lines);
            assert!(lines_after(0, buckets) <= lines && lines < lines_after(0, buckets + 1));
        }
        for capacity in (1..1000).chain([MAX_SUBJECTS]) {
            let buckets = buckets_for(capacity);
            assert_eq!(buckets_in(lines_after(0, buckets)), buckets);
        }
    }
}
