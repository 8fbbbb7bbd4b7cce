//! The suites `loom` and `shuttle`: core's code, built to run in a model checker.

use anyhow::Result;

use crate::command::{self, cargo};
use crate::targets::{count_tests, target_folder};

/// Runs the tests in loom: all interleavings of a few threads, up to a number of preemptions.
pub(crate) fn loom(full: bool) -> Result<String> {
    check("loom", "interleavings", full)
}

/// Runs the tests in shuttle: random schedules of more threads.
pub(crate) fn shuttle(full: bool) -> Result<String> {
    check("shuttle", "schedules", full)
}

/// Runs the tests in the model checker `model`, and adds up the interleavings or schedules that
/// they print. The build has its own folder, since the flag affects all crates in it. Without the
/// flag, the file has no tests, which is an error.
fn check(model: &str, unit: &str, full: bool) -> Result<String> {
    let mut test = cargo();
    test.args(["test", "--release", "--no-fail-fast", "--package", "keytally-core"]);
    test.args(["--test", "interleavings", "--target-dir"]).arg(target_folder()?.join(model));
    test.args(["--", "--nocapture"]);
    test.env("RUSTFLAGS", format!("--cfg {model} -D warnings"));
    test.envs(full.then_some(("KEYTALLY_FULL", "1")));
    let output = command::run(test)?;
    let counts = output.split("explored ").skip(1).filter_map(|rest| rest.split(' ').next());
    let explored: u64 = counts.filter_map(|count| count.parse::<u64>().ok()).sum();
    Ok(format!("{}, {explored} {unit}", count_tests(&output)?))
}
