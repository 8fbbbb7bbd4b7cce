//! The limiter: a table of tallies for any subject, with a fixed number of slots.
//!
//! ```text
//! header | bucket 0: 8 × { tag, tally } | bucket 1 | … | claim words, one per bucket
//! ```
//!
//! A subject has two buckets, from its keyed hash; it lives in the first unless that was rather full when it came. Its tag
//! is 48 bits of the hash and 16 bits that count how often the slot changed hands.
//!
//! # Hit
//! Find the tag, load the tally, load the tag again, compare-exchange the tally. A slot is only ever given to another
//! subject by first swapping its *expired* tally for a claim mark, and the new tally's stamp is at least one longest
//! window younger. So a compare-exchange that succeeds proves that the slot was still this subject's.
//!
//! # Insertion
//! All inserters of a subject take the claim of its first bucket; a mark is put into a bucket only under that
//! bucket's claim. A claim may be lost at any moment to somebody who waited [`CLAIM_SPINS`] turns for it, so nothing
//! depends on how fast its holder is or whether it still lives:
//!
//! 1. take the claim; turn every mark found in the bucket to void: their owners have lost the claim;
//! 2. look for the subject in both buckets; look for a slot that may be reused; load its tag, then its tally;
//! 3. swap the tally for a mark that holds the claim's token;
//! 4. *confirm* the claim by swapping it for itself; give up if it was lost;
//! 5. swap the tag that was loaded for the subject's, one change of hands later;
//! 6. swap the mark for the first tally: this is the charge; release the claim.
//!
//! Two inserters never put one subject in two slots: let Y take the claim from X. If X confirms after that, X
//! gives up. If X confirmed before, X's mark is older than Y's claim and Y's step 1 sees it, or sees what came of it.
//! Either Y voids the mark and X's step 6 fails, or X's step 6 came first and Y's step 2 finds the subject.
//!
//! A late step 5 of X does no harm: the tag it expects was loaded before its mark, and any insertion into that slot
//! since then has counted the tag up. A tag that X changes without reaching step 6 stands above a void tally, and a
//! void tally is nobody's, whatever its tag says.
//!
//! Both buckets' claims are needed, in the order of their numbers, when the second bucket holds a mark or has to take
//! the subject.

use siphasher::sip::SipHasher13;

use crate::cell;
use crate::decide::{self, Charge, Decision};
use crate::header::{AttachError, CreateError, Header, TableKind};
use crate::line::{LINE_WORDS, Line, high, index, join, low, scale};
use crate::policy::{Limits, Policy};
use crate::stop::{Stop, stop};
use crate::sync::{AtomicU64, MODELLED, Ordering, pause};
use crate::tally::{Layout, VOID};
use crate::time::{Clock, Timestamp};
use crate::verdict::Verdict;

/// Slots of a bucket: two cache lines.
pub const BUCKET_SLOTS: usize = 8;

/// The most subjects that a limiter can be made for.
pub const MAX_SUBJECTS: u32 = 1 << 30;

/// How many turns an inserter waits for a claim before it takes it over. A holder needs a fraction of them; one
/// that was killed or stopped never releases its claim, and one that is merely slow notices and begins again. One
/// turn while a model checker runs the code, so that it sees claims lost at every step.
pub const CLAIM_SPINS: u32 = if MODELLED { 1 } else { 1024 };

/// Lines of the header.
const HEADER_LINES: usize = 2;

const BUCKET_LINES: usize = 2;

/// Slots for every 2 subjects of capacity. With half as many again as subjects, about one new subject in a million
/// finds both of its buckets full before the table holds as many as it was made for.
const SLOTS_PER_2_SUBJECTS: u64 = 3;

/// So many slots of a subject's first bucket have to be taken before the second is preferred if it is emptier. Lower
/// fills the table more evenly, higher keeps more subjects where they are found first.
const SPILL: usize = 5;

