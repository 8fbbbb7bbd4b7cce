//! The suite `secrets`: no branch and no index of a key check depends on a secret, seen by valgrind, but for the one place
//! where the answer of the comparison becomes a branch.
//!
//! The program is `fuzz/secrets`, a workspace of its own, since it needs valgrind's headers to build.

use core::ops::RangeInclusive;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::tools::{self, Found};

/// The file that may branch on the answer, and how its function there begins.
const PLACE: (&str, &str) = ("core/src/gate.rs", "fn of(current: Choice, previous: Choice)");

/// What memcheck says of a branch and of an index.
const REPORTS: [&str; 2] =
    ["Conditional jump or move depends on uninitialised", "Use of uninitialised value"];

/// Runs the program under valgrind, and the same with a comparison as it must not be.
pub(crate) fn check(found: &[Found]) -> Result<String> {
    let (_, valgrind) = found.iter().find(|(name, _)| *name == tools::VALGRIND).context("no valgrind")?;
    let mut build = cargo();
    build.args(["build", "--release", "--manifest-path", "fuzz/secrets/Cargo.toml"]);
    build.args(["--target-dir", "target/secrets"]);
    command::run(build)?;

    let control = reports(&watch(valgrind, &["control"])?);
    ensure!(!control.is_empty(), "valgrind doesn't see a comparison that ends at the first difference");

    let lines = lines_of_place(&fs::read_to_string(PLACE.0)?)?;
    let output = watch(valgrind, &[])?;
    let (allowed, others): (Vec<_>, Vec<_>) =
        reports(&output).into_iter().partition(|report| is_in_place(report, &lines));
    ensure!(
        others.is_empty(),
        "a branch or an index depends on a secret outside of {}:{}-{}:\n{}",
        PLACE.0,
        lines.start(),
        lines.end(),
        others.iter().map(|report| report.join("\n")).collect::<Vec<_>>().join("\n\n")
    );
    ensure!(!allowed.is_empty(), "the secrets never reached the comparison:\n{output}");
    Ok("no branch, no index".to_owned())
}

fn watch(valgrind: &Path, arguments: &[&str]) -> Result<String> {
    let mut watch = Command::new(valgrind);
    watch.args(["--leak-check=no", "--read-inline-info=yes", "--error-limit=no"]);
    watch.arg("target/secrets/release/keytally-secrets").args(arguments);
    command::run(watch)
}

/// The stack of each report, the innermost frame first.
fn reports(output: &str) -> Vec<Vec<String>> {
    let mut reports = Vec::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        if REPORTS.iter().any(|report| line.contains(report)) {
            let mut stack = Vec::new();
            while let Some(frame) =
                lines.next_if(|line| line.contains("   at 0x") || line.contains("   by 0x"))
            {
                stack.push(frame.to_owned());
            }
            reports.push(stack);
        }
    }
    reports
}

/// True when the innermost frame is a line of the place.
fn is_in_place(report: &[String], lines: &RangeInclusive<usize>) -> bool {
    let Some((_, at)) = report.first().and_then(|frame| frame.split_once(": ")) else { return false };
    let line = at.strip_prefix("of (src/gate.rs:").and_then(|rest| rest.strip_suffix(')'));
    line.and_then(|line| line.parse().ok()).is_some_and(|line| lines.contains(&line))
}

/// The lines of the function that may branch.
fn lines_of_place(source: &str) -> Result<RangeInclusive<usize>> {
    let begins = |line: &str| line.contains(PLACE.1);
    let start =
        source.lines().position(begins).with_context(|| format!("{} has no `{}`", PLACE.0, PLACE.1))?;
    let ends = |line: &str| line == "    }";
    let length = source.lines().skip(start).position(ends).context("a function without an end")?;
    Ok(start + 1..=start + 1 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "==1== Conditional jump or move depends on uninitialised value(s)\n\
        ==1==    at 0x12F391: of (src/gate.rs:529)\n\
        ==1==    by 0x12F391: verify_key<&[keytally::line::Line]> (src/gate.rs:338)\n\
        ==1== \n\
        ==1== Use of uninitialised value of size 8\n\
        ==1==    at 0x12F400: digit (src/key.rs:12)\n";

    #[test]
    fn reports_are_told_apart_by_their_innermost_frame() {
        let reports = reports(OUTPUT);
        assert_eq!(reports.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert!(is_in_place(&reports[0], &(527..=534)));
        assert!(!is_in_place(&reports[0], &(530..=534)));
        assert!(!is_in_place(&reports[1], &(1..=999)));
    }

    #[test]
    fn the_place_is_found_in_the_source() {
        let source = format!("impl Match {{\n    {} -> Self {{\n        x\n    }}\n}}\n", PLACE.1);
        assert_eq!(lines_of_place(&source).unwrap(), 2..=4);
        assert!(lines_of_place("").is_err());
    }
}
