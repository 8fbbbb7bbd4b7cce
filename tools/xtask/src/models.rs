//! The suites `loom` and `shuttle`: core's own code, built to run in a model checker.
//!
//! Each build has a folder of its own, since the flag reaches every crate in it.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::targets::count_tests;
use crate::tools::Found;

/// Every interleaving of a few threads, within bounds.
pub(crate) fn loom(found: &[Found]) -> Result<String> {
    check("loom", "interleavings", found)
}

/// Random schedules, of more threads too.
pub(crate) fn shuttle(found: &[Found]) -> Result<String> {
    check("shuttle", "schedules", found)
}

fn check(model: &str, what: &str, found: &[Found]) -> Result<String> {
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
    Ok(format!("{}, {} {what}", count_tests(&output)?, explored(&output)?))
}

/// The sum of what the tests say that they explored. Nothing at all is a failure: the flag has then not reached the tests.
fn explored(output: &str) -> Result<u64> {
    let mut sum = 0;
    for line in output.split("explored ").skip(1) {
        let count = line.split(' ').next().unwrap_or_default();
        sum += count.parse::<u64>().with_context(|| format!("not a count: explored {count}"))?;
    }
    ensure!(sum > 0, "nothing was explored:\n{output}");
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_explored_is_added_up() {
        let output = "test a ... explored 36 interleavings with at most 9 preemptions: a\nok\n\
                      explored 0 interleavings, which are left to the full form: b\n\
                      explored 3172 interleavings with at most 3 preemptions: c\n";
        assert_eq!(explored(output).unwrap(), 3208);
        assert!(explored("test result: ok. 0 passed").is_err());
    }
}