/// A limiter over memory of the caller's: anything that is a slice of lines.
///
/// Every method takes `&self` and may be called from any number of threads, and from any number of processes that
/// map the same memory.
///
/// ```
/// use keytally_core::{Limiter, Line, Outcome, Policy, Timestamp};
/// static MEMORY: [Line; Limiter::<&[Line]>::lines(64)] = [const { Line::new() }; Limiter::<&[Line]>::lines(64)];
/// let policy: Policy = "2/minute".parse()?;
/// let limiter = Limiter::create(&MEMORY[..], &policy, 64, [7; 16])?;
/// let now = Timestamp::from_unix_s(1_700_000_000);
/// assert!(limiter.check(b"203.0.113.9", 1, now).is_admitted());
/// assert!(limiter.check(b"203.0.113.9", 1, now).is_admitted());
/// assert_eq!(limiter.check(b"203.0.113.9", 1, now).outcome(), Outcome::Denied);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Limiter<M> {
    memory: M,
    layout: Layout,
    limits: Limits,
    seed: [u64; 2],
    /// The first line of the buckets, and of the claims.
    buckets_at: usize,
    claims_at: usize,
    buckets: u64,
    capacity: u32,
}

/// A subject's hash, which a caller may keep instead of hashing again. It belongs to one table: another table has
/// another seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject(u64);

impl<M: AsRef<[Line]>> Limiter<M> {
    /// The lines that a limiter for `capacity` subjects takes; its bytes are 64 times that.
    pub const fn lines(capacity: u32) -> usize {
        lines_after(HEADER_LINES, capacity)
    }

    /// Returns the lines that a limiter for `capacity` subjects takes after a header of `header_lines`, counted with the
    /// header. A header has at least 2 lines.
    ///
    /// # Errors
    /// [`CreateError::Capacity`] if no limiter has this capacity.
    pub const fn validate(header_lines: usize, capacity: u32) -> Result<usize, CreateError> {
        if capacity == 0 || capacity > MAX_SUBJECTS {
            return Err(CreateError::Capacity { capacity, max: MAX_SUBJECTS });
        }
        let header_lines = if header_lines < HEADER_LINES { HEADER_LINES } else { header_lines };
        Ok(lines_after(header_lines, capacity))
    }

    /// Makes a table for `capacity` subjects, 1 to [`MAX_SUBJECTS`], out of memory that nobody uses. `seed` must be
    /// random: it keeps clients from choosing subjects that meet in one bucket.
    ///
    /// # Errors
    /// [`CreateError::Capacity`], and [`CreateError::Size`] when the memory isn't a header of whole lines and what
    /// [`lines`](Self::lines) says.
    pub fn create(memory: M, policy: &Policy, capacity: u32, seed: [u8; 16]) -> Result<Self, CreateError> {
        Self::create_after(memory, HEADER_LINES, policy, capacity, seed)
    }

    /// The same with a header of `header_lines`, at least 2; files have one page.
    ///
    /// # Errors
    /// Those of [`create`](Self::create).
    pub fn create_after(
        memory: M,
        header_lines: usize,
        policy: &Policy,
        capacity: u32,
        seed: [u8; 16],
    ) -> Result<Self, CreateError> {
        let needed = Self::validate(header_lines, capacity)?;
        let lines = memory.as_ref();
        if lines.len() != needed || header_lines < HEADER_LINES {
            return Err(CreateError::Size { lines: lines.len(), needed });
        }
        let header = Header {
            kind: TableKind::Limiter,
            capacity,
            header_lines: u32::try_from(header_lines).unwrap_or(u32::MAX),
            flags: 0,
            layout: *policy.layout(),
        };
        header.write(lines);
        let [low, high] = [0, 8].map(|at| u64::from_le_bytes(core::array::from_fn(|byte| seed[at + byte])));
        let limits = policy.limits();
        lines[1].store(0, low);
        lines[1].store(1, high);
        lines[1].store(2, join(limits.0[1], limits.0[0]));
        lines[1].store(3, join(limits.0[3], limits.0[2]));
        Header::publish(lines);
        Ok(Self::with(memory, &header))
    }

