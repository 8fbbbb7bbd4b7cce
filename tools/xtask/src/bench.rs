//! `cargo xtask bench`: measures speed, also of other implementations, and writes the pages with
//! the results.
//!
//! The implementations of a table take turns: in a turn, one of them runs for some milliseconds. A
//! round is one turn of each. `bench/results.rs` reads and writes `benches/RESULTS.md`, from which
//! all other pages are written. `bench/plots.rs` draws the plots.

mod plots;
mod results;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use clap::builder::PossibleValuesParser;

use self::results::{Group, Results, cells};
use crate::command::{self, cargo};
use crate::{budgets, nginx, python};

/// The groups of measurements.
const GROUPS: [&str; 9] =
    ["decide", "limiter", "gate", "crypto", "contention", "flood", FFI, PYTHON, NGINX];

/// The group that measures calls from C.
const FFI: &str = "ffi";

/// The group that a Python script measures: the module and other implementations.
const PYTHON: &str = "python";

/// The group that measures nginx with and without the module.
const NGINX: &str = "nginx";

/// The number of rounds, and the length of a turn in milliseconds.
const FULL: (u32, u32) = (5, 500);
/// The number of rounds, and the length of a turn in milliseconds, with `--quick`.
const QUICK: (u32, u32) = (3, 60);

/// The options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Measures for about three minutes instead of twenty-five, with fewer sizes and shorter turns,
    /// and only prints the tables.
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
        return budgets::record();
    }
    if options.pages {
        return write_pages();
    }
    let Options { groups, quick, keep, .. } = options;
    let mut results = Results::load(Path::new("."))?;
    if !keep {
        results.clear();
    }
    let (rounds, turn_ms) = if *quick { QUICK } else { FULL };
    let folder = tempfile::tempdir()?;
    let circumstances = circumstances(&format!("{rounds} of {turn_ms} ms"))?;
    for name in GROUPS {
        if !groups.is_empty() && groups.iter().all(|group| group != name) {
            continue;
        }
        let mut bench = match name {
            PYTHON => python::bench()?,
            NGINX => nginx::bench()?,
            _ => {
                let mut bench = cargo();
                bench.args(["bench", "--package", "keytally-benches", "--bench", "speed", "--"]);
                bench.arg(name);
                bench
            }
        };
        if name == FFI {
            bench.env("KEYTALLY_BENCH_C", c_program(folder.path())?);
        }
        bench.env("KEYTALLY_BENCH_FOLDER", folder.path());
        bench.env("KEYTALLY_BENCH_ROUNDS", rounds.to_string());
        bench.env("KEYTALLY_BENCH_TURN_MS", turn_ms.to_string());
        bench.envs(quick.then_some(("KEYTALLY_BENCH_QUICK", "1")));
        command::run(bench)?;
        let measured = fs::read(folder.path().join(format!("{name}.json")))?;
        let group: Group = serde_json::from_slice(&measured)
            .with_context(|| format!("invalid results of {name}"))?;
        let text = group.text(&circumstances);
        println!("{text}");
        results.put(&text);
    }
    println!("{}", compare(&results, &fs::read_to_string(TARGETS)?)?);
    if *quick || !groups.is_empty() && !keep {
        return Ok(());
    }
    results.save()?;
    write_pages()
}

/// Builds the program that calls the library from C.
fn c_program(folder: &Path) -> Result<PathBuf> {
    let library = budgets::built(&["--package", "keytally-ffi"], "libkeytally_ffi.so")?;
    let program = folder.join("calls");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O2", "-Wall", "-Wextra", "-Werror"]);
    compiler.args(["-Iinclude", "benches/ffi/calls.c", "-o"]).arg(&program).arg(library);
    command::run(compiler)?;
    Ok(program)
}

/// The circumstances of a measurement, and the commands of a shell that print them.
const CIRCUMSTANCES: &[(&str, &str)] = &[
    ("processor", "lscpu | sed -n 's/^Model name: *//p'"),
    ("cores", "nproc"),
    ("instructions for SHA-256", "grep -qwE 'sha_ni|sha2' /proc/cpuinfo && echo yes || echo no"),
    ("caches", "lscpu -C=NAME,ONE-SIZE | sed '1d' | tr -s ' ' | paste -sd,"),
    ("compiler", "rustc --version"),
    ("date", "date -u +%F"),
    ("commit", "git describe --always --exclude='*' --abbrev=12 --dirty=' and changes'"),
    ("runnable threads in the minute before", "cut -d' ' -f1 /proc/loadavg"),
];

/// Returns the circumstances as rows of a table.
fn circumstances(turns: &str) -> Result<String> {
    let mut rows = format!("| turns of each implementation | {turns} |\n");
    for (name, script) in CIRCUMSTANCES {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).env("LC_ALL", "C");
        rows += &format!("| {name} | {} |\n", command::run(shell)?.trim());
    }
    Ok(rows)
}

