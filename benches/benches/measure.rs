//! Measures tables of implementations. A row is an implementation, a column a variant or a size of
//! the work. The implementations of a column take turns in several rounds, so that background load
//! affects all alike.
//!
//! A turn first warms the implementation up. Then it times batches of [`BATCH`] calls each by the
//! wall clock. The figures of a turn are the median and the 99th percentile of its batches, each as
//! the average time of a call. A batch that another program interrupts changes neither of them
//! much.

#![expect(clippy::disallowed_types, reason = "threads start together")]

use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use keytally_core::Verdict;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use crate::traffic::{Walk, thousands};

/// The calls in a batch. Reading the clock once per batch adds about a quarter of a nanosecond to
/// the time of each call.
pub(crate) const BATCH: usize = 100;

/// The smallest number of batches in a turn, so that a 99th percentile exists.
const LEAST_BATCHES: usize = 100;

/// The settings of the measurement, and the tables that were measured.
pub(crate) struct Bench {
    /// The length of a turn, without its warm-up.
    turn: Duration,
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
        Self {
            turn: Duration::from_millis(number("KEYTALLY_BENCH_TURN_MS", 200)),
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
        let (columns, rows) = (Vec::new(), Vec::new());
        Table { bench: self, name, unit, title, about, is_mean: false, columns, rows }
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

/// A function that does a number of batches, and returns the average time of a call in each of
/// them, in nanoseconds.
pub(crate) type Work<'a> = Box<dyn FnMut(usize) -> Vec<f64> + 'a>;

/// What an implementation does. Tables compare implementations that are equal in this.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Whether each call reads a clock.
    pub(crate) reads_clock: bool,
    /// The work, if it is not that of the table's description. Rows that do [`PART`] of it are
    /// compared with none.
    pub(crate) work: &'static str,
}

/// The work of a [`Kind`] that does one step of the table's work.
pub(crate) const PART: &str = "a part";

impl Kind {
    /// The work of the table's description, with the time given by the caller.
    pub(crate) const TIME_GIVEN: Self = Self { reads_clock: false, work: "" };

    /// The work of the table's description, with a clock read by each call.
    pub(crate) const CLOCK_READ: Self = Self { reads_clock: true, work: "" };
}

/// One way to do the work of a column.
pub(crate) struct Implementation<'a> {
    name: &'static str,
    kind: Kind,
    work: Work<'a>,
}

impl<'a> Implementation<'a> {
    /// Returns an implementation of the table's work whose calls read no clock.
    pub(crate) fn new(name: &'static str, work: impl FnMut(usize) -> Vec<f64> + 'a) -> Self {
        Self { name, kind: Kind::TIME_GIVEN, work: Box::new(work) }
    }

    /// States what the implementation does.
    pub(crate) fn with_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// States that each call reads a clock.
    pub(crate) fn with_clock(self) -> Self {
        let kind = Kind { reads_clock: true, ..self.kind };
        self.with_kind(kind)
    }

    /// States that the work is not that of the table's description.
    pub(crate) fn with_work(self, work: &'static str) -> Self {
        let kind = Kind { work, ..self.kind };
        self.with_kind(kind)
    }
}

/// Makes batches. Returns the instants at which they began, and that at which the last one ended.
#[inline(always)]
fn batched(count: usize, mut batch: impl FnMut()) -> Vec<Instant> {
    let mut instants = Vec::with_capacity(count + 1);
    instants.push(now());
    for _ in 0..count {
        batch();
        instants.push(now());
    }
    instants
}

/// Returns the average time of a call between instants, in nanoseconds.
fn averages(instants: &[Instant]) -> impl Iterator<Item = f64> {
    instants.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e9 / BATCH as f64)
}

/// Returns an implementation that repeats a call.
pub(crate) fn calls<'a, R>(
    name: &'static str,
    mut call: impl FnMut() -> R + 'a,
) -> Implementation<'a> {
    Implementation::new(name, move |batches| {
        let instants = batched(batches, || {
            for _ in 0..BATCH {
                black_box(call());
            }
        });
        averages(&instants).collect()
    })
}

/// Returns an implementation that repeats a check, and asserts which part of the checks admits.
/// Without the assertion, the figure could be that of other work, if a limit is reached by mistake.
pub(crate) fn checks<'a>(
    name: &'static str,
    expected: Admitted,
    mut check: impl FnMut() -> bool + 'a,
) -> Implementation<'a> {
    Implementation::new(name, move |batches| {
        let mut admitted = 0;
        let instants = batched(batches, || admitted += count(BATCH as u64, &mut check));
        expected.assert(name, admitted, (batches * BATCH) as u64);
        averages(&instants).collect()
    })
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

/// The most batches that threads make before they wait for each other. If one thread is much slower
/// than another, the time that it gives to its checks is late by all their difference. Its checks
/// then count in the minute of the other. Of so few, none reaches a limit.
const BATCHES_TOGETHER: usize = 300;