    /// Opens a table that exists.
    ///
    /// # Errors
    /// What [`AttachError`] lists: the memory is no limiter, or not one of this version, or has another size than it says.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let lines = memory.as_ref();
        let header = Header::read(lines, TableKind::Limiter)?;
        let valid = (1..=MAX_SUBJECTS).contains(&header.capacity)
            && (HEADER_LINES..=lines.len()).contains(&index(u64::from(header.header_lines)));
        let expected = valid.then(|| lines_after(index(u64::from(header.header_lines)), header.capacity));
        header.expect_lines(lines, expected)?;
        Ok(Self::with(memory, &header))
    }

    fn with(memory: M, header: &Header) -> Self {
        let line = &memory.as_ref()[1];
        let (first, second) = (line.load(2), line.load(3));
        let limits = Limits([low(first), high(first), low(second), high(second)]);
        let seed = [line.load(0), line.load(1)];
        let buckets_at = index(u64::from(header.header_lines));
        let buckets = buckets(header.capacity);
        Self {
            layout: header.layout,
            limits,
            seed,
            buckets_at,
            claims_at: buckets_at + index(buckets) * BUCKET_LINES,
            buckets,
            capacity: header.capacity,
            memory,
        }
    }

    /// The memory that the limiter lies in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The layout of the tallies: windows and algorithm.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The policy that the table was made with; `None` in a damaged one.
    pub fn policy(&self) -> Option<Policy> {
        self.layout.policy(self.limits)
    }

    /// How many subjects the table was made for.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The subject of these bytes: an address, a user, a route.
    #[inline]
    pub fn subject(&self, bytes: &[u8]) -> Subject {
        Subject(SipHasher13::new_with_keys(self.seed[0], self.seed[1]).hash(bytes))
    }

    /// Charges `cost` to every window of the subject if all have room for it, else to none.
    #[inline]
    pub fn check(&self, subject: &[u8], cost: u32, clock: impl Clock) -> Verdict {
        self.check_subject(self.subject(subject), cost, clock)
    }

    /// [`check`](Self::check) of a subject that was hashed before.
    #[inline]
    pub fn check_subject(&self, subject: Subject, cost: u32, clock: impl Clock) -> Verdict {
        self.decide(subject, cost, clock, true, |word, now| {
            decide::check(&self.layout, &self.limits, word, now, cost)
        })
    }

    /// Returns what [`check`](Self::check) would answer now, and charges nothing. Whether a new
    /// subject would find a free slot is not looked up.
    pub fn peek(&self, subject: &[u8], cost: u32, clock: impl Clock) -> Verdict {
        self.decide(self.subject(subject), cost, clock, false, |word, now| {
            decide::peek(&self.layout, &self.limits, word, now, cost)
        })
    }

    /// Gives back what a check charged, in the windows that still count it. Refund a charge once.
    pub fn refund(&self, subject: &[u8], charge: Charge, clock: impl Clock) -> Verdict {
        self.decide(self.subject(subject), 0, clock, false, |word, now| {
            decide::refund(&self.layout, &self.limits, word, now, charge)
        })
    }

    /// Replaces an estimate by the actual cost: refunds the difference, or charges it as far as there is room. What
    /// found no room is the verdict's [`uncharged`](Verdict::uncharged). Settle a charge once.
    pub fn settle(&self, subject: &[u8], estimate: Charge, actual: u32, clock: impl Clock) -> Verdict {
        self.decide(self.subject(subject), 0, clock, true, |word, now| {
            decide::settle(&self.layout, &self.limits, word, now, estimate, actual)
        })
    }

    /// Forgets all counts of the subject.
    pub fn reset(&self, subject: &[u8], clock: impl Clock) -> Verdict {
        self.decide(self.subject(subject), 0, clock, false, |word, now| {
            decide::reset(&self.layout, &self.limits, word, now)
        })
    }

    /// Corrects every tally that is ahead of the clock by more than 60 s, counts kept. Returns how many.
    ///
    /// A system clock is read again after each tally was loaded. With an explicit time, which is older
    /// than the loads, a sweep that is stopped in between for more than 60 s admits up to one more
    /// window of each tally that was charged meanwhile: call it while no other thread charges.
    pub fn correct_clock(&self, clock: impl Clock) -> u64 {
        let slots = (0..self.buckets).flat_map(|bucket| self.slots(bucket));
        slots.filter(|slot| cell::correct(slot.tally(), &self.layout, clock)).count() as u64
    }

    /// Returns how many subjects have a slot that cannot be reused at `now`. Reads the whole table.
    pub fn live_subjects(&self, now: Timestamp) -> u64 {
        let slots = (0..self.buckets).flat_map(|bucket| self.slots(bucket));
        let live = slots.filter(|slot| {
            let word = slot.tally().load(Ordering::Relaxed);
            !self.layout.is_claim_mark(word) && !self.layout.is_reusable(word, now)
        });
        live.count() as u64
    }

    /// Slots in the table: half as many again as its capacity.
    pub fn slots_total(&self) -> u64 {
        self.buckets * BUCKET_SLOTS as u64
    }

    /// Decides on the subject's tally; where it has none, on a void one, which is then inserted if `inserts` and if
    /// there is something to count.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn decide<C: Clock>(
        &self,
        subject: Subject,
        cost: u32,
        clock: C,
        inserts: bool,
        decide: impl Fn(u64, Timestamp) -> Decision,
    ) -> Verdict {
        let now = clock.reading();
        // Nearly always the subject has a slot and nobody comes in between: that is what stands here, without a loop.
        let mut found = None;
        if let Some(slot) = self.glance(subject)
            && let Some(seen) = self.see(subject, slot)
            && self.layout.is_due::<C>(seen.word, now)
        {
            let decision = decide(seen.word, now);
            let swapped = match decision.next {
                same if same == seen.word => Ok(()),
                next => cell::swap(slot.tally(), seen.word, next),
            };
            match swapped {
                Ok(()) => {
                    return Verdict::decided(&self.layout, &self.limits, decision, None, now, cost);
                }
                Err(present) => found = Some(Found { word: present, ..seen }),
            }
        }
        self.decide_again(subject, found, cost, clock, inserts, decide)
    }

    /// The slow path: another thread exchanged the tally, the subject has no slot, or its tally is
    /// ahead of the clock's reading.
    ///
    /// Lock-free: a turn is lost only to another thread's exchange that succeeded.
    #[cold]
    #[inline(never)]
    fn decide_again<'m>(
        &'m self,
        subject: Subject,
        mut found: Option<Found<'m>>,
        cost: u32,
        clock: impl Clock,
        inserts: bool,
        decide: impl Fn(u64, Timestamp) -> Decision,
    ) -> Verdict {
        let mut now = clock.reading();
        let decision = loop {
            // Retry on the value that the failed exchange returned; probing again loses the next race too.
            found = found.filter(|found| self.is_still(found)).or_else(|| self.find(subject));
            let word = found.as_ref().map_or(VOID, |found| found.word);
            if let Some(present) = &found
                && let Some(corrected) = decide::correction(&self.layout, word, &mut now, clock)
            {
                let word = cell::swap(present.slot.tally(), word, corrected).err().unwrap_or(corrected);
                found = found.map(|found| Found { word, ..found });
                continue;
            }
            let decision = decide(word, now);
            if decision.next == word {
                break decision;
            }
            found = match found {
                Some(found) => match cell::swap(found.slot.tally(), word, decision.next) {
                    Ok(()) => break decision,
                    Err(present) => Some(Found { word: present, ..found }),
                },
                None if !inserts => break decision,
                None => match self.insert(subject, decision.next, &mut now, clock) {
                    Insertion::Done { next } => break Decision { next, ..decision },
                    // The subject has a slot after all, or the claim was lost.
                    Insertion::Again => None,
                    Insertion::Full { until } => {
                        let until = Timestamp::from_unix_ms(self.layout.stamp_start_ms(until));
                        return Verdict::full(until, now);
                    }
                },
            };
        };
        Verdict::decided(&self.layout, &self.limits, decision, None, now, cost)
    }

    /// The first slot with the subject's tag, which is nearly always the slot that it has.
    ///
    /// One by one, with a branch for each: a processor that guesses the slot of a busy subject goes on before its hash is
    /// known. Comparing a line at once is 3 ns quicker for a random one of 1,000, and 5 ns slower for a busy one.
    #[inline(never)]
    fn glance(&self, subject: Subject) -> Option<Slot<'_>> {
        for bucket in self.buckets_of(subject) {
            for line in self.bucket(bucket) {
                for slot in line.words().as_chunks().0 {
                    if subject.owns(slot[0].load(Ordering::Acquire)) {
                        return Some(Slot(slot));
                    }
                }
            }
        }
        None
    }

    /// The slot that the subject has, if it has one.
    fn find(&self, subject: Subject) -> Option<Found<'_>> {
        let mut slots = self.buckets_of(subject).into_iter().flat_map(|bucket| self.slots(bucket));
        slots.find_map(|slot| self.see(subject, slot))
    }

    /// What a slot holds, if it is the subject's.
    #[inline]
    fn see<'m>(&self, subject: Subject, slot: Slot<'m>) -> Option<Found<'m>> {
        let tag = slot.tag().load(Ordering::Acquire);
        if !subject.owns(tag) {
            return None;
        }
        let found = Found { slot, tag, word: slot.tally().load(Ordering::Acquire) };
        self.is_still(&found).then_some(found)
    }

    /// Whether a word that was loaded from a slot after its tag is the subject's tally: it is if the tag is the same still.
    #[inline]
    fn is_still(&self, found: &Found<'_>) -> bool {
        self.is_live(found.word) && found.slot.tag().load(Ordering::Acquire) == found.tag
    }

    fn insert(&self, subject: Subject, first: u64, now: &mut Timestamp, clock: impl Clock) -> Insertion {
        let [one, two] = self.buckets_of(subject);
        match self.insert_under(subject, [one, one], first, now, clock) {
            Some(insertion) => insertion,
            // The second bucket has a say in it.
            None => self
                .insert_under(subject, [one.min(two), one.max(two)], first, now, clock)
                .unwrap_or(Insertion::Again),
        }
    }

    /// Inserts the subject while holding the claims of the buckets `held`, in this order. `None` when the claim of
    /// the second bucket is needed and not held.
    fn insert_under<C: Clock>(
        &self,
        subject: Subject,
        held: [u64; 2],
        first: u64,
        now: &mut Timestamp,
        clock: C,
    ) -> Option<Insertion> {
        let [one, two] = self.buckets_of(subject);
        let claims = [Some(self.claim(held[0])), (held[1] != held[0]).then(|| self.claim(held[1]))];
        let alone = claims[1].is_none() && two != one;
        let first_sight = self.look(one, subject, now, clock);
        let second_sight = self.look(two, subject, now, clock);
        if first_sight.present || second_sight.present {
            return Some(Insertion::Again);
        }
        // A slot that the subject had before was reused before the search, when its windows had
        // passed. An older reading, of a thread that was stopped since, could open one of them again.
        *now = clock.at_least(*now);
        // A decision on a void tally is the same at every time but for the stamp.
        let first =
            if C::IS_SYSTEM { self.layout.with_stamp(first, self.layout.stamp_at(*now)) } else { first };
        let spills = first_sight.taken >= SPILL && second_sight.taken < first_sight.taken;
        if alone && (spills || second_sight.marked) {
            return None;
        }
        let (bucket, slot) = match (first_sight.reusable, second_sight.reusable) {
            (Some(slot), None) => (one, slot),
            (Some(slot), _) if !spills => (one, slot),
            (_, Some(slot)) => (two, slot),
            // A mark is of an inserter that lost its claim: it goes, or the next claim voids it.
            (_, None) if first_sight.marked || second_sight.marked => return Some(Insertion::Again),
            (_, None) => {
                let until = self.reusable_from([one, two]);
                // A slot may have become reusable since the first reading.
                let full = !C::IS_SYSTEM || until > self.layout.stamp_at(*now);
                return Some(if full { Insertion::Full { until } } else { Insertion::Again });
            }
        };
        let claims = || claims.iter().flatten();
        let token = claims().find(|claim| claim.bucket == bucket).map_or(0, |claim| claim.word);
        Some(self.place(subject, slot, token, first, *now, || claims().all(Claim::confirm)))
    }

    /// Steps 3 to 6 of an insertion.
    fn place(
        &self,
        subject: Subject,
        slot: Slot<'_>,
        token: u64,
        first: u64,
        now: Timestamp,
        confirm: impl Fn() -> bool,
    ) -> Insertion {
        let tag = slot.tag().load(Ordering::Acquire);
        let expired = slot.tally().load(Ordering::Acquire);
        let mark = self.layout.claim_mark(token);
        if self.layout.is_claim_mark(expired)
            || !self.layout.is_reusable(expired, now)
            || !swap(slot.tally(), expired, mark)
        {
            return Insertion::Again;
        }
        stop(Stop::LimiterMarked);
        let confirmed = confirm();
        stop(Stop::LimiterConfirmed);
        if !confirmed || !swap(slot.tag(), tag, subject.tag_after(tag)) {
            swap(slot.tally(), mark, VOID);
            return Insertion::Again;
        }
        stop(Stop::LimiterTagged);
        let charged = swap(slot.tally(), mark, first);
        stop(Stop::LimiterCharged);
        if charged { Insertion::Done { next: first } } else { Insertion::Again }
    }

    /// Looks through a bucket for the subject and for a slot to put it in. The tally is loaded before the tag: a
    /// tally that is no mark, read after a claim was taken, is one whose slot no former holder can still change.
    fn look(&self, bucket: u64, subject: Subject, now: &mut Timestamp, clock: impl Clock) -> Sight<'_> {
        let mut sight = Sight { present: false, marked: false, taken: 0, reusable: None };
        for slot in self.slots(bucket) {
            let word = slot.tally().load(Ordering::Acquire);
            if word == VOID {
                sight.reusable = sight.reusable.or(Some(slot));
                continue;
            }
            if self.layout.is_claim_mark(word) {
                sight.marked = true;
                sight.taken += 1;
                continue;
            }
            if subject.owns(slot.tag().load(Ordering::Acquire)) {
                sight.present = true;
            }
            // Otherwise a tally that a wrong clock stamped would keep its slot until that time.
            let word = cell::corrected(slot.tally(), word, &self.layout, now, clock);
            if self.layout.is_reusable(word, *now) {
                sight.reusable = sight.reusable.or(Some(slot));
            } else {
                sight.taken += 1;
            }
        }
        sight
    }

    /// The first stamp at which a slot of these buckets can be reused.
    #[cold]
    fn reusable_from(&self, buckets: [u64; 2]) -> u64 {
        let words = buckets.into_iter().flat_map(|bucket| self.slots(bucket)).map(|slot| {
            let word = slot.tally().load(Ordering::Acquire);
            if self.layout.is_claim_mark(word) { u64::MAX } else { self.layout.reusable_from(word) }
        });
        words.min().unwrap_or(u64::MAX)
    }

    /// Takes the claim of a bucket, from its holder if need be, and voids the marks of former holders.
    fn claim(&self, bucket: u64) -> Claim<'_> {
        let at = index(bucket);
        let word = self.memory.as_ref()[self.claims_at + at / LINE_WORDS].word(at % LINE_WORDS);
        let mut turns = 0;
        let mut present = word.load(Ordering::Acquire);
        let claim = loop {
            if present & HELD != 0 && turns < CLAIM_SPINS {
                turns += 1;
                pause();
                present = word.load(Ordering::Acquire);
                continue;
            }
            // Each claim has a token of its own: the count of claims, in the bits above HELD.
            let taken = (present | HELD).wrapping_add(2);
            match word.compare_exchange(present, taken, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break Claim { word: taken, cell: word, bucket },
                Err(other) => present = other,
            }
        };
        stop(Stop::LimiterClaimed);
        for slot in self.slots(bucket) {
            let mark = slot.tally().load(Ordering::Acquire);
            if self.layout.is_claim_mark(mark) {
                swap(slot.tally(), mark, VOID);
            }
        }
        stop(Stop::LimiterVoided);
        claim
    }

    #[inline]
    fn is_live(&self, word: u64) -> bool {
        word != VOID && !self.layout.is_claim_mark(word)
    }

    /// The buckets of a subject: from the upper bits of the hash, and from the upper bits of it multiplied by an odd
    /// constant (2^64 divided by the golden ratio), which depend on its lower bits too.
    #[inline]
    fn buckets_of(&self, subject: Subject) -> [u64; 2] {
        [scale(subject.0, self.buckets), scale(subject.0.wrapping_mul(0x9E37_79B9_7F4A_7C15), self.buckets)]
    }

    #[inline]
    fn bucket(&self, bucket: u64) -> &[Line] {
        let first = self.buckets_at + index(bucket) * BUCKET_LINES;
        &self.memory.as_ref()[first..first + BUCKET_LINES]
    }

    #[inline]
    fn slots(&self, bucket: u64) -> impl Iterator<Item = Slot<'_>> {
        self.bucket(bucket).iter().flat_map(|line| line.words().as_chunks().0).map(Slot)
    }
}

