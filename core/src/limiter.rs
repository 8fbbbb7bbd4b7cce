//! The limiter: a table of tallies for any subject, with a fixed number of slots.
//!
//! ```text
//! header | bucket 0: 8 × { tag, tally } | bucket 1 | … | lock words, one per bucket
//! ```
//!
//! The table uses two-choice hashing with buckets: a keyed hash of the subject names two buckets,
//! and the subject has a slot in at most one of them. A new subject takes the first bucket, unless
//! that has `SPILL` slots taken and the second has fewer.
//!
//! A slot's tag is a 48-bit fingerprint of the subject's hash above a 16-bit generation, which
//! counts how often the slot was reassigned (an ABA counter).
//!
//! # States of a slot
//! | tally | tag | meaning |
//! |---|---|---|
//! | void (0) | any | no subject has the slot, whatever the tag says |
//! | reservation (the last stamp, and a lock ticket) | any | an inserter takes the slot, or lost its lock |
//! | live | a fingerprint | the subject with that fingerprint has the slot |
//! | expired (all windows passed by a minute) | a fingerprint | as live, but another subject may take the slot |
//!
//! # Hit
//! Find the tag, load the tally, load the tag again, compare-exchange the tally. A slot is
//! reassigned only by first exchanging its *expired* tally for a reservation, and the new tally's
//! stamp is at least one longest window younger. So a compare-exchange that succeeds proves that
//! the slot was still this subject's.
//!
//! The module [`insert`] holds the protocol that gives a slot to a new subject.

mod insert;

use siphasher::sip::SipHasher13;

pub use self::insert::CLAIM_SPINS;
use self::insert::Insertion;
use crate::bits::{high, index, join, low, scale};
use crate::charge::Charge;
use crate::compare_exchange;
use crate::decide::{self, Decision};
use crate::header::{AttachError, CreateError, Header, TableKind};
use crate::line::{LINE_WORDS, Line};
use crate::policy::Policy;
use crate::quota::Limits;
use crate::sync::{AtomicU64, Ordering};
use crate::tally::{Layout, VOID};
use crate::time::{Clock, Timestamp};
use crate::verdict::Verdict;

/// Slots of a bucket: two cache lines.
pub const BUCKET_SLOTS: usize = 8;

/// The most subjects that a limiter can be made for.
pub const MAX_SUBJECTS: u32 = 1 << 30;

/// Lines of the header.
const HEADER_LINES: usize = 2;

const BUCKET_LINES: usize = 2;

/// Slots for every 2 subjects of capacity. With 1.5 slots for each subject, about one new subject
/// in a million finds both of its buckets full before the table holds as many subjects as its
/// capacity.
const SLOTS_PER_2_SUBJECTS: u64 = 3;

/// A limiter in memory that the caller provides: anything that dereferences to a slice of lines.
///
/// Any number of threads, and of processes that map the same memory, may call its methods at once.
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
    /// The first line of the buckets, and of the lock words.
    buckets_at: usize,
    locks_at: usize,
    buckets: u64,
    capacity: u32,
}

/// A subject's hash, which a caller may keep instead of hashing again. It is valid for one table
/// only, since each table has its own seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject(u64);

impl<M: AsRef<[Line]>> Limiter<M> {
    /// Returns the lines that a limiter for `capacity` subjects takes, of 64 bytes each.
    pub const fn lines(capacity: u32) -> usize {
        lines_after(HEADER_LINES, capacity)
    }

    /// Returns the lines that a limiter for `capacity` subjects takes after a header of
    /// `header_lines`, counted with the header. A header has at least 2 lines.
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

    /// Creates a table for `capacity` subjects, 1 to [`MAX_SUBJECTS`], in memory that no other
    /// table uses. `seed` must be random: a client that knew it could choose subjects that collide
    /// in one bucket.
    ///
    /// # Errors
    /// [`CreateError::Capacity`]; [`CreateError::Size`] if the memory does not have
    /// [`lines`](Self::lines) lines.
    pub fn create(
        memory: M,
        policy: &Policy,
        capacity: u32,
        seed: [u8; 16],
    ) -> Result<Self, CreateError> {
        Self::create_after(memory, HEADER_LINES, policy, capacity, seed)
    }

