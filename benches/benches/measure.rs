//! A table of contenders that do the same work, a column for each size of it. The contenders of a column take turns, so
//! that what else the machine does meets all of them.

use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, SamplingMode};
use keytally_core::Verdict;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Samples in each turn of a contender.
const SAMPLES: usize = 10;

/// All that is measured, and how long for.
pub(crate) struct Bench {
    criterion: Criterion,
    rounds: usize,
    quick: bool,
    groups: Vec<String>,
    /// Where the figures go; nowhere without.
    folder: Option<PathBuf>,
    tables: Vec<Value>,
}

impl Bench {
    /// Reads how much is wanted: the groups from the command line, the rest from what `cargo xtask bench` sets.
    pub(crate) fn from_environment() -> Self {
        let number = |name, other| {
            std::env::var(name).ok().and_then(|text: String| text.parse().ok()).unwrap_or(other)
        };
        let turn = Duration::from_millis(number("KEYTALLY_BENCH_TURN_MS", 1000));
        let criterion = Criterion::default()
            .sample_size(SAMPLES)
            .nresamples(1001)
            .without_plots()
            .warm_up_time(turn / 4)
            .measurement_time(turn);
        Self {
            criterion,
            rounds: usize::try_from(number("KEYTALLY_BENCH_ROUNDS", 1)).expect("a number of rounds"),
            quick: std::env::var_os("KEYTALLY_BENCH_QUICK").is_some(),
            groups: std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect(),
            folder: std::env::var_os("KEYTALLY_BENCH_FOLDER").map(PathBuf::from),
            tables: Vec::new(),
        }
    }

    pub(crate) fn wants(&self, group: &str) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|name| name == group)
    }

    /// How often each contender gets a turn that takes seconds.
    pub(crate) fn long_rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds }
    }

    /// The sizes to measure: all of these, or in the quick form the few that targets are set for.
    pub(crate) fn sizes(&self, all: &'static [u32], few: &'static [u32]) -> &'static [u32] {
        if self.quick { few } else { all }
    }

    /// Begins a table. `about` says in one line what each figure includes.
    pub(crate) fn table(&mut self, name: &str, unit: &str, title: &str, about: &str) -> Table<'_> {
        let (name, unit, title, about) = (name.into(), unit.into(), title.into(), about.into());
        Table { bench: self, name, unit, title, about, columns: Vec::new(), rows: Vec::new() }
    }

    /// Writes down the tables of a group.
    pub(crate) fn save(&mut self, group: &str) {
        let tables = core::mem::take(&mut self.tables);
        if let Some(folder) = &self.folder {
            let text = serde_json::to_string(&json!({ "group": group, "tables": tables })).expect("JSON");
            fs::write(folder.join(format!("{group}.json")), text).expect("the folder can be written");
        }
    }
}

/// Does something so many times and tells how long it took.
pub(crate) type Work<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// Who does it, and how.
pub(crate) type Contender<'a> = (&'static str, Work<'a>);

/// A call, again and again.
pub(crate) fn calls<'a, R>(name: &'static str, mut call: impl FnMut() -> R + 'a) -> Contender<'a> {
    let work = move |times| {
        let started = processor_time();
        for _ in 0..times {
            black_box(call());
        }
        processor_time() - started
    };
    (name, Box::new(work))
}

/// A question, again and again, and how many of the answers are to be yes: a limit that is reached by mistake would make
/// figures of something else.
pub(crate) fn asked<'a>(
    name: &'static str,
    expected: Yes,
    mut ask: impl FnMut() -> bool + 'a,
) -> Contender<'a> {
    let work = move |times| {
        let started = processor_time();
        let yes = count(times, &mut ask);
        let took = processor_time() - started;
        expected.check(name, yes, times);
        took
    };
    (name, Box::new(work))
}

/// Whether the verdict admits. All of it has to be there, as for somebody who reads its numbers; it isn't copied about.
#[inline(always)]
pub(crate) fn answered(verdict: &Verdict) -> bool {
    black_box(verdict).is_admitted()
}

/// How many answers are yes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Yes {
    All,
    Half,
    None,
}

impl Yes {
    fn check(self, name: &str, yes: u64, times: u64) {
        let right = match self {
            Self::All => yes == times,
            // Of a few, it may be any part.
            Self::Half => times < 10_000 || (times * 2 / 5..times * 3 / 5).contains(&yes),
            Self::None => yes == 0,
        };
        assert!(right, "{name} said yes {yes} times of {times}, where {self:?} were meant");
    }
}

