//! `cargo xtask bench`: measures speed, also of other implementations, and writes the pages with
//! the results.
//!
//! The implementations of a table take turns: in a turn, one of them runs for some milliseconds. A
//! round is one turn of each. The programs are in `benches`: the benchmark `speed` and two Python
//! scripts measure, and the example `report` writes the pages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::command::{self, cargo};
use crate::targets::{SERVICES, target_folder};
use crate::{nginx, python, suites};

/// The groups of measurements.
const GROUPS: [&str; 13] = [
    "decide",
    "limiter",
    "gate",
    "crypto",
    "contention",
    FLOOD,
    FFI,
    BUILD,
    PYTHON,
    CALL,
    NGINX,
    TOWER,
    FLEET,
];

/// The group that builds each artifact.
const BUILD: &str = "build";

/// The group that measures the latency of each of a million calls.
const FLOOD: &str = "flood";

/// The group that measures calls from C.
const FFI: &str = "ffi";

/// The group that a Python script measures: the module and other implementations.
const PYTHON: &str = "python";

/// The group that measures the parts of a call from Python.
const CALL: &str = "call";

/// The group that measures nginx with and without the module.
const NGINX: &str = "nginx";

/// The group that measures the tower layers and tower_governor.
const TOWER: &str = "tower";

/// The group that measures checks with credits of a fleet, and a script in Redis.
const FLEET: &str = "fleet";

/// The number of rounds, and the length of a turn in milliseconds.
const FULL: (u32, u32) = (7, 200);
/// The number of rounds, and the length of a turn in milliseconds, with `--quick`.
const QUICK: (u32, u32) = (3, 30);

/// The options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Measures for about three minutes instead of half an hour, with fewer sizes and shorter
    /// turns, without floods, builds, Python, nginx, tower and fleet, and only prints the tables.
    #[arg(long)]
    quick: bool,
    /// Measures nothing, and only writes the pages from benches/RESULTS.md.
    #[arg(long, conflicts_with_all = ["quick", "groups"])]
    pages: bool,
    /// Only counts the instructions of the hot paths, and writes benches/budgets.txt.
    #[arg(long, conflicts_with_all = ["quick", "groups", "pages"])]
    budgets: bool,
    /// Replaces the results of the named groups in benches/RESULTS.md, and keeps the others.
    #[arg(long, requires = "groups", conflicts_with = "quick")]
    keep: bool,
    /// The groups to measure [default: all]. The tables of named groups are only printed, unless
    /// --keep is given.
    #[arg(value_name = "GROUP", value_parser = PossibleValuesParser::new(GROUPS))]
    groups: Vec<String>,
}

/// Measures. Prints the tables, and which targets are met. Writes the pages if all groups were
/// measured, or with `--keep`.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.budgets {
        suites::record("keytally-audit", "budgets")?;
        print!("{}", fs::read_to_string("benches/budgets.txt")?);
        return Ok(());
    }
    if options.pages {
        print!("{}", command::run(report(&["pages"]))?);
        return Ok(());
    }
    let Options { groups, quick, keep, .. } = options;
    let is_wanted = |name: &&str| match groups.as_slice() {
        [] => !*quick || ![FLOOD, BUILD, PYTHON, CALL, NGINX, TOWER, FLEET].contains(name),
        groups => groups.iter().any(|group| group == name),
    };
    let (rounds, turn_ms) = if *quick { QUICK } else { FULL };
    let folder = tempfile::tempdir()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let variables = [
        ("KEYTALLY_BENCH_FOLDER", folder.path().display().to_string()),
        ("KEYTALLY_BENCH_ROUNDS", rounds.to_string()),
        ("KEYTALLY_BENCH_TURN_MS", turn_ms.to_string()),
        ("KEYTALLY_BENCH_LOAD", load.split(' ').next().unwrap_or_default().to_owned()),
    ];
    let wanted: Vec<&str> = GROUPS.into_iter().filter(is_wanted).collect();
    for name in &wanted {
        let mut bench = match *name {
            PYTHON => python::bench()?,
            CALL => python_parts()?,
            NGINX => nginx::bench()?,
            TOWER => service(name, &["--features", "axum"]),
            FLEET => service(name, &[]),
            name => speed(name),
        };
        if *name == FFI {
            bench.env("KEYTALLY_BENCH_C", c_program(folder.path())?);
        }
        bench.envs(variables.clone());
        bench.envs(quick.then_some(("KEYTALLY_BENCH_QUICK", "1")));
        command::run(bench)?;
    }
    let mode = match (groups.is_empty(), keep) {
        _ if *quick => "print",
        (true, _) => "replace",
        (_, true) => "keep",
        (_, false) => "print",
    };
    let path = folder.path().display().to_string();
    let mut report = report(&[&[mode, path.as_str()], wanted.as_slice()].concat());
    report.envs(variables);
    print!("{}", command::run(report)?);
    Ok(())
}

/// Returns the command that measures a group of the benchmark `speed`.
fn speed(group: &str) -> Command {
    let mut bench = cargo();
    bench.args(["bench", "--package", "keytally-benches", "--bench", "speed", "--", group]);
    bench
}

/// Returns the command that measures a group of the second workspace, by the benchmark of this name
/// in the package `keytally-NAME`.
fn service(name: &str, options: &[&str]) -> Command {
    let mut bench = cargo();
    bench.args(["bench", "--manifest-path", SERVICES, "--package", &format!("keytally-{name}")]);
    bench.args(options).args(["--bench", name]);
    bench
}

/// Returns the command that measures the parts of a call from Python.
fn python_parts() -> Result<Command> {
    let library = built("keytally-benches-python", "libkeytally_parts.so")?;
    let mut measure = Command::new(python::bench()?.get_program());
    measure.arg("benches/python/measure.py").arg(library);
    Ok(measure)
}

/// Builds a package in release. Returns the path of one of its built files.
fn built(package: &str, file: &str) -> Result<PathBuf> {
    command::run(cargo().args(["build", "--release", "--package", package]))?;
    Ok(target_folder()?.join("release").join(file))
}

/// Returns the command that prints or writes the results.
fn report(arguments: &[&str]) -> Command {
    let mut report = cargo();
    report.args(["run", "--release", "--quiet", "--package", "keytally-benches"]);
    report.args(["--example", "report", "--"]).args(arguments);
    report
}

/// Builds the program that calls the library from C.
fn c_program(folder: &Path) -> Result<PathBuf> {
    let library = built("keytally-ffi", "libkeytally_ffi.so")?;
    let program = folder.join("calls");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O2", "-Wall", "-Wextra", "-Werror"]);
    compiler.args(["-Iinclude", "benches/ffi/calls.c", "-o"]).arg(&program).arg(library);
    command::run(compiler)?;
    Ok(program)
}
