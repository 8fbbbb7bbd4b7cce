//! The suite `budgets`: no hot path takes more instructions than its recorded budget. Unlike times,
//! counts of instructions are repeatable.
//!
//! The paths are those of `benches/src/counted.rs`, and valgrind counts their instructions. Two
//! kinds that differ between processors are left out: the C library's copying of bytes, and
//! SHA-256's compression, for which some processors have instructions. Paths in cache lines count
//! what a check reads from memory, in valgrind's model of a processor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::{self, cargo};
use crate::tools;

const FILE: &str = "benches/budgets.txt";
const PROGRAM: &str = "keytally-counted";
const RECORD: &str = "`cargo xtask bench --budgets` records the counts";
/// The numbers of calls in two runs of a path. Their difference leaves out the program's start.
const CALLS: [i64; 2] = [1000, 3000];
/// The tolerance above a budget: thousandths of the budget, plus a number of instructions.
const SAME_COMPILER: (u64, u64) = (10, 2);
/// The tolerance if the budget is of another compiler.
const OTHER_COMPILER: (u64, u64) = (250, 10);
/// First-level caches, and a last level that holds the program and a sixteenth of a table.
const CACHES: [&str; 4] =
    ["--cache-sim=yes", "--I1=32768,8,64", "--D1=8192,8,64", "--LL=65536,16,64"];

/// Checks that each path is within its budget.
pub(crate) fn check() -> Result<String> {
    let present = count(&tools::VALGRIND[0].path()?)?;
    compare(&fs::read_to_string(FILE)?, &present)
}

/// Records the present counts as budgets.
pub(crate) fn record() -> Result<()> {
    let present = count(&tools::VALGRIND[0].path()?)?;
    fs::write(FILE, &present)?;
    print!("{present}");
    Ok(())
}

/// Counts each path. Returns the text of [`FILE`].
fn count(valgrind: &Path) -> Result<String> {
    let program = built(&["--package", "keytally-benches"], PROGRAM)?;
    let mut text = format!(
        "# Instructions: {RECORD}; the suite `budgets` compares them.\n# {}, {}\n",
        tools::compiler()?,
        std::env::consts::ARCH
    );
    for line in command::run(Command::new(&program))?.lines() {
        let (path, about) = line.split_once('\t').with_context(|| format!("not a path: {line}"))?;
        let count = if about.ends_with("cache lines in 100 calls") {
            100 * difference(valgrind, &program, path, &CACHES, &["DLmr", "DLmw"])?
        } else {
            difference(valgrind, &program, path, &[], &["Ir"])?
        } / (CALLS[1] - CALLS[0]);
        ensure!(count > 0, "{path} took no instruction in {}", program.display());
        text += &format!("{path:<16}{count:>6}  {about}\n");
    }
    Ok(text)
}

/// Counts two runs of a path under callgrind. Returns the difference of their events.
fn difference(
    valgrind: &Path,
    program: &Path,
    path: &str,
    options: &[&str],
    events: &[&str],
) -> Result<i64> {
    let [few, more] = CALLS.map(|calls| {
        let out = tempfile::NamedTempFile::new()?;
        let mut run = Command::new(valgrind);
        run.args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]).args(options);
        run.arg(format!("--callgrind-out-file={}", out.path().display()));
        // The environment must not change the instructions before the path.
        run.arg(program).args([path, &calls.to_string()]).env_clear();
        command::run(run)?;
        own_events(&fs::read_to_string(out.path())?, events)
    });
    Ok(more? - few?)
}

/// Adds up events of the program itself in callgrind's output, without SHA-256's compression.
fn own_events(profile: &str, events: &[&str]) -> Result<i64> {
    let (mut counted, mut object, mut function, mut sum) = (Vec::new(), "", "", 0);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        match line.split_once('=').or_else(|| line.split_once(": ")) {
            Some(("events", all)) => {
                counted = all.split(' ').map(|event| events.contains(&event)).collect();
            }
            Some(("ob", name)) => object = name,
            Some(("fn", name)) => function = name,
            // The next line has the costs of the called function, which other lines repeat.
            Some(("calls", _)) => drop(lines.next()),
            None if object.ends_with(PROGRAM)
                && !(function.contains("sha256") && function.contains("compress")) =>
            {
                let costs = line.split(' ').skip(1).zip(&counted).filter(|(_, counted)| **counted);
                let costs: Result<i64, _> = costs.map(|(cost, _)| cost.parse::<i64>()).sum();
                sum += costs.with_context(|| format!("not costs: {line}"))?;
            }
            _ => {}
        }
    }
    Ok(sum)
}

