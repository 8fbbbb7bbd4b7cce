//! The suites `loom` and `shuttle`: the code of core and of a fleet's plans, built to run in a
//! model checker.

use anyhow::{Result, ensure};

use crate::command::{self, cargo};
use crate::step::Form;
use crate::targets::{PROFILE, SERVICES, WORKSPACES, count_tests, target_folder};

/// The tests that take most of the time of the suite `loom`, by their number of preemptions in the
/// short form. The first ones have three inserters.
const SLOW: [(&str, &[&str]); 2] = [
    (
        "0",
        &[
            "inserter_that_resumes_late_changes_no_other_slot",
            "inserters_that_disagree_about_the_bucket_share_a_slot",
            "three_inserters_of_one_subject_share_a_slot",
        ],
    ),
    (
        "2",
        &[
            "hit_and_two_reuses_of_a_slot_charge_their_own_subjects",
            "inserters_that_take_over_one_lock_share_a_slot",
            "inserters_with_clocks_that_disagree_share_a_slot",
            "insertion_into_the_last_slot_never_reports_full",
            "lock_and_reservation_of_a_killed_inserter_are_taken_over",
        ],
    ),
];

/// Runs the tests in loom: all interleavings of a few threads, up to a number of preemptions, which
/// is lower for [`SLOW`] tests in the short form.
pub(crate) fn loom(form: Form) -> Result<String> {
    let fleet = check(FLEET, "loom", "interleavings", form, &[], None)?;
    if form > Form::Short {
        let core = check(CORE, "loom", "interleavings", form, &[], None)?;
        return Ok(format!("{core}; of a fleet {fleet}"));
    }
    let skipped = SLOW.iter().flat_map(|(_, names)| *names).flat_map(|name| ["--skip", name]);
    let mut note = check(CORE, "loom", "interleavings", form, &skipped.collect::<Vec<_>>(), None)?;
    for (bound, names) in SLOW {
        let variable = Some(("LOOM_MAX_PREEMPTIONS", bound));
        let slow = check(CORE, "loom", "interleavings", form, names, variable)?;
        let each = slow.starts_with(&format!("{} tests, ", names.len()));
        ensure!(each, "not one test for each of {names:?}: {slow}");
        note += &format!("; with {bound} preemptions {slow}");
    }
    Ok(note + "; of a fleet " + &fleet)
}

/// Runs the tests in shuttle: random schedules of more threads.
pub(crate) fn shuttle(form: Form) -> Result<String> {
    check(CORE, "shuttle", "schedules", form, &[], None)
}

/// The manifest, package and file of the tests of core.
const CORE: [&str; 3] = [WORKSPACES[0], "keytally-core", "interleavings"];

/// Those of a fleet's plans, which have few threads, so there is no bound on preemptions.
const FLEET: [&str; 3] = [SERVICES, "keytally-fleet-plan", "credit_interleavings"];

/// Runs the tests in the model checker `model`, and adds up the interleavings or schedules that
/// they print. The build has its own folder, since the flag affects all crates in it. Without the
/// flag, the file has no tests, which is an error.
fn check(
    [manifest, package, file]: [&str; 3],
    model: &str,
    unit: &str,
    form: Form,
    arguments: &[&str],
    variable: Option<(&str, &str)>,
) -> Result<String> {
    let mut test = cargo();
    test.arg("test").args(PROFILE).args(["--no-fail-fast", "--manifest-path", manifest]);
    test.args(["--package", package, "--test", file]);
    test.arg("--target-dir").arg(target_folder()?.join(model));
    test.args(["--", "--nocapture"]).args(arguments);
    test.env("RUSTFLAGS", format!("--cfg {model} -D warnings"));
    test.envs(variable).envs((form == Form::Full).then_some(("KEYTALLY_FULL", "1")));
    let output = command::run(test)?;
    let counts = output.split("explored ").skip(1).filter_map(|rest| rest.split(' ').next());
    let explored: u64 = counts.filter_map(|count| count.parse::<u64>().ok()).sum();
    Ok(format!("{}, {explored} {unit}", count_tests(&output)?))
}
