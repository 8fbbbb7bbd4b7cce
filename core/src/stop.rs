//! Stop points, for tests only: named steps of every protocol at which a test can stop a thread
//! permanently. The test then sees the state that a process killed at that step leaves to others.
//!
//! This module lists the steps of this crate. A crate above it lists its own with
//! [`stop_points`](crate::stop_points).
//!
//! Without the feature `__stop-points`, which is off in every build that ships, [`stop`] is empty
//! and no step can be armed. Under a model checker, a thread runs a closure of its test at each
//! step.

use core::fmt;

/// A step of a protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    number: usize,
    name: &'static str,
}

impl Stop {
    /// The most steps that all crates together can list.
    pub const MAX: usize = 64;

    /// A step with a number below [`MAX`](Self::MAX) that no other step has.
    pub const fn new(number: usize, name: &'static str) -> Self {
        assert!(number < Self::MAX, "there are more stop points than `Stop::MAX`");
        Self { number, name }
    }

    /// Returns the number of the step.
    pub const fn number(self) -> usize {
        self.number
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Lists steps as associated constants of a type, numbered from `$first`, and as its constant
/// `ALL`.
#[doc(hidden)]
#[macro_export]
macro_rules! stop_points {
    ($list:ident from $first:expr; $($(#[$doc:meta])+ $name:ident,)+) => {
        const _: () = {
            enum Position {
                $($name,)+
            }

            #[expect(non_upper_case_globals, reason = "they are named like variants of an enum")]
            impl $list {
                $(
                    $(#[$doc])+
                    pub const $name: $crate::stop::Stop = $crate::stop::Stop::new(
                        $first + Position::$name as usize,
                        stringify!($name),
                    );
                )+

                /// All steps of this list.
                pub const ALL: &[$crate::stop::Stop] = &[$(Self::$name),+];
            }
        };
    };
}

stop_points! {
    Stop from 0;

    /// Tally: the next word is decided, and the present one is not exchanged for it yet.
    Decided,

    /// Gate: the key is verified, and its tally is not loaded yet.
    KeyVerified,

    /// Limiter: a bucket is locked.
    BucketLocked,
    /// Limiter: the reservations of former holders of the lock are canceled.
    ReservationsCanceled,
    /// Limiter: a slot is reserved, and the locks are not confirmed yet.
    SlotReserved,
    /// Limiter: the inserter knows whether it still holds its locks.
    LocksChecked,
    /// Limiter: the slot has the new owner word, and is still reserved.
    OwnerWritten,
    /// Limiter: the first charge is made, or failed because the reservation was canceled. The locks
    /// are still held, unless they were taken over.
    FirstCharge,

    /// Record: a word of the redo record is written; visited for each.
    RedoWord,
    /// Record: the redo record is published.
    RedoPublished,
    /// Record: its sequence is odd, and its other words are still the old ones.
    RecordOdd,
    /// Record: a word of it is written; visited for each.
    RecordWord,
    /// Record: its sequence is even again.
    RecordEven,
    /// Record: its hint is kept, and the redo record is still there.
    HintKept,
    /// Record: the redo record is withdrawn.
    RedoWithdrawn,

    /// Plan: a word of the redo record is written; visited for each.
    PlanRedoWord,
    /// Plan: the redo record is published.
    PlanRedoPublished,
    /// Plan: a word of it is written; visited for each.
    PlanWord,
    /// Plan: it is written, and the redo record is still there.
    PlanWritten,
    /// Plan: the redo record is withdrawn.
    PlanRedoWithdrawn,

    /// Administrator: registered, before it completes what was left half-done.
    AdministratorEntered,
    /// Administrator: what was left half-done is completed.
    AdministratorRecovered,
    /// Administrator: the newest pepper has its number.
    PepperRegistered,
    /// Administrator: the environment has its number.
    EnvRegistered,
    /// Administrator: the header records that the gate has imported keys, and this one is not
    /// written yet.
    ImportsRecorded,
    /// Administrator: the key that had the record before has ended.
    PreviousKeyEnded,
    /// Administrator: the record has an unused tally, before its new key is written.
    TallyCleared,

    /// Gate, administrator: the team of a new key is made.
    TeamMade,
    /// Administrator: all is done, before it deregisters.
    AdministratorLeaving,

    /// Migration: the successor names the line whose tallies are moved next.
    LineBegun,
    /// Migration: a tally is stored in the successor's redo record, and is not sealed yet.
    TallyNoted,
    /// Migration: a tally is sealed.
    TallySealed,
    /// Migration: a tally of the successor has its counts.
    TallyMoved,

    /// Creation: the table is written and does not open yet.
    TableWritten,
    /// Creation: the table opens.
    TablePublished,
}

/// Stops here permanently if this visit of this step was armed.
#[cfg(not(any(feature = "__stop-points", loom, shuttle)))]
#[inline]
pub const fn stop(_: Stop) {}

#[cfg(all(feature = "__stop-points", not(any(loom, shuttle))))]
pub use armed::{arm, resume, stop, stopped, visits};

#[cfg(any(loom, shuttle))]
pub use modeled::{stop, with_stops};

#[cfg(all(feature = "__stop-points", not(any(loom, shuttle))))]
mod armed {
    use super::Stop;
    use crate::bits::{high, index, join, low};
    use crate::sync::{AtomicU64, Ordering, pause};

    /// The number of the step (32) · the visit at which to stop (32; 0 = none).
    static ARMED: AtomicU64 = AtomicU64::new(0);
    static STOPPED: AtomicU64 = AtomicU64::new(0);
    static VISITS: [AtomicU64; Stop::MAX] = [const { AtomicU64::new(0) }; Stop::MAX];

    /// Stops here until [`resume`] if this visit of this step was armed.
    pub fn stop(step: Stop) {
        let visit = VISITS[step.number()].fetch_add(1, Ordering::AcqRel) + 1;
        let armed = ARMED.load(Ordering::Acquire);
        if index(high(armed).into()) == step.number() && u64::from(low(armed)) == visit {
            STOPPED.store(1, Ordering::Release);
            while stopped() {
                pause();
            }
        }
    }

    /// Arms a visit of a step, counted from 1. The thread that makes this visit stops there.
    pub fn arm(step: Stop, visit: u32) {
        let number = u32::try_from(step.number()).unwrap_or(u32::MAX);
        ARMED.store(join(number, visit), Ordering::Release);
    }

    /// Returns whether a thread has stopped.
    pub fn stopped() -> bool {
        STOPPED.load(Ordering::Acquire) == 1
    }

    /// Lets the thread that has stopped continue. No step is armed then.
    pub fn resume() {
        ARMED.store(0, Ordering::Release);
        STOPPED.store(0, Ordering::Release);
    }

    /// Returns how often this process has visited the step.
    pub fn visits(step: Stop) -> u64 {
        VISITS[step.number()].load(Ordering::Acquire)
    }
}

#[cfg(any(loom, shuttle))]
mod modeled {
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

    /// Runs the closure of this thread's test.
    pub fn stop(step: Stop) {
        let at_stops = AT_STOPS.with(|slot| slot.borrow().clone());
        if let Some(at_stops) = at_stops {
            at_stops(step);
        }
    }

    /// Runs `work`, and `at_stops` at every step that this thread visits meanwhile.
    pub fn with_stops<T>(at_stops: impl Fn(Stop) + 'static, work: impl FnOnce() -> T) -> T {
        AT_STOPS.with(|slot| slot.replace(Some(Rc::new(at_stops))));
        let _last = Forget;
        work()
    }

    /// Removes the thread's closure, also when it unwinds.
    struct Forget;

    impl Drop for Forget {
        fn drop(&mut self) {
            AT_STOPS.with(|slot| slot.replace(None));
        }
    }
}
