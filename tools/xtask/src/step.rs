//! Steps: the test suites and the other checks of CI. Runs them and reports their results in a
//! table.

use core::fmt::Write as _;
use core::time::Duration;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::packages;
use crate::targets::{self, TestFiles};
use crate::tools::{Found, Need};

/// A test suite or another check.
#[derive(Debug)]
pub(crate) struct Step {
    /// The name on the command line and in the table.
    pub(crate) name: &'static str,
    /// The statement that the step verifies, in one line.
    pub(crate) about: &'static str,
    /// The tools that it needs.
    pub(crate) needs: &'static [&'static Need],
    /// Whether `cargo xtask test NAME` runs its long form. `--full` runs every long form.
    pub(crate) full_when_named: bool,
    /// The work that it does.
    pub(crate) work: Work,
}

/// The environment variable that selects the long form of tests.
pub(crate) const FULL: &str = "KEYTALLY_FULL";

/// The work of a step. Its result is a note for the table, such as `12 tests`.
#[derive(Debug)]
pub(crate) enum Work {
    /// Runs these test files. [`Work::OtherTests`] then leaves them out.
    Tests(&'static [TestFiles]),
    /// Runs the unit tests of all libraries and programs, and every test file that no suite names.
    OtherTests,
    /// Calls this function with the tools that were found.
    Call(fn(&[Found]) -> Result<String>),
}

impl Step {
    fn run(&self, full: bool) -> Result<String> {
        let mut found = self.needs.iter().map(|need| need.find()).collect::<Result<Vec<_>>>()?;
        found.extend(full.then(|| (FULL, PathBuf::from("1"))));
        match self.work {
            Work::Tests(files) => targets::run_files(files, &found),
            Work::OtherTests => targets::run_others(&found),
            Work::Call(call) => call(&found),
        }
    }
}

/// Runs all steps in order, also after a failure, and prints the report. Returns whether all
/// passed.
///
/// # Errors
/// If tools are missing. Then no step runs, and the error names all missing tools.
pub(crate) fn run_all(
    steps: &[&Step],
    full: impl Fn(&Step) -> bool,
    install: bool,
) -> Result<bool> {
    let needs: Vec<&Need> = steps.iter().flat_map(|step| step.needs.iter().copied()).collect();
    packages::require(&needs, install)?;
    let mut rows = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("[{}/{}] {}: {}", index + 1, steps.len(), step.name, step.about);
        let started = now();
        let outcome = step.run(full(step)).with_context(|| format!("{} failed", step.name));
        let row = Row { name: step.name, took: started.elapsed(), outcome };
        match &row.outcome {
            Ok(note) => println!("  passed in {:.1} s: {note}", row.took.as_secs_f64()),
            Err(error) => println!("{error:#}"),
        }
        rows.push(row);
    }
    println!("\n{}", report(&rows));
    Ok(rows.iter().all(|row| row.outcome.is_ok()))
}

/// The result of a step: a row of the table.
#[derive(Debug)]
struct Row {
    name: &'static str,
    took: Duration,
    outcome: Result<String>,
}

/// Returns the table. Its last line is `N passed, N failed`, which CI reads.
fn report(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let (result, note) = match &row.outcome {
            Ok(note) => ("passed", note.as_str()),
            Err(_) => ("FAILED", ""),
        };
        let line =
            format!("{:width$}  {result}  {:7.1} s  {note}", row.name, row.took.as_secs_f64());
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let passed = rows.iter().filter(|row| row.outcome.is_ok()).count();
    let failed = rows.iter().filter(|row| row.outcome.is_err()).count();
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{passed} passed, {failed} failed");
    text
}

#[expect(clippy::disallowed_methods, reason = "steps are timed for the report only")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_ends_with_the_counts_of_results() {
        let rows = [
            Row {
                name: "unit",
                took: Duration::from_millis(41_230),
                outcome: Ok("312 tests".to_owned()),
            },
            Row {
                name: "doc",
                took: Duration::from_millis(900),
                outcome: Err(anyhow::anyhow!("no")),
            },
        ];
        assert_eq!(
            report(&rows),
            "unit  passed     41.2 s  312 tests\n\
             doc   FAILED      0.9 s\n\
             \n\
             1 passed, 1 failed"
        );
    }
}
