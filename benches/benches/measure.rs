//! Measures tables of implementations that do the same work. A row is an implementation, a column a
//! variant or a size of the work. The implementations of a column take turns in several rounds, so
//! that background load affects all alike.

#![expect(clippy::disallowed_types, reason = "threads start together")]

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

use crate::traffic::{Walk, thousands};

/// The number of samples that criterion takes in each turn of an implementation.
const SAMPLES: usize = 10;

/// The settings of the measurement, and the tables that were measured.
pub(crate) struct Bench {
    criterion: Criterion,
    /// The number of turns of each implementation.
    rounds: usize,
    /// Whether to measure few sizes.
    quick: bool,
    /// The groups to measure. If empty, all are.
    groups: Vec<String>,
    /// The folder in which the figures are saved, if they are.
    folder: Option<PathBuf>,
    tables: Vec<Value>,
}

impl Bench {
    /// Reads the settings: the groups from the command line, the rest from the variables that
    /// `cargo xtask bench` sets.
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
            rounds: usize::try_from(number("KEYTALLY_BENCH_ROUNDS", 1))
                .expect("a number of rounds"),
            quick: std::env::var_os("KEYTALLY_BENCH_QUICK").is_some(),
            groups: std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect(),
            folder: std::env::var_os("KEYTALLY_BENCH_FOLDER").map(PathBuf::from),
            tables: Vec::new(),
        }
    }

    /// Returns whether a group is to be measured.
    pub(crate) fn wants(&self, group: &str) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|name| name == group)
    }

    /// Returns the number of turns of an implementation whose turn takes seconds.
    pub(crate) fn long_rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds }
    }

    /// Returns the sizes to measure: `all`, or `few` if the measurement is quick.
    pub(crate) fn sizes(&self, all: &'static [u32], few: &'static [u32]) -> &'static [u32] {
        if self.quick { few } else { all }
    }

    /// Begins a table. `about` states in one line what each figure includes.
    pub(crate) fn table(&mut self, name: &str, unit: &str, title: &str, about: &str) -> Table<'_> {
        let (name, unit, title, about) = (name.into(), unit.into(), title.into(), about.into());
        Table { bench: self, name, unit, title, about, columns: Vec::new(), rows: Vec::new() }
    }

    /// Saves the tables of a group as JSON, if there is a folder.
    pub(crate) fn save(&mut self, group: &str) {
        let tables = core::mem::take(&mut self.tables);
        if let Some(folder) = &self.folder {
            let text =
                serde_json::to_string(&json!({ "group": group, "tables": tables })).expect("JSON");
            fs::write(folder.join(format!("{group}.json")), text)
                .expect("the folder can be written");
        }
    }
}

/// A function that does the work a number of times, and returns the time that it took.
pub(crate) type Work<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// One way to do the work of a column.
pub(crate) struct Implementation<'a> {
    name: &'static str,
    /// Whether each call reads a clock.
    reads_clock: bool,
    work: Work<'a>,
}

impl<'a> Implementation<'a> {
    /// Returns an implementation whose calls read no clock.
    pub(crate) fn new(name: &'static str, work: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { name, reads_clock: false, work: Box::new(work) }
    }

    /// States whether each call reads a clock.
    pub(crate) fn with_clock(self, reads_clock: bool) -> Self {
        Self { reads_clock, ..self }
    }
}

/// Returns an implementation that repeats a call. It is timed by the processor time of the thread.
pub(crate) fn calls<'a, R>(
    name: &'static str,
    mut call: impl FnMut() -> R + 'a,
) -> Implementation<'a> {
    let work = move |times| {
        let started = processor_time();
        for _ in 0..times {
            black_box(call());
        }
        processor_time() - started
    };
    Implementation::new(name, work)
}

/// Returns an implementation that repeats a check, and asserts which part of the checks admits.
/// Without the assertion, the figure could be that of other work, if a limit is reached by mistake.
pub(crate) fn checks<'a>(
    name: &'static str,
    expected: Admitted,
    mut check: impl FnMut() -> bool + 'a,
) -> Implementation<'a> {
    let work = move |times| {
        let started = processor_time();
        let admitted = count(times, &mut check);
        let took = processor_time() - started;
        expected.assert(name, admitted, times);
        took
    };
    Implementation::new(name, work)
}

/// Returns whether a verdict admits. The optimizer must assume that the whole verdict is read, so
/// it cannot leave out what a caller would read.
#[inline(always)]
pub(crate) fn is_admitted(verdict: &Verdict) -> bool {
    black_box(verdict).is_admitted()
}

/// The part of the checks that must admit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Admitted {
    All,
    Half,
    None,
}

impl Admitted {
    /// Asserts that this part of the checks has admitted.
    fn assert(self, name: &str, admitted: u64, times: u64) {
        let is_expected = match self {
            Self::All => admitted == times,
            // Of few checks, any number may admit.
            Self::Half => times < 10_000 || (times * 2 / 5..times * 3 / 5).contains(&admitted),
            Self::None => admitted == 0,
        };
        assert!(is_expected, "{name} admitted {admitted} of {times} checks, expected {self:?}");
    }
}

/// Binds the calling thread to one of the processors that it may use, so that each thread has its
/// own. Threads that share a processor do not run at the same time, and so do not contend.
fn run_on_processor(number: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let mut one = CpuSet::new();
    one.set(processors[number % processors.len()]);
    let _ = sched_setaffinity(None, &one);
}

