//! The only door to the model checkers: a scenario doesn't know which of them runs it.

use alloc::sync::Arc;
use std::sync::Mutex;

use keytally::Line;

#[cfg(loom)]
pub(crate) use loom::thread;
#[cfg(shuttle)]
pub(crate) use shuttle::thread;

/// Memory that threads share, and that a scenario can look into afterwards.
pub(crate) type Memory = Arc<[Line]>;

/// Zeroed memory.
pub(crate) fn memory(lines: usize) -> Memory {
    (0..lines).map(|_| Line::new()).collect()
}

/// How far a scenario is explored: in the short form, and in the full one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Preemptions per interleaving.
    #[cfg(loom)]
    preemptions: [usize; 2],
    /// Random schedules.
    #[cfg(shuttle)]
    schedules: [usize; 2],
}

/// All interleavings with at most `short` preemptions; in the full form with `full`. Without a bound their number
/// has none either, since two inserters may take a claim from each other for ever: ten preemptions are out of reach.
#[cfg(loom)]
pub(crate) const fn preemptions(short: usize, full: usize) -> Bounds {
    Bounds { preemptions: [short, full] }
}

/// The same scenario on random schedules.
#[cfg(shuttle)]
pub(crate) const fn preemptions(_: usize, _: usize) -> Bounds {
    schedules(2_000, 200_000)
}

/// For scenarios that are too large for loom: so many random schedules.
#[cfg(shuttle)]
pub(crate) const fn schedules(short: usize, full: usize) -> Bounds {
    Bounds { schedules: [short, full] }
}

/// Runs the scenario in every interleaving within the bounds, and prints how many that were.
pub(crate) fn explore(bounds: Bounds, scenario: impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(Mutex::new(0u64));
    let counted = Arc::clone(&count);
    let what = run(bounds, usize::from(is_full()), move || {
        *counted.lock().unwrap() += 1;
        scenario();
    });
    report(*count.lock().unwrap(), &what);
}

#[cfg(loom)]
fn run(bounds: Bounds, form: usize, scenario: impl Fn() + Send + Sync + 'static) -> String {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    // LOOM_MAX_PREEMPTIONS, which loom reads itself, goes before.
    let bound = *builder.preemption_bound.get_or_insert(bounds.preemptions[form]);
    builder.check(scenario);
    format!("interleavings with at most {bound} preemptions")
}

/// Half of the schedules choose any thread at every step; the others keep to an order of the threads and change it
/// at a few random steps (PCT), which finds what needs few but well-placed preemptions.
#[cfg(shuttle)]
fn run(bounds: Bounds, form: usize, scenario: impl Fn() + Send + Sync + 'static) -> String {
    let scenario = Arc::new(scenario);
    let half = bounds.schedules[form] / 2;
    let random = Arc::clone(&scenario);
    shuttle::check_random(move || random(), half);
    shuttle::check_pct(move || scenario(), half, PCT_DEPTH);
    "random schedules".to_owned()
}

/// Changes of the threads' order in a PCT schedule.
#[cfg(shuttle)]
const PCT_DEPTH: usize = 4;

/// Whether the full form was asked for.
fn is_full() -> bool {
    std::env::var_os("KEYTALLY_TEST_FULL").is_some()
}

/// Prints the line that `cargo xtask` adds up.
fn report(count: u64, what: &str) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("explored {count} {what}: {name}");
}

/// Starts each of these on a thread of its own, and waits for all.
pub(crate) fn together<T: Send + 'static>(work: impl IntoIterator<Item = Work<T>>) -> Vec<T> {
    let threads: Vec<_> = work.into_iter().map(thread::spawn).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// What a thread does.
pub(crate) type Work<T> = Box<dyn FnOnce() -> T + Send>;
