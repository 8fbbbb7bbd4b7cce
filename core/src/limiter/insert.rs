//! Insertion: gives a slot to a new subject.
//!
//! An inserter locks the first bucket of its subject. A reservation is put into a bucket only under
//! that bucket's lock. After [`LOCK_SPINS`] spins of its wait loop, an inserter takes the lock
//! over, so progress never depends on the speed or the life of the holder:
//!
//! 1. *lock* the bucket; cancel every reservation found in it, i.e. exchange it for a tombstone:
//!    their inserters lost the lock;
//! 2. *search* both buckets for the subject and for a slot that can be reused; then load the chosen
//!    slot's owner word, and after it the tally;
//! 3. *reserve*: exchange the tally for a reservation that holds the lock's ticket;
//! 4. *confirm* the lock by exchanging its word for itself; give up if it was lost;
//! 5. *own*: exchange the owner word that was loaded for the subject's, one generation later;
//! 6. *charge*: exchange the reservation for the first tally; unlock.
//!
//! # States of a lock word
//! | bit 0 | bits 1 to 63 | meaning |
//! |---|---|---|
//! | 0 | ticket | unlocked; the ticket is that of the last holder |
//! | 1 | ticket | locked; each lock takes the next ticket, also one that is taken over |
//!
//! | transition | by | effect |
//! |---|---|---|
//! | (0, t) → (1, t + 1) | an inserter | locked |
//! | (1, t) → (1, t + 1) | an inserter that waited | taken over: the holder's steps 4 and unlock fail |
//! | (1, t) → (1, t) | the holder, step 4 | confirmed |
//! | (1, t) → (0, t) | the holder | unlocked |
//!
//! # Why a subject never gets two slots
//! Let Y take the lock over from X. If X confirms after that, X gives up. If X confirmed before,
//! X's reservation is older than Y's lock, so Y's step 1 sees the reservation or what became of it.
//! Either Y cancels it and X's step 6 fails, or X's step 6 came first and Y's step 2
//! finds the subject.
//!
//! A late step 5 of X is harmless. The owner word that it expects was loaded before its
//! reservation, and every insertion into that slot since then has counted the generation up. If X
//! changes an owner word and does not reach step 6, the slot's tally is a tombstone, and no subject
//! has that slot.
//!
//! Both buckets' locks are needed if the second bucket holds a reservation or takes the subject.
//! They are locked in the order of their numbers.

use super::slot::{Slot, Subject, TOMBSTONE};
use super::table::Limiter;
use crate::cache_line::CacheLine;
use crate::compare_exchange::{self, exchange};
use crate::stop::{Stop, stop};
use crate::sync::{AtomicU64, MODELED, Ordering, pause};
use crate::time::{Clock, Timestamp};

/// How many times an inserter spins for the lock of a bucket before it takes the lock over.
///
/// A spin is one pass of the wait loop: a pause and a load. A holder that keeps running unlocks
/// within a fraction of them. A holder that was killed never unlocks. One that is only slow notices
/// the loss and starts over. Under a model checker, it is one spin, so that locks are lost at every
/// step.
pub const LOCK_SPINS: u32 = if MODELED { 1 } else { 1024 };

/// How many slots of a subject's first bucket must be taken before an emptier second bucket is
/// preferred. A lower value fills the table more evenly. A higher value keeps more subjects in the
/// bucket that is searched first.
const SPILL: usize = 5;

impl<M: AsRef<[CacheLine]>> Limiter<M> {
    /// Inserts the subject with `first` as its tally.
    pub(super) fn insert(
        &self,
        subject: Subject,
        first: u64,
        now: &mut Timestamp,
        clock: impl Clock,
    ) -> Insertion {
        let [one, two] = self.buckets_of(subject);
        match self.insert_under(subject, [one, one], first, now, clock) {
            Some(insertion) => insertion,
            // The second bucket's lock is needed too.
            None => self
                .insert_under(subject, [one.min(two), one.max(two)], first, now, clock)
                .unwrap_or(Insertion::Again),
        }
    }