    /// Creates a table after a header of `header_lines` lines, at least 2. In files a header has
    /// one page.
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
        let [low, high] =
            [0, 8].map(|at| u64::from_le_bytes(core::array::from_fn(|byte| seed[at + byte])));
        let limits = policy.limits();
        lines[1].store(0, low);
        lines[1].store(1, high);
        lines[1].store(2, join(limits.0[1], limits.0[0]));
        lines[1].store(3, join(limits.0[3], limits.0[2]));
        Header::publish(lines);
        Ok(Self::from_header(memory, &header))
    }

    /// Opens a table that was created before.
    ///
    /// # Errors
    /// [`AttachError`] if the memory does not hold a limiter of this format version and of the size
    /// that its header states.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let lines = memory.as_ref();
        let header = Header::read(lines, TableKind::Limiter)?;
        let valid = (1..=MAX_SUBJECTS).contains(&header.capacity)
            && (HEADER_LINES..=lines.len()).contains(&index(u64::from(header.header_lines)));
        let expected =
            valid.then(|| lines_after(index(u64::from(header.header_lines)), header.capacity));
        header.expect_lines(lines, expected)?;
        Ok(Self::from_header(memory, &header))
    }

    fn from_header(memory: M, header: &Header) -> Self {
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
            locks_at: buckets_at + index(buckets) * BUCKET_LINES,
            buckets,
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

    /// Returns the policy that the table was created with; `None` if its header is damaged.
    pub fn policy(&self) -> Option<Policy> {
        Policy::from_layout(&self.layout, self.limits)
    }

    /// Returns how many subjects the table was created for.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Hashes the bytes of a subject, such as an address, a user or a route.
    #[inline]
    pub fn subject(&self, bytes: &[u8]) -> Subject {
        Subject(SipHasher13::new_with_keys(self.seed[0], self.seed[1]).hash(bytes))
    }

    /// Charges `cost` to every window of the subject if all have room for it, else to none.
    #[inline]
    pub fn check(&self, subject: &[u8], cost: u32, clock: impl Clock) -> Verdict {
        self.check_subject(self.subject(subject), cost, clock)
    }

    /// Charges as [`check`](Self::check) does, for a subject that was hashed before.
    #[inline]
    pub fn check_subject(&self, subject: Subject, cost: u32, clock: impl Clock) -> Verdict {
        self.decide_on(subject, cost, clock, true, |word, now| {
            decide::check(&self.layout, &self.limits, word, now, cost)
        })
    }

    /// Returns the verdict that [`check`](Self::check) would give now, and charges nothing. Whether
    /// a new subject would find a free slot is not looked up.
    pub fn peek(&self, subject: &[u8], cost: u32, clock: impl Clock) -> Verdict {
        self.decide_on(self.subject(subject), cost, clock, false, |word, now| {
            decide::peek(&self.layout, &self.limits, word, now, cost)
        })
    }

    /// Returns the units of `charge` to the windows that still count them. Refund each charge once.
    pub fn refund(&self, subject: &[u8], charge: Charge, clock: impl Clock) -> Verdict {
        self.decide_on(self.subject(subject), 0, clock, false, |word, now| {
            decide::refund(&self.layout, &self.limits, word, now, charge)
        })
    }

    /// Replaces an estimate by the actual cost: refunds the difference, or charges it as far as
    /// there is room.
    ///
    /// The verdict's [`uncharged`](Verdict::uncharged) is the part that found no room. Settle each
    /// charge once.
    pub fn settle(
        &self,
        subject: &[u8],
        estimate: Charge,
        actual: u32,
        clock: impl Clock,
    ) -> Verdict {
        self.decide_on(self.subject(subject), 0, clock, true, |word, now| {
            decide::settle(&self.layout, &self.limits, word, now, estimate, actual)
        })
    }

    /// Sets all counts of the subject to 0.
    pub fn reset(&self, subject: &[u8], clock: impl Clock) -> Verdict {
        self.decide_on(self.subject(subject), 0, clock, false, |word, now| {
            decide::reset(&self.layout, &self.limits, word, now)
        })
    }

    /// Corrects every tally that is ahead of the clock by more than 60 s, counts kept. Returns how
    /// many.
    ///
    /// A system clock is read again after each tally was loaded. With an explicit time, which is
    /// older than the loads, a sweep that is stopped in between for more than 60 s admits up to one
    /// more window of each tally that was charged meanwhile: call it while no other thread charges.
    pub fn correct_clock(&self, clock: impl Clock) -> u64 {
        let slots = (0..self.buckets).flat_map(|bucket| self.slots(bucket));
        slots.filter(|slot| compare_exchange::correct(slot.tally(), &self.layout, clock)).count()
            as u64
    }

    /// Returns how many subjects have a slot that cannot be reused at `now`. Reads the whole table.
    pub fn live_subjects(&self, now: Timestamp) -> u64 {
        let slots = (0..self.buckets).flat_map(|bucket| self.slots(bucket));
        let live = slots.filter(|slot| {
            let word = slot.tally().load(Ordering::Relaxed);
            !self.layout.is_reservation(word) && !self.layout.is_reusable(word, now)
        });
        live.count() as u64
    }

    /// Returns the number of slots: about 1.5 times the capacity, in whole buckets.
    pub fn slots_total(&self) -> u64 {
        self.buckets * BUCKET_SLOTS as u64
    }

    /// Applies `decide` to the subject's tally, or to a void one if it has none. If `inserts` is
    /// set and there is something to count, a new subject gets a slot.
    #[cfg_attr(target_pointer_width = "64", inline(always))]
    fn decide_on<C: Clock>(
        &self,
        subject: Subject,
        cost: u32,
        clock: C,
        inserts: bool,
        decide: impl Fn(u64, Timestamp) -> Decision,
    ) -> Verdict {
        let now = clock.reading();
        // Fast path: a single attempt for a subject that has a slot. Contention and new subjects
        // fall through.
        let mut found = None;
        if let Some(slot) = self.probe_tags(subject)
            && let Some(seen) = self.probe_slot(subject, slot)
            && self.layout.is_due::<C>(seen.word, now)
        {
            let decision = decide(seen.word, now);
            let exchanged = match decision.next {
                same if same == seen.word => Ok(()),
                next => compare_exchange::exchange_decided(slot.tally(), seen.word, next),
            };
            match exchanged {
                Ok(()) => {
                    return Verdict::decided(&self.layout, &self.limits, decision, None, now, cost);
                }
                Err(present) => found = Some(Found { word: present, ..seen }),
            }
        }
        self.decide_slow(subject, found, cost, clock, inserts, decide)
    }

    /// The slow path: another thread exchanged the tally, the subject has no slot, or its tally is
    /// ahead of the clock's reading.
    ///
    /// Lock-free: a turn is lost only to another thread's exchange that succeeded.
    #[cold]
    #[inline(never)]
    fn decide_slow<'m>(
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
            // Retry on the value that the failed exchange returned; probing again loses the next
            // race too.
            found = found.filter(|found| self.is_unchanged(found)).or_else(|| self.probe(subject));
            let word = found.as_ref().map_or(VOID, |found| found.word);
            if let Some(present) = &found
                && let Some(corrected) = decide::correction(&self.layout, word, &mut now, clock)
            {
                let word =
                    compare_exchange::exchange_decided(present.slot.tally(), word, corrected)
                        .err()
                        .unwrap_or(corrected);
                found = found.map(|found| Found { word, ..found });
                continue;
            }
            let decision = decide(word, now);
            if decision.next == word {
                break decision;
            }
            found = match found {
                Some(found) => {
                    match compare_exchange::exchange_decided(
                        found.slot.tally(),
                        word,
                        decision.next,
                    ) {
                        Ok(()) => break decision,
                        Err(present) => Some(Found { word: present, ..found }),
                    }
                }
                None if !inserts => break decision,
                None => match self.insert(subject, decision.next, &mut now, clock) {
                    Insertion::Done { next } => break Decision { next, ..decision },
                    // The subject has a slot after all, or the lock was lost.
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

    /// Returns the first slot with the subject's fingerprint, which nearly always is the subject's.
    ///
    /// Compares tag by tag, with a branch for each, so that branch prediction can run ahead of the
    /// hash for a busy subject. Comparing a line at once was 3 ns faster for a random one of 1,000
    /// subjects, and 5 ns slower for a busy one (`cargo xtask bench`).
    #[inline(never)]
    fn probe_tags(&self, subject: Subject) -> Option<Slot<'_>> {
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

    /// Returns the subject's slot, if it has one.
    fn probe(&self, subject: Subject) -> Option<Found<'_>> {
        let mut slots = self.buckets_of(subject).into_iter().flat_map(|bucket| self.slots(bucket));
        slots.find_map(|slot| self.probe_slot(subject, slot))
    }

    /// Returns what a slot holds, if it is the subject's.
    #[inline]
    fn probe_slot<'m>(&self, subject: Subject, slot: Slot<'m>) -> Option<Found<'m>> {
        let tag = slot.tag().load(Ordering::Acquire);
        if !subject.owns(tag) {
            return None;
        }
        let found = Found { slot, tag, word: slot.tally().load(Ordering::Acquire) };
        self.is_unchanged(&found).then_some(found)
    }

    /// Returns whether a word that was loaded after the slot's tag is the subject's tally: the tag
    /// must be unchanged.
    #[inline]
    fn is_unchanged(&self, found: &Found<'_>) -> bool {
        self.is_live(found.word) && found.slot.tag().load(Ordering::Acquire) == found.tag
    }

    #[inline]
    fn is_live(&self, word: u64) -> bool {
        word != VOID && !self.layout.is_reservation(word)
    }

    /// Returns the buckets of a subject. The first comes from the upper bits of the hash. The
    /// second comes from the upper bits of its product with an odd constant (2^64 divided by the
    /// golden ratio), so it depends on the lower bits too.
    #[inline]
    fn buckets_of(&self, subject: Subject) -> [u64; 2] {
        [
            scale(subject.0, self.buckets),
            scale(subject.0.wrapping_mul(0x9E37_79B9_7F4A_7C15), self.buckets),
        ]
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

impl Subject {
    /// Returns the fingerprint at its position in a tag, above the generation.
    #[inline]
    fn fingerprint(self) -> u64 {
        // The tag 0 is of a slot that was never used.
        match self.0 << GENERATION_BITS {
            0 => 1 << GENERATION_BITS,
            bits => bits,
        }
    }

    #[inline]
    fn owns(self, tag: u64) -> bool {
        tag ^ self.fingerprint() <= GENERATION
    }

    /// Returns the subject's tag for a slot that has `tag`: the next generation.
    fn tag_after(self, tag: u64) -> u64 {
        self.fingerprint() | (tag.wrapping_add(1) & GENERATION)
    }
}

const GENERATION_BITS: u32 = 16;
const GENERATION: u64 = (1 << GENERATION_BITS) - 1;

/// A slot: a tag, and the tally of the subject with that fingerprint.
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

/// A subject's slot, the tag that was loaded from it, and the tally that was loaded after the tag.
struct Found<'m> {
    slot: Slot<'m>,
    tag: u64,
    word: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reassignment_changes_the_tag() {
        let mut tag = 0;
        for generation in 1..=u16::MAX {
            let subject = Subject(u64::MAX << (generation % 48));
            tag = subject.tag_after(tag);
            assert!(subject.owns(tag));
            assert_eq!(tag & 0xFFFF, u64::from(generation));
        }
        assert_eq!(Subject(1).tag_after(tag), 1 << 16, "the generation wraps");
    }
}