/// Returns an implementation that repeats a check in `count` threads at the same time.
///
/// `check` gets the number of the thread, the number of checks that the thread has made before, and
/// the number of checks to make. It returns how many admitted. The time is the average over the
/// threads. It is taken by the wall clock, because a thread that waits for a lock uses no processor
/// time.
pub(crate) fn threads<'a>(
    name: &'static str,
    expected: Admitted,
    count: usize,
    check: impl Fn(usize, u64, u64) -> u64 + Sync + 'a,
) -> Implementation<'a> {
    let mut checks_before = 0;
    let work = move |times| {
        let (arrived, check) = (&AtomicUsize::new(0), &check);
        let took: Duration = std::thread::scope(|scope| {
            let thread = |number| {
                scope.spawn(move || {
                    run_on_processor(number);
                    // All threads start together. They spin, because a thread that sleeps would
                    // start long after the others.
                    arrived.fetch_add(1, Ordering::AcqRel);
                    while arrived.load(Ordering::Acquire) < count {
                        spin_loop();
                    }
                    let started = now();
                    let admitted = check(number, checks_before, times);
                    let took = started.elapsed();
                    expected.assert(name, admitted, times);
                    took
                })
            };
            let threads: Vec<_> = (0..count).map(thread).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread ends well")).sum()
        });
        checks_before += times;
        took / u32::try_from(count).expect("a few threads")
    };
    Implementation::new(name, work)
}

/// Makes a number of checks, and counts those that admit.
#[inline]
pub(crate) fn count(times: u64, mut check: impl FnMut() -> bool) -> u64 {
    (0..times).map(|_| u64::from(check())).sum()
}

/// A table under measurement. When it is dropped, its figures are added to the [`Bench`].
pub(crate) struct Table<'b> {
    bench: &'b mut Bench,
    name: String,
    unit: String,
    title: String,
    about: String,
    columns: Vec<String>,
    /// The name of each implementation, whether it reads a clock, and its figures by column and
    /// round.
    rows: Vec<(String, bool, Vec<Vec<f64>>)>,
}

impl Table<'_> {
    /// Measures a column in nanoseconds per call.
    pub(crate) fn column(
        &mut self,
        column: impl Into<String>,
        implementations: Vec<Implementation<'_>>,
    ) {
        self.warm_column(column.into(), Walk::length(1), implementations);
    }

    /// Measures a column of tables with `size` subjects or keys.
    pub(crate) fn column_of(&mut self, size: u32, implementations: Vec<Implementation<'_>>) {
        self.warm_column(thousands(size), Walk::length(size), implementations);
    }

    /// Measures a column. First, each implementation makes `requests` calls. Without them, short
    /// turns would be timed before they have reached most of a large table.
    fn warm_column(
        &mut self,
        column: String,
        requests: usize,
        mut implementations: Vec<Implementation<'_>>,
    ) {
        let mut figures = vec![Vec::new(); implementations.len()];
        for Implementation { work, .. } in &mut implementations {
            work(requests as u64);
        }
        let mut group = self.bench.criterion.benchmark_group(self.name.clone());
        group.sampling_mode(SamplingMode::Flat);
        for round in 1..=self.bench.rounds {
            for (Implementation { name, work, .. }, figures) in
                implementations.iter_mut().zip(&mut figures)
            {
                let id =
                    if round == 1 { column.clone() } else { format!("{column} round {round}") };
                let mut samples = Vec::new();
                group.bench_function(BenchmarkId::new(*name, id), |bencher| {
                    bencher.iter_custom(|times| {
                        let took = work(times);
                        samples.push(took.as_secs_f64() * 1e9 / times as f64);
                        took
                    });
                });
                // The earlier samples are from the warm-up.
                let samples = &samples[samples.len() - SAMPLES..];
                figures.push(median(samples));
            }
        }
        group.finish();
        for (Implementation { name, reads_clock, .. }, figures) in
            implementations.iter().zip(figures)
        {
            self.figures(&column, name, *reads_clock, figures);
        }
    }

    /// Adds the figures of an implementation in a column, one per round.
    pub(crate) fn figures(
        &mut self,
        column: &str,
        row: &str,
        reads_clock: bool,
        figures: Vec<f64>,
    ) {
        if !self.columns.iter().any(|name| name == column) {
            self.columns.push(column.to_owned());
        }
        let index = self.columns.iter().position(|name| name == column).expect("it is there");
        if !self.rows.iter().any(|(name, ..)| name == row) {
            self.rows.push((row.to_owned(), reads_clock, Vec::new()));
        }
        let found = self.rows.iter_mut().find(|(name, ..)| name == row);
        let (_, _, cells) = found.expect("it is there");
        cells.resize(cells.len().max(index + 1), Vec::new());
        cells[index] = figures;
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let row = |(name, reads_clock, cells): &(String, bool, Vec<Vec<f64>>)| json!({ "name": name, "clock": reads_clock, "cells": cells });
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        self.bench.tables.push(json!({
            "name": self.name, "unit": self.unit, "title": self.title, "about": self.about,
            "columns": self.columns, "rows": rows,
        }));
    }
}

/// Returns the median of figures, of which there is at least one.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    low.midpoint(high)
}

/// Returns the time for which this thread has run on a processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time since the thread began")
}

/// Returns the time of the wall clock, for measurements of several threads and of single calls.
#[expect(clippy::disallowed_methods, reason = "benchmarks read the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
