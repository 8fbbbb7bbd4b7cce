//! `cargo xtask bench`: measures speed, also of other implementations, and writes the pages with
//! the results.
//!
//! The implementations of a group take turns: in a turn, one of them runs for some milliseconds. A
//! round is one turn of each.
//!
//! | file | contents |
//! |---|---|
//! | `results.rs` | the results, as stored in `benches/results.json` |
//! | `targets.rs` | the targets, and whether they are met |
//! | `pages.rs` | the pages and tables |
//! | `plots.rs` | the plots |

mod pages;
mod plots;
mod results;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use clap::builder::PossibleValuesParser;

use self::results::{Apart, Group, Results, Table};
use crate::command::{self, cargo};
use crate::{budgets, nginx, python, tools};

/// The groups of measurements.
const GROUPS: [&str; 10] =
    ["decide", "limiter", "gate", "crypto", "contention", "flood", LINES, FFI, PYTHON, NGINX];

/// The group that valgrind measures.
const LINES: &str = "lines";

/// The functions that the group [`LINES`] measures.
const LIMITER: &str = "Limiter::check";
const GATE: &str = "Gate::check";

/// The group that measures calls from C.
const FFI: &str = "ffi";

/// The group that a Python script measures: the module and other implementations.
const PYTHON: &str = "python";

/// The group that measures nginx with and without the module.
const NGINX: &str = "nginx";

/// The folder to which the measuring programs write their results.
const FOLDER: &str = "target/bench";

/// The number of rounds, and the length of a turn in milliseconds.
const FULL: (u32, u32) = (5, 500);
/// The number of rounds, and the length of a turn in milliseconds, with `--quick`.
const QUICK: (u32, u32) = (3, 80);

/// The options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Measures for about three minutes instead of twenty-five: fewer sizes, and shorter turns.
    #[arg(long)]
    quick: bool,
    /// Measures nothing, and only writes the pages from benches/results.json.
    #[arg(long, conflicts_with_all = ["quick", "groups"])]
    pages: bool,
    /// Only counts the instructions of the hot paths, and writes benches/budgets.txt.
    #[arg(long, conflicts_with_all = ["quick", "groups", "pages"])]
    budgets: bool,
    /// Replaces the results of the named groups in benches/results.json, and keeps the others.
    #[arg(long, requires = "groups", conflicts_with = "quick")]
    keep: bool,
    /// The groups to measure [default: all]. The tables of named groups are only printed, unless
    /// --keep is given.
    #[arg(value_name = "GROUP", value_parser = PossibleValuesParser::new(GROUPS))]
    groups: Vec<String>,
}

/// Measures and prints the tables. Writes the pages if all groups were measured, or with `--keep`.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.budgets {
        return budgets::record();
    }
    if options.pages {
        return pages::write(&Results::load(Path::new("."))?);
    }
    let Options { groups, quick, keep, .. } = options;
    let names: Vec<&str> = if groups.is_empty() {
        GROUPS.to_vec()
    } else {
        groups.iter().map(String::as_str).collect()
    };
    let (rounds, turn) = if *quick { QUICK } else { FULL };
    let folder = std::path::absolute(FOLDER)?;
    fs::create_dir_all(&folder)?;
    if names.iter().any(|name| ![PYTHON, NGINX].contains(name)) {
        let mut build = cargo();
        build.args(["bench", "--package", "keytally-benches", "--bench", "speed", "--no-run"]);
        command::run(build)?;
    }

    let load = load();
    let mut measured = Vec::new();
    for name in &names {
        if *name == LINES {
            let group = lines()?;
            println!("{}", pages::group(&group));
            measured.push(group);
            continue;
        }
        let file = folder.join(format!("{name}.json"));
        let mut bench = match *name {
            PYTHON => python::bench()?,
            NGINX => nginx::bench()?,
            _ => {
                let mut bench = cargo();
                bench.args([
                    "bench",
                    "--package",
                    "keytally-benches",
                    "--bench",
                    "speed",
                    "--",
                    name,
                ]);
                bench
            }
        };
        if *name == FFI {
            bench.env("KEYTALLY_BENCH_C", c_program(&folder)?);
        }
        bench.env("KEYTALLY_BENCH_FOLDER", &folder);
        bench
            .env("KEYTALLY_BENCH_ROUNDS", rounds.to_string())
            .env("KEYTALLY_BENCH_TURN_MS", turn.to_string());
        if *quick {
            bench.env("KEYTALLY_BENCH_QUICK", "1");
        }
        command::run(bench)?;
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let group: Group =
            serde_json::from_str(&text).with_context(|| format!("invalid results of {name}"))?;
        println!("{}", pages::group(&group));
        measured.push(group);
    }
    if !groups.is_empty() && !keep {
        return Ok(());
    }
    let (machine, compiler) = (machine()?, tools::compiler()?);
    let (date, commit) = (output("date", &["-u", "+%F"])?, commit()?);
    let results = if groups.is_empty() {
        Results { machine, load, compiler, date, commit, rounds, turn_ms: turn, groups: measured }
    } else {
        let mut results = Results::load(Path::new("."))?;
        ensure!(
            (&results.machine, &results.compiler) == (&machine, &compiler),
            "{} has results of {}, with {}: measure all groups",
            results::FILE,
            results.machine,
            results.compiler
        );
        for group in measured {
            let apart = Some(Apart { load, date: date.clone(), commit: commit.clone() });
            results.put(Group { apart, ..group });
        }
        results
    };
    results.save()?;
    pages::write(&results)
}

