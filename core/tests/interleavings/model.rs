//! Facade for the model checkers loom and shuttle, so that one scenario runs under both.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::Cell;
use core::panic::AssertUnwindSafe;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Mutex;

use keytally_core::stop::{Stop, with_stops};
use keytally_core::{Clock, Timestamp};

#[cfg(loom)]
pub(crate) use loom::thread;
#[cfg(shuttle)]
pub(crate) use shuttle::thread;

/// A system clock with the first reading `first` and the second reading `again`. A thread was
/// stopped between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stale {
    pub(crate) first: Timestamp,
    pub(crate) again: Timestamp,
}

impl Clock for Stale {
    const IS_SYSTEM: bool = true;

    fn reading(self) -> Timestamp {
        self.first
    }

    fn reread(self) -> Option<Timestamp> {
        Some(self.again)
    }
}

/// The bounds of a scenario's exploration, in the short form and in the full form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds([Option<usize>; 2]);

/// All interleavings with at most `short` preemptions; in the full form with `full`.
///
/// There is always a bound, since two inserters may take a lock over from each other without end.
/// If the bound is below three, shuttle explores the scenario with more preemptions.
#[cfg(loom)]
pub(crate) const fn preemptions(short: usize, full: usize) -> Bounds {
    Bounds([Some(short), Some(full)])
}

/// Explored only in the full form.
#[cfg(loom)]
pub(crate) const fn full_form_only(full: usize) -> Bounds {
    Bounds([None, Some(full)])
}

/// Random schedules for a scenario that loom explores too. The numbers of preemptions are loom's.
#[cfg(shuttle)]
pub(crate) const fn preemptions(_: usize, _: usize) -> Bounds {
    schedules(2_000, 500_000)
}

#[cfg(shuttle)]
pub(crate) const fn full_form_only(_: usize) -> Bounds {
    schedules(2_000, 500_000)
}

/// For scenarios that are too large for loom: this many random schedules.
#[cfg(shuttle)]
pub(crate) const fn schedules(short: usize, full: usize) -> Bounds {
    Bounds([Some(short), Some(full)])
}

/// Runs the scenario in every interleaving within the bounds, and prints how many that were.
pub(crate) fn explore(bounds: Bounds, scenario: impl Fn() + Send + Sync + 'static) {
    let Some(bound) = bounds.0[usize::from(is_full())] else {
        report(0, "interleavings, which are left to the full form");
        return;
    };
    let count = Arc::new(Mutex::new(0u64));
    let counted = Arc::clone(&count);
    let what = run(bound, move || {
        *counted.lock().unwrap() += 1;
        scenario();
    });
    report(*count.lock().unwrap(), &what);
}

#[cfg(loom)]
fn run(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) -> String {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    // The variable LOOM_MAX_PREEMPTIONS, which loom itself reads, has precedence.
    let bound = *builder.preemption_bound.get_or_insert(preemptions);
    builder.check(scenario);
    format!("interleavings with at most {bound} preemptions")
}

/// Half of the schedules choose a random thread at every step. The others follow a priority order
/// of the threads that changes at a few random steps (PCT, probabilistic concurrency testing). They
/// find errors that need few preemptions at certain steps.
#[cfg(shuttle)]
fn run(schedules: usize, scenario: impl Fn() + Send + Sync + 'static) -> String {
    let scenario = Arc::new(scenario);
    let half = schedules / 2;
    let random = Arc::clone(&scenario);
    shuttle::check_random(move || random(), half);
    shuttle::check_pct(move || scenario(), half, PCT_DEPTH);
    "random schedules".to_owned()
}

/// Changes of the threads' order in a PCT schedule.
#[cfg(shuttle)]
const PCT_DEPTH: usize = 4;

/// Returns whether the full form was requested.
fn is_full() -> bool {
    std::env::var_os("KEYTALLY_FULL").is_some()
}

/// Prints the line that `cargo xtask` adds up.
fn report(count: u64, what: &str) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("explored {count} {what}: {name}");
}

/// Starts a thread for each work, waits for all, and returns their results.
pub(crate) fn together<T: Send + 'static>(work: impl IntoIterator<Item = Work<T>>) -> Vec<T> {
    join(start(work))
}

/// Starts a thread for each work.
pub(crate) fn start<T: Send + 'static>(
    work: impl IntoIterator<Item = Work<T>>,
) -> Vec<thread::JoinHandle<T>> {
    work.into_iter().map(thread::spawn).collect()
}

/// Waits for all threads, and returns their results.
pub(crate) fn join<T>(threads: Vec<thread::JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// The work of a thread.
pub(crate) type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// Does `work` on this thread, and does `then` when `work` reaches the stop for the `visit`th
/// time, counted from 1. Returns the result of `work`, and whether it reached that visit.
///
/// The steps before the stop are not interleaved: threads that `then` starts run concurrently with
/// the rest of `work` only.
pub(crate) fn at_stop<T>(
    (stop, visit): (Stop, u32),
    then: impl FnOnce() + 'static,
    work: impl FnOnce() -> T,
) -> (T, bool) {
    let (visits, then) = (Rc::new(Cell::new(0)), Cell::new(Some(then)));
    let visited = Rc::clone(&visits);
    let result = with_stops(
        move |at| {
            if at == stop {
                visits.set(visits.get() + 1);
                if let Some(then) = (visits.get() == visit).then(|| then.take()).flatten() {
                    then();
                }
            }
        },
        work,
    );
    (result, visited.get() >= visit)
}

/// Does `work` up to a visit of the stop, as if the process were killed there. Then does `then`.
pub(crate) fn killed_at<T>(
    stop: (Stop, u32),
    work: impl FnOnce() -> T,
    then: impl FnOnce() + 'static,
) {
    struct Dead;
    let rest = move || {
        then();
        // A killed process would not unwind, and no test reads the memory afterwards.
        resume_unwind(Box::new(Dead));
    };
    match catch_unwind(AssertUnwindSafe(|| at_stop(stop, rest, work))) {
        Ok(_) => unreachable!("`work` ended before the stop"),
        Err(end) if end.is::<Dead>() => {}
        Err(failure) => resume_unwind(failure),
    }
}
