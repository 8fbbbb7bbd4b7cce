//! `cargo xtask fuzz`: gives a target new inputs, for as long as one likes.
//!
//! Stable Rust is enough: the instrumentation that libFuzzer needs is in it. AddressSanitizer would need more, and would
//! have nothing to find, since core has no unsafe code; the programs stop at a wrapped number and at a failed assertion.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command;
use crate::tools;

/// The longest input that is tried, in bytes.
const MAX_LEN: u32 = 1024;
/// An input that takes longer is a find, in seconds.
const TIMEOUT_S: u32 = 10;
/// Where the targets' programs are.
const PROGRAMS: &str = "tools/fuzz/fuzz_targets";
/// Where inputs that reach something new are kept between runs; the small corpora that tests replay are in `tools/fuzz/corpus`.
const FOUND: &str = "target/fuzz/corpus";

/// Runs one target, or each of them in turn, and says how many inputs were tried.
pub(crate) fn run(target: Option<&str>, seconds: u32) -> Result<()> {
    let names = names()?;
    let cargo_fuzz = tools::cargo_fuzz()?;
    if let Some(target) = target {
        ensure!(
            names.iter().any(|name| name == target),
            "there is no target {target}; there are: {}",
            names.join(", ")
        );
    }
    for name in names.iter().filter(|name| target.is_none_or(|target| target == *name)) {
        println!("{name}: {seconds} s");
        let found = format!("{FOUND}/{name}");
        fs::create_dir_all(&found)?;
        let mut fuzz = Command::new(&cargo_fuzz);
        fuzz.args([
            "fuzz",
            "run",
            "--fuzz-dir",
            "tools/fuzz",
            "--target-dir",
            "target/fuzz",
            "--sanitizer",
            "none",
        ]);
        fuzz.args([name, &found, &format!("tools/fuzz/corpus/{name}"), "--"]);
        fuzz.args(["-print_final_stats=1", &format!("-max_total_time={seconds}")]);
        fuzz.args([format!("-max_len={MAX_LEN}"), format!("-timeout={TIMEOUT_S}")]);
        let output = command::run(fuzz).with_context(|| {
            format!("{name} found something; the input is in tools/fuzz/artifacts/{name}, and belongs into tools/fuzz/corpus/{name} once it is mended")
        })?;
        println!("  {} inputs, nothing found", executed(&output)?);
    }
    Ok(())
}

/// The names of all targets.
fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(PROGRAMS).with_context(|| format!("cannot list {PROGRAMS}"))? {
        let file = entry?.file_name();
        names.extend(Path::new(&file).file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// How many inputs libFuzzer says that it tried.
fn executed(output: &str) -> Result<u64> {
    let line = output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    Ok(line.context("libFuzzer said nothing of how many inputs it tried")?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_counted() {
        let output = "Done\nstat::number_of_executed_units: 59003\nstat::average_exec_per_sec:     1903\n";
        assert_eq!(executed(output).unwrap(), 59003);
        assert!(executed("").is_err());
    }
}
