//! valgrind reports no branch and no index of a key check that depends on a secret, or on whether a
//! key id exists. Two functions are excepted: one makes the result of the comparison a branch, the
//! other finds the reason for the log.
//!
//! The program is `tools/audit/secrets`, its own workspace, since its build needs valgrind's
//! headers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of this module")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static PROGRAM: LazyLock<PathBuf> =
    LazyLock::new(|| support::build("secrets", &[]).join("keytally-secrets"));

/// memcheck's messages for a branch and for an index.
const REPORTS: [&str; 2] =
    ["Conditional jump or move depends on uninitialised", "Use of uninitialised value"];

#[test]
fn comparison_that_stops_early_is_reported() {
    assert!(!reports("control").is_empty());
}

#[test]
fn only_the_match_depends_on_a_secret() {
    assert_only("secrets", "src/gate/secret_match.rs", "new");
}

#[test]
fn only_the_reason_for_the_log_depends_on_known_ids() {
    assert_only("ids", "src/gate/refusal.rs", "mismatch_reason");
}

/// Asserts that a run of the program causes reports in the function `name` of a file in core, and
/// in no other function.
fn assert_only(run: &str, file: &str, name: &str) {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../core");
    let source = fs::read_to_string(core.join(file)).unwrap();
    assert_eq!(source.matches(&format!("fn {name}(")).count(), 1, "functions {name} in {file}");

    let frame = format!(": {name} ({file}:");
    let (excepted, others): (Vec<_>, Vec<_>) =
        reports(run).into_iter().partition(|stack| stack[0].contains(&frame));
    assert!(others.is_empty(), "reports outside of {name} in {file}: {others:#?}");
    assert!(!excepted.is_empty(), "valgrind reports nothing in {name}");
}

/// Runs the program under valgrind. Returns the stack of each report, with the innermost frame
/// first.
fn reports(run: &str) -> Vec<Vec<String>> {
    let mut watch = support::valgrind();
    watch.args(["--leak-check=no", "--read-inline-info=yes", "--error-limit=no"]);
    let output = support::run(watch.arg(&*PROGRAM).arg(run));
    let mut reports = Vec::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        if REPORTS.iter().any(|report| line.contains(report)) {
            let is_frame = |line: &&str| line.contains("   at 0x") || line.contains("   by 0x");
            let mut stack = Vec::new();
            while let Some(frame) = lines.next_if(is_frame) {
                stack.push(frame.to_owned());
            }
            reports.push(stack);
        }
    }
    reports
}