    /// Inserts the subject under the locks of the buckets `locked`, in this order. Returns `None`
    /// if the lock of the second bucket is needed as well.
    fn insert_under<C: Clock>(
        &self,
        subject: Subject,
        locked: [u64; 2],
        first: u64,
        now: &mut Timestamp,
        clock: C,
    ) -> Option<Insertion> {
        let [one, two] = self.buckets_of(subject);
        let locks =
            [Some(self.lock(locked[0])), (locked[1] != locked[0]).then(|| self.lock(locked[1]))];
        let alone = locks[1].is_none() && two != one;
        let [home, second_home] = self.homes_of(subject);
        let first_bucket = self.search(home, subject, now, clock);
        let second_bucket = self.search(second_home, subject, now, clock);
        if first_bucket.present || second_bucket.present {
            return Some(Insertion::Again);
        }
        // If the subject had a slot before, that slot was reused before this search, after its
        // windows had passed. The reading of a thread that was stopped since then could open one of
        // them again.
        *now = clock.at_least(*now);
        // A decision on an empty tally depends on the time in the stamp alone.
        let first = if C::IS_SYSTEM {
            self.layout.with_stamp(first, self.layout.stamp_at(*now))
        } else {
            first
        };
        let spills = first_bucket.taken >= SPILL && second_bucket.taken < first_bucket.taken;
        if alone && (spills || second_bucket.reserved) {
            return None;
        }
        let (bucket, slot) = match (first_bucket.reusable, second_bucket.reusable) {
            (Some(slot), None) => (one, slot),
            (Some(slot), _) if !spills => (one, slot),
            (_, Some(slot)) => (two, slot),
            // The reservation is of an inserter that lost its lock. That inserter or the next
            // holder of the lock cancels it.
            (_, None) if first_bucket.reserved || second_bucket.reserved => {
                return Some(Insertion::Again);
            }
            (_, None) => {
                let until = self.reusable_from([one, two]);
                // A slot may have become reusable since the first reading.
                let full = !C::IS_SYSTEM || until > *now;
                return Some(if full { Insertion::Full { until } } else { Insertion::Again });
            }
        };
        let locks = || locks.iter().flatten();
        let ticket = locks().find(|lock| lock.bucket == bucket).map_or(0, |lock| lock.word);
        Some(
            self.take_slot(subject, slot, ticket, first, *now, || locks().all(BucketLock::confirm)),
        )
    }

    /// Loads the owner word and the tally of `slot`, then does the steps 3 to 6 of an insertion.
    fn take_slot(
        &self,
        subject: Subject,
        slot: Slot<'_>,
        ticket: u64,
        first: u64,
        now: Timestamp,
        confirm: impl Fn() -> bool,
    ) -> Insertion {
        let owner = slot.owner().load(Ordering::Acquire);
        let expired = slot.tally().load(Ordering::Acquire);
        let reservation = self.layout.reservation(ticket);
        if self.layout.is_reservation(expired)
            || !self.layout.is_reusable(expired, now)
            || exchange(slot.tally(), expired, reservation).is_err()
        {
            return Insertion::Again;
        }
        stop(Stop::SlotReserved);
        let confirmed = confirm();
        stop(Stop::LocksChecked);
        if !confirmed || exchange(slot.owner(), owner, subject.owner_after(owner)).is_err() {
            // If it fails, another inserter canceled the reservation first.
            let _ = exchange(slot.tally(), reservation, TOMBSTONE);
            return Insertion::Again;
        }
        stop(Stop::OwnerWritten);
        let charged = exchange(slot.tally(), reservation, first).is_ok();
        stop(Stop::FirstCharge);
        if charged { Insertion::Done { next: first } } else { Insertion::Again }
    }