/// Builds a package in release. Returns the path of one of its built files.
pub(crate) fn built(package: &[&str], file: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--message-format=json-render-diagnostics"]).args(package);
    let messages = command::run(build)?;
    let files = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    files
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|path| path.as_str().map(PathBuf::from))
        .find(|path| path.file_name().is_some_and(|name| name == file))
        .with_context(|| format!("cargo built no {file}"))
}

/// Returns each path, its count and its description.
fn budgets<'t>(text: &'t str) -> Result<Vec<(&'t str, u64, &'t str)>> {
    let budget = |line: &'t str| {
        let (path, rest) = line.split_once(' ')?;
        let (count, about) = rest.trim_start().split_once("  ")?;
        Some((path, count.parse().ok()?, about))
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| budget(line).with_context(|| format!("not a budget: {line}"))).collect()
}

/// Compares present counts with recorded ones.
fn compare(recorded: &str, present: &str) -> Result<String> {
    // The second line names the compiler and the architecture.
    let [before, now] = [recorded, present].map(|text| text.lines().nth(1).unwrap_or_default());
    if before.rsplit(", ").next() != now.rsplit(", ").next() {
        return Ok(format!("not compared: the budgets are of {before}"));
    }
    let same = before == now;
    let (permille, more) = if same { SAME_COMPILER } else { OTHER_COMPILER };
    let allowed = |count: u64| count + count * permille / 1000 + more;
    let (recorded, present) = (budgets(recorded)?, budgets(present)?);
    ensure!(
        recorded.iter().map(|(path, ..)| path).eq(present.iter().map(|(path, ..)| path)),
        "{FILE} names other paths than {PROGRAM}: {RECORD}"
    );
    let (mut faults, mut note) = (String::new(), String::new());
    for ((path, count, about), (_, budget, _)) in present.iter().zip(&recorded) {
        if *count > allowed(*budget) {
            faults += &format!("{path} takes {count}; its budget is {budget} ({about})\n");
        } else if same && allowed(*count) < *budget {
            note += &format!("; {path} takes less: record it");
        }
    }
    ensure!(faults.is_empty(), "{faults}If the change is worth this cost, {RECORD}.");
    if !same {
        note = format!(", with a wide tolerance: the budgets are of {before}");
    }
    Ok(format!("{} paths{note}", present.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(compiler: &str, budgets: &[(&str, u64)]) -> String {
        let lines = budgets.iter().map(|(path, count)| format!("{path:<16}{count:>6}  a call\n"));
        format!("# Written by a test.\n# {compiler}\n{}", lines.collect::<String>())
    }

    #[test]
    fn own_events_leave_out_processor_dependent_code() {
        let profile = "events: Ir Dr\n\
            ob=/a b/target/keytally-counted\nfn=main\n3 5 1\n\
            cob=/lib/libc.so.6\ncfn=memcpy\ncalls=3 0\n4 70 9\n4 6 2\n\
            fn=sha2::sha256::soft::compress\n7 400 9\n\n\
            ob=/lib/libc.so.6\nfn=memcpy\n0 70 9\n\n\
            ob=/a b/target/keytally-counted\nfn=main\n1 1\ntotals: 482 21\n";
        assert_eq!(own_events(profile, &["Ir"]).unwrap(), 12);
        assert_eq!(own_events(profile, &["Dr"]).unwrap(), 3);
        assert!(own_events(&profile.replace("1 1\nt", "1 x\nt"), &["Ir"]).is_err());
    }

    #[test]
    fn path_above_its_budget_is_an_error() {
        let recorded = text("rustc 1, x86_64", &[("gate", 1000)]);
        let with = |count| compare(&recorded, &text("rustc 1, x86_64", &[("gate", count)]));
        assert_eq!(with(1012).unwrap(), "1 paths");
        let error = with(1013).unwrap_err().to_string();
        assert!(error.starts_with("gate takes 1013; its budget is 1000 (a call)"), "{error}");
        assert_eq!(with(900).unwrap(), "1 paths; gate takes less: record it");
    }

    #[test]
    fn other_compiler_widens_the_tolerance_other_cpu_skips() {
        let recorded = text("rustc 1, x86_64", &[("gate", 1000)]);
        let with = |compiler, count| compare(&recorded, &text(compiler, &[("gate", count)]));
        assert!(with("rustc 2, x86_64", 1260).unwrap().contains("wide tolerance"));
        assert!(with("rustc 2, x86_64", 1261).is_err());
        assert!(with("rustc 1, aarch64", 9000).unwrap().contains("not compared"));
    }

    #[test]
    fn path_without_budget_or_budget_without_path_is_an_error() {
        let one = text("rustc 1, x86_64", &[("gate", 1)]);
        let two = text("rustc 1, x86_64", &[("gate", 1), ("new", 1)]);
        assert!(compare(&one, &two).is_err());
        assert!(compare(&two, &one).is_err());
        assert!(compare(&one, &one.replace("     1", "  many")).is_err());
    }
}