/// Returns an implementation that repeats a check in `count` threads at the same time.
///
/// `check` gets the number of the thread, the number of checks that the thread has made before, and
/// the number of checks to make. It returns how many admitted. The batches of all threads count,
/// except those that end after another thread has made all of its own, because they are not
/// contended.
pub(crate) fn threads<'a>(
    name: &'static str,
    expected: Admitted,
    count: usize,
    check: impl Fn(usize, u64, u64) -> u64 + Sync + 'a,
) -> Implementation<'a> {
    let mut checks_before = 0;
    Implementation::new(name, move |batches| {
        let mut contended = Vec::with_capacity(count * batches);
        for first in (0..batches).step_by(BATCHES_TOGETHER) {
            let batches = BATCHES_TOGETHER.min(batches - first);
            let thread = |number| {
                let (mut done, mut admitted) = (checks_before, 0);
                let instants = batched(batches, || {
                    admitted += check(number, done, BATCH as u64);
                    done += BATCH as u64;
                });
                expected.assert(name, admitted, done - checks_before);
                instants
            };
            let instants = together(count, thread);
            checks_before += (batches * BATCH) as u64;
            let first_end = instants.iter().filter_map(|instants| instants.last()).min().copied();
            for instants in instants {
                let count = instants.partition_point(|instant| Some(*instant) <= first_end);
                contended.extend(averages(&instants[..count]));
            }
        }
        contended
    })
}

/// Runs a function in `count` threads, which begin it together. Returns the results.
fn together<R: Send>(count: usize, thread: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let (arrived, thread) = (&AtomicUsize::new(0), &thread);
    std::thread::scope(|scope| {
        let spawn = |number| {
            scope.spawn(move || {
                run_on_processor(number);
                // They spin, because a thread that sleeps would start long after the others.
                arrived.fetch_add(1, Ordering::AcqRel);
                while arrived.load(Ordering::Acquire) < count {
                    spin_loop();
                }
                thread(number)
            })
        };
        let threads: Vec<_> = (0..count).map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread ends well")).collect()
    })
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
    /// Whether a figure is the mean of a turn's batches instead of their median.
    is_mean: bool,
    columns: Vec<String>,
    /// The name of each implementation, what it does, and its figures by column and round.
    rows: Vec<(String, Kind, Vec<Vec<Value>>)>,
}

impl Table<'_> {
    /// Takes the mean of a turn's batches instead of their median. If threads take turns to have a
    /// lock for long, most of their batches are quick, and few are very slow.
    pub(crate) fn with_mean(self) -> Self {
        let mut table = self;
        table.is_mean = true;
        table
    }

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

    /// Measures a column. Before each turn, the implementation makes `requests` calls, since the
    /// others have taken its memory out of the caches. Without these calls, a short turn would end
    /// before it has reached most of a large table.
    fn warm_column(
        &mut self,
        column: String,
        requests: usize,
        mut implementations: Vec<Implementation<'_>>,
    ) {
        eprintln!("{} @ {column}", self.name);
        let mut figures = vec![Vec::new(); implementations.len()];
        for _ in 0..self.bench.rounds {
            for (Implementation { work, .. }, figures) in
                implementations.iter_mut().zip(&mut figures)
            {
                let warm = work(requests.div_ceil(BATCH));
                let batch_ns = quantile(&warm, 0.5) * BATCH as f64;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a number of batches"
                )]
                let count = (self.bench.turn.as_secs_f64() * 1e9 / batch_ns) as usize;
                let averages = work(count.max(LEAST_BATCHES));
                let middle = if self.is_mean {
                    averages.iter().sum::<f64>() / averages.len() as f64
                } else {
                    quantile(&averages, 0.5)
                };
                figures.push(json!([middle, quantile(&averages, 0.99)]));
            }
        }
        for (Implementation { name, kind, .. }, figures) in implementations.iter().zip(figures) {
            self.figures(&column, name, *kind, figures);
        }
    }

    /// Adds the figures of an implementation in a column, one per round: a number, or a median and
    /// a 99th percentile.
    pub(crate) fn figures(&mut self, column: &str, row: &str, kind: Kind, figures: Vec<Value>) {
        if !self.columns.iter().any(|name| name == column) {
            self.columns.push(column.to_owned());
        }
        let index = self.columns.iter().position(|name| name == column).expect("it is there");
        if !self.rows.iter().any(|(name, ..)| name == row) {
            self.rows.push((row.to_owned(), kind, Vec::new()));
        }
        let found = self.rows.iter_mut().find(|(name, ..)| name == row);
        let (_, _, cells) = found.expect("it is there");
        cells.resize(cells.len().max(index + 1), Vec::new());
        cells[index] = figures;
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let row = |(name, kind, cells): &(String, Kind, Vec<Vec<Value>>)| json!({ "name": name, "clock": kind.reads_clock, "work": kind.work, "cells": cells });
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        self.bench.tables.push(json!({
            "name": self.name, "unit": self.unit, "title": self.title, "about": self.about,
            "mean": self.is_mean, "columns": self.columns, "rows": rows,
        }));
    }
}

/// Returns the figure that a fraction of the figures does not exceed. There is at least one figure.
pub(crate) fn quantile(figures: &[f64], fraction: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = (fraction * (sorted.len() - 1) as f64).round() as usize;
    sorted[index]
}

/// Returns the time of the wall clock.
#[expect(clippy::disallowed_methods, reason = "benchmarks read the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
