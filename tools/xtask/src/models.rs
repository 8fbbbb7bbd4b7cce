//! The suites `loom` and `shuttle`: core's code, built to run in a model checker.

use anyhow::{Result, ensure};

use crate::command::{self, cargo};
use crate::step::Form;
use crate::targets::{PROFILE, count_tests, target_folder};

/// The tests that take most of the time of the suite `loom`. Each has three inserters.
const SLOW: [&str; 3] = [
    "inserter_that_resumes_late_changes_no_other_slot",
    "inserters_that_disagree_about_the_bucket_share_a_slot",
    "three_inserters_of_one_subject_share_a_slot",
];

/// Runs the tests in loom: all interleavings of a few threads, up to a number of preemptions. In
/// the short form, threads of the slow tests switch only where one waits or ends.
pub(crate) fn loom(form: Form) -> Result<String> {
    if form > Form::Short {
        return check("loom", "interleavings", form, &[], None);
    }
    let skipped = SLOW.iter().flat_map(|name| ["--skip", name]).collect::<Vec<_>>();
    let others = check("loom", "interleavings", form, &skipped, None)?;
    let bound = Some(("LOOM_MAX_PREEMPTIONS", "0"));
    let slow = check("loom", "interleavings", form, &SLOW, bound)?;
    ensure!(slow.starts_with("3 tests, "), "not one test for each of {SLOW:?}: {slow}");
    Ok(format!("{others}; without preemption {slow}"))
}

/// Runs the tests in shuttle: random schedules of more threads.
pub(crate) fn shuttle(form: Form) -> Result<String> {
    check("shuttle", "schedules", form, &[], None)
}

/// Runs the tests in the model checker `model`, and adds up the interleavings or schedules that
/// they print. The build has its own folder, since the flag affects all crates in it. Without the
/// flag, the file has no tests, which is an error.
fn check(
    model: &str,
    unit: &str,
    form: Form,
    arguments: &[&str],
    variable: Option<(&str, &str)>,
) -> Result<String> {
    let mut test = cargo();
    test.arg("test").args(PROFILE).args(["--no-fail-fast", "--package", "keytally-core"]);
    test.args(["--test", "interleavings", "--target-dir"]).arg(target_folder()?.join(model));
    test.args(["--", "--nocapture"]).args(arguments);
    test.env("RUSTFLAGS", format!("--cfg {model} -D warnings"));
    test.envs(variable).envs((form == Form::Full).then_some(("KEYTALLY_FULL", "1")));
    let output = command::run(test)?;
    let counts = output.split("explored ").skip(1).filter_map(|rest| rest.split(' ').next());
    let explored: u64 = counts.filter_map(|count| count.parse::<u64>().ok()).sum();
    Ok(format!("{}, {explored} {unit}", count_tests(&output)?))
}