const fn buckets(capacity: u32) -> u64 {
    (capacity as u64 * SLOTS_PER_2_SUBJECTS).div_ceil(2 * BUCKET_SLOTS as u64)
}

const fn lines_after(header_lines: usize, capacity: u32) -> usize {
    let buckets = index(buckets(capacity));
    header_lines.saturating_add(buckets * BUCKET_LINES).saturating_add(buckets.div_ceil(LINE_WORDS))
}

fn swap(cell: &AtomicU64, from: u64, to: u64) -> bool {
    cell.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

impl Subject {
    /// The part of a tag that is the hash; the 16 bits below it count changes of hands.
    #[inline]
    fn hash_bits(self) -> u64 {
        // 0 is a slot that nobody ever had.
        match self.0 << HANDS_BITS {
            0 => 1 << HANDS_BITS,
            bits => bits,
        }
    }

    #[inline]
    fn owns(self, tag: u64) -> bool {
        tag ^ self.hash_bits() <= HANDS
    }

    /// The subject's tag in a slot that had `tag`.
    fn tag_after(self, tag: u64) -> u64 {
        self.hash_bits() | (tag.wrapping_add(1) & HANDS)
    }
}

const HANDS_BITS: u32 = 16;
const HANDS: u64 = (1 << HANDS_BITS) - 1;

/// A slot: a tag and the tally of the subject that it names.
#[derive(Clone, Copy)]
struct Slot<'m>(&'m [AtomicU64; 2]);