/// The targets of speed and memory. The file describes its format.
const TARGETS: &str = "benches/targets.txt";

/// Returns a line for each target of a measured table: whether it is met, and the figures.
fn compare(results: &Results, targets: &str) -> Result<String> {
    let mut text = String::new();
    for line in targets.lines().filter(|line| !line.starts_with('#')) {
        let parts =
            line.split_once(": ").and_then(|(table, sums)| Some((table, sums.split_once(" <= ")?)));
        let (table, (least, most)) = parts.with_context(|| format!("not a target: {line}"))?;
        if results.table(table).is_err() {
            continue;
        }
        let term = |term: &str| {
            let (factor, figure) = term.split_once(" × ").unwrap_or(("1", term));
            match figure.split_once(" @ ") {
                Some((row, column)) => {
                    Ok(factor.parse::<f64>()? * results.figure(table, row, column)?)
                }
                None => term.parse::<f64>().with_context(|| format!("not a number: {term}")),
            }
        };
        let sum = |terms: &str| terms.split(" + ").map(term).sum::<Result<f64>>();
        text += &match (sum(least), sum(most)) {
            (Ok(least), Ok(most)) if least <= most => {
                format!("met      {line} ({least:.2} <= {most:.2})\n")
            }
            (Ok(least), Ok(most)) => format!("NOT MET  {line} ({least:.2} > {most:.2})\n"),
            (Err(error), _) | (_, Err(error)) => format!("unknown  {line} ({error})\n"),
        };
    }
    Ok(text)
}

/// The pages with tables of results.
const PAGES: [&str; 2] = ["README.md", PERFORMANCE];

/// The page with plots.
const PERFORMANCE: &str = "docs/PERFORMANCE.md";

/// Writes the pages with results whose content changes.
fn write_pages() -> Result<()> {
    for (path, text) in pages(Path::new("."))? {
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            fs::write(&path, text)?;
            println!("wrote {path}");
        }
    }
    Ok(())
}

/// Returns the path and the text of each page with results, and of each plot.
fn pages(root: &Path) -> Result<Vec<(String, String)>> {
    let results = Results::load(root)?;
    let mut pages = plots::all(&fs::read_to_string(root.join(PERFORMANCE))?, &results)?;
    for path in PAGES {
        let page = fs::read_to_string(root.join(path))?;
        pages.push((
            path.to_owned(),
            filled(&page, &results).with_context(|| format!("{path} cannot be filled"))?,
        ));
    }
    Ok(pages)
}

/// Fills the tables of a page with figures of the results.
///
/// A row is filled if its first cell ends with a comment `<!-- TABLE: ROW -->`. The head of the
/// table names the columns.
fn filled(page: &str, results: &Results) -> Result<String> {
    let (mut text, mut columns) = (String::new(), Vec::<&str>::new());
    for line in page.lines() {
        let row =
            line.strip_prefix("| ").and_then(|row| row.split_once(" -->")?.0.split_once(" <!-- "));
        if let Some((label, source)) = row {
            let (table, row) =
                source.split_once(": ").with_context(|| format!("not a row: {source}"))?;
            text += &format!("| {label} <!-- {source} --> |");
            for column in columns.iter().skip(1) {
                text += &format!(" {} |", results.cell(table, row, column)?);
            }
        } else {
            if line.starts_with("| ") {
                columns = cells(line);
            }
            text += line;
        }
        text += "\n";
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
    }

    #[test]
    fn generated_pages_match_the_results() {
        for (path, text) in pages(root()).unwrap() {
            let old = fs::read_to_string(root().join(&path)).unwrap();
            assert!(text == old, "{path}: `cargo xtask bench --pages` writes it");
        }
    }

    #[test]
    fn every_target_names_measured_figures() {
        let targets = fs::read_to_string(root().join(TARGETS)).unwrap();
        let text = compare(&Results::load(root()).unwrap(), &targets).unwrap();
        let known = text.lines().filter(|line| !line.starts_with("unknown")).count();
        assert_eq!(known, targets.lines().filter(|line| !line.starts_with('#')).count(), "{text}");
    }

    #[test]
    fn target_is_met_missed_or_unknown() {
        let mut results = Results(String::new());
        results.put("t\n\n### t/a\n\n| ns | 1 |\n|---|---:|\n| a | 5 |\n| b | 20 (4.00 ×) |\n");
        let verdict = |line| compare(&results, line).map(|text| text[..7].to_owned());
        assert_eq!(verdict("t/a: 3 × a @ 1 <= b @ 1").unwrap(), "met    ");
        assert_eq!(verdict("t/a: b @ 1 <= 2 × a @ 1 + 9").unwrap(), "NOT MET");
        assert_eq!(verdict("t/a: c @ 1 <= 9").unwrap(), "unknown");
        assert!(verdict("t/a: a @ 1").is_err());
    }
}
