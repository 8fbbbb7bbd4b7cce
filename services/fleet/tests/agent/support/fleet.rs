//! Machines in memory, each with its agent in a thread.

use alloc::sync::Arc;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::Mutex;
use std::thread::{self, JoinHandle};

use keytally_core::sync::{AtomicU64, Ordering};
use keytally_fleet::{Agent, Counts, FleetConfig, FleetError, OnLoss, StoreConfig, UnusableKey};

use crate::support::memory::{Memory, Outcome};
use crate::support::time::now;

pub(crate) fn config(url: &str) -> FleetConfig {
    FleetConfig::new("test", StoreConfig::new(url.parse().unwrap()), OnLoss::Closed)
}

/// An agent in a thread.
pub(crate) struct Running {
    stop: Arc<AtomicU64>,
    unusable: Arc<Mutex<Vec<UnusableKey>>>,
    thread: Option<JoinHandle<(Result<(), FleetError>, Counts)>>,
}

impl Running {
    pub(crate) fn start(machine: &Arc<Memory>, config: &FleetConfig) -> Self {
        let stop = Arc::new(AtomicU64::new(0));
        let (machine, config, stopped) = (machine.clone(), config.clone(), stop.clone());
        let unusable = Arc::new(Mutex::default());
        let keys = unusable.clone();
        let thread = thread::spawn(move || {
            let agent = Agent::new(&*machine, &config).unwrap();
            let result = agent.run(|| {
                *keys.lock().unwrap() = agent.unusable_keys();
                stopped.load(Ordering::Acquire) != 0
            });
            (result, agent.counts())
        });
        Self { stop, unusable, thread: Some(thread) }
    }

    pub(crate) fn unusable_keys(&self) -> Vec<UnusableKey> {
        self.unusable.lock().unwrap().clone()
    }

    /// Waits until the agent ends by itself.
    #[expect(clippy::panic_in_result_fn, reason = "the assertion is that of the test")]
    pub(crate) fn end(mut self) -> Result<(), FleetError> {
        let since = now();
        while !self.thread.as_ref().unwrap().is_finished() {
            assert!(since.elapsed() < Duration::from_secs(10), "the agent does not end");
            thread::sleep(Duration::from_millis(5));
        }
        self.thread.take().unwrap().join().unwrap().0
    }

    pub(crate) fn stop(mut self) -> Counts {
        self.stop.store(1, Ordering::Release);
        let (result, counts) = self.thread.take().unwrap().join().unwrap();
        result.unwrap();
        counts
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the requests of some threads got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) outcomes: HashMap<&'static str, u64>,
    /// How long those waited that waited, in microseconds.
    pub(crate) waits: Vec<u128>,
}

impl Got {
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(name(outcome)).copied().unwrap_or(0)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.outcomes.values().sum()
    }
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Admitted => "admitted",
        Outcome::Waited => "waited",
        Outcome::Alone => "alone",
        Outcome::Denied => "denied",
        Outcome::Unavailable => "unavailable",
    }
}

/// Sends requests to machines from threads, until `is_done`.
pub(crate) fn request(
    machines: &[Arc<Memory>],
    threads: usize,
    keys: u32,
    pause: Duration,
    is_done: impl Fn() -> bool + Sync,
) -> Got {
    let mut got = Got::default();
    thread::scope(|scope| {
        let spawn = |index: usize| {
            let machine = &machines[index % machines.len()];
            let is_done = &is_done;
            scope.spawn(move || {
                let mut got = Got::default();
                let mut number = u32::try_from(index).unwrap();
                while !is_done() {
                    number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let since = now();
                    let outcome = machine.check((number >> 8) % keys);
                    *got.outcomes.entry(name(outcome)).or_default() += 1;
                    if outcome == Outcome::Waited {
                        got.waits.push(since.elapsed().as_micros());
                    }
                    if !pause.is_zero() {
                        thread::sleep(pause);
                    }
                }
                got
            })
        };
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        for handle in handles {
            let one = handle.join().unwrap();
            for (outcome, count) in one.outcomes {
                *got.outcomes.entry(outcome).or_default() += count;
            }
            got.waits.extend(one.waits);
        }
    });
    got
}

/// Returns what all machines together have admitted, by tally, window and its beginning.
pub(crate) fn admitted(machines: &[Arc<Memory>]) -> HashMap<(u32, usize, u64), u32> {
    let mut all = HashMap::new();
    for (window, count) in machines.iter().flat_map(|machine| machine.counts()) {
        *all.entry(window).or_default() += count;
    }
    all
}

/// Returns the most units that a window has admitted.
pub(crate) fn most(machines: &[Arc<Memory>]) -> u32 {
    admitted(machines).into_values().max().unwrap_or(0)
}