impl<'m> Slot<'m> {
    #[inline]
    fn tag(self) -> &'m AtomicU64 {
        &self.0[0]
    }

    #[inline]
    fn tally(self) -> &'m AtomicU64 {
        &self.0[1]
    }
}

/// The slot of a subject, the tag that it was found by, and what was its tally.
struct Found<'m> {
    slot: Slot<'m>,
    tag: u64,
    word: u64,
}

/// What [`Limiter::look`] saw in a bucket.
struct Sight<'m> {
    present: bool,
    marked: bool,
    /// Slots that can't be reused.
    taken: usize,
    reusable: Option<Slot<'m>>,
}

enum Insertion {
    /// The subject has a slot, with this tally.
    Done {
        next: u64,
    },
    Again,
    /// No slot can be reused before this stamp.
    Full {
        until: u64,
    },
}

/// Set in a claim word that somebody holds.
const HELD: u64 = 1;

/// A bucket's claim, released when dropped unless it was lost before.
struct Claim<'m> {
    cell: &'m AtomicU64,
    word: u64,
    bucket: u64,
}

impl Claim<'_> {
    /// Whether the claim is still held: a swap, since only a read that also writes is sure to see the last write.
    fn confirm(&self) -> bool {
        swap(self.cell, self.word, self.word)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        swap(self.cell, self.word, self.word & !HELD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_hands_changes_the_tag() {
        let mut tag = 0;
        for hands in 1..=u16::MAX {
            let subject = Subject(u64::MAX << (hands % 48));
            tag = subject.tag_after(tag);
            assert!(subject.owns(tag));
            assert_eq!(tag & 0xFFFF, u64::from(hands));
        }
        assert_eq!(Subject(1).tag_after(tag), 1 << 16, "the count begins anew");
    }
}