    /// Searches the bucket of the slot `home` for the subject, and for the slot that it prefers of
    /// those that it can take. The tally is loaded before the owner word: if a tally loaded under
    /// the lock is not a reservation, no former holder can change its slot any more.
    fn search(
        &self,
        home: u64,
        subject: Subject,
        now: &mut Timestamp,
        clock: impl Clock,
    ) -> Searched<'_> {
        let mut searched = Searched { present: false, reserved: false, taken: 0, reusable: None };
        for slot in self.slots_from(home) {
            let word = slot.tally().load(Ordering::Acquire);
            if word == TOMBSTONE {
                searched.reusable = searched.reusable.or(Some(slot));
                continue;
            }
            if self.layout.is_reservation(word) {
                searched.reserved = true;
                searched.taken += 1;
                continue;
            }
            if subject.is_named_by(slot.owner().load(Ordering::Acquire)) {
                searched.present = true;
            }
            // Without the correction, a tally that a wrong clock stamped would keep its slot until
            // that time.
            let word = compare_exchange::corrected(slot.tally(), word, &self.layout, now, clock);
            if self.layout.is_reusable(word, *now) {
                searched.reusable = searched.reusable.or(Some(slot));
            } else {
                searched.taken += 1;
            }
        }
        searched
    }

    /// Returns the first moment at which a slot of these buckets can be reused.
    #[cold]
    fn reusable_from(&self, buckets: [u64; 2]) -> Timestamp {
        let mut earliest = Timestamp::from_unix_ms(u64::MAX);
        for bucket in buckets {
            for slot in self.slots(bucket) {
                let word = slot.tally().load(Ordering::Acquire);
                if !self.layout.is_reservation(word) {
                    earliest = earliest.min(self.layout.reusable_from(word));
                }
            }
        }
        earliest
    }

    /// Locks a bucket, and cancels the reservations of former holders of the lock. If the bucket is
    /// still locked after [`LOCK_SPINS`] spins, takes the lock over.
    fn lock(&self, bucket: u64) -> BucketLock<'_> {
        let word = self.lock_word(bucket);
        let mut spins = 0;
        let mut present = word.load(Ordering::Acquire);
        let lock = loop {
            if present & LOCKED != 0 && spins < LOCK_SPINS {
                spins += 1;
                pause();
                present = word.load(Ordering::Acquire);
                continue;
            }
            // Each lock has its own ticket: the count of locks, in the bits above LOCKED.
            let taken = (present | LOCKED).wrapping_add(2);
            match exchange(word, present, taken) {
                Ok(()) => break BucketLock { word: taken, atomic: word, bucket },
                Err(other) => present = other,
            }
        };
        stop(Stop::BucketLocked);
        for slot in self.slots(bucket) {
            let word = slot.tally().load(Ordering::Acquire);
            if self.layout.is_reservation(word) {
                // If it fails, the inserter of the reservation charged or canceled it first.
                let _ = exchange(slot.tally(), word, TOMBSTONE);
            }
        }
        stop(Stop::ReservationsCanceled);
        lock
    }
}

/// The result of the search of a bucket.
struct Searched<'m> {
    present: bool,
    reserved: bool,
    /// How many slots cannot be reused.
    taken: usize,
    reusable: Option<Slot<'m>>,
}

/// The result of an insertion.
pub(super) enum Insertion {
    /// The subject has a slot with this tally.
    Done { next: u64 },
    /// The subject has a slot after all, or the lock was lost: decide again.
    Again,
    /// No slot can be reused before this time.
    Full { until: Timestamp },
}

/// Set in the lock word of a locked bucket.
const LOCKED: u64 = 1;

/// The lock of a bucket. Dropping it unlocks the bucket, unless another inserter took the lock
/// over.
struct BucketLock<'m> {
    atomic: &'m AtomicU64,
    word: u64,
    bucket: u64,
}

impl BucketLock<'_> {
    /// Returns whether the lock is still held. It is an exchange, since only a read-modify-write is
    /// guaranteed to read the latest value.
    fn confirm(&self) -> bool {
        exchange(self.atomic, self.word, self.word).is_ok()
    }
}

impl Drop for BucketLock<'_> {
    fn drop(&mut self) {
        let _ = exchange(self.atomic, self.word, self.word & !LOCKED);
    }
}
