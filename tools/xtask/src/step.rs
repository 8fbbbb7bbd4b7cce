//! Steps: the test suites and the other checks of CI. Runs them and reports their results in a
//! table.

use core::time::Duration;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::targets::{self, TestFiles, Variables};
use crate::tools::{self, Tool};

/// A test suite or another check.
#[derive(Debug)]
pub(crate) struct Step {
    /// The name on the command line and in the table.
    pub(crate) name: &'static str,
    /// The statement that the step verifies, in one line.
    pub(crate) about: &'static str,
    /// The tools of the system that it needs.
    needs: &'static [&'static [Tool]],
    /// Whether `cargo xtask test NAME` sets [`Form::Full`] for its test files.
    is_full_when_named: bool,
    /// Returns the environment variables in which its test files find tools.
    variables: fn() -> Result<Variables>,
    /// The work that it does.
    pub(crate) work: Work,
}

/// The work of a step. Its result is a note for the table, such as `12 tests`.
#[derive(Debug)]
pub(crate) enum Work {
    /// Runs these test files.
    Tests(&'static [TestFiles]),
    /// Calls this function.
    Call(fn() -> Result<String>),
    /// Calls this function, which has a form for each case.
    Long(fn(Form) -> Result<String>),
}

/// How much a step does. Later forms do more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// One step of all, as in CI.
    Short,
    /// The command names the step.
    Named,
    /// The option `--full`.
    Full,
}

impl Step {
    /// Returns a step that needs no tools and has no description.
    pub(crate) const fn new(name: &'static str, work: Work) -> Self {
        let variables = || Ok(Vec::new());
        Self { name, about: "", needs: &[], is_full_when_named: false, variables, work }
    }

    /// Returns a step that calls a function.
    pub(crate) const fn call(name: &'static str, work: fn() -> Result<String>) -> Self {
        Self::new(name, Work::Call(work))
    }

    /// Returns a step that runs test files.
    pub(crate) const fn tests(name: &'static str, files: &'static [TestFiles]) -> Self {
        Self::new(name, Work::Tests(files))
    }

    /// Sets the description.
    pub(crate) const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// Sets the tools that it needs.
    pub(crate) const fn needs(self, needs: &'static [&'static [Tool]]) -> Self {
        Self { needs, ..self }
    }

    /// Sets the function that returns the environment variables of its test files.
    pub(crate) const fn variables(self, variables: fn() -> Result<Variables>) -> Self {
        Self { variables, ..self }
    }

    /// Runs the full form of its test files if the step is named.
    pub(crate) const fn full_when_named(self) -> Self {
        Self { is_full_when_named: true, ..self }
    }

    fn run(&self, form: Form) -> Result<String> {
        match self.work {
            Work::Tests(files) => {
                let full = if self.is_full_when_named { Form::Named } else { Form::Full };
                targets::run_files(files, (self.variables)()?, form >= full)
            }
            Work::Call(work) => work(),
            Work::Long(work) => work(form),
        }
    }
}

/// Runs all steps in order, also after a failure, and prints the report. Fails if a step does.
///
/// # Errors
/// If tools are missing. Then no step runs, and the error names all missing tools.
pub(crate) fn run_all(steps: &[&Step], form: Form, install: bool) -> Result<ExitCode> {
    let needs: Vec<_> = steps.iter().flat_map(|step| step.needs).copied().collect();
    tools::require(&needs, install)?;
    let mut rows = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("[{}/{}] {}: {}", index + 1, steps.len(), step.name, step.about);
        let started = now();
        let outcome = step.run(form).with_context(|| format!("{} failed", step.name));
        let took = started.elapsed();
        match &outcome {
            Ok(note) => println!("  passed in {:.1} s: {note}", took.as_secs_f64()),
            Err(error) => println!("{error:#}"),
        }
        rows.push((step.name, took, outcome.ok()));
    }
    println!("\n{}", report(&rows));
    Ok(ExitCode::from(u8::from(rows.iter().any(|row| row.2.is_none()))))
}

/// Returns the table of results: names, durations, and notes of steps that passed. Its last line is
/// `N passed, N failed`, which CI reads.
fn report(rows: &[(&str, Duration, Option<String>)]) -> String {
    let width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, took, note) in rows {
        let result = if note.is_some() { "passed" } else { "FAILED" };
        let (seconds, note) = (took.as_secs_f64(), note.as_deref().unwrap_or_default());
        text += format!("{name:width$}  {result}  {seconds:7.1} s  {note}").trim_end();
        text += "\n";
    }
    let passed = rows.iter().filter(|row| row.2.is_some()).count();
    text + &format!("\n{passed} passed, {} failed", rows.len() - passed)
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
            ("unit", Duration::from_millis(41_230), Some("312 tests".to_owned())),
            ("doc", Duration::from_millis(900), None),
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
