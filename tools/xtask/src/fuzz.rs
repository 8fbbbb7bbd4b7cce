//! `cargo xtask fuzz`: runs the fuzz targets with new inputs, for a given time.
//!
//! Stable Rust has the instrumentation that libFuzzer needs. AddressSanitizer would need a nightly
//! compiler. It could check only the target `c_calls`, since core has no unsafe code. The programs
//! stop at an arithmetic overflow and at a failed assertion.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command;
use crate::tools;

/// The maximum length of an input, in bytes.
const MAX_LEN: u32 = 1024;
/// The maximum time for an input, in seconds. One that takes longer is a failure.
const TIMEOUT_S: u32 = 10;
/// The folder of the targets' programs.
const PROGRAMS: &str = "tools/fuzz/fuzz_targets";
/// The folder in which runs keep inputs that reach new code. Tests replay the smaller corpora in
/// `tools/fuzz/corpus`.
const KEPT: &str = "target/fuzz/corpus";

/// Runs one target, or all in turn, and prints the number of inputs.
pub(crate) fn run(target: Option<&str>, seconds: u32) -> Result<()> {
    let names = names()?;
    let cargo_fuzz = tools::cargo_fuzz()?;
    if let Some(target) = target {
        ensure!(
            names.iter().any(|name| name == target),
            "there is no target {target}; the targets are {}",
            names.join(", ")
        );
    }
    for name in names.iter().filter(|name| target.is_none_or(|target| target == *name)) {
        println!("{name}: {seconds} s");
        let kept = format!("{KEPT}/{name}");
        fs::create_dir_all(&kept)?;
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
        fuzz.args([name, &kept, &format!("tools/fuzz/corpus/{name}"), "--"]);
        fuzz.args(["-print_final_stats=1", &format!("-max_total_time={seconds}")]);
        fuzz.args([format!("-max_len={MAX_LEN}"), format!("-timeout={TIMEOUT_S}")]);
        let output = command::run(fuzz).with_context(|| {
            format!("{name} failed on an input, which is in tools/fuzz/artifacts/{name}; when it is fixed, move the input to tools/fuzz/corpus/{name}")
        })?;
        println!("  {} inputs, no failure", executed(&output)?);
    }
    Ok(())
}

/// Returns the names of all targets.
fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(PROGRAMS).with_context(|| format!("cannot list {PROGRAMS}"))? {
        let file = entry?.file_name();
        names.extend(Path::new(&file).file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Returns the number of inputs in libFuzzer's statistics.
fn executed(output: &str) -> Result<u64> {
    let line = output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    Ok(line.context("libFuzzer did not print the number of inputs")?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_give_the_number_of_inputs() {
        let output =
            "Done\nstat::number_of_executed_units: 59003\nstat::average_exec_per_sec:     1903\n";
        assert_eq!(executed(output).unwrap(), 59003);
        assert!(executed("").is_err());
    }
}