/// Counts the cache lines and the instructions of a check.
fn lines() -> Result<Group> {
    let [limiter, gate] = budgets::lines()?;
    let title = "Cache lines that a check brings from memory";
    let about = "In valgrind's model of a processor whose caches hold a sixteenth of the table. Without the text that is presented.";
    let figures = vec![(LIMITER, limiter), (GATE, gate)];
    let missed = Table::once(["lines/check", "lines", title, about], &[("a check", figures)]);

    let title = "Instructions of a check, by what they are for";
    let about =
        "Counted by valgrind on the program of the budgets, without SHA-256's compressions.";
    let checks = [(LIMITER, budgets::parts("limiter")?), (GATE, budgets::parts("gate")?)];
    let parts = Table::once(["lines/parts", "instructions", title, about], &checks);
    Ok(Group { group: LINES.to_owned(), apart: None, tables: vec![missed, parts] })
}

/// Builds the program that calls the library from C.
fn c_program(folder: &Path) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "keytally-ffi"]);
    command::run(build)?;
    let (release, program) = (std::path::absolute("target/release")?, folder.join("calls"));
    let mut compiler = Command::new("cc");
    compiler.args([
        "-std=c11",
        "-D_POSIX_C_SOURCE=200809L",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Iinclude",
    ]);
    compiler
        .arg("benches/ffi/calls.c")
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(&release)
        .arg("-lkeytally_ffi");
    compiler.arg(format!("-Wl,-rpath,{}", release.display()));
    command::run(compiler)?;
    Ok(program)
}

/// Describes the machine: the processor, the number of cores, the caches.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let count = std::thread::available_parallelism()?;
    let has_sha = cpus.split_whitespace().any(|flag| flag == "sha_ni" || flag == "sha2");
    let sha = if has_sha { "with" } else { "without" };
    Ok(format!("{model}, {count} cores, {sha} instructions for SHA-256{}", caches()))
}

/// Returns the data caches of a core, such as `, L1 48K, L2 2048K`.
fn caches() -> String {
    let read = |index: u32, file: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
        Some(fs::read_to_string(path).ok()?.trim().to_owned())
    };
    let cache = |index| {
        let (level, kind, size) =
            (read(index, "level")?, read(index, "type")?, read(index, "size")?);
        (kind != "Instruction").then(|| format!(", L{level} {size}"))
    };
    (0..8).filter_map(cache).collect()
}

/// Returns the load of the machine: the average number of runnable threads in the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// Returns the present commit, with the words `and changes` if source files differ from it.
fn commit() -> Result<String> {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changes = output(
        "git",
        &[
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            "*.rs",
            "*.toml",
            "*.c",
            "*.h",
            "*.py",
        ],
    )?;
    Ok(if changes.is_empty() { commit } else { format!("{commit} and changes") })
}

/// Returns the trimmed output of a program.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command::run(command)?.trim().to_owned())
}
