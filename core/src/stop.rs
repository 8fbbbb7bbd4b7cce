//! Stop points, for tests only: named places in every protocol at which a thread can be made to stop for ever, so that
//! a test sees what a process leaves to others that is killed just there.
//!
//! Without the feature `__stop-points`, which is off by default and which nothing that ships turns on, [`stop`] is empty
//! and nothing can be armed. Under a model checker a thread does at its stops what its test gave it to do.

macro_rules! stop_points {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// A place in a protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Stop {
            $($(#[$doc])+ $name,)+
        }

        impl Stop {
            /// Every place.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

stop_points! {
    /// Tally: the next word is decided and not yet exchanged for the present one.
    Decided,

    /// Gate: the key is verified, and its tally is not looked at yet.
    KeyVerified,

    /// Limiter: the claim of a bucket is taken.
    LimiterClaimed,
    /// Limiter: the marks of former holders of the claim are voided.
    LimiterVoided,
    /// Limiter: a slot is marked.
    LimiterMarked,
    /// Limiter: the claims are confirmed.
    LimiterConfirmed,
    /// Limiter: the slot has the new tag, and the mark is still there.
    LimiterTagged,
    /// Limiter: the first charge is made, and the claims are still held.
    LimiterCharged,

    /// Record: a word of the intent is written; visited for each.
    IntentWord,
    /// Record: the intent is published.
    IntentPublished,
    /// Record: its sequence is odd.
    RecordOdd,
    /// Record: a word of it is written; visited for each.
    RecordWord,
    /// Record: its sequence is even again.
    RecordEven,
    /// Record: its hint is kept, and the intent is still there.
    HintKept,
    /// Record: the intent is withdrawn.
    IntentWithdrawn,

    /// Plan: a word of the intent is written; visited for each.
    PlanIntentWord,
    /// Plan: the intent is published.
    PlanIntentPublished,
    /// Plan: a word of it is written; visited for each.
    PlanWord,
    /// Plan: it is written, and the intent is still there.
    PlanWritten,
    /// Plan: the intent is withdrawn.
    PlanIntentWithdrawn,

    /// Administrator: somebody administers, and has not looked yet what was left half-done.
    AdministratorEntered,
    /// Administrator: what was left half-done is completed.
    AdministratorRecovered,
    /// Administrator: the newest pepper has its number.
    PepperRegistered,
    /// Administrator: the environment has its number.
    EnvLearned,
    /// Administrator: the gate says that it has imported keys, and has not got this one yet.
    ImportsNoted,
    /// Administrator: the key that had the record before has ended.
    FormerEnded,
    /// Administrator: the record has an unused tally, and not its new key yet.
    TallyCleared,
    /// Administrator: all is done, and somebody still administers.
    AdministratorLeaving,

    /// Creation: the table is written and does not open yet.
    TableWritten,
    /// Creation: the table opens.
    TablePublished,

    /// File: an administrator has written its name as the holder, and has not taken the file's `flock`.
    HolderNamed,
    /// File: the administrators' lock is taken.
    LockTaken,
    /// File: a change is made and not flushed yet.
    ChangeMade,
    /// File: a change is flushed, and the lock is still held.
    ChangeFlushed,
    /// File: the `flock` is released, and the administrator is still named as the holder.
    LockReleased,
    /// New file: it is there, empty, under no name or under one of its own.
    FileMade,
    /// New file: its room on the disk is taken.
    FileRoomTaken,
    /// New file: the table is in it.
    FileWritten,
    /// New file: it is flushed, and has not got its name yet.
    FileSynced,
    /// New file: it has its name, and the folder is not flushed yet.
    FileNamed,
}

/// Stops here for ever if this visit of this place was armed.
#[cfg(not(any(feature = "__stop-points", loom, shuttle)))]
#[inline(always)]
pub const fn stop(_: Stop) {}

#[cfg(all(feature = "__stop-points", not(any(loom, shuttle))))]
pub use armed::{arm, stop, stopped, visits};

#[cfg(any(loom, shuttle))]
pub use modelled::{stop, with_stops};

#[cfg(all(feature = "__stop-points", not(any(loom, shuttle))))]
mod armed {
    use super::Stop;
    use crate::line::{high, join, low};
    use crate::sync::{AtomicU64, Ordering, pause};

    /// The number of the place (32) · the visit at which to stop (32; 0 = none).
    static ARMED: AtomicU64 = AtomicU64::new(0);
    static STOPPED: AtomicU64 = AtomicU64::new(0);
    static VISITS: [AtomicU64; Stop::ALL.len()] = [const { AtomicU64::new(0) }; Stop::ALL.len()];

    /// Stops here for ever if this visit of this place was armed.
    pub fn stop(place: Stop) {
        let visit = VISITS[place as usize].fetch_add(1, Ordering::AcqRel) + 1;
        let armed = ARMED.load(Ordering::Acquire);
        if high(armed) == place as u32 && u64::from(low(armed)) == visit {
            STOPPED.store(1, Ordering::Release);
            loop {
                pause();
            }
        }
    }

    /// Whichever thread of this process makes this visit of the place, counted from 1, stops there.
    pub fn arm(place: Stop, visit: u32) {
        ARMED.store(join(place as u32, visit), Ordering::Release);
    }

    /// Whether a thread has stopped.
    pub fn stopped() -> bool {
        STOPPED.load(Ordering::Acquire) == 1
    }

    /// How often this process has come to the place.
    pub fn visits(place: Stop) -> u64 {
        VISITS[place as usize].load(Ordering::Acquire)
    }
}

#[cfg(any(loom, shuttle))]
mod modelled {
    use alloc::rc::Rc;
    use core::cell::RefCell;

    #[cfg(loom)]
    use loom::thread_local;
    #[cfg(shuttle)]
    use shuttle::thread_local;

    use super::Stop;

    type AtStops = Rc<dyn Fn(Stop)>;

    thread_local! {
        static AT_STOPS: RefCell<Option<AtStops>> = RefCell::new(None);
    }

    /// Does here what this thread of the model was given to do.
    pub fn stop(place: Stop) {
        let at_stops = AT_STOPS.with(|slot| slot.borrow().clone());
        if let Some(at_stops) = at_stops {
            at_stops(place);
        }
    }

    /// Does `work`, and `at_stops` at every place that this thread comes to meanwhile.
    pub fn with_stops<T>(at_stops: impl Fn(Stop) + 'static, work: impl FnOnce() -> T) -> T {
        AT_STOPS.with(|slot| slot.replace(Some(Rc::new(at_stops))));
        let _last = Forget;
        work()
    }

    /// Makes the thread's stops mere names again, also when it unwinds.
    struct Forget;

    impl Drop for Forget {
        fn drop(&mut self) {
            AT_STOPS.with(|slot| slot.replace(None));
        }
    }
}
