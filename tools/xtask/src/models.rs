//! The suites `loom` and `shuttle`: core's code, built to run in a model checker.
//!
//! Each build has its own folder, since its `--cfg` flag affects all crates in it.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::targets::count_tests;
use crate::tools::Found;

/// Runs the tests in loom: all interleavings of a few threads, up to a number of preemptions.
pub(crate) fn loom(found: &[Found]) -> Result<String> {
    check("loom", "interleavings", found)
}

/// Runs the tests in shuttle: random schedules of more threads.
pub(crate) fn shuttle(found: &[Found]) -> Result<String> {
    check("shuttle", "schedules", found)
}

/// Runs the tests in the model checker `model`. `unit` is the noun for the result.
fn check(model: &str, unit: &str, found: &[Found]) -> Result<String> {
    let mut test: Command = cargo();
    test.args([
        "test",
        "--release",
        "--no-fail-fast",
        "--package",
        "keytally-core",
        "--test",
        "interleavings",
    ]);
    test.args(["--target-dir", &format!("target/{model}"), "--", "--nocapture"]);
    test.env("RUSTFLAGS", format!("--cfg {model} -D warnings"));
    for (variable, value) in found {
        test.env(variable, value);
    }
    let output = command::run(test)?;
    Ok(format!("{}, {} {unit}", count_tests(&output)?, explored(&output)?))
}

/// Returns the sum of the interleavings or schedules that the tests print. A sum of 0 is an error:
/// then the flag did not reach the tests.
fn explored(output: &str) -> Result<u64> {
    let mut sum = 0;
    for line in output.split("explored ").skip(1) {
        let count = line.split(' ').next().unwrap_or_default();
        sum += count.parse::<u64>().with_context(|| format!("not a count: explored {count}"))?;
    }
    ensure!(sum > 0, "no test explored anything:\n{output}");
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explored_counts_are_added_up() {
        let output = "test a ... explored 36 interleavings with at most 9 preemptions: a\nok\n\
                      explored 0 interleavings, which are left to the full form: b\n\
                      explored 3172 interleavings with at most 3 preemptions: c\n";
        assert_eq!(explored(output).unwrap(), 3208);
        assert!(explored("test result: ok. 0 passed").is_err());
    }
}