/// Keeps the calling thread on one of the processors that it may run on: left alone, two threads share one for a while, and
/// don't contend at all.
fn run_on_processor(number: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let mut one = CpuSet::new();
    one.set(processors[number % processors.len()]);
    let _ = sched_setaffinity(None, &one);
}

/// The same by several threads at once. `ask` asks so many times for a thread that has asked so often before, and counts
/// the answers that are yes. The time is the average of the threads', by the clock on the wall: who waits for a lock has
/// no processor meanwhile.
pub(crate) fn threads<'a>(
    name: &'static str,
    expected: Yes,
    count: usize,
    ask: impl Fn(usize, u64, u64) -> u64 + Sync + 'a,
) -> Contender<'a> {
    let mut asked = 0;
    let work = move |times| {
        let (arrived, ask) = (&AtomicUsize::new(0), &ask);
        let took: Duration = std::thread::scope(|scope| {
            let thread = |number| {
                scope.spawn(move || {
                    run_on_processor(number);
                    // Not asleep: who is woken begins when the others have long been at work.
                    arrived.fetch_add(1, Ordering::AcqRel);
                    while arrived.load(Ordering::Acquire) < count {
                        spin_loop();
                    }
                    let started = now();
                    let yes = ask(number, asked, times);
                    let took = started.elapsed();
                    expected.check(name, yes, times);
                    took
                })
            };
            let threads: Vec<_> = (0..count).map(thread).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread ends well")).sum()
        });
        asked += times;
        took / u32::try_from(count).expect("a few threads")
    };
    (name, Box::new(work))
}

/// Asks so many times, and counts the answers that are yes.
#[inline]
pub(crate) fn count(times: u64, mut ask: impl FnMut() -> bool) -> u64 {
    (0..times).map(|_| u64::from(ask())).sum()
}

/// A table that is being measured.
pub(crate) struct Table<'b> {
    bench: &'b mut Bench,
    name: String,
    unit: String,
    title: String,
    about: String,
    columns: Vec<String>,
    /// Each contender, with a figure for each column and round.
    rows: Vec<(String, Vec<Vec<f64>>)>,
}

impl Table<'_> {
    /// Measures a column: nanoseconds a call.
    pub(crate) fn column(&mut self, column: impl Into<String>, mut contenders: Vec<Contender<'_>>) {
        let column = column.into();
        let mut figures: Vec<(&str, Vec<f64>)> =
            contenders.iter().map(|(name, _)| (*name, Vec::new())).collect();
        let mut group = self.bench.criterion.benchmark_group(self.name.clone());
        group.sampling_mode(SamplingMode::Flat);
        for round in 1..=self.bench.rounds {
            for ((name, work), (_, figures)) in contenders.iter_mut().zip(&mut figures) {
                let id = if round == 1 { column.clone() } else { format!("{column} round {round}") };
                let mut samples = Vec::new();
                group.bench_function(BenchmarkId::new(*name, id), |bencher| {
                    bencher.iter_custom(|times| {
                        let took = work(times);
                        samples.push(took.as_secs_f64() * 1e9 / times as f64);
                        took
                    });
                });
                // Those before are the warm-up's.
                let samples = &samples[samples.len() - SAMPLES..];
                figures.push(median(samples));
            }
        }
        group.finish();
        for (name, figures) in figures {
            self.figures(&column, name, figures);
        }
    }

    /// Takes in figures that were measured elsewhere, one a round.
    pub(crate) fn figures(&mut self, column: &str, row: &str, figures: Vec<f64>) {
        if !self.columns.iter().any(|name| name == column) {
            self.columns.push(column.to_owned());
        }
        let place = self.columns.iter().position(|name| name == column).expect("it is there");
        if !self.rows.iter().any(|(name, _)| name == row) {
            self.rows.push((row.to_owned(), Vec::new()));
        }
        let (_, cells) = self.rows.iter_mut().find(|(name, _)| name == row).expect("it is there");
        cells.resize(cells.len().max(place + 1), Vec::new());
        cells[place] = figures;
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let rows: Vec<Value> =
            self.rows.iter().map(|(name, cells)| json!({ "name": name, "cells": cells })).collect();
        self.bench.tables.push(json!({
            "name": self.name, "unit": self.unit, "title": self.title, "about": self.about,
            "columns": self.columns, "rows": rows,
        }));
    }
}

/// The one in the middle.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    low.midpoint(high)
}

/// What this thread has had of a processor: time in which others had it doesn't count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time since the thread began")
}

/// The clock by which several threads together are timed, and single calls.
#[expect(clippy::disallowed_methods, reason = "benchmarks read the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
