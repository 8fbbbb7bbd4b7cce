//! The suite `secrets`: valgrind reports no branch and no index of a key check that depends on a
//! secret, or on whether a key id exists. Two functions are excepted: one makes the result of the
//! comparison a branch, the other finds the reason for the log.
//!
//! The program is `tools/audit/secrets`, its own workspace, since its build needs valgrind's
//! headers.

use core::ops::RangeInclusive;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, cargo};
use crate::tools::{self, Found};

/// A run of the program, and the function in which its reports are allowed.
struct Run {
    argument: &'static str,
    /// The fact that the run hides from the check.
    hidden: &'static str,
    function: Function,
}

/// A function of core.
struct Function {
    /// The path of its file below `core`.
    file: &'static str,
    name: &'static str,
    /// The beginning of its signature.
    begin: &'static str,
}

const RUNS: [Run; 2] = [
    Run {
        argument: "secrets",
        hidden: "a secret",
        function: Function {
            file: "src/gate/secret_match.rs",
            name: "new",
            begin: "fn new(current: Choice, previous: Choice)",
        },
    },
    Run {
        argument: "ids",
        hidden: "whether a key id exists",
        function: Function {
            file: "src/gate/refusal.rs",
            name: "mismatch_reason",
            begin: "fn mismatch_reason(known: bool, pepper_there: bool)",
        },
    },
];

/// memcheck's messages for a branch and for an index.
const REPORTS: [&str; 2] =
    ["Conditional jump or move depends on uninitialised", "Use of uninitialised value"];

/// Runs the program under valgrind. The first run is a control, whose comparison must be reported.
pub(crate) fn check(found: &[Found]) -> Result<String> {
    let valgrind = tools::VALGRIND.among(found)?;
    let mut build = cargo();
    build.args(["build", "--release", "--manifest-path", "tools/audit/secrets/Cargo.toml"]);
    build.args(["--target-dir", "target/secrets"]);
    command::run(build)?;

    let control = reports(&watch(valgrind, &["control"])?);
    ensure!(
        !control.is_empty(),
        "valgrind does not report a comparison that stops at the first difference"
    );

    for Run { argument, hidden, function } in RUNS {
        let Function { file, name, begin } = function;
        let path = format!("core/{file}");
        let lines = lines_of(begin, &fs::read_to_string(&path)?)
            .with_context(|| format!("cannot find the excepted function in {path}"))?;
        let output = watch(valgrind, &[argument])?;
        let (allowed, others): (Vec<_>, Vec<_>) =
            reports(&output).into_iter().partition(|report| is_in(report, file, name, &lines));
        ensure!(
            others.is_empty(),
            "a branch or an index depends on {hidden} outside of {path}:{}-{}:\n{}",
            lines.start(),
            lines.end(),
            others.iter().map(|report| report.join("\n")).collect::<Vec<_>>().join("\n\n")
        );
        ensure!(
            !allowed.is_empty(),
            "valgrind reports nothing in `{name}`, which depends on {hidden}:\n{output}"
        );
    }
    Ok("no branch, no index".to_owned())
}

/// Runs the program under valgrind. Returns the output.
fn watch(valgrind: &Path, arguments: &[&str]) -> Result<String> {
    let mut watch = Command::new(valgrind);
    watch.args(["--leak-check=no", "--read-inline-info=yes", "--error-limit=no"]);
    watch.arg("target/secrets/release/keytally-secrets").args(arguments);
    command::run(watch)
}

/// Returns the stack of each report, with the innermost frame first.
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

/// Returns whether the innermost frame is one of these lines in the function `name`.
fn is_in(report: &[String], file: &str, name: &str, lines: &RangeInclusive<usize>) -> bool {
    let Some((_, at)) = report.first().and_then(|frame| frame.split_once(": ")) else {
        return false;
    };
    let line = at.strip_prefix(&format!("{name} ({file}:")).and_then(|rest| rest.strip_suffix(')'));
    line.and_then(|line| line.parse().ok()).is_some_and(|line| lines.contains(&line))
}

/// Returns the lines of the function whose signature begins with `begin`.
fn lines_of(begin: &str, source: &str) -> Result<RangeInclusive<usize>> {
    let mut lines = source.lines();
    let (start, first) = lines
        .by_ref()
        .enumerate()
        .find(|(_, line)| line.contains(begin))
        .with_context(|| format!("there is no `{begin}`"))?;
    let indentation = &first[..first.len() - first.trim_start().len()];
    let end = format!("{indentation}}}");
    let length =
        lines.position(|line| line == end).with_context(|| format!("`{begin}` has no end"))?;
    Ok(start + 1..=start + 2 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "==1== Conditional jump or move depends on uninitialised value(s)\n\
        ==1==    at 0x12F391: new (src/gate/secret_match.rs:18)\n\
        ==1==    by 0x12F391: verify_key<&[keytally_core::line::CacheLine]> (src/gate/verify_key.rs:38)\n\
        ==1== \n\
        ==1== Use of uninitialised value of size 8\n\
        ==1==    at 0x12F400: digit (src/key.rs:12)\n";

    #[test]
    fn report_is_excepted_by_its_innermost_frame() {
        let reports = reports(OUTPUT);
        assert_eq!(reports.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        let file = "src/gate/secret_match.rs";
        assert!(is_in(&reports[0], file, "new", &(16..=23)));
        assert!(!is_in(&reports[0], file, "new", &(19..=23)));
        assert!(!is_in(&reports[0], file, "wrong", &(16..=23)));
        assert!(!is_in(&reports[0], "src/gate.rs", "new", &(16..=23)));
        assert!(!is_in(&reports[1], file, "new", &(1..=999)));
    }

    #[test]
    fn function_is_found_by_its_signature() {
        let source =
            "impl Match {\n    fn new() -> Self {\n        x\n    }\n}\nfn wrong() {\n    x\n}\n";
        assert_eq!(lines_of("fn new()", source).unwrap(), 2..=4);
        assert_eq!(lines_of("fn wrong()", source).unwrap(), 6..=8);
        assert!(lines_of("fn new()", "").is_err());
    }
}
